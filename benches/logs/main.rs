//! Figures of logs: 100 MB over HTTP into a broker with its real stores, beside `cat` into a file on the same
//! disk; how soon a follower sees a line; how long reading takes, whole and in windows.
//!
//! The broker's routes run on a thread of their own, as in a broker, and are asked over loopback. All in one
//! process, so what it takes of memory is an upper bound of what the broker does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::{fs, thread};

use leasehold::builds::build::Build;
use leasehold::builds::change::Change;
use leasehold::clock::boot_now_us;
use leasehold::core::limits::Limits as CoreLimits;
use leasehold::engine::machine::Options;
use leasehold::pipeline::logs::{LogLimits, Logs, Objects};
use leasehold::server::front::{Front, Process};
use leasehold::server::http::router;
use leasehold::server::limits::Limits;
use leasehold::server::listen::listen;
use leasehold::server::shared::{App, Inventory, Shared};
use leasehold::store::Store;
use leasehold::store::sqlite::Sqlite;
use serde_json::json;
use tokio::sync::watch;

/// Bytes of an append.
const CHUNK: usize = 1024 * 1024;
/// Appends.
const CHUNKS: usize = 100;
/// Lines that a follower waits for.
const FOLLOWED: usize = 300;
const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn main() {
    let folder =
        tempfile::tempdir_in(std::env::var_os("BENCH_FOLDER").unwrap_or_else(|| "target".into())).expect("a folder");
    let chunk = text();
    let lines = chunk.1;
    plain(folder.path(), &chunk.0);
    let address = broker(folder.path().to_path_buf());
    let mut sender = Sender::to(address, 1);
    let before = memory("VmRSS");
    let began = boot_now_us();
    for _ in 0..CHUNKS {
        sender.append(&chunk.0, lines);
    }
    let took = boot_now_us() - began;
    report("100 MiB appended over HTTP", took);
    println!("{:>52} {:>8} MiB", "memory before, highest", format!("{}, {}", before / 1024, memory("VmHWM") / 1024));
    let began = boot_now_us();
    let read = whole(address, "/builds/1/log");
    report(&format!("read whole ({} bytes)", read), boot_now_us() - began);
    for (what, from) in [("last", lines * CHUNKS - 1_000), ("middle", lines * CHUNKS / 2), ("first", 1)] {
        let began = boot_now_us();
        whole(address, &format!("/v1/builds/1/lines?from={from}&count=1000"));
        report(&format!("a window of 1,000 lines, the {what} of {}", lines * CHUNKS), boot_now_us() - began);
    }
    follow(address);
}

/// A chunk of lines as builds print them, and how many.
fn text() -> (Vec<u8>, usize) {
    let mut bytes = Vec::with_capacity(CHUNK);
    let mut number = 1_u64;
    while bytes.len() < CHUNK {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (a, b, c) = (number >> 50, number >> 33 & 0xFFFF, number >> 20 & 0xFFF);
        bytes.extend_from_slice(
            format!("test suite_{c}::case_{a} ... ok in {b} us, /usr/src/app/{c:x}.rs\n").as_bytes(),
        );
    }
    bytes.truncate(CHUNK - 1);
    bytes.push(b'\n');
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    (bytes, lines)
}

/// What `cat` takes for the same.
fn plain(folder: &Path, chunk: &[u8]) {
    let source = folder.join("source");
    let mut file = fs::File::create(&source).expect("a file");
    for _ in 0..CHUNKS {
        file.write_all(chunk).expect("a file");
    }
    for (what, command) in [
        ("cat into a file", "cat source > out"),
        ("cat of a pipe into a file", "cat source | cat > out"),
        ("cat into a file, and onto the disk", "cat source > out && sync out"),
    ] {
        let mut best = u64::MAX;
        for _ in 0..3 {
            let _ = fs::remove_file(folder.join("out"));
            let began = boot_now_us();
            let done = Command::new("sh").args(["-c", command]).current_dir(folder).status().expect("sh");
            assert!(done.success());
            best = best.min(boot_now_us() - began);
        }
        report(what, best);
    }
}

fn report(what: &str, took_us: u64) {
    println!("{what:>52} {:>8.1} ms", took_us as f64 / 1_000.0);
}

/// Of this process, KiB.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

