//! When a waiting claim may be granted: a range, from how long leases of its pools were held.
//!
//! The queue is played forward a number of times from the books as they are. What a holder still
//! takes is drawn from the recorded holds of the pool that were longer than it has held already,
//! and what a claim will hold from all of them; who stands before whom, which resources match and
//! when a hold ends at the latest are the books' own. The range is where most of the plays end.
//!
//! Nothing is said where it would be a guess: few holds recorded, a claim that is blocked or
//! capped, `same`, `distinct`, several slots or `all:` in it or before it, a holder that has
//! outlasted every record and has no end, and more queue than the budget of steps can play.
//! The draws come from a generator with a fixed seed, so the same books give the same answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::broker::Broker;
use super::claim::Claim;
use super::lease::Lease;
use super::need::{Count, Slots};
use super::state::State;
use super::types::{ClaimId, Key, LabTime, LeaseId, ResourceId};

/// Holds of a pool that are remembered; for one more the oldest is forgotten.
pub const HOLDS_KEPT: usize = 128;
/// Fewer recorded holds than this are no basis.
pub const HOLDS_MIN: usize = 10;
/// Waiting claims played at most.
const CLAIMS_MAX: usize = 512;
/// Plays of the queue, at most and at least.
const PLAYS: std::ops::RangeInclusive<usize> = 24..=96;
/// Steps (slots set up, claims played) that one estimate may take.
const STEPS_MAX: usize = 150_000;
/// What taking a slot out of a heap and putting it back costs, in steps.
const STEPS_PER_PICK: usize = 8;
/// The range leaves out this share of the plays on each side, in percent. The records are few and
/// so is what they know of the tails: measured, about twice this share falls outside on each side.
const TAIL_PERCENT: usize = 5;
/// It does not come free in this play.
const NEVER: u64 = u64::MAX;

/// When a claim may be granted, from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eta {
    /// About one in ten is granted sooner, milliseconds.
    pub low_ms: u64,
    /// About one in ten is granted later, milliseconds.
    pub high_ms: u64,
    /// Recorded holds it rests on, of the pool that has fewest.
    pub holds: usize,
}

/// How long leases of each pool were held, the last ones. Beside the books: it is for estimates
/// only, and a process that starts is told what the store remembers.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    by_pool: BTreeMap<Key, Ring>,
}

#[derive(Clone, Debug)]
struct Ring {
    held_ms: [u64; HOLDS_KEPT],
    count: usize,
    next: usize,
}

impl Ring {
    fn known(&self) -> &[u64] {
        &self.held_ms[..self.count]
    }
}

impl Holds {
    /// Notes how long a lease held something of the pool, milliseconds.
    pub fn note(&mut self, pool: &Key, held_ms: u64) {
        if let Some(ring) = self.by_pool.get_mut(pool) {
            ring.held_ms[ring.next] = held_ms;
            ring.next = (ring.next + 1) % HOLDS_KEPT;
            ring.count = (ring.count + 1).min(HOLDS_KEPT);
            return;
        }
        let mut ring = Ring { held_ms: [0; HOLDS_KEPT], count: 1, next: 1 };
        ring.held_ms[0] = held_ms;
        self.by_pool.insert(pool.clone(), ring);
    }

    /// Notes a lease that ended.
    pub fn note_lease(&mut self, lease: &Lease, ended_at: LabTime) {
        let held_ms = ended_at.since(lease.granted_at);
        for (index, need) in lease.spec.needs.iter().enumerate() {
            // Needs on one pool were held together and count once.
            if lease.spec.needs[..index].iter().all(|before| before.pool != need.pool) {
                self.note(&need.pool, held_ms);
            }
        }
    }

    /// Forgets a pool that is not there any more.
    pub fn forget(&mut self, pool: &Key) {
        self.by_pool.remove(pool);
    }

    fn of(&self, pool: &Key) -> Option<Sample> {
        let ring = self.by_pool.get(pool).filter(|ring| ring.count >= HOLDS_MIN)?;
        let mut sorted = ring.known().to_vec();
        sorted.sort_unstable();
        Some(Sample { sorted })
    }
}

