//! The session table (DESIGN 7.1): replicated, so that a request that is sent again, here or anywhere, is executed
//! once (I3).
//!
//! A session remembers each request above its "seen" mark, below which the client will not ask again: that it is
//! under way, or what it was answered and in which slot. A session that is not in the table is never executed for.
//! One that nobody spoke for is forgotten: its term ends at the earliest [`SESSION_IDLE_NS`] after its last bundle or
//! the last word that it is connected ([`SESSION_KEEP_NS`] where it is kept), and [`SESSION_GRACE_NS`] after the
//! connection that attached last was lost. It is prolonged only where that gains a step, so that most bundles leave
//! the index alone.

use crate::broken;
use crate::limits::{
    ANSWER_BYTES_MAX, SESSIONS_MAX, SESSION_ANSWER_BYTES_MAX, SESSION_GRACE_NS, SESSION_IDLE_NS, SESSION_KEEP_NS,
    SESSION_WINDOW,
};
use crate::service::Who;
use crate::types::{GroupTime, RequestNumber, SessionId, Slot};
use crate::wire::answer::{split, Code};
use crate::wire::bundle::{put_session, session};
use crate::wire::codec::{DecodeError, Decoded, Put, Reader};
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SNAPSHOT_VERSION: u8 = 2;
/// By this part of it at least a session's term is prolonged.
const TERM_STEPS: u64 = 64;
/// Requests remembered beyond which an emptied list gives its memory back.
const SPARE_REQUESTS: usize = 256;
/// Answers up to this long lie in the table itself.
const SHORT_ANSWER_BYTES: usize = 22;
/// What a session takes in the table and its two indices.
const SESSION_OVERHEAD: u64 = 256;

/// An answer as it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Kept {
    Short(u8, [u8; SHORT_ANSWER_BYTES]),
    Long(Box<[u8]>),
}

impl Kept {
    fn new(answer: &[u8]) -> Kept {
        let mut short = [0; SHORT_ANSWER_BYTES];
        match short.get_mut(..answer.len()) {
            Some(place) => {
                place.copy_from_slice(answer);
                Kept::Short(answer.len() as u8, short)
            }
            None => Kept::Long(answer.into()),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Kept::Short(length, bytes) => &bytes[..usize::from(*length)],
            Kept::Long(bytes) => bytes,
        }
    }
}

/// What is known of one request above the seen mark.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
enum Request {
    /// It has not come: a higher number came first.
    #[default]
    Unknown,
    /// Executed, and not answered yet.
    Pending,
    /// Answered in this slot.
    Answered(Slot, Kept),
}

impl Request {
    fn memory_bytes(&self) -> u64 {
        let long = match self {
            Request::Answered(_, Kept::Long(bytes)) => bytes.len() as u64 + 16,
            _ => 0,
        };
        size_of::<Request>() as u64 + long
    }
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// The client has all answers up to here. Never falls.
    seen: RequestNumber,
    /// The requests from `seen + 1`; the last one is not unknown.
    requests: VecDeque<Request>,
    /// Bytes that the requests take.
    bytes: u64,
    /// The lowest request that was refused for now when it was applied, while the client has not seen that: higher
    /// ones that are new are refused as well, so that a pipeline is never reordered.
    gate: Option<RequestNumber>,
    /// The name of the latest attach.
    attach: u64,
    /// A position in a file depends on it: it outlasts its connections.
    kept: bool,
    /// Its latest connection was lost, and nobody has spoken for it since.
    away: bool,
    /// Forgotten then, if nobody speaks for it before.
    term: GroupTime,
}

impl Session {
    fn new(id: SessionId, attach: u64) -> Session {
        let (seen, requests, term) = (RequestNumber(0), VecDeque::new(), GroupTime(0));
        Session { id, seen, requests, bytes: 0, gate: None, attach, kept: false, away: false, term }
    }

    /// How long it lives without a word.
    fn idle_ns(&self) -> u64 {
        if self.kept {
            SESSION_KEEP_NS
        } else {
            SESSION_IDLE_NS
        }
    }

    /// The term of one that is heard of at `time`.
    fn term_from(&self, time: GroupTime) -> GroupTime {
        GroupTime(time.0.saturating_add(self.idle_ns() + self.idle_ns() / TERM_STEPS))
    }
}

