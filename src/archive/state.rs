//! The tables of the state, as the books say they should be and as they are.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::findings::{Findings, cut, difference};
use crate::core::arrivals::Arrival;
use crate::core::claim::Claim;
use crate::core::session::RequestEnd;
use crate::core::tables::{KeyedRecord, RequestRecord, ResourceRecord, Tables};
use crate::core::types::{LabTime, ResourceName, SessionId};
use crate::store::StoreError;
use crate::store::archive::{Head, Record, Snapshot, Table};

/// A record as it should be, by its key.
type Keyed<T> = (String, T);

/// Compares every table of the state with what it should be; answers how many rows were looked at.
pub async fn compare<S: Snapshot>(from: &mut S, books: &Tables, found: &mut Findings) -> Result<u64, StoreError> {
    let mut looked_at = 0;
    for table in Table::ALL {
        let records = from.records(table).await?;
        looked_at += records.len() as u64;
        match table {
            Table::Pool => {
                let should = books.pools.iter().map(|record| (record.pool.name.to_string(), record.clone()));
                rows(table, should, records, found);
            }
            Table::Resource => {
                let should = books.resources.iter().map(|record| (record.id.0.to_string(), without_use(record)));
                let records = records.into_iter().map(|record| reread(record, without_use)).collect();
                rows(table, should, records, found);
            }
            Table::Used => {
                let should = books.resources.iter().map(|record| (record.id.0.to_string(), record.last_used));
                rows(table, should, records, found);
            }
            Table::Remembered => {
                let should = books.remembered.iter().map(|(name, marks)| (name.to_string(), marks.clone()));
                rows(table, should, records, found);
            }
            Table::Session => {
                let should = books.sessions.iter().map(|record| (record.id.0.to_string(), record.clone()));
                rows(table, should, records, found);
            }
            Table::Request => {
                let should = books.requests.iter().map(|record| {
                    let key = format!("{}/{}", record.session.0, record.request);
                    (key, (record.body_hash, record.end.clone()))
                });
                rows::<(Option<u64>, RequestEnd)>(table, should, records, found);
            }
            Table::Claim => {
                let should = books.claims.iter().map(|claim| (claim.id.0.to_string(), claim.clone()));
                rows::<Claim>(table, should, records, found);
            }
            Table::Keyed => {
                let should = books.keyed.iter().map(|record| (record.key.0.to_string(), record.clone()));
                rows::<KeyedRecord>(table, should, records, found);
            }
            Table::Arrival => {
                let should = books.arrivals.iter().map(|arrival| (arrival.id.0.to_string(), arrival.clone()));
                rows::<Arrival>(table, should, records, found);
            }
        }
    }
    Ok(looked_at)
}

fn rows<T: DeserializeOwned + Serialize + PartialEq>(
    table: Table,
    should: impl Iterator<Item = Keyed<T>>,
    records: Vec<Record>,
    found: &mut Findings,
) {
    let mut should: BTreeMap<String, T> = should.collect();
    for record in records {
        let Some(expected) = should.remove(&record.key) else {
            found.add(table.name(), &record.key, "it is there, and the journal does not give it");
            continue;
        };
        match serde_json::from_str::<T>(&record.text) {
            Ok(stored) if stored == expected => {}
            Ok(stored) => {
                let what = difference(&expected, &stored).unwrap_or_else(|| "it is another".to_owned());
                found.add(table.name(), &record.key, what);
            }
            Err(error) => {
                found.add(table.name(), &record.key, format!("it cannot be read ({error}): {}", cut(&record.text)));
            }
        }
    }
    for key in should.keys() {
        found.add(table.name(), key, "it is missing");
    }
}

/// When it was last given stands in a table of its own, and this field is as old as the rest.
fn without_use(record: &ResourceRecord) -> ResourceRecord {
    ResourceRecord { last_used: LabTime(0), ..record.clone() }
}

/// A record changed before it is compared; one that cannot be read stays as it is.
fn reread<T: DeserializeOwned + Serialize>(record: Record, change: impl Fn(&T) -> T) -> Record {
    let changed = serde_json::from_str(&record.text).and_then(|read| serde_json::to_string(&change(&read)));
    Record { text: changed.unwrap_or(record.text), key: record.key }
}

/// The books that the tables tell, but for the leases.
pub async fn read<S: Snapshot>(from: &mut S, head: &Head) -> Result<Tables, StoreError> {
    let mut tables = Tables {
        batch: head.batch,
        last_event: head.last_event,
        wall_ms: head.wall_ms,
        lab: head.lab,
        ..Tables::default()
    };
    for table in Table::ALL {
        let records = from.records(table).await?;
        match table {
            Table::Pool => tables.pools = all(table, &records)?,
            Table::Resource => tables.resources = all(table, &records)?,
            Table::Used => {
                let uses = records.iter().map(|record| Ok((record.key.clone(), parse(table, record)?)));
                let uses: BTreeMap<String, LabTime> = uses.collect::<Result<_, StoreError>>()?;
                for resource in &mut tables.resources {
                    resource.last_used = uses.get(&resource.id.0.to_string()).copied().unwrap_or_default();
                }
            }
            Table::Remembered => {
                for record in &records {
                    let name = ResourceName::parse(&record.key).map_err(|error| unreadable(table, record, &error))?;
                    tables.remembered.push((name, parse(table, record)?));
                }
            }
            Table::Session => tables.sessions = all(table, &records)?,
            Table::Request => {
                for record in &records {
                    tables.requests.push(request(table, record)?);
                }
            }
            Table::Claim => tables.claims = all(table, &records)?,
            Table::Keyed => tables.keyed = all(table, &records)?,
            Table::Arrival => tables.arrivals = all(table, &records)?,
        }
    }
    Ok(tables)
}

fn request(table: Table, record: &Record) -> Result<RequestRecord, StoreError> {
    let (body_hash, end) = parse(table, record)?;
    let numbers = record
        .key
        .split_once('/')
        .and_then(|(session, request)| Some((SessionId(session.parse().ok()?), request.parse().ok()?)));
    let (session, request) = numbers.ok_or_else(|| unreadable(table, record, &"its key is not SESSION/REQUEST"))?;
    Ok(RequestRecord { session, request, body_hash, end })
}

fn all<T: DeserializeOwned>(table: Table, records: &[Record]) -> Result<Vec<T>, StoreError> {
    records.iter().map(|record| parse(table, record)).collect()
}

fn parse<T: DeserializeOwned>(table: Table, record: &Record) -> Result<T, StoreError> {
    serde_json::from_str(&record.text).map_err(|error| unreadable(table, record, &error))
}

fn unreadable(table: Table, record: &Record, error: &impl std::fmt::Display) -> StoreError {
    StoreError::Inconsistent { what: format!("{} {} cannot be read: {error}", table.name(), record.key) }
}
