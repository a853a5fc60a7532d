//! What revocation list and trust map would say to a caller, and which of their lines.

use std::path::{Path, PathBuf};

use super::gate::{self, Facts, Found, Gate, Grounds, Refused, Rejection};
use crate::pki::revoked::{self, RevocationList};
use crate::pki::trust::{self, TrustMap};
use crate::wire::explanation::Line;
use crate::wire::name::DispatcherId;
use crate::wire::refusal::Refusal;
use crate::wire::serial::Serial;

/// Names of the two gates.
const REVOCATION: &str = Gate::Revocation.as_str();
const TRUST: &str = Gate::Trust.as_str();

/// Who asks, as far as that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Not said.
    Anybody,
    /// The holder of a certificate.
    Serial(Serial),
    /// A paired dispatcher, with any of its certificates.
    Dispatcher(DispatcherId),
}

/// One list, as it was read.
#[derive(Debug)]
pub struct List<T> {
    /// Its file.
    pub path: PathBuf,
    /// What it says and its text; or why this user cannot know.
    pub content: Result<(T, String), String>,
}

impl<T> List<T> {
    /// What it says, where it could be read.
    #[must_use]
    pub fn read(&self) -> Option<&T> {
        self.content.as_ref().ok().map(|(content, _)| content)
    }
}

/// Who may ask, and who may not.
#[derive(Debug)]
pub struct Lists {
    /// The revocation list.
    pub revoked: List<RevocationList>,
    /// The trust map.
    pub trust: List<TrustMap>,
}

impl Lists {
    /// The lines of both gates.
    #[must_use]
    pub fn lines(&self, who: &Who, grounds: &Grounds<'_>) -> [Line; 2] {
        let (revoked, trusted) = (&self.revoked.content, &self.trust.content);
        let [revocation, trust] = match (who, revoked, trusted) {
            (Who::Anybody, ..) => {
                [REVOCATION, TRUST].map(|gate| Line::not_judged(gate, "(no --serial and no --dispatcher)"))
            }
            (_, Ok((revoked, revocations)), Ok((trusted, texts))) => {
                return self.judged(who, (revoked, revocations), (trusted, texts), grounds);
            }
            (_, revoked, trusted) => {
                let unseen = |gate, error: Option<&String>| {
                    error.map_or(Line::not_reached(gate), |error| Line::unseen(gate, error.clone()))
                };
                [unseen(REVOCATION, revoked.as_ref().err()), unseen(TRUST, trusted.as_ref().err())]
            }
        };
        [revocation.at(place(&self.revoked.path, None)), trust.at(place(&self.trust.path, None))]
    }

    fn judged(
        &self,
        who: &Who,
        revoked: (&RevocationList, &str),
        trusted: (&TrustMap, &str),
        grounds: &Grounds<'_>,
    ) -> [Line; 2] {
        let serials: Vec<&Serial> = match who {
            Who::Serial(serial) => vec![serial],
            Who::Dispatcher(id) => {
                trusted.0.iter().filter(|(_, owner)| *owner == id).map(|(serial, _)| serial).collect()
            }
            Who::Anybody => Vec::new(),
        };
        // Any of a dispatcher's certificates will do.
        let good = serials.iter().copied().find(|serial| gate::judge_serial(serial, revoked.0, trusted.0).is_ok());
        let Some(serial) = good.or_else(|| serials.first().copied()) else {
            let refusal = Refusal::new("serial-reject", "no serial of the trust map belongs to this dispatcher");
            let unknown = Line::not_judged(REVOCATION, "no serial of this dispatcher is known");
            let stranger = Line::refuses(TRUST, &refusal);
            return [unknown.at(place(&self.revoked.path, None)), stranger.at(place(&self.trust.path, None))];
        };
        let [revocation, trust] = lines(serial, grounds);
        let of_revocation = place(&self.revoked.path, revoked::line_of(revoked.1, serial));
        [revocation.at(of_revocation), trust.at(place(&self.trust.path, trust::line_of(trusted.1, serial)))]
    }
}

fn lines(serial: &Serial, grounds: &Grounds<'_>) -> [Line; 2] {
    let facts = Facts { serial: Some(serial), ..Facts::default() };
    match gate::judge(Gate::Revocation, grounds, &facts) {
        Some(Ok(_)) => {
            let passes = Line::passes(REVOCATION, format!("{serial} is not revoked"));
            [passes, trust_line(serial, gate::judge(Gate::Trust, grounds, &facts))]
        }
        Some(Err(refused)) => {
            let refusal = Refusal::new(refused.code(), format!("{serial} is revoked"));
            [Line::refuses(REVOCATION, &refusal), Line::not_reached(TRUST)]
        }
        None => [Line::not_reached(REVOCATION), Line::not_reached(TRUST)],
    }
}

fn trust_line(serial: &Serial, judged: Option<Result<Found, Refused>>) -> Line {
    match judged {
        Some(Ok(Found::Dispatcher(id))) => Line::passes(TRUST, format!("{serial} is a certificate of '{id}'")),
        Some(Err(refused)) => {
            let text = match refused {
                Refused::Serial(Rejection::NobodyTrusted) => {
                    "the trust map is empty: this agent trusts nobody".to_owned()
                }
                _ => format!("{serial} is no serial that this agent was paired with"),
            };
            Line::refuses(TRUST, &Refusal::new(refused.code(), text))
        }
        Some(Ok(_)) | None => Line::not_reached(TRUST),
    }
}

fn place(path: &Path, line: Option<usize>) -> String {
    line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()))
}
