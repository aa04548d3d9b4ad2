//! What a build printed and the broker does not have yet: files in the build's folder, within a bound.
//!
//! One side appends, the other reads from what the broker acknowledged last; a file goes when all of it is
//! acknowledged. In a file one piece follows another, each behind a head of twelve bytes: when it was
//! printed (Unix milliseconds, 8) and how long it is (4), least byte first. So the times of the lines are
//! kept with the bytes, whatever the pieces are put together to, and what a crash leaves can be read.
//!
//! At the bound nothing more is read from the build, which waits as it would for a slow terminal. Where
//! nobody will ever take the rest, it is counted and thrown away.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes of a file, about.
pub const FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes on disk beyond which nothing more is taken in.
pub const SPOOL_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of one piece.
const PIECE_BYTES_MAX: usize = 1024 * 1024;
/// Pieces that are handed out at once: each may have a time of its own.
const PIECES_MAX: usize = 4096;
const HEAD_BYTES: usize = 12;
/// Bytes that are read from disk at once.
const READ_BYTES: usize = 64 * 1024;

/// How much may be kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Of a file.
    pub file_bytes: u64,
    /// Of all of them.
    pub spool_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { file_bytes: FILE_BYTES, spool_bytes: SPOOL_BYTES_MAX }
    }
}

/// Makes an empty one in a folder that is its own.
///
/// # Errors
/// When the folder cannot be made.
pub fn create(folder: &Path, bounds: Bounds) -> io::Result<(SpoolWriter, SpoolReader)> {
    std::fs::create_dir_all(folder)?;
    let shared = Arc::new(Shared::default());
    let writer = SpoolWriter { shared: Arc::clone(&shared), folder: folder.to_owned(), bounds, file: None, number: 0 };
    Ok((writer, SpoolReader { shared, file: None, left: 0, time_ms: 0, offset: 0 }))
}

/// Reads what a process that is gone has left: nothing follows. Where the disk lost something of it, as when the power
/// fails, it is read up to there.
///
/// # Errors
/// When the folder cannot be read.
pub fn reopen(folder: &Path) -> io::Result<SpoolReader> {
    let mut files: Vec<SpoolFile> = Vec::new();
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.sort();
    for path in names {
        let named = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
        let numbers = named.and_then(|(number, begins)| Some((number.parse().ok()?, begins.parse().ok()?)));
        let Some((number, begins)) = numbers else { continue };
        // What stands behind a gap has its place in the log, and nothing can be sent that leads to it.
        if files.last().is_some_and(|last| last.begins + last.bytes != begins) {
            break;
        }
        let (bytes, raw) = whole_pieces(&path)?;
        files.push(SpoolFile { number, path, begins, bytes, raw });
    }
    let offset = files.first().map_or(0, |file| file.begins);
    let written = files.last().map_or(0, |file| file.begins + file.bytes);
    let state = State { files: files.into(), written, acknowledged: offset, over: true, ..State::default() };
    let shared = Arc::new(Shared { state: Mutex::new(state), ..Shared::default() });
    Ok(SpoolReader { shared, file: None, left: 0, time_ms: 0, offset })
}

/// Bytes of output in the pieces of a file that are there to their ends, and bytes of the file up to there.
fn whole_pieces(path: &Path) -> io::Result<(u64, u64)> {
    let length = std::fs::metadata(path)?.len();
    let mut file = BufReader::new(File::open(path)?);
    let (mut bytes, mut raw) = (0, 0);
    let mut head = [0; HEAD_BYTES];
    while file.read_exact(&mut head).is_ok() {
        let piece = u64::from(head_of(&head).1);
        if raw + HEAD_BYTES as u64 + piece > length {
            break;
        }
        (bytes, raw) = (bytes + piece, raw + HEAD_BYTES as u64 + piece);
        file.seek_relative(i64::try_from(piece).unwrap_or(i64::MAX))?;
    }
    Ok((bytes, raw))
}

