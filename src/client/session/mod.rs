//! Exactly once across replicas that come and go (I3, DESIGN 7.1).
//!
//! Requests get rising numbers in one session and are kept until answered. When a replica fails, falls silent or is
//! not primary, the next one is told the session and gets every unanswered request again, under its number and in
//! number order. What is refused for now and certainly not done is sent again until patience ends: under its number
//! where a door refused it, under a new one where the refusal is the answer that its number has for ever. What was
//! sent and never answered is reported as unknown, and its session is given up, unless a file keeps it ([`kept`]).
//!
//! Reads do not pass requests nor requests reads: what a caller submits takes effect in that order.

mod hear;
pub mod kept;
mod patience;
mod reach;
mod send;
#[cfg(test)]
mod tests;
mod withdraw;

use self::kept::Kept;
use self::reach::{PAUSE_MIN, SILENCE};
pub use self::withdraw::Withdrawn;
use crate::client::connection::{poll, Connection, PollFd};
use crate::client::error::Error;
use crate::client::servers::Server;
use crate::limits::SESSION_WINDOW;
use crate::types::{ClusterId, RequestNumber, SessionId, Slot};
use crate::wire::client::{Admin, ToReplica};
use crate::wire::operation::SessionOperation;
use std::collections::hash_map::RandomState;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Bytes of operations that may be unanswered at once.
const PENDING_BYTES_MAX: usize = 4 << 20;
/// What is submitted so soon after patience ended belongs to the same stream: the group was given its time.
const CLOSELY: Duration = Duration::from_secs(1);
/// No wait is shorter, unless for something that can be read.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// An operation: ordered, and executed once.
    Request,
    /// An operation that may rightly wait for its answer so long.
    Waiting(Duration),
    /// Nothing but that there is a session.
    Session,
    /// A read, from the state that reflects all that was answered before.
    Query,
    /// A read that the replica may answer alone.
    StaleQuery,
    /// A question to the replica itself; the answer is JSON.
    Admin(Admin),
}

impl Ask {
    fn is_request(self) -> bool {
        matches!(self, Ask::Request | Ask::Waiting(_))
    }

    /// This moment and as long as the answer may be away; `None` for ever.
    fn waits_from(self, moment: Instant) -> Option<Instant> {
        match self {
            Ask::Waiting(time) => moment.checked_add(time),
            _ => Some(moment),
        }
    }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Where the operation was executed, or the state the read saw; 0 where it was neither.
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
    /// The number has a refusal for its answer: another one is needed.
    spent: bool,
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
        self.ask.is_request() && self.copies > 0
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
    /// Requests go as single datagrams.
    datagrams: bool,
    /// The session outlasts this process.
    kept: Option<Kept>,
    /// The group of the present connection; 0 where that is not known.
    group: ClusterId,
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
    /// Some open entry's number is spent: numbers are given anew once nothing that is open may be done.
    spent: bool,
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
    /// When the present connection was begun.
    connected: Instant,
    /// It was asked whether it still serves, and is yet to answer.
    pinged: bool,
    /// The session is not in the table any more.
    expired: bool,
    /// When patience ended last, if nothing was answered since: what follows closely gets a single attempt.
    gave_up: Option<Instant>,
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
            datagrams: false,
            kept: None,
            group: ClusterId(0),
            token: RandomState::new().build_hasher().finish() | 1,
            next_number: 1,
            offset: 0,
            entries: VecDeque::new(),
            front: 0,
            open: 0,
            cursor: 0,
            in_flight: 0,
            pending_bytes: 0,
            spent: false,
            tried: 0,
            hopeless: 0,
            retry_at: None,
            pause: PAUSE_MIN,
            leave_by: None,
            progress: now,
            heard: now,
            silence: SILENCE,
            connected: now,
            pinged: false,
            expired: false,
            gave_up: None,
            cautious: false,
            trouble: None,
        }
    }

    /// From now on requests go as single datagrams, until one or its answer fits none: then over connections.
    pub fn use_datagrams(&mut self) {
        self.datagrams = true;
    }

    /// Whether requests were to go as single datagrams.
    pub fn uses_datagrams(&self) -> bool {
        self.datagrams
    }

    /// Whether more may be submitted without keeping more than a bounded number of bytes and requests.
    pub fn has_room(&self) -> bool {
        (self.entries.len() as u64) < SESSION_WINDOW && self.pending_bytes < PENDING_BYTES_MAX
    }

    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
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
        self.submit_numbered(ask, 0, bytes);
    }

    fn submit_numbered(&mut self, ask: Ask, number: u64, bytes: Vec<u8>) {
        let since = Instant::now();
        if !self.has_open() {
            (self.progress, self.heard) = (since, since);
            self.gave_up = self.gave_up.filter(|&at| since < at + CLOSELY);
        }
        self.pending_bytes += bytes.len();
        self.entries.push_back(Entry { ask, state: State::Queued, number, spent: false, copies: 0, since, bytes });
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
        let leaves = self.stage == Stage::Attached && self.kept.is_none();
        if leaves && !self.id.is_none() && self.in_flight == 0 {
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
        let silent = self.doubts_at();
        let over = self.over_at();
        // What is over but not acted upon waits for something else; look again soon.
        let soon = Instant::now() + LOOK_AGAIN;
        // The server just tried was of no use, and the next one need not be waited for.
        let next = (self.connection.is_none() && self.retry_at.is_none()).then_some(soon);
        let again = self.connection.as_ref().and_then(Connection::deadline);
        let own = [silent, next, again, self.retry_at, self.leave_by, over].into_iter().flatten().min();
        [until, own.map(|wake| wake.max(soon))].into_iter().flatten().min()
    }

    /// Whether the present replica owes us something.
    fn owes(&self) -> bool {
        self.connection.is_some() && (self.in_flight > 0 || matches!(self.stage, Stage::Greeting | Stage::Opening))
    }
}

/// A message for people, whatever the bytes are.
fn text(message: &[u8]) -> String {
    String::from_utf8_lossy(message).into_owned()
}
