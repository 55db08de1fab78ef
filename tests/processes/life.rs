//! An item's whole life by commands: leases and receipts, waits, delays, priorities, keys, limits, the buried; and what
//! makes no sense in any of them.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

use ftq::client::{Client, Server};
use serde_json::Value;

use crate::ftqc::{command, dies_with_us, ftqc, until, wait};
use crate::group::Group;
use crate::net::Net;

#[path = "../../src/client/example.rs"]
mod example;

/// The receipt and the item that a take printed.
fn taken(text: &str) -> (u64, String) {
    let (receipt, item) = text.trim_end_matches('\n').split_once(' ').expect("a receipt and an item");
    (receipt.parse().expect("a number"), item.to_owned())
}

/// A row of `queues`, from its id on, without its age.
fn row(group: &Group, label: &str) -> Vec<u64> {
    let table = group.ask(1, &["queues"], "").ok();
    let row = table.lines().find(|line| line.starts_with(&format!("{label}\t"))).expect("it is there").to_owned();
    let cells: Vec<u64> = row.split('\t').skip(1).map(|cell| cell.parse().expect("a number")).collect();
    cells[1..cells.len() - 1].to_vec()
}

/// Starts a command that waits, and waits until it is in line.
fn waiting(group: &Group, label: &str, args: &[&str], before: u64) -> Child {
    let mut command = command(&group.net.address(1), args);
    dies_with_us(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("ftqc is built");
    until("it is in line", || {
        let table = group.ask(1, &["queues"], "").ok();
        let row = table.lines().find(|line| line.starts_with(&format!("{label}\t")))?.to_owned();
        (row.split('\t').nth(5) == Some(&(before + 1).to_string())).then_some(())
    });
    child
}

fn ended(child: Child) -> (i32, String) {
    let mut child = child;
    let status = wait(&mut child, "a waiter ends");
    let output = child.wait_with_output().expect("it has ended");
    (status, String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn the_example_of_the_library_works() {
    let group = Group::start(Net::any("the_example_of_the_library_works"), 1);
    let servers = || Server::parse_list(&group.net.address(1)).expect("an address");
    example::work(servers()).expect("it works as it is shown");
    let mut client = Client::new(servers(), Duration::from_secs(10));
    assert_eq!(client.queues().expect("answered"), []);
}

#[test]
fn a_leased_item_is_hidden_until_it_is_acknowledged() {
    let group = Group::start(Net::any("a_leased_item_is_hidden_until_it_is_acknowledged"), 3);
    let ask = |args: &[&str]| group.ask(1, args, "");
    ask(&["push", "jobs", "a", "b", "c"]).is(0, "");
    let (first, item) = taken(&ask(&["take", "jobs"]).ok());
    assert_eq!(item, "a");
    let (second, item) = taken(&group.ask(2, &["take", "--lease", "30", "jobs"], "").ok());
    assert_eq!(item, "b");
    assert!(second > first, "a fencing token grows: {first}, {second}");
    assert_eq!(row(&group, "jobs")[..3], [1, 2, 0]);
    ask(&["size", "jobs"]).is(0, "1\n");
    ask(&["peek", "-n", "9", "jobs"]).is(0, "c\n");
    // Given back it is in its place; another lease of it has another receipt.
    ask(&["nack", &first.to_string()]).is(0, "ok\n");
    ask(&["peek", "-n", "9", "jobs"]).is(0, "a\nc\n");
    let (third, item) = taken(&ask(&["take", "jobs"]).ok());
    assert!(item == "a" && third > second);
    group.ask(3, &["ack", &first.to_string()], "").refuses(1, "ftqc: no-receipt: ");
    group.ask(3, &["ack", &third.to_string()], "").is(0, "ok\n");
    ask(&["ack", &third.to_string()]).refuses(1, "ftqc: no-receipt: ");
    ask(&["extend", &second.to_string(), "0.2"]).is(0, "ok\n");
    // It ends by itself, and the item is in its place again.
    until("the lease ends", || (group.ask(1, &["size", "jobs"], "").ok() == "2\n").then_some(()));
    ask(&["pop", "-n", "2", "jobs"]).is(0, "b\nc\n");
    for words in [&["ack"][..], &["nack"], &["bury"]] {
        ask(&[words, &[&second.to_string()]].concat()).refuses(1, "ftqc: no-receipt: ");
    }
    ask(&["extend", &second.to_string(), "5"]).refuses(1, "ftqc: no-receipt: ");
    group.assert_agreement();
}

#[test]
fn buried_items_are_listed_and_kicked() {
    let group = Group::start(Net::any("buried_items_are_listed_and_kicked"), 1);
    let ask = |args: &[&str]| group.ask(1, args, "");
    ask(&["push", "jobs", "a", "!b", "c"]).is(0, "");
    for _ in 0..2 {
        let (receipt, _) = taken(&ask(&["take", "jobs"]).ok());
        ask(&["bury", &receipt.to_string()]).is(0, "ok\n");
    }
    ask(&["dead", "jobs"]).is(0, "a\n!b\n");
    ask(&["-e", "dead", "jobs"]).is(0, "a\n\\!b\n");
    ask(&["-0", "dead", "jobs"]).is(0, "a\0!b\0");
    ask(&["size", "jobs"]).is(0, "1\n");
    let json: Value =
        serde_json::from_str(ask(&["-j", "dead", "jobs"]).ok().lines().next().expect("one")).expect("json");
    assert_eq!((&json["item"], &json["try"]), (&"a".into(), &1.into()));
    ask(&["kick", "-n", "1", "jobs"]).is(0, "1\n");
    ask(&["pop", "jobs"]).is(0, "a\n");
    ask(&["kick", "jobs"]).is(0, "1\n");
    ask(&["kick", "jobs"]).is(0, "0\n");
    ask(&["dead", "jobs"]).refuses(1, "ftqc: empty: ");
    ask(&["pop", "-n", "2", "jobs"]).is(0, "!b\nc\n");
    ask(&["dead", "nosuch"]).refuses(1, "ftqc: no-queue: ");
    ask(&["kick", "nosuch"]).refuses(1, "ftqc: no-queue: ");
}

#[test]
fn pushes_have_delays_priorities_and_keys() {
    let group = Group::start(Net::any("pushes_have_delays_priorities_and_keys"), 1);
    let ask = |args: &[&str]| group.ask(1, args, "");
    ask(&["push", "--delay", "0.3", "jobs", "late"]).is(0, "");
    ask(&["push", "jobs", "-5", "b"]).is(0, "");
    ask(&["push", "--priority", "-1", "jobs", "urgent", "too"]).is(0, "");
    ask(&["push", "--priority=1", "jobs", "some day"]).is(0, "");
    ask(&["peek", "-n", "9", "jobs"]).is(0, "urgent\ntoo\n-5\nb\nsome day\n");
    assert_eq!(row(&group, "jobs")[..3], [5, 0, 1]);
    until("the delay ends", || (group.ask(1, &["size", "jobs"], "").ok() == "6\n").then_some(()));
    ask(&["pop", "-n", "6", "jobs"]).is(0, "urgent\ntoo\nlate\n-5\nb\nsome day\n");
    ask(&["push", "-v", "--id", "k1", "jobs", "once", "both"]).is(0, "2\n");
    ask(&["push", "-v", "--id", "k1", "jobs", "once", "both"]).is(0, "0\n");
    group.ask(1, &["push", "-v", "--id", "k2", "jobs"], "from\nstdin").is(0, "2\n");
    group.ask(1, &["push", "-v", "--id", "k2", "jobs"], "from\nstdin").is(0, "0\n");
    ask(&["size", "jobs"]).is(0, "4\n");
    let many = "x\n".repeat(5000);
    group.ask(1, &["push", "--id", "k3", "jobs"], many.clone()).refuses(65, "ftqc: too-large: ");
    group.ask(1, &["push", "--priority", "7", "-v", "jobs"], many).is(0, "5000\n");
    ask(&["purge", "jobs"]).is(0, "5004\n");
}

#[test]
fn a_limit_is_exact_and_a_lower_one_takes_nothing() {
    let group = Group::start(Net::any("a_limit_is_exact_and_a_lower_one_takes_nothing"), 1);
    let ask = |args: &[&str]| group.ask(1, &[&["-t", "0"], args].concat(), "");
    ask(&["limit", "jobs", "items=3"]).is(0, "ok\n");
    ask(&["limit", "jobs"]).is(0, "items=3 bytes=none\n");
    ask(&["push", "jobs", "a", "b"]).is(0, "");
    let full = ask(&["push", "jobs", "c", "d"]);
    assert_eq!((full.status, full.text()), (75, ""), "{full:?}");
    assert!(full.stderr.contains("queue jobs holds 2 of at most 3 items"), "{full:?}");
    ask(&["push", "jobs", "c"]).is(0, "");
    ask(&["limit", "jobs", "items=1", "bytes=100"]).is(0, "ok\n");
    ask(&["pop", "jobs"]).is(0, "a\n");
    let (receipt, _) = taken(&ask(&["take", "jobs"]).ok());
    assert_eq!(ask(&["push", "jobs", "x"]).status, 75, "what is leased counts");
    ask(&["ack", &receipt.to_string()]).is(0, "ok\n");
    assert_eq!(ask(&["push", "jobs", "x"]).status, 75);
    ask(&["pop", "jobs"]).is(0, "c\n");
    ask(&["push", "jobs", "x"]).is(0, "");
    ask(&["limit", "jobs", "items=none", "bytes=2"]).is(0, "ok\n");
    ask(&["push", "jobs", "y"]).is(0, "");
    assert_eq!(ask(&["push", "jobs", "z"]).status, 75);
    let json: Value = serde_json::from_str(&ask(&["-j", "limit", "jobs"]).ok()).expect("an object");
    assert_eq!((&json["items"], &json["bytes"]), (&Value::Null, &2.into()));
    // With patience it is pushed as soon as there is room.
    let popping = waiting_push(&group);
    ask(&["pop", "jobs"]).is(0, "x\n");
    assert_eq!(ended(popping), (0, String::new()));
    ask(&["pop", "-n", "2", "jobs"]).is(0, "y\nz\n");
}

fn waiting_push(group: &Group) -> Child {
    let mut command = command(&group.net.address(1), &["-t", "30", "push", "jobs", "z"]);
    dies_with_us(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("ftqc is built")
}

#[test]
fn who_waited_longest_is_served_first_and_the_dead_hold_nobody_up() {
    let group = Group::start(Net::any("who_waited_longest_is_served_first_and_the_dead_hold_nobody_up"), 3);
    let ask = |args: &[&str]| group.ask(2, args, "");
    let mut dead = waiting(&group, "jobs", &["pop", "-w", "jobs"], 0);
    let first = waiting(&group, "jobs", &["pop", "-w", "jobs"], 1);
    let second = waiting(&group, "jobs", &["-j", "take", "--wait=60", "jobs"], 2);
    let third = waiting(&group, "jobs", &["pop", "-n", "3", "-w", "jobs"], 3);
    dead.kill().expect("our own child");
    dead.wait().expect("our own child");
    until("the dead one stands aside", || (row(&group, "jobs")[3] == 3).then_some(()));
    ask(&["push", "jobs", "a"]).is(0, "");
    assert_eq!(ended(first), (0, "a\n".into()));
    ask(&["push", "jobs", "b", "c", "d"]).is(0, "");
    let (status, leased) = ended(second);
    let leased: Value = serde_json::from_str(&leased).expect("an object");
    assert_eq!((status, &leased["item"], &leased["try"]), (0, &"b".into(), &1.into()));
    let receipt = leased["receipt"].as_u64().expect("a number");
    assert_eq!(receipt / 1_000_000, leased["slot"].as_u64().expect("a number"), "it contains the slot");
    ask(&["nack", &receipt.to_string()]).is(0, "ok\n");
    assert_eq!(ended(third), (0, "c\nd\nb\n".into()));
    ask(&["pop", "--wait=0.1", "jobs"]).refuses(1, "ftqc: empty: ");
    ask(&["take", "--wait", "0.1", "jobs"]).refuses(1, "ftqc: empty: ");
    group.assert_agreement();
}

#[test]
fn a_follower_prints_what_comes() {
    let group = Group::start(Net::any("a_follower_prints_what_comes"), 1);
    let mut follower = waiting(&group, "log", &["pop", "-n", "0", "-w", "log"], 0);
    let items: String = (0..1000).map(|n| format!("{n}\n")).collect();
    group.ask(1, &["push", "log"], items.clone()).is(0, "");
    let mut out = follower.stdout.take().expect("piped");
    let mut got = vec![0; items.len()];
    std::io::Read::read_exact(&mut out, &mut got).expect("all of it comes");
    assert_eq!(String::from_utf8(got).expect("text"), items);
    follower.kill().expect("our own child");
    follower.wait().expect("our own child");
    // For a time: what came until then, and that is all.
    group.ask(1, &["push", "log", "x"], "").is(0, "");
    group.ask(1, &["pop", "-n", "0", "--wait=0.2", "log"], "").is(0, "x\n");
}

#[test]
fn waits_outlast_their_replica() {
    let group = Group::start(Net::any("waits_outlast_their_replica"), 3);
    let servers = format!("{},{}", group.net.address(2), group.net.address(1));
    let mut command = command(&servers, &["-t", "50", "pop", "-w", "jobs"]);
    dies_with_us(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("ftqc is built");
    until("it is in line", || {
        let table = group.ask(1, &["queues"], "").ok();
        table.lines().any(|line| line.split('\t').nth(5) == Some("1")).then_some(())
    });
    // The replica it speaks to says nothing any more, long enough for the others to notice and for it to look around.
    group.pause(2);
    until("the others notice", || {
        let members = group.ask(1, &["-j", "members"], "").ok();
        let members: Value = serde_json::from_str(&members).expect("an array");
        (members[1]["heard_ms"].as_u64() >= Some(2_000)).then_some(())
    });
    group.resume(2);
    group.ask(3, &["-t", "50", "push", "jobs", "a"], "").is(0, "");
    assert_eq!(ended(child), (0, "a\n".into()));
    group.ask(3, &["size", "jobs"], "").is(0, "0\n");
}

#[test]
fn in_a_line_of_commands_they_have_their_answers() {
    let group = Group::start(Net::any("in_a_line_of_commands_they_have_their_answers"), 1);
    let mut talking = command(&group.net.address(1), &[]);
    dies_with_us(&mut talking).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = talking.spawn().expect("ftqc is built");
    let mut to = child.stdin.take().expect("piped");
    let lines = "push jobs a\ntake jobs\ntake jobs\nack 1\nlimit jobs items=1\nlimit jobs\ndead jobs\nkick jobs\n";
    to.write_all(lines.as_bytes()).expect("it reads");
    drop(to);
    let (status, text) = ended(child);
    let answers: Vec<&str> = text.lines().collect();
    assert_eq!((answers.len(), answers[0], status), (8, "ok", 1), "{text}");
    assert_eq!(taken(answers[1]).1, "a");
    assert!(answers[2].starts_with("! empty ") && answers[3].starts_with("! no-receipt "), "{text}");
    assert_eq!(answers[4..6], ["ok", "items=1 bytes=none"]);
    assert!(answers[6].starts_with("! empty ") && answers[7] == "0", "{text}");
}

#[test]
fn what_makes_no_sense_is_told() {
    let group = Group::start(Net::any("what_makes_no_sense_is_told"), 1);
    let ask = |args: &[&str]| ftqc(&group.net.address(1), args, "");
    ask(&["push", "jobs", "a"]).is(0, "");
    let (receipt, _) = taken(&ask(&["take", "jobs"]).ok());
    let receipt = receipt.to_string();
    assert_eq!(ask(&["ack", "-1"]).status, 64, "what begins with a dash is an option");
    for bad in ["x", "", "1.5", "18446744073709551616"] {
        ask(&["ack", bad]).refuses(65, "ftqc: bad-request: ");
        ask(&["extend", bad, "5"]).refuses(65, "ftqc: bad-request: ");
    }
    for never in ["0", "1", "18446744073709551615"] {
        ask(&["nack", never]).refuses(1, "ftqc: no-receipt: ");
    }
    for bad in ["0", "-1", "x", "1e99", "nan", "inf", ""] {
        ask(&["extend", &receipt, bad]).refuses(65, "ftqc: bad-request: ");
        assert_eq!(ask(&["take", "--lease", bad, "jobs"]).status, 64, "{bad}");
    }
    for bad in ["-1", "x", "1e99", "nan"] {
        assert_eq!(ask(&["pop", &format!("--wait={bad}"), "jobs"]).status, 64, "{bad}");
        assert_eq!(ask(&["push", "--delay", bad, "jobs", "x"]).status, 64, "{bad}");
        assert_eq!(ask(&["nack", "--delay", bad, &receipt]).status, 64, "{bad}");
    }
    for bad in ["1.5", "x", "99999999999", ""] {
        assert_eq!(ask(&["push", "--priority", bad, "jobs", "x"]).status, 64, "{bad}");
    }
    assert_eq!(ask(&["push", "--id", "", "jobs", "x"]).status, 64);
    assert_eq!(ask(&["push", "--id", &"k".repeat(256), "jobs", "x"]).status, 64);
    assert_eq!(ask(&["kick", "-n", "-1", "jobs"]).status, 64);
    for bad in ["items=-1", "items=", "items", "rows=5", "items=1e3", "bytes=18446744073709551616"] {
        ask(&["limit", "jobs", bad]).refuses(65, "ftqc: bad-request: ");
    }
    ask(&["limit", "nosuch"]).refuses(1, "ftqc: no-queue: ");
    ask(&["take", "nosuch"]).refuses(1, "ftqc: no-queue: ");
    assert_eq!(ask(&["ack"]).status, 64);
    // Nothing of all that was done, and nothing was lost.
    assert_eq!(row(&group, "jobs")[..3], [0, 1, 0]);
    ask(&["ack", &receipt]).is(0, "ok\n");
}
