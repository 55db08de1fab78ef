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
/// How long after that slot the next ones are forgotten.
const STEP_PAUSE_NS: u64 = 1_000_000;

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
        Machine::with(service::all())
    }

    /// The same with these services, each behind the byte that picks it, in the order of these bytes.
    pub fn with(services: Vec<(u8, Box<dyn Service>)>) -> Machine {
        Machine {
            applied: Slot(0),
            time: GroupTime(0),
            digest: Digest(0),
            answers_digest: 0,
            sessions: Sessions::default(),
            services,
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

    /// Sessions in the table.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// When something is due and a slot must come, if only an empty one.
    pub fn due(&self) -> Option<GroupTime> {
        let services = self.services.iter().filter_map(|(_, service)| service.due());
        let due = services.chain(self.sessions.due()).min()?;
        // What the last slot left undone, since its steps are bounded, is for one that comes a little later.
        Some(if due > self.time { due } else { GroupTime(self.time.0.saturating_add(STEP_PAUSE_NS)) })
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
            // It may still have a client that waits, where a clock leapt ahead.
            let waiting = self.sessions.pending(place);
            waiting.for_each(|number| expire(Who { session: id, number }, at.slot, replies));
            self.end(id, place, at.slot, replies);
        }
        self.services.iter_mut().for_each(|(_, service)| service.tick(at, &mut self.answers));
        self.deliver(at.slot, replies);
    }

    /// Executes the requests of a session that is in the table.
    fn apply_bundle(&mut self, at: &mut At, bundle: &Bundle<'_>, place: Place, replies: &mut Replies) {
        if self.sessions.heard(place, at.time) {
            self.attended(*at, bundle.session, true, replies);
        }
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
                // A session may end whatever its answers weigh.
                Admission::Execute | Admission::Busy(_) if operation.first() == Some(&byte::SESSION) => {
                    if SessionOperation::decode(&operation[1..]) == Ok(SessionOperation::End) {
                        replies.push(who, at.slot, &[Code::Ok as u8]);
                        self.end(bundle.session, place, at.slot, replies);
                        return self.apply_rest(at, bundle, number, replies);
                    }
                    self.answers.answer(who, |answer| bad_request(answer, "no operation of a session"));
                }
                Admission::Execute => self.execute(*at, who, operation),
                Admission::Busy(why) => {
                    self.answers.answer(who, |answer| answer.extend_from_slice(&error(Code::Busy, why)));
                }
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

    /// Requests under no session in the table: what a door says of sessions is executed, all others never.
    fn apply_strange(&mut self, at: &mut At, bundle: &Bundle<'_>, replies: &mut Replies) {
        for (number, operation) in bundle.operations() {
            let who = Who { session: bundle.session, number };
            if !bundle.session.is_none() {
                expire(who, at.slot, replies);
            } else {
                let answer = match operation.strip_prefix(&[byte::SESSION]).map(SessionOperation::decode) {
                    Some(Ok(operation)) => self.of_sessions(*at, number.0, operation, replies),
                    _ => Some(error(Code::BadRequest, "a request without a session")),
                };
                if let Some(answer) = answer {
                    replies.push(who, at.slot, &answer);
                }
            }
            at.position += 1;
        }
    }

    /// What a replica's door says of sessions; `number` is a client's token, or names an attach. The answer, where
    /// somebody waits for one.
    fn of_sessions(
        &mut self,
        at: At,
        number: u64,
        operation: SessionOperation<'_>,
        replies: &mut Replies,
    ) -> Option<Vec<u8>> {
        let sessions = &mut self.sessions;
        let mut answer = vec![Code::Ok as u8];
        match operation {
            SessionOperation::Open => {
                let id = SessionId { slot: at.slot, position: at.position, digest: self.digest.0 };
                if !sessions.open(id, number, at.time) {
                    return Some(error(Code::Busy, "the table of sessions is full"));
                }
                put_session(&mut answer, id);
            }
            SessionOperation::Attach { session, keep } => match sessions.find(session) {
                Some(place) => {
                    if sessions.attach(place, number, keep, at.time) {
                        self.attended(at, session, true, replies);
                    }
                }
                None => return Some(error(EXPIRED.0, EXPIRED.1)),
            },
            SessionOperation::Detach { session } => {
                if sessions.find(session).is_some_and(|place| sessions.detach(place, number, at.time)) {
                    self.attended(at, session, false, replies);
                }
                return None;
            }
            SessionOperation::Connected { sessions: connected } => {
                for id in connected.iter() {
                    if self.sessions.find(id).is_some_and(|place| self.sessions.heard(place, at.time)) {
                        self.attended(at, id, true, replies);
                    }
                }
                return None;
            }
            SessionOperation::End => return Some(error(Code::BadRequest, "a request without a session")),
        }
        Some(answer)
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

    /// A session has a connection again, or has none for now: the services hear of it.
    fn attended(&mut self, at: At, session: SessionId, here: bool, replies: &mut Replies) {
        self.services.iter_mut().for_each(|(_, service)| service.attended(at, session, here, &mut self.answers));
        self.deliver(at.slot, replies);
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

fn expire(who: Who, slot: Slot, replies: &mut Replies) {
    replies.push(who, slot, &error(EXPIRED.0, EXPIRED.1));
}

fn bad_request(answer: &mut Vec<u8>, text: &str) {
    answer.extend_from_slice(&error(Code::BadRequest, text));
}

fn no_service(answer: &mut Vec<u8>) {
    bad_request(answer, "there is no such service");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{BATCH_ITEMS_MAX, SESSIONS_MAX, SESSION_IDLE_NS, SESSION_WINDOW};
    use crate::wire::answer::split;
    use crate::wire::bundle::Bundler;
    use crate::wire::operation::{Items, QueueOperation, QueueQuery, Target};
    use quickcheck::quickcheck;
    use std::collections::{BTreeMap, VecDeque};

    const LABELS: [&str; 2] = ["jobs", "mail"];

    fn open() -> Vec<u8> {
        let mut bytes = Vec::new();
        SessionOperation::Open.encode(&mut bytes);
        bytes
    }

    fn end() -> Vec<u8> {
        let mut bytes = Vec::new();
        SessionOperation::End.encode(&mut bytes);
        bytes
    }

    fn push(label: &str, item: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        QueueOperation::encode_push(&mut bytes, Target::Label(label), std::iter::once(item));
        bytes
    }

    fn pop(label: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        QueueOperation::Pop { target: Target::Label(label), count: 1 }.encode(&mut bytes);
        bytes
    }

    fn popped(item: &[u8]) -> Vec<u8> {
        let mut answer = vec![Code::Ok as u8];
        Items::encode(&mut answer, std::iter::once(item));
        answer
    }

    fn size(machine: &Machine, label: &str) -> Vec<u8> {
        let (mut query, mut answer) = (Vec::new(), Vec::new());
        QueueQuery::Size { target: Target::Label(label) }.encode(&mut query);
        machine.query(&query, &mut answer);
        answer
    }

    /// One request: session, number, seen, operation.
    type Request = (SessionId, u64, u64, Vec<u8>);
    type Told = (SessionId, u64, u64, Vec<u8>);

    fn bundles(requests: &[Request]) -> Vec<u8> {
        let mut bundler = Bundler::default();
        for (session, number, seen, operation) in requests {
            bundler.push(*session, RequestNumber(*number), RequestNumber(*seen), operation);
        }
        bundler.take()
    }

    fn slot_at(machine: &mut Machine, time: u64, operations: &[u8]) -> Vec<Told> {
        let mut replies = Replies::default();
        machine.apply(machine.applied().next(), GroupTime(time), operations, &mut replies);
        replies.iter().map(|reply| (reply.session, reply.number.0, reply.slot.0, reply.answer.to_vec())).collect()
    }

    /// Applies one slot of these requests at the time of the slot before.
    fn slot(machine: &mut Machine, requests: &[Request]) -> Vec<Told> {
        slot_at(machine, machine.time().0, &bundles(requests))
    }

    fn opened(told: &Told) -> SessionId {
        let (code, fields) = split(&told.3).expect("an answer");
        assert_eq!((told.0, code), (SessionId::NONE, Code::Ok));
        session(&mut Reader::new(fields)).expect("a session's id")
    }

    fn with_session() -> (Machine, SessionId) {
        let mut machine = Machine::new();
        let id = opened(&slot(&mut machine, &[(SessionId::NONE, 77, 0, open())])[0]);
        (machine, id)
    }

    fn code(told: &Told) -> Code {
        split(&told.3).expect("an answer").0
    }

    #[test]
    fn an_opening_names_slot_place_and_the_digest_before() {
        let (mut machine, first) = with_session();
        assert_eq!(first, SessionId { slot: Slot(1), position: 0, digest: 0 });
        let before = machine.digest();
        // Tokens in a row share a bundle; an opening that is sent twice leaves two sessions.
        let tokens = [5, 6, 6].map(|token| (SessionId::NONE, token, 0, open()));
        let told = slot(&mut machine, &tokens);
        assert_eq!(told.iter().map(|t| t.1).collect::<Vec<_>>(), [5, 6, 6]);
        for (position, told) in (0..).zip(&told) {
            assert_eq!(opened(told), SessionId { slot: Slot(2), position, digest: before.0 });
        }
    }

    #[test]
    fn a_request_whose_reply_was_lost_is_answered_and_not_executed_again() {
        let (mut machine, id) = with_session();
        let first = slot(&mut machine, &[(id, 1, 0, push("jobs", b"x")), (id, 2, 0, push("jobs", b"y"))]);
        let one = slot(&mut machine, &[(id, 3, 0, pop("jobs"))]);
        assert_eq!(one, [(id, 3, 3, popped(b"x"))]);
        let before = size(&machine, "jobs");
        // Again, in another order, twice in a slot, and after a restore: the answer still names its own slot.
        let mut machine = Machine::restore(&machine.snapshot()).expect("just written");
        let again =
            slot(&mut machine, &[(id, 3, 0, pop("jobs")), (id, 3, 0, pop("jobs")), (id, 1, 0, push("jobs", b"x"))]);
        assert_eq!(again, [one[0].clone(), one[0].clone(), first[0].clone()]);
        assert_eq!(size(&machine, "jobs"), before);
    }

    #[test]
    fn numbers_may_come_in_any_order_and_seen_ones_are_left_alone() {
        let (mut machine, id) = with_session();
        assert_eq!(slot(&mut machine, &[(id, 5, 0, push("jobs", b"5"))]).len(), 1);
        assert_eq!(slot(&mut machine, &[(id, 2, 0, push("jobs", b"2"))]).len(), 1);
        // The mark is raised once the bundle's own requests have been looked at, and never falls.
        assert_eq!(slot(&mut machine, &[(id, 4, 3, push("jobs", b"4")), (id, 5, 5, vec![])]).len(), 2);
        assert_eq!(slot(&mut machine, &[(id, 3, 0, push("jobs", b"3")), (id, 0, 0, push("jobs", b"0"))]), []);
        assert_eq!(slot(&mut machine, &[(id, 5, 0, pop("jobs"))]), []);
        assert_eq!(size(&machine, "jobs"), [0, 3]);
        let order = [6, 7, 8].map(|number| (id, number, 5, pop("jobs")));
        let items: Vec<_> = slot(&mut machine, &order).into_iter().map(|told| told.3).collect();
        assert_eq!(items, [popped(b"5"), popped(b"2"), popped(b"4")]);
    }

    #[test]
    fn a_number_too_far_ahead_is_told_and_not_kept() {
        let (mut machine, id) = with_session();
        let memory = machine.memory_bytes();
        for number in [SESSION_WINDOW + 1, u64::MAX - 1] {
            let told = slot(&mut machine, &[(id, number, 0, push("jobs", b"x"))]);
            assert_eq!(code(&told[0]), Code::BadRequest);
        }
        assert_eq!(machine.memory_bytes(), memory);
        assert_eq!(code(&slot(&mut machine, &[(id, SESSION_WINDOW, 0, push("jobs", b"x"))])[0]), Code::Ok);
        // What the bundle says is seen counts, though nothing of it has come before.
        let far = 1 << 60;
        assert_eq!(code(&slot(&mut machine, &[(id, far + SESSION_WINDOW, far, push("jobs", b"y"))])[0]), Code::Ok);
        assert_eq!(code(&slot(&mut machine, &[(id, far + 1, far, push("jobs", b"z"))])[0]), Code::Ok);
        assert_eq!(size(&machine, "jobs"), [0, 3]);
    }

    #[test]
    fn a_session_that_is_not_in_the_table_is_never_executed_for() {
        let (mut machine, id) = with_session();
        let other = SessionId { digest: id.digest ^ 1, ..id };
        let told = slot(&mut machine, &[(other, 1, 0, push("jobs", b"x")), (other, 2, 0, end())]);
        assert_eq!(told.iter().map(code).collect::<Vec<_>>(), [Code::Expired, Code::Expired]);
        let told = slot(&mut machine, &[(SessionId::NONE, 1, 0, push("jobs", b"x")), (SessionId::NONE, 2, 0, end())]);
        assert_eq!(told.iter().map(code).collect::<Vec<_>>(), [Code::BadRequest, Code::BadRequest]);
        assert_eq!(size(&machine, "jobs")[0], Code::NoQueue as u8);
    }

    #[test]
    fn an_ended_session_is_gone_even_for_the_rest_of_its_bundle() {
        let (mut machine, id) = with_session();
        let rest = [(id, 1, 0, push("jobs", b"x")), (id, 2, 0, end()), (id, 3, 0, push("jobs", b"y"))];
        let codes: Vec<_> = slot(&mut machine, &rest).iter().map(code).collect();
        assert_eq!(codes, [Code::Ok, Code::Ok, Code::Expired]);
        assert_eq!(code(&slot(&mut machine, &[(id, 2, 0, end())])[0]), Code::Expired);
        assert_eq!(size(&machine, "jobs"), [0, 1]);
        assert_eq!(machine.due(), None);
        // An opening behind it takes its own place in the slot.
        let (mut machine, id) = with_session();
        let requests = [(id, 1, 0, end()), (id, 2, 0, pop("jobs")), (SessionId::NONE, 9, 0, open())];
        assert_eq!(opened(&slot(&mut machine, &requests)[2]).position, 2);
    }

    #[test]
    fn an_idle_session_is_forgotten_by_group_time() {
        let (mut machine, idle) = with_session();
        let busy = opened(&slot(&mut machine, &[(SessionId::NONE, 1, 0, open())])[0]);
        assert!(machine.due() > Some(GroupTime(SESSION_IDLE_NS)));
        let request = |number, seen| bundles(&[(busy, number, seen, push("jobs", b"x"))]);
        slot_at(&mut machine, SESSION_IDLE_NS / 2, &request(1, 0));
        slot_at(&mut machine, SESSION_IDLE_NS, &[]);
        assert_eq!(code(&slot_at(&mut machine, SESSION_IDLE_NS, &bundles(&[(idle, 1, 0, pop("jobs"))]))[0]), Code::Ok);
        // Both were heard; now only one goes on speaking. A slot without operations is enough to forget the other.
        let due = machine.due().expect("two sessions");
        slot_at(&mut machine, due.0 - 1, &request(2, 1));
        let due = machine.due().expect("two sessions");
        assert!(due.0 >= SESSION_IDLE_NS * 2);
        slot_at(&mut machine, due.0, &[]);
        assert_eq!(code(&slot(&mut machine, &[(idle, 2, 0, pop("jobs"))])[0]), Code::Expired);
        assert_eq!(code(&slot(&mut machine, &[(busy, 3, 2, pop("jobs"))])[0]), Code::Ok);
    }

    #[test]
    fn whoever_waits_in_a_session_that_expires_is_told() {
        let (mut machine, id) = with_session();
        slot(&mut machine, &[(id, 1, 0, push("jobs", b"x")), (id, 2, 0, pop("jobs"))]);
        let mut wait = Vec::new();
        let target = Target::Label("jobs");
        QueueOperation::PopWait { target, count: 1, wait_ms: 4 * SESSION_IDLE_NS / 1_000_000 }.encode(&mut wait);
        assert_eq!(slot(&mut machine, &[(id, 3, 1, wait.clone()), (id, 5, 1, wait)]), []);
        // The clock leaps ahead: nobody had the time to say that the session has a connection.
        let told = slot_at(&mut machine, 2 * SESSION_IDLE_NS, &[]);
        let told: Vec<_> = told.iter().map(|told| (told.1, code(told))).collect();
        assert_eq!(told, [(3, Code::Expired), (5, Code::Expired)]);
    }

    #[test]
    fn many_sessions_end_in_bounded_steps_and_the_table_has_an_end() {
        let mut machine = Machine::new();
        let openings: Vec<_> = (0..=SESSIONS_MAX as u64).map(|token| (SessionId::NONE, 2 * token, 0, open())).collect();
        let told = slot(&mut machine, &openings);
        assert_eq!(told.iter().filter(|told| code(told) == Code::Ok).count(), SESSIONS_MAX);
        assert_eq!(code(told.last().expect("an answer")), Code::Busy);
        let (due, full) = (machine.due().expect("sessions"), machine.sessions.len());
        slot_at(&mut machine, due.0, &[]);
        assert_eq!(machine.sessions.len(), full - EXPIRED_STEP);
        assert_eq!(machine.due(), Some(GroupTime(due.0 + STEP_PAUSE_NS)), "the next step, in a slot of its own");
        // Where a replica takes over matters to none of them.
        let mut copy = Machine::restore(&machine.snapshot()).expect("just written");
        for machine in [&mut machine, &mut copy] {
            slot_at(machine, due.0 + 5, &bundles(&openings[..10]));
        }
        assert_eq!(machine.snapshot(), copy.snapshot());
    }

    #[test]
    fn slots_whose_bytes_make_no_sense_end_there() {
        let (mut machine, id) = with_session();
        let mut operations = bundles(&[(id, 1, 0, push("jobs", b"x"))]);
        operations.extend_from_slice(b"garbage");
        assert_eq!(slot_at(&mut machine, 0, &operations).len(), 1);
        assert_eq!(machine.applied(), Slot(2));
        for odd in [&[][..], &[0], &[0, 1], &[1], &[1, 3], &[2, 1], &[255; 9]] {
            let number = machine.applied().0;
            assert_eq!(code(&slot(&mut machine, &[(id, number, 0, odd.to_vec())])[0]), Code::BadRequest, "{odd:?}");
            let mut answer = Vec::new();
            machine.query(odd, &mut answer);
            assert_eq!(split(&answer).map(|(code, _)| code), Ok(Code::BadRequest));
        }
    }

    #[test]
    fn a_snapshot_from_before_there_was_a_service_is_its_first_state() {
        let (mut old, id) = with_session();
        old.services.truncate(1);
        slot(&mut old, &[(id, 1, 0, push("jobs", b"x"))]);
        let mut machine = Machine::restore(&old.snapshot()).expect("just written");
        assert_eq!(machine.services.len(), service::all().len());
        assert_eq!(size(&machine, "jobs"), [0, 1]);
        let create = [&[byte::CHAT, 1, 5][..], b"alice"].concat();
        assert_eq!(code(&slot(&mut machine, &[(id, 2, 1, create)])[0]), Code::Ok);
        // But one that this program does not know is not passed over.
        old.services.push((200, Box::<Late>::default()));
        assert!(Machine::restore(&old.snapshot()).is_err());
    }

    #[test]
    fn answers_count_in_a_digest_of_their_own() {
        let (mut machine, id) = with_session();
        let mut other = Machine::restore(&machine.snapshot()).expect("just written");
        let both = |machine: &Machine| (machine.digest(), machine.answers_digest());
        assert_eq!(both(&machine), both(&other));
        // As a machine would have it that lost an item.
        slot(&mut machine, &[(id, 1, 0, push("jobs", b"x"))]);
        slot(&mut other, &[(id, 1, 0, push("mail", b"x"))]);
        other.digest = machine.digest;
        assert_eq!(both(&machine), both(&other));
        slot(&mut machine, &[(id, 2, 0, pop("jobs"))]);
        slot(&mut other, &[(id, 2, 0, pop("jobs"))]);
        assert_eq!(machine.digest(), other.digest());
        assert_ne!(machine.answers_digest(), other.answers_digest());
    }

    #[test]
    fn memory_comes_back_when_answers_are_seen() {
        let (mut machine, id) = with_session();
        slot(&mut machine, &[(id, 1, 0, push("jobs", &[b'x'; 100_000]))]);
        let before = machine.memory_bytes();
        slot(&mut machine, &[(id, 2, 0, pop("jobs"))]);
        let kept = machine.memory_bytes();
        assert!(kept.abs_diff(before) < 1_000, "the item went from the queue into the kept answer");
        slot(&mut machine, &[(id, 3, 2, pop("jobs"))]);
        assert!(machine.memory_bytes() + 99_000 < kept);
    }

    /// Answers each request when the next one comes, and those of an ended session never.
    #[derive(Default)]
    struct Late(VecDeque<Who>);

    impl Service for Late {
        fn apply(&mut self, _at: At, who: Who, operation: &[u8], out: &mut Answers) {
            if let Some(first) = self.0.pop_front() {
                out.answer(first, |answer| answer.extend_from_slice(&[&[0], operation].concat()));
            }
            self.0.push_back(who);
        }
        fn query(&self, _query: &[u8], answer: &mut Vec<u8>) {
            answer.push(self.0.len() as u8);
        }
        fn tick(&mut self, _at: At, _out: &mut Answers) {}
        fn ended(&mut self, session: SessionId, _out: &mut Answers) {
            self.0.retain(|who| who.session != session);
        }
        fn due(&self) -> Option<GroupTime> {
            None
        }
        fn snapshot(&self, _out: &mut Vec<u8>) {}
        fn restore(&mut self, _snapshot: &[u8]) -> Decoded<()> {
            Ok(())
        }
        fn memory_bytes(&self) -> u64 {
            0
        }
    }

    #[test]
    fn an_answer_may_come_later_and_the_request_is_still_executed_once() {
        let (mut machine, a) = with_session();
        machine.services.push((200, Box::<Late>::default()));
        let b = opened(&slot(&mut machine, &[(SessionId::NONE, 1, 0, open())])[0]);
        let ask = |id, number, text: &[u8]| (id, number, 0, [&[200], text].concat());
        let waiting = |machine: &Machine| {
            let mut answer = Vec::new();
            machine.query(&[200], &mut answer);
            answer
        };
        assert_eq!(slot(&mut machine, &[ask(a, 1, b"one")]), []);
        assert_eq!(slot(&mut machine, &[ask(a, 1, b"one")]), []);
        assert_eq!(waiting(&machine), [1]);
        // Another session's request answers it, in the slot of that one.
        let late = (a, 1, 5, b"\0two".to_vec());
        assert_eq!(slot(&mut machine, &[ask(b, 1, b"two")]), std::slice::from_ref(&late));
        assert_eq!(slot(&mut machine, &[ask(a, 1, b"one"), ask(a, 1, b"one")]), [late.clone(), late]);
        // Who has left is not waited for, nor answered.
        assert_eq!(slot(&mut machine, &[(b, 2, 0, end())]).len(), 1);
        assert_eq!(waiting(&machine), [0]);
        // A client that says it has seen an answer that is yet to come gets none.
        assert_eq!(slot(&mut machine, &[ask(a, 2, b"x"), (a, 3, 2, push("jobs", b""))]).len(), 1);
        assert_eq!(slot(&mut machine, &[ask(a, 4, b"y")]), []);
    }

    /// Slot and answer by number.
    type Stored = BTreeMap<u64, (u64, Vec<u8>)>;
    /// What a request is made of: session, number, mark, kind and item.
    type Made = (u8, u8, u8, u8, Vec<u8>);

    /// What DESIGN 7.1 says, written down without a thought for speed.
    #[derive(Default)]
    struct Model {
        sessions: BTreeMap<SessionId, (u64, Stored)>,
        queues: BTreeMap<String, VecDeque<Vec<u8>>>,
    }

    impl Model {
        fn execute(&mut self, operation: &[u8]) -> Option<Vec<u8>> {
            Some(match QueueOperation::decode(&operation[1..]).ok()? {
                QueueOperation::Push { target: Target::Label(label), items } => {
                    self.queues.entry(label.into()).or_default().extend(items.iter().map(<[u8]>::to_vec));
                    vec![0]
                }
                QueueOperation::Pop { target: Target::Label(label), .. } => match self.queues.get_mut(label) {
                    None => error(Code::NoQueue, &format!("no queue is labelled {label}")),
                    Some(items) => match items.pop_front() {
                        None => error(Code::Empty, &format!("queue {label} is empty")),
                        Some(item) => popped(&item),
                    },
                },
                _ => return None,
            })
        }

        fn request(&mut self, slot: u64, (id, number, _, operation): &Request) -> Option<Told> {
            let Some((seen, answers)) = self.sessions.get_mut(id) else {
                return Some((*id, *number, slot, error(EXPIRED.0, EXPIRED.1)));
            };
            if number <= seen {
                return None;
            }
            if let Some((slot, answer)) = answers.get(number) {
                return Some((*id, *number, *slot, answer.clone()));
            }
            if *operation == end() {
                self.sessions.remove(id);
                return Some((*id, *number, slot, vec![0]));
            }
            let answer = self.execute(operation).expect("only what the test sends");
            let (_, answers) = self.sessions.get_mut(id).expect("found above");
            answers.insert(*number, (slot, answer.clone()));
            Some((*id, *number, slot, answer))
        }

        fn seen(&mut self, (id, _, seen, _): &Request) {
            if let Some((mark, _)) = self.sessions.get_mut(id) {
                *mark = (*mark).max(*seen);
            }
        }
    }

    fn request(ids: &[SessionId], (who, number, seen, what, item): Made) -> Request {
        let label = LABELS[usize::from(what & 1)];
        let operation = match what >> 1 {
            0 => end(),
            1..=70 => push(label, &item),
            _ => pop(label),
        };
        (ids[usize::from(who) % ids.len()], u64::from(number % 24), u64::from(seen % 6), operation)
    }

    quickcheck! {
        fn it_does_what_the_model_does(slots: Vec<(bool, Vec<Made>)>) -> bool {
            let mut machine = Machine::new();
            let mut model = Model::default();
            let opening = |token| [(SessionId::NONE, token, 0, open())];
            let ids: Vec<_> = (0..3).map(|token| opened(&slot(&mut machine, &opening(token))[0])).collect();
            model.sessions.extend(ids.iter().map(|&id| (id, Default::default())));
            let mut copy = Machine::restore(&machine.snapshot()).expect("just written");
            for (restore, requests) in slots {
                // Each in a bundle of its own: `requests_come_back_in_order` has the bundles.
                let requests: Vec<_> = requests.into_iter().map(|made| request(&ids, made)).collect();
                let one = |request| bundles(std::slice::from_ref(request));
                let operations: Vec<u8> = requests.iter().flat_map(one).collect();
                let told = slot_at(&mut machine, 0, &operations);
                let mut expected = Vec::new();
                for request in &requests {
                    expected.extend(model.request(machine.applied().0, request));
                    model.seen(request);
                }
                assert_eq!(told, expected);
                slot_at(&mut copy, 0, &operations);
                if restore {
                    let bytes = copy.snapshot();
                    copy = Machine::restore(&bytes).expect("just written");
                    assert_eq!(copy.snapshot(), bytes);
                }
            }
            for (label, items) in &model.queues {
                assert_eq!(size(&machine, label), [0, items.len() as u8]);
            }
            machine.snapshot() == copy.snapshot() && machine.digest() == copy.digest()
        }

        fn bundles_do_not_matter(requests: Vec<Made>) -> bool {
            // With a mark that stays: the same answers whether requests share a bundle or not.
            let (mut one, id) = with_session();
            let mut other = Machine::restore(&one.snapshot()).expect("just written");
            let requests: Vec<_> = requests
                .into_iter()
                .map(|made| (made.0, made.1, 0, made.3, made.4))
                .map(|made| request(&[id], made))
                .collect();
            let apart: Vec<u8> = requests.iter().flat_map(|request| bundles(std::slice::from_ref(request))).collect();
            slot(&mut one, &requests) == slot_at(&mut other, 0, &apart)
        }

        fn arbitrary_operations_never_panic(slots: Vec<Vec<u8>>, operations: Vec<(u8, u8, Vec<u8>)>) -> bool {
            let (mut machine, id) = with_session();
            slots.iter().for_each(|bytes| _ = slot_at(&mut machine, 1, bytes));
            let mut ended = false;
            for (number, service, operation) in operations {
                let operation = [&[service % 6], &operation[..]].concat();
                let told = slot(&mut machine, &[(id, u64::from(number), 0, operation.clone())]);
                // Whatever asks for a session that has ended is told so; a number that was never given is nobody's.
                let waits = operation[0] > byte::QUEUE;
                assert!(waits || told.len() == usize::from(number > 0 || ended), "{number} {operation:?}: {told:?}");
                ended |= number > 0 && operation == [byte::SESSION, 2];
            }
            Machine::restore(&machine.snapshot()).is_ok_and(|copy| copy.snapshot() == machine.snapshot())
        }

        fn a_damaged_snapshot_never_panics(changes: Vec<(usize, u8)>, cut: Option<usize>) -> bool {
            let (mut machine, id) = with_session();
            slot(&mut machine, &[(id, 1, 0, push("jobs", b"x")), (id, 3, 0, pop("jobs")), (id, 4, 0, pop("mail"))]);
            let mut bytes = machine.snapshot();
            changes.iter().for_each(|&(at, value)| { let at = at % bytes.len(); bytes[at] = value });
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut % (bytes.len() + 1)));
            if let Ok(mut machine) = Machine::restore(&bytes) {
                slot(&mut machine, &[(id, 5, 2, pop("jobs"))]);
                machine.snapshot();
            }
            true
        }
    }

    #[test]
    fn a_million_items_go_in_bounded_steps() {
        let (mut machine, id) = with_session();
        let mut batch = Vec::new();
        let items = vec![&b"sixteen bytes..."[..]; BATCH_ITEMS_MAX];
        QueueOperation::encode_push(&mut batch, Target::Label("jobs"), items.into_iter());
        for number in 1..=256 {
            slot(&mut machine, &[(id, number, number - 1, batch.clone())]);
        }
        let mut drop = Vec::new();
        QueueOperation::Destroy { target: Target::Label("jobs") }.encode(&mut drop);
        slot(&mut machine, &[(id, 257, 256, drop)]);
        assert_eq!(size(&machine, "jobs")[0], Code::NoQueue as u8);
        let mut slots = 0;
        while machine.memory_bytes() > 10_000 {
            let due = machine.due().expect("there is more to free");
            let before = machine.memory_bytes();
            slot_at(&mut machine, due.0, &[]);
            let freed = before - machine.memory_bytes();
            assert!(freed < 5 << 20, "{freed} bytes in one step");
            slots += 1;
        }
        assert!(slots > 1);
        assert!(machine.due().expect("a session") > GroupTime(SESSION_IDLE_NS));
    }
}
