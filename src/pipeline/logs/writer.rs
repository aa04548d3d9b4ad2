//! Appending to one log, and ending it: what is decided and done under its lock.
//!
//! An append is durable with one transaction. Small ones are rows, until those come to a segment; a big one is a
//! segment by itself, and what it has no need of the append before it for is done before the lock is taken. A
//! segment's object is stored first, then one transaction names it and deletes the rows that are in it. A crash in
//! between leaves an object that nobody names, which is found when the log is settled, or deleted with its build.
//! Whatever fails, the writer forgets what it knew and reads it again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::hash::Hash;
use super::objects::Objects;
use super::open::Known;
use super::segment::{self, Packing, Scan};
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

/// What is to be appended.
#[derive(Debug)]
pub(super) struct Append {
    offset: u64,
    /// The text of when its lines began.
    times: Bytes,
    /// How many those are.
    lines: u64,
    bytes: Bytes,
    sealed: Option<Sealed>,
}

/// An object that is there, and that nothing names yet.
#[derive(Clone, Debug)]
struct Sealed {
    object: Arc<str>,
    /// Bytes of it.
    stored: u64,
}

impl Append {
    pub(super) fn new(offset: u64, times: LineTimes, bytes: Bytes) -> Self {
        Self { offset, lines: times.lines(), times: times.to_string().into(), bytes, sealed: None }
    }

    pub(super) const fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Makes an object of it in this folder, which can be a segment if its turn comes.
    pub(super) async fn seal(&mut self, objects: &Objects, folder: &str) -> Result<(), LogError> {
        self.sealed = Some(self.sealed_in(objects, folder).await?);
        Ok(())
    }

    async fn sealed_in(&self, objects: &Objects, folder: &str) -> Result<Sealed, LogError> {
        let content = (self.times.clone(), self.bytes.clone());
        seal(objects, Objects::new_name(folder, self.offset), content, objects.packing()).await
    }

    /// Its object.
    pub(super) fn object(self) -> Option<Arc<str>> {
        self.sealed.map(|sealed| sealed.object)
    }
}

/// An append, looked through.
struct Looked {
    hash: Hash,
    scan: Scan,
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

    /// What others may go by while this writes. Nothing before the first write: with it comes what does not
    /// change any more.
    pub(super) fn known(&self) -> Option<Known> {
        let record = self.record.as_ref()?;
        let end = record.end.is_none().then(|| (record.bytes, Arc::clone(&record.folder)));
        Some(Known { key_hash: record.key_hash.clone(), end })
    }

    /// Appends. On an error what is known here may be wrong: load again.
    pub(super) async fn append(
        &mut self,
        place: &Place<'_>,
        append: &Append,
        key_hash: Option<Arc<str>>,
    ) -> Result<Appended, AppendError> {
        let (bytes, open_line) = match &self.record {
            Some(record) if record.end.is_some() => return Err(AppendError::Closed),
            Some(record) => (record.bytes, record.open_line),
            None => (0, false),
        };
        if append.offset != bytes {
            return Err(AppendError::Elsewhere(bytes));
        }
        if append.bytes.is_empty() && append.lines == 0 {
            return Ok(Appended { status: self.status(), dropped: Vec::new() });
        }
        let looked = look(self.hash.clone(), open_line, append).await?;
        Ok(self.store(place, append, looked, key_hash).await?)
    }

