//! An empty file that is being filled, under a name of its own until it is whole.
//!
//! `PATH.part` is written without regard to crashes, made durable once, and only then given its
//! name: whoever looks at PATH finds nothing or all of it. The store's lock is held meanwhile, so
//! that no broker makes a file of that name, and a part left behind by a crash is nobody's.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use sqlx::sqlite::{SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

use super::rows::{Row, Rows};
use super::schema::{Kind, LEASES};
use super::snapshot::{self, SqliteSnapshot};
use super::{Result, Texts, beside, failed, options, sync_folder};
use crate::core::tables::Batch;
use crate::store::StoreError;
use crate::store::archive::{CheckpointRow, Head, JournalRow, LeaseRow, Record, Table, Target};
use crate::store::whole::{Whole, request_key};

const FILLING: &str = "fill the new store";

/// A file being filled.
#[derive(Debug)]
pub struct SqliteTarget {
    filling: SqliteSnapshot,
    path: PathBuf,
    part: PathBuf,
    /// Where what is there now is moved to.
    aside: Option<PathBuf>,
    /// Held, not used.
    _locks: Vec<File>,
}

/// What may be at the path of a store that is to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nothing, or a store without a batch.
    Nothing,
    /// A store, which is kept under its name with this at the end.
    Aside(String),
}

impl SqliteTarget {
    /// A store to be. What is there is looked at now and stays as it is until [`Target::finish`].
    ///
    /// # Errors
    /// [`StoreError::Locked`] while a broker has it open, [`StoreError::NotEmpty`] where there is a
    /// store that is not to be replaced; another where there is another program's file.
    pub async fn store(path: &Path, replace: Replace) -> Result<Self> {
        let path = super::prepare_folder(path).map_err(failed("create the store's folder"))?;
        let lock = super::take_lock(&path)?;
        let there = settle(&path).await?;
        let aside = match replace {
            Replace::Aside(end) if there.is_some() => Some(beside(&path, &end)),
            _ if there.is_none_or(|batch| batch == 0) => None,
            _ => return Err(StoreError::NotEmpty { name: format!("sqlite:{}", path.display()) }),
        };
        Self::open(path, aside, vec![lock], Kind::Store).await
    }

    /// A backup to be; what has its name is replaced.
    pub async fn backup(path: &Path) -> Result<Self> {
        let path = super::prepare_folder(path).map_err(failed("create the backup's folder"))?;
        Self::open(path, None, Vec::new(), Kind::Backup).await
    }

    async fn open(path: PathBuf, aside: Option<PathBuf>, mut locks: Vec<File>, kind: Kind) -> Result<Self> {
        let (part, lock) = begin_part(&path)?;
        locks.push(lock);
        let opened = async {
            let options = options(&part).journal_mode(SqliteJournalMode::Memory).synchronous(SqliteSynchronous::Off);
            let mut connection = options.connect().await.map_err(failed(FILLING))?;
            LEASES.migrate(&mut connection, 0).await?;
            LEASES.mark(&mut connection, kind).await?;
            Ok(connection)
        };
        match opened.await {
            Ok(connection) => {
                let filling = SqliteSnapshot::of(path.clone(), connection, kind);
                Ok(Self { filling, path, part, aside, _locks: locks })
            }
            Err(error) => {
                snapshot::remove(&part);
                Err(error)
            }
        }
    }

    async fn write(&mut self, statements: &'static [&'static str], rows: Rows) -> Result<()> {
        let Some(rows) = rows.finish() else { return Ok(()) };
        let connection = &mut self.filling.connection;
        for statement in statements {
            sqlx::query(*statement).bind(&rows).execute(&mut *connection).await.map_err(failed(FILLING))?;
        }
        Ok(())
    }
}

