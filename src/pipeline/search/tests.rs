//! What was printed is found, in the same order by every index, and whatever an index does.

mod node;
mod stub;
mod world;

use std::time::Duration;

use serde_json::json;

use super::indexer::Memory;
use super::*;
use node::Node;
use stub::{Fault, Stub};
use world::World;

fn question(query: &str) -> Question {
    Question {
        query: Query::parse(query).unwrap(),
        repository: None,
        pipeline: None,
        phases: vec![],
        since_ms: None,
        limit: HITS_DEFAULT,
        cursor: None,
    }
}

/// Hits as build, attempt and line.
fn places(found: &Found) -> Vec<(u64, u32, u64)> {
    found.hits.iter().map(|hit| (hit.build.id.0, hit.attempt, hit.line)).collect()
}

async fn found(search: &Search, query: &str) -> Vec<(u64, u32, u64)> {
    let found = search.search(&question(query)).await.unwrap();
    assert!(!found.unfinished && found.next.is_none() && found.trouble.is_none(), "{found:?}");
    places(&found)
}

/// Every page of an answer.
async fn pages(search: &Search, mut question: Question) -> Vec<(u64, u32, u64)> {
    let mut all = Vec::new();
    loop {
        let found = search.search(&question).await.unwrap();
        assert!(found.hits.len() <= question.limit);
        all.extend(places(&found));
        let Some(next) = found.next else { return all };
        assert_eq!(next.to_string().parse(), Ok(next), "a cursor is kept as text");
        question.cursor = Some(next);
    }
}

/// Indexes what is queued, until there is nothing more.
async fn index(search: &Search) {
    index_as(search, &mut Memory::default()).await;
}

/// The same in a process that has been at it for a while.
async fn index_as(search: &Search, memory: &mut Memory) {
    while search.index_some(memory).await.unwrap() {}
    assert_eq!(search.inner.tables.to_index_count().await.unwrap(), 0);
}

/// A few builds with something to find, the same for every index.
async fn some_builds(world: &World) {
    world.build(1, "acme/app", Phase::Passed, &["\x1b[32mcompiling\x1b[0m app\ntest login ... ok\nall passed\n"]).await;
    world.build(2, "acme/web", Phase::Failed, &["starting\nerror: connection refused (os error 111)\n"]).await;
    let flaky = ["test_login timed out\nerror: no device", "test_login ok\n"];
    world.build(3, "acme/app", Phase::Passed, &flaky).await;
    let long = format!("{}\nerror[E0308]: mismatched\n{}\ntail\n", "x".repeat(40_000), "y ".repeat(20_000));
    world.build(4, "acme/app", Phase::Failed, &[&long]).await;
    world.build(5, "acme/app", Phase::Failed, &["--\n"]).await;
}

/// What is found in them.
async fn some_answers(search: &Search) {
    for (query, places) in [
        ("error", &[(4, 1, 2), (3, 1, 2), (2, 1, 2)][..]),
        ("login", &[(3, 2, 1), (3, 1, 1), (1, 1, 2)]),
        ("LOGIN ok", &[(3, 2, 1), (1, 1, 2)]),
        ("\"connection refused\" error", &[(2, 1, 2)]),
        ("connection error refused 112", &[]),
        ("compiling", &[(1, 1, 1)]),
        ("32mcompiling", &[]),
        ("error[E0308]", &[(4, 1, 2)]),
        ("e030*", &[(4, 1, 2)]),
        ("y", &[(4, 1, 3)]),
        ("nothing", &[]),
    ] {
        assert_eq!(found(search, query).await, places, "{query}");
    }
    let app = Question { repository: Some("acme/app".into()), ..question("error") };
    assert_eq!(pages(search, app.clone()).await, [(4, 1, 2), (3, 1, 2)]);
    assert_eq!(pages(search, Question { phases: vec![Phase::Failed], ..app.clone() }).await, [(4, 1, 2)]);
    assert_eq!(pages(search, Question { pipeline: Some("docs".into()), ..app }).await, []);
    for (since_ms, places) in
        [(0, &[(4, 1, 2), (3, 1, 2), (2, 1, 2)][..]), (30, &[(4, 1, 2), (3, 1, 2)]), (31, &[(4, 1, 2)]), (51, &[])]
    {
        let since = Question { since_ms: Some(since_ms), ..question("error") };
        assert_eq!(pages(search, since).await, places, "since {since_ms}");
    }
    assert_eq!(pages(search, Question { limit: 1, ..question("error") }).await, [(4, 1, 2), (3, 1, 2), (2, 1, 2)]);
}

