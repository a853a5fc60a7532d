//! Agents of the original.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_of_the_original_is_paired_only_where_the_operator_said_so() {
    let csr = new_request(&key::generate_rsa().unwrap(), NAME);
    let closed = World::new("");
    let open = closed.open();
    let mut agent = Exchange::new(open.tls(false).await);
    agent.send(&post(&original_body(&csr, NAME))).await.unwrap();
    let refused = answer(&mut agent).await;
    assert_eq!(refused.status, "error");
    assert!(refused.reason.unwrap().contains("pairing-mode --original"));
    open.close().await;
    assert!(closed.log.text().contains("ACTION=pair-reject IP=127.0.0.1 REASON=original-form"));

    let world = World::new("pairing_original = yes\n");
    let mut open = world.open();
    // The original's agent looks first whether anybody is there.
    drop(TcpStream::connect(open.address).await.unwrap());
    let mut agent = Exchange::new(open.tls(false).await);
    agent.send(&post(&original_body(&csr, NAME))).await.unwrap();
    let pending = answer(&mut agent).await;
    let request = open.queued().await;
    assert_eq!((pending.status.as_str(), pending.reqid.unwrap()), ("pending", request.id.to_string()));
    assert_eq!((request.form, request.code.clone()), (Form::Original, code::original(&csr)));
    let taken = tokio::spawn(async move { answer(&mut agent).await });
    let (_, delivery) = approve(&world.site, &request).await;
    let Delivery::Registered(record) = delivery else { panic!("{delivery:?}") };
    assert_eq!((record.ip.as_str(), record.port), ("10.1.2.3", 7450));
    let approved = taken.await.unwrap();
    assert_eq!(approved.status, "approved");
    assert_eq!(approved.nonce.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(approved.dispatcher_serial.unwrap(), world.site.certificate().unwrap().serial().to_string());
    assert!(approved.cert.unwrap().ends_with("-----END CERTIFICATE-----\n"));
    assert!(approved.ca.is_some() && approved.dispatcher_id.is_some());
    open.close().await;
    let log = world.log.text();
    assert!(
        log.contains("ACTION=pair-request AGENT=web.example FORM=original IP=127.0.0.1 REPORTED_IP=10.1.2.3"),
        "{log}"
    );
    assert!(!log.contains("pair-reject"), "a look at the port is not worth a word: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_original_refuses_is_refused_in_its_words() {
    let world = World::new("pairing_original = yes\npairing_rate_limit_disable = yes\n");
    let open = world.open();
    let csr = new_request(&key::generate().unwrap(), NAME);
    let too_large = format!("POST /pair HTTP/1.0\r\nContent-Length: {}\r\n\r\n", PAIRING_BODY + 1).into_bytes();
    for (message, reason) in [
        (too_large, "request too large"),
        (post("{}"), "invalid request"),
        (post("not json"), "invalid request"),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "invalid request"),
        (b"a: b\n".repeat(200), "invalid request"),
        (post(&original_body(&csr, "../x")), "invalid hostname"),
        (post(&original_body("-----BEGIN", NAME)), "Invalid CSR format"),
        (post(&original_body(&csr, "other.example")), "CSR subject CN does not match"),
    ] {
        let mut agent = Exchange::new(open.tls(false).await);
        agent.send(&message).await.unwrap();
        let refused = answer(&mut agent).await;
        assert_eq!(refused.status, "error");
        assert!(refused.reason.as_deref().unwrap().starts_with(reason), "{refused:?}, expected {reason}");
    }
    assert!(world.site.queue.list().unwrap().is_empty());
    open.close().await;
    for reason in ["body-too-large", "invalid-request", "invalid-hostname", "csr"] {
        assert!(world.log.text().contains(&format!("REASON={reason}")), "{reason}");
    }
}
