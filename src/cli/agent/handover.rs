//! What an agent and the process of a build say to each other, as lines of JSON over a socket pair.
//!
//! The build's process gets its job this way and not by arguments or variables, which others on the machine
//! can read. The socket is also the sign that the agent lives: when it closes, the build is stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock::BootTime;
use crate::protocol::builds::Job;

/// What an agent tells a build's process.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToBuild {
    /// First: what to do.
    Begin(Box<Handover>),
    /// Stop, gently.
    Stop,
}

/// What a build's process tells its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromBuild {
    /// It is over, and nothing of it is left.
    Ended {
        /// For people: how, and why.
        what: String,
    },
}

/// A build, and what its agent was told at the start.
#[derive(Clone, Serialize, Deserialize)]
pub struct Handover {
    /// What to do.
    pub job: Job,
    /// The key that it was taken under.
    pub key: String,
    /// When it was taken, on this machine's clock.
    pub taken_at: BootTime,
    /// The brokers, as `--url` has them.
    pub url: String,
    /// The build's own folder.
    pub folder: PathBuf,
    /// Where mirrors of repositories are.
    pub mirrors: PathBuf,
    /// The agent's name.
    pub agent: String,
    /// Variables of the agent that its builds get too.
    pub passed_on: BTreeMap<String, String>,
    /// Where containers run.
    pub containers: ContainerPolicy,
    /// How long no broker may be there before the build is given up, before it has begun.
    pub connect_timeout_ms: u64,
    /// Whether the folder is kept where the build did not pass.
    pub keep_failed: bool,
}

/// What an agent allows containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPolicy {
    /// The socket of the engine; `None` looks for one.
    pub socket: Option<String>,
    /// Host folders of which containers may mount what is in them.
    pub mount_allow: Vec<PathBuf>,
}
