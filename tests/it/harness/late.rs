//! A script that reads its input only when nobody writes it any more.

use std::path::Path;

use super::{Agent, eventually};

/// A shell script that says which pipe its input is, and counts what it has of it as soon as it may.
pub(crate) const READS_LATE: &str =
    "readlink /proc/self/fd/0 > {work}/input; while [ ! -e {work}/go ]; do sleep 0.02; done; wc -c";

impl Agent {
    /// Lets a script of [`READS_LATE`] read once the agent has given up writing to it.
    pub(crate) fn let_read_late(&self) {
        let input = self.worked("input");
        let has_it_open = || {
            let open = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
            let mut links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.any(|link| link == Path::new(&input))
        };
        eventually("the end of the script's input", || (!has_it_open()).then_some(()));
        std::fs::write(self.work("go"), "").unwrap();
    }
}
