//! Builds and logs in memory, and the pages over them: for logs of a million lines, and lines that no agent
//! would send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use leasehold::builds::build::{Build, BuildId, Cause, Line, LogEnd, Phase, Pick, Subject, Times};
use leasehold::builds::change::Note;
use leasehold::builds::delivery::{Delivery, DeliveryId, Outcome};
use leasehold::builds::happening::{Forge, Happening, Sha, What};
use leasehold::builds::log::{Gap, LogId, LogStatus};
use leasehold::builds::plan::{Concurrency, Plan};
use leasehold::pipeline::search::{Found, Hit, Question};
use leasehold::server::page::source::{Action, Answer, LogLine, Source};
use leasehold::server::page::{Pages, routes};
use leasehold::store::builds::BuildFilter;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// When the builds here were made: a fixed moment, Unix milliseconds.
pub const MADE_MS: i64 = 1_795_773_600_000;

/// Builds, and the log of each.
#[derive(Clone)]
pub struct Fixture {
    kept: Arc<Mutex<BTreeMap<u64, (Build, Log)>>>,
    changes: watch::Sender<u64>,
    acted: Arc<Mutex<Vec<(u64, Action)>>>,
    delivered: Arc<Mutex<BTreeMap<u64, Delivery>>>,
}

/// A log, as its lines.
#[derive(Clone, Default)]
pub struct Log {
    bytes: Bytes,
    /// Where each line begins.
    starts: Arc<Vec<usize>>,
    gap: Option<Gap>,
    ended: bool,
    deleted: bool,
}

impl Log {
    fn new(bytes: Vec<u8>, ended: bool) -> Self {
        let after_feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let starts = std::iter::once(0).chain(after_feeds).filter(|start| *start < bytes.len()).collect();
        Self { bytes: bytes.into(), starts: Arc::new(starts), gap: None, ended, deleted: false }
    }

    fn status(&self) -> LogStatus {
        let (bytes, lines) = (self.bytes.len() as u64, self.starts.len() as u64);
        let end = self.ended.then(|| LogEnd { bytes, lines, sha256: "0".repeat(64).into() });
        LogStatus { bytes, lines, gap: self.gap, end, never: false }
    }

    fn line(&self, number: u64) -> LogLine {
        let at = usize::try_from(number - 1).expect("it is in memory");
        let start = self.starts[at];
        let end = self.starts.get(at + 1).map_or(self.bytes.len(), |next| next - 1);
        let bytes = self.bytes.slice(start..end);
        let bytes = if bytes.last() == Some(&b'\n') { bytes.slice(..bytes.len() - 1) } else { bytes };
        // Ten lines a second.
        let at_ms = Some(MADE_MS.unsigned_abs() + 100 * number);
        LogLine { number, offset: start as u64, at_ms, bytes, cut: false }
    }
}

/// A build that is what pages show most of.
pub fn build(id: u64, phase: Phase, title: &str) -> Build {
    let plan = Plan {
        name: "test".into(),
        needs: vec!["phone,os=android".to_owned()],
        agent: "os=linux".to_owned(),
        steps: Vec::new(),
        container: None,
        env: BTreeMap::new(),
        secrets: std::collections::BTreeSet::new(),
        timeout_ms: 3_600_000,
        wait_ms: None,
        grace_ms: 10_000,
        priority: 0,
        concurrency: Concurrency::Supersede,
        retries: 0,
    };
    let ended_ms = phase.is_final().then_some(MADE_MS + 200_000);
    let mut build: Build = serde_json::from_value(serde_json::json!({
        "id": id,
        "repository": "acme/app",
        "subject": Subject {
            line: Line::Pull(7),
            sha: Sha::parse(&format!("{:08x}", 0xc0ff_ee00_u64 + id).repeat(5)).expect("a commit"),
            git_ref: "refs/pull/7/head".into(),
            base: None,
            title: Some(title.into()),
            fork: phase == Phase::Blocked,
        },
        "cause": Cause::Asked,
        "by": "octocat",
        "plan": plan,
        "phase": phase,
        "attempt": 1,
        "times": Times {
            created_ms: MADE_MS,
            queued_ms: Some(MADE_MS + 1_000),
            prepared_ms: Some(MADE_MS + 4_000),
            begun_ms: Some(MADE_MS + 9_000),
            ended_ms,
        },
    }))
    .expect("it is a build");
    build.lease = Some(40 + id);
    build.agent = Some("rig-2".into());
    build.picks = [("phone", "phone", "pixel-8a", 1), ("debug", "port", "p8081", 2)]
        .map(|(alias, pool, name, slots)| Pick { alias: alias.into(), pool: pool.into(), name: name.into(), slots })
        .into();
    if matches!(phase, Phase::Queued | Phase::Blocked) {
        (build.lease, build.agent, build.picks) = (None, None, Vec::new());
    }
    build
}

