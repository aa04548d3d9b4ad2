//! `acquire --no-keeper`: a lease over HTTP, which nobody holds but who renews it.
//!
//! The key is made here and handed to the caller as `LEASEHOLD_LEASE_KEY`; the broker knows its
//! hash only. Asking goes on by repeating the same request until it is granted or refused.

use std::time::Duration;

use serde::Serialize;

use super::{AcquireCommand, hand_over};
use crate::cli::broker::Broker;
use crate::cli::granting::{GOODBYE, NotGranted};
use crate::cli::run::signals::{self, Signals};
use crate::cli::terminal::Messages;
use crate::cli::{Failure, Globals, exit_code, waiting};
use crate::client::ClientError;
use crate::clock::{self, boot_now};
use crate::protocol::call::ClaimRequest;
use crate::protocol::info::{ClaimInfo, LeaseInfo};
use crate::protocol::rpc::Id;

/// Asks without waiting: the first time, so that it is said at once what is waited for.
const ASK: &str = "/v1/leases?wait_ms=0";
/// Waits at the broker for a grant.
const WAIT: &str = "/v1/leases?wait_ms=15000";
/// Between two attempts when no broker can do it.
const PAUSE: Duration = Duration::from_millis(500);

/// The body of the request.
#[derive(Serialize)]
struct LeaseRequest {
    #[serde(flatten)]
    claim: ClaimRequest,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

/// Acquires and prints; the lease goes on without this process.
pub fn acquire(command: &AcquireCommand, globals: &Globals) -> Result<u8, Failure> {
    let key = clock::random_secret();
    let own = |error: std::io::Error| Failure::own(format!("signals cannot be read: {error}"));
    let held = signals::hold().map_err(own)?;
    let broker = Broker::new(globals).map_err(|failure| Failure::own(failure.message))?.under(Some(key.clone()));
    let request = LeaseRequest {
        claim: ClaimRequest {
            request_id: Some(Id::Text("acquire".to_owned())),
            ..command.claim.request(&["leasehold acquire".to_owned()])
        },
        ttl_ms: command.claim.ttl,
    };
    let body = serde_json::to_vec(&request).map_err(|error| Failure::own(error.to_string()))?;
    let messages = Messages::to_stderr();
    let lease = broker.block_on(async {
        let mut signals = Signals::new(&held).map_err(own)?;
        tokio::select! {
            lease = until_granted(&broker, &body, command.claim.connect_timeout, &messages) => {
                lease.map_err(Failure::from)
            }
            caught = signals.next() => {
                let _ = tokio::time::timeout(GOODBYE, give_up(&broker, &body)).await;
                Err(NotGranted::interrupted(caught).into())
            }
        }
    });
    messages.flush();
    let lease = lease?;
    let told =
        hand_over(&lease, &globals.url, command.secrets, Some(&key)).and_then(|(handed, _)| command.print(&handed));
    if told.is_err() {
        // Nobody knows of it, so nobody would give it back.
        broker.block_on(async {
            let _ = tokio::time::timeout(GOODBYE, release(&broker, lease.lease)).await;
        });
    }
    told.map(|()| exit_code::DONE)
}

async fn until_granted(
    broker: &Broker,
    body: &[u8],
    connect_timeout_ms: u64,
    messages: &Messages,
) -> Result<LeaseInfo, NotGranted> {
    let mut heard = boot_now();
    let mut path = ASK;
    let mut said: Option<waiting::Gist> = None;
    loop {
        match ask(broker, path, body).await {
            Ok(Asked::Granted(lease)) => return Ok(*lease),
            Ok(Asked::Queued(info)) => {
                heard = boot_now();
                path = WAIT;
                let gist = waiting::gist(&info);
                if said.as_ref() != Some(&gist) {
                    messages.line(waiting::line(&info, 0));
                    said = Some(gist);
                }
            }
            Err(error) if error.is_passing() && boot_now().since(heard) < connect_timeout_ms => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

enum Asked {
    Granted(Box<LeaseInfo>),
    Queued(Box<ClaimInfo>),
}

async fn ask(broker: &Broker, path: &str, body: &[u8]) -> Result<Asked, ClientError> {
    let answer = broker.send("POST", path, Some(body.to_vec())).await?;
    match answer.status {
        202 => answer.json().map(Asked::Queued),
        _ => answer.json().map(Asked::Granted),
    }
}

/// Leaves the queue, or gives back what was granted at that very moment: asking again tells which.
/// A broker that does not answer drops either by itself, a ttl later.
async fn give_up(broker: &Broker, body: &[u8]) {
    match ask(broker, ASK, body).await {
        Ok(Asked::Queued(info)) => {
            let path = format!("/v1/claims/{}/cancel", info.claim);
            let _ = broker.send("POST", &path, Some(b"{}".to_vec())).await;
        }
        Ok(Asked::Granted(lease)) => release(broker, lease.lease).await,
        Err(_) => {}
    }
}

async fn release(broker: &Broker, lease: u64) {
    let path = format!("/v1/leases/{lease}/release");
    let _ = broker.send("POST", &path, Some(b"{}".to_vec())).await;
}
