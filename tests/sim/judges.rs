//! The judges of what is agreed and answered: I1 to I4 and I8, each at the event where it can break. What is on the
//! wire (I7, I10) is judged in `wiretap`, that everything ends (I9) in `world`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ftq::log::{record, Replay, SegmentNumber};
use ftq::types::{ClientId, Digest, GroupTime, SessionId, Slot, WriteNumber};
use ftq::wire::digest::slot_digest;

use super::model::{brief, Model};

/// One content of a slot. Two replicas that hold the same share it.
#[derive(Debug)]
struct Body {
    digest: Digest,
    time: GroupTime,
    operations: Rc<[u8]>,
}

/// A replica's log as its writes tell it.
#[derive(Debug, Default)]
struct Image {
    /// For each slot from 1 the index of its body.
    records: Vec<u8>,
    /// The last slot of each write that is not safe yet.
    unsynced: VecDeque<(WriteNumber, Slot)>,
    synced: Slot,
    /// The highest slot whose agreement was judged.
    judged: Slot,
}

/// A request that some client sent, under its session and number; an opening under no session and its token.
#[derive(Debug)]
struct Sent {
    operation: Rc<[u8]>,
    /// Highest slot answered to anyone before it was first sent (I4).
    floor: Slot,
    copies: u32,
    /// Copies refused as certainly not done.
    refused: u32,
    answered: bool,
}

/// A query that some client sent on one connection.
#[derive(Debug)]
struct Question {
    query: Rc<[u8]>,
    floor: Slot,
    stale: bool,
}

#[derive(Debug, Default)]
pub struct Judges {
    /// For each slot from 1 the bodies any replica wrote.
    bodies: Vec<Vec<Body>>,
    /// For each slot from 1 the body that was applied first.
    agreed: Vec<u8>,
    images: Vec<Image>,
    pub model: Model,
    sent: BTreeMap<(SessionId, u64), Sent>,
    questions: BTreeMap<(ClientId, u64), Question>,
    answered: Slot,
    /// How many disks must hold a slot before it is applied; 0 where the disk is not waited for.
    quorum: usize,
}

impl Judges {
    pub fn new(replicas: usize, waits_for_disk: bool) -> Judges {
        let images = (0..replicas).map(|_| Image::default()).collect();
        let quorum = if waits_for_disk { replicas / 2 + 1 } else { 0 };
        Judges { images, quorum, ..Judges::default() }
    }

    /// Highest slot whose content is agreed.
    pub fn agreed(&self) -> Slot {
        Slot(self.agreed.len() as u64)
    }

    fn body(&mut self, slot: Slot, digest: Digest, time: GroupTime, operations: &[u8]) -> u8 {
        let index = slot.0 as usize - 1;
        while self.bodies.len() <= index {
            self.bodies.push(Vec::new());
        }
        let bodies = &mut self.bodies[index];
        let same = |b: &Body| b.digest == digest && b.time == time && *b.operations == *operations;
        let known = bodies.iter().position(same).unwrap_or_else(|| {
            bodies.push(Body { digest, time, operations: operations.into() });
            bodies.len() - 1
        });
        known as u8
    }

    /// A replica wrote to its log.
    pub fn logged(
        &mut self,
        replica: usize,
        number: WriteNumber,
        segment: SegmentNumber,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), String> {
        let mut at = if offset == 0 { ftq::log::writer::SEGMENT_HEADER_BYTES } else { 0 };
        let mut last = None;
        while at < bytes.len() {
            let (_, view, taken) =
                record::decode(segment, &bytes[at..]).map_err(|e| format!("a record that is none was written: {e}"))?;
            at += taken;
            if view.record.mark {
                continue;
            }
            let slot = view.record.slot;
            self.hold(replica, slot, view.record.digest, view.record.time, view.operations)?;
            last = Some(slot);
        }
        if let Some(slot) = last {
            self.images[replica].unsynced.push_back((number, slot));
        }
        Ok(())
    }

