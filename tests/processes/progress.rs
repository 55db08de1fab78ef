//! Progress on stderr: a line while a person waits for a long transfer, and not a byte otherwise.

use std::io::Write;
use std::process::Stdio;

use crate::ftqc::command;
use crate::group::Group;
use crate::net::Net;
use crate::terminal::Terminal;

#[test]
fn a_long_transfer_tells_how_far_it_is() {
    let group = Group::start(Net::any("a_long_transfer_tells_how_far_it_is"), 1);
    let servers = group.net.address(1);
    let file = group.path().join("position").display().to_string();
    for options in [&["push", "jobs"][..], &["push", "--session", &file, "mail"]] {
        let mut push = command(&servers, options);
        let mut terminal = Terminal::start_stderr(push.stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut input = terminal.child.stdin.take().expect("piped");
        input.write_all("0123456789\n".repeat(1500).as_bytes()).expect("it reads");
        assert_eq!(terminal.expect("push: 1,500 items, 1"), "\r\x1b[Kpush: 1,500 items, 1", "{options:?}");
        input.write_all("0123456789\n".repeat(500).as_bytes()).expect("it reads");
        terminal.expect("push: 2,000 items, 2");
        drop(input);
        assert!(terminal.rest().ends_with("items/s\r\x1b[K"), "{options:?}: nothing stays");
        assert_eq!(terminal.end(), 0);
    }
    let mut pop = command(&servers, &["pop", "-n", "2001", "-w", "jobs"]);
    let mut terminal = Terminal::start_stderr(pop.stdin(Stdio::null()).stdout(Stdio::null()));
    terminal.expect("pop: 2,000 of 2,001 items, 20.0 kB, ");
    group.ask(1, &["push", "jobs", "x"], "").ok();
    assert!(terminal.rest().ends_with("\r\x1b[K"));
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_short_transfer_and_a_pipe_tell_nothing() {
    let group = Group::start(Net::any("a_short_transfer_and_a_pipe_tell_nothing"), 1);
    group.ask(1, &["push", "jobs"], "a\nb\nc\n").is(0, "");
    let mut pop = command(&group.net.address(1), &["pop", "-n", "2", "jobs"]);
    let mut terminal = Terminal::start_stderr(pop.stdin(Stdio::null()).stdout(Stdio::null()));
    assert_eq!((terminal.rest().as_str(), terminal.end()), ("", 0));
    // An error is told on a line of its own.
    let mut pop = command(&group.net.address(1), &["pop", "-n", "9", "--wait", "1.6", "jobs"]);
    let mut terminal = Terminal::start_stderr(pop.stdin(Stdio::null()).stdout(Stdio::null()));
    terminal.expect("pop: 1 of 9 items");
    assert!(terminal.rest().ends_with("\r\x1b[Kftqc: empty: after 1 of 9 items: queue jobs is empty\r\n"));
    assert_eq!(terminal.end(), 1);
    let quiet = group.ask(1, &["pop", "-n", "9", "--wait", "1.2", "jobs"], "");
    assert_eq!((quiet.status, quiet.stderr.as_str()), (1, "ftqc: empty: queue jobs is empty\n"));
}
