//! What a root executor would decide about a script, in one line for people and scripts.

use std::path::Path;

use super::decide::Plan;
use super::host::OnDisk;
use super::offer::Offer;
use super::outlook::{decided, refused_here};
use super::policy::{Policy, Rights, judge};
use crate::conf::agent::{Profile, Settings};
use crate::conf::scripts::Allowlist;
use crate::conf::{self, Root, Source};
use crate::sys::{file, user};
use crate::wire::causes;
use crate::wire::name::ScriptName;
use crate::wire::refusal::Refusal;

/// Largest configuration file that is read, in bytes: more than the parser takes, so that the parser says so.
const LIMIT: usize = 2 * 1024 * 1024;

/// The decision about the script `name`: `OK path=P|profile=N|run_as=U|nnp=0/1|caps=A,B|writable=X:Y`, or `DENY` and
/// why, with the full reason besides.
///
/// It asks the very decision that a run asks, with what the service asks of every profile before. Unlike the service it reads
/// files that are not root's alone, so that a configuration can be tried before it is put in place, and a profile that is not
/// defined is an answer and no fault. Asked by root, it is `DENY not-confined` too where this host refuses every run under the
/// profile, and `DENY not-started` where none under it starts.
///
/// # Errors
/// Every fault of either file with its place, for people; a profile that may write where the agent's own files are, or that
/// has the agent's account, is one.
pub fn resolve(config: &Path, allowlist: &Path, root: &Root, name: &str) -> Result<(String, Option<String>), String> {
    // What else stands beside them is judged by its place on the host.
    let [config, allowlist] = [config, allowlist].map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
    let read = |path: &Path| match file::read_bounded(path, LIMIT) {
        Ok(bytes) => Ok(Source::new(path, bytes)),
        Err(error) => Err(causes::on_one_line(&error)),
    };
    let (agent, scripts) = (read(&config)?, read(&allowlist)?);
    let path = allowlist.as_path();
    let (settings, _) = Settings::parse(&agent, root).map_err(|errors| errors.to_string())?;
    let (allowlist, _) = Allowlist::parse(&scripts).map_err(|errors| errors.to_string())?;
    settings.profile_errors().map_err(|errors| errors.to_string())?;
    let denied = |refusal: &Refusal| (format!("DENY {}", word(refusal.code())), Some(refusal.text().to_owned()));
    let not_listed = || ("DENY not-allowlisted".to_owned(), None);
    let Ok(name) = ScriptName::parse(name) else { return Ok(not_listed()) };
    let Some(entry) = allowlist.get(&name) else { return Ok(not_listed()) };
    judge(&settings, &allowlist, None)?;
    let policy = match conf::agent::load(&agent, &scripts, root) {
        Ok(loaded) => Policy::judged(&loaded, path, Rights::Root { front_end: None, socket: None })?,
        // What is wrong with both together is that some script's profile is not defined.
        Err(_) => Policy::of(&settings, &allowlist),
    };
    // No arguments are given here, so none are counted.
    let policy = policy.whatever_the_arguments();
    match (decided(name, &policy, &OnDisk), settings.profiles.get(entry.profile())) {
        (Err(refusal), _) => Ok(denied(&refusal)),
        (Ok(_), None) => Ok(("DENY undefined-profile".to_owned(), None)),
        (Ok(plan), Some(profile)) => Ok(refused(&plan, profile).unwrap_or_else(|| (line(entry.path(), profile), None))),
    }
}

/// Where this host refuses every run under the profile, which the decision leaves to the run.
fn refused(plan: &Plan, profile: &Profile) -> Option<(String, Option<String>)> {
    // Another user has not the means of an executor, and cannot say what it has.
    let (code, why) = user::is_root().then(|| refused_here(plan, &Offer::look(None)))??;
    let what = if code == "not-confined" { "every run is refused" } else { "no script starts" };
    let reason = format!("profile '{}': {what} on this host: {why}", profile.name);
    Some((format!("DENY {code}"), Some(reason)))
}

/// A refusal's code in the words that the original had for it.
fn word(code: &str) -> &str {
    match code {
        "script-not-permitted" => "not-allowlisted",
        "script-not-in-script-dirs" => "not-in-script-dirs",
        "script-not-trusted" => "not-trusted",
        other => other,
    }
}

