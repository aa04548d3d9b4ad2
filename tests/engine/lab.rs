//! A machine in virtual time, with a store that is a variable.
//!
//! Time passes only in [`Lab::wait`] and [`Lab::stand_still`]. What the machine tells is sorted
//! by whom it tells, as it is told and in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold::clock::BootTime;
use leasehold::core::claim::ClaimSpec;
use leasehold::core::command::{Command, TtlAsk};
use leasehold::core::session::SecretHash;
use leasehold::core::tables::{Batch, Tables};
use leasehold::core::types::{LabTime, LeaseId, SessionId};
use leasehold::engine::held::Output;
use leasehold::engine::input::{Answer, Call, Input, KeyedCall, LastRead, Notice, Outgoing, SocketId, Takeover, Told};
use leasehold::engine::machine::{Machine, Options};
use leasehold::protocol::call::{SessionOpened, SessionRenewed};
use leasehold::protocol::error::{CloseReason, RpcError};
use leasehold::protocol::info::ClaimInfo;
use leasehold::protocol::rpc::Id;
use tokio::sync::{mpsc, oneshot};

use super::words;

pub const GRACE_MS: u64 = 300_000;
pub const TTL: u64 = 2_000;

pub type Answered = Result<Told, RpcError>;

/// A client's session on a socket.
#[derive(Clone, Debug)]
pub struct Client {
    pub socket: SocketId,
    pub session: u64,
    pub secret: String,
    pub renewal: u64,
    pub promise_ms: u64,
}

pub struct Lab {
    pub machine: Machine,
    pub now: BootTime,
    pub wall_ms: i64,
    /// What the store holds.
    pub stored: Tables,
    under_way: Option<(Batch, Tables)>,
    pub told: BTreeMap<SocketId, Vec<Outgoing>>,
    reads: BTreeMap<SocketId, LastRead>,
    numbers: u64,
    pub stopped: Vec<BootTime>,
}

impl Lab {
    /// A broker that serves these pools.
    pub fn of(pools: &[(&str, usize)]) -> Self {
        Self::stocked(pools, false)
    }

    /// The same over a store that other brokers share.
    pub fn shared(pools: &[(&str, usize)]) -> Self {
        Self::stocked(pools, true)
    }

    fn stocked(pools: &[(&str, usize)], shared: bool) -> Self {
        let (now, wall_ms) = (BootTime(1_000_000), 1_800_000_000_000);
        let mut lab = Self::over(Tables::default(), now, wall_ms, shared);
        let mut applied = lab.command(words::inventory(pools));
        lab.go();
        applied.try_recv().expect("an answer").expect("an inventory");
        lab
    }

    /// A broker that takes over what a store holds, and accepts connections at once.
    fn over(stored: Tables, now: BootTime, wall_ms: i64, shared: bool) -> Self {
        let options = Options { limits: Default::default(), restart_grace_ms: GRACE_MS };
        let machine = Machine::new(&stored, options, Takeover { at: now, wall_ms, passed_ms: None, shared }).unwrap();
        let mut lab = Self {
            machine,
            now,
            wall_ms,
            stored,
            under_way: None,
            told: BTreeMap::new(),
            reads: BTreeMap::new(),
            numbers: 0,
            stopped: Vec::new(),
        };
        lab.go();
        lab.machine.input(now, Input::Accepting);
        lab
    }

    /// Another process over what is stored, `away_ms` later by this machine's clocks; whatever was
    /// not committed is lost.
    pub fn restarted(self, away_ms: u64) -> Self {
        let wall_ms = self.wall_ms + i64::try_from(away_ms).unwrap();
        Self::over(self.stored, self.now.plus(away_ms), wall_ms, false)
    }

    /// The same with a wall clock that was put elsewhere meanwhile.
    pub fn restarted_at(self, wall_ms: i64) -> Self {
        Self::over(self.stored, self.now, wall_ms, false)
    }

    // ---- the store ----

