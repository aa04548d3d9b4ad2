//! What a broker tells of its things: resources, claims, leases, sessions, the journal. Shared by
//! WebSocket answers, HTTP answers and the CLI's `--json`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A resource in its holder's hands. Its `Debug` names the secrets and shows none.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PickInfo {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Its labels.
    pub labels: BTreeMap<String, Value>,
    /// Its properties.
    pub properties: BTreeMap<String, Value>,
    /// Slots of it.
    pub slots: u32,
    /// Its secrets: only in what goes to the lease's holder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// How its provider went, while that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<String>,
}

impl std::fmt::Debug for PickInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PickInfo")
            .field("name", &self.name)
            .field("pool", &self.pool)
            .field("labels", &self.labels)
            .field("properties", &self.properties)
            .field("slots", &self.slots)
            .field("secrets", &self.secrets.keys())
            .field("offline", &self.offline)
            .finish()
    }
}

/// Why a lease is ending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndingInfo {
    /// `hold_ended`, `revoked`, `kicked` ...
    pub why: String,
    /// In words.
    pub message: String,
    /// Lab time.
    pub since: u64,
    /// The same for people.
    pub since_time: String,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseInfo {
    /// Its number.
    pub lease: u64,
    /// The number a resource that can compare refuses smaller ones by. The same as `lease`.
    pub fence: u64,
    /// `active`, `ending` or `ended`.
    pub state: String,
    /// The claim it grants.
    pub claim: u64,
    /// Whose it is.
    pub session: u64,
    /// The session's number for it.
    pub request_id: u64,
    /// Who it acts for.
    pub owner: String,
    /// Whether a token vouched for the owner.
    pub owner_verified: bool,
    /// What was asked.
    pub needs: Vec<String>,
    /// What was given, per alias.
    pub resources: BTreeMap<String, Vec<PickInfo>>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// `job`, `commit`, `actor` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// When the claim arrived, lab time.
    pub queued_at: u64,
    /// The same for people.
    pub queued_at_time: String,
    /// When it was granted, lab time.
    pub granted_at: u64,
    /// The same for people.
    pub granted_at_time: String,
    /// When the hold is over, lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_time: Option<String>,
    /// Set while it is ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<EndingInfo>,
    /// Set once it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<EndedInfo>,
    /// How long ago the session gave a sign of life; in listings only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<u64>,
}

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedInfo {
    /// `released`, `session_expired`, `revoked` ...
    pub why: String,
    /// In words.
    pub message: String,
    /// What the runner said of its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Lab time.
    pub at: u64,
    /// The same for people.
    pub at_time: String,
}

/// Why a claim ended without a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndInfo {
    /// `timed_out`, `cancelled`, or the code of a refusal.
    pub code: String,
    /// In words.
    pub message: String,
    /// The alias of the need that fails, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
}

/// Who is in a waiting claim's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InTheWay {
    /// The resource.
    pub resource: String,
    /// Its lease.
    pub lease: u64,
    /// Who holds it.
    pub owner: String,
    /// For which job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Since when, lab time.
    pub since: u64,
    /// The same for people.
    pub since_time: String,
    /// Until when at most, lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_time: Option<String>,
}

/// A claim: waiting, granted or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimInfo {
    /// The session's number for it.
    pub request_id: u64,
    /// Its number; 0 for a cancelled request that was never seen.
    pub claim: u64,
    /// `queued`, `granted` or `ended`.
    pub state: String,
    /// While queued: 1 is next. Told at queueing and, when changed, at most once a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
    /// While queued: what keeps it from being granted however long the others take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// While queued: which cap of its owner holds it up, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capped: Option<String>,
    /// While queued: when it may be granted, from `now`; absent where there is no basis to say. Told with
    /// places and in listings, not in the answer to a claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<EtaInfo>,
    /// While queued: up to five who are in its way; where a cap holds it up, what its owner holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<InTheWay>,
    /// When granted: the lease, in whatever state it is; of one that has ended the end only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseInfo>,
    /// When ended: how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<EndInfo>,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// When a waiting claim may be granted: an estimate, from how long leases of its pools were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EtaInfo {
    /// Hardly sooner than in so long, milliseconds: about one in ten is.
    pub low_ms: u64,
    /// Hardly later than in so long, milliseconds: about one in ten is.
    pub high_ms: u64,
    /// Recorded holds that it rests on, of the pool that has fewest.
    pub holds: u32,
}

