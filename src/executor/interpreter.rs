//! What the kernel needs besides a file to execute it: the interpreter that a script's first line names, or the loader that
//! a program asks for (execve(2), elf(5)). Read as the kernel reads it; nothing is executed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// How much of a file decides what it is (`BINPRM_BUF_SIZE`), in bytes.
const HEAD: usize = 256;
/// A script whose interpreter is a script, and so on: so many files at most.
const DEPTH: usize = 6;
/// Size of a program's header, and of each entry of its table of segments, in a 64-bit file.
const HEADER: usize = 64;
const SEGMENT: usize = 56;
/// The segment that names the loader, and its greatest size.
const INTERP: u64 = 3;
const PATH_MAX: u64 = 4096;
/// Where handlers of other formats are registered (`binfmt_misc`).
const HANDLERS: &str = "/proc/sys/fs/binfmt_misc";

/// What a file is to exec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// A program for this kind of machine that needs no other file.
    Alone,
    /// A program for this kind of machine, and its loader.
    Loaded(PathBuf),
    /// A script, and its interpreter, which may be a script too. A relative path begins at the working directory.
    Script(PathBuf),
    /// Something for another kind of machine, or for a handler that is registered here: only an attempt can tell.
    Foreign,
    /// Nothing that is executed here.
    Nothing,
}

/// The files that exec opens after the script's own, in its order, each with what names it.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// `'#!' interpreter` or `loader`, and the file.
    pub(super) files: Vec<(&'static str, PathBuf)>,
    /// What the last one that is there is.
    pub(super) end: Option<Head>,
}

/// Follows a file. One that is not there ends the chain: whoever opens it finds out.
///
/// # Errors
/// A file cannot be read.
pub(super) fn follow(program: &Path, directory: &Path) -> io::Result<Chain> {
    let mut chain = Chain::default();
    let mut file = program.to_owned();
    for _ in 0..DEPTH {
        let head = match head(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(chain),
            found => found?,
        };
        match head {
            Head::Script(ref next) => {
                file = directory.join(next);
                chain.files.push(("'#!' interpreter", file.clone()));
            }
            Head::Loaded(ref loader) => {
                chain.files.push(("loader", loader.clone()));
                chain.end = Some(head);
                return Ok(chain);
            }
            head => {
                chain.end = Some(head);
                return Ok(chain);
            }
        }
    }
    chain.end = None;
    Err(io::Error::from_raw_os_error(LOOP))
}

/// `ELOOP`, errno(3).
const LOOP: i32 = 40;

fn head(path: &Path) -> io::Result<Head> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(Head::Nothing);
    }
    let bytes = read(&file, 0, HEAD)?;
    let found = match bytes.as_slice() {
        [b'#', b'!', line @ ..] => script(line, bytes.len() == HEAD),
        [0x7f, b'E', b'L', b'F', ..] => program(&file, &bytes)?,
        _ => None,
    };
    Ok(found.unwrap_or_else(|| if is_handled() { Head::Foreign } else { Head::Nothing }))
}

/// The words behind `#!`. `cut`: the file goes on behind them.
fn script(line: &[u8], cut: bool) -> Option<Head> {
    let whole = line.split(|byte| *byte == b'\n').next()?;
    let ended = whole.len() < line.len() || !cut;
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let name = whole.get(whole.iter().position(|byte| !blank(byte))?..)?;
    let end = name.iter().position(|byte| blank(byte) || *byte == 0);
    // A name that may go on behind what is read is none.
    let end = end.or(ended.then_some(name.len()))?;
    let name = name.get(..end).filter(|name| !name.is_empty())?;
    Some(Head::Script(PathBuf::from(OsStr::from_bytes(name))))
}

/// A program's header and its segments.
fn program(file: &File, header: &[u8]) -> io::Result<Option<Head>> {
    let own = read(&File::open("/proc/self/exe")?, 0, HEADER)?;
    // Class, byte order, machine.
    let kind = |header: &[u8]| Some((header.get(4..6)?.to_vec(), header.get(18..20)?.to_vec()));
    let is_wide = header.get(4) == Some(&2);
    if kind(header) != kind(&own) || !is_wide {
        return Ok(kind(header).map(|_| Head::Foreign));
    }
    let at = |offset, size| number(header, offset, size);
    let (Some(what), Some(table), Some(size), Some(count)) = (at(16, 2), at(32, 8), at(54, 2), at(56, 2)) else {
        return Ok(None);
    };
    let count = usize::try_from(count).unwrap_or(0);
    if !matches!(what, 2 | 3) || usize::try_from(size) != Ok(SEGMENT) || count == 0 {
        return Ok(None);
    }
    let segments = read(file, table, count * SEGMENT)?;
    if segments.len() < count * SEGMENT {
        return Ok(None);
    }
    let Some(interp) = segments.chunks(SEGMENT).find(|entry| number(entry, 0, 4) == Some(INTERP)) else {
        return Ok(Some(Head::Alone));
    };
    let (Some(offset), Some(size)) = (number(interp, 8, 8), number(interp, 32, 8)) else { return Ok(None) };
    if !(2..=PATH_MAX).contains(&size) {
        return Ok(None);
    }
    let name = read(file, offset, usize::try_from(size).unwrap_or(0))?;
    let name = name.strip_suffix(&[0]).filter(|name| !name.is_empty());
    Ok(name.map(|name| Head::Loaded(PathBuf::from(OsStr::from_bytes(name)))))
}

