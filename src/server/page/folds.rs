//! Groups of lines, by the markers that CI systems taught tools to print.
//!
//! - `::group::NAME`, `##[group]NAME` to `::endgroup::`, `##[endgroup]`: GitHub, Gitea, Azure;
//! - `section_start:SECONDS:NAME[collapsed=true]`, CR, erase to `section_end:SECONDS:NAME`: GitLab;
//! - `--- NAME`, `+++ NAME`, `~~~ NAME` to the next of them: Buildkite, and the steps of our own agent.
//!
//! Cosmetic only: whatever a log prints, a marker folds lines and does nothing else.

use super::layout::shown;
use super::terminal;

/// Groups within groups; what is deeper is part of the one above.
pub const DEPTH_MAX: usize = 16;
/// Groups of one log; further ones do not fold.
pub const FOLDS_MAX: usize = 10_000;
/// Characters of a group's name that are kept.
const NAME_CHARS_MAX: usize = 120;
/// A group with more lines than this is folded at first.
const LONG_LINES: u64 = 25;

/// What a line says of groups. Names are pieces of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker<'a> {
    /// A group begins.
    Open {
        /// What is shown of the line.
        title: &'a [u8],
        /// How it ends.
        sort: Sort<'a>,
        /// Whether it asks to be folded, or to be open; `None` leaves it to us.
        folded: Option<bool>,
    },
    /// The innermost group ends.
    Close,
    /// A named section ends, with all in it.
    CloseSection(&'a [u8]),
}

/// How a group ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort<'a> {
    /// By the end of a group.
    Group,
    /// By the end of the section of this name.
    Section(&'a [u8]),
    /// By the next heading.
    Heading,
}

/// A group: a line that is its heading, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The heading's line.
    pub first: u64,
    /// The last line of it, its end marker with it.
    pub last: u64,
    /// How many groups it is in.
    pub depth: usize,
    /// For people.
    pub name: String,
    /// Whether it was asked to be folded, or open.
    pub asked: Option<bool>,
    /// Errors in it.
    pub errors: u64,
    /// Whether its end came; what is cut off by the log's end stays open.
    pub ended: bool,
}

impl Fold {
    /// Whether it is folded at first: long, ended, and nothing in it failed.
    #[must_use]
    pub fn is_folded(&self) -> bool {
        let long = self.last - self.first > LONG_LINES;
        self.ended && self.errors == 0 && self.asked.unwrap_or(long)
    }
}

/// What a line says of groups, if anything.
#[must_use]
pub fn marker(line: &[u8]) -> Option<Marker<'_>> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.first()? {
        b':' => {
            if let Some(title) = line.strip_prefix(b"::group::") {
                return Some(Marker::Open { title, sort: Sort::Group, folded: None });
            }
            line.starts_with(b"::endgroup::").then_some(Marker::Close)
        }
        b'#' => {
            if let Some(title) = line.strip_prefix(b"##[group]") {
                return Some(Marker::Open { title, sort: Sort::Group, folded: None });
            }
            line.starts_with(b"##[endgroup]").then_some(Marker::Close)
        }
        b'-' | b'+' | b'~' => heading(line),
        b's' => section(line),
        0x1b => section(line.strip_prefix(b"\x1b[0K")?),
        _ => None,
    }
}

/// `--- NAME`: three of one kind, a space, and a name that neither a diff nor Go's tests would print.
fn heading(line: &[u8]) -> Option<Marker<'_>> {
    let (kind, title) = line.split_at_checked(4)?;
    let sound = matches!(kind, b"--- " | b"+++ " | b"~~~ ")
        && title.iter().any(u8::is_ascii_graphic)
        && !title.starts_with(b"-");
    let of_others = [&b"FAIL: "[..], b"PASS: ", b"SKIP: ", b"BENCH: ", b"a/", b"b/", b"/dev/null", b"old/", b"new/"];
    if !sound || of_others.iter().any(|start| title.starts_with(start)) || title.contains(&b'\t') {
        return None;
    }
    let folded = match kind[0] {
        b'+' => Some(false),
        b'~' => Some(true),
        _ => None,
    };
    Some(Marker::Open { title, sort: Sort::Heading, folded })
}

