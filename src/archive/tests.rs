//! Whole stores of every kind: what is copied is the same, what is proved is proved from a checkpoint
//! too, and nothing half done is a store.
//!
//! The labs here are lived by the core, so that their books are books. What damage looks like from
//! outside is tested with the commands.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::{Checked, check};
use super::fill::{Copied, books, compare, fill};
use super::moving::moved;
use crate::clock::random_secret;
use crate::core::apply::{Declared, DeclaredResource};
use crate::core::broker::Broker;
use crate::core::claim::ClaimSpec;
use crate::core::command::{Claimant, Command, MarkAct, Reply, TtlAsk};
use crate::core::inventory::{Pool, ResourceSpec};
use crate::core::lease::Outcome;
use crate::core::limits::{FENCES_SKIPPED, Limits};
use crate::core::need::Need;
use crate::core::session::{SecretHash, SessionKind};
use crate::core::tables::{Batch, JournalFilter, Tables};
use crate::core::types::{Key, LabTime, LeaseId, Owner, ResourceName, SessionId};
use crate::store::archive::{Snapshot, Target};
use crate::store::postgres::{Postgres, PostgresSnapshot, PostgresTarget, Shared, Taken};
use crate::store::sqlite::{Replace, Sqlite, SqliteSnapshot, SqliteTarget};
use crate::store::{Reader, Store, StoreError};
use crate::testing::postgres as server;

/// A place for a store, and the ways to open it.
trait Place {
    type Store: Store;
    type Snapshot: Snapshot;
    type Target: Target;

    fn open(&self) -> impl Future<Output = Self::Store>;
    fn snapshot(&self) -> impl Future<Output = Result<Self::Snapshot, StoreError>>;
    fn target(&self) -> impl Future<Output = Result<Self::Target, StoreError>>;
}

/// A file in a folder of its own.
struct OnDisk {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl OnDisk {
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lab.db");
        Some(Self { _folder: folder, path })
    }
}

impl Place for OnDisk {
    type Store = Sqlite;
    type Snapshot = SqliteSnapshot;
    type Target = SqliteTarget;

    async fn open(&self) -> Sqlite {
        Sqlite::open(&self.path).await.unwrap()
    }

    async fn snapshot(&self) -> Result<SqliteSnapshot, StoreError> {
        SqliteSnapshot::open(&self.path).await
    }

    async fn target(&self) -> Result<SqliteTarget, StoreError> {
        SqliteTarget::store(&self.path, Replace::Nothing).await
    }
}

/// A database of its own, on a server of the tests' own.
struct InDatabase {
    url: String,
}

impl InDatabase {
    fn new() -> Option<Self> {
        Some(Self { url: server::shared()?.database() })
    }

    /// One more broker, which has taken the lead.
    async fn led(&self) -> (Postgres, Shared) {
        let term_ms = 60_000;
        let mut shared = Shared::connect(&self.url, &random_secret(), "ws://here:5327", term_ms).await.unwrap();
        let seen = shared.observe().await.unwrap();
        match shared.take(seen.epoch, seen.beat).await.unwrap() {
            Taken::Lead(store) => (*store, shared),
            Taken::Passed => panic!("another was faster"),
        }
    }
}

impl Place for InDatabase {
    type Store = Postgres;
    type Snapshot = PostgresSnapshot;
    type Target = PostgresTarget;

    async fn open(&self) -> Postgres {
        self.led().await.0
    }

    async fn snapshot(&self) -> Result<PostgresSnapshot, StoreError> {
        PostgresSnapshot::open(&self.url).await
    }

    async fn target(&self) -> Result<PostgresTarget, StoreError> {
        PostgresTarget::store(&self.url).await
    }
}

/// A lab that is lived: what the core decides is committed.
struct Lab<S> {
    store: S,
    broker: Broker,
    batch: u64,
    event: u64,
    request: u64,
}

impl<S: Store> Lab<S> {
    async fn new(mut store: S) -> Self {
        let tables = store.load().await.unwrap();
        let broker = Broker::new(&tables, Limits::default()).unwrap();
        let mut lab = Self { store, broker, batch: tables.batch, event: tables.last_event, request: 0 };
        lab.decide(Command::Start).await;
        lab
    }

