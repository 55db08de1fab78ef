//! What a replica keeps in its data directory (DESIGN 6.2): when a snapshot is due, which of them and which segments
//! may go, and what a start-up goes on from. Pure: the drivers write, rename and remove.
//!
//! A snapshot is of applied state only, and counts once it is on the disk under its name. Two are kept. A segment goes
//! only when the older of the two covers all of it that is live and a record of a later segment is durable: then a
//! newest snapshot that turns out damaged costs nothing, the older one and the log behind it say the same.

use crate::limits::{SNAPSHOT_AGAIN_NS, SNAPSHOT_SEGMENTS, SNAPSHOT_STATE_SHARE};
use crate::log::{Record, Replay, SegmentNumber, Snapshot};
use crate::replica::journal::Journal;
use crate::replica::Trim;
use crate::types::{Digest, GroupTime, Rank, Slot, Time};
use crate::wire::digest::slot_digest;

/// Snapshots that stay.
const KEPT: usize = 2;

/// The snapshots of a data directory, and what has been written since.
#[derive(Debug)]
pub struct Store {
    /// On the disk, rising.
    snapshots: Vec<Slot>,
    /// What is being written.
    under_way: Option<Slot>,
    /// Bytes of the log behind the newest snapshot when this life began.
    carried_bytes: u64,
    /// Where the journal stood when the newest snapshot, or the one under way, was taken.
    taken_at_bytes: u64,
    /// After a failure: not before.
    again_at: Time,
    /// The directory may hold more than is needed.
    trim_due: bool,
}

/// How far a log may grow until the next snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub segment_bytes: u64,
    pub state_bytes: u64,
    /// Of how many members this is which.
    pub rank: Rank,
    pub members: usize,
}

impl Bound {
    /// Members take their snapshots at different times: rank r of n at the bound times 1 + r/n.
    pub fn bytes(&self) -> u64 {
        let bound = (SNAPSHOT_SEGMENTS * self.segment_bytes).max(self.state_bytes / SNAPSHOT_STATE_SHARE);
        bound + bound / self.members.max(1) as u64 * u64::from(self.rank.0)
    }
}

impl Store {
    /// With the snapshots that were found, rising, and so many bytes of log behind the newest.
    pub fn new(snapshots: Vec<Slot>, carried_bytes: u64) -> Store {
        let (under_way, again_at) = (None, Time(0));
        Store { snapshots, under_way, carried_bytes, taken_at_bytes: 0, again_at, trim_due: true }
    }

    /// The snapshots on the disk, rising.
    pub fn snapshots(&self) -> &[Slot] {
        &self.snapshots
    }

    /// Whether a snapshot is being written: only one at a time is.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the last attempt is not too recent a failure.
    pub fn may_ask(&self, now: Time) -> bool {
        now >= self.again_at
    }

    /// Whether the log has outgrown its bound and a snapshot of `applied` can be asked for.
    pub fn is_due(&self, now: Time, applied: Slot, journal: &Journal, bound: &Bound) -> bool {
        let grown = self.carried_bytes + (journal.written_bytes() - self.taken_at_bytes);
        let newer = self.snapshots.last().is_none_or(|&last| applied > last);
        grown >= bound.bytes() && newer && !self.is_busy() && now >= self.again_at
    }

    /// A snapshot of this slot is asked for. Panics while another is under way.
    pub fn ask(&mut self, slot: Slot, journal: &Journal) {
        assert!(!self.is_busy(), "one snapshot at a time");
        self.under_way = Some(slot);
        self.carried_bytes += journal.written_bytes() - self.taken_at_bytes;
        self.taken_at_bytes = journal.written_bytes();
    }

    /// The snapshot of this slot is on the disk under its name, or could not be made. False where it was not asked
    /// for.
    pub fn on_snapshot(&mut self, now: Time, slot: Slot, made: bool) -> bool {
        if self.under_way != Some(slot) {
            return false;
        }
        self.under_way = None;
        if !made {
            self.again_at = now.after_ns(SNAPSHOT_AGAIN_NS);
            return true;
        }
        self.carried_bytes = 0;
        self.snapshots.retain(|&other| other != slot);
        self.snapshots.push(slot);
        self.snapshots.sort_unstable();
        self.trim_due = true;
        true
    }

    /// What is needed no more, if that may have changed.
    pub fn trim(&mut self, journal: &mut Journal) -> Option<Trim> {
        let older = self.snapshots.len().checked_sub(KEPT).map(|at| self.snapshots[at]);
        let snapshots_below = older.filter(|_| std::mem::take(&mut self.trim_due))?;
        self.snapshots.retain(|&slot| slot >= snapshots_below);
        // The record behind the snapshot, or else the last durable one: its segment stays, and all behind it.
        let stays = journal.locate(snapshots_below.next().min(journal.synced())).map(|stretch| stretch.segment);
        let segments_below = stays.unwrap_or(SegmentNumber(0));
        journal.trim(segments_below);
        Some(Trim { segments_below, snapshots_below })
    }
}

/// What a start-up goes on from: the newest snapshot and the log behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resume {
    /// The first of the replay's records that counts; those before are in the snapshot, or void.
    pub first: usize,
    /// Where the log ends: the greater of its last record and its snapshot.
    pub end: Slot,
    pub digest: Digest,
    pub time: GroupTime,
    /// Records up to here are of another history than the snapshot.
    pub void_through: Slot,
}

impl Resume {
    /// Finds the record that follows the snapshot, by its digest. A log that was left for the snapshot of another
    /// replica (`Journal::begin_behind`) is void as far as it was written before: its record at the snapshot's slot
    /// has another digest. An error where records are missing, or say something else than the snapshot.
    pub fn find(snapshot: Option<&Snapshot>, log: &Replay<'_>) -> Result<Resume, String> {
        let (slot, digest, time) = snapshot.map_or_else(Default::default, |s| (s.slot, s.digest, s.time));
        let behind = Resume { first: log.records.len(), end: slot, digest, time, void_through: Slot(0) };
        let (Some(front), Some(back)) = (log.records.first(), log.records.last()) else { return Ok(behind) };
        if front.record.slot > slot.next() {
            return Err(match snapshot {
                None => format!("the log begins with slot {} and there is no snapshot", front.record.slot),
                Some(_) => format!("the log begins with slot {}, the snapshot is of slot {slot}", front.record.slot),
            });
        }
        // Records are consecutive: `at` is where the slot behind the snapshot is, if the log goes that far.
        let at = usize::try_from(slot.next().0 - front.record.slot.0).unwrap_or(usize::MAX);
        let of_another = |index: usize| log.records.get(index).is_some_and(|r| r.record.digest != digest);
        let before_differs = at.checked_sub(1).is_some_and(of_another);
        let void_through = if before_differs { slot } else { Slot(0) };
        let Some(next) = log.records.get(at) else {
            let void_through = void_through.min(back.record.slot);
            return Ok(Resume { void_through, ..behind });
        };
        if slot_digest(digest, next.record.slot, next.record.time, &[next.operations]) == next.record.digest {
            let Record { slot: end, digest, time, .. } = back.record;
            return Ok(Resume { first: at, end, digest, time, void_through });
        }
        if before_differs {
            return Ok(Resume { void_through: back.record.slot, ..behind });
        }
        Err(format!("the log goes on with slot {}, which does not follow from slot {slot}", next.record.slot))
    }
}
