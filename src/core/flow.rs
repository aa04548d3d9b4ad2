//! Filling demands from bins: a maximum flow, and a cheapest one.
//!
//! What is special about these flows keeps them small: at most sixteen demands, each takes from a
//! bin once, and only a demand can be moved out of the way of another. So a search goes from
//! demand to demand over the bins they share, and never keeps more than one mark per demand.
//! Every edge looked at is a step, so that the work is bounded by a count that two replays agree
//! on. `matching.rs` owns what demands and bins stand for.

use std::collections::{BTreeSet, VecDeque};

use super::matching::{Steps, TooComplex};

/// What an edge or a bin costs. Wide, so that one number can hold what is lacking before the
/// order of names, summed over any claim.
pub(super) type Cost = i128;

/// That a demand can take from a bin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    /// Index into the bins.
    pub bin: u32,
    /// The resource that is taken this way.
    pub resource: u32,
    /// Added when it is taken.
    pub cost: Cost,
}

/// What demands share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bin {
    /// How many may take from it.
    pub room: u32,
    /// Slots each takes.
    pub per_pick: u32,
    /// Slots that are free; those beyond are lacking.
    pub slots_free: u32,
    /// Added for each that takes from it.
    pub cost: Cost,
}

/// One slot that is lacking costs more than all names together can.
pub(super) const LACKING: Cost = 1 << 64;

impl Bin {
    /// What one more costs when `used` take from it already. Never falls as `used` grows, which
    /// is what makes taking the cheapest first right.
    fn next_cost(&self, used: usize) -> Cost {
        let lacking = |picks: usize| {
            let asked = (picks as Cost) * Cost::from(self.per_pick);
            (asked - Cost::from(self.slots_free)).max(0)
        };
        (lacking(used + 1) - lacking(used)) * LACKING + self.cost
    }
}

/// Demands, bins, and which can take from which, in order of preference.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// How many picks each demand wants.
    pub wanted: Vec<usize>,
    /// Of each demand, at most one per bin.
    pub edges: Vec<Vec<Edge>>,
    /// What they take from.
    pub bins: Vec<Bin>,
}

impl Graph {
    /// No filling of all demands costs less: each demand's cheapest, as if it were alone.
    /// The edges must stand cheapest first.
    pub fn cost_min(&self) -> Cost {
        self.cheapest().map(|(demand, edge)| self.edges[demand][edge]).map(|edge| self.cost_alone(edge)).sum()
    }

    fn cost_alone(&self, edge: Edge) -> Cost {
        edge.cost + self.bins[edge.bin as usize].next_cost(0)
    }

    /// Of each demand its first edges, as many as it wants.
    fn cheapest(&self) -> impl Iterator<Item = (usize, usize)> {
        let of = |(demand, edges): (usize, &Vec<Edge>)| {
            (0..edges.len().min(self.wanted[demand])).map(move |edge| (demand, edge))
        };
        self.edges.iter().enumerate().flat_map(of)
    }
}

/// A filling of demands, as far as it has come.
pub(super) struct Flow<'g> {
    graph: &'g Graph,
    /// Of each demand, which of its edges it has taken.
    taken: Vec<Vec<bool>>,
    /// Of each demand, how many those are.
    filled: Vec<usize>,
    /// Of each bin, who takes from it: demand and edge.
    takers: Vec<Vec<(usize, usize)>>,
}

/// What one more costs, of every bin that has room. Where only bins cost, no way to another pick
/// costs less than the best offer; where edges cost too, nothing is known in advance.
struct Offers {
    of: Vec<Option<Cost>>,
    in_order: BTreeSet<(Cost, u32)>,
}

impl Offers {
    fn new(graph: &Graph) -> Self {
        let mut offers = Self { of: vec![None; graph.bins.len()], in_order: BTreeSet::new() };
        if graph.edges.iter().flatten().all(|edge| edge.cost == 0) {
            (0..).zip(&graph.bins).for_each(|(bin, _)| offers.renew(graph, bin, 0));
        }
        offers
    }

    /// Notes that so many take from the bin now.
    fn renew(&mut self, graph: &Graph, bin: u32, used: usize) {
        let known = &mut self.of[bin as usize];
        if let Some(cost) = known.take() {
            self.in_order.remove(&(cost, bin));
        } else if used > 0 {
            return;
        }
        let Bin { room, .. } = graph.bins[bin as usize];
        if used < room as usize {
            let cost = graph.bins[bin as usize].next_cost(used);
            *known = Some(cost);
            self.in_order.insert((cost, bin));
        }
    }

