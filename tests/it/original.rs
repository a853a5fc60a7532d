//! What the original made and how it speaks: RSA keys, X.509 version 1, HTTP/1.0, one request a connection.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::harness::executor::Mode;
use crate::harness::impostor::Impostor;
use crate::harness::openssl::Openssl;
use crate::harness::pki::Credentials;
use crate::harness::process::finish;
use crate::harness::{Site, eventually, pki, tls};

/// Made once for all tests: the original's RSA-4096 CA with a dispatcher's key as PKCS#8 and an agent's as PKCS#1.
fn made() -> &'static BTreeMap<&'static str, String> {
    static MADE: OnceLock<BTreeMap<&'static str, String>> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let openssl = Openssl::new(dir.path());
        openssl.original_ca(4096);
        openssl.original_leaf("dispatcher", "ctrl-exec-dispatcher", false);
        openssl.original_leaf("agent1", "agent1", true);
        let files = ["ca.key", "ca.crt", "dispatcher.key", "dispatcher.crt", "agent1.key", "agent1.crt"];
        files.into_iter().map(|file| (file, openssl.read(file))).collect()
    })
}

fn agent_credentials() -> Credentials {
    Credentials { cert: made()["agent1.crt"].clone(), key: made()["agent1.key"].clone() }
}

/// The files, where a program can read them.
fn files(site: &Site) -> Openssl {
    let openssl = Openssl::new(&site.control.join("original"));
    for (file, text) in made() {
        std::fs::write(openssl.path(file), text).unwrap();
    }
    openssl
}

/// A site whose files are those that the original left behind; agents are still to be started.
fn site() -> Site {
    let mut site = Site::builder().original_records().sh("ok", "echo ran").prepare();
    let etc = site.control.join("etc/ctrl-exec");
    for file in ["ca.key", "ca.crt", "dispatcher.key", "dispatcher.crt"] {
        std::fs::write(etc.join(file), &made()[file]).unwrap();
    }
    let serial = files(&site).run("x509 -in dispatcher.crt -noout -serial").stdout;
    let serial = serial.trim().strip_prefix("serial=").unwrap().to_owned();
    let agent = site.agent_mut();
    agent.write_credentials(agent_credentials());
    std::fs::write(agent.root.join("etc/ctrl-exec-agent/ca.crt"), &made()["ca.crt"]).unwrap();
    std::fs::write(agent.trust(), format!("# written by the original\n{serial} old-control\n")).unwrap();
    site
}

#[test]
fn keys_and_version_1_certificates_of_the_original_serve_both_ends() {
    let mut site = site();
    let text = files(&site).run("x509 -in agent1.crt -noout -text").stdout;
    assert!(text.contains("Version: 1 (0x0)"), "{text}");
    assert!(made()["agent1.key"].contains("BEGIN RSA PRIVATE KEY"));
    assert!(made()["dispatcher.key"].contains("BEGIN PRIVATE KEY"));
    site.start(0);
    let result = site.result("ok", &[]);
    assert_eq!((&result["exit"], &result["stdout"]), (&0.into(), &"ran\n".into()), "{result}");
    let ping = site.control(&["--json", "ping", "agent1"]).exits(0).result();
    assert_eq!(ping["expiry"], agent_credentials().certificate().expiry_text());
    site.control(&["check-config"]).exits(0);
    site.agent().command(&["self-check"]).exits(0);
    site.agent().line_where("run", |line| line.get("DISPATCHER") == Some("old-control"));
}

#[test]
fn the_original_s_ca_goes_on_issuing() {
    let mut site = site();
    let fresh = pki::issue(&site.authority(), "agent1");
    site.agent_mut().write_credentials(fresh);
    site.start(0);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    site.agents[0].stop();
    site.control(&["setup-ctrl-exec"]).exits(0);
    std::fs::write(site.agent().trust(), format!("{} control-1\n", site.dispatcher().serial())).unwrap();
    site.start(0);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

/// A request as LWP writes it.
fn lwp(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nTE: deflate,gzip;q=0.3\r\nConnection: TE, close\r\nHost: 127.0.0.1:7443\r\n\
         User-Agent: libwww-perl/6.67\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn the_original_s_dispatcher_is_served_over_either_version_of_tls() {
    let mut site = site();
    let files = files(&site);
    site.start(0);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", version, "-connect"]);
        command.arg(site.agent().address().to_string());
        for (option, file) in [("-cert", "dispatcher.crt"), ("-key", "dispatcher.key"), ("-CAfile", "ca.crt")] {
            command.arg(option).arg(files.path(file));
        }
        let body = r#"{"args":[],"reqid":"abcd1234","script":"ok","token":null,"username":null}"#;
        let said = finish(command, &lwp("/run", body)).stdout;
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
        let (_, body) = said.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&json["stdout"], &json["reqid"]), (&"ran\n".into(), &"abcd1234".into()), "{json}");
    }
}

#[test]
fn curl_is_served() {
    let mut site = site();
    let files = files(&site);
    site.start(0);
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--http1.1", "--data", r#"{"script":"ok"}"#]);
    for (option, file) in [("--cert", "dispatcher.crt"), ("--key", "dispatcher.key"), ("--cacert", "ca.crt")] {
        command.arg(option).arg(files.path(file));
    }
    command.arg(format!("https://{}/run", site.agent().address()));
    let json = finish(command, "").exits(0).json();
    assert_eq!(json["stdout"], "ran\n", "{json}");
}

