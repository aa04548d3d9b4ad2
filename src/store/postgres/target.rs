//! An empty database that is being filled, in one transaction: nobody sees any of it before it is whole.
//!
//! The transaction begins with the lab's row, as every write does, so no broker takes the lead
//! meanwhile; one that tries finds books of another batch when it is done.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;

use super::connect::{self, Limits, Target, Who, check_server};
use super::lead::{CLOCK, Lead};
use super::schema::VERSIONS;
use super::snapshot::{PostgresSnapshot, execute};
use super::{Result, Texts, failed, number};
use crate::clock::random_secret;
use crate::core::tables::Batch;
use crate::store::StoreError;
use crate::store::archive::{self, CheckpointRow, Head, JournalRow, LeaseRow, Record, Table};
use crate::store::whole::{Whole, request_key};

const FILLING: &str = "fill the new store";
const LIMITS: Limits = Limits::UNHURRIED;

/// A database being filled.
#[derive(Debug)]
pub struct PostgresTarget {
    filling: PostgresSnapshot,
    lead: Lead,
    /// The last row of `request`.
    requests: i64,
}

impl PostgresTarget {
    /// A store to be, in the database at `url`; its tables are made where there are none.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] where there is a store that holds anything, [`StoreError::InUse`] where
    /// a broker is about to use it; another as for a broker that connects.
    pub async fn store(url: &str) -> Result<Self> {
        let target = Target::parse(url)?;
        let mut connection = target.connect(Who::Mover, LIMITS).await?;
        check_server(&mut connection, LIMITS).await?;
        VERSIONS.prepare(&mut connection, LIMITS).await?;
        let (found, known) = (VERSIONS.found(&mut connection, LIMITS).await?, VERSIONS.newest());
        if found < known {
            return Err(StoreError::TooOld { found, known });
        }
        let lead = begin(&mut connection, target.name()).await?;
        Ok(Self { filling: PostgresSnapshot::of(target.name().to_owned(), connection), lead, requests: 0 })
    }

    async fn write(&mut self, query: Query<'_, sqlx::Postgres, PgArguments>) -> Result<()> {
        LIMITS.of_read(FILLING, query.execute(&mut self.filling.connection)).await.map(drop)
    }

    async fn put_requests(&mut self, records: &[Record]) -> Result<()> {
        let (mut sessions, mut requests) = (Vec::new(), Vec::new());
        let (mut body_hashes, mut ends) = (Vec::new(), Vec::new());
        for record in records {
            let (session, request) =
                request_key(record).ok_or_else(|| failed(FILLING)("the key of a request is SESSION/REQUEST"))?;
            let (body_hash, ended): (Option<u64>, &RawValue) =
                serde_json::from_str(&record.text).map_err(failed(FILLING))?;
            sessions.push(session.cast_signed());
            requests.push(request.cast_signed());
            body_hashes.push(body_hash.map(u64::cast_signed));
            ends.push(ended.get());
        }
        const PUT: &str = "INSERT INTO request (row, session, request, body_hash, ended)
            SELECT $1 + r.n, r.session, r.request, r.body_hash, r.ended
            FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[]) WITH ORDINALITY
                AS r (session, request, body_hash, ended, n)";
        let put = sqlx::query(PUT).bind(self.requests).bind(sessions).bind(requests).bind(body_hashes).bind(ends);
        self.write(put).await?;
        self.requests += i64::try_from(records.len()).unwrap_or(i64::MAX);
        Ok(())
    }

    async fn put_sessions(&mut self, records: &[Record]) -> Result<()> {
        /// What stands in a column of its own beside the record.
        #[derive(Deserialize)]
        struct Part {
            forgotten: u64,
        }
        let forgotten = records.iter().map(|record| serde_json::from_str(&record.text));
        let forgotten = forgotten.map(|part: serde_json::Result<Part>| part.map(|part| part.forgotten.cast_signed()));
        let forgotten: Vec<i64> = forgotten.collect::<serde_json::Result<_>>().map_err(failed(FILLING))?;
        const PUT: &str = "INSERT INTO session (session, record, forgotten)
            SELECT r.session::bigint, r.record, r.forgotten
            FROM unnest($1::text[], $2::text[], $3::bigint[]) AS r (session, record, forgotten)";
        self.write(sqlx::query(PUT).bind(keys(records)).bind(texts(records)).bind(forgotten)).await
    }
}

