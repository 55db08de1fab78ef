//! One replica behind one door: group, log, sessions and services. Pure; driven by the reactor and the simulator
//! alike. [`Replica::step`] is handed an event and appends to an [`Outbox`] what is to be done.
//!
//! What depends on the disk is released by [`Input::Durable`], never by the order in which a driver works. Within a
//! turn of the loop any number of events may be handed over; [`Input::Turn`] ends it: then messages are packed,
//! slots announced and logged, and what must be said is said, once for all of them.

pub mod attendance;
mod catchup;
pub mod compare;
pub mod door;
pub mod follow;
mod house;
pub mod journal;
pub mod machine;
pub mod read;
mod recover;
mod requests;
mod roster;
pub mod serve;
pub mod session;
pub mod status;
pub mod store;
pub mod tail;
mod views;

pub use recover::log_is_damaged;

use std::net::IpAddr;

use crate::group::{Event, Group};
use crate::limits::{LEAVE_WAIT_NS, PENDING_BYTES_MAX};
use crate::log::{LogWrite, Meta, MetaWrite, Replay, SegmentNumber, Snapshot};
use crate::replica::compare::Compared;
use crate::replica::door::{Door, Refusal};
use crate::replica::follow::Follow;
use crate::replica::journal::{Journal, Positions};
use crate::replica::machine::{Machine, Replies};
use crate::replica::read::Reads;
use crate::replica::serve::Serve;
use crate::replica::store::Store;
use crate::replica::tail::Tail;
use crate::replica::views::Waits;
use crate::types::{Birth, ClientId, ClusterId, Dest, Digest, Epoch, Rank, ReplicaId, Slot, Time, WriteNumber};
use crate::wire::answer::Code;
use crate::wire::datagram::Frame;
use crate::wire::view::{Book, Durability, Peer, Policy, View};

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
    /// The newest snapshot that is whole, and the state in it.
    pub snapshot: Option<(Snapshot, &'a [u8])>,
    /// The slots of that and of the older ones, rising.
    pub snapshots: Vec<Slot>,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram from this address.
    Datagram {
        from: IpAddr,
        bytes: &'a [u8],
    },
    /// One frame of a client (`wire::client`), its length taken off.
    Frame {
        client: ClientId,
        frame: &'a [u8],
    },
    /// The client's connection is gone.
    Gone {
        client: ClientId,
    },
    /// More than `CLIENT_UNSENT_BYTES_MAX` waits to be written to this client: reads of it are answered when it flows
    /// again.
    Stalled {
        client: ClientId,
    },
    Flowing {
        client: ClientId,
    },
    /// All writes up to this number are on the disk.
    Durable(WriteNumber),
    /// The kernel says that nobody listens at this replica's port.
    Unreachable(ReplicaId),
    /// Everything that was waiting has been handed over, or the deadline has come: pack, order, write, say.
    Turn,
    /// The operator wants this replica to leave (SIGTERM).
    Leave,
    /// What [`Outbox::reads`] asked for: fewer bytes where the file ends there, none where it is gone.
    Read {
        token: u64,
        bytes: &'a [u8],
    },
    /// A whole frame of another replica, from a connection of its address (`wire::stream`). Frames may be lost with a
    /// connection, never reordered within one.
    Stream {
        from: ReplicaId,
        frame: &'a [u8],
    },
    /// The snapshot that [`Outbox::snapshot`] asked for is on the disk under its name, or could not be made.
    Snapshot {
        slot: Slot,
        made: bool,
    },
}

/// A file of the data directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StoredFile {
    Segment(SegmentNumber),
    /// The snapshot of this slot.
    Snapshot(Slot),
}

/// A read of what is on the disk, answered by [`Input::Read`] in a later turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadRequest {
    pub token: u64,
    pub file: StoredFile,
    pub offset: u64,
    pub bytes: u32,
}

/// What of the data directory is needed no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    pub segments_below: SegmentNumber,
    pub snapshots_below: Slot,
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
    /// Whole frames for other replicas, over a stream. Lost where there is no connection and none comes about.
    pub streams: Vec<(ReplicaId, Vec<u8>)>,
    pub reads: Vec<ReadRequest>,
    /// The state as it is now is to be written into a file (`Replica::snapshot` is what stands behind the header):
    /// by a child, beside the loop. One at a time.
    pub snapshot: Option<Snapshot>,
    pub trim: Option<Trim>,
    /// One line an event, for the log.
    pub notes: Vec<(Level, String)>,
    /// Places that were passed (`marks`), for tests.
    pub marks: Vec<&'static str>,
    /// The replica can go no further: a message and an exit status (DESIGN 5.5, 5.6).
    pub stop: Option<(String, i32)>,
}

/// A replica that was asked to stop.
#[derive(Debug)]
struct Leaving {
    since: Time,
    /// Since when everything it took in is answered, and the others are told.
    settled: Option<Time>,
}

