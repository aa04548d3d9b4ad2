//! What was measured, as a table for people or one line of JSON with stable keys.

use serde_json::{Map, Value};

use super::histogram::Histogram;
use crate::cli::Failure;
use crate::cli::output::{self, Details, Screen};

/// Keys and values in the order they were found.
#[derive(Clone, Debug)]
pub(super) struct Report(Vec<(String, Value)>);

impl Report {
    /// A report on this mode.
    pub(super) fn new(mode: &str) -> Self {
        Self(vec![("mode".to_owned(), mode.into())])
    }

    /// Adds a whole number.
    pub(super) fn whole(&mut self, key: &str, number: u64) {
        self.0.push((key.to_owned(), number.into()));
    }

    /// Adds how many there were and how many that is a second.
    pub(super) fn rate(&mut self, what: &str, number: u64, over_us: u64) {
        self.whole(what, number);
        let per_s = u128::from(number) * 1_000_000 / u128::from(over_us.max(1));
        self.whole(&format!("{what}_per_s"), u64::try_from(per_s).unwrap_or(u64::MAX));
    }

    /// Adds the quantiles of a latency; nothing where none was seen.
    pub(super) fn latency(&mut self, what: &str, seen: &Histogram) {
        if seen.total() == 0 {
            return;
        }
        for (name, per_mille) in [("p50", 500), ("p99", 990), ("p999", 999)] {
            self.whole(&format!("{what}_{name}_us"), seen.per_mille(per_mille));
        }
    }

    /// One line.
    pub(super) fn json(&self) -> Result<String, Failure> {
        let map: Map<String, Value> = self.0.iter().cloned().collect();
        output::json(&map)
    }

    /// A line each.
    pub(super) fn text(&self) -> String {
        let mut details = Details::new();
        for (key, value) in &self.0 {
            details.fact(key, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        details.render(Screen::of_stdout())
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, Report};

    #[test]
    fn the_keys_are_as_documented() {
        let mut grants = Histogram::default();
        grants.record(100);
        let mut report = Report::new("cycle");
        report.rate("cycles", 500, 250_000);
        report.latency("grant", &grants);
        report.latency("handover", &Histogram::default());
        let line = report.json().expect("numbers are JSON");
        let read: serde_json::Value = serde_json::from_str(&line).expect("it reads back");
        assert_eq!(
            read,
            serde_json::json!({
                "mode": "cycle", "cycles": 500, "cycles_per_s": 2_000,
                "grant_p50_us": 100, "grant_p99_us": 100, "grant_p999_us": 100,
            })
        );
    }
}
