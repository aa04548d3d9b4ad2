//! When the lines of a log began, as they stand before the bytes of an append.
//!
//! ```text
//!   1795775073000;1+0,3+12,1+250
//!   from this moment one line begins at once, three 12 ms later, one 250 ms after those
//! ```
//!
//! A line begins with its first byte, so bytes that go on with a line begun before have no entry, and a
//! text that only does so has none at all (`1795775073000;`). The text is made by an agent and read by a
//! broker, which believes nothing in it: [`LineTimes::parse`] bounds all of it, and the broker counts the
//! lines itself.

use std::fmt::{self, Write as _};

use super::builds::LOG_CHUNK_BYTES_MAX;

/// Bytes of the line of times, its line feed not counted. A sender that needs more sends fewer lines at once.
pub const LOG_TIMES_BYTES_MAX: usize = 256 * 1024;
/// The last moment that a line can have: the end of the year 9999, Unix milliseconds.
pub const LOG_MOMENT_MS_MAX: u64 = 253_402_300_799_999;

/// When lines began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineTimes {
    from_ms: u64,
    groups: Vec<Together>,
    lines: u64,
    last_ms: u64,
}

/// Lines that began in the same millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// How many; at least one.
    pub lines: u32,
    /// How long after those before, milliseconds; the first after the moment that the text begins with.
    pub after_ms: u64,
}

impl LineTimes {
    /// No lines yet; the first begins at or after this moment, Unix milliseconds.
    #[must_use]
    pub const fn starting(from_ms: u64) -> Self {
        let from_ms = if from_ms < LOG_MOMENT_MS_MAX { from_ms } else { LOG_MOMENT_MS_MAX };
        Self { from_ms, groups: Vec::new(), lines: 0, last_ms: from_ms }
    }

    /// A line begins. A moment before that of the last line counts as that one: clocks are set back.
    pub fn begin_line(&mut self, at_ms: u64) {
        let at_ms = at_ms.clamp(self.last_ms, LOG_MOMENT_MS_MAX);
        let after_ms = at_ms - self.last_ms;
        self.last_ms = at_ms;
        self.lines += 1;
        match self.groups.last_mut() {
            Some(last) if after_ms == 0 && last.lines < u32::MAX => last.lines += 1,
            _ => self.groups.push(Together { lines: 1, after_ms }),
        }
    }

    /// Reads the text, without its line feed.
    ///
    /// # Errors
    /// In words, what it is not: too long, another form, more lines than an append can have, beyond the
    /// year 9999.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > LOG_TIMES_BYTES_MAX {
            return Err(format!("the line of times has {} bytes, at most {LOG_TIMES_BYTES_MAX}", text.len()));
        }
        let form = || "the body must begin with a line of times: UNIXMS;COUNT+DELTA,COUNT+DELTA,...".to_owned();
        let split = text.iter().position(|byte| *byte == b';').ok_or_else(form)?;
        let (from, mut rest) = (&text[..split], &text[split + 1..]);
        let from_ms = number(from).filter(|from_ms| *from_ms <= LOG_MOMENT_MS_MAX).ok_or_else(form)?;
        let mut times = Self::starting(from_ms);
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b',');
            let (entry, after) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + 1..]));
            if end.is_some() && after.is_empty() {
                return Err(form());
            }
            rest = after;
            let plus = entry.iter().position(|byte| *byte == b'+').ok_or_else(form)?;
            let lines = number(&entry[..plus]).and_then(|lines| u32::try_from(lines).ok()).ok_or_else(form)?;
            let after_ms = number(&entry[plus + 1..]).ok_or_else(form)?;
            times.groups.push(Together { lines, after_ms });
            times.lines += u64::from(lines);
            times.last_ms = times.last_ms.saturating_add(after_ms);
            if lines == 0 || times.lines > LOG_CHUNK_BYTES_MAX as u64 || times.last_ms > LOG_MOMENT_MS_MAX {
                return Err("the line of times has no lines, too many, or moments beyond the year 9999".to_owned());
            }
        }
        Ok(times)
    }

    /// The moment that the first group counts from, Unix milliseconds.
    #[must_use]
    pub const fn from_ms(&self) -> u64 {
        self.from_ms
    }

    /// The groups, in order.
    #[must_use]
    pub fn groups(&self) -> &[Together] {
        &self.groups
    }

    /// How many lines begin.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }
}

impl fmt::Display for LineTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};", self.from_ms)?;
        for (index, together) in self.groups.iter().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            write!(f, "{}+{}", together.lines, together.after_ms)?;
        }
        Ok(())
    }
}

/// Decimal digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::{LOG_MOMENT_MS_MAX, LOG_TIMES_BYTES_MAX, LineTimes, Together};

    fn together(lines: u32, after_ms: u64) -> Together {
        Together { lines, after_ms }
    }

    #[test]
    fn lines_of_one_moment_are_one_group() {
        let mut times = LineTimes::starting(1_000);
        for at_ms in [1_000, 1_012, 1_012, 1_012, 900, 1_262] {
            times.begin_line(at_ms);
        }
        assert_eq!(times.groups(), [together(1, 0), together(4, 12), together(1, 250)]);
        assert_eq!(times.to_string(), "1000;1+0,4+12,1+250");
        assert_eq!(LineTimes::parse(b"1000;1+0,4+12,1+250"), Ok(times));
    }

    #[test]
    fn a_text_without_lines_is_one() {
        let times = LineTimes::parse(b"5;").unwrap();
        assert_eq!((times.from_ms(), times.lines(), times.groups()), (5, 0, &[][..]));
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
        let beyond = format!("{LOG_MOMENT_MS_MAX};1+1");
        let long = format!("1;{}", "1+0,".repeat(LOG_TIMES_BYTES_MAX / 4));
        let many = "1;1048576+0,1+0";
        let far = "0;1+9007199254740993";
        let huge = "1;1+18446744073709551615,1+18446744073709551615";
        for text in
            ["", ";", "x;", "1", "-1;", "+1;", "1;1", "1;1+", "1;+1", "1;1+1,", "1;,1+1", "1;0+1", "1;1+-1", "1; 1+1"]
                .into_iter()
                .chain([beyond.as_str(), long.as_str(), many, far, huge, "1;4294967296+0", "99999999999999999999;"])
        {
            assert!(LineTimes::parse(text.as_bytes()).is_err(), "{}", &text[..text.len().min(40)]);
        }
    }
}
