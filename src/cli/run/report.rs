//! What a `run` says of itself at the end: one line for people, a file for programs.
//!
//! The exit code alone cannot say it: a command may exit with the numbers that `run` uses itself.
//! No secret is ever in either.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::tree;
use crate::cli::Failure;
use crate::clock::{self, BootTime};
use crate::protocol::info::LeaseInfo;
use crate::units::{rfc3339, show_duration_ms};

/// How a `run` came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The command ended by itself; `exit_code` or `signal` of the command says how.
    CommandEnded,
    /// The command could not be started.
    NotStarted,
    /// The lease was lost, and the command stopped.
    Lost,
    /// The broker ended the lease (its hold was over, it was revoked), and the command was stopped.
    LeaseEnded,
    /// No lease within `--wait`.
    TimedOut,
    /// The broker refused the claim.
    Refused,
    /// No broker within `--connect-timeout`.
    NoBroker,
    /// A signal ended the wait for a lease.
    Interrupted,
    /// Something else of `run`'s own.
    Failed,
}

/// What happened.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How it came to its end.
    pub ended: Ending,
    /// What `run` exits with.
    pub exit_code: u8,
    /// In words, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The command.
    pub command: Vec<String>,
    /// What it exited with itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_signal: Option<i32>,
    /// What was asked.
    pub needs: Vec<String>,
    /// The lease, which is its fence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// What was held, per alias, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Vec<String>>,
    /// What was said of the work at release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// When `run` began, by this machine's wall clock.
    pub began_at_time: String,
    /// Until the grant, or the end of waiting.
    pub waited_ms: u64,
    /// From the grant to the end of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_ms: Option<u64>,
    #[serde(skip)]
    began: BootTime,
    #[serde(skip)]
    granted: Option<BootTime>,
}

impl Report {
    /// Begins now.
    #[must_use]
    pub fn begin(command: &[String], needs: &[String]) -> Self {
        Self {
            ended: Ending::Failed,
            exit_code: crate::cli::exit_code::OWN,
            message: None,
            command: command.to_vec(),
            command_exit_code: None,
            command_signal: None,
            needs: needs.to_vec(),
            lease: None,
            resources: BTreeMap::new(),
            outcome: None,
            began_at_time: rfc3339(clock::wall_now_ms()),
            waited_ms: 0,
            held_ms: None,
            began: clock::boot_now(),
            granted: None,
        }
    }

    /// The lease is there.
    pub fn granted(&mut self, lease: &LeaseInfo) {
        let now = clock::boot_now();
        self.waited_ms = now.since(self.began);
        self.granted = Some(now);
        self.lease = Some(lease.lease);
        let names = |picks: &Vec<crate::protocol::info::PickInfo>| picks.iter().map(|pick| pick.name.clone()).collect();
        self.resources = lease.resources.iter().map(|(alias, picks)| (alias.clone(), names(picks))).collect();
    }

    /// It is over: how, and what `run` exits with.
    pub fn end(&mut self, ended: Ending, exit_code: u8, message: Option<String>) {
        let now = clock::boot_now();
        self.ended = ended;
        self.exit_code = exit_code;
        self.message = message;
        match self.granted {
            Some(granted) => self.held_ms = Some(now.since(granted)),
            None => self.waited_ms = now.since(self.began),
        }
    }

    /// How the command itself ended.
    pub fn command_ended(&mut self, status: tree::Ended) {
        match status {
            tree::Ended::Code(code) => self.command_exit_code = Some(code),
            tree::Ended::Signal(number) => self.command_signal = Some(number),
        }
    }

    /// What was held, how long, how long it was waited for; `None` where nothing was held.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let (lease, held_ms) = (self.lease?, self.held_ms?);
        let what: Vec<String> =
            self.resources.iter().map(|(alias, names)| format!("{alias} {}", names.join(" "))).collect();
        Some(format!(
            "held {} for {} after {} of waiting (lease {lease})",
            what.join(", "),
            show_duration_ms(held_ms),
            show_duration_ms(self.waited_ms),
        ))
    }
}

/// The file of `--report`. Opened at the beginning, so that a wrong path is told before anything
/// is waited for.
#[derive(Debug)]
pub struct ReportFile {
    file: File,
    path: String,
}

impl ReportFile {
    /// Makes it, empty.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let shown = path.display().to_string();
        match File::create(path) {
            Ok(file) => Ok(Self { file, path: shown }),
            Err(error) => Err(Failure::own(format!("the report {shown} cannot be written: {error}"))),
        }
    }

    /// Writes it; answers what went wrong.
    pub fn write(mut self, report: &Report) -> Result<(), String> {
        let mut text = serde_json::to_vec_pretty(report).map_err(|error| error.to_string())?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(|error| format!("the report {} cannot be written: {error}", self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Report};
    use crate::cli::run::tree::Ended;

    #[test]
    fn a_report_tells_the_commands_code_from_runs_own() {
        let mut report = Report::begin(&["false".to_owned()], &["phone".to_owned()]);
        report.command_ended(Ended::Code(120));
        report.end(Ending::CommandEnded, 120, None);
        let told = serde_json::to_value(&report).unwrap();
        assert_eq!((&told["ended"], &told["exit_code"]), (&"command_ended".into(), &120.into()));
        assert_eq!((&told["command_exit_code"], &told["needs"][0]), (&120.into(), &"phone".into()));
        assert!(told.get("held_ms").is_none() && report.summary().is_none());
    }
}
