//! The known word nearest to one that is not known.

/// Longer words are not compared: they are no misspelling, and the distance costs the product of both lengths.
const LONGEST: usize = 64;
/// Shorter words are no beginning of another.
const SHORTEST: usize = 3;

/// The candidate with the smallest edit distance to `word`, if it is near enough to be what was meant: at most a
/// third of the word's length, but never less than one edit. Case and the difference of `-` and `_` cost nothing.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > LONGEST {
        return None;
    }
    let wanted = folded(word);
    let reach = (wanted.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &folded(candidate)), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The one candidate that begins with `word`, which may be a word that was not written to its end; else the [`nearest`].
pub(super) fn likely<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str> + Clone) -> Option<&'c str> {
    let wanted = folded(word);
    let longer = |candidate: &&str| wanted.len() >= SHORTEST && folded(candidate).starts_with(&wanted);
    let mut begun = candidates.clone().into_iter().filter(longer);
    match (begun.next(), begun.next()) {
        (Some(one), None) => Some(one),
        _ => nearest(word, candidates),
    }
}

fn folded(word: &str) -> Vec<char> {
    word.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Edit distance where two swapped neighbours count once (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut previous_left = None;
    for (row, l) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut previous_right = None;
        for (column, r) in right.iter().enumerate() {
            let cell = |line: &[usize], at: usize| line.get(at).copied().unwrap_or(usize::MAX - 1);
            let replaced = cell(&above, column) + usize::from(l != r);
            let mut best = replaced.min(cell(&above, column + 1) + 1).min(cell(&current, column) + 1);
            if column > 0 && previous_left == Some(r) && previous_right == Some(l) {
                best = best.min(cell(&before, column - 1) + 1);
            }
            current.push(best);
            previous_right = Some(r);
        }
        before = std::mem::replace(&mut above, current);
        previous_left = Some(l);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far(left: &str, right: &str) -> usize {
        distance(&folded(left), &folded(right))
    }

    #[test]
    fn one_slip_of_each_kind_is_one_edit() {
        assert_eq!(far("port", "port"), 0);
        assert_eq!(far("prot", "port"), 1);
        assert_eq!(far("por", "port"), 1);
        assert_eq!(far("portt", "port"), 1);
        assert_eq!(far("pont", "port"), 1);
        assert_eq!(far("", "port"), 4);
        assert_eq!(far("port", ""), 4);
        assert_eq!(far("kitten", "sitting"), 3);
    }

    #[test]
    fn the_nearest_word_is_named_and_a_far_one_is_not() {
        let known = ["port", "cert", "script_dirs", "rate_limit_volume", "rate_limit_probe"];
        assert_eq!(nearest("prot", known), Some("port"));
        assert_eq!(nearest("script-dirs", known), Some("script_dirs"));
        assert_eq!(nearest("Cert", known), Some("cert"));
        assert_eq!(nearest("rate_limit_volum", known), Some("rate_limit_volume"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest(&"port".repeat(1000), known), None);
    }

    #[test]
    fn the_one_word_that_goes_on_is_likelier_than_one_that_is_near() {
        let known = ["CAP_SETGID", "CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN"];
        assert_eq!(nearest("CAP_NET_BIND", known), Some("CAP_SETGID"));
        assert_eq!(likely("CAP_NET_BIND", known), Some("CAP_NET_BIND_SERVICE"));
        assert_eq!(likely("cap-net-bind", known), Some("CAP_NET_BIND_SERVICE"));
        assert_eq!(likely("CAP_SETGIT", known), Some("CAP_SETGID"));
        assert_eq!((likely("CAP_NET", known), likely("", known), likely("everything", known)), (None, None, None));
    }
}
