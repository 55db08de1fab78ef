//! `ftqc chat`: what each line answers, messages that come while a client waits for input, and that nothing is lost,
//! overtakes another or comes twice unmarked when clients and replicas die.

use ftq::client::{Client, Code, Server};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::ftqc::{command, dies_with_us, ftqc, until, wait};
use crate::group::Group;
use crate::net::Net;
use crate::terminal::Terminal;

/// Ends what hangs; nothing is measured by it.
const WATCHDOG: Duration = Duration::from_secs(60);

/// All replicas, beginning with this one.
fn from(group: &Group, first: u8) -> String {
    let ids = (first..=group.size).chain(1..first);
    ids.map(|id| group.net.address(id)).collect::<Vec<_>>().join(",")
}

/// A client in the middle of its conversation.
struct Talk {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Talk {
    /// A client that speaks to this replica first.
    fn start(group: &Group, first: u8) -> Talk {
        Talk::with(group, first, &["-t", "30", "chat"])
    }

    fn with(group: &Group, first: u8, args: &[&str]) -> Talk {
        let mut command = command(&from(group, first), args);
        dies_with_us(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program is built");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Talk { child, stdin, lines }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it was not ended");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("the client reads");
    }

    #[track_caller]
    fn hears(&mut self, line: &str) {
        match self.lines.recv_timeout(WATCHDOG) {
            Ok(heard) => assert_eq!(heard, line),
            Err(e) => panic!("{e}: waiting for {line:?}"),
        }
    }

    #[track_caller]
    fn ask(&mut self, line: &str, answer: &str) {
        self.say(line);
        self.hears(answer);
    }

    /// Nothing more is said; its exit status.
    #[track_caller]
    fn end(mut self) -> i32 {
        drop(self.stdin.take());
        let status = wait(&mut self.child, "the conversation ends");
        assert_eq!(self.lines.recv_timeout(WATCHDOG).ok(), None, "no more is said");
        status
    }

