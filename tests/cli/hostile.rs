//! What clients say is printed as text, whatever it is made of.

use serde_json::json;

use super::common::broker::Broker;

/// Clears the screen, sets the title, rings, turns the direction of writing, breaks the line.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\r\nforged  row";

#[test]
fn no_note_tag_reason_or_owner_steers_the_terminal() {
    let broker = Broker::with_inventory(super::LAB);
    let mut holder = broker.session("ci@\u{202e}runner");
    let claim = holder.acquire_with(json!({
        "needs": ["phone,os=ios"], "note": HOSTILE, "tags": { "job": HOSTILE, "actor": HOSTILE },
    }));
    let lease = claim["lease"]["lease"].as_u64().expect("it is granted");
    let mut waiter = broker.session("ann@desk");
    let waiting = waiter.acquire_with(json!({ "needs": ["phone,os=ios"], "note": HOSTILE }));
    broker.cli(&["resource", "drain", "pixel-1", "--reason", HOSTILE]).exits(0);
    broker.cli(&["lease", "revoke", &lease.to_string(), "--reason", HOSTILE]).exits(0);
    let lines = [
        "resource ls".to_owned(),
        "resource show iphone-1".to_owned(),
        "resource show pixel-1".to_owned(),
        "resource match phone".to_owned(),
        "resource history iphone-1".to_owned(),
        "lease ls".to_owned(),
        format!("lease show {lease}"),
        "queue".to_owned(),
        "session ls".to_owned(),
        "events".to_owned(),
        format!("why {lease}"),
        format!("why c{}", waiting["claim"]),
        "why iphone-1".to_owned(),
        "resource show \u{1b}[2Jnobody".to_owned(),
    ];
    for line in lines.iter().flat_map(|line| [line.clone(), format!("{line} --json")]) {
        let output = broker.sh(&line);
        let steers = |c: &char| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c);
        for text in [&output.stdout, &output.stderr] {
            assert_eq!(text.chars().find(steers), None, "{line}: {text:?}");
            assert!(!text.lines().any(|line| line.starts_with("forged")), "{line}: {text}");
        }
    }
}

#[test]
fn json_has_the_text_as_it_was() {
    let broker = Broker::with_inventory(super::LAB);
    let mut holder = broker.session("ci@runner");
    holder.acquire_with(json!({ "needs": ["phone,os=ios"], "note": HOSTILE }));
    assert_eq!(broker.sh("lease ls --json").exits(0).json()[0]["note"], HOSTILE);
}
