//! The reporter: tells forges what became of their commits.
//!
//! It is given rows of the outbox that are due, and answers each when the forge has answered. It keeps
//! nothing: what it was given and did not answer is still in the outbox, and given again after a restart.
//! When a row is due again is the outbox's to say; what the wait is, is decided here ([`verdict`]).
//!
//! Of each place (repository, commit, context) one request is under way at a time and only the newest version
//! is sent, so that a forge sees versions in their order and none after a newer one. A place stays taken until
//! its answer is stored, and for a moment longer where nobody knows whether a request is still on its way.
//! Where a forge says that there were too many requests, all that goes there with this token waits.

mod request;
mod send;
mod verdict;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

use self::send::{Sender, Sent};
use self::verdict::Verdict;
use crate::builds::happening::Forge;
use crate::builds::status::{Answer, Status, StatusKey};
use crate::clock::wall_now_ms;
use crate::core::inventory::SecretRef;
use crate::inventory::pipelines::{PipelineSettings, Repository};

/// Requests under way, to all forges.
const AT_ONCE_MAX: usize = 8;
/// Requests under way with one token: one that is slow leaves room for the others.
const AT_ONCE_EACH_MAX: usize = 3;
/// Rows that wait in memory. What is given beyond is not taken, and is given again: it stays due.
const WAITING_MAX: usize = 10_000;
/// How long a place rests after a request of which nobody knows whether it still arrives.
const REST: Duration = Duration::from_secs(2);

/// Whom the reporter tells.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where people reach the broker, without a slash at its end: statuses lead to a page under it.
    pub public_url: Arc<str>,
    /// Repositories whose statuses are told, by their name in the configuration.
    pub places: BTreeMap<Arc<str>, Place>,
}

/// A repository at its forge.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which API it speaks.
    pub forge: Forge,
    /// Where that is: `https://api.github.com`.
    pub api: Arc<str>,
    /// The repository's full name there.
    pub name: Arc<str>,
    /// Where the token is read, anew for each request: it may be rotated.
    pub token: SecretRef,
}

impl Settings {
    /// What the configuration says of it.
    #[must_use]
    pub fn of(settings: &PipelineSettings) -> Self {
        let told = settings.repositories.values().filter(|repository| repository.statuses);
        let place = |repository: &Arc<Repository>| {
            let place = Place {
                forge: repository.forge,
                api: repository.api.clone()?,
                name: Arc::clone(&repository.name),
                token: repository.token.clone()?,
            };
            Some((Arc::clone(&repository.name), place))
        };
        Self { public_url: Arc::clone(&settings.public_url), places: told.filter_map(place).collect() }
    }
}

