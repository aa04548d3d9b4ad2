//! Builds: what events at a forge come to, as data and pure decisions.
//!
//! A forge (GitHub, GitLab, Gitea) *delivers* what happened; what happened may start *builds* by the
//! repository's *pipelines*, and end older ones; a build waits for an executor and whatever else its
//! pipeline needs, all as one claim, and runs under that lease on an *agent*.
//!
//! Like the core this knows no I/O, clock, randomness or async: it is given the time and a command.
//! Leases are the core's alone. What holds between the two, and is checked by the tests of both: a build
//! whose phase is final or `blocked` has no session with the engine, so it holds nothing.

pub mod book;
pub mod build;
pub mod change;
pub mod delivery;
pub mod glob;
pub mod happening;
pub mod hook;
pub mod log;
pub mod matching;
pub mod plan;
pub mod status;
