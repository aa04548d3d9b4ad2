//! Proving a store: its tables are what its journal gives, by the code that made them.
//!
//! The books as of the checkpoint, or empty ones, are carried on by every event since, each held
//! against the promises that the simulation watches; then each table is compared with them row by
//! row. The history of leases is compared with the whole journal. What is kept in memory is the
//! state itself, one table's rows and a piece of the journal, however long that is.

use serde::Serialize;

use super::findings::{Findings, cut};
use super::history::History;
use super::state;
use crate::core::event::Event;
use crate::core::invariants::Witness;
use crate::core::tables::{LabRecord, Tables};
use crate::core::types::LabTime;
use crate::store::StoreError;
use crate::store::archive::{Head, JournalRow, Snapshot};
use crate::store::names::names;

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The last batch in the store.
    pub batch: u64,
    /// Events in the journal.
    pub events: u64,
    /// The event after which they were replayed: that of the checkpoint.
    pub replayed_after: u64,
    /// Events replayed.
    pub replayed: u64,
    /// Rows of the state's tables.
    pub rows: u64,
    /// Leases, ended ones too.
    pub leases: u64,
    /// What is wrong.
    #[serde(flatten)]
    pub found: Findings,
}

/// Checks a store. Says what is wrong with it in the answer.
///
/// # Errors
/// Where it cannot be read.
pub async fn check<S: Snapshot>(from: &mut S) -> Result<Checked, StoreError> {
    let head = from.head().await?;
    let mut found = Findings::default();
    let (start, mut replay) = begin(from, &mut found).await?;
    let mut journal = Journal { previous: None, start };
    let mut history = History::default();
    let mut checked = Checked { batch: head.batch, replayed_after: start, ..Checked::default() };
    loop {
        let rows = from.journal(journal.last()).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            checked.events += 1;
            let event = journal.see(&row, &head, &mut found);
            let Some(event) = event else {
                replay.stop();
                continue;
            };
            history.see(from, row.at, &event, &mut found).await?;
            if row.number > start {
                checked.replayed += u64::from(replay.see(&row, &event, &mut found));
            }
            journal.previous = Some(JournalRow { body: String::new(), ..row });
        }
        replay.settle();
    }
    journal.finish(&head, &mut found);
    let books = replay.books();
    checked.leases = history.finish(from, books.map(Witness::state), &mut found).await?;
    match books {
        Some(books) => {
            let tables = books.state().tables();
            compare_lab(&head, tables.lab, &mut found);
            checked.rows = state::compare(from, &tables, &mut found).await?;
        }
        None => found.add("journal", "", "the tables were not compared, as the journal cannot be replayed"),
    }
    checked.found = found;
    Ok(checked)
}

/// The event after which replaying begins, and the books as they were then.
async fn begin<S: Snapshot>(from: &mut S, found: &mut Findings) -> Result<(u64, Replay), StoreError> {
    let Some(row) = from.checkpoint().await? else { return Ok((0, Replay(Some(Witness::default())))) };
    let read = serde_json::from_str::<Tables>(&row.tables).map_err(|error| format!("it cannot be read: {error}"));
    let books = read.and_then(|tables| {
        if (tables.last_event, tables.batch, tables.lab.now.0) != (row.event, row.batch, row.at) {
            return Err(format!("it is of event {}, batch {} and not what its row says", row.event, row.batch));
        }
        Witness::of(&tables)
    });
    match books {
        Ok(books) => Ok((row.event, Replay(Some(books)))),
        Err(what) => {
            found.add("checkpoint", row.event, what);
            Ok((row.event, Replay(None)))
        }
    }
}

/// The books that the journal gives so far; `None` once it makes no sense.
struct Replay(Option<Witness>);

impl Replay {
    const fn books(&self) -> Option<&Witness> {
        self.0.as_ref()
    }

    fn stop(&mut self) {
        self.0 = None;
    }

