//! Replays the committed corpus of every fuzz target, so that what was once found stays found. The corpus begins
//! with what the program itself says (a group of three in memory, recorded) and with nasties made by hand;
//! `FTQ_WRITE_CORPUS=1` writes these again after a format has changed.

#[path = "fuzz/bodies.rs"]
mod bodies;

use bodies::{config, host, put_entry, Driven, STREAM_CLUSTER, STREAM_NUMBER, TARGETS};
use ftq::replica::machine::{Machine, Replies};
use ftq::replica::Input;
use ftq::rng::Rng;
use ftq::types::{Birth, Digest, Epoch, GroupTime, Incarnation, Run};
use ftq::types::{ClientId, Dest, ReplicaId, RequestNumber, SessionId, Slot};
use ftq::wire::answer::Code;
use ftq::wire::bundle::Bundler;
use ftq::wire::chat::{ChatOperation, ChatQuery, MessageNumber};
use ftq::wire::client::{Admin, ToReplica, VERSION};
use ftq::wire::client_datagram::encode_request;
use ftq::wire::digest::slot_digest;
use ftq::wire::kv::{Condition, KvOperation, KvQuery, Needs};
use ftq::wire::operation::{
    Cap, Items, PushOptions, QueueOperation, QueueQuery, Receipt, SessionOperation, Target, RECEIPTS_PER_SLOT,
    WAIT_FOR_EVER_MS,
};
use ftq::wire::stock::{Availability, StockOperation, StockQuery};
use ftq::wire::stream::{Fetch, Frame, Position, Record, Sender};
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

#[test]
fn every_file_passes() {
    if std::env::var_os("FTQ_WRITE_CORPUS").is_some() {
        write_all();
    }
    for (target, body) in TARGETS {
        let entries = fs::read_dir(corpus(target)).unwrap_or_else(|e| panic!("{target}: {e}"));
        let mut paths: Vec<PathBuf> = entries.map(|e| e.expect("a readable directory").path()).collect();
        paths.sort();
        assert!(paths.len() >= 4, "{target}: a corpus of {} files", paths.len());
        for path in paths {
            // The test runner shows this where the body panics.
            println!("{}", path.display());
            body(&fs::read(&path).expect("a readable file"));
        }
    }
}

/// A few changes of every file, the same at every run; `FTQ_MUTATIONS` asks for more.
#[test]
fn mutations_pass() {
    let count = std::env::var("FTQ_MUTATIONS").map_or(50, |n| n.parse().expect("a number"));
    for (target, body) in TARGETS {
        for entry in fs::read_dir(corpus(target)).unwrap_or_else(|e| panic!("{target}: {e}")) {
            let path = entry.expect("a readable directory").path();
            let whole = fs::read(&path).expect("a readable file");
            for seed in 0..count {
                println!("{} with seed {seed}", path.display());
                body(&mutated(&whole, &mut Rng::new(seed)));
            }
        }
    }
}

fn mutated(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.between(1, 8) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.next_u64() as u8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 if at < bytes.len() => bytes[at] = *rng.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
    bytes
}

/// What the bodies must catch, they catch: the recorded group does form and serve in them.
#[test]
fn the_recorded_datagrams_are_listened_to() {
    let script = recorded_datagrams();
    let mut driven = Driven::start(config(1, 3));
    let mut r = ftq::wire::codec::Reader::new(&script);
    while let (Ok(from), Ok(length)) = (r.u8("from"), r.u16("length")) {
        let bytes = r.take(length.into(), "bytes").expect("recorded whole");
        driven.step(Input::Datagram { from: host(from), bytes });
    }
    let status = driven.replica.status();
    assert_eq!(status["epoch"], 1, "{status}");
    assert!(status["slot"]["applied"].as_u64() >= Some(3), "{status}");
}

