//! `request-pairing --background`: one line, and the rest in the log.

use std::process::{Child, Stdio};

use super::*;
use crate::harness::log::Log;
use crate::harness::site::DISPATCHER;

/// Asks in the background; returns the request's id. The log is heard from before it starts.
fn asked_in_background(world: &World, session: &Session, words: &[&str]) -> String {
    let ran = world.asked(&session.port, &[&["--background"], words].concat()).exits(0);
    let id = ran.stdout.strip_suffix('\n').unwrap().to_owned();
    assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "only the id is printed: {ran:?}");
    id
}

fn log(world: &World) -> Log {
    Log::listen(&world.agent().root, "dev/log")
}

#[test]
fn only_the_id_is_printed_and_the_pairing_goes_on_by_itself() {
    let world = World::new();
    let log = log(&world);
    let session = world.session(&[]);
    let id = asked_in_background(&world, &session, &[]);
    let ran = world.approve(&id, &[]).exits(0);
    assert!(ran.stdout.contains("Certificate delivered."), "{ran:?}");
    let dispatcher = format!("DISPATCHER={DISPATCHER}");
    log.line(6, &["ACTION=pair-confirmation", "CONFIRMED=no", "DISPATCHER_HOST=127.0.0.1"]);
    log.line(6, &["ACTION=pair-complete", &dispatcher, "DISPATCHER_HOST=127.0.0.1", "STATUS=approved"]);
    assert!(files(world.agent()).iter().all(|path| path.exists()));
    assert_eq!(world.record()["reqid"], id);
}

#[test]
fn a_pinned_ca_is_confirmed_in_the_background_too() {
    let world = World::new();
    let log = log(&world);
    let session = world.session(&[]);
    let ca = world.site.authority().certificate().sha256();
    let id = asked_in_background(&world, &session, &["--ca-fingerprint", &ctrl_exec::wire::hex::encode(&ca)]);
    world.approve(&id, &[]).exits(0);
    assert!(log.with("ACTION=pair-confirmation").contains("CONFIRMED=ca"));
}

#[test]
fn what_is_doubtful_about_a_pairing_that_went_well_is_logged() {
    let world = World::new();
    let config = std::fs::read_to_string(world.agent().config()).unwrap();
    std::fs::write(world.agent().config(), config.replace("user = nobody", "user = no-such-account")).unwrap();
    let log = log(&world);
    let session = world.session(&[]);
    let id = asked_in_background(&world, &session, &[]);
    world.approve(&id, &[]).exits(0);
    let reason = "REASON=there is no user 'no-such-account': the agent's files belong to root's group, and an agent that \
                  runs as that user will not be able to read its key";
    log.line(4, &["ACTION=pair-warning", reason]);
    log.with("ACTION=pair-complete");
}

#[test]
fn nobody_answers_in_time_and_nothing_is_stored() {
    let world = World::new();
    let log = log(&world);
    let session = world.session(&[]);
    let id = asked_in_background(&world, &session, &["--timeout", "1"]);
    log.line(4, &["ACTION=pair-timeout", &format!("REQID={id}")]);
    eventually("an empty queue", || world.queued().is_empty().then_some(()));
    world.nothing_came_of_it();
}

#[test]
fn a_denial_is_logged_with_its_reason() {
    let world = World::new();
    let log = log(&world);
    let session = world.session(&[]);
    let id = asked_in_background(&world, &session, &[]);
    world.site.control(&["deny", &id]).exits(0);
    log.line(4, &["ACTION=pair-denied", "REASON=rejected by operator", &format!("REQID={id}")]);
    eventually("an empty queue", || world.queued().is_empty().then_some(()));
    world.nothing_came_of_it();
}

#[test]
fn a_session_that_is_killed_is_logged_as_a_failure() {
    let world = World::new();
    let log = log(&world);
    let session = world.session(&[]);
    let id = asked_in_background(&world, &session, &[]);
    session.live.signal(nix::sys::signal::Signal::SIGKILL);
    let line = log.with("ACTION=pair-failed");
    assert!(line.contains("nothing was stored") && line.contains(&format!("REQID={id}")), "{line}");
}

/// The process that `--background` leaves behind, as a child of the test, so that its status can be seen.
fn detached(world: &World, session: &Session, words: &[&str]) -> Child {
    let mut command = world.asking(&session.port, &["--detached"]);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn the_process_in_the_background_ends_with_the_documented_statuses() {
    let world = World::new();
    let session = world.session(&[]);
    let cases: [(&[&str], &str, i32); 3] =
        [(&["--timeout", "1"], "", 2), (&[], "deny", 3), (&["--timeout", "600"], "approve", 0)];
    for (words, verb, status) in cases {
        let mut child = detached(&world, &session, words);
        if !verb.is_empty() {
            let id = eventually("a request", || world.queued().first()?.strip_suffix(".json").map(str::to_owned));
            world.site.control(&[verb, &id]).exits(0);
        }
        let ended = eventually("its end", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(status), "{words:?} {verb}");
        eventually("an empty queue", || world.queued().is_empty().then_some(()));
    }
}

#[test]
fn what_stops_it_before_it_is_queued_is_said_at_once() {
    let world = World::new();
    let session = world.session(&[]);
    let ran = world.asked(&session.port, &["--background", "--timeout", "601"]).exits(64);
    assert_eq!(ran.stderr, "Error: --timeout must be between 1 and 600 seconds\n");
    let ran = world.asked(&session.port, &["--background", "--ca-fingerprint", &"00".repeat(32)]).exits(1);
    assert!(ran.messages().contains("Pairing failed: the dispatcher's CA has") && ran.stdout.is_empty(), "{ran:?}");
    let port = session.port.clone();
    session.close();
    let ran = world.asked(&port, &["--background"]);
    assert_ne!(ran.code, 0);
    assert!(ran.messages().contains("cannot reach ctrl-exec at 127.0.0.1:") && ran.stdout.is_empty(), "{ran:?}");
    world.nothing_came_of_it();
}
