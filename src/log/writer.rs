//! Where the next record goes.
//!
//! A segment begins with a header; records follow, one behind the other; one that does not fit what is left opens
//! the next segment. A record longer than a whole segment has one to itself, as long as it must be: production limits
//! exclude that, simulated segments are small.
//!
//! ```text
//! magic u32 | CRC-32C u32, of all that follows | format u16 | zeros | segment u64 | life u64 | first ordinal u64
//! ```

use byteorder::{BigEndian, ByteOrder};
use std::collections::VecDeque;

use crate::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES};
use crate::log::index::Place;
use crate::log::record::{self, Record, Stamp};
use crate::types::{Slot, WriteNumber};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

/// Bytes of a segment before its first record.
pub const SEGMENT_HEADER_BYTES: usize = 40;

const MAGIC: [u8; 4] = *b"ftqS";
const FORMAT: u16 = 1;
const CRC_AT: usize = 4;
const CHECKED_FROM: usize = 8;

const _: () =
    assert!((SEGMENT_HEADER_BYTES + RECORD_BYTES_MAX) as u64 <= SEGMENT_BYTES, "every record must fit a segment");

/// Names a segment file; counted up. A number is used again only for what a torn write left behind its segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SegmentNumber(pub u64);

/// Bytes to be written at one place of one segment, and then synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogWrite {
    pub number: WriteNumber,
    pub segment: SegmentNumber,
    /// Bytes from the segment's start.
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// The place after the last good record, and what the next one must know of those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    pub segment: SegmentNumber,
    /// Bytes from the segment's start; 0 where even its header is still to be written.
    pub offset: u64,
    /// The life of what is written from here on: see [`Stamp::life`].
    pub life: u64,
    /// The last good record's ordinal; 0 where there is none.
    pub ordinal: u64,
    /// The last record's slot; 0 where there is none.
    pub slot: Slot,
    /// The highest ordinal some good record says was durable.
    pub durable: u64,
}

impl Tail {
    /// Where the first log of all begins.
    pub const FIRST: Tail =
        Tail { segment: SegmentNumber(1), offset: 0, life: 1, ordinal: 0, slot: Slot(0), durable: 0 };
}

/// What a segment begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    pub segment: SegmentNumber,
    pub life: u64,
    /// The ordinal of the segment's first record.
    pub first: u64,
}

impl SegmentHeader {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend_from_slice(&MAGIC);
        out.put_u32(0);
        out.put_u16(FORMAT);
        out.extend_from_slice(&[0; 6]);
        [self.segment.0, self.life, self.first].iter().for_each(|&value| out.put_u64(value));
        let crc = crc32c::crc32c(&out[begin + CHECKED_FROM..]);
        BigEndian::write_u32(&mut out[begin + CRC_AT..], crc);
    }

    /// The header of the segment with this number and these bytes. The error names the format only where the checksum
    /// is right.
    pub fn decode(segment: SegmentNumber, bytes: &[u8]) -> Decoded<SegmentHeader> {
        let header = Reader::new(bytes).take(SEGMENT_HEADER_BYTES, "segment header")?;
        let mut r = Reader::new(header);
        if r.take(MAGIC.len(), "magic")? != MAGIC {
            return Err(DecodeError { field: "magic" });
        }
        if r.u32("checksum")? != crc32c::crc32c(&header[CHECKED_FROM..]) {
            return Err(DecodeError { field: "checksum" });
        }
        if r.u16("format")? != FORMAT {
            return Err(DecodeError { field: "format" });
        }
        r.take(6, "zeros")?;
        if r.u64("segment")? != segment.0 {
            return Err(DecodeError { field: "segment" });
        }
        Ok(SegmentHeader { segment, life: r.u64("life")?, first: r.u64("first ordinal")? })
    }
}

/// Places records, one behind the other, segment after segment.
#[derive(Debug)]
pub struct Writer {
    tail: Tail,
    segment_bytes: u64,
    /// The next record begins a segment.
    turns: bool,
    /// Slot and ordinal of the records not known durable, both rising; what was voided is not among them.
    unsynced: VecDeque<(Slot, u64)>,
}

impl Writer {
    /// Goes on behind `tail`, or begins segment 1 where there is none yet.
    pub fn new(tail: Option<Tail>, segment_bytes: u64) -> Writer {
        let tail = tail.unwrap_or(Tail::FIRST);
        // What was found is durable once the replica says so of its last slot.
        Writer { tail, segment_bytes, turns: false, unsynced: VecDeque::from([(tail.slot, tail.ordinal)]) }
    }

    /// The next record begins a segment: it is found there though what is before it counts no more.
    pub fn turn(&mut self) {
        self.turns = true;
    }

    /// Where the next record goes if it fits.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// Encodes a record; `operations` are the slices whose concatenation is the slot's operations. Contiguous
    /// records of one call series share a [`LogWrite`]: the last of `out` is extended where it has this number and
    /// ends where this begins. Says where the record lies.
    pub fn append(
        &mut self,
        number: WriteNumber,
        record: &Record,
        operations: &[&[u8]],
        out: &mut Vec<LogWrite>,
    ) -> Place {
        let length = record::encoded_len(record, operations) as u64;
        let turns = std::mem::take(&mut self.turns) || self.tail.offset + length > self.segment_bytes;
        if self.tail.offset != 0 && turns {
            self.tail.segment.0 += 1;
            self.tail.offset = 0;
        }
        self.tail.ordinal += 1;
        self.note_synced(record);
        let Tail { segment, offset, life, ordinal, durable, .. } = self.tail;
        let bytes = write_at(number, segment, offset, out);
        if offset == 0 {
            SegmentHeader { segment, life, first: ordinal }.encode(bytes);
            self.tail.offset = SEGMENT_HEADER_BYTES as u64;
        }
        record::encode(record, &Stamp { segment, life, ordinal, durable }, operations, bytes);
        let place = Place { segment, offset: self.tail.offset, bytes: length };
        self.tail.offset += length;
        place
    }

