//! A session file: what has to be known to go on with a kept session. It is replaced as a whole (written beside,
//! synced, renamed, the directory synced) and locked while in use; the lock is on the file that has the name, so each
//! replacement is locked before it gets it. What is in it is a text of lines between a title and a check sum.

use crate::cli::output::{complain, Output};
use crate::client::{Code, Error};
use crate::types::{ClusterId, SessionId, Slot};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

const TITLE: &str = "ftq session file, version ";
const VERSION: u64 = 2;
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why there is nothing to go on from.
#[derive(Debug)]
pub enum Trouble {
    Error(Error),
    /// The same; where its outcome is unknown, running the same command again finds out.
    Again(Error),
    /// A message about a file, and the exit status.
    File(String, u8),
}

impl Trouble {
    pub fn tell(self, out: &mut Output) {
        match self {
            Trouble::Error(e) => out.error(&e),
            Trouble::Again(e) if e.is(Code::UnknownOutcome) => out.error_as(&e.and("run it again to find out"), 75),
            Trouble::Again(e) => out.error(&e),
            Trouble::File(message, status) => {
                out.flush();
                complain(&message);
                out.note_status(status);
            }
        }
    }

    pub fn io(path: &Path, e: &io::Error) -> Trouble {
        let status = if e.kind() == io::ErrorKind::NotFound { 66 } else { 74 };
        Trouble::File(format!("{}: {e}", path.display()), status)
    }
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Trouble {
        Trouble::Error(e)
    }
}

/// The whole text around these lines.
pub fn seal(lines: &str) -> String {
    let text = format!("{TITLE}{VERSION}\n{lines}");
    let check = XxHash3_64::oneshot(text.as_bytes());
    text + &format!("check {check:016x}\n")
}

/// The lines that `seal` was given. Errors say what is wrong with the text.
pub fn unseal(text: &str) -> Result<&str, String> {
    let (version, rest) =
        text.strip_prefix(TITLE).and_then(|rest| rest.split_once('\n')).ok_or("this is no session file")?;
    match version.parse() {
        Err(_) => return Err("this is no session file".to_string()),
        Ok(VERSION) => {}
        Ok(other) => return Err(format!("it has version {other}; this ftqc knows version {VERSION}")),
    }
    let check = text.strip_suffix('\n').and_then(|text| text.rsplit_once("\ncheck "));
    let (sealed, check) = check.ok_or("it is damaged")?;
    if hex(check) != Some(XxHash3_64::oneshot(&text.as_bytes()[..=sealed.len()])) {
        return Err("it is damaged".to_string());
    }
    Ok(&rest[..sealed.len() + 1 - (text.len() - rest.len())])
}

/// The lines one by one, each behind the word that begins it.
pub struct Fields<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
}

impl<'a> Fields<'a> {
    pub fn of(lines: &'a str) -> Fields<'a> {
        Fields { lines: lines.lines().peekable() }
    }

    /// What stands behind this word, if it begins the next line.
    pub fn next(&mut self, word: &str) -> Option<&'a str> {
        let rest = self.lines.peek()?.strip_prefix(word)?.strip_prefix(' ')?;
        self.lines.next();
        Some(rest)
    }

    pub fn are_over(mut self) -> bool {
        self.lines.next().is_none()
    }
}

pub fn hex(text: &str) -> Option<u64> {
    let is_ours = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u64::from_str_radix(text, 16).ok().filter(|_| is_ours)
}

/// A part of an input or output: its bytes, separators included, and the items in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extent {
    pub bytes: u64,
    pub items: u64,
}

pub fn extent(words: &str) -> Option<Extent> {
    let (bytes, items) = words.split_once(' ')?;
    Some(Extent { bytes: bytes.parse().ok()?, items: items.parse().ok()? })
}

/// The line that names a session.
pub fn session_line((group, id): (ClusterId, SessionId)) -> String {
    format!("session {:016x} {} {} {:016x}\n", group.0, id.slot.0, id.position, id.digest)
}

pub fn session(words: &str) -> Option<(ClusterId, SessionId)> {
    let words: Vec<&str> = words.split(' ').collect();
    let [group, slot, position, digest] = words[..] else { return None };
    let id = SessionId { slot: Slot(slot.parse().ok()?), position: position.parse().ok()?, digest: hex(digest)? };
    Some((ClusterId(hex(group)?), id)).filter(|_| !id.is_none())
}

/// The file, locked.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
}

