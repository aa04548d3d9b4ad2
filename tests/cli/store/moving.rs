//! `store copy`, `backup` and `restore`: all of it or nothing, and nobody's fence given twice.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::super::common::broker::Broker;
use super::super::common::process::{self, Process};
use super::super::common::wait::until;
use super::{LAB, checked, duplicate, lived, named, number, sql, store};

/// By how much copying and restoring raise the fences.
const SKIPPED: u64 = 1 << 32;

/// Runs a `store` command on files of a folder, which must be done.
#[track_caller]
fn done(home: &Path, line: &[&str]) -> Value {
    let line: Vec<&str> = line.iter().copied().chain(["--json"]).collect();
    store(home, &line).exits(0).json()
}

/// Runs one that must be refused, with `part` in what it says, and nothing made of it.
#[track_caller]
fn refused(home: &Path, line: &[&str], part: &str) {
    let files = || {
        let entries = home.read_dir().expect("the folder is there").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<(PathBuf, Vec<u8>)> = entries
            .filter(|path| path.is_file() && !path.to_string_lossy().ends_with(".lock"))
            .filter(|path| !path.to_string_lossy().contains("-wal") && !path.to_string_lossy().contains("-shm"))
            .map(|path| (path.clone(), std::fs::read(path).expect("it can be read")))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let said = store(home, line).exits(1);
    assert!(said.stderr.contains(part), "{part:?} is not said: {said:?}");
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    assert_eq!(names(&files()), names(&before), "{line:?}");
    assert!(files() == before, "{line:?} changed a file");
}

/// A broker on a store that was made by hand.
fn broker_on(file: &Path) -> Broker {
    let folder = file.parent().expect("a file is in a folder").join("served");
    std::fs::create_dir(&folder).expect("a folder can be made");
    std::fs::rename(file, folder.join("lab.db")).expect("a file can be moved");
    Broker::with(LAB).store_in(&folder).start()
}

fn events(broker: &Broker) -> Vec<Value> {
    let lines = broker.sh("events --json").exits(0).stdout;
    lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn a_copy_goes_on_where_its_original_ended_and_gives_no_fence_again() {
    let mut original = lived();
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let (from, to) = (original.store_path(), home.path().join("copy.db"));
    let said = done(home.path(), &["copy", "--from", &named(&from), "--to", &named(&to)]);
    let events_copied = number(&said["events"]);
    assert!(number(&said["sessions_ended"]) == 3 && number(&said["leases_ended"]) == 2, "{said}");
    assert_eq!(number(&said["last_lease"]), 5 + SKIPPED);
    assert_eq!(std::fs::metadata(&to).expect("it is there").permissions().mode() & 0o777, 0o600);
    checked(&to, 0);
    assert_eq!(number(&checked(&from, 0)["events"]), events_copied, "the original stays as it was");

    let copy = broker_on(&to);
    assert_eq!(copy.sh("session ls --json").exits(0).json(), serde_json::json!([]));
    assert_eq!(copy.sh("lease ls --json").exits(0).json(), serde_json::json!([]));
    assert_eq!(copy.sh("queue ls --json").exits(0).json(), serde_json::json!([]));
    let told = copy.sh("lease show 4 --json").exits(0).json();
    assert_eq!(told["ended"]["why"], "moved", "{told}");
    // What was held is nobody's until its holder cannot use it any more.
    let mut ann = copy.session("ann@lab");
    let claim = ann.acquire(&["3:phone"]);
    assert_eq!(claim["state"], "queued", "{claim}");
    let mut granted = 0;
    until("the phones are free", || {
        granted = copy.sh("lease ls --json").exits(0).json()[0]["lease"].as_u64().unwrap_or(0);
        granted > 0
    });
    assert_eq!(granted, 6 + SKIPPED);
    original.start();
    let (theirs, ours) = (events(&original), events(&copy));
    let whole = usize::try_from(events_copied).expect("few");
    assert_eq!(theirs[..whole], ours[..whole]);
    assert_eq!(ours[whole]["body"]["type"], "store_moved");
    checked(&copy.store_path(), 0);
}

#[test]
fn a_copy_of_a_copy_raises_the_fences_again() {
    let original = lived();
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let [first, second] = ["first.db", "second.db"].map(|name| home.path().join(name));
    done(home.path(), &["copy", "--from", &named(&original.store_path()), "--to", &named(&first)]);
    let said = done(home.path(), &["copy", "--from", &named(&first), "--to", &named(&second)]);
    assert_eq!(number(&said["last_lease"]), 5 + 2 * SKIPPED);
    assert_eq!((&said["sessions_ended"], &said["leases_ended"]), (&0.into(), &0.into()));
    checked(&second, 0);
}

#[test]
fn copying_refuses_what_it_cannot_do_well_and_leaves_everything_as_it_was() {
    let mut original = lived();
    let from = original.store_path();
    let home = original.dir().to_owned();
    let at = |name: &str| named(&home.join(name));
    sql(&home.join("other.db"), "CREATE TABLE theirs (x)");
    // Whoever opens a file folds its log into it, which changes nothing that it holds.
    sql(&from, "PRAGMA wal_checkpoint(TRUNCATE)");
    duplicate(&from, &home.join("full.db"));
    let source = named(&from);
    refused(&home, &["copy", "--from", &source, "--to", &at("full.db")], "is not empty");
    refused(&home, &["copy", "--from", &source, "--to", &at("other.db")], "another program's");
    refused(&home, &["copy", "--from", &at("absent.db"), "--to", &at("new.db")], "there is no store");
    refused(&home, &["copy", "--from", &at("other.db"), "--to", &at("new.db")], "another program's");
    store(&home, &["copy", "--from", &source, "--to", &source]).exits(2);
    store(&home, &["copy", "--from", &source]).exits(2);
    done(&home, &["backup", "backup.db", "--store", &source]);
    refused(&home, &["copy", "--from", &at("backup.db"), "--to", &at("new.db")], "store restore");
    // One that contradicts itself is copied by nobody; the check says what it is.
    let damaged = duplicate(&from, &home.join("damaged.db"));
    sql(&damaged, "DELETE FROM session");
    refused(&home, &["copy", "--from", &named(&damaged), "--to", &at("new.db")], "store check");
    original.start();
    let line = ["copy", "--from", &source, "--to", &at("new.db")];
    let said = store(&home, &line).exits(1);
    assert!(said.stderr.contains("another broker has this store open") && !home.join("new.db").exists(), "{said:?}");
    let line = ["copy", "--from", &at("full.db"), "--to", &source];
    let said = store(&home, &line).exits(1);
    assert!(said.stderr.contains("another broker has this store open"), "{said:?}");
}

#[test]
fn a_copy_that_is_cut_short_is_none() {
    let original = lived();
    let (home, from) = (original.dir().to_owned(), named(&original.store_path()));
    let to = named(&home.join("copy.db"));
    // No file may be longer than a few blocks: a full disk, as far as a process can tell.
    let mut cut = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_leasehold");
    cut.current_dir(&home).args(["-c", "ulimit -f 40; exec \"$0\" \"$@\"", binary, "store", "copy", "--from", &from]);
    let ended = process::run(cut.args(["--to", &to]));
    assert!(ended.code != Some(0) && !home.join("copy.db").exists(), "{ended:?}");
    assert_eq!(number(&done(&home, &["copy", "--from", &from, "--to", &to])["leases"]), 5);
    assert!(!home.join("copy.db.part").exists());
    checked(&home.join("copy.db"), 0);
}

#[test]
fn a_backup_is_made_beside_a_running_broker_and_restored_from() {
    let broker = Broker::with_inventory(LAB);
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let backup = home.path().join("backup.db");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let last = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = broker.session("ann@lab");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let lease = number(&client.lease(&["phone"])["lease"]);
                client.release(lease);
            }
        });
        let line = ["backup", "backup.db", "--store", &named(&broker.store_path())];
        done(home.path(), &line);
        let first = number(&checked(&backup, 0)["events"]);
        refused(home.path(), &line, "--force");
        until("the load goes on", || number(&checked(&broker.store_path(), 0)["events"]) > first);
        done(home.path(), &[&line[..], &["--force"]].concat());
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let said = checked(&backup, 0);
        assert!(number(&said["events"]) > first, "{said}");
        number(&said["leases"])
    });
    assert_eq!(std::fs::metadata(&backup).expect("it is there").permissions().mode() & 0o777, 0o600);
    let restored = home.path().join("restored.db");
    let said = done(home.path(), &["restore", "backup.db", "--store", &named(&restored)]);
    assert_eq!(number(&said["last_lease"]), last + SKIPPED);
    checked(&restored, 0);
    let mut again = broker_on(&restored);
    let mut client = again.session("eve@lab");
    assert_eq!(number(&client.lease(&["seats"])["lease"]), last + SKIPPED + 1);
    again.restart();
    checked(&again.store_path(), 0);
}

