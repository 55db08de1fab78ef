//! Where replicas are found: a list as `-s` takes it, or the default that INTERFACE describes.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// Where the daemon's sockets and the book are on an installed system.
const SOCKETS: &str = "/run/ftq";
const BOOK: &str = "/etc/ftq/cluster";
const LAST_RESORT: &str = "127.0.0.1:7400";

/// One replica's door.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// `HOST:PORT`, resolved at every attempt.
    Tcp(String),
    Unix(PathBuf),
}

impl Server {
    /// Reads `HOST:PORT`, or a socket's path: what has a `/` in it. Errors say what is wrong.
    pub fn parse(text: &str) -> Result<Server, String> {
        if text.contains('/') {
            return Ok(Server::Unix(PathBuf::from(text)));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0) => {
                Ok(Server::Tcp(text.to_string()))
            }
            _ => Err(format!("{text:?} is neither HOST:PORT nor the path of a socket")),
        }
    }

    /// Reads a list with commas between. Errors say what is wrong with the first bad one.
    pub fn parse_list(text: &str) -> Result<Vec<Server>, String> {
        let list = text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(Server::parse);
        let list = list.collect::<Result<Vec<_>, _>>()?;
        if list.is_empty() {
            return Err("the list of servers is empty".to_string());
        }
        Ok(list)
    }

    /// `$FTQ_SERVERS`, else the sockets in `/run/ftq`, else the book, else 127.0.0.1:7400.
    /// Errors: the first of these that is there makes no sense.
    pub fn defaults() -> Result<Vec<Server>, String> {
        if let Some(list) = std::env::var_os("FTQ_SERVERS").filter(|list| !list.is_empty()) {
            let list = list.into_string().map_err(|_| "FTQ_SERVERS is not UTF-8".to_string())?;
            return Server::parse_list(&list).map_err(|why| format!("FTQ_SERVERS: {why}"));
        }
        let sockets = sockets_in(Path::new(SOCKETS));
        if !sockets.is_empty() {
            return Ok(sockets);
        }
        match std::fs::read_to_string(BOOK) {
            Ok(book) => from_book(&book).map_err(|why| format!("{BOOK}: {why}")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Server::parse_list(LAST_RESORT),
            Err(e) => Err(format!("{BOOK}: {e}")),
        }
    }

    /// The addresses behind the name; none for a socket.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Server::Tcp(name) => Ok(name.to_socket_addrs()?.collect()),
            Server::Unix(_) => Ok(Vec::new()),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Tcp(name) => f.write_str(name),
            Server::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The sockets `*.sock` in a directory, by name; none where it cannot be read.
fn sockets_in(directory: &Path) -> Vec<Server> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "sock"));
    paths.sort();
    paths.into_iter().map(Server::Unix).collect()
}

/// The second column of each line `ID HOST:PORT [HTTP-HOST:PORT]`; `#` begins a comment.
fn from_book(book: &str) -> Result<Vec<Server>, String> {
    let lines = book.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut servers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let address = line.split_whitespace().nth(1).ok_or_else(|| format!("no address in {line:?}"))?;
        servers.push(Server::parse(address)?);
    }
    if servers.is_empty() {
        return Err("no replica is listed".to_string());
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_hosts_and_sockets() {
        let list = Server::parse_list("a:1, [::1]:7400,/run/x.sock").expect("a good list");
        assert_eq!(list[0], Server::Tcp("a:1".into()));
        assert_eq!(list[1], Server::Tcp("[::1]:7400".into()));
        assert_eq!(list[2], Server::Unix("/run/x.sock".into()));
        for bad in ["", ",", "host", "host:", ":7400", "host:0", "host:65536", "a:1,b"] {
            assert!(Server::parse_list(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_book_gives_its_addresses() {
        let book = "# the group\n1 a:7400 b:80\n\n2\tb:7400 # second\n";
        assert_eq!(from_book(book), Ok(vec![Server::Tcp("a:7400".into()), Server::Tcp("b:7400".into())]));
        assert!(from_book("1\n").is_err());
        assert!(from_book("# nobody\n").is_err());
    }
}
