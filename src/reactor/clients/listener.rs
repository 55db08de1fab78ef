//! Where clients connect: the TCP port, and the Unix socket with its file.

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::connection::Stream;
use crate::reactor::exit::Exit;
use crate::reactor::os::set_option;

/// The owner and the group may connect.
const SOCKET_MODE: u32 = 0o660;
/// A silent connection's host is asked after a minute whether it still lives, three times ten seconds apart.
const KEEPALIVE: [(libc::c_int, libc::c_int); 3] =
    [(libc::TCP_KEEPIDLE, 60), (libc::TCP_KEEPINTVL, 10), (libc::TCP_KEEPCNT, 3)];

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    /// Somebody may wait to be accepted.
    pub waiting: bool,
}

/// What an attempt to accept gives.
#[derive(Debug)]
pub(super) enum Accepted {
    Stream(Stream),
    Nobody,
    /// Descriptors or memory ran out.
    Starved(io::Error),
}

impl Listener {
    pub fn tcp(address: SocketAddr) -> Result<Listener, Exit> {
        let unusable = |e| Exit::unavailable(format!("cannot listen on TCP port {address}: {e}"));
        Ok(Listener { socket: Socket::Tcp(TcpListener::bind(address).map_err(unusable)?), waiting: true })
    }

    /// A socket file that nobody answers on is a leftover and is replaced.
    pub fn unix(path: &Path) -> Result<Listener, Exit> {
        let unusable = |e| Exit::unavailable(format!("cannot listen on socket {}: {e}", path.display()));
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(unusable)?;
        }
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(Exit::configuration(format!("{} is there and is no socket", path.display())));
            }
            if UnixStream::connect(path).is_ok() {
                let message = format!("socket {} is in use by another ftqd (see --socket)", path.display());
                return Err(Exit::unavailable(message));
            }
            fs::remove_file(path).map_err(unusable)?;
        }
        let listener = UnixListener::bind(path).map_err(unusable)?;
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(unusable)?;
        Ok(Listener { socket: Socket::Unix(listener, path.to_owned()), waiting: true })
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Socket::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }

    /// The next connection. Where there is none, `waiting` ends.
    pub fn accept(&mut self) -> Accepted {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
            Socket::Unix(listener, _) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
        };
        match accepted {
            Ok(Stream::Tcp(stream)) => {
                // Best effort: without them a connection is only slower, or closed later.
                let _ = stream.set_nodelay(true);
                let _ = set_option(&stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
                for (name, value) in KEEPALIVE {
                    let _ = set_option(&stream, libc::IPPROTO_TCP, name, value);
                }
                Accepted::Stream(Stream::Tcp(stream))
            }
            Ok(stream) => Accepted::Stream(stream),
            Err(e) => match e.raw_os_error().unwrap_or(0) {
                // That connection has ended already; others may wait.
                libc::EINTR | libc::ECONNABORTED | libc::EPROTO => Accepted::Nobody,
                libc::EAGAIN => {
                    self.waiting = false;
                    Accepted::Nobody
                }
                _ => {
                    self.waiting = false;
                    Accepted::Starved(e)
                }
            },
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}
