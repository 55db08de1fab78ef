//! The HTTP door's own conversation with the core: to the core it is one client among others, with one session for
//! all writes. Pure: frames in, frames out.
//!
//! So exactly-once and every refusal are those of any client. A request that was turned away was certainly not done:
//! its number is used again by the next one, since the core refuses higher ones until then. When the core hangs up,
//! everything unanswered is said again under its number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::{HTTP_WRITES_MAX, SESSION_WINDOW};
use crate::rng::Rng;
use crate::types::{ClientId, RequestNumber, SessionId};
use crate::wire::answer::{split, Code};
use crate::wire::client::{first_frame, kind, ToClient, ToReplica, VERSION};

/// Names of clients that are no connections of their own: no serial number comes this far.
const FIRST_NAME: u64 = 1 << 63;

/// Whoever waits for an answer.
pub type Ticket = u64;

/// What became of something that was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub ticket: Ticket,
    pub came: Result<Vec<u8>, Refused>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub code: Code,
    /// It may have been done all the same.
    pub maybe_done: bool,
    pub message: String,
}

#[derive(Debug)]
struct Request {
    /// Nobody waits any more.
    ticket: Option<Ticket>,
    operation: Vec<u8>,
    /// It was said before, by a client that is gone: that copy may be done whatever becomes of this one.
    again: bool,
}

#[derive(Debug)]
struct Query {
    ticket: Ticket,
    stale: bool,
    query: Vec<u8>,
}

#[derive(Debug)]
pub struct Session {
    rng: Rng,
    client: ClientId,
    greeted: bool,
    id: SessionId,
    /// The token of an opening under way.
    opening: Option<u64>,
    next: u64,
    /// Numbers that were turned away.
    freed: BTreeSet<u64>,
    requests: BTreeMap<u64, Request>,
    /// What waits for the session to be open.
    waiting: VecDeque<Request>,
    last_query: u64,
    queries: BTreeMap<u64, Query>,
    /// Bytes of operations that are not answered.
    bytes: usize,
    said: Vec<Vec<u8>>,
}

impl Session {
    pub fn new(seed: u64) -> Session {
        Session {
            rng: Rng::new(seed),
            client: ClientId(FIRST_NAME),
            greeted: false,
            id: SessionId::NONE,
            opening: None,
            next: 1,
            freed: BTreeSet::new(),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            last_query: 0,
            queries: BTreeMap::new(),
            bytes: 0,
            said: Vec::new(),
        }
    }

