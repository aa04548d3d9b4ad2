//! Tests of the routes of logs, against a real engine and real stores, over real TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::builds::build::{Build, BuildId, LogEnd, Phase};
use crate::builds::change::Change;
use crate::builds::log::LogId;
use crate::core::limits::Limits as CoreLimits;
use crate::engine::input::secret_hash;
use crate::engine::machine::Options;
use crate::pipeline::logs::{LogLimits, Logs, Objects};
use crate::server::front::{Front, Process};
use crate::server::http::router;
use crate::server::limits::Limits;
use crate::server::listen::listen;
use crate::server::shared::{App, Inventory, Shared};
use crate::store::Store;
use crate::store::builds::BuildStore;
use crate::store::sqlite::Sqlite;

const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const ID: LogId = LogId { build: BuildId(1), attempt: 1 };
/// Its SHA-256 is that of what [`TEXT`] is.
const TEXT: &str = "one\ntwo\nthree\n";
const SHA256: &str = "b6285c57e8797db5d4c51c80d6f11938afda9b11c6a003549709189e9b4b92a2";

struct Lab {
    address: SocketAddr,
    shared: Arc<Shared>,
    builds: Arc<dyn BuildStore>,
    logs: Logs,
    _folder: tempfile::TempDir,
}

struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header's value.
    fn has(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

fn build(phase: Phase) -> Build {
    let ended_ms = if phase.is_final() { json!(2) } else { Value::Null };
    serde_json::from_value(json!({
        "id": 1, "repository": "acme/app", "by": "ann", "phase": phase, "attempt": 1,
        "subject": { "line": { "pull": 7 }, "sha": "a".repeat(40), "git_ref": "refs/pull/7/head", "fork": false },
        "cause": { "cause": "asked" },
        "plan": {
            "name": "ci", "needs": [], "agent": "", "steps": [], "container": null, "env": {}, "secrets": [],
            "timeout_ms": 1, "wait_ms": null, "grace_ms": 1, "priority": 0, "concurrency": "queue", "retries": 0,
        },
        "key_hash": secret_hash(KEY).0, "reported": false,
        "times": { "created_ms": 1, "queued_ms": 1, "prepared_ms": 1, "begun_ms": 1, "ended_ms": ended_ms },
    }))
    .unwrap()
}

impl Lab {
    async fn start(limits: LogLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(folder.path().join("lab.db")).await.unwrap();
        let reader = store.reader();
        let opened = store.builds().open().await.unwrap();
        opened.builds.take_over(0).await.unwrap();
        let options = Options { limits: CoreLimits::default(), restart_grace_ms: 300_000 };
        let (handle, _) = crate::engine::start(store, options, 0).await.unwrap();
        handle.accepting().await.unwrap();
        let objects = Objects::folder(&folder.path().join("logs")).unwrap();
        let logs = Logs::new(opened.logs, opened.builds.clone(), objects, limits);
        let (_, error) = watch::channel(None);
        let process = Arc::new(Process::new(Limits::default(), false, "sqlite:lab.db".into(), None));
        let shared = Shared::new(process.clone(), handle, Inventory { file: None, error });
        let shared = Arc::new(shared.with_logs(logs.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = router(App { shared: shared.clone(), reader });
        tokio::spawn(listen(listener, Arc::new(Front::new(process, routes))));
        let lab = Self { address, shared, builds: opened.builds, logs, _folder: folder };
        lab.becomes(Phase::Running).await;
        lab
    }

    async fn roomy() -> Self {
        Self::start(LogLimits { log_bytes: 1_000_000, segment_bytes: 64, pieces_max: 8 }).await
    }

    async fn becomes(&self, phase: Phase) {
        self.builds.commit(&[Change::Build(Arc::new(build(phase)))]).await.unwrap();
    }

    async fn send(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut head = format!("{request} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refusal may come before all of it was read.
        let _ = stream.write_all(body).await;
        stream
    }

    async fn ask(&self, request: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
        let mut stream = self.send(request, headers, body).await;
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        let at = response.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(response[..at].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = response[at + 4..].to_vec();
        let body = if head.contains("transfer-encoding: chunked") { joined(&body).0 } else { body };
        Got { status, head, body }
    }

    async fn get(&self, path: &str) -> Got {
        self.ask(&format!("GET {path}"), &[], b"").await
    }

    async fn append(&self, offset: usize, times: &str, bytes: &[u8]) -> Got {
        let body = [times.as_bytes(), b"\n", bytes].concat();
        self.ask(&format!("PATCH /v1/builds/1/log?attempt=1&offset={offset}"), &[("leasehold-key", KEY)], &body).await
    }

    async fn finish(&self, bytes: usize, lines: u64, sha256: &str) {
        let end = LogEnd { bytes: bytes as u64, lines, sha256: sha256.into() };
        self.logs.finish(ID, &end).await.unwrap();
    }
}

/// The content of chunks, and the trailers.
fn joined(mut chunked: &[u8]) -> (Vec<u8>, String) {
    let mut content = Vec::new();
    loop {
        let end = chunked.windows(2).position(|two| two == b"\r\n").expect("a chunk's head");
        let length = usize::from_str_radix(std::str::from_utf8(&chunked[..end]).unwrap(), 16).unwrap();
        chunked = &chunked[end + 2..];
        if length == 0 {
            return (content, String::from_utf8(chunked.to_vec()).unwrap());
        }
        content.extend_from_slice(&chunked[..length]);
        chunked = &chunked[length + 2..];
    }
}

/// Reads until this has come.
async fn until(stream: &mut TcpStream, got: &mut Vec<u8>, text: &str) {
    while !got.windows(text.len()).any(|part| part == text.as_bytes()) {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "it ended before {text:?}: {}", String::from_utf8_lossy(got));
        got.extend_from_slice(&buffer[..count]);
    }
}

#[tokio::test]
async fn appends_are_answered_with_where_the_log_ends() {
    let lab = Lab::roomy().await;
    let got = lab.append(0, "5;1+0", b"one").await;
    assert_eq!((got.status, got.json()), (200, json!({ "bytes": 3 })));
    for offset in [0, 2, 4, 1 << 40] {
        let got = lab.append(offset, "5;1+0", b"again").await;
        assert_eq!((got.status, got.json()), (409, json!({ "bytes": 3 })), "offset {offset}");
    }
    let got = lab.append(3, "6;2+1", b"\ntwo\nthree\n").await;
    assert_eq!((got.status, got.json()), (200, json!({ "bytes": 14 })));
    assert_eq!(lab.get("/builds/1/log").await.text(), TEXT);
    lab.finish(14, 3, SHA256).await;
    let got = lab.append(14, "6;1+1", b"more").await;
    assert_eq!((got.status, &got.json()["code"]), (410, &json!("log_closed")));
}

#[tokio::test]
async fn what_is_no_append_is_refused() {
    let lab = Lab::roomy().await;
    for (times, bytes) in [("", &b"x"[..]), ("5;", b"x"), ("5;1+0,", b"x"), ("nonsense", b""), ("5;2+0", b"x\n")] {
        let got = lab.append(0, times, bytes).await;
        assert_eq!(got.status, 400, "{times:?}: {}", got.text());
    }
    let none = lab.ask("PATCH /v1/builds/1/log?attempt=1&offset=0", &[("leasehold-key", KEY)], b"no line feed").await;
    assert_eq!(none.status, 400);
    let long = lab.append(0, "5;1+0", &vec![b'x'; 1024 * 1024 + 1]).await;
    assert_eq!(long.status, 400, "{}", long.text());
    let longer = lab.append(0, "5;1+0", &vec![b'x'; 2 * 1024 * 1024]).await;
    assert_eq!(longer.status, 413);
    let wrong = lab.ask("PATCH /v1/builds/1/log?attempt=1", &[("leasehold-key", KEY)], b"").await;
    assert_eq!(wrong.status, 400, "an offset is needed");
    assert_eq!(lab.logs.status(ID).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn only_who_took_the_attempt_appends_to_its_log() {
    let lab = Lab::roomy().await;
    let other = "ff".repeat(32);
    let to = |build: u32, attempt: u32| format!("PATCH /v1/builds/{build}/log?attempt={attempt}&offset=0");
    for (request, key, status) in [
        (to(1, 1), Some(&*other), 403),
        (to(1, 1), None, 403),
        (to(1, 2), Some(KEY), 403),
        (to(9, 1), Some(KEY), 403),
        (to(1, 1), Some(KEY), 200),
        // Known by the log itself from now on.
        (to(1, 1), Some(&*other), 403),
    ] {
        let headers: Vec<_> = key.map(|key| ("leasehold-key", key)).into_iter().collect();
        let got = lab.ask(&request, &headers, b"5;1+0\nx").await;
        assert_eq!(got.status, status, "{request}: {}", got.text());
    }
    lab.becomes(Phase::Lost).await;
    let late = lab.append(1, "5;", b"late").await;
    assert_eq!(late.status, 200, "an agent that was given up sends its last lines");
}

#[tokio::test]
async fn one_url_has_the_log_while_it_grows_and_when_it_is_over() {
    let lab = Lab::roomy().await;
    let got = lab.get("/builds/1/log").await;
    assert_eq!((got.status, got.text(), got.has("leasehold-log-more")), (200, "", Some("yes")));
    lab.append(0, "5;3+0", TEXT.as_bytes()).await;
    let got = lab.get("/builds/1/log").await;
    assert_eq!((got.status, got.text()), (200, TEXT));
    assert_eq!(got.has("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(got.has("x-content-type-options"), Some("nosniff"));
    assert_eq!(got.has("leasehold-log-bytes"), Some("14"));
    assert_eq!((got.has("leasehold-log-more"), got.has("content-length")), (Some("yes"), None));
    lab.finish(14, 3, SHA256).await;
    let got = lab.get("/builds/1/log?attempt=1").await;
    assert_eq!((got.status, got.text(), got.has("content-length")), (200, TEXT, Some("14")));
    assert_eq!((got.has("leasehold-log-more"), got.has("leasehold-log-lines")), (Some("no"), Some("3")));
    assert_eq!(got.has("leasehold-log-sha256"), Some(SHA256));
    let head = lab.ask("HEAD /builds/1/log", &[], b"").await;
    assert_eq!((head.status, head.text(), head.has("content-length")), (200, "", Some("14")));
    for path in ["/builds/2/log", "/builds/1/log?attempt=2", "/builds/1/log?attempt=0", "/v1/builds/2/lines"] {
        assert_eq!(lab.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn any_part_of_it_can_be_had() {
    let lab = Lab::roomy().await;
    lab.append(0, "5;3+0", TEXT.as_bytes()).await;
    for (range, status, expected, of) in [
        ("bytes=0-2", 206, "one", Some("bytes 0-2/*")),
        ("bytes=4-", 206, "two\nthree\n", Some("bytes 4-13/*")),
        ("bytes=-6", 206, "three\n", Some("bytes 8-13/*")),
        ("bytes=8-99", 206, "three\n", Some("bytes 8-13/*")),
        ("bytes=0-0,2-3", 200, TEXT, None),
        ("lines=1-2", 200, TEXT, None),
        ("bytes=5-4", 200, TEXT, None),
    ] {
        let got = lab.ask("GET /builds/1/log", &[("range", range)], b"").await;
        assert_eq!((got.status, got.text(), got.has("content-range")), (status, expected, of), "{range}");
    }
    assert_eq!(lab.get("/builds/1/log?offset=4").await.text(), "two\nthree\n");
    assert_eq!(lab.get("/builds/1/log?offset=14").await.text(), "");
    assert_eq!(lab.get("/builds/1/log?offset=15").await.status, 416);
    lab.finish(14, 3, SHA256).await;
    let got = lab.ask("GET /builds/1/log", &[("range", "bytes=0-2")], b"").await;
    assert_eq!((got.text(), got.has("content-range")), ("one", Some("bytes 0-2/14")));
    let got = lab.ask("GET /builds/1/log", &[("range", "bytes=14-")], b"").await;
    assert_eq!((got.status, got.has("content-range")), (416, Some("bytes */14")));
}

#[tokio::test]
async fn a_line_stands_for_what_is_not_kept() {
    let lab = Lab::start(LogLimits { log_bytes: 200, segment_bytes: 20, pieces_max: 8 }).await;
    for number in 0..100_usize {
        let got = lab.append(number * 10, "5;1+0", format!("line {number:04}\n").as_bytes()).await;
        assert_eq!(got.status, 200, "{}", got.text());
    }
    let gap = lab.logs.status(ID).await.unwrap().gap.unwrap();
    let whole = lab.get("/builds/1/log").await;
    let (head, rest) = whole.text().split_once("[leasehold: ").unwrap();
    let (marker, tail) = rest.split_once("]\n").unwrap();
    assert_eq!(head.len() as u64, gap.from);
    let (bytes, lines, to) = (gap.to - gap.from, gap.lines, gap.to);
    assert_eq!(marker, format!("{bytes} bytes, {lines} lines are not kept; the log goes on at byte {to}"));
    assert!(head.ends_with('\n') && tail.starts_with(&format!("line {:04}\n", gap.to / 10)));
    assert!(tail.ends_with("line 0099\n"));
    let in_it = lab.get(&format!("/builds/1/log?offset={}", gap.from + 1)).await;
    assert_eq!(in_it.status, 416);
    assert!(in_it.text().contains(&format!("go on from offset {to}")), "{}", in_it.text());
    assert_eq!(in_it.has("leasehold-log-gap"), Some(&*format!("{}-{to}", gap.from)));
    assert_eq!(lab.get(&format!("/builds/1/log?offset={to}")).await.text(), tail);
    // The answer to a range is one piece, and ends before the gap.
    let range = lab.ask("GET /builds/1/log", &[("range", "bytes=0-999")], b"").await;
    assert_eq!((range.status, range.text()), (206, head));
    lab.logs.close(ID).await.unwrap();
    let whole = lab.get("/builds/1/log").await;
    assert_eq!(whole.has("content-length"), Some(&*whole.body.len().to_string()));
    let lines = lab.get("/v1/builds/1/lines?count=2").await.json();
    assert_eq!((&lines["gap"]["to"], &lines["items"][1]["text"]), (&json!(to), &json!("line 0099")));
}

#[tokio::test]
async fn a_follower_sees_all_of_it_whenever_it_begins() {
    let lab = Lab::roomy().await;
    let follow = "GET /builds/1/log?follow=1";
    let mut before = lab.send(follow, &[("te", "trailers")], b"").await;
    let mut from_before = Vec::new();
    until(&mut before, &mut from_before, "\r\n\r\n").await;
    lab.append(0, "5;1+0", b"one\n").await;
    until(&mut before, &mut from_before, "one\n").await;
    let mut during = lab.send(follow, &[("te", "trailers")], b"").await;
    let mut from_during = Vec::new();
    until(&mut during, &mut from_during, "one\n").await;
    lab.append(4, "5;2+0", b"two\nthree\n").await;
    until(&mut before, &mut from_before, "three\n").await;
    let mut at_its_end = lab.send("GET /builds/1/log?follow=1&offset=14", &[("te", "trailers")], b"").await;
    let mut from_its_end = Vec::new();
    until(&mut at_its_end, &mut from_its_end, "\r\n\r\n").await;
    lab.finish(14, 3, SHA256).await;
    let mut after = lab.send(follow, &[("te", "trailers")], b"").await;
    let mut from_after = Vec::new();
    for (stream, got, text) in [
        (&mut before, &mut from_before, TEXT),
        (&mut during, &mut from_during, TEXT),
        (&mut at_its_end, &mut from_its_end, ""),
        (&mut after, &mut from_after, TEXT),
    ] {
        stream.read_to_end(got).await.unwrap();
        let head = got.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let (content, trailers) = joined(&got[head + 4..]);
        assert_eq!(String::from_utf8(content).unwrap(), text);
        assert!(trailers.contains(&format!("leasehold-log-sha256: {SHA256}")), "{trailers}");
        assert!(trailers.contains("leasehold-log-more: no"), "{trailers}");
    }
}

#[tokio::test]
async fn a_follower_is_cut_off_and_not_told_an_end_when_the_broker_stops() {
    let lab = Lab::roomy().await;
    lab.append(0, "5;1+0", b"one\n").await;
    let mut follower = lab.send("GET /builds/1/log?follow=1", &[], b"").await;
    let mut got = Vec::new();
    until(&mut follower, &mut got, "one\n").await;
    lab.shared.closing.cancel();
    let _ = follower.read_to_end(&mut got).await;
    assert!(!got.ends_with(b"0\r\n\r\n"), "no last chunk: it has not seen the end");
}

#[tokio::test]
async fn nothing_is_waited_for_where_nothing_will_come() {
    let lab = Lab::roomy().await;
    lab.becomes(Phase::Cancelled).await;
    let got = lab.get("/builds/1/log?follow=1").await;
    assert_eq!((got.status, got.text(), got.has("leasehold-log-more")), (200, "", Some("no")));
    assert_eq!(lab.get("/v1/builds/1/lines").await.json()["more"], json!(false));
}

#[tokio::test]
async fn windows_have_lines_as_text() {
    let lab = Lab::roomy().await;
    lab.append(0, "1000;1+0,2+5", b"one\r\n\xFFtwo\xE2\x80\xA8\x00\nthree").await;
    let got = lab.get("/v1/builds/1/lines?from=1&count=10").await;
    assert_eq!(
        got.json(),
        json!({
            "build": 1, "attempt": 1, "bytes": 19, "lines": 3, "more": true,
            "items": [
                { "number": 1, "offset": 0, "at_ms": 1000, "text": "one\r", "ended": true },
                { "number": 2, "offset": 5, "at_ms": 1005, "text": "\u{FFFD}two\u{2028}\0", "ended": true },
                { "number": 3, "offset": 14, "at_ms": 1005, "text": "three", "ended": false },
            ],
        })
    );
    let last = lab.get("/v1/builds/1/lines?count=1").await.json();
    assert_eq!((last["items"][0]["number"].clone(), last["items"].as_array().unwrap().len()), (json!(3), 1));
    assert_eq!(lab.get("/v1/builds/1/lines?from=4").await.json()["items"], json!([]));
    assert_eq!(lab.get("/v1/builds/1/lines?from=x").await.status, 400);
}
