//! `run` and `acquire`, from outside: the real binary against a real broker, with commands that
//! do their worst.
//!
//! What a test believes comes from outside the broker: a lock of the kernel that a command's whole
//! tree holds, a FIFO that closes with the last of it, files that a command wrote. Where a moment
//! matters, it is read from the one clock that all processes share.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod absent;
mod acquire;
mod detach;
mod endings;
mod environment;
mod exit_codes;
mod failover;
mod keyed;
mod killed;
mod nested;
mod provide;
mod report;
mod secrets;
mod sharing;
mod signals;
mod witness;

use common::broker::Broker;
use common::process::Process;

/// One phone, with a ttl that no test waits for: what comes back was given back.
const ONE_PHONE: &str = r#"
[[pool]]
name = "phone"
max_hold = "2h"
ttl = "10m"

[[resource]]
name = "pixel"
pool = "phone"
labels = { os = "android", api = 34 }
"#;

/// One phone, whose holder has to give a sign of life every three seconds.
const ONE_PHONE_3S: &str = r#"
[[pool]]
name = "phone"
ttl = "3s"

[[resource]]
name = "pixel"
pool = "phone"
"#;

/// The ttl of [`ONE_PHONE_3S`].
const TTL_MS: u64 = 3_000;

/// Starts `leasehold run OPTIONS -- sh -c SCRIPT` for one phone.
fn run(broker: &Broker, options: &[&str], script: &str) -> Process {
    broker.spawn(&[&["run", "-n", "phone"], options, &["--", "sh", "-c", script]].concat())
}

/// A directory for what commands write, as it stands in a script.
fn shown(path: &std::path::Path) -> String {
    path.display().to_string()
}

/// Whether nothing of the broker's inventory is held.
fn all_free(broker: &Broker) -> bool {
    broker.sh("lease ls --json").exits(0).json().as_array().is_some_and(Vec::is_empty)
}
