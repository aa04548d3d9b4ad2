//! Logs of builds: appended to by agents, kept within their limit, read by everybody.
//!
//! ```text
//!   agent ──append(offset, times, bytes)──▶ writer, one at a time for each log, in the order of their offsets
//!                                             │ small: a row      │ big, or small ones together: an object,
//!                                             │                   │ then its row
//!                                             ▼                   ▼
//!                                           tables ◀──names── object store
//!   page, raw text, search ──read, lines──────┴───────────────────┘        changed: wakes followers
//! ```
//!
//! Bytes have their place from 0 on, which never changes, whatever is sealed, compressed or left out of the
//! middle. What an append was answered for is durable: the database's transaction, and before it the object
//! that it names. A reader is given what is durable and nothing else, so nothing that was read is ever
//! taken back.
//!
//! Work on bytes (hashing, compressing, looking for lines) is done on other threads than the broker's, for a
//! few logs at a time. Nothing here logs what a log says, nor changes it: secrets are masked by the agent.

mod hash;
mod keeper;
mod objects;
mod open;
mod reader;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

pub use crate::builds::log::{Gap, LogId, LogStatus};
pub use keeper::Retention;
pub use objects::Objects;
pub use reader::{Line, Part};

use crate::builds::build::{Build, BuildId, LogEnd};
use crate::protocol::builds::LOG_CHUNK_BYTES_MAX;
use crate::protocol::log_times::LineTimes;
use crate::store::StoreError;
use crate::store::builds::BuildStore;
use crate::store::builds::logs::LogTables;
use open::{Known, Open, UnderWay};
use reader::Recent;
use writer::{Append, Place, Writer};

/// Appends that are being received or worked on at one time, all logs together; more wait. Each has at most
/// its bytes three times over.
const APPENDS_MAX: usize = 12;

/// How much of a log is kept, and in which parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// What is kept of a log, bytes: a tenth at its head, the rest at its tail.
    pub log_bytes: u64,
    /// What makes a segment, bytes.
    pub segment_bytes: u64,
    /// Appends that make a segment, however small.
    pub pieces_max: usize,
}

impl LogLimits {
    /// Keeps so much of a log.
    #[must_use]
    pub const fn of(log_bytes: u64) -> Self {
        Self { log_bytes, segment_bytes: LOG_CHUNK_BYTES_MAX as u64, pieces_max: 2_048 }
    }

    /// Whether so many bytes at once are a segment by themselves.
    const fn is_big(&self, bytes: u64) -> bool {
        bytes >= self.segment_bytes / 4
    }

    const fn head_bytes(&self) -> u64 {
        self.log_bytes / 10
    }

    const fn tail_bytes(&self) -> u64 {
        self.log_bytes - self.head_bytes()
    }
}

/// Logs of builds. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    tables: Arc<dyn LogTables>,
    builds: Arc<dyn BuildStore>,
    objects: Objects,
    limits: LogLimits,
    open: open::Table,
    recent: Recent,
    appends: Arc<Semaphore>,
    /// That a log has ended, and is to be settled.
    ended: Notify,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").field("objects", &self.inner.objects.name()).finish_non_exhaustive()
    }
}

