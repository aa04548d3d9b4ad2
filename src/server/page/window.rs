//! Lines of a log as rows of a page: a window at a time, of bounded size.

use std::fmt::Write as _;

use super::folds::{self, Marker};
use super::humans;
use super::marks;
use super::outline::MARKED_BYTES_MAX;
use super::source::{LogLine, Source};
use super::terminal;
use crate::builds::log::{Gap, LogId, LogStatus};
use crate::server::http::problem::Refusal;

use crate::units::rfc3339;

/// Lines of one window.
pub const LINES_MAX: u64 = 1_000;
/// Bytes of one window's HTML; what goes beyond is left for the next, but for its first row.
const HTML_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Lines read at once from the end backwards, as nobody knows how long they are.
const BACKWARDS: u64 = 100;

/// A window: rows without a hole, of which some may be empty (what is not kept has one row in all).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The number of its first line, from 1.
    pub from: u64,
    /// Each a row's HTML.
    pub rows: Vec<String>,
}

impl Window {
    /// The line after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.from + self.rows.len() as u64
    }
}

/// What rows need to know of the log that they are of.
#[derive(Clone, Debug)]
pub struct Look {
    /// Which.
    pub log: LogId,
    /// How far it is.
    pub status: LogStatus,
    /// When its first line began, Unix milliseconds.
    pub start_ms: Option<u64>,
}

impl Look {
    /// Takes a look at a log; `None` where there is none.
    ///
    /// # Errors
    /// What its source refuses with.
    pub async fn at(source: &dyn Source, log: LogId) -> Result<Option<Self>, Refusal> {
        let Some(status) = source.log(log).await? else { return Ok(None) };
        let first = if status.lines == 0 { Vec::new() } else { source.lines(log, 1, 1).await? };
        let start_ms = first.first().and_then(|line| line.at_ms);
        Ok(Some(Self { log, status, start_ms }))
    }

    /// The window that begins with this line.
    ///
    /// # Errors
    /// What the log's source refuses with.
    pub async fn from(&self, source: &dyn Source, from: u64, count: u64) -> Result<Window, Refusal> {
        let from = from.clamp(1, self.status.lines + 1);
        let count = count.min(LINES_MAX).min(self.status.lines + 1 - from);
        if count == 0 {
            return Ok(Window { from, rows: Vec::new() });
        }
        // Where all of it lies in what is not kept, lines behind that may be what is answered.
        let lines = source.lines(self.log, from, count).await?;
        let look = self.clone();
        Ok(blocking(move || look.window(from, count, &lines)).await)
    }

    /// The window of the last lines, as many as one can have.
    ///
    /// # Errors
    /// What the log's source refuses with.
    pub async fn tail(&self, source: &dyn Source) -> Result<Window, Refusal> {
        let last = self.status.lines;
        let mut window = Window { from: last + 1, rows: Vec::new() };
        let (mut bytes, mut step) = (0, BACKWARDS);
        while window.from > 1 && (window.rows.len() as u64) < LINES_MAX && bytes < HTML_BYTES_MAX {
            let count = step.min(window.from - 1);
            let mut piece = self.from(source, window.from - count, count).await?;
            if piece.end() != window.from {
                // They were so long that the last of them did not fit, and those are what is wanted.
                if count == 1 {
                    break;
                }
                step = count / 2;
                continue;
            }
            bytes += piece.rows.iter().map(String::len).sum::<usize>();
            piece.rows.append(&mut window.rows);
            window = piece;
        }
        Ok(window)
    }

    fn window(&self, from: u64, count: u64, lines: &[LogLine]) -> Window {
        let mut window = Window { from, rows: Vec::new() };
        let mut bytes = 0;
        let mut lines = lines.iter().peekable();
        let marking = self.status.bytes <= MARKED_BYTES_MAX;
        while (window.rows.len() as u64) < count && (bytes < HTML_BYTES_MAX || window.rows.is_empty()) {
            let number = window.end();
            let row = match (lines.next_if(|line| line.number == number), self.status.gap) {
                (Some(line), _) => self.row(line, marking),
                (None, Some(gap)) if gap.hides(number) => {
                    if number == 1 || !gap.hides(number - 1) {
                        gap_row(gap, number)
                    } else {
                        String::new()
                    }
                }
                (None, _) => break,
            };
            bytes += row.len();
            window.rows.push(row);
        }
        window
    }

    /// One line as a row.
    fn row(&self, line: &LogLine, marking: bool) -> String {
        let number = line.number;
        let mark = if marking { marks::mark(&line.bytes) } else { None };
        let mut row = String::with_capacity(line.bytes.len() + 160);
        row.push_str("<div class=\"l");
        if let Some(mark) = mark {
            row.push(' ');
            row.push(mark.letter());
        }
        let shown = match folds::marker(&line.bytes) {
            Some(Marker::Open { title, .. }) => {
                row.push_str(" h");
                title
            }
            Some(Marker::Close | Marker::CloseSection(_)) => {
                row.push_str(" q");
                &line.bytes
            }
            None => &line.bytes,
        };
        let _ = write!(row, "\" id=\"L{number}\"><a class=\"n\" href=\"#L{number}\">{number}</a><time");
        if let Some(at_ms) = line.at_ms {
            let title = rfc3339(i64::try_from(at_ms).unwrap_or(i64::MAX));
            let elapsed = humans::elapsed(at_ms.saturating_sub(self.start_ms.unwrap_or(at_ms)));
            let _ = write!(row, " title=\"{title}\">{elapsed}");
        } else {
            row.push('>');
        }
        row.push_str("</time><span class=\"t\">");
        if terminal::html(shown, &mut row) || line.cut {
            let LogId { build, attempt } = self.log;
            let _ = write!(
                row,
                "<a class=\"cut\" href=\"/builds/{}/log?attempt={attempt}&amp;offset={}\">cut here: all of {}{} \
                 raw</a>",
                build.0,
                line.offset,
                if line.cut { "more than " } else { "" },
                humans::bytes(line.bytes.len() as u64),
            );
        }
        row.push_str("</span></div>");
        row
    }
}

/// The one row of what is not kept.
fn gap_row(gap: Gap, number: u64) -> String {
    format!(
        "<div class=\"l gap\" id=\"L{number}\"><a class=\"n\" href=\"#L{number}\">{number}</a><time></time>\
         <span class=\"t\">{}, {}, are not kept: the log is over its limit</span></div>",
        humans::counted(gap.lines, "line", "lines"),
        humans::bytes(gap.to.saturating_sub(gap.from)),
    )
}

/// Away from the broker's thread: a window of hostile lines takes some milliseconds.
pub async fn blocking<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}
