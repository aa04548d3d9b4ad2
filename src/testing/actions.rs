//! What the script orders, done; and the users of leases by HTTP, who have no socket.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::audit::{Broken, Kept, hold};
use super::network::Item;
use super::runner::FOREIGN_IDS;
use super::script::{Action, Admin};
use super::workload;
use super::world::{Ev, World};
use crate::client::machine::Input as ClientInput;
use crate::core::command::{Command, MarkAct};
use crate::core::session::SecretHash;
use crate::core::types::{LeaseId, Owner, SessionId};
use crate::engine::input::{Answer, Input, KeyedCall, Told};
use crate::protocol::call::{ClaimRequest, method};
use crate::protocol::error::RpcError;
use crate::protocol::rpc::Request;
use crate::server::convert;

/// The ttl of a lease without a socket, milliseconds, and what its user keeps back of it.
const KEYED_TTL_MS: u64 = 3_000;
const KEYED_MARGIN_MS: u64 = 100;

/// Names of resources, with slots.
pub(super) type Picks = Vec<(String, u32)>;

/// A user of leases without a socket, whose clock is the broker's.
pub(super) struct KeyedUser {
    nth: u64,
    /// Requests so far, each under a key of its own.
    life: u64,
    need: Option<String>,
    asked: Option<(oneshot::Receiver<Result<Told, RpcError>>, u64)>,
    turn: u64,
    /// The lease, what it has, and until when it is good (true time, microseconds).
    pub held: Option<(u64, Picks, u64)>,
    since: u64,
    leaving: bool,
    session: Option<SessionId>,
}

impl KeyedUser {
    pub(super) const fn new(nth: u64) -> Self {
        Self { nth, life: 0, need: None, asked: None, turn: 0, held: None, since: 0, leaving: false, session: None }
    }
}

/// What a repeated acquire may be answered: another body under a used number never succeeds.
pub(super) fn repeat_answered(id: u64, result: &Result<Answer, RpcError>) -> Kept {
    let other = (id - FOREIGN_IDS) % 2 == 1;
    hold("asking twice is asking once", !other || result.is_err(), || format!("another body was answered {result:?}"))
}

impl World {
    pub(super) fn act(&mut self, action: Action) {
        self.count(action.kind());
        self.look_at_leader();
        let us = |ms: u64| ms * 1_000;
        match action {
            Action::Acquire { client, claim } => self.acquire(client, *claim),
            Action::Release { client } => {
                if let Some(lease) = self.runners[client].held.keys().next().copied() {
                    self.release(client, lease);
                }
            }
            Action::Abandon { client } => {
                let newest = self.runners[client].next_request.saturating_sub(1);
                self.awake(client, ClientInput::Abandon(newest));
            }
            Action::Extend { client, by_ms } => self.extend(client, by_ms),
            Action::Close { client } => self.awake(client, ClientInput::Close { ticket: 1 }),
            Action::Repeat { client, back, other } => self.repeat(client, back, other),
            Action::LateClose { client } => self.late_close(client),
            Action::Provide { client, rig, key, without } => {
                let request = Box::new(workload::rig(rig, key, without));
                if !self.runners[client].machine.is_closed() {
                    self.awake(client, ClientInput::Provide { request, ticket: 3 });
                }
            }
            Action::Keyed { user, need } => self.keyed_claims(user, need),
            Action::Cut { client, client_hears, broker_hears } => self.cut(client, client_hears, broker_hears),
            Action::Partition { client, ms } => self.runners[client].cut_off_until = self.now + us(ms),
            Action::Slow { client, ms } => self.runners[client].slow_until = self.now + us(ms),
            Action::FreezeClient { client, ms } => self.runners[client].frozen_until = self.now + us(ms),
            Action::FreezeBroker { ms } => self.pause(ms, false),
            Action::Pause { nth, ms, whole } => {
                self.look_at_nth(nth);
                self.pause(ms, whole);
            }
            Action::PauseLooking { ms } => self.pause_looking = Some(ms),
            Action::CutOff { nth, ms } => {
                self.look_at_nth(nth);
                self.here.cut_off_until = self.now + us(ms);
            }
            Action::KillNth { nth, away_ms } => {
                self.look_at_nth(nth);
                self.die(away_ms, true);
            }
            Action::HandOver => self.hand_over(),
            Action::Kill { point, away_ms, heard } => self.kill(point, away_ms, heard),
            Action::Stop { away_ms } => self.begin_stop(away_ms),
            Action::WallJump { ms } => self.wall_offset_ms += ms,
            Action::CommitFails { committed, reopens } => self.fails = Some((committed, reopens)),
            Action::Stall { ms } => self.stalled_until = self.now + us(ms),
            Action::Admin(admin) => self.admin(admin),
        }
    }

