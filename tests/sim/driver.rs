//! What the reactor does in life: hands events to a replica, and does what its outbox says.

use std::net::IpAddr;
use std::rc::Rc;

use ftq::limits::{CHANGE_WAITING_MAX, ORIGIN_BYTES_MAX, WINDOW_BYTES};
use ftq::log::{replay, snapshot, LogWrite, Meta, MetaWrite};
use ftq::replica::{Input, Level, Outbox, Replica, Stored};
use ftq::types::{Dest, ReplicaId, Slot, Time, WriteNumber};
use ftq::wire::bundle::BUNDLE_BYTES_MAX;

use super::clock::{MS, US};
use super::crash::{Boundary, Death};
use super::disk::{File, Lane};
use super::marks;
use super::net::{self, Fate};
use super::node::cleared;
use super::wiretap::{describe, heard, number};
use super::world::{Bytes, Event, World};

/// So many frames of a change one call of a replica gives rise to.
const CHANGE_OWN_MAX: usize = 64;

/// I10: what a replica holds of messages stays below the windows of all members, its own clients included. Outside an
/// order it has what is not applied once more, for the log of the next view.
fn judge_bounds(replica: &Replica, members: usize) -> Result<(), String> {
    let windows = if replica.group().regular().is_some() { members } else { 2 * members };
    let most = (windows + 1) * ORIGIN_BYTES_MAX;
    let held = replica.buffered_bytes();
    if held > most {
        return Err(format!("I10: {held} bytes are buffered, {most} at most may be"));
    }
    let waiting = replica.change_waiting();
    if waiting > CHANGE_WAITING_MAX + CHANGE_OWN_MAX {
        return Err(format!("I10: {waiting} frames of a change wait for the disk"));
    }
    let window = replica.group().regular().map_or(0, |regular| regular.flow.window_bytes());
    if window > WINDOW_BYTES + BUNDLE_BYTES_MAX {
        return Err(format!("I10: {window} own bytes are under way, the window is {WINDOW_BYTES}"));
    }
    Ok(())
}

impl World {
    /// A replica comes up with what its disk holds.
    pub fn start(&mut self, index: usize) -> Result<(), String> {
        let now = self.now;
        let mut out = cleared(std::mem::take(&mut self.out));
        let node = &mut self.nodes[index];
        if node.replica.is_some() || node.given_up || node.back_at.is_some_and(|at| at > now) {
            self.out = out;
            return Ok(());
        }
        (node.host_down, node.back_at) = (false, None);
        if node.life > 0 {
            node.config.seed = node.rng.next_u64();
        }
        self.age_snapshots(index);
        let node = &mut self.nodes[index];
        let files = node.disk.snapshots();
        let snapshot::Choice { newest, usable, damaged } = snapshot::choose(&files);
        let segments = node.disk.segments();
        let log = replay(&segments);
        let meta = Meta::choose(node.disk.meta()).map_err(|e| format!("meta is unreadable: {e}"))?;
        if let Some(damage) = &log.damaged {
            return Err(format!("a log that only lost power is called damaged: {damage}"));
        }
        self.judges.recovered(index, &log, meta.as_ref())?;
        let stored = Stored { meta, log, snapshot: newest, snapshots: usable };
        if stored.snapshot.is_some() {
            self.tally.mark(marks::RESUMED);
        }
        let replica = Replica::recover(node.config.clone(), stored, node.clock.read(now), &mut out);
        let aside: Vec<Slot> = damaged.iter().map(|(slot, _)| *slot).collect();
        aside.into_iter().for_each(|slot| node.disk.set_aside(slot));
        node.replica = Some(replica);
        self.trace.event(now, 1, index as u64, &[]);
        if self.trace.is_on() {
            self.trace.line(now, &format!("r{}", index + 1), format_args!("starts"));
        }
        self.light_fuse_at_start(index);
        self.carry_out(index, out)?;
        if self.nodes[index].replica.is_some() {
            self.expect_turn(index);
        }
        Ok(())
    }