/// Where a session lies in the table, until it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(usize);

/// What to do with a request.
#[derive(PartialEq, Eq, Debug)]
pub enum Admission<'a> {
    /// It is new, and counts as executed from now on.
    Execute,
    /// It is new, and is not executed: its answer is to be `busy`, and why.
    Busy(&'static str),
    /// It was answered with this in this slot.
    Answered(Slot, &'a [u8]),
    /// It has been executed, and its answer is to come.
    Pending,
    /// The client has its answer.
    Seen,
    /// It is more than `SESSION_WINDOW` beyond the seen mark.
    TooFar,
}

/// All sessions.
#[derive(Default, Debug)]
pub struct Sessions {
    table: Slab<Session>,
    places: BTreeMap<SessionId, usize>,
    terms: BTreeSet<(GroupTime, SessionId)>,
    memory: u64,
}

impl Sessions {
    /// Puts a session into the table, with the name of its first attach. `false` if there is no room.
    pub fn open(&mut self, id: SessionId, attach: u64, time: GroupTime) -> bool {
        if self.places.len() >= SESSIONS_MAX || self.places.contains_key(&id) {
            return false;
        }
        let mut session = Session::new(id, attach);
        session.term = session.term_from(time);
        self.insert(session);
        true
    }

    fn insert(&mut self, session: Session) {
        let (id, term) = (session.id, session.term);
        self.memory += SESSION_OVERHEAD + session.bytes;
        self.places.insert(id, self.table.insert(session));
        self.terms.insert((term, id));
    }

    /// Finds a session.
    pub fn find(&self, id: SessionId) -> Option<Place> {
        self.places.get(&id).copied().map(Place)
    }

    /// Somebody spoke for the session at `time`. Whether it was away.
    pub fn heard(&mut self, place: Place, time: GroupTime) -> bool {
        let session = &mut self.table[place.0];
        let away = std::mem::take(&mut session.away);
        if session.term.0 < time.0.saturating_add(session.idle_ns()) {
            let term = session.term_from(time);
            self.set_term(place, term);
        }
        away
    }

    fn set_term(&mut self, place: Place, term: GroupTime) {
        let session = &mut self.table[place.0];
        self.terms.remove(&(session.term, session.id));
        session.term = term;
        self.terms.insert((term, session.id));
    }

    /// A connection speaks for the session from `time` on; `attach` names it. Whether it was away.
    pub fn attach(&mut self, place: Place, attach: u64, keep: bool, time: GroupTime) -> bool {
        let session = &mut self.table[place.0];
        session.attach = attach;
        session.kept |= keep;
        self.heard(place, time)
    }

    /// The connection of that name was lost by `time`: if no later one attached, the session is away, and lives for a
    /// grace. Whether it is away from now on.
    pub fn detach(&mut self, place: Place, attach: u64, time: GroupTime) -> bool {
        let session = &mut self.table[place.0];
        if session.attach != attach {
            return false;
        }
        let leaves = !std::mem::replace(&mut session.away, true);
        let term = GroupTime(time.0.saturating_add(SESSION_GRACE_NS));
        if !session.kept && term < session.term {
            self.set_term(place, term);
        }
        leaves
    }

    /// The client has all answers up to `seen`: they are forgotten.
    pub fn raise_seen(&mut self, place: Place, seen: RequestNumber) {
        let session = &mut self.table[place.0];
        if seen <= session.seen {
            return;
        }
        let forgotten = (seen.0 - session.seen.0).min(session.requests.len() as u64) as usize;
        for request in session.requests.drain(..forgotten) {
            session.bytes -= request.memory_bytes();
            self.memory -= request.memory_bytes();
        }
        session.seen = seen;
        session.gate = session.gate.filter(|&gate| gate > seen);
        if session.requests.is_empty() && session.requests.capacity() > SPARE_REQUESTS {
            session.requests = VecDeque::new();
        }
    }

    /// Judges a request; `Execute` and `Busy` enter it as pending.
    pub fn admit(&mut self, place: Place, number: RequestNumber) -> Admission<'_> {
        let session = &mut self.table[place.0];
        if number <= session.seen {
            return if broken::is("seen-ignored") { Admission::Execute } else { Admission::Seen };
        }
        let ahead = number.0 - session.seen.0;
        if ahead > SESSION_WINDOW {
            return Admission::TooFar;
        }
        let index = (ahead - 1) as usize;
        while session.requests.len() <= index {
            session.requests.push_back(Request::Unknown);
            session.bytes += Request::Unknown.memory_bytes();
            self.memory += Request::Unknown.memory_bytes();
        }
        if broken::is("executed-twice") {
            session.requests[index] = Request::Unknown;
        }
        match &mut session.requests[index] {
            Request::Answered(slot, kept) => Admission::Answered(*slot, kept.bytes()),
            Request::Pending => Admission::Pending,
            request => {
                *request = Request::Pending;
                match session.gate {
                    Some(gate) if number > gate => Admission::Busy("an earlier one was refused"),
                    _ if session.bytes > SESSION_ANSWER_BYTES_MAX => Admission::Busy("take answers first"),
                    _ => Admission::Execute,
                }
            }
        }
    }

    /// Keeps the answer to a pending request. `false` where nobody waits for it any more.
    pub fn answer(&mut self, place: Place, number: RequestNumber, slot: Slot, answer: &[u8]) -> bool {
        let session = &mut self.table[place.0];
        let index = number.0.checked_sub(session.seen.0).and_then(|ahead| ahead.checked_sub(1));
        match index.and_then(|index| session.requests.get_mut(index as usize)) {
            Some(request) if *request == Request::Pending => {
                let before = request.memory_bytes();
                *request = Request::Answered(slot, Kept::new(answer));
                let after = request.memory_bytes();
                session.bytes = session.bytes - before + after;
                self.memory = self.memory - before + after;
                if is_refusal_for_now(answer) && session.gate.is_none_or(|gate| number < gate) {
                    session.gate = Some(number);
                }
                true
            }
            _ => false,
        }
    }

    /// Keeps the answer to a pending request of any session.
    pub fn answer_to(&mut self, who: Who, slot: Slot, answer: &[u8]) -> bool {
        self.find(who.session).is_some_and(|place| self.answer(place, who.number, slot, answer))
    }

    /// Takes a session out of the table.
    pub fn end(&mut self, place: Place) {
        let session = self.table.remove(place.0);
        self.places.remove(&session.id);
        self.terms.remove(&(session.term, session.id));
        self.memory -= SESSION_OVERHEAD + session.bytes;
    }

    /// The requests that were executed and are not answered yet.
    pub fn pending(&self, place: Place) -> impl Iterator<Item = RequestNumber> + '_ {
        let session = &self.table[place.0];
        let numbered = session.requests.iter().zip(session.seen.0 + 1..);
        numbered.filter(|(request, _)| **request == Request::Pending).map(|(_, number)| RequestNumber(number))
    }

    /// A session whose term is over at `time`, the one that waited longest.
    pub fn overdue(&self, time: GroupTime) -> Option<(SessionId, Place)> {
        let &(_, id) = self.terms.first().filter(|&&(term, _)| term <= time)?;
        Some((id, self.find(id)?))
    }

    /// When the next term ends.
    pub fn due(&self) -> Option<GroupTime> {
        self.terms.first().map(|&(term, _)| term)
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of memory the table takes, roughly.
    pub fn memory_bytes(&self) -> u64 {
        self.memory
    }

    /// Appends the table; equal tables write equal bytes.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        out.put_u8(SNAPSHOT_VERSION);
        out.put_varint(self.places.len() as u64);
        for (&id, &place) in &self.places {
            let session = &self.table[place];
            put_session(out, id);
            out.put_u64(session.attach);
            out.put_bool(session.kept);
            out.put_varint(session.seen.0);
            out.put_varint(session.gate.map_or(0, |gate| gate.0));
            out.put_u64(session.term.0);
            out.put_bool(session.away);
            out.put_varint(session.requests.len() as u64);
            for request in &session.requests {
                match request {
                    Request::Unknown => out.put_u8(0),
                    Request::Pending => out.put_u8(1),
                    Request::Answered(slot, kept) => {
                        out.put_u8(2);
                        out.put_varint(slot.0);
                        out.put_bytes(kept.bytes());
                    }
                }
            }
        }
    }

    /// Reads what `snapshot` wrote.
    pub fn restore(r: &mut Reader<'_>) -> Decoded<Sessions> {
        if r.u8("sessions version")? != SNAPSHOT_VERSION {
            return Err(DecodeError { field: "sessions version" });
        }
        let mut sessions = Sessions::default();
        let mut previous = SessionId::NONE;
        for _ in 0..r.count(SESSIONS_MAX, "session count")? {
            let id = session(r)?;
            if id <= previous {
                return Err(DecodeError { field: "session" });
            }
            let mut session = Session::new(id, r.u64("attach")?);
            session.kept = r.bool("kept")?;
            session.seen = RequestNumber(r.varint("seen")?);
            session.gate = Some(RequestNumber(r.varint("gate")?)).filter(|gate| gate.0 > 0);
            session.term = GroupTime(r.u64("term")?);
            session.away = r.bool("away")?;
            for _ in 0..r.count(SESSION_WINDOW as usize, "request count")? {
                let request = request(r)?;
                session.bytes += request.memory_bytes();
                session.requests.push_back(request);
            }
            let last = session.seen.0.checked_add(session.requests.len() as u64);
            if session.requests.back() == Some(&Request::Unknown) || last.is_none() {
                return Err(DecodeError { field: "request count" });
            }
            if session.gate.is_some_and(|gate| gate <= session.seen || Some(gate.0) > last) {
                return Err(DecodeError { field: "gate" });
            }
            sessions.insert(session);
            previous = id;
        }
        Ok(sessions)
    }
}