#[tokio::test]
async fn what_was_printed_is_found_newest_builds_first() {
    let world = World::new().await;
    some_builds(&world).await;
    let search = world.search(None);
    let before = search.search(&question("error")).await.unwrap();
    assert_eq!((places(&before), before.to_index), (vec![], 6), "what is not indexed yet is counted");
    index(&search).await;
    some_answers(&search).await;
    let hit = search.search(&question("compiling")).await.unwrap().hits.remove(0);
    assert_eq!((&*hit.text, &*hit.build.repository, hit.at_ms), ("compiling app", "acme/app", Some(1_000)));
}

#[tokio::test]
async fn what_is_deleted_is_found_no_more() {
    let world = World::new().await;
    some_builds(&world).await;
    let search = world.search(None);
    index(&search).await;
    world.store.logs.delete_logs(&[BuildId(3)]).await.unwrap();
    assert_eq!(found(&search, "login").await, [(1, 1, 2)], "whether or not the index knows");
    world.store.builds.forget(&[BuildId(3)], 0).await.unwrap();
    index(&search).await;
    assert_eq!(found(&search, "login").await, [(1, 1, 2)]);
}

#[tokio::test]
async fn a_store_of_logs_that_is_away_makes_no_log_be_given_up() {
    let world = World::new().await;
    some_builds(&world).await;
    let search = world.search(None);
    let mut memory = Memory::default();
    world.objects_away(true);
    for _ in 0..10 {
        assert!(search.index_some(&mut memory).await.unwrap_err().to_string().contains("the place of logs"));
    }
    assert_eq!(world.store.search.to_index_count().await.unwrap(), 6);
    world.objects_away(false);
    index_as(&search, &mut memory).await;
    some_answers(&search).await;
}

#[tokio::test]
async fn only_a_log_that_is_gone_from_a_place_that_is_there_is_given_up() {
    let world = World::new().await;
    let search = world.search(None);
    world.build(1, "acme/app", Phase::Passed, &["needle\n"]).await;
    world.build(2, "acme/app", Phase::Passed, &["needle\n"]).await;
    let mut memory = Memory::default();
    std::fs::rename(world.logs_folder(), world.logs_folder().with_extension("away")).unwrap();
    for _ in 0..5 {
        let trouble = search.index_some(&mut memory).await.unwrap_err();
        assert!(trouble.to_string().starts_with("the place of logs: "), "{trouble}");
    }
    std::fs::rename(world.logs_folder().with_extension("away"), world.logs_folder()).unwrap();
    std::fs::remove_dir_all(world.logs_folder().join("1")).unwrap();
    assert!(!search.index_some(&mut memory).await.unwrap(), "it is tried again");
    assert_eq!(found(&search, "needle").await, [(2, 1, 1)]);
    assert!(!search.index_some(&mut memory).await.unwrap());
    search.index_some(&mut memory).await.unwrap();
    assert_eq!(world.store.search.to_index_count().await.unwrap(), 0);
}

#[tokio::test]
async fn a_log_full_of_it_leaves_room_for_others_and_pages_miss_nothing() {
    let world = World::new().await;
    world.build(1, "acme/app", Phase::Passed, &["needle one\n"]).await;
    // Many pieces, in which only some lines have both words.
    let line = |number: u64| match number % 100 {
        0 => format!("{number} needle and thread {}\n", "filler ".repeat(20)),
        50 => format!("{number} thread without {}\n", "filler ".repeat(20)),
        _ => format!("{number} needle without {}\n", "filler ".repeat(20)),
    };
    let text: String = (1..=6_000).map(line).collect();
    world.build(2, "acme/app", Phase::Passed, &[&text]).await;
    let search = world.search(None);
    index(&search).await;
    let all = search.search(&question("needle")).await.unwrap();
    let (last, hits) = all.hits.split_last().unwrap();
    assert_eq!((last.build.id.0, hits.len()), (1, HITS_OF_LOG_MAX));
    assert!(hits.last().unwrap().more_in_log && hits.iter().filter(|hit| hit.more_in_log).count() == 1);
    let both: Vec<_> = (1..=60).map(|hundred| (2, 1, hundred * 100)).collect();
    assert_eq!(pages(&search, Question { limit: 7, ..question("thread needle") }).await, both);
}

#[tokio::test]
async fn a_cluster_answers_what_the_embedded_index_answers() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    index(&search).await;
    some_answers(&search).await;
    assert_eq!(stub.ids(), ["1:1:1", "2:1:1", "3:1:1", "3:2:1", "4:1:1", "4:1:4"], "they are of what they hold");
    world.store.logs.delete_logs(&[BuildId(4)]).await.unwrap();
    index(&search).await;
    assert_eq!(stub.ids(), ["1:1:1", "2:1:1", "3:1:1", "3:2:1"]);
    let embedded = Question { cursor: None, ..question("error") };
    assert_eq!(world.search(None).search(&embedded).await.unwrap().hits.len(), 0, "it is in the cluster only");
}

