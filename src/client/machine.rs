//! The session machine: one session's whole behaviour without sockets and without a clock.
//!
//! ```text
//!            +-----------------------------------------------+
//!            v                                               | drop, refusal, silence
//!   Waiting --> Connecting --> Opening (open | resume | close) --> Up
//!   (backoff)    (a URL)                                      |
//!                                                             v
//!   Closed <------------- session gone, closed, given up -----+
//! ```
//!
//! Whoever drives it calls [`Machine::handle`] with each input and the time read just before, then
//! carries out every [`Output`] in order, and wakes it at [`Machine::next_wake`] or later. Time is
//! handed in with each input and nothing is decided without it: leases whose deadline has passed
//! are lost before the input is looked at, so that no answer, however late it is read, brings one
//! back. What is sent counts from the time of the input that made it.
//!
//! Split: [`promise`] has the arithmetic of time, [`link`] the sockets, [`messages`] what the broker
//! says, [`asks`] what is asked until it is answered, [`books`] the claims and leases.

mod asks;
mod books;
mod link;
mod messages;
mod promise;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use self::asks::{Ask, AskKind};
use self::books::{Claim, Held};
use self::promise::Promise;
use super::error::ClientError;
use super::event::{Event, LeaseState};
use crate::clock::BootTime;
use crate::protocol::builds::HandedSession;
use crate::protocol::call::{
    ClaimRequest, LeaseReleased, ProviderProvide, SessionClose, SessionOpen, SessionRenew, method,
};
use crate::protocol::info::{ApplyInfo, LeaseInfo};
use crate::protocol::rpc::Request;

/// How long an opening may stay unanswered: a broker waits for its store first.
const OPEN_PATIENCE_MS: u64 = 15_000;
/// How long a close is tried for before the broker is left to notice by itself.
const CLOSE_PATIENCE_MS: u64 = 5_000;
/// The same while the only broker is not there: nobody waits long for what comes back by itself. Where
/// there are others one of them takes over, and would give everything of the session another ttl.
const CLOSE_UNREACHED_MS: u64 = 1_500;
/// How long a broker may leave a close unanswered where another may be asked.
const CLOSE_SILENT_MS: u64 = 1_000;
/// The first pause between rounds of tries; each further one is twice as long.
const BACKOFF_MS: u64 = 100;
/// Stands for the ttl while there is no session yet.
const TTL_MS_ASSUMED: u64 = 30_000;
/// A ttl below this is nonsense and would keep the machine spinning.
const TTL_MS_MIN: u64 = 100;

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URLs as people know them; [`Output::Connect`] names one by its place.
    pub urls: Vec<String>,
    /// What to open the session with.
    pub open: SessionOpen,
    /// How long no broker may be there before opening, or a claim that waits, fails.
    pub connect_timeout_ms: u64,
    /// A number below the one given, for spreading retries out.
    pub jitter: fn(u64) -> u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The user claims resources under a number that grows.
    Acquire(u64, Box<ClaimRequest>),
    /// The user wants that claim no more: cancel it, or release what it was granted.
    Abandon(u64),
    /// The user releases a lease; the ticket gets the answer.
    Release {
        /// Its number.
        lease: u64,
        /// `passed`, `failed` or `infra`.
        outcome: Option<String>,
        /// For [`Output::Answer`].
        ticket: Option<u64>,
    },
    /// The user moves the end of a hold.
    Extend {
        /// Its number.
        lease: u64,
        /// The new end, lab time.
        until: u64,
        /// For [`Output::Answer`].
        ticket: u64,
    },
    /// The user brings resources along.
    Provide {
        /// All of them.
        request: Box<ProviderProvide>,
        /// For [`Output::Answer`].
        ticket: u64,
    },
    /// The user closes the session.
    Close {
        /// For [`Output::Answer`].
        ticket: u64,
    },
    /// The connection last asked for is up, the WebSocket agreed.
    Connected,
    /// The connection last asked for did not come about.
    ConnectFailed(ClientError),
    /// A whole text message arrived.
    Received(&'a str),
    /// The socket is gone; the code of the broker's Close frame where there was one.
    Dropped {
        /// Its code.
        code: Option<u16>,
        /// For people.
        why: String,
    },
    /// Time passed.
    Woke,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Connect to this URL, by its place; an attempt still under way is dropped.
    Connect(usize),
    /// Send this text message.
    Send(String),
    /// Drop the socket or the attempt, without a Close frame.
    Drop,
    /// Close the socket cleanly, with code 1000, once everything is sent.
    Hangup,
    /// Tell the user.
    Tell(Event),
    /// Answer a request of the user's.
    Answer(u64, Result<Reply, ClientError>),
}

