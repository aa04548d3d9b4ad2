//! The nearest spelling: what somebody meant who wrote a name that does not exist.
//!
//! Only for suggestions in messages; nothing is ever decided by it.

/// The candidate that `word` is most likely a misspelling of, or `None` when none comes near:
/// at most a third of the longer word's letters may differ, and always one. A swap of two
/// neighbours counts as one difference, case as none. The first of equals wins.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = word.to_lowercase().chars().take(LETTERS_MAX).collect();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let letters: Vec<char> = candidate.to_lowercase().chars().take(LETTERS_MAX).collect();
        let allowed = (wanted.len().max(letters.len()) / 3).max(1);
        if wanted.len().abs_diff(letters.len()) > allowed {
            continue;
        }
        let distance = distance(&wanted, &letters);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Longer words are compared by their beginning only, as the work grows with the square.
const LETTERS_MAX: usize = 128;

/// Insertions, deletions, replacements and swaps of neighbours that make `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(x != y);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row[j + 1] = least;
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let candidates = ["os", "api", "site", "vendor", "screen-size"];
        for (word, expected) in [
            ("os", Some("os")),
            ("oss", Some("os")),
            ("aip", Some("api")),
            ("API", Some("api")),
            ("sit", Some("site")),
            ("vender", Some("vendor")),
            ("screen_size", Some("screen-size")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, candidates), expected, "{word:?}");
        }
    }

    #[test]
    fn the_first_of_equals_wins_and_no_candidates_give_none() {
        assert_eq!(nearest("ab", ["ac", "ad"]), Some("ac"));
        assert_eq!(nearest("ab", []), None);
    }
}
