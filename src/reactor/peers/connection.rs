//! One stream with another replica: its unread and unsent bytes, and where it stands.

use mio::net::TcpStream;
use mio::Interest;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use crate::limits::{PEER_STALL_MS, PEER_UNSENT_BYTES_MAX};
use crate::reactor::os::set_option;
use crate::types::{ReplicaId, Time};
use crate::wire::stream::first_frame;

pub(super) const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);
/// An empty buffer larger than this is given back.
const KEEP_BYTES: usize = 64 << 10;

/// How far a connection's turn to be read came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// For the poll.
    Waits,
    /// Its share of the turn is used.
    HasMore,
    /// Nothing more will come.
    Ended,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// Who is at the other end; `None` until it has said so.
    pub peer: Option<ReplicaId>,
    pub ip: IpAddr,
    stream: TcpStream,
    /// The other side opened it.
    pub accepted: bool,
    /// It has come about: both ends are known.
    pub connected: bool,
    /// Later connections have higher numbers.
    pub serial: u64,
    /// When it last carried something.
    pub used_at: Time,
    /// Bytes of frames not yet handed over.
    pub unread: Vec<u8>,
    /// Frames to be written, and how much of the first is.
    unsent: VecDeque<Vec<u8>>,
    written_of_first: usize,
    unsent_bytes: usize,
    pub in_ready: bool,
}

/// Begins to connect from `own_ip`, so that the other side knows who comes.
pub(super) fn begin(own_ip: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(own_ip, 0).into())?;
    // Best effort: without it, it is only slower.
    let _ = socket.set_tcp_nodelay(true);
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => Err(e),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Connection {
    /// One that another replica opened: it has yet to say which.
    pub fn accepted(stream: TcpStream, ip: IpAddr, serial: u64, now: Time) -> Connection {
        // Best effort: without it, a broken connection is only noticed later.
        let _ = set_option(&stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, PEER_STALL_MS);
        Connection {
            peer: None,
            ip,
            stream,
            accepted: true,
            connected: false,
            serial,
            used_at: now,
            unread: Vec::new(),
            unsent: VecDeque::new(),
            written_of_first: 0,
            unsent_bytes: 0,
            in_ready: true,
        }
    }

    /// One that this replica opens; the greeting goes first.
    pub fn opened(
        stream: TcpStream,
        (peer, ip): (ReplicaId, IpAddr),
        serial: u64,
        now: Time,
        greeting: Vec<u8>,
    ) -> Connection {
        let accepted = Connection::accepted(stream, ip, serial, now);
        let (unsent_bytes, unsent) = (greeting.len(), VecDeque::from([greeting]));
        Connection { peer: Some(peer), accepted: false, unsent, unsent_bytes, in_ready: false, ..accepted }
    }

    /// Reads up to about `most` bytes, and says how many.
    pub fn receive(&mut self, scratch: &mut [u8], most: usize) -> (Progress, usize) {
        let mut taken = 0;
        while taken < most {
            match self.stream.read(scratch) {
                Ok(0) => return (Progress::Ended, taken),
                Ok(count) => {
                    self.unread.extend_from_slice(&scratch[..count]);
                    taken += count;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_early(&e) => return (Progress::Waits, taken),
                Err(_) => return (Progress::Ended, taken),
            }
        }
        (Progress::HasMore, taken)
    }

    /// Hands over the whole frames that have come, and says how many; `None` where there is no frame, whatever may
    /// still come.
    pub fn hand_frames(&mut self, mut hand_over: impl FnMut(&[u8])) -> Option<u64> {
        let (mut used, mut count) = (0, 0);
        while let Some((frame, length)) = first_frame(&self.unread[used..]).ok()? {
            hand_over(frame);
            used += length;
            count += 1;
        }
        self.unread.drain(..used);
        if self.unread.is_empty() && self.unread.capacity() > KEEP_BYTES {
            self.unread = Vec::new();
        }
        Some(count)
    }

    pub fn frames_unsent(&self) -> u64 {
        self.unsent.len() as u64
    }

    /// Takes a frame to be written, unless too much waits already.
    pub fn queue(&mut self, frame: Vec<u8>) -> bool {
        let fits = self.unsent_bytes + frame.len() <= PEER_UNSENT_BYTES_MAX;
        if fits {
            self.unsent_bytes += frame.len();
            self.unsent.push_back(frame);
        }
        fits
    }

    /// Writes until all is written or the socket is full, and says how many bytes. Errors if the connection is of no
    /// use any more.
    pub fn flush(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while let Some(first) = self.unsent.front() {
            match self.stream.write(&first[self.written_of_first..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.connected = true;
                    written += count;
                    self.unsent_bytes -= count;
                    self.written_of_first += count;
                    if self.written_of_first == first.len() {
                        self.unsent.pop_front();
                        self.written_of_first = 0;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_early(&e) => return Ok(written),
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }
}

/// Not yet, but perhaps later: the socket is empty or full, or still connecting.
fn is_early(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}
