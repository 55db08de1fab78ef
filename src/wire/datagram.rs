//! Datagrams between replicas: a header that names its sender, a status block that makes every packet a report, and
//! frames. DESIGN section 3.
//!
//! ```text
//! version u8 | crc32c u32 of what follows | cluster u64 | id u8, birth u64, incarnation u64 | packet u64 | tag u64
//! flags u8 | epoch u64 | sent u64 | known u64 | durable u64 | committed u64 | buffer u32 |
//! heard u8, (id u8, run mark u64)*
//! (kind u8, fields)*
//! ```

use crate::limits::{CHANGE_FRAME_BYTES_MAX, DATAGRAM_BYTES_MAX, HEADER_ROOM_BYTES, REPLICAS_MAX};
use crate::types::{
    ClusterId, Digest, Epoch, GroupTime, Mseq, PacketNumber, Rank, ReplicaId, Run, RunMark, Slot, ViewTag,
};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::view::{put_run, run};

/// The version of the datagram format: raised with every change that an old peer would misread.
pub const VERSION: u8 = 1;
const CRC_FROM: usize = 5;
const PACKET_AT: usize = 30;
/// Bytes of a header with nobody heard.
pub const HEADER_BYTES_MIN: usize = PACKET_AT + 16 + 1 + 40 + 4 + 1;
/// Bytes of a header with everyone heard.
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES_MIN + 9 * REPLICAS_MAX;
const _: () = assert!(HEADER_ROOM_BYTES >= HEADER_BYTES_MAX, "every header must fit");
/// Bytes of a DATA frame before its payload.
pub const DATA_HEADER_BYTES: usize = 1 + 1 + 8 + 1 + 4 + 4 + 4;

const FROZEN: u8 = 1;
const LEAVING: u8 = 2;
const JOINING: u8 = 4;
const ACCEPTED: u8 = 8;

/// What every datagram reports of its sender. Positions count in the view of the datagram's tag.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Status {
    /// It has promised a change of its view.
    pub frozen: bool,
    /// It was asked to stop.
    pub leaving: bool,
    /// It has no rank, asks to join, and its log is near the end of what it hears of.
    pub joining: bool,
    /// It has accepted a view that is to follow the newest it knows.
    pub accepted: bool,
    /// The newest view it knows; 0 for none.
    pub epoch: Epoch,
    /// Highest message number it has sent.
    pub sent: Mseq,
    /// Highest slot up to which it holds every order and payload.
    pub known: Slot,
    /// Highest slot up to which its log is on its disk.
    pub durable: Slot,
    pub committed: Slot,
    /// Bytes its socket can hold.
    pub buffer_bytes: u32,
    pub heard: Heard,
}

/// Which runs the sender hears: a short list without allocation.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Heard {
    count: u8,
    list: [(ReplicaId, RunMark); REPLICAS_MAX],
}

impl Heard {
    /// Adds one; what is beyond the limit of replicas is left out.
    pub fn push(&mut self, run: Run) {
        if usize::from(self.count) < REPLICAS_MAX {
            self.list[usize::from(self.count)] = (run.id, run.mark());
            self.count += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, RunMark)> + '_ {
        self.list[..usize::from(self.count)].iter().copied()
    }

    /// Whether this very run is listed.
    pub fn lists(&self, run: Run) -> bool {
        self.iter().any(|(id, mark)| id == run.id && mark == run.mark())
    }
}

/// Who sends, in which view, and how it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    pub cluster: ClusterId,
    pub run: Run,
    pub packet: PacketNumber,
    /// The sender's installed view; 0 for none.
    pub tag: ViewTag,
    pub status: Status,
}

