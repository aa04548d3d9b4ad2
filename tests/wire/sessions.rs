//! Sessions, leases and requests of others: what is not yours you cannot touch, and what you ask
//! twice is asked once.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB, no_lease, refusal, told};
use super::common::broker::Broker;
use super::common::wait::PATIENCE;
use super::common::ws::{Client, Heard};

#[test]
fn nothing_is_done_before_a_session_and_a_socket_has_one() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.connect();
    for (method, params) in [
        ("session.renew", json!({})),
        ("session.close", json!({})),
        ("lease.list", json!({})),
        ("lease.acquire", json!({"request_id": 1, "needs": ["phone"]})),
        ("lease.cancel", json!({"request_id": 1})),
        ("lease.release", json!({"lease": 1})),
        ("lease.extend", json!({"lease": 1, "until": 1})),
    ] {
        let (code, message) = refusal(&mut client, method, params);
        assert_eq!(code, "no_session", "{method}");
        assert!(message.contains("session.open"), "{method}: {message}");
    }
    client.open_with(json!({"instance": "the client's", "owner": "tester@lab"}));
    let session = client.session();
    let lease = client.lease(&["phone"]);
    let again = json!({"instance": "another"});
    let mut other = broker.connect();
    other.open_with(json!({"instance": "other"}));
    let resume = json!({"session": other.session(), "secret": other.opened["secret"], "instance": "other"});
    for (method, params) in [("session.open", again), ("session.resume", resume)] {
        let (code, message) = refusal(&mut client, method, params);
        assert_eq!(code, "session_already_open", "{method}");
        assert!(message.contains(&format!("session {session}")), "{message}");
    }
    let close = json!({"session": other.session(), "secret": other.opened["secret"]});
    assert_eq!(refusal(&mut client, "session.close", close).0, "session_already_open");
    other.call("session.renew", json!({}));
    // Its own it may resume where it is: an answer may have been lost.
    let own = json!({"session": session, "secret": client.opened["secret"], "instance": "the client's"});
    assert_eq!(client.call("session.resume", own)["state"]["claims"][0]["lease"]["lease"], lease["lease"]);
    assert_eq!(client.call("lease.list", json!({}))["claims"][0]["lease"]["lease"], lease["lease"]);
    bystander.unharmed();
}

#[test]
fn only_its_secret_and_its_process_resume_a_session() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut owner = broker.connect();
    owner.open_with(json!({"instance": "the owner's", "owner": "tester@lab"}));
    let lease = owner.lease(&["phone"]);
    let (session, secret) = (owner.session(), owner.opened["secret"].as_str().unwrap().to_owned());
    let hash_like = "0".repeat(64);
    for (params, code) in [
        (json!({"session": session, "secret": "", "instance": "the owner's"}), "session_gone"),
        (json!({"session": session, "secret": hash_like, "instance": "the owner's"}), "session_gone"),
        (json!({"session": session, "secret": secret.to_uppercase() + "0", "instance": "the owner's"}), "session_gone"),
        (json!({"session": session + 1000, "secret": secret, "instance": "the owner's"}), "session_gone"),
        (json!({"session": 0, "secret": secret, "instance": "the owner's"}), "session_gone"),
        (json!({"session": session, "secret": secret, "instance": "a thief's"}), "wrong_instance"),
    ] {
        let mut thief = broker.connect();
        let number = params["session"].to_string();
        let (got, message) = refusal(&mut thief, "session.resume", params);
        assert_eq!(got, code, "{message}");
        assert!(!message.contains(&secret), "{message}");
        assert!(code == "wrong_instance" || message.contains(&number), "{message}");
        let (got, _) = refusal(&mut thief, "session.close", json!({"session": session, "secret": "guessed"}));
        assert_eq!(got, "session_gone");
    }
    // Its owner never noticed.
    owner.call("session.renew", json!({}));
    assert_eq!(owner.call("lease.list", json!({}))["claims"][0]["lease"]["lease"], lease["lease"]);
    // Another process that knows the secret may close it: what a guard does.
    let mut guard = broker.connect();
    guard.call("session.close", json!({"session": session, "secret": secret}));
    assert_eq!(owner.closed().0, 4003);
    let mut late = broker.connect();
    let stale = json!({"session": session, "secret": secret, "instance": "the owner's"});
    assert_eq!(refusal(&mut late, "session.resume", stale).0, "session_gone");
    late.open("tester@lab");
    assert_eq!(late.acquire(&["2:phone"])["state"], "granted");
    bystander.unharmed();
}

