//! What the tables of logs must do, as tests over any store.

use super::{LogRecord, LogTables, LogWrite, Piece, Segment};
use crate::builds::build::{BuildId, LogEnd};
use crate::builds::log::{Gap, LogId};
use crate::store::builds::Opened;
use crate::store::builds::contract::Factory;

async fn opened(factory: &impl Factory) -> Opened {
    let opened = factory.open().await.unwrap();
    opened.builds.take_over(0).await.unwrap();
    opened
}

const fn id(build: u64, attempt: u32) -> LogId {
    LogId { build: BuildId(build), attempt }
}

const ID: LogId = id(3, 2);

fn record(revision: u64) -> LogRecord {
    LogRecord {
        revision,
        bytes: 1 << 52,
        lines: 9,
        open_line: true,
        hash: "00ff".to_owned(),
        folder: "3/2-ab".into(),
        gap: Some(Gap { from: 1, to: 5, first_line: 2, lines: 7, mid_line: true }),
        end: Some(LogEnd { bytes: 4, lines: 2, sha256: "aa".into() }),
        settled: false,
        changed_ms: -1,
        key_hash: Some("ff".into()),
    }
}

/// A piece of two bytes, with a line in it where told.
fn piece(offset: u64, first_line: u64, lines: u64) -> Piece {
    Piece { offset, first_line, lines, times: b"5;1+0".to_vec(), bytes: vec![0, 0xFF] }
}

fn segment(offset: u64, first_line: u64, lines: u64) -> Segment {
    let end = offset + 10;
    Segment {
        offset,
        length: 10,
        first_line,
        lines,
        first_start: offset,
        last_start: end,
        whole: true,
        object: format!("3/2-ab/{offset}").into(),
        stored: 7,
    }
}

fn write(id: LogId, record: &LogRecord) -> LogWrite<'_> {
    LogWrite { id, record, piece: None, segment: None, pieces_go: false, segments_go: &[] }
}

async fn put(tables: &dyn LogTables, write: LogWrite<'_>) {
    assert!(tables.write_log(&write).await.unwrap());
}

/// What was written is read again, from the same store and when opened again.
pub async fn rows_come_back_as_they_were(factory: &impl Factory) {
    let store = opened(factory).await;
    let tables = &*store.logs;
    assert_eq!(tables.log(ID).await.unwrap(), None);
    let first = piece(0, 1, 1);
    put(tables, LogWrite { piece: Some(&first), ..write(ID, &record(1)) }).await;
    let sealed = segment(0, 1, 3);
    put(tables, LogWrite { segment: Some(&sealed), pieces_go: true, ..write(ID, &record(2)) }).await;
    let second = piece(10, 4, 0);
    put(tables, LogWrite { piece: Some(&second), ..write(ID, &record(3)) }).await;
    drop(store);
    let store = opened(factory).await;
    let tables = &*store.logs;
    assert_eq!(tables.log(ID).await.unwrap(), Some(record(3)));
    assert_eq!(tables.segments(ID).await.unwrap(), [sealed]);
    assert_eq!(tables.pieces_at(ID, 0).await.unwrap(), [second]);
    assert_eq!(tables.log(id(3, 1)).await.unwrap(), None);
    assert_eq!(tables.pieces_at(id(3, 1), 0).await.unwrap(), []);
}

/// A writer that missed something writes nothing.
pub async fn a_write_that_passed_another_is_refused(factory: &impl Factory) {
    let store = opened(factory).await;
    let tables = &*store.logs;
    let lost = piece(0, 1, 1);
    assert!(!tables.write_log(&LogWrite { piece: Some(&lost), ..write(ID, &record(2)) }).await.unwrap());
    put(tables, write(ID, &record(1))).await;
    for revision in [1, 3] {
        let again = record(revision);
        assert!(!tables.write_log(&LogWrite { piece: Some(&lost), ..write(ID, &again) }).await.unwrap());
    }
    put(tables, write(ID, &record(2))).await;
    assert_eq!(tables.log(ID).await.unwrap(), Some(record(2)));
    assert_eq!(tables.pieces_at(ID, 0).await.unwrap(), []);
}

/// A write is there whole or not at all.
pub async fn a_failed_write_leaves_nothing(factory: &impl Factory) {
    let store = opened(factory).await;
    let tables = &*store.logs;
    let sealed = segment(0, 1, 3);
    put(tables, LogWrite { segment: Some(&sealed), ..write(ID, &record(1)) }).await;
    let next = piece(10, 4, 1);
    let second = record(2);
    let twice = LogWrite { segment: Some(&sealed), piece: Some(&next), ..write(ID, &second) };
    assert!(tables.write_log(&twice).await.is_err(), "a segment is there already");
    store.builds.take_over(0).await.unwrap();
    assert_eq!(tables.log(ID).await.unwrap(), Some(record(1)));
    assert_eq!(tables.pieces_at(ID, 0).await.unwrap(), []);
    put(tables, write(ID, &record(2))).await;
}

