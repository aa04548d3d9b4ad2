//! Claims: arriving, waiting, ending without a lease.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::core::broker::{Broker, too_complex};
use crate::core::claim::{Blocked, Claim, ClaimEnd, ClaimSpec, Seniority};
use crate::core::command::{ClaimReply, Claimant, Reply};
use crate::core::event::Event;
use crate::core::limits::{PICKS_PER_CLAIM_MAX, PRIORITY_WORTH_MS};
use crate::core::need::{Count, Need};
use crate::core::refusal::{Code, Refusal};
use crate::core::schedule::{Ask, Verdict};
use crate::core::selection::SelectionId;
use crate::core::session::{OpenRequest, RequestEnd};
use crate::core::types::{ClaimId, LabTime, LeaseId, SessionId};
use crate::units::show_duration_ms;

impl Broker {
    pub(in crate::core) fn acquire(
        &mut self,
        now: LabTime,
        session: SessionId,
        request: u64,
        spec: Arc<ClaimSpec>,
    ) -> Reply {
        let body_hash = fingerprint(&spec);
        if let Some(reply) = self.asked_before(session, request, Some(body_hash)) {
            return reply;
        }
        if let Err(refusal) = self.has_room(session) {
            return Reply::Refused(refusal);
        }
        let claim = self.newcomer(now, session, request, body_hash, spec);
        let stands = match self.admit(now, claim) {
            Ok(stands) | Err(stands) => stands,
        };
        self.request_ended(now, session);
        Reply::Claim { session, request, stands }
    }

    /// The answer to a request that is known already, or can no longer be.
    fn asked_before(&self, session: SessionId, request: u64, body_hash: Option<u64>) -> Option<Reply> {
        let gone = || {
            let message = format!("session {session} has ended: open a new one and claim again");
            Some(Reply::Refused(Refusal::new(Code::SessionGone, message)))
        };
        let Some(known) = self.state.sessions.get(&session) else { return gone() };
        if known.kicked_by.is_some() {
            return gone();
        }
        let answer = |stands| Some(Reply::Claim { session, request, stands });
        let reused = |used: Option<u64>| body_hash.is_some() && used.is_some() && used != body_hash;
        if let Some(open) = known.requests.open.get(&request) {
            let (used, stands) = match *open {
                OpenRequest::Claim(claim) => (self.state.claims.get(&claim)?.body_hash, ClaimReply::Queued(claim)),
                OpenRequest::Lease(lease) => (self.state.lease(lease).body_hash, ClaimReply::Granted(lease)),
            };
            return if reused(Some(used)) { Some(Reply::Refused(another_body(request))) } else { answer(stands) };
        }
        if let Some((used, end)) = known.requests.ended.get(&request) {
            return if reused(*used) { Some(Reply::Refused(another_body(request))) } else { answer(ended_reply(end)) };
        }
        if request <= known.requests.forgotten {
            let message = format!(
                "request_id {request} is older than the {} that this session's last requests are remembered from: \
                 use a number above every earlier one",
                known.requests.forgotten + 1
            );
            return Some(Reply::Refused(Refusal::new(Code::RequestIdTooOld, message)));
        }
        None
    }

    fn has_room(&self, session: SessionId) -> Result<(), Refusal> {
        let Some(known) = self.state.sessions.get(&session) else { return Ok(()) };
        let waiting = known.requests.open.values().filter(|open| matches!(open, OpenRequest::Claim(_))).count();
        if waiting >= self.limits.claims_per_session_max {
            let message = format!("the session has {waiting} waiting claims, as many as it may: cancel some, or wait");
            return Err(Refusal::new(Code::TooManyClaims, message));
        }
        // Every waiting claim may become a lease.
        let open = known.requests.open.len();
        if open >= self.limits.leases_per_session_max {
            let message = format!("the session holds {open} leases, as many as it may: release some first");
            return Err(Refusal::new(Code::TooManyLeases, message));
        }
        Ok(())
    }

    pub(in crate::core) fn newcomer(
        &self,
        now: LabTime,
        session: SessionId,
        request: u64,
        body_hash: u64,
        spec: Arc<ClaimSpec>,
    ) -> Claim {
        let id = ClaimId(self.state.lab.last_claim + 1);
        let owner = self.state.sessions[&session].owner.clone();
        let first_arrival = self.first_arrival(now, &owner.name, &spec);
        let arrival = i64::try_from(first_arrival.unwrap_or(now).0).unwrap_or(i64::MAX);
        let worth = i64::from(spec.priority) * i64::try_from(PRIORITY_WORTH_MS).unwrap_or(i64::MAX);
        Claim {
            id,
            session,
            request,
            body_hash,
            owner,
            queued_at: now,
            seniority: Seniority { rank: arrival.saturating_sub(worth), claim: id },
            first_arrival,
            wait_until: spec.wait_ms.map(|ms| now.plus(ms)),
            spec,
            pin: None,
            blocked: None,
        }
    }

