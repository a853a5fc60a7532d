//! `POST /run`: what the gates say, order, output, one reply, one line.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use tokio::task::spawn_blocking;

use super::advice::Ear;
use super::answer::{self, Answer, Instead};
use super::call::{Call, Reply};
use super::collect::{Collected, Collector, Printed};
use super::detached;
use super::execute::{Finished, Run};
use super::gate::{Ask, Findings, Gate, Passed, Refused, Stopped};
use super::metrics::{End, Verb, Verdict};
use super::order::OrderError;
use super::state::Agent;
use super::stream::{Outlet, OutputBody, Reader, Stalled};
use super::under_way::Place;
use crate::audit::{Event, Level};
use crate::hook::Context;
use crate::sys::random;
use crate::wire::causes;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::{Mode, Order};
use crate::wire::outcome::{EXIT_KILLED, EXIT_NOTHING_RAN, OUTCOME_UNKNOWN};
use crate::wire::refusal::Refusal;
use crate::wire::run::{Output, RunReply, RunRequest};

impl Ask for RunRequest {
    const VERB: Verb = Verb::Run;
    type Found = ScriptName;

    fn call(&self) -> Option<(String, &[String])> {
        Some((self.script(), &self.args))
    }

    fn context(&self) -> Option<Context> {
        Some(Context {
            action: Self::VERB.action().to_owned(),
            script: self.script(),
            args: self.args.clone(),
            username: self.username.clone(),
            token: self.token.clone(),
            ..Context::default()
        })
    }

    fn found(findings: Findings) -> Result<ScriptName, Gate> {
        findings.consent()?;
        findings.script()
    }

    fn stopped(agent: &Arc<Agent>, stopped: Stopped<Self>) -> Answer {
        let Stopped { asked, refused } = stopped;
        Call::new(agent, asked).stopped(&refused).answer()
    }
}

/// Reads a request.
///
/// # Errors
/// The answer to what is none.
pub fn ask(body: &[u8]) -> Result<RunRequest, Instead> {
    RunRequest::parse(body).map_err(|reply| Reply { body: *reply, verdict: Verdict::Invalid }.answer().into())
}

/// Runs a script that the gates let through. The answer is JSON when it has ended; or, where the caller asked for it and
/// the script runs, a stream of what it prints. `place` is held until the run is over, that of a job until its caller has
/// enough.
pub async fn run(agent: &Arc<Agent>, passed: Passed<RunRequest>, reader: Option<Reader>, place: Place) -> Answer {
    let (asked, script) = passed.into_parts();
    let call = Call::new(agent, asked);
    let order = match call.order(script) {
        Ok(order) => order,
        Err(reply) => return reply.answer(),
    };
    if order.mode() == Mode::Detached {
        return detached::submit(call, order, reader, place).await;
    }
    if let Some(reader) = reader {
        return call.streamed(order, reader, place).await;
    }
    let (reply, printed) = call.buffered(&order).await;
    let answer = match printed {
        Some(printed) => call.large(reply, printed).await,
        None => reply.answer(),
    };
    drop(place);
    answer
}

impl Call {
    /// The order to give; or the reply that there is none.
    fn order(&self, script: ScriptName) -> Result<Order, Box<Reply>> {
        let request = &self.request;
        let (mode, id) = match RequestId::parse(&request.reqid()) {
            Err(_) if request.detached => {
                return Err(Box::new(self.invalid("invalid-reqid", "async run requires a valid reqid")));
            }
            Err(_) => (Mode::Attached, fresh_id()),
            Ok(id) => (if request.detached { Mode::Detached } else { Mode::Attached }, Ok(id)),
        };
        let order = id.and_then(|id| Order::new(script, request.args.clone(), id, mode));
        let order = order.map(|order| order.traced(self.peer.trace().cloned()));
        let order = order.map(|order| if mode == Mode::Attached { order.kept() } else { order });
        order.inspect(|order| self.gives(order)).map_err(|refusal| Box::new(self.refused(&refusal)))
    }

    /// A gate has refused. Of a script that is not listed there is no more to say.
    fn stopped(&self, refused: &Refused) -> Reply {
        match refused {
            Refused::Contract(refusal) => self.refused(refusal),
            Refused::Allowlist(refusal) => self.deny(None, self.request.refused(refusal.code(), refusal.text())),
            Refused::Hook(denial) => {
                let reason = denial.reason();
                self.deny(Some(reason), self.request.refused("not-authorised", format!("not authorised: {reason}")))
            }
            other => self.deny(Some(other.code()), self.request.refused(other.code(), "not authorised")),
        }
    }

