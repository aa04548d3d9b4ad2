//! The admin commands, from outside: the real binary against a real broker.
//!
//! Each module is one family of commands. They go by what is printed and by exit codes, never by
//! how the broker works inside.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod alone;
