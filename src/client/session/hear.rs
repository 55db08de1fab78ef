//! What replicas say: answers, refusals, and that a session is gone.

use super::reach::{LEAVE, PAUSE_MIN, SILENCE};
use super::{text, Session, Stage, State};
use crate::client::connection::Connection;
use crate::client::error::{is_for_now, Done, Error};
use crate::types::{ClusterId, SessionId, Slot};
use crate::wire::answer::{split, Code};
use crate::wire::client::{kind, ToClient};
use std::io;
use std::time::Instant;

impl Session {
    /// Reads what the replica says.
    pub(super) fn hear(&mut self) {
        let now = Instant::now();
        self.heard = now;
        let Some(mut connection) = self.connection.take() else { return };
        let result = self.read(&mut connection, now);
        self.connection = Some(connection);
        if let Err(e) = result {
            self.lost(&e, now);
        } else if self.expired && self.in_flight == 0 {
            self.forget_session();
        }
    }

    pub(super) fn read(&mut self, connection: &mut Connection, now: Instant) -> io::Result<()> {
        let more = connection.fill();
        while let Some(frame) = connection.next_frame()? {
            self.on_frame(frame, now);
        }
        more.map(|_| ())
    }

    pub(super) fn on_frame(&mut self, frame: ToClient<'_>, now: Instant) {
        match frame {
            ToClient::Welcome { cluster, .. } => self.on_welcome(cluster, now),
            ToClient::Opened { token, session } => {
                if token == self.token && self.stage == Stage::Opening {
                    self.id = session;
                    self.next_number = 1;
                    self.stage = Stage::Attached;
                    if self.group == ClusterId(0) {
                        // It was founded since it welcomed us: the next welcome names it.
                        self.leave_by = Some(now);
                    }
                }
            }
            ToClient::Reply { number, slot, answer } => {
                let ticket = self.offset.wrapping_add(number.0);
                match split(answer) {
                    // A request of a session that is not in the table is never executed.
                    Ok((Code::Expired, message)) => self.on_expired(ticket, text(message)),
                    Ok((code, message)) if is_for_now(code) && self.kept.is_none() => {
                        self.on_spent(ticket, Error::refused(code, text(message)), now);
                    }
                    _ => self.on_answer(ticket, slot, answer, now),
                }
            }
            ToClient::Found { number, slot, answer } => self.on_answer(number, slot, answer, now),
            ToClient::Told { number, json } => {
                if self.is_in_flight(number) {
                    let bytes = &mut self.entry(number).bytes;
                    let length = bytes.len();
                    bytes.clear();
                    bytes.extend_from_slice(json.as_bytes());
                    self.finish(number, Ok(Slot(0)), length, now);
                }
            }
            ToClient::Refused { refused, number, code, maybe_done, message } => {
                let done = if maybe_done { Done::Unknown } else { Done::No };
                self.on_refused(refused, number, Error::Refused { code, message: text(message.as_bytes()), done }, now);
            }
            ToClient::Pong { .. } => self.pinged = false,
        }
    }

    fn on_welcome(&mut self, group: ClusterId, now: Instant) {
        self.group = group;
        self.stage = Stage::Welcome;
        match &self.kept {
            Some(kept) if group != ClusterId(0) && group != kept.group => {
                let server = &self.servers[self.at];
                let message = format!("{server} belongs to group {group}, the session to group {}", kept.group);
                self.trouble = Some(Error::OtherGroup { message });
                self.stage = Stage::Greeting;
                self.hopeless += 1;
                self.leave_by = Some(now);
            }
            _ => self.hopeless = 0,
        }
    }

    pub(super) fn is_in_flight(&self, ticket: u64) -> bool {
        let index = ticket.wrapping_sub(self.front) as usize;
        self.entries.get(index).is_some_and(|entry| matches!(entry.state, State::Sent))
    }

    pub(super) fn on_answer(&mut self, ticket: u64, slot: Slot, answer: &[u8], now: Instant) {
        if !self.is_in_flight(ticket) {
            return;
        }
        let entry = self.entry(ticket);
        let length = entry.bytes.len();
        let result = match split(answer) {
            Ok((Code::Ok, body)) => {
                entry.bytes.clear();
                entry.bytes.extend_from_slice(body);
                Ok(slot)
            }
            Ok((code, message)) => Err(Error::refused(code, text(message))),
            Err(e) => {
                let message = format!("the replica's answer makes no sense: {e}");
                Err(Error::Refused { code: Code::Internal, message, done: Done::Unknown })
            }
        };
        self.finish(ticket, result, length, now);
    }

    /// Something in flight has its result; `length` is that of its operation.
    pub(super) fn finish(&mut self, ticket: u64, result: Result<Slot, Error>, length: usize, now: Instant) {
        self.in_flight -= 1;
        self.progress = now;
        (self.tried, self.pause, self.silence) = (0, PAUSE_MIN, SILENCE);
        self.cautious = false;
        self.gave_up = None;
        self.trouble = None;
        self.settle(ticket, result, length);
    }

