//! The loop around the machine: it owns the store and the sockets' outboxes, and is the only
//! place where the engine waits for anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, sleep};

use super::handle::{Handle, Health, INPUTS_MAX};
use super::held::Output;
use super::input::{Input, Notice, Outgoing, SocketId};
use super::machine::{Machine, Options, Waiting};
use super::metrics::Metrics;
use crate::clock::{BootTime, boot_now, boot_now_us, wall_now_ms};
use crate::core::tables::{Batch, Tables};
use crate::core::types::ClaimId;
use crate::protocol::info::ClaimInfo;
use crate::store::{Reader as _, Store, StoreError};

/// A commit that takes longer than this is told as a failing store, milliseconds.
const STALL_MS: u64 = 5_000;
/// How long to wait before the store is opened again: at first, and at most, milliseconds.
const RETRY_MS: (u64, u64) = (50, 2_000);
/// How often what is older than the retention is looked for, milliseconds.
const PRUNE_EVERY_MS: u64 = 60_000;
/// With batches of so few events the loop looks for what comes next without sleeping, while one is
/// committed and for a moment after, microseconds: waking a processor that sleeps takes longer than
/// deciding such a batch.
const SPIN_EVENTS_MAX: usize = 2;
const SPIN_COMMIT_US: u64 = 500;
const SPIN_AFTER_US: u64 = 100;
/// A look that comes so much later than the one before it was kept from its processor by somebody
/// who needs it, microseconds: nothing is looked for without sleeping for the pause that follows.
const SPIN_LATE_US: u64 = 250;
const SPIN_PAUSE_US: u64 = 1_000_000;
/// Inputs taken between two looks at the commit under way.
const INPUTS_AT_ONCE: usize = 512;

/// Why the engine could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The books in the store.
    #[error("the store contradicts itself: {0}")]
    Books(String),
}

/// Takes the store over: reads the books, notes the start in the journal, and serves. Answers
/// the door to the engine once the start is durable, and the task, which ends when every
/// [`Handle`] is gone.
///
/// # Errors
/// When the store cannot be read, or does not take the first batch.
pub async fn start<S: Store>(
    mut store: S,
    options: Options,
    retention_ms: u64,
) -> Result<(Handle, tokio::task::JoinHandle<()>), EngineError> {
    let tables = store.load().await?;
    let mut machine = Machine::new(&tables, options, boot_now(), wall_now_ms()).map_err(EngineError::Books)?;
    drop(tables);
    machine.remember(&store.reader().leases(None, HOLDS_READ).await?);
    if let Some(batch) = machine.step(boot_now(), wall_now_ms()) {
        store.commit(&batch).await?;
        machine.committed(boot_now(), &batch);
    }
    let (inputs, incoming) = mpsc::channel(INPUTS_MAX);
    let (health, seen) = watch::channel(Health { last_event: machine.last_event(), ..Health::default() });
    let metrics = Arc::new(Metrics::default());
    let handle = Handle::new(inputs, seen, metrics.clone());
    let task = Task {
        machine,
        incoming,
        outboxes: BTreeMap::new(),
        health,
        metrics,
        retention_ms,
        pruned: boot_now(),
        spin: Spin::default(),
        places: BTreeMap::new(),
    };
    Ok((handle, tokio::spawn(task.run(store))))
}

/// Leases read at the start, to estimate by how long they were held.
const HOLDS_READ: usize = 1_024;

/// The store at work, handed back when it is done.
type Work<S> = Pin<Box<dyn Future<Output = (S, Done)> + Send>>;

/// What the store came to.
enum Done {
    Committed(Arc<Batch>),
    Failed(Arc<Batch>, StoreError),
    Reopened(Arc<Batch>, Result<Box<Tables>, StoreError>),
    Pruned(Result<bool, StoreError>),
}

