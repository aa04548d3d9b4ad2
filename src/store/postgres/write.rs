//! A batch as one statement of SQL: how each kind of record is written.
//!
//! The statement's first part is the UPDATE of the lab's row, under the condition that this process
//! leads and that its last batch is the one before. All other parts take their rows from what that
//! UPDATE changed, so they do nothing when it finds no row. There is no moment between two statements
//! in which the lead could be lost, and a commit is one trip to the database and back.
//!
//! The parts of one statement do not see what the others do. So what the embedded store leaves to the
//! order of its statements is settled before: a lease granted and ended in one batch is never `held`,
//! and a session's row is written once.
//!
//! A row that is known to be new, or to be there, is written as such: a grant is an INSERT, the last use
//! of a resource an UPDATE. INSERT .. ON CONFLICT is for the rest, as it costs twice as much.
//!
//! Rows travel as one array per column. Which kinds of rows a batch carries makes the text; there are
//! few such texts in practice, and the connection keeps them prepared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryScalar;

use super::lead::{CLOCK, Lead};
use crate::core::event::Event;
use crate::core::lease::{Lease, Outcome};
use crate::core::tables::{Batch, TableChanges};
use crate::core::types::SessionId;
use crate::store::names::names;

/// The first part; `@clock` stands for the database's clock.
const LED: &str = "WITH led AS (
    UPDATE lab SET batch = $1, last_event = $2, wall_ms = $4, now = $6, term = $7, last_lease = $8, last_claim = $9,
        last_session = $10, last_resource = $11, beat = beat + 1, stamp = @clock
    WHERE one = 1 AND batch = $1 - 1 AND epoch = $12 AND leader = $13 RETURNING one
)";

/// How many batches were written: one or none.
const COUNT: &str = "
SELECT count(*) FROM led";

/// The parameters before the rows.
const BEFORE: usize = 13;

/// The kinds of rows.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Journal,
    PoolGone,
    Pool,
    ResourceGone,
    Resource,
    UsedAnew,
    Used,
    RememberedGone,
    Remembered,
    SessionGone,
    Session,
    Forgotten,
    ClaimGone,
    Claim,
    Granted,
    GrantedHeld,
    GrantedResource,
    Lease,
    Held,
    LeaseResource,
    Ended,
    Request,
    KeyedGone,
    Keyed,
    ArrivalGone,
    Arrival,
}

/// How one kind of rows is written.
struct Part {
    kind: Kind,
    /// The columns of its rows, a letter each: `n` for numbers, `t` for texts.
    columns: &'static str,
    /// `@1`, `@2`, ... stand for the columns.
    text: &'static str,
}

const fn part(kind: Kind, columns: &'static str, text: &'static str) -> Part {
    Part { kind, columns, text }
}