    fn is_best(&self, bin: u32) -> bool {
        self.of[bin as usize].is_some_and(|cost| self.in_order.first().is_some_and(|(least, _)| *least == cost))
    }
}

/// The edge by which a search came to a demand, and the edge the demand gives up for it.
#[derive(Clone, Copy)]
struct Way {
    from: usize,
    edge: usize,
    given_up: usize,
}

impl<'g> Flow<'g> {
    /// Nothing taken yet.
    pub fn new(graph: &'g Graph) -> Self {
        Self {
            graph,
            taken: graph.edges.iter().map(|edges| vec![false; edges.len()]).collect(),
            filled: vec![0; graph.wanted.len()],
            takers: vec![Vec::new(); graph.bins.len()],
        }
    }

    /// Fills all demands as far as can be, whatever it costs; answers whether all are full.
    /// Demands are filled in order, each in order of preference.
    pub fn fill(&mut self, steps: &mut Steps) -> Result<bool, TooComplex> {
        for demand in 0..self.graph.wanted.len() {
            self.take_free(demand, steps)?;
            while self.filled[demand] < self.graph.wanted[demand] && self.make_room(demand, steps)? {}
        }
        Ok(self.is_full())
    }

    /// Fills all demands at the least cost, or answers `false` where they cannot all be. The
    /// edges of each demand must stand cheapest first, each as if alone.
    pub fn fill_cheaply(&mut self, steps: &mut Steps) -> Result<bool, TooComplex> {
        if self.take_apart(steps)? {
            return Ok(true);
        }
        let mut offers = Offers::new(self.graph);
        let mut demands: Vec<usize> = (0..self.graph.wanted.len()).collect();
        // Any order ends at the same cost; the least choosy last are seldom in anybody's way.
        demands.sort_by_key(|demand| self.graph.edges[*demand].len());
        for demand in demands {
            while self.filled[demand] < self.graph.wanted[demand] {
                let Some(bin) = self.take_cheapest(demand, &offers, steps)? else { return Ok(false) };
                offers.renew(self.graph, bin, self.takers[bin as usize].len());
            }
        }
        Ok(true)
    }

    fn is_full(&self) -> bool {
        self.filled == self.graph.wanted
    }

    /// The resources each demand has, in its order of preference.
    pub fn picks(&self) -> Vec<Vec<u32>> {
        let of = |(edges, taken): (&Vec<Edge>, &Vec<bool>)| {
            edges.iter().zip(taken).filter(|(_, taken)| **taken).map(|(edge, _)| edge.resource).collect()
        };
        self.graph.edges.iter().zip(&self.taken).map(of).collect()
    }

    /// What it costs together.
    pub fn cost(&self) -> Cost {
        let bins = self.graph.bins.iter().zip(&self.takers);
        let bins: Cost =
            bins.map(|(bin, takers)| (0..takers.len()).map(|used| bin.next_cost(used)).sum::<Cost>()).sum();
        let edges = self.graph.edges.iter().zip(&self.taken).flat_map(|(edges, taken)| edges.iter().zip(taken));
        bins + edges.filter(|(_, taken)| **taken).map(|(edge, _)| edge.cost).sum::<Cost>()
    }

    fn has_room(&self, bin: u32) -> bool {
        self.takers[bin as usize].len() < self.graph.bins[bin as usize].room as usize
    }

    fn take(&mut self, demand: usize, edge: usize) {
        self.taken[demand][edge] = true;
        self.takers[self.graph.edges[demand][edge].bin as usize].push((demand, edge));
    }

    fn give_up(&mut self, demand: usize, edge: usize) {
        self.taken[demand][edge] = false;
        self.takers[self.graph.edges[demand][edge].bin as usize].retain(|taker| *taker != (demand, edge));
    }

    fn take_free(&mut self, demand: usize, steps: &mut Steps) -> Result<(), TooComplex> {
        for edge in 0..self.graph.edges[demand].len() {
            if self.filled[demand] == self.graph.wanted[demand] {
                break;
            }
            steps.take(1)?;
            if self.has_room(self.graph.edges[demand][edge].bin) {
                self.take(demand, edge);
                self.filled[demand] += 1;
            }
        }
        Ok(())
    }

    /// Gives each demand its cheapest, if no two want the same: nothing can cost less.
    fn take_apart(&mut self, steps: &mut Steps) -> Result<bool, TooComplex> {
        let mut wanted = vec![false; self.graph.bins.len()];
        for (demand, edge) in self.graph.cheapest() {
            steps.take(1)?;
            if std::mem::replace(&mut wanted[self.graph.edges[demand][edge].bin as usize], true) {
                return Ok(false);
            }
        }
        let enough = |(edges, wanted): (&Vec<Edge>, &usize)| edges.len() >= *wanted;
        if !self.graph.edges.iter().zip(&self.graph.wanted).all(enough) {
            return Ok(false);
        }
        for (demand, edge) in self.graph.cheapest() {
            self.take(demand, edge);
            self.filled[demand] += 1;
        }
        Ok(true)
    }