    /// Whose frames are this door's.
    pub fn client(&self) -> ClientId {
        self.client
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes can be taken at once.
    pub fn is_open(&self) -> bool {
        !self.id.is_none()
    }

    /// What is to be handed to the core, each frame without its length.
    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.said)
    }

    pub fn has_frames(&self) -> bool {
        !self.said.is_empty()
    }

    fn say(&mut self, frame: &ToReplica<'_>) {
        if !std::mem::replace(&mut self.greeted, true) {
            self.say(&ToReplica::Hello { version: VERSION });
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.said.push(bytes.split_off(4));
    }

    /// Asks for the session to be opened, if it is neither open nor being opened.
    pub fn open(&mut self) {
        if self.id.is_none() && self.opening.is_none() {
            let token = self.rng.next_u64();
            self.opening = Some(token);
            self.say(&ToReplica::Open { token });
        }
    }

    /// Has an operation executed once. An error is the answer at once.
    pub fn request(&mut self, ticket: Ticket, operation: Vec<u8>) -> Result<(), Refused> {
        if self.requests.len() + self.waiting.len() >= HTTP_WRITES_MAX {
            return Err(busy());
        }
        let request = Request { ticket: Some(ticket), operation, again: false };
        if self.id.is_none() {
            self.bytes += request.operation.len();
            self.waiting.push_back(request);
            self.open();
            return Ok(());
        }
        self.number(request)
    }

    fn number(&mut self, request: Request) -> Result<(), Refused> {
        let number = match self.freed.pop_first() {
            Some(number) => number,
            None if self.next > self.seen() + SESSION_WINDOW => return Err(busy()),
            None => {
                self.next += 1;
                self.next - 1
            }
        };
        self.bytes += request.operation.len();
        self.requests.insert(number, request);
        self.say_request(number);
        Ok(())
    }

    fn say_request(&mut self, number: u64) {
        let seen = RequestNumber(self.seen());
        let operation = std::mem::take(&mut self.requests.get_mut(&number).expect("it is there").operation);
        self.say(&ToReplica::Request { number: RequestNumber(number), seen, operation: &operation });
        self.requests.get_mut(&number).expect("it is there").operation = operation;
    }

    /// All numbers up to this are answered.
    fn seen(&self) -> u64 {
        let open = self.requests.first_key_value().map(|(&number, _)| number);
        [open, self.freed.first().copied()].into_iter().flatten().min().unwrap_or(self.next) - 1
    }

    /// Asks for a read; with `stale` this replica answers alone.
    pub fn query(&mut self, ticket: Ticket, stale: bool, query: Vec<u8>) {
        self.last_query += 1;
        let number = self.last_query;
        self.say(&ToReplica::Query { number, stale, query: &query });
        self.queries.insert(number, Query { ticket, stale, query });
    }

    /// Nobody waits for this answer any more; what was asked may be done all the same.
    pub fn abandon(&mut self, ticket: Ticket) {
        self.queries.retain(|_, query| query.ticket != ticket);
        if let Some(at) = self.waiting.iter().position(|request| request.ticket == Some(ticket)) {
            let request = self.waiting.remove(at).expect("just found");
            self.bytes -= request.operation.len();
        }
        if let Some(request) = self.requests.values_mut().find(|request| request.ticket == Some(ticket)) {
            request.ticket = None;
        }
    }

    /// The core is done with this client: another one takes its place, in the same session.
    pub fn on_hang_up(&mut self) {
        self.client = ClientId(self.client.0 + 1);
        (self.greeted, self.opening) = (false, None);
        self.said.clear();
        if !self.id.is_none() {
            let session = self.id;
            self.say(&ToReplica::Use { session, keep: false });
            let numbers: Vec<u64> = self.requests.keys().copied().collect();
            self.requests.values_mut().for_each(|request| request.again = true);
            numbers.into_iter().for_each(|number| self.say_request(number));
        } else if !self.waiting.is_empty() {
            self.open();
        }
        for (number, Query { ticket, stale, query }) in std::mem::take(&mut self.queries) {
            self.say(&ToReplica::Query { number, stale, query: &query });
            self.queries.insert(number, Query { ticket, stale, query });
        }
    }

    /// What the core says: whole frames.
    pub fn hear(&mut self, mut bytes: &[u8], told: &mut Vec<Told>) {
        while let Ok(Some((frame, used))) = first_frame(bytes) {
            if let Ok(frame) = ToClient::decode(frame) {
                self.on_frame(&frame, told);
            }
            bytes = &bytes[used..];
        }
    }

    fn on_frame(&mut self, frame: &ToClient<'_>, told: &mut Vec<Told>) {
        match *frame {
            ToClient::Opened { token, session } if self.opening == Some(token) => {
                (self.opening, self.id) = (None, session);
                for request in std::mem::take(&mut self.waiting) {
                    self.bytes -= request.operation.len();
                    let ticket = request.ticket;
                    if let Err(refused) = self.number(request) {
                        told.extend(ticket.map(|ticket| Told { ticket, came: Err(refused) }));
                    }
                }
            }
            ToClient::Reply { number, answer, .. } => match outcome(answer) {
                Err(refused) if refused.code == Code::Expired => self.lose(&refused, told),
                came => self.answered(number.0, came, told),
            },
            ToClient::Found { number, answer, .. } => {
                let query = self.queries.remove(&number);
                told.extend(query.map(|query| Told { ticket: query.ticket, came: outcome(answer) }));
            }
            ToClient::Refused { refused, number, code, maybe_done, message } => {
                let refusal = Refused { code, maybe_done, message: message.to_owned() };
                match refused {
                    kind::OPEN if self.opening == Some(number) => {
                        self.opening = None;
                        self.turn_away(refusal, told);
                    }
                    kind::USE => self.lose(&refusal, told),
                    kind::REQUEST => {
                        let again = self.requests.get(&number).is_some_and(|request| request.again);
                        let maybe_done = maybe_done || again;
                        if !maybe_done && self.requests.contains_key(&number) {
                            self.freed.insert(number);
                        }
                        self.answered(number, Err(Refused { maybe_done, ..refusal }), told);
                    }
                    kind::QUERY => {
                        let query = self.queries.remove(&number);
                        told.extend(query.map(|query| Told { ticket: query.ticket, came: Err(refusal) }));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, number: u64, came: Result<Vec<u8>, Refused>, told: &mut Vec<Told>) {
        let Some(request) = self.requests.remove(&number) else { return };
        self.bytes -= request.operation.len();
        told.extend(request.ticket.map(|ticket| Told { ticket, came }));
    }

    /// The session can't be opened: who waits for it is told why.
    fn turn_away(&mut self, refusal: Refused, told: &mut Vec<Told>) {
        for request in std::mem::take(&mut self.waiting) {
            self.bytes -= request.operation.len();
            told.extend(request.ticket.map(|ticket| Told { ticket, came: Err(refusal.clone()) }));
        }
    }

    /// The session is not in the table any more: nobody can tell what became of its requests.
    fn lose(&mut self, refusal: &Refused, told: &mut Vec<Told>) {
        for (_, request) in std::mem::take(&mut self.requests) {
            let came = Err(Refused { maybe_done: true, ..refusal.clone() });
            told.extend(request.ticket.map(|ticket| Told { ticket, came }));
        }
        self.freed.clear();
        (self.id, self.next) = (SessionId::NONE, 1);
        self.bytes = self.waiting.iter().map(|request| request.operation.len()).sum();
        self.open();
    }
}

fn busy() -> Refused {
    Refused { code: Code::Busy, maybe_done: false, message: "too many writes are under way".into() }
}

/// What follows `Ok` in an answer.
fn outcome(answer: &[u8]) -> Result<Vec<u8>, Refused> {
    match split(answer) {
        Ok((Code::Ok, fields)) => Ok(fields.to_vec()),
        Ok((code, text)) => {
            Err(Refused { code, maybe_done: false, message: String::from_utf8_lossy(text).into_owned() })
        }
        Err(_) => Err(Refused { code: Code::Internal, maybe_done: true, message: "an answer makes no sense".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Slot;
    use crate::wire::answer::error;

    const ID: SessionId = SessionId { slot: Slot(3), position: 0, digest: 1 };

    /// What was said, in words.
    fn said(session: &mut Session) -> Vec<String> {
        let frames = session.take_frames();
        let words = |frame: &Vec<u8>| match ToReplica::decode(frame).expect("a frame") {
            ToReplica::Hello { .. } => "hello".to_owned(),
            ToReplica::Open { .. } => "open".to_owned(),
            ToReplica::Use { session, .. } => format!("use {}", session.slot),
            ToReplica::Request { number, seen, operation } => format!("{number:?}/{} {}", seen.0, operation[0]),
            ToReplica::Query { number, stale, .. } => format!("query {number} {stale}"),
            frame => format!("{frame:?}"),
        };
        frames.iter().map(words).map(|word| word.replace("RequestNumber", "")).collect()
    }

    fn hear(session: &mut Session, frame: &ToClient<'_>) -> Vec<Told> {
        let (mut bytes, mut told) = (Vec::new(), Vec::new());
        frame.encode(&mut bytes);
        session.hear(&bytes, &mut told);
        told
    }

    fn opened() -> Session {
        let mut session = Session::new(1);
        session.open();
        let token = session.opening.expect("just asked");
        assert_eq!(hear(&mut session, &ToClient::Opened { token, session: ID }), []);
        session.take_frames();
        session
    }

    fn reply(number: u64, answer: &[u8]) -> ToClient<'_> {
        ToClient::Reply { number: RequestNumber(number), slot: Slot(9), answer }
    }

    fn refused(number: u64, code: Code) -> ToClient<'static> {
        ToClient::Refused { refused: kind::REQUEST, number, code, maybe_done: false, message: "no" }
    }

    fn came(ticket: Ticket, code: Code, maybe_done: bool) -> Vec<Told> {
        vec![Told { ticket, came: Err(Refused { code, maybe_done, message: "no".into() }) }]
    }

    #[test]
    fn writes_wait_until_the_session_is_open() {
        let mut session = Session::new(1);
        session.request(7, vec![70]).expect("there is room");
        session.request(8, vec![80]).expect("there is room");
        assert_eq!(said(&mut session), ["hello", "open"]);
        let token = session.opening.expect("just asked");
        assert_eq!(hear(&mut session, &ToClient::Opened { token: token ^ 1, session: ID }), [], "another's");
        assert_eq!(hear(&mut session, &ToClient::Opened { token, session: ID }), []);
        assert_eq!(said(&mut session), ["(1)/0 70", "(2)/0 80"]);
        assert_eq!(session.bytes(), 2);
        assert_eq!(hear(&mut session, &reply(2, &[0, 5])), [Told { ticket: 8, came: Ok(vec![5]) }]);
        assert_eq!(hear(&mut session, &reply(2, &[0, 5])), [], "answered twice");
        assert_eq!(hear(&mut session, &reply(1, &error(Code::Exists, "no"))), came(7, Code::Exists, false));
        session.request(9, vec![90]).expect("there is room");
        assert_eq!(said(&mut session), ["(3)/2 90"]);
        assert_eq!(session.bytes(), 1);
    }

    #[test]
    fn an_opening_that_is_refused_turns_all_away() {
        let mut session = Session::new(1);
        session.request(7, vec![70]).expect("there is room");
        let number = session.opening.expect("just asked");
        let refusal =
            ToClient::Refused { refused: kind::OPEN, number, code: Code::NotPrimary, maybe_done: false, message: "no" };
        assert_eq!(hear(&mut session, &refusal), came(7, Code::NotPrimary, false));
        assert_eq!(session.bytes(), 0);
        session.open();
        assert_eq!(said(&mut session), ["hello", "open", "open"]);
    }

    #[test]
    fn a_number_that_was_turned_away_is_used_again_first() {
        let mut session = opened();
        (1..=3).for_each(|ticket| session.request(ticket, vec![ticket as u8]).expect("there is room"));
        said(&mut session);
        assert_eq!(hear(&mut session, &refused(1, Code::Full)), came(1, Code::Full, false));
        assert_eq!(hear(&mut session, &refused(2, Code::Busy)), came(2, Code::Busy, false));
        assert_eq!(hear(&mut session, &reply(3, &[0])).len(), 1);
        (4..=6).for_each(|ticket| session.request(ticket, vec![ticket as u8]).expect("there is room"));
        assert_eq!(said(&mut session), ["(1)/0 4", "(2)/0 5", "(4)/0 6"]);
        assert_eq!(hear(&mut session, &reply(1, &[0])).len(), 1);
        assert_eq!(hear(&mut session, &reply(2, &[0])).len(), 1);
        session.request(7, vec![7]).expect("there is room");
        assert_eq!(said(&mut session), ["(5)/3 7"]);
    }

    #[test]
    fn what_is_unanswered_is_said_again() {
        let mut session = opened();
        let first = session.client();
        session.request(1, vec![1]).expect("there is room");
        session.request(2, vec![2]).expect("there is room");
        session.query(3, true, vec![9]);
        assert_eq!(hear(&mut session, &reply(1, &[0])).len(), 1);
        session.on_hang_up();
        assert_ne!(session.client(), first);
        assert_eq!(said(&mut session), ["hello", "use 3", "(2)/1 2", "query 1 true"]);
        session.abandon(2);
        assert_eq!(hear(&mut session, &reply(2, &[0])), [], "nobody waits");
        assert_eq!(session.bytes(), 0);
    }

    /// The copy that the former client said may still wait to be ordered.
    #[test]
    fn what_was_said_before_may_be_done_though_it_is_refused_now() {
        let mut session = opened();
        session.request(1, vec![1]).expect("there is room");
        session.on_hang_up();
        said(&mut session);
        assert_eq!(hear(&mut session, &refused(1, Code::NotPrimary)), came(1, Code::NotPrimary, true));
        session.request(2, vec![2]).expect("there is room");
        assert_eq!(said(&mut session), ["(2)/1 2"], "its number has an answer of its own");
    }

    #[test]
    fn a_session_that_is_gone_is_opened_anew() {
        let mut session = opened();
        session.request(1, vec![1]).expect("there is room");
        said(&mut session);
        assert_eq!(hear(&mut session, &reply(1, &error(Code::Expired, "no"))), came(1, Code::Expired, true));
        assert!(!session.is_open());
        assert_eq!(said(&mut session), ["open"]);
        let token = session.opening.expect("just asked");
        hear(&mut session, &ToClient::Opened { token, session: ID });
        session.request(2, vec![2]).expect("there is room");
        assert_eq!(said(&mut session), ["(1)/0 2"]);
    }

    #[test]
    fn no_more_is_under_way_than_may() {
        let mut session = opened();
        for ticket in 0..HTTP_WRITES_MAX as u64 {
            session.request(ticket, vec![0]).expect("there is room");
        }
        assert_eq!(session.request(0, vec![0]).expect_err("full").code, Code::Busy);
        // One that is never answered holds the numbers behind it in the window.
        for number in 2..=SESSION_WINDOW {
            hear(&mut session, &reply(number, &[0]));
            let _ = session.request(number, vec![0]);
        }
        assert_eq!(session.next - 1, SESSION_WINDOW);
        hear(&mut session, &reply(1, &[0]));
        session.request(0, vec![0]).expect("the window moved");
    }
}
