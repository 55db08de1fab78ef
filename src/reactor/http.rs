//! The HTTP door: sockets of HTTP clients, who ask the key-value store, the view, health and metrics.
//!
//! One request of a connection is answered at a time, so what is pipelined is answered in order, and whoever leaves
//! its answers unread is not read from. Everything is bounded: connections, heads, bodies, bytes held for all, and the
//! time in which a request must come and an answer be taken. [`parse`], [`route`] and [`door`] decide; here is the IO.

pub mod connection;
pub mod door;
pub mod metrics;
pub mod parse;
pub mod response;
pub mod route;
pub mod session;

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Interest, Registry, Token};
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use crate::limits::{HTTP_CONNECTIONS_MAX, HTTP_UNREAD_BYTES_MAX};
use crate::reactor::exit::Exit;
use crate::reactor::http::connection::{Connection, Verdict};
use crate::reactor::http::door::{Caller, Door, Surroundings};
use crate::reactor::http::parse::{Parsed, Request};
use crate::reactor::http::response::{Response, JSON, METRICS, TEXT};
use crate::reactor::http::route::{route, Asked};
use crate::replica::{Input, Outbox, Replica};
use crate::types::{ClientId, ReplicaId, Slot, Time};

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// Requests begun in one turn: so many of the largest answers may be made at once.
const REQUESTS_PER_TURN: usize = 64;
/// An answer of more bytes is made only where there is room for it.
const SMALL_ANSWER_BYTES: usize = 16 << 10;
const SCRATCH_BYTES: usize = 64 << 10;
/// How often deadlines are looked after.
const LOOK_EVERY_NS: u64 = 100 * Time::MS;
/// A caller's name is its run-wide serial number and its place.
const PLACE_BITS: u32 = 16;

const _: () = assert!(HTTP_CONNECTIONS_MAX < 1 << PLACE_BITS, "a place must fit its bits");

/// What was counted, for `/metrics`.
#[derive(Default, Debug)]
pub struct Counters {
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    pub connections: u64,
    pub turned_away: u64,
}

/// Where a replica answers HTTP.
pub struct Http {
    listener: TcpListener,
    waiting: bool,
    connections: Slab<Connection>,
    serial: u64,
    first_token: usize,
    /// Places that may have something to read.
    ready: VecDeque<usize>,
    /// Places with something to write.
    dirty: Vec<usize>,
    door: Door,
    /// The replica serves and the door is yet to be announced, as of the last turn.
    serves: bool,
    key_chars_max: usize,
    /// Bytes held for all connections.
    held: usize,
    look_at: Time,
    applied: Slot,
    scratch: Vec<u8>,
    pub counters: Counters,
}

