//! The database is away: at the start, and under a broker that leads.

use leasehold::testing::postgres::Server;
use serde_json::json;

use super::brokers::Broker;
use super::common::wait::until;
use super::common::ws::Client;
use super::{LAB, number, resume};

#[test]
fn a_database_that_is_away_is_waited_for() {
    let Some(server) = Server::find(&["fsync = off"]) else { return };
    let store = server.database();
    server.stop("fast").expect("the server stops");
    let broker = Broker::on(&store, Some(LAB)).started();
    until("it says that the database is away", || broker.said().contains("the database does not answer"));
    assert_eq!(broker.get("/healthz").status, 200);
    let ready = broker.get("/readyz");
    assert_eq!((ready.status, &ready.json()["code"]), (503, &json!("standby")));
    let detail = ready.json()["detail"].to_string();
    assert!(detail.contains("cannot reach the database"), "{detail}");
    assert_eq!(broker.get("/v1/leases").header("retry-after"), Some("1"));
    assert!(broker.get("/metrics").body.contains("leasehold_database_reachable 0\n"));
    server.start_again().expect("the server starts again");
    broker.wait_leads();
    until("it says that the database is back", || broker.said().contains("the database answers again"));
    assert_eq!(broker.said().matches("the database does not answer").count(), 1, "said once: {}", broker.said());

    // Under a broker that leads, for longer than its term.
    let mut holder = Client::connect(broker.port);
    holder.open_with(json!({ "owner": "holder", "ttl_ms": 60_000 }));
    let lease = number(&holder.lease(&["phone"])["lease"]);
    server.stop("immediate").expect("the server stops");
    until("it knows that its term is over", || broker.said().contains("the lead is lost"));
    assert_eq!(holder.closed().0, 1001);
    let asked = broker.get("/v1/ws");
    assert_eq!((asked.status, asked.header("retry-after")), (503, Some("1")), "{asked:?}");
    server.start_again().expect("the server starts again");
    broker.wait_leads();
    let resumed = resume(broker.port, &holder);
    assert_eq!(resumed.opened["state"]["claims"][0]["lease"]["lease"], json!(lease));
    let metrics = broker.get("/metrics").body;
    for line in ["leasehold_leads_taken_total 2", "leasehold_leads_lost_total 1"] {
        assert!(metrics.lines().any(|got| got == line), "{line} is not in\n{metrics}");
    }
}
