//! The pin: a registered agent must present the certificate that its registry entry was issued.
//!
//! Every certificate of the CA passes the handshake, so without this any agent could answer for any other and would
//! receive the arguments and the token of each run. Judged after the handshake and before the first byte of a request.
//!
//! Records of the original hold neither name nor key of the certificate. For these the certificate's common name must
//! be the registered name, or one that no other entry has a claim to (an agent that was renamed after pairing).

use crate::store::record::AgentRecord;
use crate::wire::name::AgentName;

/// What the agent's end of the connection proved to be.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Common name in its certificate.
    pub cn: &'a str,
    /// SHA-256 of its public key, hex.
    pub key_sha256: &'a str,
}

/// Another agent's certificate, or another key. Always carries the remedy, since an operator who re-installed a host
/// meets it as well as one who is under attack.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The name in the certificate is another's.
    #[error(
        "agent '{agent}' presented the certificate of '{cn}' - refused; if '{agent}' was installed anew, pair it again \
         (ctrl-exec-agent request-pairing there, approve here)"
    )]
    OtherName {
        /// Who was called.
        agent: AgentName,
        /// Who answered.
        cn: String,
    },
    /// The name is right and the key is not the one that was paired.
    #[error(
        "agent '{agent}' presented another key than the one it was paired with - refused; if '{agent}' was installed \
         anew, pair it again (ctrl-exec-agent request-pairing there, approve here)"
    )]
    OtherKey {
        /// Who was called.
        agent: AgentName,
    },
}

/// Judges what was presented. `claimed` says whether another registry entry has a claim to a common name; it is asked
/// only for records without a pin whose name differs.
pub fn judge(
    record: &AgentRecord,
    presented: Presented<'_>,
    claimed: impl FnOnce(&str) -> bool,
) -> Result<(), PinError> {
    let agent = || record.hostname.clone();
    let right_name = match &record.cert_cn {
        Some(cn) => cn == presented.cn,
        None => record.hostname.as_str() == presented.cn || !claimed(presented.cn),
    };
    if !right_name {
        return Err(PinError::OtherName { agent: agent(), cn: presented.cn.chars().take(255).collect() });
    }
    match &record.cert_key_sha256 {
        Some(key) if !key.eq_ignore_ascii_case(presented.key_sha256) => Err(PinError::OtherKey { agent: agent() }),
        _ => Ok(()),
    }
}

/// Whether a record has a claim to this common name.
#[must_use]
pub fn claims(record: &AgentRecord, cn: &str) -> bool {
    record.cert_cn.as_deref().unwrap_or(record.hostname.as_str()) == cn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, cn: Option<&str>, key: Option<&str>) -> AgentRecord {
        let mut record: AgentRecord = serde_json::from_value(serde_json::json!({ "hostname": name })).unwrap();
        record.cert_cn = cn.map(String::from);
        record.cert_key_sha256 = key.map(String::from);
        record
    }

    const WEB: Presented<'_> = Presented { cn: "web", key_sha256: "aa" };

    #[test]
    fn another_agents_certificate_never_passes() {
        for claimed in [true, false] {
            let error = judge(&record("db", Some("db"), Some("bb")), WEB, |_| claimed).unwrap_err();
            assert!(error.to_string().contains("agent 'db' presented the certificate of 'web'"), "{error}");
        }
        assert!(judge(&record("db", None, None), WEB, |_| true).is_err());
    }

    #[test]
    fn the_same_name_with_another_key_never_passes() {
        let error = judge(&record("web", Some("web"), Some("bb")), WEB, |_| false).unwrap_err();
        assert!(matches!(error, PinError::OtherKey { .. }) && error.to_string().contains("pair it again"));
    }

    #[test]
    fn a_renamed_agent_keeps_its_certificate() {
        assert!(judge(&record("web-01", Some("web"), Some("AA")), WEB, |_| false).is_ok());
        assert!(judge(&record("web-01", None, None), WEB, |_| false).is_ok());
    }

    #[test]
    fn a_record_of_the_original_is_pinned_by_its_name() {
        assert!(judge(&record("web", None, None), WEB, |_| true).is_ok());
    }

    #[test]
    fn a_name_is_claimed_by_its_certificate_first() {
        assert!(claims(&record("renamed", Some("web"), None), "web"));
        assert!(!claims(&record("web", Some("old"), None), "web"));
        assert!(claims(&record("web", None, None), "web"));
    }
}
