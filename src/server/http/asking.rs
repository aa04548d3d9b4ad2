//! What every route reads of a request and puts into an answer: who asks, under which key, which
//! page; and the lab's now.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use super::problem::Refusal;
use crate::clock::{BootTime, boot_now};
use crate::core::command::Claimant;
use crate::core::session::SecretHash;
use crate::core::types::Owner;
use crate::engine::query::listing::Part;
use crate::engine::view::LabClock;
use crate::protocol::LEASE_KEY_HEADER;
use crate::protocol::http::OWNER_HEADER;
use crate::server::convert;
use crate::server::limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};
use crate::server::listen::Peer;

/// Who asks.
pub struct Asker {
    /// Whom it says it acts for.
    pub owner: Owner,
    /// Whether it said so.
    pub named: bool,
    /// The hash of the key it showed.
    pub key: Option<SecretHash>,
    /// When the request was received: time counts from here.
    pub at: BootTime,
}

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let at = boot_now();
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let name = text(&parts.headers, OWNER_HEADER)?;
        let owner = convert::owner(name, peer)?;
        let key = text(&parts.headers, LEASE_KEY_HEADER)?.map(convert::key_hash).transpose()?;
        Ok(Self { owner, named: name.is_some(), key, at })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let value = headers.get(name).map(|value| value.to_str()).transpose();
    value.map_err(|_| Refusal(convert::invalid(format!("the header `{name}` is not text: send plain ASCII"))))
}

impl Asker {
    /// What the journal says of who it was.
    #[must_use]
    pub fn by(&self) -> Arc<str> {
        self.owner.name.clone()
    }

    /// As one who wants something of a lease or claim.
    #[must_use]
    pub fn claimant(&self) -> Claimant {
        Claimant {
            session: None,
            key: self.key.clone(),
            // Whoever names nobody is nobody's owner, however alike two addresses are.
            owner: self.named.then(|| self.owner.name.clone()),
            admin: false,
            name: self.by(),
        }
    }

    /// The key, without which this cannot be done.
    ///
    /// # Errors
    /// `forbidden`, naming the header.
    pub fn needed_key(&self) -> Result<SecretHash, Refusal> {
        self.key.clone().ok_or_else(|| {
            let message = format!("send the lease's key in the header `{LEASE_KEY_HEADER}`");
            Refusal(crate::protocol::error::RpcError::new("forbidden", message))
        })
    }
}

/// Which page of a listing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Paging {
    /// `next` of the page before.
    pub cursor: Option<String>,
    /// At most this many.
    pub limit: Option<usize>,
}

impl Paging {
    /// The part asked for, within what a page may have.
    #[must_use]
    pub fn part(&self) -> Part {
        Part { after: self.cursor.clone(), limit: self.limit() }
    }

    /// How many at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_ITEMS_DEFAULT).clamp(1, PAGE_ITEMS_MAX)
    }

    /// The cursor where it is a number; absent is 0.
    ///
    /// # Errors
    /// `invalid_params`.
    pub fn after(&self) -> Result<u64, Refusal> {
        let Some(cursor) = &self.cursor else { return Ok(0) };
        cursor.parse().map_err(|_| Refusal(convert::invalid("`cursor` is wrong: give what `next` of a page said")))
    }
}

/// A number in a path.
///
/// # Errors
/// `invalid_params`, naming what it was to be.
pub fn number(text: &str, what: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| {
        Refusal(convert::invalid(format!("`{}` is no number of a {what}: expected digits", convert::cut(text))))
    })
}

/// An answer that does not carry the lab's now by itself.
#[derive(Debug, Serialize)]
pub struct Timed<T> {
    #[serde(flatten)]
    value: T,
    now: u64,
    now_time: String,
}

impl<T> Timed<T> {
    /// The value as of a moment.
    pub fn new(value: T, clock: &LabClock) -> Self {
        Self::at(value, clock.now.0, clock.now_time())
    }

    /// The same with the moment as it was told already.
    pub const fn at(value: T, now: u64, now_time: String) -> Self {
        Self { value, now, now_time }
    }
}