/// Parts are found by byte and by line, the last that begins there or before.
pub async fn parts_are_found_by_byte_and_line(factory: &impl Factory) {
    let store = opened(factory).await;
    let tables = &*store.logs;
    // A line goes all through the segment at 20, and begins in neither of the two after it.
    let segments = [segment(0, 1, 3), segment(10, 4, 2), segment(20, 6, 0), segment(30, 6, 1)];
    let pieces = [piece(40, 7, 1), piece(42, 8, 0), piece(44, 8, 2)];
    let mut revision = 0;
    for segment in &segments {
        revision += 1;
        put(tables, LogWrite { segment: Some(segment), ..write(ID, &record(revision)) }).await;
    }
    for piece in &pieces {
        revision += 1;
        put(tables, LogWrite { piece: Some(piece), ..write(ID, &record(revision)) }).await;
    }
    for (byte, expected) in [(0, 0), (9, 0), (10, 10), (39, 30), (4_000, 30)] {
        assert_eq!(tables.segment_at(ID, byte).await.unwrap().unwrap().offset, expected, "byte {byte}");
    }
    for (line, expected) in [(1, 0), (3, 0), (4, 10), (5, 10), (6, 30), (70, 30)] {
        assert_eq!(tables.segment_of_line(ID, line).await.unwrap().unwrap().offset, expected, "line {line}");
    }
    assert_eq!(tables.segment_of_line(ID, 0).await.unwrap(), None);
    for (byte, expected) in [(0, 0), (40, 0), (41, 0), (42, 1), (44, 2), (99, 2)] {
        assert_eq!(tables.pieces_at(ID, byte).await.unwrap(), pieces[expected..], "byte {byte}");
    }
    for (line, expected) in [(1, 0), (7, 0), (8, 2), (9, 2)] {
        assert_eq!(tables.pieces_of_line(ID, line).await.unwrap(), pieces[expected..], "line {line}");
    }
    put(tables, LogWrite { segments_go: &[10, 20], ..write(ID, &record(revision + 1)) }).await;
    assert_eq!(tables.segments(ID).await.unwrap(), [segments[0].clone(), segments[3].clone()]);
    let smaller = Segment { object: "3/2-ab/smaller".into(), stored: 3, ..segments[0].clone() };
    let after = record(revision + 2);
    put(tables, LogWrite { segment: Some(&smaller), segments_go: &[0], ..write(ID, &after) }).await;
    assert_eq!(tables.segments(ID).await.unwrap(), [smaller, segments[3].clone()]);
}

/// Logs that are not settled are listed in order, a page at a time.
pub async fn unsettled_logs_are_listed(factory: &impl Factory) {
    let store = opened(factory).await;
    let tables = &*store.logs;
    for at in [id(1, 1), id(1, 2), id(2, 1), id(10, 1)] {
        put(tables, write(at, &record(1))).await;
    }
    put(tables, write(id(2, 1), &LogRecord { settled: true, ..record(2) })).await;
    let listed = |found: Vec<(LogId, LogRecord)>| found.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let found = tables.unsettled_logs(id(0, 0), 2).await.unwrap();
    assert_eq!(found, [(id(1, 1), record(1)), (id(1, 2), record(1))]);
    assert_eq!(listed(tables.unsettled_logs(id(1, 1), 9).await.unwrap()), [id(1, 2), id(10, 1)]);
    assert_eq!(listed(tables.unsettled_logs(id(10, 1), 9).await.unwrap()), []);
}

/// Logs are found and deleted by their builds, with all their parts.
pub async fn logs_go_with_their_builds(factory: &impl Factory) {
    let store = opened(factory).await;
    let tables = &*store.logs;
    for at in [id(1, 1), id(1, 2), id(2, 1)] {
        let (piece, segment) = (piece(10, 4, 1), segment(0, 1, 3));
        put(tables, LogWrite { piece: Some(&piece), segment: Some(&segment), ..write(at, &record(1)) }).await;
    }
    let found = tables.logs_of(&[BuildId(1), BuildId(7)]).await.unwrap();
    assert_eq!(found, [(id(1, 1), record(1)), (id(1, 2), record(1))]);
    assert_eq!(tables.logs_of(&[]).await.unwrap(), []);
    tables.delete_logs(&[]).await.unwrap();
    tables.delete_logs(&[BuildId(1), BuildId(7)]).await.unwrap();
    assert_eq!(tables.logs_of(&[BuildId(1), BuildId(2)]).await.unwrap(), [(id(2, 1), record(1))]);
    assert_eq!(tables.segments(id(1, 2)).await.unwrap(), []);
    assert_eq!(tables.pieces_at(id(1, 2), 0).await.unwrap(), []);
    assert_eq!(tables.pieces_at(id(2, 1), 0).await.unwrap(), [piece(10, 4, 1)]);
}

macro_rules! contract {
    ($factory:expr) => {
        crate::store::builds::logs::contract::contract! { $factory =>
            rows_come_back_as_they_were,
            a_write_that_passed_another_is_refused,
            a_failed_write_leaves_nothing,
            parts_are_found_by_byte_and_line,
            unsettled_logs_are_listed,
            logs_go_with_their_builds,
        }
    };
    ($factory:expr => $($promise:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $promise() {
                if let Some(factory) = $factory {
                    crate::store::builds::logs::contract::$promise(&factory).await;
                }
            }
        )+
    };
}
pub(in crate::store::builds) use contract;
