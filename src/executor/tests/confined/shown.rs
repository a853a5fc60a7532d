//! What a script may write to shows at other places, and what it must not change shows there: by mounts, by hard links, and by
//! being made where it is not yet.

use super::fenced::mounting;
use super::*;

/// Why an executor does not start with this.
fn fault(starter: &str, profile: &str) -> Option<String> {
    let starter = mounting(starter);
    let executor = Executor::spawn_root(&starter.each_ref().map(String::as_str), profile);
    match executor.answer() {
        Reloaded::Failed { text } => Some(text),
        Reloaded::Unable { text } => panic!("{text}"),
        Reloaded::Done => None,
    }
}

#[test]
fn what_is_not_there_yet_would_show_where_its_directory_shows_and_not_where_something_beside_it_does() {
    let part = "rmdir $D/conf-runs; mount --bind $D/other /srv; mkdir /srv/x";
    for writable in ["/srv", "/srv/x"] {
        assert_eq!(fault(part, &format!("run_as = root\nwritable = {writable}")), None, "{writable}");
    }
    let whole = "rmdir $D/conf-runs; mount --bind $D /srv";
    for writable in ["/srv/conf-runs", "/srv/conf-runs/x"] {
        let text = fault(whole, &format!("run_as = root\nwritable = {writable}")).unwrap_or_default();
        assert!(text.contains("where async_runs_dir is"), "{writable}: {text}");
    }
    assert_eq!(fault(whole, "run_as = root\nwritable = /srv/other"), None);
}

/// A layer of an overlay is written to through the overlay, and the other way round.
#[test]
fn an_overlay_shows_what_it_is_made_of() {
    let overlay = "mkdir $D/l; mount -t tmpfs x $D/l; mkdir -p $D/l/low $D/l/up/in $D/l/work $D/l/beside
        mount -t overlay x -o lowerdir=$D/l/low,upperdir=$D/l/up,workdir=$D/l/work /srv
        rmdir $D/conf-runs; ln -s /srv/in $D/conf-runs";
    for writable in ["{}/l/up", "{}/l/up/in", "{}/l", "{}/l/up/in/new"] {
        let text = fault(overlay, &format!("run_as = root\nwritable = {writable}")).unwrap_or_default();
        assert!(text.contains("where async_runs_dir is"), "{writable}: {text}");
    }
    assert_eq!(fault(overlay, "run_as = root\nwritable = {}/l/beside"), None);
    // A script of another profile in the overlay.
    let overlay = mounting(&format!(
        "{overlay}; rm $D/conf-runs; mkdir $D/conf-runs /srv/in/deep; touch /srv/in/deep/strong /srv/in/deep/strong.schema.json"
    ));
    let profile = "run_as = root\nwritable = {}/l/up\n[profile strong]\nrun_as = root";
    let scripts = "strong = /srv/in/deep/strong profile=strong\n";
    let executor = Executor::spawn_listing(&overlay.each_ref().map(String::as_str), scripts, profile);
    assert_eq!(executor.answer(), Reloaded::Done);
    let said = executor.says(
        "cd {}/l/up/in; for file in deep/strong deep/strong.schema.json; do
           echo forged >> $file; rm -f $file; cat $file /srv/in/$file
         done; mv deep x; mv ../in ../y; echo mine > mine && cat /srv/in/mine",
    );
    assert!(said.matches("Read-only").count() == 4 && said.matches("busy").count() == 2, "{said}");
    assert!(said.ends_with("mine\n") && !said.contains("forged"), "{said}");
}

/// An executor with the script `{}/other/in/strong` of another profile, seen by these mounts.
fn beside(starter: &str, profile: &str) -> Executor {
    let starter = mounting(&format!(
        "mkdir $D/other/in; echo '#!/bin/sh' > $D/other/in/strong; chmod 755 $D/other/in/strong; {starter}"
    ));
    let scripts = "strong = {}/other/in/strong profile=strong\n";
    let profile = format!("{profile}\n[profile strong]\nrun_as = root");
    let executor = Executor::spawn_listing(&starter.each_ref().map(String::as_str), scripts, &profile);
    assert_eq!(executor.answer(), Reloaded::Done);
    executor
}

