//! Streams between replicas over TCP, on the port of the clients: whole frames of the core's lane out, whole frames
//! in (DESIGN 6.3).
//!
//! A connection comes about when there is a frame for a replica and none is there, and goes when nothing was said for
//! a while. It counts only where it comes from the address that the book lists for the replica it names. What cannot
//! be written soon is dropped: the core asks again. The poll tells of a change only once, so whoever may have more
//! waits in `ready`.

mod connection;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;

use crate::limits::{PEER_CONNECTIONS_MAX, PEER_CONNECT_AGAIN_NS, PEER_CONNECT_WAIT_NS, PEER_IDLE_NS};
use crate::reactor::book::Located;
use crate::reactor::fault::Faults;
use crate::types::{ReplicaId, Time};
use crate::wire::stream::Greeting;
use connection::{Connection, Progress};

/// Bytes taken from all connections in one turn, and from one of them.
const TURN_BYTES: usize = 1 << 20;
const PEER_TURN_BYTES: usize = 512 << 10;
const SCRATCH_BYTES: usize = 128 << 10;
/// Connections that one replica may have opened: a new one, and one whose end has not been noticed.
const OPENED_MAX: usize = 2;
/// The time between two warnings.
const WARN_EVERY_MS: u64 = 60_000;

/// What became of frames and connections, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerCounters {
    pub received: u64,
    pub sent: u64,
    /// Frames for replicas that were not reached, or that read too slowly.
    pub dropped: u64,
    /// Frames lost on purpose.
    pub faults: u64,
    /// Connections that came from elsewhere than the book says, or were too many.
    pub strangers: u64,
    /// Connections closed because what came made no sense.
    pub malformed: u64,
}

impl fmt::Display for PeerCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerCounters { received, sent, dropped, faults, strangers, malformed } = self;
        write!(f, "{received} received, {sent} sent, {dropped} dropped, {faults} lost on purpose; ")?;
        write!(f, "{strangers} strangers, {malformed} closed for what made no sense")
    }
}

/// All streams of a replica with other replicas.
pub struct Peers {
    own: ReplicaId,
    own_ip: IpAddr,
    others: Vec<Located>,
    connections: Slab<Connection>,
    /// Places that may have something to read.
    ready: VecDeque<usize>,
    /// When a replica that was not reached is tried again.
    not_before: BTreeMap<ReplicaId, Time>,
    serial: u64,
    scratch: Vec<u8>,
    first_token: usize,
    warned: Option<Time>,
    /// Something worth a line in the log.
    pub notes: Vec<String>,
    pub counters: PeerCounters,
}

impl Peers {
    /// Streams of the replica `own` of this book. Connections have tokens from `first_token` on.
    pub fn new(located: &[Located], own: ReplicaId, first_token: usize) -> Peers {
        let own_ip = located.iter().find(|l| l.id == own).expect("checked when the book was read").address.ip();
        Peers {
            own,
            own_ip,
            others: located.iter().filter(|l| l.id != own).copied().collect(),
            connections: Slab::new(),
            ready: VecDeque::new(),
            not_before: BTreeMap::new(),
            serial: 0,
            scratch: vec![0; SCRATCH_BYTES],
            first_token,
            warned: None,
            notes: Vec::new(),
            counters: PeerCounters::default(),
        }
    }

    /// The addresses from which replicas come.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.others.iter().map(|l| l.address.ip()).collect()
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Takes over an accepted connection that began as a replica's does.
    pub fn adopt(&mut self, mut stream: TcpStream, registry: &Registry, now: Time) {
        let ip = stream.peer_addr().map(|address| address.ip().to_canonical());
        let known = ip.ok().filter(|ip| self.others.iter().any(|l| l.address.ip() == *ip));
        let Some(ip) = known.filter(|_| self.connections.len() < PEER_CONNECTIONS_MAX) else {
            self.counters.strangers += 1;
            return;
        };
        let entry = self.connections.vacant_entry();
        let place = entry.key();
        let watched = registry.reregister(&mut stream, Token(self.first_token + place), connection::INTEREST);
        // What cannot be watched is dropped, which closes it.
        if watched.is_ok() {
            self.serial += 1;
            entry.insert(Connection::accepted(stream, ip, self.serial, now));
            self.ready.push_back(place);
        }
    }

