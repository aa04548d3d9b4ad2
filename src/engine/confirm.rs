//! The door of a broker that shares its store: calls whose answer gives time wait at it until it was
//! found, after they had come in, that this process leads.
//!
//! A leader that was paused with its whole machine does not know how long: it may wake with a renewal
//! before it that it would have answered, while another leads and has given that session's ttl its
//! end. So what a client counts its time by is answered only after the store was looked at in a read
//! begun after the call had come in ([`Reader::confirm`](crate::store::Reader::confirm)), or after a
//! batch begun since was committed, which proves the same. One look is for all that wait.
//!
//! A call that is let in goes the way it would have gone without a door: what it is answered is what
//! stands then, and not what stood when it came. Where the store is this process's alone nothing waits.

use std::collections::{BTreeMap, VecDeque};

use super::input::{Call, Input, SocketId};
use super::machine::Machine;
use crate::clock::BootTime;
use crate::protocol::error::{RpcError, code};

/// How often the store is looked at most, milliseconds.
const LOOK_EVERY_MS: u64 = 100;
/// Calls of one socket that wait at the door. One more is answered `overloaded`: it was not done, and
/// may be repeated. Sockets are bounded by the server, and so is what waits of keys, one a request.
const WAITING_PER_SOCKET_MAX: usize = 16;

/// Something at the door.
struct Waiting {
    number: u64,
    /// Whether its answer gives time; else it only keeps its place behind a call that does.
    gives_time: bool,
    input: Input,
}

/// What of one socket is at the door.
#[derive(Default)]
struct Theirs {
    all: usize,
    /// Calls that decide whose socket this is: what came after them goes in after them.
    resumes: usize,
}

/// The door.
#[derive(Default)]
pub(super) struct Door {
    waiting: VecDeque<Waiting>,
    theirs: BTreeMap<SocketId, Theirs>,
    behind: usize,
    /// The number of the newest that came.
    newest: u64,
    /// The newest that had come when the look, and the batch, under way were begun.
    look: Option<u64>,
    batch: u64,
    looked: Option<BootTime>,
}

impl Door {
    /// Whether a call on this socket is to wait.
    fn stops_call(&self, socket: SocketId, call: &Call) -> bool {
        gives_time(call) || self.stops_socket(socket)
    }

    /// Whether what happens on this socket is to wait for a call that came before.
    fn stops_socket(&self, socket: SocketId) -> bool {
        self.theirs.get(&socket).is_some_and(|theirs| theirs.resumes > 0)
    }

    fn is_full(&self, socket: SocketId) -> bool {
        self.theirs.get(&socket).is_some_and(|theirs| theirs.all >= WAITING_PER_SOCKET_MAX)
    }

    fn push(&mut self, input: Input) {
        self.newest += 1;
        let gives_time = match &input {
            Input::Call { call, .. } => gives_time(call),
            Input::Keyed { .. } => true,
            _ => false,
        };
        self.behind += usize::from(!gives_time);
        if let Some(socket) = socket_of(&input) {
            let theirs = self.theirs.entry(socket).or_default();
            theirs.all += 1;
            theirs.resumes += usize::from(is_resume(&input));
        }
        self.waiting.push_back(Waiting { number: self.newest, gives_time, input });
    }

    /// Lets in whoever had come when `newest` was the newest, and what kept its place behind them.
    fn open(&mut self, newest: u64) -> Vec<Input> {
        let mut let_in = Vec::new();
        while self.waiting.front().is_some_and(|first| first.number <= newest) {
            let_in.extend(self.waiting.pop_front().map(|waiting| self.leaves(waiting)));
        }
        if self.behind > 0 {
            for waiting in std::mem::take(&mut self.waiting) {
                let stays = socket_of(&waiting.input).is_some_and(|socket| self.stops_socket(socket));
                if waiting.gives_time || stays {
                    self.waiting.push_back(waiting);
                } else {
                    let_in.push(self.leaves(waiting));
                }
            }
        }
        let_in
    }

    fn leaves(&mut self, waiting: Waiting) -> Input {
        self.behind -= usize::from(!waiting.gives_time);
        if let Some(socket) = socket_of(&waiting.input)
            && let Some(theirs) = self.theirs.get_mut(&socket)
        {
            theirs.all -= 1;
            theirs.resumes -= usize::from(is_resume(&waiting.input));
            if theirs.all == 0 {
                self.theirs.remove(&socket);
            }
        }
        waiting.input
    }

