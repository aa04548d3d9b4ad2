//! Braces in texts of the inventory file: `{01..04}`, `{5554..5560..2}`, `{a,b,c}`.
//!
//! Owns how a text with braces is read and what it expands to at each place; how several texts
//! of one resource go side by side is the file reader's business. A template never expands
//! before somebody asks for one place, so a range of a billion costs nothing until its length
//! was checked.

/// Digits a range's ends may have: all of it stays far inside 64 bits.
const DIGITS_MAX: usize = 15;

/// A text that may expand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Range { first: u64, last: u64, step: u64, width: usize },
    List(Vec<String>),
}

impl Template {
    /// Reads a text. The error says, in words, what is wrong with its braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..];
            if let Some(after) = brace.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = brace.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some(inner) = brace.strip_prefix('{') {
                let end = inner.find(['{', '}']).filter(|end| inner[*end..].starts_with('}')).ok_or_else(|| {
                    "a '{' is not closed: write a range {01..04}, a list {a,b,c}, or {{ for a brace".to_owned()
                })?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(group(&inner[..end])?);
                rest = &inner[end + 1..];
            } else {
                return Err("a '}' closes nothing: write }} for a brace".to_owned());
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The lengths of its ranges and lists, in order; none for a text that does not expand.
    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Range { first, last, step, .. } => Some(first.abs_diff(*last) / step + 1),
            Part::List(items) => Some(items.len() as u64),
        })
    }

    /// The text at one place, counted from 0; a place beyond a length gives that part's last.
    pub(super) fn at(&self, place: u64) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Range { first, last, step, width } => {
                    let offset = place.saturating_mul(*step).min(first.abs_diff(*last));
                    let number = if first <= last { first + offset } else { first - offset };
                    text.push_str(&format!("{number:0width$}"));
                }
                Part::List(items) => {
                    let index = usize::try_from(place).unwrap_or(usize::MAX).min(items.len() - 1);
                    text.push_str(&items[index]);
                }
            }
        }
        text
    }
}

/// Reads what stands between two braces.
fn group(inner: &str) -> Result<Part, String> {
    if inner.contains(',') {
        let items: Vec<String> = inner.split(',').map(str::to_owned).collect();
        if items.iter().any(String::is_empty) {
            return Err(format!("{{{inner}}} has an empty item: write each item between the commas"));
        }
        return Ok(Part::List(items));
    }
    let Some((first, rest)) = inner.split_once("..") else {
        return Err(format!(
            "{{{inner}}} is neither a range nor a list: expected {{01..04}}, {{10..20..2}} or {{a,b,c}}; \
             write {{{{ and }}}} for braces"
        ));
    };
    let (last, step) = rest.split_once("..").map_or((rest, "1"), |(last, step)| (last, step));
    let number = |text: &str| {
        let digits = !text.is_empty() && text.len() <= DIGITS_MAX && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(|| {
            format!(
                "{{{inner}}} is not a range: expected whole numbers of at most {DIGITS_MAX} digits, as in \
                 {{01..04}} or {{10..20..2}}"
            )
        })
    };
    let (from, to, by) = (number(first)?, number(last)?, number(step)?);
    if by == 0 {
        return Err(format!("{{{inner}}} has a step of 0: expected 1 or more"));
    }
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    Ok(Part::Range { first: from, last: to, step: by, width })
}

#[cfg(test)]
mod tests {
    use super::Template;

    fn expand(text: &str) -> Vec<String> {
        let template = Template::parse(text).expect(text);
        let length = template.lengths().max().unwrap_or(1);
        (0..length).map(|place| template.at(place)).collect()
    }

    #[test]
    fn ranges_lists_and_braces_expand() {
        for (text, expanded) in [
            ("", &[""][..]),
            ("plain", &["plain"]),
            ("p-{01..03}", &["p-01", "p-02", "p-03"]),
            ("{8..11}", &["8", "9", "10", "11"]),
            ("{08..11}", &["08", "09", "10", "11"]),
            ("{1..003}", &["001", "002", "003"]),
            ("{0..2}", &["0", "1", "2"]),
            ("{3..1}", &["3", "2", "1"]),
            ("{5554..5560..2}", &["5554", "5556", "5558", "5560"]),
            ("{1..10..4}", &["1", "5", "9"]),
            ("{a,b,c}x", &["ax", "bx", "cx"]),
            ("{1..2}-{a,b}", &["1-a", "2-b"]),
            ("{{x}}", &["{x}"]),
            ("{{{1..2}}}", &["{1}", "{2}"]),
            ("{7..7}", &["7"]),
        ] {
            assert_eq!(expand(text), expanded, "{text}");
        }
    }

    #[test]
    fn every_mistake_in_braces_is_named() {
        for (text, wrong) in [
            ("{x}", "neither a range nor a list"),
            ("{}", "neither a range nor a list"),
            ("{1..", "not closed"),
            ("{a,{b,c}}", "not closed"),
            ("a}", "closes nothing"),
            ("{a,}", "empty item"),
            ("{,}", "empty item"),
            ("{1..b}", "not a range"),
            ("{..2}", "not a range"),
            ("{-1..2}", "not a range"),
            ("{1..2..}", "not a range"),
            ("{1..2..0}", "step of 0"),
            ("{1..2..3..4}", "not a range"),
            ("{1..9999999999999999}", "at most 15 digits"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    #[test]
    fn a_huge_range_has_a_length_and_no_cost() {
        let template = Template::parse("{0..999999999999999}").expect("a range");
        assert_eq!(template.lengths().collect::<Vec<_>>(), [1_000_000_000_000_000]);
        assert_eq!(template.at(7), "7");
    }
}
