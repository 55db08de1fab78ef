//! What clients ask for: random operations on a few queues, now and then large, now and then nonsense. The bytes of
//! every item are unique, so that a lost, doubled or invented one can be named.

use ftq::rng::Rng;
use ftq::wire::codec::{Put, Reader};
use ftq::wire::operation::{service, Items, QueueOperation, QueueQuery, SessionOperation, Target};

use super::plan::Load;

/// A query's or operation's bytes.
pub type Bytes = Vec<u8>;

pub fn opening() -> Bytes {
    let mut bytes = Vec::new();
    SessionOperation::Open.encode(&mut bytes);
    bytes
}

fn label(rng: &mut Rng, load: &Load) -> String {
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

/// Request `number` of this client.
pub fn operation(rng: &mut Rng, load: &Load, client: usize, number: u64) -> Bytes {
    let mut bytes = Vec::new();
    if rng.chance(load.bad_ppm) {
        return nonsense(rng);
    }
    if rng.below(100) < load.pushes {
        push(rng, load, client, number, &mut bytes);
        return bytes;
    }
    match rng.below(50) {
        0..=39 => {
            let count = count(rng);
            with_target(rng, load, |target| QueueOperation::Pop { target, count }.encode(&mut bytes));
        }
        40..=44 => QueueOperation::Create { label: &label(rng, load) }.encode(&mut bytes),
        45..=46 => with_target(rng, load, |target| QueueOperation::Destroy { target }.encode(&mut bytes)),
        _ => with_target(rng, load, |target| QueueOperation::Purge { target }.encode(&mut bytes)),
    }
    bytes
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
    with_target(rng, load, |target| QueueOperation::Push { target, items }.encode(bytes));
}

fn nonsense(rng: &mut Rng) -> Bytes {
    match rng.below(4) {
        // A service that is none, an operation that is none, one with bytes to spare, and a query that is no operation.
        0 => vec![200, 1, 2, 3],
        1 => vec![service::QUEUE, 99],
        2 => vec![service::QUEUE, 1, 1, b'x', 0],
        _ => vec![service::QUEUE, 131, 0],
    }
}

pub fn query(rng: &mut Rng, load: &Load) -> Bytes {
    let mut bytes = Vec::new();
    match rng.below(10) {
        0..=4 => with_target(rng, load, |target| QueueQuery::Size { target }.encode(&mut bytes)),
        5..=7 => {
            let count = count(rng);
            with_target(rng, load, |target| QueueQuery::Peek { target, count }.encode(&mut bytes));
        }
        8 => QueueQuery::Id { label: &label(rng, load) }.encode(&mut bytes),
        _ => QueueQuery::List { after: "" }.encode(&mut bytes),
    }
    bytes
}
