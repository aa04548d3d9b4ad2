//! Reading: the tables at a start-up, and questions about the past beside the writer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::RwLock;

use super::{Result, failed};
use crate::core::claim::Claim;
use crate::core::lease::{Lease, Outcome};
use crate::core::tables::{
    EndedRecord, JournalEntry, JournalFilter, LabRecord, PastLease, RequestRecord, ResourceRecord, SessionRecord,
    Tables,
};
use crate::core::types::{LabTime, LeaseId, ResourceName, SessionId};
use crate::store::{Reader, StoreError};

type Query = sqlx::query::Query<'static, sqlx::Sqlite, SqliteArguments>;

/// Reads the tables, whole.
pub async fn tables(connection: &mut SqliteConnection) -> Result<Tables> {
    let mut tables = lab(connection).await?;
    tables.pools = all(connection, "SELECT record FROM pool ORDER BY name", |row| json(row, 0, "pool")).await?;
    const RESOURCES: &str = "'[' || record || ',' || coalesce(last_used, 0) || ']' AS record \
        FROM resource LEFT JOIN resource_used USING (resource)";
    let resources = many(connection, "resource", RESOURCES, |(record, last_used): (ResourceRecord, i64)| {
        ResourceRecord { last_used: LabTime(last_used.cast_unsigned()), ..record }
    });
    tables.resources = resources.await?;
    const REMEMBERED: &str = "SELECT name, marks FROM remembered ORDER BY name";
    tables.remembered =
        all(connection, REMEMBERED, |row| Ok((resource_name(text(row, 0)?)?, json(row, 1, "remembered")?))).await?;
    tables.sessions = many(connection, "session", "record FROM session", |record: SessionRecord| record).await?;
    tables.claims = many(connection, "claim", "record FROM claim", |record: Claim| record).await?;
    const LEASES: &str = "record FROM held CROSS JOIN lease USING (lease)";
    tables.leases = many(connection, "lease", LEASES, |record: Arc<Lease>| record).await?;
    tables.requests = requests(connection).await?;
    tables.keyed = all(connection, "SELECT record FROM keyed ORDER BY key", |row| json(row, 0, "keyed")).await?;
    const ARRIVALS: &str = "SELECT record FROM arrival ORDER BY claim";
    tables.arrivals = all(connection, ARRIVALS, |row| json(row, 0, "arrival")).await?;
    Ok(tables)
}

async fn lab(connection: &mut SqliteConnection) -> Result<Tables> {
    const ASK: &str =
        "SELECT batch, last_event, wall_ms, now, term, last_lease, last_claim, last_session, last_resource FROM lab";
    let row = sqlx::query(ASK).fetch_one(connection).await.map_err(failed("read the table `lab`"))?;
    Ok(Tables {
        batch: number(&row, 0)?,
        last_event: number(&row, 1)?,
        wall_ms: number(&row, 2)?.cast_signed(),
        lab: LabRecord {
            now: LabTime(number(&row, 3)?),
            term: number(&row, 4)?,
            last_lease: number(&row, 5)?,
            last_claim: number(&row, 6)?,
            last_session: number(&row, 7)?,
            last_resource: number(&row, 8)?,
        },
        ..Tables::default()
    })
}

/// The ended requests that are still remembered, by session and number. The table is a log: of two
/// rows for one request the later is true.
async fn requests(connection: &mut SqliteConnection) -> Result<Vec<RequestRecord>> {
    const ASK: &str = "SELECT request.session, request.request, request.body_hash, request.ended
        FROM request CROSS JOIN session USING (session)
        WHERE request.request > session.forgotten OR request.row > session.forgotten_row ORDER BY request.row";
    let found = all(connection, ASK, |row| {
        let session = SessionId(number(row, 0)?);
        let request = number(row, 1)?;
        let body_hash: Option<i64> = column(row, 2)?;
        let body_hash = body_hash.map(i64::cast_unsigned);
        Ok(RequestRecord { session, request, body_hash, end: json(row, 3, "request")? })
    })
    .await?;
    let by_key: BTreeMap<_, _> = found.into_iter().map(|record| ((record.session, record.request), record)).collect();
    Ok(by_key.into_values().collect())
}

