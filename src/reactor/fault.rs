//! Faults on purpose, for tests and the lab: lines on an inherited descriptor make this replica lose or delay what it
//! sends to others. `loss PERCENT`, `delay MS`, `partition ID,...` (only those replicas are reached), `heal` (no faults
//! any more). There is no other way to reach this module.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use crate::limits::REPLICA_ID_MAX;
use crate::rng::Rng;
use crate::types::ReplicaId;
use crate::types::{Dest, Time};

/// A longer line is no command.
const LINE_BYTES_MAX: usize = 1024;
/// What does not fit into a line of what is delayed is lost, as in a router.
const DELAYED_BYTES_MAX: usize = 16 << 20;
const DELAY_MS_MAX: u64 = 60_000;

/// What becomes of a datagram that is about to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Goes,
    Lost,
    /// [`Faults::take_due`] hands it back in its time.
    Delayed,
}

/// What is delayed, in the order in which it is due: a shorter delay does not let anything overtake.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<(Time, ReplicaId, Vec<u8>)>,
    bytes: usize,
}

impl Line {
    /// Lets something wait until it is due; false where there is no room for it.
    fn push(&mut self, due: Time, to: ReplicaId, bytes: Vec<u8>) -> bool {
        let fits = self.bytes + bytes.len() <= DELAYED_BYTES_MAX;
        if fits {
            let last = self.waiting.back().map_or(due, |(last, ..)| *last);
            self.bytes += bytes.len();
            self.waiting.push_back((due.max(last), to, bytes));
        }
        fits
    }

    fn take_due(&mut self, now: Time) -> Vec<(ReplicaId, Vec<u8>)> {
        let count = self.waiting.iter().take_while(|(due, ..)| *due <= now).count();
        let due: Vec<(ReplicaId, Vec<u8>)> = self.waiting.drain(..count).map(|(_, to, bytes)| (to, bytes)).collect();
        self.bytes -= due.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        due
    }

    fn deadline(&self) -> Option<Time> {
        self.waiting.front().map(|(due, ..)| *due)
    }
}

/// Which datagrams are lost, and what is on its way. Streams are cut and delayed alike; what TCP loses it repairs.
#[derive(Debug)]
pub struct Faults {
    rng: Rng,
    loss_ppm: u32,
    delay_ms: u64,
    /// Only these are reached; `None` for all.
    reached: Option<Dest>,
    datagrams: Line,
    frames: Line,
}

impl Faults {
    pub fn new(seed: u64) -> Faults {
        Faults {
            rng: Rng::new(seed),
            loss_ppm: 0,
            delay_ms: 0,
            reached: None,
            datagrams: Line::default(),
            frames: Line::default(),
        }
    }

    /// Whether nothing at all gets to this replica.
    pub fn cuts(&self, to: ReplicaId) -> bool {
        self.reached.is_some_and(|reached| !reached.contains(to))
    }

    /// Decides about the next datagram to this replica; keeps a copy of what is delayed.
    pub fn fate(&mut self, now: Time, to: ReplicaId, bytes: &[u8]) -> Fate {
        if self.cuts(to) || (self.loss_ppm > 0 && self.rng.chance(self.loss_ppm)) {
            return Fate::Lost;
        }
        if self.delay_ms == 0 && self.datagrams.waiting.is_empty() {
            return Fate::Goes;
        }
        match self.datagrams.push(self.due(now), to, bytes.to_vec()) {
            true => Fate::Delayed,
            false => Fate::Lost,
        }
    }

    fn due(&self, now: Time) -> Time {
        now.after_ns(self.delay_ms * Time::MS)
    }

    /// The delayed datagrams that are due, in the order in which they were to be sent.
    pub fn take_due(&mut self, now: Time) -> Vec<(Dest, Vec<u8>)> {
        self.datagrams.take_due(now).into_iter().map(|(to, bytes)| (Dest::one(to), bytes)).collect()
    }