fn write_all() {
    for (target, seeds) in [
        ("datagram", datagram_seeds()),
        ("client_frame", client_seeds()),
        ("client_datagram", client_datagram_seeds()),
        ("stream_frame", stream_seeds()),
        ("log_replay", log_seeds()),
        ("apply", apply_seeds()),
        ("http", http_seeds()),
    ] {
        fs::create_dir_all(corpus(target)).expect("the crate is writable");
        for (name, bytes) in seeds {
            fs::write(corpus(target).join(name), bytes).expect("the crate is writable");
        }
    }
}

type Seeds = Vec<(&'static str, Vec<u8>)>;

/// What replicas 2 and 3 say to replica 1 while the group forms and client operations are ordered.
fn recorded_datagrams() -> Vec<u8> {
    let mut replicas: Vec<Driven> = (1..=3).map(|id| Driven::start(config(id, 3))).collect();
    let mut script = Vec::new();
    let client = ClientId(1);
    let operations = client_frames();
    for round in 0..60_usize {
        let mut under_way: VecDeque<(u8, Dest, Vec<u8>)> = VecDeque::new();
        for (id, replica) in (1..).zip(&mut replicas) {
            // Half a heartbeat later, so that everyone speaks.
            replica.now = replica.now.after_ns(25_000_000);
            // By round 20 the group has formed; then replica 2's client says a frame in each.
            match operations.get(round.wrapping_sub(20)) {
                Some(frame) if id == 2 => replica.step(Input::Frame { client, frame: &frame[4..] }),
                _ => replica.step(Input::Turn),
            }
            take_net(replica, id, &mut under_way);
        }
        while let Some((from, to, bytes)) = under_way.pop_front() {
            for id in (1..=3).filter(|&id| id != from && to.contains(ReplicaId(id))) {
                if id == 1 {
                    put_entry(&mut script, from, &bytes);
                }
                let replica = &mut replicas[usize::from(id) - 1];
                replica.step(Input::Datagram { from: host(from), bytes: &bytes });
                take_net(replica, id, &mut under_way);
            }
        }
    }
    script
}

fn take_net(driven: &mut Driven, id: u8, under_way: &mut VecDeque<(u8, Dest, Vec<u8>)>) {
    under_way.extend(driven.out.net.drain(..).map(|(to, bytes)| (id, to, bytes)));
}

fn datagram_seeds() -> Seeds {
    let recorded = recorded_datagrams();
    let first: Vec<u8> = recorded[..recorded.len().min(600)].to_vec();
    let mut claims = Vec::new();
    put_entry(&mut claims, 2, &[0xff; 200]);
    put_entry(&mut claims, 2, &[1; 90]);
    put_entry(&mut claims, 9, &[1; 1200]);
    vec![("recorded", recorded), ("recorded_beginning", first), ("claims", claims), ("empty", Vec::new())]
}

fn operations() -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    Items::encode(&mut list, [&b"-1"[..], b"", b"\xff\0"].into_iter());
    let mut encoded = Vec::new();
    let mut add = |operation: QueueOperation<'_>| {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        encoded.push(bytes);
    };
    let items = Items::decode(&mut ftq::wire::codec::Reader::new(&list), 3).expect("just written");
    add(QueueOperation::Create { label: "jobs" });
    add(QueueOperation::Push { target: Target::Id(1), items });
    add(QueueOperation::Push { target: Target::Label("more"), items });
    add(QueueOperation::Pop { target: Target::Label("jobs"), count: 2 });
    add(QueueOperation::Purge { target: Target::Label("more") });
    add(QueueOperation::Destroy { target: Target::Id(1) });
    add(QueueOperation::Pop { target: Target::Id(1), count: 1 });
    encoded
}

fn queries() -> Vec<Vec<u8>> {
    [
        QueueQuery::Id { label: "jobs" },
        QueueQuery::Peek { target: Target::Label("jobs"), count: 9 },
        QueueQuery::Size { target: Target::Id(1) },
        QueueQuery::List { after: "" },
    ]
    .map(|query| {
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        bytes
    })
    .to_vec()
}

