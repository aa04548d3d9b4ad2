//! The tables: what the store keeps beside the journal, and what a start-up reads.
//!
//! One record type per word of the design. A batch carries the records that its events changed,
//! whole; a start-up reads all of them. How they become SQL is the store's business alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::arrivals::Arrival;
use super::claim::Claim;
use super::event::Event;
use super::inventory::{Cooling, Marks, Origin, Pending, Pool, ResourceSpec};
use super::lease::{Lease, LeaseEnd, Outcome};
use super::session::{Provider, RequestEnd, SecretHash, SessionKind};
use super::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceId, ResourceName, SessionId};

/// The lab's one row: its time and its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRecord {
    /// Lab time of the last batch.
    pub now: LabTime,
    /// Process starts so far.
    pub term: u64,
    /// The highest fence given.
    pub last_lease: u64,
    /// The highest claim number given.
    pub last_claim: u64,
    /// The highest session number given.
    pub last_session: u64,
    /// The highest resource number given.
    pub last_resource: u64,
}

/// A pool as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Its policy.
    pub pool: Arc<Pool>,
    /// Who declares it.
    pub origin: Origin,
}

/// A resource as stored. Holders are in the leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRecord {
    /// Its inner number.
    pub id: ResourceId,
    /// What it is.
    pub spec: Arc<ResourceSpec>,
    /// Who declares it.
    pub origin: Origin,
    /// What was said of it.
    pub marks: Marks,
    /// What waits for its holders.
    pub pending: Option<Pending>,
    /// When it was last given.
    pub last_used: LabTime,
    /// Slots that cool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cooling: Vec<Cooling>,
}

/// A session as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// Its number.
    pub id: SessionId,
    /// Who it acts for.
    pub owner: Owner,
    /// Milliseconds.
    pub ttl_ms: u64,
    /// What resumes it.
    pub secret: SecretHash,
    /// Socket or keyed.
    pub kind: SessionKind,
    /// When it opened.
    pub opened_at: LabTime,
    /// The longer promise, milliseconds.
    pub promise_ms: Option<u64>,
    /// Who is ending it.
    pub kicked_by: Option<Arc<str>>,
    /// The provider whose resources it brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides: Option<Provider>,
    /// Requests up to this number are forgotten.
    pub forgotten: u64,
}

/// How and when a lease ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRecord {
    /// When.
    pub at: LabTime,
    /// How.
    pub end: LeaseEnd,
    /// What the runner said of its work.
    pub outcome: Option<Outcome>,
}

/// An ended request as stored; gone with its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Whose.
    pub session: SessionId,
    /// The session's number for it.
    pub request: u64,
    /// The fingerprint of its body; `None` for a tombstone.
    pub body_hash: Option<u64>,
    /// How it ended.
    pub end: RequestEnd,
}

/// The outcome of a lease without a socket, kept for a day after its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedRecord {
    /// The hash of its key.
    pub key: SecretHash,
    /// The client's name for the request.
    pub request_id: Arc<str>,
    /// Who it acted for.
    pub owner: Owner,
    /// The claim's number.
    pub claim: ClaimId,
    /// The fingerprint of the body.
    pub body_hash: u64,
    /// How it ended.
    pub end: RequestEnd,
    /// When.
    pub ended_at: LabTime,
}

/// Records that a batch changed, whole as they are after it. `None` deletes. Each key is there at
/// most once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableChanges {
    /// The lab's row, always.
    pub lab: LabRecord,
    /// Pools by name.
    pub pools: Vec<(Key, Option<PoolRecord>)>,
    /// Resources by number.
    pub resources: Vec<(ResourceId, Option<ResourceRecord>)>,
    /// When resources were last given, where nothing else of them changed; written after
    /// `resources`.
    pub used: Vec<(ResourceId, LabTime)>,
    /// Marks of names that are not on the books at present.
    pub remembered: Vec<(ResourceName, Option<Marks>)>,
    /// Sessions by number. Deleting one deletes its requests.
    pub sessions: Vec<(SessionId, Option<SessionRecord>)>,
    /// Waiting claims by number.
    pub claims: Vec<(ClaimId, Option<Arc<Claim>>)>,
    /// Leases, new or changed, whole; also those that ended in the same batch.
    pub leases: Vec<Arc<Lease>>,
    /// Leases that ended, after the above is written. Their rows stay for the history until
    /// retention takes them.
    pub ended: Vec<(LeaseId, EndedRecord)>,
    /// Requests that ended, and are remembered after `forgotten` was carried out.
    pub requests: Vec<RequestRecord>,
    /// Requests to forget: all of the session up to the number that had ended in earlier batches.
    pub forgotten: Vec<(SessionId, u64)>,
    /// Outcomes of leases without a socket, by the hash of the key.
    pub keyed: Vec<(SecretHash, Option<KeyedRecord>)>,
    /// First arrivals, by the claim that arrived first.
    pub arrivals: Vec<(ClaimId, Option<Arrival>)>,
}

/// One transaction: events for the journal and the records they changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Grows by one with each batch of the store's life.
    pub number: u64,
    /// The lab time of all its events.
    pub at: LabTime,
    /// The wall clock at that moment, Unix milliseconds, for display only.
    pub wall_ms: i64,
    /// The journal's number of the first event; dense over the store's life.
    pub first_event: u64,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What it changed.
    pub tables: TableChanges,
}

/// Everything a start-up reads, and what a checkpoint keeps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tables {
    /// The last batch in the store, 0 in an empty one.
    pub batch: u64,
    /// The journal's last event number, 0 in an empty one.
    pub last_event: u64,
    /// The wall clock of the last batch, Unix milliseconds.
    pub wall_ms: i64,
    /// The lab's row.
    pub lab: LabRecord,
    /// All pools.
    pub pools: Vec<PoolRecord>,
    /// All resources.
    pub resources: Vec<ResourceRecord>,
    /// Marks of names that are not on the books at present.
    pub remembered: Vec<(ResourceName, Marks)>,
    /// All sessions.
    pub sessions: Vec<SessionRecord>,
    /// All waiting claims.
    pub claims: Vec<Claim>,
    /// Leases that have not ended.
    pub leases: Vec<Arc<Lease>>,
    /// Ended requests of open sessions.
    pub requests: Vec<RequestRecord>,
    /// Remembered outcomes of leases without a socket.
    pub keyed: Vec<KeyedRecord>,
    /// First arrivals of work that may be retried.
    #[serde(default)]
    pub arrivals: Vec<Arrival>,
}

/// A lease in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastLease {
    /// All of it.
    pub lease: Arc<Lease>,
    /// How it ended; `None` while it is held.
    pub ended: Option<EndedRecord>,
}

/// An event as the journal tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JournalEntry {
    /// Its dense number.
    pub number: u64,
    /// The batch it was committed with.
    pub batch: u64,
    /// Lab time.
    pub at: LabTime,
    /// Unix milliseconds, for display.
    pub wall_ms: i64,
    /// What happened.
    pub event: Event,
}

/// Narrows a reading of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalFilter {
    /// Only events after this number.
    pub after: u64,
    /// Only events that name this lease.
    pub lease: Option<LeaseId>,
    /// Only events that name this claim.
    pub claim: Option<ClaimId>,
    /// Only events that name this session.
    pub session: Option<SessionId>,
    /// Only events that name this resource (its marks and changes, not its leases).
    pub resource: Option<ResourceId>,
    /// At most this many.
    pub limit: usize,
}
