//! A batch as one text of SQL: how each kind of record is written.
//!
//! The driver hands every call over to a thread and back, which costs more than most statements
//! do. So a batch is one call: `BEGIN`, one statement for each kind of rows that it carries, with
//! all rows of that kind in one parameter, `COMMIT`. Which kinds it carries makes the text; there
//! are few such texts in practice, and the driver keeps them prepared. Parameters are numbered
//! alike in all of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use super::rows::Rows;
use crate::core::event::Event;
use crate::core::lease::{Lease, Outcome};
use crate::core::tables::{Batch, TableChanges};
use crate::core::types::LeaseId;
use crate::store::names::names;

const BEGIN: &str = "BEGIN IMMEDIATE;
UPDATE lab SET batch = $1, last_event = $2, wall_ms = $4, now = $6, term = $7, last_lease = $8, last_claim = $9,
  last_session = $10, last_resource = $11;
";
const COMMIT: &str = "COMMIT";

/// The parameters before the rows: eleven numbers.
const NUMBERS: usize = 11;

/// The kinds of rows, in the order in which they are written.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Journal,
    PoolGone,
    Pool,
    ResourceGone,
    Resource,
    Used,
    RememberedGone,
    Remembered,
    SessionGone,
    Session,
    Forgotten,
    ClaimGone,
    Claim,
    Lease,
    LeaseResource,
    Ended,
    Request,
    KeyedGone,
    Keyed,
    ArrivalGone,
    Arrival,
}

/// What writes each kind; `@` stands for its rows.
const STATEMENTS: [(Kind, &str); 21] = [
    (
        Kind::Journal,
        "INSERT INTO journal (event, batch, at, wall_ms, kind, lease, claim, session, resource, body)
         SELECT $5 + key, $1, $3, $4, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
         FROM jsonb_each(@);",
    ),
    (Kind::PoolGone, "DELETE FROM pool WHERE name IN (SELECT value FROM jsonb_each(@));"),
    (
        Kind::Pool,
        "INSERT INTO pool (name, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;",
    ),
    (
        Kind::ResourceGone,
        "DELETE FROM resource WHERE resource IN (SELECT value FROM jsonb_each(@));
         DELETE FROM resource_used WHERE resource IN (SELECT value FROM jsonb_each(@));",
    ),
    (
        Kind::Resource,
        "INSERT INTO resource (resource, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;",
    ),
    (
        Kind::Used,
        "INSERT INTO resource_used (resource, last_used) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET last_used = excluded.last_used;",
    ),
    (Kind::RememberedGone, "DELETE FROM remembered WHERE name IN (SELECT value FROM jsonb_each(@));"),
    (
        Kind::Remembered,
        "INSERT INTO remembered (name, marks) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET marks = excluded.marks;",
    ),
    (Kind::SessionGone, "DELETE FROM session WHERE session IN (SELECT value FROM jsonb_each(@));"),
    (
        Kind::Session,
        "INSERT INTO session (session, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;",
    ),
    (
        Kind::Forgotten,
        "UPDATE session SET forgotten = r.value ->> 1, forgotten_row = (SELECT coalesce(max(row), 0) FROM request)
         FROM jsonb_each(@) AS r WHERE session.session = r.value ->> 0;",
    ),
    (Kind::ClaimGone, "DELETE FROM claim WHERE claim IN (SELECT value FROM jsonb_each(@));"),
    (
        Kind::Claim,
        "INSERT INTO claim (claim, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;",
    ),
    (
        Kind::Lease,
        "INSERT INTO lease (lease, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;
         INSERT INTO held (lease) SELECT value ->> 0 FROM jsonb_each(@) WHERE true ON CONFLICT DO NOTHING;",
    ),
    (
        Kind::LeaseResource,
        "INSERT INTO lease_resource (era, resource, lease)
         SELECT (value ->> 0) >> 10, value ->> 1, value ->> 0 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO NOTHING;",
    ),
    (
        Kind::Ended,
        "INSERT INTO lease_end (lease, at, outcome, ended)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each(@);
         DELETE FROM held WHERE lease IN (SELECT value ->> 0 FROM jsonb_each(@));",
    ),
    (
        Kind::Request,
        "INSERT INTO request (session, request, body_hash, ended)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM jsonb_each(@);",
    ),
    (Kind::KeyedGone, "DELETE FROM keyed WHERE key IN (SELECT value FROM jsonb_each(@));"),
    (
        Kind::Keyed,
        "INSERT INTO keyed (key, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;",
    ),
    (Kind::ArrivalGone, "DELETE FROM arrival WHERE claim IN (SELECT value FROM jsonb_each(@));"),
    (
        Kind::Arrival,
        "INSERT INTO arrival (claim, record) SELECT value ->> 0, value ->> 1 FROM jsonb_each(@) WHERE true
         ON CONFLICT DO UPDATE SET record = excluded.record;",
    ),
];

