//! Records: what one slot looks like on the disk.
//!
//! ```text
//! magic u32 | CRC-32C u32, of all that follows | length u32 | format u16 | kind u8 | vector count u8 |
//! segment u64 | life u64 | ordinal u64 | durable u64 | epoch u64 | slot u64 | time u64 | digest u64 |
//! committed u64 | synced u64 | durable known u64 | (replica id u8, slot u64)* | operations | zeros up to 8 bytes
//! ```
//!
//! The checksum covers the segment's number, so a recycled segment's former records are none in its new life.

use byteorder::{BigEndian, ByteOrder};

use crate::limits::{RECORD_BYTES_MAX, REPLICAS_MAX, SLOT_BYTES_MAX};
use crate::log::writer::SegmentNumber;
use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Slot};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::digest::slot_digest;

/// Bytes before a record's vector.
pub const HEADER_BYTES: usize = 104;
/// Bytes of one member's place in the vector.
pub const VECTOR_ENTRY_BYTES: usize = 9;
/// Records begin at multiples of this, counted from the segment's start.
pub const ALIGN_BYTES: usize = 8;
/// What every record begins with.
pub const MAGIC: [u8; 4] = *b"ftqR";

/// Raised with every change to the layout above.
const FORMAT: u16 = 1;
const KIND_SLOT: u8 = 1;
const KIND_MARK: u8 = 2;
const CRC_AT: usize = 4;
const LENGTH_AT: usize = 8;
const CHECKED_FROM: usize = 8;
const SEGMENT_AT: usize = 16;
const LIFE_AT: usize = 24;

const _: () = assert!(
    HEADER_BYTES + VECTOR_ENTRY_BYTES * REPLICAS_MAX + SLOT_BYTES_MAX + ALIGN_BYTES <= RECORD_BYTES_MAX,
    "every slot must fit a record"
);

/// What a record carries beside the operations of its slot. A mark has no operations and no slot of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The epoch whose order this is.
    pub epoch: Epoch,
    /// A mark repeats the slot of the record before it.
    pub slot: Slot,
    pub time: GroupTime,
    /// The running digest including this slot.
    pub digest: Digest,
    /// The highest committed slot known when this was written.
    pub committed: Slot,
    /// Every record up to this slot was durable here when this was written.
    pub synced: Slot,
    /// The highest slot known durable anywhere when this was written.
    pub durable_known: Slot,
    /// Each member's `durable` as heard.
    pub vector: Vec<(ReplicaId, Slot)>,
    /// True for a mark: positions only.
    pub mark: bool,
}

/// A record read in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordView<'a> {
    pub record: Record,
    /// Bundles in delivery order.
    pub operations: &'a [u8],
}

impl RecordView<'_> {
    /// Whether this slot's digest follows from the one before it.
    pub fn follows(&self, before: Digest) -> bool {
        let Record { slot, time, digest, .. } = self.record;
        slot_digest(before, slot, time, &[self.operations]) == digest
    }
}

/// Where a record stands in its log: what the writer adds, and what tells a record from a leftover.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    pub segment: SegmentNumber,
    /// Numbers the writer's lives: greater than that of every record found at start-up. Never falls along a log, so
    /// what a torn write left behind can't follow what was written over its beginning.
    pub life: u64,
    /// Counts the log's records, marks too, from 1.
    pub ordinal: u64,
    /// Every record up to this ordinal was durable here when this was written: `synced` as a place in the log.
    pub durable: u64,
}

/// Bytes a record takes, a multiple of [`ALIGN_BYTES`].
pub fn encoded_len(record: &Record, operations: &[&[u8]]) -> usize {
    unpadded_len(record, operations).next_multiple_of(ALIGN_BYTES)
}

fn unpadded_len(record: &Record, operations: &[&[u8]]) -> usize {
    HEADER_BYTES + VECTOR_ENTRY_BYTES * record.vector.len() + operations.iter().map(|o| o.len()).sum::<usize>()
}

/// Appends a record whose operations are the concatenation of `operations`. Panics on one beyond the limits, on a
/// mark with operations, and on a slot 0 that is no mark: the replica makes none of them.
pub fn encode(record: &Record, stamp: &Stamp, operations: &[&[u8]], out: &mut Vec<u8>) {
    let length = unpadded_len(record, operations);
    assert!(length <= RECORD_BYTES_MAX - ALIGN_BYTES, "a record of {length} bytes is beyond the limit");
    assert!(record.vector.len() <= REPLICAS_MAX, "a vector names the members of one view");
    assert!(if record.mark { operations.iter().all(|o| o.is_empty()) } else { record.slot > Slot(0) }, "{record:?}");
    let begin = out.len();
    let end = begin + length.next_multiple_of(ALIGN_BYTES);
    out.reserve(end - begin);
    out.extend_from_slice(&MAGIC);
    out.put_u32(0);
    out.put_u32(length as u32);
    out.put_u16(FORMAT);
    out.put_u8(if record.mark { KIND_MARK } else { KIND_SLOT });
    out.put_u8(record.vector.len() as u8);
    let positions = [stamp.segment.0, stamp.life, stamp.ordinal, stamp.durable];
    let slots = [record.committed.0, record.synced.0, record.durable_known.0];
    let order = [record.epoch.0, record.slot.0, record.time.0, record.digest.0];
    positions.iter().chain(&order).chain(&slots).for_each(|&value| out.put_u64(value));
    for &(id, slot) in &record.vector {
        out.put_u8(id.0);
        out.put_u64(slot.0);
    }
    operations.iter().for_each(|o| out.extend_from_slice(o));
    out.resize(end, 0);
    let crc = crc32c::crc32c(&out[begin + CHECKED_FROM..]);
    BigEndian::write_u32(&mut out[begin + CRC_AT..], crc);
}

