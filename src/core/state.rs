//! The books: everything the journal's events add up to, and how each event changes them.
//!
//! [`State::apply`] is the only thing that changes the books, so that events replayed give the
//! books that made them. What has changed since the last batch is noted by key; the store writes
//! those records whole. Indexes (queues, names, deadlines) are kept here and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::arrivals::{Arrival, ArrivalKey};
use super::caps::Share;
use super::claim::{Claim, Seniority};
use super::event::Event;
use super::inventory::{Cooling, Mark, Marks, Origin, Pool, Resource, ResourceSpec};
use super::lease::{Lease, Pick};
use super::session::{OpenRequest, Provider, RequestEnd, Requests, SecretHash, Session, SessionKind};
use super::tables::{
    EndedRecord, KeyedRecord, LabRecord, PoolRecord, RequestRecord, ResourceRecord, SessionRecord, TableChanges, Tables,
};
use super::types::{ClaimId, Key, LabTime, LeaseId, ProviderName, ResourceId, ResourceName, SessionId};

/// A pool with what is in it.
#[derive(Clone, Debug)]
pub struct PoolState {
    /// Its policy.
    pub pool: Arc<Pool>,
    /// Who declares it.
    pub origin: Origin,
    /// Its resources.
    pub members: BTreeSet<ResourceId>,
    /// Claims that wait for something of it, most senior first.
    pub queue: BTreeSet<Seniority>,
    /// Those of them that wait for other pools too.
    pub spanning: BTreeSet<ClaimId>,
    /// What each owner has of it, where its policy asks for that.
    pub owners: BTreeMap<Arc<str>, Share>,
}

/// Something that lab time brings about by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// A claim has waited long enough.
    Wait(ClaimId),
    /// A hold is over.
    Hold(LeaseId),
    /// The outcome of a lease without a socket need not be remembered any more.
    Keyed(SecretHash),
    /// Slots of a resource have cooled.
    Cooled(ResourceId),
    /// A first arrival is too long ago.
    Arrival(ClaimId),
}

/// Keys of the records that changed since the last batch.
#[derive(Clone, Debug, Default)]
struct Changed {
    pools: BTreeSet<Key>,
    resources: BTreeSet<ResourceId>,
    used: BTreeSet<ResourceId>,
    remembered: BTreeSet<ResourceName>,
    sessions: BTreeSet<SessionId>,
    claims: BTreeSet<ClaimId>,
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    ended: Vec<(LeaseId, EndedRecord)>,
    requests: Vec<RequestRecord>,
    forgotten: Vec<(SessionId, u64)>,
    keyed: BTreeSet<SecretHash>,
    arrivals: BTreeSet<ClaimId>,
}

/// The books.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Lab time and counters.
    pub lab: LabRecord,
    /// Pools by name.
    pub pools: BTreeMap<Key, PoolState>,
    /// Resources by number.
    pub resources: BTreeMap<ResourceId, Resource>,
    /// Resources by name.
    pub names: BTreeMap<ResourceName, ResourceId>,
    /// Marks of names that are not on the books at present.
    pub remembered: BTreeMap<ResourceName, Marks>,
    /// Open sessions.
    pub sessions: BTreeMap<SessionId, Session>,
    /// Open sessions without a socket, by the hash of their key.
    pub keys: BTreeMap<SecretHash, SessionId>,
    /// The sessions that bring resources, by the provider's name.
    pub providers: BTreeMap<ProviderName, SessionId>,
    /// Outcomes of leases without a socket.
    pub keyed: BTreeMap<SecretHash, KeyedRecord>,
    /// First arrivals of work that may be retried, by the claim that arrived first.
    pub arrivals: BTreeMap<ClaimId, Arrival>,
    /// The same by what the work is.
    pub(super) arrival_keys: BTreeMap<ArrivalKey, ClaimId>,
    /// Waiting claims.
    pub claims: BTreeMap<ClaimId, Arc<Claim>>,
    /// The whole queue, most senior first.
    pub queue: BTreeSet<Seniority>,
    /// Leases, active or ending.
    pub leases: BTreeMap<LeaseId, Arc<Lease>>,
    /// What lab time brings about by itself, soonest first.
    pub deadlines: BTreeSet<(LabTime, Deadline)>,
    /// Pools that count what each owner has: none in most labs, and then nothing is counted.
    pub(super) counting: BTreeSet<Key>,
    changed: Changed,
}

