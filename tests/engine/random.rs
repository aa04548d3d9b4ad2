//! Random work under random faults, with a witness outside: no resource has two holders, and
//! nothing told is gone after the store was read anew.

use std::collections::BTreeMap;

use leasehold::store::faulty::CommitFault;

use super::broker::{Broker, Client};

const RUNS: u64 = 200;
const STEPS: u64 = 12;
const CLIENTS: u64 = 3;

/// Small, and the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What the outside knows: who was told to hold what, and not told that it was taken back.
#[derive(Default)]
struct Witness {
    holders: BTreeMap<String, u64>,
    highest_fence: u64,
}

impl Witness {
    fn granted(&mut self, lease: u64, resource: String) {
        assert!(lease > self.highest_fence, "fence {lease} after {}", self.highest_fence);
        self.highest_fence = lease;
        if let Some(before) = self.holders.insert(resource.clone(), lease) {
            panic!("{resource} has two holders: {before} and {lease}");
        }
    }
}

/// A client, with how many of its requests are settled and what it was told that it holds.
struct Runner {
    client: Client,
    settled: u64,
    held: Option<(u64, String)>,
}

async fn run(seed: u64) {
    let mut dice = Dice(seed);
    let broker = Broker::of(&[("phone", 2)]).await;
    let mut witness = Witness::default();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Runner { client: broker.client().await, settled: 0, held: None });
    }
    for _ in 0..STEPS {
        if dice.roll(3) == 0 {
            let fault = [CommitFault::Before, CommitFault::In, CommitFault::After][dice.roll(3) as usize];
            broker.faults.fail_commit(fault);
        }
        let Runner { client, settled, held } = &mut clients[dice.roll(CLIENTS) as usize];
        match held.take() {
            Some((lease, resource)) => match client.release(lease).await {
                Ok(_) => {
                    assert_eq!(witness.holders.remove(&resource), Some(lease));
                }
                Err(error) => {
                    assert_eq!(error.data.code, "unavailable");
                    *held = Some((lease, resource));
                }
            },
            None => {
                // The same number again until something is known of it: asking twice is asking once.
                let mut spec = super::words::claim(&["phone"]);
                spec.wait_ms = Some(0);
                let id = client.send_acquire(*settled + 1, spec).await;
                match super::broker::claim_of(client.answer(&id).await) {
                    Ok(told) => {
                        *settled += 1;
                        if let Some(lease) = told.lease {
                            let resource = lease.resources["phone"][0].name.clone();
                            witness.granted(lease.lease, resource.clone());
                            *held = Some((lease.lease, resource));
                        }
                    }
                    Err(code) => assert_eq!(code, "unavailable"),
                }
            }
        }
    }
    broker.faults.go_on();
    drop(clients);
    let stored = broker.stored().await;
    let held: BTreeMap<String, u64> =
        stored.leases.iter().map(|lease| (lease.picks[0].name.to_string(), lease.id.0)).collect();
    for (resource, lease) in &witness.holders {
        assert_eq!(held.get(resource), Some(lease), "{resource} was told to be held by {lease}, seed {seed}");
    }
    assert!(stored.lab.last_lease >= witness.highest_fence);
    assert_eq!(stored.sessions.len() as u64, CLIENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_is_kept_and_nothing_has_two_holders() {
    let mut runs = tokio::task::JoinSet::new();
    for seed in 0..RUNS {
        if runs.len() >= 16 {
            runs.join_next().await.expect("a run").expect("a run that held");
        }
        runs.spawn(run(seed));
    }
    while let Some(done) = runs.join_next().await {
        done.expect("a run that held");
    }
}
