//! `queue`: who waits for what, and taking a claim out.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::broker::{Broker, Listing};
use super::output::{self, Cell, Screen, Table};
use super::words::{self, Now};
use super::{Failure, Globals, exit_code, waiting};
use crate::protocol::info::{ClaimInfo, WaitingInfo};

/// Claims whose holders in the way are asked for: each is a question of its own.
const ASKED_MAX: usize = 20;

/// Look at the waiting claims and cancel them
#[derive(Debug, Args)]
pub struct QueueCommand {
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Option<Act>,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List the waiting claims, the next one first; the same as `queue` alone
    Ls,
    /// Cancel a waiting claim: its client is told
    Cancel {
        /// Its number, such as c7
        #[arg(value_parser = claim_number)]
        claim: u64,
    },
}

fn claim_number(text: &str) -> Result<u64, String> {
    words::numbered(text, 'c', "claim")
}

impl QueueCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        match self.act {
            None | Some(Act::Ls) => list(&broker, self.json),
            Some(Act::Cancel { claim }) => {
                let done: Value = broker.post(&format!("/v1/claims/{claim}/cancel"), &json!({}))?;
                if self.json {
                    output::print(&output::json(&done)?)?;
                } else {
                    output::say(&format!("claim c{claim} is cancelled"));
                }
                Ok(exit_code::DONE)
            }
        }
    }
}

fn list(broker: &Broker, json: bool) -> Result<u8, Failure> {
    let Listing { items, now } = broker.list::<WaitingInfo>("/v1/queue")?;
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say("nobody waits");
    } else {
        let waits: Vec<String> = items.iter().enumerate().map(|(index, item)| waits_for(broker, item, index)).collect();
        output::print(&table(&items, &waits, Now(Some(now))).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

/// What a claim waits for, in a cell: what blocks it, or who is in its way.
fn waits_for(broker: &Broker, item: &WaitingInfo, index: usize) -> String {
    if !item.connected {
        return "its own connection, which is down".to_owned();
    }
    if let Some(blocked) = &item.blocked {
        return blocked.clone();
    }
    if let Some(capped) = &item.capped {
        return capped.clone();
    }
    // It may be granted or gone by now: then there is nothing to tell of it.
    let claim: Option<ClaimInfo> =
        if index < ASKED_MAX { broker.get(&format!("/v1/claims/{}", item.claim)).ok() } else { None };
    let in_the_way: Vec<String> = claim
        .map(|claim| claim.in_the_way)
        .unwrap_or_default()
        .iter()
        .map(|way| format!("{} (lease {} of {})", way.resource, way.lease, way.owner))
        .collect();
    if in_the_way.is_empty() { "a senior claim, or a release".to_owned() } else { in_the_way.join(", ") }
}

fn table(items: &[WaitingInfo], waits: &[String], now: Now) -> Table {
    let mut table =
        Table::new(&["PLACE", "CLAIM", "OWNER", "NEED", "JOB", "WAITING", "GRANTED", "PRIORITY", "WAITS FOR"]);
    for (item, waits) in items.iter().zip(waits) {
        table.row([
            Cell::from(item.place.to_string()),
            format!("c{}", item.claim).into(),
            item.owner.as_str().into(),
            item.needs.join(" + ").into(),
            words::job(&item.tags, item.note.as_deref()).unwrap_or_default().into(),
            now.for_how_long(item.queued_at, &item.queued_at_time).into(),
            item.eta.map_or_else(|| "unknown".to_owned(), |eta| waiting::range(eta.low_ms, eta.high_ms)).into(),
            item.priority.to_string().into(),
            waits.as_str().into(),
        ]);
    }
    table
}
