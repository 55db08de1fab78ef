//! One connection: its unread and unsent bytes, and where it stands.

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::IpAddr;

use crate::limits::CLIENT_UNSENT_BYTES_MAX;
use crate::replica::Input;
use crate::types::ClientId;
use crate::wire::client::first_frame;
use crate::wire::stream::MAGIC;

/// Buffers given to the kernel in one write.
const SLICES: usize = 64;
/// Frames smaller than this are copied together, up to so many bytes.
const SMALL_BYTES: usize = 4 << 10;
const TOGETHER_BYTES: usize = 64 << 10;
/// An empty buffer larger than this is given back.
const KEEP_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Whether it comes from one of these addresses.
    pub fn is_from(&self, addresses: &[IpAddr]) -> bool {
        let Stream::Tcp(stream) = self else { return false };
        stream.peer_addr().is_ok_and(|from| addresses.contains(&from.ip().to_canonical()))
    }

    fn source(&mut self) -> &mut dyn mio::event::Source {
        match self {
            Stream::Tcp(s) => s,
            Stream::Unix(s) => s,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.read(buffer),
            Stream::Unix(s) => s.read(buffer),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(s) => s.write_vectored(slices),
            Stream::Unix(s) => s.write_vectored(slices),
        }
    }
}

/// How far a connection's turn to be read came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// For the poll, or for its answers to be taken.
    Waits,
    /// It was stopped, by its share of the turn or by the core.
    HasMore,
    /// The client has closed its side, or sent what is no frame; all before that is handed over.
    Ended,
    /// Nothing more can be read or written.
    Broken,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub id: ClientId,
    stream: Stream,
    /// Bytes of frames not yet handed over.
    unread: Vec<u8>,
    /// A read may give something.
    pub readable: bool,
    /// The poll told of the end: a read must find it, even behind a short one.
    pub read_closed: bool,
    /// Frames to be written, and how much of the first is.
    unsent: VecDeque<Vec<u8>>,
    written_of_first: usize,
    pub unsent_bytes: usize,
    /// The poll was asked to tell when it can be written to.
    watches_writable: bool,
    /// Not read from, for it leaves its answers unread.
    pub stalled: bool,
    /// No more is read; closed when all is written.
    pub ending: bool,
    /// Nothing has come yet that tells a client from a replica; nothing is read before.
    pub unknown: bool,
    /// A whole frame came: the core knows of this client.
    pub has_spoken: bool,
    pub told_gone: bool,
    /// The replica knows that much waits to be written.
    pub told_stalled: bool,
    pub in_ready: bool,
    pub dirty: bool,
}

impl Connection {
    pub fn new(id: ClientId, stream: Stream, registry: &Registry, token: Token) -> io::Result<Connection> {
        let mut connection = Connection {
            id,
            stream,
            unread: Vec::new(),
            readable: true,
            read_closed: false,
            unsent: VecDeque::new(),
            written_of_first: 0,
            unsent_bytes: 0,
            watches_writable: false,
            stalled: false,
            ending: false,
            unknown: false,
            has_spoken: false,
            told_gone: false,
            told_stalled: false,
            in_ready: false,
            dirty: false,
        };
        connection.unknown = matches!(connection.stream, Stream::Tcp(_));
        registry.register(connection.stream.source(), token, Interest::READABLE)?;
        Ok(connection)
    }

