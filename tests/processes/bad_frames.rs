//! Bytes that no ftq program sends: garbage, truncated frames, lengths that lie, other versions, other clusters.
//! They are counted and dropped, or refused and hung up on; the group goes on as if they had never come.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::time::Duration;

use ftq::limits::{CLIENT_FRAME_BYTES_MAX, DATAGRAM_BYTES_MAX, OPERATION_BYTES_MAX};
use ftq::rng::Rng;
use ftq::types::{
    Birth, ClusterId, Incarnation, PacketNumber, ReplicaId, RequestNumber, Run, SessionId, Slot, ViewTag,
};
use ftq::wire::answer::Code;
use ftq::wire::client::{first_frame, kind, ToClient, ToReplica, VERSION};
use ftq::wire::datagram::{seal, Frame, Header, Status};

use crate::group::Group;
use crate::net::Net;

/// Says this on a fresh connection, closes our half, and reads until the replica closes its own.
fn say(group: &Group, bytes: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(group.net.address(1)).expect("a replica listens");
    say_on(stream, bytes)
}

fn say_on(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket can have one");
    // It may hang up before it has read everything, and then what it said before may be lost on the way.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => answer,
        Err(e) => panic!("the replica must answer or hang up: {e}"),
    }
}

/// Says HELLO and waits for WELCOME.
pub fn welcomed(group: &Group) -> TcpStream {
    let mut stream = TcpStream::connect(group.net.address(1)).expect("a replica listens");
    stream.write_all(&encoded(&[HELLO])).expect("a replica listens");
    let mut welcome = [0; 4 + 12];
    stream.read_exact(&mut welcome).expect("a replica answers");
    assert!(matches!(frames(&welcome)[..], [ToClient::Welcome { version: VERSION, .. }]));
    stream
}

fn frames(mut bytes: &[u8]) -> Vec<ToClient<'_>> {
    let mut frames = Vec::new();
    while let Some((frame, length)) = first_frame(bytes).expect("a replica's frames are sound") {
        frames.push(ToClient::decode(frame).expect("a replica's frames are sound"));
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty(), "no half frames");
    frames
}

pub fn encoded(frames: &[ToReplica<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|f| f.encode(&mut bytes));
    bytes
}

pub const HELLO: ToReplica<'_> = ToReplica::Hello { version: VERSION };
const OPEN: ToReplica<'_> = ToReplica::Open { token: 5 };

/// A frame of these bytes behind its right length.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

#[track_caller]
fn still_serves(group: &mut Group) {
    group.ask(1, &["push", "alive", "yes"], "").is(0, "");
    group.ask(group.size, &["pop", "alive"], "").is(0, "yes\n");
    group.assert_alive();
}

#[test]
fn client_streams_that_make_no_sense() {
    let mut group = Group::start(Net::any("client_streams_that_make_no_sense"), 1);
    for (what, behind) in [
        ("a frame that claims 4 GiB", vec![0xff; 40]),
        ("a frame one byte too long", (CLIENT_FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec()),
        ("a frame of no bytes", vec![0; 4]),
        ("an unknown kind", framed(&[99, 1, 2, 3])),
        ("a replica's kind", framed(&[kind::WELCOME, 0, 1])),
        ("half a length", vec![0, 0]),
        ("half a frame", framed(&[kind::OPEN, 0, 0, 0, 0, 0, 0, 0, 5])[..9].to_vec()),
        ("a field too few", framed(&[kind::OPEN, 0, 0])),
        ("a field too many", framed(&[kind::OPEN, 0, 0, 0, 0, 0, 0, 0, 5, 6])),
        ("an operation too large", {
            let operation = vec![1; OPERATION_BYTES_MAX + 1];
            let (number, seen) = (RequestNumber(1), RequestNumber(0));
            encoded(&[OPEN, ToReplica::Request { number, seen, operation: &operation }])
        }),
    ] {
        say(&group, &behind);
        let answer = say_on(welcomed(&group), &behind);
        let done = frames(&answer).iter().any(|f| matches!(f, ToClient::Reply { .. } | ToClient::Found { .. }));
        assert!(!done, "{what}: {answer:?}");
        still_serves(&mut group);
    }
    for stranger in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n", b""] {
        let answer = say(&group, stranger);
        assert!(!frames(&answer).iter().any(|f| matches!(f, ToClient::Welcome { .. })), "{stranger:?}");
    }
    still_serves(&mut group);
}

