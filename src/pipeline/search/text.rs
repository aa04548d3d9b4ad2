//! What a line says to a search: without colours, in lower case, in words.
//!
//! The index and the scanner both read lines through this, so that the index never leaves out a line that
//! the scanner would take. Words are runs of letters and digits of any script; all else separates them, also
//! `_`: whoever looks for `login` finds `test_login`.

use std::borrow::Cow;

/// Bytes of a line that are searched. What stands behind is in the log, and found by nobody.
pub const LINE_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a word that the index tells apart.
pub const WORD_BYTES_MAX: usize = 64;

const ESCAPE: u8 = 0x1B;
const BELL: u8 = 0x07;

/// The line as people read it: its first [`LINE_BYTES_MAX`] bytes, without escape sequences and with other
/// control characters as spaces. What is no UTF-8 is replaced.
pub fn shown(line: &[u8]) -> Cow<'_, str> {
    let line = &line[..line.len().min(LINE_BYTES_MAX)];
    let text = if line.contains(&ESCAPE) {
        Cow::Owned(String::from_utf8_lossy(&without_escapes(line)).into_owned())
    } else {
        String::from_utf8_lossy(line)
    };
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        Cow::Owned(text.chars().map(|char| if char.is_ascii_control() { ' ' } else { char }).collect())
    } else {
        text
    }
}

/// Takes out what a terminal does not show: `ESC [ ... letter`, `ESC ] ... BEL` (or `ESC \`), and shorter
/// ones. One that the line's end cuts off goes up to there.
fn without_escapes(line: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = memchr::memchr(ESCAPE, rest) {
        plain.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let length = match rest.first() {
            // Parameters and intermediates, then one byte that ends it.
            Some(b'[') => rest[1..].iter().position(|byte| (0x40..=0x7E).contains(byte)).map(|end| end + 2),
            // A text, up to its terminator.
            Some(b']' | b'P' | b'X' | b'^' | b'_') => {
                let end = rest.iter().position(|byte| matches!(*byte, BELL | ESCAPE));
                end.map(|end| if rest[end] == ESCAPE { (end + 2).min(rest.len()) } else { end + 1 })
            }
            Some(_) => rest.iter().position(|byte| (0x30..=0x7E).contains(byte)).map(|end| end + 1),
            None => None,
        };
        rest = &rest[length.unwrap_or(rest.len())..];
    }
    plain.extend_from_slice(rest);
    plain
}

/// The same text whatever its case. Each character by itself, so that a part of a text folds to a part of it.
pub fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}

/// Whether a character is of a word.
pub fn is_of_word(char: char) -> bool {
    char.is_alphanumeric()
}

/// The words of a folded text, each as far as the index tells it apart.
pub fn words(folded: &str) -> impl Iterator<Item = &str> {
    folded.split(|char| !is_of_word(char)).filter(|word| !word.is_empty()).map(|word| {
        let mut end = word.len().min(WORD_BYTES_MAX);
        while !word.is_char_boundary(end) {
            end -= 1;
        }
        &word[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_does_not_show_is_not_searched() {
        for (line, read) in [
            (&b"\x1b[31mer\x1b[1;4mror\x1b[0m: no"[..], "error: no"),
            (b"\x1b]8;;http://x/\x07link\x1b]8;;\x1b\\ed", "linked"),
            (b"\x1b(Bplain\x1b7", "plain"),
            (b"10%\r20%\tdone\x00", "10% 20% done "),
            (b"cut \x1b[38;5", "cut "),
            (b"cut \x1b]0;title", "cut "),
            (b"cut \x1b", "cut "),
            ("gr\u{fc}n \u{85}\n".as_bytes(), "gr\u{fc}n \u{85} "),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(shown(line), read, "{line:?}");
        }
        assert_eq!(shown(&vec![b'x'; 2 * LINE_BYTES_MAX]).len(), LINE_BYTES_MAX);
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        let of = |text: &str| words(&folded(text)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            of("Test_login FAILED: E0308 (foo-bar.rs:12)"),
            ["test", "login", "failed", "e0308", "foo", "bar", "rs", "12"]
        );
        assert_eq!(of("Straße ΟΔΟΣ 日本語"), ["straße", "οδοσ", "日本語"]);
        assert_eq!(of("-- == ~~"), Vec::<String>::new());
        let long = of(&"é".repeat(100));
        assert_eq!(long, ["é".repeat(WORD_BYTES_MAX / 2)]);
    }
}