fn request(r: &mut Reader<'_>) -> Decoded<Request> {
    match r.u8("request state")? {
        0 => Ok(Request::Unknown),
        1 => Ok(Request::Pending),
        2 => {
            let slot = Slot(r.varint("answer's slot")?);
            let answer = r.bytes(ANSWER_BYTES_MAX, "answer")?;
            split(answer)?;
            Ok(Request::Answered(slot, Kept::new(answer)))
        }
        _ => Err(DecodeError { field: "request state" }),
    }
}

/// Whether this answer refuses what may be asked again, under another number.
fn is_refusal_for_now(answer: &[u8]) -> bool {
    split(answer).is_ok_and(|(code, _)| matches!(code, Code::Full | Code::DiskFull | Code::Busy))
}

/// The answer to whoever asks for a session that is not in the table.
pub const EXPIRED: (Code, &str) = (Code::Expired, "the session is not in the table: it ended, or was idle too long");

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    fn id(n: u64) -> SessionId {
        SessionId { slot: Slot(n), position: 0, digest: 7 }
    }

    fn snapshot(sessions: &Sessions) -> Vec<u8> {
        let mut out = Vec::new();
        sessions.snapshot(&mut out);
        out
    }

    /// By so much at least the term of a session that is not kept is prolonged.
    const TERM_STEP_NS: u64 = SESSION_IDLE_NS / TERM_STEPS;

    fn one() -> (Sessions, Place) {
        let mut sessions = Sessions::default();
        assert!(sessions.open(id(1), 1, GroupTime(0)));
        let place = sessions.find(id(1)).expect("just opened");
        (sessions, place)
    }

    #[test]
    fn a_request_is_new_then_pending_then_answered_then_seen() {
        let (mut sessions, place) = one();
        let (number, slot) = (RequestNumber(3), Slot(9));
        assert_eq!(sessions.admit(place, number), Admission::Execute);
        assert_eq!(sessions.admit(place, number), Admission::Pending);
        assert!(sessions.answer(place, number, slot, b"\0first"));
        assert!(!sessions.answer(place, number, slot, b"\0second"));
        assert_eq!(sessions.admit(place, number), Admission::Answered(slot, b"\0first"));
        sessions.raise_seen(place, number);
        sessions.raise_seen(place, RequestNumber(1));
        assert_eq!(sessions.admit(place, number), Admission::Seen);
        assert!(!sessions.answer(place, number, slot, b"\0third"));
        assert!(!sessions.answer(place, RequestNumber(4), slot, b"\0unasked"));
    }

    #[test]
    fn an_opening_of_the_same_id_is_refused() {
        let (mut sessions, _) = one();
        assert!(!sessions.open(id(1), 2, GroupTime(5)));
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn a_term_is_set_anew_only_where_it_gains() {
        let (mut sessions, place) = one();
        let term = sessions.due().expect("one session");
        assert_eq!(term, GroupTime(SESSION_IDLE_NS + TERM_STEP_NS));
        sessions.heard(place, GroupTime(TERM_STEP_NS));
        assert_eq!(sessions.due(), Some(term));
        sessions.heard(place, GroupTime(TERM_STEP_NS + 1));
        assert_eq!(sessions.due(), Some(GroupTime(term.0 + TERM_STEP_NS + 1)));
        assert_eq!(sessions.overdue(term), None);
        assert_eq!(sessions.overdue(GroupTime(u64::MAX)), Some((id(1), place)));
        sessions.heard(place, GroupTime(u64::MAX));
        assert_eq!(sessions.due(), Some(GroupTime(u64::MAX)));
    }

    #[test]
    fn only_the_latest_connection_ends_a_session_by_its_loss() {
        let (mut sessions, place) = one();
        let idle = sessions.due();
        sessions.attach(place, 2, false, GroupTime(0));
        sessions.detach(place, 1, GroupTime(0));
        assert_eq!(sessions.due(), idle, "another one attached since");
        sessions.detach(place, 2, GroupTime(5));
        assert_eq!(sessions.due(), Some(GroupTime(SESSION_GRACE_NS + 5)));
        sessions.detach(place, 2, GroupTime(9));
        assert_eq!(sessions.due(), Some(GroupTime(SESSION_GRACE_NS + 5)), "a copy of it prolongs nothing");
        sessions.attach(place, 3, false, GroupTime(SESSION_GRACE_NS));
        assert_eq!(sessions.due(), Some(GroupTime(SESSION_GRACE_NS + SESSION_IDLE_NS + TERM_STEP_NS)));
    }

    #[test]
    fn a_kept_session_outlasts_its_connections() {
        let (mut sessions, place) = one();
        sessions.attach(place, 2, true, GroupTime(0));
        let week = Some(GroupTime(SESSION_KEEP_NS + SESSION_KEEP_NS / TERM_STEPS));
        assert_eq!(sessions.due(), week);
        sessions.detach(place, 2, GroupTime(1));
        sessions.attach(place, 3, false, GroupTime(2));
        sessions.detach(place, 3, GroupTime(3));
        assert_eq!(sessions.due(), week, "it stays kept");
        let mut copy = Sessions::restore(&mut Reader::new(&snapshot(&sessions))).expect("just written");
        let place = copy.find(id(1)).expect("it is there");
        copy.detach(place, 3, GroupTime(4));
        assert_eq!(copy.due(), week);
    }

    #[test]
    fn behind_a_refusal_for_now_nothing_is_executed_until_it_was_seen() {
        let (mut sessions, place) = one();
        let full = [Code::Full as u8];
        assert_eq!(sessions.admit(place, RequestNumber(2)), Admission::Execute);
        assert!(sessions.answer(place, RequestNumber(2), Slot(1), &full));
        for number in [3, 5] {
            assert!(matches!(sessions.admit(place, RequestNumber(number)), Admission::Busy(_)));
            assert!(sessions.answer(place, RequestNumber(number), Slot(1), &[Code::Busy as u8]));
        }
        assert_eq!(sessions.admit(place, RequestNumber(1)), Admission::Execute, "it stood in front of it");
        assert!(sessions.answer(place, RequestNumber(1), Slot(1), &[0]));
        sessions.raise_seen(place, RequestNumber(1));
        assert!(matches!(sessions.admit(place, RequestNumber(6)), Admission::Busy(_)));
        let copy = Sessions::restore(&mut Reader::new(&snapshot(&sessions))).expect("just written");
        for mut sessions in [sessions, copy] {
            let place = sessions.find(id(1)).expect("it is there");
            assert!(matches!(sessions.admit(place, RequestNumber(7)), Admission::Busy(_)));
            sessions.raise_seen(place, RequestNumber(5));
            assert_eq!(sessions.admit(place, RequestNumber(8)), Admission::Execute);
        }
    }

    #[test]
    fn a_client_that_takes_no_answers_gets_no_more_of_them() {
        let (mut sessions, place) = one();
        let large = vec![0; ANSWER_BYTES_MAX];
        let mut number = RequestNumber(1);
        while sessions.admit(place, number) == Admission::Execute {
            assert!(sessions.answer(place, number, Slot(1), &large));
            number.0 += 1;
        }
        assert!(sessions.memory_bytes() <= SESSION_ANSWER_BYTES_MAX + ANSWER_BYTES_MAX as u64 + (1 << 12));
        assert!(number.0 > 4 && sessions.answer(place, number, Slot(1), &[Code::Busy as u8]));
        assert!(matches!(sessions.admit(place, RequestNumber(2)), Admission::Answered(_, _)), "none is forgotten");
        sessions.raise_seen(place, number);
        assert_eq!(sessions.admit(place, RequestNumber(number.0 + 1)), Admission::Execute);
    }

    quickcheck! {
        fn a_table_comes_back_byte_for_byte(steps: Vec<(u8, u8, u8, Vec<u8>)>) -> bool {
            let mut sessions = Sessions::default();
            for (who, number, what, mut answer) in steps {
                let (id, number) = (id(u64::from(who % 4) + 1), RequestNumber(u64::from(number % 40)));
                sessions.open(id, 1, GroupTime(number.0 << 34));
                let place = sessions.find(id).expect("there now");
                sessions.heard(place, GroupTime(u64::from(what) << 33));
                answer.insert(0, if what > 200 { Code::Full } else { Code::Ok } as u8);
                match what % 10 {
                    8 => _ = sessions.attach(place, number.0, what > 99, GroupTime(u64::from(what) << 33)),
                    9 => _ = sessions.detach(place, number.0, GroupTime(number.0 << 33)),
                    0 => sessions.raise_seen(place, number),
                    1 => sessions.end(place),
                    2 => _ = sessions.admit(place, number),
                    _ if matches!(sessions.admit(place, number), Admission::Execute | Admission::Busy(_)) => {
                        assert!(sessions.answer(place, number, Slot(number.0), &answer));
                    }
                    _ => {}
                }
            }
            let bytes = snapshot(&sessions);
            let mut r = Reader::new(&bytes);
            let mut copy = Sessions::restore(&mut r).expect("just written");
            let same = r.is_empty() && snapshot(&copy) == bytes
                && (copy.len(), copy.due()) == (sessions.len(), sessions.due())
                && copy.memory_bytes() == sessions.memory_bytes();
            while let Some((_, place)) = copy.overdue(GroupTime(u64::MAX)) {
                copy.end(place);
            }
            same && copy.is_empty() && copy.memory_bytes() == 0
        }

        fn garbage_is_an_error_or_a_table_that_writes_it(bytes: Vec<u8>) -> bool {
            let bytes = [&[SNAPSHOT_VERSION], &bytes[..]].concat();
            let mut r = Reader::new(&bytes);
            Sessions::restore(&mut r).map_or(true, |sessions| bytes.starts_with(&snapshot(&sessions)))
        }
    }

    #[test]
    fn a_table_whose_parts_contradict_each_other_is_refused() {
        let (mut sessions, place) = one();
        assert_eq!(sessions.admit(place, RequestNumber(1)), Admission::Execute);
        let good = snapshot(&sessions);
        assert!(Sessions::restore(&mut Reader::new(&good)).is_ok());
        // The last byte is the state of the only request: none may end in an unknown one.
        let unknown = [&good[..good.len() - 1], &[0]].concat();
        // Twice the same session.
        let twice = [&good[..1], &[2], &good[2..], &good[2..]].concat();
        // Behind version, count, id, attach, kept and seen stands the gate: at a request that never came.
        let gate_at = 2 + 20 + 8 + 1 + 1;
        assert_eq!(good[gate_at], 0);
        let gate = [&good[..gate_at], &[2], &good[gate_at + 1..]].concat();
        for bad in [unknown, twice, gate, good[..good.len() - 1].to_vec()] {
            assert!(Sessions::restore(&mut Reader::new(&bad)).is_err(), "{bad:?}");
        }
    }
}
