//! The only unsafe code: safe functions named after intent.

pub mod localtime;
