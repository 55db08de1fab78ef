//! What must hold of every world, judged at the event where it can break: I1, I2, I5, and that logs are equal before a
//! decree.

use std::rc::Rc;

use ftq::group::change::votes;
use ftq::wire::view::View;

use crate::world::{digest, Value, World};

impl World {
    pub(crate) fn judge_committed(&mut self, epoch: u64, slot: u64, value: Value) -> Result<(), String> {
        let needed = ftq::group::quorum::commit_count(&self.views[&epoch]);
        if self.acks[&(epoch, slot)].len() < needed {
            return Ok(());
        }
        let first = Rc::make_mut(&mut self.committed).entry(slot).or_insert((epoch, value));
        if first.1 != value {
            return Err(format!("I1: slot {slot} commits as {value:?} in epoch {epoch}; it was {first:?}"));
        }
        match self.views.range(epoch + 1..).find(|(_, v)| v.base.0 < slot) {
            Some((e, v)) => {
                Err(format!("I2: slot {slot} commits in epoch {epoch}, but view {e} starts from {}", v.base))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn judge_adopted(&mut self, at: usize, view: &View) -> Result<(), String> {
        let known = Rc::make_mut(&mut self.views).entry(view.epoch.0).or_insert_with(|| view.clone());
        if known != view {
            return Err(format!("I5: two views of epoch {}: {view:?} and {known:?}", view.epoch));
        }
        let node = &self.nodes[at];
        for (slot, (epoch, value)) in self.committed.iter().filter(|(_, r)| r.0 < view.epoch.0) {
            let there = node.memory.log.get(*slot as usize - 1).map(|r| r.1);
            if *slot > view.base.0 || votes(view, node.run) && there != Some(*value) {
                return Err(format!("I2: {} adopts epoch {} without slot {slot} of epoch {epoch}", at + 1, view.epoch));
            }
        }
        let base = view.base.0 as usize;
        let log = &node.memory.log;
        if votes(view, node.run) && (log.len() < base || digest(&log[..base]) != view.base_digest) {
            return Err(format!("stable: {} adopts epoch {} with another log", at + 1, view.epoch));
        }
        Ok(())
    }
}
