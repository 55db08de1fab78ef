//! From what HTTP clients ask to operations and queries of the store, and back to answers. Pure.
//!
//! A read is answered by this replica alone once its state has taken in what the metadata names, and then shows all
//! counters of that state: so whoever hands them on never sees an older one. It waits for that as long as it was told
//! to. A write is judged where it is applied.

use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

use crate::limits::HTTP_ANSWER_WAIT_MS;
use crate::reactor::http::response::{Response, JSON};
use crate::reactor::http::route::{Asked, Sight};
use crate::reactor::http::session::{Refused, Session, Ticket, Told};
use crate::types::{ClientId, ReplicaId, Time};
use crate::wire::answer::Code;
use crate::wire::codec::Reader;
use crate::wire::kv::{Clock, Condition, Found, KvOperation, KvQuery, Listed, Needs, Outcome, Written};

/// A write waits no longer at a replica that is not in a primary view.
const OUTSIDE_WAIT_NS: u64 = 2_000 * Time::MS;
/// How often a session that could not be opened is tried for.
const OPEN_EVERY_NS: u64 = 250 * Time::MS;

/// Names a connection, once in a run.
pub type Caller = u64;
/// The door itself asks.
const NOBODY: Caller = 0;

/// Where the replica stands when it answers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Surroundings {
    /// Why it is not in a primary view that serves, if so.
    pub reason: Option<String>,
    /// It knows of no view yet, and has no state.
    pub blank: bool,
    /// The members of the newest view it knows, as far as it hears them.
    pub members: Vec<ReplicaId>,
    /// The HTTP addresses in the book.
    pub book: BTreeMap<ReplicaId, String>,
}

/// What an answer is for.
#[derive(Clone, Debug)]
enum Task {
    Get {
        key: String,
        sight: Sight,
    },
    List {
        prefix: String,
        after: String,
        count: usize,
        sight: Sight,
    },
    /// `is_put` and whether a condition was named.
    Write {
        is_put: bool,
        conditional: bool,
    },
    View,
    /// Who is known is asked before an address is admitted or removed.
    Change {
        address: String,
        adds: bool,
    },
    Changed {
        adds: bool,
    },
    Announce,
}

#[derive(Clone, Debug)]
struct Asking {
    caller: Caller,
    task: Task,
    since: Time,
}

/// Requests of all connections that are not answered yet.
#[derive(Debug)]
pub struct Door {
    replica: ReplicaId,
    /// Under which writes are counted that this door takes in.
    address: String,
    session: Session,
    asking: BTreeMap<Ticket, Asking>,
    last_ticket: Ticket,
    /// Reads whose metadata names more than the state had taken in, each with what is said when its time is over.
    parked: Vec<(Asking, Response)>,
    /// The address is in the replicated state, as far as this session knows.
    announced: bool,
    open_at: Time,
}

type Answered = Option<(Caller, Response)>;

impl Door {
    pub fn new(replica: ReplicaId, address: String, seed: u64) -> Door {
        Door {
            replica,
            address,
            session: Session::new(seed),
            asking: BTreeMap::new(),
            last_ticket: 0,
            parked: Vec::new(),
            announced: false,
            open_at: Time(0),
        }
    }

    /// The client that this door is to the core.
    pub fn client(&self) -> ClientId {
        self.session.client()
    }

    pub fn take_frames(&mut self) -> Vec<Vec<u8>> {
        self.session.take_frames()
    }

    pub fn has_frames(&self) -> bool {
        self.session.has_frames()
    }

    /// Bytes of writes under way.
    pub fn bytes(&self) -> usize {
        self.session.bytes()
    }

    /// Whether time matters to anyone here.
    pub fn is_waiting(&self) -> bool {
        !self.asking.is_empty() || !self.parked.is_empty() || self.is_unknown()
    }

    /// Takes a request. What can be answered at once is.
    pub fn ask(&mut self, now: Time, caller: Caller, asked: Asked) -> Option<Response> {
        let task = match asked {
            Asked::Get { key, sight } => Task::Get { key, sight },
            Asked::List { prefix, after, count, sight } => Task::List { prefix, after, count, sight },
            Asked::Put { key, value, needs, condition } => {
                let (address, key, value) = (self.address.as_str(), key.as_str(), value.as_str());
                let operation = encoded(&KvOperation::Put { address, needs, condition, key, value });
                return self.write(now, caller, Task::write(true, condition), operation);
            }
            Asked::Delete { key, needs, condition } => {
                let (address, key) = (self.address.as_str(), key.as_str());
                let operation = encoded(&KvOperation::Delete { address, needs, condition, key });
                return self.write(now, caller, Task::write(false, condition), operation);
            }
            Asked::View => Task::View,
            Asked::AddToView { address } => Task::Change { address, adds: true },
            Asked::RemoveFromView { address } => Task::Change { address, adds: false },
            Asked::Live | Asked::Ready | Asked::Status | Asked::Metrics => {
                return Some(Response::error(500, "this is not asked of the store"));
            }
        };
        self.read(Asking { caller, task, since: now });
        None
    }