/// A place for an append, taken before its bytes are received. Those that belong behind it wait for their turn as
/// long as this is held.
#[derive(Debug)]
pub struct Admitted {
    under_way: UnderWay,
    /// Where a big append can be stored before it is its turn.
    folder: Option<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

impl Logs {
    /// Logs over these tables and objects.
    #[must_use]
    pub fn new(tables: Arc<dyn LogTables>, builds: Arc<dyn BuildStore>, objects: Objects, limits: LogLimits) -> Self {
        let inner = Inner {
            tables,
            builds,
            objects,
            limits,
            open: open::Table::default(),
            recent: Recent::default(),
            appends: Arc::new(Semaphore::new(APPENDS_MAX)),
            ended: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for a place for an append at this offset.
    ///
    /// # Errors
    /// When it cannot be read how far the log is.
    pub async fn admit(&self, id: LogId, offset: u64) -> Result<Admitted, LogError> {
        let place = Arc::clone(&self.inner.appends).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        // Places are given in the order in which they were asked for, so who waits for a turn has one, and so has
        // everybody that it waits for.
        let under_way = self.open(id).begin(offset);
        let end = self.known(&under_way.open).await?.and_then(|known| known.end);
        // Those that are under way come to no more than is in all places.
        let soon = |end: u64| end..=end + APPENDS_MAX as u64 * LOG_CHUNK_BYTES_MAX as u64;
        let folder = end.filter(|(end, _)| soon(*end).contains(&offset)).map(|(_, folder)| folder);
        Ok(Admitted { under_way, folder, _place: place })
    }

    /// Whether this key (its SHA-256, hexadecimal digits) is the one under which this log is sent: that of
    /// whoever took the attempt. Also when the build is over, until its log is.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn takes_key(&self, id: LogId, key_hash: &str) -> Result<bool, LogError> {
        use subtle::ConstantTimeEq;

        let open = self.open(id);
        let expected = match self.known(&open).await?.and_then(|known| known.key_hash) {
            Some(known) => Some(known),
            None => {
                let build = self.inner.builds.build(id.build).await?;
                build.filter(|build| build.attempt == id.attempt).and_then(|build| build.key_hash)
            }
        };
        Ok(expected.is_some_and(|expected| expected.as_bytes().ct_eq(key_hash.as_bytes()).into()))
    }

    /// Appends bytes, with when their lines began. Answers where the next ones go, once they are durable.
    /// `key_hash` is what [`Logs::takes_key`] said yes to.
    ///
    /// A big one is stored as an object before it is its turn, so a sender with several under way waits less.
    ///
    /// # Errors
    /// [`AppendError::Elsewhere`] where the log ends at another offset, [`AppendError::Closed`] where it takes
    /// nothing more; else nothing is known to be stored, and the same may be sent again.
    pub async fn append(
        &self,
        admitted: Admitted,
        times: LineTimes,
        bytes: Bytes,
        key_hash: Option<&str>,
    ) -> Result<u64, AppendError> {
        if bytes.len() > LOG_CHUNK_BYTES_MAX {
            return Err(AppendError::Malformed(format!(
                "an append has at most {LOG_CHUNK_BYTES_MAX} bytes, and this one {}",
                bytes.len()
            )));
        }
        let Admitted { under_way, folder, _place } = admitted;
        let open = &under_way.open;
        let mut append = Append::new(under_way.offset, times, bytes);
        if let Some(folder) = folder.filter(|_| self.inner.limits.is_big(append.length())) {
            append.seal(&self.inner.objects, &folder).await?;
        }
        under_way.turn().await;
        let mut slot = open.writer.lock().await;
        let mut tried_again = false;
        loop {
            self.loaded(open, &mut slot).await?;
            // Taken out: whatever goes wrong, or is not waited for to its end, the next one reads it anew.
            let Some(mut writer) = slot.take() else { continue };
            let done = writer.append(&self.place(open.id), &append, key_hash.map(Arc::from)).await;
            match done {
                Err(AppendError::Failed(LogError::Passed)) if !tried_again => tried_again = true,
                // A row may name its object all the same.
                Err(error @ AppendError::Failed(_)) => return Err(error),
                Err(error) => {
                    *slot = Some(writer);
                    self.delete_later(append.object().into_iter().collect());
                    return Err(error);
                }
                Ok(appended) => {
                    open.note(writer.known());
                    *slot = Some(writer);
                    open.told.send_replace(appended.status.clone());
                    self.delete_later(appended.dropped);
                    return Ok(appended.status.bytes);
                }
            }
        }
    }

    /// Ends a log: its sender says that this is all. Asked again it answers the same.
    ///
    /// # Errors
    /// [`FinishError::Short`] where not all of it has come yet: it goes on. [`FinishError::Differs`] where
    /// what came is something else than what the sender counted: it has ended as it is.
    pub async fn finish(&self, id: LogId, end: &LogEnd) -> Result<(), FinishError> {
        self.end(id, Some(end)).await.map(drop)
    }

    /// Ends a log as it is: nobody is left to say that it has ended.
    ///
    /// # Errors
    /// When that cannot be stored.
    pub async fn close(&self, id: LogId) -> Result<LogEnd, LogError> {
        match self.end(id, None).await {
            Ok(status) => Ok(status.end.unwrap_or_else(|| unreachable!("a log that was ended has an end"))),
            Err(FinishError::Failed(error)) => Err(error),
            Err(FinishError::Short { .. } | FinishError::Differs { .. }) => {
                unreachable!("nobody's count was compared")
            }
        }
    }

    async fn end(&self, id: LogId, told: Option<&LogEnd>) -> Result<LogStatus, FinishError> {
        let open = self.open(id);
        let mut slot = open.writer.lock().await;
        let mut tried_again = false;
        loop {
            self.loaded(&open, &mut slot).await?;
            let Some(mut writer) = slot.take() else { continue };
            let done = writer.finish(&self.place(id), told).await;
            match &done {
                Err(FinishError::Failed(LogError::Passed)) if !tried_again => {
                    tried_again = true;
                    continue;
                }
                Err(FinishError::Failed(_)) => return done,
                Ok(_) | Err(_) => {}
            }
            open.told.send_replace(writer.status());
            open.note(writer.known());
            *slot = Some(writer);
            self.inner.ended.notify_one();
            return done;
        }
    }

    /// Says that nothing will come of an attempt of which nothing came: its build is over. Followers that
    /// wait for it are let go.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn over(&self, id: LogId) -> Result<(), LogError> {
        let open = self.open(id);
        let mut slot = open.writer.lock().await;
        let status = self.loaded(&open, &mut slot).await?.status();
        if status == LogStatus::default() {
            open.told.send_modify(|told| told.never = true);
        }
        Ok(())
    }

