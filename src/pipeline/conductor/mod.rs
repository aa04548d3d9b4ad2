//! The conductor: the one writer of builds, and its handle.
//!
//! ```text
//!   Conductor (cloned freely) ──wishes──▶ task ──changes, one transaction──▶ build store
//!                                          │ ▲                                  │ durable
//!                        orders to claims, │ │ what they heard                  ▼
//!                        endings, git      ▼ │                        answers, then acts
//!                                   tasks of their own
//! ```
//!
//! Everything queued is one batch. What a batch decides is stored before anybody is told of it and before
//! anything is done about it. When the store fails nothing of the batch is told; the book is read anew, and
//! what is to be done in the world is worked out from that. Leases are never held up by any of it.

mod act;
mod claim;
mod figures;
mod hand_over;
mod mending;
mod reconcile;
mod sources;
mod spec;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::act::PastLeases;
pub use self::figures::Figures;
use self::task::Task;
use super::logs::Logs;
use super::reporter::{Reporter, Settle};
use super::source::{Asked, PipelineSource};
use crate::builds::book::{Answer, Command, Refusal, Report};
use crate::builds::build::{Build, BuildId, Subject};
use crate::builds::change::Note;
use crate::builds::delivery::{Delivery, DeliveryId};
pub use crate::builds::delivery::{Incoming, Received};
use crate::builds::happening::Sha;
use crate::builds::status::{StatusKey, Whose};
use crate::clock::wall_now_ms;
use crate::engine::handle::Handle;
use crate::inventory::pipelines::PipelineSettings;
use crate::protocol::builds::{BuildStart, HandedSession, Job, WORK_WAIT_MS_MAX};
use crate::protocol::error::{RpcError, code};
use crate::store::StoreError;
use crate::store::builds::{BuildFilter, BuildStore};

/// Wishes that wait for the conductor. When it is full whoever brings one waits.
const WISHES_MAX: usize = 1_024;
/// How long git may take for what somebody asks for.
const LOOK_MAX: Duration = Duration::from_secs(120);

/// What people, forges and agents ask of builds, and where those stand.
#[derive(Clone)]
pub struct Conductor(Arc<Door>);

struct Door {
    wishes: mpsc::Sender<Wish>,
    store: Arc<dyn BuildStore>,
    source: PipelineSource,
    settings: Arc<PipelineSettings>,
    seen: watch::Receiver<Seen>,
    stop: CancellationToken,
}

/// What is known of the builds without asking the task.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Grows with everything that is stored.
    pub changes: u64,
    /// Builds that wait for an agent to take them, by the agent's name.
    pub(crate) offers: Arc<BTreeMap<Arc<str>, BTreeSet<BuildId>>>,
    /// Why builds wait, as far as that changes without being stored.
    pub(crate) waits: Arc<BTreeMap<BuildId, Arc<str>>>,
}

/// Something asked of the task.
pub(crate) enum Wish {
    /// Decide this.
    Command(Box<Command>, oneshot::Sender<Result<Told, RpcError>>),
    /// What there is to count.
    Figures(oneshot::Sender<Figures>),
}

/// What a command came to, durable.
pub(crate) struct Told {
    answer: Answer,
    /// Of a build that was taken: its session.
    session: Option<HandedSession>,
}

/// What a conductor is made of.
pub struct Parts {
    /// Where builds are kept.
    pub store: Arc<dyn BuildStore>,
    /// Where pipelines come from.
    pub source: PipelineSource,
    /// What it goes by.
    pub settings: Arc<PipelineSettings>,
    /// The engine of the leases.
    pub engine: Handle,
    /// How leases ended.
    pub leases: Arc<dyn PastLeases>,
    /// The builds' logs.
    pub logs: Logs,
}

impl Conductor {
    /// Takes the builds over and starts the task. `report` makes the reporter of statuses, given where its
    /// answers go.
    ///
    /// # Errors
    /// When the builds cannot be read.
    pub async fn start(
        parts: Parts,
        report: impl FnOnce(Settle) -> Reporter,
    ) -> Result<(Self, JoinHandle<()>), StoreError> {
        let (wishes, asked) = mpsc::channel(WISHES_MAX);
        let (tell, seen) = watch::channel(Seen::default());
        let stop = CancellationToken::new();
        let Parts { store, source, settings, .. } = &parts;
        let door = Door {
            wishes,
            store: store.clone(),
            source: source.clone(),
            settings: settings.clone(),
            seen,
            stop: stop.clone(),
        };
        let conductor = Self(Arc::new(door));
        let settle = conductor.settle();
        let task = Task::begin(parts, asked, tell, stop, report(settle)).await?;
        Ok((conductor, tokio::spawn(task.run())))
    }

