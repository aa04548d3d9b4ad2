//! Calls and commands: what each asks of the core and of presence, and what it is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::held::Output;
use super::input::{Answer, Call, ClaimTold, Input, KeyedCall, Notice, Outgoing, SocketId, Told};
use super::machine::{Left, Machine};
use super::query;
use crate::clock::BootTime;
use crate::core::apply::Change;
use crate::core::command::{ClaimReply, Claimant, Command, Reply};
use crate::core::event::Event;
use crate::core::lease::Lease;
use crate::core::refusal::{Code, Refusal};
use crate::core::session::{OpenRequest, RequestEnd, SecretHash, SessionEnd, SessionKind};
use crate::core::types::{LeaseId, SessionId};
use crate::protocol::call::{
    Done, LeaseEndingNotice, LeaseExtended, LeaseReleased, SessionOpened, SessionRenewed, SessionState,
};
use crate::protocol::error::{CloseReason, RpcError, code};
use crate::protocol::info::{ApplyInfo, ChangeInfo, ClaimInfo, EndingInfo};
use crate::protocol::rpc::Id;

/// Pings go out every third of a ttl, at most this far apart, milliseconds.
const PING_MS_MAX: u64 = 20_000;

impl Machine {
    pub(super) fn call(&mut self, socket: SocketId, at: BootTime, id: Option<Id>, call: Call) {
        let Some(known) = self.sockets.get(&socket).filter(|known| !known.over) else { return };
        let session = known.session;
        let result = match (call, session) {
            // Asked again, as when the answer was that the store failed.
            (Call::Resume { session, hash, instance, renewal }, own) if own.is_none_or(|own| own == session) => {
                self.resume(socket, at, session, &hash, &instance, renewal)
            }
            (Call::Open { .. } | Call::Resume { .. }, Some(session)) => Err(RpcError::new(
                code::SESSION_ALREADY_OPEN,
                format!("this socket has session {} already: use another socket for another session", session.0),
            )),
            (Call::Open { instance, owner, ttl, secret, hash }, None) => {
                let kind = SessionKind::Socket { instance };
                let reply = self.decide(Command::OpenSession { owner, ttl, secret: hash, kind });
                self.opened(socket, at, reply, &secret)
            }
            (Call::Close { other: Some((session, hash)) }, None) => self.close_other(session, &hash),
            (Call::Close { other: Some(_) }, Some(_)) => Err(RpcError::new(
                code::SESSION_ALREADY_OPEN,
                "this socket has a session: close another session from a socket of its own",
            )),
            (_, None) => Err(RpcError::new(
                code::NO_SESSION,
                "the socket has no session: the first call must be session.open or session.resume",
            )),
            (Call::Renew { renewal }, Some(session)) if self.is_stopping() => self.renew_in_stop(at, session, renewal),
            (Call::Renew { renewal }, Some(session)) => self.renewed(session, renewal),
            (call, Some(session)) => self.session_call(session, call),
        };
        if let Some(id) = id {
            self.held.hold(Output::Socket(socket, Outgoing::Answer { id, result }));
        }
    }

    fn session_call(&mut self, session: SessionId, call: Call) -> Result<Answer, RpcError> {
        match call {
            Call::Acquire { request, spec } => {
                let reply = self.decide_for(session, Command::Acquire { session, request, spec });
                self.claim_told(reply).map(Answer::Claim)
            }
            Call::Cancel { request } => {
                let reply = self.decide_for(session, Command::Cancel { session, request });
                self.claim_told(reply).map(Answer::Claim)
            }
            Call::Release { lease, outcome } => {
                let claimant = self.claimant(session);
                let reply = self.decide_for(session, Command::Release { lease, claimant, outcome });
                self.released(session, reply).map(Answer::Released)
            }
            Call::Extend { lease, until } => {
                let claimant = self.claimant(session);
                match self.decide_for(session, Command::Extend { lease, claimant, until }) {
                    Reply::Lease(lease) => self.lease_told(lease).map(Answer::Lease),
                    Reply::NotHeld(lease) => Err(self.not_held(session, lease)),
                    other => Err(unexpected(other)),
                }
            }
            Call::List => Ok(Answer::State(Box::new(self.state_of(session).0))),
            Call::Provide { provider, declared, confirmed } => {
                match self.decide_for(session, Command::Provide { session, provider, declared, confirmed }) {
                    Reply::Applied { changes, unchanged, applied } => {
                        Ok(Answer::Applied(Box::new(self.apply_info(changes, unchanged, applied))))
                    }
                    other => Err(unexpected(other)),
                }
            }
            Call::Close { .. } => {
                self.left_now.push(Left::Closed(session));
                self.decide_for(session, Command::EndSession { session, end: SessionEnd::Closed });
                Ok(Answer::Done(self.done()))
            }
            Call::Open { .. } | Call::Resume { .. } | Call::Renew { .. } => {
                Err(RpcError::new(code::INVALID_REQUEST, "this call does not belong here"))
            }
        }
    }

