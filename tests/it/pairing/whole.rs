//! The main job: pair, serve, ping, run.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use ctrl_exec::tls::identity::Identity;

use super::*;
use crate::harness::agent::write_executable;
use crate::harness::host::is_root;
use crate::harness::pki::Credentials;
use crate::harness::site::DISPATCHER;

#[test]
fn a_host_is_paired_and_then_serves_pings_and_runs() {
    let mut world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let code = asking.line_after("Pairing code: ");
    let id = reqid(&mut asking);
    assert!(world.site.control(&["list-requests"]).exits(0).stdout.contains(&code), "both ends show one code");
    world.approve(&id, &["--lookup-by", "ip"]).exits(0);
    let paired = asking.ends().exits(0);
    session.close();

    let start = format!(
        "Connecting to ctrl-exec at 127.0.0.1 for pairing...\nGenerating key and CSR for '{}'...\n\
         Pairing code: {code}\nVerify that the dispatcher shows the same code before it is approved there.\n\n\
         Waiting for approval: request {id}.\nPairing complete. Certificates stored.\n\n",
        world.name
    );
    assert!(paired.stdout.starts_with(&start), "{}", paired.stdout);
    assert!(paired.stdout.ends_with("Then verify with: ctrl-exec-agent self-ping\n"), "{}", paired.stdout);
    assert!(paired.messages().contains("Warning: nobody can be asked to compare the code here"), "{paired:?}");
    paired.lines("pair-complete")[0].is(&[
        "ACTION=pair-complete",
        &format!("DISPATCHER={DISPATCHER}"),
        "DISPATCHER_HOST=127.0.0.1",
        "STATUS=approved",
    ]);

    let name = world.name.clone();
    world.site.agent_mut().start();
    let port = world.agent().address().port().to_string();
    world.site.control(&["edit-agent", &name, "--agent-port", &port]).exits(0);
    let ping = world.site.control(&["--json", "ping", &name]).exits(0).result();
    assert_eq!(ping["expiry"], world.record()["expiry"]);
    let ran = world.site.control(&["--json", "run", &name, "ok"]).exits(0).result();
    assert_eq!(ran["stdout"], "ran\n");
    let line = world.agent().line("run");
    assert_eq!(line.get("DISPATCHER"), Some(DISPATCHER));
    let port = world.agent().address().port().to_string();
    world.agent().command(&["--port", &port, "self-ping"]).exits(0);
}

#[test]
fn an_agent_that_was_started_by_hand_is_told_of_and_takes_up_what_was_stored() {
    let mut world = World::new();
    let session = world.session(&[]);
    // Agents of other tests run meanwhile: they have other configurations.
    let first = paired(&world, &session, |_| {});
    assert!(first.stdout.contains("\nStart the agent:\n  ctrl-exec-agent serve\n"), "{}", first.stdout);
    world.site.agent_mut().start();
    let agent = world.agent();
    let second = paired(&world, &session, |_| {});
    let told = format!("\nThe agent is running. Have it reload:\n  kill -HUP {}\nThen verify with: ", agent.pid());
    assert!(second.stdout.contains(&told), "{}", second.stdout);
    session.close();
    let port = agent.address().port().to_string();
    world.site.control(&["edit-agent", &world.name, "--agent-port", &port]).exits(0);
    // The dispatcher knows the new certificate alone.
    assert_ne!(world.site.control(&["ping", &world.name]).code, 0);
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    world.site.control(&["ping", &world.name]).exits(0);
}

