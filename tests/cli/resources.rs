//! `resource` and `status`: listing, showing, matching, marking, adding and removing.

use serde_json::{Value, json};

use super::common::broker::Broker;
use super::{LAB, row};

/// The names in a listing.
fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().filter_map(|item| item["name"].as_str()).collect()
}

#[test]
fn ls_lists_all_of_a_pool_or_what_matches() {
    let broker = Broker::with_inventory(LAB);
    let all = broker.sh("resource ls").exits(0);
    assert_eq!(row(&all.stdout, "iphone-1")[..3], ["iphone-1", "phone", "free"]);
    assert_eq!(row(&all.stdout, "licence")[..4], ["licence", "seats", "free", "3/3 free"]);
    assert_eq!(all.stderr, "");
    assert_eq!(names(&broker.sh("resource ls --json").exits(0).json()), ["iphone-1", "licence", "pixel-1", "pixel-2"]);
    assert_eq!(names(&broker.sh("resource ls --pool seats --json").exits(0).json()), ["licence"]);
    let need = broker.cli(&["resource", "ls", "--json", "phone,os=android where api >= 34"]).exits(0);
    assert_eq!(names(&need.json()), ["pixel-1", "pixel-2"]);
}

#[test]
fn empty_lists_say_so_on_stderr() {
    let broker = Broker::empty().start();
    for (line, part) in [
        ("resource ls", "resource apply"),
        ("lease ls", "nothing is held"),
        ("lease ls --all", "no lease"),
        ("queue", "nobody waits"),
        ("queue ls", "nobody waits"),
        ("session ls", "no sessions"),
    ] {
        let output = broker.sh(line).exits(0);
        assert_eq!(output.stdout, "", "{line}");
        assert!(output.stderr.contains(part), "{line}: {}", output.stderr);
        assert_eq!(broker.sh(&format!("{line} --json")).exits(0).json(), json!([]), "{line}");
    }
    assert!(broker.sh("status").exits(0).stdout.contains("no pools yet"));
}

#[test]
fn a_listing_is_followed_to_its_last_page() {
    let broker = Broker::with_inventory("[[resource]]\nname = \"port-{20000..22499}\"\npool = \"port\"\n");
    let list = broker.sh("resource ls --json").exits(0).json();
    assert_eq!(names(&list).len(), 2_500);
    let table = broker.sh("resource ls --pool port").exits(0).stdout;
    assert_eq!(table.lines().count(), 2_501);
    let matches = broker.sh("resource match port --json").exits(0).json();
    assert_eq!(names(&matches).len(), 2_500);
}

#[test]
fn show_answers_first_who_has_it_and_how_to_end_that() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let claim = holder.acquire_with(json!({
        "needs": ["phone,os=ios"], "hold_ms": 3_600_000, "note": "nightly", "tags": { "job": "https://ci/7" },
    }));
    let lease = claim["lease"]["lease"].as_u64().expect("it is granted");
    let shown = broker.sh("resource show iphone-1").exits(0).stdout;
    let head: Vec<&str> = shown.lines().take(7).collect();
    assert_eq!(row(&shown, "iphone-1"), ["iphone-1", "leased"]);
    assert!(head[1].contains("ci@runner") && head[1].contains(&format!("lease {lease}")), "{shown}");
    assert_eq!(row(&shown, "job"), ["job", "https://ci/7"]);
    assert!(head[3].starts_with("since") && head[3].contains(" ago)"), "{shown}");
    assert!(head[4].starts_with("until") && head[4].contains("(in 59m"), "{shown}");
    assert!(head[5].starts_with("last sign of life") && head[5].ends_with("ago, connected"), "{shown}");
    assert_eq!(row(&shown, "to end it")[1], format!("leasehold lease revoke {lease}"));
    let told = broker.sh("resource show iphone-1 --json").exits(0).json();
    assert_eq!((&told["state"], &told["holders"][0]["owner"]), (&json!("leased"), &json!("ci@runner")));
    holder.release(lease);
    let free = broker.sh("resource show iphone-1").exits(0).stdout;
    assert_eq!(row(&free, "iphone-1"), ["iphone-1", "free"]);
    assert!(!free.contains("revoke"), "{free}");
}

