//! How the things of a lab are put in words, alike in every command: moments with how long ago
//! they were, jobs, numbers with their letter.
//!
//! Nothing here prints or asks; escaping is `output.rs`'s.

use std::collections::BTreeMap;

use super::output::round_ms;
use crate::clock;
use crate::protocol::info::PickInfo;
use crate::units::show_duration_ms;

/// The lab's now, as far as an answer tells it. Where it does not, the wall-clock twins of its
/// moments are compared with this machine's clock: for display only.
#[derive(Clone, Copy, Debug)]
pub struct Now(pub Option<u64>);

impl Now {
    /// How long ago a moment was; zero for one to come.
    #[must_use]
    pub fn since_ms(self, at: u64, at_time: &str) -> u64 {
        self.distance_ms(at, at_time).try_into().unwrap_or(0)
    }

    /// How long it is until a moment; zero for one that is over.
    #[must_use]
    pub fn until_ms(self, at: u64, at_time: &str) -> u64 {
        self.distance_ms(at, at_time).saturating_neg().try_into().unwrap_or(0)
    }

    fn distance_ms(self, at: u64, at_time: &str) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        match (self.0, at_time.parse::<jiff::Timestamp>()) {
            (Some(now), _) => signed(now).saturating_sub(signed(at)),
            (None, Ok(moment)) => clock::wall_now_ms().saturating_sub(moment.as_millisecond()),
            (None, Err(_)) => 0,
        }
    }

    /// `2026-11-22T23:33:20Z (3m12s ago)`.
    #[must_use]
    pub fn since(self, at: u64, at_time: &str) -> String {
        format!("{} ({} ago)", to_seconds(at_time), self.for_how_long(at, at_time))
    }

    /// `3m12s`: how long something lasts that began then.
    #[must_use]
    pub fn for_how_long(self, at: u64, at_time: &str) -> String {
        show_duration_ms(round_ms(self.since_ms(at, at_time)))
    }

    /// `2026-11-22T23:33:20Z (in 3m12s)`.
    #[must_use]
    pub fn until(self, at: u64, at_time: &str) -> String {
        format!("{} ({})", to_seconds(at_time), self.in_how_long(at, at_time))
    }

    /// `in 3m12s`, or `over`.
    #[must_use]
    pub fn in_how_long(self, at: u64, at_time: &str) -> String {
        match self.until_ms(at, at_time) {
            0 => "over".to_owned(),
            ms => format!("in {}", show_duration_ms(round_ms(ms))),
        }
    }
}

/// RFC 3339 to the second.
#[must_use]
pub fn to_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, fraction)) if fraction.ends_with('Z') => format!("{seconds}Z"),
        _ => time.to_owned(),
    }
}

/// For which job something is held or waited for: the tag `job`, else the command, else the note.
#[must_use]
pub fn job(tags: &BTreeMap<String, String>, note: Option<&str>) -> Option<String> {
    ["job", "command"].iter().find_map(|tag| tags.get(*tag)).cloned().or_else(|| note.map(str::to_owned))
}

/// The names of what a lease holds, slots beyond one told.
#[must_use]
pub fn picks(resources: &BTreeMap<String, Vec<PickInfo>>) -> String {
    let names = resources.values().flatten().map(|pick| match pick.slots {
        0 | 1 => pick.name.clone(),
        slots => format!("{}/{slots}", pick.name),
    });
    names.collect::<Vec<_>>().join(" ")
}

/// Labels or properties, `os=android api=34`: texts without their quotes.
#[must_use]
pub fn values(map: &BTreeMap<String, serde_json::Value>) -> String {
    map.iter().map(|(key, value)| format!("{key}={}", value_text(value))).collect::<Vec<_>>().join(" ")
}

/// A JSON value as people write it.
#[must_use]
pub fn value_text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `1 resource`, `2 resources`.
#[must_use]
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Reads a number with or without its letter: `s7` or `7`.
pub fn numbered(text: &str, letter: char, what: &str) -> Result<u64, String> {
    let digits = text.strip_prefix(letter).unwrap_or(text);
    if !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(number) = digits.parse()
    {
        return Ok(number);
    }
    Err(format!("expected the number of a {what}, such as {letter}7 or 7"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Now, job, numbered, to_seconds, values};

    #[test]
    fn moments_are_told_with_their_distance() {
        let now = Now(Some(100_000));
        assert_eq!(now.since(40_000, "2026-11-22T23:33:20.000Z"), "2026-11-22T23:33:20Z (1m ago)");
        assert_eq!(now.until(162_500, "2026-11-22T23:33:20.000Z"), "2026-11-22T23:33:20Z (in 1m02s)");
        assert_eq!(now.in_how_long(99_000, "x"), "over");
        assert_eq!((now.since_ms(100_001, "x"), now.until_ms(1, "x")), (0, 0));
    }

    #[test]
    fn without_the_labs_now_the_twins_are_compared_with_the_wall_clock() {
        let long_ago = Now(None).since_ms(5, "2020-01-01T00:00:00.000Z");
        assert!(long_ago > 365 * 86_400_000, "{long_ago}");
        assert_eq!(Now(None).since_ms(5, "no moment"), 0);
    }

    #[test]
    fn only_a_number_with_its_own_letter_is_taken() {
        assert_eq!(numbered("s7", 's', "session"), Ok(7));
        assert_eq!(numbered("7", 's', "session"), Ok(7));
        for text in ["", "s", "c7", "7s", "-1", "+1", "99999999999999999999"] {
            assert!(numbered(text, 's', "session").is_err(), "{text}");
        }
    }

    #[test]
    fn a_job_is_what_says_most() {
        let tags = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        assert_eq!(job(&tags(&[("command", "make"), ("job", "ci/7")]), Some("n")).as_deref(), Some("ci/7"));
        assert_eq!(job(&tags(&[("command", "make")]), Some("n")).as_deref(), Some("make"));
        assert_eq!(job(&tags(&[]), Some("n")).as_deref(), Some("n"));
        assert_eq!(job(&tags(&[]), None), None);
    }

    #[test]
    fn texts_are_shown_without_quotes() {
        let map = BTreeMap::from([("api".to_owned(), 34.into()), ("os".to_owned(), "android".into())]);
        assert_eq!(values(&map), "api=34 os=android");
        assert_eq!(to_seconds("2026-11-22T23:33:20.123Z"), "2026-11-22T23:33:20Z");
    }
}
