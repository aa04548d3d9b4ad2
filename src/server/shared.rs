//! What connections share while this process leads: the engine's door, and the word that it is over.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::front::Process;
use super::http::hooks;
use super::limits::{FOLLOWERS_MAX, LOG_FOLLOWERS_MAX};
use crate::engine::handle::Handle;
use crate::pipeline::Pipeline;
use crate::pipeline::logs::Logs;
use crate::protocol::error::RpcError;

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
    /// Places for followers of logs.
    pub log_followers: Arc<Semaphore>,
    /// Places for bodies of forges' deliveries.
    pub hook_bodies: Arc<Semaphore>,
    /// What runs builds; `None` where no repository is configured.
    pub pipeline: Option<Arc<Pipeline>>,
    /// Logs of builds; there with the pipeline, and by themselves in tests.
    logs: Option<Logs>,
}

impl Shared {
    /// What is shared from the lead's beginning.
    #[must_use]
    pub fn new(process: Arc<Process>, handle: Handle, inventory: Inventory) -> Self {
        let closing = process.closing.child_token();
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        let log_followers = Arc::new(Semaphore::new(LOG_FOLLOWERS_MAX));
        let hook_bodies = hooks::places();
        Self { process, handle, inventory, closing, followers, log_followers, hook_bodies, pipeline: None, logs: None }
    }

    /// The same with builds.
    #[must_use]
    pub fn with_pipeline(self, pipeline: Arc<Pipeline>) -> Self {
        Self { logs: Some(pipeline.logs.clone()), pipeline: Some(pipeline), ..self }
    }

    /// The same with logs alone.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with_logs(self, logs: Logs) -> Self {
        Self { logs: Some(logs), ..self }
    }

    /// What runs builds.
    ///
    /// # Errors
    /// `not_found`, with what to configure.
    pub fn pipeline(&self) -> Result<&Pipeline, RpcError> {
        self.pipeline.as_deref().ok_or_else(no_builds)
    }

    /// Logs of builds.
    ///
    /// # Errors
    /// As for [`Shared::pipeline`].
    pub fn logs(&self) -> Result<&Logs, RpcError> {
        self.logs.as_ref().ok_or_else(no_builds)
    }
}

fn no_builds() -> RpcError {
    let message = "this broker runs no builds: add a [[repository]] to leasehold.toml, and start it again";
    RpcError::new("not_found", message)
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
