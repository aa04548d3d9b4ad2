//! The indexer: brings what is queued into the index, and takes out what is gone.
//!
//! The queue is in the database, so nothing is lost by a crash or by a cluster that is away: an entry goes
//! when the index has it. What is done twice comes to the same, as a piece of a log has one number.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::cluster::ClusterError;
use super::pieces::{Cut, Cutter};
use super::{Place, Search};
use crate::builds::log::LogId;
use crate::clock::boot_now_us;
use crate::pipeline::aside::Aside;
use crate::pipeline::logs::LogError;
use crate::store::StoreError;
use crate::store::builds::search::ToIndex;

/// Entries taken from the queue at once.
const AT_ONCE_MAX: usize = 64;
/// How many times as long as a piece took it rests while logs are appended to: so much of a processor, and of
/// the writer of the tables, is theirs.
const RESTS: u64 = 8;
/// Bytes of a log that goes before one that is being worked on.
const SMALL_BYTES_MAX: u64 = 1024 * 1024;
/// How often the queue is looked at while it is empty: how soon a log that ended can be found.
const LOOK: Duration = Duration::from_secs(1);
/// How long it rests after trouble, doubling up to the longest.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
/// How often a log is tried that cannot be read.
const TRIES_MAX: u32 = 3;
/// Bytes of pieces that go to a cluster at once, and how many pieces.
const BATCH_BYTES: usize = 5 * 1024 * 1024;
const BATCH_PIECES: usize = 1_000;

