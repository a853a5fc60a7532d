//! What a monitor makes ahead for its next confined run, and that it changes nothing but the time that a run takes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::executor::Mode;
use crate::harness::site::Builder;
use crate::harness::{Site, eventually, host};

fn builder(mode: Mode) -> Builder {
    Site::builder().executor(mode).sh("ok", "echo ran").sh("show", "cat \"$1\" 2>&1")
}

/// The monitor that waits for another order after a run, and the spare init that it has made. Other tests mount file systems
/// meanwhile, and then it gives up its spare: so it is given one order more.
fn idle(site: &Site) -> (u32, u32) {
    eventually("a monitor with nobody but its spare", || {
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            if let [monitor] = host::children(site.agent().executor())[..]
                && let [spare] = host::children(monitor)[..]
            {
                return Some((monitor, spare));
            }
        }
        None
    })
}

fn dead(pid: u32) {
    eventually(&format!("the end of process {pid}"), || (!host::alive(pid)).then_some(()));
}

/// A file system in memory with one file, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: PathBuf) -> Self {
        std::fs::create_dir_all(&place).unwrap();
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=1m,mode=0777")).unwrap();
        std::fs::write(place.join("held"), "held\n").unwrap();
        Self(place)
    }

    fn held(&self) -> String {
        self.0.join("held").display().to_string()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn what_is_mounted_between_two_runs_shows_in_the_second_and_what_is_unmounted_does_not() {
    for mode in Mode::ROOT {
        let site = builder(mode).start();
        idle(&site);
        let mounted = Mounted::new(site.agent().root.join("other/below"));
        let held = mounted.held();
        assert_eq!(site.result("show", &[&held])["stdout"], "held\n", "{mode:?}");
        idle(&site);
        drop(mounted);
        let said = site.result("show", &[&held]);
        assert!(said["stdout"].as_str().unwrap().contains("No such file"), "{mode:?}: {said}");
    }
}

#[test]
fn an_idle_executor_keeps_no_file_system_busy_that_is_unmounted() {
    for mode in Mode::ROOT {
        let site = builder(mode).start();
        eventually("a spare that is given up before its monitor", || {
            let mounted = Mounted::new(site.agent().root.join("other/below"));
            let (monitor, spare) = idle(&site);
            drop(mounted);
            dead(spare);
            // On a busy machine, the monitor may have given up waiting first.
            host::alive(monitor).then_some(())
        });
    }
}

#[test]
fn runs_of_different_kinds_each_have_what_their_profile_says() {
    const TRY: &str = "( : > /usr/new ) 2> /dev/null && rm /usr/new && echo written; readlink /proc/self/ns/net\n\
        grep NoNewPrivs /proc/self/status; ls -d /tmp/*.here 2> /dev/null";
    let here = tempfile::Builder::new().prefix("kind").suffix(".here").tempfile_in("/tmp").unwrap();
    for mode in Mode::ROOT {
        let sections = "[profile boxed]\nrun_as = root\nwritable = {work}\n[profile alone]\nrun_as = root\n\
            network = no\n[profile lax]\nrun_as = root\nno_new_privileges = no\n[profile open]\nrun_as = root\n";
        let names = ["boxed", "alone", "lax", "open"];
        let mut site = Site::builder().executor(mode).sh("try", TRY);
        for name in names {
            site = site.allow(&format!("{name} = {{scripts}}/try profile={name}"));
        }
        let mut site = site.prepare();
        let work = site.agent().root.join("work").display().to_string();
        let config = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), config + &sections.replace("{work}", &work)).unwrap();
        site.start(0);
        let host = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
        for name in names.into_iter().flat_map(|name| [name, "open", name, "boxed", name]) {
            let said = site.result(name, &[]);
            let text = said["stdout"].as_str().unwrap();
            let about = format!("{mode:?} {name}: {said}");
            assert_eq!(text.contains("written\n"), name != "boxed", "{about}");
            assert_eq!(text.contains(&host), name != "alone", "{about}");
            assert_eq!(text.contains("NoNewPrivs:\t1"), name != "lax", "{about}");
            assert_eq!(text.contains(here.path().to_str().unwrap()), name != "boxed", "{about}");
        }
    }
}

#[test]
fn a_spare_that_was_killed_fails_no_run() {
    for mode in Mode::ROOT {
        let site = builder(mode).start();
        for _ in 0..3 {
            let (_, spare) = idle(&site);
            host::kill(spare, Signal::SIGKILL);
            assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
        }
    }
}

