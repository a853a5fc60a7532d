//! What the agent counts, as a monitoring system reads it.

mod counts;
mod place;
mod states;

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::harness::http::Http;
use crate::harness::openmetrics::Exposition;
use crate::harness::site::Builder;
use crate::harness::{Agent, Site, tls};

const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const REQUESTS: &str = "ctrl_exec_agent_requests_total";
const RUNS: &str = "ctrl_exec_agent_runs_total";
const REFUSED: &str = "ctrl_exec_agent_connections_refused_total";

fn site() -> Builder {
    Site::builder().agent("metrics = 127.0.0.1:0")
}

/// Where the agent said last that it says what it counts.
fn place(agent: &Agent) -> SocketAddr {
    let line = agent.lines("metrics-listen").pop().unwrap_or_else(|| agent.line("metrics-listen"));
    line.get("ADDRESS").unwrap().parse().unwrap()
}

/// Asks as Prometheus does, and reads the answer strictly.
#[track_caller]
fn ask(stream: impl Read + Write) -> Exposition {
    let mut http = Http::new(stream);
    let answer = http.get("/metrics");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(MEDIA_TYPE)), "{answer:?}");
    assert!(http.rest().is_empty(), "the connection ends with the answer");
    Exposition::read(std::str::from_utf8(&answer.body).unwrap())
}

#[track_caller]
fn scrape(site: &Site) -> Exposition {
    ask(tls::tcp(place(site.agent())))
}

/// Samples as a test writes them.
fn samples(wanted: &[(&str, f64)]) -> Vec<(String, f64)> {
    wanted.iter().map(|(labels, value)| ((*labels).to_owned(), *value)).collect()
}
