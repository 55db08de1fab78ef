//! The time line of a run: hashed where two runs of one seed are compared, and printed where asked for.

use std::fmt;
use std::hash::Hasher;

use twox_hash::XxHash3_64;

use super::clock::Nanos;

pub struct Trace {
    hasher: Option<XxHash3_64>,
    pub printing: bool,
    /// The moment that lines call 0.
    pub zero: Nanos,
    /// Lines kept instead of printed, for transcripts.
    pub kept: Option<Vec<String>>,
}

impl Trace {
    pub fn new(printing: bool) -> Trace {
        Trace { hasher: None, printing, zero: 0, kept: None }
    }

    pub fn hashed() -> Trace {
        Trace { hasher: Some(XxHash3_64::new()), ..Trace::new(false) }
    }

    /// Enters an event into the hash: a kind, whom it befell, and its bytes.
    pub fn event(&mut self, at: Nanos, kind: u8, whom: u64, bytes: &[u8]) {
        let Some(hasher) = &mut self.hasher else { return };
        hasher.write_u64(at);
        hasher.write_u64(u64::from(kind) << 56 | whom);
        hasher.write(bytes);
    }

    pub fn is_on(&self) -> bool {
        self.printing || self.kept.is_some()
    }

    /// One line. Call only where `is_on`, for the text costs.
    pub fn line(&mut self, at: Nanos, whom: &str, what: fmt::Arguments<'_>) {
        let line = format!("{:>12.6} {whom:<4} {what}", (at - self.zero) as f64 / 1e6);
        match &mut self.kept {
            Some(lines) => lines.push(line),
            None => println!("{line}"),
        }
    }

    /// Of all events; 0 where they are not hashed.
    pub fn hash(&self) -> u64 {
        self.hasher.as_ref().map_or(0, XxHash3_64::finish)
    }
}
