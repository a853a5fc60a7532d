//! The system's reason for what did not come about, and what there is too little of, where that is it.

use std::fmt::Display;

use crate::sys::process::Failure;
use crate::sys::shortage;

/// Why a step of a confinement failed, with what there is too little of, where it is that.
pub(super) fn why(failure: &Failure) -> String {
    let reason = failure.reason();
    let short = match failure.step() {
        // The process is there, and its time limit needs a signal to wait.
        "process-namespace" => shortage::of_signals(&reason),
        "namespaces" | "locked" => shortage::of_namespaces(&reason),
        _ => None,
    };
    with(failure, short)
}

/// A reason, and what there is too little of.
pub(super) fn with(reason: &dyn Display, short: Option<String>) -> String {
    short.map_or_else(|| reason.to_string(), |why| format!("{reason}: {why}"))
}
