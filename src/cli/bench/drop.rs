//! The load of a switch that dies: many holders drop at the same moment.
//!
//! Every holder has one resource, and a few other sessions wait for all of them. Each holder renews
//! right before its socket is gone, so that all are due at almost the same time, which is the
//! hardest. Meanwhile bystanders acquire and release something else, and see whether they notice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::histogram::Histogram;
use super::load::{OPENING, Window, open_all, tell_used, used_over};
use super::report::Report;
use super::wire::{Claimed, Connection};
use super::{ASIDE, ASIDE_RESOURCES, Plan};
use crate::cli::Failure;
use crate::clock::boot_now_us;
use crate::protocol::call::method;

/// Sessions that share the waiting.
const WAITERS: usize = 50;
/// Longer than a ttl after the drop nobody is waited for, microseconds.
const PATIENCE_US: u64 = 30_000_000;

/// A resource's name, and when its holder was granted it or sent its last renewal.
type Times = BTreeMap<String, u64>;

/// Drops all holders at once, and tells how long after its holder's ttl each resource was granted on.
pub(super) async fn drop_all(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let (holders, _) = open_all(plan).await?;
    let (count, ttl_us) = (holders.len(), holders.first().map_or(0, |holder| holder.ttl_ms * 1_000));
    let holding = stream::iter(holders).map(|mut holder| async {
        match holder.acquire().await? {
            Claimed::Granted(_, name) => Ok((holder, name)),
            Claimed::Queued => Err(Failure::refused("a resource that was brought along is taken".to_owned())),
        }
    });
    let holding: Vec<(Connection, String)> = holding.buffer_unordered(OPENING).try_collect().await?;
    let waiting = stream::iter(0..WAITERS).map(|waiter| queue_up(plan, (count + waiter) / WAITERS));
    let waiting: Vec<(Connection, usize)> = waiting.buffer_unordered(WAITERS).try_collect().await?;
    let renewing = stream::iter(holding).map(|(mut holder, name)| async {
        let sent = boot_now_us();
        holder.call(method::SESSION_RENEW, &json!({ "renewal": 0 })).await?;
        Ok::<_, Failure>((holder, (name, sent)))
    });
    let renewed: Vec<(Connection, (String, u64))> = renewing.buffer_unordered(OPENING * 8).try_collect().await?;
    let (holders, renewed): (Vec<Connection>, Times) = renewed.into_iter().unzip();
    let over = Arc::new(AtomicBool::new(false));
    let mut others = JoinSet::new();
    for _ in 0..ASIDE_RESOURCES {
        let bystander = Connection::open(plan, &[ASIDE.to_owned()]).await?;
        others.spawn(stand_by(bystander, Arc::clone(&over)));
    }
    let dropped = boot_now_us();
    let window = Window { open_us: dropped, close_us: dropped + ttl_us + PATIENCE_US };
    let used = tokio::spawn(used_over(plan.clone(), Window { close_us: dropped + ttl_us + 1_000_000, ..window }));
    // No Close frame, nothing: the sockets are gone. On a thread of its own, as so many take a while
    // in which the bystanders are not to wait for this process.
    let dropping = tokio::task::spawn_blocking(move || drop(holders));
    let mut receiving = JoinSet::new();
    for (waiter, claims) in waiting {
        receiving.spawn(receive(waiter, claims, window));
    }
    let (mut late, mut last, mut granted) = (Histogram::default(), 0, 0);
    while let Some(done) = receiving.join_next().await {
        let (waiter, grants) = done.map_err(|error| Failure::own(format!("a session's task failed: {error}")))??;
        for (name, at) in &grants {
            let since = at.saturating_sub(renewed.get(name).map_or(dropped, |sent| sent + ttl_us));
            late.record(since);
            last = since.max(last);
        }
        granted += grants.len() as u64;
        waiter.close().await;
    }
    over.store(true, Ordering::Relaxed);
    dropping.await.map_err(|error| Failure::own(format!("the sockets were not dropped: {error}")))?;
    let mut cycles = Histogram::default();
    while let Some(done) = others.join_next().await {
        let (bystander, seen) = done.map_err(|error| Failure::own(format!("a session's task failed: {error}")))??;
        cycles.add(&seen);
        bystander.close().await;
    }
    report.whole("sessions_dropped", count as u64);
    report.whole("granted_on", granted);
    report.latency("late", &late);
    report.whole("late_max_us", last);
    report.latency("others", &cycles);
    report.whole("others_max_us", cycles.per_mille(1_000));
    tell_used(report, window, used.await.unwrap_or_default());
    Ok(())
}

/// A session with so many waiting claims.
async fn queue_up(plan: &Plan, claims: usize) -> Result<(Connection, usize), Failure> {
    let mut waiter = Connection::open(plan, &plan.needs).await?;
    for _ in 0..claims {
        if let Claimed::Granted(..) = waiter.acquire().await? {
            return Err(Failure::refused("there are more resources than holders".to_owned()));
        }
    }
    Ok((waiter, claims))
}

/// Waits for the grants of all claims: which resources, and when.
async fn receive(mut waiter: Connection, claims: usize, window: Window) -> Result<(Connection, Times), Failure> {
    let mut grants = Times::new();
    while grants.len() < claims {
        let left = Duration::from_micros(window.close_us.saturating_sub(boot_now_us()));
        let Ok(granted) = timeout(left, waiter.granted()).await else { break };
        grants.insert(granted?.1, boot_now_us());
    }
    Ok((waiter, grants))
}

/// Acquires and releases until it is over: how long each answer took.
async fn stand_by(mut bystander: Connection, over: Arc<AtomicBool>) -> Result<(Connection, Histogram), Failure> {
    let mut seen = Histogram::default();
    while !over.load(Ordering::Relaxed) {
        let begin = boot_now_us();
        let lease = match bystander.acquire().await? {
            Claimed::Granted(lease, _) => lease,
            Claimed::Queued => bystander.granted().await?.0,
        };
        let granted = boot_now_us();
        seen.record(granted - begin);
        bystander.release(lease).await?;
        seen.record(boot_now_us() - granted);
        // Somebody who works now and then, not a load of its own.
        tokio::time::sleep(PAUSE).await;
    }
    Ok((bystander, seen))
}

/// Between two cycles of a bystander.
const PAUSE: Duration = Duration::from_millis(5);
