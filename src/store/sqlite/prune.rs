//! Retention: what is older than the cut goes, a bounded piece per call.
//!
//! Before the first event of a piece goes, there is a checkpoint at or after it, so that checking
//! and replaying always have a place to start. A checkpoint is the whole state, so one is made only
//! when the last one has been overtaken: once in a retention, not once in a call.

use sqlx::{Connection, SqliteConnection};

use super::{Result, failed, read};
use crate::core::types::LabTime;

/// Rows of each kind that one call deletes at most.
const ROWS_PER_CALL: i64 = 2_000;

/// How far the sweeps have come: for forgotten requests by row, for ended leases by number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    row: i64,
    lease: i64,
}

/// Deletes a piece; answers whether there is more.
pub async fn prune(writer: &mut SqliteConnection, before: LabTime, sweep: &mut Sweep) -> Result<bool> {
    let doing = "prune the store";
    let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed(doing))?;
    let before = i64::try_from(before.0).unwrap_or(i64::MAX);
    let events = prune_journal(&mut transaction, before).await?;
    // Only once the events are gone: checking counts on finding every lease whose end the journal tells.
    let leases = !events && prune_leases(&mut transaction, before, sweep).await?;
    let requests = sweep_requests(&mut transaction, sweep).await?;
    transaction.commit().await.map_err(failed(doing))?;
    Ok(events || leases || requests)
}

async fn prune_journal(connection: &mut SqliteConnection, before: i64) -> Result<bool> {
    // Dense numbers in the order of time: the piece is a range, found without looking at the rest.
    const LAST_OF_PIECE: &str = "SELECT max(event) FROM journal
        WHERE event < (SELECT min(event) FROM journal) + $2 AND at < $1";
    let doing = "prune the journal";
    let last: Option<i64> = sqlx::query_scalar(LAST_OF_PIECE)
        .bind(before)
        .bind(ROWS_PER_CALL)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(doing))?;
    let Some(last) = last else { return Ok(false) };
    let covered: Option<i64> = sqlx::query_scalar("SELECT max(event) FROM checkpoint")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(doing))?;
    if covered.is_none_or(|covered| covered < last) {
        store_checkpoint(connection).await?;
    }
    let deleted = sqlx::query("DELETE FROM journal WHERE event <= $1")
        .bind(last)
        .execute(&mut *connection)
        .await
        .map_err(failed(doing))?;
    Ok(deleted.rows_affected() >= ROWS_PER_CALL.cast_unsigned())
}

/// Stores the state as it is now and drops the checkpoints before it.
async fn store_checkpoint(connection: &mut SqliteConnection) -> Result<()> {
    let doing = "store a checkpoint";
    let tables = read::tables(connection).await?;
    let text = serde_json::to_string(&tables).map_err(failed(doing))?;
    sqlx::query("DELETE FROM checkpoint").execute(&mut *connection).await.map_err(failed(doing))?;
    sqlx::query("INSERT INTO checkpoint (event, batch, at, tables) SELECT last_event, batch, now, $1 FROM lab")
        .bind(text)
        .execute(&mut *connection)
        .await
        .map_err(failed(doing))?;
    Ok(())
}

/// Deletes ended leases in the order of their numbers, which is that of their grants, and begins
/// anew once it meets a piece of which none ended long enough ago: what is granted after it hardly
/// did. One that did all the same goes when its neighbours do.
async fn prune_leases(connection: &mut SqliteConnection, before: i64, sweep: &mut Sweep) -> Result<bool> {
    const LAST_OF_PIECE: &str =
        "SELECT max(lease) FROM (SELECT lease FROM lease_end WHERE lease > $1 ORDER BY lease LIMIT $2)";
    const PIECE: &str = "SELECT lease FROM lease_end WHERE lease > $1 AND lease <= $2 AND at < $3";
    const HISTORY: &str = "DELETE FROM lease_resource WHERE (era, resource, lease) IN (
        SELECT lease.lease >> 10, pick.value ->> '$.name', lease.lease
        FROM lease, json_each(lease.record, '$.picks') AS pick
        WHERE lease.lease IN (";
    let doing = "prune ended leases";
    let last: Option<i64> = sqlx::query_scalar(LAST_OF_PIECE)
        .bind(sweep.lease)
        .bind(ROWS_PER_CALL)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(doing))?;
    let Some(last) = last else {
        sweep.lease = 0;
        return Ok(false);
    };
    let mut deleted = 0;
    for statement in [
        format!("{HISTORY}{PIECE}))"),
        format!("DELETE FROM lease WHERE lease IN ({PIECE})"),
        format!("DELETE FROM lease_end WHERE lease IN ({PIECE})"),
    ] {
        let delete = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(sweep.lease).bind(last).bind(before);
        deleted = delete.execute(&mut *connection).await.map_err(failed(doing))?.rows_affected();
    }
    sweep.lease = if deleted > 0 { last } else { 0 };
    Ok(deleted > 0)
}

/// Deletes what readers of `request` pass over, going once through the table in calls that answer
/// `true`. The last row stays, as its number bounds what was forgotten.
async fn sweep_requests(connection: &mut SqliteConnection, sweep: &mut Sweep) -> Result<bool> {
    const PIECE: &str = "SELECT max(row), (SELECT max(row) FROM request)
        FROM (SELECT row FROM request WHERE row > $1 ORDER BY row LIMIT $2)";
    const DELETE: &str = "DELETE FROM request WHERE row > $1 AND row <= $2 AND row < $3
        AND NOT EXISTS (SELECT 1 FROM session WHERE session.session = request.session
          AND (request.request > session.forgotten OR request.row > session.forgotten_row))";
    let doing = "sweep forgotten requests";
    let (piece, last): (Option<i64>, Option<i64>) = sqlx::query_as(PIECE)
        .bind(sweep.row)
        .bind(ROWS_PER_CALL)
        .fetch_one(&mut *connection)
        .await
        .map_err(failed(doing))?;
    let (Some(to), Some(last)) = (piece, last) else {
        sweep.row = 0;
        return Ok(false);
    };
    let delete = sqlx::query(DELETE).bind(sweep.row).bind(to).bind(last);
    delete.execute(&mut *connection).await.map_err(failed(doing))?;
    let more = to < last;
    sweep.row = if more { to } else { 0 };
    Ok(more)
}
