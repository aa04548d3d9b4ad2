//! Reading a log: by bytes, and by lines.
//!
//! A reader asks for each part anew where it is, so it holds nothing while it waits, and what is sealed or
//! left out under its hands does not mislead it. The last few segments that were read stay decompressed:
//! readers of windows come back for their neighbours. Whoever reads a log through comes back for nothing, and
//! has a place of its own for the one that it is at, and a thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::task::spawn_blocking;

use super::segment::{self, Content, Times};
use super::writer::Shown;
use super::{APPENDS_MAX, LogError, Logs};
use crate::builds::log::{Gap, LogId};
use crate::pipeline::aside::Aside;
use crate::store::builds::logs::{LogRecord, Piece, Segment};

/// Bytes of a line that a window shows; the raw text has all of it.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a window, but for its last line: fewer lines than were asked for.
const WINDOW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines of a window.
pub const WINDOW_LINES_MAX: usize = 50_000;
/// Segments that stay decompressed.
const RECENT_MAX: usize = 6;
/// Lines of a window of one who reads through, and their bytes, but for the last: half a segment, so that no
/// more than two are held by them.
const PASSING_LINES_MAX: usize = 4_096;
const PASSING_BYTES_MAX: usize = 512 * 1024;
/// How often a part is looked for that was moved while it was looked for.
const LOOKS_MAX: usize = 8;

/// What is at a place of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// These bytes; none where the log has no more yet.
    Bytes(Bytes),
    /// Nothing any more: it goes on where the gap ends.
    Gap(Gap),
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    /// Where it begins.
    pub offset: u64,
    /// When it began, Unix milliseconds, as its agent says.
    pub at_ms: Option<u64>,
    /// Its bytes without the line feed, the first [`LINE_BYTES_MAX`] of them.
    pub bytes: Bytes,
    /// Whether it has more bytes than that, or they are in the gap.
    pub cut: bool,
    /// Whether its line feed has come. The last line of a log that goes on may still grow.
    pub ended: bool,
}

/// The last segments that were read.
#[derive(Debug)]
pub(super) struct Recent {
    contents: Mutex<VecDeque<(Arc<str>, Content)>>,
    max: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self::at_most(RECENT_MAX)
    }
}

impl Recent {
    const fn at_most(max: usize) -> Self {
        Self { contents: Mutex::new(VecDeque::new()), max }
    }

    fn of(&self, object: &str) -> Option<Content> {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let at = contents.iter().position(|(name, _)| **name == *object)?;
        let found = contents.remove(at)?;
        let content = found.1.clone();
        contents.push_back(found);
        Some(content)
    }

    fn keep(&self, object: &Arc<str>, content: &Content) {
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        contents.push_back((Arc::clone(object), content.clone()));
        if contents.len() > self.max {
            contents.pop_front();
        }
    }
}

/// A run of bytes, and the lines that begin in it.
#[derive(Clone, Debug)]
struct Run {
    offset: u64,
    bytes: Bytes,
    first_line: u64,
    /// Where the first line begins in it; its end where none does.
    first_start: usize,
    times: Times,
}

impl Run {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// Where segments are unpacked and looked through, and kept.
#[derive(Clone, Copy, Debug)]
struct Desk<'a> {
    recent: &'a Recent,
    /// Else on the threads that everybody shares.
    aside: Option<&'a Aside>,
}

impl Desk<'_> {
    async fn work<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
        match self.aside {
            Some(aside) => aside.run(work).await,
            None => spawn_blocking(work).await.map_err(std::io::Error::other),
        }
    }
}

/// A log that is being read through, once, from its first line to its last.
#[derive(Debug)]
pub struct Passage<'a> {
    logs: Logs,
    aside: &'a Aside,
    id: LogId,
    /// Lines that are read at once.
    pub(super) lines_max: usize,
    /// Where it is: the number of the next line, and where that begins if it is known.
    next: u64,
    begins: Option<u64>,
    at: Recent,
}