    /// Decides a command and tells everybody concerned but the asker, who gets the reply.
    fn decide(&mut self, command: Command) -> Reply {
        let before = self.broker.events().len();
        let now = self.happening();
        let reply = self.broker.decide(now, command);
        self.tell_events(before, None);
        reply
    }

    /// The same for a call of a session, which learns from the answer what it is answered.
    fn decide_for(&mut self, asker: SessionId, command: Command) -> Reply {
        let before = self.broker.events().len();
        let now = self.happening();
        let reply = self.broker.decide(now, command);
        self.tell_events(before, Some((asker, &reply)));
        reply
    }

    fn opened(&mut self, socket: SocketId, at: BootTime, reply: Reply, secret: &str) -> Result<Answer, RpcError> {
        match reply {
            Reply::Opened { session, ttl_ms } => {
                self.presence.add(session, ttl_ms, at, None);
                self.fresh.insert(session);
                self.bind(socket, session);
                let renewed = self.promise_of(session, ttl_ms);
                let state = SessionState { claims: Vec::new(), now: self.clock.now.0, now_time: self.clock.now_time() };
                let opened =
                    SessionOpened { session: session.0, secret: Some(secret.to_owned()), ttl_ms, renewed, state };
                Ok(Answer::Opened(Box::new(opened), BTreeMap::new()))
            }
            other => Err(unexpected(other)),
        }
    }

    fn resume(
        &mut self,
        socket: SocketId,
        at: BootTime,
        session: SessionId,
        hash: &SecretHash,
        instance: &str,
        renewal: u64,
    ) -> Result<Answer, RpcError> {
        let ttl_ms = self.may_resume(session, hash, instance)?;
        self.presence.heard(session, at);
        self.count_by(session, renewal);
        let before = self.bind(socket, session);
        if let Some(before) = before {
            let text = "the session was resumed on another socket".to_owned();
            self.held.hold(Output::Socket(before, Outgoing::Close { reason: CloseReason::Superseded, text }));
        }
        let renewed = self.promise_of(session, ttl_ms);
        let (state, secrets) = self.state_of(session);
        let opened = SessionOpened { session: session.0, secret: None, ttl_ms, renewed, state };
        Ok(Answer::Opened(Box::new(opened), secrets))
    }

    /// Whether this instance, knowing this secret, may resume the session; answers its ttl.
    pub(super) fn may_resume(&self, session: SessionId, hash: &SecretHash, instance: &str) -> Result<u64, RpcError> {
        let gone = || {
            let message = format!(
                "there is no session {} with this secret (any more): open a new one; its leases and claims have ended",
                session.0
            );
            RpcError::new(code::SESSION_GONE, message)
        };
        let known =
            self.broker.state().sessions.get(&session).filter(|known| known.secret == *hash).ok_or_else(gone)?;
        self.presence.renewable(session).ok_or_else(gone)?;
        if !matches!(&known.kind, SessionKind::Socket { instance: own } if **own == *instance) {
            let message = "the session belongs to another process: another instance may only close it";
            return Err(RpcError::new(Code::WrongInstance.as_str(), message));
        }
        Ok(known.ttl_ms)
    }

    /// Ties a socket to a session. Answers the socket that the session had.
    fn bind(&mut self, socket: SocketId, session: SessionId) -> Option<SocketId> {
        let known = self.sockets.get_mut(&socket)?;
        known.session = Some(session);
        let before = self.presence.attach(session, socket, known.read.clone()).filter(|before| *before != socket);
        if let Some(older) = before.and_then(|before| self.sockets.get_mut(&before)) {
            older.session = None;
            older.over = true;
        }
        self.decide_for(session, Command::SessionUp(session));
        let ttl_ms = self.presence.renewable(session).unwrap_or(PING_MS_MAX);
        let ms = (ttl_ms / 3).min(PING_MS_MAX);
        self.held.hold(Output::Socket(socket, Outgoing::PingEvery { ms }));
        if self.is_stopping() {
            self.held.hold(Output::Socket(socket, Outgoing::Notice(Notice::RenewNow)));
        }
        before
    }

