//! Replicas that go down and come back: at any effect of a step, at any boundary of their disks, as a process or with
//! their whole host, with what was not synced lost or torn, with an empty directory, or because they were asked to.

use ftq::replica::Input;
use ftq::types::ClientId;
use ftq::wire::view::Durability;

use super::clock::{Nanos, MS, SECOND};
use super::disk::Tear;
use super::world::{Event, World};

/// What a replica is about to do, or has just done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Boundary {
    Send,
    Log,
    Meta,
    /// A sync begins or ends.
    Sync,
    Client,
}

/// How a replica goes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The process alone: what it has written is safe with the kernel.
    Killed,
    /// The host loses its power.
    Power(Tear),
    /// And comes back with an empty directory.
    Wiped,
    /// It was asked to leave, and has left.
    Left,
}

/// Goes off at the boundary with this number, counted from now.
#[derive(Clone, Copy, Debug)]
pub struct Fuse {
    /// Only these count; `None` for all.
    only: Option<Boundary>,
    left: u64,
    death: Death,
}

impl World {
    fn draw_tear(&mut self) -> Tear {
        match self.rng.below(4) {
            0 => Tear::Nothing,
            1 => Tear::Everything,
            _ => Tear::Sectors(self.rng.between(50_000, 950_000) as u32),
        }
    }

    fn draw_death(&mut self) -> Death {
        if self.plan.faults.wipes && self.rng.chance(150_000) {
            return Death::Wiped;
        }
        match self.rng.below(2) {
            0 => Death::Killed,
            _ => Death::Power(self.draw_tear()),
        }
    }

    /// One replica will go down soon.
    pub fn doom_one(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let index = self.rng.below(self.plan.replicas as u64) as usize;
        let death = self.draw_death();
        let only = *self.rng.pick(&[
            None,
            None,
            Some(Boundary::Send),
            Some(Boundary::Log),
            Some(Boundary::Meta),
            Some(Boundary::Meta),
            Some(Boundary::Sync),
        ]);
        let left = *self.rng.pick(&[1, 4, 20, 100]);
        self.nodes[index].fuse = Some(Fuse { only, left: self.rng.below(left), death });
        let most = *self.rng.pick(&[20 * MS, 300 * MS, 1000 * MS, 4 * SECOND]);
        let next = self.now + self.rng.below(most);
        self.schedule(next, Event::Doom);
        Ok(())
    }

    /// Who has just come up goes down again now and then.
    pub fn light_fuse_at_start(&mut self, index: usize) {
        if self.plan.faults.crashes && self.in_faults() && self.rng.chance(100_000) {
            let (left, death) = (self.rng.below(10), self.draw_death());
            self.nodes[index].fuse = Some(Fuse { only: None, left, death });
        }
    }

    /// All lose their power at once.
    pub fn black_out(&mut self) -> Result<(), String> {
        if self.in_faults() {
            self.tally.fault("blackout");
            for index in 0..self.plan.replicas {
                let death = Death::Power(self.draw_tear());
                self.go_down(index, death)?;
            }
            let next = self.now + self.rng.between(SECOND, 10 * SECOND);
            self.schedule(next, Event::Blackout);
        }
        Ok(())
    }

    /// One replica is asked to leave.
    pub fn dismiss_one(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let index = self.rng.below(self.plan.replicas as u64) as usize;
        if self.nodes[index].replica.is_some() {
            self.tally.fault("asked to leave");
            self.schedule(self.now, Event::Leave { node: index });
        }
        let next = self.now + self.rng.between(10 * MS, 3 * SECOND);
        self.schedule(next, Event::Dismiss);
        Ok(())
    }

    pub fn on_leave(&mut self, index: usize) -> Result<(), String> {
        self.step(index, Input::Leave)
    }

    /// A replica passes a boundary. True where it went down there: nothing more of its step is done.
    pub fn burns(&mut self, index: usize, boundary: Boundary) -> Result<bool, String> {
        let Some(fuse) = &mut self.nodes[index].fuse else { return Ok(false) };
        if fuse.only.is_some_and(|only| only != boundary) {
            return Ok(false);
        }
        if fuse.left > 0 {
            fuse.left -= 1;
            return Ok(false);
        }
        let death = fuse.death;
        self.go_down(index, death)?;
        Ok(self.nodes[index].replica.is_none())
    }

