//! A test runner that keeps account of everything it was told, and holds the broker to it after
//! every reconnection.
//!
//! It speaks the wire by hand. Each call is repeated until it is answered, over as many brokers
//! as it takes: all of them are such that asking twice is asking once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::common::random::Random;
use super::common::wait::{PATIENCE, eventually, within};
use super::common::ws::Client;
use super::witness::Witness;

/// Longer than the test: a session of this ttl that is gone was lost.
const TTL_MS: u64 = 600_000;
/// Requests whose end is remembered and asked for again.
const REMEMBERED: usize = 24;
/// What is asked for. Single resources and sets of them, so that claims keep back from each other.
const NEEDS: [&[&str]; 5] = [&["phone"], &["board"], &["phone", "board"], &["2:phone"], &["2:board", "phone"]];

/// What all runners share.
#[derive(Default)]
pub struct Field {
    /// The world outside.
    pub witness: Witness,
    /// Answers that all runners had, so far: how far the load has come.
    pub answers: AtomicU64,
    /// Set when the runners are to finish what they do and leave.
    pub closing: AtomicBool,
    /// Set when a runner has found something wrong.
    pub failed: AtomicBool,
}

/// What the runner was told of a request.
#[derive(Clone, Debug)]
enum Told {
    /// Nothing yet, or nothing that is final: anything may be so.
    Open,
    /// It waits.
    Queued { claim: u64 },
    /// It is granted.
    Granted { lease: u64, resources: Vec<String> },
    /// The release of its lease was sent: it may be granted still, or over.
    Releasing { lease: u64 },
    /// It is over, and how.
    Over { code: String },
}

struct Request {
    body: Value,
    told: Told,
}

/// One runner.
pub struct Runner<'a> {
    name: String,
    port: u16,
    random: Random,
    field: &'a Field,
    socket: Option<Client>,
    session: Value,
    /// The newest answer it counts by.
    renewal: u64,
    requests: BTreeMap<u64, Request>,
    last_request: u64,
    resumed: u64,
}

impl<'a> Runner<'a> {
    /// One that is not connected yet.
    pub fn new(number: u64, port: u16, seed: u64, field: &'a Field) -> Self {
        Self {
            name: format!("runner-{number}"),
            port,
            random: Random::new(seed, number),
            field,
            socket: None,
            session: Value::Null,
            renewal: 0,
            requests: BTreeMap::new(),
            last_request: 0,
            resumed: 0,
        }
    }

    /// Works until the field closes. Answers how often it had to resume.
    pub fn work(mut self) -> u64 {
        while !self.field.closing.load(Ordering::Relaxed) {
            match self.random.below(20) {
                0 => self.close(),
                1..=3 => self.ask_again(),
                4..=6 => self.without_waiting(),
                7..=9 => self.cancelled(),
                _ => self.cycle(),
            }
        }
        self.close();
        self.resumed
    }

    /// Claims, waits, uses, releases.
    fn cycle(&mut self) {
        let request = self.acquire(json!({}));
        self.wait_and_use(request);
    }

    /// Takes what is free, or is refused by the state of things.
    fn without_waiting(&mut self) {
        let request = self.acquire(json!({ "wait_ms": 0 }));
        self.wait_and_use(request);
    }

    /// Claims and thinks better of it, which may come too late.
    fn cancelled(&mut self) {
        let request = self.acquire(json!({}));
        if !matches!(self.requests[&request].told, Told::Queued { .. }) {
            return self.wait_and_use(request);
        }
        self.tell(request, Told::Open);
        let claim = self.must("lease.cancel", json!({ "request_id": request }));
        self.learn(request, &claim);
        self.wait_and_use(request);
    }

    /// Repeats a request that is over: the answer must say so still.
    fn ask_again(&mut self) {
        let over: Vec<u64> = self.requests.keys().copied().collect();
        if over.is_empty() {
            return;
        }
        let request = over[self.random.below(over.len() as u64) as usize];
        let body = self.requests[&request].body.clone();
        let claim = self.must("lease.acquire", body);
        self.check(request, Some(&claim));
    }

    fn acquire(&mut self, mut body: Value) -> u64 {
        self.last_request += 1;
        let request = self.last_request;
        let needs = NEEDS[self.random.below(NEEDS.len() as u64) as usize];
        body["request_id"] = json!(request);
        body["needs"] = json!(needs);
        self.requests.insert(request, Request { body: body.clone(), told: Told::Open });
        while self.requests.len() > REMEMBERED {
            self.requests.pop_first();
        }
        let claim = self.must("lease.acquire", body);
        self.learn(request, &claim);
        request
    }

