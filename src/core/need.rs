//! One line of a request: `[ALIAS=][COUNT:]POOL[/SLOTS][,label=value ...][ where CEL]`.
//!
//! This file owns the shape of a need, the text form that people and clients write, and what the
//! needs of one claim must not do to each other. Parsing is total: every text gives a need or an
//! error that says what was expected and where. An expression is kept as written: whether it is
//! good CEL is `cel.rs`'s to say, which names exist the scheduler's.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::fold::{aliases_meet, own_word};
use super::limits::{
    CEL_BYTES_MAX, NEED_BYTES_MAX, NEEDS_PER_CLAIM_MAX, PICKS_PER_CLAIM_MAX, SLOTS_MAX, TERMS_PER_NEED_MAX,
};
use super::refusal::{Code, Refusal};
use super::types::{Key, Value};

/// How many resources a need asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Count {
    /// This many distinct resources, 1 to 256.
    Exactly(u32),
    /// Every match that is neither drained, offline, quarantined, held nor going, counted again
    /// at every pass, at least one.
    All,
}

/// How many slots of each picked resource a need asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slots {
    /// This many, 1 or more.
    Exactly(u32),
    /// The whole resource, alone.
    All,
}

/// One condition on a label, or on `name` or `pool`, which can be asked like labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Term {
    /// The label's key, or `name` or `pool`.
    pub key: Key,
    /// `true` for `!=`. A missing label satisfies neither.
    pub negated: bool,
    /// As written. It equals a string label by text, a number or bool by value.
    pub value: Arc<str>,
}

/// One line of a request, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The name the holder knows the picks by; the pool's name unless one was given.
    pub alias: Key,
    /// How many distinct resources.
    pub count: Count,
    /// The pool they come from.
    pub pool: Key,
    /// How much of each.
    pub slots: Slots,
    /// All of these hold.
    pub terms: Vec<Term>,
    /// And this CEL expression is true, as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<Arc<str>>,
}

impl Term {
    /// Whether `value` satisfies this term: a string by text, a number or bool by value.
    #[must_use]
    pub fn accepts(&self, value: &Value) -> bool {
        let equal = match value {
            Value::Text(text) => **text == *self.value,
            Value::Bool(truth) => self.value.parse() == Ok(*truth),
            Value::Int(number) => match self.value.parse::<i64>() {
                Ok(asked) => asked == *number,
                Err(_) => self.value.parse::<f64>().is_ok_and(|asked| Value::Float(asked) == *value),
            },
            Value::Float(number) => self.value.parse::<f64>().is_ok_and(|asked| asked.total_cmp(number).is_eq()),
        };
        equal != self.negated
    }
}

/// What of a need a message quotes.
const SHOWN_CHARS_MAX: usize = 120;

/// Why a text is no need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid need: at character {at}: {problem}")]
pub struct NeedError {
    /// The text as given, cut to what can be shown.
    pub text: String,
    /// Where it goes wrong, in characters from 1.
    pub at: usize,
    /// What was expected there, and what was found.
    pub problem: String,
}

impl From<NeedError> for Refusal {
    fn from(error: NeedError) -> Self {
        Self::new(Code::InvalidNeed, error.to_string())
    }
}

impl Need {
    /// Parses a NEED as people write it. Spaces around the whole and around its parts do not
    /// matter.
    pub fn parse(text: &str) -> Result<Self, NeedError> {
        parse(text).map_err(|Fault { at, problem }| NeedError {
            text: text.chars().take(SHOWN_CHARS_MAX).collect(),
            at: text.get(..at).unwrap_or(text).chars().count() + 1,
            problem,
        })
    }

    /// The need as messages quote it: cut to what can be shown.
    #[must_use]
    pub fn shown(&self) -> String {
        let text = self.to_string();
        match text.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }

    /// How many picks it stands for at least: `all:` is one or more.
    #[must_use]
    pub const fn picks_min(&self) -> usize {
        match self.count {
            Count::Exactly(count) => count as usize,
            Count::All => 1,
        }
    }
}

