//! The prompt of pairing mode at a terminal.

use super::*;

const QUESTION: &str = "Accept, Deny, or Skip? [a/d/s]: ";
const WAITING: &str = "Waiting for next request... (Ctrl-C to exit pairing mode)\n";

/// A request; `number` tells its command's output from the others'.
fn asking(world: &World, session: &Session, number: usize) -> (Live, String) {
    let place = world.site.dir().join(format!("asking{number}"));
    let mut asking = Live::start(world.asking(&session.port, &[]), &place);
    let id = reqid(&mut asking);
    (asking, id)
}

#[test]
fn a_single_request_is_shown_in_full_and_accepted_with_one_letter() {
    let world = World::new();
    let mut session = world.session_on_terminal(&["--timeout", "300"]);
    let port = &session.port;
    let opening = format!(
        "Pairing mode active on port {port} (auto-stops in 300s).\nCtrl-C or 'quit' to stop.\n\
         Waiting for pairing requests...\n"
    );
    assert_eq!(session.live.says("requests...\n"), opening);
    let mut asking = world.ask(&session, &["--ip", "192.0.2.7"]);
    let (code, id) = (asking.line_after("Pairing code: "), reqid(&mut asking));
    let shown = session.live.says(QUESTION);
    let name = &world.name;
    for part in [
        format!("Pairing request queued: {name} (127.0.0.1) - ID: {id}\n\n"),
        format!("\nPairing request from {name} (127.0.0.1) - ID: {id}\n"),
        format!("\n  Code:     {code}   (verify this matches the agent display)\n  Received: 2"),
        format!(
            "Z\n  Reported name: {name}\n  Source IP:     127.0.0.1\n  Reported IP:   192.0.2.7\n  Reverse DNS:   "
        ),
    ] {
        assert!(shown.contains(&part), "{part}\n{shown}");
    }
    session.live.types("a");
    asking.ends().exits(0);
    let said = session.live.says(WAITING);
    let approved =
        format!("Approved '{name}' ({id}).\n  Certificate delivered.\n  Registered:  {name}   lookup_by=hostname   ");
    assert!(said.contains(&approved), "{said}");
    assert_eq!(world.record()["reqid"], id);
    session.live.types("quit");
    let said = session.live.ends().exits(0);
    assert!(said.stdout.ends_with("\n\nPairing mode stopped.\n"), "{said:?}");
}

#[test]
fn a_single_request_is_denied_or_skipped_with_one_letter() {
    let world = World::new();
    let mut session = world.session_on_terminal(&[]);
    let (mut first, id) = asking(&world, &session, 1);
    session.live.says(QUESTION);
    session.live.types("s");
    session.live.says("Skipped: the request keeps waiting.\n");
    assert!(first.runs() && world.queued() == [format!("{id}.json")]);
    session.live.types("d");
    session.live.says(&format!("Denied request '{id}'.\n{WAITING}"));
    let denied = first.ends().exits(1);
    assert!(denied.stderr.contains("Pairing failed: rejected by operator"), "{denied:?}");
    eventually("an empty queue", || world.queued().is_empty().then_some(()));
    for nothing in ["a", "d", "D"] {
        session.live.types(nothing);
        session.live.says(&format!("Unknown command '{nothing}'. Commands: a/d/s/list/quit or a1/d1 for multiple.\n"));
    }
    session.live.types("q");
    session.live.ends().exits(0);
    world.nothing_came_of_it();
}

#[test]
fn several_requests_are_numbered_and_answered_by_number() {
    let world = World::new();
    let mut session = world.session_on_terminal(&[]);
    let (first, one) = asking(&world, &session, 1);
    let (second, two) = asking(&world, &session, 2);
    let (mut third, three) = asking(&world, &session, 3);
    let shown = session.live.says("3 pending pairing requests:\n");
    assert!(shown.contains("2 pending pairing requests:\n") && shown.contains(QUESTION), "{shown}");
    let shown = session.live.says("Command (a1/d1/a2/d2/list/quit): ");
    assert!(shown.contains(&format!("\n  [1] {:<30}  {:<16}  code: ", world.name, "127.0.0.1")), "{shown}");

    // Requests of one second stand in the order of their ids.
    let rows = world.site.control(&["list-requests"]).stdout;
    let place = |id: &str| rows.lines().skip(2).position(|line| line.starts_with(id)).unwrap() + 1;
    session.live.types("a");
    session.live.says("Unknown command 'a'.");
    session.live.types("a9");
    session.live.says("Approve failed: there is no request 9.\n");
    session.live.types(&format!("d{}", place(&two)));
    session.live.says(&format!("Denied request '{two}'.\n"));
    second.ends().exits(1);
    eventually("its end", || (!world.queued().contains(&format!("{two}.json"))).then_some(()));
    session.live.types(&format!("a{}", if place(&one) > place(&two) { place(&one) - 1 } else { place(&one) }));
    session.live.says(&format!("Approved '{}' ({one}).\n", world.name));
    first.ends().exits(0);
    eventually("its end", || (!world.queued().contains(&format!("{one}.json"))).then_some(()));
    session.live.types("list");
    session.live.says(&format!("ID: {three}\n"));
    assert!(third.runs());
    session.live.types("skip");
    session.live.types("quit");
    session.live.ends().exits(0);
    let over = third.ends().exits(1);
    assert!(over.stderr.contains("Pairing failed: pairing mode ended"), "{over:?}");
    assert_eq!(world.record()["reqid"], one);
}

#[test]
fn commands_that_do_not_exist_are_named_and_an_empty_list_is_said() {
    let world = World::new();
    let mut session = world.session_on_terminal(&[]);
    session.live.types("");
    session.live.types("l");
    session.live.says("No pending pairing requests.\n");
    for word in ["approve", "a0", "d1x", "help me"] {
        session.live.types(word);
        session.live.says(&format!("Unknown command '{word}'. Commands: a/d/s/list/quit or a1/d1 for multiple.\n"));
    }
    session.live.types("d1");
    session.live.says("Deny failed: there is no request 1.\n");
    session.live.types("q");
    session.live.ends().exits(0);
}

#[test]
fn what_is_typed_elsewhere_counts_here_too() {
    let world = World::new();
    let mut session = world.session_on_terminal(&[]);
    let (first, id) = asking(&world, &session, 1);
    session.live.says(QUESTION);
    world.approve(&id, &[]).exits(0);
    first.ends().exits(0);
    let said = session.live.says(WAITING);
    assert!(said.contains(&format!("Registered '{}' (", world.name)), "{said}");
    // An agent that leaves is not left standing at the prompt.
    let (second, id) = asking(&world, &session, 2);
    drop(second);
    session.live.says(&format!("Pairing request {id} is over: the agent left. Nothing was registered.\n"));
}

#[test]
fn at_the_end_of_input_the_session_goes_on() {
    let world = World::new();
    let mut session = world.session_on_terminal(&[]);
    session.live.says("Waiting for pairing requests...\n");
    session.live.ends_input();
    let (first, id) = asking(&world, &session, 1);
    assert!(session.live.runs());
    world.approve(&id, &[]).exits(0);
    first.ends().exits(0);
    session.close();
}
