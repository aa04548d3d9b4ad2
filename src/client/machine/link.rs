//! Connecting: URLs in turn, pauses between rounds, and sockets that drop.
//!
//! A drop begins with the URL that was up last, as it knows the way to the leader best; silence
//! begins with the one after it. Whatever happens to a socket, claims and leases stay as they are;
//! only time ends them.

use super::promise;
use super::{BACKOFF_MS, CLOSE_SILENT_MS, Machine, OPEN_PATIENCE_MS, Output, Pending, Phase};
use crate::client::error::{ClientError, told_together};
use crate::client::event::Event;
use crate::clock::BootTime;
use crate::protocol::call::{SessionClose, SessionResume, method};
use crate::protocol::error::CloseReason;

impl Machine {
    pub(super) fn connected(&mut self, now: BootTime) {
        let Phase::Connecting { since, .. } = self.phase else { return };
        self.took_ms = now.since(since);
        self.slow = 0;
        let patience = if self.session.is_some() { promise::resume_ms(self.ttl_ms()) } else { OPEN_PATIENCE_MS };
        self.phase = Phase::Opening { give_up_at: now.plus(patience) };
        match &self.session {
            None => {
                let open = self.config.open.clone();
                self.request(method::SESSION_OPEN, open, Pending::Open { sent: now });
            }
            Some(session) if self.closing.is_some() => {
                let close = SessionClose { session: Some(session.id), secret: Some(session.secret.clone()) };
                self.request(method::SESSION_CLOSE, close, Pending::Close);
                if let Some(closing) = self.closing.as_mut().filter(|_| self.config.urls.len() > 1) {
                    closing.leave_at = Some(now.plus(CLOSE_SILENT_MS));
                }
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
            ClientError::NotABroker(_) | ClientError::Misdirected(_) => {
                self.hopeless += 1;
                self.hopeless >= self.config.urls.len()
            }
            ClientError::Config(_) => true,
            _ => false,
        };
        if hopeless && self.session.is_none() {
            self.finish(Some(error));
            return;
        }
        self.attempt_failed(now, error.why());
    }

    /// How long the next attempt may take: long enough for what the last good one took.
    pub(super) fn attempt_ms(&self) -> u64 {
        let first_ms = promise::attempt_ms_first(self.config.urls.len()).max(3 * self.took_ms);
        let slow_rounds = self.slow / u32::try_from(self.config.urls.len().max(1)).unwrap_or(u32::MAX);
        promise::attempt_ms(self.ttl_ms(), first_ms, slow_rounds)
    }

    /// An attempt came to nothing: on to the next URL, after a pause when all were tried.
    pub(super) fn attempt_failed(&mut self, now: BootTime, why: String) {
        self.tell(Event::ConnectFailed { url: self.url, why: why.clone() });
        self.troubled_since.get_or_insert(now);
        self.failures.push(why);
        self.last_failure = told_together(&self.failures);
        if self.closing.is_some() && self.session.is_none() {
            self.finish(None);
            return;
        }
        self.next_url();
        let mut until = now;
        if self.failures.len() >= self.config.urls.len() {
            self.tell(Event::NoBroker { why: self.last_failure.clone() });
            until = now.plus(self.pause_ms(now));
        }
        self.phase = Phase::Waiting { until };
    }

    fn next_url(&mut self) {
        self.url = (self.url + 1) % self.config.urls.len().max(1);
    }

    /// The pause after a round of tries that failed; twice the one before, up to a bound.
    fn pause_ms(&mut self, now: BootTime) -> u64 {
        self.hopeless = 0;
        self.failures.clear();
        let trouble_ms = self.troubled_since.map_or(0, |since| now.since(since));
        let whole = (BACKOFF_MS << self.round.min(16)).min(promise::pause_ms_max(self.ttl_ms(), trouble_ms));
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

    /// Nothing is heard on the socket: whoever is behind it may stand still, so another is tried first.
    pub(super) fn silent(&mut self, now: BootTime, why: String) {
        if self.is_up() {
            self.next_url();
        }
        self.drop_socket(now, why);
    }

    pub(super) fn drop_socket(&mut self, now: BootTime, why: String) {
        self.outputs.push_back(Output::Drop);
        self.disconnected(now, why);
    }

    /// The socket is no more: what is unanswered is asked again on the next.
    pub(super) fn disconnected(&mut self, now: BootTime, why: String) {
        self.pending.clear();
        if let Some(closing) = &mut self.closing {
            closing.leave_at = None;
        }
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
        // The first try comes soon, spread a little as others were dropped by the same broker; the next
        // one does not, unless the broker has answered a renewal in between.
        let is_first = self.troubled_since.is_none();
        self.troubled_since.get_or_insert(now);
        let pause = if is_first { (self.config.jitter)(BACKOFF_MS) } else { self.pause_ms(now) };
        self.phase = Phase::Waiting { until: now.plus(pause) };
    }
}