    /// Hands an event to a replica, if it is up.
    pub fn step(&mut self, index: usize, input: Input<'_>) -> Result<(), String> {
        let now = self.now;
        let turn = matches!(input, Input::Turn);
        let mut out = cleared(std::mem::take(&mut self.out));
        let node = &mut self.nodes[index];
        let Some(replica) = node.replica.as_mut() else {
            self.out = out;
            return Ok(());
        };
        replica.step(node.clock.read(now), input, &mut out);
        if self.trace.is_on() {
            self.trace_positions(index);
        }
        self.carry_out(index, out)?;
        if self.nodes[index].replica.is_none() {
            return Ok(());
        }
        if !turn {
            self.expect_turn(index);
            return Ok(());
        }
        let deadline = self.nodes[index].replica.as_ref().and_then(Replica::deadline);
        self.nodes[index].judge_spin(now, deadline)?;
        self.expect_wake(index, deadline);
        Ok(())
    }

    /// Where a replica stands, if that changed.
    pub fn trace_positions(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let Some(replica) = &node.replica else { return };
        let (known, durable, committed) = (replica.known(), replica.durable(), replica.committed());
        let positions =
            format!("known {known} durable {durable} committed {committed} applied {}", replica.applied().0);
        if node.positions != positions {
            self.trace.line(self.now, &format!("r{}", index + 1), format_args!("   {positions}"));
            self.nodes[index].positions = positions;
        }
    }

    pub fn expect_turn(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if node.turn_at.is_none() {
            let at = self.now + node.turn_delay();
            node.turn_at = Some(at);
            let life = node.life;
            self.schedule(at, Event::Turn { node: index, life });
        }
    }

    /// The loop will look at this deadline when it is due.
    fn expect_wake(&mut self, index: usize, deadline: Option<Time>) {
        let node = &mut self.nodes[index];
        let Some(deadline) = deadline else { return };
        let due = node.clock.when(deadline).max(self.now);
        if node.wake_at.is_none() || due < node.wake_due {
            let at = due + node.lateness();
            (node.wake_at, node.wake_due) = (Some(at), due);
            let life = node.life;
            self.schedule(at, Event::Wake { node: index, life });
        }
    }

    pub fn on_turn(&mut self, index: usize, life: u32) -> Result<(), String> {
        let node = &mut self.nodes[index];
        if node.life != life || node.turn_at.is_none_or(|at| at > self.now) {
            return Ok(());
        }
        node.turn_at = None;
        self.trace.event(self.now, 2, index as u64, &[]);
        self.step(index, Input::Turn)?;
        self.hand_over_frames(index)
    }

    pub fn on_wake(&mut self, index: usize, life: u32) -> Result<(), String> {
        let node = &mut self.nodes[index];
        if node.life != life || node.wake_at.is_none_or(|at| at > self.now) {
            return Ok(());
        }
        node.wake_at = None;
        let deadline = node.replica.as_ref().and_then(Replica::deadline);
        if deadline.is_some_and(|deadline| deadline <= node.clock.read(self.now)) {
            node.turn_at = Some(self.now);
            return self.on_turn(index, life);
        }
        self.expect_wake(index, deadline);
        Ok(())
    }

    pub fn on_datagram(&mut self, to: usize, from: IpAddr, bytes: &Bytes) -> Result<(), String> {
        self.trace.event(self.now, 3, to as u64, bytes);
        if self.trace.is_on() {
            let what = if self.nodes[to].exact { number(bytes) } else { describe(bytes) };
            let from = net::index(from).map_or(from.to_string(), |index| (index + 1).to_string());
            let text = format!("<- {from} {what}");
            self.trace.line(self.now, &format!("r{}", to + 1), format_args!("{text}"));
        }
        if self.nodes[to].replica.is_none() {
            if let Some(sender) = net::index(from).filter(|&sender| sender < self.plan.replicas) {
                if self.nodes[to].host_down || self.net.is_cut(to, sender, self.now) {
                    return Ok(());
                }
                self.tally.fault("port unreachable");
                self.schedule(self.now + MS, Event::Unreachable { to: sender, peer: to });
            }
            return Ok(());
        }
        self.step(to, Input::Datagram { from, bytes })
    }