fn head_of(head: &[u8; HEAD_BYTES]) -> (i64, u32) {
    let (mut time, mut length) = ([0; 8], [0; 4]);
    time.copy_from_slice(&head[..8]);
    length.copy_from_slice(&head[8..]);
    (i64::from_le_bytes(time), u32::from_le_bytes(length))
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was acknowledged, or nothing will be.
    room: Condvar,
    /// Something was written, or nothing more will be.
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    files: VecDeque<SpoolFile>,
    /// Bytes of the log that were written to files.
    written: u64,
    acknowledged: u64,
    /// Nothing more is written.
    over: bool,
    /// Nothing more is taken by anybody.
    abandoned: bool,
}

#[derive(Debug)]
struct SpoolFile {
    /// From 1; in order.
    number: u64,
    path: PathBuf,
    /// The place in the log of its first byte.
    begins: u64,
    /// Bytes of the log in it.
    bytes: u64,
    /// Bytes of the file that may be read.
    raw: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn on_disk(&self) -> u64 {
        self.files.iter().map(|file| file.raw).sum()
    }
}

/// The end that appends.
#[derive(Debug)]
pub struct SpoolWriter {
    shared: Arc<Shared>,
    folder: PathBuf,
    bounds: Bounds,
    file: Option<File>,
    number: u64,
}

impl SpoolWriter {
    /// Appends what was printed at that moment, Unix milliseconds.
    ///
    /// # Errors
    /// When the disk does not take it; nothing more can be appended then.
    pub fn append(&mut self, time_ms: i64, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE_BYTES_MAX) {
            self.append_piece(time_ms, piece)?;
        }
        Ok(())
    }

    fn append_piece(&mut self, time_ms: i64, piece: &[u8]) -> io::Result<()> {
        if self.shared.state().abandoned {
            return Ok(());
        }
        let raw = (HEAD_BYTES + piece.len()) as u64;
        let mut file = self.file_for(raw)?;
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&time_ms.to_le_bytes());
        head[8..].copy_from_slice(&u32::try_from(piece.len()).unwrap_or(u32::MAX).to_le_bytes());
        write_both(&mut file, &head, piece)?;
        self.file = Some(file);
        let mut state = self.shared.state();
        state.written += piece.len() as u64;
        if let Some(last) = state.files.back_mut() {
            last.bytes += piece.len() as u64;
            last.raw += raw;
        }
        drop(state);
        self.shared.more.notify_one();
        Ok(())
    }

    /// The file that the next bytes go to: the present one, or a new one where that is full.
    fn file_for(&mut self, raw: u64) -> io::Result<File> {
        let is_full = |file: &SpoolFile| file.raw > 0 && file.raw + raw > self.bounds.file_bytes;
        if !self.shared.state().files.back().is_none_or(is_full)
            && let Some(file) = self.file.take()
        {
            return Ok(file);
        }
        let begins = self.shared.state().written;
        self.number += 1;
        let number = self.number;
        let path = self.folder.join(format!("{number:08}-{begins}.part"));
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        self.shared.state().files.push_back(SpoolFile { number, path, begins, bytes: 0, raw: 0 });
        Ok(file)
    }

    /// For who waits for room.
    #[must_use]
    pub fn room(&self) -> Room {
        Room { shared: Arc::clone(&self.shared), bound: self.bounds.spool_bytes }
    }

    /// Nothing more follows.
    pub fn finish(&mut self) {
        self.file = None;
        self.shared.state().over = true;
        self.shared.more.notify_one();
    }
}

/// Writes both, one behind the other.
fn write_both(file: &mut File, head: &[u8], piece: &[u8]) -> io::Result<()> {
    let written = file.write_vectored(&[IoSlice::new(head), IoSlice::new(piece)])?;
    if written < head.len() {
        file.write_all(&head[written..])?;
    }
    file.write_all(&piece[written.saturating_sub(head.len())..])
}

