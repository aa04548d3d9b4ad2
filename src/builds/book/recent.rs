//! Deliveries of late: by them a repeat is known.
//!
//! A forge repeats a delivery under its old name: when it saw no answer, and when somebody presses
//! "redeliver". Two hooks of one repository send the same under two names. Both are known for a week. One
//! that failed is forgotten, so that its repeat is worked on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::builds::build::Line;
use crate::builds::delivery::{Delivery, DeliveryId, Incoming};
use crate::builds::happening::{Forge, Happening, Pull, Sha, What};

/// How long a delivery is known, milliseconds.
pub const RECENT_KEPT_MS: i64 = 7 * 86_400_000;
/// How many are known.
pub const RECENT_MAX: usize = 100_000;

/// A line at a forge.
type Place = (Forge, Arc<str>, Line);

#[derive(Clone, Debug)]
struct Entry {
    received_ms: i64,
    id: DeliveryId,
    name: (Forge, Arc<str>),
    place: Option<Place>,
}

/// Deliveries of late.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<Entry>,
    by_name: BTreeMap<(Forge, Arc<str>), DeliveryId>,
    /// The last thing that happened on each line.
    last: BTreeMap<Place, (DeliveryId, What)>,
}

impl Recent {
    /// The delivery that this one says again.
    pub(super) fn repeated(&self, incoming: &Incoming) -> Option<DeliveryId> {
        if incoming.repeats.is_some() {
            return None;
        }
        let name = (incoming.forge, incoming.forge_id.clone());
        if let Some(id) = self.by_name.get(&name).filter(|_| !incoming.forge_id.is_empty()) {
            return Some(*id);
        }
        let happening = incoming.said.as_ref().ok()?;
        let (id, what) = self.last.get(&place(incoming.forge, happening))?;
        same(what, &happening.what).then_some(*id)
    }

    /// The newest commit of a pull request that was heard of.
    pub(super) fn head(&self, repository: &str, number: u64) -> Option<&Sha> {
        let of = |forge| self.last.get(&(forge, name(repository), Line::Pull(number)));
        let (_, what) = [Forge::Github, Forge::Gitlab, Forge::Gitea].into_iter().find_map(of)?;
        match what {
            What::Pull { pull, .. } => Some(&pull.head),
            _ => None,
        }
    }

    pub(super) fn note(&mut self, delivery: &Delivery) {
        let name = (delivery.forge, delivery.forge_id.clone());
        let said = delivery.said.as_ref().ok();
        let place = said.map(|happening| place(delivery.forge, happening));
        if let Some((place, happening)) = place.clone().zip(said) {
            self.last.insert(place, (delivery.id, happening.what.clone()));
        }
        self.by_name.insert(name.clone(), delivery.id);
        self.order.push_back(Entry { received_ms: delivery.received_ms, id: delivery.id, name, place });
        let since_ms = delivery.received_ms.saturating_sub(RECENT_KEPT_MS);
        while let Some(oldest) = self.order.front()
            && (oldest.received_ms < since_ms || self.order.len() > RECENT_MAX)
            && let Some(entry) = self.order.pop_front()
        {
            self.drop_names(entry.id, &entry.name, entry.place.as_ref());
        }
    }

    /// Forgets one that came to nothing.
    pub(super) fn forget(&mut self, delivery: &Delivery) {
        let place = delivery.said.as_ref().ok().map(|happening| place(delivery.forge, happening));
        self.drop_names(delivery.id, &(delivery.forge, delivery.forge_id.clone()), place.as_ref());
    }

    fn drop_names(&mut self, id: DeliveryId, name: &(Forge, Arc<str>), place: Option<&Place>) {
        if self.by_name.get(name) == Some(&id) {
            self.by_name.remove(name);
        }
        if let Some(place) = place.filter(|place| self.last.get(place).is_some_and(|(last, _)| *last == id)) {
            self.last.remove(place);
        }
    }
}

/// The line that something happened on.
pub(super) fn line(what: &What) -> Line {
    match what {
        What::Push { branch, .. } => Line::Branch(branch.clone()),
        What::Tag { tag, .. } => Line::Tag(tag.clone()),
        What::Pull { pull, .. } => Line::Pull(pull.number),
    }
}

fn place(forge: Forge, happening: &Happening) -> Place {
    (forge, name(&happening.repository), line(&happening.what))
}

/// A repository's name in one spelling: forges do not tell their cases apart, and the configuration may have
/// another.
fn name(repository: &str) -> Arc<str> {
    repository.to_ascii_lowercase().into()
}

/// Whether two say the same. Titles are for people, and change without a commit.
fn same(one: &What, other: &What) -> bool {
    match (one, other) {
        (What::Push { before, after, .. }, What::Push { before: their_before, after: their_after, .. }) => {
            before == their_before && after == their_after
        }
        (What::Pull { action, pull }, What::Pull { action: their_action, pull: their_pull }) => {
            let titled = Pull { title: their_pull.title.clone(), ..pull.clone() };
            action == their_action && titled == *their_pull
        }
        _ => one == other,
    }
}
