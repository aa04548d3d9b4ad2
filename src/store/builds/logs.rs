//! The tables of logs: how far each is, where its sealed parts are, and the tail that is not sealed yet.
//!
//! A log is *segments*, each an object in the object store, and after them *pieces*, rows with the bytes of
//! one append each. A write names what the log is after it, and is made only if the log is as it was when
//! the writer looked: its revision. So a writer that missed something, or another broker's, changes nothing.

pub(super) mod common;
#[cfg(test)]
pub(super) mod contract;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Answer;
use crate::builds::build::{BuildId, LogEnd};
use crate::builds::log::{Gap, LogId};

/// How far a log is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Grows by one with each write; 1 with the first.
    pub revision: u64,
    /// Bytes appended, also those not kept any more.
    pub bytes: u64,
    /// Lines begun.
    pub lines: u64,
    /// Whether the last line waits for its line feed.
    pub open_line: bool,
    /// SHA-256 over all bytes, half done, as hexadecimal digits; empty before the first byte.
    pub hash: String,
    /// Where its objects are: `BUILD/ATTEMPT-CHANCE`. Nobody else has objects there, not even another lab that
    /// keeps its logs in the same place.
    pub folder: Arc<str>,
    /// What is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// Set when nothing more is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<LogEnd>,
    /// Whether it has ended, all of it is sealed, and nothing of it lies about that no row names.
    #[serde(default)]
    pub settled: bool,
    /// When it was last appended to, Unix milliseconds.
    pub changed_ms: i64,
    /// SHA-256 of the key under which it is sent, hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<Arc<str>>,
}

/// A sealed part of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its first byte.
    pub offset: u64,
    /// Bytes of the log in it.
    pub length: u64,
    /// The number of the first line that begins in it or after it.
    pub first_line: u64,
    /// Lines that begin in it.
    pub lines: u64,
    /// Where the first of them begins; the segment's end where none does.
    pub first_start: u64,
    /// Where the last of them begins; the segment's end where none does.
    pub last_start: u64,
    /// Whether its last byte is a line feed.
    pub whole: bool,
    /// The object.
    pub object: Arc<str>,
    /// The object's bytes.
    pub stored: u64,
}

impl Segment {
    /// The byte after its last.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// An append that is not sealed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its first byte.
    pub offset: u64,
    /// The number of the first line that begins in it or after it.
    pub first_line: u64,
    /// Lines that begin in it.
    pub lines: u64,
    /// When they began, as the text that came with it.
    pub times: Vec<u8>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// One write: what the log is after it.
#[derive(Clone, Debug)]
pub struct LogWrite<'a> {
    /// Which.
    pub id: LogId,
    /// What it is then. It is written only if its revision is the one after the revision that is there, or 1
    /// where there is none.
    pub record: &'a LogRecord,
    /// A piece that is new.
    pub piece: Option<&'a Piece>,
    /// A segment that is new.
    pub segment: Option<&'a Segment>,
    /// Whether all pieces that were there before go: the segment has them.
    pub pieces_go: bool,
    /// Offsets of segments that go: they are in the gap, or the new one takes their place.
    pub segments_go: &'a [u64],
}

/// The tables of logs.
pub trait LogTables: Send + Sync + 'static {
    /// Writes, in one transaction, durable when it answers `true`. `false`: the log is not what the writer
    /// took it for, and nothing was written. After an error it is there whole or not at all.
    fn write_log<'a>(&'a self, write: &'a LogWrite<'a>) -> Answer<'a, bool>;

    /// How far a log is.
    fn log(&self, id: LogId) -> Answer<'_, Option<LogRecord>>;

    /// The logs of these builds, in order.
    fn logs_of<'a>(&'a self, builds: &'a [BuildId]) -> Answer<'a, Vec<(LogId, LogRecord)>>;

    /// All segments of a log, in order.
    fn segments(&self, id: LogId) -> Answer<'_, Vec<Segment>>;

    /// The last segment that begins at this byte or before it.
    fn segment_at(&self, id: LogId, offset: u64) -> Answer<'_, Option<Segment>>;

    /// The last segment whose first line is this one or one before it.
    fn segment_of_line(&self, id: LogId, line: u64) -> Answer<'_, Option<Segment>>;

    /// The pieces of a log, in order, from the last that begins at this byte or before it.
    fn pieces_at(&self, id: LogId, offset: u64) -> Answer<'_, Vec<Piece>>;

    /// The pieces of a log, in order, from the last whose first line is this one or one before it.
    fn pieces_of_line(&self, id: LogId, line: u64) -> Answer<'_, Vec<Piece>>;

    /// Logs that are not settled and come after this one, in order, with how far they are; at most `limit`.
    fn unsettled_logs(&self, after: LogId, limit: usize) -> Answer<'_, Vec<(LogId, LogRecord)>>;

    /// Deletes the rows of these builds' logs.
    fn delete_logs<'a>(&'a self, builds: &'a [BuildId]) -> Answer<'a, ()>;
}