    fn kill(mut self) {
        self.child.kill().expect("our own child");
        wait(&mut self.child, "it dies");
    }
}

/// Lines of a conversation, and what is answered to all of them.
fn talk(group: &Group, lines: &str) -> (i32, String) {
    let run = ftqc(&from(group, 1), &["-t", "30", "chat"], lines);
    (run.status, run.text().to_owned())
}

#[test]
fn every_line_is_answered() {
    let group = Group::start(Net::any("every_line_is_answered"), 3);
    let talk = [
        ("0|", "ok 0 accounts"),
        ("1|alice", "ok account alice made, logged in"),
        ("3|", "ok logged out"),
        ("1|alice", "! exists there is an account called alice"),
        ("2|bob", "! no-account no account is called bob"),
        ("5|alice|hello", "! bad-request not logged in"),
        ("6|", "! bad-request not logged in"),
        ("4|", "! bad-request not logged in"),
        ("1|bob", "ok account bob made, logged in"),
        ("2|alice", "! bad-request logged in as bob already: log out first"),
        ("5|alice|hello|you ", "ok queued"),
        ("5|alice|", "ok queued"),
        ("5|carol|hello", "! no-account no account is called carol"),
        ("6|", "ok 0 delivered"),
        ("3|", "ok logged out"),
        ("2|alice", "ok logged in, 2 queued"),
        ("6|", "message|bob|hello|you \nmessage|bob|\nok 2 delivered"),
        ("6|", "ok 0 delivered"),
        ("0|", "account|alice\naccount|bob\nok 2 accounts"),
        ("0|b", "account|bob\nok 1 accounts"),
        ("0|ob", "ok 0 accounts"),
        ("4|", "ok account deleted, 0 undelivered"),
        ("2|alice", "! no-account no account is called alice"),
        ("2|bob", "ok logged in, 0 queued"),
        ("5|bob|to myself", "ok sent"),
        ("4|", "message|bob|to myself\nok account deleted, 0 undelivered"),
        ("0|", "ok 0 accounts"),
    ];
    let lines: String = talk.iter().map(|(line, _)| format!("{line}\n")).collect();
    let answers: String = talk.iter().map(|(_, answer)| format!("{answer}\n")).collect();
    let run = group.ask(2, &["chat"], lines + "quit\n1|never\n");
    assert_eq!(run.text(), answers);
    assert_eq!((run.status, &run.stderr[..]), (65, ""));
    // As objects.
    let run = group.ask(3, &["-j", "chat"], "1|zoe\n5|zoe|hi\n6|\n0|\n4|\n7|\n");
    let objects: Vec<serde_json::Value> =
        run.text().lines().map(|line| serde_json::from_str(line).expect("one object a line")).collect();
    assert!(objects[..7].iter().all(|o| o["ok"] == true && o["slot"].is_u64()), "{objects:?}");
    assert_eq!((&objects[1]["delivery"], &objects[2]["message"]), (&"sent".into(), &"hi".into()), "{objects:?}");
    assert_eq!((&objects[2]["from"], &objects[2]["again"]), (&"zoe".into(), &false.into()));
    assert_eq!((&objects[7]["ok"], &objects[7]["error"]), (&false.into(), &"bad-request".into()));
}

#[test]
fn lines_that_make_no_sense_are_told_and_nothing_is_lost() {
    let group = Group::start(Net::any("lines_that_make_no_sense_are_told_and_nothing_is_lost"), 1);
    let blanks = " \t\u{b}\u{c}\r\u{85}\u{a0}\u{1680}\u{2000}\u{2003}\u{2007}\u{2009}\u{200b}\u{2028}\u{202f}\u{205f}\
                  \u{3000}\u{feff}\0";
    let mut bad: Vec<String> =
        blanks.chars().flat_map(|c| [format!("1|a{c}b"), format!("1|{c}"), format!("2|a{c}")]).collect();
    bad.extend(
        [
            "", "1|", "1|a|b", "2|", "x", "|", "||", "7|", "55|", "-1|x", "6|x", "3| ", "4|me", "5|me", "5||x",
            "hello", "QUIT",
        ]
        .map(String::from),
    );
    bad.extend(["0|(", "0|[", "0|*", "0|a{2,1}", "0|\\", "0|(?P<x", "0|((a{200}){200}){200}"].map(String::from));
    bad.push("5|me|bell\u{7}".to_string());
    let mut lines = b"1|me\n".to_vec();
    bad.iter().for_each(|line| lines.extend(format!("{line}\n").into_bytes()));
    lines.extend(b"1|\xff\xfe\n5|me|still here\n6|\n");
    let run = group.ask(1, &["chat"], lines);
    let answers: Vec<&str> = run.text().lines().collect();
    assert_eq!(answers.len(), bad.len() + 5, "{answers:#?}");
    for (line, answer) in bad.iter().map(String::as_str).chain(["not UTF-8"]).zip(&answers[1..]) {
        assert!(answer.starts_with("! bad-request "), "{line:?}: {answer:?}");
    }
    assert_eq!(answers[bad.len() + 2..], ["ok sent", "message|me|still here", "ok 1 delivered"]);
    assert_eq!((answers[0], run.status), ("ok account me made, logged in", 65));
    // What is too long is told with its length, and a line that is no message at all as a line.
    for c in ["x", "\u{e9}", "\u{4e2d}", "\u{1f600}"] {
        let (fits, over) = (c.repeat(280), c.repeat(281));
        let run = group.ask(1, &["chat"], format!("2|me\n5|me|{fits}\n5|me|{over}\n6|\n"));
        let answers: Vec<&str> = run.text().lines().collect();
        assert_eq!((answers[1], answers[3]), ("ok sent", &format!("message|me|{fits}")[..]));
        assert_eq!(answers[2], "! too-large a message has at most 280 characters, not 281");
        assert_eq!((answers.len(), run.status), (5, 65));
    }
    let run = group.ask(1, &["chat"], format!("5|me|{}\n0|{}\n0|m\n", "y".repeat(1_000_000), "a".repeat(256)));
    let answers: Vec<&str> = run.text().lines().collect();
    assert!(answers[0].starts_with("! too-large ") && answers[1].starts_with("! too-large "), "{answers:?}");
    assert_eq!(answers[2..], ["account|me", "ok 1 accounts"]);
    group.ask(1, &["chat", "now"], "").refuses(64, "ftqc: usage: ");
    group.pipe(1, "chat\nqId x\n").is(65, "! bad-request a conversation needs stdin for itself: run 'ftqc chat'\n-1\n");
}

#[test]
fn who_is_logged_in_hears_at_once_through_a_killed_replica() {
    let mut group = Group::start(Net::any("who_is_logged_in_hears_at_once_through_a_killed_replica"), 3);
    let (mut alice, mut bob) = (Talk::start(&group, 1), Talk::start(&group, 2));
    alice.ask("1|alice", "ok account alice made, logged in");
    bob.ask("5|alice|x", "! bad-request not logged in");
    bob.ask("2|alice", "! exists alice is logged in from another client");
    bob.ask("1|bob", "ok account bob made, logged in");
    bob.ask("5|alice|one", "ok sent");
    alice.hears("message|bob|one");
    alice.ask("5|bob|two", "ok sent");
    bob.hears("message|alice|two");
    group.crash(1);
    alice.ask("5|bob|three", "ok sent");
    bob.hears("message|alice|three");
    bob.ask("5|alice|four", "ok sent");
    alice.hears("message|bob|four");
    // The second of three: the third serves, once the view has shrunk.
    group.await_status(3, "the view shrinks", |s| s["primary"] == true && s["members"] == serde_json::json!([2, 3]));
    group.crash(2);
    bob.ask("5|alice|five", "ok sent");
    alice.hears("message|bob|five");
    alice.ask("5|bob|six", "ok sent");
    bob.hears("message|alice|six");
    // All of them, while both wait.
    group.crash(3);
    (1..=3).for_each(|id| group.launch(id));
    bob.ask("5|alice|seven", "ok sent");
    alice.hears("message|bob|seven");
    bob.ask("0|", "account|alice");
    bob.hears("account|bob");
    bob.hears("ok 2 accounts");
    assert_eq!((alice.end(), bob.end()), (0, 65));
    group.await_primary();
    group.assert_agreement();
}

/// One is killed and one cut off: the third serves both services, to clients that may still speak to the one cut off.
#[test]
fn one_is_killed_and_one_is_cut_off() {
    let Some(net) = Net::private("one_is_killed_and_one_is_cut_off") else { return };
    let mut group = Group::start(net, 3);
    let (mut alice, mut bob) = (Talk::start(&group, 1), Talk::start(&group, 2));
    alice.ask("1|alice", "ok account alice made, logged in");
    bob.ask("1|bob", "ok account bob made, logged in");
    ftqc(&from(&group, 2), &["stock"], "n s 02138\ne s 2\n").is(0, "ok\nok\n");
    group.crash(1);
    group.await_status(3, "the view shrinks", |s| s["primary"] == true && s["members"] == serde_json::json!([2, 3]));
    group.net.cut_apart(&[2], &[1, 3]);
    bob.ask("5|alice|one", "ok sent");
    alice.hears("message|bob|one");
    alice.ask("5|bob|two", "ok sent");
    bob.hears("message|alice|two");
    ftqc(&from(&group, 2), &["-t", "30", "stock"], "d s -1\nd s -2\nv s\n")
        .is(1, "1\n! empty s has 1: -2 would be below zero\n1,02138,s\n");
    group.net.heal();
    group.launch(1);
    group.await_primary();
    bob.ask("5|alice|three", "ok sent");
    alice.hears("message|bob|three");
    assert_eq!((alice.end(), bob.end()), (0, 0));
    group.assert_agreement();
}

#[test]
fn what_is_queued_outlasts_all_three() {
    let mut group = Group::start(Net::any("what_is_queued_outlasts_all_three"), 3);
    let sent: String = (0..200).map(|n| format!("5|bob|{n} \u{e9}\n")).collect();
    assert_eq!(talk(&group, "1|bob\n").0, 0);
    let (status, answers) = talk(&group, &format!("1|alice\n{sent}"));
    assert_eq!((status, answers.matches("ok queued\n").count()), (0, 200), "{answers}");
    (1..=3).for_each(|id| group.crash(id));
    (1..=3).for_each(|id| group.launch(id));
    let expected: String = (0..200).map(|n| format!("message|alice|{n} \u{e9}\n")).collect();
    let (status, answers) = talk(&group, "2|bob\n6|\n6|\n");
    assert_eq!(
        (status, answers),
        (0, format!("ok logged in, 200 queued\n{expected}ok 200 delivered\nok 0 delivered\n"))
    );
}

/// A client that has written only half of what it was given: none of that is gone.
#[test]
fn a_client_that_dies_while_it_writes_loses_nothing() {
    let group = Group::start(Net::any("a_client_that_dies_while_it_writes_loses_nothing"), 3);
    assert_eq!(talk(&group, "1|bob\n").0, 0);
    let text = |n: u32| format!("{n} {}", "\u{1f600}".repeat(270));
    let sent: String = (0..120).map(|n| format!("5|bob|{}\n", text(n))).collect();
    assert_eq!(talk(&group, &format!("1|alice\n{sent}")).0, 0);
    // More than a pipe holds, and nobody reads.
    let mut bob = command(&from(&group, 1), &["chat"]);
    let mut bob = dies_with_us(&mut bob).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is built");
    bob.stdin.as_mut().expect("piped").write_all(b"2|bob\n6|\n").expect("it reads");
    until("the pipe is full", || (unread(&bob) > 60_000).then_some(()));
    bob.kill().expect("our own child");
    wait(&mut bob, "it dies");
    // With its connection it has lost the account: somebody else may have it.
    let (mut next, mut dave) = (Talk::start(&group, 3), Talk::start(&group, 2));
    until("bob's connection is known to be lost", || {
        next.say("2|bob");
        let answer = next.lines.recv_timeout(WATCHDOG).expect("an answer");
        (answer == "ok logged in, 120 queued").then_some(())
    });
    dave.ask("1|dave", "ok account dave made, logged in");
    // A new one brings along what is old, in order.
    dave.ask("5|bob|last", "ok sent");
    (0..120).for_each(|n| next.hears(&format!("again|alice|{}", text(n))));
    next.hears("message|dave|last");
    next.ask("6|", "ok 0 delivered");
    assert_eq!(dave.end(), 0);
    next.kill();
}

/// Bytes that wait in the pipe behind a child's stdout.
fn unread(child: &Child) -> i32 {
    use std::os::fd::AsRawFd;
    let mut count = 0;
    let fd = child.stdout.as_ref().expect("piped").as_raw_fd();
    // SAFETY: the descriptor is open, and one int is written where there is one.
    assert_eq!(unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut count) }, 0);
    count
}

