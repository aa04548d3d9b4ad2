//! What becomes of logs beside being written: sealed when they have ended, ended when nobody is left to end
//! them, deleted when they are old.
//!
//! One task, in the broker that leads. Whatever it was about when it was stopped it finds again: it asks the
//! tables what there is to do, and each thing may be done twice.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::writer::Shown;
use super::{LogError, Logs};
use crate::builds::build::{BuildId, Phase};
use crate::builds::log::LogId;
use crate::clock::{boot_now, wall_now_ms};
use crate::store::builds::logs::LogRecord;

/// How long a log stays open to its agent after its build is over: its last lines may be on their way.
const LATE_MS_MAX: i64 = 10 * 60_000;
/// How often logs are looked for that nobody ends.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often old builds are looked for, milliseconds.
const FORGET_EVERY_MS: u64 = 60 * 60_000;
/// Logs that are looked at with one question.
const LOGS_AT_ONCE: usize = 100;
/// Times that old builds are asked for in a row, up to 500 each: the rest waits for the next hour.
const FORGETS_MAX: usize = 20;
/// Deliveries are known again for so long at least, as forges send them again, milliseconds.
const DELIVERIES_KEPT_MS_MIN: i64 = 7 * 86_400_000;

/// Which builds are kept with their logs: those that ended not longer ago than this, and the newest of each
/// repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Milliseconds.
    pub kept_ms: u64,
    /// Builds of a repository.
    pub builds: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { kept_ms: 30 * 86_400_000, builds: 50 }
    }
}

impl Logs {
    /// Looks after logs until it is stopped. To be run once, in the broker that leads.
    pub async fn keep(self, retention: Retention, stop: CancellationToken) {
        let mut forgot_at = None;
        // Known before a build has printed a segment, and not only by that. A server that hangs is given up late.
        tokio::select! {
            there = self.place_is_there() => if let Err(error) = there {
                tracing::warn!(
                    %error,
                    "logs cannot be kept in {}; what builds print waits with their agents until they can",
                    self.inner.objects.name()
                );
            },
            () = stop.cancelled() => return,
        }
        while !stop.is_cancelled() {
            // A long log's objects may be made smaller just now; the next broker goes on with them.
            if stop.run_until_cancelled(self.look_after()).await.is_none() {
                return;
            }
            let now = boot_now();
            if forgot_at.is_none_or(|at| now.since(at) >= FORGET_EVERY_MS) {
                forgot_at = Some(now);
                if let Err(error) = self.forget_old(retention, wall_now_ms()).await {
                    tracing::warn!(%error, "old builds and their logs could not be deleted; tried again in an hour");
                }
            }
            tokio::select! {
                () = self.inner.ended.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Settles logs that have ended, and ends those that nobody is left to end.
    pub(super) async fn look_after(&self) {
        let mut after = LogId { build: BuildId(0), attempt: 0 };
        loop {
            let found = match self.inner.tables.unsettled_logs(after, LOGS_AT_ONCE).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "the tables of logs could not be read; tried again in a minute");
                    return;
                }
            };
            let Some((last, _)) = found.last() else { return };
            after = *last;
            for (id, record) in found {
                if let Err(error) = self.look_after_one(id, &record).await {
                    tracing::warn!(%error, log = %Shown(id), "it could not be looked after; tried again in a minute");
                }
            }
        }
    }

    async fn look_after_one(&self, id: LogId, record: &LogRecord) -> Result<(), LogError> {
        if record.end.is_none() {
            if !self.abandoned(id, record, wall_now_ms()).await? {
                return Ok(());
            }
            tracing::info!(log = %Shown(id), "ends as it is: its build is over, and its agent has not ended it");
            self.close(id).await?;
        }
        self.settle(id).await
    }

    /// Whether nobody will end this log any more.
    async fn abandoned(&self, id: LogId, record: &LogRecord, now_ms: i64) -> Result<bool, LogError> {
        let Some(build) = self.inner.builds.build(id.build).await? else { return Ok(true) };
        let over_ms = if build.attempt != id.attempt {
            record.changed_ms
        } else if build.phase.is_final() {
            build.times.ended_ms.unwrap_or(record.changed_ms)
        } else if matches!(build.phase, Phase::Queued | Phase::Blocked) {
            // Lost, and to be tried again under the next attempt's number.
            record.changed_ms
        } else {
            return Ok(false);
        };
        Ok(now_ms.saturating_sub(over_ms) > LATE_MS_MAX)
    }

    /// Seals what is left of a log that has ended.
    ///
    /// # Errors
    /// It can be tried again.
    pub(super) async fn settle(&self, id: LogId) -> Result<(), LogError> {
        let open = self.open(id);
        let mut slot = open.writer.lock().await;
        self.loaded(&open, &mut slot).await?;
        let Some(mut writer) = slot.take() else { return Ok(()) };
        writer.settle(&self.place(id)).await?;
        *slot = Some(writer);
        Ok(())
    }

    /// Deletes builds that are old enough, with their logs, and deliveries of that time.
    ///
    /// # Errors
    /// What is not deleted is found again.
    pub(super) async fn forget_old(&self, retention: Retention, now_ms: i64) -> Result<(), LogError> {
        let kept_ms = i64::try_from(retention.kept_ms).unwrap_or(i64::MAX);
        let before_ms = now_ms.saturating_sub(kept_ms);
        let deliveries_before_ms = now_ms.saturating_sub(kept_ms.max(DELIVERIES_KEPT_MS_MIN));
        for _ in 0..FORGETS_MAX {
            let old = self.inner.builds.forgettable(before_ms, retention.builds).await?;
            self.delete(&old).await?;
            self.inner.builds.forget(&old, deliveries_before_ms).await?;
            if old.is_empty() {
                break;
            }
            tracing::info!(count = old.len(), "deleted old builds and their logs");
        }
        Ok(())
    }
}