    fn ticket(&mut self, asking: Asking) -> Ticket {
        self.last_ticket += 1;
        self.asking.insert(self.last_ticket, asking);
        self.last_ticket
    }

    fn write(&mut self, now: Time, caller: Caller, task: Task, operation: Vec<u8>) -> Option<Response> {
        let ticket = self.ticket(Asking { caller, task, since: now });
        let refused = self.session.request(ticket, operation).err()?;
        self.asking.remove(&ticket);
        Some(refusal(&refused))
    }

    fn read(&mut self, asking: Asking) {
        let (query, stale) = match &asking.task {
            Task::Get { key, sight } => (KvQuery::Get { key }, !sight.linearizable),
            Task::List { prefix, after, count, sight } => {
                (KvQuery::List { prefix, after, count: *count }, !sight.linearizable)
            }
            Task::Change { .. } => (KvQuery::Clock, false),
            _ => (KvQuery::Clock, true),
        };
        let mut bytes = Vec::new();
        query.encode(&mut bytes);
        let ticket = self.ticket(asking);
        self.session.query(ticket, stale, bytes);
    }

    /// This connection is gone; its writes may be done all the same.
    pub fn forget(&mut self, caller: Caller) {
        self.parked.retain(|(asking, _)| asking.caller != caller);
        let tickets: Vec<Ticket> =
            self.asking.iter().filter(|(_, asking)| asking.caller == caller).map(|(ticket, _)| *ticket).collect();
        for ticket in tickets {
            self.asking.remove(&ticket);
            self.session.abandon(ticket);
        }
    }

    /// The state has gone on: reads that wait for it are asked again.
    pub fn on_applied(&mut self) {
        std::mem::take(&mut self.parked).into_iter().for_each(|(asking, _)| self.read(asking));
    }

    pub fn on_hang_up(&mut self) {
        self.session.on_hang_up();
    }

    /// Opens the session where it is not, announces the address in each new one, and gives up what took too long.
    pub fn on_time(&mut self, now: Time, around: &Surroundings) -> Vec<(Caller, Response)> {
        if !self.session.is_open() && now >= self.open_at {
            self.open_at = now.after_ns(OPEN_EVERY_NS);
            self.announced = false;
            self.session.open();
        }
        self.announce(now);
        let mut answered = Vec::new();
        let late: Vec<Ticket> =
            self.asking.iter().filter(|(_, asking)| asking.is_late(now, around)).map(|(ticket, _)| *ticket).collect();
        for ticket in late {
            let Asking { caller, task, .. } = self.asking.remove(&ticket).expect("just found");
            self.session.abandon(ticket);
            self.announced &= !matches!(task, Task::Announce);
            let why = around.reason.as_deref().map_or("no answer in time".to_owned(), |r| format!("not primary: {r}"));
            let text = if task.is_write() { format!("{why}; it may be done all the same") } else { why };
            answered.push((caller, Response::error(503, &text)));
        }
        let parked = std::mem::take(&mut self.parked);
        let is_over = |(asking, _): &(Asking, Response)| now.since_ns(asking.since) >= asking.wait_ns();
        let (over, waits): (Vec<_>, Vec<_>) = parked.into_iter().partition(is_over);
        self.parked = waits;
        answered.extend(over.into_iter().map(|(asking, response)| (asking.caller, response)));
        answered
    }

    /// Whether the view does not know yet where this door is.
    pub fn is_unknown(&self) -> bool {
        !self.announced
    }

    /// The replica has begun to serve: what waits for that is tried at the next look.
    pub fn hurry(&mut self) {
        self.open_at = Time(0);
    }

    fn announce(&mut self, now: Time) {
        if self.session.is_open() && !self.announced {
            let operation = encoded(&KvOperation::Announce { replica: self.replica, address: &self.address });
            self.announced = self.write(now, NOBODY, Task::Announce, operation).is_none();
        }
    }

