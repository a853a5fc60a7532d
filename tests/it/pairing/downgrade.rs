//! No silent downgrade: peers that pair in the original's way are refused unless the operator asked for them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread::JoinHandle;

use serde_json::json;

use super::*;
use crate::harness::openssl::Openssl;
use crate::harness::pki::Credentials;

/// What an agent of the original sends, and its certificate request.
fn original_request(openssl: &Openssl, name: &str) -> String {
    openssl.run(&format!("req -new -newkey rsa:2048 -nodes -sha256 -keyout old.key -out old.csr -subj '/CN={name}'"));
    let body = json!({
        "hostname": name, "csr": openssl.read("old.csr"), "nonce": "00112233445566778899aabbccddeeff",
        "port": "7450", "ip": "127.0.0.1",
    });
    let body = body.to_string();
    format!("POST /pair HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// TLS as the original speaks it: no ALPN, no certificate.
fn original_agent(port: &str, request: String) -> JoinHandle<Ran> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")]);
    std::thread::spawn(move || finish(command, &request))
}

/// The JSON bodies of the answers on one connection.
fn bodies(ran: &Ran) -> Vec<Value> {
    let mut found = Vec::new();
    for answer in ran.stdout.split("HTTP/1.0 200 OK\r\n").skip(1) {
        found.push(serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap());
    }
    found
}

#[test]
fn an_agent_of_the_original_is_told_why_it_is_refused() {
    let world = World::new();
    let openssl = Openssl::new(&world.site.dir().join("openssl"));
    let session = world.session(&[]);
    let answers = bodies(&original_agent(&session.port, original_request(&openssl, "old.example")).join().unwrap());
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(answers[0]["status"], "error");
    let reason = answers[0]["reason"].as_str().unwrap();
    assert!(reason.contains("'pairing-mode --original'") && reason.contains("'pairing_original = yes'"), "{reason}");
    assert_eq!(world.queued(), Vec::<String>::new());
    let said = session.close();
    assert_eq!(said.lines("pair-reject")[0].get("REASON"), Some("original-form"));
    assert!(said.lines("pair-request").is_empty() && !said.stdout.contains("queued"), "{said:?}");
}

#[test]
fn an_agent_of_the_original_is_marked_wherever_it_is_shown() {
    for by_option in [true, false] {
        let setting = if by_option { "" } else { "pairing_original = yes" };
        let world = World::of(Site::builder().dispatcher(setting).prepare());
        let openssl = Openssl::new(&world.site.dir().join("openssl"));
        let words: &[&str] = if by_option { &["--original"] } else { &[] };
        let mut session = world.session_on_terminal(words);
        session.live.says("Agents of the original are accepted: their 6-digit code protects neither end.\n");
        let agent = original_agent(&session.port, original_request(&openssl, "old.example"));
        let id = eventually("a request", || world.queued().first()?.strip_suffix(".json").map(str::to_owned));
        let digest = openssl.run("dgst -sha256 -r old.csr").stdout;
        let code = format!("{:06}", u32::from_str_radix(&digest[..8], 16).unwrap() % 1_000_000);
        let shown = session.live.says("Accept, Deny, or Skip? [a/d/s]: ");
        let mark = "  Form:     original (the code covers the request only)\n";
        assert!(shown.contains(mark) && shown.contains(&format!("  Code:     {code}   ")), "{shown}");
        let list = world.site.control(&["list-requests"]).exits(0).stdout;
        assert!(list.contains(mark) && list.contains(&format!("  {code}\n")), "{list}");

        let approved = world.approve(&id, &["--lookup-by", "ip"]).exits(0);
        assert!(
            approved.stdout.contains("Registered:  old.example   lookup_by=ip   addr=127.0.0.1:7450\n"),
            "{approved:?}"
        );
        assert_eq!(approved.lines("pair-approve")[0].get("FORM"), Some("original"));
        let answers = bodies(&agent.join().unwrap());
        assert_eq!((&answers[0]["status"], &answers[0]["reqid"]), (&json!("pending"), &json!(id)));
        let second = &answers[1];
        assert_eq!(
            (&second["status"], &second["nonce"]),
            (&json!("approved"), &json!("00112233445566778899aabbccddeeff"))
        );
        assert_eq!(second["dispatcher_serial"], json!(world.site.dispatcher().serial()));
        for (file, key) in [("old.crt", "cert"), ("ca.crt", "ca")] {
            std::fs::write(openssl.path(file), second[key].as_str().unwrap()).unwrap();
        }
        openssl.run("verify -CAfile ca.crt old.crt");
        Credentials::load(&openssl.path("old.crt"), &openssl.path("old.key"));
        let said = session.close();
        assert_eq!(said.lines("pair-request")[0].get("FORM"), Some("original"));
        assert_eq!(said.lines("pairing-mode-start")[0].get("FORM"), Some("original-accepted"));
    }
}

/// A dispatcher of the original: `openssl` speaks TLS, the test speaks HTTP.
struct OriginalDispatcher {
    process: Child,
    openssl: Openssl,
    port: String,
    out: BufReader<ChildStdout>,
    input: ChildStdin,
}

impl OriginalDispatcher {
    fn start(openssl: Openssl) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1"]);
        command.arg("-cert").arg(openssl.path("dispatcher.crt")).arg("-key").arg(openssl.path("dispatcher.key"));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (mut out, input) = (BufReader::new(process.stdout.take().unwrap()), process.stdin.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT") {
            line.clear();
            assert_ne!(out.read_line(&mut line).unwrap(), 0);
        }
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        Self { process, openssl, port, out, input }
    }

    /// The body of the request, behind what `openssl` says about the connection.
    fn hears(&mut self) -> Value {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            self.out.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&text).into_owned();
        assert!(head.contains("POST /pair HTTP/1.0\r\n"), "{head}");
        let (_, length) = head.rsplit_once("Content-Length: ").unwrap();
        let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
        self.out.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn says(&mut self, answer: &Value) {
        let body = answer.to_string();
        let head =
            format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        self.input.write_all((head + &body).as_bytes()).unwrap();
    }
}

