//! Who can look into the agent's processes, whatever its account: nobody whom the kernel does not let do everything. That is so
//! with `fs.suid_dumpable` as hosts have it and with 1, which `cargo xtask vm` sets.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::lease::Lease;
use crate::harness::process::{finish, program};
use crate::harness::site::Builder;
use crate::harness::{Agent, Site, eventually, host};

/// Tries everything on each of the processes that it is given, and says for each what has worked. Without any, on all that it
/// sees but itself. First it says which capabilities it has.
const PROBE: &str = r#"
use POSIX; my $machine = (POSIX::uname())[4];
my ($ptrace, $readv) = $machine eq "x86_64" ? (101, 310) : (117, 270);
open(my $own, "<", "/proc/self/status") or die; print grep { /^CapEff/ } <$own>;
opendir(my $all, "/proc") or die; my @all = grep { /^\d+$/ && $_ != $$ } readdir($all);
for my $pid (@ARGV ? @ARGV : @all) {
    my @can;
    for my $file (qw(mem environ maps smaps auxv pagemap syscall io)) {
        open(my $open, "<", "/proc/$pid/$file") or next;
        push @can, $file if $file eq "mem" || defined(sysread($open, my $byte, 1));
    }
    for my $link (qw(root cwd exe ns/mnt)) { push @can, $link if defined(readlink("/proc/$pid/$link")) }
    push @can, "through-root" if -e "/proc/$pid/root/etc";
    for my $number (0 .. 99) {
        push @can, "fd" if defined(readlink("/proc/$pid/fd/$number")) || open(my $open, "<", "/proc/$pid/fd/$number");
    }
    my $room = "x" x 8; my ($here, $there) = (pack("PQ", $room, 8), pack("QQ", 16, 8));
    # Where it may, there is nothing at that address (EFAULT).
    push @can, "memory" if syscall($readv, $pid, $here, 1, $there, 1, 0) >= 0 || $!{EFAULT};
    my $handle = syscall(434, $pid, 0);
    for my $number (0 .. 9) { push @can, "descriptor" if $handle >= 0 && syscall(438, $handle, $number, 0) >= 0 }
    # PTRACE_SEIZE
    push @can, "trace" if syscall($ptrace, 0x4206, $pid, 0, 0) == 0;
    my %seen; print join(" ", "$pid:", grep { !$seen{$_}++ } @can), "\n";
}
"#;

/// Who tries: the agent's account, that of its scripts, and a root without capabilities.
const ACCOUNTS: [u32; 3] = [65_534, 1, 0];

/// A program as one of them, which has no capabilities.
fn starting(account: u32, words: &[&str]) -> std::process::Command {
    let mut command = program(Path::new("setpriv"));
    let account = account.to_string();
    command.args([
        "--reuid",
        &account,
        "--regid",
        &account,
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]);
    command.args(words).current_dir("/");
    command
}

/// What one of them can do to each of these processes.
fn tries(account: u32, processes: &[u32]) -> Vec<String> {
    let numbers: Vec<String> = processes.iter().map(u32::to_string).collect();
    let words = ["perl", "-e", PROBE].into_iter().chain(numbers.iter().map(String::as_str));
    answers(&finish(starting(account, &words.collect::<Vec<_>>()), "").exits(0).stdout)
}

fn answers(said: &str) -> Vec<String> {
    let mut lines = said.lines().map(str::to_owned);
    assert_eq!(lines.next().as_deref(), Some("CapEff:\t0000000000000000"), "{said}");
    lines.collect()
}

/// No account can do anything to any of these. The names are for whoever reads that one can.
#[track_caller]
fn are_closed(processes: &[(&str, u32)]) {
    let numbers: Vec<u32> = processes.iter().map(|(_, pid)| *pid).collect();
    for account in ACCOUNTS {
        let nothing: Vec<String> = numbers.iter().map(|pid| format!("{pid}:")).collect();
        assert_eq!(tries(account, &numbers), nothing, "uid {account}: {processes:?}");
        // But for an init that was made ahead and that nobody has wanted for long, all of them are there still.
        let (here, gone): (Vec<_>, Vec<_>) = processes.iter().partition(|(_, pid)| host::alive(*pid));
        let count = |name: &str| here.iter().filter(|(other, _)| *other == name).count();
        assert!(
            gone.iter().all(|(name, _)| *name == "init") && count("init") >= count("monitor"),
            "{gone:?}: {processes:?}"
        );
    }
}

#[test]
fn what_is_not_closed_is_seen_through_by_each_account() {
    for account in ACCOUNTS {
        let mut open = starting(account, &["sleep", "300"]).spawn().unwrap();
        let command = || std::fs::read(format!("/proc/{}/cmdline", open.id())).unwrap();
        eventually("another program", || command().starts_with(b"sleep").then_some(()));
        let said = tries(account, &[open.id()]);
        drop((open.kill(), open.wait()));
        // Where Yama is, it has its own mind about the rest, which changes memory and descriptors.
        for way in ["environ", "maps", "auxv", "root", "cwd", "exe", "ns/mnt", "through-root", "fd"] {
            assert!(said[0].split(' ').any(|word| word == way), "uid {account} {way}: {said:?}");
        }
    }
}

