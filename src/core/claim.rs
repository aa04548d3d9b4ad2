//! A claim: one or more needs, granted all together or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::need::Need;
use super::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceId, SessionId, Value};

/// What a client asks for. Its canonical JSON is what "another body under a used id" compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimSpec {
    /// At least one; aliases are distinct and do not collide when folded.
    pub needs: Vec<Need>,
    /// All picks of the claim have this label alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<Key>,
    /// No two picks of the claim have this label alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Key>,
    /// -10 to 10; each step is worth five minutes of waiting.
    #[serde(default)]
    pub priority: i8,
    /// Longest wait from queueing, milliseconds; 0 takes part in one pass and keeps back nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long to hold, milliseconds; `None` is the smallest `max_hold` of its pools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Arc<str>>,
    /// Job URL, commit, actor and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Arc<str>, Arc<str>>,
    /// Refuse where it would wait for resources that are drained, offline, quarantined or held.
    #[serde(default)]
    pub fail_fast: bool,
    /// Wait where it would be refused as impossible.
    #[serde(default)]
    pub wait_for_inventory: bool,
    /// The lease under which the asking command runs, for finding circles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<LeaseId>,
    /// Which work it is for, where it may be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// Which work a claim is for, so that a retry of it may keep the first one's arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The client's name for the run and job.
    pub work: Arc<str>,
    /// Grows with every attempt.
    pub attempt: u64,
}

/// The order of the queue, fixed at arrival: lab time of arrival minus what the priority is
/// worth, then claim number. Signed, as a high priority may reach before the lab's first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seniority {
    /// Lab milliseconds; smaller is more senior.
    pub rank: i64,
    /// The tie-break.
    pub claim: ClaimId,
}

/// The one choice a claim keeps back for itself while it waits (design: `same`, `distinct`,
/// k-slot and exclusive needs). Stored with it; given up only when it can no longer come true or
/// another choice is wholly free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pin {
    /// `same`: the value.
    Value(Value),
    /// `distinct`: the values.
    Values(Vec<Value>),
    /// k slots, or all: the resources, per need in the claim's order.
    Resources(Vec<Vec<ResourceId>>),
}

/// Why a waiting claim cannot be granted however long the others take: what it matches is
/// drained, quarantined or going. Told when queueing and again when it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The alias of the need.
    pub alias: Key,
    /// In words: which resources, and why each.
    pub message: Arc<str>,
}

/// A waiting claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its number.
    pub id: ClaimId,
    /// Whose it is.
    pub session: SessionId,
    /// The session's number for it.
    pub request: u64,
    /// A fingerprint of the body, to tell a repeat from another body under a used id.
    pub body_hash: u64,
    /// Who it acts for.
    pub owner: Owner,
    /// What it asks for.
    pub spec: Arc<ClaimSpec>,
    /// When it arrived.
    pub queued_at: LabTime,
    /// Its place in the order.
    pub seniority: Seniority,
    /// When the first attempt of its work arrived, where its place counts from that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_arrival: Option<LabTime>,
    /// When it stops waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<LabTime>,
    /// What it keeps back for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// What keeps it from being granted at all at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<Blocked>,
}

/// How a claim ended without a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum ClaimEnd {
    /// By its client, or by an admin.
    Cancelled {
        /// Who cancelled it.
        by: Arc<str>,
    },
    /// Its wait was over.
    TimedOut,
    /// Its session ended.
    SessionEnded,
    /// Refused: by state at once, or because it became impossible later.
    Refused(super::refusal::Refusal),
}
