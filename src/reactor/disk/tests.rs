use super::*;
use crate::types::Slot;
use std::fs;
use std::path::Path;

const ENGINES: [DiskChoice; 3] = [DiskChoice::Uring, DiskChoice::Aio, DiskChoice::Blocking];
const SEGMENT_BYTES: u64 = 2 << 20;

fn open(path: &Path, choice: DiskChoice) -> Disk {
    let directory = Directory::open(path).expect("a fresh directory");
    Disk::new(directory, choice, SEGMENT_BYTES).expect("an engine")
}

fn log(number: u64, segment: u64, offset: u64, bytes: &[u8]) -> LogWrite {
    LogWrite { number: WriteNumber(number), segment: SegmentNumber(segment), offset, bytes: bytes.to_vec() }
}

fn meta(number: u64, offset: u64, bytes: &[u8]) -> MetaWrite {
    MetaWrite { number: WriteNumber(number), offset, bytes: bytes.to_vec() }
}

/// Waits for the engine as the loop does, until all writes up to `number` are durable; what was told on the way.
fn until_durable(disk: &mut Disk, number: u64) -> Result<Vec<u64>, Exit> {
    let mut told = Vec::new();
    loop {
        if let Some(fd) = disk.event_fd() {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1, "no completion within ten seconds");
            disk.on_event();
        }
        if let Some(durable) = disk.completed()? {
            told.push(durable.0);
            if durable.0 >= number {
                return Ok(told);
            }
        }
    }
}

#[test]
fn what_is_durable_is_in_the_files() {
    for choice in ENGINES {
        let home = tempfile::tempdir().expect("a directory");
        let mut disk = open(home.path(), choice);
        // Two writes at one place: the later one counts.
        let mut writes =
            vec![log(1, 1, 0, b"first"), log(1, 1, 100, b"lost"), log(3, 1, 100, b"kept"), log(4, 2, 7, b"x")];
        disk.submit(&mut writes, &mut vec![meta(2, 0, b"meta")]).expect("submitted");
        assert!(writes.is_empty());
        let told = until_durable(&mut disk, 4).expect("no error");
        assert!(told.is_sorted(), "{told:?}");
        assert!(disk.is_idle());
        let first = fs::read(home.path().join("log-0000000000000001")).expect("segment 1");
        assert_eq!((&first[..5], &first[100..104]), (&b"first"[..], &b"kept"[..]));
        assert_eq!(fs::read(home.path().join("log-0000000000000002")).expect("segment 2")[7], b'x');
        assert_eq!(&fs::read(home.path().join("meta")).expect("meta")[..4], b"meta");
    }
}

#[test]
fn what_comes_meanwhile_is_the_next_batch_and_meta_goes_one_by_one() {
    for choice in ENGINES {
        let home = tempfile::tempdir().expect("a directory");
        let mut disk = open(home.path(), choice);
        disk.submit(&mut vec![log(1, 1, 0, b"a")], &mut Vec::new()).expect("submitted");
        for number in 2..200 {
            disk.submit(&mut vec![log(number, 1, number, b"b")], &mut Vec::new()).expect("submitted");
        }
        let mut metas = vec![meta(200, 0, b"m1"), meta(201, 4096, b"m2"), meta(202, 0, b"m3")];
        disk.submit(&mut Vec::new(), &mut metas).expect("submitted");
        let told = until_durable(&mut disk, 202).expect("no error");
        assert!(told.contains(&200) && told.contains(&201), "each meta write is durable by itself: {told:?}");
        if disk.event_fd().is_some() {
            assert!(told.len() < 20, "writes that waited share a sync: {told:?}");
        }
        let bytes = fs::read(home.path().join("meta")).expect("meta");
        assert_eq!((&bytes[..2], &bytes[4096..4098]), (&b"m3"[..], &b"m2"[..]));
    }
}

