//! Profiles that a host cannot apply, of whatever kind the host is.

use super::*;

/// A profile, what the host loses, and what is said then.
type Lost = (&'static [&'static str], fn(&mut Offer), &'static str);

const WHOLE: fn(&mut Offer) = |_| {};

#[test]
fn a_profile_that_this_host_cannot_apply_is_named_with_what_it_lacks() {
    let site = Site::new();
    let kernel = Kernel { landlock: Some(1), mount_setattr: true, seccomp: true, user_namespaces: true };
    let controllers = Controllers { memory: true, processes: false, cpu: true };
    let caps = (0..41).fold(Set::default(), Set::with);
    let full = Offer { kernel, controllers, caps, files: 4096, running: true };
    let without = |change: fn(&mut Offer)| {
        let mut offer = full;
        change(&mut offer);
        offer
    };
    let cases: [Lost; 14] = [
        (&["memory_max = 64M", "cpu_max = 9", "processes_max = 5", "readable = /usr"], WHOLE, ""),
        (&["memory_max = 64M"], |offer| offer.controllers.memory = false, "memory_max: "),
        (&["cpu_max = 9"], |offer| offer.controllers.cpu = false, "cpu_max: "),
        (&["processes_max = 5", "caps = CAP_SYS_RESOURCE"], WHOLE, "processes_max: "),
        (&["files_max = 64", "caps = CAP_SYS_RESOURCE"], WHOLE, "files_max: "),
        (&["files_max = 64", "caps = CAP_CHOWN"], WHOLE, ""),
        (&["readable = /usr"], |offer| offer.kernel.landlock = None, "readable: "),
        (&["umask = 077"], |offer| offer.kernel.seccomp = false, "syscalls: "),
        (&["syscalls = off"], |offer| offer.kernel.seccomp = false, "syscalls: "),
        (&["syscalls = off", "allow_dangerous_caps = yes"], |offer| offer.kernel.seccomp = false, ""),
        (&["syscalls = default"], |offer| offer.kernel.mount_setattr = false, "namespaces: "),
        (&["syscalls = default"], |offer| offer.kernel.user_namespaces = false, "locked: "),
        (&["caps = CAP_CHOWN"], |offer| offer.caps = Set::default(), "caps: CAP_CHOWN "),
        (&["writable = {}/work"], WHOLE, ""),
    ];
    for (lines, change, why) in cases {
        let mut profile = vec!["run_as = daemon"];
        profile.extend_from_slice(lines);
        site.configure(&Case { profile, ..plain() });
        let policy = kernel_check::policy(&Kinship::Own, &site.places()).unwrap();
        let lacking = lacking(&policy, &OnDisk, &without(change));
        let of_p = lacking.iter().find(|(name, _)| name == "p").map_or("", |(_, why)| why.as_str());
        assert!(of_p.starts_with(why) && of_p.is_empty() == why.is_empty(), "{lines:?}: {lacking:?}");
    }
}

/// A call of a script without anything particular about it.
pub(super) fn plain() -> Case {
    Case {
        settings: vec![],
        profile: vec![],
        path: "{}/scripts/bare",
        words: ["profile=p", "", ""],
        trust: "",
        from: "",
        serial: "",
        script: "x",
        args: vec![],
        many: false,
        private: false,
        offer: (true, true, true),
    }
}