    /// Waits until the request is granted or over; uses what it was granted, and releases it.
    fn wait_and_use(&mut self, request: u64) {
        let settled = within(PATIENCE * 2, || {
            self.give_up_where_others_failed();
            if matches!(self.requests[&request].told, Told::Queued { .. }) {
                self.listen();
            }
            let told = &self.requests[&request].told;
            (!matches!(told, Told::Queued { .. })).then(|| told.clone())
        });
        let (lease, resources) = match settled {
            Some(Told::Granted { lease, resources }) => (lease, resources),
            Some(Told::Over { .. }) => return,
            other => panic!("{}: request {request} stands nowhere: {other:?}", self.name),
        };
        self.field.witness.enter(&self.name, &resources, lease);
        for _ in 0..self.random.below(4) {
            let renewed = self.must("session.renew", json!({ "renewal": self.renewal }));
            self.count_by(&renewed);
        }
        self.field.witness.leave(&self.name, &resources, lease);
        self.tell(request, Told::Releasing { lease });
        let released = self.must("lease.release", json!({ "lease": lease, "outcome": "passed" }));
        assert_eq!(released["why"], "released", "{}: {released}", self.name);
        self.tell(request, Told::Over { code: "released".to_owned() });
    }

    /// Reads what comes for a while, or comes back when the connection has ended.
    fn listen(&mut self) {
        self.connect();
        let Some(socket) = &mut self.socket else { return };
        match socket.next_notice(Duration::from_secs(1)) {
            Ok(Some((method, claim))) if method == "lease.granted" => {
                let request = claim["request_id"].as_u64().expect("a claim names its request");
                self.field.answers.fetch_add(1, Ordering::Relaxed);
                // One that was cancelled too late was answered already, and may be over by now.
                let waits = |request: &Request| matches!(request.told, Told::Queued { .. });
                if self.requests.get(&request).is_some_and(waits) {
                    self.learn(request, &claim);
                }
            }
            Ok(_) => {}
            Err(_) => self.socket = None,
        }
    }

    /// Takes down what was said of a request.
    fn learn(&mut self, request: u64, claim: &Value) {
        let told = match claim["state"].as_str() {
            Some("queued") => Told::Queued { claim: claim["claim"].as_u64().expect("a claim has a number") },
            Some("granted") => {
                let lease = claim["lease"]["lease"].as_u64().expect("a lease has a number");
                Told::Granted { lease, resources: names(&claim["lease"]) }
            }
            Some("ended") => Told::Over { code: claim["end"]["code"].as_str().unwrap_or_default().to_owned() },
            _ => panic!("{}: no state: {claim}", self.name),
        };
        self.tell(request, told);
    }

    fn tell(&mut self, request: u64, told: Told) {
        self.requests.get_mut(&request).expect("what is under way is remembered").told = told;
    }

    /// Holds the broker to what it told of a request; `claim` is what it says now, nothing where
    /// it does not list it among the open ones.
    fn check(&mut self, request: u64, claim: Option<&Value>) {
        let told = self.requests[&request].told.clone();
        let state = claim.and_then(|claim| claim["state"].as_str());
        let lease = claim.and_then(|claim| claim["lease"]["lease"].as_u64());
        let kept = match &told {
            Told::Open => true,
            Told::Queued { claim: number } => match state {
                Some("queued") => claim.is_some_and(|claim| claim["claim"] == *number),
                // Told of nobody yet, and decided since.
                Some("granted") => true,
                _ => false,
            },
            Told::Granted { lease: own, resources } => {
                lease == Some(*own) && claim.is_some_and(|claim| names(&claim["lease"]) == *resources)
            }
            Told::Releasing { lease: own } => state != Some("granted") || lease == Some(*own),
            Told::Over { code } => claim.is_none_or(|claim| state == Some("ended") && claim["end"]["code"] == **code),
        };
        assert!(kept, "{} was told of request {request}: {told:?}; now it is {claim:?}", self.name);
        if let (Some(claim), Told::Open | Told::Queued { .. }) = (claim, &told) {
            self.learn(request, claim);
        }
    }

