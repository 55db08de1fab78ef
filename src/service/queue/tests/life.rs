//! An item's life: leases, delays, priorities, keys, limits and who waits; by hand, and by chance through snapshots.

use super::*;
use crate::limits::{KEY_KNOWN_NS, MOMENTS_STEP, SPAN_MS_MAX, WAITERS_MAX};
use crate::types::RequestNumber;
use crate::wire::queue::{
    Cap, Dead, Leased, Limit, PushOptions, QueueRow, Receipt, RECEIPTS_PER_SLOT, WAIT_FOR_EVER_MS,
};

/// Queues, with a slot for each operation.
#[derive(Default)]
struct Bench {
    queues: Queues,
    slot: u64,
    ms: u64,
}

type Told = Vec<(u64, Code, Vec<u8>)>;

impl Bench {
    fn at(&self) -> At {
        At { slot: Slot(self.slot), position: 0, time: GroupTime(self.ms * 1_000_000) }
    }

    /// A slot that many milliseconds later; answers by the number of their request.
    fn pass(&mut self, ms: u64) -> Told {
        let mut out = Answers::default();
        self.slot += 1;
        self.ms += ms;
        self.queues.tick(self.at(), &mut out);
        told(&out)
    }

    /// One request of session `session`.
    fn ask(&mut self, session: u64, number: u64, operation: QueueOperation<'_>) -> Told {
        let mut bytes = Vec::new();
        operation.encode(&mut bytes);
        let (mut out, who) = (Answers::default(), who(session, number));
        self.slot += 1;
        self.queues.apply(self.at(), who, &bytes[1..], &mut out);
        // Wherever it is restored, it is the same.
        assert_eq!(restored(&self.queues).due, self.queues.due);
        told(&out)
    }

    /// The only answer to a request that nobody else is served by.
    fn answer(&mut self, operation: QueueOperation<'_>) -> (Code, Vec<u8>) {
        let mut told = self.ask(1, 99, operation);
        assert_eq!(told.len(), 1, "{told:?}");
        let (_, code, fields) = told.remove(0);
        (code, fields)
    }

    fn push(&mut self, items: &[&str], options: PushOptions<'_>) -> (Code, Vec<u8>) {
        let mut list = Vec::new();
        Items::encode(&mut list, items.iter().map(|item| item.as_bytes()));
        let items = Items::decode(&mut Reader::new(&list), BATCH_ITEMS_MAX).expect("just written");
        self.answer(QueueOperation::PushWith { target: JOBS, options, items })
    }

    fn plain(&mut self, items: &[&str]) {
        assert_eq!(self.push(items, PushOptions::default()).0, Code::Ok);
    }

    fn take(&mut self, lease_ms: u64) -> Option<(Receipt, u32, String)> {
        match self.answer(QueueOperation::Take { target: JOBS, count: 1, lease_ms, wait_ms: 0 }) {
            (Code::Ok, fields) => leased(&fields).pop(),
            (code, _) => {
                assert_eq!(code, Code::Empty);
                None
            }
        }
    }

    /// What is ready, in order.
    fn ready(&self) -> Vec<String> {
        match query(&self.queues, QueueQuery::Peek { target: JOBS, count: 100 }) {
            (Code::Ok, fields) => strings(&fields),
            _ => Vec::new(),
        }
    }

    fn row(&self) -> (u64, u64, u64, u64, u64) {
        let (_, fields) = query(&self.queues, QueueQuery::List { after: "" });
        let row = QueueRow::decode(&mut Reader::new(&fields)).expect("a row");
        (row.size, row.leased, row.delayed, row.waiters, row.buried)
    }
}

fn who(session: u64, number: u64) -> Who {
    Who { session: SessionId { slot: Slot(session), position: 0, digest: 0 }, number: RequestNumber(number) }
}

fn told(out: &Answers) -> Told {
    let answers = out.iter().map(|(who, answer)| (who.number.0, split(answer).expect("an answer")));
    answers.map(|(number, (code, fields))| (number, code, fields.to_vec())).collect()
}

fn restored(queues: &Queues) -> Queues {
    let (bytes, mut copy) = (snapshot(queues), Queues::default());
    copy.restore(&bytes).expect("just written");
    assert_eq!(snapshot(&copy), bytes);
    copy
}

fn strings(fields: &[u8]) -> Vec<String> {
    let items = Items::decode(&mut Reader::new(fields), BATCH_ITEMS_MAX).expect("items");
    items.iter().map(|item| String::from_utf8(item.to_vec()).expect("text")).collect()
}

