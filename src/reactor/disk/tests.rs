use super::*;
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
