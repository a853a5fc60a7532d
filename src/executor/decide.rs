//! Order and policy to plan or refusal.
//!
//! # What is judged is what is executed
//!
//! A root executor walks the path component by component and refuses what anybody but root could have written or put
//! there, unless the configuration lifts that. Without that and without `script_dirs` no path is judged, and the
//! configured path is executed as it stands. Else the path is resolved on an opened descriptor and the *resolved* path
//! is compared with the resolved directories, if there are any. That path is then executed, so that a symbolic link
//! that is turned elsewhere afterwards changes nothing; and right before exec the file found there must still have the
//! device and inode that were judged.
//!
//! Executing the judged descriptor itself (`execveat`) would close the last gap, but a `#!` script would then see
//! `/dev/fd/N` as its `$0` and its interpreter would need the descriptor left open. What remains is an exchange between
//! that check and exec by somebody who may write to a directory that the administrator has named for scripts.
//!
//! In both cases argv\[0\] is the configured path, literally. (A `#!` script's `$0` comes from the executed path:
//! the kernel puts it there, execve(2).)

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::confinement::Confinement;
use super::host::HostFacts;
use super::pins;
use super::policy::{Keepers, Policy, Script};
use crate::sys::file::Resolved;
use crate::sys::process::Expected;
use crate::wire::causes;
use crate::wire::order::{Mode, Order};
use crate::wire::refusal::Refusal;
use crate::wire::trace::TraceParent;

/// Judges an order.
///
/// # Errors
/// The refusal for the caller: the order is not one that any executor would take, the script is not on the
/// allowlist, not in `script_dirs`, not what its line pins ([`Pins`](super::Pins)), its profile is not defined, or the
/// profile cannot be applied on this host.
pub fn decide(order: &Order, policy: &Policy, facts: &dyn HostFacts) -> Result<Plan, Refusal> {
    decide_telling(order, policy, facts, &mut |_| {})
}

/// As [`decide`], and tells each gate that was passed. The first that was not is the one that refused.
pub(super) fn decide_telling(
    order: &Order,
    policy: &Policy,
    facts: &dyn HostFacts,
    passed: &mut dyn FnMut(Gate),
) -> Result<Plan, Refusal> {
    order.check()?;
    passed(Gate::Order);
    let refuse = |code, text: &str| Refusal::new(code, text);
    let script = policy.scripts.get(order.script());
    let script = script.ok_or_else(|| refuse("script-not-permitted", "script not permitted"))?;
    passed(Gate::Allowlist);
    let (program, expected) = program(script, policy, facts)?;
    passed(Gate::Place);
    let expected = pins::judge(script.pins, order.args(), expected, || facts.content(&program))?;
    passed(Gate::Pins);
    let limits = policy.profiles.get(&script.profile).ok_or_else(|| {
        let name = &script.profile;
        refuse("undefined-profile", &format!("undefined profile '{name}': agent.conf needs a section [profile {name}]"))
    })?;
    passed(Gate::Profile);
    let confined = policy.confinements.as_ref();
    let confinement = confined.map(|all| all.of(&script.profile, &program, facts)).transpose()?;
    passed(Gate::Confinement);
    Ok(Plan {
        confinement,
        program: text(program.as_os_str().as_bytes())?,
        argv: argv(&script.path, order.args())?,
        expected,
        profile: script.profile.clone(),
        mode: order.mode(),
        time_limit: shorter(order.requested_limit(), limits.timeout),
        kill_grace: limits.kill_grace,
        trace: order.trace().cloned(),
    })
}

/// What a decision asks about, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// The order itself: version, count and sizes of its arguments.
    Order,
    /// `scripts.conf`.
    Allowlist,
    /// `trusted_paths` and `script_dirs`.
    Place,
    /// `args=` and `sha256=`.
    Pins,
    /// Whether the profile is defined.
    Profile,
    /// What the profile orders.
    Confinement,
}

/// A permitted run.
///
/// **Invariant:** only [`decide`] makes one, so that nothing can be run without a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    program: CString,
    argv: Vec<CString>,
    expected: Expected,
    profile: String,
    mode: Mode,
    time_limit: Option<Duration>,
    kill_grace: Duration,
    confinement: Option<Confinement>,
    trace: Option<TraceParent>,
}

impl Plan {
    /// The trace that the run is part of.
    #[must_use]
    pub const fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// What the script is confined to; nothing under a private executor, which has no right to confine anybody.
    #[must_use]
    pub const fn confinement(&self) -> Option<&Confinement> {
        self.confinement.as_ref()
    }

