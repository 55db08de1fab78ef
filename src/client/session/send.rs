//! What is sent, in which order, and under which number.

use super::{Ask, Session, Stage, State};
use crate::client::connection::Connection;
use crate::limits::SESSION_WINDOW;
use crate::types::{RequestNumber, Slot};
use crate::wire::client::ToReplica;
use std::time::Instant;

/// Bytes encoded ahead of what the kernel took.
const AHEAD_BYTES_MAX: usize = 512 << 10;

impl Session {
    pub(super) fn send_ready(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| now >= at) && self.in_flight == 0 {
            self.retry_at = None;
            self.requeue();
        }
        if self.spent && self.in_flight == 0 && !self.open_entries().any(|entry| entry.may_be_done()) {
            self.renumber();
            self.requeue();
        }
        if self.connection.is_none() || self.retry_at.is_some() || self.leave_by.is_some() {
            return;
        }
        if !self.owes() {
            self.heard = now;
        }
        while self.stage != Stage::Greeting && self.send_next(now) {}
        let flushed = self.connection.as_mut().map_or(Ok(()), Connection::flush);
        if let Err(e) = flushed {
            self.lost(&e, now);
        }
    }

    /// Sends what the cursor is at, or passes over it. False when nothing more can be sent now.
    pub(super) fn send_next(&mut self, now: Instant) -> bool {
        let ticket = self.cursor;
        if ticket >= self.front + self.entries.len() as u64 || self.cautious && self.in_flight > 0 {
            return false;
        }
        let entry = &self.entries[(ticket - self.front) as usize];
        if matches!(entry.state, State::Sent | State::Done(_)) {
            self.cursor += 1;
            return true;
        }
        if self.spent {
            // What was refused, or never sent, waits until all that may be done has been refused as well.
            if entry.ask.is_request() && (entry.spent || entry.copies == 0) {
                self.cursor += 1;
                return true;
            } else if !entry.ask.is_request() {
                return false;
            }
        }
        let is_request = entry.ask.is_request();
        let needs_session = is_request || entry.ask == Ask::Session;
        // What is in flight lies between `open` and the cursor, and is all of one kind.
        let other_kind = self.entries[(self.open - self.front) as usize].ask.is_request() != is_request;
        if self.in_flight > 0 && other_kind || needs_session && !self.is_attached() {
            return false;
        }
        if needs_session && !is_request {
            (self.progress, self.tried, self.gave_up, self.trouble) = (now, 0, None, None);
            self.settle(ticket, Ok(Slot(0)), 0);
            return true;
        }
        if self.connection.as_ref().is_some_and(|c| c.unsent_bytes() > AHEAD_BYTES_MAX) {
            return false;
        }
        if is_request && !self.number(ticket) {
            return false;
        }
        self.put(ticket);
        true
    }

    /// Whether requests may be sent; says USE or OPEN where that is still to be done.
    pub(super) fn is_attached(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        match self.stage {
            Stage::Attached => !self.expired,
            Stage::Greeting | Stage::Opening => false,
            Stage::Welcome if self.id.is_none() => {
                connection.send(&ToReplica::Open { token: self.token });
                self.stage = Stage::Opening;
                false
            }
            Stage::Welcome => {
                connection.send(&ToReplica::Use { session: self.id, keep: self.kept.is_some() });
                self.stage = Stage::Attached;
                true
            }
        }
    }

    /// Gives a request its number. False while it would reach beyond the session's window.
    pub(super) fn number(&mut self, ticket: u64) -> bool {
        let seen = self.seen();
        let next = self.next_number;
        let entry = self.entry(ticket);
        let number = if entry.number == 0 { next } else { entry.number };
        if number - seen > SESSION_WINDOW {
            return false;
        }
        entry.number = number;
        self.next_number = self.next_number.max(number + 1);
        self.offset = ticket.wrapping_sub(number);
        true
    }

    /// The number up to which all requests are answered.
    pub(super) fn seen(&self) -> u64 {
        let first = self.entries.get((self.open - self.front) as usize);
        let seen = match first {
            Some(entry) if entry.number > 0 => entry.number - 1,
            _ => self.next_number - 1,
        };
        self.kept.as_ref().map_or(seen, |kept| seen.min(kept.seen))
    }

    pub(super) fn put(&mut self, ticket: u64) {
        let seen = RequestNumber(self.seen());
        let entry = &mut self.entries[(ticket - self.front) as usize];
        let connection = self.connection.as_mut().expect("asked by the caller");
        connection.send(&match entry.ask {
            Ask::Request | Ask::Waiting(_) | Ask::Session => {
                ToReplica::Request { number: RequestNumber(entry.number), seen, operation: &entry.bytes }
            }
            Ask::Query => ToReplica::Query { number: ticket, stale: false, query: &entry.bytes },
            Ask::StaleQuery => ToReplica::Query { number: ticket, stale: true, query: &entry.bytes },
            Ask::Admin(what) => ToReplica::Admin { number: ticket, what },
        });
        entry.state = State::Sent;
        entry.copies += 1;
        self.in_flight += 1;
        self.cursor = ticket + 1;
    }
}
