//! Reading: the tables at a takeover, whether this process leads, and questions about the past.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgPoolOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Row as _};
use tokio::sync::{Mutex, RwLock, RwLockWriteGuard};
use tokio::time::timeout;

use super::connect::{self, Limits, Target, Who};
use super::lead::{Lead, lab_row};
use super::write::outcome_text;
use super::{Result, failed, number};
use crate::core::lease::{Lease, Outcome};
use crate::core::tables::{
    EndedRecord, JournalEntry, JournalFilter, LabRecord, PastLease, RequestRecord, ResourceRecord, Tables,
};
use crate::core::types::{LabTime, LeaseId, ResourceName, SessionId};
use crate::store::{Reader, StoreError};

type Query = sqlx::query::Query<'static, sqlx::Postgres, PgArguments>;

/// Connections that answer questions; a further question waits for one.
const READERS_MAX: u32 = 4;
/// How long a question waits for one of them.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the tables, whole, as they are at one moment after the call; refuses where this lead is over.
pub async fn snapshot(connection: &mut PgConnection, limits: Limits, lead: &Lead) -> Result<Tables> {
    let doing = "read the store's tables";
    let begin = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let mut transaction = limits.of_read(doing, begin).await?;
    // The first read fixes the moment.
    lead.check(&lab_row(&mut transaction, limits).await?)?;
    let tables = Snapshot { connection: &mut transaction, limits }.tables().await?;
    limits.of_read(doing, transaction.commit()).await?;
    Ok(tables)
}

/// A connection on which nothing changes.
struct Snapshot<'a> {
    connection: &'a mut PgConnection,
    limits: Limits,
}

/// Records that are parsed at once, and how many such lots may wait for it.
const RECORDS_AT_ONCE: usize = 2_048;
const PARSED_AHEAD: usize = 8;

