//! Commands that make no sense get a clear error, and nothing is lost: what stands around them is done.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::ftqc::{command, dies_with_us, run, until, wait};
use crate::group::Group;
use crate::net::Net;

#[test]
fn lines_that_make_no_sense_are_told() {
    let group = Group::start(Net::any("lines_that_make_no_sense_are_told"), 1);
    let nonsense = [
        "explode",
        "qcreate jobs",
        "qCreate",
        "qCreate two words",
        "qPush",
        "qPush 1",
        "qPush one item",
        "qPush -1 item",
        "qPush 18446744073709551616 item",
        "qPop",
        "qPop x",
        "qPop 1 2",
        "qSize 1.5",
        "qId",
        "\u{7f}\u{1}",
    ];
    let mut lines = "qCreate jobs\nqPush 1 before\n".to_owned();
    nonsense.iter().for_each(|line| lines += &format!("{line}\n"));
    lines += "qPush 1 after\nqSize 1\n";
    let run = group.pipe(1, &lines);
    let answers: Vec<&str> = run.text().lines().collect();
    assert_eq!(answers.len(), nonsense.len() + 4, "{answers:#?}");
    for (line, answer) in nonsense.iter().zip(&answers[2..]) {
        assert!(answer.starts_with("! bad-request "), "{line:?}: {answer:?}");
    }
    assert_eq!(answers[answers.len() - 2..], ["ok", "2"]);
    assert_eq!(run.status, 65);
}

#[test]
fn single_commands_that_make_no_sense() {
    let group = Group::start(Net::any("single_commands_that_make_no_sense"), 1);
    group.ask(1, &["explode"], "").refuses(64, "ftqc: ");
    group.ask(1, &["qPop", "x"], "").refuses(65, "ftqc: bad-request: ");
    group.ask(1, &["qCreate", "two words"], "").refuses(65, "ftqc: bad-request: ");
    group.ask(1, &["qCreate", ""], "").refuses(65, "ftqc: bad-request: ");
    group.ask(1, &["qCreate", &"x".repeat(256)], "").refuses(65, "ftqc: ");
    group.ask(1, &["push", "a\tb", "item"], "").refuses(65, "ftqc: bad-request: ");
    group.ask(1, &["qCreate", &"x".repeat(255)], "").is(0, "1\n");
    assert_eq!(group.ask(1, &["--nonsense", "queues"], "").status, 64);
}

#[test]
fn items_over_a_mebibyte_are_refused_and_nothing_around_them() {
    let group = Group::start(Net::any("items_over_a_mebibyte_are_refused_and_nothing_around_them"), 3);
    let largest = "x".repeat(1 << 20);
    let lines = format!("qCreate jobs\nqPush 1 {largest}\nqPush 1 {largest}y\nqPush 1 z\nqSize 1\n");
    let run = group.pipe(1, &lines);
    let answers: Vec<&str> = run.text().lines().collect();
    assert_eq!((answers.len(), answers[0], answers[1]), (5, "1", "ok"), "{:?}", run.stderr);
    assert!(answers[2].starts_with("! too-large "), "{}", answers[2]);
    assert_eq!((answers[3], answers[4], run.status), ("ok", "2", 65));
    assert!(group.ask(2, &["qPop", "1"], "").ok() == largest + "\n");
    group.ask(2, &["qPop", "1"], "").is(0, "z\n");
}

/// A line of a million bytes is an item like any other; one that is no item is refused as a line.
#[test]
fn a_line_of_a_million_bytes() {
    let group = Group::start(Net::any("a_line_of_a_million_bytes"), 1);
    let line = "y".repeat(1_000_000);
    let run = group.pipe(1, &format!("{line}\nqCreate jobs\nqPush 1 {line}\nqPop 1\n"));
    let answers: Vec<&str> = run.text().lines().collect();
    assert_eq!(answers.len(), 4, "{}", run.stderr);
    assert!(answers[0].starts_with("! bad-request ") && answers[0].len() < 1000, "{}", answers[0]);
    assert!(answers[1..3] == ["1", "ok"] && answers[3] == line);
}

#[test]
fn nul_bytes_are_bytes() {
    let group = Group::start(Net::any("nul_bytes_are_bytes"), 1);
    let answers = group.ask(1, &[], &b"qCreate jobs\nqPush 1 a\0b\nqPop 1\nqCreate c\0d\n\0\nqSize 1\n"[..]);
    let answers: Vec<&str> = answers.text().lines().collect();
    assert_eq!(answers[..3], ["1", "ok", "a\\0b"]);
    assert!(answers[3].starts_with("! bad-request ") && answers[4].starts_with("! bad-request "), "{answers:?}");
    assert_eq!(answers[5..], ["0"]);
}

#[test]
fn bytes_that_are_no_text_are_items_but_no_labels() {
    let group = Group::start(Net::any("bytes_that_are_no_text_are_items_but_no_labels"), 1);
    let run = group.ask(1, &[], &b"qCreate jobs\nqPush 1 \xff\xfe\nqCreate \xff\nqSize 1\n"[..]);
    let answers: Vec<&str> = run.text().lines().collect();
    assert!(answers[2].starts_with("! bad-request "), "{answers:?}");
    assert_eq!((answers[1], answers[3]), ("ok", "1"));
    assert_eq!(group.ask(1, &["pop", "jobs"], "").stdout, b"\xff\xfe\n");
}

/// stdin that ends in the middle of a line: the line counts, and every answer comes.
#[test]
fn stdin_closed_half_way() {
    let group = Group::start(Net::any("stdin_closed_half_way"), 1);
    group.pipe(1, "qCreate jobs\nqPush 1 a\nqSize 1").is(0, "1\nok\n1\n");
    group.pipe(1, "").is(0, "");
    group.ask(1, &["push", "jobs"], "b\nc").is(0, "");
    group.ask(1, &["pop", "-n", "3", "jobs"], "").is(0, "a\nb\nc\n");
}