/// How many bytes the record at the front of `bytes` takes; where its length is not among them, how many the shortest
/// takes. An error where there is none.
pub fn length(bytes: &[u8]) -> Decoded<usize> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(DecodeError { field: "magic" });
    }
    if bytes.len() < HEADER_BYTES {
        return Ok(HEADER_BYTES);
    }
    let length = BigEndian::read_u32(&bytes[LENGTH_AT..]) as usize;
    if !(HEADER_BYTES..=RECORD_BYTES_MAX - ALIGN_BYTES).contains(&length) {
        return Err(DecodeError { field: "length" });
    }
    Ok(length.next_multiple_of(ALIGN_BYTES))
}

/// The record at the front of `bytes`, which end with the segment, its stamp, and the bytes it takes. The error names
/// the format only where the checksum is right: then it is a record, of a program that knows more.
pub fn decode(segment: SegmentNumber, bytes: &[u8]) -> Decoded<(Stamp, RecordView<'_>, usize)> {
    let mut r = Reader::new(bytes);
    if r.take(MAGIC.len(), "magic")? != MAGIC {
        return Err(DecodeError { field: "magic" });
    }
    let crc = r.u32("checksum")?;
    let length = r.u32("length")? as usize;
    let taken = length.next_multiple_of(ALIGN_BYTES);
    if !(HEADER_BYTES..=RECORD_BYTES_MAX - ALIGN_BYTES).contains(&length) || taken > bytes.len() {
        return Err(DecodeError { field: "length" });
    }
    if BigEndian::read_u64(&bytes[SEGMENT_AT..]) != segment.0 {
        return Err(DecodeError { field: "segment" });
    }
    if crc32c::crc32c(&bytes[CHECKED_FROM..taken]) != crc {
        return Err(DecodeError { field: "checksum" });
    }
    if r.u16("format")? != FORMAT {
        return Err(DecodeError { field: "format" });
    }
    let (stamp, view) = decode_checked(&bytes[..length])?;
    Ok((stamp, view, taken))
}

/// The fields of a record whose checksum, format and length are right.
fn decode_checked(bytes: &[u8]) -> Decoded<(Stamp, RecordView<'_>)> {
    let mut r = Reader::new(&bytes[SEGMENT_AT - 2..]);
    let mark = match r.u8("kind")? {
        KIND_SLOT => false,
        KIND_MARK => true,
        _ => return Err(DecodeError { field: "kind" }),
    };
    let count = usize::from(r.u8("vector")?);
    let stamp = Stamp {
        segment: SegmentNumber(r.u64("segment")?),
        life: r.u64("life")?,
        ordinal: r.u64("ordinal")?,
        durable: r.u64("durable")?,
    };
    let mut record = Record {
        mark,
        epoch: Epoch(r.u64("epoch")?),
        slot: Slot(r.u64("slot")?),
        time: GroupTime(r.u64("time")?),
        digest: Digest(r.u64("digest")?),
        committed: Slot(r.u64("committed")?),
        synced: Slot(r.u64("synced")?),
        durable_known: Slot(r.u64("durable known")?),
        vector: Vec::new(),
    };
    if count > REPLICAS_MAX {
        return Err(DecodeError { field: "vector" });
    }
    for _ in 0..count {
        record.vector.push((ReplicaId(r.u8("vector id")?), Slot(r.u64("vector slot")?)));
    }
    let operations = r.rest();
    if mark && !operations.is_empty() || !mark && record.slot == Slot(0) {
        return Err(DecodeError { field: "slot" });
    }
    Ok((stamp, RecordView { record, operations }))
}

