//! First arrivals: what a retry's seniority counts from.
//!
//! A CI job that is run again names the run and job it belongs to, and which attempt it is. The
//! broker remembers when it saw the first claim of that name itself, and a retry takes its rank
//! from there instead of from now. No time is ever taken from a client.
//!
//! What keeps this from being a way to jump the queue: the memory is the owner's own and for the
//! same needs only; one claim at a time has it; each further attempt must have a higher number,
//! or follow a failure of the lab; it is used [`RETRIES_CARRIED_MAX`] times at most; a day after
//! the first arrival, or once the work has passed, it is forgotten.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::broker::Broker;
use super::claim::{Claim, ClaimSpec};
use super::decide::fingerprint_of_needs;
use super::event::Event;
use super::lease::{Lease, LeaseEnd, Outcome};
use super::limits::{ARRIVALS_KEPT_MS, ARRIVALS_MAX, RETRIES_CARRIED_MAX};
use super::state::{Deadline, State};
use super::types::{ClaimId, LabTime};

/// Which work a claim is for, as far as retries of it go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ArrivalKey {
    /// Whose, by name.
    pub owner: Arc<str>,
    /// The client's name for the run and job.
    pub work: Arc<str>,
    /// A fingerprint of what is asked for.
    pub needs: u64,
}

/// A first arrival, and what became of it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The claim that arrived first; its number is the record's.
    pub id: ClaimId,
    /// Of what.
    pub key: ArrivalKey,
    /// When.
    pub first: LabTime,
    /// The highest attempt seen.
    pub attempt: u64,
    /// How many claims took their rank from it.
    pub carried: u32,
    /// The last claim that was for it failed for the lab's reasons: the same attempt may try again.
    pub failed: bool,
    /// The last claim that was for it.
    pub claim: ClaimId,
}

impl State {
    pub(super) fn note_arrival(&mut self, arrival: &Arrival) {
        self.changed_arrival(arrival.id);
        self.deadlines.insert((arrival.first.plus(ARRIVALS_KEPT_MS), Deadline::Arrival(arrival.id)));
        self.arrival_keys.insert(arrival.key.clone(), arrival.id);
        self.arrivals.insert(arrival.id, arrival.clone());
    }

    pub(super) fn forget_arrival(&mut self, id: ClaimId) {
        self.changed_arrival(id);
        let Some(gone) = self.arrivals.remove(&id) else { return };
        self.arrival_keys.remove(&gone.key);
        self.deadlines.remove(&(gone.first.plus(ARRIVALS_KEPT_MS), Deadline::Arrival(id)));
    }

    fn arrival(&self, owner: &Arc<str>, spec: &ClaimSpec) -> Option<&Arrival> {
        self.arrivals.get(self.arrival_keys.get(&arrival_key(owner, spec)?)?)
    }
}

impl Broker {
    /// Since when a new claim counts as waiting, where it is a retry that may keep its first
    /// arrival.
    pub(super) fn first_arrival(&self, now: LabTime, owner: &Arc<str>, spec: &ClaimSpec) -> Option<LabTime> {
        let attempt = spec.retry.as_ref()?.attempt;
        let known = self.state.arrival(owner, spec)?;
        let again = attempt > known.attempt || known.failed;
        let alone = !self.state.claims.contains_key(&known.claim);
        let in_time = now.since(known.first) <= ARRIVALS_KEPT_MS && known.carried < RETRIES_CARRIED_MAX;
        (again && alone && in_time).then_some(known.first)
    }

    /// Remembers that a claim arrived that is granted or waits.
    pub(super) fn arrived(&mut self, now: LabTime, claim: &Claim) {
        let owner = &claim.owner.name;
        let Some((retry, key)) = claim.spec.retry.as_ref().zip(arrival_key(owner, &claim.spec)) else { return };
        let arrival = match self.state.arrival(owner, &claim.spec) {
            Some(known) if claim.first_arrival.is_some() => Arrival {
                attempt: known.attempt.max(retry.attempt),
                carried: known.carried.saturating_add(1),
                failed: false,
                claim: claim.id,
                ..known.clone()
            },
            Some(_) => return,
            None => {
                let attempt = retry.attempt;
                Arrival { id: claim.id, key, first: now, attempt, carried: 0, failed: false, claim: claim.id }
            }
        };
        if self.state.arrivals.len() >= ARRIVALS_MAX && !self.state.arrivals.contains_key(&arrival.id) {
            // The oldest has had the longest use of it.
            if let Some(oldest) = self.state.arrivals.keys().next().copied() {
                self.emit(now, Event::ArrivalForgotten { claim: oldest });
            }
        }
        self.emit(now, Event::ArrivalNoted { arrival });
    }

    /// Notes what the end of a lease means for a retry of its work.
    pub(super) fn work_ended(&mut self, now: LabTime, lease: &Lease, end: &LeaseEnd, outcome: Option<Outcome>) {
        if lease.spec.retry.is_none() {
            return;
        }
        let lab_failed = outcome == Some(Outcome::Infra)
            || matches!(
                end,
                LeaseEnd::SessionExpired | LeaseEnd::Dropped | LeaseEnd::SecretUnavailable { .. } | LeaseEnd::Moved
            );
        if lab_failed {
            self.lab_failed(now, &lease.owner.name, &lease.spec, lease.claim);
        } else if outcome == Some(Outcome::Passed)
            && let Some(known) = self.state.arrival(&lease.owner.name, &lease.spec)
            && known.claim == lease.claim
        {
            let claim = known.id;
            self.emit(now, Event::ArrivalForgotten { claim });
        }
    }

    /// The claim, or its lease, ended for the lab's reasons: the same attempt may come again.
    pub(super) fn lab_failed(&mut self, now: LabTime, owner: &Arc<str>, spec: &ClaimSpec, claim: ClaimId) {
        let known = self.state.arrival(owner, spec).filter(|known| known.claim == claim && !known.failed);
        if let Some(known) = known {
            let arrival = Arrival { failed: true, ..known.clone() };
            self.emit(now, Event::ArrivalNoted { arrival });
        }
    }
}

fn arrival_key(owner: &Arc<str>, spec: &ClaimSpec) -> Option<ArrivalKey> {
    let work = spec.retry.as_ref()?.work.clone();
    Some(ArrivalKey { owner: owner.clone(), work, needs: fingerprint_of_needs(spec) })
}
