//! What a client asks of the queue: random operations on a few queues, now and then large. The bytes of every item are
//! unique, so that a lost, doubled or invented one can be named.

use ftq::rng::Rng;
use ftq::wire::answer::{split, Code};
use ftq::wire::codec::{Put, Reader};
use ftq::wire::operation::{
    service, Cap, Items, Leased, PushOptions, QueueOperation, QueueQuery, Receipt, Target, RECEIPTS_PER_SLOT,
};

use super::super::plan::Load;
use super::super::workload::Bytes;

/// One of the queues in use.
pub fn label(rng: &mut Rng, load: &Load) -> String {
    format!("queue-{}", rng.below(load.queues))
}

/// Mostly by label; sometimes by an id, which may name no queue.
fn with_target<T>(rng: &mut Rng, load: &Load, use_it: impl FnOnce(Target<'_>) -> T) -> T {
    if rng.chance(300_000) {
        use_it(Target::Id(rng.between(1, load.queues + 3)))
    } else {
        use_it(Target::Label(&label(rng, load)))
    }
}

fn count(rng: &mut Rng) -> usize {
    *rng.pick(&[1, 1, 1, 1, 2, 10, 100])
}

/// What a client remembers of the answers it got: receipts, of leases under way or long over.
#[derive(Debug, Default)]
pub struct Habit {
    receipts: Vec<Receipt>,
}

impl super::Habit for Habit {
    fn operation(&mut self, rng: &mut Rng, load: &Load, client: usize, number: u64) -> Bytes {
        let mut bytes = Vec::new();
        if rng.below(100) < load.pushes {
            push(rng, load, client, number, &mut bytes);
            return bytes;
        }
        let count = count(rng);
        let mut on_queue = |rng: &mut Rng, make: &dyn Fn(Target<'_>) -> QueueOperation<'_>| {
            with_target(rng, load, |target| make(target).encode(&mut bytes));
        };
        match rng.below(60) {
            0..=17 => on_queue(rng, &|target| QueueOperation::Pop { target, count }),
            18..=23 => {
                let wait_ms = rng.between(1, 2_000);
                on_queue(rng, &|target| QueueOperation::PopWait { target, count, wait_ms });
            }
            24..=35 => {
                let lease_ms = *rng.pick(&[1, 20, 300, 2_000, 5_000]);
                let wait_ms = if rng.chance(400_000) { rng.between(1, 2_000) } else { 0 };
                on_queue(rng, &|target| QueueOperation::Take { target, count, lease_ms, wait_ms });
            }
            36..=47 => self.settle(rng).encode(&mut bytes),
            48..=49 => on_queue(rng, &|target| QueueOperation::Kick { target, count }),
            50..=51 => {
                let items = *rng.pick(&[Cap::Keep, Cap::Lift, Cap::Lift, Cap::At(0), Cap::At(5), Cap::At(60)]);
                let limit = *rng.pick(&[Cap::Keep, Cap::Lift, Cap::Lift, Cap::At(0), Cap::At(500), Cap::At(6_000)]);
                on_queue(rng, &|target| QueueOperation::Limit { target, items, bytes: limit });
            }
            52..=56 => QueueOperation::Create { label: &label(rng, load) }.encode(&mut bytes),
            57..=58 => on_queue(rng, &|target| QueueOperation::Destroy { target }),
            _ => on_queue(rng, &|target| QueueOperation::Purge { target }),
        }
        bytes
    }

    fn query(&mut self, rng: &mut Rng, load: &Load) -> Bytes {
        let mut bytes = Vec::new();
        match rng.below(10) {
            0..=4 => with_target(rng, load, |target| QueueQuery::Size { target }.encode(&mut bytes)),
            5..=7 => {
                let count = count(rng);
                with_target(rng, load, |target| QueueQuery::Peek { target, count }.encode(&mut bytes));
            }
            8 if rng.chance(300_000) => {
                let count = count(rng);
                with_target(rng, load, |target| QueueQuery::Buried { target, after: None, count }.encode(&mut bytes));
            }
            8 if rng.chance(300_000) => {
                with_target(rng, load, |target| QueueQuery::Limits { target }.encode(&mut bytes));
            }
            8 => QueueQuery::Id { label: &label(rng, load) }.encode(&mut bytes),
            _ => QueueQuery::List { after: "" }.encode(&mut bytes),
        }
        bytes
    }

    fn hear(&mut self, operation: &[u8], answer: &[u8]) {
        let is_take = operation.starts_with(&[service::QUEUE, 8]);
        if let (true, Ok((Code::Ok, fields))) = (is_take, split(answer)) {
            let mut r = Reader::new(fields);
            let count = r.varint("count").expect("a take is answered with a list");
            let leases = (0..count).map(|_| Leased::decode(&mut r).expect("of leased items").receipt);
            self.receipts.extend(leases);
        }
    }
}

impl Habit {
    /// Mostly one of the last, and mostly each once; now and then one of another's, or one that never was.
    fn receipt(&mut self, rng: &mut Rng) -> Receipt {
        if self.receipts.is_empty() || rng.chance(30_000) {
            return Receipt(rng.between(0, 400) * RECEIPTS_PER_SLOT + rng.below(3));
        }
        let at = self.receipts.len() - 1 - rng.below(self.receipts.len().min(8) as u64) as usize;
        if rng.chance(800_000) {
            self.receipts.remove(at)
        } else {
            self.receipts[at]
        }
    }

    fn settle(&mut self, rng: &mut Rng) -> QueueOperation<'static> {
        let receipt = self.receipt(rng);
        match rng.below(10) {
            0..=3 => QueueOperation::Ack { receipt },
            4 => QueueOperation::Nack { receipt, delay_ms: rng.between(1, 1_000) },
            5..=6 => QueueOperation::Nack { receipt, delay_ms: 0 },
            7 => QueueOperation::Extend { receipt, lease_ms: rng.between(0, 3_000) },
            _ => QueueOperation::Bury { receipt },
        }
    }
}

fn push(rng: &mut Rng, load: &Load, client: usize, number: u64, bytes: &mut Bytes) {
    let large = rng.chance(load.large_ppm);
    let count = if large { 1 } else { *rng.pick(&[1, 1, 1, 1, 1, 3, 50]) };
    let mut list = Vec::new();
    list.put_varint(count);
    for k in 0..count {
        let mut item = format!("{client}/{number}/{k}").into_bytes();
        let most = if large { load.large_bytes } else { 100 };
        item.resize(item.len().max(rng.below(most + 1) as usize), b'.');
        list.put_bytes(&item);
    }
    let items = Items::decode(&mut Reader::new(&list), count as usize).expect("the list was just written");
    if rng.chance(650_000) {
        return with_target(rng, load, |target| QueueOperation::Push { target, items }.encode(bytes));
    }
    let key = rng.chance(300_000).then(|| format!("key-{}", rng.below(12)));
    let options = PushOptions {
        delay_ms: if rng.chance(300_000) { rng.between(1, 1_500) } else { 0 },
        priority: *rng.pick(&[0, 0, 0, 0, -1, 1, i32::MIN]),
        key: key.as_ref().map(String::as_bytes),
    };
    with_target(rng, load, |target| QueueOperation::PushWith { target, options, items }.encode(bytes));
}
