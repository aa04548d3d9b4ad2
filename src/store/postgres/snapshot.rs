//! The whole database as of one moment, read beside whoever writes to it; and kept still where it is
//! to be moved.
//!
//! Reading is one transaction that sees one moment: it needs no lead, holds nobody up, and keeps the
//! database from cleaning up for as long as it lasts. A store that is moved has its lab's row locked
//! beside that: every write of a broker begins with that row, and so does taking the lead.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tokio::time::sleep;

use super::connect::{self, Limits, Target, Who};
use super::lead::CLOCK;
use super::schema::VERSIONS;
use super::{Result, failed};
use crate::clock::boot_now;
use crate::store::StoreError;
use crate::store::whole::{Columns, Whole};

const READING: &str = "read the store";
const LIMITS: Limits = Limits::UNHURRIED;
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
}

impl Whole for PostgresSnapshot {
    type Row = PgRow;

    // Each part is bounded, so that each is a short walk along its key.
    const LAST_OF_PIECE: &'static str = "SELECT max(lease) FROM (
        (SELECT lease FROM lease WHERE lease > $1 ORDER BY lease LIMIT $2)
        UNION ALL (SELECT lease FROM lease_end WHERE lease > $1 ORDER BY lease LIMIT $2)
        UNION ALL (SELECT lease FROM held WHERE lease > $1 ORDER BY lease LIMIT $2)
        ORDER BY lease LIMIT $2) AS piece";
    const REQUESTS: &'static str = "SELECT request.session, request.request, request.body_hash, request.ended
        FROM request JOIN session USING (session)
        WHERE request.request > session.forgotten OR request.row > session.forgotten_row ORDER BY request.row";

    fn store(&self) -> String {
        self.name.clone()
    }

    /// One row after another: how long all of them take is no matter.
    async fn all<T: Send>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&PgRow) -> Result<T> + Send,
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

    async fn end(self) -> Result<()> {
        connect::hang_up(self.connection);
        match self.still {
            Some(still) => still.end().await,
            None => Ok(()),
        }
    }
}

impl Columns for PgRow {
    fn signed(&self, index: usize) -> Result<Option<i64>> {
        column(self, index)
    }

    fn text(&self, index: usize) -> Result<Option<String>> {
        column(self, index)
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
