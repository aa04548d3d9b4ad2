//! Moves bytes and time for the machine: one task per session with its socket, timer and channels.
//!
//! It decides nothing. It never waits for one thing only: a socket that takes no bytes must not
//! keep a deadline from being seen. The clock is read before each input.

mod connection;
mod outside;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use self::connection::Connection;
pub(crate) use self::outside::close_session;
use super::Options;
use super::connect::{Network, STEP_TIMEOUT, Socket};
use super::error::ClientError;
use super::event::{Event, LeaseState, Standing};
use super::machine::{Config, Input, Machine, Output, Reply};
use super::timer::BootTimer;
use super::url::BaseUrl;
use crate::clock;
use crate::protocol::builds::HandedSession;
use crate::protocol::call::{ClaimRequest, LeaseReleased, ProviderProvide, SessionOpen};
use crate::protocol::info::{ApplyInfo, ClaimInfo, LeaseInfo};

/// How long a clean close may take to be written and answered.
const HANGUP_TIMEOUT: Duration = Duration::from_secs(1);
type Answer<T> = oneshot::Sender<Result<T, ClientError>>;

/// What a handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Acquire {
        request_id: u64,
        request: Box<ClaimRequest>,
        progress: watch::Sender<Option<Arc<ClaimInfo>>>,
        done: Answer<Grant>,
    },
    Cancel {
        request_id: u64,
    },
    Release {
        lease: u64,
        outcome: Option<String>,
        done: Option<Answer<LeaseReleased>>,
    },
    Extend {
        lease: u64,
        until: u64,
        done: Answer<Arc<LeaseInfo>>,
    },
    Provide {
        request: Box<ProviderProvide>,
        done: Answer<ApplyInfo>,
    },
    Close {
        done: Answer<()>,
    },
}

/// A lease on its way to its guard.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) info: watch::Receiver<Arc<LeaseInfo>>,
    pub(crate) state: watch::Receiver<LeaseState>,
}

/// The session as handles see it.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) session: Option<u64>,
    pub(crate) secret: Option<String>,
    pub(crate) ttl_ms: Option<u64>,
    /// The broker of the last socket that was up.
    pub(crate) broker: Option<BaseUrl>,
    pub(crate) up: bool,
    pub(crate) closed: Option<ClientError>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("session", &self.session).field("up", &self.up).finish_non_exhaustive()
    }
}

/// A session that is taken over from another process, and whoever waits for its lease.
pub(crate) struct Adopted {
    pub(crate) handed: HandedSession,
    pub(crate) progress: watch::Sender<Option<Arc<ClaimInfo>>>,
    pub(crate) done: Answer<Grant>,
}

/// Starts the task that owns a session.
pub(crate) fn spawn(
    options: Options,
    adopted: Option<Adopted>,
    inbox: mpsc::UnboundedReceiver<Command>,
    events: broadcast::Sender<Event>,
    link: watch::Sender<Link>,
) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Handle::try_current()
        .map_err(|_| ClientError::Config("the client needs a tokio runtime around it".to_owned()))?;
    let timer = BootTimer::new().map_err(|error| ClientError::Config(format!("no timer: {error}")))?;
    let Options { urls, network, owner, ttl_ms, pools, needs, connect_timeout_ms, instance } = options;
    let instance = adopted.as_ref().map_or(instance, |adopted| adopted.handed.instance.clone());
    let open = SessionOpen { instance, owner, ttl_ms, pools, needs };
    let names = urls.iter().map(ToString::to_string).collect();
    let config = Config { urls: names, open, connect_timeout_ms, jitter: clock::jitter };
    let now = clock::boot_now();
    let mut claims = BTreeMap::new();
    let machine = match adopted {
        None => Machine::new(config, now),
        Some(Adopted { handed, progress, done }) => {
            claims.insert(handed.request_id, ClaimTold { progress, done });
            Machine::adopting(config, &handed, now)
        }
    };
    let driver = Driver {
        machine,
        urls,
        network,
        attempt: None,
        connection: None,
        inbox: Some(inbox),
        timer,
        claims,
        leases: BTreeMap::new(),
        replies: BTreeMap::new(),
        ticket: 0,
        events,
        link,
    };
    runtime.spawn(driver.run());
    Ok(())
}

struct Driver {
    machine: Machine,
    urls: Vec<BaseUrl>,
    network: Network,
    attempt: Option<Attempt>,
    connection: Option<Connection>,
    /// `None` once every handle is gone.
    inbox: Option<mpsc::UnboundedReceiver<Command>>,
    timer: BootTimer,
    claims: BTreeMap<u64, ClaimTold>,
    leases: BTreeMap<u64, LeaseTold>,
    replies: BTreeMap<u64, ReplyTo>,
    ticket: u64,
    events: broadcast::Sender<Event>,
    link: watch::Sender<Link>,
}

type Attempt = Pin<Box<dyn Future<Output = Attempted> + Send>>;
/// A socket, and the broker that it leads to.
type Attempted = Result<(Box<Socket>, BaseUrl), ClientError>;

