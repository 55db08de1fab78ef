//! One replica behind one door: group, log, sessions and services. Pure; driven by the reactor and the simulator
//! alike. [`Replica::step`] is handed an event and appends to an [`Outbox`] what is to be done.
//!
//! What depends on the disk is released by [`Input::Durable`], never by the order in which a driver works. Within a
//! turn of the loop any number of events may be handed over; [`Input::Turn`] ends it: then messages are packed,
//! slots announced and logged, and what must be said is said, once for all of them.

pub mod compare;
pub mod door;
pub mod journal;
pub mod machine;
pub mod read;
pub mod session;
pub mod status;

use std::net::IpAddr;

use crate::group::bootstrap::Founding;
use crate::group::view::{Book, Durability, Peer, Policy, View};
use crate::group::{Event, Group, Settings};
use crate::limits::PENDING_BYTES_MAX;
use crate::log::{LogWrite, Meta, MetaWrite, Replay};
use crate::marks;
use crate::replica::compare::Compared;
use crate::replica::door::{Door, Refusal};
use crate::replica::journal::{Journal, Positions};
use crate::replica::machine::{Machine, Replies};
use crate::replica::read::{Read, Reads};
use crate::rng::Rng;
use crate::types::{
    Birth, ClientId, ClusterId, Digest, Incarnation, Rank, ReplicaId, RequestNumber, Run, Slot, Time, WriteNumber,
};
use crate::wire::answer::Code;
use crate::wire::client::{kind, Admin, ToClient, ToReplica};
use crate::wire::datagram::Frame;
use crate::wire::operation::{grows, is_query};

/// What a replica is told at start. Everything a run depends on besides its disk and its events.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: ReplicaId,
    pub book: Book,
    /// The book's addresses, resolved: datagrams count only from these.
    pub peers: Vec<Peer>,
    pub policy: Policy,
    pub min_members: u8,
    pub durability: Durability,
    pub heartbeat_ms: u64,
    pub suspect_after_ms: u64,
    /// Bytes the socket can hold for this replica: peers keep below it what they send unasked.
    pub receive_buffer_bytes: u32,
    /// Bytes of state beyond which operations that grow it are refused at this replica's door.
    pub memory_limit_bytes: u64,
    pub segment_bytes: u64,
    /// The largest datagram to try, an index of `limits::DATAGRAM_SIZES`.
    pub datagram_size_max: usize,
    /// Inode and creation time of the data directory.
    pub directory: [u64; 2],
    /// Fresh entropy from the driver: birth, cluster id and jitter come from it.
    pub seed: u64,
}

