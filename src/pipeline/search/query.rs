//! What is looked for: words, "phrases" and beginnings*, all of them in one line.
//!
//! A term is looked for as it stands, whatever its case, and where it begins or ends with a letter or digit,
//! nothing of a word may stand before or behind it. So nothing in it has a meaning of its own but the quotes
//! around a phrase and the star at an end.

use std::collections::BTreeSet;

use super::text::{folded, is_of_word, words};
use crate::store::builds::search::Word;

/// Bytes of a query.
pub const QUERY_BYTES_MAX: usize = 500;
/// Terms of a query.
const TERMS_MAX: usize = 16;
/// Letters before a star: fewer begin half of all words.
const BEGINNING_CHARS_MIN: usize = 3;

/// A query that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    /// Folded.
    text: String,
    /// Whether a word may go on behind it.
    open: bool,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(format!("the query has {} bytes, and at most {QUERY_BYTES_MAX} are looked for", text.len()));
        }
        let terms = terms(text);
        if terms.len() > TERMS_MAX {
            return Err(format!("the query has {} terms, and at most {TERMS_MAX} are looked for", terms.len()));
        }
        for term in terms.iter().filter(|term| term.open) {
            let last = term.text.chars().rev().take_while(|char| is_of_word(*char)).count();
            if last < BEGINNING_CHARS_MIN {
                let text = &term.text;
                return Err(format!("{text}*: at least {BEGINNING_CHARS_MIN} letters or digits stand before a *"));
            }
        }
        let query = Self { terms };
        if query.words().is_empty() {
            return Err("a query has at least one word, of letters or digits".to_owned());
        }
        Ok(query)
    }

    /// Words that every line has that is found.
    pub fn words(&self) -> BTreeSet<Word> {
        let mut all = BTreeSet::new();
        for term in &self.terms {
            let mut of_term: Vec<Word> =
                words(&term.text).map(|text| Word { text: text.to_owned(), begins: false }).collect();
            if let Some(last) = of_term.last_mut() {
                last.begins = term.open;
            }
            all.extend(of_term);
        }
        all
    }

    /// Where the first term stands in a folded line, if the line has all of them.
    pub fn finds(&self, line: &str) -> Option<usize> {
        let mut places = self.terms.iter().map(|term| term.stands_in(line));
        let first = places.next()??;
        places.all(|place| place.is_some()).then_some(first)
    }
}

impl Term {
    fn stands_in(&self, line: &str) -> Option<usize> {
        let bound = |inner: Option<char>, outer: Option<char>| {
            !(inner.is_some_and(is_of_word) && outer.is_some_and(is_of_word))
        };
        let finder = memchr::memmem::Finder::new(self.text.as_bytes());
        // Overlapping places are tried too: the first may be bound to a word, and the next not.
        let mut from = 0;
        while let Some(at) = finder.find(line.as_bytes().get(from..)?).map(|at| from + at) {
            let (before, behind) = (&line[..at], &line[at + self.text.len()..]);
            if bound(self.text.chars().next(), before.chars().next_back())
                && (self.open || bound(self.text.chars().next_back(), behind.chars().next()))
            {
                return Some(at);
            }
            from = at + self.text.chars().next().map_or(1, char::len_utf8);
        }
        None
    }
}

/// Takes a query apart: at white space, but for what stands in quotes. A quote that is not closed goes to the
/// end.
fn terms(text: &str) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (inner, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find(|char: char| char.is_whitespace() || char == '"').unwrap_or(rest.len())),
        };
        let quoted = rest.starts_with('"');
        let (inner, open, behind) = match (quoted, behind.strip_prefix('*'), inner.strip_suffix('*')) {
            (true, Some(behind), _) => (inner, true, behind),
            (false, _, Some(inner)) => (inner, true, behind),
            _ => (inner, false, behind),
        };
        if !inner.is_empty() {
            terms.push(Term { text: folded(inner), open });
        }
        rest = behind.trim_start();
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(query: &str, line: &str) -> bool {
        Query::parse(query).unwrap().finds(&folded(line)).is_some()
    }

    #[test]
    fn all_terms_are_in_the_line_as_whole_words() {
        let line = "2026-01-02 ERROR: test_login_fails: Connection refused (os error 111)";
        for query in [
            "error",
            "Login",
            "refused error 111",
            "test_login_fails",
            "\"connection refused\"",
            "\"connection ref\"*",
            "conn*",
            "error: refused",
            "2026-01",
            "(os",
            "\"OS error",
            "err* log*",
        ] {
            assert!(found(query, line), "{query}");
        }
        for query in ["err", "log", "onnection", "\"refused connection\"", "error missing", "\"connection ref\"", "11"]
        {
            assert!(!found(query, line), "{query}");
        }
        assert!(found("aba", "xababa aba"), "the first places are within a word");
        assert!(found("straße", "STRASSE Straße"));
        assert!(found("AND", "x and y") && !found("a OR b", "a"), "there are no operators");
    }

    #[test]
    fn every_line_that_is_found_has_the_words_that_narrow() {
        for (query, line) in [
            ("foo-bar", "a foo-bar b"),
            ("\"x yes\"* z", "z x yesterday"),
            ("a::b", "a::b"),
            (&format!("{}*", "q".repeat(80)), &"q".repeat(100)),
            (&"q".repeat(80), &"q".repeat(80)),
            ("-v", "make -v"),
        ] {
            let parsed = Query::parse(query).unwrap();
            let line = folded(line);
            assert!(parsed.finds(&line).is_some(), "{query}");
            let of_line: Vec<&str> = words(&line).collect();
            for word in parsed.words() {
                let has = |text: &&str| if word.begins { text.starts_with(&*word.text) } else { **text == *word.text };
                assert!(of_line.iter().any(has), "{query}: {word:?}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (query, said) in [
            ("", "at least one word"),
            ("  \"\" -- ==", "at least one word"),
            ("ab*", "at least 3 letters"),
            ("*", "at least one word"),
            ("foo -*", "at least 3 letters"),
            (&"x ".repeat(200), "200 terms"),
            (&"x".repeat(600), "600 bytes"),
        ] {
            let refused = Query::parse(query).unwrap_err();
            assert!(refused.contains(said), "{query}: {refused}");
        }
    }
}
