//! A virtual client: opens a session, sends requests under rising numbers without waiting for answers, reads. A
//! faulty one loses answers, moves to another replica and sends again under the same numbers, sends old requests late,
//! and dies. With what it just learnt it now and then asks another replica, which may lag: an errand.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ftq::rng::Rng;
use ftq::types::{ClientId, RequestNumber, SessionId};
use ftq::wire::answer::{split, Code};
use ftq::wire::client::{kind, ToClient, ToReplica, VERSION};

use super::clock::{Nanos, MS};
use super::judges::Judges;
use super::plan::Load;
use super::services::Habits;
use super::tally::Tally;
use super::workload;

/// After a refusal: how long to wait before asking again, at first and at most.
const BACK_OFF_MIN: Nanos = 10 * MS;
const BACK_OFF_MAX: Nanos = 640 * MS;
/// How long it waits to be greeted.
const GREETING_WAIT: Nanos = 1000 * MS;
/// Chances in a million that what an answer tells is taken to another replica.
const ERRAND_PPM: u32 = 300_000;

/// What a client does to its connections.
#[derive(Debug)]
pub enum Act {
    Connect { connection: ClientId, replica: usize },
    Send { connection: ClientId, frame: Vec<u8> },
    Close { connection: ClientId },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeting,
    Opening,
    Ready,
}

/// A request that was answered, kept to be sent once more, late.
#[derive(Debug)]
struct Old {
    number: u64,
    seen: u64,
    operation: Rc<[u8]>,
    at: Nanos,
}

#[derive(Debug)]
pub struct Client {
    index: usize,
    load: Load,
    replicas: usize,
    /// The replica it connected to last.
    at: usize,
    faulty: bool,
    /// Never answered, and never will be: it is gone.
    pub dead: bool,
    token: u64,
    session: Option<SessionId>,
    current: Option<(ClientId, Stage)>,
    connections: u64,
    /// Of which so many were for earlier sessions: what still comes on them is of no use.
    past: u64,
    to_do: u32,
    issue_at: Nanos,
    next: u64,
    seen: u64,
    answered: BTreeSet<u64>,
    requests: BTreeMap<u64, Rc<[u8]>>,
    next_query: u64,
    queries: BTreeMap<u64, (Rc<[u8]>, bool)>,
    old: Option<Old>,
    habits: Habits,
    /// A connection for one stale read at another replica, and what is asked there.
    errand: Option<(ClientId, Rc<[u8]>)>,
    /// After a refusal: when to send everything unanswered again.
    again_at: Option<Nanos>,
    /// How long after the next one: longer each time, until something is answered.
    back_off: Nanos,
    /// How long it waits for any answer before it moves.
    patience: Nanos,
    heard_at: Nanos,
    rng: Rng,
    pub acts: Vec<Act>,
}

impl Client {
    pub fn new(index: usize, load: Load, replicas: usize, faulty: bool, mut rng: Rng) -> Client {
        Client {
            index,
            load,
            replicas,
            at: 0,
            faulty,
            dead: false,
            token: rng.next_u64(),
            session: None,
            current: None,
            connections: 0,
            past: 0,
            to_do: load.requests,
            issue_at: 0,
            next: 1,
            seen: 0,
            answered: BTreeSet::new(),
            requests: BTreeMap::new(),
            next_query: 1,
            queries: BTreeMap::new(),
            old: None,
            habits: Habits::new(),
            errand: None,
            again_at: None,
            back_off: BACK_OFF_MIN,
            // Who never asks again finds out whether the group itself loses anything.
            patience: if rng.chance(500_000) { 3_600_000 * MS } else { rng.between(300 * MS, 2000 * MS) },
            heard_at: 0,
            rng,
            acts: Vec::new(),
        }
    }

    /// The faults stop: it behaves, and comes to its end soon. Where nobody may ever answer it `moves` in time.
    pub fn calm(&mut self, moves: bool) {
        self.faulty = false;
        if moves {
            self.patience = self.patience.min(1500 * MS);
        }
        self.to_do = self.to_do.min(5);
        self.old = None;
    }

    pub fn connection(&self) -> Option<ClientId> {
        self.current.map(|(connection, _)| connection)
    }

    /// Whether nothing is left to be answered.
    pub fn is_done(&self) -> bool {
        self.dead || self.to_do == 0 && self.requests.is_empty() && self.queries.is_empty()
    }

