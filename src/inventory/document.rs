//! A TOML document with its places: what the inventory file and `leasehold.toml` are read with.
//!
//! Owns the errors with file, line and column, and the reading of tables whose keys are all
//! known. It knows nothing of pools or options. Serde is not used, as its errors name neither
//! the place of a key nor what else could have stood there.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::core::refusal::{Code, Refusal};
use crate::core::spelling::nearest;
use crate::units::{parse_bytes, parse_duration_ms, show_bytes, show_duration_ms};

/// Why a file was refused, and where. Nothing of a refused file is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InventoryError {
    /// The file as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// For programs: `invalid_inventory` or `not_in_this_version`.
    pub code: Code,
    /// For people: what, what was expected, what to do next.
    pub message: String,
}

impl fmt::Display for InventoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

impl std::error::Error for InventoryError {}

impl From<InventoryError> for Refusal {
    fn from(error: InventoryError) -> Self {
        Self::new(error.code, error.to_string())
    }
}

/// A place in the text, in bytes.
pub(super) type Span = Range<usize>;

/// A text and the name it is known by.
#[derive(Clone, Copy)]
pub(super) struct Source<'i> {
    file: &'i str,
    text: &'i str,
}

impl<'i> Source<'i> {
    pub(super) const fn new(text: &'i str, file: &'i str) -> Self {
        Self { file, text }
    }

