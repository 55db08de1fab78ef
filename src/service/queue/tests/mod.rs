//! The queue as a service: operations and queries in, answers out.

mod life;

use super::*;
use crate::limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX};
use crate::types::Slot;
use crate::wire::answer::split;
use crate::wire::queue::{Items, QueueRow};
use quickcheck::quickcheck;

const JOBS: Target<'static> = Target::Label("jobs");

/// Applies an operation given with its service's byte, at a time in milliseconds.
fn apply_at(queues: &mut Queues, ms: u64, operation: &[u8]) -> (Code, Vec<u8>) {
    let mut out = Answers::default();
    let at = At { slot: Slot(1), position: 0, time: GroupTime(ms * 1_000_000) };
    queues.apply(at, Who { session: SessionId::NONE, number: Default::default() }, &operation[1..], &mut out);
    let (_, answer) = out.iter().next().expect("one answer");
    let (code, fields) = split(answer).expect("an answer");
    (code, fields.to_vec())
}

fn execute(queues: &mut Queues, operation: QueueOperation<'_>) -> (Code, Vec<u8>) {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    apply_at(queues, 0, &bytes)
}

fn push(queues: &mut Queues, target: Target<'_>, items: &[&[u8]]) -> (Code, Vec<u8>) {
    let mut bytes = Vec::new();
    QueueOperation::encode_push(&mut bytes, target, items.iter().copied());
    apply_at(queues, 0, &bytes)
}

fn create(queues: &mut Queues, label: &str) -> u64 {
    let (code, id) = execute(queues, QueueOperation::Create { label });
    assert_eq!(code, Code::Ok);
    Reader::new(&id).varint("id").expect("an id")
}

fn pop(queues: &mut Queues, target: Target<'_>, count: usize) -> Result<Vec<Vec<u8>>, (Code, String)> {
    items(execute(queues, QueueOperation::Pop { target, count }))
}

fn items((code, fields): (Code, Vec<u8>)) -> Result<Vec<Vec<u8>>, (Code, String)> {
    if code != Code::Ok {
        return Err((code, String::from_utf8(fields).expect("a text")));
    }
    let mut r = Reader::new(&fields);
    let items = Items::decode(&mut r, BATCH_ITEMS_MAX).expect("items");
    r.end("answer").expect("no more");
    Ok(items.iter().map(<[u8]>::to_vec).collect())
}

fn query(queues: &Queues, query: QueueQuery<'_>) -> (Code, Vec<u8>) {
    let (mut bytes, mut answer) = (Vec::new(), Vec::new());
    query.encode(&mut bytes);
    queues.query(&bytes[1..], &mut answer);
    let (code, fields) = split(&answer).expect("an answer");
    (code, fields.to_vec())
}

fn rows(queues: &Queues, after: &str) -> Vec<(String, u64, u64, u64, u64)> {
    let (code, fields) = query(queues, QueueQuery::List { after });
    assert_eq!(code, Code::Ok);
    assert!(fields.len() <= BATCH_BYTES_MAX);
    let (mut r, mut rows) = (Reader::new(&fields), Vec::new());
    while !r.is_empty() {
        let row = QueueRow::decode(&mut r).expect("a row");
        rows.push((row.label.to_string(), row.id, row.size, row.bytes, row.oldest_ms));
    }
    rows
}

fn snapshot(queues: &Queues) -> Vec<u8> {
    let mut out = Vec::new();
    queues.snapshot(&mut out);
    out
}

#[test]
fn an_id_is_positive_and_never_used_again() {
    let mut queues = Queues::default();
    let jobs = create(&mut queues, "jobs");
    assert!(jobs > 0);
    assert_eq!(create(&mut queues, "jobs"), jobs);
    assert_eq!(execute(&mut queues, QueueOperation::Destroy { target: Target::Id(jobs) }).0, Code::Ok);
    let again = create(&mut queues, "jobs");
    assert_ne!(again, jobs);
    // Not by way of a snapshot either.
    assert_eq!(execute(&mut queues, QueueOperation::Destroy { target: JOBS }).0, Code::Ok);
    let mut copy = Queues::default();
    copy.restore(&snapshot(&queues)).expect("just written");
    assert!(![jobs, again].contains(&create(&mut copy, "jobs")));
    assert_eq!(push(&mut copy, Target::Id(jobs), &[b"x"]).0, Code::NoQueue);
}