/// A conversation, frame by frame. The session is the one that a first opening in slot 1 gets.
fn client_frames() -> Vec<Vec<u8>> {
    let session = SessionId { slot: Slot(1), position: 0, digest: 0 };
    let mut frames = Vec::new();
    let mut add = |frame: ToReplica<'_>| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        frames.push(bytes);
    };
    add(ToReplica::Hello { version: VERSION });
    add(ToReplica::Open { token: 77 });
    add(ToReplica::Use { session, keep: false });
    for (n, operation) in operations().iter().enumerate() {
        let (number, seen) = (RequestNumber(n as u64 + 1), RequestNumber(n as u64));
        add(ToReplica::Request { number, seen, operation });
    }
    for (n, query) in queries().iter().enumerate() {
        add(ToReplica::Query { number: n as u64, stale: n % 2 == 0, query });
    }
    for (n, what) in [Admin::Status, Admin::Members, Admin::Ready].into_iter().enumerate() {
        add(ToReplica::Admin { number: n as u64, what });
    }
    let mut end = Vec::new();
    SessionOperation::End.encode(&mut end);
    add(ToReplica::Request { number: RequestNumber(99), seen: RequestNumber(98), operation: &end });
    frames
}

fn client_seeds() -> Seeds {
    let conversation = client_frames().concat();
    let mut claims = client_frames()[0].clone();
    claims.extend([0xff; 8]);
    vec![
        ("first_half", conversation[..conversation.len() / 2].to_vec()),
        ("conversation", conversation),
        ("claims_4_gib", claims),
        ("http", b"GET / HTTP/1.0\r\n\r\n".to_vec()),
        ("request_first", client_frames()[4].clone()),
        ("unknown_version", vec![0, 0, 0, 7, 1, b'f', b't', b'q', b'c', 0xff, 0xff]),
    ]
}

/// The same conversation in datagrams, with room for answers and without, and of two clients at once.
fn client_datagram_seeds() -> Seeds {
    let script = |ports: u8, room: usize| {
        let mut script = Vec::new();
        for port in 0..ports {
            for frame in client_frames() {
                let mut datagram = Vec::new();
                let session = SessionId { slot: Slot(1), position: 0, digest: 0 };
                encode_request(&mut datagram, session, port == 1, &frame, room);
                script.push(port);
                script.extend((datagram.len() as u16).to_be_bytes());
                script.extend(datagram);
            }
        }
        script
    };
    let mut cut = script(1, 0);
    cut.truncate(cut.len() / 2 + 1);
    vec![("roomy", script(1, 300)), ("narrow", script(1, 0)), ("two", script(2, 100)), ("cut", cut)]
}

/// What the follower of `bodies::stream_frame` may hear, and what a source may be asked.
fn stream_seeds() -> Seeds {
    let number = STREAM_NUMBER;
    let run = Run { id: ReplicaId(2), birth: Birth(9), incarnation: Incarnation(1) };
    let one = |frame: Frame<'_>| {
        let mut bytes = Vec::new();
        frame.encode(Sender { cluster: STREAM_CLUSTER, run }, &mut bytes);
        bytes
    };
    let (mut digest, mut records) = (Digest(0), Vec::new());
    for slot in 1..=5 {
        let (epoch, slot, time, operations) = (Epoch(1), Slot(slot), GroupTime(10 * slot), &b"operations"[..]);
        digest = slot_digest(digest, slot, time, &[operations]);
        records.push(Record { epoch, slot, time, digest, operations });
    }
    let after = Position { slot: Slot(2), epoch: Epoch(1), digest: records[1].digest };
    let fetch = Fetch { after, upto: Slot(0), frames: 16, state: (Slot(0), 0) };
    let (committed, end, slot, total) = (Slot(4), Slot(5), Slot(9), 300);
    let frames = [
        one(Frame::Records { number, committed, end, records: records[..3].to_vec() }),
        one(Frame::Records { number, committed, end, records: records[2..].to_vec() }),
        one(Frame::Fetch { number, fetch }),
        one(Frame::Fetch { number, fetch: Fetch { after: Position::default(), ..fetch } }),
        one(Frame::State { number, slot, total, offset: 0, bytes: b"a snapshot's beginning" }),
        one(Frame::State { number, slot, total, offset: 22, bytes: &[7; 278] }),
        one(Frame::Differs { number, slot: Slot(1) }),
        one(Frame::Later { number }),
    ];
    // Behind length and checksum, which the body writes again.
    let script = |frames: &[Vec<u8>]| {
        let mut script = Vec::new();
        frames.iter().for_each(|frame| put_entry(&mut script, 2, &frame[8..]));
        script
    };
    let mut claims = frames[0].clone();
    claims[54..63].fill(0xff);
    vec![
        ("conversation", script(&frames)),
        ("records", script(&frames[..2])),
        ("state", script(&frames[4..6])),
        ("claims", script(&[claims])),
        ("as_they_are", frames.concat()),
        ("greeting", b"ftqp\x01\x02\x01".to_vec()),
    ]
}

