//! Whether an event fits the books, before it changes them.
//!
//! [`State::apply`] takes it for granted that an event speaks of what is on the books: the core has
//! just made it. Whoever replays a journal that a disk or a person may have damaged asks here first.
//! What fits here does not panic there.

use std::collections::{BTreeMap, BTreeSet};

use super::event::Event;
use super::inventory::{Resource, ResourceSpec};
use super::lease::Lease;
use super::state::State;
use super::types::{ClaimId, Key, LabTime, LeaseId, ResourceId, SessionId};

type Fits<T = ()> = Result<T, String>;

impl State {
    /// Whether [`State::apply`] may be called with the event.
    ///
    /// # Errors
    /// In words, what the event speaks of that the books know otherwise.
    pub fn fits(&self, at: LabTime, event: &Event) -> Fits {
        require(at >= self.lab.now, || format!("lab time goes back from {} to {}", self.lab.now.0, at.0))?;
        match event {
            Event::BrokerStarted { .. }
            | Event::PoolSet { .. }
            | Event::ArrivalNoted { .. }
            | Event::ArrivalForgotten { .. }
            | Event::KeyedForgotten { .. } => Ok(()),
            Event::StoreMoved { last_lease, .. } => self.is_next_fence(*last_lease),
            Event::PoolRemoved { pool } => self.is_empty(pool),
            Event::ResourceAdded { resource, spec, .. } => {
                require(!self.resources.contains_key(resource), || format!("resource {resource} is added twice"))?;
                self.may_be(*resource, spec)
            }
            Event::ResourceChanged { resource, spec } => {
                self.known(*resource)?;
                self.may_be(*resource, spec)
            }
            Event::ResourceRemoved { resource } => {
                let holders = &self.known(*resource)?.holders;
                require(holders.is_empty(), || format!("resource {resource} is removed while {holders:?} hold it"))
            }
            Event::ResourceCooling { resource, cooling } => {
                let cools = self.known(*resource)?.cooling.iter().map(|known| u64::from(known.slots)).sum::<u64>();
                let slots = cools.saturating_add(u64::from(cooling.slots));
                require(u32::try_from(slots).is_ok(), || format!("{slots} slots of resource {resource} cool"))
            }
            Event::ResourcePending { resource, .. }
            | Event::ResourceDrained { resource, .. }
            | Event::ResourceUndrained { resource, .. }
            | Event::ResourceQuarantined { resource, .. }
            | Event::ResourceRestored { resource, .. }
            | Event::ResourceOffline { resource, .. }
            | Event::ResourceOnline { resource }
            | Event::ResourceCooled { resource } => self.known(*resource).map(drop),
            Event::SessionOpened { session, .. } => {
                require(!self.sessions.contains_key(session), || format!("session {session} opens twice"))
            }
            Event::SessionEnded { session, .. } => {
                self.is_open(*session)?;
                let open = &self.sessions[session].requests.open;
                require(open.is_empty(), || format!("session {session} ends while it has {open:?}"))
            }
            Event::RequestsForgotten { session, up_to } => {
                require(*up_to < u64::MAX, || format!("session {session} forgets all requests"))?;
                self.is_open(*session)
            }
            Event::ProviderAttached { session, from, .. } => {
                from.iter().chain([session]).try_for_each(|session| self.is_open(*session))
            }
            Event::SessionPromised { session, .. }
            | Event::SessionKicked { session, .. }
            | Event::ClaimEnded { session, .. }
            | Event::RequestTombstoned { session, .. } => self.is_open(*session),
            Event::ClaimQueued { claim } => {
                require(!self.claims.contains_key(&claim.id), || format!("claim {} is queued twice", claim.id))?;
                self.is_open(claim.session)
            }
            Event::ClaimPinned { claim, .. } | Event::ClaimBlocked { claim, .. } => self.waits(*claim),
            Event::LeaseGranted { lease } => self.may_be_granted(lease),
            Event::LeaseExtended { lease, .. } | Event::LeaseEnding { lease, .. } => self.held(*lease).map(drop),
            Event::PicksFreed { lease, resources } => self.may_be_freed(self.held(*lease)?, resources),
            Event::LeaseEnded { lease, .. } => {
                let lease = self.held(*lease)?;
                let picks = lease.picks.iter().map(|pick| pick.resource);
                let rest: BTreeSet<ResourceId> = picks.filter(|pick| !lease.freed.contains(pick)).collect();
                self.may_be_freed(lease, &Vec::from_iter(rest))
            }
        }
    }

    fn is_empty(&self, pool: &Key) -> Fits {
        let empty = self.pools.get(pool).is_none_or(|known| known.members.is_empty());
        require(empty, || format!("pool {pool} is removed with resources in it"))
    }

    fn is_next_fence(&self, fence: u64) -> Fits {
        let last = self.lab.last_lease;
        require(fence > last, || format!("fence {fence} is given after {last}"))
    }

    fn known(&self, id: ResourceId) -> Fits<&Resource> {
        self.resources.get(&id).ok_or_else(|| format!("resource {id} is not on the books"))
    }

    fn may_be(&self, id: ResourceId, spec: &ResourceSpec) -> Fits {
        let taken = self.names.get(&spec.name).is_some_and(|by| *by != id);
        require(!taken, || format!("the name {} is on the books twice", spec.name))?;
        let there = self.pools.contains_key(&spec.pool);
        require(there, || format!("resource {} is in pool {}, which is not on the books", spec.name, spec.pool))
    }

    fn is_open(&self, id: SessionId) -> Fits {
        require(self.sessions.contains_key(&id), || format!("session {id} is not on the books"))
    }

    fn waits(&self, id: ClaimId) -> Fits {
        require(self.claims.contains_key(&id), || format!("claim {id} is not on the books"))
    }

    fn held(&self, id: LeaseId) -> Fits<&Lease> {
        self.leases.get(&id).map(|lease| &**lease).ok_or_else(|| format!("lease {id} is not on the books"))
    }

    fn may_be_granted(&self, lease: &Lease) -> Fits {
        self.is_next_fence(lease.id.0)?;
        self.is_open(lease.session)?;
        let mut taken: BTreeMap<ResourceId, u64> = BTreeMap::new();
        for pick in &lease.picks {
            *taken.entry(pick.resource).or_default() += u64::from(pick.slots);
        }
        for (resource, slots) in taken {
            let used = u64::from(self.known(resource)?.slots_used).saturating_add(slots);
            require(u32::try_from(used).is_ok(), || format!("{used} slots of resource {resource} are held"))?;
        }
        Ok(())
    }

    fn may_be_freed(&self, lease: &Lease, resources: &[ResourceId]) -> Fits {
        let each: BTreeSet<&ResourceId> = resources.iter().collect();
        require(each.len() == resources.len(), || {
            format!("lease {} frees {resources:?}, one of them twice", lease.id)
        })?;
        for resource in resources {
            let holds = self.known(*resource)?.holders.contains(&lease.id) && !lease.freed.contains(resource);
            require(holds, || format!("lease {} frees resource {resource}, which it does not hold", lease.id))?;
        }
        Ok(())
    }
}

fn require(fits: bool, how: impl FnOnce() -> String) -> Fits {
    if fits { Ok(()) } else { Err(how()) }
}
