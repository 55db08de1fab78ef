//! Exactly once across replicas that come and go (I3, DESIGN 7.1).
//!
//! Requests get rising numbers in one session and are kept until answered. When a replica fails, falls silent or is
//! not primary, the next one is told the session and gets every unanswered request again, under its number and in
//! number order. What is refused for now and certainly not done is sent again until patience ends; its number is then
//! free again. What was sent and never answered is reported as unknown, and its session is given up.
//!
//! Reads do not pass requests nor requests reads: what a caller submits takes effect in that order.

use crate::client::connection::{poll, Connection, PollFd};
use crate::client::error::{is_for_now, Done, Error};
use crate::client::servers::Server;
use crate::limits::SESSION_WINDOW;
use crate::types::{RequestNumber, SessionId, Slot};
use crate::wire::answer::{split, Code};
use crate::wire::client::{kind, Admin, ToClient, ToReplica};
use crate::wire::operation::SessionOperation;
use std::collections::hash_map::RandomState;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Bytes of operations that may be unanswered at once.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// Bytes encoded ahead of what the kernel took.
const AHEAD_BYTES_MAX: usize = 512 << 10;
/// With a timeout of 0 an attempt still gets this long to connect and to be answered.
const ATTEMPT: Duration = Duration::from_secs(2);
/// A connection attempt to one address takes no longer than this while there are other servers.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A replica that owes answers and says nothing for so long is left for the next; doubled with each in vain.
const SILENCE: Duration = Duration::from_secs(1);
/// How long answers still under way are waited for before a replica that is not primary is left.
const LEAVE: Duration = Duration::from_millis(200);
/// No wait is shorter, unless for something that can be read.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// The pause after all servers were tried in vain; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// An operation: ordered, and executed once.
    Request,
    /// A read, from the state that reflects all that was answered before.
    Query,
    /// A read that the replica may answer alone.
    StaleQuery,
    /// A question to the replica itself; the answer is JSON.
    Admin(Admin),
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Where the operation was executed, or the state the read saw; 0 for an administrative question.
    pub slot: Slot,
    /// What follows the code `Ok`, or JSON.
    pub body: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// Waits to be sent, for the first time or again.
    Queued,
    /// Sent on the present connection.
    Sent,
    /// Turned away for now by the present replica.
    Refused(Error),
    Done(Result<Slot, Error>),
}

#[derive(Debug)]
struct Entry {
    ask: Ask,
    state: State,
    /// The request's number in the session; 0 until it is sent for the first time.
    number: u64,
    /// Times it was sent without a refusal that says "certainly not done".
    copies: u32,
    since: Instant,
    /// The operation; once done, the answer.
    bytes: Vec<u8>,
}

impl Entry {
    fn is_done(&self) -> bool {
        matches!(self.state, State::Done(_))
    }

    fn may_be_done(&self) -> bool {
        self.ask == Ask::Request && self.copies > 0
    }
}

/// How far the present connection has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// HELLO is said.
    Greeting,
    /// Reads and questions may be sent.
    Welcome,
    /// OPEN is said.
    Opening,
    /// Requests may be sent.
    Attached,
}

/// A conversation with the group: answers come in the order in which things were submitted.
#[derive(Debug)]
pub struct Session {
    servers: Vec<Server>,
    timeout: Duration,
    /// The server in use or to be tried next: an index of `servers`.
    at: usize,
    connection: Option<Connection>,
    stage: Stage,
    id: SessionId,
    token: u64,
    next_number: u64,
    /// Ticket minus number of the requests in flight: these are consecutive in both.
    offset: u64,
    entries: VecDeque<Entry>,
    /// Ticket of `entries[0]`. Tickets count what was submitted.
    front: u64,
    /// Lowest ticket that is not done.
    open: u64,
    /// Lowest ticket that may have to be sent.
    cursor: u64,
    /// Entries in `State::Sent`, and the bytes of all that are not done.
    in_flight: usize,
    pending_bytes: usize,
    /// Servers tried in vain since the last answer, and how many of these will never do.
    tried: usize,
    hopeless: usize,
    retry_at: Option<Instant>,
    pause: Duration,
    /// The replica is not primary: it is left when nothing is in flight any more, or by then.
    leave_by: Option<Instant>,
    /// Answers so far ended here: patience counts from the later of this and the submission.
    progress: Instant,
    /// When the present connection was begun, or last heard of, or last owed nothing.
    heard: Instant,
    silence: Duration,
    /// The session is not in the table any more.
    expired: bool,
    /// No replica could be reached the last time: what follows gets a single attempt.
    impatient: bool,
    /// After a refusal was reported: one at a time until something is answered.
    cautious: bool,
    /// The last refusal or failure: what is reported when patience ends.
    trouble: Option<Error>,
}

