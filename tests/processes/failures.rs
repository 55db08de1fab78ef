//! Crashes, pauses and restarts of replicas. Until views exist a group that has lost a member waits, and one that
//! has restarted a member orders no more: this is told, and everything acknowledged is still there.

use ftq::log::{replay, SegmentNumber};
use serde_json::Value;
use std::fs;

use crate::group::Group;
use crate::net::Net;

/// Everything that a replica had applied is in its log, slot for slot with the digest that it told.
#[track_caller]
fn assert_on_disk(group: &Group, id: u8, before: &Value) {
    let entries = fs::read_dir(group.data(id)).expect("a data directory");
    let mut segments: Vec<(SegmentNumber, Vec<u8>)> = entries
        .filter_map(|entry| {
            let path = entry.expect("a readable directory").path();
            let number = u64::from_str_radix(path.file_name()?.to_str()?.strip_prefix("log-")?, 16).ok()?;
            Some((SegmentNumber(number), fs::read(&path).expect("a readable file")))
        })
        .collect();
    segments.sort();
    let segments: Vec<(SegmentNumber, &[u8])> = segments.iter().map(|(n, bytes)| (*n, &bytes[..])).collect();
    let found = replay(&segments);
    assert_eq!(found.damaged, None);
    let slot = before["digest_slot"].as_u64().expect("a slot number");
    let record = found.records.iter().find(|view| view.record.slot.0 == slot).expect("the slot's record is there");
    assert_eq!(format!("{:016x}", record.record.digest.0), before["digest"], "replica {id}, slot {slot}");
}

/// What a restarted replica says of itself: it knows all, has applied what it knows to be committed, and no rank.
#[track_caller]
fn assert_back(group: &Group, id: u8, before: &Value) {
    let after = group.await_status(id, "it is back", |s| s["incarnation"] == 2 && s["state"] != "blank");
    assert!(after["slot"]["known"].as_u64() >= before["slot"]["known"].as_u64(), "{before} {after}");
    if after["digest_slot"] == before["digest_slot"] {
        assert_eq!(after["digest"], before["digest"], "{before} {after}");
    }
    assert_eq!((&after["primary"], &after["epoch"]), (&Value::Bool(false), &before["epoch"]), "{after}");
    let reason = after["reason"].as_str().expect("a reason");
    assert!(reason.contains("restarted"), "{reason}");
}

#[test]
fn a_group_that_lost_a_member_says_what_it_waits_for() {
    let mut group = Group::start(Net::any("a_group_that_lost_a_member_says_what_it_waits_for"), 3);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    group.crash(3);
    let status = group.await_status(1, "the loss is noticed", |s| s["primary"] == false);
    let reason = status["reason"].as_str().expect("a reason");
    assert!(reason.contains('3'), "{reason}");
    group.ask(1, &["-t", "0", "push", "jobs", "b"], "").refuses(75, "ftqc: not-primary: ");
    let refused = group.ask(2, &["-t", "0"], "qPush 1 b\n");
    assert!(refused.text().starts_with("! not-primary ") && refused.status == 75, "{refused:?}");
}

#[test]
fn everything_acknowledged_survives_a_crash_of_all() {
    let mut group = Group::start(Net::any("everything_acknowledged_survives_a_crash_of_all"), 3);
    let items: String = (0..5000).map(|n| format!("item {n}\n")).collect();
    group.ask(1, &["push", "jobs"], items).is(0, "");
    let before = group.assert_agreement();
    (1..=3).for_each(|id| group.crash(id));
    (1..=3).for_each(|id| assert_on_disk(&group, id, &before));
    (1..=3).for_each(|id| group.launch(id));
    (1..=3).for_each(|id| assert_back(&group, id, &before));
    group.assert_alive();
    (1..=3).for_each(|id| group.crash(id));
    (1..=3).for_each(|id| assert_on_disk(&group, id, &before));
}

#[test]
fn a_restarted_replica_has_its_data_and_no_rank() {
    let mut group = Group::start(Net::any("a_restarted_replica_has_its_data_and_no_rank"), 3);
    group.ask(1, &["push", "jobs", "a", "b", "c"], "").is(0, "");
    let before = group.assert_agreement();
    group.crash(2);
    assert_on_disk(&group, 2, &before);
    group.launch(2);
    assert_back(&group, 2, &before);
    group.ask(2, &["-t", "0", "push", "jobs", "d"], "").refuses(75, "ftqc: not-primary: ");
    group.await_status(1, "the others notice", |s| s["primary"] == false);
    group.ask(1, &["-t", "0", "push", "jobs", "d"], "").refuses(75, "ftqc: not-primary: ");
}

/// SIGTERM is a clean stop.
#[test]
fn a_clean_stop_loses_nothing() {
    let mut group = Group::start(Net::any("a_clean_stop_loses_nothing"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    let before = group.assert_agreement();
    assert_eq!(group.end(1, libc::SIGTERM), 0);
    assert_on_disk(&group, 1, &before);
    group.launch(1);
    assert_back(&group, 1, &before);
}

/// A replica that sleeps shorter than the suspicion time is only waited for; nothing is lost or done twice.
#[test]
fn a_paused_replica_is_waited_for() {
    let mut group = Group::start_with(Net::any("a_paused_replica_is_waited_for"), 3, &["--suspect-after", "20000"]);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    group.pause(3);
    // Slots of the sleeper's turn wait: enough operations one after another must come upon one.
    let lines: String = (0..9).map(|n| format!("qPush 1 {n}\n")).collect();
    let answers = std::thread::scope(|scope| {
        let pushing = scope.spawn(|| group.ask(1, &["-t", "60"], format!("{lines}qSize 1\n")));
        group.await_status(2, "something waits", |s| {
            s["slot"]["known"].as_u64() > s["slot"]["applied"].as_u64() || s["slot"]["known"].as_u64() >= Some(2)
        });
        group.resume(3);
        pushing.join().expect("the pusher is answered")
    });
    answers.is(0, &("ok\n".repeat(9) + "10\n"));
    group.assert_agreement();
    group.assert_alive();
}

/// Bootstrap needs everybody: nobody founds a group alone.
#[test]
fn nobody_founds_a_group_alone() {
    let mut group = Group::prepare(Net::any("nobody_founds_a_group_alone"), 3, &[]);
    group.launch(1);
    group.launch(3);
    let status = group.await_status(3, "it answers", |s| s["state"] == "blank");
    assert_eq!(status["primary"], false);
    group.ask(1, &["-t", "0", "qCreate", "jobs"], "").refuses(75, "ftqc: not-primary: ");
    group.launch(2);
    group.await_primary();
    group.ask(1, &["qCreate", "jobs"], "").is(0, "1\n");
}

/// Acknowledged from memory, the order is the same.
#[test]
fn durability_memory_orders_as_well() {
    let group = Group::start_with(Net::any("durability_memory_orders_as_well"), 3, &["--durability", "memory"]);
    let items: String = (0..5000).map(|n| format!("{n}\n")).collect();
    group.ask(1, &["push", "jobs"], items.clone()).is(0, "");
    assert!(group.ask(3, &["pop", "-n", "5000", "jobs"], "").ok() == items);
    assert_eq!(group.assert_agreement()["durability"], "memory");
}

#[test]
fn a_blocking_disk_orders_as_well() {
    let group = Group::start_with(Net::any("a_blocking_disk_orders_as_well"), 3, &["--disk", "blocking"]);
    group.ask(1, &["push", "jobs", "a", "b"], "").is(0, "");
    group.ask(2, &["pop", "-n", "2", "jobs"], "").is(0, "a\nb\n");
}