impl State {
    /// The books as the tables tell them.
    ///
    /// # Errors
    /// In words, where the tables contradict each other.
    pub fn from_tables(tables: &Tables) -> Result<Self, String> {
        let mut state = Self { lab: tables.lab, ..Self::default() };
        for record in &tables.pools {
            state.set_pool(&record.pool, &record.origin);
        }
        for record in &tables.resources {
            if !state.pools.contains_key(&record.spec.pool) {
                return Err(format!(
                    "resource {} is in pool {}, which is not there",
                    record.spec.name, record.spec.pool
                ));
            }
            state.add_resource(record.id, &record.spec, &record.origin);
            let resource = state.resource_mut(record.id);
            resource.marks = record.marks.clone();
            resource.pending.clone_from(&record.pending);
            resource.last_used = record.last_used;
            record.cooling.iter().for_each(|cooling| state.cool(record.id, *cooling));
        }
        state.remembered = tables.remembered.iter().cloned().collect();
        for record in &tables.sessions {
            state.add_session(Session {
                id: record.id,
                owner: record.owner.clone(),
                ttl_ms: record.ttl_ms,
                secret: record.secret.clone(),
                kind: record.kind.clone(),
                opened_at: record.opened_at,
                promise_ms: record.promise_ms,
                kicked_by: record.kicked_by.clone(),
                provides: record.provides.clone(),
                requests: Requests { forgotten: record.forgotten, ..Requests::default() },
            });
        }
        for record in &tables.requests {
            if let Some(session) = state.sessions.get_mut(&record.session) {
                session.requests.ended.insert(record.request, (record.body_hash, record.end.clone()));
            }
        }
        for claim in &tables.claims {
            if !state.sessions.contains_key(&claim.session) {
                return Err(format!("claim {} waits for session {}, which is not there", claim.id, claim.session));
            }
            state.add_claim(Arc::new(claim.clone()));
        }
        for lease in &tables.leases {
            // What a drop freed is nobody's any more and may have left the books since.
            let known =
                |pick: &Pick| lease.freed.contains(&pick.resource) || state.resources.contains_key(&pick.resource);
            if !state.sessions.contains_key(&lease.session) || !lease.picks.iter().all(known) {
                return Err(format!("lease {} has a session or resource that is not there", lease.id));
            }
            state.add_lease(lease);
        }
        for record in &tables.keyed {
            state.add_keyed(record.clone());
        }
        tables.arrivals.iter().for_each(|arrival| state.note_arrival(arrival));
        state.changed = Changed::default();
        Ok(state)
    }

