//! What is sent to a forge: the API of each, as one request, and nothing that is done with it.
//!
//! ```text
//!   GitHub   POST {api}/repos/{owner}/{name}/statuses/{sha}    Authorization: Bearer
//!   GitLab   POST {api}/projects/{owner%2Fname}/statuses/{sha}   PRIVATE-TOKEN:
//!   Gitea    POST {api}/repos/{owner}/{name}/statuses/{sha}    Authorization: token
//! ```

use reqwest::Url;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::Place;
use crate::builds::happening::Forge;
use crate::builds::status::{Status, StatusState};

/// The version of GitHub's API that this speaks.
const GITHUB_VERSION: &str = "2022-11-28";

/// A request: a POST of JSON.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) url: Url,
    /// The token's is marked as sensitive, so that no log shows it.
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Request {
    /// The request that tells this forge of a status.
    ///
    /// # Errors
    /// In words and without the token: the address cannot be made, or the token cannot stand in a header.
    pub(super) fn of(status: &Status, place: &Place, token: &str, target: &str) -> Result<Self, String> {
        Ok(Self {
            url: address(place, status.key.sha.as_str())?,
            headers: headers(place.forge, token)?,
            body: body(place.forge, status, target),
        })
    }
}

fn address(place: &Place, sha: &str) -> Result<Url, String> {
    let api = &place.api;
    let mut url = Url::parse(api).map_err(|error| format!("api {api:?} is no URL: {error}"))?;
    let mut segments = url.path_segments_mut().map_err(|()| format!("api {api:?} has no path"))?;
    segments.pop_if_empty();
    match place.forge {
        // One segment: the slashes of its name are encoded.
        Forge::Gitlab => segments.extend(["projects", &*place.name]),
        Forge::Gitea | Forge::Github => {
            let (owner, name) =
                place.name.split_once('/').filter(|(_, name)| !name.contains('/')).ok_or_else(|| {
                    format!("{:?} is no repository of {}: expected owner/name", place.name, place.forge)
                })?;
            segments.extend(["repos", owner, name])
        }
    };
    segments.extend(["statuses", sha]);
    drop(segments);
    Ok(url)
}

fn headers(forge: Forge, token: &str) -> Result<HeaderMap, String> {
    let (name, text) = match forge {
        Forge::Gitea => (AUTHORIZATION, format!("token {token}")),
        Forge::Github => (AUTHORIZATION, format!("Bearer {token}")),
        Forge::Gitlab => (HeaderName::from_static("private-token"), token.to_owned()),
    };
    let mut value = HeaderValue::try_from(text).map_err(|_| "the token has characters that no token has".to_owned())?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::from_iter([(name, value)]);
    if forge == Forge::Github {
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static(GITHUB_VERSION));
    } else {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    }
    Ok(headers)
}

fn body(forge: Forge, status: &Status, target: &str) -> Value {
    json!({
        "state": word(forge, status.state),
        "context": &*status.key.context,
        "description": &*status.description,
        "target_url": target,
    })
}

/// A state, in the forge's own words.
const fn word(forge: Forge, state: StatusState) -> &'static str {
    match (forge, state) {
        (Forge::Gitlab, StatusState::Running) => "running",
        (_, StatusState::Pending | StatusState::Running) => "pending",
        (_, StatusState::Success) => "success",
        (Forge::Gitlab, StatusState::Cancelled) => "canceled",
        (Forge::Gitlab, StatusState::Failure | StatusState::Error) => "failed",
        // No word for what was ended; and a commit whose build was ended has not passed.
        (_, StatusState::Failure | StatusState::Cancelled) => "failure",
        (_, StatusState::Error) => "error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::inventory::SecretRef;

    fn place(forge: Forge, api: &str, name: &str) -> Place {
        Place { forge, api: api.into(), name: name.into(), token: SecretRef::Env("TOKEN".into()) }
    }

    #[test]
    fn addresses_are_those_of_each_api() {
        let url = |forge, api, name| address(&place(forge, api, name), "abc").map(String::from);
        let github = url(Forge::Github, "https://ghe.example/api/v3", "acme/app");
        assert_eq!(github.as_deref(), Ok("https://ghe.example/api/v3/repos/acme/app/statuses/abc"));
        let gitlab = url(Forge::Gitlab, "https://gitlab.com/api/v4/", "acme/tools/app");
        assert_eq!(gitlab.as_deref(), Ok("https://gitlab.com/api/v4/projects/acme%2Ftools%2Fapp/statuses/abc"));
        let odd = url(Forge::Gitea, "http://127.0.0.1:3000/api/v1", "a b/..");
        assert_eq!(odd.as_deref(), Ok("http://127.0.0.1:3000/api/v1/repos/a%20b/statuses/abc"));
        assert!(url(Forge::Github, "https://api.github.com", "app").is_err_and(|said| said.contains("owner/name")));
    }

    #[test]
    fn a_token_is_never_shown() {
        let made = headers(Forge::Gitlab, "s3cret").expect("a token");
        assert!(!format!("{made:?}").contains("s3cret"));
        assert!(headers(Forge::Github, "s3cret\n").is_err_and(|said| !said.contains("s3cret")));
    }

    #[test]
    fn every_state_has_a_word_that_the_forge_knows() {
        let known = |forge| match forge {
            Forge::Gitea => ["pending", "success", "error", "failure", "warning"].as_slice(),
            Forge::Github => ["pending", "success", "error", "failure"].as_slice(),
            Forge::Gitlab => ["pending", "running", "success", "failed", "canceled"].as_slice(),
        };
        use StatusState::{Cancelled, Error, Failure, Pending, Running, Success};
        for forge in [Forge::Gitea, Forge::Github, Forge::Gitlab] {
            for state in [Pending, Running, Success, Failure, Cancelled, Error] {
                assert!(known(forge).contains(&word(forge, state)), "{forge}: {state:?}");
            }
        }
    }
}
