//! Every route under a wrong method, an unknown name, a bad body or query: a problem with a code.

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB};
use super::common::broker::Broker;
use super::common::http::{self, Answer};

/// Path, the methods it has.
const ROUTES: &[(&str, &[&str])] = &[
    ("/healthz", &["GET"]),
    ("/readyz", &["GET"]),
    ("/metrics", &["GET"]),
    ("/v1/status", &["GET"]),
    ("/v1/resources", &["GET"]),
    ("/v1/resources/phone-1", &["GET", "PUT", "DELETE"]),
    ("/v1/resources/phone-1/history", &["GET"]),
    ("/v1/resources/phone-1/drain", &["POST"]),
    ("/v1/inventory/apply", &["POST"]),
    ("/v1/match", &["POST"]),
    ("/v1/leases", &["GET", "POST"]),
    ("/v1/leases/1", &["GET"]),
    ("/v1/leases/1/renew", &["POST"]),
    ("/v1/leases/1/extend", &["POST"]),
    ("/v1/leases/1/release", &["POST"]),
    ("/v1/leases/1/revoke", &["POST"]),
    ("/v1/queue", &["GET"]),
    ("/v1/claims/1", &["GET"]),
    ("/v1/claims/1/cancel", &["POST"]),
    ("/v1/sessions", &["GET"]),
    ("/v1/sessions/1/kick", &["POST"]),
    ("/v1/why/lease/1", &["GET"]),
    ("/v1/journal", &["GET"]),
    ("/v1/events", &["GET"]),
];

#[track_caller]
fn problem(what: &str, answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status, status, "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}: {answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{what}: {answer:?}");
    assert_eq!(problem["type"], format!("urn:leasehold:{code}"), "{what}");
    assert!(problem["title"].is_string(), "{what}: {answer:?}");
    let detail = problem["detail"].as_str().unwrap_or_default();
    assert!(detail.len() > 5 && detail.len() < 1_000, "{what}: {answer:?}");
    detail.to_owned()
}

#[test]
fn a_wrong_method_is_a_problem_on_every_route() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    for (path, methods) in ROUTES {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
            if methods.contains(&method) {
                continue;
            }
            let what = format!("{method} {path}");
            let answer = broker.http(method, path, None);
            // A path that is one of several kinds by its last word may have no such word.
            let detail = problem(&what, &answer, 405, "method_not_allowed");
            assert!(detail.contains(method), "{what}: {detail}");
            let allowed = answer.header("allow").unwrap_or_default();
            assert!(methods.iter().all(|method| allowed.contains(method)), "{what}: allows {allowed}");
        }
    }
    bystander.unharmed();
}

