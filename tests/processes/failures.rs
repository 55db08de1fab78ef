//! Crashes, pauses, stops and restarts of replicas: the others go on, who returns is back in the view with the same
//! data, and everything acknowledged is still there.

use ftq::log::{replay, SegmentNumber};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::ftqc::{command, run_fed, Run};
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

/// The others go on without one that was killed; started again it is back, whichever it is.
#[test]
fn a_crashed_replica_is_done_without() {
    let mut group = Group::start(Net::any("a_crashed_replica_is_done_without"), 3);
    let mut items = String::new();
    let mut push = |group: &Group, id: u8, item: String| {
        group.ask(id, &["-t", "60", "push", "jobs", &item], "").is(0, "");
        items += &format!("{item}\n");
    };
    for victim in [3, 1, 2] {
        let others: Vec<u8> = (1..=3).filter(|&id| id != victim).collect();
        push(&group, victim, format!("before {victim}"));
        group.crash(victim);
        others.iter().for_each(|&id| push(&group, id, format!("without {victim} at {id}")));
        group.await_view(&others);
        group.assert_agreement_of(&others);
        group.launch(victim);
        group.await_view(&[1, 2, 3]);
        push(&group, victim, format!("after {victim}"));
    }
    group.assert_agreement();
    let count = items.lines().count().to_string();
    group.ask(2, &["pop", "-n", &count, "jobs"], "").is(0, &items);
    group.assert_alive();
}

#[test]
fn a_restarted_replica_is_back_with_the_same_data() {
    let mut group = Group::start(Net::any("a_restarted_replica_is_back_with_the_same_data"), 3);
    group.ask(1, &["push", "jobs", "a", "b", "c"], "").is(0, "");
    let before = group.assert_agreement();
    group.crash(2);
    assert_on_disk(&group, 2, &before);
    group.await_view(&[1, 3]);
    group.launch(2);
    assert!(group.await_view(&[1, 2, 3]) > before["epoch"].as_u64().expect("an epoch is a number"));
    let after = group.assert_agreement();
    assert_eq!((&after["digest_slot"], &after["digest"]), (&before["digest_slot"], &before["digest"]));
    assert_eq!(group.await_status(2, "it serves", |s| s["primary"] == true)["incarnation"], 2);
    group.ask(2, &["push", "jobs", "d"], "").is(0, "");
    group.ask(2, &["pop", "-n", "4", "jobs"], "").is(0, "a\nb\nc\nd\n");
}

/// Three clients push while all replicas are killed at once, and go on when they are back.
fn crash_all_under_load(group: &mut Group, order: [u8; 3]) {
    const AT_LEAST: usize = 20_000;
    let label = format!("jobs{order:?}").replace(' ', "");
    let queue = group.ask(1, &["-t", "60", "qCreate", &label], "").ok();
    let (queue, crashed) = (queue.trim().to_owned(), Arc::new(AtomicBool::new(false)));
    // Lines go on coming, if slowly, until some time after the crash.
    let feed = |id: u8| {
        let (queue, crashed) = (queue.clone(), crashed.clone());
        move |mut to: ChildStdin| {
            for count in 0.. {
                let last = count >= AT_LEAST && crashed.load(Ordering::SeqCst);
                writeln!(to, "qPush {queue} {id} {count}").expect("it reads");
                if last {
                    return count + 1;
                }
                if count > AT_LEAST {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            unreachable!("there is no last number");
        }
    };
    let before = group.assert_agreement();
    let answers: Vec<(Run, usize)> = thread::scope(|scope| {
        let pushing: Vec<_> = (1..=3)
            .map(|id| (group.servers_from(id), feed(id)))
            .map(|(servers, feed)| scope.spawn(move || run_fed(command(&servers, &["-t", "60"]), feed)))
            .collect();
        let wanted = before["digest_slot"].as_u64().map(|slot| slot + 1);
        group.await_status(1, "something is done", |s| s["digest_slot"].as_u64() >= wanted);
        group.crash_all();
        assert!(!pushing.iter().any(|p| p.is_finished()), "the load must last beyond the crash");
        crashed.store(true, Ordering::SeqCst);
        order.iter().for_each(|&id| group.launch(id));
        pushing.into_iter().map(|p| p.join().expect("a pusher is answered")).collect()
    });
    answers.iter().for_each(|(run, count)| run.is(0, &"ok\n".repeat(*count)));
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    let all: usize = answers.iter().map(|(_, count)| count).sum();
    let popped = group.ask(2, &["pop", "-n", &all.to_string(), &label], "").ok();
    for (id, (_, count)) in (1..=3).zip(&answers) {
        let of_one: Vec<&str> = popped.lines().filter_map(|item| item.strip_prefix(&format!("{id} "))).collect();
        assert!(of_one.iter().copied().eq((0..*count).map(|n| n.to_string())), "pusher {id}: {} items", of_one.len());
    }
    group.ask(3, &["size", &label], "").is(0, "0\n");
}

#[test]
fn everything_acknowledged_survives_a_crash_of_all() {
    let mut group = Group::start(Net::any("everything_acknowledged_survives_a_crash_of_all"), 3);
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        crash_all_under_load(&mut group, order);
    }
    let before = group.assert_agreement();
    group.crash_all();
    (1..=3).for_each(|id| assert_on_disk(&group, id, &before));
}

/// SIGTERM says goodbye: the others need not first suspect anything. The last one to go has everything, and so has
/// who is started again.
#[test]
fn a_clean_stop_leaves_at_once_and_loses_nothing() {
    // Longer than any watchdog: no silence is noticed.
    let patient = ["--suspect-after", "120000"];
    let mut group = Group::start_with(Net::any("a_clean_stop_leaves_at_once_and_loses_nothing"), 3, &patient);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    assert_eq!(group.end(2, libc::SIGTERM), 0);
    group.await_view(&[1, 3]);
    group.ask(3, &["push", "jobs", "b"], "").is(0, "");
    assert_eq!(group.end(3, libc::SIGTERM), 0);
    group.await_view(&[1]);
    group.ask(1, &["push", "jobs", "c"], "").is(0, "");
    let before = group.assert_agreement_of(&[1]);
    assert_eq!(group.end(1, libc::SIGTERM), 0);
    assert_on_disk(&group, 1, &before);
    [3, 2, 1].into_iter().for_each(|id| group.launch(id));
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    group.ask(2, &["pop", "-n", "3", "jobs"], "").is(0, "a\nb\nc\n");
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
