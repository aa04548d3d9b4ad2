//! `store copy`, `backup` and `restore`: rows from one store into another.

use std::path::Path;

use serde::Serialize;

use super::place::{Place, at};
use crate::archive::fill::{self, Copied};
use crate::archive::moving;
use crate::cli::output;
use crate::cli::words;
use crate::cli::{Failure, exit_code, runtime};
use crate::clock::wall_now_ms;
use crate::core::event::Event;
use crate::store::StoreError;
use crate::store::archive::{Snapshot, Target};
use crate::store::postgres::{PostgresSnapshot, PostgresTarget};
use crate::store::sqlite::{self, Replace, SqliteSnapshot, SqliteTarget};

/// What is printed with `--json`.
#[derive(Serialize)]
struct Report {
    from: String,
    to: String,
    #[serde(flatten)]
    copied: Copied,
    #[serde(flatten)]
    moved: Moved,
    /// Where the store that was there is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_aside: Option<String>,
}

/// What putting a copy into use came to.
#[derive(Default, Serialize)]
struct Moved {
    sessions_ended: usize,
    leases_ended: usize,
    /// Every fence given from here on is above it.
    last_lease: u64,
}

/// What a copy is made for.
#[derive(Clone, Copy)]
enum Purpose {
    /// To be served; no store of this lab is known to have given a fence above this.
    Use { last_lease: u64 },
    /// To be kept.
    Keep,
}

pub(super) fn copy(from: &Place, to: &Place, json: bool) -> Result<u8, Failure> {
    if from.is(to) {
        return Err(Failure::usage(format!("--from and --to are the same store, {from}")));
    }
    let copied = runtime()?.block_on(async {
        match from {
            Place::File(path) => {
                let source = still_file(path).await.map_err(|error| at(from, error))?;
                if source.is_backup() {
                    return Err(Failure::refused(format!(
                        "{from} is a backup: put it into use with `leasehold store restore FILE --store {to}`"
                    )));
                }
                put_into_use(source, to, false).await
            }
            Place::Database { url, .. } => {
                let source = PostgresSnapshot::offline(url, |ms| {
                    let seconds = ms.div_ceil(1_000);
                    output::say(&format!(
                        "a broker did not say that it stopped: watching for {seconds} s whether it is there still"
                    ));
                });
                put_into_use(source.await.map_err(|error| at(from, error))?, to, false).await
            }
        }
    });
    tell(&copied?, "copied", json)
}

pub(super) fn restore(file: &Path, to: &Place, force: bool, json: bool) -> Result<u8, Failure> {
    let from = Place::File(file.to_owned());
    if from.is(to) {
        return Err(Failure::usage(format!("{} is the store itself, not a backup of it", file.display())));
    }
    if force && matches!(to, Place::Database { .. }) {
        return Err(Failure::usage("--force moves a file aside, and a database cannot be: name an empty one"));
    }
    let restored = runtime()?.block_on(async {
        let source = still_file(file).await.map_err(|error| at(&from, error))?;
        put_into_use(source, to, force).await
    });
    tell(&restored?, "restored", json)
}

pub(super) fn backup(from: &Place, file: &Path, force: bool, json: bool) -> Result<u8, Failure> {
    if !force && file.symlink_metadata().is_ok() {
        return Err(Failure::refused(format!(
            "{} is there already: name another file, or say --force",
            file.display()
        )));
    }
    if from.is(&Place::File(file.to_owned())) {
        return Err(Failure::usage(format!("{} is the store itself", file.display())));
    }
    runtime()?.block_on(async {
        match from {
            Place::File(path) => sqlite::backup(path, file).await.map_err(|error| at(from, error)),
            Place::Database { url, .. } => {
                let source = PostgresSnapshot::open(url).await.map_err(|error| at(from, error))?;
                let to = Place::File(file.to_owned());
                let target = SqliteTarget::backup(file).await.map_err(|error| at(&to, error))?;
                filled(source, target, Purpose::Keep).await.map(drop)
            }
        }
    })?;
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    if json {
        let told = serde_json::json!({ "from": from.to_string(), "to": file.display().to_string(), "bytes": bytes });
        output::print(&output::json(&told)?)?;
    } else {
        output::say(&format!("backed {from} up into {}, {bytes} bytes", file.display()));
    }
    Ok(exit_code::DONE)
}

/// Opens the file of a store that no broker has open, or a backup.
async fn still_file(path: &Path) -> Result<SqliteSnapshot, StoreError> {
    // What an older version wrote is read from a copy.
    let scratch = std::env::temp_dir().join(format!("leasehold-{}.db", std::process::id()));
    SqliteSnapshot::offline(path, &scratch).await
}

