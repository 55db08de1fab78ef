//! Serving: the source's side of catching up (DESIGN 6.3). What another replica asks for is read from this one's log
//! and sent as it lies there, or as pieces of a snapshot where the log begins later.
//!
//! Only what is on the disk is served, and committed slots unless more is asked for by name. Whether the asker's
//! history is a part of this one is told by the digest of the record at its end, where that record is still kept; the
//! asker checks the rest itself, for digests chain. Each replica has one request under way, the newest; few are read
//! for at a time, and what is sent stays below a rate.

use std::collections::BTreeMap;

use crate::limits::{
    RECORD_BYTES_MAX, SERVE_BURST_BYTES, SERVE_BYTES_PER_SECOND, SERVE_READS_MAX, STREAM_FRAME_BYTES_MAX,
    STREAM_PIECE_BYTES,
};
use crate::log::index::records_in;
use crate::log::snapshot;
use crate::replica::journal::Journal;
use crate::replica::{ReadRequest, StoredFile};
use crate::types::{Digest, ReplicaId, Slot, Time};
use crate::wire::stream::{Fetch, Frame, Position, Record, Sender};
use crate::wire::view::View;

/// What tells this module's reads from others'.
const TOKENS: u64 = 1 << 63;
/// Reads that give nothing usable before a request is turned away: what was there a moment ago may be gone.
const FAILURES_MAX: u8 = 2;

/// What there is to be served, as of now.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub sender: Sender,
    pub journal: &'a Journal,
    /// The newest view that this log leads to, or is ordered in.
    pub view: Option<&'a View>,
    pub committed: Slot,
    /// The slots of the snapshots on the disk, rising.
    pub snapshots: &'a [Slot],
}

/// Where effects go.
#[derive(Debug)]
pub struct Lanes<'a> {
    pub streams: &'a mut Vec<(ReplicaId, Vec<u8>)>,
    pub reads: &'a mut Vec<ReadRequest>,
}

/// What a request is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Records {
        /// The last slot sent; first, the asker's last.
        sent: Slot,
        /// What the asker's last record must have for digest, until that is known.
        check: Option<Digest>,
    },
    State {
        slot: Slot,
        offset: u64,
        /// Bytes of the file, once its front is read.
        total: Option<u64>,
    },
}

/// A part of a file that is being read for a request.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Reading {
    /// Of the read under way.
    token: u64,
    file: StoredFile,
    /// Where the part begins, and how many bytes of it are wanted.
    offset: u64,
    wanted: usize,
    /// What has come of it.
    bytes: Vec<u8>,
}

impl Reading {
    /// How many bytes the read under way asks for.
    fn next_bytes(&self) -> usize {
        (self.wanted - self.bytes.len()).min(STREAM_PIECE_BYTES)
    }

    /// Takes what a read brought. Whether all is here that was wanted, or that there is.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let asked = self.next_bytes();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(asked)]);
        bytes.len() < asked || self.bytes.len() == self.wanted
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Request {
    number: u64,
    fetch: Fetch,
    stage: Option<Stage>,
    frames_left: u8,
    reading: Option<Reading>,
    failures: u8,
}

/// What became of requests, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    pub requests: u64,
    /// Overtaken by a newer one of the same replica.
    pub replaced: u64,
    pub differed: u64,
    pub later: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Serve {
    requests: BTreeMap<ReplicaId, Request>,
    next_token: u64,
    /// Who is looked at first in the next turn, so that all come to it.
    turn: ReplicaId,
    /// Bytes that may be sent now; below 0 after a large frame.
    allowance: i64,
    filled: Time,
    pub counters: Counters,
}

impl Serve {
    pub fn new(now: Time) -> Serve {
        Serve {
            requests: BTreeMap::new(),
            next_token: TOKENS,
            turn: ReplicaId(0),
            allowance: SERVE_BURST_BYTES as i64,
            filled: now,
            counters: Counters::default(),
        }
    }

    /// A request. It takes the place of an earlier one of the same replica.
    pub fn on_fetch(&mut self, from: ReplicaId, number: u64, fetch: Fetch) {
        let former = self.requests.remove(&from);
        self.counters.requests += 1;
        self.counters.replaced += u64::from(former.is_some());
        // A read under way is waited for, so that no replica has two.
        let reading = former.and_then(|request| request.reading);
        let (stage, frames_left) = (None, fetch.frames);
        self.requests.insert(from, Request { number, fetch, stage, frames_left, reading, failures: 0 });
    }

