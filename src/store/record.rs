//! One agent's registry record, in the original's form. Keys that we do not know are kept.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::loose;
use crate::wire::name::AgentName;
use crate::wire::pair::LookupBy;

/// Port of an agent whose record has none, or none that is a port.
pub const DEFAULT_PORT: u16 = 7443;

/// What the dispatcher knows of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Registered name; equals the file name.
    pub hostname: AgentName,
    /// Address to dial where `lookup_by` is `ip`; may be empty.
    #[serde(default, deserialize_with = "loose::text")]
    pub ip: String,
    /// When it was paired, UTC `YYYY-MM-DDTHH:MM:SSZ`.
    #[serde(default, deserialize_with = "loose::text")]
    pub paired: String,
    /// End of its certificate's validity, in OpenSSL's form.
    #[serde(default, deserialize_with = "loose::text")]
    pub expiry: String,
    /// Id of its pairing request.
    #[serde(default, deserialize_with = "loose::text")]
    pub reqid: String,
    /// How to find it.
    #[serde(default, deserialize_with = "lookup")]
    pub lookup_by: Lookup,
    /// Its serving port.
    #[serde(default = "default_port", deserialize_with = "port")]
    pub port: u16,
    /// Tags that discovery cached.
    #[serde(default, deserialize_with = "loose::tags")]
    pub tags: BTreeMap<String, Value>,
    /// Serial of the dispatcher certificate that the agent is believed to trust.
    #[serde(default, deserialize_with = "loose::text")]
    pub dispatcher_serial: String,
    /// `current`, `pending`, `stale` or `unknown`.
    #[serde(default, deserialize_with = "loose::text")]
    pub serial_status: String,
    /// Common name in its certificate; absent in records of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_cn: Option<String>,
    /// Serial of its certificate, canonical hex; absent in records of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_serial: Option<String>,
    /// SHA-256 of its public key (SPKI), hex; absent in records of the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_key_sha256: Option<String>,
    /// Everything else, kept as it was.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `lookup_by` with the original's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lookup(pub LookupBy);

impl Default for Lookup {
    fn default() -> Self {
        Self(LookupBy::Hostname)
    }
}

impl AgentRecord {
    /// The host to dial: the address where the record says so and has one, else the name.
    #[must_use]
    pub fn address(&self) -> &str {
        if self.lookup_by.0 == LookupBy::Ip && !self.ip.is_empty() { &self.ip } else { self.hostname.as_str() }
    }

    /// Host and port as they stand in logs and messages, IPv6 in brackets.
    #[must_use]
    pub fn target(&self, port: u16) -> String {
        target(self.address(), port)
    }
}

/// `host:port`, with brackets round an IPv6 address (RFC 3986 3.2.2).
#[must_use]
pub fn target(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

const fn default_port() -> u16 {
    DEFAULT_PORT
}

/// The original writes anything but `ip` as `hostname` and reads it the same way.
fn lookup<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Lookup, D::Error> {
    Ok(Lookup(loose::lookup(input)?.unwrap_or(LookupBy::Hostname)))
}

/// What is no port is the default, as in the original.
fn port<'de, D: serde::Deserializer<'de>>(input: D) -> Result<u16, D::Error> {
    Ok(loose::port(input)?.unwrap_or(DEFAULT_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = r#"{"hostname":"vm","ip":"127.0.0.1","port":"7450","lookup_by":"dns","tags":{"env":"prod"},
        "serial_status":"current","serial_confirmed":"2026-01-01T00:00:00Z","paired":"2026-01-01T00:00:00Z",
        "expiry":"Jun  7 16:28:00 2028 GMT","reqid":"0123456789abcdef","dispatcher_serial":"2"}"#;

    #[test]
    fn a_record_of_the_original_is_read_and_nothing_of_it_is_lost() {
        let record: AgentRecord = serde_json::from_str(ORIGINAL).unwrap();
        assert_eq!(record.port, 7450);
        assert_eq!(record.lookup_by.0, LookupBy::Hostname);
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!(written["serial_confirmed"], "2026-01-01T00:00:00Z");
        assert_eq!(written["tags"]["env"], "prod");
    }

    #[test]
    fn an_ipv6_address_is_dialled_in_brackets() {
        let mut record: AgentRecord = serde_json::from_str(ORIGINAL).unwrap();
        record.ip = "::1".into();
        assert_eq!(record.target(7443), "vm:7443");
        record.lookup_by = Lookup(LookupBy::Ip);
        assert_eq!(record.target(7443), "[::1]:7443");
    }

    #[test]
    fn what_the_original_typed_loosely_is_read_all_the_same() {
        let text = r#"{"hostname":"vm","ip":null,"port":null,"reqid":12345,"tags":[],"expiry":null,"paired":false,
            "dispatcher_serial":4660,"serial_status":null,"lookup_by":null,"serial_broadcast":null}"#;
        let record: AgentRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.port, record.address(), record.reqid.as_str()), (7443, "vm", "12345"));
        assert_eq!((record.dispatcher_serial.as_str(), record.serial_status.as_str()), ("4660", ""));
        assert!(record.tags.is_empty() && record.extra["serial_broadcast"].is_null());
    }

    #[test]
    fn a_stub_record_is_read_with_defaults() {
        let record: AgentRecord = serde_json::from_str(r#"{"hostname":"vm"}"#).unwrap();
        assert_eq!((record.port, record.address()), (7443, "vm"));
    }
}
