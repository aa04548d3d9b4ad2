//! A world for logs without a disk: tables and objects in memory that fail on order, and restarts.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as Stored,
};

use super::super::{LogLimits, Logs, Objects};
use crate::builds::build::{Build, BuildId};
use crate::builds::change::{Change, Note};
use crate::builds::delivery::{Delivery, DeliveryId};
use crate::builds::log::LogId;
use crate::builds::status::{Status, StatusKey};
use crate::store::StoreError;
use crate::store::builds::logs::{LogRecord, LogTables, LogWrite, Piece, Segment};
use crate::store::builds::{Answer, BuildFilter, BuildStore, Loaded};

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write to the tables does nothing, and fails.
    WriteBefore,
    /// A write to the tables is made, and fails.
    WriteAfter,
    /// An object is not stored.
    PutBefore,
    /// An object is stored, and that fails.
    PutAfter,
    /// Objects are not deleted.
    Delete,
}

#[derive(Debug, Default)]
struct OneLog {
    record: Option<LogRecord>,
    segments: BTreeMap<u64, Segment>,
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Debug, Default)]
pub struct State {
    logs: BTreeMap<LogId, OneLog>,
    pub builds: BTreeMap<BuildId, Build>,
    /// What is to go wrong next.
    pub fault: Option<Fault>,
    /// Rows of bytes that were ever written: what went through the database.
    pub piece_bytes: u64,
}

/// Tables and objects, which outlast whoever works with them.
#[derive(Clone, Debug, Default)]
pub struct World {
    state: Arc<Mutex<State>>,
    objects: Arc<InMemory>,
}

impl World {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A process that begins.
    pub fn start(&self, limits: LogLimits) -> Logs {
        self.start_in(Objects::of(Arc::new(self.clone())), limits)
    }

    /// One that keeps its objects somewhere else.
    pub fn start_in(&self, objects: Objects, limits: LogLimits) -> Logs {
        Logs::new(Arc::new(self.clone()), Arc::new(self.clone()), objects, limits)
    }

    /// Names of all objects, in order.
    pub async fn objects(&self) -> Vec<String> {
        use futures_util::TryStreamExt as _;

        let found: Vec<ObjectMeta> = self.objects.list(None).try_collect().await.unwrap();
        let mut names: Vec<String> = found.into_iter().map(|object| object.location.to_string()).collect();
        names.sort();
        names
    }

    /// Names of the objects that rows name, in order.
    pub fn named(&self) -> Vec<String> {
        let state = self.state();
        let segments = state.logs.values().flat_map(|log| log.segments.values());
        let mut names: Vec<String> = segments.map(|segment| segment.object.to_string()).collect();
        names.sort();
        names
    }

    pub async fn object(&self, name: &str) -> Vec<u8> {
        use object_store::ObjectStoreExt as _;

        self.objects.get(&Path::from(name)).await.unwrap().bytes().await.unwrap().to_vec()
    }

    fn fails(&self, fault: Fault) -> bool {
        let mut state = self.state();
        let hit = state.fault == Some(fault);
        if hit {
            state.fault = None;
        }
        hit
    }
}

fn failed() -> StoreError {
    StoreError::Failed { doing: "write a log", source: "a fault ordered by a test".into() }
}

fn object_failed() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "a fault ordered by a test".into() }
}

impl LogTables for World {
    fn write_log<'a>(&'a self, write: &'a LogWrite<'a>) -> Answer<'a, bool> {
        Box::pin(async move {
            if self.fails(Fault::WriteBefore) {
                return Err(failed());
            }
            {
                let mut state = self.state();
                state.piece_bytes += write.piece.map_or(0, |piece| piece.bytes.len() as u64);
                let log = state.logs.entry(write.id).or_default();
                if log.record.as_ref().map_or(0, |record| record.revision) + 1 != write.record.revision {
                    return Ok(false);
                }
                log.record = Some(write.record.clone());
                if write.pieces_go {
                    log.pieces.clear();
                }
                log.pieces.extend(write.piece.map(|piece| (piece.offset, piece.clone())));
                log.segments.retain(|offset, _| !write.segments_go.contains(offset));
                log.segments.extend(write.segment.map(|segment| (segment.offset, segment.clone())));
            }
            if self.fails(Fault::WriteAfter) { Err(failed()) } else { Ok(true) }
        })
    }

    fn log(&self, id: LogId) -> Answer<'_, Option<LogRecord>> {
        Box::pin(async move { Ok(self.state().logs.get(&id).and_then(|log| log.record.clone())) })
    }

    fn logs_of<'a>(&'a self, builds: &'a [BuildId]) -> Answer<'a, Vec<(LogId, LogRecord)>> {
        Box::pin(async move {
            let state = self.state();
            let of = state.logs.iter().filter(|(id, _)| builds.contains(&id.build));
            Ok(of.filter_map(|(id, log)| Some((*id, log.record.clone()?))).collect())
        })
    }

    fn segments(&self, id: LogId) -> Answer<'_, Vec<Segment>> {
        Box::pin(async move {
            Ok(self.state().logs.get(&id).map(|log| log.segments.values().cloned().collect()).unwrap_or_default())
        })
    }

    fn segment_at(&self, id: LogId, offset: u64) -> Answer<'_, Option<Segment>> {
        Box::pin(async move {
            let found = self.segments(id).await?;
            Ok(found.into_iter().rfind(|segment| segment.offset <= offset))
        })
    }

    fn segment_of_line(&self, id: LogId, line: u64) -> Answer<'_, Option<Segment>> {
        Box::pin(async move {
            let found = self.segments(id).await?;
            Ok(found.into_iter().rfind(|segment| segment.first_line <= line))
        })
    }

    fn pieces_at(&self, id: LogId, offset: u64) -> Answer<'_, Vec<Piece>> {
        Box::pin(async move {
            let state = self.state();
            let Some(log) = state.logs.get(&id) else { return Ok(Vec::new()) };
            let from = log.pieces.range(..=offset).next_back().map_or(0, |(from, _)| *from);
            Ok(log.pieces.range(from..).map(|(_, piece)| piece.clone()).collect())
        })
    }

    fn pieces_of_line(&self, id: LogId, line: u64) -> Answer<'_, Vec<Piece>> {
        Box::pin(async move {
            let from = {
                let state = self.state();
                let pieces = state.logs.get(&id).map(|log| log.pieces.values());
                pieces
                    .and_then(|mut pieces| pieces.rfind(|piece| piece.first_line <= line))
                    .map_or(0, |piece| piece.offset)
            };
            self.pieces_at(id, from).await
        })
    }

    fn unsettled_logs(&self, after: LogId, limit: usize) -> Answer<'_, Vec<(LogId, LogRecord)>> {
        Box::pin(async move {
            let state = self.state();
            let known = state.logs.iter().filter_map(|(id, log)| Some((*id, log.record.clone()?)));
            Ok(known.filter(|(id, record)| *id > after && !record.settled).take(limit).collect())
        })
    }

    fn delete_logs<'a>(&'a self, builds: &'a [BuildId]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.state().logs.retain(|id, _| !builds.contains(&id.build));
            Ok(())
        })
    }
}

