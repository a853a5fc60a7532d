//! Why a program did not start, in words: of a run, and of the explanation of one.

use std::io::{Error, ErrorKind};

use super::decide::Plan;
use crate::sys::process::NOT_A_PROGRAM;
use crate::sys::{file, user};

/// Why the working directory was not entered; `text` names it and has the system's reason.
pub(super) fn unentered(text: &str, kind: ErrorKind, plan: &Plan) -> String {
    let denied = kind == ErrorKind::PermissionDenied;
    let entered = if denied { ", which its account may not enter" } else { "" };
    format!("{text}: it is the working_directory of profile '{}'{entered}", plan.profile())
}

/// What exec's refusal of the program means.
pub(super) fn unexecuted(reason: &Error, plan: &Plan) -> String {
    let program = file::path_of(plan.program());
    match reason.kind() {
        ErrorKind::NotFound if std::fs::metadata(program).is_ok() => {
            format!("{reason}: the file is there, so the program that its '#!' line names is not")
        }
        ErrorKind::NotFound => format!("{}: {reason}", program.display()),
        _ if reason.raw_os_error() == Some(NOT_A_PROGRAM) => {
            format!("{reason}: a script needs a '#!' line, a program must be made for this kind of machine")
        }
        ErrorKind::PermissionDenied => {
            let confinement = plan.confinement();
            let uid = confinement.map_or(user::current().0, |confinement| confinement.person().uid);
            let readable = confinement.is_some_and(|confinement| confinement.profile().readable.is_some());
            let trees =
                if readable { ", or it needs a program or library outside of its profile's 'readable'" } else { "" };
            let why = "may not execute the file or enter a directory above it, or it is mounted noexec";
            format!("{reason}: uid {uid} {why}{trees}")
        }
        _ => reason.to_string(),
    }
}
