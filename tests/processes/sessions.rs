//! `push --session`: killed at any moment and run again it pushes every line once and in order; and what becomes of
//! files and sessions that are damaged, foreign, in use, expired or invented.

use ftq::rng::Rng;
use ftq::types::{RequestNumber, SessionId, Slot};
use ftq::wire::answer::Code;
use ftq::wire::client::{first_frame, kind, ToClient, ToReplica};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::bad_frames::{encoded, welcomed};
use crate::ftqc::{command, dies_with_us, run, until, wait, Run};
use crate::group::Group;
use crate::net::Net;

/// All replicas of a group, for a client that moves on.
fn servers(group: &Group) -> String {
    (1..=group.size).map(|id| group.net.address(id)).collect::<Vec<_>>().join(",")
}

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("line {n} {}\n", "x".repeat((n % 90) as usize))).collect()
}

fn push(group: &Group, file: &Path, options: &[&str], input: &str) -> Run {
    let file = file.to_str().expect("our own path");
    run(command(&servers(group), &[options, &["push", "-v", "--session", file, "jobs"]].concat()), input.into())
}

fn file(group: &Group) -> PathBuf {
    group.path().join("position")
}

#[track_caller]
fn assert_holds(group: &Group, expected: &str) {
    let count = expected.lines().count();
    group.ask(1, &["size", "jobs"], "").is(0, &format!("{count}\n"));
    let found = group.ask(1, &["pop", "-n", &count.to_string(), "jobs"], "").ok();
    let differs = found.lines().zip(expected.lines()).position(|(a, b)| a != b);
    assert!(found == expected, "from line {differs:?} on");
}

/// The pusher dies at random moments, twenty times, and then comes to its end; `meanwhile` is called before each death.
fn push_through_deaths(group: &mut Group, mut meanwhile: impl FnMut(&mut Group, u32)) {
    let (input, file) = (lines(0, 60_000), file(group));
    let from = group.path().join("input");
    fs::write(&from, &input).expect("the place is ours");
    let mut rng = Rng::new(std::process::id().into());
    for round in 0..20 {
        let mut pushing =
            command(&servers(group), &["-t", "60", "push", "--session", file.to_str().expect("our own"), "jobs"]);
        let stdin = fs::File::open(&from).expect("it was just written");
        dies_with_us(&mut pushing).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut pushing = pushing.spawn().expect("the program is built");
        meanwhile(group, round);
        // Nothing waits for this: it only picks the moment of death.
        thread::sleep(Duration::from_micros(rng.below(40_000)));
        pushing.kill().expect("our own child");
        wait(&mut pushing, "it dies");
    }
    push(group, &file, &["-t", "60"], &input).is(0, "60000\n");
    push(group, &file, &[], &input).is(0, "60000\n");
    assert_holds(group, &input);
}

#[test]
fn a_push_that_is_killed_and_run_again_pushes_each_line_once() {
    let mut group = Group::start(Net::any("a_push_that_is_killed_and_run_again_pushes_each_line_once"), 3);
    push_through_deaths(&mut group, |_, _| ());
    group.assert_agreement();
}

/// The replicas die in turn as well, and now and then all of them at once.
#[test]
fn a_push_that_is_killed_and_run_again_while_replicas_die() {
    let mut group = Group::start(Net::any("a_push_that_is_killed_and_run_again_while_replicas_die"), 3);
    push_through_deaths(&mut group, |group, round| {
        let victims = if round % 7 == 6 { vec![1, 2, 3] } else { vec![(round % 3) as u8 + 1] };
        victims.iter().for_each(|&id| group.crash(id));
        victims.iter().for_each(|&id| group.launch(id));
        if round % 2 == 0 {
            group.await_view(&[1, 2, 3]);
        }
    });
    group.assert_agreement();
    group.assert_alive();
}

#[test]
fn an_input_that_grew_is_gone_on_with() {
    let group = Group::start(Net::any("an_input_that_grew_is_gone_on_with"), 1);
    let (file, whole) = (file(&group), lines(0, 300));
    push(&group, &file, &[], "").is(0, "0\n");
    push(&group, &file, &[], &whole[..whole.find("line 100 ").expect("it is there") - 1]).is(0, "100\n");
    push(&group, &file, &[], &whole).is(0, "300\n");
    assert_holds(&group, &whole);
    // Also long after all that was done: only the file knows.
    push(&group, &file, &[], &whole).is(0, "300\n");
    group.ask(1, &["size", "jobs"], "").is(0, "0\n");
}

