//! What is asked of the broker until it is answered: acquires, cancels, releases, extensions.
//!
//! Each is safe to repeat, so after a resume everything unanswered is simply asked again: leases
//! that were lost are released first, then the rest in the order in which it was asked.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::messages::read;
use super::{Machine, Output, Pending, Reply};
use crate::client::error::{ClientError, is_passing};
use crate::clock::BootTime;
use crate::protocol::MESSAGE_BYTES_MAX;
use crate::protocol::call::{LeaseCancel, LeaseExtend, LeaseRelease, LeaseReleased, ProviderProvide, method};
use crate::protocol::error::RpcError;
use crate::protocol::info::{ClaimInfo, LeaseInfo};
use crate::protocol::rpc::Id;

/// The pause before what the broker could not do is asked again; twice as long each time.
const AGAIN_MS: u64 = 250;
const AGAIN_MS_MAX: u64 = 5_000;

/// Something asked, until it is answered.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) kind: AskKind,
    /// Who gets the answer.
    ticket: Option<u64>,
    /// Its request on the current socket.
    pub(super) sent_as: Option<u64>,
    /// Not before this: the broker could not do it at present.
    pub(super) again_at: Option<BootTime>,
    tries: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum AskKind {
    /// The request itself is with the claim.
    Acquire {
        request_id: u64,
    },
    Cancel {
        request_id: u64,
    },
    Release {
        lease: u64,
        outcome: Option<String>,
        lost: bool,
    },
    Extend {
        lease: u64,
        until: u64,
    },
    Provide {
        request: Box<ProviderProvide>,
    },
}

impl Machine {
    pub(super) fn add_ask(&mut self, kind: AskKind, ticket: Option<u64>) {
        self.ask += 1;
        self.asks.insert(self.ask, Ask { kind, ticket, sent_as: None, again_at: None, tries: 0 });
    }

    /// The user releases a lease. One that was lost is being released already.
    pub(super) fn release(&mut self, lease: u64, outcome: Option<String>, ticket: Option<u64>) {
        self.leases.remove(&lease);
        for ask in self.asks.values_mut() {
            match &mut ask.kind {
                AskKind::Release { lease: of, outcome: told, .. } if *of == lease && ask.ticket.is_none() => {
                    if ask.sent_as.is_none() {
                        *told = outcome;
                    }
                    ask.ticket = ticket;
                    return;
                }
                _ => {}
            }
        }
        self.add_ask(AskKind::Release { lease, outcome, lost: false }, ticket);
    }

    /// Releases what the user never got, or has lost, unless that is under way.
    pub(super) fn release_unasked(&mut self, lease: u64, lost: bool) {
        let under_way = |ask: &Ask| matches!(ask.kind, AskKind::Release { lease: of, .. } if of == lease);
        if !self.asks.values().any(under_way) {
            self.add_ask(AskKind::Release { lease, outcome: None, lost }, None);
        }
    }

    /// Sends what is not on its way, while a session is up.
    pub(super) fn send_asks(&mut self, now: BootTime) {
        if !self.is_up() || self.closing.is_some() {
            return;
        }
        let due = |ask: &Ask| ask.sent_as.is_none() && ask.again_at.is_none_or(|at| now >= at);
        let mut keys: Vec<u64> = self.asks.iter().filter(|(_, ask)| due(ask)).map(|(key, _)| *key).collect();
        // A stable sort: what was lost first, the rest as it was asked.
        keys.sort_by_key(|key| !matches!(self.asks[key].kind, AskKind::Release { lost: true, .. }));
        for key in keys {
            self.send_ask(key);
        }
    }

