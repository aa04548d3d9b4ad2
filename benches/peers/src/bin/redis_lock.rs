//! A lock on Redis: `SET key token NX PX 30000`, then compare-and-delete in Lua by `EVALSHA`.
//!
//! One connection a client. Commands are packed by the redis crate but written to a plain stream and
//! answers are read to their line's end: the cheapest client there is, so that the comparison is
//! fair to Redis.

use anyhow::{Context, Result, bail};
use leasehold_peers::{Client, Options, Plan, closed_loop, report};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

struct Locker {
    stream: TcpStream,
    key: String,
    id: usize,
    round: u64,
    sha: String,
    reply: [u8; 256],
}

async fn exchange<'a>(stream: &mut TcpStream, packed: &[u8], reply: &'a mut [u8; 256]) -> Result<&'a [u8]> {
    stream.write_all(packed).await?;
    let mut have = 0;
    loop {
        let n = stream.read(&mut reply[have..]).await?;
        if n == 0 {
            bail!("server closed the connection");
        }
        have += n;
        if reply[..have].ends_with(b"\r\n") {
            return Ok(&reply[..have]);
        }
    }
}

impl Client for Locker {
    async fn cycle(&mut self) -> Result<()> {
        self.round += 1;
        let token = format!("{}-{}", self.id, self.round);
        let mut set = redis::cmd("SET");
        set.arg(&self.key).arg(&token).arg("NX").arg("PX").arg(30_000);
        let mut del = redis::cmd("EVALSHA");
        del.arg(&self.sha).arg(1).arg(&self.key).arg(&token);
        let answer = exchange(&mut self.stream, &set.get_packed_command(), &mut self.reply).await?;
        if answer != b"+OK\r\n" {
            bail!("SET: {}", String::from_utf8_lossy(answer));
        }
        let answer = exchange(&mut self.stream, &del.get_packed_command(), &mut self.reply).await?;
        if answer != b":1\r\n" {
            bail!("EVALSHA: {}", String::from_utf8_lossy(answer));
        }
        Ok(())
    }
}

async fn run(o: Options) -> Result<()> {
    let plan = Plan::from_options(&o)?;
    let addr = o.text("addr", "127.0.0.1:7379");
    let server = redis::Client::open(format!("redis://{addr}/"))?;
    let mut admin = server.get_multiplexed_async_connection().await?;
    let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(RELEASE).query_async(&mut admin).await?;
    for n in o.list::<usize>("clients", "1,16,64,256")? {
        let mut clients = Vec::new();
        for id in 0..n {
            let stream = TcpStream::connect(&addr).await.context("connect")?;
            stream.set_nodelay(true)?;
            clients.push(Locker {
                stream,
                key: format!("resource:{id}"),
                id,
                round: 0,
                sha: sha.clone(),
                reply: [0; 256],
            });
        }
        let (_, runs) = closed_loop(clients, plan).await?;
        report(json!({"bench": "redis", "clients": n}), &runs);
    }
    Ok(())
}

fn main() -> Result<()> {
    let o = Options::from_env()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(o))
}