/// Kinds that are written together or not at all, though some may have no rows: what the common
/// batches carry, so that they have a handful of texts between them.
const TOGETHER: [&[Kind]; 2] = [
    &[Kind::Used, Kind::Lease, Kind::LeaseResource, Kind::Ended, Kind::Request],
    &[Kind::SessionGone, Kind::Session, Kind::ClaimGone, Kind::Claim],
];

/// The texts made so far, by which kinds of rows they carry.
#[derive(Debug, Default)]
pub struct Texts {
    by_kinds: BTreeMap<u32, Arc<str>>,
}

impl Texts {
    /// The call that writes `batch`; it fails only when a record cannot be told as JSON.
    pub fn commit(&mut self, batch: &Batch) -> serde_json::Result<Query<'static, sqlx::Sqlite, SqliteArguments>> {
        let mut packed = Packed::default();
        packed.journal(&batch.events)?;
        packed.inventory(&batch.tables)?;
        packed.sessions(&batch.tables)?;
        packed.leases(&batch.tables)?;
        let text = self.by_kinds.entry(packed.kinds()).or_insert_with_key(|kinds| text_for(*kinds));
        let mut query = sqlx::query(AssertSqlSafe(Arc::clone(text)));
        for number in numbers(batch) {
            query = query.bind(number);
        }
        for rows in packed.rows {
            query = query.bind(rows.finish());
        }
        Ok(query)
    }
}

fn numbers(batch: &Batch) -> [i64; NUMBERS] {
    let lab = &batch.tables.lab;
    let last_event = batch.first_event.saturating_sub(1).saturating_add(batch.events.len() as u64);
    [
        batch.number.cast_signed(),
        last_event.cast_signed(),
        batch.at.0.cast_signed(),
        batch.wall_ms,
        batch.first_event.cast_signed(),
        lab.now.0.cast_signed(),
        lab.term.cast_signed(),
        lab.last_lease.cast_signed(),
        lab.last_claim.cast_signed(),
        lab.last_session.cast_signed(),
        lab.last_resource.cast_signed(),
    ]
}

fn text_for(kinds: u32) -> Arc<str> {
    let mut text = BEGIN.to_owned();
    for (kind, statement) in STATEMENTS {
        let index = kind as usize;
        if kinds & (1 << index) != 0 {
            let parameter = format!("${}", NUMBERS + 1 + index);
            text.push_str(&statement.replace('@', &parameter));
            text.push('\n');
        }
    }
    text.push_str(COMMIT);
    text.into()
}

/// The batch's rows, by kind.
#[derive(Debug, Default)]
struct Packed {
    rows: [Rows; STATEMENTS.len()],
    /// Leases granted in the batch, and where their JSON stands in the journal's rows: written once
    /// for both tables.
    granted: Vec<(Arc<Lease>, Range<usize>)>,
}

/// What stands around a lease in the event that grants it.
const GRANTED: (&str, &str) = ("{\"type\":\"lease_granted\",\"lease\":", "}");

impl Packed {
    /// The kinds to write, as bits.
    fn kinds(&self) -> u32 {
        let present = |(index, rows): (usize, &Rows)| u32::from(!rows.is_empty()) << index;
        let mut kinds = self.rows.iter().enumerate().map(present).sum();
        for together in TOGETHER {
            let group: u32 = together.iter().map(|kind| 1 << *kind as usize).sum();
            if kinds & group != 0 {
                kinds |= group;
            }
        }
        kinds
    }

    fn of(&mut self, kind: Kind) -> &mut Rows {
        &mut self.rows[kind as usize]
    }

    /// A record under a number, or the number of one that is gone.
    fn numbered<R: serde::Serialize>(
        &mut self,
        (kind, gone): (Kind, Kind),
        key: u64,
        record: Option<&R>,
    ) -> serde_json::Result<()> {
        let Some(record) = record else {
            self.of(gone).number(key);
            return Ok(());
        };
        self.of(kind).row(|row| {
            row.number(key);
            row.json(record).map(drop)
        })
    }

    /// A lease as it stands in the event that granted it.
    fn copied(&mut self, lease: LeaseId, range: Range<usize>) -> serde_json::Result<()> {
        let [journal, leases] = self
            .rows
            .get_disjoint_mut([Kind::Journal as usize, Kind::Lease as usize])
            .expect("two kinds have two places");
        leases.row(|row| {
            row.number(lease.0);
            row.copied(journal.written(range));
            Ok(())
        })
    }

