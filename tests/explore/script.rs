//! Scripts: for what random walks hardly reach, the exact order of packets that does harm once a rule is broken.
//!
//! With the rules in force each must end without harm: what a script asks for and is not there, it passes over.

use ftq::wire::view::Policy;

use crate::world::{pair, Event, Loss, World};

pub type Script = fn(&mut Stage) -> Result<(), String>;

/// Each with the variant of the change that it catches.
pub const SCRIPTS: &[(&str, Script)] = &[
    ("ballot-reused", ballot_reused),
    ("stale-ready", stale_ready),
    ("stale-accept", stale_accept),
    ("answers-name-the-ballot-only", answers_of_another_epoch),
];

/// Three replicas in view 1. Replicas are named by their ids.
pub struct Stage {
    world: World,
    /// What this one writes is not synced of itself.
    slow_disk: u8,
    /// Packets delivered, each by kind.
    pub passed: Vec<&'static str>,
}

impl Stage {
    pub fn new() -> Stage {
        Stage { world: World::new(3, Policy::Dynamic), slow_disk: 0, passed: vec![] }
    }

    fn let_happen(&mut self, event: Event) -> Result<(), String> {
        self.world.step(&event)
    }

    fn propose(&mut self, id: u8) -> Result<(), String> {
        self.let_happen(Event::Propose(usize::from(id) - 1))
    }

    fn sync(&mut self, id: u8) -> Result<(), String> {
        self.let_happen(Event::Sync(usize::from(id) - 1))
    }

    /// Nobody is connected to this one; 0 is nobody.
    fn cut_off(&mut self, id: u8) -> Result<(), String> {
        let others = (1..=3).filter(|&other| id > 0 && other != id);
        let split = others.fold(0, |set, other| set | pair(usize::from(id) - 1, usize::from(other) - 1));
        self.let_happen(Event::Split(split))
    }

    /// The packets of this kind from one to others arrive, and those sync what they write.
    fn pass(&mut self, kind: &'static str, from: u8, to: &[u8]) -> Result<(), String> {
        self.pass_of(kind, (from, None), to, false)
    }

    /// Also names the sender's incarnation, or leaves the packets where they are to arrive again.
    fn pass_of(&mut self, kind: &'static str, from: (u8, Option<u64>), to: &[u8], again: bool) -> Result<(), String> {
        for &to in to {
            let packet = self.world.net.iter().position(|p| {
                let sender = p.from.id.0 == from.0 && from.1.is_none_or(|run| p.from.incarnation.0 == run);
                sender && p.kind() == kind && p.to.0 == to
            });
            if let Some(packet) = packet {
                self.passed.push(kind);
                self.let_happen(Event::Deliver { packet, again })?;
                if to != self.slow_disk {
                    self.sync(to)?;
                }
            }
        }
        Ok(())
    }

    fn pass_back(&mut self, kind: &'static str, from: &[u8], to: u8) -> Result<(), String> {
        from.iter().try_for_each(|&from| self.pass(kind, from, &[to]))
    }

    /// From PREPARE until these are READY and the proposer has sent ACCEPT.
    fn until_accept(&mut self, proposer: u8, members: &[u8]) -> Result<(), String> {
        self.propose(proposer)?;
        self.sync(proposer)?;
        self.pass("prepare", proposer, members)?;
        self.pass_back("promise", members, proposer)?;
        self.pass("sync", proposer, members)?;
        self.pass_back("ready", members, proposer)
    }

    fn decide(&mut self, proposer: u8, voters: &[u8]) -> Result<(), String> {
        self.pass("accept", proposer, voters)?;
        self.pass_back("accepted", voters, proposer)
    }
}

