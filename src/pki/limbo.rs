//! Our verifier against the vectors of the x509-limbo project (C2SP/x509-limbo), the same that other X.509
//! implementations are measured with.
//!
//! Every case either has the result that the vectors expect or stands in the table of differences with its reason;
//! a case that leaves the table by itself fails too, so the table stays true.

use std::collections::BTreeMap;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

use super::cert::Certificate;
use super::chain::{self, ChainError, TrustAnchor, Usage, VerifiedLeaf};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/x509-limbo-194cases.json");
/// Stands in where a case names no time: most certificates in it are valid for 900 years.
const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

const NO_CRLS: &str = "CRLs are not read: revocation is by serial, from a list of our own";
const NO_INTERMEDIATES: &str = "a leaf is signed by the one CA or refused: intermediates are not looked at";
const CONSTRAINED_CA: &str = "a CA with name constraints is refused rather than used with them unevaluated";
const NO_NAMES: &str = "host names are never matched: the peer's certificate or serial is what is known";
const HINTS: &str = "key identifiers are hints for building paths, and there are none to build";
const OLD_CAS: &str = "CAs made with older tools leave the mark 'critical' out; the extension itself is demanded";
const WEB_RULES: &str =
    "rules of public web CAs for purposes; RFC 5280 asks for none, and any or more of them are fine";
const VERSION_1: &str = "leaves of the original are X.509 version 1";
const CA_IS_NO_PEER: &str = "a CA certificate is never a peer";
const FAULT_ABOVE: &str = "the fault lies above the issuer, which is taken for the CA here";
const NOT_THE_ISSUER: &str = "the good issuer of the leaf is not among the intermediates but is the root";
const NO_SUBJECT: &str = "a certificate without a subject names nobody, whatever its alternative names say";
const SELF_ISSUED: &str = "a CA certificate that names itself as issuer has to be signed with its own key";

