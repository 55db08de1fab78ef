//! Where the next record goes.

use crate::log::record::Record;
use crate::types::WriteNumber;

/// Names a segment file; counted up, never used again even when the file's blocks are.
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

/// The place after the last good record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    pub segment: SegmentNumber,
    /// Bytes from the segment's start.
    pub offset: u64,
}

/// Places records, one behind the other, segment after segment.
#[derive(Debug)]
pub struct Writer {
    tail: Option<Tail>,
    segment_bytes: u64,
}

impl Writer {
    /// Goes on behind `tail`, or begins segment 1 where there is none yet.
    pub fn new(tail: Option<Tail>, segment_bytes: u64) -> Writer {
        Writer { tail, segment_bytes }
    }

    /// Encodes a record; `operations` are the slices whose concatenation is the slot's operations. Contiguous
    /// records of one call series share a [`LogWrite`]: the last of `out` is extended where it has this number and
    /// ends where this begins.
    pub fn append(&mut self, number: WriteNumber, record: &Record, operations: &[&[u8]], out: &mut Vec<LogWrite>) {
        let _ = (number, record, operations, out, self.segment_bytes, self.tail);
        unimplemented!()
    }
}