const PARTS: [Part; 26] = [
    part(
        Kind::Journal,
        "tnnnnt",
        "w_journal AS (
            INSERT INTO journal (event, batch, at, wall_ms, kind, lease, claim, session, resource, body)
            SELECT $5 - 1 + r.n, $1, $3, $4, r.kind, r.lease, r.claim, r.session, r.resource, r.body
            FROM led, unnest(@1, @2, @3, @4, @5, @6) WITH ORDINALITY
                AS r (kind, lease, claim, session, resource, body, n))",
    ),
    part(Kind::PoolGone, "t", "d_pool AS (DELETE FROM pool USING led WHERE name = ANY (@1))"),
    part(
        Kind::Pool,
        "tt",
        "w_pool AS (
            INSERT INTO pool (name, record) SELECT r.name, r.record FROM led, unnest(@1, @2) AS r (name, record)
            ON CONFLICT (name) DO UPDATE SET record = excluded.record)",
    ),
    part(
        Kind::ResourceGone,
        "n",
        "d_resource AS (DELETE FROM resource USING led WHERE resource = ANY (@1)),
        d_used AS (DELETE FROM resource_used USING led WHERE resource = ANY (@1))",
    ),
    part(
        Kind::Resource,
        "nt",
        "w_resource AS (
            INSERT INTO resource (resource, record)
            SELECT r.resource, r.record FROM led, unnest(@1, @2) AS r (resource, record)
            ON CONFLICT (resource) DO UPDATE SET record = excluded.record)",
    ),
    part(
        Kind::UsedAnew,
        "nn",
        "w_used_anew AS (
            INSERT INTO resource_used (resource, last_used)
            SELECT r.resource, r.last_used FROM led, unnest(@1, @2) AS r (resource, last_used)
            ON CONFLICT (resource) DO UPDATE SET last_used = excluded.last_used)",
    ),
    part(
        Kind::Used,
        "nn",
        "w_used AS (
            UPDATE resource_used SET last_used = r.last_used
            FROM led, unnest(@1, @2) AS r (resource, last_used) WHERE resource_used.resource = r.resource)",
    ),
    part(Kind::RememberedGone, "t", "d_remembered AS (DELETE FROM remembered USING led WHERE name = ANY (@1))"),
    part(
        Kind::Remembered,
        "tt",
        "w_remembered AS (
            INSERT INTO remembered (name, marks) SELECT r.name, r.marks FROM led, unnest(@1, @2) AS r (name, marks)
            ON CONFLICT (name) DO UPDATE SET marks = excluded.marks)",
    ),
    part(Kind::SessionGone, "n", "d_session AS (DELETE FROM session USING led WHERE session = ANY (@1))"),
    part(
        Kind::Session,
        "ntn",
        "w_session AS (
            INSERT INTO session (session, record, forgotten, forgotten_row)
            SELECT r.session, r.record, coalesce(r.forgotten, 0),
                CASE WHEN r.forgotten IS NULL THEN 0 ELSE (SELECT coalesce(max(row), 0) FROM request) END
            FROM led, unnest(@1, @2, @3) AS r (session, record, forgotten)
            ON CONFLICT (session) DO UPDATE SET record = excluded.record,
                forgotten = greatest(session.forgotten, excluded.forgotten),
                forgotten_row = greatest(session.forgotten_row, excluded.forgotten_row))",
    ),
    part(
        Kind::Forgotten,
        "nn",
        "w_forgotten AS (
            UPDATE session SET forgotten = r.up_to, forgotten_row = (SELECT coalesce(max(row), 0) FROM request)
            FROM led, unnest(@1, @2) AS r (session, up_to) WHERE session.session = r.session)",
    ),
    part(Kind::ClaimGone, "n", "d_claim AS (DELETE FROM claim USING led WHERE claim = ANY (@1))"),
    part(
        Kind::Claim,
        "nt",
        "w_claim AS (
            INSERT INTO claim (claim, record) SELECT r.claim, r.record FROM led, unnest(@1, @2) AS r (claim, record)
            ON CONFLICT (claim) DO UPDATE SET record = excluded.record)",
    ),
    part(
        Kind::Granted,
        "nt",
        "w_granted AS (
            INSERT INTO lease (lease, record) SELECT r.lease, r.record FROM led, unnest(@1, @2) AS r (lease, record))",
    ),
    part(
        Kind::GrantedHeld,
        "n",
        "w_granted_held AS (INSERT INTO held (lease) SELECT r.lease FROM led, unnest(@1) AS r (lease))",
    ),
    part(
        Kind::GrantedResource,
        "nt",
        "w_granted_resource AS (
            INSERT INTO lease_resource (era, resource, lease)
            SELECT r.lease >> 10, r.resource, r.lease FROM led, unnest(@1, @2) AS r (lease, resource))",
    ),
    part(
        Kind::Lease,
        "nt",
        "w_lease AS (
            INSERT INTO lease (lease, record) SELECT r.lease, r.record FROM led, unnest(@1, @2) AS r (lease, record)
            ON CONFLICT (lease) DO UPDATE SET record = excluded.record)",
    ),
    part(
        Kind::Held,
        "n",
        "w_held AS (
            INSERT INTO held (lease) SELECT r.lease FROM led, unnest(@1) AS r (lease) ON CONFLICT DO NOTHING)",
    ),
    part(
        Kind::LeaseResource,
        "nt",
        "w_lease_resource AS (
            INSERT INTO lease_resource (era, resource, lease)
            SELECT r.lease >> 10, r.resource, r.lease FROM led, unnest(@1, @2) AS r (lease, resource)
            ON CONFLICT DO NOTHING)",
    ),
    part(
        Kind::Ended,
        "nntt",
        "w_lease_end AS (
            INSERT INTO lease_end (lease, at, outcome, ended)
            SELECT r.lease, r.at, r.outcome, r.ended
            FROM led, unnest(@1, @2, @3, @4) AS r (lease, at, outcome, ended)),
        d_held AS (DELETE FROM held USING led WHERE lease = ANY (@1))",
    ),
    part(
        Kind::Request,
        "nnnt",
        "w_request AS (
            INSERT INTO request (row, session, request, body_hash, ended)
            SELECT last.row + r.n, r.session, r.request, r.body_hash, r.ended
            FROM led, (SELECT coalesce(max(row), 0) AS row FROM request) AS last,
                unnest(@1, @2, @3, @4) WITH ORDINALITY AS r (session, request, body_hash, ended, n))",
    ),
    part(Kind::KeyedGone, "t", "d_keyed AS (DELETE FROM keyed USING led WHERE key = ANY (@1))"),
    part(
        Kind::Keyed,
        "tt",
        "w_keyed AS (
            INSERT INTO keyed (key, record) SELECT r.key, r.record FROM led, unnest(@1, @2) AS r (key, record)
            ON CONFLICT (key) DO UPDATE SET record = excluded.record)",
    ),
    part(Kind::ArrivalGone, "n", "d_arrival AS (DELETE FROM arrival USING led WHERE claim = ANY (@1))"),
    part(
        Kind::Arrival,
        "nt",
        "w_arrival AS (
            INSERT INTO arrival (claim, record) SELECT r.claim, r.record FROM led, unnest(@1, @2) AS r (claim, record)
            ON CONFLICT (claim) DO UPDATE SET record = excluded.record)",
    ),
];

