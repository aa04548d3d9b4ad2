//! `store check`: what is whole passes, beside a broker too, and whatever is damaged is found.

use super::super::common::broker::Broker;
use super::super::common::process::leasehold_alone;
use super::{checked, duplicate, lived, named, number, sql, store};

/// Damage, and the table and key that must be told, with a part of what is said of it.
const DAMAGE: &[(&str, &str, &str, &str)] = &[
    ("DELETE FROM pool WHERE name = 'seats'", "pool", "seats", "missing"),
    (
        "UPDATE resource SET record = json_set(record, '$.spec.slots', 7) WHERE resource = 4",
        "resource",
        "4",
        "slots is 7",
    ),
    ("UPDATE resource SET record = 'x' WHERE resource = 2", "resource", "2", "cannot be read"),
    ("UPDATE resource_used SET last_used = last_used + 1 WHERE resource = 1", "resource_used", "1", "should be"),
    ("DELETE FROM resource_used WHERE resource = 1", "resource_used", "1", "missing"),
    ("DELETE FROM remembered", "remembered", "spare", "missing"),
    ("UPDATE session SET record = json_set(record, '$.ttl_ms', 5)", "session", "1", "ttl_ms is 5"),
    ("UPDATE session SET forgotten = 99, forgotten_row = 99", "request", "1/1", "missing"),
    ("UPDATE request SET body_hash = 1 WHERE request = 1", "request", "1/1", "is"),
    ("DELETE FROM claim", "claim", "5", "missing"),
    ("INSERT INTO claim SELECT 77, record FROM claim", "claim", "77", "the journal does not give it"),
    ("DELETE FROM keyed", "keyed", "", "missing"),
    ("UPDATE arrival SET record = json_set(record, '$.attempt', 9)", "arrival", "4", "attempt is 9"),
    ("UPDATE lease SET record = json_set(record, '$.until', 5) WHERE lease = 4", "lease", "4", "until is 5"),
    ("UPDATE lease SET record = json_set(record, '$.request', 5) WHERE lease = 1", "lease", "1", "request is 5"),
    ("UPDATE lease SET record = (SELECT record FROM lease WHERE lease = 1) WHERE lease = 2", "lease", "2", "lease 1"),
    ("DELETE FROM lease WHERE lease = 2", "lease", "2", "missing"),
    ("DELETE FROM lease WHERE lease = 4", "lease", "4", "missing"),
    ("INSERT INTO lease SELECT 99, json_set(record, '$.id', 99) FROM lease WHERE lease = 1", "lease", "99", "no event"),
    ("DELETE FROM held WHERE lease = 4", "held", "4", "missing"),
    ("INSERT INTO held VALUES (1)", "held", "1", "has ended"),
    ("DELETE FROM lease_end WHERE lease = 2", "lease_end", "2", "missing"),
    ("INSERT INTO lease_end SELECT 4, at, outcome, ended FROM lease_end WHERE lease = 1", "lease_end", "4", "no event"),
    ("UPDATE lease_end SET outcome = 'infra' WHERE lease = 1", "lease_end", "1", "outcome is \"infra\""),
    ("UPDATE lease_end SET at = 1 WHERE lease = 1", "lease_end", "1", "at is 1"),
    ("UPDATE lease_end SET ended = '{\"why\":\"dropped\"}' WHERE lease = 1", "lease_end", "1", "dropped"),
    ("DELETE FROM lease_resource WHERE lease = 1 AND resource = 'licence'", "lease_resource", "1", "licence"),
    ("INSERT INTO lease_resource VALUES (0, 'pixel-1', 999)", "lease_resource", "999", "no such lease"),
    ("INSERT INTO lease_resource VALUES (7, 'pixel-1', 3)", "lease_resource", "3", "no such lease"),
    ("DELETE FROM journal WHERE event = 9", "journal", "9", "missing"),
    ("DELETE FROM journal WHERE event < 4", "journal", "1", "events 1 to 3 are missing"),
    ("DELETE FROM journal WHERE event = (SELECT max(event) FROM journal)", "lab", "", "last_event"),
    ("UPDATE journal SET body = 'x' WHERE event = 9", "journal", "9", "cannot be read"),
    ("UPDATE journal SET kind = 'pool_set' WHERE kind = 'claim_queued'", "journal", "", "its kind is pool_set"),
    ("UPDATE journal SET lease = 77 WHERE kind = 'lease_granted' AND lease = 1", "journal", "", "it names"),
    ("UPDATE journal SET at = 0 WHERE event = (SELECT max(event) FROM journal)", "journal", "", "lab time goes back"),
    ("UPDATE journal SET batch = 1 WHERE event = (SELECT max(event) FROM journal)", "journal", "", "its batch is 1"),
    (
        "UPDATE journal SET batch = 9999 WHERE event = (SELECT max(event) FROM journal)",
        "journal",
        "",
        "the last one is",
    ),
    ("UPDATE journal SET wall_ms = 5 WHERE event = 2", "journal", "", "its time is another"),
    ("UPDATE lab SET last_lease = last_lease + 1", "lab", "", "last_lease is"),
    ("UPDATE lab SET term = 0", "lab", "", "term is 0"),
    ("UPDATE lab SET now = 0", "lab", "", "now is 0"),
    // Two would hold one phone.
    (
        "UPDATE journal SET body = replace(body, '\"resource\":3', '\"resource\":2')
         WHERE kind = 'lease_granted' AND lease = 3",
        "journal",
        "",
        "exclusive: lease 4",
    ),
    // A fence that was given before.
    (
        "UPDATE journal SET body = json_set(body, '$.lease.id', 1) WHERE kind = 'lease_granted' AND lease = 2",
        "journal",
        "",
        "fence",
    ),
];

