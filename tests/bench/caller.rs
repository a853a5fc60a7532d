//! A dispatcher as a program has it that uses the library: one process, one fleet, many calls.

use std::time::{Duration, Instant};

use ctrl_exec::audit::{Ident, Logger};
use ctrl_exec::conf::Root;
use ctrl_exec::dispatcher::answer::HostResult;
use ctrl_exec::dispatcher::call::Fleet;
use ctrl_exec::dispatcher::resolve::{self, Target};
use ctrl_exec::dispatcher::{ping, run};
use ctrl_exec::wire::run::RunCall;
use tokio::task::JoinSet;

use crate::site::Site;

/// A fleet and the one agent that it calls.
#[derive(Clone)]
pub(crate) struct Caller {
    fleet: Fleet,
    target: Target,
}

impl Caller {
    /// Whatever connections it makes, it keeps for itself. Its log goes nowhere: the bench has no journal.
    pub(crate) fn new(site: &Site) -> Self {
        let root = Root::new(Some(site.root().to_owned()));
        let (loaded, _) =
            ctrl_exec::dispatcher::site::Site::load(&root.path("/etc/ctrl-exec/ctrl-exec.conf"), &root).unwrap();
        let log = Logger::to_writer(Ident::Dispatcher, Box::new(std::io::sink()));
        let target = resolve::resolve(&loaded.registry, &["web".to_owned()], None).unwrap().remove(0);
        Self { fleet: Fleet { dialer: loaded.dialer(None).unwrap(), log, most: 64 }, target }
    }

    /// A run of `/bin/true`, which must succeed.
    pub(crate) async fn run(&self) -> Duration {
        let started = Instant::now();
        let result = self.call("true", &[]).await;
        let elapsed = started.elapsed();
        assert_eq!(result.exit(), 0, "{:?}", result.fields);
        elapsed
    }

    /// A run, and what came of it.
    pub(crate) async fn call(&self, script: &str, args: &[&str]) -> HostResult {
        let order = RunCall {
            script: script.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            reqid: "bench".to_owned(),
            username: String::new(),
            token: String::new(),
            detached: false,
        };
        run::run(&self.fleet, vec![self.target.clone()], order, |_| {}).await.remove(0)
    }

    pub(crate) async fn ping(&self) -> Duration {
        let started = Instant::now();
        let results = ping::ping(&self.fleet, vec![self.target.clone()], "bench", |_| {}).await;
        let elapsed = started.elapsed();
        let result = results.first().unwrap();
        assert_eq!(result.fields.get("error"), None, "{:?}", result.fields);
        elapsed
    }

    /// So many callers at once, each with so many calls, every `runs`th of them a run: the whole time.
    pub(crate) async fn at_once(&self, callers: u64, calls: u64, runs: u64) -> Duration {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..callers {
            let caller = self.clone();
            tasks.spawn(async move {
                for number in 0..calls {
                    if number % runs == 0 {
                        caller.run().await
                    } else {
                        caller.ping().await
                    };
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        started.elapsed()
    }
}
