//! The hook's decisions as audit lines, the same on agent and dispatcher. Tokens are never part of them.

use super::{Context, Decision, Fault, Hook};
use crate::audit::{Event, Level, Logger};

/// Logs what a hook decided.
pub fn decision(log: &Logger, hook: &Hook, context: &Context, decision: &Decision) {
    match decision {
        Decision::Allowed => log.emit(event(Level::Info, context).field("RESULT", "pass")),
        Decision::Denied { fault: Some(Fault::NotExecutable), .. } => {
            log.emit(broken(hook, context).field("REASON", "hook-not-executable").field("RESULT", "error"));
        }
        Decision::Denied { reason, fault: Some(Fault::Untrusted), .. } => {
            let event = broken(hook, context).field("REASON", "hook-not-trusted").field("RESULT", "error");
            log.emit(event.field("ERROR", reason));
        }
        Decision::Denied { reason, fault, .. } => {
            if let Some(Fault::TimedOut(seconds)) = fault {
                let event = Event::new(Level::Warning, "auth-hook-timeout").field("TIMEOUT", seconds);
                log.emit(event.maybe("TRACE", context.traceparent.as_ref()));
            }
            log.emit(event(Level::Warning, context).field("REASON", reason).field("RESULT", "deny"));
        }
    }
}

/// Logs that there is no hook and the caller's own rule decided.
pub fn no_hook(log: &Logger, context: &Context, reason: &str) {
    let event = event(Level::Info, context).field("DISPATCHER", &context.dispatcher);
    log.emit(event.field("REASON", reason).field("RESULT", "pass"));
}

fn broken(hook: &Hook, context: &Context) -> Event {
    let event = Event::new(Level::Error, "auth").field("HOOK", hook.path().display());
    event.maybe("TRACE", context.traceparent.as_ref())
}

fn event(level: Level, context: &Context) -> Event {
    let user = if context.username.is_empty() { "(none)" } else { &context.username };
    let event = Event::new(level, "auth").field("AUTHACTION", &context.action);
    event.field("IP", &context.source_ip).field("USER", user).maybe("TRACE", context.traceparent.as_ref())
}
