//! Counts and facts as `OpenMetrics` text, version 1.0.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::facts::Facts;
use crate::agent::metrics::{Metrics, One, PREFIX};
use crate::sys::usage::Usage;

/// A state as a number.
type Number = Gauge<i64, AtomicI64>;

/// What the text is, to whoever reads it.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything, as one text. `started` is the process's start in seconds since 1970.
pub(super) fn text(metrics: &Metrics, facts: &Facts, started: u64) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode_registry(&mut text, metrics.registry())?;
    encode_registry(&mut text, &agent(facts))?;
    encode_registry(&mut text, &process(&facts.usage, started))?;
    encode_eof(&mut text)?;
    Ok(text)
}

fn agent(facts: &Facts) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let r = &mut registry;
    r.register("build", "The version of the agent", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    let open = facts.connections.saturating_sub(facts.handshakes);
    let states = family("state", [("handshake", facts.handshakes), ("open", open)]);
    r.register("connections", "Connections, by whether their handshake is over", states);
    r.register("requests_in_progress", "Requests under way", number(facts.requests));
    r.register("blocked_addresses", "Addresses that are blocked for what they tried", number(facts.blocked));
    r.register("trusted_serials", "Serials of dispatchers that this agent trusts", number(facts.trusted));
    r.register("revoked_serials", "Serials that this agent refuses", number(facts.revoked));
    let help = "Whether the executor is there; a private one that ended is started by the next run";
    r.register("executor_up", help, number(usize::from(facts.executor)));
    r.register("log_lines_waiting", "Lines that the log has not taken yet", number(facts.unlogged));
    let lost: Counter = Counter::default();
    lost.inc_by(facts.lost);
    r.register("log_lines_lost", "Lines that the log did not take in time, and that are lost", lost);
    if let Some(left) = facts.certificate {
        let help = "Time until the agent's certificate ends, negative once it has";
        r.register_with_unit("certificate_left", help, Unit::Seconds, gauge(left));
    }
    if let Some(jobs) = facts.jobs {
        let states = family("state", [("running", jobs.running), ("done", jobs.done), ("lost", jobs.lost)]);
        r.register("jobs", "Jobs on record, by whether they run and whether their end is known", states);
    }
    registry
}

/// The names that every exporter uses for these.
fn process(usage: &Usage, started: u64) -> Registry {
    let mut registry = Registry::with_prefix("process");
    let r = &mut registry;
    let started = gauge(i64::try_from(started).unwrap_or(i64::MAX));
    r.register_with_unit("start_time", "When the process started, since 1970", Unit::Seconds, started);
    if let Some(time) = usage.cpu {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(time.as_secs_f64());
        r.register_with_unit("cpu", "CPU time of the process", Unit::Seconds, counter);
    }
    let mut known = |name: &str, help: &str, unit: Option<Unit>, value: Option<u64>| {
        let Some(value) = value else { return };
        let gauge = gauge(i64::try_from(value).unwrap_or(i64::MAX));
        match unit {
            Some(unit) => r.register_with_unit(name, help, unit, gauge),
            None => r.register(name, help, gauge),
        }
    };
    known("resident_memory", "Resident memory of the process", Some(Unit::Bytes), usage.resident);
    known("open_fds", "Descriptors that the process has open", None, usage.descriptors);
    known("max_fds", "Descriptors that the process may have open", None, usage.most_descriptors);
    registry
}

fn family<const N: usize>(key: &'static str, values: [(&'static str, usize); N]) -> Family<One, Number> {
    let family = Family::<One, Number>::default();
    for (word, value) in values {
        family.get_or_create(&[(key, word)]).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    family
}

fn number(value: usize) -> Number {
    gauge(i64::try_from(value).unwrap_or(i64::MAX))
}

fn gauge(value: i64) -> Number {
    let gauge = Number::default();
    gauge.set(value);
    gauge
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::jobs::Census;

    #[test]
    fn a_text_is_whole_and_says_nothing_of_what_is_not_known() {
        let known = Facts {
            handshakes: 2,
            connections: 5,
            requests: 1,
            blocked: 0,
            certificate: Some(-60),
            executor: true,
            jobs: Some(Census { running: 1, done: 2, lost: 3 }),
            trusted: 1,
            revoked: 0,
            unlogged: 0,
            lost: 7,
            usage: Usage::default(),
        };
        let text = |facts: &Facts| super::text(&Metrics::default(), facts, 1_795_330_800).unwrap();
        let whole = text(&known);
        for line in [
            "# UNIT ctrl_exec_agent_certificate_left_seconds seconds",
            "ctrl_exec_agent_certificate_left_seconds -60",
            "ctrl_exec_agent_connections{state=\"open\"} 3",
            "ctrl_exec_agent_executor_up 1",
            "ctrl_exec_agent_log_lines_lost_total 7",
            "ctrl_exec_agent_jobs{state=\"running\"} 1",
            "ctrl_exec_agent_jobs{state=\"done\"} 2",
            "ctrl_exec_agent_jobs{state=\"lost\"} 3",
            "# TYPE ctrl_exec_agent_build info",
            "process_start_time_seconds 1795330800",
        ] {
            assert!(whole.contains(&format!("\n{line}\n")), "{line}: {whole}");
        }
        assert!(whole.ends_with("\n# EOF\n") && whole.matches("# EOF").count() == 1);
        let less = text(&Facts { certificate: None, jobs: None, ..known });
        for name in ["certificate_left", "agent_jobs", "process_open_fds", "process_cpu"] {
            assert!(!less.contains(name), "{name}: {less}");
        }
    }
}
