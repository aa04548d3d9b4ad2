//! The builds on a database that brokers share: tables of their own, written by whoever leads.
//!
//! ```text
//!   conductor, logs, index ──begin──▶ Writing: builds_lead FOR SHARE, rows ──commit──▶ tables
//!   take_over ──▶ builds_lead, alone; looks in `lab`; then reads the tables
//!   whoever asks ──rows──▶ at most four connections that cannot write
//! ```
//!
//! Each time the builds are taken over, a number in the row of `builds_lead` grows, and every write has that
//! number as its condition and keeps the row as it is until it is over. So once a takeover is through, all
//! writes before it are there or never will be: an older leader's, and also this process's own whose answer
//! was lost. The lab's row is only ever read here: nobody who writes a lease waits for a build.

mod logs;
mod search;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres, Row as _};

use super::rows::{Rows, ended_ms, waits, whose};
use super::tables::{Ask, DELIVERIES_FORGOTTEN, DELIVERIES_FORGOTTEN_MAX, Tables, Value, signed};
use crate::builds::build::BuildId;
use crate::builds::delivery::DeliveryId;
use crate::store::StoreError;
use crate::store::postgres::connect::{Limits, Target, Who, hang_up};
use crate::store::postgres::failed;
use crate::store::postgres::lead::{Lead, lab_row};

type Result<T> = std::result::Result<T, StoreError>;

const LIMITS: Limits = Limits::BUILDS;
/// Connections that write, and as many that read; whoever comes then waits for one.
const CONNECTIONS_MAX: u32 = 4;
/// How long it waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often taking over is tried: it may have to wait for a write that was cut off, whose connection the
/// database gives up by itself.
const TAKES_MAX: u32 = 4;
/// Before the builds were taken over: no row has this number.
const NOT_TAKEN: i64 = -1;

/// The database and the lead by which builds are written.
#[derive(Clone, Debug)]
pub struct Led {
    target: Target,
    lead: Lead,
}

impl Led {
    pub(in crate::store) const fn new(target: Target, lead: Lead) -> Self {
        Self { target, lead }
    }
}

/// The tables of builds in a database.
#[derive(Debug)]
pub struct PostgresBuilds {
    led: Led,
    /// The number by which this process took the builds over last.
    taken: AtomicI64,
    writers: PgPool,
    readers: PgPool,
}

/// A transaction that writes while this process leads. Dropped without [`Writing::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Writing {
    connection: PoolConnection<Postgres>,
    doing: &'static str,
    /// Whether the connection is in no doubt, and may be used again.
    settled: bool,
}

impl PostgresBuilds {
    /// The tables of builds; nothing is connected before it is needed.
    #[must_use]
    pub fn new(led: Led) -> Self {
        let pool = |who: Who| {
            PgPoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(PATIENCE)
                .after_connect(move |connection, _| Box::pin(who.settle(connection, LIMITS)))
                .connect_lazy_with(led.target.options(who))
        };
        let (writers, readers) = (pool(Who::Builds), pool(Who::Reader));
        Self { led, taken: AtomicI64::new(NOT_TAKEN), writers, readers }
    }

    /// Begins to write. `doing` fits "failed to ...".
    ///
    /// # Errors
    /// [`StoreError::Deposed`] where another process leads; another when the database cannot be written to,
    /// or the builds were taken over anew meanwhile.
    pub async fn begin(&self, doing: &'static str) -> Result<Writing> {
        let connection = self.writers.acquire().await.map_err(failed(doing))?;
        let mut writing = Writing { connection, doing, settled: false };
        let taken = self.taken.load(Ordering::Acquire);
        let begin = format!("BEGIN; SELECT one FROM builds_lead WHERE taken = {taken} FOR SHARE");
        let begun = writing.connection.fetch_optional(sqlx::raw_sql(AssertSqlSafe(begin)));
        if LIMITS.of_write(doing, begun).await?.is_none() {
            let row = lab_row(&mut writing.connection, LIMITS).await;
            writing.undo().await?;
            self.led.lead.check(&row?)?;
            return Err(failed(doing)("the builds were not taken over yet, or were just taken over anew"));
        }
        Ok(writing)
    }

