//! What each role answers.

use leasehold::testing::postgres;
use serde_json::json;

use super::LAB;
use super::brokers::{Broker, pair};
use super::common::process;
use super::common::proxy::Proxy;
use super::common::{http, wait::until};

const UPGRADE: &[(&str, &str)] = &[
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Protocol", "leasehold.v1"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn a_standby_sends_everybody_to_the_leader_and_speaks_for_itself() {
    let Some(server) = postgres::shared() else { return };
    let (first, second) = pair(&server.database(), LAB);
    let body = json!({ "needs": ["phone"], "request_id": "r" });
    for (method, path, headers, body) in [
        ("GET", "/v1/ws", UPGRADE, None),
        ("GET", "/v1/leases?limit=3", &[], None),
        ("POST", "/v1/leases", &[], Some(&body)),
        ("DELETE", "/v1/resources/phone-1", &[], None),
    ] {
        let answer = http::request(second.port, method, path, headers, body);
        assert_eq!(answer.status, 307, "{method} {path}: {answer:?}");
        let scheme = if headers.is_empty() { "http" } else { "ws" };
        let there = format!("{scheme}://127.0.0.1:{}{path}", first.port);
        assert_eq!(answer.header("location"), Some(there.as_str()), "{method} {path}");
        assert_eq!(answer.json()["leader"], first.url(), "{answer:?}");
    }
    assert_eq!(second.get("/healthz").status, 200);
    let ready = second.get("/readyz");
    assert_eq!(
        (ready.status, &ready.json()["code"], &ready.json()["leader"]),
        (503, &json!("standby"), &json!(first.url()))
    );
    let metrics = second.get("/metrics").body;
    for line in ["leasehold_leading 0", "leasehold_leader_known 1", "leasehold_database_reachable 1"] {
        assert!(metrics.lines().any(|got| got == line), "{line} is not in\n{metrics}");
    }
    assert!(first.get("/metrics").body.lines().any(|line| line == "leasehold_leading 1"));
}

#[test]
fn both_tell_who_is_there_and_the_command_shows_it() {
    let Some(server) = postgres::shared() else { return };
    let (first, second) = pair(&server.database(), LAB);
    for broker in [&first, &second] {
        until("both know of both", || broker.status()["brokers"].as_array().is_some_and(|known| known.len() == 2));
        let status = broker.status();
        assert_eq!(
            (&status["leader"], &status["epoch"], &status["term_ms"]),
            (&json!(first.url()), &json!(1), &json!(2_000))
        );
        let leading: Vec<_> =
            status["brokers"].as_array().into_iter().flatten().filter(|known| known["leads"] == true).collect();
        assert_eq!(leading.len(), 1, "{status}");
        assert_eq!(leading[0]["url"], first.url(), "{status}");
    }
    assert_eq!((&first.status()["role"], &second.status()["role"]), (&json!("leading"), &json!("standby")));
    let shown = |broker: &Broker| {
        let mut command = process::leasehold(broker.home.path());
        process::run(command.env("LEASEHOLD_URL", broker.url()).arg("status")).exits(0).stdout
    };
    let (leading, standing_by) = (shown(&first), shown(&second));
    assert!(leading.contains("epoch") && leading.contains("phone  2"), "{leading}");
    assert!(standing_by.contains(&first.url()) && standing_by.contains("standby"), "{standing_by}");
}

#[test]
fn a_broker_is_advertised_as_it_was_told() {
    let Some(server) = postgres::shared() else { return };
    let store = server.database();
    let first = Broker::on(&store, None).arg("--advertise").arg("wss://lab.example.org/one/").started();
    first.wait_leads();
    let second = Broker::on(&store, None).started();
    until("it knows who leads", || !second.status()["leader"].is_null());
    let answer = second.get("/v1/queue");
    assert_eq!(answer.header("location"), Some("https://lab.example.org/one/v1/queue"), "{answer:?}");
}

#[test]
fn status_is_of_whoever_leads_and_of_one_broker_when_one_is_asked() {
    let Some(server) = postgres::shared() else { return };
    let (first, second) = pair(&server.database(), LAB);
    let gone = Proxy::to(first.port);
    gone.refuse();
    let home = tempfile::tempdir().unwrap();
    let status = |urls: &str| {
        let mut command = process::leasehold(home.path());
        process::run(command.args(["status", "--json"]).env("LEASEHOLD_URL", urls)).exits(0).json()
    };
    let all = status(&format!("{},{},{}", gone.url(), second.url(), first.url()));
    assert_eq!((&all["role"], &all["pools"][0]["pool"]), (&json!("leading"), &json!("phone")), "{all}");
    let one = status(&second.url());
    assert_eq!((&one["role"], &one["leader"]), (&json!("standby"), &json!(first.url())), "{one}");
    let without = status(&format!("{},{}", gone.url(), second.url()));
    assert_eq!(without["role"], "standby", "{without}");
}
