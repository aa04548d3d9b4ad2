//! `build log`: a log as text, whole or as it grows, over broken connections and failovers.
//!
//! Bytes are addressed by their offset, so whatever breaks off is gone on with at the byte after the last
//! printed one; and at the end the agent's own count and hash tell whether it was all of it.

use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use clap::Args;
use sha2::{Digest as _, Sha256};

use super::screen::ForTerminal;
use super::{build_number, is_over};
use crate::cli::broker::{Broker, path_with};
use crate::cli::{Failure, exit_code, output};
use crate::protocol::builds::{BuildInfo, LogGap, LogLines};
use crate::units::hex;

/// How soon a log is asked for again after the connection was lost.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether a build whose log has ended is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Which log, and how.
#[derive(Debug, Args)]
pub(super) struct LogOptions {
    /// The build's number
    #[arg(value_parser = build_number)]
    build: u64,
    /// Print what comes until the build is over, its further attempts too; exit with 0 where it passed, else 1
    #[arg(short, long)]
    follow: bool,
    /// Of this attempt [default: the last]
    #[arg(long)]
    attempt: Option<u32>,
    /// Print every byte as it is, also what could steer a terminal; always so where stdout is none
    #[arg(long)]
    raw: bool,
}

/// Prints it.
pub(super) fn log(broker: &Broker, options: &LogOptions) -> Result<u8, Failure> {
    let build = options.build;
    let begun = look(broker, build)?;
    let mut attempt = options.attempt.unwrap_or(begun.attempt);
    let screen = !options.raw && std::io::stdout().is_terminal();
    loop {
        let mut reading = Reading::new(broker, build, attempt, screen);
        let read = broker
            .block_on(async { if options.follow { reading.follow().await } else { reading.as_it_is().await } })?;
        if read == Over::Reader {
            return Ok(exit_code::DONE);
        }
        let ended = if options.follow { over(broker, build, attempt)? } else { look(broker, build)? };
        if ended.attempt == attempt {
            reading.check(&ended)?;
        }
        if !options.follow {
            return Ok(exit_code::DONE);
        }
        if ended.attempt > attempt && options.attempt.is_none() {
            output::say(&format!("leasehold: attempt {attempt} was lost; attempt {} follows", ended.attempt));
            attempt = ended.attempt;
            continue;
        }
        return how_it_went(&ended, attempt);
    }
}

fn look(broker: &Broker, build: u64) -> Result<BuildInfo, Failure> {
    broker.get(&format!("/v1/builds/{build}"))
}

/// The build once an attempt of it is over: its log ends a little earlier.
fn over(broker: &Broker, build: u64, attempt: u32) -> Result<BuildInfo, Failure> {
    loop {
        match look(broker, build) {
            Ok(info) if info.attempt > attempt || is_over(&info) => return Ok(info),
            Err(failure) if failure.code != exit_code::OWN => return Err(failure),
            Ok(_) | Err(_) => broker.block_on(async { tokio::time::sleep(LOOK_EVERY).await }),
        }
    }
}

fn how_it_went(build: &BuildInfo, attempt: u32) -> Result<u8, Failure> {
    if build.attempt > attempt {
        output::say(&format!("leasehold: attempt {attempt} of build #{} was lost", build.build));
        return Ok(exit_code::REFUSED);
    }
    if build.state == "passed" {
        return Ok(exit_code::DONE);
    }
    let why = build.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    output::say(&format!("leasehold: build #{} is {}{why}", build.build, build.state));
    Ok(exit_code::REFUSED)
}

/// Which end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// The log's: there is nothing more.
    Log,
    /// Nobody reads stdout any more.
    Reader,
}

/// A log being printed.
struct Reading<'b> {
    broker: &'b Broker,
    build: u64,
    attempt: u32,
    /// The offset of the next byte.
    at: u64,
    hash: Sha256,
    /// Whether nothing was left out.
    whole: bool,
    screen: Option<ForTerminal>,
}

impl<'b> Reading<'b> {
    fn new(broker: &'b Broker, build: u64, attempt: u32, for_terminal: bool) -> Self {
        let screen = for_terminal.then(ForTerminal::default);
        Self { broker, build, attempt, at: 0, hash: Sha256::new(), whole: true, screen }
    }

