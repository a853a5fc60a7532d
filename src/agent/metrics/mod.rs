//! What the agent counts. [`super::export`] says it to whoever asks.
//!
//! Counting goes on whether anybody asks or not, so that a reload which turns it on finds the past. A request is counted
//! where its audit line is decided, and its labels are the line's words, so that the two agree.
//!
//! **Invariant:** on a request's way there is no lock but a shared one: its counter exists since the start. Labels are
//! the words of `words` and the names of scripts that the allowlist has, or had, since the start.

mod words;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use words::{CANCEL, End, RESULT, Turned, Verb, Verdict};

use super::pump::Sink;
use crate::conf::scripts::Allowlist;
use crate::net::rate::Reason;
use crate::wire::name::ScriptName;
use crate::wire::stream::{Channel, Draft};

/// How every name but the process's own begins.
pub const PREFIX: &str = "ctrl_exec_agent";
/// Bounds of the histogram of runs, in seconds: from a script that looks something up to one that moves data.
const SECONDS: [f64; 10] = [0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// Stands for a script that the allowlist does not have any more. No name looks like it.
const UNLISTED: &str = "(unlisted)";

/// One label.
pub type One = [(&'static str, &'static str); 1];
type Two = [(&'static str, &'static str); 2];
type Script = [(&'static str, Arc<str>); 1];
type Run = [(&'static str, Arc<str>); 2];

/// The counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// By verb, then by verdict.
    requests: Vec<Counter>,
    turned: Vec<Counter>,
    blocks: [Counter; 2],
    output: [Counter; 2],
    reloads: [Counter; 2],
    runs: Family<Run, Counter>,
    seconds: Family<Script, Histogram, fn() -> Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let (requests, turned, blocks) = (Family::<Two, Counter>::default(), Family::default(), Family::default());
        let (output, reloads, runs) = (Family::default(), Family::default(), Family::default());
        let seconds = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let r = &mut registry;
        r.register("requests", "Requests, by what they asked for and what became of them", requests.clone());
        let help = "Connections that were not served: address not allowed or blocked, no room, handshake failed";
        r.register("connections_refused", help, turned.clone());
        r.register("blocks", "Times that an address was blocked, by the limit it exceeded", blocks.clone());
        r.register("reloads", "Reloads, by whether the new configuration was taken", reloads.clone());
        r.register("runs", "Runs and jobs that ended, by script and how", runs.clone());
        let help = "How long runs and jobs took whose end is known; jobs in whole seconds";
        r.register_with_unit("run", help, Unit::Seconds, seconds.clone());
        let help = "What scripts have printed whose callers waited for it";
        r.register_with_unit("output", help, Unit::Bytes, output.clone());
        let pairs = Verb::ALL.iter().flat_map(|verb| Verdict::ALL.map(|verdict| (verb.as_str(), verdict.as_str())));
        Self {
            registry,
            requests: pairs
                .map(|(verb, verdict)| requests.get_or_create_owned(&[("verb", verb), ("verdict", verdict)]))
                .collect(),
            turned: Turned::ALL.iter().map(|reason| one(&turned, "reason", reason.as_str())).collect(),
            blocks: [Reason::Volume, Reason::Probe].map(|reason| one(&blocks, "reason", reason.as_str())),
            output: [Channel::Stdout, Channel::Stderr].map(|channel| one(&output, "stream", channel.as_str())),
            reloads: ["ok", "failed"].map(|result| one(&reloads, "result", result)),
            runs,
            seconds,
        }
    }
}

fn one(family: &Family<One, Counter>, key: &'static str, word: &'static str) -> Counter {
    family.get_or_create_owned(&[(key, word)])
}

impl Metrics {
    /// What is counted, to be written down.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    fn request(&self, verb: Verb, verdict: Verdict) {
        if let Some(counter) = self.requests.get(verb as usize * Verdict::ALL.len() + verdict as usize) {
            counter.inc();
        }
    }

    /// A connection was not served.
    pub fn turned_away(&self, reason: Turned) {
        if let Some(counter) = self.turned.get(reason as usize) {
            counter.inc();
        }
    }

    /// An address is blocked from now on.
    pub fn blocked(&self, reason: Reason) {
        let [volume, probe] = &self.blocks;
        match reason {
            Reason::Volume => volume.inc(),
            Reason::Probe => probe.inc(),
        };
    }

    /// A reload is over.
    pub fn reloaded(&self, taken: bool) {
        let [ok, failed] = &self.reloads;
        if taken {
            ok.inc()
        } else {
            failed.inc()
        };
    }

    /// Scripts that may run from now on. Their first failure must not be a counter's first sight, or it would be no
    /// increase to anybody.
    pub fn expect(&self, allowlist: &Allowlist) {
        for entry in allowlist.iter() {
            for end in [End::Success, End::Failure] {
                drop(self.runs.get_or_create_owned(&labels(entry.name().as_str(), end)));
            }
        }
    }

    /// A run of a script ended.
    pub fn ran(&self, allowlist: &Allowlist, script: &str, end: End, time: Option<Duration>) {
        let listed = ScriptName::parse(script).is_ok_and(|name| allowlist.get(&name).is_some());
        let script = if listed { script } else { UNLISTED };
        self.runs.get_or_create(&labels(script, end)).inc();
        if let Some(time) = time {
            self.seconds.get_or_create(&[("script", Arc::from(script))]).observe(time.as_secs_f64());
        }
    }

    /// The same sink, with what passes through it counted.
    pub const fn metered<'a, S>(&'a self, sink: &'a S) -> Metered<'a, S> {
        Metered { sink, output: &self.output }
    }
}

fn labels(script: &str, end: End) -> Run {
    [("script", Arc::from(script)), ("outcome", Arc::from(end.as_str()))]
}

/// A sink that counts.
#[derive(Debug)]
pub struct Metered<'a, S> {
    sink: &'a S,
    output: &'a [Counter; 2],
}

impl<S: Sink> Sink for Metered<'_, S> {
    async fn take(&self, channel: Channel, draft: &mut Draft) {
        let [stdout, stderr] = self.output;
        let counter = if channel == Channel::Stdout { stdout } else { stderr };
        counter.inc_by(u64::try_from(draft.output().len()).unwrap_or(u64::MAX));
        self.sink.take(channel, draft).await;
    }
}