/// Whether there is room for more.
#[derive(Clone, Debug)]
pub struct Room {
    shared: Arc<Shared>,
    bound: u64,
}

impl Room {
    fn is_there(&self, state: &State) -> bool {
        state.abandoned || state.on_disk() < self.bound
    }

    /// Waits for room, on a thread that may wait.
    pub fn wait(&self) {
        let mut state = self.shared.state();
        while !self.is_there(&state) {
            state = self.shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether there is none at present.
    #[cfg(test)]
    fn is_full(&self) -> bool {
        !self.is_there(&self.shared.state())
    }
}

/// Some of the log, with when its pieces were printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The place in the log of its first byte.
    pub offset: u64,
    /// When, Unix milliseconds, and how many of its bytes, in order.
    pub pieces: Vec<(i64, usize)>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The file that is read.
#[derive(Debug)]
struct Open {
    file: BufReader<File>,
    number: u64,
    raw_read: u64,
}

/// The end that is read, from what was acknowledged on.
#[derive(Debug)]
pub struct SpoolReader {
    shared: Arc<Shared>,
    file: Option<Open>,
    /// Of the piece that was begun.
    left: usize,
    time_ms: i64,
    /// The place in the log that is read next.
    offset: u64,
}

impl SpoolReader {
    /// Bytes that wait to be read.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.shared.state().written - self.offset
    }

    /// The place in the log that is read next.
    #[cfg(test)]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether everything was written that ever will be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.state().over
    }

    /// Waits until something was written, or nothing more will be, since it returned last.
    pub async fn more(&self) {
        self.shared.more.notified().await;
    }

    /// The next bytes, at most so many; empty where none wait.
    ///
    /// # Errors
    /// When the disk does not give them back.
    pub fn next(&mut self, bytes_max: usize) -> io::Result<Chunk> {
        let room = usize::try_from(self.waiting()).unwrap_or(usize::MAX).min(bytes_max);
        let mut chunk = Chunk { offset: self.offset, bytes: Vec::with_capacity(room), ..Chunk::default() };
        while chunk.bytes.len() < bytes_max && chunk.pieces.len() < PIECES_MAX {
            if self.left == 0 && !self.next_piece()? {
                break;
            }
            let Some(open) = &mut self.file else { break };
            let count = self.left.min(bytes_max - chunk.bytes.len());
            let from = chunk.bytes.len();
            chunk.bytes.resize(from + count, 0);
            open.file.read_exact(&mut chunk.bytes[from..])?;
            open.raw_read += count as u64;
            match chunk.pieces.last_mut() {
                Some((time_ms, bytes)) if *time_ms == self.time_ms => *bytes += count,
                _ => chunk.pieces.push((self.time_ms, count)),
            }
            self.left -= count;
            self.offset += count as u64;
        }
        Ok(chunk)
    }

    /// Reads the next head; `false` where no piece waits.
    fn next_piece(&mut self) -> io::Result<bool> {
        while self.left == 0 {
            let present = self.file.as_ref().map_or(0, |open| open.number);
            let read = self.file.as_ref().map_or(0, |open| open.raw_read);
            let next = {
                let state = self.shared.state();
                let unread = |file: &&SpoolFile| {
                    file.number > present && file.raw > 0 || file.number == present && file.raw > read
                };
                let Some(file) = state.files.iter().find(unread) else { return Ok(false) };
                (file.number > present).then(|| (file.number, file.path.clone()))
            };
            if let Some((number, path)) = next {
                let file = BufReader::with_capacity(READ_BYTES, File::open(path)?);
                self.file = Some(Open { file, number, raw_read: 0 });
            }
            let Some(open) = &mut self.file else { return Ok(false) };
            let mut head = [0; HEAD_BYTES];
            open.file.read_exact(&mut head)?;
            open.raw_read += HEAD_BYTES as u64;
            let (time_ms, length) = head_of(&head);
            (self.time_ms, self.left) = (time_ms, length as usize);
        }
        Ok(true)
    }

