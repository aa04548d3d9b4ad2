//! The broker's mind: commands in, events out.
//!
//! [`Broker::decide`] is the one way in. It looks at the books, makes events, and every event
//! changes the books at once, so that the next decision sees it; then it settles: whoever can be
//! granted now is. The events of one or more decisions are taken as a batch and made durable by
//! whoever drives this; nothing of an answer may be told before.
//!
//! ```text
//!   decide(now, command) ─▶ Reply          (any number of times)
//!   take_batch()         ─▶ events, records (to be committed whole)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::claim::{Claim, ClaimEnd, Seniority};
use super::command::{Command, Reply};
use super::eta::Holds;
use super::event::Event;
use super::inventory::{Cooling, Pool};
use super::lease::Lease;
use super::limits::Limits;
use super::refusal::{Code, Refusal};
use super::schedule::{Ask, Kept, Scheduler, Verdict};
use super::selection::{SelectionId, Selections};
use super::session::SessionKind;
use super::state::{Deadline, State};
use super::tables::{TableChanges, Tables};
use super::types::{ClaimId, Key, LabTime, LeaseId, ResourceId, SessionId};

/// The whole core: the books, and what is known beside them that no event tells.
#[derive(Debug)]
pub struct Broker {
    pub(super) state: State,
    pub(super) selections: Selections,
    pub(super) limits: Limits,
    /// The selections of each waiting claim, one per need.
    pub(super) asks: BTreeMap<ClaimId, Vec<SelectionId>>,
    /// Sessions whose socket is up, and those without a socket.
    pub(super) connected: BTreeSet<SessionId>,
    /// Sessions that have not come back since this process started, while it waits for them.
    pub(super) away: BTreeSet<SessionId>,
    /// How long leases were held, for estimates: the store has it too, so no event tells it.
    pub(super) holds: Holds,
    pub(super) stopping: bool,
    pub(super) store_works: bool,
    /// Pools in which something changed since the last settling.
    dirty: BTreeSet<Key>,
    /// Pools whose inventory or marks changed, so that waiting claims may have become possible,
    /// impossible or blocked.
    reviewed: BTreeSet<Key>,
    events: Vec<Event>,
}

impl Broker {
    /// A broker over what a store holds.
    ///
    /// # Errors
    /// In words, where the tables contradict each other.
    pub fn new(tables: &Tables, limits: Limits) -> Result<Self, String> {
        let state = State::from_tables(tables)?;
        let mut selections = Selections::of(&state);
        let mut asks = BTreeMap::new();
        for claim in state.claims.values() {
            let interned = claim.spec.needs.iter().map(|need| selections.intern(&state, need));
            let interned: Vec<SelectionId> = interned.collect::<Result<_, _>>()?;
            selections.enqueue(claim, &interned);
            asks.insert(claim.id, interned);
        }
        let keyed = state.sessions.values().filter(|session| matches!(session.kind, SessionKind::Keyed { .. }));
        let connected = keyed.map(|session| session.id).collect();
        Ok(Self {
            selections,
            limits,
            asks,
            connected,
            away: BTreeSet::new(),
            holds: Holds::default(),
            stopping: false,
            store_works: true,
            dirty: BTreeSet::new(),
            reviewed: BTreeSet::new(),
            events: Vec::new(),
            state,
        })
    }

    /// The books, to look at.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The index over the books, to look at.
    #[must_use]
    pub const fn selections(&self) -> &Selections {
        &self.selections
    }

    /// Takes over from books that are dropped what no store keeps: whether the broker is
    /// stopping, and which sessions it waits for still. Who is connected is to be said anew.
    pub fn take_over(&mut self, before: &Self) {
        self.stopping = before.stopping;
        self.holds = before.holds.clone();
        let known = before.away.iter().copied().filter(|session| self.state.sessions.contains_key(session));
        self.away = known.collect();
    }

    /// Takes note of a lease that ended before this process began, oldest first.
    pub fn remember_hold(&mut self, lease: &Lease, ended_at: LabTime) {
        self.holds.note_lease(lease, ended_at);
    }

    /// The store fails: nothing is granted and time brings nothing about until it is said to work.
    pub const fn store_fails(&mut self) {
        self.store_works = false;
    }