    fn hold(&mut self, replica: usize, slot: Slot, digest: Digest, time: GroupTime, ops: &[u8]) -> Result<(), String> {
        let body = self.body(slot, digest, time, ops);
        let image = &mut self.images[replica];
        let index = slot.0 as usize - 1;
        if index > image.records.len() {
            return Err(format!("the log goes from slot {} to {slot}", image.records.len()));
        }
        if index < image.records.len() {
            if slot <= image.judged && image.records[index] != body {
                return Err(format!("I2: slot {slot} was applied here and is overwritten"));
            }
            image.records.truncate(index);
            image.synced = image.synced.min(Slot(slot.0 - 1));
        }
        image.records.push(body);
        Ok(())
    }

    /// A replica's writes up to this number are on its disk.
    pub fn synced(&mut self, replica: usize, number: WriteNumber) {
        let image = &mut self.images[replica];
        while let Some(&(write, slot)) = image.unsynced.front().filter(|&&(write, _)| write <= number) {
            image.synced = image.synced.max(slot);
            image.unsynced.pop_front();
            debug_assert!(write <= number);
        }
    }

    /// A replica comes back with this log.
    pub fn recovered(&mut self, replica: usize, log: &Replay<'_>) -> Result<(), String> {
        self.images[replica] = Image::default();
        for view in &log.records {
            self.hold(replica, view.record.slot, view.record.digest, view.record.time, view.operations)?;
        }
        let image = &mut self.images[replica];
        image.synced = Slot(image.records.len() as u64);
        Ok(())
    }

    /// What a replica says of itself after a step: it has applied up to `applied`, with this digest.
    pub fn applied(&mut self, replica: usize, applied: Slot, digest: Digest) -> Result<(), String> {
        while self.images[replica].judged < applied {
            let slot = self.images[replica].judged.next();
            let index = slot.0 as usize - 1;
            // What is applied may not be logged here yet, where others hold it: it is judged as soon as it is.
            let Some(&body) = self.images[replica].records.get(index) else { break };
            if index == self.agreed.len() {
                self.agree(slot, body)?;
            }
            if self.agreed[index] != body {
                return Err(format!("I1: slot {slot} was applied with another content elsewhere"));
            }
            self.images[replica].judged = slot;
            if slot == applied && self.bodies[index][usize::from(body)].digest != digest {
                return Err(format!("I1: the digest at slot {slot} is not that of the operations logged for it"));
            }
        }
        Ok(())
    }

    /// A slot is applied for the first time anywhere.
    fn agree(&mut self, slot: Slot, body: u8) -> Result<(), String> {
        let durable = self.images.iter().filter(|i| i.synced >= slot && i.records[slot.0 as usize - 1] == body).count();
        if durable < self.quorum {
            return Err(format!("I2: slot {slot} was applied while only {durable} disks hold it"));
        }
        let before = match self.agreed.last() {
            Some(&last) => self.bodies[slot.0 as usize - 2][usize::from(last)].digest,
            None => Digest(0),
        };
        self.agreed.push(body);
        let Body { digest, time, operations } = &self.bodies[slot.0 as usize - 1][usize::from(body)];
        if slot_digest(before, slot, *time, &[operations]) != *digest {
            return Err(format!("I1: the digest at slot {slot} does not follow from the one before"));
        }
        if let [.., previous] = &self.agreed[..self.agreed.len() - 1] {
            if self.bodies[slot.0 as usize - 2][usize::from(*previous)].time > *time {
                return Err(format!("7.3: group time runs back at slot {slot}"));
            }
        }
        let sent = &self.sent;
        self.model.apply(slot, before, *time, operations, |ordered| {
            let request = sent.get(&(ordered.session, ordered.number));
            match request.filter(|sent| *sent.operation == *ordered.operation) {
                None => Err(format!(
                    "I8: slot {slot} holds {} of session {}, which no client sent: {}",
                    ordered.number,
                    ordered.session,
                    brief(&format!("{:?}", ordered.operation))
                )),
                Some(sent) if ordered.executed && sent.floor >= slot => Err(format!(
                    "I4: {} of session {} has slot {slot}, though slot {} was answered before it was sent",
                    ordered.number, ordered.session, sent.floor
                )),
                Some(sent) if ordered.executed && sent.refused >= sent.copies => {
                    Err(format!("{} of session {} was refused as not done", ordered.number, ordered.session))
                }
                Some(_) => Ok(()),
            }
        })
    }

