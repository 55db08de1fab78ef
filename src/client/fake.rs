//! A replica for tests and examples: the queues and a naive session table behind real sockets, shared by several
//! doors, each of which can be told to misbehave. What it promises is what a group promises: each (session, number)
//! is executed once.

use crate::client::servers::Server;
use crate::client::Client;
use crate::limits::BATCH_ITEMS_MAX;
use crate::service::queue::Queues;
use crate::service::{Answers, Service, Who};
use crate::types::{At, ClusterId, GroupTime, ReplicaId, RequestNumber, SessionId, Slot};
use crate::wire::answer::{error, split, Code};
use crate::wire::client::{first_frame, kind, Admin, ToClient, ToReplica, VERSION};
use crate::wire::codec::Reader;
use crate::wire::operation::{service, Items, QueueQuery, SessionOperation, Target};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What a door does to the next requests, in this order of precedence.
#[derive(Default, Debug, Clone)]
pub struct Mood {
    /// Executes the next so many requests, and closes the connection in place of each answer.
    pub drop_answers: u32,
    /// Closes the connection before the next so many requests are executed.
    pub drop_requests: u32,
    /// Refuses the next so many OPENs and requests with this code, and does not execute them.
    pub refuse: Option<(Code, u32)>,
    /// Answers the next so many requests with `full`, for ever, and until that is seen all later ones with `busy`.
    pub full: u32,
    /// Says nothing at all.
    pub mute: bool,
    /// Takes requests and says that it serves, and nothing more.
    pub stuck: bool,
    /// Answers everything twice.
    pub twice: bool,
    /// Answers HELLO with another version.
    pub foreign: bool,
}

/// The state all doors share, as a group does.
#[derive(Default, Debug)]
pub struct Group {
    pub queues: Queues,
    pub sessions: BTreeMap<SessionId, BTreeMap<RequestNumber, (Slot, Vec<u8>)>>,
    /// Operations executed, and requests that came again under their number.
    pub executed: u64,
    pub repeated: u64,
    /// For each session the request whose refusal is yet to be seen.
    pub gates: BTreeMap<SessionId, RequestNumber>,
    pub pings: u32,
    /// The order in which numbers were executed.
    pub numbers: Vec<u64>,
    pub ended: u64,
    slot: u64,
    time: GroupTime,
    pub moods: Vec<Mood>,
    /// Connections that each door took.
    pub connections: Vec<u32>,
}

/// Several doors to one group.
pub struct Fake {
    pub group: Arc<Mutex<Group>>,
    pub servers: Vec<Server>,
}

impl Fake {
    /// Opens so many doors on ports of the loopback device.
    pub fn new(doors: usize) -> Fake {
        let group = Arc::new(Mutex::new(Group::default()));
        let mut servers = Vec::new();
        for door in 0..doors {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            servers.push(Server::Tcp(listener.local_addr().expect("bound").to_string()));
            {
                let mut group = group.lock().expect("nobody panics with it");
                group.moods.push(Mood::default());
                group.connections.push(0);
            }
            let group = Arc::clone(&group);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let group = Arc::clone(&group);
                    std::thread::spawn(move || {
                        Door { group, door, session: SessionId::NONE, gate: None }.serve(stream)
                    });
                }
            });
        }
        Fake { group, servers }
    }

    /// A client of all its doors.
    pub fn client(&self) -> Client {
        Client::new(self.servers.clone(), PATIENT)
    }

    pub fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().expect("nobody panics with it")
    }
}

struct Door {
    group: Arc<Mutex<Group>>,
    door: usize,
    session: SessionId,
    /// The lowest number refused here: higher ones are refused until it returns.
    gate: Option<RequestNumber>,
}

