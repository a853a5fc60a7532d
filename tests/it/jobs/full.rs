//! A disk that a job has filled: what is known of jobs is told all the same, and nothing is begun that could not be told of.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Caller, file, files, runs};
use crate::harness::executor::Mode;
use crate::harness::{Site, eventually, host};

/// Takes all the room there is.
const FILL: &str = "echo begin; yes 2> /dev/null | head -c 900000 2> /dev/null";

/// A small file system in memory in the place of jobs, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(place: &Path) -> Self {
        std::fs::create_dir_all(place).unwrap();
        mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), Some("size=256k,mode=750")).unwrap();
        host::give_to_agent(place);
        Self(place.to_owned())
    }

    fn grow(&self) {
        mount(Some("none"), &self.0, Some("tmpfs"), MsFlags::MS_REMOUNT, Some("size=8m")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A site whose agent has little room for jobs, and that.
fn site(mode: Mode) -> (Site, Disk) {
    let site = Site::builder()
        .executor(mode)
        .sh("fill", &format!("{FILL}; exit 3"))
        .sh("fill-and-wait", &format!("{FILL}; echo up > {{work}}/up; sleep 300"))
        .sh("ok", "echo ran >> {work}/ran");
    let mut site = site.prepare();
    let disk = Disk::new(&runs(&site));
    site.start(0);
    (site, disk)
}

/// As a caller asks that does not know our words for a job's state.
fn asked(caller: &Caller<'_>, path: &str) -> Value {
    let answer = caller.get(path);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// The lines that say why a job is not on record.
fn complaints(site: &Site, id: &str) -> Vec<String> {
    site.agent().line_where("async-store-fail", |line| line.get("REQID") == Some(id));
    let lines = site.agent().lines("async-store-fail");
    let of_it = lines.iter().filter(|line| line.get("REQID") == Some(id));
    of_it.map(|line| line.get("ERROR").unwrap().to_owned()).collect()
}

#[test]
fn a_job_that_fills_the_disk_keeps_its_outcome_and_is_put_on_record_when_there_is_room() {
    for mode in Mode::ALL {
        let (mut site, disk) = site(mode);
        let submitted = site.control(&["--json", "run", "--async", "agent1", "fill"]).exits(0).json();
        let id = submitted["reqid"].as_str().unwrap();
        let is_told = |told: &Value| {
            let head = (&told["status"], &told["exit"], told.get("unknown"), told.get("reason"));
            assert_eq!(head, (&json!("done"), &json!(3), None, None), "{mode:?}: {told}");
            let stdout = told["stdout"].as_str().unwrap();
            assert!(stdout.starts_with("begin\ny\ny\n") && stdout.len() > 50_000, "{}", stdout.len());
            assert_eq!(told["truncated"], true, "{mode:?}: what it printed is not all there");
            assert!(told["finished"].is_string() && told["stderr"] == "", "{told}");
        };
        let shown = site.control(&["wait", id]).exits(1);
        assert!(shown.stdout.contains("==> agent1  [done  exit:3]\nbegin\ny\n"), "{mode:?}: {shown:?}");
        let caller = Caller::of(&site);
        is_told(&caller.result(id));
        is_told(&asked(&caller, &format!("/result/{id}")));
        assert_eq!(caller.result(&format!("{id}?from=2"))["stdout"].as_str().unwrap().get(..5), Some("gin\ny"));
        assert_eq!(caller.knowing(&format!("POST /cancel/{id}")).json()["exit"], 3);
        let why = complaints(&site, id);
        assert!(why.len() == 1 && why[0].contains("No space left on device"), "{mode:?}: {why:?}");
        assert!(file(&site, id, "status").exists(), "there is no room for the record");

        // Nothing is begun whose end there would be no room for.
        let refused = caller.submit("ok", "r2").json();
        let want = json!("could not start async job: the agent has no room left for its files");
        assert_eq!((&refused["reason"], &refused["error"]), (&json!("store-failed"), &want), "{mode:?}: {refused}");
        assert!(complaints(&site, "r2")[0].contains("No space left on device"));
        assert!(!files(&site).iter().any(|name| name.starts_with("r2.")), "{:?}", files(&site));
        assert!(!site.agent().work("ran").exists());

        // Nor does an agent that is started anew forget it.
        site.agent_mut().stop();
        site.start(0);
        is_told(&Caller::of(&site).result(id));
        disk.grow();
        let record = ["json", "stderr", "stdout"].map(|suffix| format!("{id}.{suffix}"));
        eventually("its record", || {
            is_told(&Caller::of(&site).result(id));
            (files(&site) == record).then_some(())
        });
        let on_file: Value = serde_json::from_slice(&std::fs::read(file(&site, id, "json")).unwrap()).unwrap();
        is_told(&on_file);
        let line = site.agent().line("output-cut");
        line.is(&["ACTION=output-cut", "DISPATCHER=control-1", "ERROR=*", &format!("REQID={id}"), "SCRIPT=fill"]);
        assert!(line.get("ERROR").unwrap().contains("no room"), "{line:?}");
        Caller::of(&site).accepted("ok", "r3");
        let whole = Caller::of(&site).ended("r3");
        assert_eq!((&whole["exit"], whole.get("truncated")), (&json!(0), None), "{mode:?}: {whole}");
        assert_eq!(site.agent().lines("output-cut").len(), 1);
    }
}

#[test]
fn a_job_that_fills_the_disk_and_is_lost_is_told_as_lost() {
    for mode in Mode::ALL {
        let (site, disk) = site(mode);
        let caller = Caller::of(&site);
        caller.accepted("fill-and-wait", "r1");
        site.agent().worked("up");
        let monitor = eventually("its monitor", || {
            let monitors = host::children(site.agent().executor());
            if let [monitor] = monitors[..] { host::leads_session(monitor).then_some(monitor) } else { None }
        });
        host::kill(monitor, Signal::SIGKILL);
        let lost = caller.ended("r1");
        let is_unknown = |told: &Value, status: &str| {
            let marks = (&told["status"], &told["exit"], &told["unknown"], &told["reason"]);
            assert_eq!(marks, (&json!(status), &json!(-1), &json!(true), &json!("outcome-unknown")), "{mode:?}");
            assert!(told["stdout"].as_str().unwrap().starts_with("begin\ny\n"), "{mode:?}");
        };
        is_unknown(&lost, "lost");
        assert_eq!(lost["stderr"], "");
        let told = asked(&caller, "/result/r1");
        is_unknown(&told, "done");
        assert!(told["stderr"].as_str().unwrap().starts_with("ctrl-exec-agent: the job's end is unknown"));
        assert!(site.agent().lines("run-async-lost").is_empty(), "it is not on record");
        disk.grow();
        eventually("its record", || {
            is_unknown(&caller.result("r1"), "lost");
            file(&site, "r1", "lost").exists().then_some(())
        });
        assert_eq!(site.agent().line("run-async-lost").get("REQID"), Some("r1"));
    }
}
