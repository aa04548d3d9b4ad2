//! `run`: a command that holds a lease while it runs.

pub mod environment;
pub mod guard;
pub mod handle;
pub mod tree;