impl Door {
    fn serve(&mut self, mut stream: TcpStream) {
        self.group.lock().expect("sound").connections[self.door] += 1;
        let (mut buffer, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let mut out = Vec::new();
            while let Some((frame, taken)) = first_frame(&buffer).expect("a client speaks the protocol") {
                let frame = ToReplica::decode(frame).expect("a client speaks the protocol");
                let goes_on = self.on_frame(frame, &mut out);
                buffer.drain(..taken);
                if !goes_on {
                    let _ = stream.write_all(&out);
                    return;
                }
            }
            if stream.write_all(&out).is_err() {
                return;
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn on_frame(&mut self, frame: ToReplica<'_>, out: &mut Vec<u8>) -> bool {
        let shared = Arc::clone(&self.group);
        let mut group = shared.lock().expect("sound");
        let mood = group.moods[self.door].clone();
        if mood.mute {
            return true;
        }
        match frame {
            ToReplica::Hello { .. } if mood.foreign => refuse(out, kind::HELLO, 0, Code::Version),
            ToReplica::Hello { .. } => {
                let replica = ReplicaId(self.door as u8 + 1);
                ToClient::Welcome { version: VERSION, cluster: ClusterId(7), replica }.encode(out);
            }
            ToReplica::Open { token } => match group.refusal(self.door) {
                Some(code) => refuse(out, kind::OPEN, token, code),
                None => {
                    group.slot += 1;
                    self.session = SessionId { slot: Slot(group.slot), position: 0, digest: 1 };
                    group.sessions.insert(self.session, BTreeMap::new());
                    ToClient::Opened { token, session: self.session }.encode(out);
                }
            },
            ToReplica::Use { session, .. } => self.session = session,
            ToReplica::Ping { number } => {
                group.pings += 1;
                ToClient::Pong { number }.encode(out);
            }
            ToReplica::Request { .. } if mood.stuck => {}
            ToReplica::Request { number, seen, operation } => {
                let session = self.session;
                group.gates.retain(|&id, gate| id != session || *gate > seen);
                return self.on_request(&mut group, number, operation, out);
            }
            ToReplica::Query { number, query, .. } => {
                let answer = group.query(query);
                let slot = Slot(group.slot);
                ToClient::Found { number, slot, answer: &answer }.encode(out);
            }
            ToReplica::Admin { number, what } => {
                let json = match what {
                    Admin::Status => r#"{"id":1,"state":"regular","primary":true,"members":[1,2]}"#,
                    Admin::Members => r#"[{"id":1,"address":"a:1","state":"regular"}]"#,
                    Admin::Ready => r#"{"ready":true,"reason":""}"#,
                };
                ToClient::Told { number, json }.encode(out);
            }
        }
        true
    }

    fn on_request(&mut self, group: &mut Group, number: RequestNumber, operation: &[u8], out: &mut Vec<u8>) -> bool {
        let mood = &mut group.moods[self.door];
        if mood.drop_requests > 0 {
            mood.drop_requests -= 1;
            return false;
        }
        let twice = mood.twice;
        if let Some(code) = group.refusal(self.door) {
            self.gate = Some(self.gate.map_or(number, |gate| gate.min(number)));
            refuse(out, kind::REQUEST, number.0, code);
            return true;
        }
        match self.gate {
            Some(gate) if number > gate => {
                refuse(out, kind::REQUEST, number.0, Code::Busy);
                return true;
            }
            _ => self.gate = None,
        }
        if !group.sessions.contains_key(&self.session) {
            refuse(out, kind::REQUEST, number.0, Code::Expired);
            return true;
        }
        let (slot, answer) = group.execute(self.session, number, operation);
        let mood = &mut group.moods[self.door];
        if mood.drop_answers > 0 {
            mood.drop_answers -= 1;
            return false;
        }
        for _ in 0..=u32::from(twice) {
            ToClient::Reply { number, slot, answer: &answer }.encode(out);
        }
        true
    }
}

fn refuse(out: &mut Vec<u8>, refused: u8, number: u64, code: Code) {
    ToClient::Refused { refused, number, code, maybe_done: false, message: "because" }.encode(out);
}

impl Group {
    fn refusal(&mut self, door: usize) -> Option<Code> {
        let (code, times) = self.moods[door].refuse.as_mut()?;
        *times = times.checked_sub(1)?;
        Some(*code)
    }

    fn execute(&mut self, session: SessionId, number: RequestNumber, operation: &[u8]) -> (Slot, Vec<u8>) {
        if let Some(answer) = self.sessions[&session].get(&number) {
            self.repeated += 1;
            return answer.clone();
        }
        self.slot += 1;
        if let Some(code) = self.gate(session, number) {
            let answer = (Slot(self.slot), error(code, "because"));
            self.sessions.entry(session).or_default().insert(number, answer.clone());
            return answer;
        }
        self.executed += 1;
        self.numbers.push(number.0);
        let answer = match operation[0] {
            service::QUEUE => self.apply(Who { session, number }, &operation[1..]),
            _ => {
                assert_eq!(SessionOperation::decode(&operation[1..]), Ok(SessionOperation::End));
                self.ended += 1;
                vec![0]
            }
        };
        let answer = (Slot(self.slot), answer);
        self.sessions.entry(session).or_default().insert(number, answer.clone());
        answer
    }

    /// How a new request is refused when it is applied, if it is.
    fn gate(&mut self, session: SessionId, number: RequestNumber) -> Option<Code> {
        if self.gates.get(&session).is_some_and(|&gate| number > gate) {
            return Some(Code::Busy);
        }
        let mood = self.moods.iter_mut().find(|mood| mood.full > 0)?;
        mood.full -= 1;
        self.gates.insert(session, number);
        Some(Code::Full)
    }

    /// Who waits is answered at once: nobody else comes while a door has the group to itself.
    fn apply(&mut self, who: Who, operation: &[u8]) -> Vec<u8> {
        let mut out = Answers::default();
        let at = |group: &Group| At { slot: Slot(group.slot), position: 0, time: group.time };
        self.time.0 += 1_000_000;
        self.queues.tick(at(self), &mut out);
        self.queues.apply(at(self), who, operation, &mut out);
        loop {
            if let Some((_, answer)) = out.iter().find(|(answered, _)| *answered == who) {
                return answer.to_vec();
            }
            let Some(due) = self.queues.due() else { break };
            self.time = due;
            self.queues.tick(at(self), &mut out);
        }
        self.queues.ended(who.session, &mut out);
        error(Code::Busy, "nobody would ever answer this")
    }

    fn query(&self, query: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        self.queues.query(&query[1..], &mut answer);
        answer
    }

    /// The items of the queue with the lowest id, from the front.
    pub fn items(&self) -> Vec<Vec<u8>> {
        let (mut query, count) = (Vec::new(), BATCH_ITEMS_MAX);
        QueueQuery::Peek { target: Target::Id(1), count }.encode(&mut query);
        match split(&self.query(&query)) {
            Ok((Code::Ok, body)) => items_of(body),
            _ => Vec::new(),
        }
    }
}

/// The items of an answer's body.
pub fn items_of(body: &[u8]) -> Vec<Vec<u8>> {
    let items = Items::decode(&mut Reader::new(body), 4096).expect("a list");
    items.iter().map(<[u8]>::to_vec).collect()
}

/// Long enough for anything that works.
pub const PATIENT: Duration = Duration::from_secs(10);
