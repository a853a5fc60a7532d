//! Dispatchers of the original.

use super::*;
use crate::agent::pairing::judge;

/// The first request, the two answers in one go, as the original sends them.
async fn original(
    dispatcher: &Dispatcher,
    second: impl FnOnce(&OriginalRequest) -> OriginalAnswer,
) -> (OriginalRequest, Talk) {
    let mut talk = dispatcher.accept(false).await;
    let request = OriginalRequest::parse(&talk.http_body(PAIRING_BODY).await.unwrap()).unwrap();
    let first = OriginalAnswer { status: "pending".into(), reqid: Some(REQID.into()), ..OriginalAnswer::default() };
    for answer in [first, second(&request)] {
        let body = serde_json::to_string(&answer).unwrap();
        let head =
            format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        talk.send(head.as_bytes()).await.unwrap();
        talk.send(body.as_bytes()).await.unwrap();
    }
    (request, talk)
}

fn original_approval(dispatcher: &Dispatcher, request: &OriginalRequest) -> OriginalAnswer {
    OriginalAnswer {
        status: "approved".into(),
        cert: Some(signed(&dispatcher.ca, &checked(&request.applicant.csr))),
        ca: Some(dispatcher.ca.certificate().to_pem()),
        nonce: Some(request.nonce.clone()),
        dispatcher_serial: Some(dispatcher.serial()),
        dispatcher_id: Some("old-hq".into()),
        ..OriginalAnswer::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_of_the_original_is_refused_unless_it_was_asked_for() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, steps) = start(&host, request(dispatcher.port(), false, Confirm::No));
    let mut talk = dispatcher.accept(false).await;
    let failure = pairing.await.unwrap().unwrap_err();
    assert!(failure.to_string().contains("--original-pairing") && failure.to_string().contains("protects neither end"));
    assert!(talk.http_body(PAIRING_BODY).await.is_err(), "not a word was said");
    assert!(!steps.lock().unwrap().contains(&Progress::Generating) && host.has_nothing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_dispatcher_of_the_original_an_rsa_key_is_made_and_its_code_shown() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, steps) = start(&host, request(dispatcher.port(), true, Confirm::No));
    let (request, _talk) = original(&dispatcher, |request| original_approval(&dispatcher, request)).await;
    let paired = pairing.await.unwrap().unwrap();
    assert!(paired.original && !paired.registered);
    assert_eq!(paired.dispatcher.unwrap().as_str(), "old-hq");
    assert!(matches!(checked(&request.applicant.csr).public_key().kind(), KeyKind::Rsa(bits) if bits >= 2048));
    assert_eq!((request.nonce.len(), request.applicant.port), (32, Some(7443)));
    assert_eq!(request.applicant.ip, "127.0.0.1".parse().ok());
    let code = Progress::Code(code::original(&request.applicant.csr), true);
    assert!(steps.lock().unwrap().contains(&code));
    let read = |path| std::fs::read_to_string(path).unwrap();
    Identity::load(&read(&host.places.cert), &read(&host.places.key)).unwrap();
    assert!(read(&host.places.trust).contains(&format!("{} old-hq\n", dispatcher.serial())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_original_answer_is_judged_like_any_other() {
    type Spoil = fn(&mut OriginalAnswer);
    let cases: [(Spoil, &str); 6] = [
        (|answer| answer.nonce = Some("00".into()), "nonce mismatch"),
        (|answer| answer.dispatcher_serial = Some("abc".into()), "is not that of the certificate"),
        (|answer| answer.ca = Some(new_ca().certificate().to_pem()), "does not verify"),
        (|answer| answer.cert = None, "cannot be read"),
        (|answer| answer.ca = Some("x".into()), "cannot be read"),
        (
            |answer| {
                *answer = OriginalAnswer { status: "denied".into(), ..OriginalAnswer::error("rejected by operator") }
            },
            "rejected by operator",
        ),
    ];
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    for (spoil, expected) in cases {
        let (pairing, _) = start(&host, request(dispatcher.port(), true, Confirm::No));
        let answered = original(&dispatcher, |request| {
            let mut answer = original_approval(&dispatcher, request);
            spoil(&mut answer);
            answer
        });
        let (_, _talk) = answered.await;
        let text = pairing.await.unwrap().unwrap_err().describe();
        assert!(text.contains(expected), "{text}, expected {expected}");
        assert!(host.has_nothing());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_serial_the_trust_map_is_left_alone_and_the_operator_warned() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, steps) = start(&host, request(dispatcher.port(), true, Confirm::No));
    let (_, _talk) = original(&dispatcher, |request| OriginalAnswer {
        dispatcher_serial: Some(String::new()),
        ..original_approval(&dispatcher, request)
    })
    .await;
    assert_eq!(pairing.await.unwrap().unwrap().serial, None);
    assert!(host.places.cert.exists() && !host.places.trust.exists());
    assert!(
        steps.lock().unwrap().iter().any(|step| matches!(step, Progress::Warning(text) if text.contains("serial")))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_originals_error_and_a_port_that_is_none_are_told_in_plain_words() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, _) = start(&host, request(dispatcher.port(), true, Confirm::No));
    let mut talk = dispatcher.accept(false).await;
    talk.http_body(PAIRING_BODY).await.unwrap();
    let body = r#"{"status":"error","reason":"pairing queue full"}"#;
    talk.send(format!("HTTP/1.0 200 OK\nContent-Length: {}\n\n{body}", body.len()).as_bytes()).await.unwrap();
    assert!(pairing.await.unwrap().unwrap_err().to_string().contains("pairing queue full"));

    let (pairing, _) = start(&host, request(dispatcher.port(), true, Confirm::No));
    drop(dispatcher.listener.accept().await.unwrap());
    let text = pairing.await.unwrap().unwrap_err().to_string();
    assert!(text.contains("it is not responding as a pairing listener"), "{text}");
    let port = dispatcher.port();
    drop(dispatcher);
    let (pairing, _) = start(&host, request(port, true, Confirm::No));
    let text = pairing.await.unwrap().unwrap_err().to_string();
    assert!(text.contains(&format!("cannot reach ctrl-exec at 127.0.0.1:{port}")), "{text}");
    assert!(host.has_nothing());
}

/// An RSA CA with a version-1 leaf whose serial has digits alone: the original sends such a serial read as decimal.
#[test]
fn an_originals_certificates_and_its_reading_of_its_serial_are_understood() {
    let openssl = Openssl::new();
    openssl.original_ca(2048);
    openssl.run("genrsa -out d.key 2048");
    openssl.run("req -new -key d.key -out d.csr -subj '/CN=ctrl-exec-dispatcher'");
    openssl.run("x509 -req -in d.csr -CA ca.crt -CAkey ca.key -set_serial 0x16 -days 30 -out d.crt");
    let key = key::generate_rsa().unwrap();
    openssl.write("a.csr", &csr::make(&key, &AgentName::parse(NAME).unwrap()).unwrap());
    openssl.run("x509 -req -in a.csr -CA ca.crt -CAkey ca.key -set_serial 0x17 -days 30 -out a.crt");
    let shown = crate::pki::cert::Certificate::from_pem_file(&openssl.read("d.crt")).unwrap();
    let ca = crate::pki::chain::TrustAnchor::from_pem_file(&openssl.read("ca.crt")).unwrap();
    let judged = |serial: &str| {
        let answer = judge::Answer {
            cert: &openssl.read("a.crt"),
            ca: &ca,
            shown: &shown,
            dispatcher_serial: serial,
            dispatcher_id: "",
        };
        judge::judge(&answer, key.public(), &AgentName::parse(NAME).unwrap(), now())
    };
    for sent in ["16", "10"] {
        let sound = judged(sent).unwrap();
        let (serial, id) = sound.trusted().unwrap();
        assert_eq!((serial.as_str(), id.as_str()), ("16", sent), "the serial that was seen is trusted");
    }
    assert!(matches!(judged("17"), Err(Unsound::OtherSerial { .. })));
}
