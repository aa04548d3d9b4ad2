//! The lab's row, and what it says of this process: that it leads, or why it writes nothing more.
//!
//! An *epoch* is what a write is conditional on, so it grows whenever an older write may still be under
//! way: at a takeover, and when a leader connects anew. A *lead* is from one takeover to the next; it is
//! known by the instance that took it and the epoch it began with, which a leader that connects anew
//! does not change. So however often a leader's own raising of the epoch was done and not heard of, it
//! finds its lead again; and it never takes another's for its own, not even a later one of its own.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};

use super::connect::Limits;
use super::{Result, failed, number};
use crate::store::StoreError;

/// The database's clock, Unix milliseconds, as a statement reads it.
pub const CLOCK: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// That this process leads.
#[derive(Clone, Debug)]
pub struct Lead {
    /// Who this process is.
    pub instance: Arc<str>,
    /// The epoch that its lead began with.
    pub began: u64,
    /// The epoch that its writes are conditional on.
    pub epoch: u64,
}

/// The end of what is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Last {
    /// The last batch.
    pub batch: u64,
    /// The journal's last event.
    pub event: u64,
}

/// The row as far as it concerns who leads.
#[derive(Clone, Debug)]
pub struct LabRow {
    pub epoch: u64,
    pub began: u64,
    pub beat: u64,
    pub last: Last,
    pub leader: Option<String>,
    pub url: Option<String>,
}

/// Reads the row.
pub async fn lab_row(connection: &mut PgConnection, limits: Limits) -> Result<LabRow> {
    const ASK: &str = "SELECT epoch, began, beat, batch, last_event, leader, url FROM lab";
    let doing = "see who leads the lab";
    let row = limits.of_write(doing, sqlx::query(ASK).fetch_one(connection)).await?;
    Ok(LabRow {
        epoch: number(&row, 0)?,
        began: number(&row, 1)?,
        beat: number(&row, 2)?,
        last: Last { batch: number(&row, 3)?, event: number(&row, 4)? },
        leader: row.try_get(5).map_err(failed(doing))?,
        url: row.try_get(6).map_err(failed(doing))?,
    })
}

impl Lead {
    /// Takes the lead, if the row still says this; answers the last batch too.
    pub async fn take(
        connection: &mut PgConnection,
        limits: Limits,
        (instance, url): (&Arc<str>, &str),
        (epoch, beat): (u64, u64),
    ) -> Result<Option<(Self, Last)>> {
        const TAKE: &str = "UPDATE lab SET epoch = epoch + 1, began = epoch + 1, beat = beat + 1, leader = $3, url = $4
            WHERE one = 1 AND epoch = $1 AND beat = $2 RETURNING epoch, batch, last_event";
        let take =
            sqlx::query(TAKE).bind(epoch.cast_signed()).bind(beat.cast_signed()).bind(instance.clone()).bind(url);
        let Some(row) = limits.of_write("take the lead", take.fetch_optional(connection)).await? else {
            return Ok(None);
        };
        let (epoch, last) = led(&row)?;
        Ok(Some((Self { instance: instance.clone(), began: epoch, epoch }, last)))
    }

    /// Raises the epoch, so that no write under way on a connection before can come after; answers
    /// the last batch.
    pub async fn renew(&mut self, connection: &mut PgConnection, limits: Limits) -> Result<Last> {
        const RENEW: &str = "UPDATE lab SET epoch = epoch + 1, beat = beat + 1
            WHERE one = 1 AND began = $1 AND leader = $2 RETURNING epoch, batch, last_event";
        let renew = sqlx::query(RENEW).bind(self.began.cast_signed()).bind(self.instance.clone());
        match limits.of_write("go on leading", renew.fetch_optional(&mut *connection)).await? {
            Some(row) => {
                let (epoch, last) = led(&row)?;
                self.epoch = epoch;
                Ok(last)
            }
            None => Err(self.why(connection, limits, None).await),
        }
    }

    /// Tells whoever stands by that this process leads on.
    pub async fn beat(&self, connection: &mut PgConnection, limits: Limits) -> Result<()> {
        const BEAT: &str = "UPDATE lab SET beat = beat + 1 WHERE one = 1 AND epoch = $1 AND leader = $2";
        self.write("beat", BEAT, connection, limits).await
    }

    /// Leaves the row to whoever is first.
    pub async fn give_up(&self, connection: &mut PgConnection, limits: Limits) -> Result<()> {
        const GIVE_UP: &str = "UPDATE lab SET beat = beat + 1, leader = NULL, url = NULL
            WHERE one = 1 AND epoch = $1 AND leader = $2";
        self.write("give the lead up", GIVE_UP, connection, limits).await
    }

    async fn write(
        &self,
        doing: &'static str,
        statement: &'static str,
        connection: &mut PgConnection,
        limits: Limits,
    ) -> Result<()> {
        let write = sqlx::query(statement).bind(self.epoch.cast_signed()).bind(self.instance.clone());
        let written = limits.of_write(doing, write.execute(&mut *connection)).await?;
        if written.rows_affected() == 1 { Ok(()) } else { Err(self.why(connection, limits, None).await) }
    }

    /// Whether this is the lead that the row tells of.
    ///
    /// # Errors
    /// [`StoreError::Deposed`] when it is not.
    pub fn check(&self, row: &LabRow) -> Result<()> {
        if row.leader.as_deref() == Some(&*self.instance) && row.began == self.began {
            return Ok(());
        }
        Err(StoreError::Deposed { by: row.url.clone() })
    }

    /// Why a write found no row, where it offered this batch if it was one.
    pub async fn why(&self, connection: &mut PgConnection, limits: Limits, offered: Option<u64>) -> StoreError {
        let row = match lab_row(connection, limits).await.and_then(|row| self.check(&row).map(|()| row)) {
            Err(error) => return error,
            Ok(row) => row,
        };
        match offered {
            Some(offered) if row.epoch == self.epoch => StoreError::OutOfOrder { last: row.last.batch, offered },
            _ => {
                let (found, known) = (row.epoch, self.epoch);
                failed("write to the store")(format!(
                    "the epoch is {found}, not {known}: what was sent on an earlier connection came late"
                ))
            }
        }
    }
}

/// The epoch and the last batch, as the statements above answer them.
fn led(row: &PgRow) -> Result<(u64, Last)> {
    Ok((number(row, 0)?, Last { batch: number(row, 1)?, event: number(row, 2)? }))
}