    /// A record under a name, or the name of one that is gone.
    fn named<R: serde::Serialize>(
        &mut self,
        (kind, gone): (Kind, Kind),
        key: &str,
        record: Option<&R>,
    ) -> serde_json::Result<()> {
        let Some(record) = record else {
            self.of(gone).text(key);
            return Ok(());
        };
        self.of(kind).row(|row| {
            row.text(key);
            row.json(record).map(drop)
        })
    }

    fn journal(&mut self, events: &[Event]) -> serde_json::Result<()> {
        let rows = &mut self.rows[Kind::Journal as usize];
        for event in events {
            let names = names(event);
            let mut body = 0..0;
            rows.row(|row| {
                row.text(event.kind());
                row.optional(names.lease.map(|id| id.0));
                row.optional(names.claim.map(|id| id.0));
                row.optional(names.session.map(|id| id.0));
                row.optional(names.resource.map(|id| id.0));
                body = row.json(event)?;
                Ok(())
            })?;
            if let Event::LeaseGranted { lease } = event {
                let inner = body.start + GRANTED.0.len()..body.end - GRANTED.1.len();
                self.granted.push((lease.clone(), inner));
            }
        }
        Ok(())
    }

    fn inventory(&mut self, tables: &TableChanges) -> serde_json::Result<()> {
        for (name, record) in &tables.pools {
            self.named((Kind::Pool, Kind::PoolGone), name.as_str(), record.as_ref())?;
        }
        for (id, record) in &tables.resources {
            self.numbered((Kind::Resource, Kind::ResourceGone), id.0, record.as_ref())?;
        }
        let whole = tables.resources.iter().filter_map(|(id, record)| Some((*id, record.as_ref()?.last_used)));
        for (id, last_used) in whole.chain(tables.used.iter().copied()) {
            self.of(Kind::Used).row(|row| {
                row.number(id.0);
                row.number(last_used.0);
                Ok(())
            })?;
        }
        for (name, marks) in &tables.remembered {
            self.named((Kind::Remembered, Kind::RememberedGone), name.as_str(), marks.as_ref())?;
        }
        Ok(())
    }

    fn sessions(&mut self, tables: &TableChanges) -> serde_json::Result<()> {
        for (id, record) in &tables.sessions {
            self.numbered((Kind::Session, Kind::SessionGone), id.0, record.as_ref())?;
        }
        for (session, up_to) in &tables.forgotten {
            self.of(Kind::Forgotten).row(|row| {
                row.number(session.0);
                row.number(*up_to);
                Ok(())
            })?;
        }
        for record in &tables.requests {
            self.of(Kind::Request).row(|row| {
                row.number(record.session.0);
                row.number(record.request);
                row.optional(record.body_hash);
                row.json(&record.end).map(drop)
            })?;
        }
        Ok(())
    }

    fn leases(&mut self, tables: &TableChanges) -> serde_json::Result<()> {
        for (id, claim) in &tables.claims {
            self.numbered((Kind::Claim, Kind::ClaimGone), id.0, claim.as_ref())?;
        }
        let mut granted = std::mem::take(&mut self.granted).into_iter().peekable();
        for lease in &tables.leases {
            // Both in the order of their numbers. One that changed since is another lease by now.
            while granted.next_if(|(known, _)| known.id < lease.id).is_some() {}
            match granted.next_if(|(known, _)| Arc::ptr_eq(known, lease)) {
                Some((_, range)) => self.copied(lease.id, range)?,
                None => self.numbered((Kind::Lease, Kind::Lease), lease.id.0, Some(lease))?,
            }
            for pick in &lease.picks {
                self.of(Kind::LeaseResource).row(|row| {
                    row.number(lease.id.0);
                    row.text(pick.name.as_str());
                    Ok(())
                })?;
            }
        }
        for (lease, ended) in &tables.ended {
            self.of(Kind::Ended).row(|row| {
                row.number(lease.0);
                row.number(ended.at.0);
                match ended.outcome {
                    Some(outcome) => row.text(outcome_text(outcome)),
                    None => row.null(),
                }
                row.json(&ended.end).map(drop)
            })?;
        }
        for (key, record) in &tables.keyed {
            self.named((Kind::Keyed, Kind::KeyedGone), &key.0, record.as_ref())?;
        }
        for (id, arrival) in &tables.arrivals {
            self.numbered((Kind::Arrival, Kind::ArrivalGone), id.0, arrival.as_ref())?;
        }
        Ok(())
    }
}

/// The word that the outcome's column keeps.
pub const fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Infra => "infra",
    }
}