    /// Grants, queues or refuses a new claim. What it comes to is remembered under its number
    /// either way; `Err` where it ended at once.
    pub(in crate::core) fn admit(&mut self, now: LabTime, mut claim: Claim) -> Result<ClaimReply, ClaimReply> {
        let selections = match self.interned(&claim) {
            Ok(selections) => selections,
            Err(refusal) => return Err(self.refuse(now, &claim, refusal)),
        };
        match self.standing(&claim, &selections) {
            Ok(blocked) => claim.blocked = blocked,
            Err(refusal) => return Err(self.refuse(now, &claim, refusal)),
        }
        let mut kept = self.kept_by_seniors(now, &claim);
        let here = self.connected.contains(&claim.session) && self.grants();
        let capped = self.waits_for_cap(&claim, &selections, &mut kept);
        let ask = Ask { spec: &claim.spec, selections: &selections, pin: None };
        match if capped { Ok(Verdict::Wait) } else { self.scheduler().judge(ask, &kept) } {
            Ok(Verdict::Grant(picks)) if here => {
                self.arrived(now, &claim);
                self.grant(now, &claim, picks);
                return Ok(ClaimReply::Granted(LeaseId(self.state.lab.last_lease)));
            }
            Ok(Verdict::Keep(_, pin)) => claim.pin = pin,
            Ok(Verdict::Grant(_) | Verdict::Wait) => {}
            Err(_) => {
                let refusal = too_complex(&claim);
                return Err(self.refuse(now, &claim, refusal));
            }
        }
        if claim.spec.wait_ms == Some(0) {
            return Err(self.end_newcomer(now, &claim, ClaimEnd::TimedOut));
        }
        let waits = self.may_wait(&claim, &selections).and_then(|()| self.closes_no_circle(&claim, &selections));
        if let Err(refusal) = waits {
            return Err(self.refuse(now, &claim, refusal));
        }
        let id = claim.id;
        self.arrived(now, &claim);
        self.selections.enqueue(&claim, &selections);
        self.asks.insert(id, selections);
        self.emit(now, Event::ClaimQueued { claim: Box::new(claim) });
        Ok(ClaimReply::Queued(id))
    }

    fn interned(&mut self, claim: &Claim) -> Result<Vec<SelectionId>, Refusal> {
        let mut selections = Vec::with_capacity(claim.spec.needs.len());
        for need in &claim.spec.needs {
            let interned = self.selections.intern(&self.state, need);
            let refuse = |why| {
                let message = format!("need `{}`: {why}", need.shown());
                Refusal::new(Code::InvalidNeed, message).of_need(need.alias.as_str())
            };
            selections.push(interned.map_err(refuse)?);
        }
        Ok(selections)
    }

    /// Whether a claim can ever be satisfied; what blocks it at present, if anything does.
    fn standing(&self, claim: &Claim, selections: &[SelectionId]) -> Result<Option<Blocked>, Refusal> {
        let pools = claim.spec.needs.iter().map(|need| &need.pool);
        if let (Some(asked), Some(most)) = (claim.spec.hold_ms, self.max_hold_ms(pools))
            && asked > most
        {
            let message = format!(
                "a hold of {} is longer than its pools allow ({}): ask for less, and extend while it is held",
                show_duration_ms(asked),
                show_duration_ms(most)
            );
            return Err(Refusal::new(Code::HoldTooLong, message));
        }
        self.within_caps(claim, selections)?;
        let ask = Ask { spec: &claim.spec, selections, pin: claim.pin.as_ref() };
        let complex = |_| too_complex(claim);
        if !self.scheduler().on_the_books(ask).map_err(complex)? || self.names_unknown(ask) {
            let refusal = self.nearest_miss(claim, selections);
            if !claim.spec.wait_for_inventory {
                return Err(refusal);
            }
            let alias = self.alias_of(claim, &refusal);
            return Ok(Some(Blocked { alias, message: refusal.message }));
        }
        let all = |(need, id): (&Need, &SelectionId)| match need.count {
            Count::Exactly(count) => count as usize,
            Count::All => self.selections.get(*id).grantable(),
        };
        let picks: usize = claim.spec.needs.iter().zip(selections).map(all).sum();
        if picks > PICKS_PER_CLAIM_MAX {
            let message = format!(
                "the claim is for {picks} resources, and {PICKS_PER_CLAIM_MAX} is the most: narrow `all:` down by \
                 labels"
            );
            return Err(Refusal::new(Code::TooManyPicks, message));
        }
        if self.scheduler().at_present(ask).map_err(complex)? {
            return Ok(None);
        }
        let blocked = self.blocked(claim, selections);
        if claim.spec.fail_fast {
            let message = format!("{}: it would wait, and --fail-fast says not to", blocked.message);
            return Err(Refusal::new(Code::Unavailable, message).of_need(blocked.alias.as_str()));
        }
        Ok(Some(blocked))
    }

