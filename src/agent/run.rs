//! `POST /run`: allowlist, argument contract, hook, order, output, one reply, one line.

use std::sync::Arc;

use hyper::StatusCode;

use super::answer::{self, Answer};
use super::call::Call;
use super::collect::Collector;
use super::detached;
use super::execute::{Finished, Run};
use super::gate::TrustedPeer;
use super::order::OrderError;
use super::rules::Gate;
use super::state::Agent;
use super::stream::{Outlet, OutputBody};
use super::under_way::Place;
use crate::audit::{Event, Level};
use crate::hook::Context;
use crate::sys::random;
use crate::wire::causes;
use crate::wire::name::RequestId;
use crate::wire::order::{Mode, Order};
use crate::wire::outcome::{EXIT_KILLED, EXIT_NOTHING_RAN, Outcome};
use crate::wire::refusal::Refusal;
use crate::wire::run::{Output, RunReply, RunRequest};

/// What stands before a run: an order to give, or the reply that there is none.
type Judged = Result<Order, Box<RunReply>>;

/// Runs an allowlisted script. The answer is JSON when it has ended; or, where the caller asked for it and the script
/// runs, a stream of what it prints. `place` is held until the run is over, that of a job until its caller has enough.
pub async fn run(agent: &Arc<Agent>, peer: &TrustedPeer, body: &[u8], streamed: bool, place: Place) -> Answer {
    let request = match RunRequest::parse(body) {
        Ok(request) => request,
        Err(reply) => return answer::json(StatusCode::OK, &reply),
    };
    let call = Call { agent: Arc::clone(agent), peer: peer.clone(), snapshot: agent.snapshot(), request };
    let order = match call.judge().await {
        Ok(order) => order,
        Err(reply) => return answer::json(StatusCode::OK, &reply),
    };
    if order.mode() == Mode::Detached {
        return detached::submit(call, order, streamed, place).await;
    }
    if streamed {
        return call.streamed(order, place).await;
    }
    let reply = call.buffered(&order).await;
    drop(place);
    answer::json(StatusCode::OK, &reply)
}

impl Call {
    /// The gates in their order.
    async fn judge(&self) -> Judged {
        let request = &self.request;
        let script = self.snapshot.rules().judge(&request.script(), &request.args).into_result();
        let script = script.map_err(|(gate, refusal)| Box::new(self.stopped(gate, &refusal)))?;
        if let Err(reason) = self.agent.ask_hook(&self.snapshot, &self.peer, hook_context(request)).await {
            self.deny(Some(&reason));
            return Err(Box::new(request.refused(format!("not authorised: {reason}"))));
        }
        let (mode, id) = match RequestId::parse(&request.reqid()) {
            Err(_) if request.detached => {
                return Err(Box::new(request.refused("async run requires a valid reqid")));
            }
            Err(_) => (Mode::Attached, fresh_id()),
            Ok(id) => (if request.detached { Mode::Detached } else { Mode::Attached }, Ok(id)),
        };
        let order = id.and_then(|id| Order::new(script, request.args.clone(), id, mode));
        let order = order.map(|order| order.traced(self.peer.trace().cloned()));
        order.map_err(|refusal| Box::new(self.refused(&refusal)))
    }

    /// A gate of the front-end's own files refused. Of a script that is not listed there is no more to say.
    fn stopped(&self, gate: Gate, refusal: &Refusal) -> RunReply {
        match gate {
            Gate::Contract => self.refused(refusal),
            Gate::Allowlist => {
                self.deny(None);
                self.request.refused(refusal.text())
            }
        }
    }

    async fn buffered(&self, order: &Order) -> RunReply {
        let limit = usize::try_from(self.snapshot.settings.max_output).unwrap_or(usize::MAX);
        let collector = Collector::new(limit);
        let guard = Unfinished::new(self);
        let finished = async {
            let run = Run::start(self.agent.orders(), order).await?;
            run.finish(&self.context(), self.snapshot.settings.stdin_timeout, &collector).await
        };
        let finished = finished.await;
        guard.over();
        let (stdout, stderr) = collector.finish();
        self.reply(finished, stdout, stderr)
    }

    /// Starts the run; streams once the script's program runs.
    async fn streamed(self, order: Order, place: Place) -> Answer {
        let guard = Unfinished::new(&self);
        let begun = async {
            let mut run = Run::start(self.agent.orders(), &order).await?;
            Ok::<_, OrderError>(run.begun().await?.map_or(Ok(run), Err))
        };
        let begun = begun.await;
        guard.over();
        let none = Output::default;
        match begun {
            Ok(Ok(run)) => answer::stream(OutputBody::start(|outlet| self.stream(run, outlet, place))),
            Ok(Err(outcome)) => {
                let finished = Finished { outcome, unread: None };
                answer::json(StatusCode::OK, &self.reply(Ok(finished), none(), none()))
            }
            Err(error) => answer::json(StatusCode::OK, &self.reply(Err(error), none(), none())),
        }
    }

    async fn stream(self, run: Run, outlet: Outlet, place: Place) {
        let context = self.context();
        let guard = Unfinished::new(&self);
        let finished = tokio::select! {
            finished = run.finish(&context, self.snapshot.settings.stdin_timeout, &outlet) => finished,
            never = outlet.keep_alive() => match never {},
        };
        guard.over();
        let reply = self.reply(finished, Output::default(), Output::default());
        // The output was in the frames before.
        let reply = RunReply { stdout: None, stderr: None, ..reply };
        outlet.end(serde_json::to_vec(&reply).unwrap_or_else(|_| b"{}".to_vec())).await;
        drop(place);
    }

    fn reply(&self, finished: Result<Finished, OrderError>, stdout: Output, stderr: Output) -> RunReply {
        match finished {
            Ok(Finished { outcome: Outcome::Refused(refusal), .. }) => self.refused(&refusal),
            Ok(Finished { outcome, unread }) => {
                if let Some(bytes) = unread {
                    self.agent.log().emit(Event::new(Level::Warning, "stdin-timeout").field("BYTES", bytes));
                }
                self.log(outcome.exit(), None);
                self.request.ran(&outcome, stdout, stderr)
            }
            Err(error) => self.failed(&error),
        }
    }

    /// The executor broke. The original's form: `exit` -1 with the text on `stderr`.
    fn failed(&self, error: &OrderError) -> RunReply {
        let text = causes::on_one_line(error);
        self.log(EXIT_NOTHING_RAN, None);
        RunReply {
            stdout: Some(String::new()),
            stderr: Some(text.clone()),
            error: Some(text),
            reason: Some("executor-failed".to_owned()),
            ..self.request.refused("")
        }
    }

    fn log(&self, exit: i32, reason: Option<&str>) {
        let event = Event::new(Level::Info, "run")
            .field("DISPATCHER", self.peer.id())
            .field("EXIT", exit)
            .field("PEER", self.peer.address())
            .maybe("REASON", reason)
            .field("REQID", self.request.reqid())
            .field("SCRIPT", self.request.script())
            .maybe("TRACE", self.peer.trace());
        self.agent.log().emit(event);
    }
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

/// Logs a run whose caller went away, which is told by nothing but this being dropped: the script is killed with its
/// connection, and still every run has its line.
struct Unfinished<'a>(Option<&'a Call>);

impl<'a> Unfinished<'a> {
    const fn new(call: &'a Call) -> Self {
        Self(Some(call))
    }

    /// The run is over; its line is written elsewhere.
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.0 {
            call.log(EXIT_KILLED, Some("caller-gone"));
        }
    }
}