fn log_seeds() -> Seeds {
    vec![
        ("sound", Vec::new()),
        ("first_header", vec![0, 0, 3, 1]),
        ("middle", vec![1, 2, 0, 0x80]),
        ("end_cut", vec![3, 4, 0, 0]),
        ("all_segments", vec![0, 1, 0, 0, 1, 1, 0, 0, 2, 1, 0, 0]),
        ("magic", b"ftqRftqRftqRftqR".repeat(30)),
    ]
}

/// An item's whole life, one operation in each slot from slot 2 on, under numbers from 1; and its codes.
fn life() -> Vec<(Vec<u8>, Code)> {
    let mut list = Vec::new();
    Items::encode(&mut list, [&b"a"[..], b"b"].into_iter());
    let items = Items::decode(&mut ftq::wire::codec::Reader::new(&list), 2).expect("just written");
    let target = Target::Label("life");
    // The take is in slot 4.
    let receipt = |k| Receipt(4 * RECEIPTS_PER_SLOT + k);
    let keyed = PushOptions { delay_ms: 20, priority: -1, key: Some(b"key") };
    let limit = |items| QueueOperation::Limit { target, items: Cap::At(items), bytes: Cap::Lift };
    let take = |wait_ms| QueueOperation::Take { target, count: 2, lease_ms: 1000, wait_ms };
    let life = [
        (limit(4), Code::Ok),
        (QueueOperation::Push { target, items }, Code::Ok),
        (take(0), Code::Ok),
        (QueueOperation::PushWith { target, options: keyed, items }, Code::Ok),
        (QueueOperation::Push { target, items }, Code::Full),
        (QueueOperation::Nack { receipt: receipt(0), delay_ms: 5 }, Code::Ok),
        (QueueOperation::Bury { receipt: receipt(1) }, Code::Ok),
        (QueueOperation::Extend { receipt: receipt(1), lease_ms: 9 }, Code::NoReceipt),
        (QueueOperation::Kick { target, count: 9 }, Code::Ok),
        (QueueOperation::PopWait { target, count: 9, wait_ms: 9 }, Code::Ok),
        (QueueOperation::PopWait { target, count: 9, wait_ms: 60 }, Code::Empty),
        (QueueOperation::Take { target, count: 1, lease_ms: 1, wait_ms: WAIT_FOR_EVER_MS }, Code::Ok),
        (QueueOperation::PushWith { target, options: keyed, items }, Code::Ok),
        (QueueOperation::Push { target, items }, Code::Ok),
        (QueueOperation::Ack { receipt: Receipt(15 * RECEIPTS_PER_SLOT) }, Code::NoReceipt),
    ];
    let encoded = |operation: &QueueOperation<'_>| {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        bytes
    };
    life.iter().map(|(operation, code)| (encoded(operation), *code)).collect()
}

