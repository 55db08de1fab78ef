//! A group that has long been at work: all were stopped, and its counters stand where a narrower type would end. What
//! its disks hold is written here as if it had come about.

use ftq::log::meta::META_BYTES;
use ftq::log::{Meta, Snapshot};
use ftq::replica::machine::Machine;
use ftq::replica::Config;
use ftq::rng::Rng;
use ftq::types::{Birth, ClusterId, Digest, Epoch, GroupTime, Incarnation, Run, Slot, WriteNumber};
use ftq::wire::view::{Ballot, View};

use super::node::Node;

/// Where a group's counters stand at the beginning of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Height {
    pub slot: Slot,
    pub digest: Digest,
    pub time: GroupTime,
    epoch: Epoch,
    incarnation: Incarnation,
    round: u64,
    generation: u64,
}

impl Height {
    /// A group that is yet to be founded.
    pub const NOTHING: Height = Height {
        slot: Slot(0),
        digest: Digest(0),
        time: GroupTime(0),
        epoch: Epoch(0),
        incarnation: Incarnation(0),
        round: 0,
        generation: 0,
    };

    /// Each counter a little below the end of some type. Times count nanoseconds: 2^61 of them are 73 years.
    pub fn draw(rng: &mut Rng) -> Height {
        let mut below = |bits: &[u32], most| (1u64 << *rng.pick(bits)) - 1 - rng.below(most);
        Height {
            slot: Slot(below(&[16, 31, 32, 40], 60)),
            time: GroupTime(below(&[32, 53, 61], 1 << 31)),
            epoch: Epoch(below(&[8, 16, 31, 32, 53], 4)),
            incarnation: Incarnation(below(&[8, 16, 31, 32, 53], 4)),
            round: below(&[8, 16, 31, 32, 53], 4),
            generation: below(&[8, 16, 31, 32, 53], 8),
            digest: Digest(rng.next_u64()),
        }
    }

    /// Puts on these disks what a group has that stopped here, each by its own will.
    pub fn install(&self, nodes: &mut [Node], rng: &mut Rng) {
        let run = |id, birth| Run { id, birth: Birth(birth), incarnation: self.incarnation };
        let members: Vec<Run> = nodes.iter().map(|node| run(node.config.id, rng.next_u64() | 1)).collect();
        let view = self.view(&nodes[0].config, ClusterId(rng.next_u64() | 1), members);
        let state = self.state();
        for (node, member) in nodes.iter_mut().zip(&view.members) {
            let meta = Meta {
                generation: self.generation,
                id: member.id,
                cluster: view.cluster,
                birth: member.birth,
                incarnation: member.incarnation,
                installed: Some(view.clone()),
                clean: true,
                directory: node.config.directory,
                ..Meta::default()
            };
            let write = meta.write(WriteNumber(0));
            let (mut file, at) = (vec![0; META_BYTES], write.offset as usize);
            file[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
            let Height { slot, time, digest, .. } = *self;
            let header = Snapshot { slot, time, digest, view: view.clone() }.header(&state);
            node.disk.begin_with(file, slot, [&header[..], &state].concat());
        }
    }

    fn view(&self, config: &Config, cluster: ClusterId, members: Vec<Run>) -> View {
        let Run { id, birth, incarnation } = members[0];
        View {
            cluster,
            epoch: self.epoch,
            ballot: Ballot { round: self.round, id, birth, incarnation },
            members,
            base: self.slot,
            chain: Vec::new(),
            base_digest: self.digest,
            base_time: self.time,
            policy: config.policy,
            min_members: config.min_members,
            durability: config.durability,
            book: config.book.clone(),
        }
    }

    /// The state after so many slots in which nothing was left behind: its format begins with a byte for the version,
    /// slot, time and digest.
    fn state(&self) -> Vec<u8> {
        let mut state = Machine::new().snapshot();
        let counters = [self.slot.0, self.time.0, self.digest.0];
        counters.iter().enumerate().for_each(|(k, n)| state[1 + 8 * k..][..8].copy_from_slice(&n.to_be_bytes()));
        state
    }

    /// The index of what is kept for each slot from here; `None` for those before.
    pub fn index(&self, slot: Slot) -> Option<usize> {
        slot.0.checked_sub(self.slot.0 + 1).map(|index| index as usize)
    }
}
