//! stdin and stdout. Whoever shares them with us may have made them non-blocking: reads and writes wait all the same,
//! for what can't be written just now was popped already.

use crate::client::connection::{poll, PollFd};
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;

/// One of them, or a file in its place.
#[derive(Debug)]
pub struct Stream(File);

impl Stream {
    pub fn stdin() -> io::Result<Stream> {
        Ok(Stream(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    pub fn stdout() -> io::Result<Stream> {
        Ok(Stream(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
    }

    /// What to poll for reading to learn that nobody reads any more: where this is the end of a pipe that is written.
    pub fn departure(&self) -> Option<RawFd> {
        // SAFETY: a question about a descriptor of our own.
        let access = unsafe { libc::fcntl(self.as_raw_fd(), libc::F_GETFL) } & libc::O_ACCMODE;
        let is_pipe = self.0.metadata().is_ok_and(|found| found.file_type().is_fifo());
        (is_pipe && access == libc::O_WRONLY).then(|| self.as_raw_fd())
    }

    /// Does it, as soon as it can be done.
    fn patiently(
        &mut self,
        interest: fn(RawFd) -> PollFd,
        mut act: impl FnMut(&mut File) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match act(&mut self.0) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => poll(&mut [interest(self.0.as_raw_fd())], None)?,
                result => return result,
            }
        }
    }
}

impl From<File> for Stream {
    fn from(file: File) -> Stream {
        Stream(file)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.patiently(|fd| PollFd::new(fd, true, false), |file| file.read(bytes))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|fd| PollFd::new(fd, false, true), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread;

    #[test]
    fn what_does_not_block_is_waited_for() {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        let stream = |end: UnixStream| {
            end.set_nonblocking(true).expect("it can be");
            Stream::from(File::from(OwnedFd::from(end)))
        };
        let (mut to, mut from) = (stream(ours), stream(theirs));
        // More than lies between the two, so that each has to wait for the other.
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = bytes.clone();
        let writing = thread::spawn(move || to.write_all(&copy).expect("somebody reads"));
        let mut read = Vec::new();
        from.read_to_end(&mut read).expect("somebody writes");
        writing.join().expect("it has written");
        assert!(read == bytes);
    }
}
