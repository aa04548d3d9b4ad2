//! The broker as the admin commands ask it: HTTP, one question after the other.
//!
//! It owns the runtime that a command needs, the header that says who acts, the paging of
//! listings, and the one place where a client's error becomes an exit code.

use std::future::Future;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Failure, Globals, exit_code, output};
use crate::client::http::{Answer, Http};
use crate::client::url::BaseUrl;
use crate::client::{ClientError, default_owner};
use crate::protocol::http::OWNER_HEADER;
pub use crate::protocol::http::encode;
use crate::protocol::info::Page;

/// Builds or deliveries that a broker lists at once.
const NEWEST_PAGE: usize = 100;

/// Something to ask.
pub struct Broker {
    runtime: tokio::runtime::Runtime,
    http: Http,
    owner: String,
    key: Option<String>,
}

impl Broker {
    /// Asks the broker of `--url`. Nothing is sent yet.
    pub fn new(globals: &Globals) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::own(format!("no event loop can be made: {error}")))?;
        let http = Http::new(BaseUrl::parse_list(&globals.url)?)?;
        Ok(Self { runtime, http, owner: header_text(&default_owner()), key: None })
    }

    /// The same, asking under the key of a lease.
    #[must_use]
    pub fn under(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }

    /// `GET path`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask("GET", path, None)
    }

    /// `POST path` with a JSON body.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.ask("POST", path, Some(json_body(body)?))
    }

    /// `PUT path` with a JSON body.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.ask("PUT", path, Some(json_body(body)?))
    }

    /// `DELETE path`.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask("DELETE", path, None)
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<T, Failure> {
        Ok(self.runtime.block_on(self.send(method, path, body))?.json()?)
    }

    /// All items of a listing, page after page to its end. `path` may have a query.
    pub fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Listing<T>, Failure> {
        let mut items = Vec::new();
        let now = self.each_page(path, |page: Vec<T>| {
            items.extend(page);
            Ok(())
        })?;
        Ok(Listing { items, now })
    }

    /// Hands each page of a listing to `take` as it comes; answers the lab time of the last one.
    pub fn each_page<T: DeserializeOwned>(
        &self,
        path: &str,
        mut take: impl FnMut(Vec<T>) -> Result<(), Failure>,
    ) -> Result<u64, Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let page: Page<T> = match &cursor {
                None => self.get(path)?,
                Some(cursor) => {
                    let join = if path.contains('?') { '&' } else { '?' };
                    self.get(&format!("{path}{join}cursor={}", encode(cursor)))?
                }
            };
            take(page.items)?;
            match page.next {
                Some(next) if cursor.as_ref() == Some(&next) => {
                    return Err(Failure::refused("the broker answers the same page again and again"));
                }
                Some(next) => cursor = Some(next),
                None => return Ok(page.now),
            }
        }
    }

    /// The newest of what has numbers, newest first: so many at most of those that `which` names.
    pub fn newest<T: DeserializeOwned>(
        &self,
        path: &str,
        which: &[(&str, Option<String>)],
        limit: usize,
    ) -> Result<Vec<T>, Failure> {
        let mut items: Vec<T> = Vec::new();
        let mut before: Option<u64> = None;
        while items.len() < limit {
            let mut pairs = which.to_vec();
            pairs.push(("before", before.map(|number| number.to_string())));
            pairs.push(("limit", Some((limit - items.len()).min(NEWEST_PAGE).to_string())));
            let page: Newest<T> = self.get(&path_with(path, &pairs))?;
            items.extend(page.items);
            match page.next {
                Some(next) if before != Some(next) => before = Some(next),
                _ => break,
            }
        }
        Ok(items)
    }

    /// Asks, whatever the answer is.
    pub async fn send(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<Answer, ClientError> {
        let method = hyper::Method::from_bytes(method.as_bytes())
            .map_err(|error| ClientError::Config(format!("{method}: {error}")))?;
        let body = body.map(|bytes| ("application/json", bytes.into()));
        let mut headers = vec![(OWNER_HEADER, self.owner.as_str())];
        headers.extend(self.key.as_deref().map(|key| (crate::protocol::LEASE_KEY_HEADER, key)));
        self.http.send(method, path, body, &headers).await
    }

    /// The client underneath, for what is read as it comes.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Runs a future on the command's runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}

/// A page of what has numbers.
#[derive(Deserialize)]
struct Newest<T> {
    items: Vec<T>,
    /// Where the next one begins.
    #[serde(default)]
    next: Option<u64>,
}

/// All of a listing.
#[derive(Clone, Debug)]
pub struct Listing<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Lab time when it was made.
    pub now: u64,
}

fn json_body(body: &impl Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body).map_err(|error| Failure::usage(format!("this cannot be sent as JSON: {error}")))
}

/// A header has visible ASCII only; anything else in a host's or user's name is replaced.
fn header_text(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// A path with the query that these pairs make; those without a value are left out.
#[must_use]
pub fn path_with(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut join = '?';
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(join);
            text.push_str(&format!("{name}={}", encode(value)));
            join = '&';
        }
    }
    text
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::Config(_) => exit_code::USAGE,
            ClientError::Misdirected(_)
            | ClientError::NoBroker(_)
            | ClientError::NotABroker(_)
            | ClientError::Unanswered(_) => exit_code::OWN,
            ClientError::Closed
            | ClientError::Lost { .. }
            | ClientError::Protocol(_)
            | ClientError::Refused { .. }
            | ClientError::SessionGone(_) => exit_code::REFUSED,
        };
        Self::new(code, output::escape_lines(&error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::{ClientError, Failure, encode, exit_code, header_text, path_with};

    #[test]
    fn pieces_of_a_path_stay_pieces() {
        for (text, encoded) in
            [("pixel-8.01_a", "pixel-8.01_a"), ("a/b?c", "a%2Fb%3Fc"), ("..", "%2E%2E"), ("ü %", "%C3%BC%20%25")]
        {
            assert_eq!(encode(text), encoded);
        }
        assert_eq!(
            path_with("/v1/x", &[("a", None), ("b", Some("1,2".into())), ("c", Some("d".into()))]),
            "/v1/x?b=1%2C2&c=d"
        );
    }

    #[test]
    fn every_error_of_a_client_has_its_exit_code() {
        for (error, code) in [
            (ClientError::NoBroker("x".into()), exit_code::OWN),
            (ClientError::NotABroker("x".into()), exit_code::OWN),
            (ClientError::Misdirected("x".into()), exit_code::OWN),
            (ClientError::Unanswered("x".into()), exit_code::OWN),
            (ClientError::Config("x".into()), exit_code::USAGE),
            (ClientError::Protocol("x".into()), exit_code::REFUSED),
            (ClientError::Refused { code: "not_found".into(), message: "x".into(), need: None }, exit_code::REFUSED),
        ] {
            assert_eq!(Failure::from(error).code, code);
        }
        let hostile = ClientError::NoBroker("\x1b[2J".into());
        assert!(!Failure::from(hostile).message.contains('\x1b'));
    }

    #[test]
    fn a_name_no_header_can_have_is_made_one() {
        assert_eq!(header_text("jürgen@lab\n"), "j?rgen@lab?");
    }
}