impl Snapshot<'_> {
    async fn tables(mut self) -> Result<Tables> {
        let mut tables = self.lab().await?;
        tables.pools = self.records("SELECT record FROM pool ORDER BY name", "pool").await?;
        const RESOURCES: &str = "SELECT '[' || record || ',' || coalesce(last_used, 0) || ']'
            FROM resource LEFT JOIN resource_used USING (resource) ORDER BY resource";
        let resources: Vec<(ResourceRecord, i64)> = self.records(RESOURCES, "resource").await?;
        let used =
            |(record, last_used): (_, i64)| ResourceRecord { last_used: LabTime(last_used.cast_unsigned()), ..record };
        tables.resources = resources.into_iter().map(used).collect();
        // A name needs no escape in JSON.
        const REMEMBERED: &str = "SELECT '[\"' || name || '\",' || marks || ']' FROM remembered ORDER BY name";
        tables.remembered = self.records(REMEMBERED, "remembered").await?;
        tables.sessions = self.records("SELECT record FROM session ORDER BY session", "session").await?;
        tables.claims = self.records("SELECT record FROM claim ORDER BY claim", "claim").await?;
        const LEASES: &str = "SELECT record FROM held JOIN lease USING (lease) ORDER BY lease";
        tables.leases = self.records(LEASES, "lease").await?;
        tables.requests = self.requests().await?;
        tables.keyed = self.records("SELECT record FROM keyed ORDER BY key", "keyed").await?;
        tables.arrivals = self.records("SELECT record FROM arrival ORDER BY claim", "arrival").await?;
        Ok(tables)
    }

    async fn lab(&mut self) -> Result<Tables> {
        const ASK: &str = "SELECT batch, last_event, wall_ms, now, term, last_lease, last_claim, last_session,
            last_resource FROM lab";
        let ask = sqlx::query(ASK).fetch_one(&mut *self.connection);
        let row = self.limits.of_read("read the table `lab`", ask).await?;
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

    /// The ended requests that are still remembered, by session and number. The table is a log: of
    /// two rows for one request the later is true.
    async fn requests(&mut self) -> Result<Vec<RequestRecord>> {
        const ASK: &str = "SELECT request.session, request.request, request.body_hash, request.ended
            FROM request JOIN session USING (session)
            WHERE request.request > session.forgotten OR request.row > session.forgotten_row ORDER BY request.row";
        let mut by_key = BTreeMap::new();
        let mut rows = sqlx::query(ASK).fetch(&mut *self.connection);
        while let Some(row) = self.limits.of_read("read the table `request`", rows.try_next()).await? {
            let session = SessionId(number(&row, 0)?);
            let request = number(&row, 1)?;
            let body_hash: Option<i64> = column(&row, 2)?;
            let body_hash = body_hash.map(i64::cast_unsigned);
            let record = RequestRecord { session, request, body_hash, end: json(&row, 3, "request")? };
            by_key.insert((session, request), record);
        }
        Ok(by_key.into_values().collect())
    }

    /// The records that `ask` answers as JSON, in its order; parsed on other threads while more is
    /// being read.
    async fn records<T>(&mut self, ask: &'static str, table: &'static str) -> Result<Vec<T>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let mut rows = sqlx::query(ask).fetch(&mut *self.connection);
        let mut lot: Vec<String> = Vec::new();
        let mut parsing = VecDeque::new();
        let mut found = Vec::new();
        let mut more = true;
        while more {
            match self.limits.of_read("read the store's tables", rows.try_next()).await? {
                Some(row) => lot.push(column(&row, 0)?),
                None => more = false,
            }
            if lot.len() >= RECORDS_AT_ONCE || !more {
                let lot = std::mem::take(&mut lot);
                parsing.push_back(tokio::task::spawn_blocking(move || parse(&lot, table)));
            }
            if (parsing.len() > PARSED_AHEAD || !more)
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
}

fn parse<T: DeserializeOwned>(lot: &[String], table: &'static str) -> Result<Vec<T>> {
    lot.iter().map(|record| serde_json::from_str(record).map_err(|error| unreadable(record, table, &error))).collect()
}

async fn parsed<T>(parsing: tokio::task::JoinHandle<Result<Vec<T>>>) -> Result<Vec<T>> {
    parsing.await.map_err(failed("parse the store's tables"))?
}

fn column<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T> {
    row.try_get(index).map_err(failed("read a column of the store"))
}

fn json<T: DeserializeOwned>(row: &PgRow, index: usize, table: &'static str) -> Result<T> {
    let text: &str = column(row, index)?;
    serde_json::from_str(text).map_err(|error| unreadable(text, table, &error))
}

fn unreadable(text: &str, table: &'static str, error: &serde_json::Error) -> StoreError {
    let shown: String = text.chars().take(200).collect();
    StoreError::Inconsistent { what: format!("a record of the table `{table}` cannot be read ({error}): {shown}") }
}

/// Reads what is committed, on connections that cannot write.
#[derive(Clone, Debug)]
pub struct PostgresReader {
    /// Replaced when the store is opened again.
    open: Arc<RwLock<Open>>,
}

/// The reading connections between two openings of the store.
#[derive(Debug)]
pub struct Open {
    target: Target,
    limits: Limits,
    pool: PgPool,
    lead: Lead,
    /// Its own, so that no question keeps it waiting; `None` until it is used.
    looking: Mutex<Option<PgConnection>>,
}

impl Open {
    pub fn new(target: &Target, limits: Limits, lead: &Lead) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(READERS_MAX)
            .acquire_timeout(PATIENCE)
            .after_connect(move |connection, _| Box::pin(Who::Reader.settle(connection, limits)))
            .connect_lazy_with(target.options(Who::Reader));
        Self { target: target.clone(), limits, pool, lead: lead.clone(), looking: Mutex::new(None) }
    }

    /// Looks who leads by a read that begins now. A connection that was idle may have been cut since,
    /// so one that fails is replaced once.
    async fn confirm(&self) -> Result<()> {
        let mut looking = self.looking.lock().await;
        // Taken out, and put back only when it has answered: one in an unknown state is not used again.
        if let Some(mut used) = looking.take()
            && let Ok(row) = lab_row(&mut used, self.limits).await
        {
            *looking = Some(used);
            return self.lead.check(&row);
        }
        let mut fresh = self.target.connect(Who::Reader, self.limits).await?;
        let row = lab_row(&mut fresh, self.limits).await?;
        *looking = Some(fresh);
        self.lead.check(&row)
    }
}