#[test]
fn procd_is_asked_whether_it_runs_the_agent() {
    let world = World::new();
    let session = world.session(&[]);
    let root = &world.agent().root;
    let bin = root.join("bin");
    for dir in [root.join("etc/init.d"), bin.clone()] {
        std::fs::create_dir_all(dir).unwrap();
    }
    for file in ["etc/rc.common", "etc/init.d/ctrl-exec-agent"] {
        std::fs::write(root.join(file), "").unwrap();
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let question = r#"-t 5 call service list {"name":"ctrl-exec-agent"}"#;
    for (running, told) in [
        ("true", "The agent is running. Have it reload:\n  /etc/init.d/ctrl-exec-agent reload\n"),
        ("false", "Start the agent:\n  /etc/init.d/ctrl-exec-agent enable\n  /etc/init.d/ctrl-exec-agent start\n"),
    ] {
        let answer = format!(r#"{{"ctrl-exec-agent":{{"instances":{{"instance1":{{"running":{running}}}}}}}}}"#);
        let text = format!("#!/bin/sh\n[ \"$*\" = '{question}' ] && echo '{answer}'\n");
        write_executable(&bin.join("ubus"), &text);
        let paired = paired(&world, &session, |command| _ = command.env("PATH", &path));
        assert!(paired.stdout.contains(&format!("\n{told}Then verify with: ")), "{}", paired.stdout);
    }
    session.close();
}

/// Pairs the only agent, which may be paired already.
fn paired(world: &World, session: &Session, adapt: impl FnOnce(&mut Command)) -> Ran {
    let mut command = world.asking(&session.port, &[]);
    adapt(&mut command);
    let mut asking = Live::start(command, &world.site.dir().join("asking"));
    let id = reqid(&mut asking);
    world.approve(&id, &["--lookup-by", "ip"]).exits(0);
    asking.ends().exits(0)
}

#[test]
fn what_is_stored_fits_together_and_belongs_to_the_right_accounts() {
    let world = World::new();
    // The directory of the trust map comes with the pairing.
    let state = world.agent().trust().parent().unwrap().to_owned();
    std::fs::remove_dir(&state).unwrap();
    let session = world.session(&[]);
    world.pair(&session);

    let [cert, key, ca, trust] = files(world.agent());
    let credentials = Credentials::load(&cert, &key);
    Identity::load(&credentials.cert, &credentials.key).unwrap();
    let authority = std::fs::read_to_string(world.site.control.join("etc/ctrl-exec/ca.crt")).unwrap();
    assert_eq!(std::fs::read_to_string(&ca).unwrap(), authority);
    let map = std::fs::read_to_string(&trust).unwrap();
    assert!(map.ends_with(&format!("\n{} {DISPATCHER}\n", world.site.dispatcher().serial())), "{map}");
    let facts = |path: &std::path::Path| {
        let found = std::fs::metadata(path).unwrap();
        (found.permissions().mode() & 0o7777, found.uid(), found.gid())
    };
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let (own, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let group = if is_root() { nobody.gid.as_raw() } else { group };
    assert_eq!(facts(&cert), (0o640, own, group));
    assert_eq!(facts(&key), (0o640, own, group));
    assert_eq!(facts(&ca), (0o644, own, group));
    assert_eq!(facts(&trust).0, 0o644);
    let keeper = if is_root() { nobody.uid.as_raw() } else { own };
    assert_eq!(facts(&state), (0o750, keeper, group));

    let record = world.record();
    let certificate = credentials.certificate();
    let pin = ctrl_exec::wire::hex::encode(&certificate.public_key().sha256());
    let wanted = [
        ("hostname", world.name.as_str()),
        ("ip", "127.0.0.1"),
        ("lookup_by", "hostname"),
        ("expiry", &certificate.expiry_text()),
        ("dispatcher_serial", &world.site.dispatcher().serial()),
        ("serial_status", "current"),
        ("cert_cn", &world.name),
        ("cert_serial", &credentials.serial()),
        ("cert_key_sha256", &pin),
    ];
    for (key, value) in wanted {
        assert_eq!(record[key], value, "{key}: {record}");
    }
    assert_eq!(record["port"], 7443);
    assert_eq!(world.queued(), Vec::<String>::new());
    session.close();
}

#[test]
fn a_second_dispatcher_is_added_to_the_trust_map_and_replaces_certificate_and_ca() {
    let (world, other) = (World::new(), World::of(Site::builder().agents(0).prepare()));
    let first = world.session(&[]);
    world.pair(&first);
    first.close();
    let second = other.session(&[]);
    let mut asking = Live::start(world.asking(&second.port, &[]), &world.site.dir().join("asking"));
    let id = reqid(&mut asking);
    other.approve(&id, &[]).exits(0);
    asking.ends().exits(0);
    let [cert, key, ca, trust] = files(world.agent());
    let map = std::fs::read_to_string(trust).unwrap();
    for site in [&world.site, &other.site] {
        assert!(map.contains(&format!("{} {DISPATCHER}\n", site.dispatcher().serial())), "{map}");
    }
    assert_eq!(Credentials::load(&cert, &key).serial(), other.record()["cert_serial"].as_str().unwrap());
    let authority = std::fs::read_to_string(other.site.control.join("etc/ctrl-exec/ca.crt")).unwrap();
    assert_eq!(std::fs::read_to_string(ca).unwrap(), authority);
}

#[test]
fn a_pairing_never_passes_over_what_the_configuration_names() {
    let world = World::new();
    let session = world.session(&[]);
    let agent = world.agent();
    let (etc, other) = (agent.root.join("etc/ctrl-exec-agent"), agent.root.join("other"));
    std::fs::create_dir(&other).unwrap();
    let (from, to) = (format!("= {}/agent.", etc.display()), format!("= {}/agent.", other.display()));
    let config = std::fs::read_to_string(agent.config()).unwrap().replace(&from, &to);
    let config = config.replace(&etc.join("ca.crt").display().to_string(), &other.join("ca.crt").display().to_string());
    let trust = other.join("trust");
    let named = format!("pairing_port = {}\ntrusted_dispatchers_path = {}\n", session.port, trust.display());
    std::fs::write(agent.config(), named + &config).unwrap();

    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&agent.root).args(["request-pairing", "--dispatcher", "127.0.0.1"]);
    let mut asking = Live::start(command, &world.site.dir().join("asking"));
    let id = reqid(&mut asking);
    world.approve(&id, &[]).exits(0);
    asking.ends().exits(0);
    let credentials = Credentials::load(&other.join("agent.crt"), &other.join("agent.key"));
    Identity::load(&credentials.cert, &credentials.key).unwrap();
    assert!(other.join("ca.crt").is_file());
    assert!(std::fs::read_to_string(&trust).unwrap().contains(world.site.dispatcher().serial().as_str()));
    assert!(files(agent).iter().all(|path| !path.exists()), "something is where nothing was asked to be");
    let said = agent.command(&["pairing-status"]).exits(0).stdout;
    assert!(said.contains(&credentials.certificate().expiry_text()), "{said}");
}
