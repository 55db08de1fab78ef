//! Datagrams under construction: frames of one turn share a datagram where they can.

use crate::limits::{DATAGRAM_SIZES, HEADER_ROOM_BYTES};
use crate::types::Dest;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::REPLICAS_MAX;
    use crate::types::{ClusterId, Mseq, Rank, ReplicaId, Run, Slot, ViewTag};
    use crate::wire::codec::Reader;
    use crate::wire::datagram::{Status, HEADER_BYTES_MAX, HEADER_BYTES_MIN};
    use quickcheck::quickcheck;

    const A: Dest = Dest(1);
    const B: Dest = Dest(2);

    fn packets(heard: usize) -> Packets {
        let run = Run { id: ReplicaId(3), ..Run::default() };
        let mut status = Status::default();
        (0..heard).for_each(|k| status.heard.push(Run { id: ReplicaId(k as u8 + 1), ..Run::default() }));
        let mut packets = Packets::new();
        packets.begin(&Header { cluster: ClusterId(1), run, packet: PacketNumber(0), tag: ViewTag(1), status });
        packets
    }

    fn finish(packets: &mut Packets) -> Vec<(Dest, Vec<u8>)> {
        let mut out = Vec::new();
        packets.finish(&mut out);
        out
    }

    /// The numbers of a datagram's ASKs; anything else is a failure.
    fn asks(datagram: &[u8]) -> Vec<u64> {
        let mut r = Reader::new(Header::decode(datagram).expect("a sealed datagram").1);
        let mut numbers = Vec::new();
        while !r.is_empty() {
            match Frame::decode(&mut r).expect("whole frames") {
                Frame::Ask { number } => numbers.push(number),
                frame => panic!("{frame:?}"),
            }
        }
        numbers
    }

    #[test]
    fn frames_for_the_same_replicas_share_a_datagram() {
        let mut packets = packets(0);
        packets.put(A, 508, &Frame::Ask { number: 1 });
        packets.put(B, 508, &Frame::Ask { number: 2 });
        packets.put(A, 508, &Frame::Ask { number: 3 });
        packets.put(Dest::default(), 508, &Frame::Ask { number: 4 });
        let out: Vec<_> = finish(&mut packets).iter().map(|(dest, bytes)| (*dest, asks(bytes))).collect();
        assert_eq!(out, [(A, vec![1, 3]), (B, vec![2])]);
        assert_eq!(finish(&mut packets), [], "nothing is left");
    }

    quickcheck! {
        fn datagrams_stay_within_their_limit_and_keep_the_order(lengths: Vec<u16>, small: bool) -> bool {
            let limit = if small { DATAGRAM_SIZES[0] } else { DATAGRAM_SIZES[2] };
            let (most, mut packets) = (Packets::payload_bytes(limit), packets(REPLICAS_MAX));
            let (origin, offset, continues) = (Rank(0), 0, false);
            let sent: Vec<Vec<u8>> = lengths.iter().map(|&l| vec![l as u8; usize::from(l) % most + 1]).collect();
            for (bytes, mseq) in sent.iter().zip(1..) {
                let total = bytes.len() as u32;
                packets.put(A, limit, &Frame::Data { origin, mseq: Mseq(mseq), continues, total, offset, bytes });
            }
            let (mut got, mut numbers) = (Vec::new(), Vec::new());
            for (_, datagram) in finish(&mut packets) {
                assert!(datagram.len() <= limit);
                let (header, frames) = Header::decode(&datagram).expect("a sealed datagram");
                numbers.push(header.packet.0);
                let mut r = Reader::new(frames);
                while !r.is_empty() {
                    let Ok(Frame::Data { mseq, bytes, .. }) = Frame::decode(&mut r) else { return false };
                    assert_eq!(mseq.0, got.len() as u64 + 1);
                    got.push(bytes.to_vec());
                }
            }
            got == sent && numbers.iter().copied().eq(1..=numbers.len() as u64)
        }
    }

    #[test]
    fn a_payload_fits_behind_the_longest_header() {
        let mut packets = packets(REPLICAS_MAX);
        for limit in DATAGRAM_SIZES {
            let bytes = vec![7; Packets::payload_bytes(limit)];
            let (origin, mseq, total) = (Rank(0), Mseq(1), bytes.len() as u32);
            packets.put(A, limit, &Frame::Data { origin, mseq, continues: false, total, offset: 0, bytes: &bytes });
            let out = finish(&mut packets);
            assert_eq!(out.len(), 1);
            assert!((limit - HEADER_ROOM_BYTES + HEADER_BYTES_MAX..=limit).contains(&out[0].1.len()));
        }
    }

    #[test]
    fn a_frame_over_the_limit_goes_alone() {
        let (mut packets, padding) = (packets(0), [0; 600]);
        packets.put(A, 508, &Frame::Ask { number: 1 });
        packets.put(A, 508, &Frame::Probe { size: 1, padding: &padding });
        packets.put(A, 508, &Frame::Ask { number: 2 });
        let lengths: Vec<usize> = finish(&mut packets).iter().map(|d| d.1.len() - HEADER_BYTES_MIN).collect();
        assert_eq!(lengths, [9, 605, 9]);
    }

    #[test]
    fn numbers_are_never_used_again() {
        let mut packets = packets(0);
        let mut numbers = Vec::new();
        for _ in 0..3 {
            packets.put(A, 508, &Frame::Ask { number: 1 });
            packets.probe(B, 1200);
            numbers.extend(finish(&mut packets).iter().map(|d| Header::decode(&d.1).expect("sealed").0.packet.0));
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_probe_is_as_long_as_it_says() {
        for heard in [0, REPLICAS_MAX] {
            for size in DATAGRAM_SIZES {
                let mut packets = packets(heard);
                packets.probe(A, size);
                let out = finish(&mut packets);
                assert_eq!(out[0].1.len(), size);
                let mut r = Reader::new(Header::decode(&out[0].1).expect("sealed").1);
                let probe = Frame::decode(&mut r).expect("a probe");
                assert!(matches!(probe, Frame::Probe { size: said, .. } if usize::from(said) == size));
                assert!(r.is_empty());
            }
        }
    }

    #[test]
    fn a_report_goes_only_to_those_who_get_nothing_else() {
        let mut packets = packets(0);
        let both = Dest(A.0 | B.0);
        packets.put(both, 508, &Frame::Tell { number: 1, durable: Slot(1) });
        packets.report(A);
        packets.report(both);
        assert_eq!(finish(&mut packets).len(), 1);
        packets.put(A, 508, &Frame::Ask { number: 1 });
        packets.report(both);
        packets.report(both);
        packets.report(Dest::default());
        let out: Vec<_> = finish(&mut packets).iter().map(|(dest, bytes)| (*dest, asks(bytes))).collect();
        assert_eq!(out, [(A, vec![1]), (both, vec![])]);
        packets.probe(B, 508);
        packets.report(B);
        assert_eq!(finish(&mut packets).len(), 1, "a probe reports as well");
    }
}
