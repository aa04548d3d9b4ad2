//! The promises that the core can break, each as a check that has a name.
//!
//! Tests and the simulation ask after every step. Everything is computed anew from the records,
//! with none of the code that decides: [`check`] looks at the books as they are, [`Witness`] at
//! each event on its way into them. A check that would take too long to be certain says nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::broker::Broker;
use super::caps::Share;
use super::event::Event;
use super::inventory::{Origin, Resource};
use super::lease::Lease;
use super::limits::{ARRIVALS_KEPT_MS, FENCE_MAX, KEYED_KEPT_MS};
use super::need::{Count, Slots};
use super::session::{OpenRequest, SessionKind};
use super::state::{Deadline, State};
use super::tables::Tables;
use super::types::{Key, LabTime, ProviderName, ResourceId, SessionId};

mod queue;

use self::queue::meets;

/// Holds the broker's books against the promises.
///
/// # Errors
/// The name of the promise that is broken, and how.
pub fn check(broker: &Broker) -> Result<(), String> {
    books(broker.state())?;
    let rebuilt = State::from_tables(&broker.state().tables())?;
    books(&rebuilt).map_err(|broken| format!("after a restart: {broken}"))?;
    hold("tables survive a restart", rebuilt.tables() == broker.state().tables(), String::new)?;
    beside(broker)?;
    selections(broker)?;
    queue::nobody_waits_in_vain(broker)
}

/// Sees every event, and keeps books of its own by them.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    state: State,
}

impl Witness {
    /// One who knows what a store holds.
    ///
    /// # Errors
    /// In words, where the tables contradict each other.
    pub fn of(tables: &Tables) -> Result<Self, String> {
        State::from_tables(tables).map(|state| Self { state })
    }

    /// Takes note of an event.
    ///
    /// # Errors
    /// The promise that the event breaks.
    pub fn see(&mut self, at: LabTime, event: &Event) -> Result<(), String> {
        if let Event::LeaseGranted { lease } = event {
            fence_grows(&self.state, lease)?;
            within_caps(&self.state, lease)?;
            slots_were_free(&self.state, lease)?;
            all_that_was_asked(&self.state, lease)?;
        }
        self.state.apply(at, event);
        Ok(())
    }

    /// The books that the events seen give.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Whether an event may be shown to [`Self::see`]: one that a damaged journal tells may not.
    ///
    /// # Errors
    /// In words, what it speaks of that the books know otherwise.
    pub fn fits(&self, at: LabTime, event: &Event) -> Result<(), String> {
        self.state.fits(at, event)
    }

    /// Forgets what the events seen so far changed, which only grows.
    pub fn settle(&mut self) {
        drop(self.state.take_changes());
    }

    /// Whether the events alone give the books that made them.
    ///
    /// # Errors
    /// That they do not.
    pub fn agrees(&self, state: &State) -> Result<(), String> {
        let (replayed, kept) = (self.state.tables(), state.tables());
        hold("events replayed give the books", replayed == kept, || format!("{replayed:?}\nis not\n{kept:?}"))
    }
}

fn hold(promise: &str, kept: bool, how: impl FnOnce() -> String) -> Result<(), String> {
    if kept { Ok(()) } else { Err(format!("{promise}: {}", how())) }
}

fn fence_grows(state: &State, lease: &Lease) -> Result<(), String> {
    let last = state.lab.last_lease;
    hold("fences grow", lease.id.0 > last && lease.id.0 <= FENCE_MAX, || format!("{} after {last}", lease.id))
}

fn slots_were_free(state: &State, lease: &Lease) -> Result<(), String> {
    let mut taken: BTreeMap<ResourceId, u32> = BTreeMap::new();
    for pick in &lease.picks {
        *taken.entry(pick.resource).or_default() += pick.slots;
    }
    for (id, slots) in taken {
        let resource = state.resource(id);
        let free = resource.slots_free();
        hold("exclusive", slots > 0 && slots <= free, || {
            format!("lease {} took {slots} slots of {}, which had {free} free", lease.id, resource.spec.name)
        })?;
        let there = provider_of(resource).is_none_or(|name| provides(state, name).is_some());
        hold("nothing offline is given", there, || format!("lease {} took {resource:?}", lease.id))?;
        hold("nothing out of use is given", resource.is_grantable(), || {
            format!("lease {} took {}, which is {:?}", lease.id, resource.spec.name, resource.marks)
        })?;
    }
    Ok(())
}

