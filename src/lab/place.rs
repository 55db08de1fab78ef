//! Where a lab lives: a directory with the book, and each replica's data and log. A temporary one is removed when the
//! lab ends, a given one is kept, and with it the book: the group knows its replicas by these addresses.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::reactor::book;
use crate::reactor::exit::Exit;
use crate::reactor::options::LabOptions;
use crate::types::ReplicaId;
use crate::wire::view::Book;

/// Ports that are free are looked for from here on: below those the kernel gives to whoever connects, so that nobody
/// takes the port of a replica that is down.
const PORT_FIRST: u16 = 16_000;
const PORT_LAST: u16 = 32_000;

/// A lab's directory.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    temporary: bool,
    pub book: Book,
}

impl Place {
    /// Makes what is not there. Errors where that is not possible, or the directory is another lab's.
    pub fn open(options: &LabOptions) -> Result<Place, Exit> {
        let (directory, temporary) = match &options.data {
            Some(directory) => {
                fs::create_dir_all(directory).map_err(|e| Exit::io("make", directory, &e))?;
                (directory.canonicalize().map_err(|e| Exit::io("find", directory, &e))?, false)
            }
            None => (make_temporary()?, true),
        };
        let mut place = Place { directory, temporary, book: Book::new() };
        match place.found_book(options) {
            Ok(book) => place.book = book,
            Err(e) => {
                place.remove();
                return Err(e);
            }
        }
        Ok(place)
    }

    /// The book that is there, else a new one.
    fn found_book(&self, options: &LabOptions) -> Result<Book, Exit> {
        let path = self.book_path();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let found = book::parse(&text, &path.display().to_string())?;
                let differs = |what: String| Exit::configuration(format!("{} is the book of {what}", path.display()));
                if found.len() != usize::from(options.count) {
                    return Err(differs(format!("a lab of {} replicas", found.len())));
                }
                if options.port.is_some_and(|port| found != book::on_loopback(options.count, port)) {
                    return Err(differs("a lab at other ports".to_owned()));
                }
                Ok(found)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let port = match options.port {
                    Some(port) => port,
                    None => free_ports(options.count)?,
                };
                let made = book::on_loopback(options.count, port);
                let text: String = made.iter().map(|entry| format!("{} {}\n", entry.id, entry.address)).collect();
                fs::write(&path, text).map_err(|e| Exit::io("write", &path, &e))?;
                Ok(made)
            }
            Err(e) => Err(Exit::io("read", &path, &e)),
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub fn book_path(&self) -> PathBuf {
        self.directory.join("cluster")
    }

    pub fn data_path(&self, id: ReplicaId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    pub fn log_path(&self, id: ReplicaId) -> PathBuf {
        self.directory.join(format!("{id}.log"))
    }

    /// `HOST:PORT` of a replica.
    pub fn address(&self, id: ReplicaId) -> &str {
        &self.book.iter().find(|entry| entry.id == id).expect("a replica of the lab").address
    }

    /// Removes a temporary place. Nothing may be running there.
    pub fn remove(&self) {
        if self.temporary {
            // What cannot be removed is left where temporary things are.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn make_temporary() -> Result<PathBuf, Exit> {
    let template = std::env::temp_dir().join(format!("ftq-lab-{}", "X".repeat(6)));
    let failed = |e: &io::Error| Exit::io("make", &template, e);
    let name = CString::new(template.as_os_str().as_bytes()).map_err(|e| failed(&e.into()))?;
    let mut name = name.into_bytes_with_nul();
    // SAFETY: a string with its end, in which the call replaces the X's.
    if unsafe { libc::mkdtemp(name.as_mut_ptr().cast()) }.is_null() {
        return Err(failed(&io::Error::last_os_error()));
    }
    name.pop();
    Ok(PathBuf::from(OsString::from_vec(name)))
}

/// The first of so many ports in a row that nobody uses.
fn free_ports(count: u8) -> Result<u16, Exit> {
    let is_free =
        |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
    let rows = (PORT_LAST - PORT_FIRST) / u16::from(count);
    // Labs that start at the same time begin to look at different ones.
    let start = std::process::id() % u32::from(rows);
    (0..u32::from(rows))
        .map(|row| PORT_FIRST + ((start + row) % u32::from(rows)) as u16 * u16::from(count))
        .find(|&first| (first..first + u16::from(count)).all(is_free))
        .ok_or_else(|| Exit::unavailable(format!("no {count} ports in a row are free; name one with --port")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::exit::CONFIGURATION;

    #[test]
    fn a_temporary_place_goes_and_a_given_one_keeps_its_book() {
        let options = LabOptions { count: 3, port: None, data: None, passed_on: Vec::new() };
        let place = Place::open(&options).expect("a place");
        assert!(place.is_temporary() && place.book_path().exists() && place.book.len() == 3);
        place.remove();
        assert!(!place.directory().exists());

        let kept = tempfile::tempdir().expect("a directory");
        let options = LabOptions { data: Some(kept.path().join("a/b")), ..options };
        let place = Place::open(&options).expect("a place");
        let book = place.book.clone();
        place.remove();
        assert_eq!(Place::open(&options).expect("it is still there").book, book);
        for wrong in [LabOptions { count: 4, ..options.clone() }, LabOptions { port: Some(1), ..options }] {
            assert_eq!(Place::open(&wrong).expect_err("another lab's").status, CONFIGURATION);
        }
    }

    #[test]
    fn ports_in_use_are_passed_over() {
        let first = free_ports(3).expect("free ports");
        let _taken = TcpListener::bind(("127.0.0.1", first + 1)).expect("it is free");
        let next = free_ports(3).expect("free ports");
        assert!(next > first + 1 || next + 2 < first + 1, "{first} {next}");
    }
}
