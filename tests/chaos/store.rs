//! A store in trouble: what is held stays held and nothing told is lost; nothing new is granted
//! until it works again, which needs nobody's help.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leasehold::clock::boot_now;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::common::broker::Broker;
use super::common::process::{self, Output, Process};
use super::common::wait::{eventually, until};
use super::common::ws::Client;
use super::{LAB, free_port, granted, number, queue, resume, runtime, session, skipped};

/// The ttl of who holds a lease over the trouble: it asks all the time.
const TTL_MS: u64 = 3_000;

/// What an asker was told of its requests.
type Told = BTreeMap<u64, Value>;

/// Asks for what is free and lets it go again, until the store fails under it. Answers the number
/// of the call that has no answer yet: whether it was done is not known, so nothing is said of it
/// before the store says so.
fn ask_until_it_fails(asker: &mut Client, told: &mut Told, mut meanwhile: impl FnMut() -> bool) -> (u64, u64) {
    eventually("the store fails", || {
        meanwhile();
        let request = told.keys().next_back().map_or(1, |last| last + 1);
        let asked = asker.ask("lease.acquire", json!({ "request_id": request, "needs": ["board"] }));
        let Some(answer) = answered(asker, asked, &mut meanwhile) else { return Some((request, asked)) };
        let lease = number(&answer["lease"]["lease"]);
        told.insert(request, answer);
        let asked = asker.ask("lease.release", json!({ "lease": lease }));
        // Where this is not answered either way may be true: it is asked again.
        let Some(answer) = answered(asker, asked, &mut meanwhile) else {
            told.remove(&request);
            return Some((request, asked));
        };
        assert_eq!(answer["why"], "released", "{answer}");
        told.insert(request, json!({ "state": "ended" }));
        None
    })
}

/// Waits for an answer as long as the store works, which `works` says.
fn answered(asker: &mut Client, asked: u64, works: &mut impl FnMut() -> bool) -> Option<Value> {
    eventually("an answer or a failing store", || match asker.answer_within(Duration::from_millis(50), asked) {
        Some(Ok(answer)) => Some(Some(answer)),
        Some(Err(error)) => {
            assert_eq!(error["data"]["code"], "unavailable", "{error}");
            Some(None)
        }
        None if works() => None,
        None => Some(None),
    })
}

/// The story of a store that fails and works again, on whatever disk. `spoil` is called as often
/// as wanted, `mend` once. `for_sure` where nothing at all can be stored in between.
fn a_store_fails_and_works_again(
    mut broker: Broker,
    spoil: impl Fn(&mut Broker),
    mend: impl FnOnce(&mut Broker),
    for_sure: bool,
) {
    let mut holder = session(broker.port(), "holder", TTL_MS);
    let lease = number(&holder.lease(&["phone,name=phone-1"])["lease"]);
    let mut waiting = session(broker.port(), "waiting", 60_000);
    queue(&mut waiting, &["phone,name=phone-1"]);
    let mut leaving = session(broker.port(), "leaving", 60_000);
    leaving.lease(&["phone,name=phone-2"]);
    let mut heir = session(broker.port(), "heir", 60_000);
    queue(&mut heir, &["phone,name=phone-2"]);
    let mut asker = session(broker.port(), "asker", 60_000);
    let mut told = Told::new();

    let (undone, _) = ask_until_it_fails(&mut asker, &mut told, || {
        spoil(&mut broker);
        holder.call("session.renew", json!({}));
        broker.http("GET", "/readyz", None).status == 200
    });
    eventually("the broker says so to probes", || {
        spoil(&mut broker);
        holder.call("session.renew", json!({}));
        let ready = broker.http("GET", "/readyz", None);
        (ready.status == 503 && ready.json()["detail"].as_str().is_some_and(|text| text.contains("store")))
            .then_some(())
    });
    let notice = holder.notice("store.state");
    assert_eq!(notice["working"], false, "{notice}");
    assert!(notice["message"].as_str().is_some_and(|text| text.contains("leases are kept")), "{notice}");
    leaving.close();

    // Several ttls: only renewals keep the lease, and they are answered.
    let until_then = boot_now().plus(3 * TTL_MS);
    while boot_now() < until_then {
        let renewed = holder.call("session.renew", json!({}));
        assert_eq!(renewed["promise_ms"], TTL_MS, "{renewed}");
        holder.attend(boot_now().plus(100));
        spoil(&mut broker);
    }
    if for_sure {
        let again = json!({ "request_id": undone, "needs": ["board"] });
        let error = asker.try_call("lease.acquire", again).expect_err("nothing can be stored");
        assert_eq!(error["data"]["code"], "unavailable", "{error}");
        assert_eq!(broker.http("GET", "/readyz", None).status, 503);
    }

    mend(&mut broker);
    until("the broker grants again", || {
        holder.call("session.renew", json!({}));
        broker.http("GET", "/readyz", None).status == 200
    });
    until("clients are told", || {
        holder.call("session.renew", json!({}));
        holder.notice("store.state")["working"] == true
    });
    // What was let go in the meantime is given on by itself.
    granted(&mut heir);
    // The same request, this time done.
    let claim = asker.acquire_with(json!({ "request_id": undone, "needs": ["board"] }));
    assert!(claim["state"] == "granted" || claim["end"]["code"] == "released", "{claim}");
    told.insert(undone, claim);
    assert_eq!(holder.release(lease)["why"], "released");
    let (given, _) = granted(&mut waiting);

    broker.restart();
    let waiting = resume(broker.port(), &waiting);
    assert_eq!(waiting.opened["state"]["claims"][0]["lease"]["lease"], given["lease"], "{}", waiting.opened);
    let mut asker = resume(broker.port(), &asker);
    for (request, told) in told {
        let now = asker.acquire_with(json!({ "request_id": request, "needs": ["board"] }));
        assert_eq!(now["state"], told["state"], "request {request}: {now}");
        if told["state"] == "granted" {
            assert_eq!(now["lease"]["lease"], told["lease"]["lease"], "request {request}");
        }
    }
}