impl BuildStore for World {
    fn take_over(&self, _: i64) -> Answer<'_, Loaded> {
        Box::pin(async { Ok(Loaded::default()) })
    }

    fn commit<'a>(&'a self, _: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>> {
        Box::pin(async move { Ok(self.state().builds.get(&id).cloned()) })
    }

    fn builds<'a>(&'a self, _: &'a BuildFilter) -> Answer<'a, Vec<Build>> {
        Box::pin(async { Ok(self.state().builds.values().cloned().collect()) })
    }

    fn notes(&self, _: BuildId) -> Answer<'_, Vec<Note>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn delivery(&self, _: DeliveryId) -> Answer<'_, Option<(Delivery, Arc<[u8]>)>> {
        Box::pin(async { Ok(None) })
    }

    fn deliveries(&self, _: Option<DeliveryId>, _: usize) -> Answer<'_, Vec<Delivery>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn status<'a>(&'a self, _: &'a StatusKey) -> Answer<'a, Option<Status>> {
        Box::pin(async { Ok(None) })
    }

    fn forgettable(&self, before_ms: i64, keep: u32) -> Answer<'_, Vec<BuildId>> {
        Box::pin(async move {
            let state = self.state();
            let old = state.builds.values().rev().skip(keep as usize);
            let old = old.filter(|build| build.times.ended_ms.is_some_and(|ended_ms| ended_ms < before_ms));
            Ok(old.map(|build| build.id).collect())
        })
    }

    fn forget<'a>(&'a self, builds: &'a [BuildId], _: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            self.state().builds.retain(|id, _| !builds.contains(id));
            Ok(())
        })
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects of a test")
    }
}

/// What an object store's calls answer.
type Later<'a, T> = Pin<Box<dyn Future<Output = Stored<T>> + Send + 'a>>;

impl ObjectStore for World {
    fn put_opts<'a, 'b, 'c>(&'a self, at: &'b Path, object: PutPayload, options: PutOptions) -> Later<'c, PutResult>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            if self.fails(Fault::PutBefore) {
                return Err(object_failed());
            }
            let put = self.objects.put_opts(at, object, options).await?;
            if self.fails(Fault::PutAfter) { Err(object_failed()) } else { Ok(put) }
        })
    }

    fn put_multipart_opts<'a, 'b, 'c>(
        &'a self,
        at: &'b Path,
        options: PutMultipartOptions,
    ) -> Later<'c, Box<dyn MultipartUpload>>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.put_multipart_opts(at, options)
    }

    fn get_opts<'a, 'b, 'c>(&'a self, at: &'b Path, options: GetOptions) -> Later<'c, GetResult>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.get_opts(at, options)
    }

    fn delete_stream(&self, names: BoxStream<'static, Stored<Path>>) -> BoxStream<'static, Stored<Path>> {
        if self.fails(Fault::Delete) {
            return Box::pin(futures_util::stream::iter([Err(object_failed())]));
        }
        self.objects.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Stored<ObjectMeta>> {
        self.objects.list(prefix)
    }

    fn list_with_delimiter<'a, 'b, 'c>(&'a self, prefix: Option<&'b Path>) -> Later<'c, ListResult>
    where
        'a: 'c,
        'b: 'c,
    {
        self.objects.list_with_delimiter(prefix)
    }

    fn copy_opts<'a, 'b, 'd, 'c>(&'a self, from: &'b Path, to: &'d Path, options: CopyOptions) -> Later<'c, ()>
    where
        'a: 'c,
        'b: 'c,
        'd: 'c,
    {
        self.objects.copy_opts(from, to, options)
    }
}
