//! Which resources a claim gets: exact matching, pure and deterministic.
//!
//! Knows numbers only: resources in the order of their names, how many slots of each, and for
//! each need which resources it can take. What those numbers stand for, and what is done with the
//! answers, is the scheduler's. An answer is right or there is none: out of steps is an error of
//! its own, never a guess.
//!
//! Three rules make every case a flow. One need takes a resource once, two needs may share its
//! slots. With `distinct` each value is taken once, so the needs share values instead. With
//! `same` each value is a matching of its own. And no need is ever served worse by looking at as
//! many of its best candidates as the whole claim has picks, for the others cannot be in the way
//! of them all: so the flows stay small however many resources there are.

use std::collections::{BTreeMap, BTreeSet};

use super::flow::{Bin, Cost, Edge, Flow, Graph, LACKING};

/// A resource, as far as one claim is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Slots this claim may have now.
    pub slots_free: u32,
    /// Slots it could have if everything leased came back; 0 if it is drained, quarantined, going.
    pub slots_eventually: u32,
    /// Slots one pick takes: as many as the claim's needs on this pool say, or all it has. All
    /// needs of a claim on one pool say the same. 0 is never given out.
    pub per_pick: u32,
    /// The value of the label that `same` names, as an index into its values in order. `None`: no
    /// such label.
    pub same: Option<u32>,
    /// Likewise for `distinct`.
    pub distinct: Option<u32>,
}

/// A need, as far as matching is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// How many distinct resources.
    pub count: u32,
    /// Which resources it can take, as indices into the supplies, the preferred first. No two alike.
    pub candidates: Vec<u32>,
}

/// A claim and the resources it can take from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// The resources in the order of their names.
    pub supplies: Vec<Supply>,
    /// The needs in the order of the claim.
    pub demands: Vec<Demand>,
    /// All picks have one value of `Supply::same`.
    pub same: bool,
    /// No two picks have one value of `Supply::distinct`.
    pub distinct: bool,
}

/// Per demand, the resources it gets, the preferred first.
pub type Picks = Vec<Vec<u32>>;

/// What a claim that waits settles on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The whole claim filled, as it will be once nothing is lacking.
    pub picks: Picks,
    /// With `same`: the value of all of them.
    pub value: Option<u32>,
    /// With `distinct`: their values, in order.
    pub values: Vec<u32>,
    /// Slots that are not free yet.
    pub slots_lacking: u64,
}

/// How much looking a claim has left. Counted, not timed, so that two replays agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps(u64);

/// The steps are spent: the claim is beyond what is matched exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("matching the claim takes too many steps")]
pub struct TooComplex;

impl Steps {
    /// A budget of `max` edges to look at. Reading a list of candidates once costs an eighth of
    /// its length.
    #[must_use]
    pub const fn new(max: u64) -> Self {
        Self(max)
    }

    /// What is left of it.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.0
    }

    pub(super) fn take(&mut self, steps: u64) -> Result<(), TooComplex> {
        self.0 = self.0.checked_sub(steps).ok_or(TooComplex)?;
        Ok(())
    }
}

/// The whole claim from the slots that are free now, or `None`. Takes what is preferred where
/// there is a choice: needs in order, their candidates in order, for `same` the value whose first
/// candidate comes first.
///
/// # Errors
/// When the steps are spent.
pub fn grant(problem: &Problem, steps: &mut Steps) -> Result<Option<Picks>, TooComplex> {
    satisfy(problem, Basis::Free, steps)
}

/// A largest part of the claim, counted in picks, that the slots free now can fill; the whole
/// where they can fill it. Obeys `same` and `distinct`.
///
/// # Errors
/// When the steps are spent.
pub fn most(problem: &Problem, steps: &mut Steps) -> Result<Picks, TooComplex> {
    let wanted: usize = problem.demands.iter().map(|demand| demand.count as usize).sum();
    let mut best: (usize, Picks) = (0, vec![Vec::new(); problem.demands.len()]);
    for world in worlds(problem, Basis::Free, false, steps)? {
        let graph = preferring(problem, &world, Basis::Free);
        let mut flow = Flow::new(&graph);
        flow.fill(steps)?;
        let picks = flow.picks();
        let filled = picks.iter().map(Vec::len).sum();
        if filled > best.0 {
            best = (filled, picks);
        }
        if best.0 == wanted {
            break;
        }
    }
    Ok(best.1)
}

