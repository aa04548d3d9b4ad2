//! What every store must do, as tests over any store.
//!
//! Each function is one promise of [`super::Store`]. They are run on a store by the macro at the
//! end, with a factory that opens, and opens again, the same store.

use std::sync::Arc;

use super::{Reader, Store, StoreError};
use crate::core::claim::{Claim, ClaimEnd};
use crate::core::event::Event;
use crate::core::inventory::{Marks, Origin, Pending};
use crate::core::lease::{Ending, Lease, LeaseEnd};
use crate::core::session::{RequestEnd, SessionEnd, SessionKind};
use crate::core::state::State;
use crate::core::tables::{Batch, JournalFilter, LabRecord, ResourceRecord, SessionRecord, TableChanges, Tables};
use crate::core::types::{ClaimId, LabTime, LeaseId, ResourceId, SessionId};
use records::{
    arrival, claim, ended, every_event, key, keyed, lease, mark, name, pool, refused, request, resource, secret,
    session,
};

pub mod records;

/// Opens one store, again and again.
pub trait Factory {
    /// What it opens.
    type Store: Store;

    /// Opens it; the one opened before has been dropped, unless a test is about just that.
    fn open(&self) -> impl Future<Output = Result<Self::Store, StoreError>>;
}

/// A store's batches, numbered as they come.
struct Writer<S> {
    store: S,
    batch: u64,
    event: u64,
}

impl<S: Store> Writer<S> {
    async fn open<F: Factory<Store = S>>(factory: &F) -> Self {
        let mut store = factory.open().await.unwrap();
        let tables = store.load().await.unwrap();
        Self { store, batch: tables.batch, event: tables.last_event }
    }

    /// The batch that would be next, at lab time ten times its number.
    fn next(&self, events: Vec<Event>, tables: TableChanges) -> Batch {
        let number = self.batch + 1;
        let at = LabTime(number * 10);
        let lab = LabRecord { now: at, ..tables.lab };
        let wall_ms = 1_795_400_000_000;
        Batch { number, at, wall_ms, first_event: self.event + 1, events, tables: TableChanges { lab, ..tables } }
    }

    async fn commit(&mut self, events: Vec<Event>, tables: TableChanges) {
        let batch = self.next(events, tables);
        self.store.commit(&batch).await.unwrap();
        self.batch += 1;
        self.event += batch.events.len() as u64;
    }

    /// Grants a lease and, where told, ends it at this lab time.
    async fn lease(&mut self, id: u64, resources: &[&str], ended_at: Option<u64>) {
        let granted = lease(id, resources);
        let events = vec![Event::LeaseGranted { lease: granted.clone() }];
        let over = ended_at.map(|at| (LeaseId(id), ended(at))).into_iter().collect();
        self.commit(events, TableChanges { leases: vec![granted], ended: over, ..TableChanges::default() }).await;
    }

    async fn tables(&mut self) -> Tables {
        self.store.load().await.unwrap()
    }

    async fn history(&self, resource: &str, before: Option<u64>, limit: usize) -> Vec<u64> {
        let reader = self.store.reader();
        let found = reader.history(&name(resource), before.map(LeaseId), limit).await.unwrap();
        found.iter().map(|past| past.lease.id.0).collect()
    }

    async fn journal(&self, filter: JournalFilter) -> Vec<&'static str> {
        let found = self.store.reader().journal(&filter).await.unwrap();
        found.iter().map(|entry| entry.event.kind()).collect()
    }
}

fn whole_journal() -> JournalFilter {
    JournalFilter { limit: usize::MAX, ..JournalFilter::default() }
}

