//! The whole database as of one moment, read beside whoever writes to it; and kept still where it is
//! to be moved.
//!
//! Reading is one transaction that sees one moment: it needs no lead, holds nobody up, and keeps the
//! database from cleaning up for as long as it lasts. A store that is moved has its lab's row locked
//! beside that: every write of a broker begins with that row, and so does taking the lead.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::time::sleep;

use super::connect::{self, Limits, Target, Who};
use super::lead::CLOCK;
use super::schema::VERSIONS;
use super::{Result, failed, number};
use crate::clock::boot_now;
use crate::core::tables::LabRecord;
use crate::core::types::{ClaimId, LabTime, LeaseId, ResourceId, SessionId};
use crate::store::StoreError;
use crate::store::archive::{
    CheckpointRow, EndRow, Head, JournalRow, LeaseRow, Leases, PIECE, Record, Snapshot, Table,
};
use crate::store::names::Names;

const READING: &str = "read the store";
const LIMITS: Limits = Limits::UNHURRIED;
/// Leases of one era stand together in the history of resources; pieces end where eras do.
const ERA_LAST: u64 = 1_023;
/// For how long a store whose leader did not say goodbye is watched for signs of it, milliseconds: a
/// leader writes a beat every quarter of its term, and the longest term is a minute.
const BEATS_WATCHED_MS: u64 = 16_000;
/// The same for brokers that stood by, from when they noted themselves last: they do it again after five
/// eighths of a term at the latest.
const NOTES_WATCHED_MS: u64 = 40_000;
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Everything in a database, as of when it was opened.
#[derive(Debug)]
pub struct PostgresSnapshot {
    name: String,
    pub(super) connection: PgConnection,
    /// Where nobody may write meanwhile.
    still: Option<Still>,
}

impl PostgresSnapshot {
    /// Opens the store at `url` to read it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] where there is none, [`StoreError::TooNew`] and [`StoreError::TooOld`]
    /// where another version wrote it; another when the database cannot be reached.
    pub async fn open(url: &str) -> Result<Self> {
        let target = Target::parse(url)?;
        Self::begin(&target, None).await
    }

    /// Opens a store that no broker uses, and keeps brokers off it until it is closed. Where brokers
    /// did not say goodbye it is watched for a while first; `watches` is told for how many milliseconds.
    ///
    /// # Errors
    /// As [`Self::open`]; [`StoreError::InUse`] while a broker is there. One that comes meanwhile waits,
    /// and would take up what is being moved away: closing tells of it.
    pub async fn offline(url: &str, watches: impl FnOnce(u64) + Send) -> Result<Self> {
        let target = Target::parse(url)?;
        let mut connection = target.connect(Who::Mover, LIMITS).await?;
        is_current(&mut connection, &target).await?;
        let begun = Signs::read(&mut connection).await?;
        let watched_ms = begun.worth_watching_ms();
        if watched_ms > 0 {
            watches(watched_ms);
        }
        let from = boot_now();
        while boot_now().since(from) < watched_ms {
            sleep(LOOK_EVERY).await;
            begun.unchanged(&Signs::read(&mut connection).await?)?;
        }
        execute(&mut connection, "BEGIN").await?;
        execute(&mut connection, "SELECT one FROM lab FOR UPDATE").await?;
        let mut still = Still { connection, begun };
        // Nobody has come in before the lock was had, and nobody can now.
        still.check().await?;
        Self::begin(&target, Some(still)).await
    }

