//! The slower lanes of an outbox: streams between replicas, reads of what is on the disk, snapshots.

use std::rc::Rc;

use ftq::log::Snapshot;
use ftq::replica::{Input, ReadRequest, StoredFile, Trim};
use ftq::types::{ReplicaId, Slot};
use ftq::wire::stream;

use super::clock::{Nanos, MS, US};
use super::crash::Boundary;
use super::disk::File;
use super::world::{Bytes, Event, World};

/// One direction of the connection between two replicas.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// What is sent arrives after everything sent before.
    arrives: Nanos,
}

fn file(stored: StoredFile) -> File {
    match stored {
        StoredFile::Segment(number) => File::Segment(number),
        StoredFile::Snapshot(slot) => File::Snapshot(slot),
    }
}

impl World {
    /// Hands frames to streams. Where the other side is down or cut off, they are lost with the connection. False
    /// where the replica went down meanwhile.
    pub fn stream(&mut self, from: usize, frames: &mut Vec<(ReplicaId, Vec<u8>)>) -> Result<bool, String> {
        for (to, bytes) in frames.drain(..) {
            if self.burns(from, Boundary::Send)? {
                return Ok(false);
            }
            let to = usize::from(to.0) - 1;
            let cut = self.net.is_cut(from, to, self.now) || self.net.is_cut(to, from, self.now);
            if cut || self.nodes[to].replica.is_none() {
                self.tally.fault("stream broken");
                continue;
            }
            let mut at = 0;
            while let Some((frame, taken)) = stream::first_frame(&bytes[at..]).map_err(|e| e.to_string())? {
                at += taken;
                let takes = self.stream_ns(frame.len());
                let flow = &mut self.flows[from * self.plan.replicas + to];
                flow.arrives = flow.arrives.max(self.now + takes) + 1;
                let (frame, lives) = (Rc::new(frame.to_vec()), [self.nodes[from].life, self.nodes[to].life]);
                let arrives = flow.arrives;
                self.schedule(arrives, Event::Stream { from, to, lives, frame });
            }
            if at < bytes.len() {
                return Err("half a frame for a replica".to_owned());
            }
        }
        Ok(true)
    }

    /// How long a frame takes: three gigabits a second, and now and then what was lost is sent again.
    fn stream_ns(&mut self, bytes: usize) -> Nanos {
        let lost = self.in_faults() && self.rng.chance(20_000);
        let again = if lost { self.rng.between(MS, 400 * MS) } else { 0 };
        100 * US + bytes as u64 * 3 + again
    }

    pub fn on_stream(&mut self, from: usize, to: usize, lives: [u32; 2], frame: &Bytes) -> Result<(), String> {
        if [self.nodes[from].life, self.nodes[to].life] != lives || self.net.is_cut(from, to, self.now) {
            return Ok(());
        }
        self.trace.event(self.now, 10, to as u64, frame);
        if self.trace.is_on() {
            let text = match stream::Frame::decode(frame) {
                Ok((_, frame)) => super::model::brief(&format!("{frame:?}")),
                Err(error) => error.to_string(),
            };
            self.trace.line(self.now, &format!("r{}", to + 1), format_args!("<~ {} {text}", from + 1));
        }
        self.step(to, Input::Stream { from: ReplicaId(from as u8 + 1), frame })
    }

    /// Begins reads.
    pub fn read(&mut self, index: usize, reads: &mut Vec<ReadRequest>) {
        for request in reads.drain(..) {
            let node = &mut self.nodes[index];
            let takes = if node.exact { MS } else { node.rng.between(20 * US, 3 * MS) };
            let life = node.life;
            self.schedule(self.now + takes, Event::Read { node: index, life, request });
        }
    }

    pub fn on_read(&mut self, index: usize, life: u32, request: ReadRequest) -> Result<(), String> {
        if self.nodes[index].life != life {
            return Ok(());
        }
        let content = self.nodes[index].disk.read(file(request.file));
        let from = content.len().min(request.offset as usize);
        let end = content.len().min(from + request.bytes as usize);
        self.trace.event(self.now, 11, index as u64, &content[from..end]);
        self.step(index, Input::Read { token: request.token, bytes: &content[from..end] })
    }

    /// A child writes the state as it is now; or can't.
    pub fn snapshot(&mut self, index: usize, snapshot: Option<Snapshot>) {
        let Some(snapshot) = snapshot else { return };
        let node = &mut self.nodes[index];
        let Some(replica) = &node.replica else { return };
        let state = replica.snapshot();
        let mut bytes = snapshot.header(&state);
        bytes.extend_from_slice(&state);
        let takes = node.rng.between(MS, 300 * MS);
        let (life, slot) = (node.life, snapshot.slot);
        self.schedule(self.now + takes, Event::Snapshot { node: index, life, slot, bytes: Rc::new(bytes) });
    }

    pub fn on_snapshot(&mut self, index: usize, life: u32, slot: Slot, bytes: &Bytes) -> Result<(), String> {
        if self.nodes[index].life != life {
            return Ok(());
        }
        let node = &mut self.nodes[index];
        let made = self.faults_over || node.rng.chance(950_000);
        if made {
            node.disk.put_whole(File::Snapshot(slot), bytes);
        }
        self.tally.fault(if made { "snapshot" } else { "snapshot failed" });
        self.trace.event(self.now, 12, index as u64, &slot.0.to_be_bytes());
        self.step(index, Input::Snapshot { slot, made })
    }

    /// What is needed no more goes.
    pub fn trim(&mut self, index: usize, trim: Option<Trim>) {
        let Some(Trim { segments_below, snapshots_below }) = trim else { return };
        self.tally.fault("log trimmed");
        self.nodes[index].disk.remove(|file| match file {
            File::Meta => false,
            File::Segment(number) => number < segments_below,
            File::Snapshot(slot) => slot < snapshots_below,
        });
    }
}
