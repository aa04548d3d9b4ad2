//! What the server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the server itself; the engine has its own.
#[derive(Debug, Default)]
pub struct Metrics {
    turned_away: AtomicU64,
}

impl Metrics {
    /// A connection beyond `connections_max` was turned away.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }
}