/// Kinds that are written together or not at all, though some may have no rows: what the common
/// batches carry, so that they have a handful of texts between them.
const TOGETHER: [&[Kind]; 3] = [
    &[Kind::Used, Kind::Granted, Kind::GrantedHeld, Kind::GrantedResource, Kind::Ended, Kind::Request],
    &[Kind::Lease, Kind::Held, Kind::LeaseResource],
    &[Kind::SessionGone, Kind::Session, Kind::ClaimGone, Kind::Claim],
];

/// What writes a batch, to be asked how many it wrote: one or none.
pub type Commit = QueryScalar<'static, sqlx::Postgres, i64, PgArguments>;

/// The texts made so far, by which kinds of rows they carry.
#[derive(Debug, Default)]
pub struct Texts {
    by_kinds: BTreeMap<u32, Arc<str>>,
}

impl Texts {
    /// What writes `batch` under this lead; it fails only when a record cannot be told as JSON.
    pub fn commit(&mut self, batch: &Batch, lead: &Lead) -> serde_json::Result<Commit> {
        let mut packed = Packed::default();
        packed.journal(&batch.events)?;
        packed.inventory(&batch.tables)?;
        packed.sessions(&batch.tables)?;
        packed.leases(&batch.tables)?;
        let kinds = packed.kinds();
        let text = self.by_kinds.entry(kinds).or_insert_with_key(|kinds| text_for(*kinds));
        let mut query = sqlx::query_scalar(AssertSqlSafe(Arc::clone(text)));
        for number in numbers(batch) {
            query = query.bind(number);
        }
        query = query.bind(lead.epoch.cast_signed()).bind(Arc::clone(&lead.instance));
        for part in PARTS.iter().filter(|part| has(kinds, part.kind)) {
            for column in packed.of(part.kind).drain(..) {
                query = match column {
                    Column::Numbers(numbers) => query.bind(numbers),
                    Column::Texts(texts) => query.bind(texts),
                };
            }
        }
        Ok(query)
    }
}