    /// A client sends a request, or sends it again.
    pub fn sends(&mut self, session: SessionId, number: u64, operation: &Rc<[u8]>) {
        let floor = self.answered;
        let fresh = Sent { operation: operation.clone(), floor, copies: 0, refused: 0, answered: false };
        self.sent.entry((session, number)).or_insert(fresh).copies += 1;
    }

    /// A client asks.
    pub fn asks(&mut self, client: ClientId, number: u64, query: &Rc<[u8]>, stale: bool) {
        let question = Question { query: query.clone(), floor: self.answered, stale };
        // Asked again on one connection, the earlier copy may be the one that is answered.
        self.questions.entry((client, number)).or_insert(question);
    }

    /// A replica turns a request away.
    pub fn refuses(&mut self, session: SessionId, number: u64, maybe_done: bool) -> Result<(), String> {
        let Some(sent) = self.sent.get_mut(&(session, number)) else {
            return Err(format!("{number} of session {session} is refused, which nobody sent"));
        };
        if !maybe_done {
            sent.refused += 1;
            if sent.refused >= sent.copies && self.model.executed(session, number).is_some() {
                return Err(format!("{number} of session {session} is refused as not done, and was done"));
            }
        }
        Ok(())
    }

    /// A replica answers a request. Judged when it is said, whoever may hear it. True where it was answered before.
    pub fn replies(&mut self, session: SessionId, number: u64, slot: Slot, answer: &[u8]) -> Result<bool, String> {
        if slot > self.agreed() {
            return Err(format!("I2: slot {slot} is answered and not agreed"));
        }
        self.model.judge_reply(session, number, slot, answer).map_err(|e| format!("I3: {e}"))?;
        let sent = self.sent.get_mut(&(session, number));
        Ok(sent.is_some_and(|sent| std::mem::replace(&mut sent.answered, true)))
    }

    /// A replica says which session a token opened.
    pub fn opened(&self, token: u64, session: SessionId) -> Result<(), String> {
        if self.model.opened(token, session) {
            Ok(())
        } else {
            Err(format!("I3: token {token:x} did not open session {session}"))
        }
    }

    /// A replica answers a query.
    pub fn finds(&self, client: ClientId, number: u64, slot: Slot, answer: &[u8]) -> Result<(), String> {
        let Some(question) = self.questions.get(&(client, number)) else {
            return Err(format!("I3: query {number} is answered, which nobody asked"));
        };
        if slot > self.agreed() {
            return Err(format!("I2: a read shows slot {slot}, which is not agreed"));
        }
        if !question.stale && slot < question.floor {
            return Err(format!("I4: a read shows slot {slot}, though slot {} was answered before", question.floor));
        }
        let expected = self.model.find(slot, &question.query);
        if expected.allows(answer) {
            return Ok(());
        }
        let (expected, found) = (brief(&format!("{expected:?}")), brief(&format!("{answer:?}")));
        Err(format!("I4: a read at slot {slot}: expected {expected}, found {found}"))
    }

    /// A client hears an answer: whatever is sent from now on comes after it.
    pub fn hears(&mut self, slot: Slot) {
        self.answered = self.answered.max(slot);
    }

    /// How many of these logs, read from the disks themselves, hold the agreed content of every slot that was
    /// answered: each must be in more than half, and none may contradict what was agreed.
    pub fn disks(&self, logs: &[Replay<'_>]) -> Result<(), String> {
        for log in logs {
            for view in &log.records {
                let index = view.record.slot.0 as usize - 1;
                let agreed = self.agreed.get(index).map(|&body| &self.bodies[index][usize::from(body)]);
                let same = |b: &Body| b.digest == view.record.digest && *b.operations == *view.operations;
                if agreed.is_some_and(|body| !same(body)) {
                    return Err(format!("I1: a disk holds another slot {} than was applied", view.record.slot));
                }
            }
        }
        let mut ends: Vec<u64> = logs.iter().map(|log| log.records.len() as u64).collect();
        ends.sort_unstable_by_key(|&end| std::cmp::Reverse(end));
        let held = self.quorum.checked_sub(1).map_or(u64::MAX, |index| ends[index]);
        if held < self.agreed().0 {
            return Err(format!(
                "I2: slot {} was applied, and more than half of the disks end at {held}",
                self.agreed()
            ));
        }
        Ok(())
    }
}
