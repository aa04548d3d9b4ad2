//! Counters of the engine, read by `/metrics`. Plain atomics: the loop only adds.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::event::Event;
use crate::core::lease::LeaseEnd;
use crate::core::tables::Batch;

/// Upper bounds of the commit-time buckets, milliseconds.
pub const COMMIT_BUCKETS_MS: [u64; 8] = [1, 2, 5, 10, 25, 100, 500, 2_500];

/// What the engine counted since the process started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Batches committed.
    pub batches: AtomicU64,
    /// Events committed.
    pub events: AtomicU64,
    /// Leases granted.
    pub grants: AtomicU64,
    /// Leases ended by release.
    pub releases: AtomicU64,
    /// Leases ended because their session was not heard of, or dropped.
    pub expiries: AtomicU64,
    /// Leases ended otherwise: revoked, kicked, over their hold, without their secret.
    pub other_ends: AtomicU64,
    /// Claims that ended without a lease.
    pub claims_ended: AtomicU64,
    /// Commits that took up to each of [`COMMIT_BUCKETS_MS`], and longer.
    pub commits: [AtomicU64; COMMIT_BUCKETS_MS.len() + 1],
    /// Milliseconds spent in commits.
    pub commit_ms: AtomicU64,
    /// Times the store failed.
    pub store_failures: AtomicU64,
    /// Sockets cut off because they read too slowly.
    pub slow_readers: AtomicU64,
}

impl Metrics {
    pub(super) fn committed(&self, batch: &Batch, took_ms: u64) {
        add(&self.batches, 1);
        add(&self.events, batch.events.len() as u64);
        for event in &batch.events {
            match event {
                Event::LeaseGranted { .. } => add(&self.grants, 1),
                Event::ClaimEnded { .. } => add(&self.claims_ended, 1),
                Event::LeaseEnded { end, .. } => match end {
                    LeaseEnd::Released { .. } | LeaseEnd::SessionClosed => add(&self.releases, 1),
                    LeaseEnd::SessionExpired | LeaseEnd::Dropped => add(&self.expiries, 1),
                    _ => add(&self.other_ends, 1),
                },
                _ => {}
            }
        }
        let bucket = COMMIT_BUCKETS_MS.iter().position(|bound| took_ms <= *bound);
        add(&self.commits[bucket.unwrap_or(COMMIT_BUCKETS_MS.len())], 1);
        add(&self.commit_ms, took_ms);
    }

    pub(super) fn store_failed(&self) {
        add(&self.store_failures, 1);
    }

    pub(super) fn slow_reader(&self) {
        add(&self.slow_readers, 1);
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