/// The library's own functions; and what it does not confirm comes again.
#[test]
fn what_is_not_confirmed_comes_again() {
    let group = Group::start(Net::any("what_is_not_confirmed_comes_again"), 3);
    let client = || Client::new(Server::parse_list(&from(&group, 1)).expect("servers"), WATCHDOG);
    let (mut alice, mut bob) = (client(), client());
    alice.chat_create("alice").expect("a new name");
    bob.chat_create("bob").expect("a new name");
    assert_eq!(bob.chat_receive(false, None), Ok(vec![]));
    assert_eq!(bob.chat_receive(false, Some(Duration::from_millis(20))), Ok(vec![]));
    assert_eq!((alice.chat_send("bob", "one"), alice.chat_send("bob", "two")), (Ok(true), Ok(true)));
    let mail = bob.chat_receive(false, Some(Duration::MAX)).expect("messages");
    assert_eq!(
        mail.iter().map(|m| (&m.from[..], &m.text[..], m.again)).collect::<Vec<_>>(),
        [("alice", "one", false), ("alice", "two", false)]
    );
    bob.chat_confirm(mail[0].number).expect("it was handed over");
    drop(bob);
    assert_eq!(alice.chat_send("bob", "three"), Ok(false), "he has left");
    assert_eq!(alice.chat_accounts("b.b$"), Ok(vec!["bob".to_string()]));
    assert!(alice.chat_accounts("(").is_err_and(|e| e.is(Code::BadRequest)));
    let mut bob = client();
    assert_eq!(bob.chat_login("bob"), Ok(2));
    let mail = bob.chat_receive(true, None).expect("messages");
    let seen: Vec<_> = mail.iter().map(|m| (m.number.0, &m.text[..], m.again)).collect();
    assert_eq!(seen, [(2, "two", true), (3, "three", false)]);
    assert!(bob.chat_confirm(ftq::client::chat::MessageNumber(4)).is_err_and(|e| e.is(Code::BadRequest)));
    bob.chat_confirm(mail[1].number).expect("it was handed over");
    assert_eq!((bob.chat_logout(), bob.chat_login("bob"), bob.chat_delete()), (Ok(()), Ok(0), Ok(0)));
    assert!(alice.chat_send("bob", "four").is_err_and(|e| e.is(Code::NoAccount)));
}

#[test]
fn a_person_chats_at_a_prompt() {
    let group = Group::start(Net::any("a_person_chats_at_a_prompt"), 3);
    let mut person = Terminal::start(&mut command(&from(&group, 2), &["chat"]));
    person.expect("5|NAME|TEXT");
    person.expect("chat> ");
    person.press("1|alice\r");
    person.expect("ok account alice made, logged in");
    person.expect("chat> ");
    let mut bob = Talk::start(&group, 1);
    bob.ask("1|bob", "ok account bob made, logged in");
    bob.ask("5|alice|hello there", "ok sent");
    person.expect("message|bob|hello there");
    person.expect("chat> ");
    person.press("\r5|bob|hi\r");
    person.expect("ok sent");
    bob.hears("message|alice|hi");
    person.press("nonsense\r");
    person.expect("! bad-request a line is OP|TEXT");
    person.press("quit\r");
    assert_eq!(person.end(), 65);
    assert_eq!(bob.end(), 0);
}
