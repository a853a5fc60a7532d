//! The only unsafe code: safe functions named after intent.
//!
//! What another room needs from the kernel stands here under the name of the need. Callers see descriptors as
//! [`std::os::fd::OwnedFd`], so nothing leaks; every descriptor made here is closed on exec.

#[cfg(test)]
pub(crate) mod attempt;
mod call;
pub mod capability;
pub mod cgroup;
pub mod clock;
pub mod descriptors;
pub mod fdpass;
pub mod file;
pub mod handover;
pub mod host;
pub mod inherited;
pub mod kernel;
pub mod landlock;
pub mod listener;
pub mod listening;
pub mod localtime;
pub mod locks;
pub mod memory;
pub mod mount;
pub mod mounts;
pub mod network;
pub mod notify;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod random;
pub mod seccomp;
pub mod shortage;
pub mod signal;
pub mod socket;
pub mod spaces;
pub mod stderr;
pub mod trial;
pub mod usage;
pub mod user;
