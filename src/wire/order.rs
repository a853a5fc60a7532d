//! The executor's protocol: one order a connection, or one after another.
//!
//! A connection is a `SOCK_STREAM` unix socket. The front-end sends one [`Order`] as a frame; the script's stdin,
//! stdout and stderr travel with its first byte as descriptors (`SCM_RIGHTS`, unix(7)), for a detached order also the
//! three of a job. Those for the script are pipes, or files and FIFOs of the front-end's own account, or `/dev/null`: it reaches
//! what is behind them with its own rights. The executor's monitor answers with [`Report`] frames: at most one
//! [`Report::Started`], then exactly one [`Report::Ended`], then it closes. The front-end may send one
//! [`Command`] frame. If it closes its end of an attached order before the end was reported, the script and all its
//! descendants are killed; a detached order goes on.
//!
//! # A connection that is kept
//!
//! An order of version [`KEPT`] asks for more: where its monitor can, it reports [`Report::Free`] in the place of
//! [`Report::Ended`] and does not close. The front-end may then give another order on the same connection, at once or
//! later, with descriptors of its own; it says nothing else there meanwhile.
//!
//! **Invariant:** an order on a kept connection is carried out, or its writing fails (`EPIPE`), or it is answered by
//! [`Report::Declined`]; in the last two cases nothing of it has happened, and the front-end gives it on a new connection.
//! A monitor that does not wait any longer therefore has the kernel take nothing more for it (shutdown(2)), and then looks
//! once more at what is there. Where it is killed before it has read all of an order, the front-end finds its connection
//! reset (`ECONNRESET`: something was left unread), and nothing has happened either.
//!
//! # A job's three descriptors
//!
//! 4. The status file, open for writing and locked (flock(2)) by the front-end. The monitor writes its one outcome
//!    there, a line of JSON, waits until it is on the disk, and closes it: once the lock is free, either the line is
//!    whole or there will never be one.
//! 5. The script's lock, a file that the front-end has locked: while the monitor keeps it open, no other job of that
//!    script begins. It is let go before the status file is.
//! 6. A FIFO, open for reading. Any byte in it cancels, also when the executor and the front-end that gave the order
//!    are long gone.
//!
//! The kernel releases both locks when the monitor dies, however it dies.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits;
use super::name::{RequestId, ScriptName};
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::trace::TraceParent;

/// The protocol's version for a connection that brings one order. A monitor refuses any other but [`KEPT`].
pub const VERSION: u32 = 2;
/// The version for a connection that may bring more. A monitor of an older program refuses it with [`UNKNOWN_VERSION`].
pub const KEPT: u32 = 3;
/// The code of the refusal of a version.
pub const UNKNOWN_VERSION: &str = "order-version";

/// Descriptors that travel with an attached order: stdin, stdout, stderr.
pub const ATTACHED_DESCRIPTORS: usize = 3;
/// Descriptors that travel with a detached order: stdin, stdout, stderr, status file, lock, FIFO.
pub const DETACHED_DESCRIPTORS: usize = 6;

/// Whether the script's life hangs on the order's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The script and its descendants end when the connection closes.
    Attached,
    /// The script outlives the connection; the outcome is also written to the status descriptor.
    Detached,
}

/// What the front-end asks for. It names a script; path and profile are the executor's own to find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    version: u32,
    script: ScriptName,
    args: Vec<String>,
    request: RequestId,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    time_limit_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    trace: Option<TraceParent>,
}

impl Order {
    /// An order within the limits on arguments.
    ///
    /// # Errors
    /// The refusal that [`Order::check`] would give at the other end.
    pub fn new(script: ScriptName, args: Vec<String>, request: RequestId, mode: Mode) -> Result<Self, Refusal> {
        let order = Self { version: VERSION, script, args, request, mode, time_limit_ms: None, trace: None };
        order.check()?;
        Ok(order)
    }

    /// Asks for a time limit. The executor's own limit holds where it is shorter.
    #[must_use]
    pub fn time_limit(mut self, limit: Option<Duration>) -> Self {
        self.time_limit_ms = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Asks for the connection to be kept behind the order's end.
    #[must_use]
    pub const fn kept(mut self) -> Self {
        self.version = KEPT;
        self
    }

    /// As it is for an executor that keeps no connections.
    #[must_use]
    pub const fn plain(mut self) -> Self {
        self.version = VERSION;
        self
    }

    /// Says which trace the run is part of.
    #[must_use]
    pub fn traced(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace;
        self
    }

    /// Judges version, count and sizes. The executor calls it on every order it decodes, since it must hold when the
    /// front-end does not.
    pub fn check(&self) -> Result<(), Refusal> {
        if ![VERSION, KEPT].contains(&self.version) {
            let text =
                format!("the executor speaks versions {VERSION} and {KEPT}, and was asked in version {}", self.version);
            return Err(Refusal::new(UNKNOWN_VERSION, text));
        }
        check_arguments(&self.args)
    }

    /// The script's name.
    #[must_use]
    pub const fn script(&self) -> &ScriptName {
        &self.script
    }

    /// The argument vector behind `argv[0]`.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// The request's id, for the executor's own audit line.
    #[must_use]
    pub const fn request(&self) -> &RequestId {
        &self.request
    }

    /// Whether the connection may be kept behind the end.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.version == KEPT
    }

