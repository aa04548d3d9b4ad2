//! The pieces that a lease cycle is made of, and the worst that one claim can ask for.

use std::net::{IpAddr, Ipv4Addr};

use leasehold::core::command::{ClaimReply, Reply};
use leasehold::protocol::info::ClaimInfo;
use leasehold::protocol::rpc::{Id, Incoming, Response};
use leasehold::server::convert;
use leasehold::store::Store as _;
use leasehold::store::sqlite::Sqlite;

use super::lab::Lab;
use super::measure;

const FRAME: &str = r#"{"jsonrpc":"2.0","id":17,"method":"lease.acquire","params":{"request_id":9,"needs":["phone,os=android"],"tags":{"job":"https://ci.example/builds/4711","commit":"3f786850e387550fdab836ed7e6dc881de23001b"}}}"#;
const RELEASE: &str = r#"{"jsonrpc":"2.0","id":18,"method":"lease.release","params":{"lease":4711}}"#;
const TIMES: usize = 100;

/// Measures all of them.
pub fn run() {
    frames();
    answer();
    cycle();
    commit();
    matching();
    expressions();
}

fn frames() {
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for (name, text) in [("read an acquire", FRAME), ("read a release", RELEASE)] {
        measure(name, TIMES, || {
            for _ in 0..TIMES {
                let read: Incoming<'_> = serde_json::from_str(text).expect("a frame");
                let method = read.method.as_deref().unwrap_or_default();
                convert::call(method, read.params, peer).expect("a call");
            }
        });
    }
}

fn answer() {
    let text = r#"{"request_id":9,"claim":41,"state":"granted","lease":{"lease":42,"fence":42,"state":"active","claim":41,
        "session":7,"request_id":9,"owner":"team-a","owner_verified":false,"needs":["phone,os=android"],
        "resources":{"phone":[{"name":"pixel-8-01","pool":"phone","labels":{"os":"android","api":34},
        "properties":{"serial":"emulator-5554"},"slots":1}]},"tags":{"job":"https://ci.example/builds/4711"},
        "queued_at":1,"queued_at_time":"2026-01-01T00:00:00Z","granted_at":1,
        "granted_at_time":"2026-01-01T00:00:00Z"},
        "now":1,"now_time":"2026-01-01T00:00:00Z"}"#;
    let info: ClaimInfo = match serde_json::from_str(text) {
        Ok(info) => info,
        Err(error) => panic!("the answer's example is out of date: {error}"),
    };
    let id = Id::Number(17);
    measure("write an answer", TIMES, || {
        for _ in 0..TIMES {
            let response = Response { jsonrpc: "2.0", id: Some(&id), result: Some(&info), error: None };
            serde_json::to_string(&response).expect("an answer is JSON");
        }
    });
}

/// Acquire and release of something free, decided.
fn cycle() {
    let mut lab = Lab::of(1_000, 100);
    let session = lab.join();
    // The selection is made once, by whoever asks first.
    let lease = lab.ask(session, "pool-1,os=android").expect("something is free");
    let (_, owner) = lab.held[0];
    lab.decide(Lab::releasing(lease, owner));
    let asked: Vec<_> = (0..TIMES).map(|_| lab.asking(session, "pool-1,os=android")).collect();
    measure("decide a cycle", TIMES, || {
        for command in asked {
            let (reply, ..) = lab.decided(command);
            let Reply::Claim { stands: ClaimReply::Granted(lease), .. } = reply else { panic!("{reply:?}") };
            lab.decided(Lab::releasing(lease, owner));
        }
    });
}

/// Sixteen cycles as one batch, written by SQLite and its thread.
fn commit() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    runtime.block_on(async {
        let mut store = Sqlite::open(folder.path().join("lab.db")).await.expect("a store");
        let mut lab = Lab::of(0, 1);
        lab.declare_beside(50);
        let session = lab.join();
        let mut batches = lab.batches(20, session);
        let rest = batches.split_off(10);
        for batch in batches {
            store.commit(&batch).await.expect("a commit");
        }
        let times = rest.len();
        let began = leasehold::clock::boot_now_us();
        super::callgrind::begin();
        for batch in &rest {
            store.commit(batch).await.expect("a commit");
        }
        super::callgrind::end(&format!("commit 16 cycles {times}"));
        super::tell("commit 16 cycles", times, began);
        store.close().await;
    });
}

/// Claims for which the search has most to do.
fn matching() {
    let mut lab = Lab::of(600, 600);
    let session = lab.join();
    let spread: Vec<String> = (0..16).map(|n| format!("n{n}=8:pool-0,site={}", ["berlin", "paris"][n % 2])).collect();
    for (name, needs, same, distinct) in [
        ("match 16 needs of one pool", spread.clone(), None, None),
        ("match same over 600", vec!["40:pool-0".to_owned()], Some("api"), None),
        ("match distinct over 600", vec!["a=2:pool-0".to_owned(), "b=2:pool-0,os=ios".to_owned()], None, Some("api")),
        ("match same and distinct", vec!["a=2:pool-0".to_owned(), "b=2:pool-0".to_owned()], Some("os"), Some("api")),
    ] {
        let command = lab.asking_all(session, &needs, same, distinct);
        measure(name, 1, || lab.decided(command));
    }
}

/// An expression as long as may be, over a large pool: the first claim with it pays.
fn expressions() {
    let mut lab = Lab::of(10_000, 10_000);
    let session = lab.join();
    let long: Vec<String> = (0..40).map(|n| format!("api != {}", 100 + n)).collect();
    let need = format!("pool-0 where {}", long.join(" && "));
    let command = lab.asking(session, &need);
    measure("select by CEL over 10,000", 1, || lab.decided(command));
    let command = lab.asking(session, &need);
    measure("ask with it again", 1, || lab.decided(command));
    let named: Vec<String> = (0..40).map(|n| format!("name != 'x{n}'")).collect();
    let command = lab.asking(session, &format!("pool-0 where {}", named.join(" && ")));
    measure("select by names over 10,000", 1, || lab.decided(command));
}
