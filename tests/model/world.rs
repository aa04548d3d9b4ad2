//! What the model knows: both ends of each session, what is under way between them, the books.
//!
//! Every time is an age or what is left, capped where more makes no difference, and the numbers of
//! answers are kept by rank. So a run may be as long as it likes and the states stay finite: what
//! the checker says holds for runs of any length, within the budgets of faults.

/// Packets under way in one direction of one session. One more is not sent, or is lost.
pub const UP: usize = 2;
/// The same from the broker to the client.
pub const DOWN: usize = 2;

/// Sockets that a session may have had before its client's current one and that still matter.
pub const OLDER_MAX: u8 = 2;

/// An answered promise, as its client counts by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promise {
    /// The number of the answer.
    pub number: u8,
    /// The longer promise of a planned stop.
    pub long: bool,
    /// Ticks of the client's clock since what it answers was sent.
    pub age: u8,
}

/// What a client has of the resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    #[default]
    None,
    /// In use.
    Held {
        fence: u8,
        /// The longer promise it counts by, where it is one; else 0: only then is the number asked for.
        long: u8,
        /// Ticks of the client's clock until use has ended.
        left: u8,
        ending: bool,
    },
    /// Used no more, and to be released: lost, given back, or never begun.
    Owed { fence: u8 },
}

/// A client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    #[default]
    Up,
    /// On a new socket, the resume unanswered.
    Resuming,
    Down,
    /// Closed, killed, or told that its session is gone. For good.
    Over,
}

/// Whether a client runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runs {
    #[default]
    Yes,
    /// Its process stands still; its guard does not.
    Paused,
    /// Its whole machine stands still, the guard with it.
    Frozen,
}

/// The client's end of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    pub phase: Phase,
    pub runs: Runs,
    /// The last claim made, and whether its grant is waited for.
    pub request: u8,
    pub wants: bool,
    pub newest: Promise,
    /// The lease that the newest answer named as ending; 0 for none.
    pub named: u8,
    pub has: Use,
    /// Even ticks since its clock fell a tick behind the broker's.
    pub even_for: u8,
}

/// What the broker's process remembers of a session, until it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Presence {
    /// The current socket, as many before the client's newest.
    pub socket: Option<u8>,
    /// Ticks since a sign of life.
    pub age: u8,
    /// A longer promise: what is left of it, and the number that a renewal must name more than.
    pub long: Option<(u8, u8)>,
    /// Ticks since an ending is known to be stored.
    pub ending: Option<u8>,
    /// An end of it is decided and not known to be stored.
    pub expiring: bool,
    /// The end of a longer promise is decided and not stored.
    pub clearing: bool,
}

/// A lease in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    pub fence: u8,
    pub ending: bool,
    /// On the books since before a restart; only for saying that it survived one.
    pub kept: bool,
}

/// What the store has of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Books {
    pub open: bool,
    pub long: bool,
    pub request: u8,
    pub waiting: bool,
    pub lease: Option<Lease>,
}

/// A decision that is not known to be stored. There is one at most: the batch under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    Claimed { request: u8 },
    Closed,
    Ending,
    Expired,
    Granted { fence: u8 },
    /// Released, or its ending is over.
    Over { fence: u8 },
    /// The longer promise; the answer to the renewal waits for it.
    Promised { answer: Promise, named: u8 },
}

/// What a client says, or what the network says of its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Said {
    /// `age` counts on the client's clock, from sending; `names` is the answer it counts by.
    Renew { age: u8, names: u8 },
    Resume { age: u8, names: u8 },
    Release { fence: u8 },
    Acquire { request: u8 },
    Close,
    /// The socket is gone: with a clean Close frame, or without.
    Gone { clean: bool },
}

/// A packet to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Up {
    /// Its socket, as many before the client's newest.
    pub socket: u8,
    pub said: Said,
}

/// A packet to the client, on its newest socket: others are not read.
///
/// News come in the order in which they were told, as on a socket: a grant that is read after an
/// answer which was given after that lease was over would be used. Answers to renewals may come
/// late, more than once, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Down {
    Renewed { promise: Promise, named: u8 },
    /// An answered resume, with what the session has on the books.
    Resumed { promise: Promise, named: u8, request: u8, lease: Option<Lease>, waiting: bool },
    Granted { request: u8, fence: u8 },
    Ending { fence: u8 },
    Over { fence: u8 },
    /// The session is no more.
    Gone,
}

