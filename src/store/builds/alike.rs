//! What is the same on both stores to the letter, where only the driver's types differ.
//!
//! A driver's rows, statements and transactions are types of their own, and being generic over them costs more
//! words than these methods have: so they are written once as macros, and each store takes them in.

/// The tables of logs, of a store with `begin` and `rows`.
macro_rules! log_rows {
    ($store:ty, $failed:path) => {
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

        impl LogRows for $store {
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
                    let put =
                        sqlx::query(PIECE).bind(build).bind(attempt).bind(signed(*offset)).bind(signed(*first_line));
                    writing.execute(put.bind(signed(*lines)).bind(&times[..]).bind(&bytes[..])).await?;
                }
                for offset in rows.segments_go {
                    let delete = "DELETE FROM log_segment WHERE build = $1 AND attempt = $2 AND from_byte = $3";
                    writing.execute(sqlx::query(delete).bind(build).bind(attempt).bind(signed(*offset))).await?;
                }
                if let Some((Segment { offset, first_line, .. }, record)) = rows.segment {
                    let put =
                        sqlx::query(SEGMENT).bind(build).bind(attempt).bind(signed(*offset)).bind(signed(*first_line));
                    writing.execute(put.bind(record)).await?;
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
                    let number =
                        |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned).map_err($failed(doing));
                    pieces.push(Piece {
                        offset: number(0)?,
                        first_line: number(1)?,
                        lines: number(2)?,
                        times: row.try_get(3).map_err($failed(doing))?,
                        bytes: row.try_get(4).map_err($failed(doing))?,
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
    };
}

/// The queue of what is to be indexed: methods of [`SearchTables`](super::search::SearchTables).
macro_rules! search_queue {
    ($row:ty, $failed:path) => {
        fn to_index(&self, limit: usize) -> Answer<'_, Vec<ToIndex>> {
            Box::pin(async move {
                let ask = "SELECT build, attempt, gone FROM search_queue ORDER BY build DESC, attempt DESC LIMIT $1";
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let found = self.rows(SEARCHING, sqlx::query(ask).bind(limit)).await?;
                let entry = |row: &$row| {
                    let (build, attempt, gone): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                    let attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
                    Ok(ToIndex { log: LogId { build: BuildId(build.cast_unsigned()), attempt }, gone: gone == 1 })
                };
                found.iter().map(entry).collect::<sqlx::Result<_>>().map_err($failed(SEARCHING))
            })
        }

        fn to_index_count(&self) -> Answer<'_, u64> {
            Box::pin(async move {
                let found = self.rows(SEARCHING, sqlx::query("SELECT count(*) FROM search_queue")).await?;
                let count = found.first().map_or(Ok(0), |row| row.try_get(0)).map_err($failed(SEARCHING))?;
                Ok(i64::cast_unsigned(count))
            })
        }

        fn indexed(&self, entry: ToIndex) -> Answer<'_, ()> {
            Box::pin(async move {
                let mut writing = self.begin(INDEXING).await?;
                let done = "DELETE FROM search_queue WHERE build = $1 AND attempt = $2 AND gone = $3";
                let done = sqlx::query(done).bind(signed(entry.log.build.0)).bind(i64::from(entry.log.attempt));
                writing.execute(done.bind(i64::from(entry.gone))).await?;
                writing.commit().await
            })
        }
    };
}

pub(super) use {log_rows, search_queue};
