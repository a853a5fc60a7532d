//! Finds items in masked code by their braces: functions, and what only tests compile.

/// The attribute that keeps an item out of the product.
const TEST_ONLY: &str = "#[cfg(test)]";

/// A function with a body: the line of its `fn`, counted from 1, and how many lines it has.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// `masked` with every item under `#[cfg(test)]` blanked, its attribute too.
pub(crate) fn without_tests(masked: &str) -> String {
    let blank = |letter: char| if letter == '\n' { '\n' } else { ' ' };
    pieces(masked).into_iter().flat_map(|(before, item)| before.chars().chain(item.chars().map(blank))).collect()
}

/// How many lines the items under `#[cfg(test)]` take.
pub(crate) fn test_lines(masked: &str) -> usize {
    pieces(masked).into_iter().map(|(_, item)| item.lines().count()).sum()
}

/// `masked` cut into pairs: what the product compiles, and the item under `#[cfg(test)]` that follows it.
fn pieces(masked: &str) -> Vec<(&str, &str)> {
    let (mut pieces, mut rest) = (Vec::new(), masked);
    while let Some((before, from)) = rest.find(TEST_ONLY).and_then(|at| rest.split_at_checked(at)) {
        let (item, after) = from.split_at_checked(item_end(from)).unwrap_or((from, ""));
        pieces.push((before, item));
        rest = after;
    }
    pieces.push((rest, ""));
    pieces
}

/// Every function of `masked` that has a body.
pub(crate) fn functions(masked: &str) -> Vec<Function> {
    masked.match_indices("fn ").filter_map(|(at, word)| function(masked, at, at + word.len())).collect()
}

fn function(masked: &str, at: usize, after: usize) -> Option<Function> {
    let (before, rest) = (masked.get(..at)?, masked.get(after..)?);
    let name: String = rest.chars().take_while(|letter| is_word(*letter)).collect();
    if name.is_empty() || before.ends_with(is_word) {
        return None;
    }
    let text = rest.get(..item_end(rest))?;
    let lines = text.lines().count();
    text.ends_with('}').then(|| Function { name, line: before.matches('\n').count() + 1, lines })
}

/// The byte after an item that starts at the beginning of `text`: after its `;`, or after the `}` that closes its
/// first brace, whichever comes first outside of round and square brackets.
fn item_end(text: &str) -> usize {
    let (mut round, mut braces) = (0_i32, 0_i32);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        let ended = letter == '}' && braces <= 0 || letter == ';' && braces == 0;
        if ended && round <= 0 {
            return at + letter.len_utf8();
        }
    }
    text.len()
}

/// Whether `letter` can be part of an identifier.
pub(crate) fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_modules_and_single_test_items_are_blanked() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { if x {} }\n}\nfn c() {}\n";
        assert_eq!(without_tests(code).split_whitespace().collect::<Vec<_>>().join(" "), "fn a() {} fn c() {}");
        assert_eq!(without_tests(code).lines().count(), code.lines().count());
        assert_eq!(without_tests("#[cfg(test)]\nuse x;\nuse y;").trim(), "use y;");
        assert_eq!(without_tests("#[cfg(test)] fn f(a: [u8; 2]) -> u8 { 1 } z").trim(), "z");
    }

    #[test]
    fn functions_are_found_with_their_lines() {
        let code = "pub fn a(x: [u8; 2])\nwhere T: X {\n one\n}\nimpl Y { fn b(&self) {} }\ntype T = fn (u8);\n";
        let found: Vec<_> = functions(code).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".to_owned(), 1, 4), ("b".to_owned(), 5, 1)]);
    }

    #[test]
    fn a_function_without_a_body_is_not_counted() {
        assert_eq!(functions("trait X { fn a(&self); }").len(), 0);
    }
}
