//! Output on a terminal is shown while it is printed, unless it is not to be.

use std::fs::File;
use std::io::Read as _;
use std::process::{Child, Stdio};

use crate::harness::{Site, eventually, terminal};

const SLOW: &str = "echo one; echo > {work}/printed; while [ ! -e {work}/go ]; do sleep 0.01; done; echo two";

fn site() -> Site {
    Site::builder().sh("slow", SLOW).start()
}

/// A command on a terminal, and the operator's end of it.
fn start(site: &Site, words: &[&str]) -> (Child, File) {
    let (screen, terminal) = terminal::pair();
    let mut command = site.control_command(words);
    command.stdin(Stdio::null()).stdout(terminal).stderr(Stdio::null());
    (command.spawn().unwrap(), screen)
}

/// Reads until there is this, or the other end has closed the terminal, which is an error here.
fn until(screen: &mut File, text: &str) -> String {
    let (mut seen, mut piece) = (String::new(), [0; 1024]);
    while !seen.contains(text) {
        let Ok(count) = screen.read(&mut piece) else { break };
        seen += std::str::from_utf8(&piece[..count]).unwrap();
    }
    seen.replace("\r\n", "\n")
}

fn succeeds(mut child: Child) {
    assert!(eventually("the end of the command", || child.try_wait().unwrap()).success());
}

#[test]
fn a_terminal_shows_a_line_before_the_script_has_ended() {
    let site = site();
    let (child, mut screen) = start(&site, &["run", "agent1", "slow"]);
    assert_eq!(until(&mut screen, "one\r\n"), "one\n");
    std::fs::write(site.agent().work("go"), "").unwrap();
    let rest = until(&mut screen, "\0");
    assert!(rest.starts_with("two\n==> agent1  [OK  exit:0  "), "{rest}");
    succeeds(child);
}

#[test]
fn a_terminal_shows_it_at_the_end_where_that_is_wanted() {
    let site = site();
    let (child, mut screen) = start(&site, &["run", "--no-stream", "agent1", "slow"]);
    assert_eq!(site.agent().worked("printed"), "");
    std::fs::write(site.agent().work("go"), "").unwrap();
    let all = until(&mut screen, "\0");
    assert!(all.starts_with("==> agent1  [OK  exit:0  ") && all.ends_with("]\none\ntwo\n"), "{all}");
    succeeds(child);
}
