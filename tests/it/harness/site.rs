//! A dispatcher with its agents, set up as an operator would and then started.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctrl_exec::pki::ca::Ca;
use tempfile::TempDir;

use super::agent::{self, Agent};
use super::executor::Mode;
use super::pki::{self, Credentials};
use super::process::{Ran, finish, program, usual_umask};
use super::{binary, host};

/// The name that agents know the dispatcher by.
pub(crate) const DISPATCHER: &str = "control-1";

/// What to set up.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    agents: usize,
    settings: String,
    sections: String,
    scripts: Vec<(String, String)>,
    allowlist: String,
    agent_hook: Option<String>,
    dispatcher: String,
    hook: Option<String>,
    original_records: bool,
    executor: Mode,
    guarded: bool,
}

impl Builder {
    /// In a directory that root alone can put anything into, whichever executor there is.
    pub(crate) fn guarded(mut self) -> Self {
        self.guarded = true;
        self
    }

    /// Which executor the agents have.
    pub(crate) fn executor(mut self, mode: Mode) -> Self {
        self.executor = mode;
        self
    }

    pub(crate) fn agents(mut self, count: usize) -> Self {
        self.agents = count;
        self
    }

    /// A script on every agent, allowed under its name. `{work}` stands for the agent's working directory.
    pub(crate) fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.push((name.to_owned(), text.to_owned()));
        self
    }

    /// A shell script.
    pub(crate) fn sh(self, name: &str, text: &str) -> Self {
        self.script(name, &format!("#!/bin/sh\n{text}\n"))
    }

    /// A line of every agent's `scripts.conf`. `{scripts}` stands for the scripts' directory.
    pub(crate) fn allow(mut self, line: &str) -> Self {
        self.allowlist.extend([line, "\n"]);
        self
    }

    /// A setting of every agent.
    pub(crate) fn agent(mut self, line: &str) -> Self {
        self.settings.extend([line, "\n"]);
        self
    }

    /// A section of every agent's configuration.
    pub(crate) fn section(mut self, text: &str) -> Self {
        self.sections.extend([text, "\n"]);
        self
    }

    /// A shell script as every agent's hook.
    pub(crate) fn agent_hook(mut self, text: &str) -> Self {
        self.agent_hook = Some(text.to_owned());
        self
    }

    /// A setting of the dispatcher.
    pub(crate) fn dispatcher(mut self, line: &str) -> Self {
        self.dispatcher.extend([line, "\n"]);
        self
    }

    /// A shell script as the dispatcher's hook. `{work}` stands for the dispatcher's directory.
    pub(crate) fn hook(mut self, text: &str) -> Self {
        self.hook = Some(text.to_owned());
        self
    }

    /// Registry records as the original wrote them: nothing in them pins the agent's certificate.
    pub(crate) fn original_records(mut self) -> Self {
        self.original_records = true;
        self
    }

    /// Sets up and starts everything.
    pub(crate) fn start(self) -> Site {
        let mut site = self.prepare();
        for number in 0..site.agents.len() {
            site.start(number);
        }
        site
    }

    /// Sets up everything and starts no agent.
    pub(crate) fn prepare(self) -> Site {
        usual_umask();
        // A root executor wants its files where nobody else can put any, and so does who asks a hook. That is not so in
        // the temporary directory.
        let anywhere = self.executor == Mode::Private && !self.guarded;
        let anywhere = anywhere && self.agent_hook.is_none() && self.hook.is_none();
        let dir = if anywhere { tempfile::tempdir() } else { tempfile::tempdir_in("/var/lib") };
        let dir = dir.unwrap();
        // An agent that was started as root has to get in as somebody else.
        open_to_all(dir.path());
        let control = dir.path().join("control");
        for place in ["etc/ctrl-exec", "run"] {
            std::fs::create_dir_all(control.join(place)).unwrap();
        }
        let mut site = Site { agents: Vec::new(), control, original_records: self.original_records, dir };
        self.dispatcher_files(&site);
        site.control(&["setup-ca"]).exits(0);
        site.control(&["setup-ctrl-exec"]).exits(0);
        let ca = site.authority();
        for number in 1..=self.agents {
            let name = format!("agent{number}");
            let root = site.dir.path().join(&name);
            site.agents.push(self.agent_files(&site, &ca, &name, root));
        }
        site
    }

    fn dispatcher_files(&self, site: &Site) {
        let etc = site.control.join("etc/ctrl-exec");
        let mut text = format!("dispatcher_id = {DISPATCHER}\n");
        for (key, file) in [("cert", "dispatcher.crt"), ("key", "dispatcher.key"), ("ca", "ca.crt")] {
            setting(&mut text, key, &etc.join(file));
        }
        if let Some(hook) = &self.hook {
            let path = etc.join("auth-hook");
            let control = site.control.display().to_string();
            agent::write_executable(&path, &format!("#!/bin/sh\n{hook}\n").replace("{work}", &control));
            setting(&mut text, "auth_hook", &path);
        }
        text += &self.dispatcher;
        std::fs::write(etc.join("ctrl-exec.conf"), text).unwrap();
    }

    fn agent_files(&self, site: &Site, ca: &Ca, name: &str, root: PathBuf) -> Agent {
        for place in ["etc/ctrl-exec-agent", "var/lib/ctrl-exec-agent", "run/ctrl-exec-agent", "scripts", "work"] {
            std::fs::create_dir_all(root.join(place)).unwrap();
        }
        host::give_to_agent(&root.join("var/lib/ctrl-exec-agent"));
        std::fs::set_permissions(root.join("work"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let mut agent = Agent::new(name, root, pki::issue(ca, name), self.executor);
        agent.write_credentials(agent.credentials.clone());
        std::fs::write(agent.root.join("etc/ctrl-exec-agent/ca.crt"), ca.certificate().to_pem()).unwrap();
        std::fs::write(agent.trust(), format!("{} {DISPATCHER}\n", site.dispatcher().serial())).unwrap();
        let work = agent.root.join("work").display().to_string();
        let mut allowlist = self.allowlist.replace("{scripts}", &agent.root.join("scripts").display().to_string());
        for (name, text) in &self.scripts {
            let path = agent.write_script(name, &text.replace("{work}", &work));
            setting(&mut allowlist, name, &path);
        }
        std::fs::write(agent.allowlist(), allowlist).unwrap();
        std::fs::write(agent.config(), self.agent_config(&agent)).unwrap();
        agent
    }

    fn agent_config(&self, agent: &Agent) -> String {
        let etc = agent.root.join("etc/ctrl-exec-agent");
        let mut text = "port = 0\nbind = 127.0.0.1\nuser = nobody\n".to_owned();
        for (key, file) in [("cert", "agent.crt"), ("key", "agent.key"), ("ca", "ca.crt")] {
            setting(&mut text, key, &etc.join(file));
        }
        if let Some(hook) = &self.agent_hook {
            let path = etc.join("auth-hook");
            let work = agent.root.join("work").display().to_string();
            agent::write_executable(&path, &format!("#!/bin/sh\n{hook}\n").replace("{work}", &work));
            setting(&mut text, "auth_hook", &path);
        }
        let scripts = agent.root.join("scripts").display().to_string();
        text += &self.settings.replace("{scripts}", &scripts);
        if self.executor == Mode::System {
            setting(&mut text, "executor_socket", &agent.socket());
        }
        text += "[profile default]\n";
        let sections = text + &self.sections;
        if self.executor == Mode::Private { sections } else { with_accounts(&sections) }
    }
}

/// Gives every profile without one an account, since a root executor applies them.
fn with_accounts(text: &str) -> String {
    let mut parts = text.split("[profile ");
    let top = parts.next().unwrap_or_default().to_owned();
    parts.fold(top, |text, part| {
        let (name, keys) = part.split_once(']').unwrap();
        let account = if keys.contains("run_as") { String::new() } else { format!("\nrun_as = {}", Mode::SCRIPTS) };
        format!("{text}[profile {name}]{account}{keys}")
    })
}

/// A dispatcher and its agents.
#[derive(Debug)]
pub(crate) struct Site {
    /// Before the directory, so that the processes end before their files go.
    pub(crate) agents: Vec<Agent>,
    /// The dispatcher's `/`.
    pub(crate) control: PathBuf,
    original_records: bool,
    /// Where all of it is.
    dir: TempDir,
}

impl Site {
    pub(crate) fn builder() -> Builder {
        Builder { agents: 1, ..Builder::default() }
    }

    /// The directory that holds all of it.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The only agent.
    pub(crate) fn agent(&self) -> &Agent {
        &self.agents[0]
    }

    pub(crate) fn agent_mut(&mut self) -> &mut Agent {
        &mut self.agents[0]
    }

    /// Starts an agent and records where it listens.
    pub(crate) fn start(&mut self, number: usize) {
        self.agents[number].start();
        let agent = &self.agents[number];
        self.register(&agent.name, agent.address().port(), &agent.credentials);
    }

    /// Writes a registry record.
    pub(crate) fn register(&self, name: &str, port: u16, credentials: &Credentials) {
        let certificate = credentials.certificate();
        let mut record = serde_json::json!({
            "hostname": name, "ip": "127.0.0.1", "paired": "2026-11-01T10:00:00Z", "reqid": "0badc0de",
            "expiry": certificate.expiry_text(), "lookup_by": "ip", "port": port,
            "dispatcher_serial": self.dispatcher().serial(), "serial_status": "current",
        });
        if !self.original_records {
            record["cert_cn"] = certificate.common_name().unwrap().into();
            record["cert_serial"] = certificate.serial().to_string().into();
            record["cert_key_sha256"] = ctrl_exec::wire::hex::encode(&certificate.public_key().sha256()).into();
        }
        std::fs::create_dir_all(self.registry()).unwrap();
        std::fs::write(self.record(name), record.to_string()).unwrap();
    }

    /// Where the dispatcher keeps TLS sessions from call to call.
    pub(crate) fn sessions(&self) -> PathBuf {
        self.control.join("run/ctrl-exec-sessions")
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.control.join("var/lib/ctrl-exec/agents")
    }

    pub(crate) fn record(&self, name: &str) -> PathBuf {
        self.registry().join(format!("{name}.json"))
    }

    /// The CA with its key.
    pub(crate) fn authority(&self) -> Ca {
        pki::authority(&self.control.join("etc/ctrl-exec"))
    }

    /// The dispatcher's certificate and key.
    pub(crate) fn dispatcher(&self) -> Credentials {
        let etc = self.control.join("etc/ctrl-exec");
        Credentials::load(&etc.join("dispatcher.crt"), &etc.join("dispatcher.key"))
    }

    /// The dispatcher's command line, still to be started.
    pub(crate) fn control_command(&self, words: &[&str]) -> Command {
        let mut command = program(&binary());
        command.arg("--root").arg(&self.control).args(words);
        command
    }

    /// The dispatcher's command line, to its end.
    #[track_caller]
    pub(crate) fn control(&self, words: &[&str]) -> Ran {
        finish(self.control_command(words), "")
    }

    /// Runs a script on the only agent and returns its result.
    #[track_caller]
    pub(crate) fn result(&self, script: &str, args: &[&str]) -> serde_json::Value {
        let mut words = vec!["--json", "run", "agent1", script];
        if !args.is_empty() {
            words.push("--");
            words.extend_from_slice(args);
        }
        self.control(&words).result()
    }
}

/// Appends `key = path`.
fn setting(text: &mut String, key: &str, path: &Path) {
    text.extend([key, " = ", &path.display().to_string(), "\n"]);
}

fn open_to_all(dir: &Path) {
    if host::is_root() {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}
