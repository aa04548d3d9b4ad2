//! The lease protocol as a model, and a checker that goes through all of it.
//!
//! Clients, their sockets, the broker, its store, clocks that differ within a bound: everything
//! that may happen next, from every state. It knows nothing of leasehold's code; `docs/model.md`
//! says which of its functions each step stands for. `tests/model.rs` has the sizes.

mod actions;
mod broker;
mod client;
pub mod properties;
pub mod rules;
pub mod world;

use std::time::{Duration, Instant};

use stateright::{Checker, Model};

use self::rules::Size;

/// Steps that lead to one state, at most and about.
const STEPS_PER_STATE: usize = 16;

/// What a check found.
pub struct Outcome {
    /// States that differ.
    pub states: usize,
    /// Steps to the farthest.
    pub depth: usize,
    pub took: Duration,
    /// Whether every state was seen.
    pub whole: bool,
    found: Vec<(&'static str, String)>,
}

impl Outcome {
    /// The shortest way to a state that breaks a property, or that shows a possible one, as text.
    pub fn found(&self, property: &str) -> Option<&str> {
        self.found.iter().find(|(name, _)| *name == property).map(|(_, path)| path.as_str())
    }
}

/// Goes through every state, or gives up beyond `states_max`. Stops at the first broken property.
///
/// Not bounded by time: the checker's own timeout sleeps with its lock held, and stands still.
pub fn check(size: Size, states_max: usize) -> Outcome {
    let started = Instant::now();
    let always = stateright::HasDiscoveries::AnyFailures;
    // The checker counts steps, of which dozens lead to one state.
    let generated_max = states_max.saturating_mul(STEPS_PER_STATE);
    let checker = size.checker().threads(2).finish_when(always).target_state_count(generated_max).spawn_bfs().join();
    let took = started.elapsed();
    let found = checker.discoveries().into_iter().map(|(name, path)| {
        let last = format!("{:#?}", path.last_state());
        let steps: Vec<String> = path.into_actions().iter().map(|step| format!("  {step:?}\n")).collect();
        (name, format!("{}{last}", steps.concat()))
    });
    Outcome {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took,
        whole: checker.state_count() < generated_max,
        found: found.collect(),
    }
}