    /// Where the reporter's answers go.
    fn settle(&self) -> Settle {
        let door = Arc::downgrade(&self.0);
        Arc::new(move |key, version, answer| {
            let door = door.upgrade();
            Box::pin(async move {
                if let Some(door) = door {
                    // What is not stored is told again.
                    let _ = Self(door).command(Command::Status { key, version, answer }).await;
                }
            })
        })
    }

    /// Ends the task. Nothing is lost: whoever takes over next goes on.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    async fn told(&self, command: Command) -> Result<Told, RpcError> {
        let (answer, told) = oneshot::channel();
        let wish = Wish::Command(Box::new(command), answer);
        self.0.wishes.send(wish).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())?
    }

    async fn command(&self, command: Command) -> Result<Answer, RpcError> {
        self.told(command).await.map(|told| told.answer)
    }

    async fn changed(&self, command: Command) -> Result<Arc<Build>, RpcError> {
        match self.command(command).await? {
            Answer::Build(build) => Ok(build),
            other => Err(unexpected(&other)),
        }
    }

    async fn started(&self, command: Command) -> Result<Vec<BuildId>, RpcError> {
        match self.command(command).await? {
            Answer::Started(builds) => Ok(builds),
            other => Err(unexpected(&other)),
        }
    }

    /// Journals a delivery whose signature was right. It is durable when this answers, and worked on after.
    ///
    /// # Errors
    /// `overloaded`, `unavailable`: it is not journalled, and may be sent again.
    pub async fn receive(&self, incoming: Incoming) -> Result<Received, RpcError> {
        match self.command(Command::Receive(incoming)).await? {
            Answer::Received(received) => Ok(received),
            other => Err(unexpected(&other)),
        }
    }

    /// Works on a delivery once more, deliberately.
    ///
    /// # Errors
    /// `not_found`, or as [`Conductor::receive`].
    pub async fn redeliver(&self, id: DeliveryId) -> Result<DeliveryId, RpcError> {
        let (known, body) = self.delivery(id).await?;
        let Delivery { forge, forge_id, event, said, .. } = known;
        match self.receive(Incoming { forge, forge_id, event, said, body, repeats: Some(id) }).await? {
            Received::Accepted(id) | Received::Duplicate(id) => Ok(id),
        }
    }

    /// Starts builds that somebody asks for.
    ///
    /// # Errors
    /// `not_found`, `invalid_params`, `too_many_builds`.
    pub async fn begin(&self, start: &BuildStart, by: Arc<str>) -> Result<Vec<BuildId>, RpcError> {
        let Some(repository) = self.0.settings.repositories.get(start.repository.as_str()) else {
            let known: Vec<&str> = self.0.settings.repositories.keys().map(Arc::as_ref).take(5).collect();
            let message = format!("there is no repository {:?}: there are {}", start.repository, known.join(", "));
            return Err(RpcError::new("not_found", message));
        };
        let looking = self.0.source.ask(repository, start.git_ref.as_deref(), start.pipeline.as_deref());
        let found = tokio::time::timeout(LOOK_MAX, looking)
            .await
            .map_err(|_| RpcError::new(code::UNAVAILABLE, sources::late(repository)))?;
        let Asked { subject, plans } = found.map_err(|reason| RpcError::new(code::INVALID_PARAMS, reason.as_ref()))?;
        self.started(Command::Start { repository: repository.name.clone(), subject, wanted: plans, by }).await
    }

    /// Ends a build: at once where nothing of it runs, else as soon as its processes are gone. One that is
    /// over stays as it is.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn cancel(&self, id: BuildId, reason: Option<Arc<str>>, by: Arc<str>) -> Result<Arc<Build>, RpcError> {
        match self.changed(Command::Cancel { build: id, reason, by }).await {
            Err(error) if error.data.code == "build_over" => self.known(id).await,
            other => other,
        }
    }

    /// Allows a fork's commit.
    ///
    /// # Errors
    /// `not_found`, `not_blocked`, and `not_newest` where what was looked at is not what is there.
    pub async fn approve(&self, id: BuildId, sha: Option<Sha>, by: Arc<str>) -> Result<Arc<Build>, RpcError> {
        match self.changed(Command::Approve { build: id, sha, by }).await {
            Err(error) if error.data.code == "build_over" => {
                let build = self.known(id).await?;
                let why = build.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
                let superseded = build.ending.as_ref().and_then(|ending| ending.superseded_by);
                let code = if superseded.is_some() { "not_newest" } else { "not_blocked" };
                Err(RpcError::new(code, format!("build {id} is {}{why}", build.phase)))
            }
            other => other,
        }
    }

    /// Starts a build again that is over, as a new one.
    ///
    /// # Errors
    /// `not_found`, `build_not_over`, `not_newest`.
    pub async fn retry(&self, id: BuildId, by: Arc<str>) -> Result<BuildId, RpcError> {
        let of = self.known(id).await?;
        let started = self.started(Command::Retry { of, by }).await?;
        started.first().copied().ok_or_else(|| RpcError::new(code::UNAVAILABLE, "no build was started"))
    }

    /// Builds that wait for an agent to take them; waits until there is one, for so long at most.
    ///
    /// # Errors
    /// When the broker goes down.
    pub async fn work(&self, agent: &str, wait: Duration) -> Result<Vec<BuildId>, RpcError> {
        let mut seen = self.0.seen.clone();
        let mut offered = Vec::new();
        let there = seen.wait_for(|seen| {
            offered = seen.offers.get(agent).into_iter().flatten().copied().collect();
            !offered.is_empty()
        });
        let wait = wait.min(Duration::from_millis(WORK_WAIT_MS_MAX));
        match tokio::time::timeout(wait, there).await {
            Ok(Err(_)) => Err(gone()),
            // In time, or there was none.
            Ok(Ok(_)) | Err(_) => Ok(offered),
        }
    }

    /// Hands a build over to an agent, with its session and all that it needs to run it.
    ///
    /// # Errors
    /// `attempt_over` where the build is not there for this agent to take.
    pub async fn take(&self, id: BuildId, agent: Arc<str>, key_hash: Arc<str>) -> Result<Job, RpcError> {
        let build = self.known(id).await?;
        let missing = || RpcError::new("not_found", format!("there is no repository {} any more", build.repository));
        let repository = self.0.settings.repositories.get(&build.repository).cloned().ok_or_else(missing)?;
        let secrets = match hand_over::read_secrets(&repository, &build.plan).await {
            Ok(secrets) => secrets,
            Err(reason) => {
                let (to, by) = (crate::builds::build::Phase::Failed, Arc::from("the broker"));
                self.changed(Command::Denied { build: id, to, reason: reason.as_str().into(), by }).await?;
                return Err(RpcError::new("attempt_over", reason));
            }
        };
        let told = self.told(Command::Take { build: id, agent, key_hash }).await?;
        match (told.answer, told.session) {
            (Answer::Build(build), Some(session)) => Ok(hand_over::job(&build, &repository, session, secrets)),
            (answer, _) => Err(unexpected(&answer)),
        }
    }

    /// Takes what an agent says of a build. Said again it changes nothing.
    ///
    /// # Errors
    /// `attempt_over` where the attempt is over or another's: whoever says it stops.
    pub async fn report(
        &self,
        id: BuildId,
        attempt: u32,
        key_hash: Arc<str>,
        what: Report,
    ) -> Result<Arc<Build>, RpcError> {
        let said = self.changed(Command::Report { build: id, attempt, key_hash: key_hash.clone(), what }).await;
        match said {
            Err(error) if error.data.code == "build_over" => {
                let build = self.known(id).await?;
                if build.attempt == attempt && build.key_hash == Some(key_hash) {
                    return Ok(build);
                }
                Err(RpcError::new("attempt_over", format!("attempt {attempt} of build {id} is over")))
            }
            other => other,
        }
    }

    /// A build as it stands.
    ///
    /// # Errors
    /// `unavailable` where the store cannot be read.
    pub async fn build(&self, id: BuildId) -> Result<Option<Build>, RpcError> {
        let mut build = self.0.store.build(id).await.map_err(|error| unread(&error))?;
        self.explain(build.iter_mut());
        Ok(build)
    }

    async fn known(&self, id: BuildId) -> Result<Arc<Build>, RpcError> {
        let build = self.build(id).await?;
        build.map(Arc::new).ok_or_else(|| RpcError::new("not_found", format!("there is no build {id}")))
    }

    /// Builds, newest first.
    ///
    /// # Errors
    /// `unavailable` where the store cannot be read.
    pub async fn builds(&self, filter: &BuildFilter) -> Result<Vec<Build>, RpcError> {
        let mut builds = self.0.store.builds(filter).await.map_err(|error| unread(&error))?;
        self.explain(builds.iter_mut());
        Ok(builds)
    }

    /// Says what builds wait for.
    fn explain<'a>(&self, builds: impl Iterator<Item = &'a mut Build>) {
        let waits = self.0.seen.borrow().waits.clone();
        for build in builds {
            let waiting = build.phase == crate::builds::build::Phase::Queued && build.lease.is_none();
            if let Some(reason) = waits.get(&build.id).filter(|_| waiting && build.ending.is_none()) {
                build.reason = Some(reason.clone());
            }
        }
    }

    /// What happened to a build, oldest first.
    ///
    /// # Errors
    /// `unavailable` where the store cannot be read.
    pub async fn notes(&self, id: BuildId) -> Result<Vec<Note>, RpcError> {
        self.0.store.notes(id).await.map_err(|error| unread(&error))
    }

    /// What is in the way of telling a build's forge where it stands; nothing where a newer build of the commit
    /// is told of.
    ///
    /// # Errors
    /// `unavailable` where the store cannot be read.
    pub async fn status_trouble(&self, build: &Build) -> Result<Option<Arc<str>>, RpcError> {
        self.trouble(&StatusKey::of(build), Whose::Build(build.id)).await
    }

    /// What is in the way of telling the forge what a delivery found of its commit's pipelines; nothing where it
    /// told nothing, or a newer one is told of.
    ///
    /// # Errors
    /// `unavailable` where the store cannot be read.
    pub async fn delivery_trouble(&self, delivery: &Delivery) -> Result<Option<Arc<str>>, RpcError> {
        let Ok(happening) = &delivery.said else { return Ok(None) };
        let repository = self.0.settings.repository(delivery.forge, &happening.repository);
        let Some((repository, subject)) = repository.zip(Subject::of(delivery.forge, happening)) else {
            return Ok(None);
        };
        let key = StatusKey::of_pipelines(&repository.name, &subject.sha);
        self.trouble(&key, Whose::Delivery(delivery.id)).await
    }

    async fn trouble(&self, key: &StatusKey, whose: Whose) -> Result<Option<Arc<str>>, RpcError> {
        let row = self.0.store.status(key).await.map_err(|error| unread(&error))?;
        let wanted = self.0.settings.repositories.get(&key.repository).is_some_and(|repository| repository.statuses);
        Ok(row.filter(|row| wanted && row.whose == whose).and_then(|row| row.trouble))
    }

    /// Deliveries, newest first.
    ///
    /// # Errors
    /// `unavailable` where the store cannot be read.
    pub async fn deliveries(&self, before: Option<DeliveryId>, limit: usize) -> Result<Vec<Delivery>, RpcError> {
        self.0.store.deliveries(before, limit).await.map_err(|error| unread(&error))
    }

    /// A delivery, with its body.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn delivery(&self, id: DeliveryId) -> Result<(Delivery, Arc<[u8]>), RpcError> {
        let found = self.0.store.delivery(id).await.map_err(|error| unread(&error))?;
        found.ok_or_else(|| RpcError::new("not_found", format!("there is no delivery {}", id.0)))
    }

    /// What there is to count.
    ///
    /// # Errors
    /// When the broker goes down.
    pub async fn figures(&self) -> Result<Figures, RpcError> {
        let (answer, told) = oneshot::channel();
        self.0.wishes.send(Wish::Figures(answer)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }

    /// Changes whenever something of a build does.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.0.seen.clone()
    }
}

fn gone() -> RpcError {
    RpcError::new(code::UNAVAILABLE, "the broker is going down, or another leads: ask again")
}

/// It was not done, or it is not known whether.
fn uncertain() -> RpcError {
    RpcError::new(code::UNAVAILABLE, "the builds' store fails: ask again, it is done once at most")
}

fn unread(error: &StoreError) -> RpcError {
    tracing::warn!(%error, "the builds' store could not be read");
    RpcError::new(code::UNAVAILABLE, "the builds' store could not be read: ask again")
}

fn refused(refusal: &Refusal) -> RpcError {
    RpcError::new(refusal.code, refusal.message.as_str())
}

fn unexpected(answer: &Answer) -> RpcError {
    tracing::error!(?answer, "the book answered something else than was asked");
    RpcError::new(code::UNAVAILABLE, "the broker has no answer to this")
}

/// Now, Unix milliseconds: what builds' times are.
fn now_ms() -> i64 {
    wall_now_ms()
}
