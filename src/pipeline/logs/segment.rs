//! A sealed part of a log as an object: what `zstd -dc` gives for it is the log's bytes, untouched.
//!
//! ```text
//!   skippable frame: 5C 2A 4D 18, length (4 bytes, little-endian), when the lines began: as zstd
//!   zstd frame, with its checksum: the bytes
//! ```
//!
//! So whoever has only the objects, and no database, gets the log by decompressing them in the order of
//! their names. The times are the texts that came with the appends, one a line.

use std::borrow::Cow;
use std::io::{self, Seek as _};

use bytes::Bytes;
use zstd::bulk::{Compressor, decompress};
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::protocol::log_times::{LOG_MOMENT_MS_MAX, LineTimes};

/// One of zstd's sixteen magic numbers for frames that its programs skip.
const SKIPPED: [u8; 4] = [0x5C, 0x2A, 0x4D, 0x18];
/// A log shrinks to a quarter or less at it, and higher levels take several times as long for little more.
const LEVEL: i32 = 1;
/// What the times of a segment may come to, decompressed: one text for each of its appends.
const TIMES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What bytes are to the log that they go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Lines that begin in them.
    pub lines: u64,
    /// Where the first of them begins; the end where none does.
    pub first_start: usize,
    /// Where the last of them begins; the end where none does.
    pub last_start: usize,
    /// Whether they end with a line feed.
    pub whole: bool,
}

/// Looks through bytes that come after a line feed, or after a line that waits for its own.
pub(super) fn scan(bytes: &[u8], open_line: bool) -> Scan {
    let Some((last, before)) = bytes.split_last() else { return Scan { whole: !open_line, ..Scan::default() } };
    // A line feed begins a line where a byte comes after it.
    let fed = memchr::memchr_iter(b'\n', before).count() as u64;
    let first_fed = memchr::memchr(b'\n', before).map_or(bytes.len(), |at| at + 1);
    let last_fed = memchr::memrchr(b'\n', before).map(|at| at + 1);
    Scan {
        lines: fed + u64::from(!open_line),
        first_start: if open_line { first_fed } else { 0 },
        last_start: last_fed.unwrap_or(if open_line { bytes.len() } else { 0 }),
        whole: *last == b'\n',
    }
}

/// How small an object is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// No smaller than what is in it, and about as fast as that can be copied.
    Loose,
    /// As small as is worth its time.
    Tight,
}

impl Packing {
    fn level(self) -> i32 {
        match self {
            // So much haste that it finds nothing to shorten, and takes the bytes as they are.
            Self::Loose => *zstd::compression_level_range().start(),
            Self::Tight => LEVEL,
        }
    }
}

/// Makes the object of these bytes, whose lines began by these texts.
pub(super) fn encode(bytes: &[u8], times: &[u8], packing: Packing) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(packing.level())?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    let times = compressor.compress(times)?;
    let length = u32::try_from(times.len()).map_err(io::Error::other)?;
    let mut object = Vec::with_capacity(SKIPPED.len() + 4 + times.len() + compress_bound(bytes.len()));
    object.extend_from_slice(&SKIPPED);
    object.extend_from_slice(&length.to_le_bytes());
    object.extend_from_slice(&times);
    let mut behind = io::Cursor::new(object);
    behind.seek(io::SeekFrom::End(0))?;
    compressor.compress_to_buffer(bytes, &mut behind)?;
    Ok(behind.into_inner())
}

/// A segment's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The log's bytes.
    pub bytes: Bytes,
    /// The texts of when its lines began, compressed where they come from an object.
    pub times: Times,
}

/// The texts of when lines began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// As zstd.
    Packed(Bytes),
    /// As they are.
    Plain(Bytes),
}

/// Reads an object that has `length` bytes of a log.
pub(super) fn decode(object: &Bytes, length: u64) -> io::Result<Content> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it is no part of a log, or damaged");
    let head: &[u8; 8] = object.first_chunk().ok_or_else(wrong)?;
    let [a, b, c, d, e, f, g, h] = *head;
    let times_end = 8 + u32::from_le_bytes([e, f, g, h]) as usize;
    if [a, b, c, d] != SKIPPED || object.len() < times_end {
        return Err(wrong());
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let bytes = decompress(&object[times_end..], length)?;
    if bytes.len() != length {
        return Err(wrong());
    }
    Ok(Content { bytes: bytes.into(), times: Times::Packed(object.slice(8..times_end)) })
}

