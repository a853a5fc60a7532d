//! The Rust files of the repository as the checks read them.

pub(crate) mod blocks;
pub(crate) mod mask;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// One Rust file.
pub(crate) struct Source {
    /// Below the repository.
    pub(crate) path: PathBuf,
    /// As it is on disk.
    pub(crate) text: String,
    /// Code alone: comments and literals blanked.
    pub(crate) code: String,
    /// Code that the product compiles: `code` without the items of tests. Empty for a file that only tests have.
    pub(crate) product: String,
}

/// A rule that a file breaks, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) path: PathBuf,
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl Source {
    pub(crate) fn new(path: PathBuf, text: String) -> Self {
        let code = mask::mask(&text);
        let product = blocks::without_tests(&code);
        Self { path, text, code, product }
    }

    pub(crate) fn violation(&self, line: usize, what: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line, what: what.into() }
    }

    /// The names `x` of every `mod x;` in `code`, which is one of a file's two.
    pub(crate) fn declared(code: &str) -> BTreeSet<&str> {
        code.match_indices("mod ")
            .filter(|(at, _)| !code.get(..*at).is_some_and(|before| before.ends_with(blocks::is_word)))
            .filter_map(|(at, word)| code.get(at + word.len()..)?.split_once(';'))
            .map(|(name, _)| name.trim())
            .filter(|name| name.chars().all(blocks::is_word))
            .collect()
    }

    /// Whether this file says `mod name;`.
    pub(crate) fn declares(&self, name: &str) -> bool {
        Self::declared(&self.code).contains(name)
    }

    /// The folder in which the files of its child modules lie.
    pub(crate) fn children(&self) -> PathBuf {
        let folder = self.path.parent().unwrap_or(Path::new("")).to_path_buf();
        match self.path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "main" | "lib") | None => folder,
            Some(stem) => folder.join(stem),
        }
    }
}

/// Every Rust file below `folder` of `repository`, in the order of their paths.
pub(crate) fn load(repository: &Path, folder: &str) -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    for path in files(&repository.join(folder))? {
        if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
            let below = path.strip_prefix(repository).unwrap_or(&path).to_path_buf();
            sources.push(Source::new(below, text));
        }
    }
    empty_test_files(&mut sources);
    Ok(sources)
}

/// A file declared as `#[cfg(test)] mod x;` has no product code, nor have the files below it.
fn empty_test_files(sources: &mut [Source]) {
    let only_tests: Vec<PathBuf> = sources
        .iter()
        .flat_map(|source| {
            let (all, product) = (Source::declared(&source.code), Source::declared(&source.product));
            all.difference(&product).map(|name| source.children().join(name)).collect::<Vec<_>>()
        })
        .collect();
    for source in sources {
        if only_tests.iter().any(|stem| source.path.with_extension("").starts_with(stem)) {
            source.product.clear();
        }
    }
}

/// Every file below `folder`, sorted, without those that tools make or hide.
pub(crate) fn files(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let cannot = |why: std::io::Error| format!("cannot list {}: {why}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if matches!(name, ".git" | "target" | "dist") && !path.join("mod.rs").exists() {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Prints all `violations` and fails if there is one.
pub(crate) fn verdict(check: &str, mut violations: Vec<Violation>) -> Outcome {
    violations.sort();
    violations.dedup();
    for Violation { path, line, what } in &violations {
        println!("{}:{line}: {what}", path.display());
    }
    match violations.len() {
        0 => Ok(()),
        1 => Err(format!("{check}: 1 violation")),
        many => Err(format!("{check}: {many} violations")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.to_owned())
    }

    #[test]
    fn a_module_is_declared_in_any_visibility_but_not_in_a_comment() {
        let file = source("src/a/mod.rs", "mod x;\npub(crate) mod y;\n// mod z;\nmod inline { }\nuse amod;\n");
        assert!(file.declares("x") && file.declares("y"));
        assert!(!file.declares("z") && !file.declares("inline") && !file.declares("amod"));
    }

    #[test]
    fn a_file_that_only_tests_declare_has_no_product_code() {
        let mut all = [
            source("src/a/mod.rs", "mod real;\n#[cfg(test)]\nmod tests;\n"),
            source("src/a/real.rs", "fn f() {}"),
            source("src/a/tests.rs", "fn t() {}"),
            source("src/a/tests/deep.rs", "fn d() {}"),
        ];
        empty_test_files(&mut all);
        let kept: Vec<bool> = all.iter().map(|source| !source.product.is_empty()).collect();
        assert_eq!(kept, [true, true, false, false]);
    }

    #[test]
    fn children_lie_where_the_language_says() {
        assert_eq!(source("src/a/mod.rs", "").children(), Path::new("src/a"));
        assert_eq!(source("src/a.rs", "").children(), Path::new("src/a"));
        assert_eq!(source("src/lib.rs", "").children(), Path::new("src"));
    }
}
