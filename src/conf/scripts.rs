//! `scripts.conf`: the scripts that may run, each `name = /absolute/path [profile=NAME] [sha256=HEX] [args=COUNT]`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::annotation::Annotations;
pub use super::annotation::ArgumentCount;
#[cfg(test)]
pub(crate) use super::annotation::words;
use super::diagnostic::{ConfErrors, Diagnostic, Findings, Warnings, shown};
use super::lexer::{self, Setting, Span};
use super::names::ProfileName;
use super::reader::duplicate;
use super::source::Source;
use crate::sys::file;
use crate::wire::name::ScriptName;

const BLANKS: &[char] = &[' ', '\t'];

/// The scripts of one `scripts.conf`, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist {
    file: PathBuf,
    entries: BTreeMap<ScriptName, Entry>,
}

/// One script that may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: ScriptName,
    path: PathBuf,
    profile: ProfileName,
    sha256: Option<[u8; 32]>,
    args: Option<ArgumentCount>,
    line: usize,
    place: Diagnostic,
}

impl Entry {
    /// The name it is asked for by.
    #[must_use]
    pub const fn name(&self) -> &ScriptName {
        &self.name
    }

    /// Its absolute path, as written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies in one of `dirs`, where there are any: the question that is asked once more, of the file that is
    /// then executed, at each run. Both sides are taken as the file system resolves them, or as written where it
    /// cannot.
    #[must_use]
    pub fn is_within(&self, dirs: Option<&[PathBuf]>) -> bool {
        let Some(dirs) = dirs else { return true };
        let resolved = |path: &Path| file::resolve(path).map_or_else(|_| path.to_owned(), |found| found.path);
        let path = resolved(&self.path);
        let climbs = path.components().any(|component| component == Component::ParentDir);
        !climbs && dirs.iter().any(|dir| path.starts_with(resolved(dir)))
    }

    /// The profile it runs in; `default` where none is named.
    #[must_use]
    pub const fn profile(&self) -> &ProfileName {
        &self.profile
    }

    /// `sha256=`: the digest that the file must have at each run. None: any content may run.
    #[must_use]
    pub const fn sha256(&self) -> Option<&[u8; 32]> {
        self.sha256.as_ref()
    }

    /// `args=`: how many arguments it takes. None: as many as any run can have.
    #[must_use]
    pub const fn args(&self) -> Option<ArgumentCount> {
        self.args
    }

    /// The line it stands on, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }
}

impl Allowlist {
    /// Reads the file alone. Whether its profiles exist is for [`super::agent::load`].
    ///
    /// # Errors
    /// A text that is none, a comment behind an entry, or an annotation that is misspelt or not right: what was written to
    /// restrict a script must not go by the board. One that is like none of ours is ignored with a warning. Any other line
    /// that is no entry is skipped, as ever, with a warning: what it may have meant does not run.
    pub fn parse(source: &Source) -> Result<(Self, Warnings), ConfErrors> {
        let mut findings = Findings::default();
        let allowlist = Self::read(source, &mut findings);
        findings.sorted().judge(allowlist)
    }

