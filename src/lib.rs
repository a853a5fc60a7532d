//! ctrl-exec: named scripts on managed hosts, over mutual TLS, with no SSH and no shell.
//!
//! One binary plays every role; [`role`] picks it by the first word or by the name it was started under. The
//! roles are separate processes and meet only in [`wire`].
//!
//! # Map
//!
//! A verb has one name in every room: `run` is `wire/run.rs`, `cli/dispatcher/run.rs`, `dispatcher/run.rs`,
//! `agent/run.rs`. Layers, lowest first; a room names only rooms of its row's list (`cargo xtask layers`):
//!
//! | layer | room | holds |
//! |---|---|---|
//! | 0 | [`wire`] | every type that crosses a process boundary; parsing, never I/O |
//! | 0 | [`sys`] | the only unsafe code; files, processes, mounts, descriptors, users |
//! | 1 | [`conf`] | configuration text to typed settings, every error with its place |
//! | 1 | [`audit`] | one event, one line, to the journal, syslog or standard error |
//! | 1 | [`pki`] | CA, requests, certificates and trust as pure decisions |
//! | 2 | [`tls`] | rustls configurations and our own verifiers |
//! | 2 | [`net`] | listeners, connection limits, HTTP head and body limits |
//! | 2 | [`hook`] | the auth hook: context, time limit, exit status to decision |
//! | 2 | [`store`] | registry, pairing queue, jobs: files, atomic and locked |
//! | 3 | [`executor`] | order to plan or refusal, confinement and supervision of the script |
//! | 3 | [`agent`] | front-end: gate, verbs, pairing client |
//! | 3 | [`dispatcher`] | fan-out, connections, verbs, pairing server |
//! | 5 | [`cli`] | command line, tables, JSON; the only room that prints |
//! | 6 | [`role`], [`failure`], [`exit`] | start, one failure printer, one exit table |
//!
//! A newcomer's path: `wire/run.rs`, `cli/dispatcher/run.rs`, `dispatcher/run.rs`, `agent/gate/mod.rs`,
//! `agent/run.rs`, `executor/decide.rs`, `executor/monitor.rs`, `executor/confine.rs`.

pub mod agent;
pub mod audit;
pub mod cli;
pub mod conf;
pub mod dispatcher;
pub mod executor;
pub mod exit;
pub mod failure;
pub mod hook;
pub mod net;
pub mod pki;
pub mod role;
pub mod store;
pub mod sys;
pub mod tls;
pub mod wire;
