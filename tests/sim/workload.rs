//! What clients ask for: random operations of every service, sessions, and now and then nonsense.

use ftq::rng::Rng;
use ftq::wire::operation::{service, QueueOperation, SessionOperation, Target};

use super::plan::Load;
use super::services::{queue_habit, Habits};

/// A query's or operation's bytes.
pub type Bytes = Vec<u8>;

pub fn opening() -> Bytes {
    let mut bytes = Vec::new();
    SessionOperation::Open.encode(&mut bytes);
    bytes
}

pub fn ending() -> Bytes {
    let mut bytes = Vec::new();
    SessionOperation::End.encode(&mut bytes);
    bytes
}

/// To wait long for items.
pub fn waiting(rng: &mut Rng, load: &Load) -> Bytes {
    let (label, mut bytes) = (queue_habit::label(rng, load), Bytes::new());
    let target = Target::Label(&label);
    QueueOperation::PopWait { target, count: 1, wait_ms: 60_000 }.encode(&mut bytes);
    bytes
}

/// Request `number` of this client.
pub fn operation(rng: &mut Rng, load: &Load, habits: &mut Habits, client: usize, number: u64) -> Bytes {
    if rng.chance(load.bad_ppm) {
        return nonsense(rng);
    }
    habits.pick(rng, load).operation(rng, load, client, number)
}

pub fn query(rng: &mut Rng, load: &Load, habits: &mut Habits) -> Bytes {
    habits.pick(rng, load).query(rng, load)
}

fn nonsense(rng: &mut Rng) -> Bytes {
    match rng.below(6) {
        // A service that is none, an operation that is none, one with bytes to spare, and a query that is no operation.
        0 => vec![200, 1, 2, 3],
        1 => vec![service::QUEUE, 99],
        2 => vec![service::QUEUE, 1, 1, b'x', 0],
        3 => vec![service::QUEUE, 131, 0],
        4 => vec![service::CHAT, 9, 1, b'x'],
        _ => vec![service::STOCK, 2, 1, b'x', 7],
    }
}
