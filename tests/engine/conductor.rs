//! Builds over a store of builds that fails at any one of its writes, before or after it was made: whatever
//! was accepted comes to its end all the same, once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold::builds::book::{Finished, Report};
use leasehold::builds::build::{Build, BuildId, LogEnd, Phase};
use leasehold::builds::change::{Change, Note};
use leasehold::builds::delivery::{Delivery, DeliveryId, Incoming};
use leasehold::builds::happening::{Forge, Happening, Sha, What};
use leasehold::builds::status::{Status, StatusKey};
use leasehold::engine::handle::Handle;
use leasehold::engine::machine::Options;
use leasehold::engine::start;
use leasehold::inventory::config;
use leasehold::pipeline::conductor::{Conductor, Parts};
use leasehold::pipeline::git::Git;
use leasehold::pipeline::logs::{LogLimits, Logs, Objects};
use leasehold::pipeline::reporter::{self, Reporter};
use leasehold::pipeline::source::PipelineSource;
use leasehold::store::builds::{Answer, BuildFilter, BuildStore, Loaded};
use leasehold::store::sqlite::Sqlite;
use leasehold::store::{Store as _, StoreError};
use tempfile::TempDir;

use super::lab::GRACE_MS;
use super::words;

/// `unit` can run; `never` needs a pool that nobody has.
const CONFIG: &str = r#"
[[repository]]
name = "acme/app"
forge = "github"
url = "https://forge.example/acme/app.git"
pools = ["phone", "vault"]
[[repository.pipeline]]
name = "unit"
on = ["push"]
needs = ["phone"]
run = "make test"
[[repository.pipeline]]
name = "never"
on = ["push"]
needs = ["vault"]
run = "make test"
"#;
/// Writes that the story below takes at least, where none fails.
const WRITES_MIN: usize = 8;

/// A write that fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    /// Which, from 0.
    nth: usize,
    /// Whether it is there all the same.
    made: bool,
}

/// A store of builds, one of whose writes fails.
struct Faulty {
    inner: Arc<dyn BuildStore>,
    fault: Option<Fault>,
    writes: AtomicUsize,
}

impl BuildStore for Faulty {
    fn take_over(&self, recent_since_ms: i64) -> Answer<'_, Loaded> {
        self.inner.take_over(recent_since_ms)
    }

    fn commit<'a>(&'a self, changes: &'a [Change]) -> Answer<'a, ()> {
        Box::pin(async move {
            let nth = self.writes.fetch_add(1, Ordering::SeqCst);
            let Some(fault) = self.fault.filter(|fault| fault.nth == nth) else {
                return self.inner.commit(changes).await;
            };
            if fault.made {
                self.inner.commit(changes).await?;
            }
            Err(StoreError::Failed { doing: "write the builds", source: "as the test wants it".into() })
        })
    }

    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>> {
        self.inner.build(id)
    }

    fn builds<'a>(&'a self, filter: &'a BuildFilter) -> Answer<'a, Vec<Build>> {
        self.inner.builds(filter)
    }

    fn notes(&self, build: BuildId) -> Answer<'_, Vec<Note>> {
        self.inner.notes(build)
    }

    fn delivery(&self, id: DeliveryId) -> Answer<'_, Option<(Delivery, Arc<[u8]>)>> {
        self.inner.delivery(id)
    }

    fn deliveries(&self, before: Option<DeliveryId>, limit: usize) -> Answer<'_, Vec<Delivery>> {
        self.inner.deliveries(before, limit)
    }

    fn status<'a>(&'a self, key: &'a StatusKey) -> Answer<'a, Option<Status>> {
        self.inner.status(key)
    }

    fn forgettable(&self, before_ms: i64, keep: u32) -> Answer<'_, Vec<BuildId>> {
        self.inner.forgettable(before_ms, keep)
    }

    fn forget<'a>(&'a self, builds: &'a [BuildId], deliveries_before_ms: i64) -> Answer<'a, ()> {
        self.inner.forget(builds, deliveries_before_ms)
    }
}

struct Lab {
    conductor: Conductor,
    store: Arc<Faulty>,
    engine: Handle,
    _folder: TempDir,
}