#[test]
fn a_spare_is_prepared_and_becomes_a_segment() {
    for choice in ENGINES {
        let home = tempfile::tempdir().expect("a directory");
        let mut disk = open(home.path(), choice);
        // Writes far apart in time give the spare its steps.
        for number in 1.. {
            disk.submit(&mut vec![log(number, 1, 0, b"a")], &mut Vec::new()).expect("submitted");
            until_durable(&mut disk, number).expect("no error");
            if matches!(disk.spare, Spare::Ready(_)) {
                break;
            }
        }
        let spare = fs::metadata(home.path().join("spare")).expect("a spare");
        assert_eq!(spare.len(), SEGMENT_BYTES);
        let inode = std::os::unix::fs::MetadataExt::ino(&spare);
        disk.submit(&mut vec![log(100_000, 9, 5, b"z")], &mut Vec::new()).expect("submitted");
        until_durable(&mut disk, 100_000).expect("no error");
        let segment = fs::metadata(home.path().join("log-0000000000000009")).expect("the segment");
        assert_eq!((std::os::unix::fs::MetadataExt::ino(&segment), segment.len()), (inode, SEGMENT_BYTES));
    }
}

#[test]
fn an_error_names_file_and_reason() {
    for choice in ENGINES {
        let home = tempfile::tempdir().expect("a directory");
        let mut disk = open(home.path(), choice);
        let path = home.path().join("read-only");
        fs::write(&path, b"").expect("a file");
        let file = File::open(&path).expect("it was just made");
        disk.meta = Rc::new(Target { file, path: path.clone() });
        let submitted = disk.submit(&mut Vec::new(), &mut vec![meta(1, 0, b"meta")]);
        let exit = submitted.and_then(|()| until_durable(&mut disk, 1).map(drop)).expect_err("a read-only file");
        assert_eq!(exit.status, IO);
        assert!(exit.message.contains("cannot write to"), "{choice:?}: {}", exit.message);
        assert!(exit.message.contains(&*path.to_string_lossy()), "{}", exit.message);
        assert!(exit.message.contains("Bad file descriptor"), "{}", exit.message);
    }
}

#[test]
fn a_directory_is_locked_while_in_use() {
    let home = tempfile::tempdir().expect("a directory");
    let first = Directory::open(home.path()).expect("free");
    let exit = Directory::open(home.path()).expect_err("in use");
    assert_eq!(exit.status, crate::reactor::exit::CONFIGURATION);
    assert!(exit.message.contains(&format!("in use by another ftqd (process {})", std::process::id())), "{exit}");
    drop(first);
    Directory::open(home.path()).expect("free again");
}

#[test]
fn identity_tells_directories_apart() {
    let (one, two) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let identity = |path: &Path| Directory::open(path).and_then(|d| d.identity()).expect("statx");
    assert_eq!(identity(one.path()), identity(one.path()));
    assert_ne!(identity(one.path()), identity(two.path()));
}

#[test]
fn unknown_files_are_left_alone_and_a_memory_in_doubt_is_set_aside() {
    let home = tempfile::tempdir().expect("a directory");
    fs::write(home.path().join("log-1"), b"not ours").expect("a file");
    fs::write(home.path().join("log-0000000000000003"), b"a log without a meta").expect("a file");
    let directory = Directory::open(home.path()).expect("free");
    let found = directory.read(crate::types::ReplicaId(1)).expect("readable");
    assert!(found.meta.is_none() && found.segments.is_empty());
    assert!(found.warning.is_some_and(|w| w.contains("begins blank")));
    let aside = directory.set_aside().expect("moved");
    assert!(aside.join("log-0000000000000003").exists() && home.path().join("log-1").exists());
    assert!(!home.path().join("log-0000000000000003").exists());
    assert!(directory.read(crate::types::ReplicaId(1)).expect("readable").warning.is_none());
}

fn snapshot_of(slot: u64) -> crate::log::Snapshot {
    use crate::types::{Digest, GroupTime};
    let view = crate::wire::view::tests::view_of(1, 1, crate::wire::view::Policy::Dynamic);
    crate::log::Snapshot { slot: Slot(slot), time: GroupTime(5), digest: Digest(6), view }
}

/// Waits for the child as the loop does.
fn outcome(writer: &mut SnapshotWriter, pipe: Option<RawFd>) -> Outcome {
    let mut poll = libc::pollfd { fd: pipe.expect("a child was made"), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 30_000) }, 1, "the child says nothing");
    loop {
        if let Some(outcome) = writer.outcome() {
            return outcome;
        }
    }
}

