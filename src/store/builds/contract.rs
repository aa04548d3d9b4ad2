//! What every store of builds must do, as tests over any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{BuildFilter, BuildStore, Loaded, Opened};
use crate::builds::build::{Build, BuildId, Cause, Ending, Line, LogEnd, Phase, Pick, Subject, Times};
use crate::builds::change::{Change, Note};
use crate::builds::delivery::{Delivery, DeliveryId, Outcome};
use crate::builds::happening::{Forge, Happening, Sha, What};
use crate::builds::plan::{Concurrency, Container, Plan, Step};
use crate::builds::status::{Status, StatusKey, StatusState, Whose};
use crate::store::StoreError;

/// Opens one store, again and again.
pub trait Factory {
    /// Opens it; the one opened before has been dropped.
    fn open(&self) -> impl Future<Output = Result<Opened, StoreError>>;
}

async fn opened(factory: &impl Factory) -> (Arc<dyn BuildStore>, Loaded) {
    let store = factory.open().await.unwrap().builds;
    let loaded = store.take_over(0).await.unwrap();
    (store, loaded)
}

pub fn sha(digit: char) -> Sha {
    Sha::parse(&digit.to_string().repeat(40)).unwrap()
}

pub fn plan(name: &str) -> Arc<Plan> {
    Arc::new(Plan {
        name: name.into(),
        needs: vec!["phone:os=android".to_owned()],
        agent: "os=linux".to_owned(),
        steps: vec![Step { name: "test".to_owned(), run: "cargo test\n\0".to_owned() }],
        container: Some(Container { image: "debian:bookworm".to_owned(), ..Container::default() }),
        env: BTreeMap::from([("CI".to_owned(), "1".to_owned())]),
        secrets: BTreeSet::from(["KEY".to_owned()]),
        timeout_ms: 60_000,
        wait_ms: Some(5),
        grace_ms: 10_000,
        priority: -3,
        concurrency: Concurrency::Queue,
        retries: 1,
    })
}

/// A build of `acme/app`'s pipeline `ci`, with something in each of its fields.
pub fn build(id: u64, phase: Phase) -> Build {
    Build {
        id: BuildId(id),
        repository: "acme/app".into(),
        subject: Subject {
            line: Line::Pull(7),
            sha: sha('a'),
            git_ref: "refs/pull/7/head".into(),
            base: Some(("main".into(), Some(sha('b')))),
            title: Some("Straße\0\u{1F600}".into()),
            fork: true,
        },
        cause: Cause::Delivery { delivery: DeliveryId(3) },
        by: "ann".into(),
        plan: plan("ci"),
        phase,
        reason: Some("because".into()),
        ending: Some(Ending {
            to: Phase::Superseded,
            reason: "a newer commit".into(),
            by: "ben".into(),
            since_ms: 9,
            superseded_by: Some(BuildId(id + 1)),
        }),
        attempt: 2,
        session: Some(1 << 40),
        lease: Some(1 << 52),
        agent: Some("rig-1".into()),
        picks: vec![Pick { alias: "left".into(), pool: "phone".into(), name: "pixel-1".into(), slots: 2 }],
        key_hash: Some("ff".into()),
        exit_code: Some(-1),
        times: Times {
            created_ms: id.cast_signed() * 10,
            ended_ms: phase.is_final().then_some(id.cast_signed() * 10 + 5),
            ..Times::default()
        },
        approved_by: Some("cyd".into()),
        log: Some(LogEnd { bytes: 7, lines: 1, sha256: "00".into() }),
        reported: true,
    }
}

fn of(repository: &str, pipeline: &str, build: Build) -> Build {
    Build { repository: repository.into(), plan: plan(pipeline), ..build }
}

pub fn changed(build: &Build) -> Change {
    Change::Build(Arc::new(build.clone()))
}

fn note(build: u64, what: &str) -> Note {
    Note { build: BuildId(build), at_ms: 1, phase: Phase::Queued, attempt: 1, what: what.into(), by: "ann".into() }
}

