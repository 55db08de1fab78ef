//! stdin, a line (or NUL-terminated record) at a time, without ever keeping more than one bounded line and what one
//! read brought. An unterminated last line counts.

use crate::cli::stream::Stream;
use memchr::memchr;
use std::hash::Hasher;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use twox_hash::XxHash3_64;

/// Bytes asked of the kernel at once.
const READ_BYTES: usize = 256 << 10;

/// What comes next.
#[derive(PartialEq, Eq, Debug)]
pub enum Next<'a> {
    Line(&'a [u8]),
    /// A line of more bytes than allowed was skipped.
    TooLong,
    /// [`Input::fill`] must be called first.
    Nothing,
    End,
}

/// Lines of a file or pipe.
pub struct Input<R = Stream> {
    source: R,
    separator: u8,
    line_bytes_max: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins, up to where there is no separator, and where the bytes end.
    begin: usize,
    searched: usize,
    end: usize,
    /// The present line is too long: it is skipped up to its end.
    skipping: bool,
    ended: bool,
    /// Of what was taken so far, if that is wanted.
    tally: Option<Tally>,
}

/// How much of an input was taken, and its hash. A last line without its end counts as if it had one.
#[derive(Clone)]
struct Tally {
    bytes: u64,
    hash: XxHash3_64,
}

impl Input<Stream> {
    pub fn stdin(separator: u8, line_bytes_max: usize) -> io::Result<Input> {
        Ok(Input::new(Stream::stdin()?, separator, line_bytes_max))
    }

    /// What to poll before [`Input::fill`].
    pub fn fd(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

impl<R: Read> Input<R> {
    pub fn new(source: R, separator: u8, line_bytes_max: usize) -> Input<R> {
        let buffer = vec![0; READ_BYTES];
        Input {
            source,
            separator,
            line_bytes_max,
            buffer,
            begin: 0,
            searched: 0,
            end: 0,
            skipping: false,
            ended: false,
            tally: None,
        }
    }

    /// From now on what is taken is counted.
    pub fn count(&mut self) {
        self.tally = Some(Tally { bytes: 0, hash: XxHash3_64::with_seed(0) });
    }

    /// Bytes taken since [`Input::count`], separators included, and their hash.
    pub fn taken(&self) -> (u64, u64) {
        self.tally.as_ref().map_or((0, 0), |tally| (tally.bytes, tally.hash.finish()))
    }

    fn take(&mut self, bytes: Range<usize>, is_last: bool) {
        if let Some(tally) = &mut self.tally {
            tally.bytes += bytes.len() as u64 + u64::from(is_last);
            tally.hash.write(&self.buffer[bytes]);
            if is_last {
                tally.hash.write(&[self.separator]);
            }
        }
    }

    /// Whether everything was read from the source.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Reads once; blocks if nothing is there.
    pub fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.searched -= self.begin;
        self.begin = 0;
        if self.buffer.len() - self.end < READ_BYTES {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            return Ok(());
        }
    }

    /// The next line, without its end.
    pub fn next_line(&mut self) -> Next<'_> {
        let found = memchr(self.separator, &self.buffer[self.searched..self.end]);
        let line = match found {
            Some(at) => self.begin..self.searched + at,
            None if self.ended && (self.begin < self.end || self.skipping) => self.begin..self.end,
            None if self.ended => return Next::End,
            None => {
                self.searched = self.end;
                if self.end - self.begin > self.line_bytes_max {
                    self.skipping = true;
                    self.take(self.begin..self.end, false);
                    self.begin = self.end;
                }
                return Next::Nothing;
            }
        };
        let end = (line.end + 1).min(self.end);
        self.take(self.begin..end, line.end == self.end);
        self.begin = end;
        self.searched = self.begin;
        if std::mem::take(&mut self.skipping) || line.len() > self.line_bytes_max {
            return Next::TooLong;
        }
        Next::Line(&self.buffer[line])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes at a read.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn lines(bytes: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
        let mut input = Input::new(Slow(bytes, step), b'\n', 10);
        let mut lines = Vec::new();
        loop {
            match input.next_line() {
                Next::Line(line) => lines.push(Some(line.to_vec())),
                Next::TooLong => lines.push(None),
                Next::End => return lines,
                Next::Nothing => input.fill().expect("a slice never fails"),
            }
        }
    }

    #[test]
    fn lines_come_whole_whatever_the_reads() {
        for step in [1, 2, 3, 100] {
            let line = |text: &str| Some(text.as_bytes().to_vec());
            assert_eq!(lines(b"a\n\nbc", step), [line("a"), line(""), line("bc")]);
            assert_eq!(lines(b"a\n", step), [line("a")]);
            assert_eq!(lines(b"", step), []);
            assert_eq!(lines(b"\n", step), [line("")]);
            assert_eq!(lines(b"0123456789\n01234567890\nx\n", step), [line("0123456789"), None, line("x")]);
            assert_eq!(lines(b"a\n012345678901234567890123456789", step), [line("a"), None]);
        }
    }
}
