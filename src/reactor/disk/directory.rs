//! What a data directory holds: `lock`, `meta`, segments `log-N` and snapshots `snapshot-SLOT` (16 hex digits each),
//! `snapshot-new-PROCESS` while one is being written, the next segment as `spare`, and a dropped one as `recycled`.
//! Other files are left alone. A damaged snapshot is set aside. A `meta` that cannot be read makes the whole memory
//! distrusted: it is set aside with log and snapshots, and the replica begins blank (DESIGN 5.6).

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::Target;
use crate::log::meta::META_BYTES;
use crate::log::{Meta, SegmentNumber};
use crate::reactor::exit::Exit;
use crate::types::{ReplicaId, Slot};

/// An open, locked data directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: Rc<Target>,
    /// Locked as long as it is open.
    _lock: File,
}

/// What a start-up finds.
#[derive(Debug)]
pub struct Found {
    pub meta: Option<Meta>,
    pub segments: Vec<(SegmentNumber, Mapping)>,
    /// Rising, and not looked into.
    pub snapshots: Vec<(Slot, Mapping)>,
    /// What an operator should know about it.
    pub warning: Option<String>,
}

/// A segment's bytes, mapped read-only.
#[derive(Debug)]
pub struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    const EMPTY: Mapping = Mapping { start: std::ptr::null_mut(), length: 0 };

    fn new(file: &File, length: usize) -> io::Result<Mapping> {
        // SAFETY: a fresh private mapping of a file that only this process, which holds the lock, writes.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapping { start, length })
    }

    pub fn bytes(&self) -> &[u8] {
        if self.length == 0 {
            return &[];
        }
        // SAFETY: mapped and readable for as long as `self` lives; nothing writes while the log is read.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: our own mapping, whole.
            unsafe { libc::munmap(self.start, self.length) };
        }
    }
}

impl Directory {
    /// Opens and locks a directory, making it if it is not there.
    pub fn open(path: &Path) -> Result<Directory, Exit> {
        let unusable = |what: &str, e: &io::Error| {
            Exit::configuration(format!("data directory {}: cannot {what}: {e}", path.display()))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| unusable("make it", &e))?;
        let file = File::open(path).map_err(|e| unusable("open it", &e))?;
        let handle = Rc::new(Target { file, path: path.to_owned() });
        let mut lock = OpenOptions::new();
        let lock = lock.read(true).write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"));
        let mut lock = lock.map_err(|e| unusable("write to it", &e))?;
        take_lock(&lock, path)?;
        let noted = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        noted.map_err(|e| unusable("write to it", &e))?;
        Ok(Directory { path: path.to_owned(), handle, _lock: lock })
    }

    /// Opens a directory that is there, without leaving a trace. Errors if it is in use.
    pub fn open_to_look(path: &Path) -> Result<Directory, Exit> {
        let unusable = |what: &str, e: &io::Error| {
            Exit::configuration(format!("data directory {}: cannot open {what}: {e}", path.display()))
        };
        let file = File::open(path).map_err(|e| unusable("it", &e))?;
        let lock = match File::open(path.join("lock")) {
            Ok(lock) => lock,
            Err(e) if e.kind() == io::ErrorKind::NotFound => file.try_clone().map_err(|e| unusable("it", &e))?,
            Err(e) => return Err(unusable("its lock", &e)),
        };
        take_lock(&lock, path)?;
        Ok(Directory { path: path.to_owned(), handle: Rc::new(Target { file, path: path.to_owned() }), _lock: lock })
    }

    /// Makes the names that are there durable.
    pub(super) fn sync(&self) -> Result<(), Exit> {
        self.handle.file.sync_all().map_err(|e| Exit::io("sync", &self.path, &e))
    }

    /// The directory itself, for syncing.
    pub(super) fn target(&self) -> Rc<Target> {
        self.handle.clone()
    }

    /// Inode and creation time (0 where the file system keeps none): not those of a copy.
    pub fn identity(&self) -> Result<[u64; 2], Exit> {
        // SAFETY: statx fills `stat`, which is plain numbers, for a valid descriptor.
        let (result, stat) = unsafe {
            let mut stat: libc::statx = std::mem::zeroed();
            let (fd, mask) = (self.handle.file.as_raw_fd(), libc::STATX_INO | libc::STATX_BTIME);
            (libc::statx(fd, c"".as_ptr(), libc::AT_EMPTY_PATH, mask, &raw mut stat), stat)
        };
        if result != 0 {
            return Err(Exit::io("examine", &self.path, &io::Error::last_os_error()));
        }
        let born = stat.stx_btime.tv_sec as u64 * 1_000_000_000 + u64::from(stat.stx_btime.tv_nsec);
        Ok([stat.stx_ino, if stat.stx_mask & libc::STATX_BTIME == 0 { 0 } else { born }])
    }

