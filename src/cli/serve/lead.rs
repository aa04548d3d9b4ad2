//! A time of leading: from the store in hand, over its engine, to the end of both.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};

use super::inventory::Inventory;
use super::options::{BuildSettings, Settings};
use super::{Failure, GOODBYE};
use crate::engine::handle::Handle;
use crate::engine::{self, Ended};
use crate::pipeline::git::Git;
use crate::pipeline::source::PipelineSource;
use crate::pipeline::{Ground, Pipeline, Tasks};
use crate::server::front::Process;
use crate::server::http::router;
use crate::server::shared::{self, App, Shared};
use crate::store::builds::BuildsAt;
use crate::store::{Reader, Store};
use crate::units::show_duration_ms;

/// A time of leading.
pub(super) struct Lead {
    handle: Handle,
    engine: JoinHandle<Ended>,
    shared: Arc<Shared>,
    /// Follows the inventory file, where that is watched.
    following: Option<JoinHandle<()>>,
    /// Works on builds, where any are configured.
    building: Option<Tasks>,
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
        let (reader, builds) = (store.reader(), store.builds());
        let (handle, engine) = engine::start(store, settings.engine.clone(), settings.retention_ms)
            .await
            .map_err(|error| Failure::refused(error.to_string()))?;
        let (trouble, error) = watch::channel(None);
        let begun = match &settings.inventory {
            Some(path) if process.sight.is_some() => {
                Inventory::fill(path, &handle, trouble).await;
                None
            }
            Some(path) => Some(Inventory::begin(path, &handle, trouble).await?),
            None => None,
        };
        let begun_builds = match &settings.builds {
            Some(settings) => Some(begin_builds(settings, builds, &handle, reader.clone()).await?),
            None => None,
        };
        handle.accepting().await.map_err(|error| Failure::refused(error.message))?;
        let file = settings.inventory.as_deref().map(Path::display).map(|file| file.to_string());
        let shared = Shared::new(process.clone(), handle.clone(), shared::Inventory { file, error });
        let (shared, building) = match begun_builds {
            Some((pipeline, tasks)) => (shared.with_pipeline(pipeline), Some(tasks)),
            None => (shared, None),
        };
        let shared = Arc::new(shared);
        let routes = router(App { shared: shared.clone(), reader });
        let following = begun.map(|inventory| tokio::spawn(inventory.follow()));
        Ok((Self { handle, engine, shared, following, building }, routes))
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

    /// Waits for the engine's end, and says how it ended.
    ///
    /// # Errors
    /// When it ended by an error of its own.
    pub(super) async fn ended(&mut self) -> Result<Ended, JoinError> {
        (&mut self.engine).await
    }

    /// Gives the lead up at once: nothing more is answered, and another may take it. `false` when it is
    /// not known to be given up, and is left to its term.
    pub(super) async fn hand_over(&mut self) -> bool {
        self.stop_builds().await;
        self.handle.hand_over();
        matches!((&mut self.engine).await, Ok(Ended::GaveUp))
    }

    /// Closes everything that is served by this lead.
    pub(super) async fn close(mut self) {
        self.unfollow();
        self.shared.closing.cancel();
        self.stop_builds().await;
    }

    /// Ends the work on builds, so that whoever leads next finds nobody else at it. What was accepted is
    /// stored, and is worked on then.
    async fn stop_builds(&mut self) {
        if let Some(pipeline) = &self.shared.pipeline {
            pipeline.stop();
        }
        if let Some(building) = self.building.take() {
            building.ended().await;
        }
    }

    /// The planned stop: no grants, everybody renews and is promised longer, then goodbye.
    pub(super) async fn wind_down(&mut self, restart_grace_ms: u64, serving: &mut Serving) {
        self.unfollow();
        let grace = show_duration_ms(restart_grace_ms);
        say!("stopping: no more grants; sessions that renew now keep their leases for {grace}");
        self.handle.stop().await;
        goodbye(&self.shared.process, serving).await;
    }

    /// Waits for the engine, which ends when nobody is left to ask it anything.
    pub(super) async fn end(mut self) {
        self.stop_builds().await;
        let Self { handle, engine, shared, following, building: _ } = self;
        drop((handle, shared, following));
        let _ = tokio::time::timeout(GOODBYE, engine).await;
    }

    /// Leaves the inventory file alone from here on.
    pub(super) fn unfollow(&mut self) {
        if let Some(following) = self.following.take() {
            following.abort();
        }
    }
}

/// Takes the builds over beside the leases.
async fn begin_builds<R: Reader>(
    settings: &BuildSettings,
    builds: BuildsAt,
    engine: &Handle,
    reader: R,
) -> Result<(Arc<Pipeline>, Tasks), Failure> {
    let ground = Ground {
        builds,
        logs_folder: settings.logs_folder.clone(),
        source: PipelineSource::new(Git::new(settings.mirrors.clone())),
        settings: settings.pipelines.clone(),
        engine: engine.clone(),
        leases: Arc::new(reader),
    };
    Pipeline::begin(ground).await.map_err(|problem| Failure::refused(format!("builds: {problem}")))
}

/// The task that accepts connections, until it was waited for.
pub(super) type Serving = Option<JoinHandle<()>>;

/// Says goodbye to everybody who is connected.
pub(super) async fn goodbye(process: &Process, serving: &mut Serving) {
    process.closing.cancel();
    let serving = serving.take();
    let goodbye = async {
        if let Some(serving) = serving {
            // Fails only where a task panicked, which has been said.
            let _ = serving.await;
        }
        process.tasks.wait().await;
    };
    // Whoever does not say goodbye in time is dropped; its session has its promise all the same.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

fn many(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
