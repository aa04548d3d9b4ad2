//! Commit statuses on their way to a forge: the outbox.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::BuildId;
use super::happening::Sha;

/// Where a status goes. There is one row in the outbox for each: what is to be told last replaces what was
/// to be told before, and a report of an older build never replaces a newer one's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StatusKey {
    /// The repository, by its name in the configuration.
    pub repository: Arc<str>,
    /// The commit.
    pub sha: Sha,
    /// `leasehold/PIPELINE`: what the forge keeps apart.
    pub context: Arc<str>,
}

/// What the forge is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusState {
    /// It waits, or waits to be allowed.
    Pending,
    /// It runs. Where a forge has no word for that it is pending.
    Running,
    /// It passed.
    Success,
    /// It failed, or ran out of time.
    Failure,
    /// It was cancelled or superseded.
    Cancelled,
    /// It was lost.
    Error,
}

/// A status, told or still to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Where it goes.
    pub key: StatusKey,
    /// Whose it is.
    pub build: BuildId,
    /// Grows with every change; an answer to an older one settles nothing.
    pub version: u64,
    /// What is shown.
    pub state: StatusState,
    /// At most 140 characters.
    pub description: Arc<str>,
    /// Whether the forge has taken this version.
    pub told: bool,
    /// Tries of this version that failed.
    pub tries: u32,
    /// When it is to be tried (again), Unix milliseconds.
    pub due_ms: i64,
    /// What the forge, or the way there, said last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Arc<str>>,
}