/// Whether these bytes, which are no record, claim to be one of this segment, of this life or a later one: what is
/// left of a record whose later sectors are lost.
pub fn claims_to_be(segment: SegmentNumber, life: u64, bytes: &[u8]) -> bool {
    bytes.len() >= LIFE_AT + 8
        && bytes.starts_with(&MAGIC)
        && BigEndian::read_u64(&bytes[SEGMENT_AT..]) == segment.0
        && BigEndian::read_u64(&bytes[LIFE_AT..]) >= life
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use quickcheck::quickcheck;

    pub(crate) fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn record() -> (Record, Stamp) {
        let record = Record {
            epoch: Epoch(3),
            slot: Slot(0x11),
            time: GroupTime(0x2222),
            digest: Digest(0x3333_3333),
            committed: Slot(0x0e),
            synced: Slot(0x0f),
            durable_known: Slot(0x10),
            vector: vec![(ReplicaId(1), Slot(0x0f)), (ReplicaId(64), Slot(0x0d))],
            mark: false,
        };
        (record, Stamp { segment: SegmentNumber(5), life: 2, ordinal: 0x21, durable: 0x1f })
    }

    const STAMPED: &str = "000000000000000500000000000000020000000000000021";

    #[test]
    fn golden_slot() {
        let (record, stamp) = record();
        let mut bytes = Vec::new();
        encode(&record, &stamp, &[b"ab", b"", b"c"], &mut bytes);
        let rest = STAMPED.to_owned()
            + "000000000000001f"
            + "0000000000000003000000000000001100000000000022220000000033333333"
            + "000000000000000e000000000000000f0000000000000010"
            + "01000000000000000f40000000000000000d"
            + "616263"
            + "000000";
        assert_eq!(hex(&bytes), "667471525308a0b00000007d00010102".to_owned() + &rest);
        let (again, view, taken) = decode(SegmentNumber(5), &bytes).expect("just written");
        assert_eq!((again, &view.record, view.operations, taken), (stamp, &record, &b"abc"[..], bytes.len()));
        assert_eq!(taken, encoded_len(&record, &[b"ab", b"", b"c"]));
    }

    #[test]
    fn golden_mark() {
        let (mut record, mut stamp) = record();
        (record.mark, record.vector, stamp.durable) = (true, vec![], 0);
        let mut bytes = Vec::new();
        encode(&record, &stamp, &[], &mut bytes);
        let rest = STAMPED.to_owned()
            + "0000000000000000"
            + "0000000000000003000000000000001100000000000022220000000033333333"
            + "000000000000000e000000000000000f0000000000000010";
        assert_eq!(hex(&bytes), "66747152293c3e930000006800010200".to_owned() + &rest);
        assert_eq!(decode(SegmentNumber(5), &bytes).expect("just written").1.record, record);
    }

    #[test]
    fn every_bit_counts() {
        let (record, stamp) = record();
        let mut bytes = Vec::new();
        encode(&record, &stamp, &[b"some operations"], &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(SegmentNumber(5), &bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(decode(SegmentNumber(5), &bytes).is_ok());
        assert_eq!(decode(SegmentNumber(6), &bytes), Err(DecodeError { field: "segment" }));
    }

    #[test]
    fn a_format_is_unknown_only_under_a_good_checksum() {
        let (record, stamp) = record();
        let mut bytes = Vec::new();
        encode(&record, &stamp, &[b"x"], &mut bytes);
        bytes[13] = 2;
        assert_eq!(decode(SegmentNumber(5), &bytes), Err(DecodeError { field: "checksum" }));
        let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        BigEndian::write_u32(&mut bytes[CRC_AT..], crc);
        assert_eq!(decode(SegmentNumber(5), &bytes), Err(DecodeError { field: "format" }));
    }

    #[test]
    fn the_largest_slot_is_a_record() {
        let (mut record, stamp) = record();
        record.vector = (1..=REPLICAS_MAX as u8).map(|id| (ReplicaId(id), Slot(u64::MAX))).collect();
        let operations = vec![0x5a; SLOT_BYTES_MAX];
        let mut bytes = Vec::new();
        encode(&record, &stamp, &[&operations], &mut bytes);
        assert_eq!(decode(SegmentNumber(5), &bytes).expect("within the limits").1.operations, operations);
    }

    quickcheck! {
        fn any_bytes_under_a_good_checksum_are_a_record_or_an_error(body: Vec<u8>, kind: u8, count: u8) -> bool {
            let mut bytes = MAGIC.to_vec();
            bytes.put_u32(0);
            bytes.put_u32((HEADER_BYTES + body.len()) as u32);
            bytes.put_u16(FORMAT);
            bytes.extend_from_slice(&[kind % 4, count % 20]);
            bytes.put_u64(7);
            bytes.extend(body.iter().cycle().chain(&[0]).take(HEADER_BYTES - SEGMENT_AT - 8 + body.len()));
            bytes.resize((HEADER_BYTES + body.len()).next_multiple_of(ALIGN_BYTES), 0);
            let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
            BigEndian::write_u32(&mut bytes[CRC_AT..], crc);
            match decode(SegmentNumber(7), &bytes) {
                Ok((stamp, view, taken)) => {
                    let mut again = Vec::new();
                    encode(&view.record, &stamp, &[view.operations], &mut again);
                    again == bytes[..taken]
                }
                Err(e) => e.field != "checksum" && e.field != "length",
            }
        }
    }
}
