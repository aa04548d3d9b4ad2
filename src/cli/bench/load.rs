//! The three loads: cycles, idle sessions, and a queue.
//!
//! All sessions are opened before anything is measured. Every task ends its cycle before it
//! looks whether time is over, so that no lease stays behind and a queue drains by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::task::JoinSet;

use super::histogram::Histogram;
use super::report::Report;
use super::wire::{Claimed, Connection};
use super::{Plan, machine};
use crate::cli::Failure;
use crate::clock::{boot_now_us, jitter};
use crate::protocol::call::method;

/// Connections opened at a time: a broker's accept queue is not what is measured.
pub(super) const OPENING: usize = 32;
/// A renewal every this part of the ttl, as the protocol asks of clients.
const RENEWALS_PER_TTL: u64 = 5;

/// When measuring begins and ends, on [`boot_now_us`].
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) open_us: u64,
    pub(super) close_us: u64,
}

impl Window {
    fn of(plan: &Plan) -> Self {
        let open_us = boot_now_us() + plan.warm_up_ms * 1_000;
        Self { open_us, close_us: open_us + plan.duration_ms * 1_000 }
    }

    const fn has(self, us: u64) -> bool {
        us >= self.open_us && us < self.close_us
    }

    /// Where the measuring really ended: at its end, or when it was interrupted.
    fn length_us(self) -> u64 {
        boot_now_us().min(self.close_us).saturating_sub(self.open_us).max(1)
    }
}

/// Acquire and release, over and over.
pub(super) async fn cycle(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let (connections, _) = open_all(plan).await?;
    let window = Window::of(plan);
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let plan = plan.clone();
        tasks.spawn(async move {
            let mut seen = [Histogram::default(), Histogram::default()];
            while !plan.stopped() {
                let begin = boot_now_us();
                let lease = match connection.acquire().await? {
                    Claimed::Granted(lease, _) => lease,
                    Claimed::Queued => connection.granted().await?.0,
                };
                let granted = boot_now_us();
                connection.release(lease).await?;
                let end = boot_now_us();
                if end >= window.close_us {
                    break;
                }
                if window.has(end) {
                    seen[0].record(granted - begin);
                    seen[1].record(end - begin);
                }
            }
            Ok((connection, seen))
        });
    }
    let ([grants, cycles], used) = finish(plan, window, tasks).await?;
    report.rate("cycles", cycles.total(), window.length_us());
    report.latency("grant", &grants);
    report.latency("cycle", &cycles);
    tell_used(report, window, used);
    Ok(())
}

/// More sessions than resources: each waits, is granted, releases at once and asks again.
pub(super) async fn queue(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let (connections, _) = open_all(plan).await?;
    let window = Window::of(plan);
    let released = Arc::new(Mutex::new(BTreeMap::new()));
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(wait_in_line(plan.clone(), window, connection, Arc::clone(&released)));
    }
    let ([handovers, waits], used) = finish(plan, window, tasks).await?;
    report.rate("grants", waits.total(), window.length_us());
    report.latency("handover", &handovers);
    report.latency("wait", &waits);
    tell_used(report, window, used);
    Ok(())
}

/// When each resource was last released, by its name, until it is granted again.
type Released = Arc<Mutex<BTreeMap<String, u64>>>;

async fn wait_in_line(
    plan: Plan,
    window: Window,
    mut connection: Connection,
    released: Released,
) -> Result<(Connection, [Histogram; 2]), Failure> {
    let mut seen = [Histogram::default(), Histogram::default()];
    while !plan.stopped() {
        let begin = boot_now_us();
        let (lease, name, waited) = match connection.acquire().await? {
            Claimed::Granted(lease, name) => (lease, name, false),
            Claimed::Queued => connection.granted().await.map(|(lease, name)| (lease, name, true))?,
        };
        let granted = boot_now_us();
        let since = released.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        if window.has(granted) {
            // One that was free was handed over by nobody.
            if let (true, Some(since)) = (waited, since) {
                seen[0].record(granted.saturating_sub(since));
            }
            seen[1].record(granted - begin);
        }
        released.lock().unwrap_or_else(PoisonError::into_inner).insert(name, boot_now_us());
        connection.release(lease).await?;
        if granted >= window.close_us {
            break;
        }
    }
    Ok((connection, seen))
}

/// Idle sessions, renewed and pinged.
pub(super) async fn hold(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let rss_before = plan.pid.and_then(machine::rss_kib);
    let (connections, opened) = open_all(plan).await?;
    let sessions = connections.len() as u64;
    let window = Window::of(plan);
    let used = tokio::spawn(used_over(plan.clone(), window));
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(stay(plan.clone(), window, connection));
    }
    let used = used.await.unwrap_or_default();
    let mut renewals = Histogram::default();
    let mut lost = 0;
    let mut reason = None;
    while let Some(done) = tasks.join_next().await {
        match done.map_err(|error| Failure::own(format!("a session's task failed: {error}")))? {
            Ok((connection, seen)) => {
                renewals.add(&seen);
                connection.close().await;
            }
            Err(failure) => {
                lost += 1;
                reason.get_or_insert(failure);
            }
        }
    }
    if let Some(failure) = reason {
        crate::cli::output::say(&format!("leasehold: {lost} of {sessions} sessions were lost; the first: {failure}"));
    }
    report.whole("sessions", sessions);
    report.whole("sessions_lost", lost);
    report.latency("open", &opened);
    report.latency("renew", &renewals);
    tell_used(report, window, used);
    if let (Some(before), Some(after)) = (rss_before, used.broker_rss_kib) {
        report.whole("broker_rss_before_kib", before);
        report.whole("broker_rss_per_session_bytes", after.saturating_sub(before) * 1_024 / sessions.max(1));
    }
    Ok(())
}

