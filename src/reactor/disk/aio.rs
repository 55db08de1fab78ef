//! Linux AIO where io_uring is forbidden: writes go into the page cache at once, and the data sync is carried out by
//! the kernel (`IOCB_CMD_FDSYNC`), its completion told by an eventfd.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use super::{Chain, EventFd, Failure, Lane, Target, LANES, OPERATIONS_MAX};

const IOCB_CMD_FDSYNC: u16 = 3;
const IOCB_FLAG_RESFD: u32 = 1;

/// `struct iocb` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Iocb {
    data: u64,
    key_and_rw_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_fd: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<Iocb>() == 64 && size_of::<IoEvent>() == 32, "as the kernel has them");

#[derive(Debug)]
pub(super) struct Aio {
    context: libc::c_ulong,
    event: EventFd,
    /// Files whose sync is under way; those done are `None`.
    lanes: [Vec<Option<Rc<Target>>>; LANES.len()],
}

impl Aio {
    /// Errors where the kernel or a filter forbids it.
    pub fn new() -> io::Result<Aio> {
        let event = EventFd::new()?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the context's name into `context`.
        if unsafe { libc::syscall(libc::SYS_io_setup, libc::c_long::from(OPERATIONS_MAX), &raw mut context) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Aio { context, event, lanes: Default::default() })
    }

    pub fn event_fd(&self) -> RawFd {
        self.event.raw()
    }

    pub fn submit(&mut self, lane: Lane, chains: Vec<Chain>) -> Result<(), Failure> {
        let files = &mut self.lanes[lane as usize];
        assert!(files.is_empty(), "one batch of a lane at a time");
        for Chain { target, writes } in chains {
            for (offset, bytes) in writes {
                target.file.write_all_at(&bytes, offset).map_err(|e| Failure::new("write to", &target, e))?;
            }
            let mut sync = Iocb {
                data: (lane as u64) << 32 | files.len() as u64,
                opcode: IOCB_CMD_FDSYNC,
                fd: target.file.as_raw_fd() as u32,
                flags: IOCB_FLAG_RESFD,
                result_fd: self.event.raw() as u32,
                ..Iocb::default()
            };
            let mut list = [&raw mut sync];
            // SAFETY: one valid control block, which the kernel copies before it returns.
            if unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1 as libc::c_long, list.as_mut_ptr()) } != 1 {
                return Err(Failure::new("submit a sync of", &target, io::Error::last_os_error()));
            }
            files.push(Some(target));
        }
        Ok(())
    }

    pub fn reap(&mut self, done: &mut Vec<Lane>) -> Result<(), Failure> {
        self.event.clear();
        let mut events = [IoEvent::default(); 32];
        loop {
            // SAFETY: the kernel writes at most as many events as there are.
            let count = unsafe {
                let (least, most) = (0 as libc::c_long, events.len() as libc::c_long);
                let wait = std::ptr::null::<libc::timespec>();
                libc::syscall(libc::SYS_io_getevents, self.context, least, most, events.as_mut_ptr(), wait)
            };
            if count <= 0 {
                return Ok(());
            }
            for event in &events[..count as usize] {
                let lane = LANES[(event.data >> 32) as usize];
                let files = &mut self.lanes[lane as usize];
                let target = files[event.data as u32 as usize].take().expect("a sync completes once");
                if event.result < 0 {
                    let error = io::Error::from_raw_os_error(-event.result as i32);
                    return Err(Failure::new("sync", &target, error));
                }
                if files.iter().all(Option::is_none) {
                    files.clear();
                    done.push(lane);
                }
            }
            if (count as usize) < events.len() {
                return Ok(());
            }
        }
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: our own context; the kernel waits for what is under way, which holds no memory of ours.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}
