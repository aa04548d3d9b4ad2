//! Deliveries: what a forge sent, and what came of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::BuildId;
use super::happening::{Forge, Happening};

/// A delivery's number; grows with each that was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub u64);

/// A delivery whose signature was right. Its body is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: DeliveryId,
    /// Who sent it.
    pub forge: Forge,
    /// The forge's own name for it, which a redelivery keeps.
    pub forge_id: Arc<str>,
    /// The event's name in its header.
    pub event: Arc<str>,
    /// What it says, where that is something builds come of; else why it is not, in words.
    pub said: Result<Happening, Arc<str>>,
    /// When it came, Unix milliseconds.
    pub received_ms: i64,
    /// The delivery that this is a deliberate repeat of (`hook redeliver`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<DeliveryId>,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing yet: it is journalled, and will be worked on.
    Accepted,
    /// It was acted on.
    Done {
        /// Builds that it started.
        started: Vec<BuildId>,
        /// Builds that it ended.
        ended: Vec<BuildId>,
    },
    /// It asked for something, which could not be done.
    Failed {
        /// Why.
        reason: Arc<str>,
    },
    /// There was nothing to do.
    Ignored {
        /// Why.
        reason: Arc<str>,
    },
}

/// A delivery whose signature was right, before it has a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Who sent it.
    pub forge: Forge,
    /// The forge's own name for it.
    pub forge_id: Arc<str>,
    /// The event's name in its header.
    pub event: Arc<str>,
    /// What it says, or why nothing comes of it.
    pub said: Result<Happening, Arc<str>>,
    /// As it came.
    pub body: Arc<[u8]>,
    /// The delivery that it deliberately repeats: it is no duplicate then, whatever it says.
    pub repeats: Option<DeliveryId>,
}

/// What became of an incoming delivery; durable when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It is journalled, and is worked on.
    Accepted(DeliveryId),
    /// It is one that was accepted before: this one.
    Duplicate(DeliveryId),
}
