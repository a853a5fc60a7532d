//! Real handshakes: between our own ends in memory, and with the openssl program over loopback.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, Error, ProtocolVersion, ServerConfig, ServerConnection,
};
use time::Duration;

use super::identity::{Identity, IdentityError, IdentitySlot};
use super::testing::{agent_server, issue, new_ca, now, own};
use super::*;
use crate::pki::chain::TrustAnchor;
use crate::pki::key;
use crate::pki::testing::Openssl;

/// The original's site: RSA-4096 CA, RSA-2048 version-1 leaves; one key in PKCS#1, one in PKCS#8.
fn original_site() -> (Openssl, TrustAnchor) {
    let openssl = Openssl::new();
    openssl.original_ca(4096);
    openssl.original_leaf("agent", true);
    openssl.original_leaf("dispatcher", false);
    let ca = TrustAnchor::from_pem_file(&openssl.read("ca.crt")).unwrap();
    (openssl, ca)
}

fn original(openssl: &Openssl, name: &str) -> Arc<IdentitySlot> {
    let read = |kind: &str| openssl.read(&format!("{name}.{kind}"));
    IdentitySlot::new(Identity::load(&read("crt"), &read("key")).unwrap())
}

/// Moves what one side has to say to the other.
fn carry<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
    }
    !bytes.is_empty()
}

/// What each side thinks of the handshake once neither has anything more to say.
struct Met {
    client: ClientConnection,
    server: ServerConnection,
    client_said: Result<(), Error>,
    server_said: Result<(), Error>,
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Met {
    let mut met = Met {
        client: ClientConnection::new(client, any_name()).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_said: Ok(()),
        server_said: Ok(()),
    };
    while carry(&mut met.client, &mut met.server) {
        met.server_said = met.server_said.and(met.server.process_new_packets().map(drop));
        if carry(&mut met.server, &mut met.client) {
            met.client_said = met.client_said.and(met.client.process_new_packets().map(drop));
        }
    }
    met
}

impl Met {
    fn finished(self) -> Self {
        self.client_said.clone().unwrap();
        self.server_said.clone().unwrap();
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        self
    }
}

fn tls12_only(config: &ClientConfig) -> Arc<ClientConfig> {
    // The versions of a finished configuration are fixed: the same parts again, for TLS 1.2.
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS12]);
    let builder = builder.unwrap().dangerous();
    let mut old = builder
        .with_custom_certificate_verifier(verify::AnyCertificate::new())
        .with_client_cert_resolver(Arc::clone(&config.client_auth_cert_resolver));
    old.alpn_protocols.clone_from(&config.alpn_protocols);
    Arc::new(old)
}

