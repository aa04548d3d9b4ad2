//! `run`: a command that holds a lease while it runs.
//!
//! ```text
//!   signals held back, subreaper, guard started      (one thread)
//!     ─▶ session ─▶ claim, wait ─▶ lease ─▶ command under the guard ─▶ release ─▶ close
//! ```
//!
//! This file owns the order of these steps and what is left behind after each way out of them:
//! nothing. The command's life is the guard's ([`guard`]); why it is stopped is decided in
//! [`hold`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub mod environment;
pub mod guard;
pub mod handle;
pub mod hold;
pub mod link;
pub mod report;
pub mod secrets;
pub mod signals;
pub mod tree;

use self::guard::talk::{Order, SessionKey, Start};
use self::handle::GuardHandle;
use self::hold::{Finish, Holding};
use self::link::GuardLink;
use self::report::{Ending, Report, ReportFile};
use self::secrets::SecretsDirectory;
use self::signals::Signals;
use super::claim::ClaimOptions;
use super::granting::{self, NotGranted};
use super::terminal::{Messages, TerminalState};
use super::{Failure, Globals, exit_code};
use crate::client::{LeaseGuard, Options};
use crate::protocol::info::LeaseInfo;
use crate::units::parse_duration_ms;

/// Between TERM and KILL for what the command leaves behind when it ends, at most.
const LEFTOVER_GRACE_MS_MAX: u64 = 2_000;
/// How long a release is tried when there is no broker; then the resources come back by
/// themselves, a ttl after the last sign of life.
const RELEASE: Duration = Duration::from_secs(5);
/// The same for a lease that was lost.
const RELEASE_LOST: Duration = Duration::from_millis(500);

/// Runs a command while resources are held for it.
#[derive(Debug, Args)]
pub struct RunCommand {
    #[command(flatten)]
    claim: ClaimOptions,
    /// Between TERM and KILL when the lease is ending; cut to what the lease leaves
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, default_value = "10s")]
    grace: u64,
    /// Run by `sh -c` when the lease is lost or ends under the command, for what a signal does not reach
    #[arg(long, value_name = "CMD")]
    on_lost: Option<String>,
    /// Write what happened as JSON, whatever it was
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How the command gets secrets: a file named by LEASEHOLD_SECRETS_FILE, or variables
    #[arg(long, value_enum, value_name = "HOW", default_value = "file")]
    secrets: SecretsHow,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How secrets are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SecretsHow {
    /// In the 0600 file that `LEASEHOLD_SECRETS_FILE` names.
    File,
    /// In `LEASEHOLD_<ALIAS>_SECRET_<NAME>`.
    Env,
}

/// What is made before there are threads.
struct Prepared {
    held: signals::Held,
    guard: GuardHandle,
    tree: tree::Tree,
}

impl RunCommand {
    /// Does it all; answers what to exit with.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let words: Vec<String> = self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let file = self.report.as_deref().map(ReportFile::create).transpose()?;
        let mut report = Report::begin(&words, &self.claim.needs);
        let terminal = TerminalState::save();
        let result = self.conduct(globals, &words, &mut report);
        if let Some(terminal) = terminal {
            terminal.restore();
        }
        if let Err(failure) = &result {
            report.end(Ending::Failed, failure.code, Some(failure.message.clone()));
        }
        if let Some(Err(error)) = file.map(|file| file.write(&report)) {
            eprintln!("leasehold: {error}");
        }
        result.map(|()| report.exit_code)
    }

    fn conduct(&self, globals: &Globals, words: &[String], report: &mut Report) -> Result<(), Failure> {
        let options = self.claim.session(globals)?;
        let own = |error: std::io::Error| Failure::own(format!("the command cannot be guarded: {error}"));
        let prepared = prepare().map_err(own)?;
        let messages = Messages::to_stderr();
        let runtime = super::runtime()?;
        let done = runtime.block_on(async {
            let mut signals = Signals::new(&prepared.held).map_err(own)?;
            let mut link = GuardLink::new(prepared.guard).map_err(own)?;
            let mut run = Run { command: self, globals, messages: &messages, signals: &mut signals, report };
            run.session(options, words, &mut link, &prepared.held.before, prepared.tree).await;
            link.done().await;
            Ok(())
        });
        // What still waits for a broker must not keep the command's caller waiting.
        runtime.shutdown_background();
        messages.flush();
        done
    }
}

/// Everything that has to happen while this process has one thread.
fn prepare() -> std::io::Result<Prepared> {
    let held = signals::hold()?;
    tree::become_subreaper()?;
    let mut tree = tree::Tree::below_self();
    tree.spare_present();
    Ok(Prepared { held, guard: GuardHandle::spawn_self()?, tree })
}

