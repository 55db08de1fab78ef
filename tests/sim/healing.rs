//! The liveness phase (I9): the faults stop, a random set of replicas that can go on is connected and started, the
//! rest may stay dead, cut off, or half deaf; and everything must come to its end.

use ftq::types::{Digest, Slot};
use ftq::wire::view::Durability;

use super::chain::Set;
use super::client::Client;
use super::clock::{Nanos, MS, SECOND};
use super::crash::Death;
use super::disk::Tear;
use super::world::{Event, World};

/// How long after the faults everything may take.
pub const SETTLE_NS: Nanos = 30 * SECOND;
/// How often it is looked whether all is done.
pub const LOOK_NS: Nanos = 20 * MS;

impl World {
    /// The faults stop.
    pub fn calm(&mut self) -> Result<(), String> {
        self.faults_over = true;
        self.net.calm();
        let set = self.draw_healed();
        self.heal(set)?;
        for index in 0..self.clients.len() {
            let moves = self.is_lost(&self.clients[index]);
            self.clients[index].calm(moves);
        }
        for index in 0..self.clients.len() {
            self.wake_client(index, false);
        }
        self.schedule(self.now + LOOK_NS, Event::Look);
        Ok(())
    }

    /// Whether the client may wait for ever where it is: at a replica that is no more, or was left to its fate.
    fn is_lost(&self, client: &Client) -> bool {
        let connection = client.connection().and_then(|connection| self.connections.get(&connection));
        connection.is_none_or(|c| self.nodes[c.node].life != c.life || self.healed >> c.node & 1 == 0)
    }

    /// All, or a random set that can go on by what is on its disks.
    fn draw_healed(&mut self) -> Set {
        let n = self.plan.replicas as u64;
        let all: Set = (1 << n) - 1;
        // Who forgot something has no vote until all are there.
        let forgetful = self.plan.durability == Durability::Memory;
        if !self.plan.faults.change_views() || forgetful || self.rng.chance(400_000) {
            return all;
        }
        for _ in 0..20 {
            let set = self.rng.between(1, all);
            if self.judges.chain.covers(set) {
                return set;
            }
        }
        all
    }

    /// These are up and connected from now on. The rest is left to its fate.
    fn heal(&mut self, set: Set) -> Result<(), String> {
        self.healed = set;
        self.healed_at = self.now;
        self.end_at = self.now + SETTLE_NS;
        let (mut hearing, mut heard) = (0, 0);
        for index in 0..self.plan.replicas {
            let node = &mut self.nodes[index];
            node.fuse = None;
            if set >> index & 1 == 1 {
                node.given_up = false;
                if self.now < node.paused_until {
                    node.paused_until = self.now;
                    self.schedule(self.now, Event::Resume { node: index });
                }
                if self.nodes[index].replica.is_none() {
                    let at = self.now + self.rng.below(200 * MS);
                    let back = &mut self.nodes[index].back_at;
                    if back.is_none_or(|back| back > at) {
                        *back = Some(at);
                        self.schedule(at, Event::Start { node: index });
                    }
                }
                continue;
            }
            node.given_up = true;
            node.back_at = None;
            match self.rng.below(6) {
                0 => hearing |= 1 << index,
                1 => heard |= 1 << index,
                2 | 3 => self.go_down(index, Death::Power(Tear::Everything))?,
                _ => {}
            }
        }
        self.net.keep_together(self.now, set, hearing, heard);
        if self.trace.is_on() {
            self.trace.line(
                self.now,
                "sim",
                format_args!("healed: {:?}; hearing them {hearing:b}, heard by them {heard:b}", self.healed_ids()),
            );
        }
        Ok(())
    }

    fn healed_ids(&self) -> Vec<usize> {
        (0..self.plan.replicas).filter(|k| self.healed >> k & 1 == 1).map(|k| k + 1).collect()
    }

    /// Whether all is done and all agree: then the run is over. What was under way when the faults stopped may have
    /// led to a view that needs more than those who were healed: then all are.
    pub fn look(&mut self) -> Result<(), String> {
        self.over = self.unfinished().is_none();
        self.tally.settled.0 = self.now - self.healed_at;
        // Whoever went to a replica that is left to its fate since then must not wait there for ever.
        for index in (0..self.clients.len()).filter(|&index| self.is_lost(&self.clients[index])).collect::<Vec<_>>() {
            self.clients[index].calm(true);
            self.wake_client(index, false);
        }
        let all = (1 << self.plan.replicas) - 1;
        if !self.over && self.healed != all && !self.judges.chain.covers(self.healed) {
            self.tally.fault("healed set grew");
            self.heal(all)?;
            self.clients.iter_mut().for_each(|client| client.calm(true));
        }
        self.schedule(self.now + LOOK_NS, Event::Look);
        Ok(())
    }

    /// What is not done yet, if anything (I9).
    fn unfinished(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|client| !client.is_done()) {
            return Some(client.waits_for());
        }
        let healed = || (0..self.plan.replicas).filter(|k| self.healed >> k & 1 == 1).map(|k| &self.nodes[k]);
        if healed().any(|node| node.replica.is_none()) {
            return Some("not all are up".to_owned());
        }
        let applied: Vec<(Slot, Digest)> = healed().filter_map(|n| n.replica.as_ref()).map(|r| r.applied()).collect();
        let behind = applied.iter().any(|(slot, _)| *slot < self.judges.agreed());
        let differ = applied.windows(2).any(|pair| pair[0] != pair[1]);
        if behind || differ {
            return Some(format!("the replicas have applied {applied:?} of {}", self.judges.agreed()));
        }
        healed().find_map(|node| node.replica.as_ref()?.reason())
    }

    /// At the end all of the healed have done everything, and are equal to the byte.
    pub fn judge_healed(&self) -> Result<(), String> {
        if let Some(what) = self.unfinished() {
            let seconds = SETTLE_NS / SECOND;
            let (healed, chain) = (self.healed_ids(), self.judges.chain.tell());
            return Err(format!("I9: {seconds} s after the last fault, healed {healed:?}, {chain}: {what}"));
        }
        let healed = (0..self.plan.replicas).filter(|k| self.healed >> k & 1 == 1).map(|k| &self.nodes[k]);
        let mut states = healed.filter_map(|node| node.replica.as_ref()).map(|replica| replica.snapshot());
        let first = states.next();
        if states.any(|state| Some(&state) != first.as_ref()) {
            return Err("I9: equal digests, and the snapshots differ".to_owned());
        }
        Ok(())
    }
}