#[test]
fn a_label_is_not_an_id() {
    let mut queues = Queues::default();
    let seven = create(&mut queues, "7");
    let one = create(&mut queues, "1");
    assert_eq!((seven, one), (1, 2));
    push(&mut queues, Target::Label("1"), &[b"by label"]);
    push(&mut queues, Target::Id(1), &[b"by id"]);
    assert_eq!(pop(&mut queues, Target::Label("7"), 1), Ok(vec![b"by id".to_vec()]));
    assert_eq!(pop(&mut queues, Target::Id(2), 1), Ok(vec![b"by label".to_vec()]));
    let mut copy = Queues::default();
    copy.restore(&snapshot(&queues)).expect("just written");
    assert_eq!(query(&copy, QueueQuery::Id { label: "7" }), (Code::Ok, vec![1]));
}

#[test]
fn a_create_after_a_destroy_leaves_others_alone() {
    let mut queues = Queues::default();
    let (a, b) = (create(&mut queues, "a"), create(&mut queues, "b"));
    push(&mut queues, Target::Id(b), &[b"kept"]);
    execute(&mut queues, QueueOperation::Destroy { target: Target::Id(a) });
    let c = create(&mut queues, "c");
    assert!(c != a && c != b);
    assert_eq!(pop(&mut queues, Target::Id(b), 1), Ok(vec![b"kept".to_vec()]));
}

#[test]
fn errors_are_told_by_the_code_and_never_by_an_item() {
    let mut queues = Queues::default();
    let odd: [&[u8]; 5] = [b"-1", b"", b"! empty queue jobs is empty", &[0, 10, 13, 255], b"ok"];
    assert_eq!(push(&mut queues, JOBS, &odd), (Code::Ok, vec![]));
    for item in odd {
        assert_eq!(items(query(&queues, QueueQuery::Peek { target: JOBS, count: 1 })), Ok(vec![item.to_vec()]));
        assert_eq!(pop(&mut queues, JOBS, 1), Ok(vec![item.to_vec()]));
    }
    assert_eq!(pop(&mut queues, JOBS, 1), Err((Code::Empty, "queue jobs is empty".into())));
    assert_eq!(query(&queues, QueueQuery::Peek { target: JOBS, count: 1 }).0, Code::Empty);
    assert_eq!(query(&queues, QueueQuery::Size { target: JOBS }), (Code::Ok, vec![0]));
}

#[test]
fn a_queue_that_is_not_there_is_named() {
    let mut queues = Queues::default();
    create(&mut queues, "jobs");
    let before = snapshot(&queues);
    for (target, name) in [
        (Target::Id(0), "the id 0"),
        (Target::Id(99), "the id 99"),
        (Target::Id(u64::MAX), "the id 18446744073709551615"),
        (Target::Label("mail"), "labelled mail"),
    ] {
        let mut told = vec![
            execute(&mut queues, QueueOperation::Pop { target, count: 1 }),
            execute(&mut queues, QueueOperation::Destroy { target }),
            execute(&mut queues, QueueOperation::Purge { target }),
            query(&queues, QueueQuery::Peek { target, count: 1 }),
            query(&queues, QueueQuery::Size { target }),
        ];
        if let Target::Id(_) = target {
            told.push(push(&mut queues, target, &[b"lost"]));
        }
        for (code, text) in told {
            assert_eq!(code, Code::NoQueue);
            assert!(String::from_utf8(text).expect("a text").contains(name));
        }
    }
    assert_eq!(query(&queues, QueueQuery::Id { label: "mail" }), (Code::Ok, vec![0]));
    assert_eq!(snapshot(&queues), before);
}

#[test]
fn a_count_of_nothing_is_told() {
    let mut queues = Queues::default();
    push(&mut queues, JOBS, &[b"x"]);
    assert_eq!(execute(&mut queues, QueueOperation::Pop { target: JOBS, count: 0 }).0, Code::BadRequest);
    assert_eq!(query(&queues, QueueQuery::Peek { target: JOBS, count: 0 }).0, Code::BadRequest);
    assert_eq!(query(&queues, QueueQuery::Size { target: JOBS }), (Code::Ok, vec![1]));
}

#[test]
fn a_pop_is_bounded_by_count_and_bytes() {
    let mut queues = Queues::default();
    let (large, half) = (vec![b'l'; 1 << 20], vec![b'h'; BATCH_BYTES_MAX / 2 - 8]);
    push(&mut queues, JOBS, &[&large]);
    push(&mut queues, JOBS, &[&half]);
    push(&mut queues, JOBS, &[&half]);
    push(&mut queues, JOBS, &[b"1", b"2", b"3"]);
    assert_eq!(pop(&mut queues, JOBS, 10), Ok(vec![large]));
    assert_eq!(pop(&mut queues, JOBS, 10).map(|items| items.len()), Ok(5));
    push(&mut queues, JOBS, &[b"1", b"2", b"3"]);
    assert_eq!(pop(&mut queues, JOBS, 2), Ok(vec![b"1".to_vec(), b"2".to_vec()]));
}