    /// Makes an append durable: as a segment, with its object, or as a row.
    async fn store(
        &mut self,
        place: &Place<'_>,
        append: &Append,
        Looked { hash, scan }: Looked,
        key_hash: Option<Arc<str>>,
    ) -> Result<Appended, LogError> {
        let (length, is_big) = (append.length(), place.limits.is_big(append.length()));
        let fills = self.piece_bytes + length > place.limits.segment_bytes || self.pieces >= place.limits.pieces_max;
        let mut dropped = Vec::new();
        if self.pieces > 0 && (is_big || fills) {
            dropped = self.seal_rows(place).await?;
        }
        let before = self.record.clone().unwrap_or_else(|| LogRecord { key_hash, ..fresh(place.id) });
        let (offset, first_line) = (before.bytes, before.lines + 1);
        let record = LogRecord {
            revision: before.revision + 1,
            bytes: before.bytes + length,
            lines: before.lines + scan.lines,
            open_line: !scan.whole,
            hash: hash.kept(),
            changed_ms: clock::wall_now_ms(),
            ..before
        };
        // The first is a row in any case: by it the folder of the objects is known, whatever becomes of them.
        if is_big && self.record.is_some() {
            // Who began the log anew meanwhile has another folder.
            let fits = |sealed: &&Sealed| sealed.object.starts_with(&*record.folder);
            let sealed = match append.sealed.as_ref().filter(fits) {
                Some(sealed) => sealed.clone(),
                None => append.sealed_in(place.objects, &record.folder).await?,
            };
            let segment = segment_of((offset, length, first_line), &scan, sealed);
            dropped.extend(self.add_segment(place, record, segment, false).await?);
        } else {
            let (times, bytes, lines) = (append.times.to_vec(), append.bytes.to_vec(), scan.lines);
            let piece = Piece { offset, first_line, lines, times, bytes };
            commit(place, &LogWrite { piece: Some(&piece), ..write_of(place.id, &record) }).await?;
            self.pieces += 1;
            self.piece_bytes += length;
            self.record = Some(record);
        }
        self.hash = hash;
        let is_named = |sealed: &Sealed| self.segments.back().is_some_and(|last| last.object == sealed.object);
        dropped.extend(append.sealed.as_ref().filter(|sealed| !is_named(sealed)).map(|sealed| sealed.object.clone()));
        Ok(Appended { status: self.status(), dropped })
    }

    /// Makes a segment of the rows. Answers the objects of segments that went into the gap.
    async fn seal_rows(&mut self, place: &Place<'_>) -> Result<Vec<Arc<str>>, LogError> {
        let pieces = place.tables.pieces_at(place.id, 0).await?;
        let (Some(first), Some(record)) = (pieces.first(), self.record.clone()) else {
            return Err(LogError::Damaged(format!("the rows of {} are gone", Shown(place.id))));
        };
        let (offset, first_line) = (first.offset, first.first_line);
        let length = pieces.iter().map(|piece| piece.bytes.len() as u64).sum::<u64>();
        if length != record.bytes - offset {
            return Err(LogError::Damaged(format!("the rows of {} are not all there", Shown(place.id))));
        }
        // Whether the line before the rows waits for its line feed is not kept with them, but with the segment
        // before them; the log begins with none.
        let open_line = self.segments.back().is_some_and(|last| !last.whole);
        let joining = worked(move || {
            let (mut bytes, mut times) = (Vec::new(), Vec::new());
            for piece in &pieces {
                bytes.extend_from_slice(&piece.bytes);
                times.extend_from_slice(&piece.times);
                times.push(b'\n');
            }
            (segment::scan(&bytes, open_line), times, bytes)
        });
        let (scan, times, bytes) = joining.await?;
        // They came slowly, or are the last: nobody waits for much.
        let name = Objects::new_name(&record.folder, offset);
        let sealed = seal(place.objects, name, (times.into(), bytes.into()), Packing::Tight).await?;
        let segment = segment_of((offset, length, first_line), &scan, sealed);
        self.add_segment(place, LogRecord { revision: record.revision + 1, ..record }, segment, true).await
    }

