//! Finds the paths that a file names: those of its `use` trees, each branch on its own, and those in its code.

use super::tokens::{Token, tokens};

/// A path as the file spells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    /// Names of the inline modules around it, outermost first: `super` leads out of these before it leaves the file.
    pub(super) inside: Vec<String>,
    /// The name that a `use` gives it here.
    pub(super) binds: Option<String>,
    /// Whether the path begins with `::`, so that its first name is a crate's.
    pub(super) outside: bool,
}

/// Every path with at least two names in `code`, which is masked, and every single name that a `use` imports.
pub(super) fn references(code: &str) -> Vec<Reference> {
    let tokens = tokens(code);
    let mut reader = Reader { rest: &tokens, before: Vec::new(), modules: Vec::new(), depth: 0, found: Vec::new() };
    while reader.step() {}
    reader.found
}

struct Reader<'a> {
    rest: &'a [Token],
    /// The last two tokens read, the later one last.
    before: Vec<&'a str>,
    /// Inline modules that are open, each with the depth of braces inside it.
    modules: Vec<(String, usize)>,
    depth: usize,
    found: Vec<Reference>,
}

impl<'a> Reader<'a> {
    /// Reads one token, or a whole path or `use` tree. False at the end.
    fn step(&mut self) -> bool {
        let Some(token) = self.rest.first() else { return false };
        match token.text.as_str() {
            "use" => self.whole_use(),
            "{" => self.open(),
            "}" => self.close(),
            _ if token.is_name() => self.path_in_code(),
            _ => drop(self.take()),
        }
        true
    }

    fn take(&mut self) -> Option<&'a Token> {
        let (token, rest) = self.rest.split_first()?;
        self.rest = rest;
        self.before.push(&token.text);
        if self.before.len() > 2 {
            self.before.remove(0);
        }
        Some(token)
    }

    fn takes(&mut self, text: &str) -> bool {
        let is_next = self.rest.first().is_some_and(|token| token.text == text);
        if is_next {
            self.take();
        }
        is_next
    }

    fn open(&mut self) {
        self.depth += 1;
        if let [.., "mod", name] = self.before.as_slice() {
            self.modules.push(((*name).to_owned(), self.depth));
        }
        self.take();
    }

    fn close(&mut self) {
        self.modules.pop_if(|(_, depth)| *depth == self.depth);
        self.depth = self.depth.saturating_sub(1);
        self.take();
    }

    /// `a::b::c` outside of a `use`. Generic arguments end it: what they name is read as paths of its own.
    fn path_in_code(&mut self) {
        let starts_outside = self.before.last() == Some(&"::");
        let follows_type = matches!(self.before.as_slice(), [">", "::"]);
        let (mut path, mut line) = (Vec::new(), 0);
        while let Some(token) = self.rest.first().filter(|token| token.is_name()) {
            self.take();
            if path.is_empty() {
                line = token.line;
            }
            path.push(token.text.clone());
            let goes_on = matches!(self.rest, [mark, next, ..] if mark.text == "::" && next.is_name());
            if !goes_on {
                break;
            }
            self.take();
        }
        // `<T as Trait>::name`: a name of the trait, whatever it is called.
        if path.len() > 1 && !follows_type {
            self.record(path, line, None, starts_outside);
        }
    }

    fn whole_use(&mut self) {
        self.take();
        let outside = self.takes("::");
        self.tree(&[], outside);
    }

    /// One branch of a `use` tree below `prefix`, up to its `,`, `}` or `;`.
    fn tree(&mut self, prefix: &[String], outside: bool) {
        let mut path = prefix.to_vec();
        while let Some(token) = self.take() {
            match token.text.as_str() {
                "{" => return self.branches(&path, outside),
                "*" => return self.record(path, token.line, None, outside),
                "self" if !path.is_empty() => {}
                _ if token.is_name() => path.push(token.text.clone()),
                // `impl Trait + use<'a>` is no import.
                _ => return,
            }
            if !self.takes("::") {
                let binds =
                    if self.takes("as") { self.take().map(|name| name.text.clone()) } else { path.last().cloned() };
                return self.record(path, token.line, binds, outside);
            }
        }
    }

    fn branches(&mut self, prefix: &[String], outside: bool) {
        while !self.takes("}") && !self.rest.is_empty() {
            self.tree(prefix, outside);
            self.takes(",");
        }
    }

    fn record(&mut self, path: Vec<String>, line: usize, binds: Option<String>, outside: bool) {
        let inside = self.modules.iter().map(|(name, _)| name.clone()).collect();
        self.found.push(Reference { path, line, inside, binds, outside });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(code: &str) -> Vec<String> {
        references(code).into_iter().map(|reference| reference.path.join("::")).collect()
    }

    #[test]
    fn a_use_tree_gives_each_of_its_branches() {
        let code = "use crate::{wire::run::{self, Run as Order}, sys};\npub(crate) use super::names::*;\nuse tokio;";
        assert_eq!(paths(code), ["crate::wire::run", "crate::wire::run::Run", "crate::sys", "super::names", "tokio"]);
        let names: Vec<_> = references(code).into_iter().map(|reference| reference.binds).collect();
        let names: Vec<_> = names.iter().map(Option::as_deref).collect();
        assert_eq!(names, [Some("run"), Some("Order"), Some("sys"), None, Some("tokio")]);
    }

    #[test]
    fn paths_are_found_in_types_attributes_macros_and_generic_arguments() {
        let code = "#[derive(thiserror::Error)] struct A(Vec<crate::wire::Name>);\n\
            fn f() -> Option<rustls::Error> { serde_json::json!(x); tokio::spawn(a::<net::B>()); }";
        let expected =
            ["thiserror::Error", "crate::wire::Name", "rustls::Error", "serde_json::json", "tokio::spawn", "net::B"];
        assert_eq!(paths(code), expected);
    }

    #[test]
    fn fields_methods_and_associated_names_are_no_paths() {
        assert_eq!(paths("self.time.get(); x.tokio(); <T as serde::Serialize>::time::x()"), ["serde::Serialize"]);
        assert_eq!(paths("let x: u8 = time; tokio();"), Vec::<String>::new());
    }

    #[test]
    fn a_leading_double_colon_names_a_crate() {
        let found = references("fn f() { ::tokio::spawn() } use ::time::Date;");
        assert!(found.iter().all(|reference| reference.outside));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn inline_modules_are_known_by_name_while_they_are_open() {
        let code = "mod tests { use super::a; mod deep { use super::b; } fn f() { x::y() } } use super::c;";
        let inside: Vec<_> = references(code).into_iter().map(|reference| reference.inside.join("/")).collect();
        assert_eq!(inside, ["tests", "tests/deep", "tests", ""]);
    }
}
