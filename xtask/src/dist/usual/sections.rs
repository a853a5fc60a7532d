//! The pieces of code that the linker put together, from its map (GNU ld, `-Map`).

use std::ops::Range;

/// One piece: what a compiler made of one function, or an assembler of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Its pattern: its name without what differs from build to build, as a linker script takes it.
    pub(super) pattern: String,
    start: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// The pieces of code, by address.
pub(super) fn read(map: &str) -> Vec<Section> {
    let mut found = Vec::new();
    // Before it are those that were thrown away.
    let used = map.split_once("Linker script and memory map").map_or("", |(_, used)| used);
    let mut lines = used.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(line) = line.strip_prefix(' ').filter(|line| line.starts_with(".text")) else { continue };
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        // A long name stands alone in its line.
        let rest =
            if rest.is_empty() { lines.next_if(|next| next.starts_with("  ")).unwrap_or_default() } else { rest };
        found.extend(section(name, rest));
    }
    found.sort_by_key(|section: &Section| section.start);
    found
}

/// Address, size and file.
fn section(name: &str, rest: &str) -> Option<Section> {
    let (start, rest) = rest.trim().split_once(' ')?;
    let (size, file) = rest.trim().split_once(' ')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (start, size) = (number(start)?, number(size)?);
    let pattern = if name == ".text" { format!("{}(.text)", of_file(file)?) } else { of_name(name) };
    (size > 0).then_some(Section { pattern, start, size })
}

/// Those that hold one of these addresses.
pub(super) fn executed(sections: &[Section], addresses: &[u64]) -> Vec<bool> {
    let mut executed = vec![false; sections.len()];
    for address in addresses {
        let place = sections.partition_point(|section| section.start <= *address).wrapping_sub(1);
        if sections.get(place).is_some_and(|section| range(section).contains(address))
            && let Some(executed) = executed.get_mut(place)
        {
            *executed = true;
        }
    }
    executed
}

const fn range(section: &Section) -> Range<u64> {
    section.start..section.start.saturating_add(section.size)
}

/// Of a file that an assembler made, or of a library's: `lib.a(0123456789abcdef-name.o)`.
fn of_file(file: &str) -> Option<String> {
    let name = file.rsplit_once('(').map_or(file, |(_, member)| member).trim_end_matches(')');
    let name = name.rsplit('/').next()?;
    let without = name.split_once('-').filter(|(head, _)| head.len() == 16 && is_hex(head));
    Some(without.map_or_else(|| format!("*{name}"), |(_, name)| format!("*-{name}")))
}

/// Of a function: without the hash of Rust's old names, a crate's number in the new ones, the version in those of aws-lc,
/// and what optimisations append.
fn of_name(name: &str) -> String {
    let bytes = name.as_bytes();
    let (mut pattern, mut at) = (String::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((kept, passed)) = varying(rest) else {
            pattern.push(char::from(rest.first().copied().unwrap_or_default()));
            at += 1;
            continue;
        };
        pattern.push_str(kept);
        at += passed;
    }
    pattern
}

/// What takes the place of what stands here, and how long that is, if it differs from build to build.
fn varying(rest: &[u8]) -> Option<(&'static str, usize)> {
    let count = |from: usize, ok: fn(&u8) -> bool| rest.iter().skip(from).take_while(|byte| ok(byte)).count();
    if rest.starts_with(b"17h") && count(3, u8::is_ascii_hexdigit) >= 16 && rest.get(19) == Some(&b'E') {
        return Some(("17h*", rest.len()));
    }
    if rest.starts_with(b"Cs") {
        let number = count(2, u8::is_ascii_alphanumeric);
        return (number > 0 && rest.get(number + 2) == Some(&b'_')).then_some(("Cs*_", number + 3));
    }
    if rest.starts_with(b"aws_lc_") {
        let version = count(7, |byte| byte.is_ascii_digit() || *byte == b'_');
        return (version > 0).then_some(("aws_lc_*_", version + 7));
    }
    let number = count(1, u8::is_ascii_digit);
    (rest.starts_with(b".") && number > 0 && rest.len() == number + 1).then_some((".*", rest.len()))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "Discarded input sections\n\n .text.gone     0x0000000000000000       0x10 /a/x.o\n\n\
        Linker script and memory map\n\n.text           0x0000000000001000     0x9000\n *(.text .stub)\n\
        \x20.text.short    0x0000000000001040       0x20 /a/x.o\n\
        \x20.text._ZN4core3fmt5write17h0123456789abcdefE\n                0x0000000000001000       0x40 /a/x.o\n\
        \x20.text          0x0000000000002000      0x100 /a/libaws.rlib(0123456789abcdef-mont.o)\n\
        \x20*fill*         0x0000000000002100       0x10 \n\x20.text          0x0000000000003000        0x0 /a/crt1.o\n\
        \x20.data.x        0x0000000000004000       0x10 /a/x.o\n";

    #[test]
    fn a_map_tells_the_code_that_is_in_the_binary() {
        let sections = read(MAP);
        let told: Vec<_> = sections.iter().map(|section| (section.pattern.as_str(), section.size)).collect();
        assert_eq!(told, [(".text._ZN4core3fmt5write17h*", 0x40), (".text.short", 0x20), ("*-mont.o(.text)", 0x100)]);
    }

    #[test]
    fn an_address_belongs_to_the_piece_around_it() {
        let sections = read(MAP);
        assert_eq!(executed(&sections, &[0, 0x103f, 0x2100, 0x9999]), [true, false, false]);
        assert_eq!(executed(&sections, &[0x1040, 0x2000]), [false, true, true]);
    }

    #[test]
    fn what_differs_from_build_to_build_is_left_out_of_a_name() {
        for (name, pattern) in [
            (".text._ZN1a1b17h0123456789abcdefE.llvm.12", ".text._ZN1a1b17h*"),
            (".text._RNvMCs1XaY_4core5sliceCsb_9addr2line", ".text._RNvMCs*_4core5sliceCs*_9addr2line"),
            (".text.aws_lc_0_33_0_EVP_sha256", ".text.aws_lc_*_EVP_sha256"),
            (".text._RNvNtCs1_3std2fs.1488", ".text._RNvNtCs*_3std2fs.*"),
            (".text.mi_free.part.0", ".text.mi_free.part.*"),
            (".text.memcpy", ".text.memcpy"),
        ] {
            assert_eq!(of_name(name), pattern);
        }
    }
}
