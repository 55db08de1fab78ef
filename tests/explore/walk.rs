//! Random walks: a seed draws every step, with weather that changes; then the faults stop, and a view of all that are
//! up must form and commit (I9).

use ftq::group::change::votes;
use ftq::group::quorum::{is_quorum, Ranks};
use ftq::group::view::{Policy, View};
use ftq::rng::Rng;

use crate::world::{Event, Loss, World};

/// One walk. What broke, if anything did.
pub fn walk(n: u8, policy: Policy, seed: u64, steps: u32) -> Result<World, String> {
    let (mut world, mut rng) = (World::new(n, policy), Rng::new(seed));
    let mut weather = Weather::draw(&mut rng);
    // Disks are lost one at a time, and not before the views have moved on since the last.
    let mut lost_at = 0;
    for step in 0..steps {
        if step % 100 == 99 {
            weather = Weather::draw(&mut rng);
        }
        let Some(event) = weather.event(&world, &mut rng, &mut lost_at) else { continue };
        world.step(&event).map_err(|broken| format!("seed {seed}, step {step}: {broken}"))?;
        if world.net.len() > 60 {
            let lost = rng.below(world.net.len() as u64) as usize;
            world.net.swap_remove(lost);
        }
    }
    calm(&mut world, &mut rng).map_err(|broken| format!("seed {seed}, after the faults: {broken}"))?;
    Ok(world)
}

/// How often what happens.
struct Weather {
    crash_ppm: u32,
    propose_ppm: u32,
    order_ppm: u32,
    cut_ppm: u32,
    lose_ppm: u32,
    again_ppm: u32,
    sync_ppm: u32,
    disk_ppm: u32,
}

impl Weather {
    fn draw(rng: &mut Rng) -> Weather {
        let disk_ppm = if rng.chance(250_000) { 10_000 } else { 0 };
        let mut one = |of: &[u32]| *rng.pick(of);
        Weather {
            crash_ppm: one(&[0, 5_000, 30_000]),
            propose_ppm: one(&[5_000, 20_000, 60_000]),
            order_ppm: one(&[20_000, 100_000]),
            cut_ppm: one(&[0, 10_000, 30_000]),
            lose_ppm: one(&[0, 50_000, 200_000]),
            again_ppm: one(&[0, 100_000, 300_000]),
            sync_ppm: one(&[100_000, 400_000]),
            disk_ppm,
        }
    }

    fn event(&self, world: &World, rng: &mut Rng, lost_at: &mut u64) -> Option<Event> {
        let at = rng.below(world.nodes.len() as u64) as usize;
        let node = &world.nodes[at];
        if !node.up {
            return rng.chance(50_000).then_some(Event::Start(at));
        }
        if rng.chance(self.crash_ppm) {
            let newest = world.views.keys().next_back().copied().unwrap_or(0);
            let caught_up = world.nodes.iter().all(|n| n.up && n.epoch() == newest && n.change.is_voter());
            if rng.chance(self.disk_ppm * 10) && caught_up && newest > *lost_at {
                *lost_at = newest;
                return Some(Event::Crash(at, Loss::TheDisk));
            }
            let loss = *rng.pick(&[Loss::All, Loss::All, Loss::Nothing, Loss::TheLog, Loss::TheMeta]);
            return Some(if rng.chance(200_000) { Event::Stop(at) } else { Event::Crash(at, loss) });
        }
        if node.change.is_voter() && rng.chance(self.propose_ppm) {
            return Some(Event::Propose(at));
        }
        if node.may_order() && rng.chance(self.order_ppm) {
            return Some(Event::Order(at));
        }
        if rng.chance(self.cut_ppm) {
            return Some(if world.cut_off.is_some() { Event::Heal } else { Event::Cut(at) });
        }
        if node.has_unsynced() && rng.chance(self.sync_ppm) {
            return Some(Event::Sync(at));
        }
        if node.change.proposing().is_some() && rng.chance(30_000) {
            return Some(Event::Tick(at));
        }
        if world.net.is_empty() {
            return None;
        }
        let packet = rng.below(world.net.len() as u64) as usize;
        if rng.chance(self.lose_ppm) {
            return Some(Event::Lose(packet));
        }
        Some(Event::Deliver { packet, again: rng.chance(self.again_ppm) })
    }
}

/// No more faults: all that is sent arrives, all that is written is synced, and whoever is to propose does.
fn calm(world: &mut World, rng: &mut Rng) -> Result<(), String> {
    if world.cut_off.is_some() {
        world.step(&Event::Heal)?;
    }
    for at in 0..world.nodes.len() {
        if !world.nodes[at].up {
            world.step(&Event::Start(at))?;
        }
    }
    for _ in 0..12 {
        let newest = world.views.values().next_back().cloned().ok_or("no view")?;
        if !covered(world, &newest) {
            return Ok(());
        }
        let settled = world.nodes.iter().all(|n| newest.members.contains(&n.run) && n.change.has_rank());
        if settled && newest.members.len() == world.nodes.len() {
            return Ok(());
        }
        let proposer = (0..world.nodes.len()).rev().filter(|&k| world.nodes[k].change.is_voter());
        let proposer = proposer.max_by_key(|&k| world.nodes[k].epoch()).ok_or("nobody may propose")?;
        world.step(&Event::Propose(proposer))?;
        settle(world, rng, proposer)?;
    }
    let told: Vec<String> = world.nodes.iter().map(|n| format!("{:?} in epoch {}", n.run, n.epoch())).collect();
    Err(format!("I9: no view of all: {}", told.join(", ")))
}

/// What I9 speaks of: a quorum of the voters of the newest view is here, and of each value accepted for the next.
fn covered(world: &World, newest: &View) -> bool {
    let accepted = world.nodes.iter().filter_map(|n| n.memory.acceptor.accepted.as_ref()).map(|(_, value)| value);
    let present = |view: &View| {
        Ranks::of(world.nodes.iter().filter(|n| votes(view, n.run)).filter_map(|n| view.rank_of(n.run.id)))
    };
    accepted.filter(|v| v.epoch > newest.epoch).chain([newest]).all(|view| is_quorum(view, present(view)))
}

/// Everything under way comes to its end.
fn settle(world: &mut World, rng: &mut Rng, proposer: usize) -> Result<(), String> {
    for round in 0..2_000u32 {
        let waiting: Vec<usize> = (0..world.nodes.len()).filter(|&k| world.nodes[k].has_unsynced()).collect();
        if !waiting.is_empty() {
            world.step(&Event::Sync(*rng.pick(&waiting)))?;
        } else if !world.net.is_empty() {
            let packet = rng.below(world.net.len() as u64) as usize;
            world.step(&Event::Deliver { packet, again: false })?;
        } else if round < 1_000 && world.nodes[proposer].change.proposing().is_some() {
            world.step(&Event::Tick(proposer))?;
            if world.net.is_empty() {
                return Ok(());
            }
        } else {
            return Ok(());
        }
    }
    Ok(())
}
