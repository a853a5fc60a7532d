//! What the executor would decide about an order, gate by gate, and what its script would find.
//!
//! **Invariant:** the decision is [`decide`](super::decide())'s own, listened to; and the means are those of a run. Nothing
//! is judged here a second time.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::decide::{Gate, Plan, decide_telling};
use super::environment::{environment, environment_of, passed_on};
use super::ground;
use super::host::{HostFacts, Person};
use super::kind;
use super::limits;
use super::offer::{self, Offer};
use super::pins::Content;
use super::policy::{Keepers, Paths, Policy};
use crate::conf::Account;
use crate::conf::agent::{Loaded, Profile, Syscalls};
use crate::conf::scripts::Entry;
use crate::sys::file::{Led, Resolved, TrustError};
use crate::sys::mounts::Elsewhere;
use crate::sys::seccomp::List;
use crate::sys::user::Uid;
use crate::wire::explanation::{Confined, Limit, Line, Means, Surroundings};
use crate::wire::hex;
use crate::wire::order::Order;
use crate::wire::refusal::Refusal;

/// The decision's gates in their order, with the names that people read.
const GATES: [(Gate, &str); 6] = [
    (Gate::Order, "order"),
    (Gate::Allowlist, "executor-allowlist"),
    (Gate::Place, "path"),
    (Gate::Pins, "pins"),
    (Gate::Profile, "profile"),
    (Gate::Confinement, "confinement"),
];
/// The gate behind the decision.
const MEANS: &str = "means";

/// What a profile without `writable` comes to whose script may change files of root's, or become somebody who may.
pub const OWNS_THE_HOST: &str = "the host is not: without 'writable' it may change files that root obeys (add 'writable', \
    if only with one directory)";

/// The files that decide, twice: as the executor has them in force, and with the lines that say so.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// In force.
    pub policy: &'a Policy,
    /// With their lines.
    pub loaded: &'a Loaded,
}

/// An explanation.
#[derive(Debug)]
pub struct Explained {
    /// Every gate, with its verdict.
    pub gates: Vec<Line>,
    /// What the script would find, if it is permitted.
    pub surroundings: Option<Surroundings>,
    /// What would be carried out, if it is permitted.
    pub plan: Option<Plan>,
}

/// Explains an order. What this user may not look at makes its gate [`Unseen`](crate::wire::explanation::Verdict), never
/// a verdict.
#[must_use]
pub fn explain(order: &Order, files: Files<'_>, facts: &dyn HostFacts, offer: &Offer) -> Explained {
    let (noting, passed) = (Noting::new(facts), Cell::new(0));
    let decided = decide_telling(order, files.policy, &noting, &mut |_| {
        passed.set(passed.get() + 1);
        noting.passed.set(passed.get());
    });
    let unseen = noting.denied.into_inner();
    let owns_the_host = decided.as_ref().ok().and_then(Plan::confinement).is_some_and(Confinement::owns_the_host);
    let about = About { order, files, entry: files.loaded.allowlist.get(order.script()), owns_the_host };
    let refused = decided.as_ref().err();
    let stop = unseen.as_ref().map_or_else(|| passed.get(), |(gate, _)| *gate);
    let lines = GATES.iter().enumerate().map(|(number, (gate, name))| match (&unseen, refused) {
        _ if number < stop => Line::passes(name, about.passing(*gate)).at(about.place(*gate, None)),
        (Some((_, path)), _) if number == stop => {
            Line::unseen(name, format!("this user may not look at {}", path.display()))
        }
        (None, Some(refusal)) if number == stop => {
            Line::refuses(name, refusal).at(about.place(*gate, Some(refusal.code())))
        }
        _ => Line::not_reached(name),
    });
    let mut gates: Vec<Line> = lines.collect();
    let plan = decided.ok().filter(|_| unseen.is_none());
    gates.push(plan.as_ref().map_or(Line::not_reached(MEANS), |plan| about.means(plan, offer)));
    let surroundings = plan.as_ref().map(|plan| surroundings(plan, about.entry, facts, offer));
    Explained { gates, surroundings, plan }
}

