//! The schema's versions: what a file holds, and how it is brought up to what this binary knows.
//!
//! The statements are in `schema/sqlite/` and `schema/sqlite_builds/`, one file per version, and never change
//! once released. A file written by a newer version, or by another program, is left as it is.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::{Result, failed};
use crate::store::StoreError;

/// A family of files: what marks them, and the statements of each of their versions, of which the first
/// makes version 1.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// In the header of a file that brokers write, so that no other program's is taken for ours.
    store: i64,
    /// In that of a backup.
    backup: i64,
    /// What the writer keeps of the file in memory, in SQLite's negative KiB.
    pub writer_cache: &'static str,
    migrations: &'static [&'static str],
}

/// The books of the leases: `lhld`, `lhlb`.
pub const LEASES: Family = Family {
    store: 0x6C68_6C64,
    backup: 0x6C68_6C62,
    // Pages that grants and ends come back to, which are read again where there is no room for them.
    writer_cache: "-16384",
    migrations: &[
        include_str!("../../../schema/sqlite/0001_first.sql"),
        include_str!("../../../schema/sqlite/0002_arrivals.sql"),
        include_str!("../../../schema/sqlite/0003_lease_ends.sql"),
        include_str!("../../../schema/sqlite/0004_providers.sql"),
    ],
};

/// The books of the builds: `lhbd`, `lhbb`.
pub const BUILDS: Family = Family {
    store: 0x6C68_6264,
    backup: 0x6C68_6262,
    // The search's index is merged through here and fills whatever there is, for nothing: it is no faster with more.
    writer_cache: "-4096",
    migrations: &[
        include_str!("../../../schema/sqlite_builds/0001_first.sql"),
        include_str!("../../../schema/sqlite_builds/0002_logs.sql"),
        include_str!("../../../schema/sqlite_builds/0003_search.sql"),
        include_str!("../../../schema/sqlite_builds/0004_statuses_of_deliveries.sql"),
    ],
};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A broker's.
    Store,
    /// To be restored from: no broker serves it, as it would give fences that the original gave.
    Backup,
}

/// What a file was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its version, 0 where it is empty.
    pub version: i64,
    /// What for.
    pub kind: Kind,
}

impl Family {
    /// The version that this binary writes.
    pub const fn newest(self) -> i64 {
        self.migrations.len() as i64
    }

    const fn application_id(self, kind: Kind) -> i64 {
        match kind {
            Kind::Store => self.store,
            Kind::Backup => self.backup,
        }
    }

    /// Reads what the file is; refuses what is newer or not of this family.
    pub async fn look(self, connection: &mut SqliteConnection) -> Result<Found> {
        const ASK: &str = "SELECT (SELECT user_version FROM pragma_user_version), \
            (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)";
        let doing = "read the store's version";
        let row = sqlx::query(ASK).fetch_one(connection).await.map_err(failed(doing))?;
        let mut numbers = [0_i64; 3];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = row.try_get(index).map_err(failed(doing))?;
        }
        let [version, application, objects] = numbers;
        let kind = [Kind::Store, Kind::Backup].into_iter().find(|kind| self.application_id(*kind) == application);
        let kind = match kind {
            Some(kind) => kind,
            None if objects > 0 || version != 0 => {
                let what = "the file is another program's database; give --store a path of its own";
                return Err(failed("open the store")(what));
            }
            None => Kind::Store,
        };
        if version > self.newest() {
            return Err(StoreError::TooNew { found: version, known: self.newest() });
        }
        Ok(Found { version, kind })
    }

    /// Reads the version of a file that a broker is to serve, 0 when it is empty.
    pub async fn version(self, connection: &mut SqliteConnection) -> Result<i64> {
        match self.look(connection).await? {
            Found { version, kind: Kind::Store } => Ok(version),
            Found { kind: Kind::Backup, .. } => Err(StoreError::Backup),
        }
    }

    /// Says in the file's header what it is for.
    pub async fn mark(self, connection: &mut SqliteConnection, kind: Kind) -> Result<()> {
        let mark = format!("PRAGMA application_id = {}", self.application_id(kind));
        sqlx::raw_sql(AssertSqlSafe(mark)).execute(connection).await.map_err(failed("mark the store's file"))?;
        Ok(())
    }

    /// Applies the versions that `found` lacks, in one transaction.
    pub async fn migrate(self, connection: &mut SqliteConnection, found: i64) -> Result<()> {
        let applied = usize::try_from(found).unwrap_or(0);
        let missing = self.migrations.get(applied..).unwrap_or_default();
        if missing.is_empty() {
            return Ok(());
        }
        let doing = "bring the store up to this version";
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(doing))?;
        for statements in missing {
            sqlx::raw_sql(*statements).execute(&mut *transaction).await.map_err(failed(doing))?;
        }
        let version = format!("PRAGMA user_version = {}", self.newest());
        sqlx::raw_sql(AssertSqlSafe(version)).execute(&mut *transaction).await.map_err(failed(doing))?;
        self.mark(&mut transaction, Kind::Store).await?;
        transaction.commit().await.map_err(failed(doing))
    }
}
