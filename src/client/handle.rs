//! What users of the library hold: the client, a claim that waits, a lease.
//!
//! Handles only send commands to the driver's task and read what it tells; they decide nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::Options;
use super::connect::Network;
use super::driver::{self, Adopted, Command, Grant, Link};
use super::error::ClientError;
use super::event::{Event, LeaseState, Standing};
use super::url::BaseUrl;
use crate::clock::BootTime;
use crate::protocol::builds::HandedSession;
use crate::protocol::call::{ClaimRequest, LeaseReleased, ProviderProvide};
use crate::protocol::info::{ApplyInfo, ClaimInfo, LeaseInfo};

/// One session with a broker, kept over dropped sockets. Cheap to clone. When the last handle of
/// it is dropped (leases and waiting claims count) the session is closed, best effort.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Unbounded: each entry is made by a handle of this very process, and a guard's drop can
    /// neither wait nor be refused.
    commands: mpsc::UnboundedSender<Command>,
    events: broadcast::WeakSender<Event>,
    link: watch::Receiver<Link>,
    /// How many URLs of brokers it was given.
    urls: usize,
    /// The last request id; held while a claim is sent, so that ids arrive in order.
    request_id: Mutex<u64>,
}

impl Client {
    /// Starts to connect and returns at once. Needs a tokio runtime with time and I/O.
    pub fn start(options: Options) -> Result<Self, ClientError> {
        Self::start_watched(options).map(|(client, _)| client)
    }

    /// The same, with everything that happens from the very first attempt.
    pub fn start_watched(options: Options) -> Result<(Self, EventStream), ClientError> {
        Self::begin(options, None, 0)
    }

    /// Goes on with a session that another process opened, and returns at once. Awaiting the answer gives
    /// its lease, once the broker has answered the resume: before that nothing of it may be used. Of
    /// `options` who opens a session, for what and with which ttl does not matter: it is open.
    pub fn adopt(options: Options, handed: HandedSession) -> Result<(Self, Waiting), ClientError> {
        let (done_tell, done) = oneshot::channel();
        let (progress_tell, progress) = watch::channel(None);
        let request_id = handed.request_id;
        let adopted = Adopted { handed, progress: progress_tell, done: done_tell };
        let (client, _) = Self::begin(options, Some(adopted), request_id)?;
        let waiting = Waiting { client: client.clone(), request_id, progress, done, settled: false };
        Ok((client, waiting))
    }

    fn begin(
        options: Options,
        adopted: Option<Adopted>,
        last_request_id: u64,
    ) -> Result<(Self, EventStream), ClientError> {
        if options.urls.is_empty() {
            return Err(ClientError::Config("no broker's URL was given".to_owned()));
        }
        let (commands, inbox) = mpsc::unbounded_channel();
        let (link_tell, link) = watch::channel(Link::default());
        // As many as a reader may be behind before it misses some.
        let (events_tell, seen) = broadcast::channel(256);
        let events = events_tell.downgrade();
        let urls = options.urls.len();
        driver::spawn(options, adopted, inbox, events_tell, link_tell)?;
        let request_id = Mutex::new(last_request_id);
        let client = Self { shared: Arc::new(Shared { commands, events, link, urls, request_id }) };
        Ok((client, EventStream { events: Some(seen) }))
    }