impl Session {
    /// Nothing is connected before something is submitted. With a `timeout` of 0 each server is tried once.
    pub fn new(servers: Vec<Server>, timeout: Duration) -> Session {
        assert!(!servers.is_empty(), "a session needs a server");
        let now = Instant::now();
        Session {
            servers,
            timeout,
            at: 0,
            connection: None,
            stage: Stage::Greeting,
            id: SessionId::NONE,
            token: RandomState::new().build_hasher().finish() | 1,
            next_number: 1,
            offset: 0,
            entries: VecDeque::new(),
            front: 0,
            open: 0,
            cursor: 0,
            in_flight: 0,
            pending_bytes: 0,
            tried: 0,
            hopeless: 0,
            retry_at: None,
            pause: PAUSE_MIN,
            leave_by: None,
            progress: now,
            heard: now,
            silence: SILENCE,
            expired: false,
            impatient: false,
            cautious: false,
            trouble: None,
        }
    }

    /// Whether more may be submitted without keeping more than a bounded number of bytes and requests.
    pub fn has_room(&self) -> bool {
        (self.entries.len() as u64) < SESSION_WINDOW && self.pending_bytes < PENDING_BYTES_MAX
    }

    /// Answers not taken yet, those that are still to come included.
    pub fn pending(&self) -> usize {
        self.entries.len()
    }

    /// Asks for something; `write` appends the operation or query (nothing for an administrative question).
    /// It is sent by the next [`Session::turn`].
    pub fn submit(&mut self, ask: Ask, write: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        write(&mut bytes);
        self.submit_bytes(ask, bytes);
    }

    /// The same for an operation or query that is written already.
    pub fn submit_bytes(&mut self, ask: Ask, bytes: Vec<u8>) {
        let since = Instant::now();
        if !self.has_open() {
            (self.progress, self.heard) = (since, since);
        }
        self.pending_bytes += bytes.len();
        self.entries.push_back(Entry { ask, state: State::Queued, number: 0, copies: 0, since, bytes });
    }