/// Whether the claim could be filled if everything leased came back.
///
/// # Errors
/// When the steps are spent.
pub fn possible(problem: &Problem, steps: &mut Steps) -> Result<bool, TooComplex> {
    Ok(satisfy(problem, Basis::Eventually, steps)?.is_some())
}

/// The way to fill the claim, if everything leased came back, that lacks the fewest slots now;
/// among equals the first in the order of values for `same`, and of names (for `distinct`: of
/// values), summed over the picks. `None` where it cannot be filled even then.
///
/// # Errors
/// When the steps are spent.
pub fn choose(problem: &Problem, steps: &mut Steps) -> Result<Option<Choice>, TooComplex> {
    let mut best: Option<Choice> = None;
    let mut worlds = worlds(problem, Basis::Eventually, true, steps)?;
    worlds.sort_by_key(|world| world.value);
    for world in worlds {
        let graph = lacking(problem, &world, steps)?;
        let hopeless = |best: &Choice| graph.cost_min() / LACKING >= Cost::from(best.slots_lacking);
        if best.as_ref().is_some_and(hopeless) {
            continue;
        }
        let mut flow = Flow::new(&graph);
        if !flow.fill_cheaply(steps)? {
            continue;
        }
        let slots_lacking = u64::try_from(flow.cost() / LACKING).unwrap_or(u64::MAX);
        if best.as_ref().is_none_or(|best| slots_lacking < best.slots_lacking) {
            let picks = flow.picks();
            let distinct = |resource: &u32| problem.supply(*resource).distinct;
            let values: BTreeSet<u32> = picks.iter().flatten().filter_map(distinct).collect();
            let values = if problem.distinct { values.into_iter().collect() } else { Vec::new() };
            best = Some(Choice { picks, value: world.value, values, slots_lacking });
        }
    }
    Ok(best)
}

/// Which slots count.
#[derive(Clone, Copy)]
enum Basis {
    Free,
    Eventually,
}

impl Supply {
    /// How many picks it is good for.
    fn room(&self, basis: Basis) -> u32 {
        let slots = match basis {
            Basis::Free => self.slots_free,
            Basis::Eventually => self.slots_eventually,
        };
        slots.checked_div(self.per_pick).unwrap_or(0)
    }

    /// What one pick of it lacks.
    fn lacking(&self) -> Cost {
        Cost::from(self.per_pick.saturating_sub(self.slots_free)) * LACKING
    }
}

impl Problem {
    fn supply(&self, resource: u32) -> &Supply {
        &self.supplies[resource as usize]
    }

    /// How many picks the whole claim has.
    fn picks(&self) -> usize {
        self.demands.iter().map(|demand| demand.count as usize).sum()
    }

    fn is_simple(&self) -> bool {
        self.demands.len() == 1 && !self.same && !self.distinct
    }
}

fn satisfy(problem: &Problem, basis: Basis, steps: &mut Steps) -> Result<Option<Picks>, TooComplex> {
    if let ([demand], true) = (problem.demands.as_slice(), problem.is_simple()) {
        steps.take(demand.candidates.len() as u64 / 8 + 1)?;
        let fits = demand.candidates.iter().copied().filter(|resource| problem.supply(*resource).room(basis) > 0);
        let picks: Vec<u32> = fits.take(demand.count as usize).collect();
        return Ok((picks.len() == demand.count as usize).then(|| vec![picks]));
    }
    for world in worlds(problem, basis, true, steps)? {
        let graph = preferring(problem, &world, basis);
        let mut flow = Flow::new(&graph);
        if flow.fill(steps)? {
            return Ok(Some(flow.picks()));
        }
    }
    Ok(None)
}

/// The candidates that count at all, under one value of `same`, or under none.
struct World {
    value: Option<u32>,
    candidates: Vec<Vec<u32>>,
}

