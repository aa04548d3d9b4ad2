//! Refusals: what the core says no to, by whose fault, each with a stable code.
//!
//! A refusal changes nothing. Its message names the thing, says what was expected and what to do
//! next; its code is what programs go by and never changes its meaning.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The stable, machine-readable half of a refusal. `data.code` on the wire is its snake-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    // The request is wrong, whatever the state.
    /// A parameter is missing, of the wrong type or out of its range.
    InvalidParams,
    /// A NEED text cannot be read, or asks for what cannot be asked.
    InvalidNeed,
    /// An inventory cannot be read, or contradicts itself.
    InvalidInventory,
    /// More needs than a claim may have.
    TooManyNeeds,
    /// More resources than a claim may ask for.
    TooManyPicks,
    /// Two needs have one alias, or aliases that fold alike.
    AliasCollision,
    /// It is in the design and not in this version.
    NotInThisVersion,
    // The request does not fit the state.
    /// Nothing on the books can ever satisfy it.
    Impossible,
    /// `fail_fast`, and it would wait for what is drained, offline, quarantined or held.
    Unavailable,
    /// It would close a circle of holders waiting for each other.
    WouldDeadlock,
    /// Longer than a pool's `max_hold`.
    HoldTooLong,
    /// Higher than a pool's `max_priority`.
    PriorityTooHigh,
    /// More than a pool's `max_per_owner` by itself.
    OverCap,
    /// Matching ran out of steps.
    TooComplex,
    /// No such lease, claim, session, pool or resource.
    NotFound,
    /// Not yours.
    Forbidden,
    /// The session has ended, or the secret is not its secret.
    SessionGone,
    /// The session belongs to another process.
    WrongInstance,
    /// Another body under a used request id.
    RequestIdReused,
    /// At or below the highest forgotten request id.
    RequestIdTooOld,
    /// The lease is ending, and cannot be extended.
    LeaseEnding,
    /// The lease has ended.
    LeaseEnded,
    /// The name is taken by another origin.
    NameTaken,
    /// Another living session provides under this name.
    ProviderTaken,
    /// It would remove more than a fifth of the file's resources.
    NeedsConfirmation,
    // A bound.
    /// The broker has as many sessions as it may.
    TooManySessions,
    /// The session has as many waiting claims as it may.
    TooManyClaims,
    /// The session has as many leases as it may.
    TooManyLeases,
    /// The owner has as many remembered requests as it may.
    TooManyRequests,
    // The broker cannot, at present.
    /// The broker is stopping and grants nothing.
    Stopping,
    /// A secret of the resource could not be read.
    SecretUnavailable,
}

impl Code {
    /// Every code, for tables and tests.
    pub const ALL: &'static [Self] = &[
        Self::InvalidParams,
        Self::InvalidNeed,
        Self::InvalidInventory,
        Self::TooManyNeeds,
        Self::TooManyPicks,
        Self::AliasCollision,
        Self::NotInThisVersion,
        Self::Impossible,
        Self::Unavailable,
        Self::WouldDeadlock,
        Self::HoldTooLong,
        Self::PriorityTooHigh,
        Self::OverCap,
        Self::TooComplex,
        Self::NotFound,
        Self::Forbidden,
        Self::SessionGone,
        Self::WrongInstance,
        Self::RequestIdReused,
        Self::RequestIdTooOld,
        Self::LeaseEnding,
        Self::LeaseEnded,
        Self::NameTaken,
        Self::ProviderTaken,
        Self::NeedsConfirmation,
        Self::TooManySessions,
        Self::TooManyClaims,
        Self::TooManyLeases,
        Self::TooManyRequests,
        Self::Stopping,
        Self::SecretUnavailable,
    ];

    /// The code as it stands on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidParams => "invalid_params",
            Self::InvalidNeed => "invalid_need",
            Self::InvalidInventory => "invalid_inventory",
            Self::TooManyNeeds => "too_many_needs",
            Self::TooManyPicks => "too_many_picks",
            Self::AliasCollision => "alias_collision",
            Self::NotInThisVersion => "not_in_this_version",
            Self::Impossible => "impossible",
            Self::Unavailable => "unavailable_resources",
            Self::WouldDeadlock => "would_deadlock",
            Self::HoldTooLong => "hold_too_long",
            Self::PriorityTooHigh => "priority_too_high",
            Self::OverCap => "over_cap",
            Self::TooComplex => "too_complex",
            Self::NotFound => "not_found",
            Self::Forbidden => "forbidden",
            Self::SessionGone => "session_gone",
            Self::WrongInstance => "wrong_instance",
            Self::RequestIdReused => "request_id_reused",
            Self::RequestIdTooOld => "request_id_too_old",
            Self::LeaseEnding => "lease_ending",
            Self::LeaseEnded => "lease_ended",
            Self::NameTaken => "name_taken",
            Self::ProviderTaken => "provider_taken",
            Self::NeedsConfirmation => "needs_confirmation",
            Self::TooManySessions => "too_many_sessions",
            Self::TooManyClaims => "too_many_claims",
            Self::TooManyLeases => "too_many_leases",
            Self::TooManyRequests => "too_many_requests",
            Self::Stopping => "stopping",
            Self::SecretUnavailable => "secret_unavailable",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Bytes of a message. Those that name everything they should stay well below.
const MESSAGE_BYTES_MAX: usize = 900;

/// A no, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// For people: what, what was expected, what to do next.
    pub message: Arc<str>,
    /// The alias of the need that fails, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Arc<str>>,
}

impl Refusal {
    /// A refusal with its message. Messages quote what was asked, so whatever could steer a
    /// terminal is taken out, and a long one is cut: it is stored and told to others.
    pub fn new(code: Code, message: impl Into<Arc<str>>) -> Self {
        let message = message.into();
        if message.len() <= MESSAGE_BYTES_MAX && !message.contains(char::is_control) {
            return Self { code, message, need: None };
        }
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        let mut text: String = message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)].chars().map(shown).collect();
        if message.len() > MESSAGE_BYTES_MAX {
            text.push_str("...");
        }
        Self { code, message: text.into(), need: None }
    }

    /// The same, naming the need that fails.
    #[must_use]
    pub fn of_need(self, alias: &str) -> Self {
        Self { need: Some(alias.into()), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