/// Starts the routes of a broker with two builds that run; answers where.
fn broker(folder: std::path::PathBuf) -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let store = Sqlite::open(folder.join("lab.db")).await.expect("a store");
            let reader = store.reader();
            let opened = store.builds().open().await.expect("tables");
            opened.builds.take_over(0).await.expect("the lead");
            let builds: Vec<Change> = [1, 2].map(|id| Change::Build(Arc::new(build(id)))).into();
            opened.builds.commit(&builds).await.expect("builds");
            let options = Options { limits: CoreLimits::default(), restart_grace_ms: 300_000 };
            let (handle, _) = leasehold::engine::start(store, options, 0).await.expect("an engine");
            let objects = Objects::folder(&folder.join("logs")).expect("a folder");
            // More than is sent: what is read is all of it.
            let logs = Logs::new(opened.logs, opened.builds, objects, LogLimits::of(200_000_000));
            let (_, error) = watch::channel(None);
            let process = Arc::new(Process::new(Limits::default(), false, "a bench".into(), None));
            let shared = Shared::new(process.clone(), handle, Inventory { file: None, error }).with_logs(logs);
            let routes = router(App { shared: Arc::new(shared), reader });
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            listen(listener, Arc::new(Front::new(process, routes))).await;
        });
    });
    address
}

fn build(id: u64) -> Build {
    let plan = json!({
        "name": "ci", "needs": [], "agent": "", "steps": [], "container": null, "env": {}, "secrets": [],
        "timeout_ms": 1, "wait_ms": null, "grace_ms": 1, "priority": 0, "concurrency": "queue", "retries": 0,
    });
    let build = json!({
        "id": id, "repository": "acme/app", "by": "ann", "phase": "running", "attempt": 1, "plan": plan,
        "subject": { "line": { "pull": 7 }, "sha": "a".repeat(40), "git_ref": "refs/pull/7/head", "fork": false },
        "cause": { "cause": "asked" }, "key_hash": leasehold::engine::input::secret_hash(KEY).0, "reported": false,
        "times": { "created_ms": 1, "queued_ms": 1, "prepared_ms": 1, "begun_ms": 1, "ended_ms": null },
    });
    serde_json::from_value(build).expect("a build")
}

/// Sends a log as an agent does: one append after the other.
struct Sender {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    address: SocketAddr,
    build: u64,
    offset: usize,
}

impl Sender {
    fn to(address: SocketAddr, build: u64) -> Self {
        let stream = TcpStream::connect(address).expect("a broker");
        stream.set_nodelay(true).expect("a socket");
        let answers = BufReader::new(stream.try_clone().expect("a socket"));
        Self { stream, answers, address, build, offset: 0 }
    }

    fn append(&mut self, bytes: &[u8], lines: usize) {
        // A millisecond for each four lines.
        let mut groups = vec!["4+1".to_owned(); lines / 4];
        groups.extend(Some(lines % 4).filter(|rest| *rest > 0).map(|rest| format!("{rest}+1")));
        let times = format!("1795775073000;{}\n", groups.join(","));
        let head = format!(
            "PATCH /v1/builds/{}/log?attempt=1&offset={} HTTP/1.1\r\nhost: {}\r\nleasehold-key: {KEY}\r\n\
             content-length: {}\r\n\r\n",
            self.build,
            self.offset,
            self.address,
            times.len() + bytes.len()
        );
        self.stream.write_all(&[head.as_bytes(), times.as_bytes()].concat()).expect("a broker");
        self.stream.write_all(bytes).expect("a broker");
        self.offset += bytes.len();
        let mut length = 0;
        let mut line = String::new();
        loop {
            line.clear();
            self.answers.read_line(&mut line).expect("an answer");
            let text = line.trim().to_lowercase();
            assert!(!text.starts_with("http/") || text.contains(" 200 "), "{text}");
            if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            }
            if text.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.answers.read_exact(&mut body).expect("an answer");
    }
}

/// Reads an answer to its end; answers its length with its head.
fn whole(address: SocketAddr, path: &str) -> usize {
    let mut stream = TcpStream::connect(address).expect("a broker");
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())
        .expect("a broker");
    let mut buffer = vec![0; 1 << 18];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).expect("an answer") {
            0 => return total,
            count => total += count,
        }
    }
}

/// From the moment that a line is sent until its follower has it.
fn follow(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).expect("a broker");
    let ask = format!("GET /builds/2/log?follow=1 HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(ask.as_bytes()).expect("a broker");
    let mut lines = BufReader::new(stream);
    let mut sender = Sender::to(address, 2);
    let mut took: Vec<u64> = (0..FOLLOWED)
        .map(|number| {
            let text = format!("line {number} of those that are followed\n");
            let began = boot_now_us();
            sender.append(text.as_bytes(), 1);
            let mut line = String::new();
            while line != text {
                line.clear();
                lines.read_line(&mut line).expect("a line");
            }
            boot_now_us() - began
        })
        .collect();
    took.sort_unstable();
    report("a line from its append to its follower, median", took[took.len() / 2]);
    report("the same, longest", took[took.len() - 1]);
}
