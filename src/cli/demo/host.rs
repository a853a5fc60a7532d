//! The temporary directory that is both hosts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::interrupt;
use super::process::{self, Step};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pki::cert::Certificate;
use crate::store::queue::Queue;
use crate::store::registry::Registry;
use crate::sys::file::{self, Access};
use crate::sys::{random, user};
use crate::wire::hex;

/// The script that the demo runs.
const SCRIPT: &str = include_str!("../../../assets/host-facts");
/// How long the pairing request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Both hosts. Removed when dropped.
#[derive(Debug)]
pub(super) struct Host {
    root: PathBuf,
    agent_name: String,
    keep: bool,
}

impl Host {
    /// Writes the files of a fresh installation.
    pub(super) fn create() -> Result<Self, Failure> {
        let id = random::bytes::<4>().map_err(failed)?;
        // Every path below goes into configuration files and to processes that work elsewhere.
        let parent = std::path::absolute(std::env::temp_dir()).map_err(failed)?;
        let root = parent.join(format!("ctrl-exec-demo-{}", hex::encode(&id)));
        std::fs::create_dir(&root).map_err(|error| process::unusable(&parent, &error))?;
        let host = Self { root, agent_name: String::new(), keep: false };
        host.fill()?;
        Ok(host)
    }

    fn fill(&self) -> Result<(), Failure> {
        // Started as root, the agent becomes nobody, who must get through to its files.
        std::fs::set_permissions(&self.root, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        for dir in ["etc/ctrl-exec", "etc/ctrl-exec-agent", "opt/ctrl-exec-scripts", "var/lib"] {
            std::fs::create_dir_all(self.root.join(dir)).map_err(failed)?;
        }
        let r = self.root.display();
        let ctrl_exec = format!(
            "cert = {r}/etc/ctrl-exec/dispatcher.crt\nkey = {r}/etc/ctrl-exec/dispatcher.key\n\
             ca = {r}/etc/ctrl-exec/ca.crt\nca_dir = {r}/etc/ctrl-exec\n"
        );
        let etc = format!("{r}/etc/ctrl-exec-agent");
        let account = if user::is_root() { "user = nobody\n" } else { "" };
        let port = free_port()?;
        let agent = format!(
            "port = {port}\nbind = 127.0.0.1\ncert = {etc}/agent.crt\nkey = {etc}/agent.key\nca = {etc}/ca.crt\n\
             script_dirs = {r}/opt/ctrl-exec-scripts\n{account}\n[profile default]\nrun_as = nobody\n"
        );
        let scripts = format!("host-facts = {r}/opt/ctrl-exec-scripts/host-facts\n");
        self.write("etc/ctrl-exec/ctrl-exec.conf", &ctrl_exec, Access::public())?;
        self.write("etc/ctrl-exec-agent/agent.conf", &agent, Access::public())?;
        self.write("etc/ctrl-exec-agent/scripts.conf", &scripts, Access::public())?;
        self.write("opt/ctrl-exec-scripts/host-facts", SCRIPT, Access::mode(0o755))
    }

    fn write(&self, place: &str, text: &str, access: Access) -> Result<(), Failure> {
        file::write_atomic(&self.root.join(place), text.as_bytes(), access).map_err(failed)
    }

    /// The directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The name the agent was registered under.
    pub(super) fn agent_name(&self) -> &str {
        &self.agent_name
    }

    /// A dispatcher's command.
    pub(super) fn dispatcher(&self, words: &[&str]) -> Step {
        Step::new(&self.root, "ctrl-exec", "dispatcher", words)
    }

    /// An agent's command.
    pub(super) fn agent(&self, words: &[&str]) -> Step {
        Step::new(&self.root, "ctrl-exec-agent", "agent", words)
    }

    /// SHA-256 of the CA certificate.
    pub(super) fn ca_fingerprint(&self) -> Result<String, Failure> {
        let bytes = file::read_bounded(&self.root.join("etc/ctrl-exec/ca.crt"), 65_536).map_err(failed)?;
        let certificate = Certificate::from_pem_file(&String::from_utf8_lossy(&bytes)).map_err(failed)?;
        Ok(hex::encode(&certificate.sha256()))
    }

    /// Id and code of the request that waits at the dispatcher.
    pub(super) fn pending(&self) -> Result<(String, String), Failure> {
        let queue = Queue::new(self.root.join("var/lib/ctrl-exec/pairing"));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            interrupt::check()?;
            if let Some(request) = queue.list().map_err(failed)?.into_iter().next() {
                return Ok((request.id.to_string(), request.code));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Failure::new(Exit::Unavailable, "the pairing request did not arrive"))
    }

    /// Learns the name that the agent was registered under.
    pub(super) fn find_agent(&mut self) -> Result<(), Failure> {
        let registry = Registry::new(self.root.join("var/lib/ctrl-exec/agents"));
        let records = registry.list().map_err(failed)?.records;
        let record = records.first().ok_or_else(|| Failure::new(Exit::Failed, "no agent was registered"))?;
        self.agent_name = record.hostname.to_string();
        // The host's own name need not resolve to loopback.
        let words = ["edit-agent", record.hostname.as_str(), "--lookup-by", "ip", "--ip", "127.0.0.1"];
        self.dispatcher(&words).quiet().run()
    }

    /// Every audit line so far: the dispatcher's, then the agent's.
    pub(super) fn audit_lines(&self) -> Vec<String> {
        let read = |who: &str| file::read_bounded(&process::log(&self.root, who), 1024 * 1024).unwrap_or_default();
        let texts = ["ctrl-exec", "pairing", "ctrl-exec-agent", "agent"].map(read);
        let text = texts.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<String>();
        let mut seen: Vec<String> = text.lines().filter(|line| line.contains("ACTION=")).map(str::to_owned).collect();
        seen.dedup();
        seen
    }

    /// Leaves the directory behind.
    pub(super) fn leave(mut self) {
        self.keep = true;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing depends on it; a leftover in the temporary directory is the system's to clean.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

/// A port that nobody uses now. Registered with the dispatcher, so it cannot be left to the kernel at each start.
fn free_port() -> Result<u16, Failure> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
    Ok(listener.local_addr().map_err(failed)?.port())
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
    Failure::new(Exit::Unavailable, error)
}