    /// Reads all there is for replica `id`. Errors where it belongs to another, or to a newer version.
    pub fn read(&self, id: ReplicaId) -> Result<Found, Exit> {
        let path = self.path.join("meta");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Exit::io("read", &path, &e)),
        };
        let mut segments = Vec::new();
        for number in self.segment_numbers()? {
            segments.extend(map(&self.segment_path(number))?.map(|mapping| (number, mapping)));
        }
        let mut snapshots = Vec::new();
        for slot in self.snapshot_slots()? {
            // One without a byte is damaged, not absent.
            snapshots.push((slot, map(&self.snapshot_path(slot))?.unwrap_or(Mapping::EMPTY)));
        }
        let why = match Meta::choose(&bytes) {
            Ok(Some(meta)) if meta.id != id => {
                let path = self.path.display();
                let message = format!("data directory {path}: belongs to replica {}, not {id}", meta.id);
                return Err(Exit::configuration(message));
            }
            Ok(Some(meta)) => return Ok(Found { meta: Some(meta), segments, snapshots, warning: None }),
            Ok(None) if segments.is_empty() && snapshots.is_empty() => {
                return Ok(Found { meta: None, segments, snapshots, warning: None })
            }
            Ok(None) => "is missing beside a log".to_owned(),
            Err(e) if e.field == "format" => {
                let path = self.path.display();
                return Err(Exit::configuration(format!("data directory {path}: written by a newer version of ftqd")));
            }
            Err(e) => format!("cannot be read ({e})"),
        };
        let warning = Some(format!("meta {why}: the replica's memory is not to be trusted, it begins blank"));
        Ok(Found { meta: None, segments: Vec::new(), snapshots: Vec::new(), warning })
    }

    /// Moves `meta`, log and snapshots into a directory of their own beside them, where they are left alone.
    pub fn set_aside(&self) -> Result<PathBuf, Exit> {
        let segments = self.segment_numbers()?.into_iter().map(segment_name);
        let snapshots = self.snapshot_slots()?.into_iter().map(snapshot_name);
        self.move_aside(segments.chain(snapshots).chain(["meta".to_owned()]))
    }

    /// Moves a snapshot that is damaged into a directory of its own.
    pub fn set_snapshot_aside(&self, slot: Slot) -> Result<PathBuf, Exit> {
        self.move_aside([snapshot_name(slot)].into_iter())
    }

    fn move_aside(&self, names: impl Iterator<Item = String>) -> Result<PathBuf, Exit> {
        let free = (1u32..).map(|k| self.path.join(format!("set-aside-{k}"))).find(|p| !p.exists());
        let aside = free.expect("one of four thousand million names is free");
        DirBuilder::new().mode(0o700).create(&aside).map_err(|e| Exit::io("make", &aside, &e))?;
        for name in names {
            match fs::rename(self.path.join(&name), aside.join(&name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Exit::io("set aside", &aside, &e)),
                _ => {}
            }
        }
        self.handle.file.sync_all().map_err(|e| Exit::io("sync", &self.path, &e))?;
        Ok(aside)
    }

    /// What the names of the files that are there mean, rising.
    fn list<T: Ord>(&self, meaning: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Exit> {
        let entries = fs::read_dir(&self.path).map_err(|e| Exit::io("read", &self.path, &e))?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| Exit::io("read", &self.path, &e))?.file_name();
            found.extend(name.to_str().and_then(&meaning));
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn segment_numbers(&self) -> Result<Vec<SegmentNumber>, Exit> {
        self.list(|name| numbered("log-", name).map(SegmentNumber))
    }

    pub(super) fn snapshot_slots(&self) -> Result<Vec<Slot>, Exit> {
        self.list(|name| numbered("snapshot-", name).map(Slot))
    }

    /// Removes what was left of snapshots that were never finished.
    pub(super) fn remove_unfinished(&self) -> Result<(), Exit> {
        for name in self.list(|name| name.starts_with(UNFINISHED).then(|| name.to_owned()))? {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(|e| Exit::io("remove", &path, &e))?;
        }
        Ok(())
    }

    pub(super) fn segment_path(&self, number: SegmentNumber) -> PathBuf {
        self.path.join(segment_name(number))
    }

    pub(super) fn snapshot_path(&self, slot: Slot) -> PathBuf {
        self.path.join(snapshot_name(slot))
    }

    /// Where process `process` writes a snapshot until it is whole.
    pub(super) fn unfinished_path(&self, process: u32) -> PathBuf {
        self.path.join(format!("{UNFINISHED}{process}"))
    }

    pub(super) fn recycled_path(&self) -> PathBuf {
        self.path.join("recycled")
    }

    /// `meta`, written whole once so that a full disk cannot stop a later write.
    pub(super) fn open_meta(&self) -> Result<Target, Exit> {
        let path = self.path.join("meta");
        let file = open_or_make(&path)?;
        let length = file.metadata().map_err(|e| Exit::io("examine", &path, &e))?.len() as usize;
        if length < META_BYTES {
            let zeros = vec![0; META_BYTES - length];
            let mut file = &file;
            let written = io::Seek::seek(&mut file, io::SeekFrom::End(0)).and_then(|_| file.write_all(&zeros));
            written.and_then(|()| file.sync_all()).map_err(|e| Exit::io("write to", &path, &e))?;
            self.handle.file.sync_all().map_err(|e| Exit::io("sync", &self.path, &e))?;
        }
        Ok(Target { file, path })
    }

    /// A segment that is there already.
    pub(super) fn open_segment(&self, number: SegmentNumber) -> Result<Option<Target>, Exit> {
        let path = self.segment_path(number);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(Some(Target { file, path })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Exit::io("open", &path, &e)),
        }
    }

    /// A segment whose blocks are reserved but not written: syncs take longer, but nobody waits for it.
    pub(super) fn create_segment(&self, number: SegmentNumber, bytes: u64) -> Result<Target, Exit> {
        let path = self.segment_path(number);
        let file = open_or_make(&path)?;
        reserve(&file, &path, bytes)?;
        Ok(Target { file, path })
    }

    /// A `spare` with its space reserved; one that an earlier run left may not be whole.
    pub(super) fn create_spare(&self, bytes: u64) -> Result<Target, Exit> {
        let path = self.path.join("spare");
        let file = open_or_make(&path)?;
        reserve(&file, &path, bytes)?;
        Ok(Target { file, path })
    }

    /// The dropped segment becomes the spare, if it is there and long enough: its blocks are written.
    pub(super) fn take_recycled(&self, bytes: u64) -> Result<Option<Target>, Exit> {
        let (recycled, path) = (self.recycled_path(), self.path.join("spare"));
        let file = match OpenOptions::new().read(true).write(true).open(&recycled) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Exit::io("open", &recycled, &e)),
        };
        if file.metadata().map_err(|e| Exit::io("examine", &recycled, &e))?.len() != bytes {
            fs::remove_file(&recycled).map_err(|e| Exit::io("remove", &recycled, &e))?;
            return Ok(None);
        }
        fs::rename(&recycled, &path).map_err(|e| Exit::io("make", &path, &e))?;
        Ok(Some(Target { file, path }))
    }

    /// The spare becomes a segment.
    pub(super) fn rename_spare(&self, file: File, number: SegmentNumber) -> Result<Target, Exit> {
        let path = self.segment_path(number);
        fs::rename(self.path.join("spare"), &path).map_err(|e| Exit::io("make", &path, &e))?;
        Ok(Target { file, path })
    }
}

