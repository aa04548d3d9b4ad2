//! How the commands print: tables, details, JSON; and the escaping of everything foreign.
//!
//! Whatever is printed goes through [`Table`], [`Details`] or [`json`], and each of them escapes
//! what could steer a terminal, so that no command can forget it: names, notes and tags come from
//! whoever talks to the broker. Data goes to stdout, messages to stderr. Colours appear only on a
//! terminal and while `NO_COLOR` is unset; lines are cut only where a terminal would break them.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use super::Failure;
use crate::units::show_duration_ms;

/// Stands for what is not there, so that a column never looks broken.
pub const NOTHING: &str = "-";
/// Between two columns.
const GAP: &str = "  ";
/// A column is never cut below this.
const COLUMN_WIDTH_MIN: usize = 8;

/// What stdout can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal; `None` where it is none and nothing is cut.
    pub width: Option<usize>,
    /// Whether to colour.
    pub colour: bool,
}

impl Screen {
    /// What this process's stdout is.
    #[must_use]
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let width = rustix::termios::tcgetwinsize(&stdout).ok().map(|size| usize::from(size.ws_col));
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self { width: width.filter(|width| *width > 0), colour: !plain }
    }

    fn paint(self, style: Style, text: &str) -> String {
        match style.code() {
            Some(code) if self.colour => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Like any text.
    #[default]
    Plain,
    /// A heading.
    Bold,
    /// Fine.
    Good,
    /// In use, or on its way.
    Busy,
    /// Out of order.
    Bad,
}

impl Style {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Good => Some("32"),
            Self::Busy => Some("33"),
            Self::Bad => Some("31"),
        }
    }

    /// How a state of a resource, lease or broker looks.
    #[must_use]
    pub fn of_state(state: &str) -> Self {
        match state {
            "free" | "active" | "serving" => Self::Good,
            "leased" | "shared" | "ending" | "pending" | "stopping" => Self::Busy,
            "quarantined" | "drained" | "offline" | "store_failing" => Self::Bad,
            _ => Self::Plain,
        }
    }
}

/// The text without anything that could steer a terminal or reorder what is read: control
/// characters, line breaks and the marks that turn the direction of writing.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            c if steers(c) => safe.extend(c.escape_unicode()),
            c => safe.push(c),
        }
    }
    safe
}

/// The same for a message of several lines that the broker wrote: line breaks stay.
#[must_use]
pub fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape).collect::<Vec<_>>().join("\n")
}

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A cell: its text, as it came, and how it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::Plain }
    }
}

impl Cell {
    /// A text that looks like this.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    /// A state, in its colour.
    pub fn state(state: &str) -> Self {
        Self { text: state.to_owned(), style: Style::of_state(state) }
    }
}

/// Rows under headings. Cells are escaped here.
#[derive(Clone, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell per heading; an empty one is shown as [`NOTHING`].
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut row: Vec<Cell> = cells
            .into_iter()
            .map(|cell| {
                let text = if cell.text.is_empty() { NOTHING.to_owned() } else { escape(&cell.text) };
                Cell { text, ..cell }
            })
            .collect();
        row.resize(self.headings.len(), NOTHING.into());
        self.rows.push(row);
    }

    /// The table as text.
    #[must_use]
    pub fn render(&self, screen: Screen) -> String {
        let widths = self.widths(screen.width);
        let mut text = String::new();
        let headings = self.headings.iter().map(|heading| Cell { text: (*heading).to_owned(), style: Style::Bold });
        render_row(&mut text, screen, &widths, &headings.collect::<Vec<_>>());
        for row in &self.rows {
            render_row(&mut text, screen, &widths, row);
        }
        text
    }

    /// Natural widths, then the widest column made narrower until all fit.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.headings.iter().map(|heading| heading.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let Some(limit) = limit else { return widths };
        let room = limit.saturating_sub(GAP.len() * widths.len().saturating_sub(1));
        while widths.iter().sum::<usize>() > room {
            let Some(widest) = widths.iter_mut().max().filter(|width| **width > COLUMN_WIDTH_MIN) else { break };
            *widest -= 1;
        }
        widths
    }
}

fn render_row(text: &mut String, screen: Screen, widths: &[usize], row: &[Cell]) {
    for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
        let shown = cut(&cell.text, *width);
        text.push_str(&screen.paint(cell.style, &shown));
        if index + 1 < row.len() {
            let _ = write!(text, "{:pad$}{GAP}", "", pad = width.saturating_sub(shown.chars().count()));
        }
    }
    text.push('\n');
}