/// One replica.
pub struct Replica {
    config: Config,
    meta: Meta,
    /// The write that makes the raised incarnation durable, and whether it has.
    start: WriteNumber,
    started: bool,
    /// The last write known durable.
    durable_write: WriteNumber,
    waits: Waits,
    group: Group,
    journal: Journal,
    store: Store,
    /// The view of a state that came from another replica and is not on the disk yet.
    arrived: Option<View>,
    tail: Tail,
    /// The epoch of the last slot applied.
    applied_epoch: Epoch,
    follow: Follow,
    serve: Serve,
    machine: Machine,
    door: Door,
    reads: Reads,
    compared: Compared,
    replies: Replies,
    scratch: Vec<u8>,
    cluster_if_founding: ClusterId,
    birth_if_distrusted: Birth,
    /// Once this write is durable the replica stops, for its directory is no longer what it was; and why.
    ending: Option<(WriteNumber, String)>,
    /// The highest slot that the log named as durable anywhere, at start-up.
    durable_known: Slot,
    leaving: Option<Leaving>,
    now: Time,
    marks: Vec<&'static str>,
    /// Why requests are refused, as of the last turn.
    refusing: Option<Refusal>,
    /// The last state that was noted, so that each change is one line.
    noted: Option<Option<String>>,
}