fn leased(fields: &[u8]) -> Vec<(Receipt, u32, String)> {
    let mut r = Reader::new(fields);
    let one =
        |leased: Leased<'_>| (leased.receipt, leased.tries, String::from_utf8(leased.item.to_vec()).expect("text"));
    (0..r.varint("count").expect("a count")).map(|_| one(Leased::decode(&mut r).expect("a lease"))).collect()
}

#[test]
fn a_lease_ends_by_an_ack_a_nack_or_its_time() {
    let mut bench = Bench::default();
    bench.plain(&["a", "b", "c"]);
    let (a, tries, item) = bench.take(1000).expect("an item");
    assert_eq!((tries, item.as_str(), a.slot()), (1, "a", Slot(bench.slot)));
    let (b, ..) = bench.take(1000).expect("an item");
    assert!(b > a);
    assert_eq!((bench.row(), bench.ready()), ((1, 2, 0, 0, 0), vec!["c".into()]));
    assert_eq!(bench.answer(QueueOperation::Nack { receipt: a, delay_ms: 0 }).0, Code::Ok);
    assert_eq!(bench.ready(), ["a", "c"]);
    let (again, tries, item) = bench.take(500).expect("an item");
    assert!(again > b && tries == 2 && item == "a");
    for operation in [QueueOperation::Ack { receipt: a }, QueueOperation::Extend { receipt: a, lease_ms: 5 }] {
        assert_eq!(bench.answer(operation).0, Code::NoReceipt, "its lease has passed on");
    }
    assert_eq!(bench.queues.due(), Some(GroupTime(500_000_000)));
    assert_eq!(bench.answer(QueueOperation::Extend { receipt: again, lease_ms: 2000 }).0, Code::Ok);
    bench.pass(1000);
    assert_eq!(bench.ready(), ["b", "c"], "in its place");
    assert_eq!(bench.answer(QueueOperation::Ack { receipt: b }).0, Code::NoReceipt);
    assert_eq!(bench.answer(QueueOperation::Ack { receipt: again }).0, Code::Ok);
    bench.pass(5000);
    assert_eq!((bench.row(), bench.queues.due()), ((2, 0, 0, 0, 0), None));
}

#[test]
fn receipts_grow_within_a_slot_and_are_bounded() {
    let mut bench = Bench::default();
    bench.plain(&["a", "b", "c"]);
    bench.slot = 7;
    let take = QueueOperation::Take { target: JOBS, count: 2, lease_ms: 1, wait_ms: 0 };
    let (_, fields) = bench.answer(take);
    let receipts: Vec<_> = leased(&fields).into_iter().map(|(receipt, ..)| receipt.0).collect();
    assert_eq!(receipts, [8 * RECEIPTS_PER_SLOT, 8 * RECEIPTS_PER_SLOT + 1]);
    bench.slot = 7;
    assert_eq!(bench.take(1).expect("an item").0, Receipt(8 * RECEIPTS_PER_SLOT + 2));
    bench.queues.last_receipt = Receipt(9 * RECEIPTS_PER_SLOT - 1);
    bench.plain(&["d"]);
    bench.slot = 7;
    assert_eq!(bench.answer(take).0, Code::Busy);
    bench.slot = u64::MAX - 1;
    assert_eq!(bench.answer(take).0, Code::Busy, "the end of all receipts");
}

#[test]
fn what_comes_back_is_in_its_place_whatever_the_way() {
    let mut bench = Bench::default();
    let late = PushOptions { delay_ms: 100, ..PushOptions::default() };
    let urgent = PushOptions { priority: -7, ..PushOptions::default() };
    bench.plain(&["1"]);
    bench.push(&["2", "3"], late);
    bench.plain(&["4", "5"]);
    bench.push(&["6"], late);
    bench.push(&["0"], urgent);
    bench.push(&["9"], PushOptions { priority: 1, ..PushOptions::default() });
    assert_eq!(bench.ready(), ["0", "1", "4", "5", "9"]);
    assert_eq!(bench.row(), (5, 0, 3, 0, 0));
    let receipts: Vec<_> = (0..4).map(|_| bench.take(10_000).expect("an item").0).collect();
    bench.answer(QueueOperation::Bury { receipt: receipts[1] });
    bench.answer(QueueOperation::Nack { receipt: receipts[3], delay_ms: 300 });
    bench.pass(100);
    assert_eq!(bench.ready(), ["2", "3", "6", "9"]);
    bench.pass(300);
    assert_eq!(bench.ready(), ["2", "3", "5", "6", "9"]);
    assert_eq!(bench.answer(QueueOperation::Kick { target: JOBS, count: 5 }), (Code::Ok, vec![1]));
    bench.pass(10_000);
    assert_eq!(bench.ready(), ["0", "1", "2", "3", "4", "5", "6", "9"]);
    let popped = bench.answer(QueueOperation::Pop { target: JOBS, count: 100 }).1;
    assert_eq!(strings(&popped), ["0", "1", "2", "3", "4", "5", "6", "9"]);
    assert_eq!(bench.take(1), None);
}

