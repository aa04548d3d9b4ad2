//! Messages that are none: broken JSON, no requests, unknown methods, parameters of wrong types.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::bystander::{Bystander, LAB, refusal};
use super::common::broker::Broker;
use super::common::wait::PATIENCE;
use super::common::ws::{Client, Heard};

/// The text as it is sent; the id, number and code of the answer; what its message names.
const NO_REQUESTS: &[(&str, Option<u64>, i64, &str, &str)] = &[
    ("", None, -32700, "parse_error", "no JSON"),
    ("hello", None, -32700, "parse_error", "no JSON"),
    ("{", None, -32700, "parse_error", "no JSON"),
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\"", None, -32700, "parse_error", "no JSON"),
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\"}}", None, -32700, "parse_error", "no JSON"),
    ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\",}", None, -32700, "parse_error", "no JSON"),
    ("{'jsonrpc':'2.0'}", None, -32700, "parse_error", "no JSON"),
    ("{\"id\":\"\\ud800\"}", None, -32700, "parse_error", "no JSON"),
    ("null", None, -32600, "invalid_request", "no object"),
    ("7", None, -32600, "invalid_request", "no object"),
    ("\"lease.list\"", None, -32600, "invalid_request", "no object"),
    ("[]", None, -32600, "invalid_request", "batches"),
    ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\"}]", None, -32600, "invalid_request", "batches"),
    ("[1,2,3]", None, -32600, "invalid_request", "batches"),
    ("{}", None, -32600, "invalid_request", "`method` is missing"),
    ("{\"jsonrpc\":\"2.0\",\"id\":11}", Some(11), -32600, "invalid_request", "`method` is missing"),
    ("{\"jsonrpc\":\"2.0\",\"id\":12,\"method\":7}", Some(12), -32600, "invalid_request", "request"),
    ("{\"id\":13,\"method\":\"lease.list\"}", Some(13), -32600, "invalid_request", "`jsonrpc`"),
    ("{\"jsonrpc\":\"1.0\",\"id\":14,\"method\":\"lease.list\"}", Some(14), -32600, "invalid_request", "`jsonrpc`"),
    ("{\"jsonrpc\":2.0,\"id\":15,\"method\":\"lease.list\"}", Some(15), -32600, "invalid_request", "request"),
    ("{\"jsonrpc\":\"2.0\",\"id\":-1,\"method\":\"lease.list\"}", None, -32600, "invalid_request", "`id`"),
    ("{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"lease.list\"}", None, -32600, "invalid_request", "`id`"),
    ("{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"lease.list\"}", None, -32600, "invalid_request", "`id`"),
    ("{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"lease.list\"}", None, -32600, "invalid_request", "`id`"),
    ("{\"jsonrpc\":\"2.0\",\"id\":16,\"method\":\"fly\"}", Some(16), -32601, "unknown_method", "`fly`"),
    ("{\"jsonrpc\":\"2.0\",\"id\":17,\"method\":\"\"}", Some(17), -32601, "unknown_method", "``"),
    ("{\"jsonrpc\":\"2.0\",\"id\":18,\"method\":\"Lease.List\"}", Some(18), -32601, "unknown_method", "lease.list"),
    (
        "{\"jsonrpc\":\"2.0\",\"id\":19,\"method\":\"lease.list\",\"params\":[]}",
        Some(19),
        -32602,
        "invalid_params",
        "`params`",
    ),
    (
        "{\"jsonrpc\":\"2.0\",\"id\":20,\"method\":\"lease.list\",\"params\":7}",
        Some(20),
        -32602,
        "invalid_params",
        "`params`",
    ),
    (
        "{\"jsonrpc\":\"2.0\",\"id\":21,\"method\":\"lease.release\",\"params\":[7]}",
        Some(21),
        -32602,
        "invalid_params",
        "`params`",
    ),
];

#[track_caller]
fn answer_to(client: &mut Client, text: &str) -> Value {
    client.send(Message::text(text)).unwrap();
    match client.hear(PATIENCE) {
        Heard::Json(answer) => answer,
        other => panic!("no answer to {text}: {other:?}"),
    }
}

#[test]
fn what_is_no_request_is_told_so_and_the_connection_goes_on() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    for (text, id, number, code, names) in NO_REQUESTS {
        let answer = answer_to(&mut client, text);
        assert_eq!(answer["jsonrpc"], "2.0", "{text}: {answer}");
        assert_eq!(answer.get("id"), Some(&id.map_or(Value::Null, |id| json!(id))), "{text}: {answer}");
        let error = &answer["error"];
        assert_eq!((&error["code"], &error["data"]["code"]), (&json!(number), &json!(code)), "{text}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(names), "{text}: {answer}");
    }
    client.lease(&["phone"]);
    bystander.unharmed();
}

