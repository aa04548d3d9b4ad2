//! The core: one deterministic state machine that owns every promise.
//!
//! No async, no clock, no I/O, no randomness, only ordered collections. It is given the time and a
//! command; it answers with events, and changes only by them:
//!
//! ```text
//!   now, Command ──▶ Core::decide ──▶ events ──▶ State::apply ──▶ (next command)
//!                                      │
//!                                      └──▶ journal + tables, in one transaction
//! ```

pub mod apply;
pub mod arrivals;
pub mod broker;
pub mod caps;
pub mod cel;
pub mod claim;
pub mod command;
mod decide;
pub mod eta;
pub mod event;
mod fits;
mod flow;
pub mod fold;
pub mod invariants;
pub mod inventory;
pub mod lease;
pub mod limits;
pub mod matching;
pub mod need;
pub mod refusal;
pub mod schedule;
pub mod selection;
pub mod session;
pub mod spelling;
pub mod state;
pub mod tables;
pub mod types;

pub use decide::KEYED_REQUEST;
