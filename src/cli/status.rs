//! `status`: the broker at a glance.

use clap::Args;

use super::broker::Broker;
use super::output::{self, Cell, Details, Screen, Table};
use super::{Failure, Globals, exit_code};
use crate::client::url::BaseUrl;
use crate::protocol::info::StatusInfo;
use crate::units::show_duration_ms;

/// Show the broker at a glance: its state, its store, its pools
#[derive(Debug, Args)]
pub struct StatusCommand {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let status = of_the_lab(globals)?;
        if self.json {
            output::print(&output::json(&status)?)?;
        } else {
            output::print(&text(&status, Screen::of_stdout()))?;
        }
        Ok(exit_code::DONE)
    }
}

/// What the broker says that leads, where several are given; where none of them leads, or one is
/// given, what the first one that answers says of itself.
fn of_the_lab(globals: &Globals) -> Result<StatusInfo, Failure> {
    let urls = BaseUrl::parse_list(&globals.url)?;
    let mut told = None;
    for url in urls.iter().filter(|_| urls.len() > 1) {
        let alone = Globals { url: url.to_string() };
        // One that is away is passed over; that all are away is told below.
        let Ok(status) = Broker::new(&alone)?.get::<StatusInfo>("/v1/status") else { continue };
        if status.role != "standby" {
            return Ok(status);
        }
        told.get_or_insert(status);
    }
    told.map_or_else(|| Broker::new(globals)?.get("/v1/status"), Ok)
}

fn text(status: &StatusInfo, screen: Screen) -> String {
    let mut details = Details::new();
    details.fact("broker", Cell::state(&status.state));
    details.fact_if("message", status.message.as_deref());
    details.fact("version", status.version.as_str());
    let standby = status.role == "standby";
    let since = if standby { "standing by for" } else { "serving for" };
    details.fact(since, show_duration_ms(output::round_ms(status.uptime_ms)));
    if standby {
        details.fact("store", status.store.as_str());
    } else {
        details.fact("store", format!("{} (batch {})", status.store, status.batch));
    }
    if let Some(term_ms) = status.term_ms {
        details.fact("leader", status.leader.as_deref().unwrap_or("not known"));
        let epoch = status.epoch.map_or_else(|| "not known".to_owned(), |epoch| epoch.to_string());
        details.fact("epoch", format!("{epoch} (terms of {})", show_duration_ms(term_ms)));
    }
    details.fact_if("inventory", status.inventory.as_deref());
    details.fact_if("not applied", status.inventory_error.as_deref());
    if standby {
        let mut text = details.render(screen);
        brokers(status, screen, &mut text);
        return text;
    }
    details.fact("sessions", status.sessions.to_string());
    details.fact("leases", status.leases.to_string());
    details.fact("waiting", status.waiting.to_string());
    let mut text = details.render(screen);
    brokers(status, screen, &mut text);
    text.push('\n');
    if status.pools.is_empty() {
        text.push_str("no pools yet: add resources with `leasehold resource apply FILE`\n");
        return text;
    }
    let mut table = Table::new(&["POOL", "RESOURCES", "SLOTS", "FREE", "LEASED", "COOLING", "OUT", "WAITING"]);
    for pool in &status.pools {
        table.row([
            Cell::from(pool.pool.as_str()),
            pool.resources.to_string().into(),
            pool.slots.to_string().into(),
            pool.slots_free.to_string().into(),
            pool.slots_leased.to_string().into(),
            pool.slots_cooling.to_string().into(),
            pool.out.to_string().into(),
            pool.waiting.to_string().into(),
        ]);
    }
    text.push_str(&table.render(screen));
    text
}

/// The brokers that share the store, where any do.
fn brokers(status: &StatusInfo, screen: Screen, text: &mut String) {
    if status.brokers.is_empty() {
        return;
    }
    let mut table = Table::new(&["BROKER", "ROLE", "SEEN", "INSTANCE"]);
    for broker in &status.brokers {
        table.row([
            Cell::from(broker.url.as_str()),
            (if broker.leads { "leading" } else { "standby" }).into(),
            format!("{} ago", show_duration_ms(output::round_ms(broker.seen_ms))).into(),
            broker.instance.as_str().into(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render(screen));
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::cli::output::Screen;
    use crate::protocol::info::{BrokerInfo, PoolStatus, StatusInfo};

    fn status() -> StatusInfo {
        StatusInfo {
            version: "0.1.0".into(),
            role: "leading".into(),
            state: "serving".into(),
            message: None,
            leader: None,
            epoch: None,
            term_ms: None,
            brokers: Vec::new(),
            store: "sqlite:/x/lab.db".into(),
            inventory: Some("lab.toml".into()),
            inventory_error: Some("line 3: unknown key".into()),
            uptime_ms: 61_500,
            batch: 9,
            pools: vec![PoolStatus {
                pool: "phone".into(),
                resources: 4,
                slots: 4,
                slots_free: 1,
                slots_leased: 2,
                slots_cooling: 0,
                out: 1,
                waiting: 0,
            }],
            sessions: 2,
            leases: 2,
            waiting: 0,
            now: 0,
            now_time: String::new(),
        }
    }

    #[test]
    fn an_inventory_that_is_not_applied_is_told() {
        let text = text(&status(), Screen::default());
        assert!(text.contains("not applied  line 3: unknown key\n"), "{text}");
        assert!(text.contains("serving for  1m01s\n"), "{text}");
        assert!(text.ends_with("phone  4          4      1     2       0        1    0\n"), "{text}");
        assert!(!text.contains("leader"), "{text}");
    }

    #[test]
    fn a_standby_tells_who_leads_and_nothing_of_the_books() {
        let broker = |n: u64| BrokerInfo {
            url: format!("ws://b{n}:5327"),
            instance: format!("i{n}"),
            leads: n == 1,
            seen_ms: 400,
        };
        let status = StatusInfo {
            role: "standby".into(),
            state: "standby".into(),
            leader: Some("ws://b1:5327".into()),
            epoch: Some(7),
            term_ms: Some(2_000),
            brokers: vec![broker(1), broker(2)],
            ..status()
        };
        let text = text(&status, Screen::default());
        assert!(text.contains("leader           ws://b1:5327\n"), "{text}");
        assert!(text.contains("epoch            7 (terms of 2s)\n"), "{text}");
        assert!(text.contains("ws://b1:5327  leading"), "{text}");
        assert!(text.contains("ws://b2:5327  standby"), "{text}");
        assert!(!text.contains("POOL") && !text.contains("leases"), "{text}");
    }
}