/// As the machine orders bytes, which is the file's order too.
fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset + size)?;
    let mut whole = [0; 8];
    if cfg!(target_endian = "little") {
        whole.get_mut(..size)?.copy_from_slice(bytes);
    } else {
        whole.get_mut(8 - size..)?.copy_from_slice(bytes);
    }
    Some(u64::from_ne_bytes(whole))
}

/// At most so many bytes from there on; fewer at the file's end.
fn read(file: &File, from: u64, most: usize) -> io::Result<Vec<u8>> {
    let (mut bytes, mut filled) = (vec![0; most], 0);
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, from.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(size) => filled += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Whether some handler takes what the kernel itself does not.
fn is_handled() -> bool {
    let entries = fs::read_dir(HANDLERS).into_iter().flatten().flatten();
    let takes = |entry: fs::DirEntry| fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with("enabled\n"));
    let own = [OsStr::new("register"), OsStr::new("status")];
    entries.filter(|entry| !own.contains(&&*entry.file_name())).any(takes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{Access, write_atomic};

    fn of(bytes: &[u8]) -> Head {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, bytes, Access::public()).unwrap();
        head(&path).unwrap()
    }

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        let script = |path: &str| Head::Script(PathBuf::from(path));
        for (line, path) in [
            ("#!/bin/sh\necho", "/bin/sh"),
            ("#! \t /usr/bin/env  python3 -x\n", "/usr/bin/env"),
            ("#!/bin/sh", "/bin/sh"),
            ("#!relative\n", "relative"),
            ("#!/bin/sh\r\n", "/bin/sh\r"),
            ("#!/a\0b\n", "/a"),
        ] {
            assert_eq!(of(line.as_bytes()), script(path), "{line:?}");
        }
        let long = format!("#!/{}", "a".repeat(300));
        for line in ["", "#", "#!", "#!\n/bin/sh", "#!  \t\n", "echo\n", "\0", &long] {
            assert!(matches!(of(line.as_bytes()), Head::Nothing | Head::Foreign), "{line:?}");
        }
        // Words behind it may be cut, the name may not.
        assert_eq!(of(format!("#!/bin/sh {}", "a".repeat(300)).as_bytes()), script("/bin/sh"));
    }

    #[test]
    fn a_program_is_known_with_its_loader() {
        let own = head(Path::new("/proc/self/exe")).unwrap();
        match &own {
            Head::Loaded(loader) => assert!(loader.is_absolute() && loader.exists(), "{own:?}"),
            other => assert_eq!(*other, Head::Alone),
        }
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        for size in [4, 20, 63, 70] {
            assert!(matches!(of(&bytes[..size]), Head::Nothing | Head::Foreign), "{size}");
        }
        let mut other = bytes[..200].to_vec();
        other[18] ^= 0xff;
        assert_eq!(of(&other), Head::Foreign);
    }

    #[test]
    fn interpreters_are_followed_until_one_is_no_script_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let put = |name: &str, text: String| write_atomic(&at(name), text.as_bytes(), Access::public()).unwrap();
        put("one", "#!two x\n".to_owned());
        put("two", format!("#!{}\n", at("none").display()));
        put("round", format!("#!{}\n", at("round").display()));
        let found = follow(&at("one"), dir.path()).unwrap();
        let files: Vec<&Path> = found.files.iter().map(|(_, path)| path.as_path()).collect();
        assert_eq!((files, found.end), (vec![at("two").as_path(), at("none").as_path()], None));
        assert_eq!(follow(&at("round"), dir.path()).unwrap_err().raw_os_error(), Some(LOOP));
        put("self", "#!/proc/self/exe\n".to_owned());
        assert!(matches!(follow(&at("self"), dir.path()).unwrap().end, Some(Head::Alone | Head::Loaded(_))));
    }
}