    /// The reply to a run that is over; and what was printed, where that is too large to be in it.
    async fn buffered(&self, order: &Order) -> (Reply, Option<Printed>) {
        let settings = &self.snapshot.settings;
        let limit = usize::try_from(settings.max_output).unwrap_or(usize::MAX);
        let collector = Collector::new(limit, settings.async_runs_dir.to_path_buf());
        let ear = Ear::of(self.agent.orders(), &self.snapshot, order.script());
        let mut guard = Unfinished::new(self);
        let finished = async {
            let run = match Run::start(self.agent.orders(), order, &self.context()).await? {
                Ok(run) => run,
                Err(outcome) => return Ok(Finished { outcome, unread: None }),
            };
            let sink = ear.at(&collector);
            run.finish(settings.stdin_timeout, &self.agent.metrics.metered(&sink), || {}).await
        };
        let finished = finished.await;
        let (stdout, stderr, printed) = match collector.finish().await {
            Collected::Small(stdout, stderr) => (stdout, stderr, None),
            Collected::Large(printed) => {
                let (stdout, stderr) = printed.marks();
                (stdout, stderr, Some(printed))
            }
        };
        guard.over();
        // Who follows no stream may be the original's dispatcher, which knows no `reason`.
        let said = finished.as_ref().ok().and_then(|finished| finished.outcome.on_stderr());
        let Reply { body, verdict } = self.reply(finished, stdout, stderr);
        let body = RunReply { stderr: said.or(body.stderr), ..body };
        (Reply { body: ear.advise(body), verdict }, printed)
    }

    /// The answer to a run that has printed much.
    async fn large(&self, Reply { body, verdict }: Reply, printed: Printed) -> Answer {
        if let Some(lost) = printed.lost() {
            let line = self.line(Level::Warning, "output-cut").field("DISPATCHER", self.peer.id());
            self.agent.log().emit(line.field("ERROR", causes::on_one_line(lost)));
        }
        // Where the reply has room for what was printed, that room is empty.
        if [&body.stdout, &body.stderr].into_iter().any(|text| text.as_deref() != Some("")) {
            return Reply { body, verdict }.answer();
        }
        let fields = serde_json::to_vec(&RunReply { stdout: None, stderr: None, ..body }).unwrap_or_default();
        // A thread that may wait for the disk: all of it is read, to know its length.
        match spawn_blocking(move || printed.told(&fields)).await {
            Ok(Ok(large)) => answer::judged(answer::large(StatusCode::OK, large), verdict),
            failed => {
                let line = self.line(Level::Error, "output-fail").field("DISPATCHER", self.peer.id());
                let reason = failed.map(|told| told.err().map(|error| causes::on_one_line(&error)));
                self.agent.log().emit(line.maybe("ERROR", reason.ok().flatten()));
                let text = "the script has run, and what it has printed cannot be read";
                answer::judged(answer::error(StatusCode::INTERNAL_SERVER_ERROR, text), Verdict::Failed)
            }
        }
    }

    /// Starts the run; streams once the script's program runs, and where it may run although nobody says so.
    async fn streamed(self, order: Order, reader: Reader, place: Place) -> Answer {
        let mut guard = Unfinished::new(self);
        let ear = Ear::of(guard.call.agent.orders(), &guard.call.snapshot, order.script());
        let finished = match Run::start(guard.call.agent.orders(), &order, &guard.call.context()).await {
            // The guard goes along: the caller may be gone before the stream is looked at for the first time.
            Ok(Ok(run)) => {
                return answer::stream(OutputBody::start(reader, |outlet| guard.stream((run, ear), outlet, place)));
            }
            Ok(Err(outcome)) => Ok(Finished { outcome, unread: None }),
            Err(error) => Err(error),
        };
        guard.over();
        guard.call.reply(finished, Output::default(), Output::default()).answer()
    }

    fn reply(&self, finished: Result<Finished, OrderError>, stdout: Output, stderr: Output) -> Reply {
        let (outcome, unread) = match finished {
            Ok(Finished { outcome, unread }) => (outcome, unread),
            Err(error) => return self.failed(&error, stdout, stderr),
        };
        let end = match End::of(&outcome) {
            Ok(end) => end,
            Err(refusal) => return self.refused(refusal),
        };
        if let Some(bytes) = unread {
            let event = Event::new(Level::Warning, "stdin-timeout").field("BYTES", bytes);
            self.agent.log().emit(event.maybe("TRACE", self.peer.trace()));
        }
        self.ended(outcome.exit(), end);
        Reply { body: self.request.ran(&outcome, stdout, stderr), verdict: Verdict::Ok }
    }

