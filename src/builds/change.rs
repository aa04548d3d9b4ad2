//! What a decision changes: the one thing that is applied in memory and stored, in one transaction.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::{Build, BuildId, Phase};
use super::delivery::Delivery;
use super::status::Status;

/// One change. Whole records: what a row was before does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A delivery came, with its body.
    Accepted(Arc<Delivery>, Arc<[u8]>),
    /// A delivery was worked on.
    Delivery(Arc<Delivery>),
    /// A build is new, or is different now.
    Build(Arc<Build>),
    /// Something to remember of a build.
    Note(Note),
    /// A status is to be told, or was.
    Status(Arc<Status>),
}

/// A line in a build's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Whose.
    pub build: BuildId,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// The phase it has from here.
    pub phase: Phase,
    /// Which attempt.
    pub attempt: u32,
    /// What happened, in words.
    pub what: Arc<str>,
    /// Who did it.
    pub by: Arc<str>,
}