    /// Opens a session; waits up to the connect timeout for a broker.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        let client = Self::start(options)?;
        client.connected().await?;
        Ok(client)
    }

    /// Waits until the session is open.
    pub async fn connected(&self) -> Result<(), ClientError> {
        let mut link = self.shared.link.clone();
        let link = link.wait_for(|link| link.session.is_some() || link.closed.is_some()).await;
        let link = link.map_err(|_| ClientError::Closed)?;
        match (&link.closed, link.session) {
            (Some(error), _) => Err(error.clone()),
            (None, _) => Ok(()),
        }
    }

    /// Waits until the session is over and says why; `Closed` where the user closed it.
    pub async fn closed(&self) -> ClientError {
        let mut link = self.shared.link.clone();
        match link.wait_for(|link| link.closed.is_some()).await {
            Ok(link) => link.closed.clone().unwrap_or(ClientError::Closed),
            Err(_) => ClientError::Closed,
        }
    }

    /// The session's number, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<u64> {
        self.shared.link.borrow().session
    }

    /// The session's secret, once it is open. Whoever has it can close the session.
    #[must_use]
    pub fn secret(&self) -> Option<String> {
        self.shared.link.borrow().secret.clone()
    }

    /// The session's ttl, once it is open.
    #[must_use]
    pub fn ttl_ms(&self) -> Option<u64> {
        self.shared.link.borrow().ttl_ms
    }

    /// The broker that the session's socket leads to, or did last: one of the URLs, or whom that sent
    /// to. `None` before there was one.
    #[must_use]
    pub fn broker(&self) -> Option<BaseUrl> {
        self.shared.link.borrow().broker.clone()
    }

    /// Whether there are several brokers to go to, so that one takes over from another.
    #[must_use]
    pub fn knows_several(&self) -> bool {
        self.shared.urls > 1
    }

    /// Whether the session's socket is up at present.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.shared.link.borrow().up
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> EventStream {
        EventStream { events: self.shared.events.upgrade().map(|events| events.subscribe()) }
    }

    /// Claims resources. `request.request_id` is set here. Await the answer for the lease, or
    /// look at its progress before; dropping it cancels the claim.
    #[must_use = "dropping it cancels the claim"]
    pub fn acquire(&self, request: ClaimRequest) -> Waiting {
        let (done_tell, done) = oneshot::channel();
        let (progress_tell, progress) = watch::channel(None);
        let mut last = self.shared.request_id.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let request_id = *last;
        self.send(Command::Acquire {
            request_id,
            request: Box::new(request),
            progress: progress_tell,
            done: done_tell,
        });
        drop(last);
        Waiting { client: self.clone(), request_id, progress, done, settled: false }
    }

    /// Brings resources along: they are online for as long as this session lives. Sent again it makes
    /// them what it says then. Waits for a broker while there is none.
    ///
    /// # Errors
    /// What the broker refuses: a name that is taken, an inventory that contradicts itself.
    pub async fn provide(&self, request: ProviderProvide) -> Result<ApplyInfo, ClientError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Provide { request: Box::new(request), done });
        answer.await.unwrap_or_else(|_| Err(self.over()))
    }

    /// Closes the session: everything of it is free at once. Every lease and claim of it ends.
    pub async fn close(&self) -> Result<(), ClientError> {
        let (done, answer) = oneshot::channel();
        self.send(Command::Close { done });
        answer.await.unwrap_or(Ok(()))
    }

    /// Why nobody answers any more.
    fn over(&self) -> ClientError {
        self.shared.link.borrow().closed.clone().unwrap_or(ClientError::Closed)
    }

    fn send(&self, command: Command) {
        // Without a driver the answer's channel is closed, which says so to whoever waits for it.
        let _ = self.shared.commands.send(command);
    }
}

/// Events as they happen.
#[derive(Debug)]
pub struct EventStream {
    events: Option<broadcast::Receiver<Event>>,
}

