//! Every key of `ctrl-exec.conf`, and what is said about a wrong one.

use super::*;

const REQUIRED: &str = "cert = /c\nkey = /k\nca = /a\n";

fn parse(text: &str) -> Result<(Settings, Warnings), String> {
    let source = Source::new("/etc/ctrl-exec/ctrl-exec.conf", text);
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

#[test]
fn what_the_file_does_not_say_has_its_default_below_the_root() {
    let s = settings("");
    assert_eq!((s.port, s.max_parallel, s.max_output), (7443, 64, 16 << 20));
    assert_eq!(s.cert.as_path(), std::path::Path::new("/c"));
    assert_eq!((s.auth_hook_timeout, s.read_timeout), (Duration::from_secs(10), Duration::from_mins(1)));
    assert_eq!((s.dispatcher_id.clone(), s.auth_hook.clone()), (None, None));
    assert_eq!(s.service_user.as_str(), "ctrl-exec");
    let l = &s.lifetimes;
    assert_eq!((l.days, l.renewal_days, l.overlap_days), (365, 90, 30));
    assert_eq!(l.check_interval, Duration::from_hours(4));
    assert_eq!((s.pairing.timeout, s.pairing.max_queue), (Duration::from_mins(10), 10));
    assert_eq!((s.pairing.rate_limit, s.pairing.original), (Some(RateLimit::new(10, 60, 300)), false));
    assert_eq!((*s.api.port, s.api.max_children, s.api.max_hosts), (7445, 64, 10_000));
    assert_eq!(s.api.bind.to_vec(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!((s.api.tls.clone(), s.api.allow_without_hook, s.api.deny_generic), (None, false, false));
    assert_eq!(s.ca_dir.to_str(), Some("/r/etc/ctrl-exec"));
    assert_eq!(s.registry_dir.to_str(), Some("/r/var/lib/ctrl-exec/agents"));
    assert_eq!(s.rotation_file.to_str(), Some("/r/var/lib/ctrl-exec/rotation.json"));
    assert_eq!(s.pairing_dir().to_str(), Some("/r/var/lib/ctrl-exec/pairing"));
    assert_eq!(s.pairing_pidfile().to_str(), Some("/r/var/lib/ctrl-exec/pairing-mode.pid"));
}

#[test]
fn every_key_is_read() {
    let s = settings(
        "port=1\nauth_hook=/h\nauth_hook_timeout=2\nread_timeout=3\nmax_parallel=4\ncert_days=5\n\
         cert_renewal_days=6\ncert_overlap_days=7\ncert_check_interval=8\nca_dir=/9\nregistry_dir=/10\n\
         rotation_file=/11\nservice_user=svc\ndispatcher_id=my host\npairing_timeout=12\npairing_max_queue=13\n\
         pairing_rate_limit_volume=1/2/3\npairing_original=yes\napi_port=0\napi_bind=::1, 10.0.0.1\napi_cert=/14\n\
         api_key=/15\napi_auth_default=Allow\napi_max_children=16\nauth_deny_generic=1\napi_max_hosts=17\n\
         max_output=1MiB\n",
    );
    let secs = Duration::from_secs;
    assert_eq!((s.port, s.auth_hook_timeout, s.read_timeout, s.max_parallel), (1, secs(2), secs(3), 4));
    let l = &s.lifetimes;
    assert_eq!((l.days, l.renewal_days, l.overlap_days, l.check_interval), (5, 6, 7, secs(8)));
    assert_eq!((s.ca_dir.to_str(), s.registry_dir.to_str()), (Some("/9"), Some("/10")));
    assert_eq!((s.rotation_file.to_str(), s.auth_hook.unwrap().to_str()), (Some("/11"), Some("/h")));
    assert_eq!((s.service_user.as_str(), s.dispatcher_id.as_ref().map(DispatcherId::as_str)), ("svc", Some("my-host")));
    assert_eq!((s.pairing.timeout, s.pairing.max_queue, s.pairing.original), (secs(12), 13, true));
    assert_eq!(s.pairing.rate_limit, Some(RateLimit::new(1, 2, 3)));
    assert_eq!((*s.api.port, s.api.bind.len(), s.api.max_children, s.api.max_hosts), (0, 2, 16, 17));
    let tls = s.api.tls.unwrap();
    assert_eq!((tls.cert.to_str(), tls.key.to_str()), (Some("/14"), Some("/15")));
    assert_eq!((s.api.allow_without_hook, s.api.deny_generic, s.max_output), (true, true, 1 << 20));
}

#[test]
fn missing_required_keys_are_named_with_the_line_to_add() {
    let errors = parse("ca = /a\n").unwrap_err();
    assert!(errors.contains("/etc/ctrl-exec/ctrl-exec.conf: Missing required config key 'cert'"), "{errors}");
    assert!(errors.contains("add the line 'cert = /r/etc/ctrl-exec/dispatcher.crt'"), "{errors}");
    assert!(errors.contains("Missing required config key 'key'"), "{errors}");
    assert!(!errors.contains("'ca'"), "{errors}");
}

#[test]
fn an_indented_line_counts_and_the_file_is_warned_about_once() {
    let (s, warnings) = parse(&format!("{REQUIRED}  port = 1\n\tmax_parallel = 2\n # c\n \n")).unwrap();
    assert_eq!((s.port, s.max_parallel), (1, 2));
    assert_eq!(warnings.iter().count(), 1);
    let text = warnings.to_string();
    assert!(text.contains(":4:3: warning: 'port' is indented"), "{text}");
    assert!(text.contains("(1 more in this file)"), "{text}");
    assert!(parse(&format!("{REQUIRED}port = 1\n")).unwrap().1.is_empty());
}

#[test]
fn an_inline_comment_is_refused_at_its_sign_and_hides_no_other_error() {
    let errors = refusal("port = 7443 # mTLS\nmax_parallel = x # y\n");
    assert!(errors.contains(":4:13: a comment behind a value"), "{errors}");
    assert!(errors.contains(":5:18: a comment behind a value"), "{errors}");
    assert!(errors.contains(":5:16: max_parallel must be numeric, not 'x'"), "{errors}");
    let errors = parse("cert = # none\nkey = /k\nca = /a\n").unwrap_err();
    assert!(!errors.contains("Missing"), "{errors}");
    assert_eq!(settings("ca_dir = /a#b\n").ca_dir.to_str(), Some("/a#b"));
}

#[test]
fn unknown_keys_and_sections_are_refused_with_the_nearest_known_one() {
    let errors = refusal("max_paralel = 4\nbad-key = 3\n[tags]\nport = 1\n");
    assert!(errors.contains(":4:1: unknown key 'max_paralel'"), "{errors}");
    assert!(errors.contains("did you mean 'max_parallel'?"), "{errors}");
    assert!(errors.contains("unknown key 'bad-key'"), "{errors}");
    assert!(errors.contains(":6:2: unknown section '[tags]'"), "{errors}");
}

#[test]
fn an_empty_value_is_as_if_absent_with_a_warning() {
    let text = warnings("auth_hook =\nport = \n");
    assert!(text.contains(":4:11: warning: 'auth_hook' has no value"), "{text}");
    assert_eq!(settings("auth_hook =\n").auth_hook, None);
    let errors = parse("cert =\nkey = /k\nca = /a\n").unwrap_err();
    assert!(errors.contains("Missing required config key 'cert'"), "{errors}");
}

#[test]
fn a_key_set_twice_is_warned_about_with_both_lines_and_the_last_wins() {
    assert_eq!(settings("port = 1\nport = 2\n").port, 2);
    let text = warnings("port = 1\nport = 2\n");
    assert!(text.contains(":5:1: warning: 'port' is set twice: line 5 replaces line 4"), "{text}");
}

#[test]
fn the_old_name_of_read_timeout_is_taken_with_a_warning() {
    assert_eq!(settings("timeout = 5\n").read_timeout, Duration::from_secs(5));
    assert_eq!(settings("read_timeout = 7\ntimeout = 5\n").read_timeout, Duration::from_secs(7));
    assert!(warnings("timeout = 5\n").contains("old name of 'read_timeout'"));
}

#[test]
fn keys_of_removed_features_are_warned_about() {
    let text = warnings("dispatcher_cn = x\nsandbox = 1\n");
    assert!(text.contains("'dispatcher_cn' does nothing any more"), "{text}");
    assert!(text.contains("'sandbox' does nothing any more"), "{text}");
}

#[test]
fn api_certificate_and_key_stand_or_fall_together() {
    let errors = refusal("api_cert = /x\n");
    assert!(errors.contains(":4:1: 'api_cert' is set, but 'api_key' is not"), "{errors}");
    let errors = refusal("api_key = /x\napi_crt = /y\n");
    assert!(errors.contains("'api_key' is set, but 'api_cert' is not"), "{errors}");
    assert!(errors.contains("did you mean 'api_cert'?"), "{errors}");
    assert!(refusal("api_cert = /x\napi_key =\n").contains("'api_key' is not"));
}

#[test]
fn values_out_of_their_limits_are_refused() {
    for bad in [
        "port = 0",
        "port = 65536",
        "api_port = 65536",
        "pairing_timeout = 0",
        "pairing_timeout = 601",
        "max_parallel = 0",
        "cert_days = 0",
        "cert_days = 36501",
        "cert_check_interval = 0",
        "auth_hook = bin/hook",
        "auth_hook_timeout = 0",
        "read_timeout = 0",
        "pairing_max_queue = 0",
        "pairing_rate_limit_volume = 10/60",
        "pairing_rate_limit_disable = maybe",
        "api_bind = everywhere",
        "api_bind = ,",
        "api_auth_default = perhaps",
        "max_output = 10",
        "service_user = a b",
    ] {
        assert!(refusal(bad).contains(":4:"), "{bad}");
    }
    assert!(refusal("pairing_timeout = 601").contains("--timeout"));
    assert_eq!(settings("cert_renewal_days = 0\ncert_overlap_days = 0\n").lifetimes.renewal_days, 0);
}

#[test]
fn a_rate_limit_can_be_switched_off_both_ways() {
    assert_eq!(settings("pairing_rate_limit_disable = 1\n").pairing.rate_limit, None);
    assert_eq!(settings("pairing_rate_limit_volume = 0/0/0\n").pairing.rate_limit, None);
}

#[test]
fn a_relative_path_is_taken_with_a_warning() {
    assert_eq!(settings("ca_dir = here\n").ca_dir.to_str(), Some("here"));
    assert!(warnings("ca_dir = here\n").contains("warning: ca_dir is a relative path"));
}

#[test]
fn of_a_file_that_is_no_text_only_that_is_told() {
    let source = Source::new("x", b"\xff\xfea\0".to_vec());
    let errors = Settings::parse(&source, &Root::default()).unwrap_err();
    assert_eq!(errors.count(), 1);
}
