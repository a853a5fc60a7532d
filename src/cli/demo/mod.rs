//! `demo`: the main job on this machine, with nothing but this file.
//!
//! A temporary directory is both hosts. Every step is a real process of this program: the CA, the pairing on
//! loopback with the operator's approval, the agent, the run. It shows each command as one would type it on two hosts.

mod host;
mod interrupt;
mod process;

use std::path::PathBuf;

use host::Host;
use process::{Daemon, Step};

use super::out;
use crate::exit::Exit;
use crate::failure::Failure;

/// How to end.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the agent running, and say how to call and stop it
    #[arg(long)]
    keep: bool,
}

/// Shows it all; 0 if the script ran.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    interrupt::watch()?;
    let mut host = Host::create()?;
    out::line(format!("Everything below happens on this machine, in {}.\n", host.root().display()));
    prepare(&host)?;
    pair(&mut host)?;
    let agent = serve(&host)?;
    let ran = call(&host)?;
    audit(&host);
    if args.keep {
        keep(host, agent);
    } else {
        agent.stop();
    }
    next_steps();
    Ok(if ran { Exit::Success } else { Exit::Failed })
}

fn prepare(host: &Host) -> Result<(), Failure> {
    out::line("== Control host: a private CA, and the dispatcher's own certificate");
    host.dispatcher(&["setup-ca"]).shown().run()?;
    host.dispatcher(&["setup-ctrl-exec"]).shown().run()?;
    Ok(())
}

fn pair(host: &mut Host) -> Result<(), Failure> {
    out::line("\n== Pairing: the managed host asks, the operator compares the code and approves");
    out::line("   $ ctrl-exec pairing-mode                                  (control host)");
    let session = Daemon::start(host.root(), "pairing", host.dispatcher(&["pairing-mode", "--port", "0"]))?;
    let port = session.port().to_string();
    out::line("   $ ctrl-exec-agent request-pairing --dispatcher HOST       (managed host)");
    let fingerprint = host.ca_fingerprint()?;
    let ask = ["request-pairing", "--dispatcher", "127.0.0.1", "--port", &port, "--ca-fingerprint", &fingerprint];
    let mut asking = host.agent(&ask).spawn()?;
    let code = asking.line_after("Pairing code: ")?;
    out::line(format!("   the managed host shows code {code}"));
    let (id, shown) = host.pending()?;
    out::line(format!("   the control host shows code {shown}, request {id}"));
    if code != shown {
        return Err(Failure::new(Exit::Failed, "the two codes differ: somebody is between the two ends"));
    }
    host.dispatcher(&["approve", &id]).shown().run()?;
    asking.finish()?;
    session.stop();
    host.find_agent()
}

fn serve(host: &Host) -> Result<Daemon, Failure> {
    out::line("\n== Managed host: the agent serves; its allowlist names one script");
    out::line("   $ ctrl-exec-agent serve --unprivileged");
    let agent = Daemon::start(host.root(), "agent", host.agent(&["serve", "--unprivileged"]))?;
    out::line(format!("   listening on 127.0.0.1:{}", agent.port()));
    Ok(agent)
}

fn call(host: &Host) -> Result<bool, Failure> {
    out::line("\n== Control host: run the script there, over mutual TLS");
    let name = host.agent_name().to_owned();
    host.dispatcher(&["ping", &name]).shown().run()?;
    host.dispatcher(&["run", &name, "host-facts"]).shown().run()?;
    out::line("\n   What the allowlist does not name does not run:");
    let refused = host.dispatcher(&["run", &name, "reboot"]).shown().status()?;
    Ok(!refused)
}

fn audit(host: &Host) {
    out::line("\n== The audit lines of both sides (journal or syslog on a real host)");
    for line in host.audit_lines() {
        out::line(format!("   {line}"));
    }
}

fn keep(host: Host, agent: Daemon) {
    let root = host.root().display().to_string();
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ctrl-exec")).display().to_string();
    out::line("\n== The agent is left running");
    out::line(format!("   call it:  {program} --root {root} run {} host-facts", host.agent_name()));
    out::line(format!("   stop it:  kill {} && rm -r {root}", agent.id()));
    agent.leave();
    host.leave();
}

fn next_steps() {
    out::line("\n== The same between two hosts: copy this one file to both, then as root");
    out::line("   control host:  ctrl-exec setup-ca; ctrl-exec setup-ctrl-exec; ctrl-exec pairing-mode");
    out::line("   managed host:  ctrl-exec-agent request-pairing --dispatcher CONTROL-HOST");
    out::line("   control host:  compare the code, approve; then: ctrl-exec run MANAGED-HOST SCRIPT");
    out::line("   README.md has the configuration files that both need.");
}

/// The command that a step stands for, as it is typed on a real host.
fn typed(name: &str, words: &[String]) -> String {
    format!("   $ {name} {}", words.join(" "))
}

impl Step {
    fn shown(self) -> Self {
        out::line(typed(self.name(), self.words()));
        self
    }
}
