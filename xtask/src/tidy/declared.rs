//! Every file belongs to a program: a file that no `mod` line names is never compiled, and its tests never run.

use std::path::Path;

use super::at_top;
use crate::code::{Source, Violation};

/// Every file that is not itself the root of a program must be declared by the file above it.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    sources.iter().filter(|source| !is_root(&source.path)).filter_map(|source| undeclared(source, sources)).collect()
}

fn undeclared(source: &Source, sources: &[Source]) -> Option<Violation> {
    let own = source.path.with_extension("");
    let module = if own.ends_with("mod") { own.parent()? } else { &own };
    let (folder, name) = (module.parent()?, module.file_name()?.to_str()?);
    let declares = |other: &Source| other.path != source.path && other.children() == folder && other.declares(name);
    if sources.iter().any(declares) {
        return None;
    }
    Some(at_top(source, format!("no `mod {name};` above it: it is never compiled")))
}

/// The files from which a compiler starts.
fn is_root(path: &Path) -> bool {
    let name = path.file_stem().and_then(|stem| stem.to_str());
    matches!(name, Some("main" | "lib")) || path.starts_with("tests/fuzz/bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_file_is_found_in_either_layout() {
        let sources = [
            ("tests/it/main.rs", "mod run;\nmod pair;\n"),
            ("tests/it/run.rs", ""),
            ("tests/it/forgotten.rs", ""),
            ("tests/it/pair/mod.rs", "mod codes;\n"),
            ("tests/it/pair/codes.rs", ""),
            ("tests/it/pair/lost.rs", ""),
            ("src/lib.rs", "pub mod wire;"),
            ("src/wire.rs", "mod run;"),
            ("src/wire/run.rs", ""),
        ]
        .map(|(path, text)| Source::new(path.into(), text.to_owned()));
        let found: Vec<_> = check(&sources).into_iter().map(|v| v.path.display().to_string()).collect();
        assert_eq!(found, ["tests/it/forgotten.rs", "tests/it/pair/lost.rs"]);
    }
}