impl Passage<'_> {
    /// The next lines, few enough to be held while they are worked on, and without their times; none at the
    /// end.
    ///
    /// # Errors
    /// As for [`Logs::read`].
    pub async fn next(&mut self) -> Result<Vec<Line>, LogError> {
        let window = Window {
            next: self.next,
            begins: self.begins,
            count: self.lines_max,
            bytes_max: PASSING_BYTES_MAX,
            untimed: true,
            ..Window::default()
        };
        let lines = self.logs.fill(self.id, window, Desk { recent: &self.at, aside: Some(self.aside) }).await?;
        if let Some(last) = lines.last() {
            self.next = last.number + 1;
            // Behind its line feed.
            self.begins = (!last.cut).then(|| last.offset + last.bytes.len() as u64 + 1);
        }
        Ok(lines)
    }
}

impl Logs {
    /// Reads a log through, for whoever wants all of it and comes back for nothing.
    #[must_use]
    pub fn passage<'a>(&self, id: LogId, aside: &'a Aside) -> Passage<'a> {
        let (logs, at) = (self.clone(), Recent::at_most(1));
        Passage { logs, aside, id, lines_max: PASSING_LINES_MAX, next: 1, begins: None, at }
    }

    fn desk(&self) -> Desk<'_> {
        Desk { recent: &self.inner.recent, aside: None }
    }

    /// Whether an append is being received or worked on, of any log: somebody waits for it.
    #[must_use]
    pub fn is_appended_to(&self) -> bool {
        self.inner.appends.available_permits() < APPENDS_MAX
    }

    /// What is at this byte: at most `max` bytes, fewer where a part ends. None beyond the log's end.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    pub async fn read(&self, id: LogId, from: u64, max: usize) -> Result<Part, LogError> {
        for _ in 0..LOOKS_MAX {
            let Some(record) = self.inner.tables.log(id).await? else { return Ok(Part::Bytes(Bytes::new())) };
            if from >= record.bytes {
                return Ok(Part::Bytes(Bytes::new()));
            }
            if let Some(gap) = record.gap.filter(|gap| gap.has(from)) {
                return Ok(Part::Gap(gap));
            }
            let Some(run) = self.run_at(id, &record, from, self.desk()).await? else { continue };
            let begin = usize::try_from(from - run.offset).unwrap_or(usize::MAX).min(run.bytes.len());
            let gap_from = record.gap.map(|gap| gap.from).filter(|gap_from| *gap_from > from);
            let until = gap_from.unwrap_or(u64::MAX).min(run.end());
            let until = usize::try_from(until - run.offset).unwrap_or(usize::MAX);
            return Ok(Part::Bytes(run.bytes.slice(begin..until.min(begin.saturating_add(max)))));
        }
        Err(LogError::Damaged(format!("the byte {from} of {} is not where it should be", Shown(id))))
    }

    /// Lines from this number on, the first being 1: at most `count`, and at most so many as come to 4 MiB.
    /// Those in the gap are left out, as their numbers show. An empty answer says that the log has no such
    /// line yet.
    ///
    /// # Errors
    /// As for [`Logs::read`].
    pub async fn lines(&self, id: LogId, from: u64, count: usize) -> Result<Vec<Line>, LogError> {
        let window = Window { next: from.max(1), count: count.min(WINDOW_LINES_MAX), ..Window::default() };
        self.fill(id, window, self.desk()).await
    }

    async fn fill(&self, id: LogId, mut window: Window, desk: Desk<'_>) -> Result<Vec<Line>, LogError> {
        let mut at: Option<u64> = None;
        let mut looks = 0;
        while !window.full() {
            let Some(record) = self.inner.tables.log(id).await? else { break };
            let run = match at {
                Some(at) if at >= record.bytes => break,
                Some(at) => match record.gap.filter(|gap| gap.has(at)) {
                    Some(gap) => {
                        window.pass(&gap);
                        None
                    }
                    None => Some(self.run_at(id, &record, at, desk).await?),
                },
                None => None,
            };
            let run = match run {
                Some(run) => run,
                None => {
                    record.gap.filter(|gap| gap.hides(window.next)).inspect(|gap| window.pass(gap));
                    if window.next > record.lines || window.full() {
                        break;
                    }
                    self.run_of_line(id, &record, window.next, desk).await?
                }
            };
            let Some(run) = run else {
                looks += 1;
                if looks > LOOKS_MAX {
                    return Err(LogError::Damaged(format!("lines of {} are not where they should be", Shown(id))));
                }
                continue;
            };
            let run = cut_at_gap(run, record.gap);
            at = Some(run.end());
            window = desk.work(move || window.take(&run)).await.map_err(LogError::Compression)?;
            if window.open.as_ref().is_some_and(|open| open.cut) {
                // The rest of that line is passed over.
                window.cut_last();
                at = None;
            }
        }
        Ok(window.finish())
    }

    /// The run that has this byte; `None` where it was moved meanwhile.
    async fn run_at(
        &self,
        id: LogId,
        record: &LogRecord,
        offset: u64,
        desk: Desk<'_>,
    ) -> Result<Option<Run>, LogError> {
        if let Some(segment) = self.inner.tables.segment_at(id, offset).await?.filter(|found| found.end() > offset) {
            return self.sealed(id, record, &segment, desk).await;
        }
        let pieces = self.inner.tables.pieces_at(id, offset).await?;
        Ok(joined(pieces).filter(|run| run.offset <= offset && offset < run.end()))
    }

    /// The run in which this line begins, which is not in the gap; `None` where it was moved meanwhile.
    async fn run_of_line(
        &self,
        id: LogId,
        record: &LogRecord,
        line: u64,
        desk: Desk<'_>,
    ) -> Result<Option<Run>, LogError> {
        let begins = |segment: &Segment| line < segment.first_line + segment.lines;
        if let Some(segment) = self.inner.tables.segment_of_line(id, line).await?.filter(begins) {
            return self.sealed(id, record, &segment, desk).await;
        }
        let pieces = self.inner.tables.pieces_of_line(id, line).await?;
        Ok(joined(pieces).filter(|run| run.first_line <= line))
    }

    async fn sealed(
        &self,
        id: LogId,
        record: &LogRecord,
        segment: &Segment,
        desk: Desk<'_>,
    ) -> Result<Option<Run>, LogError> {
        let content = match desk.recent.of(&segment.object) {
            Some(content) => content,
            None => {
                let object = match self.inner.objects.get(&segment.object).await {
                    Ok(object) => object,
                    // It may have gone into the gap just now.
                    Err(object_store::Error::NotFound { .. }) if self.went(id, record).await? => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                let length = segment.length;
                let decoded = desk.work(move || segment::decode(&object, length)).await.flatten();
                let content = decoded.map_err(|error| {
                    LogError::Damaged(format!("the object {} of {}: {error}", segment.object, Shown(id)))
                })?;
                desk.recent.keep(&segment.object, &content);
                content
            }
        };
        Ok(Some(Run {
            offset: segment.offset,
            bytes: content.bytes,
            first_line: segment.first_line,
            first_start: usize::try_from(segment.first_start - segment.offset).unwrap_or(usize::MAX),
            times: content.times,
        }))
    }

    /// Whether the log was written to since, or is gone.
    async fn went(&self, id: LogId, record: &LogRecord) -> Result<bool, LogError> {
        let now = self.inner.tables.log(id).await?;
        Ok(now.is_none_or(|now| now.revision != record.revision))
    }
}

