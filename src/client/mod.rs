//! The client half: connect, resume, hold leases, and stop in time when the broker is gone.
//!
//! A [`Client`] is one session. Its [`LeaseGuard`]s say until when their resources may be used and
//! tell at once when that ends; nobody else gets a resource before. What happens over the wire and
//! when is decided by [`machine`], which has neither sockets nor a clock; [`driver`] moves bytes
//! and time for it.
//!
//! ```no_run
//! use leasehold::client::{Client, Options};
//! use leasehold::protocol::call::ClaimRequest;
//!
//! # async fn example() -> Result<(), leasehold::client::ClientError> {
//! let client = Client::connect(Options::from_env()?).await?;
//! let request = ClaimRequest { needs: vec!["phone,os=android".to_owned()], ..ClaimRequest::default() };
//! let mut lease = client.acquire(request).await?;
//! println!("{} until {:?}", lease.info().resources["phone"][0].name, lease.deadline());
//! tokio::select! {
//!     () = async { /* the test */ } => { lease.release(Some("passed")).await?; }
//!     standing = lease.ended() => eprintln!("stop at once: {standing:?}"),
//! }
//! client.close().await
//! # }
//! ```
//!
//! Promises of the driver's task hold while it runs: a program that blocks all threads of its
//! runtime, or is stopped, renews nothing. Then the broker leases on, and a program that must not
//! outlive its lease even so runs its work under `leasehold run`.

pub mod connect;
pub mod driver;
pub mod error;
pub mod event;
mod exchange;
pub mod handle;
pub mod http;
pub mod machine;
mod proxy;
mod redirect;
pub mod sse;
mod timer;
pub mod url;

pub use connect::Network;
pub use error::ClientError;
pub use event::{Event, LeaseState, Standing};
pub use handle::{Client, EventStream, LeaseGuard, Waiting, close_session};
pub use http::Http;
pub use url::BaseUrl;

use crate::clock;

/// How long an absent broker is waited for, unless told otherwise.
pub const CONNECT_TIMEOUT_MS_DEFAULT: u64 = 120_000;

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Brokers, tried in turn.
    pub urls: Vec<BaseUrl>,
    /// Token, certificates, proxy.
    pub network: Network,
    /// Who the session acts for.
    pub owner: Option<String>,
    /// Its ttl, 2,000 to 600,000; wins over `pools` and `needs`.
    pub ttl_ms: Option<u64>,
    /// The pools it is for: the longest of their ttls is taken.
    pub pools: Vec<String>,
    /// NEED texts whose pools count likewise.
    pub needs: Vec<String>,
    /// How long no broker may be there before opening, or a claim that waits, fails.
    pub connect_timeout_ms: u64,
    /// Random text that is this process's own: a resume from another one is refused.
    pub instance: String,
}

impl Options {
    /// For these brokers, with the defaults: `user@host`, 30 s of ttl unless a pool says otherwise,
    /// two minutes to connect.
    #[must_use]
    pub fn new(urls: Vec<BaseUrl>) -> Self {
        Self {
            urls,
            network: Network::default(),
            owner: Some(default_owner()),
            ttl_ms: None,
            pools: Vec::new(),
            needs: Vec::new(),
            connect_timeout_ms: CONNECT_TIMEOUT_MS_DEFAULT,
            instance: clock::random_secret(),
        }
    }

    /// As `LEASEHOLD_URL` and the other variables say.
    pub fn from_env() -> Result<Self, ClientError> {
        Ok(Self { network: Network::from_env()?, ..Self::new(BaseUrl::from_env()?) })
    }
}

/// `user@host`, as far as the system tells.
#[must_use]
pub fn default_owner() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let user = user.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| nix::unistd::getuid().to_string());
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    format!("{user}@{}", host.unwrap_or_else(|| "unknown".to_owned()))
}
