//! Secrets in what a build prints: each is replaced by three stars before anything of it is stored or sent.
//!
//! What counts as a secret is itself, trimmed, each of its lines, and its base64 at each of the three
//! places where it can begin in a longer text, as far as its neighbours have no part in it (encoded from
//! the start also as `base64` wraps it). Nothing shorter than four bytes does, and neither do `true` and
//! `false`: they would make a log unreadable and hide nothing.
//!
//! A fixed word and not as many stars as the secret is long: how long it is is nobody's business either.
//! Secrets that touch or overlap become one word.
//!
//! Output comes in pieces, and a secret may be cut anywhere. What could be the beginning of one at the end
//! of a piece is kept back until more comes, and nothing else is: a prompt without a line feed shows at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands for a secret.
pub const MASK: &[u8] = b"***";
/// Bytes of the shortest secret that is masked.
const SECRET_BYTES_MIN: usize = 4;
/// Bytes of a line of `base64`, which wraps what it encodes.
const BASE64_LINE: usize = 76;
/// Bytes of all patterns up to which they are searched by the fastest and largest of automata.
const PATTERN_BYTES_FAST: usize = 8 * 1024;

/// Takes secrets out of a stream of bytes.
pub struct Masker {
    search: Option<Arc<Search>>,
    /// What may be the beginning of a secret, from the piece before.
    held: Vec<u8>,
    /// How much of the beginning of `held` belongs to a secret that ends in it.
    covered: usize,
    /// Whether what was let go last was a secret's.
    in_secret: bool,
}

struct Search {
    /// Answers quickly whether there is anything to do.
    any: AhoCorasick,
    /// Finds all, also within one another.
    all: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    /// Which bytes patterns begin with.
    begins: [bool; 256],
    longest: usize,
}

impl Masker {
    /// For these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = patterns(secrets);
        Self { search: Search::new(patterns).map(Arc::new), held: Vec::new(), covered: 0, in_secret: false }
    }

    /// One for another stream, of the same secrets.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { search: self.search.clone(), held: Vec::new(), covered: 0, in_secret: false }
    }

    /// Takes a piece in; hands on what may be shown.
    pub fn feed<E>(&mut self, bytes: &[u8], mut show: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(search) = &self.search else { return show(bytes) };
        if self.held.is_empty() {
            let keep = search.possible_beginning(bytes);
            if !search.any.is_match(bytes) {
                self.in_secret &= keep == 0;
                self.held.extend_from_slice(&bytes[keep..]);
                return if keep == 0 { Ok(()) } else { show(&bytes[..keep]) };
            }
            return self.let_go(bytes, keep, &mut show);
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(bytes);
        let keep = search.possible_beginning(&joined);
        self.let_go(&joined, keep, &mut show)
    }

    /// The output pauses or ends: what was kept back is no secret's beginning after all.
    pub fn flush<E>(&mut self, mut show: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let held = std::mem::take(&mut self.held);
        self.let_go(&held, held.len(), &mut show)?;
        self.in_secret = false;
        Ok(())
    }

    /// Hands on the first `keep` bytes, secrets masked, and keeps the rest.
    fn let_go<E>(&mut self, bytes: &[u8], keep: usize, show: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let secret = self.search.as_ref().map(|search| search.covered(bytes, self.covered)).unwrap_or_default();
        self.covered = 0;
        self.held.extend_from_slice(&bytes[keep..]);
        let mut shown = 0;
        for (start, end) in secret {
            if start <= keep && keep < end {
                // Its beginning is not seen again: that the rest belongs to it is remembered.
                self.covered = end - keep;
            }
            if start >= keep {
                break;
            }
            if start > shown {
                show(&bytes[shown..start])?;
                self.in_secret = false;
            }
            if !self.in_secret {
                show(MASK)?;
                self.in_secret = true;
            }
            shown = end.min(keep);
        }
        if shown < keep {
            show(&bytes[shown..keep])?;
            self.in_secret = false;
        }
        Ok(())
    }
}