#[test]
fn what_does_not_exist_exits_1_and_is_named() {
    let broker = Broker::with_inventory(LAB);
    for line in [
        "resource show pixel-9",
        "resource history pixel-9",
        "resource rm pixel-9",
        "resource drain pixel-9",
        "resource quarantine pixel-9 --reason broken",
        "why pixel-9",
    ] {
        let output = broker.sh(line).exits(1);
        assert!(output.stderr.contains("pixel-9"), "{line}: {}", output.stderr);
        assert_eq!(output.stdout, "", "{line}");
    }
    for line in ["lease show 99", "lease revoke 99", "queue cancel c99", "session kick s99", "why c99", "why 99"] {
        let output = broker.sh(line).exits(1);
        assert!(output.stderr.contains("99"), "{line}: {}", output.stderr);
    }
}

#[test]
fn match_says_which_match_which_are_free_and_why_not_the_others() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    holder.lease(&["phone,name=pixel-1"]);
    broker.sh("resource drain pixel-2 --reason cable").exits(0);
    let output = broker.sh("resource match phone,os=android").exits(0);
    let held = row(&output.stdout, "pixel-1");
    assert_eq!(held[..3], ["pixel-1", "yes", "no"]);
    assert!(held[3].contains("ci@runner") || held[3].contains("lease"), "{held:?}");
    let drained = row(&output.stdout, "pixel-2");
    assert!(drained[1] == "yes" && drained[2] == "no" && drained[3].contains("drained"), "{drained:?}");
    let other = row(&output.stdout, "iphone-1");
    assert!(other[1] == "no" && other.last().is_some_and(|why| why.contains("os")), "{other:?}");
    assert!(output.stderr.contains("2 of 3 resources match, 0 free"), "{}", output.stderr);
    let told = broker.sh("resource match phone,os=android --json").exits(0).json();
    assert_eq!(told.as_array().map(Vec::len), Some(3));
    let none = broker.sh("resource match phone,os=symbian").exits(1);
    assert!(none.stderr.contains("0 of 3"), "{}", none.stderr);
    let bad = broker.sh("resource match phone,os").exits(1);
    assert!(bad.stderr.contains("not a valid need"), "{}", bad.stderr);
}

#[test]
fn drain_keeps_the_holder_and_makes_claims_wait_that_are_told() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64().expect("a number");
    let drained = broker.cli(&["resource", "drain", "iphone-1", "--reason", "battery swap"]).exits(0);
    assert!(drained.stderr.contains("is drained") && drained.stderr.contains(&format!("lease {lease}")));
    holder.release(lease);

    let mut waiter = broker.session("ann@desk");
    let claim = waiter.acquire(&["phone,os=ios"]);
    assert_eq!(claim["state"], "queued", "{claim}");
    assert!(claim["blocked"].as_str().is_some_and(|blocked| blocked.contains("drained")), "{claim}");
    let queue = broker.sh("queue").exits(0).stdout;
    assert!(queue.contains("ann@desk") && queue.contains("drained"), "{queue}");
    let shown = broker.sh("resource show iphone-1").exits(0).stdout;
    assert_eq!(row(&shown, "drained")[1], "battery swap");
    assert!(shown.contains("leasehold resource undrain iphone-1"), "{shown}");

    // Asking twice is asking once.
    broker.sh("resource drain iphone-1").exits(0);
    let back = broker.sh("resource undrain iphone-1").exits(0);
    assert!(back.stderr.contains("no longer drained"), "{}", back.stderr);
    assert_eq!(waiter.notice("lease.granted")["claim"], claim["claim"]);
    broker.sh("resource undrain iphone-1").exits(0);
}

#[test]
fn quarantine_and_drain_are_kept_apart() {
    let broker = Broker::with_inventory(LAB);
    broker.sh("resource quarantine pixel-1 pixel-2 --reason cracked").exits(0);
    broker.sh("resource drain pixel-1").exits(0);
    let restored = broker.sh("resource restore pixel-1").exits(0);
    assert!(restored.stderr.contains("still drained"), "{}", restored.stderr);
    let listed = broker.sh("resource ls --pool phone").exits(0).stdout;
    assert_eq!((row(&listed, "pixel-1")[2], row(&listed, "pixel-2")[2]), ("drained", "quarantined"));
    assert!(listed.contains("(cracked)"), "{listed}");
    // One wrong name does not keep the others from it.
    let mixed = broker.sh("resource restore nobody pixel-2 --json").exits(1);
    assert!(mixed.stderr.contains("nobody"), "{}", mixed.stderr);
    assert_eq!(mixed.json()["state"], "free");
}