    /// Decides a command at a lab time of a hundred times the batch's number.
    async fn decide(&mut self, command: Command) -> Reply {
        let (number, first_event) = (self.batch + 1, self.event + 1);
        let at = LabTime(number * 100).max(self.broker.state().lab.now);
        let reply = self.broker.decide(at, command);
        let (events, tables) = self.broker.take_batch();
        let last_event = self.event + events.len() as u64;
        let batch = Batch { number, at, wall_ms: 1_795_400_000_000, first_event, events, tables };
        self.store.commit(&batch).await.unwrap();
        (self.batch, self.event) = (number, last_event);
        reply
    }

    async fn open(&mut self, owner: &str) -> SessionId {
        let owner = Owner { name: owner.into(), verified: false };
        let secret = SecretHash(format!("secret of {} {}", owner.name, self.batch).into());
        let kind = SessionKind::Socket { instance: "i".into() };
        let command = Command::OpenSession { owner, ttl: TtlAsk::Exactly(5_000), secret, kind };
        let Reply::Opened { session, .. } = self.decide(command).await else { panic!("it opens") };
        self.decide(Command::SessionUp(session)).await;
        session
    }

    async fn acquire(&mut self, session: SessionId, needs: &[&str]) {
        self.request += 1;
        let spec = Arc::new(claim(needs));
        self.decide(Command::Acquire { session, request: self.request, spec }).await;
    }

    async fn release(&mut self, lease: LeaseId, outcome: Option<Outcome>) {
        let claimant = Claimant { admin: true, name: "root".into(), ..Claimant::default() };
        self.decide(Command::Release { lease, claimant, outcome }).await;
    }

    /// Everything a day brings; afterwards two hold something and one waits.
    async fn live(&mut self) {
        let declared = Arc::new(declared());
        self.decide(Command::Apply { declared, prune: false, confirmed: true, dry_run: false }).await;
        let (ann, bob) = (self.open("ann\u{0}\u{1F4F1}").await, self.open("bob").await);
        for round in 0..20 {
            self.acquire(ann, &["phone", "seat/2"]).await;
            let lease = *self.broker.state().leases.keys().next_back().unwrap();
            self.release(lease, [None, Some(Outcome::Passed), Some(Outcome::Infra)][round % 3]).await;
        }
        self.acquire(ann, &["2:phone"]).await;
        self.acquire(bob, &["3:phone"]).await;
        let (key, owner) = (SecretHash("k".into()), Owner { name: "http".into(), verified: false });
        let spec = Arc::new(claim(&["seat"]));
        self.decide(Command::AcquireKeyed { key, request_id: "r".into(), owner, ttl_ms: 9_000, spec }).await;
        let spare = resource("phone", "spare", 1).spec;
        let resource = spare.name.clone();
        self.decide(Command::SetResource(Arc::new(spare))).await;
        let act = MarkAct::Drain;
        let mark = Command::Mark { resource: resource.clone(), act, reason: "dusty".into(), by: "root".into() };
        self.decide(mark).await;
        self.decide(Command::RemoveResource(resource)).await;
    }
}

fn declared() -> Declared {
    let pool = |name: &str| Pool::named(Key::parse(name, "key").unwrap());
    let phones = ["p1", "p2", "p3"].map(|name| resource("phone", name, 1));
    let resources = phones.into_iter().chain([resource("seat", "s1", 4)]);
    Declared { pools: vec![pool("phone"), pool("seat")], resources: resources.collect() }
}

fn resource(pool: &str, name: &str, slots: u32) -> DeclaredResource {
    DeclaredResource {
        was: None,
        spec: ResourceSpec {
            name: ResourceName::parse(name).unwrap(),
            pool: Key::parse(pool, "key").unwrap(),
            labels: Default::default(),
            properties: Default::default(),
            secrets: Default::default(),
            slots,
        },
    }
}

fn claim(needs: &[&str]) -> ClaimSpec {
    ClaimSpec {
        needs: needs.iter().map(|need| Need::parse(need).unwrap()).collect(),
        same: None,
        distinct: None,
        priority: 0,
        wait_ms: None,
        hold_ms: Some(86_400_000),
        note: Some("x'; \u{0} -- \\u0000".into()),
        tags: Default::default(),
        fail_fast: false,
        wait_for_inventory: true,
        outer: None,
        retry: None,
    }
}

async fn proved(place: &impl Place) -> Checked {
    let mut snapshot = place.snapshot().await.unwrap();
    let checked = check(&mut snapshot).await.unwrap();
    snapshot.close().await.unwrap();
    assert!(checked.found.is_empty(), "{:#?}", checked.found);
    checked
}

