//! The bill of materials: what the binary is made of, as a `CycloneDX` 1.5 document.
//!
//! Packages and licences come from `cargo tree` for the shipped target without development dependencies; checksums
//! and the dependency graph come from `Cargo.lock`. There is no time and no random serial number in it: the same
//! commit gives the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use crate::run::Run;
use crate::{Outcome, place};

/// A package of the lock file.
#[derive(Default)]
struct Locked {
    checksum: Option<String>,
    /// As the lock file spells them: `name` or `name version`.
    dependencies: Vec<String>,
}

/// Name and version.
type Id = (String, String);

/// The document, as JSON text.
pub(super) fn of_the_binary() -> Outcome<String> {
    let tree = Run::cargo()
        .args(["tree", "--locked", "--package", "ctrl-exec", "--edges", "normal,build", "--target"])
        .arg(place::musl_target())
        .args(["--prefix", "none", "--no-dedupe", "--format", "{p}\t{l}"])
        .dir(&place::repository())
        .text()?;
    let path = place::repository().join("Cargo.lock");
    let lock = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
    document(&parse_tree(&tree)?, &parse_lock(&lock))
}

/// Lines of `name vVERSION (extra)`, a tab, the licence. Each package once.
fn parse_tree(text: &str) -> Outcome<BTreeMap<Id, String>> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (package, licence) = line.split_once('\t')?;
            let mut words = package.split(' ');
            let id = (words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned());
            Some((id, licence.to_owned()))
        })
        .collect::<Option<_>>()
        .ok_or_else(|| format!("`cargo tree` printed lines of another form than asked for:\n{text}"))
}

fn parse_lock(text: &str) -> BTreeMap<Id, Locked> {
    text.split("[[package]]").skip(1).filter_map(parse_package).collect()
}

fn parse_package(text: &str) -> Option<(Id, Locked)> {
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \"")?.strip_suffix('"'))
            .map(str::to_owned)
    };
    let dependencies = text
        .split_once("dependencies = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(list, _)| list.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix("\",")))
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    Some(((field("name")?, field("version")?), Locked { checksum: field("checksum"), dependencies }))
}

fn document(tree: &BTreeMap<Id, String>, lock: &BTreeMap<Id, Locked>) -> Outcome<String> {
    let own = tree.keys().find(|(name, _)| name == "ctrl-exec").ok_or("`cargo tree` does not list ctrl-exec")?;
    let components: Vec<String> = tree
        .iter()
        .filter(|(id, _)| *id != own)
        .map(|(id, licence)| {
            component("library", id, licence, lock.get(id).and_then(|locked| locked.checksum.as_deref()))
        })
        .collect();
    let edges: Vec<String> = tree.keys().map(|id| edge(id, tree, lock.get(id))).collect();
    let top = component("application", own, tree.get(own).map_or("", String::as_str), None);
    Ok(format!(
        "{{\n\"bomFormat\": \"CycloneDX\",\n\"specVersion\": \"1.5\",\n\"version\": 1,\n\"metadata\": {{\"component\": {top}}},\n\
         \"components\": [\n{}\n],\n\"dependencies\": [\n{}\n]\n}}\n",
        components.join(",\n"),
        edges.join(",\n")
    ))
}

fn component(kind: &str, id: &Id, licence: &str, checksum: Option<&str>) -> String {
    let purl = purl(id);
    let mut text = format!(
        "{{\"type\": \"{kind}\", \"bom-ref\": {purl}, \"name\": {}, \"version\": {}, \"purl\": {purl}",
        quoted(&id.0),
        quoted(&id.1)
    );
    if !licence.is_empty() {
        // The old way to write "or" in Cargo.toml is not SPDX.
        let expression = quoted(&licence.replace('/', " OR "));
        write_to(&mut text, format_args!(", \"licenses\": [{{\"expression\": {expression}}}]"));
    }
    if let Some(sum) = checksum {
        write_to(&mut text, format_args!(", \"hashes\": [{{\"alg\": \"SHA-256\", \"content\": {}}}]", quoted(sum)));
    }
    text.push('}');
    text
}

fn edge(id: &Id, tree: &BTreeMap<Id, String>, locked: Option<&Locked>) -> String {
    let wanted: BTreeSet<String> = locked
        .into_iter()
        .flat_map(|locked| &locked.dependencies)
        .filter_map(|spelt| resolve(spelt, tree))
        .map(purl)
        .collect();
    let list: Vec<String> = wanted.into_iter().collect();
    format!("{{\"ref\": {}, \"dependsOn\": [{}]}}", purl(id), list.join(", "))
}

/// The lock file leaves the version out where only one exists. What is not in the tree is for other targets.
fn resolve<'a>(spelt: &str, tree: &'a BTreeMap<Id, String>) -> Option<&'a Id> {
    let mut words = spelt.split(' ');
    let (name, version) = (words.next()?, words.next());
    tree.keys().find(|id| id.0 == name && version.is_none_or(|version| id.1 == version))
}

fn purl(id: &Id) -> String {
    // A `+` in a version is written `%2B` in a package URL.
    quoted(&format!("pkg:cargo/{}@{}", id.0, id.1.replace('+', "%2B")))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter.is_control() => write_to(&mut out, format_args!("\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn write_to(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _cannot_fail = text.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "ctrl-exec v0.13.0 (/home/me/ctrl-exec)\tMIT OR Apache-2.0\n\
        serde v1.0.1\tMIT/Apache-2.0\nserde v1.0.1\tMIT/Apache-2.0\naws-lc-sys v0.34.0+x\tISC\n";
    const LOCK: &str = "version = 4\n\n[[package]]\nname = \"ctrl-exec\"\nversion = \"0.13.0\"\ndependencies = [\n \"serde\",\n \
        \"windows\",\n]\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\nsource = \"registry+x\"\nchecksum = \"abcd\"\n\n\
        [[package]]\nname = \"windows\"\nversion = \"0.1.0\"\n";

    fn made() -> String {
        document(&parse_tree(TREE).unwrap(), &parse_lock(LOCK)).unwrap()
    }

    #[test]
    fn every_package_of_the_tree_is_listed_once_with_licence_and_checksum() {
        let text = made();
        assert_eq!(text.matches("\"name\": \"serde\"").count(), 1, "{text}");
        assert!(text.contains(
            "\"expression\": \"MIT OR Apache-2.0\"}], \"hashes\": [{\"alg\": \"SHA-256\", \"content\": \"abcd\""
        ));
        assert!(text.contains("pkg:cargo/aws-lc-sys@0.34.0%2Bx"), "{text}");
        assert!(!text.contains("/home/me"), "{text}");
    }

    #[test]
    fn the_graph_leaves_out_what_the_target_does_not_use() {
        let text = made();
        assert!(
            text.contains("{\"ref\": \"pkg:cargo/ctrl-exec@0.13.0\", \"dependsOn\": [\"pkg:cargo/serde@1.0.1\"]}"),
            "{text}"
        );
        assert!(!text.contains("windows"), "{text}");
    }

    #[test]
    fn text_is_escaped_as_json_wants_it() {
        assert_eq!(quoted("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000ad\"");
    }

    #[test]
    fn a_tree_of_another_form_is_an_error() {
        assert!(parse_tree("serde\tMIT").is_err());
        assert!(parse_tree("serde v1.0").is_err());
    }
}
