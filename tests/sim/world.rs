//! One run: replicas, network, disks, clocks and clients, everything from one seed. Events happen one after the other
//! in the order of (time, sequence); after each the judges look. What an event does to a replica is in `driver`, what
//! goes wrong in `faults`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use ftq::log::replay;
use ftq::log::snapshot::choose;
use ftq::replica::{Outbox, ReadRequest};
use ftq::rng::Rng;
use ftq::types::{ClientId, Slot, WriteNumber};
use ftq::wire::view::Durability;
use slab::Slab;

use super::chain::Set;
use super::client::Client;
use super::clock::{Nanos, MS};
use super::connections::Connection;
use super::disk::Lane;
use super::heights::Height;
use super::judges::Judges;
use super::marks;
use super::net::Net;
use super::node::Node;
use super::plan::Plan;
use super::streams::{StreamFrame, Streams};
use super::tally::Tally;
use super::trace::Trace;
use super::wiretap::Wiretap;

pub type Bytes = Rc<Vec<u8>>;

#[derive(Clone, Debug)]
pub enum Event {
    Start { node: usize },
    Datagram { to: usize, from: IpAddr, bytes: Bytes },
    Unreachable { to: usize, peer: usize },
    Stream { frame: StreamFrame },
    Turn { node: usize, life: u32 },
    Wake { node: usize, life: u32 },
    SyncEnds { node: usize, life: u32, lane: Lane },
    Durable { node: usize, life: u32, number: WriteNumber },
    SnapshotEnds { node: usize, life: u32, slot: Slot, bytes: Bytes },
    Snapshot { node: usize, life: u32, slot: Slot, made: bool },
    Read { node: usize, life: u32, request: ReadRequest },
    ToReplica { connection: ClientId, frame: Bytes },
    ToClient { connection: ClientId, frame: Bytes },
    GoneAtReplica { connection: ClientId },
    GoneAtClient { connection: ClientId },
    Client { index: usize },
    Vandal,
    Weather,
    Garbage,
    Pause,
    Jump,
    Resume { node: usize },
    Doom,
    Blackout,
    Dismiss,
    Leave { node: usize },
    Part,
    Calm,
    Look,
}

pub struct World {
    pub now: Nanos,
    sequence: u64,
    /// When, the how manieth, and where in `events`.
    agenda: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    events: Slab<Event>,
    pub plan: Plan,
    pub nodes: Vec<Node>,
    pub net: Net,
    pub clients: Vec<Client>,
    /// When each client is to be woken; other wakes are out of date.
    pub client_wakes: Vec<Option<Nanos>>,
    pub connections: BTreeMap<ClientId, Connection>,
    /// Those that the replica has been told the end of: its last words to them go nowhere.
    pub gone: BTreeSet<ClientId>,
    pub streams: Streams,
    pub judges: Judges,
    pub wiretap: Wiretap,
    pub tally: Tally,
    pub trace: Trace,
    pub rng: Rng,
    pub out: Outbox,
    /// Datagrams that may be replayed.
    pub old: VecDeque<(usize, IpAddr, Bytes)>,
    pub vandals: u64,
    pub faults_over: bool,
    pub end_at: Nanos,
    pub over: bool,
    /// Who must come to an end once the faults are over, and since when.
    pub healed: Set,
    pub healed_at: Nanos,
}

impl World {
    /// The world of this seed, before anything happened.
    pub fn from_seed(seed: u64, trace: Trace, flip: bool) -> World {
        let mut rng = Rng::new(seed ^ 0x6674_7100);
        let mut plan = Plan::draw(&mut rng.fork());
        plan.flip |= flip;
        let net = Net::new(plan.replicas, &plan.faults, rng.fork());
        let mut world = World::new(plan, net, trace, rng, false);
        world.prepare();
        world
    }

    pub fn new(plan: Plan, net: Net, trace: Trace, mut rng: Rng, exact: bool) -> World {
        let nodes = (0..plan.replicas).map(|index| Node::new(index, &plan, &mut rng, exact)).collect();
        let judges = Judges::new(plan.replicas, plan.durability == Durability::Disk, plan.height);
        let clients = (0..plan.load.clients)
            .map(|index| Client::new(index, plan.load, plan.replicas, plan.faults.clients, rng.fork()))
            .collect::<Vec<_>>();
        World {
            now: 0,
            sequence: 0,
            agenda: BinaryHeap::new(),
            events: Slab::new(),
            nodes,
            net,
            client_wakes: vec![None; clients.len()],
            clients,
            connections: BTreeMap::new(),
            gone: BTreeSet::new(),
            streams: Streams::default(),
            judges,
            wiretap: Wiretap::default(),
            tally: Tally::default(),
            trace,
            rng,
            out: Outbox::default(),
            old: VecDeque::new(),
            vandals: 0,
            faults_over: false,
            end_at: Nanos::MAX,
            over: false,
            healed: 0,
            healed_at: 0,
            plan,
        }
    }