    /// Changes the books by one event that happened `at`.
    ///
    /// # Panics
    /// When the event speaks of something that is not on the books: the core that made it, or
    /// the journal it comes from, is broken, and going on would break a promise.
    pub fn apply(&mut self, at: LabTime, event: &Event) {
        assert!(at >= self.lab.now, "lab time went back from {:?} to {at:?}", self.lab.now);
        self.lab.now = at;
        match event {
            Event::BrokerStarted { term } => self.lab.term = *term,
            Event::StoreMoved { last_lease, .. } => self.raise_fence(*last_lease),
            Event::PoolSet { pool, origin } => self.set_pool(pool, origin),
            Event::PoolRemoved { pool } => {
                let gone = self.pools.remove(pool);
                assert!(
                    gone.is_none_or(|gone| gone.members.is_empty()),
                    "pool {pool} was removed with resources in it"
                );
                self.changed.pools.insert(pool.clone());
                self.counting.remove(pool);
            }
            Event::ResourceAdded { resource, spec, origin } => {
                self.lab.last_resource = self.lab.last_resource.max(resource.0);
                self.add_resource(*resource, spec, origin);
                if let Some(marks) = self.remembered.remove(&spec.name) {
                    self.resource_mut(*resource).marks = marks;
                    self.changed.remembered.insert(spec.name.clone());
                }
            }
            Event::ResourceChanged { resource, spec } => self.change_resource(*resource, spec),
            Event::ResourcePending { resource, pending } => self.resource_mut(*resource).pending.clone_from(pending),
            Event::ResourceRemoved { resource } => self.remove_resource(*resource),
            Event::ResourceDrained { resource, .. }
            | Event::ResourceUndrained { resource, .. }
            | Event::ResourceQuarantined { resource, .. }
            | Event::ResourceRestored { resource, .. }
            | Event::ResourceOffline { resource, .. }
            | Event::ResourceOnline { resource } => self.mark_resource(at, *resource, event),
            Event::ProviderAttached { session, provider, from } => self.attach_provider(*session, provider, *from),
            Event::ResourceCooling { resource, cooling } => self.cool(*resource, *cooling),
            Event::ResourceCooled { resource } => self.cooled(at, *resource),
            Event::SessionOpened { session, owner, ttl_ms, secret, kind } => {
                self.lab.last_session = self.lab.last_session.max(session.0);
                self.add_session(Session {
                    id: *session,
                    owner: owner.clone(),
                    ttl_ms: *ttl_ms,
                    secret: secret.clone(),
                    kind: kind.clone(),
                    opened_at: at,
                    promise_ms: None,
                    kicked_by: None,
                    provides: None,
                    requests: Requests::default(),
                });
            }
            Event::SessionPromised { session, promise_ms } => self.session_mut(*session).promise_ms = *promise_ms,
            Event::SessionKicked { session, by } => self.session_mut(*session).kicked_by = Some(by.clone()),
            Event::SessionEnded { session, .. } => self.remove_session(*session),
            Event::ClaimQueued { claim } => {
                self.lab.last_claim = self.lab.last_claim.max(claim.id.0);
                self.add_claim(Arc::new((**claim).clone()));
            }
            Event::ClaimPinned { claim, pin } => self.claim_mut(*claim).pin.clone_from(pin),
            Event::ClaimBlocked { claim, blocked } => self.claim_mut(*claim).blocked.clone_from(blocked),
            Event::ClaimEnded { claim, session, request, body_hash, end } => {
                self.lab.last_claim = self.lab.last_claim.max(claim.0);
                self.remove_claim(*claim);
                let end = RequestEnd::Claim(end.clone());
                self.end_request(at, *session, *request, *claim, Some(*body_hash), end);
            }
            Event::RequestTombstoned { session, request } => {
                self.end_request(at, *session, *request, ClaimId(0), None, RequestEnd::Tombstone);
            }
            Event::RequestsForgotten { session, up_to } => self.forget_requests(*session, *up_to),
            Event::LeaseGranted { lease } => {
                self.raise_fence(lease.id.0);
                self.lab.last_claim = self.lab.last_claim.max(lease.claim.0);
                self.remove_claim(lease.claim);
                self.add_lease(lease);
                for pick in &lease.picks {
                    self.changed.used.insert(pick.resource);
                    self.holding_mut(pick.resource).last_used = at;
                }
            }
            Event::LeaseExtended { lease, until, .. } => {
                self.change_lease(*lease, |lease| lease.until = Some(*until));
            }
            Event::LeaseEnding { lease, ending } => {
                self.change_lease(*lease, |lease| lease.ending = Some(ending.clone()));
            }
            Event::PicksFreed { lease, resources } => {
                let before = self.lease(*lease).clone();
                for resource in resources {
                    assert!(!before.freed.contains(resource), "resource {resource} of lease {lease} was freed twice");
                    self.free(&before, *resource);
                }
                self.change_lease(*lease, |lease| lease.freed.extend(resources));
            }
            Event::LeaseEnded { lease, end, outcome, .. } => {
                let gone = self.remove_lease(*lease);
                let record = EndedRecord { at, end: end.clone(), outcome: *outcome };
                self.changed.ended.push((*lease, record));
                let end = RequestEnd::Lease { lease: *lease, end: end.clone() };
                self.end_request(at, gone.session, gone.request, gone.claim, Some(gone.body_hash), end);
            }
            Event::ArrivalNoted { arrival } => self.note_arrival(arrival),
            Event::ArrivalForgotten { claim } => self.forget_arrival(*claim),
            Event::KeyedForgotten { key } => {
                if let Some(record) = self.keyed.remove(key) {
                    self.deadlines
                        .remove(&(record.ended_at.plus(super::limits::KEYED_KEPT_MS), Deadline::Keyed(key.clone())));
                }
                self.changed.keyed.insert(key.clone());
            }
        }
    }

