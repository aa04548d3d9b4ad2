//! A store as a whole, row by row: what checking, copying, backing up and restoring go by.
//!
//! A [`Snapshot`] reads everything as of one moment, a [`Target`] is an empty store that takes rows
//! and shows nobody any of them before it is finished. Rows are what a store keeps, in words that
//! all stores have in common: records stay the JSON that the core wrote, unread, so that a damaged
//! one can be told by its key. State is handed over a table at a time, as it fits into the memory
//! of a broker anyway; the journal and the history of leases, which need not, piece by piece.

use std::future::Future;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::names::Names;
use crate::core::tables::{Batch, LabRecord};

type Result<T> = std::result::Result<T, StoreError>;

/// Rows of the journal or of the history that are handled at a time, about.
pub const PIECE: usize = 1_000;

/// The tables that the state is made of, without those of the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `PoolRecord`s by name.
    Pool,
    /// `ResourceRecord`s by number; when they were last given is not read from here.
    Resource,
    /// When resources were last given, by number: the number of milliseconds.
    Used,
    /// `Marks` of names that are not on the books, by name.
    Remembered,
    /// `SessionRecord`s by number.
    Session,
    /// Ended requests by `SESSION/REQUEST`: `[BODY_HASH or null, RequestEnd]`. None that is forgotten.
    Request,
    /// `Claim`s by number.
    Claim,
    /// `KeyedRecord`s by the hash of the key.
    Keyed,
    /// `Arrival`s by the number of the claim.
    Arrival,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Pool,
        Self::Resource,
        Self::Used,
        Self::Remembered,
        Self::Session,
        Self::Request,
        Self::Claim,
        Self::Keyed,
        Self::Arrival,
    ];

    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Resource => "resource",
            Self::Used => "resource_used",
            Self::Remembered => "remembered",
            Self::Session => "session",
            Self::Request => "request",
            Self::Claim => "claim",
            Self::Keyed => "keyed",
            Self::Arrival => "arrival",
        }
    }
}

/// The lab's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last batch, 0 in an empty store.
    pub batch: u64,
    /// The journal's last event, 0 in an empty store.
    pub last_event: u64,
    /// The wall clock of the last batch, Unix milliseconds.
    pub wall_ms: i64,
    /// Lab time and counters.
    pub lab: LabRecord,
}

/// A row of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is found by.
    pub key: String,
    /// JSON.
    pub text: String,
}

/// A row of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    /// Its dense number.
    pub number: u64,
    /// The batch it was committed with.
    pub batch: u64,
    /// Lab milliseconds.
    pub at: u64,
    /// Unix milliseconds.
    pub wall_ms: i64,
    /// The event's tag, beside the event.
    pub kind: String,
    /// What the event names, beside the event.
    pub names: Names,
    /// The event as JSON.
    pub body: String,
}

/// How a lease ended, as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRow {
    /// Lab milliseconds.
    pub at: u64,
    /// The word for what the runner said of its work.
    pub outcome: Option<String>,
    /// A `LeaseEnd` as JSON.
    pub ended: String,
}

/// Everything that is stored of a lease. In a store that is not damaged there is a record, and
/// either an end or the mark that it is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRow {
    /// Its number.
    pub lease: u64,
    /// The `Lease` as JSON.
    pub record: Option<String>,
    /// How it ended.
    pub end: Option<EndRow>,
    /// Whether it is among those that a start-up reads.
    pub held: bool,
    /// The names by which it is found in the history of a resource, sorted.
    pub resources: Vec<String>,
}

/// A piece of the leases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leases {
    /// In order. Rows that have no place in it, which only damage can make, come somewhere.
    pub rows: Vec<LeaseRow>,
    /// The number after which the next piece begins; `None` at the end.
    pub next: Option<u64>,
}

/// The whole state after an event, from which checking starts once older events are pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    /// The event.
    pub event: u64,
    /// Its batch.
    pub batch: u64,
    /// Lab milliseconds.
    pub at: u64,
    /// `Tables` as JSON.
    pub tables: String,
}

/// Reads all of a store as of one moment, whoever writes to it meanwhile.
pub trait Snapshot: Send {
    /// What people call the store.
    fn name(&self) -> String;

    /// Where the books are.
    fn head(&mut self) -> impl Future<Output = Result<Head>> + Send;

    /// A table, whole.
    fn records(&mut self, table: Table) -> impl Future<Output = Result<Vec<Record>>> + Send;

    /// The journal's rows after a number, in order, at most [`PIECE`] of them; none at its end.
    fn journal(&mut self, after: u64) -> impl Future<Output = Result<Vec<JournalRow>>> + Send;

    /// The leases after a number where a piece begins, about [`PIECE`] of them, with everything that
    /// is stored of each.
    fn leases(&mut self, after: u64) -> impl Future<Output = Result<Leases>> + Send;

    /// What is stored of one lease, but for its resources.
    fn lease(&mut self, lease: u64) -> impl Future<Output = Result<LeaseRow>> + Send;

    /// The checkpoint, where there is one.
    fn checkpoint(&mut self) -> impl Future<Output = Result<Option<CheckpointRow>>> + Send;

    /// Lets the store go on without it.
    fn close(self) -> impl Future<Output = Result<()>> + Send;
}

/// An empty store that is being filled. Nothing of it is a store before [`Target::finish`]; where
/// that is not called, or fails, there was none.
pub trait Target: Snapshot {
    /// Where the books are.
    fn put_head(&mut self, head: &Head) -> impl Future<Output = Result<()>> + Send;

    /// Rows of a table.
    fn put_records(&mut self, table: Table, records: &[Record]) -> impl Future<Output = Result<()>> + Send;

    /// Rows of the journal.
    fn put_journal(&mut self, rows: &[JournalRow]) -> impl Future<Output = Result<()>> + Send;

    /// Leases with everything that is stored of each.
    fn put_leases(&mut self, rows: &[LeaseRow]) -> impl Future<Output = Result<()>> + Send;

    /// The checkpoint.
    fn put_checkpoint(&mut self, checkpoint: &CheckpointRow) -> impl Future<Output = Result<()>> + Send;

    /// A batch on top of what was put, as a broker commits one.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<()>> + Send;

    /// Makes it the store, durable, all at once. Answers where what was there before was moved to.
    fn finish(self) -> impl Future<Output = Result<Option<String>>> + Send;
}
