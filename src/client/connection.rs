//! One connection to one replica: bytes out, frames in, never blocking once it stands. Who owns it polls it, and
//! reads while there is something to write: a replica whose answers nobody reads stops reading requests.

use crate::client::datagrams::Datagrams;
use crate::client::servers::Server;
use crate::wire::client::{first_frame, ToClient, ToReplica, VERSION};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes asked of the kernel at once.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Udp(Box<Datagrams>),
}

/// A stream to a replica, with what is yet to be written and what was read but not looked at.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that the kernel has taken.
    sent: usize,
    received: Vec<u8>,
    /// Where in `received` the next frame begins, and where the bytes end.
    begin: usize,
    end: usize,
}

impl Connection {
    /// Connects, waiting at most `patience` for each address of the server, and says HELLO.
    pub fn connect(server: &Server, patience: Duration) -> io::Result<Connection> {
        let stream = match server {
            Server::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Stream::Unix(stream)
            }
            Server::Tcp(_) => {
                let stream = connect_tcp(server, patience)?;
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                Stream::Tcp(stream)
            }
        };
        Ok(Connection::over(stream))
    }

    /// The same by single datagrams, where the server has an address; a socket of this host is connected to.
    pub fn by_datagrams(server: &Server, patience: Duration) -> io::Result<Connection> {
        match server {
            Server::Unix(_) => Connection::connect(server, patience),
            Server::Tcp(_) => Ok(Connection::over(Stream::Udp(Box::new(Datagrams::connect(server)?)))),
        }
    }

    fn over(stream: Stream) -> Connection {
        let received = vec![0; READ_BYTES];
        let mut connection = Connection { stream, unsent: Vec::new(), sent: 0, received, begin: 0, end: 0 };
        connection.send(&ToReplica::Hello { version: VERSION });
        connection
    }

    /// When something is to be sent again.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.stream {
            Stream::Udp(datagrams) => datagrams.deadline(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Puts a frame behind what is yet to be written.
    pub fn send(&mut self, frame: &ToReplica<'_>) {
        match &mut self.stream {
            Stream::Udp(datagrams) => datagrams.send(frame),
            Stream::Tcp(_) | Stream::Unix(_) => frame.encode(&mut self.unsent),
        }
    }

    /// Bytes that the kernel has not taken yet.
    pub fn unsent_bytes(&self) -> usize {
        match &self.stream {
            Stream::Udp(datagrams) => datagrams.unsent_bytes(),
            Stream::Tcp(_) | Stream::Unix(_) => self.unsent.len() - self.sent,
        }
    }

    /// Writes what the kernel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        if let Stream::Udp(datagrams) = &mut self.stream {
            return datagrams.flush(Instant::now());
        }
        while self.sent < self.unsent.len() {
            let rest = &self.unsent[self.sent..];
            let written = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(rest),
                Stream::Unix(stream) => stream.write(rest),
                Stream::Udp(_) => unreachable!("its frames are not kept here"),
            };
            match written {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads what is there, up to the buffer's size; false when nothing is. The other side's end is an error.
    pub fn fill(&mut self) -> io::Result<bool> {
        if self.begin > 0 {
            self.received.copy_within(self.begin..self.end, 0);
            self.end -= self.begin;
            self.begin = 0;
        }
        if let Stream::Udp(datagrams) = &mut self.stream {
            self.received.truncate(self.end);
            let received = datagrams.receive(&mut self.received);
            self.end = self.received.len();
            return received.map(|()| false);
        }
        if self.end == self.received.len() {
            self.received.resize(self.end * 2, 0);
        }
        loop {
            let room = &mut self.received[self.end..];
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(room),
                Stream::Unix(stream) => stream.read(room),
                Stream::Udp(_) => unreachable!("handled above"),
            };
            match read {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed")),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    /// The next whole frame of what was read. Errors where the bytes are no frame: the stream is of no use any more.
    pub fn next_frame(&mut self) -> io::Result<Option<ToClient<'_>>> {
        let malformed = |e| io::Error::new(ErrorKind::InvalidData, e);
        match first_frame(&self.received[self.begin..self.end]).map_err(malformed)? {
            None => Ok(None),
            Some((frame, taken)) => {
                self.begin += taken;
                Ok(Some(ToClient::decode(frame).map_err(malformed)?))
            }
        }
    }

    /// What to poll it for.
    pub fn interest(&self) -> PollFd {
        let fd = match &self.stream {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Udp(datagrams) => return PollFd::new(datagrams.fd(), true, false),
        };
        PollFd::new(fd, true, self.unsent_bytes() > 0)
    }
}

/// Tries each address behind the name; errors are the last one's.
fn connect_tcp(server: &Server, patience: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in server.addresses()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

/// One descriptor to poll, and what came of it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    pub fn new(fd: RawFd, read: bool, write: bool) -> PollFd {
        let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        PollFd(libc::pollfd { fd, events, revents: 0 })
    }

    /// Whether a read or write would not block now, if only to tell of an error.
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until one of `fds` is ready, or `timeout` is over (`None`: for ever). A signal may end it early.
pub fn poll(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|t| libc::timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos() as _ });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), |t| t as *const libc::timespec);
    // SAFETY: `PollFd` is a transparent `pollfd`, `fds` is a live slice of that many, `timeout` is null or lives
    // until the end of this function, and a null signal mask leaves the mask alone.
    let ready = unsafe { libc::ppoll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, timeout, std::ptr::null()) };
    match ready {
        -1 => {
            fds.iter_mut().for_each(|fd| fd.0.revents = 0);
            match io::Error::last_os_error() {
                e if e.kind() == ErrorKind::Interrupted => Ok(()),
                e => Err(e),
            }
        }
        _ => Ok(()),
    }
}
