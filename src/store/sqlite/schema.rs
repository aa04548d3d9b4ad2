//! The schema's versions: what a file holds, and how it is brought up to what this binary knows.
//!
//! The statements are in `schema/sqlite/`, one file per version, and never change once released. A
//! file written by a newer version, or by another program, is left as it is.

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::{Result, failed};
use crate::store::StoreError;

/// In the file's header, so that no other program's file is taken for a store: `lhld`.
const APPLICATION_ID: i64 = 0x6C68_6C64;

/// Every version's statements; the first makes version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../schema/sqlite/0001_first.sql"),
    include_str!("../../../schema/sqlite/0002_arrivals.sql"),
    include_str!("../../../schema/sqlite/0003_lease_ends.sql"),
];

/// The version that this binary writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// Reads the file's version, 0 when it is empty; refuses what is newer or not a store.
pub async fn version(connection: &mut SqliteConnection) -> Result<i64> {
    const ASK: &str = "SELECT (SELECT user_version FROM pragma_user_version), \
        (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)";
    let doing = "read the store's version";
    let row = sqlx::query(ASK).fetch_one(connection).await.map_err(failed(doing))?;
    let mut numbers = [0_i64; 3];
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get(index).map_err(failed(doing))?;
    }
    let [found, application, objects] = numbers;
    if application != APPLICATION_ID && (objects > 0 || found != 0) {
        let what = "the file is another program's database; give --store a path of its own";
        return Err(failed("open the store")(what));
    }
    if found > VERSION {
        return Err(StoreError::TooNew { found, known: VERSION });
    }
    Ok(found)
}

/// Applies the versions that `found` lacks, in one transaction.
pub async fn migrate(connection: &mut SqliteConnection, found: i64) -> Result<()> {
    let applied = usize::try_from(found).unwrap_or(0);
    let missing = MIGRATIONS.get(applied..).unwrap_or_default();
    if missing.is_empty() {
        return Ok(());
    }
    let doing = "bring the store up to this version";
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed(doing))?;
    for statements in missing {
        sqlx::raw_sql(*statements).execute(&mut *transaction).await.map_err(failed(doing))?;
    }
    let mark = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}");
    sqlx::raw_sql(AssertSqlSafe(mark)).execute(&mut *transaction).await.map_err(failed(doing))?;
    transaction.commit().await.map_err(failed(doing))
}
