//! What a start-up finds in the segments.

use crate::log::record::RecordView;
use crate::log::writer::{SegmentNumber, Tail};
use crate::types::Slot;

/// The log as it was found.
#[derive(Debug, Default)]
pub struct Replay<'a> {
    /// One record for each slot, consecutive; what was voided by a later record is gone.
    pub records: Vec<RecordView<'a>>,
    /// Where the next record goes; `None` for an empty log.
    pub tail: Option<Tail>,
    /// The highest `committed` any good record (a mark, too) names.
    pub committed: Slot,
    /// Bytes of a torn last write that were cut off, if there were any.
    pub torn: Option<String>,
    /// A bad record that was once durable: this log must not be trusted (DESIGN 5.6).
    pub damaged: Option<String>,
}

/// Reads segments, sorted by number, each with all its bytes.
pub fn replay<'a>(segments: &[(SegmentNumber, &'a [u8])]) -> Replay<'a> {
    let _ = segments;
    unimplemented!()
}
