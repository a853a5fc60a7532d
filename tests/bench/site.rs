//! One dispatcher and its agents in a temporary directory, as real processes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::pki::cert::Certificate;
use ctrl_exec::pki::csr::{self, ExpectedName};
use ctrl_exec::pki::{key, serial};
use ctrl_exec::wire::hex;
use ctrl_exec::wire::name::AgentName;
use time::OffsetDateTime;

use crate::process;

/// What the agents may run.
const ALLOWLIST: &str = "true = /bin/true\nhead = /usr/bin/head\nsleep = /bin/sleep\n";

pub(crate) struct Site {
    binary: PathBuf,
    /// Before the directory, so that the processes end before their files go.
    agents: Vec<Agent>,
    dir: tempfile::TempDir,
    /// What `/run` is, in memory.
    _run: tempfile::TempDir,
}

/// One managed host.
struct Agent {
    child: Child,
    address: SocketAddr,
    certificate: Certificate,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Site {
    /// A dispatcher and the agent `web`.
    pub(crate) fn start(binary: &Path) -> Self {
        let mut site = Self::control(binary, "");
        site.add("web", Ipv4Addr::LOCALHOST.into());
        site
    }

    /// A dispatcher alone, with these settings.
    pub(crate) fn control(binary: &Path, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        for place in ["etc/ctrl-exec", "var/lib/ctrl-exec/agents"] {
            std::fs::create_dir_all(root.join(place)).unwrap();
        }
        let run = tempfile::tempdir_in("/dev/shm").unwrap();
        std::os::unix::fs::symlink(run.path(), root.join("run")).unwrap();
        let own = root.join("etc/ctrl-exec").display().to_string();
        let conf = format!("cert = {own}/d.crt\nkey = {own}/d.key\nca = {own}/ca.crt\nca_dir = {own}\n{settings}");
        std::fs::write(format!("{own}/ctrl-exec.conf"), conf).unwrap();
        for verb in ["setup-ca", "setup-ctrl-exec"] {
            let status = Command::new(binary).arg("--root").arg(root).arg(verb).stdout(Stdio::null()).status();
            assert!(status.unwrap().success());
        }
        Self { binary: binary.to_owned(), agents: Vec::new(), dir, _run: run }
    }

    /// Starts an agent on an address of this machine and registers it under its name.
    pub(crate) fn add(&mut self, name: &str, address: IpAddr) {
        let root = self.root().join(name);
        let certificate = self.issue(name, address, &root);
        let (child, address) = serve(&self.binary, &root);
        self.agents.push(Agent { child, address, certificate });
        self.register(name, self.agents.len() - 1);
    }

    /// Registers an agent under another name too.
    pub(crate) fn register(&self, name: &str, agent: usize) {
        let Agent { address, certificate, .. } = self.agents.get(agent).unwrap();
        let record = serde_json::json!({
            "hostname": name, "ip": address.ip().to_string(), "lookup_by": "ip", "port": address.port(),
            "cert_cn": certificate.common_name().unwrap(),
            "cert_key_sha256": hex::encode(&certificate.public_key().sha256()),
        });
        let place = self.root().join("var/lib/ctrl-exec/agents").join(format!("{name}.json"));
        std::fs::write(place, record.to_string()).unwrap();
    }

    /// A dispatcher's command.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root()).args(words);
        command
    }

    /// The dispatcher's `/`. Each agent's own is a directory of its name in it.
    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Where the only agent listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.agents.first().unwrap().address
    }

    /// Agent and executor of the only agent.
    pub(crate) fn pids(&self) -> (u32, u32) {
        let agent = self.agents.first().unwrap().child.id();
        (agent, *process::children(agent).first().unwrap())
    }

    fn issue(&self, name: &str, address: IpAddr, root: &Path) -> Certificate {
        let etc = root.join("etc/ctrl-exec-agent");
        let state = root.join("var/lib/ctrl-exec-agent");
        for place in [&etc, &state] {
            std::fs::create_dir_all(place).unwrap();
        }
        let read = |place: &str| std::fs::read_to_string(self.root().join("etc/ctrl-exec").join(place)).unwrap();
        let ca = Ca::load(&read("ca.key"), &read("ca.crt")).unwrap();
        let key = key::generate().unwrap();
        let request = csr::make(&key, &AgentName::parse(name).unwrap()).unwrap();
        let request = csr::check(&request, ExpectedName::Exactly(name)).unwrap();
        let cert = ca.sign_agent(&request, &serial::fresh().unwrap(), 30, OffsetDateTime::now_utc()).unwrap();
        let trusted = Certificate::from_pem(&read("d.crt")).unwrap();
        std::fs::write(state.join("ctrl-exec-dispatchers"), format!("{} bench\n", trusted.serial())).unwrap();
        std::fs::write(etc.join("agent.crt"), cert.to_pem()).unwrap();
        std::fs::write(etc.join("agent.key"), key.to_pem()).unwrap();
        std::fs::write(etc.join("ca.crt"), read("ca.crt")).unwrap();
        std::fs::write(etc.join("agent.conf"), configuration(&etc, address)).unwrap();
        std::fs::write(etc.join("scripts.conf"), ALLOWLIST).unwrap();
        cert
    }
}

fn configuration(etc: &Path, address: IpAddr) -> String {
    let etc = etc.display();
    let files = format!("cert = {etc}/agent.crt\nkey = {etc}/agent.key\nca = {etc}/ca.crt\n");
    let rest = "user = nobody\nrate_limit_disable = yes\n[profile default]\nrun_as = nobody\n";
    format!("port = 0\nbind = {address}\n{files}{rest}")
}

/// Starts the agent and waits until it says that it is ready, and where.
fn serve(binary: &Path, root: &Path) -> (Child, SocketAddr) {
    let place = root.join("notify");
    let notify = UnixDatagram::bind(&place).unwrap();
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777)).unwrap();
    let mut command = Command::new(binary);
    command.arg("agent").arg("--root").arg(root).args(["serve", "--unprivileged"]).env("NOTIFY_SOCKET", &place);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut buffer = [0; 4096];
    let size = notify.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(buffer.get(..size).unwrap()).into_owned();
    let address = text.lines().find_map(|line| line.strip_prefix("X_CTRL_EXEC_ADDRESS=")).unwrap();
    (child, address.parse().unwrap())
}
