//! The journal: which slots have been handed to the log, and which are on the disk (rule 4, DESIGN 5.1).
//!
//! Writes are numbered on one line over log and `meta`; what depends on one is released when its number is reported
//! durable. A mark follows the last record of a busy time, so that a restart knows how far it was synced.

use std::collections::VecDeque;

use crate::log::{LogWrite, Record, Replay, Writer};
use crate::types::{Digest, Epoch, GroupTime, ReplicaId, Slot, Time, WriteNumber};
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
}

impl Journal {
    /// Goes on behind what was found.
    pub fn new(found: &Replay<'_>, segment_bytes: u64) -> Journal {
        let last = found.records.last().map(|r| &r.record);
        let end = found.end();
        Journal {
            writer: Writer::new(found.tail, segment_bytes),
            next: WriteNumber(1),
            logged: end,
            digest: last.map_or(Digest(0), |r| r.digest),
            time: last.map_or(GroupTime(0), |r| r.time),
            under_way: VecDeque::new(),
            synced: end,
            mark_due: (found.synced < end).then_some(Time(0)),
        }
    }

    /// A number for a write of `meta`.
    pub fn number(&mut self) -> WriteNumber {
        let number = self.next;
        self.next = number.next();
        number
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
        self.writer.append(number, &record, operations, out);
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
            self.writer.append(number, &record, &[], out);
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
