//! Every key of `agent.conf`, and what is said about a wrong one.

use super::*;

const REQUIRED: &str = "port = 7443\ncert = /c\nkey = /k\nca = /a\n";

fn parse(text: &str) -> Result<(Settings, Warnings), String> {
    let source = Source::new("a.conf", text);
    Settings::parse(&source, &Root::new(Some("/r".into()))).map_err(|errors| errors.to_string())
}

fn settings(extra: &str) -> Settings {
    parse(&format!("{REQUIRED}{extra}")).unwrap().0
}

fn refusal(extra: &str) -> String {
    parse(&format!("{REQUIRED}{extra}")).unwrap_err()
}

fn warnings(extra: &str) -> String {
    parse(&format!("{REQUIRED}{extra}")).unwrap().1.to_string()
}

fn profile(body: &str) -> Profile {
    let settings = settings(&format!("[profile p]\n{body}"));
    settings.profiles.get("p").unwrap().clone()
}

fn profile_refusal(body: &str) -> String {
    refusal(&format!("[profile p]\n{body}"))
}

#[test]
fn what_the_file_does_not_say_has_its_default_below_the_root() {
    let s = settings("");
    assert_eq!((*s.port, s.port.line(), s.pairing_port, s.max_children), (7443, Some(1), 7444, 256));
    assert_eq!(s.port.place(&s.file), "a.conf:1");
    assert_eq!(s.bind.iter().map(ToString::to_string).collect::<Vec<_>>(), ["0.0.0.0", "::"]);
    assert_eq!(*s.user, Account::Name("ctrl-exec-agent".to_owned()));
    assert_eq!((s.user.line(), s.user.place(&s.file)), (None, "a.conf (default)".to_owned()));
    assert_eq!((s.script_dirs, s.executor_socket, s.auth_hook, s.allowed_ips), (None, None, None, None));
    assert_eq!(s.trusted_dispatchers_path.to_str(), Some("/r/var/lib/ctrl-exec-agent/ctrl-exec-dispatchers"));
    assert_eq!(s.revoked_serials.to_str(), Some("/r/etc/ctrl-exec-agent/revoked-serials"));
    assert_eq!(s.cert_staging_path.to_str(), Some("/r/var/lib/ctrl-exec-agent/agent.crt.staged"));
    assert_eq!(s.async_runs_dir.to_str(), Some("/r/var/lib/ctrl-exec-agent/runs"));
    assert_eq!((s.stdin_timeout, s.auth_hook_timeout), (Duration::from_secs(10), Duration::from_secs(10)));
    assert_eq!(s.stall_timeout, Duration::from_mins(15));
    assert_eq!(s.rate_limit_volume, Some(RateLimit::new(10, 60, 300)));
    assert_eq!(s.rate_limit_probe, Some(RateLimit::new(3, 600, 3600)));
    assert_eq!((s.max_output, *s.trusted_paths), (16 << 20, true));
    assert_eq!((s.async_max_bytes, s.schema), (1 << 30, Schema::Enforce));
    assert!(s.metrics.is_none() && s.tags.is_empty() && s.profiles.is_empty());
}

