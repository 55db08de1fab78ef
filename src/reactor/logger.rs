//! One line an event on stderr: with systemd's `<N>` priority when stderr is the journal, with `ftqd[ID]:` otherwise.

use std::fs::File;
use std::io::Write;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;

use crate::replica::Level;
use crate::types::ReplicaId;

/// Writes what is at least as grave as its level.
#[derive(Clone, Debug)]
pub struct Logger {
    id: Option<ReplicaId>,
    level: Level,
    journal: bool,
}

/// The level an operator names.
pub fn level_from_name(name: &str) -> Option<Level> {
    match name {
        "debug" => Some(Level::Debug),
        "info" => Some(Level::Info),
        "warning" => Some(Level::Warning),
        "error" => Some(Level::Error),
        _ => None,
    }
}

/// What `$JOURNAL_STREAM` names is the file behind stderr: `DEVICE:INODE`.
fn is_journal(stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|s| s.split_once(':')) else { return false };
    // SAFETY: descriptor 2 is only looked at; ManuallyDrop keeps it open.
    let stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
    stderr.metadata().is_ok_and(|m| device.parse() == Ok(m.dev()) && inode.parse() == Ok(m.ino()))
}

impl Logger {
    /// For stderr as it is now.
    pub fn new(id: Option<ReplicaId>, level: Level) -> Logger {
        Logger { id, level, journal: is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()) }
    }

    /// Logs one event. A stderr that is gone is nothing to stop for.
    pub fn log(&self, level: Level, message: &str) {
        if let Some(line) = self.line(level, message) {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    /// The line as it is written, or `None` where the level keeps it back.
    fn line(&self, level: Level, message: &str) -> Option<String> {
        if level < self.level {
            return None;
        }
        let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(match (self.journal, self.id) {
            (true, _) => format!("<{}>{message}\n", priority(level)),
            (false, Some(id)) => format!("ftqd[{id}]: {message}\n"),
            (false, None) => format!("ftqd: {message}\n"),
        })
    }
}

/// The syslog priority.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warning => 4,
        Level::Info => 6,
        Level::Debug => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logger(journal: bool) -> Logger {
        Logger { id: Some(ReplicaId(3)), level: Level::Info, journal }
    }

    #[test]
    fn one_line_an_event() {
        assert_eq!(logger(false).line(Level::Info, "up"), Some("ftqd[3]: up\n".into()));
        assert_eq!(logger(false).line(Level::Error, "two\nlines\x1b[1m"), Some("ftqd[3]: two lines [1m\n".into()));
        assert_eq!(Logger { id: None, ..logger(false) }.line(Level::Info, "up"), Some("ftqd: up\n".into()));
    }

    #[test]
    fn the_journal_gets_priorities() {
        assert_eq!(logger(true).line(Level::Error, "e"), Some("<3>e\n".into()));
        assert_eq!(logger(true).line(Level::Warning, "w"), Some("<4>w\n".into()));
        assert_eq!(logger(true).line(Level::Info, "i"), Some("<6>i\n".into()));
    }

    #[test]
    fn levels_filter() {
        assert_eq!(logger(false).line(Level::Debug, "d"), None);
        assert_eq!(level_from_name("warning"), Some(Level::Warning));
        assert_eq!(level_from_name("loud"), None);
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        // SAFETY: as above, only looked at.
        let stderr = ManuallyDrop::new(unsafe { File::from_raw_fd(2) });
        let m = stderr.metadata().expect("a test has a stderr");
        assert!(is_journal(Some(&format!("{}:{}", m.dev(), m.ino()))));
        assert!(!is_journal(Some(&format!("{}:{}", m.dev(), m.ino().wrapping_add(1)))));
        assert!(!is_journal(Some("nonsense")));
        assert!(!is_journal(None));
    }
}