impl Lab {
    async fn new(fault: Option<Fault>) -> Self {
        let folder = TempDir::new().unwrap();
        let leases = Sqlite::open(folder.path().join("lab.db")).await.unwrap();
        let (reader, builds) = (leases.reader(), leases.builds());
        let options = Options { limits: Default::default(), restart_grace_ms: GRACE_MS };
        let (engine, _) = start(leases, options, 0).await.unwrap();
        engine.accepting().await.unwrap();
        engine.command(words::inventory(&[("executor", 1), ("phone", 1)])).await.unwrap();
        let opened = builds.open().await.unwrap();
        let store = Arc::new(Faulty { inner: opened.builds, fault, writes: AtomicUsize::new(0) });
        let settings = config::read(CONFIG, "leasehold.toml").unwrap().pipelines.unwrap().resolve().unwrap();
        let settings = Arc::new(settings);
        let objects = Objects::folder(&folder.path().join("logs")).unwrap();
        let logs = Logs::new(opened.logs, store.clone(), objects, LogLimits::of(settings.logs.limit_bytes));
        let parts = Parts {
            store: store.clone(),
            source: PipelineSource::new(Git::new(folder.path().join("mirrors"))),
            settings: settings.clone(),
            engine: engine.clone(),
            leases: Arc::new(reader),
            logs,
        };
        let report = reporter::Settings::of(&settings);
        let (conductor, _) = Conductor::start(parts, |settle| Reporter::start(report, settle)).await.unwrap();
        Self { conductor, store, engine, _folder: folder }
    }

    /// Waits until a build has this phase.
    async fn comes_to(&self, id: u64, phase: Phase) -> Build {
        let mut seen = self.conductor.seen();
        loop {
            seen.borrow_and_update();
            if let Some(build) = self.conductor.build(BuildId(id)).await.unwrap()
                && build.phase == phase
            {
                return build;
            }
            seen.changed().await.unwrap();
        }
    }

    /// A push, as often as a forge has to say it.
    async fn push(&self) {
        let what = What::Push { branch: "main".into(), before: None, after: sha(), title: None };
        let said = Happening { repository: "acme/app".into(), what, by: "ann".into() };
        let incoming = Incoming {
            forge: Forge::Github,
            forge_id: "one".into(),
            event: "push".into(),
            said: Ok(said),
            body: b"{}".as_slice().into(),
            repeats: None,
        };
        while self.conductor.receive(incoming.clone()).await.is_err() {}
    }

    /// An agent's part, which says again what it has no answer to.
    async fn run(&self) -> u64 {
        let offered = loop {
            let offered = self.conductor.work("executor-1", Duration::from_secs(30)).await.unwrap();
            if let [build] = offered.as_slice() {
                break *build;
            }
        };
        let key: Arc<str> = "a key's hash".into();
        let job = loop {
            match self.conductor.take(offered, "executor-1".into(), key.clone()).await {
                Ok(job) => break job,
                Err(error) => assert_eq!(error.data.code, "unavailable", "{error}"),
            }
        };
        let log = LogEnd { bytes: 0, lines: 0, sha256: "00".into() };
        let over = Report::Finished { result: Finished::Passed, exit_code: Some(0), message: None, log };
        for what in [Report::Running, over] {
            while let Err(error) = self.conductor.report(offered, job.attempt, key.clone(), what.clone()).await {
                assert_eq!(error.data.code, "unavailable", "{error}");
            }
        }
        offered.0
    }
}

fn sha() -> Option<Sha> {
    Sha::parse(&"a".repeat(40))
}

/// The story, to its end; answers how many writes it took.
async fn story(fault: Option<Fault>) -> usize {
    let lab = Lab::new(fault).await;
    lab.push().await;
    let never = lab.comes_to(2, Phase::Failed).await;
    assert!(never.reason.as_deref().is_some_and(|why| why.contains("vault")), "{fault:?}: {never:?}");
    assert_eq!(lab.run().await, 1, "{fault:?}");
    let unit = lab.comes_to(1, Phase::Passed).await;
    assert_eq!(unit.attempt, 1, "{fault:?}");
    let all = lab.conductor.builds(&BuildFilter { limit: 10, ..BuildFilter::default() }).await.unwrap();
    assert_eq!(all.len(), 2, "{fault:?}: a delivery was worked on twice");
    let held = lab.engine.read(|view| (view.state.leases.len(), view.state.sessions.len())).await.unwrap();
    assert_eq!(held, (0, 0), "{fault:?}: what is over holds something");
    lab.conductor.stop();
    lab.store.writes.load(Ordering::SeqCst)
}

#[tokio::test]
async fn every_build_comes_to_its_end_whichever_write_fails() {
    let writes = story(None).await;
    assert!(writes >= WRITES_MIN, "{writes}");
    for nth in 0..writes {
        for made in [false, true] {
            let story = story(Some(Fault { nth, made }));
            let ended = tokio::time::timeout(Duration::from_secs(60), story).await;
            assert!(ended.is_ok(), "write {nth} failed (made: {made}), and the story came to no end");
        }
    }
}
