//! What a replica asks of its data directory beside the log: reads, snapshots that a child would write, and trimming.
//! A snapshot takes a time, may fail, and is lost with a crash before it ends; a crash between its end and the word
//! that it has ended leaves it to be found.

use std::rc::Rc;

use ftq::log::{replay, Snapshot};
use ftq::replica::{Input, ReadRequest, Trim};
use ftq::types::Slot;

use super::clock::{MS, US};
use super::crash::Boundary;
use super::marks;
use super::world::{Bytes, Event, World};

/// In how many of a million cases a snapshot can't be made while faults are injected.
const FAILS_PPM: u32 = 100_000;
/// In how many of a million starts the newest snapshot is damaged while faults are injected.
const DAMAGED_PPM: u32 = 50_000;

impl World {
    /// Does what a step asked for. False where the replica went down meanwhile.
    pub fn keep(
        &mut self,
        index: usize,
        reads: &mut Vec<ReadRequest>,
        snapshot: Option<Snapshot>,
        trim: Option<Trim>,
    ) -> Result<bool, String> {
        if let Some(trim) = trim {
            if self.burns(index, Boundary::Sync)? {
                return Ok(false);
            }
            if self.nodes[index].disk.trim(&trim) {
                self.tally.mark(marks::TRIMMED);
            }
        }
        if let Some(snapshot) = snapshot {
            let node = &mut self.nodes[index];
            let state = node.replica.as_ref().expect("it has just asked for it").snapshot();
            let bytes = Rc::new([&snapshot.header(&state)[..], &state].concat());
            let takes = 3 * node.disk.delay();
            let (life, slot) = (node.life, snapshot.slot);
            self.schedule(self.now + takes, Event::SnapshotEnds { node: index, life, slot, bytes });
        }
        for request in reads.drain(..) {
            let node = &mut self.nodes[index];
            let takes = if node.exact { 0 } else { node.rng.below(500 * US) };
            let life = node.life;
            self.schedule(self.now + takes, Event::Read { node: index, life, request });
        }
        Ok(true)
    }

    /// The child has done its work, or failed.
    pub fn on_snapshot_ends(&mut self, index: usize, life: u32, slot: Slot, bytes: &Bytes) -> Result<(), String> {
        if self.nodes[index].life != life || self.burns(index, Boundary::Sync)? {
            return Ok(());
        }
        let made = !(self.in_faults() && self.rng.chance(FAILS_PPM));
        if made {
            self.tally.mark(marks::SNAPSHOT);
            self.nodes[index].disk.put_snapshot(slot, bytes.to_vec());
        } else {
            self.tally.fault("snapshot failed");
        }
        if self.burns(index, Boundary::Sync)? {
            return Ok(());
        }
        let late = if self.nodes[index].exact { 0 } else { self.nodes[index].rng.below(2 * MS) };
        self.schedule(self.now + late, Event::Snapshot { node: index, life, slot, made });
        Ok(())
    }

    /// The replica learns what became of its snapshot.
    pub fn on_snapshot(&mut self, index: usize, life: u32, slot: Slot, made: bool) -> Result<(), String> {
        if self.nodes[index].life != life {
            return Ok(());
        }
        self.trace.event(self.now, 9, index as u64, &[u8::from(made)]);
        if self.trace.is_on() {
            let text = if made { "is made" } else { "failed" };
            self.trace.line(self.now, &format!("r{}", index + 1), format_args!("snapshot of slot {slot} {text}"));
        }
        self.step(index, Input::Snapshot { slot, made })
    }

    pub fn on_read(&mut self, index: usize, life: u32, request: &ReadRequest) -> Result<(), String> {
        if self.nodes[index].life != life {
            return Ok(());
        }
        let bytes = self.nodes[index].disk.read(request);
        self.trace.event(self.now, 10, index as u64, &bytes);
        self.step(index, Input::Read { token: request.token, bytes: &bytes })
    }

    /// Between two lives the newest of two snapshots may suffer, where the log goes on from the older one: these two
    /// must do. Behind a state that was taken over it does not.
    pub fn age_snapshots(&mut self, index: usize) {
        let slots: Vec<Slot> = self.nodes[index].disk.snapshots().iter().map(|(slot, _)| *slot).collect();
        if let [.., older, newest] = slots[..] {
            let segments = self.nodes[index].disk.segments();
            let first = replay(&segments).records.first().map(|found| found.record.slot);
            let goes_on = first.is_some_and(|first| first <= older.next());
            drop(segments);
            if goes_on && self.in_faults() && self.rng.chance(DAMAGED_PPM) {
                self.tally.fault("damaged snapshot");
                self.nodes[index].disk.damage_snapshot(newest);
            }
        }
    }
}
