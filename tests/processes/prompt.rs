//! The prompt, as a person at a terminal has it: a line is edited, recalled and completed; Ctrl-C and Ctrl-D end it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

use crate::ftqc::{dies_with_us, wait};
use crate::net::Net;

/// Ends what hangs; nothing is measured by it.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A terminal with a program on it.
struct Terminal {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    text: String,
}

/// Both ends of a new terminal: ours, and the program's.
fn open() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: two descriptors are written where two are; nothing else is asked for.
    let done = unsafe {
        let null = std::ptr::null_mut();
        libc::openpty(&raw mut ours, &raw mut theirs, null, null.cast(), null.cast())
    };
    assert_eq!(done, 0, "openpty: {}", io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

impl Terminal {
    fn start(command: &mut Command) -> Terminal {
        let (keys, theirs) = open();
        let copy = |fd: &OwnedFd| fd.try_clone().expect("a descriptor");
        command.env("TERM", "xterm").env_remove("NO_COLOR").stdin(copy(&theirs)).stdout(copy(&theirs)).stderr(theirs);
        let child = dies_with_us(command).spawn().expect("the program is built");
        // What the command still holds would keep the terminal open for us.
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let (mut screen, (send, shown)) = (keys.try_clone().expect("a descriptor"), mpsc::channel());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Fails when the program has closed its end.
            while let Ok(count) = screen.read(&mut buffer) {
                if count == 0 || send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { child, keys, shown, text: String::new() }
    }

    /// Waits until this is shown; what came before it is forgotten, and returned.
    #[track_caller]
    fn expect(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.text.find(wanted) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            match self.shown.recv_timeout(WATCHDOG) {
                Ok(bytes) => self.text += &String::from_utf8_lossy(&bytes),
                Err(e) => panic!("{e}: {wanted:?} is not in {:?}", self.text),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    fn end(&mut self) -> i32 {
        wait(&mut self.child, "the program ends")
    }
}

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