/// Every kind of record comes back as it was written, from the same store and when opened again.
pub async fn records_come_back_as_they_were<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    assert_eq!(writer.tables().await, Tables::default());
    let lab =
        LabRecord { now: LabTime(10), term: 2, last_lease: 1 << 52, last_claim: 8, last_session: 1, last_resource: 2 };
    let ends = [
        RequestEnd::Lease { lease: LeaseId(4), end: LeaseEnd::SecretUnavailable { resource: name("pixel-1") } },
        RequestEnd::Claim(refused()),
        RequestEnd::Tombstone,
    ];
    let requests: Vec<_> = (1..).zip(ends).map(|(number, end)| request(1, number, end)).collect();
    let marks = Marks { quarantined: None, drained: Some(mark("moving")), offline: None };
    let changes = TableChanges {
        lab,
        pools: vec![(key("phone"), Some(pool("phone")))],
        resources: vec![(ResourceId(1), Some(resource(1, "pixel-1"))), (ResourceId(2), Some(resource(2, "pixel-2")))],
        used: vec![(ResourceId(2), LabTime(44))],
        remembered: vec![(name("pixel-0"), Some(marks.clone()))],
        sessions: vec![(SessionId(1), Some(session(1)))],
        claims: vec![(ClaimId(8), Some(Arc::new(claim(8))))],
        leases: vec![lease(4, &["pixel-1"]), lease(7, &["pixel-1", "pixel-1", "pixel-2"])],
        ended: vec![(LeaseId(4), ended(10))],
        requests: requests.clone(),
        forgotten: vec![],
        keyed: vec![(secret("aa"), Some(keyed("aa")))],
        arrivals: vec![(ClaimId(8), Some(arrival(8)))],
    };
    writer.commit(every_event(), changes).await;
    let expected = Tables {
        batch: 1,
        last_event: every_event().len() as u64,
        wall_ms: 1_795_400_000_000,
        lab,
        pools: vec![pool("phone")],
        resources: vec![resource(1, "pixel-1"), ResourceRecord { last_used: LabTime(44), ..resource(2, "pixel-2") }],
        remembered: vec![(name("pixel-0"), marks)],
        sessions: vec![session(1)],
        claims: vec![claim(8)],
        leases: vec![lease(7, &["pixel-1", "pixel-1", "pixel-2"])],
        requests,
        keyed: vec![keyed("aa")],
        arrivals: vec![arrival(8)],
    };
    assert_eq!(writer.tables().await, expected);
    drop(writer);
    let mut writer = Writer::open(factory).await;
    assert_eq!(writer.tables().await, expected);
    let past = writer.store.reader().lease(LeaseId(4)).await.unwrap().unwrap();
    assert_eq!((past.lease, past.ended), (lease(4, &["pixel-1"]), Some(ended(10))));
}

/// Every kind of event comes back as it was written, in order, with its numbers and times.
pub async fn events_come_back_as_they_were<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    writer.commit(vec![Event::BrokerStarted { term: 1 }], TableChanges::default()).await;
    writer.commit(every_event(), TableChanges::default()).await;
    let found = writer.store.reader().journal(&JournalFilter { after: 1, ..whole_journal() }).await.unwrap();
    for (index, entry) in found.iter().enumerate() {
        let place = (entry.number, entry.batch, entry.at, entry.wall_ms);
        assert_eq!(place, (index as u64 + 2, 2, LabTime(20), 1_795_400_000_000));
    }
    let events: Vec<_> = found.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, every_event());
}

