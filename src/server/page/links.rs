//! Which URLs of a log may be followed, and where they stand in a line.
//!
//! By allow-list: `http`, `https`, `mailto`, in plain ASCII without anything that could end an
//! attribute or that two readers of a URL take differently. Everything else stays text.

use std::ops::Range;

/// Bytes of a URL; the parser of escapes cuts what is longer, and a cut URL leads elsewhere.
const URL_BYTES_MAX: usize = 1_000;
/// What may be linked.
const SCHEMES: [&str; 3] = ["http://", "https://", "mailto:"];

/// The URL as text, if it may be linked.
#[must_use]
pub fn allowed(url: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(url).ok()?;
    let begins = |scheme: &&str| {
        text.len() > scheme.len() && text.as_bytes()[..scheme.len()].eq_ignore_ascii_case(scheme.as_bytes())
    };
    let sound = text.len() <= URL_BYTES_MAX && text.chars().all(is_url_char);
    (sound && SCHEMES.iter().any(begins)).then_some(text)
}

/// The next URL that stands bare in a line of `length` characters, from `at`. `char_at` answers a
/// space for what cannot be part of one. Without the full stop or bracket that ends a sentence.
pub fn next_bare(length: usize, at: usize, char_at: impl Fn(usize) -> char) -> Option<Range<usize>> {
    let begins = |at: usize, scheme: &str| {
        at + scheme.len() < length && scheme.chars().enumerate().all(|(offset, char)| char_at(at + offset) == char)
    };
    let mut at = at;
    while at < length {
        let is_start = char_at(at) == 'h' && !(at > 0 && char_at(at - 1).is_alphanumeric());
        let Some(scheme) = SCHEMES[..2].iter().find(|scheme| is_start && begins(at, scheme)) else {
            at += 1;
            continue;
        };
        let end = (at..length).find(|column| !is_url_char(char_at(*column))).unwrap_or(length);
        let trimmed = trim(at..end, &char_at);
        if trimmed > at + scheme.len() && trimmed - at <= URL_BYTES_MAX {
            return Some(at..trimmed);
        }
        at = end;
    }
    None
}

/// Where a URL ends when what belongs to the sentence around it is taken off.
fn trim(found: Range<usize>, char_at: &impl Fn(usize) -> char) -> usize {
    let count = |wanted: char| found.clone().filter(|column| char_at(*column) == wanted).count();
    let mut unopened = [(')', count(')').saturating_sub(count('('))), (']', count(']').saturating_sub(count('[')))];
    let mut end = found.end;
    while end > found.start {
        match char_at(end - 1) {
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '*' | '_' | '~' => {}
            closing => match unopened.iter_mut().find(|(char, spare)| *char == closing && *spare > 0) {
                Some((_, spare)) => *spare -= 1,
                None => break,
            },
        }
        end -= 1;
    }
    end
}

/// What a URL is spelled with. Without `<>"` and the backslash, that browsers read as a slash.
const fn is_url_char(char: char) -> bool {
    char.is_ascii_graphic() && !matches!(char, '<' | '>' | '"' | '`' | '{' | '}' | '|' | '\\' | '^')
}

#[cfg(test)]
mod tests {
    use super::{allowed, next_bare};

    #[test]
    fn only_harmless_urls_may_be_linked() {
        for url in ["http://a", "https://a.example/x?y=1&z=(2)#l", "HTTPS://A", "mailto:a@b.example", "http://a/;b"] {
            assert_eq!(allowed(url.as_bytes()), Some(url));
        }
        for url in [
            "",
            "http://",
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "java\tscript:alert(1)",
            " http://a",
            "http://a b",
            "http://a\"onmouseover=x",
            "http://a\\@b",
            "http:/a",
            "//a.example",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "http://\u{fc}",
            "http://a\u{0}",
        ] {
            assert_eq!(allowed(url.as_bytes()), None, "{url:?}");
        }
        let long = format!("http://{}", "a".repeat(1_000));
        assert_eq!(allowed(long.as_bytes()), None);
        assert_eq!(allowed(b"http://\xff"), None);
    }

    #[test]
    fn bare_urls_end_where_the_sentence_goes_on() {
        for (line, urls) in [
            ("see https://a.example/b.", &["https://a.example/b"] as &[_]),
            ("(https://a.example/b_(c))", &["https://a.example/b_(c)"]),
            ("[http://a] http://b, http://c?d=e!", &["http://a", "http://b", "http://c?d=e"]),
            ("http://a<script>", &["http://a"]),
            ("https:// http:// xhttp://a", &[]),
            ("'http://a'", &["http://a"]),
            ("http://a|b \u{fc}http://b \u{2192}http://c", &["http://a", "http://c"]),
        ] {
            let chars: Vec<char> = line.chars().collect();
            let mut found = Vec::new();
            let mut at = 0;
            while let Some(range) = next_bare(chars.len(), at, |column| chars[column]) {
                at = range.end;
                found.push(chars[range].iter().collect::<String>());
            }
            assert_eq!(found, urls, "{line}");
        }
    }
}
