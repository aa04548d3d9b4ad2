//! `build`: what is built, what was, and what people do about it.

mod log;
mod screen;
mod search;
mod show;

use clap::{Args, Subcommand};
use serde_json::json;

use super::broker::Broker;
use super::output::{self, Cell, Screen, Style, Table};
use super::words;
use super::{Failure, Globals, exit_code};
use crate::clock::wall_now_ms;
use crate::protocol::builds::{BuildApprove, BuildCancel, BuildInfo, BuildStart, BuildsStarted};
use crate::units::show_duration_ms;

/// Builds that are listed unless told otherwise.
const LISTED: usize = 30;

/// Look at builds, read their logs, start, end and allow them
#[derive(Debug, Args)]
pub struct BuildCommand {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List builds, newest first
    Ls {
        /// Only of this repository, OWNER/NAME
        #[arg(long, value_name = "REPOSITORY")]
        repository: Option<String>,
        /// Only of this pipeline
        #[arg(long)]
        pipeline: Option<String>,
        /// Only in this state: blocked, queued, preparing, running, passed, failed, cancelled, superseded, lost,
        /// timed_out
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = LISTED)]
        limit: usize,
    },
    /// Show a build: where it stands and why, what it waits for, what happened to it
    Show {
        /// Its number
        #[arg(value_parser = build_number)]
        build: u64,
    },
    /// Print a build's log
    Log(log::LogOptions),
    Search(search::SearchOptions),
    /// End a build: its processes are stopped, then what it held is free
    Cancel {
        /// Its number
        #[arg(value_parser = build_number)]
        build: u64,
        /// Why, for its history
        #[arg(long)]
        reason: Option<String>,
    },
    /// Build once more what a build that is over was for
    Retry {
        /// Its number
        #[arg(value_parser = build_number)]
        build: u64,
    },
    /// Let the commit of a fork run: this one, and no later one
    Approve {
        /// The number of a build of it, which is blocked
        #[arg(value_parser = build_number)]
        build: u64,
        /// The commit that you looked at: another one is refused
        #[arg(long, value_name = "COMMIT")]
        sha: Option<String>,
    },
    /// Start builds without anything having happened at the forge
    Start {
        /// The repository, OWNER/NAME as in the broker's configuration
        repository: String,
        /// A branch, refs/tags/NAME or refs/pull/NUMBER/head [default: the repository's own branch]
        #[arg(long = "ref", value_name = "REF")]
        git_ref: Option<String>,
        /// Only this pipeline [default: all of the commit's]
        #[arg(long)]
        pipeline: Option<String>,
    },
}

/// Reads a build's number, with or without `#`.
fn build_number(text: &str) -> Result<u64, String> {
    words::numbered(text, '#', "build")
}

impl BuildCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        let json = self.json;
        match self.act {
            Act::Ls { repository, pipeline, state, limit } => {
                let which = [("repository", repository), ("pipeline", pipeline), ("state", state)];
                list(&broker, json, &which, limit)
            }
            Act::Show { build } => show::show(&broker, json, build),
            Act::Log(options) => log::log(&broker, &options),
            Act::Search(options) => options.search(&broker, json),
            Act::Cancel { build, reason } => {
                let info: BuildInfo = broker.post(&path(build, "cancel"), &BuildCancel { reason })?;
                told(
                    json,
                    &info,
                    &match info.ending {
                        Some(_) => {
                            format!("build #{build} is stopping: what it holds is free when its processes are gone")
                        }
                        None => format!("build #{build} is {}", info.state),
                    },
                )
            }
            Act::Retry { build } => started(json, &broker.post(&path(build, "retry"), &json!({}))?),
            Act::Approve { build, sha } => {
                let info: BuildInfo = broker.post(&path(build, "approve"), &BuildApprove { sha })?;
                told(json, &info, &format!("commit {} is allowed: build #{build} is {}", short(&info.sha), info.state))
            }
            Act::Start { repository, git_ref, pipeline } => {
                started(json, &broker.post("/v1/builds", &BuildStart { repository, git_ref, pipeline })?)
            }
        }
    }
}

fn path(build: u64, act: &str) -> String {
    format!("/v1/builds/{build}/{act}")
}

fn told(json: bool, info: &BuildInfo, message: &str) -> Result<u8, Failure> {
    if json {
        output::print(&output::json(info)?)?;
    } else {
        output::say(message);
    }
    Ok(exit_code::DONE)
}

fn started(json: bool, started: &BuildsStarted) -> Result<u8, Failure> {
    if json {
        output::print(&output::json(started)?)?;
        return Ok(exit_code::DONE);
    }
    let numbers: Vec<String> = started.builds.iter().map(|number| format!("#{number}")).collect();
    output::say(&match numbers.as_slice() {
        [] => "no pipeline is there to start".to_owned(),
        [number] => format!("build {number} is started; `leasehold build log -f {number}` follows it"),
        numbers => format!("builds {} are started", numbers.join(" ")),
    });
    Ok(exit_code::DONE)
}

fn list(broker: &Broker, json: bool, which: &[(&str, Option<String>)], limit: usize) -> Result<u8, Failure> {
    let items: Vec<BuildInfo> = broker.newest("/v1/builds", which, limit)?;
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say("no such builds");
    } else {
        output::print(&table(&items, wall_now_ms()).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn table(items: &[BuildInfo], now_ms: i64) -> Table {
    let mut table =
        Table::new(&["BUILD", "STATE", "REPOSITORY", "PIPELINE", "WHAT", "COMMIT", "BY", "TIME", "AGE", "WHY"]);
    for build in items {
        table.row([
            format!("#{}", build.build).into(),
            state(build),
            build.repository.as_str().into(),
            build.pipeline.as_str().into(),
            build.line.as_str().into(),
            short(&build.sha).into(),
            build.by.as_str().into(),
            ran_for(build, now_ms).into(),
            age(build.created_ms, now_ms).into(),
            build.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

/// Where a build stands, in its colour.
fn state(build: &BuildInfo) -> Cell {
    let text = match &build.ending {
        Some(ending) => format!("{} (to be {ending})", build.state),
        None => build.state.clone(),
    };
    let style = match build.state.as_str() {
        "passed" => Style::Good,
        "blocked" | "queued" | "preparing" | "running" => Style::Busy,
        "failed" | "lost" | "timed_out" => Style::Bad,
        _ => Style::Plain,
    };
    Cell::styled(text, style)
}

/// Whether nothing more comes of a build.
fn is_over(build: &BuildInfo) -> bool {
    !matches!(build.state.as_str(), "blocked" | "queued" | "preparing" | "running")
}

/// How long it has run, or ran.
fn ran_for(build: &BuildInfo, now_ms: i64) -> String {
    let Some(from) = build.prepared_ms else { return String::new() };
    lasted(build.ended_ms.unwrap_or(now_ms).saturating_sub(from))
}

fn lasted(ms: i64) -> String {
    show_duration_ms(output::round_ms(u64::try_from(ms).unwrap_or(0)))
}

fn age(at_ms: i64, now_ms: i64) -> String {
    format!("{} ago", lasted(now_ms.saturating_sub(at_ms)))
}

/// A commit as people write it.
fn short(sha: &str) -> &str {
    sha.get(..10).unwrap_or(sha)
}