fn numbers(batch: &Batch) -> [i64; BEFORE - 2] {
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

const fn has(kinds: u32, kind: Kind) -> bool {
    kinds & (1 << kind as u32) != 0
}

fn text_for(kinds: u32) -> Arc<str> {
    let mut text = LED.replace("@clock", CLOCK);
    let mut parameter = BEFORE;
    for part in PARTS.iter().filter(|part| has(kinds, part.kind)) {
        let mut written = part.text.to_owned();
        for (index, letter) in (1..).zip(part.columns.chars()) {
            parameter += 1;
            let array = if letter == 'n' { "bigint[]" } else { "text[]" };
            written = written.replace(&format!("@{index}"), &format!("${parameter}::{array}"));
        }
        // Writing to a text cannot fail.
        let _ = write!(text, ", {written}");
    }
    text.push_str(COUNT);
    text.into()
}

/// One column of the rows of a kind.
#[derive(Debug)]
enum Column {
    Numbers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
}

/// One value of a row.
enum Cell {
    Number(Option<u64>),
    Text(Option<String>),
}

fn number(number: u64) -> Cell {
    Cell::Number(Some(number))
}

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(Some(text.into()))
}

fn json(record: &impl serde::Serialize) -> serde_json::Result<Cell> {
    serde_json::to_string(record).map(text)
}

/// The batch's rows, by kind and column.
#[derive(Debug)]
struct Packed {
    rows: [Vec<Column>; PARTS.len()],
    /// Kinds that have rows, as bits.
    present: u32,
    /// Leases granted in the batch: which event it is, and where in its JSON the lease's stands,
    /// written once for both tables.
    granted: Vec<(Arc<Lease>, usize, Range<usize>)>,
}

impl Default for Packed {
    fn default() -> Self {
        let column = |letter| if letter == 'n' { Column::Numbers(Vec::new()) } else { Column::Texts(Vec::new()) };
        let rows = std::array::from_fn(|kind| PARTS[kind].columns.chars().map(column).collect());
        Self { rows, present: 0, granted: Vec::new() }
    }
}

/// What stands around a lease in the event that grants it.
const GRANTED: (&str, &str) = ("{\"type\":\"lease_granted\",\"lease\":", "}");

impl Packed {
    /// The kinds to write, as bits.
    fn kinds(&self) -> u32 {
        let mut kinds = self.present;
        for together in TOGETHER {
            let group: u32 = together.iter().map(|kind| 1 << *kind as u32).sum();
            if kinds & group != 0 {
                kinds |= group;
            }
        }
        kinds
    }

    fn of(&mut self, kind: Kind) -> &mut Vec<Column> {
        &mut self.rows[kind as usize]
    }

    /// Adds a row.
    fn add<const N: usize>(&mut self, kind: Kind, cells: [Cell; N]) {
        self.present |= 1 << kind as u32;
        for (column, cell) in self.of(kind).iter_mut().zip(cells) {
            match (column, cell) {
                (Column::Numbers(column), Cell::Number(number)) => column.push(number.map(u64::cast_signed)),
                (Column::Texts(column), Cell::Text(text)) => column.push(text),
                (column, _) => unreachable!("{kind:?} has a row unlike its columns, at {column:?}"),
            }
        }
    }

    /// A record under a key, or the key of one that is gone.
    fn keyed<R: serde::Serialize>(
        &mut self,
        (kind, gone): (Kind, Kind),
        key: Cell,
        record: Option<&R>,
    ) -> serde_json::Result<()> {
        match record {
            Some(record) => self.add(kind, [key, json(record)?]),
            None => self.add(gone, [key]),
        }
        Ok(())
    }

    fn journal(&mut self, events: &[Event]) -> serde_json::Result<()> {
        for (index, event) in events.iter().enumerate() {
            let names = names(event);
            let body = serde_json::to_string(event)?;
            if let Event::LeaseGranted { lease } = event {
                let inner = GRANTED.0.len()..body.len() - GRANTED.1.len();
                self.granted.push((lease.clone(), index, inner));
            }
            let row = [
                text(event.kind()),
                Cell::Number(names.lease.map(|id| id.0)),
                Cell::Number(names.claim.map(|id| id.0)),
                Cell::Number(names.session.map(|id| id.0)),
                Cell::Number(names.resource.map(|id| id.0)),
                text(body),
            ];
            self.add(Kind::Journal, row);
        }
        Ok(())
    }

    /// A piece of an event's JSON, as it was written.
    fn body(&mut self, index: usize, range: Range<usize>) -> Option<String> {
        let Some(Column::Texts(bodies)) = self.of(Kind::Journal).last() else { return None };
        bodies.get(index)?.as_ref()?.get(range).map(str::to_owned)
    }

