//! What each fuzz target does with its bytes. Plain functions: cargo-fuzz calls them through `fuzz_targets`, and the
//! ordinary test `corpus` calls them with every committed file. They panic where something is wrong.

use ftq::limits::{HTTP_BODY_BYTES_MAX, HTTP_HEAD_BYTES_MAX, SEGMENT_BYTES};
use ftq::log::{replay, LogWrite, Record, SegmentNumber, Writer};
use ftq::reactor::guests::Guests;
use ftq::reactor::http::parse::{Parsed, Parser};
use ftq::reactor::http::route::route;
use ftq::replica::follow::{Follow, Got};
use ftq::replica::machine::{Machine, Replies};
use ftq::replica::{Config, Input, Outbox, ReadRequest, Replica, Stored};
use ftq::types::{Birth, ClusterId, Incarnation, Run};
use ftq::types::{ClientId, Digest, Epoch, GroupTime, PacketNumber, ReplicaId, RequestNumber, SessionId, Slot, Time};
use ftq::wire::bundle::Bundler;
use ftq::wire::client::{first_frame, ToClient, ToReplica, VERSION};
use ftq::wire::client_datagram::decode_answer;
use ftq::wire::codec::{Put, Reader};
use ftq::wire::datagram::{seal, Frame, Header};
use ftq::wire::digest::slot_digest;
use ftq::wire::stream::{self, Greeting, Position, Sender};
use ftq::wire::view::{BookEntry, Durability, Peer, Policy};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What a target does with its bytes.
pub type Body = fn(&[u8]);

/// The targets and their names.
pub const TARGETS: [(&str, Body); 7] = [
    ("datagram", datagram),
    ("client_frame", client_frame),
    ("client_datagram", client_datagram),
    ("stream_frame", stream_frame),
    ("log_replay", log_replay),
    ("apply", apply),
    ("http", http),
];

pub fn host(id: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, id))
}

/// Replica `id` of `count`, the same at every call.
pub fn config(id: u8, count: u8) -> Config {
    let ids = || (1..=count).map(ReplicaId);
    Config {
        id: ReplicaId(id),
        book: ids().map(|id| BookEntry { id, address: format!("{}:7400", host(id.0)), http: None }).collect(),
        peers: ids().map(|id| Peer { id, ip: host(id.0) }).collect(),
        policy: Policy::Dynamic,
        min_members: 1,
        durability: Durability::Disk,
        heartbeat_ms: 50,
        suspect_after_ms: 500,
        receive_buffer_bytes: 1 << 20,
        memory_limit_bytes: 64 << 20,
        segment_bytes: SEGMENT_BYTES,
        datagram_size_max: 2,
        directory: [1, 1],
        seed: u64::from(id),
    }
}

/// A replica whose disk is never late.
pub struct Driven {
    pub replica: Replica,
    pub now: Time,
    /// What the last event made it do.
    pub out: Outbox,
}

impl Driven {
    pub fn start(config: Config) -> Driven {
        let (now, mut out) = (Time(Time::MS), Outbox::default());
        let replica = Replica::recover(config, Stored::default(), now, &mut out);
        let mut driven = Driven { replica, now, out };
        driven.settle();
        driven
    }

    /// One event, a turn, and every write durable.
    pub fn step(&mut self, input: Input<'_>) {
        self.now = self.now.after_ns(100_000);
        self.out = Outbox::default();
        self.replica.step(self.now, input, &mut self.out);
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            self.replica.step(self.now, Input::Turn, &mut self.out);
            let log = self.out.log.drain(..).map(|write| write.number);
            let Some(number) = log.chain(self.out.meta.drain(..).map(|write| write.number)).max() else { break };
            self.replica.step(self.now, Input::Durable(number), &mut self.out);
        }
    }
}

/// Datagrams as a script of (sender u8, length u16, bytes): each is numbered and given its checksum, so that what
/// was mutated is still looked at, and goes to replica 1 of 3 in its first moments.
pub fn datagram(script: &[u8]) {
    datagram_as_it_is(script);
    let mut driven = Driven::start(config(1, 3));
    let mut r = Reader::new(script);
    let mut packet = 0;
    while let (Ok(from), Ok(length)) = (r.u8("from"), r.u16("length")) {
        let mut bytes =
            r.take(usize::from(length).min(r.remaining()), "bytes").expect("no more than there is").to_vec();
        if bytes.len() > 46 {
            packet += 1;
            seal(&mut bytes, PacketNumber(packet));
        }
        datagram_as_it_is(&bytes);
        driven.step(Input::Datagram { from: host(from), bytes: &bytes });
        assert!(driven.out.stop.is_none(), "no datagram stops a replica: {:?}", driven.out.stop);
    }
}