    /// Begins a batch. Answers whether there is one to commit.
    pub fn step(&mut self) -> bool {
        let Some(batch) = self.machine.step(self.now, self.wall_ms) else {
            self.deliver();
            return false;
        };
        let tables = Tables {
            batch: batch.number,
            last_event: batch.first_event + batch.events.len() as u64 - 1,
            wall_ms: batch.wall_ms,
            lab: batch.tables.lab,
            ..self.machine.broker().state().tables()
        };
        assert_eq!(batch.number, self.stored.batch + 1, "batches come in order");
        assert_eq!(batch.first_event, self.stored.last_event + 1, "events come in order");
        self.under_way = Some((batch, tables));
        self.deliver();
        true
    }

    /// The batch under way is durable.
    pub fn commit(&mut self) {
        let (batch, tables) = self.under_way.take().expect("a batch under way");
        self.stored = tables;
        self.machine.committed(self.now, &batch);
        self.deliver();
    }

    /// The batch under way failed. Nothing is known of it until [`Lab::resolve`].
    pub fn fail(&mut self) {
        self.machine.store_failed(self.now, "a fault ordered by a test");
        self.deliver();
    }

    /// The store is open again, and the batch is there or not; then a probe goes out, which is
    /// the batch under way.
    pub fn resolve(&mut self, is_there: bool) {
        let (batch, tables) = self.under_way.take().expect("a batch under way");
        if is_there {
            self.stored = tables;
        }
        self.machine.resolved(self.now, &batch, &self.stored).unwrap();
        let probe = self.machine.probe(self.now, self.wall_ms);
        let tables = Tables {
            batch: probe.number,
            last_event: probe.first_event + probe.events.len() as u64 - 1,
            wall_ms: probe.wall_ms,
            lab: probe.tables.lab,
            ..self.machine.broker().state().tables()
        };
        self.under_way = Some((probe, tables));
        self.deliver();
    }

    /// A look whether this process leads begins, if the machine wants one. Answers whether it did.
    pub fn look(&mut self) -> bool {
        let wants = self.machine.wants_confirmation(self.now);
        if wants {
            self.machine.confirmation_begun(self.now);
        }
        wants
    }

    /// The look under way found that it does.
    pub fn seen(&mut self) {
        self.machine.confirmed(self.now);
        self.deliver();
    }

    /// The look under way found nothing out.
    pub fn unseen(&mut self) {
        self.machine.confirmation_failed();
        self.deliver();
    }

    /// Steps and commits until there is nothing more to do.
    pub fn go(&mut self) {
        loop {
            if self.step() {
                self.commit();
            } else if !self.machine.has_work() {
                break;
            }
        }
    }

    /// Lets time pass with a loop that goes round.
    pub fn wait(&mut self, ms: u64) {
        let until = self.now.plus(ms);
        while self.now < until {
            let next = self.now.plus(50).min(until);
            self.pass(next.since(self.now));
            if self.under_way.is_none() {
                self.go();
            }
        }
    }

    /// Lets time pass with a loop that stands still, as on a paused machine.
    pub fn stand_still(&mut self, ms: u64) {
        self.now = self.now.plus(ms);
        self.wall_ms += i64::try_from(ms).unwrap();
    }

    fn pass(&mut self, ms: u64) {
        self.stand_still(ms);
        self.machine.alive(self.now);
        self.deliver();
    }

    pub fn deliver(&mut self) {
        for output in self.machine.take_outputs() {
            match output {
                Output::Socket(socket, outgoing) => self.told.entry(socket).or_default().push(outgoing),
                Output::Told(answer, told) => drop(answer.send(told)),
                Output::Release(release, durable) => release(durable),
                Output::Stopped(done) => {
                    self.stopped.push(self.now);
                    let _: Result<(), ()> = done.send(());
                }
            }
        }
    }

    // ---- clients ----

    pub fn socket(&mut self) -> SocketId {
        self.numbers += 1;
        let socket = self.numbers;
        let (outbox, _) = mpsc::channel(1);
        let last_read = LastRead::default();
        self.reads.insert(socket, last_read.clone());
        self.machine.input(self.now, Input::Attach { socket, outbox, last_read });
        socket
    }

    /// The socket's task read something now, and has not handed it over.
    pub fn note_read(&self, socket: SocketId) {
        self.reads[&socket].note(self.now);
    }

