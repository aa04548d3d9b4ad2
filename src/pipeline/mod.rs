//! Builds in the world: their claims, git, logs and statuses, beside the engine of the leases.
//!
//! ```text
//!   forge ──POST /hooks──▶ conductor ──claims, endings──▶ engine
//!   people, agents ──HTTP──▶  │  ▲                          │ grants, ends
//!                             │  └──────────────────────────┘
//!              build store ◀──┴──▶ reporter ──▶ the forge's commit statuses
//!   agents ──log──▶ logs ──▶ object store, tables; index
//! ```
//!
//! The conductor is the one writer of builds: it decides by [`builds`](crate::builds), stores, and only then
//! tells and acts. What it does in the world it finds again after a crash: waiting builds claim anew under
//! their first arrival, endings are asked for again, deliveries not worked on are worked on.

pub mod git;
pub mod logs;
pub mod reporter;
pub mod search;
pub mod source;

use self::logs::Logs;

/// What a broker has that runs builds.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Logs.
    pub logs: Logs,
}