    fn inventory(&mut self, tables: &TableChanges) -> serde_json::Result<()> {
        for (name, record) in &tables.pools {
            self.keyed((Kind::Pool, Kind::PoolGone), text(name.as_str()), record.as_ref())?;
        }
        for (id, record) in &tables.resources {
            self.keyed((Kind::Resource, Kind::ResourceGone), number(id.0), record.as_ref())?;
        }
        let whole = tables.resources.iter().filter_map(|(id, record)| Some((*id, record.as_ref()?.last_used)));
        let mut anew: BTreeMap<_, _> = whole.collect();
        for (id, last_used) in &tables.used {
            // The last word on each: one statement writes a row once.
            match anew.get_mut(id) {
                Some(known) => *known = *last_used,
                None => self.add(Kind::Used, [number(id.0), number(last_used.0)]),
            }
        }
        for (id, last_used) in anew {
            self.add(Kind::UsedAnew, [number(id.0), number(last_used.0)]);
        }
        for (name, marks) in &tables.remembered {
            self.keyed((Kind::Remembered, Kind::RememberedGone), text(name.as_str()), marks.as_ref())?;
        }
        Ok(())
    }

    fn sessions(&mut self, tables: &TableChanges) -> serde_json::Result<()> {
        let mut forgotten: BTreeMap<SessionId, u64> = BTreeMap::new();
        for (session, up_to) in &tables.forgotten {
            let known = forgotten.entry(*session).or_default();
            *known = (*known).max(*up_to);
        }
        for (id, record) in &tables.sessions {
            match (record, forgotten.remove(id)) {
                (Some(record), up_to) => {
                    self.add(Kind::Session, [number(id.0), json(record)?, Cell::Number(up_to)]);
                }
                (None, _) => self.add(Kind::SessionGone, [number(id.0)]),
            }
        }
        for (session, up_to) in forgotten {
            self.add(Kind::Forgotten, [number(session.0), number(up_to)]);
        }
        for record in &tables.requests {
            let end = json(&record.end)?;
            let row = [number(record.session.0), number(record.request), Cell::Number(record.body_hash), end];
            self.add(Kind::Request, row);
        }
        Ok(())
    }

    fn leases(&mut self, tables: &TableChanges) -> serde_json::Result<()> {
        for (id, claim) in &tables.claims {
            self.keyed((Kind::Claim, Kind::ClaimGone), number(id.0), claim.as_ref())?;
        }
        let ended: BTreeSet<_> = tables.ended.iter().map(|(lease, _)| *lease).collect();
        let mut granted = std::mem::take(&mut self.granted).into_iter().peekable();
        for lease in &tables.leases {
            // Both in the order of their numbers.
            while granted.next_if(|(known, ..)| known.id < lease.id).is_some() {}
            let known = granted.next_if(|(known, ..)| known.id == lease.id);
            let (row, held, resource) = match known {
                Some(_) => (Kind::Granted, Kind::GrantedHeld, Kind::GrantedResource),
                None => (Kind::Lease, Kind::Held, Kind::LeaseResource),
            };
            // One that changed since it was granted is another by now.
            let known = known.filter(|(known, ..)| Arc::ptr_eq(known, lease));
            let record = match known.and_then(|(_, index, range)| self.body(index, range)) {
                Some(written) => text(written),
                None => json(lease)?,
            };
            self.add(row, [number(lease.id.0), record]);
            if !ended.contains(&lease.id) {
                self.add(held, [number(lease.id.0)]);
            }
            let names: BTreeSet<_> = lease.picks.iter().map(|pick| &pick.name).collect();
            for name in names {
                self.add(resource, [number(lease.id.0), text(name.as_str())]);
            }
        }
        for (lease, ended) in &tables.ended {
            let outcome = Cell::Text(ended.outcome.map(|outcome| outcome_text(outcome).to_owned()));
            self.add(Kind::Ended, [number(lease.0), number(ended.at.0), outcome, json(&ended.end)?]);
        }
        for (key, record) in &tables.keyed {
            self.keyed((Kind::Keyed, Kind::KeyedGone), text(&*key.0), record.as_ref())?;
        }
        for (id, arrival) in &tables.arrivals {
            self.keyed((Kind::Arrival, Kind::ArrivalGone), number(id.0), arrival.as_ref())?;
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