#[test]
fn a_session_that_expired_is_gone() {
    let broker = Broker::with_inventory(LAB);
    let mut waiter = broker.session("waiter@lab");
    let mut client = broker.connect();
    client.open_with(json!({"instance": "one", "ttl_ms": 2_000}));
    client.lease(&["2:phone"]);
    let stale = json!({"session": client.session(), "secret": client.opened["secret"], "instance": "one"});
    assert_eq!(waiter.acquire(&["phone"])["state"], "queued");
    client.drop_connection();
    // Granted only because the session expired.
    waiter.notice("lease.granted");
    let mut late = broker.connect();
    let (code, message) = refusal(&mut late, "session.resume", stale);
    assert_eq!(code, "session_gone");
    assert!(message.contains("open a new one"), "{message}");
}

#[test]
fn a_superseded_socket_has_no_effect_any_more() {
    let broker = Broker::with_inventory(LAB);
    let mut old = broker.connect();
    old.open_with(json!({"instance": "one"}));
    let lease = old.lease(&["phone"]);
    let mut new = broker.connect();
    let resume = json!({"session": old.session(), "secret": old.opened["secret"], "instance": "one"});
    let resumed = new.call("session.resume", resume);
    assert_eq!(resumed["state"]["claims"][0]["lease"]["lease"], lease["lease"]);
    // May fail, as the broker closes it.
    let _ = old.write_raw(&super::common::ws::call_frame(9, "lease.release", &json!({"lease": lease["lease"]})));
    let (code, reason) = old.closed();
    assert_eq!(code, 4000);
    assert!(reason.starts_with("superseded: "), "{reason}");
    assert_eq!(new.call("lease.list", json!({}))["claims"][0]["lease"]["state"], "active");
}

#[test]
fn what_is_somebody_elses_is_forbidden_by_name() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut owner = broker.session("owner@lab");
    let lease = owner.lease(&["2:phone"])["lease"].as_u64().unwrap();
    let mut waiting = broker.session("waiting@lab");
    let claim = waiting.acquire(&["phone"])["claim"].as_u64().unwrap();
    let mut thief = broker.session("thief@lab");
    for (method, params) in
        [("lease.release", json!({"lease": lease})), ("lease.extend", json!({"lease": lease, "until": 10_000_000}))]
    {
        let (code, message) = refusal(&mut thief, method, params);
        assert_eq!(code, "forbidden", "{method}: {message}");
        assert!(message.contains(&format!("lease {lease}")), "{method}: {message}");
    }
    let (code, message) = refusal(&mut thief, "lease.release", json!({"lease": 999_999}));
    assert_eq!(code, "not_found");
    assert!(message.contains("lease 999999"), "{message}");
    let (code, _) = refusal(&mut thief, "lease.extend", json!({"lease": 999_999, "until": 10_000_000}));
    assert_eq!(code, "not_found");
    // A request id is the session's own: cancelling another's number is cancelling nothing.
    thief.call("lease.cancel", json!({"request_id": 1}));
    for headers in [&[][..], &[("leasehold-owner", "thief@lab")], &[("leasehold-key", &"0".repeat(64)[..])]] {
        for act in ["release", "extend"] {
            let body = json!({"until": 10_000_000});
            let path = format!("/v1/leases/{lease}/{act}");
            let answer = super::common::http::request(broker.port(), "POST", &path, headers, Some(&body));
            assert_eq!((answer.status, &answer.json()["code"]), (403, &json!("forbidden")), "{act}: {answer:?}");
        }
    }
    assert_eq!(owner.call("lease.list", json!({}))["claims"][0]["lease"]["state"], "active");
    let state = waiting.call("lease.list", json!({}));
    assert_eq!((&state["claims"][0]["claim"], &state["claims"][0]["state"]), (&json!(claim), &json!("queued")));
    bystander.unharmed();
}

