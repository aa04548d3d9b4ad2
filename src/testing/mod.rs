//! The simulation: brokers, clients, network, store and clocks in one thread under one seed.
//!
//! The core, the engine's machine, the client's machine and the text of the wire are the real
//! ones; around them stand doubles that can fail in every way the design speaks of. A run is a
//! pure function of its [`Script`]: no clock, no runtime, no randomness but the script's seed.
//!
//! ```text
//!   Script ─▶ World ─┬─ Runner (client machine, its clock)   ─┐
//!                    ├─ Network (ordered streams that fail)   ├─▶ Auditor: the promises by name
//!                    ├─ Brokers (engine machine, its loop)    │
//!                    └─ Store (journal and tables that fail) ─┘
//! ```
//!
//! Beside it, [`postgres`] starts a real server for the tests that need one.
//!
//! The auditor is other code than the core: it keeps books of its own from what the store made
//! durable, hears what is told, and knows at every instant what each client believes it may use.

mod actions;
mod audit;
mod broker;
mod brokers;
mod dice;
pub mod fuzz;
mod network;
mod policy;
pub mod postgres;
mod puzzle;
mod queue;
mod runner;
mod script;
mod shrink;
mod store;
mod workload;
mod world;

pub use audit::Broken;
pub use dice::Dice;
pub use script::{Action, Script, Timed};
pub use shrink::{Found, run_seed, shrink};
pub use world::{Outcome, Stats, Wait, run};