    /// Checks the state that a resume answered.
    fn check_state(&mut self, state: &Value) {
        let listed: BTreeMap<u64, Value> = state["claims"]
            .as_array()
            .map(|claims| {
                claims.iter().filter_map(|claim| Some((claim["request_id"].as_u64()?, claim.clone()))).collect()
            })
            .unwrap_or_default();
        let requests: Vec<u64> = self.requests.keys().copied().collect();
        for request in &requests {
            self.check(*request, listed.get(request));
        }
        let unknown: Vec<&u64> = listed.keys().filter(|request| !requests.contains(request)).collect();
        assert!(unknown.is_empty(), "{}: the broker lists what was over or never asked: {unknown:?}", self.name);
    }

    /// Makes a call that is answered in the end, however many brokers that takes.
    fn must(&mut self, method: &str, params: Value) -> Value {
        loop {
            self.connect();
            let answer = self.socket.as_mut().and_then(|socket| socket.call_while_up(method, params.clone()));
            match answer {
                Some(Ok(result)) => {
                    self.field.answers.fetch_add(1, Ordering::Relaxed);
                    return result;
                }
                Some(Err(error)) => panic!("{}: {method} {params} failed: {error}", self.name),
                None => self.socket = None,
            }
        }
    }

    /// Sees to it that there was a connection with the session just now.
    fn connect(&mut self) {
        while self.socket.is_none() {
            self.give_up_where_others_failed();
            let mut socket = eventually("a broker", || Client::try_connect(self.port));
            if self.session.is_null() {
                let params = json!({ "owner": self.name, "instance": self.name, "ttl_ms": TTL_MS });
                if let Some(opened) = socket.call_while_up("session.open", params) {
                    self.session = opened.expect("a session can be opened");
                    self.count_by(&self.session.clone());
                    self.socket = Some(socket);
                }
                continue;
            }
            match socket.call_while_up("session.resume", self.resumption()) {
                Some(Ok(resumed)) => {
                    self.resumed += 1;
                    self.count_by(&resumed);
                    self.check_state(&resumed["state"]);
                    self.socket = Some(socket);
                }
                Some(Err(error)) => panic!("{}: the session was lost: {error}", self.name),
                None => {}
            }
        }
    }

    /// The numbers of renewals grow, over restarts too.
    fn count_by(&mut self, renewed: &Value) {
        let renewal = renewed["renewal"].as_u64().expect("a renewal has a number");
        assert!(renewal > self.renewal, "{}: renewal {renewal} after {}", self.name, self.renewal);
        self.renewal = renewal;
    }

    fn resumption(&self) -> Value {
        let (session, secret) = (&self.session["session"], &self.session["secret"]);
        json!({ "session": session, "secret": secret, "instance": self.name, "renewal": self.renewal })
    }

    /// Closes the session, and sees that it stays closed.
    fn close(&mut self) {
        self.connect();
        let mut answer = self.socket.take().and_then(|mut socket| socket.call_while_up("session.close", json!({})));
        while answer.is_none() {
            // Nobody knows whether it is closed: closing it from outside settles that.
            self.give_up_where_others_failed();
            let named = json!({ "session": self.session["session"], "secret": self.session["secret"] });
            let mut socket = eventually("a broker", || Client::try_connect(self.port));
            answer = socket.call_while_up("session.close", named);
        }
        if let Some(Err(error)) = answer {
            panic!("{}: the session cannot be closed: {error}", self.name);
        }
        self.field.answers.fetch_add(1, Ordering::Relaxed);
        self.must_be_gone();
        (self.session, self.renewal, self.last_request) = (Value::Null, 0, 0);
        self.requests.clear();
    }

    fn must_be_gone(&self) {
        let refusal = eventually("an answer", || {
            Client::try_connect(self.port)?.call_while_up("session.resume", self.resumption())
        });
        let code = refusal.expect_err("a closed session is closed")["data"]["code"].clone();
        assert_eq!(code, "session_gone", "{}", self.name);
    }

    fn give_up_where_others_failed(&self) {
        assert!(!self.field.failed.load(Ordering::Relaxed), "{}: another runner has failed", self.name);
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.field.failed.store(true, Ordering::Relaxed);
        }
    }
}

/// The names of a lease's resources, in order.
fn names(lease: &Value) -> Vec<String> {
    let aliases = lease["resources"].as_object().into_iter().flat_map(|aliases| aliases.values());
    let picks = aliases.filter_map(Value::as_array).flatten();
    picks.filter_map(|pick| Some(pick["name"].as_str()?.to_owned())).collect()
}
