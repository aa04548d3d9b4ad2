//! A waiting build's session with the engine, until an agent has it.
//!
//! A task of its own opens the session, claims once that is stored, says signs of life, and passes on what it
//! hears. When the build was taken it says one more, and then nothing: whoever took the session resumes it,
//! or it expires. It never drops a session that an agent may have.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::spec;
use super::task::{Event, sleep_till};
use crate::builds::build::{BuildId, Phase, Pick};
use crate::builds::plan::EXECUTOR_POOL;
use crate::clock::{BootTime, boot_now, random_secret};
use crate::core::claim::ClaimSpec;
use crate::core::command::TtlAsk;
use crate::core::types::{Key, Owner};
use crate::engine::handle::Handle;
use crate::engine::input::{Answer, Call, Input, LastRead, Notice, Outgoing, SocketId, secret_hash};
use crate::protocol::error::RpcError;
use crate::protocol::info::ClaimInfo;
use crate::protocol::rpc::Id;

/// Messages that may wait for a claim's task, which does nothing but read them.
const OUTBOUND_MAX: usize = 64;
/// Orders to one task; each is given once.
const ORDERS_MAX: usize = 4;
/// How long it waits before it asks again what the engine could not do, milliseconds.
const AGAIN_MS: u64 = 1_000;

const OPEN: Id = Id::Number(1);
const ACQUIRE: Id = Id::Number(2);
const CLOSE: Id = Id::Number(3);

/// What a claim's task is to do; each at most once.
#[derive(Clone, Debug)]
pub(super) enum Order {
    /// The session is stored: claim.
    Acquire(Box<ClaimSpec>),
    /// Somebody took it: leave it to them.
    HandOver,
    /// Close it.
    Close,
}

/// What a claim was given.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) lease: u64,
    /// Whose executor it has.
    pub(super) agent: Arc<str>,
    /// What it has beside that.
    pub(super) picks: Vec<Pick>,
    /// The session's number for its claim.
    pub(super) request: u64,
}

/// What a claim's task says.
#[derive(Clone, Debug)]
pub(super) enum Said {
    /// The session is open.
    Opened(Session),
    /// The claim is granted.
    Granted(Grant),
    /// The claim ended without a lease, and a new one would fare no better.
    Denied { to: Phase, reason: Arc<str> },
    /// What it waits for.
    Waits(Arc<str>),
    /// The session was closed as ordered, or could not be opened.
    Closed,
    /// The session is not this task's any more, for whatever reason.
    Left,
}

/// A session, with what resumes it.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) secret: Arc<str>,
    pub(super) instance: Arc<str>,
    pub(super) ttl_ms: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Whose session it is to be.
pub(super) struct Opening {
    pub(super) build: BuildId,
    pub(super) serial: u64,
    pub(super) instance: Arc<str>,
    pub(super) owner: Owner,
    pub(super) pools: Vec<Key>,
}

/// Starts a claim's task.
pub(super) fn start(opening: Opening, engine: Handle, events: mpsc::Sender<Event>) -> mpsc::Sender<Order> {
    let (orders, ordered) = mpsc::channel(ORDERS_MAX);
    tokio::spawn(async move {
        let (build, serial) = (opening.build, opening.serial);
        let speaker = Speaker { build, serial, events };
        let last = match Talk::open(opening, engine, ordered, &speaker).await {
            Some(mut talk) => talk.go_on(&speaker).await,
            None => Said::Closed,
        };
        speaker.say(last).await;
    });
    orders
}

struct Speaker {
    build: BuildId,
    serial: u64,
    events: mpsc::Sender<Event>,
}

impl Speaker {
    async fn say(&self, said: Said) {
        // Fails only where the conductor is gone, and there is nobody to tell.
        let _ = self.events.send(Event::Said(self.build, self.serial, said)).await;
    }
}

struct Talk {
    engine: Handle,
    socket: SocketId,
    outgoing: mpsc::Receiver<Box<Outgoing>>,
    read: LastRead,
    orders: mpsc::Receiver<Order>,
    ttl_ms: u64,
    /// The request under way, and its claim.
    request: u64,
    spec: Option<Box<ClaimSpec>>,
    ask_again: Option<BootTime>,
    /// What was said where no agent fits.
    no_agent: Arc<str>,
    handed: bool,
    closing: bool,
}