/// All of a store into another, without anything on top.
async fn copied(from: &impl Place, to: &impl Place) -> Copied {
    let (mut source, mut target) = (from.snapshot().await.unwrap(), to.target().await.unwrap());
    fill(&mut source, &mut target).await.unwrap();
    let copied = compare(&mut source, &mut target).await.unwrap();
    source.close().await.unwrap();
    assert_eq!(target.finish().await.unwrap(), None);
    copied
}

/// What a broker reads at its start, the journal, and the history of a resource.
async fn loaded(place: &impl Place) -> (Tables, Vec<String>, Vec<String>) {
    let mut store = place.open().await;
    let tables = store.load().await.unwrap();
    let whole = JournalFilter { limit: usize::MAX, ..JournalFilter::default() };
    let journal = store.reader().journal(&whole).await.unwrap();
    let history = store.reader().history(&ResourceName::parse("p1").unwrap(), None, usize::MAX).await.unwrap();
    let journal = journal.iter().map(|entry| format!("{entry:?}")).collect();
    (tables, journal, history.iter().map(|past| format!("{past:?}")).collect())
}

/// What a lab lived through is copied whole, and a broker on the copy reads what it would have read.
async fn everything_is_copied(from: &impl Place, to: &impl Place) {
    let mut lab = Lab::new(from.open().await).await;
    lab.live().await;
    while lab.store.prune(LabTime(1_500)).await.unwrap() {}
    lab.live_on().await;
    drop(lab);
    let checked = proved(from).await;
    assert!(checked.replayed_after > 0 && checked.replayed > 0 && checked.replayed < checked.events, "{checked:?}");
    let copied = copied(from, to).await;
    assert_eq!((copied.events, copied.leases), (checked.events, checked.leases));
    assert_eq!(proved(to).await, checked);
    // Where it is not empty, nothing is put. Before a broker's store is opened, whose readers close in their own time.
    let refused = to.target().await.err();
    assert!(matches!(refused, Some(StoreError::NotEmpty { .. })), "{refused:?}");
    let (original, copy) = (loaded(from).await, loaded(to).await);
    let tables = &original.0;
    assert!(!tables.claims.is_empty() && !tables.leases.is_empty() && !tables.remembered.is_empty(), "{tables:?}");
    assert_eq!(original, copy);
}

impl<S: Store> Lab<S> {
    /// A little more, after a checkpoint.
    async fn live_on(&mut self) {
        let eve = self.open("eve").await;
        self.acquire(eve, &["seat/2"]).await;
    }
}

/// A copy that is put into use goes on with what the core says of that.
async fn a_copy_is_put_into_use(from: &impl Place, to: &impl Place) {
    let mut lab = Lab::new(from.open().await).await;
    lab.live().await;
    let last_lease = lab.broker.state().lab.last_lease;
    drop(lab);
    let (mut source, mut target) = (from.snapshot().await.unwrap(), to.target().await.unwrap());
    fill(&mut source, &mut target).await.unwrap();
    let tables = books(&mut target).await.unwrap();
    let batch = moved(&tables, &source.name(), 0, tables.wall_ms + 7_000).unwrap();
    assert_eq!(batch.at, tables.lab.now.plus(7_000));
    target.commit(&batch).await.unwrap();
    source.close().await.unwrap();
    target.finish().await.unwrap();
    proved(to).await;
    let mut lab = Lab::new(to.open().await).await;
    let state = lab.broker.state();
    assert!(state.sessions.is_empty() && state.leases.is_empty() && state.claims.is_empty());
    assert_eq!(state.lab.last_lease, last_lease + FENCES_SKIPPED);
    let eve = lab.open("eve").await;
    lab.acquire(eve, &["seat/1"]).await;
    drop(lab);
    proved(to).await;
    proved(from).await;
}

/// Until it is finished there is nothing, and afterwards there was nothing where it is given up.
async fn what_is_not_finished_is_no_store(from: &impl Place, to: &impl Place) {
    let mut lab = Lab::new(from.open().await).await;
    lab.live().await;
    drop(lab);
    let (mut source, mut target) = (from.snapshot().await.unwrap(), to.target().await.unwrap());
    fill(&mut source, &mut target).await.unwrap();
    target.close().await.unwrap();
    source.close().await.unwrap();
    let mut store = to.open().await;
    assert_eq!(store.load().await.unwrap(), Tables::default());
    store.give_up().await.unwrap();
    drop(store);
    // It is empty, though a broker has opened it.
    copied(from, to).await;
    proved(to).await;
}

