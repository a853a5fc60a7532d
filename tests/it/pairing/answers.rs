//! `list-requests`, `approve` and `deny` while pairing mode runs in the foreground.

use super::*;
use crate::harness::background::Background;

#[test]
fn requests_are_listed_with_what_the_operator_compares() {
    let world = World::new();
    assert_eq!(world.site.control(&["list-requests"]).exits(0).stdout, "No pending pairing requests.\n");
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let (code, id) = (asking.line_after("Pairing code: "), reqid(&mut asking));
    let table = world.site.control(&["list-requests"]).exits(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines[0].split("  ").filter(|word| !word.is_empty()).map(str::trim).collect::<Vec<_>>(),
        ["ID", "HOSTNAME", "SOURCE IP", "REVERSE DNS", "CODE"]
    );
    assert_eq!(lines[1], "-".repeat(98));
    assert!(lines[2].starts_with(&format!("{id:<16}  {:<24}  127.0.0.1         ", world.name)), "{table}");
    assert!(lines[2].ends_with(&format!("  {code}")) && code.len() == 8 && code.as_bytes()[3] == b'-', "{table}");
    assert_eq!(lines[3], "");
    assert!(lines[4].starts_with("REVERSE DNS: (ok)") && lines[5].contains("ctrl-exec approve ID"), "{table}");
    // The session itself tells of it, too.
    assert!(session.live.out().contains(&format!("Pairing request queued: {} (127.0.0.1) - ID: {id}\n", world.name)));
    assert!(!session.live.out().contains("Accept, Deny"), "there is nobody to ask");
}

#[test]
fn an_approval_reports_exactly_what_was_registered() {
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    let ran = world.approve(&id, &["--lookup-by", "ip", "--ip", "127.0.0.1", "--agent-port", "7450"]).exits(0);
    let want = format!(
        "Approved '{0}' ({id}).\n  Certificate delivered.\n  Registered:  {0}   lookup_by=ip   addr=127.0.0.1:7450\n",
        world.name
    );
    // Where the resolver knows this machine's name, a piece of advice follows.
    assert!(ran.stdout.starts_with(&want), "{}", ran.stdout);
    ran.lines("pair-approve")[0].is(&["ACTION=pair-approve", &format!("AGENT={}", world.name), &format!("REQID={id}")]);
    asking.ends().exits(0);
    let said = session.close();
    said.lines("pair-registered")[0].is(&[
        "ACTION=pair-registered",
        &format!("AGENT={}", world.name),
        &format!("REQID={id}"),
    ]);
    let again = world.approve(&id, &[]).exits(1);
    assert!(again.stderr.contains(&format!("Error: No pending request '{id}'\n")), "{again:?}");
}

