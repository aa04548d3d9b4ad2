//! Stands where a broker's conductor does, in front of a real broker: hands out jobs whose sessions that
//! broker knows, takes logs and reports, and fails on demand.
//!
//! What is not about builds goes to the broker as it is. So an agent has one URL, real leases, and a peer
//! that can lose an answer, store half a piece, or be away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::broker::Broker;
use crate::common::process::Process;
use crate::common::wait::PATIENCE;
use crate::common::witness::Fifo;
use crate::common::ws::Client;

/// What goes wrong with the next pieces of logs, first to last; then nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is stored, and the answer is lost.
    AnswerLost,
    /// Half of it is stored.
    Half,
    /// The connection breaks before anything is stored.
    Broken,
    /// The store cannot take it at present.
    Busy,
}

/// A broker with a conductor played by hand, and an agent's place beside it.
pub struct StandIn {
    pub broker: Broker,
    port: u16,
    shared: Arc<Shared>,
    /// The sessions of builds, kept open until they are taken.
    sessions: Vec<Client>,
    last: u64,
    dir: tempfile::TempDir,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    broker: u16,
}

#[derive(Default)]
struct State {
    waiting: Vec<u64>,
    jobs: BTreeMap<u64, Value>,
    keys: BTreeMap<u64, String>,
    logs: BTreeMap<u64, Vec<u8>>,
    times: BTreeMap<u64, Vec<String>>,
    closed: Vec<u64>,
    reports: BTreeMap<u64, Vec<Value>>,
    faults: Vec<Fault>,
    /// Neither logs nor reports are taken.
    away: bool,
    /// How many answers to takes are lost, first to last.
    takes_lost: u32,
    /// Takes are not answered.
    takes_held: bool,
}

