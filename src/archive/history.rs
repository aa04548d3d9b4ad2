//! The history of leases held against the journal, in one pass over both.
//!
//! Grants stand in the journal in the order of their fences, and so do the leases in the history:
//! the two are merged. What is kept is what is open at that point of the journal, as a broker would
//! keep it, however long the history is. Leases granted before the journal begins are taken as they
//! are, as far as they agree with themselves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::findings::{Findings, difference};
use crate::core::event::Event;
use crate::core::lease::{Lease, LeaseEnd, Outcome};
use crate::core::state::State;
use crate::core::types::LeaseId;
use crate::store::StoreError;
use crate::store::archive::{EndRow, LeaseRow, Snapshot};

type Result<T> = std::result::Result<T, StoreError>;

/// A lease that the journal granted and has not ended so far.
struct Open {
    lease: Arc<Lease>,
    row: Option<LeaseRow>,
}

/// How far the pass has come.
#[derive(Default)]
pub struct History {
    rows: VecDeque<LeaseRow>,
    /// Where the next piece begins; `None` once there is none.
    next: Option<u64>,
    begun: bool,
    open: BTreeMap<LeaseId, Open>,
    /// Leases that are held and were granted before the journal begins.
    held_before: BTreeMap<LeaseId, LeaseRow>,
    last_granted: Option<LeaseId>,
    /// Leases looked at.
    pub looked_at: u64,
}

