//! The sections of `agent.conf` to settings.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::profile::{self, Profile};
use super::{Account, AllowedIps, Findings, Placed, ProfileName, RateLimit, Root, Schema, Settings, Source};
use crate::conf::diagnostic::{Diagnostic, shown};
use crate::conf::endpoint::endpoint;
use crate::conf::lexer::{self, Section, Span};
use crate::conf::names::account;
use crate::conf::nearest::nearest;
use crate::conf::networks::network;
use crate::conf::reader::{Empty, Reader, duplicate};
use crate::conf::value::{self, Complaint};

/// Reads the whole file. Whatever is wrong is in `findings`; then the settings returned stand for nothing but the
/// names of the profiles that the file defines.
pub(super) fn settings(source: &Source, root: &Root, findings: &mut Findings) -> Settings {
    let path = source.shared_path();
    // Of a file that could not be read at all, only that is worth telling.
    let mut unread = Findings::default();
    let sections = lexer::sections(source, &path, findings);
    let findings = if source.text().is_ok() { findings } else { &mut unread };
    let top = sections.first().map(|top| top.settings.as_slice()).unwrap_or_default();
    let mut reader = Reader::new(&path, "", top, Empty::Refused, findings);
    let mut settings = top_level(source, root, &mut reader);
    let known = reader.finish(|key| {
        profile::KEYS.contains(&key).then(|| format!("'{key}' belongs in a [profile NAME] section, below its header"))
    });
    for section in sections.iter().skip(1) {
        let Some(header) = section.header else { continue };
        match kind(&header) {
            Ok(Kind::Tags) => tags(section, &known, &mut settings.tags, findings),
            Ok(Kind::Profile(name)) => {
                let profile = Profile::read(name, &header, section, &known, findings);
                add(profile, &header, &mut settings.profiles, findings);
            }
            Ok(Kind::Other) => findings.push(other(section, &header, &known)),
            Err(error) => findings.push(error),
        }
    }
    settings
}

/// A section of somebody else's is ignored, as the original does, with a warning. One with a key that is meant for us is an
/// error: whatever it was to restrict would not be.
fn other(section: &Section<'_>, header: &Span<'_>, known: &[&str]) -> Diagnostic {
    // As for tags: other programs have a `user` and a `port` too.
    let ours = |key: &&str| key.contains('_') && (known.contains(key) || profile::KEYS.contains(key));
    let error = header.error(format!("unknown section '[{}]'", shown(header.text())));
    match section.settings.iter().map(|setting| setting.key.text()).find(ours) {
        Some(key) if profile::KEYS.contains(&key) => {
            error.help(format!("'{key}' belongs in a [profile NAME] section: write [profile NAME]"))
        }
        Some(key) => error.help(format!("'{key}' belongs above the first section")),
        None => {
            let text = format!("unknown section '[{}]': nothing in it is used", shown(header.text()));
            header.error(text).help("this file has [tags] and [profile NAME]").into_warning()
        }
    }
}

fn top_level(source: &Source, root: &Root, r: &mut Reader<'_, '_>) -> Settings {
    let everywhere = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let limits = limits(r);
    let conf = |name: &str| root.path("/etc/ctrl-exec-agent").join(name);
    let state = |name: &str| root.path("/var/lib/ctrl-exec-agent").join(name);
    Settings {
        file: source.path().to_owned(),
        port: r.required("port", value::port_or_any, "7443"),
        bind: r.list("bind", &[','], value::address).unwrap_or(Placed::default_of(everywhere)),
        cert: r.required_path("cert", &conf("agent.crt")),
        key: r.required_path("key", &conf("agent.key")),
        ca: r.required_path("ca", &conf("ca.crt")),
        pairing_port: *r.get_or("pairing_port", value::port_or_any, 7444),
        user: r.get_or("user", account("user"), Account::Name("ctrl-exec-agent".to_owned())),
        script_dirs: r.some_of("script_dirs", &[':'], value::absolute, "no script is in it").map(Placed::into_inner),
        trusted_paths: r.get_or("trusted_paths", value::switch, true),
        executor_socket: r.get("executor_socket", value::socket),
        trusted_dispatchers_path: r.path_or("trusted_dispatchers_path", state("ctrl-exec-dispatchers")),
        revoked_serials: r.path_or("revoked_serials", conf("revoked-serials")),
        cert_staging_path: r.path_or("cert_staging_path", state("agent.crt.staged")),
        async_runs_dir: r.path_or("async_runs_dir", state("runs")),
        stdin_timeout: ten_seconds(r, "stdin_timeout"),
        stall_timeout: *r.get_or("stall_timeout", value::seconds(1..=86_400), Duration::from_mins(15)),
        max_children: max_children(r),
        max_output: *r.get_or("max_output", value::bytes(1 << 10..=1 << 30), 16 << 20),
        async_max_bytes: *r.get_or("async_max_bytes", value::bytes(1 << 20..=1 << 50), 1 << 30),
        schema: *r.get_or("schema", schema, Schema::Enforce),
        auth_hook: r.get("auth_hook", value::absolute),
        auth_hook_timeout: ten_seconds(r, "auth_hook_timeout"),
        allowed_ips: r.list("allowed_ips", &[','], network).map(Placed::into_inner).map(AllowedIps::new),
        rate_limit_volume: limits.volume,
        rate_limit_probe: limits.probe,
        metrics: r.get("metrics", endpoint),
        tags: BTreeMap::new(),
        profiles: BTreeMap::new(),
        lines: r.lines(),
    }
}