#[tokio::test]
async fn small_logs_do_not_wait_for_a_large_one_to_be_done() {
    let world = World::new().await;
    world.build(1, "acme/app", Phase::Passed, &["needle\n"]).await;
    let large: String = (1..=20_000).map(|line| format!("{line} {}\n", "of a large log ".repeat(8))).collect();
    world.build(2, "acme/app", Phase::Passed, &[&large]).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    index(&search).await;
    let sent = stub.bulks();
    let (last, before) = sent.split_last().unwrap();
    assert!(before.concat().contains(&"1:1:1".to_owned()), "it is newer, and was begun before: {sent:?}");
    assert!(last.iter().all(|id| id.starts_with("2:1:")));
    assert_eq!(sent.concat().len(), stub.ids().len(), "nothing was sent twice");
    assert_eq!(found(&search, "needle").await, [(1, 1, 1)]);
    assert_eq!(found(&search, "20000").await, [(2, 1, 20_000)]);
}

#[tokio::test]
async fn who_appends_without_end_does_not_keep_logs_from_being_indexed() {
    let world = World::new().await;
    let text: String = (1..=3_000).map(|line| format!("{line} {}\n", "filler ".repeat(8))).collect();
    world.build(1, "acme/app", Phase::Passed, &[&text]).await;
    let search = world.search(None);
    let _under_way = world.append_under_way().await;
    index(&search).await;
    assert_eq!(found(&search, "3000").await, [(1, 1, 3_000)]);
}

#[tokio::test]
async fn only_what_a_cluster_had_no_room_for_is_sent_again() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    stub.fail([
        Fault::Busy,
        Fault::Items { busy: vec![1, 3], refused: vec![2] },
        Fault::Items { busy: vec![0], refused: vec![] },
    ]);
    index(&search).await;
    let sent = stub.bulks();
    let lengths: Vec<usize> = sent.iter().map(Vec::len).collect();
    assert_eq!(lengths, [6, 6, 2, 1], "all, all again, those without room, the one of them");
    assert_eq!((&sent[2][0], &sent[2][1], &sent[3][0]), (&sent[0][1], &sent[0][3], &sent[0][1]));
    assert_eq!(stub.ids().len(), 5, "what it refuses for good is left out");
    assert!(!stub.ids().contains(&sent[0][2]));
}

#[tokio::test]
async fn what_is_wrong_with_the_index_is_no_fault_of_a_piece() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    let mut memory = Memory::default();
    for (status, kind) in [
        (401, "security_exception"),
        (403, "cluster_block_exception"),
        (404, "index_not_found_exception"),
        (400, "index_closed_exception"),
    ] {
        stub.fail([Fault::Index(status, kind)]);
        let trouble = search.index_some(&mut memory).await.unwrap_err().to_string();
        assert!(trouble.contains(kind), "{trouble}");
        assert_eq!(world.store.search.to_index_count().await.unwrap(), 6, "{kind}: all of it stays queued");
    }
    index_as(&search, &mut memory).await;
    some_answers(&search).await;
}

#[tokio::test]
async fn what_is_too_large_at_once_is_sent_in_parts() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    stub.fail([Fault::TooLarge, Fault::TooLarge]);
    index(&search).await;
    assert_eq!(stub.ids().len(), 6);
    assert_eq!(stub.bulks().iter().map(Vec::len).collect::<Vec<_>>(), [6, 3, 1, 2, 3]);
}

#[tokio::test]
async fn a_cluster_that_is_away_is_done_without_and_caught_up_with() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    stub.away(true);
    assert!(search.index_some(&mut Memory::default()).await.is_err());
    assert_eq!(world.store.search.to_index_count().await.unwrap(), 6, "nothing is lost from the queue");
    let without = search.search(&question("error")).await.unwrap();
    assert_eq!(places(&without), [(4, 1, 2), (3, 1, 2), (2, 1, 2)], "logs are read through");
    assert!(without.trouble.unwrap().contains("does not answer"));
    assert_eq!(pages(&search, Question { limit: 1, ..question("login") }).await, [(3, 2, 1), (3, 1, 1), (1, 1, 2)]);
    let app = Question { repository: Some("acme/app".into()), phases: vec![Phase::Failed], ..question("error") };
    assert_eq!(pages(&search, app).await, [(4, 1, 2)]);
    stub.away(false);
    index(&search).await;
    some_answers(&search).await;
    // Its disk is gone, and it starts empty.
    stub.empty();
    assert!(found(&search, "error").await.is_empty());
    index(&search).await;
    some_answers(&search).await;
}