/// At most `width` characters; what was cut is told by an ellipsis.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Facts of one thing, a line each: `what  value`. Values are escaped here.
#[derive(Clone, Debug, Default)]
pub struct Details(Vec<(String, Cell)>);

impl Details {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact.
    pub fn fact(&mut self, what: &str, value: impl Into<Cell>) {
        let cell = value.into();
        self.0.push((escape(what), Cell { text: escape(&cell.text), ..cell }));
    }

    /// Adds a fact where there is one.
    pub fn fact_if(&mut self, what: &str, value: Option<impl Into<Cell>>) {
        if let Some(value) = value {
            self.fact(what, value);
        }
    }

    /// An empty line, to set apart what follows.
    pub fn gap(&mut self) {
        self.0.push((String::new(), Cell::default()));
    }

    /// The facts as text.
    #[must_use]
    pub fn render(&self, screen: Screen) -> String {
        let width = self.0.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for (what, cell) in &self.0 {
            if what.is_empty() && cell.text.is_empty() {
                text.push('\n');
                continue;
            }
            let pad = width - what.chars().count();
            let _ = writeln!(text, "{what}{:pad$}{GAP}{}", "", screen.paint(cell.style, &cell.text));
        }
        text
    }
}

/// Any value as JSON on one line, with what could steer a terminal written as escapes.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::refused(format!("the answer cannot be written as JSON: {error}")))?;
    let mut safe = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Only strings have such characters, and none is beyond 16 bits: the escape is valid JSON.
        if steers(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe.push('\n');
    Ok(safe)
}

/// Writes to stdout. A reader that closed the pipe (`| head`) has what it wanted.
pub fn print(text: &str) -> Result<(), Failure> {
    print_more(text).map(drop)
}

/// The same for what is printed bit by bit: `false` when nobody reads any more.
pub fn print_more(text: &str) -> Result<bool, Failure> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::refused(format!("stdout cannot be written: {error}"))),
    }
}

/// Writes a message to stderr, escaped. Fails where stderr is closed: then nobody reads it.
pub fn say(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", escape_lines(message));
}

/// `3m12s ago`.
#[must_use]
pub fn ago(ms: u64) -> String {
    format!("{} ago", show_duration_ms(round_ms(ms)))
}

/// Seconds are enough once there is one.
#[must_use]
pub fn round_ms(ms: u64) -> u64 {
    if ms < 1_000 { ms } else { ms / 1_000 * 1_000 }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Details, Screen, Table, cut, escape, escape_lines, json};

    #[test]
    fn what_could_steer_a_terminal_is_escaped() {
        for (hostile, safe) in [
            ("plain, ünïcode 手", "plain, ünïcode 手"),
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("gnp\u{202e}.exe", "gnp\\u{202e}.exe"),
            ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
        ] {
            assert_eq!(escape(hostile), safe);
        }
        assert_eq!(escape_lines("one\n\x07two"), "one\n\\u{7}two");
    }

    #[test]
    fn json_is_escaped_and_still_the_same_value() {
        let hostile = "\x1b]0;x\u{9b}1m\u{202e}\u{2028}手";
        let text = json(&hostile).expect("a text is JSON");
        assert!(!text.trim_end().chars().any(super::steers), "{text:?}");
        assert_eq!(serde_json::from_str::<String>(&text).expect("it reads back"), hostile);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(["pixel-8-01".into(), Cell::state("free")]);
        table.row(["a".into(), "".into()]);
        assert_eq!(table.render(Screen::default()), "NAME        STATE\npixel-8-01  free\na           -\n");
    }

    #[test]
    fn a_terminal_gets_lines_that_fit_it() {
        let mut table = Table::new(&["A", "NOTE"]);
        table.row(["x".into(), "a long note that does not fit".into()]);
        let text = table.render(Screen { width: Some(20), colour: false });
        assert_eq!(text.lines().nth(1), Some("x  a long note that…"));
        let text = table.render(Screen { width: Some(3), colour: false });
        assert_eq!(text.lines().nth(1), Some("x  a long …"), "no column is cut to nothing");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let mut table = Table::new(&["STATE", "B"]);
        table.row([Cell::state("free"), "x".into()]);
        let text = table.render(Screen { width: None, colour: true });
        assert_eq!(text.lines().nth(1), Some("\x1b[32mfree\x1b[0m   x"));
    }

    #[test]
    fn details_are_lined_up_and_escaped() {
        let mut details = Details::new();
        details.fact("by", "me");
        details.gap();
        details.fact("since", "then\n");
        assert_eq!(details.render(Screen::default()), "by     me\n\nsince  then\\n\n");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
    }
}
