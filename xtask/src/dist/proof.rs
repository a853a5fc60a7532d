//! Proves what a binary is by reading it: static (no interpreter, no library needed) and stripped.
//!
//! Source: the System V ABI's chapter on object files (`elf.5`). Only 64-bit little-endian files are read: every
//! target that is built here is one.

use std::fs;
use std::path::Path;

use crate::Outcome;

/// Program header types.
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
/// Dynamic section tag: a library the loader must find.
const DT_NEEDED: u64 = 1;
/// Section header type: the symbol table that strip removes.
const SHT_SYMTAB: u64 = 2;

/// Fails unless the file at `path` runs without a loader and without any library.
pub(super) fn is_static(path: &Path) -> Outcome {
    let bytes = read(path)?;
    Elf::parse(&bytes).and_then(|elf| elf.static_program()).map_err(|why| format!("{}: {why}", path.display()))
}

/// Fails if the file at `path` still has its symbol table.
pub(super) fn is_stripped(path: &Path) -> Outcome {
    let bytes = read(path)?;
    Elf::parse(&bytes).and_then(|elf| elf.stripped()).map_err(|why| format!("{}: {why}", path.display()))
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|why| format!("cannot read {}: {why}", path.display()))
}

/// A table of headers: where it starts, and how long and how many its entries are.
#[derive(Clone, Copy)]
struct Table {
    offset: usize,
    size: usize,
    count: usize,
}

impl Table {
    fn entries(self) -> impl Iterator<Item = usize> {
        (0..self.count).map(move |index| self.offset.saturating_add(index.saturating_mul(self.size)))
    }
}

struct Elf<'a> {
    bytes: &'a [u8],
    segments: Table,
    sections: Table,
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Outcome<Self> {
        // Magic, then class 2 (64-bit), then data 1 (little-endian).
        if !bytes.starts_with(b"\x7fELF\x02\x01") {
            return Err("not a 64-bit little-endian ELF file".to_owned());
        }
        let table = |at_offset, at_size, at_count| {
            let count = number(bytes, at_count, 2)?;
            Ok::<_, String>(Table { offset: number(bytes, at_offset, 8)?, size: number(bytes, at_size, 2)?, count })
        };
        Ok(Self { bytes, segments: table(32, 54, 56)?, sections: table(40, 58, 60)? })
    }

    fn static_program(&self) -> Outcome {
        for header in self.segments.entries() {
            match self.word(header, 4)? {
                PT_INTERP => return Err("not static: it names an interpreter".to_owned()),
                PT_DYNAMIC => self.needs_nothing(header)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `header`: where the program header of the dynamic section starts.
    fn needs_nothing(&self, header: usize) -> Outcome {
        let (offset, size) =
            (number(self.bytes, header.saturating_add(8), 8)?, number(self.bytes, header.saturating_add(32), 8)?);
        for entry in (Table { offset, size: 16, count: size / 16 }).entries() {
            if self.word(entry, 8)? == DT_NEEDED {
                return Err("not static: it needs a shared library".to_owned());
            }
        }
        Ok(())
    }

    fn stripped(&self) -> Outcome {
        for header in self.sections.entries() {
            if self.word(header.saturating_add(4), 4)? == SHT_SYMTAB {
                return Err("not stripped: it has a symbol table".to_owned());
            }
        }
        Ok(())
    }

    fn word(&self, at: usize, width: usize) -> Outcome<u64> {
        word(self.bytes, at, width)
    }
}

/// The little-endian number of `width` bytes (at most 8) at `at`.
fn word(bytes: &[u8], at: usize, width: usize) -> Outcome<u64> {
    let field = at.checked_add(width).and_then(|end| bytes.get(at..end));
    let field = field.ok_or_else(|| format!("the file ends before byte {at}"))?;
    Ok(field.iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

fn number(bytes: &[u8], at: usize, width: usize) -> Outcome<usize> {
    usize::try_from(word(bytes, at, width)?).map_err(|_| format!("the number at byte {at} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with one program header of type `kind` that covers `content`, and one section header of `section`.
    fn elf(kind: u32, content: &[u8], section: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        let mut put = |at: usize, number: &[u8]| bytes[at..at + number.len()].copy_from_slice(number);
        put(32, &64u64.to_le_bytes());
        put(54, &[56, 0, 1, 0]);
        put(40, &120u64.to_le_bytes());
        put(58, &[64, 0, 1, 0]);
        bytes.resize(184, 0);
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes[72..80].copy_from_slice(&184u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&(content.len() as u64).to_le_bytes());
        bytes[124..128].copy_from_slice(&section.to_le_bytes());
        bytes.extend_from_slice(content);
        bytes
    }

    fn dynamic(tag: u64) -> Vec<u8> {
        [tag.to_le_bytes(), [0; 8], [0; 8], [0; 8]].concat()
    }

    #[test]
    fn a_program_without_interpreter_and_libraries_is_static() {
        let bytes = elf(2, &dynamic(0x6fff_fffb), 0);
        Elf::parse(&bytes).unwrap().static_program().unwrap();
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let bytes = elf(3, b"/lib/ld.so\0", 0);
        assert!(Elf::parse(&bytes).unwrap().static_program().unwrap_err().contains("interpreter"));
    }

    #[test]
    fn a_program_that_needs_a_library_is_not_static() {
        let bytes = elf(2, &dynamic(1), 0);
        assert!(Elf::parse(&bytes).unwrap().static_program().unwrap_err().contains("shared library"));
    }

    #[test]
    fn a_symbol_table_is_seen() {
        assert!(Elf::parse(&elf(1, b"", 2)).unwrap().stripped().is_err());
        assert!(Elf::parse(&elf(1, b"", 3)).unwrap().stripped().is_ok());
    }

    #[test]
    fn this_test_itself_is_neither_static_nor_stripped() {
        let own = std::env::current_exe().unwrap();
        assert!(is_static(&own).unwrap_err().contains("interpreter"));
        assert!(is_stripped(&own).is_err());
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let bytes = elf(2, &dynamic(0), 2);
        for end in 0..bytes.len() - 17 {
            let short = &bytes[..end];
            let result = Elf::parse(short).and_then(|elf| elf.static_program().and_then(|()| elf.stripped()));
            assert!(result.is_err(), "{end}");
        }
    }
}
