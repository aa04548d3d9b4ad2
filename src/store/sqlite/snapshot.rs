//! The whole file as of one moment, read beside whoever writes to it.
//!
//! One connection in one read transaction: it needs no lock of ours, holds nobody up, and keeps the
//! write-ahead log from being cut back for as long as it lasts. It never writes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteRow;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::read::column;
use super::schema::{Found, Kind, LEASES};
use super::{Result, failed, options, take_lock};
use crate::store::StoreError;
use crate::store::whole::{Columns, Whole};

const READING: &str = "read the store";

/// Everything in a file, as of when it was opened.
#[derive(Debug)]
pub struct SqliteSnapshot {
    path: PathBuf,
    pub(super) connection: SqliteConnection,
    /// What the file is.
    kind: Kind,
    /// A copy made to read what an older version wrote; goes with this.
    _scratch: Option<Scratch>,
    /// Held, not used.
    _lock: Option<File>,
}

impl SqliteSnapshot {
    /// Opens a store or a backup to read it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there is none, [`StoreError::TooNew`] and [`StoreError::TooOld`]
    /// where another version wrote it.
    pub async fn open(path: &Path) -> Result<Self> {
        let (mut connection, found) = look(path).await?;
        if found.version < LEASES.newest() {
            // Only tidying up: the answer is no anyway.
            let _ = connection.close().await;
            if found.version == 0 {
                return Err(StoreError::Missing { name: format!("sqlite:{}", path.display()) });
            }
            return Err(StoreError::TooOld { found: found.version, known: LEASES.newest() });
        }
        sqlx::raw_sql("PRAGMA query_only = ON; BEGIN").execute(&mut connection).await.map_err(failed(READING))?;
        // The transaction begins with its first look.
        sqlx::query("SELECT batch FROM lab").fetch_optional(&mut connection).await.map_err(failed(READING))?;
        Ok(Self { path: path.to_owned(), connection, kind: found.kind, _scratch: None, _lock: None })
    }

    /// Opens a store that no broker has open and keeps brokers off it, or a backup. What an older
    /// version wrote is read from a copy in `scratch`, which is brought up to this version.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::Locked`] while a broker has it open.
    pub async fn offline(path: &Path, scratch: &Path) -> Result<Self> {
        let (mut connection, found) = look(path).await?;
        let lock = match found.kind {
            Kind::Store => fs::canonicalize(path).map_err(failed(READING)).and_then(|path| take_lock(&path).map(Some)),
            Kind::Backup => Ok(None),
        };
        let is_old = lock.is_ok() && (1..LEASES.newest()).contains(&found.version);
        let copied = if is_old { Scratch::copy(&mut connection, scratch).await.map(Some) } else { Ok(None) };
        // Read from only.
        let _ = connection.close().await;
        let lock = lock?;
        let opened = match copied? {
            Some(scratch) => Self::upgraded(path, scratch, found).await?,
            None => Self::open(path).await?,
        };
        Ok(Self { _lock: lock, ..opened })
    }

    async fn upgraded(path: &Path, scratch: Scratch, found: Found) -> Result<Self> {
        let mut connection = options(&scratch.0).connect().await.map_err(failed(READING))?;
        LEASES.migrate(&mut connection, found.version).await?;
        LEASES.mark(&mut connection, found.kind).await?;
        connection.close().await.map_err(failed(READING))?;
        let opened = Self::open(&scratch.0).await?;
        Ok(Self { path: path.to_owned(), _scratch: Some(scratch), ..opened })
    }

    /// What it reads, once it is being written by this process.
    pub(super) const fn of(path: PathBuf, connection: SqliteConnection, kind: Kind) -> Self {
        Self { path, connection, kind, _scratch: None, _lock: None }
    }

    /// Whether the file is a backup.
    #[must_use]
    pub fn is_backup(&self) -> bool {
        self.kind == Kind::Backup
    }
}

impl Whole for SqliteSnapshot {
    type Row = SqliteRow;

    const LAST_OF_PIECE: &'static str = "SELECT max(lease) FROM (
        SELECT lease FROM lease WHERE lease > $1 UNION ALL SELECT lease FROM lease_end WHERE lease > $1
        UNION ALL SELECT lease FROM held WHERE lease > $1 ORDER BY lease LIMIT $2)";
    // Crossed, so that it goes through the log and looks each session up.
    const REQUESTS: &'static str = "SELECT request.session, request.request, request.body_hash, request.ended
        FROM request CROSS JOIN session USING (session)
        WHERE request.request > session.forgotten OR request.row > session.forgotten_row ORDER BY request.row";

    fn store(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn all<T: Send>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&SqliteRow) -> Result<T> + Send,
    ) -> Result<Vec<T>> {
        let mut query = sqlx::query(ask);
        for number in numbers {
            query = query.bind(i64::try_from(*number).unwrap_or(i64::MAX));
        }
        let rows = query.fetch_all(&mut self.connection).await.map_err(failed(READING))?;
        rows.iter().map(read).collect()
    }

    async fn end(self) -> Result<()> {
        self.connection.close().await.map_err(failed("close the store"))
    }
}

impl Columns for SqliteRow {
    fn signed(&self, index: usize) -> Result<Option<i64>> {
        column(self, index)
    }

    fn text(&self, index: usize) -> Result<Option<String>> {
        column(self, index)
    }
}

/// Opens a file that must be there, and looks what it is.
pub(super) async fn look(path: &Path) -> Result<(SqliteConnection, Found)> {
    if !path.try_exists().map_err(failed("look for the store"))? {
        return Err(StoreError::Missing { name: format!("sqlite:{}", path.display()) });
    }
    let mut connection = options(path).connect().await.map_err(failed("open the store"))?;
    match LEASES.look(&mut connection).await {
        Ok(found) => Ok((connection, found)),
        Err(error) => {
            let _ = connection.close().await;
            Err(error)
        }
    }
}

/// A file of our own that goes with this.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    /// A copy for this user alone, under a name that nobody has.
    async fn copy(connection: &mut SqliteConnection, path: &Path) -> Result<Self> {
        let doing = "make a copy to read what an older version wrote";
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed(doing))?;
        let scratch = Self(path.to_owned());
        vacuum_into(connection, path).await?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Writes all that the connection's file holds into another, which must be empty or not there.
pub(super) async fn vacuum_into(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let doing = "copy the store's file";
    let Some(path) = path.to_str() else { return Err(failed(doing)("its path is not UTF-8")) };
    sqlx::query("VACUUM INTO $1").bind(path).execute(connection).await.map_err(failed(doing))?;
    Ok(())
}

/// Removes a file of our own and what SQLite keeps beside it; what is not there is no matter.
pub(super) fn remove(path: &Path) {
    for end in ["", "-journal", "-wal", "-shm"] {
        let _ = fs::remove_file(super::beside(path, end));
    }
}
