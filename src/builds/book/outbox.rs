//! The outbox: statuses that are to be told, and those told that something still depends on.
//!
//! A told one stays while an open build may have more to tell in its place, as an older one's must not come
//! after it; and while it says of a commit that its pipelines have a mistake, which is to be taken back once
//! they can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::builds::delivery::DeliveryId;
use crate::builds::status::{Status, StatusKey, Whose};

/// Commits whose pipelines are known to have a mistake, at most: of the oldest beyond it is only known what a
/// forge was told, and it stays told.
pub const MISTAKES_MAX: usize = 10_000;

/// What is to be told of each place, or was.
#[derive(Clone, Debug, Default)]
pub(super) struct Outbox {
    rows: BTreeMap<StatusKey, Arc<Status>>,
    /// Those that are not told, by when they are due.
    due: BTreeSet<(i64, u64, StatusKey)>,
    /// Those that tell of a mistake, by their delivery.
    mistakes: BTreeMap<DeliveryId, StatusKey>,
}

impl Outbox {
    pub(super) fn get(&self, key: &StatusKey) -> Option<&Arc<Status>> {
        self.rows.get(key)
    }

    /// Puts a row in the place of the one before.
    pub(super) fn put(&mut self, row: Arc<Status>) {
        self.remove(&row.key);
        if !row.told {
            self.due.insert((row.due_ms, row.version, row.key.clone()));
        }
        if let Some(delivery) = mistaken(&row) {
            self.mistakes.insert(delivery, row.key.clone());
        }
        self.rows.insert(row.key.clone(), row);
        if self.mistakes.len() > MISTAKES_MAX
            && let Some((_, oldest)) = self.mistakes.pop_first()
            && self.rows.get(&oldest).is_some_and(|row| row.told)
        {
            self.remove(&oldest);
        }
    }

    /// Drops a row that is told and that nothing depends on; `awaited` says whether an open build may have
    /// more to tell there.
    pub(super) fn forget_told(&mut self, key: &StatusKey, awaited: impl FnOnce() -> bool) {
        let over = self
            .rows
            .get(key)
            .is_some_and(|row| row.told && mistaken(row).is_none_or(|delivery| !self.mistakes.contains_key(&delivery)));
        if over && !awaited() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &StatusKey) {
        let Some(row) = self.rows.remove(key) else { return };
        self.due.remove(&(row.due_ms, row.version, key.clone()));
        if let Some(delivery) = mistaken(&row) {
            self.mistakes.remove(&delivery);
        }
    }

    /// Those due at this moment, those that wait longest first.
    pub(super) fn due(&self, now_ms: i64, limit: usize) -> Vec<Arc<Status>> {
        let due = self.due.iter().take_while(|(due_ms, ..)| *due_ms <= now_ms).take(limit);
        due.filter_map(|(.., key)| self.rows.get(key).cloned()).collect()
    }

    /// How many are to be told.
    pub(super) fn untold(&self) -> usize {
        self.due.len()
    }

    /// When the next is due, Unix milliseconds.
    pub(super) fn due_ms(&self) -> Option<i64> {
        self.due.first().map(|(due_ms, ..)| *due_ms)
    }
}

/// The delivery whose commit's pipelines have a mistake by this row.
fn mistaken(row: &Status) -> Option<DeliveryId> {
    match row.whose {
        Whose::Delivery(id) if row.tells_of_mistake() => Some(id),
        Whose::Delivery(_) | Whose::Build(_) => None,
    }
}