async fn stay(plan: Plan, window: Window, mut connection: Connection) -> Result<(Connection, Histogram), Failure> {
    let mut seen = Histogram::default();
    let every_us = (connection.ttl_ms * 1_000 / RENEWALS_PER_TTL).max(1_000);
    // Spread over the interval: sessions opened together would renew together for ever.
    let mut next_us = boot_now_us() + jitter(every_us);
    while !plan.stopped() && boot_now_us() < window.close_us {
        let wait_us = next_us.min(window.close_us).saturating_sub(boot_now_us());
        // Short enough to see an interrupt soon.
        let wait = Duration::from_micros(wait_us).min(Duration::from_secs(1));
        tokio::select! {
            failure = connection.idle() => return Err(failure),
            () = tokio::time::sleep(wait) => {}
        }
        let begin = boot_now_us();
        if begin >= next_us {
            next_us = begin + every_us;
            connection.call(method::SESSION_RENEW, &json!({ "renewal": 0 })).await?;
            seen.record(boot_now_us() - begin);
        }
    }
    Ok((connection, seen))
}

/// Opens all sessions and answers how long each took.
pub(super) async fn open_all(plan: &Plan) -> Result<(Vec<Connection>, Histogram), Failure> {
    let mut seen = Histogram::default();
    let opening = stream::iter(0..plan.connections).map(|_| async {
        let begin = boot_now_us();
        let connection = Connection::open(plan, &plan.needs).await?;
        Ok::<_, Failure>((connection, boot_now_us() - begin))
    });
    let opened: Vec<(Connection, u64)> = opening.buffer_unordered(OPENING).try_collect().await?;
    let connections = opened.into_iter().map(|(connection, us)| {
        seen.record(us);
        connection
    });
    Ok((connections.collect(), seen))
}

type Tasks<const N: usize> = JoinSet<Result<(Connection, [Histogram; N]), Failure>>;

/// What the processes took while it was measured: processor time in microseconds, memory in KiB.
/// `None` where the system does not tell, and for a broker whose process is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    load_us: Option<u64>,
    broker_us: Option<u64>,
    broker_rss_kib: Option<u64>,
}

pub(super) fn tell_used(report: &mut Report, window: Window, used: Used) {
    let percent = |us: u64| us * 100 / window.length_us();
    if let Some(rss_kib) = used.broker_rss_kib {
        report.whole("broker_rss_kib", rss_kib);
    }
    if let Some(us) = used.broker_us {
        report.whole("broker_cpu_percent", percent(us));
    }
    if let Some(us) = used.load_us {
        report.whole("load_cpu_percent", percent(us));
    }
}

/// Waits for all tasks, closes their sessions, and adds up what they saw. The first failure ends
/// the rest.
async fn finish<const N: usize>(
    plan: &Plan,
    window: Window,
    mut tasks: Tasks<N>,
) -> Result<([Histogram; N], Used), Failure> {
    let mut sums = std::array::from_fn(|_| Histogram::default());
    let used = tokio::spawn(used_over(plan.clone(), window));
    let mut connections = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (connection, seen) = done.map_err(|error| Failure::own(format!("a session's task failed: {error}")))??;
        connections.push(connection);
        for (sum, seen) in sums.iter_mut().zip(&seen) {
            sum.add(seen);
        }
    }
    for connection in connections {
        connection.close().await;
    }
    Ok((sums, used.await.unwrap_or_default()))
}

/// Processor time used while it is measured, and the broker's memory at the end.
pub(super) async fn used_over(plan: Plan, window: Window) -> Used {
    let own = std::process::id();
    sleep_until(&plan, window.open_us).await;
    let (load, broker) = (machine::cpu_us(own), plan.pid.and_then(machine::cpu_us));
    sleep_until(&plan, window.close_us).await;
    let since = |pid: u32, before: Option<u64>| Some(machine::cpu_us(pid)?.saturating_sub(before?));
    Used {
        load_us: since(own, load),
        broker_us: plan.pid.and_then(|pid| since(pid, broker)),
        broker_rss_kib: plan.pid.and_then(machine::rss_kib),
    }
}

/// Sleeps until then, or until an interrupt, which is seen within a second.
async fn sleep_until(plan: &Plan, us: u64) {
    while !plan.stopped() {
        let left = Duration::from_micros(us.saturating_sub(boot_now_us()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
    }
}