    /// Keeps back the frames of streams that are about to be sent, and puts those that are due in their place.
    pub fn delay_frames(&mut self, now: Time, frames: &mut Vec<(ReplicaId, Vec<u8>)>) {
        if self.delay_ms == 0 && self.frames.waiting.is_empty() {
            return;
        }
        let due = self.due(now);
        for (to, frame) in frames.drain(..) {
            // What is lost here is asked for again.
            self.frames.push(due, to, frame);
        }
        frames.append(&mut self.frames.take_due(now));
    }

    /// When something delayed is due.
    pub fn deadline(&self) -> Option<Time> {
        [self.datagrams.deadline(), self.frames.deadline()].into_iter().flatten().min()
    }

    /// Carries out one line. Errors say what is wrong with it.
    pub fn command(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("loss"), Some(percent), None) => {
                let value = percent.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
                let value = value.ok_or_else(|| format!("loss {percent}: must be 0 to 100"))?;
                self.loss_ppm = (value * 10_000.0) as u32;
            }
            (Some("delay"), Some(ms), None) => {
                let value = ms.parse::<u64>().ok().filter(|ms| *ms <= DELAY_MS_MAX);
                self.delay_ms = value.ok_or_else(|| format!("delay {ms}: must be 0 to {DELAY_MS_MAX}"))?;
            }
            (Some("partition"), Some(ids), None) => {
                let reached = ids.split(',').try_fold(Dest::default(), |all, id| match id.parse::<u8>() {
                    Ok(n) if (1..=REPLICA_ID_MAX).contains(&n) => Ok(all.with(ReplicaId(n))),
                    _ => Err(format!("partition: '{id}' is no replica")),
                })?;
                self.reached = Some(reached);
            }
            (Some("heal"), None, None) => {
                (self.loss_ppm, self.delay_ms, self.reached) = (0, 0, None);
            }
            _ => return Err(format!("unknown fault '{}'", line.trim())),
        }
        Ok(())
    }
}

/// Where the commands come from.
#[derive(Debug)]
pub struct FaultInput {
    file: File,
    line: Vec<u8>,
    closed: bool,
}

impl FaultInput {
    /// Takes over an inherited pipe or socket. Errors if there is none of this number.
    pub fn new(fd: RawFd) -> io::Result<FaultInput> {
        // SAFETY: only asked for its flags, which fails if there is no such descriptor.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        // SAFETY: as above; a descriptor that is there is set non-blocking, for itself and the loop.
        if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the operator hands the descriptor over for this purpose.
        Ok(FaultInput { file: unsafe { File::from_raw_fd(fd) }, line: Vec::new(), closed: false })
    }