/// The object of the same content, as small as is worth its time.
pub(super) fn packed(object: &Bytes, length: u64) -> io::Result<Vec<u8>> {
    let Content { bytes, times } = decode(object, length)?;
    encode(&bytes, &times.texts(), Packing::Tight)
}

impl Times {
    /// The texts; none where they cannot be read any more.
    fn texts(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Plain(texts) => Cow::Borrowed(texts),
            Self::Packed(packed) => {
                // A length that is said to be more than can be is not believed.
                let size = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten().unwrap_or(0);
                let size = usize::try_from(size).unwrap_or(usize::MAX).min(TIMES_BYTES_MAX);
                Cow::Owned(decompress(packed, size).unwrap_or_default())
            }
        }
    }

    /// When each of the lines began, in order; `None` where that is not known any more.
    pub(super) fn moments(&self) -> Vec<(u32, u64)> {
        let mut moments = Vec::new();
        for text in self.texts().split(|byte| *byte == b'\n').filter(|text| !text.is_empty()) {
            // A broker stores what it has read; what it cannot read again has damaged no byte of the log.
            let Ok(times) = LineTimes::parse(text) else { continue };
            let mut at_ms = times.from_ms();
            for together in times.groups() {
                at_ms = at_ms.saturating_add(together.after_ms).min(LOG_MOMENT_MS_MAX);
                moments.push((together.lines, at_ms));
            }
        }
        moments
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Packing, Scan, Times, decode, encode, packed, scan};

    /// By the book: a line begins with its first byte.
    fn slowly(bytes: &[u8], open_line: bool) -> Scan {
        let begins = |at: &usize| if *at == 0 { !open_line } else { bytes[at - 1] == b'\n' };
        let starts: Vec<usize> = (0..bytes.len()).filter(begins).collect();
        Scan {
            lines: starts.len() as u64,
            first_start: starts.first().copied().unwrap_or(bytes.len()),
            last_start: starts.last().copied().unwrap_or(bytes.len()),
            whole: bytes.last().map_or(!open_line, |last| *last == b'\n'),
        }
    }

    proptest! {
        #[test]
        fn lines_are_counted_as_by_hand(text in "[\\n\\ra]{0,12}", open in any::<bool>()) {
            prop_assert_eq!(scan(text.as_bytes(), open), slowly(text.as_bytes(), open));
        }

        #[test]
        fn an_object_gives_back_what_it_was_made_of(bytes in any::<Vec<u8>>(), times in any::<Vec<u8>>()) {
            let length = bytes.len() as u64;
            let loose = Bytes::from(encode(&bytes, &times, Packing::Loose).unwrap());
            let tight = packed(&loose, length).unwrap();
            prop_assert_eq!(&tight, &encode(&bytes, &times, Packing::Tight).unwrap());
            for object in [loose, tight.into()] {
                let content = decode(&object, length).unwrap();
                prop_assert_eq!(&content.bytes, &bytes);
                prop_assert_eq!(&*content.times.texts(), &times);
                // To any zstd, without a word of ours.
                prop_assert_eq!(zstd::decode_all(&*object).unwrap(), bytes.clone());
            }
        }

        #[test]
        fn what_is_no_object_is_refused(object in any::<Vec<u8>>(), length in 0..1_000_u64) {
            prop_assert!(decode(&Bytes::from(object), length).is_err());
        }
    }

    #[test]
    fn a_damaged_object_is_refused() {
        let object = encode(b"a line\nand another\n", b"5;2+1", Packing::Loose).unwrap();
        for at in 0..object.len() {
            let mut damaged = object.clone();
            damaged[at] ^= 0x10;
            if let Ok(content) = decode(&damaged.into(), 19) {
                // In the times, which have a checksum of their own.
                assert_eq!(&*content.bytes, b"a line\nand another\n");
            }
        }
        assert!(decode(&object.into(), 18).is_err());
    }

    #[test]
    fn times_are_told_by_group() {
        let object = Bytes::from(encode(b"a\nb\nc\n", b"5;1+0\n7;1+1,1+10", Packing::Tight).unwrap());
        let content = decode(&object, 6).unwrap();
        assert_eq!(content.times.moments(), [(1, 5), (1, 8), (1, 18)]);
        assert_eq!(Times::Plain(Bytes::from_static(b"5;2+1\nnonsense\n9;")).moments(), [(2, 6)]);
    }
}
