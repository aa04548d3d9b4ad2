//! The inventory: pools with their policy, resources with their condition.
//!
//! This file owns what a pool and a resource are. How a file or an admin changes them is
//! `apply.rs`; who holds them is `lease.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::{Key, LabTime, LeaseId, ProviderName, ResourceId, ResourceName, Value};

/// What becomes of a pool's resources when their holder's socket drops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrop {
    /// They come back a ttl after the last sign of life.
    #[default]
    AfterTtl,
    /// They come back at once; the holder is told to have lost them. Waives promise 1 in the world.
    Immediate,
}

/// A named group of resources of one sort, with its policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: Key,
    /// Longest hold, milliseconds; a claim that asks for more is refused. `None`: no bound.
    pub max_hold_ms: Option<u64>,
    /// The ttl of sessions that name this pool, milliseconds.
    pub ttl_ms: Option<u64>,
    /// What a drop does.
    pub on_drop: OnDrop,
    /// No two resources may have this property alike, wherever they come from.
    pub identity: Option<Key>,
    /// How long slots that were released go to nobody, milliseconds of lab time; 0: not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cooldown_ms: u64,
    /// Resources of the pool that the leases of one owner hold together, ending ones too. One
    /// that several leases share counts for each. A claim beyond it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_owner: Option<u32>,
    /// Claims of one owner that wait for the pool; one more is refused as `too_many_claims`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_waiting_per_owner: Option<u32>,
    /// Highest priority of a claim on the pool; a higher one is refused as `priority_too_high`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority: Option<i8>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

impl Pool {
    /// The policy of a pool that is only named.
    #[must_use]
    pub const fn named(name: Key) -> Self {
        Self {
            name,
            max_hold_ms: None,
            ttl_ms: None,
            on_drop: OnDrop::AfterTtl,
            identity: None,
            cooldown_ms: 0,
            max_per_owner: None,
            max_waiting_per_owner: None,
            max_priority: None,
        }
    }

    /// Whether it has to be known what each owner has of the pool.
    #[must_use]
    pub const fn counts_owners(&self) -> bool {
        self.max_per_owner.is_some() || self.max_waiting_per_owner.is_some()
    }
}

/// Where a resource comes from. Each origin changes and removes only its own. Written as `api`,
/// `file` or `provider:NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Origin {
    /// `resource set`, or the HTTP interface.
    Api,
    /// The inventory file.
    File,
    /// A session that brings it: without that it is offline.
    Provider(ProviderName),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api => f.write_str("api"),
            Self::File => f.write_str("file"),
            Self::Provider(name) => write!(f, "provider:{name}"),
        }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "api" => Ok(Self::Api),
            "file" => Ok(Self::File),
            other => match other.strip_prefix("provider:") {
                Some(name) => ProviderName::parse(name).map(Self::Provider).map_err(|error| error.to_string()),
                None => Err(format!("{other:?} is no origin: expected api, file or provider:NAME")),
            },
        }
    }
}

/// Where the broker reads a secret's value at hand-out. The value itself is never in the core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRef {
    /// This environment variable of the broker.
    Env(Arc<str>),
    /// This file on the broker's machine.
    File(Arc<str>),
}

/// What a resource is, as its origin declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceSpec {
    /// Unique among all resources.
    pub name: ResourceName,
    /// The pool it is in.
    pub pool: Key,
    /// What needs can ask for.
    pub labels: BTreeMap<Key, Value>,
    /// Handed to the holder.
    pub properties: BTreeMap<Key, Value>,
    /// Handed only to the holder, by reference.
    pub secrets: BTreeMap<Key, SecretRef>,
    /// How many holders may share it, 1 or more.
    pub slots: u32,
}

/// Fit for use, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Fit.
    Ready,
    /// Unfit until somebody restores it.
    Quarantined,
}

/// Why a resource is in a state, since when and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// In the words of whoever did it.
    pub reason: Arc<str>,
    /// Since when.
    pub since: LabTime,
    /// By whom: an owner, or `broker`.
    pub by: Arc<str>,
}

/// What an admin and the broker said of a resource. Applying an inventory never touches it, and
/// a name that was removed and comes back finds its own again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Unfit, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Mark>,
    /// Taken out by an admin, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Mark>,
    /// Its provider is gone, and how. Nothing of it is kept when the resource leaves the books.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<Mark>,
}

impl Marks {
    /// Whether nothing keeps the resource from new holders.
    #[must_use]
    pub const fn is_clear(&self) -> bool {
        self.quarantined.is_none() && self.drained.is_none() && self.offline.is_none()
    }
}

/// A change that waits for the last lease on the resource to end. Until then it is shown, and
/// the resource gets no new holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pending {
    /// It will be this.
    Change(Arc<ResourceSpec>),
    /// It will be gone.
    Removal,
}

/// Slots that were released and go to nobody for a while (a pool's `cooldown`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cooling {
    /// When they are free.
    pub until: LabTime,
    /// How many.
    pub slots: u32,
}

/// One leasable thing.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its inner number.
    pub id: ResourceId,
    /// What its holders were given, so it stays as it is while anybody holds it (but for fewer slots).
    pub spec: Arc<ResourceSpec>,
    /// Who declares it.
    pub origin: Origin,
    /// What was said of it.
    pub marks: Marks,
    /// What waits for its holders to be gone.
    pub pending: Option<Pending>,
    /// When it was last given to anybody; the least recently used goes first.
    pub last_used: LabTime,
    /// Who holds it now. A lease that took it for two needs is here once.
    pub holders: BTreeSet<LeaseId>,
    /// Slots those leases hold together. More than `spec.slots` after the slots were made fewer.
    pub slots_used: u32,
    /// Slots that were released and cool, soonest free first.
    pub cooling: Vec<Cooling>,
}

impl Resource {
    /// Slots that nobody holds and that do not cool.
    #[must_use]
    pub fn slots_free(&self) -> u32 {
        self.spec.slots.saturating_sub(self.slots_used).saturating_sub(self.slots_cooling())
    }

    /// Slots that cool.
    #[must_use]
    pub fn slots_cooling(&self) -> u32 {
        self.cooling.iter().map(|cooling| cooling.slots).sum()
    }

    /// Whether it can be given to a new holder at all, free or not: neither drained, offline,
    /// quarantined nor going.
    #[must_use]
    pub fn is_grantable(&self) -> bool {
        self.marks.is_clear() && self.pending.is_none()
    }

    /// The label `key`, where `name` and `pool` can be asked like labels.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<Value> {
        match key {
            "name" => Some(Value::Text(self.spec.name.as_str().into())),
            "pool" => Some(Value::Text(self.spec.pool.as_str().into())),
            _ => self.spec.labels.get(key).cloned(),
        }
    }
}