#[test]
fn another_input_is_refused_and_nothing_is_pushed() {
    let group = Group::start(Net::any("another_input_is_refused_and_nothing_is_pushed"), 1);
    let (file, input) = (file(&group), lines(0, 50));
    push(&group, &file, &[], &input).is(0, "50\n");
    let other = "ftqc: bad-request: ";
    for wrong in
        [&input[1..], &input[..input.len() - 9], "", &input.replace("line 7 ", "line 8 "), &input.replace('\n', "")]
    {
        push(&group, &file, &[], wrong).refuses(65, other);
    }
    let unended = input.trim_end();
    push(&group, &file, &[], &format!("{unended}y\n")).refuses(65, other);
    push(&group, &file, &["-0"], &input).refuses(65, other);
    let path = file.to_str().expect("our own path");
    run(command(&servers(&group), &["push", "--session", path, "mail"]), input.clone().into()).refuses(65, other);
    push(&group, &file, &[], &input).is(0, "50\n");
    assert_holds(&group, &input);
}

#[test]
fn files_that_are_none_or_damaged_are_left_alone() {
    let group = Group::start(Net::any("files_that_are_none_or_damaged_are_left_alone"), 1);
    let (file, input) = (file(&group), lines(0, 50));
    push(&group, &file, &[], &input).is(0, "50\n");
    let good = fs::read_to_string(&file).expect("a file of text");
    let version = good.replace("version 2", "version 9");
    for (bad, why) in
        [(&good[1..], "session file"), (&good[..90], "damaged"), (&version, "version 9"), ("hello", "no ")]
    {
        fs::write(&file, bad).expect("it is ours");
        let refused = push(&group, &file, &[], &input);
        refused.refuses(65, "ftqc: bad-request: ");
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert_eq!(fs::read_to_string(&file).expect("it is there"), bad);
    }
    group.ask(1, &["size", "jobs"], "").is(0, "50\n");
    let nowhere = group.path().join("no/such/place");
    assert_eq!(push(&group, &nowhere, &[], &input).status, 66);
    assert_eq!(push(&group, group.path(), &[], &input).status, 74);
    fs::write(&file, good).expect("it is ours");
    push(&group, &file, &[], &input).is(0, "50\n");
}

#[test]
fn a_file_in_use_is_not_used_twice() {
    let group = Group::start(Net::any("a_file_in_use_is_not_used_twice"), 1);
    let file = file(&group);
    let path = file.to_str().expect("our own path");
    let mut first = command(&servers(&group), &["push", "--session", path, "jobs"]);
    dies_with_us(&mut first).stdin(Stdio::piped());
    let mut first = first.spawn().expect("the program is built");
    let mut to = first.stdin.take().expect("piped");
    to.write_all(b"a\n").expect("it reads");
    until("the first has pushed", || group.ask(1, &["size", "jobs"], "").text().starts_with('1').then_some(()));
    push(&group, &file, &[], "a\n").refuses(75, "ftqc: busy: ");
    run(command(&servers(&group), &["session", "end", path]), Vec::new()).refuses(75, "ftqc: busy: ");
    to.write_all(b"b\n").expect("it reads");
    drop(to);
    assert_eq!(wait(&mut first, "its input has ended"), 0);
    push(&group, &file, &[], "a\nb\nc\n").is(0, "3\n");
    assert_holds(&group, "a\nb\nc\n");
}

#[test]
fn a_file_of_another_group_is_refused() {
    let net = Net::any("a_file_of_another_group_is_refused");
    let group = Group::start(net, 1);
    let (file, input) = (file(&group), lines(0, 9));
    push(&group, &file, &[], &input).is(0, "9\n");
    let text = fs::read_to_string(&file).expect("a file of text");
    let kept = group.path().join("kept");
    fs::write(&kept, &text).expect("the place is ours");
    let mut group = group;
    group.crash(1);
    fs::remove_dir_all(group.data(1)).expect("it is ours");
    group.launch(1);
    group.await_primary();
    let longer = format!("{input}more\n");
    push(&group, &kept, &[], &longer).refuses(78, "ftqc: configuration: ");
    let path = kept.to_str().expect("our own path");
    run(command(&servers(&group), &["session", "end", path]), Vec::new()).refuses(78, "ftqc: configuration: ");
    assert_eq!(fs::read_to_string(&kept).expect("it is there").lines().next(), text.lines().next());
    group.ask(1, &["size", "jobs"], "").refuses(1, "ftqc: no-queue: ");
}

