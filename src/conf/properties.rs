//! What holds for every text.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::agent::load;
use super::scripts::Allowlist;
use super::{ConfErrors, Diagnostic, Root, Source, Warnings, agent, dispatcher};

/// Lines that are near enough to right ones to reach every corner.
fn line() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("port"),
        Just("cert"),
        Just("caps"),
        Just("run_as"),
        Just("writable"),
        Just("allowed_ips"),
        Just("bind"),
        Just("timeout"),
        Just("rate_limit_volume"),
        Just("max_output"),
        Just("memory_max"),
        Just("environment"),
        Just("umask"),
        Just("api_cert"),
        Just("user"),
        Just("prot"),
    ];
    let value = prop_oneof![
        Just("7443".to_owned()),
        Just("/a:/b".to_owned()),
        Just("x # y".to_owned()),
        Just("1/2/3".to_owned()),
        Just("10.0.0.0/8, ::1".to_owned()),
        Just("CAP_KILL".to_owned()),
        Just("A=1 B=\"x\\\" y\"".to_owned()),
        "\\PC{0,20}",
        ".{0,20}",
    ];
    prop_oneof![
        4 => (key, "[ \t]{0,2}", value).prop_map(|(key, blank, value)| format!("{blank}{key}{blank}={blank}{value}")),
        1 => prop_oneof![Just("[tags]"), Just("[profile p]"), Just("[profil q] # z"), Just("[")].prop_map(str::to_owned),
        1 => "[a-z]{1,5} = (/[a-z]{1,4}|[a-z]+=[a-z/]{0,3}|#){0,3}",
        1 => ".{0,40}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    vec(line(), 0..12).prop_map(|lines| lines.join("\n"))
}

fn findings(text: &str) -> Vec<Diagnostic> {
    let (source, root) = (Source::new("f", text), Root::default());
    let warned = |warnings: Warnings| warnings.iter().cloned().collect::<Vec<_>>();
    let refused = |errors: ConfErrors| {
        assert!(errors.iter().next().is_some(), "a refusal without a reason");
        errors.iter().cloned().collect::<Vec<_>>()
    };
    let mut all = agent::Settings::parse(&source, &root).map_or_else(refused, |(_, w)| warned(w));
    all.extend(dispatcher::Settings::parse(&source, &root).map_or_else(refused, |(_, w)| warned(w)));
    all.extend(Allowlist::parse(&source).map_or_else(refused, |(_, w)| warned(w)));
    all.extend(load(&source, &source, &root).map_or_else(refused, |loaded| warned(loaded.warnings)));
    all
}

/// The finding's place is in the text, and what is printed is one caret line under one excerpt.
fn placed_within(text: &str, finding: &Diagnostic) -> Result<(), TestCaseError> {
    let shown = finding.to_string();
    prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    let (Some(line), Some(column)) = (finding.line(), finding.column()) else { return Ok(()) };
    let length = text.trim_start_matches('\u{feff}').split('\n').nth(line - 1).unwrap().chars().count();
    prop_assert!((1..=length.max(1)).contains(&column), "column {column} of {length}: {shown}");
    let lines: Vec<&str> = shown.lines().collect();
    let (excerpt, carets) = (lines[1], lines[2]);
    prop_assert!(carets.trim_start().chars().all(|c| c == '^') && carets.contains('^'), "{shown}");
    // Wide characters take two columns, so twice the characters bound the caret line.
    prop_assert!(carets.chars().count() <= 4 + 2 * excerpt.chars().count(), "{shown}");
    Ok(())
}

/// A right `agent.conf`, as the pairs it is made of.
#[derive(Clone, Debug)]
struct Model {
    port: u16,
    max_children: u32,
    dirs: Vec<String>,
    networks: Vec<String>,
    tags: BTreeMap<String, String>,
    profiles: BTreeMap<String, (String, Vec<&'static str>, bool)>,
}

fn model() -> impl Strategy<Value = Model> {
    let network = prop_oneof![
        (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(a, p)| format!("{}/{p}", std::net::Ipv4Addr::from(a))),
        any::<[u8; 16]>().prop_map(|a| std::net::Ipv6Addr::from(a).to_string()),
    ];
    let caps = vec(prop_oneof![Just("CAP_CHOWN"), Just("CAP_KILL"), Just("CAP_FOWNER")], 0..3);
    let profile = ("[a-z_][a-z0-9_-]{0,8}", caps, any::<bool>());
    (
        any::<u16>(),
        1..=65_535_u32,
        vec("/[a-z/ ]{0,8}[a-z]", 0..3),
        vec(network, 0..3),
        btree_map("[a-z][a-z0-9]{0,6}", "[!-~é]([ -~é]{0,8}[!-~é])?", 0..3),
        btree_map("[a-z.-]{1,6}", profile, 0..3),
    )
        .prop_map(|(port, max_children, dirs, networks, tags, profiles)| Model {
            port,
            max_children,
            dirs,
            networks,
            tags,
            profiles,
        })
}

fn printed(model: &Model) -> String {
    let mut lines = vec![
        format!("port = {}", model.port),
        "cert=/c\nkey =/k\nca= /a".to_owned(),
        format!("  max_children\t= {}", model.max_children),
    ];
    if !model.dirs.is_empty() {
        lines.push(format!("script_dirs = {}", model.dirs.join(":")));
    }
    if !model.networks.is_empty() {
        lines.push(format!("allowed_ips = {}", model.networks.join(" , ")));
    }
    lines.push("[tags]".to_owned());
    lines.extend(model.tags.iter().map(|(key, value)| format!("{key} = {value}")));
    for (name, (run_as, caps, nnp)) in &model.profiles {
        lines.push(format!("[profile {name}]\nrun_as = {run_as}\nno_new_privileges = {nnp}"));
        lines.extend((!caps.is_empty()).then(|| format!("caps = {}", caps.join(", "))));
    }
    lines.join("\n")
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic_and_every_finding_lies_within_its_line(text in text()) {
        for finding in findings(&text) {
            placed_within(&text, &finding)?;
        }
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
        let source = Source::new("f", bytes);
        let _ = load(&source, &source, &Root::default()).map_err(|errors| errors.to_string());
        let _ = dispatcher::Settings::parse(&source, &Root::default()).map_err(|errors| errors.to_string());
    }

    #[test]
    fn what_a_right_file_says_is_what_is_read(model in model()) {
        let source = Source::new("f", printed(&model));
        let (settings, _) = agent::Settings::parse(&source, &Root::default()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(*settings.port, model.port);
        prop_assert_eq!(settings.max_children, usize::try_from(model.max_children).unwrap());
        let dirs = settings.script_dirs.unwrap_or_default();
        prop_assert_eq!(dirs, model.dirs.iter().map(std::path::PathBuf::from).collect::<Vec<_>>());
        prop_assert_eq!(settings.allowed_ips.map_or(0, |ips| ips.networks().len()), model.networks.len());
        prop_assert_eq!(settings.tags, model.tags);
        prop_assert_eq!(settings.profiles.len(), model.profiles.len());
        for (name, (run_as, caps, nnp)) in &model.profiles {
            let profile = &settings.profiles[name.as_str()];
            prop_assert_eq!(profile.run_as.as_ref().map(|account| account.to_string()), Some(run_as.clone()));
            prop_assert_eq!(profile.no_new_privileges, *nnp);
            prop_assert!(caps.iter().all(|cap| profile.caps.iter().any(|known| known.name() == *cap)));
        }
    }
}
