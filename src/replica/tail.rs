//! The log's tail: the slots that are logged and not applied, when there is no window that holds them: at a replica
//! without rank, and while a view changes. Every one may still turn out never to have been committed.

use std::collections::VecDeque;

use crate::types::{Digest, Epoch, GroupTime, Slot};
use crate::wire::change::LogEnd;
use crate::wire::digest::slot_digest;

/// One slot, self-contained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub epoch: Epoch,
    pub slot: Slot,
    pub time: GroupTime,
    /// The running digest including this slot.
    pub digest: Digest,
    /// The payloads in delivery order.
    pub operations: Vec<u8>,
}

impl Held {
    pub fn end(&self) -> LogEnd {
        LogEnd { slot: self.slot, digest: self.digest, time: self.time }
    }

    /// Whether this slot follows `before` and its digest says so.
    pub fn follows(&self, before: LogEnd) -> bool {
        let digest = || slot_digest(before.digest, self.slot, self.time, &[&self.operations]);
        self.slot == before.slot.next() && self.digest == digest()
    }
}

/// Consecutive slots.
#[derive(Debug, Default)]
pub struct Tail {
    list: VecDeque<Held>,
}

impl Tail {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Goes on with the next slot.
    pub fn push(&mut self, held: Held) {
        let follows = self.list.back().is_none_or(|last| last.slot.next() == held.slot);
        assert!(follows, "slots are held in order");
        self.list.push_back(held);
    }

    pub fn last(&self) -> Option<&Held> {
        self.list.back()
    }

    pub fn end(&self) -> Option<LogEnd> {
        self.list.back().map(Held::end)
    }

    /// The first slot, if it is not beyond `upto`.
    pub fn pop(&mut self, upto: Slot) -> Option<Held> {
        self.list.front().filter(|held| held.slot <= upto)?;
        self.list.pop_front()
    }

    pub fn get(&self, slot: Slot) -> Option<&Held> {
        let first = self.list.front()?.slot;
        self.list.get(slot.0.checked_sub(first.0)? as usize)
    }

    /// The first slot that must go, and with it all behind it.
    pub fn first_denied(&self, keeps: impl Fn(Epoch, Slot) -> bool) -> Option<Slot> {
        self.list.iter().find(|held| !keeps(held.epoch, held.slot)).map(|held| held.slot)
    }

    /// Drops this slot and all behind it.
    pub fn cut(&mut self, from: Slot) {
        while self.list.back().is_some_and(|held| held.slot >= from) {
            self.list.pop_back();
        }
    }

    pub fn bytes(&self) -> usize {
        self.list.iter().map(|held| held.operations.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots 5 to 9; from 7 on of epoch 2.
    fn tail() -> Tail {
        let mut tail = Tail::default();
        let mut digest = Digest(4);
        for k in 5..=9u64 {
            let (slot, time, operations) = (Slot(k), GroupTime(k), vec![k as u8; 3]);
            digest = slot_digest(digest, slot, time, &[&operations]);
            tail.push(Held { epoch: Epoch(1 + u64::from(slot.0 >= 7)), slot, time, digest, operations });
        }
        tail
    }

    #[test]
    fn slots_are_taken_from_the_front_and_cut_from_the_back() {
        let mut tail = tail();
        assert_eq!(tail.pop(Slot(4)), None);
        assert_eq!(tail.pop(Slot(5)).map(|h| h.slot), Some(Slot(5)));
        tail.cut(Slot(8));
        assert_eq!(tail.end().map(|end| end.slot), Some(Slot(7)));
        assert_eq!(tail.get(Slot(6)).map(|h| h.slot), Some(Slot(6)));
        assert_eq!((tail.get(Slot(5)), tail.get(Slot(8)), tail.bytes()), (None, None, 6));
        tail.cut(Slot(0));
        assert!(tail.is_empty() && tail.end().is_none());
    }

    #[test]
    fn the_first_slot_that_is_denied_takes_all_behind_it_along() {
        let tail = tail();
        assert_eq!(tail.first_denied(|epoch, slot| epoch == Epoch(1) || slot.0 <= 7), Some(Slot(8)));
        assert_eq!(tail.first_denied(|_, _| true), None);
    }

    #[test]
    fn a_slot_follows_what_its_digest_says() {
        let tail = tail();
        let [five, six] = [5, 6].map(|slot| tail.get(Slot(slot)).expect("it is held"));
        assert!(six.follows(five.end()));
        assert!(!five.follows(six.end()) && !six.follows(LogEnd { digest: Digest(0), ..five.end() }));
        let changed = Held { operations: vec![9], ..six.clone() };
        assert!(!changed.follows(five.end()));
    }
}
