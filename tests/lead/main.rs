//! Brokers that share a database: who leads, what the others answer, and how the lead moves.
//!
//! Real processes on a real PostgreSQL, looked at from outside only. What happens under faults, often
//! and under load, is `tests/failover`'s; here each way is gone once. Nothing is timed: tests wait for
//! what a broker tells of itself.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod away;
mod brokers;
mod figures;
mod moving;
mod roles;
mod start;
mod stop;
mod takeover;

use common::ws::Client;
use serde_json::{Value, json};

/// The lab of these tests.
const LAB: &str = r#"
[[pool]]
name = "phone"

[[resource]]
name = "phone-{1..2}"
pool = "phone"
"#;

/// A number out of an answer.
#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// The session of `before` on a new socket at this port; answers it with what resuming answered.
#[track_caller]
fn resume(port: u16, before: &Client) -> Client {
    let opened = &before.opened;
    let mut client = Client::connect(port);
    let instance = opened["instance"].clone();
    let params = json!({ "session": opened["session"], "secret": opened["secret"], "instance": instance });
    client.opened = client.call("session.resume", params);
    client.opened["secret"] = opened["secret"].clone();
    client.opened["instance"] = instance;
    client
}
