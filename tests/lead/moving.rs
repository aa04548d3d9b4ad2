//! `store` commands on a database: proved, backed up beside brokers, moved there and back.

use std::path::Path;

use leasehold::testing::postgres;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::brokers::{Broker, pair};
use super::common::process::{self, Output};
use super::common::ws::Client;
use super::{LAB, number};

/// By how much copying and restoring raise the fences.
const SKIPPED: u64 = 1 << 32;

/// Runs a `store` command.
#[track_caller]
fn store(home: &Path, line: &[&str]) -> Output {
    let mut command = process::leasehold(home);
    command.current_dir(home).arg("store").args(line);
    process::run(&mut command)
}

/// The same, which must be done.
#[track_caller]
fn done(home: &Path, line: &[&str]) -> Value {
    let line: Vec<&str> = line.iter().copied().chain(["--json"]).collect();
    store(home, &line).exits(0).json()
}

/// The same, which must be refused with this in what it says.
#[track_caller]
fn refused(home: &Path, line: &[&str], part: &str) {
    let said = store(home, line).exits(1);
    assert!(said.stderr.contains(part) && said.stdout.is_empty(), "{part:?} is not said: {said:?}");
}

/// What `store check --json` says of a store that is whole.
#[track_caller]
fn proved(home: &Path, named: &str) -> Value {
    let said = done(home, &["check", "--store", named]);
    assert_eq!(said["ok"], true, "{said}");
    said
}

/// Leases to this broker, the last of them held by the client that is answered with its number.
fn leased(broker: &Broker) -> (Client, u64) {
    let mut client = Client::connect(broker.port);
    client.open("ann");
    for _ in 0..3 {
        let lease = number(&client.lease(&["phone"])["lease"]);
        client.release(lease);
    }
    let lease = number(&client.lease(&["phone"])["lease"]);
    (client, lease)
}

#[test]
fn a_lab_moves_to_a_database_and_back() {
    let Some(server) = postgres::shared() else { return };
    let mut alone = Broker::on("sqlite:lab.db", Some(LAB)).started();
    let (_client, last) = leased(&alone);
    alone.end(Signal::SIGKILL);
    let home = alone.home.path().to_owned();
    let database = server.database();
    let said = done(&home, &["copy", "--from", "sqlite:lab.db", "--to", &database]);
    assert_eq!((number(&said["sessions_ended"]), number(&said["last_lease"])), (1, last + SKIPPED), "{said}");
    let events = number(&proved(&home, &database)["events"]);
    assert_eq!(number(&said["events"]), number(&proved(&home, "sqlite:lab.db")["events"]));
    refused(&home, &["copy", "--from", "sqlite:lab.db", "--to", &database], "is not empty: name an empty database");

    let (mut first, mut second) = pair(&database, LAB);
    let mut client = Client::connect(first.port);
    client.open("bob");
    // One phone is kept from everybody, as its holder on the file may still use it.
    let lease = number(&client.lease(&["phone"])["lease"]);
    assert_eq!(lease, last + SKIPPED + 1);
    let other = client.acquire_with(serde_json::json!({ "needs": ["phone"], "wait_ms": 0 }));
    assert_eq!(other["state"], "ended", "{other}");
    let beside = proved(&home, &database);
    assert!(number(&beside["events"]) > events && beside["replayed"] == beside["events"], "{beside}");
    let back = ["copy", "--from", &database, "--to", "sqlite:back.db"];
    refused(&home, &back, "a broker uses this store, ws://");
    let backed_up = done(&home, &["backup", "backup.db", "--store", &database]);
    assert!(number(&backed_up["bytes"]) > 0 && !backed_up.to_string().contains("password"), "{backed_up}");
    assert_eq!(proved(&home, "sqlite:backup.db")["leases"], proved(&home, &database)["leases"]);
    client.release(lease);
    client.call("session.close", serde_json::json!({}));
    second.end(Signal::SIGTERM).exits(0);
    first.end(Signal::SIGTERM).exits(0);

    // Nobody is watched for: they said goodbye.
    let moved = store(&home, &back).exits(0);
    assert!(!moved.stderr.contains("watching") && moved.stderr.contains("compared each"), "{moved:?}");
    proved(&home, "sqlite:back.db");
    let restored = done(&home, &["restore", "backup.db", "--store", &server.database()]);
    assert_eq!(number(&restored["last_lease"]), lease + SKIPPED);
    let again = Broker::on(&format!("sqlite:{}", home.join("back.db").display()), None).started();
    let mut client = Client::connect(again.port);
    client.open("eve");
    assert_eq!(number(&client.lease(&["phone"])["lease"]), lease + SKIPPED + 1);
    // The original is as it was, and a broker may go on there.
    first.start();
    first.wait_leads();
}

