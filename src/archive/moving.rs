//! What the core says of books that are put into use elsewhere.

use crate::core::broker::Broker;
use crate::core::command::{Command, Reply};
use crate::core::limits::Limits;
use crate::core::tables::{Batch, Tables};
use crate::core::types::LabTime;

/// The batch that puts books into use which came from the store called `from`: every session ends,
/// and fences go on far above both theirs and `last_lease`, the highest known to have been given.
///
/// # Errors
/// In words, where the tables contradict each other, or fences cannot be raised any more.
pub fn moved(tables: &Tables, from: &str, last_lease: u64, wall_ms: i64) -> Result<Batch, String> {
    let mut broker = Broker::new(tables, Limits::default())?;
    broker.stop_granting();
    // As a process that takes the books over counts it.
    let passed = u64::try_from(wall_ms.saturating_sub(tables.wall_ms)).unwrap_or(0);
    let at: LabTime = tables.lab.now.plus(passed);
    if let Reply::Refused(refusal) = broker.decide(at, Command::Move { from: from.into(), last_lease }) {
        return Err(refusal.message.to_string());
    }
    let (events, tables_changed) = broker.take_batch();
    let (number, first_event) = (tables.batch + 1, tables.last_event + 1);
    Ok(Batch { number, at, wall_ms, first_event, events, tables: tables_changed })
}
