//! The task: batches what is asked, decides, stores, tells, acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::act::{Hands, Watched};
use super::claim::{Grant, Order, Said, Session};
use super::figures::Figures;
use super::mending::take_over;
use super::sources::Sources;
use super::{Parts, Seen, Told, Wish, now_ms, refused, uncertain};
use crate::builds::book::{Answer, Book, Command, Gone, Refusal};
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::change::Change;
use crate::builds::delivery::{DeliveryId, Received};
use crate::clock::{BootTime, boot_now};
use crate::engine::handle::Health;
use crate::inventory::pipelines::{PipelineSettings, Repository};
use crate::pipeline::reporter::Reporter;
use crate::pipeline::source::Sought;
use crate::protocol::builds::HandedSession;
use crate::protocol::error::RpcError;
use crate::store::StoreError;
use crate::store::builds::BuildStore;

/// What is decided and stored at once, at most.
const BATCH_MAX: usize = 256;
/// What the task's own tasks have to say and is not heard yet; they wait beyond.
const EVENTS_MAX: usize = 4_096;
/// How often it is looked at most whether sessions are gone, milliseconds.
const LOOK_EVERY_MS: u64 = 100;
/// How often it is looked even if nothing was heard of, milliseconds.
const LOOK_ANYWAY_MS: u64 = 10_000;
/// How soon something is tried again that the engine or the store could not do, milliseconds.
pub(super) const AGAIN_MS: u64 = 1_000;
/// Statuses given to the reporter at once.
const STATUSES_MAX: usize = 1_000;

/// What the task hears of its own tasks.
#[derive(Debug)]
pub(super) enum Event {
    /// A claim's task says something: which build's, which task.
    Said(BuildId, u64, Said),
    /// What a delivery asks for was looked up, in which generation of looks.
    Found(DeliveryId, u64, Arc<Repository>, Sought),
    /// Sessions were looked at; these are gone.
    Looked(Vec<(BuildId, u64, Gone)>),
    /// A session was ended, or that could not be done now.
    SessionEnded(BuildId, u64, bool),
    /// A lease's holder was told to stop, or that could not be done now.
    Revoked(BuildId, bool),
}

/// A waiting build's task.
pub(super) struct Claim {
    pub(super) serial: u64,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) session: Option<Session>,
    pub(super) asked: bool,
    pub(super) granted: Option<Grant>,
    /// What it was refused with: said once, and to be decided again where that could not be stored.
    pub(super) denied: Option<(Phase, Arc<str>)>,
    /// By when somebody has to take it.
    pub(super) take_by: Option<BootTime>,
    pub(super) closing: bool,
}

impl Claim {
    pub(super) fn order(&self, order: Order) {
        // There is room for each order once; a task that is gone says so.
        let _ = self.orders.try_send(order);
    }

    /// That the claim ended without a lease, and what becomes of its build.
    pub(super) fn deny(&mut self, build: BuildId, to: Phase, reason: Arc<str>) -> Command {
        self.denied = Some((to, reason.clone()));
        Command::Denied { build, to, reason, by: Arc::from("the broker") }
    }

    pub(super) fn close(&mut self) {
        if !std::mem::replace(&mut self.closing, true) {
            self.order(Order::Close);
        }
    }
}

/// Sleeps until this machine's clock is there, or shortly after.
pub(super) async fn sleep_till(at: BootTime) {
    tokio::time::sleep(Duration::from_millis(at.since(boot_now()))).await;
}

/// That a build's claim was granted.
pub(super) fn granted(build: BuildId, session: u64, grant: Grant) -> Command {
    let Grant { lease, agent, picks, request: _ } = grant;
    Command::Granted { build, session, lease, agent, picks }
}

/// Somebody who waits for an answer.
type Asker = oneshot::Sender<Result<Told, RpcError>>;

/// What a batch is to answer when it is stored.
struct Waiting {
    asker: Option<Asker>,
    answer: Result<Answer, RpcError>,
    taken: Option<(BuildId, Arc<str>)>,
}

