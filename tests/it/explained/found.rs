//! What a script has found, against what it was said to find.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What the script has found is what it was said to find.
pub(super) fn compare(said: &Value, output: &str, about: &str) {
    let found: BTreeMap<&str, &str> = output.lines().filter_map(|line| line.split_once(' ')).collect();
    let is = |key: &str, expected: &str| assert_eq!(found.get(key), Some(&expected), "{key}: {about}");
    let argv: Vec<&str> = said["argv"].as_array().unwrap().iter().skip(1).map(|word| word.as_str().unwrap()).collect();
    is("args", &format!("{}:{}", argv.len(), argv.join(" ")));
    is("umask", said["umask"].as_str().unwrap());
    is("pwd", said["working_directory"].as_str().unwrap());
    let environment = said["environment"].as_array().unwrap();
    let mode = environment.iter().find_map(|pair| pair.as_str().unwrap().strip_prefix("MODE="));
    is("mode", mode.unwrap_or_default());
    let confined = &said["confinement"];
    if confined.is_null() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        return is("uid", &nobody.uid.to_string());
    }
    is("uid", &confined["uid"].to_string());
    is("gid", &confined["gid"].to_string());
    // id(1) tells the group among them.
    let mut groups: BTreeSet<u64> = BTreeSet::from([confined["gid"].as_u64().unwrap()]);
    groups.extend(confined["groups"].as_array().unwrap().iter().map(|group| group.as_u64().unwrap()));
    let told = found["groups"].split(' ').map(|group| group.parse().unwrap());
    assert_eq!(told.collect::<BTreeSet<u64>>(), groups, "{about}");
    let bits = |cap: &Value| match cap.as_str().unwrap() {
        "CAP_CHOWN" => 1,
        "CAP_DAC_OVERRIDE" => 1 << 1,
        "CAP_NET_BIND_SERVICE" => 1 << 10,
        "CAP_SYS_ADMIN" => 1_u64 << 21,
        other => panic!("{other}"),
    };
    let caps: u64 = confined["caps"].as_array().unwrap().iter().map(bits).sum();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        is(set, &format!("{caps:016x}"));
    }
    is("NoNewPrivs", if confined["no_new_privileges"] == true { "1" } else { "0" });
    if confined["syscalls"] == "default" {
        is("Seccomp", "2");
    }
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(found["net"] == ours.to_str().unwrap(), confined["network"] == true, "{about}");
    let files = confined["limits"].as_array().unwrap().iter().find(|limit| limit["key"] == "files_max");
    if let Some(limit) = files {
        is("files", &limit["value"].to_string());
    }
}