    /// Takes the records that changed since they were last taken, whole as they are now.
    pub fn take_changes(&mut self) -> TableChanges {
        let changed = std::mem::take(&mut self.changed);
        let of = |id: ResourceId| self.resources.get(&id).map(|resource| (id, resource.last_used));
        let used = changed.used.difference(&changed.resources).copied().filter_map(of).collect();
        TableChanges {
            lab: self.lab,
            pools: changed.pools.into_iter().map(|key| self.pool_record(key)).collect(),
            resources: changed.resources.into_iter().map(|id| (id, self.resources.get(&id).map(record_of))).collect(),
            used,
            remembered: changed
                .remembered
                .into_iter()
                .map(|name| {
                    let marks = self.remembered.get(&name).cloned();
                    (name, marks)
                })
                .collect(),
            sessions: changed.sessions.into_iter().map(|id| (id, self.sessions.get(&id).map(session_record))).collect(),
            claims: changed.claims.into_iter().map(|id| (id, self.claims.get(&id).cloned())).collect(),
            leases: changed.leases.into_values().collect(),
            ended: changed.ended,
            requests: changed.requests,
            forgotten: changed.forgotten,
            keyed: changed
                .keyed
                .into_iter()
                .map(|key| {
                    let record = self.keyed.get(&key).cloned();
                    (key, record)
                })
                .collect(),
            arrivals: changed.arrivals.into_iter().map(|id| (id, self.arrivals.get(&id).cloned())).collect(),
        }
    }

    pub(super) fn changed_arrival(&mut self, id: ClaimId) {
        self.changed.arrivals.insert(id);
    }

    /// Everything, as a start-up would read it; what a checkpoint stores.
    #[must_use]
    pub fn tables(&self) -> Tables {
        let mut requests = Vec::new();
        for session in self.sessions.values() {
            for (request, (body_hash, end)) in &session.requests.ended {
                let end = end.clone();
                requests.push(RequestRecord { session: session.id, request: *request, body_hash: *body_hash, end });
            }
        }
        Tables {
            lab: self.lab,
            pools: self
                .pools
                .values()
                .map(|pool| PoolRecord { pool: pool.pool.clone(), origin: pool.origin.clone() })
                .collect(),
            resources: self.resources.values().map(record_of).collect(),
            remembered: self.remembered.iter().map(|(name, marks)| (name.clone(), marks.clone())).collect(),
            sessions: self.sessions.values().map(session_record).collect(),
            claims: self.claims.values().map(|claim| (**claim).clone()).collect(),
            leases: self.leases.values().cloned().collect(),
            requests,
            keyed: self.keyed.values().cloned().collect(),
            arrivals: self.arrivals.values().cloned().collect(),
            ..Tables::default()
        }
    }

    /// The resource of this number.
    ///
    /// # Panics
    /// When it is not on the books: numbers come from the books themselves.
    #[must_use]
    pub fn resource(&self, id: ResourceId) -> &Resource {
        self.resources.get(&id).unwrap_or_else(|| panic!("resource {id} is not on the books"))
    }

    /// The lease of this number.
    ///
    /// # Panics
    /// When it is not on the books.
    #[must_use]
    pub fn lease(&self, id: LeaseId) -> &Arc<Lease> {
        self.leases.get(&id).unwrap_or_else(|| panic!("lease {id} is not on the books"))
    }

    /// The pools a claim has needs on, each once, in order.
    #[must_use]
    pub fn pools_of(claim: &Claim) -> BTreeSet<&Key> {
        claim.spec.needs.iter().map(|need| &need.pool).collect()
    }

    fn raise_fence(&mut self, fence: u64) {
        assert!(fence > self.lab.last_lease, "fence {fence} was given after {}", self.lab.last_lease);
        self.lab.last_lease = fence;
    }

    fn pool_record(&self, key: Key) -> (Key, Option<PoolRecord>) {
        let record =
            self.pools.get(&key).map(|pool| PoolRecord { pool: pool.pool.clone(), origin: pool.origin.clone() });
        (key, record)
    }

    fn set_pool(&mut self, pool: &Arc<Pool>, origin: &Origin) {
        self.changed.pools.insert(pool.name.clone());
        if !self.pools.contains_key(&pool.name) {
            // Claims may wait for a pool that is not there yet.
            let asks = |claim: &&Arc<Claim>| claim.spec.needs.iter().any(|need| need.pool == pool.name);
            let waiting: Vec<&Arc<Claim>> = self.claims.values().filter(asks).collect();
            let spanning = waiting.iter().filter(|claim| Self::pools_of(claim).len() > 1);
            let fresh = PoolState {
                pool: pool.clone(),
                origin: origin.clone(),
                members: BTreeSet::new(),
                queue: waiting.iter().map(|claim| claim.seniority).collect(),
                spanning: spanning.map(|claim| claim.id).collect(),
                owners: BTreeMap::new(),
            };
            self.pools.insert(pool.name.clone(), fresh);
        }
        let Some(entry) = self.pools.get_mut(&pool.name) else { return };
        entry.pool = pool.clone();
        entry.origin = origin.clone();
        self.recount(&pool.name);
    }