    /// A build, as it is stored.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn build(&self, id: BuildId) -> Result<Option<Build>, LogError> {
        Ok(self.inner.builds.build(id).await?)
    }

    /// How far a log is. One that has not begun is empty.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn status(&self, id: LogId) -> Result<LogStatus, LogError> {
        let record = self.inner.tables.log(id).await?;
        Ok(record.as_ref().map_or_else(LogStatus::default, writer::status_of))
    }

    /// The logs of a build, one for each attempt that printed something.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn of_build(&self, build: BuildId) -> Result<Vec<LogId>, LogError> {
        Ok(self.inner.tables.logs_of(&[build]).await?.into_iter().map(|(id, _)| id).collect())
    }

    /// How far a log is, and a sign whenever it goes on. Works before it has begun, and when it is over.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn changed(&self, id: LogId) -> Result<Following, LogError> {
        let open = self.open(id);
        // Who only reads does not wait for an append under way.
        if !open.read.load(Ordering::Acquire) {
            let mut slot = open.writer.lock().await;
            self.loaded(&open, &mut slot).await?;
        }
        let told = open.told.subscribe();
        Ok(Following { told, _open: open })
    }

    /// Whether the place of logs is there at all.
    ///
    /// # Errors
    /// Why no log can be read now.
    pub async fn place_is_there(&self) -> Result<(), LogError> {
        Ok(self.inner.objects.ask().await?)
    }

    /// Deletes all logs of these builds.
    ///
    /// # Errors
    /// When they are not all deleted: to be asked again.
    pub async fn delete(&self, builds: &[BuildId]) -> Result<(), LogError> {
        // Objects first: they are found by the rows. The same builds are named again until both are gone.
        for (_, record) in self.inner.tables.logs_of(builds).await? {
            let objects = self.inner.objects.of_folder(&record.folder).await?;
            if !objects.is_empty() {
                self.inner.objects.delete(objects).await?;
            }
        }
        self.inner.tables.delete_logs(builds).await?;
        self.inner.open.forget(builds).await;
        Ok(())
    }

    fn open(&self, id: LogId) -> Arc<Open> {
        self.inner.open.of(id)
    }

    fn place(&self, id: LogId) -> Place<'_> {
        Place { id, tables: &*self.inner.tables, objects: &self.inner.objects, limits: &self.inner.limits }
    }

    /// What is known of it, where it has begun; but for the first, without waiting for an append under way.
    async fn known(&self, open: &Open) -> Result<Option<Known>, LogError> {
        match open.known() {
            Some(known) => Ok(Some(known)),
            None => {
                let mut slot = open.writer.lock().await;
                Ok(self.loaded(open, &mut slot).await?.known())
            }
        }
    }

    /// The writer, read where it is not known.
    async fn loaded<'a>(&self, open: &Open, slot: &'a mut Option<Writer>) -> Result<&'a mut Writer, LogError> {
        match slot {
            Some(writer) => Ok(writer),
            None => {
                let writer = Writer::load(&self.place(open.id)).await?;
                let status = writer.status();
                open.told.send_if_modified(|told| {
                    let news = LogStatus { never: told.never && status.bytes == 0 && status.end.is_none(), ..status };
                    let is_news = *told != news;
                    *told = news;
                    is_news
                });
                open.read.store(true, Ordering::Release);
                open.note(writer.known());
                Ok(slot.insert(writer))
            }
        }
    }

    /// Deletes objects that nobody names any more, beside what goes on; what fails is found later.
    fn delete_later(&self, names: Vec<Arc<str>>) {
        if names.is_empty() {
            return;
        }
        let objects = self.inner.objects.clone();
        tokio::spawn(async move {
            let names = names.iter().map(|name| object_store::path::Path::from(&**name)).collect();
            if let Err(error) = objects.delete(names).await.map_err(LogError::from) {
                tracing::warn!(%error, "parts of a log that are not kept could not be deleted yet");
            }
        });
    }
}

