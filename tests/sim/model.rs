//! An independent, naive model of sessions and queues. It executes the agreed order and knows what every answer must
//! be. A queue is the list of all items ever pushed and, for each slot that changed it, which part of that list was
//! in the queue: so a read is judged by the state at the very slot it names.

use std::collections::BTreeMap;

use ftq::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, SESSION_GRACE_NS, SESSION_WINDOW};
use ftq::types::{Digest, GroupTime, SessionId, Slot};
use ftq::wire::answer::{split, Code};
use ftq::wire::bundle::Bundle;
use ftq::wire::codec::{varint_len, Put, Reader};
use ftq::wire::operation::{service, QueueOperation, QueueQuery, QueueRow, SessionOperation, Target};

/// What an answer must be. Of an error only the code is promised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    Ok(Vec<u8>),
    Error(Code),
}

impl Expected {
    pub fn allows(&self, answer: &[u8]) -> bool {
        match (self, split(answer)) {
            (Expected::Ok(fields), Ok((Code::Ok, rest))) => fields == rest,
            (Expected::Error(code), Ok((found, _))) => *code == found,
            _ => false,
        }
    }

    fn nothing() -> Expected {
        Expected::Ok(Vec::new())
    }

    fn number(value: u64) -> Expected {
        let mut fields = Vec::new();
        fields.put_varint(value);
        Expected::Ok(fields)
    }
}

#[derive(Debug)]
struct Queue {
    id: u64,
    label: String,
    created: Slot,
    destroyed: Option<Slot>,
    items: Vec<(GroupTime, Vec<u8>)>,
    /// From this slot on the queue holds `items[head..tail]`.
    states: Vec<(Slot, usize, usize)>,
}

impl Queue {
    fn exists_at(&self, slot: Slot) -> bool {
        self.created <= slot && self.destroyed.is_none_or(|gone| gone > slot)
    }

    fn held_at(&self, slot: Slot) -> (usize, usize) {
        let later = self.states.partition_point(|&(from, ..)| from <= slot);
        let (_, head, tail) = self.states[later - 1];
        (head, tail)
    }

    fn hold(&mut self, slot: Slot, head: usize, tail: usize) {
        match self.states.last_mut() {
            Some(last) if last.0 == slot => (last.1, last.2) = (head, tail),
            _ => self.states.push((slot, head, tail)),
        }
    }

    /// The answer to a pop or peek of so many, and how many that is.
    fn front(&self, count: usize, (head, tail): (usize, usize)) -> (Expected, usize) {
        if head == tail {
            return (Expected::Error(Code::Empty), 0);
        }
        let (mut fields, mut bytes, mut taken) = (Vec::new(), 0, 0);
        for (_, item) in &self.items[head..tail] {
            bytes += varint_len(item.len() as u64) + item.len();
            if taken == count || taken > 0 && bytes > BATCH_BYTES_MAX {
                break;
            }
            taken += 1;
        }
        fields.put_varint(taken as u64);
        self.items[head..head + taken].iter().for_each(|(_, item)| fields.put_bytes(item));
        (Expected::Ok(fields), taken)
    }
}

#[derive(Debug, Default)]
struct Session {
    seen: u64,
    executed: BTreeMap<u64, (Slot, Expected)>,
    ended: Option<Slot>,
    /// The name of the latest attach, and when the session ends if that connection is lost. No run takes as long as a
    /// session may be idle.
    attach: u64,
    ends_at: Option<GroupTime>,
}

#[derive(Debug, Default)]
pub struct Model {
    sessions: BTreeMap<SessionId, Session>,
    /// What each token opened, and where.
    openings: BTreeMap<u64, Vec<SessionId>>,
    queues: Vec<Queue>,
    /// The time of each slot, from slot 1.
    times: Vec<GroupTime>,
}

/// One request as it stands in the order.
pub struct Ordered<'a> {
    pub session: SessionId,
    pub number: u64,
    pub operation: &'a [u8],
    /// False for a copy of what was executed before, or may not be executed.
    pub executed: bool,
}

