//! How the managed host's operator makes sure of the dispatcher: the code at a terminal, or the CA's fingerprint.

use super::*;
use crate::harness::openssl::Openssl;

/// Queues a request at a terminal, up to the question; returns id and code.
fn questioned(world: &World, session: &Session) -> (Live, String, String) {
    let mut asking = world.ask_on_terminal(session);
    let (code, id) = (asking.line_after("Pairing code: "), reqid(&mut asking));
    asking.says(&format!("Does the dispatcher show this code, {code}? [y/N] "));
    (asking, id, code)
}

#[test]
fn at_a_terminal_a_yes_pairs() {
    for answer in ["y", "YES"] {
        let world = World::new();
        let session = world.session(&[]);
        let (mut asking, id, _) = questioned(&world, &session);
        assert!(!asking.err().contains("nobody can be asked"), "{}", asking.err());
        asking.types(answer);
        world.approve(&id, &[]).exits(0);
        let paired = asking.ends().exits(0);
        assert_eq!(paired.lines("pair-confirmation")[0].get("CONFIRMED"), Some("code"));
        assert!(world.record()["cert_serial"].is_string());
    }
}

#[test]
fn at_a_terminal_anything_but_a_yes_stores_and_registers_nothing() {
    for answer in ["n", "", "yep"] {
        let world = World::new();
        let session = world.session(&[]);
        let (mut asking, id, _) = questioned(&world, &session);
        asking.types(answer);
        let refused = asking.ends().exits(1);
        assert!(
            refused.messages().ends_with(
                "\nPairing failed: the codes differ: nothing was stored. Somebody may be posing as the dispatcher\n"
            ),
            "{refused:?}"
        );
        eventually("an empty queue", || world.queued().is_empty().then_some(()));
        let late = world.approve(&id, &[]).exits(1);
        assert!(late.stderr.contains("No pending request"), "{late:?}");
        world.nothing_came_of_it();
        let said = session.close();
        let wanted =
            format!("Pairing request {id} is over: the agent's operator sees another code. Nothing was registered.");
        assert!(said.stdout.contains(&wanted), "{said:?}");
        assert_eq!(said.lines("pair-reject")[0].get("REASON"), Some("agent-refused"));
    }
}

#[test]
fn a_terminal_that_is_hung_up_is_no_yes() {
    let world = World::new();
    let session = world.session(&[]);
    let (mut asking, ..) = questioned(&world, &session);
    asking.hangs_up();
    let refused = asking.ends();
    assert_ne!(refused.code, 0, "{refused:?}");
    eventually("an empty queue", || world.queued().is_empty().then_some(()));
    world.nothing_came_of_it();
}

#[test]
fn an_agent_that_says_no_to_an_approval_is_not_registered() {
    let world = World::new();
    let session = world.session(&[]);
    let (mut asking, id, _) = questioned(&world, &session);
    let approving = Live::start(world.site.control_command(&["approve", &id]), &world.site.dir().join("approving"));
    eventually("an approval", || world.queued().contains(&format!("{id}.approved")).then_some(()));
    asking.types("n");
    asking.ends().exits(1);
    let ran = approving.ends().exits(1);
    assert!(ran.stderr.contains("the agent did not take the certificate: nothing was registered"), "{ran:?}");
    world.nothing_came_of_it();
}

#[test]
fn a_denial_takes_the_question_back() {
    let world = World::new();
    let session = world.session(&[]);
    let (asking, id, _) = questioned(&world, &session);
    world.site.control(&["deny", &id]).exits(0);
    let denied = asking.ends().exits(1);
    assert!(denied.stderr.ends_with("\n\nPairing failed: rejected by operator\n"), "{denied:?}");
    eventually("an empty queue", || world.queued().is_empty().then_some(()));
    world.nothing_came_of_it();
}

#[test]
fn the_fingerprint_that_openssl_prints_needs_no_question() {
    let world = World::new();
    let session = world.session(&[]);
    let openssl = Openssl::new(&world.site.dir().join("openssl"));
    let ca = world.site.control.join("etc/ctrl-exec/ca.crt");
    let printed = openssl.run(&format!("x509 -noout -fingerprint -sha256 -in {}", ca.display())).stdout;
    let colons = printed.trim().split_once('=').unwrap().1.to_owned();
    for spelling in [printed.trim(), &colons, &colons.replace(':', "").to_lowercase()] {
        let mut asking = world.ask(&session, &["--ca-fingerprint", spelling]);
        let id = reqid(&mut asking);
        world.approve(&id, &[]).exits(0);
        let paired = asking.ends().exits(0);
        assert!(!paired.stderr.contains("nobody can be asked"), "{paired:?}");
        assert!(paired.stdout.contains("Pairing code: "), "the code is shown all the same");
        assert_eq!(paired.lines("pair-confirmation")[0].get("CONFIRMED"), Some("ca"));
    }
}

#[test]
fn another_cas_fingerprint_stops_the_pairing_before_it_is_queued() {
    let world = World::new();
    let session = world.session(&[]);
    let wrong = "ab".repeat(32);
    let asked = world.asked(&session.port, &["--ca-fingerprint", &wrong]).exits(1);
    assert!(asked.messages().contains("Pairing failed: the dispatcher's CA has the SHA-256 fingerprint "), "{asked:?}");
    assert!(!asked.stdout.contains("Pairing code"), "{asked:?}");
    world.nothing_came_of_it();
    for bad in ["abc", "", &"ab".repeat(31), &format!("{}zz", "ab".repeat(31))] {
        let asked = world.asked(&session.port, &["--ca-fingerprint", bad]).exits(64);
        assert!(asked.stderr.contains("--ca-fingerprint must be a SHA-256 in hex"), "{bad:?}: {asked:?}");
    }
    let said = session.close();
    assert!(!said.stdout.contains("queued"), "{said:?}");
}
