//! What is needed no more goes, and what others ask to read is read: the directory's part beside the commit path.
//!
//! Segments go one at a time, lowest first, the directory synced in between: whatever a power cut leaves is a log
//! without a hole. One of them is kept as `recycled` to become a spare whose blocks are written already; not before
//! its new name is durable, or a power cut could give new records to the old name.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use super::{Chain, Disk, Lane};
use crate::limits::READ_BYTES_MAX;
use crate::log::SegmentNumber;
use crate::reactor::exit::Exit;
use crate::replica::{ReadRequest, StoredFile, Trim};

/// Reads carried out in one turn; more wait for the next.
const READS_PER_TURN: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Trimming {
    /// Segments that are to go, lowest first.
    going: VecDeque<SegmentNumber>,
    /// A removal is being made durable; true where it made the recycled segment.
    under_way: Option<bool>,
    /// There is a recycled segment under its durable name.
    pub recycled: bool,
}

impl Trimming {
    /// There may be a recycled segment of an earlier life.
    pub fn at_start() -> Trimming {
        Trimming { recycled: true, ..Trimming::default() }
    }
}

impl Disk {
    /// Removes what a snapshot made superfluous.
    pub fn trim(&mut self, trim: &Trim) -> Result<(), Exit> {
        for slot in self.directory.snapshot_slots()?.into_iter().filter(|&slot| slot < trim.snapshots_below) {
            let path = self.directory.snapshot_path(slot);
            fs::remove_file(&path).map_err(|e| Exit::io("remove", &path, &e))?;
        }
        let numbers = self.directory.segment_numbers()?;
        self.trimming.going = numbers.into_iter().filter(|&number| number < trim.segments_below).collect();
        self.trim_step()
    }

    fn trim_step(&mut self) -> Result<(), Exit> {
        if self.trimming.under_way.is_some() {
            return Ok(());
        }
        let Some(number) = self.trimming.going.pop_front() else { return Ok(()) };
        self.segments.retain(|(open, _)| *open != number);
        let (path, recycled) = (self.directory.segment_path(number), self.directory.recycled_path());
        let whole = fs::metadata(&path).map_err(|e| Exit::io("examine", &path, &e))?.len() == self.segment_bytes;
        let recycles = whole && !self.trimming.recycled;
        let gone = if recycles { fs::rename(&path, recycled) } else { fs::remove_file(&path) };
        gone.map_err(|e| Exit::io("remove", &path, &e))?;
        self.trimming.under_way = Some(recycles);
        let chain = Chain { target: self.directory.target(), writes: Vec::new() };
        Ok(self.engine.submit(Lane::Trim, vec![chain])?)
    }

    /// The last removal is durable.
    pub(super) fn on_trim_step(&mut self) -> Result<(), Exit> {
        let recycled = self.trimming.under_way.take().expect("a removal was under way");
        self.trimming.recycled |= recycled;
        self.trim_step()
    }

    /// Nothing is being removed.
    pub fn is_trimmed(&self) -> bool {
        self.trimming.under_way.is_none() && self.trimming.going.is_empty()
    }

    /// Takes what the core wants to read.
    pub fn want(&mut self, reads: &mut Vec<ReadRequest>) {
        self.reads.extend(reads.drain(..));
    }

    /// More is to be read.
    pub fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// Carries out some reads: for each its token and the bytes, fewer where the file ends, none where it is gone.
    pub fn read_some(&mut self) -> Result<Vec<(u64, Vec<u8>)>, Exit> {
        let now = self.reads.len().min(READS_PER_TURN);
        let requests: Vec<ReadRequest> = self.reads.drain(..now).collect();
        requests.iter().map(|request| Ok((request.token, self.read(request)?))).collect()
    }

    fn read(&self, request: &ReadRequest) -> Result<Vec<u8>, Exit> {
        let path = match request.file {
            StoredFile::Segment(number) => self.directory.segment_path(number),
            StoredFile::Snapshot(slot) => self.directory.snapshot_path(slot),
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Exit::io("open", &path, &e)),
        };
        let mut bytes = vec![0; request.bytes.min(READ_BYTES_MAX) as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], request.offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Exit::io("read", &path, &e)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}
