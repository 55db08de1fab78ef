//! A daemon that cannot start says why in one line, with a status that tells whether trying again could help.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::ftqc::{run, Run};
use crate::group::Group;
use crate::net::Net;

const USAGE: i32 = 64;
const UNAVAILABLE: i32 = 69;
const CONFIGURATION: i32 = 78;

#[track_caller]
fn refused(command: Command, status: i32, reason: &str) {
    let Run { status: ended, stdout, stderr } = run(command, Vec::new());
    assert_eq!((ended, stdout.len()), (status, 0), "{stderr}");
    assert!(stderr.contains(reason), "{stderr:?} does not say {reason:?}");
}

#[track_caller]
fn bad_book(book: &str, reason: &str) {
    let group = Group::prepare(Net::any("bad books"), 1, &[]);
    fs::write(group.path().join("cluster"), book).expect("the place is ours");
    refused(group.ftqd(1), CONFIGURATION, reason);
    let mut check = group.ftqd(1);
    check.arg("--check");
    refused(check, CONFIGURATION, reason);
}

#[test]
fn books_that_make_no_sense() {
    bad_book("1 127.0.0.1:7400\n1 127.0.0.1:7401\n", "cluster:2: replica 1 is listed twice");
    bad_book("1 127.0.0.1:7400\n2 127.0.0.1:7400\n", "cluster:2: 127.0.0.1:7400 is the address of replica 1 already");
    bad_book("1 127.0.0.1\n", "cluster:1: bad address '127.0.0.1'");
    bad_book("1 127.0.0.1:70000\n", "bad address");
    bad_book("1 127.0.0.1:port\n", "bad address");
    bad_book("one 127.0.0.1:7400\n", "cluster:1: bad id 'one'");
    bad_book("0 127.0.0.1:7400\n", "bad id '0'");
    bad_book("1\n", "cluster:1: replica 1 has no address");
    bad_book("# nobody\n", "no replica is listed");
    bad_book("2 127.0.0.1:7400\n", "1");
}

#[test]
fn options_that_make_no_sense() {
    let group = Group::prepare(Net::any("options_that_make_no_sense"), 1, &[]);
    for (options, reason) in [
        (&["--heartbeat", "x"][..], "--heartbeat x"),
        (&["--durability", "paper"], "--durability paper"),
        (&["--nonsense"], "nonsense"),
        (&["--id", "2"], "id"),
        (&["extra"], "extra"),
    ] {
        let mut command = group.ftqd(1);
        command.args(options);
        refused(command, USAGE, reason);
    }
}

#[test]
fn a_book_that_is_not_there() {
    let group = Group::prepare(Net::any("a_book_that_is_not_there"), 1, &[]);
    fs::remove_file(group.path().join("cluster")).expect("it was there");
    refused(group.ftqd(1), CONFIGURATION, "cluster");
}

#[test]
fn a_data_directory_in_use() {
    let mut group = Group::start(Net::any("a_data_directory_in_use"), 1);
    let mut second = group.ftqd(1);
    second.args(["--socket", "none"]);
    // Options may be given once: the second replica has a command line of its own.
    let mut second = Command::new(second.get_program());
    second.args(["--id", "1", "--insecure", "--socket", "none", "--data"]).arg(group.data(1));
    second.arg("--cluster").arg(group.path().join("cluster"));
    refused(second, CONFIGURATION, "in use");
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    group.assert_alive();
}

#[test]
fn a_data_directory_of_another_replica() {
    let mut group = Group::start(Net::any("a_data_directory_of_another_replica"), 2);
    group.end(1, libc::SIGTERM);
    group.end(2, libc::SIGTERM);
    fs::remove_dir_all(group.data(2)).expect("it was there");
    fs::rename(group.data(1), group.data(2)).expect("it was there");
    refused(group.ftqd(2), CONFIGURATION, "belongs to replica 1");
    assert!(fs::read_dir(group.data(2)).expect("it was there").count() > 1, "nothing is touched");
}

#[test]
fn a_data_directory_that_cannot_be_written_to() {
    let group = Group::prepare(Net::any("a_data_directory_that_cannot_be_written_to"), 1, &[]);
    // Not even root can make directories in a file.
    fs::write(group.data(1), "a file").expect("the place is ours");
    refused(group.ftqd(1), CONFIGURATION, "data directory");
}

#[test]
fn a_port_in_use() {
    let group = Group::prepare(Net::any("a_port_in_use"), 1, &[]);
    let taken = TcpListener::bind(group.net.address(1)).expect("it is free");
    refused(group.ftqd(1), UNAVAILABLE, &group.net.address(1));
    drop(taken);
    let taken = std::net::UdpSocket::bind(group.net.address(1)).expect("it is free");
    refused(group.ftqd(1), UNAVAILABLE, &group.net.address(1));
    drop(taken);
}

#[test]
fn other_addresses_than_loopback_need_a_word() {
    let group = Group::prepare(Net::any("other_addresses_than_loopback_need_a_word"), 1, &[]);
    fs::write(group.path().join("cluster"), "1 192.0.2.1:7400\n").expect("the place is ours");
    let mut command = Command::new(group.ftqd(1).get_program());
    command.args(["--id", "1", "--socket", "none", "--data"]).arg(group.data(1));
    command.arg("--cluster").arg(group.path().join("cluster"));
    refused(command, CONFIGURATION, "--insecure");
}

#[test]
fn a_check_says_nothing_of_what_is_right() {
    let group = Group::prepare(Net::any("a_check_says_nothing_of_what_is_right"), 3, &[]);
    let mut check = group.ftqd(1);
    check.arg("--check");
    assert_eq!(run(check, Vec::new()).status, 0);
}

