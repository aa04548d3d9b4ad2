//! Granting, releasing, extending and ending leases.

use std::sync::Arc;

use crate::core::broker::Broker;
use crate::core::claim::Claim;
use crate::core::command::{Claimant, Reply};
use crate::core::event::Event;
use crate::core::lease::{Ending, Lease, LeaseEnd, Outcome, Pick};
use crate::core::limits::FENCE_MAX;
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{SessionEnd, SessionKind};
use crate::core::types::{LabTime, LeaseId, ResourceId, ResourceName};
use crate::units::show_duration_ms;

impl Broker {
    pub(in crate::core) fn grant(&mut self, now: LabTime, claim: &Claim, picks: Vec<Pick>) {
        let id = LeaseId(self.state.lab.last_lease + 1);
        assert!(id.0 <= FENCE_MAX, "the fences of this store are used up at {id}");
        let hold_ms = claim.spec.hold_ms.or_else(|| self.max_hold_ms(claim.spec.needs.iter().map(|need| &need.pool)));
        let lease = Lease {
            id,
            claim: claim.id,
            session: claim.session,
            request: claim.request,
            body_hash: claim.body_hash,
            owner: claim.owner.clone(),
            spec: claim.spec.clone(),
            picks,
            queued_at: claim.queued_at,
            granted_at: now,
            until: hold_ms.map(|ms| now.plus(ms)),
            ending: None,
            freed: Vec::new(),
        };
        self.emit(now, Event::LeaseGranted { lease: Arc::new(lease) });
        self.forget_claim(claim);
    }

