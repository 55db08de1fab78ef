//! What ten million items cost: bytes of memory for each, measured from outside as well as counted; and that to drop
//! them stalls nobody. Prints what it finds: `cargo test --release --test memory -- --nocapture`.

use ftq::limits::BATCH_ITEMS_MAX;
use ftq::service::queue::Queues;
use ftq::service::{Answers, Service, Who};
use ftq::types::{At, GroupTime, RequestNumber, SessionId, Slot};
use ftq::wire::operation::{QueueOperation, Target};
use std::time::{Duration, Instant};

const ITEMS: u64 = 10_000_000;
const LEASED: u64 = 1 << 19;
const JOBS: Target<'static> = Target::Label("jobs");

/// Queues, and the longest that any step took.
#[derive(Default)]
struct Bench {
    queues: Queues,
    slot: u64,
    longest: Duration,
}

impl Bench {
    fn at(&mut self) -> At {
        self.slot += 1;
        At { slot: Slot(self.slot), position: 0, time: GroupTime(self.slot * 1_000_000) }
    }

    fn apply(&mut self, operation: &[u8]) {
        let (at, mut out) = (self.at(), Answers::default());
        let who = Who { session: SessionId::NONE, number: RequestNumber(at.slot.0) };
        let begun = Instant::now();
        self.queues.apply(at, who, &operation[1..], &mut out);
        self.longest = self.longest.max(begun.elapsed());
        assert!(out.iter().all(|(_, answer)| answer[0] == 0), "every operation is done");
    }

    fn tick(&mut self) {
        let at = self.at();
        let begun = Instant::now();
        self.queues.tick(at, &mut Answers::default());
        self.longest = self.longest.max(begun.elapsed());
    }
}

fn encoded(operation: QueueOperation<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    bytes
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has a size");
    1024 * line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
}

#[test]
fn ten_million_items_fit_and_go_in_bounded_steps() {
    let (mut bench, empty) = (Bench::default(), resident());
    let mut push = Vec::new();
    let items = vec![&b"sixteen bytes..."[..]; 4000];
    QueueOperation::encode_push(&mut push, JOBS, items.into_iter());
    (0..ITEMS / 4000).for_each(|_| bench.apply(&push));
    let (counted, measured) = (bench.queues.memory_bytes(), resident() - empty);
    let each = |bytes: u64| bytes as f64 / ITEMS as f64;
    println!("an item of 16 bytes: {:.2} bytes counted, {:.2} measured", each(counted), each(measured));
    assert!(measured < 2 << 30 && each(counted) < 21.0, "ten million items take {measured} bytes, {counted} counted");

    let before = resident();
    let take = encoded(QueueOperation::Take { target: JOBS, count: BATCH_ITEMS_MAX, lease_ms: 3_600_000, wait_ms: 0 });
    (0..LEASED / BATCH_ITEMS_MAX as u64).for_each(|_| bench.apply(&take));
    let leased = (resident() - before) as f64 / LEASED as f64;
    println!("while it is leased: {leased:.0} measured");
    assert!(leased < 400.0, "a leased item takes {leased} bytes more");

    bench.apply(&encoded(QueueOperation::Destroy { target: JOBS }));
    let mut steps = 0;
    while bench.queues.due().is_some() {
        bench.tick();
        steps += 1;
    }
    println!("dropped in {steps} steps; the longest step of all took {:?}", bench.longest);
    assert!(bench.queues.memory_bytes() < 1000);
    // What it should be is a few milliseconds; shared machines need room.
    assert!(bench.longest < Duration::from_millis(500), "a step took {:?}", bench.longest);
}
