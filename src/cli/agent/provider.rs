//! The agent's executor on the broker's books: a provider's session, opened again whenever it was lost.
//!
//! An agent that takes no more work takes its executor off the books: one that is held stays with its holder
//! until its lease ends, and nobody new gets it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use crate::builds::plan::EXECUTOR_POOL;
use crate::cli::provide::{FOR_EVER_MS, RETRY, failure, hear};
use crate::cli::terminal::Messages;
use crate::cli::{Failure, granting};
use crate::client::{Client, ClientError, EventStream, Options};
use crate::protocol::call::{ProvidedResource, ProviderProvide};

/// What an agent brings.
#[derive(Clone, Debug)]
pub struct Executor {
    /// Its name, and the provider's.
    pub name: String,
    /// The provider's key.
    pub key: String,
    /// Which machine this is.
    pub host: Option<String>,
    /// How many builds at once.
    pub slots: u32,
    /// What pipelines may ask for.
    pub labels: BTreeMap<String, Value>,
}

impl Executor {
    fn request(&self, open: bool) -> ProviderProvide {
        let executor = ProvidedResource {
            name: self.name.clone(),
            pool: EXECUTOR_POOL.to_owned(),
            labels: self.labels.clone(),
            slots: Some(self.slots),
            ..ProvidedResource::default()
        };
        ProviderProvide {
            name: self.name.clone(),
            key: self.key.clone(),
            host: self.host.clone(),
            resources: if open { vec![executor] } else { Vec::new() },
            // There is one resource: taking it off is always more than a fifth.
            confirmed: true,
        }
    }
}

/// Provides until `open` is dropped; `open` says whether work is taken. `online` is told of the first time.
///
/// # Errors
/// When another agent took over, or the broker refuses what is provided.
pub async fn provide(
    executor: Executor,
    options: Options,
    messages: Messages,
    mut open: watch::Receiver<bool>,
    online: oneshot::Sender<()>,
) -> Result<(), Failure> {
    let mut online = Some(online);
    let mut options = options;
    loop {
        let client = Client::start(options.clone()).map_err(|error| failure(&error))?;
        let done = dropped(open.clone());
        let over = tokio::select! {
            over = serve(&executor, &client, &messages, &mut open, &mut online) => over,
            () = done => Ok(Over::Done),
        };
        granting::close(&client).await;
        match over? {
            Over::Done => return Ok(()),
            Over::Gone(why) => messages.line(format!("the agent's session is lost ({why}): opening another")),
        }
        options.connect_timeout_ms = FOR_EVER_MS;
    }
}

enum Over {
    Done,
    /// The broker does not know the session any more.
    Gone(String),
}

/// Comes when the sender is gone.
async fn dropped(mut open: watch::Receiver<bool>) {
    while open.changed().await.is_ok() {}
}

/// One session, until it is over.
async fn serve(
    executor: &Executor,
    client: &Client,
    messages: &Messages,
    open: &mut watch::Receiver<bool>,
    online: &mut Option<oneshot::Sender<()>>,
) -> Result<Over, Failure> {
    let mut events = client.events();
    let mut away = online.is_some().then_some(false);
    let mut refused = String::new();
    loop {
        let wanted = *open.borrow_and_update();
        // Some(pause) asks again after it.
        let again = tokio::select! {
            done = client.provide(executor.request(wanted)) => match done {
                Ok(_) => {
                    if let Some(online) = online.take() {
                        let (name, slots) = (&executor.name, executor.slots);
                        messages.line(format!("agent {name} is online, with slots for builds: {slots}"));
                        // Who started it may not wait any more.
                        let _ = online.send(());
                    }
                    None
                }
                // Why the session is over is told by itself.
                Err(ClientError::Closed | ClientError::SessionGone(_)) => None,
                Err(error @ ClientError::Refused { .. }) if online.is_none() => {
                    if std::mem::replace(&mut refused, error.to_string()) != refused {
                        messages.line(format!("the executor is refused, trying again: {refused}"));
                    }
                    Some(RETRY)
                }
                Err(error) => return Err(failure(&error)),
            },
            over = superseded(&mut events, &mut away, messages) => return Err(over),
        };
        tokio::select! {
            error = client.closed() => match error {
                ClientError::SessionGone(why) => return Ok(Over::Gone(why)),
                error => return Err(failure(&error)),
            },
            over = superseded(&mut events, &mut away, messages) => return Err(over),
            changed = open.changed() => if changed.is_err() {
                return Ok(Over::Done);
            },
            () = tokio::time::sleep(again.unwrap_or(Duration::MAX)) => {}
        }
    }
}

async fn superseded(events: &mut EventStream, away: &mut Option<bool>, messages: &Messages) -> Failure {
    loop {
        match events.next().await {
            Some(event) => {
                if let Some(message) = hear(event, away, messages) {
                    return Failure::refused(message);
                }
            }
            None => std::future::pending().await,
        }
    }
}
