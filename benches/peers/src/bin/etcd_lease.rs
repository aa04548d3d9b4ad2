//! A lease on etcd: grant (30 s), put-if-absent bound to it, revoke (which deletes the key). Three
//! proposals a cycle, each durable before its reply; one channel a client.

use anyhow::{Result, bail};
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use leasehold_peers::{Client, Options, Plan, closed_loop, report};
use serde_json::json;

struct Holder {
    etcd: etcd_client::Client,
    key: String,
}

impl Client for Holder {
    async fn cycle(&mut self) -> Result<()> {
        let lease = self.etcd.lease_grant(30, None).await?.id();
        let take = Txn::new().when([Compare::version(self.key.as_str(), CompareOp::Equal, 0)]).and_then([TxnOp::put(
            self.key.as_str(),
            "holder",
            Some(PutOptions::new().with_lease(lease)),
        )]);
        if !self.etcd.txn(take).await?.succeeded() {
            bail!("{} already held", self.key);
        }
        self.etcd.lease_revoke(lease).await?;
        Ok(())
    }
}

async fn run(o: Options) -> Result<()> {
    let plan = Plan::from_options(&o)?;
    let addr = o.text("addr", "127.0.0.1:22379");
    for n in o.list::<usize>("clients", "1,16,64")? {
        let mut clients = Vec::new();
        for id in 0..n {
            let mut etcd = etcd_client::Client::connect([addr.as_str()], None).await?;
            let key = format!("resource/{id}");
            etcd.delete(key.as_str(), None).await?;
            clients.push(Holder { etcd, key });
        }
        let (_, runs) = closed_loop(clients, plan).await?;
        report(json!({"bench": "etcd", "clients": n}), &runs);
    }
    Ok(())
}

fn main() -> Result<()> {
    let o = Options::from_env()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(o))
}
