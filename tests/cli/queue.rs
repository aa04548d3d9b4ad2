//! `queue`: who waits for what, and taking a claim out.

use serde_json::json;

use super::common::broker::Broker;
use super::{LAB, row};

#[test]
fn the_queue_shows_places_in_order_and_what_each_waits_for() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    holder.lease(&["phone,os=ios"]);
    let mut first = broker.session("ann@desk");
    let first_claim = first.acquire_with(json!({ "needs": ["phone,os=ios"], "tags": { "job": "ci-8" } }));
    let mut second = broker.session("bob@desk");
    let second_claim = second.acquire_with(json!({ "needs": ["iphone=phone,os=ios"], "priority": -2 }));
    assert_eq!((&first_claim["place"], &second_claim["place"]), (&json!(1), &json!(2)));

    let table = broker.sh("queue").exits(0).stdout;
    let line = row(&table, "1");
    assert_eq!(line[1], format!("c{}", first_claim["claim"]));
    assert_eq!(line[2..5], ["ann@desk", "phone,os=ios", "ci-8"]);
    assert!(table.contains("iphone-1") && table.contains("ci@runner"), "{table}");
    let line = row(&table, "2");
    assert!(line[2] == "bob@desk" && line.contains(&"-2"), "{table}");
    assert_eq!(broker.sh("queue ls").exits(0).stdout.lines().count(), 3);
    let told = broker.sh("queue --json").exits(0).json();
    assert_eq!((&told[0]["place"], &told[1]["owner"]), (&json!(1), &json!("bob@desk")));
}

#[test]
fn a_cancelled_claim_is_gone_and_its_client_is_told() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    holder.lease(&["phone,os=ios"]);
    let mut waiter = broker.session("ann@desk");
    let claim = waiter.acquire(&["phone,os=ios"])["claim"].as_u64().expect("a number");
    let cancelled = broker.sh(&format!("queue cancel c{claim}")).exits(0);
    assert!(cancelled.stderr.contains(&format!("c{claim} is cancelled")), "{}", cancelled.stderr);
    let end = waiter.notice("claim.ended");
    assert_eq!(end["end"]["code"], "cancelled", "{end}");
    assert!(broker.sh("queue").exits(0).stdout.is_empty());
}

#[test]
fn a_claim_whose_connection_is_down_says_so() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    holder.lease(&["phone,os=ios"]);
    let mut waiter = broker.session("ann@desk");
    waiter.acquire(&["phone,os=ios"]);
    waiter.drop_connection();
    super::common::wait::until("the queue knows that the connection is down", || {
        broker.sh("queue").exits(0).stdout.contains("its own connection, which is down")
    });
}

#[test]
fn who_waits_for_a_cap_is_told_so_everywhere() {
    let capped = LAB.replace("max_hold = \"2h\"", "max_hold = \"2h\"\nmax_per_owner = 1");
    let broker = Broker::with_inventory(&capped);
    let mut ann = broker.session("ann@desk");
    ann.lease(&["phone,os=ios"]);
    let claim = ann.acquire(&["phone,os=android"]);
    let words = "ann@desk holds 1 of the 1 in pool phone that one owner may, and this asks for 1";
    assert_eq!(claim["capped"], words, "{claim}");
    assert_eq!(claim["in_the_way"][0]["resource"], "iphone-1", "{claim}");
    // Nobody else is held up by it.
    broker.session("bob@desk").lease(&["phone,os=android"]);
    assert!(broker.sh("queue").exits(0).stdout.contains("holds 1 of the 1 in pool phone"));
    let why = broker.sh(&format!("why c{}", claim["claim"])).exits(0).stdout;
    assert!(why.contains(&format!("it waits for its own owner: {words}")), "{why}");
}

#[test]
fn a_retry_after_a_failure_of_the_lab_stands_where_the_first_attempt_did() {
    let mut broker = Broker::with_inventory(LAB);
    let needs = json!(["phone,os=ios"]);
    let attempt =
        |number: u64| json!({ "needs": needs.clone(), "retry": { "work": "actions:a/b/9/t", "attempt": number } });
    let mut first = broker.session("ci");
    let lease = first.acquire_with(attempt(1))["lease"]["lease"].clone();
    first.call("lease.release", json!({ "lease": lease, "outcome": "infra" }));
    let (mut bob, mut ann) = (broker.session("bob@desk"), broker.session("ann@desk"));
    bob.lease(&["phone,os=ios"]);
    ann.acquire(&["phone,os=ios"]);
    broker.restart();
    let mut again = broker.session("ci");
    assert_eq!(again.acquire_with(attempt(2))["place"], 1);
    let told = broker.sh("queue --json").exits(0).json();
    assert!(told[0]["owner"] == "ci" && told[0]["first_arrival"].is_u64(), "{told}");
    let why = broker.sh(&format!("why c{}", told[0]["claim"])).exits(0).stdout;
    assert!(why.contains("it is a retry"), "{why}");
}

#[test]
fn when_a_claim_is_granted_is_estimated_over_a_restart_and_unknown_without_a_basis() {
    let mut broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let claim = json!({ "needs": ["phone,os=ios"], "hold_ms": 3_600_000 });
    for _ in 0..10 {
        let lease = holder.acquire_with(claim.clone())["lease"]["lease"].as_u64().expect("a number");
        holder.release(lease);
    }
    holder.acquire_with(claim);
    let mut waiter = broker.session("ann@desk");
    let waits = waiter.acquire(&["phone,os=ios"])["claim"].clone();
    broker.session("bob@desk").acquire(&["seats/all"]);
    broker.restart();
    // Held longer than any before: until the end of its hold, at the latest.
    let told = broker.sh("queue --json").exits(0).json();
    let eta = &told[0]["eta"];
    assert!(eta["holds"] == 10 && eta["high_ms"].as_u64().is_some_and(|ms| ms <= 3_600_000), "{told}");
    assert!(broker.sh("queue").exits(0).stdout.contains("1h"));
    let why = broker.sh(&format!("why c{waits}")).exits(0).stdout;
    assert!(why.contains("going by the last 10 holds"), "{why}");
}
