//! The builds of a broker with a store of its own: a SQLite file beside the leases', so that a busy log
//! keeps no lease waiting. One connection writes, a few read.
//!
//! ```text
//!   conductor, logs, index ──begin──▶ Writing (one at a time) ──commit──▶ PATH, PATH-wal
//!   whoever asks ──rows──▶ at most four connections that cannot write
//! ```
//!
//! A [`Writing`] that is not committed leaves nothing. After one that failed, or was dropped, whether it is
//! there is unknown to every connection of this process: all are closed, and opened again before anything
//! else is written.

mod logs;
mod search;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Sqlite, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, MutexGuard, RwLock};
use tokio::time::timeout;

use super::rows::{Rows, ended_ms, waits, whose};
use super::tables::{Ask, DELIVERIES_FORGOTTEN, DELIVERIES_FORGOTTEN_MAX, Tables, Value, signed};
use crate::builds::build::BuildId;
use crate::builds::delivery::DeliveryId;
use crate::store::StoreError;
use crate::store::sqlite::rows::Rows as Packed;
use crate::store::sqlite::schema::BUILDS;
use crate::store::sqlite::{checkpoint_wal, failed, open_file, open_readers, prepare_file, take_lock};

type Result<T> = std::result::Result<T, StoreError>;

/// How long questions under way may keep the file from being opened again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The tables of builds in a file.
#[derive(Debug)]
pub struct SqliteBuilds {
    path: PathBuf,
    /// `None` where a write has failed since it was opened.
    writer: Mutex<Option<SqliteConnection>>,
    /// Replaced when the file is opened again.
    readers: RwLock<SqlitePool>,
    /// Held, not used.
    _lock: File,
}

/// A transaction that writes, alone. Dropped without [`Writing::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Writing<'a> {
    /// Where the connection goes back to once it is settled what was written.
    slot: MutexGuard<'a, Option<SqliteConnection>>,
    connection: SqliteConnection,
    doing: &'static str,
}

impl SqliteBuilds {
    /// Opens the file and brings it up to this version, making it where it is not there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another broker has it open, [`StoreError::TooNew`] when a newer version
    /// wrote it; in both cases it is left as it is.
    pub async fn open(path: &Path) -> Result<Self> {
        let path = prepare_file(path).map_err(failed("create the builds' file"))?;
        let lock = take_lock(&path)?;
        let writer = open_file(BUILDS, &path).await?;
        let readers = RwLock::new(open_readers(&path));
        Ok(Self { path, writer: Mutex::new(Some(writer)), readers, _lock: lock })
    }

    /// Begins to write: waits for whoever writes now. `doing` fits "failed to ...".
    ///
    /// # Errors
    /// When the file cannot be written to.
    pub async fn begin(&self, doing: &'static str) -> Result<Writing<'_>> {
        let mut slot = self.writer.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.reopen().await?,
        };
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(failed(doing))?;
        Ok(Writing { slot, connection, doing })
    }

    /// Answers a question as of what is committed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn rows(&self, doing: &'static str, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>> {
        let mut reader = self.reader(doing).await?;
        query.fetch_all(&mut *reader).await.map_err(failed(doing))
    }

    /// A connection that cannot write, for several questions or an answer in parts. It is to be given back
    /// soon: there are four.
    ///
    /// # Errors
    /// When the file cannot be read, or none is free for long.
    pub async fn reader(&self, doing: &'static str) -> Result<PoolConnection<Sqlite>> {
        if self.readers.read().await.is_closed() {
            // Whoever opened the file again was dropped on the way, and may never write again.
            let mut slot = self.writer.lock().await;
            if self.readers.read().await.is_closed() {
                *slot = Some(self.reopen().await?);
            }
        }
        let readers = self.readers.read().await;
        readers.acquire().await.map_err(failed(doing))
    }

    /// Opens the file anew after a write of unknown outcome: what recovery finds is made durable before
    /// anybody is told of it.
    async fn reopen(&self) -> Result<SqliteConnection> {
        let mut readers = self.readers.write().await;
        let _ = timeout(PATIENCE, readers.close()).await;
        let opened = async {
            let mut writer = open_file(BUILDS, &self.path).await?;
            checkpoint_wal(&mut writer, &self.path).await?;
            Ok(writer)
        };
        let opened = opened.await;
        *readers = open_readers(&self.path);
        opened
    }

    /// Closes every connection; dropping does the same, but does not wait for it.
    pub async fn close(self) {
        self.readers.into_inner().close().await;
        if let Some(writer) = self.writer.into_inner() {
            // What is committed is durable already.
            let _ = writer.close().await;
        }
    }
}