impl EventStream {
    /// The next event; `None` after the last. A reader far behind misses some: where a lease
    /// stands is to be asked of its guard.
    pub async fn next(&mut self) -> Option<Event> {
        let events = self.events.as_mut()?;
        loop {
            match events.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// A claim on its way: awaiting it gives the lease.
#[derive(Debug)]
pub struct Waiting {
    client: Client,
    request_id: u64,
    progress: watch::Receiver<Option<Arc<ClaimInfo>>>,
    done: oneshot::Receiver<Result<Grant, ClientError>>,
    settled: bool,
}

impl Waiting {
    /// The session's number for it.
    #[must_use]
    pub fn request_id(&self) -> u64 {
        self.request_id
    }

    /// What the broker said last: place, who is in its way, what blocks it. `None` before it
    /// answered.
    #[must_use]
    pub fn last(&self) -> Option<Arc<ClaimInfo>> {
        self.progress.borrow().clone()
    }

    /// Waits for the next change of its place or of what is in its way; `None` once it no longer
    /// waits. Await `&mut waiting` for the outcome then. May be dropped and called again.
    pub async fn progress(&mut self) -> Option<Arc<ClaimInfo>> {
        self.progress.changed().await.ok()?;
        self.progress.borrow_and_update().clone()
    }
}

impl Future for Waiting {
    type Output = Result<LeaseGuard, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let done = std::task::ready!(Pin::new(&mut self.done).poll(cx));
        self.settled = true;
        let grant = match done {
            Ok(Ok(grant)) => grant,
            Ok(Err(error)) => return Poll::Ready(Err(error)),
            Err(_) => return Poll::Ready(Err(self.client.over())),
        };
        let client = self.client.clone();
        Poll::Ready(Ok(LeaseGuard { client, info: grant.info, state: grant.state, released: false }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.settled {
            self.client.send(Command::Cancel { request_id: self.request_id });
        }
    }
}

/// A lease. Dropping it releases the lease, best effort, without an outcome.
#[derive(Debug)]
pub struct LeaseGuard {
    client: Client,
    info: watch::Receiver<Arc<LeaseInfo>>,
    state: watch::Receiver<LeaseState>,
    released: bool,
}

impl LeaseGuard {
    /// What was granted; the present state where its hold was extended.
    #[must_use]
    pub fn info(&self) -> Arc<LeaseInfo> {
        self.info.borrow().clone()
    }

    /// Its number, which is its fence.
    #[must_use]
    pub fn lease(&self) -> u64 {
        self.info.borrow().lease
    }

    /// The client it belongs to.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// When its use must have ended unless renewed, on this machine's boot clock.
    #[must_use]
    pub fn deadline(&self) -> BootTime {
        self.state.borrow().deadline
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.state.borrow().clone()
    }

    /// A receiver of where it stands, with every new deadline: for who enforces it elsewhere. Its
    /// sender is dropped after a final standing, or with the driver: then nothing renews any more.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }

    /// Waits until it may be used no more, or only to finish: ending, lost or ended. Returns at
    /// once where that is so already. May be dropped and called again.
    pub async fn ended(&mut self) -> Standing {
        let state = self.state.wait_for(|state| state.standing != Standing::Active).await;
        state.map_or(Standing::Lost, |state| state.standing.clone())
    }

    /// Waits until it is over for good: lost or ended.
    pub async fn over(&mut self) -> Standing {
        let state = self.state.wait_for(|state| state.standing.is_final()).await;
        state.map_or(Standing::Lost, |state| state.standing.clone())
    }

    /// Releases it; `outcome` is `passed`, `failed` or `infra`. Answers how it ended, which is
    /// other than `released` where it had ended before. Waits for a broker while there is none.
    pub async fn release(mut self, outcome: Option<&str>) -> Result<LeaseReleased, ClientError> {
        self.released = true;
        let (done, answer) = oneshot::channel();
        let (lease, outcome) = (self.lease(), outcome.map(str::to_owned));
        self.client.send(Command::Release { lease, outcome, done: Some(done) });
        answer.await.unwrap_or_else(|_| Err(self.client.over()))
    }

    /// Moves the end of its hold to `until`, lab time.
    pub async fn extend_to(&self, until: u64) -> Result<Arc<LeaseInfo>, ClientError> {
        let (done, answer) = oneshot::channel();
        self.client.send(Command::Extend { lease: self.lease(), until, done });
        answer.await.unwrap_or_else(|_| Err(self.client.over()))
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if !self.released {
            self.client.send(Command::Release { lease: self.lease(), outcome: None, done: None });
        }
    }
}

/// Closes somebody's session from outside, as the guard of a killed `run` does: all its leases
/// are free at once. The brokers are tried in turn, once.
pub async fn close_session(urls: &[BaseUrl], network: &Network, session: u64, secret: &str) -> Result<(), ClientError> {
    driver::close_session(urls, network, session, secret).await
}
