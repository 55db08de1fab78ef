//! The form of a snapshot file (DESIGN 6.2): a header that says at which slot the state was taken, then the state
//! itself, as the machine wrote it. Pure: a child writes it, a start-up or a joiner reads it.
//!
//! ```text
//! magic u32 | CRC-32C u32, of the header's rest | header bytes u32 | format u16 |
//! slot u64 | time u64 | digest u64 | state bytes u64 | XXH3 of the state u64 | view | state
//! ```

use byteorder::{BigEndian, ByteOrder};
use twox_hash::XxHash3_64;

use crate::limits::{SNAPSHOT_HEADER_BYTES_MAX, STATE_BYTES_MAX};
use crate::types::{Digest, GroupTime, Slot};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::view::View;

const MAGIC: [u8; 4] = *b"ftqN";
const FORMAT: u16 = 1;
const CRC_AT: usize = 4;
const CHECKED_FROM: usize = 8;
const LENGTH_AT: usize = 8;
const STATE_BYTES_AT: usize = LENGTH_AT + 4 + 2 + 24;

/// Bytes that tell how long a snapshot file is.
pub const FRONT_BYTES: usize = STATE_BYTES_AT + 8;

/// How long a snapshot file is that begins so. Nothing is checked but that it is no nonsense.
pub fn file_bytes(front: &[u8]) -> Decoded<u64> {
    let mut r = Reader::new(front);
    if r.take(MAGIC.len(), "magic")? != MAGIC {
        return Err(DecodeError { field: "magic" });
    }
    r.take(LENGTH_AT - CRC_AT, "checksum")?;
    let header = r.u32("header bytes")?;
    r.take(STATE_BYTES_AT - LENGTH_AT - 4, "format")?;
    let state = r.u64("state bytes")?;
    let total = u64::from(header).checked_add(state).filter(|total| *total <= STATE_BYTES_MAX);
    total.filter(|total| *total > FRONT_BYTES as u64).ok_or(DecodeError { field: "state bytes" })
}

/// What a snapshot is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The last slot applied.
    pub slot: Slot,
    /// The group time of that slot.
    pub time: GroupTime,
    /// The running digest including that slot.
    pub digest: Digest,
    /// The view in whose order that slot is.
    pub view: View,
}

impl Snapshot {
    /// What goes before `state` in the file.
    pub fn header(&self, state: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.put_u32(0);
        out.put_u32(0);
        out.put_u16(FORMAT);
        [self.slot.0, self.time.0, self.digest.0].iter().for_each(|&value| out.put_u64(value));
        out.put_u64(state.len() as u64);
        out.put_u64(XxHash3_64::oneshot(state));
        self.view.encode(&mut out);
        assert!(out.len() <= SNAPSHOT_HEADER_BYTES_MAX, "the largest view fits a snapshot's header");
        let length = out.len() as u32;
        BigEndian::write_u32(&mut out[LENGTH_AT..], length);
        let crc = crc32c::crc32c(&out[CHECKED_FROM..]);
        BigEndian::write_u32(&mut out[CRC_AT..], crc);
        out
    }

    /// A whole file: what it is of, and the state. Every byte of it counts: one that is missing, changed or too many
    /// is an error. The error names the format only where the header's checksum is right.
    pub fn decode(file: &[u8]) -> Decoded<(Snapshot, &[u8])> {
        let mut r = Reader::new(file);
        if r.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(DecodeError { field: "magic" });
        }
        let crc = r.u32("checksum")?;
        let length = r.u32("header bytes")? as usize;
        if !(LENGTH_AT + 4..=SNAPSHOT_HEADER_BYTES_MAX.min(file.len())).contains(&length) {
            return Err(DecodeError { field: "header bytes" });
        }
        let (header, state) = file.split_at(length);
        if crc32c::crc32c(&header[CHECKED_FROM..]) != crc {
            return Err(DecodeError { field: "checksum" });
        }
        let mut r = Reader::new(&header[LENGTH_AT + 4..]);
        if r.u16("format")? != FORMAT {
            return Err(DecodeError { field: "format" });
        }
        let (slot, time, digest) = (Slot(r.u64("slot")?), GroupTime(r.u64("time")?), Digest(r.u64("digest")?));
        let (state_bytes, state_checksum) = (r.u64("state bytes")?, r.u64("state checksum")?);
        let view = View::decode(&mut r)?;
        r.end("view")?;
        if state_bytes != state.len() as u64 {
            return Err(DecodeError { field: "state bytes" });
        }
        if state_checksum != XxHash3_64::oneshot(state) {
            return Err(DecodeError { field: "state checksum" });
        }
        Ok((Snapshot { slot, time, digest, view }, state))
    }
}

/// What snapshot files are worth.
#[derive(Debug, Default)]
pub struct Choice<'a> {
    /// The newest that is whole.
    pub newest: Option<(Snapshot, &'a [u8])>,
    /// The slots of that and of the older ones, rising.
    pub usable: Vec<Slot>,
    /// Newer ones that are not what they were, and why.
    pub damaged: Vec<(Slot, DecodeError)>,
}