    /// What the core answered.
    pub fn hear(&mut self, now: Time, bytes: &[u8], around: &Surroundings) -> Vec<(Caller, Response)> {
        let (mut told, was_open) = (Vec::new(), self.session.is_open());
        self.session.hear(bytes, &mut told);
        if !was_open {
            self.announce(now);
        }
        told.into_iter().filter_map(|told| self.on_told(now, told, around)).collect()
    }

    fn on_told(&mut self, now: Time, told: Told, around: &Surroundings) -> Answered {
        let asking = self.asking.remove(&told.ticket)?;
        let caller = asking.caller;
        let response = match told.came {
            Err(_) if matches!(asking.task, Task::Announce) => {
                self.announced = false;
                return None;
            }
            Err(refused) => match (&asking.task, refused.code) {
                (Task::Write { is_put, conditional }, Code::NoKey) if *is_put || *conditional => {
                    Response::error(412, &refused.message)
                }
                _ => refusal(&refused),
            },
            Ok(fields) => self.on_answer(now, asking, &fields, around)?,
        };
        Some((caller, response))
    }

    /// The answer to what was asked; none where it is not the last word.
    fn on_answer(&mut self, now: Time, asking: Asking, fields: &[u8], around: &Surroundings) -> Option<Response> {
        let malformed = || Response::error(500, "an answer makes no sense");
        match &asking.task {
            Task::Get { key, sight } => {
                let Ok(found) = Found::decode(fields) else { return Some(malformed()) };
                let response = |stale| found_response(key, &found, stale);
                self.answer_read(now, &asking, sight, &found.clock, around, response)
            }
            Task::List { sight, .. } => {
                let Ok(listed) = Listed::decode(fields) else { return Some(malformed()) };
                let response = |stale| listed_response(&listed, stale);
                self.answer_read(now, &asking, sight, &listed.clock, around, response)
            }
            Task::Write { .. } => Some(Written::decode(fields).map_or_else(|_| malformed(), |w| written_response(&w))),
            Task::View => {
                let Ok(clock) = Clock::get(&mut Reader::new(fields)) else { return Some(malformed()) };
                Some(view_response(&clock, around))
            }
            Task::Change { address, adds } => {
                let Ok(clock) = Clock::get(&mut Reader::new(fields)) else { return Some(malformed()) };
                let (address, adds) = (address.clone(), *adds);
                self.change(now, asking.caller, &address, adds, &clock, around)
            }
            Task::Changed { adds: true } if fields == [1] => Some(result(201, "added")),
            Task::Changed { adds: true } => Some(result(200, "already present")),
            Task::Changed { adds: false } if fields == [1] => Some(result(200, "deleted")),
            Task::Changed { adds: false } => Some(Response::error(404, "it is not in the view")),
            Task::Announce => None,
        }
    }

    fn answer_read(
        &mut self,
        now: Time,
        asking: &Asking,
        sight: &Sight,
        clock: &Clock,
        around: &Surroundings,
        response: impl FnOnce(bool) -> Response,
    ) -> Option<Response> {
        if clock.is_removed(&self.address) {
            return Some(Response::error(503, &format!("{} was removed from the view", self.address)));
        }
        if around.blank {
            return Some(Response::error(503, around.reason.as_deref().unwrap_or("blank")));
        }
        if clock.may_answer(&sight.needs) {
            return Some(response(!sight.linearizable && around.reason.is_some()));
        }
        let not_here = Response::error(503, &clock.lack(&sight.needs));
        if now.since_ns(asking.since) >= asking.wait_ns() {
            return Some(not_here);
        }
        self.parked.push((asking.clone(), not_here));
        None
    }

    fn change(
        &mut self,
        now: Time,
        caller: Caller,
        address: &str,
        adds: bool,
        clock: &Clock,
        around: &Surroundings,
    ) -> Option<Response> {
        let removed = clock.is_removed(address);
        let announced = clock.0.get(address).is_some_and(|door| door.replica.is_some() || door.removed);
        let is_known = announced || around.book.values().any(|own| own == address);
        let operation = match (is_known, adds, removed) {
            (true, true, true) => KvOperation::Admit { address },
            (true, true, false) => return Some(result(200, "already present")),
            (true, false, false) => KvOperation::Remove { address },
            (true, false, true) => return Some(Response::error(404, &format!("{address} is not in the view"))),
            (false, ..) => return Some(Response::error(404, &format!("no replica announces {address}"))),
        };
        self.write(now, caller, Task::Changed { adds }, encoded(&operation))
    }
}

impl Task {
    fn write(is_put: bool, condition: Condition) -> Task {
        Task::Write { is_put, conditional: condition != Condition::Any }
    }

