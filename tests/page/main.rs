//! The pages for people, in a real browser where there is one: that nothing a log contains can run, and that any
//! part of a log of any length is found, shown and followed.

mod bare;
mod browser;
#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;
mod fixture;
mod following;
mod hostile;
mod long;
mod looks;
mod reading;