    /// The file to execute.
    #[must_use]
    pub fn program(&self) -> &CString {
        &self.program
    }

    /// The argument vector, from the configured path on.
    #[must_use]
    pub fn argv(&self) -> &[CString] {
        &self.argv
    }

    /// What the file must still be at exec.
    #[must_use]
    pub const fn expected(&self) -> Expected {
        self.expected
    }

    /// The profile's name.
    #[must_use]
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// Attached or detached.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The shorter of the order's and the profile's limit.
    #[must_use]
    pub const fn time_limit(&self) -> Option<Duration> {
        self.time_limit
    }

    /// Time between asking the script to end and killing it.
    #[must_use]
    pub const fn kill_grace(&self) -> Duration {
        self.kill_grace
    }
}

/// The file to execute, and what it must be.
fn program(script: &Script, policy: &Policy, facts: &dyn HostFacts) -> Result<(PathBuf, Expected), Refusal> {
    let dirs = policy.script_dirs.as_deref();
    let keepers = script.keepers(policy.paths);
    if dirs.is_none() && keepers == Keepers::Anybody {
        return Ok((script.path.clone(), Expected::Anything));
    }
    let (path, expected) = match judged(script, keepers, facts)? {
        Some(found) => (found.path, Expected::File(found.identity)),
        // Nothing is there to be judged: if the place is right, exec says so in its own words.
        None => (script.path.clone(), Expected::Nothing),
    };
    let within = |dir: &PathBuf| {
        let dir = facts.resolve(dir).map_or_else(|_| dir.clone(), |found| found.path);
        path.starts_with(dir)
    };
    let climbs = path.components().any(|component| component == Component::ParentDir);
    if dirs.is_none_or(|dirs| !climbs && dirs.iter().any(within)) {
        return Ok((path, expected));
    }
    Err(Refusal::new("script-not-in-script-dirs", "script not in script_dirs"))
}

/// The file that the script's path means; none if there is none.
fn judged(script: &Script, keepers: Keepers, facts: &dyn HostFacts) -> Result<Option<Resolved>, Refusal> {
    let besides = match keepers {
        Keepers::Anybody => return Ok(facts.resolve(&script.path).ok()),
        Keepers::Root => None,
        Keepers::RootAnd(own) => Some(own),
    };
    match facts.resolve_trusted(&script.path, besides) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => {
            let pinned = if script.pins.sha256.is_some() { PINNED } else { "" };
            Err(Refusal::new("script-not-trusted", format!("{}{pinned}", causes::on_one_line(&error))))
        }
    }
}

/// Why the file of a pinned script must be trusted where that of another need not be.
const PINNED: &str = "; a script with sha256= must be one that nobody else can exchange while it is started";

fn argv(path: &Path, args: &[String]) -> Result<Vec<CString>, Refusal> {
    std::iter::once(path.as_os_str().as_bytes()).chain(args.iter().map(String::as_bytes)).map(text).collect()
}