/// Recorded holds of a pool, shortest first.
struct Sample {
    sorted: Vec<u64>,
}

impl Sample {
    fn draw(&self, dice: &mut Dice) -> u64 {
        self.sorted[dice.below(self.sorted.len())]
    }

    /// What is left for one that has held so long; nothing where none held longer.
    fn rest(&self, age_ms: u64, dice: &mut Dice) -> Option<u64> {
        let longer = self.sorted.partition_point(|held| *held <= age_ms);
        let count = self.sorted.len() - longer;
        (count > 0).then(|| self.sorted[longer + dice.below(count)] - age_ms)
    }
}

/// A small generator (splitmix64): estimates need no better, and the same seed each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % (count as u64)).unwrap_or(0)
    }
}

/// One slot of a resource that may be given.
struct Slot {
    resource: ResourceId,
    pool: usize,
    holder: Option<LeaseId>,
    /// When it has cooled, where it does.
    cool_at_ms: u64,
}

/// What a claim takes: how many slots out of which selection.
struct Taking {
    count: usize,
    selection: usize,
}

/// A claim to play.
struct Player {
    id: ClaimId,
    needs: Vec<Taking>,
    /// Whose holds it is drawn from.
    pool: usize,
    basis: usize,
    until_ms: u64,
}

/// The queue and what it waits for, laid out for playing.
struct Board<'a> {
    slots: Vec<Slot>,
    selections: Vec<Vec<usize>>,
    /// The selections each slot is in.
    of_slot: Vec<Vec<usize>>,
    samples: Vec<Sample>,
    cooldowns_ms: Vec<u64>,
    holders: BTreeMap<LeaseId, &'a Lease>,
    players: Vec<Player>,
}

impl Broker {
    /// When the waiting claims of these pools may be granted, those of which something can be
    /// said; of all pools with `None`.
    #[must_use]
    pub fn etas(&self, now: LabTime, pools: Option<&BTreeSet<&Key>>) -> BTreeMap<ClaimId, Eta> {
        let Some(mut board) = self.board(now, pools) else { return BTreeMap::new() };
        let plays = board.fit();
        if plays == 0 {
            return BTreeMap::new();
        }
        let mut starts: Vec<Vec<u64>> = vec![Vec::with_capacity(plays); board.players.len()];
        let mut dice = Dice(0x1EA5_E401);
        for _ in 0..plays {
            board.play(now, &mut dice, &mut starts);
        }
        let each = board.players.iter().zip(starts).filter_map(|(player, mut starts)| {
            starts.sort_unstable();
            let tail = starts.len() * TAIL_PERCENT / 100;
            let (low_ms, high_ms) = (starts[tail], starts[starts.len() - 1 - tail]);
            (high_ms != NEVER).then_some((player.id, Eta { low_ms, high_ms, holds: player.basis }))
        });
        each.collect()
    }

