//! Granted when it can be: the queue judged by trying every way to fill each claim.
//!
//! What seniors keep back is taken from the scheduler, as "any largest part" leaves it a choice;
//! that the part is a largest one, that it was free, and that nobody is left out who could have
//! everything, is found by brute force. Small labs only: beyond the budget nothing is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::hold;
use crate::core::broker::Broker;
use crate::core::cel::Program;
use crate::core::claim::{Claim, ClaimSpec};
use crate::core::inventory::Resource;
use crate::core::need::{Count, Need, Slots, Term};
use crate::core::schedule::{Ask, Kept, Verdict};
use crate::core::state::State;
use crate::core::types::{Key, ResourceId, Value};

/// Ways of filling a claim that are tried.
const BUDGET: u32 = 20_000;

/// Whether the resource meets the need's conditions, whatever its own.
pub(super) fn meets(need: &Need, resource: &Resource) -> bool {
    let holds = |term: &Term| match resource.label(term.key.as_str()) {
        Some(value) => term.accepts(&value),
        None => false,
    };
    need.pool == resource.spec.pool
        && need.terms.iter().all(holds)
        && need.expression.as_ref().is_none_or(|text| Program::parse(text).is_ok_and(|program| program.holds(resource)))
}

pub(super) fn nobody_waits_in_vain(broker: &Broker) -> Result<(), String> {
    if !broker.grants() {
        return Ok(());
    }
    let state = broker.state();
    let mut kept = Kept::default();
    let mut held_up = BTreeSet::new();
    for seniority in &state.queue {
        let claim = &state.claims[&seniority.claim];
        let here = broker.connected.contains(&claim.session);
        if here || broker.away.contains(&claim.session) {
            if capped(broker, claim, &mut held_up) {
                continue;
            }
            judge(broker, claim, here, &mut kept).map_err(|broken| format!("claim {}: {broken}", claim.id))?;
        }
    }
    Ok(())
}

/// Whether a cap holds the claim up: it does not count then, and what it asks for of that pool
/// its owner gets for no later claim either.
fn capped(broker: &Broker, claim: &Claim, held_up: &mut BTreeSet<(Arc<str>, Key)>) -> bool {
    let state = broker.state();
    let owner = &claim.owner.name;
    let mut waits = false;
    for key in State::pools_of(claim) {
        let Some(most) = state.pools.get(key).and_then(|pool| pool.pool.max_per_owner) else { continue };
        let own = state.leases.values().filter(|lease| lease.owner.name == *owner);
        let picks = own.flat_map(|lease| lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource)));
        let held = picks.filter(|pick| state.resource(pick.resource).spec.pool == *key).count();
        let asked = claim.spec.needs.iter().filter(|need| need.pool == *key).map(|need| match need.count {
            Count::Exactly(count) => count as usize,
            Count::All => state.resources.values().filter(|found| found.is_grantable() && meets(need, found)).count(),
        });
        if held + asked.sum::<usize>() > most as usize {
            waits = true;
            let ask = Ask { spec: &claim.spec, selections: &broker.asks[&claim.id], pin: None };
            if broker.scheduler().at_present(ask) == Ok(true) {
                held_up.insert((owner.clone(), key.clone()));
            }
        }
        waits |= held_up.contains(&(owner.clone(), key.clone()));
    }
    waits
}

fn judge(broker: &Broker, claim: &Claim, here: bool, kept: &mut Kept) -> Result<(), String> {
    let state = broker.state();
    let ask = Ask { spec: &claim.spec, selections: &broker.asks[&claim.id], pin: claim.pin.as_ref() };
    let Ok(verdict) = broker.scheduler().judge(ask, kept) else {
        return Err("too complex, and it waits".to_owned());
    };
    let now = Ways::new(state, &claim.spec, |resource| kept.left(resource));
    let later = Ways::new(state, &claim.spec, |resource| resource.spec.slots);
    let (most, possible) = (now.most(), later.most());
    let asked = now.asked;
    if here && matches!(verdict, Verdict::Grant(_)) {
        return Err("granted when it can be: the scheduler would grant it, and it waits".to_owned());
    }
    let full = |most: Option<usize>| most.map(|most| most == asked && asked > 0);
    hold("granted when it can be", !here || full(most) != Some(true), || format!("`{}` fits", shown(&claim.spec)))?;
    let keeps: Vec<(ResourceId, u32)> = match verdict {
        Verdict::Wait => {
            let impossible = full(possible) != Some(true);
            return hold("keeps back what it can", impossible, || format!("{:?} keeps nothing", claim.spec));
        }
        Verdict::Grant(picks) => picks.into_iter().map(|pick| (pick.resource, pick.slots)).collect(),
        Verdict::Keep(slots, pin) => {
            let hopeless = full(possible) == Some(false);
            hold("keeps back only what it can hope for", !hopeless, || format!("{slots:?} for {:?}", claim.spec))?;
            if pin.is_none() {
                let largest = most.is_none_or(|most| most == slots.len());
                hold("keeps back a largest part", largest, || format!("{slots:?}, and {most:?} would do"))?;
                let free = slots.iter().all(|(id, slots)| kept.left(state.resource(*id)) >= *slots);
                hold("keeps back what is free", free, || format!("{slots:?}"))?;
            }
            slots
        }
    };
    for (resource, slots) in keeps {
        kept.keep(state.resource(resource), slots);
    }
    Ok(())
}

