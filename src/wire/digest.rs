//! The running digests: one number that two replicas compare instead of their histories (I1).

use crate::types::{Digest, GroupTime, Slot};
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// The digest of the history that goes on from `previous` with this slot; `operations` are the slot's bytes in as
/// many pieces as they happen to lie in: XXH3 over slot, time and bytes, the digest before as its seed.
pub fn slot_digest(previous: Digest, slot: Slot, time: GroupTime, operations: &[&[u8]]) -> Digest {
    let mut hasher = XxHash3_64::with_seed(previous.0);
    hasher.write(&slot.0.to_be_bytes());
    hasher.write(&time.0.to_be_bytes());
    operations.iter().for_each(|piece| hasher.write(piece));
    Digest(hasher.finish())
}

/// The digest of the answers that goes on from `previous` with those of one slot.
pub fn answers_digest(previous: u64, slot: Slot, answers: &[u8]) -> u64 {
    slot_digest(Digest(previous), slot, GroupTime(0), &[answers]).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn pieces_do_not_matter(bytes: Vec<u8>, cut: usize) -> bool {
            let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
            let of = |pieces: &[&[u8]]| slot_digest(Digest(7), Slot(3), GroupTime(9), pieces);
            let flat = [&3u64.to_be_bytes()[..], &9u64.to_be_bytes(), &bytes].concat();
            assert_eq!(of(&[&bytes]).0, XxHash3_64::oneshot_with_seed(7, &flat));
            of(&[&bytes]) == of(&[head, tail]) && of(&[&bytes]) == of(&[head, &[], tail])
        }
    }

    #[test]
    fn everything_counts() {
        let of =
            |previous, slot, time, bytes: &[u8]| slot_digest(Digest(previous), Slot(slot), GroupTime(time), &[bytes]);
        let one = of(1, 2, 3, b"x");
        assert!([of(0, 2, 3, b"x"), of(1, 3, 3, b"x"), of(1, 2, 4, b"x"), of(1, 2, 3, b"y")].iter().all(|d| *d != one));
        // For ever: a digest in a log must mean the same in every later version.
        assert_eq!(of(0, 1, 0, b""), Digest(3_448_420_582_392_008_907));
    }
}
