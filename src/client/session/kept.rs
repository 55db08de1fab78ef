//! A session that outlasts this process: a file remembers its group, id and the numbers of its requests, so that
//! another process asks again for exactly what is unanswered. Its requests have the numbers that their submitter gives
//! them; nothing is told as seen before the file says so; and it is never given up for another.

use super::{Answer, Ask, Session, Stage};
use crate::client::error::{Done, Error};
use crate::types::{ClusterId, SessionId};
use crate::wire::answer::Code;
use crate::wire::operation::{QueueOperation, Receipt, SessionOperation};

/// What is remembered of it here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub group: ClusterId,
    /// The file has all answers up to here.
    pub seen: u64,
}

impl Session {
    /// The group and the session opened there, once [`Ask::Session`] or a request was answered.
    pub fn opened(&self) -> Option<(ClusterId, SessionId)> {
        (!self.id.is_none() && self.group != ClusterId(0)).then_some((self.group, self.id))
    }

    /// Goes on with this session of this group; `seen` is the number up to which all answers are on file. Whether it
    /// was just opened here or long ago: it is kept for a week after its last request. Nothing may be pending.
    pub fn keep(&mut self, group: ClusterId, id: SessionId, seen: u64) {
        assert!(self.entries.is_empty(), "numbers are given from now on");
        self.kept = Some(Kept { group, seen });
        self.id = id;
        self.next_number = seen + 1;
        if self.stage == Stage::Attached {
            // The replica is told on the connection that there is.
            self.stage = Stage::Welcome;
        }
    }

    /// Leaves the session for one that is yet to be opened. Nothing may be pending.
    pub fn renew(&mut self) {
        assert!(self.entries.is_empty(), "what is pending belongs to a session");
        self.kept = None;
        self.abandon_session();
    }

    /// All answers up to this number are on file.
    pub fn confirm(&mut self, seen: u64) {
        if let Some(kept) = &mut self.kept {
            kept.seen = kept.seen.max(seen);
        }
    }

    /// Has the group keep the session from now on, by a request under this number that changes nothing: to keep it is
    /// ordered in front of that.
    pub fn be_kept(&mut self, number: u64) -> Result<(), Error> {
        let mut nothing = Vec::new();
        QueueOperation::Ack { receipt: Receipt(0) }.encode(&mut nothing);
        self.submit_as(Ask::Request, number, nothing);
        match self.wait() {
            Err(e) if !e.is(Code::NoReceipt) => Err(e),
            _ => Ok(()),
        }
    }

    /// Submits an operation, as this is asked for, under its number; numbers follow upon each other.
    pub fn submit_as(&mut self, ask: Ask, number: u64, operation: Vec<u8>) {
        self.submit_numbered(ask, number, operation);
    }

    /// Ends it, under this number.
    pub fn end_kept(&mut self, number: u64) -> Result<Answer, Error> {
        let mut operation = Vec::new();
        SessionOperation::End.encode(&mut operation);
        self.submit_as(Ask::Request, number, operation);
        self.wait()
    }

    /// The session is gone, and with it the answers to what an earlier process may have sent.
    pub(super) fn give_up_kept(&mut self) {
        let gone = "the session is gone, and with it the answers";
        for ticket in self.open..self.front + self.entries.len() as u64 {
            if !self.entry(ticket).is_done() {
                let done = if self.entry(ticket).may_be_done() { Done::Unknown } else { Done::No };
                let error = Error::Refused { code: Code::Expired, message: gone.to_string(), done };
                let length = self.entry(ticket).bytes.len();
                self.settle(ticket, Err(error), length);
            }
        }
        self.disconnect();
    }
}
