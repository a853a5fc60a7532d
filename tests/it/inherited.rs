//! What a script has from whoever started its executor: nothing under one of root's, but what the host itself has decided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::harness::executor::{Mode, Service};
use crate::harness::process::program;
use crate::harness::{Agent, Site};

/// A shell that starts an executor, or an agent, with everything at odds. No hard limit is lowered.
const ODD: &str = r#"
umask 077; cd /tmp; trap '' INT QUIT PIPE USR1 WINCH ALRM; exec 7</etc/passwd 8>/dev/null 9<>/dev/zero
echo 1000 > /proc/$$/oom_score_adj; echo 0x7 > /proc/$$/coredump_filter; echo 12345 > /proc/$$/timerslack_ns
export LANG=de_DE.UTF-8 LC_ALL=de_DE.UTF-8 LANGUAGE=de TZ=Pacific/Auckland TERM=vt52 HOME=/tmp USER=eve LOGNAME=eve
export SECRET=s LD_BIND_NOW=1 PERL_BADLANG=0
prlimit --pid $$ --cpu=90000: --fsize=900000000: --data=90000000000: --stack=1000000: --core=1000: --rss=900000000: \
    --nproc=2000: --memlock=4096: --as=90000000000: --locks=900: --sigpending=900: --msgqueue=9000: --rttime=9000000:
renice -n 7 -p $$ > /dev/null; ionice -c 3 -p $$; chrt --batch -p 0 $$
taskset -pc "$(taskset -pc $$ | sed 's/.*: *//; s/[,-].*//')" $$ > /dev/null
# prctl(PR_SET_THP_DISABLE, 1), whose number is the machine's.
case $(uname -m) in x86_64) number=157 ;; *) number=167 ;; esac
set -- setarch "$(uname -m)" -R perl -e "syscall($number, 41, 1, 0, 0, 0); exec @ARGV or die" "$@"
"#;

/// What it prints of itself, with no shell before it that would change anything.
const FILES: [&str; 8] =
    ["stat", "status", "limits", "oom_score_adj", "coredump_filter", "timerslack_ns", "personality", "environ"];

/// Soft limits, as `/proc/PID/limits` calls them.
const SOFT: [(&str, Resource, u64); 16] = [
    ("Max cpu time", Resource::RLIMIT_CPU, RLIM_INFINITY),
    ("Max file size", Resource::RLIMIT_FSIZE, RLIM_INFINITY),
    ("Max data size", Resource::RLIMIT_DATA, RLIM_INFINITY),
    ("Max stack size", Resource::RLIMIT_STACK, 8 << 20),
    ("Max core file size", Resource::RLIMIT_CORE, 0),
    ("Max resident set", Resource::RLIMIT_RSS, RLIM_INFINITY),
    ("Max processes", Resource::RLIMIT_NPROC, RLIM_INFINITY),
    ("Max open files", Resource::RLIMIT_NOFILE, 1024),
    ("Max locked memory", Resource::RLIMIT_MEMLOCK, 8 << 20),
    ("Max address space", Resource::RLIMIT_AS, RLIM_INFINITY),
    ("Max file locks", Resource::RLIMIT_LOCKS, RLIM_INFINITY),
    ("Max pending signals", Resource::RLIMIT_SIGPENDING, RLIM_INFINITY),
    ("Max msgqueue size", Resource::RLIMIT_MSGQUEUE, 819_200),
    ("Max nice priority", Resource::RLIMIT_NICE, 0),
    ("Max realtime priority", Resource::RLIMIT_RTPRIO, 0),
    ("Max realtime timeout", Resource::RLIMIT_RTTIME, RLIM_INFINITY),
];