fn shown(spec: &ClaimSpec) -> String {
    spec.needs.iter().map(Need::to_string).collect::<Vec<_>>().join(" + ")
}

/// Every way to fill a claim.
struct Ways<'a> {
    /// For each pick of the claim, in the order of its needs: which need.
    picks: Vec<usize>,
    /// For each need, what it can take and how many slots of it.
    candidates: Vec<Vec<(&'a Resource, u32)>>,
    spec: &'a ClaimSpec,
    slots: BTreeMap<ResourceId, u32>,
    asked: usize,
}

/// How far a way has come.
#[derive(Clone, Default)]
struct Way {
    taken: BTreeMap<ResourceId, u32>,
    of_need: BTreeSet<(usize, ResourceId)>,
    same: Option<Value>,
    distinct: BTreeSet<Value>,
    count: usize,
}

impl<'a> Ways<'a> {
    fn new(state: &'a State, spec: &'a ClaimSpec, slots: impl Fn(&Resource) -> u32) -> Self {
        let mut candidates = Vec::new();
        let mut picks = Vec::new();
        let mut free = BTreeMap::new();
        let mut empty = false;
        for (index, need) in spec.needs.iter().enumerate() {
            let fit = state.resources.values().filter(|resource| resource.is_grantable() && meets(need, resource));
            let of = |resource: &'a Resource| match need.slots {
                Slots::Exactly(slots) => (resource, slots),
                Slots::All => (resource, resource.spec.slots),
            };
            let fit: Vec<(&Resource, u32)> = fit.map(of).collect();
            let count = match need.count {
                Count::Exactly(count) => count as usize,
                Count::All => fit.len(),
            };
            empty |= count == 0;
            picks.extend(std::iter::repeat_n(index, count));
            free.extend(fit.iter().map(|(resource, _)| (resource.id, slots(resource))));
            candidates.push(fit);
        }
        if empty {
            picks.clear();
        }
        Self { asked: picks.len(), picks, candidates, spec, slots: free }
    }

    /// The most picks that any way has; `None` where there are too many ways to tell.
    fn most(&self) -> Option<usize> {
        let mut best = 0;
        let mut budget = BUDGET;
        self.go(0, 0, &Way::default(), &mut best, &mut budget).then_some(best)
    }

    /// Goes on from the pick at `index`, with candidates from `first`. `false`: out of budget.
    fn go(&self, index: usize, first: usize, way: &Way, best: &mut usize, budget: &mut u32) -> bool {
        *best = (*best).max(way.count);
        let Some(need) = self.picks.get(index) else { return true };
        if *best == self.asked || way.count + (self.asked - index) <= *best {
            return true;
        }
        // Picks of one need are alike: taken in the order of its candidates.
        let next_first = |taken: usize| if self.picks.get(index + 1) == Some(need) { taken } else { 0 };
        for (place, (resource, slots)) in self.candidates[*need].iter().enumerate().skip(first) {
            let Some(left) = budget.checked_sub(1) else { return false };
            *budget = left;
            if let Some(further) = self.take(way, *need, resource, *slots)
                && !self.go(index + 1, next_first(place + 1), &further, best, budget)
            {
                return false;
            }
        }
        self.go(index + 1, next_first(first), way, best, budget)
    }

    fn take(&self, way: &Way, need: usize, resource: &Resource, slots: u32) -> Option<Way> {
        let mut way = way.clone();
        let taken = way.taken.entry(resource.id).or_default();
        *taken += slots;
        if *taken > self.slots[&resource.id] || !way.of_need.insert((need, resource.id)) {
            return None;
        }
        if let Some(key) = &self.spec.same {
            let value = resource.label(key.as_str())?;
            if way.same.get_or_insert_with(|| value.clone()) != &value {
                return None;
            }
        }
        if let Some(key) = &self.spec.distinct
            && !way.distinct.insert(resource.label(key.as_str())?)
        {
            return None;
        }
        way.count += 1;
        Some(way)
    }
}