    /// Looks again at a waiting claim after the inventory or its marks changed.
    pub(in crate::core) fn review_claim(&mut self, now: LabTime, id: ClaimId) {
        let (Some(claim), Some(selections)) = (self.state.claims.get(&id).cloned(), self.asks.get(&id)) else { return };
        match self.standing(&claim, selections) {
            Ok(blocked) if blocked != claim.blocked => self.emit(now, Event::ClaimBlocked { claim: id, blocked }),
            Ok(_) => {}
            // A pool may allow shorter holds or less priority than when the claim was admitted: it was
            // told its own.
            Err(refusal) if matches!(refusal.code, Code::HoldTooLong | Code::PriorityTooHigh) => {}
            Err(refusal) => self.end_claim(now, id, ClaimEnd::Refused(refusal)),
        }
    }

    pub(in crate::core) fn cancel(&mut self, now: LabTime, session: SessionId, request: u64) -> Reply {
        let open = self.state.sessions.get(&session).and_then(|known| known.requests.open.get(&request).copied());
        if let Some(OpenRequest::Claim(claim)) = open {
            let by = self.state.sessions[&session].owner.name.clone();
            self.end_claim(now, claim, ClaimEnd::Cancelled { by: by.clone() });
            return Reply::Claim { session, request, stands: ClaimReply::Ended(ClaimEnd::Cancelled { by }) };
        }
        if let Some(reply) = self.asked_before(session, request, None) {
            return reply;
        }
        self.emit(now, Event::RequestTombstoned { session, request });
        let stands = ended_reply(&RequestEnd::Tombstone);
        self.request_ended(now, session);
        Reply::Claim { session, request, stands }
    }

    pub(in crate::core) fn cancel_claim(&mut self, now: LabTime, id: ClaimId, claimant: &Claimant) -> Reply {
        let Some(claim) = self.state.claims.get(&id).cloned() else {
            let message = format!("claim {id} does not wait (any more): `leasehold queue` lists those that do");
            return Reply::Refused(Refusal::new(Code::NotFound, message));
        };
        if let Err(refusal) = self.may_act(claimant, claim.session, &claim.owner.name, &format!("claim {id}")) {
            return Reply::Refused(refusal);
        }
        self.end_claim(now, id, ClaimEnd::Cancelled { by: claimant.name.clone() });
        Reply::Done
    }

    /// Ends a waiting claim without a lease.
    pub(in crate::core) fn end_claim(&mut self, now: LabTime, id: ClaimId, end: ClaimEnd) {
        let Some(session) = self.state.claims.get(&id).map(|claim| claim.session) else { return };
        self.withdraw(now, id, end);
        self.request_ended(now, session);
    }

    /// Ends a waiting claim and leaves its session as it is.
    pub(in crate::core) fn withdraw(&mut self, now: LabTime, id: ClaimId, end: ClaimEnd) {
        let Some(claim) = self.state.claims.get(&id).cloned() else { return };
        self.end_newcomer(now, &claim, end);
        self.forget_claim(&claim);
    }

    fn end_newcomer(&mut self, now: LabTime, claim: &Claim, end: ClaimEnd) -> ClaimReply {
        let (session, request, body_hash) = (claim.session, claim.request, claim.body_hash);
        self.emit(now, Event::ClaimEnded { claim: claim.id, session, request, body_hash, end: end.clone() });
        ClaimReply::Ended(end)
    }

    fn refuse(&mut self, now: LabTime, claim: &Claim, refusal: Refusal) -> ClaimReply {
        self.end_newcomer(now, claim, ClaimEnd::Refused(refusal))
    }

