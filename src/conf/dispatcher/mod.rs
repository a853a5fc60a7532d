//! `ctrl-exec.conf`: the dispatcher's and the API's settings.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::conf::diagnostic::{ConfErrors, Findings, Warnings, shown};
use crate::conf::lexer::{self, Section, Setting};
use crate::conf::names::user_name;
use crate::conf::reader::{Empty, Placed, Reader};
use crate::conf::root::Root;
use crate::conf::source::Source;
use crate::conf::value::{self, RateLimit};
use crate::wire::name::DispatcherId;

const DAY: u32 = 24 * 60 * 60;
/// A century: longer certificates are a slip of the pen, and fit no 32-bit number of seconds.
const MAX_DAYS: u32 = 36_500;

/// Everything `ctrl-exec.conf` says, with the defaults for what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file this came from.
    pub file: PathBuf,
    /// `cert`: the dispatcher's certificate. Required.
    pub cert: Placed<PathBuf>,
    /// `key`: its private key. Required.
    pub key: Placed<PathBuf>,
    /// `ca`: the CA's certificate. Required.
    pub ca: Placed<PathBuf>,
    /// `port`: where agents listen unless the registry or the caller says otherwise (7443).
    pub port: u16,
    /// `dispatcher_id`, made safe: the identity agents know this dispatcher by. None: the host's name, through
    /// [`DispatcherId::sanitise`].
    pub dispatcher_id: Option<DispatcherId>,
    /// `service_user`: the account that new dispatcher keys are given to (`ctrl-exec`).
    pub service_user: Placed<String>,
    /// `auth_hook`: the executable that judges requests. None: no hook.
    pub auth_hook: Option<Placed<PathBuf>>,
    /// `auth_hook_timeout`: a hook that takes longer denies (10 s; 1 to 3600).
    pub auth_hook_timeout: Duration,
    /// `read_timeout` (or its old name `timeout`): the wait for an agent's answer (60 s; up to a day).
    pub read_timeout: Duration,
    /// `max_parallel`: agents asked at the same time (64; 1 to 65535).
    pub max_parallel: usize,
    /// `max_output`: bytes of each output stream that a buffered reply keeps (16 MiB; 1 KiB to 1 GiB).
    pub max_output: u64,
    /// `ca_dir`: where the CA lives (`/etc/ctrl-exec`).
    pub ca_dir: Placed<PathBuf>,
    /// `registry_dir`: one record an agent (`/var/lib/ctrl-exec/agents`).
    pub registry_dir: Placed<PathBuf>,
    /// `rotation_file`: the state of a certificate rotation (`/var/lib/ctrl-exec/rotation.json`).
    pub rotation_file: Placed<PathBuf>,
    /// The `cert_*` keys.
    pub lifetimes: Lifetimes,
    /// The `pairing_*` keys.
    pub pairing: Pairing,
    /// The `api_*` keys and `auth_deny_generic`.
    pub api: Api,
    root: Root,
}

/// How long certificates live and when they are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// `cert_days`: days that a new certificate is valid (365; 1 to 36500).
    pub days: u32,
    /// `cert_renewal_days`: the dispatcher's own is rotated with so many days left (90; up to 36500, 0 waits for its end).
    pub renewal_days: u32,
    /// `cert_overlap_days`: days that the old serial stays trusted after a rotation (30; up to 36500, 0 for none).
    pub overlap_days: u32,
    /// `cert_check_interval`: time between two checks (14400 s; 1 s to a year).
    pub check_interval: Duration,
}

/// The pairing session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairing {
    /// `pairing_timeout`: how long a session is open (600 s; 1 to 600).
    pub timeout: Duration,
    /// `pairing_max_queue`: requests that may wait for an answer (10; 1 to 10000).
    pub max_queue: usize,
    /// `pairing_rate_limit_volume`, unless `pairing_rate_limit_disable` is on (10 in 60 s, then 300 s).
    pub rate_limit: Option<RateLimit>,
    /// `pairing_original`: agents of the original may pair, whose codes a relay can forge (no).
    pub original: bool,
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// `api_port`; 0 lets the kernel choose (7445).
    pub port: Placed<u16>,
    /// `api_bind`: the addresses to listen on (127.0.0.1).
    pub bind: Placed<Vec<IpAddr>>,
    /// `api_cert` and `api_key`. None: plain HTTP.
    pub tls: Option<ApiTls>,
    /// `api_auth_default`: whether requests are allowed when there is no hook (deny).
    pub allow_without_hook: bool,
    /// `auth_deny_generic`: a denial does not tell its reason (no).
    pub deny_generic: bool,
    /// `api_max_children`: requests handled at the same time (64; 1 to 65535).
    pub max_children: usize,
    /// `api_max_hosts`: hosts one request may name (10000; 1 to 1000000).
    pub max_hosts: usize,
}

