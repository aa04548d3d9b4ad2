//! What the tables of the search must do, as tests over any store.

use std::sync::Arc;

use super::{Candidate, IndexPiece, Narrowing, PieceId, SearchTables, ToIndex, Word};
use crate::builds::build::{Build, BuildId, Phase};
use crate::builds::log::LogId;
use crate::store::builds::Opened;
use crate::store::builds::contract::Factory;
use crate::store::builds::contract::{build, changed};
use crate::store::builds::logs::{LogRecord, LogWrite};

async fn opened(factory: &impl Factory) -> Opened {
    let opened = factory.open().await.unwrap();
    opened.builds.take_over(0).await.unwrap();
    opened
}

const fn log(build: u64, attempt: u32) -> LogId {
    LogId { build: BuildId(build), attempt }
}

async fn write(store: &Opened, id: LogId, revision: u64, settled: bool) {
    let record = LogRecord {
        revision,
        bytes: 0,
        lines: 0,
        open_line: false,
        hash: String::new(),
        folder: "f".into(),
        gap: None,
        end: None,
        settled,
        changed_ms: 0,
        key_hash: None,
    };
    let write = LogWrite { id, record: &record, piece: None, segment: None, pieces_go: false, segments_go: &[] };
    assert!(store.logs.write_log(&write).await.unwrap());
}

async fn queued(store: &Opened) -> Vec<(u64, u32, bool)> {
    let found = store.search.to_index(10).await.unwrap();
    assert_eq!(store.search.to_index_count().await.unwrap(), found.len() as u64);
    found.iter().map(|entry| (entry.log.build.0, entry.log.attempt, entry.gone)).collect()
}

/// A log is queued when it settles, when it goes, and whenever the index is another.
pub async fn logs_are_queued_when_they_settle_and_when_they_go(factory: &impl Factory) {
    let store = opened(factory).await;
    store.search.aim("one", true).await.unwrap();
    write(&store, log(1, 1), 1, false).await;
    assert_eq!(queued(&store).await, []);
    write(&store, log(1, 1), 2, true).await;
    write(&store, log(2, 1), 1, true).await;
    write(&store, log(2, 2), 1, true).await;
    assert_eq!(queued(&store).await, [(2, 2, false), (2, 1, false), (1, 1, false)]);
    store.search.indexed(ToIndex { log: log(2, 2), gone: false }).await.unwrap();
    write(&store, log(2, 2), 2, true).await;
    assert_eq!(queued(&store).await, [(2, 1, false), (1, 1, false)], "it was settled before");
    store.logs.delete_logs(&[BuildId(2)]).await.unwrap();
    store.search.indexed(ToIndex { log: log(2, 1), gone: false }).await.unwrap();
    let gone = [(2, 2, true), (2, 1, true), (1, 1, false)];
    assert_eq!(queued(&store).await, gone, "that it is gone was not known to whoever indexed it");
    store.search.aim("one", true).await.unwrap();
    for (build, attempt, gone) in gone {
        store.search.indexed(ToIndex { log: log(build, attempt), gone }).await.unwrap();
    }
    assert_eq!(queued(&store).await, []);
    store.search.aim("two", false).await.unwrap();
    drop(store);
    assert_eq!(queued(&opened(factory).await).await, [(1, 1, false)]);
}

async fn put(store: &Opened, id: PieceId, words: &[&str]) {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    store.search.index(&IndexPiece { id, first_line: id.0 % 100, last_line: 100, words }).await.unwrap();
}

fn piece(build: u64, attempt: u32, nth: u64) -> PieceId {
    PieceId::new(log(build, attempt), nth).unwrap()
}

/// Words as people write them here: `begin*`.
fn narrowing(words: &str) -> Narrowing {
    let word = |text: &str| Word { text: text.trim_end_matches('*').to_owned(), begins: text.ends_with('*') };
    let words = words.split(' ').map(word).collect();
    Narrowing { words, repository: None, pipeline: None, phases: vec![], from: PieceId(0), to: PieceId::END, limit: 10 }
}

async fn found(tables: &Arc<dyn SearchTables>, narrowing: Narrowing) -> Vec<(u64, u32)> {
    let found = tables.candidates(&narrowing).await.unwrap();
    found.iter().map(|candidate| (candidate.id.build().0, candidate.id.log().attempt)).collect()
}

