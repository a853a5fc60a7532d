//! The kernel's capabilities by name and number (`capabilities(7)`, `linux/capability.h`).

use std::fmt;

use super::diagnostic::shown;
use super::nearest::likely;
use super::value::Complaint;

/// Every capability, each at its number, up to Linux 5.9's `CAP_CHECKPOINT_RESTORE`.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Capabilities that undo a profile's confinement, with what each costs.
///
/// A capability that does only what it says, however far that goes (`CAP_KILL`, `CAP_NET_ADMIN`, `CAP_SYS_TIME`), is not
/// here, nor is one that works only within what the profile leaves (`CAP_SYS_CHROOT` stays in its mount namespace; an executor that
/// sees a part of that only, in a chroot, judges by itself). Those of
/// [`WIDE`] are not here either: where the profile has `writable`, they meet the read-only file system and the filter of
/// system calls, and without it they still do not reach the agent's own places, although much else.
const DANGEROUS: [(&str, &str); 12] = [
    ("CAP_SYS_ADMIN", "it can make the read-only file system writable again and uncover what is hidden, mount(2)"),
    ("CAP_SYS_PTRACE", "it can take over processes outside the confinement, ptrace(2)"),
    ("CAP_SYS_MODULE", "it can load code into the kernel, init_module(2)"),
    ("CAP_SYS_RAWIO", "it can reach memory and devices past the kernel, iopl(2)"),
    ("CAP_SYS_BOOT", "it can stop the host or start another kernel, kexec_load(2)"),
    ("CAP_MKNOD", "it can make a node for the disk and write it raw, mknod(2)"),
    ("CAP_DAC_READ_SEARCH", "it can open files outside its mount namespace, open_by_handle_at(2)"),
    ("CAP_BPF", "it can load programs and read tables of the whole kernel, bpf(2)"),
    ("CAP_PERFMON", "it can observe every process and the kernel's memory, perf_event_open(2)"),
    ("CAP_SETFCAP", "it can leave a program behind that has every capability, setcap(8)"),
    ("CAP_MAC_ADMIN", "it can change the host's mandatory access control"),
    ("CAP_MAC_OVERRIDE", "it can pass the host's mandatory access control"),
];

/// Capabilities that leave the agent's own places alone, but with which a script that may write to the host's other files
/// (its profile has no `writable`) gains the host in the end: it changes a file that root obeys, or becomes root, whose files
/// those are, or a group to which the disks belong.
const WIDE: [&str; 5] = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID"];

/// One capability of the kernel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    number: u8,
    name: &'static str,
}

impl Capability {
    /// The capability with this name in capitals, `CAP_` included.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        (0..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, name)| Self { number, name })
    }

    /// The kernel's number for it.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.number
    }

    /// Whether it undoes the rest of a profile, so that `allow_dangerous_caps` must stand beside it.
    #[must_use]
    pub fn is_dangerous(self) -> bool {
        self.cost().is_some()
    }

    /// What granting it costs, if it undoes the rest of a profile: a clause that begins with "it can".
    #[must_use]
    pub fn cost(self) -> Option<&'static str> {
        DANGEROUS.iter().find(|(name, _)| *name == self.name).map(|(_, cost)| *cost)
    }

    /// What granting it costs a profile with `network = no`, if it undoes that.
    #[must_use]
    pub fn network_cost(self) -> Option<&'static str> {
        let (name, cost) = NETWORK;
        (self.name == name).then_some(cost)
    }

    /// Whether it gives a script the host that may write to the host's files, being all that is needed for that.
    #[must_use]
    pub fn is_wide(self) -> bool {
        WIDE.contains(&self.name)
    }

    /// Its name in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What changes a network wherever it is: a descriptor of the host's, which another process has, is all that it takes.
const NETWORK: (&str, &str) =
    ("CAP_NET_ADMIN", "with a descriptor of the host's network, which another may hand to it, it can change that one");

/// Reads one capability of a profile's `caps`; a dangerous one only where the profile allows it, and likewise one that undoes
/// its `network = no`.
pub(super) fn capability(dangerous: bool, network: bool) -> impl Fn(&str) -> Result<Capability, Complaint> {
    move |text| {
        let capability = known(text)?;
        let undone = match (capability.cost(), capability.network_cost()) {
            (Some(cost), _) => format!("{capability} undoes the confinement: {cost}"),
            (None, Some(cost)) if !network => format!("{capability} undoes 'network = no': {cost}"),
            (None, _) => return Ok(capability),
        };
        if dangerous {
            return Ok(capability);
        }
        let help = "take it out; or, if the script must have it, add the line 'allow_dangerous_caps = yes'";
        Err(Complaint::plain(undone).help(help))
    }
}

fn known(text: &str) -> Result<Capability, Complaint> {
    Capability::named(text).ok_or_else(|| {
        let complaint = Complaint::plain(format!("invalid capability '{}' (expected CAP_*)", shown(text)));
        match likely(text, NAMES) {
            _ if text.starts_with('#') => complaint.help("a comment must stand on a line of its own"),
            Some(near) => complaint.help(format!("did you mean '{near}'?")),
            None => complaint.help("capabilities(7) lists them; write them in capitals, CAP_ first"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        let number = |name| Capability::named(name).unwrap().number();
        assert_eq!(number("CAP_CHOWN"), 0);
        assert_eq!(number("CAP_SYS_ADMIN"), 21);
        assert_eq!(number("CAP_SETFCAP"), 31);
        assert_eq!(number("CAP_BLOCK_SUSPEND"), 36);
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), 40);
        assert!(Capability::named("CAP_ALL").is_none() && Capability::named("cap_chown").is_none());
    }

    #[test]
    fn an_unknown_capability_is_refused_with_the_nearest_or_the_reason() {
        let text = |name| format!("{:?}", capability(true, true)(name).unwrap_err());
        assert!(text("CAP_CHWON").contains("invalid capability 'CAP_CHWON' (expected CAP_*)"));
        assert!(text("CAP_CHWON").contains("did you mean 'CAP_CHOWN'?"));
        assert!(text("cap_kill").contains("did you mean 'CAP_KILL'?"));
        assert!(text("CAP_NET_BIND").contains("did you mean 'CAP_NET_BIND_SERVICE'?"));
        assert!(text("#CAP_KILL").contains("a line of its own"));
        assert!(text("everything").contains("capabilities(7)"));
    }

    #[test]
    fn what_undoes_the_confinement_is_taken_only_where_that_is_said() {
        for (name, cost) in DANGEROUS {
            let refusal = format!("{:?}", capability(false, true)(name).unwrap_err());
            assert!(refusal.contains(cost) && refusal.contains("allow_dangerous_caps = yes"), "{refusal}");
            assert!(capability(true, true)(name).unwrap().is_dangerous());
        }
        assert!(!capability(false, true)("CAP_CHOWN").unwrap().is_dangerous());
    }
}
