//! Datagrams between replicas (DESIGN 3). One bound socket receives; one connected socket for each peer sends, so
//! that the kernel tells when nobody listens there and what the path carries. What does not leave or does not come
//! from an address of the book is counted and dropped: the core repairs losses, whatever their cause.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use crate::limits::{DATAGRAM_FIRST, DATAGRAM_SIZES};
use crate::reactor::book::Located;
use crate::reactor::exit::Exit;
use crate::reactor::fault::{Fate, Faults};
use crate::reactor::os::{get_option, set_option};
use crate::types::{Dest, ReplicaId, Time};
use crate::wire::client_datagram::is_of_client;

/// Datagrams taken with one system call.
const BATCH: usize = 32;
/// Calls in one turn; what more waits is taken in the next.
const BATCHES_PER_TURN: usize = 8;
/// No datagram is longer.
const BUFFER_BYTES: usize = 64 << 10;
/// What the sockets' buffers should hold, if the system lets them.
const SOCKET_BUFFER_BYTES: libc::c_int = 8 << 20;
/// Bytes of the headers before a datagram's payload: IPv6 and UDP.
const HEADERS_BYTES: usize = 48;

/// What became of datagrams, by reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpCounters {
    pub received: u64,
    /// From addresses the book does not name.
    pub strangers: u64,
    pub sent: u64,
    /// Lost on purpose.
    pub faults: u64,
    /// The socket's buffer was full.
    pub full: u64,
    /// Longer than the path carries.
    pub too_long: u64,
    /// Nobody listens there.
    pub refused: u64,
    /// Anything else: no route, no memory.
    pub failed: u64,
}

impl fmt::Display for UdpCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UdpCounters { received, strangers, sent, faults, full, too_long, refused, failed } = self;
        write!(
            f,
            "{received} received, {strangers} of them from strangers; {sent} sent; not sent: {full} for a full "
        )?;
        write!(f, "buffer, {too_long} too long, {refused} refused, {failed} failed, {faults} lost on purpose")
    }
}

/// Where a datagram came from, by what it says it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// An address of the book.
    Replica(IpAddr),
    Client(SocketAddr),
}

/// The connected socket to one peer.
#[derive(Debug)]
struct Link {
    id: ReplicaId,
    socket: UdpSocket,
}

/// All of a replica's datagram sockets.
pub struct Udp {
    socket: UdpSocket,
    links: Vec<Link>,
    /// The book's addresses, sorted.
    known: Vec<IpAddr>,
    buffers: Vec<u8>,
    /// More may be waiting than was taken: the poll tells of arrivals only once.
    more: bool,
    /// Peers whose refusal has not been handed over.
    refused: Vec<ReplicaId>,
    pub counters: UdpCounters,
}