impl Http {
    /// Listens at `bind`; what is told to others is `address`. Errors if the address is in use.
    pub fn open(
        replica: ReplicaId,
        bind: SocketAddr,
        address: String,
        key_chars_max: usize,
        first_token: usize,
        seed: u64,
    ) -> Result<Http, Exit> {
        let unusable = |e| Exit::unavailable(format!("cannot listen on HTTP address {bind}: {e}"));
        Ok(Http {
            listener: TcpListener::bind(bind).map_err(unusable)?,
            waiting: true,
            connections: Slab::new(),
            serial: 0,
            first_token,
            ready: VecDeque::new(),
            dirty: Vec::new(),
            door: Door::new(replica, address, seed),
            serves: false,
            key_chars_max,
            held: 0,
            look_at: Time(0),
            applied: Slot(0),
            scratch: vec![0; SCRATCH_BYTES],
            counters: Counters::default(),
        })
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.listener, token, Interest::READABLE)
    }

    pub fn on_listener(&mut self) {
        self.waiting = true;
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Bytes of requests that are not whole, and of answers that are not taken.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The poll told of something at a connection, which may be gone already.
    pub fn on_event(&mut self, event: &Event) {
        let place = event.token().0 - self.first_token;
        let Some(connection) = self.connections.get_mut(place) else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            connection.readable = true;
            make_ready(&mut self.ready, connection, place);
        }
        if event.is_writable() {
            self.dirty.push(place);
        }
    }

    /// Work that needs no event to go on.
    pub fn has_more(&self, accepts: bool) -> bool {
        self.waiting || self.door.has_frames() || accepts && !self.ready.is_empty()
    }

    /// When [`Http::receive`] has something to do next, if nothing comes.
    pub fn deadline(&self) -> Option<Time> {
        (!self.connections.is_empty() || self.door.is_waiting()).then_some(self.look_at)
    }

    /// Whether these frames are this door's.
    pub fn is_client(&self, client: ClientId) -> bool {
        client == self.door.client()
    }

    /// Accepts, reads, hands over what is asked, and looks after what took too long.
    pub fn receive(&mut self, now: Time, registry: &Registry, replica: &mut Replica, out: &mut Outbox, text: &Metrics) {
        self.accept(now, registry);
        if self.begins_to_serve(replica) {
            self.door.hurry();
            self.look_at = now;
        }
        if now >= self.look_at {
            self.look(now, replica);
        }
        for _ in 0..self.ready.len().min(REQUESTS_PER_TURN) {
            if !replica.accepts() {
                break;
            }
            let Some(place) = self.ready.pop_front() else { break };
            self.serve(now, place, replica, text);
        }
        if self.applied != replica.applied().0 {
            self.applied = replica.applied().0;
            self.door.on_applied();
        }
        for frame in self.door.take_frames() {
            replica.step(now, Input::Frame { client: self.door.client(), frame: &frame }, out);
        }
    }

    /// Whether the replica begins to serve while the others do not know yet where this door is.
    fn begins_to_serve(&mut self, replica: &Replica) -> bool {
        let serves = self.door.is_unknown() && replica.reason().is_none();
        !std::mem::replace(&mut self.serves, serves) && serves
    }

    fn accept(&mut self, now: Time, registry: &Registry) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.waiting {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => {
                    // Best effort: without it an answer is only slower.
                    let _ = stream.set_nodelay(true);
                    self.admit(now, stream, registry);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is there, or descriptors ran out: then the next connection tells again.
                Err(_) => self.waiting = false,
            }
        }
    }

    fn admit(&mut self, now: Time, stream: mio::net::TcpStream, registry: &Registry) {
        if self.connections.len() >= HTTP_CONNECTIONS_MAX {
            // Whoever is idle for longest makes room.
            let idle = self.connections.iter().filter(|(_, c)| c.is_idle()).min_by_key(|(_, c)| c.since());
            match idle.map(|(place, _)| place) {
                Some(place) => self.close(place),
                None => {
                    self.counters.turned_away += 1;
                    return;
                }
            }
        }
        self.serial += 1;
        self.counters.connections += 1;
        let entry = self.connections.vacant_entry();
        let place = entry.key();
        let mut connection = Connection::new(self.serial << PLACE_BITS | place as u64, stream, now);
        let both = Interest::READABLE | Interest::WRITABLE;
        // A connection that cannot be watched (no memory) is dropped, which closes it.
        if registry.register(connection.stream(), Token(self.first_token + place), both).is_ok() {
            make_ready(&mut self.ready, entry.insert(connection), place);
        }
    }

    /// Reads from one connection and begins to answer its next request.
    fn serve(&mut self, now: Time, place: usize, replica: &Replica, text: &Metrics) {
        let Some(connection) = self.connections.get_mut(place) else { return };
        connection.in_ready = false;
        if !connection.read(now, &mut self.scratch) {
            return self.close(place);
        }
        let (caller, parsed) = (connection.caller, connection.next_request());
        connection.count(&mut self.held);
        let bytes = connection.bytes();
        let response = match parsed {
            Ok(Parsed::Whole(request)) => self.begin(now, caller, request, replica, text),
            Ok(Parsed::More) if bytes > 0 && self.held + self.door.bytes() > HTTP_UNREAD_BYTES_MAX => {
                Some((Response::error(503, "too much is being sent"), true))
            }
            Ok(Parsed::More | Parsed::Expects) => None,
            Err(unreadable) => Some((Response::error(unreadable.status, &unreadable.why), true)),
        };
        if let Some((response, last)) = response {
            self.answer(now, caller, &response, last);
        }
        self.dirty.push(place);
    }

    /// What can be answered at once is; with it, whether the connection ends.
    fn begin(
        &mut self,
        now: Time,
        caller: Caller,
        request: Request,
        replica: &Replica,
        text: &Metrics,
    ) -> Option<(Response, bool)> {
        let response = match route(request, self.key_chars_max) {
            Err(response) => Some(response),
            Ok(Asked::Live) => Some(Response::new(200, TEXT, "ok\n")),
            Ok(Asked::Ready) => Some(ready(replica)),
            Ok(Asked::Status) => Some(Response::new(200, JSON, format!("{}\n", replica.status()))),
            Ok(Asked::Metrics) => Some(Response::new(200, METRICS, text(self, replica))),
            Ok(asked) => self.door.ask(now, caller, asked),
        };
        response.map(|response| (response, false))
    }

    fn answer(&mut self, now: Time, caller: Caller, response: &Response, last: bool) {
        let place = (caller & ((1 << PLACE_BITS) - 1)) as usize;
        let Some(connection) = self.connections.get_mut(place).filter(|c| c.caller == caller) else { return };
        let size = response.body.len();
        let crowded = size > SMALL_ANSWER_BYTES && self.held + size > HTTP_UNREAD_BYTES_MAX;
        let instead = crowded.then(|| Response::error(503, "too many answers wait to be taken"));
        let response = instead.as_ref().unwrap_or(response);
        *self.counters.answers.entry(response.status).or_default() += 1;
        connection.answer(now, response, last);
        connection.count(&mut self.held);
        self.dirty.push(place);
    }

    /// What the core says to this door.
    pub fn hear(&mut self, now: Time, bytes: &[u8], replica: &Replica) {
        let around = surroundings(replica);
        for (caller, response) in self.door.hear(now, bytes, &around) {
            self.answer(now, caller, &response, false);
        }
    }

    /// The core is done with this door's client.
    pub fn on_hang_up(&mut self, now: Time, replica: &mut Replica, out: &mut Outbox) {
        let client = self.door.client();
        replica.step(now, Input::Gone { client }, out);
        self.door.on_hang_up();
    }

    /// Looks after what took too long.
    fn look(&mut self, now: Time, replica: &Replica) {
        self.look_at = now.after_ns(LOOK_EVERY_NS);
        for (caller, response) in self.door.on_time(now, &surroundings(replica)) {
            self.answer(now, caller, &response, false);
        }
        let verdicts = self.connections.iter().map(|(place, c)| (place, c.judge(now)));
        let doomed: Vec<(usize, Verdict)> = verdicts.filter(|(_, verdict)| *verdict != Verdict::Lives).collect();
        for (place, verdict) in doomed {
            if verdict == Verdict::Slow {
                let caller = self.connections[place].caller;
                self.answer(now, caller, &Response::error(408, "the request did not come in time"), true);
            } else {
                self.close(place);
            }
        }
    }

    /// Writes what there is to write.
    pub fn flush(&mut self, now: Time) {
        for place in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.connections.get_mut(place) else { continue };
            let is_of_use = connection.flush(now);
            connection.count(&mut self.held);
            if !is_of_use || connection.is_done() {
                self.close(place);
            } else if connection.has_more() {
                make_ready(&mut self.ready, connection, place);
            }
        }
    }

    /// Dropping the stream takes it out of the poll as well.
    fn close(&mut self, place: usize) {
        let connection = self.connections.remove(place);
        connection.uncount(&mut self.held);
        self.door.forget(connection.caller);
    }
}

