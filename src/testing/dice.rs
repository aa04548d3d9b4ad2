//! The one source of chance: numbers that follow from a seed alone.

use std::cell::Cell;

/// A generator of numbers (splitmix64): small, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed, for one use of it: other uses get other numbers.
    #[must_use]
    pub const fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose.wrapping_add(0x51_7C_C1_B7))))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// A number below `sides`, 0 where there are none.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.number().checked_rem(sides).unwrap_or(0)
    }

    /// A number in the range, both ends included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.roll(most - least + 1)
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, several: &[T]) -> T {
        several[usize::try_from(self.roll(several.len() as u64)).unwrap_or(0)]
    }
}

const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

thread_local! {
    // The client's machine takes a plain function for its jitter, which can own nothing.
    static JITTER: Cell<u64> = const { Cell::new(0) };
}

/// Begins the jitter of all clients of a run anew.
pub(super) fn seed_jitter(seed: u64) {
    JITTER.set(mix(seed));
}

/// What the client's machine spreads its tries by.
pub(super) fn jitter(below: u64) -> u64 {
    JITTER.with(|state| {
        state.set(state.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        mix(state.get()).checked_rem(below).unwrap_or(0)
    })
}