/// Stores an answer to a version of a row; comes back when that is done, or cannot be.
pub type Settle = Arc<dyn Fn(StatusKey, u64, Answer) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The reporter's handle. It ends with its last handle, in the middle of whatever it was doing.
#[derive(Clone, Debug)]
pub struct Reporter(Arc<Running>);

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Reporter {
    /// Starts it, on this runtime.
    #[must_use]
    pub fn start(settings: Settings, settle: Settle) -> Self {
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(work(Arc::new(Sender::new(settings)), settle, Arc::clone(&shared)));
        Self(Arc::new(Running { shared, task }))
    }

    /// Has rows told that are due. Never waits. A row that is known already, or older than one that is, may be
    /// given again: nothing comes of it.
    pub fn tell(&self, rows: impl IntoIterator<Item = Arc<Status>>) {
        let mut queue = self.0.shared.queue();
        for row in rows {
            queue.add(row);
        }
        drop(queue);
        self.0.shared.changed.notify_one();
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Whoever panicked with it left a map that is sound.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An API and whose token: what a forge's limits are about.
type Account = (Arc<str>, String);

/// What waits, what is under way, and what must rest.
#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<StatusKey, Arc<Status>>,
    under_way: BTreeMap<StatusKey, u64>,
    accounts: BTreeMap<Account, Use>,
}

/// How an account is used.
#[derive(Debug, Default)]
struct Use {
    under_way: usize,
    /// Unix milliseconds; in the past when it does not rest.
    rests_until_ms: i64,
}

impl Queue {
    fn add(&mut self, row: Arc<Status>) {
        let newer = |known: Option<u64>| known.is_none_or(|known| known < row.version);
        let known = self.waiting.get(&row.key).map(|row| row.version);
        let room = known.is_some() || self.waiting.len() < WAITING_MAX;
        if !row.told && room && newer(known) && newer(self.under_way.get(&row.key).copied()) {
            self.waiting.insert(row.key.clone(), row);
        }
    }

    /// Takes the row that is due longest among those that may be sent now; else says when to look again,
    /// where that is by the clock.
    fn take(&mut self, account_of: impl Fn(&Status) -> Account, now_ms: i64) -> Result<Arc<Status>, Option<i64>> {
        if self.under_way.len() >= AT_ONCE_MAX {
            return Err(None);
        }
        let mut found: Option<&Arc<Status>> = None;
        let mut look_ms: Option<i64> = None;
        for row in self.waiting.values().filter(|row| !self.under_way.contains_key(&row.key)) {
            let used = self.accounts.get(&account_of(row));
            let rests_until_ms = used.map_or(i64::MIN, |used| used.rests_until_ms);
            if rests_until_ms > now_ms {
                look_ms = Some(look_ms.map_or(rests_until_ms, |at_ms| at_ms.min(rests_until_ms)));
            } else if used.is_none_or(|used| used.under_way < AT_ONCE_EACH_MAX)
                && found.is_none_or(|known| (row.due_ms, row.version) < (known.due_ms, known.version))
            {
                found = Some(row);
            }
        }
        let row = Arc::clone(found.ok_or(look_ms)?);
        self.waiting.remove(&row.key);
        self.under_way.insert(row.key.clone(), row.version);
        self.accounts.entry(account_of(&row)).or_default().under_way += 1;
        Ok(row)
    }

    /// A request is answered; its place stays taken.
    fn answered(&mut self, account: &Account, rests_until_ms: Option<i64>) {
        let used = self.accounts.entry(account.clone()).or_default();
        used.under_way = used.under_way.saturating_sub(1);
        used.rests_until_ms = used.rests_until_ms.max(rests_until_ms.unwrap_or(i64::MIN));
    }
}

async fn work(sender: Arc<Sender>, settle: Settle, shared: Arc<Shared>) {
    let mut under_way = JoinSet::new();
    loop {
        while let Some(ended) = under_way.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "telling a forge of a status ended badly");
            }
        }
        let taken = shared.queue().take(|row| sender.account(row), wall_now_ms());
        match taken {
            Ok(row) => {
                under_way.spawn(tell_one(Arc::clone(&sender), Arc::clone(&settle), Arc::clone(&shared), row));
            }
            Err(look_ms) => {
                let wait_ms = look_ms.map_or(u64::MAX, |at_ms| u64::try_from(at_ms - wall_now_ms()).unwrap_or(0));
                tokio::select! {
                    () = shared.changed.notified() => {}
                    // Once a minute at the least: the wall clock may be set.
                    () = tokio::time::sleep(Duration::from_millis(wait_ms.min(60_000))) => {}
                }
            }
        }
    }
}

async fn tell_one(sender: Arc<Sender>, settle: Settle, shared: Arc<Shared>, row: Arc<Status>) {
    let place = Taken { shared: &shared, key: &row.key };
    let account = sender.account(&row);
    let Sent { verdict, rests_until_ms, unsure } = sender.send(&row).await;
    shared.queue().answered(&account, rests_until_ms);
    shared.changed.notify_one();
    let wanted = verdict != Verdict::Unwanted;
    let answer = verdict.answer(&row, wall_now_ms());
    match &answer {
        _ if !wanted => {}
        Answer::Taken => tracing::debug!(whose = %row.whose, context = &*row.key.context, "told the forge"),
        Answer::Later { trouble, .. } if row.tries > 0 => {
            tracing::debug!(whose = %row.whose, trouble = &**trouble, "a status is not told yet");
        }
        Answer::Later { trouble, .. } | Answer::GivenUp { trouble } => {
            let repository = &*row.key.repository;
            tracing::warn!(whose = %row.whose, repository, trouble = &**trouble, "a status is not told");
        }
    }
    settle(row.key.clone(), row.version, answer).await;
    if unsure {
        tokio::time::sleep(REST).await;
    }
    drop(place);
}

/// A place that is taken until this is dropped.
struct Taken<'a> {
    shared: &'a Shared,
    key: &'a StatusKey,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.shared.queue().under_way.remove(self.key);
        self.shared.changed.notify_one();
    }
}
