//! Appending to one log, and ending it: what is decided and done under its lock.
//!
//! An append is durable with one transaction. Small ones are rows; once those come to a segment, or a big one
//! comes, they are sealed together with it: the object is stored first, then one transaction names it and
//! deletes the rows. A crash in between leaves an object that nobody names, which is found when the log is
//! settled, or deleted with its build. Whatever fails, the writer forgets what it knew and reads it again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::hash::Hash;
use super::objects::Objects;
use super::segment::{self, Scan};
use super::{AppendError, FinishError, LogError, LogLimits};
use crate::builds::build::LogEnd;
use crate::builds::log::{Gap, LogId, LogStatus};
use crate::clock;
use crate::protocol::log_times::LineTimes;
use crate::store::builds::logs::{LogRecord, LogTables, LogWrite, Piece, Segment};

/// What a writer works with.
pub(super) struct Place<'a> {
    pub id: LogId,
    pub tables: &'a dyn LogTables,
    pub objects: &'a Objects,
    pub limits: &'a LogLimits,
}

/// What is known of a log by the one who writes it, as of its last write.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// `None` before the first write.
    record: Option<LogRecord>,
    hash: Hash,
    pieces: usize,
    piece_bytes: u64,
    segments: VecDeque<Segment>,
}

/// What an append comes to.
#[derive(Debug)]
pub(super) struct Appended {
    pub status: LogStatus,
    /// Objects of segments that went into the gap.
    pub dropped: Vec<Arc<str>>,
}

/// An append, looked through.
struct Looked {
    hash: Hash,
    scan: Scan,
}

/// An append, ready to be stored.
struct Worked {
    length: u64,
    looked: Looked,
    kept: Kept,
}

/// How an append is kept.
enum Kept {
    Piece(Piece),
    /// With the pieces before it. Its object is there.
    Segment(Segment),
}

impl Writer {
    /// Reads what there is of the log.
    pub(super) async fn load(place: &Place<'_>) -> Result<Self, LogError> {
        let record = place.tables.log(place.id).await?;
        let pieces = place.tables.pieces_at(place.id, 0).await?;
        let segments = place.tables.segments(place.id).await?;
        let kept = record.as_ref().map_or("", |record| &record.hash);
        let damaged = || LogError::Damaged(format!("the hash of {} cannot be gone on with", Shown(place.id)));
        let hash = Hash::resume(kept).ok_or_else(damaged)?;
        let piece_bytes = pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        Ok(Self { record, hash, pieces: pieces.len(), piece_bytes, segments: segments.into() })
    }

    /// How far the log is.
    pub(super) fn status(&self) -> LogStatus {
        self.record.as_ref().map_or_else(LogStatus::default, status_of)
    }

    /// The hash of the key under which the log is sent.
    pub(super) fn key_hash(&self) -> Option<Arc<str>> {
        self.record.as_ref()?.key_hash.clone()
    }

    /// Appends. On an error what is known here may be wrong: load again.
    pub(super) async fn append(
        &mut self,
        place: &Place<'_>,
        (offset, times, bytes): (u64, LineTimes, Bytes),
        key_hash: Option<Arc<str>>,
    ) -> Result<Appended, AppendError> {
        let before = self.record.clone().unwrap_or_else(|| LogRecord { key_hash, ..fresh(place.id) });
        if before.end.is_some() {
            return Err(AppendError::Closed);
        }
        if offset != before.bytes {
            return Err(AppendError::Elsewhere(before.bytes));
        }
        if bytes.is_empty() && times.lines() == 0 {
            return Ok(Appended { status: self.status(), dropped: Vec::new() });
        }
        let worked = self.work(place, &before, times, bytes).await?;
        Ok(self.store(place, before, worked).await?)
    }

    /// Looks through an append, and makes of it what is to be stored: a row, or an object that is there by now.
    async fn work(
        &self,
        place: &Place<'_>,
        before: &LogRecord,
        times: LineTimes,
        bytes: Bytes,
    ) -> Result<Worked, AppendError> {
        let length = bytes.len() as u64;
        let times: Bytes = counted(times, before, &bytes).await?;
        let looking = look(self.hash.clone(), before.open_line, bytes.clone());
        let many = length >= place.limits.segment_bytes / 4
            || self.piece_bytes + length >= place.limits.segment_bytes
            || self.pieces >= place.limits.pieces_max;
        // The first is a row in any case: by it the folder of the objects is known, whatever becomes of them.
        let (looked, kept) = if many && self.record.is_some() {
            let sealing = self.seal(place, (&before.folder, before.open_line), Some((times, bytes)));
            let (looked, sealed) = tokio::join!(looking, sealing);
            (looked?, Kept::Segment(sealed?))
        } else {
            let looked = looking.await?;
            let (first_line, lines) = (before.lines + 1, looked.scan.lines);
            let (times, bytes) = (times.to_vec(), bytes.to_vec());
            (looked, Kept::Piece(Piece { offset: before.bytes, first_line, lines, times, bytes }))
        };
        Ok(Worked { length, looked, kept })
    }

