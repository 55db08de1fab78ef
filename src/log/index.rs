//! Where each slot's record lies: for a source that serves a joiner, and for who decides which segments may go
//! (DESIGN 6.2, 6.3).
//!
//! Sparse: an entry at each segment's first record, about every [`INDEX_STEP_BYTES`] behind it, and wherever a record
//! voids earlier ones. A record for slot k takes away the entries with slots >= k, as it voids those records. Hence
//! between an entry and the next lie the live records of the slots between theirs, all in the former's segment; what
//! lies there beside them (marks, void records) has a slot at or above the next entry's, or no slot.

use std::collections::{BTreeMap, VecDeque};

use crate::limits::INDEX_STEP_BYTES;
use crate::log::record::{self, RecordView};
use crate::log::writer::SegmentNumber;
use crate::types::Slot;
use crate::wire::codec::Decoded;

/// The bytes of one record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub segment: SegmentNumber,
    /// Bytes from the segment's start.
    pub offset: u64,
    pub bytes: u64,
}

impl Place {
    /// Where the next record of the segment begins.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes
    }
}

/// Where the records of some consecutive slots are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stretch {
    pub segment: SegmentNumber,
    /// A record begins here: that of `first`.
    pub offset: u64,
    /// Behind the last record that may matter.
    pub end: u64,
    pub first: Slot,
    /// Records of this slot and above do not count: they are void, or in the next stretch.
    pub before: Slot,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: Slot,
    segment: SegmentNumber,
    offset: u64,
}

#[derive(Clone, Debug)]
pub struct Index {
    step_bytes: u64,
    /// Rising in slots, and in places.
    entries: VecDeque<Entry>,
    /// The segments in use and where the last record in each ends.
    segments: BTreeMap<SegmentNumber, u64>,
    /// The last record's slot; `None` where no record counts.
    last: Option<Slot>,
}

impl Default for Index {
    fn default() -> Index {
        Index::with_step(INDEX_STEP_BYTES)
    }
}

impl Index {
    fn with_step(step_bytes: u64) -> Index {
        Index { step_bytes, entries: VecDeque::new(), segments: BTreeMap::new(), last: None }
    }

    /// A slot's record was put here, behind all others. It voids those of its slot and above; one beyond the next
    /// slot begins the log anew.
    pub fn note(&mut self, slot: Slot, place: Place) {
        let begins =
            self.last.is_none_or(|last| slot > last.next()) || self.entries.front().is_none_or(|e| e.slot > slot);
        if begins {
            self.entries.clear();
        }
        let voids = self.last.is_some_and(|last| slot <= last);
        while self.entries.back().is_some_and(|e| e.slot >= slot) {
            self.entries.pop_back();
        }
        let is_near = |e: &Entry| e.segment == place.segment && place.offset - e.offset < self.step_bytes;
        if begins || voids || !self.entries.back().is_some_and(is_near) {
            self.entries.push_back(Entry { slot, segment: place.segment, offset: place.offset });
        }
        self.last = Some(slot);
        self.note_mark(place);
    }

    /// A record without a slot was put here.
    pub fn note_mark(&mut self, place: Place) {
        self.segments.insert(place.segment, place.end());
    }

    /// What is in the log so far counts no more.
    pub fn begin_anew(&mut self) {
        self.entries.clear();
        self.last = None;
    }

    /// Forgets where slots up to this one lie, and perhaps a few behind it.
    pub fn forget_through(&mut self, slot: Slot) {
        while self.entries.front().is_some_and(|e| e.slot <= slot) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.last = None;
        }
    }

    /// Segments below this one are gone.
    pub fn trim(&mut self, below: SegmentNumber) {
        self.segments = self.segments.split_off(&below);
        while self.entries.front().is_some_and(|e| e.segment < below) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            self.last = None;
        }
    }

    /// The lowest slot that can be found.
    pub fn first_slot(&self) -> Option<Slot> {
        self.entries.front().map(|e| e.slot)
    }

    /// The lowest segment in use.
    pub fn first_segment(&self) -> Option<SegmentNumber> {
        self.segments.keys().next().copied()
    }

    /// About how many bytes lie behind the record of this slot.
    pub fn bytes_behind(&self, slot: Slot) -> u64 {
        let (segment, offset) = match (self.locate(slot.next()), self.entries.front()) {
            (Some(stretch), _) => (stretch.segment, stretch.offset),
            (None, Some(front)) if slot < front.slot => (front.segment, front.offset),
            _ => return 0,
        };
        self.segments.range(segment..).map(|(_, &end)| end).sum::<u64>() - offset
    }

    /// Where to look for the record of this slot. Its first record may be of an earlier slot, never of a later one.
    pub fn locate(&self, slot: Slot) -> Option<Stretch> {
        let last = self.last.filter(|&last| slot <= last)?;
        let next = self.entries.partition_point(|e| e.slot <= slot);
        let &Entry { slot: first, segment, offset } = self.entries.get(next.checked_sub(1)?)?;
        let next = self.entries.get(next);
        let end = match next.filter(|e| e.segment == segment) {
            Some(next) => next.offset,
            None => self.segments[&segment],
        };
        Some(Stretch { segment, offset, end, first, before: next.map_or(last.next(), |e| e.slot) })
    }
}