    /// Answers a question as of what is committed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn rows(&self, doing: &'static str, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>> {
        LIMITS.of_read(doing, query.fetch_all(&self.readers)).await
    }

    /// A connection that cannot write, for several questions or an answer in parts. It is to be given back
    /// soon: there are four.
    ///
    /// # Errors
    /// When the database cannot be read, or none is free for long.
    pub async fn reader(&self, doing: &'static str) -> Result<PoolConnection<Postgres>> {
        LIMITS.of_read(doing, self.readers.acquire()).await
    }

    /// Raises the number, and answers it: alone in the row first, and only then looking who leads. A leader
    /// that comes after waits here, and then finds its own lead in `lab`.
    async fn raise(&self) -> Result<i64> {
        const RAISE: &str = "UPDATE builds_lead SET taken = taken + 1, began = $1, instance = $2 RETURNING taken";
        let doing = "take the builds over";
        let lead = &self.led.lead;
        let connection = self.writers.acquire().await.map_err(failed(doing))?;
        let mut writing = Writing { connection, doing, settled: false };
        LIMITS.of_write(doing, writing.connection.execute("BEGIN")).await?;
        let raise = sqlx::query(RAISE).bind(lead.began.cast_signed()).bind(lead.instance.to_string());
        let taken = writing.rows(raise).await?;
        let taken = taken.first().map(|row| row.try_get(0)).transpose().map_err(failed(doing))?;
        let Some(taken) = taken else {
            return Err(StoreError::Inconsistent { what: "the row of `builds_lead` is gone".to_owned() });
        };
        lead.check(&lab_row(&mut writing.connection, LIMITS).await?)?;
        writing.commit().await?;
        Ok(taken)
    }
}

