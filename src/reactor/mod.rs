//! The turn of the loop: the only IO of the daemon. One thread polls; whatever has come (datagrams, disk completions,
//! client frames, signals, time) is handed to the core, `Turn` ends it, and what the core wants done is carried out.
//! Each source is drained up to a bound, so that none starves another, and remembers that more waits, for the poll
//! tells of a change only once.

pub mod book;
pub mod clients;
pub mod disk;
pub mod exit;
pub mod fault;
pub mod guests;
pub mod http;
pub mod logger;
pub mod options;
pub mod os;
pub mod peers;
pub mod start;
pub mod udp;
pub mod wheel;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::limits::{PEER_CONNECTIONS_MAX, REPLICA_ID_MAX};
use crate::replica::{Input, Level, Outbox, Replica};
use crate::types::{ReplicaId, Time};
use clients::Clients;
use disk::{Disk, Outcome, SnapshotWriter};
use exit::Exit;
use fault::{FaultInput, Faults};
use guests::Guests;
use http::metrics::{page, Sources};
use http::Http;
use logger::Logger;
use os::{Alarm, Asked, Notifier, Signals};
use peers::Peers;
use udp::{Source, Udp};
use wheel::Wheel;

const DATAGRAMS: Token = Token(0);
const DISK: Token = Token(1);
const SIGNALS: Token = Token(2);
const FAULTS: Token = Token(3);
const ALARM: Token = Token(4);
/// TCP, then Unix.
const FIRST_LISTENER: usize = 5;
const LISTENERS: usize = 2;
const HTTP: Token = Token(14);
const SNAPSHOT: Token = Token(15);
/// A link's token is this and the peer's id.
const LINKS: usize = 16;
/// A stream's token with another replica is this and its place.
const FIRST_PEER: usize = LINKS + REPLICA_ID_MAX as usize + 1;
const FIRST_CLIENT: usize = 128;
/// No client's place comes this far.
const FIRST_HTTP: usize = 1 << 20;
const EVENTS_PER_TURN: usize = 1024;
/// A replica that was asked to leave and cannot say goodbye stops all the same.
const LEAVE_WAIT_MS: u64 = 5_000;
/// How often systemd's status is looked after while the loop turns.
const STATUS_EVERY_MS: u64 = 200;
/// A deadline nearer than this is worth an alarm.
const NEAR_NS: u64 = 10 * Time::MS;

const _: () = assert!(FIRST_PEER + PEER_CONNECTIONS_MAX <= FIRST_CLIENT);
const _: () = assert!(FIRST_LISTENER + LISTENERS <= HTTP.0 && HTTP.0 < SNAPSHOT.0 && SNAPSHOT.0 < LINKS);

/// A replica and all that connects it with the world.
pub struct Reactor {
    poll: Poll,
    replica: Replica,
    out: Outbox,
    udp: Udp,
    clients: Clients,
    guests: Guests,
    http: Option<Http>,
    peers: Peers,
    disk: Disk,
    snapshots: SnapshotWriter,
    signals: Signals,
    wheel: Wheel,
    alarm: Alarm,
    faults: Option<(FaultInput, Faults)>,
    notifier: Notifier,
    logger: Logger,
    /// Places passed, `marks`, and how often.
    passed: BTreeMap<&'static str, u64>,
    /// When a replica that was asked to leave stops without the core's word.
    stop_at: Option<Time>,
    status_at: Time,
}

/// Where the turn leaves the loop.
enum Flow {
    Goes,
    /// With a message and an exit status.
    Stops(String, i32),
}