    /// Makes an append durable.
    async fn store(&mut self, place: &Place<'_>, before: LogRecord, worked: Worked) -> Result<Appended, LogError> {
        let Worked { length, looked, kept } = worked;
        let mut record = LogRecord {
            revision: before.revision + 1,
            bytes: before.bytes + length,
            lines: before.lines + looked.scan.lines,
            open_line: !looked.scan.whole,
            hash: looked.hash.kept(),
            changed_ms: clock::wall_now_ms(),
            ..before
        };
        let mut gone = Vec::new();
        match kept {
            Kept::Piece(piece) => {
                let write = LogWrite { piece: Some(&piece), ..write_of(place.id, &record) };
                commit(place, &write).await?;
                self.pieces += 1;
                self.piece_bytes += length;
            }
            Kept::Segment(segment) => {
                let mut segments = self.segments.clone();
                segments.push_back(segment.clone());
                (record.gap, gone) = over_limit(&mut segments, &record, place.limits);
                let offsets: Vec<u64> = gone.iter().map(|segment| segment.offset).collect();
                let write = LogWrite {
                    segment: Some(&segment),
                    pieces_go: true,
                    segments_go: &offsets,
                    ..write_of(place.id, &record)
                };
                commit(place, &write).await?;
                self.segments = segments;
                (self.pieces, self.piece_bytes) = (0, 0);
            }
        }
        self.hash = looked.hash;
        let status = status_of(&record);
        self.record = Some(record);
        Ok(Appended { status, dropped: gone.into_iter().map(|segment| segment.object).collect() })
    }

    /// Makes one object of the pieces, and of an append that comes after them; nothing names it yet.
    async fn seal(
        &self,
        place: &Place<'_>,
        (folder, open_line): (&str, bool),
        append: Option<(Bytes, Bytes)>,
    ) -> Result<Segment, LogError> {
        let pieces = if self.pieces > 0 { place.tables.pieces_at(place.id, 0).await? } else { Vec::new() };
        let (bytes_before, lines_before) = self.record.as_ref().map_or((0, 0), |record| (record.bytes, record.lines));
        let (offset, first_line) =
            pieces.first().map_or((bytes_before, lines_before + 1), |piece| (piece.offset, piece.first_line));
        if pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>() != bytes_before - offset {
            return Err(LogError::Damaged(format!("the rows of {} are not all there", Shown(place.id))));
        }
        // Whether the line before the pieces waits for its line feed is not kept with them, but with the
        // segment before them; the log begins with none.
        let open_line = match (pieces.is_empty(), self.segments.back()) {
            (true, _) => open_line,
            (false, last) => last.is_some_and(|last| !last.whole),
        };
        let object = Objects::new_name(folder, offset);
        let encoding = spawn_blocking(move || {
            let (mut bytes, mut times) = (Vec::new(), Vec::new());
            for piece in &pieces {
                bytes.extend_from_slice(&piece.bytes);
                times.extend_from_slice(&piece.times);
                times.push(b'\n');
            }
            let (bytes, times) = match append {
                Some((last_times, last)) if bytes.is_empty() => (last, last_times),
                Some((last_times, last)) => {
                    bytes.extend_from_slice(&last);
                    times.extend_from_slice(&last_times);
                    (bytes.into(), times.into())
                }
                None => (bytes.into(), times.into()),
            };
            let encoded = segment::encode(&bytes, &times)?;
            Ok::<_, std::io::Error>((segment::scan(&bytes, open_line), bytes.len() as u64, encoded))
        });
        let (scan, length, encoded) =
            encoding.await.map_err(std::io::Error::other).flatten().map_err(LogError::Compression)?;
        let stored = encoded.len() as u64;
        place.objects.put(&object, encoded).await?;
        Ok(Segment {
            offset,
            length,
            first_line,
            lines: scan.lines,
            first_start: offset + scan.first_start as u64,
            last_start: offset + scan.last_start as u64,
            whole: scan.whole,
            object,
            stored,
        })
    }

    /// Ends the log. `told` is what its sender counted; `None` ends it as it is.
    pub(super) async fn finish(&mut self, place: &Place<'_>, told: Option<&LogEnd>) -> Result<LogStatus, FinishError> {
        let before = self.record.clone().unwrap_or_else(|| fresh(place.id));
        let ours = before.end.clone().unwrap_or_else(|| LogEnd {
            bytes: before.bytes,
            lines: before.lines,
            sha256: self.hash.finished().into(),
        });
        if let Some(told) = told.filter(|told| told.bytes > ours.bytes && before.end.is_none()) {
            return Err(FinishError::Short { stored: ours.bytes, told: told.bytes });
        }
        let record = LogRecord { revision: before.revision + 1, end: Some(ours.clone()), ..before.clone() };
        if before.end.is_none() {
            commit(place, &write_of(place.id, &record)).await?;
            self.record = Some(record);
        }
        match told {
            Some(told) if *told != ours => Err(FinishError::Differs { ours }),
            _ => Ok(self.status()),
        }
    }