/// A request under way: counted once, also where its caller goes away and nobody answers it.
#[derive(Debug)]
pub struct Counted {
    metrics: Arc<Metrics>,
    verb: Verb,
    verdict: Verdict,
}

impl Counted {
    /// A request that has just come in.
    #[must_use]
    pub const fn new(metrics: Arc<Metrics>, verb: Verb) -> Self {
        Self { metrics, verb, verdict: Verdict::CallerGone }
    }

    /// It has its answer.
    pub fn answered(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.request(self.verb, self.verdict);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::conf::Source;

    fn allowlist(text: &str) -> Allowlist {
        Allowlist::parse(&Source::new("scripts.conf", text)).unwrap().0
    }

    fn text(metrics: &Metrics) -> String {
        let mut text = String::new();
        encode(&mut text, metrics.registry()).unwrap();
        text
    }

    #[test]
    fn every_counter_is_there_before_it_counts() {
        let metrics = Metrics::default();
        metrics.expect(&allowlist("ok = /bin/true\n"));
        let text = text(&metrics);
        for verb in Verb::ALL {
            for verdict in Verdict::ALL {
                let labels = format!("{{verb=\"{}\",verdict=\"{}\"}} 0\n", verb.as_str(), verdict.as_str());
                assert!(text.contains(&format!("ctrl_exec_agent_requests_total{labels}")), "{labels}");
            }
        }
        for line in [
            "connections_refused_total{reason=\"ip-block\"} 0",
            "blocks_total{reason=\"volume\"} 0",
            "reloads_total{result=\"failed\"} 0",
            "output_bytes_total{stream=\"stderr\"} 0",
            "runs_total{script=\"ok\",outcome=\"failure\"} 0",
        ] {
            assert!(text.contains(&format!("\nctrl_exec_agent_{line}\n")), "{line}: {text}");
        }
    }

    #[test]
    fn each_request_counts_under_its_own_words() {
        let metrics = Arc::new(Metrics::default());
        for verb in Verb::ALL {
            Counted::new(Arc::clone(&metrics), verb).answered(Verdict::Denied);
        }
        drop(Counted::new(Arc::clone(&metrics), Verb::RotateSerial));
        let text = text(&metrics);
        assert_eq!(text.matches("verdict=\"denied\"} 1\n").count(), Verb::ALL.len());
        assert!(text.contains("requests_total{verb=\"rotate-serial\",verdict=\"caller-gone\"} 1\n"), "{text}");
        assert_eq!(text.matches("requests_total{").count(), Verb::ALL.len() * Verdict::ALL.len());
    }

    #[test]
    fn only_a_listed_name_becomes_a_label() {
        let metrics = Metrics::default();
        let listed = allowlist("ok = /bin/true\n");
        for script in ["ok", "gone", "\"} 1\n# EOF", "", "(unlisted)"] {
            metrics.ran(&listed, script, End::Success, Some(Duration::from_millis(50)));
        }
        let text = text(&metrics);
        assert!(text.contains("runs_total{script=\"ok\",outcome=\"success\"} 1\n"), "{text}");
        assert!(text.contains("runs_total{script=\"(unlisted)\",outcome=\"success\"} 4\n"), "{text}");
        assert_eq!(text.matches("runs_total{").count(), 2);
        assert!(text.contains("run_seconds_bucket{le=\"0.05\",script=\"ok\"} 1\n"), "{text}");
    }
}
