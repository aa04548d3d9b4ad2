//! Asking the broker for work, and taking it.
//!
//! Which builds are this agent's is decided by their leases, of which this knows nothing: what the broker
//! says has a slot of this agent is taken.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::cli::broker::encode;
use crate::cli::terminal::Messages;
use crate::client::ClientError;
use crate::client::http::Http;
use crate::clock::{BootTime, boot_now, jitter, random_secret};
use crate::protocol::builds::{BuildTake, Job, WorkInfo};

/// How long the broker may let a question wait.
const WAIT_MS: u64 = 20_000;
/// The first pause after a try that failed; each further one is twice as long.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;
/// The pause after a build that was another's already, before the broker is asked again.
const REFUSED_MS: u64 = 500;

/// A build that was taken.
pub struct Taken {
    /// What to do.
    pub job: Job,
    /// Under which key.
    pub key: String,
    /// When it was asked for.
    pub at: BootTime,
}

/// Takes builds for as long as anybody takes them in turn.
pub async fn take_on(http: Http, agent: String, messages: Messages, taken: mpsc::Sender<Taken>) {
    let path = format!("/v1/agents/{}/work?wait_ms={WAIT_MS}", encode(&agent));
    let mut trouble = Trouble::default();
    while !taken.is_closed() {
        let work = match http.get(&path).await.and_then(|answer| answer.json::<WorkInfo>()) {
            Ok(work) => work,
            Err(error) => {
                trouble.met(&error, &messages);
                trouble.pause().await;
                continue;
            }
        };
        trouble.over();
        for build in work.builds {
            match take(&http, &agent, build).await {
                Ok(one) => {
                    if taken.send(one).await.is_err() {
                        return;
                    }
                }
                Err(why) => {
                    messages.line(format!("build #{build} is not taken: {why}"));
                    tokio::time::sleep(Duration::from_millis(REFUSED_MS)).await;
                }
            }
        }
    }
}

/// Takes one; tried again while it is not known whether that was done.
async fn take(http: &Http, agent: &str, build: u64) -> Result<Taken, ClientError> {
    let take = BuildTake { agent: agent.to_owned(), key: random_secret() };
    let at = boot_now();
    let mut tries = 0;
    loop {
        let answer = http.post(&format!("/v1/builds/{build}/take"), Some(&take)).await;
        match answer.and_then(|answer| answer.json()) {
            Ok(job) => return Ok(Taken { job, key: take.key, at }),
            Err(error @ (ClientError::Unanswered(_) | ClientError::NoBroker(_))) if tries < 5 => {
                drop(error);
                tokio::time::sleep(Duration::from_millis(PAUSE_MS << tries)).await;
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// What keeps the broker from being asked: said once, and tried again after longer and longer pauses.
#[derive(Default)]
struct Trouble {
    said: Option<String>,
    tries: u32,
}

impl Trouble {
    fn met(&mut self, error: &ClientError, messages: &Messages) {
        self.tries += 1;
        // One that is away is told of by the session; one that is there and refuses is not.
        let why = error.to_string();
        if !error.is_passing() && self.said.as_ref() != Some(&why) {
            messages.line(format!("no work can be had: {why}"));
            self.said = Some(why);
        }
    }

    fn over(&mut self) {
        *self = Self::default();
    }

    async fn pause(&self) {
        let whole = (PAUSE_MS << self.tries.min(8)).min(PAUSE_MS_MAX);
        tokio::time::sleep(Duration::from_millis(whole / 2 + jitter(whole / 2 + 1))).await;
    }
}