struct Task {
    machine: Machine,
    incoming: mpsc::Receiver<Input>,
    outboxes: BTreeMap<SocketId, mpsc::Sender<Box<Outgoing>>>,
    health: watch::Sender<Health>,
    metrics: Arc<Metrics>,
    retention_ms: u64,
    pruned: BootTime,
    spin: Spin,
    /// The place each waiting claim was last told, and which cap holds it up.
    places: BTreeMap<ClaimId, (u64, Option<String>)>,
}

/// When the loop looks for what comes next without sleeping, [`boot_now_us`].
#[derive(Default)]
struct Spin {
    until_us: u64,
    not_before_us: u64,
    looked_us: Option<u64>,
}

impl Spin {
    fn after(&mut self, batch: &Batch, us: u64) {
        let now = boot_now_us();
        self.until_us = if batch.events.len() <= SPIN_EVENTS_MAX && now >= self.not_before_us { now + us } else { 0 };
        self.looked_us = None;
    }

    fn looks(&mut self, now: u64) -> bool {
        if now >= self.until_us {
            return false;
        }
        if self.looked_us.is_some_and(|before| now - before > SPIN_LATE_US) {
            *self = Self { not_before_us: now + SPIN_PAUSE_US, ..Self::default() };
            return false;
        }
        self.looked_us = Some(now);
        true
    }
}

impl Task {
    async fn run<S: Store>(mut self, store: S) {
        let mut idle = Some(store);
        let mut work: Option<(Work<S>, BootTime)> = None;
        let mut retry_ms = RETRY_MS.0;
        loop {
            let now = boot_now();
            if let Some(store) = idle.take() {
                // Whatever came in counts before anything is decided, an expiry above all.
                self.take_waiting(INPUTS_MAX);
                match self.next_work(store, now) {
                    Ok(started) => work = Some((started, now)),
                    Err(store) => idle = Some(store),
                }
            }
            self.deliver();
            let wake = self.machine.next_wake(boot_now());
            let pause = Duration::from_millis(wake.since(boot_now()).max(1));
            tokio::select! {
                biased;
                (store, done) = async {
                    match &mut work {
                        Some((work, _)) => work.await,
                        None => std::future::pending().await,
                    }
                } => {
                    let since = work.take().map_or(now, |(_, since)| since);
                    match self.finish(store, done, since, &mut retry_ms) {
                        Next::Idle(store) => idle = Some(store),
                        Next::Work(next) => work = Some((next, boot_now())),
                    }
                }
                input = self.incoming.recv() => {
                    let Some(input) = input else { break };
                    self.take(input);
                    self.take_waiting(INPUTS_AT_ONCE);
                }
                () = tokio::task::yield_now(), if self.spin.looks(boot_now_us()) => {}
                () = sleep(pause) => {}
            }
            self.machine.alive(boot_now());
            if let Some((_, since)) = &work {
                self.machine.decide_ahead(boot_now());
                self.watch_stall(*since);
            }
        }
        self.end(idle, work).await;
    }

    /// Everybody who could bring something is gone: what is under way and what has gathered is
    /// finished, as long as the store takes it.
    async fn end<S: Store>(mut self, idle: Option<S>, work: Option<(Work<S>, BootTime)>) {
        let mut open = idle;
        if let Some((work, _)) = work {
            let (store, done) = work.await;
            if let Done::Committed(batch) = &done {
                self.machine.committed(boot_now(), batch);
            }
            open = matches!(done, Done::Committed(_) | Done::Pruned(Ok(_))).then_some(store);
        }
        while let Some(store) = &mut open
            && let Some(batch) = self.machine.step(boot_now(), wall_now_ms())
        {
            if let Err(error) = store.commit(&batch).await {
                tracing::error!("batch {} is not known to be stored: {error}", batch.number);
                break;
            }
            self.machine.committed(boot_now(), &batch);
        }
        self.deliver();
    }