/// Follows a log: tells how far it is, and when it has gone on.
#[derive(Debug)]
pub struct Following {
    told: watch::Receiver<LogStatus>,
    /// Held: as long as somebody follows, whoever writes tells here.
    _open: Arc<Open>,
}

impl Following {
    /// How far it is now.
    pub fn status(&mut self) -> LogStatus {
        self.told.borrow_and_update().clone()
    }

    /// Waits until it is further than [`Following::status`] said last.
    pub async fn news(&mut self) {
        // The sender is held here, so this cannot fail.
        let _ = self.told.changed().await;
    }
}

/// Why an append is not taken.
#[derive(Debug)]
pub enum AppendError {
    /// The log takes nothing more.
    Closed,
    /// The log ends here, and not at the offset that was said.
    Elsewhere(u64),
    /// It could not be stored, or that is not known.
    Failed(LogError),
    /// It is not what an append is, in words.
    Malformed(String),
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

/// Why a log has not ended as its sender said.
#[derive(Debug)]
pub enum FinishError {
    /// What came is not what the sender counted. It has ended, as it is.
    Differs {
        /// As it is.
        ours: LogEnd,
    },
    /// That could not be stored, or is not known.
    Failed(LogError),
    /// Not all of it has come. It has not ended.
    Short {
        /// Bytes that came.
        stored: u64,
        /// Bytes that the sender counted.
        told: u64,
    },
}

impl From<LogError> for FinishError {
    fn from(error: LogError) -> Self {
        Self::Failed(error)
    }
}

impl fmt::Display for FinishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { ours: LogEnd { bytes, lines, sha256 } } => write!(
                f,
                "the log that was stored is not the one that was counted: it has {bytes} bytes, {lines} lines and the \
                 SHA-256 {sha256}"
            ),
            Self::Failed(error) => error.fmt(f),
            Self::Short { stored, told } => write!(f, "of the log's {told} bytes only {stored} have come"),
        }
    }
}

impl std::error::Error for FinishError {}

/// What can go wrong with logs.
#[derive(Debug)]
pub enum LogError {
    /// Bytes could not be worked on.
    Compression(std::io::Error),
    /// What is stored contradicts itself, in words.
    Damaged(String),
    /// The object store.
    Objects(object_store::Error),
    /// Somebody else has written to the log meanwhile.
    Passed,
    /// The tables.
    Store(StoreError),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compression(error) => write!(f, "a part of a log could not be packed or unpacked: {error}"),
            Self::Damaged(what) => f.write_str(what),
            Self::Objects(error) => write!(f, "the place of logs: {}", objects::said(error)),
            Self::Passed => f.write_str("another broker has written to the log meanwhile"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LogError {}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<object_store::Error> for LogError {
    fn from(error: object_store::Error) -> Self {
        Self::Objects(error)
    }
}
