//! First in, first out, packed: items lie one behind the other in chunks, so that an item costs no allocation and
//! few bytes beyond its own.
//!
//! ```text
//! varint nanoseconds since the item before was pushed | varint length | bytes
//! ```
//!
//! No item lies in two chunks; one that is larger than a chunk has its own. A small item costs its own bytes and 2 to
//! 6 more, most often 2 to 4: pushed in one slot, items share their time.

use crate::limits::ITEM_BYTES_MAX;
use crate::types::GroupTime;
use crate::wire::codec::{varint_len, DecodeError, Decoded, Put, Reader};
use std::collections::VecDeque;

/// Bytes of a full chunk of small items.
pub const CHUNK_BYTES: usize = 16 << 10;
/// An empty FIFO keeps no more than this allocated.
const SPARE_BYTES: usize = 1 << 10;
const CHUNK_BYTES_FIRST: usize = 64;
/// What a chunk costs beside its bytes: its entry in the list and the allocator's own.
const CHUNK_OVERHEAD: u64 = 40;

/// Items packed into one allocation.
pub type Chunk = Vec<u8>;

/// Bytes of memory a chunk takes.
pub fn chunk_memory(chunk: &Chunk) -> u64 {
    CHUNK_OVERHEAD + chunk.capacity() as u64
}

/// An item where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    /// When it was pushed.
    pub time: GroupTime,
    /// Its length as a varint and its bytes: as `wire::operation::Items` has it.
    pub framed: &'a [u8],
    pub bytes: &'a [u8],
}

/// A list of items with the times of their pushes, which never fall.
#[derive(Default, Debug)]
pub struct Fifo {
    /// None is empty but the only one.
    chunks: VecDeque<Chunk>,
    /// Where the front item begins in the first chunk.
    head: usize,
    count: u64,
    bytes: u64,
    memory: u64,
    /// What the front item's time is counted from.
    before: GroupTime,
    /// When the last item was pushed.
    last: GroupTime,
}

/// Reads the item at the front of `r`, pushed after an item of the time `before`.
fn item<'a>(r: &mut Reader<'a>, before: GroupTime) -> Decoded<Item<'a>> {
    let time = before.0.checked_add(r.varint("push time")?).ok_or(DecodeError { field: "push time" })?;
    framed(r, GroupTime(time))
}

fn framed<'a>(r: &mut Reader<'a>, time: GroupTime) -> Decoded<Item<'a>> {
    let mut start = *r;
    let bytes = r.bytes(ITEM_BYTES_MAX, "item")?;
    let framed = start.take(start.remaining() - r.remaining(), "item")?;
    Ok(Item { time, framed, bytes })
}

impl Fifo {
    /// The number of items.
    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of all items.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Appends an item. A time before the last item's counts as the last item's.
    pub fn push(&mut self, time: GroupTime, item: &[u8]) {
        if self.count == 0 {
            (self.before, self.last) = (time, time);
        }
        let elapsed = time.0.saturating_sub(self.last.0);
        let chunk = self.room(varint_len(elapsed) + varint_len(item.len() as u64) + item.len());
        chunk.put_varint(elapsed);
        chunk.put_bytes(item);
        self.last.0 += elapsed;
        self.count += 1;
        self.bytes += item.len() as u64;
    }

    /// The last chunk, with room for `bytes` more.
    fn room(&mut self, bytes: usize) -> &mut Chunk {
        let full = self.chunks.back().is_none_or(|last| !last.is_empty() && last.len() + bytes > CHUNK_BYTES);
        if full {
            // The first one grows with its items, for most queues are short.
            let capacity = if self.chunks.is_empty() { 0 } else { CHUNK_BYTES.max(bytes) };
            self.chunks.push_back(Vec::with_capacity(capacity));
            self.memory += CHUNK_OVERHEAD + capacity as u64;
        }
        let chunk = self.chunks.back_mut().expect("pushed where there was none");
        let (capacity, needed) = (chunk.capacity(), chunk.len() + bytes);
        if needed > capacity {
            let grown = needed.max((2 * capacity).clamp(CHUNK_BYTES_FIRST, CHUNK_BYTES));
            chunk.reserve_exact(grown - chunk.len());
            self.memory += (chunk.capacity() - capacity) as u64;
        }
        chunk
    }

