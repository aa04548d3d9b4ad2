//! Changes in words, for `--dry-run` and for whoever asks what applying did.
//!
//! Owns texts only. Secrets are named, never shown, not even where they are found.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::Change;
use crate::core::inventory::{OnDrop, Origin, Pool, Resource, ResourceSpec};
use crate::core::types::{Key, ResourceName, Value};
use crate::units::show_duration_ms;

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 60;

pub(super) fn added(spec: &ResourceSpec) -> Change {
    let detail = match spec.slots {
        1 => format!("in pool {}", spec.pool),
        slots => format!("in pool {}, {slots} slots", spec.pool),
    };
    Change { action: "add", what: "resource", name: spec.name.to_string(), detail, pending: false }
}

pub(super) fn removed(resource: &Resource) -> Change {
    let pending = !resource.holders.is_empty();
    let detail = if pending { waits(resource) } else { format!("from pool {}", resource.spec.pool) };
    Change { action: "remove", what: "resource", name: resource.spec.name.to_string(), detail, pending }
}

/// A change of a resource to `after`; `pending` when a part of it waits for the holders.
pub(super) fn changed(resource: &Resource, after: &ResourceSpec, pending: bool) -> Change {
    let before = &resource.spec;
    let renamed = before.name != after.name;
    let mut parts = Parts::default();
    if renamed {
        parts.add(format_args!("was {}", before.name));
    }
    parts.differs("pool", &before.pool, &after.pool);
    parts.differs("slots", &before.slots, &after.slots);
    parts.values("label", &before.labels, &after.labels);
    parts.values("property", &before.properties, &after.properties);
    parts.keys("secret", &before.secrets, &after.secrets, |_, _| "changed".to_owned());
    if resource.pending.is_some() && !pending {
        parts.add(format_args!("what waited for its holder is taken back"));
    }
    if pending {
        parts.add(format_args!("{}", waits(resource)));
    }
    let action = if renamed { "rename" } else { "change" };
    Change { action, what: "resource", name: after.name.to_string(), detail: parts.0, pending }
}

pub(super) fn pool_added(pool: &Pool) -> Change {
    let mut parts = Parts::default();
    let fresh = Pool::named(pool.name.clone());
    parts.policy(&fresh, pool);
    if parts.0.is_empty() {
        parts.0.push_str("with the default policy");
    }
    Change { action: "add", what: "pool", name: pool.name.to_string(), detail: parts.0, pending: false }
}

pub(super) fn pool_changed(before: &Pool, after: &Pool) -> Change {
    let mut parts = Parts::default();
    parts.policy(before, after);
    if parts.0.is_empty() {
        parts.0.push_str("now declared by the inventory file");
    }
    Change { action: "change", what: "pool", name: after.name.to_string(), detail: parts.0, pending: false }
}

pub(super) fn pool_removed(name: &Key) -> Change {
    let detail = "it has no resources any more".to_owned();
    Change { action: "remove", what: "pool", name: name.to_string(), detail, pending: false }
}

/// Who declares it, as people say it.
pub(super) fn origin(origin: &Origin) -> String {
    match origin {
        Origin::Api => "`leasehold resource set`".to_owned(),
        Origin::File => "the inventory file".to_owned(),
        Origin::Provider(name) => format!("provider {name}"),
    }
}

pub(super) fn taken(name: &ResourceName, by: &Origin) -> String {
    let remedy = match by {
        Origin::Api => format!("choose another name, or remove that one with `leasehold resource rm {name}`"),
        Origin::File => "change it in the file, or choose another name".to_owned(),
        Origin::Provider(_) => "change it in that provider's file, or choose another name".to_owned(),
    };
    format!("the name \"{name}\" is taken by a resource that {} declared: {remedy}", origin(by))
}

fn waits(resource: &Resource) -> String {
    match resource.holders.len() {
        1 => "when the lease on it has ended".to_owned(),
        leases => format!("when the {leases} leases on it have ended"),
    }
}

fn cut(value: &impl Display) -> String {
    let text = value.to_string();
    let mut short: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push_str("...");
    }
    short
}

/// Differences, one after another.
#[derive(Default)]
struct Parts(String);

impl Parts {
    fn add(&mut self, part: std::fmt::Arguments<'_>) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        // Writing to a text cannot fail.
        let _ = self.0.write_fmt(part);
    }

    fn differs<T: PartialEq + Display>(&mut self, what: &str, before: &T, after: &T) {
        if before != after {
            self.add(format_args!("{what} {before} -> {after}"));
        }
    }

    fn values(&mut self, what: &str, before: &BTreeMap<Key, Value>, after: &BTreeMap<Key, Value>) {
        self.keys(what, before, after, |before, after| format!("{} -> {}", cut(before), cut(after)));
    }

    fn keys<T: PartialEq>(
        &mut self,
        what: &str,
        before: &BTreeMap<Key, T>,
        after: &BTreeMap<Key, T>,
        differs: impl Fn(&T, &T) -> String,
    ) {
        for (key, value) in after {
            match before.get(key) {
                None => self.add(format_args!("{what} {key} added")),
                Some(old) if old != value => self.add(format_args!("{what} {key} {}", differs(old, value))),
                Some(_) => {}
            }
        }
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            self.add(format_args!("{what} {key} removed"));
        }
    }

    fn policy(&mut self, before: &Pool, after: &Pool) {
        let span = |ms: Option<u64>| ms.map_or_else(|| "none".to_owned(), |ms| format!("{ms} ms"));
        self.differs("max_hold", &span(before.max_hold_ms), &span(after.max_hold_ms));
        self.differs("ttl", &span(before.ttl_ms), &span(after.ttl_ms));
        let drop = |on_drop: OnDrop| match on_drop {
            OnDrop::AfterTtl => "after-ttl",
            OnDrop::Immediate => "immediate",
        };
        self.differs("on_drop", &drop(before.on_drop), &drop(after.on_drop));
        let key = |identity: &Option<Key>| identity.as_ref().map_or_else(|| "none".to_owned(), Key::to_string);
        self.differs("identity", &key(&before.identity), &key(&after.identity));
        self.differs("cooldown", &show_duration_ms(before.cooldown_ms), &show_duration_ms(after.cooldown_ms));
        let cap = |most: Option<u32>| most.map_or_else(|| "none".to_owned(), |most| most.to_string());
        self.differs("max_per_owner", &cap(before.max_per_owner), &cap(after.max_per_owner));
        self.differs("max_waiting_per_owner", &cap(before.max_waiting_per_owner), &cap(after.max_waiting_per_owner));
        let steps = |most: Option<i8>| most.map_or_else(|| "none".to_owned(), |most| most.to_string());
        self.differs("max_priority", &steps(before.max_priority), &steps(after.max_priority));
    }
}
