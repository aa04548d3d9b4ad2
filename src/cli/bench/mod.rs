//! `bench`: a load generator for a broker, as everyone's way to measure one.
//!
//! Many sessions from one process, each in a closed loop: the next request goes out when the last
//! one is answered. One thread unless told otherwise, so that the load side takes as little of
//! the machine as it can. What it leases it brings along: a pool `bench`, removed at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::{Failure, Globals, exit_code, output};
use crate::client::connect::{Network, STEP_TIMEOUT, STEP_TIMEOUT_SHORT};
use crate::client::http::Http;
use crate::client::url::BaseUrl;
use crate::units::parse_duration_ms;

mod drop;
mod histogram;
mod load;
mod machine;
mod report;
mod wire;

/// The pool that is brought along, and how its resources' names begin.
const POOL: &str = "bench";
/// The pool of those who look on while others drop, and its resources: one for each of them.
const ASIDE: &str = "bench-aside";
const ASIDE_RESOURCES: u32 = 8;
/// Requests at a time while resources are brought and taken away.
const SETTING_UP: usize = 16;

/// Measure a broker: lease cycles per second, and how long grants and hand-overs take
#[derive(Debug, Args)]
pub struct BenchCommand {
    /// Sessions, each on a connection of its own
    #[arg(long, short = 'c', value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How long to measure
    #[arg(long, short = 'd', default_value = "10s", value_parser = parse_duration_ms)]
    duration: u64,
    /// How long to run before measuring
    #[arg(long, default_value = "1s", value_parser = parse_duration_ms)]
    warm_up: u64,
    /// What to measure
    #[arg(long, value_enum, default_value = "cycle")]
    mode: Mode,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// What every session asks for, instead of one resource of a pool that is brought along
    #[arg(long = "need", short = 'n', value_name = "NEED")]
    needs: Vec<String>,
    /// Resources to bring along [default: twice the connections, at least 64; queue: an eighth of them; drop: as many]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    resources: Option<u32>,
    /// Each session's ttl, instead of the broker's default
    #[arg(long, value_parser = parse_duration_ms)]
    ttl: Option<u64>,
    /// Threads of the load side
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// The broker's process on this machine, to tell its memory and processor time
    #[arg(long)]
    pid: Option<u32>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Acquire and release, over and over, with resources for everyone
    Cycle,
    /// Idle sessions, kept alive
    Hold,
    /// More sessions than resources: how long from a release to the grant of the next
    Queue,
    /// Holders that all drop at the same moment: how long after their ttl others have what they held
    Drop,
}

/// What a run needs to know.
#[derive(Clone)]
struct Plan {
    network: Network,
    url: BaseUrl,
    needs: Arc<[String]>,
    connections: u32,
    duration_ms: u64,
    warm_up_ms: u64,
    ttl_ms: Option<u64>,
    pid: Option<u32>,
    stop: Arc<AtomicBool>,
}

impl Plan {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl BenchCommand {
    /// Does it.
    pub fn execute(self, globals: &Globals) -> Result<u8, Failure> {
        machine::raise_open_files(u64::from(self.connections) + 128)?;
        let mut builder = if self.threads == 1 {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        };
        let runtime = builder
            .worker_threads(self.threads as usize)
            .enable_all()
            .build()
            .map_err(|error| Failure::own(format!("no event loop can be made: {error}")))?;
        runtime.block_on(self.measure(globals))
    }

