//! `layers`: which room names which, which outside crates it names, and whether modules go in circles.

mod cycles;
mod modules;
mod references;
mod table;
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::code::{self, Source, Violation};
use crate::{Outcome, no_words, place};
use modules::{Module, Modules, Target};
use references::Reference;
use table::Row;

/// Checks the product against the table, and the product and this tool for cycles.
pub(crate) fn task(words: &[String]) -> Outcome {
    no_words("layers", words)?;
    let repository = place::repository();
    let crates = outside_crates(&repository)?;
    let sources = code::load(&repository, "src")?;
    let mut found: Vec<Violation> = sources.iter().flat_map(|source| check_rooms(source, &crates)).collect();
    found.extend(check_cycles(&sources, Path::new("src")));
    found.extend(check_cycles(&code::load(&repository, "xtask/src")?, Path::new("xtask/src")));
    code::verdict("layers", found)
}

fn check_rooms(source: &Source, crates: &BTreeSet<String>) -> Vec<Violation> {
    let src = Path::new("src");
    // Tests may use any crate that helps them, but no room that theirs may not.
    let (all, product) = (Module::new(source, src, &source.code), Module::new(source, src, &source.product));
    let room = all.path.first().map_or("lib", String::as_str);
    if table::FREE.contains(&room) {
        return Vec::new();
    }
    let Some(row) = table::row(room) else {
        return vec![source.violation(1, format!("the room `{room}` has no row in xtask/src/layers/table.rs"))];
    };
    let rooms = all.references.iter().filter_map(|reference| forbidden_room(row, &all, reference));
    let outside = product.references.iter().filter_map(|reference| forbidden_crate(row, &product, reference, crates));
    rooms.chain(outside).map(|(line, what)| source.violation(line, what)).collect()
}

fn forbidden_room(row: &Row, module: &Module, reference: &Reference) -> Option<(usize, String)> {
    let Target::Inside(path) = module.resolve(reference) else { return None };
    let spelt = reference.path.join("::");
    let Some(room) = path.first() else {
        return Some((reference.line, format!("`{spelt}` names the whole crate: name the room")));
    };
    if row.allows_room(room) {
        return None;
    }
    let allowed = listed(row.rooms);
    Some((reference.line, format!("`{}` may not use `{room}` (`{spelt}`): it may use {allowed}", row.room)))
}

fn forbidden_crate(
    row: &Row,
    module: &Module,
    reference: &Reference,
    crates: &BTreeSet<String>,
) -> Option<(usize, String)> {
    let Target::Outside(path) = module.resolve(reference) else { return None };
    let name = path.first().filter(|name| crates.contains(*name))?;
    if row.allows_outside(&path) {
        return None;
    }
    let allowed = listed(row.crates);
    let spelt = path.join("::");
    Some((reference.line, format!("`{}` may not use the crate `{name}` (`{spelt}`): it may use {allowed}", row.room)))
}

fn check_cycles(sources: &[Source], below: &Path) -> Vec<Violation> {
    let modules = Modules::new(sources.iter().map(|source| Module::new(source, below, &source.product)));
    let file = |path: &[String]| sources.iter().find(|source| Module::new(source, below, "").path == path);
    cycles::knots(&modules)
        .into_iter()
        .filter_map(|knot| {
            let what = format!("a cycle of modules: {}", knot.cycle.join(", "));
            Some(file(&knot.from)?.violation(knot.line, what))
        })
        .collect()
}

/// The names under which `[dependencies]` of the product are used.
fn outside_crates(repository: &Path) -> Outcome<BTreeSet<String>> {
    let path = repository.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    let names = dependencies(&text);
    if names.is_empty() { Err(format!("{} has no [dependencies]", path.display())) } else { Ok(names) }
}

fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line.starts_with("[target.") && line.ends_with(".dependencies]");
        } else if let Some((name, _)) = line.split_once(['=', '.']).filter(|_| inside && !line.starts_with('#')) {
            names.insert(name.trim().replace('-', "_"));
        }
    }
    names
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let crates = ["tokio", "rustls", "serde", "time", "serde_json"].map(str::to_owned).into();
        let source = Source::new(path.into(), text.to_owned());
        check_rooms(&source, &crates).into_iter().map(|violation| (violation.line, violation.what)).collect()
    }

    #[test]
    fn a_room_may_use_its_row_and_std() {
        let code = "use std::time;\nuse crate::wire::Name;\nuse super::plan::Plan;\nuse serde_json::Value;\nfn f() { time::now() }";
        assert_eq!(found("src/executor/decide.rs", code), []);
    }

    #[test]
    fn a_forbidden_room_is_reported_however_it_is_named() {
        for code in [
            "use crate::agent::X;",
            "use crate::{wire::A, agent};",
            "fn f() { crate::agent::go() }",
            "use super::super::agent;",
        ] {
            let found = found("src/executor/decide.rs", code);
            assert_eq!(found.len(), 1, "{code}");
            assert!(found[0].1.starts_with("`executor` may not use `agent`"), "{}", found[0].1);
        }
    }

    #[test]
    fn a_forbidden_crate_is_reported_but_not_in_tests() {
        assert_eq!(found("src/executor/a.rs", "\nfn f() { tokio::spawn(x) }").len(), 1);
        assert_eq!(found("src/executor/a.rs", "#[tokio::main]\nfn f() {}").len(), 1);
        assert_eq!(found("src/executor/a.rs", "#[cfg(test)]\nmod tests { use tokio::x; }"), []);
        assert_eq!(found("src/executor/a.rs", "// tokio::x\nconst A: &str = \"tokio::x\";"), []);
    }

    #[test]
    fn a_forbidden_room_is_reported_in_tests_too() {
        assert_eq!(found("src/wire/a.rs", "#[cfg(test)]\nmod tests { use crate::cli::X; use super::*; }").len(), 1);
    }

    #[test]
    fn a_room_without_a_row_is_reported() {
        assert!(found("src/util/a.rs", "").first().unwrap().1.contains("no row"));
        assert_eq!(found("src/role.rs", "use crate::cli::X;"), []);
    }

    #[test]
    fn dependencies_are_read_as_code_spells_them() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\naws-lc-rs = { version = \"1\" }\n# no = 1\nbytes.workspace = true\n\
            [dev-dependencies]\nproptest = \"1\"\n[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n";
        assert_eq!(dependencies(manifest), ["aws_lc_rs", "bytes", "libc"].map(str::to_owned).into());
    }
}