impl Fixture {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { kept: Arc::default(), changes: watch::channel(0).0, acted: Arc::default(), delivered: Arc::default() }
    }

    /// Puts a build there, with its log; a build whose phase is final has all of it.
    pub fn put(&self, build: Build, log: impl Into<Vec<u8>>) {
        let log = Log::new(log.into(), build.phase.is_final());
        self.kept.lock().expect("nobody panics with it").insert(build.id.0, (build, log));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Changes a build or its log.
    pub fn change(&self, id: u64, change: impl FnOnce(&mut Build, &mut Log)) {
        let mut kept = self.kept.lock().expect("nobody panics with it");
        let (build, log) = kept.get_mut(&id).expect("it was put there");
        change(build, log);
        drop(kept);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A log goes on.
    pub fn append(&self, id: u64, more: &str) {
        self.change(id, |_, log| *log = Log::new([&log.bytes[..], more.as_bytes()].concat(), false));
    }

    /// A build is over, and its log with it.
    pub fn end(&self, id: u64, phase: Phase) {
        self.change(id, |build, log| {
            build.phase = phase;
            build.times.ended_ms = Some(MADE_MS + 100_000);
            log.ended = true;
        });
    }

    /// Some of a log is not kept.
    pub fn lose(&self, id: u64, first_line: u64, lines: u64) {
        self.change(id, |_, log| {
            let start = |line: u64| log.starts[usize::try_from(line - 1).expect("it is in memory")] as u64;
            let (from, to) = (start(first_line), start(first_line + lines));
            let gap = serde_json::json!({
                "from": from, "to": to, "first_line": first_line, "lines": lines, "mid_line": false,
            });
            log.gap = Some(serde_json::from_value(gap).expect("a gap"));
        });
    }

    /// A log's time is over.
    pub fn delete(&self, id: u64) {
        self.change(id, |_, log| log.deleted = true);
    }

    /// Puts a delivery there, which failed because of this.
    pub fn put_delivery(&self, id: u64, reason: &str) {
        let pushed = What::Push {
            branch: "main".into(),
            before: None,
            after: Sha::parse(&"c0ffee01".repeat(5)),
            title: Some("Ask for a phone".into()),
        };
        let delivery = Delivery {
            id: DeliveryId(id),
            forge: Forge::Github,
            forge_id: "72d3162e-cc78-11e3-81ab-4c9367dc0958".into(),
            event: "push".into(),
            said: Ok(Happening { repository: "acme/app".into(), what: pushed, by: "octocat".into() }),
            received_ms: MADE_MS,
            repeats: None,
            outcome: Outcome::Failed { reason: reason.into() },
        };
        self.delivered.lock().expect("nobody panics with it").insert(id, delivery);
    }

    /// What was done from the pages.
    pub fn done(&self) -> Vec<(u64, Action)> {
        self.acted.lock().expect("nobody panics with it").clone()
    }

    /// Serves the pages; answers where.
    pub async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let routes: axum::Router = routes(Some(Arc::new(Pages::new(Arc::new(self.clone()), CancellationToken::new()))));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address
    }

    fn log_of(&self, log: LogId) -> Option<Log> {
        let kept = self.kept.lock().expect("nobody panics with it");
        kept.get(&log.build.0).map(|(_, log)| log.clone()).filter(|log| !log.deleted)
    }
}

impl Source for Fixture {
    fn repositories(&self) -> Vec<Arc<str>> {
        vec!["acme/app".into(), "acme/site".into()]
    }