impl StandIn {
    pub fn new(inventory: &str) -> Self {
        let broker = Broker::with(inventory).env("PIXEL_PIN", super::PIN).start();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), broker: broker.port() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serving = Arc::clone(&serving);
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let stand_in = Self { broker, port, shared, sessions: Vec::new(), last: 0, dir };
        stand_in.commit("README", "hello");
        stand_in
    }

    /// Where tests put what builds read and write.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The agent's own folder.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The repository, and a new commit in it.
    pub fn commit(&self, file: &str, text: &str) -> String {
        let origin = self.dir.path().join("origin");
        if !origin.exists() {
            std::fs::create_dir(&origin).expect("a folder can be made");
            git(&origin, &["init", "--quiet", "--initial-branch=main"]);
        }
        std::fs::write(origin.join(file), text).expect("a file can be written");
        git(&origin, &["add", "."]);
        git(&origin, &["commit", "--quiet", "-m", "change"]);
        git(&origin, &["rev-parse", "HEAD"])
    }

    /// An agent, online.
    pub fn agent(&self, options: &[&str]) -> Process {
        let work = self.work().display().to_string();
        let words = [&["agent", "--name", "rack", "--work", &work], options].concat();
        let mut command = self.broker.command(&words);
        command.env("LEASEHOLD_URL", format!("ws://127.0.0.1:{}", self.port)).env("AGENTS_OWN", "hush-hush");
        let agent = Process::start(&mut command);
        agent.stderr.wait_for("agent rack is online");
        agent
    }

    /// A build for the agent, that runs these steps; `change` changes its job.
    pub fn build(&mut self, needs: &[&str], steps: &[(&str, &str)], change: impl FnOnce(&mut Value)) -> u64 {
        self.last += 1;
        let build = self.last;
        let mut client = Client::connect(self.broker.port());
        client.open_with(json!({ "owner": "acme/app", "ttl_ms": 10_000 }));
        let lease = client.lease(&[&["executor=executor"], needs].concat());
        let sha = git(&self.dir.path().join("origin"), &["rev-parse", "HEAD"]);
        let steps: Vec<Value> = steps.iter().map(|(name, run)| json!({ "name": name, "run": run })).collect();
        let mut job = json!({
            "build": build, "attempt": 1, "repository": "acme/app", "pipeline": "unit", "line": "branch main",
            "session": {
                "session": client.session(), "secret": client.opened["secret"], "instance": client.opened["instance"],
                "request_id": 1, "lease": lease["lease"], "ttl_ms": client.opened["ttl_ms"],
            },
            "checkout": {
                "url": self.dir.path().join("origin").display().to_string(), "git_ref": "refs/heads/main", "sha": sha,
            },
            "steps": steps, "env": {}, "timeout_ms": 600_000, "grace_ms": 2_000,
        });
        change(&mut job);
        self.sessions.push(client);
        let mut state = self.shared.state();
        state.jobs.insert(build, job);
        state.waiting.push(build);
        drop(state);
        self.shared.changed.notify_all();
        build
    }

    /// Its lease.
    pub fn lease(&self, build: u64) -> u64 {
        self.shared.state().jobs[&build]["session"]["lease"].as_u64().expect("a number")
    }

    /// What goes wrong with the next pieces of logs.
    pub fn fail(&self, faults: &[Fault]) {
        self.shared.state().faults = faults.to_vec();
    }

    /// Hands builds over without an answer that arrives: so many times; then holds the answers back, or no longer does.
    pub fn hold_takes(&self, lost: u32, held: bool) {
        let mut state = self.shared.state();
        (state.takes_lost, state.takes_held) = (lost, held);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Waits until a build is handed over, whether that is known or not.
    pub fn wait_handed_over(&self, build: u64) {
        self.watch(|state| (state.keys.contains_key(&build) && state.takes_lost == 0).then_some(()))
            .unwrap_or_else(|| panic!("nobody takes build {build}"));
    }

    /// Neither takes logs and reports nor gives work, or does again.
    pub fn away(&self, away: bool) {
        self.shared.state().away = away;
    }

    /// Takes no more of a build's log, as after its end.
    pub fn close_log(&self, build: u64) {
        self.shared.state().closed.push(build);
    }

    /// How much of its log is there.
    pub fn stored(&self, build: u64) -> usize {
        self.shared.state().logs.get(&build).map_or(0, Vec::len)
    }

    /// The bytes of its log so far.
    pub fn raw_log(&self, build: u64) -> Vec<u8> {
        self.shared.state().logs.get(&build).cloned().unwrap_or_default()
    }

    /// Its log so far, as text.
    pub fn log(&self, build: u64) -> String {
        String::from_utf8_lossy(&self.raw_log(build)).into_owned()
    }

    /// The lines of times that came with its log.
    pub fn times(&self, build: u64) -> Vec<String> {
        self.shared.state().times.get(&build).cloned().unwrap_or_default()
    }

    /// Waits until its log has this text.
    #[track_caller]
    pub fn wait_for_log(&self, build: u64, part: &str) {
        let found = self.watch(|state| {
            let log = state.logs.get(&build)?;
            String::from_utf8_lossy(log).contains(part).then_some(())
        });
        found.unwrap_or_else(|| panic!("never in the log: {part:?}; the log:\n{}", self.log(build)));
    }

    /// Waits until it is reported to run.
    #[track_caller]
    pub fn wait_running(&self, build: u64) {
        let running =
            |state: &State| state.reports.get(&build)?.iter().any(|report| report["state"] == "running").then_some(());
        self.watch(running).unwrap_or_else(|| panic!("never running; the log:\n{}", self.log(build)));
    }

    /// Waits for its last report.
    #[track_caller]
    pub fn finished(&self, build: u64) -> Value {
        let report =
            self.watch(|state| state.reports.get(&build)?.iter().find(|report| report["state"] == "finished").cloned());
        report.unwrap_or_else(|| panic!("never finished; the log:\n{}", self.log(build)))
    }

    fn watch<T>(&self, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        let mut state = self.shared.state();
        loop {
            if let Some(found) = look(&state) {
                return Some(found);
            }
            let (next, waited) = self.shared.changed.wait_timeout(state, PATIENCE).expect("no thread panics");
            state = next;
            if waited.timed_out() {
                return None;
            }
        }
    }
}

