//! The nearest spelling of a word that nobody knows, for "did you mean".
//!
//! Owns one small distance and nothing else. It only ever helps an error message; nothing is
//! accepted because it was nearly right.

/// The candidate that `word` was probably meant to be, or none when nothing comes near.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // A third of the word may be wrong: more, and the guess is worse than none.
    let wrong_max = (word.chars().count().min(60) / 3).clamp(1, 4);
    candidates
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(wrong, _)| *wrong <= wrong_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, left out, exchanged, or swapped with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let exchanged = above[column] + usize::from(a != b);
            let mut best = exchanged.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn one_slip_is_found_and_a_stranger_is_not() {
        let known = ["name", "pool", "labels", "properties", "slots"];
        for (word, meant) in [
            ("lables", Some("labels")),
            ("label", Some("labels")),
            ("nmae", Some("name")),
            ("propertys", Some("properties")),
            ("slot", Some("slots")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }
}
