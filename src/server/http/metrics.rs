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
use crate::pipeline::conductor::Figures;
use crate::protocol::info::{PoolStatus, StatusInfo};
use crate::server::front::Process;

/// Counters of the server itself; the engine has its own.
#[derive(Debug, Default)]
pub struct Metrics {
    turned_away: AtomicU64,
    sockets: AtomicU64,
    leads_taken: AtomicU64,
    leads_lost: AtomicU64,
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

    /// This process began to lead.
    pub fn lead_taken(&self) {
        self.leads_taken.fetch_add(1, Ordering::Relaxed);
    }

    /// It leads no more, and did not want that.
    pub fn lead_lost(&self) {
        self.leads_lost.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pool {
    pool: String,
}

/// The text of a scrape of a broker that leads. The engine's counters begin anew with each lead.
#[must_use]
pub fn leading(
    status: &StatusInfo,
    engine: &EngineMetrics,
    process: &Process,
    store_failing: bool,
    builds: Option<&Figures>,
) -> String {
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
    registry.register_with_unit("commit", "Time of a commit", Unit::Seconds, Commits::of(engine));
    of_process(&mut registry, process, true);
    gauge(&mut registry, "sessions", "Sessions that are open", status.sessions);
    gauge(&mut registry, "leases", "Leases that are held", status.leases);
    gauge(&mut registry, "waiting", "Claims that wait", status.waiting);
    let failing = u64::from(store_failing);
    gauge(&mut registry, "store_failing", "1 while the store fails and nothing new is granted", failing);
    let refused = u64::from(status.inventory_error.is_some());
    gauge(&mut registry, "inventory_error", "1 while the inventory file is not applied", refused);
    of_pools(&mut registry, &status.pools);
    if let Some(builds) = builds {
        of_builds(&mut registry, builds);
    }
    text(&registry)
}

/// The text of a scrape of a broker that stands by.
#[must_use]
pub fn standing_by(process: &Process) -> String {
    let mut registry = Registry::with_prefix("leasehold");
    of_process(&mut registry, process, false);
    text(&registry)
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("a String takes whatever is written");
    text
}

/// What the process counts whatever its role, and what it sees of the brokers beside it.
fn of_process(registry: &mut Registry, process: &Process, leads: bool) {
    let server = &process.metrics;
    counter(registry, "connections_turned_away", "Connections beyond connections_max", &server.turned_away);
    gauge(registry, "sockets", "WebSockets that are open", server.sockets.load(Ordering::Relaxed));
    gauge(registry, "leading", "1 while this broker leads, 0 while it stands by", u64::from(leads));
    let Some(sight) = process.seen() else { return };
    counter(registry, "leads_taken", "Times this broker took the lead", &server.leads_taken);
    counter(
        registry,
        "leads_lost",
        "Times it lost the lead, to another or because its term was over",
        &server.leads_lost,
    );
    let known = u64::from(leads || sight.leader.is_some());
    gauge(registry, "leader_known", "1 while this broker knows who leads", known);
    let reached = u64::from(sight.failure.is_none());
    gauge(registry, "database_reachable", "1 while the database answers this broker", reached);
    let brokers = u64::try_from(sight.brokers.len()).unwrap_or(u64::MAX);
    gauge(registry, "brokers", "Brokers on the database that were heard of lately", brokers);
    if let Some(epoch) = sight.epoch {
        gauge(registry, "epoch", "Which lead it is, one more at every takeover", epoch);
    }
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
        ("pool_out", "Resources that are drained, offline, quarantined or going", |pool| pool.out),
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Builds and deliveries. The labels are the states of the one and the outcomes of the other.
fn of_builds(registry: &mut Registry, builds: &Figures) {
    let open: Family<State, Gauge> = Family::default();
    for (state, count) in &builds.open {
        open.get_or_create(&State { state }).set(signed(*count));
    }
    registry.register("builds_open", "Builds that are not over", open);
    let ended: Family<State, Counter> = Family::default();
    for (state, count) in &builds.ended {
        ended.get_or_create(&State { state }).inc_by(*count);
    }
    registry.register("builds_ended", "Builds that ended", ended);
    let deliveries: Family<Outcome, Counter> = Family::default();
    for (outcome, count) in &builds.deliveries {
        deliveries.get_or_create(&Outcome { outcome }).inc_by(*count);
    }
    registry.register("deliveries", "Deliveries of forges, by what came of them", deliveries);
    let counters = [
        ("deliveries_repeated", "Deliveries that had come before", builds.duplicates),
        ("builds_store_failures", "Times the builds could not be stored", builds.store_failures),
    ];
    for (name, help, value) in counters {
        counter(registry, name, help, &AtomicU64::new(value));
    }
    let gauges = [
        ("builds_queued_longest_ms", "For how long the build waits that waits longest", builds.queued_ms),
        ("deliveries_waiting_longest_ms", "The same of deliveries not worked on", builds.delivery_ms),
        ("statuses_untold", "Commit statuses that are to be told", builds.statuses),
    ];
    for (name, help, value) in gauges {
        gauge(registry, name, help, value);
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

    use std::sync::Arc;

    use tokio::sync::watch;

    use super::{EngineMetrics, PoolStatus, Process, StatusInfo, leading, standing_by};
    use crate::server::limits::Limits;
    use crate::server::sight::Sight;

    fn has(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|got| got == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_scrape_has_counters_gauges_and_the_commit_times() {
        let engine = EngineMetrics::default();
        engine.grants.store(7, Ordering::Relaxed);
        engine.commits[1].store(2, Ordering::Relaxed);
        let process = Process::new(Limits::default(), false, "sqlite:lab.db".into(), None);
        process.metrics.turned_away();
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
            role: "leading".into(),
            state: "serving".into(),
            message: None,
            leader: None,
            epoch: None,
            term_ms: None,
            brokers: Vec::new(),
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
        let text = leading(&status, &engine, &process, true, None);
        has(
            &text,
            &[
                "leasehold_grants_total 7",
                "leasehold_connections_turned_away_total 1",
                "leasehold_pool_slots_free{pool=\"phone\"} 1",
                "leasehold_commit_seconds_bucket{le=\"0.002\"} 2",
                "leasehold_commit_seconds_bucket{le=\"+Inf\"} 2",
                "leasehold_inventory_error 1",
                "leasehold_store_failing 1",
                "leasehold_leading 1",
                "# EOF",
            ],
        );
        assert!(!text.contains("database_reachable"), "nobody shares this store:\n{text}");
    }

    #[test]
    fn a_standby_tells_what_it_sees_of_the_others() {
        let sight = Sight { failure: Some(Arc::from("no route")), epoch: Some(4), ..Sight::default() };
        let (_, sight) = watch::channel(sight);
        let process = Process::new(Limits::default(), false, "postgres://db/lab".into(), Some(sight));
        process.metrics.lead_taken();
        process.metrics.lead_lost();
        let text = standing_by(&process);
        has(
            &text,
            &[
                "leasehold_leading 0",
                "leasehold_leads_taken_total 1",
                "leasehold_leads_lost_total 1",
                "leasehold_leader_known 0",
                "leasehold_database_reachable 0",
                "leasehold_epoch 4",
                "# EOF",
            ],
        );
    }
}