    pub(super) fn settle(&mut self, ticket: u64, result: Result<Slot, Error>, length: usize) {
        self.entry(ticket).state = State::Done(result);
        self.pending_bytes -= length;
        while self.has_open() && self.entries[(self.open - self.front) as usize].is_done() {
            self.open += 1;
        }
        self.cursor = self.cursor.max(self.open);
    }

    pub(super) fn on_refused(&mut self, refused: u8, number: u64, why: Error, now: Instant) {
        let Error::Refused { code, done, .. } = why else { return };
        let ticket = match refused {
            kind::REQUEST => self.offset.wrapping_add(number),
            kind::QUERY | kind::ADMIN => number,
            kind::PING => {
                self.pinged = false;
                return self.turned_away(code, why, now);
            }
            _ => return self.on_door_closed(code, why, now),
        };
        if !self.is_in_flight(ticket) {
            return;
        }
        if code == Code::Expired {
            return self.on_expired(ticket, why.message().to_string());
        }
        let entry = self.entry(ticket);
        if done == Done::No {
            entry.copies -= 1;
        }
        if !is_for_now(code) && code != Code::UnknownOutcome {
            let length = entry.bytes.len();
            return self.finish(ticket, Err(why), length, now);
        }
        entry.state = State::Refused(why.clone());
        self.in_flight -= 1;
        self.turned_away(code, why, now);
    }

    /// The request was refused when it was applied, and its number has that answer for ever: no copy of it will be
    /// executed, nor any later request before this refusal is seen.
    pub(super) fn on_spent(&mut self, ticket: u64, why: Error, now: Instant) {
        let Error::Refused { code, .. } = why else { return };
        if !self.is_in_flight(ticket) {
            return;
        }
        let entry = self.entry(ticket);
        entry.copies = 0;
        entry.spent = true;
        entry.state = State::Refused(why.clone());
        self.spent = true;
        self.in_flight -= 1;
        self.turned_away(code, why, now);
    }

    /// HELLO, OPEN or USE was refused.
    pub(super) fn on_door_closed(&mut self, code: Code, why: Error, now: Instant) {
        if is_for_now(code) {
            self.stage = Stage::Welcome;
            self.turned_away(code, why, now);
        } else if code == Code::Expired {
            self.expired = true;
        } else {
            self.hopeless += 1;
            self.trouble = Some(why);
            self.leave_by = Some(now);
        }
    }

    /// A refusal for now: another replica, or the same after a pause.
    pub(super) fn turned_away(&mut self, code: Code, why: Error, now: Instant) {
        self.trouble = Some(why);
        if matches!(code, Code::NotPrimary | Code::Stopping) && self.servers.len() > 1 {
            self.leave_by.get_or_insert(now + LEAVE);
        } else if self.retry_at.is_none() {
            self.tried += 1;
            self.pause_until_retry(now);
        }
    }

    /// The session is gone. This copy was not executed; an earlier one, sent elsewhere, may have been.
    pub(super) fn on_expired(&mut self, ticket: u64, message: String) {
        if !self.is_in_flight(ticket) {
            return;
        }
        self.expired = true;
        self.in_flight -= 1;
        let entry = self.entry(ticket);
        entry.copies -= 1;
        entry.state = State::Queued;
        self.trouble = Some(Error::refused(Code::Expired, message));
    }

    /// Nothing is in flight under the expired session: what may have been done is unknown, the rest is asked anew.
    pub(super) fn forget_session(&mut self) {
        self.expired = false;
        self.trouble = None;
        if self.kept.is_some() {
            return self.give_up_kept();
        }
        let unknown = "the session is gone, and with it the answer; it may have been done";
        for ticket in self.open..self.front + self.entries.len() as u64 {
            let entry = self.entry(ticket);
            if !entry.is_done() && entry.may_be_done() {
                let error = Error::Refused { code: Code::Expired, message: unknown.to_string(), done: Done::Unknown };
                let length = entry.bytes.len();
                self.settle(ticket, Err(error), length);
            }
        }
        self.abandon_session();
        self.tried += 1;
        self.pause_until_retry(Instant::now());
    }

    /// Numbers begin anew, in a session yet to be opened.
    pub(super) fn abandon_session(&mut self) {
        self.disconnect();
        self.id = SessionId::NONE;
        self.token = self.token.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(2) | 1;
        self.next_number = 1;
        self.spent = false;
        self.open_entries().for_each(|entry| (entry.number, entry.spent) = (0, false));
    }

    /// The connection broke.
    pub(super) fn lost(&mut self, e: &io::Error, now: Instant) {
        if !self.has_open() {
            return self.disconnect();
        }
        if e.kind() == io::ErrorKind::Unsupported {
            // The same server has a stream, on which what is unanswered is asked again.
            self.datagrams = false;
            return self.disconnect();
        }
        let server = &self.servers[self.at];
        let why = if e.kind() == io::ErrorKind::InvalidData {
            self.hopeless += 1;
            Error::refused(Code::Version, format!("{server} does not speak this version of ftq's protocol: {e}"))
        } else if self.stage == Stage::Greeting {
            Error::Unreachable { message: format!("no replica could be reached: {server}: {e}") }
        } else {
            Error::refused(Code::Stopping, format!("{server}: {e}"))
        };
        self.fail(why, now);
    }
}