/// The limits on what one address does: in all, and what fails.
fn limits(r: &mut Reader<'_, '_>) -> Limits {
    let off = r.lenient("rate_limit_disable", value::switch, false, |text| {
        if text.starts_with(['1', 'y', 'Y']) { (true, "it counts as 'yes'") } else { (false, "it counts as 'no'") }
    });
    let volume = Some(RateLimit::new(10, 60, 300));
    let volume = r.lenient("rate_limit_volume", value::rate, volume, |_| (volume, "10/60/300 applies"));
    let probe = Some(RateLimit::new(3, 600, 3600));
    let probe = r.lenient("rate_limit_probe", value::rate, probe, |_| (probe, "3/600/3600 applies"));
    if off { Limits::default() } else { Limits { volume, probe } }
}

#[derive(Default)]
struct Limits {
    volume: Option<RateLimit>,
    probe: Option<RateLimit>,
}

fn ten_seconds(r: &mut Reader<'_, '_>, key: &'static str) -> Duration {
    let usual = Duration::from_secs(10);
    r.lenient(key, value::seconds(1..=3600), usual, |_| (usual, "10 applies"))
}

fn max_children(r: &mut Reader<'_, '_>) -> usize {
    let most = r.lenient("max_children", value::count(1..=65_535), 256, |_| (256, "256 applies"));
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// The keys that stand above the first section.
#[cfg(test)]
pub(super) fn keys() -> Vec<&'static str> {
    let (mut findings, path) = (Findings::default(), std::path::Path::new("agent.conf").into());
    let mut reader = Reader::new(&path, "", &[], Empty::Refused, &mut findings);
    top_level(&Source::new("agent.conf", ""), &Root::new(None), &mut reader);
    reader.finish(|_| None)
}

fn schema(text: &str) -> Result<Schema, Complaint> {
    match text {
        "enforce" => Ok(Schema::Enforce),
        "advertise" => Ok(Schema::Advertise),
        _ => Err(Complaint::of_key(format!("must be 'enforce' or 'advertise', not '{}'", shown(text)))
            .help("'enforce' refuses arguments that a script's contract does not allow; 'advertise' only shows it")),
    }
}

enum Kind {
    Tags,
    Profile(ProfileName),
    /// One like neither.
    Other,
}

fn kind(header: &Span<'_>) -> Result<Kind, Diagnostic> {
    let text = header.text();
    let (word, name) = text.split_once([' ', '\t']).map_or((text, ""), |(word, name)| (word, name.trim()));
    if text == "tags" {
        return Ok(Kind::Tags);
    }
    if word.eq_ignore_ascii_case("profile") {
        return ProfileName::parse(name).map(Kind::Profile).ok_or_else(|| {
            header
                .error(format!("'{}' is no profile name", shown(name)))
                .help("write [profile NAME]; a name has letters, digits, '_', '.' and '-'")
        });
    }
    let error = header.error(format!("unknown section '[{}]'", shown(text)));
    match nearest(word, ["tags", "profile"]) {
        Some("tags") => Err(error.help("did you mean '[tags]'?")),
        Some(_) => Err(error.help("did you mean '[profile NAME]'?")),
        None => Ok(Kind::Other),
    }
}

fn add(profile: Profile, header: &Span<'_>, all: &mut BTreeMap<ProfileName, Profile>, findings: &mut Findings) {
    let Some(earlier) = all.get(&profile.name) else {
        all.insert(profile.name.clone(), profile);
        return;
    };
    let (first, second) = (earlier.line(), profile.line());
    let message = format!("Profile '{}': defined twice, on line {first} and on line {second}", profile.name);
    findings.push(header.error(message).help("make one section of the two: which of them holds must not be a guess"));
}

/// Tags are free text: nothing but an empty one is wrong. What looks like a slip is warned about.
fn tags(section: &Section<'_>, known: &[&str], all: &mut BTreeMap<String, String>, findings: &mut Findings) {
    let mut seen: BTreeMap<&str, Span<'_>> = BTreeMap::new();
    for setting in &section.settings {
        let name = setting.key.text();
        if setting.value.is_empty() {
            let error = setting.equals.error(format!("the tag '{name}' has no value"));
            findings.push(error.help("write a value behind '=', or remove the line"));
        } else if let Some(comment) = setting.value.comment() {
            let error = comment.error(format!("this is part of the tag '{name}', not a comment"));
            findings.push(error.help("put a comment on a line of its own").into_warning());
        }
        // Names such as `user` or `port` make good tags; nobody means `allowed_ips` as one.
        if name.contains('_') && known.contains(&name) {
            let error = setting.key.error(format!("'{name}' is a tag here, not the setting of that name"));
            findings.push(error.help("a setting belongs above the first section").into_warning());
        }
        if let Some(earlier) = seen.insert(name, setting.key) {
            findings.push(duplicate(&setting.key, &earlier));
        }
        all.insert(name.to_owned(), setting.value.text().to_owned());
    }
}
