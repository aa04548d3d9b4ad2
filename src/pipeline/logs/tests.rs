//! What was acknowledged is read again, byte for byte, whatever failed on the way.

mod bucket;
mod world;

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::keeper::Retention;
use super::{AppendError, FinishError, Line, LogId, LogLimits, Logs, Objects, Part};
use crate::builds::build::{Build, BuildId, LogEnd, Phase};
use crate::clock::wall_now_ms;
use crate::pipeline::aside::Aside;
use crate::protocol::log_times::LineTimes;
use crate::store::builds::logs::LogTables as _;
use crate::units::hex;
use world::{Fault, World};

const ID: LogId = LogId { build: BuildId(7), attempt: 1 };
/// Nothing is left out.
const ROOMY: LogLimits = LogLimits { log_bytes: 1_000_000, segment_bytes: 256, pieces_max: 5 };
/// Nearly everything is.
const NARROW: LogLimits = LogLimits { log_bytes: 2_000, segment_bytes: 100, pieces_max: 5 };
/// When the line of this number begins.
const fn moment(number: u64) -> u64 {
    1_000 + number / 3 * 10
}

/// The times of what `bytes` bring, after `before`.
fn times(before: &[u8], bytes: &[u8]) -> LineTimes {
    let begun = begun(before);
    let mut times = LineTimes::starting(moment(begun + 1));
    for number in begun + 1..=begun_with(before, bytes) {
        times.begin_line(moment(number));
    }
    times
}

fn begun(bytes: &[u8]) -> u64 {
    bytes.split_inclusive(|byte| *byte == b'\n').count() as u64
}

fn begun_with(before: &[u8], bytes: &[u8]) -> u64 {
    begun(&[before, bytes].concat())
}

fn end_of(bytes: &[u8]) -> LogEnd {
    LogEnd { bytes: bytes.len() as u64, lines: begun(bytes), sha256: hex(&Sha256::digest(bytes)).into() }
}

/// Appends `source[from..to]`.
async fn append(logs: &Logs, source: &[u8], from: usize, to: usize) -> Result<u64, AppendError> {
    let bytes = &source[from..to];
    let times = times(&source[..from], bytes);
    append_at(logs, ID, from as u64, times, Bytes::copy_from_slice(bytes)).await
}

async fn append_at(logs: &Logs, id: LogId, offset: u64, times: LineTimes, bytes: Bytes) -> Result<u64, AppendError> {
    logs.append(logs.admit(id, offset).await?, times, bytes, Some("key")).await
}

/// All that can be read, with the gap if there is one.
async fn read_all(logs: &Logs) -> Vec<(u64, Part)> {
    let mut parts = Vec::new();
    let mut at = 0;
    loop {
        let part = logs.read(ID, at, 70).await.unwrap();
        let next = match &part {
            Part::Bytes(bytes) if bytes.is_empty() => return parts,
            Part::Bytes(bytes) => at + bytes.len() as u64,
            Part::Gap(gap) => gap.to,
        };
        parts.push((at, part));
        at = next;
    }
}

/// Every line that is kept, in windows of a few.
async fn all_lines(logs: &Logs) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let from = lines.last().map_or(1, |line| line.number + 1);
        let window = logs.lines(ID, from, 7).await.unwrap();
        if window.is_empty() {
            return lines;
        }
        lines.extend(window);
    }
}

/// The same, read through.
async fn all_lines_in_passing(logs: &Logs) -> Vec<Line> {
    let aside = Aside::start("aside").unwrap();
    let mut passage = logs.passage(ID, &aside);
    passage.lines_max = 7;
    let mut lines = Vec::new();
    loop {
        let window = passage.next().await.unwrap();
        if window.is_empty() {
            return lines;
        }
        lines.extend(window);
    }
}