/// The gate behind an explanation's others: whether the steps of the run would find what they need.
///
/// **Invariant:** the caller has one thread: whether the script's account may execute it is tried by a child.
#[must_use]
pub fn start(plan: &Plan, order: &Order, files: Files<'_>) -> Line {
    let (line, key) = ground::look(plan);
    let entry = files.loaded.allowlist.get(order.script());
    let profile = entry.and_then(|entry| files.loaded.settings.profiles.get(entry.profile()));
    let place = match (profile.zip(key), entry) {
        (Some((profile, key)), _) => files.loaded.settings.place_in(profile, key),
        (None, Some(entry)) => files.loaded.allowlist.place(entry),
        (None, None) => return line,
    };
    line.at(place)
}

/// Facts that remember what could not be looked at for want of rights, and at which gate that was first.
struct Noting<'a> {
    facts: &'a dyn HostFacts,
    passed: Cell<usize>,
    denied: RefCell<Option<(usize, PathBuf)>>,
}

impl<'a> Noting<'a> {
    const fn new(facts: &'a dyn HostFacts) -> Self {
        Self { facts, passed: Cell::new(0), denied: RefCell::new(None) }
    }

    fn note(&self, path: &Path, denied: bool) {
        if denied {
            self.denied.borrow_mut().get_or_insert_with(|| (self.passed.get(), path.to_owned()));
        }
    }

    fn noted<T>(&self, path: &Path, found: io::Result<T>) -> io::Result<T> {
        self.note(path, found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied));
        found
    }
}

impl HostFacts for Noting<'_> {
    fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        self.noted(path, self.facts.resolve(path))
    }

    fn resolve_trusted(&self, path: &Path, besides: Option<Uid>) -> Result<Resolved, TrustError> {
        let found = self.facts.resolve_trusted(path, besides);
        let denied = matches!(&found, Err(TrustError::File(error)) if error.is_permission_denied());
        self.note(path, denied);
        found
    }

    fn place(&self, path: &Path) -> io::Result<Led> {
        self.noted(path, self.facts.place(path))
    }

    fn place_if_made(&self, path: &Path) -> io::Result<Led> {
        self.noted(path, self.facts.place_if_made(path))
    }

    fn elsewhere(&self, place: &Path) -> io::Result<Elsewhere> {
        self.noted(place, self.facts.elsewhere(place))
    }

    fn other_names(&self, path: &Path, but: Option<&Path>) -> io::Result<u64> {
        self.noted(path, self.facts.other_names(path, but))
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        self.noted(path, self.facts.content(path))
    }

    fn person(&self, account: &Account) -> io::Result<Option<Person>> {
        self.facts.person(account)
    }
}

/// What the lines are about.
struct About<'a> {
    order: &'a Order,
    files: Files<'a>,
    entry: Option<&'a Entry>,
    owns_the_host: bool,
}