#[tokio::test]
async fn a_cluster_that_lost_its_index_while_nothing_was_sent_gets_every_log() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    let mut memory = Memory::default();
    index_as(&search, &mut memory).await;
    stub.empty();
    assert!(!search.index_some(&mut memory).await.unwrap(), "there is nothing to send");
    world.build(6, "acme/web", Phase::Passed, &["all is well\n"]).await;
    index_as(&search, &mut memory).await;
    assert_eq!(found(&search, "well").await, [(6, 1, 1)]);
    some_answers(&search).await;
}

#[tokio::test]
async fn an_index_that_no_broker_made_is_not_taken_for_ones_own() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    // As it becomes by itself, of what is sent.
    let text = json!({ "type": "text", "fields": { "keyword": { "type": "keyword" } } });
    stub.made_by_somebody(json!({ "properties": { "piece": { "type": "long" }, "words": text } }));
    let mut memory = Memory::default();
    let trouble = search.index_some(&mut memory).await.unwrap_err().to_string();
    for part in ["/prefix/lab-logs-1", "the analyzer of the field words is none, and not whitespace", "delete it"] {
        assert!(trouble.contains(part), "{part}: {trouble}");
    }
    assert_eq!(stub.bulks().len(), 0, "nothing is sent to it");
    assert_eq!(world.store.search.to_index_count().await.unwrap(), 6, "all of it stays queued");
    // It is deleted, as was said.
    stub.empty();
    index_as(&search, &mut memory).await;
    some_answers(&search).await;
}

#[tokio::test]
async fn a_cluster_that_is_slow_keeps_nobody_waiting() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    stub.hang();
    let without = search.search(&question("compiling")).await.unwrap();
    assert_eq!(places(&without), [(1, 1, 1)], "the oldest build is reached in the time that reading has");
    assert!(!without.unfinished && without.trouble.unwrap().contains("in time"));
}

#[tokio::test]
async fn one_search_too_many_is_refused_at_once() {
    let world = World::new().await;
    some_builds(&world).await;
    let stub = Stub::start().await;
    let search = world.search(Some(stub.url()));
    stub.hang();
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..SEARCHES_MAX {
        let search = search.clone();
        under_way.spawn(async move { search.search(&question("error")).await });
    }
    while search.inner.room.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(search.search(&question("error")).await, Err(SearchError::Busy)));
    // Whoever hangs up makes room.
    under_way.shutdown().await;
    stub.empty();
    assert!(found(&search, "error").await.is_empty());
}

#[tokio::test]
async fn the_indexer_finds_by_itself_what_was_queued_before_it_began() {
    let world = World::new().await;
    some_builds(&world).await;
    let search = world.search(None);
    let stop = tokio_util::sync::CancellationToken::new();
    let indexing = tokio::spawn(search.clone().index(stop.clone()));
    while world.store.search.to_index_count().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    some_answers(&search).await;
    stop.cancel();
    indexing.await.unwrap();
}

#[tokio::test]
async fn a_node_of_opensearch_answers_what_the_embedded_index_answers() {
    let Some(node) = Node::start().await else { return };
    let world = World::new().await;
    some_builds(&world).await;
    let search = world.search(Some(node.url()));
    index(&search).await;
    // Else it would take up to a second.
    node.post("leasehold-logs/_refresh", "").await;
    some_answers(&search).await;
    let mapped: serde_json::Value = serde_json::from_str(&node.post("leasehold-logs/_search", "{}").await).unwrap();
    let documents = mapped["hits"]["hits"].as_array().unwrap();
    assert_eq!(documents.len(), 6);
    assert!(documents.iter().all(|document| document["_source"]["words"].is_null()), "words are not kept twice");
    assert!(
        documents
            .iter()
            .any(|document| document["_source"]["text"] == "compiling app\ntest login ... ok\nall passed\n")
    );
    // What is sent again is there once.
    world.store.search.aim("another", false).await.unwrap();
    index(&search).await;
    world.store.logs.delete_logs(&[BuildId(3)]).await.unwrap();
    index(&search).await;
    node.post("leasehold-logs/_refresh", "").await;
    let count: serde_json::Value = serde_json::from_str(&node.post("leasehold-logs/_count", "{}").await).unwrap();
    assert_eq!(count["count"], 4, "both logs of build 3 are gone, and nothing is there twice");
    assert_eq!(found(&search, "login").await, [(1, 1, 2)]);
}
