//! Every key of a profile and every word beside a script's path, each tried twice by the same script: where it forbids
//! something, and where it permits just that. The two differ in this key alone, so that it is the key that decides; and
//! a key without such twins fails the test.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::attempts::tries;
use super::harness::{Executor, order};
use crate::conf::{agent, scripts};
use crate::sys::cgroup::{Controllers, Delegation};
use crate::wire::control::Reloaded;
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

/// What came of an attempt; anything but these two is no answer, and fails the test.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Forbidden,
    Permitted,
}

use Came::{Forbidden, Permitted};

/// A key with a value that forbids something and one that permits it; without a value, the key is left out. A limit that
/// permits it is not far above what is tried, so that one that comes out too low would show.
struct Twins {
    key: &'static str,
    forbids: Option<&'static str>,
    permits: Option<&'static str>,
    /// Makes the attempt, where this line is in the profile or beside the script's path.
    attempt: fn(&str) -> Came,
}

const fn twins(
    key: &'static str,
    forbids: Option<&'static str>,
    permits: Option<&'static str>,
    attempt: fn(&str) -> Came,
) -> Twins {
    Twins { key, forbids, permits, attempt }
}

const SYSTEM: &str = "/usr:/bin:/lib:/lib64";
const SYSTEM_AND_OTHER: &str = "/usr:/bin:/lib:/lib64:{}/other";

const KEYS: [Twins; 17] = [
    twins("run_as", Some("nobody"), Some("root"), reading_a_file_of_roots),
    twins("caps", Some("CAP_KILL"), Some("CAP_CHOWN"), giving_a_file_away),
    twins("allow_dangerous_caps", Some("no"), Some("yes"), having_a_dangerous_capability),
    twins("writable", Some("{}/open"), Some("{}/other"), writing),
    twins("readable", Some(SYSTEM), Some(SYSTEM_AND_OTHER), reading),
    twins("no_new_privileges", Some("yes"), Some("no"), becoming_root),
    twins("timeout", Some("1"), Some("60"), running_until_it_is_told),
    twins("kill_grace", Some("1"), Some("3600"), tidying_up_until_it_is_told),
    twins("memory_max", Some("32M"), Some("128M"), taking_memory),
    twins("processes_max", Some("5"), Some("12"), starting_processes),
    twins("cpu_max", Some("10"), Some("150"), computing),
    twins("files_max", Some("40"), Some("41"), opening_files),
    twins("network", Some("no"), Some("yes"), connecting),
    twins("syscalls", Some("default"), Some("off"), calling_ptrace),
    twins("umask", Some("0077"), Some("0022"), making_a_file_that_others_read),
    twins("environment", Some("OTHER=x"), Some("GREETING=\"good day\""), finding_a_variable),
    twins("working_directory", Some("{}/closed"), Some("{}/open"), starting_there),
];

const WORDS: [Twins; 3] = [
    twins("profile", Some("default"), Some("strong"), listed_and_reading_a_file_of_roots),
    twins("sha256", Some(OTHER_DIGEST), Some(DIGEST), listed_and_run),
    twins("args", Some("none"), Some("1"), listed_and_run),
];