#[test]
fn what_there_is_not_is_a_problem_that_names_it() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let key = "ab".repeat(32);
    let keyed = [("leasehold-key", key.as_str())];
    for (method, path, status, code, names) in [
        ("GET", "/", 404, "not_found", "/"),
        ("GET", "/v1", 404, "not_found", "/v1"),
        ("GET", "/v2/leases", 404, "not_found", "/v2/leases"),
        ("GET", "/v1/resources/", 404, "not_found", "/v1/resources/"),
        ("GET", "/v1/../etc/passwd", 404, "not_found", "passwd"),
        ("GET", "/v1/resources/nobody", 404, "not_found", "nobody"),
        ("GET", "/v1/resources/a%20b", 400, "invalid_params", "a b"),
        ("GET", "/v1/resources/%00", 400, "invalid_params", "resource name"),
        ("GET", "/v1/resources/%FF", 400, "invalid_params", "path"),
        ("GET", "/v1/resources/%1b%5b2J", 400, "invalid_params", "resource name"),
        ("DELETE", "/v1/resources/nobody", 404, "not_found", "nobody"),
        ("POST", "/v1/resources/nobody/drain", 404, "not_found", "nobody"),
        ("POST", "/v1/resources/phone-1/explode", 404, "not_found", "explode"),
        ("GET", "/v1/leases/999", 404, "not_found", "999"),
        ("GET", "/v1/leases/one", 400, "invalid_params", "one"),
        ("GET", "/v1/leases/-1", 400, "invalid_params", "-1"),
        ("GET", "/v1/leases/%FF", 400, "invalid_params", "path"),
        ("GET", "/v1/leases/99999999999999999999999", 400, "invalid_params", "lease"),
        ("GET", "/v1/leases/18446744073709551615", 404, "not_found", "lease"),
        ("POST", "/v1/leases/999/release", 404, "not_found", "999"),
        ("POST", "/v1/leases/999/revoke", 404, "not_found", "999"),
        ("POST", "/v1/leases/999/renew", 404, "not_found", "key"),
        ("POST", "/v1/leases/18446744073709551615/release", 404, "not_found", "lease"),
        ("GET", "/v1/claims/999", 404, "not_found", "key"),
        ("GET", "/v1/claims/x", 400, "invalid_params", "claim"),
        ("POST", "/v1/claims/999/cancel", 404, "not_found", "999"),
        ("POST", "/v1/sessions/999/kick", 404, "not_found", "999"),
        ("POST", "/v1/sessions/x/kick", 400, "invalid_params", "session"),
        ("GET", "/v1/why/lease/999", 404, "not_found", "999"),
        ("GET", "/v1/why/claim/999", 404, "not_found", "999"),
        ("GET", "/v1/why/resource/nobody", 404, "not_found", "nobody"),
        ("GET", "/v1/why/weather/1", 404, "not_found", "weather"),
        ("GET", "/v1/journal?resource=nobody", 404, "not_found", "nobody"),
        ("GET", "/v1/journal?after=x", 400, "invalid_params", "query"),
        ("GET", "/v1/journal?cursor=x", 400, "invalid_params", "cursor"),
        ("GET", "/v1/journal?limit=-1", 400, "invalid_params", "query"),
        ("GET", "/v1/leases?all=maybe", 400, "invalid_params", "query"),
        ("GET", "/v1/leases?cursor=x", 400, "invalid_params", "cursor"),
        ("GET", "/v1/leases?all=true&cursor=x", 400, "invalid_params", "cursor"),
        ("GET", "/v1/sessions?cursor=x", 400, "invalid_params", "cursor"),
        ("GET", "/v1/resources?limit=x", 400, "invalid_params", "query"),
        ("GET", "/v1/queue?limit=x", 400, "invalid_params", "query"),
        ("GET", "/v1/events?after=x", 400, "invalid_params", "query"),
    ] {
        let what = format!("{method} {path}");
        let detail = problem(&what, &http::request(broker.port(), method, path, &keyed, None), status, code);
        assert!(detail.contains(names), "{what}: {detail}");
        assert!(!detail.contains(|c: char| c.is_control()), "{what}: {detail:?}");
    }
    let bad_id = http::request(broker.port(), "GET", "/v1/events", &[("last-event-id", "x")], None);
    assert!(problem("events", &bad_id, 400, "invalid_params").contains("Last-Event-ID"));
    let past_the_end = broker.http("GET", "/v1/queue?cursor=zzz&limit=100000", None);
    assert!([200, 400].contains(&past_the_end.status), "{past_the_end:?}");
    bystander.unharmed();
}

fn posted(broker: &Broker, method: &str, path: &str, body: &str) -> Answer {
    let key = "ab".repeat(32);
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nLeasehold-Key: {key}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    http::raw(broker.port(), text.as_bytes())
}

