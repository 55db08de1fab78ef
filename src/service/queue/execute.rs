//! What each operation does. One that is refused changes nothing.

use super::item::Item;
use super::keys::Keys;
use super::waiters::{Arrival, Waiter, Want};
use super::{no_queue, some, Queue, QueueId, Queues, Refusal};
use crate::broken;
use crate::limits::{BATCH_BYTES_MAX, SPAN_MS_MAX, WAITERS_MAX};
use crate::service::{Answers, Who};
use crate::types::{At, GroupTime};
use crate::wire::answer::Code;
use crate::wire::codec::Put;
use crate::wire::queue::{
    Items, Leased, Place, PushOptions, QueueOperation, Receipt, Target, RECEIPTS_PER_SLOT, WAIT_FOR_EVER_MS,
};

/// What a leased item costs in an answer beside its bytes, at most.
const LEASE_FRAME_BYTES: usize = 15;

/// A queue in which items became ready, so that there may be somebody to serve.
type Stirred = Option<QueueId>;

/// This moment and so many milliseconds, which must be a sensible time.
fn moment(now: GroupTime, ms: u64, what: &str) -> Result<GroupTime, Refusal> {
    if ms > SPAN_MS_MAX {
        return Err(Refusal::bad_request(format!("a {what} is at most {SPAN_MS_MAX} ms, not {ms}")));
    }
    Ok(GroupTime(now.0.saturating_add(ms * 1_000_000)))
}

fn put_number(answer: &mut Vec<u8>, number: u64) {
    answer.put_u8(Code::Ok as u8);
    answer.put_varint(number);
}

/// The length of a lease in nanoseconds.
fn lease_ns(lease_ms: u64) -> Result<u64, Refusal> {
    if lease_ms == 0 {
        return Err(Refusal::bad_request("a lease is at least 1 ms"));
    }
    moment(GroupTime(0), lease_ms, "lease").map(|end| end.0)
}

impl Queue {
    /// Whether so many items of so many bytes may come in.
    fn check_room(&self, items: u64, bytes: u64) -> Result<(), Refusal> {
        let mut held = (self.contents.count(), self.contents.bytes());
        if broken::is("limit-of-the-ready") {
            held = (self.contents.ready.len(), self.contents.ready.bytes());
        }
        let items = items - u64::from(broken::is("limit-one-too-many") && items > 1);
        for (limit, held, more, what) in
            [(self.limit.items, held.0, items, "items"), (self.limit.bytes, held.1, bytes, "bytes")]
        {
            let Some(most) = limit else { continue };
            if items > 0 && held.saturating_add(more) > most {
                let room = "pops, acks and a higher limit make room";
                let message = format!("queue {} holds {held} of at most {most} {what}; {room}", self.label);
                return Err(Refusal { code: Code::Full, message });
            }
        }
        Ok(())
    }

    fn push(&mut self, now: GroupTime, items: Items<'_>) -> Result<(), Refusal> {
        if self.limit.items.is_some() || self.limit.bytes.is_some() {
            self.check_room(items.len() as u64, items.iter().map(|item| item.len() as u64).sum())?;
        }
        for item in items.iter() {
            self.contents.ready.push(Place { priority: 0, number: self.next }, now, item);
            self.next += 1;
        }
        Ok(())
    }

    fn push_with(
        &mut self,
        now: GroupTime,
        until: GroupTime,
        options: PushOptions<'_>,
        items: Items<'_>,
    ) -> Result<usize, Refusal> {
        if options.key.is_some_and(|key| self.keys.is_known(key, now)) {
            return Ok(0);
        }
        self.check_room(items.len() as u64, items.iter().map(|item| item.len() as u64).sum())?;
        if let Some(key) = options.key {
            // The hook stands for a key that is not kept where there was a delay.
            if !(broken::is("key-forgotten") && until > now) {
                self.keys.learn(key, now);
            }
        }
        for item in items.iter() {
            let priority = if broken::is("priority-ignored") { 0 } else { options.priority };
            let place = Place { priority, number: self.next };
            if until > now && !broken::is("delay-ignored") {
                self.contents.delay(place, Item { pushed: now, tries: 0, bytes: item.into() }, until);
            } else {
                self.contents.ready.push(place, now, item);
            }
            self.next += 1;
        }
        Ok(items.len())
    }

