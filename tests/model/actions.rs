//! What may happen next: the steps of clients, network, broker, store and time, in any order.

use stateright::{Model, Property};

use super::rules::{Broken, Size};
use super::world::{
    Books, Client, Decision, Down, OLDER_MAX, Phase, Presence, Promise, Runs, Said, Side, Up, Use, World,
};

/// One step. Sides are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Every clock moves on by a tick, but those of the clients in this set of bits.
    Tick { but: u8 },

    /// The client asks to renew.
    Renew(usize),
    /// It opens a new socket and resumes on it.
    Resume(usize),
    /// It stops using what it has, and owes the release.
    Stop(usize),
    Release(usize),
    Acquire(usize),
    /// It stops using what it has, and closes the session.
    Close(usize),
    /// Its machine loses power.
    Die(usize),
    /// Its process stands still.
    Pause(usize),
    /// Its machine stands still.
    Freeze(usize),
    /// It goes on.
    Wake(usize),

    /// The client sees its socket gone; the broker is to hear of it, or never will.
    Drop { of: usize, heard: bool },
    /// The broker reads a packet; another copy of it may stay under way.
    Take { of: usize, up: Up, again: bool },
    /// The client reads a packet.
    Read { of: usize, down: Down, again: bool },
    LoseUp { of: usize, up: Up },
    LoseDown { of: usize, down: Down },

    Expire(usize),
    EndingOver(usize),
    Grant(usize),
    /// An admin takes the lease back, or its hold is over.
    Revoke(usize),
    /// The store has the batch under way.
    Commit,
    /// It has not, and says so.
    Abort,
    /// The planned stop begins.
    StopBroker,
    /// The broker's process ends; the batch under way is in the store or is not.
    Crash { stored: bool },
    Start,
    /// It stands still with its machine, and another broker takes the lead; the batch under way is in
    /// the store or never will be.
    TakeOver { stored: bool },
}

impl Model for Size {
    type State = World;
    type Action = Step;

    /// Sessions are open, each on its first socket, the claims on the books, nothing granted.
    fn init_states(&self) -> Vec<World> {
        let even_for = self.drift.unwrap_or(0);
        let newest = Promise { number: 1, long: false, age: 0 };
        let side = Side {
            client: Client { request: 1, wants: true, newest, even_for, ..Client::default() },
            presence: Presence { socket: Some(0), ..Presence::default() },
            books: Books { open: true, request: 1, waiting: true, ..Books::default() },
            answers: 1,
            ..Side::default()
        };
        let world = World {
            sides: vec![side; self.clients + usize::from(self.rival)],
            serves: true,
            stopping: false,
            failing: false,
            fence: 0,
            highest: 0,
            fence_fell: false,
            budget: self.budget,
        };
        vec![world]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        self.time(world, steps);
        for of in 0..world.sides.len() {
            self.client(world, of, steps);
            self.network(world, of, steps);
        }
        self.broker(world, steps);
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Tick { but } => world.tick(self, but),
            Step::Renew(_) | Step::Resume(_) | Step::Stop(_) | Step::Release(_) | Step::Acquire(_) => {
                self.asks(&mut world, step);
            }
            Step::Close(_) | Step::Die(_) | Step::Pause(_) | Step::Freeze(_) | Step::Wake(_) => {
                self.fares(&mut world, step);
            }
            Step::Drop { .. } | Step::Take { .. } | Step::Read { .. } | Step::LoseUp { .. } | Step::LoseDown { .. } => {
                self.carries(&mut world, step);
            }
            _ => self.decides(&mut world, step),
        }
        let world = world.settle(if self.alike { self.clients } else { 0 });
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        super::properties::of(self)
    }
}