#[test]
fn a_script_of_another_profile_is_kept_wherever_a_mount_shows_it() {
    let contract = "echo '{}' > $D/other/in/strong.schema.json";
    let alias = format!(
        "{contract}; mkdir $D/open/a $D/open/b; mount --bind $D/other/in $D/open/a; mount --bind $D/other $D/open/b"
    );
    let file = format!("{contract}; touch $D/open/a; mount --bind $D/other/in/strong $D/open/a");
    let forge = "for file in a/strong a/strong.schema.json a; do echo forged >> $file; rm -f $file; mv $file x; done
        mv b/in b/x; mv b y; echo forged >> b/in/strong; rm -f b/in/strong; mv ../open/a z";
    assert_eq!(refused(&beside(&alias, "run_as = root\nwritable = {}/open/a")), "writable-script");
    for (starter, writables) in
        [(&alias, ["{}/open", "{}/open/b", "/srv/../{}/open"]), (&file, ["{}/open", "{}/open/a", "/srv/../{}/open"])]
    {
        for writable in writables {
            let executor = beside(starter, &format!("run_as = root\nwritable = {writable}"));
            let said = executor.says(&format!("cd {{}}/open; {forge}"));
            for (name, text) in [("other/in/strong", "#!/bin/sh\n"), ("other/in/strong.schema.json", "{}\n")] {
                let found = std::fs::read_to_string(executor.path(name)).unwrap_or_default();
                assert_eq!(found, text, "{writable} {name}: {said}");
            }
        }
    }
    // And the twin: what lies beside it there, and where no mount shows it.
    let executor = beside(&alias, "run_as = root\nwritable = {}/open");
    assert_eq!(
        executor.says("cd {}/open; echo mine > b/mine && cat b/mine; echo x > deep/strong && cat deep/strong"),
        "mine\nx\n"
    );
}

#[test]
fn a_script_of_another_profile_that_is_missing_is_put_there_by_no_mount_either() {
    let starter = "mount --bind $D/other/in $D/open/deep; rm $D/other/in/strong";
    let executor = beside(starter, "run_as = root\nwritable = {}/open");
    assert_eq!(refused(&executor), "writable-script");
    let executor = beside("rm $D/other/in/strong", "run_as = root\nwritable = {}/open");
    assert_eq!(executor.says("echo ran"), "ran\n");
}

#[test]
fn a_contract_of_another_profiles_script_is_not_made() {
    let shown = "mount --bind $D/other/in $D/open/deep";
    for (starter, writable) in [(shown, "{}/open"), (":", "{}/other"), (":", "/srv/../{}/other")] {
        for profile in ["run_as = root", "run_as = bin\ncaps = CAP_DAC_OVERRIDE"] {
            let executor = beside(starter, &format!("{profile}\nwritable = {writable}"));
            let Outcome::Refused(refusal) = executor.shell("echo ran", &[]).outcome() else {
                panic!("{writable} is not refused")
            };
            let place = executor.path("other/in/strong.schema.json").display().to_string();
            let told = refusal.text().contains("'strong'") && refusal.text().contains(&place);
            assert!(refusal.code() == "writable-script" && told, "{refusal:?}");
            executor.write("other/in/strong.schema.json", "{}");
            let said =
                executor.says("cd {}/open/deep; echo x > strong.schema.json; rm -f strong.schema.json; echo ran");
            assert!(said.ends_with("ran\n"), "{said}");
            let text = std::fs::read_to_string(executor.path("other/in/strong.schema.json")).unwrap();
            assert_eq!(text, "{}", "{said}");
        }
        // Whom the directory's mode keeps away makes none.
        let executor = beside(starter, &format!("run_as = bin\nwritable = {writable}"));
        let said = executor.says(
            "cd {}/other/in; echo x > strong.schema.json; cd {}/open/deep; echo x > strong.schema.json; echo ran",
        );
        assert!(said.ends_with("ran\n") && !executor.path("other/in/strong.schema.json").exists(), "{said}");
    }
    // It lies beside the name in the allowlist, wherever that leads.
    let executor = Executor::spawn_listing(
        &[],
        "strong = {}/open/strong profile=strong\n",
        "run_as = root\nwritable = {}/open\n[profile strong]\nrun_as = root",
    );
    assert_eq!(executor.answer(), Reloaded::Done);
    executor.script("other/strong", "#!/bin/sh\n");
    std::os::unix::fs::symlink(executor.path("other/strong"), executor.path("open/strong")).unwrap();
    assert_eq!(refused(&executor), "writable-script");
}