    fn close_other(&mut self, session: SessionId, hash: &SecretHash) -> Result<Answer, RpcError> {
        let known = self.broker.state().sessions.get(&session);
        if known.is_some_and(|known| known.secret == *hash) {
            self.left_now.push(Left::Closed(session));
            self.decide(Command::EndSession { session, end: SessionEnd::Closed });
        } else if known.is_some() {
            let message = format!("that is not the secret of session {}", session.0);
            return Err(RpcError::new(code::SESSION_GONE, message));
        }
        Ok(Answer::Done(self.done()))
    }

    /// A renewal, answered from presence alone.
    pub(super) fn renewed(&mut self, session: SessionId, renewal: u64) -> Result<Answer, RpcError> {
        let gone =
            || RpcError::new(code::SESSION_GONE, "the session has ended: open a new one; its leases have ended too");
        let ttl_ms = self.presence.renewable(session).ok_or_else(gone)?;
        self.count_by(session, renewal);
        Ok(Answer::Renewed(self.promise_of(session, ttl_ms)))
    }

    /// While stopping, a renewal is answered with the longer promise, once that is stored.
    fn renew_in_stop(&mut self, at: BootTime, session: SessionId, renewal: u64) -> Result<Answer, RpcError> {
        let Some(ttl_ms) = self.presence.renewable(session) else { return self.renewed(session, renewal) };
        self.count_by(session, renewal);
        self.unpromised.remove(&session);
        let promise_ms = self.options.restart_grace_ms.max(ttl_ms);
        self.decide(Command::Promise { session, promise_ms: Some(promise_ms) });
        let renewed = self.promise_of(session, promise_ms);
        self.presence.promise(session, at, promise_ms, renewed.renewal);
        self.renewed_in_stop(session);
        Ok(Answer::Renewed(renewed))
    }

    /// A client counts by this answer: a longer promise before it binds no more. The books are told
    /// with the next step, as a renewal is answered between steps too.
    fn count_by(&mut self, session: SessionId, renewal: u64) {
        let first = (self.broker.state().lab.term << 32) + 1;
        if self.presence.counts_by(session, renewal, first) {
            self.unpromised.insert(session);
        }
    }

    fn promise_of(&mut self, session: SessionId, promise_ms: u64) -> SessionRenewed {
        self.renewals += 1;
        let ending = self.presence.endings_of(session).into_iter().map(|lease| lease.0).collect();
        let (now, now_time) = (self.clock.now.0, self.clock.now_time());
        SessionRenewed { renewal: self.renewals, promise_ms, ending, now, now_time }
    }

    fn state_of(&self, session: SessionId) -> (SessionState, BTreeMap<u64, super::input::SecretRefs>) {
        let mut claims = Vec::new();
        let mut secrets = BTreeMap::new();
        let open = self.broker.state().sessions.get(&session).map(|known| &known.requests.open);
        for (request, open) in open.into_iter().flatten() {
            let stands = match open {
                OpenRequest::Claim(claim) => ClaimReply::Queued(*claim),
                OpenRequest::Lease(lease) => ClaimReply::Granted(*lease),
            };
            let told = self.claim_info(*request, &stands);
            secrets.insert(*request, told.secrets);
            claims.push(told.info);
        }
        (SessionState { claims, now: self.clock.now.0, now_time: self.clock.now_time() }, secrets)
    }

    fn claimant(&self, session: SessionId) -> Claimant {
        let name: Arc<str> =
            self.broker.state().sessions.get(&session).map_or_else(|| "".into(), |known| known.owner.name.clone());
        Claimant { session: Some(session), name, ..Claimant::default() }
    }

    fn claim_told(&self, reply: Reply) -> Result<Box<ClaimTold>, RpcError> {
        match reply {
            Reply::Claim { request, stands, .. } => Ok(Box::new(self.claim_info(request, &stands))),
            other => Err(unexpected(other)),
        }
    }

