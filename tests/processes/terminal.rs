//! A program on a terminal of its own, as a person has it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::ftqc::{dies_with_us, wait};

/// Ends what hangs; nothing is measured by it.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A terminal with a program on it.
pub struct Terminal {
    pub child: Child,
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
    pub fn start(command: &mut Command) -> Terminal {
        let (keys, theirs) = open();
        let copy = || theirs.try_clone().expect("a descriptor");
        Terminal::watch(command.stdin(copy()).stdout(copy()), keys, theirs)
    }

    /// With the terminal for stderr alone.
    pub fn start_stderr(command: &mut Command) -> Terminal {
        let (keys, theirs) = open();
        Terminal::watch(command, keys, theirs)
    }

    fn watch(command: &mut Command, keys: File, theirs: OwnedFd) -> Terminal {
        command.env("TERM", "xterm").env_remove("NO_COLOR").stderr(theirs);
        let child = dies_with_us(command).spawn().expect("the program is built");
        // What the command still holds would keep the terminal open for us.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
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
    pub fn expect(&mut self, wanted: &str) -> String {
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

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is there");
    }

    /// What is shown until the program has closed the terminal.
    pub fn rest(&mut self) -> String {
        while let Ok(bytes) = self.shown.recv_timeout(WATCHDOG) {
            self.text += &String::from_utf8_lossy(&bytes);
        }
        std::mem::take(&mut self.text)
    }

    pub fn end(&mut self) -> i32 {
        wait(&mut self.child, "the program ends")
    }
}