/// `section_start:TS:NAME[collapsed=true]`, then CR, an erase and the title; `section_end:TS:NAME`.
fn section(line: &[u8]) -> Option<Marker<'_>> {
    let begins = line.strip_prefix(b"section_start:");
    let rest = begins.or_else(|| line.strip_prefix(b"section_end:"))?;
    let colon = rest.iter().take(20).position(|byte| *byte == b':')?;
    if colon == 0 || !rest[..colon].iter().all(u8::is_ascii_digit) {
        return None;
    }
    let named = &rest[colon + 1..];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let length = named.iter().position(|byte| !is_name(byte)).unwrap_or(named.len());
    let (name, after) = named.split_at(length);
    if name.is_empty() || name.len() > 128 {
        return None;
    }
    if begins.is_none() {
        return Some(Marker::CloseSection(name));
    }
    let shown = after.iter().position(|byte| *byte == b'\r').map_or(after, |at| &after[at..]);
    let options = &after[..after.len() - shown.len()];
    let folded = memchr::memmem::find(options, b"collapsed=true").map(|_| true);
    let title = if terminal::text(shown).trim().is_empty() { name } else { shown };
    Some(Marker::Open { title, sort: Sort::Section(name), folded })
}

/// Puts groups together, line by line.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    folds: Vec<Fold>,
    /// Those that are open, as places in `folds`, with how each ends.
    open: Vec<(usize, End)>,
    /// Groups that began too deep to be kept, whose ends are still to come.
    too_deep: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Group,
    Section(Box<[u8]>),
    Heading,
}

impl Folder {
    /// Takes the next line.
    pub fn line(&mut self, number: u64, line: &[u8], is_error: bool) {
        match marker(line) {
            Some(Marker::Open { title, sort, folded }) => self.begin(number, title, sort, folded),
            Some(Marker::Close) if self.too_deep > 0 => self.too_deep -= 1,
            Some(Marker::Close) if self.open.last().is_some_and(|(_, end)| *end == End::Group) => {
                self.end_down_to(self.open.len() - 1, number);
            }
            Some(Marker::CloseSection(name)) => {
                let is_it = |(_, end): &(usize, End)| matches!(end, End::Section(open) if **open == *name);
                if let Some(at) = self.open.iter().rposition(is_it) {
                    self.too_deep = 0;
                    self.end_down_to(at, number);
                }
            }
            Some(Marker::Close) | None => {}
        }
        if is_error {
            self.open.iter().for_each(|(at, _)| self.folds[*at].errors += 1);
        }
    }

    fn begin(&mut self, number: u64, title: &[u8], sort: Sort<'_>, asked: Option<bool>) {
        if sort == Sort::Heading {
            // A heading is above everything: what was not ended before it never will be.
            self.too_deep = 0;
            self.end_down_to(0, number.saturating_sub(1));
        }
        if self.open.len() >= DEPTH_MAX || self.folds.len() >= FOLDS_MAX {
            self.too_deep += usize::from(sort == Sort::Group);
            return;
        }
        let end = match sort {
            Sort::Group => End::Group,
            Sort::Section(name) => End::Section(name.into()),
            Sort::Heading => End::Heading,
        };
        let name: String = terminal::text(title).trim().chars().take(NAME_CHARS_MAX).collect();
        let name = shown(&name);
        let depth = self.open.len();
        self.open.push((self.folds.len(), end));
        self.folds.push(Fold { first: number, last: number, depth, name, asked, errors: 0, ended: false });
    }

    /// Counts no errors from here, and none of those before.
    pub fn forget_errors(&mut self) {
        self.folds.iter_mut().for_each(|fold| fold.errors = 0);
    }

    fn end_down_to(&mut self, depth: usize, last: u64) {
        for (at, _) in self.open.drain(depth..) {
            self.folds[at].last = last.max(self.folds[at].first);
            self.folds[at].ended = true;
        }
    }

    /// The groups so far, in the order of their headings; what is open reaches to this line, the last.
    #[must_use]
    pub fn folds(&self, last: u64) -> Vec<Fold> {
        let mut folds = self.folds.clone();
        for (at, _) in &self.open {
            folds[*at].last = last.max(folds[*at].first);
        }
        folds
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, FOLDS_MAX, Folder};