/// Records are replaced whole and deleted by `None`; a session takes its requests along.
pub async fn records_are_replaced_and_deleted<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    let changes = TableChanges {
        pools: vec![(key("phone"), Some(pool("phone"))), (key("board"), Some(pool("board")))],
        resources: vec![(ResourceId(1), Some(resource(1, "pixel-1"))), (ResourceId(2), Some(resource(2, "pixel-2")))],
        remembered: vec![(name("pixel-0"), Some(Marks::default()))],
        sessions: vec![(SessionId(1), Some(session(1))), (SessionId(2), Some(session(2)))],
        claims: vec![(ClaimId(8), Some(Arc::new(claim(8)))), (ClaimId(9), Some(Arc::new(claim(9))))],
        leases: vec![lease(7, &["pixel-1"])],
        requests: vec![request(1, 1, RequestEnd::Tombstone), request(2, 1, RequestEnd::Tombstone)],
        keyed: vec![(secret("aa"), Some(keyed("aa")))],
        ..TableChanges::default()
    };
    writer.commit(vec![], changes).await;
    let promised = SessionRecord { promise_ms: None, ..session(2) };
    let extended = Arc::new(Lease { until: None, ending: None, freed: vec![], ..(*lease(7, &["pixel-1"])).clone() });
    let unpinned = Claim { pin: None, ..claim(9) };
    let changes = TableChanges {
        pools: vec![(key("phone"), None)],
        // Two resources may swap their names in one batch.
        resources: vec![(ResourceId(1), None), (ResourceId(2), Some(resource(2, "pixel-1")))],
        remembered: vec![(name("pixel-0"), None), (name("pixel-1"), Some(Marks::default()))],
        sessions: vec![(SessionId(1), None), (SessionId(2), Some(promised.clone()))],
        claims: vec![(ClaimId(8), None), (ClaimId(9), Some(Arc::new(unpinned.clone())))],
        leases: vec![extended.clone()],
        keyed: vec![(secret("aa"), None), (secret("bb"), Some(keyed("bb")))],
        ..TableChanges::default()
    };
    writer.commit(vec![], changes).await;
    let tables = writer.tables().await;
    assert_eq!(tables.pools, [pool("board")]);
    assert_eq!(tables.resources, [resource(2, "pixel-1")]);
    assert_eq!(tables.remembered, [(name("pixel-1"), Marks::default())]);
    assert_eq!(tables.sessions, [promised]);
    assert_eq!(tables.claims, [unpinned]);
    assert_eq!(tables.leases, [extended]);
    assert_eq!(tables.requests, [request(2, 1, RequestEnd::Tombstone)]);
    assert_eq!(tables.keyed, [keyed("bb")]);
}

/// Forgetting takes the session's requests up to the number that had ended by then, no others; one
/// that was open then and ends later is remembered, and the last word on a request counts.
pub async fn requests_are_forgotten_up_to_a_number<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    let tombstone = |session, number| request(session, number, RequestEnd::Tombstone);
    let changes = TableChanges {
        sessions: vec![(SessionId(1), Some(session(1))), (SessionId(2), Some(session(2)))],
        requests: vec![tombstone(1, 1), tombstone(1, 3), tombstone(1, 4), tombstone(2, 1)],
        ..TableChanges::default()
    };
    writer.commit(vec![], changes).await;
    let forgotten = vec![(SessionId(1), 3)];
    let changes = TableChanges { forgotten, requests: vec![tombstone(1, 2)], ..TableChanges::default() };
    writer.commit(vec![], changes).await;
    let ended = request(1, 4, RequestEnd::Claim(ClaimEnd::TimedOut));
    writer.commit(vec![], TableChanges { requests: vec![ended.clone()], ..TableChanges::default() }).await;
    assert_eq!(writer.tables().await.requests, [tombstone(1, 2), ended, tombstone(2, 1)]);
    while writer.store.prune(LabTime(0)).await.unwrap() {}
    assert_eq!(writer.tables().await.requests.len(), 3);
}

