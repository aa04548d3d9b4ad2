//! What the broker says: answers to the session's own requests, and notifications.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::promise::{self, Promise};
use super::{Machine, Output, Pending, Phase, Session, TTL_MS_MIN};
use crate::client::error::is_passing;
use crate::client::event::Event;
use crate::clock::BootTime;
use crate::protocol::call::{SessionClose, SessionOpened, SessionRenewed, StoreNotice, method, notice};
use crate::protocol::error::{RpcError, code};
use crate::protocol::rpc::{Id, Incoming, Response};

impl Machine {
    pub(super) fn received(&mut self, now: BootTime, text: &str) {
        if !matches!(self.phase, Phase::Opening { .. } | Phase::Up { .. }) {
            return;
        }
        let read = serde_json::from_str::<Incoming<'_>>(text).map_err(|error| error.to_string());
        let done = read.and_then(|incoming| match &incoming.method {
            Some(method) => self.notified(now, method, &incoming),
            None => self.answered(now, &incoming),
        });
        if let Err(why) = done {
            self.drop_socket(now, format!("the broker sent what makes no sense: {why}"));
        }
    }

    pub(super) fn answered(&mut self, now: BootTime, incoming: &Incoming<'_>) -> Result<(), String> {
        let Some(Id::Number(id)) = incoming.id else {
            // An error without an id is about a message that could not be read: a fault of ours.
            return incoming.error.as_ref().map_or(Ok(()), |error| Err(error.message.clone()));
        };
        let Some(pending) = self.pending.remove(&id) else { return Ok(()) };
        if let Some(error) = &incoming.error {
            self.refused(now, pending, error);
            return Ok(());
        }
        match pending {
            Pending::Open { sent } => self.opened(now, sent, read(incoming.result)?),
            Pending::Resume { sent } => self.resumed(now, sent, read(incoming.result)?),
            Pending::Renew { sent } => {
                (self.round, self.slow, self.troubled_since) = (0, 0, None);
                self.renewed(now, sent, &read(incoming.result)?);
                Ok(())
            }
            Pending::Close => {
                self.finish(None);
                Ok(())
            }
            Pending::Ask(key) => self.ask_answered(now, key, incoming.result),
        }
    }

    pub(super) fn refused(&mut self, now: BootTime, pending: Pending, error: &RpcError) {
        let gone = error.data.code == code::SESSION_GONE;
        match pending {
            Pending::Close if gone => self.finish(None),
            _ if gone => self.gone(error.message.clone()),
            Pending::Open { .. } if !is_passing(&error.data.code) => self.finish(Some(error.clone().into())),
            Pending::Open { .. } | Pending::Resume { .. } | Pending::Close => {
                self.drop_socket(now, error.message.clone());
            }
            // It stays unanswered: if none is answered, the socket is given up in time.
            Pending::Renew { .. } => {}
            Pending::Ask(key) => self.ask_refused(now, key, error),
        }
    }

    pub(super) fn opened(&mut self, now: BootTime, sent: BootTime, opened: SessionOpened) -> Result<(), String> {
        let secret = opened.secret.clone().ok_or("an opened session has no secret")?;
        if opened.ttl_ms < TTL_MS_MIN {
            return Err(format!("a session's ttl of {} ms", opened.ttl_ms));
        }
        let newest = Promise { renewal: opened.renewed.renewal, sent, promise_ms: opened.renewed.promise_ms };
        let (id, ttl_ms) = (opened.session, opened.ttl_ms);
        self.session = Some(Session { id, secret, ttl_ms, newest, named: Vec::new() });
        self.up(sent, false);
        self.lab = Some((opened.renewed.now, now));
        Ok(())
    }

    pub(super) fn resumed(&mut self, now: BootTime, sent: BootTime, opened: SessionOpened) -> Result<(), String> {
        let mut renewed = opened.renewed;
        self.up(sent, true);
        // What the state knows to be ending is ending before it is counted.
        for lease in opened.state.claims.iter().filter_map(|claim| claim.lease.as_ref()) {
            if let Some(ending) = &lease.ending {
                renewed.ending.push(lease.lease);
                self.mark_ending(lease.lease, ending.clone());
            }
        }
        self.renewed(now, sent, &renewed);
        if self.closing.is_none() {
            self.reconcile(now, opened.state);
        }
        Ok(())
    }

    /// The session is on this socket. An answered opening counts as a renewal.
    pub(super) fn up(&mut self, sent: BootTime, resumed: bool) {
        let session = self.session.as_ref().map_or(0, |session| session.id);
        let renew_at = sent.plus(promise::renew_every_ms(self.ttl_ms()));
        self.phase = Phase::Up { renew_at, unanswered_since: None };
        self.unreached_since = None;
        self.hopeless = 0;
        self.failures.clear();
        self.tell(Event::Connected { session, url: self.url, resumed });
        if self.closing.is_some() {
            self.request(method::SESSION_CLOSE, SessionClose::default(), Pending::Close);
        }
    }

    pub(super) fn renewed(&mut self, now: BootTime, sent: BootTime, renewed: &SessionRenewed) {
        if let Phase::Up { unanswered_since, .. } = &mut self.phase {
            // A later one may be under way; it gets the full patience from here on.
            let more = self.pending.values().any(|pending| matches!(pending, Pending::Renew { .. }));
            *unanswered_since = more.then_some(now);
        }
        self.lab = Some((renewed.now, now));
        self.count(Promise { renewal: renewed.renewal, sent, promise_ms: renewed.promise_ms }, &renewed.ending);
    }

    pub(super) fn notified(&mut self, now: BootTime, method: &str, incoming: &Incoming<'_>) -> Result<(), String> {
        if let Some(id) = &incoming.id {
            let error = RpcError::new(code::UNKNOWN_METHOD, format!("this client does not know {method:?}"));
            let answer = Response::<()> { jsonrpc: "2.0", id: Some(id), result: None, error: Some(&error) };
            self.outputs.push_back(Output::Send(serde_json::to_string(&answer).map_err(|error| error.to_string())?));
            return Ok(());
        }
        match method {
            notice::LEASE_GRANTED | notice::CLAIM_WAITING | notice::CLAIM_ENDED => {
                self.claim_seen(now, read(incoming.params)?);
            }
            notice::LEASE_ENDING => self.lease_ending(read(incoming.params)?),
            notice::LEASE_ENDED => self.lease_ended(&read(incoming.params)?),
            notice::LEASE_EXTENDED => self.lease_extended(read(incoming.params)?),
            notice::LEASE_OFFLINE => self.lease_reached(read(incoming.params)?, true),
            notice::LEASE_ONLINE => self.lease_reached(read(incoming.params)?, false),
            notice::PROVIDER_SUPERSEDED => self.tell(Event::Superseded(read(incoming.params)?)),
            notice::SESSION_RENEW_NOW if self.is_up() => self.renew(now),
            notice::STORE_STATE => {
                let store: StoreNotice = read(incoming.params)?;
                self.tell(Event::StoreState { working: store.working, message: store.message });
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn read<T: DeserializeOwned>(raw: Option<&RawValue>) -> Result<T, String> {
    serde_json::from_str(raw.map_or("null", RawValue::get)).map_err(|error| error.to_string())
}
