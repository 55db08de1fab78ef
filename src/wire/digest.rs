//! The running digests: one number that two replicas compare instead of their histories (I1).

use crate::types::{Digest, GroupTime, Slot};
use std::hash::Hasher;
use twox_hash::XxHash3_64;

/// Up to so many bytes are copied together and hashed at once, which is several times faster.
const SMALL_BYTES: usize = 240;

/// The digest of the history that goes on from `previous` with this slot; `operations` are the slot's bytes in as
/// many pieces as they happen to lie in: XXH3 over slot, time and bytes, the digest before as its seed.
pub fn slot_digest(previous: Digest, slot: Slot, time: GroupTime, operations: &[&[u8]]) -> Digest {
    let head = [slot.0.to_be_bytes(), time.0.to_be_bytes()];
    let pieces = || head.iter().map(|field| &field[..]).chain(operations.iter().copied());
    if pieces().map(<[u8]>::len).sum::<usize>() <= SMALL_BYTES {
        let (mut bytes, mut end) = ([0; SMALL_BYTES], 0);
        for piece in pieces() {
            bytes[end..end + piece.len()].copy_from_slice(piece);
            end += piece.len();
        }
        return Digest(XxHash3_64::oneshot_with_seed(previous.0, &bytes[..end]));
    }
    let mut hasher = XxHash3_64::with_seed(previous.0);
    pieces().for_each(|piece| hasher.write(piece));
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
        fn pieces_do_not_matter(bytes: Vec<u8>, long: bool, cut: usize) -> bool {
            let bytes = if long { bytes.repeat(1 + 2 * SMALL_BYTES / (bytes.len() + 1)) } else { bytes };
            let (head, tail) = bytes.split_at(cut % (bytes.len() + 1));
            let of = |pieces: &[&[u8]]| slot_digest(Digest(7), Slot(3), GroupTime(9), pieces);
            let flat = [&3u64.to_be_bytes()[..], &9u64.to_be_bytes(), &bytes].concat();
            assert_eq!(of(&[&bytes]).0, XxHash3_64::oneshot_with_seed(7, &flat));
            of(&[&bytes]) == of(&[head, tail]) && of(&[&bytes]) == of(&[head, &[], tail])
        }
    }

    #[test]
    fn small_and_large_are_one_function() {
        for len in [0, 1, SMALL_BYTES - 17, SMALL_BYTES - 16, SMALL_BYTES - 15, SMALL_BYTES, 10 * SMALL_BYTES] {
            let bytes: Vec<u8> = (0..len).map(|k| k as u8).collect();
            let flat = [&5u64.to_be_bytes()[..], &6u64.to_be_bytes(), &bytes].concat();
            let digest = slot_digest(Digest(4), Slot(5), GroupTime(6), &[&bytes]);
            assert_eq!(digest.0, XxHash3_64::oneshot_with_seed(4, &flat), "{len} bytes");
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
