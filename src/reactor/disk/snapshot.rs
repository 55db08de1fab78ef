//! A snapshot is written by a child (DESIGN 6.2): the fork gives it the state as it is, copied as either side changes
//! it, and the loop goes on. The child has one thread, as its parent has, so no lock is held; it keeps no socket and
//! no lock of the parent, dies with it, and ends without running destructors. It writes beside the final name, syncs,
//! renames, syncs the directory; then it says how many bytes, or what went wrong, into a pipe that the poll watches.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use super::Directory;
use crate::log::Snapshot;
use crate::reactor::os;
use crate::types::{Slot, Time};

/// Bytes written between two syncs, so that the log's own syncs don't wait for all of it.
const STEP_BYTES: usize = 8 << 20;
/// How much the child yields to others.
const NICE: i32 = 10;
/// Where the child has the pipe; it keeps no descriptor above.
const PIPE: RawFd = 3;

/// What became of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub slot: Slot,
    pub made: bool,
    /// For the log.
    pub text: String,
}

#[derive(Debug)]
struct Child {
    process: libc::pid_t,
    pipe: File,
    slot: Slot,
    began: Time,
    /// How long the loop stood still for the fork.
    pause_ns: u64,
    said: Vec<u8>,
}

/// At most one child.
#[derive(Debug, Default)]
pub struct SnapshotWriter {
    child: Option<Child>,
    outcome: Option<Outcome>,
}

impl SnapshotWriter {
    /// Begins to write; `state` is called in the child. What became of it is told by [`SnapshotWriter::outcome`], once
    /// the descriptor that this gives, if it gives one, is readable.
    pub fn begin(
        &mut self,
        directory: &Directory,
        snapshot: &Snapshot,
        state: impl FnOnce() -> Vec<u8>,
    ) -> Option<RawFd> {
        assert!(self.child.is_none(), "one snapshot at a time");
        let (slot, began) = (snapshot.slot, os::now());
        match fork(|| write(directory, snapshot, &state())) {
            Ok((process, pipe)) => {
                let pause_ns = os::now().since_ns(began);
                let fd = pipe.as_raw_fd();
                self.child = Some(Child { process, pipe: pipe.into(), slot, began, pause_ns, said: Vec::new() });
                Some(fd)
            }
            Err(e) => {
                self.outcome = Some(Outcome { slot, made: false, text: format!("cannot start a process: {e}") });
                None
            }
        }
    }

    /// An outcome waits although no event will tell.
    pub fn has_more(&self) -> bool {
        self.outcome.is_some()
    }

    /// What became of the snapshot, once that is known.
    pub fn outcome(&mut self) -> Option<Outcome> {
        if let Some(child) = &mut self.child {
            if !child.is_done() {
                return None;
            }
            let child = self.child.take().expect("it was just there");
            self.outcome = Some(child.reap());
        }
        self.outcome.take()
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            // SAFETY: our own child, not yet reaped.
            unsafe { libc::kill(child.process, libc::SIGKILL) };
            child.reap();
        }
    }
}