/// Tries all of them.
fn all_decide(all: &[Twins], known: &[&str], line: fn(&str, &str) -> String) {
    let names: Vec<&str> = all.iter().map(|twins| twins.key).collect();
    assert_eq!(sorted(&names), sorted(known), "each has its twins here");
    for Twins { key, forbids, permits, attempt } in all {
        for (value, expected) in [(forbids, Forbidden), (permits, Permitted)] {
            let line = value.map_or_else(String::new, |value| line(key, value));
            assert_eq!(attempt(&line), expected, "{line}");
        }
    }
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

#[test]
fn every_key_of_a_profile_forbids_what_it_is_for_and_permits_it_where_it_says_so() {
    all_decide(&KEYS, agent::profile_keys(), |key, value| format!("{key} = {value}"));
}

#[test]
fn every_word_beside_a_scripts_path_forbids_what_it_is_for_and_permits_it_where_it_says_so() {
    all_decide(&WORDS, &scripts::words(), |key, value| format!("{key}={value}"));
}

/// Which of the two a text shows, by the words for either.
fn told(text: &str, forbidden: &str, permitted: &str) -> Came {
    match (text.contains(forbidden), text.contains(permitted)) {
        (true, false) => Forbidden,
        (false, true) => Permitted,
        _ => panic!("neither '{forbidden}' nor '{permitted}', or both: {text}"),
    }
}

/// As [`told`], of the answer of one attempt.
fn answered(executor: &Executor, attempt: &str, forbidden: &str) -> Came {
    told(&tries(executor, &[attempt]).concat(), forbidden, "done")
}

/// A file in the test's directory that root alone may read.
fn of_roots(executor: &Executor) {
    executor.write("other/x", "seen");
    std::fs::set_permissions(executor.path("other/x"), PermissionsExt::from_mode(0o600)).unwrap();
}

fn reading_a_file_of_roots(line: &str) -> Came {
    let executor = Executor::root(line);
    of_roots(&executor);
    told(&executor.says("cat {}/other/x"), "Permission denied", "seen")
}

fn giving_a_file_away(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = root\n{line}"));
    executor.write("open/file", "");
    answered(&executor, "own {}/open/file 12345", "EPERM")
}

fn having_a_dangerous_capability(line: &str) -> Came {
    let executor = Executor::spawn_root(&[], &format!("run_as = nobody\ncaps = CAP_SYS_ADMIN\n{line}"));
    match executor.answer() {
        Reloaded::Failed { text } => told(&text, "allow_dangerous_caps", "CapEff"),
        Reloaded::Unable { text } => panic!("{text}"),
        Reloaded::Done => told(&executor.says("grep CapEff /proc/self/status"), "000000000000\n", "0000000000200000"),
    }
}

fn writing(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = nobody\n{line}"));
    let said = executor.says("echo x > {}/other/x && echo written");
    assert_eq!(executor.path("other/x").exists(), said == "written\n", "{said}");
    // Of a writable path below /tmp, what lies beside it is not even there.
    told(&said, "cannot create", "written")
}

/// Reading and executing, which go together.
fn reading(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = nobody\n{line}"));
    executor.write("other/x", "seen");
    let program = executor.program("other/program", "/bin/echo");
    let read = told(&executor.says("cat {}/other/x"), "Permission denied", "seen");
    let executed = told(&executor.says(&format!("{} executed", program.display())), "Permission denied", "executed");
    assert_eq!(read, executed, "{line}");
    read
}

fn becoming_root(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = nobody\n{line}"));
    let program = executor.set_user_id("other/program", "/bin/grep");
    let text = format!("{} ^Uid: /proc/self/status | tr '\\t' ' '", program.display());
    told(&executor.says(&text), "Uid: 65534 65534 ", "Uid: 65534 0 ")
}

/// A shell's words that wait for a file which the test makes.
const WAIT: &str = "while [ ! -e {}/open/go ]; do sleep 0.1; done";

fn running_until_it_is_told(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = nobody\nkill_grace = 0\n{line}"));
    // What else could end it is not made where there is to be no time.
    let patient = line.ends_with("= 60");
    if patient {
        executor.write("open/go", "");
    }
    let place = executor.path("");
    let (outcome, said, _) =
        executor.shell(&format!("{WAIT}; sleep 2; echo over").replace("{}/", place.to_str().unwrap()), &[]).finish();
    match outcome {
        Outcome::TimedOut { limit_ms: 1000 } if said.is_empty() => Forbidden,
        Outcome::Exited { code: 0 } if patient && said == "over\n" => Permitted,
        other => panic!("{other:?}: {said}"),
    }
}

fn tidying_up_until_it_is_told(line: &str) -> Came {
    let patient = line.ends_with("3600");
    let executor = Executor::root(&format!("run_as = nobody\n{line}"));
    let text = format!("trap 'echo asked' TERM; echo up; {WAIT}; echo tidied");
    let mut run = executor.shell(&text.replace("{}/", executor.path("").to_str().unwrap()), &[]);
    assert_eq!(run.line(), "up");
    let asked = Instant::now();
    run.cancel();
    if patient {
        assert_eq!(run.line(), "asked");
        executor.write("open/go", "");
    }
    assert_eq!(run.outcome(), Outcome::Cancelled);
    assert!(patient || asked.elapsed() >= Duration::from_secs(1), "it had its time");
    if run.rest().ends_with("tidied\n") { Permitted } else { Forbidden }
}

/// What comes of a run under a limit that this host may be unable to enforce: then it is refused by the limit's name, and its
/// twin is the one without a limit.
fn limited(line: &str, text: &str, lent: fn(Controllers) -> bool) -> (Outcome, String) {
    let lent = lent(Delegation::find().and_then(|here| here.controllers()).unwrap_or_default());
    let run = |line: &str| Executor::root(&format!("run_as = nobody\n{line}")).shell(text, &[]).finish();
    let (mut outcome, mut out, mut errors) = run(line);
    let key = line.split(' ').next().unwrap();
    let refused = matches!(&outcome, Outcome::NotConfined { step, .. } if step == key) && out.is_empty();
    assert_eq!(refused, !lent, "{key}: {outcome:?}");
    let permits = KEYS.iter().find(|twins| twins.key == key).unwrap().permits.unwrap();
    if refused && line.ends_with(&format!("= {permits}")) {
        (outcome, out, errors) = run("");
    }
    (outcome, out + &errors)
}

fn taking_memory(line: &str) -> Came {
    let text = "head -c 100000000 /dev/zero | tail -n 1 > /dev/null; echo ran";
    match limited(line, text, |lent| lent.memory) {
        (Outcome::NotConfined { .. } | Outcome::OutOfMemory { limit: 0x200_0000 }, _) => Forbidden,
        (Outcome::Exited { code: 0 }, said) if said == "ran\n" => Permitted,
        other => panic!("{other:?}"),
    }
}

fn starting_processes(line: &str) -> Came {
    // An account of its own, since without groups others of the same account count too.
    let executor = Executor::root(&format!("run_as = 61237\n{line}"));
    told(&executor.says("for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; echo started"), "fork", "started")
}

fn computing(line: &str) -> Came {
    // Until it has been made to wait for its next share, or has used more than a share again and again.
    let text = "stat=/sys/fs/cgroup$(grep ^0: /proc/self/cgroup | cut -d: -f3)/cpu.stat; i=0
        while [ $i -lt 100 ]; do
            grep -qs '^nr_throttled [1-9]' $stat && echo throttled && exit; i=$((i + 1))
        done; echo free";
    match limited(line, text, |lent| lent.cpu) {
        (Outcome::NotConfined { .. }, _) => Forbidden,
        (Outcome::Exited { code: 0 }, said) => told(&said, "throttled\n", "free\n"),
        other => panic!("{other:?}"),
    }
}

fn opening_files(line: &str) -> Came {
    answered(&Executor::root(&format!("run_as = root\n{line}")), "files 41", "EMFILE")
}

fn connecting(line: &str) -> Came {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = format!("tcp {}", listener.local_addr().unwrap());
    answered(&Executor::root(&format!("run_as = root\n{line}")), &connect, "ENETUNREACH")
}

fn calling_ptrace(line: &str) -> Came {
    answered(&Executor::root(&format!("run_as = root\n{line}")), "call ptrace", "EPERM")
}

fn making_a_file_that_others_read(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = nobody\n{line}"));
    assert_eq!(executor.says("> {}/open/made"), "");
    match std::fs::metadata(executor.path("open/made")).unwrap().mode() & 0o777 {
        0o600 => Forbidden,
        0o644 => Permitted,
        other => panic!("{other:o}"),
    }
}

fn finding_a_variable(line: &str) -> Came {
    let executor = Executor::spawn_listing(&[], "env = /usr/bin/env\n", &format!("run_as = nobody\n{line}"));
    assert_eq!(executor.answer(), Reloaded::Done);
    let (_, said, _) = executor.run(&order("env", &[], Mode::Attached)).finish();
    // The executor has others, a secret among them: no script ever finds one that is neither documented nor listed.
    let names: Vec<&str> = said.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let own = if line.contains("OTHER") { "OTHER" } else { "GREETING" };
    assert_eq!(sorted(&names), sorted(&["HOME", "LOGNAME", "PATH", "USER", own]), "{said}");
    told(&said, "OTHER=x\n", "GREETING=good day\n")
}

fn starting_there(line: &str) -> Came {
    let executor = Executor::root(&format!("run_as = nobody\n{line}"));
    std::fs::create_dir(executor.path("closed")).unwrap();
    std::fs::set_permissions(executor.path("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    match executor.shell("pwd", &[]).finish() {
        (Outcome::NotStarted { step, reason }, out, _) if step == "directory" && out.is_empty() => {
            assert!(reason.contains("/closed") && reason.contains("may not enter"), "{reason}");
            Forbidden
        }
        (Outcome::Exited { code: 0 }, out, _) if out.trim_end() == executor.path("open").to_str().unwrap() => Permitted,
        other => panic!("{other:?}"),
    }
}

/// A script, its digest, and the digest of nothing.
const SCRIPT: &str = "#!/bin/sh\necho seen $#\n";
const DIGEST: &str = "7efe82ad0900fc2deae2c74e22ce23413a1b06c6953f75c16a90b20f9a1bb56b";
const OTHER_DIGEST: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An executor that has a script `x` listed with this word beside its path, and an account for each of two profiles; and the
/// script's directory, where nobody else can put one.
fn listing(word: &str, script: &str) -> (Executor, TempDir) {
    let profile = "run_as = nobody\n[profile strong]\nrun_as = root";
    let place = tempfile::tempdir_in("/var/lib").unwrap();
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = place.path().join("x");
    let executor = Executor::spawn_listing(&[], &format!("x = {} {word}\n", path.display()), profile);
    assert_eq!(executor.answer(), Reloaded::Done);
    let script = executor.script("x", &script.replace("{}/", executor.path("").to_str().unwrap()));
    // By another process, as it was written.
    #[expect(clippy::disallowed_methods, reason = "a process that writes what this one must not have open")]
    let moved = Command::new("mv").args([&script, &path]).status();
    assert!(moved.unwrap().success());
    (executor, place)
}

fn listed_and_reading_a_file_of_roots(word: &str) -> Came {
    let (executor, _place) = listing(word, "#!/bin/sh\ncat {}/other/x 2>&1\n");
    of_roots(&executor);
    let (_, out, _) = executor.run(&order("x", &[], Mode::Attached)).finish();
    told(&out, "Permission denied", "seen")
}

fn listed_and_run(word: &str) -> Came {
    let (executor, _place) = listing(word, SCRIPT);
    match executor.run(&order("x", &["an argument"], Mode::Attached)).finish() {
        (Outcome::Refused(refusal), out, _) if out.is_empty() => {
            let code = if word.starts_with("args") { "arguments-count" } else { "script-changed" };
            assert_eq!(refusal.code(), code, "{refusal:?}");
            Forbidden
        }
        (Outcome::Exited { code: 0 }, out, _) if out == "seen 1\n" => Permitted,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_directory_that_a_script_does_not_find_is_never_exchanged_for_another() {
    let beside = "writable = {}/open";
    for (lines, directory) in [
        ("", "/no/such/place"),
        ("", "/etc/passwd"),
        // Hidden, and covered by a private place.
        ("", "{}/conf"),
        (beside, "{}/other"),
    ] {
        let executor = Executor::root(&format!("run_as = nobody\nworking_directory = {directory}\n{lines}"));
        match executor.shell("echo ran", &[]).finish() {
            (Outcome::NotStarted { step, reason }, out, _) => {
                assert!(step == "directory" && out.is_empty(), "{directory}: {step}: {out}");
                assert!(reason.contains("working_directory"), "{directory}: {reason}");
            }
            other => panic!("{directory}: {other:?}"),
        }
    }
    let twin = Executor::root(&format!("run_as = nobody\nworking_directory = {{}}/open\n{beside}"));
    assert_eq!(twin.says("pwd").trim_end(), twin.path("open").to_str().unwrap());
}

#[test]
fn a_variable_by_which_a_program_loads_code_is_refused_at_the_start() {
    for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES", "BASH_ENV", "ENV"] {
        let executor = Executor::spawn_root(&[], &format!("run_as = nobody\nenvironment = A=b {name}=/tmp/x"));
        let Reloaded::Failed { text } = executor.answer() else { panic!("{name} is not refused") };
        assert!(text.contains(&format!("cannot set '{name}'")), "{text}");
    }
    let twin = Executor::root("run_as = nobody\nenvironment = A=b PATH=/bin:/usr/bin TZ=UTC");
    assert_eq!(twin.says("echo $A $PATH $TZ"), "b /bin:/usr/bin UTC\n");
}
