//! `lease`, `session` and `why`: who holds what, and taking it back.

use serde_json::json;

use super::common::broker::Broker;
use super::common::wait::until;
use super::{LAB, row};

#[test]
fn ls_shows_what_is_held_and_all_what_has_ended() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let claim = holder.acquire_with(json!({
        "needs": ["phone,os=ios", "seats/2"], "hold_ms": 600_000, "tags": { "job": "ci-7" },
    }));
    let lease = claim["lease"]["lease"].as_u64().expect("it is granted").to_string();
    let table = broker.sh("lease ls").exits(0).stdout;
    let line = row(&table, &lease);
    assert_eq!(line[..5], [lease.as_str(), "active", "ci@runner", "iphone-1 licence/2", "ci-7"]);
    assert!(line[5].ends_with("ago") && line[6].starts_with("in 9m") && line[7].ends_with("ago"), "{table}");
    assert_eq!(broker.sh("lease ls --json").exits(0).json()[0]["owner"], "ci@runner");

    holder.release(lease.parse().expect("a number"));
    let none = broker.sh("lease ls").exits(0);
    assert!(none.stdout.is_empty() && none.stderr.contains("--all"), "{none:?}");
    let all = broker.sh("lease ls --all").exits(0).stdout;
    assert_eq!(row(&all, &lease)[1], "released");
}

#[test]
fn show_tells_all_of_a_lease_before_and_after_its_end() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let claim = holder.acquire_with(json!({ "needs": ["phone,os=ios"], "note": "nightly" }));
    let lease = claim["lease"]["lease"].as_u64().expect("it is granted");
    let shown = broker.sh(&format!("lease show {lease}")).exits(0).stdout;
    assert_eq!(row(&shown, &format!("lease {lease}"))[1], "active");
    assert!(row(&shown, "owner")[1].starts_with("ci@runner"), "{shown}");
    assert_eq!(row(&shown, "resources")[1], "iphone-1");
    assert_eq!(row(&shown, "fence")[1], lease.to_string());
    assert_eq!(row(&shown, "note")[1], "nightly");
    assert_eq!(row(&shown, "to end it")[1], format!("leasehold lease revoke {lease}"));
    holder.call("lease.release", json!({ "lease": lease, "outcome": "infra" }));
    let shown = broker.sh(&format!("lease show {lease}")).exits(0).stdout;
    assert!(row(&shown, "why")[1].starts_with("released"), "{shown}");
    assert_eq!(row(&shown, "outcome")[1], "infra");
    assert_eq!(broker.sh(&format!("lease show {lease} --json")).exits(0).json()["state"], "ended");
}

#[test]
fn revoke_tells_the_holder_and_waits_for_it() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64().expect("a number");
    let revoked = broker.cli(&["lease", "revoke", &lease.to_string(), "--reason", "needed for a demo"]).exits(0);
    assert!(revoked.stderr.contains("ending") && revoked.stderr.contains("iphone-1"), "{}", revoked.stderr);
    let notice = holder.notice("lease.ending");
    assert_eq!(notice["lease"], lease);
    assert!(notice["ending"]["message"].as_str().is_some_and(|why| why.contains("needed for a demo")), "{notice}");
    assert_eq!(row(&broker.sh("resource ls").exits(0).stdout, "iphone-1")[2], "ending");
    // Revoking again changes nothing; when it is over, it is over.
    broker.sh(&format!("lease revoke {lease}")).exits(0);
    holder.release(lease);
    let over = broker.sh(&format!("lease revoke {lease}")).exits(0);
    assert!(over.stderr.contains("over"), "{}", over.stderr);
    assert_eq!(row(&broker.sh("resource ls").exits(0).stdout, "iphone-1")[2], "free");
}

#[test]
fn a_forced_revoke_frees_at_once() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64().expect("a number");
    let revoked = broker.sh(&format!("lease revoke {lease} --force")).exits(0);
    assert!(revoked.stderr.contains("over"), "{}", revoked.stderr);
    assert_eq!(holder.notice("lease.ended")["lease"], lease);
    broker.session("ann@desk").lease(&["phone,os=ios"]);
}

#[test]
fn sessions_are_listed_and_kicked() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64().expect("a number");
    let mut waiter = broker.session("ann@desk");
    let claim = waiter.acquire(&["phone,os=ios"])["claim"].as_u64().expect("a number");
    let table = broker.sh("session ls").exits(0).stdout;
    let line = row(&table, &format!("s{}", holder.session()));
    assert_eq!(line[1..4], ["ci@runner", "socket", "yes"]);
    assert!(line[5] == "30s" && line.contains(&lease.to_string().as_str()), "{table}");
    let line = row(&table, &format!("s{}", waiter.session()));
    assert!(line.contains(&format!("c{claim}").as_str()), "{table}");
    assert_eq!(broker.sh("session ls --json").exits(0).json().as_array().map(Vec::len), Some(2));

    let kicked = broker.sh(&format!("session kick s{}", holder.session())).exits(0);
    assert!(kicked.stderr.contains("ending"), "{}", kicked.stderr);
    assert_eq!(holder.notice("lease.ending")["lease"], lease);
    // Its session is over with its last lease, and the socket with its session.
    holder.ask("lease.release", json!({ "lease": lease }));
    assert_eq!(holder.closed().0, 4003);
    waiter.notice("lease.granted");
    until("the kicked session is gone", || broker.sh("session ls --json").json().as_array().map(Vec::len) == Some(1));
}

#[test]
fn why_answers_for_claims_leases_and_resources() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("ci@runner");
    let lease = holder.lease(&["phone,os=ios"])["lease"].as_u64().expect("a number");
    let mut waiter = broker.session("ann@desk");
    let claim = waiter.acquire(&["phone,os=ios"])["claim"].as_u64().expect("a number");
    for (subject, part) in [
        (format!("c{claim}"), "ci@runner".to_owned()),
        (lease.to_string(), "ci@runner".to_owned()),
        ("iphone-1".to_owned(), lease.to_string()),
        ("resource:iphone-1".to_owned(), lease.to_string()),
    ] {
        let why = broker.sh(&format!("why {subject}")).exits(0).stdout;
        assert!(why.contains(&part), "{subject}: {why}");
        let told = broker.sh(&format!("why {subject} --json")).exits(0).json();
        assert!(told["summary"].as_str().is_some_and(|summary| why.contains(summary)), "{told}");
    }
}
