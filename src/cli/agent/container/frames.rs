//! The two streams of a container as one, with its lines whole.
//!
//! An engine cuts lines at 16 KiB and hands both streams over in frames. Pieces of one line follow each
//! other as they are; only where the other stream comes in between does a line have to be waited for, and
//! then not for ever: a program may print without ever ending its line.

use std::time::Duration;

use crate::clock::{BootTime, boot_now};

/// Bytes at which engines cut a line.
const FRAME_BYTES: usize = 16 * 1024;
/// Bytes of the other stream that wait for the end of a line, at most.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
/// How long they wait.
const WAITING_MS_MAX: u64 = 250;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Puts frames together.
#[derive(Debug, Default)]
pub struct Frames {
    /// Whose line was cut, and is not at its end.
    cut: Option<Stream>,
    /// What the other stream said meanwhile, and since when.
    waiting: Vec<u8>,
    since: Option<BootTime>,
}

impl Frames {
    /// Takes a frame in; answers what may be shown, in order.
    pub fn push(&mut self, stream: Stream, frame: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(frame.len());
        match self.cut {
            Some(cut) if cut != stream => {
                self.waiting.extend_from_slice(frame);
                self.since.get_or_insert_with(boot_now);
                if self.waiting.len() > WAITING_BYTES_MAX {
                    shown = self.flush();
                }
            }
            Some(_) => match memchr::memchr(b'\n', frame) {
                Some(end) => {
                    shown.extend_from_slice(&frame[..=end]);
                    shown.extend(self.flush());
                    let rest = &frame[end + 1..];
                    shown.extend_from_slice(rest);
                    self.cut = is_cut(rest, frame.len()).then_some(stream);
                }
                None => shown.extend_from_slice(frame),
            },
            None => {
                shown.extend_from_slice(frame);
                self.cut = is_cut(frame, frame.len()).then_some(stream);
            }
        }
        shown
    }

    /// How long what waits may still; `None` where nothing does.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        let until = self.since?.plus(WAITING_MS_MAX);
        Some(Duration::from_millis(until.since(boot_now())))
    }

    /// No longer waits for the end of the line.
    pub fn flush(&mut self) -> Vec<u8> {
        self.cut = None;
        self.since = None;
        std::mem::take(&mut self.waiting)
    }
}

/// Whether what a frame ends with was cut by the engine.
fn is_cut(rest: &[u8], frame_bytes: usize) -> bool {
    frame_bytes >= FRAME_BYTES && rest.last().is_some_and(|last| *last != b'\n')
}

#[cfg(test)]
mod tests {
    use super::{FRAME_BYTES, Frames, Stream, WAITING_BYTES_MAX};

    fn joined(frames: &[(Stream, &str)]) -> String {
        let mut joiner = Frames::default();
        let mut shown: Vec<u8> =
            frames.iter().flat_map(|(stream, text)| joiner.push(*stream, text.as_bytes())).collect();
        shown.extend(joiner.flush());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn a_line_that_was_cut_is_whole_again() {
        let cut = "x".repeat(FRAME_BYTES);
        let frames = [
            (Stream::Out, cut.as_str()),
            (Stream::Err, "oops\n"),
            (Stream::Out, cut.as_str()),
            (Stream::Err, "again\n"),
            (Stream::Out, "end\nnext\n"),
        ];
        assert_eq!(joined(&frames), format!("{cut}{cut}end\noops\nagain\nnext\n"));
    }

    #[test]
    fn what_is_not_cut_keeps_its_order() {
        let frames = [(Stream::Out, "name? "), (Stream::Err, "oops\n"), (Stream::Out, "ann\n")];
        assert_eq!(joined(&frames), "name? oops\nann\n");
    }

    #[test]
    fn a_line_without_an_end_holds_nothing_up_for_ever() {
        let mut joiner = Frames::default();
        let _ = joiner.push(Stream::Out, &[b'x'; FRAME_BYTES]);
        assert!(joiner.patience().is_none());
        assert!(joiner.push(Stream::Err, b"oops\n").is_empty());
        assert!(joiner.patience().is_some());
        assert_eq!(joiner.flush(), b"oops\n");
        assert!(joiner.patience().is_none());
        let _ = joiner.push(Stream::Out, &[b'x'; FRAME_BYTES]);
        assert_eq!(joiner.push(Stream::Err, &[b'e'; WAITING_BYTES_MAX + 1]).len(), WAITING_BYTES_MAX + 1);
    }
}