/// Where the verdict differs from the expected one, when leaves are judged under the trusted roots.
const DIFFERENCES: &[(&str, &[&str])] = &[
    (
        NO_CRLS,
        &[
            "crl::revoked-certificate-with-crl",
            "crl::crlnumber-missing",
            "crl::crlnumber-critical",
            "crl::issuer-missing-crlsign",
        ],
    ),
    (
        NO_INTERMEDIATES,
        &[
            "cve::cve-2024-0567",
            "pathlen::ee-with-intermediate-pathlen-0",
            "pathlen::ee-with-intermediate-pathlen-1",
            "pathlen::ee-with-intermediate-pathlen-2",
            "pathlen::validation-ignores-pathlen-in-leaf",
            "pathlen::intermediate-pathlen-may-increase",
            "pathlen::self-issued-certs-pathlen",
            "pathlen::max-chain-depth-1",
            "pathlen::max-chain-depth-1-self-issued",
            "rfc5280::nc::nc-forbids-alternate-chain-ica",
            "rfc5280::nc::nc-forbids-same-chain-ica",
            "rfc5280::nc::nc-permits-email-exact",
            "rfc5280::nc::nc-permits-email-domain",
            "rfc5280::nc::nc-permits-email-literal-asterisk-exact-match",
            "rfc5280::nc::nc-permits-email-literal-double-asterisk",
            "rfc5280::nc::nc-permits-email-literal-mid-asterisk",
            "rfc5280::nc::nc-forbids-othername-noop",
            "rfc5280::validity::notbefore-exact",
            "rfc5280::validity::notafter-exact",
            "rfc5280::validity::notafter-fractional",
            "rfc5280::unknown-critical-extension-unrelated-intermediate",
            "webpki::nc::nc-permits-dns-san-pattern",
            "webpki::cryptographydotio-chain",
        ],
    ),
    (
        CONSTRAINED_CA,
        &[
            "rfc5280::nc::permitted-dns-match",
            "rfc5280::nc::permitted-dns-match-more",
            "rfc5280::nc::permitted-ipv4-match",
            "rfc5280::nc::permitted-ipv6-match",
            "rfc5280::nc::permitted-dn-match",
            "rfc5280::nc::permitted-self-issued",
            "rfc5280::nc::permitted-different-constraint-type",
            "rfc5280::nc::excluded-different-constraint-type",
            "webpki::nc::permitted-dns-match-noncritical",
        ],
    ),
    (
        NO_NAMES,
        &[
            "rfc5280::san::underscore-dns",
            "rfc5280::san::ip-in-dns",
            "webpki::cn::ipv4-hex-mismatch",
            "webpki::cn::ipv4-leading-zeros-mismatch",
            "webpki::cn::ipv6-uppercase-mismatch",
            "webpki::cn::ipv6-uncompressed-mismatch",
            "webpki::cn::ipv6-non-rfc5952-mismatch",
            "webpki::cn::punycode-not-in-san",
            "webpki::cn::utf8-vs-punycode-mismatch",
            "webpki::cn::not-in-san",
            "webpki::cn::case-mismatch",
            "webpki::san::mismatch-domain-san",
            "webpki::san::mismatch-subdomain-san",
            "webpki::san::mismatch-subdomain-apex-san",
            "webpki::san::mismatch-apex-subdomain-san",
            "webpki::san::public-suffix-wildcard-san",
            "webpki::san::public-suffix-multi-label-wildcard-san",
            "webpki::san::public-suffix-private-namespace-wildcard-san",
            "webpki::san::wildcard-embedded-leftmost-san",
            "webpki::san::wildcard-not-in-leftmost-san",
            "webpki::san::wildcard-match-across-labels-san",
            "webpki::san::wildcard-embedded-ulabel-san",
            "webpki::san::unicode-emoji-san",
            "webpki::san::no-san",
            "webpki::san::san-critical-with-nonempty-subject",
            "webpki::san::san-wildcard-only",
            "webpki::san::san-wildcard-only-tld",
        ],
    ),
    (
        HINTS,
        &[
            "rfc5280::aki::leaf-missing-aki",
            "rfc5280::aki::cross-signed-root-missing-aki",
            "rfc5280::ski::root-missing-ski",
            "webpki::aki::root-with-aki-missing-keyidentifier",
            "webpki::aki::root-with-aki-authoritycertissuer",
            "webpki::aki::root-with-aki-authoritycertserialnumber",
            "webpki::aki::root-with-aki-all-fields",
            "webpki::aki::root-with-aki-ski-mismatch",
        ],
    ),
    (OLD_CAS, &["rfc5280::root-non-critical-basic-constraints"]),
    (
        WEB_RULES,
        &[
            "webpki::eku::ee-anyeku",
            "webpki::eku::ee-critical-eku",
            "webpki::eku::ee-without-eku",
            "webpki::eku::root-has-eku",
        ],
    ),
    (VERSION_1, &["webpki::v1-cert"]),
    (CA_IS_NO_PEER, &["rfc5280::ca-as-leaf"]),
];

/// Where it differs when the intermediates are taken for the CA.
const DIFFERENCES_UNDER_ISSUER: &[(&str, &[&str])] = &[
    (
        FAULT_ABOVE,
        &[
            "pathlen::intermediate-violates-pathlen-0",
            "pathlen::intermediate-pathlen-too-long",
            "pathlen::max-chain-depth-0-exhausted",
            "pathlen::max-chain-depth-1-exhausted",
            "pathological::intermediate-cycle-distinct-cas",
            "pathological::intermediate-cycle-distinct-cas-max-depth",
            "pathological::pathological-chain-distinct-subject-distinct-key",
            "pathological::pathological-chain-distinct-subject-same-key",
            "pathological::pathological-chain-same-subject-same-key",
            "rfc5280::aki::intermediate-missing-aki",
            "rfc5280::nc::excluded-self-issued-leaf",
            "rfc5280::nc::intermediate-with-san-rejected-by-intermediate-nc",
            "rfc5280::nc::intermediate-with-san-rejected-by-root-nc",
            "rfc5280::pc::ica-noncritical-pc",
            "rfc5280::ski::intermediate-missing-ski",
            "rfc5280::validity::expired-root",
            "rfc5280::chain-untrusted-root",
        ],
    ),
    (NOT_THE_ISSUER, &["pathological::multiple-chains-expired-intermediate", "rfc5280::root-and-intermediate-swapped"]),
    (NO_SUBJECT, &["cve::cve-2024-0567"]),
    (SELF_ISSUED, &["pathlen::max-chain-depth-1-self-issued", "rfc5280::nc::permitted-self-issued"]),
    (CA_IS_NO_PEER, &["pathlen::validation-ignores-pathlen-in-leaf"]),
    (
        CONSTRAINED_CA,
        &[
            "rfc5280::nc::nc-permits-email-exact",
            "rfc5280::nc::nc-permits-email-domain",
            "rfc5280::nc::nc-permits-email-literal-asterisk-exact-match",
            "rfc5280::nc::nc-permits-email-literal-double-asterisk",
            "rfc5280::nc::nc-permits-email-literal-mid-asterisk",
            "rfc5280::nc::nc-forbids-othername-noop",
            "webpki::nc::nc-permits-dns-san-pattern",
        ],
    ),
];

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    validation_kind: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    validation_time: Option<String>,
    expected_result: String,
}

