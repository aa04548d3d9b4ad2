//! What a check finds: so many of them by table and key, the rest counted.

use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

/// Findings that are kept; more are counted.
const KEPT_MAX: usize = 100;
/// Differences of one record that are told.
const DIFFERENCES_MAX: usize = 3;
/// Characters of a value that are shown.
const SHOWN_MAX: usize = 80;

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The table it is in.
    pub table: &'static str,
    /// The row; empty where it is about the table.
    pub key: String,
    /// What is wrong, in words.
    pub what: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// The first of them.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

impl Findings {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.more.saturating_add(self.findings.len() as u64)
    }

    /// Notes a finding.
    pub fn add(&mut self, table: &'static str, key: impl Display, what: impl Into<String>) {
        if self.findings.len() < KEPT_MAX {
            self.findings.push(Finding { table, key: key.to_string(), what: what.into() });
        } else {
            self.more += 1;
        }
    }
}

/// Where two values differ, in words; `None` where they do not.
pub fn difference<T: Serialize>(expected: &T, found: &T) -> Option<String> {
    let (Ok(expected), Ok(found)) = (serde_json::to_value(expected), serde_json::to_value(found)) else {
        return Some("it cannot be told as JSON".to_owned());
    };
    let mut differences = Vec::new();
    differ("", &expected, &found, &mut differences);
    let more = differences.len().saturating_sub(DIFFERENCES_MAX);
    differences.truncate(DIFFERENCES_MAX);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    if differences.is_empty() { None } else { Some(format!("{}{more}", differences.join(", "))) }
}

fn differ(path: &str, expected: &Value, found: &Value, differences: &mut Vec<String>) {
    if expected == found {
        return;
    }
    if let (Value::Object(expected), Value::Object(found)) = (expected, found) {
        let mut keys: Vec<&String> = expected.keys().chain(found.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or(Value::Null);
            differ(&path, &of(expected), &of(found), differences);
        }
        return;
    }
    let what = if path.is_empty() { "it" } else { path };
    differences.push(format!("{what} is {} and should be {}", shown(found), shown(expected)));
}

/// A value, cut where it is long.
fn shown(value: &Value) -> String {
    cut(&value.to_string())
}

/// A text, cut where it is long.
pub fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(SHOWN_MAX).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Findings, KEPT_MAX, difference};

    #[test]
    fn a_difference_names_what_differs() {
        let told = |expected, found| difference(&expected, &found);
        assert_eq!(told(json!({"a": {"b": 1}}), json!({"a": {"b": 1}})), None);
        let one = told(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": 3, "c": 2}}));
        assert_eq!(one.as_deref(), Some("a.b is 3 and should be 1"));
        let many = told(json!({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}), json!({}));
        assert!(many.as_deref().is_some_and(|told| told.ends_with(", and 2 more")), "{many:?}");
    }

    #[test]
    fn findings_are_bounded_and_counted() {
        let mut findings = Findings::default();
        for key in 0..KEPT_MAX + 7 {
            findings.add("pool", key, "gone");
        }
        assert_eq!((findings.findings.len(), findings.more), (KEPT_MAX, 7));
    }
}
