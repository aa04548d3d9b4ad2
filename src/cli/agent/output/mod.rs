//! What a build prints, on its way to the broker.
//!
//! ```text
//!   pipe of the build ─▶ mask ─▶ count, hash ─▶ spool on disk ─▶ sender ─▶ PATCH /v1/builds/{id}/log
//! ```
//!
//! Standard output and standard error are one pipe, so their order is that of a terminal. Nothing of it is
//! kept in memory beyond a read and a request: a build that prints faster than the broker takes fills the
//! spool, then waits.

pub mod chunk;
pub mod mask;
pub mod sender;
pub mod spool;
pub mod tap;