    /// Carries the books on by an event; whether that was possible.
    fn see(&mut self, row: &JournalRow, event: &Event, found: &mut Findings) -> bool {
        let Some(books) = &mut self.0 else { return false };
        let at = LabTime(row.at);
        let seen = match books.fits(at, event) {
            Ok(()) => books.see(at, event).map_err(|broken| format!("{} breaks a promise: {broken}", row.kind)),
            Err(how) => Err(format!("{} does not fit what was before: {how}", row.kind)),
        };
        match seen {
            Ok(()) => true,
            Err(what) => {
                found.add("journal", row.number, what);
                self.stop();
                false
            }
        }
    }

    fn settle(&mut self) {
        if let Some(books) = &mut self.0 {
            books.settle();
        }
    }
}

/// The journal as rows: its numbers and times.
struct Journal {
    previous: Option<JournalRow>,
    /// The event after which replaying begins: the journal may begin there, or before.
    start: u64,
}

impl Journal {
    fn last(&self) -> u64 {
        self.previous.as_ref().map_or(0, |row| row.number)
    }

    /// Looks at a row; answers its event where that can be read.
    fn see(&mut self, row: &JournalRow, head: &Head, found: &mut Findings) -> Option<Event> {
        self.is_next(row, head, found);
        let event = match serde_json::from_str::<Event>(&row.body) {
            Ok(event) => event,
            Err(error) => {
                found.add("journal", row.number, format!("it cannot be read ({error}): {}", cut(&row.body)));
                self.previous = Some(row.clone());
                return None;
            }
        };
        if row.kind != event.kind() {
            found.add("journal", row.number, format!("its kind is {} and should be {}", cut(&row.kind), event.kind()));
        }
        if row.names != names(&event) {
            let what = format!("it names {:?} and should name {:?}", row.names, names(&event));
            found.add("journal", row.number, what);
        }
        Some(event)
    }

    fn is_next(&self, row: &JournalRow, head: &Head, found: &mut Findings) {
        let expected = self.previous.as_ref().map_or_else(|| row.number.min(self.start + 1), |row| row.number + 1);
        if row.number != expected {
            let missing = row.number - 1;
            let what = if missing > expected {
                format!("events {expected} to {missing} are missing")
            } else {
                "it is missing".into()
            };
            found.add("journal", expected, what);
        }
        if row.batch > head.batch {
            found.add("journal", row.number, format!("its batch is {}, and the last one is {}", row.batch, head.batch));
        }
        let Some(previous) = &self.previous else { return };
        if row.batch < previous.batch {
            let what = format!("its batch is {}, after one of batch {}", row.batch, previous.batch);
            found.add("journal", row.number, what);
        } else if row.batch == previous.batch && (row.at, row.wall_ms) != (previous.at, previous.wall_ms) {
            found.add("journal", row.number, "its time is another than that of its batch");
        } else if row.at < previous.at {
            found.add("journal", row.number, format!("lab time goes back from {} to {}", previous.at, row.at));
        }
    }

    fn finish(&self, head: &Head, found: &mut Findings) {
        let last = self.previous.as_ref().map_or(self.start, |row| row.number);
        if last != head.last_event {
            found.add("lab", "", format!("last_event is {}, and the journal ends with {last}", head.last_event));
        }
        if let Some(previous) = &self.previous
            && head.lab.now.0 < previous.at
        {
            found.add("lab", "", format!("now is {}, and the last event is of {}", head.lab.now.0, previous.at));
        }
    }
}

/// The counters. A batch without events moves its number and the time.
fn compare_lab(head: &Head, should: LabRecord, found: &mut Findings) {
    let lab = head.lab;
    for (what, stored, should) in [
        ("term", lab.term, should.term),
        ("last_lease", lab.last_lease, should.last_lease),
        ("last_claim", lab.last_claim, should.last_claim),
        ("last_session", lab.last_session, should.last_session),
        ("last_resource", lab.last_resource, should.last_resource),
    ] {
        if stored != should {
            found.add("lab", "", format!("{what} is {stored} and should be {should}"));
        }
    }
}
