//! Where `pop --session` writes to: a regular file that grows by what was popped, synced each time, and is held against
//! the session file before it grows; or stdout, of which nothing is known.

use crate::cli::output::Output;
use crate::cli::popped::Popped;
use crate::cli::store::{bad, lock, Trouble};
use crate::client::{Code, Error};
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// The file, locked, with the position behind what was popped.
pub struct Outlet {
    path: PathBuf,
    file: File,
    /// Of all that is in it.
    hash: XxHash3_64,
}

impl Outlet {
    /// Opens the file and cuts off what a death left behind the bytes that are accounted for; makes it where there are
    /// none. `is_new`: no session file tells of it.
    pub fn open(path: &Path, popped: &mut Popped, is_new: bool) -> Result<Outlet, Trouble> {
        let io = |e: io::Error| Trouble::io(path, &e);
        if path.to_str().is_none() {
            return Err(bad(path, "a name that is not UTF-8 can't be remembered"));
        }
        let mut options = File::options();
        // Opening a pipe or a device must not wait.
        options.read(true).write(true).create(popped.done.bytes == 0).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path).map_err(|e| match e.raw_os_error() {
            Some(libc::EISDIR | libc::ENXIO) => no_file(path),
            _ => io(e),
        })?;
        let length = file.metadata().map_err(io).and_then(|found| match found.is_file() {
            true => Ok(found.len()),
            false => Err(no_file(path)),
        })?;
        if !lock(&file).map_err(io)? {
            return Err(Error::refused(Code::Busy, format!("{} is in use by another process", path.display())).into());
        }
        let path = fs::canonicalize(path).map_err(io)?;
        let mut outlet = Outlet { path, file, hash: XxHash3_64::with_seed(0) };
        let is_known = !is_new && popped.is_to(Some(&outlet.path));
        outlet.check(popped, length, is_known)?;
        if length > popped.done.bytes {
            outlet.file.set_len(popped.done.bytes).map_err(|e| outlet.failed(&e))?;
        }
        outlet.file.seek(SeekFrom::Start(popped.done.bytes)).map_err(|e| outlet.failed(&e))?;
        if popped.done.bytes == 0 {
            let directory = outlet.path.parent().unwrap_or(Path::new("/"));
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(|e| outlet.failed(&e))?;
        }
        popped.output = Some(outlet.path.clone());
        Ok(outlet)
    }

    /// Whether it begins with what was written to it.
    fn check(&mut self, popped: &Popped, length: u64, is_known: bool) -> Result<(), Trouble> {
        let written = popped.done.bytes;
        if length < written {
            return Err(bad(&self.path, &format!("it has {length} bytes, and {written} were written to it")));
        }
        if length > written && !is_known {
            let why = format!("it has {} bytes that are not from this session; name another file", length - written);
            return Err(bad(&self.path, &why));
        }
        let mut bytes = vec![0; READ_BYTES];
        let mut left = written;
        while left > 0 {
            let some = left.min(READ_BYTES as u64) as usize;
            self.file.read_exact(&mut bytes[..some]).map_err(|e| self.failed(&e))?;
            self.hash.write(&bytes[..some]);
            left -= some as u64;
        }
        if self.hash.finish() != popped.hash {
            let why = format!("this is not what the session wrote to: its first {written} bytes are others");
            return Err(bad(&self.path, &why));
        }
        Ok(())
    }

    /// Appends; it is on the disk when this returns.
    fn append(&mut self, bytes: &[u8]) -> Result<u64, Trouble> {
        self.file.write_all(bytes).and_then(|()| self.file.sync_data()).map_err(|e| self.failed(&e))?;
        self.hash.write(bytes);
        Ok(self.hash.finish())
    }

    fn failed(&self, e: &io::Error) -> Trouble {
        Trouble::File(format!("{}: {e}", self.path.display()), 74)
    }
}

fn no_file(path: &Path) -> Trouble {
    bad(path, "this is no regular file; without --output items go to stdout")
}

/// Writes what was popped, to the file or to stdout, and takes it into account.
pub fn write(
    outlet: Option<&mut Outlet>,
    popped: &mut Popped,
    items: u64,
    bytes: &[u8],
    out: &mut Output,
) -> Result<(), Trouble> {
    match outlet {
        Some(outlet) => popped.hash = outlet.append(bytes)?,
        None => {
            out.raw(bytes);
            out.flush();
        }
    }
    out.count(items, bytes.len() as u64);
    popped.done.bytes += bytes.len() as u64;
    popped.done.items += items;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Style;
    use crate::cli::store::Extent;

    fn popped(path: &Path, text: &str) -> Popped {
        let mut popped = Popped::new("q", Style::default(), Some(fs::canonicalize(path).expect("it is there")));
        popped.done = Extent { bytes: text.len() as u64, items: 1 };
        popped.hash = XxHash3_64::oneshot(text.as_bytes());
        popped
    }

    fn refused(path: &Path, popped: &Popped, is_new: bool, why: &str) {
        let before = fs::read(path).unwrap_or_default();
        match Outlet::open(path, &mut popped.clone(), is_new) {
            Err(Trouble::Error(e)) => assert!(e.exit_status() == 65 && e.message().contains(why), "{e}"),
            Err(trouble) => panic!("{trouble:?}"),
            Ok(_) => panic!("it was opened"),
        }
        assert_eq!(fs::read(path).unwrap_or_default(), before, "it is left alone");
    }

    #[test]
    fn the_tail_is_cut_and_the_rest_follows() {
        let place = tempfile::tempdir().expect("a place");
        let path = place.path().join("out");
        fs::write(&path, "a\nb\nhalf a li").expect("it is ours");
        let mut at = popped(&path, "a\nb\n");
        let mut outlet = Outlet::open(&path, &mut at, false).expect("it fits");
        assert!(matches!(Outlet::open(&path, &mut at.clone(), false), Err(Trouble::Error(e)) if e.exit_status() == 75));
        let mut out = Output::new(Style::default(), None);
        write(Some(&mut outlet), &mut at, 1, b"c\n", &mut out).expect("there is room");
        assert_eq!((at.done.items, out.text().as_str()), (2, ""));
        drop(outlet);
        assert_eq!(fs::read_to_string(&path).expect("text"), "a\nb\nc\n");
        Outlet::open(&path, &mut at, false).expect("it fits");
    }

    #[test]
    fn what_is_none_of_ours_is_left_alone() {
        let place = tempfile::tempdir().expect("a place");
        let path = place.path().join("out");
        fs::write(&path, "a\nb\n").expect("it is ours");
        refused(&path, &popped(&path, "a\nc\n"), false, "its first 4 bytes are others");
        refused(&path, &popped(&path, "a\nb\nc\n"), false, "it has 4 bytes, and 6 were written");
        refused(&path, &popped(&path, ""), true, "it has 4 bytes that are not from this session");
        let moved = place.path().join("moved");
        fs::copy(&path, &moved).expect("it is ours");
        refused(&moved, &popped(&path, "a\n"), false, "it has 2 bytes that are not from this session");
        Outlet::open(&moved, &mut popped(&path, "a\nb\n"), false).expect("the very same, elsewhere");
    }
}
