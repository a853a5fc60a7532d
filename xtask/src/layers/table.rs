//! Which room may use what. This table is the one place for it; the map in `src/lib.rs` says what the rooms hold.
//!
//! A room here is a folder of `src`, or one of the files that are leaves beside them.

/// What one room may name.
pub(super) struct Row {
    pub(super) room: &'static str,
    /// Other rooms. Every room may name itself.
    pub(super) rooms: &'static [&'static str],
    /// Outside crates of the product; tests may use any. `a::b` allows only that part of `a`.
    pub(super) crates: &'static [&'static str],
}

/// Everything below the three programs' own rooms.
const BELOW_PROGRAMS: &[&str] = &["wire", "sys", "conf", "audit", "pki", "tls", "net", "hook", "store"];

/// What a program that serves or dials needs from outside.
const NETWORK_PROGRAM: &[&str] = &[
    "tokio",
    "tokio_rustls",
    "rustls",
    "h2",
    "hyper",
    "hyper_util",
    "http_body_util",
    "axum",
    "bytes",
    "serde",
    "serde_json",
    "thiserror",
    "time",
    "base64",
];

/// As [`NETWORK_PROGRAM`], and the judge of argument contracts and the writer of metrics. Root code has no use for them.
const AGENT: &[&str] = &[
    "tokio",
    "tokio_rustls",
    "rustls",
    "hyper",
    "hyper_util",
    "http_body_util",
    "axum",
    "bytes",
    "serde",
    "serde_json",
    "thiserror",
    "time",
    "base64",
    "jsonschema",
    "httparse",
    "prometheus_client",
];

/// Lowest first. `executor`, `agent` and `dispatcher` are separate processes: they never name each other.
pub(super) const ROWS: &[Row] = &[
    Row { room: "exit", rooms: &[], crates: &[] },
    Row { room: "failure", rooms: &["exit"], crates: &[] },
    Row { room: "wire", rooms: &[], crates: &["serde", "serde_json", "thiserror", "base64"] },
    Row { room: "sys", rooms: &[], crates: &["nix", "libc", "thiserror", "landlock", "caps", "seccompiler", "sha2"] },
    Row { room: "conf", rooms: &["wire", "sys"], crates: &["thiserror", "ipnet", "serde"] },
    Row { room: "audit", rooms: &["wire", "sys"], crates: &["thiserror", "time"] },
    Row {
        room: "pki",
        rooms: &["wire", "sys"],
        crates: &["rcgen", "x509_parser", "aws_lc_rs", "rustls::pki_types", "base64", "time", "thiserror"],
    },
    Row {
        room: "tls",
        rooms: &["wire", "sys", "pki"],
        crates: &["rustls", "tokio_rustls", "x509_parser", "aws_lc_rs", "thiserror", "time"],
    },
    Row {
        room: "net",
        rooms: &["wire", "sys", "tls", "conf"],
        crates: &[
            "tokio",
            "hyper",
            "hyper_util",
            "http_body_util",
            "axum",
            "bytes",
            "tokio_rustls",
            "rustls",
            "serde_json",
            "ipnet",
            "thiserror",
        ],
    },
    Row { room: "hook", rooms: &["wire", "sys", "audit"], crates: &["tokio", "serde", "serde_json", "thiserror"] },
    Row { room: "store", rooms: &["wire", "sys"], crates: &["serde", "serde_json", "thiserror", "time"] },
    // Runs as root: small, synchronous, nothing of the network.
    Row { room: "executor", rooms: &["wire", "conf", "audit", "sys"], crates: &["serde_json", "thiserror"] },
    Row { room: "agent", rooms: BELOW_PROGRAMS, crates: AGENT },
    Row { room: "dispatcher", rooms: BELOW_PROGRAMS, crates: NETWORK_PROGRAM },
    Row {
        room: "cli",
        rooms: &[
            "exit",
            "failure",
            "wire",
            "sys",
            "conf",
            "audit",
            "pki",
            "tls",
            "net",
            "hook",
            "store",
            "executor",
            "agent",
            "dispatcher",
        ],
        crates: &["clap", "serde_json", "tokio", "thiserror", "time", "base64"],
    },
];

/// Files of `src` that may use everything: where the program starts.
pub(super) const FREE: &[&str] = &["lib", "main", "role"];

/// The row of `room`.
pub(super) fn row(room: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.room == room)
}

impl Row {
    /// Whether the room may name `room`.
    pub(super) fn allows_room(&self, room: &str) -> bool {
        room == self.room || self.rooms.contains(&room)
    }

    /// Whether the room may name what `path`, which begins with an outside crate's name, names.
    pub(super) fn allows_outside(&self, path: &[String]) -> bool {
        let begins = |allowed: &&'static str| {
            let mut own = path.iter();
            allowed.split("::").all(|part| own.next().is_some_and(|name| name == part))
        };
        self.crates.iter().any(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split("::").map(str::to_owned).collect()
    }

    #[test]
    fn rooms_lie_above_those_they_use() {
        for (place, row) in ROWS.iter().enumerate() {
            for used in row.rooms {
                assert!(ROWS[..place].iter().any(|below| below.room == *used), "{} uses {used}", row.room);
            }
        }
    }

    #[test]
    fn the_three_programs_never_name_each_other() {
        let programs = ["executor", "agent", "dispatcher"];
        for (one, other) in programs.iter().flat_map(|one| programs.map(|other| (*one, other))) {
            assert!(one == other || !row(one).unwrap().allows_room(other), "{one} {other}");
        }
    }

    #[test]
    fn part_of_a_crate_may_be_all_that_is_allowed() {
        let pki = row("pki").unwrap();
        assert!(pki.allows_outside(&path("rustls::pki_types::CertificateDer")));
        assert!(!pki.allows_outside(&path("rustls::ServerConfig")));
        assert!(!pki.allows_outside(&path("rustls")));
        assert!(row("tls").unwrap().allows_outside(&path("rustls")));
    }
}
