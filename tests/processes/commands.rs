//! What people type and what they get: the FTQueue commands and the label commands, in pipe mode one line for each
//! line, as single commands with their exit status, over TCP and the Unix socket.

use crate::ftqc::{command, run};
use crate::group::Group;
use crate::net::Net;

#[test]
fn the_ftqueue_commands_answer_line_by_line() {
    let group = Group::start(Net::any("the_ftqueue_commands_answer_line_by_line"), 3);
    let talk = [
        ("qId jobs", "-1"),
        ("qCreate jobs", "1"),
        ("qCreate jobs", "1"),
        ("qId jobs", "1"),
        ("qSize 1", "0"),
        ("qPush 1 5", "ok"),
        ("qPush 1 -1", "ok"),
        ("qPush 1 ", "ok"),
        ("qPush 1 ! empty there is no item", "ok"),
        ("qPush 1 99999999999999999999999999", "ok"),
        ("qPush 1 two  words # no comment", "ok"),
        ("qSize 1", "6"),
        ("qTop 1", "5"),
        ("qPop 1", "5"),
        ("qTop 1", "-1"),
        ("qPop 1", "-1"),
        ("qPop 1", ""),
        ("qPop 1", "\\! empty there is no item"),
        ("qPop 1", "99999999999999999999999999"),
        ("qPop 1", "two  words # no comment"),
        ("qCreate 7", "2"),
        ("qId 7", "2"),
        ("qPush 2 in 7", "ok"),
        ("qDestroy 2", "ok"),
        ("qId 7", "-1"),
        ("qCreate 7", "3"),
        ("qSize 3", "0"),
        ("", ""),
        ("qSize 1", "0"),
    ];
    let lines: String = talk.iter().map(|(line, _)| format!("{line}\n")).collect();
    let answers: String = talk.iter().map(|(_, answer)| format!("{answer}\n")).collect();
    group.pipe(2, &lines).is(1, &answers);
    // What one replica did, all of them know.
    group.pipe(1, "qId jobs\nqId 7\n").is(0, "1\n3\n");
    group.pipe(3, "qId jobs\nqId 7\n").is(0, "1\n3\n");
}

#[test]
fn errors_take_their_answers_place() {
    let group = Group::start(Net::any("errors_take_their_answers_place"), 1);
    let lines = "qCreate jobs\nqPop 1\nqTop 1\nqPop 77\nqTop 77\nqSize 77\nqPush 77 x\nqDestroy 77\nqSize 1\n# told\n";
    let run = group.pipe(1, lines);
    let answers: Vec<&str> = run.text().lines().collect();
    assert_eq!(answers.len(), 9, "{answers:?}");
    assert_eq!((answers[0], answers[8]), ("1", "0"));
    assert!(answers[1..3].iter().all(|a| a.starts_with("! empty ")), "{answers:?}");
    assert!(answers[3..8].iter().all(|a| a.starts_with("! no-queue ")), "{answers:?}");
    assert_eq!(run.status, 1);
}

#[test]
fn single_commands_end_with_a_status() {
    let group = Group::start(Net::any("single_commands_end_with_a_status"), 1);
    let ask = |args: &[&str]| group.ask(1, args, "");
    ask(&["qId", "jobs"]).is(1, "-1\n");
    ask(&["qCreate", "jobs"]).is(0, "1\n");
    ask(&["qPush", "1", "-5"]).is(0, "ok\n");
    ask(&["qPush", "1", "two words"]).is(0, "ok\n");
    ask(&["qSize", "1"]).is(0, "2\n");
    ask(&["qTop", "1"]).is(0, "-5\n");
    ask(&["qPop", "1"]).is(0, "-5\n");
    ask(&["qPop", "1"]).is(0, "two words\n");
    ask(&["qPop", "1"]).refuses(1, "ftqc: empty: ");
    ask(&["qPop", "2"]).refuses(1, "ftqc: no-queue: ");
    ask(&["qDestroy", "1"]).is(0, "ok\n");
    ask(&["qDestroy", "1"]).refuses(1, "ftqc: no-queue: ");
    ask(&["push", "jobs", "-5", "a b", ""]).is(0, "");
    ask(&["size", "jobs"]).is(0, "3\n");
    ask(&["peek", "-n", "2", "jobs"]).is(0, "-5\na b\n");
    ask(&["pop", "-n", "5", "jobs"]).is(1, "-5\na b\n\n");
    ask(&["push", "jobs", "x", "y"]).is(0, "");
    ask(&["purge", "jobs"]);
    ask(&["size", "jobs"]).is(0, "0\n");
    let queues = ask(&["queues"]).ok();
    assert!(queues.contains("jobs"), "{queues}");
    assert_eq!(ask(&["drop", "jobs"]).status, 0);
    ask(&["size", "jobs"]).refuses(1, "ftqc: no-queue: ");
    assert_eq!(ask(&["--json", "qCreate", "j"]).ok().trim_end().chars().next(), Some('{'));
}

