use super::*;
use crate::limits::{PEER_UNSENT_BYTES_MAX, STREAM_FRAME_BYTES_MAX};
use crate::reactor::clients::Clients;
use crate::reactor::wheel::Wheel;
use crate::replica::Input;
use mio::{Events, Poll};
use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::time::Duration;

const FIRST_PEER: usize = 10;
const FIRST_CLIENT: usize = 100;

/// The loop of one replica as far as streams go, with a core that only listens.
struct World {
    poll: Poll,
    clients: Clients,
    peers: Peers,
    wheel: Wheel,
    now: Time,
    handed: Vec<(ReplicaId, Vec<u8>)>,
    from_clients: usize,
}

/// Replicas 1 to 3 on ports of loopback that were free a moment ago; the third lives at another address.
fn book() -> Vec<Located> {
    let sockets = ["127.0.0.1", "127.0.0.1", "127.0.0.3"].map(|ip| StdListener::bind((ip, 0)).expect("a port"));
    let ids = (1..).map(ReplicaId);
    ids.zip(&sockets).map(|(id, s)| Located { id, address: s.local_addr().expect("bound") }).collect()
}

fn frame(length: usize, fill: u8) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes().to_vec();
    bytes.resize(4 + length, fill);
    bytes
}

fn greeting(from: u8, to: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    Greeting { from: ReplicaId(from), to: ReplicaId(to) }.encode(&mut bytes);
    bytes
}

impl World {
    fn new(book: &[Located], id: u8) -> World {
        let (poll, own) = (Poll::new().expect("a poll"), ReplicaId(id));
        let mut clients = Clients::open(book[usize::from(id) - 1].address, None, FIRST_CLIENT).expect("a free port");
        clients.register(poll.registry(), 0).expect("registered");
        let peers = Peers::new(book, own, FIRST_PEER);
        let wheel = Wheel::new(Time(0));
        World { poll, clients, peers, wheel, now: Time(0), handed: Vec::new(), from_clients: 0 }
    }

    fn send(&mut self, to: u8, frames: &[Vec<u8>]) {
        let mut frames: Vec<_> = frames.iter().map(|frame| (ReplicaId(to), frame.clone())).collect();
        self.peers.send(&mut frames, self.poll.registry(), self.now, None);
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        let wait = if self.clients.has_more(false) || self.peers.has_more() { 0 } else { 10 };
        self.poll.poll(&mut events, Some(Duration::from_millis(wait))).expect("polled");
        for event in &events {
            match event.token().0 {
                t if t >= FIRST_CLIENT => self.clients.on_event(event),
                t if t >= FIRST_PEER => self.peers.on_event(event, self.now),
                t => self.clients.on_listener(t),
            }
        }
        self.clients.accept(self.poll.registry(), self.now, &mut self.wheel);
        let World { handed, from_clients, .. } = self;
        // The core takes nothing from clients; replicas are told apart all the same.
        self.clients.receive(*from_clients > 0, |input| {
            *from_clients += usize::from(matches!(input, Input::Frame { .. }));
            true
        });
        let arrived = self.clients.take_peers();
        arrived.into_iter().for_each(|stream| self.peers.adopt(stream, self.poll.registry(), self.now));
        self.peers.receive(self.now, |from, frame| handed.push((from, frame.to_vec())));
        self.peers.expire(self.now);
    }
}

/// Turns both until it holds; a test that waits for ever fails instead.
fn until(worlds: &mut [World], mut holds: impl FnMut(&[World]) -> bool) {
    for _ in 0..2_000 {
        if holds(worlds) {
            return;
        }
        worlds.iter_mut().for_each(World::turn);
    }
    let counters: Vec<_> = worlds.iter().map(|w| w.peers.counters).collect();
    panic!("nothing comes of it: {counters:?}");
}

