//! Which replica is spoken to, and when the next one is tried: on a failure, a silence, or a refusal to serve at all.

use super::{Ask, Session, Stage, State};
use crate::client::connection::Connection;
use crate::client::error::Error;
use crate::wire::answer::Code;
use crate::wire::client::ToReplica;
use std::time::{Duration, Instant};

/// A connection attempt to one address takes no longer than this while there are other servers.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A replica that owes answers and says nothing for so long, not even that it still serves when it is asked half way,
/// is left for the next; doubled with each in vain.
pub(super) const SILENCE: Duration = Duration::from_secs(1);
/// One that says it serves and answers nothing else for so long is left all the same.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long answers still under way are waited for before a replica that is not primary is left.
pub(super) const LEAVE: Duration = Duration::from_millis(200);
/// The pause after all servers were tried in vain; doubled each time.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

impl Session {
    /// Connects if nothing is connected and no pause is on.
    pub(super) fn reach(&mut self, now: Instant) {
        if let Some(by) = self.leave_by {
            if self.in_flight == 0 || now >= by {
                self.leave(now);
            }
        } else if self.doubts_at().is_some_and(|at| now >= at) {
            self.doubt(now);
        }
        if self.connection.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        let patience = match self.gave_up {
            Some(_) => self.attempt(),
            None if self.servers.len() > 1 => CONNECT_MAX,
            None => CONNECT_MAX.max(self.patience()),
        };
        // Each server at most once: after the last of them a pause is on.
        while self.connection.is_none() && self.retry_at.is_none() {
            let connect = if self.datagrams { Connection::by_datagrams } else { Connection::connect };
            match connect(&self.servers[self.at], patience) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.stage = Stage::Greeting;
                    self.heard = Instant::now();
                    self.connected = self.heard;
                    self.pinged = false;
                }
                Err(e) => {
                    let message = format!("no replica could be reached: {}: {e}", self.servers[self.at]);
                    self.fail(Error::Unreachable { message }, Instant::now());
                }
            }
        }
    }

    /// When something is to be done about the present replica if it goes on saying nothing; nothing ever is where it
    /// owes nothing, or is the only one.
    pub(super) fn doubts_at(&self) -> Option<Instant> {
        let silence =
            if self.pinged || self.stage == Stage::Greeting { self.silence_max() } else { self.silence_max() / 2 };
        let silent = self.heard + silence;
        let doubts = self.answer_by().map_or(silent, |answer| answer.min(silent));
        (self.owes() && (self.servers.len() > 1 || self.is_waiting())).then_some(doubts)
    }

    /// Whether the oldest that is not done may rightly wait, and is with a replica.
    fn is_waiting(&self) -> bool {
        let first = self.entries.get((self.open - self.front) as usize);
        first.is_some_and(|first| matches!((first.ask, &first.state), (Ask::Waiting(_), State::Sent)))
    }

    /// When the present replica should have answered the oldest that is not done.
    fn answer_by(&self) -> Option<Instant> {
        let begun = self.progress.max(self.connected);
        let first = self.entries.get((self.open - self.front) as usize);
        let begun = first.map_or(Some(begun), |first| first.ask.waits_from(begun))?;
        begun.checked_add(ANSWER_MAX)
    }

    /// The present replica owes answers and was silent: asks it whether it still serves, or leaves it.
    fn doubt(&mut self, now: Instant) {
        let late = self.answer_by().is_some_and(|answer| now >= answer);
        let silent = late || now >= self.heard + self.silence_max();
        if let (false, Some(connection)) = (silent, &mut self.connection) {
            connection.send(&ToReplica::Ping { number: 0 });
            self.pinged = true;
            return;
        }
        self.silence *= 2;
        let silent = Error::refused(Code::Busy, format!("{} does not answer", self.servers[self.at]));
        self.fail(silent, now);
    }

    /// The present server is of no use now: remembers why and goes on to the next, after a pause once all were tried.
    pub(super) fn fail(&mut self, why: Error, now: Instant) {
        // A refusal says more than a server that is not there or says nothing.
        let says_little = matches!(why, Error::Unreachable { .. }) || why.is(Code::Busy);
        if !(says_little && matches!(self.trouble, Some(Error::Refused { .. } | Error::OtherGroup { .. }))) {
            self.trouble = Some(why);
        }
        self.leave(now);
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.disconnect();
        self.at = (self.at + 1) % self.servers.len();
        self.tried += 1;
        if self.tried % self.servers.len() == 0 {
            self.pause_until_retry(now);
        }
    }

    pub(super) fn pause_until_retry(&mut self, now: Instant) {
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Drops the connection: what was sent on it and not answered waits to be sent again.
    pub(super) fn disconnect(&mut self) {
        let now = Instant::now();
        if self.is_waiting() && now >= self.connected + SILENCE {
            // It waited for long, and rightly so: patience begins when that is over.
            self.progress = now;
        }
        self.connection = None;
        self.stage = Stage::Greeting;
        self.leave_by = None;
        self.requeue();
        self.in_flight = 0;
    }

    /// All that is not done waits to be sent, from the lowest ticket on.
    pub(super) fn requeue(&mut self) {
        self.open_entries().for_each(|entry| entry.state = State::Queued);
        self.cursor = self.open;
    }
}
