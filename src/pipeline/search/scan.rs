//! The scanner: which lines of a piece have what is looked for. The one place where that is decided.

use tokio::task::spawn_blocking;

use super::query::Query;
use super::text::{folded, shown};
use crate::clock::{BootTime, boot_now};
use crate::pipeline::logs::{Line, LogError, Logs};
use crate::store::builds::search::PieceId;

/// Lines that are read at once.
const LINES_AT_ONCE: u64 = 4_096;
/// Characters of a line that are shown, of them before the first term.
const SHOWN_CHARS_MAX: usize = 300;
const SHOWN_BEFORE_MAX: usize = 80;

/// Lines to look through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) id: PieceId,
    pub(super) first_line: u64,
    pub(super) last_line: u64,
}

/// A line that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) number: u64,
    pub(super) at_ms: Option<u64>,
    pub(super) text: String,
}

/// What came of looking.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) span: Span,
    /// One more than was asked for says that there are more.
    pub(super) lines: Vec<Match>,
    /// The last line that was looked at. Before the span's last, it is either that more was found than was
    /// asked for, or that time was over.
    pub(super) until: u64,
}

/// Looks through the span for at most `max` lines and one more, while there is time: at least one part of it
/// in any case, so that whoever goes on gets on.
pub(super) async fn scan(
    logs: &Logs,
    query: &Query,
    span: Span,
    max: usize,
    deadline: BootTime,
) -> Result<Scanned, LogError> {
    let mut scanned = Scanned { span, lines: Vec::new(), until: span.first_line.saturating_sub(1) };
    while scanned.until < span.last_line && scanned.lines.len() <= max {
        let next = scanned.until + 1;
        let count = (span.last_line - scanned.until).min(LINES_AT_ONCE);
        let lines = logs.lines(span.id.log(), next, usize::try_from(count).unwrap_or(usize::MAX)).await?;
        let Some(last) = lines.last().map(|line| line.number) else {
            // The log is gone, or nothing is left of it behind here.
            scanned.until = span.last_line;
            break;
        };
        let (query, room) = (query.clone(), max + 1 - scanned.lines.len());
        let matching = spawn_blocking(move || matches(&query, &lines, span.last_line, room));
        let found =
            matching.await.map_err(|error| LogError::Damaged(format!("a log could not be scanned: {error}")))?;
        scanned.lines.extend(found);
        scanned.until = last.min(span.last_line);
        if boot_now() >= deadline {
            break;
        }
    }
    Ok(scanned)
}

fn matches(query: &Query, lines: &[Line], last_line: u64, room: usize) -> Vec<Match> {
    let found = lines.iter().filter(|line| line.number <= last_line).filter_map(|line| {
        let text = shown(&line.bytes);
        let folded = folded(&text);
        let at = query.finds(&folded)?;
        let text = around(&text, folded[..at].chars().count());
        Some(Match { number: line.number, at_ms: line.at_ms, text })
    });
    found.take(room).collect()
}

/// The part of a line around its `at`th character, with where it was cut.
fn around(text: &str, at: usize) -> String {
    const CUT: char = '\u{2026}';
    let text = text.trim_end();
    let count = text.chars().count();
    if count <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    let from = at.min(count).saturating_sub(SHOWN_BEFORE_MAX).min(count - SHOWN_CHARS_MAX);
    let part: String = text.chars().skip(from).take(SHOWN_CHARS_MAX).collect();
    let (before, behind) = (from > 0, from + SHOWN_CHARS_MAX < count);
    let cut = |is: bool| if is { CUT.to_string() } else { String::new() };
    format!("{}{part}{}", cut(before), cut(behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_shown_around_what_was_found() {
        let line = format!("{}needle{}", "a ".repeat(500), " b".repeat(500));
        let shown = around(&line, 1_000);
        assert!(shown.starts_with('\u{2026}') && shown.ends_with('\u{2026}') && shown.contains("needle"));
        assert_eq!(shown.chars().count(), SHOWN_CHARS_MAX + 2);
        assert!(around(&line, 3).starts_with("a a"));
        assert!(around(&line, 5_000).ends_with('b'));
        assert_eq!(around("short  ", 0), "short");
    }
}
