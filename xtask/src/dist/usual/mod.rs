//! `usual`: writes the list of what a call of the command line executes, and what an executor does for an order, by which the
//! linker puts each together.

mod list;
mod sections;
mod trace;

use std::fs;
use std::path::Path;

use self::list::List;
use self::sections::Section;
use super::{build, linker, write};
use crate::run::Run;
use crate::{Outcome, no_words, place};

/// Watches the usual calls of what ships and writes `usual.ld` anew.
pub(crate) fn task(words: &[String]) -> Outcome {
    no_words("usual", words)?;
    let seen = place::repository().join("target/usual");
    fs::create_dir_all(&seen).map_err(|why| format!("cannot make {}: {why}", seen.display()))?;
    // Without the list: what lies outside `.text`, valgrind takes for nobody's.
    let binary = build::mapped_binary(&seen.join("map"))?;
    let sections = sections::read(&text(&seen.join("map"))?);
    let script = linker::scripts().join(linker::USUAL);
    println!("{}", list::lost(&text(&script)?, &sections));
    let addresses = [watch(&binary, &seen.join("calls"))?, steps(&binary, &seen.join("steps"))?];
    let [calls, orders] = addresses.map(|addresses| sections::executed(&sections, &addresses));
    let list = List::choose(&sections, &calls, &orders);
    println!("calls: {}\norders: {}", list.figures(&sections, &calls), list.figures(&sections, &orders));
    write(&script, list.script().as_bytes())?;
    println!("{} is written: build and measure (`cargo xtask bench cold` and `runs`)", script.display());
    Ok(())
}

/// The addresses of what the usual calls execute, in the file's own count. What it sees is kept in `seen`.
fn watch(binary: &Path, seen: &Path) -> Outcome<Vec<u64>> {
    let _ = fs::remove_dir_all(seen);
    fs::create_dir_all(seen).map_err(|why| format!("cannot make {}: {why}", seen.display()))?;
    let valgrind = Run::new("valgrind").arg("--version").text();
    valgrind.map_err(|why| format!("{why}\ninstall it: apt-get install valgrind"))?;
    Run::cargo()
        .args(["bench", "--bench", "figures", "--", "helper:calls", "valgrind", "--quiet", "--tool=callgrind"])
        .args(["--dump-instr=yes", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}/%p", seen.display()))
        .env("CTRL_EXEC_BIN", binary)
        .dir(&place::repository())
        .go()?;
    let entries = fs::read_dir(seen).map_err(|why| format!("cannot read {}: {why}", seen.display()))?;
    let mut addresses = Vec::new();
    for entry in entries.flatten() {
        addresses.extend(trace::addresses(&text(&entry.path())?, binary));
    }
    if addresses.is_empty() {
        return Err(format!("valgrind has written nothing of {} to {}", binary.display(), seen.display()));
    }
    Ok(addresses)
}

/// The addresses of what executors execute for an order, which `seen` tells, a line each.
fn steps(binary: &Path, seen: &Path) -> Outcome<Vec<u64>> {
    Run::cargo()
        .args(["bench", "--bench", "figures", "--", "helper:steps"])
        .arg(seen)
        .env("CTRL_EXEC_BIN", binary)
        .dir(&place::repository())
        .go()?;
    let lines = text(seen)?;
    let addresses = lines.lines().map(|line| u64::from_str_radix(line, 16));
    addresses.collect::<Result<_, _>>().map_err(|why| format!("{} is no list of addresses: {why}", seen.display()))
}

fn text(path: &Path) -> Outcome<String> {
    let bytes = fs::read(path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Bytes of some sections.
fn size<'a>(sections: impl IntoIterator<Item = &'a Section>) -> u64 {
    sections.into_iter().map(|section| section.size).sum()
}
