//! Scheduling: who gets what, after each change.
//!
//! The pass goes through the waiting claims by seniority with the free slots. A claim that cannot
//! be granted at present keeps back nothing; one that the remaining slots satisfy is granted; any
//! other keeps back a largest part of itself, and its juniors see only what is left. This file
//! judges one claim against what is left; `broker.rs` walks the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claim::{ClaimSpec, Pin};
use super::inventory::Resource;
use super::lease::Pick;
use super::limits::MATCHING_STEPS_MAX;
use super::matching::{self, Choice, Demand, Problem, Steps, Supply, TooComplex};
use super::need::{Count, Need, Slots};
use super::selection::{SelectionId, Selections};
use super::state::State;
use super::types::{Key, LeaseId, ResourceId, Value};

/// Slots that seniors keep back in this pass.
#[derive(Debug, Default)]
pub struct Kept {
    slots: BTreeMap<ResourceId, u32>,
    /// Per pool, so that a pass can stop where nothing is left.
    pools: BTreeMap<Key, u64>,
    /// Owners a cap of the pool holds up, so that their later claims wait behind the first.
    pub(super) capped: BTreeSet<(Arc<str>, Key)>,
    /// Selections of which nothing is left, so that a pass need not look at who else waits for them.
    pub(super) spent: BTreeSet<SelectionId>,
}

impl Kept {
    /// Slots of the resource that are free and not kept back.
    #[must_use]
    pub fn left(&self, resource: &Resource) -> u32 {
        resource.slots_free().saturating_sub(self.slots.get(&resource.id).copied().unwrap_or(0))
    }

    /// Slots of the pool kept back.
    #[must_use]
    pub fn of_pool(&self, pool: &Key) -> u64 {
        self.pools.get(pool).copied().unwrap_or(0)
    }

    /// Keeps back up to so many slots of the resource.
    pub fn keep(&mut self, resource: &Resource, slots: u32) {
        let slots = slots.min(self.left(resource));
        if slots > 0 {
            *self.slots.entry(resource.id).or_default() += slots;
            *self.pools.entry(resource.spec.pool.clone()).or_default() += u64::from(slots);
        }
    }
}

/// What becomes of a claim in a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets these.
    Grant(Vec<Pick>),
    /// It waits and keeps these slots back; where it pins a choice, this one.
    Keep(Vec<(ResourceId, u32)>, Option<Pin>),
    /// It waits and keeps nothing back: all of its kind together could not satisfy it at present.
    Wait,
}

/// A claim as the scheduler looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What is asked.
    pub spec: &'a ClaimSpec,
    /// One selection per need, in order.
    pub selections: &'a [SelectionId],
    /// The choice it keeps back, if it has one.
    pub pin: Option<&'a Pin>,
}

/// Which slots count as a claim's to hope for.
#[derive(Clone, Copy, Debug)]
enum Hope<'a> {
    /// Everything registered, whatever its condition: what is on the books.
    Books,
    /// What would be free if all leases were over: neither drained, quarantined nor going.
    Present,
    /// The same, but these leases never end.
    Without(&'a BTreeSet<LeaseId>),
    /// Everything registered, but these leases never end.
    BooksWithout(&'a BTreeSet<LeaseId>),
}

/// The scheduler's eyes: the books and the index over them.
#[derive(Clone, Copy, Debug)]
pub struct Scheduler<'a> {
    /// The books.
    pub state: &'a State,
    /// The index.
    pub selections: &'a Selections,
}

impl<'a> Scheduler<'a> {
    /// Judges a claim against what seniors have left.
    ///
    /// # Errors
    /// When matching ran out of steps.
    pub fn judge(&self, ask: Ask<'_>, kept: &Kept) -> Result<Verdict, TooComplex> {
        if is_plain(ask.spec) { Ok(self.judge_plain(ask, kept)) } else { self.judge_mixed(ask, kept) }
    }