/// Reads a table of many records, whose key has the table's name, in the order of the key. A row of
/// the driver is as much work as its record, so the store hands over many records as one text, and
/// what was read is parsed on other threads while more is being read.
async fn many<R, T>(
    connection: &mut SqliteConnection,
    table: &'static str,
    from: &'static str,
    take: fn(R) -> T,
) -> Result<Vec<T>>
where
    R: DeserializeOwned + 'static,
    T: Send + 'static,
{
    let text = format!(
        "SELECT max(key), group_concat(record, char(10)) \
         FROM (SELECT {table} AS key, {from} WHERE {table} > $1 ORDER BY {table} LIMIT {RECORDS_AT_ONCE})"
    );
    let mut after = i64::MIN;
    let mut parsing = VecDeque::new();
    let mut found = Vec::new();
    loop {
        let ask = sqlx::query(AssertSqlSafe(text.clone())).bind(after);
        let row = ask.fetch_one(&mut *connection).await.map_err(failed("read the store's tables"))?;
        // Nothing is left where there is no highest key.
        let Some(last) = column(&row, 0)? else { break };
        after = last;
        let records: String = column(&row, 1)?;
        parsing.push_back(tokio::task::spawn_blocking(move || parse(&records, table, take)));
        if parsing.len() > PARSED_AHEAD
            && let Some(oldest) = parsing.pop_front()
        {
            found.append(&mut parsed(oldest).await?);
        }
    }
    for rest in parsing {
        found.append(&mut parsed(rest).await?);
    }
    Ok(found)
}

/// Records that one row of the driver brings, and how many such rows may wait to be parsed.
const RECORDS_AT_ONCE: usize = 2_048;
const PARSED_AHEAD: usize = 8;

fn parse<R: DeserializeOwned, T>(records: &str, table: &'static str, take: fn(R) -> T) -> Result<Vec<T>> {
    let mut found = Vec::with_capacity(RECORDS_AT_ONCE);
    let mut stream = serde_json::Deserializer::from_str(records).into_iter();
    loop {
        let from = stream.byte_offset();
        match stream.next() {
            Some(Ok(record)) => found.push(take(record)),
            Some(Err(error)) => return Err(unreadable(records.get(from..).unwrap_or_default(), table, &error)),
            None => return Ok(found),
        }
    }
}

async fn parsed<T>(parsing: tokio::task::JoinHandle<Result<Vec<T>>>) -> Result<Vec<T>> {
    parsing.await.map_err(failed("parse the store's tables"))?
}

async fn all<T>(
    connection: &mut SqliteConnection,
    ask: &'static str,
    mut read: impl FnMut(&SqliteRow) -> Result<T>,
) -> Result<Vec<T>> {
    let mut rows = sqlx::query(ask).fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(failed("read the store's tables"))? {
        found.push(read(&row)?);
    }
    Ok(found)
}

pub(super) fn column<'r, T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
    row: &'r SqliteRow,
    index: usize,
) -> Result<T> {
    row.try_get(index).map_err(failed("read a column of the store"))
}

pub(super) fn number(row: &SqliteRow, index: usize) -> Result<u64> {
    column::<i64>(row, index).map(i64::cast_unsigned)
}

pub(super) fn text(row: &SqliteRow, index: usize) -> Result<&str> {
    column(row, index)
}

fn json<T: DeserializeOwned>(row: &SqliteRow, index: usize, table: &'static str) -> Result<T> {
    let text = text(row, index)?;
    serde_json::from_str(text).map_err(|error| unreadable(text, table, &error))
}

fn unreadable(text: &str, table: &'static str, error: &serde_json::Error) -> StoreError {
    let shown: String = text.trim_start().chars().take(200).collect();
    StoreError::Inconsistent { what: format!("a record of the table `{table}` cannot be read ({error}): {shown}") }
}

fn resource_name(text: &str) -> Result<ResourceName> {
    ResourceName::parse(text).map_err(|error| StoreError::Inconsistent { what: error.to_string() })
}

/// Reads what is committed, on connections that cannot write.
#[derive(Clone, Debug)]
pub struct SqliteReader {
    /// Replaced when the store is opened again.
    pub(super) pool: Arc<RwLock<SqlitePool>>,
}

impl SqliteReader {
    pub(super) fn new(pool: SqlitePool) -> Self {
        Self { pool: Arc::new(RwLock::new(pool)) }
    }

    async fn ask(&self, query: Query) -> Result<Vec<SqliteRow>> {
        let doing = "read the store";
        let pool = self.pool.read().await.clone();
        let mut connection = match pool.acquire().await {
            // The store is being opened again: the lock is free once it is.
            Err(sqlx::Error::PoolClosed) => self.pool.read().await.clone().acquire().await.map_err(failed(doing))?,
            other => other.map_err(failed(doing))?,
        };
        query.fetch_all(&mut *connection).await.map_err(failed(doing))
    }

    async fn past_leases(&self, query: Query) -> Result<Vec<PastLease>> {
        self.ask(query).await?.iter().map(past_lease).collect()
    }
}

/// A lease's columns, in the order that [`past_lease`] reads.
const PAST_LEASE: &str = "SELECT record, at, outcome, ended FROM lease LEFT JOIN lease_end USING (lease)";

