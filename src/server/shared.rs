//! What connections share while this process leads: the engine's door, and the word that it is over.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::front::Process;
use super::limits::FOLLOWERS_MAX;
use crate::engine::handle::Handle;

/// The inventory file that the broker goes by.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The file; `None` without one.
    pub file: Option<String>,
    /// Why it is not applied, while it is not.
    pub error: watch::Receiver<Option<Arc<str>>>,
}

/// Shared by everything that a process serves while it leads.
pub struct Shared {
    /// What outlasts the lead.
    pub process: Arc<Process>,
    /// The engine's door.
    pub handle: Handle,
    /// The inventory file.
    pub inventory: Inventory,
    /// Cancelled when every socket is to be closed with 1001: the process stops, or leads no more.
    pub closing: CancellationToken,
    /// Places for followers of the journal.
    pub followers: Arc<Semaphore>,
}

impl Shared {
    /// What is shared from the lead's beginning.
    #[must_use]
    pub fn new(process: Arc<Process>, handle: Handle, inventory: Inventory) -> Self {
        let closing = process.closing.child_token();
        Self { process, handle, inventory, closing, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) }
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

impl<R> FromRef<App<R>> for Arc<Process> {
    fn from_ref(app: &App<R>) -> Self {
        app.shared.process.clone()
    }
}
