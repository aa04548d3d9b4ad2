//! The simulation in the test-suite: that it repeats itself to the byte, that kept seeds hold, and
//! that fresh ones do.
//!
//! Bounded by worlds, never by time. `LEASEHOLD_SIM_SEED` names the first fresh seed, else the
//! clock does; it is printed, and a seed that breaks a promise prints all that replays it.

use std::collections::BTreeMap;

use leasehold::clock;
use leasehold::testing::{Script, Stats, run, shrink};

/// Fresh worlds, of some thousand steps each.
const FRESH: u64 = 160;
/// What must have happened, or the worlds prove nothing.
const HAPPENS: &[&str] = &[
    "client-granted",
    "client-lost",
    "client-ending",
    "client-offline",
    "client-online",
    "commit-fails",
    "commit-unknown",
    "cut",
    "deposed",
    "frozen-broker",
    "frozen-client",
    "frozen-leader",
    "half-open",
    "handed-over",
    "keyed-granted",
    "kill",
    "late-batch",
    "leader-cut-off",
    "leader-killed",
    "partition",
    "paused-leader",
    "paused-looking",
    "provide",
    "repeat",
    "repeat-other",
    "slow-reader",
    "stall",
    "stop",
    "superseded",
    "takeover",
    "term-over",
    "wall-jump",
];

/// Fails with everything that replays a broken promise.
fn holds(script: &Script) -> Stats {
    let (seed, outcome) = (script.seed, script.play());
    if let Some(broken) = outcome.broken {
        let found = shrink(script).map_or_else(|| script.to_string(), |found| found.script.to_string());
        panic!(
            "seed {seed} breaks the promise: {}\n{}\ncommit {}\nreplay with `simulate --script FILE`:\n{found}",
            broken.promise,
            broken.how,
            option_env!("GITHUB_SHA").unwrap_or("of this tree"),
        );
    }
    outcome.stats
}

fn kept() -> Vec<u64> {
    let text = include_str!("../data/seeds");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let seeds = lines.map(|line| line.split_whitespace().next().and_then(|seed| seed.parse().ok()));
    seeds.map(|seed| seed.expect("tests/data/seeds has lines `SEED what it found`")).collect()
}

/// First of all: what differs between two runs of one seed proves nothing about the broker.
#[test]
fn a_meta_check_two_runs_of_a_seed_are_the_same_to_the_byte() {
    for script in [Script::alone(1), Script::alone(7), Script::shared(1), Script::shared(7)] {
        let seed = script.seed;
        let (one, two) = (run(&script, true), run(&script, true));
        assert!(one.trace.len() > 10_000 && one.trace == two.trace, "seed {seed} differs");
        assert_eq!(one.stats, two.stats);
    }
}

#[test]
fn a_script_is_read_as_it_was_written() {
    for script in [Script::alone(3), Script::shared(3)] {
        assert_eq!(script.to_string().parse(), Ok(script));
    }
}

#[test]
fn kept_seeds_hold() {
    for seed in kept() {
        holds(&Script::alone(seed));
        holds(&Script::shared(seed));
    }
}

#[test]
fn fresh_seeds_hold() {
    let named = std::env::var("LEASEHOLD_SIM_SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = named.unwrap_or_else(|| clock::boot_now_us() % 1_000_000_000);
    println!("fresh seeds from {first}");
    let mut all = Stats::default();
    for seed in first..first + FRESH {
        all.add(&holds(&Script::of_seed(seed)));
    }
    println!("{} steps: {:?} {:?}", all.steps, all.happened, all.events);
    let seen: BTreeMap<_, _> = all.happened.iter().filter(|(_, times)| **times > 0).collect();
    for kind in HAPPENS {
        assert!(seen.contains_key(kind), "{kind} never happened: {seen:?}");
    }
}

/// A mutant that no longer applies proves nothing: `scripts/mutants` builds and runs them all.
#[test]
fn every_mutant_still_applies() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut patches = 0;
    for entry in std::fs::read_dir(root.join("tests/mutants")).expect("tests/mutants is there") {
        let path = entry.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("a patch");
        assert!(text.starts_with("# "), "{} begins with a line saying what it breaks", path.display());
        let told = std::process::Command::new("git").args(["apply", "--check"]).arg(&path).current_dir(root).output();
        let told = told.expect("git is there, as it was for the clone");
        assert!(told.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&told.stderr));
        patches += 1;
    }
    assert!(patches >= 17, "{patches} mutants");
}