impl Writing {
    /// Runs a statement; answers how many rows it wrote.
    ///
    /// # Errors
    /// As the database says. The transaction is to be dropped then.
    pub async fn execute(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<u64> {
        let done = LIMITS.of_write(self.doing, query.execute(&mut *self.connection)).await?;
        Ok(done.rows_affected())
    }

    /// Asks as of here, what was just written included.
    ///
    /// # Errors
    /// As for [`Writing::execute`].
    pub async fn rows(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>> {
        LIMITS.of_write(self.doing, query.fetch_all(&mut *self.connection)).await
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// Whether it is there is unknown then, until the builds are taken over anew.
    pub async fn commit(self) -> Result<()> {
        self.end("COMMIT").await
    }

    /// Takes it all back, where that was decided and nothing has failed.
    ///
    /// # Errors
    /// It leaves nothing in any case.
    pub async fn undo(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, how: &'static str) -> Result<()> {
        LIMITS.of_write(self.doing, self.connection.execute(how)).await?;
        self.settled = true;
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.settled {
            self.connection.close_on_drop();
        }
    }
}

const BUILD: &str = "INSERT INTO build (build, repository, pipeline, line, phase, ended_ms, record)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[])
    ON CONFLICT (build) DO UPDATE SET phase = excluded.phase, ended_ms = excluded.ended_ms, record = excluded.record";
const NOTE: &str = "INSERT INTO note (build, record)
    SELECT n.build, n.record FROM unnest($1::bigint[], $2::text[]) WITH ORDINALITY AS n (build, record, nth)
    ORDER BY nth";
const DELIVERY: &str = "INSERT INTO delivery (delivery, forge, forge_id, received_ms, waiting, record)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[])
    ON CONFLICT (delivery) DO UPDATE SET waiting = excluded.waiting, record = excluded.record";
const BODY: &str = "INSERT INTO delivery_body (delivery, body) SELECT * FROM unnest($1::bigint[], $2::bytea[])";
const STATUS: &str = "INSERT INTO status (repository, sha, context, build, delivery, version, told, due_ms, record)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
        $8::bigint[], $9::text[])
    ON CONFLICT (repository, sha, context) DO UPDATE SET build = excluded.build, delivery = excluded.delivery,
        version = excluded.version, told = excluded.told, due_ms = excluded.due_ms, record = excluded.record
    WHERE excluded.version >= status.version";
const LAST: &str = "UPDATE builds_last SET build = greatest(build, $1), delivery = greatest(delivery, $2)";

impl Tables for PostgresBuilds {
    async fn ask(&self, ask: Ask) -> Result<Vec<String>> {
        let mut reader = self.reader("read the builds").await?;
        answer(&mut reader, &ask).await
    }

    async fn take(&self, asks: Vec<Ask>) -> Result<Vec<Vec<String>>> {
        let mut tries = 1..TAKES_MAX;
        let taken = loop {
            match self.raise().await {
                Err(StoreError::Failed { .. }) if tries.next().is_some() => {}
                raised => break raised?,
            }
        };
        // What this process wrote under the number before is settled; what it writes from here has this one.
        self.taken.store(taken, Ordering::Release);
        let doing = "read the builds";
        let mut connection = self.led.target.connect(Who::Loader, LIMITS).await?;
        let begin = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        let mut reading = LIMITS.of_read(doing, begin).await?;
        let mut answers = Vec::with_capacity(asks.len());
        for ask in &asks {
            answers.push(answer(&mut reading, ask).await?);
        }
        LIMITS.of_read(doing, reading.commit()).await?;
        hang_up(connection);
        Ok(answers)
    }

    async fn write(&self, rows: Rows<'_>) -> Result<()> {
        let doing = "write the builds";
        let columns = Columns::of(&rows).map_err(failed(doing))?;
        let mut writing = self.begin(doing).await?;
        columns.write(&mut writing).await?;
        if !rows.bodies.is_empty() {
            let ids: Vec<i64> = rows.bodies.iter().map(|(id, _)| signed(id.0)).collect();
            let bodies: Vec<&[u8]> = rows.bodies.iter().map(|(_, body)| body.as_slice()).collect();
            writing.execute(sqlx::query(BODY).bind(ids).bind(bodies)).await?;
        }
        let (build, delivery) = rows.last();
        writing.execute(sqlx::query(LAST).bind(signed(build.0)).bind(signed(delivery.0))).await?;
        writing.commit().await
    }

    async fn body(&self, id: DeliveryId) -> Result<Option<Vec<u8>>> {
        let doing = "read a delivery";
        let ask = sqlx::query("SELECT body FROM delivery_body WHERE delivery = $1").bind(signed(id.0));
        let found = self.rows(doing, ask).await?;
        found.first().map(|row| row.try_get(0)).transpose().map_err(failed(doing))
    }

    async fn delete(&self, builds: &[BuildId], deliveries_before_ms: i64) -> Result<()> {
        let numbers: Vec<i64> = builds.iter().map(|id| signed(id.0)).collect();
        let mut writing = self.begin("forget builds").await?;
        for table in ["build", "note", "status"] {
            let delete = format!("DELETE FROM {table} WHERE build = ANY ($1)");
            writing.execute(sqlx::query(AssertSqlSafe(delete)).bind(&numbers)).await?;
        }
        // The last is the one that says which they are.
        for table in ["status", "delivery_body", "delivery"] {
            let delete = format!("DELETE FROM {table} WHERE delivery IN ({DELIVERIES_FORGOTTEN})");
            let delete = sqlx::query(AssertSqlSafe(delete)).bind(deliveries_before_ms).bind(DELIVERIES_FORGOTTEN_MAX);
            writing.execute(delete).await?;
        }
        writing.commit().await
    }
}

/// The rows of a batch, a list for each column.
struct Columns<'a> {
    rows: &'a Rows<'a>,
    builds: Vec<String>,
    notes: Vec<String>,
    deliveries: Vec<String>,
    statuses: Vec<String>,
}

impl<'a> Columns<'a> {
    fn of(rows: &'a Rows<'a>) -> serde_json::Result<Self> {
        Ok(Self {
            rows,
            builds: rows.builds.values().map(serde_json::to_string).collect::<serde_json::Result<_>>()?,
            notes: rows.notes.iter().map(serde_json::to_string).collect::<serde_json::Result<_>>()?,
            deliveries: rows.deliveries.values().map(serde_json::to_string).collect::<serde_json::Result<_>>()?,
            statuses: rows.statuses.values().map(serde_json::to_string).collect::<serde_json::Result<_>>()?,
        })
    }

