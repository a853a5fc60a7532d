//! Configurations and calls, as they come.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Trusted,
    Stranger,
    Revoked,
}

/// What the hook does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    None,
    Allows,
    /// With this exit status.
    Exits(u8),
    Killed,
    /// Others may write to it. It would allow.
    Doubtful,
}

/// One configuration, and the call that is made under it.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) settings: Vec<&'static str>,
    pub(super) hook: Hook,
    pub(super) profile: Vec<&'static str>,
    pub(super) path: &'static str,
    pub(super) words: [&'static str; 3],
    pub(super) who: Who,
    pub(super) script: &'static str,
    pub(super) args: Vec<&'static str>,
}

const ACCOUNTS: [&str; 8] = [
    "run_as = daemon",
    "run_as = daemon",
    "run_as = daemon",
    "run_as = root",
    "run_as = 12345",
    "run_as = mail",
    "run_as = no-such-account",
    // The agent's own: a root executor does not take such a configuration.
    "run_as = nobody",
];

const KEYS: [&str; 19] = [
    "caps = CAP_CHOWN",
    "caps = CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE",
    "caps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes",
    "memory_max = 64M",
    "cpu_max = 50%",
    "processes_max = 30",
    "files_max = 64",
    "no_new_privileges = no",
    "environment = MODE=test",
    "readable = /bin:/usr:/lib:/lib64:/etc:/proc:{}/scripts",
    "readable = {}/none",
    "writable = {}/work",
    "writable = {}/none",
    "network = no",
    "syscalls = off",
    "working_directory = /usr",
    "working_directory = /no/such/place",
    "umask = 077",
    "timeout = 20",
];

const PATHS: [&str; 11] = [
    "{}/scripts/contract",
    "{}/scripts/contract",
    "{}/scripts/broken",
    "{}/scripts/theirs",
    "{}/scripts/plain",
    "{}/scripts/link",
    "{}/scripts/../other/ok",
    "{}/scripts/none",
    "{}/etc/ctrl-exec-agent/hidden",
    "{}/scripts",
    "/bin/true",
];

/// Mostly this, or else one of those: a gate that refuses is the last that is asked.
fn seldom<T: Clone + std::fmt::Debug + 'static>(usual: T, others: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop_oneof![20 => Just(usual), 3 => select(others.to_vec())]
}

pub(super) fn case() -> impl Strategy<Value = Case> {
    let settings = (
        seldom("", &["allowed_ips = 127.0.0.0/8", "allowed_ips = 10.0.0.0/8, ::1"]),
        seldom("", &["script_dirs = {}/scripts", "script_dirs = {}/other:{}/none"]),
        select(vec!["", "", "trusted_paths = no"]),
        select(vec!["", "", "schema = advertise"]),
    );
    let settings = settings.prop_map(|(ips, dirs, trusted, schema)| vec![ips, dirs, trusted, schema]);
    let profile = (select(ACCOUNTS.to_vec()), subsequence(KEYS.to_vec(), 0..4)).prop_map(|(account, mut keys)| {
        keys.dedup_by_key(|line| line.split(' ').next());
        keys.insert(0, account);
        keys
    });
    let line = (
        prop_oneof![2 => Just("{}/scripts/ok"), 1 => select(PATHS.to_vec())],
        select(vec!["profile=p", "profile=p", "profile=p", ""]),
        seldom("", &["sha256=RIGHT", "sha256=WRONG"]),
        seldom("", &["args=none", "args=0..2"]),
    );
    let call = (
        seldom(Who::Trusted, &[Who::Stranger, Who::Revoked]),
        seldom("x", &["unlisted", "../x", ""]),
        proptest::collection::vec(select(vec!["7", "7", "word", "-x", "", "ü"]), 0..3),
        proptest::bool::weighted(0.03),
    );
    let hooks =
        [Hook::Allows, Hook::Allows, Hook::Exits(1), Hook::Exits(3), Hook::Exits(77), Hook::Killed, Hook::Doubtful];
    let hook = prop_oneof![5 => Just(Hook::None), 2 => select(hooks.to_vec())];
    (settings, hook, profile, line, call).prop_map(|(settings, hook, profile, line, call)| Case {
        settings,
        hook,
        profile,
        path: line.0,
        words: [line.1, line.2, line.3],
        who: call.0,
        script: call.1,
        args: if call.3 { vec!["7"; 300] } else { call.2 },
    })
}
