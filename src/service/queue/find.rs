//! What each query finds.

use super::{some, Queue, QueueId, Queues, Refusal};
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};
use crate::wire::answer::Code;
use crate::wire::codec::Put;
use crate::wire::queue::{Dead, Place, QueueQuery, QueueRow, Target};
use std::ops::Bound;

/// What a buried item costs in an answer beside its bytes, at most.
const DEAD_FRAME_BYTES: usize = 24;

impl Queues {
    pub(super) fn find(&self, query: QueueQuery<'_>, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        match query {
            QueueQuery::Id { label } => {
                // That there is none is an answer like any other, not an error.
                let id = self.id(Target::Label(label)).map_or(0, |id| id.0);
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(id);
            }
            QueueQuery::Peek { target, count } => {
                let (count, queue) = (some(count)?, self.queue(target)?);
                let ready = &queue.contents.ready;
                let fitting = ready.fitting(count, BATCH_BYTES_MAX, 0);
                if fitting == 0 {
                    return Err(queue.nothing_ready());
                }
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(fitting as u64);
                ready.iter().take(fitting).for_each(|item| answer.put_bytes(item.bytes));
            }
            QueueQuery::Size { target } => {
                let size = self.queue(target)?.contents.ready.len();
                answer.put_u8(Code::Ok as u8);
                answer.put_varint(size);
            }
            QueueQuery::List { after } => self.list(after, answer),
            QueueQuery::Buried { target, after, count } => {
                let count = some(count)?;
                buried(self.queue(target)?, after, count, answer);
            }
            QueueQuery::Limits { target } => {
                let limit = self.queue(target)?.limit;
                answer.put_u8(Code::Ok as u8);
                limit.put(answer);
            }
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
        let contents = &queue.contents;
        let oldest = contents.ready.oldest().unwrap_or(self.now);
        QueueRow {
            label,
            id: id.0,
            size: contents.ready.len(),
            leased: contents.leased(),
            delayed: contents.delayed(),
            waiters: queue.waiters.count(),
            bytes: contents.bytes(),
            oldest_ms: self.now.0.saturating_sub(oldest.0) / 1_000_000,
            buried: contents.buried(),
        }
    }
}

fn buried(queue: &Queue, after: Option<Place>, count: usize, answer: &mut Vec<u8>) {
    let mut taken = 0;
    let graves = queue.contents.graves(after).take(count);
    let fitting: Vec<_> = graves
        .take_while(|(_, item)| {
            let fits = taken == 0 || taken + item.bytes.len() + DEAD_FRAME_BYTES <= BATCH_BYTES_MAX;
            taken += item.bytes.len() + DEAD_FRAME_BYTES;
            fits
        })
        .collect();
    answer.put_u8(Code::Ok as u8);
    answer.put_varint(fitting.len() as u64);
    for (place, item) in fitting {
        Dead { place, tries: item.tries, item: &item.bytes }.encode(answer);
    }
}