/// No owner holds more of a pool than its policy says, also with this one.
fn within_caps(state: &State, lease: &Lease) -> Result<(), String> {
    for pool in state.pools.values() {
        let Some(most) = pool.pool.max_per_owner else { continue };
        let inside = |lease: &Lease| {
            let picks = lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource));
            picks.filter(|pick| pool.members.contains(&pick.resource)).count()
        };
        let own = state.leases.values().filter(|held| held.owner.name == lease.owner.name);
        let held: usize = own.map(|held| inside(held)).sum();
        hold("caps per owner", inside(lease) == 0 || held + inside(lease) <= most as usize, || {
            format!("{} holds {held} of {} and got {lease:?}", lease.owner, pool.pool.name)
        })?;
    }
    Ok(())
}

/// All or nothing: each need has what it asked for, and the claim's constraints hold.
fn all_that_was_asked(state: &State, lease: &Lease) -> Result<(), String> {
    let mut rest = lease.picks.as_slice();
    for need in &lease.spec.needs {
        let mine = rest.iter().take_while(|pick| pick.alias == need.alias).count();
        let (picks, others) = rest.split_at(mine);
        rest = others;
        let matches = state.resources.values().filter(|resource| resource.is_grantable() && meets(need, resource));
        let asked = match need.count {
            Count::Exactly(count) => count as usize,
            Count::All => matches.count().max(1),
        };
        let each: BTreeSet<ResourceId> = picks.iter().map(|pick| pick.resource).collect();
        hold("all or nothing", each.len() == asked && picks.len() == asked, || {
            format!("lease {} got {picks:?} for `{need}`, which asks for {asked}", lease.id)
        })?;
        for pick in picks {
            let resource = state.resource(pick.resource);
            let slots = match need.slots {
                Slots::Exactly(slots) => slots,
                Slots::All => resource.spec.slots,
            };
            hold("what was asked", meets(need, resource) && pick.slots == slots, || {
                format!("lease {} got {pick:?} for `{need}`", lease.id)
            })?;
        }
    }
    hold("all or nothing", rest.is_empty(), || format!("lease {} got {rest:?} for no need", lease.id))?;
    let labels = |key: &Key| -> Vec<_> {
        lease.picks.iter().map(|pick| state.resource(pick.resource).label(key.as_str())).collect()
    };
    if let Some(key) = &lease.spec.same {
        let values: BTreeSet<_> = labels(key).into_iter().collect();
        hold("same", values.len() == 1 && !values.contains(&None), || format!("lease {} has {values:?}", lease.id))?;
    }
    if let Some(key) = &lease.spec.distinct {
        let values: BTreeSet<_> = labels(key).into_iter().flatten().collect();
        hold("distinct", values.len() == lease.picks.len(), || format!("lease {} has {values:?}", lease.id))?;
    }
    Ok(())
}

/// What the books say twice, they say alike.
fn books(state: &State) -> Result<(), String> {
    holders(state)?;
    numbers(state)?;
    requests(state)?;
    names(state)?;
    queues(state)?;
    owners(state)?;
    providers(state)?;
    deadlines(state)
}

/// Exclusive: the slots used are those of the leases, each of which holds what was not freed. How
/// many may be used at most is [`Witness`]'s to judge: a resource may be given fewer slots while
/// more are held.
fn holders(state: &State) -> Result<(), String> {
    let mut held: BTreeMap<ResourceId, (u32, BTreeSet<_>)> = BTreeMap::new();
    for lease in state.leases.values() {
        for pick in lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource)) {
            let (slots, leases) = held.entry(pick.resource).or_default();
            *slots += pick.slots;
            leases.insert(lease.id);
        }
        hold("freed only while ending", lease.freed.is_empty() || lease.ending.is_some(), || format!("{lease:?}"))?;
    }
    for resource in state.resources.values() {
        let (slots, leases) = held.remove(&resource.id).unwrap_or_default();
        let kept = slots == resource.slots_used && leases == resource.holders;
        hold("holders", kept, || format!("{resource:?} is held by {leases:?} with {slots} slots"))?;
        let waits = resource.pending.is_some() && resource.holders.is_empty();
        hold("what waited for the last holder is done", !waits, || format!("{resource:?}"))?;
    }
    hold("holders", held.is_empty(), || format!("{held:?} are held and not on the books"))
}

