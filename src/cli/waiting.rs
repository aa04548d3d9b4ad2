//! What is said to people while a claim waits: its place, and who holds what is in the way.
//!
//! Words only: when to say them is for whoever waits.

use crate::protocol::info::{ClaimInfo, InTheWay};
use crate::units::show_duration_ms;

/// How long nothing may be said while a claim waits.
pub const SAY_AGAIN_MS: u64 = 60_000;

/// The line about a waiting claim that was told of so long ago:
/// `place 2, in 5m to 20m: phone-1 is held by ann@ci (job) for 12m, 48m more at most`.
#[must_use]
pub fn line(claim: &ClaimInfo, told_ms_ago: u64) -> String {
    let mut place = claim.place.map_or_else(|| "in the queue".to_owned(), |place| format!("place {place}"));
    if let Some(eta) = eta(claim, told_ms_ago) {
        place = format!("{place}, {eta}");
    }
    let mut parts = Vec::new();
    parts.extend(claim.blocked.clone());
    parts.extend(claim.capped.clone());
    parts.extend(claim.in_the_way.iter().map(|other| held(other, claim.now)));
    if parts.is_empty() {
        return format!("waiting, {place}");
    }
    format!("waiting, {place}: {}", parts.join("; "))
}

/// `in 5m to 20m`; nothing where there is no basis, or the estimate has run out.
#[must_use]
pub fn eta(claim: &ClaimInfo, told_ms_ago: u64) -> Option<String> {
    let eta = claim.eta.as_ref()?;
    let high_ms = eta.high_ms.checked_sub(told_ms_ago)?;
    Some(range(eta.low_ms.saturating_sub(told_ms_ago), high_ms))
}

/// A range as people say it, to whole seconds, above ten minutes to whole minutes.
#[must_use]
pub fn range(low_ms: u64, high_ms: u64) -> String {
    let unit = if high_ms > 600_000 { 60_000 } else { 1_000 };
    let (low_ms, high_ms) = (low_ms / unit * unit, high_ms.div_ceil(unit) * unit);
    match low_ms {
        0 => format!("within {}", show_duration_ms(high_ms)),
        low_ms => format!("in {} to {}", show_duration_ms(low_ms), show_duration_ms(high_ms)),
    }
}

fn held(other: &InTheWay, now: u64) -> String {
    let job = other.job.as_ref().map(|job| format!(" ({job})")).unwrap_or_default();
    let since = show_duration_ms(now.saturating_sub(other.since));
    let more = other.until.map(|until| format!(", {} more at most", show_duration_ms(until.saturating_sub(now))));
    let (resource, owner) = (&other.resource, &other.owner);
    format!("{resource} is held by {owner}{job} for {since}{}", more.unwrap_or_default())
}

/// What makes a line worth saying again: place, what blocks it, and who holds what is in the way;
/// not the passing of time.
pub type Gist = (Option<u64>, Option<String>, Vec<(String, u64)>);

/// The gist of a waiting claim.
#[must_use]
pub fn gist(claim: &ClaimInfo) -> Gist {
    let others = claim.in_the_way.iter().map(|other| (other.resource.clone(), other.lease)).collect();
    (claim.place, claim.blocked.clone().or_else(|| claim.capped.clone()), others)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{gist, line};
    use crate::protocol::info::ClaimInfo;

    fn claim(more: &serde_json::Value) -> ClaimInfo {
        let mut claim = json!({"request_id": 1, "claim": 4, "state": "queued", "now": 1_000_000, "now_time": ""});
        let fields = more.as_object().unwrap().clone();
        claim.as_object_mut().unwrap().extend(fields);
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn who_holds_what_is_said_with_their_job_and_times() {
        let waiting = claim(&json!({"place": 2, "in_the_way": [
            {"resource": "p1", "lease": 9, "owner": "ann@ci", "job": "https://ci/7", "since": 280_000,
                "since_time": "", "until": 3_880_000},
            {"resource": "p2", "lease": 8, "owner": "bob@desk", "since": 940_000, "since_time": ""}]}));
        assert_eq!(
            line(&waiting, 0),
            "waiting, place 2: p1 is held by ann@ci (https://ci/7) for 12m, 48m more at most; \
             p2 is held by bob@desk for 1m"
        );
        let blocked = claim(&json!({"place": 1, "blocked": "p1 is drained (battery)"}));
        assert_eq!(line(&blocked, 0), "waiting, place 1: p1 is drained (battery)");
        assert_eq!(line(&claim(&json!({})), 0), "waiting, in the queue");
    }

    #[test]
    fn an_estimate_counts_down_and_runs_out() {
        let waiting = claim(&json!({"place": 2, "eta": {"low_ms": 300_400, "high_ms": 1_190_000, "holds": 64}}));
        assert_eq!(line(&waiting, 0), "waiting, place 2, in 5m to 20m");
        assert_eq!(line(&waiting, 1_000_000), "waiting, place 2, within 3m10s");
        assert_eq!(line(&waiting, 1_200_000), "waiting, place 2");
    }

    #[test]
    fn time_alone_is_no_news() {
        let (early, late) = (claim(&json!({"place": 2})), claim(&json!({"place": 2, "now": 1_060_000})));
        assert_eq!(gist(&early), gist(&late));
        assert_ne!(gist(&early), gist(&claim(&json!({"place": 1}))));
    }
}