impl About<'_> {
    fn profile(&self) -> Option<&Profile> {
        self.files.loaded.settings.profiles.get(self.entry?.profile())
    }

    /// Why a gate lets the order through.
    fn passing(&self, gate: Gate) -> String {
        let Some(entry) = self.entry else { return String::new() };
        match gate {
            Gate::Order => {
                let (count, size) = (self.order.args().len(), self.order.args().iter().map(String::len).sum::<usize>());
                format!("arguments: {count}, together {size} bytes")
            }
            Gate::Allowlist => format!("'{}' is {}", entry.name(), entry.path().display()),
            Gate::Place => self.passing_place(),
            Gate::Pins => {
                let content = if entry.sha256().is_some() { "the file has the pinned sha256" } else { "any content" };
                match entry.args() {
                    Some(count) => format!("{content}; the script takes {count}"),
                    None => format!("{content}; any number of arguments"),
                }
            }
            Gate::Profile => format!("[profile {}]", entry.profile()),
            Gate::Confinement => self.passing_confinement(),
        }
    }

    fn passing_place(&self) -> String {
        let paths = self.files.policy.paths;
        let script = self.files.policy.scripts.get(self.order.script());
        let trust = match (script.map_or(Keepers::Anybody, |script| script.keepers(paths)), paths) {
            (Keepers::Root, _) => "root alone can have put the file there",
            (Keepers::RootAnd(_), _) => "root and the agent's own account alone can have put the file there",
            (Keepers::Anybody, Paths::Any { .. }) => {
                "the executor has no rights of its own, so anybody may have put the file there"
            }
            (Keepers::Anybody, _) => "trusted_paths is off: others than root may have put the file there",
        };
        let within = if self.files.policy.script_dirs.is_some() { "; it is in script_dirs" } else { "" };
        format!("{trust}{within}")
    }

    fn passing_confinement(&self) -> String {
        let account = self.profile().and_then(|profile| profile.run_as.as_ref());
        match (&self.files.policy.confinements, account) {
            (Some(_), Some(account)) => format!("runs as '{}'{}", **account, self.reach()),
            (Some(_), None) => String::new(),
            (None, _) => "none: without a root executor, the script has the agent's own rights".to_owned(),
        }
    }

    /// What the agent's own places and the host are to the script.
    fn reach(&self) -> String {
        let undoing = self.profile().map(Profile::undoing).unwrap_or_default();
        if !undoing.is_empty() {
            return format!(", and may undo what it is confined to: {}", undoing.join("; "));
        }
        let but = if self.owns_the_host { format!(", but {OWNS_THE_HOST}") } else { String::new() };
        let network = self.profile().and_then(Profile::undoing_network).map(|cost| format!("; {cost}"));
        format!("; the agent's own places are out of its reach{but}{}", network.unwrap_or_default())
    }

    /// The line that decides: of the gate, or where it refused, of what it refused.
    fn place(&self, gate: Gate, code: Option<&str>) -> String {
        let settings = &self.files.loaded.settings;
        let allowlist = &self.files.loaded.allowlist;
        let entry =
            || self.entry.map_or_else(|| allowlist.file().display().to_string(), |entry| allowlist.place(entry));
        let keyed = |key| self.profile().map_or_else(entry, |profile| settings.place_in(profile, key));
        match (gate, code) {
            (Gate::Place, Some("script-not-trusted")) => settings.place("trusted_paths"),
            (Gate::Place, _) if settings.script_dirs.is_some() => settings.place("script_dirs"),
            (Gate::Place, _) => settings.place("trusted_paths"),
            (Gate::Order | Gate::Allowlist | Gate::Pins, _) | (Gate::Confinement, Some("script-hidden")) => entry(),
            (Gate::Confinement, Some("writable-control" | "writable-proc" | "writable-script" | "script-linked")) => {
                keyed("writable")
            }
            (Gate::Profile, _) => keyed("[profile]"),
            (Gate::Confinement, _) => keyed("run_as"),
        }
    }

    /// Whether the host can do what the profile orders, asked as a run asks it.
    fn means(&self, plan: &Plan, offer: &Offer) -> Line {
        let Some(confinement) = plan.confinement() else {
            return Line::passes(MEANS, "nothing of the profile but its times is applied");
        };
        let settings = &self.files.loaded.settings;
        let place = |key| settings.place_in(confinement.profile(), key);
        match offer::applicable(confinement, offer) {
            Ok(_) => {
                let seen =
                    if offer.running { "the executor that runs has" } else { "no executor was asked; the host has" };
                Line::passes(MEANS, format!("{seen} what the profile needs")).at(place("[profile]"))
            }
            Err(lacking) => {
                let refusal = Refusal::new("not-confined", format!("{}: {}", lacking.key, lacking.why));
                Line::refuses(MEANS, &refusal).at(place(lacking.key))
            }
        }
    }
}

