//! `pop --session`: into a regular file every item comes once and in order, whoever dies; and what becomes of files
//! that are another's, in use, shorter than they should be, or none at all.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use ftq::rng::Rng;

use crate::ftqc::{command, dies_with_us, run, until, wait, Run};
use crate::group::Group;
use crate::net::Net;

fn servers(group: &Group) -> String {
    group.servers_from(1)
}

fn place(group: &Group, name: &str) -> (PathBuf, String) {
    let path = group.path().join(name);
    (path.clone(), path.to_str().expect("our own path").to_owned())
}

/// `pop --session position --output out` with these options from `jobs`.
fn pop(group: &Group, options: &[&str]) -> Run {
    let ((_, position), (_, out)) = (place(group, "position"), place(group, "out"));
    let fixed = ["pop", "--session", &position, "--output", &out];
    run(command(&servers(group), &[&fixed[..], options, &["jobs"]].concat()), Vec::new())
}

fn written(group: &Group) -> String {
    fs::read_to_string(group.path().join("out")).expect("text")
}

fn lines(from: u32, to: u32) -> String {
    (from..to).map(|n| format!("line {n} {}\n", "x".repeat((n % 90) as usize))).collect()
}

/// Starts one that waits for items.
fn waiting(group: &Group, args: &[&str]) -> Child {
    let mut command = command(&servers(group), args);
    dies_with_us(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().expect("ftqc is built")
}

fn kill(mut child: Child) {
    child.kill().expect("our own child");
    wait(&mut child, "it dies");
}

#[test]
fn a_pop_goes_on_where_it_was() {
    let group = Group::start(Net::any("a_pop_goes_on_where_it_was"), 1);
    group.ask(1, &["push", "jobs"], lines(0, 10_000)).is(0, "");
    pop(&group, &["-n", "5000"]).is(0, "");
    assert!(written(&group) == lines(0, 5000));
    // All of them are there; so many more than that are wanted now.
    pop(&group, &["-n", "5000"]).is(0, "");
    pop(&group, &["-n", "5001"]).is(0, "");
    assert!(written(&group) == lines(0, 5001));
    // What a death left behind is cut off.
    fs::write(group.path().join("out"), lines(0, 5001) + "line 50").expect("it is ours");
    pop(&group, &["-n", "20000"]).refuses(1, "ftqc: empty: after 10000 of 20000 items: ");
    assert!(written(&group) == lines(0, 10_000));
    group.ask(1, &["push", "jobs", "x"], "").is(0, "");
    pop(&group, &["-n", "0", "--wait=0.2"]).is(0, "");
    assert!(written(&group) == lines(0, 10_000) + "x\n");
    pop(&group, &["-n", "0"]).is(0, "");
    let (position, path) = place(&group, "position");
    let end = || run(command(&servers(&group), &["session", "end", &path]), Vec::new());
    end().is(0, "");
    assert!(!position.exists());
    assert_eq!(end().status, 66);
    pop(&group, &["-n", "1"]).refuses(65, "ftqc: bad-request: ");
}

#[test]
fn a_pop_that_is_killed_and_run_again_writes_each_item_once() {
    let mut group = Group::start(Net::any("a_pop_that_is_killed_and_run_again_writes_each_item_once"), 3);
    let ((_, position), (_, out)) = (place(&group, "position"), place(&group, "out"));
    let args = ["-t", "60", "pop", "-n", "0", "-w", "--session", &position, "--output", &out, "jobs"];
    let mut rng = Rng::new(std::process::id().into());
    for round in 0..20_u32 {
        group.ask(2, &["-t", "30", "push", "jobs"], lines(round * 3000, (round + 1) * 3000)).is(0, "");
        let popping = waiting(&group, &args);
        // Nothing waits for this: it only picks the moment of death.
        thread::sleep(Duration::from_micros(rng.below(30_000)));
        if round % 4 == 3 {
            group.crash(1);
            group.launch(1);
        }
        kill(popping);
    }
    let found = pop(&group, &["-t", "60", "-n", "60001", "--wait=0.1"]);
    assert_eq!(found.status, 1, "{}", found.stderr);
    assert!(written(&group) == lines(0, 60_000), "{}", found.stderr);
    group.await_view(&[1, 2, 3]);
    group.ask(1, &["size", "jobs"], "").is(0, "0\n");
    group.assert_agreement();
}

#[test]
fn whoever_waits_in_a_session_that_is_left_is_told_or_out() {
    let group = Group::start(Net::any("whoever_waits_in_a_session_that_is_left_is_told_or_out"), 1);
    let ((_, position), (_, out)) = (place(&group, "position"), place(&group, "out"));
    let waiters = |count: &str| {
        let row = || group.ask(1, &["queues"], "").ok().split('\t').nth(5).map(str::to_owned);
        until("so many wait", || (row().as_deref() == Some(count)).then_some(()));
    };
    let wait_for_ever = ["pop", "-n", "0", "-w", "--session", &position, "--output", &out, "jobs"];
    let popping = waiting(&group, &wait_for_ever);
    waiters("1");
    kill(popping);
    waiters("0");
    // One that does not wait finds nothing, and leaves nobody in line.
    pop(&group, &["-n", "2"]).refuses(1, "ftqc: empty: ");
    group.ask(1, &["push", "jobs", "a", "b", "c"], "").is(0, "");
    group.ask(1, &["pop", "jobs"], "").is(0, "a\n");
    pop(&group, &["-n", "1"]).is(0, "");
    assert_eq!(written(&group), "b\n");
    group.ask(1, &["pop", "jobs"], "").is(0, "c\n");
    // What comes while the one in line is dead waits for whoever goes on, be it to end the session.
    for items in ["d\ne\n", "f\n"] {
        let popping = waiting(&group, &wait_for_ever);
        waiters("1");
        kill(popping);
        waiters("0");
        group.ask(1, &["push", "jobs"], items).is(0, "");
        group.ask(1, &["size", "jobs"], "").is(0, &format!("{}\n", items.lines().count()));
        if items == "f\n" {
            run(command(&servers(&group), &["session", "end", &position]), Vec::new()).is(0, "");
        } else {
            pop(&group, &["-n", "2"]).is(0, "");
        }
        group.ask(1, &["size", "jobs"], "").is(0, "0\n");
    }
    assert_eq!(written(&group), "b\nd\ne\nf\n");
    // Who has enough already does not wait where an earlier one waited for more.
    fs::remove_file(&out).expect("it is ours");
    group.ask(1, &["push", "jobs", "g"], "").is(0, "");
    let popping = waiting(&group, &wait_for_ever);
    until("it has the item", || (fs::read_to_string(&out).is_ok_and(|text| text == "g\n")).then_some(()));
    kill(popping);
    pop(&group, &["-n", "1", "-w"]).is(0, "");
    waiters("0");
}

/// Killed between the group's answer and the output: the end of the session writes it.
#[test]
fn what_was_popped_and_not_written_is_written_at_the_end() {
    let group = Group::start(Net::any("what_was_popped_and_not_written_is_written_at_the_end"), 1);
    let ((file, position), (_, out)) = (place(&group, "position"), place(&group, "out"));
    group.ask(1, &["push", "jobs", "a", "b", "c", "d"], "").is(0, "");
    pop(&group, &["-n", "1"]).is(0, "");
    group.pause(1);
    let popping = waiting(&group, &["pop", "-n", "3", "--session", &position, "--output", &out, "jobs"]);
    let known = until("it is about to ask", || {
        let text = fs::read_to_string(&file).ok();
        text.filter(|text| text.contains("\nasked 2 "))
    });
    group.resume(1);
    until("it was answered", || (group.ask(1, &["size", "jobs"], "").ok() == "1\n").then_some(()));
    kill(popping);
    // As if it had died before it wrote anything.
    fs::write(&file, known).expect("it is ours");
    fs::write(group.path().join("out"), "a\nb").expect("it is ours");
    run(command(&servers(&group), &["session", "end", &position]), Vec::new()).is(0, "");
    assert_eq!(written(&group), "a\nb\nc\n");
    assert!(!file.exists());
    group.ask(1, &["pop", "jobs"], "").is(0, "d\n");
}

#[test]
fn into_a_pipe_it_goes_on_as_well() {
    let group = Group::start(Net::any("into_a_pipe_it_goes_on_as_well"), 1);
    let (_, position) = place(&group, "position");
    group.ask(1, &["push", "jobs", "a", "b", "c"], "").is(0, "");
    let pop = |options: &[&str]| {
        run(command(&servers(&group), &[&["pop", "--session", &position], options, &["jobs"]].concat()), Vec::new())
    };
    pop(&["-n", "1"]).is(0, "a\n");
    pop(&["-n", "1"]).is(0, "");
    pop(&["-0", "-n", "2"]).refuses(65, "ftqc: bad-request: ");
    pop(&["-n", "2"]).is(0, "b\n");
    let (_, out) = place(&group, "out");
    pop(&["-n", "3", "--output", &out]).refuses(65, "ftqc: bad-request: ");
    pop(&["-n", "9"]).is(1, "c\n");
}

#[test]
fn files_of_others_are_refused_and_nothing_is_popped() {
    let group = Group::start(Net::any("files_of_others_are_refused_and_nothing_is_popped"), 1);
    let ((file, position), (file_out, out)) = (place(&group, "position"), place(&group, "out"));
    group.ask(1, &["push", "jobs", "a", "b", "c"], "").is(0, "");
    let ask = |args: &[&str]| run(command(&servers(&group), args), b"x\ny\n".to_vec());
    let bad = "ftqc: bad-request: ";
    // An output that is there already, is none, or has no session.
    fs::write(&file_out, "mine\n").expect("the place is ours");
    pop(&group, &[]).refuses(65, bad);
    assert_eq!(written(&group), "mine\n");
    fs::remove_file(&file_out).expect("it is ours");
    let _listener = UnixListener::bind(group.path().join("socket")).expect("the place is ours");
    let socket = place(&group, "socket").1;
    for none in [group.path().to_str().expect("our own"), "/dev/null", &socket, &position] {
        ask(&["pop", "--session", &position, "--output", none, "jobs"]).refuses(65, bad);
    }
    assert_eq!(ask(&["pop", "--session", &position, "--output", "/no/such/place", "jobs"]).status, 66);
    ask(&["pop", "--output", &out, "jobs"]).refuses(64, "ftqc: usage: ");
    group.ask(1, &["size", "jobs"], "").is(0, "3\n");
    // A push's file given to a pop, and the other way round.
    let (_, pushed) = place(&group, "pushed");
    ask(&["push", "--session", &pushed, "mail"]).is(0, "");
    let other_way = ask(&["pop", "--session", &pushed, "--output", &out, "mail"]);
    other_way.refuses(65, bad);
    assert!(other_way.stderr.contains("this belongs to a push"), "{}", other_way.stderr);
    pop(&group, &[]).is(0, "");
    let other_way = ask(&["push", "--session", &position, "jobs"]);
    other_way.refuses(65, bad);
    assert!(other_way.stderr.contains("this belongs to a pop"), "{}", other_way.stderr);
    // Another queue, other options, an output that is not what it was.
    ask(&["pop", "--session", &position, "--output", &out, "mail"]).refuses(65, bad);
    for option in ["-0", "-e"] {
        pop(&group, &[option, "-n", "2"]).refuses(65, bad);
    }
    assert_eq!(pop(&group, &["-j", "-n", "2"]).status, 65);
    for changed in ["", "b\n", "b"] {
        fs::write(&file_out, changed).expect("it is ours");
        pop(&group, &["-n", "2"]).refuses(65, bad);
        assert_eq!(written(&group), changed);
    }
    fs::remove_file(&file_out).expect("it is ours");
    assert_eq!(pop(&group, &["-n", "2"]).status, 66);
    fs::write(&file_out, "a\n").expect("it is ours");
    // In use.
    let popping = waiting(&group, &["pop", "-n", "9", "-w", "--session", &position, "--output", &out, "jobs"]);
    until("it waits", || (written(&group) == "a\nb\nc\n").then_some(()));
    pop(&group, &["-n", "9"]).refuses(75, "ftqc: busy: ");
    let (_, second) = place(&group, "second");
    ask(&["pop", "--session", &second, "--output", &out, "mail"]).refuses(75, "ftqc: busy: ");
    kill(popping);
    // Damaged.
    let good = fs::read_to_string(&file).expect("text");
    fs::write(&file, good.replace("next", "nest")).expect("it is ours");
    pop(&group, &["-n", "9"]).refuses(65, bad);
    fs::write(&file, good).expect("it is ours");
    pop(&group, &["-n", "3"]).is(0, "");
    assert_eq!(written(&group), "a\nb\nc\n");
    group.ask(1, &["pop", "-n", "2", "mail"], "").is(0, "x\ny\n");
}

/// The session is gone while something was under way: nobody can tell, and nothing is popped again.
#[test]
fn a_pop_whose_session_is_gone_is_told() {
    let group = Group::start(Net::any("a_pop_whose_session_is_gone_is_told"), 1);
    let ((file, position), (_, out)) = (place(&group, "position"), place(&group, "out"));
    group.ask(1, &["push", "jobs", "a", "b", "c"], "").is(0, "");
    pop(&group, &["-n", "1"]).is(0, "");
    let popping = waiting(&group, &["pop", "-n", "9", "-w", "--session", &position, "--output", &out, "jobs"]);
    let known = until("it is about to wait", || {
        let text = fs::read_to_string(&file).ok();
        text.filter(|text| text.contains("\nasked 6 "))
    });
    kill(popping);
    run(command(&servers(&group), &["session", "end", &position]), Vec::new()).is(0, "");
    fs::write(&file, known).expect("the place is ours");
    group.ask(1, &["push", "jobs", "d"], "").is(0, "");
    pop(&group, &["-n", "9", "-w"]).refuses(79, "ftqc: expired: ");
    pop(&group, &["-n", "9"]).refuses(79, "ftqc: expired: ");
    assert_eq!(written(&group), "a\nb\nc\n");
    group.ask(1, &["pop", "jobs"], "").is(0, "d\n");
}
