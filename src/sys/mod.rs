//! The only unsafe code: safe functions named after intent.
