//! The address book: lines `ID HOST:PORT [HTTP-HOST:PORT]` with `#` comments, the same file on every host. Names are
//! resolved once, at start.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::limits::{ADDRESS_BYTES_MAX, REPLICAS_MAX, REPLICA_ID_MAX};
use crate::reactor::exit::Exit;
use crate::types::ReplicaId;
use crate::wire::view::{Book, BookEntry};

/// A replica's address, resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    pub id: ReplicaId,
    pub address: SocketAddr,
}

/// Reads a book; `file` is for messages only.
pub fn parse(text: &str, file: &str) -> Result<Book, Exit> {
    let mut book = Book::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or("").trim();
        if content.is_empty() {
            continue;
        }
        let wrong = |what: String| Exit::configuration(format!("{file}:{}: {what}", index + 1));
        let entry = parse_line(content).map_err(wrong)?;
        if book.iter().any(|e| e.id == entry.id) {
            return Err(wrong(format!("replica {} is listed twice", entry.id)));
        }
        if let Some(other) = book.iter().find(|e| e.address == entry.address) {
            return Err(wrong(format!("{} is the address of replica {} already", entry.address, other.id)));
        }
        if book.len() == REPLICAS_MAX {
            return Err(wrong(format!("more than {REPLICAS_MAX} replicas")));
        }
        book.push(entry);
    }
    if book.is_empty() {
        return Err(Exit::configuration(format!("{file}: no replica is listed")));
    }
    book.sort_by_key(|e| e.id);
    Ok(book)
}

fn parse_line(line: &str) -> Result<BookEntry, String> {
    let mut words = line.split_whitespace();
    let id = words.next().unwrap_or("");
    let id = match id.parse::<u8>() {
        Ok(n) if (1..=REPLICA_ID_MAX).contains(&n) => ReplicaId(n),
        _ => return Err(format!("bad id '{id}': must be 1 to {REPLICA_ID_MAX}")),
    };
    let address = words.next().ok_or_else(|| format!("replica {id} has no address (ID HOST:PORT)"))?;
    check_address(address)?;
    let http = words.next();
    http.map_or(Ok(()), check_address)?;
    match words.next() {
        Some(word) => Err(format!("'{word}' is one word too many")),
        None => Ok(BookEntry { id, address: address.to_owned(), http: http.map(str::to_owned) }),
    }
}

/// `HOST:PORT`, or `[IPV6]:PORT`.
pub fn check_address(address: &str) -> Result<(), String> {
    let bad = |why: &str| Err(format!("bad address '{address}': {why}"));
    let Some((host, port)) = address.rsplit_once(':') else { return bad("must be HOST:PORT") };
    if address.len() > ADDRESS_BYTES_MAX {
        return bad("too long");
    }
    if !port.parse::<u16>().is_ok_and(|p| p != 0) {
        return bad("the port must be 1 to 65535");
    }
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return bad("must be HOST:PORT, an IPv6 address in brackets");
    }
    Ok(())
}

/// The book of `--n COUNT --port PORT`: replica i at 127.0.0.1, port PORT+i-1.
pub fn on_loopback(count: u8, port: u16) -> Book {
    (1..=count)
        .map(|id| BookEntry {
            id: ReplicaId(id),
            address: format!("127.0.0.1:{}", port + u16::from(id) - 1),
            http: None,
        })
        .collect()
}

/// The address of every replica, all of the family of `own`'s first address. Errors where a name is not known (now).
pub fn resolve(book: &Book, own: ReplicaId) -> Result<Vec<Located>, Exit> {
    let own_entry = book.iter().find(|e| e.id == own).expect("checked when the book was read");
    let family = addresses(own_entry)?[0];
    book.iter()
        .map(|entry| {
            let same_family = addresses(entry)?.into_iter().find(|a| a.is_ipv4() == family.is_ipv4());
            let address = same_family.ok_or_else(|| {
                Exit::configuration(format!("{} and {} mix IPv4 and IPv6", own_entry.address, entry.address))
            })?;
            Ok(Located { id: entry.id, address })
        })
        .collect()
}