impl Child {
    /// Takes what it says. True once it can say no more.
    fn is_done(&mut self) -> bool {
        let mut buffer = [0; 512];
        loop {
            match self.pipe.read(&mut buffer) {
                Ok(0) => return true,
                Ok(n) => self.said.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }

    fn reap(self) -> Outcome {
        let mut status = 0;
        // SAFETY: our own child; the status is written into an integer.
        while unsafe { libc::waitpid(self.process, &raw mut status, 0) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        let said = String::from_utf8_lossy(&self.said).into_owned();
        let made = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
        let text = if made {
            let (took, pause) = (os::now().since_ns(self.began), self.pause_ns);
            let (took_ms, pause_us) = (took / Time::MS, pause / 1000);
            format!("{said} in {took_ms} ms beside the loop, which the fork held up for {pause_us} microseconds")
        } else if libc::WIFSIGNALED(status) {
            format!("its process was ended by signal {}", libc::WTERMSIG(status))
        } else {
            said
        };
        Outcome { slot: self.slot, made, text }
    }
}

/// Runs `work` in a child; what it gives goes into the pipe whose other end the parent gets.
fn fork(work: impl FnOnce() -> io::Result<String>) -> io::Result<(libc::pid_t, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written into two integers, and are ours then.
    let (reads, writes) = unsafe {
        if libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) != 0 {
            return Err(io::Error::last_os_error());
        }
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    };
    let parent = std::process::id() as libc::pid_t;
    // SAFETY: signal sets are plain memory that the calls fill. The process has one thread; the child calls nothing
    // but `in_child`, which never returns.
    unsafe {
        let (mut all, mut former) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        // The child keeps them blocked: its handlers would write where the parent's do.
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut former);
        let process = libc::fork();
        if process == 0 {
            in_child(parent, writes.as_raw_fd(), work);
        }
        let error = io::Error::last_os_error();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const former, std::ptr::null_mut());
        if process < 0 {
            return Err(error);
        }
        Ok((process, reads))
    }
}

/// The child's whole life.
fn in_child(parent: libc::pid_t, pipe: RawFd, work: impl FnOnce() -> io::Result<String>) -> ! {
    // SAFETY: plain system calls. What is closed here is used by nobody in this process, which forgets its memory
    // without running a destructor.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent {
            libc::_exit(1);
        }
        libc::dup2(pipe, PIPE);
        close_above(PIPE);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    let (text, status) = match result {
        Ok(Ok(text)) => (text, 0),
        Ok(Err(e)) => (e.to_string(), 1),
        Err(_) => ("its process panicked".to_owned(), 1),
    };
    // SAFETY: bytes of a string, and the end of this process.
    unsafe {
        libc::write(PIPE, text.as_ptr().cast(), text.len());
        libc::_exit(status)
    }
}

/// Closes every descriptor above this one. An older kernel would take the child's end for a reason to cancel what the
/// parent's io_uring has under way, if the child still had it open.
fn close_above(last: RawFd) {
    // SAFETY: plain system calls; nobody in this process uses what is closed.
    unsafe {
        if libc::syscall(libc::SYS_close_range, last as libc::c_uint + 1, libc::c_uint::MAX, 0) == 0 {
            return;
        }
        let open = fs::read_dir("/proc/self/fd").map(|entries| entries.flatten().map(|e| e.file_name()).collect());
        let open: Vec<std::ffi::OsString> = open.unwrap_or_default();
        open.iter().filter_map(|name| name.to_str()?.parse().ok()).filter(|&fd| fd > last).for_each(|fd: RawFd| {
            libc::close(fd);
        });
    }
}

/// Writes a snapshot file, and says how large it is. Errors name the file.
fn write(directory: &Directory, snapshot: &Snapshot, state: &[u8]) -> io::Result<String> {
    let unfinished = directory.unfinished_path(std::process::id());
    let written = write_to(&unfinished, &directory.snapshot_path(snapshot.slot), snapshot, state);
    if written.is_err() {
        // Start-up would do it, too.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn write_to(unfinished: &PathBuf, path: &PathBuf, snapshot: &Snapshot, state: &[u8]) -> io::Result<String> {
    let failed =
        |what: &str, path: &Path, e: &io::Error| io::Error::other(format!("cannot {what} {}: {e}", path.display()));
    let header = snapshot.header(state);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(unfinished);
    let mut file = file.map_err(|e| failed("make", unfinished, &e))?;
    let mut steps = [&header[..]].into_iter().chain(state.chunks(STEP_BYTES));
    let written = steps.try_for_each(|step| file.write_all(step).and_then(|()| file.sync_data()));
    written.and_then(|()| file.sync_all()).map_err(|e| failed("write to", unfinished, &e))?;
    fs::rename(unfinished, path).map_err(|e| failed("make", path, &e))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let synced = File::open(directory).and_then(|d| d.sync_all());
    synced.map_err(|e| failed("sync", directory, &e))?;
    Ok(format!("{} bytes", header.len() + state.len()))
}
