//! Live members compare what applying gave: a member whose operations or answers differ from what more than half of
//! the others have stops serving and says so (the end of DESIGN section 10).

use std::collections::VecDeque;

use crate::group::quorum::Ranks;
use crate::types::{Digest, Rank, Slot};
use crate::wire::datagram::Frame;

/// Slots whose digests are remembered for comparison.
const REMEMBERED: usize = 256;

#[derive(Debug, Default)]
pub struct Compared {
    recent: VecDeque<(Slot, (Digest, u64))>,
    differs: Ranks,
    agrees: Ranks,
}

impl Compared {
    /// A slot was applied, with these digests of operations and answers.
    pub fn applied(&mut self, slot: Slot, digests: (Digest, u64)) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((slot, digests));
    }

    /// For the heartbeat: the last slot applied, once there is one.
    pub fn check(&self) -> Option<Frame<'static>> {
        let &(slot, (operations, answers)) = self.recent.back()?;
        Some(Frame::Check { slot, operations, answers })
    }

    /// What another member has at a slot.
    pub fn on_check(&mut self, rank: Rank, slot: Slot, digests: (Digest, u64)) {
        let Ok(at) = self.recent.binary_search_by_key(&slot, |r| r.0) else { return };
        if self.recent[at].1 == digests {
            self.agrees = self.agrees.with(rank);
        } else {
            // It may have agreed before: what counts is that it does not any more.
            (self.differs, self.agrees) = (self.differs.with(rank), self.agrees.without(rank));
        }
    }

    /// Whether more members differ from this one than agree with it, itself counted.
    pub fn diverged(&self) -> bool {
        self.differs.count() > self.agrees.count() + 1
    }
}
