//! The difference between the books and what one origin declares.
//!
//! Three steps: find which resource on the books each declared one is (by name, by its former
//! name, by the name that waits for its holder); say what becomes of each; check the whole that
//! comes out of it. Nothing is answered before the whole was checked.
//!
//! A resource that is held stays what its holder was given, so two of its faces count against
//! names and identities: what it is now and what it will be. Otherwise a device could be leased
//! under a new name while somebody still holds it under the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Change, Declared, Options, Plan, check_spec, default_pool, invalid, words};
use crate::core::event::Event;
use crate::core::inventory::{Origin, Pending, Pool, Resource, ResourceSpec};
use crate::core::limits::RESOURCES_MAX;
use crate::core::refusal::{Code, Refusal};
use crate::core::state::State;
use crate::core::types::{Key, ResourceId, ResourceName, Value};

/// Whether a change that waits moves the resource into the pool.
pub(super) fn will_be_in(resource: &Resource, pool: &Key) -> bool {
    matches!(&resource.pending, Some(Pending::Change(spec)) if spec.pool == *pool)
}

/// A resource as it will be on the books after the plan.
struct After {
    spec: Arc<ResourceSpec>,
    pending: Option<Pending>,
}

impl After {
    /// What it is, and what it will be.
    fn faces(&self) -> impl Iterator<Item = &ResourceSpec> {
        let later = match &self.pending {
            Some(Pending::Change(spec)) => Some(&**spec),
            Some(Pending::Removal) | None => None,
        };
        std::iter::once(&*self.spec).chain(later)
    }
}

pub(super) struct Diff<'a> {
    state: &'a State,
    declared: &'a Declared,
    origin: &'a Origin,
    /// For each declared resource, which one on the books it is; `None`: it is new.
    known: Vec<Option<ResourceId>>,
    /// What all resources will be.
    after: BTreeMap<ResourceId, After>,
    /// Pools that will be on the books.
    pools: BTreeMap<Key, Arc<Pool>>,
    pool_events: Vec<Event>,
    removals: Vec<Event>,
    changes: Vec<Event>,
    words: Vec<Change>,
    unchanged: usize,
}

impl<'a> Diff<'a> {
    /// Finds out which resource each declared one is.
    pub(super) fn new(state: &'a State, declared: &'a Declared, origin: &'a Origin) -> Result<Self, Refusal> {
        let known = recognise(state, declared, origin)?;
        Ok(Self {
            state,
            declared,
            origin,
            known,
            after: BTreeMap::new(),
            pools: state.pools.iter().map(|(key, pool)| (key.clone(), pool.pool.clone())).collect(),
            pool_events: Vec::new(),
            removals: Vec::new(),
            changes: Vec::new(),
            words: Vec::new(),
            unchanged: 0,
        })
    }

    pub(super) fn plan(mut self, options: &Options) -> Result<Plan, Refusal> {
        self.set_pools()?;
        let going = self.remove(options.prune);
        self.settle();
        let going_pools = self.name_pools(options.prune);
        let mut events = self.pool_events;
        events.append(&mut self.removals);
        events.append(&mut self.changes);
        events.extend(going_pools.into_iter().map(|pool| Event::PoolRemoved { pool }));
        if !events.is_empty() {
            check_whole(self.state, &self.after, &self.pools)?;
        }
        if !options.confirmed {
            confirm(self.state, self.origin, going)?;
        }
        Ok(Plan { events, changes: self.words, unchanged: self.unchanged })
    }

    /// Pools that are defined.
    fn set_pools(&mut self) -> Result<(), Refusal> {
        for pool in &self.declared.pools {
            match self.state.pools.get(&pool.name) {
                None => {
                    self.words.push(words::pool_added(pool));
                    self.set_pool(Arc::new(pool.clone()));
                }
                Some(present) if present.origin == *self.origin && *present.pool == *pool => {}
                // A pool that `resource set` only named has no policy that anybody could miss.
                Some(present) if present.origin == *self.origin || present.pool == default_pool(&pool.name) => {
                    self.words.push(words::pool_changed(&present.pool, pool));
                    self.set_pool(Arc::new(pool.clone()));
                }
                Some(present) => {
                    let by = words::origin(&present.origin);
                    let message = format!("pool \"{}\" is declared by {by}: change it there", pool.name);
                    return Err(Refusal::new(Code::NameTaken, message));
                }
            }
        }
        Ok(())
    }

    fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pools.insert(pool.name.clone(), pool.clone());
        self.pool_events.push(Event::PoolSet { pool, origin: self.origin.clone() });
    }

    /// Takes off the books what is declared no more; answers how many are newly going. Everything
    /// else that is not declared stays as it is.
    fn remove(&mut self, prune: bool) -> usize {
        let declared: BTreeSet<ResourceId> = self.known.iter().flatten().copied().collect();
        let mut going = 0;
        let mut words = Vec::new();
        for resource in self.state.resources.values().filter(|resource| !declared.contains(&resource.id)) {
            let mut pending = resource.pending.clone();
            if prune && resource.origin == *self.origin && pending != Some(Pending::Removal) {
                going += 1;
                words.push(words::removed(resource));
                if resource.holders.is_empty() {
                    self.removals.push(Event::ResourceRemoved { resource: resource.id });
                    continue;
                }
                pending = Some(Pending::Removal);
                self.removals.push(Event::ResourcePending { resource: resource.id, pending: pending.clone() });
            }
            self.after.insert(resource.id, After { spec: resource.spec.clone(), pending });
        }
        self.words.append(&mut words);
        going
    }

    /// Says what becomes of each declared resource.
    fn settle(&mut self) {
        let mut last = self.state.lab.last_resource;
        for (declared, known) in self.declared.resources.iter().zip(std::mem::take(&mut self.known)) {
            let wanted = &declared.spec;
            let Some(resource) = known.and_then(|id| self.state.resources.get(&id)) else {
                last += 1;
                let (resource, spec) = (ResourceId(last), Arc::new(wanted.clone()));
                self.words.push(words::added(wanted));
                self.after.insert(resource, After { spec: spec.clone(), pending: None });
                self.changes.push(Event::ResourceAdded { resource, spec, origin: self.origin.clone() });
                continue;
            };
            let after = become_of(resource, wanted);
            let before = self.changes.len();
            // What waited is taken back first: then each event can be read by itself.
            if after.pending != resource.pending {
                let pending = after.pending.clone();
                self.changes.push(Event::ResourcePending { resource: resource.id, pending });
            }
            if after.spec != resource.spec {
                self.changes.push(Event::ResourceChanged { resource: resource.id, spec: after.spec.clone() });
            }
            if self.changes.len() == before {
                self.unchanged += 1;
            } else {
                self.words.push(words::changed(resource, wanted, after.pending.is_some()));
            }
            self.after.insert(resource.id, after);
        }
    }

    /// Gives pools that are only named the default policy; with `prune`, also those that are no
    /// longer defined, and answers those that nothing is in any more.
    fn name_pools(&mut self, prune: bool) -> Vec<Key> {
        // What a provider only names is as if `resource set` had: the lab may define it any time.
        let owner = if matches!(self.origin, Origin::Provider(_)) { &Origin::Api } else { self.origin };
        let needed: BTreeSet<Key> = self.after.values().flat_map(After::faces).map(|spec| spec.pool.clone()).collect();
        for key in needed.iter().filter(|key| !self.state.pools.contains_key(*key)) {
            if !self.pools.contains_key(key) {
                let pool = default_pool(key);
                self.words.push(words::pool_added(&pool));
                self.pools.insert(key.clone(), pool.clone());
                self.pool_events.push(Event::PoolSet { pool, origin: owner.clone() });
            }
        }
        // Nobody ever defined a pool that `resource set` only named: it goes with its last resource.
        let sweep = prune || *owner == Origin::Api;
        let defined: BTreeSet<&Key> = self.declared.pools.iter().map(|pool| &pool.name).collect();
        let mut going = Vec::new();
        for (key, present) in &self.state.pools {
            if present.origin != *owner || defined.contains(key) {
                continue;
            }
            let default = default_pool(key);
            if sweep && !needed.contains(key) {
                self.words.push(words::pool_removed(key));
                self.pools.remove(key);
                going.push(key.clone());
            } else if prune && needed.contains(key) && present.pool != default {
                self.words.push(words::pool_changed(&present.pool, &default));
                self.pools.insert(key.clone(), default.clone());
                self.pool_events.push(Event::PoolSet { pool: default, origin: owner.clone() });
            }
        }
        going
    }
}

/// What becomes of a resource that is declared to be `wanted`: all of it at once when nobody
/// holds it; else its slots at once, which only bound new grants, and the rest after the holders.
fn become_of(resource: &Resource, wanted: &ResourceSpec) -> After {
    let spec = &resource.spec;
    if **spec == *wanted {
        return After { spec: spec.clone(), pending: None };
    }
    if resource.holders.is_empty() {
        return After { spec: Arc::new(wanted.clone()), pending: None };
    }
    let spec = if spec.slots == wanted.slots {
        spec.clone()
    } else {
        Arc::new(ResourceSpec { slots: wanted.slots, ..(**spec).clone() })
    };
    let pending = (*spec != *wanted).then(|| Pending::Change(Arc::new(wanted.clone())));
    After { spec, pending }
}

