//! `release`, `extend`, `renew`: what is done to a lease that is held, from outside its holder.
//!
//! They go over HTTP, under the lease's key where `LEASEHOLD_LEASE_KEY` has one, else as its
//! owner. Without an argument they mean the lease of the environment they run in.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::broker::Broker;
use super::run::environment::{LEASE, LEASE_KEY};
use super::{Failure, Globals, exit_code, output};
use crate::protocol::call::{LeaseReleased, SessionRenewed};
use crate::protocol::info::LeaseInfo;
use crate::units::{parse_duration_ms, show_duration_ms};

/// Give a lease back
#[derive(Debug, Args)]
pub struct ReleaseCommand {
    #[command(flatten)]
    which: Which,
    /// What became of the work
    #[arg(long, value_enum)]
    outcome: Option<Outcome>,
}

/// Move the end of a lease's hold
#[derive(Debug, Args)]
pub struct ExtendCommand {
    #[command(flatten)]
    which: Which,
    /// How much later it is to end
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    by: u64,
}

/// Keep a lease without a socket for another ttl
#[derive(Debug, Args)]
pub struct RenewCommand {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
struct Which {
    /// The lease's number; without it LEASEHOLD_LEASE
    #[arg(value_name = "LEASE")]
    lease: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the runner says of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Outcome {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// The resource was at fault.
    Infra,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Infra => "infra",
        }
    }
}

impl Which {
    fn lease(&self) -> Result<u64, Failure> {
        match (self.lease, std::env::var(LEASE)) {
            (Some(lease), _) => Ok(lease),
            (None, Ok(text)) => {
                text.parse().map_err(|_| Failure::usage(format!("{LEASE} is {text:?}: expected the number of a lease")))
            }
            (None, Err(_)) => Err(Failure::usage(format!("which lease? Give its number, or set {LEASE}"))),
        }
    }

    /// The key of the environment's lease; another lease has another key.
    fn key(lease: u64) -> Option<String> {
        let of_environment = std::env::var(LEASE).ok().is_none_or(|text| text.parse() == Ok(lease));
        std::env::var(LEASE_KEY).ok().filter(|key| of_environment && !key.is_empty())
    }

    fn broker(globals: &Globals, lease: u64) -> Result<Broker, Failure> {
        Ok(Broker::new(globals)?.under(Self::key(lease)))
    }
}

impl ReleaseCommand {
    /// Does it. What has ended already is said, and is no failure.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let lease = self.which.lease()?;
        let body = self.outcome.map_or_else(|| json!({}), |outcome| json!({"outcome": outcome.as_str()}));
        let broker = Which::broker(globals, lease)?;
        let released: LeaseReleased = broker.post(&format!("/v1/leases/{lease}/release"), &body)?;
        if self.which.json {
            output::print(&output::json(&released)?)?;
        } else if released.why == "released" {
            output::say(&format!("lease {lease} is released"));
        } else {
            output::say(&format!("lease {lease} had ended: {}", released.message));
        }
        Ok(exit_code::DONE)
    }
}

impl ExtendCommand {
    /// Does it. The end is sent as a moment, so that a repeat on the way does not add up.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let lease = self.which.lease()?;
        let broker = Which::broker(globals, lease)?;
        let now: LeaseInfo = broker.get(&format!("/v1/leases/{lease}"))?;
        let Some(until) = now.until else {
            return Err(Failure::refused(format!("lease {lease} has no end that could be moved")));
        };
        let body = json!({"until": until.saturating_add(self.by)});
        let extended: LeaseInfo = broker.post(&format!("/v1/leases/{lease}/extend"), &body)?;
        if self.which.json {
            output::print(&output::json(&extended)?)?;
        } else {
            let until = extended.until_time.unwrap_or_default();
            output::say(&format!("lease {lease} is held until {until}"));
        }
        Ok(exit_code::DONE)
    }
}

impl RenewCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let lease = self.which.lease()?;
        if Which::key(lease).is_none() {
            return Err(Failure::refused(format!(
                "lease {lease} cannot be renewed without its key: set {LEASE_KEY} to what `leasehold acquire \
                 --no-keeper` printed. `run`, `acquire` and keepers renew theirs by themselves"
            )));
        }
        let broker = Which::broker(globals, lease)?;
        let renewed: SessionRenewed = broker.post(&format!("/v1/leases/{lease}/renew"), &json!({}))?;
        if self.which.json {
            output::print(&output::json(&renewed)?)?;
        } else if renewed.ending.contains(&lease) {
            output::say(&format!("lease {lease} is ending, and not extended: stop what uses it and release it"));
        } else {
            output::say(&format!("lease {lease} is kept for {}", show_duration_ms(renewed.promise_ms)));
        }
        Ok(if renewed.ending.contains(&lease) { exit_code::REFUSED } else { exit_code::DONE })
    }
}