#[test]
fn a_request_asked_twice_is_asked_once() {
    let broker = Broker::with_inventory(LAB);
    let mut client = broker.session("tester@lab");
    let body = json!({"request_id": 5, "needs": ["2:phone"], "note": "first"});
    let first = client.acquire_with(body.clone());
    for _ in 0..3 {
        let again = client.acquire_with(body.clone());
        assert_eq!((&again["claim"], &again["lease"]["lease"]), (&first["claim"], &first["lease"]["lease"]));
    }
    for (field, value) in [("needs", json!(["phone"])), ("note", json!("second")), ("priority", json!(1))] {
        let mut other = body.clone();
        other[field] = value;
        let (code, message) = refusal(&mut client, "lease.acquire", other);
        assert_eq!(code, "request_id_reused");
        assert!(message.contains("request_id 5"), "{message}");
    }
    let queued = json!({"request_id": 6, "needs": ["phone"]});
    let waits = client.acquire_with(queued.clone());
    assert_eq!(waits["state"], "queued");
    assert_eq!(client.acquire_with(queued.clone())["claim"], waits["claim"]);
    assert_eq!(client.call("lease.cancel", json!({"request_id": 6}))["state"], "ended");
    assert_eq!(client.acquire_with(queued)["end"]["code"], "cancelled");
    assert_eq!(client.call("lease.cancel", json!({"request_id": 5}))["state"], "granted", "what is granted stays");
    client.release(first["lease"]["lease"].as_u64().unwrap());
    let after = client.acquire_with(body);
    assert_eq!((&after["state"], &after["end"]["code"]), (&json!("ended"), &json!("released")));
    // A cancel that comes first wins.
    assert_eq!(client.call("lease.cancel", json!({"request_id": 7}))["state"], "ended");
    let (code, _) = no_lease(&mut client, json!({"request_id": 7, "needs": ["phone"]}));
    assert_eq!(code, "cancelled");
    assert_eq!(broker.http("GET", "/v1/leases", None).json()["items"], json!([]));
}

/// Calls many, a few hundred at a time, and answers each result or error, in order.
fn call_many(client: &mut Client, calls: impl Iterator<Item = (&'static str, Value)>) -> Vec<Result<Value, Value>> {
    let mut calls = calls.peekable();
    let (mut asked, mut answers) = (VecDeque::new(), Vec::new());
    while calls.peek().is_some() || !asked.is_empty() {
        while asked.len() < 200
            && let Some((method, params)) = calls.next()
        {
            asked.push_back(client.ask(method, params));
        }
        match client.hear(PATIENCE) {
            Heard::Json(mut answer) if asked.front().is_some_and(|id| answer["id"] == json!(id)) => {
                asked.pop_front();
                let error = answer["error"].take();
                answers.push(if error.is_null() { Ok(answer["result"].take()) } else { Err(error) });
            }
            Heard::Json(other) => assert_eq!(other.get("id"), None, "out of order: {other}"),
            other => panic!("no answer: {other:?}"),
        }
    }
    answers
}

#[test]
fn a_number_that_is_forgotten_never_makes_a_claim() {
    let broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let cancels = (1..=11_100).map(|id| ("lease.cancel", json!({"request_id": id})));
    assert!(call_many(&mut client, cancels).iter().all(Result::is_ok));
    let (code, message) = refusal(&mut client, "lease.acquire", json!({"request_id": 1, "needs": ["phone"]}));
    assert_eq!(code, "request_id_too_old");
    assert!(message.contains("request_id 1 "), "{message}");
    assert_eq!(refusal(&mut client, "lease.cancel", json!({"request_id": 1})).0, "request_id_too_old");
    // The last ten thousand are remembered, whatever else is.
    let (code, _) = no_lease(&mut client, json!({"request_id": 1_101, "needs": ["phone"]}));
    assert_eq!(code, "cancelled");
    assert_eq!(client.acquire_with(json!({"request_id": 11_101, "needs": ["phone"]}))["state"], "granted");
    bystander.unharmed();
}

#[test]
fn an_extension_is_bounded_and_of_what_is_held() {
    let broker = Broker::with_inventory(LAB);
    let mut client = broker.session("tester@lab");
    let lease = client.lease(&["phone"]);
    let number = lease["lease"].as_u64().unwrap();
    let far = json!({"lease": number, "until": (1_u64 << 53) - 1});
    let error = client.try_call("lease.extend", far).unwrap_err();
    let (code, message) = told(&error);
    assert_eq!(code, "hold_too_long", "{message}");
    assert!(message.contains("2h"), "{message}");
    let soon = lease["granted_at"].as_u64().unwrap() + 60_000;
    let extended = client.call("lease.extend", json!({"lease": number, "until": soon}));
    assert_eq!((&extended["lease"], &extended["until"]), (&json!(number), &json!(soon)), "{extended}");
    assert!(extended["now"].as_u64().is_some_and(|now| now < soon), "{extended}");
    client.release(number);
    let (code, message) = refusal(&mut client, "lease.extend", json!({"lease": number, "until": 10_000}));
    assert_eq!(code, "lease_ended", "{message}");
    assert_eq!(client.release(number)["why"], "released");
}
