//! Group commit: what one turn of the loop wrote is one batch, each of its files synced once, and while it is under
//! way whatever comes gathers for the next. The loop never waits for it, unless told to (`--disk blocking`).
//!
//! A batch goes to an engine as chains, one for each file: its writes in order, then one data sync. Durable is what
//! the whole batch made durable. A batch holds at most one write of `meta`: two at once would put both pairs of its
//! pages at risk (DESIGN 5.1). Any error is fatal, and no sync is tried again: a failed one may have dropped pages.

mod aio;
mod blocking;
mod directory;
mod durations;
mod snapshot;
mod trim;
mod uring;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use crate::log::{LogWrite, MetaWrite, SegmentNumber};
use crate::reactor::exit::{Exit, IO};
use crate::replica::ReadRequest;
use crate::types::WriteNumber;

use trim::Trimming;

pub use directory::{is_writable, Directory, Found};
pub use durations::Durations;
pub use snapshot::{Outcome, SnapshotWriter};

/// Writes of one batch; what is beyond goes into the next.
const BATCH_WRITES_MAX: usize = 64;
/// Operations an engine may have under way: a full batch with a sync for each of its files, and a step
/// of each other lane.
const OPERATIONS_MAX: u32 = 256;
/// Bytes of zeros written in one step of preparing a segment.
const SPARE_STEP_BYTES: usize = 512 << 10;
/// Segments kept open: the current one, and the one before for a batch that spans both.
const OPEN_SEGMENTS: usize = 2;

const _: () = assert!(BATCH_WRITES_MAX * 2 + 8 < OPERATIONS_MAX as usize, "every write may be of its own file");

/// How writes reach the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DiskChoice {
    /// io_uring, else Linux AIO, else in the loop.
    #[default]
    Auto,
    Uring,
    Aio,
    Blocking,
}

impl DiskChoice {
    pub fn from_name(name: &str) -> Option<DiskChoice> {
        match name {
            "auto" => Some(DiskChoice::Auto),
            "uring" => Some(DiskChoice::Uring),
            "aio" => Some(DiskChoice::Aio),
            "blocking" => Some(DiskChoice::Blocking),
            _ => None,
        }
    }
}

/// An open file and its name for messages.
#[derive(Debug)]
pub(crate) struct Target {
    pub file: File,
    pub path: PathBuf,
}

/// Writes of one file in order, then one data sync.
#[derive(Debug)]
pub(crate) struct Chain {
    pub target: Rc<Target>,
    /// Offsets from the file's start, and the bytes for there.
    pub writes: Vec<(u64, Vec<u8>)>,
}

/// Batches may be under way at once, one of each lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    Commit = 0,
    Spare = 1,
    Trim = 2,
}

const LANES: [Lane; 3] = [Lane::Commit, Lane::Spare, Lane::Trim];

/// What went wrong with which file.
#[derive(Debug)]
pub(crate) struct Failure {
    pub what: &'static str,
    pub path: PathBuf,
    pub error: io::Error,
}

impl From<Failure> for Exit {
    fn from(f: Failure) -> Exit {
        let status = IO;
        Exit { status, message: format!("cannot {} {}: {}; stopping", f.what, f.path.display(), f.error) }
    }
}

impl Failure {
    fn new(what: &'static str, target: &Target, error: io::Error) -> Failure {
        Failure { what, path: target.path.clone(), error }
    }

    fn short_write(target: &Target) -> Failure {
        Failure::new("write to", target, io::Error::new(io::ErrorKind::WriteZero, "short write"))
    }
}

/// Carries out batches.
#[derive(Debug)]
enum Engine {
    Uring(Box<uring::Uring>),
    Aio(aio::Aio),
    Blocking(blocking::Blocking),
}

impl Engine {
    fn open(choice: DiskChoice) -> Result<Engine, Exit> {
        let failed = |name: &str, e: &io::Error| Exit::system(&format!("use {name}"), e);
        match choice {
            DiskChoice::Uring => {
                uring::Uring::new().map(Box::new).map(Engine::Uring).map_err(|e| failed("io_uring", &e))
            }
            DiskChoice::Aio => aio::Aio::new().map(Engine::Aio).map_err(|e| failed("Linux AIO", &e)),
            DiskChoice::Blocking => Ok(Engine::Blocking(blocking::Blocking::default())),
            DiskChoice::Auto => Ok(uring::Uring::new()
                .map(Box::new)
                .map(Engine::Uring)
                .or_else(|_| aio::Aio::new().map(Engine::Aio))
                .unwrap_or_else(|_| Engine::Blocking(blocking::Blocking::default()))),
        }
    }

    fn submit(&mut self, lane: Lane, chains: Vec<Chain>) -> Result<(), Failure> {
        match self {
            Engine::Uring(e) => e.submit(lane, chains),
            Engine::Aio(e) => e.submit(lane, chains),
            Engine::Blocking(e) => e.submit(lane, chains),
        }
    }

    /// Appends the lanes whose batch is done.
    fn reap(&mut self, done: &mut Vec<Lane>) -> Result<(), Failure> {
        match self {
            Engine::Uring(e) => e.reap(done),
            Engine::Aio(e) => e.reap(done),
            Engine::Blocking(e) => {
                e.reap(done);
                Ok(())
            }
        }
    }
}

