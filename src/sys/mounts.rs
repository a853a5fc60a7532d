//! What is mounted where, and at which other places the same files show (`proc_pid_mountinfo(5)`).
//!
//! A file system can be mounted at several places, each time with another of its directories as the root, and one bind mount
//! makes two ways to every file below. Whoever guards a path must guard them all.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::file::Identity;
use super::mount::{self, Changes};

/// The mounts that this process sees, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Mount>);

/// Where else something shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// The places at which it shows whole, sorted: whatever is made in it shows there too.
    pub whole: Vec<PathBuf>,
    /// The places at which something in it shows, and not what lies beside that, sorted.
    pub parts: Vec<PathBuf>,
    /// Whether the answer stays the same while nothing is mounted, unmounted or changed. It does not where a file system is laid
    /// over another one that shows as well: a file comes to the upper one when it is first written to.
    pub lasting: bool,
}

impl Elsewhere {
    /// All of the places.
    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.whole.iter().chain(&self.parts)
    }

    fn take(&mut self, (place, whole): (PathBuf, bool)) {
        if whole { &mut self.whole } else { &mut self.parts }.push(place);
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    /// Which file system, as the kernel's numbers of its device.
    device: String,
    /// Which of its directories or files shows.
    root: PathBuf,
    /// Where.
    place: PathBuf,
    /// Nothing can be written through this one.
    read_only: bool,
    /// Of a file system that is laid over others: theirs.
    layers: Vec<PathBuf>,
}