impl Udp {
    /// Binds to this replica's own address and connects to all others'. Errors if the address is in use or not of
    /// this machine.
    pub fn open(located: &[Located], own: ReplicaId) -> Result<Udp, Exit> {
        let address = located.iter().find(|l| l.id == own).expect("checked when the book was read").address;
        let unusable = |e: io::Error| Exit::unavailable(format!("cannot use UDP port {address}: {e}"));
        let socket = UdpSocket::bind(address).map_err(unusable)?;
        set_up(&socket).and_then(|()| allow_fragments(&socket)).map_err(unusable)?;
        let connect = |peer: &Located| -> io::Result<Link> {
            let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
            set_up(&socket)?;
            // Nothing is ever read from it.
            set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, 0)?;
            socket.connect(peer.address)?;
            Ok(Link { id: peer.id, socket })
        };
        let peers = located.iter().filter(|l| l.id != own);
        let links = peers.map(|peer| {
            let failed = |e| Exit::unavailable(format!("cannot send to replica {} at {}: {e}", peer.id, peer.address));
            connect(peer).map_err(failed)
        });
        let links = links.collect::<Result<Vec<Link>, Exit>>()?;
        let mut known: Vec<IpAddr> = located.iter().map(|l| l.address.ip()).collect();
        known.sort_unstable();
        known.dedup();
        let (buffers, counters) = (vec![0; BATCH * BUFFER_BYTES], UdpCounters::default());
        Ok(Udp { socket, links, known, buffers, more: true, refused: Vec::new(), counters })
    }

    /// Has `token` tell of arrivals, and `token_of` of what becomes of the links, for `registry`'s poll.
    pub fn register(&self, registry: &Registry, token: Token, token_of: impl Fn(ReplicaId) -> Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, Interest::READABLE)?;
        for link in &self.links {
            registry.register(&mut SourceFd(&link.socket.as_raw_fd()), token_of(link.id), Interest::READABLE)?;
        }
        Ok(())
    }

    /// Bytes of payload that may wait to be received.
    pub fn receive_buffer_bytes(&self) -> u32 {
        // The kernel doubles what it is asked for, and counts its own headers against it.
        get_option(&self.socket, libc::SOL_SOCKET, libc::SO_RCVBUF).map_or(0, |n| n.max(0) as u32 / 2)
    }

    /// The largest of the datagram sizes that every link's first hop carries, as an index.
    pub fn datagram_size_max(&self) -> usize {
        let mtu = |link: &Link| match link.socket.peer_addr() {
            Ok(SocketAddr::V6(_)) => get_option(&link.socket, libc::IPPROTO_IPV6, libc::IPV6_MTU),
            _ => get_option(&link.socket, libc::IPPROTO_IP, libc::IP_MTU),
        };
        let narrowest = self.links.iter().filter_map(|link| mtu(link).ok()).min().unwrap_or(0);
        let fits = |size: &usize| *size + HEADERS_BYTES <= narrowest.max(0) as usize;
        DATAGRAM_SIZES.iter().rposition(fits).unwrap_or(DATAGRAM_FIRST).max(DATAGRAM_FIRST)
    }

    /// The poll told of arrivals.
    pub fn on_readable(&mut self) {
        self.more = true;
    }

    /// The poll told of something at this link: an error waits there.
    pub fn on_link(&mut self, id: ReplicaId) {
        let Some(link) = self.links.iter().find(|l| l.id == id) else { return };
        if let Ok(Some(e)) = link.socket.take_error() {
            if e.kind() == io::ErrorKind::ConnectionRefused {
                self.counters.refused += 1;
                self.refused.push(id);
            }
        }
    }

    /// Something can be received, or is to be handed over.
    pub fn has_more(&self) -> bool {
        self.more || !self.refused.is_empty()
    }

    /// The peers that refused since last asked, each once.
    pub fn take_refused(&mut self) -> Vec<ReplicaId> {
        let mut refused = std::mem::take(&mut self.refused);
        refused.sort_unstable();
        refused.dedup();
        refused
    }

    /// Hands over what waits, up to a bound.
    pub fn receive(&mut self, mut hand_over: impl FnMut(Source, &[u8])) {
        for _ in 0..BATCHES_PER_TURN {
            if !self.more {
                return;
            }
            self.receive_batch(&mut hand_over);
        }
    }

    fn receive_batch(&mut self, hand_over: &mut impl FnMut(Source, &[u8])) {
        // SAFETY: all three are plain numbers and pointers, for which zeros are good values.
        let (mut vectors, mut names, mut headers): (
            [libc::iovec; BATCH],
            [libc::sockaddr_in6; BATCH],
            [libc::mmsghdr; BATCH],
        ) = unsafe { std::mem::zeroed() };
        for (k, buffer) in self.buffers.chunks_exact_mut(BUFFER_BYTES).enumerate() {
            vectors[k] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: BUFFER_BYTES };
            headers[k].msg_hdr.msg_iov = &raw mut vectors[k];
            headers[k].msg_hdr.msg_iovlen = 1;
            headers[k].msg_hdr.msg_name = (&raw mut names[k]).cast();
            headers[k].msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
        }
        // SAFETY: every header points at buffers and names that live until the call is over.
        let count = unsafe {
            let (fd, wait) = (self.socket.as_raw_fd(), ptr::null_mut());
            libc::recvmmsg(fd, headers.as_mut_ptr(), BATCH as u32, libc::MSG_DONTWAIT as _, wait)
        };
        if count < 0 {
            // Whatever it is, the poll tells when there is something again.
            self.more = io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
            return;
        }
        self.more = count as usize == BATCH;
        for (k, header) in headers[..count as usize].iter().enumerate() {
            self.counters.received += 1;
            let bytes = &self.buffers[k * BUFFER_BYTES..][..header.msg_len as usize];
            match source(&names[k]) {
                Some(from) if is_of_client(bytes) => hand_over(Source::Client(from), bytes),
                Some(from) if self.known.binary_search(&from.ip()).is_ok() => {
                    hand_over(Source::Replica(from.ip()), bytes);
                }
                _ => self.counters.strangers += 1,
            }
        }
    }

    /// Answers clients. What cannot leave at once is lost: who asked asks again.
    pub fn answer(&mut self, answers: &[(SocketAddr, Vec<u8>)]) {
        for (to, bytes) in answers {
            match self.socket.send_to(bytes, to) {
                Ok(_) => self.counters.sent += 1,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.counters.full += 1,
                Err(_) => self.counters.failed += 1,
            }
        }
    }

    /// Sends each datagram to each of its destinations, in order. What cannot leave at once is lost.
    pub fn send(&mut self, now: Time, datagrams: &[(Dest, Vec<u8>)], mut faults: Option<&mut Faults>) {
        let Udp { links, counters, refused, .. } = self;
        let mut fate = |to, bytes: &[u8]| faults.as_mut().map_or(Fate::Goes, |faults| faults.fate(now, to, bytes));
        let mut vectors: Vec<libc::iovec> = Vec::with_capacity(datagrams.len());
        for link in links {
            vectors.clear();
            for (_, bytes) in datagrams.iter().filter(|(dest, _)| dest.contains(link.id)) {
                match fate(link.id, bytes) {
                    // The kernel only reads from it.
                    Fate::Goes => {
                        vectors.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
                    }
                    Fate::Lost => counters.faults += 1,
                    Fate::Delayed => {}
                }
            }
            if !vectors.is_empty() {
                link.send(&mut vectors, counters, refused);
            }
        }
    }
}

