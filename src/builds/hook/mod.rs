//! What a forge delivers: who vouches for it, and what it says.
//!
//! Pure: given headers, a body, secrets and the time. Nothing of a body is believed before its signature
//! was right, and a forge without a secret is believed nothing at all.
//!
//! | forge | event | name of the delivery | proof |
//! | --- | --- | --- | --- |
//! | GitHub | `X-GitHub-Event` | `X-GitHub-Delivery` | `X-Hub-Signature-256` |
//! | Gitea, Forgejo | `X-Gitea-Event`, `X-Forgejo-Event` | `...-Delivery` | `...-Signature`, `X-Hub-Signature-256` |
//! | GitLab | `X-Gitlab-Event` | `webhook-id`, `Idempotency-Key`, `X-Gitlab-Event-UUID` | see below |
//!
//! GitLab sends `X-Gitlab-Token`, the secret itself, or signs as Standard Webhooks have it.

mod body;
mod gitea;
mod github;
mod gitlab;
pub mod secret;
mod signature;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use self::signature::{Proof, TOLERANCE_S};
use super::happening::{Forge, Happening};
use secret::Secret;

/// Bytes of a body, at most: as many as GitHub sends.
pub const BODY_BYTES_MAX: usize = 25 * 1024 * 1024;
/// Bytes of an event's name or a delivery's, at most.
const NAME_BYTES_MAX: usize = 128;
/// Characters of a reason why nothing comes of a delivery, at most.
const REASON_CHARS_MAX: usize = 300;

/// Why a delivery is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Whose fault it is.
    pub fault: Fault,
    /// For people: it is shown to them by the forge.
    pub message: String,
}

/// What is wrong with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A header is missing or odd: no forge sent it.
    Headers,
    /// Nothing in it proves who sent it.
    Unsigned,
    /// What is to prove it does not.
    Signature,
}

impl Refused {
    fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What the headers of a delivery say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// The event's name.
    pub event: Arc<str>,
    /// The forge's own name for the delivery, which a redelivery keeps.
    pub forge_id: Arc<str>,
    /// What is to prove who sent it.
    pub proof: Proof,
    /// Whether `forge_id` names an event that may have several deliveries: their bodies tell them apart.
    shared_id: bool,
}

impl Headers {
    /// Reads them; `get` gives the value of a header by its lower-case name.
    ///
    /// # Errors
    /// One is missing or odd, or nothing in them proves who sent it.
    pub fn read<'h>(forge: Forge, get: impl Fn(&str) -> Option<&'h str>) -> Result<Self, Refused> {
        let first =
            |names: &[&str]| names.iter().find_map(|name| get(name).map(str::trim)).filter(|text| !text.is_empty());
        let (events, ids): (&[&str], &[&str]) = match forge {
            Forge::Gitea => (&["x-gitea-event", "x-forgejo-event"], &["x-gitea-delivery", "x-forgejo-delivery"]),
            Forge::Github => (&["x-github-event"], &["x-github-delivery"]),
            Forge::Gitlab => (&["x-gitlab-event"], &["webhook-id", "idempotency-key", "x-gitlab-event-uuid"]),
        };
        let event = name(first(events), events[0])?;
        let forge_id = name(first(ids), ids[0])?;
        let shared_id = forge == Forge::Gitlab && first(&ids[..2]).is_none();
        Ok(Self { event, forge_id, proof: Proof::read(forge, &get)?, shared_id })
    }

    /// Checks that whoever sent the body has one of the secrets. `now_s` is the wall clock, Unix seconds.
    /// Takes as long as hashing the body does.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, secrets: &[Secret], body: &[u8], now_s: i64) -> Result<(), Refused> {
        self.proof.verify(secrets, body, now_s)
    }

    /// The delivery's name, among all of its forge.
    #[must_use]
    pub fn forge_id(&self, body: &[u8]) -> Arc<str> {
        if !self.shared_id {
            return self.forge_id.clone();
        }
        // What a hook of GitLab's sets off comes under the same name as what set off the hook.
        let digest = signature::digest(body);
        format!("{}:{:02x}{:02x}{:02x}{:02x}", self.forge_id, digest[0], digest[1], digest[2], digest[3]).into()
    }
}

fn name(text: Option<&str>, header: &str) -> Result<Arc<str>, Refused> {
    let refuse =
        |what: &str| Err(Refused::new(Fault::Headers, format!("the header `{header}` {what}: no forge sent this")));
    match text {
        None => refuse("is missing"),
        Some(text) if text.len() > NAME_BYTES_MAX || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            refuse("is no name")
        }
        Some(text) => Ok(text.into()),
    }
}

/// What a delivery says, or why nothing comes of it. Its signature was right before.
///
/// # Errors
/// Nothing comes of it, and why, in words.
pub fn said(forge: Forge, event: &str, body: &[u8]) -> Result<Happening, Arc<str>> {
    let said = match forge {
        Forge::Gitea => gitea::said(event, body),
        Forge::Github => github::said(event, body),
        Forge::Gitlab => gitlab::said(body),
    };
    // It may quote the payload.
    said.map_err(|reason| reason.chars().take(REASON_CHARS_MAX).collect::<String>().into())
}
