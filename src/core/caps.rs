//! Caps: what one owner may have of a pool at a time.
//!
//! Owns the counting of what each owner holds and waits for, where a pool's policy asks for it,
//! and the judgement whether a claim waits for a cap. Owners are told apart by name. What a
//! capped claim means for others is `broker.rs`'s: it keeps back nothing, keeps its place, and
//! its owner's later claims on that pool wait behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::broker::Broker;
use super::claim::{Claim, Seniority};
use super::lease::Lease;
use super::need::{Count, Need};
use super::refusal::{Code, Refusal};
use super::schedule::{Ask, Kept};
use super::selection::SelectionId;
use super::state::State;
use super::types::{ClaimId, Key, LeaseId, ResourceId};

/// What one owner has of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Picks of leases, active or ending, that were not freed.
    pub held: u32,
    /// Waiting claims, most senior first.
    pub waiting: BTreeSet<Seniority>,
}

/// Why a cap holds a claim up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capped {
    /// The pool whose cap it is.
    pub pool: Key,
    /// What one owner may hold of it.
    pub most: u32,
    /// What its owner holds.
    pub held: u32,
    /// What the claim asks for.
    pub asked: u32,
    /// The claim of the same owner that it waits behind, where it would fit by itself.
    pub behind: Option<ClaimId>,
}

impl State {
    /// Counts anew what each owner has of a pool: its policy may ask for that only now.
    pub(super) fn recount(&mut self, key: &Key) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        if !pool.pool.counts_owners() {
            self.counting.remove(key);
            pool.owners.clear();
            return;
        }
        if !self.counting.insert(key.clone()) {
            return;
        }
        let mut owners: BTreeMap<Arc<str>, Share> = BTreeMap::new();
        for resource in pool.members.iter().filter_map(|id| self.resources.get(id)) {
            for lease in resource.holders.iter().filter_map(|id| self.leases.get(id)) {
                owners.entry(lease.owner.name.clone()).or_default().held += picks_of(lease, resource.id);
            }
        }
        for seniority in &pool.queue {
            if let Some(claim) = self.claims.get(&seniority.claim) {
                owners.entry(claim.owner.name.clone()).or_default().waiting.insert(*seniority);
            }
        }
        pool.owners = owners;
    }

    pub(super) fn count_held(&mut self, lease: &Lease) {
        if self.counting.is_empty() {
            return;
        }
        for pick in lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource)) {
            let pool = self.resource(pick.resource).spec.pool.clone();
            self.share_mut(&pool, &lease.owner.name, |share| share.held += 1);
        }
    }

    pub(super) fn count_freed(&mut self, lease: &Lease, resource: ResourceId) {
        if !self.counting.is_empty() {
            let pool = self.resource(resource).spec.pool.clone();
            self.share_mut(&pool, &lease.owner.name, |share| share.held -= picks_of(lease, resource));
        }
    }

    pub(super) fn count_waiting(&mut self, claim: &Claim, waits: bool) {
        if self.counting.is_empty() {
            return;
        }
        for pool in Self::pools_of(claim) {
            self.share_mut(pool, &claim.owner.name, |share| {
                if waits {
                    share.waiting.insert(claim.seniority);
                } else {
                    share.waiting.remove(&claim.seniority);
                }
            });
        }
    }

    fn share_mut(&mut self, pool: &Key, owner: &Arc<str>, change: impl FnOnce(&mut Share)) {
        if !self.counting.contains(pool) {
            return;
        }
        let Some(pool) = self.pools.get_mut(pool) else { return };
        let share = pool.owners.entry(owner.clone()).or_default();
        change(share);
        if *share == Share::default() {
            pool.owners.remove(owner);
        }
    }

    /// The cap that holds a waiting claim up, if one does. `all` says how many an `all:` need
    /// asks for; where it does not know, nothing is said of the claim's own size.
    #[must_use]
    pub fn capped(&self, claim: &Claim, all: impl Fn(&Need) -> u32) -> Option<Capped> {
        let of = |pool: &Key, claim: &Claim, behind| {
            let state = self.pools.get(pool)?;
            let most = state.pool.max_per_owner?;
            let held = state.owners.get(&claim.owner.name).map_or(0, |share| share.held);
            let asked = asked_of(claim, pool, |_, need| all(need));
            Some(Capped { pool: pool.clone(), most, held, asked, behind })
        };
        let over = |capped: &Capped| capped.held.saturating_add(capped.asked) > capped.most;
        for pool in Self::pools_of(claim).into_iter().filter(|pool| self.counting.contains(*pool)) {
            let own = of(pool, claim, None)?;
            if over(&own) {
                return Some(own);
            }
            let waiting = self.pools.get(pool)?.owners.get(&claim.owner.name).map(|share| &share.waiting);
            let seniors = waiting.into_iter().flat_map(|waiting| waiting.range(..claim.seniority));
            let mut seniors = seniors.filter_map(|senior| self.claims.get(&senior.claim));
            let first = seniors
                .find(|senior| senior.blocked.is_none() && of(pool, senior, None).is_some_and(|capped| over(&capped)));
            if let Some(first) = first {
                return Some(Capped { behind: Some(first.id), ..own });
            }
        }
        None
    }
}

