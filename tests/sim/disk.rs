//! A virtual disk: what is written is safe only once a sync that began after the write has ended. Log and `meta` are
//! synced independently, so that their completions come in any order. A crash keeps any subset of the sectors that
//! were not synced, also of one write: that is what a power cut does.

use std::collections::{BTreeMap, VecDeque};

use ftq::log::SegmentNumber;
use ftq::replica::{ReadRequest, StoredFile, Trim};
use ftq::rng::Rng;
use ftq::types::{Slot, WriteNumber};

use super::clock::Nanos;

const SECTOR_BYTES: usize = 512;

/// What a write goes to, and is synced with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum File {
    Meta,
    Segment(SegmentNumber),
    Snapshot(Slot),
}

/// Files that are synced together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    Meta,
    Log,
}

impl File {
    fn lane(self) -> Lane {
        match self {
            File::Meta => Lane::Meta,
            File::Segment(_) | File::Snapshot(_) => Lane::Log,
        }
    }
}

#[derive(Debug)]
struct Write {
    number: WriteNumber,
    file: File,
    offset: usize,
    bytes: Vec<u8>,
}

/// How long syncs take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub least_ns: Nanos,
    pub most_ns: Nanos,
    /// In how many of a million syncs the disk stalls.
    pub stall_ppm: u32,
    pub stall_ns: Nanos,
}

impl Pace {
    /// Always the same.
    pub fn exact(ns: Nanos) -> Pace {
        Pace { least_ns: ns, most_ns: ns, stall_ppm: 0, stall_ns: 0 }
    }

    fn draw(&self, rng: &mut Rng) -> Nanos {
        let stall = if rng.chance(self.stall_ppm) { rng.between(0, self.stall_ns) } else { 0 };
        rng.between(self.least_ns, self.most_ns) + stall
    }
}

/// How much of what was not synced survives a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tear {
    Nothing,
    Everything,
    /// Each sector by itself, with this many chances in a million.
    Sectors(u32),
}

#[derive(Debug)]
pub struct Disk {
    synced: BTreeMap<File, Vec<u8>>,
    unsynced: VecDeque<Write>,
    /// Removed, lowest segments first; a crash may bring all behind some point back.
    removed: VecDeque<(File, Vec<u8>)>,
    /// The highest number under way in each lane's sync: everything up to it is safe when that ends.
    syncing: [Option<WriteNumber>; 2],
    issued: WriteNumber,
    told: WriteNumber,
    pub pace: Pace,
    rng: Rng,
}

impl Disk {
    pub fn new(pace: Pace, rng: Rng) -> Disk {
        Disk {
            synced: BTreeMap::new(),
            unsynced: VecDeque::new(),
            removed: VecDeque::new(),
            syncing: [None; 2],
            issued: WriteNumber(0),
            told: WriteNumber(0),
            pace,
            rng,
        }
    }

    pub fn write(&mut self, number: WriteNumber, file: File, offset: u64, bytes: Vec<u8>) {
        self.issued = self.issued.max(number);
        self.unsynced.push_back(Write { number, file, offset: offset as usize, bytes });
    }

    /// Begins a sync of everything written to this lane so far, if there is anything and none is under way: how long
    /// it will take.
    pub fn begin_sync(&mut self, lane: Lane) -> Option<Nanos> {
        if self.syncing[lane as usize].is_some() {
            return None;
        }
        let own = self.unsynced.iter().filter(|w| w.file.lane() == lane).map(|w| w.number);
        // One write of `meta` at a time: two would put both pairs of its pages at risk.
        let last = if lane == Lane::Meta { own.min()? } else { own.max()? };
        self.syncing[lane as usize] = Some(last);
        Some(self.pace.draw(&mut self.rng))
    }

    /// The lane's sync has ended. The number to be told, if more is safe than before.
    pub fn end_sync(&mut self, lane: Lane) -> Option<WriteNumber> {
        let upto = self.syncing[lane as usize].take()?;
        self.removed.clear();
        for write in std::mem::take(&mut self.unsynced) {
            if write.file.lane() == lane && write.number <= upto {
                put(&mut self.synced, write.file, write.offset, &write.bytes);
            } else {
                self.unsynced.push_back(write);
            }
        }
        let waiting = self.unsynced.iter().map(|w| w.number).min();
        let safe = waiting.map_or(self.issued, |number| WriteNumber(number.0 - 1));
        (safe > self.told).then(|| {
            self.told = safe;
            safe
        })
    }