    fn awake(&mut self, client: usize, input: ClientInput<'_>) {
        if self.runners[client].frozen_until <= self.now {
            self.client_input(client, input);
        }
    }

    fn extend(&mut self, client: usize, by_ms: u64) {
        let Some(lease) = self.runners[client].held.keys().next().copied() else { return };
        let until = self.store.lab_now().0 + by_ms;
        self.awake(client, ClientInput::Extend { lease, until, ticket: 2 });
    }

    /// An acquire that the broker knows already comes again, as from a socket that was slow.
    fn repeat(&mut self, client: usize, back: u64, other: bool) {
        let runner = &self.runners[client];
        let Some(session) = runner.machine.session().map(|(session, ..)| SessionId(session)) else { return };
        let Some(socket) = runner.socket.filter(|_| runner.machine.is_up()) else { return };
        let Some(request) = runner.next_request.checked_sub(1 + back) else { return };
        let Some(mut claim) = runner.asked.get(&request).cloned() else { return };
        if !self.auditor.knows_body(session, request) {
            return;
        }
        if other {
            claim.note = Some("another body".to_owned());
        }
        self.foreign += 2;
        let id = FOREIGN_IDS + self.foreign + u64::from(other);
        let request = Request { jsonrpc: "2.0", id, method: method::LEASE_ACQUIRE, params: claim };
        if let Ok(text) = serde_json::to_string(&request) {
            self.send_to_broker(socket, Item::Text(text));
        }
    }

    /// An older connection of the client's, which the broker thinks is there, is closed cleanly.
    fn late_close(&mut self, client: usize) {
        let Some(process) = &self.here.process else { return };
        let current = self.runners[client].socket;
        let mut older = process.sockets.keys().copied().filter(|socket| Some(*socket) != current);
        let older = older.find(|socket| self.links.get(socket).is_some_and(|link| link.client == client));
        if let Some(socket) = older
            && self.auditor.bound.values().all(|bound| *bound != socket)
        {
            self.read_by_broker(socket, Item::Closed { code: Some(1000), clean: true });
        }
    }

    // ---- admins ----

    fn admin(&mut self, admin: Admin) {
        let by: Arc<str> = "root".into();
        let command = match admin {
            Admin::Revoke { nth, forced } => {
                let leases: Vec<LeaseId> = self.auditor.leases.keys().copied().collect();
                let Some(lease) = leases.get(nth % leases.len().max(1)).copied() else { return };
                Command::Revoke { lease, by, reason: None, forced }
            }
            Admin::Kick { nth } => {
                let sessions: Vec<SessionId> = self.auditor.sessions.keys().copied().collect();
                let Some(session) = sessions.get(nth % sessions.len().max(1)).copied() else { return };
                Command::Kick { session, by }
            }
            Admin::Mark { nth, act } => {
                let acts = [MarkAct::Drain, MarkAct::Undrain, MarkAct::Quarantine, MarkAct::Restore];
                let act = acts[usize::from(act) % acts.len()];
                Command::Mark { resource: workload::nth_name(nth), act, reason: "so".into(), by }
            }
            Admin::Apply { without } => return self.inventory(without),
        };
        self.command(command);
    }

    fn command(&mut self, command: Command) {
        let (answer, _) = oneshot::channel();
        self.broker_input(Input::Command { command: Box::new(command), answer });
    }

