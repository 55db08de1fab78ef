//! What a `pop --session` knows of itself: how much of its output is written, and which pop may have been sent and is
//! unanswered. It is in the session file before that pop is sent, and what it popped is in the output, synced, before
//! the file says so; the answers of a kept session stay until then.

use crate::cli::ledger::Account;
use crate::cli::line::{escape, unescape};
use crate::cli::output::Style;
use crate::cli::store::{extent, hex, session, session_line, Extent, Fields};
use crate::types::{ClusterId, SessionId};
use std::path::{Path, PathBuf};
use twox_hash::XxHash3_64;

/// The pop that may have been sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    pub count: u64,
    pub wait_ms: u64,
}

/// How far a pop has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Popped {
    pub label: String,
    /// How items are written: as JSON, ended by NUL, escaped.
    pub json: bool,
    pub null: bool,
    pub escape: bool,
    /// Where to, if not to stdout.
    pub output: Option<PathBuf>,
    pub session: Option<(ClusterId, SessionId)>,
    /// The next number in the session.
    pub next: u64,
    /// What is written and synced, and the hash of these bytes.
    pub done: Extent,
    pub hash: u64,
    /// The pop under the number before `next`, if it has no answer on file.
    pub asked: Option<Asked>,
}

impl Popped {
    /// Nothing is popped yet.
    pub fn new(label: &str, style: Style, output: Option<PathBuf>) -> Popped {
        Popped {
            label: label.to_string(),
            json: style.json,
            null: style.null,
            escape: style.escape,
            output,
            session: None,
            next: 1,
            done: Extent::default(),
            hash: XxHash3_64::oneshot(&[]),
            asked: None,
        }
    }

    pub fn style(&self) -> Style {
        Style { json: self.json, null: self.null, escape: self.escape, ..Style::default() }
    }

    /// Whether the lines are those of a pop.
    pub fn is_meant(lines: &str) -> bool {
        lines.lines().nth(1).is_some_and(|line| line.starts_with("pop "))
    }

    /// Reads what `write` wrote. Errors say what is wrong with it.
    pub fn read(lines: &str) -> Result<Popped, String> {
        if !Popped::is_meant(lines) {
            return Err("this belongs to a push".to_string());
        }
        Popped::read_fields(lines).ok_or_else(|| "it is damaged".to_string())
    }

    /// A pop that no earlier run can have sent is none.
    pub fn forget_unsent(&mut self) {
        if self.seen() == 0 {
            self.asked = None;
            self.number_from(1);
        }
    }

    fn read_fields(lines: &str) -> Option<Popped> {
        let mut fields = Fields::of(lines);
        let label = fields.next("label")?.to_string();
        let flags: Vec<bool> = fields.next("pop")?.split(' ').map(|flag| flag == "1").collect();
        let [json, null, escape] = flags[..] else { return None };
        let output = match fields.next("output") {
            Some(path) => Some(PathBuf::from(String::from_utf8(unescape(path.as_bytes()).ok()?).ok()?)),
            None => None,
        };
        let session = match fields.next("session") {
            Some(words) => Some(session(words)?),
            None => None,
        };
        let next = fields.next("next")?.parse().ok()?;
        let (done, hash) = fields.next("done")?.rsplit_once(' ')?;
        let (done, hash) = (extent(done)?, self::hex(hash)?);
        let asked = match fields.next("asked") {
            Some(words) => {
                let (count, wait_ms) = words.split_once(' ')?;
                Some(Asked { count: count.parse().ok()?, wait_ms: wait_ms.parse().ok()? })
            }
            None => None,
        };
        let sound = next > u64::from(asked.is_some());
        let popped = Popped { label, json, null, escape, output, session, next, done, hash, asked };
        (fields.are_over() && sound).then_some(popped)
    }

    /// Whether it was written there.
    pub fn is_to(&self, path: Option<&Path>) -> bool {
        self.output.as_deref() == path
    }
}

impl Account for Popped {
    fn session(&mut self) -> &mut Option<(ClusterId, SessionId)> {
        &mut self.session
    }

    fn seen(&self) -> u64 {
        self.next - 1 - u64::from(self.asked.is_some())
    }

    fn number_from(&mut self, first: u64) {
        self.next = first + u64::from(self.asked.is_some());
    }

    /// The output's path has to be UTF-8.
    fn write(&self) -> String {
        let flags = [self.json, self.null, self.escape].map(u8::from);
        let mut lines = format!("label {}\npop {} {} {}\n", self.label, flags[0], flags[1], flags[2]);
        if let Some(path) = self.output.as_ref().and_then(|path| path.to_str()) {
            let mut escaped = Vec::new();
            escape(path.as_bytes(), &mut escaped);
            lines += &format!("output {}\n", String::from_utf8_lossy(&escaped));
        }
        lines += &self.session.map(session_line).unwrap_or_default();
        lines += &format!("next {}\ndone {} {} {:016x}\n", self.next, self.done.bytes, self.done.items, self.hash);
        if let Some(Asked { count, wait_ms }) = self.asked {
            lines += &format!("asked {count} {wait_ms}\n");
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Slot;
    use quickcheck::quickcheck;

    fn popped(output: &str, session: bool, asked: Option<(u64, u64)>) -> Popped {
        let output = Some(output).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut popped = Popped::new("jobs", Style { escape: true, ..Style::default() }, output);
        let id = SessionId { slot: Slot(9), position: 1, digest: 77 };
        popped.session = session.then_some((ClusterId(5), id));
        (popped.done, popped.next, popped.hash) = (Extent { bytes: 10, items: 2 }, 3, 4);
        popped.asked = asked.map(|(count, wait_ms)| Asked { count, wait_ms });
        popped
    }

    quickcheck! {
        fn it_comes_back(output: String, session: bool, asked: Option<(u64, u64)>) -> bool {
            let popped = popped(&output, session, asked);
            Popped::read(&popped.write()) == Ok(popped)
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = popped("/a\nb", true, Some((4096, u64::MAX))).write();
        for line in good.lines() {
            let less = good.replace(&format!("{line}\n"), "");
            let is_optional = ["output", "session", "asked"].iter().any(|word| line.starts_with(word));
            assert_eq!(Popped::read(&less).is_ok(), is_optional, "{line}");
        }
        assert!(Popped::read(&good.replace("next 3", "next 1")).is_err(), "the pop that was asked has a number");
        assert!(Popped::read("label jobs\ninput 0 0\n").is_err_and(|why| why.contains("push")));
    }
}
