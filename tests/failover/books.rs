//! The brokers' books, read from outside and held against themselves and against the witness.
//!
//! Only the journal is believed to be what the brokers say; who may hold what follows from it by
//! other code than theirs.

use std::collections::{BTreeMap, BTreeSet};

use leasehold::clock::BootTime;
use serde_json::Value;

use super::cluster::Cluster;
use super::report::Round;

/// What the journal says so far.
#[derive(Default)]
pub struct Books {
    last_event: u64,
    last_at: u64,
    last_fence: u64,
    /// Who holds each resource.
    holders: BTreeMap<String, u64>,
    /// What each lease holds that has not ended.
    held: BTreeMap<u64, Vec<String>>,
    /// Fences granted that no holder was seen with yet.
    granted: BTreeSet<u64>,
}

impl Books {
    /// Reads what the brokers wrote since the last time, and holds it against what was seen since.
    pub fn check(&mut self, cluster: &Cluster, begun: &[(u64, BootTime)], round: &mut Round) {
        while self.page(cluster, round) > 0 {}
        let used: BTreeSet<u64> = begun.iter().map(|(fence, _)| *fence).collect();
        for fence in used {
            if !self.granted.remove(&fence) {
                round.violations.push(format!("fence {fence} was used, and the books have not granted it, or not now"));
            }
        }
    }

    /// Reads the next page; answers how many events it had.
    fn page(&mut self, cluster: &Cluster, round: &mut Round) -> usize {
        let page = cluster.ask(&format!("/v1/journal?limit=1000&after={}", self.last_event));
        let events = page["items"].as_array().cloned().unwrap_or_default();
        for event in &events {
            let (event_number, at) = (number(&event["event"]), number(&event["at"]));
            if event_number != self.last_event + 1 {
                round.violations.push(format!("event {event_number} comes after {}", self.last_event));
            }
            if at < self.last_at {
                round.violations.push(format!("event {event_number}: lab time {at} comes after {}", self.last_at));
            }
            (self.last_event, self.last_at) = (event_number, at);
            let body = &event["body"];
            match body["type"].as_str().unwrap_or_default() {
                "lease_granted" => self.grant(&body["lease"], round),
                "lease_ended" => self.end(body, round),
                _ => {}
            }
        }
        events.len()
    }

    fn grant(&mut self, lease: &Value, round: &mut Round) {
        let fence = number(&lease["id"]);
        if fence <= self.last_fence {
            round.violations.push(format!("the books grant {fence} after {}", self.last_fence));
        }
        self.last_fence = self.last_fence.max(fence);
        round.leases += 1;
        self.granted.insert(fence);
        let picks = lease["picks"].as_array().into_iter().flatten();
        let names: Vec<String> = picks.filter_map(|pick| pick["name"].as_str().map(str::to_owned)).collect();
        for name in &names {
            if let Some(holder) = self.holders.insert(name.clone(), fence) {
                round.violations.push(format!("the books give {name} to {fence} while {holder} holds it"));
            }
        }
        self.held.insert(fence, names);
    }

    fn end(&mut self, body: &Value, round: &mut Round) {
        let fence = number(&body["lease"]);
        let Some(names) = self.held.remove(&fence) else {
            round.violations.push(format!("the books end {fence}, which is not held"));
            return;
        };
        for name in names {
            self.holders.remove(&name);
        }
        let why = body["end"]["why"].as_str().unwrap_or("?").to_owned();
        *round.ended.entry(why).or_default() += 1;
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
