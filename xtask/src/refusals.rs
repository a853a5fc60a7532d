//! Codes of refusals are part of what others build on: `README.md` lists all that a call can be answered with, and the code has
//! no other.

use std::collections::BTreeSet;

use crate::{code, place};

const DOCUMENT: &str = "README.md";
/// The line above the table, whose first column has the codes.
const ABOVE: &str = "Codes of refusals, which do not change:";
/// Where refusals come from.
const FOLDERS: [&str; 3] = ["src/executor", "src/agent", "src/wire"];
/// Words of the metrics, which have a list of their own, and of pairing, where nothing is run.
const OTHERS: [&str; 2] = ["src/agent/metrics", "src/agent/pairing"];

/// Texts in the code that look like codes and are none that a call is answered with. Actions of the log are not among them: they
/// stand behind their level.
const NO_CODES: &[&str] = &[
    // Steps of a run.
    "bounding-set close-descriptors control-group parent-death-signal private-places process-namespace read-only secure-bits",
    // Outcomes of a run in the log and in `explain`.
    "not-confined not-started out-of-memory output-limit timed-out outcome-unknown",
    // Gates, and their codes for peers, who are not answered at all.
    "executor-allowlist trust-map ip-block not-judged rate-block revoked-cert serial-reject tls-failure",
    // `explain` about a request that never was one; `resolve`, in the original's words.
    "request-malformed request-too-large not-allowlisted not-in-script-dirs not-trusted",
    // Roles, programs, accounts, serde.
    "could-serve ctrl-exec ctrl-exec-agent ctrl-exec-api ctrl-exec-dispatcher ctrl-exec-dispatchers ctrl-exec-exec",
    "ctrl-exec-mcp kebab-case serve-own serve-private taken-over",
    // Actions and reasons of the log that stand apart from their level.
    "accept-error cancel-deny cancel-miss capabilities-deny cert-staged csr-generated executor-unreachable metrics-listen",
    "not-owner renew-complete result-deny result-miss rotate-deny rotate-fail schema-broken schema-skip schema-version-derive",
    "serial-mismatch trust-migrate",
];

/// The codes of the table, in its order.
fn listed(text: &str) -> Vec<&str> {
    let rows =
        text.split_once(ABOVE).map_or("", |(_, behind)| behind).lines().skip_while(|line| !line.starts_with('|'));
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

/// What stands between quotation marks and looks like a code; not an action of the log.
fn alike(text: &str) -> BTreeSet<&str> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let is_code = |word: &str| {
        let mut parts = word.split('-');
        let small = |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_ascii_lowercase());
        word.contains('-') && parts.all(small)
    };
    let mut found = BTreeSet::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let pieces: Vec<&str> = line.split('"').collect();
        for pair in pieces.windows(2) {
            let [before, word] = pair else { continue };
            let level = before.trim_end().strip_suffix(',').is_some_and(|before| {
                before.rsplit("Level::").next().is_some_and(|level| before.contains("Level::") && !level.contains(' '))
            });
            if is_code(word) && !level {
                found.insert(*word);
            }
        }
    }
    found
}

#[test]
fn the_document_lists_every_code_that_a_call_can_be_refused_with_and_no_other() {
    let repository = place::repository();
    let text = std::fs::read_to_string(repository.join(DOCUMENT)).unwrap();
    let listed = listed(&text);
    let unique: BTreeSet<&str> = listed.iter().copied().collect();
    assert!(unique.len() == listed.len() && !listed.is_empty(), "{DOCUMENT}: {listed:?}");
    let sources: Vec<_> = FOLDERS.iter().flat_map(|folder| code::load(&repository, folder).unwrap()).collect();
    let product = || {
        let of_tests = |source: &&code::Source| source.product.trim().is_empty();
        let other = |source: &&code::Source| OTHERS.iter().any(|other| source.path.starts_with(other));
        sources.iter().filter(move |source| !of_tests(source) && !other(source))
    };
    let no_codes: BTreeSet<&str> = NO_CODES.iter().flat_map(|line| line.split(' ')).collect();
    let unknown: BTreeSet<_> = product()
        .flat_map(|source| alike(&source.text).into_iter().map(|word| (word, source.path.display().to_string())))
        .filter(|(word, _)| !unique.contains(word) && !no_codes.contains(word))
        .collect();
    assert!(unknown.is_empty(), "list them in {DOCUMENT} ('{ABOVE}'), or here among those that are none: {unknown:#?}");
    let gone: Vec<&str> = listed
        .iter()
        .copied()
        .filter(|word| !product().any(|source| source.text.contains(&format!("\"{word}\""))) && *word != "overload")
        .collect();
    assert!(gone.is_empty(), "{DOCUMENT}: no call is refused with {gone:?}");
}

#[test]
fn a_code_is_found_wherever_it_stands_and_no_action_of_the_log_is_taken_for_one() {
    let text = "let x = Event::new(Level::Info, \"run-async\").field(\"A\", \"own-word\");\n// \"not-this\"\n\
        Err((\n    \"writable-x\",\n    \"a text-like one\".to_owned()))\nconst C: &str = \"order-x\";\n\
        \n#[cfg(test)]\nmod tests { \"only-here\" }";
    assert_eq!(alike(text), BTreeSet::from(["own-word", "writable-x", "order-x"]));
    let table =
        format!("`other-x`\n\n{ABOVE}\n\n| code | |\n|---|---|\n| `a-b`, `c` | `d-e` |\n| `f-g` | |\n\n`h-i`\n");
    assert_eq!(listed(&table), ["a-b", "c", "f-g"]);
}
