//! SHA-256 over a log that is appended to, over restarts: the hash half done is kept between appends.
//!
//! People compare it with what `sha256sum` says of a log that they fetched, so it is over all bytes in
//! order, and no tree of hashes.

use sha2_kept::Digest;
use sha2_kept::Sha256;
use sha2_kept::digest::common::hazmat::{SerializableState, SerializedState};

use crate::units::hex;

/// The hash of all bytes so far.
#[derive(Clone, Debug)]
pub(super) struct Hash(Sha256);

impl Hash {
    /// Of no bytes.
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Goes on from what [`Hash::kept`] gave; `None` where that is not what it was.
    pub(super) fn resume(kept: &str) -> Option<Self> {
        if kept.is_empty() {
            return Some(Self::new());
        }
        let mut state = SerializedState::<Sha256>::default();
        if kept.len() != 2 * state.len() || !kept.is_ascii() {
            return None;
        }
        for (index, byte) in state.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&kept[2 * index..2 * index + 2], 16).ok()?;
        }
        Sha256::deserialize(&state).ok().map(Self)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The state between appends, as hexadecimal digits.
    pub(super) fn kept(&self) -> String {
        hex(&self.0.serialize())
    }

    /// The hash if no more bytes come, as hexadecimal digits.
    pub(super) fn finished(&self) -> String {
        hex(&self.0.clone().finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    /// Of "abc", as FIPS 180-4 has it.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    /// A state that is in databases by now: "ab", half done.
    const AB_KEPT: &str = "67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b00000000000000000261\
                           620000000000000000000000000000000000000000000000000000000000000000000000000000000000\
                           0000000000000000000000000000000000000000";

    #[test]
    fn a_hash_goes_on_from_what_was_kept() {
        let mut whole = Hash::new();
        let mut kept = String::new();
        for byte in 0..=255_u8 {
            let bytes = vec![byte; usize::from(byte)];
            whole.update(&bytes);
            let mut resumed = Hash::resume(&kept).unwrap();
            resumed.update(&bytes);
            kept = resumed.kept();
        }
        assert_eq!(Hash::resume(&kept).unwrap().finished(), whole.finished());
    }

    #[test]
    fn what_was_kept_is_understood_for_ever() {
        let mut hash = Hash::new();
        hash.update(b"ab");
        assert_eq!(hash.kept(), AB_KEPT, "logs that are being written now go on from this");
        let mut hash = Hash::resume(AB_KEPT).unwrap();
        hash.update(b"c");
        assert_eq!(hash.finished(), ABC);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for kept in ["0", "zz", &AB_KEPT[2..], &format!("{}zz", &AB_KEPT[2..])] {
            assert!(Hash::resume(kept).is_none(), "{kept}");
        }
    }
}