#[test]
fn a_store_whose_broker_was_killed_is_moved_once_nobody_was_seen_for_a_while() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let mut killed = Broker::on(&database, Some(LAB)).started();
    killed.wait_leads();
    let (_client, last) = leased(&killed);
    killed.end(Signal::SIGKILL);
    let moved = store(killed.home.path(), &["copy", "--from", &database, "--to", "sqlite:copy.db"]).exits(0);
    assert!(moved.stderr.contains("watching") && moved.stderr.contains("ended 1 session and 1 lease;"), "{moved:?}");
    assert!(moved.stderr.contains(&(last + SKIPPED).to_string()), "{moved:?}");
    proved(killed.home.path(), "sqlite:copy.db");
}

#[test]
fn damage_in_a_database_is_found() {
    let Some(server) = postgres::shared() else { return };
    let database = server.database();
    let broker = Broker::on(&database, Some(LAB)).started();
    broker.wait_leads();
    let (_client, last) = leased(&broker);
    let home = broker.home.path();
    proved(home, &database);
    let sql = |statement: &str| {
        let name = database.rsplit('/').next().expect("a URL ends with the database");
        server.sql(name, statement).expect(statement);
    };
    for (statement, undo, table) in [
        ("UPDATE lease_end SET at = at + 1", "UPDATE lease_end SET at = at - 1", "lease_end"),
        (
            "UPDATE resource_used SET last_used = last_used + 1",
            "UPDATE resource_used SET last_used = last_used - 1",
            "resource_used",
        ),
        (
            "UPDATE journal SET event = -event WHERE event = 5",
            "UPDATE journal SET event = 5 WHERE event = -5",
            "journal",
        ),
        ("UPDATE lease_resource SET era = 9", "UPDATE lease_resource SET era = 0", "lease_resource"),
    ] {
        sql(statement);
        let said = store(home, &["check", "--json", "--store", &database]).exits(1).json();
        let findings = said["findings"].as_array().expect("a list");
        assert!(findings.iter().any(|finding| finding["table"] == table), "{statement}: {said:#}");
        sql(undo);
        proved(home, &database);
    }
    sql(&format!("DELETE FROM held WHERE lease = {last}"));
    let said = store(home, &["check", "--store", &database]).exits(1);
    assert!(said.stdout.contains("held") && said.stderr.contains("1 thing is wrong"), "{said:?}");
}

#[test]
fn what_is_no_store_or_cannot_be_one_is_told_without_the_password() {
    let Some(server) = postgres::shared() else { return };
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let home = home.path();
    let (empty, theirs) = (server.database(), server.database());
    let name = theirs.rsplit('/').next().expect("a URL ends with the database");
    server.sql(name, "CREATE TABLE theirs (x int)").expect("a table can be made");
    refused(home, &["check", "--store", &empty], "there is no store postgres://");
    refused(home, &["check", "--store", &theirs], "another program's tables");
    refused(home, &["copy", "--from", &empty, "--to", "sqlite:new.db"], "there is no store postgres://");
    let absent = empty.replace("/lab_", "/absent_");
    refused(home, &["check", "--store", &absent], "create it first");
    let guarded = server.url("guarded", "postgres").replace("guarded@", "guarded:hunter2@");
    let said = store(home, &["check", "--store", &guarded]).exits(1);
    assert!(said.stderr.contains("password") && !said.stderr.contains("hunter2"), "{said:?}");
    for line in [["--from", &empty, "--to", &empty], ["--from", "postgres://hunter2?x=1", "--to", &empty]] {
        let said = store(home, &[&["copy"], &line[..]].concat()).exits(2);
        assert!(!said.stderr.contains("hunter2"), "{said:?}");
    }
    store(home, &["restore", "backup.db", "--force", "--store", &empty]).exits(2);
    for command in ["backup", "restore"] {
        let said = store(home, &[command, "postgres://ann:hunter2@db/lab"]).exits(2);
        assert!(said.stderr.contains("--store") && !said.stderr.contains("hunter2"), "{said:?}");
    }
    // One database, another schema.
    let schema = format!("{empty}?options=-c%20search_path%3Dthere");
    refused(home, &["copy", "--from", &empty, "--to", &schema], "there is no store postgres://");
    assert!(!home.join("new.db").exists());
}
