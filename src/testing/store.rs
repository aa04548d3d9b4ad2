//! The store double: a journal, and the tables that each batch's records make.
//!
//! The tables are kept from the records, as a real store keeps its rows, and the journal from the
//! events; a start reads the tables, and first holds them against what the journal gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::arrivals::Arrival;
use crate::core::claim::Claim;
use crate::core::event::Event;
use crate::core::inventory::Marks;
use crate::core::lease::Lease;
use crate::core::session::SecretHash;
use crate::core::state::State;
use crate::core::tables::{Batch, KeyedRecord, PoolRecord, RequestRecord, ResourceRecord, SessionRecord, Tables};
use crate::core::types::{ClaimId, Key, LabTime, LeaseId, ResourceId, ResourceName, SessionId};

/// The row by which brokers that share a store take turns.
#[derive(Default)]
pub(super) struct Row {
    pub epoch: u64,
    pub beat: u64,
    /// The life of the broker that leads.
    pub leader: Option<u64>,
}

/// What survives everything.
#[derive(Default)]
pub(super) struct Store {
    pub row: Row,
    /// When the last batch was written, by the store's own clock, microseconds.
    pub written_at: u64,
    head: Tables,
    pools: BTreeMap<Key, PoolRecord>,
    resources: BTreeMap<ResourceId, ResourceRecord>,
    remembered: BTreeMap<ResourceName, Marks>,
    sessions: BTreeMap<SessionId, SessionRecord>,
    claims: BTreeMap<ClaimId, Arc<Claim>>,
    leases: BTreeMap<LeaseId, Arc<Lease>>,
    requests: BTreeMap<(SessionId, u64), RequestRecord>,
    keyed: BTreeMap<SecretHash, KeyedRecord>,
    arrivals: BTreeMap<ClaimId, Arrival>,
    replayed: State,
}

impl Store {
    /// Writes a batch: all of it.
    ///
    /// # Errors
    /// Where it does not follow on what is there.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), String> {
        let (number, first) = (self.head.batch + 1, self.head.last_event + 1);
        if batch.number != number || batch.first_event != first {
            return Err(format!(
                "batch {} from event {} after batch {} and event {}",
                batch.number, batch.first_event, self.head.batch, self.head.last_event
            ));
        }
        self.head.batch = batch.number;
        self.head.last_event += batch.events.len() as u64;
        self.head.wall_ms = batch.wall_ms;
        self.head.lab = batch.tables.lab;
        self.records(batch);
        for event in &batch.events {
            self.replayed.apply(batch.at, event);
            if let Event::SessionEnded { session, .. } = event {
                self.requests.retain(|(of, _), _| of != session);
            }
        }
        Ok(())
    }

    fn records(&mut self, batch: &Batch) {
        let changes = &batch.tables;
        put(&mut self.pools, &changes.pools);
        put(&mut self.resources, &changes.resources);
        for (id, at) in &changes.used {
            if let Some(resource) = self.resources.get_mut(id) {
                resource.last_used = *at;
            }
        }
        put(&mut self.remembered, &changes.remembered);
        put(&mut self.sessions, &changes.sessions);
        put(&mut self.claims, &changes.claims);
        for lease in &changes.leases {
            self.leases.insert(lease.id, lease.clone());
        }
        for (id, _) in &changes.ended {
            self.leases.remove(id);
        }
        for (session, up_to) in &changes.forgotten {
            self.requests.retain(|(of, request), _| of != session || request > up_to);
        }
        for record in &changes.requests {
            if self.sessions.contains_key(&record.session) {
                self.requests.insert((record.session, record.request), record.clone());
            }
        }
        put(&mut self.keyed, &changes.keyed);
        put(&mut self.arrivals, &changes.arrivals);
    }

    /// Reads everything.
    ///
    /// # Errors
    /// Where the journal gives other books than the tables have.
    pub(super) fn load(&self) -> Result<Tables, String> {
        let tables = Tables {
            pools: self.pools.values().cloned().collect(),
            resources: self.resources.values().cloned().collect(),
            remembered: self.remembered.iter().map(|(name, marks)| (name.clone(), marks.clone())).collect(),
            sessions: self.sessions.values().cloned().collect(),
            claims: self.claims.values().map(|claim| Claim::clone(claim)).collect(),
            leases: self.leases.values().cloned().collect(),
            requests: self.requests.values().cloned().collect(),
            keyed: self.keyed.values().cloned().collect(),
            arrivals: self.arrivals.values().cloned().collect(),
            ..self.head.clone()
        };
        let journal = self.replayed.tables();
        let head = (tables.batch, tables.last_event, tables.wall_ms, tables.lab);
        let journal = Tables { batch: head.0, last_event: head.1, wall_ms: head.2, lab: head.3, ..journal };
        if journal == tables {
            Ok(tables)
        } else {
            Err(format!("the journal gives {journal:?}\nthe tables {tables:?}"))
        }
    }

    /// The number of the last batch.
    pub(super) const fn last_batch(&self) -> u64 {
        self.head.batch
    }

    /// The lab time that is stored.
    pub(super) const fn lab_now(&self) -> LabTime {
        self.head.lab.now
    }
}

fn put<K: Ord + Clone, V: Clone>(rows: &mut BTreeMap<K, V>, changes: &[(K, Option<V>)]) {
    for (key, row) in changes {
        match row {
            Some(row) => rows.insert(key.clone(), row.clone()),
            None => rows.remove(key),
        };
    }
}
