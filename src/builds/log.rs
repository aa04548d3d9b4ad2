//! A build's log, as those see it who read it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::build::{BuildId, LogEnd};

/// A log: each attempt of a build has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The build.
    pub build: BuildId,
    /// From 1.
    pub attempt: u32,
}

/// How far a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Bytes so far, those not kept too: where the next one goes.
    pub bytes: u64,
    /// Lines begun so far; a last one without its line feed counts.
    pub lines: u64,
    /// What is not kept, once the log is over its limit.
    pub gap: Option<Gap>,
    /// Set when nothing more will come.
    pub end: Option<LogEnd>,
    /// That nothing came and nothing will: the build was over before its agent had anything to say.
    pub never: bool,
}

impl LogStatus {
    /// Whether more may come.
    #[must_use]
    pub const fn more(&self) -> bool {
        self.end.is_none() && !self.never
    }
}

/// The part of a log that is not kept: between its head, which stays, and its tail, which moves on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first byte that is not kept.
    pub from: u64,
    /// The first byte that is kept again.
    pub to: u64,
    /// The number of the first line that is not kept whole.
    pub first_line: u64,
    /// Lines that are not kept whole.
    pub lines: u64,
    /// Whether it begins within a line, whose beginning is kept: one that is longer than the log's head.
    #[serde(default)]
    pub mid_line: bool,
}

impl Gap {
    /// Whether a byte is in it.
    #[must_use]
    pub const fn has(&self, offset: u64) -> bool {
        self.from <= offset && offset < self.to
    }

    /// Whether nothing of a line is kept.
    #[must_use]
    pub const fn hides(&self, line: u64) -> bool {
        let beginning_kept = self.mid_line && line == self.first_line;
        self.first_line <= line && line < self.first_line + self.lines && !beginning_kept
    }
}

/// The line that stands in its place where the log is read as text.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, lines) = (self.to - self.from, self.lines);
        write!(f, "[leasehold: {bytes} bytes, {lines} lines are not kept; the log goes on at byte {}]", self.to)
    }
}