/// The next segment, made ready while nobody waits for it.
#[derive(Debug)]
enum Spare {
    Absent,
    /// Zeros are written and synced up to here.
    Filling(Rc<Target>, u64),
    Ready(Rc<Target>),
}

enum Waiting {
    Log(LogWrite),
    Meta(MetaWrite),
}

impl Waiting {
    fn number(&self) -> WriteNumber {
        match self {
            Waiting::Log(w) => w.number,
            Waiting::Meta(w) => w.number,
        }
    }
}

/// The data directory in use.
pub struct Disk {
    directory: Directory,
    engine: Engine,
    meta: Rc<Target>,
    /// The last ones used, newest last.
    segments: VecDeque<(SegmentNumber, Rc<Target>)>,
    segment_bytes: u64,
    spare: Spare,
    trimming: Trimming,
    /// What is to be read, in order.
    reads: VecDeque<ReadRequest>,
    waiting: VecDeque<Waiting>,
    /// What will be durable when the batch under way is done.
    committing: Option<WriteNumber>,
    /// Since when something waits, and since when what is under way did, and is.
    waiting_since: Option<Instant>,
    committing_since: Option<(Instant, Instant)>,
    /// From a batch's start until it was on the disk, and from when its oldest write was handed over.
    pub synced: Durations,
    pub made_durable: Durations,
    durable: WriteNumber,
    /// The engine has told of completions, or may have.
    told: bool,
}

impl Disk {
    /// Takes over a directory that was opened and read.
    pub fn new(directory: Directory, choice: DiskChoice, segment_bytes: u64) -> Result<Disk, Exit> {
        let meta = Rc::new(directory.open_meta()?);
        directory.remove_unfinished()?;
        // A segment that an earlier life recycled has that name for good before it is used.
        directory.sync()?;
        let mut disk = Disk {
            directory,
            engine: Engine::open(choice)?,
            meta,
            segments: VecDeque::new(),
            segment_bytes,
            spare: Spare::Absent,
            trimming: Trimming::at_start(),
            reads: VecDeque::new(),
            waiting: VecDeque::new(),
            committing: None,
            waiting_since: None,
            committing_since: None,
            synced: Durations::default(),
            made_durable: Durations::default(),
            durable: WriteNumber(0),
            told: true,
        };
        disk.fill_spare()?;
        Ok(disk)
    }

