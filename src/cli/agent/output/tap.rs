//! The pipe that a build prints into, and what is done with each read of it.
//!
//! A thread of its own reads: the disk may be slow, and a full spool makes it wait. Between steps, when
//! nothing of a step is left that could print, [`Tap::drain`] takes what is in the pipe, so that what is
//! said next stands behind it.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::chunk::lines_begun;
use super::mask::Masker;
use super::spool::{Room, SpoolWriter};
use crate::clock::wall_now_ms;
use crate::protocol::builds::LogEndInfo;
use crate::units::hex;

/// Bytes that are read at once, and that the pipe holds where the system lets it.
const PIPE_BYTES: usize = 1024 * 1024;
/// Bytes of lines of the agent's own that wait for the end of a build's line.
const NOTES_BYTES_MAX: usize = 64 * 1024;

/// Takes in what a build prints.
#[derive(Clone)]
pub struct Tap {
    shared: Arc<Shared>,
}

struct Shared {
    intake: Mutex<Intake>,
    pipe: OwnedFd,
    room: Room,
}

struct Intake {
    masker: Masker,
    ledger: Ledger,
    /// Lines of the agent's own that wait for the end of a build's line, masked.
    notes: Vec<u8>,
    /// What reads go into.
    buffer: Vec<u8>,
    /// Why nothing more is kept: the disk, or the end.
    failed: watch::Sender<Option<String>>,
}

/// Counts what is stored.
struct Ledger {
    spool: SpoolWriter,
    hash: Sha256,
    bytes: u64,
    lines: u64,
    in_line: bool,
}

impl Ledger {
    /// Takes what a build printed, and `notes` where they do not part a line. What is kept back as a secret's
    /// beginning does not mind: it goes on behind them.
    fn take_with(&mut self, notes: &mut Vec<u8>, time_ms: i64, mut bytes: &[u8]) -> io::Result<()> {
        if !notes.is_empty()
            && self.in_line
            && let Some(feed) = memchr::memchr(b'\n', bytes)
        {
            self.take(time_ms, &bytes[..=feed])?;
            bytes = &bytes[feed + 1..];
        }
        if !notes.is_empty() && !self.in_line {
            self.take(time_ms, &std::mem::take(notes))?;
        }
        self.take(time_ms, bytes)
    }

    fn take(&mut self, time_ms: i64, bytes: &[u8]) -> io::Result<()> {
        self.spool.append(time_ms, bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.lines += lines_begun(bytes, self.in_line);
        self.in_line = bytes.last().map_or(self.in_line, |last| *last != b'\n');
        Ok(())
    }
}

/// A pipe for a build: what is read from, and what the build gets.
///
/// # Errors
/// When the system gives none.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // Only the reading end: a build's programs expect a pipe that waits.
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    #[cfg(target_os = "linux")]
    // A smaller one works too, with more reads.
    let _ = nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETPIPE_SZ(i32::try_from(PIPE_BYTES).unwrap_or(0)));
    Ok((read, write))
}

impl Tap {
    /// Begins to read `pipe`, which does not wait, on a thread that ends with the process.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn open(pipe: OwnedFd, masker: Masker, spool: SpoolWriter) -> io::Result<Self> {
        let room = spool.room();
        let ledger = Ledger { spool, hash: Sha256::new(), bytes: 0, lines: 0, in_line: false };
        let (notes, buffer) = (Vec::new(), vec![0; PIPE_BYTES]);
        let intake = Intake { masker, ledger, notes, buffer, failed: watch::Sender::default() };
        let tap = Self { shared: Arc::new(Shared { intake: Mutex::new(intake), pipe, room }) };
        let reading = Arc::clone(&tap.shared);
        std::thread::Builder::new().name("output".to_owned()).spawn(move || reading.read_on())?;
        Ok(tap)
    }

    /// More secrets than were known at first: of the lease, which came later.
    pub fn mask(&self, masker: Masker) {
        let mut intake = self.shared.intake();
        intake.flush();
        intake.masker = masker;
    }

    /// Takes in what is in the pipe, and not for as long as somebody fills it. Nothing that is kept back as a
    /// secret's beginning is any more.
    pub fn drain(&self) {
        let mut intake = self.shared.intake();
        let mut left = PIPE_BYTES;
        while let read @ 1.. = intake.read(&self.shared.pipe, left) {
            left -= read;
        }
        intake.flush();
    }

    /// Says something of the agent's own in the log, in a line of its own.
    pub fn say(&self, line: &str) {
        self.drain();
        let mut intake = self.shared.intake();
        let feed = if intake.ledger.in_line { "\n" } else { "" };
        intake.take(format!("{feed}{line}\n").as_bytes());
        intake.flush();
    }

    /// Says something of the agent's own while a step prints: in a line of its own as soon as no other is open.
    pub fn note(&self, line: &str) {
        let mut intake = self.shared.intake();
        if intake.notes.len() > NOTES_BYTES_MAX {
            return;
        }
        let Intake { masker, notes, .. } = &mut *intake;
        let mut masker = masker.another();
        let mut add = |bytes: &[u8]| {
            notes.extend_from_slice(bytes);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = masker.feed(format!("{line}\n").as_bytes(), &mut add);
        let Ok(()) = masker.flush(&mut add);
        intake.take(&[]);
    }

    /// Why nothing more can be kept, as soon as that is so.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared.intake().failed.subscribe()
    }

    /// The end: what the log comes to. Nothing is taken in any more.
    #[must_use]
    pub fn finish(&self) -> LogEndInfo {
        self.drain();
        let mut intake = self.shared.intake();
        intake.ledger.spool.finish();
        let sha256 = hex(&std::mem::take(&mut intake.ledger.hash).finalize());
        intake.failed.send_replace(Some("it is finished".to_owned()));
        LogEndInfo { bytes: intake.ledger.bytes, lines: intake.ledger.lines, sha256 }
    }
}

