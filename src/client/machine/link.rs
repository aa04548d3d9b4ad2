//! Connecting: URLs in turn, pauses between rounds, and sockets that drop.
//!
//! Whatever happens to a socket, claims and leases stay as they are; only time ends them.

use super::promise;
use super::{BACKOFF_MS, Machine, OPEN_PATIENCE_MS, Output, Pending, Phase};
use crate::client::error::ClientError;
use crate::client::event::Event;
use crate::clock::BootTime;
use crate::protocol::call::{SessionClose, SessionResume, method};
use crate::protocol::error::CloseReason;

impl Machine {
    pub(super) fn connected(&mut self, now: BootTime) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        let patience = if self.session.is_some() { promise::attempt_ms(self.ttl_ms()) } else { OPEN_PATIENCE_MS };
        self.phase = Phase::Opening { give_up_at: now.plus(patience) };
        match &self.session {
            None => {
                let open = self.config.open.clone();
                self.request(method::SESSION_OPEN, open, Pending::Open { sent: now });
            }
            Some(session) if self.closing.is_some() => {
                let close = SessionClose { session: Some(session.id), secret: Some(session.secret.clone()) };
                self.request(method::SESSION_CLOSE, close, Pending::Close);
            }
            Some(session) => {
                let resume = SessionResume {
                    session: session.id,
                    secret: session.secret.clone(),
                    instance: self.config.open.instance.clone(),
                    renewal: self.counted(),
                };
                self.request(method::SESSION_RESUME, resume, Pending::Resume { sent: now });
            }
        }
    }

    pub(super) fn connect_failed(&mut self, now: BootTime, error: ClientError) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        // Once a session is open somebody in between may answer for a broker that restarts.
        let hopeless = match &error {
            ClientError::NotABroker(_) => {
                self.hopeless += 1;
                self.hopeless >= self.config.urls
            }
            ClientError::Config(_) => true,
            _ => false,
        };
        if hopeless && self.session.is_none() {
            self.finish(Some(error));
            return;
        }
        let why = match error {
            ClientError::NoBroker(why) | ClientError::NotABroker(why) => why,
            other => other.to_string(),
        };
        self.attempt_failed(now, why);
    }

    /// An attempt came to nothing: on to the next URL, after a pause when all were tried.
    pub(super) fn attempt_failed(&mut self, now: BootTime, why: String) {
        self.tell(Event::ConnectFailed { url: self.url, why: why.clone() });
        self.last_failure = why;
        if self.closing.is_some() && self.session.is_none() {
            self.finish(None);
            return;
        }
        self.failed += 1;
        self.url = (self.url + 1) % self.config.urls.max(1);
        let mut until = now;
        if self.failed >= self.config.urls {
            until = now.plus(self.pause_ms());
        }
        self.phase = Phase::Waiting { until };
    }

    /// The pause after a round of tries that failed; twice the one before, up to a bound.
    pub(super) fn pause_ms(&mut self) -> u64 {
        (self.failed, self.hopeless) = (0, 0);
        let whole = (BACKOFF_MS << self.round.min(16)).min(promise::backoff_ms_max(self.ttl_ms()));
        self.round = self.round.saturating_add(1);
        whole / 2 + (self.config.jitter)(whole / 2 + 1)
    }

    pub(super) fn dropped(&mut self, now: BootTime, code: Option<u16>, why: String) {
        if !matches!(self.phase, Phase::Opening { .. } | Phase::Up { .. }) {
            return;
        }
        if code == Some(CloseReason::SessionEnded.frame().0) && self.session.is_some() {
            self.gone(why);
            return;
        }
        self.disconnected(now, why);
    }

    pub(super) fn drop_socket(&mut self, now: BootTime, why: String) {
        self.outputs.push_back(Output::Drop);
        self.disconnected(now, why);
    }

    /// The socket is no more: what is unanswered is asked again on the next.
    pub(super) fn disconnected(&mut self, now: BootTime, why: String) {
        self.pending.clear();
        for ask in self.asks.values_mut() {
            ask.sent_as = None;
            ask.again_at = None;
        }
        if !self.is_up() {
            self.attempt_failed(now, why);
            return;
        }
        self.unreached_since = Some(now);
        self.last_failure.clone_from(&why);
        self.tell(Event::Disconnected { why });
        // The first try comes soon, spread a little as others were dropped by the same broker.
        let pause = if self.round == 0 { (self.config.jitter)(BACKOFF_MS) } else { self.pause_ms() };
        self.phase = Phase::Waiting { until: now.plus(pause) };
    }
}
