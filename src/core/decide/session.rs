//! Opening, keeping and ending sessions.

use std::sync::Arc;

use crate::core::broker::Broker;
use crate::core::claim::ClaimEnd;
use crate::core::command::{Reply, TtlAsk};
use crate::core::event::Event;
use crate::core::inventory::OnDrop;
use crate::core::lease::{Ending, Lease, LeaseEnd};
use crate::core::limits::{TTL_MS_DEFAULT, TTL_MS_MAX, TTL_MS_MIN};
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{OpenRequest, SecretHash, SessionEnd, SessionKind};
use crate::core::types::{ClaimId, LabTime, Owner, ResourceId, SessionId};

impl Broker {
    pub(in crate::core) fn open_session(
        &mut self,
        now: LabTime,
        owner: Owner,
        ttl: TtlAsk,
        secret: SecretHash,
        kind: SessionKind,
    ) -> Reply {
        if self.state.sessions.len() >= self.limits.sessions_max {
            let message = format!(
                "the broker has {} open sessions, as many as it may: close some, or raise sessions_max under [limits]",
                self.state.sessions.len()
            );
            return Reply::Refused(Refusal::new(Code::TooManySessions, message));
        }
        let ttl_ms = match ttl {
            TtlAsk::Exactly(ms) if !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ms) => {
                let message = format!("a ttl of {ms} ms is out of range: expected {TTL_MS_MIN} to {TTL_MS_MAX}");
                return Reply::Refused(Refusal::new(Code::InvalidParams, message));
            }
            TtlAsk::Exactly(ms) => ms,
            TtlAsk::Pools(pools) => {
                let of_pools = pools.iter().filter_map(|pool| self.pool(pool)?.ttl_ms).max();
                of_pools.unwrap_or(TTL_MS_DEFAULT)
            }
        };
        let session = SessionId(self.state.lab.last_session + 1);
        let keyed = matches!(kind, SessionKind::Keyed { .. });
        self.emit(now, Event::SessionOpened { session, owner, ttl_ms, secret, kind });
        if keyed {
            self.connected.insert(session);
        }
        Reply::Opened { session, ttl_ms }
    }

    pub(in crate::core) fn session_up(&mut self, session: SessionId) -> Reply {
        self.away.remove(&session);
        if self.state.sessions.contains_key(&session) && self.connected.insert(session) {
            self.touch_session(session);
        }
        Reply::Done
    }

    /// The socket is gone. A drop starts no clock; only pools that say `immediate` act on it.
    pub(in crate::core) fn session_down(&mut self, now: LabTime, session: SessionId) -> Reply {
        if !self.connected.remove(&session) {
            return Reply::Done;
        }
        self.touch_session(session);
        for lease in self.leases_of(session) {
            let lease = self.state.lease(lease).clone();
            let at_once = self.immediate_picks(&lease);
            if at_once.is_empty() {
                continue;
            }
            if lease.picks.iter().all(|pick| at_once.contains(&pick.resource) || lease.freed.contains(&pick.resource)) {
                let why = lease.ending.as_ref().map_or(LeaseEnd::Dropped, |ending| ending.why.clone());
                self.finish_lease(now, lease.id, why, None);
                continue;
            }
            if lease.ending.is_none() {
                let ending = Ending { why: LeaseEnd::Dropped, since: now };
                self.emit(now, Event::LeaseEnding { lease: lease.id, ending });
            }
            self.emit(now, Event::PicksFreed { lease: lease.id, resources: at_once.clone() });
            self.freed(now, &lease, at_once, 0);
        }
        Reply::Done
    }

    /// The resources of a lease whose pools give them back at a drop, each once.
    fn immediate_picks(&self, lease: &Lease) -> Vec<ResourceId> {
        let immediate = |id: &ResourceId| {
            // One that was freed may be off the books since.
            let resource = self.state.resources.get(id).filter(|_| !lease.freed.contains(id));
            let pool = resource.and_then(|resource| self.pool(&resource.spec.pool));
            pool.is_some_and(|pool| pool.on_drop == OnDrop::Immediate)
        };
        let mut found: Vec<ResourceId> = lease.picks.iter().map(|pick| pick.resource).filter(immediate).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(in crate::core) fn end_session(&mut self, now: LabTime, session: SessionId, end: SessionEnd) -> Reply {
        if !self.state.sessions.contains_key(&session) {
            return Reply::Done;
        }
        let why = match &end {
            SessionEnd::Closed => LeaseEnd::SessionClosed,
            SessionEnd::Expired => LeaseEnd::SessionExpired,
            SessionEnd::Kicked { by } => LeaseEnd::Kicked { by: by.clone() },
            SessionEnd::Moved => LeaseEnd::Moved,
        };
        let lost = matches!(end, SessionEnd::Expired | SessionEnd::Moved);
        let kept_ms = if end == SessionEnd::Moved { self.promised_ms(session) } else { 0 };
        for claim in self.claims_of(session) {
            if let (true, Some(lost)) = (lost, self.state.claims.get(&claim).cloned()) {
                self.lab_failed(now, &lost.owner.name, &lost.spec, claim);
            }
            self.withdraw(now, claim, ClaimEnd::SessionEnded);
        }
        for lease in self.leases_of(session) {
            // One that was ending already ends for that reason: the session's end only hastens it.
            let why = self.state.lease(lease).ending.as_ref().map_or_else(|| why.clone(), |ending| ending.why.clone());
            self.give_back(now, lease, why, None, kept_ms);
        }
        self.drop_session(now, session, end);
        Reply::Done
    }

    pub(in crate::core) fn drop_session(&mut self, now: LabTime, session: SessionId, end: SessionEnd) {
        self.connected.remove(&session);
        self.away.remove(&session);
        self.provider_gone(now, session, &end);
        self.emit(now, Event::SessionEnded { session, end });
    }

    /// Ends a session under a live holder: claims go at once, leases are ending first.
    pub(in crate::core) fn kick(&mut self, now: LabTime, session: SessionId, by: Arc<str>) -> Reply {
        let Some(known) = self.state.sessions.get(&session) else {
            return Reply::Refused(Refusal::new(Code::NotFound, format!("there is no open session {session}")));
        };
        if known.kicked_by.is_none() {
            self.emit(now, Event::SessionKicked { session, by: by.clone() });
        }
        for claim in self.claims_of(session) {
            self.end_claim(now, claim, ClaimEnd::Cancelled { by: by.clone() });
        }
        for lease in self.leases_of(session) {
            self.begin_ending(now, lease, LeaseEnd::Kicked { by: by.clone() });
        }
        self.end_if_kicked(now, session);
        Reply::Done
    }

    /// Ends a kicked session once nothing of it is left.
    pub(in crate::core) fn end_if_kicked(&mut self, now: LabTime, session: SessionId) {
        let Some(known) = self.state.sessions.get(&session) else { return };
        if let (Some(by), true) = (&known.kicked_by, known.requests.open.is_empty()) {
            let end = SessionEnd::Kicked { by: by.clone() };
            self.drop_session(now, session, end);
        }
    }

    pub(in crate::core) fn promise(&mut self, now: LabTime, session: SessionId, promise_ms: Option<u64>) -> Reply {
        if self.state.sessions.get(&session).is_some_and(|known| known.promise_ms != promise_ms) {
            self.emit(now, Event::SessionPromised { session, promise_ms });
        }
        Reply::Done
    }

    /// For how long after it was last heard of at most its client may use what it holds, milliseconds.
    fn promised_ms(&self, session: SessionId) -> u64 {
        let known = self.state.sessions.get(&session);
        known.map_or(0, |known| known.promise_ms.map_or(known.ttl_ms, |promise_ms| promise_ms.max(known.ttl_ms)))
    }

    fn claims_of(&self, session: SessionId) -> Vec<ClaimId> {
        let Some(known) = self.state.sessions.get(&session) else { return Vec::new() };
        let claims = known.requests.open.values().filter_map(|open| match open {
            OpenRequest::Claim(claim) => Some(*claim),
            OpenRequest::Lease(_) => None,
        });
        claims.collect()
    }
}