#[test]
fn what_nests_deeply_or_is_quoted_at_length_is_answered_shortly() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let deep = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\",\"params\":{}", "[".repeat(200_000));
    let deep_field = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lease.list\",\"more\":{}{}}}",
        "{\"a\":".repeat(20_000),
        "1".to_owned() + &"}".repeat(20_000)
    );
    let long_method = json!({"jsonrpc": "2.0", "id": 3, "method": "x".repeat(200_000)}).to_string();
    let long_id = json!({"jsonrpc": "2.0", "id": "x".repeat(200_000), "method": "lease.list"}).to_string();
    let long_value = json!({"jsonrpc": "2.0", "id": 5, "method": "lease.release",
        "params": {"lease": "x".repeat(200_000)}})
    .to_string();
    for (text, code) in [
        (deep, "parse_error"),
        (long_method, "unknown_method"),
        (long_id, "invalid_request"),
        (long_value, "invalid_params"),
    ] {
        let answer = answer_to(&mut client, &text);
        assert_eq!(answer["error"]["data"]["code"], code, "{answer}");
        assert!(answer.to_string().len() < 1_000, "{}", answer.to_string().len());
    }
    assert_eq!(answer_to(&mut client, &deep_field)["result"]["claims"], json!([]), "what is ignored may be deep");
    client.lease(&["phone"]);
    bystander.unharmed();
}

#[test]
fn answers_to_nothing_and_calls_without_an_id_are_not_answered() {
    let broker = Broker::with_inventory(LAB);
    let mut client = broker.session("tester@lab");
    for text in [
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"session.renew\"}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"lease.acquire\",\"params\":{\"request_id\":1,\"needs\":[\"phone\"]}}",
    ] {
        client.send(Message::text(text)).unwrap();
    }
    // The next thing heard is the answer to what was asked next; and what had no id was done.
    let answer = answer_to(&mut client, "{\"jsonrpc\":\"2.0\",\"id\":\"list\",\"method\":\"lease.list\"}");
    assert_eq!(answer["id"], "list");
    assert_eq!(answer["result"]["claims"][0]["state"], "granted", "{answer}");
}

#[test]
fn fields_that_are_not_known_are_ignored_and_null_is_none() {
    let broker = Broker::with_inventory(LAB);
    let mut client = broker.connect();
    client.open_with(json!({"owner": null, "ttl_ms": null, "future": {"deep": [1, {"x": null}]}, "instance": "one"}));
    let claim = client.acquire_with(json!({
        "request_id": 1, "needs": ["phone"], "same": null, "note": null, "priority": null, "wait_ms": null,
        "hold_ms": null, "outer": null, "colour": "blue", "sesion": 9,
    }));
    assert_eq!(claim["state"], "granted");
    let text = json!({"jsonrpc": "2.0", "id": 9, "method": "session.renew", "params": null, "trace": "abc"});
    assert_eq!(answer_to(&mut client, &text.to_string())["error"], Value::Null);
}

