//! What was destroyed or purged, freed bit by bit: to give ten million items back to the allocator in one step would
//! hold every replica up. Nothing in here is state: a replica that restored a snapshot has less of it.

use super::contents::Contents;
use super::fifo::CHUNK_BYTES;
use super::keys::Keys;
use crate::wire::queue::Receipt;
use std::collections::VecDeque;

/// Bytes that one step frees, the part it ends in not counted: more than a slot's operations can bring in.
pub const FREED_BYTES_STEP: u64 = 4 << 20;
/// Chunks and single items that one step frees at most.
pub const FREED_PARTS_STEP: usize = 8192;
/// What takes no more is freed at once.
const FREED_BYTES_AT_ONCE: u64 = 4 * CHUNK_BYTES as u64;

/// What a queue leaves behind.
#[derive(Default, Debug)]
struct Grave {
    contents: Contents,
    keys: Keys,
}

/// What waits to be freed.
#[derive(Default, Debug)]
pub struct Graveyard {
    graves: VecDeque<Grave>,
    /// Of all graves but for what was freed of the first.
    memory: u64,
}

impl Graveyard {
    pub fn is_empty(&self) -> bool {
        self.graves.is_empty()
    }

    /// Bytes of memory it takes, roughly.
    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Takes what nobody can see any more; calls `forget` for each receipt that is freed.
    pub fn bury(&mut self, contents: Contents, keys: Keys, forget: impl FnMut(Receipt)) {
        let memory = contents.memory_bytes() + keys.memory_bytes();
        if memory <= FREED_BYTES_AT_ONCE {
            contents.receipts().for_each(forget);
        } else {
            self.memory += memory;
            self.graves.push_back(Grave { contents, keys });
        }
    }

    /// Frees a bounded part; answers how many chunks and items.
    pub fn free_some(&mut self, mut forget: impl FnMut(Receipt)) -> usize {
        let (mut parts, mut bytes) = (0, 0);
        while parts < FREED_PARTS_STEP && bytes < FREED_BYTES_STEP {
            let Some(grave) = self.graves.front_mut() else { break };
            if let Some((freed, receipt)) = grave.contents.dismantle() {
                receipt.into_iter().for_each(&mut forget);
                bytes += freed;
            } else if let Some(freed) = grave.keys.dismantle() {
                bytes += freed;
            } else {
                self.graves.pop_front();
                continue;
            }
            parts += 1;
        }
        self.memory = if self.graves.is_empty() { 0 } else { self.memory.saturating_sub(bytes) };
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupTime;
    use crate::wire::queue::Place;

    fn list(count: u64, size: usize) -> Contents {
        let mut contents = Contents::default();
        (0..count)
            .for_each(|number| contents.ready.push(Place { priority: 0, number }, GroupTime(1), &vec![b'x'; size]));
        contents
    }

    fn bury(graveyard: &mut Graveyard, contents: Contents) {
        graveyard.bury(contents, Keys::default(), |_| ());
    }

    #[test]
    fn a_million_items_are_freed_in_bounded_steps() {
        let mut graveyard = Graveyard::default();
        let contents = list(1_000_000, 16);
        let taken = contents.memory_bytes();
        bury(&mut graveyard, contents);
        assert_eq!(graveyard.memory_bytes(), taken);
        let mut steps = 0;
        while !graveyard.is_empty() {
            let before = graveyard.memory_bytes();
            assert!(graveyard.free_some(|_| ()) <= FREED_PARTS_STEP);
            let freed = before - graveyard.memory_bytes();
            assert!(freed <= FREED_BYTES_STEP + 2 * CHUNK_BYTES as u64, "{freed} bytes in one step");
            steps += 1;
        }
        assert_eq!(graveyard.memory_bytes(), 0);
        assert!(steps >= taken / (FREED_BYTES_STEP + 2 * CHUNK_BYTES as u64), "{steps} steps");
    }

    #[test]
    fn leased_items_are_freed_one_by_one_and_their_receipts_forgotten() {
        let (mut graveyard, mut contents) = (Graveyard::default(), list(20_000, 16));
        (1..=10_000).for_each(|k| _ = contents.lease(Receipt(k), GroupTime(k)));
        bury(&mut graveyard, contents);
        let (mut forgotten, mut steps) = (Vec::new(), 0);
        while !graveyard.is_empty() {
            assert!(graveyard.free_some(|receipt| forgotten.push(receipt)) <= FREED_PARTS_STEP);
            steps += 1;
        }
        forgotten.sort();
        assert_eq!(forgotten, (1..=10_000).map(Receipt).collect::<Vec<_>>());
        assert!((3..6).contains(&steps), "{steps}");
    }

    #[test]
    fn large_items_count_by_their_bytes() {
        let mut graveyard = Graveyard::default();
        bury(&mut graveyard, list(20, 1 << 20));
        assert!(graveyard.free_some(|_| ()) as u64 <= FREED_BYTES_STEP >> 20);
        assert!(!graveyard.is_empty());
    }

    #[test]
    fn a_short_list_is_not_kept() {
        let (mut graveyard, mut contents) = (Graveyard::default(), list(10, 16));
        contents.lease(Receipt(7), GroupTime(1));
        let mut forgotten = Vec::new();
        graveyard.bury(contents, Keys::default(), |receipt| forgotten.push(receipt));
        assert!(graveyard.is_empty());
        assert_eq!((graveyard.memory_bytes(), forgotten), (0, vec![Receipt(7)]));
    }
}