/// A day in a lab's life, in batches that the core could have made.
fn a_day() -> Vec<Vec<Event>> {
    let (first, second) = (ResourceId(1), ResourceId(2));
    let (session, keyed_session) = (SessionId(1), SessionId(2));
    let by = Arc::<str>::from("root");
    let opened = |session, kind| Event::SessionOpened {
        session,
        owner: records::owner(),
        ttl_ms: 30_000,
        secret: secret(&session.to_string()),
        kind,
    };
    let granted = |id, session, resource| {
        let mut fresh =
            Lease { session, request: id, ending: None, freed: vec![], ..(*lease(id, &["pixel-1"])).clone() };
        fresh.picks[0].resource = resource;
        Event::LeaseGranted { lease: Arc::new(fresh) }
    };
    let over = |id| Event::LeaseEnded {
        lease: LeaseId(id),
        session: SessionId(1),
        end: LeaseEnd::SessionClosed,
        outcome: None,
    };
    let why = Ending { why: LeaseEnd::HoldEnded, since: LabTime(0) };
    let refuse = |request| Event::ClaimEnded {
        claim: ClaimId(100 + request),
        session,
        request,
        body_hash: 1 << 63,
        end: refused(),
    };
    vec![
        vec![Event::BrokerStarted { term: 1 }, Event::PoolSet { pool: pool("phone").pool, origin: Origin::File }],
        vec![
            Event::ResourceAdded { resource: first, spec: records::spec("pixel-1"), origin: Origin::File },
            Event::ResourceAdded { resource: second, spec: records::spec("pixel-2"), origin: Origin::Api },
        ],
        vec![opened(session, SessionKind::Socket { instance: "i".into() })],
        vec![Event::ClaimQueued { claim: Box::new(claim(1)) }, Event::ClaimQueued { claim: Box::new(claim(2)) }],
        vec![Event::ClaimPinned { claim: ClaimId(2), pin: None }],
        vec![granted(1, session, first)],
        vec![Event::LeaseExtended { lease: LeaseId(1), until: LabTime(1 << 40), by: by.clone() }],
        vec![refuse(10), refuse(11), Event::RequestTombstoned { session, request: 12 }],
        // Request 1 is open when the numbers up to 11 are forgotten, and is remembered when it ends.
        vec![Event::RequestsForgotten { session, up_to: 11 }, over(1), refuse(13)],
        vec![Event::ClaimBlocked { claim: ClaimId(2), blocked: None }],
        vec![opened(keyed_session, SessionKind::Keyed { request_id: "r".into() }), granted(2, keyed_session, first)],
        vec![Event::ResourcePending { resource: first, pending: Some(Pending::Removal) }],
        vec![Event::LeaseEnding { lease: LeaseId(2), ending: why }],
        vec![Event::PicksFreed { lease: LeaseId(2), resources: vec![first] }],
        vec![over(2), Event::SessionEnded { session: keyed_session, end: SessionEnd::Closed }],
        vec![Event::ResourceDrained { resource: first, reason: "gone".into(), by: by.clone() }],
        vec![Event::ResourceRemoved { resource: first }],
        vec![
            Event::ResourceChanged { resource: second, spec: records::spec("pixel-1") },
            Event::ResourceQuarantined { resource: second, reason: "dark".into(), by: by.clone() },
        ],
        vec![Event::ResourceChanged { resource: second, spec: records::spec("pixel-3") }],
        vec![Event::ResourceAdded { resource: ResourceId(3), spec: records::spec("pixel-1"), origin: Origin::Api }],
        vec![Event::SessionKicked { session, by }, Event::SessionPromised { session, promise_ms: Some(1) }],
        vec![granted(3, session, ResourceId(3))],
    ]
}

/// Commits what the core's books say changed, and compares the tables with the books.
async fn tables_follow_the_books<F: Factory>(factory: &F, batches: Vec<Vec<Event>>) {
    let mut writer = Writer::open(factory).await;
    let mut books = State::default();
    for events in batches {
        let at = LabTime((writer.batch + 1) * 10);
        for event in &events {
            books.apply(at, event);
        }
        let changes = books.take_changes();
        writer.commit(events, changes).await;
        let tables = writer.tables().await;
        let (batch, last_event, wall_ms) = (writer.batch, writer.event, tables.wall_ms);
        assert_eq!(tables, Tables { batch, last_event, wall_ms, ..books.tables() }, "after batch {batch}");
    }
    let tables = writer.tables().await;
    let read = State::from_tables(&tables).unwrap();
    assert_eq!(read.tables(), books.tables());
}

/// After every batch the tables are what the core's books are.
pub async fn tables_are_what_the_books_are<F: Factory>(factory: &F) {
    tables_follow_the_books(factory, a_day()).await;
}

