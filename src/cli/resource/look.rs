//! What only looks at resources: `ls`, `show`, `match`, `history`.

use super::path_of;
use crate::cli::broker::{Broker, Listing, path_with};
use crate::cli::output::{self, Cell, Details, Screen, Table};
use crate::cli::words::{self, Now};
use crate::cli::{Failure, exit_code};
use crate::protocol::http::MatchRequest;
use crate::protocol::info::{HolderInfo, LeaseInfo, MarkInfo, MatchInfo, Page, ResourceInfo};
use crate::units::show_duration_ms;

pub(super) fn list(broker: &Broker, json: bool, pool: Option<String>, need: Option<String>) -> Result<u8, Failure> {
    let path = path_with("/v1/resources", &[("pool", pool.clone()), ("need", need.clone())]);
    let Listing { items, now } = broker.list::<ResourceInfo>(&path)?;
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say(&match (pool, need) {
            (_, Some(need)) => format!("no resource matches {need:?}; `leasehold resource match` says why"),
            (Some(pool), None) => format!("the pool {pool:?} has no resources; `leasehold status` lists the pools"),
            (None, None) => "no resources yet: add some with `leasehold resource apply FILE`".to_owned(),
        });
    } else {
        output::print(&table(&items, Now(Some(now))).render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn table(items: &[ResourceInfo], now: Now) -> Table {
    let mut table = Table::new(&["NAME", "POOL", "STATE", "SLOTS", "HELD BY", "JOB", "FOR", "LABELS"]);
    for item in items {
        let slots = if item.slots == 1 { String::new() } else { format!("{}/{} free", item.slots_free, item.slots) };
        let (by, job, since) = match item.holders.as_slice() {
            [] => (mark_words(item, now), None, String::new()),
            [one] => (one.owner.clone(), job_of(one), now.for_how_long(one.since, &one.since_time)),
            many => (words::count(many.len(), "holder"), None, String::new()),
        };
        table.row([
            Cell::from(item.name.as_str()),
            item.pool.as_str().into(),
            Cell::state(&item.state),
            slots.into(),
            by.into(),
            job.unwrap_or_default().into(),
            since.into(),
            words::values(&item.labels).into(),
        ]);
    }
    table
}

/// What keeps a resource that nobody holds from being given, in a cell.
fn mark_words(item: &ResourceInfo, now: Now) -> String {
    let mark = item.quarantined.as_ref().or(item.drained.as_ref()).or(item.offline.as_ref());
    let cooling = item.cooling_until.zip(item.cooling_until_time.as_ref());
    match (mark, cooling) {
        (Some(mark), _) => format!("({})", reason_or_who(mark)),
        (None, Some((until, time))) => format!("(free {})", now.in_how_long(until, time)),
        (None, None) => String::new(),
    }
}

fn reason_or_who(mark: &MarkInfo) -> String {
    if mark.reason.is_empty() { format!("by {}", mark.by) } else { mark.reason.clone() }
}

fn job_of(holder: &HolderInfo) -> Option<String> {
    words::job(&holder.tags, holder.note.as_deref())
}

pub(super) fn show(broker: &Broker, json: bool, name: &str) -> Result<u8, Failure> {
    let value: serde_json::Value = broker.get(&path_of(name))?;
    if json {
        output::print(&output::json(&value)?)?;
        return Ok(exit_code::DONE);
    }
    let now = Now(value["now"].as_u64());
    let resource: ResourceInfo = serde_json::from_value(value)
        .map_err(|error| Failure::refused(format!("the broker's answer makes no sense: {error}")))?;
    output::print(&details(&resource, now).render(Screen::of_stdout()))?;
    Ok(exit_code::DONE)
}

/// First what somebody in front of a taken phone wants to know: who, for what, since when, until
/// when, whether they still live, and how to end it.
fn details(resource: &ResourceInfo, now: Now) -> Details {
    let mut details = Details::new();
    let state = Cell::state(&resource.state);
    details.fact(&resource.name, state);
    for holder in &resource.holders {
        holder_facts(&mut details, resource, holder, now);
    }
    let name = &resource.name;
    if let Some(mark) = &resource.quarantined {
        mark_facts(&mut details, "quarantined", mark, now, &format!("leasehold resource restore {name}"));
    }
    if let Some(mark) = &resource.drained {
        mark_facts(&mut details, "drained", mark, now, &format!("leasehold resource undrain {name}"));
    }
    if let Some(mark) = &resource.offline {
        let back = format!("leasehold provide, or for good: leasehold resource rm {name}");
        mark_facts(&mut details, "offline", mark, now, &back);
    }
    if let (Some(slots), Some(until), Some(time)) =
        (resource.slots_cooling, resource.cooling_until, &resource.cooling_until_time)
    {
        details.fact("cooling", format!("{}, until {}", words::count(slots as usize, "slot"), now.until(until, time)));
    }
    details.fact_if("pending", resource.pending.as_ref().map(|what| format!("{what}, when its last lease ends")));
    details.gap();
    details.fact("pool", resource.pool.as_str());
    details.fact("slots", format!("{} of {} free", resource.slots_free, resource.slots));
    details.fact("origin", resource.origin.as_str());
    for (what, map) in [("label", &resource.labels), ("property", &resource.properties)] {
        for (key, value) in map {
            details.fact(&format!("{what} {key}"), words::value_text(value));
        }
    }
    for secret in &resource.secrets {
        details.fact(&format!("secret {secret}"), "(told to its holder only)");
    }
    details
}

fn holder_facts(details: &mut Details, resource: &ResourceInfo, holder: &HolderInfo, now: Now) {
    let slots =
        if resource.slots > 1 { format!(", {}", words::count(holder.slots as usize, "slot")) } else { String::new() };
    let ending = if holder.state == "ending" { ", ending" } else { "" };
    details.fact(
        "held by",
        format!("{} (lease {}, session s{}{slots}{ending})", holder.owner, holder.lease, holder.session),
    );
    details.fact("job", job_of(holder).unwrap_or_else(|| "not said".to_owned()));
    details.fact("since", now.since(holder.since, &holder.since_time));
    details.fact(
        "until",
        match (&holder.until, &holder.until_time) {
            (Some(until), Some(time)) => now.until(*until, time),
            _ => "it is released: its hold has no end".to_owned(),
        },
    );
    let connected = if holder.connected { "connected" } else { "not connected" };
    let seen = Cell::from(format!("{}, {connected}", output::ago(holder.last_seen_ms)));
    details.fact("last sign of life", seen);
    details.fact("to end it", format!("leasehold lease revoke {}", holder.lease));
    let rest = holder.tags.iter().filter(|(tag, _)| *tag != "job");
    for (tag, value) in rest {
        details.fact(&format!("tag {tag}"), value.as_str());
    }
    details.fact_if("note", holder.note.as_deref());
}

fn mark_facts(details: &mut Details, what: &str, mark: &MarkInfo, now: Now, way_out: &str) {
    details.fact(what, if mark.reason.is_empty() { "no reason was given" } else { mark.reason.as_str() });
    details.fact("by", mark.by.as_str());
    details.fact("since", now.since(mark.since, &mark.since_time));
    details.fact("to end it", way_out);
}

pub(super) fn matching(broker: &Broker, json: bool, need: &str) -> Result<u8, Failure> {
    let mut items = Vec::new();
    let mut request = MatchRequest { need: need.to_owned(), cursor: None, limit: None };
    loop {
        let page: Page<MatchInfo> = broker.post("/v1/match", &request)?;
        items.extend(page.items);
        match page.next {
            Some(next) if request.cursor.as_ref() != Some(&next) => request.cursor = Some(next),
            _ => break,
        }
    }
    let matching = items.iter().filter(|item| item.matches).count();
    let free = items.iter().filter(|item| item.matches && item.free).count();
    if json {
        output::print(&output::json(&items)?)?;
    } else {
        // Those that match first, the free ones before the others; names as the broker orders them.
        items.sort_by_key(|item| (!item.matches, !item.free));
        output::print(&match_table(&items).render(Screen::of_stdout()))?;
        output::say(&format!("{need}: {} of {} match, {free} free", matching, words::count(items.len(), "resource")));
    }
    Ok(if matching == 0 { exit_code::REFUSED } else { exit_code::DONE })
}

fn match_table(items: &[MatchInfo]) -> Table {
    let mut table = Table::new(&["NAME", "MATCHES", "FREE", "WHY NOT"]);
    for item in items {
        let word = |yes: bool| if yes { "yes" } else { "no" };
        table.row([
            Cell::from(item.name.as_str()),
            word(item.matches).into(),
            if item.matches { word(item.free) } else { "" }.into(),
            item.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

pub(super) fn history(broker: &Broker, json: bool, name: &str) -> Result<u8, Failure> {
    let items = broker.list::<LeaseInfo>(&format!("{}/history", path_of(name)))?.items;
    if items.is_empty() {
        // One that is gone keeps its history, so only an empty one can be a name that never was.
        let _: ResourceInfo = broker.get(&path_of(name))?;
    }
    if json {
        output::print(&output::json(&items)?)?;
    } else if items.is_empty() {
        output::say(&format!("nobody has held {name} as far as the journal goes back"));
    } else {
        let mut table = Table::new(&["LEASE", "OWNER", "JOB", "FROM", "TO", "HELD", "ENDED", "OUTCOME"]);
        for lease in &items {
            table.row(history_row(lease));
        }
        output::print(&table.render(Screen::of_stdout()))?;
    }
    Ok(exit_code::DONE)
}

fn history_row(lease: &LeaseInfo) -> Vec<Cell> {
    let ended = lease.ended.as_ref();
    let held = ended.map(|ended| show_duration_ms(output::round_ms(ended.at.saturating_sub(lease.granted_at))));
    vec![
        lease.lease.to_string().into(),
        lease.owner.as_str().into(),
        words::job(&lease.tags, lease.note.as_deref()).unwrap_or_default().into(),
        words::to_seconds(&lease.granted_at_time).into(),
        ended.map(|ended| words::to_seconds(&ended.at_time)).unwrap_or_default().into(),
        held.unwrap_or_default().into(),
        ended.map_or_else(|| Cell::state(&lease.state), |ended| ended.why.as_str().into()),
        ended.and_then(|ended| ended.outcome.clone()).unwrap_or_default().into(),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{details, match_table, table};
    use crate::cli::output::Screen;
    use crate::cli::words::Now;
    use crate::protocol::info::{HolderInfo, MarkInfo, MatchInfo, ResourceInfo};

    fn phone() -> ResourceInfo {
        ResourceInfo {
            name: "pixel-8-01".into(),
            pool: "phone".into(),
            labels: BTreeMap::from([("os".into(), "android".into())]),
            properties: BTreeMap::new(),
            secrets: vec!["pin".into()],
            slots: 1,
            slots_free: 1,
            slots_cooling: None,
            cooling_until: None,
            cooling_until_time: None,
            origin: "file".into(),
            state: "free".into(),
            quarantined: None,
            drained: None,
            offline: None,
            pending: None,
            holders: Vec::new(),
        }
    }

    fn holder() -> HolderInfo {
        HolderInfo {
            lease: 42,
            owner: "ci@host".into(),
            session: 7,
            slots: 1,
            state: "active".into(),
            tags: BTreeMap::from([("job".into(), "https://ci/7".into())]),
            note: None,
            since: 40_000,
            since_time: "2026-11-22T23:33:20.000Z".into(),
            until: Some(3_700_000),
            until_time: Some("2026-11-23T00:33:20.000Z".into()),
            last_seen_ms: 2_100,
            connected: true,
        }
    }

    #[test]
    fn the_first_lines_say_who_has_it_and_how_to_end_that() {
        let resource = ResourceInfo { state: "leased".into(), slots_free: 0, holders: vec![holder()], ..phone() };
        let text = details(&resource, Now(Some(100_000))).render(Screen::default());
        let lines: Vec<&str> = text.lines().take(7).collect();
        assert_eq!(
            lines,
            [
                "pixel-8-01         leased",
                "held by            ci@host (lease 42, session s7)",
                "job                https://ci/7",
                "since              2026-11-22T23:33:20Z (1m ago)",
                "until              2026-11-23T00:33:20Z (in 1h)",
                "last sign of life  2s ago, connected",
                "to end it          leasehold lease revoke 42",
            ]
        );
    }

    #[test]
    fn what_takes_a_resource_out_is_told_with_the_way_back() {
        let mark = MarkInfo {
            reason: "screen broken".into(),
            by: "ann@desk".into(),
            since: 40_000,
            since_time: "2026-11-22T23:33:20.000Z".into(),
        };
        let resource = ResourceInfo { state: "drained".into(), drained: Some(mark), ..phone() };
        let text = details(&resource, Now(Some(100_000))).render(Screen::default());
        assert!(text.contains("drained     screen broken\n"), "{text}");
        assert!(text.contains("to end it   leasehold resource undrain pixel-8-01\n"), "{text}");
        assert!(text.contains("secret pin  (told to its holder only)\n"), "{text}");
        let listed = table(&[resource], Now(Some(100_000))).render(Screen::default());
        assert!(listed.contains("drained  -      (screen broken)"), "{listed}");
    }

    #[test]
    fn why_a_resource_does_not_match_stands_beside_it() {
        let item = MatchInfo { name: "a".into(), matches: false, free: true, reason: Some("os is ios".into()) };
        let text = match_table(&[item]).render(Screen::default());
        assert_eq!(text.lines().nth(1), Some("a     no       -     os is ios"));
    }
}
