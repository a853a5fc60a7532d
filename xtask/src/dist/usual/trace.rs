//! What valgrind's callgrind has seen: its file tells every instruction that was executed.
//!
//! Source: "Callgrind Format Specification" in valgrind's manual, with `--dump-instr=yes` and nothing compressed.

use std::path::Path;

/// The addresses of this binary's instructions.
pub(super) fn addresses(text: &str, binary: &Path) -> Vec<u64> {
    let (mut own, mut found) = (false, Vec::new());
    for line in text.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            own = Path::new(object) == binary;
        } else if own {
            found.extend(address(line));
        }
    }
    found
}

/// Of a line of costs: address, line of the source, count.
fn address(line: &str) -> Option<u64> {
    u64::from_str_radix(line.strip_prefix("0x")?.split(' ').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_the_binary_alone_are_told() {
        let text = "version: 1\npid: 7\nsummary: 9\n\nob=/a/b\nfl=???\nfn=0x10\n0x10 0 1\ncfn=0x20\ncalls=1 0x20 0\n0x14 0 4\n\
            \nob=???\nfn=x\n0x30 0 1\n\nob=/a/b\nfn=y\n0x7bc800 0 1\n";
        assert_eq!(addresses(text, Path::new("/a/b")), [0x10, 0x14, 0x007b_c800]);
    }
}