/// The canonical text: parses back to the same need, and is never longer than what was parsed.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.alias != self.pool {
            write!(f, "{}=", self.alias)?;
        }
        match self.count {
            Count::Exactly(1) => {}
            Count::Exactly(count) => write!(f, "{count}:")?,
            Count::All => f.write_str("all:")?,
        }
        write!(f, "{}", self.pool)?;
        match self.slots {
            Slots::Exactly(1) => {}
            Slots::Exactly(slots) => write!(f, "/{slots}")?,
            Slots::All => f.write_str("/all")?,
        }
        for term in &self.terms {
            write!(f, ",{term}")?;
        }
        self.expression.as_ref().map_or(Ok(()), |expression| write!(f, "{WHERE}{expression}"))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.key, if self.negated { "!=" } else { "=" })?;
        if bare_problem(&self.value).is_none() {
            return f.write_str(&self.value);
        }
        write!(f, "\"{}\"", self.value.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Checks the needs of one claim together: how many there are, that their aliases give every
/// holder's variable one meaning, and that matching stays exact over them. The refusals say how
/// to mend the claim.
pub fn check_needs(needs: &[Need], same: Option<&Key>, distinct: Option<&Key>) -> Result<(), Refusal> {
    if needs.is_empty() {
        return Err(Refusal::new(Code::InvalidParams, "a claim needs at least one need, such as `phone,os=android`"));
    }
    if needs.len() > NEEDS_PER_CLAIM_MAX {
        let problem = format!(
            "a claim may have {NEEDS_PER_CLAIM_MAX} needs, this one has {}: ask for several resources of one pool \
             with a count (`2:phone`), or split the claim",
            needs.len()
        );
        return Err(Refusal::new(Code::TooManyNeeds, problem));
    }
    let picks: usize = needs.iter().map(Need::picks_min).sum();
    if picks > PICKS_PER_CLAIM_MAX {
        let problem = format!(
            "a claim may ask for {PICKS_PER_CLAIM_MAX} resources, this one asks for {picks}: ask for fewer, or split \
             the claim"
        );
        return Err(Refusal::new(Code::TooManyPicks, problem));
    }
    check_aliases(needs)?;
    check_slots(needs)?;
    check_spread(picks, same, distinct)
}

fn check_aliases(needs: &[Need]) -> Result<(), Refusal> {
    for (index, need) in needs.iter().enumerate() {
        let alias = need.alias.as_str();
        let mend = || mended(needs, need).map_or_else(String::new, |text| format!(", such as `{text}`"));
        let refuse = |problem: String| Err(Refusal::new(Code::AliasCollision, problem).of_need(alias));
        if let Some(word) = own_word(alias) {
            return refuse(format!(
                "the alias `{alias}` begins with `{word}`, which is a variable of leasehold's own: give the need \
                 another alias{}",
                mend()
            ));
        }
        let Some(other) = needs[..index].iter().map(|earlier| earlier.alias.as_str()).find(|e| aliases_meet(e, alias))
        else {
            continue;
        };
        if other == alias {
            return refuse(format!("two needs are called `{alias}`: give one of them an alias of its own{}", mend()));
        }
        return refuse(format!(
            "the aliases `{other}` and `{alias}` would meet in the names of environment variables: give one of them \
             another alias{}",
            mend()
        ));
    }
    Ok(())
}

/// The need with an alias that meets no other of the claim, as text.
fn mended(needs: &[Need], need: &Need) -> Option<String> {
    let stem: String = need.alias.as_str().chars().filter(char::is_ascii_alphanumeric).take(50).collect();
    (2..).take(NEEDS_PER_CLAIM_MAX + 1).find_map(|number: usize| {
        let alias = Key::parse(&format!("{stem}{number}"), "alias").ok()?;
        let free = own_word(alias.as_str()).is_none()
            && needs.iter().all(|other| !aliases_meet(other.alias.as_str(), alias.as_str()));
        free.then(|| Need { alias, ..need.clone() }.to_string())
    })
}

fn check_slots(needs: &[Need]) -> Result<(), Refusal> {
    for (index, need) in needs.iter().enumerate() {
        let odd = needs[..index].iter().find(|earlier| earlier.pool == need.pool && earlier.slots != need.slots);
        if let Some(other) = odd {
            let problem = format!(
                "the needs `{}` and `{}` take different numbers of slots of the pool `{}`: all needs of a claim on \
                 one pool use the same number, or split the claim",
                other.shown(),
                need.shown(),
                need.pool
            );
            return Err(Refusal::new(Code::InvalidNeed, problem).of_need(need.alias.as_str()));
        }
    }
    Ok(())
}

fn check_spread(picks: usize, same: Option<&Key>, distinct: Option<&Key>) -> Result<(), Refusal> {
    for (what, label) in [("same", same), ("distinct", distinct)] {
        if label.is_some_and(|label| label.as_str() == "labels") {
            let problem = format!("`{what}` names `labels`, which is no label: name one, such as `site`");
            return Err(Refusal::new(Code::InvalidParams, problem));
        }
    }
    match (same, distinct) {
        (Some(a), Some(b)) if a == b && picks > 1 => Err(Refusal::new(
            Code::InvalidParams,
            format!("`same` and `distinct` both name `{a}`: {picks} picks cannot have it alike and not alike"),
        )),
        _ => Ok(()),
    }
}

const WHERE: &str = " where ";

/// What is wrong, and at which byte.
struct Fault {
    at: usize,
    problem: String,
}

/// A piece of the text, with the byte it starts at.
#[derive(Clone, Copy)]
struct Piece<'a> {
    at: usize,
    text: &'a str,
}

