//! The embedded store: one SQLite file, one writing connection, a few that read.
//!
//! ```text
//!   engine ──commit──▶ writer ──▶ PATH, PATH-wal      PATH.lock: held as long as the store is open
//!   server ──▶ Reader ──▶ at most four connections that cannot write
//! ```
//!
//! Once a commit has failed, whether it is there is unknown to every connection of this process:
//! nothing more is written before [`Store::reopen`] has closed them all and looked.

mod backup;
mod prune;
mod read;
pub(in crate::store) mod rows;
pub(in crate::store) mod schema;
mod snapshot;
mod target;
mod write;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, SqliteConnection, SqlitePool};

use super::builds::BuildsAt;
use super::{Store, StoreError};
use crate::core::tables::{Batch, Tables};
use crate::core::types::LabTime;
pub use backup::backup;
pub use read::SqliteReader;
use schema::{Family, LEASES};
pub use snapshot::SqliteSnapshot;
pub use target::{Replace, SqliteTarget};
use write::Texts;

type Result<T> = std::result::Result<T, StoreError>;

/// How long a statement waits for another process's lock: somebody looks in with `sqlite3`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that read; a further question waits for one.
const READERS_MAX: u32 = 4;
/// Texts whose statements the writer keeps prepared. More kinds of batches are prepared anew.
const TEXTS_KEPT: usize = 64;
/// What the write-ahead log is cut back to once a slow reader that made it grow is done. It is
/// moved into the database every thousand pages, as SQLite does by itself.
const LOG_BYTES_KEPT: &str = "67108864";
/// Rows the driver reads ahead of whoever takes them.
const ROWS_AHEAD: usize = 1_000;

/// The embedded store.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// `None` while it could not be opened again.
    writer: Option<SqliteConnection>,
    readers: SqliteReader,
    texts: Texts,
    last: Last,
    /// Set while a write is under way and for good once one has failed.
    in_doubt: bool,
    sweep: prune::Sweep,
    /// Held, not used.
    _lock: File,
}

/// The end of what is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    batch: u64,
    event: u64,
}

impl Sqlite {
    /// Opens the store at `path` and brings it up to this version, making it and its folders where
    /// they are not there, for this user alone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another broker has it open, [`StoreError::TooNew`] when a newer
    /// version wrote it; in both cases it is left as it is.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = prepare_file(path.as_ref()).map_err(failed("create the store's file"))?;
        let lock = take_lock(&path)?;
        let (writer, last) = open_writer(&path).await?;
        let readers = SqliteReader::new(open_readers(&path));
        let texts = Texts::default();
        Ok(Self {
            path,
            writer: Some(writer),
            readers,
            texts,
            last,
            in_doubt: false,
            sweep: prune::Sweep::default(),
            _lock: lock,
        })
    }

    /// Closes every connection; dropping does the same, but does not wait for it.
    pub async fn close(mut self) {
        self.readers.pool.write().await.close().await;
        if let Some(writer) = self.writer.take() {
            // What is committed is durable already; a failure to tidy up changes nothing.
            let _ = writer.close().await;
        }
    }

    /// The connection for a write, which the caller must declare settled once it has succeeded.
    fn begin_write(&mut self, doing: &'static str) -> Result<&mut SqliteConnection> {
        if self.in_doubt {
            return Err(failed(doing)("an earlier write failed, and the store was not opened again since"));
        }
        self.in_doubt = true;
        self.writer.as_mut().ok_or_else(|| failed(doing)("the store is not open"))
    }
}

impl Store for Sqlite {
    type Reader = SqliteReader;

    async fn load(&mut self) -> Result<Tables> {
        let doing = "read the store's tables";
        let writer = self.writer.as_mut().ok_or_else(|| failed(doing)("the store is not open"))?;
        read::tables(writer).await
    }

    async fn commit(&mut self, batch: &Batch) -> Result<()> {
        let doing = "commit a batch to the store";
        if batch.number != self.last.batch + 1 {
            return Err(StoreError::OutOfOrder { last: self.last.batch, offered: batch.number });
        }
        if batch.first_event != self.last.event + 1 {
            let (offered, last) = (batch.first_event, self.last.event);
            return Err(StoreError::Inconsistent { what: format!("event {offered} was offered after event {last}") });
        }
        let query = self.texts.commit(batch).map_err(failed("write a batch as JSON"))?;
        let writer = self.begin_write(doing)?;
        if let Err(error) = query.execute(&mut *writer).await {
            // Best effort: the connection is closed before anything else is done with it.
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut *writer).await;
            return Err(match &error {
                sqlx::Error::Database(told) if told.message() == "batch out of order" => {
                    StoreError::OutOfOrder { last: last(writer).await?.batch, offered: batch.number }
                }
                _ => failed(doing)(error),
            });
        }
        self.in_doubt = false;
        self.last = Last { batch: batch.number, event: self.last.event + batch.events.len() as u64 };
        Ok(())
    }

    async fn reopen(&mut self) -> Result<u64> {
        let pool = Arc::clone(&self.readers.pool);
        // Held until the end: questions wait for the new connections.
        let mut pool = pool.write().await;
        pool.close().await;
        if let Some(writer) = self.writer.take() {
            // It is in an unknown state, and may well fail to close in good order.
            let _ = writer.close().await;
        }
        let (mut writer, last) = open_writer(&self.path).await?;
        checkpoint_wal(&mut writer, &self.path).await?;
        *pool = open_readers(&self.path);
        self.writer = Some(writer);
        self.last = last;
        self.in_doubt = false;
        Ok(last.batch)
    }

    async fn prune(&mut self, before: LabTime) -> Result<bool> {
        let mut sweep = self.sweep;
        let writer = self.begin_write("prune the store")?;
        let more = prune::prune(writer, before, &mut sweep).await?;
        self.sweep = sweep;
        self.in_doubt = false;
        Ok(more)
    }

    fn reader(&self) -> SqliteReader {
        self.readers.clone()
    }

    fn builds(&self) -> BuildsAt {
        BuildsAt::File(builds_path(&self.path))
    }

    fn name(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }
}

