//! Retention: what is older than the cut goes, a bounded piece per call.
//!
//! Before the first event of a piece goes, there is a checkpoint at or after it, so that checking
//! and replaying always have a place to start. A checkpoint is the whole state: it is read beside the
//! writing, on a connection of its own, however long that takes, and calls meanwhile answer that there
//! is more to do. So no call keeps the leader from its beats for longer than a part of its term.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connect::{self, Limits, Target, Who};
use super::lead::Lead;
use super::{Result, failed, read};
use crate::core::types::LabTime;

/// Rows of each kind that one call deletes at most.
const ROWS_PER_CALL: i64 = 2_000;

/// How far the sweeps have come: for forgotten requests by row, for ended leases by number; and the
/// checkpoint that is being read.
#[derive(Debug, Default)]
pub struct Sweep {
    row: i64,
    lease: i64,
    checkpoint: Option<JoinHandle<Result<Checkpoint>>>,
}

/// The state as it was after an event.
#[derive(Debug)]
struct Checkpoint {
    event: u64,
    batch: u64,
    at: LabTime,
    tables: String,
}

/// What one call deletes.
pub struct Piece {
    pub target: Target,
    pub limits: Limits,
    pub lead: Lead,
    /// Nothing younger goes.
    pub before: LabTime,
}

/// What there is to delete, found before anything is locked: nobody else writes.
#[derive(Debug, Default)]
struct Found {
    /// The last event of the piece.
    event: Option<i64>,
    leases: Vec<i64>,
    /// The last lease looked at, ended long ago or not.
    last_lease: Option<i64>,
    /// Rows of requests: to the first number, but before the second.
    requests: Option<(i64, i64)>,
}

impl Piece {
    /// Deletes it; answers whether there is more.
    pub async fn prune(&self, writer: &mut PgConnection, sweep: &mut Sweep) -> Result<bool> {
        let mut found = self.find(writer, sweep).await?;
        let mut checkpoint = None;
        if let Some(event) = found.event
            && !self.is_covered(writer, event).await?
        {
            checkpoint = self.checkpoint(sweep).await?;
            found.event = checkpoint.as_ref().map(|checkpoint| event.min(checkpoint.event.cast_signed()));
        }
        let waits = sweep.checkpoint.is_some();
        // Once the events are gone: checking counts on finding every lease whose end the journal tells.
        let later = (waits || found.event.is_some()) && !found.leases.is_empty();
        if later {
            found.leases.clear();
        }
        let events = self.delete(writer, &found, checkpoint, sweep.row).await?;
        // Begins anew once it meets a piece of which none ended long enough ago.
        sweep.lease = if found.leases.is_empty() { 0 } else { found.last_lease.unwrap_or(0) };
        let more_requests = found.requests.is_some_and(|(to, last)| to < last);
        sweep.row = found.requests.filter(|_| more_requests).map_or(0, |(to, _)| to);
        Ok(waits || later || events >= ROWS_PER_CALL.cast_unsigned() || !found.leases.is_empty() || more_requests)
    }

    fn before(&self) -> i64 {
        i64::try_from(self.before.0).unwrap_or(i64::MAX)
    }

    async fn find(&self, writer: &mut PgConnection, sweep: &Sweep) -> Result<Found> {
        // Dense numbers in the order of time: the piece is a range, found without looking at the rest.
        const EVENT: &str = "SELECT max(event) FROM journal
            WHERE event < (SELECT min(event) FROM journal) + $2 AND at < $1";
        // In the order of their numbers, which is that of their grants. One that ended long after its
        // neighbours goes when they do.
        const LAST_LEASE: &str = "SELECT max(lease)
            FROM (SELECT lease FROM lease_end WHERE lease > $1 ORDER BY lease LIMIT $2) AS piece";
        const LEASES: &str = "SELECT lease FROM lease_end WHERE lease > $1 AND lease <= $2 AND at < $3";
        const REQUESTS: &str = "SELECT max(row), (SELECT max(row) FROM request)
            FROM (SELECT row FROM request WHERE row > $1 ORDER BY row LIMIT $2) AS piece";
        let doing = "find what to prune";
        let limits = self.limits;
        let event = sqlx::query_scalar(EVENT).bind(self.before()).bind(ROWS_PER_CALL);
        let event = limits.of_write(doing, event.fetch_one(&mut *writer)).await?;
        let last_lease = sqlx::query_scalar(LAST_LEASE).bind(sweep.lease).bind(ROWS_PER_CALL);
        let last_lease: Option<i64> = limits.of_write(doing, last_lease.fetch_one(&mut *writer)).await?;
        let leases = sqlx::query_scalar(LEASES).bind(sweep.lease).bind(last_lease).bind(self.before());
        let leases = limits.of_write(doing, leases.fetch_all(&mut *writer)).await?;
        let requests = sqlx::query_as(REQUESTS).bind(sweep.row).bind(ROWS_PER_CALL);
        let requests: (Option<i64>, Option<i64>) = limits.of_write(doing, requests.fetch_one(writer)).await?;
        Ok(Found { event, leases, last_lease, requests: requests.0.zip(requests.1) })
    }

