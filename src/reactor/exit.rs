//! How the daemon ends: a message for the operator and a status after sysexits(3), so that systemd and scripts know
//! whether starting it again could help.

use std::fmt;
use std::io;
use std::path::Path;

/// Done, or asked to stop.
pub const OK: i32 = 0;
/// The command line makes no sense, or asks for what this version does not have.
pub const USAGE: i32 = 64;
/// An address is taken or a name not known: may go away by itself.
pub const UNAVAILABLE: i32 = 69;
/// A read, write or sync failed.
pub const IO: i32 = 74;
/// The book, the data directory or their combination is wrong: only the operator can help.
pub const CONFIGURATION: i32 = 78;

/// Why the daemon does not start, or can go no further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    pub status: i32,
    pub message: String,
}

impl Exit {
    pub fn usage(message: impl Into<String>) -> Exit {
        Exit { status: USAGE, message: message.into() }
    }

    pub fn configuration(message: impl Into<String>) -> Exit {
        Exit { status: CONFIGURATION, message: message.into() }
    }

    pub fn unavailable(message: impl Into<String>) -> Exit {
        Exit { status: UNAVAILABLE, message: message.into() }
    }

    /// A failed call on a file: `cannot WHAT PATH: reason`.
    pub fn io(what: &str, path: &Path, error: &io::Error) -> Exit {
        Exit { status: IO, message: format!("cannot {what} {}: {error}", path.display()) }
    }

    /// A failed call on nothing that has a name.
    pub fn system(what: &str, error: &io::Error) -> Exit {
        Exit { status: IO, message: format!("cannot {what}: {error}") }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
