//! Scripts whose monitor was killed: nothing of them goes on, and whoever another script has left behind does.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::{Site, eventually, host, tls};

/// A family: in its own session and group, orphaned, and deaf to SIGTERM. Each is known by its last word.
const FAMILY: &str = "trap '' TERM
sh -c 'sleep 300; true' {work}/kin &
setsid sh -c 'sleep 300; true' {work}/kin &
(setsid sh -c \"trap '' HUP; sh -c 'sleep 300; true' {work}/kin & sleep 300; true\" {work}/kin &)
echo up > {work}/up
wait";

/// Ends by itself and leaves somebody.
const LEAVES: &str = "setsid sh -c 'sleep 300; true' {work}/daemon > /dev/null 2>&1 & echo left";

/// The processes whose last word is this file of the site's.
fn of(site: &Site, name: &str) -> Vec<u32> {
    let word = site.agent().work(name).display().to_string();
    host::with_words(|words| words.trim_end_matches('\0').ends_with(&word))
}

fn site(mode: Mode) -> Site {
    Site::builder().executor(mode).sh("family", FAMILY).sh("leaves", LEAVES).start()
}

/// Waits until the whole family is there, and kills its monitor.
fn bereave(site: &Site) {
    site.agent().worked("up");
    eventually("a family", || (of(site, "kin").len() == 4).then_some(()));
    let kin = of(site, "kin");
    let monitor = eventually("its monitor", || {
        let children = host::children(site.agent().executor());
        // Of those who lead a session, only it has any of the family below.
        children.into_iter().find(|pid| host::leads_session(*pid) && kin.iter().any(|kin| host::descends(*kin, *pid)))
    });
    host::kill(monitor, Signal::SIGKILL);
}

fn is_gone(site: &Site) {
    eventually("the end of the family", || of(site, "kin").is_empty().then_some(()));
    std::fs::remove_file(site.agent().work("up")).unwrap();
}

#[test]
fn nothing_of_a_run_outlives_its_monitor() {
    for mode in Mode::ALL {
        let site = site(mode);
        for form in ["--no-stream", "--stream", "--keep-running"] {
            let run = Background::start(site.control_command(&["run", form, "agent1", "family"]));
            if form == "--keep-running" {
                site.agent().line("run-async");
            }
            bereave(&site);
            is_gone(&site);
            run.end().exits(1);
        }
    }
}

#[test]
fn a_script_whose_monitor_was_killed_does_not_run_again_beside_what_is_left_of_it() {
    let site = site(Mode::Private);
    let submit = |id: &str| {
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        http.post("/run", &json!({ "script": "family", "reqid": id, "async": true }).to_string())
    };
    for round in 0..5 {
        assert_eq!(submit(&format!("first{round}")).status, 202);
        bereave(&site);
        // For the next one to say.
        std::fs::remove_file(site.agent().work("up")).unwrap();
        // As soon as it may, and not before.
        let before = of(&site, "kin");
        eventually("another job of the script", || {
            let answer = submit(&format!("second{round}"));
            assert!(answer.status == 202 || answer.json()["reason"] == "script-already-running", "{answer:?}");
            (answer.status == 202).then_some(())
        });
        assert!(before.iter().all(|pid| !host::alive(*pid)), "{before:?}");
        bereave(&site);
        is_gone(&site);
    }
}

#[test]
fn who_was_left_behind_by_a_script_that_has_ended_is_left_alone() {
    let site = site(Mode::Private);
    assert_eq!(site.result("leaves", &[])["stdout"], "left\n");
    let daemon = eventually("who was left", || of(&site, "daemon").first().copied());
    eventually("its adoption", || (host::parent(daemon) == site.agent().executor()).then_some(()));
    let run = Background::start(site.control_command(&["run", "--no-stream", "agent1", "family"]));
    bereave(&site);
    is_gone(&site);
    run.end().exits(1);
    assert!(host::alive(daemon));
    // It counts as nobody's event, and nobody waits for it in vain.
    host::kill(daemon, Signal::SIGKILL);
    eventually("its end", || (!host::alive(daemon)).then_some(()));
    eventually("no zombie", || (host::zombies(site.agent().executor()) == 0).then_some(()));
}