#[test]
fn a_link_to_the_contract_of_another_profiles_script_is_not_replaced() {
    let lead =
        "mkdir $D/other/c; echo '{}' > $D/other/c/contract; ln -s $D/other/c/contract $D/other/in/strong.schema.json";
    let executor = beside(lead, "run_as = root\nwritable = {}/other");
    let said = executor.says(
        "cd {}/other/in; rm -f strong.schema.json; mv strong.schema.json x; echo x >> ../c/contract; mv ../c ../x; ls; ls ../c",
    );
    assert!(said.matches("Read-only").count() == 3 && said.contains("busy"), "{said}");
    assert!(said.ends_with("strong\nstrong.schema.json\ncontract\n"), "{said}");
    for named in ["{}/other/c", "{}/other:{}/other/c"] {
        assert_eq!(refused(&beside(lead, &format!("run_as = root\nwritable = {named}"))), "writable-script", "{named}");
    }
}

#[test]
fn the_executors_own_program_is_written_to_by_no_mount_either() {
    let place = std::env::current_exe().unwrap();
    let place = place.parent().unwrap().display();
    for writable in ["{}/open", "{}/open/deep"] {
        let shown = format!("mount --bind {place} $D/open/deep");
        let executor = beside(&shown, &format!("run_as = root\nwritable = {writable}"));
        assert_eq!(refused(&executor), "writable-control", "{writable}");
    }
    let beside_it = format!("mkdir -p {place}/beside; mount --bind {place}/beside $D/open/deep");
    assert_eq!(beside(&beside_it, "run_as = root\nwritable = {}/open").says("echo ran"), "ran\n");
}

/// Nobody can tell where such a name is, so that no run is refused for one. While the program is executed, which it is for as long
/// as there is a run, the kernel lets nobody write to it by any name (`ETXTBSY`).
#[test]
fn the_executors_own_program_is_not_written_to_by_another_name_while_it_runs() {
    let starter = "cp $1 $D/other/program; ln $D/other/program $D/open/name; shift; set -- $D/other/program \"$@\"";
    let starter = mounting(&format!("mount -t tmpfs -o mode=755 x $D/other; mkdir -m 777 $D/other/o; {starter}"));
    let starter = starter.map(|word| word.replace("$D/open/name", "$D/other/o/name"));
    let executor =
        Executor::root_under(&starter.each_ref().map(String::as_str), "run_as = root\nwritable = {}/other/o");
    let said = executor.says(
        "cd {}/other/o; stat -c %h name; cp name before; echo forged >> name; echo > name; cp /bin/true name
         cmp name before && echo same; echo forged >> before && rm name && echo removed",
    );
    assert!(said.starts_with("2\n") && said.matches("ext file busy").count() == 3, "{said}");
    assert!(said.ends_with("same\nremoved\n"), "{said}");
}

#[test]
fn a_script_with_another_name_refuses_whoever_could_write_to_it_there() {
    for (profile, refusal) in [
        ("run_as = root", Some("script-linked")),
        ("run_as = bin\ncaps = CAP_DAC_OVERRIDE", Some("script-linked")),
        ("run_as = bin", None),
    ] {
        let executor = beside(":", &format!("{profile}\nwritable = {{}}/open"));
        assert_eq!(executor.says("echo ran"), "ran\n", "{profile}");
        // Made while the executor runs.
        std::fs::hard_link(executor.path("other/in/strong"), executor.path("open/name")).unwrap();
        if let Some(code) = refusal {
            assert_eq!(refused(&executor), code, "{profile}");
        } else {
            assert!(executor.says("echo forged >> {}/open/name").contains("Permission denied"), "{profile}");
        }
        std::fs::remove_file(executor.path("open/name")).unwrap();
        // Another one where nothing can be written to.
        std::fs::hard_link(executor.path("other/in/strong"), executor.path("other/in/twin")).unwrap();
        assert_eq!(executor.says("echo ran"), "ran\n", "{profile}");
        std::fs::remove_file(executor.path("other/in/twin")).unwrap();
        executor.write("other/in/strong.schema.json", "{}");
        std::fs::hard_link(executor.path("other/in/strong.schema.json"), executor.path("open/name")).unwrap();
        assert_eq!(executor.shell("echo ran", &[]).outcome().started(), refusal.is_none(), "{profile}");
    }
}

/// Has the agent's configuration name another directory of jobs, in a directory that is root's alone.
fn named_in_srv(words: &str) -> String {
    format!(
        "mount -t tmpfs -o mode=755 x /srv{words}
         sed -i 's,^async_runs_dir =.*,async_runs_dir = /srv/state/runs,' $D/conf/agent.conf"
    )
}

/// Without the directory of jobs that the agent has.
fn without_runs(starter: &str, profile: &str) -> Executor {
    let starter = mounting(&format!("rmdir $D/conf-runs; {starter}"));
    Executor::root_under(&starter.each_ref().map(String::as_str), profile)
}

