//! What is to be seen of a log at a glance: its groups, and where it tells of errors.
//!
//! Made once, line by line, away from the broker's thread, and kept for the logs that were looked at last;
//! that of a log which still grows is gone on with.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::folds::{Fold, Folder};
use super::layout::shown;
use super::marks::{Mark, mark};
use super::source::{LogLine, Source};
use super::terminal;
use crate::builds::log::{LogId, LogStatus};
use crate::server::http::problem::Refusal;

/// Bytes of a log in which errors are looked for; in a longer one none are marked.
pub const MARKED_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Marks that can be stepped through.
const MARKS_MAX: usize = 20_000;
/// Marks that are listed with what they say.
const SUMMARY_MAX: usize = 100;
/// Characters of a line in that list.
const SUMMARY_CHARS_MAX: usize = 200;
/// Lines read at once.
const LINES_AT_ONCE: u64 = 5_000;
/// Logs whose outlines are kept; each has at most some megabytes.
const KEPT_MAX: usize = 16;

/// What was found so far.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    folder: Folder,
    /// The last line that was looked at.
    last: u64,
    marks: Vec<(u64, Mark)>,
    summary: Vec<(u64, Mark, String)>,
    errors: u64,
    warnings: u64,
    unmarked: bool,
}

impl Outline {
    /// Goes on with these lines; `marking` is whether errors are looked for.
    fn take(&mut self, lines: &[LogLine], marking: bool) {
        if !marking && !self.unmarked {
            self.unmarked = true;
            self.marks = Vec::new();
            self.summary = Vec::new();
            (self.errors, self.warnings) = (0, 0);
            self.folder.forget_errors();
        }
        for line in lines {
            let mark = if self.unmarked { None } else { mark(&line.bytes) };
            self.folder.line(line.number, &line.bytes, mark == Some(Mark::Error));
            self.last = line.number;
            let Some(mark) = mark else { continue };
            match mark {
                Mark::Error => self.errors += 1,
                Mark::Warning => self.warnings += 1,
            }
            if self.marks.len() < MARKS_MAX {
                self.marks.push((line.number, mark));
            }
            self.summarise(line, mark);
        }
    }

    /// Errors before warnings: a warning gives its place to an error.
    fn summarise(&mut self, line: &LogLine, mark: Mark) {
        if self.summary.len() >= SUMMARY_MAX {
            let spare = self.summary.iter().rposition(|(_, mark, _)| *mark == Mark::Warning);
            match spare {
                Some(at) if mark == Mark::Error => drop(self.summary.remove(at)),
                _ => return,
            }
        }
        let text: String = terminal::text(&line.bytes).trim().chars().take(SUMMARY_CHARS_MAX).collect();
        self.summary.push((line.number, mark, shown(&text)));
    }

    /// As pages take it, for a log of so many lines.
    #[must_use]
    pub fn told(&self, status: &LogStatus) -> Told {
        let kept = |number: u64| status.gap.is_none_or(|gap| !gap.hides(number));
        let marks = self.marks.iter().filter(|(number, _)| kept(*number));
        let summary = self.summary.iter().filter(|(number, ..)| kept(*number));
        Told {
            lines: status.lines,
            marked: !self.unmarked,
            errors: self.errors,
            warnings: self.warnings,
            marks: marks.map(|(number, mark)| (*number, mark.letter())).collect(),
            summary: summary.map(|(number, mark, text)| (*number, mark.letter(), text.clone())).collect(),
            folds: self.folder.folds(status.lines).iter().map(ToldFold::from).collect(),
            gap: status.gap.map(|gap| (gap.first_line + u64::from(gap.mid_line), gap.first_line + gap.lines - 1)),
        }
    }
}

/// An outline as a page takes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// Lines of the log.
    pub lines: u64,
    /// Whether errors were looked for.
    pub marked: bool,
    /// Errors in all.
    pub errors: u64,
    /// Warnings in all.
    pub warnings: u64,
    /// Lines with `e` or `w`.
    pub marks: Vec<(u64, char)>,
    /// The first of them with what they say.
    pub summary: Vec<(u64, char, String)>,
    /// The groups.
    pub folds: Vec<ToldFold>,
    /// First and last line of what is not kept.
    pub gap: Option<(u64, u64)>,
}

/// A group as a page takes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ToldFold {
    /// Its heading's line.
    pub first: u64,
    /// Its last line.
    pub last: u64,
    /// How many groups it is in.
    pub depth: usize,
    /// What it is called.
    pub name: String,
    /// Whether it is folded at first.
    pub folded: bool,
    /// Errors in it.
    pub errors: u64,
}

