//! The machine in virtual time: what it sends, when, and what it says of each lease.
//!
//! `Play` stands where the driver does. No test looks at a clock; each names its moments.

mod adopt;
mod failover;
mod links;
mod random;
mod timing;

use serde_json::{Value, json};

use super::{Config, Input, Machine, Output, Phase, Reply};
use crate::client::error::ClientError;
use crate::client::event::{Event, LeaseState};
use crate::clock::BootTime;
use crate::protocol::call::{ClaimRequest, SessionOpen};

/// The usual ttl, and its margin, as design has them.
const TTL: u64 = 30_000;
const MARGIN: u64 = 600;

struct Play {
    machine: Machine,
    now: u64,
    sent: Vec<Value>,
    events: Vec<Event>,
    answers: Vec<(u64, Result<Reply, ClientError>)>,
    /// `connect N`, `drop`, `hangup`.
    links: Vec<String>,
}

impl Play {
    fn new(urls: usize) -> Self {
        Self::with_jitter(urls, |_| 0)
    }

    fn with_jitter(urls: usize, jitter: fn(u64) -> u64) -> Self {
        let open = SessionOpen { instance: "me".to_owned(), ..SessionOpen::default() };
        let urls = (0..urls).map(|url| format!("ws://{url}")).collect();
        let config = Config { urls, open, connect_timeout_ms: 120_000, jitter };
        Self::of(Machine::new(config, BootTime(0)))
    }

    fn of(machine: Machine) -> Self {
        let mut play =
            Self { machine, now: 0, sent: Vec::new(), events: Vec::new(), answers: Vec::new(), links: Vec::new() };
        play.drain();
        play
    }

    /// Open since moment 0, by an answer with number 10.
    fn open() -> Self {
        let mut play = Self::new(1);
        play.input(Input::Connected);
        let id = play.asked("session.open");
        play.answer(id, opened(10, TTL, &[]));
        play.clear();
        play
    }

    /// As [`Self::open`], with lease 7 granted to request 1.
    fn holding() -> Self {
        let mut play = Self::open();
        play.acquire(1);
        let id = play.asked("lease.acquire");
        play.answer(id, granted(1, 7));
        play.clear();
        play
    }

