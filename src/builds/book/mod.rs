//! The book: every build that is not over, every delivery not worked on, and what is to be told of them.
//!
//! [`Book::decide`] says what a command changes and changes nothing; [`Book::apply`] makes a change. Whoever
//! keeps the book applies what was decided, stores it, and tells nobody before it is stored; after a failure
//! it throws the book away and makes another of what the store has.
//!
//! What holds after every change, and is checked by the tests beside this file:
//!
//! - A build that is over or blocked has no session, so it holds nothing. A fork's build never has one before
//!   its very commit was allowed.
//! - What is told of an attempt that is over changes nothing.
//! - A delivery that was accepted is worked on exactly once.
//! - Of a line whose builds supersede one another only the newest can pass without an ending.

mod command;
mod decide;
mod draft;
mod open;
mod outbox;
mod recent;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::{Build, BuildId, Phase};
use super::change::Change;
use super::delivery::{Delivery, DeliveryId, Outcome};
use super::plan::Concurrency;
use super::status::{Status, StatusKey};
pub use command::{Answer, Command, Finished, Found, Gone, Refusal, Report};
use open::Open;
pub use outbox::MISTAKES_MAX;
use outbox::Outbox;
use recent::Recent;
pub use recent::{RECENT_KEPT_MS, RECENT_MAX};

/// Builds that are not over, at most. Deliveries and people that ask for one more are refused.
pub const OPEN_BUILDS_MAX: usize = 10_000;
/// Deliveries not worked on, at most. One more is refused, and the forge sends it again later.
pub const WAITING_DELIVERIES_MAX: usize = 10_000;
/// How long a fork's build waits to be allowed, milliseconds; then it is dropped.
pub const BLOCKED_KEPT_MS: i64 = 30 * 86_400_000;

/// What a book is made of: what the store has.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Builds that are not over.
    pub open: Vec<Build>,
    /// Deliveries not worked on.
    pub waiting: Vec<Delivery>,
    /// Deliveries of late, oldest first.
    pub recent: Vec<Delivery>,
    /// Statuses that are to be told, those that open builds have told, and those that tell of mistakes; one
    /// more than once is the same.
    pub statuses: Vec<Status>,
    /// The highest number of a build.
    pub last_build: BuildId,
    /// The highest number of a delivery.
    pub last_delivery: DeliveryId,
}

/// The book.
#[derive(Clone, Debug, Default)]
pub struct Book {
    open: Open,
    waiting: BTreeMap<DeliveryId, Arc<Delivery>>,
    recent: Recent,
    statuses: Outbox,
    last_build: BuildId,
    last_delivery: DeliveryId,
}

impl Book {
    /// The book as the store has it.
    #[must_use]
    pub fn new(contents: Contents) -> Self {
        let Contents { open, waiting, recent, statuses, last_build, last_delivery } = contents;
        let mut book = Self { last_build, last_delivery, ..Self::default() };
        recent.iter().for_each(|delivery| book.recent.note(delivery));
        for build in open {
            book.apply(&Change::Build(Arc::new(build)));
        }
        for delivery in waiting {
            book.apply(&Change::Delivery(Arc::new(delivery)));
        }
        for status in statuses {
            book.statuses.put(Arc::new(status));
        }
        book
    }

    /// A build that is not over.
    #[must_use]
    pub fn build(&self, id: BuildId) -> Option<&Arc<Build>> {
        self.open.get(id)
    }

    /// All that are not over.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Build>> + Clone {
        self.open.all()
    }

    /// Those that have a session with the engine.
    pub fn held(&self) -> impl Iterator<Item = &Arc<Build>> {
        self.open.held()
    }

    /// Those that are granted, and wait for their agent to take them.
    pub fn offered(&self) -> impl Iterator<Item = &Arc<Build>> {
        self.open.offered()
    }

    /// Deliveries not worked on, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Delivery>> + Clone {
        self.waiting.values()
    }

    /// Statuses that are due at this moment, those that wait longest first.
    #[must_use]
    pub fn statuses_due(&self, now_ms: i64, limit: usize) -> Vec<Arc<Status>> {
        self.statuses.due(now_ms, limit)
    }

    /// How many statuses are to be told.
    #[must_use]
    pub fn statuses_untold(&self) -> usize {
        self.statuses.untold()
    }

    /// When the next status is due that is not told, Unix milliseconds.
    #[must_use]
    pub fn status_due_ms(&self) -> Option<i64> {
        self.statuses.due_ms()
    }

    /// Whether the pipelines of a commit had a mistake when they were looked at last, by the place of its status.
    #[must_use]
    pub fn knows_of_mistake(&self, key: &StatusKey) -> bool {
        self.statuses.get(key).is_some_and(|known| known.tells_of_mistake())
    }

    /// Whether a build is to be claimed for: it waits, has no session, and no older one goes before it.
    #[must_use]
    pub fn may_claim(&self, build: &Build) -> bool {
        build.phase == Phase::Queued
            && build.ending.is_none()
            && build.session.is_none()
            && self.waits_for(build).is_none()
    }

    /// The older build of its lane that a build waits for.
    #[must_use]
    pub fn waits_for(&self, build: &Build) -> Option<BuildId> {
        if build.plan.concurrency != Concurrency::Queue || build.phase != Phase::Queued {
            return None;
        }
        // What nobody has allowed may never run, and must not hold up the others.
        let goes_before = |id: &&BuildId| self.open.get(**id).is_some_and(|older| older.phase != Phase::Blocked);
        self.open.lane_of(build)?.range(..build.id).rfind(goes_before).copied()
    }

    /// Builds of the same lane, older and newer, that are not over.
    pub fn lane_of(&self, build: &Build) -> impl Iterator<Item = BuildId> {
        self.open.lane_of(build).into_iter().flatten().copied()
    }

    /// When [`Command::Tick`] has something to do next, Unix milliseconds.
    #[must_use]
    pub fn due_ms(&self) -> Option<i64> {
        self.open.due_ms()
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Accepted(delivery, _) => {
                self.last_delivery = self.last_delivery.max(delivery.id);
                self.recent.note(delivery);
                self.delivery(delivery);
            }
            Change::Delivery(delivery) => {
                self.recent.settle(delivery);
                self.delivery(delivery);
            }
            Change::Build(build) => self.put(build),
            Change::Status(status) => {
                self.statuses.put(status.clone());
                self.forget_told(&status.key);
            }
            Change::Note(_) => {}
        }
    }

    fn delivery(&mut self, delivery: &Arc<Delivery>) {
        if delivery.outcome == Outcome::Accepted {
            self.waiting.insert(delivery.id, delivery.clone());
        } else {
            self.waiting.remove(&delivery.id);
        }
    }

    fn put(&mut self, build: &Arc<Build>) {
        self.last_build = self.last_build.max(build.id);
        self.open.put(build);
        if build.phase.is_final() {
            self.forget_told(&StatusKey::of(build));
        }
    }

    /// Drops a status that is told, unless something depends on it.
    fn forget_told(&mut self, key: &StatusKey) {
        self.statuses.forget_told(key, || self.open.tells_in(key));
    }
}
