//! The queue: labels, ids, and items in the order of their places (`wire::queue::Place`).
//!
//! Ids are counted and never used again; a label names at most one queue at a time. An item may be any bytes: what
//! went wrong is told by the answer's code, never by an item. [`contents`] has the states an item may be in,
//! [`waiters`] who waits for one, [`time`] what the group's clock ends; `execute` and `find` are what clients ask.

pub mod contents;
mod execute;
pub mod fifo;
mod find;
pub mod graveyard;
pub mod item;
pub mod keys;
pub mod ready;
mod snapshot;
mod time;
pub mod waiters;

#[cfg(test)]
mod tests;

use self::contents::Contents;
use self::graveyard::Graveyard;
use self::keys::Keys;
use self::waiters::{Arrival, Waiters};
use super::{Answers, Service, Who};
use crate::types::{At, GroupTime, SessionId};
use crate::wire::answer::{error, Code};
use crate::wire::codec::{DecodeError, Decoded, Reader};
use crate::wire::queue::{Limit, QueueOperation, QueueQuery, Receipt, Target};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes a queue takes without items and beside twice its label: it is in two maps.
const QUEUE_OVERHEAD: u64 = 640;
/// Bytes a lease takes in the index of receipts.
const RECEIPT_BYTES: u64 = 32;

/// Names a queue for ever: a counter's value from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct QueueId(pub u64);

#[derive(Default, Debug)]
struct Queue {
    label: Box<str>,
    limit: Limit,
    /// The number of the next place.
    next: u64,
    contents: Contents,
    keys: Keys,
    /// Nobody is in line while there is a ready item.
    waiters: Waiters,
    /// As it stands in the index of what is due.
    due: Option<GroupTime>,
}

impl Queue {
    fn memory_bytes(&self) -> u64 {
        self.contents.memory_bytes() + self.keys.memory_bytes() + self.waiters.memory_bytes()
    }

    fn overhead_bytes(&self) -> u64 {
        QUEUE_OVERHEAD + 2 * self.label.len() as u64
    }

    fn nothing_ready(&self) -> Refusal {
        Refusal { code: Code::Empty, message: format!("queue {} is empty", self.label) }
    }
}

/// All queues.
#[derive(Default, Debug)]
pub struct Queues {
    labels: BTreeMap<Box<str>, QueueId>,
    queues: BTreeMap<QueueId, Queue>,
    /// The greatest id ever given.
    last_id: QueueId,
    /// The greatest receipt ever given.
    last_receipt: Receipt,
    /// The last waiter there ever was.
    last_arrival: Arrival,
    /// The last slot's time; ages are counted to it.
    now: GroupTime,
    /// Where each lease is; of leases in the graveyard, too.
    receipts: BTreeMap<Receipt, QueueId>,
    /// Where each waiter waits.
    waiting: BTreeMap<Who, (QueueId, Arrival)>,
    /// When something is to be done next in each queue where there is anything.
    due: BTreeSet<(GroupTime, QueueId)>,
    graveyard: Graveyard,
    /// Of all queues together.
    memory: u64,
}

/// Why an operation was not done.
struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal { code: Code::BadRequest, message: message.into() }
    }

    fn put(&self, answer: &mut Vec<u8>) {
        answer.extend_from_slice(&error(self.code, &self.message));
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        Refusal::bad_request(error.to_string())
    }
}

fn no_queue(target: Target<'_>) -> Refusal {
    let message = match target {
        Target::Id(id) => format!("no queue has the id {id}"),
        Target::Label(label) => format!("no queue is labelled {label}"),
    };
    Refusal { code: Code::NoQueue, message }
}

/// A pop or peek of no item makes no sense, and would have no answer to tell it from an empty queue.
fn some(count: usize) -> Result<usize, Refusal> {
    if count > 0 {
        Ok(count)
    } else {
        Err(Refusal::bad_request("a count must be at least 1"))
    }
}

impl Queues {
    fn id(&self, target: Target<'_>) -> Result<QueueId, Refusal> {
        let id = match target {
            Target::Id(id) => Some(QueueId(id)).filter(|id| self.queues.contains_key(id)),
            Target::Label(label) => self.labels.get(label).copied(),
        };
        id.ok_or_else(|| no_queue(target))
    }

