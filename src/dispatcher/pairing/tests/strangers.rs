//! Strangers, and what each may cost.

use super::*;
use crate::dispatcher::pairing::admission::UNOPENED;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_nonce_that_does_not_open_its_commitment_is_refused() {
    let world = World::new("");
    let open = world.open();
    let mut agent = Own::connect(&open).await;
    let csr = new_request(&key::generate().unwrap(), NAME);
    agent.hello(&csr, NAME).await;
    assert!(denied(agent.open_with([6; NONCE]).await).contains("commitment"));
    open.close().await;
    assert!(world.log.text().contains("ACTION=pair-reject AGENT=web.example IP=127.0.0.1 REASON=commitment"));
    assert!(world.site.queue.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_that_leaves_commitments_unopened_is_cut_off_for_the_session() {
    let world = World::new("pairing_rate_limit_disable = yes\n");
    let open = world.open();
    let csr = new_request(&key::generate().unwrap(), NAME);
    for _ in 0..UNOPENED {
        let mut agent = Own::connect(&open).await;
        assert!(matches!(agent.hello(&csr, NAME).await, DispatcherMessage::Challenge { .. }));
    }
    let mut agent = Own::connect(&open).await;
    assert!(denied(agent.hello(&csr, NAME).await).contains("too many pairing attempts"));
    open.close().await;
    assert!(world.log.text().contains("REASON=unopened-commitments"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_are_judged_before_they_are_queued() {
    let world = World::new("");
    let open = world.open();
    let csr = new_request(&key::generate().unwrap(), "other.example");
    let mut agent = Own::connect(&open).await;
    assert!(denied(agent.hello(&csr, NAME).await).contains("does not match the expected identity"));
    let mut agent = Own::connect(&open).await;
    agent.say(&AgentMessage::Stored).await;
    assert!(denied(agent.hear().await).contains("invalid request"));
    let mut agent = Own::connect(&open).await;
    agent.0.send(&[0x7f, 0xff, 0xff, 0xff]).await.unwrap();
    assert!(denied(agent.hear().await).contains("too large"));
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn strangers_who_are_silent_or_talk_nonsense_delay_nobody() {
    // Once is enough: whoever waits for a stranger waits for one every time, and a busy machine is slow now and then.
    for _ in 0..5 {
        if takes_less_than_any_strangers_deadline().await {
            return;
        }
    }
    panic!("an agent has to wait for strangers");
}

async fn takes_less_than_any_strangers_deadline() -> bool {
    let world = World::new("");
    let mut open = world.open();
    let _silent = TcpStream::connect(open.address).await.unwrap();
    let mut nonsense = TcpStream::connect(open.address).await.unwrap();
    nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = nonsense.read_to_end(&mut rest).await;
    let _half = open.tls(true).await;
    let started = std::time::Instant::now();
    let _agent = Own::pending(&open).await;
    open.queued().await;
    let is_quick = started.elapsed() < Duration::from_secs(8);
    open.close().await;
    assert!(world.log.text().contains("REASON=handshake"));
    is_quick
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_and_a_hasty_address_are_told_or_dropped() {
    let world = World::new("pairing_max_queue = 1\npairing_rate_limit_volume = 3/60/300\n");
    let mut open = world.open();
    let _first = Own::pending(&open).await;
    open.queued().await;
    let mut second = Own::connect(&open).await;
    let csr = new_request(&key::generate().unwrap(), NAME);
    second.hello(&csr, NAME).await;
    assert_eq!(denied(second.open_with([5; NONCE]).await), "pairing queue full");
    let _third = open.tls(true).await;
    let mut fourth = TcpStream::connect(open.address).await.unwrap();
    assert_eq!(fourth.read(&mut [0]).await.unwrap_or(0), 0, "closed without a word");
    open.close().await;
    let log = world.log.text();
    assert!(
        log.contains("REASON=queue-full") && log.contains("ACTION=rate-block PEER=127.0.0.1 REASON=volume"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn silent_connections_never_keep_an_agent_from_pairing() {
    let world = World::new("pairing_rate_limit_disable = yes\n");
    let mut open = world.open();
    let mut silent = Vec::new();
    for address in 0..20_u8 {
        for _ in 0..4 {
            silent.push(open.tcp_from([127, 0, 3, address]).await);
        }
    }
    let _agent = Own::pending(&open).await;
    open.queued().await;
    open.close().await;
    assert!(world.log.text().contains("ACTION=pair-reject IP=127.0.3.0 REASON=too-many-connections"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refusal_of_what_is_too_large_is_never_lost_in_a_reset() {
    let world = World::new("pairing_original = yes\npairing_rate_limit_disable = yes\n");
    let open = world.open();
    let waste = vec![b' '; 1 << 20];
    for _ in 0..5 {
        let mut agent = Own::connect(&open).await;
        agent.0.send(&[&[0, 16, 0, 0], &waste[..]].concat()).await.unwrap();
        assert!(denied(agent.hear().await).contains("too large"));
        let mut agent = Exchange::new(open.tls(false).await);
        let head = format!("POST /pair HTTP/1.0\r\nContent-Length: {}\r\n\r\n", waste.len());
        agent.send(&[head.as_bytes(), &waste].concat()).await.unwrap();
        assert_eq!(answer(&mut agent).await.reason.as_deref(), Some("request too large"));
    }
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_oldest_of_four_connections_gives_way_and_a_waiting_request_needs_no_place() {
    let world = World::new("pairing_rate_limit_disable = yes\n");
    let mut open = world.open();
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(Own::pending(&open).await);
        open.queued().await;
    }
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(open.tls(true).await);
    }
    let _fifth = open.tls(true).await;
    let mut first = Exchange::new(idle.remove(0));
    let last: DispatcherMessage = frame::decode(&first.frame(PAIRING_BODY).await.unwrap()).unwrap();
    assert_eq!(denied(last), "too many connections at once");
    for request in waiting.drain(..) {
        drop(request);
        assert!(matches!(open.notices.recv().await.unwrap(), Notice::Gone(..)), "it was still waiting");
    }
    open.close().await;
    assert!(world.log.text().contains("REASON=too-many-connections"));
}

/// Whether somebody waits for the lock on this file, as the kernel sees it (proc(5), `/proc/locks`).
fn is_waited_for(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&inode))
}

#[test]
fn a_request_that_is_given_up_while_it_is_being_queued_leaves_nothing_in_the_queue() {
    let world = World::new("");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let held = runtime.block_on(async {
        let open = world.open();
        let mut agent = Own::connect(&open).await;
        let csr = new_request(&key::generate().unwrap(), NAME);
        agent.hello(&csr, NAME).await;
        let path = world.site.settings.pairing_dir().join(".queue.lock");
        let held = file::lock_exclusive(&path, 0o660).unwrap();
        agent.say(&AgentMessage::Open { nonce: hex::encode(&[5; NONCE]) }).await;
        while !is_waited_for(&path) {
            tokio::task::yield_now().await;
        }
        // The session gives up the exchange; the work on the queue cannot be interrupted.
        open.close().await;
        held
    });
    drop(held);
    // Waits for that work.
    drop(runtime);
    assert!(world.site.queue.list().unwrap().is_empty());
}