/// What came of a request of the user's.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The session is closed.
    Closed,
    /// The hold has its new end.
    Extended(Arc<LeaseInfo>),
    /// The resources are on the books and online.
    Provided(ApplyInfo),
    /// The lease is over; says how it ended.
    Released(LeaseReleased),
}

/// One client's session.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    phase: Phase,
    session: Option<Session>,
    outputs: VecDeque<Output>,
    /// The URL in use, or to be tried next.
    url: usize,
    /// Why each URL failed that was tried in this round, and how many of them can be no broker's.
    failures: Vec<String>,
    hopeless: usize,
    /// Rounds that failed since a renewal was answered, and since when there has been trouble.
    round: u32,
    troubled_since: Option<BootTime>,
    /// Attempts given up for taking too long since one came about, and how long that took.
    slow: u32,
    took_ms: u64,
    last_failure: String,
    /// Since when no broker is there; `None` while up.
    unreached_since: Option<BootTime>,
    /// The number of the last request; never used twice, so that no answer is taken for another's.
    rpc: u64,
    /// Requests of the session itself on the current socket.
    pending: BTreeMap<u64, Pending>,
    asks: BTreeMap<u64, Ask>,
    ask: u64,
    claims: BTreeMap<u64, Claim>,
    leases: BTreeMap<u64, Held>,
    closing: Option<Closing>,
    /// The lab's time, and when that was read here.
    lab: Option<(u64, BootTime)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the next try.
    Waiting {
        until: BootTime,
    },
    Connecting {
        since: BootTime,
        give_up_at: BootTime,
    },
    /// The first request is unanswered.
    Opening {
        give_up_at: BootTime,
    },
    Up {
        renew_at: BootTime,
        unanswered_since: Option<BootTime>,
    },
    Closed,
}

#[derive(Clone, Copy, Debug)]
enum Pending {
    Open { sent: BootTime },
    Resume { sent: BootTime },
    Renew { sent: BootTime },
    Close,
    Ask(u64),
}

struct Session {
    id: u64,
    secret: String,
    ttl_ms: u64,
    /// The newest answer; what is not ending counts by it.
    newest: Promise,
    /// Leases which that answer named as ending.
    named: Vec<u64>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the secret: what is shown may be logged.
        f.debug_struct("Session").field("id", &self.id).field("newest", &self.newest).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Closing {
    tickets: Vec<u64>,
    give_up_at: BootTime,
    /// When a broker that does not answer is left for another, where there is one.
    leave_at: Option<BootTime>,
}

impl Machine {
    /// A machine that has not connected yet; its first output asks to.
    #[must_use]
    pub fn new(config: Config, now: BootTime) -> Self {
        let mut machine = Self {
            config,
            phase: Phase::Waiting { until: now },
            session: None,
            outputs: VecDeque::new(),
            url: 0,
            failures: Vec::new(),
            hopeless: 0,
            round: 0,
            troubled_since: None,
            slow: 0,
            took_ms: 0,
            last_failure: "none of the URLs was tried yet".to_owned(),
            unreached_since: Some(now),
            rpc: 0,
            pending: BTreeMap::new(),
            asks: BTreeMap::new(),
            ask: 0,
            claims: BTreeMap::new(),
            leases: BTreeMap::new(),
            closing: None,
            lab: None,
        };
        machine.timers(now);
        machine
    }

    /// A machine that goes on with a session which another process opened: it resumes that, and its one
    /// lease is told as granted when the broker has answered. Until then there is no promise here, so
    /// nothing may be used. `config.open.instance` has to be the session's.
    #[must_use]
    pub fn adopting(config: Config, handed: &HandedSession, now: BootTime) -> Self {
        let mut machine = Self::new(config, now);
        let nothing = Promise { renewal: 0, sent: now, promise_ms: 0 };
        machine.session = Some(Session {
            id: handed.session,
            secret: handed.secret.clone(),
            ttl_ms: handed.ttl_ms.max(TTL_MS_MIN),
            newest: nothing,
            named: Vec::new(),
        });
        machine.claims.insert(handed.request_id, Claim::adopted(now));
        machine
    }

    /// Takes an input at `now`, which was read just before.
    pub fn handle(&mut self, now: BootTime, input: Input<'_>) {
        if self.is_closed() || self.closing.is_some() {
            let Some(input) = self.closed_already(input) else { return };
            self.step(now, input);
        } else {
            self.step(now, input);
        }
    }

