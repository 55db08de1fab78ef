//! A hostile network in between: takes the datagrams that replicas send each other, and hands each on late, twice,
//! damaged as well, or not at all. It sends from the sender's own address, so that nobody sees the difference.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::net::{Net, PORT};
use ftq::rng::Rng;

const RELAY_PORT: u16 = 9400;
const MARK: u32 = 77;

/// What befalls a datagram, in percent of all and in microseconds.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost: u32,
    pub doubled: u32,
    /// A copy that is cut short or has a flipped bit goes with the real one.
    pub damaged: u32,
    /// Each is late by anything up to this.
    pub late_us: u64,
}

/// Works until it is dropped.
pub struct Relay {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<[u64; 4]>>,
}

/// A datagram on its way: when it arrives, a number that keeps the order of equals, from whom to whom.
type Late = Reverse<(Instant, u64, u8, u8, Vec<u8>)>;

struct Wires {
    faults: Faults,
    rng: Rng,
    /// Where what is meant for replica i + 1 comes in.
    incoming: Vec<UdpSocket>,
    /// From where replica i + 1 seems to speak.
    outgoing: Vec<UdpSocket>,
    late: BinaryHeap<Late>,
    count: u64,
    /// Datagrams taken, lost, doubled and damaged.
    counts: [u64; 4],
}

impl Relay {
    /// Stands between `size` replicas of this namespace from now on.
    pub fn start(net: &Net, size: u8, faults: Faults) -> Relay {
        let bind = |host: u8, port: u16| {
            let socket = UdpSocket::bind((format!("10.77.0.{host}"), port)).expect("a namespace of our own");
            socket.set_nonblocking(true).expect("a socket can be non-blocking");
            socket
        };
        let incoming: Vec<UdpSocket> = (1..=size).map(|i| bind(i, RELAY_PORT)).collect();
        let outgoing: Vec<UdpSocket> = (1..=size).map(|i| bind(i, 0)).collect();
        outgoing.iter().for_each(mark);
        net.divert(size, RELAY_PORT, MARK);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, late) = (Arc::clone(&stop), BinaryHeap::new());
        let mut wires = Wires { faults, rng: Rng::new(1), incoming, outgoing, late, count: 0, counts: [0; 4] };
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                wires.turn();
            }
            wires.counts
        });
        Relay { stop, thread: Some(thread) }
    }

    /// Ends it; datagrams taken, lost, doubled and damaged.
    pub fn stop(mut self) -> [u64; 4] {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped once").join().expect("the relay does not panic")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Lets what this socket sends pass by the rules that divert.
fn mark(socket: &UdpSocket) {
    let (mark, size) = (MARK, size_of::<u32>() as libc::socklen_t);
    // SAFETY: the option's value is a live u32, and its size is given.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, (&raw const mark).cast(), size)
    };
    assert_eq!(done, 0, "SO_MARK: {}", io::Error::last_os_error());
}

impl Wires {
    fn turn(&mut self) {
        let wait = self
            .late
            .peek()
            .map_or(Duration::from_millis(20), |Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
        let mut ready: Vec<libc::pollfd> = self
            .incoming
            .iter()
            .map(|s| libc::pollfd { fd: s.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        // SAFETY: the array is alive and its length is given.
        unsafe { libc::poll(ready.as_mut_ptr(), ready.len() as libc::nfds_t, wait.as_micros().div_ceil(1000) as i32) };
        let mut buffer = [0; 65_536];
        for to in 0..self.incoming.len() {
            while let Ok((length, from)) = self.incoming[to].recv_from(&mut buffer) {
                self.take(sender(from), to as u8, &buffer[..length]);
            }
        }
        while self.late.peek().is_some_and(|Reverse((at, ..))| *at <= Instant::now()) {
            let Reverse((_, _, from, to, bytes)) = self.late.pop().expect("just seen");
            // Nobody may be listening there now: that is a network's right.
            let _ = self.outgoing[usize::from(from)].send_to(&bytes, (Ipv4Addr::new(10, 77, 0, to + 1), PORT));
        }
    }

    fn take(&mut self, from: u8, to: u8, bytes: &[u8]) {
        let Faults { lost, doubled, damaged, .. } = self.faults;
        self.counts[0] += 1;
        if self.rng.chance(lost * 10_000) {
            self.counts[1] += 1;
            return;
        }
        self.send(from, to, bytes.to_vec());
        if self.rng.chance(doubled * 10_000) {
            self.counts[2] += 1;
            self.send(from, to, bytes.to_vec());
        }
        if self.rng.chance(damaged * 10_000) {
            self.counts[3] += 1;
            let mut copy = bytes.to_vec();
            let at = self.rng.below(bytes.len() as u64) as usize;
            if self.rng.chance(500_000) {
                copy.truncate(at);
            } else {
                copy[at] ^= 1 << self.rng.below(8);
            }
            self.send(from, to, copy);
        }
    }

    fn send(&mut self, from: u8, to: u8, bytes: Vec<u8>) {
        let late = Duration::from_micros(self.rng.below(self.faults.late_us + 1));
        self.count += 1;
        self.late.push(Reverse((Instant::now() + late, self.count, from, to, bytes)));
    }
}

/// The replica behind an address, counted from 0.
fn sender(from: SocketAddr) -> u8 {
    match from {
        SocketAddr::V4(from) => from.ip().octets()[3] - 1,
        SocketAddr::V6(_) => panic!("the namespace has no such addresses"),
    }
}
