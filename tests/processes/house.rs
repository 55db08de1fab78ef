//! Housekeeping in running replicas: snapshots, and a log that is trimmed behind them (scenarios 23, 26 and 27).

use std::fs;

use crate::ftqc::until;
use crate::group::Group;
use crate::net::Net;

const MIB: u64 = 1 << 20;
/// Each round pushes and pops so many items of almost 1 MiB.
const ITEMS: usize = 30;
const ROUNDS: usize = 20;
/// Two snapshots are kept, and the log behind the older: twice the latest member's bound of 107 MiB, the segment in
/// use, and spare ones.
const DIRECTORY_MAX: u64 = 320 * MIB;

/// Names and sizes of a directory's files. One may go while this looks.
fn files(group: &Group, id: u8) -> Vec<(String, u64)> {
    let entries = fs::read_dir(group.data(id)).expect("a directory of a replica").flatten();
    let sizes = entries.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len())));
    sizes.map(|(name, bytes)| (name.to_string_lossy().into_owned(), bytes)).collect()
}

fn snapshots(group: &Group, id: u8) -> usize {
    files(group, id).iter().filter(|(name, _)| name.starts_with("snapshot-") && !name.contains("new")).count()
}

/// One item is forgotten while many times the log's bound passes on: the disk stays bounded. Whatever comes back, by
/// its own snapshot or with nothing at all, has that item, and the same digest.
#[test]
fn one_forgotten_item_among_many_that_pass_on() {
    let mut group = Group::start(Net::any("one_forgotten_item_among_many_that_pass_on"), 3);
    group.push(1, "forgotten");
    let body = "x".repeat((MIB - 100) as usize);
    for round in 0..ROUNDS {
        let lines: Vec<String> = (0..ITEMS).map(|n| format!("{round}.{n} {body}\n")).collect();
        let id = (round % 3) as u8 + 1;
        group.ask(id, &["-t", "60", "push", "passing"], lines.concat()).is(0, "");
        let popped = group.ask(id % 3 + 1, &["-t", "60", "pop", "-n", &ITEMS.to_string(), "passing"], "").ok();
        assert!(popped == lines.concat(), "round {round}: {} bytes came back", popped.len());
        for id in 1..=3 {
            let bytes: u64 = files(&group, id).iter().map(|(_, bytes)| bytes).sum();
            assert!(bytes <= DIRECTORY_MAX, "round {round}: replica {id} keeps {} MiB", bytes / MIB);
        }
    }
    (1..=3).for_each(|id| until("each has taken snapshots", || (snapshots(&group, id) > 0).then_some(())));
    let before = group.assert_agreement();
    group.crash_all();
    (1..=3).for_each(|id| group.launch(id));
    group.await_view(&[1, 2, 3]);
    let after = group.assert_agreement();
    assert_eq!((&after["digest_slot"], &after["digest"]), (&before["digest_slot"], &before["digest"]));
    // Nobody has the whole log any more: a state is what fills this one.
    group.crash(2);
    fs::remove_dir_all(group.data(2)).expect("a directory of a replica that is dead");
    group.launch(2);
    group.await_view(&[1, 2, 3]);
    let filled = group.assert_agreement();
    assert_eq!((&filled["digest_slot"], &filled["digest"]), (&before["digest_slot"], &before["digest"]));
    group.crash_all();
    (1..=3).for_each(|id| group.launch(id));
    group.await_view(&[1, 2, 3]);
    group.assert_items(2, &["forgotten"]);
    group.ask(3, &["size", "passing"], "").is(0, "0\n");
}
