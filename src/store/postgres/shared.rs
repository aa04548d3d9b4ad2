//! A broker among others on one database: sees who leads, is seen, and takes the lead.
//!
//! ```text
//!   loop {
//!       before = now; seen = shared.observe(); after = now
//!       match watch.saw(before, after, &seen) {
//!           Wait { ms }              => wait
//!           TakeOver { epoch, beat } => match shared.take(epoch, beat) {
//!               Lead(store) => an engine runs on it until it ends
//!               Passed      => another was faster: go on watching
//!           }
//!       }
//!   }
//! ```
//!
//! A new [`Watch`] is begun whenever this process begins to stand by. Observing goes on beside leading
//! where somebody wants to know who stands by. After an error everything may be called again: the next
//! call connects anew.

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};

use super::connect::{self, Limits, Target, Who, check_server};
use super::lead::{self, CLOCK, Last, Lead};
use super::schema::{VERSIONS, Versions};
use super::watch::{Seen, Watch};
use super::{Postgres, Result, failed};
use crate::clock::{BootTime, boot_now};
use crate::store::StoreError;

/// For how many terms a broker that noted itself counts as there.
const NOTED_TERMS: u64 = 3;
/// How long a broker's note is kept for people to see, milliseconds.
const NOTES_KEPT_MS: i64 = 86_400_000;
/// The shortest term: below it a busy disk or a slow network would cost the lead, milliseconds.
const TERM_MS_MIN: u64 = 200;

/// This process among the brokers of a database.
#[derive(Debug)]
pub struct Shared {
    versions: Versions,
    target: Target,
    limits: Limits,
    term_ms: u64,
    instance: Arc<str>,
    url: String,
    /// `None` until the next call, after one failed.
    connection: Option<PgConnection>,
    /// When this broker was last noted.
    noted: Option<BootTime>,
}

/// What came of taking the lead.
#[derive(Debug)]
pub enum Taken {
    /// This process leads: the store is its own to write, until it is deposed or gives it up.
    Lead(Box<Postgres>),
    /// The row has changed since it was seen: another was faster, or the leader is there after all.
    Passed,
}

/// A broker that stands by, as it noted itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Which process it is.
    pub instance: String,
    /// Where it says that it is reached.
    pub url: String,
    /// How long ago it noted itself, by the database's clock, milliseconds.
    pub noted_ms_ago: u64,
}

impl Shared {
    /// Connects to the database at `url` (`postgres://...`), makes the tables where there are none, and
    /// notes this broker there: `instance` is drawn at random by each process, `advertise` is where
    /// clients reach it. All brokers of a database must be told the same `term_ms`.
    ///
    /// # Errors
    /// [`StoreError::TooNew`] when a newer version wrote it; [`StoreError::Failed`] when the URL is no
    /// such URL, the server is not there, refuses the password, has no such database, is too old or
    /// cannot be written to, or when another program's tables are there. No error shows the password.
    pub async fn connect(url: &str, instance: &str, advertise: &str, term_ms: u64) -> Result<Self> {
        Self::connect_as(VERSIONS, Target::parse(url)?, (instance, advertise), term_ms).await
    }

    pub(super) async fn connect_as(
        versions: Versions,
        target: Target,
        (instance, advertise): (&str, &str),
        term_ms: u64,
    ) -> Result<Self> {
        if term_ms < TERM_MS_MIN {
            let what = format!("a term of {term_ms} ms is too short: at least {TERM_MS_MIN} ms are needed");
            return Err(failed("share the store")(what));
        }
        let mut shared = Self {
            versions,
            target,
            limits: Limits::of_term(term_ms),
            term_ms,
            instance: instance.into(),
            url: advertise.to_owned(),
            connection: None,
            noted: None,
        };
        let limits = shared.limits;
        let connection = shared.connection().await?;
        check_server(connection, limits).await?;
        versions.prepare(connection, limits).await?;
        shared.note().await?;
        Ok(shared)
    }

    /// A watch for this database's term, to be fed with what [`Shared::observe`] answers.
    #[must_use]
    pub const fn watch(&self) -> Watch {
        Watch::new(self.term_ms)
    }

    /// What people call the store: its URL without the password.
    #[must_use]
    pub fn name(&self) -> &str {
        self.target.name()
    }

    /// Reads who leads, by a read that begins after the call; notes this broker now and then.
    ///
    /// # Errors
    /// When the database does not answer within a term.
    pub async fn observe(&mut self) -> Result<Seen> {
        let limits = self.limits;
        let connection = self.connection().await?;
        let row = match lead::lab_row(connection, limits).await {
            Ok(row) => row,
            Err(error) => {
                self.connection = None;
                return Err(error);
            }
        };
        if self.noted.is_none_or(|noted| boot_now().since(noted) >= self.term_ms / 2) {
            // A hint to others: that it failed now is no reason not to tell what was read.
            let _ = self.note().await;
        }
        let (epoch, beat, batch) = (row.epoch, row.beat, row.last.batch);
        Ok(Seen { epoch, beat, batch, leader: row.leader, url: row.url })
    }

    /// Takes the lead, if the row still has this epoch and beat, and brings the tables up to this
    /// version.
    ///
    /// # Errors
    /// When the database refuses or does not answer, in which case the lead may have been taken all the
    /// same: nobody leads then, and after a term it can be taken again.
    pub async fn take(&mut self, epoch: u64, beat: u64) -> Result<Taken> {
        let mut writer = self.target.connect(Who::Leader, self.limits).await?;
        match self.take_by(&mut writer, epoch, beat).await {
            Ok(Some((lead, last))) => {
                let store = Postgres::led(self.target.clone(), self.term_ms, writer, lead, last).await?;
                Ok(Taken::Lead(Box::new(store)))
            }
            Ok(None) => {
                connect::hang_up(writer);
                Ok(Taken::Passed)
            }
            Err(error) => {
                if waited_for_lock(&error) {
                    self.clear_the_way().await;
                }
                Err(error)
            }
        }
    }

