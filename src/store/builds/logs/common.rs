//! What both stores' tables of logs have in common: the questions that answer one column of text.

use serde::de::DeserializeOwned;

use super::{LogRecord, LogTables, LogWrite, Piece, Segment};
use crate::builds::build::BuildId;
use crate::builds::log::LogId;
use crate::store::StoreError;
use crate::store::builds::Answer;
use crate::store::builds::tables::{Ask, Tables, signed};

type Result<T> = std::result::Result<T, StoreError>;

/// Builds whose logs one question names.
const BUILDS_MAX: usize = 500;

/// Which pieces, from the last of its kind on.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::builds) enum From {
    /// That begins at this byte or before.
    Byte(u64),
    /// Whose first line is this one or before.
    Line(u64),
}

impl From {
    /// The statement and its last value; the first two are the log's.
    pub(in crate::store::builds) fn pieces(self) -> (&'static str, i64) {
        const BY_BYTE: &str = "SELECT from_byte, first_line, lines, times, bytes FROM log_piece
            WHERE build = $1 AND attempt = $2 AND from_byte >= coalesce((SELECT max(from_byte) FROM log_piece
                WHERE build = $1 AND attempt = $2 AND from_byte <= $3), 0)
            ORDER BY from_byte";
        const BY_LINE: &str = "SELECT from_byte, first_line, lines, times, bytes FROM log_piece
            WHERE build = $1 AND attempt = $2 AND from_byte >= coalesce((SELECT max(from_byte) FROM log_piece
                WHERE build = $1 AND attempt = $2 AND first_line <= $3), 0)
            ORDER BY from_byte";
        match self {
            Self::Byte(offset) => (BY_BYTE, signed(offset)),
            Self::Line(line) => (BY_LINE, signed(line)),
        }
    }
}

