//! Deaths one after the other, lost directories and long pauses: who may go on alone does, and who may not says what
//! it waits for.

use std::fs;
use std::path::PathBuf;
use std::thread;

use crate::group::Group;
use crate::net::Net;

fn wipe(group: &Group, id: u8) {
    fs::remove_dir_all(group.data(id)).expect("a directory of a replica that is dead");
}

#[test]
fn two_die_and_the_one_that_the_tie_break_names_goes_on() {
    let mut group = Group::start(Net::any("two_die_and_the_one_that_the_tie_break_names_goes_on"), 3);
    group.push(1, "by three");
    group.crash(1);
    group.await_view(&[2, 3]);
    group.push(2, "by two");
    group.crash(2);
    group.await_view(&[3]);
    group.push(3, "by one");
    // What these two have in common is older than the view of one: without 3 they are nothing.
    group.crash(3);
    [1, 2].iter().for_each(|&id| group.launch(id));
    [1, 2].iter().for_each(|&id| group.assert_refuses(id, "waiting for replica"));
    group.launch(3);
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    group.assert_items(1, &["by three", "by two", "by one"]);
}

#[test]
fn two_die_and_the_one_that_is_left_may_not_go_on() {
    let mut group = Group::start(Net::any("two_die_and_the_one_that_is_left_may_not_go_on"), 3);
    group.push(1, "by three");
    group.crash(3);
    group.await_view(&[1, 2]);
    group.push(1, "by two");
    group.crash(2);
    group.assert_refuses(1, "view {1} of {1,2}; waiting for replica 2");
    // Replica 3 has no vote in that.
    group.launch(3);
    group.assert_refuses(3, "waiting for replica");
    group.assert_refuses(1, "view {1} of {1,2}; waiting for replica 2");
    group.launch(2);
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    group.assert_items(3, &["by three", "by two"]);
}

#[test]
fn most_of_those_that_died_are_enough_to_go_on() {
    let mut group = Group::start(Net::any("most_of_those_that_died_are_enough_to_go_on"), 3);
    group.push(1, "before");
    group.crash_all();
    group.launch(1);
    group.assert_refuses(1, "2, 3");
    group.launch(2);
    group.await_view(&[1, 2]);
    group.push(1, "by two");
    group.launch(3);
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    group.assert_items(3, &["before", "by two"]);
}

#[test]
fn a_lost_directory_is_filled_by_the_others() {
    let mut group = Group::start(Net::any("a_lost_directory_is_filled_by_the_others"), 3);
    let items: String = (0..5000).map(|n| format!("item {n} {}\n", "x".repeat(n % 200))).collect();
    group.ask(2, &["push", "jobs"], items.clone()).is(0, "");
    for victim in [2, 3] {
        group.crash(victim);
        wipe(&group, victim);
        group.launch(victim);
        group.await_view(&[1, 2, 3]);
        group.assert_agreement();
    }
    // What those two now have is all there is.
    group.crash(1);
    group.await_view(&[2, 3]);
    let found = group.ask(3, &["-t", "60", "pop", "-n", "5000", "jobs"], "").ok();
    assert!(found == items, "{} bytes of {}", found.len(), items.len());
}

/// The files of a replica are put back from a backup while all are down. Another remembers that this one held more: it
/// takes a new birth, stops, and comes back as one that joins; nothing that the others acknowledged meanwhile is lost.
#[test]
fn files_put_back_from_a_backup_have_no_vote() {
    let mut group = Group::start(Net::any("files_put_back_from_a_backup_have_no_vote"), 3);
    group.push(1, "before");
    group.assert_agreement();
    group.crash_all();
    let backup = files(&group, 2);
    (1..=3).for_each(|id| group.launch(id));
    group.await_view(&[1, 2, 3]);
    let items: Vec<String> = (0..20).map(|n| format!("item {n}")).collect();
    items.iter().for_each(|item| group.push(3, item));
    group.assert_agreement();
    group.crash_all();
    // In place: the directory stays the one that `meta` names.
    for (path, _) in files(&group, 2) {
        fs::remove_file(path).expect("a file of a replica that is dead");
    }
    backup.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("the place is ours"));
    [1, 2].iter().for_each(|&id| group.launch(id));
    assert_eq!(group.await_end(2), 75);
    let log = group.log(2);
    assert!(log.contains("the data directory is an older copy of this replica's"), "{log}");
    group.launch(2);
    group.assert_refuses(1, "waiting for replica");
    group.launch(3);
    group.await_view(&[1, 2, 3]);
    group.assert_agreement();
    let all: Vec<&str> = std::iter::once("before").chain(items.iter().map(String::as_str)).collect();
    group.assert_items(2, &all);
}