    /// The smallest `max_hold` of these pools, if any has one.
    pub(in crate::core) fn max_hold_ms<'a>(
        &self,
        pools: impl Iterator<Item = &'a crate::core::types::Key>,
    ) -> Option<u64> {
        pools.filter_map(|pool| self.pool(pool)?.max_hold_ms).min()
    }

    pub(in crate::core) fn release(
        &mut self,
        now: LabTime,
        id: LeaseId,
        claimant: &Claimant,
        outcome: Option<Outcome>,
    ) -> Reply {
        let Some(lease) = self.state.leases.get(&id).cloned() else { return Reply::NotHeld(id) };
        if let Err(refusal) = self.may(claimant, &lease) {
            return Reply::Refused(refusal);
        }
        // What was ending under its holder has ended for that reason, however it is given back.
        let end = match &lease.ending {
            Some(ending) => ending.why.clone(),
            None => LeaseEnd::Released { by: claimant.name.clone() },
        };
        self.finish_lease(now, id, end.clone(), outcome);
        Reply::Released { lease: id, end }
    }

    pub(in crate::core) fn extend(&mut self, now: LabTime, id: LeaseId, claimant: &Claimant, until: LabTime) -> Reply {
        let Some(lease) = self.state.leases.get(&id).cloned() else { return Reply::NotHeld(id) };
        if let Err(refusal) = self.may(claimant, &lease) {
            return Reply::Refused(refusal);
        }
        if lease.ending.is_some() {
            let message = format!("lease {id} is ending and cannot be extended: release it and acquire again");
            return Reply::Refused(Refusal::new(Code::LeaseEnding, message));
        }
        if lease.until == Some(until) {
            return Reply::Lease(id);
        }
        let pools = lease.picks.iter().map(|pick| &self.state.resource(pick.resource).spec.pool);
        if let Some(most) = self.max_hold_ms(pools)
            && until.since(lease.granted_at) > most
        {
            let more = lease.granted_at.plus(most).since(lease.until.unwrap_or(now).max(now));
            let hint = match more {
                0 => "it is held as long as they allow already".to_owned(),
                more => format!("it can be extended by {} more", show_duration_ms(more)),
            };
            let message = format!(
                "lease {id} would be held for {}, and its pools allow at most {}: {hint}",
                show_duration_ms(until.since(lease.granted_at)),
                show_duration_ms(most)
            );
            return Reply::Refused(Refusal::new(Code::HoldTooLong, message));
        }
        self.emit(now, Event::LeaseExtended { lease: id, until, by: claimant.name.clone() });
        Reply::Lease(id)
    }

    pub(in crate::core) fn revoke(
        &mut self,
        now: LabTime,
        id: LeaseId,
        by: Arc<str>,
        reason: Option<Arc<str>>,
        forced: bool,
    ) -> Reply {
        if !self.state.leases.contains_key(&id) {
            return Reply::NotHeld(id);
        }
        let why = LeaseEnd::Revoked { by, forced, reason };
        if forced {
            self.finish_lease(now, id, why, None);
        } else {
            self.begin_ending(now, id, why);
        }
        Reply::Done
    }

    /// Ends a lease under a live holder: it is told, and its resources go to nobody before it has
    /// released or a ttl is over, which is for presence to say.
    pub(in crate::core) fn begin_ending(&mut self, now: LabTime, id: LeaseId, why: LeaseEnd) {
        if self.state.lease(id).ending.is_none() {
            self.emit(now, Event::LeaseEnding { lease: id, ending: Ending { why, since: now } });
        }
    }

    pub(in crate::core) fn ending_over(&mut self, now: LabTime, id: LeaseId) -> Reply {
        let ending = self.state.leases.get(&id).and_then(|lease| lease.ending.clone());
        if let Some(ending) = ending {
            self.finish_lease(now, id, ending.why, None);
        }
        Reply::Done
    }

    pub(in crate::core) fn secret_unavailable(
        &mut self,
        now: LabTime,
        id: LeaseId,
        resource: &ResourceName,
        reason: Arc<str>,
    ) -> Reply {
        if let Some(known) = self.state.names.get(resource).copied()
            && self.state.resource(known).marks.quarantined.is_none()
        {
            let reason = format!("secret_unavailable: {reason}").into();
            self.emit(now, Event::ResourceQuarantined { resource: known, reason, by: "broker".into() });
        }
        if self.state.leases.contains_key(&id) {
            self.finish_lease(now, id, LeaseEnd::SecretUnavailable { resource: resource.clone() }, None);
        }
        Reply::Done
    }

    /// Ends a lease: its resources are free, and its session too if it was only there for this.
    pub(in crate::core) fn finish_lease(&mut self, now: LabTime, id: LeaseId, end: LeaseEnd, outcome: Option<Outcome>) {
        let session = self.state.lease(id).session;
        self.give_back(now, id, end, outcome, 0);
        self.request_ended(now, session);
    }

    /// Ends a lease and leaves its session as it is. What it had goes to nobody for `kept_ms`.
    pub(in crate::core) fn give_back(
        &mut self,
        now: LabTime,
        id: LeaseId,
        end: LeaseEnd,
        outcome: Option<Outcome>,
        kept_ms: u64,
    ) {
        let lease = self.state.lease(id).clone();
        self.work_ended(now, &lease, &end, outcome);
        self.holds.note_lease(&lease, now);
        self.emit(now, Event::LeaseEnded { lease: id, session: lease.session, end, outcome });
        let held = lease.picks.iter().map(|pick| pick.resource).filter(|held| !lease.freed.contains(held));
        let held: std::collections::BTreeSet<ResourceId> = held.collect();
        self.freed(now, &lease, held, kept_ms);
    }

    /// A request of the session ended: forgets the oldest ended ones, and ends a session that was
    /// only there for this request.
    pub(in crate::core) fn request_ended(&mut self, now: LabTime, id: crate::core::types::SessionId) {
        let Some(session) = self.state.sessions.get(&id) else { return };
        if let Some(up_to) = session.requests.forgettable() {
            self.emit(now, Event::RequestsForgotten { session: id, up_to });
        }
        let Some(session) = self.state.sessions.get(&id) else { return };
        let lonely = session.requests.open.is_empty() && session.kicked_by.is_none();
        if lonely && matches!(session.kind, SessionKind::Keyed { .. }) {
            self.drop_session(now, id, SessionEnd::Closed);
        } else {
            self.end_if_kicked(now, id);
        }
    }

    /// Whether the claimant may release, extend or cancel what this lease's session has.
    fn may(&self, claimant: &Claimant, lease: &Lease) -> Result<(), Refusal> {
        self.may_act(claimant, lease.session, &lease.owner.name, &format!("lease {}", lease.id))
    }

    pub(in crate::core) fn may_act(
        &self,
        claimant: &Claimant,
        session: crate::core::types::SessionId,
        owner: &Arc<str>,
        what: &str,
    ) -> Result<(), Refusal> {
        let secret = self.state.sessions.get(&session).map(|session| &session.secret);
        let by_key = claimant.key.is_some() && claimant.key.as_ref() == secret;
        let by_owner = claimant.owner.as_ref() == Some(owner);
        if claimant.admin || claimant.session == Some(session) || by_key || by_owner {
            return Ok(());
        }
        let message = format!(
            "{what} belongs to {owner}: only its session, its release key or its owner may do that \
             (an admin takes it back with `leasehold lease revoke`)"
        );
        Err(Refusal::new(Code::Forbidden, message))
    }
}