/// What each store does in its own way.
pub(in crate::store::builds) trait LogRows: Tables {
    /// Writes, as [`LogTables::write_log`].
    fn write_rows(&self, rows: LogWriteRows<'_>) -> impl Future<Output = Result<bool>> + Send;

    /// Pieces, in order.
    fn pieces(&self, id: LogId, from: From) -> impl Future<Output = Result<Vec<Piece>>> + Send;

    /// Deletes all rows of these builds' logs, in one transaction.
    fn delete_rows(&self, builds: &[BuildId]) -> impl Future<Output = Result<()>> + Send;
}

/// A write, with its records as they are stored.
pub(in crate::store::builds) struct LogWriteRows<'a> {
    pub build: i64,
    pub attempt: i64,
    pub revision: i64,
    pub settled: i64,
    pub record: String,
    pub piece: Option<&'a Piece>,
    pub segment: Option<(&'a Segment, String)>,
    pub pieces_go: bool,
    pub segments_go: &'a [u64],
}

impl<'a> LogWriteRows<'a> {
    fn of(write: &LogWrite<'a>) -> serde_json::Result<Self> {
        let segment = match write.segment {
            Some(segment) => Some((segment, serde_json::to_string(segment)?)),
            None => None,
        };
        Ok(Self {
            build: signed(write.id.build.0),
            attempt: i64::from(write.id.attempt),
            revision: signed(write.record.revision),
            settled: i64::from(write.record.settled),
            record: serde_json::to_string(write.record)?,
            piece: write.piece,
            segment,
            pieces_go: write.pieces_go,
            segments_go: write.segments_go,
        })
    }
}

fn of_log(text: &str, id: LogId) -> Ask {
    Ask::new(text).number(signed(id.build.0)).number(i64::from(id.attempt))
}

impl<T: LogRows> LogTables for T {
    fn write_log<'a>(&'a self, write: &'a LogWrite<'a>) -> Answer<'a, bool> {
        Box::pin(async move {
            let rows = LogWriteRows::of(write)
                .map_err(|error| StoreError::Failed { doing: "write a log's record", source: error.into() })?;
            self.write_rows(rows).await
        })
    }

    fn log(&self, id: LogId) -> Answer<'_, Option<LogRecord>> {
        Box::pin(async move {
            let ask = of_log("SELECT record FROM log WHERE build = $1 AND attempt = $2", id);
            first(&self.ask(ask).await?)
        })
    }

    fn logs_of<'a>(&'a self, builds: &'a [BuildId]) -> Answer<'a, Vec<(LogId, LogRecord)>> {
        Box::pin(async move {
            let mut found = Vec::new();
            for some in builds.chunks(BUILDS_MAX) {
                // Numbers of ours, and nothing else: they can stand in the text.
                let numbers: Vec<String> = some.iter().map(|build| signed(build.0).to_string()).collect();
                let text = format!(
                    "SELECT CAST(build AS TEXT) || ' ' || CAST(attempt AS TEXT) || ' ' || record FROM log
                     WHERE build IN ({}) ORDER BY build, attempt",
                    numbers.join(", ")
                );
                found.extend(logs(&self.ask(Ask::new(&text)).await?)?);
            }
            Ok(found)
        })
    }

    fn segments(&self, id: LogId) -> Answer<'_, Vec<Segment>> {
        Box::pin(async move {
            let text = "SELECT record FROM log_segment WHERE build = $1 AND attempt = $2 ORDER BY from_byte";
            self.ask(of_log(text, id)).await?.iter().map(|record| read(record)).collect()
        })
    }

    fn segment_at(&self, id: LogId, offset: u64) -> Answer<'_, Option<Segment>> {
        Box::pin(async move {
            let text = "SELECT record FROM log_segment WHERE build = $1 AND attempt = $2 AND from_byte <= $3
                ORDER BY from_byte DESC LIMIT 1";
            first(&self.ask(of_log(text, id).number(signed(offset))).await?)
        })
    }

    fn segment_of_line(&self, id: LogId, line: u64) -> Answer<'_, Option<Segment>> {
        Box::pin(async move {
            let text = "SELECT record FROM log_segment WHERE build = $1 AND attempt = $2 AND first_line <= $3
                ORDER BY first_line DESC, from_byte DESC LIMIT 1";
            first(&self.ask(of_log(text, id).number(signed(line))).await?)
        })
    }

    fn pieces_at(&self, id: LogId, offset: u64) -> Answer<'_, Vec<Piece>> {
        Box::pin(self.pieces(id, From::Byte(offset)))
    }

    fn pieces_of_line(&self, id: LogId, line: u64) -> Answer<'_, Vec<Piece>> {
        Box::pin(self.pieces(id, From::Line(line)))
    }

    fn unsettled_logs(&self, after: LogId, limit: usize) -> Answer<'_, Vec<(LogId, LogRecord)>> {
        Box::pin(async move {
            let text = "SELECT CAST(build AS TEXT) || ' ' || CAST(attempt AS TEXT) || ' ' || record FROM log
                WHERE settled = 0 AND (build > $1 OR (build = $1 AND attempt > $2))
                ORDER BY build, attempt LIMIT $3";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            logs(&self.ask(of_log(text, after).number(limit)).await?)
        })
    }

    fn delete_logs<'a>(&'a self, builds: &'a [BuildId]) -> Answer<'a, ()> {
        Box::pin(async move { if builds.is_empty() { Ok(()) } else { self.delete_rows(builds).await } })
    }
}

fn first<R: DeserializeOwned>(found: &[String]) -> Result<Option<R>> {
    found.first().map(|record| read(record)).transpose()
}

fn read<R: DeserializeOwned>(record: &str) -> Result<R> {
    serde_json::from_str(record).map_err(|error| StoreError::Inconsistent {
        what: format!("a record of the tables of logs cannot be read ({error})"),
    })
}

fn logs(found: &[String]) -> Result<Vec<(LogId, LogRecord)>> {
    let wrong = || StoreError::Inconsistent { what: "a row of the table `log` has no number".to_owned() };
    let one = |row: &String| {
        let mut parts = row.splitn(3, ' ');
        let build = parts.next().and_then(|text| text.parse().ok()).map(BuildId).ok_or_else(wrong)?;
        let attempt = parts.next().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        Ok((LogId { build, attempt }, read(parts.next().ok_or_else(wrong)?)?))
    };
    found.iter().map(one).collect()
}
