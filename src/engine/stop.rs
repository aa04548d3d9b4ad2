//! The planned stop: no more grants, everybody is asked to renew, and the process may go once those
//! who did have the longer promise in the store, or have had the time to ask for it.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::held::Output;
use super::input::{Notice, Outgoing, SocketId};
use super::machine::Machine;
use crate::clock::BootTime;
use crate::core::types::SessionId;

/// How long a planned stop waits for sessions to renew, milliseconds.
const STOP_WAIT_MS: u64 = 5_000;

/// The planned stop, under way.
pub(super) struct Stop {
    since: BootTime,
    done: Vec<oneshot::Sender<()>>,
    renewed: BTreeSet<SessionId>,
    /// It was waited for: sockets are closed under their sessions now.
    pub(super) over: bool,
}

impl Machine {
    pub(super) fn begin_stop(&mut self, at: BootTime, done: oneshot::Sender<()>) {
        if let Some(stop) = &mut self.stop {
            stop.done.push(done); // Asked twice: both are told.
            return;
        }
        self.broker.stop_granting();
        self.stop = Some(Stop { since: at, done: vec![done], renewed: BTreeSet::new(), over: false });
        let sockets: Vec<SocketId> =
            self.sockets.iter().filter(|(_, socket)| socket.session.is_some()).map(|(id, _)| *id).collect();
        for socket in sockets {
            self.held.tell_now(Output::Socket(socket, Outgoing::Notice(Notice::RenewNow)));
        }
        self.check_stop(at);
    }

    pub(super) fn renewed_in_stop(&mut self, session: SessionId) {
        if let Some(stop) = &mut self.stop {
            stop.renewed.insert(session);
        }
    }

    /// The stop may proceed when everybody who is there has renewed and that is durable, or has
    /// had the time to.
    pub(super) fn check_stop(&mut self, at: BootTime) {
        let stored = !self.in_flight && self.gathered.is_empty() && self.broker.events().is_empty();
        let Some(stop) = &mut self.stop else { return };
        let mut waiting = self.sockets.values().filter_map(|socket| socket.session);
        let all = stored && waiting.all(|session| stop.renewed.contains(&session));
        if all || at.since(stop.since) >= STOP_WAIT_MS {
            stop.over = true;
            for done in stop.done.drain(..) {
                self.held.tell_now(Output::Stopped(done));
            }
        }
    }
}
