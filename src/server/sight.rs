//! What a broker that shares its store last saw of the others: who leads, who stands by.
//!
//! Told to people, probes and clients that look for the leader. Nothing here decides who leads: that
//! is between the stores of the brokers and their database.

use std::sync::Arc;

use crate::protocol::info::BrokerInfo;

/// Where clients find the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The URL as people know it: `ws://broker-1:5327`.
    pub url: String,
    /// The same for HTTP, without a slash at its end: what a path is put behind.
    pub http: String,
}

/// What a broker last saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Where this broker tells clients to find it when it leads.
    pub own_url: String,
    /// The leader, while one is known that is not this broker.
    pub leader: Option<Leader>,
    /// Which lead it is: one more at every takeover. `None` before the database was reached.
    pub epoch: Option<u64>,
    /// How long the leader is left alone when it writes nothing, milliseconds.
    pub term_ms: u64,
    /// What the database said when it was asked last, while it cannot be reached.
    pub failure: Option<Arc<str>>,
    /// Brokers that noted themselves lately, this one too.
    pub brokers: Vec<BrokerInfo>,
}