/// What the corpus says of an item's life happens, so that mutations of it begin in the thick of it.
#[test]
fn the_life_is_lived() {
    let (mut machine, mut replies) = (Machine::new(), Replies::default());
    let mut bundler = Bundler::default();
    bundler.push(SessionId::NONE, RequestNumber(1), RequestNumber(0), &[0, 1]);
    machine.apply(Slot(1), GroupTime(0), &bundler.take(), &mut replies);
    let session = SessionId { slot: Slot(1), position: 0, digest: 0 };
    for (n, (operation, _)) in (1..).zip(life()) {
        // What was answered is seen, so that a refusal holds nothing up; from 11 on answers come late.
        bundler.push(session, RequestNumber(n), RequestNumber(10.min(n - 1)), &operation);
        machine.apply(Slot(n + 1), GroupTime(n * 30_000_000), &bundler.take(), &mut replies);
    }
    let mut codes: Vec<(u64, u8)> = replies.iter().skip(1).map(|reply| (reply.number.0, reply.answer[0])).collect();
    codes.sort();
    let expected: Vec<(u64, u8)> = (1..).zip(life()).map(|(n, (_, code))| (n, code as u8)).collect();
    assert_eq!(codes, expected);
}

/// What two sessions say to each other; queries among it.
fn chatting() -> Vec<(u8, Vec<u8>)> {
    let wait = ChatOperation::Receive { queued: false, wait_ms: 1000 };
    let told = [
        (0, ChatOperation::Create { name: "alice" }),
        (1, ChatOperation::Create { name: "bob" }),
        (0, wait),
        (1, ChatOperation::Send { to: "alice", text: "one \u{e9}" }),
        (0, ChatOperation::Logout),
        (1, ChatOperation::Send { to: "alice", text: "two" }),
        (0, ChatOperation::Login { name: "alice" }),
        (1, wait),
        (0, ChatOperation::Receive { queued: true, wait_ms: 0 }),
        (1, ChatOperation::Send { to: "alice", text: "three" }),
        (0, ChatOperation::Confirm { upto: MessageNumber(2) }),
        (1, ChatOperation::Delete),
        (0, ChatOperation::Send { to: "bob", text: "" }),
    ];
    let mut chatting: Vec<(u8, Vec<u8>)> = Vec::new();
    for (session, operation) in told {
        chatting.push((session, Vec::new()));
        operation.encode(&mut chatting.last_mut().expect("just pushed").1);
    }
    for pattern in ["", "a|b", "(", ".*e$"] {
        chatting.push((0, Vec::new()));
        ChatQuery::Accounts { pattern, after: "" }.encode(&mut chatting.last_mut().expect("just pushed").1);
    }
    chatting
}

fn stocktaking() -> Vec<Vec<u8>> {
    let (mut list, name) = (Vec::new(), "Site, \"A\"");
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        list.push(Vec::new());
        write(list.last_mut().expect("just pushed"));
    };
    add(&|out| StockOperation::New { name, zip: "02138" }.encode(out));
    add(&|out| StockOperation::Set { name, to: Availability::Count(3) }.encode(out));
    add(&|out| StockOperation::Change { name, by: -2 }.encode(out));
    add(&|out| StockOperation::Change { name, by: i64::MIN }.encode(out));
    add(&|out| StockOperation::Set { name, to: Availability::Flag(true) }.encode(out));
    add(&|out| StockQuery::List { after: "" }.encode(out));
    add(&|out| StockQuery::View { name }.encode(out));
    add(&|out| StockQuery::History { name, from: 1 }.encode(out));
    add(&|out| StockOperation::Delete { name }.encode(out));
    list
}