    /// Lays out the waiting claims by seniority, up to the first of each pool that cannot be played.
    fn board(&self, now: LabTime, pools: Option<&BTreeSet<&Key>>) -> Option<Board<'_>> {
        let state = &self.state;
        let mut board = Board {
            slots: Vec::new(),
            selections: Vec::new(),
            of_slot: Vec::new(),
            samples: Vec::new(),
            cooldowns_ms: Vec::new(),
            holders: BTreeMap::new(),
            players: Vec::new(),
        };
        let mut known_pools: BTreeMap<&Key, Option<usize>> = BTreeMap::new();
        let mut selections = BTreeMap::new();
        let mut slots_of: BTreeMap<ResourceId, Vec<usize>> = BTreeMap::new();
        // Pools in which somebody waits whose turn cannot be foreseen: nothing is said of who is behind.
        let mut unclear: BTreeSet<&Key> = BTreeSet::new();
        let related = pools.map(|pools| self.spread(pools.iter().map(|pool| (*pool).clone()).collect()));
        let queue = state.queue.iter().filter_map(|seniority| state.claims.get(&seniority.claim));
        let asked = queue.filter(|claim| {
            related.as_ref().is_none_or(|pools| claim.spec.needs.iter().any(|need| pools.contains(&need.pool)))
        });
        for claim in asked.take(CLAIMS_MAX) {
            let mine = State::pools_of(claim);
            // Who cannot be granted at present keeps back nothing.
            if claim.blocked.is_some() || state.capped(claim, |_| 1).is_some() {
                continue;
            }
            for pool in &mine {
                known_pools.entry(*pool).or_insert_with(|| {
                    let sample = self.holds.of(pool)?;
                    board.samples.push(sample);
                    board.cooldowns_ms.push(self.pool(pool).map_or(0, |pool| pool.cooldown_ms));
                    Some(board.samples.len() - 1)
                });
            }
            let clear =
                is_simple(claim) && mine.iter().all(|pool| known_pools[pool].is_some() && !unclear.contains(pool));
            let Some(pool) = known_pools[&claim.spec.needs[0].pool].filter(|_| clear) else {
                unclear.extend(mine);
                continue;
            };
            let mut needs = Vec::with_capacity(claim.spec.needs.len());
            for (need, id) in claim.spec.needs.iter().zip(self.asks.get(&claim.id)?) {
                let Count::Exactly(count) = need.count else { return None };
                let selection = *selections.entry(*id).or_insert_with(|| {
                    let mut inside = Vec::new();
                    for resource in self.selections.get(*id).matches() {
                        let slots = slots_of.entry(resource).or_insert_with(|| {
                            let pool = known_pools[&need.pool].unwrap_or(0);
                            board.lay_out(state, resource, pool, now)
                        });
                        inside.extend(slots.iter().copied());
                    }
                    for slot in &inside {
                        board.of_slot[*slot].push(board.selections.len());
                    }
                    board.selections.push(inside);
                    board.selections.len() - 1
                });
                needs.push(Taking { count: count as usize, selection });
            }
            let basis = mine.iter().filter_map(|pool| known_pools[pool]).map(|pool| board.samples[pool].sorted.len());
            let basis = basis.min().unwrap_or(0);
            let most = claim.spec.hold_ms.or_else(|| self.max_hold_ms(mine.into_iter()));
            board.players.push(Player { id: claim.id, needs, pool, basis, until_ms: most.unwrap_or(NEVER) });
        }
        Some(board)
    }
}

impl<'a> Board<'a> {
    /// Lays out the slots of a resource; none of one that goes to nobody.
    fn lay_out(&mut self, state: &'a State, id: ResourceId, pool: usize, now: LabTime) -> Vec<usize> {
        let resource = state.resource(id);
        if !resource.is_grantable() {
            return Vec::new();
        }
        let mut made: Vec<Slot> = Vec::new();
        for lease in resource.holders.iter().map(|lease| state.lease(*lease)) {
            self.holders.insert(lease.id, lease);
            let slots: u32 = lease.picks.iter().filter(|pick| pick.resource == id).map(|pick| pick.slots).sum();
            let held = (0..slots).map(|_| Slot { resource: id, pool, holder: Some(lease.id), cool_at_ms: 0 });
            made.extend(held);
        }
        for cooling in &resource.cooling {
            let cool_at_ms = cooling.until.since(now);
            made.extend((0..cooling.slots).map(|_| Slot { resource: id, pool, holder: None, cool_at_ms }));
        }
        made.extend((0..resource.slots_free()).map(|_| Slot { resource: id, pool, holder: None, cool_at_ms: 0 }));
        let first = self.slots.len();
        self.slots.extend(made);
        self.of_slot.resize_with(self.slots.len(), Vec::new);
        (first..self.slots.len()).collect()
    }

