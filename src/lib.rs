//! leasehold leases test resources to test runners over WebSockets.
//!
//! The connection is the claim on the resource: while it lives the lease lives, and when it drops
//! the resource comes back by itself. The parts, each leaning only on those before it:
//!
//! - [`core`]: the pure state machine: inventory, queue, matching, leases, sessions, fences.
//! - [`protocol`]: the messages of `leasehold.v1`, shared by both ends.
//! - [`inventory`]: the inventory file and `leasehold.toml`, read into the core's words.
//! - [`store`]: the journal and the tables beside it.
//! - [`archive`]: whole stores: checking one, putting a copy of one into use.
//! - [`engine`]: the single writer: takes inputs, commits, and only then tells.
//! - [`builds`]: what events at a forge come to, as data and pure decisions.
//! - [`pipeline`]: builds in the world: claims, git, logs, statuses.
//! - [`server`]: WebSocket and HTTP in front of the engine.
//! - [`client`]: connect, resume, self-fence; builds without the rest.
//! - [`cli`]: the commands.
//! - `testing`: the simulation of all of them under one seed (feature `testing`).

pub mod clock;
#[cfg(feature = "server")]
pub mod core;
pub mod protocol;
pub mod units;

#[cfg(feature = "server")]
pub mod archive;
#[cfg(feature = "server")]
pub mod builds;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod engine;
#[cfg(feature = "server")]
pub mod inventory;
#[cfg(feature = "server")]
pub mod pipeline;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "testing")]
pub mod testing;
