//! What a `push --session` knows of itself: how much of an input was pushed, and under which numbers of which session
//! what may have been sent stands. It is in the session file before anything it names is sent, so whoever goes on from
//! it sends exactly the same again.

use crate::cli::ledger::Account;
use crate::cli::popped::Popped;
use crate::cli::store::{extent, hex, session, session_line, Extent, Fields};
use crate::types::{ClusterId, SessionId};
use std::collections::VecDeque;
use twox_hash::XxHash3_64;

/// What may have been sent under this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    pub number: u64,
    pub extent: Extent,
}

/// How far a push has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    pub label: String,
    /// How the input falls into items: at NULs, and escaped.
    pub null: bool,
    pub escape: bool,
    pub session: Option<(ClusterId, SessionId)>,
    /// The next number in the session.
    pub next: u64,
    /// What was acknowledged, from the input's beginning.
    pub done: Extent,
    /// Items of the input that are none and were passed over.
    pub skipped: u64,
    /// What follows upon it and may have been sent, in this order.
    pub sent: VecDeque<Sent>,
    /// Bytes of the input that are dealt with by all that, and their hash.
    pub taken: u64,
    pub hash: u64,
}

impl Position {
    /// At the beginning of an input.
    pub fn new(label: &str, null: bool, escape: bool) -> Position {
        Position {
            label: label.to_string(),
            null,
            escape,
            session: None,
            next: 1,
            done: Extent::default(),
            skipped: 0,
            sent: VecDeque::new(),
            taken: 0,
            hash: XxHash3_64::oneshot(&[]),
        }
    }

    /// Reads what `write` wrote. Errors say what is wrong with it.
    pub fn read(lines: &str) -> Result<Position, String> {
        if Popped::is_meant(lines) {
            return Err("this belongs to a pop".to_string());
        }
        Position::read_fields(lines).ok_or_else(|| "it is damaged".to_string())
    }

    fn read_fields(lines: &str) -> Option<Position> {
        let mut lines = Fields::of(lines);
        let label = lines.next("label")?.to_string();
        let (null, escape) = match lines.next("input")? {
            "0 0" => (false, false),
            "0 1" => (false, true),
            "1 0" => (true, false),
            "1 1" => (true, true),
            _ => return None,
        };
        let session = match lines.next("session") {
            Some(words) => Some(session(words)?),
            None => None,
        };
        let next = lines.next("next")?.parse().ok()?;
        let done = extent(lines.next("done")?)?;
        let skipped = lines.next("skipped")?.parse().ok()?;
        let mut sent = VecDeque::new();
        while let Some(words) = lines.next("sent") {
            let (number, rest) = words.split_once(' ')?;
            sent.push_back(Sent { number: number.parse().ok()?, extent: extent(rest)? });
        }
        let (taken, hash) = lines.next("taken")?.split_once(' ')?;
        let (taken, hash) = (taken.parse().ok()?, hex(hash)?);
        let position = Position { label, null, escape, session, next, done, skipped, sent, taken, hash };
        (lines.are_over() && position.is_sound()).then_some(position)
    }

    /// Whether its parts fit together.
    fn is_sound(&self) -> bool {
        let first = self.sent.front().map_or(self.next, |sent| sent.number);
        let consecutive = (first..).zip(&self.sent).all(|(number, sent)| sent.number == number);
        let bytes = self.sent.iter().try_fold(self.done.bytes, |sum, sent| sum.checked_add(sent.extent.bytes));
        first > 0
            && consecutive
            && first.checked_add(self.sent.len() as u64) == Some(self.next)
            && bytes <= Some(self.taken)
    }
}

impl Account for Position {
    fn session(&mut self) -> &mut Option<(ClusterId, SessionId)> {
        &mut self.session
    }

    fn seen(&self) -> u64 {
        self.sent.front().map_or(self.next, |first| first.number) - 1
    }

    fn number_from(&mut self, first: u64) {
        self.next = first;
        for sent in &mut self.sent {
            sent.number = self.next;
            self.next += 1;
        }
    }

    fn write(&self) -> String {
        let mut text = format!("label {}\n", self.label);
        text += &format!("input {} {}\n", u8::from(self.null), u8::from(self.escape));
        text += &self.session.map(session_line).unwrap_or_default();
        text +=
            &format!("next {}\ndone {} {}\nskipped {}\n", self.next, self.done.bytes, self.done.items, self.skipped);
        for Sent { number, extent } in &self.sent {
            text += &format!("sent {number} {} {}\n", extent.bytes, extent.items);
        }
        text + &format!("taken {} {:016x}\n", self.taken, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Slot;
    use quickcheck::quickcheck;

    fn position(sent: &[(u16, u16)], session: bool) -> Position {
        let mut position = Position::new("jobs", false, true);
        let id = SessionId { slot: Slot(9), position: 1, digest: 77 };
        position.session = session.then_some((ClusterId(5), id));
        (position.done, position.next) = (Extent { bytes: 10, items: 2 }, 3);
        position.taken = 10;
        for &(bytes, items) in sent {
            let extent = Extent { bytes: bytes.into(), items: items.into() };
            position.sent.push_back(Sent { number: position.next, extent });
            position.next += 1;
            position.taken += extent.bytes;
        }
        position
    }

    quickcheck! {
        fn a_position_comes_back(sent: Vec<(u16, u16)>, session: bool) -> bool {
            let position = position(&sent, session);
            Position::read(&position.write()) == Ok(position)
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = position(&[(5, 1)], true).write();
        for line in good.lines().filter(|line| !line.starts_with("session") && !line.starts_with("sent")) {
            assert!(Position::read(&good.replace(&format!("{line}\n"), "")).is_err(), "{line}");
        }
        let gap = good.replace("sent 3", "sent 4");
        assert!(Position::read(&gap).is_err_and(|why| why.contains("damaged")), "numbers follow upon each other");
        assert!(Position::read("label jobs\npop 0 0 0\n").is_err_and(|why| why.contains("pop")));
    }
}