fn numbers(state: &State) -> Result<(), String> {
    let lab = state.lab;
    let last = |promise, last: u64, highest: Option<u64>| {
        hold(promise, highest.is_none_or(|highest| highest <= last), || format!("{highest:?} is above {last}"))
    };
    last("fences grow", lab.last_lease, state.leases.keys().next_back().map(|id| id.0))?;
    last("claim numbers grow", lab.last_claim, state.claims.keys().next_back().map(|id| id.0))?;
    last("session numbers grow", lab.last_session, state.sessions.keys().next_back().map(|id| id.0))?;
    last("resource numbers grow", lab.last_resource, state.resources.keys().next_back().map(|id| id.0))
}

/// Asking twice is asking once: what is open is what waits or is held, and is not over as well.
fn requests(state: &State) -> Result<(), String> {
    let mut open: BTreeSet<(_, u64, OpenRequestKey)> = BTreeSet::new();
    for session in state.sessions.values() {
        for (request, what) in &session.requests.open {
            let key = match *what {
                OpenRequest::Claim(claim) => (Some(claim), None),
                OpenRequest::Lease(lease) => (None, Some(lease)),
            };
            open.insert((session.id, *request, key));
            let twice = session.requests.ended.contains_key(request);
            hold("asking twice is asking once", !twice, || format!("{} {request} is open and over", session.id))?;
        }
        let lonely = session.requests.open.is_empty()
            && (session.kicked_by.is_some() || matches!(session.kind, SessionKind::Keyed { .. }));
        hold("a session that only waits for its end is over", !lonely, || format!("{session:?}"))?;
    }
    let claims = state.claims.values().map(|claim| (claim.session, claim.request, (Some(claim.id), None)));
    let leases = state.leases.values().map(|lease| (lease.session, lease.request, (None, Some(lease.id))));
    let real: BTreeSet<_> = claims.chain(leases).collect();
    hold("asking twice is asking once", open == real, || format!("open are {open:?}, there are {real:?}"))
}

type OpenRequestKey = (Option<super::types::ClaimId>, Option<super::types::LeaseId>);

fn names(state: &State) -> Result<(), String> {
    let named = state.resources.values().map(|resource| (resource.spec.name.clone(), resource.id)).collect();
    hold("names", state.names == named, || format!("{:?} is not {named:?}", state.names))?;
    for (key, pool) in &state.pools {
        let members = state.resources.values().filter(|resource| resource.spec.pool == *key);
        let members: BTreeSet<ResourceId> = members.map(|resource| resource.id).collect();
        hold("pools", pool.members == members, || format!("{key} has {:?}, not {members:?}", pool.members))?;
    }
    let homeless = state.resources.values().find(|resource| !state.pools.contains_key(&resource.spec.pool));
    hold("pools", homeless.is_none(), || format!("{homeless:?} has no pool"))?;
    let keyed = state.sessions.values().filter(|session| matches!(session.kind, SessionKind::Keyed { .. }));
    let keyed = keyed.map(|session| (session.secret.clone(), session.id)).collect();
    hold("keys", state.keys == keyed, || format!("{:?} is not {keyed:?}", state.keys))
}

fn queues(state: &State) -> Result<(), String> {
    let queue: BTreeSet<_> = state.claims.values().map(|claim| claim.seniority).collect();
    hold("queue", state.queue == queue, || format!("{:?} is not {queue:?}", state.queue))?;
    for (key, pool) in &state.pools {
        let asks = state.claims.values().filter(|claim| State::pools_of(claim).contains(key));
        let (mut queue, mut spanning) = (BTreeSet::new(), BTreeSet::new());
        for claim in asks {
            queue.insert(claim.seniority);
            if State::pools_of(claim).len() > 1 {
                spanning.insert(claim.id);
            }
        }
        let kept = pool.queue == queue && pool.spanning == spanning;
        hold("queue of a pool", kept, || format!("{key}: {pool:?} is not {queue:?} with {spanning:?}"))?;
    }
    Ok(())
}