    pub(super) fn read(source: &Source, findings: &mut Findings) -> Self {
        let path = source.shared_path();
        let mut entries: BTreeMap<ScriptName, (Entry, Span<'_>)> = BTreeMap::new();
        for section in lexer::sections_that_can_be_read(source, &path, findings) {
            if let Some(header) = section.header {
                let message = format!("unknown section '[{}]': this file has none", shown(header.text()));
                let error = header.error(message).help("profiles are defined in agent.conf; remove the line");
                findings.push(error.skipped());
            }
            for setting in section.settings {
                let Some(entry) = entry(&setting, findings) else { continue };
                if let Some((_, earlier)) = entries.insert(entry.name.clone(), (entry, setting.key)) {
                    findings.push(duplicate(&setting.key, &earlier));
                }
            }
        }
        let entries = entries.into_iter().map(|(name, (entry, _))| (name, entry)).collect();
        Self { file: source.path().to_owned(), entries }
    }

    /// The file it was read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Where the line of an entry is: `path:line`.
    #[must_use]
    pub fn place(&self, entry: &Entry) -> String {
        format!("{}:{}", self.file.display(), entry.line)
    }

    /// The script of this name, if it may run.
    #[must_use]
    pub fn get(&self, name: &ScriptName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All scripts in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many scripts may run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing may run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The error about profiles that `defined` denies; where to define them, and with which account for example.
pub(super) fn undefined_profiles(
    allowlist: &Allowlist,
    (agent_conf, account): (&Path, &str),
    defined: impl Fn(&ProfileName) -> bool,
) -> Option<Diagnostic> {
    let missing: Vec<&Entry> = allowlist.iter().filter(|entry| !defined(&entry.profile)).collect();
    let first = missing.first()?;
    let pairs: Vec<String> = missing.iter().map(|entry| format!("{} -> {}", entry.name, entry.profile)).collect();
    let message = format!("script(s) reference an undefined profile: {}", pairs.join(", "));
    let mut names: Vec<&ProfileName> = missing.iter().map(|entry| &entry.profile).collect();
    names.sort();
    names.dedup();
    let lines = names.iter().map(|name| format!("\n    [profile {name}]\n    run_as = {account}"));
    let lines: Vec<String> = lines.collect();
    let help = format!("add to {}, with the account that is right:{}", agent_conf.display(), lines.concat());
    Some(first.place.instead(message).help(help))
}

/// One line. What is wrong with it is reported; an entry comes out only where nothing is.
fn entry(setting: &Setting<'_>, findings: &mut Findings) -> Option<Entry> {
    let mut draft = Draft::default();
    let mut value = setting.value;
    let name = ScriptName::parse(setting.key.text());
    let mut wrong = false;
    if let Some(comment) = value.comment() {
        findings.push(comment.inline_comment());
        value = value.sub(0, value.len() - comment.len()).trimmed();
        wrong = true;
    }
    for token in value.pieces(BLANKS) {
        if let Err(error) = draft.take(token) {
            findings.push(error);
            wrong = true;
        }
    }
    findings.extend(std::mem::take(&mut draft.annotations.doubts));
    let Ok(name) = name else {
        let message = format!("'{}' is no script name", shown(setting.key.text()));
        let error = setting.key.error(message).help("letters, digits, '_' and '-', at most 255 of them");
        findings.push(error.skipped());
        return None;
    };
    if wrong {
        return None;
    }
    let Some(path) = draft.path else {
        let message = format!("'{}' has no path", setting.key.text());
        findings.push(setting.equals.error(message).help("write 'name = /absolute/path'").skipped());
        return None;
    };
    Some(Entry {
        name,
        path: PathBuf::from(path.text()),
        profile: draft.annotations.profile.unwrap_or_default(),
        sha256: draft.annotations.sha256,
        args: draft.annotations.args,
        line: setting.key.number(),
        place: setting.key.error(""),
    })
}

#[derive(Default)]
struct Draft<'s> {
    path: Option<Span<'s>>,
    annotations: Annotations,
}

impl<'s> Draft<'s> {
    fn take(&mut self, token: Span<'s>) -> Result<(), Diagnostic> {
        if self.annotations.take(token)? {
            return Ok(());
        }
        if self.path.is_some() {
            return Err(token
                .error(format!("more than one path: '{}' is left over", shown(token.text())))
                .help("a path cannot contain blanks, and a script takes its arguments from the caller")
                .skipped());
        }
        if !token.text().starts_with('/') {
            let message = format!("the path '{}' is not absolute", shown(token.text()));
            return Err(token.error(message).help("write it from '/'").skipped());
        }
        self.path = Some(token);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Allowlist, Warnings), String> {
        Allowlist::parse(&Source::new("s.conf", text)).map_err(|errors| errors.to_string())
    }

    fn get<'l>(list: &'l Allowlist, name: &str) -> Option<&'l Entry> {
        list.get(&ScriptName::parse(name).unwrap())
    }

    #[test]
    fn an_entry_has_a_path_and_the_profile_on_either_side_of_it() {
        let text = "# c\nb = /x/b.sh\n\ta-1 = profile=ops /x/a\nc_2 =   /x/c\tprofile=cert.v2\n";
        let (list, warnings) = parse(text).unwrap();
        assert!(warnings.is_empty());
        let all: Vec<_> = list
            .iter()
            .map(|e| (e.name().as_str(), e.path().to_str().unwrap(), e.profile().as_str(), e.line()))
            .collect();
        assert_eq!(all, [("a-1", "/x/a", "ops", 3), ("b", "/x/b.sh", "default", 2), ("c_2", "/x/c", "cert.v2", 4)]);
        assert!(get(&list, "a").is_none() && get(&list, "b").is_some());
        assert_eq!(list.len(), 3);
    }

    #[test]
    fn a_script_can_be_pinned_to_a_digest_and_a_number_of_arguments() {
        let (list, _) = parse(&format!("a = /x sha256={} args=1..2\nb = args=none /y\n", "aB".repeat(32))).unwrap();
        assert_eq!(get(&list, "a").unwrap().sha256(), Some(&[0xab; 32]));
        assert!(get(&list, "a").unwrap().args().is_some_and(|count| count.allows(2) && !count.allows(3)));
        let b = get(&list, "b").unwrap();
        assert!(b.sha256().is_none() && b.args().is_some_and(|count| !count.allows(1)));
    }