    /// Seals what is left of a log that has ended, and deletes objects that nobody names. Answers whether it
    /// is settled now.
    pub(super) async fn settle(&mut self, place: &Place<'_>) -> Result<bool, LogError> {
        let Some(mut record) = self.record.clone().filter(|record| record.end.is_some()) else { return Ok(false) };
        if record.settled {
            return Ok(true);
        }
        if self.pieces > 0 {
            let segment = self.seal(place, (&record.folder, false), None).await?;
            record.revision += 1;
            let write = LogWrite { segment: Some(&segment), pieces_go: true, ..write_of(place.id, &record) };
            commit(place, &write).await?;
            (self.pieces, self.piece_bytes) = (0, 0);
            self.segments.push_back(segment);
            self.record = Some(record.clone());
        }
        let named = |path: &object_store::path::Path| self.segments.iter().any(|known| *known.object == *path.as_ref());
        let orphans: Vec<_> =
            place.objects.of_folder(&record.folder).await?.into_iter().filter(|path| !named(path)).collect();
        if !orphans.is_empty() {
            tracing::info!(log = %Shown(place.id), count = orphans.len(), "deletes objects that no row names");
            place.objects.delete(orphans).await?;
        }
        record.revision += 1;
        record.settled = true;
        commit(place, &write_of(place.id, &record)).await?;
        self.record = Some(record);
        Ok(true)
    }
}

/// A log, for people.
pub(super) struct Shown(pub LogId);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the log of build {}, attempt {}", self.0.build, self.0.attempt)
    }
}

/// How far a log is, to its readers.
pub(super) fn status_of(record: &LogRecord) -> LogStatus {
    LogStatus { bytes: record.bytes, lines: record.lines, gap: record.gap, end: record.end.clone(), never: false }
}

fn fresh(id: LogId) -> LogRecord {
    LogRecord {
        revision: 0,
        bytes: 0,
        lines: 0,
        open_line: false,
        hash: String::new(),
        folder: Objects::new_folder(id),
        gap: None,
        end: None,
        settled: false,
        changed_ms: clock::wall_now_ms(),
        key_hash: None,
    }
}

fn write_of(id: LogId, record: &LogRecord) -> LogWrite<'_> {
    LogWrite { id, record, piece: None, segment: None, pieces_go: false, segments_go: &[] }
}

/// Writes; a log that is not what it was taken for has been written by somebody else.
async fn commit(place: &Place<'_>, write: &LogWrite<'_>) -> Result<(), LogError> {
    if place.tables.write_log(write).await? {
        return Ok(());
    }
    Err(LogError::Passed)
}

/// Checks that the times are of as many lines as begin; answers their text.
async fn counted(times: LineTimes, before: &LogRecord, bytes: &Bytes) -> Result<Bytes, AppendError> {
    let (bytes, open_line) = (bytes.clone(), before.open_line);
    let counting = spawn_blocking(move || {
        let lines = segment::scan(&bytes, open_line).lines;
        if lines == times.lines() { Ok(times.to_string().into()) } else { Err((times.lines(), lines)) }
    });
    let counted = counting.await.map_err(|error| LogError::Compression(std::io::Error::other(error)))?;
    counted.map_err(|(told, found)| {
        AppendError::Malformed(format!("the line of times has {told} lines, and {found} begin in the bytes"))
    })
}

async fn look(mut hash: Hash, open_line: bool, bytes: Bytes) -> Result<Looked, LogError> {
    let looking = spawn_blocking(move || {
        hash.update(&bytes);
        Looked { hash, scan: segment::scan(&bytes, open_line) }
    });
    looking.await.map_err(|error| LogError::Compression(std::io::Error::other(error)))
}

/// Takes those segments out that are to go, as the log is over its limit; answers the gap there is then.
fn over_limit(segments: &mut VecDeque<Segment>, record: &LogRecord, limits: &LogLimits) -> (Option<Gap>, Vec<Segment>) {
    if record.bytes <= limits.log_bytes {
        return (record.gap, Vec::new());
    }
    let head = segments.iter().take_while(|segment| segment.offset < limits.head_bytes()).count();
    let tail_from = record.bytes.saturating_sub(limits.tail_bytes());
    // The last one stays in any case: the gap's end is known by it.
    let most = segments.len().saturating_sub(head + 1);
    let goes = segments.iter().skip(head).take(most).take_while(|segment| segment.end() <= tail_from).count();
    let gone: Vec<Segment> = segments.drain(head..head + goes).collect();
    let (Some(last), Some(next)) = (head.checked_sub(1).and_then(|at| segments.get(at)), segments.get(head)) else {
        return (record.gap, gone);
    };
    if next.offset == last.end() {
        return (record.gap, gone);
    }
    // The gap begins and ends with lines, where there are any.
    let from = if last.whole || last.lines == 0 { last.end() } else { last.last_start };
    let first_line = last.first_line + last.lines - u64::from(!last.whole);
    let to = if next.lines > 0 { next.first_start } else { next.offset };
    let mid_line = !last.whole && last.lines == 0;
    (Some(Gap { from, to, first_line, lines: next.first_line - first_line, mid_line }), gone)
}