    fn add_resource(&mut self, id: ResourceId, spec: &Arc<ResourceSpec>, origin: &Origin) {
        let pool = self.pools.get_mut(&spec.pool).unwrap_or_else(|| panic!("pool {} is not on the books", spec.pool));
        pool.members.insert(id);
        let taken = self.names.insert(spec.name.clone(), id);
        assert!(taken.is_none(), "the name {} is on the books twice", spec.name);
        self.changed.resources.insert(id);
        let resource = Resource {
            id,
            spec: spec.clone(),
            origin: origin.clone(),
            marks: Marks::default(),
            pending: None,
            last_used: LabTime(0),
            holders: BTreeSet::new(),
            slots_used: 0,
            cooling: Vec::new(),
        };
        self.resources.insert(id, resource);
    }

    fn change_resource(&mut self, id: ResourceId, spec: &Arc<ResourceSpec>) {
        let before = self.resource(id).spec.clone();
        if before.name != spec.name {
            self.names.remove(&before.name);
            let taken = self.names.insert(spec.name.clone(), id);
            assert!(taken.is_none(), "the name {} is on the books twice", spec.name);
        }
        if before.pool != spec.pool {
            if let Some(pool) = self.pools.get_mut(&before.pool) {
                pool.members.remove(&id);
            }
            let pool =
                self.pools.get_mut(&spec.pool).unwrap_or_else(|| panic!("pool {} is not on the books", spec.pool));
            pool.members.insert(id);
        }
        self.resource_mut(id).spec = spec.clone();
    }

    /// What was said of it is said, or no longer.
    fn mark_resource(&mut self, at: LabTime, id: ResourceId, said: &Event) {
        let marks = &mut self.resource_mut(id).marks;
        let mark = |reason: &Arc<str>, by: &Arc<str>| Some(Mark { reason: reason.clone(), since: at, by: by.clone() });
        match said {
            Event::ResourceDrained { reason, by, .. } => marks.drained = mark(reason, by),
            Event::ResourceUndrained { .. } => marks.drained = None,
            Event::ResourceQuarantined { reason, by, .. } => marks.quarantined = mark(reason, by),
            Event::ResourceRestored { .. } => marks.quarantined = None,
            Event::ResourceOffline { reason, by, .. } => marks.offline = mark(reason, by),
            Event::ResourceOnline { .. } => marks.offline = None,
            _ => {}
        }
    }

    fn remove_resource(&mut self, id: ResourceId) {
        let gone = self.resources.remove(&id).unwrap_or_else(|| panic!("resource {id} is not on the books"));
        assert!(
            gone.holders.is_empty(),
            "resource {} was removed while leases {:?} hold it",
            gone.spec.name,
            gone.holders
        );
        self.names.remove(&gone.spec.name);
        if let Some(pool) = self.pools.get_mut(&gone.spec.pool) {
            pool.members.remove(&id);
        }
        for cooling in &gone.cooling {
            self.deadlines.remove(&(cooling.until, Deadline::Cooled(id)));
        }
        // Whoever declares the name next has a provider of its own, or none.
        let marks = Marks { offline: None, ..gone.marks };
        if !marks.is_clear() {
            self.changed.remembered.insert(gone.spec.name.clone());
            self.remembered.insert(gone.spec.name.clone(), marks);
        }
        self.changed.resources.insert(id);
    }

    fn cool(&mut self, id: ResourceId, cooling: Cooling) {
        let known = &mut self.resource_mut(id).cooling;
        match known.binary_search_by_key(&cooling.until, |known| known.until) {
            Ok(index) => known[index].slots += cooling.slots,
            Err(index) => known.insert(index, cooling),
        }
        self.deadlines.insert((cooling.until, Deadline::Cooled(id)));
    }

    fn cooled(&mut self, at: LabTime, id: ResourceId) {
        let known = &mut self.resource_mut(id).cooling;
        let done: Vec<Cooling> = known.iter().copied().take_while(|cooling| cooling.until <= at).collect();
        known.drain(..done.len());
        for cooling in done {
            self.deadlines.remove(&(cooling.until, Deadline::Cooled(id)));
        }
    }