/// What some bytes of a segment hold.
#[derive(Debug, Default)]
pub struct Scan<'a> {
    /// Consecutive slots.
    pub records: Vec<RecordView<'a>>,
    /// Bytes of the whole records, also of those that do not count: the next read goes on behind them.
    pub taken: usize,
    /// How many more bytes the record behind them needs at least, if one has begun.
    pub lacks: usize,
}

/// Reads the records of slots `from..before` out of a part of a stretch, which begins where a record does and may end
/// inside one. What lies behind the last of them is not looked at: it may be on its way to the disk. An error where
/// the bytes are not what was written there.
pub fn records_in(segment: SegmentNumber, bytes: &[u8], from: Slot, before: Slot) -> Decoded<Scan<'_>> {
    let (mut scan, mut expected) = (Scan::default(), from);
    while scan.taken < bytes.len() && expected < before {
        let rest = &bytes[scan.taken..];
        let needed = record::length(rest)?;
        if needed > rest.len() {
            scan.lacks = needed - rest.len();
            break;
        }
        let (_, view, taken) = record::decode(segment, rest)?;
        scan.taken += taken;
        if !view.record.mark && view.record.slot == expected {
            scan.records.push(view);
            expected = expected.next();
        }
    }
    Ok(scan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Record;
    use crate::log::replay;
    use crate::log::writer::{LogWrite, Writer};
    use crate::rng::Rng;
    use crate::types::{Digest, WriteNumber};
    use quickcheck::quickcheck;

    /// A log, and what is live in it.
    struct World {
        rng: Rng,
        writer: Writer,
        index: Index,
        disk: BTreeMap<SegmentNumber, Vec<u8>>,
        /// Slot, digest, segment.
        live: Vec<(Slot, Digest, SegmentNumber)>,
        written: u64,
    }

    impl World {
        fn new(seed: u64) -> World {
            let mut rng = Rng::new(seed);
            let writer = Writer::new(None, rng.between(300, 8000));
            let index = Index::with_step(rng.between(1, 2000));
            World { rng, writer, index, disk: BTreeMap::new(), live: Vec::new(), written: 0 }
        }

        fn append(&mut self, slot: Slot, mark: bool) {
            self.written += 1;
            let digest = Digest(self.written);
            let operations = vec![7; if mark { 0 } else { self.rng.below(400) as usize }];
            let mut out = Vec::new();
            let record = Record { slot, digest, mark, ..Record::default() };
            let place = self.writer.append(WriteNumber(1), &record, &[&operations], &mut out);
            for LogWrite { segment, offset, bytes, .. } in out {
                let file = self.disk.entry(segment).or_default();
                file.resize(offset as usize, 0);
                file.extend(bytes);
            }
            if mark {
                return self.index.note_mark(place);
            }
            self.index.note(slot, place);
            let goes_on = self.live.last().is_none_or(|l| slot <= l.0.next());
            self.live.retain(|l| goes_on && l.0 < slot);
            self.live.push((slot, digest, place.segment));
        }

        fn do_something(&mut self) {
            let end = self.live.last().map_or(Slot(0), |l| l.0);
            match self.rng.below(100) {
                0..=9 if end > Slot(0) => self.append(end, true),
                10..=19 if end > Slot(0) => {
                    let slot = self.rng.between(end.0.saturating_sub(20).max(1), end.0);
                    self.append(Slot(slot), false);
                }
                20 => {
                    let beyond = self.rng.between(2, 9);
                    self.append(Slot(end.0 + beyond), false);
                }
                21..=22 if !self.live.is_empty() => {
                    let below = self.rng.pick(&self.live).2;
                    self.index.trim(below);
                    self.disk = self.disk.split_off(&below);
                    self.live.retain(|l| l.2 >= below);
                }
                _ => self.append(end.next(), false),
            }
        }

        /// Reads everything from `slot` on as a source does, in parts of any size.
        fn read(&mut self, index: &Index, slot: Slot) -> Vec<(Slot, Digest)> {
            let (mut found, mut next) = (Vec::new(), slot);
            while let Some(stretch) = index.locate(next) {
                let Stretch { segment, mut offset, end, first, before } = stretch;
                assert!(first <= next && next < before, "{stretch:?}");
                let mut expected = first;
                let mut part_bytes = self.rng.between(1, 700);
                while expected < before {
                    assert!(offset < end, "slot {expected} is not where it should be: {stretch:?}");
                    let part = offset as usize..(offset + part_bytes).min(end) as usize;
                    let scan = records_in(segment, &self.disk[&segment][part], expected, before).expect("as written");
                    for view in &scan.records {
                        assert_eq!(view.record.slot, expected);
                        expected = expected.next();
                        if view.record.slot >= next {
                            found.push((view.record.slot, view.record.digest));
                        }
                    }
                    assert!(scan.taken > 0 || scan.lacks > 0);
                    offset += scan.taken as u64;
                    part_bytes += scan.lacks as u64;
                }
                next = before;
            }
            found
        }
    }

    quickcheck! {
        fn what_is_live_is_found_from_any_slot(seed: u64) -> bool {
            let mut world = World::new(seed);
            for _ in 0..world.rng.between(1, 300) {
                world.do_something();
            }
            let index = world.index.clone();
            let live: Vec<(Slot, Digest)> = world.live.iter().map(|l| (l.0, l.1)).collect();
            let first = live.first().map(|l| l.0);
            assert_eq!(index.first_slot(), first);
            assert_eq!(index.locate(live.last().map_or(Slot(1), |l| l.0.next())), None);
            assert!(index.locate(Slot(first.map_or(0, |f| f.0 - 1))).is_none());
            let bytes = |file: &Vec<u8>| file.len() as u64;
            let all = world.disk.values().map(bytes).sum::<u64>();
            assert!(world.disk.is_empty() || index.bytes_behind(Slot(0)) < all);
            assert_eq!(index.bytes_behind(Slot(1 << 60)), 0);
            (0..live.len()).step_by(7).all(|k| world.read(&index, live[k].0) == live[k..])
        }

        fn a_start_up_finds_the_same(seed: u64) -> bool {
            let mut world = World::new(seed);
            for _ in 0..world.rng.between(1, 200) {
                world.do_something();
            }
            let disk = world.disk.clone();
            let segments: Vec<(SegmentNumber, &[u8])> = disk.iter().map(|(&n, b)| (n, b.as_slice())).collect();
            let found = replay(&segments);
            let live: Vec<(Slot, Digest)> = found.records.iter().map(|r| (r.record.slot, r.record.digest)).collect();
            assert_eq!(found.index.segments, world.index.segments);
            live.first().is_none_or(|first| world.read(&found.index, first.0) == live)
        }

        fn any_bytes_are_scanned(bytes: Vec<u8>) -> bool {
            let bytes = [&record::MAGIC[..], &bytes].concat();
            records_in(SegmentNumber(1), &bytes, Slot(1), Slot(9)).is_ok_and(|scan| scan.taken <= bytes.len())
                || bytes.len() >= record::HEADER_BYTES
                || record::length(&bytes).is_err()
        }
    }

    #[test]
    fn what_is_forgotten_is_not_found() {
        let mut index = Index::with_step(1);
        for slot in 1..=9 {
            index.note(Slot(slot), Place { segment: SegmentNumber(1), offset: 100 * slot, bytes: 100 });
        }
        index.forget_through(Slot(4));
        assert_eq!((index.first_slot(), index.locate(Slot(4))), (Some(Slot(5)), None));
        let stretch = Stretch { segment: SegmentNumber(1), offset: 500, end: 600, first: Slot(5), before: Slot(6) };
        assert_eq!(index.locate(Slot(5)), Some(stretch));
        index.begin_anew();
        assert_eq!((index.first_slot(), index.locate(Slot(7))), (None, None));
        // Even the very next slot begins anew.
        index.note(Slot(10), Place { segment: SegmentNumber(1), offset: 1000, bytes: 100 });
        assert_eq!((index.first_slot(), index.locate(Slot(10)).map(|s| s.end)), (Some(Slot(10)), Some(1100)));
    }
}