    /// Reads and answers as far as the rate lets it.
    pub fn tick(&mut self, now: Time, source: &Source<'_>, lanes: &mut Lanes<'_>) {
        self.fill(now);
        let mut ids: Vec<ReplicaId> = self.requests.keys().copied().collect();
        let first = ids.partition_point(|id| *id < self.turn);
        ids.rotate_left(first);
        for id in ids {
            if self.allowance <= 0 || self.readings() >= SERVE_READS_MAX {
                self.turn = id;
                return;
            }
            let Some(mut request) = self.requests.remove(&id) else { continue };
            if request.reading.is_some() || self.begin(id, &mut request, source, lanes) {
                self.requests.insert(id, request);
            }
        }
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Option<Time> {
        let waits = self.requests.values().any(|request| request.reading.is_none());
        if !waits || self.readings() >= SERVE_READS_MAX {
            return None;
        }
        let owed = u64::try_from(1 - self.allowance).unwrap_or(0);
        Some(self.filled.after_ns(owed.saturating_mul(1_000_000_000).div_ceil(SERVE_BYTES_PER_SECOND)))
    }

    /// What a read brought. False where it was not asked for here.
    pub fn on_read(&mut self, token: u64, bytes: &[u8], source: &Source<'_>, lanes: &mut Lanes<'_>) -> bool {
        let is_it = |request: &Request| request.reading.as_ref().is_some_and(|reading| reading.token == token);
        let Some(id) = self.requests.iter().find(|(_, request)| is_it(request)).map(|(id, _)| *id) else {
            return token >= TOKENS;
        };
        let mut request = self.requests.remove(&id).expect("it was just found");
        let mut reading = request.reading.take().expect("it was just looked at");
        let is_whole = reading.take(bytes);
        // Without a stage it was for a request that is overtaken.
        if request.stage.is_none() {
            self.requests.insert(id, request);
            return true;
        }
        if !is_whole {
            self.read(&mut request, reading, lanes);
            self.requests.insert(id, request);
            return true;
        }
        let before = (request.stage, request.frames_left);
        let goes_on = match reading.file {
            StoredFile::Segment(_) => self.send_records(id, &mut request, &reading, source, lanes),
            StoredFile::Snapshot(_) => self.send_state(id, &mut request, &reading, source, lanes),
        };
        if !goes_on {
            return true;
        }
        // Nothing came of it: what was to be read is gone, or not what it was.
        if before == (request.stage, request.frames_left) {
            request.failures += 1;
            request.stage = None;
        }
        if request.failures > FAILURES_MAX {
            self.later(id, &request, source, lanes);
        } else {
            self.requests.insert(id, request);
        }
        true
    }

    fn readings(&self) -> usize {
        self.requests.values().filter(|request| request.reading.is_some()).count()
    }

    fn fill(&mut self, now: Time) {
        let earned = u128::from(now.since_ns(self.filled)) * u128::from(SERVE_BYTES_PER_SECOND) / 1_000_000_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.allowance = self.allowance.saturating_add(earned).min(SERVE_BURST_BYTES as i64);
            self.filled = now;
        }
    }

    fn say(&mut self, to: ReplicaId, frame: &Frame<'_>, source: &Source<'_>, lanes: &mut Lanes<'_>) {
        let mut bytes = Vec::new();
        frame.encode(source.sender, &mut bytes);
        self.allowance -= bytes.len() as i64;
        self.counters.bytes += bytes.len() as u64;
        lanes.streams.push((to, bytes));
    }

    fn later(&mut self, to: ReplicaId, request: &Request, source: &Source<'_>, lanes: &mut Lanes<'_>) {
        self.counters.later += 1;
        self.say(to, &Frame::Later { number: request.number }, source, lanes);
    }

    fn differs(&mut self, to: ReplicaId, request: &Request, slot: Slot, source: &Source<'_>, lanes: &mut Lanes<'_>) {
        self.counters.differed += 1;
        self.say(to, &Frame::Differs { number: request.number, slot }, source, lanes);
    }

    /// Says that there is nothing more than the asker has.
    fn nothing(&mut self, to: ReplicaId, request: &Request, source: &Source<'_>, lanes: &mut Lanes<'_>) {
        let (number, committed, end) = (request.number, source.committed, source.journal.synced());
        self.say(to, &Frame::Records { number, committed, end, records: Vec::new() }, source, lanes);
    }

