//! The environment of a script: a fixed search path and a few words about language and place, nothing else.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// The search path of every script.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is passed on if the executor has it.
const PASSED: [&str; 7] = ["HOME", "LANG", "LC_ALL", "TZ", "TERM", "USER", "LOGNAME"];

/// A script's environment, given a way to look into this process's own.
pub(super) fn environment(own: impl Fn(&str) -> Option<OsString>) -> Vec<CString> {
    let passed = PASSED.iter().filter_map(|name| {
        let value = own(name)?.into_vec();
        CString::new([name.as_bytes(), b"=", &value].concat()).ok()
    });
    CString::new(PATH).into_iter().chain(passed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_variables_are_passed_on() {
        let own = |name: &str| (name == "TZ" || name == "LANG").then(|| OsString::from("x"));
        let path = CString::new(PATH).unwrap();
        assert_eq!(environment(own), [path.clone(), c"LANG=x".to_owned(), c"TZ=x".to_owned()]);
        assert_eq!(environment(|_| None), [path]);
    }
}