/// What each owner has of a pool is what its leases and claims say, where the policy asks for it.
fn owners(state: &State) -> Result<(), String> {
    for (key, pool) in &state.pools {
        let mut owners: BTreeMap<_, Share> = BTreeMap::new();
        if pool.pool.counts_owners() {
            for lease in state.leases.values() {
                let picks = lease.picks.iter().filter(|pick| !lease.freed.contains(&pick.resource));
                for _ in picks.filter(|pick| state.resource(pick.resource).spec.pool == *key) {
                    owners.entry(lease.owner.name.clone()).or_default().held += 1;
                }
            }
            for claim in state.claims.values().filter(|claim| State::pools_of(claim).contains(key)) {
                owners.entry(claim.owner.name.clone()).or_default().waiting.insert(claim.seniority);
            }
        }
        hold("owners of a pool", pool.owners == owners, || format!("{key}: {:?} is not {owners:?}", pool.owners))?;
    }
    Ok(())
}

fn provider_of(resource: &Resource) -> Option<&ProviderName> {
    match &resource.origin {
        Origin::Provider(name) => Some(name),
        Origin::Api | Origin::File => None,
    }
}

/// The session that brings the provider's resources, looked for among all.
fn provides<'a>(state: &'a State, name: &ProviderName) -> Option<&'a SessionId> {
    let mut all = state.sessions.iter();
    all.find(|(_, session)| session.provides.as_ref().is_some_and(|own| own.name == *name)).map(|(id, _)| id)
}

/// A name is provided by one session, and what it brings is offline exactly while there is none.
fn providers(state: &State) -> Result<(), String> {
    let mut named: BTreeMap<ProviderName, SessionId> = BTreeMap::new();
    for session in state.sessions.values() {
        let Some(provider) = &session.provides else { continue };
        let other = named.insert(provider.name.clone(), session.id);
        hold("a provider is one session", other.is_none(), || format!("{other:?} provides as {session:?} does"))?;
    }
    hold("providers", state.providers == named, || format!("{:?} is not {named:?}", state.providers))?;
    for resource in state.resources.values() {
        let gone = provider_of(resource).is_some_and(|name| !named.contains_key(name));
        let said = resource.marks.offline.is_some();
        hold("offline without its provider, online with it", said == gone, || format!("{resource:?}"))?;
    }
    let kept = state.remembered.values().find(|marks| marks.offline.is_some());
    hold("offline is not remembered", kept.is_none(), || format!("{kept:?}"))
}

fn deadlines(state: &State) -> Result<(), String> {
    let waits = state.claims.values().filter_map(|claim| Some((claim.wait_until?, Deadline::Wait(claim.id))));
    let active = state.leases.values().filter(|lease| lease.ending.is_none());
    let holds = active.filter_map(|lease| Some((lease.until?, Deadline::Hold(lease.id))));
    let keyed =
        state.keyed.iter().map(|(key, record)| (record.ended_at.plus(KEYED_KEPT_MS), Deadline::Keyed(key.clone())));
    let cooling = state
        .resources
        .values()
        .flat_map(|resource| resource.cooling.iter().map(|cooling| (cooling.until, Deadline::Cooled(resource.id))));
    let arrivals =
        state.arrivals.values().map(|arrival| (arrival.first.plus(ARRIVALS_KEPT_MS), Deadline::Arrival(arrival.id)));
    let due: BTreeSet<_> = waits.chain(holds).chain(keyed).chain(cooling).chain(arrivals).collect();
    hold("deadlines", state.deadlines == due, || format!("{:?} is not {due:?}", state.deadlines))
}

/// What the broker knows beside the books fits them.
fn beside(broker: &Broker) -> Result<(), String> {
    let state = broker.state();
    let known = |id| state.sessions.contains_key(id);
    let sessions = broker.connected.iter().chain(&broker.away).all(known) && broker.connected.is_disjoint(&broker.away);
    hold("presence", sessions, || format!("{:?} are here, {:?} away", broker.connected, broker.away))?;
    let asked = broker.asks.keys().eq(state.claims.keys());
    hold("selections of claims", asked, || format!("{:?} have them", broker.asks.keys()))
}

fn selections(broker: &Broker) -> Result<(), String> {
    let state = broker.state();
    for (claim, ids) in &broker.asks {
        for (need, id) in state.claims[claim].spec.needs.iter().zip(ids) {
            let matches = state.resources.values().filter(|resource| meets(need, resource));
            let matches: Vec<ResourceId> = matches.map(|resource| resource.id).collect();
            let known: Vec<ResourceId> = broker.selections().get(*id).matches().collect();
            hold("selection", known == matches, || format!("`{need}` selects {known:?}, not {matches:?}"))?;
        }
    }
    broker.selections().verify(state, &broker.asks).map_err(|wrong| format!("selection: {wrong}"))
}