#[test]
fn what_a_broker_left_behind_passes_and_every_damage_to_it_is_found() {
    let broker = lived();
    let said = checked(&broker.store_path(), 0);
    assert!(number(&said["events"]) > 20 && said["events"] == said["replayed"], "{said}");
    assert!(number(&said["rows"]) > 10 && said["leases"] == 5, "{said}");
    for (statement, table, key, part) in DAMAGE {
        let damaged = duplicate(&broker.store_path(), &broker.dir().join("damaged.db"));
        sql(&damaged, statement);
        let said = checked(&damaged, 1);
        let findings = said["findings"].as_array().expect("a list");
        let told = findings.iter().any(|finding| {
            let is = |field: &str, wanted: &str| finding[field].as_str().is_some_and(|found| found.contains(wanted));
            finding["table"] == *table && (key.is_empty() || finding["key"] == *key) && is("what", part)
        });
        assert!(told, "{statement}: {table} {key} {part:?} is not told in {said:#}");
    }
}

#[test]
fn a_difference_is_told_by_table_and_key_for_people_too() {
    let broker = lived();
    sql(&broker.store_path(), "DELETE FROM lease_end WHERE lease = 2; DELETE FROM claim");
    let said = store(broker.dir(), &["check", "--store", &named(&broker.store_path())]).exits(1);
    assert!(said.stdout.lines().any(|line| line.starts_with("lease_end") && line.contains(" 2 ")), "{said:?}");
    assert!(said.stderr.contains("2 things are wrong"), "{said:?}");
}

#[test]
fn findings_are_bounded_and_the_rest_counted() {
    let broker = lived();
    let many = "WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 3999)
        INSERT INTO lease_resource SELECT i >> 10, 'pixel-1', i FROM n";
    sql(&broker.store_path(), many);
    let said = checked(&broker.store_path(), 1);
    let told = said["findings"].as_array().expect("a list").len() as u64;
    assert_eq!((told, told + number(&said["more"])), (100, 3_000), "{}", said["findings"][0]);
}

#[test]
fn a_store_passes_beside_the_broker_that_writes_to_it() {
    let broker = Broker::with_inventory(super::LAB);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for owner in ["ann@lab", "bob@lab"] {
            let (broker, stop) = (&broker, &stop);
            scope.spawn(move || {
                let mut client = broker.session(owner);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let lease = number(&client.lease(&["phone"])["lease"]);
                    client.release(lease);
                }
            });
        }
        let mut seen = 0;
        for _ in 0..5 {
            let said = checked(&broker.store_path(), 0);
            assert!(number(&said["events"]) > seen, "{said}");
            seen = number(&said["events"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn what_is_no_store_is_told_and_left_alone() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let path = |name: &str| home.path().join(name);
    std::fs::write(path("empty.db"), "").expect("a file can be written");
    std::fs::write(path("garbage.db"), "not a database, though long enough to look like one".repeat(50)).expect("so");
    sql(&path("other.db"), "CREATE TABLE theirs (x)");
    sql(&path("new.db"), "CREATE TABLE lab (x); PRAGMA application_id = 0x6C686C64; PRAGMA user_version = 1000");
    sql(&path("old.db"), "CREATE TABLE lab (x); PRAGMA application_id = 0x6C686C64; PRAGMA user_version = 1");
    for (file, part) in [
        ("absent.db", "there is no store"),
        ("empty.db", "there is no store"),
        ("garbage.db", "not a database"),
        ("other.db", "another program's"),
        ("new.db", "newer leasehold"),
        ("old.db", "a broker brings it up"),
    ] {
        let before = std::fs::read(path(file)).ok();
        let said = store(home.path(), &["check", "--store", &named(&path(file))]).exits(1);
        assert!(said.stderr.contains(part) && said.stderr.contains(file) && said.stdout.is_empty(), "{said:?}");
        assert_eq!(std::fs::read(path(file)).ok(), before, "{file}");
    }
    for line in ["store check --store lab.db", "store check --store sqlite:", "store check more"] {
        leasehold_alone(&line.split(' ').collect::<Vec<_>>()).exits(2);
    }
}
