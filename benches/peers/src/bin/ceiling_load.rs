//! Lease cycles against `ceiling_server`: acquire, reply, release, reply.

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use leasehold_peers::bare::{Reply, Request};
use leasehold_peers::{Client, Options, Plan, closed_loop, report};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

struct Runner {
    ws: WebSocketStream<TcpStream>,
    name: String,
    sent: u64,
}

impl Runner {
    async fn ask(&mut self, kind: &str, want: &str, resource: i64, lease: i64) -> Result<(i64, i64)> {
        self.sent += 1;
        let request = Request {
            kind,
            id: self.sent,
            client: &self.name,
            pool: "android-phones",
            resource,
            lease,
            ttl_ms: 30_000,
        };
        self.ws.send(Message::Text(serde_json::to_string(&request)?.into())).await?;
        loop {
            if let Message::Text(text) = self.ws.next().await.context("closed")?? {
                let reply: Reply = serde_json::from_str(&text)?;
                if reply.id != self.sent || reply.kind != want {
                    bail!("wanted {want}, got {text}");
                }
                return Ok((reply.resource, reply.lease));
            }
        }
    }
}

impl Client for Runner {
    async fn cycle(&mut self) -> Result<()> {
        let (resource, lease) = self.ask("acquire", "acquired", 0, 0).await?;
        self.ask("release", "released", resource, lease).await?;
        Ok(())
    }
}

async fn run(o: Options) -> Result<()> {
    let plan = Plan::from_options(&o)?;
    let addr = o.text("addr", "127.0.0.1:7500");
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    for n in o.list::<usize>("clients", "1,16,64,256,1000")? {
        let mut clients = Vec::new();
        for id in 0..n {
            let stream = TcpStream::connect(&addr).await.context("connect")?;
            stream.set_nodelay(true)?;
            let (ws, _) =
                tokio_tungstenite::client_async_with_config(format!("ws://{addr}/"), stream, Some(config)).await?;
            clients.push(Runner { ws, name: format!("runner-{id:06}"), sent: 0 });
        }
        let (_, runs) = closed_loop(clients, plan).await?;
        report(json!({"bench": "ceiling", "clients": n}), &runs);
    }
    Ok(())
}

fn main() -> Result<()> {
    let o = Options::from_env()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(o))
}
