//! One virtual host: a replica with its clock, its disk and its loop.

use std::collections::VecDeque;

use ftq::limits::SEGMENT_BYTES;
use ftq::replica::{Config, Outbox, Replica};
use ftq::rng::Rng;
use ftq::types::{ClientId, ReplicaId, Time};
use ftq::wire::view::{BookEntry, Peer};

use super::clock::{Clock, Nanos, MS, US};
use super::crash::Fuse;
use super::disk::Disk;
use super::net;
use super::plan::Plan;
use super::world::Event;

pub struct Node {
    pub config: Config,
    pub clock: Clock,
    pub disk: Disk,
    pub replica: Option<Replica>,
    /// Counts its starts: what was under way for an earlier life is void.
    pub life: u32,
    /// When it goes down, if that is to be.
    pub fuse: Option<Fuse>,
    /// The whole host is down, not only the process: nothing answers for it.
    pub host_down: bool,
    /// When it will come up again.
    pub back_at: Option<Nanos>,
    /// It stays as it is to the end of the run.
    pub given_up: bool,
    /// It sends before it writes.
    pub sends_first: bool,
    /// When the loop will turn, where something was handed over since it last did.
    pub turn_at: Option<Nanos>,
    /// When the loop will look at the replica's deadline.
    pub wake_at: Option<Nanos>,
    /// The deadline that this is for.
    pub wake_due: Nanos,
    /// The loop does not run before. What arrives meanwhile waits.
    pub paused_until: Nanos,
    pub waiting: VecDeque<Event>,
    pub waiting_bytes: usize,
    /// One entry for each frame of a client that waits to be handed over: whose.
    pub frames_of: VecDeque<ClientId>,
    /// Where it stood when that was last traced.
    pub positions: String,
    /// Turns in a row that left the deadline where it was.
    pub spins: u32,
    pub rng: Rng,
    /// Events come exactly when they should, for transcripts.
    pub exact: bool,
}

impl Node {
    pub fn new(index: usize, plan: &Plan, rng: &mut Rng, exact: bool) -> Node {
        let ids = || (1..=plan.replicas as u8).map(ReplicaId);
        let book = ids().map(|id| BookEntry { id, address: format!("10.0.0.{id}:7400"), http: None }).collect();
        let peers = ids().map(|id| Peer { id, ip: net::address(usize::from(id.0) - 1) }).collect();
        let drawn = if rng.chance(500_000) { SEGMENT_BYTES } else { rng.between(4 << 10, 1 << 20) };
        // Many are small, so that there are snapshots.
        let segment_bytes = if drawn == SEGMENT_BYTES { drawn } else { (drawn >> (drawn % 4 * 2)).max(4 << 10) };
        let config = Config {
            id: ReplicaId(index as u8 + 1),
            book,
            peers,
            policy: plan.policy,
            min_members: plan.min_members,
            durability: plan.durability,
            heartbeat_ms: plan.heartbeat_ms,
            suspect_after_ms: 10 * plan.heartbeat_ms,
            receive_buffer_bytes: plan.receive_buffer_bytes,
            memory_limit_bytes: 1 << 30,
            segment_bytes,
            datagram_size_max: plan.datagram_size_max,
            directory: [index as u64 + 1, 1],
            seed: rng.next_u64(),
        };
        let clock = if exact { Clock::exact() } else { Clock::new(rng, plan.drift_max_ppm) };
        Node {
            config,
            clock,
            disk: Disk::new(plan.disk, rng.fork()),
            replica: None,
            life: 0,
            fuse: None,
            host_down: false,
            back_at: None,
            given_up: false,
            sends_first: !exact && rng.chance(500_000),
            turn_at: None,
            wake_at: None,
            wake_due: 0,
            paused_until: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            frames_of: VecDeque::new(),
            positions: String::new(),
            spins: 0,
            rng: rng.fork(),
            exact,
        }
    }

    /// How long the loop goes on collecting what arrives before it turns.
    pub fn turn_delay(&mut self) -> Nanos {
        if self.exact {
            return 0;
        }
        match self.rng.below(100) {
            0..=69 => 0,
            70..=94 => self.rng.below(100 * US),
            _ => self.rng.below(2 * MS),
        }
    }

    /// How late the loop notices that a deadline has passed.
    pub fn lateness(&mut self) -> Nanos {
        if self.exact {
            return 0;
        }
        match self.rng.below(100) {
            0..=94 => self.rng.below(60 * US),
            _ => self.rng.below(5 * MS),
        }
    }

    /// The process is gone.
    pub fn stop(&mut self) {
        self.replica = None;
        self.life += 1;
        self.fuse = None;
        self.turn_at = None;
        self.wake_at = None;
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.frames_of.clear();
        self.paused_until = 0;
    }

    /// A deadline that does not move although the loop turns would keep a processor busy for nothing.
    pub fn judge_spin(&mut self, now: Nanos, deadline: Option<Time>) -> Result<(), String> {
        let replica = self.replica.as_ref().expect("it has just turned");
        let overdue = deadline.is_some_and(|deadline| deadline <= self.clock.read(now));
        self.spins = if overdue { self.spins + 1 } else { 0 };
        if self.spins > 1000 {
            let (id, proposing) = (self.config.id, replica.group().change().proposing());
            let status = replica.status();
            return Err(format!("{id} turns and turns, and its deadline stays where it is: {proposing:?} {status}"));
        }
        Ok(())
    }
}

/// An outbox for the next step, empty again.
pub fn cleared(mut out: Outbox) -> Outbox {
    out.log.clear();
    out.meta.clear();
    out.net.clear();
    out.clients.clear();
    out.hang_up.clear();
    out.streams.clear();
    out.reads.clear();
    (out.snapshot, out.trim) = (None, None);
    out.notes.clear();
    out.marks.clear();
    out.stop = None;
    out
}