impl Link {
    fn send(&self, vectors: &mut [libc::iovec], counters: &mut UdpCounters, refused: &mut Vec<ReplicaId>) {
        // SAFETY: plain numbers and pointers, for which zeros are good values.
        let mut headers: Vec<libc::mmsghdr> = vec![unsafe { std::mem::zeroed() }; vectors.len()];
        for (header, vector) in headers.iter_mut().zip(vectors) {
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        let (mut next, mut was_refused) = (0, false);
        while next < headers.len() {
            let rest = &mut headers[next..];
            let fd = libc::c_long::from(self.socket.as_raw_fd());
            let flags = libc::c_long::from(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
            // Not every C library has this call send more than one datagram at a time; the kernel does.
            // SAFETY: every header points at one vector, and that at a datagram; both outlive the call.
            let count = unsafe { libc::syscall(libc::SYS_sendmmsg, fd, rest.as_mut_ptr(), rest.len(), flags) };
            if count > 0 {
                counters.sent += count as u64;
                next += count as usize;
                continue;
            }
            match io::Error::last_os_error().raw_os_error().unwrap_or(0) {
                libc::EINTR => {}
                libc::EAGAIN => {
                    counters.full += (headers.len() - next) as u64;
                    return;
                }
                // Tells of an earlier datagram; the next one is on its way only if it is sent again.
                libc::ECONNREFUSED if !was_refused => {
                    counters.refused += 1;
                    was_refused = true;
                    refused.push(self.id);
                }
                error => {
                    match error {
                        libc::ECONNREFUSED => counters.refused += 1,
                        libc::EMSGSIZE => counters.too_long += 1,
                        _ => counters.failed += 1,
                    }
                    next += 1;
                }
            }
        }
    }
}

/// Non-blocking, buffers as large as allowed, never fragmented.
fn set_up(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    for (force, ask) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        set_option(socket, libc::SOL_SOCKET, force, SOCKET_BUFFER_BYTES)
            .or_else(|_| set_option(socket, libc::SOL_SOCKET, ask, SOCKET_BUFFER_BYTES))?;
    }
    match socket.local_addr()? {
        SocketAddr::V4(_) => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        SocketAddr::V6(_) => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    }
}

/// Answers to clients go however long they are: nobody finds out for these what the path carries.
fn allow_fragments(socket: &UdpSocket) -> io::Result<()> {
    match socket.local_addr()? {
        SocketAddr::V4(_) => set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        SocketAddr::V6(_) => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT),
    }
}