    /// Takes what the record says is durable, as an ordinal, and puts the record itself among those that are not.
    fn note_synced(&mut self, record: &Record) {
        if !record.mark {
            while self.unsynced.back().is_some_and(|&(slot, _)| slot >= record.slot) {
                self.unsynced.pop_back();
            }
        }
        while let Some(&(_, ordinal)) = self.unsynced.front().filter(|&&(slot, _)| slot <= record.synced) {
            self.tail.durable = self.tail.durable.max(ordinal);
            self.unsynced.pop_front();
        }
        if !record.mark {
            self.unsynced.push_back((record.slot, self.tail.ordinal));
            self.tail.slot = record.slot;
        }
    }
}

/// The buffer for what goes to this place: the last write's where it ends just there, else a new one's.
fn write_at(number: WriteNumber, segment: SegmentNumber, offset: u64, out: &mut Vec<LogWrite>) -> &mut Vec<u8> {
    let contiguous = out
        .last()
        .is_some_and(|w| w.number == number && w.segment == segment && w.offset + w.bytes.len() as u64 == offset);
    if !contiguous {
        out.push(LogWrite { number, segment, offset, bytes: Vec::new() });
    }
    &mut out.last_mut().expect("just pushed or just seen").bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::tests::hex;

    fn slot(slot: u64, synced: u64) -> Record {
        Record { slot: Slot(slot), synced: Slot(synced), ..Record::default() }
    }

    fn stamps(writes: &[LogWrite]) -> Vec<(u64, u64, u64)> {
        let mut found = Vec::new();
        for write in writes {
            let mut at = if write.offset == 0 { SEGMENT_HEADER_BYTES } else { 0 };
            while at < write.bytes.len() {
                let (stamp, _, taken) = record::decode(write.segment, &write.bytes[at..]).expect("just written");
                found.push((stamp.segment.0, stamp.ordinal, stamp.durable));
                at += taken;
            }
        }
        found
    }

    #[test]
    fn golden_segment_header() {
        let mut bytes = Vec::new();
        let header = SegmentHeader { segment: SegmentNumber(7), life: 3, first: 0x99 };
        header.encode(&mut bytes);
        assert_eq!(bytes.len(), SEGMENT_HEADER_BYTES);
        assert_eq!(hex(&bytes), "667471539bd11eb90001000000000000000000000000000700000000000000030000000000000099");
        assert_eq!(SegmentHeader::decode(SegmentNumber(7), &bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(SegmentNumber(7), &bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(SegmentHeader::decode(SegmentNumber(8), &bytes).is_err());
    }

    #[test]
    fn contiguous_records_of_one_number_share_a_write() {
        let mut writer = Writer::new(None, 4096);
        let mut out = Vec::new();
        writer.append(WriteNumber(1), &slot(1, 0), &[b"a"], &mut out);
        writer.append(WriteNumber(1), &slot(2, 0), &[b"b"], &mut out);
        writer.append(WriteNumber(2), &slot(3, 0), &[b"c"], &mut out);
        assert_eq!(out.iter().map(|w| (w.number.0, w.offset)).collect::<Vec<_>>(), [(1, 0), (2, 40 + 2 * 112)]);
        assert_eq!(stamps(&out), [(1, 1, 0), (1, 2, 0), (1, 3, 0)]);
    }

    #[test]
    fn what_does_not_fit_opens_the_next_segment() {
        let mut writer = Writer::new(None, 300);
        let mut out = Vec::new();
        for k in 1..=5 {
            writer.append(WriteNumber(1), &slot(k, 0), &[b"x"], &mut out);
        }
        let large = [7; 1000];
        writer.append(WriteNumber(1), &slot(6, 0), &[&large, &large], &mut out);
        writer.append(WriteNumber(1), &slot(7, 0), &[], &mut out);
        let places: Vec<(u64, u64, usize)> = out.iter().map(|w| (w.segment.0, w.offset, w.bytes.len())).collect();
        assert_eq!(places, [(1, 0, 264), (2, 0, 264), (3, 0, 152), (4, 0, 40 + 2104), (5, 0, 144)]);
    }

    #[test]
    fn synced_becomes_an_ordinal() {
        let mut writer = Writer::new(None, 4096);
        let mut out = Vec::new();
        let mark = |at, synced| Record { mark: true, ..slot(at, synced) };
        // Slots 1 to 3, a mark, slot 4, then slots 3 and 4 anew; what was voided is never an answer.
        let log = [slot(1, 0), slot(2, 1), slot(3, 1), mark(3, 3), slot(4, 3), slot(3, 2), slot(4, 2), mark(4, 3)];
        for record in &log {
            writer.append(WriteNumber(1), record, &[], &mut out);
        }
        let durable: Vec<u64> = stamps(&out).iter().map(|s| s.2).collect();
        assert_eq!(durable, [0, 1, 1, 3, 3, 3, 3, 6]);
        assert_eq!(writer.unsynced, [(Slot(4), 7)]);
    }
}
