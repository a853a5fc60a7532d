//! SIGKILL at every moment of a pairing, on either side: a host is paired or it is not, and nothing stands in the way of
//! the next attempt.

use std::time::Instant;

use ctrl_exec::pki::cert::Certificate;
use ctrl_exec::pki::chain::{self, TrustAnchor, Usage};
use ctrl_exec::tls::identity::Identity;
use nix::sys::signal::Signal;
use time::OffsetDateTime;

use super::*;
use crate::harness::pki::Credentials;

/// Kills of each command. They are spread evenly over the time that it takes when nobody kills it.
const ROUNDS: u32 = 20;
/// Attempts of one session: an address that leaves too many codes unopened is refused by it.
const ATTEMPTS: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Asking,
    Approving,
    Session,
}

fn world() -> World {
    World::of(Site::builder().dispatcher("pairing_rate_limit_disable = yes").sh("ok", "echo ran").prepare())
}

/// Pairs, approves as soon as there is a request, and kills one of the three commands `moment` after its start. Returns
/// how long the pairing took.
fn attempt(world: &World, session: Session, victim: Option<(Victim, Duration)>) -> (Option<Session>, Duration) {
    let start = Instant::now();
    let asking = Live::start(world.asking(&session.port, &[]), &world.site.dir().join("asking"));
    let mut commands = Commands { asking, approving: None, approved: start, session: Some(session) };
    loop {
        commands.approve(world);
        if let Some((victim, moment)) = victim
            && commands.kill(victim, start, moment)
        {
            break;
        }
        if !commands.asking.runs() {
            break;
        }
        std::thread::yield_now();
    }
    let took = match victim {
        Some((Victim::Approving, _)) | None if commands.approving.is_some() => commands.approved.elapsed(),
        _ => start.elapsed(),
    };
    (commands.settle(world), took)
}

struct Commands {
    asking: Live,
    approving: Option<Live>,
    /// When the approval began.
    approved: Instant,
    session: Option<Session>,
}

impl Commands {
    fn approve(&mut self, world: &World) {
        if self.approving.is_some() {
            return;
        }
        if let Some(id) = world.queued().iter().find_map(|name| name.strip_suffix(".json")) {
            let command = world.site.control_command(&["approve", id]);
            self.approving = Some(Live::start(command, &world.site.dir().join("approving")));
            self.approved = Instant::now();
        }
    }

    /// Kills the victim when its moment has come; says whether it has.
    fn kill(&mut self, victim: Victim, start: Instant, moment: Duration) -> bool {
        let (live, begin) = match victim {
            Victim::Asking => (Some(&self.asking), start),
            Victim::Approving => (self.approving.as_ref(), self.approved),
            Victim::Session => (self.session.as_ref().map(|session| &session.live), start),
        };
        let Some(live) = live.filter(|_| begin.elapsed() >= moment) else { return false };
        live.signal(Signal::SIGKILL);
        if victim == Victim::Session {
            self.session.take().unwrap().live.ends();
        }
        true
    }

    /// Waits for everybody's end but that of a session that still runs.
    fn settle(self, world: &World) -> Option<Session> {
        if let Some(approving) = self.approving {
            approving.ends();
        }
        // The approval was killed before it was given: the operator gives it again.
        let waits = || world.queued().iter().find_map(|name| name.strip_suffix(".json").map(str::to_owned));
        let mut asking = self.asking;
        while asking.runs() {
            if let Some(id) = waits() {
                world.approve(&id, &[]);
            }
        }
        if self.session.is_some() {
            eventually("an empty queue", || world.queued().is_empty().then_some(()));
        }
        self.session
    }
}

/// The serial of the certificate, where the host is wholly paired; nothing where it is not paired at all.
#[track_caller]
fn paired(world: &World) -> Option<String> {
    let places = files(world.agent());
    let there = places.iter().filter(|path| path.exists()).count();
    if there == 0 {
        return None;
    }
    assert_eq!(there, places.len(), "half a pairing");
    let [cert, key, ca, trust] = places;
    let credentials = Credentials::load(&cert, &key);
    Identity::load(&credentials.cert, &credentials.key).expect("certificate and key of one pairing");
    let ca = Certificate::from_pem_file(&std::fs::read_to_string(ca).unwrap()).unwrap();
    let anchor = TrustAnchor::new(ca).unwrap();
    chain::verify(credentials.certificate().der(), &anchor, Usage::Server, OffsetDateTime::now_utc()).unwrap();
    assert!(std::fs::read_to_string(trust).unwrap().contains(&world.site.dispatcher().serial()));
    Some(credentials.serial())
}

