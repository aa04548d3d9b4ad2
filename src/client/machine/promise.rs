//! The arithmetic of time: until when a lease may be used, when to renew, when to give a socket up.
//!
//! Pure functions of the ttl and of when something was sent. A promise counts from when the client
//! *sent* what was answered: that is before the broker received it, so the client has stopped
//! before the broker can lease on.

use crate::clock::BootTime;

/// An answered promise: nothing of the session is given to another for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promise {
    /// The number of the answer.
    pub(super) renewal: u64,
    /// When what it answers was sent.
    pub(super) sent: BootTime,
    /// How long it holds.
    pub(super) promise_ms: u64,
}

impl Promise {
    /// When the use of what it covers must have ended.
    pub(super) fn deadline(&self) -> BootTime {
        self.sent.plus(self.promise_ms.saturating_sub(margin_ms(self.promise_ms)))
    }

    /// The same promise at no more than the ordinary length.
    pub(super) fn at_most(self, ttl_ms: u64) -> Self {
        Self { promise_ms: self.promise_ms.min(ttl_ms), ..self }
    }
}

/// What is kept back for clocks that differ by 1 % in speed. Of the promise, not of the ttl: over
/// the longer promise of a planned stop the clocks drift apart for longer.
pub(super) const fn margin_ms(promise_ms: u64) -> u64 {
    at_least(promise_ms / 50, 100)
}

/// How long before the deadline to begin ending the use.
pub(super) const fn grace_ms(ttl_ms: u64) -> u64 {
    at_most(ttl_ms / 5, 3_000)
}

/// How often to renew.
pub(super) const fn renew_every_ms(ttl_ms: u64) -> u64 {
    ttl_ms / 5
}

/// How long a renewal may stay unanswered before the network counts as silent. At most a third of
/// the ttl, so that there is time for another socket; at most 20 s, as people wait.
pub(super) const fn patience_ms(ttl_ms: u64) -> u64 {
    at_most(at_most(at_least(ttl_ms / 5, 1_000), ttl_ms / 3), 20_000)
}

/// How long an attempt to connect may take at first. A broker that stands still takes connections
/// and says nothing: another URL may be the leader's, and a load balancer may choose another broker.
pub(super) const fn attempt_ms_first(urls: usize) -> u64 {
    if urls > 1 { 1_000 } else { 2_000 }
}

/// How long an attempt to connect may take: as long as at first, and twice as long for each round in
/// which one was given up for that, as a network, or a broker with many clients, may just be slow.
pub(super) const fn attempt_ms(ttl_ms: u64, first_ms: u64, slow_rounds: u32) -> u64 {
    at_most(first_ms << at_most(slow_rounds as u64, 8), attempt_ms_max(ttl_ms))
}

/// The longest that an attempt may take.
const fn attempt_ms_max(ttl_ms: u64) -> u64 {
    at_most(at_least(ttl_ms / 3, 1_000), 10_000)
}

/// How long resuming on a socket that is up may take.
pub(super) const fn resume_ms(ttl_ms: u64) -> u64 {
    at_most(at_least(patience_ms(ttl_ms), 1_000), attempt_ms_max(ttl_ms))
}

/// The longest pause between two rounds of tries, when there has been trouble for so long: a tenth of
/// that, so that an absence lasts little longer for a client than for the broker, and not so short
/// that thousands of clients keep the brokers from coming back; short beside the ttl.
pub(super) const fn pause_ms_max(ttl_ms: u64, trouble_ms: u64) -> u64 {
    at_most(at_least(trouble_ms / 10, 400), at_most(at_least(ttl_ms / 10, 200), 5_000))
}

const fn at_least(value: u64, least: u64) -> u64 {
    if value < least { least } else { value }
}

const fn at_most(value: u64, most: u64) -> u64 {
    if value > most { most } else { value }
}

#[cfg(test)]
mod tests {
    use super::{
        Promise, attempt_ms, attempt_ms_first, grace_ms, margin_ms, patience_ms, pause_ms_max, renew_every_ms,
        resume_ms,
    };
    use crate::clock::BootTime;

    #[test]
    fn the_figures_for_short_usual_and_long_ttls() {
        // ttl, margin, grace, renew every, patience, resume, longest pause
        let table = [
            (2_000, 100, 400, 400, 666, 1_000, 200),
            (5_000, 100, 1_000, 1_000, 1_000, 1_000, 500),
            (30_000, 600, 3_000, 6_000, 6_000, 6_000, 3_000),
            (600_000, 12_000, 3_000, 120_000, 20_000, 10_000, 5_000),
        ];
        for (ttl, margin, grace, renew, patience, resume, pause) in table {
            assert_eq!(margin_ms(ttl), margin, "margin of {ttl}");
            assert_eq!(grace_ms(ttl), grace, "grace of {ttl}");
            assert_eq!(renew_every_ms(ttl), renew, "renewal of {ttl}");
            assert_eq!(patience_ms(ttl), patience, "patience of {ttl}");
            assert_eq!(resume_ms(ttl), resume, "resume of {ttl}");
            assert_eq!(pause_ms_max(ttl, u64::MAX), pause, "pause of {ttl}");
        }
    }

    #[test]
    fn an_attempt_is_short_at_first_and_grows_with_what_was_too_slow() {
        for (ttl, urls, expected) in [
            (30_000, 3, [1_000, 2_000, 4_000, 8_000, 10_000]),
            (30_000, 1, [2_000, 4_000, 8_000, 10_000, 10_000]),
            (2_000, 3, [1_000; 5]),
            (9_000, 1, [2_000, 3_000, 3_000, 3_000, 3_000]),
        ] {
            let grown = [0, 1, 2, 3, 40].map(|rounds| attempt_ms(ttl, attempt_ms_first(urls), rounds));
            assert_eq!(grown, expected, "{ttl} with {urls}");
        }
    }

    #[test]
    fn a_pause_is_no_longer_than_a_tenth_of_the_trouble() {
        let longest = [0, 3_000, 5_000, 20_000, 600_000].map(|trouble| pause_ms_max(30_000, trouble));
        assert_eq!(longest, [400, 400, 500, 2_000, 3_000]);
    }

    #[test]
    fn a_silent_network_leaves_time_for_another_socket() {
        for ttl in [2_000, 3_000, 10_000, 30_000, 120_000, 600_000] {
            let noticed = renew_every_ms(ttl) + patience_ms(ttl);
            assert!(noticed + grace_ms(ttl) + margin_ms(ttl) < ttl * 9 / 10, "{ttl}: noticed after {noticed}");
        }
    }

    #[test]
    fn a_promise_counts_from_sending_less_the_margin() {
        let promise = Promise { renewal: 1, sent: BootTime(1_000), promise_ms: 300_000 };
        assert_eq!(promise.deadline(), BootTime(1_000 + 300_000 - 6_000));
        assert_eq!(promise.at_most(30_000).deadline(), BootTime(1_000 + 30_000 - 600));
        assert_eq!(Promise { promise_ms: 50, ..promise }.deadline(), BootTime(1_000));
    }
}
