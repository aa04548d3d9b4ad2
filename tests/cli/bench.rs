//! `bench`: its figures are there, and nothing it brought stays behind.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::LAB;
use super::common::broker::Broker;

/// Asserts that nothing of the load generator is left.
#[track_caller]
fn assert_clean(broker: &Broker) {
    assert_eq!(broker.sh("resource ls --pool bench --json").exits(0).json(), json!([]));
    assert_eq!(broker.sh("lease ls --json").exits(0).json(), json!([]));
    assert_eq!(broker.sh("queue --json").exits(0).json(), json!([]));
}

#[track_caller]
fn positive(report: &Value, keys: &[&str]) {
    for key in keys {
        assert!(report[key].as_u64().is_some_and(|number| number > 0), "{key} in {report}");
    }
}

#[test]
fn cycles_are_counted_and_timed() {
    let broker = Broker::with_inventory(LAB);
    let report = broker.sh("bench -c 4 --duration 1s --warm-up 50ms --json").exits(0).json();
    let keys = ["cycles_per_s", "grant_p50_us", "grant_p99_us", "grant_p999_us", "cycle_p50_us", "cycle_p999_us"];
    positive(&report, &keys);
    assert_eq!((&report["mode"], &report["connections"]), (&json!("cycle"), &json!(4)));
    assert_clean(&broker);
}

#[test]
fn hand_overs_are_timed_in_a_queue() {
    let broker = Broker::with_inventory(LAB);
    let report = broker.sh("bench --mode queue -c 8 --resources 2 -d 1s --warm-up 50ms --json").exits(0).json();
    positive(&report, &["grants_per_s", "handover_p50_us", "handover_p99_us", "handover_p999_us"]);
    assert_clean(&broker);
}

#[test]
fn idle_sessions_are_held() {
    let mut broker = Broker::with_inventory(LAB);
    let pid = broker.process().pid();
    let line = format!("bench --mode hold -c 20 -d 300ms --warm-up 0 --pid {pid} --json");
    let report = broker.sh(&line).exits(0).json();
    positive(&report, &["sessions", "open_p50_us", "broker_rss_kib"]);
    assert_eq!((&report["sessions"], &report["sessions_lost"]), (&json!(20), &json!(0)));
    assert_clean(&broker);
}

#[test]
fn what_holders_held_is_granted_on_when_they_drop() {
    let broker = Broker::with_inventory(LAB);
    let report = broker.sh("bench --mode drop -c 20 --ttl 2s --json").exits(0).json();
    positive(&report, &["late_p50_us", "late_max_us", "others_p50_us", "others_max_us"]);
    assert_eq!((&report["sessions_dropped"], &report["granted_on"]), (&json!(20), &json!(20)));
    assert_clean(&broker);
}

#[test]
fn needs_of_ones_own_bring_nothing_along() {
    let broker = Broker::with_inventory(LAB);
    let text = broker.sh("bench -c 3 -d 1s --warm-up 0 --threads 2 --need phone").exits(0).stdout;
    assert!(text.contains("cycles_per_s"), "{text}");
    let refused = broker.sh("bench -c 1 -d 200ms --need nowhere").exits(1);
    assert!(refused.stderr.contains("nowhere"), "{}", refused.stderr);
}

#[test]
fn an_interrupt_ends_it_and_cleans_up() {
    let broker = Broker::with_inventory(LAB);
    let mut bench = broker.spawn(&["bench", "-c", "2", "-d", "1h", "--json"]);
    super::common::wait::until("the load has begun", || {
        broker.sh("session ls --json").json().as_array().is_some_and(|sessions| sessions.len() == 2)
    });
    bench.signal(Signal::SIGINT);
    bench.wait().exits(0);
    assert_clean(&broker);
}