pub(super) struct Task {
    pub(super) store: Arc<dyn BuildStore>,
    pub(super) settings: Arc<PipelineSettings>,
    pub(super) hands: Hands,
    pub(super) sources: Sources,
    pub(super) reporter: Reporter,
    pub(super) wishes: mpsc::Receiver<Wish>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) speak: mpsc::Sender<Event>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) seen: watch::Sender<Seen>,
    pub(super) stop: CancellationToken,
    pub(super) book: Book,
    pub(super) claims: BTreeMap<BuildId, Claim>,
    /// Those of them that were granted, so that few have to be looked at for one that nobody takes.
    pub(super) granted: BTreeSet<BuildId>,
    /// Sessions that were handed over, for a taker who asks again.
    pub(super) handed: BTreeMap<BuildId, HandedSession>,
    /// Builds of which something is being done at the engine.
    pub(super) acting: BTreeSet<BuildId>,
    /// Builds whose lease's holder knows that it is to stop.
    pub(super) revoked: BTreeSet<(BuildId, u64)>,
    pub(super) waits: BTreeMap<BuildId, Arc<str>>,
    pub(super) waits_changed: bool,
    pub(super) figures: Figures,
    pub(super) serial: u64,
    pub(super) look_at: BootTime,
    pub(super) looking: bool,
    pub(super) look_due: bool,
    /// Builds whose claim is gone, to be looked at when what that means is stored.
    pub(super) recheck: BTreeSet<BuildId>,
    /// What is to be decided with what comes next.
    pub(super) postponed: Vec<Command>,
    /// When everything is looked at again, where something could not be done.
    pub(super) again_at: Option<BootTime>,
}

impl Task {
    pub(super) async fn begin(
        parts: Parts,
        wishes: mpsc::Receiver<Wish>,
        seen: watch::Sender<Seen>,
        stop: CancellationToken,
        reporter: Reporter,
    ) -> Result<Self, StoreError> {
        let Parts { store, source, settings, engine, leases, logs } = parts;
        let (speak, events) = mpsc::channel(EVENTS_MAX);
        let book = take_over(&store, now_ms()).await?;
        Ok(Self {
            health: engine.health(),
            sources: Sources::new(source, settings.clone(), speak.clone()),
            hands: Hands { engine, leases, logs, events: speak.clone() },
            store,
            settings,
            reporter,
            wishes,
            events,
            speak,
            seen,
            stop,
            book,
            claims: BTreeMap::new(),
            granted: BTreeSet::new(),
            handed: BTreeMap::new(),
            acting: BTreeSet::new(),
            revoked: BTreeSet::new(),
            waits: BTreeMap::new(),
            waits_changed: false,
            figures: Figures::default(),
            serial: 0,
            look_at: boot_now(),
            looking: false,
            look_due: true,
            recheck: BTreeSet::new(),
            postponed: Vec::new(),
            again_at: None,
        })
    }