fn cut_at_gap(run: Run, gap: Option<Gap>) -> Run {
    match gap.filter(|gap| run.offset < gap.from && gap.from < run.end()) {
        Some(gap) => {
            let until = usize::try_from(gap.from - run.offset).unwrap_or(usize::MAX);
            Run { bytes: run.bytes.slice(..until), ..run }
        }
        None => run,
    }
}

/// Pieces that follow each other, as one run.
fn joined(pieces: Vec<Piece>) -> Option<Run> {
    let first = pieces.first()?;
    let (offset, first_line) = (first.offset, first.first_line);
    let mut bytes = BytesMut::new();
    let mut times = BytesMut::new();
    let mut first_start = None;
    for piece in &pieces {
        if piece.offset != offset + bytes.len() as u64 {
            break;
        }
        if first_start.is_none() && piece.lines > 0 {
            // A line begins with the piece's first byte, unless one was open before it.
            let fed = memchr::memchr_iter(b'\n', &piece.bytes[..piece.bytes.len().saturating_sub(1)]).count() as u64;
            let inside = if fed < piece.lines { 0 } else { memchr::memchr(b'\n', &piece.bytes).map_or(0, |at| at + 1) };
            first_start = Some(bytes.len() + inside);
        }
        bytes.extend_from_slice(&piece.bytes);
        times.extend_from_slice(&piece.times);
        times.extend_from_slice(b"\n");
    }
    let first_start = first_start.unwrap_or(bytes.len());
    Some(Run { offset, bytes: bytes.freeze(), first_line, first_start, times: Times::Plain(times.freeze()) })
}

