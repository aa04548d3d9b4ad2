//! Texts that people and terminals read later: bounded, told as they are, and steering nothing.

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB, refusal};
use super::common::broker::Broker;
use super::common::http;

/// What a terminal or a page would take as more than text.
const HOSTILE: &[&str] = &[
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "line\nforged: line\r\nlease 1 released",
    "<script>alert('x')</script>",
    "'; DROP TABLE leases; --",
    "\u{9b}31m\u{202e}txet\u{0}end",
    "%s%n{}{0}",
];

#[track_caller]
fn steers_nothing(what: &str, printed: &str) {
    let steering = |c: &char| c.is_control() && *c != '\n' && *c != '\t';
    assert_eq!(printed.chars().find(steering), None, "{what}: {printed:?}");
    assert!(!printed.lines().any(|line| line.starts_with("forged")), "{what}: {printed}");
}

#[test]
fn notes_tags_and_reasons_are_kept_as_they_are_and_printed_harmlessly() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("<b>tester</b>'--@lab");
    let mut other = broker.session("other@lab");
    let lease = client.acquire_with(json!({
        "request_id": 1, "needs": ["2:phone"], "note": HOSTILE.join(" "),
        "tags": {"job": HOSTILE[0], "commit": HOSTILE[1], "<b>": HOSTILE[2], "\u{1b}[31m": HOSTILE[4]},
    }));
    let number = lease["lease"]["lease"].as_u64().unwrap();
    let waits = other.acquire_with(json!({"request_id": 1, "needs": ["phone"], "note": HOSTILE[1],
        "tags": {"job": HOSTILE[4]}}));
    assert_eq!(waits["state"], "queued", "{waits}");
    let reason = json!({"reason": HOSTILE.join(" ")});
    assert_eq!(broker.http("POST", "/v1/resources/port-1000/drain", Some(&reason)).status, 200);
    assert_eq!(broker.http("POST", "/v1/resources/port-1001/quarantine", Some(&reason)).status, 200);
    // On the wire as it was given.
    let shown = broker.http("GET", &format!("/v1/leases/{number}"), None).json();
    assert_eq!((&shown["note"], &shown["tags"]["commit"]), (&json!(HOSTILE.join(" ")), &json!(HOSTILE[1])), "{shown}");
    // On a terminal nothing but text.
    for line in [
        "lease ls".to_owned(),
        format!("lease show {number}"),
        "queue".to_owned(),
        "resource ls".to_owned(),
        "resource show phone-1".to_owned(),
        "resource show port-1000".to_owned(),
        "resource history phone-1".to_owned(),
        "session ls".to_owned(),
        "events".to_owned(),
        "status".to_owned(),
        format!("why claim:{}", waits["claim"]),
        format!("why lease:{number}"),
        "why resource:port-1000".to_owned(),
        "resource match port".to_owned(),
    ] {
        let output = broker.sh(&line);
        assert_eq!(output.code, Some(0), "{line}: {output:?}");
        steers_nothing(&line, &output.stdout);
        steers_nothing(&line, &output.stderr);
    }
    let forced = json!({"force": true, "reason": HOSTILE.join(" ")});
    assert_eq!(broker.http("POST", &format!("/v1/leases/{number}/revoke"), Some(&forced)).status, 200);
    let ended = client.notice("lease.ended");
    assert!(ended["message"].as_str().unwrap().contains("<script>"), "{ended}");
    let output = broker.sh("resource history phone-1");
    steers_nothing("history", &output.stdout);
    steers_nothing("the broker", &broker.stderr());
    bystander.unharmed();
}

#[test]
fn texts_beyond_their_bounds_are_refused_by_name() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let long = "x".repeat(100_000);
    let many: serde_json::Map<String, Value> = (0..33).map(|n| (format!("t{n}"), json!("x"))).collect();
    for (field, value, names) in [
        ("note", json!(long), "1024"),
        ("tags", json!({"job": long}), "512"),
        ("tags", json!({(long.clone()): "x"}), "512"),
        ("tags", Value::Object(many), "32"),
        ("same", json!(long), "same"),
        ("request_id", json!(long), "request_id"),
    ] {
        let mut params = json!({"request_id": 1, "needs": ["phone"]});
        params[field] = value;
        let (code, message) = refusal(&mut client, "lease.acquire", params);
        assert_eq!(code, "invalid_params", "{message}");
        assert!(message.contains(field) && message.contains(names), "{message}");
    }
    let key = "ab".repeat(32);
    for (headers, names) in [
        (vec![("leasehold-owner", "x".repeat(300)), ("leasehold-key", key.clone())], "owner"),
        (vec![("leasehold-owner", "a\tb".to_owned()), ("leasehold-key", key.clone())], "owner"),
        (vec![("leasehold-key", "short".to_owned())], "leasehold-key"),
        (vec![("leasehold-key", "x".repeat(1_000))], "leasehold-key"),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = json!({"request_id": "one", "needs": ["port"]});
        let answer = http::request(broker.port(), "POST", "/v1/leases", &headers, Some(&body));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_params")), "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(names), "{answer:?}");
    }
    for path in ["/v1/resources/phone-1/drain", "/v1/resources/phone-1/quarantine", "/v1/leases/1/revoke"] {
        let answer = broker.http("POST", path, Some(&json!({"reason": "x".repeat(1_025)})));
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_params")), "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains("reason"), "{answer:?}");
    }
    assert_eq!(client.call("lease.list", json!({}))["claims"], json!([]));
    bystander.unharmed();
}
