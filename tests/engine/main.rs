//! The engine, from its own doors: the machine in virtual time, and the task over a store that
//! fails on demand.
//!
//! Each module is one behaviour. What goes over a wire is not tested here, and nothing here waits
//! for a clock: time is handed to the machine, and the task is awaited.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the failure, and its helpers are the test's")]

mod broker;
mod lab;
mod words;

mod batches;
mod conductor;
mod confirm;
mod endings;
mod expiries;
mod failures;
mod keyed;
mod leading;
mod notices;
mod providers;
mod random;
mod restart;
mod sockets;
mod stop;