/// 3 asks 1 and 2 to accept A, all late, loses the ballot in a crash, has B accepted under the same one and installs
/// it; now A arrives, and 2 takes it over.
fn ballot_reused(stage: &mut Stage) -> Result<(), String> {
    stage.slow_disk = 3;
    stage.propose(3)?;
    stage.pass("prepare", 3, &[1, 2])?;
    stage.pass_back("promise", &[1, 2], 3)?;
    // Its own promise is not on the disk: the other two are a quorum, and it waits for nobody else any more.
    stage.let_happen(Event::Tick(2))?;
    stage.pass("sync", 3, &[1, 2])?;
    stage.pass_back("ready", &[1, 2], 3)?;
    stage.let_happen(Event::Crash(2, Loss::All))?;
    stage.slow_disk = 0;
    stage.until_accept(3, &[1, 2, 3])?;
    stage.pass_of("accept", (3, Some(2)), &[1, 2], false)?;
    stage.pass_back("accepted", &[1, 2], 3)?;
    stage.pass("install", 3, &[3])?;
    stage.pass_of("accept", (3, Some(1)), &[1, 2], false)?;
    stage.cut_off(3)?;
    stage.until_accept(2, &[1, 2])?;
    stage.decide(2, &[1, 2])?;
    stage.pass("install", 2, &[2])
}

/// 1 was READY for an empty log; under a later ballot it would have to hold slot 1, too.
fn stale_ready(stage: &mut Stage) -> Result<(), String> {
    stage.let_happen(Event::Order(1))?;
    stage.sync(2)?;
    stage.cut_off(2)?;
    stage.propose(3)?;
    stage.sync(3)?;
    stage.pass("prepare", 3, &[1])?;
    stage.pass_back("promise", &[1, 3], 3)?;
    stage.pass("sync", 3, &[1])?;
    stage.cut_off(0)?;
    stage.propose(3)?;
    stage.sync(3)?;
    stage.pass("prepare", 3, &[1, 2])?;
    stage.pass_back("promise", &[1, 2, 3], 3)?;
    // An earlier SYNC to itself may still be there.
    stage.pass("sync", 3, &[2, 3, 3])?;
    stage.pass("fetch", 3, &[2])?;
    stage.pass("records", 2, &[3])?;
    stage.pass_back("ready", &[1, 2, 3, 3], 3)?;
    stage.decide(3, &[2, 3])?;
    stage.pass("install", 3, &[3, 1])
}

/// 2 has promised 3, and B is decided; only then 1 asks it to accept A under its lower ballot.
fn stale_accept(stage: &mut Stage) -> Result<(), String> {
    stage.cut_off(3)?;
    stage.until_accept(1, &[1, 2])?;
    stage.cut_off(1)?;
    stage.until_accept(3, &[2, 3])?;
    stage.decide(3, &[2, 3])?;
    stage.pass("install", 3, &[3])?;
    stage.decide(1, &[1, 2])?;
    stage.pass("install", 1, &[1])
}

/// The promise that 2 gave in epoch 1 arrives in epoch 2, where 3 uses the same ballot and 2 holds more.
fn answers_of_another_epoch(stage: &mut Stage) -> Result<(), String> {
    stage.propose(3)?;
    stage.sync(3)?;
    stage.pass("prepare", 3, &[1, 2])?;
    stage.pass_of("promise", (2, None), &[3], true)?;
    stage.pass_back("promise", &[1, 3], 3)?;
    stage.pass("sync", 3, &[1, 2, 3])?;
    stage.pass_back("ready", &[1, 2, 3], 3)?;
    stage.decide(3, &[1, 2, 3])?;
    stage.pass("install", 3, &[1, 2, 3])?;
    stage.let_happen(Event::Order(1))?;
    stage.sync(2)?;
    stage.pass("order", 2, &[1])?;
    stage.cut_off(1)?;
    stage.propose(3)?;
    stage.sync(3)?;
    stage.pass("promise", 2, &[3])?;
    stage.pass("prepare", 3, &[2])?;
    stage.pass("promise", 3, &[3])?;
    stage.pass("sync", 3, &[2, 3])?;
    stage.pass_back("ready", &[2, 3], 3)?;
    stage.decide(3, &[2, 3])?;
    stage.pass("install", 3, &[3])
}
