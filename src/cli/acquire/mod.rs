//! `acquire`: leases for every other language, and for pipelines whose steps are processes.
//!
//! ```text
//!   foreground        this process holds it and tells what happens, a line of JSON each
//!   --detach          a keeper process holds it, for as long as another process lives
//!   --no-keeper       nobody holds it: it lives over HTTP by being renewed
//! ```
//!
//! This file owns the options and what is handed to the caller; each way of holding has its file.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

pub mod foreground;
pub mod format;
pub mod keeper;
pub mod keyed;

use self::format::Format;
use super::claim::ClaimOptions;
use super::granting::NotGranted;
use super::run::secrets::{self, SecretsDirectory};
use super::run::{SecretsHow, environment, outer_variables};
use super::{Failure, Globals, exit_code};
use crate::protocol::info::{LeaseInfo, PickInfo};
use crate::units::parse_duration_ms;

/// Hold resources without running a command
///
/// In the foreground it prints a line of JSON when they are granted and one for each thing that happens
/// after, and holds until a signal. With --detach a keeper holds them for as long as a process lives; with
/// --no-keeper they are held over HTTP, by `leasehold renew`. Exits with 120 when the lease was lost or ended,
/// 124 when none came within --wait, 125 for everything else.
#[derive(Debug, Args)]
pub struct AcquireCommand {
    #[command(flatten)]
    claim: ClaimOptions,
    /// Hold until stdin ends
    #[arg(long, conflicts_with_all = ["detach", "no_keeper"])]
    while_stdin: bool,
    /// Return when granted, and leave a keeper that holds while the process of --while-pid lives
    #[arg(long, requires = "while_pid", conflicts_with = "no_keeper")]
    detach: bool,
    /// The process for which a detached lease is held; it is stopped when the lease is lost or ends
    #[arg(long, value_name = "PID", requires = "detach")]
    while_pid: Option<i32>,
    /// Return when granted; the lease lives for --ttl (3m) after each `leasehold renew`
    #[arg(long)]
    no_keeper: bool,
    /// How to print what was granted; env and github need --detach or --no-keeper
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "json")]
    format: Format,
    /// Between TERM and KILL for the process of --while-pid; cut to what the lease leaves
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, default_value = "10s")]
    grace: u64,
    /// Hand over secrets too: in a file named by LEASEHOLD_SECRETS_FILE, or as variables
    #[arg(long, value_enum, value_name = "HOW")]
    secrets: Option<SecretsHow>,
}

/// What the caller is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// Always `granted`.
    pub event: String,
    /// The lease's number.
    pub lease: u64,
    /// The same number, for resources that compare.
    pub fence: u64,
    /// When the hold is over, lab time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_time: Option<String>,
    /// By alias; with their secrets only if asked for.
    pub resources: BTreeMap<String, Vec<PickInfo>>,
    /// The variables that a command under `run` would have.
    pub environment: BTreeMap<String, String>,
    /// Variables of an outer lease that must not be seen any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
}

/// A grant, with what must not show in a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandedOver {
    /// For the caller.
    pub granted: Granted,
    /// Secrets that are in it.
    pub hidden: Vec<String>,
}

impl AcquireCommand {
    /// Does it; answers what to exit with.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let format = self.format;
        let result = self.checked().and_then(|()| {
            if self.no_keeper {
                keyed::acquire(&self, globals)
            } else if self.detach {
                keeper::detach(&self, globals)
            } else {
                foreground::hold(&self, globals)
            }
        });
        let code = result.as_ref().map_or_else(|failure| failure.code, |code| *code);
        if format == Format::Env && code != exit_code::DONE {
            print!("{}", format::shell_failure(code));
        }
        result
    }

    fn checked(&self) -> Result<(), Failure> {
        if self.format != Format::Json && !self.detach && !self.no_keeper {
            let why = "in the foreground the lease ends with this process";
            return Err(Failure::own(format!("--format env and github need --detach or --no-keeper: {why}")));
        }
        if self.no_keeper && self.secrets == Some(SecretsHow::File) {
            let why = "nobody would be there to remove the file";
            return Err(Failure::own(format!("--no-keeper has no --secrets file: {why}. Use --secrets env")));
        }
        if self.format == Format::Github {
            // Before anything is waited for.
            format::github_files()?;
        }
        Ok(())
    }

    fn print(&self, handed: &HandedOver) -> Result<(), Failure> {
        let environment =
            environment::Environment { set: handed.granted.environment.clone(), removed: handed.granted.unset.clone() };
        match self.format {
            Format::Json => say_line(&handed.granted),
            Format::Env => super::output::print(&format::shell(&environment)),
            Format::Github => {
                super::output::print(&format::masks(handed.hidden.iter().map(String::as_str)))?;
                format::github(&environment)
            }
        }
    }
}

impl From<NotGranted> for Failure {
    fn from(not: NotGranted) -> Self {
        Self::new(not.code, not.message)
    }
}

/// A line of JSON on stdout, at once.
fn say_line(event: &impl Serialize) -> Result<(), Failure> {
    use std::io::Write;
    let mut line = serde_json::to_vec(event).map_err(|error| Failure::own(error.to_string()))?;
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&line)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::own(format!("stdout cannot be written: {error}")))
}

/// Makes what the caller is given of a lease; the secrets' file lives as long as its handle.
fn hand_over(
    lease: &LeaseInfo,
    url: &str,
    secrets: Option<SecretsHow>,
    key: Option<&str>,
) -> Result<(HandedOver, Option<SecretsDirectory>), Failure> {
    let shown = secrets == Some(SecretsHow::Env);
    let mut environment = environment::environment(lease, url, &outer_variables(), shown);
    let mut hidden = Vec::new();
    if let Some(key) = key {
        environment.removed.retain(|name| name != environment::LEASE_KEY);
        environment.set.insert(environment::LEASE_KEY.to_owned(), key.to_owned());
        hidden.push(key.to_owned());
    }
    let mut resources = lease.resources.clone();
    for pick in resources.values_mut().flatten() {
        if shown {
            hidden.extend(pick.secrets.values().cloned());
        } else {
            pick.secrets.clear();
        }
    }
    let mut directory = None;
    if secrets == Some(SecretsHow::File) {
        let file = environment::secrets_file(lease, secrets::outer());
        let made = SecretsDirectory::write(&file)
            .map_err(|error| Failure::own(format!("the secrets cannot be handed over: {error}")))?;
        let path = made.file().to_string_lossy().into_owned();
        environment.set.insert(environment::SECRETS_FILE.to_owned(), path);
        directory = Some(made);
    }
    let granted = Granted {
        event: "granted".to_owned(),
        lease: lease.lease,
        fence: lease.fence,
        until: lease.until,
        until_time: lease.until_time.clone(),
        resources,
        environment: environment.set,
        unset: environment.removed,
    };
    Ok((HandedOver { granted, hidden }, directory))
}