/// Whatever is read is what would be written.
fn datagram_as_it_is(bytes: &[u8]) {
    let Ok((header, frames)) = Header::decode(bytes) else { return };
    let mut r = Reader::new(frames);
    while !r.is_empty() {
        let Ok(frame) = Frame::decode(&mut r) else { break };
        let mut again = Vec::new();
        frame.encode(&mut again);
        assert_eq!(Frame::decode(&mut Reader::new(&again)), Ok(frame));
    }
    let mut again = Vec::new();
    header.encode(&mut again);
    seal(&mut again, header.packet);
    assert_eq!(Header::decode(&again).map(|(again, _)| again), Ok(header));
}

/// A client's stream, cut into frames as the replica would, against a group of one.
pub fn client_frame(mut stream: &[u8]) {
    let mut driven = Driven::start(config(1, 1));
    let client = ClientId(1);
    while let Ok(Some((frame, length))) = first_frame(stream) {
        if let Ok(decoded) = ToReplica::decode(frame) {
            let mut again = Vec::new();
            decoded.encode(&mut again);
            assert_eq!(&again[4..], frame, "one value has one form");
        }
        let _ = ToClient::decode(frame);
        driven.step(Input::Frame { client, frame });
        assert!(driven.out.stop.is_none(), "no client stops a replica: {:?}", driven.out.stop);
        for (_, bytes) in &driven.out.clients {
            let mut answers = &bytes[..];
            while let Some((answer, length)) = first_frame(answers).expect("an answer is framed") {
                ToClient::decode(answer).expect("an answer is sound");
                answers = &answers[length..];
            }
            assert!(answers.is_empty(), "an answer is whole");
        }
        if driven.out.hang_up.contains(&client) {
            return;
        }
        stream = &stream[length..];
    }
}

/// Datagrams of clients as a script of (port u8, length u16, bytes), through their table to a group of one: what is
/// answered is never more, in number and bytes, than what came.
pub fn client_datagram(script: &[u8]) {
    let (mut driven, mut guests) = (Driven::start(config(1, 1)), Guests::new(false));
    let (mut came, mut went) = ((0, 0), (0, 0));
    let mut r = Reader::new(script);
    while let (Ok(port), Ok(length)) = (r.u8("port"), r.u16("length")) {
        let bytes = r.take(usize::from(length).min(r.remaining()), "bytes").expect("no more than there is");
        let from = SocketAddr::from(([127, 0, 0, 1], u16::from(port % 4)));
        let mut handed = Vec::new();
        guests.on_datagram(driven.now, from, bytes, true, |input| match input {
            Input::Frame { client, frame } => handed.push((client, frame.to_vec())),
            other => panic!("guests hand over {other:?}"),
        });
        for (client, frame) in handed {
            driven.step(Input::Frame { client, frame: &frame });
            assert!(driven.out.stop.is_none(), "no client stops a replica: {:?}", driven.out.stop);
            driven.out.clients.iter().for_each(|(client, bytes)| guests.queue(*client, bytes));
            driven.out.hang_up.iter().for_each(|client| guests.hang_up(*client));
        }
        for client in guests.take_gone() {
            driven.step(Input::Gone { client });
        }
        came = (came.0 + 1, came.1 + bytes.len());
        for (_, answer) in guests.take_answers() {
            let (_, frame) = decode_answer(&answer).expect("an answer is sound");
            ToClient::decode(&frame[4..]).expect("and so is its frame");
            went = (went.0 + 1, went.1 + answer.len());
        }
        assert!(went.0 <= came.0 && went.1 <= came.1, "{went:?} for {came:?}");
    }
}