#[test]
fn items_are_any_bytes() {
    let group = Group::start(Net::any("items_are_any_bytes"), 1);
    let every_byte: Vec<u8> = (0..=255).collect();
    // Between NULs: all but NUL itself. As lines: all but the newline.
    let mut between: Vec<u8> = every_byte[1..].to_vec();
    between.push(0);
    group.ask(1, &["-0", "push", "bytes"], between.clone()).is(0, "");
    assert_eq!(group.ask(1, &["-0", "pop", "bytes"], "").stdout, between);
    let mut line: Vec<u8> = every_byte.iter().copied().filter(|&b| b != b'\n').collect();
    line.push(b'\n');
    group.ask(1, &["push", "bytes"], line.clone()).is(0, "");
    assert_eq!(group.ask(1, &["peek", "bytes"], "").stdout, line);
    // Escaped, and read back from what was printed.
    let escaped = group.ask(1, &["-e", "pop", "bytes"], "").stdout;
    assert!(escaped.starts_with(b"\\0\\x01"), "{escaped:?}");
    group.ask(1, &["-e", "push", "bytes"], escaped.clone()).is(0, "");
    assert_eq!(group.ask(1, &["pop", "bytes"], "").stdout, line);
    // The last line needs no end, and an empty one is an empty item.
    group.ask(1, &["push", "lines"], "a\n\nb").is(0, "");
    group.ask(1, &["pop", "-n", "3", "lines"], "").is(0, "a\n\nb\n");
}

#[test]
fn escapes_in_pipe_mode() {
    let group = Group::start(Net::any("escapes_in_pipe_mode"), 1);
    let lines = "qCreate e\nqPush 1 a\\nb\\\\\\0\\x7f\\!\nqTop 1\nqPush 1 \\q\nqPush 1 \\x4\nqSize 1\n";
    let run = group.pipe(1, lines);
    let answers: Vec<&str> = run.text().lines().collect();
    assert_eq!(answers[..3], ["1", "ok", "a\\nb\\\\\\0\\x7f!"], "{run:?}");
    assert!(answers[3].starts_with("! bad-request ") && answers[4].starts_with("! bad-request "), "{run:?}");
    assert_eq!((answers[5], run.status), ("1", 65), "what was refused was not done");
}

#[test]
fn the_unix_socket_and_tcp_show_the_same_queues() {
    let group = Group::start(Net::any("the_unix_socket_and_tcp_show_the_same_queues"), 3);
    let socket = group.socket(2);
    run(command(&socket, &["push", "jobs", "a", "b"]), Vec::new()).is(0, "");
    group.ask(3, &["pop", "jobs"], "").is(0, "a\n");
    run(command(&socket, &["pop", "jobs"]), Vec::new()).is(0, "b\n");
}

/// A server that is not there costs nothing but a try.
#[test]
fn the_next_server_is_tried() {
    let group = Group::start(Net::any("the_next_server_is_tried"), 1);
    let servers = format!("{},{}", group.net.address(9), group.net.address(1));
    run(command(&servers, &["push", "jobs", "a"]), Vec::new()).is(0, "");
    let nobody = run(command(&group.net.address(9), &["-t", "1", "size", "jobs"]), Vec::new());
    assert_eq!(nobody.status, 69, "{nobody:?}");
}

#[test]
fn json_has_an_object_a_line() {
    let group = Group::start(Net::any("json_has_an_object_a_line"), 1);
    let run = group.ask(1, &["--json"], "qCreate j\nqPush 1 x\nqPop 1\nqPop 1\n");
    let lines: Vec<serde_json::Value> =
        run.text().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    assert_eq!(lines.len(), 4, "{run:?}");
    assert!(lines[..3].iter().all(|l| l["ok"] == true && l["slot"].is_u64()), "{run:?}");
    assert_eq!(lines[2]["item"], "x");
    assert_eq!((&lines[3]["ok"], &lines[3]["error"]), (&false.into(), &"empty".into()), "{run:?}");
    assert_eq!(run.status, 1);
}
