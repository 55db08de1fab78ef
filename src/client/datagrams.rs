//! A connection of a kind over single datagrams: one frame is under way at a time, sent again until it is answered,
//! for requests are executed once whatever comes twice, and in order because none is sent before the last is answered.
//! What fits no datagram is told by an error, and goes over a stream.

use crate::client::servers::Server;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::types::SessionId;
use crate::wire::client::{kind, ToClient, ToReplica};
use crate::wire::client_datagram::{answered, asked, decode_answer, encode_request, Subject, REQUEST_HEADER_BYTES};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

/// The pause before a frame is sent again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(30);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Requests have at least so many bytes, so that most answers may come; more once one was longer.
const ROOM_BYTES: usize = 512;
const BUFFER_BYTES: usize = 64 << 10;

/// A frame that waits for its answer.
#[derive(Debug)]
struct Waiting {
    subject: Subject,
    /// As on a stream, its length first.
    frame: Vec<u8>,
}

#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    session: SessionId,
    keep: bool,
    /// In the order in which they are sent; only the first is under way.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// When the first is sent again, and the pause behind that; `None` before it was sent.
    again: Option<(Instant, Duration)>,
    room: usize,
    /// Something fits no datagram.
    too_long: bool,
    datagram: Vec<u8>,
    buffer: Vec<u8>,
}

impl Datagrams {
    /// Nothing is sent yet; the first address of the name is spoken to.
    pub fn connect(server: &Server) -> io::Result<Datagrams> {
        let address = server.addresses()?.into_iter().next();
        let address = address.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "the name has no address"))?;
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(Datagrams {
            socket,
            session: SessionId::NONE,
            keep: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            again: None,
            room: ROOM_BYTES,
            too_long: false,
            datagram: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub fn unsent_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// When something is sent again.
    pub fn deadline(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    /// Puts a frame behind those that wait.
    pub fn send(&mut self, frame: &ToReplica<'_>) {
        if let ToReplica::Use { session, keep } = *frame {
            (self.session, self.keep) = (session, keep);
            return;
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.too_long |= REQUEST_HEADER_BYTES + bytes.len() > DATAGRAM_BYTES_MAX;
        let subject = asked(frame).expect("only USE is no request");
        if subject.0 == kind::PING {
            // It asks about what is under way; who asks asks again.
            encode_request(&mut self.datagram, self.session, self.keep, &bytes, self.room);
            let _ = self.socket.send(&self.datagram);
            return;
        }
        self.waiting_bytes += bytes.len();
        self.waiting.push_back(Waiting { subject, frame: bytes });
    }

    /// Sends what is due. `Unsupported`: only a stream can go on.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.too_long {
            return Err(io::Error::new(ErrorKind::Unsupported, "this fits no datagram"));
        }
        let Some(first) = self.waiting.front() else { return Ok(()) };
        let pause = match self.again {
            Some((at, _)) if now < at => return Ok(()),
            Some((_, pause)) => pause,
            None => PAUSE_MIN,
        };
        self.again = Some((now + pause, (pause * 2).min(PAUSE_MAX)));
        encode_request(&mut self.datagram, self.session, self.keep, &first.frame, self.room);
        match self.socket.send(&self.datagram) {
            Ok(_) => Ok(()),
            // As good as lost on the way.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Takes the answers that are there, and appends their frames as they would stand on a stream. Errors as `flush`,
    /// and where nobody listens there.
    pub fn receive(&mut self, frames: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let length = match self.socket.recv(&mut self.buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            // What makes no sense was damaged on the way, or is a stranger's.
            let Ok((needed, frame)) = decode_answer(&self.buffer[..length]) else { continue };
            let Ok(told) = ToClient::decode(&frame[4..]) else { continue };
            let subject = answered(&told);
            let is_first = self.waiting.front().is_some_and(|first| first.subject == subject);
            if needed > 0 && is_first {
                self.room = needed as usize;
                self.too_long = self.room > DATAGRAM_BYTES_MAX;
                self.again = None;
                continue;
            }
            // Whoever speaks another version says so whatever was asked.
            let of_all = matches!(told, ToClient::Refused { refused: kind::HELLO, .. } | ToClient::Pong { .. });
            if !is_first && !of_all && subject.0 != kind::PING {
                continue;
            }
            if let ToClient::Opened { session, .. } = told {
                self.session = session;
            }
            frames.extend_from_slice(frame);
            if is_first {
                let done = self.waiting.pop_front().expect("asked above");
                self.waiting_bytes -= done.frame.len();
                self.again = None;
            }
        }
        if self.too_long {
            return Err(io::Error::new(ErrorKind::Unsupported, "the answer fits no datagram"));
        }
        Ok(())
    }
}