pub fn delivery(id: u64, outcome: Outcome) -> Delivery {
    let what = What::Push { branch: "main".into(), before: None, after: Some(sha('c')), title: Some("first".into()) };
    Delivery {
        id: DeliveryId(id),
        forge: Forge::Github,
        forge_id: format!("guid-{id}").into(),
        event: "push".into(),
        said: Ok(Happening { repository: "acme/app".into(), what, by: "ann".into() }),
        received_ms: id.cast_signed() * 10,
        repeats: None,
        outcome,
    }
}

fn ignored() -> Outcome {
    Outcome::Ignored { reason: "no pipeline".into() }
}

fn accepted(delivery: &Delivery, body: &[u8]) -> Change {
    Change::Accepted(Arc::new(delivery.clone()), body.into())
}

fn status(context: &str, build: u64, told: bool) -> Status {
    Status {
        key: StatusKey { repository: "acme/app".into(), sha: sha('a'), context: context.into() },
        whose: Whose::Build(BuildId(build)),
        version: 4,
        state: StatusState::Running,
        description: "runs".into(),
        told,
        tries: 1,
        due_ms: 77,
        trouble: Some("502".into()),
    }
}

/// One that is told, of a delivery.
fn of_delivery(context: &str, delivery: u64) -> Status {
    Status { whose: Whose::Delivery(DeliveryId(delivery)), ..status(context, 0, true) }
}

async fn numbers(store: &Arc<dyn BuildStore>, filter: BuildFilter) -> Vec<u64> {
    store.builds(&filter).await.unwrap().iter().map(|build| build.id.0).collect()
}