    /// Reads the text as TOML.
    pub(super) fn parse(&self) -> Result<Spanned<DeTable<'i>>, InventoryError> {
        DeTable::parse(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            self.refuse(&span, format!("this is not TOML: {}", error.message().replace('\n', "; ")))
        })
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.before(offset).bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    /// An error at a place.
    pub(super) fn refuse(&self, span: &Span, message: impl Into<String>) -> InventoryError {
        self.refuse_as(Code::InvalidInventory, span, message)
    }

    /// An error at a place, with another code.
    pub(super) fn refuse_as(&self, code: Code, span: &Span, message: impl Into<String>) -> InventoryError {
        let before = self.before(span.start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        InventoryError {
            file: self.file.to_owned(),
            line: self.line(span.start),
            column: before[line_start..].chars().count() + 1,
            code,
            message: message.into(),
        }
    }

    /// The text before a place; a place inside a character counts as the one before it.
    fn before(&self, offset: usize) -> &'i str {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        &self.text[..end]
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A table whose keys are all known.
pub(super) struct Section<'d, 'i> {
    pub(super) source: Source<'i>,
    title: &'static str,
    span: Span,
    fields: BTreeMap<&'d str, (Span, &'d Spanned<DeValue<'i>>)>,
}

impl<'d, 'i> Section<'d, 'i> {
    /// Opens a table; `title` is what it is called in errors, `known` its keys. The first key in
    /// the text that is not known is refused.
    pub(super) fn open(
        source: Source<'i>,
        title: &'static str,
        known: &[&'static str],
        table: &'d DeTable<'i>,
        span: Span,
    ) -> Result<Self, InventoryError> {
        let mut fields = BTreeMap::new();
        let mut unknown: Option<(Span, &str)> = None;
        for (key, value) in table {
            let (name, place) = (&**key.get_ref(), key.span());
            if known.contains(&name) {
                fields.insert(name, (place, value));
            } else if unknown.as_ref().is_none_or(|(first, _)| place.start < first.start) {
                unknown = Some((place, name));
            }
        }
        if let Some((place, name)) = unknown {
            let hint = nearest(name, known.iter().copied())
                .map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
            let message = format!("unknown key {} in {title}: expected one of {}{hint}", shown(name), known.join(", "));
            return Err(source.refuse(&place, message));
        }
        Ok(Self { source, title, span, fields })
    }

    /// Where the table is.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// A key's place and its value.
    pub(super) fn field(&self, key: &str) -> Option<(Span, &'d Spanned<DeValue<'i>>)> {
        self.fields.get(key).cloned()
    }

    /// An error about a value that is not what it should be.
    pub(super) fn unexpected(&self, key: &str, value: &Spanned<DeValue<'i>>, expected: &str) -> InventoryError {
        let got = described(value.get_ref());
        self.source.refuse(&value.span(), format!("{key} of {} is {got}: expected {expected}", self.title))
    }

    /// A key that must be there.
    pub(super) fn missing(&self, key: &str, expected: &str) -> InventoryError {
        self.source.refuse(&self.span, format!("{} has no {key}: expected {key} = {expected}", self.title))
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<Placed<&'d str>>, InventoryError> {
        self.field(key)
            .map(|(_, value)| match value.get_ref() {
                DeValue::String(text) => Ok(Placed { value: &**text, span: value.span() }),
                _ => Err(self.unexpected(key, value, "a text in quotes")),
            })
            .transpose()
    }

    /// `true` or `false`.
    pub(super) fn truth(&self, key: &str) -> Result<Option<Placed<bool>>, InventoryError> {
        self.field(key)
            .map(|(_, value)| match value.get_ref() {
                DeValue::Boolean(truth) => Ok(Placed { value: *truth, span: value.span() }),
                _ => Err(self.unexpected(key, value, "true or false, without quotes")),
            })
            .transpose()
    }

    /// A whole number within bounds, both included.
    pub(super) fn whole(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, InventoryError> {
        self.field(key)
            .map(|(_, value)| {
                let number = match value.get_ref() {
                    DeValue::Integer(digits) => u64::from_str_radix(digits.as_str(), digits.radix()).ok(),
                    _ => None,
                };
                number
                    .filter(|number| (min..=max).contains(number))
                    .ok_or_else(|| self.unexpected(key, value, &format!("a whole number from {min} to {max}")))
            })
            .transpose()
    }

    /// A duration within bounds, both included, in milliseconds. A bare 0 is one too.
    pub(super) fn duration_ms(
        &self,
        key: &str,
        min_ms: u64,
        max_ms: u64,
    ) -> Result<Option<Placed<u64>>, InventoryError> {
        self.field(key)
            .map(|(_, value)| {
                let range = || {
                    let (min, max) = (show_duration_ms(min_ms), show_duration_ms(max_ms));
                    format!("a duration in quotes with a unit, from {min} to {max}, such as \"90s\" or \"1h30m\"")
                };
                let duration = match value.get_ref() {
                    DeValue::String(text) => parse_duration_ms(text).ok(),
                    DeValue::Integer(digits) if digits.as_str() == "0" => Some(0),
                    _ => None,
                };
                duration
                    .filter(|ms| (min_ms..=max_ms).contains(ms))
                    .map(|ms| Placed { value: ms, span: value.span() })
                    .ok_or_else(|| self.unexpected(key, value, &range()))
            })
            .transpose()
    }

    /// A number of bytes within bounds, both included.
    pub(super) fn bytes(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>, InventoryError> {
        let Some((_, value)) = self.field(key) else { return Ok(None) };
        let bytes = match value.get_ref() {
            DeValue::String(text) => parse_bytes(text).ok(),
            _ => None,
        };
        bytes.filter(|bytes| (min..=max).contains(bytes)).map(Some).ok_or_else(|| {
            let range = format!("from {} to {}", show_bytes(min), show_bytes(max));
            self.unexpected(key, value, &format!("a size in quotes with a unit, {range}, such as \"100MB\""))
        })
    }

    /// A list of texts, at most so many.
    pub(super) fn texts(&self, key: &str, max: usize) -> Result<Vec<Placed<&'d str>>, InventoryError> {
        let Some((_, value)) = self.field(key) else { return Ok(Vec::new()) };
        let expected = format!("a list of texts, such as [\"a\", \"b\"], at most {max}");
        let DeValue::Array(items) = value.get_ref() else { return Err(self.unexpected(key, value, &expected)) };
        if items.len() > max {
            return Err(self.unexpected(key, value, &expected));
        }
        let text = |item: &'d Spanned<DeValue<'i>>| match item.get_ref() {
            DeValue::String(text) => Ok(Placed { value: &**text, span: item.span() }),
            _ => Err(self.unexpected(key, item, &expected)),
        };
        items.iter().map(text).collect()
    }

    /// A table with known keys under a key of this one.
    pub(super) fn section(
        &self,
        key: &str,
        title: &'static str,
        known: &[&'static str],
    ) -> Result<Option<Section<'d, 'i>>, InventoryError> {
        let Some((_, value)) = self.field(key) else { return Ok(None) };
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.unexpected(key, value, &format!("a table under {title}")));
        };
        Section::open(self.source, title, known, table, value.span()).map(Some)
    }

    /// The tables of `[[key]]`, each with its place, in the order of the text.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<Placed<&'d DeTable<'i>>>, InventoryError> {
        let Some((_, value)) = self.field(key) else { return Ok(Vec::new()) };
        let expected = format!("tables, each under [[{key}]] in double brackets");
        let DeValue::Array(items) = value.get_ref() else { return Err(self.unexpected(key, value, &expected)) };
        items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(table) => Ok(Placed { value: table, span: item.span() }),
                _ => Err(self.unexpected(key, item, &expected)),
            })
            .collect()
    }

    /// The entries of a table with keys of the file's own choice, in the order of the text.
    pub(super) fn entries(&self, key: &str, expected: &str) -> Result<Vec<Entry<'d, 'i>>, InventoryError> {
        let Some((_, value)) = self.field(key) else { return Ok(Vec::new()) };
        let DeValue::Table(table) = value.get_ref() else { return Err(self.unexpected(key, value, expected)) };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| Entry { key: Placed { value: &**key.get_ref(), span: key.span() }, value })
            .collect();
        entries.sort_by_key(|entry| entry.key.span.start);
        Ok(entries)
    }
}

/// One entry of a table with keys of the file's own choice.
pub(super) struct Entry<'d, 'i> {
    pub(super) key: Placed<&'d str>,
    pub(super) value: &'d Spanned<DeValue<'i>>,
}

/// A text for an error: quoted, escaped, and cut to what can be shown.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(80).collect();
    if cut.len() < text.len() {
        cut.push_str("...");
    }
    format!("{cut:?}")
}

/// What a value is, for an error.
pub(super) fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shown(text),
        DeValue::Integer(number) => number.to_string().chars().take(80).collect(),
        DeValue::Float(number) => number.as_str().chars().take(80).collect(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
