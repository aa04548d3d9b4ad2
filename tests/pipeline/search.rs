//! What a build has printed is found: over HTTP, at the command line, and after a crash.

use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::wait::eventually;
use super::fake::{Agent, Repo, comes_to, end_of, lab, pipeline, start};

/// What the search says once it has found something.
fn eventually_found(broker: &Broker, query: &str) -> Value {
    eventually(&format!("{query} is found"), || {
        let found = broker.http("GET", &format!("/v1/builds/search?{query}"), None).ok();
        found["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(found)
    })
}

#[test]
fn a_line_of_any_build_is_found_also_after_a_crash() {
    let text = "compiling\n\u{1b}[31merror\u{1b}[0m: the needle is in the haystack\n";
    let repo = Repo::new();
    let mut broker = lab(&repo, &pipeline("unit", ""));
    let mut agent = Agent::bring(broker.port(), "rack", 2);
    let id = start(&broker)[0];
    let have = agent.take_next();
    have.running();
    have.log(text);
    have.finished_with("failed", &end_of(text)).ok();
    comes_to(&broker, id, "failed");
    broker.kill9();
    broker.start();
    agent.again(broker.port());

    let found = eventually_found(&broker, "q=Error+%22needle+is%22+hay*");
    let hit = &found["items"][0];
    assert_eq!((&hit["build"], &hit["attempt"], &hit["line"]), (&json!(id), &json!(1), &json!(2)));
    assert_eq!((&hit["text"], &hit["state"]), (&json!("error: the needle is in the haystack"), &json!("failed")));
    assert_eq!(hit["url"], format!("/builds/{id}?attempt=1&from=1#L2"));
    assert_eq!(found["next"], Value::Null);
    // It is found as soon as it is in the index, which is before its place in the queue is given up.
    eventually("nothing is left to index", || {
        let found = broker.http("GET", "/v1/builds/search?q=needle", None).ok();
        (found["to_index"] == 0).then_some(())
    });
    for nothing in ["q=needles", "q=compiling+needle", "q=needle&state=passed", "q=needle&repository=acme/other"] {
        let found = broker.http("GET", &format!("/v1/builds/search?{nothing}"), None).ok();
        assert_eq!(found["items"], json!([]), "{nothing}");
    }
    for (query, said) in [("", "at least one word"), ("q=x*", "at least 3 letters"), ("q=x&cursor=y", "`cursor`")] {
        let refused = broker.http("GET", &format!("/v1/builds/search?{query}"), None);
        assert!(refused.status == 400 && refused.body.contains(said), "{query}: {}", refused.body);
    }

    let printed = broker.cli(&["build", "search", "needle", "the", "--since", "1h"]).exits(0).stdout;
    assert_eq!(printed, format!("#{id} acme/app unit failed, line 2: error: the needle is in the haystack\n"));
    let found = broker.cli(&["build", "--json", "search", "needle", "--limit", "1"]).exits(0).json();
    assert_eq!(found["line"], 2);
    assert!(broker.cli(&["build", "search", "nowhere"]).exits(0).stderr.contains("nothing found"));
}