    fn resource_mut(&mut self, id: ResourceId) -> &mut Resource {
        self.changed.resources.insert(id);
        self.holding_mut(id)
    }

    /// For who holds it and since when, which its record does not tell.
    fn holding_mut(&mut self, id: ResourceId) -> &mut Resource {
        self.resources.get_mut(&id).unwrap_or_else(|| panic!("resource {id} is not on the books"))
    }

    fn add_session(&mut self, session: Session) {
        self.changed.sessions.insert(session.id);
        if matches!(session.kind, SessionKind::Keyed { .. }) {
            self.keys.insert(session.secret.clone(), session.id);
        }
        if let Some(provider) = &session.provides {
            self.providers.insert(provider.name.clone(), session.id);
        }
        let known = self.sessions.insert(session.id, session);
        assert!(known.is_none(), "a session opened twice");
    }

    fn attach_provider(&mut self, session: SessionId, provider: &Provider, from: Option<SessionId>) {
        if let Some(from) = from {
            self.session_mut(from).provides = None;
        }
        self.providers.insert(provider.name.clone(), session);
        self.session_mut(session).provides = Some(provider.clone());
    }

    fn session_mut(&mut self, id: SessionId) -> &mut Session {
        self.changed.sessions.insert(id);
        self.sessions.get_mut(&id).unwrap_or_else(|| panic!("session {id} is not on the books"))
    }

    fn remove_session(&mut self, id: SessionId) {
        let gone = self.sessions.remove(&id).unwrap_or_else(|| panic!("session {id} is not on the books"));
        assert!(gone.requests.open.is_empty(), "session {id} ended with open requests {:?}", gone.requests.open);
        self.keys.remove(&gone.secret);
        if let Some(provider) = gone.provides.filter(|provider| self.providers.get(&provider.name) == Some(&id)) {
            self.providers.remove(&provider.name);
        }
        self.changed.sessions.insert(id);
    }

    fn add_claim(&mut self, claim: Arc<Claim>) {
        self.changed.claims.insert(claim.id);
        self.queue.insert(claim.seniority);
        let pools = Self::pools_of(&claim);
        let spanning = pools.len() > 1;
        for pool in pools {
            if let Some(pool) = self.pools.get_mut(pool) {
                pool.queue.insert(claim.seniority);
                if spanning {
                    pool.spanning.insert(claim.id);
                }
            }
        }
        if let Some(until) = claim.wait_until {
            self.deadlines.insert((until, Deadline::Wait(claim.id)));
        }
        self.count_waiting(&claim, true);
        if let Some(session) = self.sessions.get_mut(&claim.session) {
            session.requests.open.insert(claim.request, OpenRequest::Claim(claim.id));
        }
        self.claims.insert(claim.id, claim);
    }

    fn claim_mut(&mut self, id: ClaimId) -> &mut Claim {
        self.changed.claims.insert(id);
        let claim = self.claims.get_mut(&id).unwrap_or_else(|| panic!("claim {id} is not on the books"));
        Arc::make_mut(claim)
    }

    /// Takes a claim off the queue, if it is there: one that is granted or refused at once never was.
    fn remove_claim(&mut self, id: ClaimId) {
        let Some(claim) = self.claims.remove(&id) else { return };
        self.changed.claims.insert(id);
        self.queue.remove(&claim.seniority);
        for pool in Self::pools_of(&claim) {
            if let Some(pool) = self.pools.get_mut(pool) {
                pool.queue.remove(&claim.seniority);
                pool.spanning.remove(&id);
            }
        }
        if let Some(until) = claim.wait_until {
            self.deadlines.remove(&(until, Deadline::Wait(id)));
        }
        self.count_waiting(&claim, false);
        if let Some(session) = self.sessions.get_mut(&claim.session) {
            session.requests.open.remove(&claim.request);
        }
    }