    /// Refuses a claim whose asker holds a lease that, through other holders who wait, is what
    /// the claim itself waits for.
    ///
    /// A lease is stuck while its holder waits, under it, for a claim that cannot be granted
    /// without another stuck lease's end. Starting from all that might be, whatever can come free
    /// is taken out until nothing changes. Only its owner can say what a lease waits for, and one
    /// that is ending waits for nothing.
    fn closes_no_circle(&self, claim: &Claim, selections: &[SelectionId]) -> Result<(), Refusal> {
        let under = |claim: &Claim| {
            let lease = self.state.leases.get(&claim.spec.outer?)?;
            (lease.ending.is_none() && lease.owner.name == claim.owner.name).then_some(lease.id)
        };
        let Some(outer) = under(claim) else { return Ok(()) };
        let waiting: Vec<(LeaseId, &ClaimSpec, &[SelectionId])> = self
            .state
            .claims
            .values()
            .filter_map(|waits| Some((under(waits)?, &*waits.spec, self.asks.get(&waits.id)?.as_slice())))
            .chain([(outer, &*claim.spec, selections)])
            .collect();
        let mut stuck: BTreeSet<LeaseId> = waiting.iter().map(|(outer, _, _)| *outer).collect();
        self.add_outer_leases(&mut stuck);
        loop {
            let held_up = waiting
                .iter()
                .filter(|(_, spec, selections)| self.held_up(Ask { spec, selections, pin: None }, &stuck));
            let mut still: BTreeSet<LeaseId> = held_up.map(|(outer, _, _)| *outer).collect();
            self.add_outer_leases(&mut still);
            still.retain(|lease| stuck.contains(lease));
            if still == stuck {
                break;
            }
            stuck = still;
        }
        let ask = Ask { spec: &claim.spec, selections, pin: None };
        if stuck.contains(&outer) && self.held_up(ask, &stuck) {
            let mut holders = String::new();
            for lease in stuck.iter().filter_map(|id| self.state.leases.get(id)) {
                let _ = write!(
                    holders,
                    "{}lease {} of {}",
                    if holders.is_empty() { "" } else { ", " },
                    lease.id,
                    lease.owner
                );
            }
            let message = format!(
                "granting this would need the end of a lease whose holder waits for it in turn ({holders}): \
                 claim everything in one `run -n ... -n ...`, or release the outer lease first"
            );
            return Err(Refusal::new(Code::WouldDeadlock, message));
        }
        Ok(())
    }

    /// Whether it is these leases that the claim waits for. One that waits for what is out of use
    /// is held up by them only where it would still wait with that back in use.
    fn held_up(&self, ask: Ask<'_>, stuck: &BTreeSet<LeaseId>) -> bool {
        let scheduler = self.scheduler();
        let possible = match scheduler.at_present(ask) {
            Ok(true) => scheduler.without(ask, stuck),
            Ok(false) if scheduler.on_the_books(ask) == Ok(true) => scheduler.on_the_books_without(ask, stuck),
            Ok(false) | Err(_) => Ok(true),
        };
        possible == Ok(false)
    }

    /// A lease under which another was acquired ends only after that one.
    fn add_outer_leases(&self, leases: &mut BTreeSet<LeaseId>) {
        let mut fresh: Vec<LeaseId> = leases.iter().copied().collect();
        while let Some(lease) = fresh.pop() {
            let outer = self.state.leases.get(&lease).and_then(|lease| lease.spec.outer);
            if let Some(outer) = outer.filter(|outer| self.state.leases.contains_key(outer))
                && leases.insert(outer)
            {
                fresh.push(outer);
            }
        }
    }
}

fn another_body(request: u64) -> Refusal {
    let message = format!("request_id {request} was used for another claim: use a new number for a new claim");
    Refusal::new(Code::RequestIdReused, message)
}

/// What a repeat of an ended request is answered.
pub(in crate::core) fn ended_reply(end: &RequestEnd) -> ClaimReply {
    match end {
        RequestEnd::Lease { lease, end } => ClaimReply::LeaseEnded { lease: *lease, end: end.clone() },
        RequestEnd::Claim(end) => ClaimReply::Ended(end.clone()),
        RequestEnd::Tombstone => ClaimReply::Ended(ClaimEnd::Cancelled { by: "its client".into() }),
    }
}

/// A fingerprint of what a claim asks: FNV-1a over a canonical text, stable over versions.
pub(in crate::core) fn fingerprint(spec: &ClaimSpec) -> u64 {
    let mut hash = Fnv::of_needs(spec);
    let _ =
        write!(hash, "{:?} {:?} {} {:?} {:?} ", spec.same, spec.distinct, spec.priority, spec.wait_ms, spec.hold_ms);
    let _ = write!(hash, "{:?} {:?} {} {}", spec.note, spec.tags, spec.fail_fast, spec.wait_for_inventory);
    let _ = write!(hash, " {:?}", spec.outer.map(|outer| outer.0));
    if let Some(retry) = &spec.retry {
        let _ = write!(hash, " {:?} {}", retry.work, retry.attempt);
    }
    hash.0
}

/// A fingerprint of the resources that a claim asks for, however long and for whom.
pub(in crate::core) fn fingerprint_of_needs(spec: &ClaimSpec) -> u64 {
    let mut hash = Fnv::of_needs(spec);
    let _ = write!(hash, "{:?} {:?}", spec.same, spec.distinct);
    hash.0
}

struct Fnv(u64);

impl Fnv {
    fn of_needs(spec: &ClaimSpec) -> Self {
        let mut hash = Self(0xCBF2_9CE4_8422_2325);
        for need in &spec.needs {
            let _ = writeln!(hash, "need {need}");
        }
        hash
    }
}

impl std::fmt::Write for Fnv {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
        Ok(())
    }
}