/// A waiting claim as the queue lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingInfo {
    /// Its number.
    pub claim: u64,
    /// Whose it is.
    pub session: u64,
    /// Who it acts for.
    pub owner: String,
    /// Its place among those that wait for its pools, from 1.
    pub place: u64,
    /// What it asks.
    pub needs: Vec<String>,
    /// -10 to 10.
    pub priority: i8,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// `job`, `commit`, `actor` and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// When it arrived, lab time.
    pub queued_at: u64,
    /// The same for people.
    pub queued_at_time: String,
    /// When the first attempt of its work arrived, where its place counts from that; lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_arrival: Option<u64>,
    /// When it stops waiting, lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until: Option<u64>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_until_time: Option<String>,
    /// What keeps it from being granted however long the others take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    /// Which cap of its owner holds it up, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capped: Option<String>,
    /// When it may be granted, from `now`; absent where there is no basis to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<EtaInfo>,
    /// Whether its socket is up; a claim whose socket is down is not granted.
    pub connected: bool,
}

/// Why a resource is in a state, since when and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MarkInfo {
    /// In the words of whoever did it.
    pub reason: String,
    /// By whom.
    pub by: String,
    /// Lab time.
    pub since: u64,
    /// The same for people.
    pub since_time: String,
}

/// A holder of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HolderInfo {
    /// The lease.
    pub lease: u64,
    /// Who it acts for.
    pub owner: String,
    /// The session.
    pub session: u64,
    /// Slots it holds.
    pub slots: u32,
    /// `active` or `ending`.
    pub state: String,
    /// The job, commit, command it said.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Since when, lab time.
    pub since: u64,
    /// The same for people.
    pub since_time: String,
    /// Until when at most, lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_time: Option<String>,
    /// How long ago the session gave a sign of life.
    pub last_seen_ms: u64,
    /// Whether its socket is up.
    pub connected: bool,
}

/// A resource as listed. Secrets are named, never shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceInfo {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// What needs can ask for.
    pub labels: BTreeMap<String, Value>,
    /// Handed to the holder.
    pub properties: BTreeMap<String, Value>,
    /// Names of its secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// How many holders may share it.
    pub slots: u32,
    /// Slots nobody holds, and that do not cool.
    pub slots_free: u32,
    /// Slots that cool after their last lease, where any do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots_cooling: Option<u32>,
    /// When the last of them is free, lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling_until: Option<u64>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooling_until_time: Option<String>,
    /// `file`, `api` or `provider:NAME`.
    pub origin: String,
    /// One word for people: `free`, `shared`, `leased`, `ending`, `cooling`,
    /// `drained`, `quarantined`, `offline`, `pending`.
    pub state: String,
    /// Set while it is unfit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<MarkInfo>,
    /// Set while an admin has taken it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<MarkInfo>,
    /// Set while its provider is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<MarkInfo>,
    /// What waits for its holders: `change` or `removal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holders: Vec<HolderInfo>,
}

/// A session as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionInfo {
    /// Its number.
    pub session: u64,
    /// Who it acts for.
    pub owner: String,
    /// Whether a token vouched for the owner.
    pub owner_verified: bool,
    /// `socket` or `keyed`.
    pub kind: String,
    /// Milliseconds.
    pub ttl_ms: u64,
    /// Whether its socket is up.
    pub connected: bool,
    /// How long ago it gave a sign of life.
    pub last_seen_ms: u64,
    /// When it opened, lab time.
    pub opened_at: u64,
    /// The same for people.
    pub opened_at_time: String,
    /// Leases it holds.
    pub leases: Vec<u64>,
    /// Claims it waits with.
    pub claims: Vec<u64>,
    /// The provider whose resources it brings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides: Option<String>,
}

