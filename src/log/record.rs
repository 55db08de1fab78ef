//! Records: what one slot looks like on the disk.

use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Slot};

/// What a record carries beside the operations of its slot. A mark has no operations and no slot of its own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The epoch whose order this is.
    pub epoch: Epoch,
    /// A mark repeats the slot of the record before it.
    pub slot: Slot,
    pub time: GroupTime,
    /// The running digest including this slot.
    pub digest: Digest,
    /// The highest committed slot known when this was written.
    pub committed: Slot,
    /// Every record up to this slot was durable here when this was written.
    pub synced: Slot,
    /// The highest slot known durable anywhere when this was written.
    pub durable_known: Slot,
    /// Each member's `durable` as heard.
    pub vector: Vec<(ReplicaId, Slot)>,
    /// True for a mark: positions only.
    pub mark: bool,
}

/// A record read in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecordView<'a> {
    pub record: Record,
    /// Bundles in delivery order.
    pub operations: &'a [u8],
}