/// Judges files named by their slots, which rise.
pub fn choose<'a>(files: &[(Slot, &'a [u8])]) -> Choice<'a> {
    let mut choice = Choice::default();
    for &(slot, file) in files.iter().rev() {
        if choice.newest.is_none() {
            match Snapshot::decode(file) {
                Ok(whole) if whole.0.slot == slot => choice.newest = Some(whole),
                Ok(_) => choice.damaged.push((slot, DecodeError { field: "slot" })),
                Err(e) => choice.damaged.push((slot, e)),
            }
        }
        choice.usable.extend(choice.newest.is_some().then_some(slot));
    }
    choice.usable.reverse();
    choice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ADDRESS_BYTES_MAX, COUNTER_MAX, REPLICAS_MAX};
    use crate::log::meta::tests::view;
    use crate::log::record::tests::hex;
    use quickcheck::quickcheck;

    fn snapshot(members: usize, address_bytes: usize) -> Snapshot {
        let view = view(3, members, address_bytes);
        Snapshot { slot: Slot(0x11), time: GroupTime(0x22), digest: Digest(0x33), view }
    }

    fn file(state: &[u8]) -> Vec<u8> {
        [&snapshot(2, 14).header(state)[..], state].concat()
    }

    #[test]
    fn golden_header() {
        let header = snapshot(1, 1).header(b"");
        // The state's checksum is XXH3 of nothing.
        let golden = "6674714e".to_owned()
            + "95499897"
            + "00000099"
            + "0001"
            + "000000000000001100000000000000220000000000000033"
            + "00000000000000002d06800538d394c2"
            + "0000000000000009000000000000000300000000000000010200000000000000030000000000000004"
            + "0101ffffffffffffffff0000000000000001"
            + "000000000000001e" // the base, and the chain of those before it
            + "030000010a0214"
            + "00000000000000050000000000000006"
            + "010101"
            + "010101610168";
        assert_eq!(hex(&header), golden);
    }

    #[test]
    fn the_largest_view_fits() {
        let view = view(COUNTER_MAX / 10, REPLICAS_MAX, ADDRESS_BYTES_MAX);
        let largest = Snapshot { view, ..snapshot(1, 1) };
        let file = [&largest.header(b"state")[..], b"state"].concat();
        assert_eq!(Snapshot::decode(&file), Ok((largest, &b"state"[..])));
    }

    #[test]
    fn every_bit_and_every_byte_counts() {
        let mut file = file(b"the machine's bytes");
        for bit in 0..file.len() * 8 {
            file[bit / 8] ^= 1 << (bit % 8);
            assert!(Snapshot::decode(&file).is_err(), "bit {bit}");
            file[bit / 8] ^= 1 << (bit % 8);
        }
        (0..file.len()).for_each(|end| assert!(Snapshot::decode(&file[..end]).is_err(), "cut at {end}"));
        file.push(0);
        assert_eq!(Snapshot::decode(&file), Err(DecodeError { field: "state bytes" }));
    }

    quickcheck! {
        fn what_was_written_is_found(state: Vec<u8>) -> bool {
            let whole = file(&state);
            assert_eq!(file_bytes(&whole[..FRONT_BYTES]), Ok(whole.len() as u64));
            assert!((0..FRONT_BYTES).all(|short| file_bytes(&whole[..short]).is_err()));
            Snapshot::decode(&file(&state)) == Ok((snapshot(2, 14), &state[..]))
        }

        fn any_fields_under_a_good_checksum_are_a_snapshot_or_an_error(at: usize, body: Vec<u8>) -> bool {
            let mut header = snapshot(2, 14).header(b"");
            let at = LENGTH_AT + 4 + at % (header.len() - LENGTH_AT - 4);
            header.iter_mut().skip(at).zip(&body).for_each(|(to, from)| *to = *from);
            let crc = crc32c::crc32c(&header[CHECKED_FROM..]);
            BigEndian::write_u32(&mut header[CRC_AT..], crc);
            match Snapshot::decode(&header) {
                Ok((found, state)) => state.is_empty() && found.header(state) == header,
                Err(e) => e.field != "checksum" && e.field != "header bytes",
            }
        }
    }

    #[test]
    fn the_newest_whole_one_counts() {
        let of = |slot| {
            let snapshot = Snapshot { slot: Slot(slot), ..snapshot(1, 1) };
            [&snapshot.header(b"state")[..], b"state"].concat()
        };
        let (one, two, three) = (of(1), of(2), of(3));
        let choice = choose(&[(Slot(1), &one), (Slot(2), &two), (Slot(3), &three)]);
        assert_eq!(choice.newest.map(|n| n.0.slot), Some(Slot(3)));
        assert_eq!((choice.usable, choice.damaged), (vec![Slot(1), Slot(2), Slot(3)], vec![]));
        let choice = choose(&[(Slot(1), &one), (Slot(2), &two[..90]), (Slot(4), &three)]);
        assert_eq!(choice.newest.map(|n| n.0.slot), Some(Slot(1)));
        assert_eq!((choice.usable, choice.damaged.len()), (vec![Slot(1)], 2));
        assert_eq!(choice.damaged[0], (Slot(4), DecodeError { field: "slot" }));
        assert!(choose(&[(Slot(1), b"")]).newest.is_none());
    }
}