impl Model {
    /// Executes a slot; `digest` is the history's before it. `each` is shown every request in turn.
    pub fn apply(
        &mut self,
        slot: Slot,
        digest: Digest,
        time: GroupTime,
        operations: &[u8],
        mut each: impl FnMut(Ordered<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let now = self.times.last().map_or(time, |&last| last.max(time));
        self.times.push(now);
        for session in self.sessions.values_mut().filter(|s| s.ended.is_none()) {
            session.ended = session.ends_at.filter(|&at| at <= now).map(|_| slot);
        }
        let (mut r, mut position) = (Reader::new(operations), 0);
        while !r.is_empty() {
            let bundle = Bundle::decode(&mut r).map_err(|e| format!("slot {slot} holds no bundles: {e}"))?;
            if let Some(session) = self.sessions.get_mut(&bundle.session) {
                session.ends_at = None;
            }
            for (number, operation) in bundle.operations() {
                if bundle.session.is_none() && self.attend(now, number.0, operation) {
                    position += 1;
                    continue;
                }
                let id = SessionId { slot, position, digest: digest.0 };
                let seen = bundle.seen.0.min(number.0.saturating_sub(1));
                let executed = if bundle.session.is_none() {
                    self.open(id, number.0, operation)
                } else {
                    self.request(slot, bundle.session, seen, number.0, operation)
                };
                each(Ordered { session: bundle.session, number: number.0, operation, executed })?;
                position += 1;
            }
            if let Some(session) = self.sessions.get_mut(&bundle.session) {
                session.seen = session.seen.max(bundle.seen.0);
            }
        }
        Ok(())
    }

    /// What a replica says of connections; true if it is that.
    fn attend(&mut self, now: GroupTime, number: u64, operation: &[u8]) -> bool {
        let Some(fields) = operation.strip_prefix(&[service::SESSION]) else { return false };
        match SessionOperation::decode(fields) {
            Ok(SessionOperation::Attach { session, .. }) => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    (session.attach, session.ends_at) = (number, None);
                }
            }
            Ok(SessionOperation::Detach { session }) => {
                let session = self.sessions.get_mut(&session).filter(|s| s.attach == number && s.ends_at.is_none());
                if let Some(session) = session {
                    session.ends_at = Some(GroupTime(now.0 + SESSION_GRACE_NS));
                }
            }
            Ok(SessionOperation::Connected { sessions }) => {
                let ids: Vec<SessionId> = sessions.iter().collect();
                self.sessions.iter_mut().filter(|(id, _)| ids.contains(id)).for_each(|(_, s)| s.ends_at = None);
            }
            _ => return false,
        }
        true
    }

    fn open(&mut self, id: SessionId, token: u64, operation: &[u8]) -> bool {
        let opens = operation.first() == Some(&service::SESSION)
            && SessionOperation::decode(&operation[1..]) == Ok(SessionOperation::Open);
        if opens {
            self.sessions.insert(id, Session { attach: token, ..Session::default() });
            self.openings.entry(token).or_default().push(id);
        }
        opens
    }

    fn request(&mut self, slot: Slot, id: SessionId, seen: u64, number: u64, operation: &[u8]) -> bool {
        let Some(session) = self.sessions.get_mut(&id).filter(|s| s.ended.is_none()) else { return false };
        session.seen = session.seen.max(seen);
        let known = session.executed.contains_key(&number);
        if known || number <= session.seen || number > session.seen + SESSION_WINDOW {
            return false;
        }
        let expected = match operation.split_first() {
            Some((&service::QUEUE, fields)) => self.execute(slot, fields),
            Some((&service::SESSION, [2])) => {
                session.ended = Some(slot);
                Expected::nothing()
            }
            _ => Expected::Error(Code::BadRequest),
        };
        let session = self.sessions.get_mut(&id).expect("it was there a moment ago");
        session.executed.insert(number, (slot, expected));
        true
    }

    fn target(&self, slot: Slot, target: Target<'_>) -> Option<usize> {
        let wanted = |queue: &Queue| match target {
            Target::Id(id) => queue.id == id,
            Target::Label(label) => queue.label == label,
        };
        self.queues.iter().position(|queue| queue.exists_at(slot) && wanted(queue))
    }

    fn create(&mut self, slot: Slot, label: &str) -> usize {
        self.target(slot, Target::Label(label)).unwrap_or_else(|| {
            let id = self.queues.len() as u64 + 1;
            let states = vec![(slot, 0, 0)];
            let label = label.to_owned();
            self.queues.push(Queue { id, label, created: slot, destroyed: None, items: Vec::new(), states });
            self.queues.len() - 1
        })
    }

    fn execute(&mut self, slot: Slot, fields: &[u8]) -> Expected {
        let Ok(operation) = QueueOperation::decode(fields) else { return Expected::Error(Code::BadRequest) };
        let now = *self.times.last().expect("a slot is being applied");
        let (target, count) = match operation {
            QueueOperation::Create { label } => (Some(self.create(slot, label)), 1),
            QueueOperation::Push { target: Target::Label(label), .. } => (Some(self.create(slot, label)), 1),
            QueueOperation::Pop { target, count } => (self.target(slot, target), count),
            QueueOperation::Destroy { target }
            | QueueOperation::Purge { target }
            | QueueOperation::Push { target, .. } => (self.target(slot, target), 1),
        };
        if count == 0 {
            return Expected::Error(Code::BadRequest);
        }
        let Some(index) = target else { return Expected::Error(Code::NoQueue) };
        let queue = &mut self.queues[index];
        let (head, tail) = queue.held_at(slot);
        match operation {
            QueueOperation::Create { .. } => Expected::number(queue.id),
            QueueOperation::Destroy { .. } => {
                queue.destroyed = Some(slot);
                Expected::nothing()
            }
            QueueOperation::Push { items, .. } => {
                queue.items.extend(items.iter().map(|item| (now, item.to_vec())));
                queue.hold(slot, head, tail + items.len());
                Expected::nothing()
            }
            QueueOperation::Pop { .. } => {
                let (expected, taken) = queue.front(count, (head, tail));
                queue.hold(slot, head + taken, tail);
                expected
            }
            QueueOperation::Purge { .. } => {
                queue.hold(slot, tail, tail);
                Expected::number((tail - head) as u64)
            }
        }
    }

    /// What a query must find in the state after `slot`.
    pub fn find(&self, slot: Slot, query: &[u8]) -> Expected {
        let Some((&service::QUEUE, fields)) = query.split_first() else { return Expected::Error(Code::BadRequest) };
        let Ok(query) = QueueQuery::decode(fields) else { return Expected::Error(Code::BadRequest) };
        let (target, count) = match query {
            QueueQuery::Id { label } => (Target::Label(label), 1),
            QueueQuery::Peek { target, count } => (target, count),
            QueueQuery::Size { target } => (target, 1),
            QueueQuery::List { after } => return self.list(slot, after),
        };
        if count == 0 {
            return Expected::Error(Code::BadRequest);
        }
        let Some(queue) = self.target(slot, target).map(|index| &self.queues[index]) else {
            let asks_for_the_id = matches!(query, QueueQuery::Id { .. });
            return if asks_for_the_id { Expected::number(0) } else { Expected::Error(Code::NoQueue) };
        };
        let (head, tail) = queue.held_at(slot);
        match query {
            QueueQuery::Id { .. } => Expected::number(queue.id),
            QueueQuery::Peek { .. } => queue.front(count, (head, tail)).0,
            _ => Expected::number((tail - head) as u64),
        }
    }

    fn list(&self, slot: Slot, after: &str) -> Expected {
        let now = slot.0.checked_sub(1).map_or(GroupTime(0), |index| self.times[index as usize]);
        let mut rows: Vec<&Queue> =
            self.queues.iter().filter(|queue| queue.exists_at(slot) && queue.label.as_str() > after).collect();
        rows.sort_by(|a, b| a.label.cmp(&b.label));
        let mut fields = Vec::new();
        for queue in rows.into_iter().take(BATCH_ITEMS_MAX) {
            let (head, tail) = queue.held_at(slot);
            let oldest = queue.items[head..tail].first().map_or(now, |&(time, _)| time);
            let row = QueueRow {
                label: &queue.label,
                id: queue.id,
                size: (tail - head) as u64,
                leased: 0,
                delayed: 0,
                waiters: 0,
                bytes: queue.items[head..tail].iter().map(|(_, item)| item.len() as u64).sum(),
                oldest_ms: (now.0 - oldest.0) / 1_000_000,
            };
            row.encode(&mut fields);
        }
        Expected::Ok(fields)
    }

    /// Whether this answer to a request, executed at the slot it names, is the right one.
    pub fn judge_reply(&self, id: SessionId, number: u64, slot: Slot, answer: &[u8]) -> Result<(), String> {
        let code = split(answer).map_err(|e| format!("an answer that is none: {e}"))?.0;
        let session = self.sessions.get(&id);
        let gone = session.is_none_or(|s| s.ended.is_some_and(|ended| ended <= slot));
        match session.and_then(|s| s.executed.get(&number)) {
            _ if gone && code == Code::Expired => Ok(()),
            None if code == Code::BadRequest => Ok(()),
            None => Err(format!("session {id} got an answer to {number}, which was never executed: {code:?}")),
            Some((executed, _)) if *executed != slot => {
                Err(format!("{number} of session {id} was executed at slot {executed}, the answer says {slot}"))
            }
            Some((_, expected)) if expected.allows(answer) => Ok(()),
            Some((_, expected)) => Err(format!(
                "{number} of session {id} at slot {slot}: expected {}, answered {}",
                brief(&format!("{expected:?}")),
                brief(&format!("{answer:?}"))
            )),
        }
    }

    /// Whether this token opened this session.
    pub fn opened(&self, token: u64, id: SessionId) -> bool {
        self.openings.get(&token).is_some_and(|ids| ids.contains(&id))
    }

    /// Where a request was executed, if it was.
    pub fn executed(&self, id: SessionId, number: u64) -> Option<Slot> {
        self.sessions.get(&id)?.executed.get(&number).map(|&(slot, _)| slot)
    }
}

/// The beginning of a long text.
pub fn brief(text: &str) -> String {
    if text.len() <= 200 {
        return text.to_owned();
    }
    let end = (0..=200).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}... ({} in all)", &text[..end], text.len())
}
