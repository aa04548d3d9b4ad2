//! The engine: the single writer.
//!
//! One task owns the core, the presence of the sessions and the store. It takes what has queued
//! up, lets the core decide, commits it in one transaction, and only then tells anybody:
//!
//! ```text
//!  sockets ──Input──▶ ┌──────────────┐ batch ┌───────┐
//!  HTTP    ──Input──▶ │ Machine      │ ────▶ │ store │
//!                     │ core+presence│ ◀──── │       │
//!  outboxes ◀─durable─└──────────────┘ done  └───────┘
//! ```
//!
//! The machine is that as a state machine without I/O, which tests drive; the task is the loop
//! around it. Everything computed from the core carries the number of the batch it was computed
//! after and leaves when that batch is durable. Answers to `session.renew` come from presence
//! and wait for no batch; where brokers share the store they wait until this one was found to lead.

mod calls;
mod confirm;
pub mod handle;
pub mod held;
pub mod input;
mod lead;
pub mod machine;
pub mod metrics;
pub mod presence;
pub mod query;
mod reach;
mod stop;
mod task;
pub mod view;

pub use lead::Ended;
pub use task::{EngineError, start};
