//! The broker's steps: what `src/engine` does with presence, the batch under way and the books.

use super::rules::{Broken, Size};
use super::world::{Books, Decision, Down, Lease, Phase, Presence, Promise, Said, Side, Up, World};

impl Presence {
    /// Whether a longer promise binds: `promised_until` in `engine/presence.rs`.
    fn long_binds(&self) -> bool {
        self.long.is_some_and(|(left, _)| left > 0)
    }

    pub fn is_expired(&self, size: &Size) -> bool {
        !self.expiring && self.age >= size.ttl && !self.long_binds()
    }

    pub fn ending_is_over(&self, size: &Size) -> bool {
        self.ending.is_some_and(|since| since >= size.ttl) && !self.long_binds()
    }

    /// Whether something should have come back a tick ago.
    pub fn is_overdue(&self, size: &Size) -> bool {
        !self.long_binds() && (self.age > size.ttl || self.ending.is_some_and(|since| since > size.ttl))
    }

    pub fn tick(&mut self, size: &Size) {
        // While a longer promise binds nothing is due, and nothing overdue.
        let most = size.ttl + u8::from(size.prompt && !self.long_binds());
        self.age = (self.age + 1).min(most);
        if let Some((left, _)) = &mut self.long {
            *left = left.saturating_sub(1);
        }
        if let Some(since) = &mut self.ending {
            *since = (*since + 1).min(most);
        }
    }

    /// A renewal names what its client counts by: `Presence::counts_by`.
    fn counts_by(&mut self, size: &Size, names: u8) {
        if self.long.is_some_and(|(_, above)| names > above || size.breaks(Broken::PromiseEndsUnnamed)) {
            self.long = None;
            self.clearing = true;
        }
    }
}

impl Side {
    /// The lease that answers name as ending; 0 for none.
    fn named(&self) -> u8 {
        self.presence.ending.and(self.books.lease).filter(|lease| lease.ending).map_or(0, |lease| lease.fence)
    }

    fn promise(&mut self, age: u8, long: bool) -> Promise {
        self.answers += 1;
        Promise { number: self.answers, long, age }
    }

    /// A renewal, answered from presence alone: `Machine::renewed` in `engine/calls.rs`.
    fn renewed(&mut self, size: &Size, age: u8, names: u8) {
        self.presence.counts_by(size, names);
        let (promise, named) = (self.promise(age, false), self.named());
        self.answer(Down::Renewed { promise, named });
    }

    /// A renewal while stopping: `Machine::renew_in_stop`.
    fn renewed_in_stop(&mut self, size: &Size, age: u8, names: u8) {
        self.presence.counts_by(size, names);
        self.presence.clearing = false;
        let (answer, named) = (self.promise(age, true), self.named());
        self.presence.long = Some((size.long, answer.number));
        self.batch = Some(Decision::Promised { answer, named });
        if size.breaks(Broken::PromisesFirst) {
            self.answer(Down::Renewed { promise: answer, named });
        }
    }

    /// A resume: `Machine::resume` and `Machine::bind`.
    fn resumed(&mut self, size: &Size, socket: u8, age: u8, names: u8) {
        self.presence.age = 0;
        self.presence.counts_by(size, names);
        if let Some(before) = self.presence.socket.replace(socket).filter(|before| *before != socket) {
            // It is closed as superseded, and its end answers that with a Close of its own.
            self.send(before, Said::Gone { clean: true });
        }
        let (promise, named) = (self.promise(age, false), self.named());
        let Books { request, lease, waiting, .. } = self.books;
        if socket == 0 && self.client.phase == Phase::Resuming {
            // What the state knows to be ending is ending before it is counted: `Machine::resumed`.
            let named = lease.filter(|lease| lease.ending).map_or(named, |lease| lease.fence);
            let lease = lease.map(|lease| Lease { kept: false, ..lease });
            self.answer(Down::Resumed { promise, named, request, lease, waiting });
        }
    }

