//! Certificates made with the library itself, which takes microseconds where the openssl program takes seconds.

use std::path::Path;

use ctrl_exec::pki::ca::{Ca, DEFAULT_DAYS, DEFAULT_NAME};
use ctrl_exec::pki::cert::Certificate;
use ctrl_exec::pki::csr::{self, ExpectedName};
use ctrl_exec::pki::{key, serial};
use ctrl_exec::wire::name::AgentName;
use time::{Duration, OffsetDateTime};

/// A certificate with its key, as PEM texts.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Credentials {
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_pem_file(&self.cert).unwrap()
    }

    /// Canonical hex.
    pub(crate) fn serial(&self) -> String {
        self.certificate().serial().to_string()
    }

    pub(crate) fn load(cert: &Path, key: &Path) -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap();
        Self { cert: read(cert), key: read(key) }
    }
}

/// The CA that `setup-ca` made in this directory.
pub(crate) fn authority(dir: &Path) -> Ca {
    let read = |name| std::fs::read_to_string(dir.join(name)).unwrap();
    Ca::load(&read("ca.key"), &read("ca.crt")).unwrap()
}

/// Another CA of the same name.
pub(crate) fn foreign_authority() -> Ca {
    Ca::create(DEFAULT_NAME, DEFAULT_DAYS, &serial::fresh().unwrap(), time::OffsetDateTime::now_utc()).unwrap()
}

/// A certificate that is valid now.
pub(crate) fn issue(ca: &Ca, name: &str) -> Credentials {
    issue_at(ca, name, 30, time::OffsetDateTime::now_utc())
}

/// A certificate whose time is over.
pub(crate) fn issue_expired(ca: &Ca, name: &str) -> Credentials {
    issue_at(ca, name, 10, time::OffsetDateTime::now_utc() - Duration::days(20))
}

/// Another certificate for the key of this one, valid for `days` from now.
pub(crate) fn reissue(ca: &Ca, name: &str, of: &Credentials, days: u32) -> Credentials {
    reissue_at(ca, name, of, days, time::OffsetDateTime::now_utc())
}

/// The same, valid from this moment.
pub(crate) fn reissue_at(ca: &Ca, name: &str, of: &Credentials, days: u32, from: OffsetDateTime) -> Credentials {
    let key = key::PrivateKey::from_pem(&of.key).unwrap();
    let request = csr::make(&key, &AgentName::parse(name).unwrap()).unwrap();
    let request = csr::check(&request, ExpectedName::Exactly(name)).unwrap();
    let cert = ca.sign_agent(&request, &serial::fresh().unwrap(), days, from).unwrap();
    Credentials { cert: cert.to_pem(), key: of.key.clone() }
}

fn issue_at(ca: &Ca, name: &str, days: u32, now: OffsetDateTime) -> Credentials {
    let key = key::generate().unwrap();
    let request = csr::make(&key, &AgentName::parse(name).unwrap()).unwrap();
    let request = csr::check(&request, ExpectedName::Exactly(name)).unwrap();
    let cert = ca.sign_agent(&request, &serial::fresh().unwrap(), days, now).unwrap();
    Credentials { cert: cert.to_pem(), key: key.to_pem() }
}
