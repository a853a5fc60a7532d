//! Configuration files: whatever is in them, a finding has its place and an accepted file says what it seems to say.

use std::path::{Path, PathBuf};

use ctrl_exec::conf::agent::{Settings, load};
use ctrl_exec::conf::scripts::{Allowlist, Entry};
use ctrl_exec::conf::{ConfErrors, Diagnostic, Root, Source, Warnings};

/// What a reader made of a file, and all it found wrong or doubtful.
fn judged<T>(result: Result<(T, Warnings), ConfErrors>) -> (Option<T>, Vec<Diagnostic>) {
    match result {
        Ok((read, warnings)) => (Some(read), warnings.iter().cloned().collect()),
        Err(errors) => {
            let all: Vec<Diagnostic> = errors.iter().cloned().collect();
            assert!(!all.is_empty(), "refused without a reason");
            (None, all)
        }
    }
}

/// A finding's place is in the text, and nothing in it can forge a line or steer a terminal.
fn placed(bytes: &[u8], findings: &[Diagnostic]) {
    let text = String::from_utf8_lossy(bytes);
    for finding in findings {
        let shown = finding.to_string();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        assert!(!finding.summary().contains(char::is_control), "{:?}", finding.summary());
        if let (Some(line), Some(column)) = (finding.line(), finding.column()) {
            let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).split('\n').nth(line - 1);
            let length = lines.unwrap_or_else(|| panic!("no line {line}: {shown}")).chars().count();
            assert!((1..=length.max(1)).contains(&column), "column {column} of {length}: {shown}");
        }
    }
}

/// `scripts.conf`.
pub fn scripts_conf(bytes: &[u8]) {
    let parse = |bytes: &[u8]| judged(Allowlist::parse(&Source::new("/s.conf", bytes)));
    let (read, findings) = parse(bytes);
    placed(bytes, &findings);
    let Some(list) = read else { return };
    assert_eq!(list.iter().count(), list.len());
    let mut text = String::new();
    for entry in list.iter() {
        assert!(entry.path().is_absolute(), "{}", entry.path().display());
        assert_eq!(list.get(entry.name()), Some(entry));
        text += &line(entry);
    }
    let (again, findings) = parse(text.as_bytes());
    assert!(findings.is_empty(), "{text}: {findings:?}");
    let again = again.unwrap_or_else(|| panic!("{text}"));
    assert!(again.iter().map(line).eq(list.iter().map(line)), "{text}");
}

/// An entry as a line of the file.
fn line(entry: &Entry) -> String {
    let mut line = format!("{} = {} profile={}", entry.name(), entry.path().display(), entry.profile());
    if let Some(digest) = entry.sha256() {
        line.extend([" sha256=", &ctrl_exec::wire::hex::encode(digest)]);
    }
    if let Some(count) = entry.args() {
        let allowed: Vec<usize> = (0..=256).filter(|number| count.allows(*number)).collect();
        let (least, most) = (allowed.first().expect("some number is allowed"), allowed.last().unwrap_or(&0));
        assert_eq!(allowed.len(), most - least + 1, "{count}");
        line.extend([" args=", &format!("{least}..{most}")]);
    }
    line + "\n"
}

/// `agent.conf`, alone and with a list of scripts, as the agent, its executor and self-check read it.
pub fn agent_conf(bytes: &[u8]) {
    let (source, root) = (Source::new("/a.conf", bytes), Root::default());
    let (read, findings) = judged(Settings::parse(&source, &root));
    placed(bytes, &findings);
    let loaded = load(&source, &Source::new("/s.conf", ""), &root);
    assert_eq!(loaded.is_ok(), read.is_some(), "the two readings differ");
    let Some(settings) = read else { return };
    assert_eq!(loaded.ok().map(|loaded| loaded.settings).as_ref(), Some(&settings));
    assert!((1..=65_535).contains(&settings.max_children));
    let absolute = [&settings.cert, &settings.key, &settings.ca, &settings.trusted_dispatchers_path];
    // Those may be relative for the sake of old files, but never without a word.
    assert!(absolute.iter().all(|path| path.is_absolute()) || !findings.is_empty());
    let scripts = settings.script_dirs.iter().flatten();
    let writable = settings.profiles.values().filter_map(|profile| profile.writable.as_ref()).flatten();
    assert!(scripts.chain(writable).all(|path| path.is_absolute()));
    let accounts = settings.profile_errors();
    assert_eq!(accounts.is_ok(), settings.profiles.values().all(|profile| profile.run_as.is_some()));
    let as_written = |path: &Path| vec![PathBuf::from(path)];
    let (scripts, none) = (Path::new("/s/s.conf"), |_: &Path| Vec::new());
    let (written, unresolved) =
        (settings.writable_errors(scripts, as_written), settings.writable_errors(scripts, none));
    assert!(unresolved.is_ok() || written.is_err(), "links that lead nowhere else must not forbid more");
    for errors in [accounts, written, unresolved].into_iter().filter_map(Result::err) {
        placed(bytes, &errors.iter().cloned().collect::<Vec<_>>());
    }
}