impl Store {
    /// Opens and locks the file, and reads its lines, if there are any; makes it where `create` is set.
    pub fn open(path: &Path, create: bool) -> Result<(Store, Option<String>), Trouble> {
        let io = |e: io::Error| Trouble::io(path, &e);
        let mut file = loop {
            let mut options = File::options();
            // Opening a pipe or a device must not wait.
            options.read(true).write(true).create(create).truncate(false).mode(0o600).custom_flags(libc::O_NONBLOCK);
            let file = options.open(path).map_err(io)?;
            let own = file.metadata().map_err(io)?;
            if !own.is_file() {
                return Err(bad(path, "this is no regular file"));
            }
            if !lock(&file).map_err(io)? {
                let message = format!("{} is in use by another process", path.display());
                return Err(Error::refused(Code::Busy, message).into());
            }
            // Whoever had the lock may have replaced the file before this lock was taken.
            match fs::metadata(path) {
                Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => break file,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io(e)),
            }
        };
        let mut bytes = Vec::new();
        (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
        // Behind a symbolic link the file itself is replaced, not the link.
        let store = Store { path: fs::canonicalize(path).map_err(io)?, file };
        if bytes.is_empty() {
            return Ok((store, None));
        }
        let text = std::str::from_utf8(&bytes).unwrap_or_default();
        let lines = unseal(text).map_err(|why| bad(path, &why))?.to_string();
        Ok((store, Some(lines)))
    }

    /// Replaces what the file says; it is on the disk when this returns.
    pub fn write(&mut self, lines: &str) -> Result<(), Trouble> {
        self.replace(seal(lines).as_bytes()).map_err(|e| {
            // Nothing is missing but room or permission.
            Trouble::File(format!("{}: {e}", self.path.display()), 74)
        })
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let beside = self.beside();
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        if !lock(&file)? {
            return Err(io::Error::other(format!("{} is locked", beside.display())));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        self.file = file;
        self.sync_directory()
    }

    /// Deletes the file.
    pub fn remove(self) -> Result<(), Trouble> {
        let io = |e: io::Error| Trouble::io(&self.path, &e);
        match fs::remove_file(self.beside()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        fs::remove_file(&self.path).and_then(|()| self.sync_directory()).map_err(io)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn beside(&self) -> PathBuf {
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".new");
        self.path.with_file_name(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// What this file says can't be gone on from.
pub fn bad(path: &Path, why: &str) -> Trouble {
    Error::bad_request(format!("{}: {why}", path.display())).into()
}

/// Takes the lock; false if another process has it.
pub fn lock(file: &File) -> io::Result<bool> {
    // SAFETY: takes a descriptor that lives, and touches no memory.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        e => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn damage_is_found(at: usize, value: u8) -> bool {
            let good = seal("label jobs\nnext 1\n");
            let mut bytes = good.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = value;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text == good || unseal(&text).is_err()
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = seal("label jobs\nnext 1\n");
        assert_eq!(unseal(&good), Ok("label jobs\nnext 1\n"));
        assert_eq!(unseal(&seal("")), Ok(""));
        assert!(unseal("hello\n").is_err_and(|why| why.contains("no session file")));
        assert!(unseal(&good.replace("version 2", "version 1")).is_err_and(|why| why.contains("version 1")));
        for length in 0..good.len() {
            assert!(unseal(&good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_and_locked_meanwhile() {
        let place = tempfile::tempdir().expect("a place");
        let path = place.path().join("file");
        let in_use = |path: &Path| matches!(Store::open(path, true), Err(Trouble::Error(e)) if e.exit_status() == 75);
        let missing = |path: &Path| matches!(Store::open(path, false), Err(Trouble::File(_, 66)));
        assert!(missing(&path));
        let (mut store, found) = Store::open(&path, true).expect("it is made");
        assert_eq!(found, None);
        assert!(in_use(&path));
        for lines in ["", "a\n", "a\nb c\n"] {
            store.write(lines).expect("there is room");
            assert!(in_use(&path), "the lock goes with the name");
        }
        drop(store);
        let (store, found) = Store::open(&path, false).expect("it is there");
        assert_eq!(found.as_deref(), Some("a\nb c\n"));
        store.remove().expect("it is ours");
        assert!(missing(&path));
        assert_eq!(fs::read_dir(place.path()).expect("a place").count(), 0);
    }

    #[test]
    fn a_link_stays_a_link_and_a_directory_is_no_file() {
        let place = tempfile::tempdir().expect("a place");
        let (path, link) = (place.path().join("file"), place.path().join("link"));
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        let (mut store, _) = Store::open(&link, true).expect("it is made");
        store.write("").expect("there is room");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert!(fs::read_to_string(&path).expect("a file").starts_with(TITLE));
        assert!(Store::open(place.path(), true).is_err());
    }
}
