//! The state of all queues as bytes: equal states write equal bytes, and what was read writes the bytes it was read
//! from. Indices are not written but made again.

use super::contents::Contents;
use super::keys::Keys;
use super::waiters::{Arrival, Waiters};
use super::{Queue, QueueId, Queues};
use crate::limits::{COUNTER_MAX, LABEL_BYTES_MAX};
use crate::types::GroupTime;
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::queue::{is_label, Limit, Receipt};

const SNAPSHOT_VERSION: u8 = 2;

impl Queues {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_u64(self.now.0);
        for last in [self.last_id.0, self.last_receipt.0, self.last_arrival.0] {
            out.put_varint(last);
        }
        out.put_varint(self.queues.len() as u64);
        for (id, queue) in &self.queues {
            out.put_varint(id.0);
            out.put_str(&queue.label);
            queue.limit.put(out);
            out.put_varint(queue.next);
            queue.contents.snapshot(out);
            queue.keys.snapshot(out);
            queue.waiters.snapshot(out);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Decoded<Queues> {
        let wrong = |field| Err(DecodeError { field });
        if r.u8("queues version")? != SNAPSHOT_VERSION {
            return wrong("queues version");
        }
        let mut queues = Queues {
            now: GroupTime(r.u64("queues time")?),
            last_id: QueueId(counter(r, "last queue id")?),
            last_receipt: Receipt(r.varint("last receipt")?),
            last_arrival: Arrival(counter(r, "last arrival")?),
            ..Queues::default()
        };
        let mut previous = QueueId(0);
        let (mut leases, mut waiters) = (0, 0);
        for _ in 0..r.varint("queue count")? {
            let id = QueueId(r.varint("queue id")?);
            if id <= previous || id > queues.last_id {
                return wrong("queue id");
            }
            let queue = queues.read_queue(r)?;
            leases += queue.contents.leased();
            waiters += queue.waiters.iter().count() as u64;
            queues.insert(id, queue);
            previous = id;
        }
        if queues.receipts.len() as u64 != leases || queues.waiting.len() as u64 != waiters {
            return wrong("queues");
        }
        Ok(queues)
    }

    fn read_queue(&self, r: &mut Reader<'_>) -> Decoded<Queue> {
        let label = r.str(LABEL_BYTES_MAX, "label")?;
        if !is_label(label) || self.labels.contains_key(label) {
            return Err(DecodeError { field: "label" });
        }
        let limit = Limit::get(r)?;
        let next = counter(r, "next place")?;
        let contents = Contents::restore(r, next, self.now, self.last_receipt)?;
        let (keys, waiters) = (Keys::restore(r)?, Waiters::restore(r, self.last_arrival)?);
        if waiters.first().is_some() && !contents.ready.is_empty() {
            return Err(DecodeError { field: "waiter count" });
        }
        Ok(Queue { label: label.into(), limit, next, contents, keys, waiters, due: None })
    }
}

/// A varint that may be counted on.
fn counter(r: &mut Reader<'_>, field: &'static str) -> Decoded<u64> {
    r.varint(field).and_then(|value| if value <= COUNTER_MAX { Ok(value) } else { Err(DecodeError { field }) })
}