    /// Whether the claim could be satisfied by what is on the books, whatever its condition.
    ///
    /// # Errors
    /// When matching ran out of steps.
    pub fn on_the_books(&self, ask: Ask<'_>) -> Result<bool, TooComplex> {
        if is_plain(ask.spec) {
            let enough = |(need, id): (&Need, &SelectionId)| self.selections.get(*id).matches().len() >= exact(need);
            return Ok(ask.spec.needs.iter().zip(ask.selections).all(enough));
        }
        self.hopes(ask, Hope::Books)
    }

    /// Whether the claim could be satisfied if everything leased came back.
    ///
    /// # Errors
    /// When matching ran out of steps.
    pub fn at_present(&self, ask: Ask<'_>) -> Result<bool, TooComplex> {
        if is_plain(ask.spec) { Ok(self.plain_at_present(ask)) } else { self.hopes(ask, Hope::Present) }
    }

    /// Whether the claim could be satisfied if every lease but these came back.
    ///
    /// # Errors
    /// When matching ran out of steps.
    pub fn without(&self, ask: Ask<'_>, stuck: &BTreeSet<LeaseId>) -> Result<bool, TooComplex> {
        self.hopes(ask, Hope::Without(stuck))
    }

    /// The same with everything registered back in use.
    ///
    /// # Errors
    /// When matching ran out of steps.
    pub fn on_the_books_without(&self, ask: Ask<'_>, stuck: &BTreeSet<LeaseId>) -> Result<bool, TooComplex> {
        self.hopes(ask, Hope::BooksWithout(stuck))
    }

    /// Whether some free slot of the selection is not kept back.
    pub(super) fn has_left(&self, id: SelectionId, kept: &Kept) -> bool {
        self.selections.get(id).free().any(|id| kept.left(self.state.resource(id)) > 0)
    }

    fn plain_at_present(&self, ask: Ask<'_>) -> bool {
        let enough = |(need, id): (&Need, &SelectionId)| self.selections.get(*id).grantable() >= exact(need);
        ask.spec.needs.iter().zip(ask.selections).all(enough)
    }

    /// One slot each, needs on different pools: the first free ones are as good as any.
    fn judge_plain(&self, ask: Ask<'_>, kept: &Kept) -> Verdict {
        let mut picks = Vec::new();
        let mut complete = true;
        for (need, id) in ask.spec.needs.iter().zip(ask.selections) {
            let before = picks.len();
            let free = self.selections.get(*id).free().map(|id| self.state.resource(id));
            let free = free.filter(|resource| kept.left(resource) > 0).take(exact(need));
            picks.extend(free.map(|resource| pick(need, resource, 1)));
            complete &= picks.len() - before == exact(need);
        }
        if complete {
            Verdict::Grant(picks)
        } else if self.plain_at_present(ask) {
            Verdict::Keep(picks.into_iter().map(|pick| (pick.resource, pick.slots)).collect(), None)
        } else {
            Verdict::Wait
        }
    }

    fn judge_mixed(&self, ask: Ask<'_>, kept: &Kept) -> Result<Verdict, TooComplex> {
        let mut steps = Steps::new(MATCHING_STEPS_MAX);
        let table = self.table(ask, Hope::Present, kept);
        let Some(problem) = &table.problem else { return Ok(Verdict::Wait) };
        if let Some(found) = matching::grant(problem, &mut steps)? {
            return Ok(Verdict::Grant(table.picks(ask.spec, &found)));
        }
        if !matching::possible(problem, &mut steps)? {
            return Ok(Verdict::Wait);
        }
        if ask.spec.same.is_none() && ask.spec.distinct.is_none() && !takes_several(ask.spec) {
            let part = matching::most(problem, &mut steps)?;
            return Ok(Verdict::Keep(table.slots(&part), None));
        }
        let pin = match ask.pin {
            Some(pin) if self.holds_true(ask, pin, &mut steps)? => Some(pin.clone()),
            _ => matching::choose(problem, &mut steps)?.map(|choice| table.pin(ask.spec, &choice)),
        };
        let Some(pin) = pin else { return Ok(Verdict::Wait) };
        let keep = match &pin {
            Pin::Resources(picks) => picks.iter().flatten().map(|id| (*id, table.per_pick(*id).unwrap_or(1))).collect(),
            Pin::Value(_) | Pin::Values(_) => {
                let part = matching::most(&table.pinned(&pin), &mut steps)?;
                table.slots(&part)
            }
        };
        Ok(Verdict::Keep(keep, Some(pin)))
    }