    pub(super) fn inventory(&mut self, without: u32) {
        let declared = workload::declared(without);
        self.command(Command::Apply { declared, prune: true, confirmed: true, dry_run: false });
    }

    /// Everything is as it was in the beginning. Said until a broker hears it.
    pub(super) fn restore(&mut self) {
        self.look_at_leader();
        if self
            .here
            .process
            .as_ref()
            .is_none_or(|process| process.stop.is_some() || process.machine.failure().is_some())
        {
            self.after(500_000, Ev::Calm);
            return;
        }
        self.inventory(0);
        for nth in 0..workload::resources() {
            for act in [MarkAct::Undrain, MarkAct::Restore] {
                let (reason, by) = ("calm".into(), "root".into());
                self.command(Command::Mark { resource: workload::nth_name(nth), act, reason, by });
            }
        }
    }

    // ---- leases without a socket ----

    fn keyed_claims(&mut self, user: u64, need: String) {
        let nth = usize::try_from(user).unwrap_or(0) % self.keyed.len();
        let user = &mut self.keyed[nth];
        if user.need.is_none() {
            user.life += 1;
            user.need = Some(need);
            self.keyed_asks(nth, true);
        }
    }

    /// Asks again for what is wanted, which is a sign of life too; or gives it back.
    fn keyed_asks(&mut self, nth: usize, wanted: bool) {
        let user = &mut self.keyed[nth];
        let Some(need) = user.need.clone() else { return };
        let owner = Owner { name: format!("http{}@sim", user.nth).into(), verified: false };
        let request = ClaimRequest { needs: vec![need], ..ClaimRequest::default() };
        let Ok(spec) = convert::claim_spec(&request) else { return };
        let request_id: Arc<str> = format!("r{}", user.life).into();
        let key = SecretHash(format!("key-{}-{}", user.nth, user.life).into());
        let call = match &user.held {
            _ if !wanted || user.leaving => KeyedCall::Release { outcome: None },
            None => KeyedCall::Acquire { request_id, owner, ttl_ms: KEYED_TTL_MS, spec: Arc::new(spec) },
            Some(_) => KeyedCall::Renew,
        };
        if matches!(call, KeyedCall::Release { .. }) {
            // Its use has ended before it is given back.
            (user.held, user.leaving) = (None, true);
        }
        let (answer, told) = oneshot::channel();
        user.asked = Some((told, self.now));
        let session = user.session;
        self.look_at_somebody();
        let (at, counted) = (self.boot_here(), self.boot());
        self.broker_input(Input::Keyed { at, key, call, answer, confirmed: false });
        if let Some(session) = session.filter(|_| self.here.process.is_some() && self.leads()) {
            self.auditor.heard(counted.0, session);
        }
        self.keyed_wakes(nth, 700);
    }

    fn keyed_wakes(&mut self, nth: usize, ms: u64) {
        self.keyed[nth].turn += 1;
        let turn = self.keyed[nth].turn;
        self.after(ms * 1_000, Ev::Keyed(nth, turn));
    }

    pub(super) fn keyed_turn(&mut self, nth: usize, turn: u64) {
        let now = self.now;
        let user = &mut self.keyed[nth];
        if user.turn != turn || user.need.is_none() {
            return;
        }
        if user.held.as_ref().is_some_and(|(.., until)| *until <= now) {
            // Lost: its user has stopped in time, and takes a new key for what it wants next.
            self.keyed_is_over(nth);
            return;
        }
        let most = if self.calm { 300_000 } else { 4_000_000 };
        let wanted = self.keyed[nth].held.is_none() || now < self.keyed[nth].since + most;
        self.keyed_asks(nth, wanted && !self.over);
    }

    fn keyed_is_over(&mut self, nth: usize) {
        let user = &mut self.keyed[nth];
        (user.need, user.held, user.asked, user.session, user.leaving) = (None, None, None, None, false);
    }