impl Talk {
    /// Opens the session; `None` where the engine will not have it now.
    async fn open(opening: Opening, engine: Handle, orders: mpsc::Receiver<Order>, speaker: &Speaker) -> Option<Self> {
        let (socket, outgoing, read) = engine.attach(OUTBOUND_MAX).await.ok()?;
        let mut talk = Self {
            engine,
            socket,
            outgoing,
            read,
            orders,
            ttl_ms: 0,
            request: 0,
            spec: None,
            ask_again: None,
            no_agent: "no agent is online that fits".into(),
            handed: false,
            closing: false,
        };
        let secret: Arc<str> = random_secret().into();
        let hash = secret_hash(&secret);
        let Opening { instance, owner, pools, .. } = opening;
        let ttl = TtlAsk::Pools(pools);
        talk.call(OPEN, Call::Open { instance: instance.clone(), owner, ttl, secret: secret.clone(), hash }).await?;
        loop {
            match *talk.outgoing.recv().await? {
                Outgoing::Answer { result: Ok(Answer::Opened(opened, _)), .. } => {
                    talk.ttl_ms = opened.ttl_ms;
                    let session = Session { number: opened.session, secret, instance, ttl_ms: opened.ttl_ms };
                    speaker.say(Said::Opened(session)).await;
                    return Some(talk);
                }
                Outgoing::Answer { result: Err(error), .. } => {
                    tracing::warn!(build = speaker.build.0, %error, "no session could be opened for a build");
                    talk.cut_off().await;
                    return None;
                }
                Outgoing::Close { .. } => return None,
                Outgoing::Answer { .. } | Outgoing::Notice(_) | Outgoing::PingEvery { .. } => {}
            }
        }
    }

    async fn call(&self, id: Id, call: Call) -> Option<()> {
        let at = boot_now();
        self.read.note(at);
        self.engine.send(Input::Call { socket: self.socket, at, id: Some(id), call }).await.ok()
    }

    /// Says a sign of life.
    async fn alive(&self) {
        let at = boot_now();
        self.read.note(at);
        let _ = self.engine.send(Input::Alive { socket: self.socket, at }).await;
    }

    /// Leaves without that being a drop of the session.
    async fn cut_off(&self) {
        let _ = self.engine.send(Input::CutOff { socket: self.socket }).await;
    }

    async fn go_on(&mut self, speaker: &Speaker) -> Said {
        let every_ms = (self.ttl_ms / 3).max(1);
        let mut due = boot_now().plus(every_ms);
        loop {
            let again = self.ask_again.unwrap_or_else(|| boot_now().plus(every_ms));
            let last = tokio::select! {
                order = self.orders.recv() => self.obey(order).await,
                outgoing = self.outgoing.recv() => self.hear(outgoing, speaker).await,
                () = sleep_till(due), if !self.handed => {
                    due = boot_now().plus(every_ms);
                    self.alive().await;
                    None
                }
                () = sleep_till(again), if self.ask_again.is_some() => self.ask().await,
            };
            if let Some(last) = last {
                return last;
            }
        }
    }

    async fn obey(&mut self, order: Option<Order>) -> Option<Said> {
        match order {
            Some(Order::Acquire(spec)) => {
                self.request += 1;
                self.spec = Some(spec);
                self.ask().await
            }
            Some(Order::HandOver) => {
                self.alive().await;
                self.handed = true;
                None
            }
            Some(Order::Close) => {
                self.closing = true;
                self.ask().await
            }
            // The conductor has ended: whoever leads next finds the session.
            None => {
                self.cut_off().await;
                Some(Said::Left)
            }
        }
    }