    /// The brokers that stand by: noted lately, by the database's clock, and neither this one nor the
    /// one that leads. A hint, as any of them may be gone by now.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn standbys(&mut self) -> Result<Vec<Broker>> {
        let ask = format!(
            "SELECT instance, url, greatest(0, {CLOCK} - noted) FROM broker
            WHERE noted > {CLOCK} - $1 AND noted <= {CLOCK} + $3 AND instance <> $2
              AND NOT EXISTS (SELECT 1 FROM lab WHERE lab.leader = instance) ORDER BY instance"
        );
        let lately = self.term_ms.saturating_mul(NOTED_TERMS).cast_signed();
        let (limits, instance) = (self.limits, self.instance.clone());
        // Notes from before the database's clock was set back say nothing; a broker that is there notes
        // itself again within a term.
        let ask = sqlx::query_as(sqlx::AssertSqlSafe(ask)).bind(lately).bind(instance).bind(self.term_ms.cast_signed());
        let connection = self.connection().await?;
        let found = limits.of_write("see who stands by", ask.fetch_all(connection)).await;
        let found: Vec<(String, String, i64)> = found.inspect_err(|_| self.connection = None)?;
        let broker = |(instance, url, ago): (_, _, i64)| Broker { instance, url, noted_ms_ago: ago.cast_unsigned() };
        Ok(found.into_iter().map(broker).collect())
    }

    /// Takes this broker's note away: it stands by no more. Nothing follows from a failure, as notes
    /// are believed for a few terms only.
    pub async fn leave(&mut self) {
        let (limits, instance) = (self.limits, self.instance.clone());
        let forget = sqlx::query("DELETE FROM broker WHERE instance = $1").bind(instance);
        if let Ok(connection) = self.connection().await {
            let _ = limits.of_write("leave the others", forget.execute(connection)).await;
        }
        if let Some(connection) = self.connection.take() {
            connect::hang_up(connection);
        }
        self.noted = None;
    }

    async fn connection(&mut self) -> Result<&mut PgConnection> {
        if self.connection.is_none() {
            self.connection = Some(self.target.connect(Who::Standby, self.limits).await?);
        }
        self.connection.as_mut().ok_or_else(|| failed("connect to the store's database")("it is not connected"))
    }

    /// Tells the others that this broker is there.
    async fn note(&mut self) -> Result<()> {
        let note = format!(
            "WITH old AS (DELETE FROM broker WHERE noted < {CLOCK} - $3 AND instance <> $1)
            INSERT INTO broker (instance, url, noted) VALUES ($1, $2, {CLOCK})
            ON CONFLICT (instance) DO UPDATE SET url = excluded.url, noted = excluded.noted"
        );
        let note = sqlx::query(sqlx::AssertSqlSafe(note));
        let note = note.bind(self.instance.clone()).bind(self.url.clone()).bind(NOTES_KEPT_MS);
        let limits = self.limits;
        let connection = self.connection().await?;
        let noted = limits.of_write("note this broker", note.execute(connection)).await;
        noted.inspect_err(|_| self.connection = None)?;
        self.noted = Some(boot_now());
        Ok(())
    }

    async fn take_by(&self, writer: &mut PgConnection, epoch: u64, beat: u64) -> Result<Option<(Lead, Last)>> {
        let doing = "take the lead";
        let limits = self.limits;
        let me = (&self.instance, self.url.as_str());
        let found = self.versions.found(writer, limits).await?;
        if found == self.versions.newest() {
            return Lead::take(writer, limits, me, (epoch, beat)).await;
        }
        let mut transaction = limits.of_write(doing, writer.begin()).await?;
        let Some(led) = Lead::take(&mut transaction, limits, me, (epoch, beat)).await? else {
            return Ok(None);
        };
        let doing = "bring the store up to this version";
        limits.of_read(doing, self.versions.apply(&mut transaction, found)).await?;
        limits.of_read(doing, transaction.commit()).await?;
        Ok(Some(led))
    }

    /// Ends a leader's connection that keeps the row locked though its term is over: it stood still
    /// between two messages of one write, where none of the database's own limits reaches it. It
    /// could not have written any more. Best effort: where the database knows no such thing, its
    /// limits on dead connections do the same later.
    async fn clear_the_way(&mut self) {
        const CLEAR: &str = "SELECT pg_terminate_backend(lock.pid) FROM pg_locks AS lock
            JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
            WHERE lock.relation = 'lab'::regclass AND lock.mode = 'RowExclusiveLock' AND lock.granted
              AND activity.usename = current_user AND activity.application_name = $1
              AND activity.query_start < clock_timestamp() - $2 * INTERVAL '1 millisecond'";
        let (limits, term) = (self.limits, self.term_ms.cast_signed());
        let clear = sqlx::query(CLEAR).bind(Who::Leader.name()).bind(term);
        if let Ok(connection) = self.connection().await {
            let _ = limits.of_write("end a stuck connection", clear.execute(connection)).await;
        }
    }
}

/// Whether the lab's row was kept locked by somebody for too long.
fn waited_for_lock(error: &StoreError) -> bool {
    let StoreError::Failed { source, .. } = error else { return false };
    let code = source.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    // A statement that is given up while it waits says 57014 where both limits are alike.
    code.and_then(|error| error.code().map(|code| code == "55P03" || code == "57014")).unwrap_or(false)
}
