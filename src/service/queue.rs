//! The queue: labels, ids, and items in the order of their pushes.
//!
//! Ids are counted and never used again; a label names at most one queue at a time. An item may be any bytes: what
//! went wrong is told by the answer's code, never by an item. Queues lie by id, labels point at ids, and what lies
//! ready in a queue is one [`Fifo`]: beside it is room for other places an item may be in.

use super::fifo::Fifo;
use super::graveyard::Graveyard;
use super::{Answers, Service, Who};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, LABEL_BYTES_MAX};
use crate::types::{At, GroupTime, SessionId};
use crate::wire::answer::{error, Code};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::operation::{is_label, QueueOperation, QueueQuery, QueueRow, Target};
use std::collections::BTreeMap;
use std::ops::Bound;

const SNAPSHOT_VERSION: u8 = 1;
/// Bytes a queue takes without items and beside twice its label: it is in two maps.
const QUEUE_OVERHEAD: u64 = 256;
/// How long after the last slot the next part of what was dropped is freed.
const FREE_PAUSE_NS: u64 = 1_000_000;

/// Names a queue for ever: a counter's value from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct QueueId(pub u64);

#[derive(Debug)]
struct Queue {
    label: Box<str>,
    ready: Fifo,
}

impl Queue {
    fn memory_bytes(&self) -> u64 {
        QUEUE_OVERHEAD + 2 * self.label.len() as u64 + self.ready.memory_bytes()
    }
}

/// All queues.
#[derive(Default, Debug)]
pub struct Queues {
    labels: BTreeMap<Box<str>, QueueId>,
    queues: BTreeMap<QueueId, Queue>,
    /// The greatest id ever given.
    last_id: QueueId,
    /// The last slot's time; ages are counted to it.
    now: GroupTime,
    graveyard: Graveyard,
    /// Of all queues together.
    memory: u64,
}

/// Why an operation was not done.
struct Refusal {
    code: Code,
    message: String,
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        Refusal { code: Code::BadRequest, message: error.to_string() }
    }
}

fn no_queue(target: Target<'_>) -> Refusal {
    let message = match target {
        Target::Id(id) => format!("no queue has the id {id}"),
        Target::Label(label) => format!("no queue is labelled {label}"),
    };
    Refusal { code: Code::NoQueue, message }
}

fn nothing_in(queue: &Queue) -> Refusal {
    Refusal { code: Code::Empty, message: format!("queue {} is empty", queue.label) }
}

/// A pop or peek of no item makes no sense, and would have no answer to tell it from an empty queue.
fn some(count: usize) -> Result<usize, Refusal> {
    if count > 0 {
        Ok(count)
    } else {
        Err(Refusal { code: Code::BadRequest, message: "a count must be at least 1".into() })
    }
}

fn refuse(answer: &mut Vec<u8>, refusal: &Refusal) {
    answer.extend_from_slice(&error(refusal.code, &refusal.message));
}

impl Queues {
    fn id(&self, target: Target<'_>) -> Result<QueueId, Refusal> {
        let id = match target {
            Target::Id(id) => Some(QueueId(id)).filter(|id| self.queues.contains_key(id)),
            Target::Label(label) => self.labels.get(label).copied(),
        };
        id.ok_or_else(|| no_queue(target))
    }

    fn queue(&self, target: Target<'_>) -> Result<&Queue, Refusal> {
        let id = match target {
            Target::Id(id) => Some(QueueId(id)),
            Target::Label(label) => self.labels.get(label).copied(),
        };
        id.and_then(|id| self.queues.get(&id)).ok_or_else(|| no_queue(target))
    }

    /// Changes a queue, and keeps count of the memory it takes.
    fn change<T>(&mut self, id: QueueId, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let queue = self.queues.get_mut(&id)?;
        let before = queue.ready.memory_bytes();
        let result = change(queue);
        self.memory = self.memory + queue.ready.memory_bytes() - before;
        Some(result)
    }

    fn create(&mut self, label: &str) -> QueueId {
        if let Some(&id) = self.labels.get(label) {
            return id;
        }
        self.last_id = QueueId(self.last_id.0 + 1);
        self.insert(self.last_id, Queue { label: label.into(), ready: Fifo::default() });
        self.last_id
    }

    fn insert(&mut self, id: QueueId, queue: Queue) {
        self.memory += queue.memory_bytes();
        self.labels.insert(queue.label.clone(), id);
        self.queues.insert(id, queue);
    }

    fn destroy(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.remove(&id) {
            self.memory -= queue.memory_bytes();
            self.labels.remove(&queue.label);
            self.graveyard.bury(queue.ready);
        }
    }