impl From<&Fold> for ToldFold {
    fn from(fold: &Fold) -> Self {
        Self {
            first: fold.first,
            last: fold.last,
            depth: fold.depth,
            name: fold.name.clone(),
            folded: fold.is_folded(),
            errors: fold.errors,
        }
    }
}

/// The outlines of the logs that were looked at last.
#[derive(Default)]
pub struct Outlines {
    kept: Mutex<VecDeque<(LogId, Place)>>,
}

/// Where one outline is; whoever has it is the one that goes on with it.
type Place = Arc<tokio::sync::Mutex<Outline>>;

impl Outlines {
    /// The outline of a log as far as it is; a last line that may go on is left for later.
    ///
    /// # Errors
    /// What the log's source refuses with.
    pub async fn of(&self, source: &dyn Source, log: LogId) -> Result<Option<Told>, Refusal> {
        let mut outline = self.place(log).lock_owned().await;
        let Some(status) = source.log(log).await? else { return Ok(None) };
        let marking = status.bytes <= MARKED_BYTES_MAX;
        let complete = if status.more() { status.lines.saturating_sub(1) } else { status.lines };
        while outline.last < complete {
            let count = LINES_AT_ONCE.min(complete - outline.last);
            let lines = source.lines(log, outline.last + 1, count).await?;
            if lines.is_empty() {
                break;
            }
            // The place goes along, so that what was found is kept where the asker goes away meanwhile.
            let work = move || {
                outline.take(&lines, marking);
                outline
            };
            let Ok(back) = tokio::task::spawn_blocking(work).await else { return Ok(None) };
            outline = back;
        }
        Ok(Some(outline.told(&status)))
    }

    fn place(&self, log: LogId) -> Place {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|(of, _)| *of == log).and_then(|at| kept.remove(at));
        let entry = found.unwrap_or_else(|| (log, Place::default()));
        let place = entry.1.clone();
        kept.push_front(entry);
        kept.truncate(KEPT_MAX);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::{MARKS_MAX, Outline, SUMMARY_MAX};
    use crate::builds::log::{Gap, LogStatus};
    use crate::server::page::source::LogLine;

    fn lines(text: &str) -> Vec<LogLine> {
        let line = |(number, text): (usize, &str)| LogLine {
            number: number as u64 + 1,
            offset: 0,
            at_ms: None,
            bytes: text.as_bytes().to_vec().into(),
            cut: false,
        };
        text.lines().enumerate().map(line).collect()
    }

    #[test]
    fn an_outline_counts_from_one_and_leaves_out_what_is_not_kept() {
        let mut outline = Outline::default();
        outline.take(&lines("--- one\nerror: a\nwarning: b\n--- two\nerror: c"), true);
        let gap = Gap { from: 0, to: 0, first_line: 2, lines: 1, mid_line: false };
        let told = outline.told(&LogStatus { lines: 5, gap: Some(gap), ..LogStatus::default() });
        assert_eq!(told.marks, [(3, 'w'), (5, 'e')]);
        assert_eq!((told.errors, told.warnings), (2, 1));
        assert_eq!(told.gap, Some((2, 2)));
        let folds: Vec<_> = told.folds.iter().map(|fold| (fold.first, fold.last, &*fold.name, fold.errors)).collect();
        assert_eq!(folds, [(1, 3, "one", 1), (4, 5, "two", 1)]);
    }

    #[test]
    fn marks_are_bounded_and_errors_come_before_warnings() {
        let mut outline = Outline::default();
        let text = format!("--- all\n{}error: late\n", "warning: w\n".repeat(MARKS_MAX + 5));
        outline.take(&lines(&text), true);
        let told = outline.told(&LogStatus { lines: 30_000, ..LogStatus::default() });
        assert_eq!((told.marks.len(), told.summary.len()), (MARKS_MAX, SUMMARY_MAX));
        assert_eq!(told.summary.last().map(|(_, letter, _)| *letter), Some('e'));
        // A log that has grown too long loses its marks, and says so.
        outline.take(&lines("error: x"), false);
        let told = outline.told(&LogStatus { lines: 30_001, ..LogStatus::default() });
        assert!(!told.marked && told.marks.is_empty() && told.errors == 0);
        assert_eq!((told.folds.len(), told.folds[0].errors), (1, 0));
    }
}
