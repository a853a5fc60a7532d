//! The usual command line, read without clap: building even the part of it that knows one verb takes a twentieth of what a
//! whole run does.
//!
//! **Invariant:** what is understood here means the same to clap. Whatever is not plainly usual is left to it: a switch of a
//! verb, an abbreviated option, one given twice, a value that looks like an option, anything wrong.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{CommandLine, Globals, Verb, ping, run};
use crate::conf::Root;

/// Options of every verb that take a value, and those that take none.
const VALUED: [&str; 5] = ["config", "root", "port", "username", "token"];
const SWITCHES: [&str; 2] = ["json", "no-resume"];

/// The words of a `run` or a `ping` with no other options than every verb has.
#[derive(Default)]
struct Usual<'a> {
    options: Vec<(&'static str, &'a str)>,
    /// The verb, and what belongs to it.
    words: Vec<&'a str>,
    /// What stands behind `--`.
    arguments: Option<Vec<&'a str>>,
}

/// The command line that these words are, if they are usual ones.
pub(super) fn read(words: &[OsString]) -> Option<CommandLine> {
    let usual = Usual::sort(words)?;
    let globals = usual.globals()?;
    let (verb, words) = usual.words.split_first()?;
    let verb = match (*verb, words, &usual.arguments) {
        ("run", [_, _, ..], arguments) => Verb::Run(run::Args::plain(words, arguments.as_deref().unwrap_or_default())),
        ("ping", [_, ..], None) => Verb::Ping(ping::Args::plain(words)),
        _ => return None,
    };
    Some(CommandLine { globals, verb: Some(verb) })
}

impl<'a> Usual<'a> {
    fn sort(words: &'a [OsString]) -> Option<Self> {
        let (mut usual, mut ended) = (Self::default(), false);
        let mut rest = words.iter().map(|word| word.to_str());
        while let Some(word) = rest.next() {
            match word? {
                "--" => usual.arguments = Some(rest.by_ref().collect::<Option<_>>()?),
                word if word.starts_with('-') => {
                    ended = usual.words.len() > 1;
                    usual.option(word.strip_prefix("--")?, &mut rest)?;
                }
                // Hosts and script stand together.
                _ if ended => return None,
                word => usual.words.push(word),
            }
        }
        Some(usual)
    }

    fn option(&mut self, text: &'a str, rest: &mut impl Iterator<Item = Option<&'a str>>) -> Option<()> {
        let option = if let Some(switch) = SWITCHES.into_iter().find(|switch| *switch == text) {
            (switch, "")
        } else {
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            let name = VALUED.into_iter().find(|valued| *valued == name)?;
            let value = value.or_else(|| rest.next().flatten()).filter(|value| !value.is_empty())?;
            (name, Some(value).filter(|value| !value.starts_with('-'))?)
        };
        let twice = self.options.iter().any(|(name, _)| *name == option.0);
        self.options.push(option);
        (!twice).then_some(())
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn globals(&self) -> Option<Globals> {
        let port = match self.value("port") {
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(text.parse().ok()?),
            Some(_) => return None,
            None => None,
        };
        let text = |name, variable| match self.value(name) {
            Some(value) => Some(value.to_owned()),
            None => std::env::var_os(variable).map_or(Some(String::new()), |value| value.into_string().ok()),
        };
        let root = self.value("root").map(OsString::from).or_else(|| std::env::var_os(Root::ENV));
        if root.as_ref().is_some_and(|root| root.is_empty()) {
            return None;
        }
        Some(Globals {
            config: self.value("config").map(PathBuf::from),
            root: root.map(PathBuf::from),
            json: self.value("json").is_some(),
            port,
            no_resume: self.value("no-resume").is_some(),
            username: text("username", Globals::USERNAME)?,
            token: text("token", Globals::TOKEN)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse;

    /// What clap understands, or nothing.
    fn by_clap(words: &[OsString]) -> Option<CommandLine> {
        use clap::{CommandFactory as _, FromArgMatches as _};
        let argv = std::iter::once(OsString::from("ctrl-exec")).chain(words.iter().cloned());
        let parsed = CommandLine::command().try_get_matches_from(argv).ok()?;
        CommandLine::from_arg_matches(&parsed).ok()
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_usual_line_means_the_same_to_clap() {
        for line in [
            "run web true",
            "run web db:7443 true",
            "--root /x run web true",
            "run --root=/x --config c web true --json -- -a --json run ping",
            "--port 9 --no-resume run web true --",
            "run --username me --token=t=u web true",
            "--token run run run ping -- ping --",
            "ping web --json --port 9",
        ] {
            let words = words(line);
            let usual = read(&words).expect(line);
            let whole: CommandLine = parse::parse("ctrl-exec", &words).unwrap();
            assert_eq!(format!("{usual:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_not_usual_is_left_to_clap() {
        for line in [
            "run",
            "run web",
            "run web -- true",
            "run web --json true",
            "ping",
            "ping -- web",
            "list-agents",
            "run web true --stream",
            "run web true --no-res",
            "run web true --json --json",
            "run web true --port +9",
            "run web true --port 70000",
            "run web true --token --json",
            "run web true --token= ",
            "run web true -h",
            "--help run web true",
            "run web true --root",
        ] {
            assert!(read(&words(line)).is_none(), "{line}");
        }
    }

    #[test]
    fn every_short_line_that_is_understood_means_the_same_to_clap() {
        const WORDS: [&str; 8] = ["run", "ping", "web", "--", "--json", "--root", "--port=9", "-x"];
        let mut understood = 0;
        for number in 0..WORDS.len().pow(4) {
            let line: Vec<OsString> = (0..4u32)
                .map(|place| WORDS[number / WORDS.len().pow(place) % WORDS.len()].into())
                .chain(["x".into()])
                .collect();
            let Some(usual) = read(&line) else { continue };
            understood += 1;
            assert_eq!(format!("{:?}", Some(usual)), format!("{:?}", by_clap(&line)), "{line:?}");
        }
        assert!(understood > 100, "{understood}");
    }
}
