//! The file of `push --session`: how much of an input was pushed, and under which numbers of which session what may
//! have been sent stands. It is written before anything it names is sent, so whoever goes on from it sends exactly the
//! same again. It is replaced as a whole (written beside, synced, renamed, the directory synced) and locked while in
//! use; the lock is on the file that has the name, so each replacement is locked before it gets it.

use crate::cli::output::{complain, Output};
use crate::client::{Code, Error};
use crate::types::{ClusterId, SessionId, Slot};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

const TITLE: &str = "ftq session file, version ";
const VERSION: u64 = 1;
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

/// A part of the input: its bytes, separators included, and the items in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Extent {
    pub bytes: u64,
    pub items: u64,
}

/// What may have been sent under this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    pub number: u64,
    pub extent: Extent,
}

/// How far a push has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    pub label: String,
    /// How the input falls into items: at NULs, and escaped.
    pub null: bool,
    pub escape: bool,
    pub session: Option<(ClusterId, SessionId)>,
    /// The next number in the session.
    pub next: u64,
    /// What was acknowledged, from the input's beginning.
    pub done: Extent,
    /// Items of the input that are none and were passed over.
    pub skipped: u64,
    /// What follows upon it and may have been sent, in this order.
    pub sent: VecDeque<Sent>,
    /// Bytes of the input that are dealt with by all that, and their hash.
    pub taken: u64,
    pub hash: u64,
}

impl Position {
    /// At the beginning of an input.
    pub fn new(label: &str, null: bool, escape: bool) -> Position {
        Position {
            label: label.to_string(),
            null,
            escape,
            session: None,
            next: 1,
            done: Extent::default(),
            skipped: 0,
            sent: VecDeque::new(),
            taken: 0,
            hash: XxHash3_64::oneshot(&[]),
        }
    }

    /// The number up to which all answers are on file.
    pub fn seen(&self) -> u64 {
        self.sent.front().map_or(self.next, |first| first.number) - 1
    }

    fn write(&self) -> String {
        let mut text = format!("{TITLE}{VERSION}\nlabel {}\n", self.label);
        text += &format!("input {} {}\n", u8::from(self.null), u8::from(self.escape));
        if let Some((group, id)) = self.session {
            let (slot, digest) = (id.slot.0, id.digest);
            text += &format!("session {:016x} {slot} {} {digest:016x}\n", group.0, id.position);
        }
        text +=
            &format!("next {}\ndone {} {}\nskipped {}\n", self.next, self.done.bytes, self.done.items, self.skipped);
        for Sent { number, extent } in &self.sent {
            text += &format!("sent {number} {} {}\n", extent.bytes, extent.items);
        }
        text += &format!("taken {} {:016x}\n", self.taken, self.hash);
        let check = XxHash3_64::oneshot(text.as_bytes());
        text + &format!("check {check:016x}\n")
    }

    /// Reads what `write` wrote. Errors say what is wrong with it.
    fn read(text: &str) -> Result<Position, String> {
        let version = text.strip_prefix(TITLE).and_then(|rest| rest.split_once('\n')).map(|(version, _)| version);
        match version.map(str::parse::<u64>) {
            None | Some(Err(_)) => return Err("this is no session file".to_string()),
            Some(Ok(VERSION)) => {}
            Some(Ok(other)) => return Err(format!("it has version {other}; this ftqc knows version {VERSION}")),
        }
        Position::read_fields(text).ok_or_else(|| "it is damaged".to_string())
    }

    fn read_fields(text: &str) -> Option<Position> {
        let (body, check) = text.strip_suffix('\n')?.rsplit_once("\ncheck ")?;
        let body = &text[..=body.len()];
        if hex(check)? != XxHash3_64::oneshot(body.as_bytes()) {
            return None;
        }
        let mut lines = Fields { lines: body.lines().skip(1).peekable() };
        let label = lines.next("label")?.to_string();
        let (null, escape) = match lines.next("input")? {
            "0 0" => (false, false),
            "0 1" => (false, true),
            "1 0" => (true, false),
            "1 1" => (true, true),
            _ => return None,
        };
        let session = match lines.next("session") {
            Some(words) => Some(session(words)?),
            None => None,
        };
        let next = lines.next("next")?.parse().ok()?;
        let done = extent(lines.next("done")?)?;
        let skipped = lines.next("skipped")?.parse().ok()?;
        let mut sent = VecDeque::new();
        while let Some(words) = lines.next("sent") {
            let (number, rest) = words.split_once(' ')?;
            sent.push_back(Sent { number: number.parse().ok()?, extent: extent(rest)? });
        }
        let (taken, hash) = lines.next("taken")?.split_once(' ')?;
        let (taken, hash) = (taken.parse().ok()?, hex(hash)?);
        let position = Position { label, null, escape, session, next, done, skipped, sent, taken, hash };
        (lines.lines.next().is_none() && position.is_sound()).then_some(position)
    }