/// The address in a name that the kernel filled in. An IPv4 name is shorter and begins alike.
fn source(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: a name of this family is a sockaddr_in, which is smaller.
            let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(name.sin_port))))
        }
        libc::AF_INET6 => {
            let ip = IpAddr::V6(Ipv6Addr::from(name.sin6_addr.s6_addr)).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be(name.sin6_port)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::exit::UNAVAILABLE;

    /// Replicas on ports that were free a moment ago.
    fn located(count: u8, ip: &str) -> Vec<Located> {
        let sockets: Vec<UdpSocket> = (0..count).map(|_| UdpSocket::bind((ip, 0)).expect("a port")).collect();
        let address = |s: &UdpSocket| s.local_addr().expect("bound");
        let ids = (1..=count).map(ReplicaId);
        ids.zip(&sockets).map(|(id, s)| Located { id, address: address(s) }).collect()
    }

    fn received(udp: &mut Udp) -> Vec<(IpAddr, Vec<u8>)> {
        let mut all = Vec::new();
        udp.on_readable();
        while udp.more {
            udp.receive(|from, bytes| match from {
                Source::Replica(ip) => all.push((ip, bytes.to_vec())),
                Source::Client(from) => panic!("{from} is no client"),
            });
        }
        all
    }

    #[test]
    fn datagrams_reach_their_destinations_in_order() {
        for ip in ["127.0.0.1", "::1"] {
            let book = located(3, ip);
            let mut all: Vec<Udp> = book.iter().map(|l| Udp::open(&book, l.id).expect("free ports")).collect();
            let both = Dest::one(ReplicaId(2)).with(ReplicaId(3));
            let big = vec![7u8; DATAGRAM_SIZES[6]];
            let datagrams =
                vec![(both, b"one".to_vec()), (Dest::one(ReplicaId(3)), b"two".to_vec()), (both, big.clone())];
            all[0].send(Time(0), &datagrams, None);
            let from: IpAddr = ip.parse().expect("an address");
            assert_eq!(received(&mut all[1]), [(from, b"one".to_vec()), (from, big.clone())]);
            assert_eq!(received(&mut all[2]), [(from, b"one".to_vec()), (from, b"two".to_vec()), (from, big)]);
            assert_eq!((all[0].counters.sent, all[2].counters.received), (5, 3));
            assert!(received(&mut all[0]).is_empty());
            assert_eq!(all[0].datagram_size_max(), 6, "loopback carries the largest");
            assert!(all[0].receive_buffer_bytes() > 60_000);
        }
    }

    #[test]
    fn a_drain_is_bounded_and_remembers_that_more_waits() {
        let book = located(2, "127.0.0.1");
        let mut all: Vec<Udp> = book.iter().map(|l| Udp::open(&book, l.id).expect("free ports")).collect();
        let many = vec![(Dest::one(ReplicaId(2)), vec![1]); BATCH * BATCHES_PER_TURN + 5];
        all[0].send(Time(0), &many, None);
        let mut counts = Vec::new();
        while all[1].has_more() {
            let mut count = 0;
            all[1].receive(|_, _| count += 1);
            counts.push(count);
        }
        assert_eq!(counts, [BATCH * BATCHES_PER_TURN, 5]);
    }

    #[test]
    fn strangers_are_dropped() {
        let mut book = located(2, "127.0.0.1");
        book[1].address.set_ip("127.0.0.2".parse().expect("an address"));
        book[0].address.set_ip("127.0.0.3".parse().expect("an address"));
        let mut udp = Udp::open(&book, ReplicaId(1)).expect("free ports");
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
        stranger.send_to(b"hello", book[0].address).expect("sent");
        assert!(received(&mut udp).is_empty());
        assert_eq!(udp.counters.strangers, 1);
    }

    #[test]
    fn a_refusal_is_told_once_and_a_port_in_use_is_an_error() {
        let book = located(2, "127.0.0.1");
        let mut udp = Udp::open(&book, ReplicaId(1)).expect("free ports");
        let datagrams = vec![(Dest::one(ReplicaId(2)), b"anyone?".to_vec())];
        // On loopback the refusal is there when the call returns.
        udp.send(Time(0), &datagrams, None);
        udp.on_link(ReplicaId(2));
        assert_eq!(udp.take_refused(), [ReplicaId(2)]);
        assert!(udp.take_refused().is_empty());
        udp.send(Time(0), &datagrams, None);
        udp.send(Time(0), &datagrams, None);
        assert_eq!(udp.take_refused(), [ReplicaId(2)]);
        let exit = Udp::open(&book, ReplicaId(1)).err().expect("in use");
        assert_eq!(exit.status, UNAVAILABLE);
        assert!(exit.message.contains("in use"), "{exit}");
    }

    #[test]
    fn faults_lose_what_is_sent() {
        let book = located(3, "127.0.0.1");
        let mut all: Vec<Udp> = book.iter().map(|l| Udp::open(&book, l.id).expect("free ports")).collect();
        let mut faults = Faults::new(5);
        faults.command("partition 1,3").expect("a command");
        let both = Dest::one(ReplicaId(2)).with(ReplicaId(3));
        all[0].send(Time(0), &[(both, b"x".to_vec())], Some(&mut faults));
        assert!(received(&mut all[1]).is_empty());
        assert_eq!(received(&mut all[2]).len(), 1);
        assert_eq!(all[0].counters.faults, 1);
    }
}
