//! Making the inventory what a file, or an admin, says it is: the difference, as events.
//!
//! Owns the rules of who may change what, what waits for a holder, and what an inventory may not
//! be as a whole. It is pure: it reads the books and answers events; it never changes the books,
//! and it never touches what was said of a resource (its marks). The difference itself is made in
//! `diff.rs`.

mod diff;
mod words;

use std::sync::Arc;

use super::event::Event;
use super::fold;
use super::inventory::{Origin, Pending, Pool, ResourceSpec};
use super::limits::{LABELS_PER_RESOURCE_MAX, SLOTS_MAX, VALUE_BYTES_MAX};
use super::refusal::{Code, Refusal};
use super::state::State;
use super::types::{Key, ResourceId, ResourceName, Value};

/// An inventory as declared, defaults of the pools already merged into the resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Every pool that is defined, once. A pool that resources only name has the default policy.
    pub pools: Vec<Pool>,
    /// Every resource, once.
    pub resources: Vec<DeclaredResource>,
}

/// A resource as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredResource {
    /// What it is to be.
    pub spec: ResourceSpec,
    /// The name it had before, for a rename.
    pub was: Option<ResourceName>,
}

/// One difference, for people and for `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// `add`, `change`, `rename` or `remove`.
    pub action: &'static str,
    /// `pool` or `resource`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// What is different, in words.
    pub detail: String,
    /// Whether it waits for the last holder.
    pub pending: bool,
}

/// How to apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Remove what the origin declared before and declares no more.
    pub prune: bool,
    /// Even where that removes more than a fifth of what the origin has.
    pub confirmed: bool,
}

/// What makes the inventory what was declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In the order in which they are to be applied. Empty when everything is so already.
    pub events: Vec<Event>,
    /// The same for people.
    pub changes: Vec<Change>,
    /// Declared resources that stay as they are.
    pub unchanged: usize,
}

/// The difference between the books and what `origin` declares.
///
/// Pools and resources of other origins are left alone. Applying the events and planning again
/// gives an empty plan.
///
/// # Errors
/// `name_taken` where another origin or a going resource has a name, `invalid_inventory` where
/// the whole would contradict itself, `needs_confirmation` where too much would be removed.
pub fn plan(state: &State, declared: &Declared, origin: &Origin, options: &Options) -> Result<Plan, Refusal> {
    diff::Diff::new(state, declared, origin)?.plan(options)
}

/// The difference that declaring one resource makes, for `resource set`.
///
/// # Errors
/// As [`plan`].
pub fn set_one(state: &State, spec: &ResourceSpec) -> Result<Plan, Refusal> {
    let resources = vec![DeclaredResource { spec: spec.clone(), was: None }];
    plan(state, &Declared { pools: Vec::new(), resources }, &Origin::Api, &Options::default())
}

/// The difference that removing one resource makes, for `resource rm`.
///
/// # Errors
/// `not_found`, or `name_taken` where it came from another origin.
pub fn remove_one(state: &State, name: &ResourceName) -> Result<Plan, Refusal> {
    let Some(resource) = state.names.get(name).and_then(|id| state.resources.get(id)) else {
        let message = format!("there is no resource \"{name}\": `leasehold resource ls` shows what there is");
        return Err(Refusal::new(Code::NotFound, message));
    };
    match &resource.origin {
        Origin::Api => {}
        // Its provider may never come back; if it does, it brings the resource again.
        Origin::Provider(_) if resource.marks.offline.is_some() => {}
        Origin::Provider(provider) => {
            let message = format!(
                "resource \"{name}\" is provided by {provider}, which is there: remove it from the provider's file"
            );
            return Err(Refusal::new(Code::NameTaken, message));
        }
        Origin::File => {
            let message = format!(
                "resource \"{name}\" comes from the inventory file: remove it there, and apply the file with --prune"
            );
            return Err(Refusal::new(Code::NameTaken, message));
        }
    }
    if resource.pending == Some(Pending::Removal) {
        return Ok(Plan { unchanged: 1, ..Plan::default() });
    }
    let held = !resource.holders.is_empty();
    let events = if held {
        vec![Event::ResourcePending { resource: resource.id, pending: Some(Pending::Removal) }]
    } else {
        removal(state, resource.id)
    };
    Ok(Plan { events, changes: vec![words::removed(resource)], unchanged: 0 })
}

