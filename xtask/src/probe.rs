//! `probe`: what strangers' tools find in a running agent. It needs the registries of Python and Debian, so it is no
//! part of `check`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::{Outcome, dist, no_words, place};

/// The release of sslyze whose report the probe reads.
const SSLYZE: &str = "6.3.1";

/// Provides the tools and runs `tests/probe` against the static binary. An error is a tool that is missing, or a weakness.
pub(crate) fn task(words: &[String]) -> Outcome {
    no_words("probe", words)?;
    let folder = place::repository().join("target/probe");
    let reports = folder.join("reports");
    fs::create_dir_all(&reports).map_err(|why| format!("cannot make {}: {why}", reports.display()))?;
    slow_client()?;
    let python = scanner(&folder.join("venv"))?;
    let binary = dist::quick()?;
    Run::cargo()
        .args(["test", "--quiet", "--test", "probe"])
        .env("CTRL_EXEC_BIN", &binary)
        .env("CTRL_EXEC_PROBE_PYTHON", &python)
        .env("CTRL_EXEC_PROBE_REPORTS", &reports)
        .dir(&place::repository())
        .go()
}

/// Debian has the slow client; another system's package is as good.
fn slow_client() -> Outcome {
    let found = Run::new("slowhttptest").arg("-h").text();
    // It ends with 1 when asked for help.
    match found {
        Err(why) if why.starts_with("cannot start") => {
            Err(format!("{why}\ninstall it: apt-get install slowhttptest python3-venv"))
        }
        _ => Ok(()),
    }
}

/// The Python of an environment that has the scanner; made once.
fn scanner(venv: &Path) -> Outcome<PathBuf> {
    let python = venv.join("bin/python");
    let pip =
        |rest: &[&str]| Run::new(&python).args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(rest);
    if python.exists()
        && pip(&["show", "sslyze"]).text().is_ok_and(|shown| shown.contains(&format!("Version: {SSLYZE}\n")))
    {
        return Ok(python);
    }
    println!("installs sslyze {SSLYZE} into {}", venv.display());
    let hint = |why| format!("{why}\nPython's own environments are needed: apt-get install python3-venv");
    Run::new("python3").args(["-m", "venv"]).arg(venv).text().map_err(hint)?;
    pip(&["install", &format!("sslyze=={SSLYZE}")]).text().map(|_| python.clone())
}
