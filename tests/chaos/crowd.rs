//! Far more runners than resources: everybody gets a turn, nobody shares one.

use std::sync::Arc;

use leasehold::client::Client;

use super::common::broker::Broker;
use super::witness::Witness;
use super::{claim, options, runtime};

const RUNNERS: u64 = 200;
const RESOURCES: usize = 10;
/// Leases each runner takes, one after the other.
const TURNS: u64 = 2;

#[test]
fn two_hundred_runners_over_ten_resources_all_finish() {
    let broker = Broker::with_inventory(
        "[[pool]]\nname = \"phone\"\n[[resource]]\nname = \"phone-{01..10}\"\npool = \"phone\"\n",
    );
    let witness = Arc::new(Witness::default());
    let url = broker.url();
    runtime().block_on(async {
        let run = |number| {
            let (url, witness) = (url.clone(), witness.clone());
            tokio::spawn(async move { one(format!("runner-{number}"), &url, &witness).await })
        };
        let runners: Vec<_> = (0..RUNNERS).map(run).collect();
        for runner in runners {
            runner.await.expect("every runner finishes");
        }
    });
    let times = witness.times();
    assert_eq!(times.len(), RESOURCES, "{times:?}");
    assert_eq!(times.values().sum::<u64>(), RUNNERS * TURNS, "{times:?}");
    let status = broker.http("GET", "/v1/status", None).ok();
    assert_eq!((&status["leases"], &status["waiting"]), (&0.into(), &0.into()), "{status}");
}

async fn one(name: String, url: &str, witness: &Witness) {
    // The ttl of a run on a machine that is as busy as two hundred runners make it.
    let client = Client::connect(options(url, &name, 60_000)).await.expect("a session can be opened");
    for _ in 0..TURNS {
        let lease = client.acquire(claim(&["phone"])).await.expect("everybody gets a turn");
        let held: Vec<String> = lease.info().resources["phone"].iter().map(|pick| pick.name.clone()).collect();
        witness.enter(&name, &held, lease.info().fence);
        // Others run while it is held.
        tokio::task::yield_now().await;
        witness.leave(&name, &held, lease.info().fence);
        lease.release(Some("passed")).await.expect("what is held can be released");
    }
    client.close().await.expect("a session can be closed");
}