fn surroundings(plan: &Plan, entry: Option<&Entry>, facts: &dyn HostFacts, offer: &Offer) -> Surroundings {
    let confinement = plan.confinement();
    let program = plan.program().to_string_lossy().into_owned();
    let profile = confinement.map(Confinement::profile);
    let directory = profile.map_or_else(|| "/".to_owned(), |profile| shown(&profile.working_directory));
    let environment = confinement.map_or_else(|| environment(|_| None), environment_of);
    Surroundings {
        sha256: facts.content(Path::new(&program)).ok().map(|(_, digest)| hex::encode(&digest)),
        path: program,
        argv: plan.argv().iter().map(text).collect(),
        pinned: entry.is_some_and(|entry| entry.sha256().is_some()),
        profile: plan.profile().to_owned(),
        timeout: plan.time_limit().map(|limit| limit.as_secs()),
        kill_grace: plan.kill_grace().as_secs(),
        working_directory: directory,
        umask: format!("{:04o}", profile.map_or(0o022, |profile| profile.umask)),
        environment: environment.iter().map(text).collect(),
        passed_on: passed_on(confinement),
        confinement: confinement.map(|confinement| confined(confinement, offer)),
    }
}

fn confined(confinement: &Confinement, offer: &Offer) -> Confined {
    let (profile, person) = (confinement.profile(), confinement.person());
    let writable = confinement.writable().map(|paths| paths.iter().map(|path| shown(path)).collect());
    Confined {
        user: person.login.as_ref().map(|(name, _)| name.clone()),
        uid: person.uid.as_raw(),
        gid: person.gid.as_raw(),
        groups: person.groups.iter().map(|group| group.as_raw()).collect(),
        caps: profile.caps.iter().map(|cap| cap.name()).collect(),
        no_new_privileges: profile.no_new_privileges,
        kept: writable.iter().flat_map(|_| confinement.kept()).map(|path| shown(path)).collect(),
        private: if writable.is_some() { kind::PRIVATE.to_vec() } else { Vec::new() },
        writable,
        hidden: confinement.hidden().iter().map(|path| shown(path)).collect(),
        readable: profile.readable.as_ref().map(|paths| paths.iter().map(|path| shown(path)).collect()),
        network: profile.network,
        syscalls: match profile.syscalls {
            Syscalls::Default => "default",
            Syscalls::Off => "off",
        },
        filter: match confinement.calls().list {
            List::Whole => "list",
            List::Bounds => "bounds",
            List::Nothing => "none",
        },
        undone: profile.undoing(),
        network_undone: profile.undoing_network(),
        limits: limits_of(confinement, offer),
    }
}

fn limits_of(confinement: &Confinement, offer: &Offer) -> Vec<Limit> {
    let (profile, controllers) = (confinement.profile(), offer.controllers);
    let grouped = |there: bool| if there { Means::Cgroup } else { Means::Unenforceable };
    let processes = match (controllers.processes, limits::bound(confinement)) {
        (true, _) => Means::Cgroup,
        (false, true) => Means::Rlimit,
        (false, false) => Means::Unenforceable,
    };
    let within = profile.files_max.is_none_or(|files| files <= offer.files);
    let files = if within && limits::files_hold(confinement) { Means::Rlimit } else { Means::Unenforceable };
    let all = [
        ("memory_max", profile.memory_max, grouped(controllers.memory)),
        ("processes_max", profile.processes_max, processes),
        ("cpu_max", profile.cpu_max.map(u64::from), grouped(controllers.cpu)),
        ("files_max", profile.files_max, files),
    ];
    all.into_iter().filter_map(|(key, value, means)| Some(Limit { key, value: value?, means })).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn text(words: &CString) -> String {
    words.to_string_lossy().into_owned()
}
