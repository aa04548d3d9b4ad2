//! A run as a list of what happens when: what a seed makes, what shrinking takes from, and what
//! can be printed, read again and replayed.
//!
//! An action that fits nothing when its time comes does nothing, so that any part of a script is
//! a script.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::protocol::call::ClaimRequest;

/// Where a broker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// At once, whatever it is doing; a commit under way leaves nothing.
    Now,
    /// At once; a commit under way becomes durable all the same.
    NowDurable,
    /// After the next decision, before its commit has begun.
    Decided,
    /// When the next batch is durable, before the engine hears of it.
    Durable,
    /// When the engine knows, before anything of it is told.
    Known,
    /// When all of it is told and nothing has left the machine.
    Told,
}

/// What an admin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// Takes a lease back: the nth, counted round.
    Revoke {
        /// Which.
        nth: usize,
        /// Without waiting for its holder.
        forced: bool,
    },
    /// Ends a session.
    Kick {
        /// Which, counted round.
        nth: usize,
    },
    /// Marks a resource: 0 drain, 1 undrain, 2 quarantine, 3 restore.
    Mark {
        /// Which of the inventory, counted round.
        nth: usize,
        /// What.
        act: u8,
    },
    /// Applies an inventory: resources of these bits are left out.
    Apply {
        /// Which are left out.
        without: u32,
    },
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A client claims.
    Acquire {
        /// Which client.
        client: usize,
        /// What it asks, without a number.
        claim: Box<ClaimRequest>,
    },
    /// A client releases one of its leases.
    Release {
        /// Which client.
        client: usize,
    },
    /// A client wants its oldest open request no more.
    Abandon {
        /// Which client.
        client: usize,
    },
    /// A client moves the end of a hold.
    Extend {
        /// Which client.
        client: usize,
        /// By how much from what it takes for now, milliseconds.
        by_ms: u64,
    },
    /// A client closes its session and a new one follows.
    Close {
        /// Which client.
        client: usize,
    },
    /// An earlier acquire comes once more on the client's socket.
    Repeat {
        /// Which client.
        client: usize,
        /// How many requests back.
        back: u64,
        /// With another body under the same number.
        other: bool,
    },
    /// An older copy of the client's connection is closed cleanly, as by a proxy that was slow.
    LateClose {
        /// Which client.
        client: usize,
    },
    /// A client brings the things of a rig.
    Provide {
        /// Which client.
        client: usize,
        /// Which rig.
        rig: u8,
        /// Its key: another one is another's.
        key: u8,
        /// Which things are left out, by their bits.
        without: u8,
    },
    /// Somebody claims, and later renews and releases, by HTTP under a key.
    Keyed {
        /// Whose key.
        user: u64,
        /// What is asked.
        need: String,
    },
    /// A connection breaks; what is under way is lost.
    Cut {
        /// Whose.
        client: usize,
        /// Whether the client hears of it.
        client_hears: bool,
        /// Whether the broker hears of it.
        broker_hears: bool,
    },
    /// Nothing passes between a client and the broker for a while, and all of it afterwards.
    Partition {
        /// Which client.
        client: usize,
        /// How long, milliseconds.
        ms: u64,
    },
    /// A client reads nothing for a while.
    Slow {
        /// Which client.
        client: usize,
        /// How long, milliseconds.
        ms: u64,
    },
    /// A client's process is paused.
    FreezeClient {
        /// Which client.
        client: usize,
        /// How long, milliseconds.
        ms: u64,
    },
    /// The broker's process is paused.
    FreezeBroker {
        /// How long, milliseconds.
        ms: u64,
    },
    /// A broker of several is paused.
    Pause {
        /// Which, counted from the leader round.
        nth: usize,
        /// How long, milliseconds.
        ms: u64,
        /// With its whole machine, so that its clock stands still.
        whole: bool,
    },
    /// The leader of several is paused with its whole machine when the store has answered its next
    /// look, and it does not know so yet.
    PauseLooking {
        /// How long, milliseconds.
        ms: u64,
    },
    /// Nothing passes between a broker of several and the store.
    CutOff {
        /// Which, counted from the leader round.
        nth: usize,
        /// How long, milliseconds.
        ms: u64,
    },
    /// A broker of several is killed, and started again.
    KillNth {
        /// Which, counted from the leader round.
        nth: usize,
        /// How long it is away, milliseconds.
        away_ms: u64,
    },
    /// The leader of several hands over.
    HandOver,
    /// The broker is killed and started again.
    Kill {
        /// Where.
        point: Point,
        /// How long it is away, milliseconds.
        away_ms: u64,
        /// Whether the clients hear that their connections are gone.
        heard: bool,
    },
    /// The broker stops as planned and is started again.
    Stop {
        /// How long it is away, milliseconds.
        away_ms: u64,
    },
    /// The broker's wall clock is put elsewhere.
    WallJump {
        /// By how much, milliseconds.
        ms: i64,
    },
    /// The next commit fails.
    CommitFails {
        /// Whether it is durable all the same.
        committed: bool,
        /// How often opening again fails after it.
        reopens: u32,
    },
    /// Commits take long for a while.
    Stall {
        /// How long, milliseconds.
        ms: u64,
    },
    /// An admin does something.
    Admin(Admin),
}

