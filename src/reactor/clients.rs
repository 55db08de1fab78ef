//! Client connections over TCP and the Unix socket: bytes in, whole frames out to the core, and answers back.
//!
//! Nobody is read from while the core does not accept, nor who leaves too many answers unread: so clients feel the
//! group's pace. A client is named once in a run; frames of one are handed over in order, and `Gone` after the last.
//! The poll tells of a change only once, so whoever may have more waits in `ready`. Replicas come to the same port:
//! their connections are known by their first bytes, and given away.

mod connection;
mod listener;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Registry, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::limits::{CLIENTS_MAX, CLIENT_HELLO_WAIT_MS, CLIENT_UNSENT_BYTES_MAX, PEER_CONNECTIONS_MAX};
use crate::reactor::exit::Exit;
use crate::reactor::wheel::Wheel;
use crate::replica::Input;
use crate::types::{ClientId, Time};
use connection::{Connection, Progress};
use listener::{Accepted, Listener};

/// Bytes taken from all clients in one turn, and from one of them.
const TURN_BYTES: usize = 1 << 20;
const CLIENT_TURN_BYTES: usize = 256 << 10;
const SCRATCH_BYTES: usize = 128 << 10;
/// Connections accepted in one turn from one listener.
const ACCEPTS_PER_TURN: usize = 64;
/// When to try again where descriptors ran out.
const ACCEPT_AGAIN_MS: u64 = 100;
/// In the wheel: time to accept again. No client has this name.
const ACCEPT_AGAIN: u64 = 0;
/// A client's name is its run-wide serial number and its place.
const PLACE_BITS: u32 = 16;

const _: () = assert!(CLIENTS_MAX + PEER_CONNECTIONS_MAX < 1 << PLACE_BITS, "a place must fit its bits");

/// All connections of a replica's clients.
pub struct Clients {
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    serial: u64,
    /// Places that may have something to read or to hand over.
    ready: VecDeque<usize>,
    /// Places of which it may be known by now whether a client or a replica is there.
    unknown: Vec<usize>,
    /// Where replicas come from, and their connections.
    peer_addresses: Vec<IpAddr>,
    peers: Vec<TcpStream>,
    /// Places with something new to write.
    dirty: Vec<usize>,
    /// Closed connections the core has not been told of.
    gone: Vec<ClientId>,
    /// Clients to whom more waits to be written than may, or no longer: the replica is to be told.
    pressure: Vec<(ClientId, bool)>,
    scratch: Vec<u8>,
    first_token: usize,
    /// Something worth a line in the log.
    pub notes: Vec<String>,
    starved: bool,
    crowded: bool,
}

impl Clients {
    /// Listens on TCP and, if there is a path, on a Unix socket. Errors if an address is in use.
    pub fn open(address: SocketAddr, socket: Option<&Path>, first_token: usize) -> Result<Clients, Exit> {
        let mut listeners = vec![Listener::tcp(address)?];
        listeners.extend(socket.map(Listener::unix).transpose()?);
        Ok(Clients {
            listeners,
            connections: Slab::new(),
            serial: 0,
            ready: VecDeque::new(),
            unknown: Vec::new(),
            peer_addresses: Vec::new(),
            peers: Vec::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            pressure: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            first_token,
            notes: Vec::new(),
            starved: false,
            crowded: false,
        })
    }

    /// Has `registry`'s poll tell of new connections with the tokens from `first_listener` on.
    pub fn register(&mut self, registry: &Registry, first_listener: usize) -> io::Result<()> {
        let tokens = (first_listener..).map(Token);
        self.listeners.iter_mut().zip(tokens).try_for_each(|(listener, token)| listener.register(registry, token))
    }

    /// Replicas come from these addresses: however many clients there are, they are let in.
    pub fn expect_peers(&mut self, addresses: Vec<IpAddr>) {
        self.peer_addresses = addresses;
    }

    /// The connections of replicas that have come since last asked, none of their bytes taken.
    pub fn take_peers(&mut self) -> Vec<TcpStream> {
        std::mem::take(&mut self.peers)
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// The poll told of new connections at this listener.
    pub fn on_listener(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.waiting = true;
        }
    }