impl Writing<'_> {
    /// Runs a statement; answers how many rows it wrote.
    ///
    /// # Errors
    /// As the database says. The transaction is to be dropped then.
    pub async fn execute(&mut self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64> {
        let done = query.execute(&mut self.connection).await.map_err(failed(self.doing))?;
        Ok(done.rows_affected())
    }

    /// Asks as of here, what was just written included.
    ///
    /// # Errors
    /// As for [`Writing::execute`].
    pub async fn rows(&mut self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<Vec<SqliteRow>> {
        query.fetch_all(&mut self.connection).await.map_err(failed(self.doing))
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// Whether it is there is unknown then.
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

    async fn end(self, how: &'static str) -> Result<()> {
        let Self { mut slot, mut connection, doing } = self;
        sqlx::raw_sql(how).execute(&mut connection).await.map_err(failed(doing))?;
        *slot = Some(connection);
        Ok(())
    }

    /// Runs a statement over rows, where there are any.
    async fn each(&mut self, statement: &'static str, rows: Packed) -> Result<()> {
        let Some(rows) = rows.finish() else { return Ok(()) };
        self.execute(sqlx::query(statement).bind(rows)).await.map(drop)
    }
}

const BUILD: &str = "INSERT INTO build (build, repository, pipeline, line, phase, ended_ms, record)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6
    FROM jsonb_each($1) WHERE true
    ON CONFLICT DO UPDATE SET phase = excluded.phase, ended_ms = excluded.ended_ms, record = excluded.record";
const NOTE: &str = "INSERT INTO note (build, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)";
const DELIVERY: &str = "INSERT INTO delivery (delivery, forge, forge_id, received_ms, waiting, record)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
    FROM jsonb_each($1) WHERE true
    ON CONFLICT DO UPDATE SET waiting = excluded.waiting, record = excluded.record";
const STATUS: &str = "INSERT INTO status (repository, sha, context, build, delivery, version, told, due_ms, record)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
        value ->> 8
    FROM jsonb_each($1) WHERE true
    ON CONFLICT DO UPDATE SET build = excluded.build, delivery = excluded.delivery, version = excluded.version,
        told = excluded.told, due_ms = excluded.due_ms, record = excluded.record
    WHERE excluded.version >= status.version";
const LAST: &str = "UPDATE builds_last SET build = max(build, $1), delivery = max(delivery, $2)";

impl Tables for SqliteBuilds {
    async fn ask(&self, ask: Ask) -> Result<Vec<String>> {
        let mut reader = self.reader("read the builds").await?;
        answer(&mut reader, &ask).await
    }

    /// Nobody else writes to the file; what this process had under way is over once it may begin.
    async fn take(&self, asks: Vec<Ask>) -> Result<Vec<Vec<String>>> {
        let mut writing = self.begin("take the builds over").await?;
        let mut answers = Vec::with_capacity(asks.len());
        for ask in &asks {
            answers.push(answer(&mut writing.connection, ask).await?);
        }
        writing.undo().await?;
        Ok(answers)
    }

    async fn write(&self, rows: Rows<'_>) -> Result<()> {
        let doing = "write the builds";
        let packed = PackedRows::of(&rows).map_err(failed(doing))?;
        let mut writing = self.begin(doing).await?;
        writing.each(BUILD, packed.builds).await?;
        writing.each(NOTE, packed.notes).await?;
        writing.each(DELIVERY, packed.deliveries).await?;
        writing.each(STATUS, packed.statuses).await?;
        for (delivery, body) in &rows.bodies {
            let put = "INSERT INTO delivery_body (delivery, body) VALUES ($1, $2)";
            writing.execute(sqlx::query(put).bind(signed(delivery.0)).bind(body)).await?;
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
        let mut numbers = Packed::default();
        for id in builds {
            numbers.number(id.0);
        }
        let numbers = numbers.finish();
        let mut writing = self.begin("forget builds").await?;
        for table in ["build", "note", "status"] {
            let Some(numbers) = &numbers else { break };
            let delete = format!("DELETE FROM {table} WHERE build IN (SELECT value FROM jsonb_each($1))");
            writing.execute(sqlx::query(AssertSqlSafe(delete)).bind(numbers)).await?;
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

/// The rows of a batch as parameters.
#[derive(Default)]
struct PackedRows {
    builds: Packed,
    notes: Packed,
    deliveries: Packed,
    statuses: Packed,
}

impl PackedRows {
    fn of(rows: &Rows<'_>) -> serde_json::Result<Self> {
        let mut packed = Self::default();
        for build in rows.builds.values() {
            packed.builds.row(|row| {
                row.number(build.id.0);
                row.text(&build.repository);
                row.text(&build.plan.name);
                row.text(&build.subject.line.to_string());
                row.text(build.phase.as_str());
                row.optional(ended_ms(build).map(i64::cast_unsigned));
                row.json(build).map(drop)
            })?;
        }
        for note in &rows.notes {
            packed.notes.row(|row| {
                row.number(note.build.0);
                row.json(note).map(drop)
            })?;
        }
        for delivery in rows.deliveries.values() {
            packed.deliveries.row(|row| {
                row.number(delivery.id.0);
                row.text(delivery.forge.as_str());
                row.text(&delivery.forge_id);
                row.signed(delivery.received_ms);
                row.number(u64::from(waits(delivery)));
                row.json(delivery).map(drop)
            })?;
        }
        for (key, status) in &rows.statuses {
            packed.statuses.row(|row| {
                row.text(&key.repository);
                row.text(key.sha.as_str());
                row.text(&key.context);
                let (build, delivery) = whose(status);
                row.optional(build);
                row.optional(delivery);
                row.number(status.version);
                row.number(u64::from(status.told));
                row.signed(status.due_ms);
                row.json(status).map(drop)
            })?;
        }
        Ok(packed)
    }
}

async fn answer(connection: &mut SqliteConnection, ask: &Ask) -> Result<Vec<String>> {
    let doing = "read the builds";
    let mut query = sqlx::query(AssertSqlSafe(ask.text.clone()));
    for value in &ask.values {
        query = match value {
            Value::Number(number) => query.bind(*number),
            Value::Text(text) => query.bind(text.to_string()),
        };
    }
    let rows = query.fetch_all(connection).await.map_err(failed(doing))?;
    rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>().map_err(failed(doing))
}

#[cfg(test)]
mod tests;