/// The files of a replica's directory, with what is in them.
fn files(group: &Group, id: u8) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(group.data(id)).expect("a directory of a replica");
    let paths = entries.map(|entry| entry.expect("it can be listed").path()).filter(|path| path.is_file());
    paths.map(|path| (path.clone(), fs::read(&path).expect("its own file"))).collect()
}

/// Two directories are lost at once: the two could be a quorum, but remember nothing, and may not found a group beside
/// the one that remembers.
#[test]
fn two_lost_directories_found_no_group() {
    let mut group = Group::start(Net::any("two_lost_directories_found_no_group"), 3);
    group.push(1, "before");
    group.assert_agreement();
    group.pause(3);
    for id in [1, 2] {
        group.crash(id);
        wipe(&group, id);
    }
    group.resume(3);
    [1, 2].iter().for_each(|&id| group.launch(id));
    group.assert_refuses(3, "view {3} of {1,2,3}; waiting for replicas 1, 2");
    for id in [1, 2] {
        let status = group.await_status(id, "it says what it waits for", |s| s["reason"].is_string());
        assert_eq!((&status["primary"], &status["slot"]["applied"]), (&false.into(), &0.into()), "{status}");
        group.assert_refuses(id, "replica");
    }
    group.ask(3, &["-t", "0", "--stale", "peek", "jobs"], "").is(0, "before\n");
    group.assert_alive();
}

/// A replica sleeps for longer than the others wait, and its clients with it: they go on, and when it wakes it is back
/// and what it was asked is done once.
#[test]
fn a_sleeper_is_left_out_and_comes_back() {
    let mut group = Group::start(Net::any("a_sleeper_is_left_out_and_comes_back"), 3);
    for sleeper in [3, 1] {
        let others: Vec<u8> = (1..=3).filter(|&id| id != sleeper).collect();
        let label = format!("of{sleeper}");
        let items = |who: &str| -> String { (0..20_000).map(|n| format!("{who} {n}\n")).collect() };
        thread::scope(|scope| {
            let push = |id: u8, who: &str| {
                let (items, group, label) = (items(who), &group, &label);
                scope.spawn(move || group.ask(id, &["-t", "60", "push", label], items).is(0, ""))
            };
            let begun = group.status(others[0]).expect("it answers")["digest_slot"].as_u64();
            let mut pushers = vec![push(sleeper, "asleep"), push(others[0], "awake")];
            group.await_status(others[0], "something is done", |s| s["digest_slot"].as_u64() > begun);
            group.pause(sleeper);
            group.await_view(&others);
            pushers.push(push(others[1], "later"));
            group.ask(others[1], &["-t", "60", "push", "elsewhere", "done"], "").is(0, "");
            group.resume(sleeper);
            pushers.into_iter().for_each(|pusher| pusher.join().expect("each pusher comes to its end"));
        });
        group.await_view(&[1, 2, 3]);
        group.assert_agreement();
        let found = group.ask(sleeper, &["-t", "60", "pop", "-n", "60000", &label], "").ok();
        for who in ["asleep", "awake", "later"] {
            let of_one: String = found.lines().filter(|l| l.starts_with(who)).map(|l| format!("{l}\n")).collect();
            assert!(of_one == items(who), "{who}: {} lines", of_one.lines().count());
        }
        assert_eq!(found.lines().count(), 60_000);
    }
    group.assert_alive();
}