/// However much happens in one batch, the tables are what the core's books are.
pub async fn tables_are_what_the_books_are_in_one_batch<F: Factory>(factory: &F) {
    tables_follow_the_books(factory, vec![a_day().concat()]).await;
}

/// A batch that does not follow the last one is refused, and the store goes on as if never asked.
pub async fn batches_out_of_order_are_refused<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    writer.commit(vec![Event::BrokerStarted { term: 1 }], TableChanges::default()).await;
    for number in [0, 1, 3, u64::MAX] {
        let batch = Batch { number, ..writer.next(every_event(), TableChanges::default()) };
        let refused = writer.store.commit(&batch).await;
        assert!(
            matches!(refused, Err(StoreError::OutOfOrder { last: 1, offered }) if offered == number),
            "{number}: {refused:?}"
        );
    }
    let gap = Batch { first_event: 5, ..writer.next(every_event(), TableChanges::default()) };
    assert!(matches!(writer.store.commit(&gap).await, Err(StoreError::Inconsistent { .. })));
    writer.commit(vec![Event::BrokerStarted { term: 2 }], TableChanges::default()).await;
    assert_eq!(writer.journal(whole_journal()).await, ["broker_started", "broker_started"]);
}

/// While a store is open, opening it again is refused; when it is gone, it is not.
pub async fn a_second_opener_is_refused<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    assert!(matches!(factory.open().await, Err(StoreError::Locked { .. })));
    writer.store.reopen().await.unwrap();
    assert!(matches!(factory.open().await, Err(StoreError::Locked { .. })), "the lock outlives a reopening");
    writer.commit(vec![], TableChanges::default()).await;
    drop(writer);
    assert_eq!(Writer::open(factory).await.batch, 1);
}

/// The leases that had a resource: by its name at the grant, newest first, from any point.
pub async fn history_is_by_resource_newest_first<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    let far = 1 << 33;
    writer.lease(1, &["pixel-1"], Some(10)).await;
    writer.lease(2, &["pixel-2"], Some(10)).await;
    writer.lease(3, &["pixel-2", "pixel-1"], None).await;
    writer.lease(1_500, &["pixel-1"], Some(30)).await;
    writer.lease(far, &["pixel-1", "pixel-1"], None).await;
    assert_eq!(writer.history("pixel-1", None, 10).await, [far, 1_500, 3, 1]);
    assert_eq!(writer.history("pixel-1", None, 2).await, [far, 1_500]);
    assert_eq!(writer.history("pixel-1", Some(1_500), 10).await, [3, 1]);
    assert_eq!(writer.history("pixel-2", Some(3), 10).await, [2]);
    assert_eq!(writer.history("pixel-3", None, 10).await, [0; 0]);
    let reader = writer.store.reader();
    let all = reader.leases(Some(LeaseId(far)), 3).await.unwrap();
    let shown: Vec<_> = all.iter().map(|past| (past.lease.id.0, past.ended.is_some())).collect();
    assert_eq!(shown, [(1_500, true), (3, false), (2, true)]);
    assert_eq!(reader.lease(LeaseId(4)).await.unwrap(), None);
}