#[test]
fn a_check_finds_that_a_directory_cannot_be_made() {
    let group = Group::prepare(Net::any("a_check_finds_that_a_directory_cannot_be_made"), 1, &[]);
    let book = group.path().join("cluster");
    fs::write(&book, "1 127.0.0.1:7400\n").expect("the place is ours");
    let mut check = Command::new(group.ftqd(1).get_program());
    check.args(["--id", "1", "--check", "--cluster"]).arg(&book).arg("--data").arg(book.join("1"));
    refused(check, CONFIGURATION, "cannot be made in");
}

/// Replicas that were told different things never found a group, and say whose fault that may be.
#[test]
fn options_that_differ_between_replicas() {
    let mut group = Group::prepare(Net::any("options_that_differ_between_replicas"), 2, &[]);
    group.launch(1);
    group.launch_with(2, &["--min-members", "2"]);
    for (id, other) in [(1, "replica 2"), (2, "replica 1")] {
        let status = group.await_status(id, "the difference is told", |s| {
            s["reason"].as_str().is_some_and(|reason| reason.contains("another book"))
        });
        assert!(status["reason"].as_str().is_some_and(|reason| reason.contains(other)), "{status}");
    }
    group.ask(1, &["-t", "0", "qCreate", "jobs"], "").refuses(75, "ftqc: not-primary: ");
}

/// What a group was founded with stays.
#[test]
fn options_that_differ_from_those_of_the_founding() {
    let mut group = Group::start(Net::any("options_that_differ_from_those_of_the_founding"), 1);
    group.end(1, libc::SIGTERM);
    let mut command = group.ftqd(1);
    command.args(["--durability", "memory"]);
    refused(command, CONFIGURATION, "--durability");
    let mut check = group.ftqd(1);
    check.args(["--durability", "memory", "--check"]);
    refused(check, CONFIGURATION, "--durability");
    fs::write(group.path().join("cluster"), format!("1 {}\n", group.net.address(2))).expect("the place is ours");
    refused(group.ftqd(1), CONFIGURATION, "the book");
}

/// The files that a replica's memory is in, by name.
fn memory(group: &Group) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(group.data(1)).expect("it was there").map(|entry| entry.expect("it can be read"));
    let files = files.map(|entry| (entry.file_name().into_string().expect("our own name"), entry.path()));
    let wanted = files.filter(|(name, _)| name == "meta" || name.starts_with("log-"));
    let mut found: Vec<_> = wanted.map(|(name, path)| (name, fs::read(path).expect("it can be read"))).collect();
    found.sort();
    found
}

#[test]
fn a_start_that_is_refused_leaves_the_memory_as_it_was() {
    let mut group = Group::start(Net::any("a_start_that_is_refused_leaves_the_memory_as_it_was"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    group.end(1, libc::SIGTERM);
    let before = memory(&group);
    assert!(before.len() > 1, "meta and a log");
    let mut command = group.ftqd(1);
    command.args(["--partition", "majority"]);
    refused(command, CONFIGURATION, "--partition differs from what the group was founded with: there it is dynamic");
    assert!(memory(&group) == before, "the refused start wrote");
    group.launch(1);
    group.await_primary();
    group.ask(1, &["pop", "jobs"], "").is(0, "a\n");
}

/// Each start finds the damage that the first one found: what was lost must not be taken for never written.
#[test]
fn a_damaged_log_is_refused_however_often() {
    let mut group = Group::start(Net::any("a_damaged_log_is_refused_however_often"), 1);
    (0..9).for_each(|_| group.ask(1, &["push", "jobs", "a"], "").is(0, ""));
    group.crash(1);
    let (name, mut bytes) = memory(&group).into_iter().find(|(name, _)| name.starts_with("log-")).expect("a log");
    let records: Vec<usize> = (0..bytes.len() - 4).step_by(8).filter(|&at| bytes[at..].starts_with(b"ftqR")).collect();
    assert!(records.len() > 9, "{records:?}");
    // One in the midst, of which those behind it say that it was durable.
    bytes[records[records.len() / 2] + 20] ^= 1;
    fs::write(group.data(1).join(name), &bytes).expect("the place is ours");
    let before = memory(&group);
    for _ in 0..2 {
        refused(group.ftqd(1), CONFIGURATION, "the log is damaged");
        let mut check = group.ftqd(1);
        check.arg("--check");
        refused(check, CONFIGURATION, "the log is damaged");
    }
    assert!(memory(&group) == before, "a refused start wrote");
}

/// With the same book, but founded by others: told on both sides, and nothing is taken over.
#[test]
fn a_data_directory_of_another_group() {
    let mut group = Group::start(Net::any("a_data_directory_of_another_group"), 2);
    group.ask(1, &["push", "jobs", "old"], "").is(0, "");
    (1..=2).for_each(|id| assert_eq!(group.end(id, libc::SIGTERM), 0));
    let kept = group.path().join("kept");
    fs::rename(group.data(1), &kept).expect("it was there");
    fs::remove_dir_all(group.data(2)).expect("it was there");
    (1..=2).for_each(|id| group.launch(id));
    group.await_primary();
    assert_eq!(group.end(1, libc::SIGTERM), 0);
    fs::remove_dir_all(group.data(1)).expect("it was there");
    fs::rename(&kept, group.data(1)).expect("it was there");
    group.launch(1);
    group.await_status(1, "the other group is told of", |s| {
        s["reason"].as_str().is_some_and(|reason| reason.ends_with("there with another group's data: replica 2"))
    });
    let note = |s: &serde_json::Value| s["replicas"][0]["note"] == "is there with another group's data";
    group.await_status(2, "the other group is told of", note);
    group.ask(1, &["-t", "0", "push", "jobs", "new"], "").refuses(75, "ftqc: not-primary: ");
    group.assert_alive();
}
