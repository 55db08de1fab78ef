//! Datagrams under construction: frames of one turn share a datagram where they can.

use crate::limits::{DATAGRAM_SIZES, HEADER_ROOM_BYTES};
use crate::replica::Dest;
use crate::types::PacketNumber;
use crate::wire::datagram::{seal, Frame, Header, DATA_HEADER_BYTES};

#[derive(Debug)]
struct Open {
    dest: Dest,
    bytes: Vec<u8>,
    limit: usize,
}

/// Collects the frames of a turn and hands out sealed datagrams.
#[derive(Debug)]
pub struct Packets {
    next: PacketNumber,
    header: Vec<u8>,
    open: Vec<Open>,
    done: Vec<(Dest, Vec<u8>)>,
    scratch: Vec<u8>,
}

impl Packets {
    pub fn new() -> Packets {
        Packets { next: PacketNumber(1), header: Vec::new(), open: Vec::new(), done: Vec::new(), scratch: Vec::new() }
    }

    /// Every datagram begun from now on reports this.
    pub fn begin(&mut self, header: &Header) {
        self.header.clear();
        header.encode(&mut self.header);
    }

    /// Bytes of one message's payload that fit a datagram of this size.
    pub fn payload_bytes(size: usize) -> usize {
        size - HEADER_ROOM_BYTES - DATA_HEADER_BYTES
    }

    /// Adds a frame for these replicas; datagrams stay within `limit` bytes unless one frame alone is larger.
    pub fn put(&mut self, dest: Dest, limit: usize, frame: &Frame<'_>) {
        if dest.is_empty() {
            return;
        }
        if let Frame::Data { bytes, .. } = frame {
            let open = self.room(dest, limit, DATA_HEADER_BYTES + bytes.len());
            frame.encode(&mut self.open[open].bytes);
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        frame.encode(&mut scratch);
        let open = self.room(dest, limit, scratch.len());
        self.open[open].bytes.extend_from_slice(&scratch);
        self.scratch = scratch;
    }

    /// Adds a datagram of exactly `size` bytes with one PROBE in it.
    pub fn probe(&mut self, dest: Dest, size: usize) {
        let fixed = self.header.len() + 5;
        let padding = vec![0; size.saturating_sub(fixed)];
        let mut bytes = self.header.clone();
        Frame::Probe { size: size as u16, padding: &padding }.encode(&mut bytes);
        self.close(Open { dest, bytes, limit: size });
    }

    /// Makes sure that these replicas get at least the report.
    pub fn report(&mut self, dest: Dest) {
        let covered = self.open.iter().map(|o| o.dest).chain(self.done.iter().map(|d| d.0));
        if !dest.is_empty() && !covered.into_iter().any(|d| d.0 & dest.0 == dest.0) {
            self.room(dest, DATAGRAM_SIZES[0], 0);
        }
    }

    /// The open datagram for `dest` with room for `bytes` more.
    fn room(&mut self, dest: Dest, limit: usize, bytes: usize) -> usize {
        if let Some(at) = self.open.iter().position(|o| o.dest == dest && o.limit == limit) {
            if self.open[at].bytes.len() + bytes <= limit {
                return at;
            }
            let full = self.open.swap_remove(at);
            self.close(full);
        }
        let mut datagram = Vec::with_capacity((self.header.len() + bytes).max(256));
        datagram.extend_from_slice(&self.header);
        self.open.push(Open { dest, bytes: datagram, limit });
        self.open.len() - 1
    }

    fn close(&mut self, open: Open) {
        let mut bytes = open.bytes;
        seal(&mut bytes, self.next);
        self.next = self.next.next();
        self.done.push((open.dest, bytes));
    }

    /// Everything that was put, sealed.
    pub fn finish(&mut self, out: &mut Vec<(Dest, Vec<u8>)>) {
        for open in std::mem::take(&mut self.open) {
            self.close(open);
        }
        out.append(&mut self.done);
    }
}

impl Default for Packets {
    fn default() -> Self {
        Packets::new()
    }
}
