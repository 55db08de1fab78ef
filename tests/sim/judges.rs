//! The judges of what is agreed and answered: I1 to I4, I6 and I8, each at the event where it can break. The views (I5)
//! are judged in `chain`, what is on the wire (I7, I10) in `wiretap`, that everything ends (I9) in `healing`.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use ftq::log::{record, Meta, MetaWrite, RecordView, Replay, SegmentNumber, Snapshot};
use ftq::types::{ClientId, Digest, GroupTime, SessionId, Slot, WriteNumber};
use ftq::wire::change::ChangeFrame;
use ftq::wire::digest::slot_digest;
use ftq::wire::view::View;

use super::chain::{commit_count, Chain, Set};
use super::heights::Height;
use super::model::{brief, Model};

/// One content of a slot. Two replicas that hold the same share it.
#[derive(Debug)]
struct Body {
    digest: Digest,
    time: GroupTime,
    operations: Rc<[u8]>,
    /// Who ever held it durably.
    held: Set,
}

/// A record of a replica's log.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The index of its body.
    body: u8,
    epoch: u64,
}

/// A replica's log as its writes tell it.
#[derive(Debug, Default)]
struct Image {
    /// The slot before the first record.
    first: u64,
    records: Vec<Held>,
    /// The last slot of each write that is not safe yet.
    unsynced: VecDeque<(WriteNumber, Slot)>,
    synced: Slot,
    /// The highest slot whose agreement was judged.
    judged: Slot,
}

impl Image {
    /// Nothing is in the log; what was up to here was before the run.
    fn behind(slot: Slot) -> Image {
        Image { first: slot.0, synced: slot, judged: slot, ..Image::default() }
    }

    fn at(&self, slot: Slot) -> Option<Held> {
        let index = slot.0.checked_sub(self.first + 1)?;
        self.records.get(index as usize).copied()
    }

    /// Nothing behind this slot is in the log.
    fn cut(&mut self, last: Slot) {
        self.records.truncate((last.0 - self.first) as usize);
        self.synced = self.synced.min(last);
        // What was written before and is not safe yet does not make what replaces it safe.
        self.unsynced.iter_mut().for_each(|(_, upto)| *upto = (*upto).min(last));
    }

    fn end(&self) -> Slot {
        Slot(self.first + self.records.len() as u64)
    }
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

#[derive(Debug)]
pub struct Judges {
    /// Where the group stood when the run began.
    origin: Height,
    /// For each slot behind that the bodies any replica wrote.
    bodies: Vec<Vec<Body>>,
    /// For each of them the body that was applied first.
    agreed: Vec<u8>,
    images: Vec<Image>,
    pub model: Model,
    sent: BTreeMap<(SessionId, u64), Sent>,
    questions: BTreeMap<(ClientId, u64), Question>,
    answered: Slot,
    /// A slot must be on enough disks before it is applied.
    waits_for_disk: bool,
    pub chain: Chain,
}

impl Judges {
    pub fn new(replicas: usize, waits_for_disk: bool, origin: Height) -> Judges {
        let images = (0..replicas).map(|_| Image::behind(origin.slot)).collect();
        Judges {
            origin,
            bodies: Vec::new(),
            agreed: Vec::new(),
            images,
            model: Model::default(),
            sent: BTreeMap::new(),
            questions: BTreeMap::new(),
            answered: Slot(0),
            waits_for_disk,
            chain: Chain::new(replicas),
        }
    }

    /// Highest slot whose content is agreed.
    pub fn agreed(&self) -> Slot {
        Slot(self.origin.slot.0 + self.agreed.len() as u64)
    }

    /// Where `bodies` has this slot. Panics for one before the run: nobody logs any.
    fn index(&self, slot: Slot) -> usize {
        self.origin.index(slot).expect("a slot of this run")
    }

