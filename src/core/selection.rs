//! Selections: which resources a need's conditions pick out, and which of those are free now.
//!
//! Every different condition (pool, label terms, CEL expression) that somebody asks with is one
//! selection, made once and shared by all claims that ask alike. It is kept current as resources
//! change, so that a grant looks at free resources only, least recently used first, whatever the
//! size of the pool. Derived from the books; never stored.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::cel::{Answers, Program};
use super::claim::{Claim, Seniority};
use super::inventory::{Resource, ResourceSpec};
use super::limits::IDLE_SELECTIONS_MAX;
use super::need::{Need, Term};
use super::schedule::is_plain;
use super::state::State;
use super::types::{ClaimId, Key, LabTime, ResourceId, Value};

/// A selection's number, within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SelectionId(u64);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Condition {
    pool: Key,
    terms: Vec<Term>,
    expression: Option<Arc<str>>,
}

/// One condition, with the resources that meet it.
#[derive(Debug)]
pub struct Selection {
    condition: Condition,
    program: Option<Program>,
    /// Every registered resource that meets it, whatever its condition.
    matches: BTreeMap<ResourceId, Standing>,
    /// Those with a slot to give, least recently used first.
    free: BTreeSet<(LabTime, ResourceId)>,
    /// How many of the matches are grantable, free or not.
    grantable: usize,
    /// Needs of waiting claims that ask with it.
    users: usize,
    /// The plain ones of those claims, most senior first.
    queue: BTreeSet<Seniority>,
    /// When it was last asked with, by a counter.
    touched: u64,
}

/// How a resource stood when it was last looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    grantable: bool,
    slots_free: u32,
    last_used: LabTime,
}

impl Standing {
    fn of(resource: &Resource) -> Self {
        let grantable = resource.is_grantable();
        let slots_free = if grantable { resource.slots_free() } else { 0 };
        Self { grantable, slots_free, last_used: resource.last_used }
    }
}

#[derive(Debug, Default)]
struct PoolIndex {
    standing: BTreeMap<ResourceId, Standing>,
    labels: BTreeMap<(Key, Value), BTreeSet<ResourceId>>,
    slots_free: u64,
    selections: BTreeSet<SelectionId>,
    /// Those that plain claims wait for and that have something free: few, as a pass grants it.
    hot: BTreeSet<SelectionId>,
    /// Waiting claims that are not plain, most senior first.
    mixed: BTreeSet<Seniority>,
}

/// All selections, and the index they are made with.
#[derive(Debug, Default)]
pub struct Selections {
    by_condition: BTreeMap<Condition, SelectionId>,
    all: BTreeMap<SelectionId, Selection>,
    of_resource: BTreeMap<ResourceId, (Arc<ResourceSpec>, BTreeSet<SelectionId>)>,
    pools: BTreeMap<Key, PoolIndex>,
    counter: u64,
}

impl Selection {
    /// Every registered resource that meets the condition, whatever its own condition.
    pub fn matches(&self) -> impl ExactSizeIterator<Item = ResourceId> {
        self.matches.keys().copied()
    }

    /// Those with a slot to give, least recently used first.
    pub fn free(&self) -> impl Iterator<Item = ResourceId> {
        self.free.iter().map(|(_, id)| *id)
    }

    /// How many of the matches could be given to somebody, free or not.
    #[must_use]
    pub const fn grantable(&self) -> usize {
        self.grantable
    }

    /// The labels its expression speaks of.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.program.iter().flat_map(Program::variables)
    }

    /// Whether the resource meets the condition.
    #[must_use]
    pub fn contains(&self, id: ResourceId) -> bool {
        self.matches.contains_key(&id)
    }

    fn meets(&self, resource: &Resource) -> bool {
        self.has_terms(resource) && self.program.as_ref().is_none_or(|program| program.holds(resource))
    }

    fn has_terms(&self, resource: &Resource) -> bool {
        let term = |term: &Term| resource.label(term.key.as_str()).is_some_and(|value| term.accepts(&value));
        self.condition.terms.iter().all(term)
    }

    fn is_hot(&self) -> bool {
        !self.free.is_empty() && !self.queue.is_empty()
    }

    fn stand(&mut self, id: ResourceId, standing: Option<Standing>) {
        if let Some(before) = self.matches.remove(&id) {
            self.grantable -= usize::from(before.grantable);
            self.free.remove(&(before.last_used, id));
        }
        let Some(standing) = standing else { return };
        self.matches.insert(id, standing);
        self.grantable += usize::from(standing.grantable);
        if standing.slots_free > 0 {
            self.free.insert((standing.last_used, id));
        }
    }
}

