//! The whole file as of one moment, read beside whoever writes to it.
//!
//! One connection in one read transaction: it needs no lock of ours, holds nobody up, and keeps the
//! write-ahead log from being cut back for as long as it lasts. It never writes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sqlx::sqlite::SqliteRow;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use super::read::{column, number, text};
use super::schema::{self, Kind};
use super::{Result, failed, options, take_lock};
use crate::core::tables::LabRecord;
use crate::core::types::{ClaimId, LabTime, LeaseId, ResourceId, SessionId};
use crate::store::StoreError;
use crate::store::archive::{
    CheckpointRow, EndRow, Head, JournalRow, LeaseRow, Leases, PIECE, Record, Snapshot, Table,
};
use crate::store::names::Names;

const READING: &str = "read the store";
/// Leases of one era stand together in the history of resources; pieces end where eras do.
const ERA_LAST: u64 = 1_023;

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
        if found.version < schema::VERSION {
            // Only tidying up: the answer is no anyway.
            let _ = connection.close().await;
            if found.version == 0 {
                return Err(StoreError::Missing { name: format!("sqlite:{}", path.display()) });
            }
            return Err(StoreError::TooOld { found: found.version, known: schema::VERSION });
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
        let is_old = lock.is_ok() && (1..schema::VERSION).contains(&found.version);
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

    async fn upgraded(path: &Path, scratch: Scratch, found: schema::Found) -> Result<Self> {
        let mut connection = options(&scratch.0).connect().await.map_err(failed(READING))?;
        schema::migrate(&mut connection, found.version).await?;
        schema::mark(&mut connection, found.kind).await?;
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

    async fn all<T>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&SqliteRow) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut query = sqlx::query(ask);
        for number in numbers {
            query = query.bind(i64::try_from(*number).unwrap_or(i64::MAX));
        }
        let rows = query.fetch_all(&mut self.connection).await.map_err(failed(READING))?;
        rows.iter().map(read).collect()
    }

    /// What is stored of the leases after one and up to another.
    async fn between(&mut self, after: u64, last: u64) -> Result<BTreeMap<u64, LeaseRow>> {
        const RECORDS: &str = "SELECT lease, record FROM lease WHERE lease > $1 AND lease <= $2";
        const ENDS: &str = "SELECT lease, at, outcome, ended FROM lease_end WHERE lease > $1 AND lease <= $2";
        const HELD: &str = "SELECT lease FROM held WHERE lease > $1 AND lease <= $2";
        let mut found: BTreeMap<u64, LeaseRow> = BTreeMap::new();
        let range = [after, last];
        for (lease, record) in self.all(RECORDS, &range, |row| Ok((number(row, 0)?, owned(row, 1)?))).await? {
            found.entry(lease).or_default().record = Some(record);
        }
        let end = |row: &SqliteRow| {
            Ok((number(row, 0)?, EndRow { at: number(row, 1)?, outcome: column(row, 2)?, ended: owned(row, 3)? }))
        };
        for (lease, end) in self.all(ENDS, &range, end).await? {
            found.entry(lease).or_default().end = Some(end);
        }
        for lease in self.all(HELD, &range, |row| number(row, 0)).await? {
            found.entry(lease).or_default().held = true;
        }
        for (lease, row) in &mut found {
            row.lease = *lease;
        }
        Ok(found)
    }
}