/// Git with a name of its own.
pub fn git(folder: &Path, words: &[&str]) -> String {
    let mut git = std::process::Command::new("git");
    git.arg("-C").arg(folder).args(["-c", "user.name=Ann", "-c", "user.email=ann@desk"]).args(words);
    let done = git.output().expect("git is there");
    assert!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// A request about builds.
struct Asked {
    path: Vec<String>,
    query: BTreeMap<String, String>,
    key: String,
    body: Vec<u8>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics")
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if !target.starts_with("/v1/agents/") && !target.starts_with("/v1/builds/") {
            return self.pass_on(&head, reader, stream);
        }
        let header = |name: &str| {
            let found =
                head.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let asked = Asked {
            path: path.trim_matches('/').split('/').map(str::to_owned).collect(),
            query: pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            key: header("leasehold-key"),
            body,
        };
        let answer = self.answer(&asked);
        self.changed.notify_all();
        if let Some((status, body)) = answer {
            let body = body.to_string();
            let head = format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let mut stream = stream;
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    }

    /// `None` breaks the connection.
    fn answer(&self, asked: &Asked) -> Option<(u16, Value)> {
        let words: Vec<&str> = asked.path.iter().map(String::as_str).collect();
        match words[..] {
            ["v1", "agents", _, "work"] => {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state = self.changed.wait_timeout(state, Duration::from_millis(500)).expect("no thread panics").0;
                }
                Some((200, json!({ "builds": if state.away { Vec::new() } else { state.waiting.clone() } })))
            }
            ["v1", "builds", build, act] => {
                let build = build.parse().expect("a number");
                match act {
                    "take" => self.taken(build, asked),
                    "report" => self.reported(build, asked),
                    "log" => self.appended(build, asked),
                    _ => Some((404, json!({}))),
                }
            }
            _ => Some((404, json!({}))),
        }
    }

    fn taken(&self, build: u64, asked: &Asked) -> Option<(u16, Value)> {
        let take: Value = serde_json::from_slice(&asked.body).expect("JSON");
        let mut state = self.state();
        state.waiting.retain(|waiting| *waiting != build);
        let key = take["key"].as_str().expect("a key").to_owned();
        let own = state.keys.entry(build).or_insert_with(|| key.clone());
        if *own != key {
            return Some((409, problem("taken", "it is another's")));
        }
        if state.takes_lost > 0 {
            state.takes_lost -= 1;
            return None;
        }
        self.changed.notify_all();
        while state.takes_held {
            state = self.changed.wait(state).expect("no thread panics");
        }
        Some((200, state.jobs[&build].clone()))
    }

    fn reported(&self, build: u64, asked: &Asked) -> Option<(u16, Value)> {
        let mut state = self.state();
        if state.away {
            return None;
        }
        assert_eq!(state.keys.get(&build), Some(&asked.key), "a report under another key");
        let report = serde_json::from_slice(&asked.body).expect("JSON");
        state.reports.entry(build).or_default().push(report);
        Some((200, json!({})))
    }

    fn appended(&self, build: u64, asked: &Asked) -> Option<(u16, Value)> {
        let mut state = self.state();
        if state.away {
            return None;
        }
        if state.closed.contains(&build) {
            return Some((410, problem("log_closed", "the log is closed")));
        }
        assert_eq!(state.keys.get(&build), Some(&asked.key), "a log under another key");
        let fault = if state.faults.is_empty() { None } else { Some(state.faults.remove(0)) };
        if fault == Some(Fault::Broken) {
            return None;
        }
        if fault == Some(Fault::Busy) {
            return Some((503, problem("unavailable", "the store fails")));
        }
        let offset: usize = asked.query["offset"].parse().expect("a number");
        let feed = asked.body.iter().position(|byte| *byte == b'\n').expect("a line of times");
        let times = String::from_utf8_lossy(&asked.body[..feed]).into_owned();
        let bytes = &asked.body[feed + 1..];
        assert!(!bytes.is_empty() && bytes.len() <= 1024 * 1024, "{} bytes at once", bytes.len());
        let log = state.logs.entry(build).or_default();
        if log.len() != offset {
            return Some((409, json!({ "bytes": log.len() })));
        }
        let half = &bytes[..bytes.len().div_ceil(2)];
        let times = if fault == Some(Fault::Half) {
            let begins = log.last().is_none_or(|last| *last == b'\n');
            let lines = half[..half.len() - 1].iter().filter(|byte| **byte == b'\n').count() + usize::from(begins);
            if lines == 0 { "0;".to_owned() } else { format!("0;{lines}+0") }
        } else {
            times
        };
        log.extend_from_slice(if fault == Some(Fault::Half) { half } else { bytes });
        let stored = log.len();
        state.times.entry(build).or_default().push(times);
        (fault != Some(Fault::AnswerLost)).then(|| (200, json!({ "bytes": stored })))
    }

    fn pass_on(&self, head: &str, mut from: BufReader<TcpStream>, to: TcpStream) {
        let Ok(mut broker) = TcpStream::connect(("127.0.0.1", self.broker)) else { return };
        if broker.write_all(head.as_bytes()).is_err() {
            return;
        }
        let mut back = broker.try_clone().expect("a socket can be cloned");
        let mut client = to.try_clone().expect("a socket can be cloned");
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut client);
            let _ = client.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut from, &mut broker);
        let _ = broker.shutdown(Shutdown::Both);
    }
}

fn problem(code: &str, detail: &str) -> Value {
    json!({ "type": format!("urn:leasehold:{code}"), "code": code, "detail": detail, "title": code, "status": 0 })
}

impl StandIn {
    /// A FIFO for a build.
    pub fn fifo(&self) -> Fifo {
        Fifo::make(&self.dir.path().join(format!("fifo-{}", self.last + 1)))
    }

    /// Runs an agent while `work` is done.
    pub fn agent_runs(&mut self, options: &[&str], work: impl FnOnce(&mut Self)) {
        let _agent = self.agent(options);
        work(self);
    }
}
