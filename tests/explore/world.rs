//! Replicas that run the real `group::change` over a network and disks of the explorer's own, and the judges of what
//! they do: I1, I2, I5, and that logs are equal before a decree.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use ftq::broken::is as is_broken;
use ftq::group::change::{votes, Acceptor, Action, Change, ChangeFrame, LogEnd, Surroundings};
use ftq::types::{Birth, ClusterId, Digest, Epoch, GroupTime, Incarnation, ReplicaId, Run, Slot, Time};
use ftq::wire::view::{Ballot, BookEntry, Durability, Policy, View};

/// What a slot holds. Each slot of an epoch is announced once, so epoch and slot say it all, but for who announced it.
pub type Value = (u64, u64, u64);

/// One record: its epoch and what it holds.
pub type Rec = (u64, Value);

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Disk {
    pub acceptor: Acceptor,
    /// Of each slot from 1 on.
    pub log: Vec<Rec>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub up: bool,
    pub run: Run,
    pub disk: Disk,
    pub memory: Disk,
    pub change: Change,
    /// What leaves once memory is on the disk.
    held: Vec<Rc<Packet>>,
    /// Announced slots that came before their predecessors, of the newest epoch.
    early: BTreeMap<u64, Value>,
    fetch: Option<(LogEnd, Vec<ReplicaId>)>,
    /// Of all the above, kept up to date.
    hash: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Body {
    Change(Box<ChangeFrame>),
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
        records: Vec<Rec>,
    },
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub from: Run,
    pub to: ReplicaId,
    body: Body,
    hash: u64,
}

/// What a crash leaves of the writes that no sync has covered.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    All,
    Nothing,
    TheLog,
    TheMeta,
    /// Of the log the first half remains.
    HalfTheLog,
    /// The whole disk: the replica comes back under a new birth.
    TheDisk,
}

/// One thing that may happen.
#[derive(Clone, Debug)]
pub enum Event {
    /// This packet arrives; a copy of it may come again.
    Deliver {
        packet: usize,
        again: bool,
    },
    /// This packet is lost.
    Lose(usize),
    Sync(usize),
    Crash(usize, Loss),
    /// Down for good, or until `Start`.
    Stop(usize),
    Start(usize),
    Propose(usize),
    Tick(usize),
    Order(usize),
    /// The first says again to the second what it lacks of this epoch's slots.
    Repeat(usize, usize),
    /// The first tells the second which view is the newest.
    Tell(usize, usize),
    /// The proposer leaves this one out, for it can't follow.
    LeaveOut(usize, usize),
    /// These pairs are not connected from now on (see `pair`), and all others are. What is on its way may arrive all
    /// the same.
    Split(u64),
}

#[derive(Clone, Debug)]
pub struct World {
    pub nodes: Vec<Rc<Node>>,
    pub net: Vec<Rc<Packet>>,
    /// Held up for long, by who walks.
    pub late: Vec<Rc<Packet>>,
    /// The pairs that are not connected.
    pub split: u64,
    now: Time,
    births: u64,
    /// Who held a slot of an epoch durably while it took part.
    pub acks: Rc<BTreeMap<(u64, u64), BTreeSet<u8>>>,
    pub committed: Rc<BTreeMap<u64, Rec>>,
    pub views: Rc<BTreeMap<u64, View>>,
}

/// The bit that stands for two replicas in `Split`.
pub fn pair(a: usize, b: usize) -> u64 {
    1 << (8 * a.min(b) + a.max(b))
}

pub fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = twox_hash::XxHash3_64::with_seed(0);
    value.hash(&mut hasher);
    hasher.finish()
}

pub fn digest(log: &[Rec]) -> Digest {
    Digest(hash_of(&log.iter().map(|r| r.1).collect::<Vec<Value>>()))
}

fn end(log: &[Rec]) -> LogEnd {
    LogEnd { slot: Slot(log.len() as u64), digest: digest(log), time: GroupTime(0) }
}