    /// Whether a packet needs a batch of its own, or must wait for the one under way.
    fn waits_for_batch(&self, size: &Size, up: Up, promises: bool) -> bool {
        match up.said {
            Said::Resume { .. } if size.breaks(Broken::AnswersExpiring) => false,
            Said::Renew { .. } => promises || self.presence.expiring,
            Said::Gone { clean } => clean,
            _ => true,
        }
    }

    /// What is decided becomes what is stored.
    fn store(&mut self, fence: &mut u8) {
        if self.presence.clearing {
            self.books.long = false;
        }
        match self.batch {
            Some(Decision::Claimed { request }) => (self.books.request, self.books.waiting) = (request, true),
            Some(Decision::Closed | Decision::Expired) => self.books = Books::default(),
            Some(Decision::Granted { fence: new }) => {
                *fence = new;
                self.books.waiting = false;
                self.books.lease = Some(Lease { fence: new, ending: false, kept: false });
            }
            Some(Decision::Ending) => {
                if let Some(lease) = &mut self.books.lease {
                    lease.ending = true;
                }
            }
            Some(Decision::Over { .. }) => self.books.lease = None,
            Some(Decision::Promised { .. }) => self.books.long = true,
            None => {}
        }
    }

    /// The batch is known to be stored: what was computed from it may leave, and endings begin to
    /// run (`Machine::settled`, `know_durable`).
    fn settled(&mut self, size: &Size, decision: Decision) {
        match decision {
            Decision::Closed | Decision::Expired => self.tell(Down::Gone),
            Decision::Granted { fence } if !size.breaks(Broken::GrantsFirst) => {
                self.tell(Down::Granted { request: self.books.request, fence });
            }
            Decision::Ending => {
                self.presence.ending.get_or_insert(0);
                self.tell(Down::Ending { fence: self.books.lease.map_or(0, |lease| lease.fence) });
            }
            Decision::Over { fence } => {
                self.presence.ending = None;
                self.tell(Down::Over { fence });
            }
            Decision::Promised { answer, named } if !size.breaks(Broken::PromisesFirst) => {
                self.tell(Down::Renewed { promise: answer, named });
            }
            Decision::Claimed { .. } | Decision::Granted { .. } | Decision::Promised { .. } => {}
        }
    }
}

impl World {
    /// Whether the broker may read this now.
    pub fn may_take(&self, size: &Size, side: usize, up: Up) -> bool {
        let side = &self.sides[side];
        let answered = matches!(up.said, Said::Renew { .. } | Said::Resume { .. } | Said::Release { .. });
        self.serves
            && (self.is_idle() || !side.waits_for_batch(size, up, self.promises()))
            && (!answered || side.may_tell() || side.presence.socket != Some(up.socket))
    }

    /// The broker reads a packet: `Machine::input` and `Machine::call`.
    pub fn take(&mut self, size: &Size, side: usize, up: Up) {
        let (promises, side) = (self.promises(), &mut self.sides[side]);
        if side.former > 0 && up.socket == 0 {
            // It finds that another leads, and tells nothing more: `Machine::at_the_door`.
            if let (Said::Renew { age, .. }, true) = (up.said, size.breaks(Broken::AnswersUnlooked)) {
                let promise = Promise { number: side.former, long: false, age };
                side.answer(Down::Renewed { promise, named: 0 });
            }
            return;
        }
        if !side.books.open {
            if matches!(up.said, Said::Renew { .. } | Said::Resume { .. }) && up.socket == 0 {
                side.answer(Down::Gone);
            }
            return;
        }
        let current = side.presence.socket == Some(up.socket);
        match up.said {
            Said::Resume { age, names } => side.resumed(size, up.socket, age, names),
            Said::Gone { clean: true } if current || size.breaks(Broken::LateClose) => {
                side.batch = Some(Decision::Closed);
            }
            _ if !current => {} // What happens to an older socket has no effect.
            Said::Renew { age, names } => {
                side.presence.age = 0;
                if promises {
                    side.renewed_in_stop(size, age, names);
                } else {
                    side.renewed(size, age, names);
                }
            }
            Said::Release { fence } => {
                side.presence.age = 0;
                if side.books.lease.is_some_and(|lease| lease.fence == fence) {
                    side.batch = Some(Decision::Over { fence });
                } else {
                    side.tell(Down::Over { fence });
                }
            }
            Said::Acquire { request } => {
                side.presence.age = 0;
                if request > side.books.request {
                    side.batch = Some(Decision::Claimed { request });
                }
            }
            Said::Close => side.batch = Some(Decision::Closed),
            Said::Gone { .. } => {
                side.presence.socket = None;
                if let (Some(lease), true) = (side.books.lease, size.breaks(Broken::ReclaimsAtDrop) && self.is_idle()) {
                    let fence = lease.fence;
                    self.sides.iter_mut().for_each(|side| {
                        if side.books.lease == Some(lease) {
                            side.batch = Some(Decision::Over { fence });
                        }
                    });
                }
            }
        }
    }

