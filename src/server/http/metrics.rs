//! `/metrics`: what the engine and the server count, and the books at a glance.
//!
//! Made anew for each scrape from counters that others only add to. The only label is the pool:
//! every other would have values without a bound.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::engine::metrics::{COMMIT_BUCKETS_MS, Metrics as EngineMetrics};
use crate::protocol::info::{PoolStatus, StatusInfo};

/// Counters of the server itself; the engine has its own.
#[derive(Debug, Default)]
pub struct Metrics {
    turned_away: AtomicU64,
    sockets: AtomicU64,
}

impl Metrics {
    /// A connection beyond `connections_max` was turned away.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// A WebSocket was accepted.
    pub fn socket_opened(&self) {
        self.sockets.fetch_add(1, Ordering::Relaxed);
    }

    /// It is gone.
    pub fn socket_closed(&self) {
        self.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pool {
    pool: String,
}

/// The text of a scrape.
#[must_use]
pub fn render(status: &StatusInfo, engine: &EngineMetrics, server: &Metrics, store_failing: bool) -> String {
    let mut registry = Registry::with_prefix("leasehold");
    let counters: [(&str, &str, &AtomicU64); 9] = [
        ("batches", "Batches committed", &engine.batches),
        ("events", "Events committed", &engine.events),
        ("grants", "Leases granted", &engine.grants),
        ("releases", "Leases ended by release or a clean close", &engine.releases),
        ("expiries", "Leases ended because their session was lost", &engine.expiries),
        ("other_ends", "Leases ended otherwise: revoked, kicked, over their hold", &engine.other_ends),
        ("claims_ended", "Claims that ended without a lease", &engine.claims_ended),
        ("store_failures", "Times the store failed", &engine.store_failures),
        ("slow_readers", "Sockets cut off because they read too slowly", &engine.slow_readers),
    ];
    for (name, help, value) in counters {
        counter(&mut registry, name, help, value);
    }
    counter(&mut registry, "connections_turned_away", "Connections beyond connections_max", &server.turned_away);
    registry.register_with_unit("commit", "Time of a commit", Unit::Seconds, Commits::of(engine));
    gauge(&mut registry, "sockets", "WebSockets that are open", server.sockets.load(Ordering::Relaxed));
    gauge(&mut registry, "sessions", "Sessions that are open", status.sessions);
    gauge(&mut registry, "leases", "Leases that are held", status.leases);
    gauge(&mut registry, "waiting", "Claims that wait", status.waiting);
    let failing = u64::from(store_failing);
    gauge(&mut registry, "store_failing", "1 while the store fails and nothing new is granted", failing);
    let refused = u64::from(status.inventory_error.is_some());
    gauge(&mut registry, "inventory_error", "1 while the inventory file is not applied", refused);
    of_pools(&mut registry, &status.pools);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("a String takes whatever is written");
    text
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: &AtomicU64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value.load(Ordering::Relaxed));
    registry.register(name, help, counter);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(signed(value));
    registry.register(name, help, gauge);
}

fn of_pools(registry: &mut Registry, pools: &[PoolStatus]) {
    type Value = fn(&PoolStatus) -> u64;
    let gauges: [(&str, &str, Value); 7] = [
        ("pool_resources", "Resources of the pool", |pool| pool.resources),
        ("pool_slots", "Slots of the pool", |pool| pool.slots),
        ("pool_slots_free", "Slots that could be given now", |pool| pool.slots_free),
        ("pool_slots_leased", "Slots that are held", |pool| pool.slots_leased),
        ("pool_slots_cooling", "Slots that cool after their last lease", |pool| pool.slots_cooling),
        ("pool_out", "Resources that are drained, quarantined or going", |pool| pool.out),
        ("pool_waiting", "Claims that wait for the pool", |pool| pool.waiting),
    ];
    for (name, help, value) in gauges {
        let family: Family<Pool, Gauge> = Family::default();
        for pool in pools {
            family.get_or_create(&Pool { pool: pool.pool.clone() }).set(signed(value(pool)));
        }
        registry.register(name, help, family);
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The engine's commit times, as it counted them.
#[derive(Debug)]
struct Commits {
    sum_seconds: f64,
    buckets: Vec<(f64, u64)>,
}

impl Commits {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds as seconds, for a graph")]
    fn of(engine: &EngineMetrics) -> Self {
        let bounds = COMMIT_BUCKETS_MS.iter().map(|ms| *ms as f64 / 1_000.0).chain([f64::INFINITY]);
        let counts = engine.commits.iter().map(|count| count.load(Ordering::Relaxed));
        Self {
            sum_seconds: engine.commit_ms.load(Ordering::Relaxed) as f64 / 1_000.0,
            buckets: bounds.zip(counts).collect(),
        }
    }
}

impl EncodeMetric for Commits {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let count = self.buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum_seconds, count, &self.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{EngineMetrics, Metrics, PoolStatus, StatusInfo, render};

    #[test]
    fn a_scrape_has_counters_gauges_and_the_commit_times() {
        let engine = EngineMetrics::default();
        engine.grants.store(7, Ordering::Relaxed);
        engine.commits[1].store(2, Ordering::Relaxed);
        let server = Metrics::default();
        server.turned_away();
        let pool = PoolStatus {
            pool: "phone".into(),
            resources: 3,
            slots: 3,
            slots_free: 1,
            slots_leased: 2,
            slots_cooling: 0,
            out: 0,
            waiting: 4,
        };
        let status = StatusInfo {
            version: "0".into(),
            state: "serving".into(),
            message: None,
            store: String::new(),
            inventory: None,
            inventory_error: Some("no".into()),
            uptime_ms: 1,
            batch: 1,
            pools: vec![pool],
            sessions: 5,
            leases: 2,
            waiting: 4,
            now: 1,
            now_time: String::new(),
        };
        let text = render(&status, &engine, &server, true);
        for line in [
            "leasehold_grants_total 7",
            "leasehold_connections_turned_away_total 1",
            "leasehold_pool_slots_free{pool=\"phone\"} 1",
            "leasehold_commit_seconds_bucket{le=\"0.002\"} 2",
            "leasehold_commit_seconds_bucket{le=\"+Inf\"} 2",
            "leasehold_inventory_error 1",
            "leasehold_store_failing 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|got| got == line), "{line} is not in\n{text}");
        }
    }
}