impl Reactor {
    /// Turns until the replica stops. Gives the exit status; errors are fatal and say so.
    pub fn run(mut self) -> Result<i32, Exit> {
        self.register().map_err(|e| Exit::system("watch for events", &e))?;
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            if let Flow::Stops(message, status) = self.turn(&mut events)? {
                self.finish()?;
                self.logger.log(if status == exit::OK { Level::Info } else { Level::Error }, &message);
                return Ok(status);
            }
        }
    }

    fn register(&mut self) -> io::Result<()> {
        let registry = self.poll.registry();
        self.udp.register(registry, DATAGRAMS, |id| Token(LINKS + usize::from(id.0)))?;
        self.clients.register(registry, FIRST_LISTENER)?;
        let watch = |registry: &Registry, fd, token| registry.register(&mut SourceFd(&fd), token, Interest::READABLE);
        if let Some(http) = &mut self.http {
            http.register(registry, HTTP)?;
        }
        if let Some(fd) = self.disk.event_fd() {
            watch(registry, fd, DISK)?;
        }
        if let Some((input, _)) = &self.faults {
            watch(registry, input.raw_fd(), FAULTS)?;
        }
        watch(registry, self.alarm.raw_fd(), ALARM)?;
        watch(registry, self.signals.raw_fd(), SIGNALS)
    }

    /// One turn.
    fn turn(&mut self, events: &mut Events) -> Result<Flow, Exit> {
        self.wait(events)?;
        let now = os::now();
        self.hand_datagrams(now);
        self.hand_durable(now)?;
        self.hand_reads(now)?;
        self.hand_snapshot(now);
        self.hand_clients(now);
        self.hand_http(now);
        self.hand_streams(now);
        self.hand_time(now);
        self.replica.step(now, Input::Turn, &mut self.out);
        self.carry_out(now)
    }

    /// Polls, not at all if something remains from the last turn, and notes what has come.
    fn wait(&mut self, events: &mut Events) -> Result<(), Exit> {
        let timeout = self.timeout(os::now());
        match self.poll.poll(events, timeout) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(Exit::system("poll", &e)),
            _ => {}
        }
        let now = os::now();
        for event in events.iter() {
            match event.token() {
                DATAGRAMS => self.udp.on_readable(),
                DISK => self.disk.on_event(),
                ALARM | SNAPSHOT => {}
                SIGNALS => self.on_signals(now),
                FAULTS => self.on_faults(),
                HTTP => self.http.iter_mut().for_each(Http::on_listener),
                Token(t) if t >= FIRST_HTTP => self.http.iter_mut().for_each(|http| http.on_event(event)),
                Token(t) if t >= FIRST_CLIENT => self.clients.on_event(event),
                Token(t) if t >= FIRST_PEER => self.peers.on_event(event, now),
                Token(t) if t >= LINKS => self.udp.on_link(ReplicaId((t - LINKS) as u8)),
                Token(t) => self.clients.on_listener(t - FIRST_LISTENER),
            }
        }
        Ok(())
    }

    fn timeout(&mut self, now: Time) -> Option<Duration> {
        if self.disk.has_reads() || self.snapshots.has_more() {
            return Some(Duration::ZERO);
        }
        if self.udp.has_more()
            || self.guests.has_more()
            || self.disk.has_more()
            || self.peers.has_more()
            || self.clients.has_more(self.replica.accepts())
            || self.http.as_ref().is_some_and(|http| http.has_more(self.replica.accepts()))
        {
            return Some(Duration::ZERO);
        }
        let delayed = self.faults.as_ref().and_then(|(_, faults)| faults.deadline());
        let http = self.http.as_ref().and_then(Http::deadline);
        let own =
            [self.notifier.deadline(), self.stop_at, delayed, self.peers.deadline(), self.guests.deadline(), http];
        let deadlines = [self.replica.deadline(), self.wheel.next()].into_iter().chain(own);
        let next = deadlines.flatten().min()?;
        let wait_ns = next.since_ns(now);
        if wait_ns > 0 && wait_ns < NEAR_NS {
            self.alarm.set(next);
        }
        Some(Duration::from_nanos(wait_ns))
    }

    fn hand_datagrams(&mut self, now: Time) {
        let Reactor { udp, guests, replica, out, .. } = self;
        for id in udp.take_refused() {
            replica.step(now, Input::Unreachable(id), out);
        }
        guests.expire(now);
        for client in guests.take_gone() {
            replica.step(now, Input::Gone { client }, out);
        }
        udp.receive(|from, bytes| match from {
            Source::Replica(from) => replica.step(now, Input::Datagram { from, bytes }, out),
            Source::Client(from) => {
                guests.on_datagram(now, from, bytes, replica.accepts(), |input| replica.step(now, input, out));
            }
        });
    }

    fn hand_durable(&mut self, now: Time) -> Result<(), Exit> {
        if let Some(number) = self.disk.completed()? {
            self.replica.step(now, Input::Durable(number), &mut self.out);
        }
        Ok(())
    }

    fn hand_reads(&mut self, now: Time) -> Result<(), Exit> {
        for (token, bytes) in self.disk.read_some()? {
            self.replica.step(now, Input::Read { token, bytes: &bytes }, &mut self.out);
        }
        Ok(())
    }

    /// What became of the snapshot. The pipe needs no deregistration: it is closed.
    fn hand_snapshot(&mut self, now: Time) {
        let Some(Outcome { slot, made, text }) = self.snapshots.outcome() else { return };
        let level = if made { Level::Info } else { Level::Warning };
        self.logger.log(level, &format!("snapshot of slot {slot}: {text}"));
        self.replica.step(now, Input::Snapshot { slot, made }, &mut self.out);
    }

    fn hand_clients(&mut self, now: Time) {
        let Reactor { clients, replica, out, wheel, poll, .. } = self;
        clients.accept(poll.registry(), now, wheel);
        clients.receive(replica.accepts(), |input| {
            replica.step(now, input, out);
            replica.accepts()
        });
    }

    fn hand_http(&mut self, now: Time) {
        let Reactor { http, replica, out, poll, disk, udp, peers, clients, guests, passed, .. } = self;
        if let Some(http) = http {
            let sources = Sources {
                passed,
                datagrams: &udp.counters,
                streams: &peers.counters,
                clients: clients.count(),
                guests,
                synced: &disk.synced,
                durable: &disk.made_durable,
            };
            http.receive(now, poll.registry(), replica, out, &|http, replica| page(http, replica, &sources));
        }
    }

    fn hand_streams(&mut self, now: Time) {
        let Reactor { clients, peers, replica, out, poll, .. } = self;
        clients.take_peers().into_iter().for_each(|stream| peers.adopt(stream, poll.registry(), now));
        peers.receive(now, |from, frame| replica.step(now, Input::Stream { from, frame }, out));
    }

    fn hand_time(&mut self, now: Time) {
        self.peers.expire(now);
        let mut due = Vec::new();
        self.wheel.expire(now, &mut due);
        due.into_iter().for_each(|key| self.clients.on_deadline(key));
        self.notifier.feed_watchdog(now);
        if self.stop_at.is_some_and(|at| now >= at) && self.out.stop.is_none() {
            self.out.stop = Some(("stopped without having been let go by the others".to_owned(), exit::OK));
        }
    }

    fn on_signals(&mut self, now: Time) {
        for asked in self.signals.take() {
            match asked {
                // Who asks twice does not want to wait.
                Asked::Stop if self.stop_at.is_some() => self.stop_at = Some(now),
                Asked::Stop => {
                    self.stop_at = Some(now.after_ns(LEAVE_WAIT_MS * Time::MS));
                    self.notifier.stopping();
                    self.replica.step(now, Input::Leave, &mut self.out);
                }
                Asked::Reload => self.logger.log(Level::Info, "nothing to read again: there is no key"),
                Asked::Status => self.log_status(),
            }
        }
    }

    fn log_status(&self) {
        let datagrams = format!("{} connections; datagrams: {}", self.clients.count(), self.udp.counters);
        let frames = format!("{} streams; frames: {}", self.peers.count(), self.peers.counters);
        let guests = format!("{} clients by datagrams: {}", self.guests.count(), self.guests.counters);
        for line in self.replica.report().into_iter().chain([datagrams, frames, guests]) {
            self.logger.log(Level::Info, &line);
        }
    }

    fn on_faults(&mut self) {
        let Some((input, faults)) = &mut self.faults else { return };
        for line in input.lines() {
            match faults.command(&line) {
                Ok(()) => self.logger.log(Level::Info, &format!("fault: {}", line.trim())),
                Err(why) => self.logger.log(Level::Warning, &why),
            }
        }
    }

    /// Does what the core wants done. Datagrams first: others wait for them.
    fn carry_out(&mut self, now: Time) -> Result<Flow, Exit> {
        let Outbox { log, meta, net, clients, hang_up, streams, reads, snapshot, trim, notes, marks, stop } =
            &mut self.out;
        marks.drain(..).for_each(|mark| *self.passed.entry(mark).or_default() += 1);
        let mut faults = self.faults.as_mut().map(|(_, faults)| faults);
        if let Some(faults) = &mut faults {
            self.udp.send(now, &faults.take_due(now), None);
            faults.delay_frames(now, streams);
        }
        self.udp.send(now, net, faults);
        net.clear();
        self.peers.send(streams, self.poll.registry(), now, self.faults.as_mut().map(|(_, faults)| faults));
        self.disk.submit(log, meta)?;
        self.disk.want(reads);
        if let Some(trim) = trim.take() {
            self.disk.trim(&trim)?;
        }
        if let Some(snapshot) = snapshot.take() {
            let pipe = self.snapshots.begin(self.disk.directory(), &snapshot, || self.replica.snapshot());
            let registry = self.poll.registry();
            let watch = |fd| registry.register(&mut SourceFd(&fd), SNAPSHOT, Interest::READABLE);
            pipe.map_or(Ok(()), watch).map_err(|e| Exit::system("watch a process", &e))?;
        }
        let mut to_http = Vec::new();
        for (client, bytes) in clients.drain(..) {
            match &self.http {
                _ if Guests::is_guest(client) => self.guests.queue(client, &bytes),
                Some(http) if http.is_client(client) => to_http.push(bytes),
                _ => self.clients.queue(client, bytes),
            }
        }
        let http_ends = self.http.as_ref().is_some_and(|http| hang_up.iter().any(|&client| http.is_client(client)));
        for client in hang_up.drain(..) {
            self.guests.hang_up(client);
            self.clients.hang_up(client);
        }
        self.udp.answer(&self.guests.take_answers());
        self.clients.flush(self.poll.registry(), now, &mut self.wheel);
        let something_happened = !notes.is_empty();
        for (level, note) in notes.drain(..) {
            self.logger.log(level, &note);
        }
        for note in self.clients.notes.drain(..).chain(self.peers.notes.drain(..)) {
            self.logger.log(Level::Warning, &note);
        }
        if self.notifier.listens() && (something_happened || now >= self.status_at) {
            self.status_at = now.after_ns(STATUS_EVERY_MS * Time::MS);
            let (ready, status) = self.replica.summary();
            self.notifier.tell(ready, &status);
        }
        let flow = stop.take().map_or(Flow::Goes, |(message, status)| Flow::Stops(message, status));
        self.answer_http(now, &to_http, http_ends);
        Ok(flow)
    }

    /// What the core says to the HTTP door goes there, and from there to its clients.
    fn answer_http(&mut self, now: Time, said: &[Vec<u8>], ends: bool) {
        let Some(http) = &mut self.http else { return };
        said.iter().for_each(|bytes| http.hear(now, bytes, &self.replica));
        if ends {
            http.on_hang_up(now, &mut self.replica, &mut self.out);
        }
        http.flush(now);
    }

    /// What was handed to the disk gets there before the process ends.
    fn finish(&mut self) -> Result<(), Exit> {
        while !self.disk.is_idle() {
            if let Some(fd) = self.disk.event_fd() {
                let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                // SAFETY: one valid pollfd. Whatever it returns, the disk is asked.
                unsafe { libc::poll(&raw mut poll, 1, -1) };
                self.disk.on_event();
            }
            self.disk.completed()?;
        }
        Ok(())
    }
}
