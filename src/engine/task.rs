//! The loop around the machine: it owns the store and the sockets' outboxes, and is the only
//! place where the engine waits for anything.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Duration, sleep, timeout};

use super::handle::{Handle, Health, INPUTS_MAX};
use super::held::Output;
use super::input::{Input, Notice, Outgoing, SocketId, Takeover};
use super::lead::{Ended, HAND_OVER_WAIT_MS, Lead};
use super::machine::{Machine, Options, Waiting};
use super::metrics::Metrics;
use crate::clock::{BootTime, boot_now, boot_now_us, wall_now_ms};
use crate::core::tables::{Batch, Tables};
use crate::core::types::ClaimId;
use crate::protocol::error::CloseReason;
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
/// the door to the engine once the start is durable, and the task.
///
/// The task ends when every [`Handle`] is gone; where brokers share the store also when another of
/// them leads, when a term is over without a successful write, and when [`Handle::hand_over`] is
/// called. Then nothing uncertain is told: sockets are closed, and whoever waits for an answer of a
/// handle, or asks for one later, is answered `unavailable`.
///
/// # Errors
/// When the store cannot be read, or does not take the first batch.
pub async fn start<S: Store>(
    mut store: S,
    options: Options,
    retention_ms: u64,
) -> Result<(Handle, tokio::task::JoinHandle<Ended>), EngineError> {
    let tables = store.load().await?;
    let (sharing, passed_ms) = (store.sharing(), store.passed_ms().await?);
    let takeover = Takeover { at: boot_now(), wall_ms: wall_now_ms(), passed_ms, shared: sharing.is_some() };
    let mut machine = Machine::new(&tables, options, takeover).map_err(EngineError::Books)?;
    drop(tables);
    machine.remember(&store.reader().leases(None, HOLDS_READ).await?);
    let sent = boot_now();
    if let Some(batch) = machine.step(sent, wall_now_ms()) {
        store.commit(&batch).await?;
        machine.committed(boot_now(), &batch);
    }
    let (inputs, incoming) = mpsc::channel(INPUTS_MAX);
    let (health, seen) = watch::channel(Health { last_event: machine.last_event(), ..Health::default() });
    let (metrics, hand_over) = (Arc::new(Metrics::default()), Arc::new(Notify::new()));
    let handle = Handle::new(inputs, seen, metrics.clone(), hand_over.clone());
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
        lead: Lead::new(sharing, sent),
        hand_over,
    };
    Ok((handle, tokio::spawn(task.run(store))))
}

/// Leases read at the start, to estimate by how long they were held.
const HOLDS_READ: usize = 1_024;

/// The store at work, handed back when it is done.
type Work<S> = Pin<Box<dyn Future<Output = (S, Done)> + Send>>;