    /// No new grants from here on: the broker is stopping. Nothing else is decided by it.
    pub const fn stop_granting(&mut self) {
        self.stopping = true;
    }

    /// Events made since the last batch was taken.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// When lab time next brings something about by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Option<LabTime> {
        self.state.deadlines.first().map(|(at, _)| *at)
    }

    /// Decides a command at `now` and settles. Lab time that would go back stands still.
    pub fn decide(&mut self, now: LabTime, command: Command) -> Reply {
        let now = now.max(self.state.lab.now);
        // What time has brought about comes first: a wait that is over is not granted any more. Not
        // while the store fails: what is asked then is answered at once, as it changes nothing.
        self.store_works &= !matches!(command, Command::StoreWorks(false));
        if !matches!(command, Command::Start) && self.store_works {
            self.tick(now);
        }
        let reply = self.dispatch(now, command);
        self.review(now);
        self.settle(now);
        reply
    }

    /// Takes the events made so far, and the records they changed.
    pub fn take_batch(&mut self) -> (Vec<Event>, TableChanges) {
        (std::mem::take(&mut self.events), self.state.take_changes())
    }

    fn dispatch(&mut self, now: LabTime, command: Command) -> Reply {
        match command {
            Command::Start => self.start(now),
            Command::ReturnGraceOver => {
                let away = std::mem::take(&mut self.away);
                away.into_iter().for_each(|session| self.touch_session(session));
                Reply::Done
            }
            Command::StopGranting => {
                self.stopping = true;
                Reply::Done
            }
            Command::StoreWorks(works) => {
                self.store_works = works;
                let pools: Vec<Key> = self.state.pools.keys().cloned().collect();
                self.dirty.extend(pools);
                Reply::Done
            }
            Command::Tick => Reply::Done,
            Command::Move { from, last_lease } => self.move_store(now, from, last_lease),
            Command::OpenSession { owner, ttl, secret, kind } => self.open_session(now, owner, ttl, secret, kind),
            Command::SessionUp(session) => self.session_up(session),
            Command::SessionDown(session) => self.session_down(now, session),
            Command::SessionCutOff(session) => {
                if self.connected.remove(&session) {
                    self.touch_session(session);
                }
                Reply::Done
            }
            Command::EndSession { session, end } => self.end_session(now, session, end),
            Command::Kick { session, by } => self.kick(now, session, by),
            Command::Promise { session, promise_ms } => self.promise(now, session, promise_ms),
            Command::Acquire { session, request, spec } => self.acquire(now, session, request, spec),
            Command::AcquireKeyed { key, request_id, owner, ttl_ms, spec } => {
                self.acquire_keyed(now, key, request_id, owner, ttl_ms, spec)
            }
            Command::Cancel { session, request } => self.cancel(now, session, request),
            Command::CancelClaim { claim, claimant } => self.cancel_claim(now, claim, &claimant),
            Command::Release { lease, claimant, outcome } => self.release(now, lease, &claimant, outcome),
            Command::Extend { lease, claimant, until } => self.extend(now, lease, &claimant, until),
            Command::Revoke { lease, by, reason, forced } => self.revoke(now, lease, by, reason, forced),
            Command::EndingOver(lease) => self.ending_over(now, lease),
            Command::SecretUnavailable { lease, resource, reason } => {
                self.secret_unavailable(now, lease, &resource, reason)
            }
            Command::Apply { declared, prune, confirmed, dry_run } => {
                self.apply_inventory(now, &declared, prune, confirmed, dry_run)
            }
            Command::Provide { session, provider, declared, confirmed } => {
                self.provide(now, session, provider, &declared, confirmed)
            }
            Command::SetResource(spec) => self.set_resource(now, &spec),
            Command::RemoveResource(name) => self.remove_resource(now, &name),
            Command::Mark { resource, act, reason, by } => self.mark(now, &resource, act, reason, by),
        }
    }

    fn start(&mut self, now: LabTime) -> Reply {
        self.emit(now, Event::BrokerStarted { term: self.state.lab.term + 1 });
        let sockets = self.state.sessions.values().filter(|session| matches!(session.kind, SessionKind::Socket { .. }));
        self.away = sockets.map(|session| session.id).collect();
        let pools: Vec<Key> = self.state.pools.keys().cloned().collect();
        self.dirty.extend(pools);
        Reply::Done
    }

    /// Does what lab time has come to.
    fn tick(&mut self, now: LabTime) {
        while let Some((at, deadline)) = self.state.deadlines.first().cloned() {
            if at > now {
                break;
            }
            match deadline {
                Deadline::Wait(claim) => self.end_claim(now, claim, ClaimEnd::TimedOut),
                Deadline::Hold(lease) => self.begin_ending(now, lease, super::lease::LeaseEnd::HoldEnded),
                Deadline::Keyed(key) => self.emit(now, Event::KeyedForgotten { key }),
                Deadline::Arrival(claim) => self.emit(now, Event::ArrivalForgotten { claim }),
                Deadline::Cooled(resource) => self.emit(now, Event::ResourceCooled { resource }),
            }
        }
    }

    /// The one place where an event comes to be: it changes the books, the index follows, and
    /// what it may have made possible is noted for settling.
    pub(super) fn emit(&mut self, now: LabTime, event: Event) {
        // Where a resource leaves, claims may have lost their hope and with it what they keep back.
        if let Event::ResourceChanged { resource, .. } | Event::ResourceRemoved { resource } = &event {
            self.touch_resource(*resource, true);
        }
        self.state.apply(now, &event);
        match &event {
            Event::ResourceAdded { resource, .. }
            | Event::ResourceChanged { resource, .. }
            | Event::ResourceRemoved { resource } => {
                self.selections.respec(&self.state, *resource);
                self.touch_resource(*resource, true);
            }
            Event::ResourcePending { resource, .. }
            | Event::ResourceDrained { resource, .. }
            | Event::ResourceUndrained { resource, .. }
            | Event::ResourceQuarantined { resource, .. }
            | Event::ResourceRestored { resource, .. }
            | Event::ResourceOffline { resource, .. }
            | Event::ResourceOnline { resource } => {
                self.selections.restand(&self.state, *resource);
                self.touch_resource(*resource, true);
            }
            Event::PoolRemoved { pool } => self.holds.forget(pool),
            Event::ResourceCooling { resource, .. } => self.selections.restand(&self.state, *resource),
            Event::ResourceCooled { resource } => {
                self.selections.restand(&self.state, *resource);
                self.touch_resource(*resource, false);
            }
            Event::PoolSet { pool, .. } => {
                self.reviewed.insert(pool.name.clone());
                // Its caps may let somebody through now.
                self.dirty.insert(pool.name.clone());
            }
            Event::ClaimQueued { claim } => self.touch_claim(&claim.spec.needs),
            Event::LeaseGranted { lease } => {
                for pick in &lease.picks {
                    self.selections.restand(&self.state, pick.resource);
                }
            }
            Event::PicksFreed { resources, .. } => {
                for resource in resources {
                    self.selections.restand(&self.state, *resource);
                    self.touch_resource(*resource, false);
                }
            }
            _ => {}
        }
        self.events.push(event);
    }

    /// Frees the picks of a lease that is over, and does what waited for that. They go to nobody for
    /// `kept_ms`, or for as long as their pool says where that is longer.
    pub(super) fn freed(
        &mut self,
        now: LabTime,
        lease: &Lease,
        resources: impl IntoIterator<Item = ResourceId>,
        kept_ms: u64,
    ) {
        for resource in resources {
            self.cool(now, lease, resource, kept_ms);
            self.selections.restand(&self.state, resource);
            self.touch_resource(resource, false);
            for event in super::apply::due_pending(&self.state, resource) {
                self.emit(now, event);
            }
        }
    }

    fn cool(&mut self, now: LabTime, lease: &Lease, resource: ResourceId, kept_ms: u64) {
        let cooldown_ms = self.pool(&self.state.resource(resource).spec.pool).map_or(0, |pool| pool.cooldown_ms);
        let cooldown_ms = cooldown_ms.max(kept_ms);
        if cooldown_ms > 0 {
            let slots = lease.picks.iter().filter(|pick| pick.resource == resource).map(|pick| pick.slots).sum();
            let cooling = Cooling { until: now.plus(cooldown_ms), slots };
            self.emit(now, Event::ResourceCooling { resource, cooling });
        }
    }

    fn touch_resource(&mut self, id: ResourceId, inventory: bool) {
        let Some(resource) = self.state.resources.get(&id) else { return };
        self.dirty.insert(resource.spec.pool.clone());
        if inventory {
            self.reviewed.insert(resource.spec.pool.clone());
        }
    }

    fn touch_claim(&mut self, needs: &[super::need::Need]) {
        self.dirty.extend(needs.iter().map(|need| need.pool.clone()));
    }

    /// A session came, went, or is no longer waited for: its claims count differently now.
    pub(super) fn touch_session(&mut self, session: SessionId) {
        let Some(known) = self.state.sessions.get(&session) else { return };
        let claims = known.requests.open.values().filter_map(|open| match open {
            super::session::OpenRequest::Claim(claim) => self.state.claims.get(claim),
            super::session::OpenRequest::Lease(_) => None,
        });
        let pools = claims.flat_map(|claim| claim.spec.needs.iter().map(|need| need.pool.clone()));
        let pools: Vec<Key> = pools.collect();
        self.dirty.extend(pools);
    }

    /// A claim is off the queue: what it kept back is anybody's.
    pub(super) fn forget_claim(&mut self, claim: &Claim) {
        if let Some(ids) = self.asks.remove(&claim.id) {
            self.selections.dequeue(claim, &ids);
        }
        self.touch_claim(&claim.spec.needs);
    }

    pub(super) const fn scheduler(&self) -> Scheduler<'_> {
        Scheduler { state: &self.state, selections: &self.selections }
    }

    pub(super) const fn grants(&self) -> bool {
        self.store_works && !self.stopping
    }

    /// Looks again at claims that wait for pools whose inventory or marks changed.
    fn review(&mut self, now: LabTime) {
        for key in std::mem::take(&mut self.reviewed) {
            let waiting: Vec<ClaimId> = match self.state.pools.get(&key) {
                Some(pool) => pool.queue.iter().map(|seniority| seniority.claim).collect(),
                // The pool went with its last resource, and its queue with it.
                None => {
                    let asks = self.state.claims.values().filter(|claim| State::pools_of(claim).contains(&key));
                    asks.map(|claim| claim.id).collect()
                }
            };
            for claim in waiting {
                self.review_claim(now, claim);
            }
        }
    }

    /// Grants whoever can be granted, in the order of the queue. Doing it twice does nothing more.
    fn settle(&mut self, now: LabTime) {
        if self.dirty.is_empty() || !self.grants() {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let pools = self.spread(dirty);
        // A grant may fill its owner's cap, so that a senior of it keeps back nothing any more.
        while self.pass(now, &pools) {}
    }

    /// Goes through the queue of the pools once. Whether a grant changed what a cap means for a
    /// claim that was considered before it.
    fn pass(&mut self, now: LabTime, pools: &[Key]) -> bool {
        let mut kept = Kept::default();
        let mut again = false;
        let mut after: Option<Seniority> = None;
        while let Some(next) = self.next_waiting(pools, after, &kept) {
            after = Some(next);
            again |= self.consider(now, next.claim, &mut kept) && self.fills_a_cap();
        }
        again
    }

    /// What seniors of a newcomer keep back, so that it sees only what is left.
    pub(super) fn kept_by_seniors(&mut self, now: LabTime, newcomer: &Claim) -> Kept {
        let mut kept = Kept::default();
        let pools = self.spread(State::pools_of(newcomer).into_iter().cloned().collect());
        let mut after: Option<Seniority> = None;
        while let Some(next) = self.next_waiting(&pools, after, &kept) {
            if next > newcomer.seniority {
                break;
            }
            after = Some(next);
            self.consider(now, next.claim, &mut kept);
        }
        kept
    }

    /// Judges one waiting claim: grants it, or lets it keep back. Whether it was granted.
    fn consider(&mut self, now: LabTime, id: ClaimId, kept: &mut Kept) -> bool {
        let claim = self.state.claims[&id].clone();
        let here = self.connected.contains(&claim.session);
        if !here && !self.away.contains(&claim.session) {
            return false;
        }
        let here = here && self.grants();
        let selections = &self.asks[&id];
        if self.waits_for_cap(&claim, selections, kept) {
            if claim.pin.is_some() {
                self.emit(now, Event::ClaimPinned { claim: id, pin: None });
            }
            return false;
        }
        let verdict = self.scheduler().judge(Ask { spec: &claim.spec, selections, pin: claim.pin.as_ref() }, kept);
        match verdict {
            Ok(Verdict::Grant(picks)) if here => {
                self.grant(now, &claim, picks);
                return true;
            }
            // Its session may come back any moment, or the store; until then its share waits for it.
            Ok(Verdict::Grant(picks)) => {
                for pick in picks {
                    kept.keep(self.state.resource(pick.resource), pick.slots);
                }
                self.note_spent(id, kept);
            }
            Ok(Verdict::Keep(slots, pin)) => {
                for (resource, slots) in slots {
                    kept.keep(self.state.resource(resource), slots);
                }
                self.note_spent(id, kept);
                if pin != claim.pin {
                    self.emit(now, Event::ClaimPinned { claim: id, pin });
                }
            }
            Ok(Verdict::Wait) if claim.pin.is_some() => self.emit(now, Event::ClaimPinned { claim: id, pin: None }),
            Ok(Verdict::Wait) => {}
            Err(_) => self.end_claim(now, id, ClaimEnd::Refused(too_complex(&claim))),
        }
        false
    }

    /// Notes which selections of a claim that keeps back have nothing left: others who wait for
    /// them need not be looked at in this pass, in which nothing comes free.
    fn note_spent(&self, id: ClaimId, kept: &mut Kept) {
        for selection in &self.asks[&id] {
            if !self.scheduler().has_left(*selection, kept) {
                kept.spent.insert(*selection);
            }
        }
    }

    /// The pools, and those that claims waiting for them wait for as well: what such a claim
    /// keeps back in one of them hangs on the others.
    pub(super) fn spread(&self, mut pools: BTreeSet<Key>) -> Vec<Key> {
        let mut fresh: Vec<Key> = pools.iter().cloned().collect();
        while let Some(pool) = fresh.pop() {
            let Some(pool) = self.state.pools.get(&pool) else { continue };
            for claim in &pool.spanning {
                for need in &self.state.claims[claim].spec.needs {
                    if pools.insert(need.pool.clone()) {
                        fresh.push(need.pool.clone());
                    }
                }
            }
        }
        pools.into_iter().collect()
    }

    /// The next claim that a pass over the pools has to look at; none once nothing is left.
    fn next_waiting(&self, pools: &[Key], after: Option<Seniority>, kept: &Kept) -> Option<Seniority> {
        let has_left = |pool: &Key| self.selections.slots_free(pool) > kept.of_pool(pool);
        if !pools.iter().any(has_left) {
            return None;
        }
        let from = |pool: &Key| {
            let queue = &self.state.pools.get(pool)?.queue;
            // Where owners are capped, a claim that cannot be granted may hold up others.
            if self.state.counting.contains(pool) {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                return queue.range((from, Bound::Unbounded)).next().copied();
            }
            self.selections.next_waiting(pool, after, &kept.spent)
        };
        pools.iter().filter_map(from).min()
    }

    pub(super) fn pool(&self, key: &Key) -> Option<&Arc<Pool>> {
        self.state.pools.get(key).map(|pool| &pool.pool)
    }

    /// Leases of a session, active or ending.
    pub(super) fn leases_of(&self, session: SessionId) -> Vec<LeaseId> {
        let Some(known) = self.state.sessions.get(&session) else { return Vec::new() };
        let leases = known.requests.open.values().filter_map(|open| match open {
            super::session::OpenRequest::Lease(lease) => Some(*lease),
            super::session::OpenRequest::Claim(_) => None,
        });
        leases.collect()
    }
}

pub(super) fn too_complex(claim: &Claim) -> Refusal {
    let hint = match (&claim.spec.same, &claim.spec.distinct) {
        (None, None) => "ask for fewer resources, or narrow each need down by labels",
        _ => "drop --same or --distinct, or narrow each need down by labels",
    };
    Refusal::new(Code::TooComplex, format!("the claim takes more matching than a broker does for one claim: {hint}"))
}