/// One `run` under way.
struct Run<'a> {
    command: &'a RunCommand,
    globals: &'a Globals,
    messages: &'a Messages,
    signals: &'a mut Signals,
    report: &'a mut Report,
}

impl Run<'_> {
    /// From the session's opening to its close, saying how it ended.
    async fn session(
        &mut self,
        options: Options,
        words: &[String],
        link: &mut GuardLink,
        blocked: &[i32],
        tree: tree::Tree,
    ) {
        let opened = granting::open(options, self.messages, self.signals).await;
        let client = match opened {
            Ok(client) => client,
            Err(not) => return self.not_granted(not),
        };
        if let (Some(session), Some(secret)) = (client.session(), client.secret()) {
            link.order(Order::Session(SessionKey { url: self.globals.url.clone(), session, secret }));
        }
        let request = self.command.claim.request(words);
        match granting::wait(&client, request, self.messages, self.signals).await {
            Ok(lease) => self.with(lease, link, blocked, tree).await,
            Err(not) => self.not_granted(not),
        }
        granting::close(&client).await;
    }

    fn not_granted(&mut self, not: NotGranted) {
        self.messages.line(&not.message);
        self.report.end(not.ended, not.code, Some(not.message));
    }

    async fn with(&mut self, lease: LeaseGuard, link: &mut GuardLink, blocked: &[i32], tree: tree::Tree) {
        let info = lease.info();
        self.report.granted(&info);
        let finish = match self.start(&lease, &info, blocked) {
            Ok((start, _secrets)) => {
                let (messages, signals, grace_ms) = (self.messages, &mut *self.signals, self.command.grace);
                Holding { lease: &lease, link, messages, signals, grace_ms, tree }.see_through(start).await
            }
            Err(error) => Finish {
                ended: Ending::Failed,
                code: exit_code::OWN,
                command: None,
                message: Some(format!("the secrets cannot be handed over: {error}")),
            },
        };
        self.finish(lease, finish).await;
    }

    /// What the guard starts, and the secrets' file, which lives as long as its handle.
    fn start(
        &self,
        lease: &LeaseGuard,
        info: &LeaseInfo,
        blocked: &[i32],
    ) -> std::io::Result<(Start, Option<SecretsDirectory>)> {
        let outer = outer_variables();
        let as_variables = self.command.secrets == SecretsHow::Env;
        let mut environment = environment::environment(info, &self.globals.url, &outer, as_variables);
        let file = match self.command.secrets {
            SecretsHow::File => environment::secrets_file(info, secrets::outer()),
            SecretsHow::Env => BTreeMap::new(),
        };
        let directory = if file.is_empty() { None } else { Some(SecretsDirectory::write(&file)?) };
        if let Some(directory) = &directory {
            let path = directory.file().to_string_lossy().into_owned();
            environment.set.insert(environment::SECRETS_FILE.to_owned(), path);
        }
        let start = Start {
            command: self.command.command.clone(),
            environment: environment.set,
            removed: environment.removed,
            bare: false,
            folder: None,
            group: nix::unistd::getpgrp().as_raw(),
            blocked: blocked.to_vec(),
            on_lost: self.command.on_lost.clone(),
            leftover_grace_ms: self.command.grace.min(LEFTOVER_GRACE_MS_MAX),
            deadline: Some(hold::deadline_of(&lease.state())),
            remove: directory.as_ref().map(|directory| directory.directory().to_owned()),
        };
        Ok((start, directory))
    }

    /// The command is gone: gives the lease back and says how it went.
    async fn finish(&mut self, lease: LeaseGuard, finish: Finish) {
        let outcome = if finish.code == exit_code::DONE { "passed" } else { "failed" };
        if let Some(status) = finish.command {
            self.report.command_ended(status);
        }
        if matches!(finish.ended, Ending::NotStarted | Ending::Failed)
            && let Some(message) = &finish.message
        {
            self.messages.line(message.clone());
        }
        self.report.end(finish.ended, finish.code, finish.message);
        self.report.outcome = Some(outcome);
        if let Some(summary) = self.report.summary() {
            self.messages.line(summary);
        }
        // Lost for want of a broker: most likely there is none to give it back to either.
        let patience = if finish.ended == Ending::Lost { RELEASE_LOST } else { RELEASE };
        let number = lease.lease();
        let over = lease.state().standing.is_final();
        if !over && tokio::time::timeout(patience, lease.release(Some(outcome))).await.is_err() {
            self.messages.line(format!("no broker to give lease {number} back to; it comes back by itself"));
        }
    }
}

/// The variables of an outer lease, and whatever else begins like them.
#[must_use]
pub fn outer_variables() -> BTreeMap<String, String> {
    let text = |word: OsString| word.into_string().ok();
    let all = std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?)));
    all.filter(|(name, _)| name.starts_with(environment::PREFIX)).collect()
}