struct ClaimTold {
    progress: watch::Sender<Option<Arc<ClaimInfo>>>,
    done: Answer<Grant>,
}

struct LeaseTold {
    info: watch::Sender<Arc<LeaseInfo>>,
    state: watch::Sender<LeaseState>,
}

enum ReplyTo {
    Nobody,
    Close(Answer<()>),
    Extend(Answer<Arc<LeaseInfo>>),
    Provide(Answer<ApplyInfo>),
    Release(Answer<LeaseReleased>),
}

/// What woke the task.
enum Happening {
    Text(Utf8Bytes),
    Dropped { code: Option<u16>, why: String },
    Attempted(Attempted),
    Asked(Command),
    HandlesGone,
    Woke,
}

impl Driver {
    async fn run(mut self) {
        loop {
            while let Some(output) = self.machine.poll() {
                self.carry_out(output).await;
            }
            self.tell_leases();
            if self.machine.is_closed() {
                return;
            }
            if let Some(at) = self.machine.next_wake() {
                self.timer.set(at);
            }
            let happening = self.happening().await;
            self.take(happening);
        }
    }

    /// Waits for whatever comes first; what has arrived is read before time is looked at.
    async fn happening(&mut self) -> Happening {
        poll_fn(|cx| {
            if let Some(connection) = &mut self.connection
                && let Poll::Ready(happening) = connection.poll(cx)
            {
                return Poll::Ready(happening);
            }
            if let Some(attempt) = &mut self.attempt
                && let Poll::Ready(result) = attempt.as_mut().poll(cx)
            {
                self.attempt = None;
                return Poll::Ready(Happening::Attempted(result));
            }
            if let Some(inbox) = &mut self.inbox
                && let Poll::Ready(command) = inbox.poll_recv(cx)
            {
                if command.is_none() {
                    self.inbox = None;
                }
                return Poll::Ready(command.map_or(Happening::HandlesGone, Happening::Asked));
            }
            self.timer.poll_expired(cx).map(|()| Happening::Woke)
        })
        .await
    }

    fn take(&mut self, happening: Happening) {
        let now = clock::boot_now();
        match happening {
            Happening::Text(text) => self.machine.handle(now, Input::Received(&text)),
            Happening::Dropped { code, why } => {
                self.connection = None;
                self.machine.handle(now, Input::Dropped { code, why });
            }
            Happening::Attempted(Ok((socket, broker))) => {
                self.connection = Some(Connection::new(socket));
                self.link.send_modify(|link| link.broker = Some(broker));
                self.machine.handle(now, Input::Connected);
            }
            Happening::Attempted(Err(error)) => self.machine.handle(now, Input::ConnectFailed(error)),
            Happening::Asked(command) => {
                let input = self.command(command);
                self.machine.handle(now, input);
            }
            Happening::HandlesGone => {
                let ticket = self.reply_to(ReplyTo::Nobody);
                self.machine.handle(now, Input::Close { ticket });
            }
            Happening::Woke => self.machine.handle(now, Input::Woke),
        }
    }

