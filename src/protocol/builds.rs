//! What is said of builds, over HTTP: to people, and between a broker and its agents.
//!
//! Moments here are wall time, Unix milliseconds in fields that end in `_ms`: builds are read by people and
//! forges, and nothing that keeps two holders apart depends on them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a log that an agent sends at once, at most.
pub const LOG_CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// How long a broker lets an agent wait for work before it answers that there is none, milliseconds.
pub const WORK_WAIT_MS_MAX: u64 = 30_000;

/// A build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildInfo {
    /// Its number.
    pub build: u64,
    /// The repository, `owner/name`.
    pub repository: String,
    /// The pipeline.
    pub pipeline: String,
    /// `branch main`, `pull request 7`, `tag v1`.
    pub line: String,
    /// The commit.
    pub sha: String,
    /// The pull request's title, or the commit's first line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether it comes from another repository.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fork: bool,
    /// `blocked`, `queued`, `preparing`, `running`, or how it ended: `passed`, `failed`, `cancelled`,
    /// `superseded`, `lost`, `timed_out`.
    pub state: String,
    /// Why, in words: what it waits for, how it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Set while it is to end before its steps are through: `cancelled` or `superseded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// What started it: `delivery 12`, `asked`, `retry of #3`.
    pub cause: String,
    /// Who.
    pub by: String,
    /// From 1.
    pub attempt: u32,
    /// The attempt's lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// The attempt's claim, while it waits: `leasehold why` tells more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<u64>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What its lease holds beside the executor, or held; absent where it was granted before brokers kept that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<BuildPick>,
    /// What its command exited with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The build that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<u64>,
    /// Who allowed a fork's commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// When it was made.
    pub created_ms: i64,
    /// When it began to wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<i64>,
    /// When it had its lease and its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_ms: Option<i64>,
    /// When its steps began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun_ms: Option<i64>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
    /// What it asks for beside its executor.
    pub needs: Vec<String>,
    /// The end of its log, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogEndInfo>,
    /// Why its forge does not show where it stands: what was said at the last try; only where one build is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_trouble: Option<String>,
    /// What happened to it, oldest first; only where one build is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<NoteInfo>,
}

/// A resource that a build was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildPick {
    /// What the build calls it.
    pub alias: String,
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// Slots of it.
    pub slots: u32,
}

/// A line of a build's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoteInfo {
    /// When.
    pub at_ms: i64,
    /// The state from here.
    pub state: String,
    /// Which attempt.
    pub attempt: u32,
    /// What happened.
    pub what: String,
    /// Who did it.
    pub by: String,
}

/// The end of a log, by which a reader knows that it has all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogEndInfo {
    /// Bytes.
    pub bytes: u64,
    /// Lines.
    pub lines: u64,
    /// SHA-256 over all bytes, hexadecimal digits.
    pub sha256: String,
}

/// A page of builds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BuildPage {
    /// Newest first.
    pub items: Vec<BuildInfo>,
    /// `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// Starts a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BuildStart {
    /// The repository, by its name in the configuration.
    pub repository: String,
    /// A branch, a tag (`refs/tags/v1`) or a pull request (`refs/pull/7/head`); absent is `main`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_ref: Option<String>,
    /// Only this pipeline; absent is all that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
}

/// Builds that were started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildsStarted {
    /// Their numbers.
    pub builds: Vec<u64>,
}

/// Allows a fork's commit, and that one only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BuildApprove {
    /// The commit that was looked at; absent is the build's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha: Option<String>,
}

/// Ends a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BuildCancel {
    /// For its history and its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Lines that were looked for (`GET /v1/builds/search`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SearchPage {
    /// Newest builds first, and lines of a log in their order.
    pub items: Vec<SearchHit>,
    /// `cursor` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Time ran out before the page was full: `next` goes on from there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// Logs that have ended and are not in the index yet: nothing of them is found.
    pub to_index: u64,
    /// Why the index is not used, or not kept up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// A line that was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SearchHit {
    /// The build.
    pub build: u64,
    /// The attempt whose log has it.
    pub attempt: u32,
    /// The line's number, from 1.
    pub line: u64,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<i64>,
    /// What it says, without colours; of a long line the part around what was looked for.
    pub text: String,
    /// The log has more such lines, which are passed over here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_in_log: bool,
    /// The build's repository.
    pub repository: String,
    /// Its pipeline.
    pub pipeline: String,
    /// `branch main`, `pull request 7`, `tag v1`.
    pub branch: String,
    /// Its state.
    pub state: String,
    /// The page that shows the line, from the broker's own address on.
    pub url: String,
}

/// A delivery of a forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryInfo {
    /// Its number.
    pub delivery: u64,
    /// `github`, `gitlab`, `gitea`.
    pub forge: String,
    /// The forge's own name for it.
    pub forge_id: String,
    /// The event.
    pub event: String,
    /// The repository, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// What it says, in words: `pull request 7 opened`.
    pub what: String,
    /// When it came.
    pub received_ms: i64,
    /// The delivery that this is a deliberate repeat of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// `accepted`, `done`, `failed`, `ignored`.
    pub outcome: String,
    /// Why it failed or was ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why its forge does not show what it found of its commit's pipelines: what was said at the last try; only
    /// where one delivery is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_trouble: Option<String>,
    /// Builds that it started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub started: Vec<u64>,
    /// Builds that it ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<u64>,
}

