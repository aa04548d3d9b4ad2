//! Builds in the world: their claims, git, logs and statuses, beside the engine of the leases.
//!
//! ```text
//!   forge ──POST /hooks──▶ conductor ──claims, endings──▶ engine
//!   people, agents ──HTTP──▶  │  ▲                          │ grants, ends
//!                             │  └──────────────────────────┘
//!              build store ◀──┴──▶ reporter ──▶ the forge's commit statuses
//!   agents ──log──▶ logs ──▶ object store, tables; index
//! ```
//!
//! The conductor is the one writer of builds: it decides by [`builds`](crate::builds), stores, and only then
//! tells and acts. What it does in the world it finds again after a crash: waiting builds claim anew under
//! their first arrival, endings are asked for again, deliveries not worked on are worked on.

mod aside;
pub mod conductor;
pub mod git;
pub mod logs;
pub mod reporter;
pub mod search;
pub mod source;

use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::conductor::{Conductor, Parts, PastLeases};
use self::logs::{LogLimits, Logs, Objects, Retention};
use self::reporter::Reporter;
use self::search::Search;
use self::source::PipelineSource;
use crate::engine::handle::Handle;
use crate::inventory::pipelines::PipelineSettings;
use crate::store::builds::BuildsAt;

/// How long what is under way may take to end.
const CLOSING_MAX: Duration = Duration::from_secs(2);

/// All of the layer, for whoever serves it.
pub struct Pipeline {
    /// Builds and deliveries.
    pub conductor: Conductor,
    /// Logs.
    pub logs: Logs,
    /// The search across them.
    pub search: Search,
    /// What it goes by.
    pub settings: Arc<PipelineSettings>,
    stop: CancellationToken,
}

/// What the layer is made of.
pub struct Ground {
    /// Where the builds are.
    pub builds: BuildsAt,
    /// Where logs are kept unless the configuration says where.
    pub logs_folder: PathBuf,
    /// Where pipelines come from.
    pub source: PipelineSource,
    /// What it goes by.
    pub settings: Arc<PipelineSettings>,
    /// The engine of the leases.
    pub engine: Handle,
    /// How leases ended.
    pub leases: Arc<dyn PastLeases>,
}

/// The layer's tasks, for whoever ends them.
pub struct Tasks {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Pipeline {
    /// Takes the builds over and begins to work.
    ///
    /// # Errors
    /// In words, for whoever starts the broker.
    pub async fn begin(ground: Ground) -> Result<(Arc<Self>, Tasks), String> {
        let Ground { builds, logs_folder, source, settings, engine, leases } = ground;
        let place = match &settings.logs.url {
            Some(url) => Objects::by_url(url)?,
            None => Objects::folder(&logs_folder)?,
        };
        let opened = builds.open().await.map_err(|error| error.to_string())?;
        let logs = Logs::new(opened.logs, opened.builds.clone(), place, LogLimits::of(settings.logs.limit_bytes));
        let search = Search::new(opened.search, opened.builds.clone(), logs.clone(), &settings.search)?;
        let report = reporter::Settings::of(&settings);
        let store = opened.builds;
        let parts = Parts { store, source, settings: settings.clone(), engine, leases, logs: logs.clone() };
        let begun = Conductor::start(parts, |settle| Reporter::start(report, settle)).await;
        let (conductor, task) = begun.map_err(|error| error.to_string())?;
        let stop = CancellationToken::new();
        let retention = Retention { kept_ms: settings.logs.retention_ms, builds: settings.logs.keep };
        let keeping = tokio::spawn(logs.clone().keep(retention, stop.clone()));
        let indexing = tokio::spawn(search.clone().index(stop.clone()));
        let pipeline = Self { conductor, logs, search, settings, stop: stop.clone() };
        Ok((Arc::new(pipeline), Tasks { stop, tasks: vec![task, keeping, indexing] }))
    }

    /// Begins to end: nothing more is decided. Whoever takes over next goes on.
    pub fn stop(&self) {
        self.conductor.stop();
        self.stop.cancel();
    }
}

impl Tasks {
    /// Waits until nothing of the layer works any more. To be called after [`Pipeline::stop`].
    pub async fn ended(self) {
        self.stop.cancel();
        for mut task in self.tasks {
            if tokio::time::timeout(CLOSING_MAX, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Makes ring what TLS is done with, once in a process, where nobody chose before: of this process's libraries
/// all can go by any. To be called before a client of HTTP is made.
fn use_ring() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