/// The rows of a piece, packed.
fn packed<T>(of: &[T], fill: impl Fn(&mut Row<'_>, &T) -> serde_json::Result<()>) -> Result<Rows> {
    let mut rows = Rows::default();
    for one in of {
        rows.row(|row| fill(row, one)).map_err(failed(FILLING))?;
    }
    Ok(rows)
}

impl Target for SqliteTarget {
    async fn put_head(&mut self, head: &Head) -> Result<()> {
        // Deleted first: a batch that does not follow the last one is refused.
        const PUT: &str = "INSERT INTO lab (one, batch, last_event, wall_ms, now, term, last_lease, last_claim, \
            last_session, last_resource) VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let connection = &mut self.filling.connection;
        sqlx::query("DELETE FROM lab").execute(&mut *connection).await.map_err(failed(FILLING))?;
        let mut put = sqlx::query(PUT).bind(head.batch.cast_signed()).bind(head.last_event.cast_signed());
        put = put.bind(head.wall_ms);
        let lab = head.lab;
        for number in [lab.now.0, lab.term, lab.last_lease, lab.last_claim, lab.last_session, lab.last_resource] {
            put = put.bind(number.cast_signed());
        }
        put.execute(connection).await.map_err(failed(FILLING))?;
        Ok(())
    }

    async fn put_records(&mut self, table: Table, records: &[Record]) -> Result<()> {
        let statements: &[&str] = match table {
            Table::Pool => &["INSERT INTO pool (name, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"],
            Table::Resource => {
                &["INSERT INTO resource (resource, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"]
            }
            Table::Used => {
                &["INSERT INTO resource_used (resource, last_used) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"]
            }
            Table::Remembered => {
                &["INSERT INTO remembered (name, marks) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"]
            }
            Table::Session => &["INSERT INTO session (session, record, forgotten)
                SELECT value ->> 0, value ->> 1, value ->> 1 ->> '$.forgotten' FROM jsonb_each($1)"],
            Table::Request => &["INSERT INTO request (session, request, body_hash, ended)
                SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each($1)"],
            Table::Claim => &["INSERT INTO claim (claim, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"],
            Table::Keyed => &["INSERT INTO keyed (key, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"],
            Table::Arrival => {
                &["INSERT INTO arrival (claim, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)"]
            }
        };
        let mut rows = Rows::default();
        for record in records {
            if table == Table::Request {
                request(&mut rows, record)?;
            } else {
                let put = rows.row(|row| {
                    row.text(&record.key);
                    row.text(&record.text);
                    Ok(())
                });
                put.map_err(failed(FILLING))?;
            }
        }
        self.write(statements, rows).await
    }

    async fn put_journal(&mut self, rows: &[JournalRow]) -> Result<()> {
        let rows = packed(rows, |row, event| {
            row.number(event.number);
            row.number(event.batch);
            row.number(event.at);
            row.signed(event.wall_ms);
            row.text(&event.kind);
            row.optional(event.names.lease.map(|id| id.0));
            row.optional(event.names.claim.map(|id| id.0));
            row.optional(event.names.session.map(|id| id.0));
            row.optional(event.names.resource.map(|id| id.0));
            row.text(&event.body);
            Ok(())
        })?;
        const PUT: &str = "INSERT INTO journal (event, batch, at, wall_ms, kind, lease, claim, session, resource, body)
            SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
              value ->> 7, value ->> 8, value ->> 9 FROM jsonb_each($1)";
        self.write(&[PUT], rows).await
    }

    async fn put_leases(&mut self, leases: &[LeaseRow]) -> Result<()> {
        let recorded: Vec<_> = leases.iter().filter_map(|row| Some((row.lease, row.record.as_deref()?))).collect();
        let records = packed(&recorded, |row, (lease, record)| {
            row.number(*lease);
            row.text(record);
            Ok(())
        })?;
        let over: Vec<_> = leases.iter().filter_map(|row| Some((row.lease, row.end.as_ref()?))).collect();
        let ends = packed(&over, |row, (lease, end)| {
            row.number(*lease);
            row.number(end.at);
            match &end.outcome {
                Some(outcome) => row.text(outcome),
                None => row.null(),
            }
            row.text(&end.ended);
            Ok(())
        })?;
        let mut held = Rows::default();
        leases.iter().filter(|row| row.held).for_each(|row| held.number(row.lease));
        let named: Vec<_> =
            leases.iter().flat_map(|row| row.resources.iter().map(|name| (row.lease, name.as_str()))).collect();
        let resources = packed(&named, |row, (lease, name)| {
            row.number(*lease);
            row.text(name);
            Ok(())
        })?;
        const RECORDS: &str = "INSERT INTO lease (lease, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each($1)";
        const ENDS: &str = "INSERT INTO lease_end (lease, at, outcome, ended)
            SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each($1)";
        const HELD: &str = "INSERT INTO held (lease) SELECT value FROM jsonb_each($1)";
        const RESOURCES: &str = "INSERT INTO lease_resource (era, resource, lease)
            SELECT (value ->> 0) >> 10, value ->> 1, value ->> 0 FROM jsonb_each($1)";
        self.write(&[RECORDS], records).await?;
        self.write(&[ENDS], ends).await?;
        self.write(&[HELD], held).await?;
        self.write(&[RESOURCES], resources).await
    }

    async fn put_checkpoint(&mut self, checkpoint: &CheckpointRow) -> Result<()> {
        let put = sqlx::query("INSERT INTO checkpoint (event, batch, at, tables) VALUES ($1, $2, $3, $4)")
            .bind(checkpoint.event.cast_signed())
            .bind(checkpoint.batch.cast_signed())
            .bind(checkpoint.at.cast_signed())
            .bind(&checkpoint.tables);
        put.execute(&mut self.filling.connection).await.map_err(failed(FILLING))?;
        Ok(())
    }

    async fn commit(&mut self, batch: &Batch) -> Result<()> {
        let query = Texts::default().commit(batch).map_err(failed("write a batch as JSON"))?;
        query.execute(&mut self.filling.connection).await.map_err(failed(FILLING))?;
        Ok(())
    }

    async fn finish(self) -> Result<Option<String>> {
        let Self { filling, path, part, aside, _locks } = self;
        let moved = aside.as_ref().map(|aside| aside.display().to_string());
        let finished = async {
            filling.end().await?;
            give_name(&part, &path, aside.as_deref()).map_err(failed("put the new store in its place"))
        };
        let finished = finished.await;
        if finished.is_err() {
            snapshot::remove(&part);
        }
        finished.map(|()| moved)
    }
}

impl Whole for SqliteTarget {
    type Row = SqliteRow;

    const LAST_OF_PIECE: &'static str = SqliteSnapshot::LAST_OF_PIECE;
    const REQUESTS: &'static str = SqliteSnapshot::REQUESTS;

    fn store(&self) -> String {
        self.filling.store()
    }

    async fn all<T: Send>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&SqliteRow) -> Result<T> + Send,
    ) -> Result<Vec<T>> {
        self.filling.all(ask, numbers, read).await
    }

    /// There was no store.
    async fn end(self) -> Result<()> {
        let closed = self.filling.end().await;
        snapshot::remove(&self.part);
        closed
    }
}

/// A request's columns: its key and its text each hold two.
fn request(rows: &mut Rows, record: &Record) -> Result<()> {
    let (session, request) =
        request_key(record).ok_or_else(|| failed(FILLING)("the key of a request is SESSION/REQUEST"))?;
    let (body_hash, ended): (Option<u64>, &RawValue) = serde_json::from_str(&record.text).map_err(failed(FILLING))?;
    let put = rows.row(|row| {
        row.number(session);
        row.number(request);
        row.optional(body_hash);
        row.text(ended.get());
        Ok(())
    });
    put.map_err(failed(FILLING))
}

/// Makes an empty part beside the path, for this user alone, and locks it: two who fill the same
/// path do not meet.
pub(super) fn begin_part(path: &Path) -> Result<(PathBuf, File)> {
    let doing = "create the new store's file";
    let part = beside(path, ".part");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(&part).map_err(failed(doing))?;
    file.try_lock().map_err(|_| failed(doing)(format!("another process is writing {}", part.display())))?;
    file.set_len(0).map_err(failed(doing))?;
    Ok((part, file))
}

/// Makes the part durable and gives it its name; what has that name is kept under another where told.
pub(super) fn give_name(part: &Path, path: &Path, aside: Option<&Path>) -> std::io::Result<()> {
    File::open(part)?.sync_all()?;
    if let Some(aside) = aside {
        // Both names for a moment, so that there is a store at every one.
        fs::hard_link(path, aside)?;
    }
    fs::rename(part, path)?;
    sync_folder(path)
}

/// Looks what store is at the path, whose lock is held, and folds what stands in its write-ahead log
/// into it. Answers its last batch; `None` where there is nothing.
async fn settle(path: &Path) -> Result<Option<u64>> {
    let doing = "look at what is there";
    let log = beside(path, "-wal");
    if !path.try_exists().map_err(failed(doing))? {
        if log.try_exists().map_err(failed(doing))? {
            let what = format!("{} lies there without its database: move it away", log.display());
            return Err(failed(doing)(what));
        }
        return Ok(None);
    }
    let (mut connection, found) = snapshot::look(path).await?;
    let batch = async {
        if found.version == 0 {
            return Ok(0);
        }
        let batch: Option<i64> =
            sqlx::query_scalar("SELECT batch FROM lab").fetch_optional(&mut connection).await.map_err(failed(doing))?;
        Ok(batch.unwrap_or(0).cast_unsigned())
    };
    let batch = batch.await;
    connection.close().await.map_err(failed(doing))?;
    if log.try_exists().map_err(failed(doing))? {
        let what = format!("another process has {} open; close it", path.display());
        return Err(failed(doing)(what));
    }
    batch.map(Some)
}