/// Pieces are found by all of the words, newest first, in what was asked for; put in twice they are there once.
pub async fn pieces_are_found_by_all_their_words(factory: &impl Factory) {
    let store = opened(factory).await;
    let of = |id, repository: &str, phase| Build { repository: repository.into(), ..build(id, phase) };
    let builds = [of(1, "acme/app", Phase::Passed), of(2, "acme/web", Phase::Failed), of(3, "acme/app", Phase::Failed)];
    store.builds.commit(&builds.each_ref().map(changed)).await.unwrap();
    put(&store, piece(1, 1, 0), &["error", "straße", "and", "timeout"]).await;
    put(&store, piece(2, 1, 0), &["error", "logins"]).await;
    put(&store, piece(3, 1, 0), &["logi", "ok", "or"]).await;
    put(&store, piece(3, 1, 0), &["error", "login", "日本語"]).await;
    put(&store, piece(3, 2, 0), &["error", "e0308"]).await;
    let tables = &store.search;
    for (words, ids) in [
        ("error", &[(3, 2), (3, 1), (2, 1), (1, 1)][..]),
        ("login", &[(3, 1)]),
        ("login*", &[(3, 1), (2, 1)]),
        ("logi", &[]),
        ("or", &[]),
        ("straße error", &[(1, 1)]),
        ("日本* and", &[]),
        ("日本*", &[(3, 1)]),
        ("and", &[(1, 1)]),
        ("err* e03*", &[(3, 2)]),
    ] {
        assert_eq!(found(tables, narrowing(words)).await, ids, "{words}");
    }
    let app = Narrowing { repository: Some("acme/app".into()), ..narrowing("error") };
    assert_eq!(found(tables, app.clone()).await, [(3, 2), (3, 1), (1, 1)]);
    assert_eq!(found(tables, Narrowing { phases: vec![Phase::Passed, Phase::Running], ..app }).await, [(1, 1)]);
    let other = Narrowing { pipeline: Some("docs".into()), ..narrowing("error") };
    assert_eq!(found(tables, other).await, []);
    let between = Narrowing { from: PieceId::first_of(BuildId(2)), to: piece(3, 1, 0), ..narrowing("error") };
    assert_eq!(found(tables, between.clone()).await, [(3, 1), (2, 1)]);
    assert_eq!(found(tables, Narrowing { limit: 1, ..between }).await, [(3, 1)]);
    let whole = tables.candidates(&narrowing("e0308")).await.unwrap();
    let id = piece(3, 2, 0);
    assert_eq!(whole, [Candidate { id, first_line: id.0 % 100, last_line: 100 }]);
}

/// What is taken out is found no more, and what another index is for is not kept here.
pub async fn what_is_taken_out_is_not_found(factory: &impl Factory) {
    let store = opened(factory).await;
    store.search.aim("embedded", true).await.unwrap();
    for (build, attempt, nth) in [(1, 1, 0), (1, 1, 1), (1, 2, 0), (2, 1, 0)] {
        put(&store, piece(build, attempt, nth), &["error"]).await;
    }
    store.search.unindex(log(1, 1)).await.unwrap();
    assert_eq!(found(&store.search, narrowing("error")).await, [(2, 1), (1, 2)]);
    store.search.aim("embedded", true).await.unwrap();
    assert_eq!(found(&store.search, narrowing("error")).await, [(2, 1), (1, 2)]);
    store.search.aim("elsewhere", false).await.unwrap();
    assert_eq!(found(&store.search, narrowing("error")).await, []);
    put(&store, piece(2, 1, 0), &["error"]).await;
    assert_eq!(found(&store.search, narrowing("error")).await, [(2, 1)]);
}

/// Runs every promise on the store that a factory opens, where there is one.
macro_rules! contract {
    ($factory:expr) => {
        crate::store::builds::search::contract::contract! { $factory =>
            logs_are_queued_when_they_settle_and_when_they_go,
            pieces_are_found_by_all_their_words,
            what_is_taken_out_is_not_found,
        }
    };
    ($factory:expr => $($promise:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                if let Some(factory) = $factory {
                    crate::store::builds::search::contract::$promise(&factory).await;
                }
            }
        )+
    };
}
pub(in crate::store::builds) use contract;
