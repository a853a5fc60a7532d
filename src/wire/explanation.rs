//! What `explain` says: every gate of a call with its verdict, and what the script would find. Programs read it as JSON.

use serde::Serialize;

use super::refusal::Refusal;

/// One gate's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name.
    pub gate: &'static str,
    /// What it says.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why, for people.
    pub text: String,
    /// Where the configuration says so: `path:line`, or `path (default)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// What a gate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It lets the call through.
    Passes,
    /// It stops the call.
    Refuses {
        /// The stable code that a run's answer or log line would have.
        code: String,
    },
    /// It cannot be asked here.
    NotJudged,
    /// It cannot be asked here, and the rest hangs on it: more rights are needed.
    Unseen,
    /// A gate before it refused, on which it depends.
    NotReached,
}

impl Line {
    /// A gate that lets the call through.
    #[must_use]
    pub fn passes(gate: &'static str, text: impl Into<String>) -> Self {
        Self { gate, verdict: Verdict::Passes, text: text.into(), place: None }
    }

    /// A gate that stops it.
    #[must_use]
    pub fn refuses(gate: &'static str, refusal: &Refusal) -> Self {
        let verdict = Verdict::Refuses { code: refusal.code().to_owned() };
        Self { gate, verdict, text: refusal.text().to_owned(), place: None }
    }

    /// A gate that is not asked.
    #[must_use]
    pub fn not_judged(gate: &'static str, text: impl Into<String>) -> Self {
        Self { gate, verdict: Verdict::NotJudged, text: text.into(), place: None }
    }

    /// A gate about which this user cannot find out.
    #[must_use]
    pub fn unseen(gate: &'static str, text: impl Into<String>) -> Self {
        Self { gate, verdict: Verdict::Unseen, text: text.into(), place: None }
    }

    /// A gate behind one that refused.
    #[must_use]
    pub const fn not_reached(gate: &'static str) -> Self {
        Self { gate, verdict: Verdict::NotReached, text: String::new(), place: None }
    }

    /// Says where the configuration decides it.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self { place: Some(place.into()), ..self }
    }

    /// The code, if the gate refuses.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Refuses { code } => Some(code),
            _ => None,
        }
    }
}

/// What becomes of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Summary {
    /// It would run, as far as the gates were judged.
    WouldRun,
    /// The same of a request that runs nothing: its verb would answer it.
    WouldBeAnswered,
    /// It would be refused, by the first gate that does.
    WouldBeRefused {
        /// That gate.
        gate: &'static str,
        /// Its code.
        code: String,
    },
    /// This user cannot find out.
    Unknown {
        /// The gate that could not be looked at.
        gate: &'static str,
    },
}

impl Summary {
    /// Of all gates in their order. The first that refuses counts, since behind it nothing is asked; one that could not
    /// be looked at may have refused as well.
    #[must_use]
    pub fn of(gates: &[Line]) -> Self {
        for line in gates {
            match &line.verdict {
                Verdict::Refuses { code } => return Self::WouldBeRefused { gate: line.gate, code: code.clone() },
                Verdict::Unseen => return Self::Unknown { gate: line.gate },
                Verdict::Passes | Verdict::NotJudged | Verdict::NotReached => {}
            }
        }
        Self::WouldRun
    }
}

/// What a script would find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Surroundings {
    /// The file that would be executed.
    pub path: String,
    /// Its argument vector.
    pub argv: Vec<String>,
    /// The digest of its content now, in hex; none if it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Whether its line pins that digest.
    pub pinned: bool,
    /// Its profile.
    pub profile: String,
    /// Seconds until it is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Seconds between the request to stop and the kill.
    pub kill_grace: u64,
    /// Where it starts.
    pub working_directory: String,
    /// Permissions that files it makes do not get, in octal digits.
    pub umask: String,
    /// Its environment, `NAME=value`.
    pub environment: Vec<String>,
    /// Variables that it has besides, where the executor has them.
    pub passed_on: Vec<&'static str>,
    /// What the executor applies of its profile; none without a root executor, and then it has the agent's own rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confined>,
}

/// What a profile comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// Login name, where the account has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub caps: Vec<&'static str>,
    /// Whether set-user-ID programs give it nothing.
    pub no_new_privileges: bool,
    /// The only trees that it may write to; none if its account's rights decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<Vec<String>>,
    /// Directories in those, and files that mounts show there alone, that it may not write to: scripts of other profiles lie there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
    /// Directories that are its own and empty.
    pub private: Vec<&'static str>,
    /// Files and directories that it cannot reach.
    pub hidden: Vec<String>,
    /// The only trees that it may read or execute from; none if its account's rights decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<Vec<String>>,
    /// Whether it has the host's network.
    pub network: bool,
    /// `default` or `off`.
    pub syscalls: &'static str,
    /// Which of the listed system calls are refused: the whole `list`, those that leave the `bounds` of the run, or `none`.
    pub filter: &'static str,
    /// Why nothing of this need hold once the script runs: what of its profile may undo it. Empty if it holds.
    pub undone: Vec<String>,
    /// Likewise of the missing network alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_undone: Option<String>,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The profile's key.
    pub key: &'static str,
    /// Its value: bytes, a count, or percent.
    pub value: u64,
    /// What enforces it.
    pub means: Means,
}

/// What enforces a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// A control group, for the run as a whole.
    Cgroup,
    /// setrlimit(2): for each process, or for all processes of the user.
    Rlimit,
    /// Nothing here: the run would be refused.
    Unenforceable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gate_that_refuses_or_could_not_be_seen_counts() {
        let refuses = |gate| Line::refuses(gate, &Refusal::new("x-y", "why"));
        let of = |lines: &[Line]| serde_json::to_string(&Summary::of(lines)).unwrap();
        let (passes, open) = (Line::passes("a", ""), Line::not_judged("b", ""));
        assert_eq!(of(&[passes.clone(), open.clone()]), r#"{"verdict":"would-run"}"#);
        let stopped = r#"{"verdict":"would-be-refused","gate":"c","code":"x-y"}"#;
        assert_eq!(of(&[passes.clone(), open, refuses("c"), Line::unseen("d", ""), refuses("e")]), stopped);
        let unknown = r#"{"verdict":"unknown","gate":"d"}"#;
        assert_eq!(of(&[passes, Line::unseen("d", ""), refuses("e"), Line::not_reached("f")]), unknown);
    }

    #[test]
    fn a_line_says_its_verdict_its_code_and_its_place() {
        let line = Line::refuses("pins", &Refusal::new("script-changed", "other")).at("/s.conf:3");
        let expected =
            r#"{"gate":"pins","verdict":"refuses","code":"script-changed","text":"other","place":"/s.conf:3"}"#;
        assert_eq!(serde_json::to_string(&line).unwrap(), expected);
        assert_eq!(line.code(), Some("script-changed"));
        assert_eq!(serde_json::to_value(Line::not_reached("x")).unwrap()["verdict"], "not-reached");
    }
}