impl Case {
    /// The verdict under the first of these CAs that accepts, or else under the last.
    fn verdict(&self, roots: &[String]) -> Result<VerifiedLeaf, ChainError> {
        let usage = if self.validation_kind == "SERVER" { Usage::Server } else { Usage::Client };
        let now = self.validation_time.as_deref().map_or(NOW, |text| OffsetDateTime::parse(text, &Rfc3339).unwrap());
        let leaf = Certificate::from_pem_file(&self.peer_certificate)?;
        let judge =
            |root: &String| TrustAnchor::from_pem_file(root).and_then(|ca| chain::verify(leaf.der(), &ca, usage, now));
        let verdicts: Vec<_> = roots.iter().map(judge).collect();
        let last = verdicts.last().cloned().unwrap_or(Err(ChainError::NotCa));
        verdicts.into_iter().find(Result::is_ok).unwrap_or(last)
    }

    fn expected(&self) -> bool {
        self.expected_result == "SUCCESS"
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(VECTORS).unwrap();
    serde_json::from_str::<Limbo>(&text).unwrap().testcases
}

/// Compares all cases with the vectors and the table; says everything that is wrong at once.
fn compare(cases: &[(Case, Result<VerifiedLeaf, ChainError>)], table: &[(&str, &[&str])]) {
    let mut reasons: BTreeMap<&str, &str> =
        table.iter().flat_map(|(reason, ids)| ids.iter().map(|id| (*id, *reason))).collect();
    let mut wrong = Vec::new();
    for (case, verdict) in cases {
        let agrees = verdict.is_ok() == case.expected();
        match (agrees, reasons.remove(case.id.as_str())) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(reason)) => wrong.push(format!("{} agrees by now, contrary to: {reason}", case.id)),
            (false, None) => wrong.push(format!("{} should be {}: {verdict:?}", case.id, case.expected_result)),
        }
    }
    wrong.extend(reasons.keys().map(|id| format!("{id} is not among the cases")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_limbo_case_has_its_result_or_its_reason() {
    let judged: Vec<_> = cases().into_iter().map(|case| (case.verdict(&case.trusted_certs), case)).collect();
    assert_eq!(judged.len(), 194);
    let judged: Vec<_> = judged.into_iter().map(|(verdict, case)| (case, verdict)).collect();
    compare(&judged, DIFFERENCES);
}

/// The same leaves where the certificate that issued them is the CA: what an intermediate hides from the first test.
#[test]
fn every_limbo_leaf_under_its_own_issuer_has_its_result_or_its_reason() {
    let with_issuer = cases().into_iter().filter(|case| !case.untrusted_intermediates.is_empty());
    let judged: Vec<_> = with_issuer.map(|case| (case.verdict(&case.untrusted_intermediates), case)).collect();
    let judged: Vec<_> = judged.into_iter().map(|(verdict, case)| (case, verdict)).collect();
    compare(&judged, DIFFERENCES_UNDER_ISSUER);
}
