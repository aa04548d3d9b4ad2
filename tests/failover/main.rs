//! The failure of brokers and of their database, from outside: three real brokers, a real PostgreSQL,
//! a load of real runners, a witness that asks nobody.
//!
//! ```text
//!   runs, probes ──▶ broker ──▶ wire ──▶ PostgreSQL      wire: a network that fails on demand
//!        │           broker ──▶ wire ──▶    │
//!        ▼           broker ──▶ wire ──▶    ▼
//!     witness: a file per resource       books: the journal
//! ```
//!
//! A few faults strike once each in every check; all of them strike many times in the long run, whose
//! figures are in docs/failover.md:
//!
//! ```text
//! LEASEHOLD_FAILOVER_ROUNDS=20 cargo test --release --all-features --test failover -- --ignored --nocapture
//! ```
//!
//! What is asserted are the promises and that things go on; times are told, never asserted.

#[expect(dead_code, reason = "every test binary uses its own part of the harness")]
#[path = "../common/mod.rs"]
mod common;

mod books;
mod clocks;
mod cluster;
mod faults;
mod load;
mod report;
mod trial;
mod wire;
mod witness;

use std::path::{Path, PathBuf};

use cluster::{Cluster, Database, Setup};
use faults::{FAULTS, Fault, named};
use report::Round;
use trial::Trial;

/// What strikes in every check: each way of taking over, each way of a write's end, both ways of the
/// database's.
const SHORT: &[&str] = &[
    "leader killed",
    "leader stopped as planned",
    "leader frozen, its write delivered late",
    "connection cut after a write was committed",
    "leader cut off from the database, silent",
    "database restarted, immediate",
];

#[test]
fn nothing_told_is_taken_back_and_nothing_is_shared_whatever_fails() {
    let Some(cluster) = cluster() else { return };
    let faults: Vec<&Fault> = SHORT.iter().map(|name| named(name)).collect();
    let rounds = run(cluster, &faults, 1, None);
    assert!(rounds.iter().all(|round| round.leases > 0), "{rounds:?}");
}

#[test]
#[ignore = "takes an hour: twenty rounds of each fault"]
fn the_long_run() {
    let rounds = variable("LEASEHOLD_FAILOVER_ROUNDS").map_or(20, |text| text.parse().expect("a number of rounds"));
    let names = variable("LEASEHOLD_FAILOVER_FAULTS");
    let faults: Vec<&Fault> = match &names {
        Some(names) => names.split(';').map(|name| named(name.trim())).collect(),
        None => FAULTS.iter().collect(),
    };
    let kept = variable("LEASEHOLD_FAILOVER_RESULTS").map(PathBuf::from);
    let cluster = cluster().expect("there is a PostgreSQL to start");
    let rounds = run(cluster, &faults, rounds, kept.as_deref());
    let rounds = kept.as_deref().map_or(rounds, report::kept);
    println!("{}", report::table(&rounds));
}

/// Lets every fault strike so many times, in turns, and answers what came of it. Panics where a
/// promise was broken, after the last round.
fn run(mut cluster: Cluster, faults: &[&Fault], rounds: u32, keep: Option<&Path>) -> Vec<Round> {
    cluster.start();
    let mut trial = Trial::start(cluster, seed());
    let mut all = Vec::new();
    for number in 1..=rounds {
        for fault in faults {
            let round = trial.round(fault, number);
            if let Some(keep) = keep {
                round.keep(keep);
            }
            all.push(round);
        }
    }
    settle(trial, all)
}

/// Lets everybody finish, and answers all rounds. Panics where a promise was broken.
fn settle(trial: Trial, mut all: Vec<Round>) -> Vec<Round> {
    let (last, cluster) = trial.finish();
    all.push(last);
    let broken: Vec<&String> = all.iter().flat_map(|round| round.violations.iter()).collect();
    let lost: u64 = all.iter().map(|round| round.lost).sum();
    if !broken.is_empty() || lost > 0 || variable("LEASEHOLD_FAILOVER_VERBOSE").is_some() {
        for node in &cluster.nodes {
            eprintln!("--- stderr of a broker:\n{}---", node.stderr());
        }
    }
    assert!(broken.is_empty(), "promises were broken: {broken:#?}");
    assert_eq!(lost, 0, "leases were lost to faults shorter than their ttl");
    all
}

/// Three brokers that share an empty database, not started; `None` where there is no PostgreSQL.
fn cluster() -> Option<Cluster> {
    let setup = Setup { inventory: load::LAB.to_owned(), args: Vec::new() };
    Some(Cluster::prepare(Database::find()?, &setup))
}

/// From `LEASEHOLD_TEST_SEED`, else drawn. Printed; a seed repeats how long the runs take, and not how
/// things fall together.
fn seed() -> u64 {
    let drawn = || u64::from_str_radix(&leasehold::clock::random_secret()[..15], 16).expect("it is hex");
    let seed = variable("LEASEHOLD_TEST_SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(drawn);
    eprintln!("LEASEHOLD_TEST_SEED={seed}");
    seed
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