#[test]
fn what_is_the_agents_and_not_there_is_made_by_no_script() {
    let closed = named_in_srv("");
    for (starter, profile) in [
        (":", "run_as = root"),
        (":", "run_as = bin"),
        (&closed, "run_as = root"),
        (&closed, "run_as = root\nsyscalls = off"),
        (&closed, "run_as = bin\ncaps = CAP_DAC_OVERRIDE"),
        (&named_in_srv("; mkdir -m 777 /srv/state"), "run_as = bin"),
        // A link in a hidden directory to nothing outside.
        ("mkdir $D/conf-runs; ln -s $D/other/runs $D/conf/trusted", "run_as = root"),
    ] {
        let executor = without_runs(starter, profile);
        let Outcome::Refused(refusal) = executor.shell("mkdir {}/conf-runs; echo ran", &[]).outcome() else {
            panic!("{profile} is not refused")
        };
        assert!(
            refusal.code() == "own-missing" && refusal.text().contains(", which is the agent's, is not there"),
            "{refusal:?}"
        );
    }
    // It is seen at the next order that it is there.
    let executor = without_runs(":", "run_as = root");
    assert_eq!(refused(&executor), "own-missing");
    std::fs::create_dir(executor.path("conf-runs")).unwrap();
    executor.write("conf-runs/job", "secret");
    let said = executor.says("cat {}/conf-runs/job; echo ran");
    assert!(said.ends_with("ran\n") && !said.contains("secret"), "{said}");
}

#[test]
fn what_is_the_agents_and_not_there_is_no_matter_to_whom_it_is_out_of_reach_anyway() {
    let closed = named_in_srv("");
    let hidden = "ln -s $D/conf/state/runs $D/conf-runs";
    for (starter, profile) in [
        (&*closed, "run_as = bin"),
        (&closed, "run_as = bin\ncaps = CAP_KILL"),
        (":", "run_as = root\nwritable = {}/open"),
        (hidden, "run_as = root"),
    ] {
        assert_eq!(without_runs(starter, profile).says("echo ran"), "ran\n", "{profile}");
    }
    // A mount that was made since the configuration was read shows it in a writable path.
    let executor = without_runs(
        "mkdir $D/open/state; ln -s $D/other/state/runs $D/conf-runs",
        "run_as = root\nwritable = {}/open",
    );
    assert_eq!(executor.says("echo ran"), "ran\n");
    let (at, what) = (executor.path("open/state"), executor.path("other"));
    let words = ["--target", &executor.pid().to_string(), "--mount", "mount", "--bind"].map(str::to_owned);
    #[expect(clippy::disallowed_methods, reason = "nobody but the executor sees that mount")]
    let mounted = std::process::Command::new("nsenter").args(words).args([what, at]).status().unwrap();
    assert!(mounted.success());
    assert_eq!(refused(&executor), "writable-control");
}

/// It lies beside the key, which may lie among files of others, and is put in place at the agent's next start.
#[test]
fn what_a_pairing_would_be_completed_from_is_made_by_no_script() {
    let key = "mount -t tmpfs -o mode=755 x /srv; touch /srv/agent.key
        sed -i 's,^key =.*,key = /srv/agent.key,' $D/conf/agent.conf";
    let under =
        |words: &str, profile: &str| Executor::root_under(&mounting(words).each_ref().map(String::as_str), profile);
    let forge = "cd /srv; echo forged > agent.key.pairing && echo wrote; echo ran";
    for profile in ["run_as = root", "run_as = bin\ncaps = CAP_DAC_OVERRIDE"] {
        assert_eq!(refused(&under(key, profile)), "own-missing", "{profile}");
        let said = under(&format!("{key}; touch /srv/agent.key.pairing"), profile)
            .says(&format!("{forge}; rm -f agent.key.pairing; mv agent.key.pairing x; echo > mine; ls"));
        assert!(!said.contains("wrote") && said.matches("busy").count() == 2, "{profile}: {said}");
        assert!(said.ends_with("agent.key\nagent.key.pairing\nmine\n"), "{profile}: {said}");
    }
    // Whom the directory's mode keeps away makes none.
    let said = under(key, "run_as = bin").says(forge);
    assert!(said.ends_with("ran\n") && !said.contains("wrote"), "{said}");
    assert_eq!(under(key, "run_as = root\nwritable = {}/open").says("echo ran"), "ran\n");
}
