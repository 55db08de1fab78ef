//! What was destroyed or purged, freed bit by bit: to give ten million items back to the allocator in one step would
//! hold every replica up. Nothing in here is state: a replica that restored a snapshot has less of it.

use super::fifo::{chunk_memory, Chunk, Fifo, CHUNK_BYTES};
use std::collections::VecDeque;

/// Bytes that one step frees, the chunk it ends in not counted: more than a slot's operations can bring in.
pub const FREED_BYTES_STEP: u64 = 4 << 20;
/// Chunks that one step frees at most.
pub const FREED_CHUNKS_STEP: usize = 512;
/// A list that takes no more is freed at once.
const FREED_BYTES_AT_ONCE: u64 = 4 * CHUNK_BYTES as u64;

/// Chunks that wait to be freed.
#[derive(Default, Debug)]
pub struct Graveyard {
    lists: VecDeque<VecDeque<Chunk>>,
    memory: u64,
}

impl Graveyard {
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Takes a list that nobody can see any more.
    pub fn bury(&mut self, fifo: Fifo) {
        if fifo.memory_bytes() > FREED_BYTES_AT_ONCE {
            self.memory += fifo.memory_bytes();
            self.lists.push_back(fifo.into_chunks());
        }
    }

    /// Frees a bounded part; answers how many chunks.
    pub fn free_some(&mut self) -> usize {
        let (mut chunks, mut bytes) = (0, 0);
        while chunks < FREED_CHUNKS_STEP && bytes < FREED_BYTES_STEP {
            let Some(list) = self.lists.front_mut() else { break };
            // From the back: there an allocator that grew with the list can give memory to the kernel bit by bit, where
            // from the front it would hold it all until the last chunk, and then return it in one long call.
            match list.pop_back() {
                Some(chunk) => {
                    chunks += 1;
                    bytes += chunk_memory(&chunk);
                }
                None => {
                    self.lists.pop_front();
                }
            }
        }
        self.memory -= bytes;
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::GroupTime;

    fn list(count: usize, size: usize) -> Fifo {
        let mut fifo = Fifo::default();
        (0..count).for_each(|_| fifo.push(GroupTime(1), &vec![b'x'; size]));
        fifo
    }

    #[test]
    fn a_million_items_are_freed_in_bounded_steps() {
        let mut graveyard = Graveyard::default();
        let fifo = list(1_000_000, 16);
        let taken = fifo.memory_bytes();
        graveyard.bury(fifo);
        assert_eq!(graveyard.memory_bytes(), taken);
        let mut steps = 0;
        while !graveyard.is_empty() {
            let before = graveyard.memory_bytes();
            assert!(graveyard.free_some() <= FREED_CHUNKS_STEP);
            let freed = before - graveyard.memory_bytes();
            assert!(freed <= FREED_BYTES_STEP + 2 * CHUNK_BYTES as u64, "{freed} bytes in one step");
            steps += 1;
        }
        assert_eq!(graveyard.memory_bytes(), 0);
        assert!(steps >= taken / (FREED_BYTES_STEP + 2 * CHUNK_BYTES as u64), "{steps} steps");
    }

    #[test]
    fn large_items_count_by_their_bytes() {
        let mut graveyard = Graveyard::default();
        graveyard.bury(list(20, 1 << 20));
        assert!(graveyard.free_some() as u64 <= FREED_BYTES_STEP >> 20);
        assert!(!graveyard.is_empty());
    }

    #[test]
    fn a_short_list_is_not_kept() {
        let mut graveyard = Graveyard::default();
        graveyard.bury(list(10, 16));
        assert!(graveyard.is_empty());
        assert_eq!(graveyard.memory_bytes(), 0);
    }
}
