//! What every connection shares: the engine's door, the bounds, and the word to stop.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::metrics::Metrics;
use super::limits::{FOLLOWERS_MAX, Limits};
use crate::engine::handle::Handle;

/// What the broker says of itself that is not on the books.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Where its data is: `sqlite:PATH`.
    pub store: String,
    /// The inventory file it watches.
    pub inventory: Option<String>,
    /// Whether `serve` was told `--insecure`.
    pub insecure: bool,
}

/// Shared by every connection of a server.
pub struct Shared {
    /// The engine's door.
    pub handle: Handle,
    /// The bounds.
    pub limits: Limits,
    /// What the broker says of itself.
    pub about: About,
    /// Why the inventory file is not applied, while it is not.
    pub inventory_error: watch::Receiver<Option<Arc<str>>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when every socket is to be closed with 1001.
    pub closing: CancellationToken,
    /// Connections and sockets, to wait for at the end.
    pub tasks: TaskTracker,
    /// Places for followers of the journal.
    pub followers: Arc<Semaphore>,
}

impl Shared {
    /// What a server shares from its start.
    #[must_use]
    pub fn new(
        handle: Handle,
        limits: Limits,
        about: About,
        inventory_error: watch::Receiver<Option<Arc<str>>>,
    ) -> Self {
        Self {
            handle,
            limits,
            about,
            inventory_error,
            metrics: Metrics::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
        }
    }
}

/// What a route is given: what is shared, and the store's reader.
#[derive(Clone)]
pub struct App<R> {
    /// What is shared.
    pub shared: Arc<Shared>,
    /// Reads what is committed.
    pub reader: R,
}

impl<R> FromRef<App<R>> for Arc<Shared> {
    fn from_ref(app: &App<R>) -> Self {
        app.shared.clone()
    }
}