    #[test]
    fn a_wrong_annotation_is_refused_at_its_place() {
        for (line, expected) in [
            ("a = /x sha256=abc", "s.conf:1:15: 'abc' is no SHA-256 digest"),
            ("a = /x sha256=", "s.conf:1:8: '' is no SHA-256 digest"),
            ("a = /x args=2..1", "s.conf:1:13: '2..1' is no number of arguments"),
            ("a = /x args=1 args=1", "s.conf:1:15: a second 'args=' on one line"),
            ("a = /x sha255=abc", "did you mean 'sha256=64 hex digits'?"),
            ("a = /x shaw256=abc", "did you mean 'sha256=64 hex digits'?"),
            ("a = /x sha512=abc", "did you mean 'sha256=64 hex digits'?"),
            ("a = /x profil=p", "did you mean 'profile=NAME'?"),
            ("a = /x PROFILE=p", "did you mean 'profile=NAME'?"),
            ("a = /x arguments=1", "did you mean 'args=none, N or N..M'?"),
            ("a = /x arg=1", "did you mean 'args=none, N or N..M'?"),
        ] {
            let errors = parse(line).unwrap_err();
            assert!(errors.contains(expected), "{line}: {errors}");
        }
    }

    #[test]
    fn an_annotation_of_somebody_else_s_keeps_no_script_from_being_served() {
        let (list, warnings) = parse("a = owner=root /x args=none\n").unwrap();
        assert!(get(&list, "a").unwrap().args().is_some_and(|count| !count.allows(1)));
        let told = "s.conf:1:5: warning: unknown annotation 'owner': it means nothing here and restricts nothing\n";
        assert!(warnings.to_string().starts_with(told), "{warnings}");
    }

    #[test]
    fn a_line_that_is_no_entry_is_skipped_with_a_warning_and_never_runs() {
        let text = "a = bin/x\nb = /x /y\nc =\nd = profile=p\nnonsense\ni.j = /x\n[s]\n";
        let (list, warnings) = parse(&format!("{text}{} = /x\ngood = /x\n", "x".repeat(256))).unwrap();
        assert_eq!(list.iter().map(|entry| entry.name().as_str()).collect::<Vec<_>>(), ["good"]);
        let warnings = warnings.to_string();
        for expected in [
            "s.conf:1:5: warning: the path 'bin/x' is not absolute: the line is skipped",
            "s.conf:2:8: warning: more than one path: '/y'",
            "s.conf:3:3: warning: 'c' has no path",
            "s.conf:4:3: warning: 'd' has no path",
            "s.conf:5:1: warning: Malformed config line",
            "s.conf:6:1: warning: Malformed config line: 'i.j' cannot be a key",
            "s.conf:7:2: warning: unknown section '[s]'",
            "s.conf:8:1: warning: 'xxx",
        ] {
            assert!(warnings.contains(expected), "{expected}\n---\n{warnings}");
        }
        assert_eq!(warnings.matches(": the line is skipped\n").count(), 8, "{warnings}");
    }

    #[test]
    fn what_was_to_restrict_a_script_is_never_skipped_and_all_errors_are_told_at_once() {
        let text = "e = /x profle=p\nf = /x profile=\ng = /x profile=a/b\nh = /x profile=a profile=b\nk = /x # why\n";
        let errors = parse(text).unwrap_err();
        for expected in [
            "s.conf:1:8: unknown annotation 'profle'",
            "did you mean 'profile=NAME'?",
            "s.conf:2:8: '' is no profile name",
            "s.conf:3:16: 'a/b' is no profile name",
            "s.conf:4:18: a second 'profile='",
            "s.conf:5:8: a comment behind a value",
        ] {
            assert!(errors.contains(expected), "{expected}\n---\n{errors}");
        }
    }

    #[test]
    fn a_script_named_twice_is_a_warning_and_the_last_line_wins() {
        let (list, warnings) = parse("a = /one\na = /two profile=p\n").unwrap();
        assert_eq!(get(&list, "a").unwrap().path(), Path::new("/two"));
        let text = warnings.to_string();
        assert!(text.starts_with("s.conf:2:1: warning: 'a' is set twice: line 2 replaces line 1"), "{text}");
    }

    #[test]
    fn undefined_profiles_are_named_with_the_lines_to_add() {
        let (list, _) = parse("b = /b\na = /a profile=ops\nc = /c\nd = /d profile=known\n").unwrap();
        let error =
            undefined_profiles(&list, (Path::new("/etc/agent.conf"), "nobody"), |name| name.as_str() == "known")
                .unwrap();
        assert_eq!(error.message(), "script(s) reference an undefined profile: a -> ops, b -> default, c -> default");
        assert_eq!(error.line(), Some(2));
        let text = error.to_string();
        assert_eq!(text.matches("[profile default]\n    run_as = nobody").count(), 1, "{text}");
        assert!(text.contains("add to /etc/agent.conf"), "{text}");
        let (empty, _) = parse("# none\n").unwrap();
        assert!(undefined_profiles(&empty, (Path::new("x"), "nobody"), |_| false).is_none());
    }
}