async fn put_into_use<S: Snapshot>(from: S, to: &Place, force: bool) -> Result<Report, Failure> {
    let no_room = |error| match error {
        StoreError::NotEmpty { .. } => {
            let remedy = match to {
                Place::File(_) => "name another, or move that one away (`store restore --force` does that)",
                Place::Database { .. } => "name an empty database, or make this one empty yourself",
            };
            Failure::refused(format!("{error}: {remedy}"))
        }
        other => at(to, other),
    };
    match to {
        Place::File(path) => {
            let aside = || Replace::Aside(format!(".replaced-{}", wall_now_ms() / 1_000));
            let replace = if force { aside() } else { Replace::Nothing };
            let target = SqliteTarget::store(path, replace).await.map_err(no_room)?;
            let last_lease = if force { last_lease(path).await } else { 0 };
            filled(from, target, Purpose::Use { last_lease }).await
        }
        Place::Database { url, .. } => {
            let target = PostgresTarget::store(url).await.map_err(no_room)?;
            filled(from, target, Purpose::Use { last_lease: 0 }).await
        }
    }
}

/// The highest fence that the store in this file gave; 0 where there is none, or it cannot be read.
async fn last_lease(path: &Path) -> u64 {
    let read = async {
        let mut store = SqliteSnapshot::open(path).await?;
        let head = store.head().await;
        store.close().await?;
        Ok::<u64, StoreError>(head?.lab.last_lease)
    };
    match read.await {
        Ok(last_lease) => last_lease,
        Err(StoreError::Missing { .. }) => 0,
        Err(error) => {
            output::say(&format!("the fences of the store that is moved aside cannot be read: {error}"));
            0
        }
    }
}

async fn filled<S: Snapshot, T: Target>(mut from: S, mut to: T, purpose: Purpose) -> Result<Report, Failure> {
    let (source, target) = (from.name(), to.name());
    let done = async {
        fill::fill(&mut from, &mut to).await.map_err(|error| at(&source, error))?;
        let copied = fill::compare(&mut from, &mut to).await.map_err(|error| at(&target, error))?;
        let moved = match purpose {
            Purpose::Use { last_lease } => put_on_top(&mut to, &source, last_lease).await?,
            Purpose::Keep => Moved::default(),
        };
        Ok((copied, moved))
    };
    let done = done.await;
    // Fails where what kept brokers off the original was lost on the way.
    let closed = from.close().await.map_err(|error| at(&source, error));
    match done.and_then(|done| closed.map(|()| done)) {
        Ok((copied, moved)) => {
            let moved_aside = to.finish().await.map_err(|error| at(&target, error))?;
            Ok(Report { from: source, to: target, copied, moved, moved_aside })
        }
        Err(failure) => {
            // There is no store; what is left of it is nobody's.
            let _ = to.close().await;
            Err(failure)
        }
    }
}

/// The batch by which the copy goes on where the original ended.
async fn put_on_top<T: Target>(to: &mut T, source: &str, last_lease: u64) -> Result<Moved, Failure> {
    let contradicts =
        |how: String| Failure::refused(format!("{source} cannot be put into use: {how}; see `leasehold store check`"));
    let books = fill::books(to).await.map_err(|error| contradicts(error.to_string()))?;
    let batch = moving::moved(&books, source, last_lease, wall_now_ms()).map_err(contradicts)?;
    to.commit(&batch).await.map_err(|error| at(to.name(), error))?;
    let count = |kind: &str| batch.events.iter().filter(|event| event.kind() == kind).count();
    let raised = batch.events.iter().find_map(|event| match event {
        Event::StoreMoved { last_lease, .. } => Some(*last_lease),
        _ => None,
    });
    Ok(Moved {
        sessions_ended: count("session_ended"),
        leases_ended: count("lease_ended"),
        last_lease: raised.unwrap_or_default(),
    })
}

fn tell(report: &Report, did: &str, json: bool) -> Result<u8, Failure> {
    if json {
        output::print(&output::json(report)?)?;
        return Ok(exit_code::DONE);
    }
    let Report { from, to, copied: Copied { events, leases, rows }, moved, moved_aside } = report;
    if let Some(aside) = moved_aside {
        output::say(&format!("the store that was there is kept as {aside}"));
    }
    output::say(&format!(
        "{did} {events} events, {leases} leases and {rows} rows from {from} to {to}, and compared each"
    ));
    output::say(&format!(
        "ended {} and {}; fences go on above {}",
        words::count(moved.sessions_ended, "session"),
        words::count(moved.leases_ended, "lease"),
        moved.last_lease
    ));
    Ok(exit_code::DONE)
}
