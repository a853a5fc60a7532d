//! Whether an agent with this configuration runs, where the service manager has to be asked, or where there is none: one
//! that was started by hand, or that is the first process of a container.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::parser::ValueSource;
use clap::{CommandFactory as _, FromArgMatches as _};

use super::{CommandLine, Verb};
use crate::cli::role::{self, Role};
use crate::conf::Root;

/// What the service is called.
const NAME: &str = "ctrl-exec-agent";

/// Whether procd says that the service runs. Its scripts' own word `running` is no answer: up to `OpenWrt` 18.06 it says
/// yes whatever is the case.
pub(super) fn under_procd() -> bool {
    #[expect(clippy::disallowed_methods, reason = "procd is asked by the program that is there for that")]
    let mut ubus = Command::new("ubus");
    ubus.args(["-t", "5", "call", "service", "list", &format!(r#"{{"name":"{NAME}"}}"#)]);
    let output = ubus.stdin(Stdio::null()).stderr(Stdio::null()).output();
    output.is_ok_and(|output| output.status.success() && an_instance_runs(&output.stdout))
}

/// `{"NAME":{"instances":{"instance1":{"running":true, ...}}}}`.
fn an_instance_runs(answer: &[u8]) -> bool {
    let answer = serde_json::from_slice::<serde_json::Value>(answer).unwrap_or_default();
    let instances = answer.get(NAME).and_then(|service| service.get("instances")?.as_object());
    instances.is_some_and(|all| all.values().any(|each| each.get("running").is_some_and(|runs| runs == true)))
}

/// The processes that serve with the configuration at `config`, as far as this one may see them.
pub(super) fn processes(config: &Path) -> Vec<u32> {
    let (Ok(config), Some(own)) = (fs::metadata(config), Program::of("self")) else { return Vec::new() };
    let serves = |pid: &u32| *pid != std::process::id() && serves(&pid.to_string(), &own, &config).unwrap_or(false);
    let mut found: Vec<u32> = numbers().filter(serves).collect();
    found.sort_unstable();
    found
}

/// All processes.
pub(super) fn numbers() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The file that a process runs.
struct Program {
    file: Metadata,
    path: PathBuf,
}

impl Program {
    fn of(process: &str) -> Option<Self> {
        let link = format!("/proc/{process}/exe");
        Some(Self { file: fs::metadata(&link).ok()?, path: fs::read_link(&link).ok()? })
    }

    /// Another version of it stands in the same place, or did before it was replaced (proc(5)).
    fn is(&self, other: &Self) -> bool {
        let place = |path: &Path| {
            let path = path.as_os_str().as_bytes();
            path.strip_suffix(b" (deleted)").unwrap_or(path).to_vec()
        };
        same(&self.file, &other.file) || place(&self.path) == place(&other.path)
    }
}

fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Nothing where the process is gone, or none of this user's business.
fn serves(process: &str, own: &Program, config: &Metadata) -> Option<bool> {
    if !Program::of(process)?.is(own) {
        return Some(false);
    }
    let read = |name: &str| fs::read(format!("/proc/{process}/{name}")).ok().map(|bytes| strings(&bytes));
    let Some(theirs) = configuration(&read("cmdline")?, &read("environ")?) else { return Some(false) };
    // As the process sees it: it may have another directory, and another root.
    let absolute = fs::read_link(format!("/proc/{process}/cwd")).ok()?.join(theirs);
    let seen = Path::new("/proc").join(process).join("root").join(absolute.strip_prefix("/").ok()?);
    Some(same(&fs::metadata(seen).ok()?, config))
}

/// Which configuration an agent serves with that was started so; nothing for anything else.
fn configuration(argv: &[OsString], environment: &[OsString]) -> Option<PathBuf> {
    let (Role::Agent, words) = role::of(argv) else { return None };
    let words = std::iter::once(OsString::from(NAME)).chain(words);
    let matches = CommandLine::command().try_get_matches_from(words).ok()?;
    let said = matches.value_source("root") == Some(ValueSource::CommandLine);
    let CommandLine { mut globals, verb } = CommandLine::from_arg_matches(&matches).ok()?;
    if !said {
        let mut values = environment.iter().filter_map(|entry| entry.as_bytes().strip_prefix(Root::ENV.as_bytes()));
        let value = values.find_map(|rest| rest.strip_prefix(b"="));
        globals.root = value.map(|path| PathBuf::from(OsStr::from_bytes(path)));
    }
    matches!(verb, Some(Verb::Serve(serving)) if !serving.is_a_check()).then(|| globals.named_config())
}

/// What the kernel keeps of a process's words: each with a NUL behind it.
pub(super) fn strings(bytes: &[u8]) -> Vec<OsString> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(argv: &[&str], environment: &[&str]) -> Option<String> {
        let all = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        configuration(&all(argv), &all(environment)).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_agent_is_known_by_every_way_to_start_it_and_its_configuration_with_it() {
        let usual = Some("/etc/ctrl-exec-agent/agent.conf".to_owned());
        for argv in [
            &["ctrl-exec-agent", "serve"][..],
            &["/usr/local/bin/cea", "serve", "--unprivileged"],
            &["ctrl-exec", "serve-agent"],
            &["/tmp/ctrl-exec-x86_64", "agent", "serve"],
            &["ctrl-exec", "ctrl-exec-agent", "--port", "1", "serve"],
        ] {
            assert_eq!(of(argv, &["HOME=/"]), usual, "{argv:?}");
        }
        for argv in [
            &["ctrl-exec-agent", "--config", "/c/x.conf", "serve"][..],
            &["ctrl-exec-agent", "serve", "--config=/c/x.conf"],
            &["ctrl-exec", "serve-agent", "--conf", "/c/x.conf", "--root", "/r"],
        ] {
            assert_eq!(of(argv, &["CTRL_EXEC_ROOT=/e"]).as_deref(), Some("/c/x.conf"), "{argv:?}");
        }
        let below = |root: &str| Some(format!("{root}/etc/ctrl-exec-agent/agent.conf"));
        assert_eq!(of(&["cea", "serve"], &["A=b", "CTRL_EXEC_ROOT=/e"]), below("/e"));
        assert_eq!(of(&["cea", "--root", "/r", "serve"], &["CTRL_EXEC_ROOT=/e"]), below("/r"));
    }

    #[test]
    fn nothing_else_passes_for_an_agent_that_serves() {
        for argv in [
            &["ctrl-exec-agent"][..],
            &["ctrl-exec-agent", "serve", "--check"],
            &["ctrl-exec-agent", "request-pairing", "--dispatcher", "serve"],
            &["ctrl-exec-agent", "self-check"],
            &["ctrl-exec", "serve"],
            &["ctrl-exec", "serve-private"],
            &["ctrl-exec-exec", "serve"],
            &["ctrl-exec-agent", "serve", "--no-such-option"],
            &[],
        ] {
            assert_eq!(of(argv, &[]), None, "{argv:?}");
        }
    }

    #[test]
    fn procd_is_believed_where_it_says_that_an_instance_runs() {
        let answer = |text: &str| an_instance_runs(text.as_bytes());
        assert!(answer(r#"{"ctrl-exec-agent":{"instances":{"instance1":{"running":true,"pid":7}}}}"#));
        for text in [
            r#"{"ctrl-exec-agent":{"instances":{"instance1":{"running":false,"exit_code":78}}}}"#,
            r#"{"ctrl-exec-agent":{}}"#,
            r#"{"ctrl-exec-exec":{"instances":{"instance1":{"running":true}}}}"#,
            "{}",
            "",
        ] {
            assert!(!answer(text), "{text}");
        }
    }
}