impl Table {
    /// Reads it.
    ///
    /// # Errors
    /// There is no `/proc`, or a line of another form than the manual's.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read("/proc/self/mountinfo")?)
    }

    /// Reads that of another namespace.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub fn of(namespace: &Changes) -> io::Result<Self> {
        Self::parse(&namespace.text()?)
    }

    /// Whether something is mounted at exactly this place that comes from the file system of `from`, or else cannot be written
    /// to.
    #[must_use]
    pub fn covers(&self, place: &Path, from: Option<Identity>) -> bool {
        let device = from.map(Identity::device);
        let is_it = |mount: &Mount| device.as_ref().map_or(mount.read_only, |device| mount.device == *device);
        self.0.iter().any(|mount| mount.place == place && is_it(mount))
    }

    fn parse(text: &[u8]) -> io::Result<Self> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let unknown =
            || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/mountinfo has a line of an unknown form");
        lines.map(|line| Mount::parse(line).ok_or_else(unknown)).collect::<io::Result<_>>().map(Self)
    }

    /// How many mounts are below this directory.
    #[must_use]
    pub fn below(&self, directory: &Path) -> usize {
        self.0.iter().filter(|mount| mount.place != directory && mount.place.starts_with(directory)).count()
    }

    /// The other places at which what is at `place`, or a part of it, shows. `place` exists, and no component of it is
    /// a symbolic link. Neither what lies below `place` is among them, nor a place that another mount covers, so that something
    /// else shows there.
    ///
    /// # Errors
    /// It does not exist, or was mounted since this table was read.
    pub fn elsewhere(&self, place: &Path) -> io::Result<Elsewhere> {
        let opened = mount::open_exactly(place)?;
        let holder = self.holding(&opened)?;
        let within = place.strip_prefix(&holder.place).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
        let path = joined(&holder.root, within);
        // The layers are named as whoever mounted them saw them; those that are not there show nowhere.
        let layers: Vec<&PathBuf> = holder.layers.iter().filter(|layer| mount::open_exactly(layer).is_ok()).collect();
        let mut found = Elsewhere { lasting: layers.is_empty(), ..Elsewhere::default() };
        let mut whole: Vec<_> =
            layers.iter().filter_map(|layer| self.source(&joined(layer, relative(&path)))).collect();
        whole.push((holder.device.as_str(), path));
        let shown = |(device, path): &(&str, PathBuf)| self.showing(device, path, place);
        whole.iter().flat_map(shown).for_each(|shown| found.take(shown));
        let below = self.0.iter().filter(|mount| mount.id != holder.id && mount.place.starts_with(place));
        let parts: Vec<_> = below.map(|mount| (mount.device.as_str(), mount.root.clone())).collect();
        found.parts.extend(parts.iter().flat_map(shown).map(|(part, _)| part));
        self.add_overlays(place, &mut found);
        for places in [&mut found.whole, &mut found.parts] {
            places.sort();
            places.dedup();
        }
        found.parts.retain(|part| !found.whole.contains(part));
        Ok(found)
    }

    /// Where it shows since it is, holds or lies in a directory that an overlay is made of.
    fn add_overlays(&self, place: &Path, found: &mut Elsewhere) {
        let mut more = Vec::new();
        for mount in &self.0 {
            for layer in &mount.layers {
                let upper = |(known, whole): (&Path, bool)| match known.strip_prefix(layer) {
                    Ok(rest) => Some((Path::new("/").join(rest), whole)),
                    Err(_) => layer.starts_with(known).then(|| (PathBuf::from("/"), false)),
                };
                let whole =
                    [place].into_iter().chain(found.whole.iter().map(PathBuf::as_path)).map(|known| (known, true));
                let all = whole.chain(found.parts.iter().map(|known| (known.as_path(), false)));
                let mut met = all.filter_map(upper).peekable();
                if met.peek().is_some() && mount::open_exactly(layer).is_ok() {
                    more.extend(met.map(|(path, whole)| (mount, path, whole)));
                }
            }
        }
        found.lasting &= more.is_empty();
        for (mount, path, whole) in more {
            let shown = self.showing(&mount.device, &path, place);
            for (other, all) in shown {
                found.take((other, whole && all));
            }
        }
    }

    /// Which file system a path is in, and where in it.
    fn source(&self, path: &Path) -> Option<(&str, PathBuf)> {
        let holder = self.holding(&mount::open_exactly(path).ok()?).ok()?;
        let within = path.strip_prefix(&holder.place).ok()?;
        Some((holder.device.as_str(), joined(&holder.root, within)))
    }

    /// The mount that an opened file is in.
    fn holding(&self, opened: &OwnedFd) -> io::Result<&Mount> {
        let id = number(opened)?;
        let mount = self.0.iter().find(|mount| Some(mount.id) == id);
        mount.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it was mounted just now: try again"))
    }

    /// Every place outside of `own` at which this part of a file system, or something in it, shows now; and whether it shows
    /// whole.
    fn showing(&self, device: &str, path: &Path, own: &Path) -> Vec<(PathBuf, bool)> {
        let same = self.0.iter().filter(|mount| mount.device == device);
        let places = same.filter_map(|mount| {
            let (place, shown) = match path.strip_prefix(&mount.root) {
                Ok(rest) => (joined(&mount.place, rest), path),
                Err(_) if mount.root.starts_with(path) => (mount.place.clone(), mount.root.as_path()),
                Err(_) => return None,
            };
            if place.starts_with(own) {
                return None;
            }
            // What is covered by another mount belongs to that.
            let found = self.source(&place)?;
            (found.0 == device && found.1 == shown).then(|| (place, shown == path))
        });
        places.collect()
    }
}

/// Without the slash that an empty rest would leave behind.
fn joined(above: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { above.to_owned() } else { above.join(rest) }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

impl Mount {
    /// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let device = std::str::from_utf8(words.nth(1)?).ok()?.to_owned();
        let (root, place) = (path(words.next()?), path(words.next()?));
        let read_only = words.next()?.split(|byte| *byte == b',').any(|option| option == b"ro");
        let kind = words.by_ref().skip_while(|word| *word != b"-").nth(1)?;
        let options = words.nth(1).unwrap_or_default();
        let layers = if kind == b"overlay" { layers(options) } else { Vec::new() };
        Some(Self { id, device, root, place, read_only, layers })
    }
}

