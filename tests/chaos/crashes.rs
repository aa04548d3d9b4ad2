//! The broker is killed with -9 under load, again and again: nothing told is taken back.

use std::sync::atomic::Ordering;

use nix::sys::signal::Signal;

use super::common::broker::Broker;
use super::common::process::Process;
use super::common::random::Random;
use super::common::wait::until;
use super::runner::{Field, Runner};
use super::{LAB, held};

/// How often the broker is killed.
const KILLS: u64 = 50;
/// Runners at a time; more than there are resources for.
const RUNNERS: u64 = 8;
/// At most so many answers between two kills.
const ANSWERS_BETWEEN: u64 = 120;

#[test]
fn fifty_kills_under_load_lose_nothing_and_share_nothing() {
    let seed = seed();
    let field = Field::default();
    let mut broker = Broker::with_inventory(LAB);
    let port = broker.port();
    let resumed: u64 = std::thread::scope(|scope| {
        let field = &field;
        let start = |number| scope.spawn(move || Runner::new(number, port, seed, field).work());
        let runners: Vec<_> = (1..=RUNNERS).map(start).collect();
        let mut random = Random::new(seed, 0);
        for _ in 0..KILLS {
            let enough = field.answers.load(Ordering::Relaxed) + random.below(ANSWERS_BETWEEN);
            until("the load goes on", || {
                field.answers.load(Ordering::Relaxed) >= enough || field.failed.load(Ordering::Relaxed)
            });
            if field.failed.load(Ordering::Relaxed) {
                break;
            }
            broker.kill9();
            if random.below(4) == 0 {
                die_while_starting(&broker, random.below(2) == 0);
            }
            broker.start();
        }
        field.closing.store(true, Ordering::Relaxed);
        runners.into_iter().map(|runner| runner.join().expect("every runner finishes")).sum()
    });
    assert!(resumed >= KILLS, "with seed {seed}: {resumed} resumes are no load");
    let times = field.witness.times();
    assert_eq!(times.len(), 5, "with seed {seed}: not every resource was used: {times:?}");
    broker.restart();
    assert_eq!(held(&broker), Vec::<serde_json::Value>::new(), "with seed {seed}: everything was released");
}

/// A broker that is killed before it serves anybody: at once, or when it has opened its store.
fn die_while_starting(broker: &Broker, at_once: bool) {
    let mut process = Process::start(&mut broker.serve_command());
    if !at_once {
        process.stderr.wait_for("data in");
    }
    process.signal(Signal::SIGKILL);
    process.wait();
}

/// From `LEASEHOLD_TEST_SEED`, else drawn. Printed, so that a failure names it; what runs at the
/// same time is the system's doing, so a seed repeats the requests and not the interleaving.
fn seed() -> u64 {
    let given = std::env::var("LEASEHOLD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let drawn = || u64::from_str_radix(&leasehold::clock::random_secret()[..15], 16).expect("it is hex");
    let seed = given.unwrap_or_else(drawn);
    eprintln!("LEASEHOLD_TEST_SEED={seed}");
    seed
}
