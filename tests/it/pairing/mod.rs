//! Pairing between processes: the commands as operators type them on two hosts, with and without a terminal.

mod answers;
mod background;
mod confirm;
mod downgrade;
mod killed;
mod live;
mod preflight;
mod prompt;
mod session;
mod silence;
mod whole;

use std::process::Command;
use std::time::Duration;

use ctrl_exec::sys::host::fqdn;
use live::Live;
use serde_json::Value;

use crate::harness::notify::Notify;
use crate::harness::process::Ran;
use crate::harness::process::{finish, program};
use crate::harness::{Agent, Site, binary, eventually};

/// A control host with its CA, and managed hosts that are not paired.
#[derive(Debug)]
struct World {
    site: Site,
    /// The name that this machine asks to be registered under.
    name: String,
}

impl World {
    fn new() -> Self {
        Self::of(Site::builder().sh("ok", "echo ran").prepare())
    }

    fn of(site: Site) -> Self {
        for agent in &site.agents {
            for path in files(agent) {
                std::fs::remove_file(path).unwrap();
            }
        }
        Self { site, name: fqdn(Duration::from_secs(5)) }
    }

    fn agent(&self) -> &Agent {
        self.site.agent()
    }

    /// Opens pairing mode in the foreground, with nobody at its prompt.
    fn session(&self, words: &[&str]) -> Session {
        self.open(words, false)
    }

    /// Opens pairing mode at a terminal.
    fn session_on_terminal(&self, words: &[&str]) -> Session {
        self.open(words, true)
    }

    fn open(&self, words: &[&str], terminal: bool) -> Session {
        let place = self.site.dir().join("session");
        let notify = Notify::bind(&place.with_extension("notify"));
        let mut command = self.site.control_command(&["pairing-mode", "--port", "0"]);
        command.args(words).env("NOTIFY_SOCKET", notify.path());
        let mut live = if terminal { Live::on_terminal(command, &place) } else { Live::start(command, &place) };
        let port = eventually("an open pairing port", || {
            assert!(live.runs(), "no session: {}", live.err());
            let message = notify.receive()?;
            let (_, address) = message.into_iter().find(|(key, _)| key == "X_CTRL_EXEC_ADDRESS")?;
            Some(address.rsplit_once(':')?.1.to_owned())
        });
        Session { live, port }
    }

    /// `request-pairing`, still to be started.
    fn asking(&self, port: &str, words: &[&str]) -> Command {
        asking(self.agent(), port, words)
    }

    /// Starts `request-pairing` with nobody to ask.
    fn ask(&self, session: &Session, words: &[&str]) -> Live {
        Live::start(self.asking(&session.port, words), &self.site.dir().join("asking"))
    }

    /// Starts `request-pairing` at a terminal.
    fn ask_on_terminal(&self, session: &Session) -> Live {
        Live::on_terminal(self.asking(&session.port, &[]), &self.site.dir().join("asking"))
    }

    /// Runs `request-pairing` to its end.
    fn asked(&self, port: &str, words: &[&str]) -> Ran {
        finish(self.asking(port, words), "")
    }

    fn approve(&self, id: &str, words: &[&str]) -> Ran {
        self.site.control(&[&["approve", id], words].concat())
    }

    /// Pairs the only agent with nobody at any prompt.
    fn pair(&self, session: &Session) {
        let mut asking = self.ask(session, &[]);
        let id = reqid(&mut asking);
        self.approve(&id, &[]).exits(0);
        asking.ends().exits(0);
    }

    /// The registry record of this machine.
    fn record(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.site.record(&self.name)).unwrap()).unwrap()
    }

    /// Nothing was stored on the managed host, and nothing registered on the control host.
    #[track_caller]
    fn nothing_came_of_it(&self) {
        assert!(files(self.agent()).iter().all(|path| !path.exists()), "something was stored");
        assert!(!self.site.record(&self.name).exists(), "something was registered");
        assert_eq!(self.queued(), Vec::<String>::new());
    }

    /// Names of the files in the queue.
    fn queued(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.site.control.join("var/lib/ctrl-exec/pairing")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }
}

fn asking(agent: &Agent, port: &str, words: &[&str]) -> Command {
    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&agent.root).args(["request-pairing", "--dispatcher", "127.0.0.1"]);
    command.args(["--port", port]).args(words);
    command
}

/// The files that a pairing makes: certificate, key, CA, trust map.
fn files(agent: &Agent) -> [std::path::PathBuf; 4] {
    let etc = agent.root.join("etc/ctrl-exec-agent");
    [etc.join("agent.crt"), etc.join("agent.key"), etc.join("ca.crt"), agent.trust()]
}

/// The id of a request, as the asking side shows it.
fn reqid(asking: &mut Live) -> String {
    asking.line_after("Waiting for approval: request ").trim_end_matches('.').to_owned()
}

/// An open pairing mode.
#[derive(Debug)]
struct Session {
    live: Live,
    port: String,
}

impl Session {
    /// Ends it as a service manager does.
    fn close(self) -> Ran {
        self.live.signal(nix::sys::signal::Signal::SIGTERM);
        self.live.ends().exits(0)
    }
}