fn cut_to(log: &[Rec], acceptor: &Acceptor) -> usize {
    let kept = |(k, r): (usize, &Rec)| acceptor.keeps(Epoch(r.0), Slot(k as u64 + 1));
    log.iter().enumerate().position(|at| !kept(at)).unwrap_or(log.len())
}

impl Node {
    fn view(&self) -> &View {
        self.memory.acceptor.newest().expect("there is always a view")
    }

    pub fn epoch(&self) -> u64 {
        self.memory.acceptor.newest().map_or(0, |v| v.epoch.0)
    }

    /// Whether the newest view is on its disk.
    fn speaks(&self) -> bool {
        self.up && self.epoch() > 0 && self.disk.acceptor.newest() == self.memory.acceptor.newest()
    }

    /// Appends what has come early and fits now.
    fn take_early(&mut self) {
        let epoch = self.epoch();
        while let Some(value) = self.early.remove(&(self.memory.log.len() as u64 + 1)) {
            self.memory.log.push((epoch, value));
        }
    }

    /// Whether it says and counts that it holds slots durably.
    fn counts(&self) -> bool {
        let recorded = || self.view().members.contains(&self.run);
        self.speaks() && (self.change.has_rank() || is_broken("frozen-counts") && recorded())
    }

    /// Whether it is this one's turn to announce the next slot.
    pub fn may_order(&self) -> bool {
        let slot = Slot(self.memory.log.len() as u64 + 1);
        let ready = self.speaks() && self.change.has_rank() && slot > self.view().base;
        ready && self.view().member(self.view().sequencer(slot)).id == self.run.id
    }

    pub fn has_unsynced(&self) -> bool {
        self.disk != self.memory || !self.held.is_empty()
    }

    fn rehash(&mut self) {
        let held: Vec<u64> = self.held.iter().map(|p| p.hash).collect();
        self.hash = hash_of(&(
            self.up,
            self.run,
            &self.disk,
            &self.memory,
            self.change.fingerprint(),
            held,
            &self.early,
            &self.fetch,
        ));
    }
}

impl World {
    /// `n` replicas in view 1.
    pub fn new(n: u8, policy: Policy) -> World {
        let run = |id: u8| Run { id: ReplicaId(id), birth: Birth(u64::from(id)), incarnation: Incarnation(1) };
        let entry = |id: u8| BookEntry { id: ReplicaId(id), address: String::new(), http: None };
        let view = View {
            cluster: ClusterId(1),
            epoch: Epoch(1),
            ballot: Ballot::default(),
            members: (1..=n).map(run).collect(),
            base: Slot(0),
            chain: vec![],
            base_digest: digest(&[]),
            base_time: GroupTime(0),
            policy,
            min_members: 1,
            durability: Durability::Disk,
            book: if policy == Policy::Majority { (1..=n).map(entry).collect() } else { vec![] },
        };
        let acceptor = Acceptor { installed: Some(view.clone()), ..Acceptor::default() };
        let disk = Disk { acceptor: acceptor.clone(), log: vec![] };
        let node = |id: u8| {
            let change = Change::new(run(id), acceptor.clone());
            let (disk, memory) = (disk.clone(), disk.clone());
            Rc::new(Node {
                up: true,
                run: run(id),
                disk,
                memory,
                change,
                held: vec![],
                early: BTreeMap::new(),
                fetch: None,
                hash: 0,
            })
        };
        World {
            nodes: (1..=n).map(node).collect(),
            net: vec![],
            late: vec![],
            split: 0,
            now: Time(0),
            births: u64::from(n),
            acks: Rc::default(),
            committed: Rc::default(),
            views: Rc::new(BTreeMap::from([(1, view)])),
        }
    }

    /// Equal for two worlds from which the same can happen.
    pub fn key(&self) -> u64 {
        let mut net: Vec<u64> = self.net.iter().map(|p| p.hash).collect();
        net.sort_unstable();
        let nodes: Vec<u64> = self.nodes.iter().map(|n| n.hash).collect();
        hash_of(&(nodes, net, self.split, &*self.acks))
    }