    /// Executes an operation; nothing is changed where it is refused.
    fn execute(&mut self, operation: QueueOperation<'_>, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        match operation {
            QueueOperation::Create { label } => {
                let id = self.create(label);
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(id.0);
            }
            QueueOperation::Destroy { target } => {
                let id = self.id(target)?;
                self.destroy(id);
                answer.put_u8(Code::Ok as u8);
            }
            QueueOperation::Push { target, items } => {
                let (now, id) = match target {
                    Target::Id(id) => (self.now, QueueId(id)),
                    Target::Label(label) => (self.now, self.create(label)),
                };
                let push = |queue: &mut Queue| items.iter().for_each(|item| queue.ready.push(now, item));
                self.change(id, push).ok_or_else(|| no_queue(target))?;
                answer.put_u8(Code::Ok as u8);
            }
            QueueOperation::Pop { target, count } => {
                let (count, id) = (some(count)?, self.id(target)?);
                self.change(id, |queue| pop(queue, count, answer)).ok_or_else(|| no_queue(target))??;
            }
            QueueOperation::Purge { target } => {
                let id = self.id(target)?;
                let purged = self.change(id, |queue| std::mem::take(&mut queue.ready)).unwrap_or_default();
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(purged.len());
                self.graveyard.bury(purged);
            }
        }
        Ok(())
    }

    fn find(&self, query: QueueQuery<'_>, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        match query {
            QueueQuery::Id { label } => {
                let id = self.id(Target::Label(label))?;
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(id.0);
            }
            QueueQuery::Peek { target, count } => {
                let (count, queue) = (some(count)?, self.queue(target)?);
                let fitting = batch(queue, count, answer)?;
                queue.ready.iter().take(fitting).for_each(|item| answer.extend_from_slice(item.framed));
            }
            QueueQuery::Size { target } => {
                let size = self.queue(target)?.ready.len();
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(size);
            }
            QueueQuery::List { after } => self.list(after, answer),
        }
        Ok(())
    }

    fn list(&self, after: &str, answer: &mut Vec<u8>) {
        answer.put_u8(Code::Ok as u8);
        let start = answer.len();
        let rows = self.labels.range::<str, _>((Bound::Excluded(after), Bound::Unbounded));
        for (label, id) in rows.take(BATCH_ITEMS_MAX) {
            let Some(queue) = self.queues.get(id) else { continue };
            let end = answer.len();
            self.row(label, *id, queue).encode(answer);
            if answer.len() - start > BATCH_BYTES_MAX {
                answer.truncate(end);
                break;
            }
        }
    }

    fn row<'a>(&self, label: &'a str, id: QueueId, queue: &Queue) -> QueueRow<'a> {
        let oldest = queue.ready.front().map_or(self.now, |item| item.time);
        QueueRow {
            label,
            id: id.0,
            size: queue.ready.len(),
            leased: 0,
            delayed: 0,
            waiters: 0,
            bytes: queue.ready.bytes(),
            oldest_ms: self.now.0.saturating_sub(oldest.0) / 1_000_000,
        }
    }

    fn read(r: &mut Reader<'_>) -> Decoded<Queues> {
        if r.u8("queues version")? != SNAPSHOT_VERSION {
            return Err(DecodeError { field: "queues version" });
        }
        let mut queues = Queues { now: GroupTime(r.u64("queues time")?), ..Queues::default() };
        let last_id = QueueId(r.varint("last queue id")?);
        if last_id.0 > u64::MAX / 2 {
            return Err(DecodeError { field: "last queue id" });
        }
        let mut previous = QueueId(0);
        for _ in 0..r.varint("queue count")? {
            let id = QueueId(r.varint("queue id")?);
            if id <= previous || id > last_id {
                return Err(DecodeError { field: "queue id" });
            }
            let label = r.str(LABEL_BYTES_MAX, "label")?;
            if !is_label(label) || queues.labels.contains_key(label) {
                return Err(DecodeError { field: "label" });
            }
            let ready = Fifo::restore(r)?;
            if ready.last_time() > Some(queues.now) {
                return Err(DecodeError { field: "push time" });
            }
            queues.insert(id, Queue { label: label.into(), ready });
            previous = id;
        }
        queues.last_id = last_id;
        Ok(queues)
    }
}

/// Begins the answer to a pop or peek: the code, and how many items will follow.
fn batch(queue: &Queue, count: usize, answer: &mut Vec<u8>) -> Result<usize, Refusal> {
    if queue.ready.is_empty() {
        return Err(nothing_in(queue));
    }
    let fitting = if count == 1 { 1 } else { queue.ready.fitting(count, BATCH_BYTES_MAX) };
    answer.put_u8(Code::Ok as u8);
    answer.put_varint(fitting as u64);
    Ok(fitting)
}

fn pop(queue: &mut Queue, count: usize, answer: &mut Vec<u8>) -> Result<(), Refusal> {
    for _ in 0..batch(queue, count, answer)? {
        queue.ready.pop_into(answer);
    }
    Ok(())
}

impl Service for Queues {
    fn apply(&mut self, at: At, who: Who, operation: &[u8], out: &mut Answers) {
        self.now = self.now.max(at.time);
        out.answer(who, |answer| {
            let executed = match QueueOperation::decode(operation) {
                Ok(operation) => self.execute(operation, answer),
                Err(error) => Err(error.into()),
            };
            if let Err(refusal) = executed {
                refuse(answer, &refusal);
            }
        });
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let found = match QueueQuery::decode(query) {
            Ok(query) => self.find(query, answer),
            Err(error) => Err(error.into()),
        };
        if let Err(refusal) = found {
            refuse(answer, &refusal);
        }
    }

    fn tick(&mut self, at: At, _out: &mut Answers) {
        self.now = self.now.max(at.time);
        self.graveyard.free_some();
    }

    fn ended(&mut self, _session: SessionId, _out: &mut Answers) {}

    fn due(&self) -> Option<GroupTime> {
        (!self.graveyard.is_empty()).then(|| GroupTime(self.now.0.saturating_add(FREE_PAUSE_NS)))
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_u64(self.now.0);
        out.put_varint(self.last_id.0);
        out.put_varint(self.queues.len() as u64);
        for (id, queue) in &self.queues {
            out.put_varint(id.0);
            out.put_str(&queue.label);
            queue.ready.snapshot(out);
        }
    }

    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()> {
        let mut r = Reader::new(snapshot);
        *self = Queues::read(&mut r)?;
        r.end("queues")
    }

    fn memory_bytes(&self) -> u64 {
        self.memory + self.graveyard.memory_bytes()
    }
}
