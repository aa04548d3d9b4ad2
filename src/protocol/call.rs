//! The calls of the WebSocket: methods, their parameters and results, and the notifications.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::info::{ClaimInfo, EndingInfo, LeaseInfo};
use super::rpc::Id;

/// Names of the methods.
pub mod method {
    /// [`SessionOpen`](super::SessionOpen) to [`SessionOpened`](super::SessionOpened).
    pub const SESSION_OPEN: &str = "session.open";
    /// [`SessionResume`](super::SessionResume) to [`SessionOpened`](super::SessionOpened).
    pub const SESSION_RESUME: &str = "session.resume";
    /// [`SessionRenew`](super::SessionRenew) to [`SessionRenewed`](super::SessionRenewed).
    pub const SESSION_RENEW: &str = "session.renew";
    /// [`SessionClose`](super::SessionClose) to [`Done`](super::Done).
    pub const SESSION_CLOSE: &str = "session.close";
    /// [`ClaimRequest`](super::ClaimRequest) to [`ClaimInfo`](super::ClaimInfo).
    pub const LEASE_ACQUIRE: &str = "lease.acquire";
    /// [`LeaseCancel`](super::LeaseCancel) to [`ClaimInfo`](super::ClaimInfo).
    pub const LEASE_CANCEL: &str = "lease.cancel";
    /// [`LeaseRelease`](super::LeaseRelease) to [`LeaseReleased`](super::LeaseReleased).
    pub const LEASE_RELEASE: &str = "lease.release";
    /// [`LeaseExtend`](super::LeaseExtend) to [`LeaseInfo`](super::LeaseInfo).
    pub const LEASE_EXTEND: &str = "lease.extend";
    /// [`Empty`](super::Empty) to [`SessionState`](super::SessionState).
    pub const LEASE_LIST: &str = "lease.list";
    /// [`ProviderProvide`](super::ProviderProvide) to [`ApplyInfo`](super::super::info::ApplyInfo).
    pub const PROVIDER_PROVIDE: &str = "provider.provide";
}

/// Names of the notifications, broker to client.
pub mod notice {
    /// [`ClaimInfo`](super::ClaimInfo): a waiting claim is granted; `lease` is there.
    pub const LEASE_GRANTED: &str = "lease.granted";
    /// [`LeaseEndingNotice`](super::LeaseEndingNotice): stop using it and release it.
    pub const LEASE_ENDING: &str = "lease.ending";
    /// [`LeaseReleased`](super::LeaseReleased): it is over, by someone else's doing.
    pub const LEASE_ENDED: &str = "lease.ended";
    /// [`LeaseInfo`](super::LeaseInfo): its hold has another end, by someone else's doing.
    pub const LEASE_EXTENDED: &str = "lease.extended";
    /// [`LeaseReach`](super::LeaseReach): resources of it are offline, their provider is gone.
    pub const LEASE_OFFLINE: &str = "lease.offline";
    /// [`LeaseReach`](super::LeaseReach): resources of it are online again.
    pub const LEASE_ONLINE: &str = "lease.online";
    /// [`ProviderSuperseded`](super::ProviderSuperseded): another session provides as this one did.
    pub const PROVIDER_SUPERSEDED: &str = "provider.superseded";
    /// [`ClaimInfo`](super::ClaimInfo): its place changed, or what keeps it waiting did.
    pub const CLAIM_WAITING: &str = "claim.waiting";
    /// [`ClaimInfo`](super::ClaimInfo): it ended without a lease; `end` is there.
    pub const CLAIM_ENDED: &str = "claim.ended";
    /// [`RenewNow`](super::RenewNow): renew at once, the broker is about to stop.
    pub const SESSION_RENEW_NOW: &str = "session.renew_now";
    /// [`StoreNotice`](super::StoreNotice): the store fails or works again.
    pub const STORE_STATE: &str = "store.state";
}

/// Opens a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SessionOpen {
    /// Random text of the client's own, at most 128 bytes: a session belongs to one process.
    pub instance: String,
    /// Who the session acts for; `user@host` by custom. Unverified without tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// 2,000 to 600,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Instead of a ttl: the pools it is for; the longest of their ttls is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<String>,
    /// Instead of pools: NEED texts whose pools count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
}

/// Resumes a session on a new socket.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionResume {
    /// Its number.
    pub session: u64,
    /// What opening it answered.
    pub secret: String,
    /// As given at opening.
    pub instance: String,
    /// The number of the newest renewal answer the client counts by.
    #[serde(default)]
    pub renewal: u64,
}

/// A session is open, or resumed: its whole state.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SessionOpened {
    /// Its number.
    pub session: u64,
    /// Resumes it; only in the answer to an opening.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Fixed now.
    pub ttl_ms: u64,
    /// The first answer to count by; counts from when the request was sent, as any renewal.
    #[serde(flatten)]
    pub renewed: SessionRenewed,
    /// What the session has.
    pub state: SessionState,
}

