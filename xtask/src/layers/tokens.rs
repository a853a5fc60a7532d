//! Cuts masked code into the words and marks that paths are made of.

use crate::code::blocks::is_word;

/// An identifier, `::`, or a single mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
}

impl Token {
    pub(super) fn is_name(&self) -> bool {
        self.text.starts_with(|letter: char| is_word(letter) && !letter.is_numeric())
    }
}

/// The tokens of `code`, which is masked. A raw identifier comes without its `r#`.
pub(super) fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            rest = rest.strip_prefix("r#").filter(|raw| raw.starts_with(is_word)).unwrap_or(rest);
            let length = match rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            let (token, after) = rest.split_at(length);
            found.push(Token { text: token.to_owned(), line });
            rest = after.trim_start();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_marks_are_told_apart_with_their_lines() {
        let found = tokens("use a::b_c;\n  x.r#type(<T>)");
        let texts: Vec<&str> = found.iter().map(|token| token.text.as_str()).collect();
        assert_eq!(texts, ["use", "a", "::", "b_c", ";", "x", ".", "type", "(", "<", "T", ">", ")"]);
        assert_eq!(found[5].line, 2);
    }

    #[test]
    fn numbers_are_not_names() {
        assert!(!tokens("1u8")[0].is_name());
        assert!(tokens("_a")[0].is_name());
    }
}