#[test]
fn set_adds_and_changes_and_rm_removes() {
    let broker = Broker::with_inventory(LAB);
    let set = ["resource", "set", "tablet-1", "--pool", "phone", "--label", "os=android", "--label", "api=30"];
    let added = broker.cli(&set).exits(0);
    assert_eq!(row(&added.stdout, "add")[..3], ["add", "resource", "tablet-1"]);
    let told = broker.sh("resource show tablet-1 --json").exits(0).json();
    assert_eq!((&told["origin"], &told["labels"]["api"]), (&json!("api"), &json!(30)));
    let again = broker.cli(&set).exits(0);
    assert_eq!(again.stdout, "");
    assert!(again.stderr.contains("nothing changes"), "{}", again.stderr);
    let changed = broker.sh("resource set tablet-1 --pool phone --label os=android --slots 2 --json").exits(0);
    assert_eq!(changed.json()["changes"][0]["action"], "change");
    let taken = broker.sh("resource set pixel-1 --pool phone").exits(1);
    assert!(taken.stderr.contains("pixel-1"), "{}", taken.stderr);

    let removed = broker.sh("resource rm tablet-1").exits(0);
    assert_eq!(row(&removed.stdout, "remove")[..3], ["remove", "resource", "tablet-1"]);
    broker.sh("resource show tablet-1").exits(1);
    broker.sh("resource rm pixel-1").exits(1);
}

#[test]
fn history_shows_who_held_it() {
    let broker = Broker::with_inventory(LAB);
    let none = broker.sh("resource history iphone-1").exits(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("nobody has held iphone-1"), "{none:?}");
    for (owner, outcome) in [("ann@desk", "passed"), ("ci@runner", "failed")] {
        let mut holder = broker.session(owner);
        let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64();
        holder.call("lease.release", json!({ "lease": lease, "outcome": outcome }));
        holder.close();
    }
    let history = broker.sh("resource history iphone-1").exits(0).stdout;
    assert_eq!(history.lines().count(), 3, "{history}");
    for (owner, outcome) in [("ann@desk", "passed"), ("ci@runner", "failed")] {
        let line = history.lines().find(|line| line.contains(owner)).unwrap_or_default();
        assert!(line.contains("released") && line.ends_with(outcome), "{history}");
    }
    assert_eq!(broker.sh("resource history iphone-1 --json").exits(0).json().as_array().map(Vec::len), Some(2));
}

#[test]
fn status_tells_the_state_and_the_pools() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    holder.lease(&["phone,os=ios", "seats"]);
    broker.sh("resource drain pixel-1").exits(0);
    let status = broker.sh("status").exits(0).stdout;
    assert_eq!(row(&status, "broker"), ["broker", "serving"]);
    assert_eq!(row(&status, "phone"), ["phone", "3", "3", "1", "1", "0", "1", "0"]);
    assert_eq!(row(&status, "seats"), ["seats", "1", "3", "2", "1", "0", "0", "0"]);
    assert!(status.contains("lab.db"), "{status}");
    let told = broker.sh("status --json").exits(0).json();
    assert_eq!((&told["leases"], &told["sessions"], &told["waiting"]), (&json!(1), &json!(1), &json!(0)));
}

#[test]
fn what_cools_is_shown_and_survives_a_restart() {
    let cooling = LAB.replace("max_hold = \"2h\"", "max_hold = \"2h\"\ncooldown = \"1h\"");
    let mut broker = Broker::with_inventory(&cooling);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"]);
    holder.release(lease["lease"].as_u64().expect("a number"));
    broker.restart();
    let listed = broker.sh("resource ls").exits(0).stdout;
    let line = row(&listed, "iphone-1");
    assert!(line.contains(&"cooling") && listed.contains("(free in "), "{listed}");
    let shown = broker.sh("resource show iphone-1").exits(0).stdout;
    assert!(shown.contains("1 slot, until "), "{shown}");
    let why = broker.sh("why iphone-1").exits(0).stdout;
    assert!(why.contains("1 of 1 slots cool after their last lease"), "{why}");
    let matched = broker.sh("resource match phone,os=ios").exits(0).stdout;
    assert!(matched.contains("it cools for "), "{matched}");
    assert_eq!(row(&broker.sh("status").exits(0).stdout, "phone")[5], "1");
}