    /// The answer to the oldest submission, if it is there.
    pub fn take(&mut self) -> Option<Result<Answer, Error>> {
        if !self.entries.front()?.is_done() {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.front += 1;
        match entry.state {
            State::Done(Ok(slot)) => Some(Ok(Answer { slot, body: entry.bytes })),
            State::Done(Err(error)) => Some(Err(error)),
            _ => unreachable!("is_done was asked"),
        }
    }

    /// Waits for the answer to the oldest submission. Panics if nothing was submitted.
    pub fn wait(&mut self) -> Result<Answer, Error> {
        assert!(!self.entries.is_empty(), "there is something to wait for");
        loop {
            match self.take() {
                Some(answer) => return answer,
                None => self.turn(None, None),
            };
        }
    }

    /// Submits and waits. Nothing else may be pending.
    pub fn call(&mut self, ask: Ask, write: impl FnOnce(&mut Vec<u8>)) -> Result<Answer, Error> {
        assert!(self.entries.is_empty(), "answers come in order");
        self.submit(ask, write);
        self.wait()
    }

    /// One turn: sends, waits until there is something to do, and reads. Returns at once when an answer is ready,
    /// when `until` has passed, and when `other` can be read: then with true.
    pub fn turn(&mut self, other: Option<RawFd>, until: Option<Instant>) -> bool {
        let now = Instant::now();
        self.give_up(now);
        if self.has_open() {
            self.reach(now);
            self.send_ready(now);
        } else {
            self.heard = now;
        }
        let wake = if self.entries.front().is_some_and(Entry::is_done) { Some(now) } else { self.wake(until) };
        let mut fds = [PollFd::new(-1, false, false); 2];
        if let Some(fd) = other {
            fds[0] = PollFd::new(fd, true, false);
        }
        if let Some(connection) = &self.connection {
            fds[1] = connection.interest();
        }
        let timeout = wake.map(|wake| wake.saturating_duration_since(Instant::now()));
        poll(&mut fds, timeout).expect("descriptors in use and a valid time are all that poll asks for");
        if fds[1].is_ready() {
            self.hear();
        }
        fds[0].is_ready()
    }

    /// Says that the session is over, without waiting for an answer: its place in the table is free at once.
    pub fn end(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if self.stage == Stage::Attached && !self.id.is_none() && self.in_flight == 0 {
            let mut operation = Vec::new();
            SessionOperation::End.encode(&mut operation);
            let number = RequestNumber(self.next_number);
            connection.send(&ToReplica::Request { number, seen: RequestNumber(number.0 - 1), operation: &operation });
            // Whoever leaves does not care: a session nobody speaks for ends by itself.
            let _ = connection.flush();
        }
        self.connection = None;
        self.id = SessionId::NONE;
        self.next_number = 1;
    }

    fn has_open(&self) -> bool {
        self.open < self.front + self.entries.len() as u64
    }

    fn entry(&mut self, ticket: u64) -> &mut Entry {
        &mut self.entries[(ticket - self.front) as usize]
    }

    /// The entries that are not done, and some that are.
    fn open_entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.entries.range_mut((self.open - self.front) as usize..).filter(|entry| !entry.is_done())
    }

    /// When there is something to do even if nobody says anything.
    fn wake(&self, until: Option<Instant>) -> Option<Instant> {
        if !self.has_open() {
            return until;
        }
        let silent = (self.owes() && self.servers.len() > 1).then(|| self.heard + self.silence_max());
        let first = &self.entries[(self.open - self.front) as usize];
        let over = first.since.max(self.progress) + self.patience();
        // What is over but not acted upon waits for something else; look again soon.
        let soon = Instant::now() + LOOK_AGAIN;
        let own = [silent, self.retry_at, self.leave_by, Some(over)].into_iter().flatten().min();
        [until, own.map(|wake| wake.max(soon))].into_iter().flatten().min()
    }

    /// Whether the present replica owes us something.
    fn owes(&self) -> bool {
        self.connection.is_some() && (self.in_flight > 0 || matches!(self.stage, Stage::Greeting | Stage::Opening))
    }

    // ---- reaching a replica

