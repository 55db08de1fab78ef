//! Partitions: full, one-way, of a single link, and flapping. One agreed subset serves, the others refuse and say
//! why, and when the network is whole again all are back without a restart.

use std::thread;

use crate::ftqc::until;
use crate::group::Group;
use crate::net::Net;

fn started(test: &str, size: u8) -> Option<Group> {
    Some(Group::start(Net::private(test)?, size))
}

/// The network is whole again: all serve together, and have the same state.
#[track_caller]
fn assert_whole(group: &mut Group) {
    group.net.heal();
    let all: Vec<u8> = (1..=group.size).collect();
    group.await_view(&all);
    group.assert_agreement();
    group.assert_alive();
}

#[test]
fn one_that_is_cut_off_refuses_and_follows_when_healed() {
    let Some(mut group) = started("one_that_is_cut_off_refuses_and_follows_when_healed", 3) else { return };
    group.push(1, "before");
    group.net.cut_apart(&[1], &[2, 3]);
    thread::scope(|scope| {
        // This client knows only the one that is cut off, and is patient.
        let patient = scope.spawn(|| group.ask(1, &["-t", "60", "push", "late", "patient"], ""));
        group.await_view(&[2, 3]);
        group.assert_refuses(1, "waiting for replicas 2, 3");
        group.ask(1, &["-t", "0", "--stale", "size", "jobs"], "").is(0, "1\n");
        group.push(2, "by 2");
        group.push(3, "by 3");
        assert!(!patient.is_finished(), "nothing is done at the one that is cut off");
        group.net.heal();
        patient.join().expect("the patient one is answered").is(0, "");
    });
    assert_whole(&mut group);
    group.push(1, "after");
    group.assert_items(1, &["before", "by 2", "by 3", "after"]);
    group.ask(2, &["pop", "-n", "2", "late"], "").is(1, "patient\n");
}

#[test]
fn the_half_with_the_highest_id_goes_on() {
    let Some(mut group) = started("the_half_with_the_highest_id_goes_on", 4) else { return };
    for (named, other) in [([3, 4], [1, 2]), ([1, 4], [2, 3])] {
        group.push(other[0], "whole");
        group.net.cut_apart(&named, &other);
        group.await_view(&named);
        let waiting = format!("waiting for replicas {}, {}", named[0], named[1]);
        other.iter().for_each(|&id| group.assert_refuses(id, &waiting));
        group.push(named[0], "half");
        group.assert_agreement_of(&named);
        assert_whole(&mut group);
        group.assert_items(other[1], &["whole", "half"]);
    }
}

/// Cut the ways, and one of these pairs serves; the one left out is told, does not disturb them, and is back when they
/// are open.
fn goes_on_as(test: &str, ways: &[(u8, u8)], pairs: &[[u8; 2]]) {
    let Some(mut group) = started(test, 3) else { return };
    group.push(1, "before");
    group.net.cut(ways);
    let serves = |pair: &&[u8; 2]| pair.iter().all(|&id| group.is_in_view(id, &pair[..]));
    let serve = *until(&format!("a view among {pairs:?}"), || pairs.iter().find(serves));
    let left_out = 6 - serve[0] - serve[1];
    let epoch = group.await_view(&serve);
    serve.iter().for_each(|&id| group.push(id, "meanwhile"));
    let told = group.await_status(left_out, "it is left out", |s| s["primary"] == false);
    assert!(told["reason"].is_string(), "{told}");
    group.ask(left_out, &["-t", "1", "push", "jobs", "refused"], "").refuses(75, "ftqc: not-primary: ");
    assert_eq!(group.await_view(&serve), epoch, "no endless changes of the view");
    assert_whole(&mut group);
    group.push(left_out, "after");
    group.assert_items(left_out, &["before", "meanwhile", "meanwhile", "after"]);
}

#[test]
fn a_single_link_is_cut_both_ways() {
    goes_on_as("a_single_link_is_cut_both_ways", &[(1, 2), (2, 1)], &[[2, 3], [1, 3]]);
}

#[test]
fn a_single_link_is_cut_one_way() {
    goes_on_as("a_single_link_is_cut_one_way", &[(1, 2)], &[[2, 3], [1, 3]]);
}

#[test]
fn a_single_link_is_cut_the_other_way() {
    goes_on_as("a_single_link_is_cut_the_other_way", &[(3, 2)], &[[1, 3], [1, 2]]);
}

/// Mute or deaf, the highest id is of no use: the two others go on.
#[test]
fn one_hears_nobody() {
    goes_on_as("one_hears_nobody", &[(1, 3), (2, 3)], &[[1, 2]]);
}

#[test]
fn nobody_hears_one() {
    goes_on_as("nobody_hears_one", &[(3, 1), (3, 2)], &[[1, 2]]);
}

/// A link that comes and goes, faster and slower than a suspicion: what is pushed meanwhile is there once.
#[test]
fn a_flapping_link_loses_nothing() {
    let Some(mut group) = started("a_flapping_link_loses_nothing", 3) else { return };
    let mut items = Vec::new();
    for round in 0..12_u8 {
        group.net.cut_apart(&[1], if round % 3 == 0 { &[2, 3] } else { &[2] });
        if round % 4 == 3 {
            group.await_view(&[2, 3]);
        }
        let (before, after) = (format!("cut {round}"), format!("healed {round}"));
        group.push(2 + round % 2, &before);
        group.net.heal();
        group.push(1 + round % 3, &after);
        items.extend([before, after]);
    }
    assert_whole(&mut group);
    group.assert_items(1, &items.iter().map(|item| &item[..]).collect::<Vec<_>>());
}