/// Wraps whatever the driver or the system said.
pub(in crate::store) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Failed { doing, source: source.into() }
}

/// Makes the file and its folders; answers its one true path, so that two ways to it meet in one
/// lock. SQLite gives the files beside it the same permissions.
pub(in crate::store) fn prepare_file(path: &Path) -> std::io::Result<PathBuf> {
    let path = prepare_folder(path)?;
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
    let path = fs::canonicalize(path)?;
    sync_folder(&path)?;
    Ok(path)
}

/// Makes the folders of a file, for this user alone; answers its one true path, as far as it is there.
fn prepare_folder(path: &Path) -> std::io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it names no file"));
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).count();
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let folder = fs::canonicalize(folder)?;
    // The names of folders just made are durable once the folder around each is.
    for folder in folder.ancestors().skip(1).take(missing) {
        File::open(folder)?.sync_all()?;
    }
    let path = folder.join(name);
    if path.try_exists()? { fs::canonicalize(path) } else { Ok(path) }
}

/// Where the builds of the store at `path` are: beside it, `leasehold.db` and `leasehold-builds.db`.
#[must_use]
pub fn builds_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-builds");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// The path with something more at its end.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

pub(in crate::store) fn take_lock(path: &Path) -> Result<File> {
    let name = beside(path, ".lock");
    let doing = "lock the store";
    let lock = OpenOptions::new().append(true).create(true).mode(0o600).open(&name).map_err(failed(doing))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: name.to_string_lossy().into_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(doing)(error)),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(false)
        .statement_cache_capacity(TEXTS_KEPT)
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging()
}

async fn open_writer(path: &Path) -> Result<(SqliteConnection, Last)> {
    let mut writer = open_file(LEASES, path).await?;
    let last = last(&mut writer).await?;
    Ok((writer, last))
}

/// Opens a file of this family for writing, and brings it up to this version.
pub(in crate::store) async fn open_file(family: Family, path: &Path) -> Result<SqliteConnection> {
    let doing = "open the store";
    // The first look changes nothing, not even the journal's mode: the file may be a newer one's.
    let mut looking = options(path).connect().await.map_err(failed(doing))?;
    let found = family.version(&mut looking).await;
    // Also where it is refused: a connection that is only dropped leaves its files behind.
    let closed = looking.close().await;
    let found = found?;
    closed.map_err(failed(doing))?;
    let options = options(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", LOG_BYTES_KEPT)
        .pragma("cache_size", family.writer_cache);
    let mut writer = options.connect().await.map_err(failed(doing))?;
    family.migrate(&mut writer, found).await?;
    sync_folder(path).map_err(failed(doing))?;
    Ok(writer)
}

pub(in crate::store) fn open_readers(path: &Path) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .test_before_acquire(false)
        .connect_lazy_with(options(path).pragma("query_only", "ON"))
}

/// Where the books are, checked against the journal's end.
async fn last(connection: &mut SqliteConnection) -> Result<Last> {
    let doing = "read the store's last batch";
    let ask = "SELECT batch, last_event, (SELECT max(event) FROM journal) FROM lab";
    let row = sqlx::query(ask).fetch_one(connection).await.map_err(failed(doing))?;
    let batch: i64 = row.try_get(0).map_err(failed(doing))?;
    let event: i64 = row.try_get(1).map_err(failed(doing))?;
    let found: Option<i64> = row.try_get(2).map_err(failed(doing))?;
    if found.is_some_and(|found| found != event) {
        let what = format!("its journal ends with event {}, its row says {event}", found.unwrap_or(0));
        return Err(StoreError::Inconsistent { what });
    }
    Ok(Last { batch: batch.cast_unsigned(), event: event.cast_unsigned() })
}

/// Moves everything that recovery found into the database and makes it durable: a frame that a
/// failed sync left in the page cache alone must not be told of as committed.
pub(in crate::store) async fn checkpoint_wal(writer: &mut SqliteConnection, path: &Path) -> Result<()> {
    let doing = "make what the store holds durable";
    let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(writer).await.map_err(failed(doing))?;
    let busy: i64 = row.try_get(0).map_err(failed(doing))?;
    if busy != 0 {
        return Err(failed(doing)("another process is reading the database; close it"));
    }
    sync_folder(path).map_err(failed(doing))
}

/// Makes names durable: of a file just made, and that a write-ahead log is gone.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
