//! `events`: the journal, read to its end or followed as it grows.
//!
//! Following goes on by itself after a broken connection, from the last event that was printed,
//! so that none is missed and none comes twice.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::broker::{Broker, path_with};
use super::{Failure, Globals, exit_code, output};
use crate::protocol::info::EventInfo;

/// Between two attempts to reach a broker that is gone.
const RETRY: Duration = Duration::from_secs(1);
/// Characters of one value in a line for people.
const VALUE_CHARS_MAX: usize = 60;

/// Print what happened: the journal, a line each
#[derive(Debug, Args)]
pub struct EventsCommand {
    /// Go on with what happens from now on, or after --after, until interrupted
    #[arg(long)]
    follow: bool,
    /// Only events after this number
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Only of this lease
    #[arg(long)]
    lease: Option<u64>,
    /// Only of this resource
    #[arg(long)]
    resource: Option<String>,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
}

impl EventsCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        let broker = Broker::new(globals)?;
        if self.follow {
            return broker.block_on(self.follow(&broker));
        }
        let path = self.path("/v1/journal", self.after);
        let mut seen = 0_usize;
        broker.each_page(&path, |page: Vec<EventInfo>| {
            seen += page.len();
            let lines = page.iter().map(|event| self.line(event)).collect::<Result<Vec<_>, _>>()?;
            output::print(&lines.concat())
        })?;
        if seen == 0 && !self.json {
            output::say("no such events");
        }
        Ok(exit_code::DONE)
    }

    fn path(&self, path: &str, after: Option<u64>) -> String {
        path_with(
            path,
            &[
                ("after", after.map(|number| number.to_string())),
                ("lease", self.lease.map(|number| number.to_string())),
                ("resource", self.resource.clone()),
            ],
        )
    }

    /// Prints events as they come, over broken connections. Ends when nobody reads stdout any
    /// more, or when the broker refuses; a broker that was never there is not waited for.
    async fn follow(&self, broker: &Broker) -> Result<u8, Failure> {
        let mut state = Following { last: self.after.map(|number| number.to_string()), ..Following::default() };
        loop {
            let broken = match self.stream(broker, &mut state).await {
                Ok(Over::Reader) => return Ok(exit_code::DONE),
                Ok(Over::Broker) => "the broker ended the stream".to_owned(),
                Err(failure) if state.reached && failure.code == exit_code::OWN => failure.message,
                Err(failure) => return Err(failure),
            };
            if !std::mem::replace(&mut state.told, true) {
                output::say(&format!("leasehold: {broken}; going on when a broker is back"));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Prints events until one end is gone.
    async fn stream(&self, broker: &Broker, state: &mut Following) -> Result<Over, Failure> {
        let path = self.path("/v1/events", None);
        let headers: Vec<(&str, &str)> = state.last.iter().map(|id| ("last-event-id", id.as_str())).collect();
        let mut events = broker.http().stream(&path, &headers).await?.events();
        (state.reached, state.told) = (true, false);
        while let Some(event) = events.next().await? {
            if let Ok(info) = serde_json::from_str::<EventInfo>(&event.data)
                && !output::print_more(&self.line(&info)?)?
            {
                return Ok(Over::Reader);
            }
            if event.id.is_some() {
                state.last = event.id;
            }
        }
        Ok(Over::Broker)
    }

    fn line(&self, event: &EventInfo) -> Result<String, Failure> {
        if self.json { output::json(event) } else { Ok(line_of(event)) }
    }
}

/// Where following stands.
#[derive(Default)]
struct Following {
    /// The last event that was printed.
    last: Option<String>,
    /// Whether a broker ever answered.
    reached: bool,
    /// Whether it was said that the connection is broken.
    told: bool,
}

/// Which end is gone.
enum Over {
    Broker,
    Reader,
}

/// `17  2026-11-22T23:33:20.123Z  lease_ended  lease=12 end.why=released`.
fn line_of(event: &EventInfo) -> String {
    let mut facts = Vec::new();
    let kind = event.body["type"].as_str().unwrap_or("event");
    flatten("", &event.body, &mut facts);
    let text = format!("{}  {}  {kind}  {}", event.event, event.at_time, facts.join(" "));
    format!("{}\n", output::escape(text.trim_end()))
}

/// Every value of a body with the way to it, but for its type and what is empty.
fn flatten(path: &str, value: &Value, facts: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if path.is_empty() && key == "type" {
                    continue;
                }
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, facts);
            }
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path}.{index}"), item, facts);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) => facts.push(format!("{path}={}", items.iter().map(scalar).collect::<Vec<_>>().join(","))),
        Value::Null => {}
        value => facts.push(format!("{path}={}", scalar(value))),
    }
}

/// A value in a line: texts with spaces in quotes, long ones cut.
fn scalar(value: &Value) -> String {
    let text = match value {
        Value::String(text) if !text.is_empty() && !text.contains([' ', '=', '"']) => text.clone(),
        value => value.to_string(),
    };
    if text.chars().count() <= VALUE_CHARS_MAX {
        return text;
    }
    text.chars().take(VALUE_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::line_of;
    use crate::protocol::info::EventInfo;

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let event = EventInfo {
            event: 17,
            at: 5,
            at_time: "2026-11-22T23:33:20.123Z".into(),
            body: json!({
                "type": "lease_ended",
                "lease": 12,
                "end": { "why": "revoked", "reason": "stuck\n\u{1b}[2J now" },
                "resources": [3, 4],
                "picks": [{ "name": "a" }],
                "outcome": null,
                "tags": [],
            }),
        };
        assert_eq!(
            line_of(&event),
            "17  2026-11-22T23:33:20.123Z  lease_ended  end.reason=\"stuck\\n\\u001b[2J now\" end.why=revoked \
             lease=12 picks.0.name=a resources=3,4\n"
        );
    }
}
