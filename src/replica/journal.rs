//! The journal: which slots have been handed to the log, and which are on the disk (rule 4, DESIGN 5.1).
//!
//! Writes are numbered on one line over log and `meta`; what depends on one is released when its number is reported
//! durable. A mark follows the last record of a busy time, so that a restart knows how far it was synced.

use std::collections::VecDeque;

use crate::log::{Index, LogWrite, Record, Replay, SegmentNumber, Stretch, Writer};
use crate::replica::store::Resume;
use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Slot, Time, WriteNumber};
use crate::wire::change::LogEnd;
use crate::wire::digest::slot_digest;

/// What a record tells beside its own slot.
#[derive(Clone, Debug, Default)]
pub struct Positions {
    pub epoch: Epoch,
    pub committed: Slot,
    /// The highest slot known durable anywhere.
    pub durable_known: Slot,
    /// Each member's `durable` as heard.
    pub vector: Vec<(ReplicaId, Slot)>,
}

#[derive(Debug)]
pub struct Journal {
    writer: Writer,
    index: Index,
    next: WriteNumber,
    /// Highest slot handed to the log, and the digest and time there.
    logged: Slot,
    digest: Digest,
    time: GroupTime,
    /// Log writes under way: their number and the last slot in them.
    under_way: VecDeque<(WriteNumber, Slot)>,
    /// Highest slot on the disk.
    synced: Slot,
    /// When a mark is due, if nothing in the log tells how far it is synced now.
    mark_due: Option<Time>,
    /// By this life.
    written_bytes: u64,
}

impl Journal {
    /// Goes on behind what was found.
    pub fn new(found: &Replay<'_>, resume: &Resume, segment_bytes: u64) -> Journal {
        let Resume { end, digest, time, void_through, .. } = *resume;
        let mut index = found.index.clone();
        index.forget_through(void_through);
        let mut writer = Writer::new(found.tail, segment_bytes);
        // As behind a state just taken over: its records lie in a segment of their own, and are found again.
        if void_through == end {
            writer.turn();
        }
        Journal {
            writer,
            index,
            next: WriteNumber(1),
            logged: end,
            digest,
            time,
            under_way: VecDeque::new(),
            synced: end,
            mark_due: (found.synced < end).then_some(Time(0)),
            written_bytes: 0,
        }
    }

    /// The log goes on behind this slot, whose state a durable snapshot holds; what was logged before is void. At once
    /// where nothing is under way, otherwise the slot counts as synced when that is.
    pub fn begin_behind(&mut self, slot: Slot, digest: Digest, time: GroupTime) {
        (self.logged, self.digest, self.time) = (slot, digest, time);
        self.index.begin_anew();
        self.writer.turn();
        match self.under_way.back().copied() {
            None => self.synced = slot,
            Some((last, _)) => {
                self.synced = self.synced.min(slot);
                self.under_way = VecDeque::from([(last, slot)]);
            }
        }
        self.mark_due = None;
    }

    /// Segments below this one are no longer needed.
    pub fn trim(&mut self, below: SegmentNumber) {
        self.index.trim(below);
    }

    /// Bytes handed to the log in this life.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Where the records lie, those that are not yet on the disk too.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// A number for a write of `meta`.
    pub fn number(&mut self) -> WriteNumber {
        let number = self.next;
        self.next = number.next();
        number
    }

    /// The last number given.
    pub fn issued(&self) -> WriteNumber {
        WriteNumber(self.next.0 - 1)
    }

    /// Where the log ends, with what was handed to it.
    pub fn end(&self) -> LogEnd {
        LogEnd { slot: self.logged, digest: self.digest, time: self.time }
    }

    /// What lies beyond `end` is void, on the disk once a record for the slot behind it is written. Nothing of it
    /// counts as synced any more, also where a write of it is still under way.
    pub fn cut(&mut self, end: LogEnd) {
        assert!(end.slot <= self.logged, "a log is cut at what it holds");
        (self.logged, self.digest, self.time) = (end.slot, end.digest, end.time);
        self.synced = self.synced.min(end.slot);
        self.under_way.iter_mut().for_each(|write| write.1 = write.1.min(end.slot));
    }

    /// Highest slot handed to the log.
    pub fn logged(&self) -> Slot {
        self.logged
    }

    /// Highest slot on the disk.
    pub fn synced(&self) -> Slot {
        self.synced
    }

    /// Hands the next slot to the log; `operations` are the slot's payloads in delivery order. All slots of one turn
    /// share the write number `number`.
    pub fn append(
        &mut self,
        number: WriteNumber,
        slot: Slot,
        time: GroupTime,
        operations: &[&[u8]],
        positions: &Positions,
        out: &mut Vec<LogWrite>,
    ) {
        assert_eq!(slot, self.logged.next(), "slots are logged in order");
        self.digest = slot_digest(self.digest, slot, time, operations);
        (self.logged, self.time) = (slot, time);
        let record = self.record(positions, false);
        let place = self.writer.append(number, &record, operations, out);
        self.index.note(slot, place);
        self.written_bytes += place.bytes;
        match self.under_way.back_mut() {
            Some(back) if back.0 == number => back.1 = slot,
            _ => self.under_way.push_back((number, slot)),
        }
    }

