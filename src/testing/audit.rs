//! The auditor: books of its own, by which it holds the broker to each promise by name.
//!
//! It learns three things: what the store made durable, what the broker tells, and what clients
//! believe. It shares no rule with the core: it counts slots, fences, requests and times itself.
//! What of the queue it can be sure of is in `queue.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::core::claim::{Claim, ClaimEnd};
use crate::core::event::Event;
use crate::core::inventory::{OnDrop, Origin, ResourceSpec};
use crate::core::lease::{Lease, LeaseEnd};
use crate::core::need::Count;
use crate::core::refusal::Code;
use crate::core::session::{Provider, SecretHash, SessionEnd, SessionKind};
use crate::core::tables::Batch;
use crate::core::types::{ClaimId, Key, LabTime, LeaseId, ProviderName, ResourceId, ResourceName, SessionId};
use crate::engine::input::{Answer, Outgoing, SocketId};
use crate::protocol::info::ClaimInfo;

use super::puzzle::{self, Things};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub promise: &'static str,
    /// How.
    pub how: String,
}

/// Nothing, or the promise that is broken.
pub(super) type Kept = Result<(), Broken>;

pub(super) fn hold(promise: &'static str, kept: bool, how: impl FnOnce() -> String) -> Kept {
    if kept { Ok(()) } else { Err(Broken { promise, how: how() }) }
}

/// A resource as the auditor knows it.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub spec: Arc<ResourceSpec>,
    pub drained: bool,
    pub quarantined: bool,
    pub pending: bool,
    /// Whose it is, where a provider brings it, and whether it was said to be offline.
    pub provider: Option<ProviderName>,
    pub offline: bool,
    pub used: u32,
    /// Slots that cool, the soonest first.
    pub cooling: VecDeque<u32>,
}

impl Thing {
    /// Whether it may get new holders.
    pub(super) const fn usable(&self) -> bool {
        !self.drained && !self.quarantined && !self.pending && !self.offline
    }

    /// Slots that nobody has and that do not cool.
    pub(super) fn free(&self) -> u32 {
        self.spec.slots.saturating_sub(self.used).saturating_sub(self.cooling.iter().sum())
    }
}

/// A lease as the auditor knows it.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub lease: Arc<Lease>,
    pub freed: BTreeSet<ResourceId>,
    /// Since its ending is known to be durable: until when it must be over, milliseconds.
    pub over_by: Option<u64>,
}

/// A session as the auditor knows it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub ttl_ms: u64,
    pub promise_ms: Option<u64>,
    pub keyed: bool,
    /// Until when everything of it must be back, unless it is heard of again, milliseconds.
    pub back_by: u64,
}

/// The auditor.
#[derive(Default)]
pub(super) struct Auditor {
    pub things: Things,
    pub pools: BTreeMap<Key, OnDrop>,
    /// How much of a pool one owner may hold, where that is bounded.
    pub caps: BTreeMap<Key, u32>,
    /// When work that may be retried was seen to arrive, by owner and name.
    pub arrivals: BTreeMap<(Arc<str>, Arc<str>), BTreeSet<LabTime>>,
    remembered: BTreeMap<ResourceName, (bool, bool)>,
    pub claims: BTreeMap<ClaimId, Arc<Claim>>,
    pub leases: BTreeMap<LeaseId, Hold>,
    pub ended: BTreeMap<LeaseId, LeaseEnd>,
    ending: BTreeSet<LeaseId>,
    pub sessions: BTreeMap<SessionId, Known>,
    /// The claim of each request, and whether it is over.
    asked: BTreeMap<(SessionId, u64), (Option<ClaimId>, bool)>,
    claims_ever: BTreeSet<ClaimId>,
    promised: BTreeMap<SessionId, u64>,
    last_fence: LeaseId,
    lab_now: LabTime,
    /// The sessions that are on a socket, as told, and their current one.
    pub bound: BTreeMap<SessionId, SocketId>,
    /// What was told of requests: the lease, or that it is over.
    told: BTreeMap<(SessionId, u64), Option<u64>>,
    renewals: BTreeMap<SessionId, BTreeSet<u64>>,
    /// Who was surely connected when the batch under way was decided.
    pub present: BTreeSet<SessionId>,
    /// Actual waits of granted claims.
    pub waited: Vec<(ClaimId, u64)>,
    pub seen: BTreeMap<&'static str, u64>,
    /// Grants whose holder, who is there, has not been told.
    untold: BTreeSet<LeaseId>,
    /// The session that brings each provider's things, with its key.
    providers: BTreeMap<ProviderName, (SessionId, SecretHash)>,
    /// Leases of which something went offline, and whose holder has not been told.
    unreached: BTreeSet<LeaseId>,
}

