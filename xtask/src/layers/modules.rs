//! The modules of a program, and what a path in one of them leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::references::{Reference, references};
use crate::code::Source;

/// A module by the names that lead to it from the root, which has none.
pub(super) type ModulePath = Vec<String>;

/// How often a name may be re-exported on the way to its place. A program that compiles needs a few at most.
const LONGEST_CHAIN: usize = 16;

/// What a reference leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Something of this program, by its path from the root.
    Inside(ModulePath),
    /// Something that may be an outside crate's.
    Outside(Vec<String>),
    /// A name that a `use` of the same file has brought in, and that is judged there.
    Known,
}

/// One file as a module.
pub(super) struct Module {
    pub(super) path: ModulePath,
    pub(super) references: Vec<Reference>,
    children: BTreeSet<String>,
    /// Names that a `use` gives to a path of another name or place.
    bound: BTreeMap<String, Reference>,
}

/// Every file of a program.
pub(super) struct Modules {
    all: BTreeMap<ModulePath, Module>,
}

impl Module {
    /// `code`: masked, with or without the tests of `source`.
    pub(super) fn new(source: &Source, below: &Path, code: &str) -> Self {
        let references = references(code);
        let bound = references
            .iter()
            .filter(|reference| reference.inside.is_empty() && reference.path.len() > 1)
            .filter_map(|reference| Some((reference.binds.clone()?, reference.clone())))
            .collect();
        Self { path: module_path(&source.path, below), references, children: declared(source), bound }
    }

    /// What `reference`, which this file makes, leads to.
    pub(super) fn resolve(&self, reference: &Reference) -> Target {
        let Some((first, rest)) = reference.path.split_first() else { return Target::Known };
        let mut scope: ModulePath = self.path.iter().chain(&reference.inside).cloned().collect();
        match first.as_str() {
            _ if reference.outside => Target::Outside(reference.path.clone()),
            "crate" => Target::Inside(rest.to_vec()),
            "self" => Target::Inside(join(scope, rest)),
            "super" => {
                let up = reference.path.iter().take_while(|name| *name == "super").count();
                scope.truncate(scope.len().saturating_sub(up));
                Target::Inside(join(scope, reference.path.get(up..).unwrap_or_default()))
            }
            _ if self.children.contains(first) && reference.inside.is_empty() => {
                Target::Inside(join(scope, &reference.path))
            }
            _ if self.bound.get(first).is_some_and(|bound| bound != reference) => Target::Known,
            _ => Target::Outside(reference.path.clone()),
        }
    }
}

impl Modules {
    pub(super) fn new(modules: impl IntoIterator<Item = Module>) -> Self {
        Self { all: modules.into_iter().map(|module| (module.path.clone(), module)).collect() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Module> {
        self.all.values()
    }

    /// The file in which what `path` leads to stands, with re-exports followed to their source.
    pub(super) fn home(&self, path: &[String]) -> ModulePath {
        let mut path = path.to_vec();
        for _ in 0..LONGEST_CHAIN {
            let (home, rest) = self.longest(&path);
            let next = rest.split_first().and_then(|(name, rest)| {
                let module = self.all.get(home)?;
                let Target::Inside(to) = module.resolve(module.bound.get(name)?) else { return None };
                Some(join(to, rest))
            });
            match next {
                Some(next) if next != path => path = next,
                _ => return home.to_vec(),
            }
        }
        self.longest(&path).0.to_vec()
    }

    /// `path` cut after the longest part that is a file.
    fn longest<'a>(&self, path: &'a [String]) -> (&'a [String], &'a [String]) {
        (0..=path.len())
            .rev()
            .filter_map(|length| path.split_at_checked(length))
            .find(|(home, _)| self.all.contains_key(*home))
            .unwrap_or((&[], path))
    }
}

fn declared(source: &Source) -> BTreeSet<String> {
    Source::declared(&source.code).into_iter().map(str::to_owned).collect()
}

fn join(mut scope: ModulePath, rest: &[String]) -> ModulePath {
    scope.extend_from_slice(rest);
    scope
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`; `lib.rs` is the root. `main.rs` is one only where there is no
/// `lib.rs`, which its name tells well enough here: beside one, nothing leads to it.
fn module_path(path: &Path, below: &Path) -> ModulePath {
    let own = path.strip_prefix(below).unwrap_or(path).with_extension("");
    let names = own.iter().map(|name| name.to_string_lossy().into_owned());
    let mut names: ModulePath = names.collect();
    names.pop_if(|last| matches!(last.as_str(), "mod" | "lib"));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(files: &[(&str, &str)]) -> Modules {
        Modules::new(files.iter().map(|(path, text)| {
            let source = Source::new((*path).into(), (*text).to_owned());
            Module::new(&source, Path::new("src"), &source.code)
        }))
    }

    fn path(text: &str) -> ModulePath {
        text.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn targets(file: &str, text: &str) -> Vec<Target> {
        let all = program(&[(file, text)]);
        let module = all.iter().next().unwrap();
        module.references.iter().map(|reference| module.resolve(reference)).collect()
    }

    fn inside(text: &str) -> Target {
        Target::Inside(path(text))
    }

    #[test]
    fn super_leads_out_of_inline_modules_first() {
        let code = "use super::a; mod tests { use super::b; use super::super::c; }";
        assert_eq!(targets("src/wire/run.rs", code), [inside("wire::a"), inside("wire::run::b"), inside("wire::c")]);
        assert_eq!(targets("src/wire/mod.rs", "use super::sys::x;"), [inside("sys::x")]);
    }

    #[test]
    fn a_module_named_like_a_crate_is_not_the_crate() {
        assert_eq!(targets("src/wire/mod.rs", "mod time; fn f() { time::now() }"), [inside("wire::time::now")]);
        let code = "use super::time; fn f() { time::now() }";
        assert_eq!(targets("src/wire/run.rs", code), [inside("wire::time"), Target::Known]);
        assert_eq!(targets("src/wire/run.rs", "fn f() { time::now() }"), [Target::Outside(path("time::now"))]);
    }

    #[test]
    fn re_exports_are_followed_to_the_file_that_has_the_thing() {
        let all = program(&[
            ("src/lib.rs", "pub mod wire;"),
            ("src/wire/mod.rs", "mod a; mod b; pub use a::Thing; pub use self::b::{deep::Other as Renamed};"),
            ("src/wire/a.rs", "struct Thing;"),
            ("src/wire/b/mod.rs", "pub mod deep;"),
            ("src/wire/b/deep.rs", ""),
        ]);
        assert_eq!(all.home(&path("wire::Thing::new")), path("wire::a"));
        assert_eq!(all.home(&path("wire::Renamed")), path("wire::b::deep"));
        assert_eq!(all.home(&path("wire::own")), path("wire"));
        assert_eq!(all.home(&path("elsewhere")), path(""));
    }

    #[test]
    fn re_exports_in_a_circle_end() {
        let all = program(&[("src/a.rs", "pub use crate::b::X;"), ("src/b.rs", "pub use crate::a::X;")]);
        assert!(!all.home(&path("a::X")).is_empty());
    }
}
