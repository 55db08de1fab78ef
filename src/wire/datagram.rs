//! Datagrams between replicas: a header that names its sender, a status block that makes every packet a report, and
//! frames. DESIGN section 3.
//!
//! ```text
//! version u8 | crc32c u32 of what follows | cluster u64 | id u8, birth u64, incarnation u64 | packet u64 | tag u64
//! flags u8 | sent u64 | known u64 | durable u64 | committed u64 | buffer u32 | heard u8, (id u8, incarnation u64)*
//! (kind u8, fields)*
//! ```

use crate::group::view::{put_run, run, View};
use crate::limits::{DATAGRAM_BYTES_MAX, REPLICAS_MAX};
use crate::types::{
    ClusterId, Digest, GroupTime, Incarnation, Mseq, PacketNumber, Rank, ReplicaId, Run, Slot, ViewTag,
};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};

/// The version of the datagram format: raised with every change that an old peer would misread.
pub const VERSION: u8 = 1;
const CRC_FROM: usize = 5;
const PACKET_AT: usize = 30;
/// Bytes of a header with nobody heard.
pub const HEADER_BYTES_MIN: usize = PACKET_AT + 16 + 1 + 32 + 4 + 1;
/// Bytes of a header with everyone heard.
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES_MIN + 9 * REPLICAS_MAX;
/// Bytes of a DATA frame before its payload.
pub const DATA_HEADER_BYTES: usize = 1 + 1 + 8 + 1 + 4 + 4 + 4;

const FROZEN: u8 = 1;
const LEAVING: u8 = 2;

/// What every datagram reports of its sender. Positions count in the view of the datagram's tag.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Status {
    /// It has promised a change of its view.
    pub frozen: bool,
    /// It was asked to stop.
    pub leaving: bool,
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
    list: [(ReplicaId, Incarnation); REPLICAS_MAX],
}

impl Heard {
    /// Adds one; what is beyond the limit of replicas is left out.
    pub fn push(&mut self, id: ReplicaId, incarnation: Incarnation) {
        if usize::from(self.count) < REPLICAS_MAX {
            self.list[usize::from(self.count)] = (id, incarnation);
            self.count += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, Incarnation)> + '_ {
        self.list[..usize::from(self.count)].iter().copied()
    }

    /// Whether this very run is listed.
    pub fn lists(&self, run: Run) -> bool {
        self.iter().any(|(id, incarnation)| id == run.id && incarnation == run.incarnation)
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
    /// The view is decided.
    Install { view: View },
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
    pub const INSTALL: u8 = 6;
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
        out.put_u8(if s.frozen { FROZEN } else { 0 } | if s.leaving { LEAVING } else { 0 });
        out.put_u64(s.sent.0);
        out.put_u64(s.known.0);
        out.put_u64(s.durable.0);
        out.put_u64(s.committed.0);
        out.put_u32(s.buffer_bytes);
        out.put_u8(s.heard.count);
        for (id, incarnation) in s.heard.iter() {
            out.put_u8(id.0);
            out.put_u64(incarnation.0);
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
            status.heard.push(ReplicaId(r.u8("heard id")?), Incarnation(r.counter("heard incarnation")?));
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
                out.put_u32(*total);
                out.put_u32(*offset);
                out.put_u32(bytes.len() as u32);
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
            Frame::Install { view } => {
                out.put_u8(kind::INSTALL);
                view.encode(out);
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
            kind::INSTALL => Frame::Install { view: View::decode(r)? },
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
