//! A piece of a log as it is sent: its times in one line, then its bytes.
//!
//! A line begins with its first byte, so what goes on with an open line has no time of its own.

use super::spool::Chunk;
use crate::protocol::log_times::LineTimes;

/// Whether the byte before a chunk's byte `at` leaves a line open; `before` says so of its first.
#[must_use]
pub fn is_in_line(chunk: &Chunk, at: usize, before: bool) -> bool {
    at.checked_sub(1).and_then(|at| chunk.bytes.get(at)).map_or(before, |byte| *byte != b'\n')
}

/// How many lines begin in these bytes, where the bytes before leave one open or not.
#[must_use]
pub fn lines_begun(bytes: &[u8], in_line: bool) -> u64 {
    let Some(last) = bytes.last() else { return 0 };
    let feeds = memchr::memchr_iter(b'\n', bytes).count() as u64;
    u64::from(!in_line) + feeds - u64::from(*last == b'\n')
}

/// A chunk from its byte `skip` on as the body of a request; `before` says whether a line is open before
/// its first byte.
#[must_use]
pub fn body(chunk: &Chunk, skip: usize, before: bool) -> Vec<u8> {
    let moment = |time_ms: i64| u64::try_from(time_ms).unwrap_or(0);
    let mut times = LineTimes::starting(chunk.pieces.first().map_or(0, |(time_ms, _)| moment(*time_ms)));
    let mut begins = 0;
    for (time_ms, length) in &chunk.pieces {
        let ends = begins + length;
        let from = begins.max(skip).min(ends);
        for _ in 0..lines_begun(&chunk.bytes[from..ends], is_in_line(chunk, from, before)) {
            times.begin_line(moment(*time_ms));
        }
        begins = ends;
    }
    let mut body = format!("{times}\n").into_bytes();
    body.reserve_exact(chunk.bytes.len() - skip);
    body.extend_from_slice(&chunk.bytes[skip..]);
    body
}

#[cfg(test)]
mod tests {
    use super::{body, lines_begun};
    use crate::cli::agent::output::spool::Chunk;

    fn sent(pieces: &[(i64, &str)], skip: usize, before: bool) -> String {
        let chunk = Chunk {
            offset: 0,
            pieces: pieces.iter().map(|(time_ms, text)| (*time_ms, text.len())).collect(),
            bytes: pieces.iter().flat_map(|(_, text)| text.bytes()).collect(),
        };
        String::from_utf8(body(&chunk, skip, before)).unwrap()
    }

    #[test]
    fn a_line_begins_with_its_first_byte() {
        for (text, in_line, lines) in [
            ("", false, 0),
            ("a", false, 1),
            ("a", true, 0),
            ("a\n", false, 1),
            ("\n", true, 0),
            ("\n", false, 1),
            ("a\nb", false, 2),
            ("a\nb\n\n", true, 2),
        ] {
            assert_eq!(lines_begun(text.as_bytes(), in_line), lines, "{text:?} {in_line}");
        }
    }

    #[test]
    fn times_are_of_the_lines_that_begin() {
        assert_eq!(sent(&[(1000, "a\nb\n")], 0, false), "1000;2+0\na\nb\n");
        assert_eq!(sent(&[(1000, "a"), (1005, "b\n"), (1009, "c\n")], 0, false), "1000;1+0,1+9\nab\nc\n");
        assert_eq!(sent(&[(1000, "rest\n"), (1007, "c")], 0, true), "1000;1+7\nrest\nc");
        assert_eq!(sent(&[(1000, "rest")], 0, true), "1000;\nrest");
        assert_eq!(
            sent(&[(1000, "a\n"), (1000, "b\n"), (990, "c\n"), (1001, "d\n")], 0, false),
            "1000;3+0,1+1\na\nb\nc\nd\n"
        );
    }

    #[test]
    fn what_is_stored_already_is_left_out_with_its_lines() {
        let pieces = [(1000, "one\ntwo\n"), (1010, "three\n")];
        assert_eq!(sent(&pieces, 4, true), "1000;1+0,1+10\ntwo\nthree\n");
        assert_eq!(sent(&pieces, 5, false), "1000;1+10\nwo\nthree\n");
        assert_eq!(sent(&pieces, 8, false), "1000;1+10\nthree\n");
    }
}