impl Auditor {
    // ---- what is durable ----

    /// A batch became durable at `now_ms` of the broker's clock.
    pub(super) fn durable(&mut self, now_ms: u64, batch: &Batch) -> Kept {
        hold("lab time never goes back", batch.at >= self.lab_now, || {
            format!("batch {} is of {:?}, after {:?}", batch.number, batch.at, self.lab_now)
        })?;
        self.lab_now = batch.at;
        for event in &batch.events {
            *self.seen.entry(event.kind()).or_default() += 1;
            self.event(now_ms, event)?;
        }
        self.things.values().try_for_each(|thing| {
            let there = thing.provider.as_ref().is_none_or(|name| self.providers.contains_key(name));
            hold("offline without its provider", thing.offline != there, || {
                format!("{thing:?}, while there are {:?}", self.providers)
            })
        })
    }

    fn event(&mut self, now_ms: u64, event: &Event) -> Kept {
        match event {
            Event::LeaseGranted { lease } => self.granted(lease),
            Event::LeaseEnding { lease, .. } => self.lease_ending(now_ms, *lease),
            Event::LeaseEnded { lease, end, .. } => self.lease_ended(*lease, end),
            Event::PicksFreed { lease, resources } => self.freed(*lease, resources),
            Event::ClaimQueued { claim } => self.queued(claim),
            Event::ClaimEnded { claim, session, request, end, .. } => {
                self.claim_ended(*claim, (*session, *request), end)
            }
            Event::RequestTombstoned { session, request } => {
                self.asked.insert((*session, *request), (None, true));
                Ok(())
            }
            Event::SessionOpened { .. } | Event::SessionPromised { .. } | Event::SessionEnded { .. } => {
                self.session_event(now_ms, event)
            }
            Event::ProviderAttached { session, provider, from } => self.provides(*session, provider, *from),
            _ => {
                self.inventory(event);
                Ok(())
            }
        }
    }

