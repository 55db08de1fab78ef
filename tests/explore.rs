//! A small-scope exhaustive exploration of the view change: three replicas, every interleaving of messages that are
//! delivered, late, lost or doubled, of crashes (with every part of the unsynced writes lost) and of proposals, up to
//! a depth. It runs the real `group::change` and judges I1, I2 and I5 and that logs are equal before a decree.
//!
//! `EXPLORE_DEPTH` and `EXPLORE_STATES` widen the search; what was searched is printed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use ftq::group::change::{votes, Acceptor, Action, Change, ChangeFrame, LogEnd, Surroundings};
use ftq::group::view::{Ballot, Durability, Policy, View};
use ftq::types::{Birth, ClusterId, Digest, Epoch, GroupTime, Incarnation, ReplicaId, Run, Slot, Time};

const SOON: Time = Time(0);
/// Every timer is due by then.
const LATE: Time = Time(1 << 40);

type Value = (u64, u64);

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Disk {
    acceptor: Acceptor,
    /// Of each slot from 1 on: the epoch and the value.
    log: Vec<(u64, Value)>,
}

#[derive(Clone, Debug)]
struct Node {
    up: bool,
    run: Run,
    disk: Disk,
    memory: Disk,
    change: Change,
    /// What leaves once memory is on the disk.
    held: Vec<Rc<Packet>>,
    fetch: Option<(LogEnd, Vec<ReplicaId>)>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Body {
    Change(ChangeFrame),
    /// An announced slot of an epoch.
    Order {
        epoch: u64,
        slot: u64,
        value: Value,
    },
    Fetch {
        epoch: u64,
        from: u64,
        to: u64,
    },
    Records {
        epoch: u64,
        from: u64,
        records: Vec<(u64, Value)>,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Packet {
    from: Run,
    to: ReplicaId,
    body: Body,
}

#[derive(Clone, Debug)]
struct World {
    nodes: Vec<Node>,
    net: Vec<Rc<Packet>>,
    cut_off: Option<usize>,
    proposals: u32,
    crashes: u32,
    cuts: u32,
    orders: u32,
    /// Who held a slot of an epoch durably while unfrozen.
    acks: BTreeMap<(u64, u64), BTreeSet<u8>>,
    committed: BTreeMap<u64, (u64, Value)>,
    views: BTreeMap<u64, View>,
}

#[derive(Clone, Debug)]
enum Event {
    Deliver(usize),
    Sync(usize),
    Crash(usize, Loss),
    Propose(usize),
    Tick(usize),
    Order(usize),
    Cut(usize),
    Heal,
}

/// What a crash leaves of the writes that no sync has covered.
#[derive(Clone, Copy, Debug)]
enum Loss {
    All,
    Nothing,
    TheLog,
    TheMeta,
}

fn run(id: u8, incarnation: u64) -> Run {
    Run { id: ReplicaId(id), birth: Birth(u64::from(id)), incarnation: Incarnation(incarnation) }
}

fn digest(log: &[(u64, Value)]) -> Digest {
    let mut hasher = twox_hash::XxHash3_64::with_seed(0);
    log.iter().for_each(|(_, value)| value.hash(&mut hasher));
    Digest(hasher.finish())
}

fn end(log: &[(u64, Value)]) -> LogEnd {
    LogEnd { slot: Slot(log.len() as u64), digest: digest(log), time: GroupTime(0) }
}

fn cut_to(log: &[(u64, Value)], view: &View) -> usize {
    let kept = |(k, r): (usize, &(u64, Value))| view.keeps(Epoch(r.0), Slot(k as u64 + 1));
    log.iter().enumerate().position(|at| !kept(at)).unwrap_or(log.len())
}

impl World {
    fn new(policy: Policy) -> World {
        let view = View {
            cluster: ClusterId(1),
            epoch: Epoch(1),
            ballot: Ballot::default(),
            members: (1..=3).map(|id| run(id, 1)).collect(),
            base: Slot(0),
            chain: vec![],
            base_digest: Digest(0),
            base_time: GroupTime(0),
            policy,
            min_members: 1,
            durability: Durability::Disk,
            book: (1..=3)
                .map(|id| ftq::group::view::BookEntry { id: ReplicaId(id), address: String::new(), http: None })
                .collect(),
        };
        let acceptor = Acceptor { installed: Some(view.clone()), ..Acceptor::default() };
        let disk = Disk { acceptor: acceptor.clone(), log: vec![] };
        let node = |id: u8| Node {
            up: true,
            run: run(id, 1),
            disk: disk.clone(),
            memory: disk.clone(),
            change: Change::new(run(id, 1), acceptor.clone()),
            held: vec![],
            fetch: None,
        };
        World {
            nodes: (1..=3).map(node).collect(),
            net: vec![],
            cut_off: None,
            proposals: 0,
            crashes: 0,
            cuts: 0,
            orders: 0,
            acks: BTreeMap::new(),
            committed: BTreeMap::new(),
            views: BTreeMap::from([(1, view)]),
        }
    }

    fn key(&self) -> u64 {
        let mut hasher = twox_hash::XxHash3_64::with_seed(0);
        for node in &self.nodes {
            (node.up, node.run, &node.disk, &node.memory, &node.held, &node.fetch).hash(&mut hasher);
            node.change.fingerprint().hash(&mut hasher);
        }
        let mut net: Vec<u64> = self.net.iter().map(|p| hash_of(&**p)).collect();
        net.sort_unstable();
        (net, self.cut_off, self.proposals, self.crashes, self.cuts, self.orders, &self.acks).hash(&mut hasher);
        hasher.finish()
    }

    fn around(&self, at: usize) -> Surroundings {
        let reachable = |k: usize| k == at || self.nodes[k].up && self.cut_off != Some(k) && self.cut_off != Some(at);
        let connected =
            (0..self.nodes.len()).filter(|&k| reachable(k)).map(|k| (self.nodes[k].run.id, self.nodes[k].run));
        Surroundings { connected: connected.collect(), ..Surroundings::default() }
    }

    /// Takes part in the order of its epoch: the very run the view records, and not frozen.
    fn has_rank(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let view = node.memory.acceptor.newest().expect("there is always a view");
        node.up && !node.change.is_frozen() && view.members.contains(&node.run)
    }

    fn epoch(&self, at: usize) -> u64 {
        self.nodes[at].memory.acceptor.newest().map_or(0, |v| v.epoch.0)
    }

    fn events(&self, limits: &Limits) -> Vec<Event> {
        let mut events = Vec::new();
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            if node.up && (node.disk != node.memory || !node.held.is_empty()) {
                events.push(Event::Sync(at));
            }
            if node.up && self.crashes < limits.crashes {
                events.push(Event::Crash(at, Loss::All));
                if node.disk != node.memory {
                    events.extend([Loss::Nothing, Loss::TheLog, Loss::TheMeta].map(|loss| Event::Crash(at, loss)));
                }
            }
            if node.up && self.proposals < limits.proposals && node.change.is_voter() {
                events.push(Event::Propose(at));
            }
            if node.up && node.change.proposing().is_some() {
                events.push(Event::Tick(at));
            }
            let view = node.memory.acceptor.newest().expect("there is always a view");
            let slot = node.memory.log.len() as u64 + 1;
            let turn = self.has_rank(at) && slot > view.base.0 && view.member(view.sequencer(Slot(slot))) == node.run;
            if turn && self.orders < limits.orders {
                events.push(Event::Order(at));
            }
            if self.cuts < limits.cuts && self.cut_off.is_none() {
                events.push(Event::Cut(at));
            }
        }
        if self.cut_off.is_some() {
            events.push(Event::Heal);
        }
        events.extend(
            (0..self.net.len()).filter(|&k| self.nodes[usize::from(self.net[k].to.0) - 1].up).map(Event::Deliver),
        );
        events
    }

    fn send(&mut self, packet: Rc<Packet>) {
        if !self.net.contains(&packet) {
            self.net.push(packet);
        }
    }

    fn step(&mut self, event: &Event) -> Result<(), String> {
        match *event {
            Event::Deliver(k) => {
                // It stays: a copy of it may come again, at any time.
                let packet = self.net[k].clone();
                self.deliver(&packet)
            }
            Event::Sync(at) => self.sync(at),
            Event::Crash(at, loss) => {
                self.crash(at, loss);
                Ok(())
            }
            Event::Propose(at) => {
                self.proposals += 1;
                self.change(at, |change, ends, around, out| change.propose(SOON, ends, around, out))
            }
            Event::Tick(at) => self.change(at, |change, _, around, out| change.tick(LATE, around, out)),
            Event::Order(at) => {
                self.orders += 1;
                let (epoch, slot) = (self.epoch(at), self.nodes[at].memory.log.len() as u64 + 1);
                let value = (epoch, slot);
                self.nodes[at].memory.log.push((epoch, value));
                let from = self.nodes[at].run;
                for to in (1..=3).map(ReplicaId).filter(|&to| to != from.id) {
                    self.send(Rc::new(Packet { from, to, body: Body::Order { epoch, slot, value } }));
                }
                Ok(())
            }
            Event::Cut(at) => {
                (self.cut_off, self.cuts) = (Some(at), self.cuts + 1);
                Ok(())
            }
            Event::Heal => {
                self.cut_off = None;
                Ok(())
            }
        }
    }

    fn change(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Change, &dyn Fn(&View) -> LogEnd, &Surroundings, &mut Vec<Action>),
    ) -> Result<(), String> {
        let around = self.around(at);
        let log = self.nodes[at].memory.log.clone();
        let ends = move |view: &View| end(&log[..cut_to(&log, view)]);
        let mut actions = Vec::new();
        act(&mut self.nodes[at].change, &ends, &around, &mut actions);
        for action in actions {
            let node = &mut self.nodes[at];
            match action {
                Action::Freeze => node.fetch = None,
                Action::Write => node.memory.acceptor = node.change.acceptor().clone(),
                Action::Adopt(view) => {
                    let keep = cut_to(&node.memory.log, &view);
                    node.memory.log.truncate(keep);
                    node.fetch = None;
                    self.judge_adopted(at, &view)?;
                }
                Action::Fetch { base, sources } => {
                    node.fetch = Some((base, sources));
                    self.fetch(at)?;
                }
                Action::Say { to, frame, durably } => {
                    let packet = Rc::new(Packet { from: node.run, to, body: Body::Change(frame) });
                    if !durably || node.disk == node.memory {
                        self.send(packet);
                    } else if !node.held.contains(&packet) {
                        node.held.push(packet);
                    }
                }
            }
        }
        Ok(())
    }

    /// Goes on with a fetch: asks for what is missing, or says that nothing is.
    fn fetch(&mut self, at: usize) -> Result<(), String> {
        let node = &self.nodes[at];
        let Some((base, sources)) = node.fetch.clone() else { return Ok(()) };
        let (have, epoch, from) = (node.memory.log.len() as u64, self.epoch(at), node.run);
        if have >= base.slot.0 {
            let own = end(&node.memory.log[..base.slot.0 as usize]);
            return self.change(at, |change, _, _, out| change.synced(own, out));
        }
        for to in sources.into_iter().filter(|&id| id != from.id) {
            self.send(Rc::new(Packet { from, to, body: Body::Fetch { epoch, from: have + 1, to: base.slot.0 } }));
        }
        Ok(())
    }

    fn deliver(&mut self, packet: &Packet) -> Result<(), String> {
        let at = usize::from(packet.to.0) - 1;
        let epoch_here = self.epoch(at);
        match packet.body.clone() {
            Body::Change(frame) => self.change(at, |change, ends, around, out| {
                change.on_frame(SOON, packet.from, frame, ends, around, out);
            }),
            Body::Order { epoch, slot, value } => {
                let next = self.nodes[at].memory.log.len() as u64 + 1;
                let base = self.nodes[at].memory.acceptor.newest().expect("there is always a view").base.0;
                if epoch == epoch_here && self.has_rank(at) && slot == next && slot > base {
                    self.nodes[at].memory.log.push((epoch, value));
                }
                Ok(())
            }
            Body::Fetch { epoch, from, to } => {
                let node = &self.nodes[at];
                let to = to.min(node.disk.log.len().min(node.memory.log.len()) as u64);
                if epoch == epoch_here && from <= to {
                    let records = node.memory.log[from as usize - 1..to as usize].to_vec();
                    let reply =
                        Packet { from: node.run, to: packet.from.id, body: Body::Records { epoch, from, records } };
                    self.send(Rc::new(reply));
                }
                Ok(())
            }
            Body::Records { epoch, from, records } => {
                let node = &mut self.nodes[at];
                let Some((base, _)) = node.fetch.clone().filter(|_| epoch == epoch_here) else { return Ok(()) };
                for (k, record) in records.into_iter().enumerate() {
                    let slot = from + k as u64;
                    if slot == node.memory.log.len() as u64 + 1 && slot <= base.slot.0 {
                        node.memory.log.push(record);
                    }
                }
                self.fetch(at)
            }
        }
    }

    fn sync(&mut self, at: usize) -> Result<(), String> {
        let node = &mut self.nodes[at];
        node.disk = node.memory.clone();
        for packet in std::mem::take(&mut node.held) {
            self.send(packet);
        }
        if self.has_rank(at) {
            let (epoch, log) = (self.epoch(at), self.nodes[at].disk.log.clone());
            for (k, (of, value)) in log.iter().enumerate().filter(|(_, r)| r.0 == epoch) {
                self.acks.entry((*of, k as u64 + 1)).or_default().insert(at as u8 + 1);
                self.judge_committed(epoch, k as u64 + 1, *value)?;
            }
        }
        Ok(())
    }

    fn crash(&mut self, at: usize, loss: Loss) {
        self.crashes += 1;
        let node = &mut self.nodes[at];
        match loss {
            Loss::All => {}
            Loss::Nothing => node.disk = node.memory.clone(),
            Loss::TheLog => node.disk.acceptor = node.memory.acceptor.clone(),
            Loss::TheMeta => node.disk.log = node.memory.log.clone(),
        }
        let newest = node.disk.acceptor.newest().cloned().expect("there is always a view");
        node.disk.log.truncate(cut_to(&node.disk.log, &newest));
        node.memory = node.disk.clone();
        node.run.incarnation = node.run.incarnation.next();
        node.change = Change::new(node.run, node.disk.acceptor.clone());
        (node.held, node.fetch) = (vec![], None);
    }

    // ---- the judges

    fn judge_committed(&mut self, epoch: u64, slot: u64, value: Value) -> Result<(), String> {
        let view = &self.views[&epoch];
        if 2 * self.acks[&(epoch, slot)].len() <= view.members.len() {
            return Ok(());
        }
        if let Some(first) = self.committed.insert(slot, (epoch, value)).filter(|first| first.1 != value) {
            return Err(format!("I1: slot {slot} commits as {value:?} in epoch {epoch}; it was {first:?}"));
        }
        match self.views.range(epoch + 1..).find(|(_, v)| v.base.0 < slot) {
            Some((e, v)) => {
                Err(format!("I2: slot {slot} commits in epoch {epoch}, but view {e} starts from {}", v.base))
            }
            None => Ok(()),
        }
    }

    fn judge_adopted(&mut self, at: usize, view: &View) -> Result<(), String> {
        if let Some(other) = self.views.insert(view.epoch.0, view.clone()).filter(|other| other != view) {
            return Err(format!("I5: two views of epoch {}: {view:?} and {other:?}", view.epoch));
        }
        let node = &self.nodes[at];
        for (slot, (epoch, value)) in &self.committed {
            let there = node.memory.log.get(*slot as usize - 1).map(|r| r.1);
            if *epoch < view.epoch.0 && (*slot > view.base.0 || votes(view, node.run) && there != Some(*value)) {
                return Err(format!("I2: {} adopts epoch {} without slot {slot} of epoch {epoch}", at + 1, view.epoch));
            }
        }
        let base = view.base.0 as usize;
        if votes(view, node.run)
            && (node.memory.log.len() < base || digest(&node.memory.log[..base]) != view.base_digest)
        {
            return Err(format!("stable: {} adopts epoch {} with another log", at + 1, view.epoch));
        }
        Ok(())
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::with_seed(0);
    value.hash(&mut hasher);
    hasher.finish()
}

struct Limits {
    depth: u32,
    states: usize,
    proposals: u32,
    crashes: u32,
    cuts: u32,
    orders: u32,
    epochs: u64,
}

#[derive(Default)]
struct Search {
    /// For each state the greatest depth that was still left below it.
    seen: HashMap<u64, u32>,
    steps: u64,
    epochs: u64,
    commits: usize,
    bound: u64,
}

impl Search {
    /// Depth first. The path that broke something, if any did.
    fn below(&mut self, world: &World, depth: u32, limits: &Limits, path: &mut Vec<Event>) -> Result<(), String> {
        if depth == 0 || self.seen.len() >= limits.states {
            return Ok(());
        }
        for event in world.events(limits) {
            let mut next = world.clone();
            self.steps += 1;
            path.push(event.clone());
            next.step(&event).map_err(|broken| tell(world, path, &broken))?;
            self.epochs = self.epochs.max(next.views.keys().last().copied().unwrap_or(0));
            self.commits = self.commits.max(next.committed.len());
            let left = depth - 1;
            let fresh = self.seen.get(&next.key()).is_none_or(|&before| before < left);
            if fresh && next.views.keys().last().is_some_and(|&e| e <= limits.epochs) {
                self.seen.insert(next.key(), left);
                self.below(&next, left, limits, path)?;
            }
            path.pop();
        }
        Ok(())
    }
}

fn tell(world: &World, path: &[Event], broken: &str) -> String {
    let mut text = format!("{broken}\n");
    for event in path {
        match event {
            Event::Deliver(k) => match world.net.get(*k) {
                Some(packet) => text.push_str(&format!("  deliver {packet:?}\n")),
                None => text.push_str("  deliver\n"),
            },
            other => text.push_str(&format!("  {other:?}\n")),
        }
    }
    text
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn explore(policy: Policy, name: &str, limits: Limits) {
    let mut search = Search::default();
    let outcome = search.below(&World::new(policy), limits.depth, &limits, &mut Vec::new());
    println!(
        "{name}: depth {}, {} states, {} steps, epochs up to {}, {} commits",
        limits.depth,
        search.seen.len(),
        search.steps,
        search.epochs,
        search.commits
    );
    outcome.unwrap_or_else(|broken| panic!("{broken}"));
}

fn limits(depth: u64, proposals: u32, crashes: u32, cuts: u32, orders: u32) -> Limits {
    let (depth, states) = (number("EXPLORE_DEPTH", depth) as u32, number("EXPLORE_STATES", 200_000) as usize);
    Limits { depth, states, proposals, crashes, cuts, orders, epochs: 3 }
}

#[test]
fn one_change_with_a_crash() {
    explore(Policy::Dynamic, "one proposal, one crash", limits(18, 1, 1, 0, 1));
}

#[test]
fn two_proposers_at_once() {
    explore(Policy::Dynamic, "two proposals", limits(18, 2, 0, 1, 1));
}
