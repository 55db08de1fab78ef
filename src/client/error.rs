//! Why an operation has no answer, and whether it may have been done all the same: what a caller needs to know to
//! decide whether to ask again. INTERFACE "Answers" has the codes and their exit statuses.

use crate::wire::answer::Code;
use std::fmt;

/// Whether a failed operation was executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Done {
    /// Certainly not: asking again is safe.
    No,
    /// It was sent, and may have been executed or may yet be.
    Unknown,
}

impl Done {
    /// The word in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Done::No => "no",
            Done::Unknown => "unknown",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The group, a replica's door or this library (for what makes no sense, or got no answer in time) said no.
    Refused { code: Code, message: String, done: Done },
    /// No replica could be reached; nothing was sent.
    Unreachable { message: String },
    /// The replicas reached belong to another group than the session; nothing was sent.
    OtherGroup { message: String },
}

impl Error {
    /// A refusal of something certainly not executed.
    pub fn refused(code: Code, message: impl Into<String>) -> Error {
        Error::Refused { code, message: message.into(), done: Done::No }
    }

    /// What is wrong with the request itself, found before anything is sent.
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::refused(Code::BadRequest, message)
    }

    /// The word in `! CODE message`: a code's name, `unreachable`, or `configuration`.
    pub fn name(&self) -> &'static str {
        match self {
            Error::Refused { code, .. } => code.name(),
            Error::Unreachable { .. } => "unreachable",
            Error::OtherGroup { .. } => "configuration",
        }
    }

    /// The exit status of `ftqc`.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Refused { code, .. } => code.exit_status(),
            Error::Unreachable { .. } => 69,
            Error::OtherGroup { .. } => 78,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Error::Refused { message, .. } | Error::Unreachable { message } | Error::OtherGroup { message } => message,
        }
    }

    /// The same, said of something in particular.
    #[must_use]
    pub fn about(self, what: &str) -> Error {
        match self {
            Error::Refused { code, message, done } => {
                Error::Refused { code, message: format!("{what}: {message}"), done }
            }
            Error::Unreachable { message } => Error::Unreachable { message: format!("{what}: {message}") },
            Error::OtherGroup { message } => Error::OtherGroup { message: format!("{what}: {message}") },
        }
    }

    /// The same, and what is to be done about it.
    #[must_use]
    pub fn and(self, what: &str) -> Error {
        let message = format!("{}; {what}", self.message());
        match self {
            Error::Refused { code, done, .. } => Error::Refused { code, message, done },
            Error::Unreachable { .. } => Error::Unreachable { message },
            Error::OtherGroup { .. } => Error::OtherGroup { message },
        }
    }

    pub fn done(&self) -> Done {
        match self {
            Error::Refused { done, .. } => *done,
            Error::Unreachable { .. } | Error::OtherGroup { .. } => Done::No,
        }
    }

    /// Whether this is a refusal with that code.
    pub fn is(&self, wanted: Code) -> bool {
        matches!(self, Error::Refused { code, .. } if *code == wanted)
    }
}

/// Whether a refusal with this code may pass by itself, so that asking again makes sense.
pub(crate) fn is_for_now(code: Code) -> bool {
    matches!(code, Code::NotPrimary | Code::Full | Code::DiskFull | Code::Stopping | Code::Busy)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name(), self.message())
    }
}

impl std::error::Error for Error {}