impl PoolIndex {
    /// Notes whether the selection has something free that somebody waits for.
    fn note(&mut self, id: SelectionId, selection: &Selection) {
        if selection.is_hot() {
            self.hot.insert(id);
        } else {
            self.hot.remove(&id);
        }
    }

    fn stand(&mut self, id: ResourceId, standing: Option<Standing>) {
        let before = match standing {
            Some(standing) => self.standing.insert(id, standing),
            None => self.standing.remove(&id),
        };
        self.slots_free -= before.map_or(0, |before| u64::from(before.slots_free));
        self.slots_free += standing.map_or(0, |standing| u64::from(standing.slots_free));
    }

    /// The fewest resources known to contain every match of the terms, or `None` for all of them.
    fn narrowed(&self, terms: &[Term]) -> Option<BTreeSet<ResourceId>> {
        let with = |term: &Term| -> BTreeSet<ResourceId> {
            let text = &term.value;
            let mut values = vec![Value::Text(text.clone())];
            values.extend(text.parse().ok().map(Value::Bool));
            match text.parse() {
                Ok(whole) => values.push(Value::Int(whole)),
                Err(_) => values.extend(text.parse().ok().filter(|f: &f64| f.is_finite()).map(Value::Float)),
            }
            let found = values.into_iter().filter_map(|value| self.labels.get(&(term.key.clone(), value)));
            found.flatten().copied().collect()
        };
        let positive = terms.iter().filter(|term| !term.negated && term.key.as_str() != "pool");
        positive.map(with).min_by_key(BTreeSet::len)
    }
}

