//! Random walks: a seed draws every step, in weather that changes; then the faults stop, and a view of all that are up
//! must form and commit (I9).
//!
//! What finds mistakes: packets and whole multicasts held up for hundreds of steps, one proposer that acts alone for
//! long (its ballots are alike in every epoch), crashes right after a write was begun, proposals right after a start.

use std::rc::Rc;

use ftq::group::change::votes;
use ftq::group::quorum::{is_quorum, Ranks};
use ftq::rng::Rng;
use ftq::wire::view::{Policy, View};

use crate::world::{pair, Event, Loss, World};

const KINDS: [&str; 7] = ["order", "promise", "sync", "ready", "accept", "accepted", "install"];
const PACKETS_MAX: usize = 80;
const LOSSES: [Loss; 5] = [Loss::All, Loss::Nothing, Loss::TheLog, Loss::TheMeta, Loss::HalfTheLog];

/// How far a walk came before the calm.
pub struct Reached {
    pub views: usize,
    pub commits: usize,
}

/// One walk. What broke, if anything did.
pub fn walk(n: u8, policy: Policy, seed: u64, steps: u32) -> Result<Reached, String> {
    let mut rng = Rng::new(seed);
    let weather = Weather::draw(&mut rng, usize::from(n));
    // In one walk of four disks are lost without limit, and nothing is asked of what is left.
    let mut walk = Walk { world: World::new(n, policy), rng, weather, wild: seed % 4 == 3 };
    let mut change_at = 0;
    for step in 0..steps {
        if step >= change_at {
            change_at = step + 40 + walk.rng.below(300) as u32;
            walk.weather = Weather::draw(&mut walk.rng, usize::from(n));
        }
        walk.one().map_err(|broken| format!("seed {seed}, step {step}: {broken}"))?;
    }
    let reached = Reached { views: walk.world.views.len(), commits: walk.world.commits() };
    walk.calm().map_err(|broken| format!("seed {seed}, after the faults: {broken}"))?;
    Ok(reached)
}

/// What may be drawn, and how often in usual weather.
#[derive(Clone, Copy)]
enum Kind {
    Arrive,
    ArriveLate,
    Order,
    Sync,
    Repeat,
    Propose,
    Tick,
    Tell,
    LeaveOut,
    Crash,
    Start,
    LoseDisk,
    Split,
}

const USUAL: [(Kind, u32); 13] = [
    (Kind::Arrive, 1000),
    (Kind::ArriveLate, 24),
    (Kind::Order, 40),
    (Kind::Sync, 100),
    (Kind::Repeat, 20),
    (Kind::Propose, 8),
    (Kind::Tick, 100),
    (Kind::Tell, 4),
    (Kind::LeaveOut, 3),
    (Kind::Crash, 3),
    (Kind::Start, 200),
    (Kind::LoseDisk, 3),
    (Kind::Split, 4),
];

struct Weather {
    weights: [u32; USUAL.len()],
    lose_ppm: u32,
    again_ppm: u32,
    /// A packet is held up for long.
    late_ppm: u32,
    /// Packets of this kind mostly are.
    slow: Option<&'static str>,
    /// What was written is synced at once.
    sync_ppm: u32,
    /// Who has begun to write crashes at once.
    crash_ppm: u32,
    in_order: bool,
    /// To this one more happens than to others; perhaps it alone proposes.
    focus: Option<usize>,
    alone: bool,
}

impl Weather {
    fn draw(rng: &mut Rng, n: usize) -> Weather {
        let weights = USUAL.map(|(kind, usual)| {
            let rare = matches!(kind, Kind::Propose | Kind::Crash | Kind::LoseDisk | Kind::Split);
            usual * rng.pick(&[4, 4, 2, 8]) * if rare { *rng.pick(&[0, 1, 1, 4]) } else { 2 } / 2
        });
        let focus = rng.below(2 * n as u64) as usize;
        Weather {
            weights,
            lose_ppm: *rng.pick(&[0, 20_000, 100_000, 300_000]),
            again_ppm: *rng.pick(&[0, 50_000, 200_000]),
            late_ppm: *rng.pick(&[0, 20_000, 100_000]),
            slow: Some(*rng.pick(&KINDS)).filter(|_| rng.below(2) == 0),
            sync_ppm: *rng.pick(&[100_000, 500_000, 900_000]),
            crash_ppm: *rng.pick(&[0, 200, 1_000, 5_000]),
            in_order: rng.below(3) > 0,
            focus: Some(focus).filter(|&focus| focus < n),
            alone: rng.below(2) == 0,
        }
    }

