//! Too many, too greedy, too slow: what is bounded is refused or cut off, and others go on.

use std::io::Write;

use serde_json::{Value, json};

use super::bystander::{Bystander, LAB, refusal};
use super::common::broker::Broker;
use super::common::http;
use super::common::wait::{PATIENCE, until};
use super::common::ws::{Heard, call_frame};

/// What the broker's memory may grow by under one bad client, generously.
const GROWTH_KB_MAX: u64 = 150 * 1024;

#[test]
fn sessions_claims_and_leases_beyond_their_bounds_are_refused_by_name() {
    let limits = "[limits]\nsessions_max = 3\nclaims_per_session_max = 2\nleases_per_session_max = 3\n";
    let broker = Broker::with(LAB).config(limits).start();
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("tester@lab");
    let second = broker.session("second@lab");
    let mut third = broker.connect();
    let (code, message) = refusal(&mut third, "session.open", json!({"instance": "third"}));
    assert_eq!(code, "too_many_sessions");
    assert!(message.contains('3'), "{message}");
    let body = json!({"request_id": "one", "needs": ["port"]});
    let answer =
        http::request(broker.port(), "POST", "/v1/leases", &[("leasehold-key", &"ab".repeat(32))], Some(&body));
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("too_many_sessions")), "{answer:?}");
    second.close();
    third.open("third@lab");
    // Waiting claims.
    let held = client.lease(&["2:phone"]);
    assert_eq!(client.acquire(&["phone"])["state"], "queued");
    assert_eq!(client.acquire(&["phone"])["state"], "queued");
    let (code, message) = refusal(&mut client, "lease.acquire", json!({"request_id": 90, "needs": ["phone"]}));
    assert_eq!(code, "too_many_claims");
    assert!(message.contains("2 waiting claims"), "{message}");
    client.call("lease.cancel", json!({"request_id": 2}));
    client.call("lease.cancel", json!({"request_id": 3}));
    // What was refused for want of room may be asked again under its number.
    assert_eq!(client.acquire_with(json!({"request_id": 90, "needs": ["port"]}))["state"], "granted");
    // Leases.
    assert_eq!(client.acquire_with(json!({"request_id": 91, "needs": ["port"]}))["state"], "granted");
    let (code, message) = refusal(&mut client, "lease.acquire", json!({"request_id": 92, "needs": ["port"]}));
    assert_eq!(code, "too_many_leases");
    assert!(message.contains("3 leases"), "{message}");
    client.release(held["lease"].as_u64().unwrap());
    assert_eq!(client.acquire_with(json!({"request_id": 92, "needs": ["port"]}))["state"], "granted");
    bystander.unharmed();
}

#[test]
fn a_connection_beyond_the_bound_is_told_so_and_the_next_is_served_when_one_ends() {
    let broker = Broker::with(LAB).config("[limits]\nconnections_max = 3\n").start();
    let mut bystander = Bystander::of(&broker);
    let (first, _second) = (broker.connect(), broker.connect());
    let answer = broker.http("GET", "/v1/status", None);
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("overloaded")), "{answer:?}");
    assert!(answer.json()["detail"].as_str().unwrap().contains("connections_max"), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    bystander.unharmed();
    drop(first);
    until("a connection ended, so there is room", || broker.http("GET", "/v1/status", None).status == 200);
    let metrics = broker.http("GET", "/metrics", None).body;
    assert!(!metrics.contains("connections_turned_away_total 0\n"), "{metrics}");
}

