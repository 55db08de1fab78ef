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
    /// Records up to here are of another history than the snapshot, or may be.
    pub void_through: Slot,
}

impl Resume {
    /// Finds the record that follows the snapshot, by its digest. A log that was left for the snapshot of another
    /// replica (`Journal::begin_behind`) is void as far as it was written before: its record at the snapshot's slot
    /// has another digest, or there is none, and then nothing tells it from an own log that ends early. Where it was
    /// left for an earlier one, a record does not follow from that before it. An error where records are missing, or
    /// say something else than the snapshot.
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
        let of_another = |index: usize| log.records.get(index).is_none_or(|r| r.record.digest != digest);
        let before_differs = at.checked_sub(1).is_some_and(of_another);
        let below = &log.records[..at.min(log.records.len())];
        let left_at =
            below.windows(2).rev().find(|pair| !pair[1].follows(pair[0].record.digest)).map(|pair| pair[0].record.slot);
        let void_through = if before_differs { slot } else { left_at.unwrap_or(Slot(0)) };
        let Some(next) = log.records.get(at) else {
            let void_through = void_through.min(back.record.slot);
            return Ok(Resume { void_through, ..behind });
        };
        if next.follows(digest) {
            let Record { slot: end, digest, time, .. } = back.record;
            return Ok(Resume { first: at, end, digest, time, void_through });
        }
        if before_differs {
            return Ok(Resume { void_through: back.record.slot, ..behind });
        }
        Err(format!("the log goes on with slot {}, which does not follow from slot {slot}", next.record.slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{replay, LogWrite};
    use crate::replica::journal::Positions;
    use crate::types::WriteNumber;
    use crate::wire::view::tests::view_of;
    use std::collections::BTreeMap;

    const SEGMENT_BYTES: u64 = 1000;

    type Segments = BTreeMap<SegmentNumber, Vec<u8>>;

    /// A journal and the disk under it.
    struct Keeper {
        journal: Journal,
        disk: Segments,
        /// The digest at each slot that was logged.
        digests: BTreeMap<u64, (Digest, GroupTime)>,
    }

    fn found(disk: &Segments) -> Replay<'_> {
        let segments: Vec<(SegmentNumber, &[u8])> = disk.iter().map(|(&n, bytes)| (n, &bytes[..])).collect();
        replay(&segments)
    }

    fn at(slot: u64, digest: Digest, time: GroupTime) -> Snapshot {
        Snapshot { slot: Slot(slot), time, digest, view: view_of(1, 1, crate::wire::view::Policy::Dynamic) }
    }

    impl Keeper {
        fn new() -> Keeper {
            let (disk, digests) = (Segments::new(), BTreeMap::new());
            let resume = Resume::find(None, &Replay::default()).expect("nothing is a log");
            Keeper { journal: Journal::new(&Replay::default(), &resume, SEGMENT_BYTES), disk, digests }
        }

        /// Logs slots, each on the disk at once.
        fn log(&mut self, slots: std::ops::RangeInclusive<u64>, text: &[u8]) {
            for slot in slots {
                let (number, time, mut out) = (self.journal.number(), GroupTime(10 * slot), Vec::new());
                self.journal.append(number, Slot(slot), time, &[text], &Positions::default(), &mut out);
                for LogWrite { segment, offset, bytes, .. } in out {
                    let file = self.disk.entry(segment).or_default();
                    file.resize(offset as usize, 0);
                    file.extend(bytes);
                }
                self.journal.on_durable(Time(0), number, 1);
                let last = found(&self.disk).records.last().map(|r| (r.record.digest, r.record.time));
                self.digests.insert(slot, last.expect("it was just written"));
            }
        }

        fn snapshot(&self, slot: u64) -> Snapshot {
            let (digest, time) = self.digests[&slot];
            at(slot, digest, time)
        }

        fn resume(&self, snapshot: Option<&Snapshot>) -> Result<Resume, String> {
            Resume::find(snapshot, &found(&self.disk))
        }
    }

    #[test]
    fn either_snapshot_and_what_trimming_leaves_is_the_whole() {
        let mut keeper = Keeper::new();
        keeper.log(1..=60, b"twenty bytes of text");
        let (older, newer) = (keeper.snapshot(31), keeper.snapshot(47));
        let mut store = Store::new(vec![Slot(12), older.slot, newer.slot], 0);
        let trim = store.trim(&mut keeper.journal).expect("more than is needed");
        assert_eq!((trim.snapshots_below, store.snapshots()), (older.slot, &[older.slot, newer.slot][..]));
        assert!(trim.segments_below > SegmentNumber(3), "{trim:?}");
        assert_eq!(store.trim(&mut keeper.journal), None, "once");
        // The power may go between any two removals: lowest first, whatever is left does.
        loop {
            for (snapshot, next) in [(&older, 32), (&newer, 48)] {
                let resume = keeper.resume(Some(snapshot)).expect("enough is left");
                let log = found(&keeper.disk);
                assert_eq!((resume.end, log.records[resume.first].record.slot), (Slot(60), Slot(next)));
                assert_eq!((resume.digest, resume.void_through), (keeper.digests[&60].0, Slot(0)));
            }
            let lowest = *keeper.disk.keys().next().expect("some are left");
            if lowest >= trim.segments_below {
                break;
            }
            keeper.disk.remove(&lowest);
        }
        assert_eq!(keeper.journal.first_slot(), found(&keeper.disk).records.first().map(|r| r.record.slot));
        // One more would have been too much.
        keeper.disk.pop_first();
        let error = keeper.resume(Some(&older)).expect_err("slots are missing");
        assert!(error.contains("the snapshot is of slot 31"), "{error}");
        assert!(keeper.resume(None).expect_err("no snapshot").contains("there is no snapshot"));
    }

    #[test]
    fn a_snapshot_beyond_the_log_is_its_end() {
        let mut keeper = Keeper::new();
        keeper.log(1..=9, b"x");
        let resume = keeper.resume(Some(&at(500, Digest(3), GroupTime(4)))).expect("all is in the snapshot");
        // Perhaps it is an own snapshot, of slots that were on others' disks only; perhaps the log was left for it.
        let expected =
            Resume { first: 9, end: Slot(500), digest: Digest(3), time: GroupTime(4), void_through: Slot(9) };
        assert_eq!(resume, expected);
        let journal = Journal::new(&found(&keeper.disk), &resume, SEGMENT_BYTES);
        assert_eq!((journal.logged(), journal.synced()), (Slot(500), Slot(500)));
    }

    #[test]
    fn a_log_left_for_another_s_state_is_void_after_a_crash_at_any_point() {
        // The other's state is beyond the own log's end, at it, and below it.
        for (own, other) in [(20, 33), (20, 20), (20, 14)] {
            let mut keeper = Keeper::new();
            keeper.log(1..=own, b"own history");
            let snapshot = at(other, Digest(77), GroupTime(5));
            // Before the snapshot is durable the own log is the log.
            assert_eq!(keeper.resume(None).expect("whole").end, Slot(own));
            // After it, and before anything else is written.
            let resume = keeper.resume(Some(&snapshot)).expect("the snapshot counts");
            assert_eq!((resume.first, resume.end, resume.digest), (own as usize, Slot(other), Digest(77)));
            let journal = Journal::new(&found(&keeper.disk), &resume, SEGMENT_BYTES);
            (1..=own.max(other)).for_each(|slot| assert_eq!(journal.locate(Slot(slot)), None, "slot {slot} of {own}"));
            keeper.journal.begin_behind(snapshot.slot, snapshot.digest, snapshot.time);
            assert_eq!((keeper.journal.synced(), keeper.journal.locate(Slot(1))), (Slot(other), None));
            for end in other + 1..other + 12 {
                keeper.log(end..=end, b"the other's");
                let resume = keeper.resume(Some(&snapshot)).expect("it goes on behind the snapshot");
                let log = found(&keeper.disk);
                let first = &log.records[resume.first].record;
                assert_eq!((first.slot, resume.end), (Slot(other + 1), Slot(end)), "own {own}, other {other}");
                let journal = Journal::new(&log, &resume, SEGMENT_BYTES);
                assert_eq!(journal.locate(Slot(other.min(own))), None, "what is void is served to nobody");
                // Nor once a later snapshot is the newest: it, too, the log leads to.
                let resume = keeper.resume(Some(&keeper.snapshot(end))).expect("all is in the snapshot");
                let journal = Journal::new(&log, &resume, SEGMENT_BYTES);
                (1..=own.min(other)).for_each(|slot| assert_eq!(journal.locate(Slot(slot)), None, "slot {slot}"));
            }
        }
    }

    /// Slots 10 to 20 were denied, and cut in memory only. A state of slot 14 was taken over, the log went on
    /// behind it without a gap (the denied records up to 14 stay live on the disk), and an own snapshot was made since.
    #[test]
    fn what_a_state_made_void_stays_void_behind_a_newer_snapshot() {
        let mut keeper = Keeper::new();
        keeper.log(1..=20, b"own history");
        let (digest, time) = keeper.digests[&9];
        keeper.journal.cut(crate::wire::change::LogEnd { slot: Slot(9), digest, time });
        let other = at(14, Digest(77), GroupTime(5));
        keeper.journal.begin_behind(other.slot, other.digest, other.time);
        assert_eq!(keeper.journal.locate(Slot(12)), None, "in this life it is served to nobody");
        keeper.log(15..=40, b"the other's");
        let newer = keeper.snapshot(30);
        for snapshot in [&other, &newer] {
            let resume = keeper.resume(Some(snapshot)).expect("whole");
            let journal = Journal::new(&found(&keeper.disk), &resume, SEGMENT_BYTES);
            assert_eq!(resume.end, Slot(40));
            for slot in 10..=14 {
                assert_eq!(journal.locate(Slot(slot)), None, "slot {slot}, behind the snapshot of {}", snapshot.slot);
            }
        }
    }

    /// A state of exactly the slot where the own log ended on the disk. What was logged behind it is live, and
    /// a source must find it: it has no snapshot beyond it, and says "later" to whoever has the state's slot or more.
    #[test]
    fn what_follows_a_state_at_the_log_s_own_end_is_found_again() {
        for own in [20, 21, 22, 23, 24, 25] {
            let mut keeper = Keeper::new();
            keeper.log(1..=own, b"own history");
            let other = at(own, Digest(77), GroupTime(5));
            keeper.journal.begin_behind(other.slot, other.digest, other.time);
            keeper.log(own + 1..=own + 3, b"the other's");
            let resume = keeper.resume(Some(&other)).expect("whole");
            let journal = Journal::new(&found(&keeper.disk), &resume, SEGMENT_BYTES);
            assert_eq!(resume.end, Slot(own + 3));
            assert_ne!(journal.locate(Slot(own + 1)), None, "behind the state of slot {own}");
        }
    }

    #[test]
    fn a_record_that_does_not_follow_is_an_error() {
        let mut keeper = Keeper::new();
        keeper.log(1..=9, b"x");
        let snapshot = Snapshot { time: GroupTime(1), ..keeper.snapshot(4) };
        assert!(keeper.resume(Some(&snapshot)).is_ok());
        keeper.disk.clear();
        let resume = Resume { end: Slot(4), digest: Digest(1), ..Resume::default() };
        keeper.journal = Journal::new(&Replay::default(), &resume, SEGMENT_BYTES);
        keeper.log(5..=9, b"x");
        let error = keeper.resume(Some(&snapshot)).expect_err("another history");
        assert!(error.contains("slot 5, which does not follow from slot 4"), "{error}");
    }

    #[test]
    fn writes_under_way_hold_back_what_counts_as_synced() {
        let mut keeper = Keeper::new();
        let (number, mut out): (WriteNumber, Vec<LogWrite>) = (keeper.journal.number(), Vec::new());
        keeper.journal.append(number, Slot(1), GroupTime(1), &[b"x"], &Positions::default(), &mut out);
        keeper.journal.begin_behind(Slot(50), Digest(5), GroupTime(6));
        assert_eq!((keeper.journal.logged(), keeper.journal.synced()), (Slot(50), Slot(0)));
        keeper.journal.on_durable(Time(0), number, 1);
        assert_eq!(keeper.journal.synced(), Slot(50));
    }

    #[test]
    fn a_snapshot_is_due_when_the_log_has_outgrown_its_bound_and_again_after_a_failure() {
        let (mut keeper, mut store) = (Keeper::new(), Store::new(Vec::new(), 0));
        let bound = |rank| Bound { segment_bytes: SEGMENT_BYTES, state_bytes: 0, rank: Rank(rank), members: 4 };
        assert_eq!([0, 1, 3].map(|rank| bound(rank).bytes()), [4000, 5000, 7000]);
        assert_eq!(Bound { state_bytes: 1 << 20, ..bound(0) }.bytes(), 1 << 18);
        let mut slot = 0;
        while !store.is_due(Time(1), Slot(slot), &keeper.journal, &bound(0)) {
            slot += 1;
            keeper.log(slot..=slot, b"x");
        }
        let written = keeper.journal.written_bytes();
        assert!((4000..4200).contains(&written), "{written}");
        assert!(!store.is_due(Time(1), Slot(slot), &keeper.journal, &bound(1)), "a later member waits longer");
        store.ask(Slot(slot), &keeper.journal);
        assert!(!store.is_due(Time(1), Slot(slot), &keeper.journal, &bound(0)), "one is under way");
        assert!(!store.on_snapshot(Time(1), Slot(slot + 1), true), "nobody asked for that one");
        assert!(store.on_snapshot(Time(1), Slot(slot), false));
        assert!(!store.is_due(Time(SNAPSHOT_AGAIN_NS), Slot(slot), &keeper.journal, &bound(0)), "not at once");
        let later = Time(1 + SNAPSHOT_AGAIN_NS);
        assert!(store.is_due(later, Slot(slot), &keeper.journal, &bound(0)));
        store.ask(Slot(slot), &keeper.journal);
        assert!(store.on_snapshot(later, Slot(slot), true));
        assert_eq!(store.trim(&mut keeper.journal), None, "two are kept");
        assert_eq!(store.snapshots(), [Slot(slot)]);
        assert!(!store.is_due(later, Slot(slot + 1), &keeper.journal, &bound(0)), "it has just been taken");
    }
}