/// The directories that an overlay is made of, as far as its options name them (`Documentation/filesystems/overlayfs.rst`).
fn layers(options: &[u8]) -> Vec<PathBuf> {
    let named = options.split(|byte| *byte == b',').filter_map(|option| {
        let names = [&b"lowerdir="[..], b"lowerdir+=", b"upperdir="];
        names.into_iter().find_map(|name| option.strip_prefix(name))
    });
    named
        .flat_map(|value| value.split(|byte| *byte == b':'))
        .filter(|word| word.first() == Some(&b'/'))
        .map(path)
        .collect()
}

/// A word with the kernel's escapes (`\040`) undone.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind.split_first_chunk::<3>().filter(|_| *first == b'\\').and_then(|(digits, behind)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 8).ok()?, behind))
        });
        let (byte, behind) = escaped.unwrap_or((*first, behind));
        bytes.push(byte);
        rest = behind;
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

/// The number of the mount that an opened file is in, by which a namespace knows it; nothing if the kernel tells none.
///
/// # Errors
/// There is no `/proc`.
pub(super) fn number(opened: &OwnedFd) -> io::Result<Option<u64>> {
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd()))?;
    Ok(facts.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, create_dir_all};

    use super::*;
    use crate::sys::mount::{Tree, leave, open_exactly};
    use crate::sys::{process, user};

    #[test]
    fn a_line_is_read_as_the_manual_writes_it() {
        let text = b"36 35 98:0 /a\\040b /mnt\\134c rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
            37 36 0:5 / /over rw - overlay overlay rw,lowerdir=/l1:/l2,upperdir=/up,workdir=/work\n";
        let table = Table::parse(text).unwrap();
        let [first, second] = &table.0[..] else { panic!("{table:?}") };
        assert_eq!((first.id, first.device.as_str()), (36, "98:0"));
        assert_eq!((first.root.as_path(), first.place.as_path()), (Path::new("/a b"), Path::new("/mnt\\c")));
        assert!(first.layers.is_empty());
        assert_eq!(second.layers, ["/l1", "/l2", "/up"].map(PathBuf::from));
        assert!(Table::parse(b"nonsense\n").is_err());
        assert!(!Table::read().unwrap().0.is_empty());
    }

    #[test]
    fn every_other_way_to_a_place_is_found_and_what_is_covered_is_not() {
        assert!(user::is_root(), "the tests run as root");
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for name in ["a/b/c", "whole", "part", "covered", "other", "other2"] {
            create_dir_all(base.join(name)).unwrap();
        }
        File::create_new(base.join("file")).unwrap();
        File::create_new(base.join("a/b/held")).unwrap();
        let text = process::tests::in_a_process("mounts-elsewhere", || {
            leave().unwrap();
            let bind = |from: &str, to: &str| {
                let tree = Tree::copy(open_exactly(&base.join(from)).unwrap()).unwrap();
                tree.attach(open_exactly(&base.join(to)).unwrap()).unwrap();
            };
            let before = Table::read().unwrap().elsewhere(&base.join("a/b")).unwrap();
            bind("a", "whole");
            bind("a/b/c", "part");
            bind("a/b/held", "file");
            bind("a", "covered");
            bind("other", "covered/b");
            let shown = |place: &str| {
                let found = Table::read().unwrap().elsewhere(&base.join(place)).unwrap();
                let names = |paths: &[PathBuf]| {
                    let names = paths.iter().map(|path| path.strip_prefix(&base).unwrap().display().to_string());
                    names.collect::<Vec<_>>().join(" ")
                };
                format!("{}, {}", names(&found.whole), names(&found.parts))
            };
            assert!(before.all().next().is_none() && before.lasting);
            format!("{} | {} | {} | {}", shown("a/b"), shown("part"), shown("other2"), shown("a"))
        });
        assert_eq!(text, "whole/b, file part | a/b/c whole/b/c,  | ,  | covered whole, file part");
    }
}
