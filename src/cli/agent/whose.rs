//! Which executor an agent has. Of one that runs, its processes tell; of one that does not, that depends on who starts it.

use std::path::Path;

use super::serving::{self, Rank, Serving};
use crate::agent::orders::Kinship;
use crate::conf::Account as Configured;
use crate::conf::agent::Settings;
use crate::sys::listening;
use crate::sys::user::{self, Account};

/// The executor that something is said about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    /// Which it is.
    pub(super) kinship: Kinship,
    /// How that is known.
    pub(super) known: Known,
}

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Whoever asks has said so, or the configuration does.
    Sure,
    /// The running agent has it.
    Running {
        /// The agent.
        agent: Serving,
        /// Another is configured, which it has once it is started again.
        outdated: bool,
    },
    /// No agent runs: it is that of one which this user starts.
    IfStartedHere,
    /// An agent seems to run, and this process cannot say which executor that has.
    Not(Doubt),
}

/// Why it is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// What is the matter.
    pub(super) text: String,
    /// What to do about it.
    pub(super) hint: &'static str,
}

const ANOTHERS: &str = "run it as root, with sudo; or, with --unprivileged, for an agent without a root executor";
const UNSEEN: &str = "run it where root sees the agent's processes; or, with --unprivileged, for an agent without a root \
    executor";
const AGAIN: &str =
    "start the agent again, and ask then; or, with --unprivileged, for an agent without a root executor";

/// Looks. `said`: it was said that the agent does without a root executor.
///
/// **Invariant:** no executor is said to be root's that the running agent may not have. Who is no agent's account and not
/// root is told of none but the system's: he would judge with other eyes.
pub(super) fn look(settings: &Settings, config: &Path, said: bool) -> Whose {
    let kinship = Kinship::of(settings, said);
    let agents = if said { Vec::new() } else { serving::agents(config) };
    let known = judge(&kinship, &agents, settings, said);
    match &known {
        Known::Running { agent: Serving { executor: Some(Rank::Root), .. }, .. } => {
            Whose { kinship: Kinship::Own, known }
        }
        Known::Running { .. } => Whose { kinship: Kinship::Private, known },
        _ => Whose { kinship, known },
    }
}

fn judge(kinship: &Kinship, agents: &[Serving], settings: &Settings, said: bool) -> Known {
    let systems = matches!(kinship, Kinship::System(_));
    let Some((first, more)) = agents.split_first() else {
        return if said || systems { Known::Sure } else { of_the_port(settings) };
    };
    let alike = |other: &Serving| (other.executor, other.uid) == (first.executor, first.uid);
    if !more.iter().all(alike) {
        let numbers: Vec<String> = agents.iter().map(|agent| agent.process.to_string()).collect();
        let text = format!(
            "several agents run with this configuration, and not all have the same executor (processes {})",
            numbers.join(", ")
        );
        return Known::Not(Doubt { text, hint: AGAIN });
    }
    let own = user::current().0.as_raw();
    match first.executor {
        None if systems => Known::Sure,
        None => {
            let text = format!(
                "the running agent (process {}) has no executor that can be seen: it was started with another \
                 'executor_socket' than is configured now, or begins or ends just now",
                first.process
            );
            Known::Not(Doubt { text, hint: AGAIN })
        }
        Some(rank) if own == 0 || rank == Rank::Agents && own == first.uid => {
            Known::Running { agent: *first, outdated: systems }
        }
        Some(_) => Known::Not(anothers(settings, first.process)),
    }
}

/// Where no agent is seen, whoever listens may be one.
fn of_the_port(settings: &Settings) -> Known {
    let sockets = if *settings.port == 0 { Vec::new() } else { listening::on(*settings.port).unwrap_or_default() };
    // An agent that has given up root does not let its own account look into it either.
    if sockets.iter().all(|socket| socket.holder().is_some()) {
        return Known::IfStartedHere;
    }
    if !user::is_root() {
        return Known::Not(anothers(settings, 0));
    }
    let text = format!(
        "whoever listens on port {} cannot be looked at from here: if it is the agent, it may have no root executor",
        *settings.port
    );
    Known::Not(Doubt { text, hint: UNSEEN })
}

fn anothers(settings: &Settings, process: u32) -> Doubt {
    let who = if *settings.port == 0 {
        format!("the agent that runs (process {process})")
    } else {
        format!("whoever listens on port {}", *settings.port)
    };
    let text = format!(
        "{who} was not started by this user: if it is the agent, its executor may be a root executor, or another \
         account's"
    );
    Doubt { text, hint: ANOTHERS }
}