#[test]
fn the_buried_are_shown_by_place_and_kicked_as_new() {
    let mut bench = Bench::default();
    bench.plain(&["a", "b", "c"]);
    let receipts: Vec<_> = (0..3).map(|_| bench.take(1000).expect("an item").0).collect();
    for receipt in receipts.into_iter().rev() {
        assert_eq!(bench.answer(QueueOperation::Bury { receipt }).0, Code::Ok);
    }
    let page = |bench: &Bench, after| {
        let (code, fields) = query(&bench.queues, QueueQuery::Buried { target: JOBS, after, count: 2 });
        assert_eq!(code, Code::Ok);
        let mut r = Reader::new(&fields);
        let count = r.varint("count").expect("a count");
        (0..count).map(|_| Dead::decode(&mut r).expect("dead")).map(|d| (d.place, d.tries)).collect::<Vec<_>>()
    };
    let first = page(&bench, None);
    assert_eq!(first.iter().map(|&(place, tries)| (place.number, tries)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    assert_eq!(page(&bench, Some(first[1].0)).len(), 1);
    assert_eq!(bench.answer(QueueOperation::Kick { target: JOBS, count: 2 }), (Code::Ok, vec![2]));
    assert_eq!((bench.ready(), bench.row().4), (vec!["a".into(), "b".into()], 1));
    assert_eq!(bench.take(1).expect("an item").1, 1);
    assert_eq!(bench.answer(QueueOperation::Kick { target: JOBS, count: 0 }).0, Code::BadRequest);
}

#[test]
fn a_key_counts_for_an_hour_and_a_refused_push_learns_none() {
    let mut bench = Bench::default();
    let keyed = PushOptions { key: Some(b"k"), ..PushOptions::default() };
    let limit = |most| QueueOperation::Limit { target: JOBS, items: Cap::At(most), bytes: Cap::Keep };
    bench.answer(limit(0));
    assert_eq!(bench.push(&["a"], keyed).0, Code::Full);
    bench.answer(limit(9));
    assert_eq!(bench.push(&["a", "b"], keyed), (Code::Ok, vec![2]));
    bench.answer(limit(2));
    assert_eq!(bench.push(&["a"], keyed), (Code::Ok, vec![0]), "known is known, however full");
    bench.answer(QueueOperation::Purge { target: JOBS });
    bench.pass(KEY_KNOWN_NS / 1_000_000 - 1);
    assert_eq!(bench.push(&["a"], keyed), (Code::Ok, vec![0]), "a purge does not forget it");
    bench.pass(1);
    assert_eq!(bench.push(&["a"], keyed), (Code::Ok, vec![1]));
}

#[test]
fn a_limit_counts_what_there_is_in_every_state() {
    let mut bench = Bench::default();
    bench.plain(&["aa", "bb"]);
    let limit = |items, bytes| QueueOperation::Limit { target: JOBS, items, bytes };
    assert_eq!(bench.answer(limit(Cap::At(1), Cap::At(5))).0, Code::Ok);
    assert_eq!(bench.push(&["x"], PushOptions::default()).0, Code::Full);
    let (receipt, ..) = bench.take(100).expect("an item");
    assert_eq!(bench.answer(QueueOperation::Pop { target: JOBS, count: 1 }).0, Code::Ok);
    assert_eq!(bench.push(&["x"], PushOptions::default()).0, Code::Full, "what is leased comes back");
    assert_eq!(bench.push(&[], PushOptions::default()).0, Code::Ok);
    bench.answer(limit(Cap::Lift, Cap::Keep));
    assert_eq!(bench.push(&["x", "yyy"], PushOptions::default()).0, Code::Full, "all or none");
    assert_eq!(bench.push(&["x", "yy"], PushOptions::default()).0, Code::Ok);
    assert_eq!(bench.push(&["z"], PushOptions { delay_ms: 5, ..PushOptions::default() }).0, Code::Full);
    bench.answer(QueueOperation::Ack { receipt });
    assert_eq!(bench.push(&["zz"], PushOptions { delay_ms: 5, ..PushOptions::default() }).0, Code::Ok);
    let (_, fields) = query(&bench.queues, QueueQuery::Limits { target: JOBS });
    assert_eq!(Limit::get(&mut Reader::new(&fields)), Ok(Limit { items: None, bytes: Some(5) }));
    assert!(bench.answer(QueueOperation::Purge { target: JOBS }) == (Code::Ok, vec![3]));
}

fn pop_wait(wait_ms: u64, count: usize) -> QueueOperation<'static> {
    QueueOperation::PopWait { target: JOBS, count, wait_ms }
}

#[test]
fn who_waited_longest_is_served_first() {
    let mut bench = Bench::default();
    for number in 1..=4 {
        assert_eq!(bench.ask(number, number, pop_wait(WAIT_FOR_EVER_MS, 2)), []);
    }
    assert_eq!(bench.row().3, 4);
    let mut bytes = Vec::new();
    QueueOperation::encode_push(&mut bytes, JOBS, ["a", "b", "c"].into_iter().map(str::as_bytes));
    let push = QueueOperation::decode(&bytes[1..]).expect("just written");
    let served = bench.ask(9, 9, push);
    let served: Vec<_> = served.iter().map(|(number, _, fields)| (*number, fields.len())).collect();
    assert_eq!(served, [(9, 0), (1, 5), (2, 3)]);
    // Session 3 is gone, 4 is away for a while: neither is served, neither holds anybody up.
    let session = |n| who(n, 0).session;
    bench.ask(5, 5, QueueOperation::Take { target: JOBS, count: 1, lease_ms: 50, wait_ms: 300 });
    bench.queues.ended(session(3), &mut Answers::default());
    bench.queues.attended(bench.at(), session(4), false, &mut Answers::default());
    assert_eq!(bench.row().3, 1);
    let copy = restored(&bench.queues);
    assert_eq!(copy.waiting.len(), 2);
    let served = bench.ask(9, 10, push);
    assert_eq!(served.iter().map(|told| told.0).collect::<Vec<_>>(), [10, 5]);
    assert_eq!(bench.ready(), ["b", "c"]);
    let mut out = Answers::default();
    bench.queues.attended(bench.at(), session(4), true, &mut out);
    assert_eq!(told(&out), [(4, Code::Ok, b"\x02\x01b\x01c".to_vec())]);
    // The lease of 5 ends: its item is for whoever waits by then.
    assert_eq!(bench.ask(6, 6, pop_wait(300, 1)), []);
    assert_eq!(bench.pass(50), [(6, Code::Ok, b"\x01\x01a".to_vec())]);
    assert!(bench.queues.waiting.is_empty() && bench.queues.due().is_none());
}

#[test]
fn a_wait_ends_by_its_time_or_with_its_queue() {
    let mut bench = Bench::default();
    assert_eq!(bench.ask(1, 1, pop_wait(100, 1)), []);
    assert_eq!(bench.ask(1, 2, pop_wait(50, 1)), []);
    assert_eq!(bench.ask(2, 3, pop_wait(WAIT_FOR_EVER_MS, 1)), []);
    assert_eq!(bench.pass(50).iter().map(|t| (t.0, t.1)).collect::<Vec<_>>(), [(2, Code::Empty)]);
    assert_eq!(bench.pass(50).iter().map(|t| (t.0, t.1)).collect::<Vec<_>>(), [(1, Code::Empty)]);
    let destroyed = bench.ask(9, 9, QueueOperation::Destroy { target: JOBS });
    assert_eq!(destroyed.iter().map(|t| (t.0, t.1)).collect::<Vec<_>>(), [(9, Code::Ok), (3, Code::NoQueue)]);
    assert!(bench.queues.waiting.is_empty());
    let nobody = QueueOperation::PopWait { target: Target::Id(77), count: 1, wait_ms: 5 };
    assert_eq!(bench.answer(nobody).0, Code::NoQueue);
    assert_eq!(bench.answer(QueueOperation::PopWait { target: JOBS, count: 1, wait_ms: 0 }).0, Code::NoQueue);
}

#[test]
fn spans_that_make_no_sense_are_told() {
    let mut bench = Bench::default();
    bench.plain(&["a"]);
    let (receipt, ..) = bench.take(1000).expect("an item");
    let long = SPAN_MS_MAX + 1;
    for operation in [
        QueueOperation::Take { target: JOBS, count: 1, lease_ms: 0, wait_ms: 0 },
        QueueOperation::Take { target: JOBS, count: 1, lease_ms: long, wait_ms: 0 },
        QueueOperation::Take { target: JOBS, count: 0, lease_ms: 1, wait_ms: 0 },
        QueueOperation::Nack { receipt, delay_ms: long },
        QueueOperation::Extend { receipt, lease_ms: 0 },
        QueueOperation::Extend { receipt, lease_ms: u64::MAX },
        pop_wait(long, 1),
        pop_wait(WAIT_FOR_EVER_MS, 0),
    ] {
        let before = snapshot(&bench.queues);
        assert_eq!(bench.answer(operation).0, Code::BadRequest, "{operation:?}");
        assert_eq!(snapshot(&bench.queues), before);
    }
    assert_eq!(bench.push(&["x"], PushOptions { delay_ms: long, ..PushOptions::default() }).0, Code::BadRequest);
}

#[test]
fn moments_are_looked_at_in_bounded_steps() {
    let mut bench = Bench::default();
    let many = 2 * MOMENTS_STEP + 5;
    let items = vec!["x"; BATCH_ITEMS_MAX];
    bench.plain(&items[..many]);
    bench.answer(QueueOperation::Take { target: JOBS, count: many, lease_ms: 10, wait_ms: 0 });
    assert_eq!(bench.row().1, many as u64);
    for left in [MOMENTS_STEP + 5, 5, 0] {
        bench.pass(10);
        assert_eq!(bench.row().1, left as u64);
    }
    assert_eq!(bench.queues.receipts.len(), 0);
}

#[test]
fn a_purge_of_leased_items_leaves_no_receipt() {
    let mut bench = Bench::default();
    bench.plain(&["x"; 4000]);
    let (_, fields) = bench.answer(QueueOperation::Take { target: JOBS, count: 3999, lease_ms: 10, wait_ms: 0 });
    let receipt = leased(&fields)[7].0;
    assert_eq!(bench.answer(QueueOperation::Purge { target: JOBS }).0, Code::Ok);
    assert_eq!(bench.answer(QueueOperation::Ack { receipt }).0, Code::NoReceipt);
    // A lease in another state is not touched by what is freed meanwhile.
    bench.plain(&["y"]);
    let (mine, ..) = bench.take(10_000).expect("an item");
    while !bench.queues.graveyard.is_empty() {
        bench.pass(1);
    }
    assert_eq!(bench.queues.receipts.len(), 1);
    assert_eq!(bench.answer(QueueOperation::Ack { receipt: mine }).0, Code::Ok);
}

#[test]
fn only_so_many_wait() {
    let mut queues = Queues::default();
    let mut bytes = Vec::new();
    pop_wait(WAIT_FOR_EVER_MS, 1).encode(&mut bytes);
    let mut out = Answers::default();
    for number in 0..=WAITERS_MAX as u64 {
        queues.apply(At::default(), who(number, number), &bytes[1..], &mut out);
    }
    assert_eq!(told(&out).iter().map(|t| (t.0, t.1)).collect::<Vec<_>>(), [(WAITERS_MAX as u64, Code::Busy)]);
}

/// What an operation is made of.
type Made = (u8, u8, u8, u16);

fn operation(made: Made, receipts: &[Receipt], out: &mut Vec<u8>) {
    let (what, count, session, ms) = made;
    let target = if session % 2 == 0 { JOBS } else { Target::Id(1) };
    let (count, ms) = (usize::from(count % 5), u64::from(ms % 200));
    let receipt = receipts.get(usize::from(session) % receipts.len().max(1)).copied().unwrap_or_default();
    let items: Vec<&[u8]> = vec![b"item"; count];
    let priority = i32::from(what >> 6) - 1;
    let key: Option<&[u8]> = (count == 3).then_some(b"key");
    let cap = |bit: u8| if what & bit == 0 { Cap::Lift } else { Cap::At(ms / 10) };
    let delay_ms = if ms > 100 { ms } else { 0 };
    match what % 12 {
        0..=1 => QueueOperation::encode_push(out, target, items.into_iter()),
        2..=3 => {
            let options = PushOptions { delay_ms, priority, key };
            QueueOperation::encode_push_with(out, target, &options, items.into_iter());
        }
        4 => QueueOperation::PopWait { target, count, wait_ms: delay_ms }.encode(out),
        5..=6 => QueueOperation::Take { target, count, lease_ms: ms, wait_ms: delay_ms }.encode(out),
        7 => QueueOperation::Ack { receipt }.encode(out),
        8 => QueueOperation::Nack { receipt, delay_ms }.encode(out),
        9 if ms > 100 => QueueOperation::Extend { receipt, lease_ms: ms }.encode(out),
        9 => QueueOperation::Bury { receipt }.encode(out),
        10 => QueueOperation::Kick { target, count }.encode(out),
        _ if ms > 180 => QueueOperation::Destroy { target }.encode(out),
        _ if ms > 160 => QueueOperation::Purge { target }.encode(out),
        _ => QueueOperation::Limit { target, items: cap(64), bytes: cap(128) }.encode(out),
    }
}

quickcheck! {
    /// However far it came, a copy made of its snapshot goes on as it does; receipts grow; nothing is both ready and
    /// waited for; and memory is counted right, for nothing is left when all is gone.
    fn a_copy_goes_on_alike(steps: Vec<Made>, copy_at: Vec<u8>) -> bool {
        let (mut one, mut other) = (Queues::default(), Queues::default());
        let (mut receipts, mut time) = (Vec::new(), 0);
        for (slot, made) in (1..).zip(steps) {
            time += u64::from(made.3 / 200) * 1_000_000;
            let at = At { slot: Slot(slot), position: 0, time: GroupTime(time) };
            let mut bytes = Vec::new();
            operation(made, &receipts, &mut bytes);
            let mut outs = [Answers::default(), Answers::default()];
            for (queues, out) in [&mut one, &mut other].into_iter().zip(&mut outs) {
                queues.tick(at, out);
                queues.apply(at, who(u64::from(made.2 % 4), slot), &bytes[1..], out);
                match made.3 % 7 {
                    0 => queues.ended(who(u64::from(made.2 % 3), 0).session, out),
                    1 => queues.attended(at, who(u64::from(made.2 % 3), 0).session, made.0 % 2 == 0, out),
                    _ => {}
                }
            }
            assert_eq!(told(&outs[0]), told(&outs[1]));
            if bytes.starts_with(&[1, 8]) {
                for (_, _, fields) in told(&outs[0]).iter().filter(|t| t.0 == slot && t.1 == Code::Ok) {
                    for (receipt, ..) in leased(fields) {
                        assert!(receipts.iter().all(|&earlier| earlier < receipt));
                        receipts.push(receipt);
                    }
                }
            }
            for queue in one.queues.values() {
                assert!(queue.contents.ready.is_empty() || queue.waiters.first().is_none());
            }
            if copy_at.contains(&(slot as u8)) {
                other = restored(&one);
            }
            assert_eq!((snapshot(&one), one.due()), (snapshot(&other), other.due()));
        }
        for (slot, id) in (1000..).zip(one.queues.keys().copied().collect::<Vec<_>>()) {
            let mut bytes = Vec::new();
            QueueOperation::Destroy { target: Target::Id(id.0) }.encode(&mut bytes);
            one.apply(At { slot: Slot(slot), ..At::default() }, who(9, slot), &bytes[1..], &mut Answers::default());
        }
        one.memory == 0 && one.waiting.is_empty() && one.receipts.is_empty() && one.due.is_empty()
    }

    fn any_damage_to_a_busy_state_is_an_error_or_another_state(steps: Vec<Made>, changes: Vec<(usize, u8)>) -> bool {
        let (mut queues, mut receipts) = (Queues::default(), Vec::new());
        for (slot, made) in (1..).zip(steps) {
            let at = At { slot: Slot(slot), position: 0, time: GroupTime(slot) };
            let (mut bytes, mut out) = (Vec::new(), Answers::default());
            operation(made, &receipts, &mut bytes);
            queues.apply(at, who(u64::from(made.2 % 4), slot), &bytes[1..], &mut out);
            receipts.extend(queues.receipts.keys().copied());
        }
        let mut bytes = snapshot(&queues);
        changes.iter().for_each(|&(at, value)| { let at = at % bytes.len(); bytes[at] = value });
        let mut copy = Queues::default();
        if copy.restore(&bytes).is_ok() {
            assert_eq!(snapshot(&copy), bytes);
            // Whatever it says, it can be gone on from.
            for ms in [0, 1 << 20, 1 << 40] {
                copy.tick(At { time: GroupTime(ms << 20), ..At::default() }, &mut Answers::default());
                copy.memory_bytes();
            }
            execute(&mut copy, QueueOperation::Purge { target: JOBS });
        }
        true
    }
}
