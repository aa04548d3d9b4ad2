//! The journal as server-sent events: what follows a break is neither missed nor told twice.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::bystander::LAB;
use super::common::broker::Broker;
use super::common::http;

/// A follower, by hand: one event is its id and its data.
struct Follower(BufReader<TcpStream>);

impl Follower {
    #[track_caller]
    fn new(broker: &Broker, path: &str, last: Option<u64>) -> Self {
        let last = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let mut stream = http::connect(broker.port());
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{last}\r\n").as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/event-stream"), "{head}");
        Self(reader)
    }

    /// The next event. Chunk sizes stand on lines of their own and look like no field.
    #[track_caller]
    fn next(&mut self) -> (u64, Value) {
        let (mut id, mut data) = (None, None);
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).expect("an event in time") > 0, "the stream ended");
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.trim().parse().ok();
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = serde_json::from_str(text.trim()).ok();
            }
            if let (Some(id), Some(data)) = (id, data.as_ref()) {
                return (id, Value::clone(data));
            }
        }
    }
}

fn journal(broker: &Broker) -> Vec<u64> {
    let page = broker.http("GET", "/v1/journal?limit=1000", None).json();
    page["items"].as_array().unwrap().iter().map(|item| item["event"].as_u64().unwrap()).collect()
}

#[test]
fn a_follower_that_comes_back_has_no_gap_and_no_repeat() {
    let lab = "[[resource]]\nname = \"phone-1\"\npool = \"phone\"\n";
    let mut broker = Broker::with_inventory(lab);
    let mut client = broker.session("tester@lab");
    let mut cycle = |times: u32| {
        for _ in 0..times {
            let lease = client.lease(&["phone"])["lease"].as_u64().unwrap();
            client.release(lease);
        }
    };
    let mut seen: Vec<u64> = Vec::new();
    let mut follower = Follower::new(&broker, "/v1/events?after=0", None);
    cycle(20);
    for _ in 0..15 {
        let (id, event) = follower.next();
        assert_eq!(event["event"], id, "{event}");
        assert!(event["body"]["type"].is_string(), "{event}");
        seen.push(id);
    }
    drop(follower);
    cycle(20);
    for events in [1, 7, 20] {
        let mut follower = Follower::new(&broker, "/v1/events", seen.last().copied());
        seen.extend((0..events).map(|_| follower.next().0));
    }
    // While it follows, things happen.
    let mut follower = Follower::new(&broker, "/v1/events", seen.last().copied());
    cycle(30);
    let written = journal(&broker);
    while seen.last() < written.last() {
        seen.push(follower.next().0);
    }
    assert_eq!(seen, written);
    // Over a restart of the broker too.
    broker.restart();
    let mut follower = Follower::new(&broker, "/v1/events", seen.last().copied());
    broker.session("another@lab").lease(&["phone"]);
    let written = journal(&broker);
    while seen.last() < written.last() {
        seen.push(follower.next().0);
    }
    assert_eq!(seen, written);
    // One that names none begins with what comes next, and one may narrow.
    let mut fresh = Follower::new(&broker, "/v1/events", None);
    let mut narrow = Follower::new(&broker, "/v1/events?resource=phone-1&after=0", None);
    broker.session("third@lab");
    assert!(fresh.next().0 > *seen.last().unwrap());
    assert!(narrow.next().1.to_string().contains("phone-1"));
}

#[test]
fn followers_that_read_nothing_hold_nobody_up_and_a_number_from_the_future_waits() {
    let broker = Broker::with_inventory(LAB);
    let deaf: Vec<Follower> = (0..20).map(|_| Follower::new(&broker, "/v1/events?after=0", None)).collect();
    let mut ahead = Follower::new(&broker, "/v1/events", Some(1 << 52));
    let mut client = broker.session("tester@lab");
    for _ in 0..50 {
        let lease = client.lease(&["phone"])["lease"].as_u64().unwrap();
        client.release(lease);
    }
    assert_eq!(client.call("lease.list", json!({}))["claims"], json!([]));
    drop(deaf);
    ahead.0.get_ref().set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    let mut line = String::new();
    assert!(ahead.0.read_line(&mut line).is_err(), "nothing is after it: {line:?}");
}
