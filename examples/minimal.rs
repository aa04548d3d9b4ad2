//! Holds an Android phone while it works. `LEASEHOLD_URL` says where the broker is.
//!
//! Unlike the minimal clients in other languages this one also guards its work: the library
//! renews, resumes on a new connection, and says in time when the phone must not be used any more.

use leasehold::client::{Client, ClientError, Options};
use leasehold::protocol::call::ClaimRequest;
use leasehold::protocol::info::LeaseInfo;

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let needs = vec!["phone,os=android".to_owned()];
    let client = Client::connect(Options { needs: needs.clone(), ..Options::from_env()? }).await?;
    let mut lease = client.acquire(ClaimRequest { needs, ..ClaimRequest::default() }).await?;
    let info = lease.info();
    tokio::select! {
        outcome = work(&info) => {
            lease.release(Some(outcome)).await?;
        }
        standing = lease.ended() => eprintln!("stopped working: {standing:?}"),
    }
    client.close().await
}

/// What the phone is needed for.
async fn work(lease: &LeaseInfo) -> &'static str {
    println!("{} {}", lease.resources["phone"][0].name, lease.fence);
    "passed"
}
