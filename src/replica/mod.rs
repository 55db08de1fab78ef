//! One replica behind one door: group, log, sessions and services. Pure; driven by the reactor and the simulator
//! alike. [`Replica::step`] is handed an event and appends to an [`Outbox`] what is to be done.
//!
//! What depends on the disk is released by [`Input::Durable`], never by the order in which a driver works. Within a
//! turn of the loop any number of events may be handed over; [`Input::Turn`] ends it: then messages are packed,
//! slots announced and logged, and what must be said is said, once for all of them.

pub mod machine;
pub mod session;

use std::net::IpAddr;

use crate::group::view::{Book, Durability, Peer, Policy};
use crate::log::{LogWrite, Meta, MetaWrite, Replay};
use crate::types::{ClientId, ReplicaId, Time, WriteNumber};

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
    /// The replica can go no further: a message and an exit status (DESIGN 5.5, 5.6).
    pub stop: Option<(String, i32)>,
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    config: Config,
}

impl Replica {
    /// Comes up with what the disk holds. The incarnation is raised and written; nothing is said before that is
    /// durable.
    pub fn recover(config: Config, stored: Stored<'_>, now: Time, out: &mut Outbox) -> Replica {
        let _ = (stored, now, out);
        Replica { config }
    }

    /// Takes one event. Never fails, never blocks.
    pub fn step(&mut self, now: Time, input: Input<'_>, out: &mut Outbox) {
        let _ = (now, input, out, &self.config);
    }

    /// When `Turn` must come at the latest.
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// Whether client frames may be handed over: false while the window is full. The driver then stops reading from
    /// its clients, and asks again after each turn.
    pub fn accepts(&self) -> bool {
        true
    }

    /// The JSON object of `ftqc status`.
    pub fn status(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// One line for systemd: what the replica is doing, and whether it can serve.
    pub fn summary(&self) -> (bool, String) {
        (false, String::new())
    }
}