    /// Looks at the first bytes without taking them: whether a replica is at the other end, `None` if more must come.
    pub fn is_peer(&self) -> Option<bool> {
        let Stream::Tcp(stream) = &self.stream else { return Some(false) };
        let mut front = [0; MAGIC.len()];
        let count = match stream.peek(&mut front) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return None,
            // Whoever reads it finds out what is wrong.
            Err(_) | Ok(0) => return Some(false),
            Ok(count) => count,
        };
        if front[..count] != MAGIC[..count] {
            return Some(false);
        }
        (count == MAGIC.len()).then_some(true)
    }

    /// The stream itself, if it is one of TCP.
    pub fn into_tcp(self) -> Option<TcpStream> {
        match self.stream {
            Stream::Tcp(stream) => Some(stream),
            Stream::Unix(_) => None,
        }
    }

    /// Reads up to about `most` bytes and hands over the whole frames in them, while it is accepted. Also says how
    /// many bytes that were.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        most: usize,
        accepts: &mut bool,
        hand_over: &mut impl FnMut(Input<'_>) -> bool,
    ) -> (Progress, usize) {
        let mut taken = 0;
        let mut unread = std::mem::take(&mut self.unread);
        let progress = loop {
            match self.hand_frames(&unread, accepts, hand_over) {
                Ok(0) => {}
                Ok(used) => drop(unread.drain(..used)),
                Err(()) => break Progress::Ended,
            }
            if let Some(progress) = self.pause(taken >= most, *accepts) {
                break progress;
            }
            let count = match self.stream.read(scratch) {
                Ok(0) => break Progress::Ended,
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    continue;
                }
                Err(_) => break Progress::Broken,
            };
            taken += count;
            // A short read has emptied the socket, but for an end that was told before.
            self.readable = count == scratch.len() || self.read_closed;
            let mut fresh = &scratch[..count];
            if unread.is_empty() {
                match self.hand_frames(fresh, accepts, hand_over) {
                    Ok(used) => fresh = &fresh[used..],
                    Err(()) => break Progress::Ended,
                }
            }
            unread.extend_from_slice(fresh);
        };
        if !unread.is_empty() || unread.capacity() <= KEEP_BYTES {
            self.unread = unread;
        }
        (progress, taken)
    }

    /// Why not to go on reading now, if so.
    fn pause(&mut self, share_is_used: bool, accepts: bool) -> Option<Progress> {
        if !accepts {
            return Some(Progress::HasMore);
        }
        if self.unsent_bytes > CLIENT_UNSENT_BYTES_MAX {
            self.stalled = true;
            return Some(Progress::Waits);
        }
        match (self.readable, share_is_used) {
            (false, _) => Some(Progress::Waits),
            (true, true) => Some(Progress::HasMore),
            (true, false) => None,
        }
    }

    /// Hands over the whole frames at the front of `bytes` while it is accepted, and says how many bytes they take.
    /// Errors where there is no frame, whatever may still come.
    fn hand_frames(
        &mut self,
        bytes: &[u8],
        accepts: &mut bool,
        hand_over: &mut impl FnMut(Input<'_>) -> bool,
    ) -> Result<usize, ()> {
        let mut used = 0;
        while *accepts {
            match first_frame(&bytes[used..]) {
                Ok(Some((frame, length))) => {
                    self.has_spoken = true;
                    *accepts = hand_over(Input::Frame { client: self.id, frame });
                    used += length;
                }
                Ok(None) => break,
                Err(_) => return Err(()),
            }
        }
        Ok(used)
    }

    pub fn has_unsent(&self) -> bool {
        self.unsent_bytes > 0
    }

    pub fn queue(&mut self, bytes: Vec<u8>) {
        self.unsent_bytes += bytes.len();
        match self.unsent.back_mut() {
            Some(last) if bytes.len() < SMALL_BYTES && last.len() + bytes.len() <= TOGETHER_BYTES => {
                last.extend_from_slice(&bytes);
            }
            _ if bytes.is_empty() => {}
            _ => self.unsent.push_back(bytes),
        }
    }

    /// Writes until all is written or the socket is full. Errors if the connection is of no use any more.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            for (slice, bytes) in slices.iter_mut().zip(&self.unsent) {
                *slice = IoSlice::new(bytes);
            }
            slices[0] = IoSlice::new(&self.unsent[0][self.written_of_first..]);
            let count = SLICES.min(self.unsent.len());
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.on_written(written),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn on_written(&mut self, mut written: usize) {
        self.unsent_bytes -= written;
        while let Some(first) = self.unsent.front() {
            let left = first.len() - self.written_of_first;
            if written < left {
                self.written_of_first += written;
                return;
            }
            written -= left;
            self.written_of_first = 0;
            self.unsent.pop_front();
        }
    }

    /// Asks the poll to tell when it can be written to, only while something is left to be written.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.watches_writable == self.has_unsent() {
            return Ok(());
        }
        self.watches_writable = self.has_unsent();
        let both = Interest::READABLE | Interest::WRITABLE;
        let interest = if self.watches_writable { both } else { Interest::READABLE };
        registry.reregister(self.stream.source(), token, interest)
    }
}
