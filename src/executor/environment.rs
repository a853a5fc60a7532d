//! The environment of a script: a fixed search path, and who it runs as or, of one that is the executor itself, a few words
//! about language and place. Nothing else.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

use super::confinement::Confinement;
use crate::wire::trace::TraceParent;

/// The search path of every script.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is passed on if the executor has it, to a script that is as little confined.
const PASSED: [&str; 7] = ["HOME", "LANG", "LC_ALL", "TZ", "TERM", "USER", "LOGNAME"];
/// A script's environment, given a way to look into this process's own.
pub(super) fn environment(own: impl Fn(&str) -> Option<OsString>) -> Vec<CString> {
    words(passed(own))
}

/// As [`environment`], for a script that is confined: who it runs as, and what its profile sets, which replaces anything else
/// of the same name. Nothing of it is the executor's, or of whoever started that.
pub(super) fn environment_of(confinement: &Confinement) -> Vec<CString> {
    let mut all: Vec<(&str, Vec<u8>)> = vec![("PATH", PATH.into())];
    for (name, value) in confinement.environment() {
        all.retain(|(known, _)| *known != name);
        all.push((name, value.into()));
    }
    words(all.into_iter())
}

/// Adds the trace that the run is part of, unless the profile sets that itself.
pub(super) fn traced(mut all: Vec<CString>, trace: Option<&TraceParent>) -> Vec<CString> {
    let word = trace.and_then(|trace| CString::new(format!("{}={trace}", TraceParent::VARIABLE)).ok());
    let set =
        |known: &CString| known.to_bytes().split(|byte| *byte == b'=').next() == Some(TraceParent::VARIABLE.as_bytes());
    if !all.iter().any(set) {
        all.extend(word);
    }
    all
}

/// What is passed on to a script under this confinement, where the executor has it.
pub(super) fn passed_on(confinement: Option<&Confinement>) -> Vec<&'static str> {
    confinement.map_or_else(|| PASSED.to_vec(), |_| Vec::new())
}

fn passed(own: impl Fn(&str) -> Option<OsString>) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let passed = PASSED.into_iter().filter_map(move |name| Some((name, own(name)?.into_vec())));
    [("PATH", PATH.into())].into_iter().chain(passed)
}

fn words<'a>(all: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<CString> {
    // What holds a NUL byte came from no environment and no configuration file.
    all.filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", &value].concat()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_variables_are_passed_on() {
        let own = |name: &str| (name == "TZ" || name == "LANG").then(|| OsString::from("x"));
        let path = CString::new(format!("PATH={PATH}")).unwrap();
        assert_eq!(environment(own), [path.clone(), c"LANG=x".to_owned(), c"TZ=x".to_owned()]);
        assert_eq!(environment(|_| None), [path]);
    }

    #[test]
    fn a_trace_is_added_unless_it_is_set_already() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = TraceParent::parse(text).unwrap();
        let word = CString::new(format!("TRACEPARENT={text}")).unwrap();
        assert_eq!(traced(vec![], Some(&trace)), [word]);
        let own = c"TRACEPARENT=mine".to_owned();
        assert_eq!(traced(vec![own.clone()], Some(&trace)), [own]);
        assert!(traced(vec![], None).is_empty());
    }
}
