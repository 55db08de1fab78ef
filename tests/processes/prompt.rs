//! The prompt, as a person at a terminal has it: a line is edited, recalled and completed; Ctrl-C and Ctrl-D end it.

use std::process::Command;
use tempfile::TempDir;

use crate::net::Net;
use crate::terminal::Terminal;

fn lab(place: &TempDir, count: &str) -> Terminal {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ftqd"));
    command.args(["--lab", count]).env("TMPDIR", place.path());
    Terminal::start(&mut command)
}

fn is_empty(place: &TempDir) -> bool {
    std::fs::read_dir(place.path()).expect("ours").next().is_none()
}

#[test]
fn a_person_types_recalls_and_completes() {
    let (_net, place) = (Net::any("a_person_types_recalls_and_completes"), TempDir::new().expect("a directory"));
    let mut lab = lab(&place, "2");
    lab.expect("'help' lists");
    lab.expect("ftq> ");
    lab.press("push jobs one\r");
    lab.expect("\nok\r\n");
    // Up: the line before.
    lab.press("\x1b[A\r");
    lab.expect("\nok\r\n");
    // "si", TAB; and a typing error, taken back.
    lab.press("si\tjobx\x7fs\r");
    lab.expect("ftq> size ");
    lab.expect("\n2\r\n");
    lab.press("# nothing\r\rbogus\r");
    lab.expect("\n! bad-request unknown command 'bogus'");
    lab.press("kill 2\r");
    lab.expect("\nok\r\n");
    lab.press("status\r");
    let table = lab.expect("\x1b[31m2   killed");
    assert!(table.contains("id  process  serves"), "{table:?}");
    lab.press("quit\r");
    assert_eq!(lab.end(), 65, "the worst answer's");
    assert!(is_empty(&place));
}

#[test]
fn control_keys_end_it() {
    let (_net, place) = (Net::any("control_keys_end_it"), TempDir::new().expect("a directory"));
    for (keys, status) in [("\x04", 0), ("half a li\x03", 130)] {
        let mut lab = lab(&place, "1");
        lab.expect("ftq> ");
        lab.press(keys);
        assert_eq!(lab.end(), status, "{keys:?}");
        assert!(is_empty(&place));
    }
    let mut ftqc = Command::new(env!("CARGO_BIN_EXE_ftqc"));
    let mut ftqc = Terminal::start(ftqc.env_remove("FTQ_SERVERS").env_remove("FTQ_KEY").args(["-s", "127.0.0.1:1"]));
    ftqc.expect("ftq> ");
    ftqc.press("help size\r");
    ftqc.expect("the number of items\r\n");
    ftqc.press("quit\r");
    assert_eq!(ftqc.end(), 0);
}
