//! What a question may see: the books, the presence of the sessions, and the clock.

use std::collections::BTreeMap;

use crate::clock::BootTime;
use crate::core::claim::Claim;
use crate::core::eta::Eta;
use crate::core::state::State;
use crate::core::types::{ClaimId, LabTime, SessionId};
use crate::units::rfc3339;

/// The books as they are between two batches. A question runs on the engine's task, so it must
/// be quick and bounded: page whatever has no bound.
pub struct View<'a> {
    /// The books.
    pub state: &'a State,
    /// What the engine knows of a session's life.
    pub presence: &'a dyn Fn(SessionId) -> Seen,
    /// When the waiting claims that hang together with one, or all of them, may be granted.
    pub etas: &'a dyn Fn(Option<&Claim>) -> BTreeMap<ClaimId, Eta>,
    /// Lab time and wall clock.
    pub clock: LabClock,
    /// The last batch stored or about to be.
    pub batch: u64,
    /// Whether the store works, or what it said.
    pub store_failure: Option<&'a str>,
    /// Whether the broker is stopping.
    pub stopping: bool,
    /// This process's clock when it began to serve.
    pub serving_since: BootTime,
    /// This process's clock now.
    pub boot_now: BootTime,
}

/// What the engine knows of a session's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How long ago it gave a sign of life.
    pub last_seen_ms: u64,
    /// Whether its socket is up.
    pub connected: bool,
}

/// Lab time with its wall-clock twin, for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabClock {
    /// Lab time now.
    pub now: LabTime,
    /// The wall clock now, Unix milliseconds.
    pub wall_ms: i64,
}

impl LabClock {
    /// A lab moment as RFC 3339, as far as this machine's wall clock can be trusted.
    #[must_use]
    pub fn time(&self, moment: LabTime) -> String {
        let wall_ms = if moment >= self.now {
            self.wall_ms.saturating_add(i64::try_from(moment.since(self.now)).unwrap_or(i64::MAX))
        } else {
            self.wall_ms.saturating_sub(i64::try_from(self.now.since(moment)).unwrap_or(i64::MAX))
        };
        rfc3339(wall_ms)
    }

    /// Now as RFC 3339.
    #[must_use]
    pub fn now_time(&self) -> String {
        rfc3339(self.wall_ms)
    }
}