    fn record(&mut self, positions: &Positions, mark: bool) -> Record {
        self.mark_due = None;
        Record {
            epoch: positions.epoch,
            slot: self.logged,
            time: self.time,
            digest: self.digest,
            committed: positions.committed,
            synced: self.synced,
            durable_known: positions.durable_known,
            vector: positions.vector.clone(),
            mark,
        }
    }

    /// Where to read the record of this slot, and how far the stretch counts: what is not on the disk does not.
    pub fn locate(&self, slot: Slot) -> Option<Stretch> {
        let stretch = self.index.locate(slot).filter(|_| slot <= self.synced)?;
        Some(Stretch { before: stretch.before.min(self.synced.next()), ..stretch })
    }

    /// The lowest slot that [`Journal::locate`] finds.
    pub fn first_slot(&self) -> Option<Slot> {
        self.index.first_slot().filter(|&first| first <= self.synced)
    }

    /// All writes up to this number are on the disk. A mark is due within a heartbeat.
    pub fn on_durable(&mut self, now: Time, number: WriteNumber, heartbeat_ns: u64) {
        while let Some(&(_, slot)) = self.under_way.front().filter(|w| w.0 <= number) {
            self.synced = slot;
            self.under_way.pop_front();
            self.mark_due = Some(now.after_ns(heartbeat_ns));
        }
    }

    /// Writes a mark if one is due.
    pub fn mark(&mut self, now: Time, positions: &Positions, out: &mut Vec<LogWrite>) {
        if self.mark_due.is_some_and(|due| due <= now) && self.under_way.is_empty() {
            let number = self.number();
            let record = self.record(positions, true);
            let place = self.writer.append(number, &record, &[], out);
            self.index.note_mark(place);
            self.written_bytes += place.bytes;
        }
    }

    /// A mark is due at once, if anything is in the log: the replica is about to stop.
    pub fn hasten_mark(&mut self) {
        if self.logged > Slot(0) {
            self.mark_due = Some(Time(0));
        }
    }

