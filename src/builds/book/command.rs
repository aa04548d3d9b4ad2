//! What the book is told, and what it answers.

use std::fmt;
use std::sync::Arc;

use crate::builds::build::{Build, BuildId, LogEnd, Phase, Pick, Subject};
use crate::builds::delivery::{DeliveryId, Incoming, Received};
use crate::builds::happening::Sha;
use crate::builds::plan::Plan;
use crate::builds::status::{self, StatusKey};

/// Something to decide.
#[derive(Clone, Debug)]
pub enum Command {
    /// A delivery came in whose signature was right.
    Receive(Incoming),
    /// The definitions for a delivery were looked at.
    Work {
        /// Which delivery.
        delivery: DeliveryId,
        /// The repository, by its name in the configuration.
        repository: Arc<str>,
        /// What it asks for.
        found: Found,
    },
    /// Somebody asks for builds.
    Start {
        /// The repository, by its name in the configuration.
        repository: Arc<str>,
        /// What is built.
        subject: Subject,
        /// How.
        wanted: Vec<Arc<Plan>>,
        /// Who.
        by: Arc<str>,
    },
    /// Somebody asks for a build that is over once more.
    Retry {
        /// That build.
        of: Arc<Build>,
        /// Who.
        by: Arc<str>,
    },
    /// Somebody ends a build.
    Cancel {
        /// Which.
        build: BuildId,
        /// Why.
        reason: Option<Arc<str>>,
        /// Who.
        by: Arc<str>,
    },
    /// Somebody allows a fork's commit.
    Approve {
        /// A build of it that is blocked.
        build: BuildId,
        /// The commit that was looked at, where they say.
        sha: Option<Sha>,
        /// Who.
        by: Arc<str>,
    },
    /// A session was opened for a build that waits. Its claim is made once this is stored.
    Opened {
        /// Which build.
        build: BuildId,
        /// Its session.
        session: u64,
    },
    /// Its claim was granted.
    Granted {
        /// Which build.
        build: BuildId,
        /// The session that claimed.
        session: u64,
        /// The lease.
        lease: u64,
        /// The agent whose executor it has.
        agent: Arc<str>,
        /// What it has beside that.
        picks: Vec<Pick>,
    },
    /// Its claim ended without a lease, or cannot be made, and would not fare better made again.
    Denied {
        /// Which build.
        build: BuildId,
        /// What becomes of it.
        to: Phase,
        /// Why.
        reason: Arc<str>,
        /// By whom.
        by: Arc<str>,
    },
    /// An agent takes a build over.
    Take {
        /// Which build.
        build: BuildId,
        /// The agent's name.
        agent: Arc<str>,
        /// The hash of the taker's key.
        key_hash: Arc<str>,
    },
    /// Its taker was never told the session that it took, and nobody knows the session's secret any more.
    Untake {
        /// Which build.
        build: BuildId,
        /// The hash of the taker's key.
        key_hash: Arc<str>,
    },
    /// Its agent says how it goes.
    Report {
        /// Which build.
        build: BuildId,
        /// Which attempt.
        attempt: u32,
        /// The hash of the taker's key.
        key_hash: Arc<str>,
        /// What it says.
        what: Report,
    },
    /// The session is gone from the engine, and with it all that it held.
    Gone {
        /// Which build.
        build: BuildId,
        /// The session.
        session: u64,
        /// How.
        how: Gone,
    },
    /// Time has passed.
    Tick,
    /// A forge answered to a status, or did not.
    Status {
        /// Where it goes.
        key: StatusKey,
        /// Which version.
        version: u64,
        /// What came of it.
        answer: status::Answer,
    },
}

/// What the definitions ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// These pipelines. For an event that only ends builds: those whose builds may go on.
    Wanted(Vec<Arc<Plan>>),
    /// Nothing, and why.
    Nothing(Arc<str>),
    /// They were read, and have a mistake: which, and where.
    Mistaken(Arc<str>),
    /// They could not be read, and why.
    Failed(Arc<str>),
    /// There is no such repository here, in words: nobody looked.
    Unknown(Arc<str>),
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its steps begin.
    Running,
    /// It is over: none of its processes is left, and its log was sent whole.
    Finished {
        /// How.
        result: Finished,
        /// What the last step exited with.
        exit_code: Option<i32>,
        /// For people.
        message: Option<Arc<str>>,
        /// The end of its log.
        log: LogEnd,
    },
}

/// How an agent says that a build went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// A step failed.
    Failed,
    /// Something of the agent's own failed: it may be tried again.
    Lost,
    /// All steps passed.
    Passed,
    /// Its lease ended under it, or it was ended.
    Stopped,
    /// It took too long.
    TimedOut,
}

/// How a session ended, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It gave no sign of life, or nobody knows; in words.
    Lost(Arc<str>),
    /// The time for which it could be held was over.
    HoldEnded,
    /// Somebody revoked its lease or ended its session; who, and why in words.
    Revoked(Arc<str>, Arc<str>),
}

/// What the book answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing to say.
    Done,
    /// To a delivery.
    Received(Received),
    /// Builds that were started.
    Started(Vec<BuildId>),
    /// The build as it is now.
    Build(Arc<Build>),
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable; `docs/protocol.md` has them.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
