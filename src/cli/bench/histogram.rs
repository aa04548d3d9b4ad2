//! Counts of microseconds in buckets that are 1/64 of their value wide, so that a run of any
//! length takes the same few kilobytes.

/// Buckets per doubling.
const PER_OCTAVE: u64 = 64;
/// Below this every value has a bucket of its own.
const EXACT: u64 = 2 * PER_OCTAVE;
/// Enough for every `u64`.
const BUCKETS: usize = 64 * 64;

/// How often which latency was seen.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub(super) fn record(&mut self, us: u64) {
        self.counts[bucket(us)] += 1;
        self.total += 1;
    }

    /// Adds another's counts.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// How many values were counted.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// The value that this many in a thousand do not exceed, to 1/64; 0 where nothing was counted.
    pub(super) fn per_mille(&self, per_mille: u64) -> u64 {
        let rank = (self.total * per_mille).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest(index);
            }
        }
        0
    }
}

fn bucket(us: u64) -> usize {
    if us < EXACT {
        return index(us);
    }
    let octave = u64::from(us.ilog2()) - u64::from(PER_OCTAVE.ilog2());
    index(octave * PER_OCTAVE + (us >> octave))
}

fn index(number: u64) -> usize {
    usize::try_from(number).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The largest value in a bucket.
fn highest(index: usize) -> u64 {
    let index = index as u64;
    if index < EXACT {
        return index;
    }
    let octave = index / PER_OCTAVE - 1;
    (((index - octave * PER_OCTAVE + 1) << octave).wrapping_sub(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Histogram, bucket, highest};

    #[test]
    fn every_value_is_told_to_a_64th() {
        for us in (0..4_000).chain([10_000, 65_535, 65_536, 1_000_000, 3_600_000_000, u64::MAX / 3]) {
            let told = highest(bucket(us));
            assert!(told >= us && told - us <= us / 64, "{us} is told as {told}");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut last = bucket(0);
        for us in 1..100_000 {
            let next = bucket(us);
            assert!(next == last || next == last + 1, "{us}");
            last = next;
        }
    }

    #[test]
    fn quantiles_are_of_all_that_was_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.per_mille(500), 0);
        for us in 1..=100 {
            histogram.record(us);
        }
        let mut other = Histogram::default();
        other.record(5_000);
        histogram.add(&other);
        assert_eq!((histogram.total(), histogram.per_mille(500), histogram.per_mille(990)), (101, 51, 100));
        assert!((5_000..5_100).contains(&histogram.per_mille(999)));
    }
}