    /// Goes on until the broker stops, another leads, or the engine ends.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.go_on() => {}
        }
    }

    async fn go_on(&mut self) {
        self.resume().await;
        while let Some(batch) = self.next().await {
            if !self.store_and_act(batch).await {
                return;
            }
        }
    }

    /// What is to be decided next, with whoever asked for it; `None` at the end of it all.
    async fn next(&mut self) -> Option<Vec<(Command, Option<Asker>)>> {
        let mut batch: Vec<_> = self.postponed.drain(..).map(|command| (command, None)).collect();
        let wake = if batch.is_empty() { self.wake_at() } else { boot_now() };
        tokio::select! {
            wish = self.wishes.recv() => self.wished(wish?, &mut batch),
            event = self.events.recv() => self.heard(event?, &mut batch),
            changed = self.health.changed(), if !self.look_due => {
                if changed.is_err() || self.health.borrow().ended {
                    return None;
                }
                self.look_due = true;
            }
            () = sleep_till(wake) => {}
        }
        while batch.len() < BATCH_MAX
            && let Ok(event) = self.events.try_recv()
        {
            self.heard(event, &mut batch);
        }
        while batch.len() < BATCH_MAX
            && let Ok(wish) = self.wishes.try_recv()
        {
            self.wished(wish, &mut batch);
        }
        self.pass_time(&mut batch);
        Some(batch)
    }

    /// When something is due that nobody says.
    fn wake_at(&self) -> BootTime {
        let now = boot_now();
        let wall_ms = now_ms();
        let due = [self.book.due_ms(), self.book.status_due_ms()].into_iter().flatten().min();
        let due = due.map(|due_ms| now.plus(u64::try_from(due_ms.saturating_sub(wall_ms)).unwrap_or(0)));
        let take_by = self.granted.iter().filter_map(|id| self.untaken_at(*id)).min();
        let look = if self.look_due && !self.looking { self.look_at } else { now.plus(LOOK_ANYWAY_MS) };
        let dues = [due.map(|due| due.max(now.plus(LOOK_EVERY_MS))), take_by, self.again_at, Some(look)];
        dues.into_iter().flatten().min().unwrap_or_else(|| now.plus(LOOK_ANYWAY_MS))
    }

    /// By when a build that is granted has to be with an agent; `None` where it is, or is given up.
    fn untaken_at(&self, id: BuildId) -> Option<BootTime> {
        let claim = self.claims.get(&id).filter(|claim| !claim.closing)?;
        let take_by = claim.take_by?;
        let phase = self.book.build(id)?.phase;
        let waits = phase == Phase::Queued || phase == Phase::Preparing && !self.handed.contains_key(&id);
        waits.then_some(take_by)
    }

    /// Nobody took it in time, or whoever did was never told its session.
    fn give_up_taker(&mut self, id: BuildId, batch: &mut Vec<(Command, Option<Asker>)>) {
        let taken = self.book.build(id).filter(|build| build.phase == Phase::Preparing);
        if let Some(key_hash) = taken.and_then(|build| build.key_hash.clone()) {
            batch.push((Command::Untake { build: id, key_hash }, None));
        }
        if let Some(claim) = self.claims.get_mut(&id) {
            claim.close();
        }
    }

    fn wished(&mut self, wish: Wish, batch: &mut Vec<(Command, Option<Asker>)>) {
        match wish {
            Wish::Command(command, asker) => batch.push((*command, Some(asker))),
            Wish::Figures(asker) => {
                let _ = asker.send(self.figures.with(&self.book, now_ms()));
            }
        }
    }

    fn heard(&mut self, event: Event, batch: &mut Vec<(Command, Option<Asker>)>) {
        match event {
            Event::Said(build, serial, said) => {
                if self.claims.get(&build).is_some_and(|claim| claim.serial == serial) {
                    batch.extend(self.said(build, said).map(|command| (command, None)));
                }
            }
            Event::Found(delivery, generation, repository, found) => {
                let work = self.sources.found(delivery, generation, &repository, found);
                batch.extend(work.map(|command| (command, None)));
            }
            Event::Looked(gone) => {
                self.looking = false;
                let gone = gone.into_iter().map(|(build, session, how)| Command::Gone { build, session, how });
                batch.extend(gone.map(|command| (command, None)));
            }
            Event::SessionEnded(build, session, true) => {
                self.acting.remove(&build);
                let how = Gone::Lost("its session was closed".into());
                // How its lease ended tells more, where its agent only said that it was stopped.
                if self.book.build(build).is_some_and(|build| build.ending.is_none()) {
                    self.look_due = true;
                } else {
                    batch.push((Command::Gone { build, session, how }, None));
                }
            }
            Event::Revoked(build, true) => {
                self.acting.remove(&build);
                self.look_due = true;
                // Its agent may have said meanwhile that it has stopped.
                self.reconcile(build);
            }
            Event::SessionEnded(build, _, false) | Event::Revoked(build, false) => {
                self.acting.remove(&build);
                self.revoked.retain(|(known, _)| *known != build);
                self.try_again();
            }
        }
    }

    pub(super) fn try_again(&mut self) {
        self.again_at.get_or_insert_with(|| boot_now().plus(AGAIN_MS));
    }

    /// What a claim's task says comes to this.
    fn said(&mut self, build: BuildId, said: Said) -> Option<Command> {
        let claim = self.claims.get_mut(&build)?;
        match said {
            Said::Opened(session) => {
                let number = session.number;
                claim.session = Some(session);
                Some(Command::Opened { build, session: number })
            }
            Said::Granted(grant) => {
                let session = claim.session.as_ref()?;
                claim.granted = Some(grant.clone());
                claim.take_by = Some(boot_now().plus(session.ttl_ms));
                self.granted.insert(build);
                Some(granted(build, session.number, grant))
            }
            Said::Denied { to, reason } => Some(claim.deny(build, to, reason)),
            Said::Waits(words) => {
                self.waits_changed |= self.waits.insert(build, words.clone()).as_ref() != Some(&words);
                None
            }
            Said::Closed => {
                let session = self.claims.remove(&build)?.session.map(|session| session.number);
                match session {
                    Some(_) => drop(self.recheck.insert(build)),
                    // The engine has no room for it, or does not know whether it leads.
                    None => self.try_again(),
                }
                let how = Gone::Lost("its session was closed".into());
                session.map(|session| Command::Gone { build, session, how })
            }
            Said::Left => {
                self.claims.remove(&build);
                self.look_due = true;
                self.try_again();
                None
            }
        }
    }

    /// What time brings about.
    fn pass_time(&mut self, batch: &mut Vec<(Command, Option<Asker>)>) {
        let now = boot_now();
        if self.book.due_ms().is_some_and(|due_ms| due_ms <= now_ms()) {
            batch.push((Command::Tick, None));
        }
        self.granted.retain(|id| self.claims.contains_key(id));
        let late = |id: &BuildId| self.untaken_at(*id).is_some_and(|at| at <= now);
        for id in self.granted.iter().copied().filter(late).collect::<Vec<_>>() {
            self.give_up_taker(id, batch);
        }
        if self.again_at.is_some_and(|again_at| again_at <= now) {
            self.again_at = None;
            self.look_due = true;
            let all: Vec<BuildId> = self.book.open().map(|build| build.id).collect();
            all.into_iter().for_each(|id| self.reconcile(id));
        }
        self.look(now);
        self.tell_reporter();
    }

    fn look(&mut self, now: BootTime) {
        let long_ago = now.since(self.look_at) >= LOOK_ANYWAY_MS;
        if self.looking || self.look_at > now || !(self.look_due || long_ago) {
            return;
        }
        let watched =
            |build: &Arc<Build>| Some(Watched { build: build.id, session: build.session?, lease: build.lease });
        let watched: Vec<Watched> = self.book.held().filter_map(watched).collect();
        self.look_due = false;
        self.look_at = now.plus(LOOK_EVERY_MS);
        if !watched.is_empty() {
            self.looking = true;
            self.hands.look(watched);
        }
    }

    fn tell_reporter(&self) {
        self.reporter.tell(self.book.statuses_due(now_ms(), STATUSES_MAX));
    }

    /// Decides, stores, answers and acts; `false` where another leads.
    async fn store_and_act(&mut self, batch: Vec<(Command, Option<Asker>)>) -> bool {
        let mut changes = Vec::new();
        let mut waiting = Vec::with_capacity(batch.len());
        for (command, asker) in batch {
            waiting.push(self.decide(&command, asker, &mut changes));
        }
        if !changes.is_empty()
            && let Err(error) = self.store.commit(&changes).await
        {
            tracing::warn!(%error, "the builds could not be stored");
            self.figures.store_failures += 1;
            let uncertain_all = waiting.into_iter().filter_map(|it| it.asker);
            uncertain_all.for_each(|asker| drop(asker.send(Err(uncertain()))));
            return !matches!(error, StoreError::Deposed { .. }) && self.mend().await;
        }
        self.act(&changes);
        for id in std::mem::take(&mut self.recheck) {
            self.reconcile(id);
        }
        for it in waiting {
            self.answer(it);
        }
        self.tell_seen(!changes.is_empty());
        true
    }

    fn decide(&mut self, command: &Command, asker: Option<Asker>, changes: &mut Vec<Change>) -> Waiting {
        let taken = match command {
            Command::Take { build, key_hash, .. } => Some((*build, key_hash.clone())),
            _ => None,
        };
        let decided = match &taken {
            Some((id, _)) if !self.is_there(*id) => {
                let message = format!("build {id} is not there to be taken (any more): ask for work again");
                Err(Refusal::new("attempt_over", message))
            }
            _ => self.book.decide(now_ms(), command),
        };
        let answer = match decided {
            Ok((made, answer)) => {
                if matches!(answer, Answer::Received(Received::Duplicate(_))) {
                    self.figures.duplicates += 1;
                }
                made.iter().for_each(|change| self.book.apply(change));
                changes.extend(made);
                Ok(answer)
            }
            Err(refusal) => {
                // A session that nobody wants any more, or never did.
                if let Command::Opened { build, .. } = command
                    && let Some(claim) = self.claims.get_mut(build)
                {
                    claim.close();
                }
                Err(refused(&refusal))
            }
        };
        Waiting { asker, answer, taken }
    }

    /// Whether a build can be handed over, as far as its claim goes: it is not about to be closed.
    fn is_there(&self, id: BuildId) -> bool {
        let waits = self.book.build(id).is_some_and(|build| build.phase == Phase::Queued);
        !waits || self.claims.get(&id).is_some_and(|claim| !claim.closing && claim.granted.is_some())
    }

    fn answer(&mut self, waiting: Waiting) {
        let Waiting { asker, answer, taken } = waiting;
        let Some(asker) = asker else { return };
        let told = match (answer, taken) {
            (Ok(answer), None) => Ok(Told { answer, session: None }),
            (Ok(answer), Some((id, key_hash))) => match self.hand_over(id) {
                Some(session) => Ok(Told { answer, session: Some(session) }),
                None => {
                    // It was taken from a broker that went down before it could say so.
                    self.postponed.push(Command::Untake { build: id, key_hash });
                    let message = format!("the session of build {id} is lost: it is tried again");
                    Err(RpcError::new("attempt_over", message))
                }
            },
            (Err(error), _) => Err(error),
        };
        // Whoever asked may be gone.
        let _ = asker.send(told);
    }

    /// The session of a build that was taken, for its taker.
    fn hand_over(&mut self, id: BuildId) -> Option<HandedSession> {
        if let Some(session) = self.handed.get(&id) {
            return Some(session.clone());
        }
        let build = self.book.build(id)?;
        let claim = self.claims.get(&id)?;
        let session = claim.session.as_ref().filter(|session| build.session == Some(session.number))?;
        let Grant { lease, request: request_id, .. } = *claim.granted.as_ref()?;
        let handed = HandedSession {
            session: session.number,
            secret: session.secret.to_string(),
            instance: session.instance.to_string(),
            request_id,
            lease,
            ttl_ms: session.ttl_ms,
        };
        claim.order(Order::HandOver);
        self.handed.insert(id, handed.clone());
        Some(handed)
    }
}