/// How a resource stands to a need, for `resource match`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatchInfo {
    /// Its name.
    pub name: String,
    /// Whether it matches.
    pub matches: bool,
    /// Whether it could be given now.
    pub free: bool,
    /// Why not, where it does not match or is not free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One change that applying an inventory makes, for people and for `--dry-run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeInfo {
    /// `add`, `change`, `rename`, `remove`.
    pub action: String,
    /// `pool` or `resource`.
    pub what: String,
    /// Its name.
    pub name: String,
    /// In words, what is different.
    pub detail: String,
    /// Whether it waits for the last holder.
    pub pending: bool,
}

/// What applying an inventory did, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyInfo {
    /// What changes.
    pub changes: Vec<ChangeInfo>,
    /// How many resources stay as they are.
    pub unchanged: u64,
    /// Whether it was done.
    pub applied: bool,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

/// The broker, at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusInfo {
    /// This binary's version.
    pub version: String,
    /// `leading`, or `standby`: then nothing is told of the books, and every count is 0.
    #[serde(default = "leading")]
    pub role: String,
    /// `serving`, `store_failing` or `stopping`; `standby` where that is the role.
    pub state: String,
    /// In words, where the state is not `serving`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where the leader says that clients reach it; only where brokers share the store, and while
    /// it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// Which lead it is, one more at every takeover; only where brokers share the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How long a leader is left alone that writes nothing, milliseconds; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_ms: Option<u64>,
    /// The brokers that share the store and noted themselves in it lately.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<BrokerInfo>,
    /// Where its data is.
    pub store: String,
    /// The inventory file it watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<String>,
    /// Why that file is not applied, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_error: Option<String>,
    /// How long it serves, milliseconds.
    pub uptime_ms: u64,
    /// The last batch stored.
    pub batch: u64,
    /// Pools, with what is in them.
    pub pools: Vec<PoolStatus>,
    /// Open sessions.
    pub sessions: u64,
    /// Leases held.
    pub leases: u64,
    /// Claims waiting.
    pub waiting: u64,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}

fn leading() -> String {
    "leading".to_owned()
}

/// One of the brokers that share a store, as it noted itself there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerInfo {
    /// Where clients reach it when it leads.
    pub url: String,
    /// The name of its process, made anew at each start.
    pub instance: String,
    /// Whether it leads.
    pub leads: bool,
    /// How long ago it noted itself, milliseconds by the store's clock.
    pub seen_ms: u64,
}

/// A pool at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolStatus {
    /// Its name.
    pub pool: String,
    /// Resources in it.
    pub resources: u64,
    /// Their slots.
    pub slots: u64,
    /// Slots that could be given now.
    pub slots_free: u64,
    /// Slots held.
    pub slots_leased: u64,
    /// Slots that cool after their last lease.
    #[serde(default)]
    pub slots_cooling: u64,
    /// Resources that are drained, offline, quarantined or going.
    pub out: u64,
    /// Claims that wait for it.
    pub waiting: u64,
}

/// An event of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventInfo {
    /// Its dense number.
    pub event: u64,
    /// Lab time.
    pub at: u64,
    /// The same for people.
    pub at_time: String,
    /// What happened; `type` says which.
    pub body: Value,
}

/// Why something is as it is, in sentences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyInfo {
    /// What was asked about: `claim 7`, `lease 12`, `resource pixel-8-01`.
    pub subject: String,
    /// The answer in one line.
    pub summary: String,
    /// What it rests on, in order.
    pub reasons: Vec<String>,
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Give it as `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Lab time.
    pub now: u64,
    /// The same for people.
    pub now_time: String,
}