    /// Each group as `FIRST-LAST NAME`, indented, with a `!` for each error in it and `...` while open.
    fn folded(log: &str) -> Vec<String> {
        let mut folder = Folder::default();
        let lines: Vec<&str> = log.split('\n').collect();
        for (number, line) in lines.iter().enumerate() {
            folder.line(number as u64, line.as_bytes(), line.contains("ERROR"));
        }
        let told = |fold: super::Fold| {
            let errors = "!".repeat(usize::try_from(fold.errors).unwrap());
            let open = if fold.ended { "" } else { "..." };
            let indent = " ".repeat(fold.depth);
            format!("{indent}{}-{} {}{errors}{open}", fold.first, fold.last, fold.name)
        };
        folder.folds(lines.len() as u64 - 1).into_iter().map(told).collect()
    }

    #[test]
    fn groups_are_found() {
        for (log, folds) in [
            ("a\n::group::one\nx\n::endgroup::\nb", &["1-3 one"] as &[&str]),
            ("##[group]one\nx\n##[endgroup]", &["0-2 one"]),
            ("::group::one\n::group::two\nx\n::endgroup::\ny\n::endgroup::", &["0-5 one", " 1-3 two"]),
            ("::group::one\nERROR", &["0-1 one!..."]),
            ("::endgroup::\nx", &[]),
            (
                "section_start:1:build[collapsed=true]\r\u{1b}[0KBuild it\nx\nsection_end:2:build\r\u{1b}[0K\ny",
                &["0-2 Build it"],
            ),
            ("\u{1b}[0Ksection_start:1:a.b-c\r\u{1b}[0K\nx\nsection_end:2:a.b-c\r\u{1b}[0K", &["0-2 a.b-c"]),
            // The end of an outer section ends what is in it.
            ("section_start:1:a\nsection_start:1:b\nsection_end:1:a\nsection_end:1:b", &["0-2 a", " 1-2 b"]),
            ("section_start:x:a\nsection_start:1:\n", &[]),
            ("--- one\nx\n--- two\ny", &["0-1 one", "2-3 two..."]),
            ("--- one\n::group::in\nx\n+++ two\ny", &["0-2 one", " 1-2 in", "3-4 two..."]),
            // Not ours.
            ("--- a/x.c\n+++ b/x.c\n--- FAIL: TestX\n---\n--- \n----- x\n--- x.c\t2026-01-01", &[]),
            ("--- \u{1b}[1mbold\u{1b}[0m", &["0-0 bold..."]),
        ] {
            assert_eq!(folded(log), folds, "{log}");
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = 40;
        let log = format!("{}x\n{}", "::group::g\n".repeat(deep), "::endgroup::\n".repeat(deep));
        let folds = folded(&log);
        assert_eq!(folds.len(), DEPTH_MAX);
        // The ends that belong to what was not kept end nothing else.
        assert_eq!(folds[0], "0-80 g");
        let many = folded(&"::group::g\n::endgroup::\n".repeat(FOLDS_MAX + 10));
        assert_eq!(many.len(), FOLDS_MAX);
    }

    #[test]
    fn what_is_long_folds_and_what_failed_stays_open() {
        let first = |log: &str| {
            let mut folder = Folder::default();
            let lines = log.split('\n').collect::<Vec<_>>();
            for (number, line) in lines.iter().enumerate() {
                folder.line(number as u64, line.as_bytes(), line.contains("ERROR"));
            }
            folder.folds(lines.len() as u64 - 1).remove(0).is_folded()
        };
        let long = "x\n".repeat(30);
        assert!(first(&format!("::group::g\n{long}::endgroup::")));
        assert!(!first("::group::g\nx\n::endgroup::"));
        assert!(!first(&format!("::group::g\n{long}ERROR\n::endgroup::")));
        assert!(!first(&format!("::group::g\n{long}")));
        assert!(!first(&format!("+++ open\n{long}--- next")));
        assert!(first("~~~ quiet\nx\n--- next"));
        assert!(first("section_start:1:a[collapsed=true]\rA\nx\nsection_end:1:a"));
    }
}