    /// The same, but a label that names no queue is given one.
    fn id_or_make(&mut self, target: Target<'_>) -> Result<QueueId, Refusal> {
        match target {
            Target::Id(_) => self.id(target),
            Target::Label(label) => Ok(self.create(label)),
        }
    }

    fn queue(&self, target: Target<'_>) -> Result<&Queue, Refusal> {
        let id = match target {
            Target::Id(id) => Some(QueueId(id)),
            Target::Label(label) => self.labels.get(label).copied(),
        };
        id.and_then(|id| self.queues.get(&id)).ok_or_else(|| no_queue(target))
    }

    /// Changes a queue, and keeps count of the memory it takes and of what is due in it.
    fn change<T>(&mut self, id: QueueId, change: impl FnOnce(&mut Queue) -> T) -> Option<T> {
        let queue = self.queues.get_mut(&id)?;
        let before = queue.memory_bytes();
        let result = change(queue);
        self.memory = self.memory + queue.memory_bytes() - before;
        let due = queue.next_due();
        if due != queue.due {
            let before = std::mem::replace(&mut queue.due, due);
            before.map(|before| self.due.remove(&(before, id)));
            due.map(|due| self.due.insert((due, id)));
        }
        Some(result)
    }

    fn create(&mut self, label: &str) -> QueueId {
        if let Some(&id) = self.labels.get(label) {
            return id;
        }
        self.last_id = QueueId(self.last_id.0 + 1);
        self.insert(self.last_id, Queue { label: label.into(), ..Queue::default() });
        self.last_id
    }

    /// Takes a queue in, with what is due in it and what points to it.
    fn insert(&mut self, id: QueueId, mut queue: Queue) {
        self.memory += queue.overhead_bytes() + queue.memory_bytes();
        queue.due = queue.next_due();
        self.due.extend(queue.due.map(|due| (due, id)));
        self.receipts.extend(queue.contents.receipts().map(|receipt| (receipt, id)));
        self.waiting.extend(queue.waiters.iter().map(|(arrival, waiter, _)| (waiter.who, (id, arrival))));
        self.labels.insert(queue.label.clone(), id);
        self.queues.insert(id, queue);
    }

    /// Destroys a queue: who waits there is told.
    fn destroy(&mut self, id: QueueId, out: &mut Answers) {
        let Some(queue) = self.queues.remove(&id) else { return };
        self.memory -= queue.overhead_bytes() + queue.memory_bytes();
        self.labels.remove(&queue.label);
        queue.due.map(|due| self.due.remove(&(due, id)));
        let gone = no_queue(Target::Label(&queue.label));
        for (_, waiter, _) in queue.waiters.iter() {
            self.waiting.remove(&waiter.who);
            out.answer(waiter.who, |answer| gone.put(answer));
        }
        self.graveyard.bury(queue.contents, queue.keys, |receipt| _ = self.receipts.remove(&receipt));
    }
}

impl Service for Queues {
    fn apply(&mut self, at: At, who: Who, operation: &[u8], out: &mut Answers) {
        self.now = self.now.max(at.time);
        match QueueOperation::decode(operation) {
            Ok(operation) => self.execute(at, who, operation, out),
            Err(error) => out.answer(who, |answer| Refusal::from(error).put(answer)),
        }
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let found = match QueueQuery::decode(query) {
            Ok(query) => self.find(query, answer),
            Err(error) => Err(error.into()),
        };
        if let Err(refusal) = found {
            refusal.put(answer);
        }
    }

    fn tick(&mut self, at: At, out: &mut Answers) {
        self.now = self.now.max(at.time);
        self.graveyard.free_some(|receipt| _ = self.receipts.remove(&receipt));
        self.end_what_is_over(at, out);
    }

    fn ended(&mut self, session: SessionId, _out: &mut Answers) {
        self.leave_lines(session);
    }

    fn attended(&mut self, at: At, session: SessionId, here: bool, out: &mut Answers) {
        self.step_aside(at, session, here, out);
    }

    fn due(&self) -> Option<GroupTime> {
        self.next_moment()
    }

    fn snapshot(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()> {
        let mut r = Reader::new(snapshot);
        *self = Queues::read(&mut r)?;
        r.end("queues")
    }

    fn memory_bytes(&self) -> u64 {
        self.memory + self.graveyard.memory_bytes() + self.receipts.len() as u64 * RECEIPT_BYTES
    }
}
