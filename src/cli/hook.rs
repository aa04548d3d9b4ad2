//! `hook`: what forges sent, what came of it, and acting on it once more.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::broker::Broker;
use super::output::{self, Cell, Details, Screen, Style, Table};
use super::words;
use super::{Failure, Globals, exit_code};
use crate::protocol::builds::DeliveryInfo;
use crate::units::rfc3339;

/// Deliveries that are listed unless told otherwise.
const LISTED: usize = 30;

/// Look at what forges delivered, and have it worked on again
#[derive(Debug, Args)]
pub struct HookCommand {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List deliveries, newest first
    Ls {
        /// At most so many
        #[arg(long, value_name = "COUNT", default_value_t = LISTED)]
        limit: usize,
    },
    /// Show a delivery: what it said, what came of it, and its body
    Show {
        /// Its number
        delivery: u64,
    },
    /// Work on a delivery once more, as if it had come anew
    Redeliver {
        /// Its number
        delivery: u64,
    },
}

impl HookCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        match self.act {
            Act::Ls { limit } => list(&broker, self.json, limit),
            Act::Show { delivery } => show(&broker, self.json, delivery),
            Act::Redeliver { delivery } => {
                let again: DeliveryInfo = broker.post(&format!("/v1/deliveries/{delivery}/redeliver"), &json!({}))?;
                if self.json {
                    output::print(&output::json(&again)?)?;
                } else {
                    let number = again.delivery;
                    output::say(&format!(
                        "delivery {delivery} is worked on again as {number}; `leasehold hook show {number}` tells what \
                         comes of it"
                    ));
                }
                Ok(exit_code::DONE)
            }
        }
    }
}

fn list(broker: &Broker, json: bool, limit: usize) -> Result<u8, Failure> {
    let items: Vec<DeliveryInfo> = broker.newest("/v1/deliveries", &[], limit)?;
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say("no forge has delivered anything yet");
    } else {
        output::print(&table(&items).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn table(items: &[DeliveryInfo]) -> Table {
    let mut table = Table::new(&["DELIVERY", "CAME", "FORGE", "REPOSITORY", "WHAT", "OUTCOME", "CAME OF IT"]);
    for item in items {
        table.row([
            item.delivery.to_string().into(),
            words::to_seconds(&rfc3339(item.received_ms)).into(),
            item.forge.as_str().into(),
            item.repository.as_deref().unwrap_or_default().into(),
            item.what.as_str().into(),
            outcome(item),
            came_of(item).into(),
        ]);
    }
    table
}

fn outcome(item: &DeliveryInfo) -> Cell {
    let style = match item.outcome.as_str() {
        "done" => Style::Good,
        "accepted" => Style::Busy,
        "failed" => Style::Bad,
        _ => Style::Plain,
    };
    Cell::styled(item.outcome.clone(), style)
}

/// The builds it started and ended, or why there are none.
fn came_of(item: &DeliveryInfo) -> String {
    let builds = |what: &str, numbers: &[u64]| {
        let numbers: Vec<String> = numbers.iter().map(|number| format!("#{number}")).collect();
        (!numbers.is_empty()).then(|| format!("{what} {}", numbers.join(" ")))
    };
    let parts = [builds("started", &item.started), builds("ended", &item.ended), item.reason.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn show(broker: &Broker, json: bool, delivery: u64) -> Result<u8, Failure> {
    let value: Value = broker.get(&format!("/v1/deliveries/{delivery}"))?;
    if json {
        output::print(&output::json(&value)?)?;
        return Ok(exit_code::DONE);
    }
    let payload = value.get("payload").cloned().unwrap_or(Value::Null);
    let item: DeliveryInfo = serde_json::from_value(value)
        .map_err(|error| Failure::refused(format!("the broker's answer makes no sense: {error}")))?;
    let mut details = Details::new();
    details.fact(&format!("delivery {}", item.delivery), outcome(&item));
    details.fact_if("why", item.reason.as_deref());
    details.fact("from", format!("{}, which calls it {}", item.forge, item.forge_id));
    details.fact("came", words::to_seconds(&rfc3339(item.received_ms)));
    details.fact_if("repository", item.repository.as_deref());
    details.fact("says", format!("{} (event {})", item.what, item.event));
    details.fact_if("repeats", item.repeats.map(|first| format!("delivery {first}, on purpose")));
    details.fact_if("not told", item.status_trouble.as_ref().map(|trouble| format!("the forge: {trouble}")));
    for (what, numbers) in [("started", &item.started), ("ended", &item.ended)] {
        for number in numbers {
            details.fact(what, format!("build #{number}"));
        }
    }
    details.fact("to repeat it", format!("leasehold hook redeliver {}", item.delivery));
    output::print(&details.render(Screen::of_stdout()))?;
    let body = match &payload {
        Value::String(text) => output::escape_lines(text),
        payload => {
            let pretty = serde_json::to_string_pretty(payload);
            output::escape_lines(&pretty.unwrap_or_default())
        }
    };
    output::print(&format!("\n{body}\n"))?;
    Ok(exit_code::DONE)
}