/// One world, or with `same` one for each value, in the order in which the candidates have them.
/// With `whole`, only those in which every demand has enough candidates.
fn worlds(problem: &Problem, basis: Basis, whole: bool, steps: &mut Steps) -> Result<Vec<World>, TooComplex> {
    let demands = problem.demands.len();
    let world = |value| World { value, candidates: vec![Vec::new(); demands] };
    let mut worlds: Vec<World> = Vec::new();
    let mut known: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    if !problem.same {
        known.insert(None, 0);
        worlds.push(world(None));
    }
    for (index, demand) in problem.demands.iter().enumerate() {
        steps.take(demand.candidates.len() as u64 / 8 + 1)?;
        for resource in &demand.candidates {
            let supply = problem.supply(*resource);
            let value = if problem.same { supply.same } else { None };
            let unlabelled = (problem.same && value.is_none()) || (problem.distinct && supply.distinct.is_none());
            if unlabelled || supply.room(basis) == 0 {
                continue;
            }
            let index_of_world = *known.entry(value).or_insert_with(|| {
                worlds.push(world(value));
                worlds.len() - 1
            });
            worlds[index_of_world].candidates[index].push(*resource);
        }
    }
    if whole {
        let enough = |(demand, candidates): (&Demand, &Vec<u32>)| candidates.len() >= demand.count as usize;
        worlds.retain(|world| problem.demands.iter().zip(&world.candidates).all(enough));
    }
    Ok(worlds)
}

/// A world as a graph, the preferred candidates first.
fn preferring(problem: &Problem, world: &World, basis: Basis) -> Graph {
    let mut builder = Builder::new(problem);
    for (demand, candidates) in problem.demands.iter().zip(&world.candidates) {
        let mut edges = Vec::new();
        let mut seen = BTreeSet::new();
        for resource in candidates {
            if edges.len() == builder.edges_max {
                break;
            }
            let value = problem.supply(*resource).distinct.filter(|_| problem.distinct);
            if value.is_none_or(|value| seen.insert(value)) {
                edges.push(builder.edge(*resource, basis, 0));
            }
        }
        builder.add(demand, edges);
    }
    builder.graph
}

/// A world as a graph with costs: what is lacking now, of all that may come back. The cheapest
/// candidates first.
fn lacking(problem: &Problem, world: &World, steps: &mut Steps) -> Result<Graph, TooComplex> {
    let mut builder = Builder::new(problem);
    for (demand, candidates) in problem.demands.iter().zip(&world.candidates) {
        let rank = |resource: u32| match problem.supply(resource).distinct {
            Some(value) if problem.distinct => (problem.supply(resource).lacking() + Cost::from(value), resource),
            _ => (problem.supply(resource).lacking() + Cost::from(resource), resource),
        };
        let mut ranked: Vec<(Cost, u32)> = candidates.iter().map(|resource| rank(*resource)).collect();
        steps.take(ranked.len() as u64 / 8 + 1)?;
        if !problem.distinct && ranked.len() > builder.edges_max {
            ranked.select_nth_unstable(builder.edges_max);
            ranked.truncate(builder.edges_max);
        }
        ranked.sort_unstable();
        let mut seen = BTreeSet::new();
        let mut edges = Vec::new();
        for (cost, resource) in ranked {
            if edges.len() == builder.edges_max {
                break;
            }
            let value = problem.supply(resource).distinct.filter(|_| problem.distinct);
            if value.is_none_or(|value| seen.insert(value)) {
                let cost = if problem.distinct { cost } else { 0 };
                edges.push(builder.edge(resource, Basis::Eventually, cost));
            }
        }
        builder.add(demand, edges);
    }
    Ok(builder.graph)
}

/// Makes graphs whose bins are the resources, or with `distinct` the values.
struct Builder<'a> {
    problem: &'a Problem,
    graph: Graph,
    bins: BTreeMap<u32, u32>,
    /// A demand has no use for more: the others cannot be in the way of them all.
    edges_max: usize,
}

impl<'a> Builder<'a> {
    fn new(problem: &'a Problem) -> Self {
        Self { problem, graph: Graph::default(), bins: BTreeMap::new(), edges_max: problem.picks() }
    }

    fn add(&mut self, demand: &Demand, edges: Vec<Edge>) {
        self.graph.wanted.push(demand.count as usize);
        self.graph.edges.push(edges);
    }

    fn edge(&mut self, resource: u32, basis: Basis, cost: Cost) -> Edge {
        let supply = self.problem.supply(resource);
        let (key, bin) = match supply.distinct {
            Some(value) if self.problem.distinct => (value, Bin { room: 1, per_pick: 0, slots_free: 0, cost: 0 }),
            _ => {
                let Supply { per_pick, slots_free, .. } = *supply;
                (resource, Bin { room: supply.room(basis), per_pick, slots_free, cost: Cost::from(resource) })
            }
        };
        let bins = &mut self.graph.bins;
        let bin = *self.bins.entry(key).or_insert_with(|| {
            bins.push(bin);
            u32::try_from(bins.len() - 1).unwrap_or(u32::MAX)
        });
        Edge { bin, resource, cost }
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
