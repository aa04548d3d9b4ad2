//! A lock on PostgreSQL as people write one: a table of seats, a free one taken by an UPDATE whose
//! row is found by `FOR UPDATE SKIP LOCKED`, given back by another UPDATE. Each is a transaction of its
//! own on a prepared statement, one connection a client.

use anyhow::{Context, Result, bail};
use leasehold_peers::{Client, Options, Plan, closed_loop, report};
use serde_json::json;
use tokio_postgres::{NoTls, Statement};

/// Rows in the table: more than clients, so that nobody waits for anybody.
const SEATS: i64 = 1_000;

const ACQUIRE: &str = "UPDATE seats SET holder = $1, lease = lease + 1, expires_at = $2 \
     WHERE id = (SELECT id FROM seats WHERE holder IS NULL FOR UPDATE SKIP LOCKED LIMIT 1) \
     RETURNING id, lease";
const RELEASE: &str =
    "UPDATE seats SET holder = NULL, expires_at = NULL WHERE id = $1 AND holder = $2 AND lease = $3";

async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("connect")?;
    tokio::spawn(connection);
    Ok(client)
}

/// The table anew, with room in its pages for the updates to come.
async fn fresh_table(url: &str) -> Result<()> {
    let server = connect(url).await?;
    let make = format!(
        "DROP TABLE IF EXISTS seats; \
         CREATE TABLE seats (id bigint PRIMARY KEY, holder text, lease bigint NOT NULL, expires_at bigint) \
             WITH (fillfactor = 50); \
         INSERT INTO seats SELECT g, NULL, 0, NULL FROM generate_series(1, {SEATS}) g"
    );
    server.batch_execute(&make).await?;
    server.batch_execute("VACUUM ANALYZE seats").await?;
    Ok(())
}

struct Holder {
    server: tokio_postgres::Client,
    acquire: Statement,
    release: Statement,
    name: String,
}

impl Client for Holder {
    async fn cycle(&mut self) -> Result<()> {
        let row = self.server.query_one(&self.acquire, &[&self.name, &1_800_000_000_i64]).await?;
        let (id, lease): (i64, i64) = (row.get(0), row.get(1));
        if self.server.execute(&self.release, &[&id, &self.name, &lease]).await? != 1 {
            bail!("seat {id} was not released");
        }
        Ok(())
    }
}

async fn run(o: Options) -> Result<()> {
    let plan = Plan::from_options(&o)?;
    let url = o.text("url", "host=127.0.0.1 port=5432 user=postgres dbname=postgres");
    for n in o.list::<usize>("clients", "1,16,64")? {
        fresh_table(&url).await?;
        let mut clients = Vec::new();
        for id in 0..n {
            let server = connect(&url).await?;
            let acquire = server.prepare(ACQUIRE).await?;
            let release = server.prepare(RELEASE).await?;
            clients.push(Holder { server, acquire, release, name: format!("runner-{id}") });
        }
        let (_, runs) = closed_loop(clients, plan).await?;
        report(json!({"bench": "postgres", "clients": n}), &runs);
    }
    Ok(())
}

fn main() -> Result<()> {
    let o = Options::from_env()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(o))
}