/// Holds what is read against what was sent.
async fn check(logs: &Logs, source: &[u8], limits: LogLimits) {
    let status = logs.status(ID).await.unwrap();
    let stored = &source[..usize::try_from(status.bytes).unwrap()];
    assert_eq!(status.lines, begun(stored));
    let parts = read_all(logs).await;
    let mut at = 0;
    let mut kept = 0;
    for (offset, part) in &parts {
        assert_eq!(*offset, at, "nothing missing, nothing twice");
        match part {
            Part::Bytes(bytes) => {
                let from = usize::try_from(at).unwrap();
                assert_eq!(&**bytes, &stored[from..from + bytes.len()]);
                at += bytes.len() as u64;
                kept += bytes.len() as u64;
            }
            Part::Gap(gap) => {
                assert_eq!(Some(*gap), status.gap);
                at = gap.to;
            }
        }
    }
    assert_eq!(at, status.bytes);
    // The head and the tail are there, up to a segment at each of their ends.
    assert!(kept >= status.bytes.min(limits.log_bytes.saturating_sub(3 * (limits.segment_bytes + 300))), "{kept} kept");
    check_lines(logs, stored).await;
}

async fn check_lines(logs: &Logs, stored: &[u8]) {
    let gap = logs.status(ID).await.unwrap().gap;
    let mut expected = Vec::new();
    let mut offset = 0_u64;
    for (line, number) in stored.split_inclusive(|byte| *byte == b'\n').zip(1..) {
        let ended = line.ends_with(b"\n");
        let bytes = line.strip_suffix(b"\n").unwrap_or(line);
        let here = offset;
        offset += line.len() as u64;
        let mut line = Line {
            number,
            offset: here,
            at_ms: Some(moment(number)),
            bytes: Bytes::copy_from_slice(bytes),
            cut: false,
            ended,
        };
        if let Some(gap) = gap {
            if gap.hides(number) {
                continue;
            }
            if gap.mid_line && number == gap.first_line {
                line.bytes.truncate(usize::try_from(gap.from - here).unwrap());
                (line.cut, line.ended) = (true, true);
            } else {
                assert!(offset <= gap.from || here >= gap.to, "line {number} is whole, and beside {gap:?}");
            }
        }
        expected.push(line);
    }
    assert_eq!(all_lines(logs).await, expected);
    expected.iter_mut().for_each(|line| line.at_ms = None);
    assert_eq!(all_lines_in_passing(logs).await, expected);
}

/// What happens in a random run.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next bytes are sent.
    Send(usize),
    /// Bytes are sent again that were sent before, as if the answer had been lost.
    Again(usize),
    /// The next bytes are sent in two appends side by side.
    Two(usize, usize),
    /// Bytes are sent that are not next.
    Ahead(usize),
    /// Something will go wrong.
    Fault(Fault),
    /// The process is killed.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fault = prop_oneof![
        Just(Fault::WriteBefore),
        Just(Fault::WriteAfter),
        Just(Fault::PutBefore),
        Just(Fault::PutAfter),
        Just(Fault::Delete),
    ];
    let step = prop_oneof![
        8 => (1..60_usize).prop_map(Step::Send),
        3 => (60..300_usize).prop_map(Step::Send),
        3 => (1..200_usize, 1..200_usize).prop_map(|(first, second)| Step::Two(first, second)),
        1 => (1..50_usize).prop_map(Step::Again),
        1 => (1..50_usize).prop_map(Step::Ahead),
        3 => fault.prop_map(Step::Fault),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// Text of lines of every length, of bytes of every kind.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => proptest::collection::vec(prop_oneof![Just(b'\r'), Just(0x1B), Just(0xC2), Just(0x85)], 0..120),
        1 => proptest::collection::vec(Just(b'x'), 100..700),
    ];
    proptest::collection::vec(line, 10..200).prop_map(|lines| lines.join(&b'\n'))
}