    /// When a mark is due.
    pub fn deadline(&self) -> Option<Time> {
        self.mark_due.filter(|_| self.under_way.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{replay, SegmentNumber};
    use std::collections::BTreeMap;

    const HEARTBEAT_NS: u64 = 50;
    const SEGMENT_BYTES: u64 = 1 << 16;

    #[derive(Default)]
    struct Disk(BTreeMap<SegmentNumber, Vec<u8>>);

    impl Disk {
        fn write(&mut self, writes: &mut Vec<LogWrite>) {
            for write in writes.drain(..) {
                let segment = self.0.entry(write.segment).or_insert_with(|| vec![0; SEGMENT_BYTES as usize]);
                let at = write.offset as usize;
                segment[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
            }
        }

        fn replay(&self) -> Replay<'_> {
            let segments: Vec<_> = self.0.iter().map(|(number, bytes)| (*number, bytes.as_slice())).collect();
            replay(&segments)
        }
    }

    fn reborn(found: &Replay<'_>) -> Journal {
        Journal::new(found, &Resume::find(None, found).expect("a log from its beginning"), SEGMENT_BYTES)
    }

    fn journal() -> Journal {
        reborn(&Replay::default())
    }

    fn append(journal: &mut Journal, number: WriteNumber, slot: u64, out: &mut Vec<LogWrite>) {
        journal.append(number, Slot(slot), GroupTime(10 * slot), &[b"a", b"bc"], &Positions::default(), out);
    }

    #[test]
    fn what_is_written_is_not_yet_on_the_disk() {
        let (mut journal, mut out) = (journal(), Vec::new());
        let (meta, first, second) = (journal.number(), journal.number(), journal.number());
        append(&mut journal, first, 1, &mut out);
        append(&mut journal, first, 2, &mut out);
        append(&mut journal, second, 3, &mut out);
        assert_eq!((journal.logged(), journal.synced()), (Slot(3), Slot(0)));
        assert_eq!(out.iter().map(|w| w.number).collect::<Vec<_>>(), [first, second], "a turn is one write");
        journal.on_durable(Time(0), meta, HEARTBEAT_NS);
        assert_eq!(journal.synced(), Slot(0));
        journal.on_durable(Time(0), first, HEARTBEAT_NS);
        assert_eq!((journal.synced(), journal.first_slot()), (Slot(2), Some(Slot(1))));
        assert_eq!(journal.locate(Slot(1)).map(|stretch| stretch.before), Some(Slot(3)), "3 is not on the disk");
        assert_eq!(journal.locate(Slot(3)), None);
        journal.on_durable(Time(0), first, HEARTBEAT_NS);
        assert_eq!(journal.synced(), Slot(2), "told twice");
        journal.on_durable(Time(0), second, HEARTBEAT_NS);
        assert_eq!(journal.synced(), Slot(3));
    }

    #[test]
    fn it_is_found_again_with_its_digests_and_goes_on() {
        let (mut disk, mut first_life, mut out) = (Disk::default(), journal(), Vec::new());
        let positions = Positions {
            epoch: Epoch(4),
            committed: Slot(1),
            durable_known: Slot(2),
            vector: vec![(ReplicaId(7), Slot(2))],
        };
        let number = first_life.number();
        append(&mut first_life, number, 1, &mut out);
        first_life.append(number, Slot(2), GroupTime(20), &[b"x"], &positions, &mut out);
        disk.write(&mut out);
        let found = disk.replay();
        let one = slot_digest(Digest(0), Slot(1), GroupTime(10), &[b"abc"]);
        let two = slot_digest(one, Slot(2), GroupTime(20), &[b"x"]);
        let records: Vec<_> = found.records.iter().map(|r| (r.record.slot, r.record.digest, r.operations)).collect();
        assert_eq!(records, [(Slot(1), one, &b"abc"[..]), (Slot(2), two, &b"x"[..])]);
        let record = &found.records[1].record;
        assert_eq!((record.epoch, record.committed, record.durable_known), (Epoch(4), Slot(1), Slot(2)));
        assert_eq!((&record.vector, record.mark), (&vec![(ReplicaId(7), Slot(2))], false));

        let mut second_life = reborn(&found);
        assert_eq!((second_life.logged(), second_life.synced()), (Slot(2), Slot(2)));
        assert_eq!(second_life.deadline(), Some(Time(0)), "nothing in the log tells yet that it is synced");
        let number = second_life.number();
        append(&mut second_life, number, 3, &mut out);
        disk.write(&mut out);
        let found = disk.replay();
        let three = slot_digest(two, Slot(3), GroupTime(30), &[b"abc"]);
        assert_eq!(found.records.last().map(|r| (r.record.slot, r.record.digest)), Some((Slot(3), three)));
    }

    #[test]
    fn a_mark_follows_the_last_sync_and_calls_for_no_other() {
        let (mut disk, mut journal, mut out) = (Disk::default(), journal(), Vec::new());
        let (first, second) = (journal.number(), journal.number());
        append(&mut journal, first, 1, &mut out);
        append(&mut journal, second, 2, &mut out);
        journal.on_durable(Time(0), first, HEARTBEAT_NS);
        assert_eq!(journal.deadline(), None, "a write is under way");
        journal.on_durable(Time(7), second, HEARTBEAT_NS);
        assert_eq!(journal.deadline(), Some(Time(7 + HEARTBEAT_NS)));
        disk.write(&mut out);
        journal.mark(Time(6 + HEARTBEAT_NS), &Positions::default(), &mut out);
        assert_eq!(out, [], "not yet");
        let positions = Positions { committed: Slot(2), ..Positions::default() };
        journal.mark(Time(7 + HEARTBEAT_NS), &positions, &mut out);
        let number = out[0].number;
        disk.write(&mut out);
        let found = disk.replay();
        assert_eq!((found.end(), found.synced, found.committed), (Slot(2), Slot(2), Slot(2)));
        journal.on_durable(Time(900), number, HEARTBEAT_NS);
        assert_eq!((journal.synced(), journal.deadline()), (Slot(2), None));
        journal.mark(Time(9000), &positions, &mut out);
        assert_eq!(out, []);
        assert_eq!(reborn(&found).deadline(), None, "the next start finds the mark");
    }

    #[test]
    fn who_is_about_to_stop_marks_at_once() {
        let (mut journal, mut out) = (journal(), Vec::new());
        journal.hasten_mark();
        assert_eq!(journal.deadline(), None, "there is nothing to be marked");
        let number = journal.number();
        append(&mut journal, number, 1, &mut out);
        journal.on_durable(Time(7), number, HEARTBEAT_NS);
        out.clear();
        journal.hasten_mark();
        journal.mark(Time(7), &Positions::default(), &mut out);
        assert_eq!((out.len(), journal.deadline()), (1, None));
    }

    #[test]
    fn a_record_behind_the_sync_takes_the_mark_s_place() {
        let (mut journal, mut out) = (journal(), Vec::new());
        let first = journal.number();
        append(&mut journal, first, 1, &mut out);
        journal.on_durable(Time(0), first, HEARTBEAT_NS);
        let second = journal.number();
        append(&mut journal, second, 2, &mut out);
        out.clear();
        journal.mark(Time(HEARTBEAT_NS), &Positions::default(), &mut out);
        assert_eq!(out, []);
        journal.on_durable(Time(5), second, HEARTBEAT_NS);
        assert_eq!(journal.deadline(), Some(Time(5 + HEARTBEAT_NS)), "but its own sync calls for one");
    }

    #[test]
    #[should_panic(expected = "slots are logged in order")]
    fn a_slot_left_out_is_a_bug() {
        let mut journal = journal();
        let number = journal.number();
        append(&mut journal, number, 2, &mut Vec::new());
    }
}