#[test]
fn no_broker_serves_a_backup() {
    let broker = lived();
    done(broker.dir(), &["backup", "backup.db", "--store", &named(&broker.store_path())]);
    let mut serve = process::leasehold(broker.dir());
    let backup = named(&broker.dir().join("backup.db"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--store", &backup]);
    let ended = Process::start(&mut serve).wait().exits(1);
    assert!(ended.stderr.contains("store restore"), "{ended:?}");
}

#[test]
fn a_restore_moves_what_was_there_aside_only_when_told() {
    let mut broker = lived();
    let (home, path) = (broker.dir().to_owned(), broker.store_path());
    let lab = named(&path);
    done(&home, &["backup", "backup.db", "--store", &lab]);
    broker.start();
    let mut client = broker.session("late@lab");
    let late = number(&client.lease(&["seats"])["lease"]);
    let busy = store(&home, &["restore", "backup.db", "--force", "--store", &lab]).exits(1);
    assert!(busy.stderr.contains("another broker has this store open"), "{busy:?}");
    broker.kill9();
    refused(&home, &["restore", "absent.db", "--force", "--store", &lab], "there is no store");
    let before = checked(&path, 0);
    refused(&home, &["restore", "backup.db", "--store", &lab], "--force");
    let said = done(&home, &["restore", "backup.db", "--force", "--store", &lab]);
    // The fences that were given after the backup are not given again.
    assert_eq!(number(&said["last_lease"]), late + SKIPPED);
    let aside = PathBuf::from(said["moved_aside"].as_str().expect("it says where"));
    assert_eq!(checked(&aside, 0)["events"], before["events"]);
    checked(&path, 0);
    store(&home, &["restore", &path.to_string_lossy(), "--force", "--store", &lab]).exits(2);
    broker.start();
    assert_eq!(number(&broker.session("next@lab").lease(&["seats"])["lease"]), late + SKIPPED + 1);
}

#[test]
fn what_an_older_version_wrote_is_backed_up_and_restored() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let old = home.path().join("old.db");
    sql(&old, include_str!("../../../schema/sqlite/0001_first.sql"));
    sql(&old, "PRAGMA application_id = 0x6C686C64; PRAGMA user_version = 1; PRAGMA journal_mode = WAL");
    done(home.path(), &["backup", "backup.db", "--store", &named(&old)]);
    let new = home.path().join("new.db");
    for from in ["backup.db", "old.db"] {
        let said = done(home.path(), &["restore", from, "--force", "--store", &named(&new)]);
        assert_eq!(number(&checked(&new, 0)["events"]), 1, "{said}");
    }
    let said = store(home.path(), &["check", "--store", &named(&old)]).exits(1);
    assert!(said.stderr.contains("version 1"), "the original stays what it was: {said:?}");
}