    pub fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The whole lines that have come. Never waits.
    pub fn lines(&mut self) -> Vec<String> {
        let (mut lines, mut buffer) = (Vec::new(), [0; 512]);
        while !self.closed {
            match self.file.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => self.take(&buffer[..count], &mut lines),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        lines
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        for &byte in bytes {
            if byte == b'\n' {
                lines.push(String::from_utf8_lossy(&self.line).into_owned());
                self.line.clear();
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;

    const NOW: Time = Time(1_000_000_000);

    fn lost(faults: &mut Faults, to: u8) -> u32 {
        (0..10_000).map(|_| u32::from(faults.fate(NOW, ReplicaId(to), &[]) == Fate::Lost)).sum()
    }

    fn after_ms(ms: u64) -> Time {
        NOW.after_ns(ms * Time::MS)
    }

    #[test]
    fn what_is_delayed_comes_later_and_in_order() {
        let mut faults = Faults::new(1);
        faults.command("delay 20").expect("a command");
        assert_eq!(faults.fate(NOW, ReplicaId(2), b"a"), Fate::Delayed);
        assert_eq!(faults.fate(after_ms(1), ReplicaId(3), b"b"), Fate::Delayed);
        assert_eq!(faults.deadline(), Some(after_ms(20)));
        assert!(faults.take_due(after_ms(19)).is_empty());
        assert_eq!(faults.take_due(after_ms(20)), [(Dest::one(ReplicaId(2)), b"a".to_vec())]);
        faults.command("heal").expect("a command");
        assert_eq!(faults.fate(after_ms(20), ReplicaId(3), b"c"), Fate::Delayed, "nothing overtakes");
        let rest = [b"b", b"c"].map(|bytes| (Dest::one(ReplicaId(3)), bytes.to_vec()));
        assert_eq!(faults.take_due(after_ms(21)), rest);
        assert_eq!((faults.deadline(), faults.fate(after_ms(22), ReplicaId(3), b"d")), (None, Fate::Goes));
    }

    #[test]
    fn frames_of_streams_are_delayed_alike() {
        let mut faults = Faults::new(1);
        let frame = |n: u8| (ReplicaId(2), vec![n]);
        let mut frames = vec![frame(1)];
        faults.delay_frames(NOW, &mut frames);
        assert_eq!(frames, [frame(1)]);
        faults.command("delay 20").expect("a command");
        faults.delay_frames(NOW, &mut frames);
        assert_eq!((frames.len(), faults.deadline()), (0, Some(after_ms(20))));
        faults.command("heal").expect("a command");
        let mut frames = vec![frame(2)];
        faults.delay_frames(after_ms(20), &mut frames);
        assert_eq!((frames, faults.deadline()), (vec![frame(1), frame(2)], None), "nothing overtakes");
    }

    #[test]
    fn what_is_delayed_is_bounded() {
        let mut faults = Faults::new(1);
        faults.command("delay 1000").expect("a command");
        let datagram = vec![0; DELAYED_BYTES_MAX / 10];
        let fates: Vec<Fate> = (0..11).map(|_| faults.fate(NOW, ReplicaId(2), &datagram)).collect();
        assert_eq!((fates[9], fates[10]), (Fate::Delayed, Fate::Lost));
        assert_eq!(faults.take_due(after_ms(1000)).len(), 10);
        assert_eq!(faults.fate(NOW, ReplicaId(2), &datagram), Fate::Delayed, "there is room again");
    }

    #[test]
    fn loss_is_a_share_of_what_is_sent() {
        let mut faults = Faults::new(1);
        assert_eq!(lost(&mut faults, 2), 0);
        faults.command("loss 10").expect("a command");
        assert!((800..1200).contains(&lost(&mut faults, 2)));
        faults.command(" loss  0.5 ").expect("a command");
        assert!((20..90).contains(&lost(&mut faults, 2)));
        faults.command("loss 100").expect("a command");
        assert_eq!(lost(&mut faults, 2), 10_000);
        faults.command("heal").expect("a command");
        assert_eq!(lost(&mut faults, 2), 0);
    }

    #[test]
    fn a_partition_reaches_its_side_only() {
        let mut faults = Faults::new(1);
        faults.command("partition 1,3").expect("a command");
        assert_eq!((lost(&mut faults, 1), lost(&mut faults, 2), lost(&mut faults, 3)), (0, 10_000, 0));
        faults.command("heal").expect("a command");
        assert_eq!(lost(&mut faults, 2), 0);
    }

    #[test]
    fn nonsense_is_refused_and_changes_nothing() {
        let mut faults = Faults::new(1);
        for line in [
            "",
            "loss",
            "loss x",
            "loss 101",
            "loss NaN",
            "loss 1 2",
            "delay",
            "delay -1",
            "delay 60001",
            "delay 1.5",
            "partition",
            "partition 0",
            "partition 1,,2",
            "heal now",
            "explode",
        ] {
            assert!(faults.command(line).is_err(), "{line}");
        }
        assert_eq!(lost(&mut faults, 2), 0);
    }

    #[test]
    fn lines_come_from_a_descriptor() {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        let mut input = FaultInput::new(theirs.into_raw_fd()).expect("a descriptor");
        assert!(input.lines().is_empty());
        ours.write_all(b"loss 5\nhea").expect("written");
        assert_eq!(input.lines(), ["loss 5"]);
        ours.write_all(b"l\n").expect("written");
        drop(ours);
        assert_eq!(input.lines(), ["heal"]);
        assert!(input.lines().is_empty());
        assert!(FaultInput::new(-1).is_err());
    }
}