/// What is due now that the last holder of a resource has gone: the change or removal that waited
/// for it. Nothing while anybody holds it.
#[must_use]
pub fn due_pending(state: &State, id: ResourceId) -> Vec<Event> {
    let Some(resource) = state.resources.get(&id).filter(|resource| resource.holders.is_empty()) else {
        return Vec::new();
    };
    match &resource.pending {
        None => Vec::new(),
        Some(Pending::Removal) => removal(state, id),
        Some(Pending::Change(spec)) => {
            let mut events = vec![
                Event::ResourcePending { resource: id, pending: None },
                Event::ResourceChanged { resource: id, spec: spec.clone() },
            ];
            if spec.pool != resource.spec.pool {
                events.extend(emptied(state, id));
            }
            events
        }
    }
}

/// Removes a resource, and its pool where only `resource set` ever named it and nothing is left.
fn removal(state: &State, id: ResourceId) -> Vec<Event> {
    let mut events = vec![Event::ResourceRemoved { resource: id }];
    events.extend(emptied(state, id));
    events
}

/// The end of the pool that a resource leaves, when no command and no file would ever end it.
fn emptied(state: &State, leaves: ResourceId) -> Option<Event> {
    let key = &state.resources.get(&leaves)?.spec.pool;
    let pool = state.pools.get(key)?;
    let stays = pool.members.iter().any(|member| *member != leaves);
    let awaited = || state.resources.values().any(|other| other.id != leaves && diff::will_be_in(other, key));
    let gone = pool.origin == Origin::Api && !stays && !awaited();
    gone.then(|| Event::PoolRemoved { pool: key.clone() })
}

/// The policy of a pool that is only named.
fn default_pool(name: &Key) -> Arc<Pool> {
    Arc::new(Pool::named(name.clone()))
}

/// Whether a label or property (`what` says which) can have this value.
///
/// # Errors
/// `invalid_inventory`, with what is wrong.
pub fn check_value(what: &str, key: &Key, value: &Value) -> Result<(), Refusal> {
    let Value::Text(text) = value else { return Ok(()) };
    if text.len() > VALUE_BYTES_MAX {
        let got = text.len();
        return invalid(format!("{what} \"{key}\" has {got} bytes: expected at most {VALUE_BYTES_MAX}"));
    }
    if text.contains('\0') {
        return invalid(format!("{what} \"{key}\" contains a NUL, which no environment variable can have: remove it"));
    }
    Ok(())
}

/// Whether a resource, by itself, can be on the books.
///
/// # Errors
/// `invalid_inventory`, with what is wrong.
pub fn check_spec(spec: &ResourceSpec) -> Result<(), Refusal> {
    let name = &spec.name;
    for (what, count) in
        [("labels", spec.labels.len()), ("properties", spec.properties.len()), ("secrets", spec.secrets.len())]
    {
        if count > LABELS_PER_RESOURCE_MAX {
            return invalid(format!(
                "resource \"{name}\" has {count} {what}: expected at most {LABELS_PER_RESOURCE_MAX}"
            ));
        }
    }
    if !(1..=SLOTS_MAX).contains(&spec.slots) {
        return invalid(format!("resource \"{name}\" has {} slots: expected 1 to {SLOTS_MAX}", spec.slots));
    }
    fold::check_labels(spec.labels.keys())
        .and_then(|()| fold::check_properties(spec.properties.keys()))
        .and_then(|()| fold::check_secrets(spec.secrets.keys()))
        .or_else(|wrong| invalid(format!("resource \"{name}\": {wrong}")))?;
    spec.labels.iter().try_for_each(|(key, value)| check_value("label", key, value))?;
    spec.properties.iter().try_for_each(|(key, value)| check_value("property", key, value))
}

fn invalid<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal::new(Code::InvalidInventory, message))
}

#[cfg(test)]
mod tests;