    /// How often the budget lets the queue be played. Those at its end go unplayed where it does
    /// not suffice for all: nobody before them depends on them.
    fn fit(&mut self) -> usize {
        let mut steps = self.selections.iter().map(Vec::len).sum::<usize>() + self.slots.len();
        let mut fits = 0;
        for player in &self.players {
            let more = player.needs.iter().map(|need| STEPS_PER_PICK * (1 + need.count)).sum::<usize>();
            if (steps + more) * PLAYS.start() > STEPS_MAX {
                break;
            }
            steps += more;
            fits += 1;
        }
        self.players.truncate(fits);
        if fits == 0 { 0 } else { (STEPS_MAX / steps).min(*PLAYS.end()) }
    }

    /// Plays the queue once, and notes when each claim gets what it asks for.
    fn play(&self, now: LabTime, dice: &mut Dice, starts: &mut [Vec<u64>]) {
        let mut rests: BTreeMap<LeaseId, u64> = BTreeMap::new();
        let mut free_at: Vec<u64> = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            free_at.push(match slot.holder {
                None => slot.cool_at_ms,
                Some(id) => {
                    let rest = *rests.entry(id).or_insert_with(|| self.rest(id, slot.pool, now, dice));
                    rest.saturating_add(self.cooldowns_ms[slot.pool])
                }
            });
        }
        let heap = |inside: &Vec<usize>| inside.iter().map(|slot| Reverse((free_at[*slot], *slot))).collect();
        let mut heaps: Vec<BinaryHeap<Reverse<(u64, usize)>>> = self.selections.iter().map(heap).collect();
        for (player, starts) in self.players.iter().zip(starts) {
            let mut taken: Vec<usize> = Vec::new();
            let mut start = 0;
            for need in &player.needs {
                start = start.max(self.take(need, &free_at, &mut heaps[need.selection], &mut taken));
            }
            starts.push(start);
            let hold_ms = self.samples[player.pool].draw(dice).min(player.until_ms);
            for slot in taken {
                let again = start.saturating_add(hold_ms).saturating_add(self.cooldowns_ms[self.slots[slot].pool]);
                free_at[slot] = again;
                for selection in &self.of_slot[slot] {
                    heaps[*selection].push(Reverse((again, slot)));
                }
            }
        }
    }

    /// How long the holder still takes, by those that held longer; never where none did and its
    /// hold has no end.
    fn rest(&self, id: LeaseId, pool: usize, now: LabTime, dice: &mut Dice) -> u64 {
        let lease = self.holders[&id];
        let latest = lease.until.map_or(NEVER, |until| until.since(now));
        if lease.ending.is_some() {
            return 0;
        }
        self.samples[pool].rest(now.since(lease.granted_at), dice).map_or(latest, |rest| rest.min(latest))
    }

    /// Takes what a need asks for out of its heap, on distinct resources; when the last of it is free.
    fn take(
        &self,
        need: &Taking,
        free_at: &[u64],
        heap: &mut BinaryHeap<Reverse<(u64, usize)>>,
        taken: &mut Vec<usize>,
    ) -> u64 {
        let mut start = 0;
        let mut passed_over = Vec::new();
        let before = taken.len();
        while taken.len() - before < need.count {
            let Some(Reverse((at, slot))) = heap.pop() else {
                start = NEVER;
                break;
            };
            // An entry from before the slot was taken by somebody.
            if at != free_at[slot] || taken.contains(&slot) {
                continue;
            }
            let resource = self.slots[slot].resource;
            if taken[before..].iter().any(|other| self.slots[*other].resource == resource) {
                passed_over.push(Reverse((at, slot)));
                continue;
            }
            start = start.max(at);
            taken.push(slot);
        }
        heap.extend(passed_over);
        start
    }
}

/// Whether each need takes single slots of a stated number of resources.
fn is_simple(claim: &Claim) -> bool {
    let single = |need: &super::need::Need| matches!((need.count, need.slots), (Count::Exactly(_), Slots::Exactly(1)));
    claim.spec.same.is_none() && claim.spec.distinct.is_none() && claim.spec.needs.iter().all(single)
}
