//! The archive that a kernel unpacks as its first file system: cpio, "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source).

/// An archive being put together. Everything in it is root's.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: usize,
}

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

impl Archive {
    /// A folder, below those that are there already.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, &[]);
    }

    /// A file with these permissions.
    pub(super) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, FILE | permissions, content);
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) {
        self.entry(name, LINK, target.as_bytes());
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        // inode, mode, uid, gid, links, time, size, four device numbers, length of the name with its NUL, checksum
        let (inode, size, length) = (self.entries, content.len(), name.len() + 1);
        let head = format!("070701{inode:08x}{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}", 0, 1);
        let tail = format!("{0:08x}{0:08x}{0:08x}{0:08x}{length:08x}{0:08x}", 0);
        self.bytes.extend(head.bytes().chain(tail.bytes()).chain(name.bytes()).chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::run::Run;

    #[test]
    fn what_goes_in_comes_out() {
        let mut archive = Archive::default();
        archive.folder("a");
        archive.file("a/b", 0o755, b"odd");
        archive.file("c", 0o644, &[b'x'; 4096]);
        archive.link("d", "a/b");
        let dir = std::env::temp_dir().join(format!("ctrl-exec-cpio-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("archive"), archive.finish()).unwrap();
        let unpack = Run::new("sh").args(["-c", "busybox cpio -idm <archive && stat -c %a a/b c && cat d"]).dir(&dir);
        let said = unpack.text();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(said.unwrap(), "755\n644\nodd");
    }
}