    fn session_event(&mut self, now_ms: u64, event: &Event) -> Kept {
        match event {
            Event::SessionOpened { session, ttl_ms, kind, .. } => {
                let keyed = matches!(kind, SessionKind::Keyed { .. });
                let known = Known { ttl_ms: *ttl_ms, promise_ms: None, keyed, back_by: now_ms + ttl_ms };
                let again = self.sessions.insert(*session, known);
                hold("asking twice is asking once", again.is_none(), || format!("session {session} opened twice"))
            }
            Event::SessionPromised { session, promise_ms } => {
                if let Some(known) = self.sessions.get_mut(session) {
                    known.promise_ms = *promise_ms;
                    if let Some(ms) = promise_ms {
                        known.back_by = known.back_by.max(now_ms + ms);
                        let most = self.promised.entry(*session).or_default();
                        *most = (*most).max(*ms);
                    }
                }
                Ok(())
            }
            Event::SessionEnded { session, end } => {
                self.sessions.remove(session);
                self.bound.remove(session);
                self.providers.retain(|_, (provides, _)| provides != session);
                let left = self.leases.values().find(|held| held.lease.session == *session);
                hold("everything leaves a trace", left.is_none(), || format!("session {session} ended with {left:?}"))?;
                let waits = self.claims.values().find(|claim| claim.session == *session);
                hold("everything leaves a trace", waits.is_none(), || {
                    format!("session {session} ended with {waits:?}")
                })?;
                let _: &SessionEnd = end;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A name is provided by one session, until that ends or its successor comes, who has its key.
    fn provides(&mut self, session: SessionId, provider: &Provider, from: Option<SessionId>) -> Kept {
        let now = (session, provider.key.clone());
        let before = self.providers.insert(provider.name.clone(), now).filter(|(before, _)| *before != session);
        let follows = before.as_ref().is_none_or(|(_, key)| *key == provider.key);
        let kept =
            follows && before.as_ref().map(|(before, _)| *before) == from && self.sessions.contains_key(&session);
        hold("a living provider keeps its name", kept, || {
            format!("session {session} provides as {provider:?} after {before:?}, and is said to follow {from:?}")
        })
    }

    fn inventory(&mut self, event: &Event) {
        match event {
            Event::PoolSet { pool, .. } => {
                self.pools.insert(pool.name.clone(), pool.on_drop);
                self.caps.extend(pool.max_per_owner.map(|most| (pool.name.clone(), most)));
            }
            Event::ResourceAdded { resource, spec, origin } => {
                let (drained, quarantined) = self.remembered.remove(&spec.name).unwrap_or_default();
                let thing = Thing {
                    spec: spec.clone(),
                    drained,
                    quarantined,
                    pending: false,
                    provider: match origin {
                        Origin::Provider(name) => Some(name.clone()),
                        Origin::Api | Origin::File => None,
                    },
                    offline: false,
                    used: 0,
                    cooling: VecDeque::new(),
                };
                self.things.insert(*resource, thing);
            }
            Event::ResourceChanged { resource, spec } => self.mark(*resource, |thing| thing.spec = spec.clone()),
            Event::ResourcePending { resource, pending } => {
                self.mark(*resource, |thing| thing.pending = pending.is_some());
            }
            Event::ResourceRemoved { resource } => {
                if let Some(gone) = self.things.remove(resource) {
                    self.remembered.insert(gone.spec.name.clone(), (gone.drained, gone.quarantined));
                }
            }
            Event::ResourceCooling { resource, cooling } => {
                self.mark(*resource, |thing| thing.cooling.push_back(cooling.slots));
            }
            Event::ResourceCooled { resource } => self.mark(*resource, |thing| {
                thing.cooling.pop_front();
            }),
            Event::ResourceOffline { resource, .. } => {
                let holds = |held: &&Hold| held.lease.picks.iter().any(|pick| pick.resource == *resource);
                let kept = |held: &&Hold| !held.freed.contains(resource);
                self.unreached.extend(self.leases.values().filter(holds).filter(kept).map(|held| held.lease.id));
                self.mark(*resource, |thing| thing.offline = true);
            }
            Event::ResourceOnline { resource } => self.mark(*resource, |thing| thing.offline = false),
            Event::ResourceDrained { resource, .. } => self.mark(*resource, |thing| thing.drained = true),
            Event::ResourceUndrained { resource, .. } => self.mark(*resource, |thing| thing.drained = false),
            Event::ResourceQuarantined { resource, .. } => self.mark(*resource, |thing| thing.quarantined = true),
            Event::ResourceRestored { resource, .. } => self.mark(*resource, |thing| thing.quarantined = false),
            _ => {}
        }
    }

    fn mark(&mut self, resource: ResourceId, change: impl FnOnce(&mut Thing)) {
        if let Some(thing) = self.things.get_mut(&resource) {
            change(thing);
        }
    }

    fn granted(&mut self, lease: &Arc<Lease>) -> Kept {
        hold("fences only grow", lease.id > self.last_fence, || format!("{} after {}", lease.id, self.last_fence))?;
        self.last_fence = lease.id;
        hold("exclusive", self.sessions.contains_key(&lease.session), || format!("{lease:?} is nobody's"))?;
        self.overtakes_nobody(lease)?;
        let key = (lease.session, lease.request);
        let before = self.asked.insert(key, (Some(lease.claim), false));
        let once = before.is_none_or(|(claim, over)| claim == Some(lease.claim) && !over);
        hold("asking twice is asking once", once, || format!("lease {} for request {key:?}: {before:?}", lease.id))?;
        match self.claims.remove(&lease.claim) {
            Some(claim) => self.waited.push((claim.id, lease.granted_at.since(claim.queued_at))),
            // The lease does not tell since when its work counts.
            None => self.arrived(&lease.owner.name, &lease.spec, lease.queued_at, None)?,
        }
        self.claims_ever.insert(lease.claim);
        self.whole(lease)?;
        for pick in &lease.picks {
            let thing = self.things.get_mut(&pick.resource);
            let thing = thing.ok_or_else(|| Broken { promise: "exclusive", how: format!("{pick:?} is no thing") })?;
            hold("exclusive", thing.free() >= pick.slots, || {
                format!("lease {} took what is not free: {thing:?}", lease.id)
            })?;
            thing.used += pick.slots;
            let there = thing.provider.as_ref().is_none_or(|name| self.providers.contains_key(name));
            hold("nothing offline is given", there && !thing.offline, || {
                format!("lease {} took {thing:?}, while there are {:?}", lease.id, self.providers)
            })?;
            hold("exclusive", thing.used <= thing.spec.slots && thing.usable(), || {
                format!("lease {} took {} of {thing:?}", lease.id, pick.slots)
            })?;
        }
        self.untold.insert(lease.id);
        let held = Hold { lease: lease.clone(), freed: BTreeSet::new(), over_by: None };
        self.leases.insert(lease.id, held);
        self.caps_hold(lease)
    }

    /// Everything that was asked, and nothing more.
    fn whole(&self, lease: &Lease) -> Kept {
        let broken = |how: &str| format!("lease {} {how}: {:?} for {:?}", lease.id, lease.picks, lease.spec);
        let asked = lease.spec.needs.iter().map(|need| match need.count {
            Count::Exactly(count) => Some(count as usize),
            Count::All => None,
        });
        let mut given = 0;
        for (need, asked) in lease.spec.needs.iter().zip(asked) {
            let picks: Vec<_> = lease.picks.iter().filter(|pick| pick.alias == need.alias).collect();
            let several: BTreeSet<_> = picks.iter().map(|pick| pick.resource).collect();
            let enough = asked.map_or(!picks.is_empty(), |asked| picks.len() == asked) && several.len() == picks.len();
            hold("all or nothing", enough, || broken("is not whole"))?;
            given += picks.len();
            let right =
                |resource: &ResourceId| self.things.get(resource).is_some_and(|thing| puzzle::fits(need, thing));
            hold("all or nothing", several.iter().all(right), || broken("has what was not asked"))?;
        }
        hold("all or nothing", given == lease.picks.len(), || broken("has more than was asked"))?;
        let mut given: puzzle::Slotted = BTreeMap::new();
        for pick in &lease.picks {
            *given.entry(pick.resource).or_default() += pick.slots;
        }
        // What was given, and nothing else, satisfies it; `all` was counted with all there was.
        let all = lease.spec.needs.iter().any(|need| need.count == Count::All);
        let solved = all || puzzle::solvable(&lease.spec, &self.things, &given) != Some(false);
        hold("all or nothing", solved, || broken("does not satisfy it"))
    }

    fn lease_ending(&mut self, now_ms: u64, lease: LeaseId) -> Kept {
        self.ending.insert(lease);
        let sessions = &self.sessions;
        let held = self.leases.get_mut(&lease);
        let held =
            held.ok_or_else(|| Broken { promise: "everything leaves a trace", how: format!("{lease} is ending") })?;
        if let Some(known) = sessions.get(&held.lease.session) {
            held.over_by = Some((now_ms + known.ttl_ms).max(now_ms + known.promise_ms.unwrap_or(0)));
        }
        Ok(())
    }

    fn lease_ended(&mut self, lease: LeaseId, end: &LeaseEnd) -> Kept {
        let held = self.leases.remove(&lease);
        let held = held.ok_or_else(|| Broken {
            promise: "everything leaves a trace",
            how: format!("lease {lease} ended ({end:?}) and was not held"),
        })?;
        self.ended.insert(lease, end.clone());
        self.asked.insert((held.lease.session, held.lease.request), (Some(held.lease.claim), true));
        for pick in held.lease.picks.iter().filter(|pick| !held.freed.contains(&pick.resource)) {
            self.mark(pick.resource, |thing| thing.used -= pick.slots);
        }
        Ok(())
    }

    fn freed(&mut self, lease: LeaseId, resources: &[ResourceId]) -> Kept {
        let Some(held) = self.leases.get_mut(&lease) else { return Ok(()) };
        held.freed.extend(resources);
        let picks: Vec<_> =
            held.lease.picks.iter().filter(|pick| resources.contains(&pick.resource)).cloned().collect();
        for pick in picks {
            let pool = self.things.get(&pick.resource).and_then(|thing| self.pools.get(&thing.spec.pool));
            hold("exclusive", pool == Some(&OnDrop::Immediate), || format!("{pick:?} of {lease} was freed at a drop"))?;
            self.mark(pick.resource, |thing| thing.used -= pick.slots);
        }
        Ok(())
    }

    fn queued(&mut self, claim: &Claim) -> Kept {
        let key = (claim.session, claim.request);
        let before = self.asked.insert(key, (Some(claim.id), false));
        hold("asking twice is asking once", before.is_none(), || {
            format!("claim {} for {key:?}: {before:?}", claim.id)
        })?;
        let new = self.claims_ever.insert(claim.id);
        hold("asking twice is asking once", new, || format!("claim number {} was used before", claim.id))?;
        let possible = claim.spec.wait_for_inventory || self.possible(&claim.spec) != Some(false);
        hold("impossible is said at once", possible, || format!("{claim:?} waits for what is not on the books"))?;
        self.arrived(&claim.owner.name, &claim.spec, claim.queued_at, claim.first_arrival)?;
        self.claims.insert(claim.id, Arc::new(claim.clone()));
        Ok(())
    }

    fn claim_ended(&mut self, claim: ClaimId, key: (SessionId, u64), end: &ClaimEnd) -> Kept {
        let known = self.claims.remove(&claim);
        self.claims_ever.insert(claim);
        let before = self.asked.insert(key, (Some(claim), true));
        let once = before.is_none_or(|(of, over)| of == Some(claim) && !over);
        hold("asking twice is asking once", once, || format!("claim {claim} for {key:?} ended: {before:?}"))?;
        if let (ClaimEnd::Refused(refusal), Some(known)) = (end, known)
            && refusal.code == Code::Impossible
        {
            let impossible = self.possible(&known.spec) != Some(true);
            hold("impossible is said at once", impossible, || format!("{known:?} was refused: {}", refusal.message))?;
        }
        Ok(())
    }

    /// Whether everything on the books together could satisfy it.
    fn possible(&self, spec: &crate::core::claim::ClaimSpec) -> Option<bool> {
        let all = self.things.iter().map(|(id, thing)| (*id, thing.spec.slots)).collect();
        puzzle::solvable(spec, &self.things, &all)
    }

    // ---- what is told ----

    /// Something leaves the broker for a socket of this session, if it has one.
    pub(super) fn told(&mut self, now_ms: u64, socket: SocketId, of: Option<SessionId>, told: &Outgoing) -> Kept {
        use crate::engine::input::Notice;
        match told {
            Outgoing::Answer { result: Ok(answer), .. } => match answer {
                Answer::Opened(opened, _) => {
                    let session = SessionId(opened.session);
                    self.bound.insert(session, socket);
                    self.heard(now_ms, session);
                    self.renewal_told(session, &opened.renewed)?;
                    opened.state.claims.iter().try_for_each(|info| self.claim_told(Some(session), info))
                }
                Answer::Renewed(renewed) => of.map_or(Ok(()), |of| self.renewal_told(of, renewed)),
                Answer::Claim(told) => self.claim_told(of, &told.info),
                Answer::Released(released) => self.end_told(released.lease),
                Answer::Lease(told) => self.lease_told(told.lease.lease),
                Answer::State(state) => state.claims.iter().try_for_each(|info| self.claim_told(of, info)),
                Answer::Applied(_) | Answer::Done(_) => Ok(()),
            },
            Outgoing::Notice(Notice::Granted(told)) => self.claim_told(of, &told.info),
            Outgoing::Notice(Notice::ClaimEnded(info)) => self.claim_told(of, info),
            Outgoing::Notice(Notice::Ended(released)) => self.end_told(released.lease),
            Outgoing::Notice(Notice::Ending(ending)) => self.ending_told(ending.lease),
            Outgoing::Notice(Notice::Offline(reach) | Notice::Online(reach)) => {
                self.unreached.remove(&LeaseId(reach.lease));
                self.lease_told(reach.lease)
            }
            _ => Ok(()),
        }
    }

    /// Something leaves a broker that another has taken the lead from: it was durable before.
    pub(super) fn told_late(&mut self, told: &Outgoing) -> Kept {
        use crate::engine::input::Notice;
        match told {
            Outgoing::Answer { result: Ok(Answer::Claim(told)), .. } | Outgoing::Notice(Notice::Granted(told)) => {
                told.info.lease.iter().try_for_each(|lease| self.lease_told(lease.lease))
            }
            Outgoing::Answer { result: Ok(Answer::Released(released)), .. }
            | Outgoing::Notice(Notice::Ended(released)) => self.end_told(released.lease),
            Outgoing::Notice(Notice::Ending(ending)) => self.ending_told(ending.lease),
            _ => Ok(()),
        }
    }

    /// A session's renewal was answered, by whatever way.
    pub(super) fn renewal_told(&mut self, session: SessionId, renewed: &crate::protocol::call::SessionRenewed) -> Kept {
        let known = self.sessions.get(&session);
        let ttl_ms = known.map(|known| known.ttl_ms);
        // A session may have ended in the batch that its answer waited for.
        if let Some(ttl_ms) = ttl_ms {
            let most = self.promised.get(&session).copied().unwrap_or(0).max(ttl_ms);
            hold("durable before told", renewed.promise_ms <= most, || {
                format!("session {session} was promised {} ms, {most} are stored", renewed.promise_ms)
            })?;
        }
        // An answer that waited for its batch may come after one that waited for none: a client
        // counts by the highest number, whichever comes first.
        let told = self.renewals.entry(session).or_default();
        let term = |number: u64| number >> 32;
        let before = told.last().copied().unwrap_or(0);
        let grows = term(renewed.renewal) >= term(before) && told.insert(renewed.renewal);
        hold("renewal numbers grow", grows, || format!("{} after {before}", renewed.renewal))?;
        renewed.ending.iter().try_for_each(|lease| self.ending_told(*lease))
    }

    fn ending_told(&self, lease: u64) -> Kept {
        let lease = LeaseId(lease);
        let known = self.ending.contains(&lease) || self.ended.contains_key(&lease);
        hold("durable before told", known, || format!("lease {lease} was told to be ending"))
    }

    fn end_told(&self, lease: u64) -> Kept {
        let known = self.ended.contains_key(&LeaseId(lease));
        hold("durable before told", known, || format!("lease {lease} was told to be over"))
    }

    fn lease_told(&self, lease: u64) -> Kept {
        let lease = LeaseId(lease);
        let known = self.leases.contains_key(&lease) || self.ended.contains_key(&lease);
        hold("durable before told", known, || format!("lease {lease} was told"))
    }

    pub(super) fn claim_told(&mut self, of: Option<SessionId>, info: &ClaimInfo) -> Kept {
        let claim = ClaimId(info.claim);
        if info.state == "queued" {
            let known = self.claims_ever.contains(&claim);
            return hold("durable before told", known, || format!("claim {claim} was told to wait"));
        }
        if let Some(lease) = &info.lease {
            self.lease_told(lease.lease)?;
            self.untold.remove(&LeaseId(lease.lease));
            self.unreached.remove(&LeaseId(lease.lease));
        }
        let Some(session) = of else { return Ok(()) };
        let key = (session, info.request_id);
        if info.state == "ended" {
            let over = self.asked.get(&key).is_none_or(|(_, over)| *over) || !self.sessions.contains_key(&session);
            hold("durable before told", over, || format!("{key:?} was told to be over"))?;
        }
        let lease = info.lease.as_ref().map(|lease| lease.lease);
        let before = self.told.insert(key, lease);
        hold("asking twice is asking once", before.is_none_or(|before| lease.is_none() || before == lease), || {
            format!("{key:?} was told to be {before:?}, then {lease:?}")
        })
    }

    // ---- times ----

    /// A session gave a sign of life.
    pub(super) fn heard(&mut self, now_ms: u64, session: SessionId) {
        if let Some(known) = self.sessions.get_mut(&session) {
            known.back_by = known.back_by.max(now_ms + known.ttl_ms);
        }
    }

    /// A broker accepts connections, or its loop stood still: everybody gets a full ttl, and
    /// after a start what an earlier process promised.
    pub(super) fn everybody_anew(&mut self, now_ms: u64, started: bool) {
        for known in self.sessions.values_mut() {
            let promise_ms = known.promise_ms.filter(|_| started).unwrap_or(0);
            known.back_by = known.back_by.max(now_ms + known.ttl_ms.max(promise_ms));
        }
        for held in self.leases.values_mut() {
            if let (Some(over_by), Some(known)) = (&mut held.over_by, self.sessions.get(&held.lease.session)) {
                *over_by = (*over_by).max(known.back_by).max(now_ms + known.ttl_ms);
            }
        }
    }

    /// Nothing could be decided until now: what is due is due a little later.
    pub(super) fn later(&mut self, now_ms: u64) {
        for known in self.sessions.values_mut() {
            known.back_by = known.back_by.max(now_ms);
        }
        for over_by in self.leases.values_mut().filter_map(|held| held.over_by.as_mut()) {
            *over_by = (*over_by).max(now_ms);
        }
    }

    /// What must be back is back. To be asked when nothing is under way.
    pub(super) fn came_back(&self, now_ms: u64) -> Kept {
        const SLACK_MS: u64 = 1_500;
        for (lease, held) in &self.leases {
            let known = self.sessions.get(&held.lease.session);
            let back_by = known.map_or(0, |known| known.back_by) + SLACK_MS;
            hold("comes back", now_ms <= back_by, || {
                format!("lease {lease} should be back by {back_by}, it is {now_ms}")
            })?;
            if let (Some(over_by), Some(known)) = (held.over_by, known) {
                // A longer promise that binds is waited for.
                let over_by = over_by.max(self.long_until(held.lease.session, known)) + SLACK_MS;
                hold("comes back", now_ms <= over_by, || {
                    format!("lease {lease} is ending and should be over by {over_by}, it is {now_ms}")
                })?;
            }
        }
        Ok(())
    }

    /// Whoever was granted something and is there was told. To be asked when nothing is under way.
    pub(super) fn grants_are_told(&self) -> Kept {
        let untold = self.untold.iter().filter_map(|lease| self.leases.get(lease));
        let mut untold = untold.filter(|held| self.bound.contains_key(&held.lease.session));
        let one = untold.next();
        hold("whoever is granted is told", one.is_none(), || format!("{one:?} was not told"))?;
        let mut unreached = self.unreached.iter().filter_map(|lease| self.leases.get(lease));
        let one = unreached.find(|held| self.bound.contains_key(&held.lease.session));
        hold("whoever holds what goes offline is told", one.is_none(), || format!("{one:?} was not told"))
    }

    fn long_until(&self, session: SessionId, known: &Known) -> u64 {
        if self.promised.contains_key(&session) { known.back_by } else { 0 }
    }

    /// A socket is gone as far as the broker knows.
    pub(super) fn unbound(&mut self, socket: SocketId) {
        self.bound.retain(|_, bound| *bound != socket);
    }

    /// Whether a holder's belief counts for nothing: an admin took the lease by force.
    pub(super) fn waived(&self, lease: LeaseId) -> bool {
        matches!(self.ended.get(&lease), Some(LeaseEnd::Revoked { forced: true, .. }))
    }

    /// Whether the request is durable with a body, so that a repeat is a repeat.
    pub(super) fn knows_body(&self, session: SessionId, request: u64) -> bool {
        self.asked.get(&(session, request)).is_some_and(|(claim, _)| claim.is_some())
    }

    /// Whose a claim or lease is.
    pub(super) fn session_of(&self, claim: u64, lease: Option<u64>) -> Option<SessionId> {
        let holds = lease.and_then(|lease| self.leases.get(&LeaseId(lease))).map(|held| held.lease.session);
        holds.or_else(|| self.claims.get(&ClaimId(claim)).map(|claim| claim.session))
    }
}