/// One frame. Ranks are those of the view that the header's tag names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Bytes `offset..` of message (origin, mseq), which has `total` bytes. `continues`: its last operation goes on
    /// in the next message.
    Data { origin: Rank, mseq: Mseq, continues: bool, total: u32, offset: u32, bytes: &'a [u8] },
    /// Slot `slot` covers every origin's messages up to its cut.
    Order { slot: Slot, time: GroupTime, cuts: Cuts },
    /// The asker lacks these orders. `attempt` counts the askings for one gap, from 0.
    NackOrders { first: Slot, last: Slot, attempt: u8 },
    /// The asker lacks these messages of one origin; of the first it has the bytes before `offset`.
    NackData { origin: Rank, first: Mseq, last: Mseq, offset: u32, attempt: u8 },
    /// A blank replica, and the hash of what it was configured with.
    Hello { config: u64 },
    /// Bytes `offset..` of a change frame (`wire::change`) of `total` bytes, the sender's frame with this number.
    Change { number: u32, total: u16, offset: u16, bytes: &'a [u8] },
    /// Padding up to a datagram size that is being tried.
    Probe { size: u16, padding: &'a [u8] },
    /// A probe of this size arrived, in the datagram with this number.
    Probed { size: u16, packet: PacketNumber },
    /// A reader asks: how far are you in this view?
    Ask { number: u64 },
    /// As far as this, and with rank.
    Tell { number: u64, durable: Slot },
    /// What the sender has applied up to a slot: the digest of operations, and of answers.
    Check { slot: Slot, operations: Digest, answers: u64 },
}

/// For each rank the highest message now ordered.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Cuts {
    count: u8,
    list: [Mseq; REPLICAS_MAX],
}

impl std::fmt::Debug for Cuts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|m| m.0)).finish()
    }
}

impl Cuts {
    /// All at 0. Panics beyond [`REPLICAS_MAX`].
    pub fn zero(count: usize) -> Cuts {
        assert!(count <= REPLICAS_MAX, "no view is larger");
        Cuts { count: count as u8, list: [Mseq(0); REPLICAS_MAX] }
    }

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The cut of one origin. Panics for a rank that is not there.
    pub fn of(&self, rank: Rank) -> Mseq {
        self.list[..self.len()][usize::from(rank.0)]
    }

    pub fn set(&mut self, rank: Rank, mseq: Mseq) {
        let count = self.len();
        self.list[..count][usize::from(rank.0)] = mseq;
    }

    pub fn iter(&self) -> impl Iterator<Item = Mseq> + '_ {
        self.list[..self.len()].iter().copied()
    }
}

/// The kinds' numbers, for ever; retired ones stay listed.
mod kind {
    pub const DATA: u8 = 1;
    pub const ORDER: u8 = 2;
    pub const NACK_ORDERS: u8 = 3;
    pub const NACK_DATA: u8 = 4;
    pub const HELLO: u8 = 5;
    pub const CHANGE: u8 = 6;
    pub const PROBE: u8 = 7;
    pub const PROBED: u8 = 8;
    pub const ASK: u8 = 9;
    pub const TELL: u8 = 10;
    pub const CHECK: u8 = 11;
}

impl Header {
    /// Begins a datagram. [`seal`] completes it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(VERSION);
        out.put_u32(0);
        out.put_u64(self.cluster.0);
        put_run(out, self.run);
        out.put_u64(self.packet.0);
        out.put_u64(self.tag.0);
        let s = &self.status;
        let flags = [(s.frozen, FROZEN), (s.leaving, LEAVING), (s.joining, JOINING), (s.accepted, ACCEPTED)];
        out.put_u8(flags.iter().filter(|flag| flag.0).fold(0, |all, flag| all | flag.1));
        out.put_u64(s.epoch.0);
        out.put_u64(s.sent.0);
        out.put_u64(s.known.0);
        out.put_u64(s.durable.0);
        out.put_u64(s.committed.0);
        out.put_u32(s.buffer_bytes);
        out.put_u8(s.heard.count);
        for (id, mark) in s.heard.iter() {
            out.put_u8(id.0);
            out.put_u64(mark.0);
        }
    }

    /// The header of a datagram, whose checksum is checked, and what is behind it.
    pub fn decode(datagram: &[u8]) -> Decoded<(Header, &[u8])> {
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return Err(DecodeError { field: "datagram length" });
        }
        let mut r = Reader::new(datagram);
        if r.u8("version")? != VERSION {
            return Err(DecodeError { field: "version" });
        }
        if r.u32("checksum")? != crc32c::crc32c(&datagram[CRC_FROM..]) {
            return Err(DecodeError { field: "checksum" });
        }
        let cluster = ClusterId(r.u64("cluster")?);
        let run = run(&mut r)?;
        let (packet, tag) = (PacketNumber(r.counter("packet")?), ViewTag(r.u64("tag")?));
        let flags = r.u8("flags")?;
        let mut status = Status {
            frozen: flags & FROZEN != 0,
            leaving: flags & LEAVING != 0,
            joining: flags & JOINING != 0,
            accepted: flags & ACCEPTED != 0,
            epoch: Epoch(r.counter("newest epoch")?),
            sent: Mseq(r.counter("sent")?),
            known: Slot(r.counter("known")?),
            durable: Slot(r.counter("durable")?),
            committed: Slot(r.counter("committed")?),
            buffer_bytes: r.u32("buffer")?,
            heard: Heard::default(),
        };
        let count = r.u8("heard")?;
        if usize::from(count) > REPLICAS_MAX {
            return Err(DecodeError { field: "heard" });
        }
        for _ in 0..count {
            let entry = (ReplicaId(r.u8("heard id")?), RunMark(r.u64("heard run")?));
            status.heard.list[usize::from(status.heard.count)] = entry;
            status.heard.count += 1;
        }
        Ok((Header { cluster, run, packet, tag, status }, r.rest()))
    }
}

