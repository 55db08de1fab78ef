//! Change frames in pieces: one that does not fit a datagram spans several, which may come in any order.

use std::collections::{BTreeMap, VecDeque};

use crate::group::packets::Packets;
use crate::limits::{CHANGE_PARTS_MAX, DATAGRAM_SIZES, HEADER_ROOM_BYTES};
use crate::types::{Dest, ReplicaId};
use crate::wire::change::ChangeFrame;
use crate::wire::datagram::Frame;

/// Bytes of a CHANGE frame before its piece.
const PIECE_HEADER_BYTES: usize = 1 + 4 + 2 + 2 + 2;

/// One frame of which not all is here.
#[derive(Debug)]
struct Part {
    number: u32,
    bytes: Vec<u8>,
    /// The pieces that are here, by offset.
    here: BTreeMap<u16, u16>,
}

/// What is here in part of each peer's frames, and the number of the next own one.
#[derive(Debug, Default)]
pub struct Parts {
    next: u32,
    peers: BTreeMap<ReplicaId, VecDeque<Part>>,
}

impl Parts {
    /// Whether the next frame goes in datagrams of the smallest size: a quarter do, in an order that keeps step with
    /// no repetition (the fraction of multiples of the golden ratio).
    fn goes_small(&self) -> bool {
        self.next.wrapping_add(1).wrapping_mul(0x9e37_79b9) >> 30 == 3
    }

    /// Puts a frame into datagrams. What is long goes in few large ones, which heavy loss spares, or now and then in
    /// small ones, which pass wherever anything does: all of it is said again until it is answered.
    pub fn put(&mut self, packets: &mut Packets, dest: Dest, frame: &ChangeFrame) {
        let limit = DATAGRAM_SIZES[usize::from(!self.goes_small())];
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let (number, total) = (self.next, bytes.len() as u16);
        self.next = self.next.wrapping_add(1);
        let mut offset = 0;
        for piece in bytes.chunks(limit - HEADER_ROOM_BYTES - PIECE_HEADER_BYTES) {
            packets.put(dest, limit, &Frame::Change { number, total, offset, bytes: piece });
            offset += piece.len() as u16;
        }
    }

    /// Takes a piece. Gives the frame once all of it is here; bytes that are none are dropped.
    pub fn take(&mut self, from: ReplicaId, number: u32, total: u16, offset: u16, bytes: &[u8]) -> Option<ChangeFrame> {
        if bytes.len() == usize::from(total) {
            return ChangeFrame::decode(bytes).ok();
        }
        let parts = self.peers.entry(from).or_default();
        let at = parts.iter().position(|p| p.number == number && p.bytes.len() == usize::from(total));
        let at = at.unwrap_or_else(|| {
            if parts.len() == CHANGE_PARTS_MAX {
                parts.pop_front();
            }
            parts.push_back(Part { number, bytes: vec![0; usize::from(total)], here: BTreeMap::new() });
            parts.len() - 1
        });
        let part = &mut parts[at];
        let begin = usize::from(offset);
        part.bytes.get_mut(begin..begin + bytes.len())?.copy_from_slice(bytes);
        part.here.insert(offset, bytes.len() as u16);
        let reached = part
            .here
            .iter()
            .fold(0, |end, (&offset, &length)| if offset <= end { end.max(offset + length) } else { end });
        if reached < total {
            return None;
        }
        let part = parts.remove(at)?;
        ChangeFrame::decode(&part.bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, PacketNumber, Run, ViewTag};
    use crate::wire::codec::Reader;
    use crate::wire::datagram::{Header, Status};
    use crate::wire::view::tests::view_of;
    use crate::wire::view::Policy;

    const FROM: ReplicaId = ReplicaId(2);

    /// A frame with a view of so many replicas, as datagrams of at most 508 bytes.
    fn datagrams(sender: &mut Parts, replicas: u8) -> (ChangeFrame, Vec<Vec<u8>>) {
        while !sender.goes_small() {
            sender.next += 1;
        }
        sent(sender, replicas)
    }

    fn sent(sender: &mut Parts, replicas: u8) -> (ChangeFrame, Vec<Vec<u8>>) {
        let mut view = view_of(replicas, replicas, Policy::Dynamic);
        view.book.iter_mut().for_each(|entry| entry.address = format!("replica-{}.example:7400", entry.id));
        let frame = ChangeFrame::Install { view };
        let run = Run { id: FROM, ..Run::default() };
        let (status, mut packets, mut out) = (Status::default(), Packets::new(), Vec::new());
        packets.begin(&Header { cluster: ClusterId(1), run, packet: PacketNumber(0), tag: ViewTag(1), status });
        sender.put(&mut packets, Dest::one(ReplicaId(1)), &frame);
        packets.finish(&mut out);
        (frame, out.into_iter().map(|(_, bytes)| bytes).collect())
    }

    fn take(receiver: &mut Parts, datagram: &[u8]) -> Option<ChangeFrame> {
        assert!(datagram.len() <= 508);
        let mut r = Reader::new(Header::decode(datagram).expect("sealed").1);
        match Frame::decode(&mut r).expect("one frame") {
            Frame::Change { number, total, offset, bytes } => receiver.take(FROM, number, total, offset, bytes),
            frame => panic!("{frame:?}"),
        }
    }

    #[test]
    fn pieces_come_together_in_any_order_and_twice() {
        let (mut sender, mut receiver) = (Parts::default(), Parts::default());
        let (one, first) = datagrams(&mut sender, 15);
        let (two, second) = datagrams(&mut sender, 14);
        assert!(first.len() > 2);
        let mut whole = Vec::new();
        for datagram in first.iter().rev().chain(second.iter()).chain(&first) {
            whole.extend(take(&mut receiver, datagram));
        }
        assert_eq!(whole, [one.clone(), two, one], "what came again whole is whole again");
    }

    #[test]
    fn what_is_said_again_goes_in_small_and_in_large_datagrams_whatever_is_said_between() {
        for others in 0..8 {
            let mut sender = Parts::default();
            let mut sizes: Vec<usize> = Vec::new();
            for _ in 0..16 {
                sizes.push(sent(&mut sender, 15).1.iter().map(Vec::len).max().expect("some"));
                sender.next += others;
            }
            let (small, large) = (sizes.iter().min(), sizes.iter().max());
            assert!(small.is_some_and(|&size| size <= 508) && large.is_some_and(|&size| size > 508), "{sizes:?}");
        }
    }

    #[test]
    fn a_small_frame_is_one_piece_and_leaves_nothing_behind() {
        let (mut sender, mut receiver) = (Parts::default(), Parts::default());
        let (frame, datagrams) = datagrams(&mut sender, 1);
        assert_eq!(datagrams.iter().filter_map(|d| take(&mut receiver, d)).collect::<Vec<_>>(), [frame]);
        assert!(receiver.peers.is_empty());
    }

    #[test]
    fn what_never_becomes_whole_is_bounded() {
        let (mut sender, mut receiver) = (Parts::default(), Parts::default());
        for _ in 0..100 {
            let (_, datagrams) = datagrams(&mut sender, 15);
            assert_eq!(take(&mut receiver, &datagrams[1]), None);
        }
        assert_eq!(receiver.peers[&FROM].len(), CHANGE_PARTS_MAX);
        assert_eq!(receiver.take(FROM, 7, 20, 15, b"xyz"), None, "garbage, in bounds");
    }
}
