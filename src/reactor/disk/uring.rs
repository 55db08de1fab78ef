//! io_uring: each chain is a row of linked operations, so that the sync follows its writes without a wake-up between.

use io_uring::{opcode, squeue, types, IoUring};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use super::{Chain, EventFd, Failure, Lane, LANES, OPERATIONS_MAX};

/// What of a batch is under way; its buffers must stay until all of it is done.
#[derive(Debug, Default)]
struct Running {
    chains: Vec<Chain>,
    /// For each operation its chain, and for a write its place in there.
    operations: Vec<(usize, Option<usize>)>,
    left: usize,
    failure: Option<Failure>,
}

pub(super) struct Uring {
    ring: IoUring,
    event: EventFd,
    lanes: [Running; LANES.len()],
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("lanes", &self.lanes).finish()
    }
}

impl Uring {
    /// Errors where the kernel or a filter forbids it.
    pub fn new() -> io::Result<Uring> {
        let ring = IoUring::new(OPERATIONS_MAX)?;
        let event = EventFd::new()?;
        ring.submitter().register_eventfd(event.raw())?;
        Ok(Uring { ring, event, lanes: Default::default() })
    }

    pub fn event_fd(&self) -> RawFd {
        self.event.raw()
    }

    pub fn submit(&mut self, lane: Lane, chains: Vec<Chain>) -> Result<(), Failure> {
        let running = &mut self.lanes[lane as usize];
        assert!(running.left == 0, "one batch of a lane at a time");
        *running = Running { chains, ..Running::default() };
        for (c, chain) in running.chains.iter().enumerate() {
            let fd = types::Fd(chain.target.file.as_raw_fd());
            for (w, (offset, bytes)) in chain.writes.iter().enumerate() {
                let write = opcode::Write::new(fd, bytes.as_ptr(), bytes.len() as u32).offset(*offset).build();
                let write = write.flags(squeue::Flags::IO_LINK);
                push(&mut self.ring, lane, running.operations.len(), &write);
                running.operations.push((c, Some(w)));
            }
            let sync = opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            push(&mut self.ring, lane, running.operations.len(), &sync);
            running.operations.push((c, None));
        }
        running.left = running.operations.len();
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::new("submit a write to", &running.chains[0].target, e)),
            }
        }
    }

    pub fn reap(&mut self, done: &mut Vec<Lane>) -> Result<(), Failure> {
        self.event.clear();
        let mut failed = None;
        for completion in self.ring.completion() {
            let name = completion.user_data();
            let lane = LANES[(name >> 32) as usize];
            let running = &mut self.lanes[lane as usize];
            running.on_completion(name as u32 as usize, completion.result());
            running.left -= 1;
            if running.left == 0 {
                match std::mem::take(running).failure {
                    Some(failure) => failed = Some(failure),
                    None => done.push(lane),
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Queues one operation under a name that finds it again. Its buffer lives in its lane until the lane is done.
fn push(ring: &mut IoUring, lane: Lane, index: usize, operation: &squeue::Entry) {
    let entry = operation.clone().user_data((lane as u64) << 32 | index as u64);
    // SAFETY: file and bytes belong to the lane's chains, which stay until every operation is completed.
    unsafe { ring.submission().push(&entry) }.expect("the ring holds a whole batch of each lane");
}

impl Running {
    fn on_completion(&mut self, index: usize, result: i32) {
        let (chain, write) = self.operations[index];
        let chain = &self.chains[chain];
        let failure = match (write, result) {
            (Some(w), n) if n >= 0 && n as usize == chain.writes[w].1.len() => return,
            (None, n) if n >= 0 => return,
            (_, n) if n == -libc::ECANCELED && self.failure.is_some() => return,
            (Some(_), n) if n >= 0 => Failure::short_write(&chain.target),
            (Some(_), n) => Failure::new("write to", &chain.target, io::Error::from_raw_os_error(-n)),
            (None, n) => Failure::new("sync", &chain.target, io::Error::from_raw_os_error(-n)),
        };
        self.failure.get_or_insert(failure);
    }
}

impl Drop for Uring {
    /// The kernel reads from the lanes' buffers until the last operation is completed.
    fn drop(&mut self) {
        while self.lanes.iter().any(|l| l.left > 0) {
            if self.ring.submit_and_wait(1).is_err_and(|e| e.kind() != io::ErrorKind::Interrupted) {
                // Better to lose the memory than to let the kernel read what was freed.
                self.lanes.iter_mut().for_each(|l| std::mem::forget(std::mem::take(l)));
                return;
            }
            // Whether it failed matters to nobody any more.
            let _ = self.reap(&mut Vec::new());
        }
    }
}