    fn build(&self, id: BuildId) -> Answer<'_, Option<Build>> {
        let build = self.kept.lock().expect("nobody panics with it").get(&id.0).map(|(build, _)| build.clone());
        Box::pin(async move { Ok(build) })
    }

    fn builds<'a>(&'a self, filter: &'a BuildFilter) -> Answer<'a, Vec<Build>> {
        let wanted = |build: &&Build| {
            filter.repository.as_ref().is_none_or(|name| *name == build.repository)
                && (filter.phases.is_empty() || filter.phases.contains(&build.phase))
                && filter.before.is_none_or(|before| build.id < before)
        };
        let kept = self.kept.lock().expect("nobody panics with it");
        let newest = kept.values().rev().map(|(build, _)| build).filter(wanted);
        let builds = newest.take(filter.limit).cloned().collect();
        Box::pin(async move { Ok(builds) })
    }

    fn notes(&self, id: BuildId) -> Answer<'_, Vec<Note>> {
        let note = |at: i64, phase, what: &str| Note {
            build: id,
            at_ms: MADE_MS + at,
            phase,
            attempt: 1,
            what: what.into(),
            by: "octocat".into(),
        };
        let notes = vec![
            note(0, Phase::Queued, "pull request 7 was pushed to"),
            note(4_000, Phase::Preparing, "granted on rig-2"),
            note(9_000, Phase::Running, "its steps begin"),
        ];
        Box::pin(async move { Ok(notes) })
    }

    fn delivery(&self, id: DeliveryId) -> Answer<'_, (Delivery, Option<Arc<str>>)> {
        let delivery = self.delivered.lock().expect("nobody panics with it").get(&id.0).cloned();
        Box::pin(async move { Ok((delivery.expect("it was put there"), None)) })
    }

    fn redeliver(&self, id: DeliveryId) -> Answer<'_, DeliveryId> {
        Box::pin(async move { Ok(id) })
    }

    fn log(&self, log: LogId) -> Answer<'_, Option<LogStatus>> {
        let status = self.log_of(log).map(|log| log.status());
        Box::pin(async move { Ok(status) })
    }

    fn lines(&self, log: LogId, from: u64, count: u64) -> Answer<'_, Vec<LogLine>> {
        let lines = self.log_of(log).map_or_else(Vec::new, |log| {
            let hidden = |number: u64| log.gap.is_some_and(|gap| gap.hides(number));
            let numbers = (from..=log.starts.len() as u64).filter(|number| !hidden(*number));
            let mut bytes = 0;
            let within = |line: &LogLine| {
                bytes += line.bytes.len();
                bytes < 4 * 1024 * 1024 || bytes == line.bytes.len()
            };
            numbers
                .take(usize::try_from(count).expect("it is in memory"))
                .map(|number| log.line(number))
                .take_while(within)
                .collect()
        });
        Box::pin(async move { Ok(lines) })
    }

    fn grown(&self, log: LogId, known_bytes: u64) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut changes = self.changes.subscribe();
            let same = |log: Option<Log>| log.is_some_and(|log| log.bytes.len() as u64 == known_bytes && !log.ended);
            while same(self.log_of(log)) && changes.changed().await.is_ok() {}
            Ok(())
        })
    }

    fn search<'a>(&'a self, _: &'a Question) -> Answer<'a, Found> {
        let build = self.kept.lock().expect("nobody panics with it").values().next().map(|(build, _)| build.clone());
        let hit = |build: Build| Hit {
            build: build.into(),
            attempt: 1,
            line: 30,
            at_ms: None,
            text: "<b>needle</b>".to_owned(),
            more_in_log: true,
        };
        let hits = build.map(hit).into_iter().collect();
        Box::pin(async move { Ok(Found { hits, next: None, unfinished: false, to_index: 2, trouble: None }) })
    }

    fn act<'a>(&'a self, id: BuildId, action: Action, _: &'a str) -> Answer<'a, BuildId> {
        self.acted.lock().expect("nobody panics with it").push((id.0, action));
        Box::pin(async move { Ok(id) })
    }
}