#[test]
fn every_key_is_read() {
    let s = settings(
        "bind = 10.0.0.1, [::1]\npairing_port = 0\nuser = 1000\nscript_dirs = /a:/b c\nexecutor_socket = /s\n\
         trusted_dispatchers_path = /t\nrevoked_serials = /u\ncert_staging_path = /v\nasync_runs_dir = /w\n\
         stdin_timeout = 1\nmax_children = 2\nauth_hook = /h\nauth_hook_timeout = 3\nallowed_ips = 10.0.0.0/8, ::1\n\
         rate_limit_volume = 1/2/3\nrate_limit_probe = 0/0/0\nmax_output = 1KiB\ntrusted_paths = no\n\
         async_max_bytes = 2M\nschema = advertise\nmetrics = 127.0.0.1:9443\nstall_timeout = 86400\n\
         [tags]\nenv = prod\nnote = two words\n",
    );
    assert_eq!(s.bind.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "::1"]);
    assert_eq!((s.pairing_port, s.user.into_inner(), s.max_children), (0, Account::Id(1000), 2));
    assert_eq!(s.script_dirs.unwrap(), [PathBuf::from("/a"), PathBuf::from("/b c")]);
    assert_eq!((s.executor_socket.unwrap().to_str(), s.auth_hook.unwrap().to_str()), (Some("/s"), Some("/h")));
    assert_eq!((s.trusted_dispatchers_path.to_str(), s.revoked_serials.to_str()), (Some("/t"), Some("/u")));
    assert_eq!((s.cert_staging_path.to_str(), s.async_runs_dir.to_str()), (Some("/v"), Some("/w")));
    assert_eq!((s.stdin_timeout, s.auth_hook_timeout), (Duration::from_secs(1), Duration::from_secs(3)));
    assert_eq!(s.stall_timeout, Duration::from_hours(24));
    assert!(s.allowed_ips.unwrap().allows("10.9.9.9".parse().unwrap()));
    assert_eq!((s.rate_limit_volume, s.rate_limit_probe), (Some(RateLimit::new(1, 2, 3)), None));
    assert_eq!((s.max_output, *s.trusted_paths), (1024, false));
    assert_eq!((s.async_max_bytes, s.schema), (2 << 20, Schema::Advertise));
    assert_eq!(s.metrics.unwrap().to_string(), "127.0.0.1:9443");
    assert_eq!(s.tags.get("note").map(String::as_str), Some("two words"));
}

#[test]
fn all_errors_are_told_at_once_in_file_order() {
    let errors = parse("port = many\nprot = 1\ncert = /c\n[profile p]\ncaps = CAP_X\nnonsense\n").unwrap_err();
    let places: Vec<&str> = errors.lines().filter(|line| line.starts_with("a.conf")).collect();
    assert_eq!(places.len(), 6, "{errors}");
    assert!(places[0].starts_with("a.conf: Missing required config key 'key'"), "{errors}");
    assert!(places[1].starts_with("a.conf: Missing required config key 'ca'"), "{errors}");
    assert_eq!(places[2], "a.conf:1:8: port must be numeric, not 'many'");
    assert_eq!(places[3], "a.conf:2:1: unknown key 'prot'");
    assert_eq!(places[4], "a.conf:5:8: Profile 'p': invalid capability 'CAP_X' (expected CAP_*)");
    assert!(places[5].starts_with("a.conf:6:1: Malformed config line"), "{errors}");
}

#[test]
fn an_empty_value_is_an_error_at_its_sign() {
    assert!(refusal("auth_hook =\n").contains("a.conf:5:11: 'auth_hook' has no value"));
    assert!(refusal("[tags]\nenv =\n").contains("a.conf:6:5: the tag 'env' has no value"));
    let errors = parse("port =\ncert = /c\nkey = /k\nca = /a\n").unwrap_err();
    assert!(!errors.contains("Missing"), "{errors}");
}

#[test]
fn an_indented_line_is_as_good_as_any_and_needs_no_warning() {
    assert_eq!(settings("  max_children = 3\n").max_children, 3);
    assert_eq!(warnings("  max_children = 3\n"), "");
}

#[test]
fn malformed_networks_are_errors_and_never_drop_the_restriction() {
    let errors = refusal("allowed_ips = 10.0.0.0/8, 300.1.1.1, host\n");
    assert!(errors.contains("a.conf:5:27: allowed_ips has a malformed entry '300.1.1.1'"), "{errors}");
    assert!(errors.contains("a.conf:5:38: allowed_ips has a malformed entry 'host'"), "{errors}");
    assert!(refusal("allowed_ips = ,\n").contains("allowed_ips names nothing"));
}