    /// A ping or pong came in.
    pub fn alive(&mut self, socket: SocketId) {
        self.note_read(socket);
        self.machine.input(self.now, Input::Alive { socket, at: self.now });
    }

    /// Makes a call; answers what its answer is found by.
    pub fn call(&mut self, socket: SocketId, call: Call) -> Id {
        self.numbers += 1;
        let id = Id::Number(self.numbers);
        self.note_read(socket);
        self.machine.input(self.now, Input::Call { socket, at: self.now, id: Some(id.clone()), call });
        self.deliver();
        id
    }

    /// The answer to a call, once it has been told.
    pub fn answer(&self, id: &Id) -> Option<Result<Answer, RpcError>> {
        self.told.values().flatten().find_map(|outgoing| match outgoing {
            Outgoing::Answer { id: of, result } if of == id => Some(result.clone()),
            _ => None,
        })
    }

    pub fn is_answered(&self, id: &Id) -> bool {
        self.answer(id).is_some()
    }

    /// The code of the error that the call was answered.
    pub fn refusal(&self, id: &Id) -> String {
        self.answer(id).expect("an answer").expect_err("a refusal").data.code
    }

    pub fn open_call(&mut self, socket: SocketId, ttl_ms: u64) -> (Id, String) {
        let secret = format!("secret-{socket}");
        let call = Call::Open {
            instance: "instance".into(),
            owner: words::owner(),
            ttl: TtlAsk::Exactly(ttl_ms),
            secret: secret.as_str().into(),
            hash: words::hash(&secret),
        };
        (self.call(socket, call), secret)
    }

    /// A client with a session.
    pub fn client(&mut self, ttl_ms: u64) -> Client {
        let socket = self.socket();
        let (id, secret) = self.open_call(socket, ttl_ms);
        self.go();
        let opened = self.opened(&id);
        let SessionOpened { session, renewed: SessionRenewed { renewal, promise_ms, .. }, .. } = opened;
        Client { socket, session, secret, renewal, promise_ms }
    }

    pub fn opened(&self, id: &Id) -> SessionOpened {
        match self.answer(id).expect("an answer").expect("a session") {
            Answer::Opened(opened, _) => *opened,
            other => panic!("{other:?}"),
        }
    }

    pub fn resume_call(&mut self, socket: SocketId, client: &Client) -> Id {
        let call = Call::Resume {
            session: SessionId(client.session),
            hash: words::hash(&client.secret),
            instance: "instance".into(),
            renewal: client.renewal,
        };
        self.call(socket, call)
    }

    /// Resumes on a new socket.
    pub fn resume(&mut self, client: &mut Client) -> SessionOpened {
        let socket = self.socket();
        let id = self.resume_call(socket, client);
        self.go();
        let opened = self.opened(&id);
        client.socket = socket;
        client.renewal = opened.renewed.renewal;
        client.promise_ms = opened.renewed.promise_ms;
        opened
    }

    pub fn renew_call(&mut self, client: &Client) -> Id {
        self.call(client.socket, Call::Renew { renewal: client.renewal })
    }