    fn body(&mut self, slot: Slot, digest: Digest, time: GroupTime, operations: &[u8]) -> u8 {
        let index = self.index(slot);
        while self.bodies.len() <= index {
            self.bodies.push(Vec::new());
        }
        let bodies = &mut self.bodies[index];
        let same = |b: &Body| b.digest == digest && b.time == time && *b.operations == *operations;
        let known = bodies.iter().position(same).unwrap_or_else(|| {
            bodies.push(Body { digest, time, operations: operations.into(), held: 0 });
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
        applied: Slot,
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
            self.hold(replica, &view, applied)?;
            last = Some(slot);
        }
        if let Some(slot) = last {
            self.images[replica].unsynced.push_back((number, slot));
        }
        Ok(())
    }

    fn hold(&mut self, replica: usize, view: &RecordView<'_>, applied: Slot) -> Result<(), String> {
        let (slot, record) = (view.record.slot, &view.record);
        let held = Held { body: self.body(slot, record.digest, record.time, view.operations), epoch: record.epoch.0 };
        let image = &mut self.images[replica];
        // A snapshot may have brought it beyond the end of its log.
        let jumps = slot > image.end().next() && applied.next() >= slot;
        if image.records.is_empty() || jumps {
            image.records.clear();
            image.first = slot.0 - 1;
            image.synced = Slot(image.first);
        }
        if slot > image.end().next() || slot.0 <= image.first {
            return Err(format!("the log goes from slot {} to {slot}", image.end()));
        }
        if let Some(old) = image.at(slot) {
            if slot <= image.judged && old.body != held.body {
                return Err(format!("I2: slot {slot} was applied here and is overwritten"));
            }
            image.cut(Slot(slot.0 - 1));
        }
        image.records.push(held);
        Ok(())
    }

    /// A replica's writes up to this number are on its disk.
    pub fn synced(&mut self, replica: usize, number: WriteNumber) -> Result<(), String> {
        self.chain.synced(replica, number)?;
        let before = self.images[replica].synced;
        let image = &mut self.images[replica];
        while let Some(&(write, slot)) = image.unsynced.front().filter(|&&(write, _)| write <= number) {
            image.synced = image.synced.max(slot);
            image.unsynced.pop_front();
            assert!(write <= number);
        }
        self.now_held(replica, before);
        Ok(())
    }

    /// What lies behind `before` has become safe at this replica.
    fn now_held(&mut self, replica: usize, before: Slot) {
        for slot in before.0 + 1..=self.images[replica].synced.0 {
            let held = self.images[replica].at(Slot(slot)).expect("what is synced was logged");
            let index = self.index(Slot(slot));
            self.bodies[index][usize::from(held.body)].held |= 1 << replica;
        }
    }

    /// A replica comes back with this log.
    pub fn recovered(&mut self, replica: usize, log: &Replay<'_>, meta: Option<&Meta>) -> Result<(), String> {
        self.chain.recovered(replica, meta)?;
        self.images[replica] = Image::behind(self.origin.slot);
        for view in &log.records {
            self.hold(replica, view, Slot(0))?;
        }
        let agreed = self.agreed();
        let image = &mut self.images[replica];
        let first = Slot(image.first);
        image.synced = image.end();
        // What a snapshot stands for was applied before; what follows may be applied here for the first time anywhere.
        image.judged = first.min(agreed);
        self.now_held(replica, first);
        Ok(())
    }

    /// A replica wrote to `meta`.
    pub fn wrote_meta(&mut self, replica: usize, write: &MetaWrite) -> Result<(), String> {
        let meta = Meta::choose(&write.bytes).map_err(|e| format!("a meta that is none was written: {e}"))?;
        let meta = meta.ok_or("an empty meta was written")?;
        if let Some((_, value)) = &meta.accepted {
            self.chain.proposed(value);
        }
        let fresh = self.chain.wrote(replica, write.number, meta)?;
        fresh.iter().try_for_each(|view| self.judge_base(view))
    }

    /// A replica says this to another.
    pub fn says(&mut self, replica: usize, frame: &ChangeFrame) -> Result<(), String> {
        match frame {
            ChangeFrame::Accept { value, .. } => self.chain.proposed(value),
            ChangeFrame::Install { view } if self.chain.decided(view)? => self.judge_base(view)?,
            ChangeFrame::Ready { base, .. } => {
                let image = &self.images[replica];
                let (safe, slot) = (image.synced.0.max(image.first), base.slot);
                if self.waits_for_disk && safe < slot.0 && image.judged < slot {
                    return Err(format!("5.3: replica {} is READY at slot {slot}, durable is {safe}", replica + 1));
                }
            }
            _ => {}
        }
        self.chain.says(replica, frame)
    }

    /// The view begins behind everything that was ever applied (I2), and with that very history (I1).
    fn judge_base(&self, view: &View) -> Result<(), String> {
        if view.base < self.agreed() {
            let (agreed, epoch) = (self.agreed(), view.epoch);
            return Err(format!("I2: slot {agreed} was applied, and view {epoch} begins behind slot {}", view.base));
        }
        let at_base = self.digest_at(view.base);
        if at_base.is_some_and(|digest| digest != view.base_digest) {
            return Err(format!("I1: view {} begins with another history than was applied", view.epoch));
        }
        Ok(())
    }

    /// The digest of the agreed history up to this slot.
    fn digest_at(&self, slot: Slot) -> Option<Digest> {
        if slot == self.origin.slot {
            return Some(self.origin.digest);
        }
        let index = self.origin.index(slot)?;
        let body = *self.agreed.get(index)?;
        Some(self.bodies[index][usize::from(body)].digest)
    }

    /// What a replica says of itself after a step: it has applied up to `applied`, with this digest.
    pub fn applied(&mut self, replica: usize, applied: Slot, digest: Digest) -> Result<(), String> {
        while self.images[replica].judged < applied {
            let slot = self.images[replica].judged.next();
            let index = self.index(slot);
            let Some(held) = self.images[replica].at(slot) else {
                // What is applied may not be logged here yet, or came as a snapshot: it is judged by its digest.
                if self.digest_at(applied) == Some(digest) {
                    self.images[replica].judged = applied;
                } else if applied <= self.agreed() {
                    return Err(format!("I1: slot {applied} is applied with another history than elsewhere"));
                }
                break;
            };
            if index == self.agreed.len() {
                self.agree(slot, held)?;
            }
            if self.agreed[index] != held.body {
                let at_applied = self.digest_at(applied);
                // A record that a view denied, where the log was cut and a whole state taken over.
                if at_applied == Some(digest) {
                    let image = &mut self.images[replica];
                    image.cut(Slot(slot.0 - 1));
                    image.judged = applied;
                    break;
                }
                return Err(format!("I1: slot {slot} was applied with another content elsewhere"));
            }
            self.images[replica].judged = slot;
            if slot == applied && self.bodies[index][usize::from(held.body)].digest != digest {
                return Err(format!("I1: the digest at slot {slot} is not that of the operations logged for it"));
            }
        }
        Ok(())
    }

    /// A replica that orders in a view has applied all of the former one: with I1 and I5 the same slots as every other
    /// member that came along (I6).
    pub fn orders_in(&self, replica: usize, view: &View, applied: Slot) -> Result<(), String> {
        if applied < view.base {
            let (replica, epoch, base) = (replica + 1, view.epoch, view.base);
            return Err(format!("I6: replica {replica} orders in view {epoch} from slot {base}, applied is {applied}"));
        }
        Ok(())
    }

    /// A slot may be applied once enough members of its view have held it durably, or all members of a later view did
    /// before that was decided; and never beyond where a later view begins (I5, I6).
    fn judge_committed(&self, slot: Slot, held: Held) -> Result<(), String> {
        if let Some(view) = self.chain.after(held.epoch).find(|view| view.base < slot) {
            let (epoch, base) = (view.epoch, view.base);
            return Err(format!(
                "I5: slot {slot} of epoch {} is applied, and view {epoch} begins behind slot {base}",
                held.epoch
            ));
        }
        let Some(view) = self.chain.view(held.epoch) else {
            return Err(format!("I5: slot {slot} is of epoch {}, which has no view", held.epoch));
        };
        if !self.waits_for_disk || self.chain.after(held.epoch).next().is_some() {
            return Ok(());
        }
        let on = self.bodies[self.index(slot)][usize::from(held.body)].held;
        let durable = view.members.iter().filter(|m| on >> (m.id.0 - 1) & 1 == 1).count();
        if durable < commit_count(view) {
            return Err(format!("I2: slot {slot} was applied while only {durable} disks hold it"));
        }
        Ok(())
    }

    /// A slot is applied for the first time anywhere.
    fn agree(&mut self, slot: Slot, held: Held) -> Result<(), String> {
        self.judge_committed(slot, held)?;
        let before = self.digest_at(Slot(slot.0 - 1)).expect("all slots before are agreed");
        self.agreed.push(held.body);
        let Body { digest, time, operations, .. } = &self.bodies[self.index(slot)][usize::from(held.body)];
        if slot_digest(before, slot, *time, &[operations]) != *digest {
            return Err(format!("I1: the digest at slot {slot} does not follow from the one before"));
        }
        if let [.., previous] = &self.agreed[..self.agreed.len() - 1] {
            if self.bodies[self.index(slot) - 1][usize::from(*previous)].time > *time {
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

    /// What a log, read from the disk itself, says of slots that it knows to be committed: it must be what was agreed.
    /// A log that was left for another replica's state has no record of that state's slot and digest, or goes on with
    /// one that does not follow; what lies below is void.
    pub fn disk(&self, log: &Replay<'_>, newest: Option<&Snapshot>) -> Result<(), String> {
        let leads_to =
            |s: &&Snapshot| log.records.iter().any(|r| (r.record.slot, r.record.digest) == (s.slot, s.digest));
        let left_at = log.records.windows(2).rev().find(|pair| !pair[1].follows(pair[0].record.digest));
        let left_at = left_at.map_or(Slot(0), |pair| pair[0].record.slot);
        let void_through = newest.filter(|s| !leads_to(s)).map_or(left_at, |s| s.slot.max(left_at));
        let committed = log.records.iter().take_while(|view| view.record.slot <= log.committed);
        for view in committed.filter(|view| view.record.slot > void_through) {
            let index = self.index(view.record.slot);
            let agreed = self.agreed.get(index).map(|&body| &self.bodies[index][usize::from(body)]);
            let same = |b: &Body| b.digest == view.record.digest && *b.operations == *view.operations;
            if agreed.is_some_and(|body| !same(body)) {
                return Err(format!("I1: a disk holds another slot {} than was applied", view.record.slot));
            }
        }
        Ok(())
    }
}
