//! What `self-check` says of the port: whether the agent could listen there, or does.

use std::path::Path;

use super::running;
use crate::cli::out;
use crate::conf::Account as Configured;
use crate::conf::agent::Settings;
use crate::net::listen::{ListenError, Listener};
use crate::sys::listening::{self, Listening};
use crate::sys::user::Account;
use crate::wire::causes;

/// The process that opens sockets for services.
const INIT: u32 = 1;

/// Who has the port now.
#[derive(Debug)]
pub(super) struct Port {
    held: Vec<(Listening, Holder)>,
}

/// Who has a socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    /// An agent that serves with this configuration.
    Agent(u32),
    /// The init system, and no agent.
    Init,
    /// Another program.
    Other(u32),
    /// This user may not look.
    Unknown,
}

impl Port {
    /// Looks, with the rights that the next steps of a check give up.
    pub(super) fn look(settings: &Settings, config: &Path) -> Self {
        // What cannot be found out is not known of, and said to be so.
        let sockets = if *settings.port == 0 { Vec::new() } else { listening::on(*settings.port).unwrap_or_default() };
        let agents = if sockets.is_empty() { Vec::new() } else { running::processes(config) };
        let held = sockets.into_iter().map(|socket| (socket, Holder::of(&socket, &agents)));
        Self { held: held.collect() }
    }

    /// Whether the agent could listen as it is configured to, or does: asked with its own rights, as it does.
    pub(super) fn check(&self, settings: &Settings) -> bool {
        let failed = Listener::check(&settings.bind, *settings.port);
        let mut good = true;
        for error in &failed {
            let (serves, text) = self.judge(error, settings);
            good &= serves;
            out::line(format!("  Port: {text}"));
        }
        if failed.is_empty() {
            out::line("  Port OK");
        }
        good
    }

    fn judge(&self, error: &ListenError, settings: &Settings) -> (bool, String) {
        let (address, reason) = (error.address(), causes::on_one_line(error));
        if !error.is_in_use() {
            let remedy = if error.is_nowhere() { ": 'bind' must name addresses that this host has" } else { "" };
            let key = if error.is_nowhere() { "bind" } else { "port" };
            return (false, format!("{reason}{remedy} ({})", settings.place(key)));
        }
        let place = settings.place("port");
        let in_the_way = |(socket, _): &&(Listening, Holder)| socket.stands_in_the_way_of(address.ip());
        let mut holders: Vec<_> = self.held.iter().filter(in_the_way).collect();
        // Who else is there as well decides.
        holders.sort_by_key(|(socket, holder)| (serves(holder, socket, settings), socket.address != address.ip()));
        match holders.first() {
            Some((_, Holder::Agent(pid))) => (true, format!("{address} is the running agent's (process {pid})")),
            Some((_, Holder::Init)) => {
                (true, format!("{address} is held by the init system, for the agent if its socket unit says so"))
            }
            Some((_, Holder::Other(pid))) => {
                let name = name_of(*pid);
                (false, format!("{reason}: process {pid} ({name}) listens there: stop it, or choose another ({place})"))
            }
            Some((socket, Holder::Unknown)) if is_agents(socket, settings) => {
                (true, format!("{address} is in use by the agent's account: by the agent, if it runs"))
            }
            Some((socket, Holder::Unknown)) => {
                (false, format!("{reason}: a process of uid {} listens there ({place})", socket.uid))
            }
            None => (false, format!("{reason} ({place})")),
        }
    }
}

impl Holder {
    fn of(socket: &Listening, agents: &[u32]) -> Self {
        let holds = |process: u32| socket.is_held_by(process) == Some(true);
        if let Some(agent) = agents.iter().copied().find(|agent| holds(*agent)) {
            return Self::Agent(agent);
        }
        if holds(INIT) && agents.is_empty() {
            return Self::Init;
        }
        socket.holder().map_or(Self::Unknown, Self::Other)
    }
}

/// Whether the agent serves, or will, although it cannot listen there itself now.
fn serves(holder: &Holder, socket: &Listening, settings: &Settings) -> bool {
    match holder {
        Holder::Agent(_) | Holder::Init => true,
        Holder::Other(_) => false,
        Holder::Unknown => is_agents(socket, settings),
    }
}

/// Whether the agent's account made the socket.
fn is_agents(socket: &Listening, settings: &Settings) -> bool {
    let uid = match &*settings.user {
        Configured::Id(id) => Some(*id),
        Configured::Name(name) => Account::by_name(name).ok().flatten().map(|account| account.uid().as_raw()),
    };
    uid == Some(socket.uid)
}

fn name_of(process: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    let name = name.trim_end();
    if name.is_empty() { "gone".to_owned() } else { name.to_owned() }
}