    async fn write(self, writing: &mut Writing) -> Result<()> {
        let Self { rows, builds, notes, deliveries, statuses } = self;
        if !builds.is_empty() {
            let of = || rows.builds.values();
            let query = sqlx::query(BUILD)
                .bind(of().map(|build| signed(build.id.0)).collect::<Vec<_>>())
                .bind(of().map(|build| &*build.repository).collect::<Vec<_>>())
                .bind(of().map(|build| &*build.plan.name).collect::<Vec<_>>())
                .bind(of().map(|build| build.subject.line.to_string()).collect::<Vec<_>>())
                .bind(of().map(|build| build.phase.as_str()).collect::<Vec<_>>())
                .bind(of().map(|build| ended_ms(build)).collect::<Vec<_>>());
            writing.execute(query.bind(builds)).await?;
        }
        if !notes.is_empty() {
            let ids: Vec<i64> = rows.notes.iter().map(|note| signed(note.build.0)).collect();
            writing.execute(sqlx::query(NOTE).bind(ids).bind(notes)).await?;
        }
        if !deliveries.is_empty() {
            let of = || rows.deliveries.values();
            let query = sqlx::query(DELIVERY)
                .bind(of().map(|delivery| signed(delivery.id.0)).collect::<Vec<_>>())
                .bind(of().map(|delivery| delivery.forge.as_str()).collect::<Vec<_>>())
                .bind(of().map(|delivery| &*delivery.forge_id).collect::<Vec<_>>())
                .bind(of().map(|delivery| delivery.received_ms).collect::<Vec<_>>())
                .bind(of().map(|delivery| i64::from(waits(delivery))).collect::<Vec<_>>());
            writing.execute(query.bind(deliveries)).await?;
        }
        if !statuses.is_empty() {
            let of = || rows.statuses.values();
            let query = sqlx::query(STATUS)
                .bind(of().map(|status| &*status.key.repository).collect::<Vec<_>>())
                .bind(of().map(|status| status.key.sha.as_str()).collect::<Vec<_>>())
                .bind(of().map(|status| &*status.key.context).collect::<Vec<_>>())
                .bind(of().map(|status| whose(status).0.map(signed)).collect::<Vec<_>>())
                .bind(of().map(|status| whose(status).1.map(signed)).collect::<Vec<_>>())
                .bind(of().map(|status| signed(status.version)).collect::<Vec<_>>())
                .bind(of().map(|status| i64::from(status.told)).collect::<Vec<_>>())
                .bind(of().map(|status| status.due_ms).collect::<Vec<_>>());
            writing.execute(query.bind(statuses)).await?;
        }
        Ok(())
    }
}

async fn answer(connection: &mut PgConnection, ask: &Ask) -> Result<Vec<String>> {
    let doing = "read the builds";
    let mut query = sqlx::query(AssertSqlSafe(ask.text.clone()));
    for value in &ask.values {
        query = match value {
            Value::Number(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.to_string()),
        };
    }
    let rows = LIMITS.of_read(doing, query.fetch_all(connection)).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>().map_err(failed(doing))
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
