//! `store`: proving, copying, backing up and restoring what a broker keeps.
//!
//! Brokers here have lived a little, so that every table has rows; damage is done to their files by
//! SQL, as a disk or a person would do it.

use std::path::{Path, PathBuf};

use leasehold::clock::random_secret;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::common::broker::Broker;
use super::common::http;
use super::common::process::{self, Output};

mod check;
mod moving;

/// The ttl of those who hold something: longer than it takes to get to the kill.
const TTL_MS: u64 = 10_000;

/// Phones that one has at a time, and a licence that three share.
const LAB: &str = r#"
[[pool]]
name = "phone"

[[resource]]
name = "pixel-{1..3}"
pool = "phone"

[[resource]]
name = "licence"
pool = "seats"
slots = 3
"#;

/// A broker that was killed in the middle of things: one holds a phone and waits for more, others
/// are done, in every way there is.
fn lived() -> Broker {
    let mut broker = Broker::with_inventory(LAB);
    let mut ann = broker.session("ann@lab");
    for outcome in ["passed", "failed"] {
        let lease = ann.lease(&["phone", "seats/2"])["lease"].clone();
        ann.call("lease.release", json!({ "lease": lease, "outcome": outcome }));
    }
    let mut bob = broker.connect();
    bob.open_with(json!({ "owner": "bob@lab", "ttl_ms": TTL_MS }));
    bob.lease(&["2:phone"]);
    drop(bob);
    let retry = json!({ "work": "ci/7", "attempt": 1 });
    let mut eve = broker.connect();
    eve.open_with(json!({ "owner": "eve@lab", "ttl_ms": TTL_MS }));
    eve.acquire_with(json!({ "needs": ["phone"], "retry": retry, "hold_ms": 3_600_000, "note": "nightly" }));
    assert_eq!(ann.acquire(&["3:phone"])["state"], "queued");
    let key = random_secret();
    let body = json!({ "request_id": "r", "needs": ["seats"] });
    let headers = [("leasehold-key", key.as_str())];
    let keyed = http::request(broker.port(), "POST", "/v1/leases", &headers, Some(&body)).json();
    let path = format!("/v1/leases/{}/release", keyed["lease"]);
    assert_eq!(http::request(broker.port(), "POST", &path, &headers, None).status, 200, "{keyed}");
    broker.sh("resource set spare --pool phone --label site=b").exits(0);
    broker.sh("resource drain spare --reason dusty").exits(0);
    broker.sh("resource rm spare").exits(0);
    broker.kill9();
    broker
}

/// Runs a `store` command where no broker is needed.
#[track_caller]
fn store(home: &Path, line: &[&str]) -> Output {
    let mut command = process::leasehold(home);
    command.current_dir(home).arg("store").args(line);
    process::run(&mut command)
}

/// How a file is named as a store.
fn named(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// A copy of a file that nobody has open, with what SQLite keeps beside it.
fn duplicate(file: &Path, to: &Path) -> PathBuf {
    for end in ["", "-wal"] {
        let beside = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
        if beside(file).exists() {
            std::fs::copy(beside(file), beside(to)).expect("a file can be copied");
        }
    }
    to.to_owned()
}

/// Does something to a file by SQL.
fn sql(file: &Path, statements: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let mut connection = SqliteConnection::connect_with(&options).await.expect("the file can be opened");
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut connection).await.expect(statements);
        connection.close().await.expect("the file can be closed");
    });
}

/// What `store check --json` says.
#[track_caller]
fn checked(file: &Path, code: i32) -> Value {
    let folder = file.parent().expect("a file is in a folder");
    let said = store(folder, &["check", "--json", "--store", &named(file)]).exits(code).json();
    assert_eq!(said["ok"], code == 0, "{said}");
    said
}

/// A number in what was said.
#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}