impl History {
    /// Takes note of an event, in the journal's order.
    pub async fn see<S: Snapshot>(&mut self, from: &mut S, at: u64, event: &Event, found: &mut Findings) -> Result<()> {
        match event {
            Event::LeaseGranted { lease } => self.granted(from, lease, found).await?,
            Event::LeaseExtended { lease, until, .. } => self.change(*lease, |lease| lease.until = Some(*until)),
            Event::LeaseEnding { lease, ending } => self.change(*lease, |lease| lease.ending = Some(ending.clone())),
            Event::PicksFreed { lease, resources } => self.change(*lease, |lease| lease.freed.extend(resources)),
            Event::LeaseEnded { lease, end, outcome, .. } => {
                self.ended(from, at, *lease, (end, *outcome), found).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The journal is at its end: what is left of the history, and what is held. `state` is what the
    /// journal gives, where it could be replayed.
    pub async fn finish<S: Snapshot>(
        mut self,
        from: &mut S,
        state: Option<&State>,
        found: &mut Findings,
    ) -> Result<u64> {
        while let Some(row) = self.next_row(from).await? {
            self.passed(row, found);
        }
        // With each whether it has yet to be compared with the books.
        let before = std::mem::take(&mut self.held_before).into_iter();
        let mut held: BTreeMap<LeaseId, Option<LeaseRow>> = before.map(|(id, row)| (id, Some(row))).collect();
        for (id, open) in std::mem::take(&mut self.open) {
            let same = match &open.row {
                Some(row) => compare_held(row, &open.lease, found),
                None => {
                    found.add("lease", id, "it is missing, and no event ended it");
                    false
                }
            };
            held.insert(id, open.row.filter(|_| same));
        }
        let Some(state) = state else { return Ok(self.looked_at) };
        for (id, lease) in &state.leases {
            match held.remove(id) {
                Some(row) => {
                    if let Some(row) = row {
                        compare_record(&row, lease, found);
                    }
                }
                None => found.add("lease", id, "it is missing among those that are held"),
            }
        }
        for id in held.keys() {
            found.add("held", id, "the lease is not on the books that the journal gives");
        }
        Ok(self.looked_at)
    }

    async fn next_row<S: Snapshot>(&mut self, from: &mut S) -> Result<Option<LeaseRow>> {
        while self.rows.is_empty() {
            let after = match (self.begun, self.next) {
                (false, _) => 0,
                (true, Some(next)) => next,
                (true, None) => return Ok(None),
            };
            let piece = from.leases(after).await?;
            self.begun = true;
            self.next = piece.next;
            self.rows = piece.rows.into();
        }
        self.looked_at += 1;
        Ok(self.rows.pop_front())
    }

    async fn granted<S: Snapshot>(&mut self, from: &mut S, lease: &Arc<Lease>, found: &mut Findings) -> Result<()> {
        if self.last_granted.is_some_and(|last| last >= lease.id) {
            found.add("journal", lease.id, "the fence of this grant is not above the one before");
            return Ok(());
        }
        let mut mine = None;
        while let Some(row) = self.next_row(from).await? {
            if row.lease < lease.id.0 {
                self.passed(row, found);
            } else if row.lease == lease.id.0 {
                mine = Some(row);
                break;
            } else {
                self.looked_at -= 1;
                self.rows.push_front(row);
                break;
            }
        }
        self.last_granted = Some(lease.id);
        self.open.insert(lease.id, Open { lease: Arc::clone(lease), row: mine });
        Ok(())
    }

    fn change(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) {
        if let Some(open) = self.open.get_mut(&id) {
            change(Arc::make_mut(&mut open.lease));
        }
    }

    async fn ended<S: Snapshot>(
        &mut self,
        from: &mut S,
        at: u64,
        id: LeaseId,
        how: (&LeaseEnd, Option<Outcome>),
        found: &mut Findings,
    ) -> Result<()> {
        let row = match self.open.remove(&id) {
            Some(Open { lease, row: Some(row) }) => {
                compare_record(&row, &lease, found);
                row
            }
            Some(Open { row: None, .. }) => {
                found.add("lease", id, "it is missing, and its end is in the journal");
                return Ok(());
            }
            // Granted before the journal begins.
            None => from.lease(id.0).await?,
        };
        if row.held {
            found.add("held", id, "the lease has ended");
            // Not again as one that the books do not know.
            self.held_before.remove(&id);
        }
        match &row.end {
            Some(end) => compare_end(id, end, at, how, found),
            None => found.add("lease_end", id, "it is missing, and the lease has ended"),
        }
        Ok(())
    }

    /// A row that no grant in the journal is for.
    fn passed(&mut self, row: LeaseRow, found: &mut Findings) {
        let id = LeaseId(row.lease);
        if row.record.is_none() && row.end.is_none() && !row.held {
            found.add("lease_resource", id, "there is no such lease");
            return;
        }
        if self.last_granted.is_some() {
            found.add("lease", id, "no event granted it");
            return;
        }
        match (&row.record, row.end.is_some(), row.held) {
            (None, ..) => found.add("lease", id, "it is missing, and what belongs to it is there"),
            (Some(_), true, true) => found.add("held", id, "the lease has ended"),
            (Some(_), false, false) => found.add("lease_end", id, "it is missing, and the lease is not held"),
            (Some(_), ..) => {}
        }
        if let Some(lease) = read_record(&row, found) {
            compare_resources(&row, &lease, found);
        }
        if row.held {
            self.held_before.insert(id, row);
        }
    }
}

fn read_record(row: &LeaseRow, found: &mut Findings) -> Option<Lease> {
    let record = row.record.as_deref()?;
    match serde_json::from_str::<Lease>(record) {
        Ok(lease) if lease.id.0 == row.lease => Some(lease),
        Ok(lease) => {
            found.add("lease", row.lease, format!("its record is that of lease {}", lease.id));
            None
        }
        Err(error) => {
            found.add("lease", row.lease, format!("its record cannot be read: {error}"));
            None
        }
    }
}

/// Answers whether it is as it should be.
fn compare_held(row: &LeaseRow, lease: &Lease, found: &mut Findings) -> bool {
    if !row.held {
        found.add("held", row.lease, "it is missing, and no event ended the lease");
    }
    if row.end.is_some() {
        found.add("lease_end", row.lease, "it is there, and no event ended the lease");
    }
    compare_record(row, lease, found)
}

/// Answers whether it is as it should be.
fn compare_record(row: &LeaseRow, lease: &Lease, found: &mut Findings) -> bool {
    let before = found.count();
    if row.record.is_none() {
        found.add("lease", row.lease, "it is missing, and what belongs to it is there");
    } else if let Some(stored) = read_record(row, found)
        && let Some(difference) = difference(lease, &stored)
    {
        found.add("lease", row.lease, difference);
    }
    compare_resources(row, lease, found);
    found.count() == before
}

fn compare_resources(row: &LeaseRow, lease: &Lease, found: &mut Findings) {
    let mut names: Vec<&str> = lease.picks.iter().map(|pick| pick.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if names != row.resources {
        let what = format!("the lease is found by {:?} and should be by {names:?}", row.resources);
        found.add("lease_resource", row.lease, what);
    }
}

fn compare_end(id: LeaseId, end: &EndRow, at: u64, how: (&LeaseEnd, Option<Outcome>), found: &mut Findings) {
    if end.at != at {
        found.add("lease_end", id, format!("at is {} and should be {at}", end.at));
    }
    let outcome = how.1.map(|outcome| serde_json::to_value(outcome).unwrap_or_default());
    let stored = end.outcome.as_deref().map(Value::from);
    if stored != outcome {
        let word = |value: &Option<Value>| value.clone().unwrap_or_default().to_string();
        found.add("lease_end", id, format!("outcome is {} and should be {}", word(&stored), word(&outcome)));
    }
    match serde_json::from_str::<LeaseEnd>(&end.ended) {
        Ok(stored) => {
            if let Some(difference) = difference(how.0, &stored) {
                found.add("lease_end", id, difference);
            }
        }
        Err(error) => found.add("lease_end", id, format!("it cannot be read: {error}")),
    }
}