impl Shared {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_on(&self) {
        let mut waited = [PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN)];
        loop {
            self.room.wait();
            match poll(&mut waited, PollTimeout::NONE) {
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            }
            let ended = waited[0].revents().is_some_and(|seen| !seen.contains(PollFlags::POLLIN));
            if self.intake().read(&self.pipe, PIPE_BYTES) == 0 && ended {
                return;
            }
        }
    }
}

impl Intake {
    /// One read of the pipe, of at most so many bytes; answers how many were in it.
    fn read(&mut self, pipe: &OwnedFd, bytes_max: usize) -> usize {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = loop {
            match nix::unistd::read(pipe, &mut buffer[..bytes_max.min(PIPE_BYTES)]) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other.unwrap_or(0),
            }
        };
        self.take(&buffer[..read]);
        self.buffer = buffer;
        read
    }

    /// What cannot be kept is thrown away, so that a build is not held up until it is ended for that.
    fn take(&mut self, bytes: &[u8]) {
        let Self { masker, ledger, notes, failed, .. } = self;
        if failed.borrow().is_some() {
            return;
        }
        let time_ms = wall_now_ms();
        let fed = match bytes {
            // For what waits.
            [] => ledger.take_with(notes, time_ms, &[]),
            bytes => masker.feed(bytes, |bytes| ledger.take_with(notes, time_ms, bytes)),
        };
        if let Err(error) = fed {
            failed.send_replace(Some(error.to_string()));
        }
    }

    fn flush(&mut self) {
        let Self { masker, ledger, notes, failed, .. } = self;
        let time_ms = wall_now_ms();
        if failed.borrow().is_some() {
            return;
        }
        if let Err(error) = masker.flush(|bytes| ledger.take_with(notes, time_ms, bytes)) {
            failed.send_replace(Some(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::super::mask::Masker;
    use super::super::spool::{Bounds, SpoolReader, create};
    use super::{PIPE_BYTES, Tap, pipe};

    /// A tap whose own thread reads nothing: what is printed is taken in when that is asked for.
    fn tap(folder: &std::path::Path, secrets: &[&str]) -> (Tap, std::fs::File, SpoolReader) {
        let (read, write) = pipe().unwrap();
        let (writer, reader) = create(folder, Bounds { file_bytes: 1 << 20, spool_bytes: 0 }).unwrap();
        let tap = Tap::open(read, Masker::new(secrets.iter().copied()), writer).unwrap();
        (tap, std::fs::File::from(write), reader)
    }

    fn log(mut reader: SpoolReader) -> String {
        String::from_utf8(reader.next(1 << 20).unwrap().bytes).unwrap()
    }

    #[test]
    fn whoever_prints_on_and_on_does_not_hold_up_who_waits_for_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (tap, mut print, reader) = tap(folder.path(), &[]);
        // As good as for ever: it is more than a pipe holds.
        std::thread::spawn(move || (0..64).try_for_each(|_| print.write_all(&vec![b'x'; PIPE_BYTES])));
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tap.drain();
            let _ = tell.send(());
        });
        told.recv_timeout(Duration::from_secs(60)).expect("it comes to an end");
        assert!(reader.waiting() <= PIPE_BYTES as u64, "{} bytes", reader.waiting());
    }

    #[test]
    fn a_note_parts_neither_a_line_nor_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let (tap, mut print, reader) = tap(folder.path(), &["hunter22", "a\nb\nc\nd"]);
        tap.note("first, hunter22");
        let mut prints = |text: &str| {
            print.write_all(text.as_bytes()).unwrap();
            let mut intake = tap.shared.intake();
            intake.read(&tap.shared.pipe, text.len());
        };
        prints("one hunt");
        tap.note("amid a line");
        prints("er22\ntwo\n");
        prints("a\nb");
        tap.note("amid a secret");
        prints("\nc\nd\nrest");
        tap.note("at the end");
        tap.drain();
        tap.say("--- over");
        let expected = "first, ***\none ***\namid a line\ntwo\namid a secret\n***\nrest\nat the end\n--- over\n";
        assert_eq!(log(reader), expected);
    }
}
