//! `session`: who is connected, and ending a session with all it has.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::broker::{Broker, Listing};
use super::output::{self, Cell, Screen, Table};
use super::words::{self, Now};
use super::{Failure, Globals, exit_code};
use crate::protocol::info::SessionInfo;
use crate::units::show_duration_ms;

/// Look at sessions and end them
#[derive(Debug, Args)]
pub struct SessionCommand {
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// List open sessions
    Ls,
    /// End a session: its claims are cancelled at once, its leases as `lease revoke` ends them
    Kick {
        /// Its number, such as s7
        #[arg(value_parser = session_number)]
        session: u64,
    },
}

fn session_number(text: &str) -> Result<u64, String> {
    words::numbered(text, 's', "session")
}

impl SessionCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        match self.act {
            Act::Ls => list(&broker, self.json),
            Act::Kick { session } => {
                let done: Value = broker.post(&format!("/v1/sessions/{session}/kick"), &json!({}))?;
                if self.json {
                    output::print(&output::json(&done)?)?;
                } else {
                    output::say(&format!(
                        "session s{session} is ending: its claims are cancelled, its leases end when they are \
                         released, or a ttl from now at the latest"
                    ));
                }
                Ok(exit_code::DONE)
            }
        }
    }
}

fn list(broker: &Broker, json: bool) -> Result<u8, Failure> {
    let Listing { items, now } = broker.list::<SessionInfo>("/v1/sessions")?;
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say("no sessions: nobody holds or waits for anything");
    } else {
        output::print(&table(&items, Now(Some(now))).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn table(items: &[SessionInfo], now: Now) -> Table {
    let headings = ["SESSION", "OWNER", "KIND", "CONNECTED", "LAST SIGN", "TTL", "OPEN FOR", "LEASES", "CLAIMS"];
    let mut table = Table::new(&headings);
    for item in items {
        let numbers = |numbers: &[u64], letter: &str| {
            numbers.iter().map(|number| format!("{letter}{number}")).collect::<Vec<_>>().join(" ")
        };
        // A session without a socket is never connected, and that is nothing to wonder about.
        let connected = if item.kind == "keyed" {
            ""
        } else if item.connected {
            "yes"
        } else {
            "no"
        };
        table.row([
            Cell::from(format!("s{}", item.session)),
            item.owner.as_str().into(),
            item.provides.as_ref().map_or_else(|| item.kind.clone(), |name| format!("provider {name}")).into(),
            connected.into(),
            output::ago(item.last_seen_ms).into(),
            show_duration_ms(item.ttl_ms).into(),
            now.for_how_long(item.opened_at, &item.opened_at_time).into(),
            numbers(&item.leases, "").into(),
            numbers(&item.claims, "c").into(),
        ]);
    }
    table
}