impl Selections {
    /// The index of everything on the books.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let mut selections = Self::default();
        for id in state.resources.keys() {
            selections.respec(state, *id);
        }
        selections
    }

    /// The selection with this number.
    #[must_use]
    pub fn get(&self, id: SelectionId) -> &Selection {
        self.all.get(&id).expect("a selection lives as long as a claim uses it")
    }

    /// Slots of the pool that could be given now.
    #[must_use]
    pub fn slots_free(&self, pool: &Key) -> u64 {
        self.pools.get(pool).map_or(0, |pool| pool.slots_free)
    }

    /// Whether any resource of the pool has a label of this name.
    #[must_use]
    pub fn has_label(&self, pool: &Key, name: &str) -> bool {
        let (Some(index), Ok(key)) = (self.pools.get(pool), Key::parse(name, "label")) else { return false };
        // `false` is the least of all values.
        let first = index.labels.range((key.clone(), Value::Bool(false))..).next();
        first.is_some_and(|((found, _), _)| *found == key)
    }

    /// The names of the labels that resources of the pool have.
    #[must_use]
    pub fn labels_of(&self, pool: &Key) -> Vec<Key> {
        let Some(index) = self.pools.get(pool) else { return Vec::new() };
        let mut names: Vec<Key> = index.labels.keys().map(|(key, _)| key.clone()).collect();
        names.dedup();
        names.retain(|name| name.as_str() != "name");
        names
    }

    /// The selection of a need's condition, made if nobody has asked so before. It stays at least
    /// until the next call; queueing a claim that asks with it keeps it.
    ///
    /// # Errors
    /// In words, when the CEL expression cannot be read.
    pub fn intern(&mut self, state: &State, need: &Need) -> Result<SelectionId, String> {
        self.counter += 1;
        let mut terms = need.terms.clone();
        terms.sort();
        terms.dedup();
        let condition = Condition { pool: need.pool.clone(), terms, expression: need.expression.clone() };
        if let Some(id) = self.by_condition.get(&condition).copied() {
            if let Some(known) = self.all.get_mut(&id) {
                known.touched = self.counter;
            }
            return Ok(id);
        }
        let program = need.expression.as_ref().map(|text| Program::parse(text)).transpose()?;
        let id = SelectionId(self.counter);
        let mut made = Selection {
            condition: condition.clone(),
            program,
            matches: BTreeMap::new(),
            free: BTreeSet::new(),
            grantable: 0,
            users: 0,
            queue: BTreeSet::new(),
            touched: self.counter,
        };
        let index = self.pools.entry(need.pool.clone()).or_default();
        let narrowed = index.narrowed(&made.condition.terms);
        let candidates: Vec<ResourceId> =
            narrowed.map_or_else(|| index.standing.keys().copied().collect(), |few| few.into_iter().collect());
        let mut answers = Answers::default();
        for candidate in candidates {
            let resource = state.resource(candidate);
            let holds = |program: &Program| answers.holds(program, resource);
            if made.has_terms(resource) && made.program.as_ref().is_none_or(holds) {
                made.stand(candidate, Some(Standing::of(resource)));
                if let Some((_, selections)) = self.of_resource.get_mut(&candidate) {
                    selections.insert(id);
                }
            }
        }
        index.selections.insert(id);
        self.by_condition.insert(condition, id);
        self.all.insert(id, made);
        self.evict(&need.pool, id);
        Ok(id)
    }

    /// A claim waits with these selections, one per need: they are kept for it, and it is found by
    /// them when something of them is free.
    pub(super) fn enqueue(&mut self, claim: &Claim, ids: &[SelectionId]) {
        let plain = is_plain(&claim.spec);
        for (need, id) in claim.spec.needs.iter().zip(ids) {
            let Some(selection) = self.all.get_mut(id) else { continue };
            selection.users += 1;
            let Some(index) = self.pools.get_mut(&need.pool) else { continue };
            if plain {
                selection.queue.insert(claim.seniority);
                index.note(*id, selection);
            } else {
                index.mixed.insert(claim.seniority);
            }
        }
    }

    /// It waits no more.
    pub(super) fn dequeue(&mut self, claim: &Claim, ids: &[SelectionId]) {
        for (need, id) in claim.spec.needs.iter().zip(ids) {
            let Some(selection) = self.all.get_mut(id) else { continue };
            selection.users -= 1;
            selection.queue.remove(&claim.seniority);
            let Some(index) = self.pools.get_mut(&need.pool) else { continue };
            index.mixed.remove(&claim.seniority);
            index.note(*id, selection);
        }
    }

    /// The most senior claim after `after` that a pass has to look at in this pool: one that is
    /// not plain, or waits for a selection that has something free and is not `spent`. A plain
    /// claim with nothing free can neither be granted nor keep anything back.
    #[must_use]
    pub fn next_waiting(
        &self,
        pool: &Key,
        after: Option<Seniority>,
        spent: &BTreeSet<SelectionId>,
    ) -> Option<Seniority> {
        let index = self.pools.get(pool)?;
        let hot = index.hot.iter().filter(|id| !spent.contains(id)).filter_map(|id| self.all.get(id));
        let queues = hot.map(|selection| &selection.queue).chain([&index.mixed]);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        queues.filter_map(|queue| queue.range((from, Bound::Unbounded)).next().copied()).min()
    }

    /// A resource is new, gone, or something else: it may meet other conditions now.
    pub fn respec(&mut self, state: &State, id: ResourceId) {
        if let Some((spec, selections)) = self.of_resource.remove(&id)
            && let Some(index) = self.pools.get_mut(&spec.pool)
        {
            for number in selections {
                if let Some(selection) = self.all.get_mut(&number) {
                    selection.stand(id, None);
                    index.note(number, selection);
                }
            }
            index.stand(id, None);
            for label in askable(&spec) {
                if let Some(members) = index.labels.get_mut(&label) {
                    members.remove(&id);
                    if members.is_empty() {
                        index.labels.remove(&label);
                    }
                }
            }
        }
        let Some(resource) = state.resources.get(&id) else { return };
        let standing = Standing::of(resource);
        let index = self.pools.entry(resource.spec.pool.clone()).or_default();
        index.stand(id, Some(standing));
        for label in askable(&resource.spec) {
            index.labels.entry(label).or_default().insert(id);
        }
        let mut meets = BTreeSet::new();
        for selection in &index.selections {
            if let Some(known) = self.all.get_mut(selection)
                && known.meets(resource)
            {
                known.stand(id, Some(standing));
                meets.insert(*selection);
            }
        }
        for number in &meets {
            if let Some(selection) = self.all.get(number) {
                index.note(*number, selection);
            }
        }
        self.of_resource.insert(id, (resource.spec.clone(), meets));
    }

    /// A resource is as it was, but held, free, marked or unmarked.
    pub fn restand(&mut self, state: &State, id: ResourceId) {
        let standing = Standing::of(state.resource(id));
        let Some((spec, selections)) = self.of_resource.get(&id) else { return };
        let Some(index) = self.pools.get_mut(&spec.pool) else { return };
        for number in selections {
            if let Some(selection) = self.all.get_mut(number) {
                selection.stand(id, Some(standing));
                index.note(*number, selection);
            }
        }
        index.stand(id, Some(standing));
    }

    /// Whether everything here is what a fresh look at the books gives. `asks` says with which
    /// selections each waiting claim asks.
    ///
    /// # Errors
    /// In words, what is not.
    pub(super) fn verify(&self, state: &State, asks: &BTreeMap<ClaimId, Vec<SelectionId>>) -> Result<(), String> {
        self.verify_queues(state, asks)?;
        for (id, selection) in &self.all {
            let meets =
                |resource: &&Resource| resource.spec.pool == selection.condition.pool && selection.meets(resource);
            let fresh = state.resources.values().filter(meets);
            let fresh: BTreeMap<ResourceId, Standing> = fresh.map(|found| (found.id, Standing::of(found))).collect();
            let free = fresh.iter().filter(|(_, standing)| standing.slots_free > 0);
            let free: BTreeSet<(LabTime, ResourceId)> = free.map(|(id, standing)| (standing.last_used, *id)).collect();
            let grantable = fresh.values().filter(|standing| standing.grantable).count();
            let known = (&selection.matches, &selection.free, selection.grantable);
            if known != (&fresh, &free, grantable) {
                return Err(format!("{id:?} {selection:?} is not {:?}", (fresh, free, grantable)));
            }
        }
        for (key, pool) in &self.pools {
            let members = state.resources.values().filter(|resource| resource.spec.pool == *key);
            let fresh: BTreeMap<ResourceId, Standing> = members.map(|found| (found.id, Standing::of(found))).collect();
            let slots: u64 = fresh.values().map(|standing| u64::from(standing.slots_free)).sum();
            if pool.standing != fresh || pool.slots_free != slots {
                return Err(format!("pool {key} has {} slots free, {slots} expected: {fresh:?}", pool.slots_free));
            }
        }
        Ok(())
    }

    /// The same for who waits with what.
    fn verify_queues(&self, state: &State, asks: &BTreeMap<ClaimId, Vec<SelectionId>>) -> Result<(), String> {
        let mut users: BTreeMap<SelectionId, usize> = BTreeMap::new();
        let mut queues: BTreeMap<SelectionId, BTreeSet<Seniority>> = BTreeMap::new();
        let mut mixed: BTreeMap<&Key, BTreeSet<Seniority>> = BTreeMap::new();
        for (claim, ids) in asks {
            let claim = &state.claims[claim];
            for (need, id) in claim.spec.needs.iter().zip(ids) {
                *users.entry(*id).or_default() += 1;
                let queue = if is_plain(&claim.spec) {
                    queues.entry(*id).or_default()
                } else {
                    mixed.entry(&need.pool).or_default()
                };
                queue.insert(claim.seniority);
            }
        }
        let nobody = BTreeSet::new();
        for (id, selection) in &self.all {
            let asked = (users.get(id).copied().unwrap_or(0), queues.get(id).unwrap_or(&nobody));
            if (selection.users, &selection.queue) != asked {
                return Err(format!("{id:?} {selection:?} is asked with by {asked:?}"));
            }
        }
        for (key, pool) in &self.pools {
            let hot = pool.selections.iter().filter(|id| self.all.get(id).is_some_and(Selection::is_hot));
            let hot: BTreeSet<SelectionId> = hot.copied().collect();
            if pool.hot != hot || pool.mixed != *mixed.get(key).unwrap_or(&nobody) {
                return Err(format!("pool {key} has {:?} and {:?} waiting, not {hot:?}", pool.hot, pool.mixed));
            }
        }
        Ok(())
    }

    /// Forgets the idle selection of the pool that was asked with longest ago, when there are too
    /// many: conditions are the clients' to invent, memory is not theirs to fill.
    fn evict(&mut self, pool: &Key, keep: SelectionId) {
        let Some(index) = self.pools.get_mut(pool) else { return };
        if index.selections.len() <= IDLE_SELECTIONS_MAX {
            return;
        }
        let idle = index.selections.iter().filter_map(|id| self.all.get(id).map(|selection| (id, selection)));
        let idle = idle.filter(|(id, selection)| selection.users == 0 && **id != keep);
        let idle: Vec<(u64, SelectionId)> = idle.map(|(id, selection)| (selection.touched, *id)).collect();
        if idle.len() <= IDLE_SELECTIONS_MAX {
            return;
        }
        // A quarter at a time, so that the search for the oldest is no work per claim.
        let mut oldest = idle;
        oldest.sort_unstable();
        for (_, id) in oldest.into_iter().take(IDLE_SELECTIONS_MAX / 4) {
            index.selections.remove(&id);
            let Some(gone) = self.all.remove(&id) else { continue };
            self.by_condition.remove(&gone.condition);
            for resource in gone.matches.keys() {
                if let Some((_, selections)) = self.of_resource.get_mut(resource) {
                    selections.remove(&id);
                }
            }
        }
    }
}

/// What a resource can be found by: its labels, and its name like one.
fn askable(spec: &ResourceSpec) -> impl Iterator<Item = (Key, Value)> {
    let name = Key::parse("name", "label").ok().map(|key| (key, Value::Text(spec.name.as_str().into())));
    spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).chain(name)
}
