//! How far a long push or pop has come, for a person who waits: one line on the terminal that stderr is, drawn again a
//! few times a second and erased at the end. Short ones show nothing.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What is done sooner needs no progress.
const SHORT: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(250);
/// How much the latest stretch weighs in the rate.
const WEIGHT: f64 = 0.25;
const ERASE: &str = "\r\x1b[K";

/// Items and bytes so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub items: u64,
    pub bytes: u64,
}

/// The line, and what it is made of.
#[derive(Debug)]
pub struct Progress {
    terminal: File,
    what: &'static str,
    /// How many items there are to be.
    wanted: Option<u64>,
    next: Instant,
    /// When the rate was last reckoned, and the items there were.
    reckoned: (Instant, u64),
    /// Items a second, lately.
    rate: Option<f64>,
    shown: bool,
}

/// stderr, where a person reads it and nothing else is on that screen.
pub fn terminal(stdin_is_read: bool, stdout_is_written: bool) -> Option<File> {
    let shared = stdin_is_read && io::stdin().is_terminal() || stdout_is_written && io::stdout().is_terminal();
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if shared || dumb || !io::stderr().is_terminal() {
        return None;
    }
    io::stderr().as_fd().try_clone_to_owned().ok().map(File::from)
}

impl Progress {
    pub fn new(terminal: File, what: &'static str, wanted: Option<u64>, so_far: Tally, now: Instant) -> Progress {
        let reckoned = (now, so_far.items);
        Progress { terminal, what, wanted, next: now + SHORT, reckoned, rate: None, shown: false }
    }

    /// When it is to be drawn again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Draws it, if it is time.
    pub fn draw(&mut self, tally: Tally, now: Instant) {
        if now < self.next {
            return;
        }
        self.reckon(tally.items, now);
        self.next = now + EVERY;
        self.shown = true;
        let line = format!("{ERASE}{}", self.line(tally));
        // There is nobody to tell when the terminal is gone.
        let _ = self.terminal.write_all(line.as_bytes());
    }

    fn reckon(&mut self, items: u64, now: Instant) {
        let (since, before) = self.reckoned;
        let lately = items.saturating_sub(before) as f64 / now.duration_since(since).as_secs_f64().max(1e-3);
        self.rate = Some(self.rate.map_or(lately, |rate| rate + WEIGHT * (lately - rate)));
        self.reckoned = (now, items);
    }

    /// `push: 1,234 items, 5.6 MB, 789 items/s`
    fn line(&self, Tally { items, bytes }: Tally) -> String {
        let mut line = format!("{}: {}", self.what, grouped(items));
        if let Some(wanted) = self.wanted {
            let _ = write!(line, " of {}", grouped(wanted));
        }
        let _ = write!(line, " items, {}, {} items/s", size(bytes), grouped(self.rate.unwrap_or(0.0).round() as u64));
        line
    }

    /// Leaves the line empty for something else.
    pub fn erase(&mut self) {
        if std::mem::take(&mut self.shown) {
            // As above.
            let _ = self.terminal.write_all(ERASE.as_bytes());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12 bytes`, `1.2 MB`
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let (mut amount, mut unit) = (bytes as f64 / 1e3, 0);
    while amount >= 999.95 && unit + 1 < UNITS.len() {
        (amount, unit) = (amount / 1e3, unit + 1);
    }
    format!("{amount:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0, 999, 1000, 999_949, 999_951].map(size),
            ["0 bytes", "999 bytes", "1.0 kB", "999.9 kB", "1.0 MB"]
        );
        assert_eq!(size(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn short_transfers_show_nothing_and_long_ones_a_line_that_is_erased() {
        let drawn = |steps: &[(u64, u64)]| {
            let (begun, file) = (Instant::now(), tempfile::tempfile().expect("a file"));
            let copy = file.try_clone().expect("a descriptor");
            let mut progress = Progress::new(copy, "pop", Some(10_000), Tally::default(), begun);
            for &(ms, items) in steps {
                progress.draw(Tally { items, bytes: items * 10 }, begun + Duration::from_millis(ms));
            }
            drop(progress);
            let (mut text, mut file) = (String::new(), file);
            file.rewind().expect("a file");
            file.read_to_string(&mut text).expect("text");
            text
        };
        assert_eq!(drawn(&[(0, 1), (999, 5)]), "");
        let line = "\r\x1b[Kpop: 5,000 of 10,000 items, 50.0 kB, 5,000 items/s";
        assert_eq!(drawn(&[(500, 9), (1000, 5000)]), format!("{line}\r\x1b[K"));
        assert_eq!(drawn(&[(1000, 5000), (1249, 6000)]), format!("{line}\r\x1b[K"), "not twice within the time");
        let later = "\r\x1b[Kpop: 6,000 of 10,000 items, 60.0 kB, 4,750 items/s";
        assert_eq!(drawn(&[(1000, 5000), (1250, 6000)]), format!("{line}{later}\r\x1b[K"));
    }
}