/// Begins the transaction; answers the lead that it has as long as it lasts.
async fn begin(connection: &mut PgConnection, name: &str) -> Result<Lead> {
    const TAKE: &str = "UPDATE lab SET epoch = epoch + 1, began = epoch + 1, beat = beat + 1, leader = $1, url = NULL
        WHERE one = 1 AND batch = 0 AND leader IS NULL RETURNING epoch";
    execute(connection, "BEGIN").await?;
    let instance: Arc<str> = random_secret().into();
    let take = sqlx::query(TAKE).bind(Arc::clone(&instance));
    if let Some(row) = LIMITS.of_read(FILLING, take.fetch_optional(&mut *connection)).await? {
        let epoch = number(&row, 0)?;
        return Ok(Lead { instance, began: epoch, epoch });
    }
    let ask = sqlx::query_as("SELECT batch, url FROM lab");
    let (batch, url): (i64, Option<String>) = LIMITS.of_read(FILLING, ask.fetch_one(connection)).await?;
    Err(if batch == 0 { StoreError::InUse { by: url } } else { StoreError::NotEmpty { name: name.to_owned() } })
}

fn keys(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.key.as_str()).collect()
}

fn texts(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.text.as_str()).collect()
}

impl archive::Target for PostgresTarget {
    async fn put_head(&mut self, head: &Head) -> Result<()> {
        const PUT: &str = "UPDATE lab SET batch = $1, last_event = $2, wall_ms = $3, now = $4, term = $5,
            last_lease = $6, last_claim = $7, last_session = $8, last_resource = $9";
        let mut put = sqlx::query(PUT).bind(head.batch.cast_signed()).bind(head.last_event.cast_signed());
        put = put.bind(head.wall_ms);
        let lab = head.lab;
        for number in [lab.now.0, lab.term, lab.last_lease, lab.last_claim, lab.last_session, lab.last_resource] {
            put = put.bind(number.cast_signed());
        }
        self.write(put).await
    }

    async fn put_records(&mut self, table: Table, records: &[Record]) -> Result<()> {
        let put = match table {
            Table::Pool => "INSERT INTO pool (name, record) SELECT * FROM unnest($1::text[], $2::text[])",
            Table::Resource => {
                "INSERT INTO resource (resource, record)
                SELECT r.key::bigint, r.text FROM unnest($1::text[], $2::text[]) AS r (key, text)"
            }
            Table::Used => {
                "INSERT INTO resource_used (resource, last_used)
                SELECT r.key::bigint, r.text::bigint FROM unnest($1::text[], $2::text[]) AS r (key, text)"
            }
            Table::Remembered => "INSERT INTO remembered (name, marks) SELECT * FROM unnest($1::text[], $2::text[])",
            Table::Session => return self.put_sessions(records).await,
            Table::Request => return self.put_requests(records).await,
            Table::Claim => {
                "INSERT INTO claim (claim, record)
                SELECT r.key::bigint, r.text FROM unnest($1::text[], $2::text[]) AS r (key, text)"
            }
            Table::Keyed => "INSERT INTO keyed (key, record) SELECT * FROM unnest($1::text[], $2::text[])",
            Table::Arrival => {
                "INSERT INTO arrival (claim, record)
                SELECT r.key::bigint, r.text FROM unnest($1::text[], $2::text[]) AS r (key, text)"
            }
        };
        self.write(sqlx::query(put).bind(keys(records)).bind(texts(records))).await
    }