    /// Names a segment whose object is there, at the end of the log. Answers the objects of segments that went
    /// into the gap.
    async fn add_segment(
        &mut self,
        place: &Place<'_>,
        mut record: LogRecord,
        segment: Segment,
        pieces_go: bool,
    ) -> Result<Vec<Arc<str>>, LogError> {
        let mut segments = self.segments.clone();
        segments.push_back(segment.clone());
        let gone;
        (record.gap, gone) = over_limit(&mut segments, &record, place.limits);
        let offsets: Vec<u64> = gone.iter().map(|segment| segment.offset).collect();
        let write = write_of(place.id, &record);
        commit(place, &LogWrite { segment: Some(&segment), pieces_go, segments_go: &offsets, ..write }).await?;
        self.segments = segments;
        self.record = Some(record);
        if pieces_go {
            (self.pieces, self.piece_bytes) = (0, 0);
        }
        Ok(gone.into_iter().map(|segment| segment.object).collect())
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
        match &self.record {
            Some(record) if record.settled => return Ok(true),
            Some(record) if record.end.is_some() => {}
            Some(_) | None => return Ok(false),
        }
        // Whatever went into the gap meanwhile is found below.
        if self.pieces > 0 {
            self.seal_rows(place).await?;
        }
        if place.objects.packing() == Packing::Loose {
            self.pack(place).await?;
        }
        let Some(mut record) = self.record.clone() else { return Ok(false) };
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

    /// Makes those objects smaller that an append had no time for.
    async fn pack(&mut self, place: &Place<'_>) -> Result<(), LogError> {
        for at in 0..self.segments.len() {
            let (Some(segment), Some(record)) = (self.segments.get(at).cloned(), self.record.clone()) else { break };
            if segment.stored < segment.length {
                continue;
            }
            let packing = match place.objects.get(&segment.object).await {
                Ok(object) => worked(move || segment::packed(&object, segment.length)).await?,
                Err(error @ object_store::Error::NotFound { .. }) => {
                    // Where all of them are gone, they may come back.
                    place.objects.ask().await?;
                    Err(std::io::Error::other(error))
                }
                Err(error) => return Err(error.into()),
            };
            let object = match packing {
                Ok(object) => object,
                // Its readers are told; the rest of the log is none the worse.
                Err(error) => {
                    tracing::warn!(%error, log = %Shown(place.id), "a part of it that cannot be read stays as it is");
                    continue;
                }
            };
            let stored = object.len() as u64;
            if stored >= segment.stored {
                continue;
            }
            let name = Objects::new_name(&record.folder, segment.offset);
            place.objects.put(&name, object).await?;
            let before = std::slice::from_ref(&segment.offset);
            let packed = Segment { object: name, stored, ..segment.clone() };
            let record = LogRecord { revision: record.revision + 1, ..record };
            let write = write_of(place.id, &record);
            commit(place, &LogWrite { segment: Some(&packed), segments_go: before, ..write }).await?;
            self.segments[at] = packed;
            self.record = Some(record);
            place.objects.delete(vec![object_store::path::Path::from(&*segment.object)]).await?;
        }
        Ok(())
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

/// Looks an append through, which has as many times as lines begin in it.
async fn look(mut hash: Hash, open_line: bool, append: &Append) -> Result<Looked, AppendError> {
    let (bytes, told) = (append.bytes.clone(), append.lines);
    let looking = worked(move || {
        let scan = segment::scan(&bytes, open_line);
        if scan.lines == told {
            hash.update(&bytes);
        }
        Looked { hash, scan }
    });
    let looked = looking.await?;
    if looked.scan.lines != told {
        let found = looked.scan.lines;
        return Err(AppendError::Malformed(format!(
            "the line of times has {told} lines, and {found} begin in the bytes"
        )));
    }
    Ok(looked)
}

/// Stores bytes, and the texts of when their lines began, as an object of this name.
async fn seal(
    objects: &Objects,
    object: Arc<str>,
    (times, bytes): (Bytes, Bytes),
    packing: Packing,
) -> Result<Sealed, LogError> {
    let encoded = worked(move || segment::encode(&bytes, &times, packing)).await?.map_err(LogError::Compression)?;
    let stored = encoded.len() as u64;
    objects.put(&object, encoded).await?;
    Ok(Sealed { object, stored })
}

/// The row of an object with so many bytes from this offset on, whose first line has this number.
fn segment_of((offset, length, first_line): (u64, u64, u64), scan: &Scan, sealed: Sealed) -> Segment {
    Segment {
        offset,
        length,
        first_line,
        lines: scan.lines,
        first_start: offset + scan.first_start as u64,
        last_start: offset + scan.last_start as u64,
        whole: scan.whole,
        object: sealed.object,
        stored: sealed.stored,
    }
}

/// Works on bytes, where that may take its time.
async fn worked<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LogError> {
    spawn_blocking(work).await.map_err(|error| LogError::Compression(std::io::Error::other(error)))
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
