//! Choices read from bytes: a fuzzer that changes one byte changes one choice.

/// What is left of an input. Where nothing is left every choice is the first one.
pub(super) struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number from 0 to 255.
    pub(super) fn number(&mut self) -> u64 {
        u64::from(self.byte())
    }

    /// True for one half of the bytes, not for the first choice.
    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of several, which are not empty and fewer than 257.
    pub(super) fn of<T: Copy>(&mut self, several: &[T]) -> T {
        several[usize::from(self.byte()) % several.len()]
    }
}