/// What the disk holds at start.
#[derive(Debug, Default)]
pub struct Stored<'a> {
    pub meta: Option<Meta>,
    pub log: Replay<'a>,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram from this address.
    Datagram { from: IpAddr, bytes: &'a [u8] },
    /// One frame of a client (`wire::client`), its length taken off.
    Frame { client: ClientId, frame: &'a [u8] },
    /// The client's connection is gone.
    Gone { client: ClientId },
    /// All writes up to this number are on the disk.
    Durable(WriteNumber),
    /// The kernel says that nobody listens at this replica's port.
    Unreachable(ReplicaId),
    /// Everything that was waiting has been handed over, or the deadline has come: pack, order, write, say.
    Turn,
    /// The operator wants this replica to leave (SIGTERM).
    Leave,
}

/// A set of replicas, by id.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Dest(pub u64);

impl Dest {
    pub fn one(id: ReplicaId) -> Dest {
        Dest(1 << (id.0 - 1))
    }

    pub fn with(self, id: ReplicaId) -> Dest {
        Dest(self.0 | 1 << (id.0 - 1))
    }

    pub fn contains(self, id: ReplicaId) -> bool {
        self.0 >> (id.0 - 1) & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How much a note matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

/// What is to be done. Lanes are independent of each other; within a lane order is kept. Drivers destructure it, so
/// that a new lane breaks them at compile time.
#[derive(Default, Debug)]
pub struct Outbox {
    pub log: Vec<LogWrite>,
    pub meta: Vec<MetaWrite>,
    pub net: Vec<(Dest, Vec<u8>)>,
    /// Whole frames, lengths first, to be appended to that client's stream.
    pub clients: Vec<(ClientId, Vec<u8>)>,
    /// Connections to be closed once what is above is written: what they sent makes no sense.
    pub hang_up: Vec<ClientId>,
    /// One line an event, for the log.
    pub notes: Vec<(Level, String)>,
    /// Places that were passed (`marks`), for tests.
    pub marks: Vec<&'static str>,
    /// The replica can go no further: a message and an exit status (DESIGN 5.5, 5.6).
    pub stop: Option<(String, i32)>,
}

/// What is done once a write of `meta` is on the disk.
#[derive(Debug)]
enum Pending {
    /// The raised incarnation: the replica may speak.
    Start,
    Install(View),
}

/// One replica.
pub struct Replica {
    config: Config,
    meta: Meta,
    /// Writes of `meta` under way and what waits for them.
    pending: Vec<(WriteNumber, Pending)>,
    group: Group,
    journal: Journal,
    machine: Machine,
    door: Door,
    reads: Reads,
    compared: Compared,
    replies: Replies,
    scratch: Vec<u8>,
    cluster_if_founding: ClusterId,
    leaving: bool,
    now: Time,
    marks: Vec<&'static str>,
    /// Why requests are refused, as of the last turn.
    refusing: Option<Refusal>,
    /// The last state that was noted, so that each change is one line.
    noted: Option<String>,
}

impl Replica {
    /// Comes up with what the disk holds. The incarnation is raised and written; nothing is said before that is
    /// durable. Where the disk contradicts the configuration, `Outbox::stop` says so.
    pub fn recover(config: Config, stored: Stored<'_>, now: Time, out: &mut Outbox) -> Replica {
        let mut rng = Rng::new(config.seed);
        let fresh =
            Meta { id: config.id, birth: Birth(rng.next_u64()), directory: config.directory, ..Meta::default() };
        let mut meta = stored.meta.unwrap_or(fresh);
        let founding = Founding {
            book: config.book.clone(),
            policy: config.policy,
            min_members: config.min_members,
            durability: config.durability,
        };
        if let Some(reason) = contradiction(&config, &founding, &meta, &stored.log) {
            out.stop = Some((reason, 78));
        }
        meta.incarnation = Incarnation(meta.incarnation.0 + 1);
        meta.generation += 1;
        let me = Run { id: config.id, birth: meta.birth, incarnation: meta.incarnation };
        let settings = Settings {
            founding,
            peers: config.peers.clone(),
            heartbeat_ns: config.heartbeat_ms * Time::MS,
            suspect_after_ns: config.suspect_after_ms * Time::MS,
            path_max: config.datagram_size_max,
            receive_buffer_bytes: config.receive_buffer_bytes,
        };
        let mut replica = Replica {
            group: Group::new(settings, me, meta.cluster, rng.fork()),
            journal: Journal::new(&stored.log, config.segment_bytes),
            machine: Machine::new(),
            cluster_if_founding: ClusterId(rng.next_u64().max(1)),
            config,
            meta,
            pending: Vec::new(),
            door: Door::default(),
            reads: Reads::default(),
            compared: Compared::default(),
            replies: Replies::default(),
            scratch: Vec::new(),
            leaving: false,
            now,
            marks: Vec::new(),
            refusing: None,
            noted: None,
        };
        replica.refusing = Some(Refusal { code: Code::NotPrimary, message: "not primary: starting".into() });
        if let Some(torn) = &stored.log.torn {
            replica.marks.push(marks::TORN_CUT);
            out.notes.push((Level::Warning, torn.clone()));
        }
        if let Err(reason) = replica.replay(&stored.log) {
            out.stop = Some((reason, 70));
        }
        replica.write_meta(Pending::Start, out);
        replica
    }

    /// Applies what is known to be committed.
    fn replay(&mut self, log: &Replay<'_>) -> Result<(), String> {
        for found in log.records.iter().take_while(|found| found.record.slot <= log.committed) {
            if found.record.slot != self.machine.applied().next() {
                let (slot, applied) = (found.record.slot, self.machine.applied());
                return Err(format!("the log goes on with slot {slot} behind slot {applied}"));
            }
            self.machine.apply(found.record.slot, found.record.time, found.operations, &mut self.replies);
            self.replies.clear();
            if self.machine.digest() != found.record.digest {
                let (slot, own) = (found.record.slot, self.machine.digest());
                let recorded = found.record.digest;
                return Err(format!(
                    "slot {slot}: the log records digest {:016x}, applying it gives {:016x}",
                    recorded.0, own.0
                ));
            }
        }
        Ok(())
    }

    fn write_meta(&mut self, then: Pending, out: &mut Outbox) {
        let number = self.journal.number();
        out.meta.push(self.meta.write(number));
        self.pending.push((number, then));
    }

    /// Takes one event. Never fails, never blocks.
    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        self.now = self.now.max(now);
        let now = self.now;
        match input {
            Input::Datagram { from, bytes } => {
                let mut events = Vec::new();
                self.group.on_datagram(now, from, bytes, &mut events);
                events.into_iter().for_each(|event| self.on_event(event, out));
            }
            Input::Frame { client, frame } => self.on_frame(client, frame, out),
            Input::Gone { client } => {
                self.reads.forget(client);
                self.door.gone(client);
            }
            Input::Durable(number) => self.on_durable(number, out),
            Input::Unreachable(_) => {}
            Input::Turn => self.turn(out),
            Input::Leave => self.leaving = true,
        }
    }

    // ---- what arrives

    fn on_event(&mut self, event: Event, out: &mut Outbox) {
        match event {
            Event::Install(view) => self.install(view, out),
            Event::Asked { rank, number } => {
                if let Some(durable) = self.own_durable() {
                    self.group.tell(rank, Frame::Tell { number, durable });
                }
            }
            Event::Told { rank, number, durable } => {
                if let Some(regular) = self.group.regular() {
                    self.reads.told(&regular.view, rank, number, durable);
                }
            }
            Event::Checked { rank, slot, operations, answers } => {
                self.compared.on_check(rank, slot, (operations, answers));
            }
        }
    }

    /// Makes a view durable; it is installed when that is done. One at a time.
    fn install(&mut self, view: View, out: &mut Outbox) {
        if self.meta.installed.is_some() {
            return;
        }
        self.meta.generation += 1;
        self.meta.cluster = view.cluster;
        self.meta.installed = Some(view.clone());
        self.write_meta(Pending::Install(view), out);
    }

    fn on_durable(&mut self, number: WriteNumber, out: &mut Outbox) {
        self.journal.on_durable(self.now, number, self.config.heartbeat_ms * Time::MS);
        let synced = self.journal.synced();
        if let Some(regular) = self.group.regular_mut() {
            regular.on_durable(synced);
        }
        let (done, rest) = std::mem::take(&mut self.pending).into_iter().partition(|(n, _)| *n <= number);
        self.pending = rest;
        let done: Vec<(WriteNumber, Pending)> = done;
        for (_, pending) in done {
            match pending {
                Pending::Start => self.group.start(self.meta.installed.clone()),
                Pending::Install(view) => {
                    out.notes.push((Level::Info, format!("view {} installed: {}", view.epoch, view.members_text())));
                    self.group.install(self.now, view);
                }
            }
        }
    }

    fn on_frame(&mut self, client: ClientId, frame: &[u8], out: &mut Outbox) {
        let Ok(frame) = ToReplica::decode(frame) else {
            let message = "this is not a frame of this protocol".into();
            self.door.refuse(client, 0, 0, &Refusal { code: Code::BadRequest, message });
            return out.hang_up.push(client);
        };
        let greeted = self.door.is_greeted(client);
        match frame {
            ToReplica::Hello { version } => {
                if !self.door.hello(client, version, self.meta.cluster, self.config.id) {
                    out.hang_up.push(client);
                }
            }
            _ if !greeted => out.hang_up.push(client),
            ToReplica::Open { token } => match self.refusal() {
                Some(refusal) => self.door.refuse(client, kind::OPEN, token, &refusal),
                None => self.door.open(client, token, self.message_bytes()),
            },
            ToReplica::Use { session } => self.door.use_session(client, session),
            ToReplica::Request { number, seen, operation } => self.on_request(client, number, seen, operation),
            ToReplica::Query { number, stale, query } => self.on_query(client, number, stale, query),
            ToReplica::Admin { number, what } => {
                let json = match what {
                    Admin::Status => self.status(),
                    Admin::Members => self.members(),
                    Admin::Ready => self.ready(),
                };
                self.door.say(client, &ToClient::Told { number, json: &json.to_string() });
            }
        }
    }

    fn on_request(&mut self, client: ClientId, number: RequestNumber, seen: RequestNumber, operation: &[u8]) {
        let full = grows(operation) && self.machine.memory_bytes() > self.config.memory_limit_bytes;
        let refusal = if is_query(operation) || operation.is_empty() {
            Some(Refusal { code: Code::BadRequest, message: "this is no operation".into() })
        } else if full {
            let message = format!("the state takes more than --memory-limit {}", self.config.memory_limit_bytes);
            Some(Refusal { code: Code::Full, message })
        } else {
            self.refusal()
        };
        let admitted = match refusal.or_else(|| self.door.must_wait(client, number)) {
            Some(refusal) => Err(refusal),
            None => self.door.session_of(client),
        };
        match admitted {
            Ok(session) => self.door.pack(session, number, seen, operation, self.message_bytes()),
            Err(refusal) => self.door.refuse(client, kind::REQUEST, number.0, &refusal),
        }
    }

    fn on_query(&mut self, client: ClientId, number: u64, stale: bool, query: &[u8]) {
        let read = Read { client, number, query: query.to_vec() };
        if !is_query(query) {
            let refusal = Refusal { code: Code::BadRequest, message: "this is no query".into() };
            return self.door.refuse(client, kind::QUERY, number, &refusal);
        }
        let full = || Refusal { code: Code::Busy, message: "too many reads wait for their answers".into() };
        match self.refusal().or_else(|| self.reads.is_full().then(full)).filter(|_| !stale) {
            Some(refusal) => self.door.refuse(client, kind::QUERY, number, &refusal),
            None if stale => self.answer_read(read),
            None => self.reads.push(read),
        }
    }

    fn answer_read(&mut self, read: Read) {
        let mut answer = Vec::new();
        self.machine.query(&read.query, &mut answer);
        let found = ToClient::Found { number: read.number, slot: self.machine.applied(), answer: &answer };
        self.door.say(read.client, &found);
    }

    /// Why this replica takes no requests, if it does not, as of the last turn.
    fn refusal(&mut self) -> Option<Refusal> {
        if self.refusing.is_some() && self.group.regular().is_some() {
            self.marks.push(marks::REFUSED_MISSING);
        }
        self.refusing.clone()
    }

    /// Bytes of requests that fit one message today.
    fn message_bytes(&self) -> usize {
        self.group.regular().map_or(crate::limits::DATAGRAM_SIZES[0], |regular| regular.message_bytes())
    }

    /// What this member may answer for itself: how far its log is durable in the view in which it has rank.
    fn own_durable(&self) -> Option<Slot> {
        self.group.regular().map(|regular| regular.commit.report(regular.rank).durable)
    }

    // ---- the turn

    /// Packs, orders, logs, applies, answers and speaks, once for all that was handed over.
    fn turn(&mut self, out: &mut Outbox) {
        let now = self.now;
        if self.meta.installed.is_none() {
            if let Some(view) = self.group.view_one(now, self.cluster_if_founding) {
                self.install(view, out);
            }
        }
        let due = self.machine.due();
        if let Some(regular) = self.group.regular_mut() {
            while regular.flow.is_open() {
                let Some(operations) = self.door.next_packed() else { break };
                regular.send(operations);
            }
            regular.transmit();
            regular.announce(now, due);
        }
        self.log_known(out);
        self.apply_committed();
        self.ask_and_answer_reads();
        self.journal_mark(out);
        let check = self.compared.check();
        self.group.speak(now, check, &mut out.net);
        self.door.take_unsent(&mut out.clients);
        self.look_around(out);
        out.marks.append(&mut self.marks);
        out.marks.append(&mut self.reads.marks);
        out.marks.append(&mut self.group.take_marks());
        if self.leaving {
            out.stop.get_or_insert(("asked to stop".into(), 0));
        }
    }

    /// Rule 4: each fully held slot goes to the log, in slot order.
    fn log_known(&mut self, out: &mut Outbox) {
        let Some(regular) = self.group.regular() else { return };
        if self.journal.logged() >= regular.window.known() {
            return;
        }
        let positions = self.positions();
        let number = self.journal.number();
        while self.journal.logged() < regular.window.known() {
            let slot = self.journal.logged().next();
            let order = regular.window.order(slot).expect("a known slot's order is held");
            let payloads: Vec<&[u8]> = regular.window.payloads(slot, sequencer(regular, slot)).collect();
            self.journal.append(number, slot, order.time, &payloads, &positions, &mut out.log);
        }
    }

    fn positions(&self) -> Positions {
        let Some(regular) = self.group.regular() else { return Positions::default() };
        let (view, commit) = (&regular.view, &regular.commit);
        Positions {
            epoch: view.epoch,
            committed: commit.committed().min(regular.window.known()),
            durable_known: commit.reports().map(|(_, r)| r.durable).max().expect("a view has members"),
            vector: commit.reports().map(|(rank, r)| (view.member(rank).id, r.durable)).collect(),
        }
    }

    fn journal_mark(&mut self, out: &mut Outbox) {
        if self.journal.deadline().is_some_and(|due| due <= self.now) && self.group.regular().is_some() {
            let positions = self.positions();
            self.journal.mark(self.now, &positions, &mut out.log);
        }
    }

    /// Rule 5: only committed slots are applied, and only applied operations are answered.
    fn apply_committed(&mut self) {
        let Some(regular) = self.group.regular_mut() else { return };
        let committed = regular.count();
        while self.machine.applied() < committed {
            let slot = self.machine.applied().next();
            let time = regular.window.order(slot).expect("a committed slot is held until it is applied").time;
            let mut payloads = regular.window.payloads(slot, sequencer(regular, slot));
            let (first, second) = (payloads.next().unwrap_or_default(), payloads.next());
            let operations = match second {
                None => first,
                Some(second) => {
                    self.scratch.clear();
                    [first, second].into_iter().chain(payloads).for_each(|p| self.scratch.extend_from_slice(p));
                    &self.scratch
                }
            };
            self.machine.apply(slot, time, operations, &mut self.replies);
            self.door.answer(&self.replies);
            self.replies.clear();
            self.compared.applied(slot, (self.machine.digest(), self.machine.answers_digest()));
        }
        regular.release(self.machine.applied());
    }

    fn ask_and_answer_reads(&mut self) {
        if let Some(own) = self.own_durable() {
            let regular = self.group.regular().expect("only a member with rank counts itself");
            if let Some(number) = self.reads.ask(self.now, &regular.view, regular.rank, own) {
                self.group.tell_all(Frame::Ask { number });
            }
        }
        for read in self.reads.ready(self.machine.applied()) {
            self.answer_read(read);
        }
    }

    /// Looks at whether requests can be taken, and notes each change in one line.
    fn look_around(&mut self, out: &mut Outbox) {
        let reason = self.reason();
        if self.noted != reason || self.refusing.is_some() != reason.is_some() {
            out.notes.push((Level::Info, self.summary().1));
            self.noted = reason.clone();
        }
        let code = if self.compared.diverged() { Code::Internal } else { Code::NotPrimary };
        self.refusing = reason.map(|reason| Refusal { code, message: format!("not primary: {reason}") });
        if self.leaving {
            self.refusing = Some(Refusal { code: Code::Stopping, message: "this replica is stopping".into() });
        }
    }

    /// When `Turn` must come at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let open = self.group.regular().is_some_and(|regular| regular.flow.is_open());
        if open && self.door.pending_bytes() > 0 || self.reads.is_due() {
            return Some(self.now);
        }
        let regular = self.group.regular().is_some();
        let mark = self.journal.deadline().filter(|_| regular);
        let reads = self.reads.deadline().filter(|_| regular);
        [self.group.deadline(self.machine.due()), mark, reads].into_iter().flatten().min()
    }

    /// Whether client frames may be handed over: false while the window is full. The driver then stops reading from
    /// its clients, and asks again after each turn.
    pub fn accepts(&self) -> bool {
        self.door.pending_bytes() < PENDING_BYTES_MAX
    }

    // ---- positions, for the drivers and the judges

    /// Highest slot applied, and the digest of the history up to it.
    pub fn applied(&self) -> (Slot, Digest) {
        (self.machine.applied(), self.machine.digest())
    }

    /// Highest slot this replica knows to be committed and holds.
    pub fn committed(&self) -> Slot {
        let regular = self.group.regular();
        regular.map_or(self.machine.applied(), |r| r.commit.committed().min(r.window.known()))
    }

    /// Highest slot up to which every order and payload is here.
    pub fn known(&self) -> Slot {
        self.group.regular().map_or(self.journal.logged(), |r| r.window.known())
    }

    /// Highest slot whose record is on this replica's disk.
    pub fn durable(&self) -> Slot {
        self.journal.synced()
    }

    /// Bytes of messages and requests held.
    pub fn buffered_bytes(&self) -> usize {
        self.door.pending_bytes() + self.group.regular().map_or(0, |r| r.window.bytes())
    }

    /// The replicated state, as a snapshot has it.
    pub fn snapshot(&self) -> Vec<u8> {
        self.machine.snapshot()
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    fn config(&self) -> &Config {
        &self.config
    }

    /// The time of the last event.
    fn now(&self) -> Time {
        self.now
    }

    fn clients(&self) -> usize {
        self.door.guests()
    }

    fn memory_bytes(&self) -> u64 {
        self.machine.memory_bytes()
    }

    fn compare_diverged(&self) -> bool {
        self.compared.diverged()
    }
}

fn sequencer(regular: &crate::group::order::Regular, slot: Slot) -> Rank {
    if crate::group::broken::is("sequencer-not-first") {
        return regular.rank;
    }
    regular.view.sequencer(slot)
}

/// Why this disk is not this replica's, or not one it can start from.
fn contradiction(config: &Config, founding: &Founding, meta: &Meta, log: &Replay<'_>) -> Option<String> {
    if meta.id != config.id {
        return Some(format!("the data directory belongs to replica {}, not {}", meta.id, config.id));
    }
    if let Some(damage) = &log.damaged {
        return Some(format!("the log is damaged: {damage}"));
    }
    let Some(view) = &meta.installed else {
        let lost = !log.records.is_empty();
        return lost.then(|| "the data directory holds a log but no view that it belongs to".into());
    };
    let differs = founding.founded(view).err()?;
    Some(format!("the group was founded with another value of {differs}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::view::BookEntry;
    use crate::types::SessionId;
    use crate::wire::client::first_frame;
    use crate::wire::operation::{QueueOperation, QueueQuery, Target};

    /// Replicas on a network that loses every packet the generator says, with disks that are done at once.
    struct Bench {
        replicas: Vec<Replica>,
        now: Time,
        rng: Rng,
        loss_ppm: u32,
        told: Vec<(ClientId, Vec<u8>)>,
    }

    impl Bench {
        fn new(n: u8, loss_ppm: u32) -> Bench {
            let ids = (1..=n).map(ReplicaId);
            let book: Book = ids.clone().map(|id| BookEntry { id, address: format!("h{id}:1"), http: None }).collect();
            let ip = |id: ReplicaId| IpAddr::from([10, 0, 0, id.0]);
            let peers: Vec<Peer> = ids.clone().map(|id| Peer { id, ip: ip(id) }).collect();
            let mut bench = Bench { replicas: vec![], now: Time(1), rng: Rng::new(7), loss_ppm, told: vec![] };
            for id in ids {
                let config = Config {
                    id,
                    book: book.clone(),
                    peers: peers.clone(),
                    policy: Policy::Dynamic,
                    min_members: 1,
                    durability: Durability::Disk,
                    heartbeat_ms: 50,
                    suspect_after_ms: 500,
                    receive_buffer_bytes: 400_000,
                    memory_limit_bytes: 1 << 40,
                    segment_bytes: 1 << 22,
                    datagram_size_max: 6,
                    directory: [0; 2],
                    seed: u64::from(id.0),
                };
                let mut out = Outbox::default();
                let replica = Replica::recover(config, Stored::default(), bench.now, &mut out);
                bench.replicas.push(replica);
                bench.carry_out(usize::from(id.0) - 1, out);
            }
            bench
        }

        /// Carries an outbox out, and whatever follows from it.
        fn carry_out(&mut self, from: usize, out: Outbox) {
            let mut work = vec![(from, out)];
            while let Some((from, out)) = work.pop() {
                assert!(out.stop.is_none(), "{:?}", out.stop);
                self.told.extend(out.clients);
                let written = out.log.iter().map(|w| w.number).chain(out.meta.iter().map(|w| w.number)).max();
                let mut next = Outbox::default();
                if let Some(number) = written {
                    self.replicas[from].step(self.now, Input::Durable(number), &mut next);
                    self.replicas[from].step(self.now, Input::Turn, &mut next);
                    work.push((from, next));
                }
                for (dest, bytes) in out.net {
                    for to in 0..self.replicas.len() {
                        if dest.contains(ReplicaId(to as u8 + 1)) && !self.rng.chance(self.loss_ppm) {
                            let mut next = Outbox::default();
                            let ip = IpAddr::from([10, 0, 0, from as u8 + 1]);
                            self.replicas[to].step(self.now, Input::Datagram { from: ip, bytes: &bytes }, &mut next);
                            self.replicas[to].step(self.now, Input::Turn, &mut next);
                            work.push((to, next));
                        }
                    }
                }
            }
        }

        fn run_ms(&mut self, ms: u64) {
            for _ in 0..ms * 4 {
                self.now = self.now.after_ns(Time::MS / 4);
                for at in 0..self.replicas.len() {
                    if self.replicas[at].deadline().is_some_and(|d| d <= self.now) {
                        let mut out = Outbox::default();
                        self.replicas[at].step(self.now, Input::Turn, &mut out);
                        self.carry_out(at, out);
                    }
                }
            }
        }

        fn say(&mut self, at: usize, client: u64, frame: &ToReplica<'_>) {
            let (mut bytes, mut out) = (Vec::new(), Outbox::default());
            frame.encode(&mut bytes);
            self.replicas[at].step(self.now, Input::Frame { client: ClientId(client), frame: &bytes[4..] }, &mut out);
            self.replicas[at].step(self.now, Input::Turn, &mut out);
            self.carry_out(at, out);
        }

        /// The answers to requests, and the session if one was opened.
        fn heard(&mut self) -> (Vec<(u64, Vec<u8>)>, Option<SessionId>) {
            let (mut answers, mut opened) = (vec![], None);
            for (_, bytes) in std::mem::take(&mut self.told) {
                let mut rest = &bytes[..];
                while let Ok(Some((frame, used))) = first_frame(rest) {
                    match ToClient::decode(frame).expect("a frame") {
                        ToClient::Reply { number, answer, .. } => answers.push((number.0, answer.to_vec())),
                        ToClient::Found { number, answer, .. } => answers.push((number, answer.to_vec())),
                        ToClient::Opened { session, .. } => opened = Some(session),
                        ToClient::Refused { message, .. } => panic!("refused: {message}"),
                        _ => {}
                    }
                    rest = &rest[used..];
                }
            }
            (answers, opened)
        }
    }

    fn pushes_and_reads(n: u8, loss_ppm: u32) {
        let mut bench = Bench::new(n, loss_ppm);
        bench.run_ms(3000);
        assert!(bench.replicas.iter().all(|r| r.reason().is_none()), "{:?}", bench.replicas[0].reason());
        bench.say(0, 1, &ToReplica::Hello { version: 1 });
        bench.say(0, 1, &ToReplica::Open { token: 99 });
        bench.run_ms(2000);
        bench.heard().1.expect("a session");
        let item = vec![7u8; 100_000];
        for number in 1..=60u64 {
            let mut operation = Vec::new();
            let items = [item.as_slice(), b"small"];
            QueueOperation::encode_push(&mut operation, Target::Label("jobs"), items.into_iter());
            let request =
                ToReplica::Request { number: RequestNumber(number), seen: RequestNumber(0), operation: &operation };
            bench.say(0, 1, &request);
        }
        bench.run_ms(6000);
        let (answers, _) = bench.heard();
        assert_eq!(answers.len(), 60);
        bench.say(n as usize - 1, 2, &ToReplica::Hello { version: 1 });
        let mut query = Vec::new();
        QueueQuery::Size { target: Target::Label("jobs") }.encode(&mut query);
        bench.say(n as usize - 1, 2, &ToReplica::Query { number: 5, stale: false, query: &query });
        bench.run_ms(2000);
        assert_eq!(bench.heard().0, vec![(5, vec![0, 120])]);
        let states: Vec<_> = bench.replicas.iter().map(|r| (r.applied(), r.snapshot())).collect();
        assert!(states.windows(2).all(|w| w[0] == w[1]));
        assert_eq!(bench.replicas[0].buffered_bytes(), 0, "all is released");
    }

    #[test]
    fn one_replica_is_a_group() {
        pushes_and_reads(1, 0);
    }

    #[test]
    fn three_replicas_agree() {
        pushes_and_reads(3, 0);
    }

    #[test]
    fn seven_replicas_agree_though_a_fifth_is_lost() {
        pushes_and_reads(7, 200_000);
    }
}
