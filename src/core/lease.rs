//! A lease: a granted claim.
//!
//! ```text
//!            grant             hold limit, revoke, kick            released, or r + ttl
//!   (claim) ───────▶ Active ─────────────────────────▶ Ending ─────────────────────▶ (ended)
//!                      │      release, session ended, drop                              ▲
//!                      └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The core holds leases only while they are active or ending; ended ones live in the store.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::claim::ClaimSpec;
use super::types::{ClaimId, Key, LabTime, LeaseId, Owner, ResourceId, ResourceName, SessionId};

/// What the runner says of its work at release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The work passed.
    Passed,
    /// The work failed.
    Failed,
    /// The resource was at fault.
    Infra,
}

/// One resource of a lease, under one alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// The need it was picked for.
    pub alias: Key,
    /// The resource.
    pub resource: ResourceId,
    /// Its name at the grant, for the journal's readers.
    pub name: ResourceName,
    /// Slots of it.
    pub slots: u32,
}

/// Why a lease ends under a live holder, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum LeaseEnd {
    /// The holder released it.
    Released {
        /// Who: the session's owner, or another by release key.
        by: Arc<str>,
    },
    /// The session closed cleanly.
    SessionClosed,
    /// No sign of life for a ttl.
    SessionExpired,
    /// The socket dropped and a pool of it says `on_drop = "immediate"`.
    Dropped,
    /// Its hold was over.
    HoldEnded,
    /// An admin took it back.
    Revoked {
        /// Who.
        by: Arc<str>,
        /// Without waiting for the holder: promise 1 waived in the world.
        forced: bool,
        /// In the admin's words.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Arc<str>>,
    },
    /// An admin ended its session.
    Kicked {
        /// Who.
        by: Arc<str>,
    },
    /// A secret of a resource could not be read at hand-out.
    SecretUnavailable {
        /// Which resource.
        resource: ResourceName,
    },
    /// The books were copied or restored, and its session stayed behind.
    Moved,
}

/// An end that waits for its holder: the resources go to nobody before the holder has released,
/// or a ttl after the decision was known to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why.
    #[serde(flatten)]
    pub why: LeaseEnd,
    /// Since when.
    pub since: LabTime,
}

/// A granted claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its number, which is its fence.
    pub id: LeaseId,
    /// The claim it grants.
    pub claim: ClaimId,
    /// Whose it is.
    pub session: SessionId,
    /// The session's number for it.
    pub request: u64,
    /// A fingerprint of the claim's body.
    pub body_hash: u64,
    /// Who it acts for.
    pub owner: Owner,
    /// What was asked.
    pub spec: Arc<ClaimSpec>,
    /// What was given, in the order of the needs.
    pub picks: Vec<Pick>,
    /// When the claim arrived.
    pub queued_at: LabTime,
    /// When it was granted.
    pub granted_at: LabTime,
    /// When the hold is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<LabTime>,
    /// Set from the decision to end it under a live holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Picks whose slots are free already (`on_drop = "immediate"`), while the lease is ending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freed: Vec<ResourceId>,
}