    /// The values and views that may yet be accepted or installed, for they are under way.
    pub fn spoken_of(&self) -> impl Iterator<Item = &View> {
        let held = self.nodes.iter().flat_map(|n| &n.held);
        self.net.iter().chain(&self.late).chain(held).filter_map(|packet| match &packet.body {
            Body::Change(frame) => match &**frame {
                ChangeFrame::Accept { value, .. } => Some(value),
                ChangeFrame::Install { view } => Some(view),
                _ => None,
            },
            _ => None,
        })
    }

    pub fn commits(&self) -> usize {
        self.committed.len()
    }

    fn around(&self, at: usize) -> Surroundings {
        let reachable = |k: usize| k == at || self.nodes[k].up && self.split & pair(k, at) == 0;
        let here = (0..self.nodes.len()).filter(|&k| reachable(k));
        let pairs = here.clone().flat_map(|a| here.clone().filter(move |&b| a < b).map(move |b| (a, b)));
        let apart = pairs.filter(|&(a, b)| self.split & pair(a, b) != 0);
        let newest = self.nodes[at].memory.acceptor.newest();
        let outsiders = here.clone().filter(|&k| newest.is_some_and(|view| !votes(view, self.nodes[k].run)));
        Surroundings {
            connected: here.clone().map(|k| (self.nodes[k].run.id, self.nodes[k].run)).collect(),
            apart: apart.map(|(a, b)| (self.nodes[a].run.id, self.nodes[b].run.id)).collect(),
            joining: outsiders.map(|k| self.nodes[k].run.id).collect(),
            // Links are cut both ways: whom it hears it is connected with.
            outnumbered: false,
        }
    }

    fn send(&mut self, from: Run, to: ReplicaId, body: Body) {
        self.send_packet(Rc::new(packet(from, to, body)));
    }

    pub fn send_packet(&mut self, packet: Rc<Packet>) {
        if !self.net.iter().any(|p| p.hash == packet.hash) {
            self.net.push(packet);
        }
    }

    fn node(&mut self, at: usize) -> &mut Node {
        Rc::make_mut(&mut self.nodes[at])
    }

    /// Lets one thing happen. The rule that broke, if one did.
    pub fn step(&mut self, event: &Event) -> Result<(), String> {
        let touched = match *event {
            Event::Deliver { packet, again } => {
                let packet = if again { self.net[packet].clone() } else { self.net.swap_remove(packet) };
                let at = usize::from(packet.to.0) - 1;
                if self.nodes[at].up {
                    self.deliver(at, &packet)?;
                }
                at
            }
            Event::Lose(packet) => {
                self.net.swap_remove(packet);
                0
            }
            Event::Sync(at) => {
                self.sync(at)?;
                at
            }
            Event::Crash(at, loss) => {
                self.crash(at, loss);
                at
            }
            Event::Stop(at) => {
                self.crash(at, Loss::All);
                self.node(at).up = false;
                at
            }
            Event::Start(at) => {
                self.node(at).up = true;
                at
            }
            Event::Propose(at) => {
                let now = self.now;
                self.change(at, |change, ends, around, out| change.propose(now, ends, around, out))?;
                at
            }
            Event::Tick(at) => {
                // Every timer is due by then.
                self.now = self.now.after_ns(1 << 40);
                let now = self.now;
                self.change(at, |change, _, around, out| change.tick(now, around, out))?;
                at
            }
            Event::Order(at) => {
                self.order(at);
                at
            }
            Event::Repeat(at, to) => {
                self.repeat(at, to);
                at
            }
            Event::Tell(at, to) => {
                let id = self.nodes[to].run.id;
                self.change(at, |change, _, _, out| change.say_newest(id, out))?;
                at
            }
            Event::LeaveOut(at, whom) => {
                let id = self.nodes[whom].run.id;
                self.change(at, |change, _, around, out| change.leave_out(id, around, out))?;
                at
            }
            Event::Split(pairs) => {
                self.split = pairs;
                0
            }
        };
        self.node(touched).rehash();
        Ok(())
    }