/// What keeps the index from being brought up to date.
#[derive(Debug)]
pub(super) enum Trouble {
    Cluster(ClusterError),
    /// Logs cannot be read at present, whichever they are.
    Logs(LogError),
    Store(StoreError),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cluster(error) => error.fmt(f),
            Self::Logs(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ClusterError> for Trouble {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

/// What this process remembers between two looks.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether the queue is known to be for this index.
    aimed: bool,
    /// How often each log could not be read.
    tries: HashMap<LogId, u32>,
}

impl Search {
    /// Keeps the index up to date until it is told to stop.
    pub async fn index(self, stop: CancellationToken) {
        let mut memory = Memory::default();
        let mut rest = REST;
        loop {
            let pause = match stop.run_until_cancelled(self.index_some(&mut memory)).await {
                None => return,
                Some(Ok(true)) => {
                    rest = REST;
                    self.told(None);
                    continue;
                }
                Some(Ok(false)) => {
                    rest = REST;
                    self.told(None);
                    LOOK
                }
                Some(Err(trouble)) => {
                    // A cluster that comes back may be another than it was.
                    memory.aimed = false;
                    self.told(Some(&trouble.to_string()));
                    let pause = rest;
                    rest = (rest * 2).min(REST_MAX);
                    pause
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Says once that there is trouble, and once that it is over.
    fn told(&self, trouble: Option<&str>) {
        let mut known = self.inner.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (&*known, trouble) {
            (None, Some(trouble)) => tracing::warn!("logs are not being indexed, and it is tried again: {trouble}"),
            (Some(_), None) => tracing::warn!("logs are being indexed again"),
            _ => {}
        }
        *known = trouble.map(str::to_owned);
    }

    /// Indexes some of what is queued; `false` when there was nothing.
    pub(super) async fn index_some(&self, memory: &mut Memory) -> Result<bool, Trouble> {
        let aimed = memory.aimed;
        if !aimed {
            self.aim(memory).await?;
        }
        let entries = self.inner.tables.to_index(AT_ONCE_MAX).await?;
        // It may have lost its index since it was asked last, also without ever being seen away, and would make
        // one by itself of what it is sent, which finds nothing.
        if aimed && !entries.is_empty() && matches!(self.inner.place, Place::Cluster(_)) {
            self.aim(memory).await?;
        }
        if entries.is_empty() {
            return Ok(false);
        }
        let aside = Arc::new(Aside::start("indexer").map_err(|error| failed(error.into()))?);
        let mut pass = Pass { aside, batch: Batch::default(), looked_at: HashMap::new() };
        for entry in &entries {
            if pass.looked_at.get(&entry.log) == Some(&true) {
                continue;
            }
            if entry.gone {
                self.unindex(entry.log).await?;
                memory.tries.remove(&entry.log);
                pass.batch.done.push(*entry);
                continue;
            }
            match self.index_log(entry.log, &mut pass, true).await? {
                Ok(()) => {
                    memory.tries.remove(&entry.log);
                    pass.batch.done.push(*entry);
                }
                Err(error) => {
                    let error = match self.its_own(error).await {
                        Ok(error) => error,
                        Err(error) => {
                            self.flush(&mut pass.batch).await?;
                            return Err(Trouble::Logs(error));
                        }
                    };
                    let tries = memory.tries.entry(entry.log).or_default();
                    *tries += 1;
                    if *tries >= TRIES_MAX {
                        let LogId { build, attempt } = entry.log;
                        tracing::warn!("the log of {build}, attempt {attempt}, is left out of the search: {error}");
                        memory.tries.remove(&entry.log);
                        pass.batch.done.push(*entry);
                    }
                }
            }
        }
        self.flush(&mut pass.batch).await?;
        // All that could be done is done: what is left could not be read, and is tried again after a pause.
        Ok(memory.tries.is_empty())
    }

    /// Why a log cannot be read, where that is its own fault; the error is why none can be at present.
    async fn its_own(&self, error: LogError) -> Result<LogError, LogError> {
        match error {
            // What could not be worked on is this log's bytes.
            LogError::Compression(_) | LogError::Damaged(_) => Ok(error),
            // A bucket or a folder that is gone says so of each object.
            LogError::Objects(object_store::Error::NotFound { .. }) => {
                self.inner.logs.place_is_there().await.map(|()| error)
            }
            LogError::Objects(_) | LogError::Passed | LogError::Store(_) => Err(error),
        }
    }

    /// Says to the queue what it is for. A cluster without our index is a new one: it gets every log.
    async fn aim(&self, memory: &mut Memory) -> Result<(), Trouble> {
        let tables = &self.inner.tables;
        memory.aimed = false;
        match &self.inner.place {
            Place::Embedded => tables.aim("embedded 1", true).await?,
            Place::Cluster(cluster) => {
                let target = format!("cluster 1 {}", cluster.name());
                if cluster.prepare().await? {
                    tables.aim(&format!("{target} to be"), false).await?;
                }
                tables.aim(&target, false).await?;
            }
        }
        memory.aimed = true;
        Ok(())
    }

    async fn unindex(&self, log: LogId) -> Result<(), Trouble> {
        match &self.inner.place {
            Place::Embedded => self.inner.tables.unindex(log).await?,
            Place::Cluster(cluster) => cluster.forget(log).await?,
        }
        Ok(())
    }

    /// Reads a log through, and hands on its pieces. The inner error is the log's own.
    async fn index_log(&self, log: LogId, pass: &mut Pass, lets_pass: bool) -> Result<Result<(), LogError>, Trouble> {
        let labels = match self.inner.builds.build(log.build).await? {
            // It was deleted meanwhile, as its log will be.
            None => return Ok(Ok(())),
            Some(build) => Labels { repository: build.repository.to_string(), pipeline: build.plan.name.to_string() },
        };
        let mut cutter = Cutter::new(log);
        let aside = Arc::clone(&pass.aside);
        let mut passage = self.inner.logs.passage(log, &aside);
        loop {
            let lines = match passage.next().await {
                Ok(lines) => lines,
                Err(error) => return Ok(Err(error)),
            };
            if lines.is_empty() {
                break;
            }
            // A piece is put before the next is cut, so that one is held, however many there are.
            let mut lines = lines.into_iter();
            loop {
                let began = boot_now_us();
                let cutting = aside.run(move || {
                    let full = cutter.next(&mut lines);
                    (cutter, lines, full)
                });
                let full;
                (cutter, lines, full) = cutting.await.map_err(|error| failed(error.into()))?;
                let Some(cut) = full else { break };
                self.put(cut, &labels, &mut pass.batch).await?;
                self.give_way(boot_now_us().saturating_sub(began)).await;
            }
            if lets_pass {
                Box::pin(self.small_ones_first(log, pass)).await?;
            }
        }
        if let Some(cut) = cutter.end() {
            self.put(cut, &labels, &mut pass.batch).await?;
        }
        Ok(Ok(()))
    }

    /// Indexes small logs that stand in the queue behind a large one, or have come into it since: nobody waits for
    /// that one to be done.
    async fn small_ones_first(&self, large: LogId, pass: &mut Pass) -> Result<(), Trouble> {
        let mut some = false;
        for entry in self.inner.tables.to_index(AT_ONCE_MAX).await? {
            if entry.gone || entry.log == large || pass.looked_at.contains_key(&entry.log) {
                continue;
            }
            let status = self.inner.logs.status(entry.log).await;
            let is_small = status.is_ok_and(|status| status.bytes <= SMALL_BYTES_MAX);
            // One that cannot be read is left to its turn.
            let done = is_small && self.index_log(entry.log, pass, false).await?.is_ok();
            pass.looked_at.insert(entry.log, done);
            if done {
                pass.batch.done.push(entry);
                some = true;
            }
        }
        if some { self.flush(&mut pass.batch).await } else { Ok(()) }
    }

    async fn put(&self, cut: Cut, labels: &Labels, batch: &mut Batch) -> Result<(), Trouble> {
        match &self.inner.place {
            // A transaction each: whoever else writes waits for one piece at most.
            Place::Embedded => self.inner.tables.index(&cut.piece).await?,
            Place::Cluster(_) => {
                batch.bytes += cut.text.len() + cut.piece.words.iter().map(|word| word.len() + 1).sum::<usize>();
                batch.pieces.push((cut, labels.clone()));
                if batch.bytes >= BATCH_BYTES || batch.pieces.len() >= BATCH_PIECES {
                    self.flush(batch).await?;
                }
            }
        }
        Ok(())
    }

    /// Lets whoever appends to a log go first, who is waited for: after a piece that took so long.
    async fn give_way(&self, took_us: u64) {
        if self.inner.logs.is_appended_to() {
            let rest = Duration::from_micros(took_us.saturating_mul(RESTS)).min(REST);
            tokio::time::sleep(rest).await;
        }
    }

    /// Sends what is gathered, and takes what is done out of the queue.
    async fn flush(&self, batch: &mut Batch) -> Result<(), Trouble> {
        if let Place::Cluster(cluster) = &self.inner.place {
            cluster.put(std::mem::take(&mut batch.pieces)).await?;
            batch.bytes = 0;
        }
        for entry in batch.done.drain(..) {
            self.inner.tables.indexed(entry).await?;
        }
        Ok(())
    }
}

/// What a cluster is told of a log beside its words.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    pub(super) repository: String,
    pub(super) pipeline: String,
}

/// What is gathered before it is sent.
#[derive(Debug, Default)]
struct Batch {
    pieces: Vec<(Cut, Labels)>,
    bytes: usize,
    /// Entries whose pieces are all sent, or among those here.
    done: Vec<ToIndex>,
}

/// Some of the queue, being worked on.
struct Pass {
    aside: Arc<Aside>,
    batch: Batch,
    /// Logs that might have gone before their turn, and whether they have.
    looked_at: HashMap<LogId, bool>,
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    StoreError::Failed { doing: "cut a log into pieces", source }
}
