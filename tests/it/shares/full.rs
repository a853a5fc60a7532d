//! What becomes of large outputs where the disk has no room for them: what is there is told, and that it is not all.

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;
use crate::harness::audit::Line;

/// A small disk in the agent's place for large outputs, which is that for jobs, until it is dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn on(site: &Site, bytes: usize) -> Self {
        let place = site.agent().root.join("var/lib/ctrl-exec-agent/runs");
        std::fs::create_dir_all(&place).unwrap();
        let options = format!("size={bytes},mode=0750,uid=65534,gid=65534");
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(place)
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let filled = std::fs::write(self.0.join("fill"), vec![b'x'; 64 << 20]);
        assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.0).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Prints so many MiB to one output and a line to the other, and ends with 3.
const PRINT: &str = "yes 123456789abcdef | head -c \"$((1048576 * $1))\"; echo end >&2; exit 3";

fn run(site: &Site, mebibytes: usize) -> Value {
    let mut http = connect(site, &site.dispatcher());
    http.post("/run", &json!({"script": "print", "args": [mebibytes.to_string()], "reqid": "r1"}).to_string()).json()
}

fn text(answer: &Value) -> &str {
    answer["stdout"].as_str().unwrap()
}

/// It is the beginning of what was printed, and how the script has ended is told in any case.
#[track_caller]
fn is_cut(answer: &Value, atleast: usize, less: usize) {
    assert_eq!((&answer["exit"], &answer["truncated"]), (&json!(3), &json!(true)));
    let text = text(answer);
    assert!(text.len() >= atleast && text.len() < less, "{}", text.len());
    assert!(text.as_bytes().chunks(16).all(|line| b"123456789abcdef\n".starts_with(line)));
}

#[track_caller]
fn is_told(line: &Line) {
    line.is(&["ACTION=output-cut", "DISPATCHER=control-1", "ERROR=*", "PEER=127.0.0.1", "REQID=r1", "SCRIPT=print"]);
    assert!(line.get("ERROR").unwrap().contains("No space left on device"), "{line:?}");
}

#[test]
fn output_that_the_disk_has_room_for_in_part_is_told_as_far_as_it_came_and_marked() {
    let site = site("").sh("print", PRINT).start();
    let disk = Disk::on(&site, 2 << 20);
    is_cut(&run(&site, 6), 1 << 20, (2 << 20) + (64 << 10));
    is_told(&site.agent().line("output-cut"));
    // What lies there with no name is gone with its answer, so that the next has the same room.
    is_cut(&run(&site, 6), 1 << 20, (2 << 20) + (64 << 10));
    let whole = run(&site, 1);
    assert_eq!((text(&whole).len(), whole.get("truncated")), (1 << 20, None));
    assert_eq!((site.agent().lines("output-cut").len(), disk.files()), (2, 0));
    // And the command says so too.
    let shown = site.control(&["--json", "run", "agent1", "print", "--", "6"]).exits(1).result();
    is_cut(&shown, 1 << 20, (2 << 20) + (64 << 10));
}

#[test]
fn output_that_the_disk_has_no_room_for_is_kept_in_memory_while_there_is_some() {
    let site = site("").sh("print", PRINT).start();
    let disk = Disk::on(&site, 1 << 20);
    disk.fill();
    let whole = run(&site, 6);
    assert_eq!((&whole["exit"], text(&whole).len(), whole.get("truncated")), (&json!(3), 6 << 20, None));
    assert!(site.agent().lines("output-cut").is_empty());
    assert!(site.agent().lines("output-fail").is_empty());
}
