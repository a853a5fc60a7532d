//! Blanks what is not code, so that a search for a word or a brace finds code alone.
//!
//! Every blanked character becomes one space and line ends stay, so positions keep their line.

use std::iter::Peekable;
use std::str::Chars;

/// `text` with comments, and the insides of string and character literals, blanked.
pub(crate) fn mask(text: &str) -> String {
    let mut masker =
        Masker { rest: text.chars().peekable(), out: String::with_capacity(text.len()), word: String::new() };
    while masker.step() {}
    masker.out
}

struct Masker<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// The identifier that ends here; `r`, `b`, `br`, `c` and `cr` make a literal of what follows.
    word: String,
}

impl Masker<'_> {
    /// Handles one lexical element. False at the end.
    fn step(&mut self) -> bool {
        let Some(letter) = self.rest.next() else { return false };
        let word = std::mem::take(&mut self.word);
        match (letter, self.rest.peek()) {
            ('/', Some('/')) => self.line_comment(),
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.string(word.contains('r') && is_prefix(&word), 0),
            ('#', Some('"' | '#')) if is_prefix(&word) && word.contains('r') => self.raw_string(),
            ('\'', _) => self.quote(),
            _ => {
                self.out.push(letter);
                if letter == '_' || letter.is_alphanumeric() {
                    self.word = word;
                    self.word.push(letter);
                }
            }
        }
        true
    }

    fn blank(&mut self, letter: char) {
        self.out.push(if letter == '\n' { '\n' } else { ' ' });
    }

    fn line_comment(&mut self) {
        self.blank('/');
        while let Some(letter) = self.rest.next_if(|letter| *letter != '\n') {
            self.blank(letter);
        }
    }

    /// Block comments nest.
    fn block_comment(&mut self) {
        self.blank('/');
        let (mut depth, mut before) = (0_usize, '/');
        while let Some(letter) = self.rest.next() {
            self.blank(letter);
            match (before, letter) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth = depth.saturating_sub(1),
                _ => {
                    before = letter;
                    continue;
                }
            }
            if depth == 0 {
                return;
            }
            // A star or slash belongs to one mark only.
            before = ' ';
        }
    }

    /// After `r` or its like and one `#`: counts the hashes, or leaves a raw identifier alone.
    fn raw_string(&mut self) {
        self.out.push('#');
        let mut hashes = 1;
        while self.rest.next_if_eq(&'#').is_some() {
            self.out.push('#');
            hashes += 1;
        }
        if self.rest.next_if_eq(&'"').is_some() {
            self.string(true, hashes);
        }
    }

    /// After the opening quote, up to the closing one, which `hashes` hashes must follow.
    fn string(&mut self, raw: bool, hashes: usize) {
        self.out.push('"');
        while let Some(letter) = self.rest.next() {
            if letter == '"' && self.closes(hashes) {
                return;
            }
            self.blank(letter);
            if letter == '\\' && !raw {
                self.rest.next().into_iter().for_each(|escaped| self.blank(escaped));
            }
        }
    }

    /// After a quote inside a literal: takes the hashes that close it, if they are all there.
    fn closes(&mut self, hashes: usize) -> bool {
        let there = self.rest.clone().take(hashes).filter(|letter| *letter == '#').count();
        if there < hashes {
            return false;
        }
        self.out.push('"');
        self.rest.by_ref().take(hashes).for_each(|letter| self.out.push(letter));
        true
    }

    /// After a single quote: a character literal, or a lifetime, which is code.
    fn quote(&mut self) {
        self.out.push('\'');
        let mut ahead = self.rest.clone();
        let (first, second) = (ahead.next(), ahead.next());
        if first != Some('\\') && second != Some('\'') {
            return;
        }
        let mut escaped = false;
        while let Some(letter) = self.rest.next() {
            if letter == '\'' && !escaped {
                self.out.push('\'');
                return;
            }
            escaped = letter == '\\' && !escaped;
            self.blank(letter);
        }
    }
}

fn is_prefix(word: &str) -> bool {
    matches!(word, "r" | "b" | "br" | "c" | "cr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_blanked_and_lines_stay() {
        assert_eq!(mask("a // b\nc"), "a     \nc");
        assert_eq!(mask("a /* b\n /* c */ */ d"), "a     \n            d");
        assert_eq!(mask("/*/ x */y"), "        y");
    }

    #[test]
    fn strings_are_blanked_with_their_escapes() {
        assert_eq!(mask(r#"f("a\"b") + 'x'"#), r#"f("    ") + ' '"#);
        assert_eq!(mask(r#"b"{" c"{""#), r#"b" " c" ""#);
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        assert_eq!(mask("r#\"a \"{ b\"# }"), "r#\"      \"# }");
        assert_eq!(mask(r#"r"\" }"#), r#"r" " }"#);
        assert_eq!(mask("r#type"), "r#type");
    }

    #[test]
    fn lifetimes_stay_and_character_literals_go() {
        assert_eq!(mask("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert_eq!(mask(r"('{', '\'', '\u{1f}', '_')"), r"(' ', '  ', '      ', ' ')");
        assert_eq!(mask("'outer: loop { break 'outer; }"), "'outer: loop { break 'outer; }");
    }
}