    /// For who hears how far the broker is.
    #[must_use]
    pub fn acknowledged(&self) -> Acknowledged {
        Acknowledged { shared: Arc::clone(&self.shared) }
    }

    /// The broker has everything before `offset`.
    #[cfg(test)]
    pub fn acknowledge(&self, offset: u64) {
        self.acknowledged().up_to(offset);
    }

    /// Nobody takes the rest: it goes, and so does what will be written.
    pub fn abandon(&self) {
        let files = {
            let mut state = self.shared.state();
            state.abandoned = true;
            std::mem::take(&mut state.files)
        };
        for file in files {
            let _ = std::fs::remove_file(file.path);
        }
        self.shared.room.notify_all();
    }
}

/// How far the broker is.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    shared: Arc<Shared>,
}

impl Acknowledged {
    /// The broker has everything before `offset`: files of which nothing else is left go.
    pub fn up_to(&self, offset: u64) {
        let mut gone = Vec::new();
        {
            let mut state = self.shared.state();
            state.acknowledged = state.acknowledged.max(offset);
            let (acknowledged, over) = (state.acknowledged, state.over);
            // The last one may still be appended to.
            while let Some(first) = state.files.front()
                && (state.files.len() > 1 || over)
                && first.begins + first.bytes <= acknowledged
            {
                gone.extend(state.files.pop_front());
            }
        }
        for file in gone {
            // What cannot be removed goes with the build's folder.
            let _ = std::fs::remove_file(file.path);
        }
        self.shared.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Chunk, PIECES_MAX, SpoolReader, create, reopen};

    const SMALL: Bounds = Bounds { file_bytes: 100, spool_bytes: 400 };