    /// Where a claim stands, in the words of the wire.
    fn claim_info(&self, request: u64, stands: &ClaimReply) -> ClaimTold {
        let state = self.broker.state();
        let mut info = ClaimInfo {
            request_id: request,
            claim: 0,
            state: "ended".to_owned(),
            place: None,
            blocked: None,
            capped: None,
            eta: None,
            in_the_way: Vec::new(),
            lease: None,
            end: None,
            now: self.clock.now.0,
            now_time: self.clock.now_time(),
        };
        let mut secrets = BTreeMap::new();
        match stands {
            ClaimReply::Queued(claim) => {
                if let Some(claim) = state.claims.get(claim) {
                    info = query::queued_info(state, claim, &self.clock);
                }
            }
            ClaimReply::Granted(lease) => {
                if let Some(lease) = state.leases.get(lease) {
                    "granted".clone_into(&mut info.state);
                    info.claim = lease.claim.0;
                    info.lease = Some(query::lease_info(state, lease, &self.clock));
                    secrets = query::secret_refs(state, lease);
                }
            }
            ClaimReply::LeaseEnded { lease, end } => info.end = Some(query::ended_lease_info(*lease, end)),
            ClaimReply::Ended(end) => info.end = Some(query::end_info(end)),
        }
        ClaimTold { info, secrets }
    }

    fn released(&self, session: SessionId, reply: Reply) -> Result<LeaseReleased, RpcError> {
        match reply {
            Reply::Released { lease, end } => Ok(self.lease_released(lease, &end)),
            Reply::NotHeld(lease) => self.ended_before(session, lease).ok_or_else(|| self.not_held(session, lease)),
            other => Err(unexpected(other)),
        }
    }

    fn lease_released(&self, lease: LeaseId, end: &crate::core::lease::LeaseEnd) -> LeaseReleased {
        let (why, message) = query::lease_end_words(end);
        LeaseReleased { lease: lease.0, why, message, now: self.clock.now.0, now_time: self.clock.now_time() }
    }

    /// How a lease of the session ended, as long as the session remembers.
    fn ended_before(&self, session: SessionId, lease: LeaseId) -> Option<LeaseReleased> {
        let known = self.broker.state().sessions.get(&session)?;
        let ended = known.requests.ended.values().rev().find_map(|(_, end)| match end {
            RequestEnd::Lease { lease: ended, end } if *ended == lease => Some(end),
            _ => None,
        });
        ended.map(|end| self.lease_released(lease, end))
    }

    fn not_held(&self, session: SessionId, lease: LeaseId) -> RpcError {
        if self.ended_before(session, lease).is_some() {
            let message = format!("lease {lease} has ended: acquire again");
            return RpcError::new(Code::LeaseEnded.as_str(), message);
        }
        let message =
            format!("there is no lease {lease} that this session holds: `leasehold lease ls` lists those held");
        RpcError::new(Code::NotFound.as_str(), message)
    }

    fn lease_told(&self, lease: LeaseId) -> Result<Box<LeaseExtended>, RpcError> {
        let gone = || RpcError::new(Code::LeaseEnded.as_str(), format!("lease {lease} has ended"));
        self.broker.state().leases.get(&lease).map(|lease| self.extended(lease)).ok_or_else(gone)
    }

    fn extended(&self, lease: &Lease) -> Box<LeaseExtended> {
        let lease = query::lease_info(self.broker.state(), lease, &self.clock);
        Box::new(LeaseExtended { lease, now: self.clock.now.0, now_time: self.clock.now_time() })
    }

    pub(super) fn command(&mut self, command: Command, answer: oneshot::Sender<Result<Told, RpcError>>) {
        let reply = self.decide(command);
        let told = match reply {
            Reply::Done | Reply::Opened { .. } => Ok(self.told_done()),
            Reply::Refused(refusal) => Err(refused(&refusal)),
            Reply::Claim { request, stands, .. } => Ok(Told::Claim(Box::new(self.claim_info(request, &stands)))),
            Reply::Lease(lease) => self.lease_told(lease).map(Told::Lease),
            Reply::Released { lease, end } => Ok(Told::Released(self.lease_released(lease, &end))),
            Reply::NotHeld(lease) => Ok(Told::NotHeld(lease)),
            Reply::Applied { changes, unchanged, applied } => {
                Ok(Told::Applied(self.apply_info(changes, unchanged, applied)))
            }
        };
        self.held.hold(Output::Told(answer, told));
    }

    fn apply_info(&self, changes: Vec<Change>, unchanged: usize, applied: bool) -> ApplyInfo {
        ApplyInfo {
            changes: changes.into_iter().map(change_info).collect(),
            unchanged: unchanged as u64,
            applied,
            now: self.clock.now.0,
            now_time: self.clock.now_time(),
        }
    }

