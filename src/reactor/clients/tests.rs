use super::*;
use crate::limits::CLIENT_FRAME_BYTES_MAX;
use crate::reactor::exit::{CONFIGURATION, UNAVAILABLE};
use mio::{Events, Poll};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const FIRST: usize = 10;

/// What was handed over: a frame, or the end.
type Handed = (ClientId, Option<Vec<u8>>);

/// The loop as far as clients go, with a core that only listens.
struct World {
    poll: Poll,
    clients: Clients,
    wheel: Wheel,
    address: SocketAddr,
    accepts: bool,
    handed: Vec<Handed>,
    /// Who was told to be stalled, or no longer.
    pressure: Vec<(ClientId, bool)>,
    now: Time,
}

impl World {
    fn new() -> World {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        World::at(free, None)
    }

    fn at(address: SocketAddr, socket: Option<&Path>) -> World {
        let poll = Poll::new().expect("a poll");
        let mut clients = Clients::open(address, socket, FIRST).expect("a free port");
        clients.register(poll.registry(), 0).expect("registered");
        let wheel = Wheel::new(Time(0));
        World { poll, clients, wheel, address, accepts: true, handed: Vec::new(), pressure: Vec::new(), now: Time(0) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("somebody listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream
    }

    /// One turn, that waits for events only if nothing is left to do.
    fn turn(&mut self) {
        let mut events = Events::with_capacity(64);
        let wait = if self.clients.has_more(self.accepts) { 0 } else { 50 };
        self.poll.poll(&mut events, Some(Duration::from_millis(wait))).expect("polled");
        for event in &events {
            match event.token().0 {
                t if t >= FIRST => self.clients.on_event(event),
                t => self.clients.on_listener(t),
            }
        }
        self.clients.accept(self.poll.registry(), self.now, &mut self.wheel);
        let World { accepts, handed, pressure, .. } = self;
        let accepts = *accepts;
        self.clients.receive(accepts, |input| {
            match input {
                Input::Frame { client, frame } => handed.push((client, Some(frame.to_vec()))),
                Input::Gone { client } => handed.push((client, None)),
                Input::Stalled { client } => pressure.push((client, true)),
                Input::Flowing { client } => pressure.push((client, false)),
                other => panic!("clients hand over {other:?}"),
            }
            accepts
        });
        let mut due = Vec::new();
        self.wheel.expire(self.now, &mut due);
        due.into_iter().for_each(|key| self.clients.on_deadline(key));
        self.clients.flush(self.poll.registry(), self.now, &mut self.wheel);
    }

    /// Turns until it holds; a test that waits for ever fails instead.
    fn until(&mut self, mut holds: impl FnMut(&World) -> bool) {
        for _ in 0..2_000 {
            if holds(self) {
                return;
            }
            self.turn();
        }
        panic!("nothing comes of it: {} handed over, {} connected", self.handed.len(), self.clients.count());
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// Whether the replica has closed this connection, without a byte before.
fn is_closed(mut stream: &TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

#[test]
fn frames_come_whole_in_order_and_then_gone() {
    let mut world = World::new();
    let mut stream = world.connect();
    let bytes = [frame(b"hello"), frame(b"x"), frame(&[7; 300_000]), frame(b"last")].concat();
    // Cut anywhere: within a length, within a frame, at an end.
    for piece in [&bytes[..2], &bytes[2..9], &bytes[9..200_000], &bytes[200_000..]] {
        stream.write_all(piece).expect("written");
        for _ in 0..3 {
            world.turn();
        }
    }
    world.until(|w| w.handed.len() == 4);
    stream.shutdown(Shutdown::Write).expect("shut");
    world.until(|w| w.clients.count() == 0);
    let client = world.handed[0].0;
    let expected = [Some(b"hello".to_vec()), Some(b"x".to_vec()), Some(vec![7; 300_000]), Some(b"last".to_vec()), None];
    let expected: Vec<Handed> = expected.into_iter().map(|f| (client, f)).collect();
    assert!(world.handed == expected, "{} handed over", world.handed.len());
}

#[test]
fn answers_go_out_after_the_end_of_the_questions() {
    let mut world = World::new();
    let mut stream = world.connect();
    stream.write_all(&frame(b"hello")).expect("written");
    world.until(|w| w.handed.len() == 1);
    let client = world.handed[0].0;
    // More than the sockets hold, in pieces small and large.
    let answers: Vec<Vec<u8>> = (0..400u32).map(|k| vec![k as u8; if k % 3 == 0 { 30_000 } else { 50 }]).collect();
    answers.iter().for_each(|a| world.clients.queue(client, a.clone()));
    stream.shutdown(Shutdown::Write).expect("shut");
    world.until(|w| w.handed.len() == 2);
    assert_eq!(world.handed[1], (client, None));
    assert!(world.clients.count() == 1, "not closed before all is written");
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map(|_| all)
    });
    world.until(|w| w.clients.count() == 0);
    assert!(reader.join().expect("no panic").expect("read") == answers.concat());
}

#[test]
fn who_leaves_answers_unread_is_not_read_from() {
    let mut world = World::new();
    let mut stream = world.connect();
    stream.write_all(&frame(b"hello")).expect("written");
    world.until(|w| w.handed.len() == 1);
    let client = world.handed[0].0;
    world.clients.queue(client, vec![1; CLIENT_UNSENT_BYTES_MAX + (16 << 20)]);
    world.turn();
    stream.write_all(&frame(b"more")).expect("written");
    for _ in 0..5 {
        world.turn();
    }
    assert_eq!((world.handed.len(), world.pressure.clone()), (1, vec![(client, true)]));
    assert!(!world.clients.has_more(true), "a stalled client is nothing to spin for");
    let mut reader = stream.try_clone().expect("cloned");
    let reading = std::thread::spawn(move || {
        let mut rest = vec![0; CLIENT_UNSENT_BYTES_MAX + (16 << 20)];
        reader.read_exact(&mut rest)
    });
    world.until(|w| w.handed.len() == 2);
    assert_eq!(world.handed[1], (client, Some(b"more".to_vec())));
    world.until(|_| reading.is_finished());
    reading.join().expect("no panic").expect("read");
    world.until(|w| w.pressure == [(client, true), (client, false)]);
}

#[test]
fn nobody_is_read_from_while_the_core_does_not_accept() {
    let mut world = World::new();
    let mut stream = world.connect();
    stream.write_all(&[frame(b"1"), frame(b"2")].concat()).expect("written");
    world.accepts = false;
    for _ in 0..5 {
        world.turn();
    }
    assert!(world.handed.is_empty() && !world.clients.has_more(false));
    world.accepts = true;
    world.until(|w| w.handed.len() == 2);
}

#[test]
fn nonsense_closes_the_connection() {
    for bytes in [[0xff, 0xff, 0xff, 0xff], [0, 0, 0, 0], ((CLIENT_FRAME_BYTES_MAX + 1) as u32).to_be_bytes()] {
        let mut world = World::new();
        let mut stream = world.connect();
        stream.write_all(&[&frame(b"hello")[..], &bytes, b"rest"].concat()).expect("written");
        world.until(|w| w.handed.len() == 2 && w.clients.count() == 0);
        assert_eq!(world.handed[1].1, None);
        assert!(is_closed(&stream));
    }
}

#[test]
fn a_hang_up_waits_for_the_last_answer() {
    let mut world = World::new();
    let mut stream = world.connect();
    stream.write_all(&frame(b"bad")).expect("written");
    world.until(|w| w.handed.len() == 1);
    let client = world.handed[0].0;
    world.clients.queue(client, b"why".to_vec());
    world.clients.hang_up(client);
    world.until(|w| w.clients.count() == 0 && w.handed.len() == 2);
    assert_eq!(world.handed[1], (client, None));
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("read");
    assert_eq!(answer, b"why");
    world.clients.queue(client, b"to nobody".to_vec());
    world.clients.hang_up(client);
}

#[test]
fn the_silent_are_closed_in_time_and_names_are_never_used_again() {
    let mut world = World::new();
    let (silent, mut speaker) = (world.connect(), world.connect());
    speaker.write_all(&frame(b"hello")).expect("written");
    world.until(|w| w.clients.count() == 2 && w.handed.len() == 1);
    world.now = Time(CLIENT_HELLO_WAIT_MS * Time::MS - 1);
    world.turn();
    assert_eq!(world.clients.count(), 2);
    world.now = Time(CLIENT_HELLO_WAIT_MS * Time::MS);
    world.turn();
    assert_eq!(world.clients.count(), 1);
    assert!(is_closed(&silent));
    let mut next = world.connect();
    next.write_all(&frame(b"hello")).expect("written");
    world.until(|w| w.handed.len() == 2);
    assert_ne!(world.handed[0].0, world.handed[1].0);
    assert!(world.handed.iter().all(|h| h.1.is_some()), "the core never knew of the silent one");
}

#[test]
fn the_unix_socket_replaces_a_leftover_only() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("run").join("1.sock");
    let address = World::new().address;
    let mut world = World::at(address, Some(&path));
    let mut stream = UnixStream::connect(&path).expect("somebody listens");
    stream.write_all(&frame(b"hello")).expect("written");
    world.until(|w| w.handed.len() == 1);
    let exit = |path: &Path| Listener::unix(path).expect_err("not to be had");
    assert_eq!(exit(&path).status, UNAVAILABLE);
    let port = Listener::tcp(address).expect_err("in use");
    assert!(port.status == UNAVAILABLE && port.message.contains("in use"), "{port}");
    drop(world);
    assert!(!path.exists(), "a stop takes the file away");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a leftover"));
    drop(Listener::unix(&path).expect("replaced"));
    std::fs::write(&path, b"a file").expect("written");
    assert_eq!(exit(&path).status, CONFIGURATION);
}