/// An agent as the original is one: HTTP/1.0, its three headers, and the end of the connection.
const ANSWER: &str = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: 76\r\n\r\n\
                      {\"exit\":0,\"reqid\":\"x\",\"script\":\"ok\",\"stderr\":\"\",\"stdout\":\"from 1.0\\n\",\"n\":1}";

#[test]
fn an_agent_that_answers_in_http_1_0_is_understood() {
    let site = site();
    let agent = Impostor::start(&site.authority(), &agent_credentials(), ANSWER);
    site.register("agent1", agent.address.port(), &agent_credentials());
    let result = site.result("ok", &["--flag"]);
    assert_eq!((&result["exit"], &result["stdout"]), (&0.into(), &"from 1.0\n".into()), "{result}");
    let request = agent.heard();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /run HTTP/1.1\r\n") && head.to_lowercase().contains("connection: close"), "{head}");
    assert!(head.to_lowercase().contains(&format!("content-length: {}", body.len())), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["script"], &body["args"]), (&"ok".into(), &serde_json::json!(["--flag"])));
}

#[test]
fn an_agent_that_is_openssl_itself_is_understood_over_either_version_of_tls() {
    for version in ["-tls1_2", "-tls1_3"] {
        let site = site();
        let (mut server, port) = s_server(&files(&site), version);
        site.register("agent1", port, &agent_credentials());
        let mut out = BufReader::new(server.stdout.take().unwrap());
        let mut input = server.stdin.take().unwrap();
        let answering = std::thread::spawn(move || {
            let mut line = String::new();
            // The request's body is its last line, and has no end of line.
            while !line.contains("\r\n\r\n") {
                let mut byte = [0];
                out.read_exact(&mut byte).unwrap();
                line.push(char::from(byte[0]));
            }
            input.write_all(ANSWER.as_bytes()).unwrap();
            (out, input)
        });
        let result = site.result("ok", &[]);
        assert_eq!(result["stdout"], "from 1.0\n", "{version}: {result}");
        drop(answering.join().unwrap());
        drop(server.kill());
        server.wait().unwrap();
    }
}

/// `openssl s_server` with the original's files, on a port of its own choice.
fn s_server(files: &Openssl, version: &str) -> (Child, u16) {
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-Verify", "1", "-naccept", "1", version]);
    for (option, file) in [("-cert", "agent1.crt"), ("-key", "agent1.key"), ("-CAfile", "ca.crt")] {
        command.arg(option).arg(files.path(file));
    }
    let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("ACCEPT") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0);
    }
    server.stdout = Some(out.into_inner());
    let port = line.trim().rsplit(':').next().unwrap().parse().unwrap();
    (server, port)
}

/// A request on a connection of its own, as the original's dispatcher makes them: it knows no `reason`.
fn asked(site: &Site, request: String) -> serde_json::Value {
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    http.send(request);
    http.answer().unwrap().json()
}

/// There, the script's standard error said so.
#[test]
fn why_a_script_did_not_start_is_on_standard_error_for_who_knows_no_other_place() {
    for mode in Mode::ALL {
        let mut builder = Site::builder().executor(mode).sh("ok", "exit 127").sh("broken", "true");
        let mut cases = vec![("broken", 127, "could not start: exec: ")];
        if mode != Mode::Private {
            builder = builder.section("[profile nowhere]\nrun_as = daemon\nwritable = /no/such\n");
            builder = builder.allow("closed = {scripts}/ok profile=nowhere");
            cases.push(("closed", 126, "could not confine: writable: /no/such: No such file or directory"));
        }
        let site = builder.start();
        std::fs::write(site.agent().root.join("scripts/broken"), "#!/no/such/interpreter\n").unwrap();
        for (script, exit, reason) in cases {
            let is_told = |told: &serde_json::Value| {
                assert_eq!((&told["exit"], &told["stdout"]), (&exit.into(), &"".into()), "{mode:?}: {told}");
                let stderr = told["stderr"].as_str().unwrap();
                assert!(
                    stderr.starts_with(&format!("executor: {reason}")) && stderr.ends_with('\n'),
                    "{mode:?}: {told}"
                );
                assert_eq!(format!("executor: {}\n", told["reason"].as_str().unwrap()), stderr, "{mode:?}");
            };
            is_told(&asked(&site, lwp("/run", &format!(r#"{{"script":"{script}","reqid":"a1","args":[]}}"#))));
            let body = format!(r#"{{"script":"{script}","reqid":"{script}1","args":[],"async":true}}"#);
            assert_eq!(asked(&site, lwp("/run", &body))["status"], "accepted", "{mode:?}");
            let question = format!("GET /result/{script}1 HTTP/1.1\r\nHost: x\r\n\r\n");
            is_told(&eventually("its end", || {
                Some(asked(&site, question.clone())).filter(|told| told["status"] == "done")
            }));
            // What a stream says, the reader of one reads in its place.
            let streamed = site.control(&["run", "--json-lines", "agent1", script]).exits(1);
            let last: serde_json::Value = serde_json::from_str(streamed.stdout.lines().last().unwrap()).unwrap();
            assert!(last["reason"].as_str().unwrap().starts_with(reason), "{last}");
        }
        // A script that ends so of itself has said what it has said.
        let own = asked(&site, lwp("/run", r#"{"script":"ok","reqid":"a2","args":[]}"#));
        assert_eq!((&own["exit"], &own["stderr"]), (&127.into(), &"".into()), "{mode:?}: {own}");
    }
}
