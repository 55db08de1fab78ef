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

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(n: u64) -> (Digest, u64) {
        (Digest(n), n)
    }

    /// A member that has applied slots 1 to 9.
    fn compared() -> Compared {
        let mut compared = Compared::default();
        (1..=9).for_each(|slot| compared.applied(Slot(slot), digests(slot)));
        compared
    }

    #[test]
    fn it_tells_the_last_slot_applied() {
        assert_eq!(Compared::default().check(), None);
        let (operations, answers) = digests(9);
        assert_eq!(compared().check(), Some(Frame::Check { slot: Slot(9), operations, answers }));
    }

    #[test]
    fn one_against_more_of_the_others_has_diverged() {
        let mut compared = compared();
        compared.on_check(Rank(1), Slot(5), digests(50));
        compared.on_check(Rank(1), Slot(6), digests(60));
        assert!(!compared.diverged(), "one against one");
        compared.on_check(Rank(2), Slot(5), digests(50));
        assert!(compared.diverged(), "one against two");
        compared.on_check(Rank(3), Slot(5), digests(5));
        assert!(!compared.diverged(), "two against two");
    }

    #[test]
    fn answers_count_as_much_as_operations() {
        let mut compared = compared();
        compared.on_check(Rank(1), Slot(5), (Digest(5), 99));
        compared.on_check(Rank(2), Slot(5), (Digest(99), 5));
        assert!(compared.diverged());
    }

    #[test]
    fn who_agreed_before_may_differ_now() {
        let mut compared = compared();
        for rank in [Rank(1), Rank(2)] {
            compared.on_check(rank, Slot(5), digests(5));
            compared.on_check(rank, Slot(6), digests(60));
        }
        assert!(compared.diverged());
    }

    #[test]
    fn slots_not_applied_or_long_gone_say_nothing() {
        let mut compared = compared();
        (1..=REMEMBERED as u64).for_each(|k| compared.applied(Slot(9 + k), digests(9 + k)));
        assert_eq!(compared.recent.len(), REMEMBERED);
        for rank in [Rank(1), Rank(2)] {
            compared.on_check(rank, Slot(9), digests(90));
            compared.on_check(rank, Slot(10 + REMEMBERED as u64), digests(1));
        }
        assert!(!compared.diverged());
    }
}