/// Bounds from outside how far the broker's files may grow.
fn limit_files(broker: &mut Broker, most: &str) {
    let pid = broker.process().pid().to_string();
    let output = process::run(Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={most}")]));
    output.exits(0);
}

#[test]
fn a_store_that_takes_nothing_is_outlived() {
    if Command::new("prlimit").arg("--version").output().is_err() {
        return skipped("there is no prlimit (util-linux); no store was made to fail");
    }
    let spoil = |broker: &mut Broker| limit_files(broker, "0:");
    let mend = |broker: &mut Broker| limit_files(broker, "unlimited:");
    a_store_fails_and_works_again(Broker::with_inventory(LAB), spoil, mend, true);
}

/// A disk of its own, as small as wanted, that is gone with its value.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Result<Self, Output> {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "leasehold-test"]).arg(folder.path());
        let output = process::run(&mut command);
        if output.code == Some(0) { Ok(Self(folder)) } else { Err(output) }
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut filler = OpenOptions::new().append(true).create(true).open(self.filler()).expect("a file can be made");
        for piece in [64 * 1024, 4096, 1] {
            while filler.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder cannot be removed before; where it fails the output says why.
        process::run(Command::new("umount").arg("--lazy").arg(self.0.path()));
    }
}

#[test]
fn a_full_disk_is_outlived() {
    let disk = match Disk::mount("8m") {
        Ok(disk) => disk,
        Err(output) => return skipped(&format!("no disk may be mounted here: {}", output.stderr.trim())),
    };
    let broker = Broker::with(LAB).store_in(disk.0.path()).start();
    a_store_fails_and_works_again(broker, |_| disk.fill(), |_| disk.free(), false);
}

/// `serve` on this store, to its end; nothing else of it matters.
fn serve_on(store: &Path) -> Output {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = process::leasehold(home.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--store"]).arg(format!("sqlite:{}", store.display()));
    process::run(&mut command)
}

#[test]
fn a_second_broker_on_the_same_file_is_refused_and_harms_nobody() {
    let broker = Broker::with_inventory(LAB);
    let mut holder = broker.session("holder");
    let lease = number(&holder.lease(&["phone"])["lease"]);
    let output = serve_on(&broker.store_path()).exits(1);
    assert!(output.stderr.contains("another broker has this store open"), "{}", output.stderr);
    assert!(output.stderr.contains("lab.db.lock"), "the lock is named: {}", output.stderr);
    assert_eq!(output.stdout, "");
    assert_eq!(holder.release(lease)["why"], "released");
}

#[test]
fn a_store_of_a_newer_version_is_refused_untouched() {
    let mut broker = Broker::with_inventory(LAB);
    broker.term().exits(0);
    let store = broker.store_path();
    set_version(&store, 9_999);
    let before = files(broker.dir());
    let output = serve_on(&store).exits(1);
    assert!(output.stderr.contains("9999"), "{}", output.stderr);
    assert!(output.stderr.contains("use the newer leasehold"), "{}", output.stderr);
    let after = files(broker.dir());
    assert!(before == after, "it was touched: {:?} became {:?}", before.keys(), after.keys());
}

/// What a newer version would have written into the file's head.
fn set_version(store: &Path, version: u32) {
    use sqlx::{Connection, SqliteConnection};
    runtime().block_on(async {
        let url = format!("sqlite:{}", store.display());
        let mut connection = SqliteConnection::connect(&url).await.expect("the store can be opened");
        let change = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
        sqlx::raw_sql(change).execute(&mut connection).await.expect("the version can be set");
        connection.close().await.expect("the store can be closed");
    });
}

/// Every file of the folder with what is in it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("the folder can be read").map_while(Result::ok);
    let files = entries.filter(|entry| entry.path().is_file());
    let named = files.map(|file| (file.file_name().to_string_lossy().into_owned(), file.path()));
    named.map(|(name, path)| (name, std::fs::read(path).expect("a file can be read"))).collect()
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let port = free_port();
    std::fs::write(home.path().join("lab.toml"), LAB).expect("a temporary file can be written");
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>/dev/full", "sh", env!("CARGO_BIN_EXE_leasehold"), "serve"]);
    command.args(["--store", "sqlite:lab.db", "--inventory", "lab.toml", "--listen", &format!("127.0.0.1:{port}")]);
    let mut broker = Process::start(command.current_dir(home.path()));
    let mut holder = eventually("a broker", || {
        assert!(broker.poll().is_none(), "it ended");
        Client::try_connect(port)
    });
    holder.open("holder");
    holder.lease(&["phone"]);
    broker.signal(Signal::SIGTERM);
    holder.notice("session.renew_now");
    holder.call("session.renew", json!({}));
    broker.wait().exits(0);
}
