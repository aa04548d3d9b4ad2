//! A time of leading: from the store in hand, over its engine, to the end of both.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::inventory::Inventory;
use super::options::Settings;
use super::{Failure, GOODBYE};
use crate::engine::handle::Handle;
use crate::engine::{self, Ended};
use crate::server::front::Process;
use crate::server::http::router;
use crate::server::shared::{self, App, Shared};
use crate::store::Store;
use crate::units::show_duration_ms;

/// A time of leading.
pub(super) struct Lead {
    handle: Handle,
    engine: JoinHandle<Ended>,
    shared: Arc<Shared>,
    /// Follows the inventory file, where that is watched.
    following: Option<JoinHandle<()>>,
}

impl Lead {
    /// Takes the books over, brings the inventory file into them, and answers with the routes to
    /// serve. Every session's ttl counts from here.
    ///
    /// # Errors
    /// When the books cannot be read or written, or there is nothing to lease and no file that can
    /// be applied.
    pub(super) async fn begin<S: Store>(
        store: S,
        settings: &Settings,
        process: &Arc<Process>,
    ) -> Result<(Self, Router), Failure> {
        let reader = store.reader();
        let (handle, engine) = engine::start(store, settings.engine.clone(), settings.retention_ms)
            .await
            .map_err(|error| Failure::refused(error.to_string()))?;
        let (trouble, error) = watch::channel(None);
        let begun = match &settings.inventory {
            Some(path) => Some(Inventory::begin(path, &handle, trouble).await?),
            None => None,
        };
        handle.accepting().await.map_err(|error| Failure::refused(error.message))?;
        let file = settings.inventory.as_deref().map(Path::display).map(|file| file.to_string());
        let shared = Arc::new(Shared::new(process.clone(), handle.clone(), shared::Inventory { file, error }));
        let routes = router(App { shared: shared.clone(), reader });
        let following = begun.map(|inventory| tokio::spawn(inventory.follow()));
        Ok((Self { handle, engine, shared, following }, routes))
    }

    /// What there is to lease, for the line at the start.
    pub(super) async fn holdings(&self) -> Result<String, Failure> {
        let counts = self.handle.read(|view| {
            let state = view.state;
            (state.resources.len(), state.pools.len(), state.leases.len())
        });
        let (resources, pools, leases) = counts.await.map_err(|error| Failure::refused(error.message))?;
        let (resources, pools, leases) = (many(resources, "resource"), many(pools, "pool"), many(leases, "lease"));
        let from = self.shared.inventory.file.as_ref().map(|file| format!(", from {file}")).unwrap_or_default();
        Ok(format!("{resources} in {pools}{from}; {leases} held"))
    }

    /// Waits for the engine's end, which nobody asked for.
    pub(super) async fn ended(&mut self) -> Failure {
        let ended = (&mut self.engine).await;
        let why = ended.map_or_else(|error| format!(": {error}"), |ended| format!(": {ended:?}"));
        Failure::refused(format!("the engine ended{why}: start the broker again, it loses nothing"))
    }

    /// The planned stop: no grants, everybody renews and is promised longer, then goodbye.
    pub(super) async fn wind_down(&mut self, restart_grace_ms: u64, serving: JoinHandle<()>) {
        self.unfollow();
        let grace = show_duration_ms(restart_grace_ms);
        say!("stopping: no more grants; sessions that renew now keep their leases for {grace}");
        self.handle.stop().await;
        goodbye(&self.shared.process, serving).await;
    }

    /// Waits for the engine, which ends when nobody is left to ask it anything.
    pub(super) async fn end(self) {
        let Self { handle, engine, shared, following } = self;
        drop((handle, shared, following));
        let _ = tokio::time::timeout(GOODBYE, engine).await;
    }

    fn unfollow(&mut self) {
        if let Some(following) = self.following.take() {
            following.abort();
        }
    }
}

/// Says goodbye to everybody who is connected.
pub(super) async fn goodbye(process: &Process, serving: JoinHandle<()>) {
    process.closing.cancel();
    let goodbye = async {
        // Fails only where a task panicked, which has been said.
        let _ = serving.await;
        process.tasks.wait().await;
    };
    // Whoever does not say goodbye in time is dropped; its session has its promise all the same.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