impl World {
    fn tick(&mut self, size: &Size, but: u8) {
        for (at, side) in self.sides.iter_mut().enumerate().take(size.clients) {
            if self.serves && side.books.open {
                side.presence.tick(size);
            }
            if let Some(every) = size.drift {
                side.client.even_for = if but & (1 << at) != 0 { 0 } else { (side.client.even_for + 1).min(every) };
            }
            if but & (1 << at) == 0 {
                side.tick(size);
            }
        }
    }
}

impl Side {
    /// Nothing will come on the client's socket any more, as after the broker's restart.
    fn is_cut_off(&self) -> bool {
        let resuming = |up: &Up| up.socket == 0 && matches!(up.said, Said::Resume { .. });
        match self.client.phase {
            Phase::Up => self.presence.socket != Some(0),
            Phase::Resuming => self.down.iter().flatten().next().is_none() && !self.up.iter().flatten().any(resuming),
            Phase::Down | Phase::Over => false,
        }
    }

    /// Time passes on the client's clock: for what it has, and for what it has sent.
    fn tick(&mut self, size: &Size) {
        self.client.tick(size);
        let older = |age: &mut u8, long: bool| *age = (*age + 1).min(size.usable(long));
        for up in self.up.iter_mut().flatten() {
            if let Said::Renew { age, .. } | Said::Resume { age, .. } = &mut up.said {
                older(age, size.budget.stops > 0);
            }
        }
        for down in self.down.iter_mut().flatten() {
            if let Down::Renewed { promise, .. } | Down::Resumed { promise, .. } = down {
                older(&mut promise.age, promise.long);
            }
        }
        if let Some(Decision::Promised { answer, .. }) = &mut self.batch {
            older(&mut answer.age, true);
        }
    }
}

impl Size {
    fn time(&self, world: &World, steps: &mut Vec<Step>) {
        let due = world.serves
            && world.sides.iter().any(|side| {
                let presence = &side.presence;
                side.batch.is_some()
                    || side.books.open && (presence.is_expired(self) || presence.ending_is_over(self))
            });
        if self.prompt && due {
            return;
        }
        let behind = |at: usize| {
            let client = &world.sides[at].client;
            self.drift.is_some_and(|every| client.even_for >= every) && client.phase != Phase::Over
        };
        let may: u8 = (0..self.clients).filter(|at| behind(*at)).map(|at| 1 << at).sum();
        steps.extend((0..=may).filter(|but| but & !may == 0).map(|but| Step::Tick { but }));
    }

    fn client(&self, world: &World, of: usize, steps: &mut Vec<Step>) {
        let (side, budget) = (&world.sides[of], &world.budget);
        let client = &side.client;
        if client.phase == Phase::Over {
            return;
        }
        if of >= self.clients {
            match client.has {
                Use::Held { .. } => steps.push(Step::Stop(of)),
                Use::Owed { .. } if side.up.iter().flatten().next().is_none() => steps.push(Step::Release(of)),
                _ => {}
            }
            if side.is_cut_off() {
                steps.push(Step::Resume(of));
            }
            return;
        }
        if client.runs != Runs::Yes {
            steps.push(Step::Wake(of));
            return;
        }
        let room = side.up.iter().flatten().count() < self.up.min(side.up.len());
        if client.phase == Phase::Up && room {
            steps.push(Step::Renew(of));
            match client.has {
                Use::Owed { .. } => steps.push(Step::Release(of)),
                Use::None if !client.wants && client.request < self.claims => steps.push(Step::Acquire(of)),
                _ => {}
            }
        }
        if client.uses().is_some() {
            steps.push(Step::Stop(of));
        }
        let newest_older = side.up.iter().flatten().map(|up| up.socket).chain(side.presence.socket).max();
        if client.phase == Phase::Down && room && newest_older.is_none_or(|socket| socket < OLDER_MAX) {
            steps.push(Step::Resume(of));
        }
        for (left, step) in [
            (budget.deaths, Step::Die(of)),
            (budget.deaths, Step::Close(of)),
            (budget.pauses, Step::Pause(of)),
            (budget.freezes, Step::Freeze(of)),
        ] {
            if left > 0 {
                steps.push(step);
            }
        }
    }