    /// The poll told of something at a connection. It may be gone already, its place even taken by another: then the
    /// worst that comes of it is a read or write in vain.
    pub fn on_event(&mut self, event: &Event, now: Time) {
        let place = event.token().0 - self.first_token;
        let Some(connection) = self.connections.get_mut(place) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            make_ready(&mut self.ready, connection, place);
        }
        if event.is_writable() || event.is_error() {
            self.flush(place, now);
        }
    }

    /// Something can be read.
    pub fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When `expire` has something to do.
    pub fn deadline(&self) -> Option<Time> {
        self.connections.iter().map(|(_, c)| deadline_of(c)).min()
    }

    /// Closes what has come to nothing, or was not used for a while.
    pub fn expire(&mut self, now: Time) {
        let due = self.connections.iter().filter(|(_, c)| now >= deadline_of(c)).map(|(place, _)| place);
        for place in due.collect::<Vec<_>>() {
            self.close(place, now);
        }
    }

    /// Reads and hands over whole frames, up to a bound.
    pub fn receive(&mut self, now: Time, mut hand_over: impl FnMut(ReplicaId, &[u8])) {
        let mut bytes_left = TURN_BYTES;
        for _ in 0..self.ready.len() {
            if bytes_left == 0 {
                return;
            }
            let Some(place) = self.ready.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(place) else { continue };
            connection.in_ready = false;
            let most = bytes_left.min(PEER_TURN_BYTES);
            let (progress, taken) = connection.receive(&mut self.scratch, most);
            bytes_left -= taken.min(bytes_left);
            if taken > 0 {
                connection.used_at = now;
            }
            let sound = self.greet(place) && self.hand_frames(place, &mut hand_over);
            if !sound {
                self.on_nonsense(place, now);
            }
            let Some(connection) = self.connections.get_mut(place) else { continue };
            match progress {
                Progress::Waits => {}
                Progress::HasMore => make_ready(&mut self.ready, connection, place),
                Progress::Ended => self.close(place, now),
            }
        }
    }

    /// Learns from its first bytes who is at the other end. False where that makes no sense.
    fn greet(&mut self, place: usize) -> bool {
        let connection = &mut self.connections[place];
        if connection.peer.is_some() {
            return true;
        }
        let greeting = match Greeting::decode(&connection.unread) {
            Ok(Some(greeting)) => greeting,
            Ok(None) => return true,
            Err(_) => return false,
        };
        let ip = connection.ip;
        let listed = self.others.iter().any(|l| l.id == greeting.from && l.address.ip() == ip);
        if greeting.to != self.own || !listed {
            return false;
        }
        connection.unread.drain(..Greeting::BYTES);
        connection.peer = Some(greeting.from);
        connection.connected = true;
        let serial = connection.serial;
        let theirs = |c: &Connection| c.peer == Some(greeting.from) && c.accepted && c.serial < serial;
        let mut older: Vec<(u64, usize)> =
            self.connections.iter().filter(|(_, c)| theirs(c)).map(|(place, c)| (c.serial, place)).collect();
        older.sort_unstable();
        // What they opened anew they need; the oldest they have forgotten.
        let surplus = (older.len() + 1).saturating_sub(OPENED_MAX);
        older.iter().take(surplus).for_each(|&(_, place)| drop(self.connections.remove(place)));
        true
    }

    fn hand_frames(&mut self, place: usize, hand_over: &mut impl FnMut(ReplicaId, &[u8])) -> bool {
        let connection = &mut self.connections[place];
        let Some(peer) = connection.peer else { return true };
        let handed = connection.hand_frames(|frame| hand_over(peer, frame));
        self.counters.received += handed.unwrap_or(0);
        handed.is_some()
    }

    fn on_nonsense(&mut self, place: usize, now: Time) {
        self.counters.malformed += 1;
        if self.warned.is_none_or(|at| now.since_ns(at) >= WARN_EVERY_MS * Time::MS) {
            self.warned = Some(now);
            let connection = &self.connections[place];
            let who = connection.peer.map_or(connection.ip.to_string(), |id| format!("replica {id}"));
            self.notes.push(format!("closed a stream from {who}: what came over it makes no sense"));
        }
        self.close(place, now);
    }

    /// Sends each frame over a connection to its replica, or begins one. What cannot wait is dropped.
    pub fn send(
        &mut self,
        frames: &mut Vec<(ReplicaId, Vec<u8>)>,
        registry: &Registry,
        now: Time,
        faults: Option<&mut Faults>,
    ) {
        let mut touched = Vec::new();
        for (to, frame) in frames.drain(..) {
            if faults.as_ref().is_some_and(|faults| faults.cuts(to)) {
                self.counters.faults += 1;
                continue;
            }
            let place = self.connection_to(to).or_else(|| self.connect(to, registry, now));
            let queued = place.filter(|&place| self.connections[place].queue(frame));
            match queued {
                Some(place) => {
                    self.counters.sent += 1;
                    touched.push(place);
                }
                None => self.counters.dropped += 1,
            }
        }
        touched.dedup();
        touched.into_iter().for_each(|place| self.flush(place, now));
    }

    /// The newest connection with this replica, whoever opened it.
    fn connection_to(&self, id: ReplicaId) -> Option<usize> {
        let theirs = self.connections.iter().filter(|(_, c)| c.peer == Some(id));
        theirs.max_by_key(|(_, c)| (c.connected, c.serial)).map(|(place, _)| place)
    }

    fn connect(&mut self, id: ReplicaId, registry: &Registry, now: Time) -> Option<usize> {
        let address = self.others.iter().find(|l| l.id == id)?.address;
        let waits = self.not_before.get(&id).is_some_and(|at| now < *at);
        if waits || self.connections.len() >= PEER_CONNECTIONS_MAX {
            return None;
        }
        self.not_before.insert(id, now.after_ns(PEER_CONNECT_AGAIN_NS));
        let entry = self.connections.vacant_entry();
        let place = entry.key();
        let mut stream = connection::begin(self.own_ip, address).ok()?;
        registry.register(&mut stream, Token(self.first_token + place), connection::INTEREST).ok()?;
        self.serial += 1;
        let mut greeting = Vec::new();
        Greeting { from: self.own, to: id }.encode(&mut greeting);
        entry.insert(Connection::opened(stream, (id, address.ip()), self.serial, now, greeting));
        Some(place)
    }

    fn flush(&mut self, place: usize, now: Time) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        match connection.flush() {
            Ok(0) => {}
            Ok(_) => connection.used_at = now,
            Err(_) => self.close(place, now),
        }
    }

    /// Dropping the stream takes it out of the poll as well.
    fn close(&mut self, place: usize, now: Time) {
        let connection = self.connections.remove(place);
        self.counters.dropped += connection.frames_unsent();
        if let Some(peer) = connection.peer.filter(|_| !connection.connected) {
            self.not_before.insert(peer, now.after_ns(PEER_CONNECT_AGAIN_NS));
        }
    }
}

fn deadline_of(connection: &Connection) -> Time {
    connection.used_at.after_ns(if connection.connected { PEER_IDLE_NS } else { PEER_CONNECT_WAIT_NS })
}

/// Puts a place into the queue, once.
fn make_ready(ready: &mut VecDeque<usize>, connection: &mut Connection, place: usize) {
    if !connection.in_ready {
        connection.in_ready = true;
        ready.push_back(place);
    }
}

#[cfg(test)]
mod tests;