    /// The answer to a renewal, which the client counts by from here on.
    pub fn renewed(&self, client: &mut Client, id: &Id) -> SessionRenewed {
        match self.answer(id).expect("an answer").expect("a renewal") {
            Answer::Renewed(renewed) => {
                assert!(renewed.renewal > client.renewal, "renewal numbers grow");
                client.renewal = renewed.renewal;
                client.promise_ms = renewed.promise_ms;
                renewed
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn renew(&mut self, client: &mut Client) -> SessionRenewed {
        let id = self.renew_call(client);
        self.renewed(client, &id)
    }

    pub fn acquire_call(&mut self, client: &Client, request: u64, spec: ClaimSpec) -> Id {
        self.call(client.socket, Call::Acquire { request, spec: Arc::new(spec) })
    }

    /// How a claim stands, as the answer to acquiring it tells.
    pub fn acquire(&mut self, client: &Client, request: u64, needs: &[&str]) -> ClaimInfo {
        let id = self.acquire_call(client, request, words::claim(needs));
        self.go();
        self.claim(&id)
    }

    pub fn claim(&self, id: &Id) -> ClaimInfo {
        match self.answer(id).expect("an answer").expect("a claim") {
            Answer::Claim(told) => told.info,
            other => panic!("{other:?}"),
        }
    }

    /// A lease at once.
    pub fn lease(&mut self, client: &Client, request: u64, needs: &[&str]) -> LeaseId {
        let info = self.acquire(client, request, needs);
        LeaseId(info.lease.unwrap_or_else(|| panic!("{} is {}", info.request_id, info.state)).lease)
    }

    pub fn release_call(&mut self, client: &Client, lease: LeaseId) -> Id {
        self.call(client.socket, Call::Release { lease, outcome: None })
    }

    /// The socket went away without a word.
    pub fn drop_socket(&mut self, socket: SocketId) {
        self.machine.input(self.now, Input::Detach { socket, clean: false });
    }

    /// The client closed the socket with 1000.
    pub fn close_socket(&mut self, socket: SocketId) {
        self.machine.input(self.now, Input::Detach { socket, clean: true });
    }

    pub fn command(&mut self, command: Command) -> oneshot::Receiver<Answered> {
        let (answer, told) = oneshot::channel();
        self.machine.input(self.now, Input::Command { command: Box::new(command), answer });
        self.deliver();
        told
    }

    pub fn keyed_call(&mut self, key: &SecretHash, call: KeyedCall) -> oneshot::Receiver<Answered> {
        let (answer, told) = oneshot::channel();
        self.machine.input(self.now, Input::Keyed { at: self.now, key: key.clone(), call, answer, confirmed: false });
        self.deliver();
        told
    }

    pub fn keyed(&mut self, key: &SecretHash, call: KeyedCall) -> Answered {
        let mut told = self.keyed_call(key, call);
        self.go();
        told.try_recv().expect("an answer")
    }

    pub fn revoke(&mut self, lease: LeaseId) {
        let command = Command::Revoke { lease, by: "admin".into(), reason: None, forced: false };
        drop(self.command(command));
    }

    pub fn stop(&mut self) {
        let (done, _) = oneshot::channel();
        self.machine.input(self.now, Input::Stop { done });
        self.deliver();
    }

    // ---- looking ----

    pub fn has_session(&self, client: &Client) -> bool {
        self.machine.broker().state().sessions.contains_key(&SessionId(client.session))
    }

    pub fn is_held(&self, lease: LeaseId) -> bool {
        self.machine.broker().state().leases.contains_key(&lease)
    }

    /// The lease of a session's request, if it has one.
    pub fn lease_of(&self, client: &Client, request: u64) -> Option<LeaseId> {
        let leases = self.machine.broker().state().leases.values();
        let mut own = leases.filter(|lease| lease.session.0 == client.session && lease.request == request);
        own.next().map(|lease| lease.id)
    }

    pub fn lab_now(&self) -> LabTime {
        self.machine.lab_now(self.now)
    }

    /// Everything told unasked on this socket, by name.
    pub fn notices(&self, socket: SocketId) -> Vec<&'static str> {
        let told = self.told.get(&socket).into_iter().flatten();
        told.filter_map(|outgoing| match outgoing {
            Outgoing::Notice(notice) => Some(match notice {
                Notice::Granted(_) => "granted",
                Notice::Ending(_) => "ending",
                Notice::Ended(_) => "ended",
                Notice::Extended(_) => "extended",
                Notice::Offline(_) => "offline",
                Notice::Online(_) => "online",
                Notice::Superseded(_) => "superseded",
                Notice::Waiting(_) => "waiting",
                Notice::ClaimEnded(_) => "claim ended",
                Notice::RenewNow => "renew now",
                Notice::Store(told) if told.working => "store works",
                Notice::Store(_) => "store fails",
            }),
            Outgoing::Close { reason: CloseReason::SessionEnded, .. } => Some("close: session ended"),
            Outgoing::Close { reason: CloseReason::Superseded, .. } => Some("close: superseded"),
            Outgoing::Close { .. } => Some("close"),
            Outgoing::Answer { .. } | Outgoing::PingEvery { .. } => None,
        })
        .collect()
    }
}