    fn network(&self, world: &World, of: usize, steps: &mut Vec<Step>) {
        let (side, budget) = (&world.sides[of], &world.budget);
        let client = &side.client;
        let agains = if budget.repeats > 0 { &[false, true][..] } else { &[false] };
        for up in side.up.iter().flatten().copied() {
            if world.may_take(self, of, up) {
                steps.extend(agains.iter().map(|again| Step::Take { of, up, again: *again }));
            }
            if self.loses && of < self.clients {
                steps.push(Step::LoseUp { of, up });
            }
        }
        let mut next = true;
        for down in side.down.iter().flatten().copied() {
            let renewed = matches!(down, Down::Renewed { .. });
            if client.runs() && next {
                steps.push(Step::Read { of, down, again: false });
                if renewed && budget.repeats > 0 {
                    steps.push(Step::Read { of, down, again: true });
                }
            }
            if self.loses && renewed {
                steps.push(Step::LoseDown { of, down });
            }
            next &= renewed;
        }
        if of < self.clients && matches!(client.phase, Phase::Up | Phase::Resuming) {
            // A socket whose broker is gone is dead anyway: noticing costs nothing.
            let dead = side.is_cut_off();
            if dead || budget.drops > 0 {
                steps.push(Step::Drop { of, heard: false });
            }
            if budget.drops > 0 && side.may_send() {
                steps.push(Step::Drop { of, heard: true });
            }
        }
    }

    fn broker(&self, world: &World, steps: &mut Vec<Step>) {
        let budget = &world.budget;
        if !world.serves {
            steps.push(Step::Start);
            return;
        }
        let idle = world.is_idle();
        for (of, side) in world.sides.iter().enumerate().filter(|(_, side)| idle && side.books.open) {
            if side.presence.is_expired(self) {
                steps.push(Step::Expire(of));
            }
            let skips = self.breaks(Broken::SkipsEnding) && side.presence.ending.is_some();
            if side.presence.ending_is_over(self) || skips {
                steps.push(Step::EndingOver(of));
            }
            if world.may_grant(of) {
                steps.push(Step::Grant(of));
            }
            if budget.revokes > 0 && side.books.lease.is_some_and(|lease| !lease.ending) {
                steps.push(Step::Revoke(of));
            }
        }
        let clears = world.sides.iter().any(|side| side.presence.clearing);
        if !idle || clears || world.failing {
            steps.push(Step::Commit);
        }
        if !idle && budget.store_failures > 0 {
            steps.push(Step::Abort);
        }
        if budget.stops > 0 && !world.stopping {
            steps.push(Step::StopBroker);
        }
        if budget.takeovers > 0 {
            steps.push(Step::TakeOver { stored: false });
            if !idle || clears {
                steps.push(Step::TakeOver { stored: true });
            }
        }
        if budget.crashes > 0 || world.stopping {
            steps.push(Step::Crash { stored: false });
            if !idle || clears {
                steps.push(Step::Crash { stored: true });
            }
        }
    }

    /// What a client asks for.
    fn asks(&self, world: &mut World, step: Step) {
        let (Step::Renew(of) | Step::Resume(of) | Step::Stop(of) | Step::Release(of) | Step::Acquire(of)) = step else {
            return;
        };
        let side = &mut world.sides[of];
        match (step, side.client.has) {
            (Step::Renew(_), _) => side.send(0, Said::Renew { age: 0, names: side.client.counted(self) }),
            (Step::Resume(_), _) => side.resume(self),
            (Step::Stop(_), Use::Held { fence, .. }) => side.client.has = Use::Owed { fence },
            (Step::Release(_), Use::Owed { fence }) => side.send(0, Said::Release { fence }),
            (Step::Acquire(_), _) => {
                side.client.request += 1;
                side.client.wants = true;
                side.send(0, Said::Acquire { request: side.client.request });
            }
            _ => {}
        }
    }