#[cfg(target_os = "linux")]
fn memory_kb(broker: &mut Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.process().pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A client that asks for as much as it can get and reads nothing of it.
#[cfg(target_os = "linux")]
#[test]
fn who_does_not_read_is_cut_off_and_takes_no_memory_with_it() {
    let mut broker = Broker::with(LAB).config("[limits]\nflush_timeout = \"1s\"\n").start();
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.connect();
    client.open_with(json!({"instance": "one", "owner": "slow@lab"}));
    // A long state, so that each look at it is a long answer.
    for request in 1..=900_u64 {
        client.acquire_with(json!({"request_id": request, "needs": ["port"]}));
    }
    let resume = json!({"session": client.session(), "secret": client.opened["secret"], "instance": "one"});
    let before_kb = memory_kb(&mut broker);
    let mut writer = client.stream();
    let asking = std::thread::spawn(move || {
        // Ends when the broker closes, as nobody reads: writing then fails.
        for id in 1_000..200_000 {
            if writer.write_all(&call_frame(id, "lease.list", &json!({}))).is_err() {
                return true;
            }
        }
        false
    });
    let mut most_kb = before_kb;
    let slow = |broker: &Broker| {
        let sessions = broker.http("GET", "/v1/sessions", None).json();
        let items = sessions["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["owner"] == "slow@lab").unwrap_or(Value::Null)
    };
    until("its socket is closed", || {
        bystander.unharmed();
        most_kb = most_kb.max(memory_kb(&mut broker));
        slow(&broker)["connected"] == false
    });
    assert!(most_kb - before_kb < GROWTH_KB_MAX, "from {before_kb} to {most_kb} kB");
    assert!(asking.join().unwrap(), "200,000 long answers were taken by nobody");
    // What it left unread is there; then a Close that says why, or the end.
    let end = loop {
        match client.hear(PATIENCE) {
            Heard::Json(_) => {}
            end => break end,
        }
    };
    match end {
        Heard::Closed(code, reason) => {
            assert_eq!(code, 4001, "{reason}");
            assert!(reason.starts_with("slow_reader: ") && reason.contains("read faster"), "{reason}");
        }
        end => assert!(matches!(end, Heard::Gone), "{end:?}"),
    }
    // It was a drop: the session is there, with all it holds.
    let mut again = broker.connect();
    let resumed = again.call("session.resume", resume);
    assert_eq!(resumed["state"]["claims"].as_array().unwrap().len(), 900);
    bystander.unharmed();
}

/// A client that repeats a request whose answer is long, and reads nothing.
#[cfg(target_os = "linux")]
#[test]
fn long_answers_to_repeats_that_nobody_reads_take_no_memory() {
    let mut broker = Broker::with(LAB).config("[limits]\nflush_timeout = \"1s\"\n").start();
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("slow@lab");
    let body = json!({"request_id": 1, "needs": ["256:port"]});
    assert_eq!(client.acquire_with(body.clone())["state"], "granted");
    let before_kb = memory_kb(&mut broker);
    let mut writer = client.stream();
    let asking = std::thread::spawn(move || {
        (1_000..200_000_u64).any(|id| writer.write_all(&call_frame(id, "lease.acquire", &body)).is_err())
    });
    let mut most_kb = before_kb;
    while !asking.is_finished() {
        bystander.unharmed();
        most_kb = most_kb.max(memory_kb(&mut broker));
    }
    assert!(asking.join().unwrap(), "200,000 long answers were taken by nobody");
    assert!(most_kb - before_kb < GROWTH_KB_MAX, "from {before_kb} to {most_kb} kB");
    bystander.unharmed();
}

/// Hundreds of notifications are due to someone who reads nothing.
#[cfg(target_os = "linux")]
#[test]
fn notifications_that_nobody_reads_hold_nobody_up() {
    let limits = "[limits]\noutbound_messages_max = 64\nflush_timeout = \"1s\"\n";
    let mut broker = Broker::with(LAB).config(limits).start();
    let mut bystander = Bystander::of(&broker);
    let mut admin = broker.session("admin@lab");
    let all = admin.lease(&["2:phone"])["lease"].as_u64().unwrap();
    let mut client = broker.connect();
    client.open_with(json!({"instance": "one", "owner": "slow@lab"}));
    let resume = json!({"session": client.session(), "secret": client.opened["secret"], "instance": "one"});
    for _ in 0..400 {
        assert_eq!(client.acquire(&["phone"])["state"], "queued");
    }
    let before_kb = memory_kb(&mut broker);
    for round in 0..3 {
        // Each mark changes what every one of the 400 is told.
        for act in ["drain", "undrain"] {
            for phone in ["phone-1", "phone-2"] {
                let reason = json!({"reason": format!("{round}: {}", "why ".repeat(200))});
                let answer = broker.http("POST", &format!("/v1/resources/{phone}/{act}"), Some(&reason));
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            bystander.unharmed();
        }
    }
    let grown_kb = memory_kb(&mut broker).saturating_sub(before_kb);
    assert!(grown_kb < GROWTH_KB_MAX, "grown by {grown_kb} kB");
    admin.release(all);
    // It is cut off, with the reason, as soon as more waits for it than may; its session is kept.
    let mut told = 0;
    let (code, reason) = loop {
        match client.hear(PATIENCE) {
            Heard::Json(_) => told += 1,
            Heard::Closed(code, reason) => break (code, reason),
            other => panic!("after {told} notifications: {other:?}"),
        }
    };
    assert_eq!(code, 4001, "{reason}");
    assert!(reason.starts_with("slow_reader: ") && reason.contains("resume"), "{reason}");
    let metrics = broker.http("GET", "/metrics", None).body;
    assert!(!metrics.contains("leasehold_slow_readers_total 0\n"), "{metrics}");
    let mut again = broker.connect();
    let resumed = again.call("session.resume", resume);
    assert_eq!(resumed["state"]["claims"].as_array().unwrap().len(), 400);
    bystander.unharmed();
}

#[cfg(target_os = "linux")]
#[test]
fn a_greedy_client_is_served_with_bounds_and_others_go_on() {
    const ASKED: u64 = 10_000;
    let mut broker = Broker::with_inventory(LAB);
    let mut bystander = Bystander::of(&broker);
    let mut client = broker.session("greedy@lab");
    let before_kb = memory_kb(&mut broker);
    let mut writer = client.stream();
    let asking = std::thread::spawn(move || {
        for id in 1..=ASKED {
            let params = json!({"request_id": id, "needs": ["2:phone"]});
            writer.write_all(&call_frame(10_000 + id, "lease.acquire", &params)).unwrap();
        }
    });
    let reading = std::thread::spawn(move || {
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        let mut answered = 0;
        while answered < ASKED {
            match client.hear(PATIENCE) {
                Heard::Json(message) if message.get("id").is_some() => {
                    answered += 1;
                    let code =
                        message["error"]["data"]["code"].as_str().or_else(|| message["result"]["state"].as_str());
                    *counts.entry(code.unwrap().to_owned()).or_default() += 1;
                }
                Heard::Json(_) => {}
                other => panic!("after {answered} answers: {other:?}"),
            }
        }
        (client, counts)
    });
    while !reading.is_finished() {
        bystander.unharmed();
    }
    asking.join().unwrap();
    let (mut client, counts) = reading.join().unwrap();
    assert_eq!(counts.get("granted"), Some(&1), "{counts:?}");
    assert!(counts.get("queued").is_some_and(|queued| *queued <= 1_000), "{counts:?}");
    let known = ["granted", "queued", "too_many_claims", "overloaded"];
    assert!(counts.keys().all(|code| known.contains(&code.as_str())), "{counts:?}");
    let grown_kb = memory_kb(&mut broker).saturating_sub(before_kb);
    assert!(grown_kb < GROWTH_KB_MAX, "grown by {grown_kb} kB");
    client.call("session.renew", json!({}));
    bystander.unharmed();
    client.close();
    until("all it wanted is gone", || broker.http("GET", "/v1/queue", None).json()["items"] == json!([]));
    bystander.unharmed();
}
