//! One order over a network that loses, doubles, delays, damages and swallows datagrams: what is pushed through
//! one replica is popped at another, each item once, in the order in which it was pushed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::thread;

use crate::ftqc::ftqc;
use crate::group::Group;
use crate::net::Net;
use crate::relay::{Faults, Relay};

fn numbers(count: u32) -> String {
    (1..=count).map(|n| format!("{n}\n")).collect()
}

/// Pushes through replica 1, pops at the last one, compares byte for byte.
#[track_caller]
fn through(group: &Group, label: &str, items: &str) {
    let last = group.size;
    group.ask(1, &["-t", "120", "push", label], items).is(0, "");
    let count = items.lines().count().to_string();
    let popped = group.ask(last, &["-t", "120", "pop", "-n", &count, label], "").ok();
    assert!(popped == items, "other items, or another order: {} bytes of {}", popped.len(), items.len());
    let rest = group.ask(1, &["pop", label], "");
    assert_eq!((rest.status, rest.text()), (1, ""), "nothing is left");
}

fn loses(test: &str, size: u8, percent: u8, count: u32) {
    let Some(net) = Net::private(test) else { return };
    let mut group = Group::start(net, size);
    group.net.lose(percent);
    through(&group, "jobs", &numbers(count));
    assert!(percent == 0 || group.net.swallowed() > 0, "the rule must be felt");
    group.net.lose(0);
    group.assert_agreement();
    group.assert_alive();
}

#[test]
fn three_replicas_on_a_clean_network() {
    loses("three_replicas_on_a_clean_network", 3, 0, 100_000);
}

#[test]
fn three_replicas_lose_every_twentieth_datagram() {
    loses("three_replicas_lose_every_twentieth_datagram", 3, 5, 50_000);
}

#[test]
fn three_replicas_lose_every_fifth_datagram() {
    loses("three_replicas_lose_every_fifth_datagram", 3, 20, 50_000);
}

#[test]
fn five_replicas_on_a_clean_network() {
    loses("five_replicas_on_a_clean_network", 5, 0, 50_000);
}

#[test]
fn five_replicas_lose_every_twentieth_datagram() {
    loses("five_replicas_lose_every_twentieth_datagram", 5, 5, 20_000);
}

#[test]
fn five_replicas_lose_every_fifth_datagram() {
    loses("five_replicas_lose_every_fifth_datagram", 5, 20, 20_000);
}

#[test]
fn a_million_items_while_every_tenth_datagram_is_lost() {
    loses("a_million_items_while_every_tenth_datagram_is_lost", 3, 10, 1_000_000);
}

#[test]
fn a_group_forms_while_every_fifth_datagram_is_lost() {
    let Some(net) = Net::private("a_group_forms_while_every_fifth_datagram_is_lost") else { return };
    net.lose(20);
    through(&Group::start(net, 5), "jobs", &numbers(100));
}

#[test]
fn items_of_a_mebibyte_span_datagrams() {
    let Some(net) = Net::private("items_of_a_mebibyte_span_datagrams") else { return };
    let group = Group::start(net, 3);
    group.net.lose(5);
    let mut items = String::new();
    for (n, length) in [1 << 20, 1, (1 << 20) - 1, 0, 70_000, 1 << 20].into_iter().enumerate() {
        let letter = char::from(b'a' + n as u8);
        (0..length).for_each(|_| items.push(letter));
        items.push('\n');
    }
    through(&group, "large", &items);
}

/// Datagrams grow only after a padded probe was answered, and shrink when the network swallows them after all.
#[test]
fn a_hole_for_datagrams_over_a_thousand_bytes() {
    let Some(net) = Net::private("a_hole_for_datagrams_over_a_thousand_bytes") else { return };
    let mut group = Group::start(net, 3);
    through(&group, "before", &numbers(20_000));
    group.net.mtu_hole(1000);
    through(&group, "in_the_hole", &numbers(20_000));
    assert!(group.net.swallowed() > 0, "the datagrams must have been larger");
    group.net.mtu_hole(60_000);
    through(&group, "after", &numbers(20_000));
    group.assert_alive();
}

#[test]
fn a_group_forms_in_a_hole() {
    let Some(net) = Net::private("a_group_forms_in_a_hole") else { return };
    net.mtu_hole(1000);
    through(&Group::start(net, 3), "jobs", &numbers(20_000));
}

/// Everything between replicas goes through a relay with these faults.
fn relayed(test: &str, size: u8, faults: Faults, count: u32) {
    let Some(net) = Net::private(test) else { return };
    let relay = Relay::start(&net, size, faults);
    let mut group = Group::start(net, size);
    through(&group, "jobs", &numbers(count));
    group.assert_agreement();
    group.assert_alive();
    let [taken, lost, doubled, damaged] = relay.stop();
    assert!(taken > 0, "the replicas must speak through the relay");
    assert_eq!(lost > 0, faults.lost > 0, "of {taken}");
    assert_eq!(doubled > 0, faults.doubled > 0, "of {taken}");
    assert_eq!(damaged > 0, faults.damaged > 0, "of {taken}");
}

#[test]
fn doubled_and_reordered_datagrams() {
    let faults = Faults { doubled: 30, late_us: 5_000, ..Faults::default() };
    relayed("doubled_and_reordered_datagrams", 3, faults, 30_000);
}

#[test]
fn everything_at_once() {
    let faults = Faults { lost: 10, doubled: 20, damaged: 20, late_us: 3_000 };
    relayed("everything_at_once", 5, faults, 10_000);
}

/// 64 clients at all replicas at once push to one queue, and 64 pop from it: each item once, and the items of one
/// pusher come to each popper in the pusher's order.
#[test]
fn sixty_four_clients_at_all_replicas() {
    const CLIENTS: usize = 64;
    const EACH: usize = 500;
    let Some(net) = Net::private("sixty_four_clients_at_all_replicas") else { return };
    let group = Group::start(net, 3);
    group.net.lose(5);
    let address = |client: usize| group.net.address((client % 3) as u8 + 1);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut items = String::new();
            (0..EACH).for_each(|n| writeln!(items, "{client} {n}").expect("a string grows"));
            let address = address(client);
            scope.spawn(move || ftqc(&address, &["-t", "60", "push", "jobs"], items).is(0, ""));
        }
    });
    assert_eq!(group.ask(1, &["size", "jobs"], "").ok(), format!("{}\n", CLIENTS * EACH));
    let popped: Vec<String> = thread::scope(|scope| {
        let poppers: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let address = address(client + 1);
                let count = EACH.to_string();
                scope.spawn(move || ftqc(&address, &["-t", "60", "pop", "-n", &count, "jobs"], "").ok())
            })
            .collect();
        poppers.into_iter().map(|p| p.join().expect("a popper gets its items")).collect()
    });
    let mut seen: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for items in popped {
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for item in items.lines() {
            let (client, n) = item.split_once(' ').expect("two numbers");
            let (client, n) = (client.parse().expect("a number"), n.parse().expect("a number"));
            let before = last.insert(client, n);
            assert!(before.is_none_or(|before| before < n), "client {client}: {n} after {before:?}");
            seen.entry(client).or_default().push(n);
        }
    }
    assert_eq!(seen.len(), CLIENTS);
    for (client, mut numbers) in seen {
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(0..EACH), "client {client}: each item exactly once");
    }
}