/// One session: its client, what is under way, and what the broker has of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    pub client: Client,
    pub up: [Option<Up>; UP],
    pub down: [Option<Down>; DOWN],
    pub presence: Presence,
    pub books: Books,
    pub batch: Option<Decision>,
    /// The number of the last answer. It grows over restarts.
    pub answers: u8,
    /// The client's newest socket is that of a leader which another has taken the lead from: the
    /// number that its next answer would have; else 0.
    pub former: u8,
}

/// Faults and wishes that are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    pub crashes: u8,
    pub stops: u8,
    pub store_failures: u8,
    pub revokes: u8,
    pub drops: u8,
    pub pauses: u8,
    pub freezes: u8,
    pub deaths: u8,
    pub repeats: u8,
    pub takeovers: u8,
}

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub sides: Vec<Side>,
    /// The broker's process is there and accepts connections.
    pub serves: bool,
    pub stopping: bool,
    /// The store said no, and has not taken anything since.
    pub failing: bool,
    /// The last fence in the store.
    pub fence: u8,
    /// The highest fence that was ever stored, and whether one not above it followed.
    pub highest: u8,
    pub fence_fell: bool,
    pub budget: Budget,
}

impl World {
    pub fn is_idle(&self) -> bool {
        self.sides.iter().all(|side| side.batch.is_none())
    }

    /// Renewals are answered with the longer promise, once that is stored.
    pub fn promises(&self) -> bool {
        self.stopping && !self.failing
    }

    pub fn is_leased(&self) -> bool {
        self.sides.iter().any(|side| side.books.lease.is_some())
    }

    /// One form for worlds that differ by nothing that matters.
    /// The first `alike` clients may change places.
    pub fn settle(mut self, alike: usize) -> Self {
        for side in &mut self.sides {
            side.settle(self.serves);
        }
        self.sides[..alike].sort_unstable();
        self
    }
}

impl Side {
    /// Room for a packet to the broker.
    pub fn may_send(&self) -> bool {
        self.up.iter().any(Option::is_none)
    }

    pub fn may_tell(&self) -> bool {
        self.down.iter().any(Option::is_none)
    }

    /// Sends, or loses it where too much is under way.
    pub fn send(&mut self, socket: u8, said: Said) {
        if let Some(free) = self.up.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(Up { socket, said });
        }
    }

    /// Tells the client, where its newest socket is the session's; a message elsewhere is not read.
    pub fn tell(&mut self, told: Down) {
        if self.presence.socket == Some(0) && matches!(self.client.phase, Phase::Up | Phase::Resuming) {
            self.answer(told);
        }
    }

    pub fn answer(&mut self, told: Down) {
        if let Some(free) = self.down.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(told);
        }
    }

    fn settle(&mut self, serves: bool) {
        if self.client.phase == Phase::Over {
            // Nothing more comes of it; what it has sent is still under way.
            self.client = Client { phase: Phase::Over, ..Client::default() };
        }
        if !matches!(self.client.phase, Phase::Up | Phase::Resuming) {
            self.down = [None; DOWN];
        }
        if self.client.phase != Phase::Up {
            self.former = 0;
        }
        if !serves || !self.books.open {
            self.presence = Presence::default();
        }
        self.rank_numbers();
        self.up.sort_unstable();
        // In order, without gaps.
        self.down.sort_by_key(Option::is_none);
    }

    /// Keeps of the answers' numbers which is above which, and nothing else.
    fn rank_numbers(&mut self) {
        let mut known = [0_u8; 16];
        let mut count = 0;
        self.each_number(|number| {
            known[count] = *number;
            count += 1;
        });
        let known = &mut known[..count];
        known.sort_unstable();
        self.each_number(|number| {
            let (mut rank, mut before) = (0, 0);
            for other in known.iter().take_while(|other| **other <= *number) {
                rank += u8::from(*other != before);
                before = *other;
            }
            *number = rank;
        });
    }

    fn each_number(&mut self, mut with: impl FnMut(&mut u8)) {
        with(&mut self.answers);
        with(&mut self.former);
        with(&mut self.client.newest.number);
        if let Use::Held { long, .. } = &mut self.client.has {
            with(long);
        }
        for up in self.up.iter_mut().flatten() {
            if let Said::Renew { names, .. } | Said::Resume { names, .. } = &mut up.said {
                with(names);
            }
        }
        for down in self.down.iter_mut().flatten() {
            if let Down::Renewed { promise, .. } | Down::Resumed { promise, .. } = down {
                with(&mut promise.number);
            }
        }
        if let Some((_, above)) = &mut self.presence.long {
            with(above);
        }
        if let Some(Decision::Promised { answer, .. }) = &mut self.batch {
            with(&mut answer.number);
        }
    }
}
