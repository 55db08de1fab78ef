//! `meta`: what a replica must never forget about itself and the views. Four pages in two pairs (DESIGN 5.1).

use crate::group::view::{Ballot, View};
use crate::types::{Birth, ClusterId, Incarnation, ReplicaId, WriteNumber};
use crate::wire::codec::Decoded;

/// The durable facts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Raised with every write.
    pub generation: u64,
    pub id: ReplicaId,
    /// 0 until the replica is part of a group.
    pub cluster: ClusterId,
    pub birth: Birth,
    pub incarnation: Incarnation,
    /// The last view installed as a member.
    pub installed: Option<View>,
    /// The newest record of a view without this replica: it only takes the vote away.
    pub heard: Option<View>,
    /// The ballot promised for the decree after `installed`.
    pub promised: Option<Ballot>,
    /// The value accepted for the decree after `installed`, and under which ballot.
    pub accepted: Option<(Ballot, View)>,
    /// What the driver tells of the data directory itself: inode and creation time, for it to be known again.
    pub directory: [u64; 2],
}

/// Bytes to be written into `meta` at `offset`, and then synced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaWrite {
    pub number: WriteNumber,
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// Bytes of the whole file: four pages.
pub const META_BYTES: usize = 4 * crate::limits::META_PAGE_BYTES;

impl Meta {
    /// Both pages of the older pair, for this generation: even generations fill the first pair.
    pub fn write(&self, number: WriteNumber) -> MetaWrite {
        let _ = number;
        unimplemented!()
    }

    /// The highest generation with a valid page; `Ok(None)` for a file of zeros or no bytes at all, an error where
    /// there are bytes but no valid page.
    pub fn choose(file: &[u8]) -> Decoded<Option<Meta>> {
        let _ = file;
        unimplemented!()
    }
}
