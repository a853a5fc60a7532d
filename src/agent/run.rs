//! `POST /run`: allowlist, hook, order, output, one reply, one line.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::answer::{self, Answer};
use super::collect::Collector;
use super::gate::TrustedPeer;
use super::order::{OrderError, Running};
use super::snapshot::Snapshot;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::hook::Context;
use crate::sys::{clock, pipe, random};
use crate::wire::causes;
use crate::wire::context::RunContext;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::{Mode, Order};
use crate::wire::outcome::Outcome;
use crate::wire::refusal::Refusal;
use crate::wire::run::{Output, RunReply, RunRequest};
use crate::wire::stamp;

/// Runs an allowlisted script and answers when it has ended.
pub async fn run(agent: &Agent, peer: &TrustedPeer, body: &[u8]) -> Answer {
    let reply = match RunRequest::parse(body) {
        Ok(request) => judged(agent, peer, &request).await,
        Err(reply) => *reply,
    };
    answer::json(StatusCode::OK, &reply)
}

/// The gates in their order, then the run.
async fn judged(agent: &Agent, peer: &TrustedPeer, request: &RunRequest) -> RunReply {
    let snapshot = agent.snapshot();
    let Some(script) = listed(&snapshot, &request.script()) else {
        deny(agent, peer, request, None);
        return request.refused("script not permitted");
    };
    if let Err(reason) = agent.ask_hook(&snapshot, peer, hook_context(request)).await {
        deny(agent, peer, request, Some(&reason));
        return request.refused(format!("not authorised: {reason}"));
    }
    if request.detached {
        return request.refused("async runs are not supported by this agent; run synchronously");
    }
    let id = RequestId::parse(&request.reqid()).or_else(|_| fresh_id());
    let order = match id.and_then(|id| Order::new(script, request.args.clone(), id, Mode::Attached)) {
        Ok(order) => order,
        Err(refusal) => return refused(agent, peer, request, &refusal),
    };
    match execute(agent, &snapshot, peer, request, &order).await {
        Ok((Outcome::Refused(refusal), ..)) => refused(agent, peer, request, &refusal),
        Ok((outcome, stdout, stderr)) => {
            log_run(agent, peer, request, outcome.exit());
            request.ran(&outcome, stdout, stderr)
        }
        Err(error) => failed(agent, peer, request, &error),
    }
}

fn listed(snapshot: &Snapshot, name: &str) -> Option<ScriptName> {
    let name = ScriptName::parse(name).ok()?;
    snapshot.allowlist.get(&name).map(|_| name)
}

fn fresh_id() -> Result<RequestId, Refusal> {
    let bytes = random::bytes().map_err(|error| Refusal::new("no-randomness", error.to_string()))?;
    Ok(RequestId::from_random(bytes))
}

fn hook_context(request: &RunRequest) -> Context {
    Context {
        action: "run".to_owned(),
        script: request.script(),
        args: request.args.clone(),
        username: request.username.clone(),
        token: request.token.clone(),
        ..Context::default()
    }
}

/// Gives the order with three pipes, writes the context, collects the output, waits for the outcome.
async fn execute(
    agent: &Agent,
    snapshot: &Snapshot,
    peer: &TrustedPeer,
    request: &RunRequest,
    order: &Order,
) -> Result<(Outcome, Output, Output), OrderError> {
    let (pipes, theirs) = pipes().map_err(OrderError::Unreachable)?;
    let connection = agent.orders().open().await.map_err(OrderError::Unreachable)?;
    let descriptors = [theirs.stdin.as_fd(), theirs.stdout.as_fd(), theirs.stderr.as_fd()];
    let mut running = Running::give(connection, order, &descriptors).await?;
    // Our copies must go, or the pipes never end.
    drop(theirs);
    let limit = usize::try_from(snapshot.settings.max_output).unwrap_or(usize::MAX);
    let (stdout, stderr) = (Collector::new(limit), Collector::new(limit));
    let feed = feed(agent, pipes.stdin, context(peer, request), snapshot.settings.stdin_timeout);
    let outcome = {
        let io = async { tokio::join!(feed, stdout.follow(&pipes.stdout), stderr.follow(&pipes.stderr)) };
        // One wait for the outcome, never a second: what the first had read of a report would be lost with it.
        let outcome = running.outcome();
        tokio::pin!(io, outcome);
        tokio::select! {
            biased;
            outcome = &mut outcome => outcome?,
            _ = &mut io => outcome.await?,
        }
    };
    stdout.drain(&pipes.stdout);
    stderr.drain(&pipes.stderr);
    Ok((outcome, stdout.finish(), stderr.finish()))
}

