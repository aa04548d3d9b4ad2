//! Somebody else: who holds a lease while a test misbehaves, and must not notice.

use std::sync::atomic::{AtomicU64, Ordering};

use leasehold::clock::boot_now;
use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::ws::Client;

/// A lab with enough for a bad peer to ask for, and something for somebody else.
pub const LAB: &str = r#"
[[pool]]
name = "phone"
max_hold = "2h"

[[resource]]
name = "phone-{1..2}"
pool = "phone"
labels = { os = "android", api = 34 }

[[resource]]
name = "port-{1000..1999}"
pool = "port"

[[resource]]
name = "safe-{1..2}"
pool = "safe"
"#;

/// Longer than a call may take beside the worst peer. What is broken takes for ever.
const LATENCY_MS_MAX: u64 = 10_000;

/// A session with a lease on one of the pool `safe`, which tests leave alone.
pub struct Bystander {
    client: Client,
    lease: Value,
}

impl Bystander {
    /// Opens its session and takes its lease.
    #[track_caller]
    pub fn of(broker: &Broker) -> Self {
        let mut client = broker.session("bystander@lab");
        let lease = client.lease(&["safe"])["lease"].clone();
        Self { client, lease }
    }

    /// Its lease is there, and the broker answers, grants and frees for it in good time.
    #[track_caller]
    pub fn unharmed(&mut self) {
        let begun = boot_now();
        let renewed = self.client.call("session.renew", json!({}));
        assert_eq!(renewed["ending"], Value::Null, "its lease is ending");
        let another = self.client.lease(&["safe"])["lease"].as_u64().unwrap();
        self.client.release(another);
        let took_ms = boot_now().since(begun);
        assert!(took_ms < LATENCY_MS_MAX, "three calls took {took_ms} ms");
        let state = self.client.call("lease.list", json!({}));
        let held: Vec<&Value> = state["claims"].as_array().unwrap().iter().map(|claim| &claim["lease"]).collect();
        assert_eq!(held.len(), 1, "{state}");
        assert_eq!((&held[0]["lease"], &held[0]["state"]), (&self.lease, &json!("active")), "{state}");
    }
}

/// The stable code and the message of a refusal.
#[track_caller]
pub fn refusal(client: &mut Client, method: &str, params: Value) -> (String, String) {
    let shown: String = params.to_string().chars().take(300).collect();
    match client.try_call(method, params) {
        Ok(result) => panic!("{method} {shown} was not refused: {result}"),
        Err(error) => told(&error),
    }
}

/// The stable code and the message of an error, or of a claim that ended at once.
#[track_caller]
pub fn told(error: &Value) -> (String, String) {
    let code = if error["data"].is_null() { &error["code"] } else { &error["data"]["code"] };
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no error: {error}")).to_owned();
    let (code, message) = (text(code), text(&error["message"]));
    assert!(message.len() < 1_000, "{code}: a message of {} bytes", message.len());
    assert!(!message.chars().any(|c| c.is_control()), "{code}: {message:?}");
    (code, message)
}

/// A request id that no other call of this process has.
pub fn next_request() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(1_000);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// A claim that must not be granted or wait: refused, or ended with a refusal.
#[track_caller]
pub fn no_lease(client: &mut Client, params: Value) -> (String, String) {
    let mut params = params;
    if params["request_id"].is_null() {
        params["request_id"] = json!(next_request());
    }
    match client.try_call("lease.acquire", params) {
        Ok(claim) => {
            assert_eq!(claim["state"], "ended", "{claim}");
            told(&claim["end"])
        }
        Err(error) => told(&error),
    }
}