    async fn begin(target: &Target, still: Option<Still>) -> Result<Self> {
        let mut connection = target.connect(Who::Mover, LIMITS).await?;
        is_current(&mut connection, target).await?;
        execute(&mut connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // The first read fixes the moment.
        execute(&mut connection, "SELECT batch FROM lab").await?;
        Ok(Self { name: target.name().to_owned(), connection, still })
    }

    /// What it reads, where this process is writing it.
    pub(super) const fn of(name: String, connection: PgConnection) -> Self {
        Self { name, connection, still: None }
    }

    /// The rows of a question, one after another: how long all of them take is no matter.
    async fn all<T>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&PgRow) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut query = sqlx::query(ask);
        for number in numbers {
            query = query.bind(i64::try_from(*number).unwrap_or(i64::MAX));
        }
        let mut rows = query.fetch(&mut self.connection);
        let mut found = Vec::new();
        while let Some(row) = LIMITS.of_read(READING, rows.try_next()).await? {
            found.push(read(&row)?);
        }
        Ok(found)
    }

    /// What is stored of the leases after one and up to another.
    async fn between(&mut self, after: u64, last: u64) -> Result<BTreeMap<u64, LeaseRow>> {
        const RECORDS: &str = "SELECT lease, record FROM lease WHERE lease > $1 AND lease <= $2";
        const ENDS: &str = "SELECT lease, at, outcome, ended FROM lease_end WHERE lease > $1 AND lease <= $2";
        const HELD: &str = "SELECT lease FROM held WHERE lease > $1 AND lease <= $2";
        let mut found: BTreeMap<u64, LeaseRow> = BTreeMap::new();
        let range = [after, last];
        for (lease, record) in self.all(RECORDS, &range, |row| Ok((number(row, 0)?, text(row, 1)?))).await? {
            found.entry(lease).or_default().record = Some(record);
        }
        let end = |row: &PgRow| {
            Ok((number(row, 0)?, EndRow { at: number(row, 1)?, outcome: column(row, 2)?, ended: text(row, 3)? }))
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

    async fn requests(&mut self) -> Result<Vec<Record>> {
        // The table is a log: of two rows for one request the later is true.
        const ASK: &str = "SELECT request.session, request.request, request.body_hash, request.ended
            FROM request JOIN session USING (session)
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

impl Snapshot for PostgresSnapshot {
    fn name(&self) -> String {
        self.name.clone()
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
            Table::Resource => "SELECT resource::text, record FROM resource",
            Table::Used => "SELECT resource::text, last_used::text FROM resource_used",
            Table::Remembered => "SELECT name, marks FROM remembered",
            Table::Session => "SELECT session::text, record FROM session",
            Table::Request => return self.requests().await,
            Table::Claim => "SELECT claim::text, record FROM claim",
            Table::Keyed => "SELECT key, record FROM keyed",
            Table::Arrival => "SELECT claim::text, record FROM arrival",
        };
        self.all(ask, &[], |row| Ok(Record { key: text(row, 0)?, text: text(row, 1)? })).await
    }

    async fn journal(&mut self, after: u64) -> Result<Vec<JournalRow>> {
        const ASK: &str = "SELECT event, batch, at, wall_ms, kind, lease, claim, session, resource, body \
            FROM journal WHERE event > $1 ORDER BY event LIMIT $2";
        let row = |row: &PgRow| {
            let named = |index| Ok(column::<Option<i64>>(row, index)?.map(i64::cast_unsigned));
            Ok(JournalRow {
                number: number(row, 0)?,
                batch: number(row, 1)?,
                at: number(row, 2)?,
                wall_ms: column(row, 3)?,
                kind: text(row, 4)?,
                names: Names {
                    lease: named(5)?.map(LeaseId),
                    claim: named(6)?.map(ClaimId),
                    session: named(7)?.map(SessionId),
                    resource: named(8)?.map(ResourceId),
                },
                body: text(row, 9)?,
            })
        };
        self.all(ASK, &[after, PIECE as u64], row).await
    }

    async fn leases(&mut self, after: u64) -> Result<Leases> {
        const LAST_OF_PIECE: &str = "SELECT max(lease) FROM (
            (SELECT lease FROM lease WHERE lease > $1 ORDER BY lease LIMIT $2)
            UNION ALL (SELECT lease FROM lease_end WHERE lease > $1 ORDER BY lease LIMIT $2)
            UNION ALL (SELECT lease FROM held WHERE lease > $1 ORDER BY lease LIMIT $2)
            ORDER BY lease LIMIT $2) AS piece";
        const RESOURCES: &str = "SELECT lease, resource FROM lease_resource WHERE era >= $1 AND era <= $2";
        let last: Vec<Option<i64>> = self.all(LAST_OF_PIECE, &[after, PIECE as u64], |row| column(row, 0)).await?;
        let next = last.into_iter().flatten().next().map(|last| last.cast_unsigned() | ERA_LAST);
        // After the last lease there may be names of leases that are not there.
        let last = next.unwrap_or(u64::MAX);
        let mut found = self.between(after, last).await?;
        let eras = [(after + 1) >> 10, last >> 10];
        for (lease, resource) in self.all(RESOURCES, &eras, |row| Ok((number(row, 0)?, text(row, 1)?))).await? {
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
            Ok(CheckpointRow { event, batch, at, tables: text(row, 3)? })
        });
        Ok(rows.await?.into_iter().next())
    }

    async fn close(self) -> Result<()> {
        connect::hang_up(self.connection);
        match self.still {
            Some(still) => still.end().await,
            None => Ok(()),
        }
    }
}

/// The lab's row, locked: nobody takes the lead, and nobody who has it writes.
#[derive(Debug)]
struct Still {
    connection: PgConnection,
    /// What told of brokers before.
    begun: Signs,
}

impl Still {
    async fn check(&mut self) -> Result<()> {
        self.begun.unchanged(&Signs::read(&mut self.connection).await?)
    }

    /// Lets brokers in again.
    async fn end(mut self) -> Result<()> {
        let nobody = self.check().await;
        // A lock that was lost on the way kept nobody off: that is found here at the latest.
        let held = execute(&mut self.connection, "ROLLBACK").await;
        connect::hang_up(self.connection);
        nobody.and(held)
    }
}

