//! An explanation for people.

use serde_json::Value;

use crate::agent::metrics::Verb;
use crate::cli::table::Table;
use crate::wire::explanation::{Confined, Limit, Line, Means, Summary, Surroundings, Verdict};

/// An explanation, whole.
pub(super) struct Explanation {
    /// What is asked for.
    pub(super) verb: Verb,
    /// The call, if that is a run.
    pub(super) call: Value,
    /// Which executor would carry it out.
    pub(super) executor: Option<String>,
    /// Every gate in its order.
    pub(super) gates: Vec<Line>,
    /// What the script would find, if it is permitted.
    pub(super) surroundings: Option<Surroundings>,
}

const COLUMNS: Table<3> = Table::new([0, 18, 0]);

/// All of it.
pub(super) fn text(explanation: &Explanation, summary: &Summary) -> String {
    let head = explanation
        .executor
        .as_ref()
        .map_or_else(|| row("verb", explanation.verb.as_str()), |executor| row("executor", executor));
    let mut lines = vec![head, String::new()];
    lines.extend(explanation.gates.iter().map(gate));
    if let Some(surroundings) = &explanation.surroundings {
        lines.push(String::new());
        lines.extend(found(surroundings));
    }
    lines.push(String::new());
    lines.push(match summary {
        Summary::WouldRun => "Would run.".to_owned(),
        Summary::WouldBeAnswered => "Would be answered.".to_owned(),
        Summary::WouldBeRefused { gate, code } => format!("Would be refused: {gate} {code}"),
        Summary::Unknown { gate } => format!("Unknown: this user cannot look behind '{gate}'; run it as root"),
    });
    lines.join("\n") + "\n"
}

fn row(name: &str, text: &str) -> String {
    COLUMNS.row(["", name, text])
}

fn gate(line: &Line) -> String {
    let verdict = match line.verdict {
        Verdict::Passes => "ok",
        Verdict::Refuses { .. } => "REFUSED",
        Verdict::NotJudged => "not judged",
        Verdict::Unseen => "NOT SEEN",
        Verdict::NotReached => "not reached",
    };
    let code = line.code().map(|code| format!(" {code}")).unwrap_or_default();
    let gap = match line.text.chars().next() {
        None => "",
        Some('(') => " ",
        Some(_) => ": ",
    };
    let place = line.place.as_ref().map(|place| format!("  [{place}]")).unwrap_or_default();
    row(line.gate, &format!("{verdict}{code}{gap}{}{place}", line.text))
}

/// What the script would find.
fn found(surroundings: &Surroundings) -> Vec<String> {
    let s = surroundings;
    let pinned = if s.pinned { " (pinned)" } else { "" };
    let digest = s.sha256.as_ref().map_or_else(|| "cannot be read".to_owned(), |digest| format!("{digest}{pinned}"));
    let limit = s.timeout.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds} s"));
    let mut lines = vec![
        row("path", &s.path),
        row("argv", &s.argv.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")),
        row("sha256", &digest),
        row("profile", &s.profile),
    ];
    match &s.confinement {
        Some(confined) => lines.extend(rights(confined)),
        None => lines.push(row("user", "the agent's own account; nothing is confined")),
    }
    let passed_on = s.passed_on.join(" ");
    lines.extend([
        row("time limit", &format!("{limit}; killed {} s after it was asked to end", s.kill_grace)),
        row("working directory", &s.working_directory),
        row("umask", &s.umask),
        row("environment", &s.environment.join(" ")),
    ]);
    if !passed_on.is_empty() {
        lines.push(row("", &format!("and, where the executor has them: {passed_on}")));
    }
    lines
}

fn rights(c: &Confined) -> Vec<String> {
    let groups: Vec<String> = c.groups.iter().map(ToString::to_string).collect();
    let name = c.user.as_deref().unwrap_or("a user without a name");
    let listed = |paths: &Option<Vec<String>>, open: &str| paths.as_ref().map_or_else(|| open.to_owned(), |p| list(p));
    let mut lines = vec![
        row("user", &format!("{name} (uid {}, gid {}, groups {})", c.uid, c.gid, groups.join(" "))),
        row("capabilities", &list(&c.caps)),
        row("new privileges", if c.no_new_privileges { "none, by no program" } else { "from set-user-ID programs" }),
    ];
    if !c.undone.is_empty() {
        lines.push(row("at its start", "what follows, which the script may undo:"));
        lines.extend(c.undone.iter().map(|why| row("", why)));
    }
    lines.extend([
        row("writable", &(listed(&c.writable, "whatever its account may write to") + &unwritten(c))),
        row("readable", &(listed(&c.readable, "whatever its account may read") + unexecuted(c))),
        row("private and empty", &list(&c.private)),
        row("hidden", &list(&c.hidden)),
        row("network", &network(c)),
        row("system calls", filtered(c)),
    ]);
    lines.extend(c.limits.iter().map(limited));
    lines
}

fn network(c: &Confined) -> String {
    match (c.network, &c.network_undone) {
        (true, _) => "the host's".to_owned(),
        (false, None) => "none".to_owned(),
        (false, Some(cost)) => format!("none of its own; {cost}"),
    }
}

fn filtered(c: &Confined) -> &'static str {
    match c.filter {
        "list" => "all but those that undo a confinement",
        "bounds" => "all that stay within the run",
        _ => "all, also those that leave the run",
    }
}

/// What is not written to in what is `writable`.
fn unwritten(c: &Confined) -> String {
    if c.kept.is_empty() {
        return String::new();
    }
    format!("; but not, as scripts of other profiles lie there: {}", list(&c.kept))
}

/// What is read besides what is `readable`.
const fn unexecuted(c: &Confined) -> &'static str {
    match (&c.readable, &c.writable) {
        (Some(_), Some(_)) => "; what is writable or private can be read too, but not executed",
        _ => "",
    }
}

fn limited(limit: &Limit) -> String {
    let means = match limit.means {
        Means::Cgroup => "by a control group",
        Means::Rlimit => "by a limit on its processes (setrlimit)",
        Means::Unenforceable => "by nothing that this host has",
    };
    row(limit.key, &format!("{} {means}", limit.value))
}

fn list<T: AsRef<str>>(all: &[T]) -> String {
    if all.is_empty() {
        return "none".to_owned();
    }
    all.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}