    /// The executor broke: before anything ran, or nobody knows when.
    fn failed(&self, error: &OrderError, stdout: Output, stderr: Output) -> Reply {
        let text = causes::on_one_line(error);
        let (end, body) = if error.is_outcome_unknown() {
            (End::Lost, self.request.unknown(&text, stdout, stderr))
        } else {
            (End::ExecutorFailed, self.request.failed(End::ExecutorFailed.as_str(), &text))
        };
        self.ended(EXIT_NOTHING_RAN, end);
        Reply { body, verdict: Verdict::Failed }
    }

    /// A run is over, however: its line, and its count.
    fn ended(&self, exit: i32, end: End) {
        let reason = match end {
            End::CallerGone | End::CallerStalled | End::ExecutorFailed => Some(end.as_str()),
            End::Lost => Some(OUTCOME_UNKNOWN),
            _ => None,
        };
        let line = self.line(Level::Info, "run").field("DISPATCHER", self.peer.id());
        self.agent.log().emit(line.field("EXIT", exit).maybe("REASON", reason));
        let timed = !matches!(end, End::ExecutorFailed | End::Lost);
        let time = self.begun.get().map(Instant::elapsed).filter(|_| timed);
        self.agent.metrics.ran(&self.snapshot.allowlist, &self.request.script(), end, time);
    }
}

fn fresh_id() -> Result<RequestId, Refusal> {
    let bytes = random::bytes().map_err(|error| Refusal::new("no-randomness", error.to_string()))?;
    Ok(RequestId::from_random(bytes))
}

/// Logs a run whose caller went away, which is told by nothing but this being dropped: the script is killed with its
/// connection, and still every run has its line.
struct Unfinished<C: Borrow<Call>> {
    call: C,
    /// None once its line is written elsewhere.
    end: Option<End>,
}

impl<C: Borrow<Call>> Unfinished<C> {
    fn new(call: C) -> Self {
        call.borrow().begun.get_or_init(Instant::now);
        Self { call, end: Some(End::CallerGone) }
    }

    /// The run is over; its line is written elsewhere.
    fn over(&mut self) {
        self.end = None;
    }
}

impl Unfinished<Call> {
    async fn stream(mut self, (run, ear): (Run, Ear), outlet: Outlet, mut place: Place) {
        let overheard = ear.at(&outlet);
        let (limit, metered) = (self.call.snapshot.settings.stdin_timeout, self.call.agent.metrics.metered(&overheard));
        let ended = || outlet.is_to_be_read(&self.call.agent.readers, self.call.peer.id(), &mut place);
        let finished = tokio::select! {
            finished = run.finish(limit, &metered, ended) => finished,
            Stalled = outlet.keep_alive() => {
                self.end = Some(End::CallerStalled);
                return outlet.give_up();
            }
        };
        self.over();
        let reply = self.call.reply(finished, Output::default(), Output::default());
        // The output was in the frames before.
        let reply = RunReply { stdout: None, stderr: None, ..ear.advise(reply.body) };
        outlet.end(serde_json::to_vec(&reply).unwrap_or_else(|_| b"{}".to_vec())).await;
        drop(place);
    }
}

impl<C: Borrow<Call>> Drop for Unfinished<C> {
    fn drop(&mut self) {
        if let Some(end) = self.end {
            self.call.borrow().ended(EXIT_KILLED, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::agent::collect::tests::unreadable;
    use crate::agent::gate::tests::Site;
    use crate::audit::{Ident, Logger};
    use crate::wire::outcome::Outcome;

    #[test]
    fn output_that_cannot_be_read_again_is_an_error_to_caller_and_operator_and_not_an_empty_one() {
        let (site, mut log) = (Site::new(), tempfile::tempfile().unwrap());
        let logger = Logger::to_writer(Ident::Agent, Box::new(log.try_clone().unwrap()));
        site.runtime.block_on(async {
            let (agent, asked) = site.asked(r#"{"script":"open","reqid":"r1"}"#, logger).await;
            let call = Call::new(&agent, asked);
            let (stdout, stderr) = unreadable().marks();
            let finished = Finished { outcome: Outcome::Exited { code: 0 }, unread: None };
            let answer = call.large(call.reply(Ok(finished), stdout, stderr), unreadable()).await;
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["error"], "the script has run, and what it has printed cannot be read");
            assert_eq!(agent.log().flush(Duration::from_mins(1)), 0);
        });
        let mut said = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut said).unwrap();
        let line = said.lines().find(|line| line.contains("ACTION=output-fail")).unwrap();
        for part in ["DISPATCHER=control-1", "REQID=r1", "SCRIPT=open", "Input/output error"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        // And how the script has ended stands in the line of every run.
        assert!(said.lines().any(|line| line.contains("ACTION=run ") && line.contains("EXIT=0")), "{said}");
    }
}