    fn pop(&mut self, count: usize, answer: &mut Vec<u8>) -> Result<(), Refusal> {
        let fitting = self.contents.ready.fitting(count, BATCH_BYTES_MAX, 0);
        if fitting == 0 {
            return Err(self.nothing_ready());
        }
        answer.put_u8(Code::Ok as u8);
        answer.put_varint(fitting as u64);
        for _ in 0..fitting {
            self.contents.ready.pop_into(answer);
        }
        Ok(())
    }

    /// Leases up to `count` items under the receipts from `first` on, of which there are `left`; answers how many.
    fn take(
        &mut self,
        count: usize,
        ends: GroupTime,
        first: u64,
        left: u64,
        answer: &mut Vec<u8>,
    ) -> Result<u64, Refusal> {
        let fitting = self.contents.ready.fitting(count, BATCH_BYTES_MAX, LEASE_FRAME_BYTES) as u64;
        if fitting == 0 {
            return Err(self.nothing_ready());
        }
        let leases = fitting.min(left);
        if leases == 0 {
            let message = format!("one slot gives {RECEIPTS_PER_SLOT} leases at most; ask again");
            return Err(Refusal { code: Code::Busy, message });
        }
        answer.put_u8(Code::Ok as u8);
        answer.put_varint(leases);
        for receipt in (first..first + leases).map(Receipt) {
            if let Some(item) = self.contents.lease(receipt, ends) {
                Leased { receipt, tries: item.tries, item: &item.bytes }.encode(answer);
            }
        }
        Ok(leases)
    }
}

impl Queues {
    pub(super) fn execute(&mut self, at: At, who: Who, operation: QueueOperation<'_>, out: &mut Answers) {
        match operation {
            QueueOperation::PopWait { target, count, wait_ms } => {
                let want = Ok(Want { count, lease_ns: None });
                self.answer_or_wait(at, who, target, want, wait_ms, out);
            }
            QueueOperation::Take { target, count, lease_ms, wait_ms } => {
                let want = lease_ns(lease_ms).map(|lease| Want { count, lease_ns: Some(lease) });
                self.answer_or_wait(at, who, target, want, wait_ms, out);
            }
            QueueOperation::Destroy { target } => match self.id(target) {
                Ok(id) => {
                    out.answer(who, |answer| answer.put_u8(Code::Ok as u8));
                    self.destroy(id, out);
                }
                Err(refusal) => out.answer(who, |answer| refusal.put(answer)),
            },
            operation => {
                let mut stirred = None;
                out.answer(who, |answer| match self.answer_now(operation, answer) {
                    Ok(queue) => stirred = queue,
                    Err(refusal) => refusal.put(answer),
                });
                if let Some(id) = stirred {
                    self.serve(at, id, out);
                }
            }
        }
    }