    fn order(&mut self, at: usize) {
        let node = self.node(at);
        let (from, epoch, slot) = (node.run, node.epoch(), node.memory.log.len() as u64 + 1);
        let value = (epoch, slot, from.incarnation.0);
        node.memory.log.push((epoch, value));
        node.take_early();
        let others: Vec<ReplicaId> = node.view().members.iter().map(|m| m.id).filter(|&id| id != from.id).collect();
        for to in others {
            self.send(from, to, Body::Order { epoch, slot, value });
        }
    }

    fn repeat(&mut self, at: usize, to: usize) {
        let (node, epoch) = (self.nodes[at].clone(), self.nodes[at].epoch());
        let first = self.nodes[to].memory.log.len();
        for (k, (of, value)) in node.memory.log.iter().enumerate().skip(first).filter(|(_, r)| r.0 == epoch).take(2) {
            let body = Body::Order { epoch: *of, slot: k as u64 + 1, value: *value };
            self.send(node.run, self.nodes[to].run.id, body);
        }
    }

    fn change(
        &mut self,
        at: usize,
        act: impl FnOnce(&mut Change, &dyn Fn(&Acceptor) -> LogEnd, &Surroundings, &mut Vec<Action>),
    ) -> Result<(), String> {
        let around = self.around(at);
        let log = self.nodes[at].memory.log.clone();
        let ends = move |acceptor: &Acceptor| end(&log[..cut_to(&log, acceptor)]);
        let mut actions = Vec::new();
        act(&mut self.node(at).change, &ends, &around, &mut actions);
        for action in actions {
            let node = self.node(at);
            match action {
                Action::Freeze => {
                    node.fetch = None;
                    node.early.clear();
                }
                Action::Write => node.memory.acceptor = node.change.acceptor().clone(),
                Action::Distrust(why) => return Err(format!("5.6: replica {} is no older copy: {why}", at + 1)),
                Action::Adopt(view) => {
                    let keep = cut_to(&node.memory.log, node.change.acceptor());
                    node.memory.log.truncate(keep);
                    (node.fetch, node.early) = (None, BTreeMap::new());
                    self.judge_adopted(at, &view)?;
                }
                Action::Fetch { base, sources } => {
                    node.fetch = Some((base, sources));
                    self.fetch(at)?;
                }
                Action::Say { to, frame, durably } => {
                    let packet = Rc::new(packet(node.run, to, Body::Change(Box::new(frame))));
                    if !durably || node.disk == node.memory {
                        self.send_packet(packet);
                    } else if !node.held.iter().any(|p| p.hash == packet.hash) {
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
        let (have, epoch, from) = (node.memory.log.len() as u64, node.epoch(), node.run);
        if have >= base.slot.0 {
            let own = end(&node.memory.log[..base.slot.0 as usize]);
            return self.change(at, |change, _, _, out| change.synced(own, out));
        }
        for to in sources.into_iter().filter(|&id| id != from.id) {
            self.send(from, to, Body::Fetch { epoch, from: have + 1, to: base.slot.0 });
        }
        Ok(())
    }

    fn deliver(&mut self, at: usize, packet: &Packet) -> Result<(), String> {
        let now = self.now;
        match &packet.body {
            Body::Change(frame) => self.change(at, |change, ends, around, out| {
                change.on_frame(now, packet.from, (**frame).clone(), ends, around, out);
            }),
            Body::Order { epoch, slot, value } => {
                let node = self.node(at);
                let missing = |node: &Node| *slot > node.view().base.0.max(node.memory.log.len() as u64);
                if *epoch == node.epoch() && node.change.has_rank() && missing(node) {
                    node.early.insert(*slot, *value);
                    node.take_early();
                }
                Ok(())
            }
            Body::Fetch { epoch, from, to } => {
                let node = &self.nodes[at];
                let to = (*to).min(node.disk.log.len().min(node.memory.log.len()) as u64);
                if *epoch == node.epoch() && *from <= to {
                    let (me, records) = (node.run, node.memory.log[*from as usize - 1..to as usize].to_vec());
                    self.send(me, packet.from.id, Body::Records { epoch: *epoch, from: *from, records });
                }
                Ok(())
            }
            Body::Records { epoch, from, records } => {
                let node = self.node(at);
                let fetching = node.fetch.clone().filter(|_| *epoch == node.epoch());
                let Some((base, _)) = fetching else { return Ok(()) };
                for (k, record) in records.iter().enumerate() {
                    let slot = from + k as u64;
                    if slot == node.memory.log.len() as u64 + 1 && slot <= base.slot.0 {
                        node.memory.log.push(*record);
                    }
                }
                self.fetch(at)
            }
        }
    }

    fn sync(&mut self, at: usize) -> Result<(), String> {
        let node = self.node(at);
        node.disk = node.memory.clone();
        for packet in std::mem::take(&mut node.held) {
            self.send_packet(packet);
        }
        let node = self.nodes[at].clone();
        if node.counts() {
            for (k, (epoch, value)) in node.disk.log.iter().enumerate().filter(|(_, r)| r.0 == node.epoch()) {
                let slot = k as u64 + 1;
                if Rc::make_mut(&mut self.acks).entry((*epoch, slot)).or_default().insert(node.run.id.0) {
                    self.judge_committed(*epoch, slot, *value)?;
                }
            }
        }
        Ok(())
    }

    fn crash(&mut self, at: usize, loss: Loss) {
        self.births += 1;
        let birth = Birth(self.births);
        let node = self.node(at);
        match loss {
            Loss::All => {}
            Loss::Nothing => node.disk = node.memory.clone(),
            Loss::TheLog => node.disk.acceptor = node.memory.acceptor.clone(),
            // No record is dropped, and none of a new view written, before the view itself is durable.
            Loss::TheMeta if node.disk.acceptor.newest() != node.memory.acceptor.newest() => {}
            Loss::TheMeta => node.disk.log = node.memory.log.clone(),
            Loss::HalfTheLog => {
                let (old, new) = (node.disk.log.len(), node.memory.log.len());
                node.disk = node.memory.clone();
                node.disk.log.truncate(old.min(new) + new.saturating_sub(old) / 2);
            }
            Loss::TheDisk => (node.disk, node.run.birth) = (Disk::default(), birth),
        }
        let keep = cut_to(&node.disk.log, &node.disk.acceptor);
        node.disk.log.truncate(keep);
        node.memory = node.disk.clone();
        node.run.incarnation = node.run.incarnation.next();
        node.change = Change::new(node.run, node.disk.acceptor.clone());
        (node.held, node.fetch, node.early) = (vec![], None, BTreeMap::new());
    }
}

impl Packet {
    /// What it is, for those that choose among packets.
    pub fn kind(&self) -> &'static str {
        match &self.body {
            Body::Order { .. } => "order",
            Body::Fetch { .. } => "fetch",
            Body::Records { .. } => "records",
            Body::Change(frame) => match **frame {
                ChangeFrame::Prepare { .. } => "prepare",
                ChangeFrame::Promise { .. } => "promise",
                ChangeFrame::Refuse { .. } => "refuse",
                ChangeFrame::Sync { .. } => "sync",
                ChangeFrame::Ready { .. } => "ready",
                ChangeFrame::Accept { .. } => "accept",
                ChangeFrame::Accepted { .. } => "accepted",
                ChangeFrame::Install { .. } => "install",
                ChangeFrame::Installed { .. } => "installed",
                ChangeFrame::Doubt { .. } => "doubt",
            },
        }
    }
}

fn packet(from: Run, to: ReplicaId, body: Body) -> Packet {
    let hash = hash_of(&(from, to, &body));
    Packet { from, to, body, hash }
}
