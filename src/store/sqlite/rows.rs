//! Rows for a statement, packed into one parameter.
//!
//! A statement is handed its rows as one array in SQLite's JSONB form (<https://sqlite.org/jsonb.html>)
//! and reads them with `jsonb_each`, so that a batch of any size is the same few statements. The
//! binary form, as the text form would be escaped here, parsed there and rendered again on its
//! way into every column. Nothing here is stored: what a column keeps is plain text and numbers.

use std::ops::Range;

use serde::Serialize;

/// Element types of JSONB, the low half of a header.
const NULL: u8 = 0x0;
const INT: u8 = 0x3;
const TEXTRAW: u8 = 0xA;
const ARRAY: u8 = 0xB;
/// The high half of a header whose size follows in four bytes, most significant first.
const SIZE_IN_FOUR: u8 = 0xE0;
const WIDE_HEADER: usize = 5;

/// An array of rows, or of single values, being built.
#[derive(Debug, Default)]
pub struct Rows {
    bytes: Vec<u8>,
}

/// One row being built.
#[derive(Debug)]
pub struct Row<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Rows {
    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a row of the columns that `fill` adds to it.
    pub fn row(&mut self, fill: impl FnOnce(&mut Row<'_>) -> serde_json::Result<()>) -> serde_json::Result<()> {
        self.open();
        let from = open_wide(&mut self.bytes, ARRAY);
        fill(&mut Row { bytes: &mut self.bytes })?;
        close_wide(&mut self.bytes, from);
        Ok(())
    }

    /// Adds a number by itself.
    pub fn number(&mut self, number: u64) {
        self.open();
        Row { bytes: &mut self.bytes }.number(number);
    }

    /// Adds a text by itself.
    pub fn text(&mut self, text: &str) {
        self.open();
        Row { bytes: &mut self.bytes }.text(text);
    }

    /// The parameter; `None` when nothing was added.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        if self.bytes.is_empty() {
            return None;
        }
        close_wide(&mut self.bytes, 0);
        Some(self.bytes)
    }

    /// Bytes written before, by where they stand.
    pub fn written(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    fn open(&mut self) {
        if self.bytes.is_empty() {
            open_wide(&mut self.bytes, ARRAY);
        }
    }
}

impl Row<'_> {
    /// A number, as the same 64 bits with a sign: SQLite has no other integers.
    pub fn number(&mut self, number: u64) {
        let digits = number.cast_signed().to_string();
        self.header(INT, digits.len());
        self.bytes.extend_from_slice(digits.as_bytes());
    }

    /// A number that has a sign.
    pub fn signed(&mut self, number: i64) {
        self.number(number.cast_unsigned());
    }

    /// A number or NULL.
    pub fn optional(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => self.bytes.push(NULL),
        }
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.header(TEXTRAW, text.len());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// A value as JSON text, for a column that keeps it. Answers where the text stands among the
    /// bytes of all rows.
    pub fn json(&mut self, value: &impl Serialize) -> serde_json::Result<Range<usize>> {
        let from = open_wide(self.bytes, TEXTRAW);
        serde_json::to_writer(&mut *self.bytes, value)?;
        close_wide(self.bytes, from);
        Ok(from + WIDE_HEADER..self.bytes.len())
    }

    /// A text that is UTF-8 already, copied from where it was written before.
    pub fn copied(&mut self, text: &[u8]) {
        let from = open_wide(self.bytes, TEXTRAW);
        self.bytes.extend_from_slice(text);
        close_wide(self.bytes, from);
    }

    /// NULL.
    pub fn null(&mut self) {
        self.bytes.push(NULL);
    }

    fn header(&mut self, kind: u8, size: usize) {
        match u8::try_from(size) {
            Ok(small @ 0..=11) => self.bytes.push((small << 4) | kind),
            Ok(byte) => self.bytes.extend_from_slice(&[0xC0 | kind, byte]),
            Err(_) => {
                let from = open_wide(self.bytes, kind);
                patch(self.bytes, from, size);
            }
        }
    }
}

fn open_wide(bytes: &mut Vec<u8>, kind: u8) -> usize {
    let from = bytes.len();
    bytes.extend_from_slice(&[SIZE_IN_FOUR | kind, 0, 0, 0, 0]);
    from
}

fn close_wide(bytes: &mut [u8], from: usize) {
    patch(bytes, from, bytes.len() - from - WIDE_HEADER);
}

fn patch(bytes: &mut [u8], from: usize, size: usize) {
    // SQLite takes no value above a gigabyte and refuses the statement, so a size cut here is
    // never read.
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    bytes[from + 1..from + WIDE_HEADER].copy_from_slice(&size.to_be_bytes());
}