#[test]
fn a_session_is_ended_with_its_file() {
    let group = Group::start(Net::any("a_session_is_ended_with_its_file"), 1);
    let (file, input) = (file(&group), lines(0, 50));
    let path = file.to_str().expect("our own path");
    let end = || run(command(&servers(&group), &["session", "end", path]), Vec::new());
    assert_eq!(end().status, 66);
    push(&group, &file, &[], &input).is(0, "50\n");
    let copy = fs::read(&file).expect("it is there");
    end().is(0, "");
    assert!(!file.exists());
    // From a copy: nothing was under way when the session ended, so what is new goes into another one.
    fs::write(&file, copy).expect("the place is ours");
    let longer = lines(0, 60);
    push(&group, &file, &[], &longer).is(0, "60\n");
    end().is(0, "");
    assert_holds(&group, &longer);
}

/// The session is gone while something was under way: nobody can tell, and nothing is pushed again.
#[test]
fn a_session_that_is_gone_with_its_answers_is_told() {
    let group = Group::start(Net::any("a_session_that_is_gone_with_its_answers_is_told"), 1);
    group.ask(1, &["qCreate", "jobs"], "").is(0, "1\n");
    let (file, input) = (file(&group), lines(0, 50_000));
    let path = file.to_str().expect("our own path");
    group.pause(1);
    let servers = servers(&group);
    let cut_off = || run(command(&servers, &["-t", "1", "push", "--session", path, "jobs"]), input.clone().into());
    assert_eq!(cut_off().status, 69, "no session yet");
    group.resume(1);
    // Until the file says that something is under way, behind the first request, which only has the session kept.
    let mut pushing = command(&servers, &["push", "--session", path, "jobs"]);
    fs::write(group.path().join("input"), &input).expect("the place is ours");
    let stdin = fs::File::open(group.path().join("input")).expect("it was just written");
    let mut pushing = dies_with_us(&mut pushing).stdin(stdin).spawn().expect("the program is built");
    let text = until("something is under way", || {
        let text = fs::read_to_string(&file).ok();
        text.filter(|text| text.contains("\nsession ") && text.contains("\nsent ") && !text.contains("\nsent 1 "))
    });
    pushing.kill().expect("our own child");
    wait(&mut pushing, "it dies");
    let copy = group.path().join("copy");
    fs::write(&copy, text).expect("the place is ours");
    run(command(&servers, &["session", "end", path]), Vec::new()).is(0, "");
    let before = group.ask(1, &["size", "jobs"], "").ok();
    push(&group, &copy, &[], &input).refuses(79, "ftqc: expired: ");
    group.ask(1, &["size", "jobs"], "").is(0, &before);
}

/// A raw client that goes on with a session of its own making.
#[test]
fn an_invented_session_executes_nothing() {
    let mut group = Group::start(Net::any("an_invented_session_executes_nothing"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    let pop = [&[1, 4, 1, 4][..], b"jobs", &[1]].concat();
    let session = SessionId { slot: Slot(1), position: 9, digest: 1 };
    for keep in [false, true] {
        let request = ToReplica::Request { number: RequestNumber(1), seen: RequestNumber(0), operation: &pop };
        let mut stream = welcomed(&group);
        stream.write_all(&encoded(&[ToReplica::Use { session, keep }, request])).expect("a replica listens");
        let (mut bytes, mut said) = (Vec::new(), Vec::new());
        while said.len() < 2 {
            let mut some = [0; 4096];
            let count = stream.read(&mut some).expect("a replica answers");
            assert!(count > 0, "it hung up");
            bytes.extend_from_slice(&some[..count]);
            while let Ok(Some((frame, length))) = first_frame(&bytes) {
                said.push(match ToClient::decode(frame).expect("a sound frame") {
                    ToClient::Refused { refused, code, .. } => (refused, code as u8),
                    ToClient::Reply { answer, .. } => (kind::REQUEST, answer[0]),
                    frame => panic!("{frame:?}"),
                });
                bytes.drain(..length);
            }
        }
        let expired = Code::Expired as u8;
        assert_eq!(said, [(kind::USE, expired), (kind::REQUEST, expired)]);
    }
    group.ask(1, &["size", "jobs"], "").is(0, "1\n");
    group.assert_alive();
}