impl Search {
    fn new(patterns: Vec<Vec<u8>>) -> Option<Self> {
        let bytes: usize = patterns.iter().map(Vec::len).sum();
        // The fast ones take memory by the byte and by the letter; these are for a handful of tokens.
        let kind = if bytes <= PATTERN_BYTES_FAST { None } else { Some(AhoCorasickKind::ContiguousNFA) };
        let build = |how: MatchKind| AhoCorasick::builder().match_kind(how).kind(kind).build(&patterns);
        // Fails only beyond two thousand million states, which no configuration holds.
        let (any, all) = (build(MatchKind::LeftmostFirst).ok()?, build(MatchKind::Standard).ok()?);
        let mut begins = [false; 256];
        for pattern in &patterns {
            begins[usize::from(pattern[0])] = true;
        }
        let longest = patterns.iter().map(Vec::len).max()?;
        Some(Self { any, all, patterns, begins, longest })
    }

    /// Where the longest end of `bytes` begins that is the beginning of a pattern, and not all of it.
    fn possible_beginning(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest - 1);
        let begins = |at: &usize| {
            let rest = &bytes[*at..];
            self.begins[usize::from(rest[0])]
                && self.patterns.iter().any(|pattern| pattern.len() > rest.len() && pattern.starts_with(rest))
        };
        (from..bytes.len()).find(begins).unwrap_or(bytes.len())
    }

    /// What belongs to secrets, in order, none touching the next; the first `already` bytes do.
    fn covered(&self, bytes: &[u8], already: usize) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        let first = (already > 0).then_some((0, already));
        let matches = self.all.find_overlapping_iter(bytes).map(|found| (found.start(), found.end()));
        // By their ends, but for the first, which may end later than some of them.
        for (mut start, mut end) in first.into_iter().chain(matches) {
            while let Some((before, until)) = found.pop_if(|(_, until)| *until >= start) {
                start = start.min(before);
                end = end.max(until);
            }
            found.push((start, end));
        }
        found
    }
}

/// All that is looked for.
fn patterns<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Vec<Vec<u8>> {
    let mut found = BTreeSet::new();
    for secret in secrets {
        for text in [secret, secret.trim()].into_iter().chain(secret.lines().map(str::trim)) {
            if is_masked(text) {
                found.insert(text.as_bytes().to_vec());
                encoded(text.as_bytes(), &mut found);
            }
        }
    }
    found.into_iter().collect()
}

fn is_masked(text: &str) -> bool {
    text.trim().len() >= SECRET_BYTES_MIN && !matches!(text.trim(), "true" | "false")
}

