//! Sessions and services as one deterministic state machine: committed slots in, answers out. Replicas that applied
//! the same slots have the same state, byte for byte (I1), and gave the same answers.
//!
//! Beside the digest of its history it keeps one of its answers, which replicas compare: so a machine that does not
//! do what the others do is found out.

use crate::replica::session::{Admission, Place, Sessions, EXPIRED};
use crate::service::{self, Answers, Service, Who};
use crate::types::{At, Digest, GroupTime, RequestNumber, SessionId, Slot};
use crate::wire::answer::{error, Code};
use crate::wire::bundle::{put_session, session, Bundle};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use crate::wire::digest::{answers_digest, slot_digest};
use crate::wire::operation::{service as byte, SessionOperation};
use std::fmt;

const SNAPSHOT_VERSION: u8 = 1;
/// Sessions that one slot forgets at most because their terms are over.
const EXPIRED_STEP: usize = 64;

/// The answers of slots, one behind the other in one buffer. Whoever reads them clears it.
#[derive(Default, Debug)]
pub struct Replies {
    bytes: Vec<u8>,
}

/// An answer and whom it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply<'a> {
    /// `SessionId::NONE` for an opening.
    pub session: SessionId,
    /// For an opening: the client's token.
    pub number: RequestNumber,
    /// Where the request was executed, or answered if later.
    pub slot: Slot,
    /// As `wire::answer` has it.
    pub answer: &'a [u8],
}

impl Replies {
    fn push(&mut self, who: Who, slot: Slot, answer: &[u8]) {
        put_session(&mut self.bytes, who.session);
        self.bytes.put_u64(who.number.0);
        self.bytes.put_u64(slot.0);
        self.bytes.put_u32(answer.len() as u32);
        self.bytes.extend_from_slice(answer);
    }

    /// The answers in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = Reply<'_>> {
        let mut r = Reader::new(&self.bytes);
        // Only `push` writes here: it ends where the bytes do.
        std::iter::from_fn(move || {
            let session = session(&mut r).ok()?;
            let number = RequestNumber(r.u64("number").ok()?);
            let slot = Slot(r.u64("slot").ok()?);
            let length = r.u32("length").ok()?;
            Some(Reply { session, number, slot, answer: r.take(length as usize, "answer").ok()? })
        })
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// The replicated state.
pub struct Machine {
    applied: Slot,
    /// The group time of the last slot. Never falls.
    time: GroupTime,
    digest: Digest,
    answers_digest: u64,
    sessions: Sessions,
    /// Each behind the byte that picks it.
    services: Vec<(u8, Box<dyn Service>)>,
    /// What a service has just answered. Empty between slots.
    answers: Answers,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Machine({} at {}, digest {:016x})", self.applied, self.time, self.digest.0)
    }
}

impl Default for Machine {
    fn default() -> Machine {
        Machine::new()
    }
}

impl Machine {
    /// The state before the first slot.
    pub fn new() -> Machine {
        Machine {
            applied: Slot(0),
            time: GroupTime(0),
            digest: Digest(0),
            answers_digest: 0,
            sessions: Sessions::default(),
            services: service::all(),
            answers: Answers::default(),
        }
    }

    /// The last slot applied.
    pub fn applied(&self) -> Slot {
        self.applied
    }

    /// The digest of the history up to the last slot.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The digest of the answers up to the last slot.
    pub fn answers_digest(&self) -> u64 {
        self.answers_digest
    }

    /// The group time of the last slot.
    pub fn time(&self) -> GroupTime {
        self.time
    }

    /// When something is due and a slot must come, if only an empty one.
    pub fn due(&self) -> Option<GroupTime> {
        let services = self.services.iter().filter_map(|(_, service)| service.due());
        services.chain(self.sessions.due()).min()
    }

    /// Bytes of memory the state takes, roughly.
    pub fn memory_bytes(&self) -> u64 {
        self.sessions.memory_bytes() + self.services.iter().map(|(_, service)| service.memory_bytes()).sum::<u64>()
    }