    pub fn on_unreachable(&mut self, to: usize, peer: usize) -> Result<(), String> {
        self.trace.event(self.now, 4, to as u64, &[peer as u8]);
        self.step(to, Input::Unreachable(ReplicaId(peer as u8 + 1)))
    }

    pub fn on_sync(&mut self, index: usize, life: u32, lane: Lane) -> Result<(), String> {
        if self.nodes[index].life != life || self.burns(index, Boundary::Sync)? {
            return Ok(());
        }
        let node = &mut self.nodes[index];
        if let Some(number) = node.disk.end_sync(lane) {
            // The completion is noticed by the loop, which may be late.
            let late = match node.rng.below(10) {
                _ if node.exact => 0,
                0..=7 => 0,
                8 if self.plan.faults.late_disk => node.rng.below(100 * MS),
                _ => node.rng.below(500 * US),
            };
            self.judges.synced(index, number)?;
            if lane == Lane::Meta {
                self.judges.chain.newest().into_iter().for_each(|view| self.wiretap.learn(view));
            }
            self.schedule(self.now + late, Event::Durable { node: index, life, number });
        }
        if !self.burns(index, Boundary::Sync)? {
            self.begin_syncs(index);
        }
        Ok(())
    }

    pub fn on_durable(&mut self, index: usize, life: u32, number: WriteNumber) -> Result<(), String> {
        if self.nodes[index].life != life {
            return Ok(());
        }
        self.trace.event(self.now, 5, index as u64, &number.0.to_be_bytes());
        if self.trace.is_on() {
            self.trace.line(self.now, &format!("r{}", index + 1), format_args!("write {number} is durable"));
        }
        self.step(index, Input::Durable(number))
    }

    fn begin_syncs(&mut self, index: usize) {
        for lane in [Lane::Meta, Lane::Log] {
            let node = &mut self.nodes[index];
            if let Some(takes) = node.disk.begin_sync(lane) {
                let life = node.life;
                self.schedule(self.now + takes, Event::SyncEnds { node: index, life, lane });
            }
        }
    }

    /// Does what a step asked for, then lets the judges look.
    fn carry_out(&mut self, index: usize, mut out: Outbox) -> Result<(), String> {
        let Outbox { log, meta, net, clients, hang_up, streams, reads, snapshot, trim, notes, marks, stop } = &mut out;
        let (snapshot, trim) = (snapshot.take(), trim.take());
        let sends_first = self.nodes[index].sends_first;
        if sends_first && !self.say(index, net)? || !self.write(index, log, meta)? {
            return Ok(());
        }
        if !sends_first && !self.say(index, net)? || !self.keep(index, reads, snapshot, trim)? {
            return Ok(());
        }
        if let Some(replica) = &self.nodes[index].replica {
            let (applied, digest) = replica.applied();
            self.judges.applied(index, applied, digest)?;
            if let Some(regular) = replica.group().regular() {
                self.judges.orders_in(index, &regular.view, applied)?;
            }
            judge_bounds(replica, self.plan.replicas)?;
        }
        for (to, bytes) in streams.drain(..) {
            if self.burns(index, Boundary::Send)? {
                return Ok(());
            }
            self.send_stream(index, to, bytes)?;
        }
        for (connection, bytes) in clients.drain(..) {
            if self.burns(index, Boundary::Client)? {
                return Ok(());
            }
            self.write_to_client(connection, &bytes)?;
        }
        for connection in hang_up.drain(..) {
            self.hang_up(connection);
        }
        marks.drain(..).for_each(|mark| self.tally.mark(mark));
        for (level, note) in notes.drain(..) {
            if self.trace.is_on() {
                self.trace.line(self.now, &format!("r{}", index + 1), format_args!("{level:?}: {note}"));
            }
            if level == Level::Error {
                return Err(format!("replica {} reports: {note}", index + 1));
            }
        }
        let stop = stop.take();
        self.out = out;
        if let Some((message, status)) = stop {
            if status == 0 {
                return self.go_down(index, Death::Left);
            }
            return Err(format!("replica {} stops with status {status}: {message}", index + 1));
        }
        Ok(())
    }