/// Numbers a complete datagram and writes its checksum.
pub fn seal(datagram: &mut [u8], packet: PacketNumber) {
    datagram[PACKET_AT..PACKET_AT + 8].copy_from_slice(&packet.0.to_be_bytes());
    let crc = crc32c::crc32c(&datagram[CRC_FROM..]);
    datagram[1..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

impl<'a> Frame<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Data { origin, mseq, continues, total, offset, bytes } => {
                out.put_u8(kind::DATA);
                out.put_u8(origin.0);
                out.put_u64(mseq.0);
                out.put_bool(*continues);
                [*total, *offset, bytes.len() as u32].iter().for_each(|&value| out.put_u32(value));
                out.extend_from_slice(bytes);
            }
            Frame::Order { slot, time, cuts } => {
                out.put_u8(kind::ORDER);
                out.put_u64(slot.0);
                out.put_u64(time.0);
                out.put_u8(cuts.count);
                cuts.iter().for_each(|cut| out.put_u64(cut.0));
            }
            Frame::NackOrders { first, last, attempt } => {
                out.put_u8(kind::NACK_ORDERS);
                out.put_u64(first.0);
                out.put_u64(last.0);
                out.put_u8(*attempt);
            }
            Frame::NackData { origin, first, last, offset, attempt } => {
                out.put_u8(kind::NACK_DATA);
                out.put_u8(origin.0);
                out.put_u64(first.0);
                out.put_u64(last.0);
                out.put_u32(*offset);
                out.put_u8(*attempt);
            }
            Frame::Hello { config } => {
                out.put_u8(kind::HELLO);
                out.put_u64(*config);
            }
            Frame::Change { number, total, offset, bytes } => {
                out.put_u8(kind::CHANGE);
                out.put_u32(*number);
                [*total, *offset, bytes.len() as u16].iter().for_each(|&value| out.put_u16(value));
                out.extend_from_slice(bytes);
            }
            Frame::Probe { size, padding } => {
                out.put_u8(kind::PROBE);
                out.put_u16(*size);
                out.put_u16(padding.len() as u16);
                out.extend_from_slice(padding);
            }
            Frame::Probed { size, packet } => {
                out.put_u8(kind::PROBED);
                out.put_u16(*size);
                out.put_u64(packet.0);
            }
            Frame::Ask { number } => {
                out.put_u8(kind::ASK);
                out.put_u64(*number);
            }
            Frame::Tell { number, durable } => {
                out.put_u8(kind::TELL);
                out.put_u64(*number);
                out.put_u64(durable.0);
            }
            Frame::Check { slot, operations, answers } => {
                out.put_u8(kind::CHECK);
                out.put_u64(slot.0);
                out.put_u64(operations.0);
                out.put_u64(*answers);
            }
        }
    }

    /// The next frame of a datagram.
    pub fn decode(r: &mut Reader<'a>) -> Decoded<Frame<'a>> {
        Ok(match r.u8("frame kind")? {
            kind::DATA => {
                let (origin, mseq) = (Rank(r.u8("origin")?), Mseq(r.counter("mseq")?));
                let continues = r.bool("continues")?;
                let (total, offset) = (r.u32("total")?, r.u32("offset")?);
                let length = r.u32("data length")?;
                let bytes = r.take(length as usize, "data")?;
                let inside = offset.checked_add(length).is_some_and(|end| end <= total);
                if mseq.0 == 0 || length == 0 || !inside || total as usize > DATAGRAM_BYTES_MAX {
                    return Err(DecodeError { field: "data range" });
                }
                Frame::Data { origin, mseq, continues, total, offset, bytes }
            }
            kind::ORDER => {
                let (slot, time) = (Slot(r.counter("slot")?), GroupTime(r.counter("time")?));
                let count = usize::from(r.u8("cuts")?);
                if count > REPLICAS_MAX || slot.0 == 0 {
                    return Err(DecodeError { field: "cuts" });
                }
                let mut cuts = Cuts::zero(count);
                for rank in 0..count {
                    cuts.set(Rank(rank as u8), Mseq(r.counter("cut")?));
                }
                Frame::Order { slot, time, cuts }
            }
            kind::NACK_ORDERS => Frame::NackOrders {
                first: Slot(r.counter("first")?),
                last: Slot(r.counter("last")?),
                attempt: r.u8("attempt")?,
            },
            kind::NACK_DATA => Frame::NackData {
                origin: Rank(r.u8("origin")?),
                first: Mseq(r.counter("first")?),
                last: Mseq(r.counter("last")?),
                offset: r.u32("offset")?,
                attempt: r.u8("attempt")?,
            },
            kind::HELLO => Frame::Hello { config: r.u64("config")? },
            kind::CHANGE => change(r)?,
            kind::PROBE => {
                let (size, length) = (r.u16("probe size")?, r.u16("padding length")?);
                Frame::Probe { size, padding: r.take(usize::from(length), "padding")? }
            }
            kind::PROBED => {
                Frame::Probed { size: r.u16("probe size")?, packet: PacketNumber(r.counter("probe packet")?) }
            }
            kind::ASK => Frame::Ask { number: r.u64("question")? },
            kind::TELL => Frame::Tell { number: r.u64("question")?, durable: Slot(r.counter("durable")?) },
            kind::CHECK => Frame::Check {
                slot: Slot(r.counter("slot")?),
                operations: Digest(r.u64("digest")?),
                answers: r.u64("answers digest")?,
            },
            _ => return Err(DecodeError { field: "frame kind" }),
        })
    }
}

