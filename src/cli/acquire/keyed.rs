//! `acquire --no-keeper`: a lease over HTTP, which nobody holds but who renews it.
//!
//! The key is made here and handed to the caller as `LEASEHOLD_LEASE_KEY`; the broker knows its
//! hash only. Asking goes on by repeating the same request until it is granted or refused.

use std::cell::Cell;
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

/// How long one request waits at the broker for a grant.
const PATH: &str = "/v1/leases?wait_ms=15000";
/// Between two attempts when nobody answers.
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
        let claim = Cell::new(None);
        tokio::select! {
            lease = until_granted(&broker, &body, command.claim.connect_timeout, &messages, &claim) => {
                lease.map_err(Failure::from)
            }
            caught = signals.next() => {
                cancel(&broker, claim.get()).await;
                Err(NotGranted::interrupted(caught).into())
            }
        }
    });
    messages.flush();
    let lease = lease?;
    let (handed, _) = hand_over(&lease, &globals.url, command.secrets, Some(&key))?;
    command.print(&handed)?;
    Ok(exit_code::DONE)
}

async fn until_granted(
    broker: &Broker,
    body: &[u8],
    connect_timeout_ms: u64,
    messages: &Messages,
    claim: &Cell<Option<u64>>,
) -> Result<LeaseInfo, NotGranted> {
    let mut heard = boot_now();
    let mut said: Option<waiting::Gist> = None;
    loop {
        match ask(broker, body).await {
            Ok(Asked::Granted(lease)) => return Ok(*lease),
            Ok(Asked::Queued(info)) => {
                heard = boot_now();
                claim.set(Some(info.claim));
                let gist = waiting::gist(&info);
                if said.as_ref() != Some(&gist) {
                    messages.line(waiting::line(&info));
                    said = Some(gist);
                }
            }
            Err(error) if error.is_no_broker() && boot_now().since(heard) < connect_timeout_ms => {
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

async fn ask(broker: &Broker, body: &[u8]) -> Result<Asked, ClientError> {
    let answer = broker.send("POST", PATH, Some(body.to_vec())).await?;
    match answer.status {
        202 => answer.json().map(Asked::Queued),
        _ => answer.json().map(Asked::Granted),
    }
}

/// Leaves the queue. A broker that does not answer drops the claim by itself, a ttl later.
async fn cancel(broker: &Broker, claim: Option<u64>) {
    if let Some(claim) = claim {
        let path = format!("/v1/claims/{claim}/cancel");
        let _ = tokio::time::timeout(GOODBYE, broker.send("POST", &path, Some(b"{}".to_vec()))).await;
    }
}
