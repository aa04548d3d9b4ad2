//! How brokers start: on an empty database, at one moment, with files that differ, with what is wrong.

use leasehold::testing::postgres;
use serde_json::json;

use super::LAB;
use super::brokers::{Broker, leader_of};
use super::common::wait::until;

#[test]
fn two_that_start_at_one_moment_on_an_empty_database_agree() {
    let Some(server) = postgres::shared() else { return };
    let store = server.database();
    let (mut one, mut other) = (Broker::on(&store, Some(LAB)), Broker::on(&store, Some(LAB)));
    std::thread::scope(|scope| {
        scope.spawn(|| one.start());
        scope.spawn(|| other.start());
    });
    let (leader, standby) = leader_of(&mut one, &mut other);
    standby.wait_follows(leader);
    let phones = leader.get("/v1/resources").ok()["items"].as_array().map(Vec::len);
    assert_eq!(phones, Some(2), "the inventory was filled once");
    assert_eq!(leader.status()["epoch"], 1);
}

#[test]
fn a_file_fills_an_empty_inventory_and_nothing_else() {
    let Some(server) = postgres::shared() else { return };
    let store = server.database();
    let mut one = Broker::on(&store, Some(LAB)).started();
    one.wait_leads();
    until("it says what it did", || one.said().contains("lab.toml applied to the empty inventory"));
    one.end(nix::sys::signal::Signal::SIGTERM).exits(0);

    let more = format!("{LAB}\n[[resource]]\nname = \"phone-3\"\npool = \"phone\"\n");
    let other = Broker::on(&store, Some(&more)).started();
    other.wait_leads();
    let differs = "lab.toml differs from the inventory on the shared store (1 changes)";
    until("it says what it leaves alone", || other.said().contains(differs));
    assert_eq!(other.get("/v1/resources").ok()["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(other.status()["inventory_error"], json!(null));
}

#[test]
fn no_password_is_shown() {
    let Some(server) = postgres::shared() else { return };
    let plain = server.database();
    let name = plain.rsplit('/').next().expect("a URL ends with its database");
    let secret = "p%40ss%2Fw%3Ard%25%26%3F";
    let url = format!("postgres://guarded:{secret}@127.0.0.1:{}/{name}", server.port());
    let broker = Broker::on(&url, None).env("LEASEHOLD_LOG", "debug").started();
    broker.wait_leads();
    let status = broker.status();
    assert_eq!(status["store"], format!("postgres://guarded@127.0.0.1:{}/{name}", server.port()));
    for text in [broker.said(), status.to_string(), broker.get("/metrics").body] {
        assert!(!text.contains(secret) && !text.contains(postgres::PASSWORD), "{text}");
    }
    // The same from the environment, where no list of processes shows it.
    let other = server.url("guarded", name);
    let other = Broker::on(&other, None).env("PGPASSWORD", postgres::PASSWORD).started();
    other.wait_follows(&broker);
    assert!(!other.said().contains(postgres::PASSWORD), "{}", other.said());
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_opened() {
    let usage = |store: &str, args: &[&str], says: &str| {
        let broker = args.iter().fold(Broker::on(store, None), |broker, arg| broker.arg(arg));
        let output = broker.launch().wait().exits(2);
        assert!(output.stderr.contains(says), "{}", output.stderr);
        assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
    };
    usage("postgres://me:hunter2@db:many/lab", &[], "invalid port number");
    usage("postgres://me:hunter2@db/lab?sslmod=require", &[], "none of sslmode");
    usage("postgres://me:hunter2@db/lab", &["--advertise", "db:5327"], "no scheme");
    usage("postgres://me:hunter2@db/lab", &["--term", "10ms"], "--term 10ms is out of range: expected 1s to 1m");
    usage("postgres://me:hunter2@db/lab", &["--listen", "0.0.0.0:0", "--insecure"], "cannot be used multiple times");
    usage("sqlite:lab.db", &["--term", "2s"], "--term is for brokers that share a store");
}

#[test]
fn a_database_of_another_program_ends_it_or_is_waited_for() {
    let Some(server) = postgres::shared() else { return };
    let store = server.database();
    let name = store.rsplit('/').next().expect("a URL ends with its database");
    server.sql(name, "CREATE TABLE theirs (id INT)").expect("a table can be made");
    let broker = Broker::on(&store, None).started();
    until("it says what is wrong", || broker.said().contains("another program's tables"));
    assert_eq!(broker.get("/readyz").status, 503);
    server.sql(name, "DROP TABLE theirs").expect("a table can be dropped");
    broker.wait_leads();
}

#[test]
fn one_that_cannot_take_the_books_over_leaves_the_lead_to_another() {
    let Some(server) = postgres::shared() else { return };
    let store = server.database();
    let mut first = Broker::on(&store, Some(LAB)).started();
    first.wait_leads();
    first.end(nix::sys::signal::Signal::SIGTERM).exits(0);
    // Somebody whose rights end before the books: the lead can be taken, and what is led not read.
    let name = store.rsplit('/').next().expect("a URL ends with its database");
    let rights = "CREATE ROLE half; GRANT half TO leasehold; GRANT USAGE ON SCHEMA public TO half;
        GRANT SELECT ON leasehold_version, journal TO half; GRANT SELECT, UPDATE ON lab TO half;
        GRANT SELECT, INSERT, UPDATE, DELETE ON broker TO half";
    server.sql(name, rights).expect("rights can be given");
    let mut half = Broker::on(&format!("{store}?options=-c%20role%3Dhalf"), None).started();
    half.process().stderr.wait_for("the lead was taken, and the books cannot be");
    let whole = Broker::on(&store, Some(LAB)).started();
    whole.wait_leads();
    half.wait_follows(&whole);
}