fn change<'a>(r: &mut Reader<'a>) -> Decoded<Frame<'a>> {
    let (number, total, offset) = (r.u32("change number")?, r.u16("change total")?, r.u16("offset")?);
    let length = r.u16("change length")?;
    let bytes = r.take(usize::from(length), "change")?;
    let inside = offset.checked_add(length).is_some_and(|end| end <= total);
    if length == 0 || !inside || usize::from(total) > CHANGE_FRAME_BYTES_MAX {
        return Err(DecodeError { field: "change range" });
    }
    Ok(Frame::Change { number, total, offset, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COUNTER_MAX;
    use crate::types::{Birth, Incarnation};
    use quickcheck::quickcheck;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn header() -> Header {
        let mut heard = Heard::default();
        heard.push(Run { id: ReplicaId(1), birth: Birth(0xb1), incarnation: Incarnation(0) });
        heard.push(Run { id: ReplicaId(3), birth: Birth(0xb3), incarnation: Incarnation(1) });
        Header {
            cluster: ClusterId(0xc1),
            run: Run { id: ReplicaId(2), birth: Birth(0xb2), incarnation: Incarnation(0x12) },
            packet: PacketNumber(0),
            tag: ViewTag(0x7a),
            status: Status {
                frozen: true,
                leaving: false,
                joining: false,
                accepted: false,
                epoch: Epoch(6),
                sent: Mseq(1),
                known: Slot(2),
                durable: Slot(3),
                committed: Slot(4),
                buffer_bytes: 5,
                heard,
            },
        }
    }

    fn sealed(header: &Header, frames: &[Frame<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        seal(&mut bytes, PacketNumber(0x99));
        bytes
    }

    /// The frame that these bytes are, and nothing behind it.
    fn decoded(bytes: &[u8]) -> Decoded<Frame<'_>> {
        let mut r = Reader::new(bytes);
        let frame = Frame::decode(&mut r)?;
        r.end("frame")?;
        Ok(frame)
    }

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    }

    fn cuts(list: &[u64]) -> Cuts {
        let mut cuts = Cuts::zero(list.len());
        list.iter().enumerate().for_each(|(k, &m)| cuts.set(Rank(k as u8), Mseq(m)));
        cuts
    }

    /// One frame of each kind, and its bytes.
    fn golden() -> Vec<(Frame<'static>, &'static str)> {
        vec![
            (
                Frame::Data { origin: Rank(2), mseq: Mseq(3), continues: true, total: 9, offset: 4, bytes: b"abc" },
                "0102000000000000000301000000090000000400000003616263",
            ),
            (
                Frame::Order { slot: Slot(7), time: GroupTime(8), cuts: cuts(&[1, 2]) },
                "02000000000000000700000000000000080200000000000000010000000000000002",
            ),
            (Frame::NackOrders { first: Slot(1), last: Slot(2), attempt: 3 }, "030000000000000001000000000000000203"),
            (
                Frame::NackData { origin: Rank(1), first: Mseq(2), last: Mseq(3), offset: 4, attempt: 5 },
                "0401000000000000000200000000000000030000000405",
            ),
            (Frame::Hello { config: 6 }, "050000000000000006"),
            (Frame::Change { number: 1, total: 9, offset: 4, bytes: b"abc" }, "060000000100090004 0003616263"),
            (Frame::Probe { size: 508, padding: &[0, 0] }, "0701fc00020000"),
            (Frame::Probed { size: 508, packet: PacketNumber(9) }, "0801fc0000000000000009"),
            (Frame::Ask { number: 1 }, "090000000000000001"),
            (Frame::Tell { number: 1, durable: Slot(2) }, "0a00000000000000010000000000000002"),
            (
                Frame::Check { slot: Slot(1), operations: Digest(2), answers: 3 },
                "0b000000000000000100000000000000020000000000000003",
            ),
        ]
    }

    #[test]
    fn the_frames_are_for_ever() {
        for (k, (frame, golden)) in golden().iter().enumerate() {
            let bytes = encoded(frame);
            assert_eq!(hex(&bytes), golden.replace(' ', ""), "{frame:?}");
            assert_eq!(usize::from(bytes[0]), k + 1, "every kind has a row here");
            assert_eq!(decoded(&bytes).as_ref(), Ok(frame));
        }
        assert_eq!(decoded(&[0]), Err(DecodeError { field: "frame kind" }));
        assert_eq!(decoded(&[golden().len() as u8 + 1]), Err(DecodeError { field: "frame kind" }));
    }

    #[test]
    fn the_header_is_for_ever() {
        let bytes = sealed(&header(), &[Frame::Ask { number: 1 }]);
        let golden = [
            "01 d9517857 00000000000000c1",
            "02 00000000000000b2 0000000000000012",
            "0000000000000099 000000000000007a",
            // The status: flags, epoch, sent, known, durable, committed, buffer, heard.
            "01 0000000000000006 0000000000000001 0000000000000002 0000000000000003 0000000000000004 00000005",
            "02 01 000000b100000000 03 9e37790a7f4a7c15",
            "09 0000000000000001",
        ];
        assert_eq!(hex(&bytes), golden.concat().replace(' ', ""));
        let (back, frames) = Header::decode(&bytes).expect("what was sealed");
        assert_eq!(back, Header { packet: PacketNumber(0x99), ..header() });
        assert_eq!(decoded(frames), Ok(Frame::Ask { number: 1 }));
    }

    #[test]
    fn flags_are_told_apart() {
        for flags in 0..16 {
            let [frozen, leaving, joining, accepted] = [1, 2, 4, 8].map(|bit| flags & bit != 0);
            let mut header = header();
            header.status = Status { frozen, leaving, joining, accepted, ..header.status };
            let bytes = sealed(&header, &[]);
            assert_eq!(Header::decode(&bytes).expect("what was sealed").0.status, header.status);
        }
    }

    #[test]
    fn the_longest_header_is_as_long_as_the_limit_says() {
        let mut header = header();
        (0..20).for_each(|k| header.status.heard.push(Run { id: ReplicaId(k + 10), ..Run::default() }));
        assert_eq!(header.status.heard.iter().count(), REPLICAS_MAX);
        assert_eq!(sealed(&header, &[]).len(), HEADER_BYTES_MAX);
        header.status.heard = Heard::default();
        assert_eq!(sealed(&header, &[]).len(), HEADER_BYTES_MIN);
        let data = Frame::Data { origin: Rank(0), mseq: Mseq(1), continues: false, total: 1, offset: 0, bytes: b"x" };
        assert_eq!(encoded(&data).len(), DATA_HEADER_BYTES + 1);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let bytes = sealed(&header(), &[Frame::Hello { config: 1 }]);
        for at in 0..8 * bytes.len() {
            let mut bad = bytes.clone();
            bad[at / 8] ^= 1 << (at % 8);
            assert!(Header::decode(&bad).is_err(), "bit {at}");
        }
    }

    #[test]
    fn whatever_is_cut_short_is_refused() {
        let bytes = sealed(&header(), &[]);
        for length in 0..bytes.len() {
            let mut short = bytes[..length].to_vec();
            assert!(Header::decode(&short).is_err(), "{length} bytes");
            if length >= PACKET_AT + 8 {
                // The checksum holds, and still it is too short.
                seal(&mut short, PacketNumber(1));
                assert!(Header::decode(&short).is_err(), "{length} bytes, sealed");
            }
        }
        for (frame, _) in golden() {
            let bytes = encoded(&frame);
            for length in 0..bytes.len() {
                assert!(decoded(&bytes[..length]).is_err(), "{frame:?}: {length} bytes");
            }
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let data = |mseq, total, offset, bytes: &'static [u8]| {
            encoded(&Frame::Data { origin: Rank(0), mseq: Mseq(mseq), continues: false, total, offset, bytes })
        };
        let most = DATAGRAM_BYTES_MAX as u32;
        assert!(decoded(&data(1, most, most - 3, b"abc")).is_ok());
        for bad in [
            data(0, 3, 0, b"abc"),
            data(1, 3, 1, b"abc"),
            data(1, 3, u32::MAX - 1, b"abc"),
            data(1, 3, 0, b""),
            data(1, most + 1, 0, b"abc"),
        ] {
            assert_eq!(decoded(&bad), Err(DecodeError { field: "data range" }));
        }
        let mut order = encoded(&Frame::Order { slot: Slot(1), time: GroupTime(0), cuts: cuts(&[0; REPLICAS_MAX]) });
        assert!(decoded(&order).is_ok());
        order[17] += 1;
        order.extend_from_slice(&[0; 8]);
        assert_eq!(decoded(&order), Err(DecodeError { field: "cuts" }));
        let far = |slot, cut| encoded(&Frame::Order { slot: Slot(slot), time: GroupTime(0), cuts: cuts(&[cut]) });
        assert!(decoded(&far(COUNTER_MAX, COUNTER_MAX)).is_ok());
        assert_eq!(decoded(&far(COUNTER_MAX + 1, 0)), Err(DecodeError { field: "slot" }));
        assert_eq!(decoded(&far(1, COUNTER_MAX + 1)), Err(DecodeError { field: "cut" }));
        let order = encoded(&Frame::Order { slot: Slot(0), time: GroupTime(0), cuts: cuts(&[]) });
        assert_eq!(decoded(&order), Err(DecodeError { field: "cuts" }));

        let refused = |bytes: &[u8]| Header::decode(bytes).expect_err("out of bounds").field;
        let mut many = sealed(&header(), &[]);
        many[HEADER_BYTES_MIN - 1] = REPLICAS_MAX as u8 + 1;
        many.resize(HEADER_BYTES_MIN + 9 * (REPLICAS_MAX + 1), 0);
        seal(&mut many, PacketNumber(1));
        assert_eq!(refused(&many), "heard");
        let mut long = sealed(&header(), &[]);
        long.resize(DATAGRAM_BYTES_MAX + 1, 0);
        seal(&mut long, PacketNumber(1));
        assert_eq!(refused(&long), "datagram length");
        long.truncate(DATAGRAM_BYTES_MAX);
        seal(&mut long, PacketNumber(1));
        assert!(Header::decode(&long).is_ok());
        for id in [0, crate::limits::REPLICA_ID_MAX + 1] {
            let mut header = header();
            header.run.id = ReplicaId(id);
            assert_eq!(refused(&sealed(&header, &[])), "replica id");
        }
        let mut other = sealed(&header(), &[]);
        other[0] = VERSION + 1;
        assert_eq!(refused(&other), "version");
    }

    quickcheck! {
        fn garbage_is_refused_or_read_never_a_panic(kind: u8, garbage: Vec<u8>) -> bool {
            let framed = [&[kind % 13], &garbage[..]].concat();
            for bytes in [&framed, &garbage] {
                let mut r = Reader::new(bytes);
                while let Ok(frame) = Frame::decode(&mut r) {
                    // What was read has one form: it is written as it came.
                    let again = encoded(&frame);
                    assert!(bytes.windows(again.len()).any(|w| w == again));
                }
            }
            let mut datagram = sealed(&header(), &[]);
            datagram.truncate(PACKET_AT + 8);
            datagram.extend_from_slice(&garbage);
            seal(&mut datagram, PacketNumber(1));
            let _ = Header::decode(&datagram);
            Header::decode(&garbage).is_err()
        }
    }
}