/// Locks the file that stands for the directory, as long as it is open. Errors if another process has it.
fn take_lock(mut lock: &File, directory: &Path) -> Result<(), Exit> {
    // SAFETY: a valid descriptor.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let mut owner = String::new();
    let _ = lock.read_to_string(&mut owner);
    let (directory, owner) = (directory.display(), owner.trim());
    Err(Exit::configuration(format!("data directory {directory}: in use by another ftqd (process {owner})")))
}

fn open_or_make(path: &Path) -> Result<File, Exit> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(|e| Exit::io("open", path, &e))
}

/// Has the file system keep so many bytes for a file, so that no write into it finds the disk full.
fn reserve(file: &File, path: &Path, bytes: u64) -> Result<(), Exit> {
    // SAFETY: a valid descriptor.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) } {
        // Where it cannot be asked for, writing the zeros will tell.
        0 | libc::EOPNOTSUPP => Ok(()),
        error => Err(Exit::io("reserve space for", path, &io::Error::from_raw_os_error(error))),
    }
}

/// What a snapshot's name begins with until it is whole.
const UNFINISHED: &str = "snapshot-new-";

fn segment_name(number: SegmentNumber) -> String {
    format!("log-{:016x}", number.0)
}

fn snapshot_name(slot: Slot) -> String {
    format!("snapshot-{:016x}", slot.0)
}

/// The number behind this prefix, in 16 hex digits; `None` for all other names.
fn numbered(prefix: &str, name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_prefix(prefix)?, 16).ok()?;
    (format!("{prefix}{number:016x}") == name).then_some(number)
}

/// Syncs a file and maps its bytes, if it has any. What is found counts as durable from now on: what only the page
/// cache had must not go unnoticed.
fn map(path: &Path) -> Result<Option<Mapping>, Exit> {
    let file = File::open(path).map_err(|e| Exit::io("open", path, &e))?;
    let length = file.metadata().map_err(|e| Exit::io("examine", path, &e))?.len() as usize;
    file.sync_data().map_err(|e| Exit::io("sync", path, &e))?;
    (length > 0).then(|| Mapping::new(&file, length).map_err(|e| Exit::io("map", path, &e))).transpose()
}

/// Whether this process could make or use the directory: for `--check`, which must not touch anything.
pub fn is_writable(path: &Path) -> bool {
    let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: a string with its end.
    unsafe { libc::access(name.as_ptr(), libc::W_OK | libc::X_OK) == 0 }
}