#[test]
fn tags_are_free_text_with_warnings_for_slips() {
    let text = "[tags]\nenv = prod # not dev\nenv = dev\nallowed_ips = 10.0.0.1\nport = 1\n";
    let s = settings(text);
    assert_eq!(s.tags.get("env").map(String::as_str), Some("dev"));
    assert_eq!(settings("[tags]\na = b # c\n").tags.get("a").map(String::as_str), Some("b # c"));
    let warned = warnings(text);
    assert!(warned.contains(":6:12: warning: this is part of the tag 'env', not a comment"), "{warned}");
    assert!(warned.contains("'env' is set twice: line 7 replaces line 6"), "{warned}");
    assert!(warned.contains("'allowed_ips' is a tag here"), "{warned}");
    assert!(!warned.contains("'port'"), "{warned}");
}

#[test]
fn what_the_original_served_with_is_read_the_safe_way_and_warned_about() {
    let text = "script_dirs = scripts:/srv\n[foo]\nkind = x\nport = 1\n[profile p]\nrun_as = nobody\n\
                no_new_privileges = maybe\n";
    let s = settings(text);
    assert_eq!(s.script_dirs, Some(vec![PathBuf::from("/srv")]));
    assert!(s.profiles.values().all(|profile| profile.no_new_privileges));
    assert_eq!(s.tags.len(), 0);
    let warned = warnings(text);
    for expected in [
        "a.conf:5:15: warning: script_dirs must be an absolute path, not 'scripts': no script is in it",
        "a.conf:6:2: warning: unknown section '[foo]': nothing in it is used",
        "a.conf:11:21: warning: Profile 'p': no_new_privileges must be yes or no, not 'maybe': it counts as 'yes'",
    ] {
        assert!(warned.contains(expected), "{expected}\n---\n{warned}");
    }
    assert_eq!(settings("script_dirs = scripts\n").script_dirs, Some(vec![]), "still a restriction");
}

#[test]
fn a_section_that_may_be_meant_for_us_is_refused_with_the_nearest() {
    assert!(refusal("[Tags]\nx = 1\n").contains("a.conf:5:2: unknown section '[Tags]'"));
    assert!(refusal("[tag]\n").contains("did you mean '[tags]'?"));
    assert!(refusal("[profil x]\n").contains("did you mean '[profile NAME]'?"));
    let text = refusal("[network]\nport = 1\nallowed_ips = 10.0.0.0/8\n");
    assert!(text.contains("a.conf:5:2: unknown section '[network]'"), "{text}");
    assert!(text.contains("'allowed_ips' belongs above the first section"), "{text}");
    assert!(refusal("[deploy]\nrun_as = nobody\n").contains("'run_as' belongs in a [profile NAME] section"));
    assert!(refusal("[profile]\n").contains("'' is no profile name"));
    assert!(refusal("[profile a b]\n").contains("'a b' is no profile name"));
}

#[test]
fn a_key_in_the_wrong_section_is_told_where_it_belongs() {
    let errors = refusal("run_as = nobody\n[profile p]\nmax_children = 3\n");
    assert!(errors.contains("'run_as' belongs in a [profile NAME] section"), "{errors}");
    assert!(errors.contains("Profile 'p': unknown key 'max_children'"), "{errors}");
    assert!(errors.contains("it belongs above the first section"), "{errors}");
}

#[test]
fn keys_of_removed_features_are_warned_about() {
    let text = warnings("sandbox = on\nwritable_paths = /x\ndispatcher_serial_path = /y\ndispatcher_cn = z\n");
    assert_eq!(text.matches("does nothing any more").count(), 4, "{text}");
}

#[test]
fn a_profile_has_its_defaults() {
    let p = profile("");
    assert_eq!((p.run_as, p.caps, p.writable), (None, vec![], None));
    assert_eq!((p.no_new_privileges, p.timeout, p.kill_grace), (true, None, Duration::from_secs(5)));
    assert_eq!((p.memory_max, p.processes_max, p.cpu_max, p.files_max), (None, None, None, None));
    assert_eq!((p.network, p.readable, p.syscalls, p.umask), (true, None, Syscalls::Default, 0o022));
    assert_eq!((p.environment, p.working_directory, p.allow_dangerous_caps), (vec![], PathBuf::from("/"), false));
}