/// Its base64, without the digits that what stands before or behind it has a part in.
fn encoded(secret: &[u8], found: &mut BTreeSet<Vec<u8>>) {
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for before in 0..3 {
            let mut text = vec![0_u8; before];
            text.extend_from_slice(secret);
            let digits = engine.encode(&text).into_bytes();
            // Six bits a digit: the first ones have bits of what is before, the last may have of what follows.
            let own = (before * 8).div_ceil(6)..text.len() * 8 / 6;
            if own.len() >= SECRET_BYTES_MIN {
                found.insert(digits[own.clone()].to_vec());
            }
            if before == 0 && own.len() > BASE64_LINE {
                let lines = digits[own].chunks(BASE64_LINE).filter(|line| line.len() >= SECRET_BYTES_MIN);
                found.extend(lines.map(<[u8]>::to_vec));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::{MASK, Masker, patterns};

    fn masked(secrets: &[&str], pieces: &[&[u8]]) -> Vec<u8> {
        let mut masker = Masker::new(secrets.iter().copied());
        let mut shown = Vec::new();
        let mut show = |bytes: &[u8]| {
            shown.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        };
        for piece in pieces {
            masker.feed(piece, &mut show).unwrap();
        }
        masker.flush(&mut show).unwrap();
        shown
    }

    fn masked_text(secrets: &[&str], text: &str) -> String {
        String::from_utf8(masked(secrets, &[text.as_bytes()])).unwrap()
    }

    /// The same, looking at every place for every pattern.
    fn naively(secrets: &[&str], text: &[u8]) -> Vec<u8> {
        let mut secret = vec![false; text.len()];
        for pattern in patterns(secrets.iter().copied()) {
            for start in 0..text.len() {
                if text[start..].starts_with(&pattern) {
                    secret[start..start + pattern.len()].fill(true);
                }
            }
        }
        let mut shown = Vec::new();
        for (at, byte) in text.iter().enumerate() {
            if !secret[at] {
                shown.push(*byte);
            } else if at == 0 || !secret[at - 1] {
                shown.extend_from_slice(MASK);
            }
        }
        shown
    }

    #[test]
    fn secrets_are_masked_as_they_are_trimmed_by_lines_and_encoded() {
        assert_eq!(masked_text(&["hunter22"], "the word is hunter22, really"), "the word is ***, really");
        assert_eq!(masked_text(&[" hunter22\n"], "hunter22"), "***");
        assert_eq!(masked_text(&["first line\nsecond line\n"], "a second line b"), "a *** b");
        for before in ["", "x", "xy"] {
            for after in ["", "z", "zz"] {
                let encoded = STANDARD.encode(format!("{before}hunter2-and-more{after}"));
                let shown = masked_text(&["hunter2-and-more"], &encoded);
                assert!(
                    shown.contains("***") && shown.len() <= 3 + 4 + 4,
                    "{before:?} {after:?}: {encoded} -> {shown}"
                );
            }
        }
        let long = "0123456789abcdefghijklmnopqrstuvwxyz".repeat(5);
        let wrapped: Vec<String> =
            STANDARD.encode(&long).as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into()).collect();
        assert_eq!(masked_text(&[&long], &wrapped.join("\n")), "***\n***\n***\n***");
    }

    #[test]
    fn short_and_common_words_are_not() {
        let text = "true false abc yes";
        assert_eq!(masked_text(&["true", "false", "abc", "", " a ", "y\ne\ns"], text), text);
    }

    #[test]
    fn neither_length_nor_number_shows() {
        assert_eq!(masked_text(&["hunter22"], "hunter22hunter22"), "***");
        assert_eq!(masked_text(&["abcdef", "defghi"], "xabcdefghix"), "x***x");
    }

    #[test]
    fn only_what_may_begin_a_secret_is_kept_back() {
        let mut masker = Masker::new(["hunter22"]);
        let mut told = Vec::new();
        let mut feed = |masker: &mut Masker, piece: &[u8]| {
            let mut shown = Vec::new();
            let done = masker.feed(piece, |bytes| {
                shown.extend_from_slice(bytes);
                Ok::<(), Infallible>(())
            });
            done.unwrap();
            told.push(String::from_utf8(shown).unwrap());
        };
        for piece in ["Password: ", "try hunt", "er", "y ", "hunter2", "2"] {
            feed(&mut masker, piece.as_bytes());
        }
        assert_eq!(told, ["Password: ", "try ", "", "huntery ", "", "***"]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            secrets in prop::collection::vec("[ab]{4,7}|[ab\n]{6,12}", 0..4),
            text in "[ab\nYWJi]{0,80}",
            planted in prop::collection::vec((0_usize..4, 0_usize..80), 0..4),
            cuts in prop::collection::vec(0_usize..120, 0..12),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut text = text.into_bytes();
            for (secret, at) in planted {
                if let Some(secret) = secrets.get(secret) {
                    let at = at.min(text.len());
                    text.splice(at..at, secret.bytes());
                }
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let shown = masked(&secrets, &pieces);
            let expected = naively(&secrets, &text);
            prop_assert_eq!(String::from_utf8_lossy(&shown), String::from_utf8_lossy(&expected));
        }
    }
}
