//! How fast deliveries are journalled, measured by hand: it asserts nothing that a busy machine would break.
//!
//! `cargo test --release --all-features --test pipeline -- --ignored --nocapture deliveries_a_second` prints it.
//! With `LEASEHOLD_LOAD_PORT` it asks a broker that runs there already, with the repository `acme/app` of GitHub
//! and the secret of the tests' forges.

use std::thread;

use leasehold::clock::{BootTime, boot_now, boot_now_us};
use leasehold::testing::postgres::Server;

use super::brokers;
use super::common::broker::Broker;
use super::common::forge::Kind;
use super::common::forge::delivery::{Delivery, SECRET};
use super::common::wait::clock_reaches;
use super::fake::{APP, PHONE, Repo, config, pipeline};

/// Deliveries a second, all senders together.
const A_SECOND: u64 = 200;
/// Senders, each with a connection of its own for every delivery.
const SENDERS: u64 = 8;
/// For how long.
const SECONDS: u64 = 20;
/// Of so many deliveries one starts a build; the others push branches that nothing is built of.
const ONE_BUILDS_OF: u64 = 20;
/// What a push of a few commits comes to.
const BODY_BYTES: usize = 8 * 1024;

#[test]
#[ignore = "it measures, for 20 s on each store, and is to have the machine for itself"]
fn deliveries_a_second() {
    let repo = Repo::new();
    let head = repo.commit("more");
    if let Ok(port) = std::env::var("LEASEHOLD_LOAD_PORT") {
        return load("there", port.parse().expect("a port"), &head);
    }
    let text = config(&repo, &pipeline("unit", "branches = [\"main\"]"));
    let secret = ("LEASEHOLD_GITHUB_WEBHOOK_SECRET", SECRET);
    let broker = Broker::with(PHONE).config(text.as_str()).env(secret.0, secret.1).start();
    load("SQLite", broker.port(), &head);
    drop(broker);
    // One that syncs; that of the tests does not.
    let Some(server) = Server::find(&[]) else { return };
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let path = folder.path().join("leasehold.toml");
    let text = format!("{text}[logs]\nurl = \"file://{}\"\n", folder.path().display());
    std::fs::write(&path, text).expect("a file can be written");
    let broker = brokers::Broker::on(&server.database(), Some(PHONE)).env(secret.0, secret.1);
    let broker = broker.arg("--config").arg(path.to_str().expect("a plain path")).started();
    broker.wait_leads();
    load("PostgreSQL", broker.port, &head);
}

/// Delivers to a broker for a while, and tells how long that took.
pub fn load(what: &str, port: u16, head: &str) {
    let begin = boot_now().plus(200);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let head = head.to_owned();
            thread::spawn(move || send(port, sender, &head, begin))
        })
        .collect();
    let mut took_us: Vec<u64> = senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect();
    took_us.sort_unstable();
    let at = |part: f64| took_us[((took_us.len() - 1) as f64 * part) as usize] as f64 / 1_000.0;
    println!(
        "    {what}: {} of {BODY_BYTES} bytes at {A_SECOND} a second: p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, all \
         {:.1} ms",
        took_us.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    assert_eq!(took_us.len() as u64, A_SECOND * SECONDS, "each was accepted");
}

/// Sends one sender's share, each at its time whatever became of those before; answers how long each took,
/// microseconds.
fn send(port: u16, sender: u64, head: &str, begin: BootTime) -> Vec<u64> {
    let mut took_us = Vec::new();
    for number in 0..A_SECOND * SECONDS / SENDERS {
        let place = number * SENDERS + sender;
        let branch = if place.is_multiple_of(ONE_BUILDS_OF) { "main".to_owned() } else { format!("topic/{place}") };
        let before = format!("{:040x}", place + 1);
        let mut delivery = Delivery::push(Kind::Github, APP, &branch, &before, head);
        let pad = "x".repeat(BODY_BYTES.saturating_sub(delivery.body.len()));
        delivery.body.insert_str(delivery.body.len() - 1, &format!(",\"pad\":\"{pad}\""));
        let at = begin.plus(place * 1_000 / A_SECOND);
        // Late, because the one before took long: that counts. A broker that stands still is not excused by
        // who waits for it.
        let late = boot_now() > at;
        clock_reaches(at);
        let from_us = if late { at.0 * 1_000 } else { boot_now_us() };
        let answer = delivery.send(port);
        took_us.push(boot_now_us().saturating_sub(from_us));
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    took_us
}