    /// Finds out what a request calls for, and reads the next part of it. False where it is answered for good.
    fn begin(&mut self, id: ReplicaId, request: &mut Request, source: &Source<'_>, lanes: &mut Lanes<'_>) -> bool {
        if request.stage.is_none() {
            match decide(&request.fetch, source) {
                Decision::Stage(stage) => request.stage = Some(stage),
                Decision::Nothing => self.nothing(id, request, source, lanes),
                Decision::Differs(slot) => self.differs(id, request, slot, source, lanes),
                Decision::Later => self.later(id, request, source, lanes),
            }
        }
        let (file, offset, bytes) = match request.stage {
            None => return false,
            Some(Stage::Records { sent, check }) => {
                let next = if check.is_some() { sent } else { sent.next() };
                let Some(stretch) = source.journal.locate(next) else {
                    // Cut or trimmed since it was decided.
                    self.later(id, request, source, lanes);
                    return false;
                };
                let all = stretch.end.saturating_sub(stretch.offset).min(2 * RECORD_BYTES_MAX as u64);
                let more = sent < limit(&request.fetch, source);
                let bytes = if more { all.max(STREAM_PIECE_BYTES as u64) } else { all };
                (StoredFile::Segment(stretch.segment), stretch.offset, bytes)
            }
            Some(Stage::State { slot, total: None, .. }) => {
                (StoredFile::Snapshot(slot), 0, snapshot::FRONT_BYTES as u64)
            }
            Some(Stage::State { slot, offset, .. }) => (StoredFile::Snapshot(slot), offset, STREAM_PIECE_BYTES as u64),
        };
        self.read(request, Reading { token: 0, file, offset, wanted: bytes as usize, bytes: Vec::new() }, lanes);
        true
    }

    /// Reads on.
    fn read(&mut self, request: &mut Request, reading: Reading, lanes: &mut Lanes<'_>) {
        let token = self.next_token;
        self.next_token = token.wrapping_add(1) | TOKENS;
        let offset = reading.offset + reading.bytes.len() as u64;
        lanes.reads.push(ReadRequest { token, file: reading.file, offset, bytes: reading.next_bytes() as u32 });
        request.reading = Some(Reading { token, ..reading });
    }

