//! Asking the broker for work, and taking it.
//!
//! Which builds are this agent's is decided by their leases, of which this knows nothing: what the broker
//! says has a slot of this agent is taken.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::cli::broker::encode;
use crate::cli::terminal::Messages;
use crate::client::ClientError;
use crate::client::http::Http;
use crate::clock::{BootTime, boot_now, jitter, random_secret};
use crate::core::limits::TTL_MS_MAX;
use crate::protocol::builds::{BuildTake, Job, WorkInfo};

/// How long the broker may let a question wait.
const WAIT_MS: u64 = 20_000;
/// The first pause after a try that failed; each further one is twice as long.
const PAUSE_MS: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;
/// The pause after a build that was another's already, before the broker is asked again.
const REFUSED: Duration = Duration::from_millis(500);
/// The longest pause between tries to take a build.
const TAKE_PAUSE_MS_MAX: u64 = 1_000;
/// For how long that is tried: no broker waits for longer than a session's ttl until it gives the build to another.
const TAKE_MS_MAX: u64 = TTL_MS_MAX;

/// A build that was taken.
pub struct Taken {
    /// What to do.
    pub job: Job,
    /// Under which key.
    pub key: String,
    /// When it was asked for.
    pub at: BootTime,
}

/// Takes builds for an agent.
pub struct Taker {
    /// The brokers.
    pub http: Http,
    /// The agent's name.
    pub agent: String,
    /// For people.
    pub messages: Messages,
    /// Whether there is to be more work.
    pub asking: watch::Receiver<bool>,
    /// Whether builds are being stopped: none is waited for any more.
    pub stopped: watch::Receiver<bool>,
}

impl Taker {
    /// Takes builds for as long as it is to ask. One that it has begun to take it takes to the end, and hands on.
    pub async fn take_on(self, taken: mpsc::Sender<Taken>) {
        let path = format!("/v1/agents/{}/work?wait_ms={WAIT_MS}", encode(&self.agent));
        let (mut trouble, mut asking) = (Trouble::default(), self.asking.clone());
        loop {
            let asked = tokio::select! {
                answer = self.http.get(&path) => answer.and_then(|answer| answer.json::<WorkInfo>()),
                () = over(&mut asking) => return,
            };
            let pause = match asked {
                Ok(work) => {
                    trouble.over();
                    match self.take_all(&work.builds, &taken).await {
                        None => continue,
                        Some(pause) => pause,
                    }
                }
                Err(error) => {
                    trouble.met(&error, &self.messages);
                    trouble.pause()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = over(&mut asking) => return,
            }
        }
    }

    /// Takes these; answers how long to pause where one was another's already.
    async fn take_all(&self, builds: &[u64], taken: &mpsc::Sender<Taken>) -> Option<Duration> {
        let mut pause = None;
        for build in builds {
            if !*self.asking.borrow() {
                break;
            }
            match self.take(*build).await {
                // Nobody hears of it only when the agent ends at once.
                Ok(one) => drop(taken.send(one).await),
                Err(why) => {
                    self.messages.line(format!("build #{build} is not taken: {why}"));
                    pause = Some(REFUSED);
                }
            }
        }
        pause
    }

    /// Takes one; tried again while it is not known whether that was done: the broker may have handed it over, and
    /// to the same key it does so again.
    async fn take(&self, build: u64) -> Result<Taken, ClientError> {
        let take = BuildTake { agent: self.agent.clone(), key: random_secret() };
        let at = boot_now();
        let mut pause_ms = PAUSE_MS;
        loop {
            let answer = self.http.post(&format!("/v1/builds/{build}/take"), Some(&take)).await;
            let error = match answer.and_then(|answer| answer.json()) {
                Ok(job) => return Ok(Taken { job, key: take.key, at }),
                Err(error) => error,
            };
            let may_be = error.is_passing() || matches!(error, ClientError::Unanswered(_));
            if !may_be || *self.stopped.borrow() || boot_now() >= at.plus(TAKE_MS_MAX) {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(pause_ms / 2 + jitter(pause_ms / 2 + 1))).await;
            pause_ms = (pause_ms * 2).min(TAKE_PAUSE_MS_MAX);
        }
    }
}

/// Comes when there is to be no more work.
async fn over(asking: &mut watch::Receiver<bool>) {
    // An agent that is gone asks for none either.
    drop(asking.wait_for(|asking| !asking).await);
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

    fn pause(&self) -> Duration {
        let whole = (PAUSE_MS << self.tries.min(8)).min(PAUSE_MS_MAX);
        Duration::from_millis(whole / 2 + jitter(whole / 2 + 1))
    }
}