    /// The poll told of something at a connection. It may be gone already, its place even taken by another: then
    /// the worst that comes of it is a read or write in vain.
    pub fn on_event(&mut self, event: &Event) {
        let place = event.token().0 - self.first_token;
        let Some(connection) = self.connections.get_mut(place) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.readable = true;
            connection.read_closed |= event.is_read_closed() || event.is_error();
            if connection.unknown {
                self.unknown.push(place);
            } else {
                make_ready(&mut self.ready, connection, place);
            }
        }
        if event.is_writable() && connection.has_unsent() {
            self.dirty.push(place);
        }
    }

    /// A key of the wheel has come.
    pub fn on_deadline(&mut self, key: u64) {
        if key == ACCEPT_AGAIN {
            self.listeners.iter_mut().for_each(|l| l.waiting = true);
        } else if let Some(place) = self.place(ClientId(key)) {
            let connection = &self.connections[place];
            if !connection.has_spoken || connection.ending {
                self.close(place);
            }
        }
    }

    /// Work that needs no event to go on.
    pub fn has_more(&self, accepts: bool) -> bool {
        (accepts && !self.ready.is_empty())
            || !self.gone.is_empty()
            || !self.unknown.is_empty()
            || !self.pressure.is_empty()
            || self.listeners.iter().any(|l| l.waiting)
    }

    fn place(&self, client: ClientId) -> Option<usize> {
        let place = (client.0 & ((1 << PLACE_BITS) - 1)) as usize;
        self.connections.get(place).filter(|c| c.id == client).map(|_| place)
    }

    /// Takes new connections, up to a bound.
    pub fn accept(&mut self, registry: &Registry, now: Time, wheel: &mut Wheel) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listeners[index].waiting {
                    break;
                }
                match self.listeners[index].accept() {
                    Accepted::Stream(stream) => self.admit(stream, registry, now, wheel),
                    Accepted::Nobody => self.starved &= self.listeners[index].waiting,
                    Accepted::Starved(e) => {
                        wheel.insert(now.after_ns(ACCEPT_AGAIN_MS * Time::MS), ACCEPT_AGAIN);
                        if !std::mem::replace(&mut self.starved, true) {
                            self.notes.push(format!("cannot accept clients for now: {e}"));
                        }
                    }
                }
            }
        }
    }

    fn admit(&mut self, stream: connection::Stream, registry: &Registry, now: Time, wheel: &mut Wheel) {
        let few = self.connections.len() < CLIENTS_MAX + PEER_CONNECTIONS_MAX;
        if self.connections.len() >= CLIENTS_MAX && !(few && stream.is_from(&self.peer_addresses)) {
            if !std::mem::replace(&mut self.crowded, true) {
                self.notes.push(format!("more than {CLIENTS_MAX} clients: the newest are turned away"));
            }
            return;
        }
        self.crowded = false;
        self.serial += 1;
        let entry = self.connections.vacant_entry();
        let place = entry.key();
        let id = ClientId(self.serial << PLACE_BITS | place as u64);
        let token = Token(self.first_token + place);
        // A connection that cannot be watched (no memory) is dropped, which closes it.
        if let Ok(connection) = Connection::new(id, stream, registry, token) {
            let connection = entry.insert(connection);
            if connection.unknown {
                self.unknown.push(place);
            } else {
                make_ready(&mut self.ready, connection, place);
            }
            wheel.insert(now.after_ns(CLIENT_HELLO_WAIT_MS * Time::MS), id.0);
        }
    }

    /// Tells replicas from clients by their first bytes.
    fn tell_apart(&mut self) {
        for place in std::mem::take(&mut self.unknown) {
            let crowded = self.connections.len() > CLIENTS_MAX;
            let Some(connection) = self.connections.get_mut(place).filter(|c| c.unknown) else { continue };
            match connection.is_peer() {
                None => {}
                Some(true) => self.peers.extend(self.connections.remove(place).into_tcp()),
                Some(false) if crowded => drop(self.connections.remove(place)),
                Some(false) => {
                    connection.unknown = false;
                    make_ready(&mut self.ready, connection, place);
                }
            }
        }
    }

    /// Reads from clients and hands over whole frames, until nothing is left, a bound is reached or `hand_over`
    /// says that no more is accepted.
    pub fn receive(&mut self, mut accepts: bool, mut hand_over: impl FnMut(Input<'_>) -> bool) {
        self.tell_apart();
        for (client, stalled) in std::mem::take(&mut self.pressure) {
            hand_over(if stalled { Input::Stalled { client } } else { Input::Flowing { client } });
        }
        for client in std::mem::take(&mut self.gone) {
            accepts = hand_over(Input::Gone { client });
        }
        let mut bytes_left = TURN_BYTES;
        for _ in 0..self.ready.len() {
            if !accepts || bytes_left == 0 {
                return;
            }
            let Some(place) = self.ready.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(place) else { continue };
            connection.in_ready = false;
            let most = bytes_left.min(CLIENT_TURN_BYTES);
            let (progress, taken) = connection.receive(&mut self.scratch, most, &mut accepts, &mut hand_over);
            bytes_left -= taken.min(bytes_left);
            match progress {
                Progress::Waits => {}
                Progress::HasMore => make_ready(&mut self.ready, connection, place),
                Progress::Ended => {
                    // All it said is handed over; what is queued for it still goes out.
                    accepts = self.tell_gone(place, &mut hand_over);
                    self.end(place);
                }
                Progress::Broken => self.close(place),
            }
        }
    }

    fn tell_gone(&mut self, place: usize, hand_over: &mut impl FnMut(Input<'_>) -> bool) -> bool {
        let connection = &mut self.connections[place];
        connection.told_gone = true;
        hand_over(Input::Gone { client: connection.id })
    }

    /// Queues whole frames for a client. Those for one that is gone are dropped.
    pub fn queue(&mut self, client: ClientId, bytes: Vec<u8>) {
        if let Some(place) = self.place(client) {
            let connection = &mut self.connections[place];
            connection.queue(bytes);
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(place);
            }
        }
    }

    /// Closes a connection once what is queued for it is written.
    pub fn hang_up(&mut self, client: ClientId) {
        if let Some(place) = self.place(client) {
            self.end(place);
        }
    }

    fn end(&mut self, place: usize) {
        self.connections[place].ending = true;
        self.dirty.push(place);
    }

    /// Writes what is queued: one write for each client, as far as its socket takes it.
    pub fn flush(&mut self, registry: &Registry, now: Time, wheel: &mut Wheel) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            let Some(connection) = self.connections.get_mut(place) else { continue };
            connection.dirty = false;
            let token = Token(self.first_token + place);
            let flushed = connection.flush().and_then(|()| connection.watch(registry, token));
            let stalled = connection.unsent_bytes > CLIENT_UNSENT_BYTES_MAX;
            if stalled != connection.told_stalled {
                connection.told_stalled = stalled;
                self.pressure.push((connection.id, stalled));
            }
            if flushed.is_err() || (connection.ending && !connection.has_unsent()) {
                self.close(place);
            } else if connection.ending {
                wheel.insert(now.after_ns(CLIENT_HELLO_WAIT_MS * Time::MS), connection.id.0);
            } else if connection.stalled && connection.unsent_bytes <= CLIENT_UNSENT_BYTES_MAX {
                connection.stalled = false;
                make_ready(&mut self.ready, connection, place);
            }
        }
        self.dirty = dirty;
    }

    /// Dropping the stream takes it out of the poll as well.
    fn close(&mut self, place: usize) {
        let connection = self.connections.remove(place);
        if connection.has_spoken && !connection.told_gone {
            self.gone.push(connection.id);
        }
    }
}

/// Puts a place into the queue, once.
fn make_ready(ready: &mut VecDeque<usize>, connection: &mut Connection, place: usize) {
    if !connection.in_ready && !connection.ending {
        connection.in_ready = true;
        ready.push_back(place);
    }
}

#[cfg(test)]
mod tests;
