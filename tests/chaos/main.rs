//! Faults from outside: brokers that are killed, stopped and frozen, networks that go silent,
//! disks that are full. What was told must stay told, and nothing may have two holders.
//!
//! Only the binary and its wire are driven. Tests go by what clients see and by the order of
//! events, never by how fast this machine is: bounds on time are lower ones ("not before"), on
//! the clock that broker and test share.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod crashes;
mod crowd;
mod endings;
mod frozen;
mod nginx;
mod runner;
mod silence;
mod stop;
mod store;
mod takeover;
mod witness;

use std::io::Write as _;

use common::broker::Broker;
use common::ws::Client;
use leasehold::client::{BaseUrl, Options};
use leasehold::clock::{BootTime, boot_now};
use leasehold::protocol::call::ClaimRequest;
use serde_json::{Value, json};

/// The lab of these tests.
const LAB: &str = r#"
[[pool]]
name = "phone"

[[resource]]
name = "phone-{1..3}"
pool = "phone"

[[pool]]
name = "board"

[[resource]]
name = "board-{1,2}"
pool = "board"
"#;
/// A session's ttl where the test waits for its end.
const TTL_MS: u64 = 2_000;

/// A socket with a session of this ttl.
fn session(port: u16, owner: &str, ttl_ms: u64) -> Client {
    let mut client = Client::connect(port);
    client.open_with(json!({ "owner": owner, "ttl_ms": ttl_ms, "instance": owner }));
    client
}

/// The session of `before` on a new socket; answers it with what resuming answered.
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

/// Claims what is held at present: it must wait.
#[track_caller]
fn queue(client: &mut Client, needs: &[&str]) -> Value {
    let claim = client.acquire(needs);
    assert_eq!(claim["state"], "queued", "{claim}");
    claim
}

/// Waits for a grant, unless resuming answered it already; answers the lease and a moment after it.
#[track_caller]
fn granted(client: &mut Client) -> (Value, BootTime) {
    let mut claim = client.opened.pointer_mut("/state/claims/0").map_or(Value::Null, Value::take);
    if claim["state"] != "granted" {
        claim = client.notice("lease.granted");
    }
    (claim["lease"].clone(), boot_now())
}

/// A number out of an answer.
#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// The leases that the broker lists as held.
fn held(broker: &Broker) -> Vec<Value> {
    broker.http("GET", "/v1/leases", None).ok()["items"].as_array().cloned().unwrap_or_default()
}

/// What the client library is told to connect with.
fn options(url: &str, owner: &str, ttl_ms: u64) -> Options {
    let url = BaseUrl::parse(url).expect("a loopback URL is a base");
    Options { owner: Some(owner.to_owned()), ttl_ms: Some(ttl_ms), ..Options::new(vec![url]) }
}

/// What the client library is told to claim.
fn claim(needs: &[&str]) -> ClaimRequest {
    ClaimRequest { needs: needs.iter().map(|need| (*need).to_owned()).collect(), ..ClaimRequest::default() }
}

/// A runtime for the client library.
fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("threads can be started")
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    free.local_addr().expect("it is bound").port()
}

/// Says past the capture of test output that a test did not run.
fn skipped(why: &str) {
    // Fails only where nobody reads.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