/// Method, parameters, and the field that its refusal names.
fn wrong_parameters() -> Vec<(&'static str, Value, &'static str)> {
    let acquire = |field: &str, value: Value| {
        let mut params = json!({"request_id": 900, "needs": ["phone"]});
        params[field] = value;
        ("lease.acquire", params)
    };
    let mut rows = vec![
        ("session.open", json!({}), "instance"),
        ("session.open", json!({"instance": 7}), "instance"),
        ("session.open", json!({"instance": ""}), "instance"),
        ("session.open", json!({"instance": "x".repeat(129)}), "instance"),
        ("session.open", json!({"instance": "a", "owner": 7}), "owner"),
        ("session.open", json!({"instance": "a", "owner": ""}), "owner"),
        ("session.open", json!({"instance": "a", "owner": "a\u{1b}[2Jb"}), "owner"),
        ("session.open", json!({"instance": "a", "owner": "x".repeat(257)}), "owner"),
        ("session.open", json!({"instance": "a", "ttl_ms": "30s"}), "ttl_ms"),
        ("session.open", json!({"instance": "a", "ttl_ms": 1999}), "ttl_ms"),
        ("session.open", json!({"instance": "a", "ttl_ms": 600_001}), "ttl_ms"),
        ("session.open", json!({"instance": "a", "ttl_ms": -1}), "ttl_ms"),
        ("session.open", json!({"instance": "a", "ttl_ms": 2000.5}), "ttl_ms"),
        ("session.open", json!({"instance": "a", "pools": "phone"}), "pools"),
        ("session.open", json!({"instance": "a", "pools": [7]}), "pools"),
        ("session.open", json!({"instance": "a", "pools": ["Not A Pool"]}), "pool name"),
        ("session.open", json!({"instance": "a", "pools": vec!["phone"; 65]}), "64 pools"),
        ("session.open", json!({"instance": "a", "needs": [7]}), "needs"),
        ("session.resume", json!({}), "session"),
        ("session.resume", json!({"session": "7", "secret": "s", "instance": "a"}), "session"),
        ("session.resume", json!({"session": 7, "instance": "a"}), "secret"),
        ("session.resume", json!({"session": 7, "secret": 7, "instance": "a"}), "secret"),
        ("session.resume", json!({"session": 7, "secret": "s", "instance": {}}), "instance"),
        ("session.resume", json!({"session": 7, "secret": "s", "instance": "a", "renewal": "x"}), "renewal"),
        ("session.renew", json!({"renewal": "x"}), "renewal"),
        ("session.renew", json!({"renewal": -1}), "renewal"),
        ("session.close", json!({"session": "x"}), "session"),
        ("session.close", json!({"session": 1}), "secret"),
        ("session.close", json!({"secret": "x"}), "session"),
        ("lease.cancel", json!({}), "request_id"),
        ("lease.cancel", json!({"request_id": "1"}), "request_id"),
        ("lease.cancel", json!({"request_id": 0}), "request_id"),
        ("lease.release", json!({}), "lease"),
        ("lease.release", json!({"lease": "7"}), "lease"),
        ("lease.release", json!({"lease": null}), "lease"),
        ("lease.release", json!({"lease": 7, "outcome": 7}), "outcome"),
        ("lease.release", json!({"lease": 7, "outcome": "great"}), "outcome"),
        ("lease.extend", json!({"until": 5}), "lease"),
        ("lease.extend", json!({"lease": 7}), "until"),
        ("lease.extend", json!({"lease": 7, "until": "noon"}), "until"),
        ("lease.extend", json!({"lease": 7, "until": -5}), "until"),
        ("lease.extend", json!({"lease": 7, "until": u64::MAX}), "until"),
        ("lease.acquire", json!({"needs": ["phone"]}), "request_id"),
        ("lease.acquire", json!({"request_id": 900}), "need"),
    ];
    for (field, value, named) in [
        ("request_id", json!("one"), "request_id"),
        ("request_id", json!(0), "request_id"),
        ("request_id", json!(-1), "request_id"),
        ("request_id", json!(1.5), "request_id"),
        ("request_id", json!(1_u64 << 53), "request_id"),
        ("request_id", json!([1]), "request_id"),
        ("needs", json!("phone"), "needs"),
        ("needs", json!([7]), "needs"),
        ("needs", json!([["phone"]]), "needs"),
        ("needs", json!([]), "need"),
        ("same", json!(7), "same"),
        ("same", json!("Not A Label"), "same"),
        ("distinct", json!(["a"]), "distinct"),
        ("priority", json!("high"), "priority"),
        ("priority", json!(11), "priority"),
        ("priority", json!(-11), "priority"),
        ("priority", json!(1000), "priority"),
        ("wait_ms", json!("10m"), "wait_ms"),
        ("wait_ms", json!(-1), "wait_ms"),
        ("wait_ms", json!(1_000_000_000_000_000_u64), "wait_ms"),
        ("hold_ms", json!(0), "hold_ms"),
        ("hold_ms", json!(true), "hold_ms"),
        ("hold_ms", json!(u64::MAX), "hold_ms"),
        ("note", json!(7), "note"),
        ("note", json!("x".repeat(1_025)), "note"),
        ("tags", json!(["a"]), "tags"),
        ("tags", json!({"job": 7}), "tags"),
        ("fail_fast", json!("yes"), "fail_fast"),
        ("wait_for_inventory", json!(1), "wait_for_inventory"),
        ("outer", json!("31"), "outer"),
    ] {
        let (method, params) = acquire(field, value);
        rows.push((method, params, named));
    }
    rows
}

#[test]
fn every_parameter_of_a_wrong_type_or_range_is_named() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    for (method, params, field) in wrong_parameters() {
        let shown = format!("{method} {}", params.to_string().chars().take(200).collect::<String>());
        let (code, message) = refusal(&mut client, method, params);
        assert_eq!(code, "invalid_params", "{shown}: {message}");
        assert!(message.contains(field), "{shown}: {message}");
    }
    // Nothing of all that was done.
    assert_eq!(client.call("lease.list", json!({}))["claims"], json!([]));
    client.lease(&["phone"]);
    bystander.unharmed();
}
