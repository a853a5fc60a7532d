//! Jobs and a reload that names another place for them: it waits for a restart.

use serde_json::json;

use super::{Caller, WAIT, dead, go, waiting};
use crate::harness::executor::Mode;
use crate::harness::{Site, host};

/// An agent whose jobs are in a directory that nothing else would hide from scripts.
fn placed(mode: Mode) -> (Site, String) {
    let look = "cat {work}/../runs-*/*/* > {work}/seen 2> /dev/null; find {work}/../runs-* -type f | wc -l";
    let mut site = Site::builder().executor(mode).sh("wait", WAIT).sh("look", look).prepare();
    let agent = site.agent();
    for name in ["runs-a", "runs-b"] {
        let directory = agent.root.join(name);
        std::fs::create_dir(&directory).unwrap();
        host::give_to_agent(&directory);
    }
    let text = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), runs_in(&site, "runs-a", &text)).unwrap();
    site.start(0);
    (site, text)
}

fn runs_in(site: &Site, name: &str, text: &str) -> String {
    format!("async_runs_dir = {}\n{text}", site.agent().root.join(name).display())
}

fn jobs_in(site: &Site, name: &str) -> usize {
    std::fs::read_dir(site.agent().root.join(name).join("control-1")).map_or(0, Iterator::count)
}

#[test]
fn a_reload_makes_no_job_nobodys_and_starts_none_a_second_time() {
    for mode in Mode::ALL {
        let (mut site, text) = placed(mode);
        let caller = Caller::of(&site);
        caller.accepted("wait", "o1");
        let (script, _) = waiting(&site);
        std::fs::write(site.agent().config(), runs_in(&site, "runs-b", &text)).unwrap();
        site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
        let line = site.agent().line_where("config-warn", |line| line.get("KEY") == Some("async_runs_dir"));
        assert_eq!(line.get("MSG"), Some("takes effect at the next restart"));
        assert_eq!(caller.result("o1")["status"], "running");
        assert_eq!((caller.submit("wait", "o2").status, jobs_in(&site, "runs-b")), (409, 0), "{mode:?}");
        if mode != Mode::Private {
            assert_eq!(site.result("look", &[])["stdout"], "0\n", "no script reaches the jobs: {mode:?}");
        }
        go(&site);
        assert_eq!((&caller.ended("o1")["exit"], &caller.result("o1")["stdout"]), (&json!(3), &json!("begun\nover\n")));
        dead(script);
        site.agent_mut().stop();
        site.start(0);
        let caller = Caller::of(&site);
        caller.accepted("wait", "o3");
        assert_eq!(caller.ended("o3")["exit"], 3);
        assert!(jobs_in(&site, "runs-b") > 0, "the restart takes the key up");
    }
}

#[test]
fn a_reload_takes_up_what_a_job_may_print() {
    for mode in Mode::ALL {
        let site = Site::builder().executor(mode).sh("long", "exec cat /dev/zero").start();
        let text = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), format!("async_max_bytes = 1MiB\n{text}")).unwrap();
        site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
        let caller = Caller::of(&site);
        caller.accepted("long", "r1");
        assert_eq!(caller.ended("r1")["reason"], "output limit of 1048576 bytes passed", "{mode:?}");
    }
}