fn past_lease(row: &SqliteRow) -> Result<PastLease> {
    let at: Option<i64> = column(row, 1)?;
    let ended = match at {
        None => None,
        Some(at) => {
            let outcome: Option<&str> = column(row, 2)?;
            let outcome = outcome.map(outcome_of).transpose()?;
            Some(EndedRecord { at: LabTime(at.cast_unsigned()), end: json(row, 3, "lease")?, outcome })
        }
    };
    Ok(PastLease { lease: json(row, 0, "lease")?, ended })
}

fn outcome_of(text: &str) -> Result<Outcome> {
    [Outcome::Passed, Outcome::Failed, Outcome::Infra]
        .into_iter()
        .find(|outcome| super::write::outcome_text(*outcome) == text)
        .ok_or_else(|| StoreError::Inconsistent { what: format!("a lease's outcome is {text:?}") })
}

/// A bound of rows, or of a number, as SQLite takes it.
fn bound(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Reader for SqliteReader {
    async fn journal(&self, filter: &JournalFilter) -> Result<Vec<JournalEntry>> {
        self.ask(journal_query(filter)).await?.iter().map(journal_entry).collect()
    }

    async fn history(&self, name: &ResourceName, before: Option<LeaseId>, limit: usize) -> Result<Vec<PastLease>> {
        // The eras there are, newest first, each found by one search; then the name in each.
        const LEASES: &str = " WHERE lease IN (
            WITH RECURSIVE eras (era) AS (
                SELECT max(era) FROM lease_resource WHERE era <= ($2 >> 10)
                UNION ALL
                SELECT (SELECT max(era) FROM lease_resource WHERE era < eras.era) FROM eras WHERE era IS NOT NULL
            )
            SELECT lease FROM eras CROSS JOIN lease_resource USING (era)
            WHERE resource = $1 AND lease < $2 ORDER BY lease DESC LIMIT $3
        ) ORDER BY lease DESC";
        let text = format!("{PAST_LEASE}{LEASES}");
        let before = before.map_or(i64::MAX, |lease| signed(lease.0));
        let query = sqlx::query(AssertSqlSafe(text)).bind(name.as_str().to_owned()).bind(before).bind(bound(limit));
        self.past_leases(query).await
    }

    async fn lease(&self, lease: LeaseId) -> Result<Option<PastLease>> {
        let text = format!("{PAST_LEASE} WHERE lease = $1");
        let found = self.past_leases(sqlx::query(AssertSqlSafe(text)).bind(signed(lease.0))).await?;
        Ok(found.into_iter().next())
    }

    async fn leases(&self, before: Option<LeaseId>, limit: usize) -> Result<Vec<PastLease>> {
        let text = format!("{PAST_LEASE} WHERE lease < $1 ORDER BY lease DESC LIMIT $2");
        let before = before.map_or(i64::MAX, |lease| signed(lease.0));
        self.past_leases(sqlx::query(AssertSqlSafe(text)).bind(before).bind(bound(limit))).await
    }
}

/// The question that `filter` asks: with each filter that is set as a condition, so that its index
/// is used, and few texts.
fn journal_query(filter: &JournalFilter) -> Query {
    let mut text = "SELECT event, batch, at, wall_ms, body FROM journal WHERE event > $1".to_owned();
    let filters = [
        (" AND lease = $3", filter.lease.map(|id| id.0)),
        (" AND claim = $4", filter.claim.map(|id| id.0)),
        (
            // Between its first event and its last; the doubled condition is the index's own.
            " AND session = $5
              AND event >= coalesce((SELECT event FROM journal WHERE session = $5
                AND kind IN ('session_opened', 'session_ended') AND kind = 'session_opened'), 0)
              AND event <= coalesce((SELECT event FROM journal WHERE session = $5
                AND kind IN ('session_opened', 'session_ended') AND kind = 'session_ended'), $7)",
            filter.session.map(|id| id.0),
        ),
        (" AND resource = $6", filter.resource.map(|id| id.0)),
    ];
    for (condition, value) in filters {
        text.push_str(if value.is_some() { condition } else { "" });
    }
    text.push_str(" ORDER BY event LIMIT $2");
    let mut query = sqlx::query(AssertSqlSafe(text)).bind(signed(filter.after)).bind(bound(filter.limit));
    for (_, value) in filters {
        query = query.bind(value.map(signed));
    }
    query.bind(i64::MAX)
}

fn journal_entry(row: &SqliteRow) -> Result<JournalEntry> {
    Ok(JournalEntry {
        number: number(row, 0)?,
        batch: number(row, 1)?,
        at: LabTime(number(row, 2)?),
        wall_ms: column(row, 3)?,
        event: json(row, 4, "journal")?,
    })
}