#[test]
fn an_unknown_version_is_told_ours() {
    let mut group = Group::start(Net::any("an_unknown_version_is_told_ours"), 1);
    let answer = say(&group, &encoded(&[ToReplica::Hello { version: 999 }]));
    let refused = frames(&answer).into_iter().find_map(|f| match f {
        ToClient::Refused { code, message, .. } => Some((code, message)),
        _ => None,
    });
    let (code, message) = refused.expect("a refusal");
    assert_eq!(code, Code::Version);
    assert!(message.contains(&VERSION.to_string()), "{message}");
    still_serves(&mut group);
}

#[test]
fn requests_out_of_turn_are_not_executed() {
    let mut group = Group::start(Net::any("requests_out_of_turn_are_not_executed"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    // Service 1, kind 5, by label: purges the queue.
    let purge = [&[1, 5, 1, 4][..], b"jobs"].concat();
    let (number, seen) = (RequestNumber(1), RequestNumber(0));
    let request = ToReplica::Request { number, seen, operation: &purge };
    let stranger = ToReplica::Use { session: SessionId { slot: Slot(1 << 40), position: 3, digest: 9 }, keep: false };
    for talk in [
        &[request][..],
        &[OPEN, request],
        &[HELLO, request],
        &[HELLO, ToReplica::Use { session: SessionId::NONE, keep: false }, request],
        &[HELLO, stranger, request],
    ] {
        let answer = say(&group, &encoded(talk));
        let done = frames(&answer).iter().any(|f| matches!(f, ToClient::Reply { answer, .. } if answer[0] == 0));
        assert!(!done, "{talk:?}");
    }
    group.ask(1, &["size", "jobs"], "").is(0, "1\n");
    still_serves(&mut group);
}

#[test]
fn garbage_on_client_streams() {
    let mut group = Group::start(Net::any("garbage_on_client_streams"), 1);
    let mut rng = Rng::new(7);
    for round in 0..300 {
        let mut bytes = if round % 3 == 0 { Vec::new() } else { encoded(&[HELLO, OPEN]) };
        if round % 3 == 2 {
            // Sound frames with one bit turned.
            let query = [1, 130, 1, 1, b'x'];
            bytes.extend(encoded(&[ToReplica::Query { number: 1, stale: false, query: &query }]));
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        } else {
            let length = rng.below(600);
            bytes.extend((0..length).map(|_| rng.next_u64() as u8));
        }
        frames(&say(&group, &bytes));
    }
    still_serves(&mut group);
}

fn header(cluster: u64, id: u8, tag: u64) -> Header {
    let run = Run { id: ReplicaId(id), birth: Birth(1), incarnation: Incarnation(1) };
    let status = Status { sent: ftq::types::Mseq(9), known: Slot(1 << 50), ..Status::default() };
    Header { cluster: ClusterId(cluster), run, packet: PacketNumber(1), tag: ViewTag(tag), status }
}

fn datagram(header: &Header, frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    frames.iter().for_each(|f| f.encode(&mut bytes));
    seal(&mut bytes, header.packet);
    bytes
}

/// From a stranger's address, and, harder, from a replica's own.
#[test]
fn datagrams_that_make_no_sense() {
    let Some(net) = Net::private("datagrams_that_make_no_sense") else { return };
    let mut group = Group::start(net, 3);
    let own = group.status(1).expect("it serves");
    let senders = [9, 2].map(|host| UdpSocket::bind((group.net.host(host), 0)).expect("an address of this namespace"));
    let send = |bytes: &[u8]| {
        for sender in &senders {
            for to in 1..=3 {
                sender.send_to(bytes, group.net.address(to)).expect("loopback takes it");
            }
        }
    };
    let mut rng = Rng::new(11);
    for length in [0, 1, 4, 5, 30, 85, 86, 87, 200, 1200, DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX + 1, 65_507] {
        (0..5).for_each(|_| send(&(0..length).map(|_| rng.next_u64() as u8).collect::<Vec<u8>>()));
        send(&vec![0; length]);
        send(&vec![0xff; length]);
    }
    let order =
        Frame::Order { slot: Slot(3), time: ftq::types::GroupTime(u64::MAX), cuts: ftq::wire::datagram::Cuts::zero(3) };
    for id in [1, 2, 3, 4, 64] {
        for cluster in [0, 1, u64::MAX] {
            let sound = datagram(&header(cluster, id, 77), &[order.clone(), Frame::Hello { config: 1 }]);
            send(&sound);
            (0..sound.len()).step_by(7).for_each(|length| send(&sound[..length]));
            let mut other_version = sound.clone();
            other_version[0] = 200;
            send(&other_version);
        }
    }
    still_serves(&mut group);
    let after = group.assert_agreement();
    assert_eq!((&after["epoch"], &after["primary"]), (&own["epoch"], &true.into()), "nobody was led astray: {after}");
}
