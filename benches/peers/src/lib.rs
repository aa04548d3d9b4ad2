//! What the load programs share: `--name value` options, clients in a closed loop, latencies, and
//! one line of JSON a case.
//!
//! Each measures a *lease cycle*: take one exclusive thing, give it back. One request is under way
//! per connection, one thread makes the load, and the server's process is named by `SERVER_PID`, so
//! that processor time a cycle is told beside the rate: it moves far less than the rate does.

pub mod bare;

use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

/// Command-line options of the form `--name value`.
pub struct Options(Vec<(String, String)>);

impl Options {
    pub fn from_env() -> Result<Self> {
        let mut pairs = Vec::new();
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let name = name.strip_prefix("--").with_context(|| format!("expected --name, got {name}"))?.to_owned();
            let value = args.next().with_context(|| format!("--{name} needs a value"))?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    pub fn text(&self, name: &str, default: &str) -> String {
        self.0.iter().rev().find(|(n, _)| n == name).map_or_else(|| default.to_owned(), |(_, v)| v.clone())
    }

    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        match self.0.iter().rev().find(|(n, _)| n == name) {
            Some((_, v)) => v.parse().with_context(|| format!("--{name} {v}")),
            None => Ok(default),
        }
    }

    /// A comma-separated list.
    pub fn list<T: FromStr>(&self, name: &str, default: &str) -> Result<Vec<T>>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        self.text(name, default).split(',').map(|s| s.trim().parse().with_context(|| format!("--{name} {s}"))).collect()
    }
}

/// How long and how often each case is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub warmup: Duration,
    pub window: Duration,
    pub runs: usize,
}

impl Plan {
    pub fn from_options(o: &Options) -> Result<Self> {
        Ok(Self {
            warmup: Duration::from_millis(o.get("warmup-ms", 500)?),
            window: Duration::from_millis(o.get("window-ms", 2000)?),
            runs: o.get("runs", 5)?,
        })
    }
}

/// One closed-loop client: the next cycle starts when the last one ends.
pub trait Client: Send + 'static {
    fn cycle(&mut self) -> impl Future<Output = Result<()>> + Send;
}

pub struct Run {
    pub count: u64,
    pub seconds: f64,
    pub latency: Histogram<u64>,
    pub busy: Busy,
}

impl Run {
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("constant bounds")
}

/// (busy, niced, total) jiffies of the machine.
fn machine_jiffies() -> (u64, u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let total: u64 = fields.iter().take(8).sum();
    let idle = fields.get(3).copied().unwrap_or(0) + fields.get(4).copied().unwrap_or(0);
    (total - idle, fields.get(1).copied().unwrap_or(0), total)
}

/// Cores busy between `start` and `read`: all, and those that ran niced work
/// (no load program here is niced, so that is somebody else's).
pub struct BusyMeter((u64, u64, u64), u64, u64);

#[derive(Clone, Copy, Debug, Default)]
pub struct Busy {
    pub all: f64,
    pub niced: f64,
    /// CPU seconds of this process, and of the one named by `SERVER_PID`.
    pub own_cpu_s: f64,
    pub server_cpu_s: f64,
}

const JIFFIES_PER_S: f64 = 100.0;

/// CPU time (user + system) of a process, in jiffies.
fn process_jiffies(pid: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum()
}

fn server_jiffies() -> u64 {
    std::env::var("SERVER_PID").map_or(0, |pid| process_jiffies(&pid))
}

fn cpu_count() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().filter(|l| l.starts_with("cpu")).count().saturating_sub(1).max(1) as f64
}

impl BusyMeter {
    pub fn start() -> Self {
        Self(machine_jiffies(), process_jiffies("self"), server_jiffies())
    }

    pub fn read(&self) -> Busy {
        let Self((b0, n0, t0), own, server) = *self;
        let (b1, n1, t1) = machine_jiffies();
        if t1 == t0 {
            return Busy::default();
        }
        let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / (t1 - t0) as f64 * cpu_count();
        Busy {
            all: share(b0, b1),
            niced: share(n0, n1),
            own_cpu_s: process_jiffies("self").saturating_sub(own) as f64 / JIFFIES_PER_S,
            server_cpu_s: server_jiffies().saturating_sub(server) as f64 / JIFFIES_PER_S,
        }
    }
}

/// Runs every client in its own task, `plan.runs` times over.
pub async fn closed_loop<C: Client>(mut clients: Vec<C>, plan: Plan) -> Result<(Vec<C>, Vec<Run>)> {
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        let open = Instant::now() + plan.warmup;
        let close = open + plan.window;
        let tasks: Vec<_> = clients
            .drain(..)
            .map(|mut client| {
                tokio::spawn(async move {
                    let mut seen = histogram();
                    let mut begin = Instant::now();
                    loop {
                        client.cycle().await?;
                        let end = Instant::now();
                        if end >= close {
                            return anyhow::Ok((client, seen));
                        }
                        if end >= open {
                            seen.saturating_record((end - begin).as_nanos() as u64);
                        }
                        begin = end;
                    }
                })
            })
            .collect();
        tokio::time::sleep_until(open.into()).await;
        let meter = BusyMeter::start();
        tokio::time::sleep_until(close.into()).await;
        let busy = meter.read();
        let mut latency = histogram();
        for task in tasks {
            let (client, seen) = task.await??;
            clients.push(client);
            latency.add(&seen)?;
        }
        runs.push(Run { count: latency.len(), seconds: plan.window.as_secs_f64(), latency, busy });
    }
    Ok((clients, runs))
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

fn round(v: f64, digits: i32) -> f64 {
    let k = 10f64.powi(digits);
    (v * k).round() / k
}

/// Prints one JSON line: the labels, then medians over the runs.
pub fn report(labels: Value, runs: &[Run]) {
    let over = |f: &dyn Fn(&Run) -> f64| median(runs.iter().map(f).collect());
    let quantile = |q: f64| over(&|r: &Run| r.latency.value_at_quantile(q) as f64 / 1000.0);
    let mut line: Map<String, Value> = labels.as_object().cloned().unwrap_or_default();
    line.insert("per_s".into(), json!(over(&Run::per_second).round()));
    line.insert("p50_us".into(), json!(round(quantile(0.5), 1)));
    line.insert("p99_us".into(), json!(round(quantile(0.99), 1)));
    line.insert("busy_cores".into(), json!(round(over(&|r: &Run| r.busy.all), 2)));
    line.insert("foreign_cores_max".into(), json!(round(runs.iter().map(|r| r.busy.niced).fold(0.0, f64::max), 2)));
    let each = |f: &dyn Fn(&Run) -> f64| round(over(&|r: &Run| f(r) * 1e6 / r.count.max(1) as f64), 2);
    line.insert("own_cpu_us_each".into(), json!(each(&|r: &Run| r.busy.own_cpu_s)));
    line.insert("server_cpu_us_each".into(), json!(each(&|r: &Run| r.busy.server_cpu_s)));
    line.insert("runs_per_s".into(), json!(runs.iter().map(|r| r.per_second().round()).collect::<Vec<_>>()));
    println!("{}", Value::Object(line));
}
