//! `events`: the journal, read and followed.

use nix::sys::signal::Signal;
use serde_json::Value;

use super::LAB;
use super::common::broker::Broker;

/// The types of the events printed, in order.
fn types(lines: &str) -> Vec<String> {
    let parse = |line: &str| serde_json::from_str::<Value>(line).expect("a line is JSON");
    lines.lines().filter_map(|line| parse(line)["body"]["type"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_journal_tells_what_happened_and_can_be_narrowed() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64().expect("a number");
    holder.release(lease);
    let other = holder.lease(&["seats"])["lease"].as_u64().expect("a number");
    let all = broker.sh("events --json").exits(0).stdout;
    let seen = types(&all);
    for kind in ["resource_added", "session_opened", "lease_granted", "lease_ended"] {
        assert!(seen.iter().any(|seen| seen == kind), "{kind} is not in {seen:?}");
    }
    let of_lease = broker.sh(&format!("events --lease {lease} --json")).exits(0).stdout;
    assert_eq!(types(&of_lease), ["lease_granted", "lease_ended"]);
    let of_resource = broker.sh("events --resource licence --json").exits(0).stdout;
    assert!(of_resource.contains(&other.to_string()) && !of_resource.contains("iphone-1"), "{of_resource}");
    let number = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["event"].as_u64().expect("a number");
    let numbers: Vec<u64> = all.lines().map(number).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    let last = numbers.last().expect("there are events");
    let after = broker.sh(&format!("events --after {} --json", last - 1)).exits(0).stdout;
    assert_eq!(after.lines().map(number).collect::<Vec<_>>(), [*last]);
    let table = broker.sh("events").exits(0).stdout;
    assert!(table.contains("lease_granted") && table.lines().count() == numbers.len(), "{table}");
    let none = broker.sh(&format!("events --after {last}")).exits(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("no such events"), "{none:?}");
}

#[test]
fn following_goes_on_over_a_restart_and_misses_nothing() {
    let mut broker = Broker::with_inventory(LAB);
    let mut follower = broker.spawn(&["events", "--follow", "--after", "0", "--json"]);
    follower.stdout.wait_for("resource_added");
    broker.sh("resource drain pixel-1 --reason first").exits(0);
    follower.stdout.wait_for("first");
    broker.restart();
    broker.sh("resource drain pixel-2 --reason second").exits(0);
    follower.stdout.wait_for("second");
    follower.signal(Signal::SIGTERM);
    let text = follower.wait().stdout;
    let journal = broker.sh("events --json").exits(0).stdout;
    assert_eq!(text, journal);
}