    fn input(&mut self, input: Input<'_>) {
        self.machine.handle(BootTime(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.machine.poll() {
            match output {
                Output::Connect(url) => {
                    // Nothing of an older socket is looked at any more.
                    self.sent.clear();
                    self.links.push(format!("connect {url}"));
                }
                Output::Send(text) => self.sent.push(serde_json::from_str(&text).expect("what is sent is JSON")),
                Output::Drop => self.links.push("drop".to_owned()),
                Output::Hangup => self.links.push("hangup".to_owned()),
                Output::Tell(event) => self.events.push(event),
                Output::Answer(ticket, answer) => self.answers.push((ticket, answer)),
            }
        }
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.events.clear();
        self.answers.clear();
        self.links.clear();
    }

    /// Lets time pass, waking the machine whenever it asked for it.
    fn until(&mut self, moment: u64) {
        while let Some(wake) = self.machine.next_wake().filter(|wake| wake.0 <= moment) {
            assert!(wake.0 >= self.now, "it asks to be woken in the past");
            self.now = wake.0;
            self.input(Input::Woke);
            let again = self.machine.next_wake();
            assert!(again.is_none_or(|again| again.0 > self.now), "it would spin at {}", self.now);
        }
        self.now = moment;
    }

    /// A jump, as of a process that was stopped: no wake in between.
    fn jump(&mut self, moment: u64) {
        self.now = moment;
    }

    fn acquire(&mut self, request_id: u64) {
        let request = ClaimRequest { needs: vec!["phone".to_owned()], ..ClaimRequest::default() };
        self.input(Input::Acquire(request_id, Box::new(request)));
    }

    fn receive(&mut self, message: &Value) {
        self.input(Input::Received(&message.to_string()));
    }

    fn notice(&mut self, method: &str, params: &Value) {
        self.receive(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
    }

    fn answer(&mut self, id: u64, result: Value) {
        self.receive(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn refuse(&mut self, id: u64, code: &str) {
        let error = json!({"code": -32000, "message": format!("no: {code}"), "data": {"code": code}});
        self.receive(&json!({"jsonrpc": "2.0", "id": id, "error": error}));
    }

    /// The id of the last request of this method; it must be there.
    fn asked(&self, method: &str) -> u64 {
        let request = self.sent.iter().rev().find(|request| request["method"] == method);
        let request = request.unwrap_or_else(|| panic!("no {method} in {:?}", self.sent));
        request["id"].as_u64().expect("ids are numbers")
    }

    fn params(&self, method: &str) -> Value {
        let id = self.asked(method);
        self.sent.iter().find(|request| request["id"] == id).expect("it was just found")["params"].clone()
    }

    fn methods(&self) -> Vec<&str> {
        self.sent.iter().filter_map(|request| request["method"].as_str()).collect()
    }

    fn lease(&self, lease: u64) -> LeaseState {
        self.machine.lease(lease).unwrap_or_else(|| panic!("lease {lease} is not held: {:?}", self.events))
    }

    fn deadline(&self, lease: u64) -> u64 {
        self.lease(lease).deadline.0
    }

    fn lost(&self) -> Vec<u64> {
        let lost = self.events.iter().filter_map(|event| match event {
            Event::Lost { lease } => Some(*lease),
            _ => None,
        });
        lost.collect()
    }

    /// Lets time pass until an attempt to connect is under way; which URL it is at.
    fn next_attempt(&mut self) -> usize {
        while !matches!(self.machine.phase, Phase::Connecting { .. }) {
            let wake = self.machine.next_wake().expect("it goes on");
            self.until(wake.0);
        }
        self.machine.url
    }

    /// The socket drops and the next one is up at once; what was asked on it stands in `sent`.
    fn reconnect(&mut self) {
        self.input(Input::Dropped { code: None, why: "reset".to_owned() });
        self.until(self.now);
        assert_eq!(self.links.last().map(String::as_str), Some("connect 0"));
        self.sent.clear();
        self.input(Input::Connected);
    }
}

fn renewed(renewal: u64, promise_ms: u64, ending: &[u64]) -> Value {
    json!({"renewal": renewal, "promise_ms": promise_ms, "ending": ending, "now": 1_000, "now_time": ""})
}

fn opened(renewal: u64, promise_ms: u64, claims: &[Value]) -> Value {
    let mut answer = renewed(renewal, promise_ms, &[]);
    answer["session"] = json!(3);
    answer["secret"] = json!("hush");
    answer["ttl_ms"] = json!(TTL);
    answer["state"] = json!({"claims": claims, "now": 1_000, "now_time": ""});
    answer
}

fn queued(request_id: u64, place: u64) -> Value {
    json!({"request_id": request_id, "claim": 70, "state": "queued", "place": place, "now": 1_000, "now_time": ""})
}

fn granted(request_id: u64, lease: u64) -> Value {
    let lease = lease_info(request_id, lease);
    json!({"request_id": request_id, "claim": 70, "state": "granted", "lease": lease, "now": 1_000, "now_time": ""})
}

fn ended(request_id: u64, code: &str) -> Value {
    let end = json!({"code": code, "message": format!("it {code}")});
    json!({"request_id": request_id, "claim": 70, "state": "ended", "end": end, "now": 1_000, "now_time": ""})
}

fn released(lease: u64, why: &str) -> Value {
    json!({"lease": lease, "why": why, "message": "so", "now": 1_000, "now_time": ""})
}

fn ending(why: &str) -> Value {
    json!({"why": why, "message": "so", "since": 1_000, "since_time": ""})
}

fn lease_info(request_id: u64, lease: u64) -> Value {
    json!({
        "lease": lease, "fence": lease, "state": "active", "claim": 70, "session": 3, "request_id": request_id,
        "owner": "me@here", "owner_verified": false, "needs": ["phone"], "resources": {},
        "queued_at": 900, "queued_at_time": "", "granted_at": 1_000, "granted_at_time": "",
        "until": 61_000, "until_time": "",
    })
}
