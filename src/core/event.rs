//! Events: the facts that the journal keeps and the state is made of.
//!
//! `decide` makes them, `State::apply` changes the state by them and nothing else does. They are
//! facts, never commands: an old one stays readable and means what it meant. A field may be
//! added with a default; one is never renamed, and a variant never changes its tag.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::arrivals::Arrival;
use super::claim::{Blocked, Claim, ClaimEnd, Pin};
use super::inventory::{Cooling, Origin, Pending, Pool, ResourceSpec};
use super::lease::{Ending, Lease, LeaseEnd, Outcome};
use super::session::{Provider, SecretHash, SessionEnd, SessionKind};
use super::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceId, SessionId};

/// A fact. When it happened is the lab time of its batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A process took the books over. Renewal numbers begin anew above the term.
    BrokerStarted {
        /// Grows by one with each start of the store's life.
        term: u64,
    },
    /// The books were copied to another store, or restored from a backup, and are in use there from
    /// here on. The sessions that came along end after this, as their clients belong to the store
    /// that stays behind.
    StoreMoved {
        /// What people call the store they come from.
        from: Arc<str>,
        /// Fences are given above this one: those that the store left behind may still give, or gave
        /// after the backup, are below.
        last_lease: u64,
    },
    /// A pool is new or has another policy.
    PoolSet {
        /// All of it.
        pool: Arc<Pool>,
        /// Who declares it.
        origin: Origin,
    },
    /// A pool without resources is gone.
    PoolRemoved {
        /// Which.
        pool: Key,
    },
    /// A resource is new.
    ResourceAdded {
        /// Its inner number.
        resource: ResourceId,
        /// What it is.
        spec: Arc<ResourceSpec>,
        /// Who declares it.
        origin: Origin,
    },
    /// A resource is now this, its name included.
    ResourceChanged {
        /// Which.
        resource: ResourceId,
        /// What it is.
        spec: Arc<ResourceSpec>,
    },
    /// A change or removal waits for the last holder, or waits no more.
    ResourcePending {
        /// Which.
        resource: ResourceId,
        /// What waits.
        pending: Option<Pending>,
    },
    /// A resource is gone. Its marks are kept under its name.
    ResourceRemoved {
        /// Which.
        resource: ResourceId,
    },
    /// An admin took it out.
    ResourceDrained {
        /// Which.
        resource: ResourceId,
        /// Why.
        reason: Arc<str>,
        /// Who.
        by: Arc<str>,
    },
    /// An admin put it back.
    ResourceUndrained {
        /// Which.
        resource: ResourceId,
        /// Who.
        by: Arc<str>,
    },
    /// It is unfit.
    ResourceQuarantined {
        /// Which.
        resource: ResourceId,
        /// Why.
        reason: Arc<str>,
        /// Who: an admin, or `broker`.
        by: Arc<str>,
    },
    /// It is fit again.
    ResourceRestored {
        /// Which.
        resource: ResourceId,
        /// Who.
        by: Arc<str>,
    },
    /// Its provider is gone: nobody new gets it, and who holds it keeps it.
    ResourceOffline {
        /// Which.
        resource: ResourceId,
        /// How its provider went.
        reason: Arc<str>,
        /// Who: `broker`, or the admin who ended the provider's session.
        by: Arc<str>,
    },
    /// Its provider is there again.
    ResourceOnline {
        /// Which.
        resource: ResourceId,
    },
    /// A session brings the resources of this provider from here on.
    ProviderAttached {
        /// Which session.
        session: SessionId,
        /// The provider.
        provider: Provider,
        /// The session that brought them so far, its half-open predecessor: it does no longer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<SessionId>,
    },
    /// A session is open.
    SessionOpened {
        /// Its number.
        session: SessionId,
        /// Who it acts for.
        owner: Owner,
        /// Milliseconds.
        ttl_ms: u64,
        /// What resumes it.
        secret: SecretHash,
        /// Socket or keyed.
        #[serde(flatten)]
        kind: SessionKind,
    },
    /// It was promised longer than its ttl, or no longer is.
    SessionPromised {
        /// Which.
        session: SessionId,
        /// Milliseconds; `None` ends the longer promise.
        promise_ms: Option<u64>,
    },
    /// An admin is ending it: its claims are cancelled, its leases are ending.
    SessionKicked {
        /// Which.
        session: SessionId,
        /// Who.
        by: Arc<str>,
    },
    /// A session is over, and everything of it ended before.
    SessionEnded {
        /// Which.
        session: SessionId,
        /// How.
        end: SessionEnd,
    },
    /// A claim waits.
    ClaimQueued {
        /// All of it.
        claim: Box<Claim>,
    },
    /// A claim keeps this choice back for itself, or gave it up.
    ClaimPinned {
        /// Which.
        claim: ClaimId,
        /// What.
        pin: Option<Pin>,
    },
    /// What keeps a claim from being granted at all has changed.
    ClaimBlocked {
        /// Which.
        claim: ClaimId,
        /// What, or nothing any more.
        blocked: Option<Blocked>,
    },
    /// A claim ended without a lease. One that was refused or found nothing at once never waited;
    /// it is remembered under its session's number all the same.
    ClaimEnded {
        /// Which.
        claim: ClaimId,
        /// Whose.
        session: SessionId,
        /// The session's number for it.
        request: u64,
        /// A fingerprint of its body.
        body_hash: u64,
        /// How.
        end: ClaimEnd,
    },
    /// A request was cancelled before it was seen.
    RequestTombstoned {
        /// Whose.
        session: SessionId,
        /// The session's number.
        request: u64,
    },
    /// Requests up to this number are forgotten, but for open ones.
    RequestsForgotten {
        /// Whose.
        session: SessionId,
        /// The highest forgotten number.
        up_to: u64,
    },
    /// A claim is granted, waiting or new.
    LeaseGranted {
        /// All of it.
        lease: Arc<Lease>,
    },
    /// A hold is longer or shorter.
    LeaseExtended {
        /// Which.
        lease: LeaseId,
        /// To this end.
        until: LabTime,
        /// Who.
        by: Arc<str>,
    },
    /// A lease is to end under a live holder.
    LeaseEnding {
        /// Which.
        lease: LeaseId,
        /// Why, since when.
        ending: Ending,
    },
    /// A lease is over; its resources are free.
    LeaseEnded {
        /// Which.
        lease: LeaseId,
        /// Whose it was.
        session: SessionId,
        /// How.
        end: LeaseEnd,
        /// What the runner said of its work.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<Outcome>,
    },
    /// A dropped session lost these picks at once (`on_drop = "immediate"`): their slots are free,
    /// while the rest of the lease ends when its session does.
    PicksFreed {
        /// Which lease, ending since.
        lease: LeaseId,
        /// The resources freed.
        resources: Vec<ResourceId>,
    },
    /// Slots that a lease gave back go to nobody before then (a pool's `cooldown`).
    ResourceCooling {
        /// Which.
        resource: ResourceId,
        /// How many, until when.
        cooling: Cooling,
    },
    /// Slots have cooled: those whose time has come are free.
    ResourceCooled {
        /// Which.
        resource: ResourceId,
    },
    /// Work that may be retried arrived for the first time, again, or failed for the lab's reasons.
    ArrivalNoted {
        /// All of what is remembered of it.
        arrival: Arrival,
    },
    /// A first arrival is remembered no more.
    ArrivalForgotten {
        /// The claim that arrived first.
        claim: ClaimId,
    },
    /// The outcome of a lease without a socket is remembered no more.
    KeyedForgotten {
        /// The hash of its key.
        key: SecretHash,
    },
}

