//! A pipeline: what `.leasehold.toml`, or the broker's configuration, says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How long a build may run unless its pipeline says otherwise, milliseconds.
pub const TIMEOUT_MS_DEFAULT: u64 = 60 * 60_000;
/// The longest that a build may run, milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 7 * 86_400_000;
/// Between TERM and KILL unless the pipeline says otherwise, milliseconds.
pub const GRACE_MS_DEFAULT: u64 = 10_000;
/// How often a build is tried again after it was lost, at most.
pub const RETRIES_MAX: u32 = 5;
/// The pool whose slots agents bring.
pub const EXECUTOR_POOL: &str = "executor";

/// When a pipeline is wanted, and what it does then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Which events start it.
    pub on: BTreeSet<On>,
    /// Globs of branches: the pushed one, a pull request's base. Empty is any. A leading `!` excludes.
    pub branches: Vec<String>,
    /// Globs of tags. Empty is any.
    pub tags: Vec<String>,
    /// Globs of paths, of which one must have changed. Empty is any. A leading `!` excludes.
    pub paths: Vec<String>,
    /// Whether draft pull requests are built.
    pub drafts: bool,
    /// What becomes of older builds of a line, where the pipeline says; else it goes by what started the
    /// build ([`On::concurrency`]).
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    /// What it does.
    pub plan: Arc<Plan>,
}

/// What starts a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Only somebody who asks for it, at the command line or over HTTP. Every pipeline can be asked for.
    Manual,
    /// A pull request.
    PullRequest,
    /// A push to a branch.
    Push,
    /// A tag.
    Tag,
}

impl On {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Manual, Self::PullRequest, Self::Push, Self::Tag];

    /// As in `.leasehold.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::PullRequest => "pull_request",
            Self::Push => "push",
            Self::Tag => "tag",
        }
    }

    /// What becomes of an older build of the same pipeline and line unless the pipeline says otherwise. Of a
    /// pull request only its newest commit is of interest, so that supersedes. What is on a branch or a tag
    /// stays there, and such builds publish and deploy: each is carried out, one after the other.
    #[must_use]
    pub const fn concurrency(self) -> Concurrency {
        match self {
            Self::PullRequest => Concurrency::Supersede,
            Self::Manual | Self::Push | Self::Tag => Concurrency::Queue,
        }
    }
}

/// What a build does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The pipeline's name, `[a-z][a-z0-9_-]{0,62}`; one of a kind in its repository.
    pub name: Arc<str>,
    /// NEED texts beside the executor.
    pub needs: Vec<String>,
    /// What the agent must be, as the labels of a NEED: `os=linux,arch=x86_64`. Empty is any.
    pub agent: String,
    /// What is run, one after the other until one fails, by `sh -e -c`.
    pub steps: Vec<Step>,
    /// The container's image; `None` runs on the agent itself.
    pub container: Option<Container>,
    /// Variables for the steps.
    pub env: BTreeMap<String, String>,
    /// Names of secrets that the broker's configuration has for the repository; variables for the steps.
    pub secrets: BTreeSet<String>,
    /// How long it may run from the grant, milliseconds.
    pub timeout_ms: u64,
    /// How long it may wait, milliseconds; `None` is for ever.
    pub wait_ms: Option<u64>,
    /// Between TERM and KILL, milliseconds.
    pub grace_ms: u64,
    /// -10 to 10.
    pub priority: i8,
    /// What becomes of an older build of the same line.
    pub concurrency: Concurrency,
    /// How often it is tried again after it was lost.
    pub retries: u32,
}

impl Plan {
    /// The NEED of an agent that the plan may run on.
    #[must_use]
    pub fn executor_need(&self) -> String {
        executor_need(&self.agent)
    }
}

/// The NEED of an agent with these labels: `os=linux`, or nothing.
#[must_use]
pub fn executor_need(agent: &str) -> String {
    if agent.is_empty() { EXECUTOR_POOL.to_owned() } else { format!("{EXECUTOR_POOL},{agent}") }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What people call it; the command's first line where nothing is said.
    pub name: String,
    /// For the shell.
    pub run: String,
}

/// A container, as far as a pipeline may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// `debian:bookworm`.
    pub image: String,
    /// `bridge`, `none` or `host`; absent is the engine's own default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `HOST:CONTAINER[:ro]`, of folders that the broker's configuration allows the repository.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_milli: Option<u64>,
    /// Processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// What becomes of older builds of the same pipeline and line (a branch, or a pull request).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Concurrency {
    /// They go on.
    Parallel,
    /// The newer one waits for them.
    Queue,
    /// They are ended.
    Supersede,
}