    pub(super) fn keyed(
        &mut self,
        at: BootTime,
        key: SecretHash,
        call: KeyedCall,
        answer: oneshot::Sender<Result<Told, RpcError>>,
        confirmed: bool,
    ) {
        let known = self.broker.state().keys.get(&key).copied();
        if let Some(session) = known.filter(|session| self.presence.renewable(*session).is_some()) {
            self.presence.heard(session, at);
        }
        let again = (self.door.is_some() && !confirmed).then(|| call.clone());
        let told = self.keyed_call(at, &key, call, known);
        let waits = match &told {
            // Its holder counts its time by whatever says that it stands.
            Ok(told) => matches!(told, Told::Claim(_) | Told::Renewed(_) | Told::Lease(_)),
            // It may be known to another that leads: who is told this gives up what it holds. Ends are final.
            Err(refusal) => refusal.data.code == Code::NotFound.as_str(),
        };
        match again {
            // No batch takes the answer along, which would prove as much.
            Some(call) if waits && self.broker.events().is_empty() => {
                self.keyed_waits(Input::Keyed { at, key, call, answer, confirmed });
            }
            _ => self.held.hold(Output::Told(answer, told)),
        }
    }

    fn keyed_call(
        &mut self,
        at: BootTime,
        key: &SecretHash,
        call: KeyedCall,
        known: Option<SessionId>,
    ) -> Result<Told, RpcError> {
        let key = key.clone();
        if let KeyedCall::Acquire { request_id, owner, ttl_ms, spec } = call {
            let reply = self.decide(Command::AcquireKeyed { key, request_id, owner, ttl_ms, spec });
            if let Reply::Claim { session, .. } = &reply
                && !self.presence.knows(*session)
                && self.broker.state().sessions.contains_key(session)
            {
                self.presence.add(*session, ttl_ms, at, None);
            }
            return self.claim_told(reply).map(Told::Claim);
        }
        let Some((_, _, _, stands)) = self.broker.keyed_before(&key) else {
            let message = "no lease is known under this key: acquire one, or it ended more than a day ago";
            return Err(RpcError::new(Code::NotFound.as_str(), message));
        };
        let claimant = Claimant { key: Some(key), name: "its key".into(), ..Claimant::default() };
        match (call, stands) {
            (KeyedCall::Renew, ClaimReply::Granted(_) | ClaimReply::Queued(_)) => {
                let session = known.ok_or_else(super::machine::unavailable)?;
                let gone = || RpcError::new(code::SESSION_GONE, "the lease has expired: acquire again");
                let ttl_ms = self.presence.renewable(session).ok_or_else(gone)?;
                Ok(Told::Renewed(self.promise_of(session, ttl_ms)))
            }
            (KeyedCall::Release { outcome }, ClaimReply::Granted(lease)) => {
                match self.decide(Command::Release { lease, claimant, outcome }) {
                    Reply::Released { lease, end } => Ok(Told::Released(self.lease_released(lease, &end))),
                    other => Err(unexpected(other)),
                }
            }
            (KeyedCall::Release { .. }, ClaimReply::Queued(claim)) => {
                self.decide(Command::CancelClaim { claim, claimant });
                Ok(self.told_done())
            }
            (KeyedCall::Release { .. }, ClaimReply::LeaseEnded { lease, end }) => {
                Ok(Told::Released(self.lease_released(lease, &end)))
            }
            (KeyedCall::Extend { until }, ClaimReply::Granted(lease)) => {
                match self.decide(Command::Extend { lease, claimant, until }) {
                    Reply::Lease(lease) => self.lease_told(lease).map(Told::Lease),
                    other => Err(unexpected(other)),
                }
            }
            (KeyedCall::Renew | KeyedCall::Extend { .. }, ClaimReply::LeaseEnded { lease, end }) => {
                let message = query::ended_lease_info(lease, &end).message;
                Err(RpcError::new(Code::LeaseEnded.as_str(), format!("{message}: acquire again")))
            }
            (KeyedCall::Extend { .. }, ClaimReply::Queued(_)) => {
                Err(RpcError::new(code::INVALID_REQUEST, "the claim waits still: there is no lease to extend"))
            }
            (_, stands) => Ok(Told::Claim(Box::new(self.claim_info(crate::core::KEYED_REQUEST, &stands)))),
        }
    }