impl Drop for OriginalDispatcher {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn original_dispatcher(world: &World) -> OriginalDispatcher {
    let openssl = Openssl::new(&world.site.dir().join("old-control"));
    openssl.original_ca(2048);
    openssl.original_leaf("dispatcher", "ctrl-exec-dispatcher", false);
    OriginalDispatcher::start(openssl)
}

#[test]
fn a_dispatcher_of_the_original_is_refused_in_words_that_name_the_option() {
    let world = World::new();
    let mut dispatcher = original_dispatcher(&world);
    let ran = world.asked(&dispatcher.port, &[]).exits(1);
    let text = format!("Pairing failed: 127.0.0.1:{} pairs only in the original's way", dispatcher.port);
    assert!(
        ran.messages().contains(&text) && ran.stderr.contains("repeat the command with --original-pairing"),
        "{ran:?}"
    );
    assert!(!ran.stdout.contains("Generating") && !ran.stdout.contains("Pairing code"), "{ran:?}");
    world.nothing_came_of_it();
    let mut heard = String::new();
    dispatcher.out.read_to_string(&mut heard).unwrap();
    assert!(!heard.contains("POST"), "not a word was said: {heard}");
}

#[test]
fn a_dispatcher_of_the_original_is_paired_with_where_the_operator_says_so() {
    let world = World::new();
    let mut dispatcher = original_dispatcher(&world);
    let command = asking(world.agent(), &dispatcher.port, &["--original-pairing", "--lookup-by", "ip"]);
    let mut asking = Live::on_terminal(command, &world.site.dir().join("asking"));
    let request = dispatcher.hears();
    assert_eq!((&request["hostname"], &request["lookup_by"]), (&json!(world.name), &json!("ip")));
    let openssl = &dispatcher.openssl;
    std::fs::write(openssl.path("agent.csr"), request["csr"].as_str().unwrap()).unwrap();
    let digest = openssl.run("dgst -sha256 -r agent.csr").stdout;
    let code = format!("{:06}", u32::from_str_radix(&digest[..8], 16).unwrap() % 1_000_000);
    assert_eq!(asking.line_after("Pairing code: "), code);
    let text = openssl.run("req -in agent.csr -noout -text -verify").stdout;
    assert!(text.contains("rsaEncryption"), "{text}");
    openssl.run("x509 -req -in agent.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out agent.crt");
    let serial = openssl.run("x509 -in dispatcher.crt -noout -serial").stdout;
    let serial = serial.trim().strip_prefix("serial=").unwrap().to_lowercase();
    let approved = json!({
        "status": "approved", "cert": openssl.read("agent.crt"), "ca": openssl.read("ca.crt"),
        "nonce": request["nonce"], "dispatcher_serial": serial, "dispatcher_id": "old-control",
    });
    dispatcher.says(&json!({"status": "pending", "reqid": "0123456789abcdef"}));
    assert_eq!(reqid(&mut asking), "0123456789abcdef");
    dispatcher.says(&approved);
    let paired = asking.ends().exits(0);
    assert!(!paired.stdout.contains("[y/N]"), "a yes to this code would prove nothing");
    assert!(paired.stderr.contains("Warning: this is the original's code; it protects neither end"), "{paired:?}");
    let host = paired.lines("pair-complete")[0].get("DISPATCHER_HOST").unwrap().to_owned();
    let host = format!("DISPATCHER_HOST={host}");
    paired.lines("pair-complete")[0].is(&["ACTION=pair-complete", "DISPATCHER=old-control", &host, "STATUS=approved"]);
    let confirmation = ["ACTION=pair-confirmation", "CONFIRMED=no", &host, "FORM=original"];
    paired.lines("pair-confirmation")[0].is(&confirmation);
    let [cert, key, _, trust] = files(world.agent());
    let credentials = Credentials::load(&cert, &key);
    ctrl_exec::tls::identity::Identity::load(&credentials.cert, &credentials.key).unwrap();
    let map = std::fs::read_to_string(trust).unwrap();
    assert!(map.ends_with(&format!("\n{} old-control\n", serial.trim_start_matches('0'))), "{map}");
}
