//! A log as the pieces that an index knows.
//!
//! Lines go in whole, each as [`shown`] has it, so that a piece ends with the line that fills it: by bytes of
//! text, or by lines where they are short. A piece without a word is left out, and takes no number. So are
//! those behind the last that has a number: the end of a log of gigabytes, or of hundreds of megabytes of
//! lines of one letter, is not searched.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::{folded, shown, words};
use crate::builds::log::LogId;
use crate::pipeline::logs::Line;
use crate::store::builds::search::{IndexPiece, PieceId};

/// Bytes of text that fill a piece. Smaller ones narrow better, larger ones are fewer: at this size a scan takes
/// about a millisecond.
const PIECE_BYTES: usize = 64 * 1024;
/// Lines that fill a piece.
const PIECE_LINES: u64 = 4_096;

/// A piece, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) piece: IndexPiece,
    /// Its lines, each ended.
    pub(super) text: String,
}

/// Cuts a log into pieces.
#[derive(Debug)]
pub(super) struct Cutter {
    log: LogId,
    nth: u64,
    first_line: u64,
    last_line: u64,
    text: String,
    words: BTreeSet<String>,
}

impl Cutter {
    pub(super) const fn new(log: LogId) -> Self {
        Self { log, nth: 0, first_line: 0, last_line: 0, text: String::new(), words: BTreeSet::new() }
    }

    /// Takes lines up to the next piece that is full; `None` where they do not fill one.
    pub(super) fn next(&mut self, lines: &mut impl Iterator<Item = Line>) -> Option<Cut> {
        for line in lines {
            let text = shown(&line.bytes);
            if self.text.is_empty() {
                self.first_line = line.number;
            }
            self.last_line = line.number;
            for word in words(&folded(&text)) {
                if !self.words.contains(word) {
                    self.words.insert(word.to_owned());
                }
            }
            let _ = writeln!(self.text, "{text}");
            if self.text.len() >= PIECE_BYTES || line.number - self.first_line + 1 >= PIECE_LINES {
                let full = self.end();
                if full.is_some() {
                    return full;
                }
            }
        }
        None
    }

    /// Ends the piece that is begun. `None` where there is none, or no word in it.
    pub(super) fn end(&mut self) -> Option<Cut> {
        let (text, words) = (std::mem::take(&mut self.text), std::mem::take(&mut self.words));
        if words.is_empty() {
            return None;
        }
        let id = PieceId::new(self.log, self.nth)?;
        self.nth += 1;
        let words = words.into_iter().collect();
        Some(Cut { piece: IndexPiece { id, first_line: self.first_line, last_line: self.last_line, words }, text })
    }
}