/// What makes the API speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiTls {
    /// `api_cert`.
    pub cert: Placed<PathBuf>,
    /// `api_key`.
    pub key: Placed<PathBuf>,
}

impl Settings {
    /// The file's default place.
    pub const DEFAULT_PATH: &'static str = "/etc/ctrl-exec/ctrl-exec.conf";

    /// Reads the file; defaults of paths lie below `root`.
    ///
    /// # Errors
    /// All of them.
    pub fn parse(source: &Source, root: &Root) -> Result<(Self, Warnings), ConfErrors> {
        let (path, mut findings) = (source.shared_path(), Findings::default());
        let sections = lexer::sections(source, &path, &mut findings);
        let settings = flattened(sections, &mut findings);
        warn_of_indentation(&settings, &mut findings);
        let readable = source.text().is_ok();
        let mut reader = Reader::new(&path, "", &settings, Empty::Absent, &mut findings);
        let settings = Self::read(source, root, &mut reader);
        // Of a file that could not be read at all, only that is worth telling.
        if readable {
            reader.finish(|_| None);
            return findings.sorted().judge(settings);
        }
        let mut only = Findings::default();
        source.text().err().into_iter().for_each(|why| only.push(why.clone()));
        only.judge(settings)
    }

    fn read(source: &Source, root: &Root, r: &mut Reader<'_, '_>) -> Self {
        Self {
            file: source.path().to_owned(),
            cert: r.required_path("cert", &root.path("/etc/ctrl-exec/dispatcher.crt")),
            key: r.required_path("key", &root.path("/etc/ctrl-exec/dispatcher.key")),
            ca: r.required_path("ca", &root.path("/etc/ctrl-exec/ca.crt")),
            port: *r.get_or("port", value::port, 7443),
            dispatcher_id: r.get("dispatcher_id", |text| Ok(DispatcherId::sanitise(text))).map(Placed::into_inner),
            service_user: r.get_or("service_user", user_name("service_user"), "ctrl-exec".to_owned()),
            auth_hook: r.get("auth_hook", value::absolute),
            auth_hook_timeout: *r.get_or("auth_hook_timeout", value::seconds(1..=3600), Duration::from_secs(10)),
            read_timeout: read_timeout(r),
            max_parallel: count(r, "max_parallel", 65_535, 64),
            max_output: *r.get_or("max_output", value::bytes(1 << 10..=1 << 30), 16 << 20),
            ca_dir: r.path_or("ca_dir", root.path("/etc/ctrl-exec")),
            registry_dir: r.path_or("registry_dir", root.path("/var/lib/ctrl-exec/agents")),
            rotation_file: r.path_or("rotation_file", root.path("/var/lib/ctrl-exec/rotation.json")),
            lifetimes: Lifetimes::read(r),
            pairing: Pairing::read(r),
            api: Api::read(r),
            root: root.clone(),
        }
    }

    /// Where pairing requests wait for an answer.
    #[must_use]
    pub fn pairing_dir(&self) -> PathBuf {
        self.root.path("/var/lib/ctrl-exec/pairing")
    }

    /// Where the records of runs are kept.
    #[must_use]
    pub fn runs_dir(&self) -> PathBuf {
        self.root.path("/var/lib/ctrl-exec/runs")
    }

    /// Where a pairing session in the background leaves its process id.
    #[must_use]
    pub fn pairing_pidfile(&self) -> PathBuf {
        self.root.path("/var/lib/ctrl-exec/pairing-mode.pid")
    }
}

