//! A loop that stood still, and one that had nothing to do.

use super::*;

/// Heartbeats are as far apart as the options allow: between two of them nobody has slept, and time goes on.
#[test]
fn a_wait_ends_in_time_where_heartbeats_are_seldom() {
    let mut bench = Bench::new(2, 0);
    for id in 1..=2 {
        let config = Config { heartbeat_ms: 250, ..config(id, 2, u64::from(id), Durability::Disk) };
        let (at, mut out) = (usize::from(id) - 1, Outbox::default());
        bench.disks[at] = Disk::default();
        bench.replicas[at] = Replica::recover(config, Stored::default(), bench.now, &mut out);
        bench.carry_out(at, out);
    }
    bench.run_ms(2000);
    let mut bench = begun(bench, 1);
    assert_eq!(push_and_wait(&mut bench, 1, 1), [(1, 0)]);
    let mut operation = Vec::new();
    let target = Target::Label("idle");
    QueueOperation::Create { label: "idle" }.encode(&mut operation);
    bench.say(1, 1, &ToReplica::Request { number: RequestNumber(2), seen: RequestNumber(1), operation: &operation });
    operation.clear();
    QueueOperation::PopWait { target, count: 1, wait_ms: 2_000 }.encode(&mut operation);
    bench.say(1, 1, &ToReplica::Request { number: RequestNumber(3), seen: RequestNumber(1), operation: &operation });
    // Each loop is woken 5 ms late.
    let mut beats = |count| {
        for _ in 0..count {
            bench.now = bench.now.after_ns(255 * Time::MS);
            bench.run_ms(1);
        }
        bench.heard().0.len()
    };
    assert_eq!(beats(5), 1, "the queue is there; the wait is not over");
    assert_eq!(beats(5), 1, "nothing came");
}