impl Action {
    /// What kind of thing it is, for counting.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Acquire { .. } => "acquire",
            Self::Release { .. } => "release",
            Self::Abandon { .. } => "abandon",
            Self::Extend { .. } => "extend",
            Self::Close { .. } => "close",
            Self::Repeat { other: false, .. } => "repeat",
            Self::Repeat { other: true, .. } => "repeat-other",
            Self::LateClose { .. } => "late-close",
            Self::Provide { .. } => "provide",
            Self::Keyed { .. } => "keyed",
            Self::Cut { client_hears: true, broker_hears: true, .. } => "cut",
            Self::Cut { .. } => "half-open",
            Self::Partition { .. } => "partition",
            Self::Slow { .. } => "slow-reader",
            Self::FreezeClient { .. } => "frozen-client",
            Self::FreezeBroker { .. } => "frozen-broker",
            Self::Pause { nth: 0, whole: true, .. } => "paused-leader",
            Self::Pause { nth: 0, .. } => "frozen-leader",
            Self::Pause { .. } => "frozen-standby",
            Self::PauseLooking { .. } => "paused-looking",
            Self::CutOff { nth: 0, .. } => "leader-cut-off",
            Self::CutOff { .. } => "standby-cut-off",
            Self::KillNth { nth: 0, .. } => "leader-killed",
            Self::KillNth { .. } => "standby-killed",
            Self::HandOver => "hand-over",
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::WallJump { .. } => "wall-jump",
            Self::CommitFails { committed: false, .. } => "commit-fails",
            Self::CommitFails { committed: true, .. } => "commit-unknown",
            Self::Stall { .. } => "stall",
            Self::Admin(Admin::Revoke { forced: false, .. }) => "revoke",
            Self::Admin(Admin::Revoke { .. }) => "revoke-forced",
            Self::Admin(Admin::Kick { .. }) => "kick",
            Self::Admin(Admin::Mark { .. }) => "mark",
            Self::Admin(Admin::Apply { .. }) => "apply",
        }
    }
}

/// An action and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed {
    /// Milliseconds from the beginning.
    pub at_ms: u64,
    /// What.
    pub action: Action,
}

/// All of a run. The seed gives what no action says: the lab, the clients, every delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The seed.
    pub seed: u64,
    /// How many brokers there are; several share the store.
    pub brokers: usize,
    /// What happens, in order.
    pub actions: Vec<Timed>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        if self.brokers > 1 {
            writeln!(f, "brokers {}", self.brokers)?;
        }
        for Timed { at_ms, action } in &self.actions {
            let text = serde_json::to_string(action).map_err(|_| fmt::Error)?;
            writeln!(f, "{at_ms} {text}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        let seed = lines.next().and_then(|line| line.strip_prefix("seed ")?.trim().parse().ok());
        let seed = seed.ok_or("a script begins with `seed N`")?;
        let mut lines = lines.peekable();
        let brokers = lines.next_if(|line| line.starts_with("brokers ")).map(|line| line["brokers ".len()..].trim());
        let brokers = brokers.map_or(Ok(1), str::parse).map_err(|error| format!("brokers: {error}"))?;
        let actions = lines.map(|line| {
            let (at_ms, action) = line.split_once(' ').ok_or_else(|| format!("`{line}`: expected `MS ACTION`"))?;
            let at_ms = at_ms.parse().map_err(|error| format!("`{line}`: {error}"))?;
            let action = serde_json::from_str(action).map_err(|error| format!("`{line}`: {error}"))?;
            Ok(Timed { at_ms, action })
        });
        Ok(Self { seed, brokers: usize::clamp(brokers, 1, 9), actions: actions.collect::<Result<_, String>>()? })
    }
}
