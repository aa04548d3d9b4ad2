//! Durations, sizes, moments and hashes as people write and read them.
//!
//! Shared by the inventory file, the configuration and the command line, so that `90s` means the
//! same everywhere. Nothing here reads a clock.

/// Reads a duration with its unit (`500ms`, `90s`, `10m`, `1h30m`, `2d`); `0` needs none.
/// Answers milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let refuse =
        || format!("{text:?} is not a duration: expected a number with a unit, such as 500ms, 90s, 10m, 1h30m or 2d");
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(0);
    }
    let mut rest = trimmed;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refuse()),
        };
        rest = rest[letters..].trim_start();
        total = number.checked_mul(unit_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(refuse)?;
    }
    if trimmed.is_empty() { Err(refuse()) } else { Ok(total) }
}

/// Reads a number of bytes with its unit: `B`, decimal `kB`, `MB`, `GB`, `TB`, or binary `KiB`, `MiB`,
/// `GiB`, `TiB`; `0` needs none.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let refuse = || format!("{text:?} is no size: expected a whole number with a unit, such as 512KiB, 100MB or 2GiB");
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(0);
    }
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = trimmed[..digits].parse().map_err(|_| refuse())?;
    let unit: u64 = match trimmed[digits..].trim_start() {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(refuse()),
    };
    number.checked_mul(unit).ok_or_else(refuse)
}

/// A number of bytes for people, such that it reads back: `100MB`, `512KiB`, `1234B`.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    const UNITS: [(u64, &str); 8] = [
        (1 << 40, "TiB"),
        (1_000_000_000_000, "TB"),
        (1 << 30, "GiB"),
        (1_000_000_000, "GB"),
        (1 << 20, "MiB"),
        (1_000_000, "MB"),
        (1 << 10, "KiB"),
        (1_000, "kB"),
    ];
    let fits = UNITS.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// A duration for people: the two largest units that say something (`1h30m`, `2m05s`, `350ms`).
#[must_use]
pub fn show_duration_ms(ms: u64) -> String {
    let seconds = ms / 1_000;
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, 0) => format!("{ms}ms"),
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, 0) => format!("{m}m"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, 0, _) => format!("{h}h"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, 0, _, _) => format!("{d}d"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

/// A Unix moment in milliseconds as RFC 3339 in UTC, to the millisecond. Written by hand, as every
/// answer of the broker has some of these; outside the years 0 to 9999, where the form has no words
/// for it, the bare number.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    let (days, of_day) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    if !(0..=9_999).contains(&year) {
        return unix_ms.to_string();
    }
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let fields = [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, of_day / 3_600_000),
        (14, 2, of_day / 60_000 % 60),
        (17, 2, of_day / 1_000 % 60),
        (20, 3, of_day % 1_000),
    ];
    for (from, width, mut number) in fields {
        for place in text[from..from + width].iter_mut().rev() {
            *place += u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    }
    text.iter().copied().map(char::from).collect()
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]).collect()
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar. The
/// year is taken to begin in March, so that the leap day is its last.
const fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_BEFORE_1970: i64 = 719_468; // since 0000-03-01
    const DAYS_OF_400_YEARS: i64 = 146_097;
    let days = days + DAYS_BEFORE_1970;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year + (month <= 2) as i64, month, of_month)
}

#[cfg(test)]
mod tests {
    use super::{hex, parse_bytes, parse_duration_ms, rfc3339, show_bytes, show_duration_ms};

    #[test]
    fn sizes_need_a_unit_but_zero_and_are_shown_as_they_read() {
        for (text, bytes) in [("0", 0), ("17B", 17), ("512KiB", 524_288), ("100 MB", 100_000_000), ("2GiB", 2 << 30)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes), "{text}");
        }
        for text in ["", "10", "MB", "1.5GB", "-1B", "1mb", "99999999999TB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!((show_bytes(100_000_000), show_bytes(1 << 20)), ("100MB".to_owned(), "1MiB".to_owned()));
    }

    #[test]
    fn bytes_are_two_digits_each() {
        assert_eq!((hex(&[]), hex(&[0, 7, 0xA0, 0xFF])), (String::new(), "0007a0ff".to_owned()));
    }

    #[test]
    fn durations_need_a_unit_but_zero() {
        for (text, ms) in [("0", 0), ("500ms", 500), ("90s", 90_000), ("1h30m", 5_400_000), ("2d", 172_800_000)] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in ["", "10", "s", "1w", "-5s", "1h-", "99999999999999d"] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_by_their_two_largest_units() {
        for (ms, text) in [(350, "350ms"), (2_000, "2s"), (125_000, "2m05s"), (5_400_000, "1h30m"), (86_400_000, "1d")]
        {
            assert_eq!(show_duration_ms(ms), text);
        }
    }

    #[test]
    fn moments_are_rfc3339_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_795_400_000_123), "2026-11-23T02:13:20.123Z");
        // Every leap rule, and before 1970: as a library has it.
        let half_a_day_over = 43_200_000 + 11 * 86_400_000 + 987;
        for moment in (-62_167_219_200_000..253_402_300_800_000_i64).step_by(half_a_day_over) {
            let expected = jiff::Timestamp::from_millisecond(moment).unwrap();
            assert_eq!(rfc3339(moment), format!("{expected:.3}"));
        }
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
    }
}