    fn command(&mut self, command: Command) -> Input<'static> {
        match command {
            Command::Acquire { request_id, request, progress, done } => {
                self.claims.insert(request_id, ClaimTold { progress, done });
                Input::Acquire(request_id, request)
            }
            Command::Cancel { request_id } => {
                self.claims.remove(&request_id);
                Input::Abandon(request_id)
            }
            Command::Release { lease, outcome, done } => {
                let ticket = done.map(|done| self.reply_to(ReplyTo::Release(done)));
                Input::Release { lease, outcome, ticket }
            }
            Command::Extend { lease, until, done } => {
                Input::Extend { lease, until, ticket: self.reply_to(ReplyTo::Extend(done)) }
            }
            Command::Provide { request, done } => {
                Input::Provide { request, ticket: self.reply_to(ReplyTo::Provide(done)) }
            }
            Command::Close { done } => Input::Close { ticket: self.reply_to(ReplyTo::Close(done)) },
        }
    }

    fn reply_to(&mut self, to: ReplyTo) -> u64 {
        self.ticket += 1;
        self.replies.insert(self.ticket, to);
        self.ticket
    }

    async fn carry_out(&mut self, output: Output) {
        match output {
            Output::Connect(url) => {
                self.connection = None;
                // The machine's own places: there are as many as URLs.
                self.attempt = self.urls.get(url).cloned().map(|url| attempt(self.network.clone(), url));
            }
            Output::Send(text) => {
                if let Some(connection) = &mut self.connection {
                    connection.send(text);
                }
            }
            Output::Drop => {
                self.connection = None;
                self.attempt = None;
            }
            Output::Hangup => {
                self.attempt = None;
                if let Some(connection) = self.connection.take() {
                    // The broker may be gone or slow: it has been told all that matters.
                    let _ = tokio::time::timeout(HANGUP_TIMEOUT, connection.hang_up()).await;
                }
            }
            Output::Tell(event) => self.tell(event),
            Output::Answer(ticket, reply) => self.reply(ticket, reply),
        }
    }

    fn tell(&mut self, event: Event) {
        match &event {
            Event::Connected { .. } => {
                let session = self.machine.session().map(|(id, secret, ttl_ms)| (id, secret.to_owned(), ttl_ms));
                self.link.send_modify(|link| {
                    link.up = true;
                    if let Some((id, secret, ttl_ms)) = session {
                        (link.session, link.secret, link.ttl_ms) = (Some(id), Some(secret), Some(ttl_ms));
                    }
                });
            }
            Event::Disconnected { .. } => self.link.send_modify(|link| link.up = false),
            Event::Closed(error) => self.link.send_modify(|link| {
                link.up = false;
                link.closed = Some(error.clone().unwrap_or(ClientError::Closed));
            }),
            Event::Queued(info) => {
                if let Some(claim) = self.claims.get(&info.request_id) {
                    claim.progress.send_replace(Some(Arc::clone(info)));
                }
            }
            Event::Granted { lease, deadline } => self.granted(lease, *deadline),
            Event::ClaimEnded { request_id, error } => {
                if let Some(claim) = self.claims.remove(request_id) {
                    let _ = claim.done.send(Err(error.clone()));
                }
            }
            Event::Ended { lease, why, message } => {
                self.over(*lease, Standing::Ended { why: why.clone(), message: message.clone() });
            }
            Event::Lost { lease } => self.over(*lease, Standing::Lost),
            Event::ConnectFailed { .. }
            | Event::Ending { .. }
            | Event::Extended(_)
            | Event::NoBroker { .. }
            | Event::Offline { .. }
            | Event::Online { .. }
            | Event::Superseded(_)
            | Event::StoreState { .. } => {}
        }
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn granted(&mut self, info: &Arc<LeaseInfo>, deadline: clock::BootTime) {
        let Some(claim) = self.claims.remove(&info.request_id) else { return };
        let state = self.machine.lease(info.lease).unwrap_or(LeaseState {
            deadline,
            terminate_at: deadline,
            hold_ends_at: None,
            standing: Standing::Active,
        });
        let (info_tell, info_seen) = watch::channel(Arc::clone(info));
        let (state_tell, state_seen) = watch::channel(state);
        self.leases.insert(info.lease, LeaseTold { info: info_tell, state: state_tell });
        // Where nobody takes it, its `Waiting` was dropped and has said so by a cancel.
        let _ = claim.done.send(Ok(Grant { info: info_seen, state: state_seen }));
    }

    fn over(&mut self, lease: u64, standing: Standing) {
        if let Some(told) = self.leases.remove(&lease) {
            told.state.send_modify(|state| state.standing = standing);
        }
    }

    /// Hands on every new deadline; leases that the machine has forgotten were given back.
    fn tell_leases(&mut self) {
        let machine = &self.machine;
        self.leases.retain(|lease, told| {
            let Some((state, info)) = machine.lease(*lease).zip(machine.lease_info(*lease)) else {
                let (why, message) = ("released".to_owned(), "it was released".to_owned());
                told.state.send_modify(|state| state.standing = Standing::Ended { why, message });
                return false;
            };
            told.state.send_if_modified(|told| {
                let changed = *told != state;
                *told = state;
                changed
            });
            told.info.send_if_modified(|told| {
                let changed = !Arc::ptr_eq(told, info);
                *told = Arc::clone(info);
                changed
            });
            true
        });
    }

    fn reply(&mut self, ticket: u64, reply: Result<Reply, ClientError>) {
        let other = || ClientError::Protocol("an answer of another kind".to_owned());
        // Whoever asked may be gone.
        match self.replies.remove(&ticket) {
            None | Some(ReplyTo::Nobody) => {}
            Some(ReplyTo::Close(done)) => {
                let _ = done.send(reply.map(|_| ()));
            }
            Some(ReplyTo::Extend(done)) => {
                let _ = done.send(reply.and_then(|reply| match reply {
                    Reply::Extended(info) => Ok(info),
                    _ => Err(other()),
                }));
            }
            Some(ReplyTo::Provide(done)) => {
                let _ = done.send(reply.and_then(|reply| match reply {
                    Reply::Provided(applied) => Ok(applied),
                    _ => Err(other()),
                }));
            }
            Some(ReplyTo::Release(done)) => {
                let _ = done.send(reply.and_then(|reply| match reply {
                    Reply::Released(released) => Ok(released),
                    _ => Err(other()),
                }));
            }
        }
    }
}

fn attempt(network: Network, url: BaseUrl) -> Attempt {
    // How long all of it may take is the machine's to say.
    let connecting = async move { network.websocket(&url, STEP_TIMEOUT).await };
    Box::pin(async move { connecting.await.map(|(socket, broker)| (Box::new(socket), broker)) })
}