impl<'a> Piece<'a> {
    fn trim(self) -> Self {
        let text = self.text.trim_start();
        Self { at: self.at + (self.text.len() - text.len()), text: text.trim_end() }
    }

    /// What stands before and after byte `index`, leaving out `skip` bytes there. Both must be
    /// character boundaries.
    fn split(self, index: usize, skip: usize) -> (Self, Self) {
        let rest = index + skip;
        (Self { text: &self.text[..index], ..self }, Self { at: self.at + rest, text: &self.text[rest..] })
    }

    fn expected<T>(self, what: impl fmt::Display) -> Result<T, Fault> {
        let problem = match self.text.chars().take(40).collect::<String>() {
            found if found.is_empty() => format!("expected {what}"),
            found => format!("expected {what}, found `{found}`"),
        };
        Err(Fault { at: self.at, problem })
    }

    fn key(self, what: &'static str) -> Result<Key, Fault> {
        let piece = self.trim();
        match Key::parse(piece.text, what) {
            Ok(key) => Ok(key),
            Err(error) => piece.expected(format_args!("{what} ({})", error.expected)),
        }
    }

    /// A whole number from 1, in digits and nothing else.
    fn number(self, what: &str, max: u32) -> Result<u32, Fault> {
        let digits = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        match self.text.parse::<u32>() {
            Ok(number) if digits && (1..=max).contains(&number) => Ok(number),
            _ => self.expected(format_args!("{what}: 1 to {max}, or `all`")),
        }
    }
}

fn parse(text: &str) -> Result<Need, Fault> {
    if text.len() > NEED_BYTES_MAX {
        let problem = format!("expected at most {NEED_BYTES_MAX} bytes, found {}", text.len());
        return Err(Fault { at: 0, problem });
    }
    let whole = Piece { at: 0, text }.trim();
    let (head, expression) = match find_outside_quotes(whole.text, WHERE) {
        Some(index) => {
            let (head, rest) = whole.split(index, WHERE.len());
            (head, Some(parse_expression(rest.trim())?))
        }
        None if whole.text.ends_with(" where") => {
            return Piece { at: text.len(), text: "" }.expected("a CEL expression");
        }
        None => (whole, None),
    };
    let mut rest = Some(head);
    let mut next = || {
        let piece = rest?;
        let (part, after) = match find_outside_quotes(piece.text, ",") {
            Some(index) => {
                let (part, after) = piece.split(index, 1);
                (part, Some(after))
            }
            None => (piece, None),
        };
        rest = after;
        Some(part.trim())
    };
    let first = next().unwrap_or(head);
    let (alias, count, pool, slots) = parse_what(first)?;
    let mut terms = Vec::new();
    while let Some(part) = next() {
        if terms.len() == TERMS_PER_NEED_MAX {
            return part.expected(format_args!("at most {TERMS_PER_NEED_MAX} conditions on labels"));
        }
        terms.push(parse_term(part)?);
    }
    Ok(Need { alias, count, pool, slots, terms, expression })
}

/// Where `what` first stands outside double quotes.
fn find_outside_quotes(text: &str, what: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut quoted, mut index) = (false, 0);
    while index < bytes.len() {
        match bytes[index] {
            b'\\' if quoted => index += 1,
            b'"' => quoted = !quoted,
            _ if !quoted && bytes[index..].starts_with(what.as_bytes()) => return Some(index),
            _ => {}
        }
        index += 1;
    }
    None
}