    /// Whether a pinned choice can still come true.
    fn holds_true(&self, ask: Ask<'_>, pin: &Pin, steps: &mut Steps) -> Result<bool, TooComplex> {
        if let Pin::Resources(picks) = pin {
            if !self.fits_labels(ask.spec, picks) || !self.takes_all(ask, picks) {
                return Ok(false);
            }
            let fits = |(id, selection): (&ResourceId, SelectionId)| {
                let known = self.state.resources.get(id);
                known.is_some_and(Resource::is_grantable) && self.selections.get(selection).contains(*id)
            };
            let each = picks.iter().zip(ask.selections).flat_map(|(ids, id)| ids.iter().map(|r| (r, *id)));
            return Ok(picks.len() == ask.selections.len()
                && each.clone().all(fits)
                && self.fits_slots(ask.spec, picks));
        }
        let table = self.table(ask, Hope::Present, &Kept::default());
        matching::possible(&table.pinned(pin), steps)
    }

    /// Whether the picks still have what `same` and `distinct` ask of them.
    fn fits_labels(&self, spec: &ClaimSpec, picks: &[Vec<ResourceId>]) -> bool {
        let all: Vec<Option<&Resource>> = picks.iter().flatten().map(|id| self.state.resources.get(id)).collect();
        let values = |key: &Key| -> Vec<Option<Value>> {
            all.iter().map(|resource| resource.and_then(|resource| resource.label(key.as_str()))).collect()
        };
        let same = |key: &Key| {
            let values = values(key);
            values.iter().all(|value| value.is_some() && *value == values[0])
        };
        let distinct = |key: &Key| {
            let known: BTreeSet<Value> = values(key).into_iter().flatten().collect();
            known.len() == all.len()
        };
        spec.same.as_ref().is_none_or(same) && spec.distinct.as_ref().is_none_or(distinct)
    }

    /// Whether a need for all of something has all there is now: there may be more since.
    fn takes_all(&self, ask: Ask<'_>, picks: &[Vec<ResourceId>]) -> bool {
        let each = ask.spec.needs.iter().zip(ask.selections).zip(picks);
        let mut alls = each.filter(|((need, _), _)| need.count == Count::All);
        alls.all(|((_, id), picks)| self.selections.get(*id).grantable() == picks.len())
    }

    /// Whether the picks do not ask a resource for more slots than it has (it may have fewer now).
    fn fits_slots(&self, spec: &ClaimSpec, picks: &[Vec<ResourceId>]) -> bool {
        let mut asked: BTreeMap<ResourceId, u32> = BTreeMap::new();
        for (need, ids) in spec.needs.iter().zip(picks) {
            let all = matches!(need.count, Count::Exactly(count) if count as usize != ids.len());
            if all {
                return false;
            }
            for id in ids {
                *asked.entry(*id).or_default() += slots_of(need, self.state.resource(*id));
            }
        }
        asked.iter().all(|(id, slots)| *slots <= self.state.resource(*id).spec.slots)
    }

    fn hopes(&self, ask: Ask<'_>, hope: Hope<'_>) -> Result<bool, TooComplex> {
        let table = self.table(ask, hope, &Kept::default());
        let mut steps = Steps::new(MATCHING_STEPS_MAX);
        table.problem.as_ref().map_or(Ok(false), |problem| matching::possible(problem, &mut steps))
    }

