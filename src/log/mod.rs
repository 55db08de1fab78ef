//! Every byte that must survive: records, their place in segments, what is found again at start-up, snapshots and
//! `meta`. Pure: bytes in, bytes out; the drivers move them between here and a disk.

pub mod index;
pub mod meta;
pub mod record;
pub mod replay;
pub mod snapshot;
pub mod writer;

pub use index::{Index, Place, Scan, Stretch};
pub use meta::{Meta, MetaWrite};
pub use record::{Record, RecordView};
pub use replay::{replay, Replay};
pub use snapshot::Snapshot;
pub use writer::{LogWrite, SegmentNumber, Tail, Writer};
