//! The figures of a model, and the rules that it may be told to break.

use super::world::Budget;

/// A rule of the protocol, broken. Each stands for a fault that a programmer might make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client counts a promise from when it read the answer, not from when it asked.
    CountsFromReceipt,
    /// The client keeps nothing back for clocks that differ.
    NoMargin,
    /// It keeps back for the longer promise only what it does for the ttl.
    MarginOfTtl,
    /// The client counts by an older answer because it promises longer.
    OlderLongerCounts,
    /// An answer that names a lease as ending extends it all the same.
    EndingExtends,
    /// The client names its newest answer though an ending lease counts by an older, longer one.
    NamesNewest,
    /// The broker frees at the drop of a socket.
    ReclaimsAtDrop,
    /// A broker that starts goes on counting, as if everybody had been silent meanwhile.
    NoFullTtl,
    /// A broker that starts knows nothing of longer promises.
    ForgetsPromise,
    /// A longer promise ends with the next renewal, whatever that names.
    PromiseEndsUnnamed,
    /// A longer promise is told before it is stored.
    PromisesFirst,
    /// A lease that is to end is free at once.
    SkipsEnding,
    /// The time of an ending runs from the decision, not from when it is stored.
    EndingFromDecision,
    /// A clean close counts on whatever socket it comes.
    LateClose,
    /// A renewal or a resume is answered though an expiry of the session is decided.
    AnswersExpiring,
    /// A renewal is answered by whoever led when it last looked, before it came.
    AnswersUnlooked,
    /// A grant is told before it is stored.
    GrantsFirst,
    /// The fences begin anew when the broker starts.
    FenceReset,
    /// What was decided stays decided when the store did not take it.
    StaysExpiring,
}

/// How large a model is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub clients: usize,
    /// One more that is always heard of and always in time: it takes what is free, and is one who
    /// must not find it in use.
    pub rival: bool,
    /// Claims that each client makes, one after the other.
    pub claims: u8,
    /// Ticks of the ttl and of the longer promise, and what of each is the margin.
    pub ttl: u8,
    pub margin: u8,
    pub long: u8,
    pub long_margin: u8,
    /// Even ticks between two in which a client's clock falls behind; `None` for clocks that agree.
    pub drift: Option<u8>,
    /// Packets to the broker under way in a session, at most [`super::world::UP`].
    pub up: usize,
    /// Messages may be lost on a socket that stays. TCP does not do that; where a socket may drop
    /// anyway it adds little but states.
    pub loses: bool,
    /// Which faults, and how many of each.
    pub budget: Budget,
    /// The broker does what is due before time goes on.
    pub prompt: bool,
    /// Clients are alike: which is which is forgotten. Fewer states, and paths that are hard to read.
    pub alike: bool,
    /// Whole machines may stand still: only what fences promise is asked for.
    pub fences_only: bool,
    pub broken: Option<Broken>,
}

impl Size {
    pub fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// How long the client may use what an answer promises, from sending, in its own ticks.
    pub fn usable(&self, long: bool) -> u8 {
        let margin = match (long, self.broken) {
            (_, Some(Broken::NoMargin)) => 0,
            (true, Some(Broken::MarginOfTtl)) => self.margin,
            (true, _) => self.long_margin,
            (false, _) => self.margin,
        };
        (if long { self.long } else { self.ttl }) - margin
    }
}