#[test]
fn every_limit_of_a_profile_is_read() {
    let p = profile(
        "memory_max = 64M\nprocesses_max = 20\ncpu_max = 150%\nfiles_max = 64\nnetwork = no\nreadable = /usr:/etc/ssl\n\
         syscalls = off\numask = 077\nenvironment = A=1 B=\"two words\"\nworking_directory = /srv\n\
         allow_dangerous_caps = yes\n",
    );
    assert_eq!(
        (p.memory_max, p.processes_max, p.cpu_max, p.files_max),
        (Some(64 << 20), Some(20), Some(150), Some(64))
    );
    assert_eq!((p.network, p.syscalls, p.umask), (false, Syscalls::Off, 0o077));
    assert_eq!(p.readable.unwrap(), [PathBuf::from("/usr"), PathBuf::from("/etc/ssl")]);
    assert_eq!(p.environment, [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two words".to_owned())]);
    assert_eq!((p.working_directory, p.allow_dangerous_caps), (PathBuf::from("/srv"), true));
}

#[test]
fn every_key_of_a_profile_is_read() {
    let p = profile(
        "run_as = www-data\ncaps = CAP_CHOWN,CAP_KILL CAP_CHOWN\nwritable = /a:/b\nno_new_privileges = No\n\
         timeout = 60\nkill_grace = 0\n",
    );
    assert_eq!(p.run_as.as_ref().map(|account| account.to_string()).as_deref(), Some("www-data"));
    assert_eq!(p.caps.iter().map(|cap| cap.name()).collect::<Vec<_>>(), ["CAP_CHOWN", "CAP_KILL"]);
    assert_eq!(p.writable.unwrap(), [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!((p.no_new_privileges, p.timeout), (false, Some(Duration::from_mins(1))));
    assert_eq!(p.kill_grace, Duration::ZERO);
    assert_eq!(profile("timeout = 0\n").timeout, None);
    assert!(settings("[PROFILE x.y-z]\n").profiles.contains_key("x.y-z"));
}

#[test]
fn errors_in_a_profile_name_it() {
    for (body, expected) in [
        ("caps = CAP_CHWON\n", "Profile 'p': invalid capability 'CAP_CHWON' (expected CAP_*)"),
        ("caps = CAP_KILL,#x\n", "a comment must stand on a line of its own"),
        ("caps = CAP_KILL # x\n", "a.conf:6:17: a comment behind a value"),
        ("writable = tmp:/x\n", "Profile 'p': writable path must be absolute: 'tmp'"),
        ("run_as = a b\n", "Profile 'p': invalid run_as 'a b'"),
        ("run_as = 4294967296\n", "Profile 'p': run_as '4294967296' out of range"),
        ("timeout = soon\n", "Profile 'p': timeout must be numeric"),
        ("runas = x\n", "did you mean 'run_as'?"),
        ("memory_max = 1M\n", "a.conf:6:14: Profile 'p': memory_max must be from 4194304 to"),
        ("memory_max = lots\n", "Profile 'p': memory_max must be a number of bytes"),
        ("processes_max = 0\n", "Profile 'p': processes_max must be from 1 to 4194304, not 0"),
        ("cpu_max = 0%\n", "Profile 'p': cpu_max must be from 1 to 100000, not 0"),
        ("files_max = 3\n", "Profile 'p': files_max must be from 16 to 1048576, not 3"),
        ("network = maybe\n", "Profile 'p': network must be yes or no"),
        ("readable = usr\n", "Profile 'p': readable must be an absolute path, not 'usr'"),
        ("syscalls = none\n", "Profile 'p': syscalls must be 'default' or 'off', not 'none'"),
        ("umask = 9\n", "Profile 'p': umask must be an octal number"),
        ("environment = A=1 B\n", "a.conf:6:19: Profile 'p': environment 'B' is no NAME=value"),
        ("working_directory = tmp\n", "Profile 'p': working_directory must be an absolute path"),
        ("memory-max = 1G\n", "did you mean 'memory_max'?"),
    ] {
        let errors = profile_refusal(body);
        assert!(errors.contains(expected), "{body}: {errors}");
    }
}

#[test]
fn words_of_the_contract_setting_are_two() {
    assert!(
        refusal("schema = strict\n").contains("a.conf:5:10: schema must be 'enforce' or 'advertise', not 'strict'")
    );
    assert!(refusal("async_max_bytes = 1K\n").contains("async_max_bytes must be from 1048576 to"));
}

#[test]
fn a_capability_that_undoes_the_profile_needs_a_line_of_its_own() {
    let errors = profile_refusal("caps = CAP_KILL, CAP_SYS_ADMIN CAP_MKNOD\n");
    assert!(errors.contains("a.conf:6:18: Profile 'p': CAP_SYS_ADMIN undoes the confinement: it can"), "{errors}");
    assert!(errors.contains("a.conf:6:32: Profile 'p': CAP_MKNOD undoes the confinement: it can"), "{errors}");
    assert!(errors.contains("add the line 'allow_dangerous_caps = yes'"), "{errors}");
    assert_eq!(profile("caps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes\n").caps.len(), 1);
    let errors = profile_refusal("caps = CAP_KILL, CAP_NET_ADMIN\nnetwork = no\n");
    assert!(errors.contains("a.conf:6:18: Profile 'p': CAP_NET_ADMIN undoes 'network = no': with"), "{errors}");
    for more in ["", "network = yes\n", "network = no\nallow_dangerous_caps = yes\n"] {
        assert_eq!(profile(&format!("caps = CAP_NET_ADMIN\n{more}")).caps.len(), 1, "{more}");
    }
}

#[test]
fn a_profile_defined_twice_is_refused_with_both_lines() {
    let errors = refusal("[profile p]\nrun_as = a\n[profile p]\nrun_as = b\n");
    assert!(errors.contains("a.conf:7:2: Profile 'p': defined twice, on line 5 and on line 7"), "{errors}");
}

#[test]
fn under_a_root_executor_every_profile_must_name_its_account() {
    let s = settings("[profile a]\nrun_as = nobody\n[profile b]\n[profile c]\ncaps = CAP_KILL\n");
    let errors = s.profile_errors().unwrap_err();
    assert_eq!(errors.count(), 2);
    let text = errors.to_string();
    assert!(text.starts_with("a.conf:7:2: Profile 'b': no run_as"), "{text}");
    assert!(text.contains("add the line 'run_as = nobody'"), "{text}");
    assert!(settings("[profile a]\nrun_as = 0\n").profile_errors().is_ok());
}

#[test]
fn both_files_errors_appear_together() {
    let agent = Source::new("a.conf", format!("{REQUIRED}prot = 1\n[profile known]\ncaps = CAP_X\n"));
    let scripts = Source::new("s.conf", "x = /x # why\ny = /y profile=known\nz = /z\n");
    let errors = load(&agent, &scripts, &Root::default()).unwrap_err().to_string();
    let places: Vec<&str> = errors.lines().filter(|line| line.contains(".conf:")).collect();
    assert_eq!(places[0], "a.conf:5:1: unknown key 'prot'");
    assert!(places[1].starts_with("a.conf:7:8: Profile 'known': invalid capability"), "{errors}");
    assert!(places[2].starts_with("s.conf:1:8: a comment behind a value"), "{errors}");
    assert_eq!(places[3], "s.conf:3:1: script(s) reference an undefined profile: z -> default");
}

#[test]
fn every_field_of_a_profile_is_one_of_its_known_keys() {
    // So that a key which is read is one that the manual describes and that tests try.
    let text = format!("{:#?}", profile(""));
    let names = text.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": ")).map(|(name, _)| name);
    let fields =
        names.filter(|name| !name.starts_with(' ') && !["name", "lines", "writable_places", "place"].contains(name));
    let (mut fields, mut keys) = (fields.collect::<Vec<_>>(), profile::KEYS);
    fields.sort_unstable();
    keys.sort_unstable();
    assert_eq!(fields, keys);
}

#[test]
fn each_key_but_those_of_time_takes_a_root_executor() {
    let setting = |key: &str| match key {
        "run_as" => "nobody",
        "caps" => "CAP_KILL",
        "allow_dangerous_caps" | "no_new_privileges" | "network" => "no",
        "writable" | "readable" | "working_directory" => "/srv",
        "timeout" | "kill_grace" | "processes_max" | "cpu_max" | "files_max" => "60",
        "memory_max" => "64MiB",
        "syscalls" => "default",
        "umask" => "022",
        "environment" => "A=b",
        other => panic!("{other}: does an executor without rights apply it?"),
    };
    for key in profile::KEYS {
        let told = profile(&format!("{key} = {}", setting(key))).only_as_root();
        let expected = if ["timeout", "kill_grace"].contains(&key) { vec![] } else { vec![key] };
        assert_eq!(told, expected, "also where it is set to its default");
    }
    assert!(profile("").only_as_root().is_empty());
    assert_eq!(profile("umask = 077\ntimeout = 9\nrun_as = nobody").only_as_root(), ["run_as", "umask"]);
}

#[test]
fn of_an_unreadable_agent_conf_only_that_is_told() {
    let agent = Source::new("a.conf", b"\xff\xfea\0".to_vec());
    let errors = load(&agent, &Source::new("s.conf", "z = /z\n"), &Root::default()).unwrap_err();
    assert_eq!(errors.count(), 1, "{errors}");
}

#[test]
fn two_right_files_load_and_an_empty_allowlist_needs_no_profile() {
    let agent = Source::new("a.conf", REQUIRED);
    let loaded = load(&agent, &Source::new("s.conf", ""), &Root::default()).unwrap();
    assert!(loaded.allowlist.is_empty() && loaded.warnings.is_empty());
    let agent = Source::new("a.conf", format!("{REQUIRED}[profile default]\nrun_as = nobody\n"));
    let loaded = load(&agent, &Source::new("s.conf", "z = /z\nz = /y\n"), &Root::default()).unwrap();
    assert_eq!(loaded.warnings.iter().count(), 1);
    assert_eq!(loaded.settings.cert.line(), Some(2));
}

#[test]
fn a_value_that_the_original_served_with_is_no_reason_not_to_serve() {
    let usual = settings("");
    for (line, expected) in [
        (
            "rate_limit_volume = 10/60",
            "rate_limit_volume must be limit/window/block in whole numbers, not '10/60': 10/60/300 applies",
        ),
        ("rate_limit_volume = 1/0/5", "would never block anyone: 10/60/300 applies"),
        ("rate_limit_probe = foo", "not 'foo': 3/600/3600 applies"),
        ("stdin_timeout = 0", "stdin_timeout must be from 1 to 3600, not 0: 10 applies"),
        ("max_children = 0", "max_children must be from 1 to 65535, not 0: 256 applies"),
        ("auth_hook_timeout = 10s", "auth_hook_timeout must be numeric, not '10s': 10 applies"),
        ("rate_limit_disable = nope", "rate_limit_disable must be yes or no, not 'nope': it counts as 'no'"),
    ] {
        let said = warnings(&format!("{line}\n"));
        assert!(said.contains(expected), "{line}: {said}");
        let s = settings(&format!("{line}\n"));
        assert_eq!(
            (s.rate_limit_volume, s.rate_limit_probe),
            (usual.rate_limit_volume, usual.rate_limit_probe),
            "{line}"
        );
        assert_eq!((s.stdin_timeout, s.max_children), (usual.stdin_timeout, usual.max_children), "{line}");
        assert_eq!(s.auth_hook_timeout, usual.auth_hook_timeout, "{line}");
    }
    let off = settings("rate_limit_disable = 1x\n");
    assert_eq!((off.rate_limit_volume, off.rate_limit_probe), (None, None));
    assert!(warnings("rate_limit_disable = 1x\n").contains("it counts as 'yes'"));
}