    /// Lets the machine step, and starts whatever the store is to do then.
    fn next_work<S: Store>(&mut self, store: S, now: BootTime) -> Result<Work<S>, S> {
        if let Some(batch) = self.machine.step(now, wall_now_ms()) {
            self.spin.after(&batch, SPIN_COMMIT_US);
            return Ok(commit(store, batch));
        }
        self.tell_places(now);
        if self.retention_ms > 0 && now.since(self.pruned) >= PRUNE_EVERY_MS && self.machine.failure().is_none() {
            self.pruned = now;
            let before = self.machine.lab_now(now).0.saturating_sub(self.retention_ms);
            if before > 0 {
                let mut store = store;
                return Ok(Box::pin(async move {
                    let pruned = store.prune(crate::core::types::LabTime(before)).await;
                    (store, Done::Pruned(pruned))
                }));
            }
        }
        Err(store)
    }

    fn take_waiting(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(input) = self.incoming.try_recv() else { break };
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        if let Input::Attach { socket, outbox, .. } = &input {
            self.outboxes.insert(*socket, outbox.clone());
        }
        if let Input::Detach { socket, .. } | Input::CutOff { socket } = &input {
            self.outboxes.remove(socket);
        }
        let stop = matches!(input, Input::Stop { .. });
        self.machine.input(boot_now(), input);
        if stop {
            self.health.send_modify(|health| health.stopping = true);
        }
    }

    fn finish<S: Store>(&mut self, store: S, done: Done, since: BootTime, retry_ms: &mut u64) -> Next<S> {
        let now = boot_now();
        match done {
            Done::Committed(batch) => {
                *retry_ms = RETRY_MS.0;
                self.spin.after(&batch, SPIN_AFTER_US);
                self.metrics.committed(&batch, now.since(since));
                self.machine.committed(now, &batch);
                self.tell_health(None);
                Next::Idle(store)
            }
            Done::Failed(batch, error) => {
                tracing::error!("batch {} is not known to be stored: {error}", batch.number);
                self.metrics.store_failed();
                self.machine.store_failed(now, &error.to_string());
                self.tell_health(Some(&error.to_string()));
                Next::Work(reopen(store, batch, *retry_ms))
            }
            Done::Reopened(batch, Ok(tables)) => match self.machine.resolved(now, &batch, &tables) {
                Ok(()) => {
                    tracing::warn!("the store is open again at batch {}", tables.batch);
                    // What the store says now is not enough: it must take a batch.
                    let probe = self.machine.probe(now, wall_now_ms());
                    *retry_ms = (*retry_ms * 2).min(RETRY_MS.1);
                    Next::Work(commit(store, probe))
                }
                Err(message) => {
                    tracing::error!("the store contradicts itself: {message}");
                    self.tell_health(Some(&message));
                    Next::Work(reopen(store, batch, RETRY_MS.1))
                }
            },
            Done::Reopened(batch, Err(error)) => {
                let error = error.to_string();
                // Said once for each kind of trouble, however often it is tried again.
                if self.health.borrow().store_failure.as_deref() != Some(error.as_str()) {
                    tracing::error!("{error}");
                }
                self.tell_health(Some(&error));
                *retry_ms = (*retry_ms * 2).min(RETRY_MS.1);
                Next::Work(reopen(store, batch, *retry_ms))
            }
            Done::Pruned(pruned) => {
                match pruned {
                    // More is left: go on soon, and let others in between.
                    Ok(true) => self.pruned = now.minus(PRUNE_EVERY_MS),
                    Ok(false) => {}
                    Err(error) => tracing::warn!("{error}"),
                }
                Next::Idle(store)
            }
        }
    }

    fn watch_stall(&mut self, since: BootTime) {
        if boot_now().since(since) > STALL_MS && self.health.borrow().store_failure.is_none() {
            let message = format!("a commit takes longer than {STALL_MS} ms");
            tracing::error!("{message}");
            self.tell_health(Some(&message));
        }
    }

