//! How long is waited for what, and what is reported when patience ends: a refusal for now where nothing was done,
//! `unknown-outcome` where something may have been.

use super::{Session, Stage, State};
use crate::client::error::{Done, Error};
use crate::wire::answer::Code;
use std::time::{Duration, Instant};

/// With a timeout of 0 an attempt still gets this long to connect and to be answered.
const ATTEMPT: Duration = Duration::from_secs(2);
/// And so long where the patience of a whole stream of submissions is spent already.
const LAST_ATTEMPT: Duration = Duration::from_millis(50);

impl Session {
    pub(super) fn patience(&self) -> Duration {
        if self.gave_up.is_some() {
            Duration::ZERO
        } else {
            self.timeout
        }
    }

    /// How long the replica in use may take before an attempt counts as made.
    pub(super) fn attempt(&self) -> Duration {
        match self.patience() {
            _ if self.gave_up.is_some() => LAST_ATTEMPT,
            Duration::ZERO => ATTEMPT,
            patience => patience.min(ATTEMPT),
        }
    }

    pub(super) fn silence_max(&self) -> Duration {
        match self.patience() {
            _ if self.gave_up.is_some() => LAST_ATTEMPT,
            Duration::ZERO => self.silence,
            patience => self.silence.min(patience / 2),
        }
    }

    /// Reports what has waited long enough.
    pub(super) fn give_up(&mut self, now: Instant) {
        while self.has_open() && self.is_over(now) {
            if !self.give_up_one() {
                return self.give_up_all(now);
            }
        }
    }

    /// When the oldest that is not done has had its time; never, if it may wait for ever and is with a replica.
    pub(super) fn over_at(&self) -> Option<Instant> {
        let first = &self.entries[(self.open - self.front) as usize];
        let begun = first.since.max(self.progress);
        let begun = if matches!(first.state, State::Sent) { first.ask.waits_from(begun)? } else { begun };
        begun.checked_add(self.patience())
    }

    /// Whether the oldest that is not done has had its time and at least one attempt at every server.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        if self.hopeless >= self.servers.len() {
            return true;
        }
        if self.over_at().is_none_or(|over| now < over) {
            return false;
        }
        let first = &self.entries[(self.open - self.front) as usize];
        let all_tried = self.tried >= self.servers.len();
        match first.state {
            State::Refused(_) => all_tried && self.in_flight == 0,
            _ if all_tried && self.connection.is_none() => true,
            _ if self.retry_at.is_some() => all_tried,
            _ => now >= self.heard + self.attempt(),
        }
    }

    /// Reports the refusal of the oldest alone, if all that waits is certainly not done: its number is free again,
    /// and what follows gets its own attempt. False where that is not so.
    pub(super) fn give_up_one(&mut self) -> bool {
        if self.kept.is_some() || self.in_flight > 0 || self.connection.is_none() {
            return false;
        }
        if self.open_entries().any(|entry| entry.may_be_done()) {
            return false;
        }
        let ticket = self.open;
        let entry = self.entry(ticket);
        let State::Refused(error) = &entry.state else { return false };
        let (error, length) = (error.clone(), entry.bytes.len());
        if error.is(Code::NotPrimary) || error.is(Code::Stopping) {
            return false;
        }
        self.renumber();
        self.settle(ticket, Err(error), length);
        self.requeue();
        self.retry_at = None;
        self.tried = 0;
        self.cautious = true;
        true
    }

    /// Nothing that waits may be done: its numbers are free again, but none below one that is spent is used again.
    pub(super) fn renumber(&mut self) {
        let spent = std::mem::take(&mut self.spent);
        let lowest = self.open_entries().map(|entry| std::mem::take(&mut entry.number)).filter(|&n| n > 0).min();
        self.open_entries().for_each(|entry| entry.spent = false);
        self.next_number = lowest.filter(|_| !spent).unwrap_or(self.next_number);
    }

    pub(super) fn give_up_all(&mut self, now: Instant) {
        let unknown = self.open_entries().any(|entry| entry.may_be_done());
        if !unknown && self.kept.is_none() {
            self.renumber();
        }
        for ticket in self.open..self.front + self.entries.len() as u64 {
            if !self.entry(ticket).is_done() {
                let error = self.verdict(ticket);
                let length = self.entry(ticket).bytes.len();
                self.settle(ticket, Err(error), length);
            }
        }
        self.gave_up = Some(now);
        (self.tried, self.hopeless, self.trouble) = (0, 0, None);
        if unknown && self.kept.is_none() {
            self.abandon_session();
        } else if self.owes() {
            self.disconnect();
        }
        self.retry_at = None;
        self.leave_by = None;
    }

    /// What is reported about something that nobody answered.
    pub(super) fn verdict(&mut self, ticket: u64) -> Error {
        let trouble = self.trouble.clone();
        let server = self.servers[self.at].to_string();
        let seconds = self.patience().max(self.attempt()).as_secs_f32();
        let kept = self.kept.is_some();
        let greeting = self.stage == Stage::Greeting;
        let entry = self.entry(ticket);
        if entry.may_be_done() {
            let why = trouble.map(|e| format!(": {e}")).unwrap_or_default();
            let message = format!("sent, and no answer within {seconds} s; it may have been done{why}");
            return Error::Refused { code: Code::UnknownOutcome, message, done: Done::Unknown };
        }
        // Of what another process may have sent under the same number nothing is certain.
        let done = if kept { Done::Unknown } else { Done::No };
        match (&entry.state, trouble) {
            (State::Refused(Error::Refused { code, message, .. }), _) => {
                Error::Refused { code: *code, message: message.clone(), done }
            }
            (_, Some(Error::Refused { code, message, .. })) => Error::Refused { code, message, done },
            (_, Some(unreachable)) => unreachable,
            (_, None) if greeting => {
                Error::Unreachable { message: format!("no replica could be reached: {server} does not answer") }
            }
            (_, None) => {
                let message = format!("{server} gave no answer within {seconds} s");
                Error::Refused { code: Code::Busy, message, done }
            }
        }
    }
}