    /// When a look is to begin, where somebody waits for one.
    fn due(&self) -> Option<BootTime> {
        let waits = self.look.is_none() && self.waiting.len() > self.behind;
        waits.then(|| self.looked.map_or(BootTime(0), |looked| looked.plus(LOOK_EVERY_MS)))
    }

    /// A batch begins to be committed.
    pub(super) const fn batch_begun(&mut self) {
        self.batch = self.newest;
    }
}

impl Machine {
    /// Whether somebody waits for a look at the store, and one may begin.
    #[must_use]
    pub fn wants_confirmation(&self, at: BootTime) -> bool {
        self.door.as_ref().and_then(Door::due).is_some_and(|due| due <= at)
    }

    /// When [`Machine::wants_confirmation`] is to be asked next, where somebody waits.
    pub(super) fn confirmation_due(&self) -> Option<BootTime> {
        self.door.as_ref().and_then(Door::due)
    }

    /// A look at the store begins: to be called before it does.
    pub fn confirmation_begun(&mut self, at: BootTime) {
        if let Some(door) = &mut self.door {
            door.look = Some(door.newest);
            door.looked = Some(at);
        }
    }

    /// The look under way found that this process leads: whoever had come when it began is let in.
    pub fn confirmed(&mut self, at: BootTime) {
        if let Some(newest) = self.door.as_mut().and_then(|door| door.look.take()) {
            self.open_door(at, newest);
        }
    }

    /// The look under way found nothing out: everybody waits for the next.
    pub const fn confirmation_failed(&mut self) {
        if let Some(door) = &mut self.door {
            door.look = None;
        }
    }

    /// The batch under way was committed, so this process led since it was begun.
    pub(super) fn confirmed_by_batch(&mut self, at: BootTime) {
        if let Some(newest) = self.door.as_ref().map(|door| door.batch) {
            self.open_door(at, newest);
        }
    }

    fn open_door(&mut self, at: BootTime, newest: u64) {
        let let_in = self.door.as_mut().map(|door| door.open(newest));
        for input in let_in.into_iter().flatten() {
            match input {
                Input::Call { socket, .. } if self.sockets.get(&socket).is_none_or(|known| known.over) => {}
                Input::Keyed { at: read, key, call, answer, .. } => {
                    self.let_in(at, Input::Keyed { at: read, key, call, answer, confirmed: true });
                }
                other => self.let_in(at, other),
            }
        }
    }

    /// Takes what is to wait at the door; answers the rest, which goes on.
    pub(super) fn at_the_door(&mut self, input: Input) -> Option<Input> {
        let Some(door) = &mut self.door else { return Some(input) };
        match &input {
            Input::Call { socket, call, .. } if !door.stops_call(*socket, call) => return Some(input),
            Input::Call { socket, id, .. } if door.is_full(*socket) => {
                let message = format!(
                    "{WAITING_PER_SOCKET_MAX} calls of this socket wait already: read their answers, then repeat"
                );
                self.held.tell_socket(*socket, id.clone(), Err(RpcError::new(code::OVERLOADED, message)));
                return None;
            }
            // What it is a sign of counts from when it was read, as it would without a door.
            Input::Call { at, call: Call::Resume { session, hash, instance, .. }, .. } => {
                if self.may_resume(*session, hash, instance).is_ok() {
                    self.presence.heard(*session, *at);
                }
            }
            Input::Call { .. } => {}
            Input::Detach { socket, .. } | Input::CutOff { socket } if door.stops_socket(*socket) => {}
            _ => return Some(input),
        }
        if let Some(door) = &mut self.door {
            door.push(input);
        }
        None
    }

    /// A request under a key that changed nothing waits as well, and is asked again when it is let in.
    pub(super) fn keyed_waits(&mut self, input: Input) {
        if let Some(door) = &mut self.door {
            door.push(input);
        }
    }
}

/// Whether a client counts its time by the answer. An opening needs no look: it is in a batch.
const fn gives_time(call: &Call) -> bool {
    matches!(call, Call::Renew { .. } | Call::Resume { .. })
}

const fn is_resume(input: &Input) -> bool {
    matches!(input, Input::Call { call: Call::Resume { .. }, .. })
}

const fn socket_of(input: &Input) -> Option<SocketId> {
    match input {
        Input::Call { socket, .. } | Input::Detach { socket, .. } | Input::CutOff { socket } => Some(*socket),
        _ => None,
    }
}