/// The journal can be asked for what names a lease, a claim, a session or a resource.
pub async fn the_journal_can_be_narrowed<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    writer.commit(every_event(), TableChanges::default()).await;
    let others = vec![
        Event::ResourceRemoved { resource: ResourceId(2) },
        Event::LeaseGranted { lease: Arc::new(Lease { session: SessionId(2), ..(*lease(6, &["pixel-1"])).clone() }) },
    ];
    writer.commit(others, TableChanges::default()).await;
    let of_lease = JournalFilter { lease: Some(LeaseId(7)), ..whole_journal() };
    let ends = ["lease_granted", "lease_extended", "lease_ending", "lease_ended", "picks_freed"];
    assert_eq!(writer.journal(of_lease.clone()).await, ends);
    assert_eq!(writer.journal(JournalFilter { limit: 2, ..of_lease.clone() }).await, ends[..2]);
    let granted = 1 + every_event().iter().position(|event| event.kind() == "lease_granted").unwrap() as u64;
    assert_eq!(writer.journal(JournalFilter { after: granted, ..of_lease }).await, ends[1..]);
    let of_claim = JournalFilter { claim: Some(ClaimId(8)), ..whole_journal() };
    assert_eq!(
        writer.journal(of_claim).await,
        ["claim_queued", "claim_pinned", "claim_blocked", "claim_ended", "arrival_noted"]
    );
    let of_session = |id| JournalFilter { session: Some(SessionId(id)), ..whole_journal() };
    let seen = writer.journal(of_session(1)).await;
    assert_eq!((seen[0], seen[seen.len() - 1], seen.len()), ("session_opened", "session_ended", 10));
    assert_eq!(writer.journal(of_session(2)).await, ["lease_granted"]);
    let of_resource = JournalFilter { resource: Some(ResourceId(1)), ..whole_journal() };
    assert_eq!(writer.journal(of_resource.clone()).await.len(), 13);
    let both = JournalFilter { lease: Some(LeaseId(7)), ..of_resource };
    assert!(writer.journal(both).await.is_empty());
}

/// Opening again changes nothing but the connections; readers made before go on working.
pub async fn reopening_keeps_what_is_committed<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    let reader = writer.store.reader();
    writer.lease(1, &["pixel-1"], None).await;
    let before = writer.tables().await;
    assert_eq!(reader.leases(None, 10).await.unwrap().len(), 1);
    assert_eq!(writer.store.reopen().await.unwrap(), 1);
    assert_eq!(writer.tables().await, before);
    writer.lease(2, &["pixel-1"], None).await;
    assert_eq!(reader.leases(None, 10).await.unwrap().len(), 2);
}

/// Pruning takes old events and ended leases, bit by bit, and nothing that is held or young.
pub async fn pruning_keeps_what_is_held_or_young<F: Factory>(factory: &F) {
    let mut writer = Writer::open(factory).await;
    for number in 1..=6 {
        let ended_at = (number != 2).then_some(number * 10);
        writer.lease(number, &["pixel-1", "pixel-2"], ended_at).await;
    }
    let before = writer.tables().await;
    while writer.store.prune(LabTime(40)).await.unwrap() {}
    assert_eq!(writer.history("pixel-1", None, 10).await, [6, 5, 4, 2]);
    assert_eq!(writer.history("pixel-2", None, 10).await, [6, 5, 4, 2]);
    let journal = writer.store.reader().journal(&whole_journal()).await.unwrap();
    assert_eq!(journal.iter().map(|entry| entry.number).collect::<Vec<_>>(), [4, 5, 6]);
    assert_eq!(writer.tables().await, before, "pruning changes no state");
    while writer.store.prune(LabTime(u64::MAX)).await.unwrap() {}
    drop(writer);
    let mut writer = Writer::open(factory).await;
    assert_eq!(writer.tables().await, before, "an empty journal is no contradiction");
    writer.lease(7, &["pixel-1"], None).await;
    assert_eq!(writer.history("pixel-1", None, 10).await, [7, 2]);
}

/// What the first version wrote: a line per event, never to be changed. An event that gets a field
/// gets it with a default, and a golden line of its own.
const EVENTS_OF_VERSION_1: &str = include_str!("../../../tests/data/journal/events-1.jsonl");

#[test]
fn old_events_stay_readable() {
    let lines: Vec<Event> = EVENTS_OF_VERSION_1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, every_event());
    let tag = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].clone();
    assert!(EVENTS_OF_VERSION_1.lines().map(tag).eq(lines.iter().map(Event::kind)), "the tag is the kind's name");
}

/// Runs every promise on the store that a factory opens, where there is one.
macro_rules! contract {
    ($factory:expr => $($promise:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                if let Some(factory) = $factory {
                    crate::store::contract::$promise(&factory).await;
                }
            }
        )+
    };
}
pub(super) use contract;