    /// Connects if nothing is connected and no pause is on.
    fn reach(&mut self, now: Instant) {
        if let Some(by) = self.leave_by {
            if self.in_flight == 0 || now >= by {
                self.leave(now);
            }
        } else if self.owes() && self.servers.len() > 1 && now >= self.heard + self.silence_max() {
            self.silence *= 2;
            let silent = Error::refused(Code::Busy, format!("{} does not answer", self.servers[self.at]));
            self.fail(silent, now);
        }
        if self.connection.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        let patience = if self.servers.len() > 1 { CONNECT_MAX } else { CONNECT_MAX.max(self.patience()) };
        match Connection::connect(&self.servers[self.at], patience) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.stage = Stage::Greeting;
                self.heard = Instant::now();
            }
            Err(e) => {
                let message = format!("no replica could be reached: {}: {e}", self.servers[self.at]);
                self.fail(Error::Unreachable { message }, now);
            }
        }
    }

    /// The present server is of no use now: remembers why and goes on to the next, after a pause once all were tried.
    fn fail(&mut self, why: Error, now: Instant) {
        // A refusal says more than a server that is not there.
        if !matches!((&self.trouble, &why), (Some(Error::Refused { .. }), Error::Unreachable { .. })) {
            self.trouble = Some(why);
        }
        self.leave(now);
    }

    fn leave(&mut self, now: Instant) {
        self.disconnect();
        self.at = (self.at + 1) % self.servers.len();
        self.tried += 1;
        if self.tried % self.servers.len() == 0 {
            self.pause_until_retry(now);
        }
    }

    fn pause_until_retry(&mut self, now: Instant) {
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Drops the connection: what was sent on it and not answered waits to be sent again.
    fn disconnect(&mut self) {
        self.connection = None;
        self.stage = Stage::Greeting;
        self.leave_by = None;
        self.requeue();
        self.in_flight = 0;
    }

    /// All that is not done waits to be sent, from the lowest ticket on.
    fn requeue(&mut self) {
        self.open_entries().for_each(|entry| entry.state = State::Queued);
        self.cursor = self.open;
    }

    // ---- sending

    fn send_ready(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| now >= at) && self.in_flight == 0 {
            self.retry_at = None;
            self.requeue();
        }
        if self.connection.is_none() || self.retry_at.is_some() || self.leave_by.is_some() {
            return;
        }
        if !self.owes() {
            self.heard = now;
        }
        while self.stage != Stage::Greeting && self.send_next() {}
        let flushed = self.connection.as_mut().map_or(Ok(()), Connection::flush);
        if let Err(e) = flushed {
            self.lost(&e, now);
        }
    }

    /// Sends what the cursor is at, or passes over it. False when nothing more can be sent now.
    fn send_next(&mut self) -> bool {
        let ticket = self.cursor;
        if ticket >= self.front + self.entries.len() as u64 || self.cautious && self.in_flight > 0 {
            return false;
        }
        let entry = &self.entries[(ticket - self.front) as usize];
        if matches!(entry.state, State::Sent | State::Done(_)) {
            self.cursor += 1;
            return true;
        }
        let is_request = entry.ask == Ask::Request;
        // What is in flight lies between `open` and the cursor, and is all of one kind.
        let other_kind = (self.entries[(self.open - self.front) as usize].ask == Ask::Request) != is_request;
        if self.in_flight > 0 && other_kind || is_request && !self.is_attached() {
            return false;
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
    fn is_attached(&mut self) -> bool {
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
                connection.send(&ToReplica::Use { session: self.id });
                self.stage = Stage::Attached;
                true
            }
        }
    }

    /// Gives a request its number. False while it would reach beyond the session's window.
    fn number(&mut self, ticket: u64) -> bool {
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
    fn seen(&self) -> u64 {
        let first = self.entries.get((self.open - self.front) as usize);
        match first {
            Some(entry) if entry.number > 0 => entry.number - 1,
            _ => self.next_number - 1,
        }
    }

    fn put(&mut self, ticket: u64) {
        let seen = RequestNumber(self.seen());
        let entry = &mut self.entries[(ticket - self.front) as usize];
        let connection = self.connection.as_mut().expect("asked by the caller");
        connection.send(&match entry.ask {
            Ask::Request => ToReplica::Request { number: RequestNumber(entry.number), seen, operation: &entry.bytes },
            Ask::Query => ToReplica::Query { number: ticket, stale: false, query: &entry.bytes },
            Ask::StaleQuery => ToReplica::Query { number: ticket, stale: true, query: &entry.bytes },
            Ask::Admin(what) => ToReplica::Admin { number: ticket, what },
        });
        entry.state = State::Sent;
        entry.copies += 1;
        self.in_flight += 1;
        self.cursor = ticket + 1;
    }

    // ---- hearing

    /// Reads what the replica says.
    fn hear(&mut self) {
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

    fn read(&mut self, connection: &mut Connection, now: Instant) -> io::Result<()> {
        let more = connection.fill();
        while let Some(frame) = connection.next_frame()? {
            self.on_frame(frame, now);
        }
        more.map(|_| ())
    }

    fn on_frame(&mut self, frame: ToClient<'_>, now: Instant) {
        match frame {
            ToClient::Welcome { .. } => {
                self.stage = Stage::Welcome;
                self.hopeless = 0;
                self.impatient = false;
            }
            ToClient::Opened { token, session } => {
                if token == self.token && self.stage == Stage::Opening {
                    self.id = session;
                    self.next_number = 1;
                    self.stage = Stage::Attached;
                }
            }
            ToClient::Reply { number, slot, answer } => {
                let ticket = self.offset.wrapping_add(number.0);
                match split(answer) {
                    // A request of a session that is not in the table is never executed.
                    Ok((Code::Expired, message)) => self.on_expired(ticket, text(message)),
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
        }
    }

    fn is_in_flight(&self, ticket: u64) -> bool {
        let index = ticket.wrapping_sub(self.front) as usize;
        self.entries.get(index).is_some_and(|entry| matches!(entry.state, State::Sent))
    }

    fn on_answer(&mut self, ticket: u64, slot: Slot, answer: &[u8], now: Instant) {
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
    fn finish(&mut self, ticket: u64, result: Result<Slot, Error>, length: usize, now: Instant) {
        self.in_flight -= 1;
        self.progress = now;
        (self.tried, self.pause, self.silence) = (0, PAUSE_MIN, SILENCE);
        self.cautious = false;
        self.trouble = None;
        self.settle(ticket, result, length);
    }

    fn settle(&mut self, ticket: u64, result: Result<Slot, Error>, length: usize) {
        self.entry(ticket).state = State::Done(result);
        self.pending_bytes -= length;
        while self.has_open() && self.entries[(self.open - self.front) as usize].is_done() {
            self.open += 1;
        }
        self.cursor = self.cursor.max(self.open);
    }

    fn on_refused(&mut self, refused: u8, number: u64, why: Error, now: Instant) {
        let Error::Refused { code, done, .. } = why else { return };
        let ticket = match refused {
            kind::REQUEST => self.offset.wrapping_add(number),
            kind::QUERY | kind::ADMIN => number,
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

    /// HELLO, OPEN or USE was refused.
    fn on_door_closed(&mut self, code: Code, why: Error, now: Instant) {
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
    fn turned_away(&mut self, code: Code, why: Error, now: Instant) {
        self.trouble = Some(why);
        if matches!(code, Code::NotPrimary | Code::Stopping) && self.servers.len() > 1 {
            self.leave_by.get_or_insert(now + LEAVE);
        } else if self.retry_at.is_none() {
            self.tried += 1;
            self.pause_until_retry(now);
        }
    }

    /// The session is gone. This copy was not executed; an earlier one, sent elsewhere, may have been.
    fn on_expired(&mut self, ticket: u64, message: String) {
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
    fn forget_session(&mut self) {
        self.expired = false;
        self.trouble = None;
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
    fn abandon_session(&mut self) {
        self.disconnect();
        self.id = SessionId::NONE;
        self.token = self.token.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(2) | 1;
        self.next_number = 1;
        self.open_entries().for_each(|entry| entry.number = 0);
    }

    /// The connection broke.
    fn lost(&mut self, e: &io::Error, now: Instant) {
        if !self.has_open() {
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

    // ---- giving up

    fn patience(&self) -> Duration {
        if self.impatient {
            Duration::ZERO
        } else {
            self.timeout
        }
    }

    /// How long the replica in use may take before an attempt counts as made.
    fn attempt(&self) -> Duration {
        match self.patience() {
            Duration::ZERO => ATTEMPT,
            patience => patience.min(ATTEMPT),
        }
    }

    fn silence_max(&self) -> Duration {
        match self.patience() {
            Duration::ZERO => self.silence,
            patience => self.silence.min(patience / 2),
        }
    }

    /// Reports what has waited long enough.
    fn give_up(&mut self, now: Instant) {
        while self.has_open() && self.is_over(now) {
            if !self.give_up_one() {
                return self.give_up_all();
            }
        }
    }

    /// Whether the oldest that is not done has had its time and at least one attempt at every server.
    fn is_over(&self, now: Instant) -> bool {
        if self.hopeless >= self.servers.len() {
            return true;
        }
        let first = &self.entries[(self.open - self.front) as usize];
        if now < first.since.max(self.progress) + self.patience() {
            return false;
        }
        let all_tried = self.tried >= self.servers.len();
        match first.state {
            State::Refused(_) => all_tried && self.in_flight == 0,
            _ if all_tried && self.connection.is_none() => true,
            _ if self.retry_at.is_some() => all_tried,
            _ => now >= self.heard + self.attempt(),
        }
    }

    /// Reports the refusal of the oldest alone, if all that waits is certainly not done: its number is free again,
    /// and what follows gets its own attempt. False where that is not so.
    fn give_up_one(&mut self) -> bool {
        if self.in_flight > 0 || self.connection.is_none() || self.open_entries().any(|entry| entry.may_be_done()) {
            return false;
        }
        let ticket = self.open;
        let entry = self.entry(ticket);
        let State::Refused(error) = &entry.state else { return false };
        let (error, length) = (error.clone(), entry.bytes.len());
        if error.is(Code::NotPrimary) || error.is(Code::Stopping) {
            return false;
        }
        self.renumber();
        self.settle(ticket, Err(error), length);
        self.requeue();
        self.retry_at = None;
        self.tried = 0;
        self.cautious = true;
        true
    }

    /// Nothing that waits may be done: its numbers are free again.
    fn renumber(&mut self) {
        let lowest = self.open_entries().map(|entry| std::mem::take(&mut entry.number)).filter(|&n| n > 0).min();
        self.next_number = lowest.unwrap_or(self.next_number);
    }

    fn give_up_all(&mut self) {
        let unknown = self.open_entries().any(|entry| entry.may_be_done());
        if !unknown {
            self.renumber();
        }
        let mut reachable = self.connection.is_some() && self.stage != Stage::Greeting;
        for ticket in self.open..self.front + self.entries.len() as u64 {
            if !self.entry(ticket).is_done() {
                let error = self.verdict(ticket);
                reachable |= !matches!(error, Error::Unreachable { .. });
                let length = self.entry(ticket).bytes.len();
                self.settle(ticket, Err(error), length);
            }
        }
        self.impatient |= !reachable;
        (self.tried, self.hopeless, self.trouble) = (0, 0, None);
        if unknown {
            self.abandon_session();
        } else if self.owes() {
            self.disconnect();
        }
        self.retry_at = None;
        self.leave_by = None;
    }

    /// What is reported about something that nobody answered.
    fn verdict(&mut self, ticket: u64) -> Error {
        let trouble = self.trouble.clone();
        let server = self.servers[self.at].to_string();
        let seconds = self.patience().max(self.attempt()).as_secs_f32();
        let greeting = self.stage == Stage::Greeting;
        let entry = self.entry(ticket);
        if entry.may_be_done() {
            let why = trouble.map(|e| format!(": {e}")).unwrap_or_default();
            let message = format!("sent, and no answer within {seconds} s; it may have been done{why}");
            return Error::Refused { code: Code::UnknownOutcome, message, done: Done::Unknown };
        }
        match (&entry.state, trouble) {
            (State::Refused(Error::Refused { code, message, .. }), _) => Error::refused(*code, message.clone()),
            (_, Some(Error::Refused { code, message, .. })) => Error::refused(code, message),
            (_, Some(unreachable)) => unreachable,
            (_, None) if greeting => {
                Error::Unreachable { message: format!("no replica could be reached: {server} does not answer") }
            }
            (_, None) => Error::refused(Code::Busy, format!("{server} gave no answer within {seconds} s")),
        }
    }
}

/// A message for people, whatever the bytes are.
fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake::{items_of, Fake, PATIENT};
    use crate::wire::operation::{QueueOperation, QueueQuery, Target};

    fn push(session: &mut Session, item: &str) {
        let target = Target::Label("q");
        session.submit(Ask::Request, |out| {
            QueueOperation::encode_push(out, target, [item.as_bytes()].into_iter());
        });
    }

    fn pop(session: &mut Session) {
        session.submit(Ask::Request, |out| QueueOperation::Pop { target: Target::Label("q"), count: 1 }.encode(out));
    }

    fn size(session: &mut Session) {
        session.submit(Ask::Query, |out| QueueQuery::Size { target: Target::Label("q") }.encode(out));
    }

    fn number(answer: &Result<Answer, Error>) -> u8 {
        answer.as_ref().expect("answered").body[0]
    }

    fn items(fake: &Fake) -> Vec<String> {
        let group = fake.group();
        let queue = group.queues.values().next().map(|(_, items)| items.clone()).unwrap_or_default();
        queue.into_iter().map(|item| String::from_utf8(item).expect("pushed as text")).collect()
    }

    #[test]
    fn answers_come_in_the_order_of_submission_and_reads_keep_their_place() {
        let fake = Fake::new(1);
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        push(&mut session, "a");
        size(&mut session);
        push(&mut session, "b");
        push(&mut session, "c");
        size(&mut session);
        pop(&mut session);
        assert!(session.wait().is_ok());
        assert_eq!(number(&session.wait()), 1);
        assert!(session.wait().is_ok() && session.wait().is_ok());
        assert_eq!(number(&session.wait()), 3);
        assert_eq!(items_of(&session.wait().expect("an item").body), [b"a"]);
        assert_eq!(session.pending(), 0);
    }

    #[test]
    fn reads_alone_open_no_session() {
        let fake = Fake::new(1);
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        size(&mut session);
        assert!(session.wait().is_err_and(|e| e.is(Code::NoQueue)));
        assert!(fake.group().sessions.is_empty());
    }

    #[test]
    fn lost_answers_and_lost_requests_are_executed_once_and_in_order() {
        let fake = Fake::new(3);
        {
            let mut group = fake.group();
            group.moods[0].drop_answers = 5;
            group.moods[1].drop_requests = 3;
            group.moods[1].twice = true;
            group.moods[2].drop_answers = 4;
        }
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        for k in 0..500 {
            push(&mut session, &k.to_string());
        }
        for _ in 0..500 {
            session.wait().expect("the group never forgets");
        }
        assert_eq!(items(&fake), (0..500).map(|k| k.to_string()).collect::<Vec<_>>());
        let group = fake.group();
        assert_eq!(group.executed, 500);
        assert!(group.repeated >= 5, "only {} came again", group.repeated);
        assert_eq!(group.numbers, (1..=500).collect::<Vec<_>>());
    }

    #[test]
    fn a_replica_that_is_not_primary_is_left_for_the_next() {
        let fake = Fake::new(2);
        fake.group().moods[0].refuse = Some((Code::NotPrimary, u32::MAX));
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        push(&mut session, "a");
        session.wait().expect("the second is primary");
        assert_eq!(items(&fake), ["a"]);
    }

    #[test]
    fn a_silent_replica_is_left_for_the_next() {
        let fake = Fake::new(2);
        fake.group().moods[0].mute = true;
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        push(&mut session, "a");
        session.wait().expect("the second speaks");
    }

    #[test]
    fn refusals_for_now_pass_and_nothing_is_reordered() {
        let fake = Fake::new(1);
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        push(&mut session, "0");
        session.wait().expect("welcome");
        fake.group().moods[0].refuse = Some((Code::Full, 30));
        for k in 1..20 {
            push(&mut session, &k.to_string());
        }
        for _ in 1..20 {
            session.wait().expect("there is room again");
        }
        assert_eq!(items(&fake), (0..20).map(|k| k.to_string()).collect::<Vec<_>>());
        assert_eq!(fake.group().numbers, (1..=20).collect::<Vec<_>>());
    }

    #[test]
    fn a_refusal_that_stays_is_reported_and_its_number_is_free_again() {
        let fake = Fake::new(1);
        let mut session = Session::new(fake.servers.clone(), Duration::ZERO);
        push(&mut session, "a");
        session.wait().expect("welcome");
        fake.group().moods[0].refuse = Some((Code::Full, 4));
        for item in ["b", "c", "d"] {
            push(&mut session, item);
        }
        let answers: Vec<_> = (0..3).map(|_| session.wait()).collect();
        assert!(answers[0].as_ref().is_err_and(|e| e.is(Code::Full) && e.done() == Done::No), "{answers:?}");
        assert!(answers[2].is_ok(), "{answers:?}");
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(fake.group().numbers, (1..=4 - refused as u64).collect::<Vec<_>>());
    }

    #[test]
    fn not_primary_anywhere_is_reported_as_not_done() {
        let fake = Fake::new(2);
        for mood in &mut fake.group().moods {
            mood.refuse = Some((Code::NotPrimary, u32::MAX));
        }
        for timeout in [Duration::ZERO, Duration::from_millis(50)] {
            let mut session = Session::new(fake.servers.clone(), timeout);
            push(&mut session, "a");
            let error = session.wait().expect_err("nobody is primary");
            assert_eq!((error.exit_status(), error.done()), (75, Done::No), "{error}");
            assert_eq!(error.message(), "because");
        }
        assert!(fake.group().connections[1] >= 2, "both were tried");
    }

    #[test]
    fn sent_and_never_answered_is_unknown() {
        let fake = Fake::new(1);
        let mut session = Session::new(fake.servers.clone(), Duration::from_millis(100));
        push(&mut session, "a");
        session.wait().expect("welcome");
        fake.group().moods[0].mute = true;
        push(&mut session, "b");
        size(&mut session);
        let error = session.wait().expect_err("nobody answers");
        assert_eq!((error.exit_status(), error.done()), (79, Done::Unknown), "{error}");
        let error = session.wait().expect_err("nobody answers");
        assert_eq!((error.exit_status(), error.done()), (75, Done::No), "a read was not done: {error}");
        fake.group().moods[0].mute = false;
        push(&mut session, "c");
        session.wait().expect("answered again, in a new session");
        assert_eq!(fake.group().sessions.len(), 2);
    }

    #[test]
    fn refused_here_after_being_lost_there_is_unknown() {
        let fake = Fake::new(2);
        let mut session = Session::new(fake.servers.clone(), Duration::from_millis(200));
        push(&mut session, "a");
        session.wait().expect("welcome");
        {
            let mut group = fake.group();
            group.moods[0].drop_answers = u32::MAX;
            group.moods[1].refuse = Some((Code::Full, u32::MAX));
        }
        push(&mut session, "b");
        let error = session.wait().expect_err("lost, then refused");
        assert_eq!((error.exit_status(), error.done()), (79, Done::Unknown), "{error}");
    }

    #[test]
    fn an_expired_session_is_opened_anew_unless_something_may_be_done() {
        let fake = Fake::new(2);
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        push(&mut session, "a");
        session.wait().expect("welcome");
        fake.group().sessions.clear();
        push(&mut session, "b");
        push(&mut session, "c");
        session.wait().expect("asked anew");
        session.wait().expect("asked anew");
        assert_eq!(items(&fake), ["a", "b", "c"]);
        fake.group().moods.iter_mut().for_each(|mood| mood.drop_answers = 1);
        push(&mut session, "d");
        while fake.group().executed < 4 {
            session.turn(None, None);
        }
        fake.group().sessions.clear();
        assert_eq!(session.wait().expect_err("its answer is gone").exit_status(), 79);
        assert_eq!(items(&fake), ["a", "b", "c", "d"]);
    }

    #[test]
    fn nobody_there_is_unreachable_and_a_stranger_is_a_version() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let nobody = vec![Server::Tcp(closed.to_string())];
        let mut session = Session::new(nobody, Duration::ZERO);
        push(&mut session, "a");
        push(&mut session, "b");
        assert_eq!(session.wait().expect_err("nobody is there").exit_status(), 69);
        assert_eq!(session.wait().expect_err("nobody is there").exit_status(), 69);
        let fake = Fake::new(1);
        fake.group().moods[0].foreign = true;
        let mut session = Session::new(fake.servers.clone(), PATIENT);
        push(&mut session, "a");
        assert_eq!(session.wait().expect_err("another version").exit_status(), 76);
    }

    #[test]
    fn the_session_is_ended_when_the_client_leaves() {
        let fake = Fake::new(1);
        let mut client = crate::client::Client::new(fake.servers.clone(), PATIENT);
        client.push_int("q", -7).expect("pushed");
        assert_eq!(client.pop_int("q").expect("popped"), -7);
        drop(client);
        let by = Instant::now() + PATIENT;
        while fake.group().ended == 0 {
            assert!(Instant::now() < by, "the session was not ended");
            std::thread::yield_now();
        }
    }
}