    /// Where everything is.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// For the log: what carries the writes.
    pub fn engine_name(&self) -> &'static str {
        match self.engine {
            Engine::Uring(_) => "io_uring",
            Engine::Aio(_) => "Linux AIO",
            Engine::Blocking(_) => "blocking writes",
        }
    }

    /// Readable when something is completed, for [`Disk::on_event`]; `None` where that is right after each submit.
    pub fn event_fd(&self) -> Option<RawFd> {
        match &self.engine {
            Engine::Uring(e) => Some(e.event_fd()),
            Engine::Aio(e) => Some(e.event_fd()),
            Engine::Blocking(_) => None,
        }
    }

    /// The poll told of completions.
    pub fn on_event(&mut self) {
        self.told = true;
    }

    /// [`Disk::completed`] has something to tell.
    pub fn has_more(&self) -> bool {
        self.told || matches!(&self.engine, Engine::Blocking(e) if e.has_done())
    }

    /// Nothing is waiting or under way.
    pub fn is_idle(&self) -> bool {
        self.committing.is_none() && self.waiting.is_empty()
    }

    /// Takes what a turn wrote, numbers rising.
    pub fn submit(&mut self, log: &mut Vec<LogWrite>, meta: &mut Vec<MetaWrite>) -> Result<(), Exit> {
        if log.is_empty() && meta.is_empty() {
            return Ok(());
        }
        self.waiting_since.get_or_insert_with(Instant::now);
        self.waiting.extend(log.drain(..).map(Waiting::Log));
        self.waiting.extend(meta.drain(..).map(Waiting::Meta));
        self.waiting.make_contiguous().sort_by_key(Waiting::number);
        self.start_batch()
    }

    /// Looks for finished batches and starts what waited for them. `Some(n)` if more is durable than before: all
    /// writes up to n.
    pub fn completed(&mut self) -> Result<Option<WriteNumber>, Exit> {
        if !self.has_more() {
            return Ok(None);
        }
        let (mut done, before) = (Vec::new(), self.durable);
        self.told = false;
        self.engine.reap(&mut done)?;
        for lane in done {
            match lane {
                Lane::Commit => {
                    self.durable = self.committing.take().expect("a batch was under way");
                    self.count_batch();
                }
                Lane::Spare => self.on_spare_step()?,
                Lane::Trim => self.on_trim_step()?,
            }
        }
        self.start_batch()?;
        Ok(Some(self.durable).filter(|&d| d > before))
    }

    /// Counts how long the batch took that is done.
    fn count_batch(&mut self) {
        if let Some((waited, begun)) = self.committing_since.take() {
            let ns = |since: Instant| u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.made_durable.add(ns(waited));
            self.synced.add(ns(begun));
        }
    }

    /// Starts the next batch unless one is under way.
    fn start_batch(&mut self) -> Result<(), Exit> {
        if self.committing.is_some() || self.waiting.is_empty() {
            return Ok(());
        }
        let (mut chains, mut last, mut has_meta, mut writes) = (Vec::new(), self.durable, false, 0);
        while let Some(next) = self.waiting.front() {
            let is_meta = matches!(next, Waiting::Meta(_));
            if writes == BATCH_WRITES_MAX || (is_meta && has_meta) {
                break;
            }
            has_meta |= is_meta;
            writes += 1;
            last = next.number();
            match self.waiting.pop_front().expect("it was just seen") {
                Waiting::Log(w) => {
                    let target = self.segment(w.segment, &mut chains)?;
                    add(&mut chains, target, w.offset, w.bytes);
                }
                Waiting::Meta(w) => add(&mut chains, self.meta.clone(), w.offset, w.bytes),
            }
        }
        // A number whose writes went into two batches is durable with the second.
        if self.waiting.front().is_some_and(|next| next.number() <= last) {
            last = WriteNumber(last.0.saturating_sub(1)).max(self.durable);
        }
        self.committing = Some(last);
        let now = Instant::now();
        self.committing_since = Some((self.waiting_since.take().unwrap_or(now), now));
        self.waiting_since = (!self.waiting.is_empty()).then_some(now);
        self.engine.submit(Lane::Commit, chains)?;
        self.fill_spare()
    }

    /// The open file of a segment. A new one is the spare renamed, or made on the spot; then the directory is
    /// synced in the same batch.
    fn segment(&mut self, number: SegmentNumber, chains: &mut Vec<Chain>) -> Result<Rc<Target>, Exit> {
        if let Some((_, target)) = self.segments.iter().find(|(n, _)| *n == number) {
            return Ok(target.clone());
        }
        let (target, is_new) = match self.directory.open_segment(number)? {
            Some(target) => (target, false),
            None => match std::mem::replace(&mut self.spare, Spare::Absent) {
                Spare::Ready(spare) => {
                    let file = spare.file.try_clone().map_err(|e| Exit::io("open", &spare.path, &e))?;
                    (self.directory.rename_spare(file, number)?, true)
                }
                unready => {
                    self.spare = unready;
                    (self.directory.create_segment(number, self.segment_bytes)?, true)
                }
            },
        };
        if is_new {
            chains.push(Chain { target: self.directory.target(), writes: Vec::new() });
        }
        let target = Rc::new(target);
        self.segments.push_back((number, target.clone()));
        while self.segments.len() > OPEN_SEGMENTS {
            self.segments.pop_front();
        }
        Ok(target)
    }

    /// Begins to prepare a segment if there is none.
    fn fill_spare(&mut self) -> Result<(), Exit> {
        if matches!(self.spare, Spare::Absent) {
            if std::mem::take(&mut self.trimming.recycled) {
                if let Some(target) = self.directory.take_recycled(self.segment_bytes)? {
                    self.spare = Spare::Ready(Rc::new(target));
                    return Ok(());
                }
            }
            let target = Rc::new(self.directory.create_spare(self.segment_bytes)?);
            self.spare = Spare::Filling(target, 0);
            self.write_zeros()?;
        }
        Ok(())
    }

    fn on_spare_step(&mut self) -> Result<(), Exit> {
        if let Spare::Filling(target, filled) = &mut self.spare {
            *filled += SPARE_STEP_BYTES as u64;
            if *filled >= self.segment_bytes {
                self.spare = Spare::Ready(target.clone());
                return Ok(());
            }
        }
        self.write_zeros()
    }

    fn write_zeros(&mut self) -> Result<(), Exit> {
        let Spare::Filling(target, filled) = &self.spare else { return Ok(()) };
        let bytes = (self.segment_bytes - filled).min(SPARE_STEP_BYTES as u64) as usize;
        let chain = Chain { target: target.clone(), writes: vec![(*filled, vec![0; bytes])] };
        Ok(self.engine.submit(Lane::Spare, vec![chain])?)
    }
}

/// Appends a write to its file's chain.
fn add(chains: &mut Vec<Chain>, target: Rc<Target>, offset: u64, bytes: Vec<u8>) {
    match chains.iter_mut().find(|c| Rc::ptr_eq(&c.target, &target)) {
        Some(chain) => chain.writes.push((offset, bytes)),
        None => chains.push(Chain { target, writes: vec![(offset, bytes)] }),
    }
}

/// A descriptor that becomes readable at each completion.
#[derive(Debug)]
struct EventFd(OwnedFd);

impl EventFd {
    fn new() -> io::Result<EventFd> {
        // SAFETY: no pointers; a descriptor returned without error is ours.
        unsafe {
            match libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(EventFd(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Takes the signal away; what completes from now on signals anew.
    fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: eight bytes are read into eight bytes. An empty counter is fine.
        unsafe { libc::read(self.raw(), (&raw mut count).cast(), 8) };
    }
}

#[cfg(test)]
mod tests;