#[test]
fn our_two_ends_meet_with_the_post_quantum_exchange_and_know_each_other() {
    let ca = new_ca(now());
    let server = agent_server(own(&ca, "agent-1"), ca.anchor());
    let met = meet(dispatcher_client(own(&ca, "dispatcher-1"), ca.anchor()).unwrap(), server).finished();
    assert_eq!(met.client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(met.client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(met.server.alpn_protocol(), Some(HTTP_2));
    assert_eq!(met.server.server_name(), None, "no SNI");
    assert_eq!(peer::certificate(&met.client).unwrap().common_name(), Some("agent-1"));
    assert_eq!(peer::certificate(&met.server).unwrap().common_name(), Some("dispatcher-1"));
}

#[test]
fn version_1_leaves_of_the_original_meet_on_both_ends() {
    let (openssl, ca) = original_site();
    let server = agent_server(original(&openssl, "agent"), &ca);
    let client = dispatcher_client(original(&openssl, "dispatcher"), &ca).unwrap();
    let met = meet(Arc::clone(&client), Arc::clone(&server)).finished();
    assert_eq!(peer::certificate(&met.server).unwrap().version(), 1);
    assert_eq!(met.client.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    let met = meet(tls12_only(&client), server).finished();
    assert_eq!(met.server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let ca = new_ca(now());
    let server = agent_server(own(&ca, "agent"), ca.anchor());
    let met = meet(pairing_client(PairingPeers::Own).unwrap(), Arc::clone(&server));
    assert!(met.server_said.is_err(), "ALPN alone already parts them");
    let mut nobody = (*pairing_client(PairingPeers::OwnAndOriginal).unwrap()).clone();
    nobody.alpn_protocols.clear();
    let met = meet(Arc::new(nobody), server);
    let error = met.server_said.unwrap_err();
    assert_eq!(error, Error::NoCertificatesPresented);
    assert!(explain(&error).contains("showed no certificate"));
    assert!(explain(&met.client_said.unwrap_err()).contains("demands a client certificate"));
}

#[test]
fn certificates_of_another_ca_of_the_same_name_are_refused_on_both_ends() {
    let (ours, theirs) = (new_ca(now()), new_ca(now()));
    let met = meet(
        dispatcher_client(own(&theirs, "stranger"), ours.anchor()).unwrap(),
        agent_server(own(&ours, "agent"), ours.anchor()),
    );
    assert!(explain(&met.server_said.unwrap_err()).contains("not signed by this CA"));
    assert!(explain(&met.client_said.unwrap_err()).contains("trusts another CA"));
    let met = meet(
        dispatcher_client(own(&ours, "dispatcher"), ours.anchor()).unwrap(),
        agent_server(own(&theirs, "stranger"), ours.anchor()),
    );
    assert!(explain(&met.client_said.unwrap_err()).contains("not signed by this CA"));
}

#[test]
fn expired_and_future_certificates_are_refused_with_their_dates() {
    let ca = new_ca(now() - Duration::days(100));
    let server = agent_server(own(&ca, "agent"), ca.anchor());
    let key = key::generate().unwrap();
    for (at, text) in [(now() - Duration::days(60), "it expired on "), (now() + Duration::days(2), "it is valid from ")]
    {
        let late = IdentitySlot::new(issue(&ca, "late", &key, at));
        let met = meet(dispatcher_client(late, ca.anchor()).unwrap(), Arc::clone(&server));
        let said = explain(&met.server_said.unwrap_err());
        assert!(said.contains(text) && said.contains(" GMT"), "{said}");
        assert!(explain(&met.client_said.unwrap_err()).contains("expired or not yet valid"));
    }
}

#[test]
fn a_certificate_that_no_alert_describes_is_refused_in_its_own_words() {
    let (openssl, ca) = original_site();
    openssl.run("x509 -req -sha1 -in agent.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out weak.crt");
    let weak = Identity::load(&openssl.read("weak.crt"), &openssl.read("agent.key")).unwrap();
    let client = dispatcher_client(IdentitySlot::new(weak), &ca).unwrap();
    let server = agent_server(original(&openssl, "agent"), &ca);
    let said = explain(&meet(client, server).server_said.unwrap_err());
    assert!(said.contains("sha1WithRSAEncryption is too weak"), "{said}");
}

#[test]
fn a_replaced_identity_is_shown_in_the_next_handshake() {
    let ca = new_ca(now());
    let slot = own(&ca, "before");
    let server = agent_server(Arc::clone(&slot), ca.anchor());
    let client = dispatcher_client(own(&ca, "dispatcher"), ca.anchor()).unwrap();
    let shown = |met: Met| peer::certificate(&met.finished().client).unwrap().common_name().unwrap().to_owned();
    assert_eq!(shown(meet(Arc::clone(&client), Arc::clone(&server))), "before");
    slot.replace(issue(&ca, "after", &key::generate().unwrap(), now()));
    assert_eq!(shown(meet(client, server)), "after");
}

#[test]
fn a_client_without_a_store_resumes_no_session() {
    let ca = new_ca(now());
    let server = agent_server(own(&ca, "agent"), ca.anchor());
    let client = dispatcher_client(own(&ca, "dispatcher"), ca.anchor()).unwrap();
    for _ in 0..3 {
        let met = meet(Arc::clone(&client), Arc::clone(&server)).finished();
        assert_eq!(met.server.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn a_pairing_of_our_own_is_known_and_bound_to_its_channel() {
    let ca = new_ca(now());
    let server = pairing_server(own(&ca, "dispatcher"), PairingPeers::OwnAndOriginal).unwrap();
    let client = pairing_client(PairingPeers::Own).unwrap();
    let (one, other) = (meet(Arc::clone(&client), Arc::clone(&server)).finished(), meet(client, server).finished());
    assert!(peer::is_own_pairing(&one.client) && peer::is_own_pairing(&one.server));
    assert_eq!(peer::certificate(&one.client).unwrap().common_name(), Some("dispatcher"));
    let derive = |connection: &ClientConnection, context: &[u8]| peer::exporter(connection, "EXPORTER-test", context);
    let secret = derive(&one.client, b"csr").unwrap();
    assert_eq!(secret, peer::exporter(&one.server, "EXPORTER-test", b"csr").unwrap());
    assert_ne!(secret, derive(&one.client, b"other").unwrap());
    assert_ne!(secret, derive(&other.client, b"csr").unwrap());
}

#[test]
fn a_pairing_with_the_original_is_told_apart_and_binds_nothing() {
    let ca = new_ca(now());
    let server = pairing_server(own(&ca, "dispatcher"), PairingPeers::OwnAndOriginal).unwrap();
    let mut theirs = (*pairing_client(PairingPeers::OwnAndOriginal).unwrap()).clone();
    theirs.alpn_protocols.clear();
    let met = meet(Arc::new(theirs), Arc::clone(&server)).finished();
    assert_eq!(met.server.alpn_protocol(), None);
    assert!(!peer::is_own_pairing(&met.server));
    assert!(matches!(peer::certificate(&met.server), Err(peer::PeerError::Nobody)));
    let old = tls12_only(&pairing_client(PairingPeers::OwnAndOriginal).unwrap());
    let met = meet(Arc::clone(&old), server).finished();
    assert!(!peer::is_own_pairing(&met.server), "our ALPN over TLS 1.2 is no pairing of our own");
    assert!(matches!(peer::exporter(&met.server, "EXPORTER-test", b""), Err(peer::PeerError::NotTls13)));
    let strict = pairing_server(own(&ca, "dispatcher"), PairingPeers::Own).unwrap();
    assert!(meet(old, strict).server_said.is_err());
}

#[test]
fn an_identity_of_two_halves_is_refused() {
    let ca = new_ca(now());
    let one = own(&ca, "one").current();
    let other = key::generate().unwrap();
    let loaded = Identity::load(&one.certificate().to_pem(), &other.to_pem());
    assert!(matches!(loaded, Err(IdentityError::Mismatch)));
    assert!(matches!(Identity::load("", &other.to_pem()), Err(IdentityError::Pem(_))));
    assert!(matches!(Identity::load(&one.certificate().to_pem(), ""), Err(IdentityError::Key(_))));
}

/// A child of a test that does not outlive it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves one `openssl s_client` with these options; gives back our verdict and all that it printed.
fn serve_openssl(openssl: &Openssl, config: Arc<ServerConfig>, options: &str) -> (Result<Met1, String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let mut command = openssl.command(&format!("s_client -connect {to} -CAfile ca.crt -verify_return_error {options}"));
    let mut child =
        Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    let mut server = ServerConnection::new(config).unwrap();
    let mut done = Ok(());
    while done.is_ok() && (server.is_handshaking() || server.wants_write()) {
        done = server.complete_io(&mut stream).map(drop);
    }
    let verdict = done.map_err(|error| explain_io(&error)).map(|()| {
        server.writer().write_all(b"hello from rustls\n").unwrap();
        server.send_close_notify();
        while server.wants_write() {
            server.write_tls(&mut stream).unwrap();
        }
        let certificate = peer::certificate(&server).ok();
        Met1 { version: server.protocol_version(), name: certificate.and_then(|c| c.common_name().map(str::to_owned)) }
    });
    drop(stream);
    let mut said = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (verdict, said)
}

struct Met1 {
    version: Option<ProtocolVersion>,
    name: Option<String>,
}

#[test]
fn openssl_clients_of_the_original_are_served() {
    let (openssl, ca) = original_site();
    let config = agent_server(original(&openssl, "agent"), &ca);
    for (option, version) in [("-tls1_3", ProtocolVersion::TLSv1_3), ("-tls1_2", ProtocolVersion::TLSv1_2)] {
        let options = format!("{option} -cert dispatcher.crt -key dispatcher.key");
        let (verdict, said) = serve_openssl(&openssl, Arc::clone(&config), &options);
        let met = verdict.unwrap();
        assert_eq!((met.version, met.name.as_deref()), (Some(version), Some("dispatcher")));
        assert!(said.contains("hello from rustls") && said.contains("Verify return code: 0"), "{said}");
        assert!(said.contains("CN = ctrl-exec CA"), "the CA is hinted at: {said}");
    }
}

#[test]
fn openssl_clients_without_a_certificate_or_with_weak_suites_are_refused() {
    let (openssl, ca) = original_site();
    let config = agent_server(original(&openssl, "agent"), &ca);
    for options in ["-tls1_3", "-tls1_2"] {
        assert!(serve_openssl(&openssl, Arc::clone(&config), options).0.is_err(), "{options}");
    }
    for cipher in
        ["ECDHE-RSA-CHACHA20-POLY1305", "AES256-GCM-SHA384", "DHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-SHA384"]
    {
        let options = format!("-tls1_2 -cipher {cipher} -cert dispatcher.crt -key dispatcher.key");
        let refused = serve_openssl(&openssl, Arc::clone(&config), &options).0;
        assert!(refused.is_err_and(|said| said.contains("in common")), "{cipher}");
    }
}

/// Calls one `openssl s_server` with these options.
fn call_openssl(openssl: &Openssl, config: Arc<ClientConfig>, options: &str) -> Result<ClientConnection, String> {
    let mut command = openssl.command(&format!("s_server -accept 127.0.0.1:0 -naccept 1 {options}"));
    let mut child =
        Process(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find(|line| line.starts_with("ACCEPT ")).unwrap();
    let mut stream = TcpStream::connect(ready.trim_start_matches("ACCEPT ")).unwrap();
    let mut client = ClientConnection::new(config, any_name()).unwrap();
    while client.is_handshaking() || client.wants_write() {
        client.complete_io(&mut stream).map_err(|error| explain_io(&error))?;
    }
    client.send_close_notify();
    client.complete_io(&mut stream).map_err(|error| explain_io(&error))?;
    drop(stream);
    Ok(client)
}

#[test]
fn openssl_servers_of_the_original_are_called() {
    let (openssl, ca) = original_site();
    let config = dispatcher_client(original(&openssl, "dispatcher"), &ca).unwrap();
    for (option, version) in [("-tls1_3", ProtocolVersion::TLSv1_3), ("-tls1_2", ProtocolVersion::TLSv1_2)] {
        let options = format!("{option} -cert agent.crt -key agent.key -CAfile ca.crt -Verify 1 -verify_return_error");
        let client = call_openssl(&openssl, Arc::clone(&config), &options).unwrap();
        assert_eq!(client.protocol_version(), Some(version));
        assert_eq!(peer::certificate(&client).unwrap().common_name(), Some("agent"));
    }
}

#[test]
fn our_certificates_satisfy_openssl_on_either_end_and_in_every_curve() {
    let ca = new_ca(now());
    let openssl = Openssl::new();
    openssl.write("ca.crt", &ca.certificate().to_pem());
    let key = key::generate().unwrap();
    openssl.write("peer.crt", &issue(&ca, "peer", &key, now()).certificate().to_pem());
    openssl.write("peer.key", &key.to_pem());
    let server = agent_server(own(&ca, "agent"), ca.anchor());
    let client = dispatcher_client(own(&ca, "dispatcher"), ca.anchor()).unwrap();
    for option in ["-tls1_3", "-tls1_2", "-tls1_3 -groups P-384", "-tls1_2 -groups P-256"] {
        let (verdict, said) =
            serve_openssl(&openssl, Arc::clone(&server), &format!("{option} -cert peer.crt -key peer.key"));
        assert_eq!(verdict.unwrap().name.as_deref(), Some("peer"), "{option}");
        assert!(said.contains("Verify return code: 0"), "{said}");
        let options = format!("{option} -cert peer.crt -key peer.key -CAfile ca.crt -Verify 1 -verify_return_error");
        call_openssl(&openssl, Arc::clone(&client), &options).unwrap();
    }
}

#[test]
fn a_server_that_does_not_speak_tls_is_called_what_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    listener.accept().unwrap().0.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").unwrap();
    let config = pairing_client(PairingPeers::Own).unwrap();
    let mut client = ClientConnection::new(config, any_name()).unwrap();
    let error = loop {
        if let Err(error) = client.complete_io(&mut stream) {
            break error;
        }
    };
    assert_eq!(explain_io(&error), "the peer does not speak TLS on this port");
}
