//! What the auditor knows of caps and retries: rules of a pool, and of work that is tried again.
//!
//! Who is held up by a cap is the core's to say, so claims on capped pools accuse nobody of waiting;
//! that no owner ever holds more, and that no retry counts from a moment the broker did not see, is
//! surely known.

use std::sync::Arc;

use super::audit::{Auditor, Kept, hold};
use crate::core::claim::{Claim, ClaimSpec};
use crate::core::lease::Lease;
use crate::core::types::LabTime;

impl Auditor {
    /// Whether a cap of a pool may hold it up.
    pub(super) fn may_be_capped(&self, claim: &Claim) -> bool {
        claim.spec.needs.iter().any(|need| self.caps.contains_key(&need.pool))
    }

    /// No owner holds more things of a pool than it may.
    pub(super) fn caps_hold(&self, lease: &Lease) -> Kept {
        for (pool, most) in &self.caps {
            let mut held = 0;
            for hold in self.leases.values().filter(|hold| hold.lease.owner.name == lease.owner.name) {
                let picks = hold.lease.picks.iter().filter(|pick| !hold.freed.contains(&pick.resource));
                let of_pool = |thing: &super::audit::Thing| thing.spec.pool == *pool;
                held += picks.filter(|pick| self.things.get(&pick.resource).is_some_and(of_pool)).count();
            }
            hold("caps hold", held <= *most as usize, || {
                format!("lease {} gives {} {held} of pool {pool}, which allows {most}", lease.id, lease.owner.name)
            })?;
        }
        Ok(())
    }

    /// A claim arrived that waits or is granted at once; one that says when its work arrived first
    /// says a moment at which the broker saw that work.
    pub(super) fn arrived(&mut self, owner: &Arc<str>, spec: &ClaimSpec, at: LabTime, first: Option<LabTime>) -> Kept {
        let Some(retry) = &spec.retry else {
            return hold("a retry keeps what the broker saw", first.is_none(), || format!("{first:?} for {spec:?}"));
        };
        let seen = self.arrivals.entry((owner.clone(), retry.work.clone())).or_default();
        let known = first.is_none_or(|first| seen.contains(&first));
        seen.insert(at);
        hold("a retry keeps what the broker saw", known, || {
            format!("{owner} has {} since {first:?}, and it was seen at {seen:?}", retry.work)
        })
    }
}
