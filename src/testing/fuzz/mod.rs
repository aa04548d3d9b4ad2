//! Fuzz targets: what strangers, operators and disks can hand to leasehold, read as bytes.
//!
//! A target is a function of bytes that panics when a promise is broken. Two things drive them:
//! libFuzzer (`fuzz/`, `scripts/fuzz`), which learns from coverage and needs a nightly toolchain,
//! and `tests/fuzz.rs`, which gives every `cargo test` the kept seeds and a bounded number of
//! inputs made from them by [`Mutator`]. What a target holds is written at its function.

mod bytes;
mod commands;
mod deliveries;
mod lines;
mod mutate;
mod said;
mod texts;

pub use commands::commands;
pub use deliveries::deliveries;
pub use lines::lines;
pub use mutate::Mutator;
pub use said::{broker_says, sse};
pub use texts::{cel, config, frames, inventory, journal, log_times, need, pipelines};

/// One of the targets.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its seeds' folder and of its program under `fuzz/`.
    pub name: &'static str,
    /// Holds the promises against an input. Answers whether the input got past reading, so that
    /// seeds which prove nothing are noticed.
    pub body: fn(&[u8]) -> bool,
    /// How many made inputs `cargo test` gives it: a second's worth at most, unoptimised.
    pub tries: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "broker_says", body: broker_says, tries: 1_000 },
    Target { name: "cel", body: cel, tries: 2_000 },
    Target { name: "commands", body: commands, tries: 60 },
    Target { name: "config", body: config, tries: 2_000 },
    Target { name: "deliveries", body: deliveries, tries: 2_000 },
    Target { name: "frames", body: frames, tries: 5_000 },
    Target { name: "inventory", body: inventory, tries: 1_000 },
    Target { name: "journal", body: journal, tries: 1_000 },
    Target { name: "lines", body: lines, tries: 2_000 },
    Target { name: "log_times", body: log_times, tries: 5_000 },
    Target { name: "need", body: need, tries: 5_000 },
    Target { name: "pipelines", body: pipelines, tries: 2_000 },
    Target { name: "sse", body: sse, tries: 2_000 },
];
