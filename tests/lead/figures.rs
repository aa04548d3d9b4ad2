//! How long nothing is granted while the lead moves. Figures and no test: they depend on the machine.
//!
//! ```text
//! cargo test --release --all-features --test lead -- --ignored --nocapture figures
//! ```

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use leasehold::client::{BaseUrl, Client, Options};
use leasehold::clock::{BootTime, boot_now};
use leasehold::protocol::call::ClaimRequest;
use leasehold::testing::postgres::Server;
use nix::sys::signal::Signal;

use super::LAB;
use super::brokers::{Broker, pair};
use super::common::wait::PATIENCE;

/// How often each way is gone.
const ROUNDS: usize = 5;
/// How long it goes on after a grant, milliseconds: until a renewal was answered, after a fifth of the
/// ttl. A client that was dropped before that would pause for longer.
const SETTLES_MS: u64 = 7_000;
/// A pause between grants that no move of the lead is as short as, milliseconds.
const GRANTS_APART_MS: u64 = 30;

/// Takes and gives back in a loop, with one session, and tells when it was granted.
fn cycle(urls: &str) -> Receiver<BootTime> {
    let (tell, told) = channel();
    let urls = BaseUrl::parse_list(urls).expect("loopback URLs are bases");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client = Client::connect(Options::new(urls)).await.expect("a broker leads");
            loop {
                let needs = vec!["phone".to_owned()];
                let lease = client.acquire(ClaimRequest { needs, ..ClaimRequest::default() }).await.expect("a grant");
                if tell.send(boot_now()).is_err() {
                    return;
                }
                // Fails where the session has to be resumed first: then it is given back after that.
                let _ = lease.release(None).await;
            }
        });
    });
    told
}

/// From `since` to the first grant after the longest time without one.
fn first_grant_after(since: BootTime, grants: &Receiver<BootTime>) -> u64 {
    let mut last = since;
    let (mut longest, mut end) = (0, 0);
    while boot_now().since(since) < end + SETTLES_MS || longest < GRANTS_APART_MS {
        let Ok(at) = grants.recv_timeout(PATIENCE) else { panic!("nothing was granted any more") };
        if at > since && at.since(last) > longest {
            (longest, end) = (at.since(last), at.since(since));
        }
        last = last.max(at);
    }
    end
}

fn tell(what: &str, mut all: Vec<u64>) {
    all.sort_unstable();
    let (Some(most), median) = (all.last(), all[all.len() / 2]) else { return };
    println!("{what}: p50 {median} ms, max {most} ms, of {}: {all:?}", all.len());
}

fn measure(what: &str, signal: Signal) {
    let Some(server) = Server::find(&[]) else { return };
    let (mut leader, mut standby) = pair(&server.database(), LAB);
    let grants = cycle(&format!("{},{}", leader.url(), standby.url()));
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        grants.recv_timeout(Duration::from_secs(60)).expect("it goes on");
        let since = boot_now();
        leader.process().signal(signal);
        all.push(first_grant_after(since, &grants));
        leader.end(Signal::SIGKILL);
        leader.start();
        leader.wait_follows(&standby);
        std::mem::swap::<Broker>(&mut leader, &mut standby);
        // The longer a leader leads, the less it matters which broker clients reached first.
        while grants.try_recv().is_ok() {}
    }
    tell(what, all);
}

#[test]
#[ignore = "figures, not a test"]
fn figures_of_a_hand_over() {
    measure("SIGTERM to the first grant of another", Signal::SIGTERM);
}

#[test]
#[ignore = "figures, not a test"]
fn figures_of_a_crash() {
    measure("kill -9 to the first grant of another", Signal::SIGKILL);
}
