//! Leases without a socket, end to end, as a shell script would have them.

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB};
use super::common::broker::Broker;
use super::common::http::{self, Answer};
use super::common::wait::{eventually, until};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

fn asked(broker: &Broker, key: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
    http::request(broker.port(), method, path, &[("leasehold-key", key), ("leasehold-owner", "script@lab")], body)
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{answer:?}");
}

#[test]
fn a_lease_is_made_kept_extended_and_released_under_its_key() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let body = json!({"request_id": "build-7", "needs": ["2:phone"], "hold_ms": 600_000, "note": "nightly"});
    let made = asked(&broker, KEY, "POST", "/v1/leases", Some(&body));
    assert_eq!(made.status, 201, "{made:?}");
    let lease = made.json();
    let number = lease["lease"].as_u64().unwrap();
    assert_eq!(lease["resources"]["phone"].as_array().unwrap().len(), 2);
    assert!(lease["fence"].as_u64().unwrap() > 0 && lease["now"].is_u64(), "{lease}");
    // A repeat is the same lease; another body or id under the key is none.
    let again = asked(&broker, KEY, "POST", "/v1/leases", Some(&body));
    assert_eq!((again.status, again.json()["lease"].as_u64()), (201, Some(number)), "{again:?}");
    for (field, value) in [("needs", json!(["phone"])), ("note", json!("other")), ("request_id", json!("build-8"))] {
        let mut other = body.clone();
        other[field] = value;
        refused(&asked(&broker, KEY, "POST", "/v1/leases", Some(&other)), 409, "request_id_reused");
    }
    let path = |act: &str| format!("/v1/leases/{number}/{act}");
    let renewed = asked(&broker, KEY, "POST", &path("renew"), None);
    assert_eq!((renewed.status, &renewed.json()["promise_ms"]), (200, &json!(180_000)), "{renewed:?}");
    let until = lease["until"].as_u64().unwrap() + 60_000;
    let extended = asked(&broker, KEY, "POST", &path("extend"), Some(&json!({"until": until})));
    assert_eq!((extended.status, extended.json()["until"].as_u64()), (200, Some(until)), "{extended:?}");
    let too_far = json!({"until": until + 100_000_000});
    refused(&asked(&broker, KEY, "POST", &path("extend"), Some(&too_far)), 422, "hold_too_long");
    // Nobody else can.
    refused(&asked(&broker, OTHER, "POST", &path("renew"), None), 403, "forbidden");
    let stranger = [("leasehold-key", OTHER), ("leasehold-owner", "stranger@lab")];
    for act in ["extend", "release"] {
        let answer = http::request(broker.port(), "POST", &path(act), &stranger, Some(&json!({"until": until})));
        refused(&answer, 403, "forbidden");
    }
    refused(&http::request(broker.port(), "POST", &path("renew"), &[], None), 403, "forbidden");
    refused(&asked(&broker, OTHER, "GET", &format!("/v1/claims/{}", lease["claim"]), None), 404, "not_found");
    let released = asked(&broker, KEY, "POST", &path("release"), Some(&json!({"outcome": "passed"})));
    assert_eq!((released.status, &released.json()["why"]), (200, &json!("released")), "{released:?}");
    let twice = asked(&broker, KEY, "POST", &path("release"), None);
    assert_eq!((twice.status, &twice.json()["why"]), (200, &json!("released")), "{twice:?}");
    refused(&asked(&broker, KEY, "POST", &path("renew"), None), 410, "lease_ended");
    let after = asked(&broker, KEY, "POST", "/v1/leases", Some(&body));
    refused(&after, 410, "released");
    bystander.unharmed();
}