/// A look under way whether this process leads.
type Look = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// What the store came to.
enum Done {
    Committed(Arc<Batch>),
    Failed(Arc<Batch>, StoreError),
    /// Opened at this moment, and read.
    Reopened(Arc<Batch>, BootTime, Result<Box<Tables>, StoreError>),
    Pruned(Result<bool, StoreError>),
    Beaten(Result<(), StoreError>),
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
    lead: Lead,
    /// Told when the lead is to be handed over.
    hand_over: Arc<Notify>,
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
    async fn run<S: Store>(mut self, store: S) -> Ended {
        let reader = store.reader();
        let mut idle = Some(store);
        let mut work: Option<(Work<S>, BootTime)> = None;
        let mut looking: Option<Look> = None;
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
            if looking.is_none() && self.machine.wants_confirmation(boot_now()) {
                self.machine.confirmation_begun(boot_now());
                looking = Some(Box::pin(self.lead.look(reader.clone())));
            }
            // Right before anything is told: this process may have stood still since it was computed.
            if self.lead.is_over(boot_now()) {
                return self.over(Ended::TermOver);
            }
            self.deliver();
            let pause = self.pause_ms(idle.is_some());
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
                        Next::Over(ended) => return self.over(ended),
                    }
                }
                seen = async {
                    match &mut looking {
                        Some(look) => look.await,
                        None => std::future::pending().await,
                    }
                } => {
                    looking = None;
                    if let Some(ended) = self.looked(seen) {
                        return self.over(ended);
                    }
                }
                () = self.hand_over.notified() => return self.give_up(idle, work.map(|(work, _)| work)).await,
                input = self.incoming.recv() => {
                    let Some(input) = input else { break };
                    self.take(input);
                    self.take_waiting(INPUTS_AT_ONCE);
                }
                () = tokio::task::yield_now(), if self.spin.looks(boot_now_us()) => {}
                () = sleep(Duration::from_millis(pause)) => {}
            }
            self.machine.alive(boot_now());
            if let Some((_, since)) = &work {
                self.machine.decide_ahead(boot_now());
                self.watch_stall(*since);
            }
        }
        self.finish_up(idle, work.map(|(work, _)| work)).await
    }

    /// How long nothing has to be done unless something comes in, milliseconds.
    fn pause_ms(&self, idle: bool) -> u64 {
        let now = boot_now();
        let beat = if idle { self.lead.beat_in_ms(now) } else { u64::MAX };
        self.machine.next_wake(now).since(now).min(self.lead.left_ms(now)).min(beat).max(1)
    }

    /// Takes up what a look at the store found; answers how this ends, where another leads.
    fn looked(&mut self, seen: Result<(), StoreError>) -> Option<Ended> {
        match seen {
            Ok(()) => self.machine.confirmed(boot_now()),
            Err(StoreError::Deposed { by }) => return Some(Ended::Deposed { by }),
            Err(error) => {
                tracing::warn!("{error}");
                self.machine.confirmation_failed();
            }
        }
        None
    }

    /// Another leads, or may: nothing more is told, whatever was computed, and sockets are closed.
    fn over(mut self, ended: Ended) -> Ended {
        tracing::warn!("this broker leads no more: {ended:?}");
        self.close_sockets();
        ended
    }

    fn close_sockets(&mut self) {
        self.health.send_modify(|health| health.ended = true);
        for outbox in std::mem::take(&mut self.outboxes).into_values() {
            let text = "this broker leads no more: connect again, it says who does".to_owned();
            // A full one is closed all the same, as its sender goes.
            drop(outbox.try_send(Box::new(Outgoing::Close { reason: CloseReason::Standby, text })));
        }
    }

    /// Hands the lead over: from here on nothing comes in and nothing is decided. What the write
    /// under way makes durable is told, and then the lead given up.
    async fn give_up<S: Store>(mut self, idle: Option<S>, work: Option<Work<S>>) -> Ended {
        self.health.send_modify(|health| health.stopping = true);
        let store = match work {
            None => idle,
            Some(work) => match timeout(Duration::from_millis(HAND_OVER_WAIT_MS), work).await {
                Ok((_, Done::Failed(_, StoreError::Deposed { by }))) => return self.over(Ended::Deposed { by }),
                Ok((store, done)) => {
                    if let Done::Committed(batch) = &done {
                        self.machine.committed(boot_now(), batch);
                    }
                    Some(store)
                }
                Err(_) => None,
            },
        };
        let left_ms = self.lead.left_ms(boot_now());
        if left_ms == 0 {
            return self.over(Ended::TermOver);
        }
        self.deliver();
        // Sockets hear nothing from here on. They are closed by whoever serves them: once there is another
        // leader to come to, or there will be none.
        self.health.send_modify(|health| health.ended = true);
        let Some(mut store) = store else { return Ended::TermOver };
        match timeout(Duration::from_millis(left_ms), store.give_up()).await {
            Ok(Ok(())) => Ended::GaveUp,
            Ok(Err(StoreError::Deposed { by })) => Ended::Deposed { by },
            Ok(Err(error)) => {
                tracing::warn!("{error}");
                Ended::TermOver
            }
            Err(_) => Ended::TermOver,
        }
    }

    /// Everybody who could bring something is gone: what is under way and what has gathered is
    /// finished, as long as the store takes it and this process leads. Then the lead is given up.
    async fn finish_up<S: Store>(mut self, idle: Option<S>, work: Option<Work<S>>) -> Ended {
        let term = Duration::from_millis(self.lead.left_ms(boot_now()));
        let finished = timeout(term, async {
            let mut open = idle;
            if let Some(work) = work {
                let (store, done) = work.await;
                if let Done::Committed(batch) = &done {
                    self.machine.committed(boot_now(), batch);
                }
                open = matches!(done, Done::Committed(_) | Done::Pruned(Ok(_)) | Done::Beaten(Ok(()))).then_some(store);
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
            if let Some(store) = open.as_mut().filter(|_| self.lead.is_shared())
                && let Err(error) = store.give_up().await
            {
                tracing::warn!("{error}");
            }
        });
        if finished.await.is_err() {
            return self.over(Ended::TermOver);
        }
        Ended::Finished
    }

    /// Lets the machine step, and starts whatever the store is to do then.
    fn next_work<S: Store>(&mut self, mut store: S, now: BootTime) -> Result<Work<S>, S> {
        if let Some(batch) = self.machine.step(now, wall_now_ms()) {
            self.spin.after(&batch, SPIN_COMMIT_US);
            return Ok(commit(store, batch));
        }
        self.tell_places(now);
        if self.retention_ms > 0 && now.since(self.pruned) >= PRUNE_EVERY_MS && self.machine.failure().is_none() {
            self.pruned = now;
            let before = self.machine.lab_now(now).0.saturating_sub(self.retention_ms);
            if before > 0 {
                return Ok(Box::pin(async move {
                    let pruned = store.prune(crate::core::types::LabTime(before)).await;
                    (store, Done::Pruned(pruned))
                }));
            }
        }
        if self.lead.beat_in_ms(now) == 0 {
            return Ok(Box::pin(async move {
                let beaten = store.beat().await;
                (store, Done::Beaten(beaten))
            }));
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
            Done::Failed(_, StoreError::Deposed { by })
            | Done::Reopened(_, _, Err(StoreError::Deposed { by }))
            | Done::Pruned(Err(StoreError::Deposed { by }))
            | Done::Beaten(Err(StoreError::Deposed { by })) => Next::Over(Ended::Deposed { by }),
            Done::Committed(batch) => {
                *retry_ms = RETRY_MS.0;
                self.lead.wrote(since);
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
            Done::Reopened(batch, sent, tables) => self.reopened(store, batch, sent, tables, retry_ms),
            Done::Pruned(pruned) => {
                match pruned {
                    Ok(more) => {
                        self.lead.wrote(since);
                        if more {
                            // Go on soon, and let others in between.
                            self.pruned = now.minus(PRUNE_EVERY_MS);
                        }
                    }
                    Err(error) => tracing::warn!("{error}"),
                }
                Next::Idle(store)
            }
            Done::Beaten(Ok(())) => {
                self.lead.wrote(since);
                Next::Idle(store)
            }
            Done::Beaten(Err(error)) => {
                tracing::warn!("{error}");
                // What a failing commit brings about does the rest: it is told, and tried again.
                Next::Work(commit(store, self.machine.probe(now, wall_now_ms())))
            }
        }
    }

    fn reopened<S: Store>(
        &mut self,
        store: S,
        batch: Arc<Batch>,
        sent: BootTime,
        tables: Result<Box<Tables>, StoreError>,
        retry_ms: &mut u64,
    ) -> Next<S> {
        let now = boot_now();
        *retry_ms = self.lead.retry_ms((*retry_ms * 2).min(RETRY_MS.1));
        match tables.map(|tables| (self.machine.resolved(now, &batch, &tables), tables.batch)) {
            Ok((Ok(()), last)) => {
                tracing::warn!("the store is open again at batch {last}");
                self.lead.wrote(sent);
                // What the store says now is not enough: it must take a batch.
                Next::Work(commit(store, self.machine.probe(now, wall_now_ms())))
            }
            Ok((Err(message), _)) => {
                tracing::error!("the store contradicts itself: {message}");
                self.tell_health(Some(&message));
                Next::Work(reopen(store, batch, RETRY_MS.1))
            }
            Err(error) => {
                let error = error.to_string();
                // Said once for each kind of trouble, however often it is tried again.
                if self.health.borrow().store_failure.as_deref() != Some(error.as_str()) {
                    tracing::error!("{error}");
                }
                self.tell_health(Some(&error));
                Next::Work(reopen(store, batch, *retry_ms))
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
            ended: false,
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
    Over(Ended),
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
        let sent = boot_now();
        let tables = match store.reopen().await {
            Ok(_) => store.load().await.map(Box::new),
            Err(error) => Err(error),
        };
        (store, Done::Reopened(batch, sent, tables))
    })
}
