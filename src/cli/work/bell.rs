//! What wakes a slot: a signal to stop, or a child of this process that ended. A bell says nothing but that there is
//! something to look at; the state is elsewhere: in [`Orders`], and with the slot's own child.

use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::low_level::{self, pipe};
use signal_hook::SigId;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

/// From this one on the process ends at once: its jobs are killed already.
const ORDERS_MAX: u32 = 3;

fn forget(signals: &[SigId]) {
    signals.iter().for_each(|&signal| _ = low_level::unregister(signal));
}

/// How often SIGTERM or SIGINT came.
#[derive(Debug)]
pub struct Orders {
    count: Arc<AtomicU32>,
    signals: Vec<SigId>,
}

impl Orders {
    pub fn new() -> io::Result<Orders> {
        let mut orders = Orders { count: Arc::default(), signals: Vec::new() };
        for signal in [SIGTERM, SIGINT] {
            let count = Arc::clone(&orders.count);
            let on_signal = move || {
                if count.fetch_add(1, Ordering::SeqCst) + 1 >= ORDERS_MAX {
                    low_level::exit(75);
                }
            };
            // SAFETY: an atomic addition and _exit are all that happens in the handler.
            orders.signals.push(unsafe { low_level::register(signal, on_signal) }?);
        }
        Ok(orders)
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        forget(&self.signals);
    }
}

/// Rings for one slot.
#[derive(Debug)]
pub struct Bell {
    heard: UnixStream,
    rung: UnixStream,
    signals: Vec<SigId>,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        let (heard, rung) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let mut bell = Bell { heard, rung, signals: Vec::new() };
        for signal in [SIGTERM, SIGINT, SIGCHLD] {
            bell.signals.push(pipe::register(signal, bell.rung.try_clone()?)?);
        }
        Ok(bell)
    }

    pub fn ring(&self) {
        // Where there is no room for another byte it rings already.
        let _ = (&self.rung).write(b"X");
    }

    /// What can be read while it rings.
    pub fn fd(&self) -> RawFd {
        self.heard.as_raw_fd()
    }

    /// Silences it: to be called before one looks what it rang for.
    pub fn silence(&self) {
        let mut bytes = [0; 256];
        while (&self.heard).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        forget(&self.signals);
    }
}