/// A site whose agent, or the executor of its system, was started by a shell with these words.
fn started(mode: Mode, words: &str) -> Site {
    let site = Site::builder().executor(mode).allow("cat = /bin/cat").allow("ls = /bin/ls");
    let mut site = site.allow("ionice = /usr/bin/ionice").prepare();
    let agent = site.agent_mut();
    if mode == Mode::System {
        let usual = Service::command(&agent.root, &agent.socket());
        let mut odd = program(Path::new("/bin/sh"));
        odd.args(["-c", &format!("{words}\nexec \"$@\""), "sh"]).arg(usual.get_program()).args(usual.get_args());
        odd.env("CTRL_EXEC_ROOT", &agent.root);
        agent.adopt_service(Service::of(odd, &agent.root, 1));
        agent.start_alone();
    } else {
        agent.start_with(words, [Stdio::null(), Stdio::null()]);
    }
    let agent = site.agent();
    site.register(&agent.name, agent.address().port(), &agent.credentials);
    site
}

fn says(site: &Site, script: &str, args: &[&str]) -> String {
    let result = site.result(script, args);
    assert_eq!(result["exit"], 0, "{result}");
    result["stdout"].as_str().unwrap().to_owned()
}

/// Everything that can be read of a process below `/proc`, by a name each.
fn facts(read: impl Fn(&str) -> String) -> BTreeMap<String, String> {
    let texts = FILES.map(|file| (file, read(file)));
    let text = |name: &str| texts.iter().find(|(file, _)| *file == name).unwrap().1.as_str();
    let mut facts = BTreeMap::new();
    let stat: Vec<&str> = text("stat").rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Fields 5 to 7, 19 and 41 of proc_pid_stat(5), of which the third is the first here.
    let own_number = text("stat").split(' ').next().unwrap();
    facts.insert("leads".to_owned(), (stat[2] == own_number && stat[3] == own_number).to_string());
    for (name, place) in [("terminal", 4), ("nice", 16), ("policy", 38)] {
        facts.insert(name.to_owned(), stat[place].to_owned());
    }
    for line in text("status").lines().chain(text("limits").lines().filter(|line| line.starts_with("Max "))) {
        let (name, value) = line.split_once(':').unwrap_or_else(|| line.split_at(26));
        facts.insert(name.trim().to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    for name in ["oom_score_adj", "coredump_filter", "timerslack_ns", "personality"] {
        facts.insert(name.to_owned(), text(name).trim().to_owned());
    }
    let environment: BTreeSet<&str> = text("environ").split_terminator('\0').collect();
    facts.insert("environment".to_owned(), environment.into_iter().collect::<Vec<_>>().join(" "));
    facts
}

fn of_a_script(site: &Site) -> BTreeMap<String, String> {
    facts(|file| says(site, "cat", &[&format!("/proc/self/{file}")]))
}

fn of(pid: u32) -> BTreeMap<String, String> {
    facts(|file| String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap()).into_owned())
}

#[track_caller]
fn are(found: &BTreeMap<String, String>, wanted: &[(&str, &str)], about: &str) {
    for (name, value) in wanted {
        assert_eq!(found.get(*name).map(String::as_str), Some(*value), "{about}: {name}\n{found:#?}");
    }
}

/// What holds in every mode.
const ANYWHERE: [(&str, &str); 7] = [
    ("leads", "true"),
    ("terminal", "0"),
    ("Umask", "0022"),
    ("SigBlk", "0000000000000000"),
    ("SigIgn", "0000000000000000"),
    ("SigCgt", "0000000000000000"),
    ("ShdPnd", "0000000000000000"),
];

/// What holds under an executor of root's.
const AFRESH: [(&str, &str); 7] = [
    ("THP_enabled", "1"),
    ("nice", "0"),
    ("policy", "0"),
    ("coredump_filter", "00000033"),
    ("timerslack_ns", "50000"),
    ("personality", "00000000"),
    (
        "environment",
        "HOME=/usr/sbin LOGNAME=daemon PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin USER=daemon",
    ),
];

/// That the odd shell did what it was told to, seen at the front-end.
fn is_at_odds(agent: &Agent) {
    let wanted = [("nice", "7"), ("policy", "3"), ("oom_score_adj", "1000"), ("coredump_filter", "00000007")];
    let found = of(agent.pid());
    are(&found, &wanted, "the agent");
    are(&found, &[("timerslack_ns", "12345"), ("personality", "00040000"), ("THP_enabled", "0")], "the agent");
    assert!(found["Max file size"].starts_with("900000000 ") && found["Max msgqueue size"].starts_with("9000 "));
    assert!(found["Cpus_allowed_list"].bytes().all(|byte| byte.is_ascii_digit()), "{found:?}");
    assert!(found["environment"].contains("LANG=de_DE.UTF-8"), "{found:?}");
}

#[test]
fn whoever_starts_an_executor_of_roots_hands_nothing_down_to_its_scripts() {
    let of_the_first = |file: &str| std::fs::read_to_string(format!("/proc/1/{file}")).unwrap();
    let weight = of_the_first("oom_score_adj").trim().parse::<i32>().unwrap().max(0).to_string();
    let status = of_the_first("status");
    let processors = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap().trim();
    for mode in Mode::ROOT {
        let site = started(mode, ODD);
        if mode == Mode::Own {
            is_at_odds(site.agent());
        }
        let (found, about) = (of_a_script(&site), format!("{mode:?}"));
        are(&found, &[&ANYWHERE[..], &AFRESH].concat(), &about);
        are(&found, &[("oom_score_adj", &weight), ("Cpus_allowed", processors)], &about);
        for (name, resource, soft) in SOFT {
            let hard = match (resource, getrlimit(resource).unwrap().1) {
                // The other half is the executor's alone.
                (Resource::RLIMIT_SIGPENDING, hard) if hard != RLIM_INFINITY => hard / 2,
                (_, hard) => hard,
            };
            let word = |limit: u64| if limit == RLIM_INFINITY { "unlimited".to_owned() } else { limit.to_string() };
            let rights = [Resource::RLIMIT_NICE, Resource::RLIMIT_RTPRIO].contains(&resource);
            let limits = format!("{} {}", word(soft.min(hard)), word(if rights { 0 } else { hard }));
            assert!(
                format!("{} ", found[name]).starts_with(&format!("{limits} ")),
                "{about}: {name} {limits} {found:?}"
            );
        }
        assert_eq!(says(&site, "ls", &["/proc/self/fd"]), "0\n1\n2\n3\n", "{about}: the last is of the list itself");
        assert_eq!(says(&site, "ls", &["-l", "/proc/self/cwd"]).trim_end().rsplit(' ').next(), Some("/"), "{about}");
        assert!(says(&site, "ionice", &[]).starts_with("none:"), "{about}");
        // A fresh monitor and one that had an order before have their scripts start alike.
        are(&of_a_script(&site), &[&ANYWHERE[..], &AFRESH].concat(), &about);
    }
}

#[test]
fn a_script_with_the_agents_own_rights_has_the_agents_bounds_and_a_clean_start_all_the_same() {
    let site = started(Mode::Private, ODD);
    is_at_odds(site.agent());
    let found = of_a_script(&site);
    are(&found, &[&ANYWHERE[..], &[("nice", "7"), ("oom_score_adj", "1000")]].concat(), "private");
    let names: BTreeSet<&str> = found["environment"].split(' ').map(|pair| pair.split('=').next().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TERM", "TZ", "USER"]));
    assert_eq!(says(&site, "ls", &["/proc/self/fd"]), "0\n1\n2\n3\n");
    assert_eq!(says(&site, "ionice", &[]), "idle\n");
}

#[test]
fn a_hard_limit_stays_the_hosts_and_is_told() {
    for mode in Mode::ROOT {
        let site = started(mode, "prlimit --pid $$ --fsize=800000000:900000000 --stack=1000000:2000000");
        let found = of_a_script(&site);
        let wanted = [("Max file size", "900000000 900000000 bytes"), ("Max stack size", "2000000 2000000 bytes")];
        are(&found, &wanted, &format!("{mode:?}"));
        let told = site.agent().line("exec-inherited");
        let told = told.get("SCRIPTS_HAVE").unwrap();
        assert!(told.contains("file size at most 900000000, stack size at most 2000000"), "{told}");
    }
}