impl Replica {
    /// Takes one event. Never fails, never blocks.
    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        self.now = self.now.max(now);
        let now = self.now;
        if self.ending.is_some() {
            return self.end(input, out);
        }
        self.group.mind_own_pause(now);
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
            Input::Stalled { client } => self.door.set_stalled(client, true),
            Input::Flowing { client } => self.door.set_stalled(client, false),
            Input::Durable(number) => self.on_durable(number, out),
            Input::Unreachable(id) => self.group.on_refused(now, id),
            Input::Turn => self.turn(out),
            Input::Leave => self.leave(),
            Input::Read { token, bytes } => self.on_read(token, bytes, out),
            Input::Stream { from, frame } => self.on_stream(from, frame, out),
            Input::Snapshot { slot, made } => self.on_snapshot(slot, made, out),
        }
    }

    // ---- what arrives

    fn on_event(&mut self, event: Event, out: &mut Outbox) {
        match event {
            Event::Change { from, frame } => self.on_change(from, *frame, out),
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

    fn on_durable(&mut self, number: WriteNumber, out: &mut Outbox) {
        self.durable_write = self.durable_write.max(number);
        self.journal.on_durable(self.now, number, self.config.heartbeat_ms * Time::MS);
        let synced = self.journal.synced();
        if let Some(regular) = self.group.regular_mut() {
            regular.on_durable(synced);
        }
        if !self.started && self.start <= self.durable_write {
            self.started = true;
            self.group.start(self.now);
        }
        self.on_views_durable(out);
    }

    /// What this member may answer for itself: how far its log is durable in the view in which it has rank.
    fn own_durable(&self) -> Option<Slot> {
        self.group.regular().map(|regular| regular.commit.report(regular.rank).durable)
    }

    // ---- the turn

    /// Packs, orders, logs, applies, answers and speaks, once for all that was handed over.
    fn turn(&mut self, out: &mut Outbox) {
        let now = self.now;
        self.tend_views(out);
        self.follow_others(out);
        self.serve_others(out);
        self.attend();
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
        self.keep_house(out);
        self.ask_and_answer_reads();
        self.leave_when_settled(out);
        self.journal_mark(out);
        let check = self.compared.check();
        self.group.speak(now, check, &mut out.net);
        self.look_around(out);
        self.door.take_unsent(&mut out.clients);
        out.marks.append(&mut self.marks);
        out.marks.append(&mut self.reads.marks);
        out.marks.append(&mut self.group.take_marks());
    }

    fn leave(&mut self) {
        let leaving = Leaving { since: self.now, settled: None };
        self.leaving.get_or_insert(leaving);
    }

    /// Whoever leaves first answers what it has taken in, then lets the others go on without it, and gives up after a
    /// while; its last word in the log is how far it is.
    fn leave_when_settled(&mut self, out: &mut Outbox) {
        let (now, applied) = (self.now, self.machine.applied());
        let Some(leaving) = &mut self.leaving else { return };
        let settled = self.group.regular().is_none_or(|regular| {
            let own = regular.window.held(regular.rank);
            let ordered = regular.window.last_order().cuts.of(regular.rank) == own;
            ordered && regular.window.announced() == applied && self.door.pending_bytes() == 0
        });
        if leaving.settled.is_none() && (settled || now.since_ns(leaving.since) >= LEAVE_WAIT_NS) {
            leaving.settled = Some(now);
            self.group.leave();
        }
        let Some(settled) = leaving.settled else { return };
        let alone = self.group.newest().is_none_or(|view| view.members == [self.group.me()]);
        let let_go = (alone || self.group.is_let_go(now)) && self.journal.synced() == self.journal.logged();
        if let_go || now.since_ns(settled) >= LEAVE_WAIT_NS {
            self.journal.hasten_mark();
            self.write_clean(out);
            out.stop.get_or_insert(("asked to stop".into(), 0));
        }
    }

    /// The last word of `meta` in this life: nothing said here is lost. It may reach the disk before what is under way.
    fn write_clean(&mut self, out: &mut Outbox) {
        let synced = self.journal.synced() == self.journal.logged();
        if synced && self.started && !self.meta.clean && self.group.change().is_whole() {
            self.meta.clean = true;
            self.meta.generation += 1;
            let number = self.journal.number();
            out.meta.push(self.meta.write(number));
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
        let Some(regular) = self.group.regular() else {
            return Positions {
                epoch: self.group.newest().map_or(Epoch(0), |view| view.epoch),
                committed: self.machine.applied(),
                durable_known: self.durable_known,
                vector: self.group.change().remembers().to_vec(),
            };
        };
        let (view, commit) = (&regular.view, &regular.commit);
        Positions {
            epoch: view.epoch,
            committed: commit.committed().min(regular.window.known()),
            durable_known: commit.reports().map(|(_, r)| r.durable).max().expect("a view has members"),
            vector: commit.reports().map(|(rank, r)| (view.member(rank).id, r.durable)).collect(),
        }
    }

    fn journal_mark(&mut self, out: &mut Outbox) {
        if self.journal.deadline().is_some_and(|due| due <= self.now) {
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
            self.applied_epoch = regular.view.epoch;
            self.compared.applied(slot, (self.machine.digest(), self.machine.answers_digest()));
        }
        regular.release(self.machine.applied());
    }

    /// Looks at whether requests can be taken, and notes each change in one line.
    fn look_around(&mut self, out: &mut Outbox) {
        let reason = self.reason();
        let code = if self.compared.diverged() { Code::Internal } else { Code::NotPrimary };
        // What can't be ordered for a moment waits: a change of the view is soon over.
        let patient = self.group.newest().is_some() && !self.group.is_secondary(self.now);
        let passes = patient && reason.is_some() && !self.compared.diverged();
        if self.noted.as_ref() != Some(&reason) && !passes {
            out.notes.push((Level::Info, self.summary().1));
            self.noted = Some(reason.clone());
        }
        let reason = reason.filter(|_| !passes);
        let served = self.refusing.is_none();
        self.refusing = reason.map(|reason| Refusal { code, message: format!("not primary: {reason}") });
        if self.leaving.is_some() {
            self.refusing = Some(Refusal { code: Code::Stopping, message: "this replica is stopping".into() });
        }
        if let Some(refusal) = self.refusing.clone() {
            self.door.refuse_openings(&refusal);
            if served {
                self.close_door(&refusal);
            }
        }
    }

    /// When `Turn` must come at the latest.
    pub fn deadline(&self) -> Option<Time> {
        if self.ending.is_some() {
            return None;
        }
        let open = self.group.regular().is_some_and(|regular| regular.flow.is_open());
        let regular = self.group.regular().is_some();
        if open && self.door.pending_bytes() > 0 || regular && self.reads.is_due() || self.has_answerable_read() {
            return Some(self.now);
        }
        let mark = self.journal.deadline();
        let reads = self.reads.deadline().filter(|_| regular);
        let leave = self.leaving.as_ref().map(|l| l.settled.unwrap_or(l.since).after_ns(LEAVE_WAIT_NS));
        let (catch_up, attend) = (self.catch_up_deadline(), self.attend_at());
        [self.group.deadline(self.machine.due()), mark, reads, leave, catch_up, attend].into_iter().flatten().min()
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
        self.door.pending_bytes() + self.tail.bytes() + self.group.window().map_or(0, |r| r.window.bytes())
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
    pub fn now(&self) -> Time {
        self.now
    }

    /// Bytes of memory the replicated state takes, roughly.
    pub fn memory_bytes(&self) -> u64 {
        self.machine.memory_bytes()
    }

    /// What that may be before requests that grow it are refused here.
    pub fn memory_limit_bytes(&self) -> u64 {
        self.config.memory_limit_bytes
    }

    /// Sessions in the replicated table.
    pub fn sessions(&self) -> usize {
        self.machine.sessions()
    }

    /// Requests answered at this replica's door so far, by what they came to.
    pub fn answered(&self) -> impl Iterator<Item = (Code, u64)> + '_ {
        self.door.answered()
    }

    /// Appends the answer to a query, from the state as it is here.
    pub fn look(&self, query: &[u8], answer: &mut Vec<u8>) {
        self.machine.query(query, answer);
    }

    fn clients(&self) -> usize {
        self.door.guests()
    }

    fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    fn compare_diverged(&self) -> bool {
        self.compared.diverged()
    }
}

fn sequencer(regular: &crate::group::order::Regular, slot: Slot) -> Rank {
    if crate::broken::is("sequencer-not-first") {
        return regular.rank;
    }
    regular.view.sequencer(slot)
}

#[cfg(test)]
mod tests;