impl Lifetimes {
    fn read(r: &mut Reader<'_, '_>) -> Self {
        Self {
            days: *r.get_or("cert_days", value::count(1..=MAX_DAYS), 365),
            renewal_days: *r.get_or("cert_renewal_days", value::count(0..=MAX_DAYS), 90),
            overlap_days: *r.get_or("cert_overlap_days", value::count(0..=MAX_DAYS), 30),
            check_interval: *r.get_or("cert_check_interval", value::seconds(1..=365 * DAY), Duration::from_hours(4)),
        }
    }
}

impl Pairing {
    fn read(r: &mut Reader<'_, '_>) -> Self {
        let session = |text: &str| {
            value::seconds(1..=600)(text).map_err(|complaint| complaint.help("the same limit holds for --timeout"))
        };
        let volume = r.get_or("pairing_rate_limit_volume", value::rate, Some(RateLimit::new(10, 60, 300)));
        let disabled = *r.get_or("pairing_rate_limit_disable", value::switch, false);
        Self {
            timeout: *r.get_or("pairing_timeout", session, Duration::from_mins(10)),
            max_queue: count(r, "pairing_max_queue", 10_000, 10),
            rate_limit: volume.into_inner().filter(|_| !disabled),
            original: *r.get_or("pairing_original", value::switch, false),
        }
    }
}

impl Api {
    fn read(r: &mut Reader<'_, '_>) -> Self {
        let default_bind = || Placed::default_of(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        Self {
            port: r.get_or("api_port", value::port_or_any, 7445),
            bind: r.list("api_bind", &[','], value::api_address).unwrap_or_else(default_bind),
            tls: ApiTls::read(r),
            allow_without_hook: *r.get_or("api_auth_default", value::allow_or_deny, false),
            deny_generic: *r.get_or("auth_deny_generic", value::switch, false),
            max_children: count(r, "api_max_children", 65_535, 64),
            max_hosts: count(r, "api_max_hosts", 1_000_000, 10_000),
        }
    }
}

impl ApiTls {
    /// **Invariant:** one key without the other is an error. A typing error must never turn TLS off.
    fn read(r: &mut Reader<'_, '_>) -> Option<Self> {
        for (set, absent) in [("api_cert", "api_key"), ("api_key", "api_cert")] {
            if r.has(set) && !r.has(absent) {
                r.note(set, |key| {
                    key.error(format!("'{set}' is set, but '{absent}' is not"))
                        .help("set both and the API speaks TLS; set neither and it speaks plain HTTP")
                });
            }
        }
        let (cert, key) = (r.path("api_cert"), r.path("api_key"));
        Some(Self { cert: cert?, key: key? })
    }
}

fn count(r: &mut Reader<'_, '_>, key: &'static str, most: u32, default: u32) -> usize {
    usize::try_from(*r.get_or(key, value::count(1..=most), default)).unwrap_or(usize::MAX)
}

fn read_timeout(r: &mut Reader<'_, '_>) -> Duration {
    let limits = 1..=DAY;
    r.note("timeout", |key| {
        key.error("'timeout' is the old name of 'read_timeout'").help("rename it; 'read_timeout' wins").into_warning()
    });
    let old = r.get("timeout", value::seconds(limits.clone()));
    let new = r.get("read_timeout", value::seconds(limits));
    new.or(old).map_or(Duration::from_mins(1), Placed::into_inner)
}

/// This file has no sections; settings below a header count all the same, beside the error.
fn flattened<'s>(sections: Vec<Section<'s>>, findings: &mut Findings) -> Vec<Setting<'s>> {
    let mut all = Vec::new();
    for section in sections {
        if let Some(header) = section.header {
            let message = format!("unknown section '[{}]': this file has none", shown(header.text()));
            findings.push(header.error(message).help("remove the line; [tags] and [profile NAME] are for agent.conf"));
        }
        all.extend(section.settings);
    }
    all
}

/// Once a file: an operator who upgrades must hear of settings that come alive.
fn warn_of_indentation(settings: &[Setting<'_>], findings: &mut Findings) {
    let mut indented = settings.iter().filter(|setting| setting.indented);
    let Some(first) = indented.next() else { return };
    let more = match indented.count() {
        0 => String::new(),
        count => format!(" ({count} more in this file)"),
    };
    let message = format!("'{}' is indented: such a line used to be ignored, now it counts{more}", first.key.text());
    findings.push(first.key.error(message).help("unindent it to keep it, or remove it").into_warning());
}

#[cfg(test)]
mod tests;
