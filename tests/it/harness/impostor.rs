//! A server that a dispatcher may meet instead of an agent: it answers by rote and keeps what it was told.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::tls::identity::{Identity, IdentitySlot};
use ctrl_exec::tls::{HTTP_1, agent_end};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::DEADLINE;
use super::pki::Credentials;

/// As an answer: none, and the connection stays open until the other end closes it.
pub(crate) const SILENCE: &str = "(silence)";

/// A server on loopback. Its thread ends with the test's process.
#[derive(Debug)]
pub(crate) struct Impostor {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<usize>>,
}

impl Impostor {
    /// Shows `credentials` and answers each request with `answer`, then closes.
    pub(crate) fn start(ca: &Ca, credentials: &Credentials, answer: &str) -> Self {
        let identity = IdentitySlot::new(Identity::load(&credentials.cert, &credentials.key).unwrap());
        Self::with_config(without_http_2(&agent_end(identity, ca.anchor()).unwrap().config()), answer)
    }

    /// As [`Impostor::start`], with an answer of its own for each request; the last one is for all the rest.
    pub(crate) fn in_turn(ca: &Ca, credentials: &Credentials, answers: Vec<String>) -> Self {
        let identity = IdentitySlot::new(Identity::load(&credentials.cert, &credentials.key).unwrap());
        Self::serving(without_http_2(&agent_end(identity, ca.anchor()).unwrap().config()), answers)
    }

    pub(crate) fn with_config(config: Arc<ServerConfig>, answer: &str) -> Self {
        Self::serving(config, vec![answer.to_owned()])
    }

    fn serving(config: Arc<ServerConfig>, answers: Vec<String>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let impostor = Self { address, heard: Arc::default(), connections: Arc::default() };
        let (heard, connections) = (Arc::clone(&impostor.heard), Arc::clone(&impostor.connections));
        std::thread::spawn(move || {
            for (turn, stream) in listener.incoming().enumerate() {
                let answer = &answers[turn.min(answers.len() - 1)];
                let Ok(stream) = stream else { return };
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                *connections.lock().unwrap() += 1;
                let tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                serve(tls, &heard, answer);
            }
        });
        impostor
    }

    /// Every byte of every request so far.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    /// How many connections came.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

/// It answers by rote, and so in HTTP/1.
fn without_http_2(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    Arc::new(config)
}

/// One request: its head and the body that the head announces.
fn serve(mut tls: StreamOwned<ServerConnection, std::net::TcpStream>, heard: &Mutex<Vec<u8>>, answer: &str) {
    let mut request = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while !is_whole(&request) {
        let Ok(count @ 1..) = tls.read(&mut buffer) else { return };
        request.extend_from_slice(&buffer[..count]);
        heard.lock().unwrap().extend_from_slice(&buffer[..count]);
    }
    if answer == SILENCE {
        while matches!(tls.read(&mut buffer), Ok(1..)) {}
        return;
    }
    drop(tls.write_all(answer.as_bytes()));
    tls.conn.send_close_notify();
    drop(tls.flush());
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = length.filter(|(key, _)| key.eq_ignore_ascii_case("content-length"));
    length.next_back().is_none_or(|(_, value)| body.len() >= value.trim().parse().unwrap())
}
