//! What belongs to the process whatever its role, and which role answers at present.
//!
//! A broker that shares its store leads for a time, stands by, and may lead again; its listener, its
//! connections and what is counted of them outlast that. A role is its routes: the front hands each
//! request to those of the role that the process has when the request comes, and a role that is over
//! ends its own sockets. A broker alone on its store leads from its start to its end.

use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::metrics::Metrics;
use super::limits::Limits;
use super::sight::Sight;

/// What lasts as long as the process.
pub struct Process {
    /// The bounds.
    pub limits: Limits,
    /// Whether `serve` was told `--insecure`.
    pub insecure: bool,
    /// Where its data is: `sqlite:PATH`, or the database's URL without its password.
    pub store: String,
    /// What it last saw of the brokers that share the store; `None` where it is this process's alone.
    pub sight: Option<watch::Receiver<Sight>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when the process stops: nothing is accepted any more, every socket is closed.
    pub closing: CancellationToken,
    /// Connections and sockets, to wait for at the end.
    pub tasks: TaskTracker,
}

impl Process {
    /// A process that has served nobody yet.
    #[must_use]
    pub fn new(limits: Limits, insecure: bool, store: String, sight: Option<watch::Receiver<Sight>>) -> Self {
        Self {
            limits,
            insecure,
            store,
            sight,
            metrics: Metrics::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// What it last saw of the brokers that share the store, where any do.
    #[must_use]
    pub fn seen(&self) -> Option<Sight> {
        self.sight.as_ref().map(|sight| sight.borrow().clone())
    }
}

/// The process with its present role.
pub struct Front {
    /// What outlasts the role.
    pub process: Arc<Process>,
    routes: watch::Sender<Router>,
}

impl Front {
    /// A front that begins with the routes of this role.
    #[must_use]
    pub fn new(process: Arc<Process>, routes: Router) -> Self {
        Self { process, routes: watch::Sender::new(routes) }
    }

    /// Gives the process another role: whatever is asked from now on is asked of these routes.
    pub fn turn(&self, routes: Router) {
        drop(self.routes.send_replace(routes));
    }

    /// The routes of the present role.
    pub fn routes(&self) -> Router {
        self.routes.borrow().clone()
    }
}