    /// Hands datagrams to the network. False where the replica went down meanwhile.
    fn say(&mut self, index: usize, net: &mut Vec<(Dest, Vec<u8>)>) -> Result<bool, String> {
        let life = self.nodes[index].life;
        for (dest, bytes) in net.drain(..) {
            if self.burns(index, Boundary::Send)? {
                return Ok(false);
            }
            let (header, said) = self.wiretap.sends(self.now, index, dest, &bytes)?;
            self.judges.chain.speaks(index, &header, life)?;
            said.iter().try_for_each(|frame| self.judges.says(index, frame))?;
            self.send(index, dest, Rc::new(bytes));
        }
        Ok(true)
    }

    /// Hands writes to the disk. False where the replica went down meanwhile.
    fn write(&mut self, index: usize, log: &mut Vec<LogWrite>, meta: &mut Vec<MetaWrite>) -> Result<bool, String> {
        let applied = self.nodes[index].replica.as_ref().map_or(Slot(0), |replica| replica.applied().0);
        for LogWrite { number, segment, offset, bytes } in log.drain(..) {
            if self.burns(index, Boundary::Log)? {
                return Ok(false);
            }
            self.judges.logged(index, number, segment, offset, &bytes, applied)?;
            self.nodes[index].disk.write(number, File::Segment(segment), offset, bytes);
        }
        for write in meta.drain(..) {
            if self.burns(index, Boundary::Meta)? {
                return Ok(false);
            }
            self.judges.wrote_meta(index, &write)?;
            self.judges.chain.newest().into_iter().for_each(|view| self.wiretap.learn(view));
            self.nodes[index].disk.write(write.number, File::Meta, write.offset, write.bytes);
        }
        if self.burns(index, Boundary::Sync)? {
            return Ok(false);
        }
        self.begin_syncs(index);
        Ok(true)
    }

    fn send(&mut self, from: usize, dest: Dest, bytes: Bytes) {
        if self.trace.is_on() {
            let to: Vec<String> =
                (1..=64).filter(|&id| dest.contains(ReplicaId(id))).map(|id| id.to_string()).collect();
            let heard = if self.nodes[from].exact { String::new() } else { heard(&bytes) };
            let text = format!("-> {}{heard} {}", to.join(","), describe(&bytes));
            self.trace.line(self.now, &format!("r{}", from + 1), format_args!("{text}"));
        }
        for to in (0..self.plan.replicas).filter(|&to| dest.contains(ReplicaId(to as u8 + 1))) {
            self.tally.datagrams += 1;
            let mut bytes = bytes.clone();
            if self.plan.flip && self.in_faults() && self.rng.chance(2_000) {
                let mut flipped = (*bytes).clone();
                let bit = self.rng.below(flipped.len() as u64 * 8);
                flipped[bit as usize / 8] ^= 1 << (bit % 8);
                bytes = Rc::new(flipped);
                self.tally.fault("bit flipped");
            }
            self.remember(to, net::address(from), &bytes);
            match self.net.send(from, to, &bytes, self.now) {
                Fate::Lost(how) => {
                    self.tally.fault(how);
                    if self.trace.is_on() {
                        self.trace.line(self.now, "net", format_args!("{how}, {} to {}", from + 1, to + 1));
                    }
                }
                Fate::Arrives(at, again) => {
                    let from = net::address(from);
                    if let Some(again) = again {
                        self.tally.fault("datagram duplicated");
                        self.schedule(again, Event::Datagram { to, from, bytes: bytes.clone() });
                    }
                    self.schedule(at, Event::Datagram { to, from, bytes });
                }
            }
        }
    }
}