impl PostgresReader {
    pub fn new(target: &Target, limits: Limits, lead: &Lead) -> Self {
        Self { open: Arc::new(RwLock::new(Open::new(target, limits, lead))) }
    }

    /// Closes the connections, and keeps questions waiting until the answer is filled anew or dropped.
    pub async fn close(&self) -> RwLockWriteGuard<'_, Open> {
        let open = self.open.write().await;
        if let Some(looking) = open.looking.lock().await.take() {
            connect::hang_up(looking);
        }
        // Questions under way may finish; one that takes a part of the term, as when the network keeps it,
        // is left behind.
        let patience = Duration::from_millis(open.limits.statement_ms / 4);
        let _ = timeout(patience, open.pool.close()).await;
        open
    }

    async fn ask(&self, query: Query) -> Result<Vec<PgRow>> {
        let doing = "read the store";
        let (mut pool, limits) = self.pool().await;
        if pool.is_closed() {
            // The store is being opened again: the lock is free once it is.
            (pool, _) = self.pool().await;
        }
        limits.of_read(doing, query.fetch_all(&pool)).await
    }

    pub(super) async fn pool(&self) -> (PgPool, Limits) {
        let open = self.open.read().await;
        (open.pool.clone(), open.limits)
    }

    async fn past_leases(&self, query: Query) -> Result<Vec<PastLease>> {
        self.ask(query).await?.iter().map(past_lease).collect()
    }
}

/// A lease's columns, in the order that [`past_lease`] reads.
const PAST_LEASE: &str = "SELECT record, at, outcome, ended FROM lease LEFT JOIN lease_end USING (lease)";

fn past_lease(row: &PgRow) -> Result<PastLease> {
    let at: Option<i64> = column(row, 1)?;
    let ended = match at {
        None => None,
        Some(at) => {
            let outcome: Option<&str> = column(row, 2)?;
            let outcome = outcome.map(outcome_of).transpose()?;
            Some(EndedRecord { at: LabTime(at.cast_unsigned()), end: json(row, 3, "lease")?, outcome })
        }
    };
    let lease: Arc<Lease> = json(row, 0, "lease")?;
    Ok(PastLease { lease, ended })
}

fn outcome_of(text: &str) -> Result<Outcome> {
    [Outcome::Passed, Outcome::Failed, Outcome::Infra]
        .into_iter()
        .find(|outcome| outcome_text(*outcome) == text)
        .ok_or_else(|| StoreError::Inconsistent { what: format!("a lease's outcome is {text:?}") })
}

/// A bound of rows, or of a number, as the database takes it.
fn bound(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Reader for PostgresReader {
    async fn confirm(&self) -> Result<()> {
        self.open.read().await.confirm().await
    }

    async fn journal(&self, filter: &JournalFilter) -> Result<Vec<JournalEntry>> {
        self.ask(journal_query(filter)).await?.iter().map(journal_entry).collect()
    }

    async fn history(&self, name: &ResourceName, before: Option<LeaseId>, limit: usize) -> Result<Vec<PastLease>> {
        // The eras there are, each found by one search; then the name in each.
        const LEASES: &str = " WHERE lease IN (
            WITH RECURSIVE eras (era) AS (
                SELECT max(era) FROM lease_resource WHERE era <= ($2 >> 10)
                UNION ALL
                SELECT (SELECT max(era) FROM lease_resource WHERE era < eras.era) FROM eras WHERE era IS NOT NULL
            )
            SELECT lease FROM eras JOIN lease_resource USING (era)
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
              AND event >= coalesce((SELECT min(event) FROM journal WHERE session = $5
                AND kind IN ('session_opened', 'session_ended') AND kind = 'session_opened'), 0)
              AND event <= coalesce((SELECT max(event) FROM journal WHERE session = $5
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

fn journal_entry(row: &PgRow) -> Result<JournalEntry> {
    Ok(JournalEntry {
        number: number(row, 0)?,
        batch: number(row, 1)?,
        at: LabTime(number(row, 2)?),
        wall_ms: column(row, 3)?,
        event: json(row, 4, "journal")?,
    })
}
