//! What probes and scrapers ask.

use std::collections::BTreeSet;

use serde_json::json;

use super::bystander::LAB;
use super::common::broker::Broker;

/// The names of labels in a line of a scrape.
fn labels(line: &str) -> Vec<String> {
    let Some((_, rest)) = line.split_once('{') else { return Vec::new() };
    let (inside, _) = rest.rsplit_once('}').unwrap();
    inside.split("\",").map(|pair| pair.split('=').next().unwrap().to_owned()).collect()
}

#[test]
fn a_scrape_can_be_read_and_does_not_grow_with_what_clients_say() {
    let broker = Broker::with_inventory(LAB);
    let scrape = || {
        let answer = broker.http("GET", "/metrics", None);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"), "{answer:?}");
        answer.body
    };
    let before = scrape();
    for n in 0..30 {
        let mut client = broker.session(&format!("owner-{n}@lab"));
        let lease = client.acquire_with(json!({"request_id": 1, "needs": ["port"], "note": format!("note-{n}"),
            "tags": {"job": format!("job-{n}")}}));
        client.release(lease["lease"]["lease"].as_u64().unwrap());
        broker.http("GET", &format!("/no/such/path/{n}"), None);
        client.close();
    }
    let after = scrape();
    assert!(after.ends_with("# EOF\n"));
    let mut names = BTreeSet::new();
    for line in after.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            assert!(["HELP", "TYPE", "UNIT", "EOF"].iter().any(|word| comment.starts_with(word)), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.starts_with("leasehold_"), "{line}");
        names.insert(series.split('{').next().unwrap().to_owned());
        for label in labels(line) {
            assert!(["pool", "le"].contains(&label.as_str()), "{line}");
        }
        assert!(!line.contains("owner-") && !line.contains("job-") && !line.contains("note-"), "{line}");
    }
    for name in
        ["leasehold_grants_total", "leasehold_sessions", "leasehold_pool_slots_free", "leasehold_commit_seconds_bucket"]
    {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    assert_eq!(before.lines().count(), after.lines().count(), "a scrape grows with what clients do");
    assert!(after.lines().any(|line| line == "leasehold_grants_total 30"), "{after}");
}

#[test]
fn health_is_told_and_is_lost_with_the_broker() {
    let mut broker = Broker::with_inventory(LAB);
    let health = broker.http("GET", "/healthz", None);
    assert_eq!((health.status, health.body.trim()), (200, "ok"));
    let ready = broker.http("GET", "/readyz", None);
    assert_eq!((ready.status, ready.body.trim()), (200, "ready"));
    // A session that does not renew is what a planned stop waits for.
    let mut client = broker.session("asleep@lab");
    broker.process().signal(nix::sys::signal::Signal::SIGTERM);
    client.notice("session.renew_now");
    let stopping = broker.http("GET", "/readyz", None);
    assert_eq!((stopping.status, &stopping.json()["code"]), (503, &json!("stopping")), "{stopping:?}");
    assert_eq!(broker.http("GET", "/healthz", None).status, 200);
    let claim = client.try_call("lease.acquire", json!({"request_id": 1, "needs": ["phone"]}));
    assert!(claim.is_err() || claim.is_ok_and(|claim| claim["state"] == "queued"), "granted while it stops");
    assert_eq!(client.closed().0, 1001);
    broker.process().wait().exits(0);
    assert!(std::net::TcpStream::connect(("127.0.0.1", broker.port())).is_err());
}
