//! How long this process may take itself for the leader of a store that brokers share.
//!
//! A leader's term is counted from before it *sent* its last successful write, by the clock that
//! counts suspended time: whoever stands by counts from after it saw that write, so the leader's
//! count ends first. Nothing safe rests on it, as every write is made only while this process leads,
//! and every promise of time is given only after a look; it is what ends a leader that is cut off.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use crate::clock::BootTime;
use crate::store::{Reader, Sharing, StoreError};

/// How long a planned hand-over waits for the write under way, milliseconds. Without its end nothing
/// is given up, and whoever stands by waits the term out.
pub(super) const HAND_OVER_WAIT_MS: u64 = 500;

/// How an engine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everybody who could ask it something is gone, and what they asked is stored. A shared store
    /// was given up, so that the next to start need not wait.
    Finished,
    /// Another broker leads the lab.
    Deposed {
        /// Where that one says it is reached, when it does.
        by: Option<String>,
    },
    /// A whole term went by without a successful write: another may lead by now.
    TermOver,
    /// The lead was given up: another may take it at once.
    GaveUp,
}

/// The lead, by this process's clock.
pub(super) struct Lead {
    sharing: Option<Sharing>,
    /// Before the last successful write was sent.
    since: BootTime,
}

impl Lead {
    /// A lead whose last successful write was sent at `since`.
    pub(super) const fn new(sharing: Option<Sharing>, since: BootTime) -> Self {
        Self { sharing, since }
    }

    /// A write that was sent at `sent`, or after, was successful.
    pub(super) fn wrote(&mut self, sent: BootTime) {
        self.since = self.since.max(sent);
    }

    /// Whether the store is shared.
    pub(super) const fn is_shared(&self) -> bool {
        self.sharing.is_some()
    }

    /// What is left of the term, milliseconds; without an end where nobody shares the store.
    pub(super) fn left_ms(&self, now: BootTime) -> u64 {
        self.sharing.map_or(u64::MAX, |sharing| self.since.plus(sharing.term_ms).since(now))
    }

    /// Whether a term is over without a write.
    pub(super) fn is_over(&self, now: BootTime) -> bool {
        self.left_ms(now) == 0
    }

    /// What is left until a beat is due, milliseconds, if the store is idle until then.
    pub(super) fn beat_in_ms(&self, now: BootTime) -> u64 {
        self.sharing.map_or(u64::MAX, |sharing| self.since.plus(sharing.beat_ms).since(now))
    }

    /// The longest pause before a failing store is tried again: within a term there are several.
    pub(super) fn retry_ms(&self, wanted: u64) -> u64 {
        self.sharing.map_or(wanted, |sharing| wanted.min(sharing.term_ms / 8))
    }

    /// Looks whether this process leads. A look that takes half a term is given up, for another to
    /// begin.
    pub(super) fn look<R: Reader>(&self, reader: R) -> impl Future<Output = Result<(), StoreError>> + Send + use<R> {
        let most = self.sharing.map_or(u64::MAX, |sharing| sharing.term_ms / 2);
        async move {
            let looked = timeout(Duration::from_millis(most), reader.confirm()).await;
            looked.unwrap_or_else(|late| {
                Err(StoreError::Failed { doing: "see whether this broker leads", source: late.into() })
            })
        }
    }
}