    fn kind(&self, rng: &mut Rng) -> Kind {
        let mut at = rng.below(self.weights.iter().map(|&w| u64::from(w)).sum());
        for (weight, (kind, _)) in self.weights.iter().zip(USUAL) {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return kind,
            }
        }
        unreachable!("the number is below the sum of all weights")
    }
}

struct Walk {
    world: World,
    rng: Rng,
    weather: Weather,
    wild: bool,
}

impl Walk {
    fn index(&mut self, below: usize) -> usize {
        self.rng.below(below as u64) as usize
    }

    /// Lets this happen. What it sends may be held up, and who begins to write may be synced at once, or crash.
    fn step(&mut self, event: Event) -> Result<(), String> {
        let before = self.world.net.len();
        let took = matches!(event, Event::Deliver { again: false, .. } | Event::Lose(_));
        self.world.step(&event)?;
        self.hold_up(before - usize::from(took));
        for at in 0..self.world.nodes.len() {
            if self.world.nodes[at].up && self.world.nodes[at].has_unsynced() {
                if self.rng.chance(self.weather.crash_ppm) {
                    self.crash(at)?;
                } else if self.rng.chance(self.weather.sync_ppm) {
                    let before = self.world.net.len();
                    self.world.step(&Event::Sync(at))?;
                    self.hold_up(before);
                }
            }
        }
        Ok(())
    }

    /// Of the packets from this one on, some are held up for long; now and then all are.
    fn hold_up(&mut self, from: usize) {
        let usual = self.weather.late_ppm;
        let ppm = if usual > 0 && self.rng.below(20) == 0 { 1_000_000 } else { usual };
        for packet in self.world.net.split_off(from.min(self.world.net.len())) {
            let slow = self.weather.slow == Some(packet.kind());
            let late = self.rng.chance(if slow { ppm.max(700_000) } else { ppm });
            if late { &mut self.world.late } else { &mut self.world.net }.push(packet);
        }
        while self.world.late.len() > PACKETS_MAX {
            let lost = self.index(self.world.late.len());
            self.world.late.swap_remove(lost);
        }
        while self.world.net.len() > PACKETS_MAX {
            let lost = self.index(self.world.net.len());
            self.world.net.remove(lost);
        }
    }

    fn crash(&mut self, at: usize) -> Result<(), String> {
        let loss = *self.rng.pick(&LOSSES);
        self.world.step(&Event::Crash(at, loss))?;
        if self.rng.below(2) == 0 {
            self.world.step(&Event::Stop(at))?;
            return Ok(());
        }
        self.propose_perhaps(at)
    }

    fn propose_perhaps(&mut self, at: usize) -> Result<(), String> {
        if self.rng.below(4) == 0 {
            return self.step(Event::Propose(at));
        }
        Ok(())
    }

    fn one(&mut self) -> Result<(), String> {
        let n = self.world.nodes.len();
        let (at, other) = (self.index(n), self.index(n));
        let at = self.weather.focus.filter(|_| self.rng.below(2) == 0).unwrap_or(at);
        let up = self.world.nodes[at].up;
        match self.weather.kind(&mut self.rng) {
            Kind::Arrive => self.arrive(),
            Kind::ArriveLate => self.arrive_late(),
            Kind::Order => (0..n).try_for_each(|k| {
                let too = (k == at || self.rng.below(2) == 0) && self.world.nodes[k].may_order();
                if too {
                    self.step(Event::Order(k))
                } else {
                    Ok(())
                }
            }),
            Kind::Sync if up => self.step(Event::Sync(at)),
            Kind::Repeat if up && other != at => self.step(Event::Repeat(at, other)),
            Kind::Propose => {
                let at = self.weather.focus.filter(|_| self.weather.alone).unwrap_or(at);
                if self.world.nodes[at].up {
                    self.step(Event::Propose(at))
                } else {
                    Ok(())
                }
            }
            Kind::Tick if up => self.step(Event::Tick(at)),
            Kind::Tell if up && other != at => self.step(Event::Tell(at, other)),
            Kind::LeaveOut if up && other != at => self.step(Event::LeaveOut(at, other)),
            Kind::Crash if up => self.crash(at),
            Kind::Start if !up => {
                self.world.step(&Event::Start(at))?;
                self.propose_perhaps(at)
            }
            Kind::LoseDisk if up && (self.wild || recoverable(&self.world, Some(at))) => {
                self.world.step(&Event::Crash(at, Loss::TheDisk))
            }
            Kind::Split => {
                let split = self.split();
                self.world.step(&Event::Split(split))
            }
            _ => Ok(()),
        }
    }

