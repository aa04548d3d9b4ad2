//! Builds with logs, as they are when they are over.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::builds::build::{Build, BuildId, Cause, Line, Phase, Subject, Times};
use crate::builds::change::Change;
use crate::builds::happening::Sha;
use crate::builds::log::LogId;
use crate::builds::plan::{Concurrency, Plan};
use crate::inventory::pipelines::SearchSettings;
use crate::pipeline::logs::{Admitted, LogLimits, Logs, Objects, Retention};
use crate::pipeline::search::Search;
use crate::protocol::log_times::LineTimes;
use crate::store::builds::{BuildsAt, Opened};

/// A store with logs, and what looks after them.
pub(super) struct World {
    pub(super) store: Opened,
    logs: Logs,
    _stop: DropGuard,
    folder: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = BuildsAt::File(folder.path().join("builds.db")).open().await.unwrap();
        store.builds.take_over(0).await.unwrap();
        let objects = Objects::folder(&folder.path().join("logs")).unwrap();
        let logs = Logs::new(store.logs.clone(), store.builds.clone(), objects, LogLimits::of(10_000_000));
        let stop = CancellationToken::new();
        tokio::spawn(logs.clone().keep(Retention { kept_ms: u64::MAX, builds: 1_000 }, stop.clone()));
        Self { store, logs, _stop: stop.drop_guard(), folder }
    }

    pub(super) fn search(&self, url: Option<Arc<str>>) -> Search {
        let settings = SearchSettings { url, user: None, password: None };
        let (tables, builds) = (self.store.search.clone(), self.store.builds.clone());
        Search::new(tables, builds, self.logs.clone(), &settings).unwrap()
    }

    /// An append to some log that is being received, as long as this is held.
    pub(super) async fn append_under_way(&self) -> Admitted {
        self.logs.admit(LogId { build: BuildId(u64::MAX), attempt: 1 }, 0).await.unwrap()
    }

    /// Where the logs are.
    pub(super) fn logs_folder(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    /// A build that is over, with a log for each attempt, made ten milliseconds after the one before.
    pub(super) async fn build(&self, id: u64, repository: &str, phase: Phase, logs: &[&str]) {
        let build = finished(id, repository, phase, u32::try_from(logs.len()).unwrap());
        self.store.builds.commit(&[Change::Build(build.into())]).await.unwrap();
        for (attempt, text) in (1..).zip(logs) {
            self.log(LogId { build: BuildId(id), attempt }, text).await;
        }
    }

    /// Takes away what logs are stored in, or brings it back.
    pub(super) fn objects_away(&self, away: bool) {
        let [there, elsewhere] = ["logs", "elsewhere"].map(|name| self.folder.path().join(name));
        if away {
            std::fs::rename(&there, &elsewhere).unwrap();
            // Nothing in a file can be opened, which is another error than that something is not there.
            std::fs::write(&there, "").unwrap();
        } else {
            std::fs::remove_file(&there).unwrap();
            std::fs::rename(&elsewhere, &there).unwrap();
        }
    }

    async fn log(&self, id: LogId, text: &str) {
        let before = self.store.search.to_index_count().await.unwrap();
        let mut offset = 0;
        for chunk in text.as_bytes().split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>().chunks(1_000) {
            let mut times = LineTimes::starting(1_000);
            for _ in chunk {
                times.begin_line(1_000);
            }
            let bytes = Bytes::from(chunk.concat());
            offset = {
                let admitted = self.logs.admit(id, offset).await.unwrap();
                self.logs.append(admitted, times, bytes, None).await.unwrap()
            };
        }
        self.logs.close(id).await.unwrap();
        // It is queued once all of it is sealed.
        while self.store.search.to_index_count().await.unwrap() == before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn finished(id: u64, repository: &str, phase: Phase, attempt: u32) -> Build {
    let plan = Plan {
        name: "ci".into(),
        needs: vec![],
        agent: String::new(),
        steps: vec![],
        container: None,
        env: Default::default(),
        secrets: Default::default(),
        timeout_ms: 1,
        wait_ms: None,
        grace_ms: 1,
        priority: 0,
        concurrency: Concurrency::Parallel,
        retries: 0,
    };
    let subject = Subject {
        line: Line::Branch("main".into()),
        sha: Sha::parse(&"a".repeat(40)).unwrap(),
        git_ref: "refs/heads/main".into(),
        base: None,
        title: None,
        fork: false,
    };
    let at = id.cast_signed() * 10;
    Build {
        id: BuildId(id),
        repository: repository.into(),
        subject,
        cause: Cause::Asked,
        by: "ann".into(),
        plan: plan.into(),
        phase,
        reason: None,
        ending: None,
        attempt,
        session: None,
        lease: None,
        agent: None,
        picks: Vec::new(),
        key_hash: None,
        exit_code: None,
        times: Times { created_ms: at, ended_ms: Some(at), ..Times::default() },
        approved_by: None,
        log: None,
        reported: true,
    }
}
