//! Frames between replicas over a stream: how one brings its log up from another (DESIGN 6.3). A request is answered
//! by one or more frames, each of which makes sense by itself; a lost one is asked for again.
//!
//! ```text
//! length u32, of what follows | CRC-32C u32 of what follows | version u8 | cluster u64 |
//! run: id u8, birth u64, incarnation u64 | kind u8 | number u64 | fields
//! ```
//!
//! A stream begins with a [`Greeting`], whose first byte no client's frame has.

use crate::limits::{REPLICA_ID_MAX, SLOT_BYTES_MAX, STATE_BYTES_MAX, STREAM_FRAMES_MAX, STREAM_FRAME_BYTES_MAX};
use crate::types::{ClusterId, Digest, Epoch, GroupTime, ReplicaId, Run, Slot};
use crate::wire::codec::{varint_len, DecodeError, Decoded, Put, Reader};
use crate::wire::view::{put_run, run};

/// The version of this format: raised with every change that an old peer would misread.
pub const VERSION: u8 = 1;
/// What a stream between replicas begins with. As a client's frame length it is out of bounds.
pub const MAGIC: [u8; 4] = *b"ftqp";
/// Bytes of a length.
const LENGTH_BYTES: usize = 4;
const CRC_BYTES: usize = 4;
/// Bytes of a record before its operations' length.
const RECORD_HEADER_BYTES: usize = 32;
/// Bytes of a RECORDS frame before its records, its length not counted.
const RECORDS_HEADER_BYTES: usize = CRC_BYTES + 1 + 8 + 17 + 1 + 8 + 16;

const _: () = assert!(
    RECORDS_HEADER_BYTES + 10 + RECORD_HEADER_BYTES + 10 + SLOT_BYTES_MAX <= STREAM_FRAME_BYTES_MAX,
    "every record must fit a frame"
);

/// Who opens a stream, and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Greeting {
    pub from: ReplicaId,
    pub to: ReplicaId,
}

impl Greeting {
    /// magic, version u8, from u8, to u8.
    pub const BYTES: usize = MAGIC.len() + 3;

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.from.0);
        out.put_u8(self.to.0);
    }

    /// The greeting at the front of `bytes`; `None` if more must come.
    pub fn decode(bytes: &[u8]) -> Decoded<Option<Greeting>> {
        let common = bytes.len().min(MAGIC.len());
        if bytes[..common] != MAGIC[..common] {
            return Err(DecodeError { field: "magic" });
        }
        let Some(bytes) = bytes.get(..Greeting::BYTES) else { return Ok(None) };
        let mut r = Reader::new(&bytes[MAGIC.len()..]);
        if r.u8("version")? != VERSION {
            return Err(DecodeError { field: "version" });
        }
        let mut id = |field| match r.u8(field)? {
            id @ 1..=REPLICA_ID_MAX => Ok(ReplicaId(id)),
            _ => Err(DecodeError { field }),
        };
        Ok(Some(Greeting { from: id("from")?, to: id("to")? }))
    }
}

/// Who says a frame, and of which group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    pub cluster: ClusterId,
    pub run: Run,
}

/// One slot as it goes from log to log. What its record says beside this is each replica's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The epoch whose order this is.
    pub epoch: Epoch,
    pub slot: Slot,
    pub time: GroupTime,
    /// The running digest including this slot.
    pub digest: Digest,
    /// Bundles in delivery order.
    pub operations: &'a [u8],
}

impl Record<'_> {
    /// Bytes it takes in a frame.
    pub fn encoded_len(&self) -> usize {
        RECORD_HEADER_BYTES + varint_len(self.operations.len() as u64) + self.operations.len()
    }
}

/// Where a log ends or is compared: a slot, the epoch in which it was ordered, and the running digest there.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Position {
    pub slot: Slot,
    pub epoch: Epoch,
    pub digest: Digest,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The asker's log ends here: what follows is wanted.
    pub after: Position,
    /// The last slot wanted; 0 for all that is known to be committed.
    pub upto: Slot,
    /// The most frames to answer with.
    pub frames: u8,
    /// Of the snapshot of this slot the asker has so many bytes already; 0 and 0 for none.
    pub state: (Slot, u64),
}

