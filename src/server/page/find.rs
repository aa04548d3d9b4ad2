//! Looking for words in a whole log, a bounded piece at a time.
//!
//! In what is shown of a line, not in its escapes; letters of either case are the same. Linear, and away from
//! the broker's thread: whoever asks is told where it stopped, and asks on from there.

use regex::bytes::{Regex, RegexBuilder};
use serde::Serialize;

use super::source::{LogLine, Source};
use super::terminal;
use super::window::blocking;
use crate::builds::log::{LogId, LogStatus};
use crate::server::convert;
use crate::server::http::problem::Refusal;

/// Characters that can be looked for.
pub const QUERY_CHARS_MAX: usize = 200;
/// Lines that one answer names.
const HITS_MAX: usize = 1_000;
/// Bytes that are looked through for one answer.
const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Lines read at once.
const LINES_AT_ONCE: u64 = 5_000;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Lines that have it.
    pub hits: Vec<u64>,
    /// Where to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Looks for a text from a line on.
///
/// # Errors
/// `invalid_params` where there is nothing to look for, or too much; what the log's source refuses with.
pub async fn find(source: &dyn Source, log: LogId, status: &LogStatus, q: &str, from: u64) -> Result<Found, Refusal> {
    let words = words(q)?;
    let mut found = Found::default();
    let mut next = from.max(1);
    let mut bytes = 0;
    while next <= status.lines {
        if found.hits.len() >= HITS_MAX || bytes >= BYTES_MAX {
            found.next = Some(next);
            break;
        }
        let lines = source.lines(log, next, LINES_AT_ONCE).await?;
        let Some(last) = lines.last() else { break };
        next = last.number + 1;
        let words = words.clone();
        let (mut hits, looked_at) = blocking(move || within(&words, &lines)).await;
        bytes += looked_at;
        found.hits.append(&mut hits);
        if found.hits.len() > HITS_MAX {
            // The rest is found again by whoever asks on.
            next = found.hits[HITS_MAX];
            found.hits.truncate(HITS_MAX);
        }
    }
    Ok(found)
}

/// What to look for, as an expression that has only these letters in it.
fn words(q: &str) -> Result<Regex, Refusal> {
    let length = q.chars().count();
    if length == 0 || length > QUERY_CHARS_MAX {
        return Err(Refusal(convert::invalid(format!("`q` must have 1 to {QUERY_CHARS_MAX} characters"))));
    }
    let built = RegexBuilder::new(&regex::escape(q)).case_insensitive(true).build();
    built.map_err(|_| Refusal(convert::invalid("`q` cannot be looked for")))
}

/// The lines with it, and how many bytes that were.
fn within(words: &Regex, lines: &[LogLine]) -> (Vec<u64>, u64) {
    let has = |line: &&LogLine| {
        // Most lines show what they are.
        let shows_itself = !line.bytes.iter().any(|byte| *byte < 0x20);
        if shows_itself { words.is_match(&line.bytes) } else { words.is_match(terminal::text(&line.bytes).as_bytes()) }
    };
    let hits = lines.iter().filter(has).map(|line| line.number).collect();
    (hits, lines.iter().map(|line| line.bytes.len() as u64 + 1).sum())
}