/// Every kind of record comes back as it was written, from the same store and when it was opened again.
pub async fn records_come_back_as_they_were<F: Factory>(factory: &F) {
    let (store, loaded) = opened(factory).await;
    assert!(loaded.open.is_empty() && loaded.recent.is_empty() && loaded.untold.is_empty());
    assert_eq!((loaded.last_build, loaded.last_delivery), (BuildId(0), DeliveryId(0)));
    let (open, over) = (build(8, Phase::Running), build(9, Phase::Passed));
    let (fresh, worked) = (delivery(3, Outcome::Accepted), delivery(4, ignored()));
    // Not to be compressed, and long enough for another thread.
    let long: Vec<u8> =
        (0..200_000_u32).flat_map(|number| (number.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let changes = [
        accepted(&fresh, b"{\"zen\":\"\"}\0\xff"),
        accepted(&worked, &long),
        changed(&open),
        changed(&over),
        Change::Note(note(8, "made")),
        Change::Note(note(9, "made")),
        Change::Note(note(8, "queued")),
        Change::Status(Arc::new(status("leasehold/ci", 8, false))),
        Change::Status(Arc::new(status("leasehold/docs", 9, true))),
        Change::Status(Arc::new(of_delivery("leasehold", 4))),
    ];
    store.commit(&changes).await.unwrap();
    drop(store);
    let (store, loaded) = opened(factory).await;
    assert_eq!(loaded.open, std::slice::from_ref(&open));
    assert_eq!(loaded.waiting, std::slice::from_ref(&fresh));
    assert_eq!(loaded.recent, [fresh.clone(), worked.clone()]);
    assert_eq!(loaded.untold, [status("leasehold/ci", 8, false)]);
    assert_eq!(loaded.of_deliveries, [of_delivery("leasehold", 4)]);
    assert_eq!((loaded.last_build, loaded.last_delivery), (BuildId(9), DeliveryId(4)));
    assert_eq!(store.build(BuildId(9)).await.unwrap(), Some(over.clone()));
    assert_eq!(store.build(BuildId(10)).await.unwrap(), None);
    assert_eq!(store.builds(&BuildFilter { limit: 9, ..BuildFilter::default() }).await.unwrap(), [over, open]);
    assert_eq!(store.notes(BuildId(8)).await.unwrap(), [note(8, "made"), note(8, "queued")]);
    let (found, body) = store.delivery(DeliveryId(4)).await.unwrap().unwrap();
    assert_eq!((found, &*body), (worked.clone(), &*long));
    let (_, body) = store.delivery(DeliveryId(3)).await.unwrap().unwrap();
    assert_eq!(&*body, b"{\"zen\":\"\"}\0\xff");
    assert!(store.delivery(DeliveryId(5)).await.unwrap().is_none());
    assert_eq!(store.deliveries(None, 1).await.unwrap(), [worked]);
    assert_eq!(store.deliveries(Some(DeliveryId(4)), 9).await.unwrap(), [fresh]);
    let told = status("leasehold/docs", 9, true);
    assert_eq!(store.status(&told.key).await.unwrap(), Some(told));
    assert_eq!(store.status(&status("other", 9, true).key).await.unwrap(), None);
}

/// Whole records replace each other, in one batch and in the next.
pub async fn the_last_of_a_record_counts<F: Factory>(factory: &F) {
    let (store, _) = opened(factory).await;
    let first = delivery(1, Outcome::Accepted);
    let worked = Delivery { outcome: ignored(), ..first.clone() };
    let changes = [
        accepted(&first, b"body"),
        changed(&build(1, Phase::Queued)),
        changed(&build(1, Phase::Preparing)),
        Change::Delivery(Arc::new(worked.clone())),
        Change::Status(Arc::new(status("leasehold/ci", 1, false))),
        Change::Status(Arc::new(status("leasehold/ci", 2, false))),
    ];
    store.commit(&changes).await.unwrap();
    let loaded = store.take_over(0).await.unwrap();
    assert_eq!(loaded.open, [build(1, Phase::Preparing)]);
    assert_eq!((loaded.waiting, loaded.recent), (vec![], vec![worked]));
    assert_eq!(loaded.untold, [status("leasehold/ci", 2, false)]);
    let changes = [changed(&build(1, Phase::Failed)), Change::Status(Arc::new(status("leasehold/ci", 2, true)))];
    store.commit(&changes).await.unwrap();
    let loaded = store.take_over(0).await.unwrap();
    assert!(loaded.open.is_empty() && loaded.untold.is_empty());
    assert_eq!(store.build(BuildId(1)).await.unwrap(), Some(build(1, Phase::Failed)));
}

/// A status is never replaced by one of a lower version, in one batch or in the next.
pub async fn an_older_status_replaces_no_newer_one<F: Factory>(factory: &F) {
    let (store, _) = opened(factory).await;
    let of = |build, version| Status { version, ..status("leasehold/ci", build, false) };
    let told = |build, version| Change::Status(Arc::new(of(build, version)));
    store.commit(&[told(2, 8), told(1, 5)]).await.unwrap();
    assert_eq!(store.status(&of(2, 8).key).await.unwrap(), Some(of(2, 8)));
    store.commit(&[told(1, 7)]).await.unwrap();
    assert_eq!(store.status(&of(2, 8).key).await.unwrap(), Some(of(2, 8)));
    store.commit(&[told(3, 8)]).await.unwrap();
    assert_eq!(store.status(&of(2, 8).key).await.unwrap(), Some(of(3, 8)), "the same version is the same news");
}

/// A commit that fails in its middle leaves nothing, and does not keep the next one from being made.
pub async fn a_failed_commit_leaves_nothing<F: Factory>(factory: &F) {
    let (store, _) = opened(factory).await;
    store.commit(&[accepted(&delivery(1, Outcome::Accepted), b"first")]).await.unwrap();
    // No number is accepted twice.
    let torn =
        [changed(&build(1, Phase::Queued)), Change::Note(note(1, "made")), accepted(&delivery(1, ignored()), b"")];
    assert!(matches!(store.commit(&torn).await, Err(StoreError::Failed { .. })));
    let loaded = store.take_over(0).await.unwrap();
    assert_eq!((loaded.open, loaded.last_build), (vec![], BuildId(0)));
    assert_eq!(loaded.waiting, [delivery(1, Outcome::Accepted)]);
    assert!(store.notes(BuildId(1)).await.unwrap().is_empty());
    store.commit(&torn[..2]).await.unwrap();
    assert_eq!(store.build(BuildId(1)).await.unwrap(), Some(build(1, Phase::Queued)));
}

/// Builds are listed newest first, by any of what they can be asked by, in pages.
pub async fn builds_are_narrowed_and_paged<F: Factory>(factory: &F) {
    let (store, _) = opened(factory).await;
    let phases = [Phase::Passed, Phase::Failed, Phase::Running];
    let made = (1..=30_u64).map(|id| {
        let repository = if id % 2 == 0 { "acme/app" } else { "acme/web" };
        let pipeline = if id % 5 == 0 { "docs" } else { "ci" };
        changed(&of(repository, pipeline, build(id, phases[(id % 3) as usize])))
    });
    store.commit(&made.collect::<Vec<_>>()).await.unwrap();
    let all = BuildFilter { limit: 4, ..BuildFilter::default() };
    assert_eq!(numbers(&store, all.clone()).await, [30, 29, 28, 27]);
    assert_eq!(numbers(&store, BuildFilter { before: Some(BuildId(3)), ..all.clone() }).await, [2, 1]);
    let web = BuildFilter { repository: Some("acme/web".into()), ..all.clone() };
    assert_eq!(numbers(&store, web.clone()).await, [29, 27, 25, 23]);
    let docs = BuildFilter { pipeline: Some("docs".into()), ..all.clone() };
    assert_eq!(numbers(&store, docs.clone()).await, [30, 25, 20, 15]);
    assert_eq!(numbers(&store, BuildFilter { pipeline: Some("docs".into()), ..web.clone() }).await, [25, 15, 5]);
    let running = BuildFilter { phases: vec![Phase::Running], ..all.clone() };
    assert_eq!(numbers(&store, running.clone()).await, [29, 26, 23, 20]);
    let ended = BuildFilter { phases: vec![Phase::Failed, Phase::Passed, Phase::Failed], ..web };
    assert_eq!(numbers(&store, ended.clone()).await, [27, 25, 21, 19]);
    assert_eq!(numbers(&store, BuildFilter { before: Some(BuildId(7)), ..ended }).await, [3, 1]);
    let nowhere = BuildFilter { repository: Some("acme/gone".into()), ..all.clone() };
    assert!(numbers(&store, nowhere).await.is_empty());
    assert!(numbers(&store, BuildFilter { limit: 0, ..all }).await.is_empty());
}

/// Forgetting takes builds with all that is theirs, and deliveries that were worked on; a number that was
/// given stays given.
pub async fn what_is_forgotten_is_gone_but_for_its_number<F: Factory>(factory: &F) {
    let (store, _) = opened(factory).await;
    let changes = [
        accepted(&delivery(1, ignored()), b"1"),
        accepted(&delivery(2, Outcome::Accepted), b"2"),
        accepted(&delivery(3, ignored()), b"3"),
        changed(&build(1, Phase::Passed)),
        changed(&build(2, Phase::Passed)),
        Change::Note(note(1, "made")),
        Change::Note(note(2, "made")),
        Change::Status(Arc::new(status("leasehold/ci", 1, true))),
        Change::Status(Arc::new(status("leasehold/docs", 2, true))),
        Change::Status(Arc::new(of_delivery("old", 1))),
        Change::Status(Arc::new(of_delivery("young", 3))),
    ];
    store.commit(&changes).await.unwrap();
    store.forget(&[BuildId(2)], 30).await.unwrap();
    assert_eq!(store.build(BuildId(2)).await.unwrap(), None);
    assert!(store.notes(BuildId(2)).await.unwrap().is_empty());
    assert_eq!(store.status(&status("leasehold/docs", 2, true).key).await.unwrap(), None);
    assert_eq!(store.notes(BuildId(1)).await.unwrap(), [note(1, "made")]);
    assert!(store.status(&status("leasehold/ci", 1, true).key).await.unwrap().is_some());
    assert!(store.delivery(DeliveryId(1)).await.unwrap().is_none(), "it was worked on, and is old");
    assert!(store.delivery(DeliveryId(2)).await.unwrap().is_some(), "it waits");
    assert!(store.delivery(DeliveryId(3)).await.unwrap().is_some(), "it is young");
    assert_eq!(store.status(&of_delivery("old", 1).key).await.unwrap(), None);
    assert_eq!(store.status(&of_delivery("young", 3).key).await.unwrap(), Some(of_delivery("young", 3)));
    store.forget(&[BuildId(1)], i64::MAX).await.unwrap();
    drop(store);
    let (_, loaded) = opened(factory).await;
    assert_eq!((loaded.last_build, loaded.last_delivery), (BuildId(2), DeliveryId(3)));
    assert_eq!(loaded.recent, [delivery(2, Outcome::Accepted)]);
}

/// What may be forgotten is over, old, and not among the newest of its repository.
pub async fn the_newest_builds_are_kept<F: Factory>(factory: &F) {
    let (store, _) = opened(factory).await;
    let mut made: Vec<Change> = (1..=6).map(|id| changed(&build(id, Phase::Passed))).collect();
    made.push(changed(&build(7, Phase::Running)));
    made.extend((8..=9).map(|id| changed(&of("acme/web", "ci", build(id, Phase::Failed)))));
    store.commit(&made).await.unwrap();
    let named = async |before_ms, keep| {
        let found = store.forgettable(before_ms, keep).await.unwrap();
        found.iter().map(|id| id.0).collect::<Vec<_>>()
    };
    assert_eq!(named(1_000, 3).await, [1, 2, 3, 4], "5, 6 and 7 are the newest of theirs, 8 and 9 of the other");
    assert_eq!(named(35, 3).await, [1, 2]);
    assert_eq!(named(1_000, 0).await, [1, 2, 3, 4, 5, 6, 8, 9], "what runs is never forgotten");
    assert!(named(1_000, 50).await.is_empty());
}

/// Of very many deliveries the newest are read, whole.
pub async fn the_newest_deliveries_are_read_for_knowing_repeats<F: Factory>(factory: &F) {
    const ALL: u64 = 100_300;
    let (store, _) = opened(factory).await;
    for lot in (1..=ALL).collect::<Vec<_>>().chunks(5_000) {
        // Bodies are many rows of their own; only accepting has them.
        let lot: Vec<Change> = lot.iter().map(|id| Change::Delivery(Arc::new(delivery(*id, ignored())))).collect();
        store.commit(&lot).await.unwrap();
    }
    let recent = store.take_over(0).await.unwrap().recent;
    let ends = (recent.len(), recent.first().map(|first| first.id.0), recent.last().map(|last| last.id.0));
    assert_eq!(ends, (100_000, Some(301), Some(ALL)));
    let recent = store.take_over((ALL - 1).cast_signed() * 10).await.unwrap().recent;
    assert_eq!(recent, [delivery(ALL - 1, ignored()), delivery(ALL, ignored())]);
}

/// A status as it was written before one could be a delivery's, for a table of that time.
pub const OLD_STATUS: &str = r#"INSERT INTO status (repository, sha, context, build, version, told, due_ms, record)
    VALUES ('acme/app', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'leasehold/ci', 8, 4, 0, 77, '{
        "key": {
            "repository": "acme/app", "sha": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "context": "leasehold/ci"
        },
        "build": 8, "version": 4, "state": "running", "description": "runs", "told": false, "tries": 1, "due_ms": 77,
        "trouble": "502"
    }')"#;

/// It is read as what it was, replaced, and forgotten with its build, beside those of deliveries.
pub async fn an_old_status_is_as_good_as_a_new_one<F: Factory>(factory: &F) {
    let (store, loaded) = opened(factory).await;
    assert_eq!(loaded.untold, [status("leasehold/ci", 8, false)]);
    let changes =
        [Change::Status(Arc::new(status("leasehold/ci", 9, true))), Change::Status(Arc::new(of_delivery("own", 2)))];
    store.commit(&changes).await.unwrap();
    assert_eq!(
        store.status(&status("leasehold/ci", 9, true).key).await.unwrap(),
        Some(status("leasehold/ci", 9, true))
    );
    store.forget(&[BuildId(9)], 0).await.unwrap();
    assert_eq!(store.status(&status("leasehold/ci", 9, true).key).await.unwrap(), None);
    assert_eq!(store.take_over(0).await.unwrap().of_deliveries, [of_delivery("own", 2)]);
}

/// Runs every promise on the store that a factory opens, where there is one.
macro_rules! contract {
    ($factory:expr) => {
        crate::store::builds::contract::contract! { $factory =>
            records_come_back_as_they_were,
            the_last_of_a_record_counts,
            an_older_status_replaces_no_newer_one,
            a_failed_commit_leaves_nothing,
            builds_are_narrowed_and_paged,
            what_is_forgotten_is_gone_but_for_its_number,
            the_newest_builds_are_kept,
            the_newest_deliveries_are_read_for_knowing_repeats,
        }
    };
    ($factory:expr => $($promise:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                if let Some(factory) = $factory {
                    crate::store::builds::contract::$promise(&factory).await;
                }
            }
        )+
    };
}
pub(super) use contract;
