//! What clients ask: which request is let in, which is told no, and how reads are answered.

use std::collections::VecDeque;

use crate::marks;
use crate::replica::door::Refusal;
use crate::replica::read::Read;
use crate::replica::{Outbox, Replica};
use crate::types::{ClientId, RequestNumber};
use crate::wire::answer::Code;
use crate::wire::client::{kind, Admin, ToClient, ToReplica};
use crate::wire::datagram::Frame;
use crate::wire::operation::{grows, is_query};

impl Replica {
    pub(super) fn on_frame(&mut self, client: ClientId, frame: &[u8], out: &mut Outbox) {
        let Ok(frame) = ToReplica::decode(frame) else {
            let message = "this is not a frame of this protocol".into();
            self.door.refuse(client, 0, 0, &Refusal { code: Code::BadRequest, message });
            return out.hang_up.push(client);
        };
        let greeted = self.door.is_greeted(client);
        match frame {
            ToReplica::Hello { version } => {
                if !self.door.hello(client, version, self.meta.cluster, self.config.id) {
                    out.hang_up.push(client);
                }
            }
            _ if !greeted => out.hang_up.push(client),
            ToReplica::Open { token } => match self.refusal() {
                Some(refusal) => self.door.refuse(client, kind::OPEN, token, &refusal),
                None => self.door.open(client, token, self.message_bytes()),
            },
            ToReplica::Use { session, keep } => self.door.use_session(client, session, keep),
            ToReplica::Request { number, seen, operation } => self.on_request(client, number, seen, operation),
            ToReplica::Query { number, stale, query } => self.on_query(client, number, stale, query),
            ToReplica::Admin { number, what } => {
                let json = match what {
                    Admin::Status => self.status(),
                    Admin::Members => self.members(),
                    Admin::Ready => self.ready(),
                };
                self.door.say(client, &ToClient::Told { number, json: &json.to_string() });
            }
            ToReplica::Ping { number } => match self.refusal() {
                Some(refusal) => self.door.refuse(client, kind::PING, number, &refusal),
                None => self.door.say(client, &ToClient::Pong { number }),
            },
        }
    }

    fn on_request(&mut self, client: ClientId, number: RequestNumber, seen: RequestNumber, operation: &[u8]) {
        let full = grows(operation) && self.machine.memory_bytes() > self.config.memory_limit_bytes;
        let refusal = if is_query(operation) || operation.is_empty() {
            Some(Refusal { code: Code::BadRequest, message: "this is no operation".into() })
        } else if full {
            let message = format!("the state takes more than --memory-limit {}", self.config.memory_limit_bytes);
            Some(Refusal { code: Code::Full, message })
        } else {
            self.refusal()
        };
        let admitted = match refusal.or_else(|| self.door.must_wait(client, number, seen)) {
            Some(refusal) => Err(refusal),
            None => self.door.session_of(client),
        };
        match admitted {
            Ok(session) => self.door.request(client, session, number, seen, operation, self.message_bytes()),
            Err(refusal) => self.door.refuse(client, kind::REQUEST, number.0, &refusal),
        }
    }

    fn on_query(&mut self, client: ClientId, number: u64, stale: bool, query: &[u8]) {
        let read = Read { client, number, query: query.to_vec() };
        if !is_query(query) {
            let refusal = Refusal { code: Code::BadRequest, message: "this is no query".into() };
            return self.door.refuse(client, kind::QUERY, number, &refusal);
        }
        let full = || Refusal { code: Code::Busy, message: "too many reads wait for their answers".into() };
        match self.refusal().filter(|_| !stale).or_else(|| self.reads.is_full().then(full)) {
            Some(refusal) => self.door.refuse(client, kind::QUERY, number, &refusal),
            None if stale => self.reads.push_settled(read),
            None => self.reads.push(read),
        }
    }

    fn answer_read(&mut self, read: Read) {
        let mut answer = Vec::new();
        self.machine.query(&read.query, &mut answer);
        let found = ToClient::Found { number: read.number, slot: self.machine.applied(), answer: &answer };
        self.door.say(read.client, &found);
    }

    /// From now on nothing is taken: whoever waits here is told, and what was read is certainly not done.
    pub(super) fn close_door(&mut self, refusal: &Refusal) {
        for read in self.reads.give_up() {
            self.door.refuse(read.client, kind::QUERY, read.number, refusal);
        }
        self.door.close(refusal);
    }

    /// Why this replica takes no requests, if it does not, as of the last turn.
    fn refusal(&mut self) -> Option<Refusal> {
        if self.refusing.is_some() && self.group.regular().is_some() {
            self.marks.push(marks::REFUSED_MISSING);
        }
        self.refusing.clone()
    }

    /// Bytes of requests that fit one message today.
    pub(super) fn message_bytes(&self) -> usize {
        self.group.regular().map_or(crate::limits::DATAGRAM_SIZES[0], |regular| regular.message_bytes())
    }

    pub(super) fn ask_and_answer_reads(&mut self) {
        if let Some(own) = self.own_durable() {
            let regular = self.group.regular().expect("only a member with rank counts itself");
            if let Some(number) = self.reads.ask(self.now, &regular.view, regular.rank, own) {
                self.group.tell_all(Frame::Ask { number });
            }
        }
        self.reads.settle(self.machine.applied());
        // A client that does not read its answers waits for more of them, so what is kept for it stays bounded.
        let mut waiting = VecDeque::new();
        while let Some(read) = self.reads.next_ready() {
            if self.door.takes_answers(read.client) {
                self.answer_read(read);
            } else {
                waiting.push_back(read);
            }
        }
        self.reads.put_back(waiting);
    }

    /// Whether a read waits only for its answer to be made.
    pub(super) fn has_answerable_read(&self) -> bool {
        self.reads.ready_clients().any(|client| self.door.takes_answers(client))
    }
}
