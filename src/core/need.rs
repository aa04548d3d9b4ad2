//! One line of a request: `[ALIAS=][COUNT:]POOL[/SLOTS][,label=value ...][ where CEL]`.
//!
//! This file owns the shape of a need and the text form that people and clients write. Parsing
//! is total: every text gives a need or an error that says what was expected and where.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

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