    async fn put_journal(&mut self, rows: &[JournalRow]) -> Result<()> {
        const PUT: &str = "INSERT INTO journal (event, batch, at, wall_ms, kind, lease, claim, session, resource, body)
            SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::text[])";
        let numbers = |of: fn(&JournalRow) -> u64| rows.iter().map(|row| of(row).cast_signed()).collect::<Vec<i64>>();
        let named = |of: fn(&JournalRow) -> Option<u64>| {
            rows.iter().map(|row| of(row).map(u64::cast_signed)).collect::<Vec<Option<i64>>>()
        };
        let texts = |of: fn(&JournalRow) -> &str| rows.iter().map(of).collect::<Vec<&str>>();
        let put = sqlx::query(PUT)
            .bind(numbers(|row| row.number))
            .bind(numbers(|row| row.batch))
            .bind(numbers(|row| row.at))
            .bind(rows.iter().map(|row| row.wall_ms).collect::<Vec<i64>>())
            .bind(texts(|row| &row.kind))
            .bind(named(|row| row.names.lease.map(|id| id.0)))
            .bind(named(|row| row.names.claim.map(|id| id.0)))
            .bind(named(|row| row.names.session.map(|id| id.0)))
            .bind(named(|row| row.names.resource.map(|id| id.0)))
            .bind(texts(|row| &row.body));
        self.write(put).await
    }

    async fn put_leases(&mut self, leases: &[LeaseRow]) -> Result<()> {
        const RECORDS: &str = "INSERT INTO lease (lease, record) SELECT * FROM unnest($1::bigint[], $2::text[])";
        const ENDS: &str = "INSERT INTO lease_end (lease, at, outcome, ended)
            SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[])";
        const HELD: &str = "INSERT INTO held (lease) SELECT * FROM unnest($1::bigint[])";
        const RESOURCES: &str = "INSERT INTO lease_resource (era, resource, lease)
            SELECT r.lease >> 10, r.resource, r.lease FROM unnest($1::bigint[], $2::text[]) AS r (lease, resource)";
        let id = |row: &LeaseRow| row.lease.cast_signed();
        let records = leases.iter().filter_map(|row| Some((id(row), row.record.as_deref()?)));
        let (ids, records): (Vec<i64>, Vec<&str>) = records.unzip();
        self.write(sqlx::query(RECORDS).bind(ids).bind(records)).await?;
        let (mut ids, mut times) = (Vec::new(), Vec::new());
        let (mut outcomes, mut ends) = (Vec::new(), Vec::new());
        for (row, end) in leases.iter().filter_map(|row| Some((row, row.end.as_ref()?))) {
            ids.push(id(row));
            times.push(end.at.cast_signed());
            outcomes.push(end.outcome.as_deref());
            ends.push(end.ended.as_str());
        }
        self.write(sqlx::query(ENDS).bind(ids).bind(times).bind(outcomes).bind(ends)).await?;
        let held: Vec<i64> = leases.iter().filter(|row| row.held).map(id).collect();
        self.write(sqlx::query(HELD).bind(held)).await?;
        let named = leases.iter().flat_map(|row| row.resources.iter().map(move |name| (id(row), name.as_str())));
        let (ids, names): (Vec<i64>, Vec<&str>) = named.unzip();
        self.write(sqlx::query(RESOURCES).bind(ids).bind(names)).await
    }

    async fn put_checkpoint(&mut self, checkpoint: &CheckpointRow) -> Result<()> {
        let put = sqlx::query("INSERT INTO checkpoint (event, batch, at, tables) VALUES ($1, $2, $3, $4)")
            .bind(checkpoint.event.cast_signed())
            .bind(checkpoint.batch.cast_signed())
            .bind(checkpoint.at.cast_signed())
            .bind(checkpoint.tables.as_str());
        self.write(put).await
    }

    async fn commit(&mut self, batch: &Batch) -> Result<()> {
        let query = Texts::default().commit(batch, &self.lead).map_err(failed("write a batch as JSON"))?;
        let written: i64 = LIMITS.of_read(FILLING, query.fetch_one(&mut self.filling.connection)).await?;
        if written == 1 { Ok(()) } else { Err(failed(FILLING)("the batch does not follow what was copied")) }
    }

    async fn finish(mut self) -> Result<Option<String>> {
        // Nobody leads, and lab time goes on from here by the database's clock.
        let free = format!("UPDATE lab SET leader = NULL, url = NULL, beat = beat + 1, stamp = {CLOCK}");
        self.write(sqlx::query(sqlx::AssertSqlSafe(free))).await?;
        let committed = execute(&mut self.filling.connection, "COMMIT").await;
        connect::hang_up(self.filling.connection);
        committed.map(|()| None)
    }
}

impl Whole for PostgresTarget {
    type Row = PgRow;

    const LAST_OF_PIECE: &'static str = PostgresSnapshot::LAST_OF_PIECE;
    const REQUESTS: &'static str = PostgresSnapshot::REQUESTS;

    fn store(&self) -> String {
        self.filling.store()
    }

    async fn all<T: Send>(
        &mut self,
        ask: &'static str,
        numbers: &[u64],
        read: impl Fn(&PgRow) -> Result<T> + Send,
    ) -> Result<Vec<T>> {
        self.filling.all(ask, numbers, read).await
    }

    /// There was no store.
    async fn end(mut self) -> Result<()> {
        // Where the server does not hear it, it does the same once the connection is gone.
        let _ = execute(&mut self.filling.connection, "ROLLBACK").await;
        connect::hang_up(self.filling.connection);
        Ok(())
    }
}
