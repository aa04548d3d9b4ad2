//! Made inputs: seeds with a few changes, from a seed of their own.
//!
//! Blind, where libFuzzer sees which branches an input takes: this finds the shallow, everywhere
//! and always the same; it does not replace fuzzing.

use crate::testing::Dice;

/// Words that readers know, one a line in quotes, as libFuzzer takes them.
const WORDS: &str = include_str!("../../../tests/data/fuzz/words.dict");
/// Bytes of a made input.
const BYTES_MAX: usize = 4096;

/// Makes inputs from seeds.
#[derive(Debug)]
pub struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    words: Vec<&'static str>,
    dice: Dice,
}

impl<'a> Mutator<'a> {
    /// For these seeds, by this number.
    #[must_use]
    pub fn new(seeds: &'a [Vec<u8>], seed: u64) -> Self {
        let words = WORDS.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
        Self { seeds, words: words.collect(), dice: Dice::new(seed, 0) }
    }

    /// The next input; an empty one where there are no seeds.
    pub fn input(&mut self) -> Vec<u8> {
        let mut made = self.seed().to_vec();
        for _ in 0..self.dice.between(1, 6) {
            self.change(&mut made);
        }
        made.truncate(BYTES_MAX);
        made
    }

    fn seed(&mut self) -> &'a [u8] {
        let at = self.dice.roll(self.seeds.len() as u64);
        self.seeds.get(below(at)).map_or(&[], Vec::as_slice)
    }

    fn change(&mut self, made: &mut Vec<u8>) {
        let start = below(self.dice.roll(made.len() as u64 + 1));
        let end = made.len().min(start + below(self.dice.between(1, 24)));
        let put: Vec<u8> = match self.dice.roll(8) {
            // A byte, any or one that readers look for.
            0 => vec![self.dice.number().to_le_bytes()[0]],
            1 => vec![self.dice.of(b"\"\\{}[]():=,/.\n \0\x7f09-+e")],
            // Nothing: a piece goes.
            2 => Vec::new(),
            // A piece twice, or very often: what nests gets deep.
            3 => made[start..end].repeat(2),
            4 => made[start..end].repeat(below(self.dice.between(3, 80))),
            5 => self.dice.of(&self.words).as_bytes().to_vec(),
            // A bound of some number.
            6 => self.dice.of(&["0", "-1", "18446744073709551615", "9007199254740993", "1e999", "-0.0"]).into(),
            // The rest of another seed.
            _ => {
                let other = self.seed();
                other[below(self.dice.roll(other.len() as u64 + 1))..].to_vec()
            }
        };
        // Put in between, or over what was there.
        let end = if self.dice.one_in(2) { start } else { end };
        made.splice(start..end, put);
    }
}

fn below(number: u64) -> usize {
    usize::try_from(number).unwrap_or(0)
}
