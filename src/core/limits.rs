//! Every bound of the core in one place, with what happens at it.
//!
//! A bound that an operator may change is a field of [`Limits`]; one that a promise rests on
//! (the wire format, exact matching, memory per request) is a constant.

/// Needs in one claim. One more is refused as `too_many_needs`.
pub const NEEDS_PER_CLAIM_MAX: usize = 16;
/// Resources one claim may ask for, counted over its needs. More is refused as `too_many_picks`.
pub const PICKS_PER_CLAIM_MAX: usize = 256;
/// Bytes of one NEED text. Longer is refused as `invalid_need`.
pub const NEED_BYTES_MAX: usize = 2048;
/// Label terms in one need. More is refused as `invalid_need`.
pub const TERMS_PER_NEED_MAX: usize = 32;
/// Bytes of a CEL expression. Longer is refused as `invalid_need`.
pub const CEL_BYTES_MAX: usize = 1024;
/// Depth of a CEL syntax tree: the evaluator recurses, and a deeper one can end the process.
pub const CEL_DEPTH_MAX: usize = 32;
/// Nodes of a CEL syntax tree: it has no cost limit of its own.
pub const CEL_NODES_MAX: usize = 256;
/// Additions in a CEL expression: each may copy all text on its left, for every resource.
pub const CEL_ADDITIONS_MAX: usize = 16;
/// Patterns (`matches`) in a CEL expression.
pub const CEL_PATTERNS_MAX: usize = 4;
/// Bytes of a pattern's compiled form, and of what matching with it may cache.
pub const CEL_PATTERN_BYTES_MAX: usize = 256 * 1024;
/// Steps (edges looked at) matching may take for one claim; beyond it the claim ends with
/// `too_complex`. Counted, not timed, so that two replays agree.
pub const MATCHING_STEPS_MAX: u64 = 400_000;
/// Labels, and properties, of one resource. More is refused as `invalid_inventory`.
pub const LABELS_PER_RESOURCE_MAX: usize = 64;
/// Bytes of a label's or property's text value. Longer is refused as `invalid_inventory`.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Slots of one resource. More is refused as `invalid_inventory`.
pub const SLOTS_MAX: u32 = 10_000;
/// Resources in the inventory. One more is refused as `invalid_inventory`.
pub const RESOURCES_MAX: usize = 200_000;
/// Bytes of a note. Longer is refused as `invalid_params`.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Tags of a claim, and bytes of each key and value. More is refused as `invalid_params`.
pub const TAGS_MAX: usize = 32;
/// Bytes of a tag's key or value. Longer is refused as `invalid_params`.
pub const TAG_BYTES_MAX: usize = 512;
/// Bytes of an owner's name. Longer is refused as `invalid_params`.
pub const OWNER_BYTES_MAX: usize = 256;
/// Shortest ttl of a session, milliseconds.
pub const TTL_MS_MIN: u64 = 2_000;
/// Longest ttl of a session, milliseconds.
pub const TTL_MS_MAX: u64 = 600_000;
/// The ttl of a session that names none and no pool, milliseconds.
pub const TTL_MS_DEFAULT: u64 = 30_000;
/// The ttl of a lease without a socket that names none, milliseconds.
pub const TTL_MS_HTTP_DEFAULT: u64 = 180_000;
/// Longest wait or hold that can be asked for, milliseconds (a year).
pub const SPAN_MS_MAX: u64 = 366 * 86_400_000;
/// Ended requests a session remembers at least; a number at or below the highest forgotten one
/// is refused as `request_id_too_old`.
pub const ENDED_REQUESTS_KEPT: usize = 10_000;
/// Ended requests are forgotten this many at a time, so that forgetting is no work per request.
pub const ENDED_REQUESTS_SLACK: usize = 1_000;
/// How long the outcome of a lease without a socket is remembered after its end, milliseconds.
pub const KEYED_KEPT_MS: u64 = 86_400_000;
/// Remembered outcomes of leases without a socket per owner; further ones are refused as
/// `too_many_requests`.
pub const KEYED_PER_OWNER_MAX: usize = 10_000;
/// What one step of priority is worth in waiting time, milliseconds.
pub const PRIORITY_WORTH_MS: u64 = 5 * 60_000;
/// Highest priority; the lowest is its negative. Beyond is refused as `invalid_params`.
pub const PRIORITY_MAX: i8 = 10;
/// For this long at most after a broker accepts connections, a claim whose session has not come
/// back yet keeps back as if it were there, milliseconds.
pub const RETURN_GRACE_MS_MAX: u64 = 30_000;
/// The largest `max_waiting_per_owner` that a pool can have.
pub const WAITING_PER_OWNER_MAX: usize = 1_000_000;
/// How long after it a first arrival is remembered, milliseconds.
pub const ARRIVALS_KEPT_MS: u64 = 86_400_000;
/// First arrivals remembered; for one more the oldest is forgotten.
pub const ARRIVALS_MAX: usize = 10_000;
/// How often retries of one work take their rank from its first arrival.
pub const RETRIES_CARRIED_MAX: u32 = 5;
/// Bytes of a client's name for work that may be retried. Longer is refused as `invalid_params`.
pub const RETRY_WORK_BYTES_MAX: usize = 512;
/// The largest fence, and the largest whole number a JSON reader must be trusted with.
pub const FENCE_MAX: u64 = (1 << 53) - 1;
/// By how much copying or restoring a store raises its fences: more than the original gives before
/// somebody notices that there are two.
pub const FENCES_SKIPPED: u64 = 1 << 32;
/// Interned selections without a waiting claim that a pool keeps for the next claim alike.
pub const IDLE_SELECTIONS_MAX: usize = 64;

/// Bounds an operator may set under `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open sessions of the broker; one more is refused as `too_many_sessions`.
    pub sessions_max: usize,
    /// Waiting claims of one session; one more is refused as `too_many_claims`.
    pub claims_per_session_max: usize,
    /// Leases one session may hold; a claim beyond it is refused as `too_many_leases`.
    pub leases_per_session_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { sessions_max: 20_000, claims_per_session_max: 1_000, leases_per_session_max: 10_000 }
    }
}

const _: () = assert!(NEEDS_PER_CLAIM_MAX <= PICKS_PER_CLAIM_MAX);
const _: () = assert!(FENCES_SKIPPED < FENCE_MAX);
const _: () = assert!(TTL_MS_MIN < TTL_MS_DEFAULT && TTL_MS_DEFAULT < TTL_MS_MAX);
const _: () = assert!(TTL_MS_HTTP_DEFAULT <= TTL_MS_MAX);
const _: () = assert!(CEL_BYTES_MAX < NEED_BYTES_MAX);