    fn add_lease(&mut self, lease: &Arc<Lease>) {
        for pick in lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource)) {
            let resource = self.holding_mut(pick.resource);
            resource.holders.insert(lease.id);
            resource.slots_used += pick.slots;
        }
        self.count_held(lease);
        // An ending lease waits for its holder or for presence, not for lab time.
        if let (Some(until), None) = (lease.until, &lease.ending) {
            self.deadlines.insert((until, Deadline::Hold(lease.id)));
        }
        if let Some(session) = self.sessions.get_mut(&lease.session) {
            session.requests.open.insert(lease.request, OpenRequest::Lease(lease.id));
        }
        self.changed.leases.insert(lease.id, lease.clone());
        self.leases.insert(lease.id, lease.clone());
    }

    fn change_lease(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) {
        let mut lease = (**self.lease(id)).clone();
        let before = lease.until;
        change(&mut lease);
        if let Some(until) = before {
            self.deadlines.remove(&(until, Deadline::Hold(id)));
        }
        if let (Some(until), None) = (lease.until, &lease.ending) {
            self.deadlines.insert((until, Deadline::Hold(id)));
        }
        let lease = Arc::new(lease);
        self.changed.leases.insert(id, lease.clone());
        self.leases.insert(id, lease);
    }

    fn remove_lease(&mut self, id: LeaseId) -> Arc<Lease> {
        let gone = self.leases.remove(&id).unwrap_or_else(|| panic!("lease {id} is not on the books"));
        let held: BTreeSet<ResourceId> =
            gone.picks.iter().map(|pick| pick.resource).filter(|held| !gone.freed.contains(held)).collect();
        for resource in held {
            self.free(&gone, resource);
        }
        if let Some(until) = gone.until {
            self.deadlines.remove(&(until, Deadline::Hold(id)));
        }
        if let Some(session) = self.sessions.get_mut(&gone.session) {
            session.requests.open.remove(&gone.request);
        }
        gone
    }

    fn free(&mut self, lease: &Lease, id: ResourceId) {
        let slots: u32 = lease.picks.iter().filter(|pick| pick.resource == id).map(|pick| pick.slots).sum();
        let resource = self.holding_mut(id);
        let held = resource.holders.remove(&lease.id);
        assert!(held, "lease {} freed resource {id}, which it does not hold", lease.id);
        assert!(
            resource.slots_used >= slots,
            "resource {id} has {} slots used, {slots} were freed",
            resource.slots_used
        );
        resource.slots_used -= slots;
        self.count_freed(lease, id);
    }

    fn end_request(
        &mut self,
        at: LabTime,
        session: SessionId,
        request: u64,
        claim: ClaimId,
        body_hash: Option<u64>,
        end: RequestEnd,
    ) {
        let Some(known) = self.sessions.get_mut(&session) else { return };
        known.requests.ended.insert(request, (body_hash, end.clone()));
        if let (SessionKind::Keyed { request_id }, Some(body_hash)) = (&known.kind, body_hash) {
            let (key, request_id, owner) = (known.secret.clone(), request_id.clone(), known.owner.clone());
            self.changed.keyed.insert(key.clone());
            self.add_keyed(KeyedRecord { key, request_id, owner, claim, body_hash, end, ended_at: at });
            return;
        }
        self.changed.requests.push(RequestRecord { session, request, body_hash, end });
    }

    fn forget_requests(&mut self, session: SessionId, up_to: u64) {
        let requests = &mut self.session_mut(session).requests;
        requests.ended = requests.ended.split_off(&(up_to + 1));
        requests.forgotten = up_to;
        // The store forgets before it writes what ended in this batch.
        self.changed.requests.retain(|ended| ended.session != session || ended.request > up_to);
        self.changed.forgotten.push((session, up_to));
    }

    fn add_keyed(&mut self, record: KeyedRecord) {
        let until = record.ended_at.plus(super::limits::KEYED_KEPT_MS);
        self.deadlines.insert((until, Deadline::Keyed(record.key.clone())));
        self.keyed.insert(record.key.clone(), record);
    }
}

fn record_of(resource: &Resource) -> ResourceRecord {
    ResourceRecord {
        id: resource.id,
        spec: resource.spec.clone(),
        origin: resource.origin.clone(),
        marks: resource.marks.clone(),
        pending: resource.pending.clone(),
        last_used: resource.last_used,
        cooling: resource.cooling.clone(),
    }
}

fn session_record(session: &Session) -> SessionRecord {
    SessionRecord {
        id: session.id,
        owner: session.owner.clone(),
        ttl_ms: session.ttl_ms,
        secret: session.secret.clone(),
        kind: session.kind.clone(),
        opened_at: session.opened_at,
        promise_ms: session.promise_ms,
        kicked_by: session.kicked_by.clone(),
        provides: session.provides.clone(),
        forgotten: session.requests.forgotten,
    }
}
