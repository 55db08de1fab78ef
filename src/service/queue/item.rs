//! An item that lies by itself: it was leased at least once, or waits for its time. What was only pushed lies packed in
//! a [`super::fifo::Fifo`].

use crate::limits::ITEM_BYTES_MAX;
use crate::types::GroupTime;
use crate::wire::codec::{Decoded, Put, Reader};
use crate::wire::queue::tries;

/// Bytes of memory an item takes beside its own: its entry in a map, which is half full at worst, and the
/// allocator's.
const OVERHEAD_BYTES: u64 = 112;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    pub pushed: GroupTime,
    /// How often it was leased. Stays at the greatest number there is.
    pub tries: u32,
    pub bytes: Box<[u8]>,
}

impl Item {
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes of memory it takes.
    pub fn memory_bytes(&self) -> u64 {
        OVERHEAD_BYTES + self.size()
    }

    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u64(self.pushed.0);
        out.put_varint(u64::from(self.tries));
        out.put_bytes(&self.bytes);
    }

    pub fn restore(r: &mut Reader<'_>) -> Decoded<Item> {
        let (pushed, tries) = (GroupTime(r.u64("push time")?), tries(r)?);
        Ok(Item { pushed, tries, bytes: r.bytes(ITEM_BYTES_MAX, "item")?.into() })
    }
}