#[test]
fn one_that_waits_is_asked_for_where_its_location_says() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("holder@lab");
    let held = holder.lease(&["2:phone"])["lease"].as_u64().unwrap();
    let body = json!({"request_id": "one", "needs": ["phone"], "ttl_ms": 6_000});
    let waits = asked(&broker, KEY, "POST", "/v1/leases?wait_ms=0", Some(&body));
    assert_eq!(waits.status, 202, "{waits:?}");
    let place = waits.header("location").unwrap().to_owned();
    let claim = waits.json();
    assert_eq!((&claim["state"], &claim["place"]), (&json!("queued"), &json!(1)), "{claim}");
    assert_eq!(place, format!("/v1/claims/{}", claim["claim"]));
    let again = asked(&broker, KEY, "POST", "/v1/leases?wait_ms=0", Some(&body));
    assert_eq!((again.status, &again.json()["claim"]), (202, &claim["claim"]), "{again:?}");
    // Without limit it answers within a third of the ttl, granted or not.
    let waited = asked(&broker, KEY, "GET", &place, None);
    assert_eq!((waited.status, &waited.json()["state"]), (200, &json!("queued")), "{waited:?}");
    // A long poll is answered by the grant.
    let port = broker.port();
    let polled = place.clone();
    let poll = std::thread::spawn(move || {
        eventually("the claim is granted", || {
            let answer = http::request(port, "GET", &polled, &[("leasehold-key", KEY)], None);
            (answer.json()["state"] == "granted").then(|| answer.json())
        })
    });
    holder.release(held);
    let granted = poll.join().unwrap();
    let number = granted["lease"]["lease"].as_u64().unwrap();
    let made = asked(&broker, KEY, "POST", "/v1/leases", Some(&body));
    assert_eq!((made.status, made.json()["lease"].as_u64()), (201, Some(number)), "{made:?}");
    // Without renewals it is over after its ttl.
    until("the lease expired", || broker.http("GET", &format!("/v1/leases/{number}"), None).json()["state"] == "ended");
    let shown = broker.http("GET", &format!("/v1/leases/{number}"), None).json();
    assert_eq!(shown["ended"]["why"], "session_expired", "{shown}");
    let late = asked(&broker, KEY, "POST", &format!("/v1/leases/{number}/renew"), None);
    refused(&late, 410, "lease_ended");
    holder.lease(&["2:phone"]);
}

#[test]
fn what_cannot_be_is_a_problem_and_a_cancelled_claim_is_over() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("holder@lab");
    holder.lease(&["2:phone"]);
    for (key, needs, extra, status, code) in [
        ("a", json!(["nosuchpool"]), json!({}), 422, "impossible"),
        ("b", json!(["3:phone"]), json!({}), 422, "impossible"),
        ("c", json!(["phone"]), json!({"hold_ms": 100_000_000}), 422, "hold_too_long"),
        ("d", json!(["phone"]), json!({"wait_ms": 0}), 409, "timed_out"),
        ("e", json!(["phone where ((("]), json!({}), 400, "invalid_need"),
    ] {
        let mut body = json!({"request_id": "one", "needs": needs});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let key = key.repeat(64);
        let answer = asked(&broker, &key, "POST", "/v1/leases", Some(&body));
        refused(&answer, status, code);
        refused(&asked(&broker, &key, "POST", "/v1/leases", Some(&body)), status, code);
    }
    let body = json!({"request_id": "one", "needs": ["phone"]});
    let waits = asked(&broker, KEY, "POST", "/v1/leases?wait_ms=0", Some(&body)).json();
    let cancel = format!("/v1/claims/{}/cancel", waits["claim"]);
    assert_eq!(asked(&broker, KEY, "POST", &cancel, None).status, 200);
    refused(&asked(&broker, KEY, "POST", "/v1/leases", Some(&body)), 409, "cancelled");
    assert_eq!(broker.http("GET", "/v1/queue", None).json()["items"], json!([]));
}

#[test]
fn one_outlives_a_kill_of_the_broker() {
    let mut broker = Broker::with_inventory(LAB);
    let body = json!({"request_id": "one", "needs": ["phone"]});
    let made = asked(&broker, KEY, "POST", "/v1/leases", Some(&body)).json();
    broker.restart();
    let again = asked(&broker, KEY, "POST", "/v1/leases", Some(&body));
    assert_eq!((again.status, &again.json()["fence"]), (201, &made["fence"]), "{again:?}");
    let renewed = asked(&broker, KEY, "POST", &format!("/v1/leases/{}/renew", made["lease"]), None);
    assert_eq!(renewed.status, 200, "{renewed:?}");
}