    /// Executes what is answered at once.
    fn answer_now(&mut self, operation: QueueOperation<'_>, answer: &mut Vec<u8>) -> Result<Stirred, Refusal> {
        let now = self.now;
        match operation {
            QueueOperation::Push { target, items } => {
                let id = match target {
                    Target::Id(id) => QueueId(id),
                    Target::Label(label) => self.create(label),
                };
                let push = |queue: &mut Queue| queue.push(now, items).map(|()| queue.stirred(id));
                let stirred = self.change(id, push).ok_or_else(|| no_queue(target))??;
                answer.put_u8(Code::Ok as u8);
                Ok(stirred)
            }
            QueueOperation::PushWith { target, options, items } => {
                let until = moment(now, options.delay_ms, "delay")?;
                let id = self.id_or_make(target)?;
                let push = |queue: &mut Queue| {
                    let pushed = queue.push_with(now, until, options, items)?;
                    Ok::<_, Refusal>((pushed as u64, queue.stirred(id)))
                };
                let (pushed, stirred) = self.change(id, push).ok_or_else(|| no_queue(target))??;
                put_number(answer, pushed);
                Ok(stirred)
            }
            QueueOperation::Pop { target, count } => {
                let (count, id) = (some(count)?, self.id(target)?);
                self.change(id, |queue| queue.pop(count, answer)).ok_or_else(|| no_queue(target))??;
                Ok(None)
            }
            QueueOperation::Kick { target, count } => {
                let (count, id) = (some(count)?, self.id(target)?);
                let kick = |queue: &mut Queue| (queue.contents.kick(count), queue.stirred(id));
                let (kicked, stirred) = self.change(id, kick).ok_or_else(|| no_queue(target))?;
                put_number(answer, kicked as u64);
                Ok(stirred)
            }
            QueueOperation::Create { label } => {
                put_number(answer, self.create(label).0);
                Ok(None)
            }
            QueueOperation::Purge { target } => {
                let id = self.id(target)?;
                let purged = self.change(id, |queue| std::mem::take(&mut queue.contents)).unwrap_or_default();
                put_number(answer, purged.count());
                self.graveyard.bury(purged, Keys::default(), |receipt| _ = self.receipts.remove(&receipt));
                Ok(None)
            }
            operation => {
                let stirred = self.settle(operation)?;
                answer.put_u8(Code::Ok as u8);
                Ok(stirred)
            }
        }
    }

    /// What whoever has a receipt says of the leased item, and what else is answered with nothing but `ok`.
    fn settle(&mut self, operation: QueueOperation<'_>) -> Result<Stirred, Refusal> {
        let now = self.now;
        match operation {
            QueueOperation::Ack { receipt } => {
                self.end_lease(receipt)?;
                Ok(None)
            }
            QueueOperation::Nack { receipt, delay_ms } => {
                let until = moment(now, delay_ms, "delay")?;
                let (id, place, item) = self.end_lease(receipt)?;
                let stirred = self.change(id, |queue| {
                    if until > now {
                        queue.contents.delay(place, item, until);
                    } else {
                        queue.contents.ready.put_back(place, item);
                    }
                    queue.stirred(id)
                });
                Ok(stirred.flatten())
            }
            QueueOperation::Extend { receipt, lease_ms } => {
                let ends = GroupTime(now.0.saturating_add(lease_ns(lease_ms)?));
                let id = *self.receipts.get(&receipt).ok_or_else(|| self.no_receipt(receipt))?;
                let extended = self.change(id, |queue| queue.contents.extend(receipt, ends));
                extended.filter(|&extended| extended).ok_or_else(|| self.no_receipt(receipt))?;
                Ok(None)
            }
            QueueOperation::Bury { receipt } => {
                let (id, place, item) = self.end_lease(receipt)?;
                self.change(id, |queue| queue.contents.bury(place, item));
                Ok(None)
            }
            QueueOperation::Limit { target, items, bytes } => {
                let id = self.id_or_make(target)?;
                self.change(id, |queue| {
                    queue.limit.items = items.change(queue.limit.items);
                    queue.limit.bytes = bytes.change(queue.limit.bytes);
                });
                Ok(None)
            }
            // `execute` and `answer_now` have done all others.
            _ => Ok(None),
        }
    }

    fn end_lease(&mut self, receipt: Receipt) -> Result<(QueueId, Place, Item), Refusal> {
        let id = *self.receipts.get(&receipt).ok_or_else(|| self.no_receipt(receipt))?;
        let leased = self.change(id, |queue| queue.contents.unlease(receipt)).flatten();
        let (place, item) = leased.ok_or_else(|| self.no_receipt(receipt))?;
        self.receipts.remove(&receipt);
        Ok((id, place, item))
    }