    /// The claim as a matching problem over the resources its needs select.
    fn table(&self, ask: Ask<'_>, hope: Hope<'_>, kept: &Kept) -> Table<'a> {
        let mut slots: BTreeMap<ResourceId, &Need> = BTreeMap::new();
        for (need, id) in ask.spec.needs.iter().zip(ask.selections) {
            for resource in self.selections.get(*id).matches() {
                if matches!(hope, Hope::Books | Hope::BooksWithout(_)) || self.state.resource(resource).is_grantable() {
                    slots.entry(resource).or_insert(need);
                }
            }
        }
        let mut resources: Vec<(&Resource, u32)> = Vec::with_capacity(slots.len());
        for (id, need) in slots {
            let resource = self.state.resource(id);
            resources.push((resource, slots_of(need, resource)));
        }
        resources.sort_unstable_by(|(a, _), (b, _)| a.spec.name.cmp(&b.spec.name));
        let same = values_of(ask.spec.same.as_ref(), &resources);
        let distinct = values_of(ask.spec.distinct.as_ref(), &resources);
        let index: BTreeMap<ResourceId, u32> =
            resources.iter().zip(0..).map(|((resource, _), i)| (resource.id, i)).collect();
        let supplies = resources.iter().map(|(resource, per_pick)| Supply {
            slots_free: if resource.is_grantable() { kept.left(resource) } else { 0 },
            slots_eventually: self.eventually(resource, hope),
            per_pick: *per_pick,
            same: value_index(ask.spec.same.as_ref(), &same, resource),
            distinct: value_index(ask.spec.distinct.as_ref(), &distinct, resource),
        });
        let supplies = supplies.collect();
        let mut demands = Vec::with_capacity(ask.spec.needs.len());
        let mut empty = false;
        for (need, id) in ask.spec.needs.iter().zip(ask.selections) {
            let matches = self.selections.get(*id).matches().filter_map(|id| index.get(&id).copied());
            let mut candidates: Vec<u32> = matches.collect();
            candidates.sort_by_key(|i| (resources[*i as usize].0.last_used, resources[*i as usize].0.id));
            let count = match need.count {
                Count::Exactly(count) => count,
                Count::All => u32::try_from(candidates.len()).unwrap_or(u32::MAX),
            };
            empty |= count == 0;
            demands.push(Demand { count, candidates });
        }
        let (same_asked, distinct_asked) = (ask.spec.same.is_some(), ask.spec.distinct.is_some());
        let problem = Problem { supplies, demands, same: same_asked, distinct: distinct_asked };
        Table { resources, same, distinct, problem: (!empty).then_some(problem) }
    }

    fn eventually(&self, resource: &Resource, hope: Hope<'_>) -> u32 {
        match hope {
            Hope::Books | Hope::Present => resource.spec.slots,
            Hope::Without(stuck) | Hope::BooksWithout(stuck) => {
                let held = resource.holders.iter().filter(|lease| stuck.contains(lease)).map(|lease| {
                    let picks = self.state.lease(*lease).picks.iter();
                    picks.filter(|pick| pick.resource == resource.id).map(|pick| pick.slots).sum::<u32>()
                });
                resource.spec.slots.saturating_sub(held.sum())
            }
        }
    }
}

/// A matching problem with the names of what its numbers stand for.
struct Table<'a> {
    resources: Vec<(&'a Resource, u32)>,
    same: Vec<Value>,
    distinct: Vec<Value>,
    /// `None` where a need asks for all of nothing.
    problem: Option<Problem>,
}

