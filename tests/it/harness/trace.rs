//! What a process asks of the kernel, in the order in which it does, by strace(1): the one witness that something was on
//! the disk before somebody was told so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::eventually;

/// Every call by which a file comes to its place, is locked or goes, and every one that tells somebody something.
const CALLS: &str = "open,openat,close,flock,write,pwrite64,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,\
                     renameat2,link,linkat,unlink,unlinkat";

/// Where a process's calls are written down.
#[derive(Debug)]
pub(crate) struct Trace(PathBuf);

/// One call. Others may have begun or ended between its beginning and its end.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) begun: usize,
    pub(crate) ended: usize,
    /// As strace writes it: `fsync(3</place>) = 0`.
    pub(crate) text: String,
}

impl Trace {
    /// Into this file.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Words of a shell that put the tracer before the program in its arguments. The program stays the shell's process.
    pub(crate) fn words(&self) -> String {
        format!("set -- strace -D {} \"$@\"", self.options().join(" "))
    }

    /// The same command, traced to its end.
    pub(crate) fn of(&self, command: &Command) -> Command {
        let mut traced = Command::new("strace");
        traced.args(self.options()).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => traced.env(name, value),
                None => traced.env_remove(name),
            };
        }
        traced
    }

    fn options(&self) -> [String; 6] {
        let place = self.0.display().to_string();
        ["-f", "-y", "-e", &format!("trace={CALLS}"), "-o", &place].map(str::to_owned)
    }

    /// Waits until a call like this was made after `mark` lines, and returns all that were.
    pub(crate) fn until(&self, mark: usize, wanted: impl Fn(&[Call]) -> bool) -> Vec<Call> {
        eventually("the calls of the traced process", || {
            let calls: Vec<Call> = self.calls().into_iter().filter(|call| call.begun >= mark).collect();
            wanted(&calls).then_some(calls)
        })
    }

    /// How many lines there are by now.
    pub(crate) fn mark(&self) -> usize {
        self.text().lines().count()
    }

    /// Those that have ended, in the order in which they did.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let (mut calls, mut pending) = (Vec::new(), HashMap::new());
        for (number, line) in self.text().lines().enumerate() {
            let Some((process, said)) = line.split_once(' ') else { continue };
            let said = said.trim_start();
            if let Some(first) = said.strip_suffix("<unfinished ...>") {
                pending.insert(process.to_owned(), (number, first.to_owned()));
            } else if let Some((_, rest)) = said.split_once(" resumed>") {
                let Some((begun, first)) = pending.remove(process) else { continue };
                calls.push(Call { begun, ended: number, text: first + rest });
            } else if said.contains(" = ") {
                calls.push(Call { begun: number, ended: number, text: said.to_owned() });
            }
        }
        calls
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap_or_default()
    }
}

impl Call {
    /// Whether it is one of `names`, has succeeded, and its first argument is a descriptor of this file.
    pub(crate) fn on(&self, names: &[&str], file: &Path) -> bool {
        self.is(names) && self.text.contains(&format!("<{}>", file.display()))
    }

    /// Whether it is one of `names`, and has succeeded.
    pub(crate) fn is(&self, names: &[&str]) -> bool {
        let name = self.text.split('(').next().unwrap_or_default();
        names.contains(&name) && !self.text.contains(" = -1 ")
    }

    /// Whether it tells another process something.
    pub(crate) fn tells(&self) -> bool {
        self.is(&["sendto", "sendmsg"]) || self.is(&["write", "writev"]) && self.text.contains("<socket:[")
    }

    /// The descriptor in its first argument.
    fn descriptor(&self) -> Option<&str> {
        self.text.split_once('(')?.1.split_once('<').map(|(number, _)| number)
    }
}

/// When the writing of a new content began, and when it was safe under its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) begun: usize,
    pub(crate) durable: usize,
}

const PLACING: [&str; 5] = ["rename", "renameat", "renameat2", "link", "linkat"];
const SYNCING: [&str; 2] = ["fsync", "fdatasync"];

/// Demands that `path` got a new content once, that this content was on the disk before it got its name, and the name
/// after that.
#[track_caller]
pub(crate) fn kept(calls: &[Call], path: &Path) -> Kept {
    let place = format!("\"{}\"", path.display());
    let mut naming = calls.iter().filter(|call| call.is(&PLACING) && call.text.contains(&place));
    let (Some(naming), None) = (naming.next(), naming.next()) else {
        panic!("not one new content of {}: {calls:#?}", path.display());
    };
    let fresh = naming.text.split('"').nth(1).map(Path::new).unwrap();
    assert_eq!(fresh.parent(), path.parent(), "a rename within one file system: {naming:?}");
    let writes: Vec<&Call> = calls.iter().filter(|call| call.on(&["write", "pwrite64", "writev"], fresh)).collect();
    let (Some(first), Some(last)) = (writes.first(), writes.last()) else { panic!("no content: {calls:#?}") };
    let synced = |file: &Path, after: usize| {
        calls.iter().find(|call| call.on(&SYNCING, file) && call.begun > after).map_or(usize::MAX, |call| call.ended)
    };
    let content = synced(fresh, last.ended);
    assert!(content < naming.begun, "the content of {} is not on the disk: {calls:#?}", path.display());
    let durable = synced(path.parent().unwrap(), naming.ended);
    assert!(durable < usize::MAX, "the name of {} is not on the disk: {calls:#?}", path.display());
    Kept { begun: first.begun, durable }
}

/// Demands that a lock was held on `place` alone for all that time.
#[track_caller]
pub(crate) fn locked(calls: &[Call], place: &Path, kept: Kept) {
    let taken = |call: &&Call| call.on(&["flock"], place) && call.text.contains("LOCK_EX") && call.ended < kept.begun;
    let taken = calls.iter().rev().find(taken).unwrap_or_else(|| panic!("no lock of {}: {calls:#?}", place.display()));
    let freed = |call: &&Call| {
        let over = call.on(&["close"], place) || call.on(&["flock"], place) && call.text.contains("LOCK_UN");
        over && call.begun > taken.ended && call.descriptor() == taken.descriptor()
    };
    let freed = calls.iter().find(freed).map_or(usize::MAX, |call| call.begun);
    assert!(freed > kept.durable, "the lock was gone before the change was safe: {calls:#?}");
}
