//! The life of a session: started and stopped in the background, ended by time, by signals, and by force.

use std::net::TcpListener;

use nix::sys::signal::Signal;

use super::*;
use crate::harness::host;
use crate::harness::process::Ran;

/// A session in the background. Stopped when dropped.
struct Background {
    pid: u32,
    port: String,
}

impl Background {
    fn start(world: &World, words: &[&str]) -> (Self, Ran) {
        let ran = world.site.control(&[&["pairing-mode", "start", "--port", "0"], words].concat()).exits(0);
        let first = ran.stdout.lines().next().unwrap();
        let rest = first.strip_prefix("Pairing mode started in the background on port ").expect(first);
        let (port, rest) = rest.split_once(" (PID ").unwrap();
        let pid = rest.strip_suffix(").").unwrap().parse().unwrap();
        (Self { pid, port: port.to_owned() }, ran)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        host::kill(self.pid, Signal::SIGKILL);
    }
}

/// Whether nothing is left of a killed process. Its files stay open until the last of its threads is gone, which may be
/// after the first one has become a zombie.
fn is_gone(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    !host::alive(pid) && threads <= 1
}

fn pidfile(world: &World) -> std::path::PathBuf {
    world.site.control.join("var/lib/ctrl-exec/pairing-mode.pid")
}

fn stop(world: &World) -> String {
    world.site.control(&["pairing-mode", "stop"]).exits(0).stdout
}

#[test]
fn a_session_in_the_background_pairs_until_it_is_stopped() {
    let world = World::new();
    let (session, ran) = Background::start(&world, &["--timeout", "120"]);
    assert!(ran.stdout.contains("\nIt stops by itself in 120s.\nStop it now with: ctrl-exec pairing-mode stop\n"));
    assert!(host::alive(session.pid), "it outlives the command that started it");
    assert_eq!(std::fs::read_to_string(pidfile(&world)).unwrap(), format!("{}\n", session.pid));
    // It could be connected to the moment it was said to be there.
    let mut asking = Live::start(world.asking(&session.port, &[]), &world.site.dir().join("asking"));
    let id = reqid(&mut asking);
    world.approve(&id, &[]).exits(0);
    asking.ends().exits(0);

    let second = world.site.control(&["pairing-mode", "start", "--port", "0"]).exits(1);
    let refusal = format!(
        "Error: Pairing mode is already running in the background (PID {}).\nhint: stop it with: ctrl-exec pairing-mode \
         stop\n",
        session.pid
    );
    assert_eq!(second.stderr, refusal);
    assert!(host::alive(session.pid));

    let waiting = Live::start(world.asking(&session.port, &[]), &world.site.dir().join("waiting"));
    eventually("a request", || (!world.queued().is_empty()).then_some(()));
    let stopped = world.site.control(&["pairing-mode", "stop"]).exits(0);
    assert_eq!(stopped.stdout, format!("Pairing mode stopped (was PID {}); pairing port closed.\n", session.pid));
    stopped.lines("pairing-mode-stop")[0].is(&["ACTION=pairing-mode-stop", &format!("PID={}", session.pid)]);
    let told = waiting.ends().exits(1);
    assert!(told.stderr.contains("Pairing failed: pairing mode ended"), "{told:?}");
    assert!(!host::alive(session.pid) && !pidfile(&world).exists());
    assert_eq!(stop(&world), "No background pairing mode is running.\n");
}

#[test]
fn a_session_that_cannot_be_opened_is_no_success_and_leaves_nothing() {
    let world = World::new();
    let taken = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for verb in [&["pairing-mode", "start"][..], &["pairing-mode"]] {
        let ran = world.site.control(&[verb, &["--port", &port]].concat()).exits(69);
        assert!(
            ran.stderr.contains(&format!(":{port}")) && ran.stderr.contains("hint: is pairing mode on already?"),
            "{ran:?}"
        );
        assert!(!ran.stdout.contains("started") && !ran.stdout.contains("active"), "{ran:?}");
        assert!(!pidfile(&world).exists());
    }
    assert_eq!(stop(&world), "No background pairing mode is running.\n");
    drop(taken);
    let (session, _) = Background::start(&world, &[]);
    drop(session);
}