fn journal(world: &World) -> std::path::PathBuf {
    world.agent().root.join("etc/ctrl-exec-agent/agent.key.pairing")
}

/// What must hold after any kill.
#[track_caller]
fn check(world: &mut World) {
    if journal(world).exists() {
        // The agent completes what was killed while it was stored.
        world.site.agent_mut().start();
        world.site.agent_mut().stop();
        assert!(!journal(world).exists());
        assert!(paired(world).is_some());
    }
    let serial = paired(world);
    let listing = world.site.control(&["--json", "list-agents"]).exits(0);
    assert_eq!(listing.messages(), "", "every record can be read");
    if let Some(record) = listing.json().as_array().unwrap().first() {
        assert_eq!(record["cert_serial"].as_str(), serial.as_deref(), "registered is only who has stored it");
    }
    let requests = world.site.control(&["list-requests"]).exits(0);
    assert_eq!(requests.messages(), "");
}

/// Both sides forget each other.
fn forget(world: &World) {
    for path in files(world.agent()) {
        drop(std::fs::remove_file(path));
    }
    drop(std::fs::remove_file(world.site.record(&world.name)));
}

fn kill_at_every_moment(victim: Victim) {
    let mut world = world();
    let (session, whole) = attempt(&world, world.session(&[]), None);
    assert!(paired(&world).is_some());
    let mut session = session;
    for round in 0..ROUNDS {
        forget(&world);
        let usable = session.take().filter(|_| round % ATTEMPTS != 0);
        let open = usable.unwrap_or_else(|| world.session(&[]));
        (session, _) = attempt(&world, open, Some((victim, whole * round / (ROUNDS - 1))));
        check(&mut world);
    }
    // And the next attempt is one like any other.
    let open = world.session(&[]);
    forget(&world);
    world.pair(&open);
    assert_eq!(paired(&world).as_deref(), world.record()["cert_serial"].as_str());
    check(&mut world);
}

#[test]
fn a_host_whose_asking_command_is_killed_is_paired_or_is_not() {
    kill_at_every_moment(Victim::Asking);
}

#[test]
fn an_approval_that_is_killed_is_given_or_can_be_given_again() {
    kill_at_every_moment(Victim::Approving);
}

#[test]
fn a_session_that_is_killed_leaves_nothing_in_the_way_of_the_next() {
    kill_at_every_moment(Victim::Session);
}

#[test]
fn a_pairing_that_was_killed_while_it_was_stored_is_completed_by_the_agent_or_by_the_next_attempt() {
    for by_serving in [true, false] {
        let mut world = world();
        let session = world.session(&[]);
        world.pair(&session);
        let [cert, key, ca, trust] = files(world.agent());
        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        let stored = serde_json::json!({
            "cert": read(&cert), "key": read(&key), "ca": read(&ca),
            "trusted": [world.site.dispatcher().serial(), "control-1"],
        });
        // As a kill behind the second of the four files leaves it, over an older pairing's certificate.
        std::fs::write(journal(&world), stored.to_string()).unwrap();
        std::fs::write(&cert, "of an older pairing").unwrap();
        std::fs::remove_file(&trust).unwrap();
        if by_serving {
            world.site.agent_mut().start();
            let said = world.agent().stderr();
            assert!(
                said.contains("An earlier pairing was interrupted while it was stored; it is complete now."),
                "{said}"
            );
            assert_eq!(read(&cert), stored["cert"]);
        } else {
            let mut asking = world.ask(&session, &[]);
            let id = reqid(&mut asking);
            assert!(asking.err().contains("it is complete now") && read(&cert) == stored["cert"], "{}", asking.err());
            world.site.control(&["deny", &id]).exits(0);
            asking.ends().exits(1);
        }
        assert!(!journal(&world).exists());
        assert_eq!(paired(&world).as_deref(), world.record()["cert_serial"].as_str());
    }
}
