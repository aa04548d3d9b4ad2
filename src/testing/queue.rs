//! What the auditor can be sure of about the queue, without knowing what the core keeps back.
//!
//! Whoever waits though the slots that are surely nobody's satisfy it was forgotten; whoever got
//! what the most senior claim could have kept has overtaken it. Where a choice is the core's to
//! make, the auditor assumes the one that accuses nobody.

use std::collections::BTreeSet;

use super::audit::{Auditor, Kept, hold};
use super::puzzle::{self, Slotted};
use crate::core::claim::Claim;
use crate::core::lease::Lease;
use crate::core::need::{Count, Slots};
use crate::core::types::{ClaimId, ResourceId};

/// What one step of priority is worth, milliseconds: five minutes, as the design says.
const PRIORITY_WORTH_MS: i64 = 300_000;

/// Smaller is more senior.
fn seniority(claim: &Claim) -> (i64, ClaimId) {
    let arrival = i64::try_from(claim.first_arrival.unwrap_or(claim.queued_at).0).unwrap_or(i64::MAX);
    (arrival - i64::from(claim.spec.priority) * PRIORITY_WORTH_MS, claim.id)
}

impl Auditor {
    fn free(&self) -> Slotted {
        let usable = self.things.iter().filter(|(_, thing)| thing.usable());
        usable.map(|(id, thing)| (*id, thing.free())).collect()
    }

    /// Whether it could ever be granted as things are marked now.
    fn has_hope(&self, claim: &Claim) -> bool {
        let usable = self.things.iter().filter(|(_, thing)| thing.usable());
        let all: Slotted = usable.map(|(id, thing)| (*id, thing.spec.slots)).collect();
        puzzle::solvable(&claim.spec, &self.things, &all) != Some(false)
    }

    /// Whoever can be granted is. To be asked when the broker has settled and its store works.
    /// `returning`: sessions that are away may still keep back what their claims need.
    pub(super) fn granted_when_it_can_be(&self, returning: bool) -> Kept {
        let mut left = self.free();
        let mut waiting: Vec<&Claim> = self.claims.values().map(|claim| &**claim).collect();
        waiting.sort_by_key(|claim| seniority(claim));
        for claim in waiting {
            let known = self.sessions.get(&claim.session);
            let here = self.bound.contains_key(&claim.session) || known.is_some_and(|known| known.keyed);
            if !here && !returning || !self.has_hope(claim) {
                continue;
            }
            if here && !self.may_be_capped(claim) {
                let possible = puzzle::solvable(&claim.spec, &self.things, &left) == Some(true);
                hold("granted when it can be", !possible, || format!("{claim:?} waits, and free are {left:?}"))?;
            }
            // It may keep back any of what it could use.
            left.retain(|id, _| {
                let thing = &self.things[id];
                !claim.spec.needs.iter().any(|need| puzzle::fits(need, thing))
            });
        }
        Ok(())
    }

    /// Everybody whom the inventory can satisfy has been, where all others have given back.
    pub(super) fn nobody_waits(&self) -> Kept {
        let stuck = self.claims.values().find(|claim| {
            let known = self.sessions.get(&claim.session);
            let here = self.bound.contains_key(&claim.session) || known.is_some_and(|known| known.keyed);
            here && self.has_hope(claim)
        });
        hold("nobody starves", stuck.is_none(), || format!("{stuck:?} waits though everybody gave back"))
    }

    /// The most senior claim on a pool that surely takes part keeps a largest part of itself:
    /// a junior's grant leaves it that. Plain claims only, where the part is a number.
    pub(super) fn overtakes_nobody(&self, lease: &Lease) -> Kept {
        let junior = self.claims.get(&lease.claim).map(|claim| seniority(claim));
        if junior.is_none() && lease.spec.retry.is_some() {
            return Ok(()); // It may count from an earlier arrival, which a lease does not tell.
        }
        let arrival = i64::try_from(lease.queued_at.0).unwrap_or(i64::MAX);
        let junior =
            junior.unwrap_or_else(|| (arrival - i64::from(lease.spec.priority) * PRIORITY_WORTH_MS, lease.claim));
        let taken: BTreeSet<ResourceId> = lease.picks.iter().map(|pick| pick.resource).collect();
        for senior in self.claims.values().filter(|claim| seniority(claim) < junior) {
            let [need] = senior.spec.needs.as_slice() else { continue };
            let (Count::Exactly(count), Slots::Exactly(1)) = (need.count, need.slots) else { continue };
            let plain = senior.spec.same.is_none() && senior.spec.distinct.is_none();
            if !plain || self.may_be_capped(senior) || !self.present.contains(&senior.session) || !self.has_hope(senior)
            {
                continue;
            }
            // Others before it may keep back the very same things.
            let rival = |claim: &&std::sync::Arc<Claim>| {
                let pools = claim.spec.needs.iter().any(|other| other.pool == need.pool);
                claim.id != lease.claim && seniority(claim) < seniority(senior) && pools
            };
            if self.claims.values().any(|claim| rival(&claim)) {
                continue;
            }
            let useful = |id: &ResourceId| puzzle::fits(need, &self.things[id]);
            let free: Vec<ResourceId> =
                self.free().into_iter().filter(|(id, slots)| *slots > 0 && useful(id)).map(|(id, _)| id).collect();
            let kept = (count as usize).min(free.len());
            // Of a thing with many slots one more may be free after the grant.
            let many = free.iter().any(|id| self.things[id].spec.slots > 1);
            let left = free.iter().filter(|id| !taken.contains(*id)).count();
            hold("nobody starves", many || left >= kept, || {
                format!("lease {} of {junior:?} left {left} of {kept} things to the senior {senior:?}", lease.id)
            })?;
        }
        Ok(())
    }
}