    fn step(&mut self, now: BootTime, input: Input<'_>) {
        self.expire(now);
        match input {
            Input::Acquire(request_id, request) => self.acquire(now, request_id, *request),
            Input::Abandon(request_id) => self.abandon(request_id),
            Input::Release { lease, outcome, ticket } => self.release(lease, outcome, ticket),
            Input::Extend { lease, until, ticket } => self.add_ask(AskKind::Extend { lease, until }, Some(ticket)),
            Input::Provide { request, ticket } => self.add_ask(AskKind::Provide { request }, Some(ticket)),
            Input::Close { ticket } => self.close(now, ticket),
            Input::Connected => self.connected(now),
            Input::ConnectFailed(error) => self.connect_failed(now, error),
            Input::Received(text) => self.received(now, text),
            Input::Dropped { code, why } => self.dropped(now, code, why),
            Input::Woke => {}
        }
        // An answer may have shortened a promise to what has passed already.
        self.expire(now);
        self.send_asks(now);
        self.timers(now);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to wake it at the latest; `None` once it is closed.
    #[must_use]
    pub fn next_wake(&self) -> Option<BootTime> {
        let phase = match self.phase {
            Phase::Closed => return None,
            Phase::Waiting { until } => until,
            Phase::Connecting { give_up_at, .. } | Phase::Opening { give_up_at } => give_up_at,
            Phase::Up { renew_at, unanswered_since } => {
                unanswered_since.map_or(renew_at, |since| renew_at.min(since.plus(promise::patience_ms(self.ttl_ms()))))
            }
        };
        let leases = self.leases.values().map(|held| held.deadline);
        let claims = self.claims.values().filter_map(|claim| self.claim_fails_at(claim));
        let again = self.asks.values().filter_map(|ask| ask.again_at);
        let closing = self.closing.iter().flat_map(|closing| [Some(closing.give_up_at), closing.leave_at]).flatten();
        leases.chain(claims).chain(again).chain(closing).chain(self.opening_fails_at()).chain([phase]).min()
    }

    /// Whether nothing follows any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether a socket is up and the session on it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    /// The session's number, secret and ttl, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<(u64, &str, u64)> {
        self.session.as_ref().map(|session| (session.id, session.secret.as_str(), session.ttl_ms))
    }

    /// Where a lease stands that is still held; `None` once it is released, ended or lost.
    #[must_use]
    pub fn lease(&self, lease: u64) -> Option<LeaseState> {
        self.leases.get(&lease).map(|held| held.state(self.ttl_ms(), self.lab))
    }

    /// Everything known of a lease that is still held.
    #[must_use]
    pub fn lease_info(&self, lease: u64) -> Option<&Arc<LeaseInfo>> {
        self.leases.get(&lease).map(|held| &held.info)
    }

    fn ttl_ms(&self) -> u64 {
        self.session.as_ref().map_or(TTL_MS_ASSUMED, |session| session.ttl_ms)
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Tell(event));
    }

    fn request<P: serde::Serialize>(&mut self, method: &str, params: P, pending: Pending) -> u64 {
        self.rpc += 1;
        let request = Request { jsonrpc: "2.0", id: self.rpc, method, params };
        let text =
            serde_json::to_string(&request).expect("our own message types have no maps with other keys than text");
        self.pending.insert(self.rpc, pending);
        self.outputs.push_back(Output::Send(text));
        self.rpc
    }

    // --- time ---

    /// Everything that is due but the deadlines of leases, which [`Self::expire`] has seen to.
    fn timers(&mut self, now: BootTime) {
        if self.closing.as_ref().is_some_and(|closing| now >= closing.give_up_at) {
            let why =
                format!("the session could not be closed ({}); its leases come back by its ttl", self.last_failure);
            self.finish(Some(ClientError::NoBroker(why)));
        }
        if self.opening_fails_at().is_some_and(|at| now >= at) {
            self.finish(Some(ClientError::NoBroker(self.last_failure.clone())));
        }
        self.fail_claims(now);
        // One change may make the next one due, as the end of a pause of nothing does.
        loop {
            let before = self.phase;
            self.phase_timers(now);
            if self.phase == before {
                return;
            }
        }
    }

    fn phase_timers(&mut self, now: BootTime) {
        let phase = self.phase;
        match phase {
            Phase::Waiting { until } if now >= until => {
                self.phase = Phase::Connecting { since: now, give_up_at: now.plus(self.attempt_ms()) };
                self.outputs.push_back(Output::Connect(self.url));
            }
            Phase::Connecting { since, give_up_at } if now >= give_up_at => {
                self.outputs.push_back(Output::Drop);
                self.slow += 1;
                self.attempt_failed(now, self.of_url(&format!("no answer within {} ms", now.since(since))));
            }
            Phase::Opening { give_up_at } if now >= give_up_at => {
                self.drop_socket(now, self.of_url("connected, but the session's opening stays unanswered"));
            }
            Phase::Up { .. } | Phase::Opening { .. } if self.leaves(now) => {
                self.silent(now, self.of_url("closing the session stays unanswered"));
            }
            Phase::Up { unanswered_since: Some(since), .. }
                if now >= since.plus(promise::patience_ms(self.ttl_ms())) =>
            {
                self.silent(now, self.of_url("the broker is silent: a renewal stays unanswered"));
            }
            Phase::Up { renew_at, .. } if now >= renew_at => self.renew(now),
            _ => {}
        }
    }

