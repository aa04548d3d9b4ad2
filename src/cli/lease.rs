//! `lease`: who holds what, and taking it back.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::broker::{Broker, Listing, path_with};
use super::output::{self, Cell, Details, Screen, Table};
use super::words::{self, Now};
use super::{Failure, Globals, exit_code};
use crate::protocol::http::RevokeRequest;
use crate::protocol::info::LeaseInfo;

/// Look at leases and take them back
#[derive(Debug, Args)]
pub struct LeaseCommand {
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List leases that are held
    Ls {
        /// Those that have ended too, as far as the journal goes back
        #[arg(long)]
        all: bool,
    },
    /// Show a lease: whose it is, what it holds, how it ended
    Show {
        /// Its number
        #[arg(value_name = "LEASE")]
        lease: u64,
    },
    /// Take a lease back: its holder is told and has a ttl to stop; then its resources are free
    Revoke {
        /// Its number
        #[arg(value_name = "LEASE")]
        lease: u64,
        /// At once, without waiting for the holder, who may still be using them
        #[arg(long)]
        force: bool,
        /// Why, for its holder
        #[arg(long)]
        reason: Option<String>,
    },
}

impl LeaseCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        match self.act {
            Act::Ls { all } => list(&broker, self.json, all),
            Act::Show { lease } => show(&broker, self.json, lease),
            Act::Revoke { lease, force, reason } => revoke(&broker, self.json, lease, force, reason),
        }
    }
}

fn list(broker: &Broker, json: bool, all: bool) -> Result<u8, Failure> {
    let path = path_with("/v1/leases", &[("all", all.then(|| "true".to_owned()))]);
    let Listing { items, now } = broker.list::<LeaseInfo>(&path)?;
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say(if all {
            "no lease has been granted as far as the journal goes back"
        } else {
            "nothing is held; `leasehold lease ls --all` lists what has ended"
        });
    } else {
        output::print(&table(&items, Now(Some(now))).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn table(items: &[LeaseInfo], now: Now) -> Table {
    let mut table = Table::new(&["LEASE", "STATE", "OWNER", "RESOURCES", "JOB", "SINCE", "UNTIL", "LAST SIGN"]);
    for lease in items {
        let state = lease.ended.as_ref().map_or_else(
            || Cell::state(&lease.state),
            |ended| {
                Cell::from(
                    ended
                        .outcome
                        .as_ref()
                        .map_or_else(|| ended.why.clone(), |outcome| format!("{} ({outcome})", ended.why)),
                )
            },
        );
        let until = match (&lease.ended, &lease.until, &lease.until_time) {
            (Some(ended), ..) => words::to_seconds(&ended.at_time),
            (None, Some(until), Some(time)) => now.in_how_long(*until, time),
            _ => String::new(),
        };
        table.row([
            lease.lease.to_string().into(),
            state,
            lease.owner.as_str().into(),
            words::picks(&lease.resources).into(),
            words::job(&lease.tags, lease.note.as_deref()).unwrap_or_default().into(),
            format!("{} ago", now.for_how_long(lease.granted_at, &lease.granted_at_time)).into(),
            until.into(),
            lease.last_seen_ms.map(output::ago).unwrap_or_default().into(),
        ]);
    }
    table
}

fn show(broker: &Broker, json: bool, lease: u64) -> Result<u8, Failure> {
    let value: Value = broker.get(&format!("/v1/leases/{lease}"))?;
    if json {
        output::print(&output::json(&value)?)?;
        return Ok(exit_code::DONE);
    }
    let now = Now(value["now"].as_u64());
    let lease: LeaseInfo = serde_json::from_value(value)
        .map_err(|error| Failure::refused(format!("the broker's answer makes no sense: {error}")))?;
    output::print(&details(&lease, now).render(Screen::of_stdout()))?;
    Ok(exit_code::DONE)
}

fn details(lease: &LeaseInfo, now: Now) -> Details {
    let mut details = Details::new();
    details.fact(&format!("lease {}", lease.lease), Cell::state(&lease.state));
    let verified = if lease.owner_verified { "" } else { ", as it says itself" };
    details.fact("owner", format!("{} (session s{}{verified})", lease.owner, lease.session));
    details.fact("job", words::job(&lease.tags, lease.note.as_deref()).unwrap_or_else(|| "not said".to_owned()));
    details.fact("resources", words::picks(&lease.resources));
    details.fact("since", now.since(lease.granted_at, &lease.granted_at_time));
    if let Some(ended) = &lease.ended {
        details.fact("ended", now.since(ended.at, &ended.at_time));
        details.fact("why", format!("{}: {}", ended.why, ended.message));
        details.fact_if("outcome", ended.outcome.as_deref());
    } else {
        details.fact(
            "until",
            match (&lease.until, &lease.until_time) {
                (Some(until), Some(time)) => now.until(*until, time),
                _ => "it is released: its hold has no end".to_owned(),
            },
        );
        if let Some(ending) = &lease.ending {
            details.fact("ending", format!("{}: {}", ending.why, ending.message));
            details.fact("ending since", now.since(ending.since, &ending.since_time));
        }
        details.fact_if("last sign of life", lease.last_seen_ms.map(output::ago));
        details.fact("to end it", format!("leasehold lease revoke {}", lease.lease));
    }
    details.gap();
    details.fact("fence", lease.fence.to_string());
    details.fact("claim", format!("c{}", lease.claim));
    for need in &lease.needs {
        details.fact("need", need.as_str());
    }
    details.fact("queued", now.since(lease.queued_at, &lease.queued_at_time));
    for (tag, value) in lease.tags.iter().filter(|(tag, _)| *tag != "job") {
        details.fact(&format!("tag {tag}"), value.as_str());
    }
    details.fact_if("note", lease.note.as_deref());
    details
}

fn revoke(broker: &Broker, json: bool, lease: u64, force: bool, reason: Option<String>) -> Result<u8, Failure> {
    let path = format!("/v1/leases/{lease}");
    let _: Value = broker.post(&format!("{path}/revoke"), &RevokeRequest { force, reason })?;
    // One that ended long ago may be beyond what the journal keeps: that it is over is known all the same.
    let info: Option<LeaseInfo> = match broker.get(&path) {
        Ok(info) => Some(info),
        Err(failure) if failure.code == exit_code::REFUSED => None,
        Err(failure) => return Err(failure),
    };
    if json {
        output::print(&output::json(&info)?)?;
        return Ok(exit_code::DONE);
    }
    output::say(&match info {
        Some(info) if info.ended.is_none() => format!(
            "lease {lease} is ending: {} is told, and {} free when it is released, or a ttl from now at the latest",
            info.owner,
            words::picks(&info.resources)
        ),
        Some(LeaseInfo { ended: Some(ended), .. }) => format!("lease {lease} is over: {}", ended.message),
        _ => format!("lease {lease} is over"),
    });
    Ok(exit_code::DONE)
}