    fn send_ask(&mut self, key: u64) {
        let Some(ask) = self.asks.get(&key) else { return };
        let pending = Pending::Ask(key);
        let sent_as = match ask.kind.clone() {
            AskKind::Acquire { request_id } => {
                let Some(claim) = self.claims.get_mut(&request_id) else { return };
                claim.ever_sent = true;
                let mut request = claim.request.clone();
                request.request_id = Some(Id::Number(request_id));
                self.request(method::LEASE_ACQUIRE, request, pending)
            }
            AskKind::Cancel { request_id } => self.request(method::LEASE_CANCEL, LeaseCancel { request_id }, pending),
            AskKind::Release { lease, outcome, .. } => {
                self.request(method::LEASE_RELEASE, LeaseRelease { lease, outcome }, pending)
            }
            AskKind::Extend { lease, until } => {
                self.request(method::LEASE_EXTEND, LeaseExtend { lease, until }, pending)
            }
            AskKind::Provide { request } => self.request(method::PROVIDER_PROVIDE, request, pending),
        };
        let bytes = match self.outputs.back() {
            Some(Output::Send(text)) => text.len(),
            _ => 0,
        };
        if bytes > MESSAGE_BYTES_MAX {
            // The broker would close the socket on it, again and again.
            self.outputs.pop_back();
            self.pending.remove(&sent_as);
            let message = format!("the request has {bytes} bytes, at most {MESSAGE_BYTES_MAX} are taken: shorten it");
            self.ask_failed(key, &ClientError::refused("message_too_long", message));
        } else if let Some(ask) = self.asks.get_mut(&key) {
            ask.sent_as = Some(sent_as);
            ask.again_at = None;
        }
    }

    pub(super) fn ask_answered(&mut self, now: BootTime, key: u64, result: Option<&RawValue>) -> Result<(), String> {
        // Read before it is taken off, so that an answer that makes no sense leaves it asked.
        let Some(ask) = self.asks.get(&key) else { return Ok(()) };
        match ask.kind {
            AskKind::Acquire { .. } | AskKind::Cancel { .. } => {
                let info: ClaimInfo = read(result)?;
                self.asks.remove(&key);
                self.claim_seen(now, info);
            }
            AskKind::Release { .. } => {
                let released: LeaseReleased = read(result)?;
                self.answer(key, Ok(Reply::Released(released)));
            }
            AskKind::Extend { lease, .. } => {
                let info: Arc<LeaseInfo> = Arc::new(read(result)?);
                if let Some(held) = self.leases.get_mut(&lease) {
                    held.info = Arc::clone(&info);
                }
                self.answer(key, Ok(Reply::Extended(info)));
            }
            AskKind::Provide { .. } => {
                let applied = read(result)?;
                self.answer(key, Ok(Reply::Provided(applied)));
            }
        }
        Ok(())
    }

    pub(super) fn ask_refused(&mut self, now: BootTime, key: u64, error: &RpcError) {
        let Some(ask) = self.asks.get_mut(&key) else { return };
        if is_passing(&error.data.code) {
            ask.sent_as = None;
            ask.again_at = Some(now.plus((AGAIN_MS << ask.tries.min(8)).min(AGAIN_MS_MAX)));
            ask.tries += 1;
            return;
        }
        self.ask_failed(key, &error.clone().into());
    }

    /// It will not be asked again: the user is told.
    fn ask_failed(&mut self, key: u64, error: &ClientError) {
        match self.asks.get(&key).map(|ask| ask.kind.clone()) {
            Some(AskKind::Acquire { request_id } | AskKind::Cancel { request_id }) => {
                self.asks.remove(&key);
                self.end_claim(request_id, error.clone());
            }
            Some(_) => self.answer(key, Err(error.clone())),
            None => {}
        }
    }

    fn answer(&mut self, key: u64, reply: Result<Reply, ClientError>) {
        if let Some(ticket) = self.asks.remove(&key).and_then(|ask| ask.ticket) {
            self.outputs.push_back(Output::Answer(ticket, reply));
        }
    }

    /// Nothing is asked any more.
    pub(super) fn end_asks(&mut self, error: &ClientError) {
        for ask in std::mem::take(&mut self.asks).into_values() {
            if let Some(ticket) = ask.ticket {
                self.outputs.push_back(Output::Answer(ticket, Err(error.clone())));
            }
        }
    }
}
