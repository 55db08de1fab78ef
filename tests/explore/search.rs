//! Depth first through every order of steps, up to a depth, each state once.
//!
//! One step is one packet, proposal, timer or fault at one replica; what it writes is synced and what it says to
//! itself arrives in the same step, or else it crashes right there and any part of what it wrote remains. What
//! this leaves to the walks: a replica that acts again, or says what need not wait for the disk, while it still writes.

use std::collections::HashMap;

use crate::world::{pair, Event, Loss, World};

/// What may happen in one search, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub depth: u32,
    pub proposals: u32,
    pub crashes: u32,
    pub cuts: u32,
    pub orders: u32,
    /// Packets of which a second copy arrives.
    pub copies: u32,
}

/// How often each has happened on the way to a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Spent {
    proposals: u32,
    crashes: u32,
    cuts: u32,
    orders: u32,
    copies: u32,
}

#[derive(Default)]
pub struct Search {
    /// For each state the greatest depth that was still left below it.
    seen: HashMap<(u64, Spent), u32>,
    pub steps: u64,
    pub epochs: u64,
    pub commits: usize,
}

impl Search {
    pub fn states(&self) -> usize {
        self.seen.len()
    }

    /// Goes through everything below this world. What broke and how, if anything did.
    pub fn run(&mut self, world: &World, limits: &Limits) -> Result<(), String> {
        self.below(world, Spent::default(), limits.depth, limits, &mut Vec::new())
    }

    fn below(
        &mut self,
        world: &World,
        spent: Spent,
        depth: u32,
        limits: &Limits,
        path: &mut Vec<String>,
    ) -> Result<(), String> {
        if depth == 0 {
            return Ok(());
        }
        for event in events(world, spent, limits) {
            let (mut next, mut spent) = (world.clone(), spend(spent, &event));
            path.push(tell(world, &event));
            self.step(&mut next, &event, path)?;
            let writing = (0..next.nodes.len()).find(|&at| next.nodes[at].has_unsynced());
            if let Some(at) = writing.filter(|_| spent.crashes < limits.crashes) {
                spent.crashes += 1;
                for loss in [Loss::All, Loss::Nothing, Loss::TheLog, Loss::TheMeta] {
                    let (mut next, crash) = (next.clone(), Event::Crash(at, loss));
                    path.push(tell(&next, &crash));
                    self.step(&mut next, &crash, path)?;
                    self.visit(next, spent, depth - 1, limits, path)?;
                    path.pop();
                }
                spent.crashes -= 1;
            }
            self.visit(next, spent, depth - 1, limits, path)?;
            path.pop();
        }
        Ok(())
    }

    fn step(&mut self, world: &mut World, event: &Event, path: &[String]) -> Result<(), String> {
        self.steps += 1;
        world.step(event).map_err(|broken| format!("{broken}\n{}", path.join("\n")))
    }

    /// Ends what is being written, and goes on below if this state is new.
    fn visit(
        &mut self,
        mut world: World,
        spent: Spent,
        depth: u32,
        limits: &Limits,
        path: &mut Vec<String>,
    ) -> Result<(), String> {
        loop {
            let writing = (0..world.nodes.len()).find(|&at| world.nodes[at].has_unsynced());
            let to_itself = world.net.iter().position(|packet| packet.from.id == packet.to);
            let event = match (writing, to_itself) {
                (Some(at), _) => Event::Sync(at),
                (None, Some(packet)) => Event::Deliver { packet, again: false },
                (None, None) => break,
            };
            self.step(&mut world, &event, path)?;
        }
        let key = (world.key(), spent);
        if self.seen.get(&key).is_some_and(|&before| before >= depth) {
            return Ok(());
        }
        self.seen.insert(key, depth);
        self.epochs = self.epochs.max(world.views.keys().next_back().copied().unwrap_or(0));
        self.commits = self.commits.max(world.commits());
        self.below(&world, spent, depth, limits, path)
    }
}

fn spend(mut spent: Spent, event: &Event) -> Spent {
    match event {
        Event::Propose(_) => spent.proposals += 1,
        Event::Crash(..) => spent.crashes += 1,
        Event::Split(pairs) if *pairs != 0 => spent.cuts += 1,
        Event::Order(_) => spent.orders += 1,
        Event::Deliver { again: true, .. } => spent.copies += 1,
        _ => {}
    }
    spent
}

/// All that may happen next.
fn events(world: &World, spent: Spent, limits: &Limits) -> Vec<Event> {
    let mut events = Vec::new();
    for (at, node) in world.nodes.iter().enumerate() {
        if spent.crashes < limits.crashes {
            events.push(Event::Crash(at, Loss::All));
        }
        if spent.proposals < limits.proposals && node.change.is_voter() {
            events.push(Event::Propose(at));
        }
        if node.change.proposing().is_some() {
            events.push(Event::Tick(at));
        }
        if node.may_order() && spent.orders < limits.orders {
            events.push(Event::Order(at));
        }
        if world.split == 0 && spent.cuts < limits.cuts {
            events.push(Event::Split((0..world.nodes.len()).filter(|&k| k != at).fold(0, |set, k| set | pair(k, at))));
        }
    }
    if world.split != 0 {
        events.push(Event::Split(0));
    }
    for packet in 0..world.net.len() {
        events.push(Event::Deliver { packet, again: false });
        if spent.copies < limits.copies {
            events.push(Event::Deliver { packet, again: true });
        }
    }
    events
}

fn tell(world: &World, event: &Event) -> String {
    match event {
        Event::Deliver { packet, again } => format!("  deliver (again: {again}) {:?}", world.net[*packet]),
        other => format!("  {other:?}"),
    }
}