#[test]
fn what_a_session_needs_is_looked_at_before_it_is_started() {
    let cases: [(&str, i32, &str); 4] = [
        ("dispatcher.crt", 78, "Cannot start pairing mode: the dispatcher certificate is missing:\n  "),
        ("dispatcher.key", 78, "Cannot start pairing mode: the dispatcher key is missing:\n  "),
        ("ca.key", 69, "ca.key"),
        ("ca.crt", 69, "ca.crt"),
    ];
    for (file, status, text) in cases {
        let world = World::new();
        std::fs::remove_file(world.site.control.join("etc/ctrl-exec").join(file)).unwrap();
        let ran = world.site.control(&["pairing-mode", "start", "--port", "0"]).exits(status);
        assert!(ran.stderr.contains(text) && !ran.stdout.contains("started"), "{file}: {ran:?}");
        assert!(!pidfile(&world).exists(), "{file}");
    }
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let world = World::new();
    let between = "Error: --timeout must be between 1 and 600 seconds.";
    let integer = "Error: --timeout must be an integer number of seconds.";
    let cases: [(&[&str], &str); 9] = [
        (&["--timeout", "0"], between),
        (&["--timeout", "601"], between),
        (&["--timeout", "-5"], between),
        (&["--timeout", "99999999999999999999"], between),
        (&["--timeout", "soon"], integer),
        (&["--timeout", ""], integer),
        (&["start", "--timeout", "601"], between),
        (&["restart"], "invalid value 'restart'"),
        (&["--port", "65536"], "invalid value '65536'"),
    ];
    for (words, text) in cases {
        let ran = world.site.control(&[&["pairing-mode"], words].concat()).exits(64);
        assert!(ran.stderr.contains(text), "{words:?}: {ran:?}");
    }
}

#[test]
fn the_pidfile_of_a_killed_session_stands_in_nobodys_way() {
    let world = World::new();
    let (session, _) = Background::start(&world, &[]);
    host::kill(session.pid, Signal::SIGKILL);
    eventually("its end", || is_gone(session.pid).then_some(()));
    assert!(pidfile(&world).exists());
    assert_eq!(stop(&world), "No background pairing mode is running. (cleared stale pidfile)\n");
    assert!(!pidfile(&world).exists());
    // A pidfile that names a living stranger is not believed either.
    let stranger = format!("{}\n", std::process::id());
    std::fs::write(pidfile(&world), stranger).unwrap();
    let (session, _) = Background::start(&world, &[]);
    assert_eq!(std::fs::read_to_string(pidfile(&world)).unwrap(), format!("{}\n", session.pid));
    stop(&world);
}

#[test]
fn a_session_ends_with_its_time_and_tells_whoever_waits() {
    let world = World::new();
    let session = world.session(&["--timeout", "1"]);
    let asking = world.ask(&session, &[]);
    let said = session.live.ends().exits(0);
    assert!(said.stdout.ends_with("\n\nPairing mode timed out after 1s. Stopped.\n"), "{said:?}");
    assert_eq!(said.lines("pairing-mode-timeout").len(), 1);
    let told = asking.ends().exits(1);
    assert!(told.stderr.contains("Pairing failed: pairing mode ended"), "{told:?}");
    world.nothing_came_of_it();

    let (session, _) = Background::start(&world, &["--timeout", "1"]);
    eventually("its end", || (!host::alive(session.pid)).then_some(()));
    assert!(!pidfile(&world).exists());
}

#[test]
fn signals_end_a_session_and_an_approval_that_was_not_taken_ends_with_it() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let world = World::new();
        let session = world.session(&[]);
        let mut asking = world.ask_on_terminal(&session);
        let id = reqid(&mut asking);
        let approving = Live::start(world.site.control_command(&["approve", &id]), &world.site.dir().join("approving"));
        eventually("an approval", || world.queued().contains(&format!("{id}.approved")).then_some(()));
        asking.says("[y/N] ");
        session.live.signal(signal);
        let said = session.live.ends().exits(0);
        assert!(said.stdout.ends_with("\n\nPairing mode stopped.\n"), "{said:?}");
        assert!(approving.ends().exits(1).stderr.contains("nothing was registered"));
        asking.types("y");
        let told = asking.ends().exits(1);
        assert!(told.stderr.contains("Pairing failed: pairing mode ended"), "{told:?}");
        world.nothing_came_of_it();
    }
}

#[test]
fn without_a_session_nothing_is_approved_and_a_denial_clears_the_queue() {
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    session.live.signal(Signal::SIGKILL);
    session.live.ends();
    let lost = asking.ends().exits(69);
    assert!(lost.stderr.contains("ended before there was an answer"), "{lost:?}");
    assert!(world.site.control(&["list-requests"]).exits(0).stdout.contains(&id));
    let refused = world.approve(&id, &[]).exits(69);
    let text = format!("no pairing session is running that could deliver an answer to request '{id}'");
    assert!(refused.stderr.contains(&text) && refused.stderr.contains("hint: start one with"), "{refused:?}");
    assert_eq!(world.queued(), [format!("{id}.json")]);
    world.site.control(&["deny", &id]).exits(0);
    world.nothing_came_of_it();
}

#[test]
fn a_new_session_does_not_answer_for_one_that_was_killed() {
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let old = reqid(&mut asking);
    session.live.signal(Signal::SIGKILL);
    session.live.ends();
    asking.ends().exits(69);
    let next = world.session(&[]);
    assert_eq!(world.queued(), Vec::<String>::new());
    assert!(world.approve(&old, &[]).exits(1).stderr.contains("No pending request"));
    world.pair(&next);
}