fn connect(world: &World, book: &[Located], bytes: &[u8]) -> StdStream {
    let mut stream = StdStream::connect(book[usize::from(world.peers.own.0) - 1].address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(bytes).expect("written");
    stream
}

fn is_closed(mut stream: &StdStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

#[test]
fn frames_go_both_ways_over_one_connection_whole_and_in_order() {
    let book = book();
    let mut worlds = [World::new(&book, 1), World::new(&book, 2)];
    let frames = [frame(9, 1), frame(STREAM_FRAME_BYTES_MAX, 2), frame(70, 3)];
    worlds[0].send(2, &frames);
    until(&mut worlds, |w| w[1].handed.len() == 3);
    let bodies = |from| frames.iter().map(|f| (ReplicaId(from), f[4..].to_vec())).collect::<Vec<_>>();
    assert!(worlds[1].handed == bodies(1));
    worlds[1].send(1, &frames);
    until(&mut worlds, |w| w[0].handed.len() == 3);
    assert!(worlds[0].handed == bodies(2));
    assert_eq!(worlds.each_ref().map(|w| w.peers.count()), [1, 1], "the answer took the way of the question");
    assert_eq!(worlds[0].peers.counters, PeerCounters { received: 3, sent: 3, ..PeerCounters::default() });
    assert_eq!(worlds[1].clients.count(), 0, "no client");
}

#[test]
fn replicas_and_clients_share_a_port_whatever_arrives_first() {
    let book = book();
    let mut worlds = [World::new(&book, 1)];
    let bytes = [greeting(2, 1), frame(9, 7)].concat();
    let mut peer = connect(&worlds[0], &book, &bytes[..2]);
    let client = connect(&worlds[0], &book, &frame(5, 1));
    until(&mut worlds, |w| w[0].clients.count() == 2);
    for piece in [&bytes[2..5], &bytes[5..8], &bytes[8..]] {
        worlds[0].turn();
        peer.write_all(piece).expect("written");
    }
    until(&mut worlds, |w| w[0].handed.len() == 1);
    assert_eq!(worlds[0].handed, [(ReplicaId(2), vec![7; 9])]);
    assert_eq!((worlds[0].clients.count(), worlds[0].from_clients), (1, 0), "the core takes no client's frames yet");
    worlds[0].from_clients = 1;
    until(&mut worlds, |w| w[0].from_clients == 2);
    drop(client);
}

#[test]
fn only_whom_the_book_lists_counts() {
    let book = book();
    let mut worlds = [World::new(&book, 1)];
    // Replica 3 is listed elsewhere, 4 nowhere, and this replica is not 2.
    for (from, to) in [(3, 1), (4, 1), (2, 2), (1, 1)] {
        let stream = connect(&worlds[0], &book, &[greeting(from, to), frame(9, 7)].concat());
        until(&mut worlds, |w| w[0].peers.counters.malformed == 1);
        assert!(is_closed(&stream));
        worlds[0].peers.counters.malformed = 0;
    }
    assert!(worlds[0].handed.is_empty());
    // Whose address no replica has.
    let all = self::book();
    let book = [all[0], all[2]];
    let mut elsewhere = [World::new(&book, 1)];
    let stream = connect(&elsewhere[0], &book, &greeting(3, 1));
    until(&mut elsewhere, |w| w[0].peers.counters.strangers == 1);
    assert!(is_closed(&stream));
}

#[test]
fn a_replica_comes_from_the_address_that_the_book_lists() {
    let book = book();
    let mut worlds = [World::new(&book, 1), World::new(&book, 3)];
    worlds[0].send(3, &[frame(9, 1)]);
    worlds[1].send(1, &[frame(9, 3)]);
    until(&mut worlds, |w| w[0].handed.len() == 1 && w[1].handed.len() == 1);
    assert_eq!(worlds[0].handed, [(ReplicaId(3), vec![3; 9])]);
    assert_eq!(worlds[1].handed, [(ReplicaId(1), vec![1; 9])]);
}

#[test]
fn nonsense_closes_with_one_warning_a_minute() {
    let book = book();
    let mut worlds = [World::new(&book, 1)];
    let lengths = [0, 4, STREAM_FRAME_BYTES_MAX as u32 + 1, u32::MAX].map(u32::to_be_bytes);
    for (k, length) in lengths.iter().enumerate() {
        let stream = connect(&worlds[0], &book, &[&greeting(2, 1), &frame(9, 7)[..], length, b"rest"].concat());
        until(&mut worlds, |w| w[0].peers.counters.malformed == k as u64 + 1);
        assert!(is_closed(&stream));
        assert_eq!(worlds[0].handed.len(), k + 1, "what came before counts");
    }
    assert_eq!(worlds[0].peers.notes, ["closed a stream from replica 2: what came over it makes no sense"]);
    worlds[0].now = Time(WARN_EVERY_MS * Time::MS);
    let _stream = connect(&worlds[0], &book, b"ftqp\x09\x02\x01");
    until(&mut worlds, |w| w[0].peers.notes.len() == 2);
    assert_eq!(worlds[0].peers.count(), 0);
}

#[test]
fn who_is_not_there_is_tried_again_after_a_while() {
    let book = book();
    let mut worlds = [World::new(&book, 1)];
    worlds[0].send(2, &[frame(9, 1), frame(9, 2)]);
    until(&mut worlds, |w| w[0].peers.counters.dropped == 2 + 1);
    worlds[0].send(2, &[frame(9, 3)]);
    assert_eq!((worlds[0].peers.counters.dropped, worlds[0].peers.count()), (4, 0));
    let mut worlds = [worlds.into_iter().next().expect("one"), World::new(&book, 2)];
    worlds[0].now = Time(PEER_CONNECT_AGAIN_NS);
    worlds[0].send(2, &[frame(9, 4)]);
    until(&mut worlds, |w| w[1].handed.len() == 1);
    assert_eq!(worlds[1].handed, [(ReplicaId(1), vec![4; 9])]);
    worlds[0].send(9, &[frame(9, 5)]);
    assert_eq!((worlds[0].peers.counters.dropped, worlds[0].peers.count()), (5, 1), "nobody has that id");
}

#[test]
fn the_idle_and_the_silent_are_closed() {
    let book = book();
    let mut worlds = [World::new(&book, 1), World::new(&book, 2)];
    worlds[0].send(2, &[frame(9, 1)]);
    until(&mut worlds, |w| w[1].handed.len() == 1);
    let silent = connect(&worlds[1], &book, &greeting(1, 2)[..5]);
    until(&mut worlds, |w| w[1].peers.count() == 2);
    assert_eq!(worlds[1].peers.deadline(), Some(Time(PEER_CONNECT_WAIT_NS)));
    worlds[1].now = Time(PEER_CONNECT_WAIT_NS);
    worlds[1].turn();
    assert_eq!(worlds[1].peers.count(), 1);
    assert!(is_closed(&silent));
    worlds[1].now = Time(PEER_IDLE_NS - 1);
    worlds[1].turn();
    assert_eq!(worlds[1].peers.count(), 1);
    worlds[1].now = Time(PEER_IDLE_NS);
    until(&mut worlds, |w| w[0].peers.count() + w[1].peers.count() == 0);
}

#[test]
fn what_is_not_read_is_dropped_beyond_a_bound() {
    let book = book();
    let mut worlds = [World::new(&book, 1)];
    let mut slow = connect(&worlds[0], &book, &[greeting(2, 1), frame(9, 1)].concat());
    until(&mut worlds, |w| w[0].handed.len() == 1);
    let many = 4 * PEER_UNSENT_BYTES_MAX / STREAM_FRAME_BYTES_MAX;
    for fill in 0..many {
        worlds[0].send(2, &[frame(STREAM_FRAME_BYTES_MAX, fill as u8)]);
    }
    let PeerCounters { sent, dropped, .. } = worlds[0].peers.counters;
    assert!(dropped > 0 && sent + dropped == many as u64, "{sent} sent, {dropped} dropped");
    // What was taken comes whole and in order.
    let reader = std::thread::spawn(move || {
        let mut bytes = vec![0; sent as usize * (4 + STREAM_FRAME_BYTES_MAX)];
        slow.read_exact(&mut bytes).map(|()| bytes)
    });
    until(&mut worlds, |_| reader.is_finished());
    let bytes = reader.join().expect("no panic").expect("read");
    let fills: Vec<u8> = bytes.chunks(4 + STREAM_FRAME_BYTES_MAX).map(|frame| frame[4]).collect();
    assert!(fills.windows(2).all(|pair| pair[0] < pair[1]), "{fills:?}");
}

#[test]
fn who_connects_anew_and_anew_has_few_connections_and_the_newest_is_used() {
    let book = book();
    let mut worlds = [World::new(&book, 1)];
    let mut streams: Vec<StdStream> = Vec::new();
    for count in 1..=5 {
        streams.push(connect(&worlds[0], &book, &[greeting(2, 1), frame(9, count)].concat()));
        until(&mut worlds, |w| w[0].handed.len() == usize::from(count));
    }
    assert_eq!(worlds[0].peers.count(), OPENED_MAX);
    assert!(is_closed(&streams[0]) && is_closed(&streams[2]));
    worlds[0].send(2, &[frame(9, 8)]);
    let mut got = [0; 13];
    streams[4].read_exact(&mut got).expect("read");
    assert_eq!(got.to_vec(), frame(9, 8));
}

#[test]
fn a_partition_on_purpose_cuts_streams_too() {
    let book = book();
    let mut worlds = [World::new(&book, 1), World::new(&book, 2)];
    let mut faults = Faults::new(5);
    faults.command("partition 1,3").expect("a command");
    let mut frames = vec![(ReplicaId(2), frame(9, 1))];
    let World { peers, poll, now, .. } = &mut worlds[0];
    peers.send(&mut frames, poll.registry(), *now, Some(&mut faults));
    assert_eq!((peers.counters.faults, peers.count()), (1, 0));
    assert!(StdStream::connect(book[1].address).is_ok(), "replica 2 was there all the time");
}