    /// Attached or detached.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The trace that the run is part of.
    #[must_use]
    pub const fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// The requested time limit.
    #[must_use]
    pub fn requested_limit(&self) -> Option<Duration> {
        self.time_limit_ms.map(Duration::from_millis)
    }

    /// How many descriptors must come with this order.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        match self.mode {
            Mode::Attached => ATTACHED_DESCRIPTORS,
            Mode::Detached => DETACHED_DESCRIPTORS,
        }
    }
}

/// Count, length and total of arguments, and no NUL: what execve(2) can carry.
pub fn check_arguments(args: &[String]) -> Result<(), Refusal> {
    let too_large = |text: String| Err(Refusal::new("arguments-too-large", text));
    if args.len() > limits::ARGUMENTS {
        return too_large(format!("{} arguments are more than the {} allowed", args.len(), limits::ARGUMENTS));
    }
    if args.iter().map(String::len).sum::<usize>() > limits::ARGUMENTS_TOTAL {
        return too_large(format!("the arguments are larger than {} bytes together", limits::ARGUMENTS_TOTAL));
    }
    for (place, arg) in args.iter().enumerate() {
        if arg.len() > limits::ARGUMENT {
            return too_large(format!("argument {} is longer than {} bytes", place + 1, limits::ARGUMENT));
        }
    }
    check_nul(args)
}

/// No NUL in an argument: neither execve(2) nor an environment can carry one.
pub fn check_nul(args: &[String]) -> Result<(), Refusal> {
    match args.iter().position(|arg| arg.contains('\0')) {
        None => Ok(()),
        Some(place) => Err(Refusal::new("argument-nul", format!("argument {} contains a NUL byte", place + 1))),
    }
}

/// What the front-end may say after its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Ends the script and its descendants; answered by [`Report::Ended`] when they are gone.
    Cancel,
}

/// What the monitor says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Report {
    /// The script's program runs: its exec succeeded. Of an attached script that ends within a few milliseconds it is told
    /// together with the end.
    Started {
        /// Its process id, as the executor sees it.
        pid: i32,
    },
    /// The one outcome.
    Ended(Outcome),
    /// The one outcome; and the connection is kept for another order.
    Free(Outcome),
    /// An order on a kept connection is not carried out, and nothing of it has happened.
    Declined,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(args: Vec<String>) -> Result<Order, Refusal> {
        let request = RequestId::from_random([1; 8]);
        Order::new(ScriptName::parse("x").unwrap(), args, request, Mode::Attached)
    }

    #[test]
    fn arguments_are_bounded_in_count_length_total_and_content() {
        assert_eq!(order(vec![String::new(); 257]).unwrap_err().code(), "arguments-too-large");
        assert_eq!(order(vec!["x".repeat(128 * 1024)]).unwrap_err().code(), "arguments-too-large");
        assert_eq!(order(vec!["x".repeat(100_000); 11]).unwrap_err().code(), "arguments-too-large");
        assert_eq!(order(vec!["a\0b".into()]).unwrap_err().code(), "argument-nul");
        assert!(order(vec!["-v".into(), "ünïcode \u{1F600}".into(), String::new()]).is_ok());
    }

    #[test]
    fn an_order_of_another_version_is_refused() {
        let text = r#"{"version":1,"script":"x","args":[],"request":"a","mode":"attached"}"#;
        let order: Order = serde_json::from_str(text).unwrap();
        assert_eq!(order.check().unwrap_err().code(), "order-version");
        let order: Order = serde_json::from_str(&text.replace(":1,", ":4,")).unwrap();
        assert_eq!(order.check().unwrap_err().code(), "order-version");
    }

    #[test]
    fn only_an_order_that_asks_for_it_has_its_connection_kept() {
        let plain = order(vec![]).unwrap();
        let text = serde_json::to_string(&plain).unwrap();
        assert!(text.contains(r#""version":2"#) && !plain.is_kept(), "{text}");
        let kept: Order = serde_json::from_str(&serde_json::to_string(&plain.kept()).unwrap()).unwrap();
        assert!(kept.is_kept() && kept.check().is_ok());
    }

    #[test]
    fn an_order_with_a_trace_that_is_none_is_malformed() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let made = order(vec![]).unwrap().traced(TraceParent::parse(trace).ok());
        let text = serde_json::to_string(&made).unwrap();
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap().trace().unwrap().as_str(), trace);
        for other in ["", "x", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\\nX=y"] {
            assert!(serde_json::from_str::<Order>(&text.replace(trace, other)).is_err(), "{other}");
        }
        assert!(!serde_json::to_string(&order(vec![]).unwrap()).unwrap().contains("trace"));
    }

    #[test]
    fn an_order_with_a_field_nobody_knows_is_malformed() {
        let text = r#"{"version":2,"script":"x","args":[],"request":"a","mode":"attached","path":"/bin/sh"}"#;
        assert!(serde_json::from_str::<Order>(text).is_err());
    }
}
