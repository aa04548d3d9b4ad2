//! The tables of logs in the builds' file.

use sqlx::{AssertSqlSafe, Row as _};

use super::SqliteBuilds;
use crate::builds::build::BuildId;
use crate::builds::log::LogId;
use crate::store::StoreError;
use crate::store::builds::logs::common::{From, LogRows, LogWriteRows};
use crate::store::builds::logs::{Piece, Segment};
use crate::store::builds::tables::signed;
use crate::store::sqlite::failed;

type Result<T> = std::result::Result<T, StoreError>;

/// A log that is new.
const FIRST: &str = "INSERT INTO log (build, attempt, revision, settled, record) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
/// A log that is as the writer took it for.
const NEXT: &str = "UPDATE log SET revision = $3, settled = $4, record = $5
    WHERE build = $1 AND attempt = $2 AND revision = $3 - 1";
const PIECE: &str = "INSERT INTO log_piece (build, attempt, from_byte, first_line, lines, times, bytes)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const SEGMENT: &str = "INSERT INTO log_segment (build, attempt, from_byte, first_line, record)
    VALUES ($1, $2, $3, $4, $5)";

impl LogRows for SqliteBuilds {
    async fn write_rows(&self, rows: LogWriteRows<'_>) -> Result<bool> {
        let LogWriteRows { build, attempt, revision, .. } = rows;
        let mut writing = self.begin("write a log").await?;
        let log = sqlx::query(if revision == 1 { FIRST } else { NEXT }).bind(build).bind(attempt);
        if writing.execute(log.bind(revision).bind(rows.settled).bind(rows.record)).await? == 0 {
            writing.undo().await?;
            return Ok(false);
        }
        if rows.pieces_go {
            let delete = "DELETE FROM log_piece WHERE build = $1 AND attempt = $2";
            writing.execute(sqlx::query(delete).bind(build).bind(attempt)).await?;
        }
        if let Some(Piece { offset, first_line, lines, times, bytes }) = rows.piece {
            let put = sqlx::query(PIECE).bind(build).bind(attempt).bind(signed(*offset)).bind(signed(*first_line));
            writing.execute(put.bind(signed(*lines)).bind(&times[..]).bind(&bytes[..])).await?;
        }
        if let Some((Segment { offset, first_line, .. }, record)) = rows.segment {
            let put = sqlx::query(SEGMENT).bind(build).bind(attempt).bind(signed(*offset)).bind(signed(*first_line));
            writing.execute(put.bind(record)).await?;
        }
        for offset in rows.segments_go {
            let delete = "DELETE FROM log_segment WHERE build = $1 AND attempt = $2 AND from_byte = $3";
            writing.execute(sqlx::query(delete).bind(build).bind(attempt).bind(signed(*offset))).await?;
        }
        writing.commit().await?;
        Ok(true)
    }

    async fn pieces(&self, id: LogId, from: From) -> Result<Vec<Piece>> {
        let doing = "read a log";
        let (ask, value) = from.pieces();
        let ask = sqlx::query(ask).bind(signed(id.build.0)).bind(i64::from(id.attempt)).bind(value);
        let mut pieces = Vec::new();
        for row in self.rows(doing, ask).await? {
            let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned).map_err(failed(doing));
            pieces.push(Piece {
                offset: number(0)?,
                first_line: number(1)?,
                lines: number(2)?,
                times: row.try_get(3).map_err(failed(doing))?,
                bytes: row.try_get(4).map_err(failed(doing))?,
            });
        }
        Ok(pieces)
    }

    async fn delete_rows(&self, builds: &[BuildId]) -> Result<()> {
        let numbers: Vec<String> = builds.iter().map(|build| signed(build.0).to_string()).collect();
        let numbers = numbers.join(", ");
        let mut writing = self.begin("delete logs").await?;
        for table in ["log_piece", "log_segment", "log"] {
            // Numbers of ours, and nothing else: they can stand in the text.
            let delete = format!("DELETE FROM {table} WHERE build IN ({numbers})");
            writing.execute(sqlx::query(AssertSqlSafe(delete))).await?;
        }
        writing.commit().await
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::Result;
    use crate::store::builds::logs::contract::{Factory, contract};
    use crate::store::builds::{BuildsAt, Opened};

    /// A folder of its own.
    struct Folder(TempDir);

    impl Factory for Folder {
        async fn open(&self) -> Result<Opened> {
            BuildsAt::File(self.0.path().join("lab-builds.db")).open().await
        }
    }

    contract! { Some(Folder(tempfile::tempdir().unwrap())) }
}
