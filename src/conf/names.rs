//! Names that only configuration files give: accounts and profiles.

use std::fmt;

use super::diagnostic::shown;
use super::value::Complaint;

/// An account as an operator writes it: by name, or by number.
///
/// Whether it exists is for the room that looks it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Account {
    /// A user name: a letter or `_`, then letters, digits, `_` and `-`.
    Name(String),
    /// A user id; the group id is the same number.
    Id(u32),
}

impl Default for Account {
    /// Nobody in particular: an empty name, which no account has.
    fn default() -> Self {
        Self::Name(String::new())
    }
}

impl Account {
    /// An account without rights, for texts that tell what to write, which is not this one.
    #[must_use]
    pub fn another(&self) -> &'static str {
        // By every name and number that systems give to the first of them.
        let nobody = matches!(self, Self::Id(65_534)) || matches!(self, Self::Name(name) if name == "nobody");
        if nobody { "daemon" } else { "nobody" }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

/// Reads an account; `key` is the setting's name for the message.
pub(super) fn account(key: &'static str) -> impl Fn(&str) -> Result<Account, Complaint> {
    move |text| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The highest number is -1 to the kernel: "leave the user as it is", setresuid(2).
            let id = text.parse().ok().filter(|id| *id != u32::MAX);
            return id.map(Account::Id).ok_or_else(|| {
                Complaint::plain(format!("{key} '{}' out of range", shown(text))).help("a user id is below 4294967295")
            });
        }
        if is_user_name(text) {
            return Ok(Account::Name(text.to_owned()));
        }
        Err(Complaint::plain(format!("invalid {key} '{}'", shown(text)))
            .help("a user name (letters, digits, '_' and '-', a letter first) or a user id"))
    }
}

/// Reads the name of an account that must have one.
pub(super) fn user_name(key: &'static str) -> impl Fn(&str) -> Result<String, Complaint> {
    move |text| {
        let valid = is_user_name(text).then(|| text.to_owned());
        valid.ok_or_else(|| {
            Complaint::plain(format!("invalid {key} '{}'", shown(text)))
                .help("a user name has letters, digits, '_' and '-', a letter first")
        })
    }
}

fn is_user_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The name of a `[profile NAME]` section: letters, digits, `_`, `.` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(String);

impl ProfileName {
    /// The profile of a script that names none.
    pub const DEFAULT: &'static str = "default";

    /// The name in `text`, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        valid.then(|| Self(text.to_owned()))
    }

    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ProfileName {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl std::borrow::Borrow<str> for ProfileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_name_or_a_number() {
        let run_as = account("run_as");
        assert_eq!(run_as("nobody"), Ok(Account::Name("nobody".to_owned())));
        assert_eq!(run_as("_apt-1"), Ok(Account::Name("_apt-1".to_owned())));
        assert_eq!(run_as("0"), Ok(Account::Id(0)));
        assert_eq!(run_as("4294967294"), Ok(Account::Id(4_294_967_294)));
        assert_eq!(run_as("1000").unwrap().to_string(), "1000");
    }

    #[test]
    fn an_account_that_is_neither_is_refused_in_the_known_words() {
        let text = |outcome: Result<Account, Complaint>| format!("{:?}", outcome.unwrap_err());
        for bad in ["-x", "a b", "root:root", "1abc", "naïve", ""] {
            assert!(text(account("run_as")(bad)).contains("invalid run_as"), "{bad}");
        }
        for bad in ["4294967295", "4294967296", "99999999999999999999"] {
            assert!(text(account("run_as")(bad)).contains("out of range"), "{bad}");
        }
        assert!(user_name("service_user")("1000").is_err());
        assert_eq!(user_name("service_user")("ctrl-exec"), Ok("ctrl-exec".to_owned()));
    }

    #[test]
    fn a_profile_name_has_its_alphabet() {
        assert_eq!(ProfileName::parse("cert-deploy.v2").unwrap().as_str(), "cert-deploy.v2");
        assert_eq!(ProfileName::default().to_string(), "default");
        assert!(ProfileName::parse("").is_none() && ProfileName::parse("a/b").is_none());
    }
}
