//! `<script>.schema.json`: what stands beside a script and describes it to callers.
//!
//! A sidecar is shown by `GET /capabilities` as it stands there, with the spelling of its numbers. If it has `arguments`, it is
//! also the script's argument contract, which `schema = enforce` holds callers to. What cannot be read is as if it were not
//! there, and the log and `self-check` say so; but where a contract was evidently meant, `enforce` refuses every call, since it
//! may have been meant to refuse this one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::canonical;
use super::contract::Contract;
use super::list_file;
use crate::audit::{Event, Level, Logger};
use crate::conf::agent::Schema;
use crate::conf::scripts::Allowlist;
use crate::sys::file;
use crate::wire::capabilities::Verbatim;
use crate::wire::causes;
use crate::wire::name::ScriptName;
use crate::wire::refusal::Refusal;
use crate::wire::{hex, spelling};

/// Largest sidecar, in bytes.
const SIZE: usize = 65_536;
/// Longest version of its own that a sidecar can have, in bytes.
const VERSION: usize = 64;
/// The word without which there is no contract.
const MEANT: &[u8] = b"\"arguments\"";
/// How a version begins that was made up from the body.
const DERIVED: &str = "sha256:";

/// Takes an action of the log and its reason.
pub type Say<'a> = &'a dyn Fn(&'static str, &str);

/// The sidecars of all scripts that have one.
#[derive(Debug, Default)]
pub struct Sidecars(BTreeMap<ScriptName, Sidecar>);

/// What stands beside one script.
#[derive(Debug)]
pub struct Sidecar {
    /// The body and its version, if it is fit to be shown.
    pub shown: Option<(Verbatim, String)>,
    /// Which arguments it allows.
    pub contract: Terms,
    /// Why it counts as absent, if it does; for the operator.
    pub skipped: Option<String>,
}

/// What a sidecar says about arguments.
#[derive(Debug)]
pub enum Terms {
    /// Nothing.
    Open,
    /// This.
    Contract(Box<Contract>),
    /// Something that cannot be used, or was meant to be said; the reason is for the operator.
    Broken(String),
}

impl Sidecars {
    /// Reads the sidecars of every listed script. What is wrong with them is logged, and is no reason not to serve.
    #[must_use]
    pub fn load(allowlist: &Allowlist, log: &Logger) -> Self {
        let all = allowlist.iter().filter_map(|entry| {
            let sidecar = Sidecar::read(&beside(entry.path()), &|action, reason| {
                let event = Event::new(Level::Warning, action).field("REASON", reason);
                log.emit(event.field("SCRIPT", entry.name()));
            })?;
            Some((entry.name().clone(), sidecar))
        });
        Self(all.collect())
    }

    /// The sidecar of a script, if it has one.
    #[must_use]
    pub fn get(&self, script: &ScriptName) -> Option<&Sidecar> {
        self.0.get(script)
    }

    /// Judges a call's arguments by the script's contract.
    ///
    /// # Errors
    /// `arguments-not-allowed`, or `contract-broken` for every call where the contract cannot be used.
    pub fn judge(&self, script: &ScriptName, args: &[String], schema: Schema) -> Result<(), Refusal> {
        match self.get(script).map(|sidecar| &sidecar.contract) {
            _ if schema == Schema::Advertise => Ok(()),
            None | Some(Terms::Open) => Ok(()),
            Some(Terms::Contract(contract)) => contract.check(args).map(drop),
            // The reason names files of this host; its operator finds it in the log and by self-check.
            Some(Terms::Broken(_)) => Err(Refusal::new(
                "contract-broken",
                "the script's argument contract cannot be used, so no call is allowed: 'ctrl-exec-agent self-check' on \
                 the host says why",
            )),
        }
    }
}

/// Where a script's sidecar is.
#[must_use]
pub fn beside(script: &Path) -> PathBuf {
    let mut path = OsString::from(script);
    path.push(".schema.json");
    path.into()
}

impl Sidecar {
    /// Reads one; none if there is no file.
    fn read(path: &Path, say: Say<'_>) -> Option<Self> {
        let (begin, reason) = match file::read_bounded(path, SIZE) {
            Ok(bytes) => match Self::parse(list_file::unmarked(&bytes), say) {
                Ok(sidecar) => return Some(sidecar),
                Err(reason) => (bytes, format!("{} is {reason}", path.display())),
            },
            Err(error) if error.is_not_found() && !list_file::leads_nowhere(path) => return None,
            Err(error) => (file::read_beginning(path, SIZE).unwrap_or_default(), causes::on_one_line(&error)),
        };
        say("schema-skip", &reason);
        let sidecar = Self::skipped(&begin, reason);
        if let Terms::Broken(reason) = &sidecar.contract {
            say("schema-broken", reason);
        }
        Some(sidecar)
    }

    /// One that counts as absent, but for a contract that was evidently meant: `begin` is what of it could be read.
    fn skipped(begin: &[u8], reason: String) -> Self {
        let meant = begin.windows(MEANT.len()).any(|part| part == MEANT);
        let contract = if meant { Terms::Broken(reason.clone()) } else { Terms::Open };
        Self { shown: None, contract, skipped: Some(reason) }
    }

    /// Reads what a file holds; `say` hears what is doubtful in it.
    ///
    /// # Errors
    /// What it is instead of a sidecar.
    pub fn parse(bytes: &[u8], say: Say<'_>) -> Result<Self, String> {
        let broken = |error: serde_json::Error| format!("no JSON: {error}");
        let Value::Object(body) = serde_json::from_slice(bytes).map_err(broken)? else {
            return Err("no JSON object".to_owned());
        };
        let version = match spelling::originals(bytes) {
            Cow::Borrowed(_) => version(&body, say),
            Cow::Owned(text) => version(&serde_json::from_slice(&text).map_err(broken)?, say),
        };
        let text = Verbatim::new(bytes).map_err(broken)?;
        Ok(Self { shown: Some((text, version)), contract: Terms::of(&body, say), skipped: None })
    }
}

impl Terms {
    fn of(body: &Map<String, Value>, say: Say<'_>) -> Self {
        let Some(arguments) = body.get("arguments") else { return Self::Open };
        match Contract::new(arguments, body.get("argv")) {
            Ok(contract) => Self::Contract(Box::new(contract)),
            Err(reason) => {
                say("schema-broken", &reason);
                Self::Broken(reason)
            }
        }
    }
}

/// The own version of a body as the original reads it, if it has a good one; else one that is made up from what it says.
fn version(body: &Map<String, Value>, say: Say<'_>) -> String {
    let own = match body.get("version") {
        Some(Value::String(text)) => Some(text.clone()),
        // As in the text that digests are taken of.
        Some(Value::Number(number)) => Some(canonical::number(number)),
        _ => None,
    };
    let fits = |text: &String| {
        let alphabet = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        alphabet && (1..=VERSION).contains(&text.len())
    };
    if let Some(version) = own.filter(fits) {
        return version;
    }
    if body.contains_key("version") {
        say("schema-version-derive", "'version' is not 1 to 64 letters, digits, '.', '_' and '-'");
    }
    let digest = hex::encode(&file::digest_of(&canonical::bytes(body)));
    format!("{DERIVED}{}", digest.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::sys::file::Access;

    /// The version of a body, and what was said about it.
    fn versioned(body: &str) -> (String, Vec<String>) {
        let said = RefCell::new(Vec::new());
        let sidecar = Sidecar::parse(body.as_bytes(), &|action, _| said.borrow_mut().push(action.to_owned())).unwrap();
        let (shown, version) = sidecar.shown.unwrap();
        assert_eq!(shown.as_str(), body.trim());
        (version, said.into_inner())
    }

    #[test]
    fn a_good_version_of_its_own_is_taken() {
        for (body, expected) in [
            (r#"{"version":"1.2-rc_3"}"#, "1.2-rc_3"),
            (r#"{"version":2}"#, "2"),
            (r#"{"version":1.5}"#, "1.5"),
            (r#"{"version":2.0}"#, "2"),
            (r#"{"version":1e3}"#, "1000"),
            (r#"{"version":12345678901234567890123}"#, "12345678901234567890123"),
            (r#"{"version":-9223372036854775809}"#, "-9223372036854775809"),
        ] {
            assert_eq!(versioned(body), (expected.to_owned(), vec![]), "{body}");
        }
    }

    #[test]
    fn another_version_is_derived_and_said() {
        for body in [r#"{"version":"a b"}"#, r#"{"version":"sha256:0"}"#, r#"{"version":true}"#, r#"{"version":""}"#] {
            let (version, said) = versioned(body);
            assert!(version.starts_with(DERIVED) && version.len() == 19, "{body}: {version}");
            assert_eq!(said, ["schema-version-derive"], "{body}");
        }
        assert_eq!(versioned(&format!(r#"{{"version":"{}"}}"#, "x".repeat(65))).1.len(), 1);
        assert_eq!(versioned("{}").1.len(), 0);
    }

    /// `printf '{"a":1,"b":"x"}' | sha256sum`
    #[test]
    fn a_derived_version_depends_on_what_is_said_and_not_on_how() {
        assert_eq!(versioned(r#"{"b": "x", "a": 1}"#).0, versioned("{\"a\":1,\n\"b\":\"\\u0078\"}").0);
        assert_ne!(versioned(r#"{"a":1}"#).0, versioned(r#"{"a":2}"#).0);
        // As numbers of 64 bits they are the same.
        let large = |last: u8| versioned(&format!("{{\"a\": [1234567890123456789012{last}]}}")).0;
        assert_ne!(large(3), large(4));
        assert_eq!(large(3), versioned(r#"{"a":["12345678901234567890123"]}"#).0);
    }

    #[test]
    fn a_number_is_shown_as_it_was_spelt() {
        let text = "{\n \"const\": [12345678901234567890123, 2.50, 1e3, -0, 1.0],\n \"x\": \"\\u00e9\" }";
        let (shown, _) = Sidecar::parse(format!(" {text}\n").as_bytes(), &|_, _| ()).unwrap().shown.unwrap();
        assert_eq!(shown.as_str(), text);
        assert_eq!(serde_json::to_string(&shown).unwrap(), text);
    }

    #[test]
    fn what_is_no_sidecar_stops_no_script_and_a_contract_in_it_is_not_lifted() {
        let dir = tempfile::tempdir().unwrap();
        let script = ScriptName::parse("x").unwrap();
        let path = dir.path().join("x.schema.json");
        let judged = |text: &[u8], schema| {
            file::write_atomic(&path, text, Access::private()).unwrap();
            let said = RefCell::new(Vec::new());
            let sidecar = Sidecar::read(&path, &|action, _| said.borrow_mut().push(action.to_owned())).unwrap();
            let shown = sidecar.shown.is_some();
            let sidecars = Sidecars(BTreeMap::from([(script.clone(), sidecar)]));
            let code = sidecars.judge(&script, &[], schema).err().map(|refusal| refusal.code().to_owned());
            (shown, code.unwrap_or_default(), said.into_inner().concat())
        };
        let large = format!("{{\"x\":\"{}\"}}", "x".repeat(SIZE));
        let skipped = |code: &str| (false, code.to_owned(), "schema-skip".to_owned());
        let meant = |code: &str| (false, code.to_owned(), "schema-skipschema-broken".to_owned());
        for text in [&b"{bad"[..], b"", b"[]", b"\xff", large.as_bytes()] {
            assert_eq!(judged(text, Schema::Enforce), skipped(""));
        }
        let late = format!("{{\"x\":\"{}\", \"arguments\": {{}}}}", "x".repeat(SIZE));
        let early = format!("{{\"arguments\": {{}}, \"x\":\"{}\"}}", "x".repeat(SIZE));
        for text in
            [&b"{\"arguments\": {},}"[..], b"\xef\xbb\xbf{\"arguments\"", early.as_bytes(), b"[{\"arguments\": {}}]"]
        {
            assert_eq!(judged(text, Schema::Enforce), meant("contract-broken"));
            assert_eq!(judged(text, Schema::Advertise), meant(""));
        }
        assert_eq!(judged(late.as_bytes(), Schema::Enforce), skipped(""));
        let marked = b"\xef\xbb\xbf{\"arguments\": {\"required\": [\"x\"], \"properties\": {\"x\": {}}}}";
        assert_eq!(judged(marked, Schema::Enforce), (true, "arguments-not-allowed".to_owned(), String::new()));
        let broken = br#"{"arguments": {"type": "objekt"}}"#;
        assert_eq!(judged(broken, Schema::Enforce), (true, "contract-broken".to_owned(), "schema-broken".to_owned()));
        let open = br#"{"description": "no arguments", "argv": "x"}"#;
        assert_eq!(judged(open, Schema::Enforce), (true, String::new(), String::new()));
        file::remove(&path).unwrap();
        assert!(Sidecar::read(&path, &|_, _| unreachable!()).is_none());
        std::os::unix::fs::symlink(dir.path().join("none"), &path).unwrap();
        assert!(Sidecar::read(&path, &|_, _| ()).unwrap().skipped.is_some());
    }
}
