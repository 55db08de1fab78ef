//! What goes wrong in a run: weather, pauses, garbage, vandals, and the crash that may be its last act.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use ftq::types::{ClientId, RequestNumber, SessionId, Slot};
use ftq::wire::client::{ToReplica, VERSION};

use super::client::Act;
use super::clock::{MS, SECOND};
use super::connections::NO_CLIENT;
use super::disk::Pace;
use super::net;
use super::services::Habits;
use super::workload;
use super::world::{Bytes, Event, World};

/// Datagrams kept to be replayed later.
const OLD_DATAGRAMS: usize = 64;
/// Vandals' connections are named above those of the clients.
const VANDALS_FROM: u64 = 1 << 48;

impl World {
    pub fn change_weather(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let (lasts, began) = self.net.change(self.now);
        if self.trace.is_on() {
            self.trace.line(self.now, "net", format_args!("the weather changes: {began:?}"));
        }
        began.into_iter().for_each(|kind| self.tally.fault(kind));
        if self.rng.chance(200_000) {
            let node = self.rng.below(self.plan.replicas as u64) as usize;
            let slow = Pace { least_ns: 5 * MS, most_ns: 50 * MS, ..self.plan.disk };
            self.nodes[node].disk.pace = slow;
            self.tally.fault("slow disk");
        } else {
            self.nodes.iter_mut().for_each(|node| node.disk.pace = self.plan.disk);
        }
        self.schedule(self.now + lasts, Event::Weather);
        Ok(())
    }

    /// Keeps a datagram so that it may be replayed much later.
    pub fn remember(&mut self, to: usize, from: IpAddr, bytes: &Bytes) {
        if self.nodes[to].exact || self.plan.faults.garbage && self.rng.chance(50_000) {
            if self.old.len() == OLD_DATAGRAMS {
                self.old.pop_front();
            }
            self.old.push_back((to, from, bytes.clone()));
        }
    }

    pub fn inject_garbage(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let replicas = self.plan.replicas as u64;
        let to = self.rng.below(replicas) as usize;
        let stranger = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let member = net::address(self.rng.below(replicas) as usize);
        let from = if self.rng.chance(300_000) { stranger } else { member };
        let old = match self.old.len() as u64 {
            0 => None,
            count => self.old.get(self.rng.below(count) as usize).cloned(),
        };
        match (self.rng.below(3), old) {
            (0, Some((to, from, bytes))) => {
                self.tally.fault("old datagram replayed");
                self.schedule(self.now, Event::Datagram { to, from, bytes });
            }
            (1, Some((to, _, bytes))) => {
                self.tally.fault("truncated datagram");
                let length = self.rng.below(bytes.len() as u64) as usize;
                self.schedule(self.now, Event::Datagram { to, from, bytes: Rc::new(bytes[..length].to_vec()) });
            }
            _ => {
                self.tally.fault("garbage datagram");
                let length = self.rng.below(300);
                let bytes: Vec<u8> = (0..length).map(|_| self.rng.next_u64() as u8).collect();
                self.schedule(self.now, Event::Datagram { to, from, bytes: Rc::new(bytes) });
            }
        }
        let next = self.now + self.rng.below(100 * MS);
        self.schedule(next, Event::Garbage);
        Ok(())
    }

    pub fn pause_one(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let node = self.rng.below(self.plan.replicas as u64) as usize;
        let lasts = *self.rng.pick(&[MS, 20 * MS, 200 * MS, 2 * SECOND, 12 * SECOND]);
        let until = self.now + self.rng.below(lasts) + 1;
        if self.nodes[node].paused_until < self.now {
            self.tally.fault("loop paused");
            self.nodes[node].paused_until = until;
            self.schedule(until, Event::Resume { node });
        }
        let next = self.now + self.rng.below(SECOND);
        self.schedule(next, Event::Pause);
        Ok(())
    }

    /// To the replica it is as if its loop had stood still, but nobody else has noticed anything.
    pub fn jump_one(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        let node = self.rng.below(self.plan.replicas as u64) as usize;
        let most = *self.rng.pick(&[20 * MS, 700 * MS, 5 * SECOND, 3_600 * SECOND]);
        self.tally.fault("clock jumped");
        let by = self.rng.below(most) + 1;
        self.nodes[node].clock.jump(by);
        if self.nodes[node].replica.is_some() {
            self.expect_turn(node);
        }
        let next = self.now + self.rng.between(200 * MS, 3 * SECOND);
        self.schedule(next, Event::Jump);
        Ok(())
    }

    /// Something arrives at a host whose loop does not run. Its socket holds only so much.
    pub fn hold(&mut self, index: usize, event: Event) {
        let node = &mut self.nodes[index];
        if let Event::Datagram { bytes, .. } = &event {
            if node.waiting_bytes + bytes.len() > node.config.receive_buffer_bytes as usize {
                self.tally.fault("receive buffer overflows");
                return;
            }
            node.waiting_bytes += bytes.len();
        }
        node.waiting.push_back(event);
    }

    /// The loop runs again: what waited is handed over, in its order.
    pub fn resume(&mut self, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        node.waiting_bytes = 0;
        for event in std::mem::take(&mut node.waiting) {
            self.schedule(self.now, event);
        }
        Ok(())
    }

    /// Someone speaks nonsense to a replica.
    pub fn vandalize(&mut self) -> Result<(), String> {
        if !self.in_faults() {
            return Ok(());
        }
        self.tally.fault("vandal");
        self.vandals += 1;
        let connection = ClientId(VANDALS_FROM + self.vandals);
        let replica = self.rng.below(self.plan.replicas as u64) as usize;
        self.act(NO_CLIENT, Act::Connect { connection, replica });
        let mut frames = Vec::new();
        let mut add = |frame: ToReplica<'_>| {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            frames.push(bytes);
        };
        let invented = SessionId { slot: Slot(self.rng.below(50)), position: 0, digest: self.rng.next_u64() };
        let (rng, habits) = (&mut self.rng, &mut Habits::new());
        let operation: Rc<[u8]> = workload::operation(rng, &self.plan.load, habits, 1 << 20, self.vandals).into();
        let request = ToReplica::Request { number: RequestNumber(1), seen: RequestNumber(0), operation: &operation };
        match self.rng.below(6) {
            0 => add(ToReplica::Hello { version: VERSION + 1 }),
            1 => add(request),
            2 => {
                add(ToReplica::Hello { version: VERSION });
                add(request);
            }
            3 | 4 => {
                self.judges.sends(invented, 1, &operation);
                add(ToReplica::Hello { version: VERSION });
                add(ToReplica::Use { session: invented, keep: false });
                add(request);
            }
            _ => frames.push((0..self.rng.between(5, 60)).map(|_| self.rng.next_u64() as u8).collect()),
        }
        for frame in frames {
            self.act(NO_CLIENT, Act::Send { connection, frame });
        }
        if self.rng.chance(500_000) {
            self.act(NO_CLIENT, Act::Close { connection });
        }
        let next = self.now + self.rng.below(300 * MS);
        self.schedule(next, Event::Vandal);
        Ok(())
    }
}