/// Which resource on the books each declared one is.
fn recognise(state: &State, declared: &Declared, origin: &Origin) -> Result<Vec<Option<ResourceId>>, Refusal> {
    let mut names = BTreeSet::new();
    for resource in &declared.resources {
        check_spec(&resource.spec)?;
        if !names.insert(&resource.spec.name) {
            return invalid(format!("resource \"{}\" is declared twice: a name is unique", resource.spec.name));
        }
    }
    let mut known: Vec<Option<ResourceId>> = Vec::with_capacity(declared.resources.len());
    let mut found = BTreeSet::new();
    for resource in &declared.resources {
        let by_name = state.names.get(&resource.spec.name).copied();
        let id = match &resource.was {
            Some(was) => by_former_name(state, &resource.spec.name, was, by_name, origin, &names)?,
            None => by_name,
        };
        if let Some(id) = id
            && !found.insert(id)
        {
            return invalid(format!(
                "two resources are declared to have been the same one, now {}",
                resource.spec.name
            ));
        }
        known.push(id);
    }
    // Only now: a resource whose present name is declared again keeps it, and its rename is taken back.
    let renaming: BTreeMap<&ResourceName, ResourceId> = state
        .resources
        .values()
        .filter_map(|resource| match &resource.pending {
            Some(Pending::Change(spec)) if spec.name != resource.spec.name => Some((&spec.name, resource.id)),
            _ => None,
        })
        .filter(|(_, id)| !found.contains(id))
        .collect();
    for (resource, id) in declared.resources.iter().zip(&mut known) {
        if id.is_none() {
            *id = renaming.get(&resource.spec.name).copied();
        }
        if let Some(present) = id.and_then(|id| state.resources.get(&id))
            && present.origin != *origin
        {
            return Err(Refusal::new(Code::NameTaken, words::taken(&resource.spec.name, &present.origin)));
        }
    }
    Ok(known)
}

/// Which resource one is that had another name before.
fn by_former_name(
    state: &State,
    name: &ResourceName,
    was: &ResourceName,
    by_name: Option<ResourceId>,
    origin: &Origin,
    declared: &BTreeSet<&ResourceName>,
) -> Result<Option<ResourceId>, Refusal> {
    if declared.contains(was) {
        return invalid(format!(
            "resource \"{name}\" was \"{was}\", which is declared too: rename in one step, and use the old name again \
             in the next"
        ));
    }
    let former = state.names.get(was).and_then(|id| state.resources.get(id));
    match (former, by_name) {
        (None, by_name) => Ok(by_name),
        (Some(former), None) if former.origin == *origin => Ok(Some(former.id)),
        (Some(former), None) => Err(Refusal::new(Code::NameTaken, words::taken(was, &former.origin))),
        // Renamed long ago; the old name is somebody else's now.
        (Some(former), Some(present)) if former.origin != *origin => Ok(Some(present)),
        (Some(_), Some(_)) => Err(Refusal::new(
            Code::NameTaken,
            format!(
                "resource \"{was}\" cannot become \"{name}\", which is there already: remove `was`, or remove one of \
                 the two first"
            ),
        )),
    }
}

/// What no inventory may be: too large, with a name twice, or with a pool's identity twice.
fn check_whole(
    state: &State,
    after: &BTreeMap<ResourceId, After>,
    pools: &BTreeMap<Key, Arc<Pool>>,
) -> Result<(), Refusal> {
    if after.len() > RESOURCES_MAX && after.len() > state.resources.len() {
        return invalid(format!("this would make {} resources: a lab has at most {RESOURCES_MAX}", after.len()));
    }
    let mut names: BTreeMap<&ResourceName, ResourceId> = BTreeMap::new();
    let mut identities: BTreeMap<(&Key, &Value), (ResourceId, &ResourceName)> = BTreeMap::new();
    for (id, resource) in after {
        for face in resource.faces() {
            if names.insert(&face.name, *id).is_some_and(|other| other != *id) {
                let message = format!(
                    "the name \"{}\" is still that of a resource that is held: \
                     apply this again when its lease has ended",
                    face.name
                );
                return Err(Refusal::new(Code::NameTaken, message));
            }
            let Some(key) = pools.get(&face.pool).and_then(|pool| pool.identity.as_ref()) else { continue };
            let Some(value) = face.properties.get(key) else { continue };
            match identities.insert((&face.pool, value), (*id, &face.name)) {
                Some((other, other_name)) if other != *id => {
                    return invalid(alike(key, value, face, other_name, [after.get(&other), Some(resource)]));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn alike(key: &Key, value: &Value, face: &ResourceSpec, other: &ResourceName, both: [Option<&After>; 2]) -> String {
    let waits = both.into_iter().flatten().any(|resource| resource.pending.is_some());
    let remedy = if waits {
        "; one of them is held and waits for the end of its lease: apply this again then, or rename with `was`"
    } else {
        ""
    };
    let value: String = value.to_string().chars().take(80).collect();
    format!(
        "{key} {value:?} of resource \"{}\" is also that of \"{other}\": pool \"{}\" has identity = \"{key}\", so no \
         two resources may have it alike{remedy}",
        face.name, face.pool
    )
}

/// A file that lost its half, or the wrong file, must not empty a lab.
fn confirm(state: &State, origin: &Origin, going: usize) -> Result<(), Refusal> {
    let own = state.resources.values().filter(|resource| resource.origin == *origin).count();
    if going * 5 <= own {
        return Ok(());
    }
    let how = match origin {
        Origin::Provider(_) => "`leasehold provide FILE --yes`",
        Origin::Api | Origin::File => "`leasehold resource apply FILE --prune --yes`",
    };
    let message = format!(
        "this would remove {going} of the {own} resources that came from {}, more than a fifth, so nothing was \
         changed: if that is meant, {how}",
        words::origin(origin)
    );
    Err(Refusal::new(Code::NeedsConfirmation, message))
}
