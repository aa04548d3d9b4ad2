//! From a seed to the shortest script that still breaks the same promise.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::audit::Broken;
use super::script::Script;
use super::workload;
use super::world::{self, Outcome};

/// Runs that shrinking may take.
const TRIES_MAX: u32 = 400;

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Found {
    /// The promise, and how.
    pub broken: Broken,
    /// What leads to it.
    pub script: Script,
}

impl Script {
    /// What a seed makes: a broker, or several that share the store.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        workload::script(seed, workload::brokers(seed))
    }

    /// What a seed makes of a broker that has the store to itself.
    #[must_use]
    pub fn alone(seed: u64) -> Self {
        workload::script(seed, 1)
    }

    /// What a seed makes of several brokers.
    #[must_use]
    pub fn shared(seed: u64) -> Self {
        workload::script(seed, 3)
    }

    /// Carries it out; a panic is a broken promise too.
    #[must_use]
    pub fn play(&self) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| world::run(self, false))).unwrap_or_else(|panic| {
            let how = panic.downcast_ref::<String>().map(String::as_str);
            let how = how.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned();
            Outcome { broken: Some(Broken { promise: "does not panic", how }), ..Outcome::default() }
        })
    }
}

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64) -> Outcome {
    Script::of_seed(seed).play()
}

/// Takes actions away as long as the same promise stays broken: halves first, then smaller
/// pieces, at last one at a time.
#[must_use]
pub fn shrink(script: &Script) -> Option<Found> {
    let mut best = Found { broken: script.play().broken?, script: script.clone() };
    let mut tries = 0;
    let mut piece = best.script.actions.len().div_ceil(2);
    while piece > 0 && tries < TRIES_MAX {
        let mut from = 0;
        let mut smaller = false;
        while from < best.script.actions.len() && tries < TRIES_MAX {
            tries += 1;
            let mut less = best.script.clone();
            let until = (from + piece).min(less.actions.len());
            less.actions.drain(from..until);
            match less.play().broken {
                Some(broken) if broken.promise == best.broken.promise => {
                    best = Found { broken, script: less };
                    smaller = true;
                }
                _ => from += piece,
            }
        }
        if piece == 1 && !smaller {
            break;
        }
        piece = if piece == 1 { 1 } else { piece / 2 };
    }
    Some(best)
}
