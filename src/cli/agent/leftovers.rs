//! What an agent that was killed has left: folders, what was printed and not sent, containers.
//!
//! Its builds end by themselves, and are tried again elsewhere where their pipelines say so; nothing of them
//! is gone on with. What they printed is brought to the broker as far as it still takes it: until the build
//! is over there, which is a ttl after its last sign of life at the latest.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::sync::watch;

use super::container::Killing;
use super::folders::BuildFolder;
use super::handover::ContainerPolicy;
use super::output::sender::{Sender, Sent};
use super::output::spool;
use crate::cli::terminal::Messages;
use crate::client::http::Http;
use crate::clock::boot_now;

/// How long the rest of a log is tried to be brought to a broker that is away.
const REST_MS: u64 = 60_000;
/// How long the engine may take to remove containers. The broker waits for an agent that takes its first build.
const CONTAINERS_TIME: Duration = Duration::from_secs(20);
/// How often is looked whether a build that is still ending has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Removes all containers of the agent. So it is over before there is a build that may have one: they have the
/// same label.
pub async fn remove_containers(agent: &str, policy: &ContainerPolicy, messages: &Messages) {
    let killing = Killing::of_agent(policy, agent);
    let tried = tokio::time::timeout(CONTAINERS_TIME, killing.kill()).await;
    match tried.unwrap_or_else(|_| Err("the engine does not answer".to_owned())) {
        Ok(0) => {}
        Ok(count) => messages.line(format!("containers left by builds of before, removed: {count}")),
        // Most agents have none, and no engine.
        Err(_) if policy.socket.is_none() => {}
        Err(why) => messages.line(format!("containers that builds of before may have left: {why}")),
    }
}

/// Puts the folders away that were there when the agent was started.
pub async fn put_away(present: Vec<BuildFolder>, http: Http, messages: Messages) {
    for folder in present {
        let mut said = false;
        let locked = loop {
            match folder.try_lock() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !std::mem::replace(&mut said, true) {
                        messages.line(format!("{} is of a build that is still ending", folder.path().display()));
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                other => break other,
            }
        };
        if locked.is_ok() {
            deliver(&folder, &http, &messages).await;
        }
        match folder.remove() {
            Ok(()) => messages.line(format!("left by a build of before, removed: {}", folder.path().display())),
            Err(error) => messages.line(format!("{} cannot be removed: {error}", folder.path().display())),
        }
    }
}

/// Brings what a build printed to the broker, as far as that takes it.
pub async fn deliver(folder: &BuildFolder, http: &Http, messages: &Messages) {
    let Some((build, attempt)) = folder.number() else { return };
    let Ok(key) = std::fs::read_to_string(folder.key()) else { return };
    let Ok(spool) = spool::reopen(&folder.spool()) else { return };
    let bytes = spool.waiting();
    if bytes == 0 {
        return;
    }
    let sender = Sender { http: http.clone(), build, attempt, key };
    let (_until, until) = watch::channel(Some(boot_now().plus(REST_MS)));
    match sender.send(spool, until).await {
        Sent::Whole => messages.line(format!("build #{build}: the rest of its log is stored, {bytes} bytes at most")),
        Sent::Closed(why) | Sent::Failed(why) => {
            messages.line(format!("build #{build}: the end of its log is dropped, {bytes} bytes at most: {why}"));
        }
    }
}