    pub fn may_grant(&self, side: usize) -> bool {
        let side = &self.sides[side];
        !self.stopping && !self.is_leased() && side.books.waiting && side.presence.socket.is_some()
    }

    pub fn grant(&mut self, size: &Size, side: usize) {
        let fence = self.fence + 1;
        let side = &mut self.sides[side];
        side.batch = Some(Decision::Granted { fence });
        if size.breaks(Broken::GrantsFirst) {
            side.tell(Down::Granted { request: side.books.request, fence });
        }
    }

    /// The store takes the batch under way.
    pub fn commit(&mut self, size: &Size) {
        self.failing = false;
        self.store();
        for side in &mut self.sides {
            side.presence.clearing = false;
            if let Some(decision) = side.batch.take() {
                side.settled(size, decision);
            }
        }
    }

    /// The store says no, and has nothing of it: `Machine::resolved`.
    pub fn abort(&mut self, size: &Size) {
        self.failing = true;
        for side in &mut self.sides {
            side.batch = None;
            side.presence.expiring &= size.breaks(Broken::StaysExpiring);
        }
    }

    fn store(&mut self) {
        for side in &mut self.sides {
            side.store(&mut self.fence);
            if let Some(Decision::Granted { fence }) = side.batch {
                self.fence_fell |= fence <= self.highest;
                self.highest = self.highest.max(fence);
            }
        }
    }

    /// The process ends, and what was not told is told no more.
    pub fn crash(&mut self, stored: bool) {
        if stored {
            self.store();
        }
        (self.serves, self.stopping, self.failing) = (false, false, false);
        for side in &mut self.sides {
            side.batch = None;
            side.up = Default::default();
        }
    }

    /// Another broker takes the lead while this one stands still, and serves at once. Of what this
    /// one had decided the store has all or, from here on, nothing: its writes are conditional on
    /// leading. What it had told is under way still, and clients are on their sockets to it.
    pub fn taken_over(&mut self, size: &Size, stored: bool) {
        let met: Vec<_> = self.sides.iter().map(|side| (side.presence.socket, side.up)).collect();
        self.crash(stored);
        for (side, (socket, up)) in self.sides.iter_mut().zip(met) {
            if side.client.phase == Phase::Up && (socket == Some(0) || side.former > 0) {
                side.up = up;
                side.former = side.answers + 1;
                side.answers += 2;
            }
        }
        self.start(size);
    }

    /// A process takes the books over and accepts connections: `Machine::new`, `accepting`.
    pub fn start(&mut self, size: &Size) {
        self.serves = true;
        if size.breaks(Broken::FenceReset) {
            self.fence = 0;
        }
        for side in self.sides.iter_mut().filter(|side| side.books.open) {
            side.presence.age = if size.breaks(Broken::NoFullTtl) { size.ttl } else { 0 };
            let promised = side.books.long && !size.breaks(Broken::ForgetsPromise);
            side.presence.long = promised.then_some((size.long, side.answers));
            if let Some(lease) = &mut side.books.lease {
                lease.kept = true;
                side.presence.ending = lease.ending.then_some(0);
            }
        }
    }
}
