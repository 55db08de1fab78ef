//! What a start-up finds in the segments (DESIGN 5.1, 5.6).
//!
//! Records are followed one by one, each in its place by its life and ordinal, until one is not there. What comes
//! after is searched for valid records: one that says the missing record was durable makes the log damaged; otherwise
//! the end was torn, and is cut. What a torn write left behind the cut has an older life than whatever is written
//! over its beginning, so it is never taken for a record again.
//!
//! The caller syncs the segments before it reads them, for what is found is said to be durable from then on; and it
//! removes a segment only once a record of a later one is durable.

use crate::log::index::{Index, Place};
use crate::log::record::{self, RecordView, Stamp, ALIGN_BYTES};
use crate::log::writer::{SegmentHeader, SegmentNumber, Tail, SEGMENT_HEADER_BYTES};
use crate::types::{Epoch, ReplicaId, Slot};
use crate::wire::codec::DecodeError;

/// The log as it was found.
#[derive(Debug, Default)]
pub struct Replay<'a> {
    /// One record for each slot, consecutive; what was voided by a later record is gone. A slot beyond the next one
    /// begins anew: the log goes on behind a snapshot.
    pub records: Vec<RecordView<'a>>,
    /// Where the next record goes; `None` for an empty log.
    pub tail: Option<Tail>,
    /// The highest `committed` any good record (a mark, too) names.
    pub committed: Slot,
    /// The newest record's or mark's.
    pub synced: Slot,
    /// The newest record's or mark's.
    pub durable_known: Slot,
    /// The newest record's or mark's, and the epoch in which that was so.
    pub vector: Vec<(ReplicaId, Slot)>,
    pub vector_epoch: Epoch,
    /// The segments in use, and the highest slot that any record in each has, void or not.
    pub segments: Vec<(SegmentNumber, Slot)>,
    /// Where the records lie.
    pub index: Index,
    /// Bytes of a torn last write that were cut off, if there were any.
    pub torn: Option<String>,
    /// A bad record that was once durable: this log must not be trusted (DESIGN 5.6).
    pub damaged: Option<String>,
}

impl Replay<'_> {
    /// The last record's slot; 0 where there is none.
    pub fn end(&self) -> Slot {
        self.records.last().map_or(Slot(0), |r| r.record.slot)
    }
}

/// Reads segments, sorted by number, each with all its bytes.
pub fn replay<'a>(segments: &[(SegmentNumber, &'a [u8])]) -> Replay<'a> {
    let mut walk = Walk::new();
    let linked = segments.iter().take_while(|&&(number, bytes)| walk.follow(number, bytes)).count();
    walk.search(&segments[linked.saturating_sub(1)..]);
    walk.finish(segments.first().map(|&(number, _)| number))
}

/// A reading under way.
struct Walk<'a> {
    found: Replay<'a>,
    /// The place behind the last good record. Its life is that record's until the end.
    tail: Tail,
    /// False until a segment was followed.
    begun: bool,
    /// The highest life seen in any valid header or record, good or left over; 0 where nothing valid was seen.
    life_max: u64,
}