impl Snapshot for SqliteSnapshot {
    fn name(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    async fn head(&mut self) -> Result<Head> {
        const ASK: &str = "SELECT batch, last_event, wall_ms, now, term, last_lease, last_claim, last_session, \
            last_resource FROM lab";
        let rows = self.all(ASK, &[], |row| {
            Ok(Head {
                batch: number(row, 0)?,
                last_event: number(row, 1)?,
                wall_ms: column(row, 2)?,
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
            Table::Request => return self.requests().await,
            Table::Claim => "SELECT CAST(claim AS TEXT), record FROM claim",
            Table::Keyed => "SELECT key, record FROM keyed",
            Table::Arrival => "SELECT CAST(claim AS TEXT), record FROM arrival",
        };
        self.all(ask, &[], |row| Ok(Record { key: owned(row, 0)?, text: owned(row, 1)? })).await
    }

    async fn journal(&mut self, after: u64) -> Result<Vec<JournalRow>> {
        const ASK: &str = "SELECT event, batch, at, wall_ms, kind, lease, claim, session, resource, body \
            FROM journal WHERE event > $1 ORDER BY event LIMIT $2";
        let row = |row: &SqliteRow| {
            let named = |index| Ok(column::<Option<i64>>(row, index)?.map(i64::cast_unsigned));
            Ok(JournalRow {
                number: number(row, 0)?,
                batch: number(row, 1)?,
                at: number(row, 2)?,
                wall_ms: column(row, 3)?,
                kind: owned(row, 4)?,
                names: Names {
                    lease: named(5)?.map(LeaseId),
                    claim: named(6)?.map(ClaimId),
                    session: named(7)?.map(SessionId),
                    resource: named(8)?.map(ResourceId),
                },
                body: owned(row, 9)?,
            })
        };
        self.all(ASK, &[after, PIECE as u64], row).await
    }

    async fn leases(&mut self, after: u64) -> Result<Leases> {
        const LAST_OF_PIECE: &str = "SELECT max(lease) FROM (
            SELECT lease FROM lease WHERE lease > $1 UNION ALL SELECT lease FROM lease_end WHERE lease > $1 \
            UNION ALL SELECT lease FROM held WHERE lease > $1 ORDER BY lease LIMIT $2)";
        const RESOURCES: &str = "SELECT lease, resource FROM lease_resource WHERE era >= $1 AND era <= $2";
        let last: Vec<Option<i64>> = self.all(LAST_OF_PIECE, &[after, PIECE as u64], |row| column(row, 0)).await?;
        let next = last.into_iter().flatten().next().map(|last| last.cast_unsigned() | ERA_LAST);
        // After the last lease there may be names of leases that are not there.
        let last = next.unwrap_or(u64::MAX);
        let mut found = self.between(after, last).await?;
        let eras = [(after + 1) >> 10, last >> 10];
        for (lease, resource) in self.all(RESOURCES, &eras, |row| Ok((number(row, 0)?, owned(row, 1)?))).await? {
            let row = found.entry(lease).or_insert_with(|| LeaseRow { lease, ..LeaseRow::default() });
            row.resources.push(resource);
        }
        let mut rows: Vec<LeaseRow> = found.into_values().collect();
        rows.iter_mut().for_each(|row| row.resources.sort_unstable());
        Ok(Leases { rows, next })
    }

    async fn lease(&mut self, lease: u64) -> Result<LeaseRow> {
        let found = self.between(lease.saturating_sub(1), lease).await?;
        Ok(found.into_values().next().unwrap_or_else(|| LeaseRow { lease, ..LeaseRow::default() }))
    }

    async fn checkpoint(&mut self) -> Result<Option<CheckpointRow>> {
        const ASK: &str = "SELECT event, batch, at, tables FROM checkpoint ORDER BY event DESC LIMIT 1";
        let rows = self.all(ASK, &[], |row| {
            let (event, batch, at) = (number(row, 0)?, number(row, 1)?, number(row, 2)?);
            Ok(CheckpointRow { event, batch, at, tables: owned(row, 3)? })
        });
        Ok(rows.await?.into_iter().next())
    }

    async fn close(self) -> Result<()> {
        self.connection.close().await.map_err(failed("close the store"))
    }
}

impl SqliteSnapshot {
    async fn requests(&mut self) -> Result<Vec<Record>> {
        // The table is a log: of two rows for one request the later is true.
        const ASK: &str = "SELECT request.session, request.request, request.body_hash, request.ended
            FROM request CROSS JOIN session USING (session)
            WHERE request.request > session.forgotten OR request.row > session.forgotten_row ORDER BY request.row";
        let rows = self.all(ASK, &[], |row| {
            let body_hash: Option<i64> = column(row, 2)?;
            let body_hash = body_hash.map_or_else(|| "null".to_owned(), |hash| hash.cast_unsigned().to_string());
            let (session, request) = (number(row, 0)?, number(row, 1)?);
            Ok(Record { key: format!("{session}/{request}"), text: format!("[{body_hash},{}]", text(row, 3)?) })
        });
        let latest: BTreeMap<String, String> = rows.await?.into_iter().map(|row| (row.key, row.text)).collect();
        Ok(latest.into_iter().map(|(key, text)| Record { key, text }).collect())
    }
}

/// Opens a file that must be there, and looks what it is.
pub(super) async fn look(path: &Path) -> Result<(SqliteConnection, schema::Found)> {
    if !path.try_exists().map_err(failed("look for the store"))? {
        return Err(StoreError::Missing { name: format!("sqlite:{}", path.display()) });
    }
    let mut connection = options(path).connect().await.map_err(failed("open the store"))?;
    match schema::look(&mut connection).await {
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

fn owned(row: &SqliteRow, index: usize) -> Result<String> {
    text(row, index).map(str::to_owned)
}
