//! The pages on a real broker: what comes from its builds and logs, and who may press their buttons.

use serde_json::json;

use super::common::broker::Broker;
use super::common::http::{self, Answer};
use super::common::wait::eventually;
use super::fake::{Agent, Repo, build, comes_to, lab, pipeline, start};

const HOSTILE: &str = "\u{1b}[31merror: <script>alert(1)</script>\u{1b}[0m\ngoing on\n";

fn get(broker: &Broker, path: &str) -> Answer {
    http::request(broker.port(), "GET", path, &[], None)
}

fn press(broker: &Broker, path: &str, origin: &str) -> Answer {
    http::request(broker.port(), "POST", path, &[("origin", origin)], None)
}

#[test]
fn a_page_shows_what_was_built_and_escapes_what_it_printed() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", ""));
    let agent = Agent::bring(broker.port(), "rack", 1);
    let id = start(&broker)[0];
    let have = agent.take_next();
    have.running();
    have.log(HOSTILE);
    let page = get(&broker, &format!("/builds/{id}"));
    assert_eq!(page.status, 200);
    assert!(page.body.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{}", page.body);
    assert!(!page.body.contains("<script>"), "{}", page.body);
    let lines = get(&broker, &format!("/builds/{id}/lines?from=1")).ok();
    assert_eq!(
        (&lines["lines"], &lines["more"], lines["rows"].as_array().map(Vec::len)),
        (&json!(2), &json!(true), Some(2))
    );
    let outline = get(&broker, &format!("/builds/{id}/outline")).ok();
    assert_eq!(outline["errors"], 1, "{outline}");
    assert!(get(&broker, "/builds").body.contains(&format!("/builds/{id}")));
}

#[test]
fn a_build_that_ends_without_a_word_ends_its_page_too() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", ""));
    let id = start(&broker)[0];
    let lines = format!("/builds/{id}/lines?from=1");
    let waiting = get(&broker, &lines).ok();
    assert_eq!((&waiting["lines"], &waiting["more"]), (&json!(0), &json!(true)));
    broker.http("POST", &format!("/v1/builds/{id}/cancel"), None).ok();
    comes_to(&broker, id, "cancelled");
    let over = eventually("nothing more is to come", || {
        Some(get(&broker, &lines).ok()).filter(|answer| answer["more"] == json!(false))
    });
    assert_eq!(over["lines"], 0);
    assert!(get(&broker, &format!("/builds/{id}")).body.contains("nothing came"));
    assert_eq!(get(&broker, &format!("/builds/{id}?attempt=2")).status, 200);
    assert_eq!(get(&broker, &format!("{lines}&attempt=2")).status, 404);
}

#[test]
fn only_the_forms_of_the_page_itself_do_something() {
    let repo = Repo::new();
    let broker = lab(&repo, &pipeline("unit", ""));
    let id = start(&broker)[0];
    let cancel = format!("/builds/{id}/cancel");
    for origin in ["https://evil.example", "http://localhost:1", "null"] {
        assert_eq!(press(&broker, &cancel, origin).status, 403, "{origin}");
    }
    assert_eq!(http::request(broker.port(), "POST", &cancel, &[], None).status, 403);
    assert_eq!(build(&broker, id)["state"], "queued");
    let done = press(&broker, &cancel, &format!("http://127.0.0.1:{}", broker.port()));
    assert_eq!(done.status, 303, "{}", done.body);
    comes_to(&broker, id, "cancelled");
}