    /// Looks for answers that have come.
    pub(super) fn keyed_answers(&mut self) {
        for nth in 0..self.keyed.len() {
            let Some((told, sent)) = &mut self.keyed[nth].asked else { continue };
            let sent = *sent;
            let Ok(told) = told.try_recv() else { continue };
            self.keyed[nth].asked = None;
            let kept = self.keyed_answered(nth, sent, told);
            self.judge(kept);
        }
    }

    fn keyed_answered(&mut self, nth: usize, sent: u64, told: Result<Told, RpcError>) -> Kept {
        let until = sent + (KEYED_TTL_MS - KEYED_MARGIN_MS) * 1_000;
        if matches!(told, Ok(Told::Claim(_) | Told::Renewed(_))) {
            self.gave_time(Some(sent))?;
        }
        let leads = self.leads();
        match told {
            Ok(Told::Claim(told)) => {
                self.auditor.claim_told(None, &told.info)?;
                let session = self.auditor.session_of(told.info.claim, told.info.lease.as_ref().map(|it| it.lease));
                self.keyed[nth].session = session;
                if told.info.state == "ended" {
                    self.keyed_is_over(nth);
                } else if let Some(lease) = &told.info.lease
                    && !self.keyed[nth].leaving
                    && lease.ending.is_none()
                    && until > self.now
                {
                    let picks = lease.resources.values().flatten();
                    let picks = picks.map(|pick| (pick.name.clone(), pick.slots)).collect();
                    self.keyed[nth].held = Some((lease.lease, picks, until));
                    self.keyed[nth].since = self.now;
                    self.count("keyed-granted");
                    return self.nobody_else_uses_keyed(nth);
                }
            }
            Ok(Told::Renewed(renewed)) => {
                let user = &mut self.keyed[nth];
                if let Some((lease, _, good)) = &mut user.held
                    && *good > self.now
                    && !renewed.ending.contains(lease)
                {
                    *good = until;
                }
                if let Some(session) = user.session.filter(|_| leads) {
                    self.auditor.renewal_told(session, &renewed)?;
                }
            }
            Ok(_) => self.keyed_is_over(nth),
            // Not done, or not any more: what is held is held until its time is over.
            Err(error) => {
                if matches!(error.data.code.as_str(), "session_gone" | "lease_ended" | "not_found") {
                    self.keyed_is_over(nth);
                }
            }
        }
        Ok(())
    }

    fn nobody_else_uses_keyed(&self, nth: usize) -> Kept {
        let Some((lease, picks, _)) = &self.keyed[nth].held else { return Ok(()) };
        for (name, _) in picks {
            self.fits_in(name, *lease)?;
        }
        Ok(())
    }

    /// Whether those who believe that they use it are no more than its slots.
    pub(super) fn fits_in(&self, name: &str, lease: u64) -> Kept {
        let thing = self.auditor.things.values().find(|thing| thing.spec.name.as_str() == name);
        // Waived where a drop frees at once.
        let Some(thing) = thing.filter(|_| !name.starts_with("quick")) else { return Ok(()) };
        let users = self.users(name);
        let used: u32 = users.iter().map(|(_, _, slots)| slots).sum();
        if used <= thing.spec.slots {
            return Ok(());
        }
        let how = format!("{name}, of which lease {lease} was just told, is used by (client, lease, slots) {users:?}");
        Err(Broken { promise: "exclusive in the world", how })
    }

    /// What those without a socket believe that they use.
    pub(super) fn keyed_users(&self, name: &str) -> Vec<(usize, u64, u32)> {
        let holding = self.keyed.iter().enumerate().filter_map(|(nth, user)| Some((nth, user.held.as_ref()?)));
        let good = holding.filter(|(_, (lease, _, until))| *until > self.now && !self.auditor.waived(LeaseId(*lease)));
        let slots = |picks: &[(String, u32)]| picks.iter().filter(|(of, _)| of == name).map(|(_, slots)| slots).sum();
        good.map(|(nth, (lease, picks, _))| (100 + nth, *lease, slots(picks)))
            .filter(|(.., slots)| *slots > 0)
            .collect()
    }
}
