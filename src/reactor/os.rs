//! What the daemon asks of the system besides files and sockets: the clock, entropy, limits, signals, and systemd's
//! ear.

use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::types::Time;

/// The monotonic clock, which neither jumps nor counts a suspended machine's sleep.
pub fn now() -> Time {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills `t`; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    Time(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

/// Eight bytes of entropy from the kernel.
pub fn entropy() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: eight bytes are written into eight; so few are never cut short.
    match unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) } {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes of memory the machine has.
pub fn ram_bytes() -> u64 {
    // SAFETY: only asks.
    let (pages, bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    pages.max(0) as u64 * bytes.max(0) as u64
}

/// Allows as many open files as the system lets this process have. Best effort.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills `limit`, then reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Sets a socket option that is an integer.
pub fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let size = size_of_val(&value) as u32;
    // SAFETY: an integer is read where one is.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads a socket option that is an integer.
pub fn get_option(socket: &impl AsRawFd, level: i32, name: i32) -> io::Result<libc::c_int> {
    let (mut value, mut size) = (0 as libc::c_int, size_of::<libc::c_int>() as u32);
    // SAFETY: an integer is written where one is.
    match unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Wakes the poll at a moment more exactly than its timeout, which counts milliseconds.
#[derive(Debug)]
pub struct Alarm {
    fd: OwnedFd,
    set: Time,
}

impl Alarm {
    pub fn new() -> io::Result<Alarm> {
        // SAFETY: no pointers; a descriptor returned without error is ours.
        unsafe {
            match libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Alarm { fd: OwnedFd::from_raw_fd(fd), set: Time(0) }),
            }
        }
    }

    /// Readable from `at` on. Best effort: the poll's timeout comes a little later.
    pub fn set(&mut self, at: Time) {
        if self.set != at {
            self.set = at;
            let (tv_sec, tv_nsec) = ((at.0 / 1_000_000_000) as _, (at.0 % 1_000_000_000) as _);
            let mut when = libc::itimerspec {
                it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: libc::timespec { tv_sec, tv_nsec },
            };
            // SAFETY: the kernel reads `when` only.
            unsafe { libc::timerfd_settime(self.raw_fd(), libc::TFD_TIMER_ABSTIME, &raw mut when, ptr::null_mut()) };
        }
    }

    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// TERM or INT: leave and stop.
    Stop,
    /// HUP: read again what can change.
    Reload,
    /// USR1: log a full status.
    Status,
}

/// Signals as something to be polled.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
    flags: [(Asked, Arc<AtomicBool>); 3],
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let flags = [Asked::Stop, Asked::Reload, Asked::Status].map(|asked| (asked, Arc::new(AtomicBool::new(false))));
        for (signal, flag) in [(SIGTERM, 0), (SIGINT, 0), (SIGHUP, 1), (SIGUSR1, 2)] {
            // The flag first: who is woken must find it.
            signal_hook::flag::register(signal, flags[flag].1.clone())?;
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(Signals { wake, flags })
    }

    pub fn raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }

    /// What was asked for since last called.
    pub fn take(&mut self) -> Vec<Asked> {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|count| count > 0) {}
        let raised = self.flags.iter().filter(|(_, flag)| flag.swap(false, Ordering::SeqCst));
        raised.map(|(asked, _)| *asked).collect()
    }
}

/// Tells systemd how the replica is, if it wants to know.
#[derive(Debug)]
pub struct Notifier {
    listens: bool,
    ready: bool,
    status: String,
    /// Half of what systemd allows between two signs of life.
    watchdog_ns: Option<u64>,
    next_sign: Time,
}

impl Notifier {
    pub fn new(now: Time) -> Notifier {
        let mut usec = 0;
        let watched = sd_notify::watchdog_enabled(false, &mut usec);
        Notifier {
            listens: std::env::var_os("NOTIFY_SOCKET").is_some(),
            ready: false,
            status: String::new(),
            watchdog_ns: watched.then_some(usec * 1000 / 2),
            next_sign: now,
        }
    }

    /// Whether [`Notifier::tell`] is of any use.
    pub fn listens(&self) -> bool {
        self.listens
    }

    /// Says READY once, and the status whenever it has changed. Nobody listening is nothing to stop for.
    pub fn tell(&mut self, ready: bool, status: &str) {
        if ready && !self.ready {
            self.ready = true;
            let _ = sd_notify::notify(false, &[NotifyState::Ready]);
        }
        if self.status != status {
            status.clone_into(&mut self.status);
            let _ = sd_notify::notify(false, &[NotifyState::Status(status)]);
        }
    }

    pub fn stopping(&self) {
        if self.listens {
            let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
        }
    }

    /// Gives a sign of life when one is due.
    pub fn feed_watchdog(&mut self, now: Time) {
        if let Some(every_ns) = self.watchdog_ns.filter(|_| now >= self.next_sign) {
            self.next_sign = now.after_ns(every_ns);
            let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
        }
    }

    /// When the loop must turn for the watchdog's sake.
    pub fn deadline(&self) -> Option<Time> {
        self.watchdog_ns.map(|_| self.next_sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_once_and_wake_the_poll() {
        let mut signals = Signals::new().expect("handlers");
        assert!(signals.take().is_empty());
        signal_hook::low_level::raise(SIGUSR1).expect("raised");
        signal_hook::low_level::raise(SIGHUP).expect("raised");
        let mut poll = libc::pollfd { fd: signals.raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 1);
        assert_eq!(signals.take(), [Asked::Reload, Asked::Status]);
        assert!(signals.take().is_empty());
    }

    #[test]
    fn an_alarm_wakes_the_poll_and_not_before() {
        let mut alarm = Alarm::new().expect("a timer");
        let mut poll = libc::pollfd { fd: alarm.raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        let mut wakes = |wait_ms| unsafe { libc::poll(&raw mut poll, 1, wait_ms) } == 1;
        let at = now().after_ns(3 * Time::MS);
        alarm.set(at);
        assert!(wakes(10_000) && now() >= at);
        alarm.set(at.after_ns(3_600_000 * Time::MS));
        assert!(!wakes(0));
    }

    #[test]
    fn the_clock_and_the_machine_answer() {
        let earlier = now();
        assert!(now() >= earlier && earlier > Time(0));
        assert_ne!(entropy().expect("entropy"), entropy().expect("entropy"));
        assert!(ram_bytes() > 1 << 20);
    }
}