impl Whose {
    /// Takes the account of the running agent for the configured one, if what its executor finds is looked at with that.
    pub(super) fn settle(&self, settings: &mut Settings) {
        let Known::Running { agent, .. } = &self.known else { return };
        let configured = match &*settings.user {
            Configured::Id(id) => Some(*id),
            Configured::Name(name) => Account::by_name(name).ok().flatten().map(|account| account.uid().as_raw()),
        };
        if self.kinship == Kinship::Private && configured != Some(agent.uid) {
            settings.user = settings.user.clone().instead(Configured::Id(agent.uid));
        }
    }

    /// In words, for an explanation.
    pub(super) fn text(&self) -> String {
        let rights = "scripts have its own rights and no profile is applied";
        let outdated = match self.known {
            Known::Running { outdated: true, .. } => "; it was started without the executor_socket of now",
            _ => "",
        };
        match (&self.kinship, &self.known) {
            (Kinship::Private, Known::Running { agent: Serving { process, uid, .. }, .. }) => {
                format!("private, of the running agent (process {process}, uid {uid}): {rights}{outdated}")
            }
            (Kinship::Private, Known::IfStartedHere) => format!(
                "private, of an agent that this user starts: {rights} (one that root starts has a root executor, which \
                 applies them: ask as root)"
            ),
            (Kinship::Private, _) => {
                "private: scripts have the agent's own rights and no profile is applied".to_owned()
            }
            (Kinship::Own, Known::Running { agent, .. }) => {
                format!("the running agent's own, as root (process {}){outdated}", agent.process)
            }
            (Kinship::Own, _) => "the agent's own, as root, of an agent that root starts; none runs now (one that is \
                started as another account has a private one, which applies no profile: ask with --unprivileged)"
                .to_owned(),
            (Kinship::System(path), _) => format!("the system's, at {}", path.display()),
        }
    }

    /// In words, for a check.
    pub(super) fn checked(&self) -> String {
        match (&self.kinship, &self.known) {
            (_, Known::Not(doubt)) => format!("{}; {}", doubt.text, doubt.hint),
            (Kinship::Private, Known::Running { agent, .. }) => {
                format!("private, of the running agent (process {}); scripts run with its rights", agent.process)
            }
            (Kinship::Private, Known::IfStartedHere) => {
                "private, if this user starts the agent and not root; scripts run \
                with the agent's own rights"
                    .to_owned()
            }
            (Kinship::Private, Known::Sure) => "private; scripts run with the agent's own rights".to_owned(),
            (Kinship::Own, Known::Running { .. }) => "the agent's own, as root; started with the agent".to_owned(),
            (Kinship::Own, _) => {
                "the agent's own, as root, if root starts the agent; none runs now (one that is started as \
                another account has a private one, which applies no profile: check with --unprivileged)"
                    .to_owned()
            }
            (Kinship::System(path), _) => format!("the system's, at {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Root, Source};

    fn judged(line: &str, agents: &[(u32, Option<Rank>)]) -> Known {
        let text = format!("port = 0\ncert = /c\nkey = /k\nca = /a\n{line}");
        let (settings, _) = Settings::parse(&Source::new("/c/agent.conf", text), &Root::default()).unwrap();
        let serving = |(process, (uid, executor)): (u32, &(u32, Option<Rank>))| Serving {
            process,
            uid: *uid,
            executor: *executor,
        };
        let agents: Vec<Serving> = (7..).zip(agents).map(serving).collect();
        judge(&Kinship::of(&settings, false), &agents, &settings, false)
    }

    fn doubt(line: &str, agents: &[(u32, Option<Rank>)]) -> String {
        match judged(line, agents) {
            Known::Not(doubt) => doubt.text,
            other => panic!("{other:?}"),
        }
    }

    /// Asked by root, as tests are.
    #[test]
    fn what_the_running_agents_have_is_not_guessed() {
        let (root, own) = (Some(Rank::Root), Some(Rank::Agents));
        assert_eq!(judged("", &[]), Known::IfStartedHere);
        for executor in [root, own] {
            let agent = Serving { process: 7, uid: 5, executor };
            assert_eq!(judged("", &[(5, executor)]), Known::Running { agent, outdated: false });
            let outdated = Known::Running { agent, outdated: true };
            assert_eq!(judged("executor_socket = /run/x.sock\n", &[(5, executor)]), outdated);
        }
        assert_eq!(judged("executor_socket = /run/x.sock\n", &[(5, None)]), Known::Sure);
        assert!(doubt("", &[(5, None)]).contains("the running agent (process 7) has no executor that can be seen"));
        for others in [[(5, root), (5, own)], [(5, own), (6, own)], [(5, None), (5, root)]] {
            assert!(doubt("", &others).ends_with("(processes 7, 8)"), "{others:?}");
        }
    }
}