struct Ours {
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
}

struct Theirs {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// The script's ends stay blocking, as every program expects; ours do not.
fn pipes() -> std::io::Result<(Ours, Theirs)> {
    let (stdin_read, stdin_write) = pipe::pipe()?;
    let (stdout_read, stdout_write) = pipe::pipe()?;
    let (stderr_read, stderr_write) = pipe::pipe()?;
    let ours = Ours {
        stdin: Sender::from_owned_fd(stdin_write)?,
        stdout: Receiver::from_owned_fd(stdout_read)?,
        stderr: Receiver::from_owned_fd(stderr_read)?,
    };
    Ok((ours, Theirs { stdin: stdin_read, stdout: stdout_write, stderr: stderr_write }))
}

fn context(peer: &TrustedPeer, request: &RunRequest) -> RunContext {
    RunContext {
        script: request.script(),
        args: request.args.clone(),
        reqid: request.reqid(),
        peer_ip: peer.address().to_string(),
        username: request.username.clone(),
        token: request.token.clone(),
        dispatcher: peer.id().to_string(),
        timestamp: stamp::utc(clock::unix_now()),
    }
}

/// Writes the context. A script may ignore or close its stdin; one that reads too slowly loses the rest.
async fn feed(agent: &Agent, mut stdin: Sender, context: RunContext, limit: Duration) {
    let text = serde_json::to_vec(&context).unwrap_or_default();
    let mut left = text.as_slice();
    let writing = async {
        while !left.is_empty() {
            match stdin.write(left).await {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(_) => left = &[],
            }
        }
    };
    let in_time = tokio::time::timeout(limit, writing).await.is_ok();
    if !in_time {
        agent.log().emit(Event::new(Level::Warning, "stdin-timeout").field("BYTES", left.len()));
    }
}

fn deny(agent: &Agent, peer: &TrustedPeer, request: &RunRequest, reason: Option<&str>) {
    let event = Event::new(Level::Warning, "deny")
        .maybe("DISPATCHER", reason.map(|_| peer.id()))
        .field("PEER", peer.address())
        .maybe("REASON", reason)
        .field("REQID", request.reqid())
        .field("SCRIPT", request.script());
    agent.log().emit(event);
}

/// The executor, or its protocol, refused. Where a script may not run, the caller learns no more than from the
/// allowlist.
fn refused(agent: &Agent, peer: &TrustedPeer, request: &RunRequest, refusal: &Refusal) -> RunReply {
    deny(agent, peer, request, Some(refusal.code()));
    let hidden = refusal.code().starts_with("script-not-");
    let text = if hidden { "script not permitted" } else { refusal.text() };
    RunReply { reason: Some(refusal.code().to_owned()), ..request.refused(text) }
}

/// The executor broke. The original's form: `exit` -1 with the text on `stderr`.
fn failed(agent: &Agent, peer: &TrustedPeer, request: &RunRequest, error: &OrderError) -> RunReply {
    let text = causes::on_one_line(error);
    log_run(agent, peer, request, -1);
    let output = Output { text: text.clone(), ..Output::default() };
    RunReply {
        stdout: Some(String::new()),
        stderr: Some(output.text),
        error: Some(text),
        reason: Some("executor-failed".to_owned()),
        ..request.refused("")
    }
}

fn log_run(agent: &Agent, peer: &TrustedPeer, request: &RunRequest, exit: i32) {
    let event = Event::new(Level::Info, "run")
        .field("DISPATCHER", peer.id())
        .field("EXIT", exit)
        .field("PEER", peer.address())
        .field("REQID", request.reqid())
        .field("SCRIPT", request.script());
    agent.log().emit(event);
}