#[test]
fn a_bad_body_is_a_problem_on_every_route_that_takes_one() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let routes = [
        ("PUT", "/v1/resources/new-1"),
        ("POST", "/v1/resources/phone-1/drain"),
        ("POST", "/v1/inventory/apply"),
        ("POST", "/v1/match"),
        ("POST", "/v1/leases"),
        ("POST", "/v1/leases/1/extend"),
        ("POST", "/v1/leases/1/release"),
        ("POST", "/v1/leases/1/revoke"),
    ];
    for (method, path) in routes {
        for (body, code) in [
            ("{", "parse_error"),
            ("{\"a\":}", "parse_error"),
            ("{} {}", "parse_error"),
            ("[]", "invalid_request"),
            ("7", "invalid_request"),
            ("null", "invalid_request"),
            ("hello", "invalid_request"),
        ] {
            let what = format!("{method} {path} {body}");
            problem(&what, &posted(&broker, method, path, body), 400, code);
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        problem(path, &posted(&broker, method, path, &deep), 400, "parse_error");
        let key = "ab".repeat(32);
        let mut not_utf8 = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nLeasehold-Key: {key}\r\n\
             Content-Length: 3\r\n\r\n"
        )
        .into_bytes();
        not_utf8.extend(b"\"\xff\"");
        problem(path, &http::raw(broker.port(), &not_utf8), 400, "invalid_request");
    }
    for (method, path, body, code, names) in [
        ("PUT", "/v1/resources/new-1", json!({}), "invalid_params", "pool"),
        ("PUT", "/v1/resources/new-1", json!({"pool": 7}), "invalid_params", "pool"),
        ("PUT", "/v1/resources/new-1", json!({"pool": "Not A Pool"}), "invalid_params", "pool name"),
        ("PUT", "/v1/resources/new-1", json!({"pool": "p", "slots": 0}), "invalid_inventory", "slots"),
        ("PUT", "/v1/resources/new-1", json!({"pool": "p", "slots": -1}), "invalid_params", "slots"),
        ("PUT", "/v1/resources/new-1", json!({"pool": "p", "labels": {"Bad Key": 1}}), "invalid_params", "Bad Key"),
        ("PUT", "/v1/resources/new-1", json!({"pool": "p", "labels": {"a": [1]}}), "invalid_params", "`a`"),
        ("PUT", "/v1/resources/new-1", json!({"pool": "p", "labels": {"name": "x"}}), "invalid_inventory", "name"),
        (
            "PUT",
            "/v1/resources/new-1",
            json!({"pool": "p", "labels": {"a": "x".repeat(5_000)}}),
            "invalid_inventory",
            "4096",
        ),
        ("PUT", "/v1/resources/new-1", json!({"pool": "p", "properties": {"slots": 1}}), "invalid_inventory", "slots"),
        (
            "PUT",
            "/v1/resources/new-1",
            json!({"pool": "p", "secrets": {"pin": "1234"}}),
            "not_in_this_version",
            "secrets",
        ),
        ("PUT", "/v1/resources/new%201", json!({"pool": "p"}), "invalid_params", "new 1"),
        ("POST", "/v1/match", json!({}), "invalid_params", "need"),
        ("POST", "/v1/match", json!({"need": 7}), "invalid_params", "need"),
        ("POST", "/v1/match", json!({"need": "Phone"}), "invalid_need", "Phone"),
        ("POST", "/v1/inventory/apply", json!({}), "invalid_params", "text"),
        ("POST", "/v1/inventory/apply", json!({"text": 7}), "invalid_params", "text"),
        ("POST", "/v1/leases", json!({"needs": ["port"]}), "invalid_params", "request_id"),
        (
            "POST",
            "/v1/leases",
            json!({"request_id": "x".repeat(129), "needs": ["port"]}),
            "invalid_params",
            "request_id",
        ),
        ("POST", "/v1/leases", json!({"request_id": "a", "needs": []}), "invalid_params", "need"),
        ("POST", "/v1/leases", json!({"request_id": "a", "needs": ["port"], "ttl_ms": 1}), "invalid_params", "ttl_ms"),
        ("POST", "/v1/leases", json!({"request_id": "a", "needs": vec!["port"; 17]}), "too_many_needs", "17"),
        ("POST", "/v1/leases", json!({"request_id": "a", "needs": ["257:port"]}), "invalid_need", "256"),
        ("POST", "/v1/leases", json!({"request_id": "a", "needs": ["port"], "owner": ""}), "invalid_params", "owner"),
        ("POST", "/v1/leases/1/extend", json!({}), "invalid_params", "until"),
        ("POST", "/v1/leases/1/extend", json!({"until": "noon"}), "invalid_params", "until"),
        ("POST", "/v1/leases/1/release", json!({"outcome": "great"}), "invalid_params", "outcome"),
        ("POST", "/v1/leases/1/revoke", json!({"force": "yes"}), "invalid_params", "force"),
        ("POST", "/v1/resources/phone-1/drain", json!({"reason": 7}), "invalid_params", "reason"),
    ] {
        let shown: String = body.to_string().chars().take(120).collect();
        let what = format!("{method} {path} {shown}");
        let detail = problem(&what, &posted(&broker, method, path, &body.to_string()), 400, code);
        assert!(detail.contains(names), "{what}: {detail}");
    }
    let without_key = broker.http("POST", "/v1/leases", Some(&json!({"request_id": "a", "needs": ["port"]})));
    assert!(problem("no key", &without_key, 403, "forbidden").contains("leasehold-key"));
    let state = broker.http("GET", "/v1/resources/phone-1", None).json();
    assert_eq!(state["drained"], Value::Null, "{state}");
    bystander.unharmed();
}

#[test]
fn what_is_asked_in_the_wrong_state_is_a_problem() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let file_owned = broker.http("PUT", "/v1/resources/phone-1", Some(&json!({"pool": "phone"})));
    assert!(problem("a file's resource", &file_owned, 409, "name_taken").contains("phone-1"));
    let removed = broker.http("DELETE", "/v1/resources/phone-1", None);
    assert!(problem("a file's resource", &removed, 409, "name_taken").contains("phone-1"));
    let mut client = broker.session("tester@lab");
    let lease = client.lease(&["phone"])["lease"].as_u64().unwrap();
    let renewed = http::request(
        broker.port(),
        "POST",
        &format!("/v1/leases/{lease}/renew"),
        &[("leasehold-key", client.opened["secret"].as_str().unwrap())],
        None,
    );
    assert!(problem("a socket's lease", &renewed, 403, "forbidden").contains("session.renew"));
    client.release(lease);
    let extended = broker.http("POST", &format!("/v1/leases/{lease}/extend"), Some(&json!({"until": 5})));
    assert!(problem("an ended lease", &extended, 410, "lease_ended").contains("released"));
    let released = broker.http("POST", &format!("/v1/leases/{lease}/release"), None);
    assert_eq!((released.status, &released.json()["why"]), (200, &json!("released")), "asking twice is asking once");
    bystander.unharmed();
}