impl<'a> Walk<'a> {
    fn new() -> Walk<'a> {
        Walk { found: Replay::default(), tail: Tail { life: 0, ..Tail::FIRST }, begun: false, life_max: 0 }
    }

    /// Takes the records of a segment up to the first that is not there. False where the segment does not go on
    /// where the last one ended.
    fn follow(&mut self, number: SegmentNumber, bytes: &'a [u8]) -> bool {
        let header = match SegmentHeader::decode(number, bytes) {
            Ok(header) => header,
            Err(e) => {
                self.note_format(number, 0, e);
                return false;
            }
        };
        let next = header.life >= self.tail.life && header.first == self.tail.ordinal.saturating_add(1);
        if header.first == 0 || self.begun && !next {
            return false;
        }
        self.begun = true;
        self.life_max = self.life_max.max(header.life);
        self.found.segments.push((number, Slot(0)));
        self.tail = Tail {
            segment: number,
            offset: SEGMENT_HEADER_BYTES as u64,
            life: header.life,
            ordinal: header.first - 1,
            ..self.tail
        };
        let mut at = SEGMENT_HEADER_BYTES;
        while let Some(taken) = self.follow_record(number, &bytes[at..]) {
            at += taken;
            self.tail.offset = at as u64;
        }
        true
    }

    /// Takes the record at the front of `bytes` if it is the next one, and says how many bytes it takes.
    fn follow_record(&mut self, number: SegmentNumber, bytes: &'a [u8]) -> Option<usize> {
        let (stamp, view, taken) = match record::decode(number, bytes) {
            Ok(decoded) => decoded,
            Err(e) => {
                self.note_format(number, self.tail.offset, e);
                return None;
            }
        };
        if stamp.life < self.tail.life || stamp.ordinal != self.tail.ordinal.saturating_add(1) {
            return None;
        }
        self.life_max = self.life_max.max(stamp.life);
        self.tail.life = stamp.life;
        self.tail.ordinal = stamp.ordinal;
        self.tail.durable = self.tail.durable.max(stamp.durable);
        let place = Place { segment: number, offset: self.tail.offset, bytes: taken as u64 };
        match view.record.mark {
            true => self.found.index.note_mark(place),
            false => self.found.index.note(view.record.slot, place),
        }
        self.take(view);
        Some(taken)
    }

    /// Takes a good record: what it says, and its slot in place of what it voids.
    fn take(&mut self, view: RecordView<'a>) {
        let found = &mut self.found;
        let record = &view.record;
        found.committed = found.committed.max(record.committed);
        found.synced = record.synced;
        found.durable_known = record.durable_known;
        found.vector.clone_from(&record.vector);
        found.vector_epoch = record.epoch;
        if record.mark {
            return;
        }
        if let Some((_, highest)) = found.segments.last_mut() {
            *highest = record.slot.max(*highest);
        }
        let first = found.records.first().map_or(record.slot, |r| r.record.slot);
        // Where this slot belongs: consecutive slots need no search.
        let place = record.slot.0.checked_sub(first.0).and_then(|k| usize::try_from(k).ok());
        match place {
            Some(place) if place <= found.records.len() => found.records.truncate(place),
            _ => found.records.clear(),
        }
        self.tail.slot = record.slot;
        found.records.push(view);
    }

    /// Looks for valid records behind the last good one. The first of these segments is the one that holds it, if
    /// any was followed.
    fn search(&mut self, segments: &[(SegmentNumber, &'a [u8])]) {
        let mut after = 0u64;
        for (index, &(number, bytes)) in segments.iter().enumerate() {
            let from = if self.begun && index == 0 { self.tail.offset as usize } else { 0 };
            if from == 0 {
                self.note_leftover_header(number, bytes);
            } else if record::claims_to_be(number, self.tail.life, &bytes[from..]) {
                after += 1;
            }
            let mut at = from;
            while at < bytes.len() {
                if !bytes[at..].starts_with(&record::MAGIC) {
                    at += ALIGN_BYTES;
                    continue;
                }
                at += match record::decode(number, &bytes[at..]) {
                    Ok((stamp, _, taken)) => {
                        after += u64::from(self.note_later(number, at, stamp));
                        taken
                    }
                    Err(e) => {
                        self.note_format(number, at as u64, e);
                        ALIGN_BYTES
                    }
                };
            }
        }
        if after > 0 && self.found.damaged.is_none() {
            let Tail { segment, offset, slot, .. } = self.tail;
            let text = format!("segment {} from byte {offset}, after slot {slot}: a torn write was cut off", segment.0);
            self.found.torn = Some(text);
        }
    }

    fn note_leftover_header(&mut self, number: SegmentNumber, bytes: &[u8]) {
        match SegmentHeader::decode(number, bytes) {
            Ok(header) => self.life_max = self.life_max.max(header.life),
            Err(e) => self.note_format(number, 0, e),
        }
    }

    /// A valid record behind the end. True where it belongs to the torn write, not to a life before the last good
    /// record's.
    fn note_later(&mut self, number: SegmentNumber, at: usize, stamp: Stamp) -> bool {
        self.life_max = self.life_max.max(stamp.life);
        if stamp.life < self.tail.life {
            return false;
        }
        if stamp.durable > self.tail.ordinal && self.found.damaged.is_none() {
            let Tail { segment, offset, slot, .. } = self.tail;
            self.found.damaged = Some(format!(
                "segment {} at byte {offset}, after slot {slot}: a bad record, durable says segment {} at byte {at}",
                segment.0, number.0
            ));
        }
        stamp.ordinal > self.tail.ordinal
    }

    /// What is whole but of an unknown format must not be cut off as if it were torn.
    fn note_format(&mut self, number: SegmentNumber, at: u64, error: DecodeError) {
        if error.field == "format" && self.found.damaged.is_none() {
            self.found.damaged = Some(format!("segment {} at byte {at}: a format this program doesn't know", number.0));
        }
    }

    fn finish(mut self, first: Option<SegmentNumber>) -> Replay<'a> {
        if let Some(segment) = first.filter(|_| self.life_max > 0) {
            let place = if self.begun { self.tail } else { Tail { segment, ..self.tail } };
            self.found.tail = Some(Tail { life: self.life_max.saturating_add(1), ..place });
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Record;
    use crate::log::writer::{LogWrite, Writer};
    use crate::rng::Rng;
    use crate::types::{Digest, Epoch, WriteNumber};
    use quickcheck::quickcheck;
    use std::collections::BTreeMap;

    /// Bytes that a power cut keeps or loses as a whole.
    const SECTOR: usize = 512;

    /// What is left when all is read: slot, digest and operations of each record.
    type Live = Vec<(u64, u64, Vec<u8>)>;

    /// A disk, a writer on it, and what a reader should find.
    struct World {
        rng: Rng,
        segment_bytes: u64,
        writer: Writer,
        disk: BTreeMap<SegmentNumber, Vec<u8>>,
        live: Live,
        /// `live` after each record or mark, the empty log first.
        history: Vec<Live>,
        /// Every record in `history` up to here is on the disk for sure.
        synced_records: usize,
        synced: Slot,
        number: WriteNumber,
        next_digest: u64,
    }

    impl World {
        fn new(seed: u64) -> World {
            let mut rng = Rng::new(seed);
            let segment_bytes = rng.between(200, 6000);
            World {
                writer: Writer::new(None, segment_bytes),
                segment_bytes,
                rng,
                disk: BTreeMap::new(),
                live: Vec::new(),
                history: vec![Vec::new()],
                synced_records: 0,
                synced: Slot(0),
                number: WriteNumber(0),
                next_digest: 1,
            }
        }

        fn end(&self) -> u64 {
            self.live.last().map_or(0, |r| r.0)
        }

        fn append_one(&mut self, out: &mut Vec<LogWrite>) {
            let end = self.end();
            let mark = end > 0 && self.rng.chance(200_000);
            let slot = if !mark && end > 0 && self.rng.chance(150_000) {
                // A view was installed below the log's end.
                let slot = self.rng.between(end.saturating_sub(5).max(1), end);
                self.synced = self.synced.min(Slot(slot - 1));
                slot
            } else if mark {
                end
            } else {
                end + 1
            };
            let most = if self.rng.chance(100_000) { 5000 } else { 400 };
            let bytes = if mark { 0 } else { self.rng.below(most) };
            let operations: Vec<u8> = (0..bytes).map(|_| self.rng.next_u64() as u8).collect();
            let record = Record {
                epoch: Epoch(1),
                slot: Slot(slot),
                digest: Digest(self.next_digest),
                synced: self.synced,
                mark,
                ..Record::default()
            };
            let middle = operations.len() / 2;
            self.writer.append(self.number, &record, &[&operations[..middle], &operations[middle..]], out);
            if !mark {
                self.live.retain(|r| r.0 < slot);
                self.live.push((slot, self.next_digest, operations));
            }
            self.next_digest += 1;
            self.history.push(self.live.clone());
        }

        /// One write of a few records, not yet anywhere.
        fn batch(&mut self, records: u64) -> Vec<LogWrite> {
            self.number = self.number.next();
            let mut out = Vec::new();
            (0..records).for_each(|_| self.append_one(&mut out));
            out
        }

        fn apply(disk: &mut BTreeMap<SegmentNumber, Vec<u8>>, write: &LogWrite) {
            let file = disk.entry(write.segment).or_default();
            let end = write.offset as usize + write.bytes.len();
            file.resize(file.len().max(end), 0);
            file[write.offset as usize..end].copy_from_slice(&write.bytes);
        }

        fn sync(&mut self, writes: &[LogWrite]) {
            writes.iter().for_each(|w| World::apply(&mut self.disk, w));
            self.synced_records = self.history.len() - 1;
            self.synced = Slot(self.end());
        }

        /// A power cut: each sector of these writes reaches the disk or does not.
        fn tear(&mut self, writes: &[LogWrite], kept_ppm: u32) {
            let before = self.disk.clone();
            writes.iter().for_each(|w| World::apply(&mut self.disk, w));
            for write in writes {
                let file = self.disk.get_mut(&write.segment).expect("just written");
                let old = before.get(&write.segment).map_or(&[][..], Vec::as_slice);
                let (from, to) = (write.offset as usize, write.offset as usize + write.bytes.len());
                for sector in from / SECTOR..to.div_ceil(SECTOR) {
                    if !self.rng.chance(kept_ppm) {
                        let lost = (sector * SECTOR).max(from)..((sector + 1) * SECTOR).min(to);
                        let former = lost.clone().map(|at| old.get(at).copied().unwrap_or(0));
                        file[lost].iter_mut().zip(former).for_each(|(byte, was)| *byte = was);
                    }
                }
            }
        }

        fn replay(&self) -> Replay<'_> {
            let segments: Vec<(SegmentNumber, &[u8])> = self.disk.iter().map(|(&n, b)| (n, b.as_slice())).collect();
            replay(&segments)
        }

        /// Starts anew with what is found, which must be a history that has all that was synced.
        fn restart(&mut self) {
            let (found, tail, damaged) = {
                let replay = self.replay();
                (live(&replay), replay.tail, replay.damaged)
            };
            assert_eq!(damaged, None);
            let kept = (self.synced_records..self.history.len()).find(|&k| self.history[k] == found);
            let kept = kept.expect("what is found is a history that has all that was synced");
            self.history.truncate(kept + 1);
            self.live = found;
            self.synced_records = kept;
            self.synced = Slot(self.end());
            self.writer = Writer::new(tail, self.segment_bytes);
        }
    }

    fn live(replay: &Replay<'_>) -> Live {
        replay.records.iter().map(|r| (r.record.slot.0, r.record.digest.0, r.operations.to_vec())).collect()
    }

    quickcheck! {
        fn what_was_written_is_found(seed: u64) -> bool {
            let mut world = World::new(seed);
            for _ in 0..world.rng.between(1, 20) {
                let records = world.rng.between(1, 6);
                let writes = world.batch(records);
                world.sync(&writes);
            }
            let replay = world.replay();
            let same_place = replay.tail.is_some_and(|t| {
                let Tail { segment, offset, ordinal, slot, .. } = world.writer.tail();
                (t.segment, t.offset, t.ordinal, t.slot) == (segment, offset, ordinal, slot)
            });
            live(&replay) == world.live && replay.torn.is_none() && replay.damaged.is_none() && same_place
        }

        fn torn_writes_again_and_again_lose_only_what_was_not_synced(seed: u64) -> bool {
            let mut world = World::new(seed);
            for _ in 0..30 {
                for _ in 0..world.rng.below(3) {
                    let records = world.rng.between(1, 6);
                    let writes = world.batch(records);
                    world.sync(&writes);
                }
                // Several writes may be under way.
                let mut writes = Vec::new();
                for _ in 0..world.rng.below(4) {
                    let records = world.rng.between(1, 6);
                    writes.append(&mut world.batch(records));
                }
                let kept = [0, 300_000, 700_000, 950_000, 1_000_000][world.rng.below(5) as usize];
                world.tear(&writes, kept);
                world.restart();
            }
            true
        }
    }

    quickcheck! {
        fn a_bad_durable_sector_is_missed(seed: u64) -> bool {
            let mut world = marked(seed, 8);
            let places = durable_places(&world);
            let (number, place) = world.rng.pick(&places).clone();
            let file = world.disk.get_mut(&number).expect("a place on it");
            let sector = place.start / SECTOR * SECTOR;
            let end = (sector + SECTOR).min(file.len());
            let former = file[sector..end].to_vec();
            file[sector..end].fill(0);
            // A sector that holds the mark, too, takes away who could tell.
            let last = (world.writer.tail().segment, world.writer.tail().offset as usize);
            let tells = number != last.0 || end + record::HEADER_BYTES <= last.1;
            !tells || former.iter().all(|&b| b == 0) || world.replay().damaged.is_some()
        }

        fn a_missing_segment_is_missed(seed: u64) -> bool {
            let mut world = marked(seed, 12);
            let numbers: Vec<SegmentNumber> = world.disk.keys().copied().collect();
            if numbers.len() < 4 {
                return true;
            }
            // Not the first, which a snapshot may have made superfluous, nor the last, which holds the mark.
            let missing = numbers[world.rng.between(1, numbers.len() as u64 - 3) as usize];
            world.disk.remove(&missing);
            world.replay().damaged.is_some()
        }

        fn a_former_life_of_a_segment_is_nothing(seed: u64) -> bool {
            let mut former = marked(seed, 6);
            let mut world = World::new(seed ^ 1);
            // The first segments of the new log are the last ones of another, under new numbers.
            let count = former.disk.len() as u64;
            world.disk = former.disk.iter().map(|(n, b)| (SegmentNumber(count + 1 - n.0), b.clone())).collect();
            if count % 2 == 1 {
                world.disk.remove(&SegmentNumber(count / 2 + 1));
            }
            former.disk.clear();
            let nothing = world.replay();
            assert!(nothing.tail.is_none() && nothing.records.is_empty() && nothing.damaged.is_none());
            let writes = world.batch(3);
            world.sync(&writes);
            let replay = world.replay();
            live(&replay) == world.live && replay.torn.is_none() && replay.damaged.is_none()
        }

        fn any_bytes_are_a_log(seed: u64, garbage: Vec<(u16, u8)>) -> bool {
            let mut world = marked(seed, 5);
            let numbers: Vec<SegmentNumber> = world.disk.keys().copied().collect();
            for (at, value) in garbage {
                let number = *world.rng.pick(&numbers);
                let file = world.disk.get_mut(&number).expect("one of its numbers");
                let at = usize::from(at) % file.len();
                file[at] = value;
                if value % 16 == 0 {
                    file.truncate(at.max(1));
                }
            }
            let mut tail = world.replay().tail;
            tail.iter_mut().for_each(|t| assert!(t.offset <= world.disk[&t.segment].len() as u64));
            true
        }

        fn any_stamps_are_a_log(fields: Vec<(u64, u64, u64, u64, bool)>) -> bool {
            let mut bytes = Vec::new();
            let number = SegmentNumber(1);
            let (life, first) = fields.first().map_or((1, 1), |f| (f.0, f.1));
            SegmentHeader { segment: number, life, first }.encode(&mut bytes);
            for (life, ordinal, durable, slot, mark) in fields {
                let record = Record { slot: Slot(slot.max(1)), mark, ..Record::default() };
                record::encode(&record, &Stamp { segment: number, life, ordinal, durable }, &[], &mut bytes);
            }
            let found = replay(&[(number, &bytes)]);
            found.records.windows(2).all(|w| w[0].record.slot.next() == w[1].record.slot)
        }
    }

    /// Some writes, all synced, and a mark that says so, in segments of this size.
    fn marked(seed: u64, writes: u64) -> World {
        let mut world = World::new(seed);
        for _ in 0..writes {
            let records = world.rng.between(1, 4);
            let writes = world.batch(records);
            world.sync(&writes);
        }
        let mark = Record { slot: world.synced, synced: world.synced, mark: true, ..Record::default() };
        let mut out = Vec::new();
        world.writer.append(world.number.next(), &mark, &[], &mut out);
        out.iter().for_each(|w| World::apply(&mut world.disk, w));
        world
    }

    /// The places of headers and records which some record says were durable.
    fn durable_places(world: &World) -> Vec<(SegmentNumber, std::ops::Range<usize>)> {
        let durable = world.writer.tail().durable;
        let mut places = Vec::new();
        for (&number, bytes) in &world.disk {
            let (mut begin, mut at) = (0, SEGMENT_HEADER_BYTES);
            while let Ok((stamp, _, taken)) = record::decode(number, &bytes[at..]) {
                if stamp.ordinal <= durable {
                    places.push((number, begin..at + taken));
                }
                at += taken;
                begin = at;
            }
        }
        places
    }

    #[test]
    fn every_durable_bit_is_missed() {
        let mut world = marked(3, 4);
        assert!(world.replay().damaged.is_none());
        let places = durable_places(&world);
        assert!(places.iter().map(|(n, _)| n).max() > places.iter().map(|(n, _)| n).min(), "several segments");
        for (number, place) in places {
            for bit in place.start * 8..place.end * 8 {
                world.disk.get_mut(&number).expect("a place on it")[bit / 8] ^= 1 << (bit % 8);
                assert!(world.replay().damaged.is_some(), "{number:?} bit {bit}");
                world.disk.get_mut(&number).expect("a place on it")[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_log_cut_anywhere_in_its_last_write_is_a_prefix() {
        let mut world = World::new(11);
        let first = world.batch(3);
        world.sync(&first);
        let writes = world.batch(6);
        let written: Vec<(SegmentNumber, u64)> =
            writes.iter().flat_map(|w| (0..w.bytes.len() as u64).map(|k| (w.segment, w.offset + k))).collect();
        for cut in 0..=written.len() {
            let mut disk = world.disk.clone();
            for write in &writes {
                let kept = written[..cut].iter().filter(|&&(s, o)| s == write.segment && o >= write.offset).count();
                if kept > 0 {
                    let bytes = write.bytes[..kept].to_vec();
                    World::apply(&mut disk, &LogWrite { bytes, ..write.clone() });
                }
            }
            let segments: Vec<(SegmentNumber, &[u8])> = disk.iter().map(|(&n, b)| (n, b.as_slice())).collect();
            let replay = replay(&segments);
            assert_eq!(replay.damaged, None);
            let found = live(&replay);
            let place = (world.synced_records..world.history.len()).find(|&k| world.history[k] == found);
            assert!(place.is_some(), "cut at {cut}");
            assert!(cut < written.len() || found == world.live);
        }
    }

    #[test]
    fn torn_leftovers_never_surface_behind_what_was_written_over_them() {
        // Slots 1 and 2 are durable; of 3 and 4 only the second reaches the disk; 3 is written anew, of equal length.
        let append = |writer: &mut Writer, slot: u64, digest: u64, disk: &mut BTreeMap<_, _>, keep: bool| {
            let record = Record { slot: Slot(slot), digest: Digest(digest), synced: Slot(2), ..Record::default() };
            let mut out = Vec::new();
            writer.append(WriteNumber(slot), &record, &[b"operation"], &mut out);
            out.iter().filter(|_| keep).for_each(|w| World::apply(disk, w));
        };
        let mut disk = BTreeMap::new();
        let mut writer = Writer::new(None, 4096);
        for (slot, keep) in [(1, true), (2, true), (3, false), (4, true)] {
            append(&mut writer, slot, slot, &mut disk, keep);
        }
        let bytes = disk[&SegmentNumber(1)].clone();
        let replayed = replay(&[(SegmentNumber(1), &bytes)]);
        assert_eq!((replayed.end(), replayed.torn.is_some(), &replayed.damaged), (Slot(2), true, &None));
        // Even the very same record gives the leftover no place.
        append(&mut Writer::new(replayed.tail, 4096), 3, 3, &mut disk, true);
        let replayed = replay(&[(SegmentNumber(1), &disk[&SegmentNumber(1)])]);
        assert_eq!((replayed.end(), replayed.torn, replayed.damaged), (Slot(3), None, None));
    }

    #[test]
    fn a_slot_behind_a_snapshot_begins_anew() {
        let mut writer = Writer::new(None, 300);
        let (mut disk, mut out) = (BTreeMap::new(), Vec::new());
        for slot in [1, 2, 3, 100, 101, 90] {
            let vector = vec![(ReplicaId(2), Slot(slot))];
            let record = Record { slot: Slot(slot), committed: Slot(slot / 2), vector, ..Record::default() };
            writer.append(WriteNumber(1), &record, &[], &mut out);
        }
        out.iter().for_each(|w| World::apply(&mut disk, w));
        let segments: Vec<(SegmentNumber, &[u8])> = disk.iter().map(|(&n, b): (_, &Vec<u8>)| (n, &b[..])).collect();
        let found = replay(&segments[..2]);
        assert_eq!(live(&found).iter().map(|r| r.0).collect::<Vec<_>>(), [100]);
        let found = replay(&segments);
        assert_eq!(live(&found).iter().map(|r| r.0).collect::<Vec<_>>(), [90]);
        assert_eq!(found.segments, [(1, 2), (2, 100), (3, 101)].map(|(n, slot)| (SegmentNumber(n), Slot(slot))));
        assert_eq!((found.committed, found.vector), (Slot(50), vec![(ReplicaId(2), Slot(90))]));
    }
}
