//! What is sent over HTTP: the bodies of requests that have no twin on the WebSocket.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::ClaimRequest;

/// The header that says who acts, `user@host` by custom. Unverified without tokens.
pub const OWNER_HEADER: &str = "leasehold-owner";

/// Claims resources without a socket, under the key in the header
/// [`LEASE_KEY_HEADER`](super::LEASE_KEY_HEADER). Its `request_id` is a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LeaseRequest {
    /// What is asked.
    #[serde(flatten)]
    pub claim: ClaimRequest,
    /// How long the lease lives without a renewal: 2,000 to 600,000; absent is three minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Who it acts for; absent is the header [`OWNER_HEADER`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// Releases a lease, under its key or by its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReleaseRequest {
    /// `passed`, `failed` or `infra`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// Moves the end of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExtendRequest {
    /// The new end, lab time: absolute, so that asking twice is asking once.
    pub until: u64,
}

/// Takes a lease back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RevokeRequest {
    /// Without waiting for the holder: its resources may be used by two at once.
    pub force: bool,
    /// For the holder and the journal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Says something of a resource: drain, undrain, quarantine, restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MarkRequest {
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Declares one resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResourceRequest {
    /// The pool it is in.
    pub pool: String,
    /// What needs can ask for: texts, numbers, bools.
    #[serde(default)]
    pub labels: BTreeMap<String, Value>,
    /// Handed to the holder: texts, numbers, bools.
    #[serde(default)]
    pub properties: BTreeMap<String, Value>,
    /// How many holders may share it.
    #[serde(default = "one")]
    pub slots: u32,
    /// Not in this version: secrets are declared in the inventory file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Value>,
}

const fn one() -> u32 {
    1
}

/// Makes the file's part of the inventory what a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRequest {
    /// The file, as TOML.
    pub text: String,
    /// What errors call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Change nothing, answer what would.
    #[serde(default)]
    pub dry_run: bool,
    /// Remove what the file no longer has.
    #[serde(default)]
    pub prune: bool,
    /// Even where it removes more than a fifth.
    #[serde(default)]
    pub confirmed: bool,
}

/// Asks which resources match a need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatchRequest {
    /// The NEED text.
    pub need: String,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// At most this many on a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A text as one piece of a path or a query.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    // These two would mean the folder itself and its parent.
    if encoded.bytes().all(|byte| byte == b'.') { encoded.replace('.', "%2E") } else { encoded }
}
