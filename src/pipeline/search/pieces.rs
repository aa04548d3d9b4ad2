//! A log as the pieces that an index knows.
//!
//! Lines go in whole, each as [`shown`] has it, so that a piece ends with the line that fills it: by bytes of
//! text, or by lines where they are short. A piece without a word is left out, and takes no number. So are
//! those behind the last that has a number: the end of a log of gigabytes, or of hundreds of megabytes of
//! lines of one letter, is not searched.

use std::collections::HashSet;

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
}

impl Cutter {
    pub(super) const fn new(log: LogId) -> Self {
        Self { log, nth: 0, first_line: 0, last_line: 0, text: String::new() }
    }

    /// Takes lines up to the next piece that is full; `None` where they do not fill one.
    pub(super) fn next(&mut self, lines: &mut impl Iterator<Item = Line>) -> Option<Cut> {
        for line in lines {
            let text = shown(&line.bytes);
            if self.text.is_empty() {
                self.first_line = line.number;
            }
            self.last_line = line.number;
            self.text.push_str(&text);
            self.text.push('\n');
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
        let text = std::mem::take(&mut self.text);
        // What separates lines separates words, so they are the words of its lines.
        let folded = folded(&text);
        let mut words: Vec<&str> = words(&folded).collect::<HashSet<_>>().into_iter().collect();
        if words.is_empty() {
            return None;
        }
        let id = PieceId::new(self.log, self.nth)?;
        self.nth += 1;
        words.sort_unstable();
        let words = words.into_iter().map(str::to_owned).collect();
        Some(Cut { piece: IndexPiece { id, first_line: self.first_line, last_line: self.last_line, words }, text })
    }
}