/// Writes the metrics of everything else.
pub type Metrics<'a> = dyn Fn(&Http, &Replica) -> String + 'a;

/// Puts a place into the queue, once.
fn make_ready(ready: &mut VecDeque<usize>, connection: &mut Connection, place: usize) {
    if !std::mem::replace(&mut connection.in_ready, true) {
        ready.push_back(place);
    }
}

fn surroundings(replica: &Replica) -> Surroundings {
    let Some(view) = replica.group().newest() else {
        return Surroundings { blank: true, reason: replica.reason(), ..Surroundings::default() };
    };
    // Where no view can be formed, who is lost stays in the last one: it is not listed all the same.
    let is_heard =
        |id: ReplicaId| id == replica.group().me().id || replica.group().detect().heard(replica.now(), id).is_some();
    let book = view.book.iter().filter_map(|entry| Some((entry.id, entry.http.clone()?)));
    Surroundings {
        blank: false,
        reason: replica.reason(),
        members: view.members.iter().map(|member| member.id).filter(|&id| is_heard(id)).collect(),
        book: book.collect(),
    }
}

/// A line for each check; 200 when all of them pass.
fn ready(replica: &Replica) -> Response {
    let checks = replica.checks();
    let line = |(name, failure): &(&str, Option<String>)| match failure {
        None => format!("ok {name}\n"),
        Some(why) => format!("failed {name}: {why}\n"),
    };
    let status = if checks.iter().all(|(_, failure)| failure.is_none()) { 200 } else { 503 };
    Response::new(status, TEXT, checks.iter().map(line).collect::<String>())
}