    fn is_write(&self) -> bool {
        matches!(self, Task::Write { .. } | Task::Changed { .. })
    }
}

impl Asking {
    fn wait_ns(&self) -> u64 {
        match &self.task {
            Task::Get { sight, .. } | Task::List { sight, .. } => sight.wait_ms * Time::MS,
            _ => 0,
        }
    }

    /// Whether it has been with the core for too long.
    fn is_late(&self, now: Time, around: &Surroundings) -> bool {
        let waited = now.since_ns(self.since);
        waited >= HTTP_ANSWER_WAIT_MS * Time::MS + self.wait_ns()
            || around.reason.is_some() && waited >= OUTSIDE_WAIT_NS + self.wait_ns()
    }
}

fn encoded(operation: &KvOperation<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes);
    bytes
}

fn result(status: u16, word: &str) -> Response {
    Response::json(status, &json!({ "result": word }))
}

fn refusal(refused: &Refused) -> Response {
    let Refused { code, maybe_done, message } = refused;
    let status = match code {
        Code::BadRequest => 400,
        Code::NoKey => 404,
        Code::Exists => 412,
        Code::TooLarge => 413,
        Code::Denied => 403,
        Code::Internal => 500,
        _ => 503,
    };
    let doubt = if *maybe_done { "; it may be done all the same" } else { "" };
    Response::error(status, &format!("{message}{doubt}"))
}

fn metadata(needs: &Needs) -> Value {
    Value::Object(needs.0.iter().map(|(address, &count)| (address.clone(), Value::from(count))).collect::<Map<_, _>>())
}

/// A JSON object of members whose values are text already.
fn object(members: &[(&str, &str)], stale: bool) -> String {
    let members = members.iter().copied().chain(stale.then_some(("stale", "true")));
    let members: Vec<String> = members.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}\n", members.join(","))
}

fn tagged(response: Response, version: u64) -> Response {
    response.with("ETag", format!("\"{version}\""))
}

fn found_response(key: &str, found: &Found<'_>, stale: bool) -> Response {
    let metadata = metadata(&found.clock.needs()).to_string();
    match found.value {
        Some((version, value)) => {
            let members = [("result", "\"found\""), ("value", value), ("causal-metadata", &metadata)];
            tagged(Response::new(200, JSON, object(&members, stale)), version)
        }
        None => {
            let error = Value::from(format!("there is no key {key}")).to_string();
            Response::new(404, JSON, object(&[("error", &error), ("causal-metadata", &metadata)], stale))
        }
    }
}

fn listed_response(listed: &Listed<'_>, stale: bool) -> Response {
    let row = |(key, version, value): &(&str, u64, &str)| {
        format!("{{\"key\":{},\"version\":{version},\"value\":{value}}}", Value::from(*key))
    };
    let rows = format!("[{}]", listed.rows.iter().map(row).collect::<Vec<_>>().join(","));
    let metadata = metadata(&listed.clock.needs()).to_string();
    let more = listed.more.to_string();
    let members = [("result", "\"listed\""), ("kvs", &rows), ("more", &more), ("causal-metadata", &metadata)];
    Response::new(200, JSON, object(&members, stale))
}

fn written_response(written: &Written) -> Response {
    let (status, word) = match written.outcome {
        Outcome::Created => (201, "created"),
        Outcome::Replaced => (200, "replaced"),
        Outcome::Deleted => (200, "deleted"),
    };
    let (result, metadata) = (format!("\"{word}\""), metadata(&written.clock.needs()).to_string());
    let body = object(&[("result", &result), ("causal-metadata", &metadata)], false);
    let response = Response::new(status, JSON, body);
    if written.outcome == Outcome::Deleted {
        return response;
    }
    tagged(response, written.version)
}

/// The addresses of the view's members, each as its replica announced it, or else as the book has it.
fn view_response(clock: &Clock, around: &Surroundings) -> Response {
    let announced = |id: ReplicaId| clock.0.iter().find(|(_, door)| door.replica == Some(id)).map(|(a, _)| a.as_str());
    let address = |id: &ReplicaId| announced(*id).or_else(|| around.book.get(id).map(String::as_str));
    let listed = around.members.iter().filter_map(address).filter(|address| !clock.is_removed(address));
    let mut body = json!({ "view": listed.collect::<Vec<_>>() });
    if around.reason.is_some() {
        body["stale"] = Value::Bool(true);
    }
    Response::json(200, &body)
}

#[cfg(test)]
mod tests;