/// A log of a few slots in small segments, as the writer leaves it.
fn written() -> (Vec<Record>, Vec<Vec<u8>>) {
    let (mut writer, mut writes) = (Writer::new(None, 2048), Vec::<LogWrite>::new());
    let mut records = Vec::new();
    for slot in 1..=12u64 {
        let record = Record {
            epoch: Epoch(1),
            slot: Slot(slot),
            time: GroupTime(slot * 10),
            digest: Digest(slot * 7),
            committed: Slot(slot.saturating_sub(2)),
            synced: Slot(slot.saturating_sub(1)),
            durable_known: Slot(slot.saturating_sub(1)),
            vector: vec![(ReplicaId(1), Slot(slot - 1))],
            mark: false,
        };
        let operations = vec![slot as u8; (slot as usize * 37) % 300];
        writer.append(ftq::types::WriteNumber(slot), &record, &[&operations], &mut writes);
        records.push(record);
    }
    let last = writes.iter().map(|w| w.segment.0).max().expect("something was written") as usize;
    let mut segments = vec![vec![0; 2048]; last];
    for write in writes {
        let at = write.offset as usize;
        segments[write.segment.0 as usize - 1][at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    (records, segments)
}

/// What a replica says over a stream, as a script of (sender u8, length u16, bytes): each gets its checksum, so that
/// what was mutated is still looked at. They go to replica 1, which has begun to follow 2, and to a group of one, which
/// serves. And the bytes themselves, as a stream.
pub fn stream_frame(script: &[u8]) {
    let mut stream = script;
    let _ = Greeting::decode(stream);
    while let Ok(Some((frame, length))) = stream::first_frame(stream) {
        stream_frame_as_it_is(frame);
        stream = &stream[length..];
    }
    let (mut alone, client) = (Driven::start(config(1, 1)), ClientId(1));
    for said in [ToReplica::Hello { version: VERSION }, ToReplica::Open { token: 7 }] {
        let mut bytes = Vec::new();
        said.encode(&mut bytes);
        alone.step(Input::Frame { client, frame: &bytes[4..] });
    }
    let cluster = alone.replica.group().regular().expect("a group of one").view.cluster;
    let run = Run { id: ReplicaId(1), birth: Birth(1), incarnation: Incarnation(1) };
    let (now, end, mut out) = (Time(Time::MS), Position::default(), Vec::new());
    let mut follow = Follow::new(run);
    follow.want(now, end, None, &[ReplicaId(2)]);
    follow.tick(now, Sender { cluster: STREAM_CLUSTER, run }, &mut out);
    let mut r = Reader::new(script);
    while let (Ok(from), Ok(length)) = (r.u8("from"), r.u16("length")) {
        let bytes = r.take(usize::from(length).min(r.remaining()), "bytes").expect("no more than there is");
        let frame = [&crc32c::crc32c(bytes).to_be_bytes()[..], bytes].concat();
        stream_frame_as_it_is(&frame);
        if let Ok((_, frame)) = stream::Frame::decode(&frame) {
            follow.on_frame(now, STREAM_CLUSTER, None, ReplicaId(from), &frame);
            // As one of its own group says it.
            let mut own = Vec::new();
            frame.encode(Sender { cluster, run: Run { id: ReplicaId(from), ..run } }, &mut own);
            alone.step(Input::Stream { from: ReplicaId(from), frame: &own[4..] });
        }
        alone.step(Input::Stream { from: ReplicaId(from), frame: &frame });
        for ReadRequest { token, .. } in std::mem::take(&mut alone.out.reads) {
            alone.step(Input::Read { token, bytes });
        }
        assert!(alone.out.stop.is_none(), "no frame stops a replica: {:?}", alone.out.stop);
    }
    // Whatever came, it is a history.
    let mut at = end;
    while let Some(got) = follow.take() {
        let Got::Records(records) = got else { continue };
        for r in records {
            assert_eq!((r.slot, r.digest), (at.slot.next(), slot_digest(at.digest, r.slot, r.time, &[&r.operations])));
            at = Position { slot: r.slot, epoch: r.epoch, digest: r.digest };
        }
    }
}

/// The group of which the corpus speaks, and the number under which its follower asks first.
pub const STREAM_CLUSTER: ClusterId = ClusterId(0xc1);
pub const STREAM_NUMBER: u64 = 1 + (1 << 32);

/// Whatever is read is what would be written.
fn stream_frame_as_it_is(frame: &[u8]) {
    let Ok((sender, decoded)) = stream::Frame::decode(frame) else { return };
    let mut again = Vec::new();
    decoded.encode(sender, &mut again);
    assert_eq!(&again[4..], frame, "one value has one form");
}

/// A sound log and a script of damages (segment u8, offset u16, xor u8): what is found is the beginning of what was
/// written, whatever happened to the rest. And the bytes themselves, as a segment.
pub fn log_replay(script: &[u8]) {
    replay(&[(SegmentNumber(1), script)]);
    let (records, mut segments) = written();
    let mut r = Reader::new(script);
    while let (Ok(segment), Ok(offset), Ok(xor)) = (r.u8("segment"), r.u16("offset"), r.u8("xor")) {
        let segment = usize::from(segment) % segments.len();
        let length = segments[segment].len();
        if length == 0 {
            continue;
        }
        match xor {
            // A file that ends early.
            0 => segments[segment].truncate(usize::from(offset) % length),
            xor => segments[segment][usize::from(offset) % length] ^= xor,
        }
    }
    let named: Vec<(SegmentNumber, &[u8])> =
        segments.iter().enumerate().map(|(n, bytes)| (SegmentNumber(n as u64 + 1), &bytes[..])).collect();
    let found = replay(&named);
    for (index, view) in found.records.iter().enumerate() {
        assert_eq!(view.record, records[index], "a record that was never written");
    }
    assert!(
        found.records.len() == records.len() || found.torn.is_some() || found.damaged.is_some() || script.len() >= 4
    );
}

/// Slots as a script of (kind u8, length u16, bytes). Two machines apply them, one of them by way of its snapshot,
/// and must have equal states. `kind` says what the bytes are: a slot's operations as they come, or one operation
/// for one of four sessions, under a number that may repeat.
pub fn apply(script: &[u8]) {
    let (mut one, mut other, mut replies) = (Machine::new(), Machine::new(), [Replies::default(), Replies::default()]);
    let mut sessions: Vec<SessionId> = Vec::new();
    let mut time = 0;
    let mut r = Reader::new(script);
    while let (Ok(kind), Ok(length)) = (r.u8("kind"), r.u16("length")) {
        let bytes = r.take(usize::from(length).min(r.remaining()), "bytes").expect("no more than there is");
        let mut bundler = Bundler::default();
        let operations = match (kind % 4, sessions.get(usize::from(kind >> 6))) {
            (0, _) => bytes.to_vec(),
            (1, _) => {
                bundler.push(SessionId::NONE, RequestNumber(u64::from(kind)), RequestNumber(0), &[0, 1]);
                bundler.take()
            }
            (_, None) => Vec::new(),
            (_, Some(&session)) => {
                let number = RequestNumber(u64::from(kind >> 2 & 15) + 1);
                bundler.push(session, number, RequestNumber(number.0 / 2), bytes);
                bundler.take()
            }
        };
        time += u64::from(kind) << 20;
        let slot = one.applied().next();
        one.apply(slot, GroupTime(time), &operations, &mut replies[0]);
        other.apply(slot, GroupTime(time), &operations, &mut replies[1]);
        for reply in replies[0].iter().filter(|reply| reply.session.is_none() && reply.answer.first() == Some(&0)) {
            let mut r = Reader::new(&reply.answer[1..]);
            sessions.extend(ftq::wire::bundle::session(&mut r));
        }
        replies.iter_mut().for_each(Replies::clear);
        let snapshot = one.snapshot();
        assert_eq!(snapshot, other.snapshot(), "equal histories, equal states");
        other = Machine::restore(&snapshot).expect("what a machine wrote, a machine reads");
        let mut answer = Vec::new();
        one.query(bytes, &mut answer);
        assert!(!answer.is_empty(), "every query is answered");
    }
    assert_eq!((one.digest(), one.answers_digest()), (other.digest(), other.answers_digest()));
    if let Ok(mut restored) = Machine::restore(script) {
        let next = restored.applied().next();
        restored.apply(next, GroupTime(0), &[], &mut replies[0]);
    }
}

/// What HTTP clients send, whole and byte by byte: both are read alike, and whatever is read is answered or asks for
/// something.
pub fn http(stream: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut parser, mut requests) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.feed(piece);
            loop {
                match parser.next_request() {
                    Ok(Parsed::Whole(request)) => requests.push(request),
                    Ok(Parsed::Expects) => {}
                    Ok(Parsed::More) => break,
                    Err(unreadable) => {
                        assert!((400..600).contains(&unreadable.status));
                        return (requests, true);
                    }
                }
            }
            assert!(parser.bytes() <= HTTP_BODY_BYTES_MAX + 2 * HTTP_HEAD_BYTES_MAX + stream.len());
        }
        (requests, false)
    };
    let whole = read(&mut std::iter::once(stream));
    assert_eq!(whole, read(&mut stream.chunks(1)));
    for request in whole.0 {
        if let Err(response) = route(request, 50) {
            assert!((400..500).contains(&response.status), "{response:?}");
        }
    }
}

/// One entry of a script for [`datagram`] or [`apply`].
pub fn put_entry(script: &mut Vec<u8>, first: u8, bytes: &[u8]) {
    script.put_u8(first);
    script.put_u16(bytes.len() as u16);
    script.extend_from_slice(bytes);
}