    /// Asks the engine for what is to be: the session's end, or the claim. Said again it is the same.
    async fn ask(&mut self) -> Option<Said> {
        self.ask_again = None;
        let asked = match &self.spec {
            _ if self.closing => self.call(CLOSE, Call::Close { other: None }).await,
            Some(spec) => {
                let spec = Arc::new(ClaimSpec::clone(spec));
                self.call(ACQUIRE, Call::Acquire { request: self.request, spec }).await
            }
            None => Some(()),
        };
        // The engine is gone, and with it whatever could be asked.
        asked.map_or(Some(Said::Left), |()| None)
    }

    async fn hear(&mut self, outgoing: Option<Box<Outgoing>>, speaker: &Speaker) -> Option<Said> {
        match outgoing.map(|outgoing| *outgoing) {
            Some(Outgoing::Answer { id, result: Ok(Answer::Done(_)) }) if id == CLOSE => {
                self.cut_off().await;
                Some(Said::Closed)
            }
            Some(Outgoing::Answer { result: Ok(Answer::Claim(told)), .. }) => self.stands(&told.info, speaker).await,
            Some(Outgoing::Answer { result: Err(error), .. }) => self.refused(&error, speaker).await,
            Some(Outgoing::Notice(Notice::Granted(told))) => self.stands(&told.info, speaker).await,
            Some(Outgoing::Notice(Notice::Waiting(info) | Notice::ClaimEnded(info))) => {
                self.stands(&info, speaker).await
            }
            Some(Outgoing::Answer { .. } | Outgoing::Notice(_) | Outgoing::PingEvery { .. }) => None,
            Some(Outgoing::Close { .. }) | None => {
                self.cut_off().await;
                Some(Said::Left)
            }
        }
    }

    /// How the claim stands.
    async fn stands(&mut self, info: &ClaimInfo, speaker: &Speaker) -> Option<Said> {
        if self.closing {
            return None;
        }
        match (&info.end, spec::grant(info, self.request)) {
            (Some(end), _) if end.code == "impossible" && end.need.as_deref() == Some(EXECUTOR_POOL) => {
                self.wait_for_agents(&end.message, speaker).await
            }
            (Some(end), _) => {
                let to = if end.code == "cancelled" { Phase::Cancelled } else { Phase::Failed };
                speaker.say(Said::Denied { to, reason: end.message.as_str().into() }).await;
                None
            }
            (None, Some(grant)) => {
                speaker.say(Said::Granted(grant)).await;
                None
            }
            (None, None) => {
                let words = self.waits_for(info);
                speaker.say(Said::Waits(words)).await;
                None
            }
        }
    }

    fn waits_for(&self, info: &ClaimInfo) -> Arc<str> {
        let for_agents = self.spec.as_ref().is_some_and(|spec| spec.wait_for_inventory);
        match &info.blocked {
            Some(blocked) if blocked.contains(EXECUTOR_POOL) => {
                format!("no agent is online that fits: {blocked}").into()
            }
            None if for_agents && info.in_the_way.is_empty() => self.no_agent.clone(),
            _ => spec::waits_for(info).into(),
        }
    }

    async fn refused(&mut self, error: &RpcError, speaker: &Speaker) -> Option<Said> {
        match error.data.code.as_str() {
            _ if self.closing => {
                self.ask_again = Some(boot_now().plus(AGAIN_MS));
                None
            }
            "impossible" if error.data.need.as_deref() == Some(EXECUTOR_POOL) => {
                self.wait_for_agents(&error.message, speaker).await
            }
            "unavailable" | "overloaded" | "stopping" | "too_many_claims" | "too_many_leases" | "too_many_requests" => {
                self.ask_again = Some(boot_now().plus(AGAIN_MS));
                None
            }
            _ => {
                speaker.say(Said::Denied { to: Phase::Failed, reason: error.message.as_str().into() }).await;
                None
            }
        }
    }

    /// No agent that there is, or was, fits: only for those it is worth waiting that nobody has heard of yet.
    async fn wait_for_agents(&mut self, miss: &str, speaker: &Speaker) -> Option<Said> {
        self.no_agent = format!("no agent is online that fits: {miss}").into();
        speaker.say(Said::Waits(self.no_agent.clone())).await;
        self.request += 1;
        if let Some(spec) = &mut self.spec {
            spec.wait_for_inventory = true;
        }
        self.ask().await
    }
}