impl Table<'_> {
    fn resource(&self, index: u32) -> (&Resource, u32) {
        self.resources[index as usize]
    }

    fn per_pick(&self, id: ResourceId) -> Option<u32> {
        self.resources.iter().find(|(resource, _)| resource.id == id).map(|(_, per_pick)| *per_pick)
    }

    fn picks(&self, spec: &ClaimSpec, found: &[Vec<u32>]) -> Vec<Pick> {
        let each = spec.needs.iter().zip(found).flat_map(|(need, found)| found.iter().map(move |i| (need, *i)));
        let picks = each.map(|(need, index)| {
            let (resource, per_pick) = self.resource(index);
            pick(need, resource, per_pick)
        });
        picks.collect()
    }

    fn slots(&self, part: &[Vec<u32>]) -> Vec<(ResourceId, u32)> {
        let of = |index: &u32| {
            let (resource, per_pick) = self.resource(*index);
            (resource.id, per_pick)
        };
        part.iter().flatten().map(of).collect()
    }

    /// What to pin of a choice: the value or values; the resources where partly free ones are to be
    /// saved up, or where a value alone would leave the other constraint open.
    fn pin(&self, spec: &ClaimSpec, choice: &Choice) -> Pin {
        let value = |values: &[Value], index: u32| values[index as usize].clone();
        if takes_several(spec) || (spec.same.is_some() && spec.distinct.is_some()) {
            let of = |need: &Vec<u32>| need.iter().map(|index| self.resource(*index).0.id).collect();
            return Pin::Resources(choice.picks.iter().map(of).collect());
        }
        match choice.value {
            Some(index) => Pin::Value(value(&self.same, index)),
            None => Pin::Values(choice.values.iter().map(|index| value(&self.distinct, *index)).collect()),
        }
    }

    /// The problem within a pinned value, or pinned values.
    fn pinned(&self, pin: &Pin) -> Problem {
        let mut problem = self.problem.clone().unwrap_or_default();
        for supply in &mut problem.supplies {
            let inside = match pin {
                Pin::Value(value) => supply.same.is_some_and(|index| self.same[index as usize] == *value),
                Pin::Values(values) => {
                    supply.distinct.is_some_and(|index| values.contains(&self.distinct[index as usize]))
                }
                Pin::Resources(_) => true,
            };
            if !inside {
                supply.slots_free = 0;
                supply.slots_eventually = 0;
            }
        }
        problem
    }
}

fn pick(need: &Need, resource: &Resource, slots: u32) -> Pick {
    Pick { alias: need.alias.clone(), resource: resource.id, name: resource.spec.name.clone(), slots }
}

/// Whether each need takes single slots of a stated number of resources of a pool of its own, so
/// that the needs cannot be in each other's way.
pub(super) fn is_plain(spec: &ClaimSpec) -> bool {
    let single = |need: &Need| matches!((need.count, need.slots), (Count::Exactly(_), Slots::Exactly(1)));
    let alone = |(i, need): (usize, &Need)| spec.needs[..i].iter().all(|other| other.pool != need.pool);
    spec.same.is_none()
        && spec.distinct.is_none()
        && spec.needs.iter().all(single)
        && spec.needs.iter().enumerate().all(alone)
}

/// Whether a pick takes more than one slot, or a whole resource.
fn takes_several(spec: &ClaimSpec) -> bool {
    spec.needs.iter().any(|need| need.slots != Slots::Exactly(1))
}

fn exact(need: &Need) -> usize {
    match need.count {
        Count::Exactly(count) => count as usize,
        Count::All => usize::MAX,
    }
}

fn slots_of(need: &Need, resource: &Resource) -> u32 {
    match need.slots {
        Slots::Exactly(slots) => slots,
        Slots::All => resource.spec.slots,
    }
}

fn values_of(key: Option<&Key>, resources: &[(&Resource, u32)]) -> Vec<Value> {
    let Some(key) = key else { return Vec::new() };
    let values: BTreeSet<Value> = resources.iter().filter_map(|(resource, _)| resource.label(key.as_str())).collect();
    values.into_iter().collect()
}

fn value_index(key: Option<&Key>, values: &[Value], resource: &Resource) -> Option<u32> {
    let value = resource.label(key?.as_str())?;
    values.binary_search(&value).ok().and_then(|index| u32::try_from(index).ok())
}