    /// Whether this broker was asked to close the session, and has had its time to answer. Asked once.
    fn leaves(&mut self, now: BootTime) -> bool {
        self.closing.as_mut().is_some_and(|closing| closing.leave_at.take_if(|at| now >= *at).is_some())
    }

    /// What is wrong with the URL in use.
    fn of_url(&self, why: &str) -> String {
        self.config.urls.get(self.url).map_or_else(|| why.to_owned(), |url| format!("{url}: {why}"))
    }

    fn opening_fails_at(&self) -> Option<BootTime> {
        let since = self.unreached_since.filter(|_| self.session.is_none() && self.phase != Phase::Closed)?;
        Some(since.plus(self.config.connect_timeout_ms))
    }

    fn renew(&mut self, now: BootTime) {
        let renewal = self.counted();
        self.request(method::SESSION_RENEW, SessionRenew { renewal }, Pending::Renew { sent: now });
        let every = promise::renew_every_ms(self.ttl_ms());
        if let Phase::Up { renew_at, unanswered_since } = &mut self.phase {
            *renew_at = now.plus(every);
            unanswered_since.get_or_insert(now);
        }
    }

    // --- the end ---

    fn close(&mut self, now: BootTime, ticket: u64) {
        if let Some(closing) = &mut self.closing {
            closing.tickets.push(ticket);
            return;
        }
        let several = self.config.urls.len() > 1;
        let patience = if self.is_up() || several { CLOSE_PATIENCE_MS } else { CLOSE_UNREACHED_MS };
        let leave_at = (several && self.is_up()).then(|| now.plus(CLOSE_SILENT_MS));
        self.closing = Some(Closing { tickets: vec![ticket], give_up_at: now.plus(patience), leave_at });
        self.leases.clear();
        self.end_claims(&ClientError::Closed);
        self.end_asks(&ClientError::Closed);
        if self.is_up() {
            self.request(method::SESSION_CLOSE, SessionClose::default(), Pending::Close);
        } else if self.session.is_none() && !matches!(self.phase, Phase::Opening { .. }) {
            self.finish(None);
        }
    }

    /// Answers what can be done no more; what is left is for the close that is under way.
    fn closed_already<'a>(&mut self, input: Input<'a>) -> Option<Input<'a>> {
        match input {
            Input::Acquire(request_id, _) => {
                self.tell(Event::ClaimEnded { request_id, error: ClientError::Closed });
                None
            }
            Input::Release { ticket: Some(ticket), .. }
            | Input::Extend { ticket, .. }
            | Input::Provide { ticket, .. } => {
                self.outputs.push_back(Output::Answer(ticket, Err(ClientError::Closed)));
                None
            }
            Input::Release { .. } | Input::Abandon(_) => None,
            Input::Close { ticket } if self.is_closed() => {
                self.outputs.push_back(Output::Answer(ticket, Ok(Reply::Closed)));
                None
            }
            _ if self.is_closed() => None,
            other => Some(other),
        }
    }

    /// The broker says that the session has ended: what it held is another's.
    fn gone(&mut self, why: String) {
        for lease in std::mem::take(&mut self.leases).into_keys() {
            self.tell(Event::Lost { lease });
        }
        let error = if self.closing.is_some() { None } else { Some(ClientError::SessionGone(why)) };
        self.finish(error);
    }

    /// Nothing follows. Whoever waits for something is told `error`.
    fn finish(&mut self, error: Option<ClientError>) {
        if self.is_closed() {
            return;
        }
        let reason = error.clone().unwrap_or(ClientError::Closed);
        self.end_claims(&reason);
        self.end_asks(&reason);
        let answers = matches!(self.phase, Phase::Opening { .. } | Phase::Up { .. })
            && !matches!(error, Some(ClientError::NoBroker(_)));
        self.outputs.push_back(if answers { Output::Hangup } else { Output::Drop });
        self.phase = Phase::Closed;
        for ticket in self.closing.take().map(|closing| closing.tickets).unwrap_or_default() {
            let answer = error.clone().map_or(Ok(Reply::Closed), Err);
            self.outputs.push_back(Output::Answer(ticket, answer));
        }
        self.tell(Event::Closed(error));
    }
}