/// A page of deliveries.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryPage {
    /// Newest first.
    pub items: Vec<DeliveryInfo>,
    /// `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A delivery, with what the forge sent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeliveryShown {
    /// All but the payload.
    #[serde(flatten)]
    pub delivery: DeliveryInfo,
    /// What the forge sent, as JSON; a text where it is none.
    pub payload: serde_json::Value,
}

/// The answer to a forge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookAnswer {
    /// `accepted`: it is journalled and will be worked on. `duplicate`: it was before. `ignored`.
    pub outcome: String,
    /// The delivery; of a duplicate the first one's. Absent where nothing was journalled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<u64>,
    /// Why nothing comes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Builds that wait for an agent to take them (`GET /v1/agents/{name}/work?wait_ms=`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorkInfo {
    /// Each has a lease on a slot of this agent. Empty when there was none in time.
    pub builds: Vec<u64>,
}

/// Takes a build over (`POST /v1/builds/{id}/take`). Asked again by the same taker it answers the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildTake {
    /// The agent's name.
    pub agent: String,
    /// Random text that is this taker's own; the key under which it then reports and sends the log.
    pub key: String,
}

/// All that an agent needs for a build. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// The build.
    pub build: u64,
    /// Its attempt.
    pub attempt: u32,
    /// The repository.
    pub repository: String,
    /// The pipeline.
    pub pipeline: String,
    /// `branch main`, `pull request 7`.
    pub line: String,
    /// The session that holds its lease: the agent resumes it, and from then on keeps it.
    pub session: HandedSession,
    /// Where the commit is.
    pub checkout: Checkout,
    /// The steps, in order.
    pub steps: Vec<JobStep>,
    /// In a container; absent is on the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<JobContainer>,
    /// Variables.
    pub env: BTreeMap<String, String>,
    /// Variables that are secret, masked in the log.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// How long it may take from here, milliseconds.
    pub timeout_ms: u64,
    /// Between TERM and KILL, milliseconds.
    pub grace_ms: u64,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("build", &self.build)
            .field("attempt", &self.attempt)
            .field("repository", &self.repository)
            .field("pipeline", &self.pipeline)
            .field("steps", &self.steps)
            .field("secrets", &self.secrets.keys())
            .finish_non_exhaustive()
    }
}

/// A session that changes hands: whoever resumes it keeps it from then on.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandedSession {
    /// Its number.
    pub session: u64,
    /// Its secret.
    pub secret: String,
    /// The instance text to resume with.
    pub instance: String,
    /// The session's number for its one claim.
    pub request_id: u64,
    /// Its lease.
    pub lease: u64,
    /// Milliseconds.
    pub ttl_ms: u64,
}

/// Where a commit is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Checkout {
    /// For git.
    pub url: String,
    /// What has it there.
    pub git_ref: String,
    /// The commit.
    pub sha: String,
    /// The user name for the URL, where it needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The token or password for the URL. Never in a log or an argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobStep {
    /// What people call it.
    pub name: String,
    /// For `sh -e -c`.
    pub run: String,
}

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobContainer {
    /// `debian:bookworm`.
    pub image: String,
    /// `bridge`, `none`, `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `HOST:CONTAINER[:ro]`.
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

/// What an agent says of a build (`POST /v1/builds/{id}/report`, under the taker's key). Said again it
/// changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildReport {
    /// Which attempt.
    pub attempt: u32,
    /// What.
    #[serde(flatten)]
    pub what: Reported,
}

/// What an agent can say of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Reported {
    /// Its steps begin.
    Running,
    /// It is over: none of its processes is left, and its log was sent whole.
    Finished {
        /// `passed`, `failed`, `timed_out`; `stopped`: its lease ended under it, or it was cancelled;
        /// `lost`: something of the agent's own failed (the checkout, its disk), so it may be tried again.
        result: String,
        /// What the last step exited with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// For people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
        /// The log's end.
        log: LogEndInfo,
    },
}

/// A window of a log's lines (`GET /v1/builds/{id}/lines?attempt=&from=&count=`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLines {
    /// The build.
    pub build: u64,
    /// Which attempt's log it is.
    pub attempt: u32,
    /// Bytes of the log so far, those not kept too.
    pub bytes: u64,
    /// Lines so far.
    pub lines: u64,
    /// Whether more may come.
    pub more: bool,
    /// What is not kept, once the log is over its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<LogGap>,
    /// The lines; fewer than were asked for where they are long, none where the log has none yet.
    pub items: Vec<LogLine>,
}

/// The part of a log that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogGap {
    /// The first byte that is not kept.
    pub from: u64,
    /// The first byte that is kept again.
    pub to: u64,
    /// The first line that is not kept whole.
    pub first_line: u64,
    /// Lines that are not kept whole.
    pub lines: u64,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// From 1.
    pub number: u64,
    /// Where it begins, in bytes of the log.
    pub offset: u64,
    /// When it began, Unix milliseconds, by its agent's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// Its text without the line feed, at most 1 MiB of it; what is no UTF-8 is U+FFFD here.
    pub text: String,
    /// Whether it has more than that, or the rest is not kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Whether its line feed has come: the last line of a log that goes on may still grow.
    pub ended: bool,
}

/// How far a log is stored (answer to `PATCH /v1/builds/{id}/log`, and of its 409 where the offset is
/// another: go on from here).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogStored {
    /// Bytes that are stored for good: the offset that comes next.
    pub bytes: u64,
}