    fn no_receipt(&self, receipt: Receipt) -> Refusal {
        let message = if receipt > self.last_receipt || receipt.0 == 0 {
            format!("{receipt} is not a receipt that was ever given")
        } else {
            format!(
                "the lease {receipt} has ended: its time was over, or the item was acknowledged, given back or purged"
            )
        };
        Refusal { code: Code::NoReceipt, message }
    }

    /// Serves a pop or take at once, or lets it wait.
    fn answer_or_wait(
        &mut self,
        at: At,
        who: Who,
        target: Target<'_>,
        want: Result<Want, Refusal>,
        wait_ms: u64,
        out: &mut Answers,
    ) {
        match want.and_then(|want| self.find_or_wait(who, target, want, wait_ms)) {
            Ok(None) => {}
            Ok(Some((id, want))) => self.hand_out(at, id, who, want, out),
            Err(refusal) => out.answer(who, |answer| refusal.put(answer)),
        }
    }

    /// Joins the line; or the queue where there are items already.
    fn find_or_wait(
        &mut self,
        who: Who,
        target: Target<'_>,
        want: Want,
        wait_ms: u64,
    ) -> Result<Option<(QueueId, Want)>, Refusal> {
        some(want.count)?;
        let until = match wait_ms {
            WAIT_FOR_EVER_MS => GroupTime(u64::MAX),
            wait_ms => moment(self.now, wait_ms, "wait")?,
        };
        let present = self.id(target);
        let holds_some = |id: &QueueId| self.queues.get(id).is_some_and(|queue| !queue.contents.ready.is_empty());
        if wait_ms == 0 || present.as_ref().is_ok_and(holds_some) {
            return present.map(|id| Some((id, want)));
        }
        if self.waiting.len() >= WAITERS_MAX {
            let message = format!("{WAITERS_MAX} pops and takes wait already; ask again");
            return Err(Refusal { code: Code::Busy, message });
        }
        let id = self.id_or_make(target)?;
        if !self.waiting.contains_key(&who) {
            self.last_arrival = Arrival(self.last_arrival.0 + 1);
            let arrival = self.last_arrival;
            self.waiting.insert(who, (id, arrival));
            self.change(id, |queue| queue.waiters.join(arrival, Waiter { who, want, until }));
        }
        Ok(None)
    }

    /// Answers a pop or take now.
    pub(super) fn hand_out(&mut self, at: At, id: QueueId, who: Who, want: Want, out: &mut Answers) {
        out.answer(who, |answer| {
            let Some(lease_ns) = want.lease_ns else {
                if let Some(Err(refusal)) = self.change(id, |queue| queue.pop(want.count, answer)) {
                    refusal.put(answer);
                }
                return;
            };
            let (first, left) = self.receipts_left(at);
            let ends = GroupTime(self.now.0.saturating_add(lease_ns));
            match self.change(id, |queue| queue.take(want.count, ends, first, left, answer)) {
                Some(Ok(leases)) => {
                    self.last_receipt = Receipt(first + leases - 1);
                    self.receipts.extend((first..first + leases).map(|receipt| (Receipt(receipt), id)));
                }
                Some(Err(refusal)) => refusal.put(answer),
                None => no_queue(Target::Id(id.0)).put(answer),
            }
        });
    }

    /// The next receipt in this slot, and how many there are.
    fn receipts_left(&self, at: At) -> (u64, u64) {
        let begin = at.slot.0.saturating_mul(RECEIPTS_PER_SLOT);
        let end = begin.saturating_add(RECEIPTS_PER_SLOT);
        let next = self.last_receipt.0.saturating_add(u64::from(!broken::is("receipt-again")));
        let first = begin.max(next);
        (first, end.saturating_sub(first))
    }
}