    /// Whether its parts fit together.
    fn is_sound(&self) -> bool {
        let first = self.sent.front().map_or(self.next, |sent| sent.number);
        let consecutive = (first..).zip(&self.sent).all(|(number, sent)| sent.number == number);
        let bytes = self.sent.iter().try_fold(self.done.bytes, |sum, sent| sum.checked_add(sent.extent.bytes));
        first > 0
            && consecutive
            && first.checked_add(self.sent.len() as u64) == Some(self.next)
            && bytes <= Some(self.taken)
    }
}

struct Fields<'a, I: Iterator<Item = &'a str>> {
    lines: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = &'a str>> Fields<'a, I> {
    /// What stands behind this word, if it begins the next line.
    fn next(&mut self, word: &str) -> Option<&'a str> {
        let rest = self.lines.peek()?.strip_prefix(word)?.strip_prefix(' ')?;
        self.lines.next();
        Some(rest)
    }
}

fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16)
}

fn extent(words: &str) -> Option<Extent> {
    let (bytes, items) = words.split_once(' ')?;
    Some(Extent { bytes: bytes.parse().ok()?, items: items.parse().ok()? })
}

fn session(words: &str) -> Option<(ClusterId, SessionId)> {
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
    /// Opens and locks the file, and reads what it says, if anything; makes it where `create` is set.
    pub fn open(path: &Path, create: bool) -> Result<(Store, Option<Position>), Trouble> {
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
        Ok((store, Some(Position::read(text).map_err(|why| bad(path, &why))?)))
    }

    /// Replaces what the file says; it is on the disk when this returns.
    pub fn write(&mut self, position: &Position) -> Result<(), Trouble> {
        self.replace(position.write().as_bytes()).map_err(|e| {
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
fn lock(file: &File) -> io::Result<bool> {
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

    fn position(sent: &[(u16, u16)], session: bool) -> Position {
        let mut position = Position::new("jobs", false, true);
        let id = SessionId { slot: Slot(9), position: 1, digest: 77 };
        position.session = session.then_some((ClusterId(5), id));
        (position.done, position.next) = (Extent { bytes: 10, items: 2 }, 3);
        position.taken = 10;
        for &(bytes, items) in sent {
            let extent = Extent { bytes: bytes.into(), items: items.into() };
            position.sent.push_back(Sent { number: position.next, extent });
            position.next += 1;
            position.taken += extent.bytes;
        }
        position
    }

    quickcheck! {
        fn a_position_comes_back(sent: Vec<(u16, u16)>, session: bool) -> bool {
            let position = position(&sent, session);
            Position::read(&position.write()) == Ok(position)
        }

        fn damage_is_found(at: usize, value: u8) -> bool {
            let good = position(&[(5, 1), (6, 2)], true).write();
            let mut bytes = good.clone().into_bytes();
            let at = at % bytes.len();
            bytes[at] = value;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text == good || Position::read(&text).is_err()
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = position(&[(5, 1)], true).write();
        assert!(Position::read("hello\n").is_err_and(|why| why.contains("no session file")));
        let later = good.replace("version 1", "version 2");
        assert!(Position::read(&later).is_err_and(|why| why.contains("version 2")));
        for length in 0..good.len() {
            assert!(Position::read(&good[..length]).is_err(), "{length} bytes");
        }
        let (body, _) = good.split_at(good.len() - "check 0123456789abcdef\n".len());
        let gap = body.replace("sent 3", "sent 4");
        let gap = format!("{gap}check {:016x}\n", XxHash3_64::oneshot(gap.as_bytes()));
        assert!(Position::read(&gap).is_err_and(|why| why.contains("damaged")), "numbers follow upon each other");
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
        for sent in [&[][..], &[(1, 1)], &[(1, 1), (2, 2)]] {
            store.write(&position(sent, true)).expect("there is room");
            assert!(in_use(&path), "the lock goes with the name");
        }
        drop(store);
        let (store, found) = Store::open(&path, false).expect("it is there");
        assert_eq!(found, Some(position(&[(1, 1), (2, 2)], true)));
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
        store.write(&position(&[], false)).expect("there is room");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert!(fs::read_to_string(&path).expect("a file").starts_with(TITLE));
        assert!(Store::open(place.path(), true).is_err());
    }
}