    /// What it still waits for.
    pub fn waits_for(&self) -> String {
        let lowest = self.requests.keys().next();
        let unanswered = (self.requests.len(), self.queries.len());
        format!(
            "client {} (at {:?}, session {:?}) waits for {unanswered:?} from {lowest:?}",
            self.index, self.current, self.session
        )
    }

    /// Does what is due. When to be woken again. Of its own accord it dies and moves only when nothing else woke it.
    pub fn wake(&mut self, now: Nanos, by_timer: bool, judges: &mut Judges, tally: &mut Tally) -> Option<Nanos> {
        if self.dead {
            return None;
        }
        if by_timer && self.faulty && self.rng.chance(2_000) {
            tally.fault("client died");
            self.dead = true;
            self.take_leave(judges);
            self.leave();
            return None;
        }
        if self.waits() && now >= self.heard_at + self.patience() || by_timer && self.faulty && self.rng.chance(8_000) {
            tally.fault("client moved");
            self.leave();
        }
        if self.current.is_none() {
            self.connect(now);
        }
        if let Some((connection, Stage::Ready)) = self.current {
            if self.again_at.is_some_and(|at| at <= now) {
                self.again_at = None;
                self.send_again(connection, judges);
            }
            self.issue(connection, now, judges);
            self.send_old(connection, now, judges, tally);
        } else if self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            self.greet_again(judges);
        }
        let patience = self.waits().then_some(self.heard_at + self.patience());
        let issue = (self.to_do > 0 && self.has_room()).then_some(self.issue_at);
        let old = self.old.as_ref().map(|old| old.at);
        [patience, issue, old, self.again_at].into_iter().flatten().min().map(|at| at.max(now + 1))
    }

    /// Who is not even greeted tries elsewhere soon.
    fn patience(&self) -> Nanos {
        match self.current {
            Some((_, Stage::Greeting)) => self.patience.min(GREETING_WAIT),
            _ => self.patience,
        }
    }

    fn waits(&self) -> bool {
        !self.requests.is_empty() || !self.queries.is_empty() || !matches!(self.current, Some((_, Stage::Ready)))
    }

    fn has_room(&self) -> bool {
        matches!(self.current, Some((_, Stage::Ready))) && self.next - self.seen <= self.load.pipeline
    }

    /// Some end their sessions before they go, whatever they still wait for; some have just begun to wait.
    fn take_leave(&mut self, judges: &mut Judges) {
        if let (Some((connection, Stage::Ready)), true) = (self.current, self.rng.chance(500_000)) {
            if self.rng.chance(500_000) {
                let waiting = workload::waiting(&mut self.rng, &self.load);
                self.send_request(connection, self.next, &waiting.into(), judges);
                self.next += 1;
            }
            self.send_request(connection, self.next, &workload::ending().into(), judges);
        }
    }

    /// Leaves the connection, in order or with the other side none the wiser.
    fn leave(&mut self) {
        if let Some((connection, _)) = self.current.take() {
            if !self.faulty || self.rng.chance(600_000) {
                self.acts.push(Act::Close { connection });
            }
        }
    }

    fn connect(&mut self, now: Nanos) {
        self.connections += 1;
        let connection = ClientId((self.index as u64) << 32 | self.connections);
        // In the end nobody stays away from the one that serves by chance.
        let next = if self.faulty { self.rng.below(self.replicas as u64) as usize } else { self.at + 1 };
        let replica = next % self.replicas;
        self.at = replica;
        self.acts.push(Act::Connect { connection, replica });
        self.current = Some((connection, Stage::Greeting));
        self.heard_at = now;
        self.again_at = None;
        self.send(connection, &ToReplica::Hello { version: VERSION });
    }

    /// Takes what it just learnt to another replica, beside its own connection. Whatever was asked on the errand before
    /// this one is given up.
    fn run_errand(&mut self, answered: &[u8], judges: &mut Judges) {
        if self.replicas == 1 || !self.rng.chance(ERRAND_PPM) {
            return;
        }
        let Some(query) = self.habits.errand(answered) else { return };
        self.end_errand();
        self.connections += 1;
        let connection = ClientId((self.index as u64) << 32 | self.connections);
        let replica = (self.at + 1 + self.rng.below(self.replicas as u64 - 1) as usize) % self.replicas;
        let (query, number): (Rc<[u8]>, u64) = (query.into(), 1);
        self.acts.push(Act::Connect { connection, replica });
        self.send(connection, &ToReplica::Hello { version: VERSION });
        judges.asks(connection, number, &query, true);
        self.send(connection, &ToReplica::Query { number, stale: true, query: &query });
        self.errand = Some((connection, query));
    }

    fn end_errand(&mut self) {
        if let Some((connection, _)) = self.errand.take() {
            self.acts.push(Act::Close { connection });
        }
    }

    fn send(&mut self, connection: ClientId, frame: &ToReplica<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.acts.push(Act::Send { connection, frame: bytes });
    }

    fn greet_again(&mut self, judges: &mut Judges) {
        if let (Some((connection, Stage::Opening)), None) = (self.current, self.session) {
            judges.sends(SessionId::NONE, self.token, &workload::opening().into());
            self.send(connection, &ToReplica::Open { token: self.token });
        }
    }

    /// Everything unanswered, in number order.
    fn send_again(&mut self, connection: ClientId, judges: &mut Judges) {
        let requests: Vec<_> = self.requests.iter().map(|(&number, operation)| (number, operation.clone())).collect();
        requests.iter().for_each(|(number, operation)| self.send_request(connection, *number, operation, judges));
        let queries: Vec<_> = self.queries.iter().map(|(&number, query)| (number, query.clone())).collect();
        for (number, (query, stale)) in queries {
            judges.asks(connection, number, &query, stale);
            self.send(connection, &ToReplica::Query { number, stale, query: &query });
        }
    }

    fn send_request(&mut self, connection: ClientId, number: u64, operation: &Rc<[u8]>, judges: &mut Judges) {
        judges.sends(self.session.expect("it is ready"), number, operation);
        let (number, seen) = (RequestNumber(number), RequestNumber(self.seen));
        self.send(connection, &ToReplica::Request { number, seen, operation });
    }

    fn issue(&mut self, connection: ClientId, now: Nanos, judges: &mut Judges) {
        while self.to_do > 0 && self.has_room() && self.issue_at <= now {
            self.to_do -= 1;
            self.issue_at = self.issue_at.max(now.saturating_sub(100 * MS)) + self.rng.below(2 * self.load.gap_ns + 1);
            if !self.waits() {
                self.heard_at = now;
            }
            if self.rng.chance(self.load.query_ppm) {
                let query: Rc<[u8]> = workload::query(&mut self.rng, &self.load, &mut self.habits).into();
                let (number, stale) = (self.next_query, self.rng.chance(100_000));
                self.next_query += 1;
                judges.asks(connection, number, &query, stale);
                self.send(connection, &ToReplica::Query { number, stale, query: &query });
                self.queries.insert(number, (query, stale));
            } else {
                let number = self.next;
                self.next += 1;
                let (rng, habits) = (&mut self.rng, &mut self.habits);
                let operation: Rc<[u8]> = workload::operation(rng, &self.load, habits, self.index, number).into();
                self.send_request(connection, number, &operation, judges);
                self.requests.insert(number, operation);
            }
        }
    }

    fn send_old(&mut self, connection: ClientId, now: Nanos, judges: &mut Judges, tally: &mut Tally) {
        if let Some(old) = self.old.take_if(|old| old.at <= now) {
            tally.fault("old request sent late");
            judges.sends(self.session.expect("it is ready"), old.number, &old.operation);
            let (number, seen) = (RequestNumber(old.number), RequestNumber(old.seen));
            self.send(connection, &ToReplica::Request { number, seen, operation: &old.operation });
        }
    }

    /// The connection is gone.
    pub fn on_close(&mut self, connection: ClientId) {
        if self.current.is_some_and(|(own, _)| own == connection) {
            self.current = None;
        }
        self.errand.take_if(|(own, _)| *own == connection);
    }

    /// A frame arrives, unless it is lost with its connection.
    pub fn on_frame(
        &mut self,
        now: Nanos,
        connection: ClientId,
        frame: &ToClient<'_>,
        judges: &mut Judges,
        tally: &mut Tally,
    ) {
        let number = connection.0 & u64::from(u32::MAX);
        if self.dead || number <= self.past {
            return;
        }
        if self.faulty && self.rng.chance(10_000) {
            tally.fault("answer lost");
            self.acts.push(Act::Close { connection });
            return self.on_close(connection);
        }
        self.heard_at = now;
        let is_current = self.current.is_some_and(|(own, _)| own == connection);
        if self.errand.as_ref().is_some_and(|(own, _)| *own == connection) {
            return self.on_errand(frame, judges, tally);
        }
        match *frame {
            ToClient::Welcome { .. } if is_current => self.on_welcome(connection, judges),
            ToClient::Opened { token, session } if token == self.token => {
                judges.hears(session.slot);
                self.session.get_or_insert(session);
                if is_current && self.session == Some(session) {
                    self.current = Some((connection, Stage::Ready));
                    self.send_again(connection, judges);
                } else if is_current {
                    self.on_welcome(connection, judges);
                }
            }
            ToClient::Reply { number, slot, answer } => {
                judges.hears(slot);
                if let Some(operation) = self.requests.get(&number.0).cloned() {
                    self.habits.hear(&operation, answer);
                    self.run_errand(&operation, judges);
                }
                tally.answers += u64::from(self.on_answer(number.0, now));
                if matches!(split(answer), Ok((Code::Expired, _))) {
                    self.begin_anew(tally);
                }
            }
            ToClient::Found { number, slot, answer } => {
                judges.hears(slot);
                let asked = self.queries.remove(&number);
                tally.reads += u64::from(asked.is_some());
                if let Some((query, stale)) = asked {
                    self.habits.found(&query, stale, answer);
                    self.run_errand(&query, judges);
                }
            }
            ToClient::Refused { refused, number, code, .. } if is_current => {
                self.on_refused(now, refused, number, code, tally);
            }
            _ => {}
        }
    }

    /// What the other replica says.
    fn on_errand(&mut self, frame: &ToClient<'_>, judges: &mut Judges, tally: &mut Tally) {
        match *frame {
            ToClient::Welcome { .. } => return,
            ToClient::Found { slot, answer, .. } => {
                judges.hears(slot);
                tally.reads += 1;
                if let Some((_, query)) = &self.errand {
                    self.habits.errand_found(query, answer);
                }
            }
            _ => {}
        }
        self.end_errand();
    }

    fn on_welcome(&mut self, connection: ClientId, judges: &mut Judges) {
        match self.session {
            Some(session) => {
                self.current = Some((connection, Stage::Ready));
                self.send(connection, &ToReplica::Use { session, keep: false });
                self.send_again(connection, judges);
            }
            None => {
                self.current = Some((connection, Stage::Opening));
                self.greet_again(judges);
            }
        }
    }

    /// Its session is gone. What it has asked in it stays without an answer: whether it was done, nobody can tell it.
    fn begin_anew(&mut self, tally: &mut Tally) {
        tally.fault("session expired");
        self.leave();
        self.session = None;
        self.past = self.connections;
        self.token = self.rng.next_u64();
        (self.next, self.seen, self.old) = (1, 0, None);
        self.answered.clear();
        self.requests.clear();
    }

    /// True for the first answer to a request.
    fn on_answer(&mut self, number: u64, now: Nanos) -> bool {
        self.back_off = BACK_OFF_MIN;
        let Some(operation) = self.requests.remove(&number) else { return false };
        if self.faulty && self.rng.chance(20_000) {
            let at = now + self.rng.between(0, 500 * MS);
            self.old = Some(Old { number, seen: self.seen, operation, at });
        }
        self.answered.insert(number);
        while self.answered.remove(&(self.seen + 1)) {
            self.seen += 1;
        }
        true
    }

    fn on_refused(&mut self, now: Nanos, refused: u8, number: u64, code: Code, tally: &mut Tally) {
        let for_now = matches!(code, Code::NotPrimary | Code::Full | Code::DiskFull | Code::Stopping | Code::Busy);
        tally.fault("refused at the door");
        match refused {
            _ if code == Code::Expired => self.begin_anew(tally),
            kind::REQUEST if !for_now => {
                self.on_answer(number, now);
            }
            kind::QUERY if !for_now => {
                self.queries.remove(&number);
            }
            _ if self.again_at.is_none() && self.rng.chance(if self.faulty { 200_000 } else { 500_000 }) => {
                self.leave()
            }
            _ if self.again_at.is_none() => {
                self.again_at = Some(now + self.rng.between(self.back_off / 2, self.back_off));
                self.back_off = (2 * self.back_off).min(BACK_OFF_MAX);
            }
            _ => {}
        }
    }
}