#[test]
fn a_purge_tells_how_many_and_a_million_items_stall_nobody() {
    let mut queues = Queues::default();
    let id = create(&mut queues, "jobs");
    let batch = vec![&b"sixteen bytes..."[..]; BATCH_ITEMS_MAX];
    (0..256).for_each(|_| assert_eq!(push(&mut queues, JOBS, &batch).0, Code::Ok));
    assert!(queues.memory_bytes() < (256 * BATCH_ITEMS_MAX * 19) as u64);
    assert_eq!(queues.due(), None);
    let (code, count) = execute(&mut queues, QueueOperation::Purge { target: JOBS });
    assert_eq!((code, Reader::new(&count).varint("count")), (Code::Ok, Ok(256 * 4096)));
    assert_eq!(create(&mut queues, "jobs"), id);
    assert_eq!(query(&queues, QueueQuery::Size { target: JOBS }), (Code::Ok, vec![0]));
    // What is to be freed is no state: a replica that never had it goes on with the same bytes.
    let mut copy = Queues::default();
    copy.restore(&snapshot(&queues)).expect("just written");
    assert_eq!(copy.due(), None);
    let mut ticks = 0;
    while let Some(time) = queues.due() {
        for queues in [&mut queues, &mut copy] {
            queues.tick(At { slot: Slot(2), position: 0, time }, &mut Answers::default());
        }
        assert_eq!(snapshot(&queues), snapshot(&copy));
        ticks += 1;
    }
    assert!((4..10).contains(&ticks), "{ticks}");
    assert!(queues.memory_bytes() < 1000);
}

#[test]
fn the_list_has_a_row_for_each_queue_and_goes_on_after_a_label() {
    let mut queues = Queues::default();
    assert_eq!(rows(&queues, ""), []);
    let mut bytes = Vec::new();
    QueueOperation::encode_push(&mut bytes, JOBS, [&b"abc"[..], b"d"].into_iter());
    apply_at(&mut queues, 1_000, &bytes);
    apply_at(&mut queues, 2_000, &bytes);
    create(&mut queues, "-empty");
    queues.tick(At { time: GroupTime(3_500_000_000), ..At::default() }, &mut Answers::default());
    assert_eq!(rows(&queues, ""), [("-empty".into(), 2, 0, 0, 0), ("jobs".into(), 1, 4, 8, 2_500)]);
    assert_eq!(rows(&queues, "-empty").len(), 1);
    assert_eq!(pop(&mut queues, JOBS, 2).map(|items| items.len()), Ok(2));
    assert_eq!(rows(&queues, "a"), [("jobs".into(), 1, 2, 4, 1_500)]);

    let mut many = Queues::default();
    (0..5_000).for_each(|k| _ = create(&mut many, &format!("{k:0>200}")));
    let (mut after, mut found) = (String::new(), 0);
    while let Some(last) = rows(&many, &after).last() {
        found += rows(&many, &after).len();
        after.clone_from(&last.0);
    }
    assert_eq!(found, 5_000);
}

quickcheck! {
    fn garbage_changes_nothing_or_is_an_operation(garbage: Vec<Vec<u8>>) -> bool {
        let mut queues = Queues::default();
        push(&mut queues, JOBS, &[b"x"]);
        for bytes in garbage {
            let before = snapshot(&queues);
            let (code, _) = apply_at(&mut queues, 0, &[&[1], &bytes[..]].concat());
            assert!(code == Code::Ok || snapshot(&queues) == before);
            let mut answer = Vec::new();
            queues.query(&bytes, &mut answer);
            split(&answer).expect("an answer");
        }
        true
    }

    fn a_damaged_snapshot_is_an_error_or_another_state(changes: Vec<(usize, u8)>, cut: Option<usize>) -> bool {
        let mut queues = Queues::default();
        for label in ["a", "b", "c"] {
            push(&mut queues, Target::Label(label), &[b"x", b"", b"yy"]);
        }
        let mut bytes = snapshot(&queues);
        changes.iter().for_each(|&(at, value)| { let at = at % bytes.len(); bytes[at] = value });
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut % (bytes.len() + 1)));
        let mut copy = Queues::default();
        copy.restore(&bytes).is_err() || snapshot(&copy) == bytes
    }
}