impl Event {
    /// The tag it has in the journal.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::BrokerStarted { .. } => "broker_started",
            Self::StoreMoved { .. } => "store_moved",
            Self::PoolSet { .. } => "pool_set",
            Self::PoolRemoved { .. } => "pool_removed",
            Self::ResourceAdded { .. } => "resource_added",
            Self::ResourceChanged { .. } => "resource_changed",
            Self::ResourcePending { .. } => "resource_pending",
            Self::ResourceRemoved { .. } => "resource_removed",
            Self::ResourceDrained { .. } => "resource_drained",
            Self::ResourceUndrained { .. } => "resource_undrained",
            Self::ResourceQuarantined { .. } => "resource_quarantined",
            Self::ResourceRestored { .. } => "resource_restored",
            Self::ResourceOffline { .. } => "resource_offline",
            Self::ResourceOnline { .. } => "resource_online",
            Self::ProviderAttached { .. } => "provider_attached",
            Self::SessionOpened { .. } => "session_opened",
            Self::SessionPromised { .. } => "session_promised",
            Self::SessionKicked { .. } => "session_kicked",
            Self::SessionEnded { .. } => "session_ended",
            Self::ClaimQueued { .. } => "claim_queued",
            Self::ClaimPinned { .. } => "claim_pinned",
            Self::ClaimBlocked { .. } => "claim_blocked",
            Self::ClaimEnded { .. } => "claim_ended",
            Self::RequestTombstoned { .. } => "request_tombstoned",
            Self::RequestsForgotten { .. } => "requests_forgotten",
            Self::LeaseGranted { .. } => "lease_granted",
            Self::LeaseExtended { .. } => "lease_extended",
            Self::LeaseEnding { .. } => "lease_ending",
            Self::LeaseEnded { .. } => "lease_ended",
            Self::PicksFreed { .. } => "picks_freed",
            Self::ResourceCooling { .. } => "resource_cooling",
            Self::ResourceCooled { .. } => "resource_cooled",
            Self::ArrivalNoted { .. } => "arrival_noted",
            Self::ArrivalForgotten { .. } => "arrival_forgotten",
            Self::KeyedForgotten { .. } => "keyed_forgotten",
        }
    }
}