    /// What becomes of a client.
    fn fares(&self, world: &mut World, step: Step) {
        let (Step::Close(of) | Step::Die(of) | Step::Pause(of) | Step::Freeze(of) | Step::Wake(of)) = step else {
            return;
        };
        let (budget, side) = (&mut world.budget, &mut world.sides[of]);
        match step {
            Step::Close(_) => {
                budget.deaths -= 1;
                if side.client.phase == Phase::Up {
                    side.send(0, Said::Close);
                }
                side.client.phase = Phase::Over;
            }
            Step::Die(_) => {
                budget.deaths -= 1;
                side.client.phase = Phase::Over;
            }
            Step::Pause(_) => {
                budget.pauses -= 1;
                side.client.runs = Runs::Paused;
            }
            Step::Freeze(_) => {
                budget.freezes -= 1;
                side.client.runs = Runs::Frozen;
            }
            _ => {
                side.client.runs = Runs::Yes;
                side.client.lose_expired();
            }
        }
    }

    /// What the network does.
    fn carries(&self, world: &mut World, step: Step) {
        match step {
            Step::Drop { of, heard } => {
                let side = &mut world.sides[of];
                let dead = side.is_cut_off();
                if heard {
                    side.send(0, Said::Gone { clean: false });
                }
                if heard || !dead {
                    world.budget.drops -= 1;
                }
                side.client.phase = Phase::Down;
            }
            Step::Take { of, up, again } => {
                world.take_away(of, up, again);
                world.take(self, of, up);
            }
            Step::LoseUp { of, up } => world.take_away(of, up, false),
            Step::Read { of, down, again } => {
                world.read_away(of, down, again);
                world.sides[of].read(self, down);
            }
            Step::LoseDown { of, down } => world.read_away(of, down, false),
            _ => {}
        }
    }

    /// What the broker, its store or its operator does.
    fn decides(&self, world: &mut World, step: Step) {
        match step {
            Step::Expire(of) => {
                let side = &mut world.sides[of];
                side.presence.expiring = !self.breaks(Broken::AnswersExpiring);
                side.batch = Some(Decision::Expired);
            }
            Step::EndingOver(of) => {
                let side = &mut world.sides[of];
                side.batch = side.books.lease.map(|lease| Decision::Over { fence: lease.fence });
            }
            Step::Grant(of) => world.grant(self, of),
            Step::Revoke(of) => {
                world.budget.revokes -= 1;
                let side = &mut world.sides[of];
                side.batch = Some(Decision::Ending);
                if self.breaks(Broken::EndingFromDecision) {
                    side.presence.ending = Some(0);
                }
            }
            Step::Commit => world.commit(self),
            Step::Abort => {
                world.budget.store_failures -= 1;
                world.abort(self);
            }
            Step::StopBroker => {
                world.budget.stops -= 1;
                world.stopping = true;
            }
            Step::Crash { stored } => {
                if !world.stopping {
                    world.budget.crashes -= 1;
                }
                world.crash(stored);
            }
            Step::Start => world.start(self),
            Step::TakeOver { stored } => {
                world.budget.takeovers -= 1;
                world.taken_over(self, stored);
            }
            _ => {}
        }
    }
}

impl World {
    fn take_away(&mut self, of: usize, up: Up, again: bool) {
        if again {
            self.budget.repeats -= 1;
        } else if let Some(slot) = self.sides[of].up.iter_mut().find(|slot| **slot == Some(up)) {
            *slot = None;
        }
    }

    fn read_away(&mut self, of: usize, down: Down, again: bool) {
        if again {
            self.budget.repeats -= 1;
        } else if let Some(slot) = self.sides[of].down.iter_mut().find(|slot| **slot == Some(down)) {
            *slot = None;
        }
    }
}
