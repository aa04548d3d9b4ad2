//! A session: one client's logical connection, which survives a dropped socket for its ttl.
//!
//! The core knows who a session is and what it asked. When it was last heard of is not the
//! core's business: presence lives in the engine, on the process's own clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::{ENDED_REQUESTS_KEPT, ENDED_REQUESTS_SLACK};
use super::types::{ClaimId, LabTime, LeaseId, Owner, ProviderName, SessionId};

/// The hash of a 256-bit secret, in hex. What opens a session is never stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(pub Arc<str>);

/// How a session is kept alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SessionKind {
    /// Over a WebSocket, by one process.
    Socket {
        /// Random, named by the client: a session belongs to one process.
        instance: Arc<str>,
    },
    /// Over HTTP: one claim under the lease's key, kept alive by asking.
    Keyed {
        /// The client's name for its one request.
        request_id: Arc<str>,
    },
}

/// What a session is that brings resources with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its name: that of its resources' origin.
    pub name: ProviderName,
    /// The hash of the secret that the provider keeps for itself over restarts, and nobody else has:
    /// who knows it is this one's successor.
    pub key: SecretHash,
    /// Where it was last seen to be, for people.
    pub address: Arc<str>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum SessionEnd {
    /// The client closed it.
    Closed,
    /// No sign of life for a ttl.
    Expired,
    /// An admin ended it, and its leases have ended.
    Kicked {
        /// Who.
        by: Arc<str>,
    },
    /// The books were copied or restored, and it belongs to the store that stayed behind.
    Moved,
}

/// How a request ended, as far as a repeat of it must be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestEnd {
    /// It became this lease, which has ended.
    Lease {
        /// Which.
        lease: LeaseId,
        /// How.
        end: super::lease::LeaseEnd,
    },
    /// It ended without a lease.
    Claim(super::claim::ClaimEnd),
    /// It was cancelled before it was seen.
    Tombstone,
}

/// A request that is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenRequest {
    /// Waiting.
    Claim(ClaimId),
    /// Held, or ending.
    Lease(LeaseId),
}

/// What a session asked, so that asking twice is asking once.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Numbers at or below it that are not known are refused.
    pub forgotten: u64,
    /// Still open.
    pub open: BTreeMap<u64, OpenRequest>,
    /// Ended, with the fingerprint of the body; `None` for a tombstone.
    pub ended: BTreeMap<u64, (Option<u64>, RequestEnd)>,
}

impl Requests {
    /// The number up to which ended requests are to be forgotten now, if there are enough.
    #[must_use]
    pub fn forgettable(&self) -> Option<u64> {
        let surplus = self.ended.len().checked_sub(ENDED_REQUESTS_KEPT + ENDED_REQUESTS_SLACK)?;
        let oldest = self.ended.keys().nth(surplus + ENDED_REQUESTS_SLACK - 1).copied()?;
        // Long-open requests end below what is forgotten already, which stays forgotten.
        Some(oldest.max(self.forgotten))
    }
}

/// One client's logical connection.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// Who it acts for.
    pub owner: Owner,
    /// Fixed when it opened, milliseconds.
    pub ttl_ms: u64,
    /// What resumes it.
    pub secret: SecretHash,
    /// Socket or keyed.
    pub kind: SessionKind,
    /// When it opened.
    pub opened_at: LabTime,
    /// A longer promise than the ttl, given at a planned stop, milliseconds: what a client that
    /// counts by it was told, so the next process honours it in full.
    pub promise_ms: Option<u64>,
    /// Set when an admin kicked it: it takes no claims and ends with its last lease.
    pub kicked_by: Option<Arc<str>>,
    /// Set while it brings the resources of a provider.
    pub provides: Option<Provider>,
    /// What it asked.
    pub requests: Requests,
}
