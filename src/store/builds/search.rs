//! The tables of the search: which logs are still to be indexed, and the embedded index itself.
//!
//! The index knows *pieces* of logs, runs of lines of some kilobytes, by the words in them. It answers which
//! pieces a line may be in, never what the line says: it may be made anew from the logs at any time.
//!
//! Which logs are to be indexed is written by the database itself, in the transaction that settles or deletes
//! a log, so none is ever left out. Whoever indexes takes its entry out only when that is done.

#[cfg(test)]
pub(super) mod contract;

use std::sync::Arc;

use super::Answer;
use crate::builds::build::{BuildId, Phase};
use crate::builds::log::LogId;

/// Attempts of a build, and pieces of a log, that a piece's number tells apart.
pub(super) const ATTEMPT_BITS: u32 = 8;
pub(super) const NTH_BITS: u32 = 16;
const NTH_MAX: u64 = (1 << NTH_BITS) - 1;
/// Builds: the number of a piece has a sign.
const BUILD_MAX: u64 = (1 << (63 - ATTEMPT_BITS - NTH_BITS)) - 1;

/// A piece's number: of two pieces the higher is the newer build's, the later attempt's, the earlier line's.
/// So going down is the order in which people want to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceId(pub u64);

impl PieceId {
    /// Above every piece.
    pub const END: Self = Self(i64::MAX.cast_unsigned());

    /// The `nth` piece of a log, from 0; `None` for what has no number: it is not indexed.
    #[must_use]
    pub fn new(log: LogId, nth: u64) -> Option<Self> {
        let attempt = u64::from(log.attempt);
        let fits = log.build.0 <= BUILD_MAX && attempt < 1 << ATTEMPT_BITS && nth <= NTH_MAX;
        fits.then(|| Self((log.build.0 << (ATTEMPT_BITS + NTH_BITS)) | (attempt << NTH_BITS) | (NTH_MAX - nth)))
    }

    /// Whose it is.
    #[must_use]
    pub fn log(self) -> LogId {
        let attempt = (self.0 >> NTH_BITS) & ((1 << ATTEMPT_BITS) - 1);
        LogId { build: self.build(), attempt: u32::try_from(attempt).unwrap_or(u32::MAX) }
    }

    /// Whose that is.
    #[must_use]
    pub const fn build(self) -> BuildId {
        BuildId(self.0 >> (ATTEMPT_BITS + NTH_BITS))
    }

    /// The lowest number that a piece of this build, or a newer one, can have.
    #[must_use]
    pub fn first_of(build: BuildId) -> Self {
        Self(build.0.min(BUILD_MAX) << (ATTEMPT_BITS + NTH_BITS))
    }

    /// The lowest and the highest number that a piece of this log can have; `None` where it has none.
    #[must_use]
    pub fn range(log: LogId) -> Option<(Self, Self)> {
        Self::new(log, NTH_MAX).zip(Self::new(log, 0))
    }
}

/// A word that is looked for, folded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// Letters and digits only.
    pub text: String,
    /// Whether words count that only begin so.
    pub begins: bool,
}

/// A piece of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPiece {
    /// Which.
    pub id: PieceId,
    /// Its first line, from 1.
    pub first_line: u64,
    /// Its last.
    pub last_line: u64,
    /// The words in it, each once.
    pub words: Vec<String>,
}

/// A piece that may have a line that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub id: PieceId,
    /// Its first line.
    pub first_line: u64,
    /// Its last.
    pub last_line: u64,
}

/// Which pieces are asked for.
#[derive(Clone, Debug)]
pub struct Narrowing {
    /// All of these are in it. At least one.
    pub words: Vec<Word>,
    /// Of builds of this repository.
    pub repository: Option<Arc<str>>,
    /// Of this pipeline.
    pub pipeline: Option<Arc<str>>,
    /// In these phases; empty is any.
    pub phases: Vec<Phase>,
    /// Numbers from here ...
    pub from: PieceId,
    /// ... to here, both included.
    pub to: PieceId,
    /// At most so many.
    pub limit: usize,
}

/// A log whose index is not what the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToIndex {
    /// Which.
    pub log: LogId,
    /// Whether it was deleted.
    pub gone: bool,
}

/// The tables of the search.
pub trait SearchTables: Send + Sync + 'static {
    /// Says where the index is that the queue is for. Where that is another place than it was, every log is
    /// queued anew, and the embedded index is emptied if it is not that one (`embedded`).
    fn aim<'a>(&'a self, target: &'a str, embedded: bool) -> Answer<'a, ()>;

    /// What is to be indexed, newest first.
    fn to_index(&self, limit: usize) -> Answer<'_, Vec<ToIndex>>;

    /// How much is to be indexed.
    fn to_index_count(&self) -> Answer<'_, u64>;

    /// The index has the log now as this entry says. An entry that is another by now stays.
    fn indexed(&self, entry: ToIndex) -> Answer<'_, ()>;

    /// Puts a piece into the embedded index, in place of one of its number.
    fn index<'a>(&'a self, piece: &'a IndexPiece) -> Answer<'a, ()>;

    /// Takes a log out of the embedded index.
    fn unindex(&self, log: LogId) -> Answer<'_, ()>;

    /// Pieces that have all the words, from the highest number down.
    fn candidates<'a>(&'a self, narrowing: &'a Narrowing) -> Answer<'a, Vec<Candidate>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_down_is_newer_builds_later_attempts_earlier_lines() {
        let log = |build, attempt| LogId { build: BuildId(build), attempt };
        let of = |build, attempt, nth| PieceId::new(log(build, attempt), nth).unwrap();
        let ordered = [of(9, 1, 0), of(9, 1, 1), of(8, 2, 0), of(8, 2, 7), of(8, 1, 0), of(1, 255, 65_535)];
        assert!(ordered.is_sorted_by(|one, other| one > other));
        assert_eq!(of(8, 2, 7).log(), log(8, 2));
        assert_eq!(PieceId::range(log(8, 2)), Some((of(8, 2, 65_535), of(8, 2, 0))));
        assert!(PieceId::first_of(BuildId(8)) < of(8, 1, 65_535) && PieceId::first_of(BuildId(9)) > of(8, 255, 0));
        assert!(of(BUILD_MAX, 255, 0) <= PieceId::END);
        for (build, attempt, nth) in [(BUILD_MAX + 1, 1, 0), (1, 256, 0), (1, 1, 65_536)] {
            assert_eq!(PieceId::new(log(build, attempt), nth), None);
        }
    }
}
