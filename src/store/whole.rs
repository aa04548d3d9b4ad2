//! Reading a store as a whole: the questions, and how their answers are read, alike on both kinds.
//!
//! The tables have the same names and columns everywhere, so a kind of store brings a connection that
//! answers ([`Whole`]), and the few texts that differ.

use std::collections::BTreeMap;
use std::future::Future;

use super::StoreError;
use super::archive::{CheckpointRow, EndRow, Head, JournalRow, LeaseRow, Leases, PIECE, Record, Snapshot, Table};
use super::names::Names;
use crate::core::tables::LabRecord;
use crate::core::types::{ClaimId, LabTime, LeaseId, ResourceId, SessionId};

type Result<T> = std::result::Result<T, StoreError>;

/// Leases of one era stand together in the history of resources; pieces end where eras do.
const ERA_LAST: u64 = 1_023;

/// A row of an answer. Columns count from 0; one of another type than asked for is an error.
pub(super) trait Columns {
    /// A whole number.
    fn signed(&self, index: usize) -> Result<Option<i64>>;

    /// A text.
    fn text(&self, index: usize) -> Result<Option<String>>;
}

/// A connection to a store that sees one moment of it.
pub(super) trait Whole: Send {
    /// What it answers.
    type Row: Columns;

    /// The last of the leases that follow `$1`, of `$2` at most.
    const LAST_OF_PIECE: &'static str;
    /// The requests that are not forgotten, in the order in which they were written.
    const REQUESTS: &'static str;

    /// What people call the store.
    fn store(&self) -> String;

    /// All rows of an answer; the numbers stand for `$1`, `$2` ...
    fn all<T: Send>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&Self::Row) -> Result<T> + Send,
    ) -> impl Future<Output = Result<Vec<T>>> + Send;

    /// Lets the store go on without it.
    fn end(self) -> impl Future<Output = Result<()>> + Send;
}

impl<W: Whole> Snapshot for W {
    fn name(&self) -> String {
        self.store()
    }

    async fn head(&mut self) -> Result<Head> {
        const ASK: &str = "SELECT batch, last_event, wall_ms, now, term, last_lease, last_claim, last_session, \
            last_resource FROM lab";
        let rows = self.all(ASK, &[], |row| {
            Ok(Head {
                batch: number(row, 0)?,
                last_event: number(row, 1)?,
                wall_ms: there(row.signed(2)?)?,
                lab: LabRecord {
                    now: LabTime(number(row, 3)?),
                    term: number(row, 4)?,
                    last_lease: number(row, 5)?,
                    last_claim: number(row, 6)?,
                    last_session: number(row, 7)?,
                    last_resource: number(row, 8)?,
                },
            })
        });
        let found = rows.await?.into_iter().next();
        found.ok_or_else(|| StoreError::Inconsistent { what: "the table `lab` has no row".to_owned() })
    }

    async fn records(&mut self, table: Table) -> Result<Vec<Record>> {
        let ask = match table {
            Table::Pool => "SELECT name, record FROM pool",
            Table::Resource => "SELECT CAST(resource AS TEXT), record FROM resource",
            Table::Used => "SELECT CAST(resource AS TEXT), CAST(last_used AS TEXT) FROM resource_used",
            Table::Remembered => "SELECT name, marks FROM remembered",
            Table::Session => "SELECT CAST(session AS TEXT), record FROM session",
            Table::Request => return requests(self).await,
            Table::Claim => "SELECT CAST(claim AS TEXT), record FROM claim",
            Table::Keyed => "SELECT key, record FROM keyed",
            Table::Arrival => "SELECT CAST(claim AS TEXT), record FROM arrival",
        };
        self.all(ask, &[], |row| Ok(Record { key: text(row, 0)?, text: text(row, 1)? })).await
    }

    async fn journal(&mut self, after: u64) -> Result<Vec<JournalRow>> {
        const ASK: &str = "SELECT event, batch, at, wall_ms, kind, lease, claim, session, resource, body \
            FROM journal WHERE event > $1 ORDER BY event LIMIT $2";
        let piece = [after, PIECE as u64];
        let rows = self.all(ASK, &piece, |row| {
            let named = |index| Ok::<_, StoreError>(row.signed(index)?.map(i64::cast_unsigned));
            Ok(JournalRow {
                number: number(row, 0)?,
                batch: number(row, 1)?,
                at: number(row, 2)?,
                wall_ms: there(row.signed(3)?)?,
                kind: text(row, 4)?,
                names: Names {
                    lease: named(5)?.map(LeaseId),
                    claim: named(6)?.map(ClaimId),
                    session: named(7)?.map(SessionId),
                    resource: named(8)?.map(ResourceId),
                },
                body: text(row, 9)?,
            })
        });
        rows.await
    }

