//! The schema's versions: what the database holds, and how it is brought up to what this binary knows.
//!
//! The statements are in `schema/postgres/`, one file per version, and never change once released. They
//! are made in the schema that the connection finds first (`public`, unless the role or the URL says
//! otherwise: `?options=-c search_path=NAME`). One that a newer version wrote, or that another program
//! uses, is left as it is.
//!
//! An empty database gets its tables from whoever comes first. Later versions are applied by whoever
//! takes the lead, in the transaction that takes it: a broker of the old version that leads is never
//! surprised by tables it does not know.

use std::fmt;

use sqlx::{Connection as _, PgConnection};

use super::connect::Limits;
use super::{Result, failed};
use crate::store::StoreError;

/// Every version's statements; the first makes version 1.
#[derive(Clone, Copy)]
pub struct Versions(pub &'static [&'static str]);

/// What this binary writes.
pub const VERSIONS: Versions = Versions(&[
    include_str!("../../../schema/postgres/0001_first.sql"),
    include_str!("../../../schema/postgres/0002_providers.sql"),
    include_str!("../../../schema/postgres/0003_builds.sql"),
    include_str!("../../../schema/postgres/0004_logs.sql"),
    include_str!("../../../schema/postgres/0005_search.sql"),
    include_str!("../../../schema/postgres/0006_statuses_of_deliveries.sql"),
]);

/// How often the tables of an empty database are tried to be made: two brokers may start at once.
const TRIES: u32 = 5;

/// Made before everything else, as the mark of a store: a row per version that was applied.
const MARK: &str = "CREATE TABLE leasehold_version (
    version BIGINT PRIMARY KEY,
    applied TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
)";

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}", self.newest())
    }
}

impl Versions {
    /// The newest.
    pub const fn newest(self) -> i64 {
        self.0.len() as i64
    }

    /// Reads the version that the database has, 0 where it is empty.
    ///
    /// # Errors
    /// When it is newer than this binary, or the schema is another program's.
    pub async fn found(self, connection: &mut PgConnection, limits: Limits) -> Result<i64> {
        const ASK: &str = "SELECT count(*), count(*) FILTER (WHERE tablename = 'leasehold_version'),
                current_schema()::text
            FROM pg_tables WHERE schemaname = current_schema()";
        let doing = "read the store's version";
        let (tables, marks, schema): (i64, i64, Option<String>) =
            limits.of_read(doing, sqlx::query_as(ASK).fetch_one(&mut *connection)).await?;
        let Some(schema) = schema else {
            let what = "the search_path names no schema that is there: create it, or name another with ?options=";
            return Err(failed("open the store")(what));
        };
        if marks == 0 {
            if tables > 0 {
                let what = format!(
                    "the schema {schema} has another program's tables; give leasehold a database of its own, \
                     or a schema with ?options=-c search_path=NAME"
                );
                return Err(failed("open the store")(what));
            }
            return Ok(0);
        }
        let ask = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM leasehold_version");
        let found: i64 = limits.of_read(doing, ask.fetch_one(connection)).await?;
        if found > self.newest() {
            return Err(StoreError::TooNew { found, known: self.newest() });
        }
        Ok(found)
    }

    /// Makes the tables of an empty database; leaves any other as it is.
    ///
    /// # Errors
    /// As [`Versions::found`], and when the tables cannot be made.
    pub async fn prepare(self, connection: &mut PgConnection, limits: Limits) -> Result<()> {
        let mut tries = 1..TRIES;
        while self.found(connection, limits).await? == 0 {
            let made = async {
                let mut transaction = connection.begin().await?;
                sqlx::raw_sql(MARK).execute(&mut *transaction).await?;
                self.apply(&mut transaction, 0).await?;
                transaction.commit().await
            };
            // What was made and not heard of is found at the next try, as is what another made meanwhile.
            match limits.of_read("make the store's tables", made).await {
                Err(error) if tries.next().is_none() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies the versions that `found` lacks, in the transaction that the caller has begun.
    pub async fn apply(self, connection: &mut PgConnection, found: i64) -> sqlx::Result<()> {
        for (version, statements) in (1_i64..).zip(self.0).skip(usize::try_from(found).unwrap_or(0)) {
            sqlx::raw_sql(*statements).execute(&mut *connection).await?;
            let mark = sqlx::query("INSERT INTO leasehold_version (version) VALUES ($1)").bind(version);
            mark.execute(&mut *connection).await?;
        }
        Ok(())
    }
}