/// A snapshot is of one moment, whatever is committed meanwhile.
async fn a_snapshot_is_of_one_moment(from: &impl Place, _: &impl Place) {
    let mut lab = Lab::new(from.open().await).await;
    lab.live().await;
    let mut snapshot = from.snapshot().await.unwrap();
    let head = snapshot.head().await.unwrap();
    lab.live_on().await;
    let checked = check(&mut snapshot).await.unwrap();
    assert!(checked.found.is_empty(), "{:#?}", checked.found);
    assert_eq!((checked.batch, snapshot.head().await.unwrap()), (head.batch, head));
    snapshot.close().await.unwrap();
    assert!(proved(from).await.batch > head.batch);
}

/// However much retention took, what is left is proved.
async fn what_retention_left_is_proved(from: &impl Place, _: &impl Place) {
    let mut lab = Lab::new(from.open().await).await;
    lab.live().await;
    for before in [500, 1_200, 2_500, u64::MAX] {
        // Also between two pieces.
        while lab.store.prune(LabTime(before)).await.unwrap() {
            proved(from).await;
        }
        let checked = proved(from).await;
        assert!(checked.replayed_after > 0, "{checked:?}");
        lab.live_on().await;
    }
    let checked = proved(from).await;
    assert!(checked.events < 10 && checked.leases < 10, "{checked:?}");
}

/// Runs every test from one kind of place to another.
macro_rules! between {
    ($name:ident: $from:expr, $to:expr => $($test:ident),+ $(,)?) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $test() {
                    // Where a kind of store is not there, that was said.
                    if let (Some(from), Some(to)) = ($from, $to) {
                        super::$test(&from, &to).await;
                    }
                }
            )+
        }
    };
}

between! { file_to_file: OnDisk::new(), OnDisk::new() =>
    everything_is_copied,
    a_copy_is_put_into_use,
    what_is_not_finished_is_no_store,
    a_snapshot_is_of_one_moment,
    what_retention_left_is_proved,
}

between! { file_to_database: OnDisk::new(), InDatabase::new() =>
    everything_is_copied,
    a_copy_is_put_into_use,
    what_is_not_finished_is_no_store,
}

between! { database_to_file: InDatabase::new(), OnDisk::new() =>
    everything_is_copied,
    a_copy_is_put_into_use,
    a_snapshot_is_of_one_moment,
    what_retention_left_is_proved,
}

between! { database_to_database: InDatabase::new(), InDatabase::new() =>
    everything_is_copied,
    a_copy_is_put_into_use,
    what_is_not_finished_is_no_store,
}

/// The file is not there before it is whole, and what a crash left of another is nobody's.
#[tokio::test]
async fn a_file_has_its_name_once_it_is_whole() {
    let (from, to) = (OnDisk::new().unwrap(), OnDisk::new().unwrap());
    let mut lab = Lab::new(from.open().await).await;
    lab.live().await;
    drop(lab);
    let part = |path: &Path| path.with_file_name("lab.db.part");
    std::fs::write(part(&to.path), "what a crash left").unwrap();
    let (mut source, mut target) = (from.snapshot().await.unwrap(), to.target().await.unwrap());
    fill(&mut source, &mut target).await.unwrap();
    assert!(!to.path.exists() && part(&to.path).exists());
    assert!(matches!(to.target().await.err(), Some(StoreError::Locked { .. })), "two do not fill one place");
    target.finish().await.unwrap();
    assert!(to.path.exists() && !part(&to.path).exists());
    proved(&to).await;
}

/// While a store is kept still nobody takes the lead, whoever tries is told of, and then all is as ever.
#[tokio::test]
async fn a_database_that_is_kept_still_has_no_leader() {
    let Some(place) = InDatabase::new() else { return };
    let (store, mut shared) = place.led().await;
    let mut lab = Lab::new(store).await;
    lab.live().await;
    lab.store.give_up().await.unwrap();
    shared.leave().await;
    let mut still = PostgresSnapshot::offline(&place.url, |_| panic!("they said goodbye")).await.unwrap();
    let mut shared = Shared::connect(&place.url, "late", "ws://late:5327", 1_000).await.unwrap();
    let seen = shared.observe().await.unwrap();
    assert!(shared.take(seen.epoch, seen.beat).await.is_err());
    assert!(check(&mut still).await.unwrap().found.is_empty());
    // The one that waits would go on there.
    let closed = still.close().await;
    assert!(matches!(&closed, Err(StoreError::InUse { by: Some(url) }) if url == "ws://late:5327"), "{closed:?}");
    assert!(matches!(shared.take(seen.epoch, seen.beat).await.unwrap(), Taken::Lead(_)), "nothing has changed");
}
