//! The store that several brokers share: a PostgreSQL database, of which one broker at a time writes.
//!
//! ```text
//!   engine ──commit──▶ writer ──one statement──▶ lab (epoch, batch, beat), journal, tables
//!   engine ──confirm─▶ a connection of its own ──▶ lab
//!   server ──Reader──▶ at most four connections that cannot write
//!   standby ─Shared──▶ lab, and `broker`
//! ```
//!
//! Taking the lead is [`Shared`]'s business, which answers a [`Postgres`] to whom it falls. From then on
//! every write is conditional on the lab's row, so a broker that leads no more writes nothing, however
//! late it notices. No clock decides: see [`Watch`] for when a lead may be taken.
//!
//! Once a write has failed, whether it is there is unknown, and it may still be under way on its old
//! connection: nothing more is written before [`Store::reopen`] has raised the epoch, after which it is
//! there or never will be.

pub(in crate::store) mod connect;
pub(in crate::store) mod lead;
mod prune;
mod read;
mod schema;
mod shared;
mod snapshot;
mod target;
mod watch;
mod write;

use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use tokio::time::sleep;

use super::builds::{BuildsAt, Led};
use super::{Sharing, Store, StoreError};
use crate::core::tables::{Batch, Tables};
use crate::core::types::LabTime;
use connect::{Limits, Target, Who};
use lead::{Last, Lead};
pub use read::PostgresReader;
pub use shared::{Broker, Shared, Taken};
pub use snapshot::PostgresSnapshot;
pub use target::PostgresTarget;
pub use watch::{Seen, Step, Watch, margin_ms};
use write::Texts;

type Result<T> = std::result::Result<T, StoreError>;

/// What people call the store at this URL: the URL without its password.
///
/// # Errors
/// When it is no such URL; nothing of it is shown.
pub fn name_of(url: &str) -> Result<String> {
    Target::parse(url).map(|target| target.name().to_owned())
}

/// Whether both URLs are of one store, as far as they tell.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    Target::parse(one).is_ok_and(|one| Target::parse(other).is_ok_and(|other| one.is(&other)))
}

/// Beats in a term, of which all but one may be late.
const BEATS_PER_TERM: u64 = 4;

/// The store of the broker that leads.
#[derive(Debug)]
pub struct Postgres {
    target: Target,
    limits: Limits,
    term_ms: u64,
    /// `None` while it could not be opened again.
    writer: Option<PgConnection>,
    readers: PostgresReader,
    texts: Texts,
    lead: Lead,
    last: Last,
    /// Set while a write is under way and for good once one has failed.
    in_doubt: bool,
    sweep: prune::Sweep,
}

impl Postgres {
    /// The store of whoever has taken the lead, by the connection that took it.
    async fn led(target: Target, term_ms: u64, mut writer: PgConnection, lead: Lead, last: Last) -> Result<Self> {
        let limits = Limits::of_term(term_ms);
        check_journal(&mut writer, limits, last).await?;
        let readers = PostgresReader::new(&target, limits, &lead);
        Ok(Self {
            target,
            limits,
            term_ms,
            writer: Some(writer),
            readers,
            texts: Texts::default(),
            lead,
            last,
            in_doubt: false,
            sweep: prune::Sweep::default(),
        })
    }

    /// The connection for a write, which the caller must declare settled once it has succeeded.
    fn begin_write(&mut self, doing: &'static str) -> Result<&mut PgConnection> {
        if self.in_doubt {
            return Err(failed(doing)("an earlier write failed, and the store was not opened again since"));
        }
        self.in_doubt = true;
        self.writer.as_mut().ok_or_else(|| failed(doing)("the store is not open"))
    }
}

impl Store for Postgres {
    type Reader = PostgresReader;

    async fn load(&mut self) -> Result<Tables> {
        let lead = self.lead.clone();
        let mut connection = self.target.connect(Who::Loader, self.limits).await?;
        let loaded = {
            let mut loading = std::pin::pin!(read::snapshot(&mut connection, self.limits, &lead));
            // A large lab takes longer than a term to read: others are told meanwhile who leads.
            loop {
                tokio::select! {
                    biased;
                    loaded = &mut loading => break loaded,
                    () = sleep(Duration::from_millis(self.term_ms / BEATS_PER_TERM)) => {}
                }
                if !self.in_doubt {
                    self.beat().await?;
                }
            }
        };
        connect::hang_up(connection);
        loaded
    }