/// One frame's content. `number` is the request's, chosen by the asker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    Fetch {
        number: u64,
        fetch: Fetch,
    },
    /// Consecutive records. The sender knows `committed` to be committed, and could serve up to `end`. Without
    /// records: it has no more than was asked from.
    Records {
        number: u64,
        committed: Slot,
        end: Slot,
        records: Vec<Record<'a>>,
    },
    /// The sender's history and the asker's are not one up to where the asker's ends, or it cannot tell. Up to `slot`
    /// the asker's may be a part of it: 0 where nothing is known.
    Differs {
        number: u64,
        slot: Slot,
    },
    /// Bytes `offset..` of the snapshot of `slot`, a file of `total` bytes: what was asked for lies before the
    /// sender's first record.
    State {
        number: u64,
        slot: Slot,
        total: u64,
        offset: u64,
        bytes: &'a [u8],
    },
    /// The sender cannot serve this now.
    Later {
        number: u64,
    },
}

/// The kinds' numbers, for ever; retired ones stay listed.
mod kind {
    pub const FETCH: u8 = 1;
    pub const RECORDS: u8 = 2;
    pub const DIFFERS: u8 = 3;
    pub const STATE: u8 = 4;
    pub const LATER: u8 = 5;
}

/// The first whole frame in `buffer`, its length taken off, and how many bytes it takes there with it; `None` if more
/// must come. Errors if its length is out of bounds: the stream is of no use any more.
pub fn first_frame(buffer: &[u8]) -> Decoded<Option<(&[u8], usize)>> {
    let Some(length) = buffer.get(..LENGTH_BYTES) else { return Ok(None) };
    let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    if length <= CRC_BYTES || length > STREAM_FRAME_BYTES_MAX {
        return Err(DecodeError { field: "frame length" });
    }
    Ok(buffer.get(LENGTH_BYTES..LENGTH_BYTES + length).map(|frame| (frame, LENGTH_BYTES + length)))
}

impl<'a> Frame<'a> {
    /// Appends the frame, its length first. Panics on one beyond the limits: the replica makes none of them.
    pub fn encode(&self, sender: Sender, out: &mut Vec<u8>) {
        let begin = out.len();
        out.put_u32(0);
        out.put_u32(0);
        out.put_u8(VERSION);
        out.put_u64(sender.cluster.0);
        put_run(out, sender.run);
        self.put_fields(out);
        let length = out.len() - begin - LENGTH_BYTES;
        assert!(length <= STREAM_FRAME_BYTES_MAX, "a stream's frame of {length} bytes is beyond the limit");
        out[begin..begin + LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
        let crc_at = begin + LENGTH_BYTES;
        let crc = crc32c::crc32c(&out[crc_at + CRC_BYTES..]);
        out[crc_at..crc_at + CRC_BYTES].copy_from_slice(&crc.to_be_bytes());
    }

    fn put_fields(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Fetch { number, fetch } => {
                out.put_u8(kind::FETCH);
                out.put_u64(*number);
                out.put_u64(fetch.after.slot.0);
                out.put_u64(fetch.after.epoch.0);
                out.put_u64(fetch.after.digest.0);
                out.put_u64(fetch.upto.0);
                out.put_u8(fetch.frames);
                out.put_u64(fetch.state.0 .0);
                out.put_u64(fetch.state.1);
            }
            Frame::Records { number, committed, end, records } => {
                out.put_u8(kind::RECORDS);
                out.put_u64(*number);
                out.put_u64(committed.0);
                out.put_u64(end.0);
                out.put_varint(records.len() as u64);
                for record in records {
                    out.put_u64(record.epoch.0);
                    out.put_u64(record.slot.0);
                    out.put_u64(record.time.0);
                    out.put_u64(record.digest.0);
                    out.put_bytes(record.operations);
                }
            }
            Frame::Differs { number, slot } => {
                out.put_u8(kind::DIFFERS);
                out.put_u64(*number);
                out.put_u64(slot.0);
            }
            Frame::State { number, slot, total, offset, bytes } => {
                out.put_u8(kind::STATE);
                out.put_u64(*number);
                out.put_u64(slot.0);
                out.put_u64(*total);
                out.put_u64(*offset);
                out.extend_from_slice(bytes);
            }
            Frame::Later { number } => {
                out.put_u8(kind::LATER);
                out.put_u64(*number);
            }
        }
    }

