//! Depth first through every interleaving, up to a depth, each state once.

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
            let (mut next, spent) = (world.clone(), spend(spent, &event));
            self.steps += 1;
            path.push(tell(world, &event));
            next.step(&event).map_err(|broken| format!("{broken}\n{}", path.join("\n")))?;
            let key = (next.key(), spent);
            if self.seen.get(&key).is_none_or(|&before| before < depth - 1) {
                self.seen.insert(key, depth - 1);
                self.epochs = self.epochs.max(next.views.keys().next_back().copied().unwrap_or(0));
                self.commits = self.commits.max(next.commits());
                self.below(&next, spent, depth - 1, limits, path)?;
            }
            path.pop();
        }
        Ok(())
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

/// All that may happen next. A replica with writes under way does nothing but end them or crash: what else it might
/// do meanwhile differs only in what leaves after it.
fn events(world: &World, spent: Spent, limits: &Limits) -> Vec<Event> {
    let mut events = Vec::new();
    for (at, node) in world.nodes.iter().enumerate() {
        if node.has_unsynced() {
            events.push(Event::Sync(at));
            if spent.crashes < limits.crashes {
                events
                    .extend([Loss::All, Loss::Nothing, Loss::TheLog, Loss::TheMeta].map(|loss| Event::Crash(at, loss)));
            }
            continue;
        }
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
    for (k, packet) in world.net.iter().enumerate() {
        if !world.nodes[usize::from(packet.to.0) - 1].has_unsynced() {
            events.push(Event::Deliver { packet: k, again: false });
            if spent.copies < limits.copies {
                events.push(Event::Deliver { packet: k, again: true });
            }
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