    /// The items from the front.
    pub fn iter(&self) -> impl Iterator<Item = Item<'_>> {
        let mut chunks = self.chunks.iter();
        let mut r = Reader::new(chunks.next().map_or(&[], |chunk| &chunk[self.head..]));
        let mut before = self.before;
        std::iter::from_fn(move || {
            if r.is_empty() {
                r = Reader::new(chunks.next()?);
            }
            // Chunks hold what `push` wrote; only the chunk of an empty FIFO is empty.
            let item = item(&mut r, before).ok()?;
            before = item.time;
            Some(item)
        })
    }

    pub fn front(&self) -> Option<Item<'_>> {
        self.iter().next()
    }

    /// Removes the front item and appends it to `out`, framed; `false` if there is none.
    pub fn pop_into(&mut self, out: &mut Vec<u8>) -> bool {
        self.remove(|item| out.extend_from_slice(item.framed)).is_some()
    }

    /// Removes the front item: when it was pushed, and its bytes.
    pub fn take(&mut self) -> Option<(GroupTime, Box<[u8]>)> {
        self.remove(|item| (item.time, item.bytes.into()))
    }

    fn remove<T>(&mut self, take: impl FnOnce(&Item<'_>) -> T) -> Option<T> {
        let item = self.front()?;
        let taken = take(&item);
        let Item { time, framed, bytes } = item;
        let (own, length) = (bytes.len() as u64, varint_len(time.0 - self.before.0) + framed.len());
        self.count -= 1;
        self.bytes -= own;
        self.before = time;
        self.head += length;
        if self.chunks.front().is_some_and(|chunk| chunk.len() == self.head) {
            self.leave_chunk();
        }
        Some(taken)
    }

    /// Goes on to the next chunk once the first has been read.
    fn leave_chunk(&mut self) {
        self.head = 0;
        if self.chunks.len() == 1 && self.chunks[0].capacity() <= SPARE_BYTES {
            self.chunks[0].clear();
        } else if let Some(chunk) = self.chunks.pop_front() {
            self.memory -= chunk_memory(&chunk);
        }
    }

    /// One of its chunks, for who frees them bit by bit: the list is of no other use afterwards. From the back: there
    /// an allocator that grew with the list can give memory to the kernel bit by bit, where from the front it would
    /// hold it all until the last chunk, and then return it in one long call.
    pub fn drop_chunk(&mut self) -> Option<Chunk> {
        self.chunks.pop_back()
    }

    /// Appends the items; equal lists write equal bytes, however they lie in their chunks.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_varint(self.count);
        let Some(front) = self.front() else { return };
        out.put_u64(front.time.0);
        out.extend_from_slice(front.framed);
        let mut skip = self.head + varint_len(front.time.0 - self.before.0) + front.framed.len();
        for chunk in &self.chunks {
            out.extend_from_slice(&chunk[skip..]);
            skip = 0;
        }
    }

    /// Reads what `snapshot` wrote.
    pub fn restore(r: &mut Reader<'_>) -> Decoded<Fifo> {
        let mut fifo = Fifo::default();
        let count = r.varint("item count")?;
        if count == 0 {
            return Ok(fifo);
        }
        let time = GroupTime(r.u64("push time")?);
        let first = framed(r, time)?;
        fifo.push(first.time, first.bytes);
        for _ in 1..count {
            let next = item(r, fifo.last)?;
            fifo.push(next.time, next.bytes);
        }
        Ok(fifo)
    }

    /// When the last item was pushed, if there is any.
    pub fn last_time(&self) -> Option<GroupTime> {
        (self.count > 0).then_some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn contents(fifo: &Fifo) -> VecDeque<(GroupTime, Vec<u8>)> {
        fifo.iter().map(|item| (item.time, item.bytes.to_vec())).collect()
    }

    fn bytes_of(fifo: &Fifo) -> Vec<u8> {
        let mut out = Vec::new();
        fifo.snapshot(&mut out);
        out
    }

    quickcheck! {
        fn it_is_a_list(steps: Vec<(bool, u16, u16)>) -> bool {
            let (mut fifo, mut model) = (Fifo::default(), VecDeque::new());
            let mut time = GroupTime(1 << 40);
            for (push, size, wait) in steps {
                if push {
                    time.0 += u64::from(wait / 7);
                    // Sizes below, about and above a chunk.
                    let item = vec![wait as u8; usize::from(size) % (2 * CHUNK_BYTES)];
                    fifo.push(time, &item);
                    model.push_back((time, item));
                } else {
                    let mut out = Vec::new();
                    assert_eq!(fifo.pop_into(&mut out), !model.is_empty());
                    if let Some((_, item)) = model.pop_front() {
                        assert_eq!(Reader::new(&out).bytes(ITEM_BYTES_MAX, "item"), Ok(&item[..]));
                    }
                }
                assert_eq!(contents(&fifo), model);
                assert_eq!(fifo.len(), model.len() as u64);
                assert_eq!(fifo.bytes(), model.iter().map(|(_, item)| item.len() as u64).sum::<u64>());
                let held: usize = fifo.chunks.iter().map(Vec::capacity).sum();
                assert_eq!(fifo.memory_bytes(), held as u64 + CHUNK_OVERHEAD * fifo.chunks.len() as u64);
            }
            let bytes = bytes_of(&fifo);
            let mut r = Reader::new(&bytes);
            let copy = Fifo::restore(&mut r).expect("just written");
            r.is_empty() && contents(&copy) == contents(&fifo) && bytes_of(&copy) == bytes
        }

        fn garbage_is_an_error_or_a_list_that_writes_it(bytes: Vec<u8>) -> bool {
            let mut r = Reader::new(&bytes);
            Fifo::restore(&mut r).map_or(true, |fifo| bytes.starts_with(&bytes_of(&fifo)))
        }
    }

    #[test]
    fn a_small_item_costs_little_and_an_emptied_list_next_to_nothing() {
        let mut fifo = Fifo::default();
        for k in 0..100_000 {
            // A slot of a hundred pushes every millisecond.
            fifo.push(GroupTime(k / 100 * 1_000_000), b"sixteen bytes...");
        }
        assert!(fifo.memory_bytes() < 100_000 * (16 + 3), "{}", fifo.memory_bytes());
        while fifo.pop_into(&mut Vec::new()) {}
        assert!(fifo.memory_bytes() <= SPARE_BYTES as u64 + CHUNK_OVERHEAD);
    }
}