fn text(bytes: &[u8]) -> Result<CString, Refusal> {
    CString::new(bytes).map_err(|_| Refusal::new("argument-nul", "a path or an argument contains a NUL byte"))
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use std::io;

    use super::*;
    use crate::conf::Account;
    use crate::executor::host::Person;
    use crate::executor::pins::Content;
    use crate::executor::pins::Pins;
    use crate::executor::policy::{Paths, ProfileLimits};
    use crate::sys::file::{FileError, Identity, Led, TrustError, Version};
    use crate::sys::mounts::Elsewhere;
    use crate::sys::user::Uid;
    use crate::wire::name::{RequestId, ScriptName};

    /// Paths and what they resolve to.
    struct Table(Vec<(&'static str, &'static str)>);

    fn identity() -> Identity {
        Identity::of(Path::new("/")).unwrap()
    }

    impl HostFacts for Table {
        fn resolve(&self, path: &Path) -> io::Result<Resolved> {
            let found = self.0.iter().find(|(from, _)| Path::new(from) == path);
            let (_, to) = found.ok_or(io::ErrorKind::NotFound)?;
            Ok(Resolved { path: PathBuf::from(to), identity: identity() })
        }

        fn resolve_trusted(&self, path: &Path, _: Option<Uid>) -> Result<Resolved, TrustError> {
            self.resolve(path).map_err(|error| FileError::new(path, "open", error).into())
        }

        fn place(&self, path: &Path) -> io::Result<Led> {
            self.resolve(path).map(|found| Led::straight(found.path))
        }

        fn place_if_made(&self, path: &Path) -> io::Result<Led> {
            self.place(path)
        }

        fn elsewhere(&self, _: &Path) -> io::Result<Elsewhere> {
            Ok(Elsewhere::default())
        }

        fn other_names(&self, _: &Path, _: Option<&Path>) -> io::Result<u64> {
            Ok(0)
        }

        fn content(&self, path: &Path) -> io::Result<Content> {
            self.resolve(path).and_then(|_| Ok((Version::of(Path::new("/"))?, [0x11; 32])))
        }

        fn person(&self, _: &Account) -> io::Result<Option<Person>> {
            Ok(None)
        }
    }

    /// As [`Table`], and a stranger may write to everything below `/srv`.
    struct Guarded(Table);

    impl HostFacts for Guarded {
        fn resolve(&self, path: &Path) -> io::Result<Resolved> {
            self.0.resolve(path)
        }

        fn resolve_trusted(&self, path: &Path, besides: Option<Uid>) -> Result<Resolved, TrustError> {
            let found = self.0.resolve_trusted(path, besides)?;
            if found.path.starts_with("/srv") && besides != Some(Uid::from_raw(9)) {
                let (path, why) = (path.to_owned(), "belongs to uid 9 (chown root)".to_owned());
                return Err(TrustError::Untrusted { path, place: found.path, why });
            }
            Ok(found)
        }

        fn place(&self, path: &Path) -> io::Result<Led> {
            self.0.place(path)
        }

        fn place_if_made(&self, path: &Path) -> io::Result<Led> {
            self.0.place_if_made(path)
        }

        fn elsewhere(&self, place: &Path) -> io::Result<Elsewhere> {
            self.0.elsewhere(place)
        }

        fn other_names(&self, path: &Path, but: Option<&Path>) -> io::Result<u64> {
            self.0.other_names(path, but)
        }

        fn content(&self, path: &Path) -> io::Result<Content> {
            self.0.content(path)
        }

        fn person(&self, account: &Account) -> io::Result<Option<Person>> {
            self.0.person(account)
        }
    }

    #[test]
    fn with_trusted_paths_the_judged_file_is_executed_or_the_reason_told() {
        let table = || Guarded(Table(vec![("/opt/good", "/opt/real"), ("/opt/link", "/srv/evil"), ("/srv", "/srv")]));
        let trusted = |path, dirs| Policy { paths: Paths::Trusted, ..policy(path, dirs) };
        let decide = |policy: &Policy| decide(&order("x", &[]), policy, &table());
        let plan = decide(&trusted("/opt/good", None)).unwrap();
        assert_eq!((plan.program().to_str(), plan.expected()), (Ok("/opt/real"), Expected::File(identity())));
        assert_eq!(decide(&trusted("/opt/none", None)).unwrap().expected(), Expected::Nothing);
        for dirs in [None, Some(&["/srv"][..])] {
            let refusal = decide(&trusted("/opt/link", dirs)).unwrap_err();
            assert_eq!(refusal.code(), "script-not-trusted");
            assert!(refusal.text().contains("/srv/evil belongs to uid 9"), "{refusal}");
        }
        assert_eq!(decide(&trusted("/opt/good", Some(&["/srv"]))).unwrap_err().code(), "script-not-in-script-dirs");
        let lifted = Policy { paths: Paths::AnyAsRoot, ..policy("/opt/link", None) };
        assert_eq!(decide(&lifted).unwrap().expected(), Expected::Anything);
    }

    #[test]
    fn a_pinned_script_that_others_could_exchange_is_refused_whatever_is_lifted() {
        let facts = Guarded(Table(vec![("/opt/x", "/opt/x"), ("/srv/x", "/srv/x"), ("/srv", "/srv")]));
        let code = |path, paths, pinned: bool, dirs| {
            let mut policy = Policy { paths, ..policy(path, dirs) };
            let sha256 = pinned.then_some([0x11; 32]);
            policy.scripts.values_mut().for_each(|script| script.pins.sha256 = sha256);
            let decided = decide(&order("x", &[]), &policy, &facts);
            decided
                .map_or_else(|refusal| (refusal.code().to_owned(), refusal.text().to_owned()), |_| Default::default())
        };
        let (own, other) = (Paths::Any { own: Uid::from_raw(9) }, Paths::Any { own: Uid::from_raw(8) });
        for dirs in [None, Some(&["/srv"][..])] {
            for paths in [Paths::Trusted, Paths::AnyAsRoot, other] {
                let (code, text) = code("/srv/x", paths, true, dirs);
                assert_eq!(code, "script-not-trusted", "{paths:?}");
                assert!(text.contains("belongs to uid 9") && text.ends_with("exchange while it is started"), "{text}");
            }
            // Whose rights the script has may have put it there.
            assert_eq!(code("/srv/x", own, true, dirs).0, "");
            for paths in [Paths::AnyAsRoot, other, own] {
                assert_eq!(code("/srv/x", paths, false, dirs).0, "", "{paths:?}");
            }
        }
        for paths in [Paths::Trusted, Paths::AnyAsRoot, other, own] {
            assert_eq!(code("/opt/x", paths, true, None).0, "", "{paths:?}");
        }
    }

    fn policy(path: &str, dirs: Option<&[&str]>) -> Policy {
        let script = Script { path: PathBuf::from(path), profile: "default".to_owned(), pins: Pins::default() };
        let limits = ProfileLimits { timeout: Some(Duration::from_mins(1)), kill_grace: Duration::from_secs(5) };
        Policy {
            scripts: BTreeMap::from([(ScriptName::parse("x").unwrap(), script)]),
            script_dirs: dirs.map(|dirs| dirs.iter().map(PathBuf::from).collect()),
            profiles: BTreeMap::from([("default".to_owned(), limits)]),
            max_children: 1,
            output_max: 1,
            paths: Paths::Any { own: Uid::from_raw(9) },
            confinements: None,
        }
    }

    fn order(name: &str, args: &[&str]) -> Order {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Order::new(ScriptName::parse(name).unwrap(), args, RequestId::from_random([0; 8]), Mode::Attached).unwrap()
    }

    fn code(policy: &Policy, facts: &Table) -> String {
        decide(&order("x", &[]), policy, facts).map_or_else(|refusal| refusal.code().to_owned(), |_| "ok".to_owned())
    }

    #[test]
    fn a_name_that_is_not_on_the_list_is_refused() {
        let refusal = decide(&order("y", &[]), &policy("/bin/true", None), &Table(vec![])).unwrap_err();
        assert_eq!((refusal.code(), refusal.text()), ("script-not-permitted", "script not permitted"));
    }

    #[test]
    fn a_profile_that_is_not_defined_is_refused_by_name() {
        let mut policy = policy("/bin/true", None);
        policy.profiles.clear();
        let refusal = decide(&order("x", &[]), &policy, &Table(vec![])).unwrap_err();
        assert_eq!(refusal.code(), "undefined-profile");
        assert!(refusal.text().starts_with("undefined profile 'default'"), "{refusal}");
    }

    #[test]
    fn without_directories_the_configured_path_is_executed_unresolved() {
        let facts = Table(vec![("/opt/link", "/opt/real")]);
        let plan = decide(&order("x", &["a", ""]), &policy("/opt/link", None), &facts).unwrap();
        assert_eq!((plan.program().to_str(), plan.expected()), (Ok("/opt/link"), Expected::Anything));
        assert_eq!(plan.argv(), [c"/opt/link".to_owned(), c"a".to_owned(), c"".to_owned()]);
    }

    #[test]
    fn with_directories_the_judged_path_is_executed_under_its_configured_name() {
        let facts = Table(vec![("/opt/link", "/srv/s/real"), ("/scripts", "/srv/s")]);
        let plan = decide(&order("x", &[]), &policy("/opt/link", Some(&["/scripts"])), &facts).unwrap();
        assert_eq!((plan.program().to_str(), plan.expected()), (Ok("/srv/s/real"), Expected::File(identity())));
        assert_eq!(plan.argv(), [c"/opt/link".to_owned()]);
    }

    #[test]
    fn a_link_out_of_the_directories_is_refused() {
        let facts = Table(vec![("/s/x", "/usr/bin/x"), ("/s", "/s")]);
        assert_eq!(code(&policy("/s/x", Some(&["/s"])), &facts), "script-not-in-script-dirs");
        assert_eq!(code(&policy("/s/x", Some(&[])), &facts), "script-not-in-script-dirs");
    }

    #[test]
    fn a_directory_is_not_the_beginning_of_a_name() {
        let facts = Table(vec![("/srv/s2/x", "/srv/s2/x"), ("/srv/s", "/srv/s")]);
        assert_eq!(code(&policy("/srv/s2/x", Some(&["/srv/s"])), &facts), "script-not-in-script-dirs");
        assert_eq!(code(&policy("/srv/s2/x", Some(&["/srv/s", "/srv/s2"])), &facts), "ok");
    }

    #[test]
    fn the_root_directory_holds_everything() {
        let facts = Table(vec![("/bin/x", "/usr/bin/x"), ("/", "/")]);
        assert_eq!(code(&policy("/bin/x", Some(&["/"])), &facts), "ok");
    }

    #[test]
    fn what_does_not_exist_is_judged_by_its_words_and_can_never_run() {
        let facts = Table(vec![("/s", "/s")]);
        let plan = decide(&order("x", &[]), &policy("/s/none", Some(&["/s"])), &facts).unwrap();
        assert_eq!(plan.expected(), Expected::Nothing);
        assert_eq!(code(&policy("/s/../bin/none", Some(&["/s"])), &facts), "script-not-in-script-dirs");
    }

    #[test]
    fn what_a_line_pins_is_judged_on_the_file_that_is_executed() {
        let facts = Table(vec![("/s/x", "/s/real"), ("/s/real", "/s/real"), ("/s", "/s")]);
        let mut policy = policy("/s/x", Some(&["/s"]));
        let pin =
            |policy: &mut Policy, sha256| policy.scripts.values_mut().for_each(|script| script.pins.sha256 = sha256);
        pin(&mut policy, Some([0x11; 32]));
        let plan = decide(&order("x", &[]), &policy, &facts).unwrap();
        let unchanged = Expected::Unchanged(Version::of(Path::new("/")).unwrap());
        assert_eq!((plan.program().to_str(), plan.expected()), (Ok("/s/real"), unchanged));
        pin(&mut policy, Some([0x22; 32]));
        assert_eq!(code(&policy, &facts), "script-changed");
        policy.script_dirs = None;
        assert_eq!(code(&policy, &Table(vec![])), "script-changed");
    }

    #[test]
    fn the_shorter_limit_holds() {
        let limit = |asked: Option<u64>| {
            let order = order("x", &[]).time_limit(asked.map(Duration::from_secs));
            decide(&order, &policy("/bin/true", None), &Table(vec![])).unwrap().time_limit().unwrap().as_secs()
        };
        assert_eq!((limit(None), limit(Some(7)), limit(Some(700))), (60, 7, 60));
        assert_eq!(shorter(None, None), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused_and_never_worse(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(order) = crate::wire::frame::decode::<Order>(&bytes) {
                let _ = decide(&order, &policy("/bin/true", None), &Table(vec![]));
            }
        }

        #[test]
        fn what_is_decoded_of_a_damaged_order_is_what_it_prints_or_it_is_refused(
            args in proptest::collection::vec("\\PC{0,8}", 0..4),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), 0..3_u8, any::<u8>()), 0..4),
        ) {
            let whole = order("x", &args.iter().map(String::as_str).collect::<Vec<_>>());
            let mut bytes = serde_json::to_vec(&whole).unwrap();
            for (place, how, byte) in damage {
                let place = place.index(bytes.len());
                match how {
                    0 => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    _ => drop(bytes.remove(place)),
                }
            }
            if let Ok(found) = crate::wire::frame::decode::<Order>(&bytes) {
                let again = serde_json::to_vec(&found).unwrap();
                prop_assert_eq!(crate::wire::frame::decode::<Order>(&again).unwrap(), found.clone());
                // Whatever it asks for, it gets a script that is listed and arguments that can be carried, or nothing.
                if let Ok(plan) = decide(&found, &policy("/bin/true", None), &Table(vec![])) {
                    prop_assert!(found.check().is_ok() && found.script().as_str() == "x");
                    prop_assert_eq!(plan.argv().len(), 1 + found.args().len());
                }
            }
        }

        #[test]
        fn arguments_arrive_as_they_are_or_are_refused(args in proptest::collection::vec(any::<String>(), 0..20)) {
            let request = RequestId::from_random([0; 8]);
            let made = Order::new(ScriptName::parse("x").unwrap(), args.clone(), request, Mode::Attached);
            if let Ok(order) = made {
                let bytes = crate::wire::frame::encode(&order, crate::wire::limits::ORDER).unwrap();
                let decoded: Order = crate::wire::frame::decode(&bytes[crate::wire::frame::PREFIX..]).unwrap();
                let plan = decide(&decoded, &policy("/bin/true", None), &Table(vec![])).unwrap();
                let found: Vec<&str> = plan.argv()[1..].iter().map(|arg| arg.to_str().unwrap()).collect();
                prop_assert_eq!(found, args);
            } else {
                prop_assert!(args.iter().any(|arg| arg.contains('\0')));
            }
        }
    }
}