impl Broker {
    /// Whether a cap holds the claim up in this pass: it and what its owner has would exceed one,
    /// or it waits behind a claim of the same owner that does. One that could not be granted
    /// anyway, as what it matches is out of use, holds up nobody.
    pub(super) fn waits_for_cap(&self, claim: &Claim, selections: &[SelectionId], kept: &mut Kept) -> bool {
        if self.state.counting.is_empty() {
            return false;
        }
        let owner = &claim.owner.name;
        let mut waits = false;
        for key in State::pools_of(claim).into_iter().filter(|key| self.state.counting.contains(*key)) {
            let Some(most) = self.pool(key).and_then(|pool| pool.max_per_owner) else { continue };
            let held = self.state.pools[key].owners.get(owner).map_or(0, |share| share.held);
            let asked = self.asked(claim, selections, key);
            if held.saturating_add(asked) > most {
                waits = true;
                let ask = Ask { spec: &claim.spec, selections, pin: None };
                if self.scheduler().at_present(ask) == Ok(true) {
                    kept.capped.insert((owner.clone(), key.clone()));
                }
            } else {
                waits |= kept.capped.contains(&(owner.clone(), key.clone()));
            }
        }
        waits
    }

    /// Whether the last lease is one of a pool whose cap its owner waits for too.
    pub(super) fn fills_a_cap(&self) -> bool {
        if self.state.counting.is_empty() {
            return false;
        }
        let Some(lease) = self.state.leases.values().next_back() else { return false };
        let pools = lease.spec.needs.iter().filter_map(|need| self.state.pools.get(&need.pool));
        let mut shares = pools.filter_map(|pool| pool.owners.get(&lease.owner.name));
        shares.any(|share| !share.waiting.is_empty())
    }

    /// Refuses what the policy of a pool never allows: more priority, or by itself more resources.
    pub(super) fn within_caps(&self, claim: &Claim, selections: &[SelectionId]) -> Result<(), Refusal> {
        for key in State::pools_of(claim) {
            let Some(pool) = self.pool(key) else { continue };
            if let Some(most) = pool.max_priority.filter(|most| claim.spec.priority > *most) {
                let message = format!(
                    "priority {} is higher than pool {key} allows ({most}): ask with {most} or less",
                    claim.spec.priority
                );
                return Err(Refusal::new(Code::PriorityTooHigh, message));
            }
            let asked = pool.max_per_owner.map_or(0, |_| self.asked(claim, selections, key));
            if let Some(most) = pool.max_per_owner.filter(|most| asked > *most) {
                let message = format!(
                    "the claim is for {asked} resources of pool {key}, of which one owner may hold {most}: ask for \
                     less"
                );
                return Err(Refusal::new(Code::OverCap, message));
            }
        }
        Ok(())
    }

    /// Refuses a claim that would wait where its owner has as many waiting as it may, or whose
    /// cap is taken up by the leases it runs under, which cannot end before it.
    pub(super) fn may_wait(&self, claim: &Claim, selections: &[SelectionId]) -> Result<(), Refusal> {
        for key in State::pools_of(claim).into_iter().filter(|key| self.state.counting.contains(*key)) {
            let Some(pool) = self.state.pools.get(key) else { continue };
            let owner = &claim.owner.name;
            let waiting = pool.owners.get(owner).map_or(0, |share| share.waiting.len());
            if pool.pool.max_waiting_per_owner.is_some_and(|most| waiting >= most as usize) {
                let message = format!(
                    "{owner} has {waiting} claims waiting for pool {key}, as many as one owner may: cancel some, or \
                     wait"
                );
                return Err(Refusal::new(Code::TooManyClaims, message));
            }
            let Some(most) = pool.pool.max_per_owner else { continue };
            let outer: u32 = self.outer_leases(claim).iter().map(|id| self.picks_in(*id, key)).sum();
            if outer.saturating_add(self.asked(claim, selections, key)) > most {
                let message = format!(
                    "one owner may hold {most} of pool {key}, and the leases that this claim runs under hold {outer}: \
                     claim everything in one `run -n ... -n ...`, or release the outer lease first"
                );
                return Err(Refusal::new(Code::WouldDeadlock, message));
            }
        }
        Ok(())
    }

    /// The leases that a claim runs under, all of its own owner.
    fn outer_leases(&self, claim: &Claim) -> BTreeSet<LeaseId> {
        let mut found = BTreeSet::new();
        let mut next = claim.spec.outer;
        while let Some(lease) = next.and_then(|id| self.state.leases.get(&id))
            && lease.owner.name == claim.owner.name
            && lease.ending.is_none()
            && found.insert(lease.id)
        {
            next = lease.spec.outer;
        }
        found
    }

    fn picks_in(&self, id: LeaseId, pool: &Key) -> u32 {
        let lease = self.state.lease(id);
        let held = lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource));
        let inside = held.filter(|pick| self.state.resource(pick.resource).spec.pool == *pool);
        u32::try_from(inside.count()).unwrap_or(u32::MAX)
    }

    fn asked(&self, claim: &Claim, selections: &[SelectionId], pool: &Key) -> u32 {
        asked_of(claim, pool, |index, _| {
            u32::try_from(self.selections.get(selections[index]).grantable()).unwrap_or(u32::MAX)
        })
    }
}

/// Resources of the pool that the claim asks for.
fn asked_of(claim: &Claim, pool: &Key, all: impl Fn(usize, &Need) -> u32) -> u32 {
    let needs = claim.spec.needs.iter().enumerate().filter(|(_, need)| need.pool == *pool);
    let counts = needs.map(|(index, need)| match need.count {
        Count::Exactly(count) => count,
        Count::All => all(index, need),
    });
    counts.fold(0, u32::saturating_add)
}

fn picks_of(lease: &Lease, resource: ResourceId) -> u32 {
    u32::try_from(lease.picks.iter().filter(|pick| pick.resource == resource).count()).unwrap_or(u32::MAX)
}