    fn arrive(&mut self) -> Result<(), String> {
        let count = self.world.net.len();
        if count == 0 {
            return Ok(());
        }
        let packet = self.index(if self.weather.in_order { count.min(4) } else { count });
        let (from, to) = (self.world.net[packet].from.id.0, self.world.net[packet].to.0);
        let apart = self.world.split & pair(usize::from(from) - 1, usize::from(to) - 1) != 0;
        if apart && self.rng.below(2) == 0 {
            let waits = self.world.net.remove(packet);
            self.world.net.push(waits);
            return Ok(());
        }
        if from != to && (apart || self.rng.chance(self.weather.lose_ppm)) {
            return self.step(Event::Lose(packet));
        }
        let again = self.rng.chance(self.weather.again_ppm);
        self.step(Event::Deliver { packet, again })
    }

    fn arrive_late(&mut self) -> Result<(), String> {
        if self.world.late.is_empty() {
            return Ok(());
        }
        let k = self.index(self.world.late.len());
        let again = self.rng.below(3) == 0;
        let packet = if again { Rc::clone(&self.world.late[k]) } else { self.world.late.swap_remove(k) };
        self.world.net.push(packet);
        self.step(Event::Deliver { packet: self.world.net.len() - 1, again: false })
    }

    /// Whole again; or two sides; or any links down.
    fn split(&mut self) -> u64 {
        let n = self.world.nodes.len();
        let (how, side) = (self.rng.below(6), self.rng.below(1 << n));
        let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b)));
        let down = |&(a, b): &(usize, usize)| match how {
            0..3 => false,
            3 | 4 => side >> a & 1 != side >> b & 1,
            _ => self.rng.below(3) == 0,
        };
        pairs.filter(down).fold(0, |set, (a, b)| set | pair(a, b))
    }

    // ---- no more faults

    /// All that is sent arrives, all that is written is synced, and whoever is to propose does.
    fn calm(&mut self) -> Result<(), String> {
        (self.weather.late_ppm, self.weather.slow) = (0, None);
        (self.weather.crash_ppm, self.weather.sync_ppm) = (0, 0);
        let late = std::mem::take(&mut self.world.late);
        late.into_iter().for_each(|packet| self.world.send_packet(packet));
        self.world.step(&Event::Split(0))?;
        let down: Vec<usize> = (0..self.world.nodes.len()).filter(|&at| !self.world.nodes[at].up).collect();
        for at in down {
            // Some stay down for good, if the others can do without them.
            if self.rng.below(2) == 0 || !recoverable(&self.world, None) {
                self.world.step(&Event::Start(at))?;
            }
        }
        self.settle(None)?;
        let n = self.world.nodes.len();
        for (at, to) in (0..n * n).map(|k| (k / n, k % n)).filter(|(at, to)| at != to) {
            if self.world.nodes[at].up {
                self.world.step(&Event::Tell(at, to))?;
            }
        }
        self.settle(None)?;
        if !recoverable(&self.world, None) {
            return Ok(());
        }
        for _ in 0..12 {
            let newest = self.world.views.values().next_back().cloned().ok_or("no view")?;
            let mut up = self.world.nodes.iter().filter(|n| n.up);
            let all = up.clone().count() == newest.members.len();
            if all && up.all(|n| newest.members.contains(&n.run) && n.change.has_rank()) {
                return self.commits();
            }
            let voters = (0..self.world.nodes.len()).filter(|&k| {
                let node = &self.world.nodes[k];
                node.up && node.change.is_voter()
            });
            let proposer = voters.max_by_key(|&k| (self.world.nodes[k].epoch(), k));
            let proposer = proposer.ok_or_else(|| format!("I9: nobody may propose: {:?}", self.world.nodes))?;
            self.world.step(&Event::Propose(proposer))?;
            self.settle(Some(proposer))?;
        }
        let told = |n: &Rc<crate::world::Node>| format!("{:?} up: {} in epoch {}", n.run, n.up, n.epoch());
        let told: Vec<String> = self.world.nodes.iter().map(told).collect();
        Err(format!("I9: no view of all: {}", told.join(", ")))
    }

    /// Each member in turn announces a slot, and all of them are committed.
    fn commits(&mut self) -> Result<(), String> {
        let (before, n) = (self.world.commits(), self.world.nodes.len());
        // What was lost of the epoch so far is said again, two slots at a time.
        let longest = self.world.nodes.iter().filter(|n| n.up).map(|n| n.memory.log.len()).max().unwrap_or(0);
        for _ in 0..longest {
            for (at, to) in (0..n * n).map(|k| (k / n, k % n)).filter(|(at, to)| at != to) {
                if self.world.nodes[at].up {
                    self.world.step(&Event::Repeat(at, to))?;
                }
            }
            if self.world.net.is_empty() {
                break;
            }
            self.settle(None)?;
        }
        let turns = 2 * n;
        for turn in 0..turns {
            let next = (0..self.world.nodes.len()).find(|&k| self.world.nodes[k].may_order());
            let next = next.ok_or_else(|| format!("I9: nobody may announce, turn {turn}"))?;
            self.world.step(&Event::Order(next))?;
            self.settle(None)?;
        }
        if self.world.commits() < before + turns {
            return Err(format!("I9: of {turns} slots {} are committed", self.world.commits() - before));
        }
        Ok(())
    }

    /// Everything under way comes to its end.
    fn settle(&mut self, proposer: Option<usize>) -> Result<(), String> {
        for round in 0..3_000u32 {
            let waits = |k: &usize| self.world.nodes[*k].up && self.world.nodes[*k].has_unsynced();
            let waiting = (0..self.world.nodes.len()).find(waits);
            if let Some(at) = waiting {
                self.world.step(&Event::Sync(at))?;
            } else if !self.world.net.is_empty() {
                let packet = self.index(self.world.net.len());
                self.world.step(&Event::Deliver { packet, again: false })?;
            } else {
                let Some(at) = proposer.filter(|&k| round < 1_500 && self.world.nodes[k].change.proposing().is_some())
                else {
                    return Ok(());
                };
                self.world.step(&Event::Tick(at))?;
                if self.world.net.is_empty() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// What I9 speaks of: of the newest view that a disk still knows, and of every view that may yet follow it, a quorum
/// is here with its disks. This one's disk is counted as lost.
fn recoverable(world: &World, lost: Option<usize>) -> bool {
    let here = || world.nodes.iter().enumerate().filter(|(k, n)| n.up && Some(*k) != lost).map(|(_, n)| n);
    let here_or_writing = || here().flat_map(|n| [&n.disk.acceptor, &n.memory.acceptor]);
    let newest = here_or_writing().filter_map(|a| a.newest()).map(|v| v.epoch).max();
    let Some(view) = newest.and_then(|epoch| world.views.get(&epoch.0)) else { return false };
    let intact = |view: &View| {
        let voters = here().filter(|n| votes(view, n.run) && n.disk.acceptor.newest().is_some());
        is_quorum(view, Ranks::of(voters.filter_map(|n| view.rank_of(n.run.id))))
    };
    let accepted = world.nodes.iter().flat_map(|n| [&n.disk.acceptor, &n.memory.acceptor]);
    let accepted = accepted.filter_map(|a| a.accepted.as_ref()).map(|(_, value)| value);
    let next = accepted.chain(world.spoken_of()).filter(|v| v.epoch > view.epoch);
    intact(view) && next.into_iter().all(intact)
}