#[test]
fn a_child_writes_a_snapshot_that_a_start_finds() {
    let home = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(home.path()).expect("free");
    let (mut writer, state) = (SnapshotWriter::default(), vec![9; STATE_BYTES]);
    let pipe = writer.begin(&directory, &snapshot_of(0x2a), || state.clone());
    let Outcome { slot, made, text } = outcome(&mut writer, pipe);
    assert!(slot == Slot(0x2a) && made && text.contains(" bytes in "), "{text}");
    let bytes = fs::read(home.path().join("snapshot-000000000000002a")).expect("under its name");
    let (found, found_state) = crate::log::Snapshot::decode(&bytes).expect("whole");
    assert_eq!((found, found_state), (snapshot_of(0x2a), &state[..]));
    assert_eq!(directory.snapshot_slots().expect("readable"), [Slot(0x2a)]);
    let names: Vec<_> = fs::read_dir(home.path()).expect("there").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 2, "lock and snapshot: {names:?}");
}

/// More than one step of the child.
const STATE_BYTES: usize = 20 << 20;

#[test]
fn a_snapshot_that_cannot_be_made_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("data");
    let directory = Directory::open(&path).expect("free");
    fs::remove_dir_all(&path).expect("ours");
    let mut writer = SnapshotWriter::default();
    let pipe = writer.begin(&directory, &snapshot_of(7), Vec::new);
    let Outcome { slot, made, text } = outcome(&mut writer, pipe);
    assert!(slot == Slot(7) && !made && text.contains("cannot make"), "{text}");
    let pipe = writer.begin(&directory, &snapshot_of(8), || panic!("no state"));
    let Outcome { made, text, .. } = outcome(&mut writer, pipe);
    assert!(!made && text.contains("panicked"), "{text}");
}

/// Turns until nothing is being removed.
fn until_trimmed(disk: &mut Disk) {
    while !disk.is_trimmed() {
        if let Some(fd) = disk.event_fd() {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1, "no completion within ten seconds");
            disk.on_event();
        }
        disk.completed().expect("no error");
    }
}

#[test]
fn what_is_trimmed_goes_and_one_segment_is_used_again() {
    for choice in ENGINES {
        let home = tempfile::tempdir().expect("a directory");
        let exists = |name: &str| home.path().join(name).exists();
        for name in ["snapshot-0000000000000001", "snapshot-0000000000000002", "snapshot-2", "snapshot-new-17"] {
            fs::write(home.path().join(name), b"x").expect("a file");
        }
        let mut disk = open(home.path(), choice);
        assert!(!exists("snapshot-new-17"), "what was never finished is gone");
        for segment in 1..=5 {
            disk.submit(&mut vec![log(segment, segment, 0, b"old")], &mut Vec::new()).expect("submitted");
            until_durable(&mut disk, segment).expect("no error");
        }
        let trim = crate::replica::Trim { segments_below: SegmentNumber(4), snapshots_below: Slot(2) };
        disk.trim(&trim).expect("no error");
        until_trimmed(&mut disk);
        assert_eq!(disk.directory().segment_numbers().expect("readable"), [SegmentNumber(4), SegmentNumber(5)]);
        assert_eq!(disk.directory().snapshot_slots().expect("readable"), [Slot(2)]);
        assert!(exists("snapshot-2") && exists("recycled"));
        // A start takes the recycled segment for its spare: its blocks are written.
        drop(disk);
        let disk = open(home.path(), choice);
        assert!(matches!(disk.spare, Spare::Ready(_)) && !exists("recycled"), "{choice:?}");
        assert_eq!(fs::metadata(home.path().join("spare")).expect("a spare").len(), SEGMENT_BYTES);
    }
}

#[test]
fn reads_are_bounded_and_end_with_the_file() {
    let home = tempfile::tempdir().expect("a directory");
    let mut disk = open(home.path(), DiskChoice::Blocking);
    disk.submit(&mut vec![log(1, 1, SEGMENT_BYTES - 4, b"last")], &mut Vec::new()).expect("submitted");
    let of = |token, segment, offset, bytes| ReadRequest {
        token,
        file: crate::replica::StoredFile::Segment(SegmentNumber(segment)),
        offset,
        bytes,
    };
    disk.want(&mut vec![of(1, 1, SEGMENT_BYTES - 4, 100), of(2, 9, 0, 100), of(3, 1, 0, u32::MAX)]);
    let mut found = Vec::new();
    let mut turns = 0;
    while disk.has_reads() {
        found.append(&mut disk.read_some().expect("no error"));
        turns += 1;
    }
    assert_eq!((turns, &found[..2]), (2, &[(1, b"last".to_vec()), (2, Vec::new())][..]));
    assert_eq!((found[2].0, found[2].1.len()), (3, crate::limits::READ_BYTES_MAX as usize));
}
