//! One dispatcher and one agent in a temporary directory, as real processes.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::pki::csr::{self, ExpectedName};
use ctrl_exec::pki::{key, serial};
use ctrl_exec::wire::name::AgentName;
use time::OffsetDateTime;

pub(crate) struct Site {
    binary: PathBuf,
    dir: tempfile::TempDir,
    agent: Child,
}

impl Site {
    pub(crate) fn start(binary: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        for place in ["etc/ctrl-exec", "etc/ctrl-exec-agent", "var/lib/ctrl-exec-agent", "var/lib/ctrl-exec/agents"] {
            std::fs::create_dir_all(root.join(place)).unwrap();
        }
        let (own, agent) = (root.join("etc/ctrl-exec").display().to_string(), root.join("etc/ctrl-exec-agent"));
        let conf = format!("cert = {own}/d.crt\nkey = {own}/d.key\nca = {own}/ca.crt\nca_dir = {own}\n");
        std::fs::write(format!("{own}/ctrl-exec.conf"), conf).unwrap();
        for verb in ["setup-ca", "setup-ctrl-exec"] {
            let status = Command::new(binary).arg("--root").arg(root).arg(verb).stdout(Stdio::null()).status();
            assert!(status.unwrap().success());
        }
        issue(root, &agent);
        let child = serve(binary, root);
        let mut site = Self { binary: binary.to_owned(), dir, agent: child.0 };
        site.register(child.1);
        site
    }

    /// A dispatcher's command.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.dir.path()).args(words);
        command
    }

    /// A file of the site.
    pub(crate) fn read(&self, place: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(place)).unwrap()
    }

    /// Resident KiB of agent and executor, with the limits.
    pub(crate) fn resident(&self) -> Vec<(&'static str, u64, u64)> {
        let agent = self.agent.id();
        let children = format!("/proc/{agent}/task/{agent}/children");
        let executor = std::fs::read_to_string(children).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        vec![("agent", resident(agent), 8192), ("executor", resident(executor), 3072)]
    }

    fn register(&mut self, port: u16) {
        let record = format!(r#"{{"hostname":"web","ip":"127.0.0.1","lookup_by":"ip","port":{port}}}"#);
        std::fs::write(self.dir.path().join("var/lib/ctrl-exec/agents/web.json"), record).unwrap();
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn issue(root: &Path, etc: &Path) {
    let read = |place: &str| std::fs::read_to_string(root.join("etc/ctrl-exec").join(place)).unwrap();
    let ca = Ca::load(&read("ca.key"), &read("ca.crt")).unwrap();
    let key = key::generate().unwrap();
    let request = csr::make(&key, &AgentName::parse("web").unwrap()).unwrap();
    let request = csr::check(&request, ExpectedName::Exactly("web")).unwrap();
    let cert = ca.sign_agent(&request, &serial::fresh().unwrap(), 30, OffsetDateTime::now_utc()).unwrap();
    let trusted = ctrl_exec::pki::cert::Certificate::from_pem(&read("d.crt")).unwrap();
    let map = format!("{} bench\n", trusted.serial());
    std::fs::write(root.join("var/lib/ctrl-exec-agent/ctrl-exec-dispatchers"), map).unwrap();
    std::fs::write(etc.join("agent.crt"), cert.to_pem()).unwrap();
    std::fs::write(etc.join("agent.key"), key.to_pem()).unwrap();
    std::fs::write(etc.join("ca.crt"), read("ca.crt")).unwrap();
    let etc = etc.display();
    let user = "user = nobody\nrate_limit_disable = yes\n[profile default]\nrun_as = nobody\n";
    let conf =
        format!("port = 0\nbind = 127.0.0.1\ncert = {etc}/agent.crt\nkey = {etc}/agent.key\nca = {etc}/ca.crt\n{user}");
    std::fs::write(format!("{etc}/agent.conf"), conf).unwrap();
    std::fs::write(format!("{etc}/scripts.conf"), "true = /bin/true\n").unwrap();
}

/// Starts the agent and waits until it says that it is ready, and where.
fn serve(binary: &Path, root: &Path) -> (Child, u16) {
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
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    (child, port)
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}
