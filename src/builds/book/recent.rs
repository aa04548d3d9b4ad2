//! Deliveries of late: by them a repeat is known.
//!
//! A forge repeats a delivery under its old name: when it saw no answer, and when somebody presses
//! "redeliver". Two hooks of one repository send the same under two names. Both are known for a week.
//!
//! One that was worked on in vain is no reason not to work on its repeat: it failed, or asked for a build and
//! was ignored, as the broker was configured then. All that is still known of it is which commit its pull
//! request has. What ended nothing because there was nothing stays a repeat: later there may be something, and
//! it is not meant.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::builds::build::Line;
use crate::builds::delivery::{Delivery, DeliveryId, Incoming, Outcome};
use crate::builds::happening::{Forge, Happening, Pull, Sha, What};
use crate::builds::matching::starts;

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
    last: BTreeMap<Place, Last>,
}

/// The last thing that happened on a line.
#[derive(Clone, Debug)]
struct Last {
    id: DeliveryId,
    what: What,
    /// It was worked on, and nothing came of it: said again it is no repeat.
    in_vain: bool,
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
        let last = self.last.get(&place(incoming.forge, happening))?;
        (!last.in_vain && same(&last.what, &happening.what)).then_some(last.id)
    }

    /// The newest commit of a pull request that was heard of.
    pub(super) fn head(&self, repository: &str, number: u64) -> Option<&Sha> {
        let of = |forge| self.last.get(&(forge, name(repository), Line::Pull(number)));
        let last = [Forge::Github, Forge::Gitlab, Forge::Gitea].into_iter().find_map(of)?;
        match &last.what {
            What::Pull { pull, .. } => Some(&pull.head),
            _ => None,
        }
    }

    pub(super) fn note(&mut self, delivery: &Delivery) {
        let name = (delivery.forge, delivery.forge_id.clone());
        let said = delivery.said.as_ref().ok();
        let place = said.map(|happening| place(delivery.forge, happening));
        if let Some((place, happening)) = place.clone().zip(said) {
            self.last.insert(place, Last { id: delivery.id, what: happening.what.clone(), in_vain: false });
        }
        self.by_name.insert(name.clone(), delivery.id);
        self.order.push_back(Entry { received_ms: delivery.received_ms, id: delivery.id, name, place });
        self.settle(delivery);
        let since_ms = delivery.received_ms.saturating_sub(RECENT_KEPT_MS);
        while let Some(oldest) = self.order.front()
            && (oldest.received_ms < since_ms || self.order.len() > RECENT_MAX)
            && let Some(entry) = self.order.pop_front()
        {
            self.drop_name(entry.id, &entry.name);
            if let Some(place) = entry.place.filter(|place| self.last.get(place).is_some_and(|it| it.id == entry.id)) {
                self.last.remove(&place);
            }
        }
    }

    /// What came of one is known (by now).
    pub(super) fn settle(&mut self, delivery: &Delivery) {
        let Ok(happening) = &delivery.said else { return };
        if !in_vain(&delivery.outcome, &happening.what) {
            return;
        }
        self.drop_name(delivery.id, &(delivery.forge, delivery.forge_id.clone()));
        if let Some(last) = self.last.get_mut(&place(delivery.forge, happening)).filter(|last| last.id == delivery.id) {
            last.in_vain = true;
        }
    }

    fn drop_name(&mut self, id: DeliveryId, name: &(Forge, Arc<str>)) {
        if self.by_name.get(name) == Some(&id) {
            self.by_name.remove(name);
        }
    }
}

/// Whether what was asked for may yet be done, when it is asked for again.
fn in_vain(outcome: &Outcome, what: &What) -> bool {
    match outcome {
        Outcome::Failed { .. } => true,
        Outcome::Ignored { .. } => starts(what),
        Outcome::Accepted | Outcome::Done { .. } => false,
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