/// An update and its roll-back while nothing runs: the same file is in its place again, and what covered it is gone in every
/// namespace that was made ahead.
#[test]
fn what_was_replaced_and_put_back_between_two_runs_is_kept_in_the_second() {
    const FORGE: &str = "exec 2>&1; echo forged >> $1; mv $1 $1.x; ls $(dirname $1)";
    for mode in Mode::ROOT {
        let mut site = builder(mode).sh("forge", FORGE).prepare();
        let agent = site.agent();
        let (public, etc) = (agent.root.join("public"), agent.root.join("etc/ctrl-exec-agent"));
        std::fs::create_dir(&public).unwrap();
        std::fs::copy(etc.join("ca.crt"), public.join("ca")).unwrap();
        let config = std::fs::read_to_string(agent.config()).unwrap();
        let ca = format!("ca = {}", public.join("ca").display());
        let line = config.lines().find(|line| line.starts_with("ca = ")).unwrap();
        let account = config.lines().find(|line| line.starts_with("run_as = ")).unwrap();
        std::fs::write(agent.config(), config.replace(line, &ca).replace(account, "run_as = root")).unwrap();
        let before = std::fs::read_to_string(public.join("ca")).unwrap();
        site.start(0);
        let file = public.join("ca").display().to_string();
        for turn in 0..3 {
            idle(&site);
            std::fs::hard_link(public.join("ca"), public.join("old")).unwrap();
            std::fs::write(public.join("new"), &before).unwrap();
            std::fs::rename(public.join("new"), public.join("ca")).unwrap();
            std::fs::rename(public.join("old"), public.join("ca")).unwrap();
            let said = site.result("forge", &[&file]);
            let text = said["stdout"].as_str().unwrap().trim_end();
            assert!(text.contains("Read-only") && text.contains("busy"), "{mode:?} {turn}: {said}");
            assert!(text.ends_with("\nca"), "{mode:?} {turn}: {said}");
            assert_eq!(std::fs::read_to_string(public.join("ca")).unwrap(), before, "{mode:?} {turn}");
        }
        // And the twin: what lies beside is the script's to change.
        let beside = public.join("beside").display().to_string();
        let said = site.result("forge", &[&beside]);
        assert!(said["stdout"].as_str().unwrap().ends_with("beside.x\nca\n"), "{mode:?}: {said}");
    }
}

#[test]
fn whoever_a_confined_script_leaves_behind_is_gone_when_the_outcome_is_told() {
    for mode in Mode::ROOT {
        let word = format!("31{:07}", std::process::id());
        let text = format!("for i in 1 2 3; do (trap '' TERM; setsid sleep {word} > /dev/null 2>&1 &) done; exit 4");
        let site = Site::builder().executor(mode).sh("leave", &text).start();
        for _ in 0..5 {
            assert_eq!(site.result("leave", &[])["exit"], 4);
            assert_eq!(host::with_words(|words| words.contains(&word)), Vec::<u32>::new(), "{mode:?}");
        }
    }
}

#[test]
fn a_spare_ends_with_its_monitor_and_that_with_its_executor() {
    for mode in Mode::ROOT {
        let site = builder(mode).start();
        let (monitor, spare) = idle(&site);
        host::kill(monitor, Signal::SIGKILL);
        [monitor, spare].into_iter().for_each(dead);
        let (monitor, spare) = idle(&site);
        host::kill(site.agent().executor(), Signal::SIGKILL);
        [monitor, spare].into_iter().for_each(dead);
    }
}

#[test]
fn a_spare_holds_nothing_but_its_line() {
    let site = builder(Mode::Own).start();
    // Standard descriptors, line, and signals.
    eventually("a spare with five descriptors", || {
        let (_, spare) = idle(&site);
        let open = std::fs::read_dir(format!("/proc/{spare}/fd")).ok()?;
        (open.count() == 5).then_some(())
    });
}

/// Starts a program in a tree of its own, of which `/run` is a directory like any other, with nothing mounted there.
const PLAIN_RUN: &str = r#"mount -t tmpfs -o mode=755 none $0 && for name in /*; do
    if [ -L $name ]; then cp -P $name $0/
    elif [ $name = /run ]; then mkdir $0/run && echo first > $0/run/host
    elif [ -d $name ]; then mkdir $0$name && mount --rbind $name $0$name
    fi || exit
done && exec chroot $0 "$@""#;

#[test]
fn a_directory_that_takes_the_place_of_a_private_one_is_shown_to_no_run() {
    let mut site = builder(Mode::Own).sh("see", "ls -A /run; cat /run/host 2> /dev/null; true").prepare();
    let (work, name) = (site.agent().root.join("work"), site.agent().name.clone());
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), format!("{config}writable = {}\n", work.display())).unwrap();
    let jail = tempfile::tempdir_in("/var/tmp").unwrap();
    let words = format!("set -- unshare --mount sh -c '{PLAIN_RUN}' {} \"$@\"", jail.path().display());
    site.agent_mut().start_with(&words, [Stdio::null(), Stdio::null()]);
    site.register(&name, site.agent().address().port(), &site.agent().credentials);
    let root = PathBuf::from(format!("/proc/{}/root", site.agent().executor()));
    // A spare whose private places are made.
    let ready = |spare: u32| {
        let mounts = std::fs::read_to_string(format!("/proc/{spare}/mountinfo")).unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(4) == Some("/run"))
    };
    for turn in 0..4 {
        eventually("a spare that stands by", || ready(idle(&site).1).then_some(()));
        std::fs::rename(root.join("run"), root.join(format!("was-{turn}"))).unwrap();
        std::fs::create_dir(root.join("run")).unwrap();
        std::fs::write(root.join("run/host"), "of the host\n").unwrap();
        let said = site.result("see", &[]);
        assert_eq!((&said["exit"], &said["stdout"]), (&json!(0), &json!("")), "{turn}: {said}");
    }
    // Back at its place, it is the one that a spare was made for.
    eventually("a spare that stands by", || ready(idle(&site).1).then_some(()));
    std::fs::rename(root.join("run"), root.join("new")).unwrap();
    std::fs::rename(root.join("new"), root.join("run")).unwrap();
    assert_eq!(site.result("see", &[])["stdout"], "");
    assert_eq!(site.result("show", &["/was-0/host"])["stdout"], "first\n");
}