    /// A disk may be lost only where the others' can go on without it.
    fn may_wipe(&self, index: usize) -> bool {
        let all = (1 << self.plan.replicas) - 1;
        // A view that is being proposed may yet need the disk that is lost.
        let proposes = |node: &super::node::Node| {
            node.replica.as_ref().is_some_and(|replica| replica.group().change().proposing().is_some())
        };
        !self.nodes.iter().any(proposes) && self.judges.chain.covers(all & !(1 << index))
    }

    /// Who acknowledges from memory may forget only what others have: not while another one that forgot something is
    /// not in a view again.
    fn may_forget(&self) -> bool {
        let view_of = |node: &super::node::Node| {
            let regular = node.replica.as_ref().and_then(|replica| replica.group().regular());
            regular.map(|regular| regular.tag)
        };
        let first = view_of(&self.nodes[0]);
        self.nodes.len() > 1 && first.is_some() && self.nodes.iter().all(|node| view_of(node) == first)
    }

    /// The replica is down from now on, and comes back after a time, if at all.
    pub fn go_down(&mut self, index: usize, death: Death) -> Result<(), String> {
        if self.nodes[index].replica.is_none() {
            return Ok(());
        }
        if self.plan.durability == Durability::Memory && death != Death::Left && !self.may_forget() {
            self.nodes[index].fuse = None;
            return Ok(());
        }
        let death = if death == Death::Wiped && !self.may_wipe(index) { Death::Killed } else { death };
        self.trace.event(self.now, 9, index as u64, &[]);
        if self.trace.is_on() {
            self.trace.line(self.now, &format!("r{}", index + 1), format_args!("goes down: {death:?}"));
        }
        let node = &mut self.nodes[index];
        node.host_down = matches!(death, Death::Power(_) | Death::Wiped);
        let unsynced = node.disk.unsynced_bytes() > 0;
        let torn = match death {
            Death::Killed | Death::Left => node.disk.crash(Tear::Everything),
            Death::Power(tear) => node.disk.crash(tear),
            Death::Wiped => {
                node.disk.wipe();
                node.config.directory[0] += 100;
                false
            }
        };
        if node.host_down {
            node.clock = node.clock.started_again(&mut node.rng, self.now);
        }
        node.stop();
        self.wiretap.forget(index);
        self.tally.fault(match death {
            Death::Killed => "process killed",
            Death::Power(_) => "power lost",
            Death::Wiped => "directory lost",
            Death::Left => "left",
        });
        if unsynced && node.host_down {
            self.tally.fault("unsynced data at a crash");
        }
        if torn {
            self.tally.fault("torn write");
        }
        if death == Death::Wiped {
            self.judges.chain.wiped(index);
        }
        if !node.host_down {
            self.break_connections(index);
        }
        if !self.nodes[index].exact {
            self.come_back(index);
        }
        Ok(())
    }

    /// The kernel tells the clients of a process that it is gone.
    pub fn break_connections(&mut self, index: usize) {
        let gone: Vec<ClientId> =
            self.connections.iter().filter(|(_, c)| c.node == index).map(|(&connection, _)| connection).collect();
        for connection in gone {
            self.schedule(self.now + MS, Event::GoneAtClient { connection });
        }
    }

    fn come_back(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.given_up {
            return;
        }
        // At once, before anyone suspects, around then, long after.
        let longest = *self.rng.pick(&[0, 3 * MS, 60 * MS, 400 * MS, 1500 * MS, 8 * SECOND]);
        let at = self.now + self.rng.below(longest + 1);
        self.nodes[index].back_at = Some(at);
        self.schedule(at, Event::Start { node: index });
    }

    /// Links go down together.
    pub fn part(&mut self) -> Result<(), String> {
        if !self.in_faults() || self.plan.replicas == 1 {
            return Ok(());
        }
        let (what, lasts) = self.net.part(self.now);
        self.tally.fault(what);
        if self.trace.is_on() {
            self.trace.line(self.now, "net", format_args!("{what} for {} ms", lasts / MS));
        }
        let pause: Nanos = *self.rng.pick(&[10 * MS, 500 * MS, 3 * SECOND]);
        let next = self.now + self.rng.below(pause) + if self.rng.chance(700_000) { lasts } else { 0 };
        self.schedule(next, Event::Part);
        Ok(())
    }
}
