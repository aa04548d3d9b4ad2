//! A lab with repositories, and an agent by hand: what the documented wire lets anybody be.

use std::path::PathBuf;
use std::process::Command;

use leasehold::clock::random_secret;
use serde_json::{Value, json};

use super::common::broker::{Broker, Setup};
use super::common::http::{self, Answer};
use super::common::wait::eventually;
use super::common::ws;

/// One phone, beside whatever agents bring.
pub const PHONE: &str =
    "[[pool]]\nname = \"phone\"\nttl = \"5s\"\n[[resource]]\nname = \"pixel-1\"\npool = \"phone\"\n";
/// The repository.
pub const APP: &str = "acme/app";

/// A repository with one commit on `main`, in a folder of its own.
pub struct Repo {
    folder: tempfile::TempDir,
}

impl Repo {
    pub fn new() -> Self {
        let repo = Self { folder: tempfile::tempdir().expect("a temporary directory can be made") };
        repo.git(&["init", "-q", "-b", "main"]);
        repo.commit("first");
        repo
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Runs git in it; answers what it printed.
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=ann", "-c", "user.email=ann@example.org"]).args(args);
        command.current_dir(self.folder.path()).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", self.folder.path());
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Commits a change; answers the commit's name.
    pub fn commit(&self, message: &str) -> String {
        std::fs::write(self.folder.path().join("file"), message).expect("a file can be written");
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }
}

/// The configuration of one repository, whose pipelines follow.
pub fn config(repo: &Repo, pipelines: &str) -> String {
    let url = repo.path();
    let pools = "pools = [\"phone\", \"port\"]";
    format!("[[repository]]\nname = \"{APP}\"\nforge = \"github\"\nurl = \"{}\"\n{pools}\n{pipelines}", url.display())
}

/// A pipeline with these lines of its own.
pub fn pipeline(name: &str, lines: &str) -> String {
    format!(
        "[[repository.pipeline]]\nname = \"{name}\"\non = [\"push\", \"pull_request\"]\nrun = \"make test\"\n{lines}\n"
    )
}

/// A broker that builds.
pub fn lab(repo: &Repo, pipelines: &str) -> Broker {
    setup(repo, pipelines).start()
}

pub fn setup(repo: &Repo, pipelines: &str) -> Setup {
    Broker::with(PHONE).config(config(repo, pipelines))
}

/// Asks for builds of `main`; answers their numbers.
pub fn start(broker: &Broker) -> Vec<u64> {
    let body = json!({ "repository": APP, "git_ref": "main" });
    let started = broker.http("POST", "/v1/builds", Some(&body)).ok();
    started["builds"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect()
}

pub fn build(broker: &Broker, id: u64) -> Value {
    broker.http("GET", &format!("/v1/builds/{id}"), None).ok()
}

/// Waits until a build has this state, and answers it.
#[track_caller]
pub fn comes_to(broker: &Broker, id: u64, state: &str) -> Value {
    eventually(&format!("build {id} comes to {state}: {:?}", broker.http("GET", "/v1/builds", None).body), || {
        Some(build(broker, id)).filter(|build| build["state"] == state)
    })
}

/// Whoever holds the phone, by the tag of their build.
pub fn holder_of_phone(broker: &Broker) -> Option<u64> {
    let leases = broker.http("GET", "/v1/leases", None).ok();
    let leases = leases["items"].as_array().expect("a list").clone();
    let lease = leases.iter().find(|lease| lease["resources"]["phone"].is_array())?.clone();
    lease["tags"]["build"].as_str().and_then(|build| build.parse().ok())
}

/// An agent by hand.
pub struct Agent {
    port: u16,
    name: String,
    key: String,
    provider: ws::Client,
}

/// A build that it has.
pub struct Have {
    pub build: u64,
    pub attempt: u64,
    pub job: Value,
    pub key: String,
    /// The session that holds its lease.
    pub session: ws::Client,
    port: u16,
}

impl Agent {
    /// Brings an executor of that name.
    pub fn bring(port: u16, name: &str, slots: u64) -> Self {
        let key = random_secret();
        let mut provider = ws::Client::connect(port);
        provider.open("agents@lab");
        let resources = json!([{ "name": name, "pool": "executor", "labels": { "os": "linux" }, "slots": slots }]);
        provider.call("provider.provide", json!({ "name": name, "key": key, "host": name, "resources": resources }));
        Self { port, name: name.to_owned(), key, provider }
    }

    /// The same on another broker, or on one that was started again.
    pub fn again(&mut self, port: u16) {
        let mut provider = ws::Client::connect(port);
        provider.open("agents@lab");
        let resources = json!([{ "name": self.name, "pool": "executor", "labels": { "os": "linux" }, "slots": 2 }]);
        provider.call(
            "provider.provide",
            json!({ "name": self.name, "key": self.key, "host": self.name, "resources": resources }),
        );
        self.provider = provider;
        self.port = port;
    }

    /// Waits for work; answers which builds wait for it.
    pub fn work(&self) -> Vec<u64> {
        eventually("there is work", || {
            let path = format!("/v1/agents/{}/work?wait_ms=1000", self.name);
            let work = http::request(self.port, "GET", &path, &[], None).ok();
            let builds: Vec<u64> = work["builds"].as_array()?.iter().filter_map(Value::as_u64).collect();
            (!builds.is_empty()).then_some(builds)
        })
    }

    /// Takes a build under this key.
    pub fn try_take(&self, build: u64, key: &str) -> Answer {
        let body = json!({ "agent": self.name, "key": key });
        http::request(self.port, "POST", &format!("/v1/builds/{build}/take"), &[], Some(&body))
    }

    /// Takes a build and resumes its session.
    pub fn take(&self, build: u64) -> Have {
        let key = random_secret();
        let job = self.try_take(build, &key).ok();
        let session = resume(self.port, &job["session"]);
        let attempt = job["attempt"].as_u64().expect("a number");
        Have { build, attempt, job, key, session, port: self.port }
    }

    /// Waits for any build and takes it.
    pub fn take_next(&self) -> Have {
        self.take(self.work()[0])
    }
}

/// Resumes a session that was handed over.
pub fn resume(port: u16, handed: &Value) -> ws::Client {
    let mut session = ws::Client::connect(port);
    let params = json!({
        "session": handed["session"], "secret": handed["secret"], "instance": handed["instance"], "renewal": 0,
    });
    session.opened = session.call("session.resume", params);
    session
}

impl Have {
    pub fn say(&self, body: &Value) -> Answer {
        let path = format!("/v1/builds/{}/report", self.build);
        http::request(self.port, "POST", &path, &[("leasehold-key", &self.key)], Some(body))
    }

    pub fn running(&self) {
        self.say(&json!({ "attempt": self.attempt, "state": "running" })).ok();
    }

    /// Sends a log.
    pub fn log(&self, text: &str) {
        let body = format!("1700000000000;{}\n{text}", vec!["1+0"; text.lines().count()].join(","));
        let head = format!(
            "PATCH /v1/builds/{}/log?attempt={}&offset=0 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\
             leasehold-key: {}\r\nContent-Length: {}\r\n\r\n",
            self.build,
            self.attempt,
            self.key,
            body.len()
        );
        let answer = http::raw(self.port, format!("{head}{body}").as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// How it went, with an empty log.
    pub fn finished(&self, result: &str) -> Answer {
        self.finished_with(result, &end_of(""))
    }

    pub fn finished_with(&self, result: &str, log: &Value) -> Answer {
        let exit_code = match result {
            "passed" => json!(0),
            "failed" => json!(1),
            _ => Value::Null,
        };
        self.say(&json!({
            "attempt": self.attempt, "state": "finished", "result": result, "exit_code": exit_code, "log": log,
        }))
    }

    /// The agent is reached at another port from now on.
    pub fn moved(&mut self, port: u16) {
        self.port = port;
        self.session = resume(port, &self.job["session"]);
    }

    /// Waits to be told that its lease ends.
    pub fn told_to_stop(&mut self) -> Value {
        self.session.notice("lease.ending")
    }
}

/// The end of a log with this text.
pub fn end_of(text: &str) -> Value {
    use sha2::Digest as _;
    let sha256: String = sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    json!({ "bytes": text.len(), "lines": text.lines().count(), "sha256": sha256 })
}
