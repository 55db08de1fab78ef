//! A service of its own, from first to last, and what a replica does with it.

use ftq::replica::machine::{Machine, Replies};
use ftq::service::{Answers, Service, Who};
use ftq::types::{At, GroupTime, RequestNumber, SessionId, Slot};
use ftq::wire::answer::{error, Code};
use ftq::wire::bundle::{session, Bundler};
use ftq::wire::codec::{Decoded, Put, Reader};

/// Adds up what it is told, and answers the sum.
#[derive(Default)]
struct Counter {
    sum: u64,
}

impl Service for Counter {
    fn apply(&mut self, _at: At, who: Who, operation: &[u8], out: &mut Answers) {
        let by = Reader::new(operation).varint("number");
        out.answer(who, |answer| match by {
            Ok(by) => {
                self.sum = self.sum.saturating_add(by);
                self.query(&[], answer);
            }
            Err(e) => answer.extend(error(Code::BadRequest, &e.to_string())),
        });
    }
    fn query(&self, _query: &[u8], answer: &mut Vec<u8>) {
        answer.put_u8(Code::Ok as u8);
        answer.put_varint(self.sum);
    }
    fn tick(&mut self, _at: At, _out: &mut Answers) {}
    fn ended(&mut self, _session: SessionId, _out: &mut Answers) {}
    fn due(&self) -> Option<GroupTime> {
        None
    }
    fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u64(self.sum);
    }
    fn restore(&mut self, snapshot: &[u8]) -> Decoded<()> {
        let mut r = Reader::new(snapshot);
        self.sum = r.u64("sum")?;
        r.end("sum")
    }
    fn memory_bytes(&self) -> u64 {
        8
    }
}

// What a replica does with it: slots in, answers out.
let mut machine = Machine::with(vec![(100, Box::<Counter>::default())]);
let mut slot = |session: SessionId, number: u64, operation: &[u8]| {
    let (mut bundler, mut replies) = (Bundler::default(), Replies::default());
    bundler.push(session, RequestNumber(number), RequestNumber(0), operation);
    machine.apply(machine.applied().next(), GroupTime(0), &bundler.take(), &mut replies);
    let answer = replies.iter().map(|reply| reply.answer.to_vec()).next();
    answer.expect("it is answered at once")
};
let opened = slot(SessionId::NONE, 1, &[0, 1]);
let id = session(&mut Reader::new(&opened[1..])).expect("a session's id");
assert_eq!(slot(id, 1, &[100, 5]), [0, 5]);
assert_eq!(slot(id, 2, &[100, 2]), [0, 7]);
// Sent again, it is answered again, and not executed.
assert_eq!(slot(id, 1, &[100, 5]), [0, 5]);
assert_eq!(slot(id, 3, &[100])[0], Code::BadRequest as u8);
let mut sum = Vec::new();
machine.query(&[100, 128], &mut sum);
assert_eq!((machine.applied(), sum), (Slot(5), vec![0, 7]));
