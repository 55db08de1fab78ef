//! What is replicated: deterministic state machines fed by committed operations (DESIGN section 8). No IO, no
//! clock, no map whose order depends on anything but its keys; errors are answers; nothing panics, for a panic on a
//! committed operation would crash every replica for ever.
//!
//! A further one takes a file, a line in [`all`], its byte in `wire::operation::service` and, where it makes the state
//! larger, a line in `wire::operation::grows`. This one counts:
//!
#![doc = "```"]
#![doc = include_str!("example.rs")]
#![doc = "```"]

pub mod chat;
pub mod kv;
pub mod queue;
pub mod stock;

use crate::types::{At, GroupTime, RequestNumber, SessionId};
use crate::wire::answer::{error, Code};
use crate::wire::codec::{DecodeError, Decoded};
use crate::wire::operation::service;

/// Every service behind the byte that picks it, in the order of these bytes, each in its first state. A further
/// service takes a file of its own and a line here.
pub fn all() -> Vec<(u8, Box<dyn Service>)> {
    vec![
        (service::QUEUE, Box::new(queue::Queues::default())),
        (service::CHAT, Box::new(chat::Chat::default())),
        (service::STOCK, Box::new(stock::Stock::default())),
        (service::KV, Box::new(kv::Store::default())),
    ]
}

/// Who asked: the answer goes to whoever waits on this pair, and is stored under it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Who {
    pub session: SessionId,
    pub number: RequestNumber,
}

/// Collects answers: to the operation being applied, or to any earlier one (a waiting pop).
#[derive(Default, Debug)]
pub struct Answers {
    list: Vec<(Who, usize)>,
    bytes: Vec<u8>,
}

impl Answers {
    /// Answers `who` with what `write` appends: a code and its fields (`wire::answer`).
    pub fn answer(&mut self, who: Who, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.list.push((who, self.bytes.len()));
    }

    /// The answers in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (Who, &[u8])> {
        let starts = std::iter::once(0).chain(self.list.iter().map(|&(_, end)| end));
        starts.zip(&self.list).map(|(start, &(who, end))| (who, &self.bytes[start..end]))
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }
}

/// Why something was not done: the code, and a message for people.
pub struct Refusal(pub Code, pub String);

impl Refusal {
    /// Appends it as an answer.
    pub fn put(&self, answer: &mut Vec<u8>) {
        answer.extend_from_slice(&error(self.0, &self.1));
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Refusal {
        Refusal(Code::BadRequest, error.to_string())
    }
}

/// A deterministic state machine.
pub trait Service: Send {
    /// Executes a committed operation; `operation` is what follows the service's byte. Anything malformed is
    /// answered `bad-request`.
    fn apply(&mut self, at: At, who: Who, operation: &[u8], out: &mut Answers);
    /// Appends the answer to a query; `query` is what follows the service's byte.
    fn query(&self, query: &[u8], answer: &mut Vec<u8>);
    /// Begins every slot: does what is due at `at.time`, a bounded part of it where there is much.
    fn tick(&mut self, at: At, out: &mut Answers);
    /// This session is gone: nobody waits for its answers any more.
    fn ended(&mut self, session: SessionId, out: &mut Answers);
    /// This session has no connection for now, or is `here` again: what is answered meanwhile may never be heard.
    fn attended(&mut self, _at: At, _session: SessionId, _here: bool, _out: &mut Answers) {}
    /// The next moment something is due, if anything is: then there must be a slot. Only a hint, which may differ
    /// between replicas, since every slot calls `tick`.
    fn due(&self) -> Option<GroupTime>;
    /// Appends the whole state; equal states write equal bytes.
    fn snapshot(&self, out: &mut Vec<u8>);
    /// Becomes the state that `snapshot` wrote; after an error the state is of no use.
    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()>;
    /// Bytes of memory the state takes, roughly: judged at the door against `--memory-limit`.
    fn memory_bytes(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_stand_in_the_order_of_their_bytes() {
        let bytes: Vec<u8> = all().iter().map(|&(byte, _)| byte).collect();
        assert!(bytes.is_sorted_by(|a, b| a < b) && bytes[0] == service::QUEUE, "{bytes:?}");
    }

    /// The page shows the very code that is run as a test of this documentation.
    #[test]
    fn the_manual_shows_the_example() {
        let code = include_str!("example.rs");
        let begin = code.find("/// Adds up").expect("the service");
        let end = code.find("// What a replica does").expect("what is done with it");
        let page = include_str!("../../man/ftq.7");
        assert!(page.contains(code[begin..end].trim_end()), "ftq(7) shows another example");
    }
}