    /// What there is now.
    async fn as_it_is(&mut self) -> Result<Over, Failure> {
        let about = self.about().await?;
        if self.pass_the_gap(about.gap).await? == Over::Reader {
            return Ok(Over::Reader);
        }
        if self.at >= about.bytes {
            return Ok(Over::Log);
        }
        let range = format!("bytes={}-{}", self.at, about.bytes - 1);
        self.stream(&self.path(&[]), &[("range", &range)]).await
    }

    /// What there is, and what comes, until there is nothing more to come.
    async fn follow(&mut self) -> Result<Over, Failure> {
        let mut told = false;
        loop {
            let broken = match self.more().await {
                Ok(Some(over)) => return Ok(over),
                Ok(None) => "the broker ended the stream".to_owned(),
                Err(failure) if failure.code == exit_code::OWN => failure.message,
                Err(failure) => return Err(failure),
            };
            if !std::mem::replace(&mut told, true) {
                output::say(&format!("leasehold: {broken}; going on when a broker is back"));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Follows until the stream ends; `None` where more is to come.
    async fn more(&mut self) -> Result<Option<Over>, Failure> {
        let about = self.about().await?;
        if self.pass_the_gap(about.gap).await? == Over::Reader {
            return Ok(Some(Over::Reader));
        }
        let follow = [("offset", Some(self.at.to_string())), ("follow", Some("1".to_owned()))];
        if self.stream(&self.path(&follow), &[]).await? == Over::Reader {
            return Ok(Some(Over::Reader));
        }
        // A stream ends with its log, and also with its broker.
        let about = self.about().await?;
        Ok((!about.more && self.at >= about.bytes).then_some(Over::Log))
    }

    /// Prints up to what is not kept, and goes on behind it.
    async fn pass_the_gap(&mut self, gap: Option<LogGap>) -> Result<Over, Failure> {
        let Some(gap) = gap.filter(|gap| self.at < gap.to) else { return Ok(Over::Log) };
        if self.at < gap.from {
            let range = format!("bytes={}-{}", self.at, gap.from - 1);
            if self.stream(&self.path(&[]), &[("range", &range)]).await? == Over::Reader {
                return Ok(Over::Reader);
            }
        }
        let (bytes, lines) = (gap.to - self.at.max(gap.from), gap.lines);
        output::say(&format!("leasehold: the log is over its limit: {bytes} bytes ({lines} lines) are not kept here"));
        (self.at, self.whole) = (gap.to, false);
        Ok(Over::Log)
    }

    fn path(&self, more: &[(&str, Option<String>)]) -> String {
        let mut pairs = vec![("attempt", Some(self.attempt.to_string()))];
        pairs.extend_from_slice(more);
        path_with(&format!("/builds/{}/log", self.build), &pairs)
    }

    async fn about(&self) -> Result<LogLines, Failure> {
        let pairs = [("attempt", Some(self.attempt.to_string())), ("count", Some("1".to_owned()))];
        let path = path_with(&format!("/v1/builds/{}/lines", self.build), &pairs);
        Ok(self.broker.send("GET", &path, None).await?.json()?)
    }

    async fn stream(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Over, Failure> {
        let mut body = self.broker.http().stream(path, headers).await?;
        while let Some(bytes) = body.chunk().await? {
            self.at += bytes.len() as u64;
            self.hash.update(&bytes);
            if !self.print(&bytes)? {
                return Ok(Over::Reader);
            }
        }
        Ok(Over::Log)
    }

    /// `false` when nobody reads any more.
    fn print(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let shown = self.screen.as_mut().map(|screen| screen.show(bytes));
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(shown.as_deref().unwrap_or(bytes)).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::refused(format!("stdout cannot be written: {error}"))),
        }
    }

    /// Checks what was printed against the agent's own count and hash.
    fn check(&self, build: &BuildInfo) -> Result<(), Failure> {
        let Some(end) = &build.log else { return Ok(()) };
        let hash = hex(&self.hash.clone().finalize());
        if self.at != end.bytes || self.whole && hash != end.sha256 {
            return Err(Failure::refused(format!(
                "what was printed is not the log that the agent sent: {} bytes of {}, SHA-256 {hash} for {}",
                self.at, end.bytes, end.sha256
            )));
        }
        Ok(())
    }
}
