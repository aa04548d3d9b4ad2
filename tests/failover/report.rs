//! What came of the rounds: kept as a line of JSON each, told as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What came of one fault, once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    /// The fault's name.
    pub fault: String,
    /// Which of its rounds.
    pub number: u32,
    /// From the fault to the first new grant after the longest stretch without one, milliseconds.
    pub granting_ms: u64,
    /// That stretch, milliseconds.
    pub outage_ms: u64,
    /// From the fault until every session of those that measure was granted something again,
    /// milliseconds.
    #[serde(default)]
    pub everyone_ms: u64,
    /// Leases granted in the round.
    pub leases: u64,
    /// Runs that ended in it.
    pub runs: u64,
    /// Runs with the default ttl that were stopped for their lease.
    pub stopped: u64,
    /// Those of them that never should have been: the fault was shorter than the ttl.
    pub lost: u64,
    /// Runs with a ttl of 2 s that were stopped for their lease.
    pub stopped_brief: u64,
    /// How leases ended, by the books.
    pub ended: BTreeMap<String, u64>,
    /// What must not be, in words.
    pub violations: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl Round {
    /// Writes it down after those before it.
    pub fn keep(&self, file: &Path) {
        let line = serde_json::to_string(self).expect("a round is JSON");
        let opened = std::fs::File::options().create(true).append(true).open(file);
        let written = opened.and_then(|mut file| writeln!(file, "{line}"));
        written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }

    /// One line for who watches.
    pub fn line(&self) -> String {
        let Self { fault, number, granting_ms, outage_ms, everyone_ms, leases, stopped, stopped_brief, .. } = self;
        let mut line = format!(
            "{fault} {number}: granting again after {granting_ms} ms (no grant for {outage_ms} ms), to everyone \
             after {everyone_ms} ms, {leases} leases, stopped {stopped} of 30 s and {stopped_brief} of 2 s, ended {:?}",
            self.ended
        );
        for what in &self.violations {
            let _ = write!(line, "\n  VIOLATION: {what}");
        }
        for note in &self.notes {
            let _ = write!(line, "\n  {note}");
        }
        line
    }
}

/// The rounds that a file keeps.
pub fn kept(file: &Path) -> Vec<Round> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A table of all rounds, in Markdown.
pub fn table(rounds: &[Round]) -> String {
    let mut text = String::from(
        "| fault | rounds | granting again after, p50 | max | every session again, p50 | max | leases | leases lost | \
         violations | runs stopped, ttl 30 s | runs stopped, ttl 2 s |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    let mut faults: Vec<&str> = Vec::new();
    for round in rounds {
        if !faults.contains(&round.fault.as_str()) {
            faults.push(&round.fault);
        }
    }
    for fault in faults {
        let of: Vec<&Round> = rounds.iter().filter(|round| round.fault == fault).collect();
        let sum = |what: fn(&Round) -> u64| of.iter().map(|round| what(round)).sum::<u64>();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} of {} | {} |",
            fault,
            of.len(),
            middle_and_most(&of, |round| round.granting_ms),
            middle_and_most(&of, |round| round.everyone_ms),
            sum(|round| round.leases),
            sum(|round| round.lost),
            sum(|round| round.violations.len() as u64),
            sum(|round| round.stopped),
            sum(|round| round.runs),
            sum(|round| round.stopped_brief),
        );
    }
    text
}

fn middle_and_most(rounds: &[&Round], of: fn(&Round) -> u64) -> String {
    let mut times: Vec<u64> = rounds.iter().map(|round| of(round)).collect();
    times.sort_unstable();
    let most = times.len().saturating_sub(1);
    format!("{} | {}", seconds(times[most / 2]), seconds(times[most]))
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

#[test]
fn a_table_has_a_line_for_each_fault() {
    let round =
        |fault: &str, granting_ms, lost| Round { fault: fault.to_owned(), granting_ms, lost, ..Round::default() };
    let rounds = [round("a", 3_000, 0), round("b", 9, 1), round("a", 1_050, 0), round("a", 2_999, 0)];
    let table = table(&rounds);
    let lines: Vec<&str> = table.lines().skip(2).collect();
    assert_eq!(lines[0], "| a | 3 | 2.99 s | 3.00 s | 0.00 s | 0.00 s | 0 | 0 | 0 | 0 of 0 | 0 |");
    assert_eq!(lines[1], "| b | 1 | 0.00 s | 0.00 s | 0.00 s | 0.00 s | 0 | 1 | 0 | 0 of 0 | 0 |");
}