    fn all(reader: &mut SpoolReader, at_once: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let chunk = reader.next(at_once).unwrap();
            assert_eq!(chunk.offset + chunk.bytes.len() as u64, reader.offset());
            assert_eq!(chunk.pieces.iter().map(|(_, bytes)| bytes).sum::<usize>(), chunk.bytes.len());
            if chunk.bytes.is_empty() {
                return bytes;
            }
            bytes.extend(chunk.bytes);
        }
    }

    fn files(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_goes_in_comes_out_whatever_is_asked_for_at_once() {
        for at_once in [1, 7, 64, 100_000] {
            let folder = tempfile::tempdir().unwrap();
            let (mut writer, mut reader) = create(folder.path(), SMALL).unwrap();
            let mut expected: Vec<u8> = Vec::new();
            for round in 0..50_u8 {
                let piece = vec![round; usize::from(round)];
                writer.append(i64::from(round), &piece).unwrap();
                expected.extend(&piece);
            }
            assert_eq!(reader.waiting(), expected.len() as u64);
            assert_eq!(all(&mut reader, at_once), expected);
            assert_eq!(reader.waiting(), 0);
            writer.append(99, b"more").unwrap();
            assert_eq!(reader.next(10).unwrap(), Chunk { offset: 1225, pieces: vec![(99, 4)], bytes: b"more".into() });
        }
    }

    #[test]
    fn pieces_of_one_moment_are_one_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = create(folder.path(), SMALL).unwrap();
        for (time_ms, text) in [(5, "ab"), (5, "c"), (6, "de"), (5, "f")] {
            writer.append(time_ms, text.as_bytes()).unwrap();
        }
        assert_eq!(reader.next(100).unwrap().pieces, [(5, 3), (6, 2), (5, 1)]);
        for time_ms in 0..=PIECES_MAX {
            writer.append(i64::try_from(time_ms).unwrap(), b"x").unwrap();
        }
        assert_eq!(reader.next(usize::MAX >> 1).unwrap().bytes.len(), PIECES_MAX);
        assert_eq!(reader.next(100).unwrap().bytes.len(), 1);
    }

    #[test]
    fn a_file_goes_when_all_of_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = create(folder.path(), SMALL).unwrap();
        for _ in 0..6 {
            writer.append(0, &[b'x'; 80]).unwrap();
        }
        let room = writer.room();
        assert!(room.is_full());
        assert_eq!((files(folder.path()), all(&mut reader, 100).len()), (6, 480));
        reader.acknowledge(159);
        assert_eq!(files(folder.path()), 5);
        reader.acknowledge(480);
        assert_eq!(files(folder.path()), 1, "the last may still be appended to");
        assert!(!room.is_full());
        room.wait();
        writer.append(0, b"after").unwrap();
        assert_eq!(reader.next(100).unwrap().bytes, b"after");
        writer.finish();
        assert!(reader.is_over());
        reader.acknowledge(485);
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn at_the_bound_one_waits_until_the_other_has_read() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = create(folder.path(), SMALL).unwrap();
        let room = writer.room();
        let printing = std::thread::spawn(move || {
            for _ in 0..100 {
                room.wait();
                writer.append(0, &[b'x'; 50]).unwrap();
            }
            writer.finish();
        });
        let mut read = 0;
        while read < 5000 {
            read += reader.next(64).unwrap().bytes.len();
            reader.acknowledge(reader.offset());
            let on_disk: u64 = std::fs::read_dir(folder.path())
                .unwrap()
                .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
                .sum();
            assert!(on_disk <= SMALL.spool_bytes + SMALL.file_bytes, "{on_disk} on disk");
        }
        printing.join().unwrap();
    }

    #[test]
    fn one_that_nobody_takes_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, reader) = create(folder.path(), SMALL).unwrap();
        writer.append(0, &[b'x'; 450]).unwrap();
        let room = writer.room();
        let waiting = std::thread::spawn(move || room.wait());
        reader.abandon();
        waiting.join().unwrap();
        writer.append(0, b"and more").unwrap();
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn what_a_crash_left_is_read_up_to_the_last_whole_piece() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = create(folder.path(), SMALL).unwrap();
        for round in 0..10_u8 {
            writer.append(i64::from(round), &[round; 30]).unwrap();
        }
        reader.next(100).unwrap();
        reader.acknowledge(70);
        let last = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
        let text = std::fs::read(&last).unwrap();
        std::fs::write(&last, &text[..text.len() - 1]).unwrap();
        let mut left = reopen(folder.path()).unwrap();
        assert_eq!((left.offset(), left.is_over()), (60, true));
        let expected: Vec<u8> = (2..9_u8).flat_map(|round| [round; 30]).collect();
        assert_eq!(all(&mut left, 1000), expected);
        left.acknowledge(left.offset());
        assert_eq!(files(folder.path()), 0);
    }

    #[test]
    fn what_a_crash_left_with_a_gap_is_read_up_to_there() {
        for (cut, whole) in [(1, 5), (43, 4), (84, 4)] {
            let folder = tempfile::tempdir().unwrap();
            let (mut writer, _reader) = create(folder.path(), SMALL).unwrap();
            // Two pieces of 42 bytes in a file.
            for round in 0..10_u8 {
                writer.append(i64::from(round), &[round; 30]).unwrap();
            }
            let mut names: Vec<_> =
                std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            names.sort();
            let text = std::fs::read(&names[2]).unwrap();
            std::fs::write(&names[2], &text[..text.len() - cut]).unwrap();
            let mut left = reopen(folder.path()).unwrap();
            let expected: Vec<u8> = (0..whole).flat_map(|round| [round; 30]).collect();
            assert_eq!((left.waiting(), left.offset()), (expected.len() as u64, 0));
            assert_eq!(all(&mut left, 1000), expected);
            assert_eq!((left.waiting(), left.is_over()), (0, true), "nothing is waited for");
        }
    }
}