fn apply_seeds() -> Seeds {
    let mut orderly = Vec::new();
    put_entry(&mut orderly, 1, &[]);
    for (n, operation) in operations().iter().enumerate() {
        put_entry(&mut orderly, (n as u8) << 2 | 2, operation);
    }
    // The same numbers again: nothing is executed twice.
    for (n, operation) in operations().iter().enumerate() {
        put_entry(&mut orderly, (n as u8) << 2 | 2, operation);
    }
    queries().iter().for_each(|query| put_entry(&mut orderly, 0, query));
    let mut strange = Vec::new();
    for bytes in [&[0xff; 300][..], &[0; 300], &[1; 44]] {
        put_entry(&mut strange, 0, bytes);
    }
    let mut many = Vec::new();
    for kind in [1, 5, 9, 13] {
        put_entry(&mut many, kind, &[]);
    }
    for session in 0..4u8 {
        operations().iter().for_each(|operation| put_entry(&mut many, session << 6 | 6, operation));
        put_entry(&mut many, session << 6 | 62, &[0, 2]);
    }
    let mut lived = Vec::new();
    put_entry(&mut lived, 1, &[]);
    life().iter().enumerate().for_each(|(n, (operation, _))| put_entry(&mut lived, (n as u8) << 2 | 2, operation));
    let mut keys = Vec::new();
    put_entry(&mut keys, 1, &[]);
    for (n, operation) in key_operations().iter().enumerate() {
        put_entry(&mut keys, (n as u8) << 2 | 2, operation);
    }
    let (mut chat, mut stock) = (Vec::new(), Vec::new());
    [1, 5].iter().for_each(|&kind| put_entry(&mut chat, kind, &[]));
    put_entry(&mut stock, 1, &[]);
    for (n, (session, operation)) in chatting().iter().enumerate() {
        put_entry(&mut chat, session << 6 | ((n as u8 / 2) & 15) << 2 | 2, operation);
    }
    stocktaking().iter().enumerate().for_each(|(n, bytes)| put_entry(&mut stock, (n as u8 & 15) << 2 | 2, bytes));
    let mut state = ftq::replica::machine::Machine::new().snapshot();
    state[0] ^= 0;
    vec![
        ("orderly", orderly),
        ("strange", strange),
        ("four_sessions", many),
        ("a_life", lived),
        ("keys", keys),
        ("a_snapshot", state),
        ("a_chat", chat),
        ("a_stock", stock),
    ]
}

/// Writes of the key-value store, each with its conditions, and its queries.
fn key_operations() -> Vec<Vec<u8>> {
    let (address, key, value) = ("h1:80", "k", "{\"a\":[1.50,null]}");
    let needs = || Needs([(address.to_owned(), 1)].into());
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add = |operation: KvOperation<'_>| {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        all.push(bytes);
    };
    add(KvOperation::Announce { replica: ReplicaId(1), address });
    add(KvOperation::Put { address, needs: Needs::default(), condition: Condition::Absent, key, value });
    for condition in [Condition::Any, Condition::Present, Condition::Version(3), Condition::Absent] {
        add(KvOperation::Put { address, needs: needs(), condition, key, value });
    }
    add(KvOperation::Remove { address });
    add(KvOperation::Put { address, needs: needs(), condition: Condition::Any, key, value });
    add(KvOperation::Admit { address });
    add(KvOperation::Delete { address, needs: needs(), condition: Condition::Any, key });
    for query in [KvQuery::Get { key }, KvQuery::List { prefix: "", after: "a", count: 9 }, KvQuery::Clock] {
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        all.push(bytes);
    }
    all
}

/// What HTTP clients send: sound, in chunks, several at once, and neither.
fn http_seeds() -> Seeds {
    let put = "PUT /kvs/a%20b HTTP/1.1\r\nHost: h\r\nIf-Match: \"7\"\r\nContent-Length: 47\r\n\r\n\
               {\"value\":[1,{}],\"causal-metadata\":{\"h1:80\":12}}";
    let chunked = "PUT /view HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n\
                   5;x=y\r\n{\"soc\r\n15\r\nket-address\":\"h1:80\"}\r\n0\r\nT: v\r\n\r\n";
    let list = "GET http://h/kvs?prefix=%2f&after=a+b&limit=7&consistency=linearizable HTTP/1.1\r\nHost: h\r\n\
                Prefer: respond-async, wait=3\r\nConnection: close\r\n\r\n";
    let smuggled = "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    vec![
        ("put", put.into()),
        ("pipelined", format!("{chunked}{put}{list}").into()),
        ("smuggled", smuggled.into()),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n".to_vec()),
    ]
}
