//! A build, and the phases of its life.
//!
//! ```text
//!             allowed            granted, and taken      its steps begin
//!   blocked ──────────▶ queued ────────────▶ preparing ────────────▶ running
//!      │                 │  ▲                    │                     │
//!      │                 │  └──── lost, and to be tried again ─────────┤
//!      ▼                 ▼                       ▼                     ▼
//!   cancelled, superseded            passed, failed, timed out, cancelled, superseded, lost
//! ```
//!
//! Where a build that holds a lease is to end early, that is noted at once (`ending`), and its phase changes
//! when its processes are gone and its session with them: a final phase says that nothing is held.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::delivery::DeliveryId;
use super::happening::Sha;
use super::plan::Plan;

/// A build's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(pub u64);

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Its number.
    pub id: BuildId,
    /// The repository, by its name in the configuration (the forge's full name of it).
    pub repository: Arc<str>,
    /// What is built.
    pub subject: Subject,
    /// What started it.
    pub cause: Cause,
    /// Who.
    pub by: Arc<str>,
    /// What it does.
    pub plan: Arc<Plan>,
    /// Where it stands.
    pub phase: Phase,
    /// Why it stands there, for people: what it waits for, how it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// Set when it only waits for its session's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// From 1; a build that was lost may be tried again, each time with a log of its own.
    pub attempt: u32,
    /// The attempt's session with the engine, while it may have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The attempt's lease, once granted; stays for people when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// The agent that has it, by the name of its executor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Arc<str>>,
    /// What its lease holds beside the executor; stays for people when it is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub picks: Vec<Pick>,
    /// SHA-256 of the key of whoever took the attempt, hexadecimal digits: who reports of it and sends its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<Arc<str>>,
    /// What the last step exited with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When, Unix milliseconds; `None` where it has not come to that.
    pub times: Times,
    /// Who allowed a fork's commit to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Arc<str>>,
    /// The end of the last attempt's log, as its agent counted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogEnd>,
    /// The attempt's agent said that it is over: none of its processes is left, and its log is whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reported: bool,
}

/// A resource that a build was given: what people need to find it again, and nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pick {
    /// What the build calls it.
    pub alias: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Slots of it.
    pub slots: u32,
}

impl fmt::Display for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.alias != self.pool {
            write!(f, "{}=", self.alias)?;
        }
        write!(f, "{}/{}", self.pool, self.name)?;
        if self.slots > 1 { write!(f, " ({} slots)", self.slots) } else { Ok(()) }
    }
}

/// What is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Where it belongs: newer builds of a line supersede or follow older ones.
    pub line: Line,
    /// The commit.
    pub sha: Sha,
    /// What has the commit at the forge: `refs/heads/main`, `refs/pull/7/head`.
    pub git_ref: Arc<str>,
    /// A pull request's base: the branch, and its commit where the forge says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<(Arc<str>, Option<Sha>)>,
    /// For people: the pull request's title, the commit's first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Arc<str>>,
    /// Whether it comes from another repository.
    pub fork: bool,
}

/// A line of development, of which one state at a time is of interest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A branch.
    Branch(Arc<str>),
    /// A pull request.
    Pull(u64),
    /// A tag.
    Tag(Arc<str>),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Branch(name) => write!(f, "branch {name}"),
            Self::Pull(number) => write!(f, "pull request {number}"),
            Self::Tag(name) => write!(f, "tag {name}"),
        }
    }
}

/// What started a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "snake_case")]
pub enum Cause {
    /// A forge's event.
    Delivery {
        /// Its delivery.
        delivery: DeliveryId,
    },
    /// Somebody asked, at the command line or over HTTP.
    Asked,
    /// Somebody asked for a build once more.
    Retry {
        /// Which.
        of: BuildId,
    },
}

/// Where a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A fork's, and nobody has allowed this commit: it holds nothing and sees no secret.
    Blocked,
    /// It waits: for an older build of its line, or as a claim.
    Queued,
    /// It has its lease; an agent checks the commit out.
    Preparing,
    /// Its steps run.
    Running,
    /// They succeeded.
    Passed,
    /// One failed, or it could not be begun.
    Failed,
    /// Somebody ended it, or its pull request was closed.
    Cancelled,
    /// A newer build of its line took its place.
    Superseded,
    /// Its agent or its lease was lost.
    Lost,
    /// It took too long.
    TimedOut,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Blocked,
        Self::Queued,
        Self::Preparing,
        Self::Running,
        Self::Passed,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
        Self::Lost,
        Self::TimedOut,
    ];

    /// As in the books and over the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Preparing => "preparing",
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
        }
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Blocked | Self::Queued | Self::Preparing | Self::Running)
    }

    /// Whether a build may go from here to there.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        match self {
            Self::Blocked => matches!(next, Self::Queued | Self::Cancelled | Self::Superseded),
            // Failed: it can never be granted, or waited too long. Lost: not from here, it has no agent.
            Self::Queued => {
                matches!(next, Self::Preparing | Self::Cancelled | Self::Superseded | Self::Failed | Self::TimedOut)
            }
            // Back to queued: lost, and to be tried again.
            Self::Preparing | Self::Running => {
                (next.is_final() || matches!(next, Self::Queued))
                    || (matches!(self, Self::Preparing) && matches!(next, Self::Running))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a build comes to as soon as its session is gone, and why: it is to end early, or its agent said
/// how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Its phase then: a final one, or queued where it is tried again.
    pub to: Phase,
    /// Why, in words.
    pub reason: Arc<str>,
    /// By whom.
    pub by: Arc<str>,
    /// Since when, Unix milliseconds.
    pub since_ms: i64,
    /// The build that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<BuildId>,
}

/// When a build came to what, Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// It was made.
    pub created_ms: i64,
    /// It began to wait; a fork's when it was allowed.
    pub queued_ms: Option<i64>,
    /// It had its lease and its agent.
    pub prepared_ms: Option<i64>,
    /// Its steps began.
    pub begun_ms: Option<i64>,
    /// It was over.
    pub ended_ms: Option<i64>,
}

/// The end of a log, by which a reader knows that it has all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// Bytes.
    pub bytes: u64,
    /// Lines; a last one without its line feed counts.
    pub lines: u64,
    /// SHA-256 over all bytes, also those not kept, as hexadecimal digits.
    pub sha256: Arc<str>,
}
