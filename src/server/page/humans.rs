//! Numbers and times as people read them.

use crate::units::{rfc3339, show_duration_ms};

/// `1,234,567`.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// One or many of something.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// `12 B`, `3.4 MB`.
#[must_use]
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let (mut unit, mut tenths) = (None, u128::from(number) * 10);
    for name in UNITS {
        if tenths < 10_000 {
            break;
        }
        (unit, tenths) = (Some(name), tenths / 1_000);
    }
    match unit {
        None => format!("{number} B"),
        Some(unit) if tenths < 1_000 => format!("{}.{} {unit}", tenths / 10, tenths % 10),
        Some(unit) => format!("{} {unit}", tenths / 10),
    }
}

/// `2026-11-27 10:24:31 UTC`.
#[must_use]
pub fn moment(unix_ms: i64) -> String {
    let text = rfc3339(unix_ms);
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time} UTC"),
        _ => text,
    }
}

/// `3m05s ago`, as of a moment; `just now` below a second, or when clocks differ.
#[must_use]
pub fn ago(unix_ms: i64, now_ms: i64) -> String {
    match u64::try_from(now_ms - unix_ms) {
        Ok(passed @ 1_000..) => format!("{} ago", show_duration_ms(passed)),
        _ => "just now".to_owned(),
    }
}

/// How long from one moment to another; nothing for clocks that were set back.
#[must_use]
pub fn span(from_ms: i64, until_ms: i64) -> String {
    show_duration_ms(u64::try_from(until_ms - from_ms).unwrap_or(0))
}

/// A moment of a log since its beginning: `0:12.345`, `1:02:03.456`.
#[must_use]
pub fn elapsed(ms: u64) -> String {
    let (hours, minutes, seconds, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    match hours {
        0 => format!("{minutes}:{seconds:02}.{rest:03}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}.{rest:03}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{ago, bytes, count, counted, elapsed, moment};

    #[test]
    fn numbers_and_times_are_shown_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((&*counted(1, "line", "lines"), &*counted(0, "line", "lines")), ("1 line", "0 lines"));
        let shown = [0, 999, 1_000, 3_450_000, 123_400_000, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "3.4 MB", "123 MB", "18446744 TB"]);
        assert_eq!(moment(1_795_400_000_123), "2026-11-23 02:13:20 UTC");
        assert_eq!((&*ago(0, 125_000), &*ago(5, 0)), ("2m05s ago", "just now"));
        assert_eq!([12_345, 3_723_456].map(elapsed), ["0:12.345", "1:02:03.456"]);
    }
}
