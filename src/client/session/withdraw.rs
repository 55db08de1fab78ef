//! Out of the line: who waits for items and will not wait any longer ends the session, and learns whether it was
//! served before that.

use super::{Answer, Ask, Entry, Error, Session, State};
use crate::wire::operation::SessionOperation;
use std::time::{Duration, Instant};

/// What became of the submission that may have waited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Withdrawn {
    /// It was answered before the session ended.
    Served(Result<Answer, Error>),
    /// It never will be.
    Unserved,
    /// Nobody told in time.
    Untold,
}

impl Session {
    /// Ends the session while the one submission there is may still wait for its answer.
    pub fn withdraw(mut self, patience: Duration) -> Withdrawn {
        let is_kept = self.kept.is_some();
        if !self.entries.front().is_some_and(|entry| entry.is_done() || entry.may_be_done() || is_kept) {
            return Withdrawn::Unserved;
        }
        let until = Instant::now() + patience;
        let mut end = Vec::new();
        SessionOperation::End.encode(&mut end);
        self.submit_bytes(Ask::Request, end);
        loop {
            // Behind what it ends: with that unanswered and this answered nobody waits any more.
            if let Some(answer) = self.take() {
                return Withdrawn::Served(answer);
            }
            match self.entries.get(1).filter(|end| end.is_done()) {
                Some(Entry { state: State::Done(Ok(_)), .. }) => return Withdrawn::Unserved,
                Some(_) => return Withdrawn::Untold,
                None if Instant::now() >= until => return Withdrawn::Untold,
                None => self.turn(None, Some(until)),
            };
        }
    }
}