    /// Applies a slot, which must be the next one; `operations` are its bundles, one behind the other. Answers are
    /// appended to `replies`. Bytes that make no sense end the slot.
    pub fn apply(&mut self, slot: Slot, time: GroupTime, operations: &[u8], replies: &mut Replies) {
        assert_eq!(slot, self.applied.next(), "slots are applied in their order");
        let begin = replies.bytes.len();
        let mut at = At { slot, position: 0, time: self.time.max(time) };
        self.tick(at, replies);
        let mut r = Reader::new(operations);
        while !r.is_empty() {
            let Ok(bundle) = Bundle::decode(&mut r) else { break };
            match self.sessions.find(bundle.session) {
                Some(place) => self.apply_bundle(&mut at, &bundle, place, replies),
                None => self.apply_strange(&mut at, &bundle, replies),
            }
        }
        self.applied = slot;
        self.time = at.time;
        self.digest = slot_digest(self.digest, slot, time, &[operations]);
        self.answers_digest = answers_digest(self.answers_digest, slot, &replies.bytes[begin..]);
    }

    /// Does what is due.
    fn tick(&mut self, at: At, replies: &mut Replies) {
        for _ in 0..EXPIRED_STEP {
            let Some((id, place)) = self.sessions.overdue(at.time) else { break };
            self.end(id, place, at.slot, replies);
        }
        self.services.iter_mut().for_each(|(_, service)| service.tick(at, &mut self.answers));
        self.deliver(at.slot, replies);
    }

    /// Executes the requests of a session that is in the table.
    fn apply_bundle(&mut self, at: &mut At, bundle: &Bundle<'_>, place: Place, replies: &mut Replies) {
        self.sessions.heard(place, at.time);
        for (number, operation) in bundle.operations() {
            // The client has the answers of all lower numbers up to `seen`, and those in this bundle were looked at.
            self.sessions.raise_seen(place, bundle.seen.min(RequestNumber(number.0.saturating_sub(1))));
            let who = Who { session: bundle.session, number };
            match self.sessions.admit(place, number) {
                Admission::Answered(slot, answer) => replies.push(who, slot, answer),
                Admission::Pending | Admission::Seen => {}
                Admission::TooFar => {
                    let text = "the number is too far beyond the last answer seen";
                    replies.push(who, at.slot, &error(Code::BadRequest, text));
                }
                Admission::Execute if operation.first() == Some(&byte::SESSION) => {
                    if SessionOperation::decode(&operation[1..]) == Ok(SessionOperation::End) {
                        replies.push(who, at.slot, &[Code::Ok as u8]);
                        self.end(bundle.session, place, at.slot, replies);
                        return self.apply_rest(at, bundle, number, replies);
                    }
                    self.answers.answer(who, |answer| bad_request(answer, "no operation of a session"));
                }
                Admission::Execute => self.execute(*at, who, operation),
            }
            self.deliver_to(bundle.session, place, at.slot, replies);
            at.position += 1;
        }
        self.sessions.raise_seen(place, bundle.seen);
    }

    /// What stands in a bundle behind the end of its session.
    fn apply_rest(&self, at: &mut At, bundle: &Bundle<'_>, end: RequestNumber, replies: &mut Replies) {
        at.position += 1;
        for (number, _) in bundle.operations().filter(|&(number, _)| number > end) {
            expire(Who { session: bundle.session, number }, at.slot, replies);
            at.position += 1;
        }
    }

    /// Requests under no session in the table: openings are executed, all others never.
    fn apply_strange(&mut self, at: &mut At, bundle: &Bundle<'_>, replies: &mut Replies) {
        for (number, operation) in bundle.operations() {
            let who = Who { session: bundle.session, number };
            if !bundle.session.is_none() {
                expire(who, at.slot, replies);
            } else if is_opening(operation) {
                let id = SessionId { slot: at.slot, position: at.position, digest: self.digest.0 };
                let answer = if self.sessions.open(id, at.time) {
                    let mut answer = vec![Code::Ok as u8];
                    put_session(&mut answer, id);
                    answer
                } else {
                    error(Code::Busy, "the table of sessions is full")
                };
                replies.push(who, at.slot, &answer);
            } else {
                replies.push(who, at.slot, &error(Code::BadRequest, "a request without a session"));
            }
            at.position += 1;
        }
    }

    /// Hands an operation to its service, which answers now or later.
    fn execute(&mut self, at: At, who: Who, operation: &[u8]) {
        let found = operation.split_first().and_then(|(byte, operation)| {
            let service = self.services.iter_mut().find(|(own, _)| own == byte)?;
            Some((&mut service.1, operation))
        });
        match found {
            Some((service, operation)) => service.apply(at, who, operation, &mut self.answers),
            None => self.answers.answer(who, no_service),
        }
    }

