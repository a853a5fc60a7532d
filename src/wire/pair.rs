//! Pairing messages: the original's two HTTP answers, and the frames that our own ends exchange.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::AgentName;

/// Label of the TLS exporter that the confirmation code is bound to (RFC 8446 7.5).
pub const EXPORTER_LABEL: &str = "EXPORTER-ctrl-exec-pair-2";
/// Bytes of a nonce of the strong form.
pub const NONCE: usize = 32;

/// How the dispatcher should find the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LookupBy {
    /// By its registered name, through the resolver.
    Hostname,
    /// By its registered address.
    Ip,
}

impl LookupBy {
    /// The word in files and options.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "hostname",
            Self::Ip => "ip",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "hostname" => Some(Self::Hostname),
            "ip" => Some(Self::Ip),
            _ => None,
        }
    }
}

/// What an agent says of itself in either form of the exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applicant {
    /// Its fully qualified host name: the name it will be registered under.
    pub hostname: AgentName,
    /// Its certificate request, PEM, exactly as sent.
    pub csr: String,
    /// Its wish for how to be looked up.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "lenient_lookup")]
    pub lookup_by: Option<LookupBy>,
    /// Its serving port.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "lenient_port")]
    pub port: Option<u16>,
    /// Its own address as it sees it.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "lenient_ip")]
    pub ip: Option<std::net::IpAddr>,
}

/// The original's request body (`POST /pair`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalRequest {
    /// Who asks.
    #[serde(flatten)]
    pub applicant: Applicant,
    /// 32 hex digits, echoed in the approval.
    #[serde(default)]
    pub nonce: String,
}

/// Why an original request is not queued: the documented `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// `invalid request`: no JSON object with `csr` and `hostname`.
    Request,
    /// `invalid hostname`.
    Hostname,
}

impl OriginalRequest {
    /// Reads a request body.
    pub fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let value: Value = serde_json::from_slice(body).map_err(|_| Unreadable::Request)?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (Some(hostname), Some(_)) = (text("hostname"), text("csr")) else { return Err(Unreadable::Request) };
        AgentName::parse(hostname).map_err(|_| Unreadable::Hostname)?;
        serde_json::from_value(value).map_err(|_| Unreadable::Request)
    }
}

/// Both of the original's answers: `pending` or `error` first, later `approved` or `denied`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalAnswer {
    /// `pending`, `error`, `approved` or `denied`.
    pub status: String,
    /// Request id, with `pending`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reqid: Option<String>,
    /// Why not, with `error` and `denied`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// The agent's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cert: Option<String>,
    /// The CA certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ca: Option<String>,
    /// Echo of the request's nonce.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub nonce: Option<String>,
    /// Serial of the dispatcher's certificate, canonical hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dispatcher_serial: Option<String>,
    /// The dispatcher's stable id.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dispatcher_id: Option<String>,
}

impl OriginalAnswer {
    /// `status: error` with the reason.
    #[must_use]
    pub fn error(reason: &str) -> Self {
        Self { status: "error".to_owned(), reason: Some(reason.to_owned()), ..Self::default() }
    }
}

/// What an agent sends in the strong form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "message")]
pub enum AgentMessage {
    /// First: who asks, and a commitment to a nonce that is still secret.
    Hello {
        /// Who asks.
        #[serde(flatten)]
        applicant: Applicant,
        /// Hex SHA-256 over label, exporter, CSR and nonce.
        commitment: String,
    },
    /// Third: the nonce, which must open the commitment.
    Open {
        /// Hex, [`NONCE`] bytes.
        nonce: String,
    },
    /// Last: certificate, key, CA and trust are checked and stored. Only now may the agent be registered.
    Stored,
    /// Instead of [`AgentMessage::Stored`], at any time after the pending answer: nothing was stored.
    Refused {
        /// Why: the operator said no, or the answer did not hold.
        reason: String,
    },
}

/// What a dispatcher sends in the strong form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "message")]
pub enum DispatcherMessage {
    /// Second: the dispatcher's nonce, and the CA that both codes will cover.
    Challenge {
        /// Hex, [`NONCE`] bytes.
        nonce: String,
        /// The CA certificate, PEM.
        ca: String,
    },
    /// Fourth: the request waits for the operator.
    Pending {
        /// Its id.
        reqid: String,
    },
    /// The operator approved.
    Approved {
        /// The agent's certificate, PEM.
        cert: String,
        /// Serial of the dispatcher's certificate, canonical hex.
        dispatcher_serial: String,
        /// The dispatcher's stable id.
        dispatcher_id: String,
    },
    /// Last: the agent stands in the registry.
    Registered,
    /// At any point: no.
    Denied {
        /// Why.
        reason: String,
    },
}

/// The original sends its port as number or text; anything that is no port counts as not sent.
fn lenient_port<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<u16>, D::Error> {
    let port = match Value::deserialize(input)? {
        Value::Number(number) => number.as_u64().and_then(|port| u16::try_from(port).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(port.filter(|port| *port != 0))
}

fn lenient_lookup<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<LookupBy>, D::Error> {
    Ok(Value::deserialize(input)?.as_str().and_then(LookupBy::parse))
}

fn lenient_ip<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<std::net::IpAddr>, D::Error> {
    Ok(Value::deserialize(input)?.as_str().and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_originals_request_is_read_with_its_habits() {
        let body = br#"{"hostname":"web","csr":"PEM","nonce":"00","port":"7450","ip":"junk","lookup_by":"x"}"#;
        let request = OriginalRequest::parse(body).unwrap();
        assert_eq!(request.applicant.port, Some(7450));
        assert_eq!(request.applicant.ip, None);
        assert_eq!(request.applicant.lookup_by, None);
    }

    #[test]
    fn a_request_that_cannot_be_queued_says_why() {
        assert_eq!(OriginalRequest::parse(b"{}").unwrap_err(), Unreadable::Request);
        assert_eq!(OriginalRequest::parse(b"[]").unwrap_err(), Unreadable::Request);
        assert_eq!(OriginalRequest::parse(br#"{"hostname":"../x","csr":"a"}"#).unwrap_err(), Unreadable::Hostname);
        assert_eq!(OriginalRequest::parse(br#"{"hostname":"","csr":"a"}"#).unwrap_err(), Unreadable::Request);
    }

    #[test]
    fn messages_of_the_strong_form_come_back_as_they_were() {
        let applicant = Applicant {
            hostname: AgentName::parse("web").unwrap(),
            csr: "PEM".into(),
            lookup_by: Some(LookupBy::Ip),
            port: Some(7443),
            ip: "::1".parse().ok(),
        };
        let hello = AgentMessage::Hello { applicant, commitment: "00".into() };
        let text = serde_json::to_string(&hello).unwrap();
        assert_eq!(serde_json::from_str::<AgentMessage>(&text).unwrap(), hello);
        assert_eq!(serde_json::to_string(&AgentMessage::Stored).unwrap(), r#"{"message":"stored"}"#);
        assert_eq!(
            serde_json::from_str::<DispatcherMessage>(r#"{"message":"registered"}"#).unwrap(),
            DispatcherMessage::Registered
        );
    }
}