/// Everything of a session that is open: claims and leases.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SessionState {
    /// Waiting claims, and granted ones with their lease.
    pub claims: Vec<ClaimInfo>,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// Asks for the promise to be renewed.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SessionRenew {
    /// The number of the newest answer the client counts by.
    pub renewal: u64,
}

/// The promise, renewed: it counts from when the request was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct SessionRenewed {
    /// Grows with every answer, over restarts; a client counts by the newest only.
    pub renewal: u64,
    /// How long nothing of this session is given to another: the ttl, or longer at a planned stop.
    pub promise_ms: u64,
    /// Leases that are ending; this answer does not extend them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ending: Vec<u64>,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// Closes the session: everything of it is free at once. On a socket without a session, with the
/// number and secret of the one to close.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SessionClose {
    /// The session to close, on a socket that has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// Its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// Claims resources, over WebSocket and HTTP alike: all together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ClaimRequest {
    /// On a socket a whole number that grows within the session; over HTTP a text of at most 128
    /// bytes. A repeat answers the present state; another body under a used one is an error.
    pub request_id: Option<Id>,
    /// NEED texts: `[ALIAS=][COUNT:]POOL[/SLOTS][,label=value ...][ where CEL]`.
    pub needs: Vec<String>,
    /// All picks have this label alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same: Option<String>,
    /// No two picks have this label alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<String>,
    /// -10 to 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i8>,
    /// Longest wait; absent waits for ever, 0 takes part in one pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long to hold; absent is the smallest `max_hold` of its pools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// For people, at most 1,024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// `job`, `commit`, `actor` and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Refuse where it would wait for what is drained, offline, quarantined or held.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
    /// Wait where it would be refused as impossible.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub wait_for_inventory: bool,
    /// The lease under which the asking command runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<u64>,
    /// Which work it is for, so that a retry may keep the first attempt's arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryRequest>,
}

/// Which work a claim is for, and which attempt at it this is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetryRequest {
    /// The client's name for the run and job, the same for every attempt; at most 512 bytes.
    pub work: String,
    /// Grows with every attempt.
    pub attempt: u64,
}

/// Cancels a request that waits; one that is granted stays granted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LeaseCancel {
    /// The session's number for it.
    pub request_id: u64,
}

/// Releases a lease.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LeaseRelease {
    /// Its number.
    pub lease: u64,
    /// `passed`, `failed` or `infra`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// A lease is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseReleased {
    /// Its number.
    pub lease: u64,
    /// How it ended: `released`, `session_expired`, `revoked` ... A release of what had ended
    /// already says how that was.
    pub why: String,
    /// The same in words.
    pub message: String,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// Moves the end of a hold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LeaseExtend {
    /// Its number.
    pub lease: u64,
    /// The new end, lab time: absolute, so that asking twice is asking once.
    pub until: u64,
}

/// A lease whose hold has another end.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LeaseExtended {
    /// The lease as it is now.
    #[serde(flatten)]
    pub lease: LeaseInfo,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// A lease is to end: stop using its resources and release it. They go to nobody before that, or
/// before a ttl is over.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LeaseEndingNotice {
    /// Its number.
    pub lease: u64,
    /// Why.
    pub ending: EndingInfo,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// The session brings these resources with it. They are all that the provider has: what it brought
/// before and is not among them is removed. Sent again it changes nothing, or what is different.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProviderProvide {
    /// The provider's name, which no other living session has: a host's, as a rule.
    pub name: String,
    /// Random text of at least 32 bytes that the provider keeps over restarts and tells nobody else:
    /// whoever has it takes over from the session that provides under the name.
    pub key: String,
    /// Which machine this is, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// All that it has.
    pub resources: Vec<ProvidedResource>,
    /// Even where it removes more than a fifth of what the provider had.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirmed: bool,
}

/// A resource that a session brings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProvidedResource {
    /// Its name, unique in the lab.
    pub name: String,
    /// The name it had before, for a rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    /// The pool it is in.
    pub pool: String,
    /// What needs can ask for: texts, numbers, bools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, serde_json::Value>,
    /// Handed to the holder: texts, numbers, bools.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, serde_json::Value>,
    /// How many holders may share it; absent is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
}

/// Resources of a lease went offline, or are online again. The lease goes on either way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseReach {
    /// Its number.
    pub lease: u64,
    /// Names of those resources.
    pub resources: Vec<String>,
    /// In words.
    pub message: String,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// Another session provides as this one did: its successor, or whoever copied its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderSuperseded {
    /// The provider's name.
    pub name: String,
    /// In words: from where.
    pub message: String,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// The broker is about to stop.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct RenewNow {}

/// The store fails: nothing new is granted until it works again. Leases are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StoreNotice {
    /// Whether the store works.
    pub working: bool,
    /// In words.
    pub message: String,
}

/// No parameters.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Empty {}

/// It is done, or was already.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}
