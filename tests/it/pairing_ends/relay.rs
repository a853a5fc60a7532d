//! A relay between the two ends.

use super::*;

fn to_frame<T: serde::Serialize>(message: &T) -> Vec<u8> {
    frame::encode(message, PAIRING_BODY).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relay_that_forwards_every_frame_gets_nowhere() {
    let world = World::new("");
    let open = world.open();
    let places = world.places();
    let relay = Relay::new().await;
    let agent = Agent::start(&places, relay.port);
    let (mut victim, mut real) = relay.both(open.port).await;
    let forward = |body: Vec<u8>| {
        let mut framed = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        framed.extend(body);
        framed
    };
    let hello = victim.frame(PAIRING_BODY).await.unwrap();
    real.send(&forward(hello)).await.unwrap();
    let challenge = real.frame(PAIRING_BODY).await.unwrap();
    victim.send(&forward(challenge)).await.unwrap();
    // The agent sees that the certificate on its connection is not one of the CA in the challenge.
    let error = agent.result.await.unwrap().unwrap_err();
    assert!(matches!(error, PairFailure::Unsound(_)), "{error}");
    assert!(files(&places).is_empty());
    // And had it opened its commitment, that would not have been one for this connection.
    real.send(&to_frame(&AgentMessage::Open { nonce: hex::encode(&[1; NONCE]) })).await.unwrap();
    let answer: DispatcherMessage = frame::decode(&real.frame(PAIRING_BODY).await.unwrap()).unwrap();
    assert!(matches!(answer, DispatcherMessage::Denied { reason } if reason.contains("commitment")));
    assert!(world.site.queue.list().unwrap().is_empty());
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relay_with_its_own_nonces_request_and_ca_makes_two_codes_that_differ() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    let relay = Relay::new().await;
    let agent = Agent::start(&places, relay.port);
    let (mut victim, mut real) = relay.both(open.port).await;

    // Towards the dispatcher: an agent of the victim's name, with the relay's key.
    let key = key::generate().unwrap();
    let request = csr::make(&key, &AgentName::parse(NAME).unwrap()).unwrap();
    let exporter = tls_peer::exporter(real.stream().get_ref().1, EXPORTER_LABEL, &[]).unwrap();
    let hello: AgentMessage = frame::decode(&victim.frame(PAIRING_BODY).await.unwrap()).unwrap();
    let AgentMessage::Hello { applicant: mut posing, .. } = hello else { panic!("{hello:?}") };
    let victims_request = std::mem::replace(&mut posing.csr, request.clone());
    let commitment = hex::encode(&code::commitment(&exporter, &request, &[1; NONCE]));
    real.send(&to_frame(&AgentMessage::Hello { applicant: posing, commitment })).await.unwrap();
    let challenge: DispatcherMessage = frame::decode(&real.frame(PAIRING_BODY).await.unwrap()).unwrap();
    let DispatcherMessage::Challenge { nonce: theirs, ca: real_ca } = challenge else { panic!("{challenge:?}") };
    real.send(&to_frame(&AgentMessage::Open { nonce: hex::encode(&[1; NONCE]) })).await.unwrap();

    // Towards the agent: a dispatcher whose CA did sign what it shows.
    let mine = DispatcherMessage::Challenge { nonce: theirs.clone(), ca: relay.ca.certificate().to_pem() };
    victim.send(&to_frame(&mine)).await.unwrap();
    let opened: AgentMessage = frame::decode(&victim.frame(PAIRING_BODY).await.unwrap()).unwrap();
    assert!(matches!(opened, AgentMessage::Open { .. }));
    victim.send(&to_frame(&DispatcherMessage::Pending { reqid: "0123456789abcdef".into() })).await.unwrap();

    let at_dispatcher = open.queued().await;
    let at_agent = agent.shown_code();
    assert_ne!(at_agent, at_dispatcher.code, "the operators see that somebody is between them");
    // What the relay could show to make them equal, it would have to find among ten million.
    let real_ca = Certificate::from_pem(&real_ca).unwrap();
    let transcript = Transcript {
        exporter: &exporter,
        agent_nonce: &[1; NONCE],
        dispatcher_nonce: &hex::decode(&theirs).unwrap(),
        csr: &victims_request,
        dispatcher_key: &world.site.certificate().unwrap().public_key().sha256(),
        ca: real_ca.der(),
    };
    assert_ne!(transcript.code(), at_agent);

    // The relay approves itself, as it would. The operator says no, and nothing is stored.
    let checked = csr::check(&victims_request, ExpectedName::Any).unwrap();
    let forged = relay.ca.sign_agent(&checked, &serial::fresh().unwrap(), 30, OffsetDateTime::now_utc()).unwrap();
    let approved = DispatcherMessage::Approved {
        cert: forged.to_pem(),
        dispatcher_serial: relay.identity.certificate().serial().to_string(),
        dispatcher_id: "hq".into(),
    };
    victim.send(&to_frame(&approved)).await.unwrap();
    agent.say.send(false).unwrap();
    assert!(matches!(agent.result.await.unwrap(), Err(PairFailure::CodeRefused)));
    let last: AgentMessage = frame::decode(&victim.frame(PAIRING_BODY).await.unwrap()).unwrap();
    assert!(matches!(last, AgentMessage::Refused { .. }));
    assert!(files(&places).is_empty());
    open.close().await;
}
