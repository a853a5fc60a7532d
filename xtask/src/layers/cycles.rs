//! Cycles among the children of one module: two siblings that need each other are one thing in two files.
//!
//! A parent that declares its children, re-exports their names or calls them makes no cycle with them: what a child
//! takes from its parent counts only where it is really a sibling's, re-exported.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{Module, ModulePath, Modules, Target};

/// A reference that is part of a cycle.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Knot {
    /// The file that makes it, and where.
    pub(super) from: ModulePath,
    pub(super) line: usize,
    /// The siblings of the cycle, by their whole paths, in order.
    pub(super) cycle: Vec<String>,
}

/// Who needs whom among siblings: the child, its sibling, and where that is said.
type Edges<'a> = BTreeMap<(&'a [String], &'a [String]), Vec<(&'a ModulePath, usize)>>;

/// Every reference between siblings that can reach each other both ways.
pub(super) fn knots(modules: &Modules) -> Vec<Knot> {
    let homes: Vec<(&Module, usize, ModulePath)> = modules.iter().flat_map(|module| homes(modules, module)).collect();
    let mut edges = Edges::new();
    for (module, line, home) in &homes {
        if let Some((one, other)) = siblings(&module.path, home) {
            edges.entry((one, other)).or_default().push((&module.path, *line));
        }
    }
    edges.keys().flat_map(|edge| tied(&edges, *edge)).collect()
}

/// The file to which each reference of `module` leads.
fn homes<'a>(modules: &Modules, module: &'a Module) -> Vec<(&'a Module, usize, ModulePath)> {
    let leads = |reference| match module.resolve(reference) {
        Target::Inside(path) => Some(modules.home(&path)),
        Target::Outside(_) | Target::Known => None,
    };
    module.references.iter().filter_map(|reference| Some((module, reference.line, leads(reference)?))).collect()
}

/// The two different children of the nearest module above both that lead to `one` and `other`.
fn siblings<'a>(one: &'a [String], other: &'a [String]) -> Option<(&'a [String], &'a [String])> {
    let shared = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    Some((one.get(..=shared)?, other.get(..=shared)?))
}

/// The places that make `edge`, if its end leads back to its beginning.
fn tied(edges: &Edges<'_>, edge: (&[String], &[String])) -> Vec<Knot> {
    let (one, other) = edge;
    if !reach(edges, other).contains(one) {
        return Vec::new();
    }
    let both_ways = |node: &&&[String]| reach(edges, node).contains(one);
    let cycle: Vec<String> = reach(edges, one).iter().filter(both_ways).map(|node| node.join("::")).collect();
    let places = edges.get(&edge).into_iter().flatten();
    places.map(|(from, line)| Knot { from: (*from).clone(), line: *line, cycle: cycle.clone() }).collect()
}

/// Everything that `start` needs, directly or not. `start` itself is there only if a cycle leads to it.
fn reach<'a>(edges: &Edges<'a>, start: &[String]) -> BTreeSet<&'a [String]> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&[String]> = vec![start];
    while let Some(node) = open.pop() {
        for (_, to) in edges.keys().filter(|(from, _)| *from == node) {
            if found.insert(*to) {
                open.push(to);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::code::Source;

    fn cycles(files: &[(&str, &str)]) -> Vec<(String, usize, String)> {
        let modules = Modules::new(files.iter().map(|(path, text)| {
            let source = Source::new((*path).into(), (*text).to_owned());
            Module::new(&source, Path::new("src"), &source.product)
        }));
        knots(&modules).into_iter().map(|knot| (knot.from.join("::"), knot.line, knot.cycle.join(" "))).collect()
    }

    #[test]
    fn two_siblings_that_use_each_other_are_a_cycle() {
        let found = cycles(&[
            ("src/wire/mod.rs", "mod a;\nmod b;\n"),
            ("src/wire/a.rs", "use crate::wire::b::B;"),
            ("src/wire/b.rs", "\nuse super::a;"),
        ]);
        let cycle = "wire::a wire::b".to_owned();
        assert_eq!(found, [("wire::a".to_owned(), 1, cycle.clone()), ("wire::b".to_owned(), 2, cycle)]);
    }

    #[test]
    fn a_cycle_through_the_parents_re_exports_is_seen() {
        let found = cycles(&[
            ("src/wire/mod.rs", "mod a;\nmod b;\npub use a::A;\npub use b::B;\n"),
            ("src/wire/a.rs", "use super::B;"),
            ("src/wire/b.rs", "use super::A;"),
        ]);
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_parent_that_declares_re_exports_and_calls_makes_no_cycle() {
        let found = cycles(&[
            ("src/wire/mod.rs", "mod a;\nmod b;\npub use a::A;\nstruct Shared;\nfn f() { b::go() }\n"),
            ("src/wire/a.rs", "use super::Shared;"),
            ("src/wire/b.rs", "use super::{A, Shared};"),
        ]);
        assert_eq!(found, []);
    }

    #[test]
    fn what_only_tests_use_makes_no_cycle() {
        let found = cycles(&[
            ("src/wire/a.rs", "use super::b::B;"),
            ("src/wire/b.rs", "#[cfg(test)]\nmod tests { use crate::wire::a::A; }"),
        ]);
        assert_eq!(found, []);
    }

    #[test]
    fn files_deep_in_two_folders_tie_the_folders() {
        let found = cycles(&[
            ("src/agent/jobs/mod.rs", "pub mod list;"),
            ("src/agent/jobs/list.rs", "use crate::agent::gate::rules::R;"),
            ("src/agent/gate/rules.rs", ""),
            ("src/agent/gate/mod.rs", "mod rules; use super::jobs;"),
        ]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].2, "agent::gate agent::jobs");
    }

    #[test]
    fn a_long_way_round_is_a_cycle_and_a_side_road_is_not_part_of_it() {
        let found = cycles(&[
            ("src/a.rs", "use crate::b::B; use crate::side::S;"),
            ("src/b.rs", "use crate::c::C;"),
            ("src/c.rs", "use crate::a::A;"),
            ("src/side.rs", ""),
        ]);
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|(_, _, cycle)| cycle == "a b c"));
    }
}
