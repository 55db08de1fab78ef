//! Out of the line: who waits for items and will not wait any longer ends the session, and learns whether it was
//! served before that.

use super::{Answer, Ask, Entry, Error, Session};
use crate::wire::operation::SessionOperation;
use std::time::{Duration, Instant};

impl Session {
    /// Ends the session while the one submission there is may still wait for its answer: that answer, if it was given
    /// before the end; `None` if it never will be, or if nobody told so within `patience`.
    pub fn withdraw(mut self, patience: Duration) -> Option<Result<Answer, Error>> {
        if !self.entries.front().is_some_and(|entry| entry.is_done() || entry.may_be_done()) {
            return None;
        }
        let until = Instant::now() + patience;
        let mut end = Vec::new();
        SessionOperation::End.encode(&mut end);
        self.submit_bytes(Ask::Request, end);
        loop {
            // Behind what it ends: with that unanswered and this answered nobody waits any more.
            if let Some(answer) = self.take() {
                return Some(answer);
            }
            if self.entries.get(1).is_none_or(Entry::is_done) || Instant::now() >= until {
                return None;
            }
            self.turn(None, Some(until));
        }
    }
}