#[test]
fn the_operators_word_counts_before_the_agents_and_that_before_the_default() {
    type Case<'a> = (&'a [&'a str], &'a [&'a str], (&'a str, &'a str, u16));
    let world = World::new();
    let session = world.session(&[]);
    let wishes = ["--lookup-by", "ip", "--ip", "192.0.2.1"];
    let cases: [Case<'_>; 4] = [
        (&[], &[], ("hostname", "127.0.0.1", 7443)),
        (&wishes, &[], ("ip", "192.0.2.1", 7443)),
        (&wishes, &["--lookup-by", "hostname"], ("hostname", "192.0.2.1", 7443)),
        (&wishes, &["--ip", "2001:db8::7", "--agent-port", "9"], ("ip", "2001:db8::7", 9)),
    ];
    for (asked, decided, (lookup_by, ip, port)) in cases {
        let mut asking = world.ask(&session, asked);
        let id = reqid(&mut asking);
        let said = world.approve(&id, decided).exits(0).stdout;
        asking.ends().exits(0);
        let record = world.record();
        let found = (record["lookup_by"].as_str().unwrap(), record["ip"].as_str().unwrap());
        assert_eq!((found, &record["port"]), ((lookup_by, ip), &port.into()), "{asked:?} {decided:?}");
        let host = if lookup_by == "hostname" { world.name.clone() } else { ip.to_owned() };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        assert!(said.contains(&format!("lookup_by={lookup_by}   addr={host}:{port}\n")), "{said}");
    }
}

#[test]
fn who_is_paired_again_replaces_a_record_and_the_operator_is_told_before() {
    let world = World::new();
    let session = world.session(&[]);
    world.pair(&session);
    let first = world.record();
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    let replaces = format!("  REPLACES the registered agent '{}' (paired ", world.name);
    assert!(world.site.control(&["list-requests"]).stdout.contains(&replaces));
    let ran = world.approve(&id, &[]).exits(0);
    assert!(ran.stdout.contains(&replaces), "{}", ran.stdout);
    assert_eq!(ran.lines("pair-approve")[0].get("REPLACED"), Some("yes"));
    asking.ends().exits(0);
    let second = world.record();
    assert_ne!(first["cert_serial"], second["cert_serial"]);
    assert_eq!(second["reqid"], id);
}

#[test]
fn a_denial_ends_the_asking_command_with_its_reason() {
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    let ran = world.site.control(&["deny", &id]).exits(0);
    assert_eq!(ran.stdout, format!("Denied request '{id}'.\n"));
    ran.lines("pair-deny")[0].is(&["ACTION=pair-deny", &format!("AGENT={}", world.name), &format!("REQID={id}")]);
    let asked = asking.ends().exits(1);
    assert!(asked.messages().ends_with("\nPairing failed: rejected by operator\n"), "{asked:?}");
    eventually("an empty queue", || world.queued().is_empty().then_some(()));
    world.nothing_came_of_it();
    world.site.control(&["deny", &id]).exits(1);
}

#[test]
fn only_one_answer_counts() {
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask_on_terminal(&session);
    let id = reqid(&mut asking);
    asking.says("[y/N] ");
    // Approved here, not confirmed there: the first approval waits.
    let first = Background::start(world.site.control_command(&["approve", &id]));
    eventually("an approval", || world.queued().contains(&format!("{id}.approved")).then_some(()));
    for verb in ["approve", "deny"] {
        let late = world.site.control(&[verb, &id]).exits(1);
        assert!(late.stderr.contains(&format!("request '{id}' has been answered already")), "{late:?}");
    }
    asking.types("y");
    first.end().exits(0);
    asking.ends().exits(0);
    session.close();
}

#[test]
fn what_is_no_request_is_refused_in_words() {
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    let secret = world.site.control.join("var/lib/ctrl-exec/x.json");
    std::fs::write(&secret, "{}").unwrap();
    let id = id.as_str();
    let cases: [(&[&str], i32, &str); 11] = [
        (&["approve", "../x"], 1, "No pending request '../x'"),
        (&["deny", "../x"], 1, "No pending request '../x'"),
        (&["approve", "0123456789abcdef"], 1, "No pending request '0123456789abcdef'"),
        (&["approve", ""], 1, "No pending request ''"),
        (&["approve"], 64, "<ID>"),
        (&["approve", id, "more"], 64, "unexpected argument"),
        (&["approve", id, "--lookup-by", "luck"], 64, "--lookup-by must be 'ip' or 'hostname'"),
        (&["approve", id, "--ip", "10.0.0"], 64, "--ip must be an IPv4 or IPv6 address"),
        (&["approve", id, "--agent-port", "0"], 64, "--agent-port must be a port number (1-65535)"),
        (&["approve", id, "--agent-port", "70000"], 64, "--agent-port must be a port number (1-65535)"),
        (&["approve", id, "--agnt-port", "7"], 64, "--agent-port"),
    ];
    for (words, status, text) in cases {
        let ran = world.site.control(words).exits(status);
        assert!(ran.stderr.contains(text), "{words:?}: {ran:?}");
    }
    assert!(secret.exists() && asking.runs());
    assert_eq!(world.queued(), [format!("{id}.json")]);
}