async fn play(source: &[u8], steps: &[Step], limits: LogLimits) {
    let world = World::default();
    let mut logs = world.start(limits);
    let mut acknowledged = 0_usize;
    for step in steps {
        match *step {
            Step::Fault(fault) => world.state().fault = Some(fault),
            Step::Restart => logs = world.start(limits),
            Step::Again(back) => {
                let from = acknowledged.saturating_sub(back);
                if let Err(AppendError::Elsewhere(at)) = append(&logs, source, from, acknowledged).await {
                    assert!(at >= acknowledged as u64, "{at} after {acknowledged} were acknowledged");
                }
            }
            Step::Two(first, second) => {
                let middle = source.len().min(acknowledged + first);
                let to = source.len().min(middle + second);
                let both =
                    tokio::join!(append(&logs, source, acknowledged, middle), append(&logs, source, middle, to),);
                for done in <[_; 2]>::from(both) {
                    match done {
                        Ok(at) | Err(AppendError::Elsewhere(at)) => {
                            acknowledged = acknowledged.max(usize::try_from(at).unwrap());
                        }
                        Err(error) => assert!(matches!(error, AppendError::Failed(_)), "{error:?}"),
                    }
                }
            }
            Step::Ahead(more) => {
                let from = (acknowledged + more).min(source.len());
                // Sent without being answered it may be where the log ends by now.
                match append(&logs, source, from, source.len().min(from + 10)).await {
                    Ok(at) => acknowledged = usize::try_from(at).unwrap(),
                    Err(AppendError::Elsewhere(at)) => assert!(at >= acknowledged as u64),
                    Err(error) => assert!(matches!(error, AppendError::Failed(_)), "{error:?}"),
                }
            }
            Step::Send(count) => {
                let to = source.len().min(acknowledged + count);
                match append(&logs, source, acknowledged, to).await {
                    Ok(at) | Err(AppendError::Elsewhere(at)) => acknowledged = usize::try_from(at).unwrap(),
                    Err(AppendError::Failed(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        assert!(logs.status(ID).await.unwrap().bytes >= acknowledged as u64);
    }
    check(&logs, source, limits).await;
    end(&world, logs, source, limits).await;
}

/// Ends a log under whatever fault is still to come, and settles it.
async fn end(world: &World, logs: Logs, source: &[u8], limits: LogLimits) {
    let stored = usize::try_from(logs.status(ID).await.unwrap().bytes).unwrap();
    let told = end_of(&source[..stored]);
    for _ in 0..3 {
        if logs.finish(ID, &told).await.is_ok() {
            break;
        }
    }
    assert_eq!(logs.status(ID).await.unwrap().end, Some(told.clone()));
    assert!(matches!(append(&logs, source, stored, source.len()).await, Err(AppendError::Closed)));
    for _ in 0..3 {
        if logs.settle(ID).await.is_ok() {
            break;
        }
    }
    let logs = world.start(limits);
    check(&logs, &source[..stored], limits).await;
    assert_eq!(world.objects().await, world.named(), "no object is left that nobody names, and none is missing");
    logs.finish(ID, &told).await.unwrap();
    assert!(matches!(
        logs.finish(ID, &LogEnd { bytes: told.bytes + 1, ..told.clone() }).await,
        Err(FinishError::Differs { ours }) if ours == told
    ));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_acknowledged_is_read_again(source in texts(), steps in steps()) {
        runtime().block_on(play(&source, &steps, ROOMY));
    }

    #[test]
    fn head_and_tail_of_a_long_log_are_read_again(source in texts(), steps in steps()) {
        runtime().block_on(play(&source, &steps, NARROW));
    }
}

/// Numbered lines.
fn numbered(lines: u64) -> Vec<u8> {
    (1..=lines).flat_map(|number| format!("line {number} of many\n").into_bytes()).collect()
}

async fn append_all(logs: &Logs, source: &[u8], chunk: usize) {
    let mut at = usize::try_from(logs.status(ID).await.unwrap().bytes).unwrap();
    while at < source.len() {
        let to = source.len().min(at + chunk);
        append(logs, source, at, to).await.unwrap();
        at = to;
    }
}

#[tokio::test]
async fn big_appends_do_not_go_through_the_database() {
    let world = World::default();
    let logs = world.start(LogLimits::of(100_000_000));
    let source = numbered(400_000);
    append_all(&logs, &source, 1_000_000).await;
    append_all(&logs, &source, 1_100_000).await;
    let through = world.state().piece_bytes;
    assert!(through <= 1_000_000, "{through} of {} bytes were rows", source.len());
    let end = end_of(&source);
    logs.finish(ID, &end).await.unwrap();
    let kept = async || world.segments(ID).await.unwrap().iter().map(|segment| segment.stored).sum::<u64>();
    assert!(kept().await >= end.bytes - through, "nobody waited for them to be made smaller");
    logs.settle(ID).await.unwrap();
    assert!(kept().await < end.bytes / 4, "{} bytes are kept for {}", kept().await, end.bytes);
    assert_eq!(world.objects().await, world.named());
    let window = logs.lines(ID, 300_000, 2).await.unwrap();
    assert_eq!(&*window[0].bytes, b"line 300000 of many");
    assert_eq!(window[1].at_ms, Some(moment(300_001)));
}

#[tokio::test]
async fn an_append_that_comes_before_its_turn_waits_for_it() {
    let logs = World::default().start(ROOMY);
    let source = numbered(100);
    append(&logs, &source, 0, 100).await.unwrap();
    let (first, second) = (logs.admit(ID, 100).await.unwrap(), logs.admit(ID, 300).await.unwrap());
    let send = |admitted, from: usize, to: usize| {
        let bytes = Bytes::copy_from_slice(&source[from..to]);
        logs.append(admitted, times(&source[..from], &source[from..to]), bytes, Some("key"))
    };
    let (second, first) = tokio::join!(biased; send(second, 300, 600), async {
        // The other has been begun by now, and cannot end.
        tokio::task::yield_now().await;
        send(first, 100, 300).await
    });
    assert_eq!((first.unwrap(), second.unwrap()), (300, 600));
    // Of one that is given up nobody waits.
    let (given_up, behind) = (logs.admit(ID, 600).await.unwrap(), logs.admit(ID, 700).await.unwrap());
    let (behind, ()) = tokio::join!(biased; send(behind, 700, 800), async {
        tokio::task::yield_now().await;
        drop(given_up);
    });
    assert!(matches!(behind, Err(AppendError::Elsewhere(600))), "{behind:?}");
    check(&logs, &source, ROOMY).await;
}

#[tokio::test]
async fn an_append_that_hangs_holds_nobody_up_once_its_bytes_have_come_another_way() {
    let logs = World::default().start(ROOMY);
    let source = numbered(100);
    append(&logs, &source, 0, 100).await.unwrap();
    // Its sender is gone without a word, and has sent it once more.
    let _hangs = logs.admit(ID, 100).await.unwrap();
    append(&logs, &source, 100, 300).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(60), append(&logs, &source, 300, 600)).await;
    assert_eq!(next.expect("it does not wait for the one that hangs").unwrap(), 600);
    check(&logs, &source, ROOMY).await;
}

#[tokio::test]
async fn a_log_whose_folder_is_away_is_made_small_when_that_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("logs"), folder.path().join("away"));
    let world = World::default();
    let logs = world.start_in(Objects::folder(&path).unwrap(), ROOMY);
    let source = numbered(1_000);
    append_all(&logs, &source, 200).await;
    logs.close(ID).await.unwrap();
    let kept = async || world.segments(ID).await.unwrap().iter().map(|segment| segment.stored).sum::<u64>();
    let before = kept().await;
    std::fs::rename(&path, &away).unwrap();
    assert!(logs.settle(ID).await.is_err());
    assert_eq!(kept().await, before);
    std::fs::rename(&away, &path).unwrap();
    logs.settle(ID).await.unwrap();
    assert!(kept().await < before);
    check(&logs, &source, ROOMY).await;
}

#[tokio::test]
async fn the_objects_alone_are_the_log() {
    let world = World::default();
    let logs = world.start(ROOMY);
    let source = numbered(100);
    append_all(&logs, &source, 90).await;
    logs.close(ID).await.unwrap();
    logs.settle(ID).await.unwrap();
    let mut found = Vec::new();
    for name in world.objects().await {
        found.extend(zstd::decode_all(&*world.object(&name).await).unwrap());
    }
    assert_eq!(found, source);
}

#[tokio::test]
async fn the_gap_is_stated_with_its_bytes_and_lines() {
    let world = World::default();
    let logs = world.start(NARROW);
    let source = numbered(1_000);
    append_all(&logs, &source, 50).await;
    let gap = logs.status(ID).await.unwrap().gap.unwrap();
    let text = |from: u64, to: u64| &source[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
    assert_eq!(begun(text(0, gap.from)) + 1, gap.first_line);
    assert_eq!(begun(text(gap.from, gap.to)), gap.lines);
    assert!(text(0, gap.from).ends_with(b"\n") && text(gap.from, gap.to).ends_with(b"\n"));
    assert!((150..300).contains(&gap.from), "the head is a tenth: {gap:?}");
    assert!((1_800..2_200).contains(&(source.len() as u64 - gap.to)), "the tail is the rest: {gap:?}");
    let across = logs.lines(ID, gap.first_line - 1, 2).await.unwrap();
    let numbers: Vec<u64> = across.iter().map(|line| line.number).collect();
    assert_eq!(numbers, [gap.first_line - 1, gap.first_line + gap.lines]);
}

#[tokio::test]
async fn times_that_are_not_of_the_bytes_are_refused() {
    let logs = World::default().start(ROOMY);
    for (times, bytes) in [("5;", "a"), ("5;2+0", "a"), ("5;1+0", "a\nb"), ("5;1+0", ""), ("5;3+0", "a\nb\n")] {
        let times = LineTimes::parse(times.as_bytes()).unwrap();
        let refused = append_at(&logs, ID, 0, times, Bytes::from_static(bytes.as_bytes())).await;
        assert!(matches!(refused, Err(AppendError::Malformed(_))), "{bytes:?}: {refused:?}");
    }
    assert_eq!(logs.status(ID).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn an_end_that_was_not_sent_whole_is_waited_for() {
    let logs = World::default().start(ROOMY);
    let source = numbered(10);
    append(&logs, &source, 0, 30).await.unwrap();
    let short = logs.finish(ID, &end_of(&source)).await;
    assert!(matches!(short, Err(FinishError::Short { stored: 30, .. })), "{short:?}");
    append_all(&logs, &source, 30).await;
    logs.finish(ID, &end_of(&source)).await.unwrap();
}

#[tokio::test]
async fn followers_hear_of_each_append_and_of_the_end() {
    let world = World::default();
    let logs = world.start(ROOMY);
    let mut before = logs.changed(ID).await.unwrap();
    assert_eq!(before.status().bytes, 0);
    let source = numbered(3);
    append(&logs, &source, 0, 10).await.unwrap();
    before.news().await;
    assert_eq!(before.status().bytes, 10);
    let mut during = logs.changed(ID).await.unwrap();
    assert_eq!(during.status().bytes, 10);
    append_all(&logs, &source, 100).await;
    logs.finish(ID, &end_of(&source)).await.unwrap();
    for follower in [&mut before, &mut during] {
        follower.news().await;
        assert_eq!(follower.status().end, Some(end_of(&source)));
    }
    let mut after = world.start(ROOMY).changed(ID).await.unwrap();
    assert!(!after.status().more());
}

#[tokio::test]
async fn followers_of_a_log_that_never_begins_are_let_go() {
    let logs = World::default().start(ROOMY);
    let mut follower = logs.changed(ID).await.unwrap();
    assert!(follower.status().more());
    logs.over(ID).await.unwrap();
    follower.news().await;
    assert!(follower.status().never && !follower.status().more());
    // It comes after all: late chunks of an agent that was given up.
    append(&logs, b"late\n", 0, 5).await.unwrap();
    follower.news().await;
    assert_eq!((follower.status().bytes, follower.status().more()), (5, true));
}

#[tokio::test]
async fn deleted_logs_leave_nothing() {
    let world = World::default();
    let logs = world.start(ROOMY);
    let source = numbered(100);
    append_all(&logs, &source, 90).await;
    let mut follower = logs.changed(ID).await.unwrap();
    follower.status();
    world.state().fault = Some(Fault::Delete);
    assert!(logs.delete(&[ID.build]).await.is_err());
    logs.delete(&[ID.build]).await.unwrap();
    assert_eq!(world.objects().await, Vec::<String>::new());
    assert_eq!(logs.of_build(ID.build).await.unwrap(), []);
    follower.news().await;
    assert!(!follower.status().more());
}

/// A build that ended so long ago.
fn build(id: u64, phase: Phase, ended_ms_ago: i64) -> Build {
    let ended_ms = phase.is_final().then(|| wall_now_ms() - ended_ms_ago);
    serde_json::from_value(json!({
        "id": id, "repository": "acme/app", "by": "ann", "phase": phase, "attempt": 1, "reported": false,
        "subject": { "line": { "branch": "main" }, "sha": "a".repeat(40), "git_ref": "refs/heads/main", "fork": false },
        "cause": { "cause": "asked" },
        "plan": {
            "name": "ci", "needs": [], "agent": "", "steps": [], "container": null, "env": {}, "secrets": [],
            "timeout_ms": 1, "wait_ms": null, "grace_ms": 1, "priority": 0, "concurrency": "queue", "retries": 0,
        },
        "times": { "created_ms": 1, "queued_ms": null, "prepared_ms": null, "begun_ms": null, "ended_ms": ended_ms },
    }))
    .unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_ends_is_closed_a_while_after_its_build() {
    let world = World::default();
    let logs = world.start(ROOMY);
    let source = numbered(20);
    append_all(&logs, &source, 50).await;
    for (phase, ended_ms_ago, closed) in
        [(Phase::Running, 0, false), (Phase::Lost, 9 * 60_000, false), (Phase::Lost, 11 * 60_000, true)]
    {
        world.state().builds.insert(ID.build, build(7, phase, ended_ms_ago));
        logs.look_after().await;
        assert_eq!(logs.status(ID).await.unwrap().end.is_some(), closed, "{phase}, {ended_ms_ago} ms ago");
    }
    assert_eq!(logs.status(ID).await.unwrap().end, Some(end_of(&source)));
    assert_eq!(world.objects().await, world.named(), "and all of it is sealed");
    check(&logs, &source, ROOMY).await;
}

#[tokio::test]
async fn a_log_is_settled_as_soon_as_it_has_ended_and_else_at_the_next_start() {
    let world = World::default();
    let source = numbered(20);
    let settled = async || loop {
        let left = world.unsettled_logs(LogId { build: BuildId(0), attempt: 0 }, 9).await.unwrap();
        if left.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    };
    let logs = world.start(ROOMY);
    append_all(&logs, &source, 50).await;
    logs.finish(ID, &end_of(&source)).await.unwrap();
    // Killed before anything else.
    drop(logs);
    let logs = world.start(ROOMY);
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(logs.clone().keep(Retention::default(), stop.clone()));
    settled().await;
    assert_eq!(world.objects().await, world.named());
    let other = LogId { attempt: 2, ..ID };
    world.state().builds.insert(ID.build, build(7, Phase::Running, 0));
    append_at(&logs, other, 0, LineTimes::parse(b"5;1+0").unwrap(), Bytes::from_static(b"x\n")).await.unwrap();
    logs.close(other).await.unwrap();
    settled().await;
    stop.cancel();
    keeping.await.unwrap();
}

#[tokio::test]
async fn old_builds_go_with_their_logs_but_for_the_newest() {
    let world = World::default();
    let logs = world.start(ROOMY);
    let day_ms = 86_400_000;
    for (id, days) in [(1, 40), (2, 35), (3, 33), (4, 1)] {
        world.state().builds.insert(BuildId(id), build(id, Phase::Passed, days * day_ms));
        let log = LogId { build: BuildId(id), attempt: 1 };
        for offset in [0, 100] {
            let times = LineTimes::parse(if offset == 0 { b"5;1+0" } else { b"5;" }).unwrap();
            append_at(&logs, log, offset, times, Bytes::from(vec![b'x'; 100])).await.unwrap();
        }
        logs.close(log).await.unwrap();
    }
    let retention = Retention { builds: 2, ..Retention::default() };
    // What cannot be deleted now is the next time.
    world.state().fault = Some(Fault::Delete);
    assert!(logs.forget_old(retention, wall_now_ms()).await.is_err());
    assert_eq!(world.state().builds.len(), 4, "a build stays as long as it has a log");
    logs.forget_old(retention, wall_now_ms()).await.unwrap();
    let left: Vec<u64> = world.state().builds.keys().map(|id| id.0).collect();
    assert_eq!(left, [3, 4]);
    assert_eq!(world.objects().await, world.named());
    assert_eq!(logs.of_build(BuildId(1)).await.unwrap(), []);
}