    fn tell_health(&self, failure: Option<&str>) {
        let failure = failure.map(Arc::from).or_else(|| self.machine.failure().cloned());
        let next = Health {
            last_event: self.machine.last_event(),
            store_failure: failure,
            stopping: self.machine.is_stopping(),
        };
        self.health.send_if_modified(|health| {
            let changed = *health != next;
            *health = next;
            changed
        });
    }

    /// Hands out what may be told. Whoever's outbox is full reads too slowly and is cut off:
    /// nobody waits for it.
    fn deliver(&mut self) {
        loop {
            let outputs = self.machine.take_outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                match output {
                    Output::Socket(socket, outgoing) => self.deliver_to(socket, outgoing),
                    // Whoever asked may have gone meanwhile.
                    Output::Told(answer, told) => drop(answer.send(told)),
                    Output::Release(release, durable) => release(durable),
                    Output::Stopped(done) => {
                        let _ = done.send(());
                    }
                }
            }
        }
    }

    fn deliver_to(&mut self, socket: SocketId, outgoing: Outgoing) {
        let Some(outbox) = self.outboxes.get(&socket) else { return };
        if let Err(TrySendError::Full(_)) = outbox.try_send(Box::new(outgoing)) {
            self.metrics.slow_reader();
            self.outboxes.remove(&socket);
            self.machine.input(boot_now(), Input::CutOff { socket });
        }
    }

    /// Tells claims whose place changed. The queue is walked once; what changed is sent as it is
    /// found, and a full outbox is passed over: a place is told again when it changes again.
    fn tell_places(&mut self, now: BootTime) {
        let Some(waiting) = self.machine.take_places(now) else { return };
        let mut ranks: BTreeMap<crate::core::types::Key, u64> = BTreeMap::new();
        let mut told = BTreeMap::new();
        for Waiting { claim, socket, capped, eta } in waiting {
            let pools = crate::core::state::State::pools_of(&claim);
            let ahead = pools.iter().map(|pool| ranks.get(*pool).copied().unwrap_or(0)).max().unwrap_or(0);
            let place = ahead + 1;
            for pool in pools {
                *ranks.entry(pool.clone()).or_default() += 1;
            }
            let before = self.places.get(&claim.id);
            // A newcomer knows its place; what there is to say of its waiting it does not.
            let same = before.map_or_else(|| eta.is_none(), |before| *before == (place, capped.clone()));
            told.insert(claim.id, (place, capped.clone()));
            if same {
                continue;
            }
            if let Some(outbox) = socket.and_then(|socket| self.outboxes.get(&socket)) {
                let clock = self.machine.clock();
                let info = ClaimInfo {
                    request_id: claim.request,
                    claim: claim.id.0,
                    state: "queued".to_owned(),
                    place: Some(place),
                    blocked: claim.blocked.as_ref().map(|blocked| blocked.message.to_string()),
                    capped,
                    eta: eta.map(super::query::eta_info),
                    in_the_way: Vec::new(),
                    lease: None,
                    end: None,
                    now: clock.now.0,
                    now_time: clock.now_time(),
                };
                drop(outbox.try_send(Box::new(Outgoing::Notice(Notice::Waiting(Box::new(info))))));
            }
        }
        self.places = told;
    }
}

enum Next<S> {
    Idle(S),
    Work(Work<S>),
}

fn commit<S: Store>(mut store: S, batch: Batch) -> Work<S> {
    Box::pin(async move {
        let result = store.commit(&batch).await;
        let batch = Arc::new(batch);
        let done = match result {
            Ok(()) => Done::Committed(batch),
            Err(error) => Done::Failed(batch, error),
        };
        (store, done)
    })
}

fn reopen<S: Store>(mut store: S, batch: Arc<Batch>, wait_ms: u64) -> Work<S> {
    Box::pin(async move {
        sleep(Duration::from_millis(wait_ms)).await;
        let tables = match store.reopen().await {
            Ok(_) => store.load().await.map(Box::new),
            Err(error) => Err(error),
        };
        (store, Done::Reopened(batch, tables))
    })
}