fn line(path: &Path, profile: &Profile) -> String {
    let run_as = profile.run_as.as_ref().map(|account| account.to_string()).unwrap_or_default();
    let caps: Vec<String> = profile.caps.iter().map(ToString::to_string).collect();
    let writable: Vec<String> = profile.writable.iter().flatten().map(|path| path.display().to_string()).collect();
    format!(
        "OK path={}|profile={}|run_as={run_as}|nnp={}|caps={}|writable={}",
        path.display(),
        profile.name,
        u8::from(profile.no_new_privileges),
        caps.join(","),
        writable.join(":")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{Access, write_atomic};

    const AGENT: &str = "port = 7443\ncert = /etc/x/c\nkey = /etc/x/k\nca = /etc/x/a\nscript_dirs = /bin:/usr/bin\n\
        [profile default]\nrun_as = nobody\n[profile ops]\nrun_as = 0\ncaps = CAP_CHOWN CAP_KILL\nwritable = /srv:/opt\n\
        no_new_privileges = no\n";
    const SCRIPTS: &str = "a = /bin/true\nb = /bin/sh profile=ops\nc = /bin/ls profile=none\nd = /etc/passwd\n";

    fn answer(agent: &str, name: &str) -> Result<(String, Option<String>), String> {
        let dir = tempfile::tempdir().unwrap();
        let (config, allowlist) = (dir.path().join("agent.conf"), dir.path().join("scripts.conf"));
        write_atomic(&config, agent.as_bytes(), Access::public()).unwrap();
        write_atomic(&allowlist, SCRIPTS.as_bytes(), Access::public()).unwrap();
        resolve(&config, &allowlist, &Root::new(None), name)
    }

    #[test]
    fn each_decision_has_its_line() {
        let line = |name| answer(AGENT, name).unwrap().0;
        assert_eq!(line("a"), "OK path=/bin/true|profile=default|run_as=nobody|nnp=1|caps=|writable=");
        assert_eq!(line("b"), "OK path=/bin/sh|profile=ops|run_as=0|nnp=0|caps=CAP_CHOWN,CAP_KILL|writable=/srv:/opt");
        assert_eq!(line("c"), "DENY undefined-profile");
        assert_eq!(line("d"), "DENY not-in-script-dirs");
        assert_eq!((line("nope"), line("../x")), ("DENY not-allowlisted".into(), "DENY not-allowlisted".into()));
    }

    #[test]
    fn what_is_no_file_is_denied_with_the_reason() {
        let agent = AGENT.replace("script_dirs = /bin:/usr/bin\n", "");
        let dir = tempfile::tempdir().unwrap();
        let (config, allowlist) = (dir.path().join("agent.conf"), dir.path().join("scripts.conf"));
        write_atomic(&config, agent.as_bytes(), Access::public()).unwrap();
        write_atomic(&allowlist, b"a = /etc\n", Access::public()).unwrap();
        let (line, reason) = resolve(&config, &allowlist, &Root::new(None), "a").unwrap();
        assert_eq!((line.as_str(), reason.as_deref()), ("DENY not-trusted", Some("cannot open /etc: is a directory")));
    }

    #[test]
    fn a_file_of_another_is_denied_with_the_reason() {
        let agent = AGENT.replace("script_dirs = /bin:/usr/bin\n", "");
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let (config, allowlist) = (dir.path().join("agent.conf"), dir.path().join("scripts.conf"));
        write_atomic(&config, agent.as_bytes(), Access::public()).unwrap();
        let place = tempfile::tempdir_in("/tmp").unwrap();
        let script = place.path().join("script");
        write_atomic(&script, b"#!/bin/sh\n", Access::public()).unwrap();
        write_atomic(&allowlist, format!("a = {}\n", script.display()).as_bytes(), Access::public()).unwrap();
        let (line, reason) = resolve(&config, &allowlist, &Root::new(None), "a").unwrap();
        assert_eq!(line, "DENY not-trusted");
        assert!(reason.unwrap().contains("/tmp has mode 1777"));
        write_atomic(&config, format!("trusted_paths = no\n{agent}").as_bytes(), Access::public()).unwrap();
        let (line, reason) = resolve(&config, &allowlist, &Root::new(None), "a").unwrap();
        assert!(line.starts_with("OK path="), "{line} {reason:?}");
    }

    /// As the service does, which would not start with it.
    #[test]
    fn what_the_service_would_refuse_is_never_said_to_be_in_order() {
        let scripts =
            |name: &str, agent: &str| answer(&format!("user = bin\nasync_runs_dir = /srv/runs\n{agent}"), name);
        let text = scripts("a", AGENT).unwrap_err();
        assert!(text.contains("'ops'") && text.contains("'/srv/runs', where async_runs_dir is"), "{text}");
        let agent = AGENT.replace("/srv:/opt", "/opt");
        assert!(scripts("a", &agent).unwrap().0.starts_with("OK path="));
        let text = scripts("a", &agent.replace("run_as = nobody", "run_as = bin")).unwrap_err();
        assert!(text.contains("is the agent's own account") && text.contains("'run_as = nobody'"), "{text}");
    }

    #[test]
    fn a_profile_without_an_account_is_a_fault_of_the_configuration() {
        let text = answer(&AGENT.replace("run_as = nobody\n", ""), "a").unwrap_err();
        assert!(text.contains("agent.conf:6:2: ") && text.contains("no run_as"), "{text}");
    }
}
