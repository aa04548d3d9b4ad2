//! The wire under bad input: whatever a peer sends, it is told clearly, and nobody else is harmed.
//!
//! Each test plays the bad peer over raw sockets against the real binary, and keeps somebody else
//! beside it, who holds a lease and goes on working. What is bad is a row of a table wherever it
//! can be; what is asserted is the stable code, that the message names the thing, and that the
//! broker goes on.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod bystander;
mod claims;
mod events;
mod frames;
mod inventory;
mod keyed;
mod limits;
mod messages;
mod probes;
mod providers;
mod routes;
mod secrets;
mod sessions;
mod texts;
mod upgrade;