    async fn commit(&mut self, batch: &Batch) -> Result<()> {
        let doing = "commit a batch to the store";
        if batch.number != self.last.batch + 1 {
            return Err(StoreError::OutOfOrder { last: self.last.batch, offered: batch.number });
        }
        if batch.first_event != self.last.event + 1 {
            let (offered, last) = (batch.first_event, self.last.event);
            return Err(StoreError::Inconsistent { what: format!("event {offered} was offered after event {last}") });
        }
        let query = self.texts.commit(batch, &self.lead).map_err(failed("write a batch as JSON"))?;
        let limits = self.limits;
        let writer = self.begin_write(doing)?;
        if limits.of_write(doing, query.fetch_one(&mut *writer)).await? != 1 {
            let Some(writer) = &mut self.writer else { return Err(failed(doing)("the store is not open")) };
            return Err(self.lead.why(writer, limits, Some(batch.number)).await);
        }
        self.in_doubt = false;
        self.last = Last { batch: batch.number, event: self.last.event + batch.events.len() as u64 };
        Ok(())
    }

    async fn reopen(&mut self) -> Result<u64> {
        self.in_doubt = true;
        if let Some(writer) = self.writer.take() {
            connect::hang_up(writer);
        }
        // Questions wait for the new connections from here.
        let mut open = self.readers.close().await;
        let mut writer = self.target.connect(Who::Leader, self.limits).await?;
        let last = self.lead.renew(&mut writer, self.limits).await?;
        check_journal(&mut writer, self.limits, last).await?;
        *open = read::Open::new(&self.target, self.limits, &self.lead);
        self.writer = Some(writer);
        self.last = last;
        self.in_doubt = false;
        Ok(last.batch)
    }

    async fn prune(&mut self, before: LabTime) -> Result<bool> {
        let (target, limits, lead) = (self.target.clone(), self.limits, self.lead.clone());
        let mut sweep = std::mem::take(&mut self.sweep);
        let writer = self.begin_write("prune the store")?;
        let more = prune::Piece { target, limits, lead, before }.prune(writer, &mut sweep).await?;
        self.sweep = sweep;
        self.in_doubt = false;
        Ok(more)
    }

    fn sharing(&self) -> Option<Sharing> {
        Some(Sharing { term_ms: self.term_ms, beat_ms: (self.term_ms / BEATS_PER_TERM).max(1) })
    }

    async fn beat(&mut self) -> Result<()> {
        let (limits, lead) = (self.limits, self.lead.clone());
        let writer = self.begin_write("beat")?;
        lead.beat(writer, limits).await?;
        self.in_doubt = false;
        Ok(())
    }

    /// The writing connection stays as it is, and nothing is written on it any more.
    async fn give_up(&mut self) -> Result<()> {
        let (limits, lead) = (self.limits, self.lead.clone());
        let writer = self.begin_write("give the lead up")?;
        lead.give_up(writer, limits).await
    }

    async fn passed_ms(&mut self) -> Result<Option<u64>> {
        let doing = "ask the database's clock";
        let writer = self.writer.as_mut().ok_or_else(|| failed(doing)("the store is not open"))?;
        // Where no batch was ever written there is nothing to count from.
        let text = format!("SELECT CASE WHEN batch = 0 THEN 0 ELSE greatest(0, {} - stamp) END FROM lab", lead::CLOCK);
        let ask = sqlx::query_scalar(sqlx::AssertSqlSafe(text));
        let passed: i64 = self.limits.of_write(doing, ask.fetch_one(writer)).await?;
        Ok(Some(passed.cast_unsigned()))
    }

    fn reader(&self) -> PostgresReader {
        self.readers.clone()
    }

    fn builds(&self) -> BuildsAt {
        BuildsAt::Database(Box::new(Led::new(self.target.clone(), self.lead.clone())))
    }

    fn name(&self) -> String {
        self.target.name().to_owned()
    }
}

/// Wraps whatever the driver or the system said.
pub(in crate::store) fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    doing: &'static str,
) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Failed { doing, source: source.into() }
}

/// A column of numbers, whose sign means nothing.
fn number(row: &PgRow, index: usize) -> Result<u64> {
    row.try_get(index).map(i64::cast_unsigned).map_err(failed("read a column of the store"))
}

/// Checks where the books are against the journal's end.
async fn check_journal(connection: &mut PgConnection, limits: Limits, last: Last) -> Result<()> {
    let ask = sqlx::query_scalar("SELECT max(event) FROM journal");
    let found: Option<i64> = limits.of_write("read the store's last batch", ask.fetch_one(connection)).await?;
    match found.map(i64::cast_unsigned) {
        Some(found) if found != last.event => {
            let what = format!("its journal ends with event {found}, its row says {}", last.event);
            Err(StoreError::Inconsistent { what })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