    async fn is_covered(&self, writer: &mut PgConnection, event: i64) -> Result<bool> {
        let ask = sqlx::query_scalar("SELECT max(event) FROM checkpoint").fetch_one(writer);
        let covered: Option<i64> = self.limits.of_write("look for a checkpoint", ask).await?;
        Ok(covered.is_some_and(|covered| covered >= event))
    }

    /// The state as it is now, read in the background; `None` while it is.
    async fn checkpoint(&self, sweep: &mut Sweep) -> Result<Option<Checkpoint>> {
        let reading = sweep
            .checkpoint
            .get_or_insert_with(|| tokio::spawn(Checkpoint::read(self.target.clone(), self.limits, self.lead.clone())));
        let patience = Duration::from_millis(self.limits.statement_ms / 4);
        let Ok(read) = timeout(patience, reading).await else { return Ok(None) };
        sweep.checkpoint = None;
        read.map_err(failed("read a checkpoint"))?.map(Some)
    }

    /// Writes all of it or nothing; answers how many events went.
    async fn delete(
        &self,
        writer: &mut PgConnection,
        found: &Found,
        checkpoint: Option<Checkpoint>,
        row: i64,
    ) -> Result<u64> {
        let doing = "prune the store";
        let limits = self.limits;
        let mut transaction = limits.of_write(doing, writer.begin()).await?;
        // As with every write: first, and under the condition that this process leads.
        self.lead.beat(&mut transaction, limits).await?;
        if let Some(checkpoint) = checkpoint {
            checkpoint.store(&mut transaction, limits).await?;
        }
        let mut events = 0;
        if let Some(event) = found.event {
            let delete = sqlx::query("DELETE FROM journal WHERE event <= $1").bind(event);
            events = limits.of_write(doing, delete.execute(&mut *transaction)).await?.rows_affected();
        }
        if let (Some(first), Some(last)) = (found.leases.iter().min(), found.leases.iter().max()) {
            const HISTORY: &str =
                "DELETE FROM lease_resource WHERE era >= $1 >> 10 AND era <= $2 >> 10 AND lease = ANY ($3)";
            let delete = sqlx::query(HISTORY).bind(*first).bind(*last).bind(&found.leases);
            limits.of_write(doing, delete.execute(&mut *transaction)).await?;
            for delete in ["DELETE FROM lease WHERE lease = ANY ($1)", "DELETE FROM lease_end WHERE lease = ANY ($1)"] {
                let delete = sqlx::query(delete).bind(&found.leases);
                limits.of_write(doing, delete.execute(&mut *transaction)).await?;
            }
        }
        if let Some((to, last)) = found.requests {
            // What readers pass over. The last row stays, as its number bounds what was forgotten.
            const REQUESTS: &str = "DELETE FROM request WHERE row > $1 AND row <= $2 AND row < $3
                AND NOT EXISTS (SELECT 1 FROM session WHERE session.session = request.session
                  AND (request.request > session.forgotten OR request.row > session.forgotten_row))";
            let delete = sqlx::query(REQUESTS).bind(row).bind(to).bind(last);
            limits.of_write(doing, delete.execute(&mut *transaction)).await?;
        }
        limits.of_write(doing, transaction.commit()).await?;
        Ok(events)
    }
}

impl Checkpoint {
    async fn read(target: Target, limits: Limits, lead: Lead) -> Result<Self> {
        let mut connection = target.connect(Who::Loader, limits).await?;
        let tables = read::snapshot(&mut connection, limits, &lead).await;
        connect::hang_up(connection);
        let tables = tables?;
        let (event, batch, at) = (tables.last_event, tables.batch, tables.lab.now);
        let told = tokio::task::spawn_blocking(move || serde_json::to_string(&tables));
        let doing = "tell a checkpoint as JSON";
        let tables = told.await.map_err(failed(doing))?.map_err(failed(doing))?;
        Ok(Self { event, batch, at, tables })
    }

    /// Stores it, in place of those before.
    async fn store(self, transaction: &mut PgConnection, limits: Limits) -> Result<()> {
        const STORE: &str = "INSERT INTO checkpoint (event, batch, at, tables) VALUES ($1, $2, $3, $4)
            ON CONFLICT (event) DO NOTHING";
        let doing = "store a checkpoint";
        let older = sqlx::query("DELETE FROM checkpoint WHERE event < $1").bind(self.event.cast_signed());
        limits.of_write(doing, older.execute(&mut *transaction)).await?;
        let store = sqlx::query(STORE).bind(self.event.cast_signed()).bind(self.batch.cast_signed());
        let store = store.bind(self.at.0.cast_signed()).bind(self.tables);
        limits.of_write(doing, store.execute(transaction)).await.map(drop)
    }
}
