//! A process that outlives the lab by a moment and removes its temporary directory, whatever ended the lab: SIGKILL,
//! a reader of its answers that went away, or a bug. It sees the end of a socket whose other end only the lab holds.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The replicas die with the lab, but may write to their last.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The lab keeps this for as long as it lives.
#[derive(Debug)]
pub struct Janitor {
    _alive: UnixStream,
}

impl Janitor {
    /// Watches over the directory. To be called while there is only one thread.
    pub fn start(directory: &Path) -> io::Result<Janitor> {
        let (watched, alive) = UnixStream::pair()?;
        // SAFETY: with one thread, no lock is held that the child could wait for.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                work(watched, directory);
                // SAFETY: ends this process alone, and nothing of the lab's is run or flushed.
                unsafe { libc::_exit(0) }
            }
            _ => Ok(Janitor { _alive: alive }),
        }
    }
}

fn work(mut watched: UnixStream, directory: &Path) {
    let fd = watched.as_raw_fd() as u32;
    // SAFETY: numbers only. Out of the terminal's reach; and nobody must wait for what this process has open.
    unsafe {
        libc::setsid();
        libc::syscall(libc::SYS_close_range, 0u32, fd - 1, 0u32);
        libc::syscall(libc::SYS_close_range, fd + 1, u32::MAX, 0u32);
    }
    // The end and an error mean the same: nobody is there any more.
    while watched.read(&mut [0; 16]).is_ok_and(|count| count > 0) {}
    for _ in 0..ATTEMPTS {
        if fs::remove_dir_all(directory).is_ok() || !directory.exists() {
            return;
        }
        thread::sleep(PAUSE);
    }
}
