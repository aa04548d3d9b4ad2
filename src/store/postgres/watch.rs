//! When a broker that stands by may take the lead: a pure rule, fed with what was read and when.
//!
//! No clock is compared with another. A leader counts its term from before it *sent* the write that
//! made the beat; whoever stands by counts from after it *received* the beat. The second moment comes
//! after the first, whatever the clocks show, so the leader's count ends first. What the two clocks can
//! differ in is their speed, and for that there is a margin.
//!
//! ```text
//!   leader    sends beat 7 ────────────── term ──────────────▶ tells nothing more
//!                  └──▶ in the row
//!   stands by            reads beat 7 ──▶ │ ───────────── term ─────────────▶ margin ▶ takes over
//! ```
//!
//! Taking over is an UPDATE under the condition that the row is as it was seen, so a leader that came
//! back in the last moment, or another that was faster, makes it do nothing.

use crate::clock::BootTime;

/// What the row says that all brokers of a lab watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Grows with every takeover.
    pub epoch: u64,
    /// Grows with every write of the leader.
    pub beat: u64,
    /// The last batch in the books.
    pub batch: u64,
    /// The instance that leads; `None`: nobody, and the lead may be taken at once.
    pub leader: Option<String>,
    /// Where the leader says that clients reach it.
    pub url: Option<String>,
}

/// What to do after a look at the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again in so many milliseconds.
    Wait {
        /// At most a fraction of the term, at least one.
        ms: u64,
    },
    /// Take the lead, under the condition that the row still says this.
    TakeOver {
        /// The epoch seen.
        epoch: u64,
        /// The beat seen.
        beat: u64,
    },
}

/// How often the row is read in a term.
const LOOKS_PER_TERM: u64 = 8;

/// The margin at least, milliseconds: what a leader may need from its last look at its clock until
/// what it told has left the process.
const MARGIN_MS_MIN: u64 = 100;

/// What is waited beyond a whole term, milliseconds. A tenth of the term is ten times what working
/// clocks of two machines differ by in speed; the rest is for what a leader had begun to tell.
#[must_use]
pub const fn margin_ms(term_ms: u64) -> u64 {
    if term_ms / 10 > MARGIN_MS_MIN { term_ms / 10 } else { MARGIN_MS_MIN }
}

/// Watches the row for one broker that stands by.
#[derive(Clone, Debug)]
pub struct Watch {
    term_ms: u64,
    /// The epoch and beat seen last, and when the read that first showed them had returned.
    first: Option<(u64, u64, BootTime)>,
}

impl Watch {
    /// Begins to watch: whatever led before is left alone for a whole term from now.
    #[must_use]
    pub const fn new(term_ms: u64) -> Self {
        Self { term_ms, first: None }
    }

    /// Takes in what a read showed that began at `before` and had returned at `after`. Reads that
    /// failed are not told of: a beat seen again after them has still not changed.
    pub fn saw(&mut self, before: BootTime, after: BootTime, seen: &Seen) -> Step {
        let Seen { epoch, beat, .. } = *seen;
        let first = match self.first {
            Some((known_epoch, known_beat, first)) if (known_epoch, known_beat) == (epoch, beat) => first,
            _ => after,
        };
        self.first = Some((epoch, beat, first));
        // A read that began in the term may show what was true in the term only.
        let waited = before.since(first);
        let due = self.term_ms.saturating_add(margin_ms(self.term_ms));
        if seen.leader.is_none() || waited >= due {
            return Step::TakeOver { epoch, beat };
        }
        Step::Wait { ms: self.look_ms().min(first.plus(due).since(after)).max(1) }
    }

    /// How soon to look again after a read that failed, milliseconds.
    #[must_use]
    pub const fn look_ms(&self) -> u64 {
        let look = self.term_ms / LOOKS_PER_TERM;
        if look > 0 { look } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: u64 = 2_000;
    const DUE: u64 = 2_200;

    fn led(epoch: u64, beat: u64) -> Seen {
        Seen { epoch, beat, leader: Some("one".to_owned()), ..Seen::default() }
    }

    /// A read that takes 10 ms and returns at `after`.
    fn saw(watch: &mut Watch, after: u64, seen: &Seen) -> Step {
        watch.saw(BootTime(after - 10), BootTime(after), seen)
    }

    fn takes_over(step: Step) -> bool {
        matches!(step, Step::TakeOver { .. })
    }

    #[test]
    fn a_broker_just_started_waits_a_whole_term_and_the_margin() {
        let mut watch = Watch::new(TERM);
        let row = led(4, 17);
        assert_eq!(saw(&mut watch, 5_000, &row), Step::Wait { ms: 250 });
        assert!(!takes_over(saw(&mut watch, 5_000 + TERM, &row)));
        // Due by its return, but it began before: what it shows may be older than the term.
        assert!(!takes_over(saw(&mut watch, 5_000 + DUE + 9, &row)));
        assert_eq!(saw(&mut watch, 5_000 + DUE + 10, &row), Step::TakeOver { epoch: 4, beat: 17 });
    }

    #[test]
    fn the_count_begins_at_the_return_of_the_first_read() {
        let mut watch = Watch::new(TERM);
        // A read that hung for a minute may show what is a minute old, and does not make it older.
        assert!(!takes_over(watch.saw(BootTime(1_000), BootTime(61_000), &led(1, 1))));
        assert!(!takes_over(watch.saw(BootTime(61_001), BootTime(61_002), &led(1, 1))));
        assert!(takes_over(watch.saw(BootTime(61_000 + DUE), BootTime(70_000), &led(1, 1))));
    }

    #[test]
    fn every_beat_and_every_epoch_begins_the_count_anew() {
        let mut watch = Watch::new(TERM);
        for (step, row) in [led(1, 1), led(1, 2), led(2, 2), led(2, 3)].iter().enumerate() {
            let at = 10_000 + step as u64 * DUE;
            assert!(!takes_over(saw(&mut watch, at, row)), "{row:?}");
        }
    }

    #[test]
    fn reads_that_failed_in_between_do_not_begin_it_anew() {
        let mut watch = Watch::new(TERM);
        assert!(!takes_over(saw(&mut watch, 1_000, &led(1, 1))));
        assert!(takes_over(saw(&mut watch, 60_000, &led(1, 1))), "nothing was read in a minute, and nothing changed");
    }

    #[test]
    fn a_lead_that_nobody_has_is_taken_at_once() {
        let never_led = Seen::default();
        assert_eq!(saw(&mut Watch::new(TERM), 1_000, &never_led), Step::TakeOver { epoch: 0, beat: 0 });
        let mut watch = Watch::new(TERM);
        assert!(!takes_over(saw(&mut watch, 1_000, &led(3, 8))));
        let given_up = Seen { epoch: 3, beat: 9, ..Seen::default() };
        assert_eq!(saw(&mut watch, 1_250, &given_up), Step::TakeOver { epoch: 3, beat: 9 });
    }

    #[test]
    fn the_next_look_comes_when_the_wait_is_over_at_the_latest() {
        let mut watch = Watch::new(TERM);
        saw(&mut watch, 1_000, &led(1, 1));
        assert_eq!(saw(&mut watch, 1_000 + DUE - 30, &led(1, 1)), Step::Wait { ms: 30 });
        assert_eq!(saw(&mut watch, 1_000 + DUE + 5, &led(1, 1)), Step::Wait { ms: 1 });
    }

    #[test]
    fn short_terms_have_a_margin_that_is_worth_something() {
        assert_eq!((margin_ms(200), margin_ms(1_000), margin_ms(2_000), margin_ms(60_000)), (100, 100, 200, 6_000));
    }
}