    async fn measure(&self, globals: &Globals) -> Result<u8, Failure> {
        let urls = BaseUrl::parse_list(&globals.url)?;
        let network = Network::from_env()?;
        let http = Http::with_network(urls.clone(), network.clone());
        let url = leader(&network, &urls).await?;
        let resources = if self.needs.is_empty() && self.mode != Mode::Hold { self.resource_count() } else { 0 };
        let plan = Plan {
            network,
            url,
            needs: if self.needs.is_empty() { Arc::from([POOL.to_owned()]) } else { self.needs.clone().into() },
            connections: self.connections,
            duration_ms: self.duration,
            warm_up_ms: self.warm_up,
            ttl_ms: self.ttl,
            pid: self.pid,
            stop: Arc::new(AtomicBool::new(false)),
        };
        stop_on_interrupt(Arc::clone(&plan.stop));
        let aside = if self.mode == Mode::Drop { ASIDE_RESOURCES } else { 0 };
        let brought = match bring(&http, POOL, resources).await {
            Ok(()) => bring(&http, ASIDE, aside).await,
            Err(failure) => Err(failure),
        };
        let measured = match brought {
            Ok(()) => self.run(&plan).await,
            Err(failure) => Err(failure),
        };
        // Also after a failure: what was brought must not stay behind.
        let taken = take_away(&http, POOL, resources).await.and(take_away(&http, ASIDE, aside).await);
        let report = measured?;
        output::print(&if self.json { report.json()? } else { report.text() })?;
        taken.map(|()| exit_code::DONE)
    }

    async fn run(&self, plan: &Plan) -> Result<report::Report, Failure> {
        let mut report = report::Report::new(self.mode_word());
        report.whole("connections", u64::from(self.connections));
        report.whole("threads", u64::from(self.threads));
        match self.mode {
            Mode::Cycle => load::cycle(plan, &mut report).await?,
            Mode::Hold => load::hold(plan, &mut report).await?,
            Mode::Queue => load::queue(plan, &mut report).await?,
            Mode::Drop => drop::drop_all(plan, &mut report).await?,
        }
        Ok(report)
    }

    fn resource_count(&self) -> u32 {
        self.resources.unwrap_or_else(|| match self.mode {
            Mode::Queue => (self.connections / 8).max(1),
            Mode::Drop => self.connections,
            Mode::Cycle | Mode::Hold => self.connections.saturating_mul(2).max(64),
        })
    }

    const fn mode_word(&self) -> &'static str {
        match self.mode {
            Mode::Cycle => "cycle",
            Mode::Hold => "hold",
            Mode::Queue => "queue",
            Mode::Drop => "drop",
        }
    }
}

/// Where the broker is that leads: all connections go there.
async fn leader(network: &Network, urls: &[BaseUrl]) -> Result<BaseUrl, Failure> {
    let step = if urls.len() > 1 { STEP_TIMEOUT_SHORT } else { STEP_TIMEOUT };
    let mut last = Failure::no_broker("no URL");
    for url in urls {
        match network.websocket(url, step).await {
            Ok((_, leader)) => return Ok(leader),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}

/// An interrupt ends the measuring, not the cleaning up after it.
fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.store(true, Ordering::Relaxed);
            output::say("leasehold: interrupted; taking away what was brought");
        }
    });
}

async fn bring(http: &Http, pool: &str, resources: u32) -> Result<(), Failure> {
    let body = json!({ "pool": pool });
    stream::iter(1..=resources)
        .map(|number| put(http, pool, number, &body))
        .buffer_unordered(SETTING_UP)
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn put(http: &Http, pool: &str, number: u32, body: &Value) -> Result<(), Failure> {
    http.put(&path_of(pool, number), Some(body)).await?.json::<Value>()?;
    Ok(())
}

/// Those that are gone already are fine: an earlier failure may have left only some.
async fn take_away(http: &Http, pool: &str, resources: u32) -> Result<(), Failure> {
    stream::iter(1..=resources)
        .map(|number| async move {
            let answer = http.delete::<Value>(&path_of(pool, number), None).await?;
            if answer.is_success() || answer.status == 404 { Ok(()) } else { Err(answer.refusal().into()) }
        })
        .buffer_unordered(SETTING_UP)
        .try_for_each(|()| async { Ok(()) })
        .await
}

fn path_of(pool: &str, number: u32) -> String {
    format!("/v1/resources/{pool}-{number:04}")
}
