//! What a build's process says of the build to the broker: that its steps begin, and how it ended.
//!
//! Said again it changes nothing, so it is said until a broker has heard it.

use std::time::Duration;

use tokio::sync::watch;

use crate::cli::agent::output::sender::may_wait;
use crate::client::ClientError;
use crate::client::http::Http;
use crate::clock::{BootTime, jitter};
use crate::protocol::LEASE_KEY_HEADER;
use crate::protocol::builds::{BuildReport, Reported};

/// The first pause after a try that failed; each further one is twice as long.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;

/// Whose reports, and under which key.
#[derive(Clone)]
pub struct Reporter {
    /// The brokers.
    pub http: Http,
    /// The build.
    pub build: u64,
    /// Its attempt.
    pub attempt: u32,
    /// The key that the build was taken under.
    pub key: String,
}

impl Reporter {
    /// Says it until a broker has heard it; `until` says when to give up where there is none.
    ///
    /// # Errors
    /// With what the broker says where it wants to hear nothing more, or why none was there in time.
    pub async fn report(&self, what: Reported, until: watch::Receiver<Option<BootTime>>) -> Result<(), String> {
        let path = format!("/v1/builds/{}/report", self.build);
        let report = BuildReport { attempt: self.attempt, what };
        let body = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
        let body = Some(("application/json", hyper::body::Bytes::from(body)));
        let headers = [(LEASE_KEY_HEADER, self.key.as_str())];
        let mut pause_ms = PAUSE_MS;
        loop {
            let why = match self.http.send(hyper::Method::POST, &path, body.clone(), &headers).await {
                Ok(answer) if answer.is_success() => return Ok(()),
                Ok(answer) if (400..500).contains(&answer.status) && answer.status != 429 => {
                    return Err(answer.refusal().to_string());
                }
                Ok(answer) => answer.refusal(),
                Err(error @ ClientError::Config(_)) => return Err(error.to_string()),
                Err(error) => error,
            };
            let wait = Duration::from_millis(pause_ms / 2 + jitter(pause_ms / 2 + 1));
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            if !may_wait(wait, &until).await {
                return Err(why.to_string());
            }
        }
    }
}