    async fn leases(&mut self, after: u64) -> Result<Leases> {
        const RESOURCES: &str = "SELECT lease, resource FROM lease_resource WHERE era >= $1 AND era <= $2";
        let last = self.all(Self::LAST_OF_PIECE, &[after, PIECE as u64], |row| row.signed(0)).await?;
        let next = last.into_iter().flatten().next().map(|last| last.cast_unsigned() | ERA_LAST);
        // After the last lease there may be names of leases that are not there.
        let last = next.unwrap_or(u64::MAX);
        let mut found = between(self, after, last).await?;
        let eras = [(after + 1) >> 10, last >> 10];
        for (lease, resource) in self.all(RESOURCES, &eras, |row| Ok((number(row, 0)?, text(row, 1)?))).await? {
            let row = found.entry(lease).or_insert_with(|| LeaseRow { lease, ..LeaseRow::default() });
            row.resources.push(resource);
        }
        let mut rows: Vec<LeaseRow> = found.into_values().collect();
        rows.iter_mut().for_each(|row| row.resources.sort_unstable());
        Ok(Leases { rows, next })
    }

    async fn lease(&mut self, lease: u64) -> Result<LeaseRow> {
        let found = between(self, lease.saturating_sub(1), lease).await?;
        Ok(found.into_values().next().unwrap_or_else(|| LeaseRow { lease, ..LeaseRow::default() }))
    }

    async fn checkpoint(&mut self) -> Result<Option<CheckpointRow>> {
        const ASK: &str = "SELECT event, batch, at, tables FROM checkpoint ORDER BY event DESC LIMIT 1";
        let rows = self.all(ASK, &[], |row| {
            let (event, batch, at) = (number(row, 0)?, number(row, 1)?, number(row, 2)?);
            Ok(CheckpointRow { event, batch, at, tables: text(row, 3)? })
        });
        Ok(rows.await?.into_iter().next())
    }

    async fn close(self) -> Result<()> {
        self.end().await
    }
}

/// What is stored of the leases after one and up to another.
async fn between<W: Whole>(whole: &mut W, after: u64, last: u64) -> Result<BTreeMap<u64, LeaseRow>> {
    const RECORDS: &str = "SELECT lease, record FROM lease WHERE lease > $1 AND lease <= $2";
    const ENDS: &str = "SELECT lease, at, outcome, ended FROM lease_end WHERE lease > $1 AND lease <= $2";
    const HELD: &str = "SELECT lease FROM held WHERE lease > $1 AND lease <= $2";
    let mut found: BTreeMap<u64, LeaseRow> = BTreeMap::new();
    let range = [after, last];
    for (lease, record) in whole.all(RECORDS, &range, |row| Ok((number(row, 0)?, text(row, 1)?))).await? {
        found.entry(lease).or_default().record = Some(record);
    }
    let ends = whole.all(ENDS, &range, |row| {
        Ok((number(row, 0)?, EndRow { at: number(row, 1)?, outcome: row.text(2)?, ended: text(row, 3)? }))
    });
    for (lease, end) in ends.await? {
        found.entry(lease).or_default().end = Some(end);
    }
    for lease in whole.all(HELD, &range, |row| number(row, 0)).await? {
        found.entry(lease).or_default().held = true;
    }
    for (lease, row) in &mut found {
        row.lease = *lease;
    }
    Ok(found)
}

async fn requests<W: Whole>(whole: &mut W) -> Result<Vec<Record>> {
    let rows = whole.all(W::REQUESTS, &[], |row| {
        let body_hash = row.signed(2)?.map_or_else(|| "null".to_owned(), |hash| hash.cast_unsigned().to_string());
        let (session, request) = (number(row, 0)?, number(row, 1)?);
        Ok(Record { key: format!("{session}/{request}"), text: format!("[{body_hash},{}]", text(row, 3)?) })
    });
    // The table is a log: of two rows for one request the later is true.
    let latest: BTreeMap<String, String> = rows.await?.into_iter().map(|row| (row.key, row.text)).collect();
    Ok(latest.into_iter().map(|(key, text)| Record { key, text }).collect())
}

/// The two numbers in the key of a request, which is `SESSION/REQUEST`.
pub(super) fn request_key(record: &Record) -> Option<(u64, u64)> {
    let (session, request) = record.key.split_once('/')?;
    Some((session.parse().ok()?, request.parse().ok()?))
}

fn there<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| StoreError::Inconsistent { what: "a column that always has a value has none".to_owned() })
}

fn number(row: &impl Columns, index: usize) -> Result<u64> {
    there(row.signed(index)?).map(i64::cast_unsigned)
}

fn text(row: &impl Columns, index: usize) -> Result<String> {
    there(row.text(index)?)
}