    /// Bytes that a crash now could lose.
    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced.iter().map(|w| w.bytes.len()).sum()
    }

    /// The power goes. True where a write was torn: part of it survived and part did not.
    pub fn crash(&mut self, tear: Tear) -> bool {
        let mut torn = false;
        let begun = self.syncing[Lane::Meta as usize].unwrap_or(WriteNumber(0));
        for write in std::mem::take(&mut self.unsynced) {
            // The next write of `meta` is handed over when the one before is safe.
            if write.file.lane() == Lane::Meta && write.number > begun {
                continue;
            }
            let (mut kept, mut lost, mut at) = (false, false, 0);
            while at < write.bytes.len() {
                let sector_end = (write.offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - write.offset;
                let end = sector_end.min(write.bytes.len());
                let keep = match tear {
                    Tear::Nothing => false,
                    Tear::Everything => true,
                    Tear::Sectors(ppm) => self.rng.chance(ppm),
                };
                if keep {
                    put(&mut self.synced, write.file, write.offset + at, &write.bytes[at..end]);
                }
                kept |= keep;
                lost |= !keep;
                at = end;
            }
            torn |= kept && lost;
        }
        let lasting = self.rng.below(self.removed.len() as u64 + 1) as usize;
        self.synced.extend(std::mem::take(&mut self.removed).into_iter().skip(lasting));
        self.syncing = [None; 2];
        self.issued = WriteNumber(0);
        self.told = WriteNumber(0);
        torn
    }

    /// Nothing is left.
    pub fn wipe(&mut self) {
        self.crash(Tear::Nothing);
        self.synced.clear();
        self.removed.clear();
    }

    /// How long something that is not waited for takes.
    pub fn delay(&mut self) -> Nanos {
        self.pace.draw(&mut self.rng)
    }

    /// A snapshot that a child wrote and synced beside the loop.
    pub fn put_snapshot(&mut self, slot: Slot, bytes: Vec<u8>) {
        self.synced.insert(File::Snapshot(slot), bytes);
    }

    /// It holds this from the beginning.
    pub fn begin_with(&mut self, meta: Vec<u8>, slot: Slot, snapshot: Vec<u8>) {
        self.synced.insert(File::Meta, meta);
        self.put_snapshot(slot, snapshot);
    }

    /// One bit of a snapshot is not what it was.
    pub fn damage_snapshot(&mut self, slot: Slot) {
        let bytes = self.synced.get_mut(&File::Snapshot(slot)).expect("a snapshot that is there");
        let bit = self.rng.below(bytes.len() as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    /// A damaged snapshot is moved out of the way.
    pub fn set_aside(&mut self, slot: Slot) {
        self.synced.remove(&File::Snapshot(slot));
    }

    /// Removes what is needed no more. True where a segment was.
    pub fn trim(&mut self, trim: &Trim) -> bool {
        let goes = |file: &File| match *file {
            File::Meta => false,
            File::Segment(number) => number < trim.segments_below,
            File::Snapshot(slot) => slot < trim.snapshots_below,
        };
        let going: Vec<File> = self.synced.keys().copied().filter(goes).collect();
        let segment = going.iter().any(|file| matches!(file, File::Segment(_)));
        self.removed.extend(going.into_iter().filter_map(|file| self.synced.remove_entry(&file)));
        assert!(!self.unsynced.iter().any(|w| goes(&w.file)), "a segment goes before its last write is synced");
        segment
    }

    /// What a read finds: bytes that are not synced, too.
    pub fn read(&self, request: &ReadRequest) -> Vec<u8> {
        let wanted = match request.file {
            StoredFile::Segment(number) => File::Segment(number),
            StoredFile::Snapshot(slot) => File::Snapshot(slot),
        };
        let mut file = BTreeMap::new();
        file.extend(self.synced.get(&wanted).map(|bytes| (wanted, bytes.clone())));
        self.unsynced.iter().filter(|w| w.file == wanted).for_each(|w| put(&mut file, wanted, w.offset, &w.bytes));
        let bytes = file.remove(&wanted).unwrap_or_default();
        let from = (request.offset as usize).min(bytes.len());
        let end = (from + request.bytes as usize).min(bytes.len());
        bytes[from..end].to_vec()
    }

    /// What a start-up reads of snapshots, rising.
    pub fn snapshots<'d>(&'d self) -> Vec<(Slot, &'d [u8])> {
        let snapshot = |(file, bytes): (&'d File, &'d Vec<u8>)| match *file {
            File::Snapshot(slot) => Some((slot, bytes.as_slice())),
            _ => None,
        };
        self.synced.iter().filter_map(snapshot).collect()
    }

    /// What a start-up reads of `meta`.
    pub fn meta(&self) -> &[u8] {
        self.synced.get(&File::Meta).map_or(&[], Vec::as_slice)
    }

    /// What a start-up reads of the log.
    pub fn segments<'d>(&'d self) -> Vec<(SegmentNumber, &'d [u8])> {
        let segment = |(file, bytes): (&'d File, &'d Vec<u8>)| match *file {
            File::Meta | File::Snapshot(_) => None,
            File::Segment(number) => Some((number, bytes.as_slice())),
        };
        self.synced.iter().filter_map(segment).collect()
    }
}

/// Writes into a file that grows as needed, zeros in between.
fn put(files: &mut BTreeMap<File, Vec<u8>>, file: File, offset: usize, bytes: &[u8]) {
    let content = files.entry(file).or_default();
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}