    /// One pick more for `demand` by moving as few others as possible; `false` when none can be.
    fn make_room(&mut self, demand: usize, steps: &mut Steps) -> Result<bool, TooComplex> {
        let mut ways: Vec<Option<Way>> = vec![None; self.graph.wanted.len()];
        let mut seen_bins = vec![false; self.graph.bins.len()];
        let mut queue = VecDeque::from([demand]);
        while let Some(from) = queue.pop_front() {
            for (edge, Edge { bin, .. }) in self.graph.edges[from].iter().enumerate() {
                steps.take(1)?;
                if self.taken[from][edge] || std::mem::replace(&mut seen_bins[*bin as usize], true) {
                    continue;
                }
                if self.has_room(*bin) {
                    self.move_along(demand, from, edge, &ways);
                    return Ok(true);
                }
                for (other, given_up) in &self.takers[*bin as usize] {
                    steps.take(1)?;
                    if *other != demand && ways[*other].is_none() {
                        ways[*other] = Some(Way { from, edge, given_up: *given_up });
                        queue.push_back(*other);
                    }
                }
            }
        }
        Ok(false)
    }

    /// One pick more for `demand` where that adds the least; answers the bin that has one more
    /// taker, `None` when none can be.
    fn take_cheapest(&mut self, demand: usize, offers: &Offers, steps: &mut Steps) -> Result<Option<u32>, TooComplex> {
        let reach = if offers.in_order.is_empty() { &[][..] } else { &self.graph.edges[demand][..] };
        for (edge, Edge { bin, .. }) in reach.iter().enumerate() {
            steps.take(1)?;
            if !self.taken[demand][edge] && offers.is_best(*bin) {
                self.take(demand, edge);
                self.filled[demand] += 1;
                return Ok(Some(*bin));
            }
        }
        self.search_cheapest(demand, steps)
    }

    /// The same where the best offer is out of its own reach. Prices fall when others give
    /// something up, so marks are improved until none can be.
    fn search_cheapest(&mut self, demand: usize, steps: &mut Steps) -> Result<Option<u32>, TooComplex> {
        let demands = self.graph.wanted.len();
        let mut ways: Vec<Option<Way>> = vec![None; demands];
        let mut prices: Vec<Option<Cost>> = vec![None; demands];
        prices[demand] = Some(0);
        let mut best: Option<(Cost, usize, usize)> = None;
        let mut queue = VecDeque::from([demand]);
        let mut queued = vec![false; demands];
        while let Some(from) = queue.pop_front() {
            queued[from] = false;
            let Some(price) = prices[from] else { continue };
            for (edge, Edge { bin, cost, .. }) in self.graph.edges[from].iter().enumerate() {
                steps.take(1)?;
                if self.taken[from][edge] {
                    continue;
                }
                let (price, takers) = (price + cost, &self.takers[*bin as usize]);
                if self.has_room(*bin) {
                    let end = price + self.graph.bins[*bin as usize].next_cost(takers.len());
                    if best.is_none_or(|(least, ..)| end < least) {
                        best = Some((end, from, edge));
                    }
                }
                for (other, given_up) in takers {
                    steps.take(1)?;
                    let price = price - self.graph.edges[*other][*given_up].cost;
                    if *other != demand && prices[*other].is_none_or(|known| price < known) {
                        prices[*other] = Some(price);
                        ways[*other] = Some(Way { from, edge, given_up: *given_up });
                        if !std::mem::replace(&mut queued[*other], true) {
                            queue.push_back(*other);
                        }
                    }
                }
            }
        }
        let Some((_, last, edge)) = best else { return Ok(None) };
        self.move_along(demand, last, edge, &ways);
        Ok(Some(self.graph.edges[last][edge].bin))
    }

    /// `last` takes `edge`, and on the way back to `demand` each gives its own up to the one before.
    fn move_along(&mut self, demand: usize, last: usize, edge: usize, ways: &[Option<Way>]) {
        self.take(last, edge);
        let mut at = last;
        while at != demand {
            let Some(way) = ways[at] else { break };
            self.give_up(at, way.given_up);
            self.take(way.from, way.edge);
            at = way.from;
        }
        self.filled[demand] += 1;
    }
}
