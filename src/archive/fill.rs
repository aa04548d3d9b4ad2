//! One store's rows into an empty one, and then all of them compared.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::state;
use crate::core::lease::Lease;
use crate::core::tables::Tables;
use crate::store::StoreError;
use crate::store::archive::{CheckpointRow, EndRow, JournalRow, LeaseRow, Leases, Record, Snapshot, Table, Target};

type Result<T> = std::result::Result<T, StoreError>;

/// What was copied, counted where it was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Events of the journal.
    pub events: u64,
    /// Leases, ended ones too.
    pub leases: u64,
    /// Rows of the state's tables.
    pub rows: u64,
}

/// Records that are handed over at a time.
const RECORDS_AT_ONCE: usize = 1_000;

/// Puts all of a store into an empty one.
///
/// # Errors
/// Where either store fails.
pub async fn fill<S: Snapshot, T: Target>(from: &mut S, to: &mut T) -> Result<()> {
    for table in Table::ALL {
        for records in from.records(table).await?.chunks(RECORDS_AT_ONCE) {
            to.put_records(table, records).await?;
        }
    }
    let mut after = 0;
    loop {
        let rows = from.journal(after).await?;
        let Some(last) = rows.last() else { break };
        after = last.number;
        to.put_journal(&rows).await?;
    }
    let mut next = Some(0);
    while let Some(after) = next {
        let piece = from.leases(after).await?;
        to.put_leases(&piece.rows).await?;
        next = piece.next;
    }
    if let Some(checkpoint) = from.checkpoint().await? {
        to.put_checkpoint(&checkpoint).await?;
    }
    let head = from.head().await?;
    to.put_head(&head).await
}

/// Compares everything in two stores, row by row.
///
/// # Errors
/// [`StoreError::Inconsistent`] with the first row that differs; another where either store fails.
pub async fn compare<A: Snapshot, B: Snapshot>(one: &mut A, other: &mut B) -> Result<Copied> {
    let mut copied = Copied::default();
    same("lab", "", &one.head().await?, &other.head().await?)?;
    for table in Table::ALL {
        let (ours, theirs) = (sorted(one.records(table).await?), sorted(other.records(table).await?));
        for row in 0..ours.len().max(theirs.len()) {
            let (ours, theirs) = (ours.get(row), theirs.get(row));
            let key = ours.or(theirs).map_or("", |record| record.key.as_str());
            same(table.name(), key, &ours.map(record), &theirs.map(record))?;
        }
        copied.rows += ours.len() as u64;
    }
    let mut after = 0;
    loop {
        let (ours, theirs) = (one.journal(after).await?, other.journal(after).await?);
        same("journal", "", &ours.len(), &theirs.len())?;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            same("journal", &ours.number.to_string(), &journal_row(ours), &journal_row(theirs))?;
        }
        copied.events += ours.len() as u64;
        let Some(last) = ours.last() else { break };
        after = last.number;
    }
    copied.leases = compare_leases(one, other).await?;
    let (ours, theirs) = (one.checkpoint().await?, other.checkpoint().await?);
    same("checkpoint", "", &ours.as_ref().map(checkpoint_row), &theirs.as_ref().map(checkpoint_row))?;
    Ok(copied)
}

/// Stores end their pieces where they like.
async fn compare_leases<A: Snapshot, B: Snapshot>(one: &mut A, other: &mut B) -> Result<u64> {
    let (mut ours, mut theirs) = (Rows::default(), Rows::default());
    let mut compared = 0;
    loop {
        let (mine, its) = (ours.next(one).await?, theirs.next(other).await?);
        let key = mine.as_ref().or(its.as_ref()).map(|row| row.lease.to_string());
        let Some(key) = key else { return Ok(compared) };
        same("lease", &key, &mine.as_ref().map(lease_row), &its.as_ref().map(lease_row))?;
        compared += 1;
    }
}

/// The leases of a store, one after another.
struct Rows {
    rows: std::vec::IntoIter<LeaseRow>,
    next: Option<u64>,
}

impl Default for Rows {
    fn default() -> Self {
        Self { rows: Vec::new().into_iter(), next: Some(0) }
    }
}

impl Rows {
    async fn next<S: Snapshot>(&mut self, from: &mut S) -> Result<Option<LeaseRow>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            let Some(after) = self.next else { return Ok(None) };
            let Leases { rows, next } = from.leases(after).await?;
            (self.rows, self.next) = (rows.into_iter(), next);
        }
    }
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    records
}

/// JSON by what it says: a store may write it in another way.
fn json(text: &str) -> std::result::Result<Value, &str> {
    serde_json::from_str(text).map_err(|_| text)
}

fn record(record: &Record) -> (&str, std::result::Result<Value, &str>) {
    (&record.key, json(&record.text))
}

fn journal_row(row: &JournalRow) -> impl PartialEq + std::fmt::Debug + '_ {
    ((row.number, row.batch, row.at, row.wall_ms), (&row.kind, row.names), json(&row.body))
}

fn checkpoint_row(row: &CheckpointRow) -> impl PartialEq + std::fmt::Debug + '_ {
    ((row.event, row.batch, row.at), json(&row.tables))
}

fn lease_row(row: &LeaseRow) -> impl PartialEq + std::fmt::Debug + '_ {
    let end = |end: &EndRow| (end.at, end.outcome.clone(), json(&end.ended).map_err(str::to_owned));
    ((row.lease, row.held), row.record.as_deref().map(json), row.end.as_ref().map(end), &row.resources)
}

fn same<T: PartialEq + std::fmt::Debug>(table: &str, key: &str, ours: &T, theirs: &T) -> Result<()> {
    if ours == theirs {
        return Ok(());
    }
    let what = format!("the copy differs in {table} {key}: it has {theirs:?}, and the original {ours:?}");
    Err(StoreError::Inconsistent { what })
}

/// The books that a store holds, from its rows.
///
/// # Errors
/// Where it cannot be read, or a record of it.
pub async fn books<S: Snapshot>(from: &mut S) -> Result<Tables> {
    let head = from.head().await?;
    let mut tables = state::read(from, &head).await?;
    let mut rows = Rows::default();
    while let Some(row) = rows.next(from).await? {
        if !row.held {
            continue;
        }
        let record = row.record.as_deref().unwrap_or("null");
        let lease: Arc<Lease> = serde_json::from_str(record).map_err(|error| StoreError::Inconsistent {
            what: format!("the record of lease {} cannot be read: {error}", row.lease),
        })?;
        tables.leases.push(lease);
    }
    Ok(tables)
}
