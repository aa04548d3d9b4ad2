//! What there is to count of builds, for `/metrics`.

use std::collections::BTreeMap;

use crate::builds::book::Book;
use crate::builds::build::Phase;
use crate::builds::change::Change;
use crate::builds::delivery::{Delivery, Outcome};

/// How an outcome is called.
pub(super) const OUTCOMES: [&str; 3] = ["done", "failed", "ignored"];

/// Counts since this process leads, and how things stand.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Builds that are not over, by phase.
    pub open: BTreeMap<&'static str, u64>,
    /// Builds that ended, by phase.
    pub ended: BTreeMap<&'static str, u64>,
    /// Deliveries by what came of them.
    pub deliveries: BTreeMap<&'static str, u64>,
    /// Deliveries that were sent again.
    pub duplicates: u64,
    /// For how long the build that waits longest does, milliseconds; 0 without one.
    pub queued_ms: u64,
    /// For how long the delivery does that waits longest to be worked on, milliseconds.
    pub delivery_ms: u64,
    /// Statuses that are to be told.
    pub statuses: u64,
    /// Times that the builds' store failed.
    pub store_failures: u64,
}

impl Figures {
    /// Counts what is stored.
    pub(super) fn count(&mut self, change: &Change) {
        match change {
            Change::Build(build) if build.phase.is_final() => {
                *self.ended.entry(build.phase.as_str()).or_default() += 1;
            }
            Change::Accepted(delivery, _) | Change::Delivery(delivery) => {
                if let Some(word) = outcome(delivery) {
                    *self.deliveries.entry(word).or_default() += 1;
                }
            }
            Change::Build(_) | Change::Note(_) | Change::Status(_) => {}
        }
    }

    /// With how things stand.
    pub(super) fn with(&self, book: &Book, now_ms: i64) -> Self {
        let mut figures = self.clone();
        figures.open = Phase::ALL.iter().filter(|phase| !phase.is_final()).map(|phase| (phase.as_str(), 0)).collect();
        for phase in Phase::ALL.iter().filter(|phase| phase.is_final()) {
            figures.ended.entry(phase.as_str()).or_default();
        }
        for word in OUTCOMES {
            figures.deliveries.entry(word).or_default();
        }
        for build in book.open() {
            *figures.open.entry(build.phase.as_str()).or_default() += 1;
        }
        let queued = book.open().filter(|build| build.phase == Phase::Queued);
        let since = queued.filter_map(|build| build.times.queued_ms).min();
        let age = |since: Option<i64>| since.map_or(0, |since| u64::try_from(now_ms - since).unwrap_or(0));
        figures.queued_ms = age(since);
        figures.delivery_ms = age(book.waiting().map(|delivery| delivery.received_ms).min());
        figures.statuses = book.statuses_untold() as u64;
        figures
    }
}

fn outcome(delivery: &Delivery) -> Option<&'static str> {
    match delivery.outcome {
        Outcome::Accepted => None,
        Outcome::Done { .. } => Some(OUTCOMES[0]),
        Outcome::Failed { .. } => Some(OUTCOMES[1]),
        Outcome::Ignored { .. } => Some(OUTCOMES[2]),
    }
}