/// The first address of a `HOST:PORT`. Errors say why there is none (now).
pub fn resolve_one(text: &str) -> Result<SocketAddr, String> {
    check_address(text)?;
    let found = text.to_socket_addrs().map_err(|e| e.to_string())?.next();
    found.ok_or_else(|| "no address".to_owned())
}

/// At least one.
fn addresses(entry: &BookEntry) -> Result<Vec<SocketAddr>, Exit> {
    let failed =
        |why: &str| Exit::unavailable(format!("replica {}: cannot resolve {}: {why}", entry.id, entry.address));
    let found: Vec<SocketAddr> = entry.address.to_socket_addrs().map_err(|e| failed(&e.to_string()))?.collect();
    if found.is_empty() {
        return Err(failed("no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::exit::{CONFIGURATION, UNAVAILABLE};

    fn message(text: &str) -> String {
        let exit = parse(text, "cluster").expect_err("must be refused");
        assert_eq!(exit.status, CONFIGURATION);
        exit.message
    }

    #[test]
    fn a_book_is_read_and_sorted() {
        let book = parse("# three\n 2 b:7402  b:8002 # second\n\n1 a:7401\n3 [::1]:7403\n", "cluster").expect("good");
        let ids: Vec<u8> = book.iter().map(|e| e.id.0).collect();
        assert_eq!(ids, [1, 2, 3]);
        assert_eq!(book[1].http.as_deref(), Some("b:8002"));
        assert_eq!(book[2].address, "[::1]:7403");
    }

    #[test]
    fn mistakes_are_named_with_file_and_line() {
        assert_eq!(message("1 a:1\n1 b:1"), "cluster:2: replica 1 is listed twice");
        assert_eq!(message("1 a:1\n2 a:1"), "cluster:2: a:1 is the address of replica 1 already");
        assert_eq!(message("x a:1"), "cluster:1: bad id 'x': must be 1 to 64");
        assert_eq!(message("0 a:1"), "cluster:1: bad id '0': must be 1 to 64");
        assert_eq!(message("\n65 a:1"), "cluster:2: bad id '65': must be 1 to 64");
        assert_eq!(message("1"), "cluster:1: replica 1 has no address (ID HOST:PORT)");
        assert_eq!(message("1 a"), "cluster:1: bad address 'a': must be HOST:PORT");
        assert_eq!(message("1 a:0"), "cluster:1: bad address 'a:0': the port must be 1 to 65535");
        assert_eq!(message("1 a:70000"), "cluster:1: bad address 'a:70000': the port must be 1 to 65535");
        assert!(message("1 ::1:7400").contains("in brackets"));
        assert!(message("1 :7400").contains("must be HOST:PORT"));
        assert_eq!(message("1 a:1 b:2 c"), "cluster:1: 'c' is one word too many");
        assert_eq!(message("# nothing\n"), "cluster: no replica is listed");
        let many: String = (1..=16).map(|i| format!("{i} a:{i}\n")).collect();
        assert_eq!(message(&many), "cluster:16: more than 15 replicas");
    }

    #[test]
    fn loopback_counts_ports_up() {
        let book = on_loopback(3, 7400);
        assert_eq!(book[2].address, "127.0.0.1:7402");
        let located = resolve(&book, ReplicaId(1)).expect("numbers need no resolver");
        assert_eq!(located[2].address, "127.0.0.1:7402".parse().expect("an address"));
    }

    #[test]
    fn families_do_not_mix_and_unknown_names_may_come_back() {
        let mixed = parse("1 127.0.0.1:1\n2 [::1]:2", "cluster").expect("good");
        assert_eq!(resolve(&mixed, ReplicaId(1)).expect_err("mixed").status, CONFIGURATION);
        let unknown = parse("1 127.0.0.1:1\n2 no.such.host.invalid:2", "cluster").expect("good");
        assert_eq!(resolve(&unknown, ReplicaId(1)).expect_err("unknown").status, UNAVAILABLE);
    }
}