    fn prepare(&mut self) {
        if self.plan.height != Height::NOTHING {
            self.plan.height.install(&mut self.nodes, &mut self.rng);
            self.tally.mark(marks::HIGH);
        }
        for node in 0..self.plan.replicas {
            let at = self.rng.below(50 * MS);
            self.schedule(at, Event::Start { node });
        }
        for index in 0..self.clients.len() {
            let at = self.rng.between(50 * MS, 300 * MS);
            self.client_wakes[index] = Some(at);
            self.schedule(at, Event::Client { index });
        }
        let (from, until) = (self.plan.faults_from.min(self.plan.faults_until), self.plan.faults_until);
        self.schedule(from, Event::Weather);
        let faults = &self.plan.faults;
        let drawn = [
            (faults.garbage, Event::Garbage),
            (faults.pauses, Event::Pause),
            (faults.jumps, Event::Jump),
            (faults.vandal, Event::Vandal),
            (faults.crashes, Event::Doom),
            (faults.leaves, Event::Dismiss),
            (faults.partitions, Event::Part),
        ];
        for (_, event) in drawn.into_iter().filter(|(is_drawn, _)| *is_drawn) {
            self.schedule(from, event);
        }
        if self.plan.faults.blackouts {
            let at = self.rng.between(from, until);
            self.schedule(at, Event::Blackout);
        }
        self.schedule(until, Event::Calm);
    }

    pub fn schedule(&mut self, at: Nanos, event: Event) {
        self.sequence += 1;
        let place = self.events.insert(event);
        self.agenda.push(Reverse((at.max(self.now), self.sequence, place)));
    }

    fn next_event(&mut self) -> Option<(Nanos, Event)> {
        let Reverse((at, _, place)) = self.agenda.pop()?;
        Some((at, self.events.remove(place)))
    }

    /// Runs to the end. What broke, if anything did.
    pub fn run(&mut self) -> Result<(), String> {
        while !self.over {
            let Some((at, event)) = self.next_event() else { break };
            self.now = at.min(self.end_at);
            if self.now == self.end_at {
                break;
            }
            self.tally.steps += 1;
            self.happen(event)?;
        }
        self.tally.virtual_ns = self.now;
        self.tally.slots = self.judges.agreed().0 - self.plan.height.slot.0;
        self.tally.views = self.judges.chain.count() as u64;
        self.judge_end()
    }

    /// Runs what happens up to this moment.
    pub fn run_until(&mut self, moment: Nanos) -> Result<(), String> {
        while self.agenda.peek().is_some_and(|Reverse((at, ..))| *at <= moment) {
            let (at, event) = self.next_event().expect("it was just looked at");
            self.now = at;
            self.happen(event)?;
        }
        self.now = moment;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        if let Some(node) = self.host_of(&event).filter(|&node| self.now < self.nodes[node].paused_until) {
            self.hold(node, event);
            return Ok(());
        }
        match event {
            Event::Start { node } => self.start(node),
            Event::Datagram { to, from, bytes } => self.on_datagram(to, from, &bytes),
            Event::Unreachable { to, peer } => self.on_unreachable(to, peer),
            Event::Stream { frame } => self.on_stream(&frame),
            Event::Turn { node, life } => self.on_turn(node, life),
            Event::Wake { node, life } => self.on_wake(node, life),
            Event::SyncEnds { node, life, lane } => self.on_sync(node, life, lane),
            Event::Durable { node, life, number } => self.on_durable(node, life, number),
            Event::SnapshotEnds { node, life, slot, bytes } => self.on_snapshot_ends(node, life, slot, &bytes),
            Event::Snapshot { node, life, slot, made } => self.on_snapshot(node, life, slot, made),
            Event::Read { node, life, request } => self.on_read(node, life, &request),
            Event::ToReplica { connection, frame } => self.on_client_frame(connection, frame),
            Event::ToClient { connection, frame } => self.on_replica_frame(connection, &frame),
            Event::GoneAtReplica { connection } => self.on_gone_at_replica(connection),
            Event::GoneAtClient { connection } => self.on_gone_at_client(connection),
            Event::Client { index } => self.on_client(index),
            Event::Vandal => self.vandalize(),
            Event::Weather => self.change_weather(),
            Event::Garbage => self.inject_garbage(),
            Event::Pause => self.pause_one(),
            Event::Jump => self.jump_one(),
            Event::Resume { node } => self.resume(node),
            Event::Doom => self.doom_one(),
            Event::Blackout => self.black_out(),
            Event::Dismiss => self.dismiss_one(),
            Event::Leave { node } => self.on_leave(node),
            Event::Part => self.part(),
            Event::Calm => self.calm(),
            Event::Look => self.look(),
        }
    }

    /// Which host's loop must run for this to be noticed.
    fn host_of(&self, event: &Event) -> Option<usize> {
        match *event {
            Event::Stream { ref frame } => Some(frame.to),
            Event::Datagram { to, .. } | Event::Unreachable { to, .. } => Some(to),
            Event::Turn { node, .. } | Event::Wake { node, .. } | Event::Durable { node, .. } => Some(node),
            Event::Leave { node } | Event::Snapshot { node, .. } | Event::Read { node, .. } => Some(node),
            Event::ToReplica { connection, .. } | Event::GoneAtReplica { connection } => {
                self.connections.get(&connection).map(|c| c.node)
            }
            _ => None,
        }
    }

    pub fn in_faults(&self) -> bool {
        !self.faults_over && self.now < self.plan.faults_until
    }

    fn judge_end(&mut self) -> Result<(), String> {
        self.judge_healed()?;
        let segments: Vec<_> = self.nodes.iter().map(|node| node.disk.segments()).collect();
        let logs: Vec<_> = segments.iter().map(|segments| replay(segments)).collect();
        if let Some(log) = logs.iter().find(|log| log.damaged.is_some()) {
            return Err(format!("a healthy log is called damaged: {:?}", log.damaged));
        }
        let snapshots = self.nodes.iter().map(|node| choose(&node.disk.snapshots()).newest.map(|(newest, _)| newest));
        logs.iter().zip(snapshots).try_for_each(|(log, newest)| self.judges.disk(log, newest.as_ref()))
    }
}