    /// Tells holders and waiters what events since `from` mean for them. What an asker learns
    /// from its answer it is not told again.
    pub(super) fn tell_events(&mut self, from: usize, answered: Option<(SessionId, &Reply)>) {
        // Before what is granted by it.
        let mut notices: Vec<(SessionId, Notice)> = self.reach_notices(from);
        for event in &self.broker.events()[from..] {
            if let Event::SessionEnded { session, .. } = event {
                self.presence.give_up(*session);
            }
            if !answered.is_some_and(|(asker, reply)| tells(asker, reply, event)) {
                notices.extend(self.notice_of(event));
            }
        }
        for (session, notice) in notices {
            if let Some(socket) = self.presence.socket(session) {
                self.held.hold(Output::Socket(socket, Outgoing::Notice(notice)));
            }
        }
    }

    fn notice_of(&self, event: &Event) -> Option<(SessionId, Notice)> {
        let state = self.broker.state();
        let (now, now_time) = (self.clock.now.0, self.clock.now_time());
        match event {
            Event::LeaseGranted { lease } => {
                let told = self.claim_info(lease.request, &ClaimReply::Granted(lease.id));
                Some((lease.session, Notice::Granted(Box::new(told))))
            }
            Event::LeaseEnding { lease, ending } => {
                let session = state.leases.get(lease)?.session;
                let (why, message) = query::lease_end_words(&ending.why);
                let since_time = self.clock.time(ending.since);
                let ending = EndingInfo { why, message, since: ending.since.0, since_time };
                Some((session, Notice::Ending(LeaseEndingNotice { lease: lease.0, ending, now, now_time })))
            }
            Event::LeaseEnded { lease, session, end, .. } => {
                Some((*session, Notice::Ended(self.lease_released(*lease, end))))
            }
            Event::ClaimEnded { session, request, end, claim, .. } => {
                let mut told = self.claim_info(*request, &ClaimReply::Ended(end.clone()));
                told.info.claim = claim.0;
                Some((*session, Notice::ClaimEnded(Box::new(told.info))))
            }
            Event::ClaimBlocked { claim, .. } => {
                let claim = state.claims.get(claim)?;
                Some((claim.session, Notice::Waiting(Box::new(query::queued_info(state, claim, &self.clock)))))
            }
            Event::LeaseExtended { lease, .. } => {
                let known = state.leases.get(lease)?;
                Some((known.session, Notice::Extended(self.extended(known))))
            }
            _ => None,
        }
    }

    fn done(&self) -> Done {
        Done { now: self.clock.now.0, now_time: self.clock.now_time() }
    }
}

/// A refusal of the core as it stands on the wire.
#[must_use]
pub fn refused(refusal: &Refusal) -> RpcError {
    let mut error = RpcError::new(refusal.code.as_str(), refusal.message.as_ref());
    error.data.need = refusal.need.as_deref().map(str::to_owned);
    error
}

/// Whether the reply to a call of `asker` tells it what the event would.
fn tells(asker: SessionId, reply: &Reply, event: &Event) -> bool {
    match (event, reply) {
        (Event::LeaseGranted { lease }, Reply::Claim { stands: ClaimReply::Granted(id), .. }) => *id == lease.id,
        (Event::LeaseEnded { lease, .. }, Reply::Released { lease: id, .. }) => id == lease,
        (Event::ClaimEnded { session, request, .. }, Reply::Claim { request: asked, .. }) => {
            asker == *session && asked == request
        }
        (Event::LeaseExtended { lease, .. }, Reply::Lease(id)) => id == lease,
        // Whoever resumes is answered with the whole state.
        (Event::LeaseGranted { lease }, Reply::Done) => asker == lease.session,
        // Whoever closes a session knows that all of it ends.
        (Event::LeaseEnded { session, .. } | Event::ClaimEnded { session, .. }, Reply::Done) => asker == *session,
        _ => false,
    }
}

fn unexpected(reply: Reply) -> RpcError {
    match reply {
        Reply::Refused(refusal) => refused(&refusal),
        Reply::NotHeld(lease) => RpcError::new(Code::NotFound.as_str(), format!("lease {lease} is not held")),
        _ => RpcError::new(code::INVALID_REQUEST, "the broker has no answer to this"),
    }
}

fn change_info(change: Change) -> ChangeInfo {
    let Change { action, what, name, detail, pending } = change;
    ChangeInfo { action: action.to_owned(), what: what.to_owned(), name, detail, pending }
}