    /// Reads one frame, its length already taken off.
    pub fn decode(frame: &'a [u8]) -> Decoded<(Sender, Frame<'a>)> {
        if frame.len() > STREAM_FRAME_BYTES_MAX {
            return Err(DecodeError { field: "frame length" });
        }
        let mut r = Reader::new(frame);
        let crc = r.u32("checksum")?;
        if crc != crc32c::crc32c(&frame[CRC_BYTES..]) {
            return Err(DecodeError { field: "checksum" });
        }
        if r.u8("version")? != VERSION {
            return Err(DecodeError { field: "version" });
        }
        let sender = Sender { cluster: ClusterId(r.u64("cluster")?), run: run(&mut r)? };
        let (kind, number) = (r.u8("frame kind")?, r.u64("number")?);
        let decoded = match kind {
            kind::FETCH => Frame::Fetch { number, fetch: fetch(&mut r)? },
            kind::RECORDS => {
                let (committed, end) = (Slot(r.counter("committed")?), Slot(r.counter("end")?));
                Frame::Records { number, committed, end, records: records(&mut r)? }
            }
            kind::DIFFERS => Frame::Differs { number, slot: Slot(r.counter("slot")?) },
            kind::STATE => state(number, &mut r)?,
            kind::LATER => Frame::Later { number },
            _ => return Err(DecodeError { field: "frame kind" }),
        };
        r.end("frame")?;
        Ok((sender, decoded))
    }
}

fn fetch(r: &mut Reader<'_>) -> Decoded<Fetch> {
    let after = Position {
        slot: Slot(r.counter("after")?),
        epoch: Epoch(r.counter("epoch")?),
        digest: Digest(r.u64("digest")?),
    };
    let upto = Slot(r.counter("upto")?);
    let frames = r.u8("frames")?;
    if !(1..=STREAM_FRAMES_MAX).contains(&frames) {
        return Err(DecodeError { field: "frames" });
    }
    Ok(Fetch { after, upto, frames, state: (Slot(r.counter("state")?), r.counter("state offset")?) })
}

fn records<'a>(r: &mut Reader<'a>) -> Decoded<Vec<Record<'a>>> {
    // What is there bounds the count, before anything is allocated for it.
    let count = r.count(r.remaining() / RECORD_HEADER_BYTES, "records")?;
    let mut records: Vec<Record<'a>> = Vec::with_capacity(count);
    for _ in 0..count {
        let record = Record {
            epoch: Epoch(r.counter("record epoch")?),
            slot: Slot(r.counter("record slot")?),
            time: GroupTime(r.counter("record time")?),
            digest: Digest(r.u64("record digest")?),
            operations: r.bytes(SLOT_BYTES_MAX, "operations")?,
        };
        if record.slot.0 == 0 || records.last().is_some_and(|last| record.slot.0 != last.slot.0 + 1) {
            return Err(DecodeError { field: "record slot" });
        }
        records.push(record);
    }
    Ok(records)
}

