//! What a repository may use is what the configuration says now, also for plans that were read before.

use super::fake::{Repo, build, comes_to, config, lab, pipeline, start};

#[test]
fn a_build_that_waits_asks_for_nothing_that_was_taken_from_its_repository() {
    let repo = Repo::new();
    let unit = pipeline("unit", "needs = [\"phone\"]");
    let mut broker = lab(&repo, &unit);
    let id = start(&broker)[0];
    assert_eq!(build(&broker, id)["state"], "queued");
    let file = broker.dir().join("leasehold.toml");
    let other = pipeline("other", "");
    let narrowed = config(&repo, &other).replace("\"phone\", ", "");
    std::fs::write(&file, narrowed).expect("a file can be written");
    broker.restart();
    let over = comes_to(&broker, id, "failed");
    assert!(over["reason"].as_str().is_some_and(|why| why.contains("may not use pool phone")), "{over}");
    // Nor does it when it is asked for once more.
    let again = broker.http("POST", &format!("/v1/builds/{id}/retry"), None).ok();
    let again = again["builds"][0].as_u64().expect("a number");
    comes_to(&broker, again, "failed");

    // Of a repository that is gone nothing is claimed for.
    std::fs::write(&file, config(&repo, &unit)).expect("a file can be written");
    broker.restart();
    let waits = start(&broker)[0];
    std::fs::write(&file, config(&repo, &unit).replace("acme/app", "acme/new")).expect("a file can be written");
    broker.restart();
    let over = comes_to(&broker, waits, "failed");
    assert!(over["reason"].as_str().is_some_and(|why| why.contains("no [[repository]]")), "{over}");
    assert_eq!(broker.sh("lease ls --json").json(), serde_json::json!([]));
}