/// Whoever closes our stdout has seen enough: a quiet end, by the signal or as if by it.
#[test]
fn stdout_closed() {
    let group = Group::start(Net::any("stdout_closed"), 1);
    let items: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    group.ask(1, &["push", "jobs"], items).is(0, "");
    let mut popping = command(&group.net.address(1), &["pop", "-n", "200000", "jobs"]);
    dies_with_us(&mut popping).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = popping.spawn().expect("ftqc is built");
    let mut first = [0; 4];
    child.stdout.take().expect("piped").read_exact(&mut first).expect("an answer comes");
    assert_eq!(first, *b"0\n1\n");
    let status = wait(&mut child, "ftqc ends when nobody listens");
    assert_eq!(status, 128 + libc::SIGPIPE);
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(said, "");
    // At most 256 items are popped ahead of what was written; a pipe holds 64 KiB.
    let left: u32 = group.ask(1, &["size", "jobs"], "").ok().trim().parse().expect("a number");
    assert!(left > 150_000, "{left}");
}

/// Whoever waits for items while its reader leaves ends then, not with the next item.
#[test]
fn stdout_closed_while_it_waits() {
    let group = Group::start(Net::any("stdout_closed_while_it_waits"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    for args in [&["pop", "-n", "0", "-w", "jobs"][..], &["pop", "-w", "jobs"], &["take", "-w", "jobs"]] {
        let mut waiting = command(&group.net.address(1), args);
        dies_with_us(&mut waiting).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = waiting.spawn().expect("ftqc is built");
        let mut stdout = child.stdout.take().expect("piped");
        if args.contains(&"0") {
            let mut first = [0; 2];
            stdout.read_exact(&mut first).expect("an answer comes");
            assert_eq!(first, *b"a\n");
        }
        let waiters = || group.ask(1, &["queues"], "").ok().split('\t').nth(5).map(str::to_owned);
        until("it waits", || (waiters().as_deref() == Some("1")).then_some(()));
        drop(stdout);
        assert_eq!(wait(&mut child, "nobody reads"), 128 + libc::SIGPIPE, "{args:?}");
    }
    group.ask(1, &["push", "jobs", "b"], "").is(0, "");
    group.ask(1, &["pop", "jobs"], "").is(0, "b\n");
}

/// Whoever has no stdout at all loses nothing.
#[test]
fn no_stdout() {
    let group = Group::start(Net::any("no_stdout"), 1);
    group.ask(1, &["push", "jobs", "a"], "").is(0, "");
    let mut popping = command(&group.net.address(1), &["pop", "jobs"]);
    // SAFETY: close is async-signal-safe and touches no memory.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut popping, || {
            libc::close(1);
            Ok(())
        });
    }
    let mut child = dies_with_us(&mut popping).stdin(Stdio::null()).spawn().expect("ftqc is built");
    assert_eq!(wait(&mut child, "it ends at once"), 74);
    group.ask(1, &["size", "jobs"], "").is(0, "1\n");
}

#[test]
fn misuse_is_told_in_json_too_and_quit_ends_a_pipe() {
    let group = Group::start(Net::any("misuse_is_told_in_json_too_and_quit_ends_a_pipe"), 1);
    for args in [&["-j", "nosuch"][..], &["-j", "--nosuch"], &["--json", "pop"], &["pop", "-j", "-n", "x", "jobs"]] {
        let run = group.ask(1, args, "");
        let line: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one object");
        assert_eq!((run.status, &line["error"], &line["done"]), (64, &"usage".into(), &"no".into()), "{run:?}");
    }
    let run = group.ask(1, &["-j", "-k", "nosuch", "size", "jobs"], "");
    let line: serde_json::Value = serde_json::from_slice(&run.stdout).expect("one object");
    assert_eq!((run.status, &line["error"], run.stderr.as_str()), (78, &"configuration".into(), ""), "{run:?}");
    group.ask(1, &["-j"], "quit\n").is(0, "{\"ok\":true}\n");
    for word in ["quit", "exit"] {
        group.ask(1, &[], format!("qSize 9\n{word}\nqId jobs\n")).is(1, "! no-queue no queue has the id 9\nok\n");
    }
}

/// A command is answered as soon as it was typed, not when stdin ends.
#[test]
fn a_pipe_answers_line_for_line() {
    let group = Group::start(Net::any("a_pipe_answers_line_for_line"), 1);
    let mut talking = command(&group.net.address(1), &[]);
    dies_with_us(&mut talking).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = talking.spawn().expect("ftqc is built");
    let (mut to, mut from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
    for (line, answer) in [("qCreate jobs\n", "1\n"), ("qPush 1 x\n", "ok\n"), ("qPop 1\n", "x\n")] {
        to.write_all(line.as_bytes()).expect("it reads");
        let mut got = vec![0; answer.len()];
        from.read_exact(&mut got).expect("it answers");
        assert_eq!(got, answer.as_bytes());
    }
    drop(to);
    assert_eq!(wait(&mut child, "ftqc ends with its input"), 0);
}

#[test]
fn servers_that_make_no_sense() {
    for servers in ["nonsense", "127.0.0.1:99999", ""] {
        let ended = run(command(servers, &["-t", "0", "queues"]), Vec::new());
        assert!([64, 69, 78].contains(&ended.status), "{servers:?}: {ended:?}");
        assert!(ended.stderr.starts_with("ftqc: "), "{ended:?}");
    }
}