fn parse_expression(piece: Piece<'_>) -> Result<Arc<str>, Fault> {
    if piece.text.is_empty() {
        return piece.expected("a CEL expression after `where`");
    }
    if piece.text.len() > CEL_BYTES_MAX {
        return Err(Fault {
            at: piece.at,
            problem: format!("expected an expression of at most {CEL_BYTES_MAX} bytes, found {}", piece.text.len()),
        });
    }
    Ok(piece.text.into())
}

/// `[ALIAS=][COUNT:]POOL[/SLOTS]`.
fn parse_what(piece: Piece<'_>) -> Result<(Key, Count, Key, Slots), Fault> {
    let (alias, piece) = match piece.text.find('=') {
        None => (None, piece),
        Some(index) => {
            let (alias, rest) = piece.split(index, 1);
            if alias.text.contains(':') {
                return alias.expected("an alias (a count stands after it: `net=2:vlan`)");
            }
            if alias.trim().text.contains(char::is_whitespace) {
                return alias.expected("an alias (or a comma before the first label: `phone,os=android`)");
            }
            (Some(alias.key("an alias")?), rest.trim())
        }
    };
    let (count, piece) = match piece.text.find(':') {
        None => (Count::Exactly(1), piece),
        Some(index) => {
            let (count, rest) = piece.split(index, 1);
            let count = match count.trim() {
                Piece { text: "all", .. } => Count::All,
                count => Count::Exactly(count.number("a count", COUNT_MAX)?),
            };
            (count, rest)
        }
    };
    let (pool, slots) = match piece.text.find('/') {
        None => (piece, Slots::Exactly(1)),
        Some(index) => {
            let (pool, slots) = piece.split(index, 1);
            let slots = match slots.trim() {
                Piece { text: "all", .. } => Slots::All,
                slots => Slots::Exactly(slots.number("slots", SLOTS_MAX)?),
            };
            (pool, slots)
        }
    };
    let pool = pool.key("a pool")?;
    Ok((alias.unwrap_or_else(|| pool.clone()), count, pool, slots))
}

/// The largest count of one need; a claim has no more picks over all its needs.
const COUNT_MAX: u32 = 256;
const _: () = assert!(COUNT_MAX as usize == PICKS_PER_CLAIM_MAX);

/// `label=value`, `label!=value`; the value may be quoted.
fn parse_term(piece: Piece<'_>) -> Result<Term, Fault> {
    let Some(index) = piece.text.find('=') else {
        return piece.expected("label=value or label!=value (other comparisons go after ` where `)");
    };
    let (key, value) = piece.split(index, 1);
    let (key, negated) = match key.text.strip_suffix('!') {
        Some(text) => (Piece { text, ..key }, true),
        None => (key, false),
    };
    let key = key.key("a label's key")?;
    let value = value.trim();
    if value.text.starts_with('"') {
        return Ok(Term { key, negated, value: unquote(value)?.into() });
    }
    match bare_problem(value.text) {
        Some(problem) => value.expected(problem),
        None => Ok(Term { key, negated, value: value.text.into() }),
    }
}

/// What a value would have to be to stand without quotes, when it cannot.
fn bare_problem(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        return Some("a value (\"\" for an empty one)");
    }
    if value.starts_with('=') {
        return Some("a value after a single `=` (one that starts with `=` in double quotes)");
    }
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | ',');
    value.contains(odd).then_some("a value in double quotes, as it has spaces, commas or quotes in it")
}

fn unquote(piece: Piece<'_>) -> Result<String, Fault> {
    let mut value = String::new();
    let mut chars = piece.text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => {
                let (_, after) = piece.split(index, 1);
                let after = after.trim();
                return if after.text.is_empty() {
                    Ok(value)
                } else {
                    after.expected("a comma after the quoted value")
                };
            }
            '\\' => match chars.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return piece.split(index, 0).1.expected("`\\\"` or `\\\\` in a quoted value"),
            },
            c => value.push(c),
        }
    }
    piece.expected("a closing double quote")
}

#[cfg(test)]
#[path = "need_tests.rs"]
mod tests;