    /// A session ends: the services hear of it, and nobody waits for its answers any more.
    fn end(&mut self, id: SessionId, place: Place, slot: Slot, replies: &mut Replies) {
        self.sessions.end(place);
        self.services.iter_mut().for_each(|(_, service)| service.ended(id, &mut self.answers));
        self.deliver(slot, replies);
    }

    /// Keeps and hands out what the services answered.
    fn deliver(&mut self, slot: Slot, replies: &mut Replies) {
        for (who, answer) in self.answers.iter() {
            if self.sessions.answer_to(who, slot, answer) {
                replies.push(who, slot, answer);
            }
        }
        self.answers.clear();
    }

    /// The same where most answers are for one session.
    fn deliver_to(&mut self, session: SessionId, place: Place, slot: Slot, replies: &mut Replies) {
        for (who, answer) in self.answers.iter() {
            let kept = if who.session == session {
                self.sessions.answer(place, who.number, slot, answer)
            } else {
                self.sessions.answer_to(who, slot, answer)
            };
            if kept {
                replies.push(who, slot, answer);
            }
        }
        self.answers.clear();
    }

    /// Appends the answer to a query; the first byte picks the service.
    pub fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        let found = query.split_first().and_then(|(byte, query)| {
            let (_, service) = self.services.iter().find(|(own, _)| own == byte)?;
            Some((service, query))
        });
        match found {
            Some((service, query)) => service.query(query, answer),
            None => no_service(answer),
        }
    }

    /// The whole state; equal states write equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = vec![SNAPSHOT_VERSION];
        out.put_u64(self.applied.0);
        out.put_u64(self.time.0);
        out.put_u64(self.digest.0);
        out.put_u64(self.answers_digest);
        self.sessions.snapshot(&mut out);
        out.put_u8(self.services.len() as u8);
        for (byte, service) in &self.services {
            out.put_u8(*byte);
            let length_at = out.len();
            out.put_u64(0);
            service.snapshot(&mut out);
            let length = (out.len() - length_at - 8) as u64;
            out[length_at..length_at + 8].copy_from_slice(&length.to_be_bytes());
        }
        out
    }

    /// The state that `snapshot` wrote. Errors name what makes no sense.
    pub fn restore(bytes: &[u8]) -> Decoded<Machine> {
        let mut r = Reader::new(bytes);
        if r.u8("snapshot version")? != SNAPSHOT_VERSION {
            return Err(DecodeError { field: "snapshot version" });
        }
        let mut machine = Machine {
            applied: Slot(r.u64("applied")?),
            time: GroupTime(r.u64("time")?),
            digest: Digest(r.u64("digest")?),
            answers_digest: r.u64("answers digest")?,
            sessions: Sessions::restore(&mut r)?,
            ..Machine::new()
        };
        if machine.applied == Slot(u64::MAX) {
            return Err(DecodeError { field: "applied" });
        }
        let mut previous = byte::SESSION;
        for _ in 0..r.u8("service count")? {
            let byte = r.u8("service")?;
            let length = usize::try_from(r.u64("service length")?).unwrap_or(usize::MAX);
            let state = r.take(length, "service length")?;
            let service = machine.services.iter_mut().find(|(own, _)| *own == byte && byte > previous);
            service.ok_or(DecodeError { field: "service" })?.1.restore(state)?;
            previous = byte;
        }
        r.end("snapshot")?;
        Ok(machine)
    }
}

fn is_opening(operation: &[u8]) -> bool {
    let fields = operation.strip_prefix(&[byte::SESSION]);
    fields.is_some_and(|fields| SessionOperation::decode(fields) == Ok(SessionOperation::Open))
}

fn expire(who: Who, slot: Slot, replies: &mut Replies) {
    replies.push(who, slot, &error(EXPIRED.0, EXPIRED.1));
}

fn bad_request(answer: &mut Vec<u8>, text: &str) {
    answer.extend_from_slice(&error(Code::BadRequest, text));
}

fn no_service(answer: &mut Vec<u8>) {
    bad_request(answer, "there is no such service");
}