/// A window that is being filled.
#[derive(Debug)]
struct Window {
    lines: Vec<Line>,
    bytes: usize,
    bytes_max: usize,
    /// The number of the line that comes next; while one is open, of the one after it.
    next: u64,
    /// Where that line begins, where it is known: it is not counted up to then.
    begins: Option<u64>,
    count: usize,
    /// Whether nobody asks when they began.
    untimed: bool,
    /// A line whose end is still to come, with what it has so far.
    open: Option<OpenLine>,
}

#[derive(Debug)]
struct OpenLine {
    number: u64,
    offset: u64,
    at_ms: Option<u64>,
    bytes: BytesMut,
    cut: bool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            bytes: 0,
            bytes_max: WINDOW_BYTES_MAX,
            next: 1,
            begins: None,
            count: 0,
            untimed: false,
            open: None,
        }
    }
}

impl Window {
    fn full(&self) -> bool {
        self.open.is_none() && (self.lines.len() >= self.count || self.bytes >= self.bytes_max)
    }

    /// Takes from a run what it wants: the rest of an open line, and lines that begin in it.
    fn take(mut self, run: &Run) -> Self {
        let mut at = run.first_start.min(run.bytes.len());
        if let Some(open) = &mut self.open {
            // A run whose first line begins within it has the line feed just before; else the line goes on.
            let feeds = memchr::memchr(b'\n', &run.bytes);
            let room = LINE_BYTES_MAX - open.bytes.len();
            let rest = &run.bytes[..feeds.unwrap_or(run.bytes.len())];
            open.bytes.extend_from_slice(&rest[..rest.len().min(room)]);
            open.cut = rest.len() > room;
            match feeds {
                Some(_) => self.close(true),
                None => return self,
            }
        }
        let mut number = run.first_line;
        if let Some(begins) = self.begins.take().filter(|begins| run.offset <= *begins && *begins < run.end()) {
            at = usize::try_from(begins - run.offset).unwrap_or(usize::MAX);
            number = self.next;
        }
        let moments = if self.untimed { Vec::new() } else { run.times.moments() };
        let moments = moments.iter().flat_map(|(lines, at_ms)| std::iter::repeat_n(*at_ms, *lines as usize));
        let mut moments = moments.skip(usize::try_from(number.saturating_sub(run.first_line)).unwrap_or(usize::MAX));
        while at < run.bytes.len() && !self.full() {
            let end = memchr::memchr(b'\n', &run.bytes[at..]).map(|length| at + length);
            let at_ms = moments.next();
            let stop = end.unwrap_or(run.bytes.len());
            if number >= self.next {
                let cut = stop - at > LINE_BYTES_MAX;
                let bytes = run.bytes.slice(at..stop.min(at + LINE_BYTES_MAX));
                let offset = run.offset + at as u64;
                self.next = number + 1;
                if end.is_some() {
                    self.bytes += bytes.len();
                    self.lines.push(Line { number, offset, at_ms, bytes, cut, ended: true });
                } else {
                    let bytes = BytesMut::from(&*bytes);
                    self.open = Some(OpenLine { number, offset, at_ms, bytes, cut });
                    return self;
                }
            }
            number += 1;
            at = stop + 1;
        }
        self
    }

    fn close(&mut self, ended: bool) {
        if let Some(OpenLine { number, offset, at_ms, bytes, cut }) = self.open.take() {
            self.bytes += bytes.len();
            self.lines.push(Line { number, offset, at_ms, bytes: bytes.freeze(), cut, ended });
        }
    }

    /// Goes on behind the gap.
    fn pass(&mut self, gap: &Gap) {
        self.cut_last();
        self.next = self.next.max(gap.first_line + gap.lines);
        self.begins = None;
    }

    /// What is open has more bytes, which are not shown.
    fn cut_last(&mut self) {
        if let Some(open) = &mut self.open {
            open.cut = true;
            self.close(true);
        }
    }

    fn finish(mut self) -> Vec<Line> {
        self.close(false);
        self.lines
    }
}