    /// Sends the records that were read, as many as fit a frame. False where the request is answered for good.
    fn send_records(
        &mut self,
        id: ReplicaId,
        request: &mut Request,
        reading: &Reading,
        source: &Source<'_>,
        lanes: &mut Lanes<'_>,
    ) -> bool {
        let Some(Stage::Records { mut sent, mut check }) = request.stage else { return false };
        let until = limit(&request.fetch, source);
        let (mut records, mut room): (Vec<Record<'_>>, usize) = (Vec::new(), STREAM_PIECE_BYTES);
        while let Some((first, found)) = stretch_in(source.journal, reading, sent, check.is_some(), until) {
            for record in found.into_iter().skip_while(|record| record.slot < first) {
                if let Some(digest) = check.take() {
                    if record.digest != digest {
                        let common = source.view.map_or(Slot(0), |view| last_common(view, request.fetch.after));
                        let common = if common < sent { common } else { Slot(0) };
                        self.differs(id, request, common, source, lanes);
                        return false;
                    }
                    continue;
                }
                let length = record.encoded_len();
                if length > room && !records.is_empty() {
                    room = 0;
                    break;
                }
                room = room.saturating_sub(length);
                sent = record.slot;
                records.push(record);
            }
            if room == 0 || sent >= until {
                break;
            }
        }
        request.stage = Some(Stage::Records { sent, check });
        if check.is_some() {
            return true;
        }
        if records.is_empty() {
            if sent >= until {
                self.nothing(id, request, source, lanes);
                return false;
            }
            return true;
        }
        request.failures = 0;
        request.frames_left -= 1;
        let (number, committed, end) = (request.number, source.committed, source.journal.synced());
        self.say(id, &Frame::Records { number, committed, end, records }, source, lanes);
        request.frames_left > 0 && sent < limit(&request.fetch, source)
    }

    /// Sends a piece of a snapshot. False where the request is answered for good.
    fn send_state(
        &mut self,
        id: ReplicaId,
        request: &mut Request,
        reading: &Reading,
        source: &Source<'_>,
        lanes: &mut Lanes<'_>,
    ) -> bool {
        let Some(Stage::State { slot, offset, total }) = request.stage else { return false };
        let Some(total) = total else {
            if let Ok(total) = snapshot::file_bytes(&reading.bytes) {
                let offset = if offset < total { offset } else { 0 };
                request.stage = Some(Stage::State { slot, offset, total: Some(total) });
            }
            return true;
        };
        let left = usize::try_from(total - offset).unwrap_or(usize::MAX);
        let bytes = &reading.bytes[..reading.bytes.len().min(left).min(STREAM_PIECE_BYTES)];
        if bytes.is_empty() || reading.offset != offset {
            return true;
        }
        self.say(id, &Frame::State { number: request.number, slot, total, offset, bytes }, source, lanes);
        let offset = offset + bytes.len() as u64;
        request.stage = Some(Stage::State { slot, offset, total: Some(total) });
        request.failures = 0;
        request.frames_left -= 1;
        request.frames_left > 0 && offset < total
    }
}

/// What a request calls for.
enum Decision {
    Stage(Stage),
    Nothing,
    Differs(Slot),
    Later,
}

fn decide(fetch: &Fetch, source: &Source<'_>) -> Decision {
    let after = fetch.after;
    let Some(view) = source.view.filter(|view| view.epoch >= after.epoch) else { return Decision::Later };
    // The record itself tells best, whatever is known of its epoch.
    if source.journal.locate(after.slot).is_some() {
        return Decision::Stage(Stage::Records { sent: after.slot, check: Some(after.digest) });
    }
    let first = source.journal.first_slot();
    // The record at the asker's end is here, or the very next one is; or nothing is, for there is nothing.
    let kept = first.is_some_and(|first| after.slot.next() >= first);
    let newest = source.snapshots.iter().rev().copied().find(|slot| *slot > after.slot);
    match newest {
        Some(newest) if !kept => {
            let begun = source.snapshots.contains(&fetch.state.0) && fetch.state.0 > after.slot;
            let (slot, offset) = if begun { fetch.state } else { (newest, 0) };
            Decision::Stage(Stage::State { slot, offset, total: None })
        }
        _ if after.slot > source.journal.synced() => {
            let common = last_common(view, after);
            if common < after.slot {
                Decision::Differs(common)
            } else {
                Decision::Nothing
            }
        }
        None if !kept && after.slot < source.journal.synced() => Decision::Later,
        _ if after.slot >= limit(fetch, source) => Decision::Nothing,
        _ => Decision::Stage(Stage::Records { sent: after.slot, check: None }),
    }
}

/// Up to where a log that ends there may be a part of this view's history: not beyond the base that followed its epoch.
/// 0 where that is forgotten.
fn last_common(view: &View, end: Position) -> Slot {
    if view.keeps(end.epoch, end.slot) {
        return end.slot;
    }
    let next = view.chain.iter().find(|link| link.epoch > end.epoch);
    let (next, base) = next.map_or((view.epoch, view.base), |link| (link.epoch, link.base));
    if next == end.epoch.next() {
        base
    } else {
        Slot(0)
    }
}

/// The last slot that a request may get now.
fn limit(fetch: &Fetch, source: &Source<'_>) -> Slot {
    let wanted = if fetch.upto == Slot(0) { source.committed } else { fetch.upto };
    wanted.min(source.journal.synced())
}

/// The records of the stretch that holds the next slot, as far as it was read: the next slot, and consecutive ones
/// beginning at it or before. `None` where the bytes hold it not, or no more.
fn stretch_in<'a>(
    journal: &Journal,
    reading: &'a Reading,
    sent: Slot,
    check: bool,
    until: Slot,
) -> Option<(Slot, Vec<Record<'a>>)> {
    let next = if check { sent } else { sent.next() };
    let stretch = journal.locate(next)?;
    if reading.file != StoredFile::Segment(stretch.segment) {
        return None;
    }
    let from = usize::try_from(stretch.offset.checked_sub(reading.offset)?).ok()?;
    let end = usize::try_from(stretch.end.checked_sub(reading.offset)?).ok()?.min(reading.bytes.len());
    let before = stretch.before.min(until.max(next).next());
    let scan = records_in(stretch.segment, reading.bytes.get(from..end)?, stretch.first, before).ok()?;
    let records: Vec<Record<'a>> = scan
        .records
        .iter()
        .map(|view| Record {
            epoch: view.record.epoch,
            slot: view.record.slot,
            time: view.record.time,
            digest: view.record.digest,
            operations: view.operations,
        })
        .collect();
    records.last().is_some_and(|last| last.slot >= next).then_some((next, records))
}

const _: () = assert!(STREAM_PIECE_BYTES < STREAM_FRAME_BYTES_MAX, "a piece must fit a frame");