fn state<'a>(number: u64, r: &mut Reader<'a>) -> Decoded<Frame<'a>> {
    let slot = Slot(r.counter("slot")?);
    let (total, offset) = (r.counter("total")?, r.counter("offset")?);
    let bytes = r.rest();
    let inside = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= total);
    if slot.0 == 0 || bytes.is_empty() || !inside || total > STATE_BYTES_MAX {
        return Err(DecodeError { field: "state range" });
    }
    Ok(Frame::State { number, slot, total, offset, bytes })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::limits::{COUNTER_MAX, STREAM_PIECE_BYTES};
    use crate::wire::view::tests::run_of;
    use byteorder::{BigEndian, ByteOrder};
    use quickcheck::quickcheck;

    pub(crate) fn sender(id: u8) -> Sender {
        Sender { cluster: ClusterId(0xc1), run: run_of(id) }
    }

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.encode(sender(3), &mut bytes);
        bytes
    }

    fn record(slot: u64, operations: &[u8]) -> Record<'_> {
        let (epoch, time, digest) = (Epoch(2), GroupTime(0x70 + slot), Digest(0xd0 + slot));
        Record { epoch, slot: Slot(slot), time, digest, operations }
    }

    const AFTER: Position = Position { slot: Slot(4), epoch: Epoch(2), digest: Digest(0xd4) };

    fn golden() -> Vec<(Frame<'static>, &'static str, &'static str)> {
        let fetch = Fetch { after: AFTER, upto: Slot(9), frames: 16, state: (Slot(8), 0x100) };
        let records = vec![record(5, b"ab"), record(6, b"")];
        let (slot, total, offset, bytes) = (Slot(8), 0x103, 0x100, &b"xyz"[..]);
        vec![
            (
                Frame::Fetch { number: 7, fetch },
                "00000058 50e25472",
                "01 0000000000000007 0000000000000004 0000000000000002 00000000000000d4 0000000000000009 10 \
                 0000000000000008 0000000000000100",
            ),
            (
                Frame::Records { number: 7, committed: Slot(5), end: Slot(6), records },
                "0000007c b98083d3",
                "02 0000000000000007 0000000000000005 0000000000000006 02 \
                 0000000000000002 0000000000000005 0000000000000075 00000000000000d5 02 6162 \
                 0000000000000002 0000000000000006 0000000000000076 00000000000000d6 00",
            ),
            (Frame::Differs { number: 7, slot: Slot(3) }, "0000002f ec808e07", "03 0000000000000007 0000000000000003"),
            (
                Frame::State { number: 7, slot, total, offset, bytes },
                "00000042 f17978cb",
                "04 0000000000000007 0000000000000008 0000000000000103 0000000000000100 78797a",
            ),
            (Frame::Later { number: 7 }, "00000027 f63940de", "05 0000000000000007"),
        ]
    }

    #[test]
    fn the_format_is_for_ever() {
        for (frame, front, fields) in golden() {
            let bytes = encoded(&frame);
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            let head = "01 00000000000000c1 03 00000000000000b3 0000000000000001";
            assert_eq!(hex, [front, head, fields].concat().replace(' ', ""), "{frame:?}");
            let (body, taken) = first_frame(&bytes).expect("within bounds").expect("whole");
            assert_eq!((Frame::decode(body), taken), (Ok((sender(3), frame)), bytes.len()));
        }
        let (mut bytes, greeting) = (Vec::new(), Greeting { from: ReplicaId(1), to: ReplicaId(64) });
        greeting.encode(&mut bytes);
        assert_eq!(bytes, b"ftqp\x01\x01\x40");
        assert_eq!(Greeting::decode(&bytes), Ok(Some(greeting)));
    }

    #[test]
    fn every_bit_and_every_byte_counts() {
        for (frame, ..) in golden() {
            let mut bytes = encoded(&frame);
            for end in 0..bytes.len() {
                assert_eq!(first_frame(&bytes[..end]), Ok(None), "{end} bytes of {frame:?}");
            }
            let body = &mut bytes[LENGTH_BYTES..];
            for bit in 0..body.len() * 8 {
                body[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Frame::decode(body), Err(DecodeError { field: "checksum" }), "bit {bit}");
                body[bit / 8] ^= 1 << (bit % 8);
            }
        }
        for end in 0..Greeting::BYTES {
            assert_eq!(Greeting::decode(&b"ftqp\x01\x02\x03"[..end]), Ok(None));
        }
        let refused = |bytes: &[u8]| Greeting::decode(bytes).expect_err("no greeting").field;
        assert_eq!(refused(b"ftqc"), "magic");
        assert_eq!(refused(b"x"), "magic");
        assert_eq!(refused(b"ftqp\x02\x02\x03"), "version");
        assert_eq!(refused(b"ftqp\x01\x00\x03"), "from");
        assert_eq!(refused(b"ftqp\x01\x03\x41"), "to");
    }

    /// The field at which a frame with these fields and a right checksum is refused.
    fn refused(kind_and_fields: &[u8]) -> &'static str {
        let mut body = encoded(&Frame::Later { number: 7 })[LENGTH_BYTES..].to_vec();
        body.truncate(CRC_BYTES + 1 + 8 + 17);
        body.extend_from_slice(kind_and_fields);
        resealed(&mut body);
        Frame::decode(&body).expect_err("out of bounds").field
    }

    fn resealed(body: &mut [u8]) {
        let crc = crc32c::crc32c(&body[CRC_BYTES..]);
        BigEndian::write_u32(body, crc);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let fields = |frame: &Frame<'_>, change: &dyn Fn(&mut Vec<u8>)| {
            let mut fields = encoded(frame)[LENGTH_BYTES + CRC_BYTES + 26..].to_vec();
            change(&mut fields);
            fields
        };
        let [fetch, records, _, state, later] = golden().try_into().map(|g: [_; 5]| g.map(|(f, ..)| f)).expect("five");
        let with = |frame, at: usize, value: u64| {
            refused(&fields(frame, &|f| f[at..at + 8].copy_from_slice(&value.to_be_bytes())))
        };
        for (at, field) in [(9, "after"), (17, "epoch"), (33, "upto"), (42, "state"), (50, "state offset")] {
            assert_eq!(with(&fetch, at, COUNTER_MAX + 1), field);
        }
        for frames in [0, STREAM_FRAMES_MAX + 1] {
            assert_eq!(refused(&fields(&fetch, &|f| f[41] = frames)), "frames");
        }
        assert_eq!(with(&records, 34, COUNTER_MAX + 1), "record slot");
        assert_eq!(with(&records, 34, 0), "record slot", "slots count from 1");
        assert_eq!(with(&records, 34, 9), "record slot", "not consecutive");
        assert_eq!(refused(&fields(&records, &|f| f[25] = 3)), "records", "more than there can be");
        // A count that no memory holds.
        let claims = [&fields(&records, &|f| f.truncate(25))[..], &[0xff; 9], &[1]].concat();
        assert_eq!(refused(&claims), "records");
        let long = [&fields(&records, &|f| f.truncate(58))[..], &[0xff, 0xff, 0xff, 0xff, 0x7f], &[0; 99]].concat();
        assert_eq!(refused(&long), "operations");
        // A range whose end wraps around.
        assert_eq!(with(&state, 25, u64::MAX - 1), "offset");
        assert_eq!(with(&state, 25, 0x101), "state range");
        assert_eq!(with(&state, 17, STATE_BYTES_MAX + 1), "state range");
        assert_eq!(refused(&fields(&state, &|f| f.truncate(33))), "state range", "nothing");
        assert_eq!(refused(&fields(&later, &|f| f[0] = 6)), "frame kind");
        assert_eq!(refused(&fields(&later, &|f| f.push(0))), "frame");
        for length in [0, CRC_BYTES as u32, STREAM_FRAME_BYTES_MAX as u32 + 1, u32::MAX] {
            assert!(first_frame(&length.to_be_bytes()).is_err(), "{length}");
        }
    }

    #[test]
    fn the_largest_record_and_a_full_piece_fit() {
        let operations = vec![7; SLOT_BYTES_MAX];
        let one = Record { slot: Slot(COUNTER_MAX), ..record(1, &operations) };
        let frame = Frame::Records { number: 1, committed: Slot(COUNTER_MAX), end: Slot(1), records: vec![one] };
        let bytes = encoded(&frame);
        // Not worth printing where it fails.
        assert!(Frame::decode(&bytes[LENGTH_BYTES..]) == Ok((sender(3), frame)));
        assert_eq!(bytes.len(), LENGTH_BYTES + RECORDS_HEADER_BYTES + 1 + one.encoded_len());
        let piece = vec![7; STREAM_PIECE_BYTES];
        let total = STATE_BYTES_MAX;
        let offset = total - piece.len() as u64;
        let frame = Frame::State { number: 1, slot: Slot(1), total, offset, bytes: &piece };
        assert!(Frame::decode(&encoded(&frame)[LENGTH_BYTES..]) == Ok((sender(3), frame)));
    }

    quickcheck! {
        fn any_bytes_under_a_good_checksum_are_a_frame_or_an_error(kind: u8, garbage: Vec<u8>) -> bool {
            let mut body = encoded(&Frame::Later { number: 7 })[LENGTH_BYTES..].to_vec();
            body.truncate(CRC_BYTES + 1 + 8 + 17);
            body.push(kind % 7);
            body.extend_from_slice(&garbage);
            resealed(&mut body);
            match Frame::decode(&body) {
                Ok((from, frame)) => {
                    let mut again = Vec::new();
                    frame.encode(from, &mut again);
                    again[LENGTH_BYTES..] == body
                }
                Err(e) => e.field != "checksum",
            }
        }

        fn records_come_back(first: u32, operations: Vec<Vec<u8>>, committed: u32, end: u32) -> bool {
            let slots = u64::from(first) + 1..;
            let records: Vec<_> = slots.zip(&operations).map(|(slot, bytes)| record(slot, bytes)).collect();
            let (committed, end) = (Slot(committed.into()), Slot(end.into()));
            let frame = Frame::Records { number: 1, committed, end, records };
            Frame::decode(&encoded(&frame)[LENGTH_BYTES..]) == Ok((sender(3), frame))
        }
    }
}