/// What tells of brokers.
#[derive(Clone, Debug)]
struct Signs {
    epoch: i64,
    beat: i64,
    /// Nobody gave the lead up.
    led: bool,
    url: Option<String>,
    /// When a broker noted itself last, and where it is reached.
    noted: Option<i64>,
    noted_url: Option<String>,
    /// How long ago one did that does not lead, by the database's clock, milliseconds.
    stood_by_ago: Option<i64>,
}

impl Signs {
    async fn read(connection: &mut PgConnection) -> Result<Self> {
        let ask = format!(
            "SELECT epoch, beat, leader IS NOT NULL, lab.url, note.noted, note.url,
                (SELECT {CLOCK} - max(noted) FROM broker WHERE instance IS DISTINCT FROM lab.leader)
            FROM lab LEFT JOIN LATERAL (SELECT noted, url FROM broker ORDER BY noted DESC LIMIT 1) AS note ON true"
        );
        let ask = sqlx::query(AssertSqlSafe(ask));
        let row = LIMITS.of_read("see who uses the store", ask.fetch_one(connection)).await?;
        Ok(Self {
            epoch: column(&row, 0)?,
            beat: column(&row, 1)?,
            led: column(&row, 2)?,
            url: column(&row, 3)?,
            noted: column(&row, 4)?,
            noted_url: column(&row, 5)?,
            stood_by_ago: column(&row, 6)?,
        })
    }

    /// How long it takes until a broker that is there has shown itself, milliseconds.
    fn worth_watching_ms(&self) -> u64 {
        let beats = if self.led { BEATS_WATCHED_MS } else { 0 };
        // The database's clock may have gone back since.
        let ago = self.stood_by_ago.map(|ago| u64::try_from(ago).unwrap_or(0));
        beats.max(ago.map_or(0, |ago| NOTES_WATCHED_MS.saturating_sub(ago)))
    }

    fn unchanged(&self, later: &Self) -> Result<()> {
        if (self.epoch, self.beat) != (later.epoch, later.beat) {
            return Err(StoreError::InUse { by: later.url.clone() });
        }
        // A note that a broker takes back when it leaves is none that it makes.
        if later.noted > self.noted {
            return Err(StoreError::InUse { by: later.noted_url.clone() });
        }
        Ok(())
    }
}

/// Refuses a database without a store, or with one of another version.
async fn is_current(connection: &mut PgConnection, target: &Target) -> Result<()> {
    let (found, known) = (VERSIONS.found(connection, LIMITS).await?, VERSIONS.newest());
    match found {
        0 => Err(StoreError::Missing { name: target.name().to_owned() }),
        found if found < known => Err(StoreError::TooOld { found, known }),
        _ => Ok(()),
    }
}

pub(super) async fn execute(connection: &mut PgConnection, statement: &'static str) -> Result<()> {
    let done = sqlx::raw_sql(statement).execute(connection);
    LIMITS.of_read(READING, done).await.map(drop)
}

fn column<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    index: usize,
) -> Result<T> {
    row.try_get(index).map_err(failed("read a column of the store"))
}

fn text(row: &PgRow, index: usize) -> Result<String> {
    column(row, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After a planned stop of all brokers.
    const LEFT: Signs =
        Signs { epoch: 4, beat: 90, led: false, url: None, noted: None, noted_url: None, stood_by_ago: None };

    #[test]
    fn whoever_did_not_say_goodbye_is_watched_for_until_it_would_have_shown_itself() {
        let watched = |led, stood_by_ago| Signs { led, stood_by_ago, ..LEFT }.worth_watching_ms();
        assert_eq!((watched(false, None), watched(true, None)), (0, BEATS_WATCHED_MS));
        assert_eq!((watched(false, Some(3_000)), watched(true, Some(3_000))), (37_000, 37_000));
        assert_eq!((watched(false, Some(86_000_000)), watched(true, Some(39_000))), (0, BEATS_WATCHED_MS));
        assert_eq!(watched(false, Some(-5_000)), NOTES_WATCHED_MS, "the clock went back");
    }

    #[test]
    fn beats_takeovers_and_notes_are_signs_and_leaving_is_none() {
        let url = |url: &str| Some(url.to_owned());
        let begun = Signs { led: true, url: url("ws://one"), noted: Some(7), noted_url: url("ws://two"), ..LEFT };
        assert!(begun.unchanged(&begun).is_ok());
        assert!(begun.unchanged(&Signs { noted: None, noted_url: None, ..begun.clone() }).is_ok());
        for (later, by) in [
            (Signs { beat: 91, ..begun.clone() }, "ws://one"),
            (Signs { epoch: 5, url: url("ws://two"), ..begun.clone() }, "ws://two"),
            (Signs { noted: Some(8), ..begun.clone() }, "ws://two"),
        ] {
            let said = begun.unchanged(&later);
            assert!(matches!(&said, Err(StoreError::InUse { by: Some(url) }) if url == by), "{later:?}: {said:?}");
        }
        assert!(LEFT.unchanged(&Signs { noted: Some(1), noted_url: url("ws://new"), ..LEFT }).is_err());
    }
}
