//! Unsafe code: in one room, and little of it.

use crate::code::blocks::is_word;
use crate::code::{Source, Violation};

/// The only folder with unsafe code.
const ROOM: &str = "src/sys";
/// How many unsafe blocks that folder may have, tests not counted. Eight of them are what a confinement needs and no
/// library has a safe way for: mounts by descriptor, Landlock, a filter of system calls, capabilities by number, and a
/// process that borrows memory.
const MOST: usize = 20;

/// Unsafe code outside the room, in tests too, and too many blocks within.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with(ROOM)) {
        for (line, _) in places(&source.code) {
            found.push(source.violation(line, format!("unsafe code outside of {ROOM}")));
        }
    }
    let blocks = blocks(sources);
    if blocks > MOST {
        let what = format!("{blocks} unsafe blocks in {ROOM}, over {MOST}: nix and std have safe ways for most things");
        found.push(Violation { path: ROOM.into(), line: 1, what });
    }
    found
}

/// How many there are, for people to watch.
pub(super) fn figure(sources: &[Source]) -> String {
    format!("unsafe blocks: {} (limit {MOST})", blocks(sources))
}

fn blocks(sources: &[Source]) -> usize {
    sources.iter().flat_map(|source| places(&source.product)).filter(|(_, block)| *block).count()
}

/// The line of each `unsafe`, and whether it opens a block.
fn places(code: &str) -> Vec<(usize, bool)> {
    let word = "unsafe";
    code.match_indices(word)
        .filter_map(|(at, _)| Some((code.get(..at)?, code.get(at + word.len()..)?)))
        .filter(|(before, after)| !before.ends_with(is_word) && !after.starts_with(is_word))
        .map(|(before, after)| (before.matches('\n').count() + 1, after.trim_start().starts_with('{')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_refused_outside_its_room_and_counted_within() {
        let block = "//! x\nfn f() { unsafe { g() } }\n#[deny(unsafe_code)]\nunsafe fn g() {}\n";
        let all = ["src/sys/a.rs", "src/net/a.rs"].map(|path| Source::new(path.into(), block.to_owned()));
        let lines: Vec<usize> = check(&all).into_iter().map(|v| v.line).collect();
        assert_eq!(lines, [2, 4]);
        assert_eq!(blocks(&all[..1]), 1);
    }

    #[test]
    fn one_block_over_the_limit_is_too_many() {
        let source = |count| Source::new("src/sys/a.rs".into(), "fn f() { unsafe { g() } }\n".repeat(count));
        assert_eq!(check(&[source(MOST)]), []);
        assert_eq!(check(&[source(MOST + 1)]).len(), 1);
    }
}