/// Becomes an account and executes nothing, as the agent does, and leaves it to the kernel who may look into it then.
const CHANGED: &str = r#"
use POSIX; my $to = $ARGV[0]; $) = "$to $to"; POSIX::setgid($to); POSIX::setuid($to); die if $< != $to || $> != $to;
chdir "/"; $| = 1; print "changed\n"; sleep 300;
"#;

/// What the others here are asked to hold against: the setting of this machine, and that it does what it says.
#[test]
fn who_has_changed_its_account_and_says_nothing_is_as_open_as_the_kernel_is_set_to() {
    let setting = std::fs::read_to_string("/proc/sys/fs/suid_dumpable").unwrap();
    if let Ok(wanted) = std::env::var("CTRL_EXEC_VM_DUMPABLE") {
        assert_eq!(setting.trim(), wanted);
    }
    let mut command = program(Path::new("perl"));
    command.args(["-e", CHANGED, "65534"]).stdout(Stdio::piped());
    let mut changed = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(changed.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said = tries(65_534, &[changed.id()]);
    drop((changed.kill(), changed.wait()));
    assert_eq!(line, "changed\n");
    if setting.trim() == "1" {
        for way in ["environ", "maps", "root", "exe", "through-root", "fd"] {
            assert!(said[0].split(' ').any(|word| word == way), "{way}: {said:?}");
        }
    } else {
        assert_eq!(said, [format!("{}:", changed.id())], "fs.suid_dumpable = {setting}");
    }
}

/// A site that has `held`, which waits where it is executed, and `wait`, which runs.
fn builder(mode: Mode, account: &str) -> Builder {
    let wait = "echo up > {work}/up; while [ ! -e {work}/go ]; do sleep 0.02; done";
    let site = Site::builder().executor(mode).sh("held", "echo ran").sh("wait", wait);
    site.section(&format!("kill_grace = 0\nrun_as = {account}"))
}

/// The processes that do not go away: the agent, the executor, and in one mode what keeps that.
fn lasting(agent: &Agent) -> Vec<(&'static str, u32)> {
    let mut all = vec![("agent", agent.pid()), ("executor", agent.executor())];
    if agent.mode == Mode::Own {
        all.push(("keeper", agent.keeper()));
    }
    all
}

/// The monitors, and the processes of their runs: the inits, and those that are not their program yet.
fn of_runs(agent: &Agent) -> Vec<(&'static str, u32)> {
    let mut all = Vec::new();
    let own = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let executor = agent.executor();
    for monitor in host::children(executor) {
        all.push(("monitor", monitor));
        for pid in host::children(monitor) {
            let name = match host::number_within(pid) {
                Some(1) => "init",
                Some(_) if own(pid) == own(executor) => "on its way",
                _ => continue,
            };
            all.push((name, pid));
        }
    }
    all
}

#[test]
fn nobody_looks_into_agent_executor_monitor_or_init_or_into_what_is_to_become_a_script() {
    for mode in Mode::ROOT {
        for account in [Mode::SCRIPTS, "root"] {
            let site = builder(mode, account).start();
            let agent = site.agent();
            let running = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
            agent.worked("up");
            let mut lease = Lease::on(&agent.root.join("scripts/held"));
            let waiting = Background::start(site.control_command(&["--json", "run", "agent1", "held"]));
            lease.asked();
            // Everything that the script's account is to have it has by now, and nothing else.
            let found = of_runs(agent);
            for (name, count) in [("monitor", 2), ("init", 2), ("on its way", 1)] {
                let there = found.iter().filter(|(found, _)| *found == name).count();
                assert!(there >= count, "{mode:?} {account} {name}: {found:?}");
            }
            are_closed(&[lasting(agent), found].concat());
            lease.give_back();
            assert_eq!(waiting.end().result()["stdout"], "ran\n", "{mode:?} {account}");
            std::fs::write(agent.work("go"), "").unwrap();
            assert_eq!(running.end().result()["exit"], 0);
        }
    }
}

#[test]
fn an_agent_that_has_become_another_version_is_closed_to_its_account_as_before() {
    let mut site = builder(Mode::Own, Mode::SCRIPTS).prepare();
    site.agent_mut().install();
    site.start(0);
    are_closed(&lasting(site.agent()));
    site.agent().upgrade();
    are_closed(&lasting(site.agent()));
}

#[test]
fn a_script_sees_no_process_but_its_own_and_an_init_that_is_closed_to_it() {
    for mode in Mode::ROOT {
        for account in [Mode::SCRIPTS, "root"] {
            // With the filter, some of it is refused before it is judged.
            let site =
                builder(mode, account).section("syscalls = off").script("probe", &format!("#!/usr/bin/perl\n{PROBE}"));
            let site = site.start();
            let said = site.result("probe", &[]);
            assert_eq!(said["exit"], 0, "{said}");
            assert_eq!(answers(said["stdout"].as_str().unwrap()), ["1:"], "{mode:?} {account}");
        }
    }
}
